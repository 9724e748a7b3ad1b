/* SPDX-License-Identifier: Apache-2.0 */
/* Code that changes itself, for oracle_shapes.h. */
#ifndef TESTS_UNIT_ORACLE_SMC_H
#define TESTS_UNIT_ORACLE_SMC_H

#include "tests/unit/oracle_access.h"

/* An instruction with an absolute address in it, for code that is made later: the field. */
static unsigned put_absolute(struct gen *g, unsigned size, unsigned op, unsigned reg)
{
	put_opcode(g, size, op, reg, NO_INDEX, 0);
	g->fixed[g->insns - 1] = true;
	put8(g, (uint8_t)(4 | (reg & 7) << 3));
	put8(g, 0x25);
	put32(g, 0);
	return g->len - 4;
}

static void bind_absolute(struct gen *g, unsigned field, unsigned at)
{
	memcpy(g->code + field, &(uint32_t){ (uint32_t)g->at + at }, 4);
}

/* Code that changes what comes behind it: once, or each time around a loop. */
static void put_self_modifying(struct gen *g)
{
	int a = free_register(g), b = free_register(g), counter = -1;
	unsigned kind = below(g, 6), field, template = 0, top = 0, n;
	uint16_t kept = g->kept;

	if (a < 0 || b < 0)
		return;
	if (percent(g, 50))
		counter = free_register(g);
	if (counter >= 0 && counter != a && counter != b) {
		put_mov_imm(g, (unsigned)counter, 2 + below(g, percent(g, 10) ? 80 : 6), true);
		g->kept |= (uint16_t)(1u << counter);
		g->locked |= (uint16_t)(1u << counter);
		top = g->len;
	} else {
		counter = -1;
	}
	switch (kind) {
	case 0: /* the immediate of a MOV */
	case 1:
		field = put_absolute(g, 4, kind ? 0xff : 0x89, kind ? 0 : (unsigned)b);
		for (n = below(g, 4); n-- > 0;)
			put_between(g);
		put_mov_imm(g, (unsigned)a, (uint32_t)gen_next(g), true);
		bind_absolute(g, field, g->len - 4);
		put_reg(g, 4, 0x01, (unsigned)a, (unsigned)b);
		break;
	case 2: /* an opcode: add, or, and, sub, xor */
		field = put_absolute(g, 1, 0x80, 6);
		put8(g, 0x38 & (uint8_t)gen_next(g) & (uint8_t)~0x10);
		for (n = below(g, 4); n-- > 0;)
			put_between(g);
		start_insn(g, true);
		if (g->bits == 64)
			put8(g, (uint8_t)(0x40 | (b >> 3) << 2 | a >> 3));
		bind_absolute(g, field, g->len);
		put8(g, 0x01);
		put8(g, (uint8_t)(0xc0 | (b & 7) << 3 | (a & 7)));
		break;
	case 3: /* the distance of a jump: over an instruction, or not */
		field = put_absolute(g, 1, 0x80, 6);
		put8(g, 3);
		for (n = below(g, 3); n-- > 0;)
			put_between(g);
		start_insn(g, true);
		put8(g, 0xeb);
		bind_absolute(g, field, g->len);
		put8(g, 0);
		start_insn(g, true);
		if (g->bits == 64)
			put8(g, (uint8_t)(0x40 | (b >> 3) << 2 | a >> 3));
		else
			put8(g, 0x90);
		put8(g, 0x29);
		put8(g, (uint8_t)(0xc0 | (b & 7) << 3 | (a & 7)));
		break;
	default: /* 16 bytes of code over others, by an SSE store or REP MOVSB */
		start_insn(g, true);
		put8(g, 0xeb);
		put8(g, 16);
		template = g->len;
		start_insn(g, true);
		for (n = 0; n < 4; n++) { /* add eax, imm8; nop… : what it writes must not be kept */
			unsigned r = (unsigned)(a & 7);

			put8(g, g->bits == 64 ? (uint8_t)(0x40 | a >> 3) : 0x90);
			put8(g, 0x83);
			put8(g, (uint8_t)(0xc0 | below(g, 8) << 3 | r));
			put8(g, (uint8_t)gen_next(g));
		}
		if (kind == 4 || (g->kept & (1u << X86_RCX | 1u << X86_RSI | 1u << X86_RDI))) {
			field = put_absolute(g, 4, 0xf30f6f, 3);
			bind_absolute(g, field, template);
			field = put_absolute(g, 4, 0xf30f7f, 3);
		} else {
			put_mov_imm(g, X86_RSI, (uint32_t)g->at + template, true);
			put_mov_imm(g, X86_RDI, 0, true);
			field = g->len - 4;
			put_mov_imm(g, X86_RCX, 16, true);
			start_insn(g, true);
			put8(g, 0xfc); /* not over itself: what then happens is the CPU's own affair */
			put8(g, 0xf3);
			put8(g, 0xa4);
		}
		for (n = below(g, 3); n-- > 0;)
			put_between(g);
		bind_absolute(g, field, g->len);
		start_insn(g, true);
		for (n = 0; n < 16; n++)
			put8(g, 0x90);
		break;
	}
	if (counter >= 0) {
		put_reg(g, 4, 0xff, 1, (unsigned)counter);
		g->fixed[g->insns - 1] = true;
		start_insn(g, true);
		put8(g, 0x0f);
		put8(g, 0x85);
		put32(g, top - g->len - 4);
		g->locked &= (uint16_t)~(1u << counter);
	}
	g->kept = kept;
}

#endif
