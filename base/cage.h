/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process can give up for good, before it listens to somebody it does not trust: privileges, files (Landlock),
 * system calls (seccomp). Which of it, is each program's own list: vm/sandbox.c, net/nat/sandbox.c, share/sandbox.c.
 *
 * Only for start-up; each call binds the calling thread and what it makes.
 */
#ifndef BASE_CAGE_H
#define BASE_CAGE_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* No core dumps, no new privileges, no debugger of the same user. */
struct error *cage_give_up_privileges(void) MUST_CHECK;

/* ---- Files ---- */

/* Kinds of access that kernel headers may not have yet; the others are LANDLOCK_ACCESS_FS_… of linux/landlock.h. */
#define CAGE_FS_REFER (1ull << 13)
#define CAGE_FS_TRUNCATE (1ull << 14)

/*
 * Forbids all accesses to files that this kernel's Landlock knows of, but @allowed beneath the folder @dir_fd (-1: none at
 * all); to bind TCP ports and, unless @connect, to connect; to reach abstract sockets and processes outside.
 * 0: in force; otherwise an errno value, ENOSYS where the kernel does not have it or it is not enabled.
 */
int cage_enter_landlock(int dir_fd, uint64_t allowed, bool connect);

/* ---- System calls ---- */

/*
 * An allow-list in the making. Begin, allow, install: what is on no list then kills the process. Arguments are looked at
 * by their low halves.
 */
#define CAGE_CODE_MAX 384u
struct cage_filter {
	struct sock_filter code[CAGE_CODE_MAX];
	unsigned length;
};

void cage_begin(struct cage_filter *f); /* x86-64 system calls only, not those of x32 */
void cage_allow(struct cage_filter *f, const int *calls, unsigned count);
void cage_allow_without(struct cage_filter *f, int call, unsigned arg, uint32_t mask); /* if none of the bits is set */
void cage_allow_with(struct cage_filter *f, int call, unsigned arg, const uint32_t *values, unsigned count); /* if one of them */
void cage_refuse(struct cage_filter *f, int call, int error); /* does not kill: libraries try it and do without */
void cage_allow_memory(struct cage_filter *f); /* mmap and mprotect, without PROT_EXEC */
/* @flags: SECCOMP_FILTER_FLAG_…. 0, or an errno value. Filters stack; the strictest answer wins. */
int cage_install(struct cage_filter *f, unsigned flags);

#endif
