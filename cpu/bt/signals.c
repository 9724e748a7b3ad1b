/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host exceptions in translated code: it may fault where the guest's instruction would, with #DE, x87 and SIMD exceptions,
 * misaligned vector operands. The handler finds the instruction by the block's map, stores the guest's registers, and has
 * translated code left with the exception pending. A page fault there is our own bug (every access has been checked), and ends
 * the process with a message.
 */
#include <signal.h>
#include <stdio.h>
#include <ucontext.h>
#include <unistd.h>

#include "cpu/bt/private.h"

__thread struct bt_vcpu *bt_this_vcpu;

static const int reg_of_guest[] = {
	[X86_RAX] = REG_RAX, [X86_RCX] = REG_RCX, [X86_RDX] = REG_RDX, [X86_RBX] = REG_RBX,
	[X86_RSP] = REG_R12, [X86_RBP] = REG_RBP, [X86_RSI] = REG_RSI, [X86_RDI] = REG_RDI,
	[X86_R8] = REG_R8,   [X86_R9] = REG_R9,	  [X86_R10] = REG_R10, [X86_R11] = REG_R11,
	[X86_R12] = REG_R13,
};

static _Noreturn void die(int sig, uint64_t rip, uint64_t address)
{
	char line[160];
	int n = snprintf(line, sizeof(line),
			 "maru-vm: internal error: signal %d at %#llx, address %#llx\n", sig,
			 (unsigned long long)rip, (unsigned long long)address);

	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		_exit(70);
	_exit(70);
}

static void guest_exception(struct bt_vcpu *v, unsigned trap)
{
	switch (trap) {
	case X86_XM:
		bt_raise(v, v->cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD);
		break;
	case X86_GP:
		bt_raise_error(v, X86_GP, 0);
		break;
	default: /* #DE, #UD, #MF */
		bt_raise(v, (uint8_t)trap);
		break;
	}
}

static void on_host_exception(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *r = uc->uc_mcontext.gregs;
	struct bt_vcpu *v = bt_this_vcpu;
	unsigned trap = (unsigned)r[REG_TRAPNO];
	struct bt_engine *e;
	struct block *b;

	if (!v)
		die(sig, (uint64_t)r[REG_RIP], (uint64_t)info->si_addr);
	e = v->engine;
	uint64_t pos = (uint64_t)r[REG_RIP] - (uint64_t)e->cache_rx;

	b = pos < CODE_CACHE_BYTES ? cache_find_host(e, (uint32_t)pos) : NULL;
	const struct block_map *map = b ? block_maps(b) : NULL;

	if (!b || !b->map_count || map->host > pos ||
	    (trap != X86_DE && trap != X86_UD && trap != X86_GP && trap != X86_MF && trap != X86_XM))
		die(sig, (uint64_t)r[REG_RIP], (uint64_t)info->si_addr);

	const struct block_map *m = map;

	for (unsigned k = 1; k < b->map_count && map[k].host <= pos; k++)
		m = &map[k];
	for (unsigned g = 0; g < ARRAY_SIZE(reg_of_guest); g++)
		if (!(m->borrowed >> g & 1))
			BT_REG(v, g) = (uint64_t)r[reg_of_guest[g]];
	if (m->flags & MAP_FLAGS_HOST)
		bt_set_aflags(v, (uint64_t)r[REG_EFL]);
	v->rip = v->vbase + m->guest - v->cs_base;
	if (!bt_code64(v))
		v->rip = (uint32_t)v->rip;
	guest_exception(v, trap);
	r[REG_RAX] = EXIT_FAULT;
	r[REG_RSP] = (greg_t)v;
	r[REG_RIP] = (greg_t)(e->cache_rx + e->stub.exit_tail);
	r[REG_EFL] &= ~(greg_t)X86_ARITH_FLAGS;
}

void bt_signal_install(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	struct sigaction sa = {.sa_sigaction = on_host_exception, .sa_flags = SA_SIGINFO | SA_NODEFER};

	sigemptyset(&sa.sa_mask);
	for (unsigned k = 0; k < ARRAY_SIZE(signals); k++)
		sigaction(signals[k], &sa, NULL);
}
