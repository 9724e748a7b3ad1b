/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector operands in memory under a mask: EVEX with an opmask, VMASKMOV, VPMASKMOV. Elements whose mask bit is clear
 * are not accessed and cannot fault (SDM vol. 2, 2.7.5 and VMASKMOV).
 *
 * Translated code accesses the operand as a whole where the TLB allows all of it: then the host's own instruction
 * does the masking. Everything else ends here: the instruction runs on the bounce buffer, and only the elements that
 * the mask asks for are copied, from the lowest to the highest.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/bt/private.h"
#include "cpu/cpuid.h"

enum { XSAVE_XMM = 160, XSAVE_YMM = 2, XSAVE_OPMASK = 5 };

static uint64_t low_bits(unsigned n)
{
	return n >= 64 ? ~0ull : (1ull << n) - 1;
}

/* gcc's own is a call of libgcc, which may use vector registers. */
static unsigned count_bits(uint64_t v)
{
	unsigned n = 0;

	for (; v; v &= v - 1)
		n++;
	return n;
}

/* VMASKMOV, VPMASKMOV: the sign bits of the mask register's elements. */
static uint64_t sign_bits(const struct bt_vcpu *v, const struct insn *i, const struct bt_xarea *a)
{
	unsigned count = (16u << (i->vl & 1)) / i->mem_elem;
	uint8_t reg[32];
	uint64_t mask = 0;

	bt_copy(reg, a->bytes + XSAVE_XMM + 16 * (i->mem_mask_vreg & 15), 16);
	bt_copy(reg + 16,
		a->bytes + v->cpuid->xsave[XSAVE_YMM].offset + 16 * (i->mem_mask_vreg & 15), 16);
	for (unsigned n = 0; n < count; n++)
		mask |= (uint64_t)(reg[(n + 1) * i->mem_elem - 1] >> 7) << n;
	return mask;
}

/* Converts elements to ones of twice the size: half as many as the vector has room for. */
static bool widens(const struct insn *i)
{
	return i->map == MAP_0F && !i->w &&
	       ((i->opcode == 0x5a && i->pp == 0) || (i->opcode == 0xe6 && i->pp == 2) ||
		(i->opcode == 0x7a && i->pp == 2) ||
		(i->opcode >= 0x78 && i->opcode <= 0x7b && i->pp == 1));
}

static bool broadcasts(const struct insn *i)
{
	return i->map == MAP_0F38 &&
	       ((i->opcode >= 0x18 && i->opcode <= 0x1b) ||
		(i->opcode >= 0x58 && i->opcode <= 0x5b) || (i->opcode & 0xfe) == 0x78);
}

/* One bit for each element of the operand. */
static uint64_t active_elements(const struct bt_vcpu *v, const struct insn *i)
{
	unsigned count = i->mem_size / i->mem_elem, lanes = (16u << (i->vl & 3)) / i->mem_elem;
	uint64_t k, active = 0;
	struct bt_xarea a;

	bt_xarea_save(&a, v->xcr0);
	if (i->encoding == ENC_VEX)
		return sign_bits(v, i, &a);
	bt_copy(&k, a.bytes + v->cpuid->xsave[XSAVE_OPMASK].offset + 8 * (i->evex_aaa & 7), 8);
	if (i->mem_packed)
		return low_bits(count_bits(k & low_bits(lanes)));
	if (!i->evex_b && !broadcasts(i))
		return k & low_bits(count);
	if (widens(i))
		lanes /= 2;
	for (unsigned n = 0; n < lanes; n++) /* each element goes to several places */
		active |= (k >> n & 1) << n % count;
	return active;
}

bool bt_masked_in(struct bt_vcpu *v, unsigned seg, uint64_t offset, unsigned access)
{
	struct bt_private *p = v->priv;
	const struct insn *i = p->masked;
	uint8_t *buf = p->bounce + (p->bounce_lin & 63);
	uint64_t active = active_elements(v, i), lin;

	p->active = active;
	if (active && i->mem_align && (p->bounce_lin & (i->mem_align - 1))) {
		bt_raise_error(v, X86_GP, 0);
		return false;
	}
	for (unsigned n = 0; active; n++, active >>= 1) {
		unsigned at = n * i->mem_elem;
		enum bt_result res;

		if (!(active & 1))
			continue;
		res = bt_linear(v, seg, bt_truncate(offset + at, bt_code64(v) ? 8 : 4), i->mem_elem, access,
				&lin);
		if (res == BT_NEXT && i->mem_size <= 8)
			res = bt_check_alignment(v, p->bounce_lin, i->mem_size, access);
		if (res == BT_NEXT)
			res = access == BT_READ
				      ? bt_load_bytes(v, lin, buf + at, i->mem_elem, BT_READ)
				      : bt_probe(v, lin, i->mem_elem, access);
		if (res != BT_NEXT)
			return false;
	}
	return true;
}

bool bt_masked_out(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;
	unsigned size = p->masked->mem_elem;
	const uint8_t *buf = p->bounce + (p->bounce_lin & 63);

	for (unsigned n = 0; p->active; n++, p->active >>= 1)
		if ((p->active & 1) && bt_store_bytes(v, p->bounce_lin + n * size, buf + n * size,
						      size, BT_WRITE) != BT_NEXT)
			return false;
	return true;
}
