/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PUSHF, POPF, CLI, STI, CLD, STD, STAC, CLAC: SDM vol. 2 under these names. VME and PVI are not
 * offered, so virtual-8086 mode needs IOPL 3.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

static bool v86_denies(const struct bt_vcpu *v)
{
	return bt_v86(v) && bt_iopl(v) < 3;
}

enum bt_result bt_op_pushf(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_stack s;

	if (v86_denies(v))
		return bt_raise_error(v, X86_GP, 0);
	bt_stack_current(v, &s);
	BT_TRY(bt_push(v, &s, i->opsize,
		       bt_truncate(bt_get_rflags(v) & ~(uint64_t)(X86_VM | X86_RF), i->opsize)));
	bt_stack_commit(v, &s);
	return BT_NEXT;
}

enum bt_result bt_op_popf(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t mask = X86_ARITH_FLAGS | X86_TF | X86_DF | X86_NT, image, old;
	uint32_t mode = v->mode, sysflags = v->sysflags;
	struct bt_stack s;

	if (v86_denies(v))
		return bt_raise_error(v, X86_GP, 0);
	bt_stack_current(v, &s);
	BT_TRY(bt_pop(v, &s, i->opsize, &image));
	if (i->opsize >= 4)
		mask |= X86_AC | X86_ID;
	if (v->cpl <= bt_iopl(v))
		mask |= X86_IF;
	if (v->cpl == 0)
		mask |= X86_IOPL;
	old = bt_get_rflags(v) & ~(uint64_t)X86_RF;
	bt_stack_commit(v, &s);
	bt_set_rflags(v, (old & ~mask) | (image & mask));
	if ((sysflags ^ v->sysflags) & (X86_TF | X86_AC))
		bt_mode_update(v);
	return bt_flags_changed(mode, sysflags, v);
}

static bool may_change_if(const struct bt_vcpu *v)
{
	return v->cpl <= bt_iopl(v); /* real mode: CPL 0 */
}

enum bt_result bt_op_cli(struct bt_vcpu *v, const struct insn *i)
{
	if (!may_change_if(v))
		return bt_raise_error(v, X86_GP, 0);
	v->sysflags &= ~X86_IF;
	return BT_NEXT;
}

enum bt_result bt_op_sti(struct bt_vcpu *v, const struct insn *i)
{
	if (!may_change_if(v))
		return bt_raise_error(v, X86_GP, 0);
	if (v->sysflags & X86_IF)
		return BT_NEXT;
	v->sysflags |= X86_IF;
	v->interrupt_shadow = SHADOW_STI;
	return BT_EXIT;
}

enum bt_result bt_op_cld(struct bt_vcpu *v, const struct insn *i)
{
	v->sysflags &= ~X86_DF;
	return BT_NEXT;
}

enum bt_result bt_op_std(struct bt_vcpu *v, const struct insn *i)
{
	v->sysflags |= X86_DF;
	return BT_NEXT;
}

static enum bt_result set_ac(struct bt_vcpu *v, uint32_t ac)
{
	uint32_t mode = v->mode;

	if (v->cpl > 0)
		return bt_raise(v, X86_UD);
	v->sysflags = (v->sysflags & ~X86_AC) | ac;
	bt_mode_update(v);
	return v->mode == mode ? BT_NEXT : BT_EXIT;
}

enum bt_result bt_op_stac(struct bt_vcpu *v, const struct insn *i)
{
	return set_ac(v, X86_AC);
}

enum bt_result bt_op_clac(struct bt_vcpu *v, const struct insn *i)
{
	return set_ac(v, 0);
}
