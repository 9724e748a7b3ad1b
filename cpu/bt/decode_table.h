/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The language of the opcode tables (decode_*.def), between them and decode.c.
 *
 * A table is a list of rows, one instruction form each, in the order of the opcodes as in the opcode maps
 * of the Intel SDM (vol. 2, appendix A):
 *
 *	R(opcode, when, name, form, .field = …)
 *
 * An opcode may have several rows, one after the other; the last one that matches counts, so the general
 * form comes first and its exceptions follow. (A row whose extension is not offered does not match, so that
 * LZCNT falls back to BSR as it does on an older CPU.) Without a matching row the instruction is #UD.
 * R8 and R16 are one row for 8 or 16 opcodes.
 *
 * when: the conditions, or-ed: mandatory prefix NP P66 PF3 PF2 (or ANY: prefixes make no other instruction),
 * W0 W1, L0 L1 L2 (vector length 128, 256, 512) or NL0 (not 128), MEM or REG (ModRM.mod), D(n) (ModRM.reg),
 * RM(n), M64 or N64 (in 64-bit code only, not there), B1 (REX.B).
 *
 * form: what stands in the encoding, or-ed (capitals as in appendix A), with accesses R, W, RW:
 *	E(r, m, acc)	ModRM.rm: a general register of size r or memory of size m
 *	M(m, acc)	ModRM.rm: memory only
 *	W(m, acc)	ModRM.rm: a vector, mask or x87 register, or memory of size m
 *	U		ModRM.rm: such a register only; U(r, acc) of general registers is ER
 *	G(r, acc)	ModRM.reg: a general register (nothing is said of other kinds of register there)
 *	H		VEX.vvvv names a vector or mask register; B(acc) a general register
 *	O(acc)		the low three opcode bits name a general register
 *	Ib Ub …		immediates
 * and attributes, below. implicit registers: READS(AX | CX), WRITES(DX) after the form.
 */
#ifndef CPU_BT_DECODE_TABLE_H
#define CPU_BT_DECODE_TABLE_H

#include <stdint.h>

/* The maps as numbered in a row's key: encoding * 4 + map. */
#define DECODE_KEY(enc, map, opcode) ((enc) << 10 | (map) << 8 | (opcode))
#define DECODE_MAPS 12

struct decode_row {
	uint64_t match; /* mask << 32 | value, over the bits of enum decode_match_bit */
	uint64_t form;
	uint16_t key;	  /* DECODE_KEY of its first opcode */
	uint8_t op;	  /* enum insn_op */
	uint8_t flags;	  /* index of decode_flags */
	uint8_t feature;  /* enum decode_feature */
	uint8_t implicit_read, implicit_written; /* registers 0..7 */
};

struct decode_flags {
	uint16_t read, written, maybe;
	uint16_t by_count; /* an immediate count of 0 keeps them all, and reads none */
};

extern const struct decode_row decode_rows[];
extern const unsigned decode_row_count;
/* The last row of each opcode, 0 if there is none; DECODE_INDEX_MODRM: the opcode has a ModRM byte. */
extern const uint16_t decode_index[DECODE_MAPS * 256];
#define DECODE_INDEX_MODRM 0x8000
extern const struct decode_flags decode_flags[];

/* ---- when ---- */

enum decode_match_bit {
	MATCH_PP = 0, /* 2 bits */
	MATCH_W = 2,
	MATCH_L = 3,	/* 2 bits */
	MATCH_NL0 = 5,	/* L != 0 */
	MATCH_REG = 6,	/* mod == 3 */
	MATCH_DIGIT = 7, /* 3 bits: ModRM.reg without its extension */
	MATCH_RM = 10,	/* 3 bits */
	MATCH_64 = 13,
	MATCH_B = 14,
};

#define WHEN(bit, width, value) \
	((uint64_t)(((1u << (width)) - 1) << (bit)) << 32 | (uint64_t)((uint32_t)(value) << (bit)))

enum { PP_NP, PP_66, PP_F3, PP_F2 };

/* ---- form ---- */

/* Sizes. Those up to SIZE_CR can also be the size of a general register. */
enum decode_size {
	SIZE_0, SIZE_b, SIZE_w, SIZE_d, SIZE_q,
	SIZE_v,	 /* opsize */
	SIZE_y,	 /* 8 with REX.W or VEX.W in 64-bit code, else 4 */
	SIZE_cr, /* 8 in 64-bit code, else 4 */
	SIZE_z,	 /* opsize, at most 4 */
	SIZE_t, SIZE_dq, SIZE_qq, SIZE_512, /* 10, 16, 32, 512 */
	SIZE_x, SIZE_xh, SIZE_xq, SIZE_xe, /* the vector length, half, a quarter, an eighth of it */
	SIZE_xdup, /* VMOVDDUP: 8, 32, 64 */
	SIZE_W,	   /* 8 with W, else 4, in any mode */
	SIZE_p,	   /* far pointer: opsize + 2 */
	SIZE_a,	   /* BOUND's pair: opsize * 2 */
	SIZE_s,	   /* descriptor table: 6, in 64-bit code 10 */
	SIZE_c8,   /* CMPXCHG8B, CMPXCHG16B */
	SIZE_env, SIZE_save, /* x87 environment and state */
	SIZE_xsave, /* the least XSAVE touches; CPUID says how much it is */
	SIZE_COUNT,
};

enum decode_imm {
	IMM_NONE,
	IMM_Ib, /* 8 bits, sign-extended */
	IMM_Ub, /* 8 bits, zero-extended */
	IMM_Iw, /* 16 bits, zero-extended */
	IMM_Iz, /* opsize, at most 4 bytes, sign-extended */
	IMM_Iv, /* opsize */
	IMM_Jb, IMM_Jz, /* branch displacement */
	IMM_Ap, /* far pointer */
	IMM_Iwb, /* ENTER */
	IMM_moffs, /* the address of a memory operand of size SIZE_v or SIZE_b */
};

enum decode_opsize {
	OPSIZE_v, /* 66 and REX.W choose */
	OPSIZE_b, /* 1 */
	OPSIZE_z, /* 66 chooses, REX.W has no effect */
	OPSIZE_d64, /* as v, but 8 in 64-bit code without 66: stack operations */
	OPSIZE_f64, /* 8 in 64-bit code whatever the prefixes: near branches */
	OPSIZE_y,   /* REX.W chooses, 66 has no effect or another */
};

enum decode_mask { MASK_NO, MASK_MERGE, MASK_ZERO, MASK_MUST };
enum decode_round { ROUND_NO, ROUND_SAE, ROUND_ER };
enum decode_align { ALIGN_DEFAULT, ALIGN_NO, ALIGN_YES };

/* Where each attribute sits in the form: FORM_name(value) puts it there, FORM_GET takes it out. */
#define FORM_FIELDS(F) \
	F(MSIZE, 0, 5)	  /* memory operand: enum decode_size */ \
	F(ACC, 5, 2)	  /* access to ModRM.rm, or moffs */ \
	F(RM, 7, 2)	  /* what ModRM.rm may be: 1 memory, 2 a register, 3 both */ \
	F(ESIZE, 9, 3)	  /* ModRM.rm is a general register of this size, 0 of another kind */ \
	F(GSIZE, 12, 3)	  /* ModRM.reg likewise */ \
	F(GACC, 15, 2)	  \
	F(VVVV, 17, 1)	  /* VEX.vvvv is used */ \
	F(BACC, 18, 2)	  /* VEX.vvvv is a general register of size y */ \
	F(OACC, 20, 2)	  /* the opcode's low three bits are one of size v or b */ \
	F(MODRM, 22, 1) \
	F(IMM, 23, 4)	  /* enum decode_imm */ \
	F(OPSIZE, 27, 3) /* enum decode_opsize */ \
	F(UNIT, 30, 3)	  /* enum insn_fpu */ \
	F(TRAP, 33, 1) \
	F(LOCK, 34, 1)	  /* LOCK is allowed with a memory operand */ \
	F(ALIGN, 35, 2)	  /* enum decode_align */ \
	F(CC, 37, 1)	  /* the opcode's low four bits are a condition that is read */ \
	F(VSIB, 38, 1) \
	F(VMASK, 39, 1)	  /* VMASKMOV: the sign bits of vvvv are a mask */ \
	F(MASK, 40, 2)	  /* EVEX.aaa: enum decode_mask */ \
	F(BCST, 42, 1)	  /* EVEX.b with memory broadcasts one element */ \
	F(ROUND, 43, 2)	  /* EVEX.b with registers: enum decode_round */ \
	F(ELEM, 45, 3)	  /* element: SIZE_b to SIZE_q, or 7: 8 with W, else 4 */ \
	F(TUPLE1, 48, 1) /* disp8 is scaled by the element */ \
	F(LIG, 49, 1)	  /* scalar: the vector length does not matter */ \
	F(NOSUPP, 50, 1) /* masked, but faults are not suppressed */ \
	F(INT256, 51, 1) /* AVX2 with vector length 256 */ \
	F(KREG, 52, 1)	  /* ModRM.reg is a mask register */ \
	F(KVVVV, 53, 1)	  /* VEX.vvvv is a mask register */

#define FORM_ENUM(name, at, width) FORM_##name##_AT = (at), FORM_##name##_WIDTH = (width),
enum { FORM_FIELDS(FORM_ENUM) };
#undef FORM_ENUM
#define FORM(name, value) ((uint64_t)(value) << FORM_##name##_AT)
#define FORM_GET(form, name) ((unsigned)((form) >> FORM_##name##_AT) & ((1u << FORM_##name##_WIDTH) - 1))
#define ELEM_W 7

/* ---- flags ---- */

enum decode_flags_kind {
	FLAGS_NONE,
	FLAGS_ALL,	  /* written: ADD, also where some are undefined: MUL, AND */
	FLAGS_ADC,	  /* CF read, all written */
	FLAGS_INC,	  /* all but CF written */
	FLAGS_ROT1, FLAGS_ROT_IMM, FLAGS_ROT_CL,
	FLAGS_RCX1, FLAGS_RCX_IMM, FLAGS_RCX_CL,
	FLAGS_SHIFT_IMM, FLAGS_SHIFT_CL,
	FLAGS_W_CF, FLAGS_RW_CF, FLAGS_R_CF, FLAGS_RW_OF, FLAGS_W_ZF, FLAGS_R_ZF, FLAGS_R_PF,
	FLAGS_R_BE,	  /* CF and ZF read */
	FLAGS_BT,	  /* CF written; what is undefined, all but ZF, CPUs keep */
	FLAGS_DAA,	  /* CF and AF read, all written */
	FLAGS_AAA,	  /* AF read, all written */
	FLAGS_SAHF,	  /* all but OF written */
	FLAGS_LAHF,	  /* all but OF read */
	FLAGS_READ,	  /* all read */
	FLAGS_REP,	  /* CMPS, SCAS: all written, but with REP and a count of 0 kept */
	FLAGS_FCOMI,
	FLAGS_SYSCALL,	  /* all kept in R11, then cleared under a mask */
	FLAGS_KINDS,
};

#endif
