// SPDX-License-Identifier: Apache-2.0
/*
 * The cage of maru-share: one folder, and nothing else.
 *
 *	files		Landlock, with one rule: what is beneath the folder, even for descriptors of folders that were
 *			moved out of it meanwhile; with readonly, reading only
 *	no processes	no fork, exec, ptrace, kill; no debugger or core dump of this process either
 *	no sockets	but the one to the VM
 *
 * The filter is an allow-list; what is not on it kills the process. Where the kernel has no Landlock, tree.c alone keeps to
 * the folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "share/share.h"

/* Landlock's interface, for headers that are older than the kernel. */
#define FS_REFER (1ull << 13)
#define FS_TRUNCATE (1ull << 14)
#define NET_BOTH 3ull
#define SCOPE_BOTH 3ull
struct ruleset {
	uint64_t fs, net, scoped;
};

#define READING (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define CHANGING                                                                                                  \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |         \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SYM | FS_REFER | FS_TRUNCATE)

static struct error *enter_landlock(int dir_fd, bool readonly)
{
	/* What each version can forbid: file accesses, as a number of bits from the lowest on. */
	static const unsigned fs_bits[] = { 0, 13, 14, 15, 15, 16 };
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_path_beneath_attr rule = { .parent_fd = dir_fd };
	struct ruleset rules = { 0 };
	size_t size = sizeof(rules.fs);
	int fd;

	if (version < 1) {
		log_info("this kernel has no Landlock");
		return NULL;
	}
	rules.fs = (1ull << fs_bits[MIN((size_t)version, ARRAY_SIZE(fs_bits) - 1)]) - 1;
	if (version >= 4) {
		rules.net = NET_BOTH;
		size = offsetof(struct ruleset, scoped);
	}
	if (version >= 6) {
		rules.scoped = SCOPE_BOTH;
		size = sizeof(rules);
	}
	rule.allowed_access = (readonly ? READING : READING | CHANGING) & rules.fs;
	fd = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
	if (fd < 0 || syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0 ||
	    syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return error_errno(errno, "cannot give up the rest of the file system");
	close(fd);
	return NULL;
}

#define ARG(n) offsetof(struct seccomp_data, args[n]) /* low half: little-endian */
#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(offset))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define CALL(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), ALLOW
/* System call @name, allowed when argument @n has none of the bits @mask. */
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
	CALL(recvfrom), CALL(sendto), CALL(pread64), CALL(pwrite64), CALL(fstat), CALL(newfstatat), CALL(openat2),
	CALL(openat), CALL(close), CALL(fcntl), CALL(getdents64), CALL(lseek), CALL(fstatfs), CALL(fsync),
	CALL(fdatasync), CALL(ftruncate), CALL(mkdirat), CALL(unlinkat), CALL(renameat), CALL(symlinkat),
	CALL(readlinkat), CALL(linkat), CALL(fchmodat), CALL(utimensat),
	CALL(write), CALL(writev), CALL(clock_gettime), CALL(brk),
	CALL_IF_CLEAR(mmap, 2, PROT_EXEC), CALL_IF_CLEAR(mprotect, 2, PROT_EXEC),
	CALL(munmap), CALL(mremap), CALL(madvise), CALL(futex), CALL(getrandom), CALL(restart_syscall),
	CALL(rt_sigreturn), CALL(exit_group),
	KILL,
};

struct error *share_sandbox_enter(int dir_fd, bool readonly)
{
	struct sock_fprog program = { ARRAY_SIZE(filter), (struct sock_filter *)filter };
	struct rlimit none = { 0, 0 };
	struct error *err;

	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(errno, "cannot give up privileges");
	err = enter_landlock(dir_fd, readonly);
	if (err)
		return err;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return error_errno(errno, "cannot install the system call filter");
	return NULL;
}
