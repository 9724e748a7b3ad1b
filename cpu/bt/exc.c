/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delivery of exceptions and interrupts. SDM vol. 3, chapter 6; vol. 2, "INT n/INTO/INT3/INT1"
 * (whose pseudo-code covers every event); 8.8 of vol. 3 for IA-32e mode, 21.3 (virtual-8086),
 * 21.1.4 (real).
 *
 * bt_deliver_once() makes one attempt and leaves error codes without the EXT bit.
 * bt_deliver_exception() and bt_deliver_interrupt() add it and walk from a fault during delivery to
 * the next event, to #DF and to shutdown (SDM vol. 3, table 6-5).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/bt/run.h"

/* A gate of the IDT, all formats. */
struct gate {
	uint16_t selector;
	uint8_t type, dpl, ist;
	bool present;
	uint64_t offset;
};

void bt_load_rflags(struct bt_vcpu *v, uint64_t rflags)
{
	/*
	 * RF suppresses instruction breakpoints for one instruction; without any it would only go
	 * stale here.
	 */
	if (!(v->dr[7] & 0xff))
		rflags &= ~(uint64_t)X86_RF;
	bt_set_rflags(v, rflags & 0x3f7fd7);
}

enum bt_result bt_check_code_offset(struct bt_vcpu *v, const struct bt_descriptor *cs,
				    uint64_t offset)
{
	bool fits;

	if (bt_long_mode(v) && bt_desc_is_long(cs))
		fits = bt_canonical(offset);
	else
		fits = offset <= bt_segment(cs, 0).limit;
	return fits ? BT_NEXT : bt_raise_error(v, X86_GP, 0);
}

void bt_load_cs(struct bt_vcpu *v, const struct bt_descriptor *cs, uint16_t selector, unsigned cpl,
		uint64_t offset)
{
	v->seg[X86_CS] = bt_segment(cs, (uint16_t)((selector & 0xfffc) | cpl));
	v->cpl = (uint8_t)cpl;
	v->next_rip = offset;
}

static enum bt_result gate_error(struct bt_vcpu *v, uint8_t exception, uint8_t vector)
{
	return bt_raise_error(v, exception, vector * 8u + 2);
}

static enum bt_result read_gate(struct bt_vcpu *v, uint8_t vector, struct gate *g)
{
	bool wide = bt_long_mode(v);
	unsigned size = wide ? 16 : 8;
	uint64_t lin = v->idtr.base + vector * size, entry[2] = { 0 }, raw;

	if (vector * size + size - 1 > v->idtr.limit)
		return gate_error(v, X86_GP, vector);
	if (!wide)
		lin = (uint32_t)lin;
	BT_TRY(bt_load_bytes(v, lin, entry, size, BT_READ | BT_SYSTEM));
	raw = entry[0];
	g->selector = (uint16_t)(raw >> 16);
	g->ist = raw >> 32 & 7;
	g->type = raw >> 40 & 31; /* with S */
	g->dpl = raw >> 45 & 3;
	g->present = raw >> 47 & 1;
	g->offset = (raw & 0xffff) | (raw >> 32 & 0xffff0000) | entry[1] << 32;
	if (!(g->type & 8))
		g->offset &= 0xffff;
	return BT_NEXT;
}

/* Real-address mode: vol. 3, 21.1.4. */
static enum bt_result deliver_real(struct bt_vcpu *v, uint8_t vector, uint64_t return_rip,
				   uint32_t flags_image)
{
	struct bt_stack s;
	uint64_t entry;

	if (vector * 4u + 3 > v->idtr.limit)
		return gate_error(v, X86_GP, vector);
	BT_TRY(bt_load(v, (uint32_t)(v->idtr.base + vector * 4u), 4, BT_READ | BT_SYSTEM, &entry));
	bt_stack_current(v, &s);
	s.access = BT_FRAME;
	BT_TRY(bt_push(v, &s, 2, flags_image & 0xffff));
	BT_TRY(bt_push(v, &s, 2, v->seg[X86_CS].selector));
	BT_TRY(bt_push(v, &s, 2, return_rip & 0xffff));
	if ((entry & 0xffff) > v->seg[X86_CS].limit)
		return bt_raise_error(v, X86_GP, 0);
	bt_stack_commit(v, &s);
	bt_load_segment_real(v, X86_CS, (uint16_t)(entry >> 16));
	v->next_rip = entry & 0xffff;
	v->sysflags &= ~(X86_IF | X86_TF | X86_AC | X86_RF);
	return BT_NEXT;
}

/* Vol. 2, "INT n", TASK-GATE; vol. 3, 6.12.2. */
static enum bt_result deliver_task(struct bt_vcpu *v, const struct gate *g, bool has_error,
				   uint32_t error, uint64_t return_rip, uint32_t flags_image)
{
	struct bt_descriptor tss;
	struct bt_stack s;
	unsigned type;

	if ((g->selector & 4) || bt_selector_is_null(g->selector))
		return bt_raise_selector(v, X86_GP, g->selector);
	BT_TRY(bt_read_descriptor(v, g->selector, X86_GP, &tss));
	type = bt_desc_type(&tss);
	if (!bt_desc_is_system(&tss) || (type != DESC_TSS && type != DESC_TSS16))
		return bt_raise_selector(v, X86_GP, g->selector);
	if (!bt_desc_is_present(&tss))
		return bt_raise_selector(v, X86_NP, g->selector);
	BT_TRY(bt_task_switch(v, g->selector, &tss, TASK_CALL, return_rip, flags_image));
	if (has_error) {
		bt_stack_current(v, &s);
		BT_TRY(bt_push(v, &s, type == DESC_TSS ? 4 : 2, error));
		bt_stack_commit(v, &s);
	}
	return BT_NEXT;
}

/*
 * The handler's code segment; *cpl: the level it runs at. Vol. 2, "INT n", TRAP-OR-INTERRUPT-GATE.
 */
static enum bt_result check_handler(struct bt_vcpu *v, const struct gate *g,
				    struct bt_descriptor *cs, unsigned *cpl)
{
	unsigned dpl;

	if (bt_selector_is_null(g->selector))
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(bt_read_descriptor(v, g->selector, X86_GP, cs));
	dpl = bt_desc_dpl(cs);
	if (!bt_desc_is_code(cs) || dpl > v->cpl)
		return bt_raise_selector(v, X86_GP, g->selector);
	if (bt_long_mode(v) && (!bt_desc_is_long(cs) || bt_desc_is_big(cs)))
		return bt_raise_selector(v, X86_GP, g->selector);
	if (!bt_desc_is_present(cs))
		return bt_raise_selector(v, X86_NP, g->selector);
	*cpl = bt_desc_is_conforming(cs) ? v->cpl : dpl;
	if (bt_v86(v) && *cpl != 0)
		return bt_raise_selector(v, X86_GP, g->selector);
	return BT_NEXT;
}

/* The flags after entry through a gate: an interrupt gate (even type) closes IF. */
static void enter_handler(struct bt_vcpu *v, const struct gate *g)
{
	v->sysflags &= ~(X86_TF | X86_VM | X86_RF | X86_NT);
	if (!(g->type & 1))
		v->sysflags &= ~X86_IF;
}

/* One piece of a frame, in one page. The CPU pushes from above: a page fault is at the highest word. */
static enum bt_result push_piece(struct bt_vcpu *v, uint64_t at, const uint64_t *words,
				 unsigned bytes, unsigned access)
{
	enum bt_result res;

	if (!bytes)
		return BT_NEXT;
	res = bt_store_bytes(v, at, words, bytes, BT_WRITE | access);
	if (res == BT_FAULT && v->exception.vector == X86_PF_VEC)
		v->exception.cr2 = at + bytes - 8;
	return res;
}

/* @sp is aligned to 8. */
static enum bt_result push_frame(struct bt_vcpu *v, uint64_t sp, const uint64_t *words,
				 unsigned bytes, unsigned access)
{
	uint64_t page = (sp + bytes - 1) & ~0xfffull;
	unsigned below = page > sp ? (unsigned)(page - sp) : 0;

	BT_TRY(push_piece(v, sp + below, words + below / 8, bytes - below, access));
	return push_piece(v, sp, words, below, access);
}

/* IA-32e mode: vol. 3, 6.14. */
static enum bt_result deliver_long(struct bt_vcpu *v, const struct gate *g, bool has_error,
				   uint32_t error, uint64_t return_rip, uint32_t flags_image)
{
	struct bt_descriptor cs;
	struct bt_stack s;
	uint64_t frame[6], sp;
	unsigned cpl, words = 0, offset;
	uint16_t selector;

	BT_TRY(check_handler(v, g, &cs, &cpl));
	s.access = BT_FRAME | (cpl == 3 ? BT_AS_USER : BT_SYSTEM);
	if (g->ist) {
		offset = 28 + g->ist * 8u;
		if (offset + 7 > v->tr.limit)
			return bt_raise_selector(v, X86_TS, v->tr.selector);
		BT_TRY(bt_load(v, v->tr.base + offset, 8, BT_READ | BT_SYSTEM, &sp));
	} else if (cpl != v->cpl) {
		BT_TRY(bt_stack_from_tss(v, cpl, &s, NULL, &selector));
		sp = s.sp;
	} else {
		sp = BT_REG(v, X86_RSP);
	}
	if (!bt_canonical(g->offset))
		return bt_raise_error(v, X86_GP, 0);
	sp &= ~15ull;
	if (has_error)
		frame[words++] = error;
	frame[words++] = return_rip;
	frame[words++] = v->seg[X86_CS].selector;
	frame[words++] = flags_image;
	frame[words++] = BT_REG(v, X86_RSP);
	frame[words++] = v->seg[X86_SS].selector;
	sp -= words * 8;
	if (!bt_canonical(sp) || !bt_canonical(sp + words * 8 - 1))
		return bt_raise_error(v, X86_SS_VEC, 0);
	BT_TRY(push_frame(v, sp, frame, words * 8, s.access));
	BT_TRY(bt_set_accessed(v, &cs));
	if (cpl != v->cpl)
		v->seg[X86_SS] = (struct x86_segment){ .selector = (uint16_t)cpl,
						       .attr = (uint16_t)(cpl << 5) };
	BT_REG(v, X86_RSP) = sp;
	bt_load_cs(v, &cs, g->selector, cpl, g->offset);
	enter_handler(v, g);
	return BT_NEXT;
}

/* 16- and 32-bit protected mode and virtual-8086 mode. */
static enum bt_result deliver_legacy(struct bt_vcpu *v, const struct gate *g, bool has_error,
				     uint32_t error, uint64_t return_rip, uint32_t flags_image)
{
	static const uint8_t v86_segs[] = { X86_GS, X86_FS, X86_DS, X86_ES };
	struct bt_descriptor cs, ss;
	struct bt_stack s;
	unsigned cpl, size = g->type & 8 ? 4 : 2;
	uint16_t ss_selector = 0;
	bool outer, v86 = bt_v86(v);

	BT_TRY(check_handler(v, g, &cs, &cpl));
	outer = cpl != v->cpl;
	if (outer) {
		BT_TRY(bt_stack_from_tss(v, cpl, &s, &ss, &ss_selector));
	} else {
		bt_stack_current(v, &s);
	}
	s.access = BT_FRAME | (cpl == 3 ? BT_AS_USER : BT_SYSTEM);
	if (v86)
		for (unsigned n = 0; n < sizeof(v86_segs); n++)
			BT_TRY(bt_push(v, &s, size, v->seg[v86_segs[n]].selector));
	if (outer) {
		BT_TRY(bt_push(v, &s, size, v->seg[X86_SS].selector));
		BT_TRY(bt_push(v, &s, size, bt_truncate(BT_REG(v, X86_RSP), size)));
	}
	BT_TRY(bt_push(v, &s, size, bt_truncate(flags_image, size)));
	BT_TRY(bt_push(v, &s, size, v->seg[X86_CS].selector));
	BT_TRY(bt_push(v, &s, size, bt_truncate(return_rip, size)));
	if (has_error)
		BT_TRY(bt_push(v, &s, size, bt_truncate(error, size)));
	BT_TRY(bt_check_code_offset(v, &cs, g->offset));
	BT_TRY(bt_set_accessed(v, &cs));
	if (outer) {
		BT_TRY(bt_set_accessed(v, &ss));
		v->seg[X86_SS] = bt_segment(&ss, ss_selector);
	}
	bt_stack_commit(v, &s);
	bt_load_cs(v, &cs, g->selector, cpl, g->offset);
	enter_handler(v, g);
	if (v86)
		for (unsigned n = 0; n < sizeof(v86_segs); n++)
			v->seg[v86_segs[n]] = (struct x86_segment){ 0 };
	return BT_NEXT;
}

enum bt_result bt_deliver_once(struct bt_vcpu *v, uint8_t vector, enum bt_event_kind kind,
			       bool has_error, uint32_t error, uint64_t return_rip,
			       uint32_t flags_image)
{
	enum bt_result res;
	struct gate g;
	bool known;

	if (!bt_protected(v)) {
		res = deliver_real(v, vector, return_rip, flags_image);
	} else {
		if (bt_v86(v) && kind == EVENT_SOFTWARE && bt_iopl(v) < 3)
			return bt_raise_error(v, X86_GP, 0);
		BT_TRY(read_gate(v, vector, &g));
		known = g.type == DESC_INT || g.type == DESC_TRAP;
		if (!bt_long_mode(v))
			known |= g.type == DESC_INT16 || g.type == DESC_TRAP16 ||
				 g.type == DESC_TASK_GATE;
		if (!known || (kind != EVENT_HARDWARE && g.dpl < v->cpl))
			return gate_error(v, X86_GP, vector);
		if (!g.present)
			return gate_error(v, X86_NP, vector);
		if (bt_long_mode(v))
			res = deliver_long(v, &g, has_error, error, return_rip, flags_image);
		else if (g.type == DESC_TASK_GATE)
			res = deliver_task(v, &g, has_error, error, return_rip, flags_image);
		else
			res = deliver_legacy(v, &g, has_error, error, return_rip, flags_image);
	}
	if (res == BT_FAULT)
		return BT_FAULT;
	v->interrupt_shadow = SHADOW_NONE;
	v->in_rep = false;
	bt_mode_update(v);
	return BT_NEXT;
}

/* Double faults -------------------------------------------------------------------------------- */

static bool is_contributory(uint8_t vector)
{
	return vector == X86_DE || (vector >= X86_TS && vector <= X86_GP);
}

static bool has_selector_error(uint8_t vector)
{
	return vector >= X86_TS && vector <= X86_GP;
}

/* SDM vol. 3, table 6-5: does @second, raised while delivering @first, make a double fault? */
static bool makes_double_fault(const struct bt_exception *first, const struct bt_exception *second)
{
	if (first->vector == X86_PF_VEC)
		return is_contributory(second->vector) || second->vector == X86_PF_VEC;
	return is_contributory(first->vector) && is_contributory(second->vector);
}

/*
 * SDM vol. 3, 18.3.1.1: the RF of the pushed image. Faults set it, but for instruction breakpoints.
 */
static uint32_t pushed_flags(const struct bt_vcpu *v, const struct bt_exception *e)
{
	uint32_t flags = (uint32_t)bt_get_rflags(v);
	bool abort = e->vector == X86_DF_VEC || e->vector == X86_MC;

	/* A single-step that is no trap is that in the middle of a gather (bt_op_gather). */
	if (!e->is_trap && !e->is_soft && !abort && (e->vector != X86_DB || (e->dr6 & 1u << 14)))
		flags |= X86_RF;
	if (v->in_rep)
		flags |= X86_RF;
	return flags;
}

/* What an exception does besides going through the IDT. SDM vol. 3, 18.2.3, 6.15 (#PF). */
static void note_exception(struct bt_vcpu *v, const struct bt_exception *e)
{
	if (e->vector == X86_PF_VEC) {
		v->cr2 = e->cr2;
	} else if (e->vector == X86_DB && !e->is_soft) {
		v->dr[6] = (v->dr[6] & ~0xfull) | e->dr6;
		v->dr[7] &= ~(1ull << 13);
		v->debugctl &= ~3ull;
	}
}

/*
 * Delivers @e, and what faults in its delivery raise. @is_interrupt: an external interrupt or NMI,
 * which is benign whatever its vector.
 */
static bool deliver(struct bt_vcpu *v, struct bt_exception e, bool is_interrupt)
{
	uint32_t flags = (uint32_t)bt_get_rflags(v) | (v->in_rep ? X86_RF : 0);
	enum bt_event_kind kind = e.is_soft ? EVENT_BREAK : EVENT_HARDWARE;
	struct bt_exception next;
	bool double_fault = false;

	for (;;) {
		if (!is_interrupt) {
			note_exception(v, &e);
			flags = pushed_flags(v, &e);
		}
		if (bt_deliver_once(v, e.vector, kind, e.has_error && bt_protected(v), e.error,
				    v->rip, flags) != BT_FAULT) {
			v->rip = v->next_rip;
			return true;
		}
		next = v->exception;
		if (kind == EVENT_HARDWARE && has_selector_error(next.vector))
			next.error |= 1; /* EXT */
		if (!is_interrupt && kind == EVENT_HARDWARE) {
			if (double_fault &&
			    (is_contributory(next.vector) || next.vector == X86_PF_VEC))
				return false;
			if (makes_double_fault(&e, &next)) {
				if (next.vector == X86_PF_VEC)
					v->cr2 = next.cr2;
				next = (struct bt_exception){ .vector = X86_DF_VEC,
							      .has_error = true };
				double_fault = true;
			}
		}
		e = next;
		kind = EVENT_HARDWARE;
		is_interrupt = false;
	}
}

bool bt_deliver_exception(struct bt_vcpu *v, const struct bt_exception *e)
{
	v->halted = false;
	return deliver(v, *e, false);
}

bool bt_deliver_interrupt(struct bt_vcpu *v, uint8_t vector)
{
	v->halted = false;
	if (vector == X86_NMI)
		v->nmi_blocked = true;
	if (!deliver(v, (struct bt_exception){ .vector = vector }, true))
		return false;
	/* Its frame lay on a data breakpoint: that trap comes before the handler's first instruction. */
	if (v->trap_pending && debug_after(v, 0) == DEBUG_FAULT)
		return deliver(v, v->exception, false);
	return true;
}

/* Instructions --------------------------------------------------------------------------------- */

static enum bt_result software_interrupt(struct bt_vcpu *v, uint8_t vector, enum bt_event_kind kind)
{
	uint32_t flags = (uint32_t)bt_get_rflags(v) & ~X86_RF;
	enum bt_result res = bt_deliver_once(v, vector, kind, false, 0, v->next_rip, flags);

	if (res == BT_FAULT)
		return BT_FAULT;
	v->step_by_new = (flags & X86_TF) != 0;
	return BT_EXIT;
}

enum bt_result bt_op_int(struct bt_vcpu *v, const struct insn *i)
{
	return software_interrupt(v, (uint8_t)i->imm, EVENT_SOFTWARE);
}

enum bt_result bt_op_int3(struct bt_vcpu *v, const struct insn *i)
{
	return software_interrupt(v, X86_BP, EVENT_BREAK);
}

enum bt_result bt_op_into(struct bt_vcpu *v, const struct insn *i)
{
	if (!(bt_get_rflags(v) & X86_OF))
		return BT_NEXT;
	return software_interrupt(v, X86_OFV, EVENT_BREAK);
}

/*
 * A privileged software exception: no DPL check; EXT is set in errors (vol. 2, "INT1"). DR6 is
 * unchanged.
 */
enum bt_result bt_op_int1(struct bt_vcpu *v, const struct insn *i)
{
	if (software_interrupt(v, X86_DB, EVENT_HARDWARE) != BT_FAULT) {
		v->dr[7] &= ~(1ull << 13);
		return BT_EXIT;
	}
	if (has_selector_error(v->exception.vector))
		v->exception.error |= 1;
	return BT_FAULT;
}

enum bt_result bt_op_ud(struct bt_vcpu *v, const struct insn *i)
{
	return bt_raise(v, X86_UD);
}
