/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder's memory operands: ModRM, SIB and displacement (Intel SDM vol. 2, 2.1.3 to 2.1.5, 2.2.1). */
#include "cpu/bt/decode_priv.h"
#include "cpu/x86.h"

/* The default segment; an override has been put in place before. */
static void set_segment(struct decoding *d)
{
	struct insn *in = d->in;

	if (d->override == DECODE_NO_OVERRIDE && (in->base == X86_RSP || in->base == X86_RBP))
		in->seg = X86_SS;
}

static bool read_disp(struct decoding *d, unsigned size)
{
	uint64_t value;

	if (!size)
		return true;
	if (!decode_value(d, size, &value))
		return false;
	d->in->disp = decode_sign_extend(value, size);
	d->disp8 = size == 1;
	return true;
}

/* Table 2-1. */
static bool address16(struct decoding *d)
{
	static const uint8_t bases[8] = {X86_RBX, X86_RBX, X86_RBP, X86_RBP,
					 X86_RSI, X86_RDI, X86_RBP, X86_RBX};
	static const uint8_t indexes[4] = {X86_RSI, X86_RDI, X86_RSI, X86_RDI};
	struct insn *in = d->in;
	unsigned rm = in->rm & 7;

	if (in->mod == 0 && rm == 6)
		return read_disp(d, 2);
	in->base = bases[rm];
	if (rm < 4)
		in->index = indexes[rm];
	set_segment(d);
	return read_disp(d, in->mod);
}

/* Tables 2-2 and 2-3. */
static bool address32(struct decoding *d)
{
	struct insn *in = d->in;
	unsigned base = in->rm & 7;

	if (base == 4) {
		uint8_t sib;

		if (!decode_byte(d, &sib))
			return false;
		d->sib = true;
		in->scale = sib >> 6;
		in->index = ((sib >> 3) & 7) | d->x;
		if (in->index == 4)
			in->index = REG_NONE;
		base = sib & 7;
	}
	if (base == 5 && in->mod == 0) {
		if (!d->sib && in->code_bits == 64)
			in->base = REG_PC;
		return read_disp(d, 4);
	}
	in->base = base | d->b;
	set_segment(d);
	return read_disp(d, in->mod == 2 ? 4 : in->mod);
}

bool decode_modrm(struct decoding *d)
{
	struct insn *in = d->in;
	uint8_t modrm;

	if (!decode_byte(d, &modrm))
		return false;
	in->has_modrm = true;
	in->mod = modrm >> 6;
	in->reg = ((modrm >> 3) & 7) | d->r;
	in->rm = (modrm & 7) | d->b;
	/* MOV to and from control and debug registers takes mod for 3. */
	if (in->encoding == ENC_LEGACY && in->map == MAP_0F && (in->opcode & 0xfc) == 0x20)
		in->mod = 3;
	if (in->mod == 3)
		return true;
	in->has_mem = true;
	return in->addrsize == 2 ? address16(d) : address32(d);
}

bool decode_vsib(struct decoding *d)
{
	struct insn *in = d->in;

	if (!d->sib)
		return false;
	in->vsib = true;
	in->index = (in->index == REG_NONE ? 4 : in->index) | d->v2;
	return true;
}

bool decode_moffs(struct decoding *d)
{
	struct insn *in = d->in;
	uint64_t value;

	in->has_mem = true;
	if (!decode_value(d, in->addrsize, &value))
		return false;
	in->disp = value;
	return true;
}
