// SPDX-License-Identifier: Apache-2.0
/*
 * The cage of maru-nat. libslirp parses what the guest sends; whoever takes it over is to find nothing:
 *
 *	no files		Landlock with an empty ruleset, and no system call that opens or names one
 *	no processes		no fork, exec, ptrace, kill; no debugger or core dump of this process either
 *	no executable memory	mmap and mprotect without PROT_EXEC
 *	sockets			IPv4 TCP, UDP and ICMP-echo sockets, made and connected: its purpose; no listening
 *
 * The filter is an allow-list; what is not on it kills the process. Landlock is used as far as the
 * kernel has it; the filter does not depend on it.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "net/nat/nat.h"

/* Landlock's interface, for headers that are older than the kernel. */
#define LANDLOCK_CREATE_RULESET 444
#define LANDLOCK_RESTRICT_SELF 446
#define LANDLOCK_VERSION_FLAG 1u
#define LANDLOCK_NET_BIND_TCP 1u
#define LANDLOCK_SCOPE_ABSTRACT_UNIX 1u
#define LANDLOCK_SCOPE_SIGNAL 2u
struct landlock_ruleset {
	uint64_t fs, net, scoped;
};

static struct error *enter_landlock(void)
{
	/* What each version can forbid: file accesses, as a number of bits from the lowest on. */
	static const unsigned fs_bits[] = { 0, 13, 14, 15, 15, 16 };
	long version = syscall(LANDLOCK_CREATE_RULESET, NULL, 0, LANDLOCK_VERSION_FLAG);
	struct landlock_ruleset rules = { 0 };
	size_t size = sizeof(rules.fs);
	int fd;

	if (version < 1)
		return NULL; /* not there */
	rules.fs = (1ull << fs_bits[MIN((size_t)version, ARRAY_SIZE(fs_bits) - 1)]) - 1;
	if (version >= 4) {
		rules.net = LANDLOCK_NET_BIND_TCP;
		size = offsetof(struct landlock_ruleset, scoped);
	}
	if (version >= 6) {
		rules.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX | LANDLOCK_SCOPE_SIGNAL;
		size = sizeof(rules);
	}
	fd = (int)syscall(LANDLOCK_CREATE_RULESET, &rules, size, 0);
	if (fd < 0 || syscall(LANDLOCK_RESTRICT_SELF, fd, 0) < 0)
		return error_errno(errno, "cannot give up the file system");
	close(fd);
	return NULL;
}

#define ARG(n) offsetof(struct seccomp_data, args[n]) /* low half: little-endian */
#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(offset))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define CALL(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), ALLOW
/* System call @name, allowed when argument @n is @value; six statements. */
#define CALL_IF_EQUAL(name, n, value)                                                \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 4), LOAD(ARG(n)),         \
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, 1), ALLOW, \
		KILL
/* … when argument @n has none of the bits @mask. */
#define CALL_IF_CLEAR(name, n, mask)                                                 \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 4), LOAD(ARG(n)),         \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(mask), 1, 0), ALLOW, \
		KILL

static const struct sock_filter filter[] = {
	LOAD(offsetof(struct seccomp_data, arch)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
	KILL,
	LOAD(offsetof(struct seccomp_data, nr)),
	/* By how often they are called. */
	CALL(poll),
	CALL(recvmmsg),
	CALL(sendmmsg),
	CALL(recvfrom),
	CALL(sendto),
	CALL(read),
	CALL(write),
	CALL(readv),
	CALL(writev),
	CALL(recvmsg),
	CALL(sendmsg),
	CALL(clock_gettime),
	CALL(gettimeofday),
	CALL(time),
	CALL_IF_EQUAL(socket, 0, AF_INET),
	CALL(connect),
	CALL(accept),
	CALL(accept4),
	CALL(getsockname),
	CALL(getpeername),
	CALL(getsockopt),
	CALL(setsockopt),
	CALL(shutdown),
	CALL(close),
	CALL(fcntl),
	CALL_IF_EQUAL(ioctl, 1, FIONREAD),
	CALL(brk),
	CALL_IF_CLEAR(mmap, 2, PROT_EXEC),
	CALL_IF_CLEAR(mprotect, 2, PROT_EXEC),
	CALL(munmap),
	CALL(mremap),
	CALL(madvise),
	CALL(futex),
	CALL(getrandom),
	CALL(restart_syscall),
	CALL(rt_sigreturn),
	CALL(exit_group),
	KILL,
};

struct error *nat_sandbox_enter(void)
{
	struct sock_fprog program = { ARRAY_SIZE(filter), (struct sock_filter *)filter };
	struct rlimit none = { 0, 0 };
	struct error *err;

	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(errno, "cannot give up privileges");
	err = enter_landlock();
	if (err)
		return err;
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return error_errno(errno, "cannot install the system call filter");
	return NULL;
}
