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
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/cage.h"
#include "net/nat/nat.h"

/* By how often they are called. */
static const int busy_calls[] = {
	SYS_poll,  SYS_recvmmsg, SYS_sendmmsg, SYS_recvfrom, SYS_sendto,	SYS_read,	  SYS_write,
	SYS_readv, SYS_writev,	 SYS_recvmsg,  SYS_sendmsg,  SYS_clock_gettime, SYS_gettimeofday, SYS_time,
};
static const int other_calls[] = {
	SYS_connect,	SYS_accept,	SYS_accept4,  SYS_getsockname, SYS_getpeername,	    SYS_getsockopt,
	SYS_setsockopt, SYS_shutdown,	SYS_close,    SYS_fcntl,       SYS_brk,		    SYS_munmap,
	SYS_mremap,	SYS_madvise,	SYS_futex,    SYS_getrandom,   SYS_restart_syscall, SYS_rt_sigreturn,
	SYS_exit_group,
};

struct error *nat_sandbox_enter(void)
{
	static const uint32_t family[] = { AF_INET }, request[] = { FIONREAD };
	struct error *err = cage_give_up_privileges();
	struct cage_filter f;
	int rc;

	if (err)
		return err;
	rc = cage_enter_landlock(-1, 0, true);
	if (rc && rc != ENOSYS)
		return error_errno(rc, "cannot give up the file system");
	cage_begin(&f);
	cage_allow(&f, busy_calls, ARRAY_SIZE(busy_calls));
	cage_allow_with(&f, SYS_socket, 0, family, 1);
	cage_allow(&f, other_calls, ARRAY_SIZE(other_calls));
	cage_allow_with(&f, SYS_ioctl, 1, request, 1);
	cage_allow_memory(&f);
	rc = cage_install(&f, 0);
	return rc ? error_errno(rc, "cannot install the system call filter") : NULL;
}
