/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One random instruction, for oracle_gen.h: a form (oracle_forms.h), and registers, addressing, immediates, prefixes and masks for it.
 */
#ifndef TESTS_UNIT_ORACLE_FILL_H
#define TESTS_UNIT_ORACLE_FILL_H

#include "tests/unit/oracle_forms.h"

static void put8(struct gen *g, uint8_t b)
{
	assert(g->len < sizeof(g->code));
	g->code[g->len++] = b;
}

static void put32(struct gen *g, uint32_t v)
{
	for (unsigned k = 0; k < 4; k++)
		put8(g, (uint8_t)(v >> 8 * k));
}

static void start_insn(struct gen *g, bool fixed)
{
	assert(g->insns < sizeof(g->starts) / sizeof(g->starts[0]));
	g->starts[g->insns] = (uint16_t)g->len;
	g->fixed[g->insns++] = fixed;
}

/* An address that an access may go to. */
static uint64_t random_pointer(struct gen *g)
{
	unsigned kind = below(g, 100);

	if (kind < 70)
		return DATA_AT + 0x800 + (below(g, 0x2800) & ~63u);
	if (kind < 85)
		return DATA_AT + 0x800 + below(g, 0x2800);
	return DATA_AT + 4096 * (1 + below(g, 12)) - 64 + below(g, 128); /* at the edge of a page */
}

/* mov r32, imm32 */
static void put_mov_imm(struct gen *g, unsigned reg, uint32_t value, bool fixed)
{
	start_insn(g, fixed);
	if (reg >= 8)
		put8(g, 0x41);
	put8(g, 0xb8 | (reg & 7));
	put32(g, value);
}

static void set_pointer(struct gen *g, unsigned reg)
{
	put_mov_imm(g, reg, (uint32_t)random_pointer(g), false);
}

static uint16_t registers_written(const struct insn *in)
{
	uint16_t set = in->implicit_written;

	for (unsigned f = FIELD_REG; f <= FIELD_OPCODE; f <<= 1) {
		unsigned n = f == FIELD_REG ? in->reg : f == FIELD_VVVV ? in->vvvv : in->rm;

		if (!(in->gpr_written & f))
			continue;
		if ((in->gpr_byte & f) && !in->rex && n >= 4 && n < 8)
			n -= 4;
		set |= 1u << (n & 15);
	}
	return set;
}

static void fill_memory(struct gen *g, const struct form *f, struct fields *x, bool vsib)
{
	unsigned base = g->pointer[below(g, 3)], kind = below(g, 100), index;
	bool small = percent(g, 70);

	if (!g->calls && percent(g, 8))
		base = X86_RSP;
	if (g->group)
		base = g->group_base;
	x->disp = small ? (int32_t)(below(g, 5) - 2) * 64 : (int32_t)below(g, 256) - 128;
	x->ndisp = 1;
	if (kind < 30)
		x->disp = (int32_t)below(g, 3) * 64 - (small ? 0 : (int32_t)below(g, 100)),
		x->ndisp = 4;
	if (f->enc == ENC_EVEX && x->ndisp == 1)
		x->disp = (int32_t)below(g, 8) - 4;
	if (g->group) {
		x->disp = (int32_t)below(g, 2 * g->group_reach) - g->group_reach;
		x->ndisp = 4;
		kind = 50;
	}
	x->b = (uint8_t)(base >> 3);
	x->x = 0;
	if (!vsib && kind < 10) { /* [rip + disp32], or an absolute address */
		x->modrm = (uint8_t)((x->modrm & 0x38) | (kind < 5 ? 5 : 4));
		x->sib = 0x25;
		x->b = 0;
		x->ndisp = 4;
		x->disp = (int32_t)random_pointer(g); /* made relative later */
		return;
	}
	x->modrm = (uint8_t)((x->modrm & 0x38) | (x->ndisp == 1 ? 0x40 : 0x80) | (base & 7));
	if (!vsib && (base & 7) != 4 && kind < 75)
		return;
	x->modrm = (x->modrm & ~7u) | 4;
	index = vsib		 ? (unsigned)(uint8_t[]){ 5, 13, 21 }[below(g, g->bits == 32	    ? 1
									       : f->enc == ENC_EVEX ? 3
												    : 2)]
		: percent(g, 50) ? 4
				 : below(g, g->bits == 64 ? 16 : 8); /* 4: none */
	if (vsib && f->enc == ENC_EVEX)
		x->vvvv = index & 16;
	x->x = index >> 3 & 1;
	x->sib = (uint8_t)(below(g, 4) << 6 | (index & 7) << 3 | (base & 7));
}

static void fill(struct gen *g, const struct form *f, struct fields *x, bool vsib)
{
	static const uint8_t extra[] = { 0x2e, 0x36, 0x3e, 0x26, 0x65, 0x67, 0x66, 0xf3, 0xf2 };

	*x = (struct fields){ .r = (uint8_t)below(g, 2),
			      .x = (uint8_t)below(g, 2),
			      .b = (uint8_t)below(g, 2) };
	if (f->enc != ENC_EVEX || percent(g, 50))
		x->r2 = 0;
	else
		x->r2 = (uint8_t)below(g, 2);
	x->rex = percent(g, 60);
	if (!x->rex && f->enc == ENC_LEGACY && !f->w)
		x->r = x->x = x->b = 0;
	x->vvvv = percent(g, 75) ? (uint8_t)below(g, f->enc == ENC_EVEX ? 32 : 16) : 0;
	if (percent(g, 60)) {
		x->aaa = (uint8_t)below(g, 8);
		x->z = x->aaa && percent(g, 40);
	}
	x->bcst = percent(g, 30);
	if (percent(g, 6))
		x->legacy[x->nlegacy++] = extra[below(g, f->enc == ENC_LEGACY ? 6 : 6)];
	if (f->enc == ENC_LEGACY && f->mem && f->pp < 2 && percent(g, 12))
		x->legacy[x->nlegacy++] = 0xf0;
	x->modrm = (uint8_t)((f->mem ? 0 : 0xc0) |
			     (f->digit >= 0 ? (unsigned)f->digit : below(g, 8)) << 3 |
			     (f->rm >= 0 ? (unsigned)f->rm : below(g, 8)));
	if (f->mem)
		fill_memory(g, f, x, vsib);
	if (x->x || x->b)
		x->rex = true;
	if (g->bits == 32) {
		x->rex = false;
		x->r = x->x = x->b = x->r2 = 0;
		x->vvvv &= 7;
	}
	for (unsigned k = 0; k < sizeof(x->tail); k++)
		x->tail[k] = (uint8_t)gen_next(g);
	if (percent(g, 50))
		memset(x->tail + 1, x->tail[0] & 0x80 ? 0xff : 0, 3);
}

/* Would mostly end the piece, or is made by other functions here: @percentage of them are let through. */
static unsigned percentage(const struct insn *in, ZydisMnemonic name)
{
	switch (in->op) {
	case OP_MOVS:
	case OP_CMPS:
	case OP_STOS:
	case OP_LODS:
	case OP_SCAS: return 0;
	case OP_POPF:
	case OP_IN:
	case OP_OUT:
	case OP_INS:
	case OP_OUTS:
	case OP_CLI:
	case OP_STI:
	case OP_HLT:
	case OP_RDMSR:
	case OP_WRMSR:
	case OP_MOV_FROM_CR:
	case OP_MOV_TO_CR:
	case OP_MOV_FROM_DR:
	case OP_MOV_TO_DR:
	case OP_CLTS:
	case OP_LMSW:
	case OP_LGDT:
	case OP_LIDT:
	case OP_LLDT:
	case OP_LTR:
	case OP_INVD:
	case OP_WBINVD:
	case OP_INVLPG:
	case OP_INVPCID:
	case OP_SWAPGS:
	case OP_STAC:
	case OP_CLAC:
	case OP_ENTER:
	case OP_LEAVE: return 10;
	case OP_BT_MEM:
	case OP_FLDENV:
	case OP_FRSTOR:
	case OP_FXRSTOR: return 25;
	default: break;
	}
	switch (name) {
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_FLDCW: return 30;
	default: return 100;
	}
}

static bool stack_op(unsigned op)
{
	return op == OP_PUSH || op == OP_POP || op == OP_PUSHF || op == OP_POPF ||
	       op == OP_PUSH_SEG;
}

/* What goes before an instruction so that it does something more often than not. */
static void prepare(struct gen *g, const struct insn *in, ZydisMnemonic name)
{
	if (in->has_mem && in->base < 16 && in->base != X86_RSP && !g->group && percent(g, 12) &&
	    (in->base == g->pointer[0] || in->base == g->pointer[1] || in->base == g->pointer[2]))
		set_pointer(g, in->base);
	if (in->has_mem && !in->vsib && in->index < 16 && percent(g, 85) &&
	    !(g->kept & 1u << in->index))
		put_mov_imm(g, in->index, below(g, 64), false);
	if ((name == ZYDIS_MNEMONIC_DIV || name == ZYDIS_MNEMONIC_IDIV) && percent(g, 80) &&
	    !(g->kept & 1u << X86_RDX))
		put_mov_imm(g, X86_RDX, 0, false);
	if (in->op == OP_BT_MEM && percent(g, 90) && !(g->kept & 1u << in->reg)) {
		start_insn(g, false); /* mov r, simm32 */
		if (g->bits == 64)
			put8(g, 0x48 | in->reg >> 3);
		put8(g, 0xc7);
		put8(g, 0xc0 | (in->reg & 7));
		put32(g, below(g, 4096) - 2048);
	}
}

static void put_plain(struct gen *g)
{
	static const uint8_t weight[GROUPS] = {
		[GROUP_INT] = 46, [GROUP_INT_RARE] = 6, [GROUP_X87] = 9,
		[GROUP_SSE] = 13, [GROUP_VEX] = 11,	[GROUP_EVEX] = 15,
	};
	ZydisDecodedInstruction zi;
	uint8_t code[48];
	struct insn in;
	struct fields x;

	for (;;) {
		unsigned dice = below(g, 100), group = 0;

		while (dice >= weight[group])
			dice -= weight[group++];
		if (!g->count[group])
			continue;
		const struct form *f = &g->forms[group][below(g, g->count[group])];

		for (unsigned tries = 0; tries < 6; tries++) {
			fill(g, f, &x, tries >= 4);
			if (tries & 1)
				x.vvvv = x.aaa = x.z = x.bcst = 0;
			unsigned n = encode(f, &x, code);

			if (!acceptable(g, code, n, &in, &zi))
				continue;
			if (!percent(g, percentage(&in, zi.mnemonic)) ||
			    in.vsib != (tries >= 4 && f->mem && in.vsib))
				continue;
			if (g->group && (!in.has_mem || in.base != g->group_base))
				continue;
			if ((registers_written(&in) & g->kept &
			     (stack_op(in.op) ? ~(1u << X86_RSP) : ~0u)) &&
			    !percent(g, 1))
				continue;
			if ((g->calls && (registers_written(&in) & 1u << X86_RSP)) ||
			    (registers_written(&in) & g->locked))
				continue;
			if (in.rep && in.klass == CLASS_CALL && !percent(g, 20))
				continue;
			prepare(g, &in, zi.mnemonic);
			if (in.base == REG_PC) {
				x.disp = (int32_t)((uint32_t)x.disp -
						   (uint32_t)(g->at + g->len + in.len));
				encode(f, &x, code);
			}
			start_insn(g, false);
			memcpy(g->code + g->len, code, in.len);
			g->len += in.len;
			return;
		}
	}
}

#endif
