/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random pieces of user-mode code, for test_bt_oracle.
 *
 * piece_make() draws forms (oracle_forms.h) at random and fills in the rest: registers, addressing, immediates,
 * prefixes, masks; and puts around them what random bytes would not make: branches, loops, calls, strings, pointers to
 * memory that exists. Some registers are kept as pointers through a piece, so that most accesses hit; enough do not.
 * No piece runs for ever: loops count in registers and memory that nothing else writes.
 */
#ifndef TESTS_UNIT_ORACLE_GEN_H
#define TESTS_UNIT_ORACLE_GEN_H

#include "tests/unit/oracle_fill.h"

static void bind(struct gen *g, unsigned field, bool wide);
static void put_shape(struct gen *g);
static void put_item(struct gen *g);

/* A rel8 or rel32 field at the end of the code so far; bind() lets it point to where the code then ends. */
static void bind(struct gen *g, unsigned field, bool wide)
{
	unsigned distance = g->len - field - (wide ? 4 : 1);

	if (wide)
		memcpy(g->code + field, &(uint32_t){ distance }, 4);
	else
		g->code[field] = (uint8_t)distance;
}

/* @narrow: in reach of a rel8, so nothing in it nests. */
static void put_body(struct gen *g, unsigned insns, bool narrow)
{
	unsigned start = g->len, depth = g->depth;

	g->depth = narrow ? NEST_MAX : depth + 1;
	for (unsigned k = 0; k < insns && g->len - start < (narrow ? 56 : 300); k++)
		put_item(g);
	g->depth = depth;
}

/* Jcc, LOOPcc or JrCXZ over some instructions. */
static void put_skip(struct gen *g)
{
	bool counted = percent(g, 15), wide = !counted && percent(g, 50);

	start_insn(g, false);
	if (counted) {
		if (percent(g, 20))
			put8(g, 0x67);
		put8(g, (uint8_t)(0xe0 + below(g, 4)));
	} else if (wide) {
		put8(g, 0x0f);
		put8(g, (uint8_t)(0x80 + below(g, 16)));
	} else {
		put8(g, (uint8_t)(0x70 + below(g, 16)));
	}
	unsigned field = g->len;

	for (unsigned k = 0; k < (wide ? 4 : 1); k++)
		put8(g, 0);
	if (g->kept & 1u << X86_RCX && counted && g->code[field - 1] != 0xe3)
		g->code[field - 1] = 0xe3; /* does not count */
	put_body(g, 1 + below(g, 4), !wide);
	bind(g, field, wide);
}

/* A loop that counts in memory, or with LOOP in rcx. */
static void put_loop(struct gen *g)
{
	bool loop = percent(g, 40) && !(g->kept & 1u << X86_RCX);
	uint32_t at = (uint32_t)COUNTERS_AT + 8 * g->counters;
	unsigned n = 2 + below(g, 6), top;

	if (loop) {
		put_mov_imm(g, X86_RCX, n, true);
		g->kept |= 1u << X86_RCX;
		g->locked |= 1u << X86_RCX;
	} else {
		g->counters++;
		start_insn(g, true);
		put8(g, 0xc7); /* mov dword [at], n */
		put8(g, 0x04);
		put8(g, 0x25);
		put32(g, at);
		put32(g, n);
	}
	top = g->len;
	put_body(g, 2 + below(g, 4), loop);
	start_insn(g, true);
	if (loop) {
		g->kept &= ~(1u << X86_RCX);
		g->locked &= (uint16_t)~(1u << X86_RCX);
		put8(g, 0xe2);
		put8(g, (uint8_t)(top - g->len - 1));
		return;
	}
	put8(g, 0xff); /* dec dword [at] */
	put8(g, 0x0c);
	put8(g, 0x25);
	put32(g, at);
	start_insn(g, true);
	put8(g, 0x0f); /* jg */
	put8(g, 0x8f);
	put32(g, top - g->len - 4);
}

/* lea reg, [rip + …], or mov reg, …: the field for bind_address(). */
static unsigned put_address(struct gen *g, unsigned reg)
{
	unsigned field;

	start_insn(g, true);
	if (g->bits == 64) {
		put8(g, (uint8_t)(0x48 | (reg >> 3) << 2));
		put8(g, 0x8d);
		put8(g, (uint8_t)(5 | (reg & 7) << 3));
	} else {
		put8(g, (uint8_t)(0xb8 | reg));
	}
	field = g->len;
	put32(g, 0);
	return field;
}

static void bind_address(struct gen *g, unsigned field)
{
	if (g->bits == 64)
		bind(g, field, true);
	else
		memcpy(g->code + field, &(uint32_t){ (uint32_t)g->at + g->len }, 4);
}

/* A call (0xe8) or jump (0xe9) to where bind() says: the field. */
static unsigned put_near(struct gen *g, uint8_t op)
{
	start_insn(g, true);
	put8(g, op);
	put32(g, 0);
	return g->len - 4;
}

/* call f; jmp over; f: …; ret; over: */
static void put_call(struct gen *g)
{
	unsigned reg = below(g, g->bits == 64 ? 16 : 8), call, over;
	bool indirect = percent(g, 40) && !(g->kept & 1u << reg) && reg != X86_RSP;
	uint16_t kept = g->kept;

	if (indirect) { /* address to reg; call reg */
		call = put_address(g, reg);
		start_insn(g, true);
		if (reg >= 8)
			put8(g, 0x41);
		put8(g, 0xff);
		put8(g, 0xd0 | (reg & 7));
	} else {
		call = put_near(g, 0xe8);
	}
	over = put_near(g, 0xe9);
	if (indirect)
		bind_address(g, call);
	else
		bind(g, call, true);
	g->kept |= 1u << X86_RSP;
	g->calls++;
	put_body(g, 1 + below(g, 3), false);
	g->calls--;
	g->kept = kept;
	start_insn(g, true);
	if (percent(g, 30)) {
		put8(g, 0xc2);
		put8(g, (uint8_t)(8 * below(g, 3)));
		put8(g, 0);
	} else {
		put8(g, 0xc3);
	}
	bind(g, over, true);
}

/* A jump over bytes that are not code, through a register or memory, or to where there is no code. */
static void put_jump(struct gen *g)
{
	unsigned reg = below(g, g->bits == 64 ? 16 : 8), field, kind = below(g, 99),
		 n = below(g, 24);

	if ((g->kept & 1u << reg) || reg == X86_RSP || kind < 30) {
		start_insn(g, true);
		put8(g, kind < 15 ? 0xeb : 0xe9);
		field = g->len;
		for (unsigned k = 0; k < (kind < 15 ? 1 : 4); k++)
			put8(g, 0);
	} else if (kind < 33) {
		set_pointer(g, reg);
		start_insn(g, false);
		if (reg >= 8)
			put8(g, 0x41);
		put8(g, 0xff);
		put8(g, 0xe0 | (reg & 7));
		return;
	} else {
		bool memory = kind < 66;

		field = put_address(g, reg);
		if (memory) { /* mov [counters + 0x800], reg; jmp [there] */
			start_insn(g, true);
			if (g->bits == 64)
				put8(g, (uint8_t)(0x48 | (reg >> 3) << 2));
			put8(g, 0x89);
			put8(g, (uint8_t)(4 | (reg & 7) << 3));
			put8(g, 0x25);
			put32(g, (uint32_t)COUNTERS_AT + 0x800);
		}
		start_insn(g, true);
		if (!memory && reg >= 8)
			put8(g, 0x41);
		put8(g, 0xff);
		if (memory) {
			put8(g, 0x24);
			put8(g, 0x25);
			put32(g, (uint32_t)COUNTERS_AT + 0x800);
		} else {
			put8(g, 0xe0 | (reg & 7));
		}
		kind = 100;
	}
	for (unsigned k = 0; k < n; k++)
		put8(g, 0x06); /* not an instruction */
	if (kind == 100)
		bind_address(g, field);
	else
		bind(g, field, kind >= 15);
}

static void put_string(struct gen *g)
{
	static const uint8_t op[] = { 0xa4, 0xa6, 0xaa, 0xac, 0xae };

	if (g->kept & (1u << X86_RCX | 1u << X86_RSI | 1u << X86_RDI | 1u << X86_RAX))
		return;
	bool narrow = percent(g, 10);

	set_pointer(g, X86_RSI);
	set_pointer(g, X86_RDI);
	if (!narrow || percent(g, 50)) /* else what is there, of which 32 bits count */
		put_mov_imm(g, X86_RCX, below(g, 100) < 85 ? below(g, 80) : below(g, 5000), false);
	if (percent(g, 20)) {
		start_insn(g, false);
		put8(g, 0xfd); /* STD */
	}
	start_insn(g, false);
	if (percent(g, 70))
		put8(g, (uint8_t)(0xf2 + below(g, 2)));
	if (narrow && g->bits == 64)
		put8(g, 0x67);
	if (percent(g, 20))
		put8(g, 0x66);
	if (percent(g, 30) && g->bits == 64)
		put8(g, 0x48);
	put8(g, (uint8_t)(op[below(g, 5)] + below(g, 2)));
	if (percent(g, 90)) {
		start_insn(g, false);
		put8(g, 0xfc); /* CLD */
	}
}

/* push imm32; popf: AC, DF, NT, ID, and flags that cannot be changed; seldom TF. */
static void put_popf(struct gen *g)
{
	uint32_t flags = (uint32_t)gen_next(g) & 0x2046d5;

	if (g->calls)
		return;
	if (percent(g, 25))
		flags |= X86_AC;
	if (percent(g, 10))
		flags |= X86_TF;
	start_insn(g, false);
	put8(g, 0x68);
	put32(g, flags | (percent(g, 30) ? 0x3200 : 0));
	start_insn(g, false);
	if (percent(g, 20))
		put8(g, 0x66);
	put8(g, 0x9d);
}

/* Saves whose image has x87 pointers in it, and zeros over these. */
static void put_x87_save(struct gen *g)
{
	uint32_t at = (uint32_t)DATA_AT + X87_SAVES + below(g, 3) * 512;
	unsigned kind = below(g, 3);
	static const struct {
		uint8_t op[3], n, first, dwords;
	} save[] = { { { 0xd9, 0x34 }, 2, 12, 4 },
		     { { 0xdd, 0x34 }, 2, 12, 4 },
		     { { 0x0f, 0xae, 0x04 }, 3, 8, 4 } };

	start_insn(g, true);
	for (unsigned k = 0; k < save[kind].n; k++)
		put8(g, save[kind].op[k]);
	put8(g, 0x25);
	put32(g, at);
	for (unsigned k = 0; k < save[kind].dwords; k++) {
		start_insn(g, true);
		put8(g, 0xc7);
		put8(g, 0x04);
		put8(g, 0x25);
		put32(g, at + save[kind].first + 4 * k);
		put32(g, 0);
	}
	if (kind == 2) { /* FOP */
		start_insn(g, true);
		put8(g, 0x66);
		put8(g, 0xc7);
		put8(g, 0x04);
		put8(g, 0x25);
		put32(g, at + 6);
		put8(g, 0);
		put8(g, 0);
	}
}

static void put_item(struct gen *g)
{
	unsigned dice = below(g, 1000);

	if (g->shapes && g->depth < NEST_MAX && percent(g, 35))
		put_shape(g);
	else if (dice < 70 && g->depth < NEST_MAX)
		put_skip(g);
	else if (dice < 95 && g->depth < NEST_MAX - 1)
		put_loop(g);
	else if (dice < 115 && g->depth < NEST_MAX)
		put_call(g);
	else if (dice < 125)
		put_jump(g);
	else if (dice < 155)
		put_string(g);
	else if (dice < 162)
		put_popf(g);
	else if (dice < 167)
		put_x87_save(g);
	else if (dice < 169) {
		start_insn(g, false);
		put8(g, percent(g, 50) ? 0xcc : 0xf1); /* INT3, INT1 */
	} else
		put_plain(g);
}

#include "tests/unit/oracle_shapes.h"

/* Makes a piece of about @insns instructions; it ends with UD2. */
static void piece_make(struct gen *g, unsigned insns)
{
	static const uint8_t end[] = { 0x0f, 0x0b };

	g->shapes = percent(g, 55);
	g->smc = g->shapes && percent(g, 20);
	g->at = CODE_AT + below(g, (CODE_PAGES - 1) * 4096);
	if (percent(g, g->shapes ? 60 : 30)) /* soon in the next page */
		g->at = CODE_AT + 4096 * (1 + below(g, CODE_PAGES - 2)) - below(g, g->shapes ? 600 : 100);
	if (g->at > CODE_AT + CODE_PAGES * 4096 - sizeof(g->code))
		g->at -= sizeof(g->code);
	if (g->smc)
		g->at += SMC_AT - CODE_AT;
	g->len = g->insns = g->depth = g->counters = g->calls = 0;
	g->kept = 1u << X86_RSP;
	g->locked = 0;
	g->group = false;
	for (unsigned k = 0; k < 3; k++) {
		do
			g->pointer[k] = (uint8_t)(g->bits == 32	   ? below(g, 8)
						  : percent(g, 60) ? 8 + below(g, 8)
								   : below(g, 16));
		while (g->kept & 1u << g->pointer[k]);
		g->kept |= 1u << g->pointer[k];
	}
	while (g->insns < insns && g->len < 2500)
		put_item(g);
	start_insn(g, true);
	put8(g, end[0]);
	put8(g, end[1]);
}

#endif
