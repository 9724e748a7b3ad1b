/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IN and OUT, and who may: SDM vol. 2 under these names; vol. 1, 19.5 (IOPL and the I/O permission
 * bitmap).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

enum bt_result bt_check_port(struct bt_vcpu *v, uint16_t port, unsigned size)
{
	uint64_t map, bits;
	uint32_t offset;

	if (!bt_protected(v) || (!bt_v86(v) && v->cpl <= bt_iopl(v)))
		return BT_NEXT;
	/* The map of a 32- or 64-bit TSS only; two bytes are always read (vol. 1, 19.5.2). */
	if (!(v->tr.attr & X86_ATTR_P) || !(v->tr.attr & 8) || v->tr.limit < 103)
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(bt_load(v, v->tr.base + 102, 2, BT_READ | BT_SYSTEM, &map));
	offset = (uint32_t)map + port / 8;
	if (offset + 1 > v->tr.limit)
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(bt_load(v, v->tr.base + offset, 2, BT_READ | BT_SYSTEM, &bits));
	if (bits >> (port & 7) & ((1u << size) - 1))
		return bt_raise_error(v, X86_GP, 0);
	return BT_NEXT;
}

static uint16_t port_of(const struct bt_vcpu *v, const struct insn *i)
{
	return i->opcode & 8 ? (uint16_t)BT_REG(v, X86_RDX) : (uint8_t)i->imm;
}

static unsigned size_of(const struct insn *i)
{
	return !(i->opcode & 1) ? 1 : i->opsize == 2 ? 2 : 4;
}

enum bt_result bt_op_in(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t port = port_of(v, i);
	unsigned size = size_of(i);

	BT_TRY(bt_check_port(v, port, size));
	bt_set_reg(v, X86_RAX, size, true, bt_port_read(v, port, size));
	return BT_NEXT;
}

enum bt_result bt_op_out(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t port = port_of(v, i);
	unsigned size = size_of(i);

	BT_TRY(bt_check_port(v, port, size));
	bt_port_write(v, port, bt_truncate(BT_REG(v, X86_RAX), size), size);
	return BT_NEXT;
}
