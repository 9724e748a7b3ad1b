/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that the shapes of oracle_shapes.h and oracle_smc.h are made of: accesses by a base register, what may change that
 * register, what may stand between.
 */
#ifndef TESTS_UNIT_ORACLE_ACCESS_H
#define TESTS_UNIT_ORACLE_ACCESS_H

#include "tests/unit/oracle_fill.h"

#define NO_INDEX 16
struct where {
	uint8_t base, index, scale;
	int32_t disp;
};

static int free_register(struct gen *g)
{
	for (unsigned k = 0; k < 30; k++) {
		unsigned r = below(g, g->bits == 64 ? 16 : 8);

		if (!(g->kept >> r & 1) && r != X86_RSP)
			return (int)r;
	}
	return -1;
}

static void put_where(struct gen *g, unsigned reg, const struct where *w)
{
	bool sib = w->index != NO_INDEX || (w->base & 7) == 4;
	bool wide = w->disp != (int8_t)w->disp || percent(g, 10);

	put8(g, (uint8_t)((wide ? 0x80 : 0x40) | (reg & 7) << 3 | (sib ? 4 : w->base & 7)));
	if (sib)
		put8(g, (uint8_t)(w->scale << 6 | (w->index == NO_INDEX ? 4 : w->index & 7) << 3 |
				  (w->base & 7)));
	if (wide)
		put32(g, (uint32_t)w->disp);
	else
		put8(g, (uint8_t)w->disp);
}

static void put_rex(struct gen *g, unsigned size, unsigned reg, unsigned index, unsigned rm)
{
	unsigned rex = (size == 8) << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (rm >> 3 & 1);

	if (g->bits == 64 && (rex || size == 1))
		put8(g, (uint8_t)(0x40 | rex));
}

/* @op: opcode, 0x0f00 | opcode, with a mandatory prefix above; @size 2 has 66, 8 has REX.W. */
static void put_opcode(struct gen *g, unsigned size, unsigned op, unsigned reg, unsigned index, unsigned rm)
{
	start_insn(g, false);
	if (op >> 16)
		put8(g, (uint8_t)(op >> 16));
	else if (size == 2)
		put8(g, 0x66);
	put_rex(g, size, reg, index == NO_INDEX ? 0 : index, rm);
	if (op & 0xff00)
		put8(g, 0x0f);
	put8(g, (uint8_t)op);
}

static void put_mem(struct gen *g, unsigned size, unsigned op, unsigned reg, const struct where *w)
{
	put_opcode(g, size, op, reg, w->index, w->base);
	put_where(g, reg, w);
}

static void put_reg(struct gen *g, unsigned size, unsigned op, unsigned reg, unsigned rm)
{
	put_opcode(g, size, op, reg, NO_INDEX, rm);
	put8(g, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

/* VMOVUPS and its like; @op with the direction. */
static void put_ymm(struct gen *g, unsigned op, unsigned reg, const struct where *w)
{
	start_insn(g, false);
	put8(g, 0xc4);
	put8(g, (uint8_t)((~reg >> 3 & 1) << 7 | (w->index == NO_INDEX ? 1 : ~w->index >> 3 & 1) << 6 |
			  (~w->base >> 3 & 1) << 5 | 1));
	put8(g, 0x7c); /* L = 1, no prefix */
	put8(g, (uint8_t)op);
	put_where(g, reg, w);
}

static unsigned random_size(struct gen *g)
{
	static const uint8_t sizes[] = { 4, 4, 8, 8, 1, 2 };
	unsigned size = sizes[below(g, 6)];

	return size == 8 && g->bits == 32 ? 4 : size;
}

/* At the edge of a page of data: what is on the other side has other rights as often as not. */
static uint32_t edge_pointer(struct gen *g)
{
	static const uint8_t edges[] = { 1, 1, 2, 2, 2, 3, 3, 3, 8, 8, 4, 4, 6, 6, 9, 11, 5, 7, 10, 12 };

	return (uint32_t)DATA_AT + 4096u * edges[below(g, sizeof(edges))] - 40 + below(g, 80);
}

/* What a group's accesses are: enum of what is drawn from. */
enum { ONLY_READS = 1, ONLY_WRITES = 2 };

/* One access of the common kind at @w. */
static void put_access(struct gen *g, const struct where *w, unsigned only)
{
	static const uint16_t reads[] = { 0x8b, 0x8b, 0x8b, 0x03, 0x2b, 0x3b, 0x33, 0x23, 0x39, 0x85, 0x13, 0x1b };
	static const uint16_t writes[] = { 0x89, 0x89, 0x89, 0xc7 };
	static const uint16_t updates[] = { 0x01, 0x29, 0x31, 0x09, 0x11, 0x19, 0xff, 0x83, 0xf7, 0xd1, 0xfc1, 0x87 };
	static const uint32_t vectors[] = { 0x0f10, 0xf30f6f, 0x660f6f, 0x660ffe, 0xf20f10, 0x660fef, 0x0f28, 0x0f58 };
	static const uint32_t vector_writes[] = { 0x0f11, 0xf30f7f, 0x660f7f, 0xf20f11, 0x660fd6, 0x0f29 };
	unsigned kind = below(g, 100), size = random_size(g), vector = below(g, g->bits == 64 ? 16 : 8), op;
	int reg = free_register(g);

	if (reg < 0 || (reg >= 4 && g->bits == 32))
		size = size == 1 ? 4 : size;
	if (reg < 0)
		kind = 80;
	if (only == ONLY_READS && kind < 75)
		kind = 0;
	else if (only == ONLY_READS)
		kind = 80;
	else if (only == ONLY_WRITES)
		kind = kind < 55 ? 40 : kind < 80 ? 60 : 95;
	if (kind < 40) {
		op = reads[below(g, sizeof(reads) / 2)];
		put_mem(g, size, size == 1 ? op & ~1u : op, (unsigned)reg, w);
	} else if (kind < 60) {
		op = writes[below(g, 4)];
		put_mem(g, size, size == 1 ? op & ~1u : op, op == 0xc7 ? 0 : (unsigned)reg, w);
		for (unsigned k = 0; op == 0xc7 && k < (size == 8 ? 4 : size); k++)
			put8(g, (uint8_t)gen_next(g));
	} else if (kind < 75) {
		op = updates[below(g, sizeof(updates) / 2)];
		if (op == 0x83 || op == 0xff || op == 0xf7 || op == 0xd1)
			reg = op == 0x83 ? (int)below(g, 8) : op == 0xff ? (int)below(g, 2)
			      : op == 0xf7 ? 2 + (int)below(g, 2) : 4 + (int)(below(g, 2));
		put_mem(g, size, size == 1 && op != 0x83 ? op & ~1u : size == 1 ? 0x80 : op, (unsigned)reg, w);
		if (op == 0x83)
			put8(g, (uint8_t)gen_next(g));
	} else if (kind < 88) {
		if (percent(g, 25) && __builtin_cpu_supports("avx"))
			put_ymm(g, 0x10, vector, w);
		else
			put_mem(g, 4, vectors[below(g, 8)], vector, w);
	} else {
		if (percent(g, 25) && __builtin_cpu_supports("avx"))
			put_ymm(g, 0x11, vector, w);
		else
			put_mem(g, 4, vector_writes[below(g, 6)], vector, w);
	}
}

/* The base register changes, and stays a pointer. */
static void put_base_change(struct gen *g, unsigned base)
{
	unsigned size = g->bits == 64 ? 8 : 4, other = g->pointer[below(g, 3)];
	int reg = free_register(g);
	int8_t by = (int8_t)(below(g, 65) - 32);

	switch (below(g, base == X86_RSP ? 3 : 6)) {
	case 0: /* add or sub, imm8 */
		put_reg(g, size, 0x83, percent(g, 50) ? 0 : 5, base);
		put8(g, (uint8_t)by);
		break;
	case 1:
		put_reg(g, size, 0xff, below(g, 2), base);
		break;
	case 2:
		put_mem(g, size, 0x8d, base, &(struct where){ (uint8_t)base, NO_INDEX, 0, by });
		break;
	case 3:
		put_reg(g, size, 0x87, other, base);
		break;
	case 4:
		put_reg(g, size, 0x89, other, base);
		break;
	default: /* away and back */
		if (reg < 0)
			break;
		put_reg(g, size, 0x89, base, (unsigned)reg);
		put_reg(g, size, 0xff, 0, base);
		put_reg(g, size, 0x89, (unsigned)reg, base);
		break;
	}
}

/* Something between accesses that touches no memory. */
static void put_between(struct gen *g)
{
	static const uint16_t ops[] = { 0x01, 0x29, 0x31, 0x39, 0x85, 0x11, 0x19, 0x89, 0x0fb6, 0x0faf };
	int a = free_register(g), b = free_register(g);

	if (a < 0 || b < 0)
		return;
	unsigned op = ops[below(g, 10)];

	if (percent(g, 20)) { /* setcc, in a register without a high half of its own */
		if (g->bits == 32 && a >= 4)
			return;
		put_reg(g, 1, 0x0f90 | below(g, 16), 0, (unsigned)a);
	} else if (percent(g, 20)) { /* cmovcc */
		put_reg(g, 4, 0x0f40 | below(g, 16), (unsigned)a, (unsigned)b);
	} else if (op == 0x0fb6) {
		put_reg(g, g->bits == 64 ? 1 : 4, op, (unsigned)a, (unsigned)b & 3);
	} else if (op == 0x0faf) {
		put_reg(g, 4, op, (unsigned)a, (unsigned)b);
	} else {
		put_reg(g, 4, op, (unsigned)b, (unsigned)a);
	}
}

#endif
