/* SPDX-License-Identifier: Apache-2.0 */
/* What the decoder's files share: the state of one decoding. */
#ifndef CPU_BT_DECODE_PRIV_H
#define CPU_BT_DECODE_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/bt/insn.h"

#define DECODE_NO_OVERRIDE 0xff

struct decoding {
	const uint8_t *code;
	unsigned at, limit; /* bytes taken, bytes that may be */
	struct insn *in;
	uint64_t features;
	uint8_t override;   /* segment prefix, enum x86_seg_reg */
	uint8_t r, x, b, v2; /* extension bits, in place: 8 or 0; r also and v2 only 16 */
	bool sib;
	bool disp8;	    /* the displacement is one byte: EVEX scales it */
	bool bad;	    /* #UD whatever the opcode */
};

static inline bool decode_byte(struct decoding *d, uint8_t *byte)
{
	if (d->at >= d->limit)
		return false;
	*byte = d->code[d->at++];
	return true;
}

/* Little-endian, @size 1, 2, 4 or 8. */
static inline bool decode_value(struct decoding *d, unsigned size, uint64_t *value)
{
	const uint8_t *p = d->code + d->at;
	uint64_t v;

	if (d->limit - d->at < size)
		return false;
	if (size == 1)
		v = p[0];
	else if (size == 4)
		v = p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
	else if (size == 2)
		v = p[0] | p[1] << 8;
	else
		v = p[0] | p[1] << 8 | p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 |
		    (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
	d->at += size;
	*value = v;
	return true;
}

static inline int64_t decode_sign_extend(uint64_t value, unsigned size)
{
	unsigned shift = 64 - 8 * size;

	return (int64_t)(value << shift) >> shift;
}

/* All before ModRM; d->bad when that cannot be. False: out of bytes. */
bool decode_opcode(struct decoding *d);

/* ModRM, SIB and displacement: all of the memory operand but its size. False: out of bytes. */
bool decode_modrm(struct decoding *d);

/* Makes the index of the memory operand a vector register. False: there is no SIB byte. */
bool decode_vsib(struct decoding *d);

/* The address of A0–A3. False: out of bytes. */
bool decode_moffs(struct decoding *d);

#endif
