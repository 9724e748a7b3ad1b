/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IRET in every mode. SDM vol. 2, "IRET/IRETD/IRETQ"; NMIs are unblocked whatever comes of it (vol.
 * 3, 6.7.1).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

/* The flags that @image may change: vol. 2, "IRET", by operand size, CPL and IOPL. */
static void load_flags(struct bt_vcpu *v, uint64_t image, unsigned size, unsigned old_cpl)
{
	uint64_t mask = X86_ARITH_FLAGS | X86_TF | X86_DF | X86_NT;
	uint64_t old = bt_get_rflags(v);

	if (size >= 4)
		mask |= X86_RF | X86_AC | X86_ID;
	if (old_cpl <= bt_iopl(v))
		mask |= X86_IF;
	if (old_cpl == 0) {
		mask |= X86_IOPL;
		if (size >= 4)
			mask |= X86_VIF | X86_VIP;
	}
	bt_load_rflags(v, (old & ~mask) | (image & mask));
}

static enum bt_result returned(struct bt_vcpu *v)
{
	v->interrupt_shadow = SHADOW_NONE;
	bt_mode_update(v);
	return BT_EXIT;
}

static enum bt_result iret_real(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t offset, selector, flags, mask;
	unsigned size = i->opsize;
	struct bt_stack s;

	if (bt_v86(v) && bt_iopl(v) < 3)
		return bt_raise_error(v, X86_GP, 0);
	bt_stack_current(v, &s);
	BT_TRY(bt_pop(v, &s, size, &offset));
	BT_TRY(bt_pop(v, &s, size, &selector));
	BT_TRY(bt_pop(v, &s, size, &flags));
	if (offset > v->seg[X86_CS].limit)
		return bt_raise_error(v, X86_GP, 0);
	mask = X86_ARITH_FLAGS | X86_TF | X86_IF | X86_DF | X86_NT;
	if (!bt_v86(v)) /* virtual-8086: VM, IOPL, VIP and VIF are not modified */
		mask |= X86_IOPL;
	if (size == 4)
		mask |= X86_RF | X86_AC | X86_ID;
	bt_stack_commit(v, &s);
	bt_load_segment_real(v, X86_CS, (uint16_t)selector);
	v->next_rip = offset;
	bt_load_rflags(v, (bt_get_rflags(v) & ~mask) | (flags & mask));
	return returned(v);
}

/* NT: back to the task that the current TSS links to. */
static enum bt_result iret_task(struct bt_vcpu *v)
{
	uint32_t flags = (uint32_t)bt_get_rflags(v) & ~(X86_NT | X86_RF);
	struct bt_descriptor tss;
	uint64_t link;
	unsigned type;

	BT_TRY(bt_load(v, (uint32_t)v->tr.base, 2, BT_READ | BT_SYSTEM, &link));
	if ((link & 4) || bt_selector_is_null((uint16_t)link))
		return bt_raise_selector(v, X86_TS, (uint16_t)link);
	BT_TRY(bt_read_descriptor(v, (uint16_t)link, X86_TS, &tss));
	type = bt_desc_type(&tss);
	if (!bt_desc_is_system(&tss) || (type != DESC_TSS_BUSY && type != DESC_TSS16_BUSY))
		return bt_raise_selector(v, X86_TS, (uint16_t)link);
	if (!bt_desc_is_present(&tss))
		return bt_raise_selector(v, X86_NP, (uint16_t)link);
	BT_TRY(bt_task_switch(v, (uint16_t)link, &tss, TASK_IRET, v->next_rip, flags));
	return returned(v);
}

/* From CPL 0 to virtual-8086 mode: EIP, CS, EFLAGS have been popped. */
static enum bt_result iret_to_v86(struct bt_vcpu *v, struct bt_stack *s, uint64_t offset,
				  uint16_t cs, uint64_t flags)
{
	static const uint8_t order[] = { X86_SS, X86_ES, X86_DS, X86_FS, X86_GS };
	uint64_t sp, selector[5];

	BT_TRY(bt_pop(v, s, 4, &sp));
	for (unsigned n = 0; n < 5; n++)
		BT_TRY(bt_pop(v, s, 4, &selector[n]));
	if (offset > 0xffff)
		return bt_raise_error(v, X86_GP, 0);
	bt_load_rflags(v, (uint32_t)flags);
	v->cpl = 3;
	bt_load_segment_real(v, X86_CS, cs);
	for (unsigned n = 0; n < 5; n++)
		bt_load_segment_real(v, order[n], (uint16_t)selector[n]);
	BT_REG(v, X86_RSP) = (uint32_t)sp;
	v->next_rip = offset;
	return returned(v);
}

/* A frame: RIP, CS, RFLAGS, RSP, SS; the last two only when they are popped. */
struct frame {
	uint64_t word[5];
};

/* IRETQ from 64-bit code, the common case: all five at once. */
static enum bt_result load_frame64(struct bt_vcpu *v, const struct bt_stack *s, struct frame *f)
{
	if (!bt_canonical(s->sp) || !bt_canonical(s->sp + sizeof(*f) - 1))
		return bt_raise_error(v, X86_SS_VEC, 0);
	if (v->mode & MODE_ALIGN)
		BT_TRY(bt_check_alignment(v, s->sp, 8, BT_READ));
	return bt_load_bytes(v, s->sp, f, sizeof(*f), BT_READ);
}

enum bt_result bt_op_iret(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t offset, flags, sp = 0;
	uint16_t selector, ss_selector = 0;
	unsigned size = i->opsize, old_cpl = v->cpl, cpl;
	struct bt_descriptor cs, ss;
	struct bt_stack s;
	struct frame f;
	bool with_stack, to64, whole;

	v->nmi_blocked = false;
	if (!bt_protected(v) || bt_v86(v))
		return iret_real(v, i);
	if (v->sysflags & X86_NT) {
		if (bt_long_mode(v))
			return bt_raise_error(v, X86_GP, 0);
		return iret_task(v);
	}
	bt_stack_current(v, &s);
	whole = s.flat && size == 8;
	if (whole)
		BT_TRY(load_frame64(v, &s, &f));
	else
		for (unsigned n = 0; n < 3; n++)
			BT_TRY(bt_pop(v, &s, size, &f.word[n]));
	offset = f.word[0];
	selector = (uint16_t)f.word[1];
	flags = f.word[2];
	if (size == 4 && (flags & X86_VM) && v->cpl == 0 && !bt_long_mode(v))
		return iret_to_v86(v, &s, offset, selector, flags);
	BT_TRY(bt_check_return_cs(v, selector, &cs));
	cpl = selector & 3;
	to64 = bt_long_mode(v) && bt_desc_is_long(&cs);
	/* 64-bit code always pops SS:RSP (vol. 3, 6.14.3). */
	with_stack = cpl != v->cpl || bt_code64(v);
	if (with_stack) {
		for (unsigned n = 3; n < 5 && !whole; n++)
			BT_TRY(bt_pop(v, &s, size, &f.word[n]));
		sp = f.word[3];
		ss_selector = (uint16_t)f.word[4];
		BT_TRY(bt_check_return_ss(v, ss_selector, cpl, to64, &ss));
	}
	BT_TRY(bt_check_code_offset(v, &cs, offset));
	BT_TRY(bt_set_accessed(v, &cs));
	if (with_stack && !bt_selector_is_null(ss_selector))
		BT_TRY(bt_set_accessed(v, &ss));
	load_flags(v, flags, size, old_cpl);
	if (!with_stack)
		bt_stack_commit(v, &s);
	bt_load_cs(v, &cs, selector, cpl, offset);
	if (with_stack)
		bt_load_return_stack(v, &ss, ss_selector, sp, 0);
	if (cpl != old_cpl)
		bt_drop_privileged_segments(v);
	return returned(v);
}
