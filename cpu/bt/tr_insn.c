/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that do not jump: which of them are copied (tr_copy.c), rewritten (here and in tr_stack.c) or called.
 */
#include "cpu/bt/translate.h"

static void emit_lea_insn(struct tr *t, const struct insn *i)
{
	struct ea ea = tr_ea(i);
	uint8_t dst = emit_host_reg(i->reg), to = dst == H_NONE ? T0 : dst, base, index;

	if (i->opsize >= 4 && ea.addrsize >= 4 && ea.base != REG_PC && (ea.base != REG_NONE || ea.index != REG_NONE)) {
		tr_settle_held(t);
		tr_address_regs(t, &ea, &base, &index);
		if (ea.base != REG_NONE && emit_host_reg(ea.base) == H_NONE)
			tr_hold(t, base, ea.base);
		if (ea.index != REG_NONE && emit_host_reg(ea.index) == H_NONE)
			tr_hold(t, index, ea.index);
		emit_lea(&t->e, i->opsize == 8 && ea.addrsize == 8, to, base, index, ea.scale, (int32_t)ea.disp);
		t->t0_kept = to != T0 && base != T0 && index != T0;
		if (dst == H_NONE) {
			emit_store_slot(&t->e, REG_SLOT(i->reg), T0);
			tr_hold(t, T0, i->reg);
		}
		t->held.at = emit_pos(&t->e);
		return;
	}
	tr_offset(t, &ea);
	if (i->opsize == 4)
		emit_mov_reg(&t->e, false, T0, T0);
	tr_store_sized(t, i->opsize, i->reg, T0);
}

/*
 * BT, BTS, BTR, BTC with a register bit offset and memory: the offset, signed, selects a unit of the operand's
 * size beyond the effective address (SDM vol. 2, BT). The unit's address goes to a scratch slot, from where
 * tr_access takes it; the host instruction then gets the offset within the unit.
 */
static void emit_bit_string(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	struct ea ea = tr_ea(i);
	uint8_t reg = emit_host_reg(i->reg);
	unsigned size = i->opsize;

	tr_flags_clobber(t);
	tr_offset(t, &ea);
	if (reg == H_NONE) {
		emit_load_slot(e, T1, REG_SLOT(i->reg));
		reg = T1;
	}
	emit_op_reg(e, true, size == 8 ? 0x8b : size == 4 ? 0x63 : 0x0fbf, T1, reg);
	emit8(e, 0x49); /* sar T1, 3 */
	emit8(e, 0xc1);
	emit8(e, 0xff);
	emit8(e, 3);
	emit8(e, 0x49); /* and T1, -size */
	emit8(e, 0x83);
	emit8(e, 0xe7);
	emit8(e, (uint8_t)-(int)size);
	emit_lea(e, ea.addrsize == 8, T0, T0, T1, 0, 0);
	if (ea.addrsize == 2)
		emit_op_reg(e, false, 0x0fb7, T0, T0);
	emit_store_slot(e, SLOT(scratch[1]), T0);

	ea = (struct ea){.seg = i->seg, .base = EA_BASE_SCRATCH, .index = REG_NONE,
			 .addrsize = i->addrsize};
	tr_access(t, &ea, size, i->mem_access);
	tr_load_guest(t, T1, i->reg);
	emit8(e, 0x41); /* and T1d, 8 * size - 1 */
	emit8(e, 0x83);
	emit8(e, 0xe7);
	emit8(e, (uint8_t)(8 * size - 1));
	t->t1_used = true;
	tr_flags_before_copy(t, i);
	emit_reencode(e, i, t->bytes[t->cur], T1, 0, 0, &(struct host_mem){T0, H_NONE, 0});
	tr_flags_after_copy(t, i);
	tr_access_done(t, i->mem_access);
}

/* ---- calls of C ---- */

bool tr_op_ends_block(unsigned op)
{
	switch (op) {
	case OP_JMP_FAR: case OP_CALL_FAR: case OP_RET_FAR: case OP_IRET: case OP_INT: case OP_INT3:
	case OP_INT1: case OP_UD: case OP_SYSCALL: case OP_SYSRET: case OP_SYSENTER: case OP_SYSEXIT:
	case OP_HLT: case OP_RAISE_NM: case OP_RAISE_GP: case OP_STAC: case OP_CLAC:
		return true;
	default:
		return false;
	}
}

void tr_call_op(struct tr *t, const struct insn *i)
{
	const struct insn *kept = blocks_insn(t->b, i);

	if (!kept) {
		t->failed = true;
		return;
	}
	tr_flags_to_mem(t);
	emit_mov_imm(&t->e, T0, (uint64_t)kept);
	emit_mov_imm32(&t->e, T1, t->off[t->cur] | (t->cur + 1 == t->n ? CALL_OP_LAST : 0));
	emit_call(&t->e, t->b->stub.call_op);
	t->flags = FLAGS_MEM;
}

/* PREFETCHh and PREFETCHW; the others of their opcodes are hints for processors that are not there. */
static bool is_prefetch(const struct insn *i)
{
	return i->has_mem && i->map == MAP_0F &&
	       ((i->opcode == 0x18 && (i->reg & 7) < 4) || (i->opcode == 0x0d && (i->reg & 7) < 2));
}

void tr_insn(struct tr *t, const struct insn *i)
{
	if (!tr_stack_moves_later(t, i))
		tr_stack_settle(t);
	if (i->klass == CLASS_INVALID || i->klass == CLASS_CALL) {
		tr_call_op(t, i);
		return;
	}
	switch (i->op) {
	case OP_NOP:
		if (is_prefetch(i) && !t->bounce)
			tr_prefetch(t, i);
		else
			t->t0_kept = true;
		break;
	case OP_LEA:
		emit_lea_insn(t, i);
		break;
	case OP_PUSH:
		tr_push(t, i);
		break;
	case OP_POP:
		tr_pop(t, i);
		break;
	case OP_LEAVE:
		tr_leave(t, i);
		break;
	case OP_BT_MEM:
		emit_bit_string(t, i);
		break;
	default:
		tr_copy(t, i);
		break;
	}
}
