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

#include "tests/unit/oracle_forms.h"

static void bind(struct gen *g, unsigned field, bool wide);
static void put_shape(struct gen *g);

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
		start_insn(g, true);
		put8(g, 0xe8);
		call = g->len;
		put32(g, 0);
	}
	start_insn(g, true);
	put8(g, 0xe9);
	over = g->len;
	put32(g, 0);
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
