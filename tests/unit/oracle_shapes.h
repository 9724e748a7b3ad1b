/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shapes of programs for test_bt_oracle: what compilers and libraries make, and what optimizations of a translator look
 * for. Included by oracle_gen.h, which draws from them.
 *
 * Groups of accesses by one base register over the edge of a page whose neighbour has other rights; functions with
 * frames and saved registers; counted loops that stride over memory; jumps and calls through tables; flags that live
 * across accesses, calls and jumps, or die there; string instructions at edges; code that changes itself.
 *
 * What keeps a piece finite is never at stake: counters are in g->locked registers or on a page of their own, return
 * addresses are out of reach of what is written in frames, and no counter is saved on the stack.
 */
#ifndef TESTS_UNIT_ORACLE_SHAPES_H
#define TESTS_UNIT_ORACLE_SHAPES_H

#include "tests/unit/oracle_access.h"
#include "tests/unit/oracle_smc.h"

/* Accesses by one register; a Jcc now and then jumps over one. */
static void put_accesses(struct gen *g, unsigned base, unsigned count, unsigned reach, int index)
{
	unsigned only = percent(g, 20) ? ONLY_READS : percent(g, 20) ? ONLY_WRITES : 0;
	bool aligned = percent(g, 50);

	for (unsigned k = 0; k < count; k++) {
		struct where w = { (uint8_t)base, NO_INDEX, 0, (int32_t)below(g, 2 * reach) - (int32_t)reach };
		unsigned kind = below(g, 100), field;

		if (aligned)
			w.disp &= ~7;
		if (index >= 0 && index != X86_RSP && percent(g, 60)) {
			w.index = (uint8_t)index;
			w.scale = (uint8_t)below(g, 4);
		}
		if (kind < 65) {
			put_access(g, &w, only);
		} else if (kind < 75) { /* any instruction with the same base */
			g->group = true;
			g->group_base = (uint8_t)base;
			g->group_reach = (uint16_t)reach;
			put_plain(g);
			g->group = false;
		} else if (kind < 83) {
			if (base != X86_RSP)
				put_base_change(g, base);
		} else if (kind < 92) {
			put_between(g);
		} else {
			start_insn(g, false);
			put8(g, (uint8_t)(0x70 + below(g, 16)));
			field = g->len;
			put8(g, 0);
			put_access(g, &w, only);
			bind(g, field, false);
		}
	}
}

static void put_group(struct gen *g)
{
	static const uint16_t reaches[] = { 8, 32, 100, 300 };
	unsigned base = g->pointer[below(g, 3)];
	int index = -1;

	if (!(g->locked >> base & 1) && percent(g, 85))
		put_mov_imm(g, base, edge_pointer(g), false);
	if (percent(g, 20)) {
		index = free_register(g);
		if (index >= 0)
			put_mov_imm(g, (unsigned)index, below(g, 24), false);
	}
	put_accesses(g, base, 3 + below(g, 9), reaches[below(g, 4)], index);
}

/* Pushes and pops at random, in what no call has made its own. */
static void put_stack(struct gen *g)
{
	unsigned n = 3 + below(g, 12);

	if (g->calls)
		return;
	if (percent(g, 50)) /* the stack's pages, and the two edges of it */
		put_mov_imm(g, X86_RSP, (uint32_t)STACK_AT + 4096 * below(g, STACK_PAGES + 1) + 8 * below(g, 16) - 64 +
					       (percent(g, 20) ? below(g, 8) : 0), false);
	for (unsigned k = 0; k < n; k++) {
		struct where w = { X86_RSP, NO_INDEX, 0, 8 * (int32_t)below(g, 12) - 32 };
		unsigned kind = below(g, 100);
		int reg = free_register(g);

		if (reg < 0)
			continue;
		if (kind < 40 || (kind < 60 && k < n / 2)) {
			start_insn(g, false);
			if (percent(g, 5))
				put8(g, 0x66);
			if (percent(g, 75)) {
				reg = (int)below(g, g->bits == 64 ? 16 : 8);
				put_rex(g, 4, 0, 0, (unsigned)reg);
				put8(g, (uint8_t)(0x50 | (reg & 7)));
			} else {
				put8(g, 0x6a);
				put8(g, (uint8_t)gen_next(g));
			}
		} else if (kind < 75) {
			start_insn(g, false);
			put_rex(g, 4, 0, 0, (unsigned)reg);
			put8(g, (uint8_t)(0x58 | (reg & 7)));
		} else if (kind < 80) {
			put_mem(g, 4, 0xff, 6, &w); /* push [rsp + n] */
		} else if (kind < 84) {
			put_mem(g, 4, 0x8f, 0, &w); /* pop [rsp + n] */
		} else if (kind < 95) {
			put_access(g, &w, 0);
		} else {
			put_base_change(g, X86_RSP);
		}
	}
}

static void put_push(struct gen *g, unsigned reg, bool pop)
{
	start_insn(g, true);
	put_rex(g, 4, 0, 0, reg);
	put8(g, (uint8_t)((pop ? 0x58 : 0x50) | (reg & 7)));
}

/*
 * call f; jmp over; f: push rbp; mov rbp, rsp; sub rsp, n; push …; accesses to the frame and other things; pop …; leave;
 * ret. Or without rbp.
 */
static void put_function(struct gen *g)
{
	unsigned word = g->bits / 8, size = 16 + 8 * below(g, 30), saved[4], count = below(g, 5), call, over;
	bool frame = !(g->kept >> X86_RBP & 1) && percent(g, 60);
	uint16_t kept = g->kept;

	if (!g->calls && percent(g, 40)) /* the frame lies across an edge */
		put_mov_imm(g, X86_RSP, (uint32_t)STACK_AT + 4096 * (1 + below(g, STACK_PAGES)) + 8 * below(g, 24) - 32,
			    false);
	call = put_near(g, 0xe8);
	over = put_near(g, 0xe9);
	bind(g, call, true);
	g->kept |= 1u << X86_RSP;
	g->calls++;
	if (frame) {
		put_push(g, X86_RBP, false);
		put_reg(g, word, 0x89, X86_RSP, X86_RBP);
		g->fixed[g->insns - 1] = true;
		g->kept |= 1u << X86_RBP;
		g->locked |= 1u << X86_RBP;
	}
	put_reg(g, word, 0x81, 5, X86_RSP);
	g->fixed[g->insns - 1] = true;
	put32(g, size);
	for (unsigned k = 0; k < count; k++) {
		do
			saved[k] = below(g, g->bits == 64 ? 16 : 8);
		while ((g->locked >> saved[k] & 1) || saved[k] == X86_RSP);
		put_push(g, saved[k], false);
	}
	for (unsigned k = 0; k < 4; k++) { /* in the frame, below what was pushed before it */
		uint8_t base = frame && percent(g, 60) ? X86_RBP : X86_RSP;
		int32_t disp = 8 * (int32_t)below(g, size / 8 - 1);

		if (base == X86_RBP)
			disp = -8 - disp;
		put_access(g, &(struct where){ base, NO_INDEX, 0, disp }, 0);
		if (percent(g, 30))
			put_between(g);
	}
	put_body(g, 1 + below(g, 3), false);
	for (unsigned k = count; k-- > 0;)
		put_push(g, saved[k], true);
	start_insn(g, true);
	if (frame) {
		g->locked &= ~(1u << X86_RBP);
		put8(g, 0xc9);
	} else {
		if (word == 8)
			put8(g, 0x48);
		put8(g, 0x81); /* add rsp, size */
		put8(g, 0xc4);
		put32(g, size);
	}
	g->calls--;
	g->kept = kept;
	start_insn(g, true);
	put8(g, 0xc3);
	bind(g, over, true);
}

/* A loop that counts in a register and walks over memory. */
static void put_stride(struct gen *g)
{
	static const uint8_t again[] = { 0x85, 0x85, 0x8f, 0x85 }; /* jnz, jg */
	unsigned n = percent(g, 80) ? 2 + below(g, 10) : 10 + below(g, 30), base = g->pointer[below(g, 3)], top;
	unsigned stride = n < 12 ? below(g, 200) : below(g, 64), size = g->bits == 64 ? 8 : 4;
	int counter = free_register(g);
	uint16_t kept = g->kept;

	if (counter < 0)
		return;
	if (g->depth > 1)
		n = 2 + n % 5;
	if (!(g->locked >> base & 1) && percent(g, 70))
		put_mov_imm(g, base, edge_pointer(g) - (percent(g, 70) ? below(g, n * stride + 1) : 0), false);
	put_mov_imm(g, (unsigned)counter, n, true);
	g->kept |= (uint16_t)(1u << counter);
	g->locked |= (uint16_t)(1u << counter);
	top = g->len;
	put_accesses(g, base, 1 + below(g, 4), 40, percent(g, 50) ? counter : -1);
	if (percent(g, 40))
		put_body(g, 1 + below(g, 3), false);
	put_reg(g, size, 0x81, percent(g, 80) ? 0 : 5, base);
	put32(g, stride);
	if (percent(g, 60)) { /* dec, sub 1, add -1 */
		put_reg(g, 4, 0xff, 1, (unsigned)counter);
	} else {
		bool add = percent(g, 50);

		put_reg(g, 4, 0x83, add ? 0 : 5, (unsigned)counter);
		put8(g, add ? 0xff : 1);
	}
	g->fixed[g->insns - 1] = true;
	if (percent(g, 20)) { /* something that leaves ZF and SF alone: mov */
		int a = free_register(g), b = free_register(g);

		if (a >= 0 && b >= 0)
			put_reg(g, size, 0x89, (unsigned)a, (unsigned)b);
	}
	start_insn(g, true);
	put8(g, 0x0f);
	put8(g, again[below(g, 4)]);
	put32(g, top - g->len - 4);
	g->locked &= (uint16_t)~(1u << counter);
	g->kept = kept;
}

/* jmp or call [table + reg * n]; the cases. */
static void put_table(struct gen *g)
{
	unsigned word = g->bits / 8, cases = 2 + below(g, 3), table, over, ends[4];
	bool call = percent(g, 40);
	uint16_t kept = g->kept;
	int reg = free_register(g);

	if (reg < 0)
		return;
	if (percent(g, 60)) {
		put_mem(g, 4, 0x8b, (unsigned)reg, &(struct where){ g->pointer[below(g, 3)], NO_INDEX, 0, 0 });
		put_reg(g, 4, 0x83, 4, (unsigned)reg);
		g->fixed[g->insns - 1] = true;
		put8(g, cases > 3 ? 3 : 1);
	} else {
		put_mov_imm(g, (unsigned)reg, below(g, cases), true);
	}
	put_opcode(g, 4, 0xff, 0, (unsigned)reg, 0);
	g->fixed[g->insns - 1] = true;
	put8(g, (uint8_t)(4 | (call ? 2 : 4) << 3));
	put8(g, (uint8_t)((word == 8 ? 0xc0 : 0x80) | (reg & 7) << 3 | 5));
	table = g->len;
	put32(g, 0);
	over = put_near(g, 0xe9);
	memcpy(g->code + table, &(uint32_t){ (uint32_t)g->at + g->len }, 4);
	table = g->len;
	start_insn(g, true);
	for (unsigned k = 0; k < cases * word; k++)
		put8(g, 0);
	if (call) {
		g->kept |= 1u << X86_RSP;
		g->calls++;
	}
	for (unsigned k = 0; k < cases; k++) {
		memcpy(g->code + table + k * word, &(uint32_t){ (uint32_t)g->at + g->len }, 4);
		put_body(g, 1 + below(g, 2), false);
		start_insn(g, true);
		put8(g, call ? 0xc3 : 0xe9);
		ends[k] = g->len;
		for (unsigned b = 0; b < 4 && !call; b++)
			put8(g, 0);
	}
	g->calls -= call;
	g->kept = kept;
	for (unsigned k = 0; k < cases && !call; k++)
		bind(g, ends[k], true);
	bind(g, over, true);
}

/* Flags are made, carried over things that may cost them, and used. */
static void put_flags(struct gen *g)
{
	static const uint16_t makers[] = { 0x39, 0x85, 0x01, 0x29, 0x31, 0x11 };
	int a = free_register(g), b = free_register(g), c = free_register(g);
	unsigned field, n = 1 + below(g, 3);

	if (a < 0 || b < 0 || c < 0)
		return;
	for (unsigned k = 0; k < n; k++) /* the first ones die, all or in part */
		if (percent(g, 75))
			put_reg(g, random_size(g) == 8 ? 8 : 4, makers[below(g, 6)], (unsigned)a, (unsigned)b);
		else if (percent(g, 50))
			put_reg(g, 4, 0xff, below(g, 2), (unsigned)a);
		else
			put_reg(g, 4, 0xd3, 4 + below(g, 2), (unsigned)a); /* by cl: perhaps none */
	for (unsigned k = below(g, 4); k-- > 0;)
		switch (below(g, 5)) {
		case 0:
		case 1: { /* mov */
			struct where w = { g->pointer[below(g, 3)], NO_INDEX, 0, 8 * (int32_t)below(g, 16) };

			put_mem(g, 4, percent(g, 50) ? 0x89 : 0x8b, (unsigned)c, &w);
			break;
		}
		case 2: /* call over nothing: f: ret stands behind a jump */
			start_insn(g, true);
			put8(g, 0xe8);
			put32(g, 2);
			start_insn(g, true);
			put8(g, 0xeb);
			put8(g, 1);
			start_insn(g, true);
			put8(g, 0xc3);
			break;
		case 3: /* jmp */
			start_insn(g, true);
			put8(g, 0xe9);
			put32(g, 0);
			break;
		default:
			if (g->calls)
				break;
			put_push(g, (unsigned)c, false);
			put_push(g, (unsigned)c, true);
			break;
		}
	switch (below(g, 5)) {
	case 0:
		put_reg(g, 4, percent(g, 50) ? 0x11 : 0x19, (unsigned)a, (unsigned)b);
		break;
	case 1:
		put_reg(g, 4, 0x0f40 | below(g, 16), (unsigned)a, (unsigned)c);
		break;
	case 2: { /* setcc [m] */
		struct where w = { g->pointer[below(g, 3)], NO_INDEX, 0, 1 };

		put_mem(g, 4, 0x0f90 | below(g, 16), 0, &w);
		break;
	}
	case 3:
		if (!g->calls) { /* pushf; pop */
			start_insn(g, false);
			put8(g, 0x9c);
			put_push(g, (unsigned)a, true);
			break;
		} /* fall through */
	default:
		start_insn(g, false);
		put8(g, (uint8_t)(0x70 + below(g, 16)));
		field = g->len;
		put8(g, 0);
		put_reg(g, 4, 0x31, (unsigned)a, (unsigned)b);
		bind(g, field, false);
		break;
	}
}

/* A string instruction at the edge of a page, in either direction. */
static void put_string_edge(struct gen *g)
{
	static const uint8_t op[] = { 0xa4, 0xa6, 0xaa, 0xac, 0xae };
	bool down = percent(g, 35);
	uint32_t back = down ? 0 : below(g, 300);

	if (g->kept & (1u << X86_RCX | 1u << X86_RSI | 1u << X86_RDI))
		return;
	put_mov_imm(g, X86_RSI, edge_pointer(g) - back, false);
	if (percent(g, 30))
		put_mov_imm(g, X86_RDI, edge_pointer(g) - back, false);
	else /* near the other, perhaps over it */
		put_mem(g, g->bits / 8, 0x8d, X86_RDI,
			&(struct where){ X86_RSI, NO_INDEX, 0, (int32_t)below(g, 80) - 40 });
	put_mov_imm(g, X86_RCX, percent(g, 80) ? below(g, 120) : below(g, 9000), false);
	start_insn(g, false);
	put8(g, down ? 0xfd : 0xfc);
	start_insn(g, false);
	if (percent(g, 90))
		put8(g, percent(g, 70) ? 0xf3 : 0xf2);
	if (percent(g, 15))
		put8(g, 0x66);
	else if (percent(g, 30) && g->bits == 64)
		put8(g, 0x48);
	unsigned o = op[below(g, 5)] + below(g, 2);

	if ((g->locked & 1u << X86_RAX) && (o & 0xfe) == 0xac)
		o = 0xa4;
	put8(g, (uint8_t)o);
	start_insn(g, true);
	put8(g, 0xfc);
}

static void put_shape(struct gen *g)
{
	unsigned dice = below(g, 100);
	bool nests = g->depth < NEST_MAX - 1;

	if (g->smc && dice < 40)
		put_self_modifying(g);
	else if (dice < 30)
		put_group(g);
	else if (dice < 42)
		put_stack(g);
	else if (dice < 54 && nests)
		put_function(g);
	else if (dice < 70 && nests)
		put_stride(g);
	else if (dice < 76 && nests)
		put_table(g);
	else if (dice < 90)
		put_flags(g);
	else
		put_string_edge(g);
}

#endif
