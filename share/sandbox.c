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
#include <linux/landlock.h>
#include <sys/syscall.h>

#include "base/cage.h"
#include "base/log.h"
#include "share/share.h"

#define READING (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define CHANGING                                                                                          \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SYM | CAGE_FS_REFER | CAGE_FS_TRUNCATE)

/* By how often they are called. */
static const int calls[] = {
	SYS_recvmsg,	SYS_sendmsg,   SYS_pread64,    SYS_pwrite64,   SYS_fstat,     SYS_newfstatat,	SYS_openat2,
	SYS_openat,	SYS_close,     SYS_getdents64, SYS_lseek,      SYS_fstatfs,   SYS_fsync,	SYS_fdatasync,
	SYS_ftruncate,	SYS_fallocate, SYS_mkdirat,    SYS_unlinkat,   SYS_renameat2, SYS_symlinkat,	SYS_readlinkat,
	SYS_linkat,	SYS_fchmodat,  SYS_utimensat,  SYS_syncfs,     SYS_write,     SYS_writev,	SYS_clock_gettime,
	SYS_brk,	SYS_munmap,    SYS_mremap,     SYS_madvise,    SYS_futex,     SYS_getrandom,	SYS_restart_syscall,
	SYS_rt_sigreturn, SYS_exit_group,
};

struct error *share_sandbox_enter(int dir_fd, bool readonly)
{
	struct error *err = cage_give_up_privileges();
	struct cage_filter f;
	int rc;

	if (err)
		return err;
	rc = cage_enter_landlock(dir_fd, readonly ? READING : READING | CHANGING, false);
	if (rc == ENOSYS)
		log_info("this kernel has no Landlock");
	else if (rc)
		return error_errno(rc, "cannot give up the rest of the file system");
	cage_begin(&f);
	cage_allow(&f, calls, ARRAY_SIZE(calls));
	cage_allow_memory(&f);
	rc = cage_install(&f, 0);
	return rc ? error_errno(rc, "cannot install the system call filter") : NULL;
}
