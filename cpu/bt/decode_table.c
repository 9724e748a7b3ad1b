/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the opcode tables of the decoder from the lists of instructions in decode_*.def, at compile time:
 * each list is read twice, for the rows and for the index into them. decode_table.h explains the rows.
 */
#include "cpu/bt/decode_table.h"

#include "cpu/bt/decode.h"
#include "cpu/x86.h"

/* ---- when ---- */
#define ANY 0
#define NP WHEN(MATCH_PP, 2, PP_NP)
#define P66 WHEN(MATCH_PP, 2, PP_66)
#define PF3 WHEN(MATCH_PP, 2, PP_F3)
#define PF2 WHEN(MATCH_PP, 2, PP_F2)
#define NP66 WHEN(MATCH_PP + 1, 1, 0) /* NP or 66 */
#define W0 WHEN(MATCH_W, 1, 0)
#define W1 WHEN(MATCH_W, 1, 1)
#define L0 WHEN(MATCH_L, 2, 0)
#define L1 WHEN(MATCH_L, 2, 1)
#define L2 WHEN(MATCH_L, 2, 2)
#define NL0 WHEN(MATCH_NL0, 1, 1)
#define MEM WHEN(MATCH_REG, 1, 0)
#define REG WHEN(MATCH_REG, 1, 1)
#define D(n) WHEN(MATCH_DIGIT, 3, n)
#define RM(n) (REG | WHEN(MATCH_RM, 3, n))
#define M64 WHEN(MATCH_64, 1, 1)
#define N64 WHEN(MATCH_64, 1, 0)
#define REXB0 WHEN(MATCH_B, 1, 0)

/* ---- form ---- */
#define ACC_R 1
#define ACC_W 2
#define ACC_RW 3
#define E(r, m, acc) \
	(FORM(MODRM, 1) | FORM(RM, 3) | FORM(ESIZE, SIZE_##r) | FORM(MSIZE, SIZE_##m) | FORM(ACC, ACC_##acc))
#define ER(r, acc) (FORM(MODRM, 1) | FORM(RM, 2) | FORM(ESIZE, SIZE_##r) | FORM(ACC, ACC_##acc))
#define M(m, acc) (FORM(MODRM, 1) | FORM(RM, 1) | FORM(MSIZE, SIZE_##m) | FORM(ACC, ACC_##acc))
#define W(m, acc) (FORM(MODRM, 1) | FORM(RM, 3) | FORM(MSIZE, SIZE_##m) | FORM(ACC, ACC_##acc))
#define U (FORM(MODRM, 1) | FORM(RM, 2))
#define NOPE (FORM(MODRM, 1) | FORM(RM, 3)) /* register or memory, neither looked at */
#define G(r, acc) (FORM(MODRM, 1) | FORM(GSIZE, SIZE_##r) | FORM(GACC, ACC_##acc))
#define H FORM(VVVV, 1)
#define B(acc) (FORM(VVVV, 1) | FORM(BACC, ACC_##acc))
#define O(acc) FORM(OACC, ACC_##acc)
#define Ib FORM(IMM, IMM_Ib)
#define Ub FORM(IMM, IMM_Ub)
#define Iw FORM(IMM, IMM_Iw)
#define Iz FORM(IMM, IMM_Iz)
#define Iv FORM(IMM, IMM_Iv)
#define Jb FORM(IMM, IMM_Jb)
#define Jz FORM(IMM, IMM_Jz)
#define Ap FORM(IMM, IMM_Ap)
#define Iwb FORM(IMM, IMM_Iwb)
#define MOFFS(m, acc) (FORM(IMM, IMM_moffs) | FORM(MSIZE, SIZE_##m) | FORM(ACC, ACC_##acc))

#define OB FORM(OPSIZE, OPSIZE_b)
#define OZ FORM(OPSIZE, OPSIZE_z)
#define D64 FORM(OPSIZE, OPSIZE_d64)
#define F64 FORM(OPSIZE, OPSIZE_f64)
#define OY FORM(OPSIZE, OPSIZE_y)
#define TRAP FORM(TRAP, 1)
#define LK FORM(LOCK, 1)
#define NOALIGN FORM(ALIGN, ALIGN_NO)
#define ALIGN FORM(ALIGN, ALIGN_YES)
#define CC FORM(CC, 1)
#define VSIB FORM(VSIB, 1)
#define VMASK (FORM(VMASK, 1) | FORM(VVVV, 1))
#define MZ FORM(MASK, MASK_ZERO)
#define MK FORM(MASK, MASK_MERGE)
#define MM FORM(MASK, MASK_MUST)
#define BC FORM(BCST, 1)
#define SAE FORM(ROUND, ROUND_SAE)
#define RC FORM(ROUND, ROUND_ER)
#define e1 FORM(ELEM, SIZE_b)
#define e2 FORM(ELEM, SIZE_w)
#define e4 FORM(ELEM, SIZE_d)
#define e8 FORM(ELEM, SIZE_q)
#define eW FORM(ELEM, ELEM_W)
#define T1 FORM(TUPLE1, 1)
#define LIG FORM(LIG, 1)
#define NF FORM(NOSUPP, 1)
#define I256 FORM(INT256, 1)
#define KG FORM(KREG, 1)
#define KH (FORM(VVVV, 1) | FORM(KVVVV, 1))

#define UNIT_x87 (FORM(UNIT, FPU_X87) | OY)
#define UNIT_mmx (FORM(UNIT, FPU_MMX) | OY)
#define UNIT_sse (FORM(UNIT, FPU_SSE) | OY)
#define UNIT_avx (FORM(UNIT, FPU_AVX) | OY)
#define UNIT_avx512 (FORM(UNIT, FPU_AVX512) | OY)

/* ---- the rest of a row ---- */
#define OP(x) .op = OP_##x
#define FL(x) .flags = FLAGS_##x
#define NEEDS(x) .feature = DECODE_##x
#define READS(regs) .implicit_read = (regs)
#define WRITES(regs) .implicit_written = (regs)
enum { AX = 1, CX = 2, DX = 4, BX = 8, SP = 16, BP = 32, SI = 64, DI = 128 };

/* Rows by unit: integer, x87, MMX, SSE, AVX, AVX-512. */
#define F(o, when, name, form, ...) R(o, when, name, UNIT_x87 | (form), __VA_ARGS__)
#define X(o, when, name, form, ...) R(o, when, name, UNIT_mmx | TRAP | (form), __VA_ARGS__)
#define S(o, when, name, form, ...) R(o, when, name, UNIT_sse | (form), __VA_ARGS__)
#define V(o, when, name, form, ...) R(o, when, name, UNIT_avx | (form), __VA_ARGS__)
#define Z(o, when, name, form, ...) R(o, when, name, UNIT_avx512 | (form), __VA_ARGS__)

#define KEY(o) (DECODE_KEY(ENC, MAP, 0) + (o))
#define ALL_LISTS "cpu/bt/decode_all.def"

#define R(o, when, name, f, ...) {.key = KEY(o), .match = (when), .form = (f), __VA_ARGS__},
#define R8 R
#define R16 R
const struct decode_row decode_rows[] = {
	{.key = 0xffff},
#include ALL_LISTS
};
#undef R
#undef R8
#undef R16

const unsigned decode_row_count = sizeof(decode_rows) / sizeof(decode_rows[0]);

/* Of an opcode's rows the last one stays in the index: that initialisers override each other is meant. */
#pragma GCC diagnostic ignored "-Woverride-init"
#ifdef __clang__
#pragma clang diagnostic ignored "-Winitializer-overrides"
#endif
#define ENTRY(f) ((__COUNTER__ - INDEX_BASE) | (((f) & FORM(MODRM, 1)) ? DECODE_INDEX_MODRM : 0))
#define R(o, when, name, f, ...) [KEY(o)] = ENTRY(f),
#define R8(o, when, name, f, ...) [KEY(o)... KEY((o) + 7)] = ENTRY(f),
#define R16(o, when, name, f, ...) [KEY(o)... KEY((o) + 15)] = ENTRY(f),
enum { INDEX_BASE = __COUNTER__ };
const uint16_t decode_index[DECODE_MAPS * 256] = {
#include ALL_LISTS
};

/* ---- flags ---- */
#define ALL X86_ARITH_FLAGS
#define CF X86_CF
#define PF X86_PF
#define AF X86_AF
#define ZF X86_ZF
#define SF X86_SF
#define OF X86_OF

const struct decode_flags decode_flags[FLAGS_KINDS] = {
	[FLAGS_ALL] = {.written = ALL},
	[FLAGS_ADC] = {.read = CF, .written = ALL},
	[FLAGS_INC] = {.written = ALL & ~CF},
	[FLAGS_ROT1] = {.written = CF | OF},
	[FLAGS_ROT_IMM] = {.written = CF, .maybe = OF, .by_count = 1},
	[FLAGS_ROT_CL] = {.maybe = CF | OF},
	[FLAGS_RCX1] = {.read = CF, .written = CF | OF},
	[FLAGS_RCX_IMM] = {.read = CF, .written = CF, .maybe = OF, .by_count = 1},
	[FLAGS_RCX_CL] = {.read = CF, .maybe = CF | OF},
	[FLAGS_SHIFT_IMM] = {.written = ALL, .by_count = 1},
	[FLAGS_SHIFT_CL] = {.maybe = ALL},
	[FLAGS_W_CF] = {.written = CF},
	[FLAGS_RW_CF] = {.read = CF, .written = CF},
	[FLAGS_R_CF] = {.read = CF},
	[FLAGS_RW_OF] = {.read = OF, .written = OF},
	[FLAGS_W_ZF] = {.written = ZF},
	[FLAGS_R_ZF] = {.read = ZF},
	[FLAGS_R_PF] = {.read = PF},
	[FLAGS_R_BE] = {.read = CF | ZF},
	[FLAGS_BT] = {.written = CF, .maybe = OF | SF | AF | PF},
	[FLAGS_DAA] = {.read = CF | AF, .written = ALL},
	[FLAGS_AAA] = {.read = AF, .written = ALL},
	[FLAGS_SAHF] = {.written = ALL & ~OF},
	[FLAGS_LAHF] = {.read = ALL & ~OF},
	[FLAGS_READ] = {.read = ALL},
	[FLAGS_REP] = {.maybe = ALL},
	[FLAGS_FCOMI] = {.written = ZF | PF | CF, .maybe = OF | SF | AF},
	[FLAGS_SYSCALL] = {.read = ALL, .maybe = ALL},
};
