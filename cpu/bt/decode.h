/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder: bytes of guest code to struct insn, by one table of all opcodes (decode_table.c).
 */
#ifndef CPU_BT_DECODE_H
#define CPU_BT_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "cpu/bt/insn.h"

enum decode_result {
	DECODE_OK,	 /* out is whole; klass may be CLASS_INVALID (then #UD; len is what was looked at) */
	DECODE_TRUNCATED, /* the instruction goes on past @avail bytes */
	DECODE_TOO_LONG,  /* more than 15 bytes: #GP */
};

/* What is not in every x86-64 CPU. */
enum decode_feature {
	DECODE_BASE, /* always there */
	DECODE_SSE3, DECODE_SSSE3, DECODE_SSE4_1, DECODE_SSE4_2, DECODE_POPCNT, DECODE_CX16, DECODE_MOVBE,
	DECODE_AES, DECODE_PCLMUL, DECODE_SHA, DECODE_GFNI, DECODE_VAES, DECODE_VPCLMUL,
	DECODE_LZCNT, DECODE_BMI1, DECODE_BMI2, DECODE_ADX, DECODE_PREFETCHW,
	DECODE_RDRAND, DECODE_RDSEED, DECODE_CLFLUSHOPT, DECODE_CLWB,
	DECODE_FSGSBASE, DECODE_RDTSCP, DECODE_RDPID, DECODE_INVPCID, DECODE_SMAP, DECODE_MONITOR,
	DECODE_XSAVE, DECODE_XSAVEOPT, DECODE_XSAVEC,
	DECODE_AVX, DECODE_F16C, DECODE_FMA, DECODE_AVX2,
	DECODE_AVX512F, DECODE_AVX512CD, DECODE_AVX512BW, DECODE_AVX512DQ, DECODE_AVX512VL,
	DECODE_AVX512_IFMA, DECODE_AVX512_VBMI, DECODE_AVX512_VBMI2, DECODE_AVX512_VNNI,
	DECODE_AVX512_BITALG, DECODE_AVX512_VPOPCNTDQ,
	DECODE_FEATURE_COUNT,
};

/* Extensions the guest may use, from its CPUID: an instruction of another one decodes as CLASS_INVALID. */
struct decode_features {
	uint64_t bits; /* 1 << enum decode_feature */
};

/* Decodes the instruction at @code, of which @avail bytes can be read. @code_bits: 16, 32 or 64. */
enum decode_result decode(const uint8_t *code, size_t avail, unsigned code_bits,
			  const struct decode_features *features, struct insn *out);

#endif
