/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware task switching: SDM vol. 3, chapter 8.3, with 16- and 32-bit TSSs.
 *
 * Theory of operation. Everything that can fault for the outgoing task (the busy bits, its TSS's
 * save area, the new TSS) is probed or read first. Then the old state is saved and the new
 * registers are loaded: the point of no return. The segment registers and LDTR are loaded last, and
 * what is wrong with them is raised in the new task (vol. 3, table 8-1: #TS, #NP, #SS with the
 * selector).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

/*
 * A TSS's dynamic fields, both sizes (vol. 3, figures 8-2 and 8-10). Segments in order ES CS SS DS
 * FS GS.
 */
struct task_state {
	uint32_t cr3, eip, eflags, gpr[8];
	uint16_t seg[X86_SEG_COUNT], ldt;
	bool trap;
};

enum {
	TSS32_CR3 = 28,
	TSS32_EIP = 32,
	TSS32_EFLAGS = 36,
	TSS32_GPR = 40,
	TSS32_SEG = 72,
	TSS32_LDT = 96,
	TSS32_TRAP = 100,
	TSS32_LIMIT = 103,
	TSS16_IP = 14,
	TSS16_FLAGS = 16,
	TSS16_GPR = 18,
	TSS16_SEG = 34,
	TSS16_LDT = 42,
	TSS16_LIMIT = 43,
	TSS16_SEGS = 4,
};

static enum bt_result tss_load(struct bt_vcpu *v, uint64_t base, unsigned offset, unsigned size,
			       uint64_t *value)
{
	return bt_load(v, (uint32_t)(base + offset), size, BT_READ | BT_SYSTEM, value);
}

static enum bt_result read_tss32(struct bt_vcpu *v, uint64_t base, struct task_state *t)
{
	uint64_t value;

	BT_TRY(tss_load(v, base, TSS32_CR3, 4, &value));
	t->cr3 = (uint32_t)value;
	BT_TRY(tss_load(v, base, TSS32_EIP, 4, &value));
	t->eip = (uint32_t)value;
	BT_TRY(tss_load(v, base, TSS32_EFLAGS, 4, &value));
	t->eflags = (uint32_t)value;
	for (unsigned n = 0; n < 8; n++) {
		BT_TRY(tss_load(v, base, TSS32_GPR + 4 * n, 4, &value));
		t->gpr[n] = (uint32_t)value;
	}
	for (unsigned n = 0; n < X86_SEG_COUNT; n++) {
		BT_TRY(tss_load(v, base, TSS32_SEG + 4 * n, 2, &value));
		t->seg[n] = (uint16_t)value;
	}
	BT_TRY(tss_load(v, base, TSS32_LDT, 2, &value));
	t->ldt = (uint16_t)value;
	BT_TRY(tss_load(v, base, TSS32_TRAP, 2, &value));
	t->trap = value & 1;
	return BT_NEXT;
}

static enum bt_result read_tss16(struct bt_vcpu *v, uint64_t base, struct task_state *t)
{
	uint64_t value;

	BT_TRY(tss_load(v, base, TSS16_IP, 2, &value));
	t->eip = (uint32_t)value;
	BT_TRY(tss_load(v, base, TSS16_FLAGS, 2, &value));
	t->eflags = (uint32_t)value;
	for (unsigned n = 0; n < 8; n++) {
		BT_TRY(tss_load(v, base, TSS16_GPR + 2 * n, 2, &value));
		t->gpr[n] = 0xffff0000 | (uint32_t)value; /* upper halves: undefined */
	}
	for (unsigned n = 0; n < TSS16_SEGS; n++) {
		BT_TRY(tss_load(v, base, TSS16_SEG + 2 * n, 2, &value));
		t->seg[n] = (uint16_t)value;
	}
	t->seg[X86_FS] = t->seg[X86_GS] = 0;
	BT_TRY(tss_load(v, base, TSS16_LDT, 2, &value));
	t->ldt = (uint16_t)value;
	t->trap = false;
	return BT_NEXT;
}

/* EIP to GS: the fields that a switch saves. */
static enum bt_result save_tss(struct bt_vcpu *v, bool tss32, uint64_t base, uint64_t rip,
			       uint32_t eflags)
{
	uint32_t image32[16] = { 0 };
	uint16_t image16[14];

	if (tss32) {
		image32[0] = (uint32_t)rip;
		image32[1] = eflags;
		for (unsigned n = 0; n < 8; n++)
			image32[2 + n] = (uint32_t)BT_REG(v, n);
		for (unsigned n = 0; n < X86_SEG_COUNT; n++)
			image32[10 + n] = v->seg[n].selector;
		return bt_store_bytes(v, (uint32_t)(base + TSS32_EIP), image32, sizeof(image32),
				      BT_WRITE | BT_SYSTEM);
	}
	image16[0] = (uint16_t)rip;
	image16[1] = (uint16_t)eflags;
	for (unsigned n = 0; n < 8; n++)
		image16[2 + n] = (uint16_t)BT_REG(v, n);
	for (unsigned n = 0; n < TSS16_SEGS; n++)
		image16[10 + n] = v->seg[n].selector;
	return bt_store_bytes(v, (uint32_t)(base + TSS16_IP), image16, sizeof(image16),
			      BT_WRITE | BT_SYSTEM);
}

/* LDTR of the new task; @ts: #TS(selector). */
static enum bt_result load_ldt(struct bt_vcpu *v, uint16_t selector)
{
	struct bt_descriptor d;

	v->ldtr = (struct x86_segment){ .selector = selector };
	if (bt_selector_is_null(selector))
		return BT_NEXT;
	if (selector & 4)
		return bt_raise_selector(v, X86_TS, selector);
	BT_TRY(bt_read_descriptor(v, selector, X86_TS, &d));
	if (!bt_desc_is_system(&d) || bt_desc_type(&d) != DESC_LDT || !bt_desc_is_present(&d))
		return bt_raise_selector(v, X86_TS, selector);
	v->ldtr = bt_segment(&d, selector);
	return BT_NEXT;
}

static enum bt_result load_code(struct bt_vcpu *v, uint16_t selector)
{
	unsigned rpl = selector & 3, dpl;
	struct bt_descriptor d;

	if (bt_selector_is_null(selector))
		return bt_raise_error(v, X86_TS, 0);
	BT_TRY(bt_read_descriptor(v, selector, X86_TS, &d));
	dpl = bt_desc_dpl(&d);
	if (!bt_desc_is_code(&d) || (bt_desc_is_conforming(&d) ? dpl > rpl : dpl != rpl))
		return bt_raise_selector(v, X86_TS, selector);
	if (!bt_desc_is_present(&d))
		return bt_raise_selector(v, X86_NP, selector);
	BT_TRY(bt_set_accessed(v, &d));
	v->seg[X86_CS] = bt_segment(&d, selector);
	return BT_NEXT;
}

static enum bt_result load_stack(struct bt_vcpu *v, uint16_t selector)
{
	struct bt_descriptor d;

	if (bt_selector_is_null(selector))
		return bt_raise_error(v, X86_TS, 0);
	BT_TRY(bt_check_stack_segment(v, selector, v->cpl, X86_TS, &d));
	BT_TRY(bt_set_accessed(v, &d));
	v->seg[X86_SS] = bt_segment(&d, selector);
	return BT_NEXT;
}

/* As MOV to the register, but errors are #TS. */
static enum bt_result load_data(struct bt_vcpu *v, unsigned seg, uint16_t selector)
{
	if (bt_load_segment(v, seg, selector) != BT_FAULT)
		return BT_NEXT;
	if (v->exception.vector == X86_GP)
		v->exception.vector = X86_TS;
	return BT_FAULT;
}

/* The new task's segments, with its registers in place. A fault is the new task's. */
static enum bt_result load_segments(struct bt_vcpu *v, const struct task_state *t)
{
	static const uint8_t data[] = { X86_DS, X86_ES, X86_FS, X86_GS };

	for (unsigned n = 0; n < X86_SEG_COUNT; n++)
		v->seg[n] = (struct x86_segment){ .selector = t->seg[n] };
	BT_TRY(load_ldt(v, t->ldt));
	if (bt_v86(v)) {
		for (unsigned n = 0; n < X86_SEG_COUNT; n++)
			bt_load_segment_real(v, n, t->seg[n]);
		return BT_NEXT;
	}
	BT_TRY(load_code(v, t->seg[X86_CS]));
	BT_TRY(load_stack(v, t->seg[X86_SS]));
	for (unsigned n = 0; n < sizeof(data); n++)
		BT_TRY(load_data(v, data[n], t->seg[data[n]]));
	return BT_NEXT;
}

enum bt_result bt_task_switch(struct bt_vcpu *v, uint16_t selector, const struct bt_descriptor *tss,
			      enum bt_task_reason reason, uint64_t return_rip, uint32_t flags_image)
{
	struct x86_segment s = bt_segment(tss, selector);
	bool new32 = bt_desc_type(tss) & 8, old32 = v->tr.attr & 8;
	uint64_t old_lin, old_base = v->tr.base;
	unsigned save_offset = old32 ? TSS32_EIP : TSS16_IP, save_size = old32 ? 64 : 28;
	struct task_state t = { 0 };
	enum bt_result res;

	if (s.limit < (new32 ? TSS32_LIMIT : TSS16_LIMIT))
		return bt_raise_selector(v, X86_TS, selector);
	if (!(v->tr.attr & X86_ATTR_P) || v->tr.limit < save_offset + save_size - 1)
		return bt_raise_selector(v, X86_TS, v->tr.selector);
	if (!bt_descriptor_address(v, v->tr.selector & 0xfff8, 8, &old_lin))
		return bt_raise_selector(v, X86_TS, v->tr.selector);
	BT_TRY(new32 ? read_tss32(v, s.base, &t) : read_tss16(v, s.base, &t));
	BT_TRY(bt_probe(v, (uint32_t)(old_base + save_offset), save_size, BT_WRITE | BT_SYSTEM));
	if (reason == TASK_CALL)
		BT_TRY(bt_probe(v, (uint32_t)s.base, 2, BT_WRITE | BT_SYSTEM));
	BT_TRY(bt_probe(v, old_lin, 8, BT_WRITE | BT_SYSTEM));
	BT_TRY(bt_probe(v, tss->lin, 8, BT_WRITE | BT_SYSTEM));
	if (new32 && (v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE))
		BT_TRY(bt_tlb_load_pdptes(v, t.cr3));

	/* JMP and IRET leave the old task, CALL nests the new one in it. */
	if (reason != TASK_CALL)
		BT_TRY(bt_set_busy(v, old_lin, false));
	BT_TRY(save_tss(v, old32, old_base, return_rip, flags_image));
	if (reason == TASK_CALL) {
		BT_TRY(bt_store(v, (uint32_t)s.base, 2, BT_WRITE | BT_SYSTEM, v->tr.selector));
		t.eflags |= X86_NT;
	}
	if (reason != TASK_IRET)
		BT_TRY(bt_set_busy(v, tss->lin, true));

	/* The point of no return. */
	v->tr = s;
	v->tr.attr |= 2;
	v->cr0 |= X86_CR0_TS;
	v->dr[7] &= ~0x155ull; /* local breakpoints and LE */
	if (new32 && (v->cr0 & X86_CR0_PG))
		bt_tlb_load_cr3(v, t.cr3);
	for (unsigned n = 0; n < 8; n++)
		BT_REG(v, n) = t.gpr[n];
	bt_load_rflags(v, new32 ? t.eflags : (t.eflags & 0xffff));
	v->rip = v->next_rip = t.eip;
	v->cpl = bt_v86(v) ? 3 : t.seg[X86_CS] & 3;
	v->interrupt_shadow = SHADOW_NONE;
	v->in_rep = false;
	v->trap_pending = t.trap ? TRAP_TASK : 0;
	res = load_segments(v, &t);
	bt_mode_update(v);
	if (res == BT_FAULT)
		return BT_FAULT;
	if (t.eip > v->seg[X86_CS].limit)
		return bt_raise_error(v, X86_GP, 0);
	return BT_NEXT;
}
