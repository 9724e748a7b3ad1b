/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction decoder's beginning: legacy prefixes, REX, VEX, EVEX and the opcode.
 *
 * The rules are those of the Intel SDM, vol. 2, 2.1 to 2.7: of F2 and F3 the last counts, both win over 66 as
 * mandatory prefix; a REX that is not directly before the opcode is as if it were not there; VEX and EVEX suffer
 * no 66, F2, F3, LOCK or REX before them. Where Intel and AMD differ this is Intel.
 */
#include "cpu/bt/decode_priv.h"
#include "cpu/bt/decode_table.h"

/* The legacy prefixes, a bit per byte. */
static const uint64_t legacy_prefixes[4] = {
	1ull << 0x26 | 1ull << 0x2e | 1ull << 0x36 | 1ull << 0x3e,
	1ull << (0x64 - 0x40) | 1ull << (0x65 - 0x40) | 1ull << (0x66 - 0x40) | 1ull << (0x67 - 0x40),
	0,
	1ull << (0xf0 - 0xc0) | 1ull << (0xf2 - 0xc0) | 1ull << (0xf3 - 0xc0),
};

static void set_legacy_prefix(struct decoding *d, uint8_t byte)
{
	struct insn *in = d->in;

	switch (byte) {
	case 0x26: case 0x2e: case 0x36: case 0x3e:
		if (in->code_bits != 64)
			d->override = (byte >> 3) & 3;
		break;
	case 0x64: case 0x65:
		d->override = byte - 0x60;
		break;
	case 0x66:
		in->opsize_prefix = true;
		break;
	case 0x67:
		in->addrsize_prefix = true;
		break;
	case 0xf0:
		in->lock = true;
		break;
	case 0xf2:
		in->repne = true;
		in->rep = false;
		break;
	case 0xf3:
		in->rep = true;
		in->repne = false;
		break;
	}
}

/* Reads all prefixes; leaves the opcode's first byte in @byte. */
static bool read_prefixes(struct decoding *d, uint8_t *byte)
{
	struct insn *in = d->in;
	uint8_t b;

	for (;;) {
		if (!decode_byte(d, &b))
			return false;
		if ((b & 0xf0) == 0x40 && in->code_bits == 64) {
			in->rex = b;
		} else if (legacy_prefixes[b >> 6] >> (b & 63) & 1) {
			set_legacy_prefix(d, b);
			in->rex = 0;
		} else {
			break;
		}
	}
	*byte = b;
	return true;
}

/* C5 and C4 (SDM vol. 2, 2.3.5). */
static bool read_vex(struct decoding *d, uint8_t first)
{
	struct insn *in = d->in;
	uint8_t b, c;

	in->encoding = ENC_VEX;
	if (!decode_byte(d, &b))
		return false;
	d->r = !(b & 0x80) << 3;
	if (first == 0xc5) {
		in->map = MAP_0F;
		c = b & 0x7f;
	} else {
		d->x = !(b & 0x40) << 3;
		d->b = !(b & 0x20) << 3;
		in->map = b & 0x1f;
		if (!decode_byte(d, &c))
			return false;
	}
	in->w = c >> 7;
	in->vvvv = ~(c >> 3) & 15;
	in->vl = (c >> 2) & 1;
	in->pp = c & 3;
	return decode_byte(d, &in->opcode);
}

/* 62 (SDM vol. 2, 2.7.1). */
static bool read_evex(struct decoding *d)
{
	struct insn *in = d->in;
	uint8_t p0, p1, p2;

	in->encoding = ENC_EVEX;
	if (!decode_byte(d, &p0) || !decode_byte(d, &p1) || !decode_byte(d, &p2))
		return false;
	d->r = !(p0 & 0x80) << 3 | !(p0 & 0x10) << 4;
	d->x = !(p0 & 0x40) << 3;
	d->b = !(p0 & 0x20) << 3;
	d->v2 = !(p2 & 0x08) << 4;
	in->map = p0 & 7;
	in->w = p1 >> 7;
	in->vvvv = (~(p1 >> 3) & 15) | d->v2;
	in->pp = p1 & 3;
	in->evex_z = p2 >> 7;
	in->evex_ll = in->vl = (p2 >> 5) & 3;
	in->evex_b = (p2 >> 4) & 1;
	in->evex_aaa = p2 & 7;
	d->bad |= (p0 & 8) || !(p1 & 4);
	return decode_byte(d, &in->opcode);
}

/* In 16- and 32-bit code C4, C5 and 62 are VEX and EVEX where LES, LDS and BOUND would have a register. */
static bool starts_vex(const struct decoding *d, uint8_t byte, bool *more)
{
	if (byte != 0xc4 && byte != 0xc5 && byte != 0x62)
		return false;
	if (d->in->code_bits == 64)
		return true;
	*more = d->at >= d->limit;
	return !*more && (d->code[d->at] & 0xc0) == 0xc0;
}

bool decode_opcode(struct decoding *d)
{
	struct insn *in = d->in;
	bool more = false;
	uint8_t byte;

	if (!read_prefixes(d, &byte))
		return false;
	if (starts_vex(d, byte, &more)) {
		if (in->opsize_prefix || in->rep || in->repne || in->lock || in->rex)
			d->bad = true;
		if (!(byte == 0x62 ? read_evex(d) : read_vex(d, byte)))
			return false;
		if (in->map < MAP_0F || in->map > MAP_0F3A)
			d->bad = true;
		if (in->code_bits != 64) {
			/* Eight registers: R and X are 1 in the encoding (else it is LES …), B and R' are ignored. */
			d->r = d->x = d->b = 0;
			d->bad |= d->v2 != 0;
		}
		return true;
	}
	if (more)
		return false;

	in->w = (in->rex >> 3) & 1;
	d->r = (in->rex & 4) << 1;
	d->x = (in->rex & 2) << 2;
	d->b = (in->rex & 1) << 3;
	in->pp = in->rep ? PP_F3 : in->repne ? PP_F2 : in->opsize_prefix ? PP_66 : PP_NP;
	in->opcode = byte;
	if (byte != 0x0f)
		return true;
	in->map = MAP_0F;
	if (!decode_byte(d, &in->opcode))
		return false;
	if (in->opcode == 0x38 || in->opcode == 0x3a) {
		in->map = in->opcode == 0x38 ? MAP_0F38 : MAP_0F3A;
		return decode_byte(d, &in->opcode);
	}
	return true;
}
