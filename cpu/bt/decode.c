/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction decoder: prefixes and opcode are read in decode_opcode.c, the address in decode_mem.c; what an
 * instruction does is said here, from the row of the tables that matches it (decode_table.h).
 *
 * Pure functions of their arguments and of constant tables; any thread. Built with -mgeneral-regs-only, like
 * all that runs between guest instructions, and calls nothing in libc.
 */
#include "cpu/bt/decode.h"

#include <assert.h>

#include "cpu/bt/decode_priv.h"
#include "cpu/bt/decode_table.h"
#include "cpu/x86.h"

static void clear(struct insn *in)
{
	uint64_t *word = (uint64_t *)in;

	static_assert(sizeof(*in) % sizeof(*word) == 0 && _Alignof(struct insn) >= _Alignof(uint64_t),
		      "cleared by words");
#pragma GCC unroll 16
	for (unsigned i = 0; i < sizeof(*in) / sizeof(*word); i++)
		word[i] = 0;
}

/* ---- The row ------------------------------------------------------------------------------------------ */

static const struct decode_row *find_row(const struct decoding *d, unsigned last)
{
	const struct insn *in = d->in;
	const struct decode_row *row = &decode_rows[last];

	if (!row->match && row->feature == DECODE_BASE)
		return row;
	uint32_t bits = in->pp << MATCH_PP | in->w << MATCH_W | in->vl << MATCH_L |
			(in->vl != 0) << MATCH_NL0 | (in->mod == 3) << MATCH_REG |
			(in->reg & 7) << MATCH_DIGIT | (in->rm & 7) << MATCH_RM |
			(in->code_bits == 64) << MATCH_64 | (d->b != 0) << MATCH_B;
	uint16_t key = row->key;

	for (; row->key == key; row--) {
		if (((bits ^ (uint32_t)row->match) & (row->match >> 32)) == 0 &&
		    (d->features >> row->feature & 1))
			return row;
	}
	return NULL;
}

/* By rule and, in this order, REX.W, 66 and code size: 0 16 bits, 1 32, 2 64. */
static const uint8_t operand_sizes[][2][2][3] = {
	[OPSIZE_v] = {{{2, 4, 4}, {4, 2, 2}}, {{2, 4, 8}, {4, 2, 8}}},
	[OPSIZE_b] = {{{1, 1, 1}, {1, 1, 1}}, {{1, 1, 1}, {1, 1, 1}}},
	[OPSIZE_z] = {{{2, 4, 4}, {4, 2, 2}}, {{2, 4, 4}, {4, 2, 2}}},
	[OPSIZE_d64] = {{{2, 4, 8}, {4, 2, 2}}, {{2, 4, 8}, {4, 2, 8}}},
	[OPSIZE_f64] = {{{2, 4, 8}, {4, 2, 8}}, {{2, 4, 8}, {4, 2, 8}}},
	[OPSIZE_y] = {{{4, 4, 4}, {4, 4, 4}}, {{4, 4, 8}, {4, 4, 8}}},
};

static unsigned variable_size(const struct insn *in, enum decode_size size)
{
	bool long_mode = in->code_bits == 64;

	switch (size) {
	case SIZE_y:
		return long_mode && in->w ? 8 : 4;
	case SIZE_cr:
		return long_mode ? 8 : 4;
	case SIZE_z:
		return in->opsize == 2 ? 2 : 4;
	case SIZE_x:
		return 16 << in->vl;
	case SIZE_xh:
		return 8 << in->vl;
	case SIZE_xq:
		return 4 << in->vl;
	case SIZE_xe:
		return 2 << in->vl;
	case SIZE_xdup:
		return in->vl ? 16 << in->vl : 8;
	case SIZE_W:
		return in->w ? 8 : 4;
	case SIZE_p:
		return in->opsize + 2;
	case SIZE_a:
		return in->opsize * 2;
	case SIZE_s:
		return long_mode ? 10 : 6;
	case SIZE_c8:
		return long_mode && in->w ? 16 : 8;
	case SIZE_env:
		return in->opsize == 2 ? 14 : 28;
	case SIZE_save:
		return in->opsize == 2 ? 94 : 108;
	default:
		return 0;
	}
}

static inline unsigned size_bytes(const struct insn *in, enum decode_size size)
{
	static const uint16_t fixed[SIZE_COUNT] = {
		[SIZE_b] = 1, [SIZE_w] = 2, [SIZE_d] = 4, [SIZE_q] = 8, [SIZE_t] = 10, [SIZE_dq] = 16,
		[SIZE_qq] = 32, [SIZE_512] = 512, [SIZE_xsave] = 576,
	};

	if (size == SIZE_v)
		return in->opsize;
	return fixed[size] ? fixed[size] : variable_size(in, size);
}

/* ---- What follows from the row --------------------------------------------------------------------- */

static bool read_immediate(struct decoding *d, enum decode_imm kind)
{
	/* Bytes, by kind and operand size: 2, 4, 8. */
	static const uint8_t sizes[][3] = {
		[IMM_Ib] = {1, 1, 1}, [IMM_Ub] = {1, 1, 1}, [IMM_Iw] = {2, 2, 2}, [IMM_Iz] = {2, 4, 4},
		[IMM_Iv] = {2, 4, 8}, [IMM_Jb] = {1, 1, 1}, [IMM_Jz] = {2, 4, 4}, [IMM_Ap] = {2, 4, 4},
		[IMM_Iwb] = {2, 2, 2},
	};
	struct insn *in = d->in;
	uint64_t value;

	if (kind == IMM_moffs)
		return decode_moffs(d);
	in->imm_size = sizes[kind][in->opsize >> 2];
	in->imm_bytes_at = d->at;
	if (!decode_value(d, in->imm_size, &value))
		return false;
	if (kind == IMM_Ub || kind == IMM_Iw || kind == IMM_Iwb || kind == IMM_Ap)
		in->imm = value;
	else
		in->imm = decode_sign_extend(value, in->imm_size);
	if (kind == IMM_Iwb || kind == IMM_Ap) {
		if (!decode_value(d, kind == IMM_Ap ? 2 : 1, &value))
			return false;
		in->imm2 = value;
	}
	return true;
}

static inline void add_register(struct insn *in, enum insn_field field, unsigned acc, bool byte)
{
	in->gpr_fields |= field;
	in->gpr_read |= acc & ACCESS_READ ? field : 0;
	in->gpr_written |= acc & ACCESS_WRITE ? field : 0;
	in->gpr_byte |= byte ? field : 0;
}

/* General registers by field. False if the encoding names one that does not exist. */
static bool set_registers(struct decoding *d, const struct decode_row *row, uint64_t form)
{
	struct insn *in = d->in;
	unsigned esize = FORM_GET(form, ESIZE), gsize = FORM_GET(form, GSIZE);

	if (gsize) {
		if (in->reg > 15)
			return false;
		add_register(in, FIELD_REG, FORM_GET(form, GACC), gsize == SIZE_b);
		in->gpr_size = size_bytes(in, gsize);
	}
	if (in->mod == 3) {
		if (esize) {
			add_register(in, FIELD_RM, FORM_GET(form, ACC), esize == SIZE_b);
			if (!gsize)
				in->gpr_size = size_bytes(in, esize);
		} else if (in->encoding == ENC_EVEX) {
			in->rm |= d->x << 1; /* X is the fifth bit of a vector register */
		}
	}
	if (FORM_GET(form, OACC)) {
		in->rm = (in->opcode & 7) | d->b;
		add_register(in, FIELD_OPCODE, FORM_GET(form, OACC), in->opsize == 1);
		in->gpr_size = in->opsize;
	}
	if (FORM_GET(form, BACC)) {
		add_register(in, FIELD_VVVV, FORM_GET(form, BACC), false);
		in->gpr_size = size_bytes(in, SIZE_y);
	}
	in->implicit_read = row->implicit_read;
	in->implicit_written = row->implicit_written;
	return true;
}

static const uint16_t condition_flags[8] = {
	X86_OF, X86_CF, X86_ZF, X86_CF | X86_ZF, X86_SF, X86_PF, X86_SF | X86_OF, X86_ZF | X86_SF | X86_OF,
};

static void set_flags(struct insn *in, const struct decode_row *row, uint64_t form)
{
	const struct decode_flags *flags = &decode_flags[row->flags];

	if (FORM_GET(form, CC)) {
		in->cc = in->opcode & 15;
		in->flags_read = condition_flags[in->cc >> 1];
		return;
	}
	if (flags->by_count && !(in->imm & (in->opsize == 8 ? 63 : 31)))
		return;
	in->flags_read = flags->read;
	in->flags_written = flags->written;
	in->flags_maybe = flags->maybe;
	if (row->flags == FLAGS_REP && !in->rep && !in->repne) {
		in->flags_written = flags->maybe;
		in->flags_maybe = 0;
	}
}

/* EVEX.z, b and aaa, and VEX.vvvv (SDM vol. 2, 2.7.11). */
static bool check_vector(struct decoding *d, const struct decode_row *row, uint64_t form)
{
	struct insn *in = d->in;
	unsigned unit = FORM_GET(form, UNIT), mask = FORM_GET(form, MASK), round = FORM_GET(form, ROUND);
	uint64_t needs = 0;

	if (in->encoding == ENC_EVEX) {
		bool rounding = in->evex_b && in->mod == 3;
		bool any_length = FORM_GET(form, LIG) || (row->match >> 32 & 3 << MATCH_L);

		if (rounding && !round)
			return false;
		if (rounding)
			in->vl = 2;
		if (in->vl == 3 || (in->evex_b && in->mod != 3 && !FORM_GET(form, BCST)))
			return false;
		if ((in->evex_aaa && mask == MASK_NO) || (!in->evex_aaa && (mask == MASK_MUST || in->evex_z)))
			return false;
		if (in->evex_z && (mask != MASK_ZERO || (in->has_mem && (FORM_GET(form, ACC) & ACCESS_WRITE))))
			return false;
		needs = 1ull << DECODE_AVX512F;
		if (in->vl < 2 && !any_length)
			needs |= 1ull << DECODE_AVX512VL;
	} else if (unit == FPU_AVX) {
		needs = 1ull << DECODE_AVX;
		if (in->vl && FORM_GET(form, INT256))
			needs |= 1ull << DECODE_AVX2;
	} else if (unit == FPU_AVX512) {
		needs = 1ull << DECODE_AVX512F;
	}
	if (needs & ~d->features)
		return false;
	if (in->encoding == ENC_EVEX && FORM_GET(form, LIG))
		in->vl = 0;

	if (!FORM_GET(form, VVVV) && in->vvvv != (FORM_GET(form, VSIB) ? d->v2 : 0))
		return false;
	if (!FORM_GET(form, VVVV))
		in->vvvv = 0;
	if (in->code_bits != 64)
		in->vvvv &= ~8;
	return !(FORM_GET(form, KVVVV) && in->vvvv > 7) && !(FORM_GET(form, KREG) && in->reg > 7);
}

/* What masks, broadcast and alignment make of a vector's memory operand. */
static void set_vector_memory(struct decoding *d, uint64_t form)
{
	struct insn *in = d->in;
	unsigned elem = FORM_GET(form, ELEM) == ELEM_W ? (in->w ? 8 : 4) : size_bytes(in, FORM_GET(form, ELEM));
	unsigned align = FORM_GET(form, ALIGN);
	bool broadcast = in->encoding == ENC_EVEX && in->evex_b;

	if (broadcast)
		in->mem_size = elem;
	in->mem_packed = FORM_GET(form, TUPLE1);
	if (FORM_GET(form, VMASK)) {
		in->mem_masked = true;
		in->mem_mask_vreg = in->vvvv;
	} else if (FORM_GET(form, VSIB) || (in->evex_aaa && !FORM_GET(form, NOSUPP))) {
		in->mem_masked = true;
	}
	if (in->mem_masked || broadcast)
		in->mem_elem = elem;
	if (in->encoding == ENC_EVEX && d->disp8)
		in->disp *= FORM_GET(form, TUPLE1) ? elem : in->mem_size;
	if (align == ALIGN_YES || (align == ALIGN_DEFAULT && in->encoding == ENC_LEGACY && in->mem_size == 16))
		in->mem_align = in->mem_size;
}

/* The size of the memory operand and how it is accessed. */
static void set_memory(struct decoding *d, uint64_t form)
{
	struct insn *in = d->in;
	unsigned size = FORM_GET(form, MSIZE);

	in->mem_size = size_bytes(in, size);
	in->mem_access = size == SIZE_0 && in->op != OP_INVLPG ? ACCESS_NONE : FORM_GET(form, ACC);
	if (in->fpu >= FPU_SSE)
		set_vector_memory(d, form);
	if (size == SIZE_512)
		in->mem_align = 16;
	else if (size == SIZE_c8 && FORM_GET(form, ALIGN) == ALIGN_YES)
		in->mem_align = 16;
	else if (size == SIZE_xsave)
		in->mem_align = 64;
}

/* VSIB: a register is not to be named twice where the instruction could be restarted wrongly. */
static bool check_vsib(const struct insn *in)
{
	if (!in->vsib)
		return false;
	if (in->encoding == ENC_EVEX)
		return in->op == OP_SCATTER || in->reg != in->index;
	return in->reg != in->index && in->reg != in->vvvv && in->vvvv != in->index;
}

/* Segment, control and debug registers in operands. */
static bool check_system_register(struct insn *in)
{
	switch (in->op) {
	case OP_PUSH_SEG:
	case OP_POP_SEG:
		in->sreg = (in->opcode >> 3) & 7;
		return true;
	case OP_LOAD_FAR:
		in->sreg = in->opcode == 0xc4 ? X86_ES : in->opcode == 0xc5 ? X86_DS : in->opcode & 7;
		return true;
	case OP_MOV_SEG_TO:
	case OP_MOV_SEG_FROM:
		in->sreg = in->reg & 7;
		return in->sreg <= X86_GS && (in->op == OP_MOV_SEG_FROM || in->sreg != X86_CS);
	case OP_MOV_FROM_CR:
	case OP_MOV_TO_CR:
		return in->reg == 0 || in->reg == 2 || in->reg == 3 || in->reg == 4 || in->reg == 8;
	case OP_MOV_FROM_DR:
	case OP_MOV_TO_DR:
		return in->reg < 8;
	}
	return true;
}

/*
 * Does VEX.W or EVEX.W choose the width of a general register? Outside of 64-bit code it is ignored then, and must
 * not come back when the instruction is encoded again as 64-bit code: the access would be wider than mem_size.
 */
static bool is_y(uint64_t form)
{
	return FORM_GET(form, MSIZE) == SIZE_y || FORM_GET(form, ESIZE) == SIZE_y ||
	       FORM_GET(form, GSIZE) == SIZE_y || FORM_GET(form, BACC);
}

/* Fills in all that the row says. False: not an instruction. */
static bool apply_row(struct decoding *d, const struct decode_row *row)
{
	struct insn *in = d->in;
	uint64_t form = row->form;

	in->op = row->op;
	in->klass = in->op == OP_COPY ? CLASS_COPY : in->op < OP_FIRST_CALL ? CLASS_REWRITE : CLASS_CALL;
	in->fpu = FORM_GET(form, UNIT);
	in->may_trap = FORM_GET(form, TRAP);
	in->opsize = operand_sizes[FORM_GET(form, OPSIZE)][in->w][in->opsize_prefix][in->code_bits >> 5];
	if (in->encoding == ENC_LEGACY) {
		if (!(row->match >> 32 & 3 << MATCH_PP))
			in->pp = PP_NP;
	} else if (!check_vector(d, row, form)) {
		return false;
	}
	if (FORM_GET(form, MODRM) && !(FORM_GET(form, RM) & (in->has_mem ? 1 : 2)))
		return false;
	if (in->code_bits != 64 && is_y(form))
		in->w = 0;
	in->lockable = in->has_mem && FORM_GET(form, LOCK);
	if (in->lock && !in->lockable)
		return false;
	if (!set_registers(d, row, form))
		return false;
	if (FORM_GET(form, VSIB)) {
		if (!decode_vsib(d) || !check_vsib(in))
			return false;
	}
	if (in->has_mem || FORM_GET(form, IMM) == IMM_moffs)
		set_memory(d, form);
	return true;
}

static void use_counter(struct insn *in)
{
	if ((in->rep || in->repne) && in->op >= OP_MOVS && in->op <= OP_OUTS) {
		in->implicit_read |= 1 << X86_RCX;
		in->implicit_written |= 1 << X86_RCX;
	}
}

static enum decode_result invalid(struct decoding *d)
{
	d->in->klass = CLASS_INVALID;
	d->in->op = OP_UD;
	d->in->len = d->at;
	return DECODE_OK;
}

static enum decode_result out_of_bytes(const struct decoding *d)
{
	return d->limit == INSN_MAX_LEN ? DECODE_TOO_LONG : DECODE_TRUNCATED;
}

enum decode_result decode(const uint8_t *code, size_t avail, unsigned code_bits,
			  const struct decode_features *features, struct insn *in)
{
	struct decoding d = {
		.code = code,
		.limit = avail < INSN_MAX_LEN ? avail : INSN_MAX_LEN,
		.in = in,
		.features = features->bits | 1ull << DECODE_BASE,
		.override = DECODE_NO_OVERRIDE,
	};
	const struct decode_row *row;
	unsigned index;

	clear(in);
	in->code_bits = code_bits;
	in->base = in->index = REG_NONE;
	if (!decode_opcode(&d))
		return out_of_bytes(&d);
	in->addrsize = code_bits == 64 ? (in->addrsize_prefix ? 4 : 8)
		       : in->addrsize_prefix == (code_bits == 16) ? 4 : 2;
	in->seg = d.override == DECODE_NO_OVERRIDE ? X86_DS : d.override;
	if (d.bad)
		return invalid(&d);

	index = decode_index[DECODE_KEY(in->encoding, in->map, in->opcode)];
	if (!index)
		return invalid(&d);
	if (index & DECODE_INDEX_MODRM) {
		if (!decode_modrm(&d))
			return out_of_bytes(&d);
	}
	row = find_row(&d, index & ~DECODE_INDEX_MODRM);
	if (!row || !apply_row(&d, row))
		return invalid(&d);
	if (FORM_GET(row->form, IMM) && !read_immediate(&d, FORM_GET(row->form, IMM)))
		return out_of_bytes(&d);
	set_flags(in, row, row->form);
	use_counter(in);
	in->len = d.at;
	if (!check_system_register(in))
		return invalid(&d);
	return DECODE_OK;
}
