// SPDX-License-Identifier: Apache-2.0
/*
 * The sandbox of maru-vm; see sandbox.h.
 *
 * Theory of operation. Two stages. Early, while the process is single-threaded, it moves into namespaces of
 * its own with an empty tmpfs for a root. Late, when all threads exist and before any vCPU runs, Landlock
 * forbids every access to files and seccomp installs allow-lists: one for all threads (TSYNC), which is
 * what the disk workers keep, and a narrower one on top in each vCPU thread and in the loop's. Filters
 * stack, the strictest answer wins. A system call that is not allowed kills the process.
 *
 * Lists are written by hand from what glibc, our event loop and our back ends call; a call with dangerous
 * variants is allowed only with the arguments given here: mmap and mprotect without PROT_EXEC, madvise only to
 * give memory back, tgkill only to ourselves, prctl only to name a thread.
 */
#include "vm/sandbox.h"

#include <assert.h>
#include <errno.h>
#include <asm/prctl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cage.h"
#include "base/util.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Newer than the kernel headers of Debian 12. */
#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1 << 1)
#endif
#ifndef __NR_futex_waitv
#define __NR_futex_waitv 449
#endif

/* ---- Namespaces ------------------------------------------------------------------------------- */

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* The new user namespace knows us as nobody but ourselves. */
static void map_ids(uid_t uid, gid_t gid)
{
	char line[64];

	write_file("/proc/self/setgroups", "deny");
	snprintf(line, sizeof(line), "65534 %u 1", uid);
	write_file("/proc/self/uid_map", line);
	snprintf(line, sizeof(line), "65534 %u 1", gid);
	write_file("/proc/self/gid_map", line);
}

/* A tmpfs of no size over /tmp becomes the root; the old one is detached from under it. */
static bool enter_empty_root(void)
{
	if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=2,mode=0555") < 0 ||
	    chdir("/tmp") < 0)
		return false;
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return false;
	return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0;
}

void sandbox_isolate(struct sandbox *s)
{
	uid_t uid = getuid();
	gid_t gid = getgid();

	if (SANITIZED) {
		s->namespaces = s->empty_root = "off: this is a sanitizer build";
		return;
	}
	s->empty_root = "off: the host does not allow it";
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) < 0) {
		s->namespaces = "off: the host does not allow user namespaces";
		return;
	}
	map_ids(uid, gid);
	s->namespaces = SANDBOX_IN_FORCE;
	if (enter_empty_root())
		s->empty_root = SANDBOX_IN_FORCE;
}

/* ---- Landlock ---------------------------------------------------------------------------------- */

/* Binds the calling thread and its children: the other threads have seccomp, and cannot open either. */
static const char *landlock(void)
{
	int rc = cage_enter_landlock(-1, 0, false);

	if (rc == ENOSYS)
		return "off: this kernel does not have it";
	return rc ? "off: this kernel refuses it" : SANDBOX_IN_FORCE;
}

/* ---- seccomp ----------------------------------------------------------------------------------- */

/* What every thread needs: memory, locks, time, signals to handle a fault or an assert, and to end. */
static const int common_calls[] = {
	__NR_futex, __NR_read, __NR_write, __NR_writev, __NR_close, __NR_munmap, __NR_mremap,
	__NR_brk, __NR_clock_gettime, __NR_clock_nanosleep, __NR_nanosleep, __NR_gettimeofday,
	__NR_sched_yield, __NR_rt_sigreturn, __NR_rt_sigprocmask, __NR_rt_sigaction, __NR_sigaltstack,
	__NR_getpid, __NR_gettid, __NR_exit, __NR_exit_group, __NR_restart_syscall, __NR_rseq,
	__NR_set_robust_list, __NR_getrandom, __NR_fstat, __NR_newfstatat, __NR_membarrier,
	__NR_sched_getaffinity, __NR_futex_waitv, __NR_lseek,
};
/* Devices run on the thread that touches them: a vCPU, or the loop. */
static const int device_calls[] = {
	__NR_epoll_ctl, __NR_timerfd_settime, __NR_sendto, __NR_sendmsg, __NR_sendmmsg, __NR_recvfrom,
	__NR_recvmsg, __NR_recvmmsg, __NR_readv, __NR_poll, __NR_ppoll, __NR_shutdown,
};
static const int loop_calls[] = {
	__NR_epoll_wait, __NR_epoll_pwait, __NR_accept4, __NR_fcntl, __NR_getsockopt, __NR_setsockopt,
	__NR_preadv, __NR_pread64, __NR_pwritev, __NR_pwrite64, __NR_fdatasync, __NR_fsync, __NR_fallocate,
	__NR_ftruncate, __NR_flock,
};
/* Files that are open, by the disk workers; seccomp itself so that threads can narrow their own list. */
static const int worker_calls[] = {
	__NR_preadv, __NR_preadv2, __NR_pwritev, __NR_pwritev2, __NR_pread64, __NR_pwrite64, __NR_fdatasync,
	__NR_fsync, __NR_fallocate, __NR_ftruncate, __NR_flock, __NR_sync_file_range, __NR_copy_file_range,
	__NR_getrusage, __NR_seccomp,
};

#define ALLOW(f, calls) cage_allow(f, calls, ARRAY_SIZE(calls))

static void allow_common(struct cage_filter *f, const struct sandbox *s)
{
	/* free() and the end of a thread; memory that the guest gives back. */
	static const uint32_t advice[] = { MADV_DONTNEED, MADV_REMOVE }, name[] = { PR_SET_NAME }, gs[] = { ARCH_SET_GS };
	const uint32_t self[] = { (uint32_t)getpid() };

	cage_begin(f);
	ALLOW(f, common_calls);
	cage_allow_memory(f);
	cage_allow_with(f, __NR_madvise, 2, advice, ARRAY_SIZE(advice));
	cage_allow_with(f, __NR_tgkill, 0, self, 1);
	cage_allow_with(f, __NR_prctl, 0, name, 1);
	if (s->ioctl_count)
		cage_allow_with(f, __NR_ioctl, 1, s->ioctls, s->ioctl_count);
	cage_refuse(f, __NR_ioctl, ENOTTY); /* isatty() of stdio */
	cage_refuse(f, __NR_openat, EACCES); /* free() in a thread looks for /proc/sys/vm/overcommit_memory */
	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)) /* the translator's GS base where WRGSBASE is not to be had */
		cage_allow_with(f, __NR_arch_prctl, 0, gs, 1);
}

static const char *seccomp_all(const struct sandbox *s)
{
	struct cage_filter f;

	allow_common(&f, s);
	ALLOW(&f, device_calls);
	ALLOW(&f, loop_calls);
	ALLOW(&f, worker_calls);
	return cage_install(&f, SECCOMP_FILTER_FLAG_TSYNC) ? "off: this kernel refuses it" : SANDBOX_IN_FORCE;
}

void sandbox_narrow(struct sandbox *s, enum sandbox_thread kind)
{
	struct cage_filter f;

	if (strcmp(s->seccomp, SANDBOX_IN_FORCE) != 0)
		return;
	allow_common(&f, s);
	ALLOW(&f, device_calls);
	if (kind == SANDBOX_LOOP)
		ALLOW(&f, loop_calls);
	/* The wider list stays in force when this cannot be: a kernel that took that one takes this one. */
	cage_install(&f, 0);
}

/* ---- All together ------------------------------------------------------------------------------ */

static const char *limits(void)
{
	struct rlimit none = { 0, 0 }, files;
	int next = dup(0);

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return "off: the host refuses it";
	/* Room for connections (64 of virtio sockets, 16 of control …); what is open stays open. */
	if (next < 0)
		next = 64;
	else
		close(next);
	files.rlim_cur = files.rlim_max = next + 128;
	return setrlimit(RLIMIT_NOFILE, &files) < 0 ? "off: the host refuses it" : SANDBOX_IN_FORCE;
}

struct error *sandbox_lock_down(struct sandbox *s)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(errno, "the sandbox cannot be set up: no_new_privs is refused");
	s->no_new_privs = SANDBOX_IN_FORCE;
	if (SANITIZED) {
		s->limits = s->landlock = s->seccomp = "off: this is a sanitizer build";
		return NULL;
	}
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	s->limits = limits();
	s->landlock = landlock();
	s->seccomp = seccomp_all(s);
	return NULL;
}
