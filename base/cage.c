// SPDX-License-Identifier: Apache-2.0
/*
 * What the sandboxes of our programs have in common; see cage.h.
 *
 * Theory of operation. Landlock's interface grew by versions: a kernel takes the beginning of the structure that it knows,
 * and refuses accesses that it does not. So all is asked for that its version has, and what a rule allows is cut
 * to that. A seccomp filter is a BPF program over the call's number and arguments; ours are lists of "is it this one? then
 * allow", in the order of how often they are called, with the number loaded whenever a list goes on.
 */
#include "base/cage.h"

#include <assert.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

struct error *cage_give_up_privileges(void)
{
	struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return error_errno(errno, "cannot give up privileges");
	return NULL;
}

/* ---- Landlock ---------------------------------------------------------------------------------- */

#define NET_BIND_TCP 1ull
#define NET_CONNECT_TCP 2ull
#define SCOPE_BOTH 3ull /* abstract Unix sockets, signals */
struct ruleset {
	uint64_t fs, net, scoped;
};

int cage_enter_landlock(int dir_fd, uint64_t allowed, bool connect)
{
	/* What each version can forbid: file accesses, as a number of bits from the lowest on. */
	static const unsigned fs_bits[] = { 0, 13, 14, 15, 15, 16 };
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_path_beneath_attr rule = { .parent_fd = dir_fd };
	struct ruleset rules = { 0 };
	size_t size = sizeof(rules.fs);
	int fd, rc = 0;

	if (version < 1)
		return ENOSYS;
	rules.fs = (1ull << fs_bits[MIN((size_t)version, ARRAY_SIZE(fs_bits) - 1)]) - 1;
	if (version >= 4) {
		rules.net = NET_BIND_TCP | (connect ? 0 : NET_CONNECT_TCP);
		size = offsetof(struct ruleset, scoped);
	}
	if (version >= 6) {
		rules.scoped = SCOPE_BOTH;
		size = sizeof(rules);
	}
	rule.allowed_access = allowed & rules.fs;
	fd = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
	if (fd < 0)
		return errno;
	if ((dir_fd >= 0 && syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0) ||
	    syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		rc = errno;
	close(fd);
	return rc;
}

/* ---- seccomp ----------------------------------------------------------------------------------- */

#define OFFSET(member) offsetof(struct seccomp_data, member)
#define X32_CALLS 0x40000000u

static void emit(struct cage_filter *f, unsigned code, unsigned jt, unsigned jf, uint32_t k)
{
	assert(f->length < CAGE_CODE_MAX && jt < 256 && jf < 256);
	f->code[f->length++] = (struct sock_filter)BPF_JUMP((uint16_t)code, k, (uint8_t)jt, (uint8_t)jf);
}

static void load(struct cage_filter *f, size_t offset)
{
	emit(f, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

static void load_arg(struct cage_filter *f, unsigned arg)
{
	load(f, OFFSET(args) + 8 * arg); /* the low half: little-endian */
}

static void answer(struct cage_filter *f, uint32_t action)
{
	emit(f, BPF_RET | BPF_K, 0, 0, action);
}

/* Goes on after @skip statements unless what is loaded is @value. */
static void unless_skip(struct cage_filter *f, uint32_t value, unsigned skip)
{
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, 0, skip, value);
}

void cage_begin(struct cage_filter *f)
{
	f->length = 0;
	load(f, OFFSET(arch));
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64);
	answer(f, SECCOMP_RET_KILL_PROCESS);
	load(f, OFFSET(nr));
	emit(f, BPF_JMP | BPF_JGE | BPF_K, 0, 1, X32_CALLS);
	answer(f, SECCOMP_RET_KILL_PROCESS);
}

void cage_allow(struct cage_filter *f, const int *calls, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		unless_skip(f, (uint32_t)calls[i], 1);
		answer(f, SECCOMP_RET_ALLOW);
	}
}

void cage_allow_without(struct cage_filter *f, int call, unsigned arg, uint32_t mask)
{
	unless_skip(f, (uint32_t)call, 4);
	load_arg(f, arg);
	emit(f, BPF_JMP | BPF_JSET | BPF_K, 1, 0, mask);
	answer(f, SECCOMP_RET_ALLOW);
	load(f, OFFSET(nr));
}

void cage_allow_with(struct cage_filter *f, int call, unsigned arg, const uint32_t *values, unsigned count)
{
	unless_skip(f, (uint32_t)call, 2 + 2 * count);
	load_arg(f, arg);
	for (unsigned i = 0; i < count; i++) {
		unless_skip(f, values[i], 1);
		answer(f, SECCOMP_RET_ALLOW);
	}
	load(f, OFFSET(nr));
}

void cage_refuse(struct cage_filter *f, int call, int error)
{
	unless_skip(f, (uint32_t)call, 1);
	answer(f, SECCOMP_RET_ERRNO | (uint32_t)error);
}

void cage_allow_memory(struct cage_filter *f)
{
	cage_allow_without(f, SYS_mmap, 2, PROT_EXEC);
	cage_allow_without(f, SYS_mprotect, 2, PROT_EXEC);
}

int cage_install(struct cage_filter *f, unsigned flags)
{
	struct sock_fprog program = { .filter = f->code };

	answer(f, SECCOMP_RET_KILL_PROCESS);
	program.len = (unsigned short)f->length;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) ? errno : 0;
}
