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

/* Extensions the guest may use, from its CPUID: an instruction of another one decodes as CLASS_INVALID. */
struct decode_features {
	uint64_t bits; /* 1 << enum decode_feature */
};

/* Decodes the instruction at @code, of which @avail bytes can be read. @code_bits: 16, 32 or 64. */
enum decode_result decode(const uint8_t *code, size_t avail, unsigned code_bits,
			  const struct decode_features *features, struct insn *out);

#endif
