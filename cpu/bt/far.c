/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Far JMP, CALL and RET. SDM vol. 2, "JMP", "CALL", "RET"; vol. 3, 5.8 (transfers between code
 * segments, call gates), 6.8.4 (stack switching), 8.3 (tasks).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

static enum bt_result far_operand(struct bt_vcpu *v, const struct insn *i, uint16_t *selector,
				  uint64_t *offset)
{
	uint64_t lin, sel;

	if (!i->has_mem) {
		*offset = bt_truncate((uint64_t)i->imm, i->opsize);
		*selector = i->imm2;
		return BT_NEXT;
	}
	BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), i->opsize + 2u, BT_READ, &lin));
	BT_TRY(bt_load(v, lin, i->opsize, BT_READ, offset));
	BT_TRY(bt_load(v, lin + i->opsize, 2, BT_READ, &sel));
	*selector = (uint16_t)sel;
	return BT_NEXT;
}

static bool is_real(const struct bt_vcpu *v)
{
	return !bt_protected(v) || bt_v86(v);
}

/* Ends an op that changed CS. */
static enum bt_result transferred(struct bt_vcpu *v)
{
	bt_mode_update(v);
	return BT_EXIT;
}

/*
 * Checks a code segment that is reached directly, or (@gate) through a gate, without change of
 * privilege. JMP and direct CALL: conforming DPL ≤ CPL, else DPL = CPL and RPL ≤ CPL.
 */
static enum bt_result check_target(struct bt_vcpu *v, const struct bt_descriptor *cs,
				   uint16_t selector, bool gate)
{
	unsigned dpl = bt_desc_dpl(cs);

	if (!bt_desc_is_code(cs))
		return bt_raise_selector(v, X86_GP, selector);
	if (bt_long_mode(v) && bt_desc_is_long(cs) && bt_desc_is_big(cs))
		return bt_raise_selector(v, X86_GP, selector);
	if (bt_desc_is_conforming(cs) ? dpl > v->cpl
				      : dpl != v->cpl || (!gate && (selector & 3u) > v->cpl))
		return bt_raise_selector(v, X86_GP, selector);
	if (!bt_desc_is_present(cs))
		return bt_raise_selector(v, X86_NP, selector);
	return BT_NEXT;
}

/* A gate or TSS as the target of JMP or CALL: DPL ≥ CPL and DPL ≥ RPL, present. */
static enum bt_result check_gate(struct bt_vcpu *v, const struct bt_descriptor *d,
				 uint16_t selector)
{
	unsigned dpl = bt_desc_dpl(d);

	if (dpl < v->cpl || dpl < (selector & 3u))
		return bt_raise_selector(v, X86_GP, selector);
	if (!bt_desc_is_present(d))
		return bt_raise_selector(v, X86_NP, selector);
	return BT_NEXT;
}

static enum bt_result jump_to_task(struct bt_vcpu *v, const struct bt_descriptor *d,
				   uint16_t selector, enum bt_task_reason reason)
{
	uint32_t flags = (uint32_t)bt_get_rflags(v) & ~X86_RF;
	struct bt_descriptor tss = *d;
	unsigned type;

	BT_TRY(check_gate(v, d, selector));
	if (bt_desc_type(d) == DESC_TASK_GATE) {
		selector = (uint16_t)(d->lo >> 16);
		if ((selector & 4) || bt_selector_is_null(selector))
			return bt_raise_selector(v, X86_GP, selector);
		BT_TRY(bt_read_descriptor(v, selector, X86_GP, &tss));
	} else if (selector & 4) {
		return bt_raise_selector(v, X86_GP, selector);
	}
	type = bt_desc_type(&tss);
	if (!bt_desc_is_system(&tss) || (type != DESC_TSS && type != DESC_TSS16))
		return bt_raise_selector(v, X86_GP, selector);
	if (!bt_desc_is_present(&tss))
		return bt_raise_selector(v, X86_NP, selector);
	BT_TRY(bt_task_switch(v, selector, &tss, reason, v->next_rip, flags));
	return transferred(v);
}

/* A call gate's code segment and entry point. @g->upper is filled in IA-32e mode. */
static enum bt_result read_call_gate(struct bt_vcpu *v, struct bt_descriptor *g,
				     uint16_t gate_selector, struct bt_descriptor *cs,
				     uint16_t *selector, uint64_t *offset)
{
	BT_TRY(check_gate(v, g, gate_selector));
	if (bt_long_mode(v))
		BT_TRY(bt_read_descriptor_upper(v, gate_selector, g));
	*selector = (uint16_t)(g->lo >> 16);
	*offset = (g->lo & 0xffff) | (uint64_t)g->upper << 32;
	if (bt_desc_type(g) == DESC_CALL)
		*offset |= g->hi & 0xffff0000;
	if (bt_selector_is_null(*selector))
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(bt_read_descriptor(v, *selector, X86_GP, cs));
	if (!bt_desc_is_code(cs) || bt_desc_dpl(cs) > v->cpl)
		return bt_raise_selector(v, X86_GP, *selector);
	if (bt_long_mode(v) && (!bt_desc_is_long(cs) || bt_desc_is_big(cs)))
		return bt_raise_selector(v, X86_GP, *selector);
	return BT_NEXT;
}

/* JMP ------------------------------------------------------------------------------------------ */

static enum bt_result jmp_code(struct bt_vcpu *v, struct bt_descriptor *cs, uint16_t selector,
			       uint64_t offset, bool gate)
{
	BT_TRY(check_target(v, cs, selector, gate));
	BT_TRY(bt_check_code_offset(v, cs, offset));
	BT_TRY(bt_set_accessed(v, cs));
	bt_load_cs(v, cs, selector, v->cpl, offset);
	return transferred(v);
}

static bool is_call_gate(const struct bt_vcpu *v, unsigned type)
{
	return type == DESC_CALL || (type == DESC_CALL16 && !bt_long_mode(v));
}

static bool is_task(const struct bt_vcpu *v, unsigned type)
{
	return !bt_long_mode(v) && (type == DESC_TASK_GATE || (type & 5) == 1);
}

enum bt_result bt_op_jmp_far(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_descriptor d, cs;
	uint16_t selector, target;
	uint64_t offset;
	unsigned type;

	BT_TRY(far_operand(v, i, &selector, &offset));
	if (is_real(v)) {
		if (offset > v->seg[X86_CS].limit)
			return bt_raise_error(v, X86_GP, 0);
		bt_load_segment_real(v, X86_CS, selector);
		v->next_rip = offset;
		return transferred(v);
	}
	if (bt_selector_is_null(selector))
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(bt_read_descriptor(v, selector, X86_GP, &d));
	if (!bt_desc_is_system(&d))
		return jmp_code(v, &d, selector, offset, false);
	type = bt_desc_type(&d);
	if (is_call_gate(v, type)) {
		BT_TRY(read_call_gate(v, &d, selector, &cs, &target, &offset));
		return jmp_code(v, &cs, target, offset, true);
	}
	if (is_task(v, type))
		return jump_to_task(v, &d, selector, TASK_JMP);
	return bt_raise_selector(v, X86_GP, selector);
}

/* CALL ----------------------------------------------------------------------------------------- */

static enum bt_result call_real(struct bt_vcpu *v, const struct insn *i, uint16_t selector,
				uint64_t offset)
{
	struct bt_stack s;

	bt_stack_current(v, &s);
	BT_TRY(bt_push(v, &s, i->opsize, v->seg[X86_CS].selector));
	BT_TRY(bt_push(v, &s, i->opsize, bt_truncate(v->next_rip, i->opsize)));
	if (offset > v->seg[X86_CS].limit)
		return bt_raise_error(v, X86_GP, 0);
	bt_stack_commit(v, &s);
	bt_load_segment_real(v, X86_CS, selector);
	v->next_rip = offset;
	return transferred(v);
}

/* To the same privilege: the return address goes to the current stack, in @size. */
static enum bt_result call_code(struct bt_vcpu *v, struct bt_descriptor *cs, uint16_t selector,
				uint64_t offset, unsigned size, bool gate)
{
	struct bt_stack s;

	BT_TRY(check_target(v, cs, selector, gate));
	bt_stack_current(v, &s);
	if (gate && bt_long_mode(v)) {
		s.flat = true;
		s.mask = ~0ull;
	}
	BT_TRY(bt_push(v, &s, size, v->seg[X86_CS].selector));
	BT_TRY(bt_push(v, &s, size, bt_truncate(v->next_rip, size)));
	BT_TRY(bt_check_code_offset(v, cs, offset));
	BT_TRY(bt_set_accessed(v, cs));
	bt_stack_commit(v, &s);
	bt_load_cs(v, cs, selector, v->cpl, offset);
	return transferred(v);
}

/* To more privilege: vol. 3, 5.8.5. @count parameters of @size bytes are copied. */
static enum bt_result call_inner(struct bt_vcpu *v, struct bt_descriptor *cs, uint16_t selector,
				 uint64_t offset, unsigned size, unsigned count)
{
	unsigned cpl = bt_desc_dpl(cs);
	uint64_t parameter[31];
	struct bt_descriptor ss;
	struct bt_stack s, old;
	uint16_t ss_selector;

	bt_stack_current(v, &old);
	BT_TRY(bt_stack_from_tss(v, cpl, &s, &ss, &ss_selector));
	for (unsigned n = 0; n < count; n++)
		BT_TRY(bt_peek(v, &old, n * size, size, &parameter[n]));
	BT_TRY(bt_push(v, &s, size, v->seg[X86_SS].selector));
	BT_TRY(bt_push(v, &s, size, bt_truncate(BT_REG(v, X86_RSP), size)));
	for (unsigned n = count; n-- > 0;)
		BT_TRY(bt_push(v, &s, size, parameter[n]));
	BT_TRY(bt_push(v, &s, size, v->seg[X86_CS].selector));
	BT_TRY(bt_push(v, &s, size, bt_truncate(v->next_rip, size)));
	BT_TRY(bt_check_code_offset(v, cs, offset));
	BT_TRY(bt_set_accessed(v, cs));
	if (s.flat) {
		v->seg[X86_SS] = s.ss;
	} else {
		BT_TRY(bt_set_accessed(v, &ss));
		v->seg[X86_SS] = bt_segment(&ss, ss_selector);
	}
	bt_stack_commit(v, &s);
	bt_load_cs(v, cs, selector, cpl, offset);
	return transferred(v);
}

static enum bt_result call_gate(struct bt_vcpu *v, struct bt_descriptor *g, uint16_t gate_selector)
{
	unsigned size = bt_long_mode(v) ? 8 : bt_desc_type(g) == DESC_CALL ? 4 : 2;
	struct bt_descriptor cs;
	uint16_t selector;
	uint64_t offset;

	BT_TRY(read_call_gate(v, g, gate_selector, &cs, &selector, &offset));
	if (!bt_desc_is_present(&cs))
		return bt_raise_selector(v, X86_NP, selector);
	if (!bt_desc_is_conforming(&cs) && bt_desc_dpl(&cs) < v->cpl)
		return call_inner(v, &cs, selector, offset, size, size == 8 ? 0 : g->hi & 31);
	return call_code(v, &cs, selector, offset, size, true);
}

enum bt_result bt_op_call_far(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_descriptor d;
	uint16_t selector;
	uint64_t offset;
	unsigned type;

	BT_TRY(far_operand(v, i, &selector, &offset));
	if (is_real(v))
		return call_real(v, i, selector, offset);
	if (bt_selector_is_null(selector))
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(bt_read_descriptor(v, selector, X86_GP, &d));
	if (!bt_desc_is_system(&d))
		return call_code(v, &d, selector, offset, i->opsize, false);
	type = bt_desc_type(&d);
	if (is_call_gate(v, type))
		return call_gate(v, &d, selector);
	if (is_task(v, type))
		return jump_to_task(v, &d, selector, TASK_CALL);
	return bt_raise_selector(v, X86_GP, selector);
}

/* RET ------------------------------------------------------------------------------------------ */

static enum bt_result ret_real(struct bt_vcpu *v, const struct insn *i, struct bt_stack *s)
{
	uint64_t offset, selector;

	BT_TRY(bt_pop(v, s, i->opsize, &offset));
	BT_TRY(bt_pop(v, s, i->opsize, &selector));
	if (offset > v->seg[X86_CS].limit)
		return bt_raise_error(v, X86_GP, 0);
	s->sp += (uint16_t)i->imm;
	bt_stack_commit(v, s);
	bt_load_segment_real(v, X86_CS, (uint16_t)selector);
	v->next_rip = offset;
	return transferred(v);
}

enum bt_result bt_check_return_cs(struct bt_vcpu *v, uint16_t selector, struct bt_descriptor *cs)
{
	unsigned rpl = selector & 3, dpl;

	if (bt_selector_is_null(selector))
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(bt_read_descriptor(v, selector, X86_GP, cs));
	dpl = bt_desc_dpl(cs);
	if (!bt_desc_is_code(cs) || rpl < v->cpl)
		return bt_raise_selector(v, X86_GP, selector);
	if (bt_long_mode(v) && bt_desc_is_long(cs) && bt_desc_is_big(cs))
		return bt_raise_selector(v, X86_GP, selector);
	if (bt_desc_is_conforming(cs) ? dpl > rpl : dpl != rpl)
		return bt_raise_selector(v, X86_GP, selector);
	if (!bt_desc_is_present(cs))
		return bt_raise_selector(v, X86_NP, selector);
	return BT_NEXT;
}

enum bt_result bt_check_return_ss(struct bt_vcpu *v, uint16_t selector, unsigned cpl, bool to64,
				  struct bt_descriptor *ss)
{
	*ss = (struct bt_descriptor){ 0 };
	if (bt_selector_is_null(selector)) {
		if (!to64 || cpl == 3 || (selector & 3u) != cpl)
			return bt_raise_error(v, X86_GP, 0);
		return BT_NEXT;
	}
	return bt_check_stack_segment(v, selector, cpl, X86_GP, ss);
}

void bt_load_return_stack(struct bt_vcpu *v, const struct bt_descriptor *ss, uint16_t selector,
			  uint64_t sp, uint64_t extra)
{
	struct x86_segment *s = &v->seg[X86_SS];

	if (bt_selector_is_null(selector))
		*s = (struct x86_segment){ .selector = selector, .attr = (uint16_t)(v->cpl << 5) };
	else
		*s = bt_segment(ss, selector);
	if (bt_code64(v))
		BT_REG(v, X86_RSP) = sp + extra;
	else if (s->attr & X86_ATTR_DB)
		BT_REG(v, X86_RSP) = (uint32_t)(sp + extra);
	else
		BT_REG(v, X86_RSP) = (BT_REG(v, X86_RSP) & ~0xffffull) | ((sp + extra) & 0xffff);
}

enum bt_result bt_op_ret_far(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t offset, raw, sp, extra = (uint16_t)i->imm;
	struct bt_descriptor cs, ss;
	uint16_t selector, ss_selector;
	struct bt_stack s;

	bt_stack_current(v, &s);
	if (is_real(v))
		return ret_real(v, i, &s);
	BT_TRY(bt_pop(v, &s, i->opsize, &offset));
	BT_TRY(bt_pop(v, &s, i->opsize, &raw));
	selector = (uint16_t)raw;
	BT_TRY(bt_check_return_cs(v, selector, &cs));
	if ((selector & 3u) == v->cpl) {
		BT_TRY(bt_check_code_offset(v, &cs, offset));
		BT_TRY(bt_set_accessed(v, &cs));
		s.sp += extra;
		bt_stack_commit(v, &s);
		bt_load_cs(v, &cs, selector, v->cpl, offset);
		return transferred(v);
	}
	s.sp = (s.sp + extra) & s.mask;
	BT_TRY(bt_pop(v, &s, i->opsize, &sp));
	BT_TRY(bt_pop(v, &s, i->opsize, &raw));
	ss_selector = (uint16_t)raw;
	BT_TRY(bt_check_return_ss(v, ss_selector, selector & 3,
				  bt_long_mode(v) && bt_desc_is_long(&cs), &ss));
	BT_TRY(bt_check_code_offset(v, &cs, offset));
	BT_TRY(bt_set_accessed(v, &cs));
	if (!bt_selector_is_null(ss_selector))
		BT_TRY(bt_set_accessed(v, &ss));
	bt_load_cs(v, &cs, selector, selector & 3, offset);
	bt_load_return_stack(v, &ss, ss_selector, sp, extra);
	bt_drop_privileged_segments(v);
	return transferred(v);
}
