/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decimal adjustment and other old instructions that 64-bit hosts cannot run, XLAT and BOUND: SDM
 * vol. 2 under their names. Flags that the manual leaves undefined: OF cleared, SF, ZF and PF from
 * the result.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

static uint32_t result_flags(uint8_t value)
{
	uint32_t flags = 0;

	if (!(__builtin_popcount(value) & 1))
		flags |= X86_PF;
	if (!value)
		flags |= X86_ZF;
	if (value & 0x80)
		flags |= X86_SF;
	return flags;
}

static uint8_t get_al(const struct bt_vcpu *v)
{
	return (uint8_t)BT_REG(v, X86_RAX);
}

static void set_ax(struct bt_vcpu *v, uint16_t ax)
{
	bt_set_reg(v, X86_RAX, 2, true, ax);
}

/* AAA and AAS: @sign 1 or -1. */
static enum bt_result ascii_adjust(struct bt_vcpu *v, int sign)
{
	uint16_t ax = (uint16_t)BT_REG(v, X86_RAX);
	uint32_t flags = 0;

	if ((ax & 15) > 9 || (bt_get_rflags(v) & X86_AF)) {
		ax = (uint16_t)(ax + sign * 0x106);
		flags = X86_AF | X86_CF;
	}
	ax &= 0xff0f;
	set_ax(v, ax);
	bt_set_aflags(v, flags | result_flags((uint8_t)ax));
	return BT_NEXT;
}

enum bt_result bt_op_aaa(struct bt_vcpu *v, const struct insn *i)
{
	return ascii_adjust(v, 1);
}

enum bt_result bt_op_aas(struct bt_vcpu *v, const struct insn *i)
{
	return ascii_adjust(v, -1);
}

enum bt_result bt_op_aad(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t ax = (uint16_t)BT_REG(v, X86_RAX), flags;
	uint8_t al = (uint8_t)ax, product = (uint8_t)((ax >> 8) * (uint8_t)i->imm);

	/* All flags are those of the addition, as CPUs have it. */
	__asm__("addb %2, %1; lahf; seto %%al" : "=&a"(flags), "+r"(al) : "r"(product) : "cc");
	set_ax(v, al);
	v->aflags = flags;
	return BT_NEXT;
}

enum bt_result bt_op_aam(struct bt_vcpu *v, const struct insn *i)
{
	uint8_t base = (uint8_t)i->imm, al = get_al(v);

	if (!base)
		return bt_raise(v, X86_DE);
	set_ax(v, (uint16_t)((al / base) << 8 | al % base));
	bt_set_aflags(v, result_flags(al % base));
	return BT_NEXT;
}

/* DAA and DAS: @sign 1 or -1. */
static enum bt_result decimal_adjust(struct bt_vcpu *v, int sign)
{
	uint8_t old = get_al(v), al = old;
	uint64_t rflags = bt_get_rflags(v);
	uint32_t flags = 0;

	if ((al & 15) > 9 || (rflags & X86_AF)) {
		flags |= X86_AF;
		if (sign < 0 && old < 6) /* DAS: CF is the borrow of this step too */
			flags |= X86_CF;
		al = (uint8_t)(al + sign * 6);
	}
	if (old > 0x99 || (rflags & X86_CF)) {
		al = (uint8_t)(al + sign * 0x60);
		flags |= X86_CF;
	}
	bt_set_reg(v, X86_RAX, 1, true, al);
	bt_set_aflags(v, flags | result_flags(al));
	return BT_NEXT;
}

enum bt_result bt_op_daa(struct bt_vcpu *v, const struct insn *i)
{
	return decimal_adjust(v, 1);
}

enum bt_result bt_op_das(struct bt_vcpu *v, const struct insn *i)
{
	return decimal_adjust(v, -1);
}

/* D6: AL = CF ? 0xff : 0; no flags. */
enum bt_result bt_op_salc(struct bt_vcpu *v, const struct insn *i)
{
	bt_set_reg(v, X86_RAX, 1, true, bt_get_rflags(v) & X86_CF ? 0xff : 0);
	return BT_NEXT;
}

enum bt_result bt_op_xlat(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t offset = bt_truncate(BT_REG(v, X86_RBX) + get_al(v), i->addrsize), lin, value;

	BT_TRY(bt_linear(v, i->seg, offset, 1, BT_READ, &lin));
	BT_TRY(bt_load(v, lin, 1, BT_READ, &value));
	bt_set_reg(v, X86_RAX, 1, true, value);
	return BT_NEXT;
}

static int64_t sign_extend(uint64_t value, unsigned size)
{
	return (int64_t)(value << (64 - 8 * size)) >> (64 - 8 * size);
}

enum bt_result bt_op_bound(struct bt_vcpu *v, const struct insn *i)
{
	unsigned size = i->opsize;
	uint64_t lin, low, high;
	int64_t index = sign_extend(BT_REG(v, i->reg & 15), size);

	BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), size * 2, BT_READ, &lin));
	BT_TRY(bt_load(v, lin, size, BT_READ, &low));
	BT_TRY(bt_load(v, lin + size, size, BT_READ, &high));
	if (index < sign_extend(low, size) || index > sign_extend(high, size))
		return bt_raise(v, X86_BR);
	return BT_NEXT;
}

/*
 * RPL of the destination selector is raised to the source's; ZF says whether. Protected mode only.
 */
enum bt_result bt_op_arpl(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t dest, lin = 0, flags = bt_get_rflags(v) & ~(uint64_t)X86_ZF;
	unsigned rpl = BT_REG(v, i->reg & 15) & 3;

	if (!bt_protected(v) || bt_v86(v))
		return bt_raise(v, X86_UD);
	if (i->has_mem) {
		BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), 2, BT_READ, &lin));
		BT_TRY(bt_check_alignment(v, lin, 2, BT_READ));
		BT_TRY(bt_load(v, lin, 2, BT_READ, &dest));
	} else {
		dest = BT_REG(v, i->rm & 15) & 0xffff;
	}
	if ((dest & 3) < rpl) {
		dest = (dest & ~3ull) | rpl;
		flags |= X86_ZF;
		if (i->has_mem)
			BT_TRY(bt_store_operand(v, i, 2, dest));
		else
			bt_set_reg(v, i->rm & 15, 2, true, dest);
	}
	bt_set_aflags(v, flags);
	return BT_NEXT;
}
