/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks as far transfers, event delivery and the less usual stack instructions use them: pushes
 * and pops go to memory at once, rSP changes only when everything has succeeded (what is written
 * below rSP by an instruction that then faults is unspecified on real processors too).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/cpuid.h"

static uint64_t stack_mask(const struct x86_segment *ss)
{
	return ss->attr & X86_ATTR_DB ? 0xffffffff : 0xffff;
}

void bt_stack_current(const struct bt_vcpu *v, struct bt_stack *s)
{
	s->ss = v->seg[X86_SS];
	s->flat = bt_code64(v);
	s->mask = s->flat ? ~0ull : stack_mask(&s->ss);
	s->sp = BT_REG(v, X86_RSP) & s->mask;
	s->error = 0;
	s->access = 0;
}

static enum bt_result stack_linear(struct bt_vcpu *v, const struct bt_stack *s, uint64_t sp,
				   unsigned len, unsigned access, uint64_t *lin)
{
	if (!s->flat)
		return bt_linear_in(v, &s->ss, sp, len, access, X86_SS_VEC, s->error, lin);
	if (!bt_canonical(sp) || !bt_canonical(sp + len - 1))
		return bt_raise_error(v, X86_SS_VEC, s->error);
	*lin = sp;
	return BT_NEXT;
}

enum bt_result bt_push(struct bt_vcpu *v, struct bt_stack *s, unsigned size, uint64_t value)
{
	uint64_t sp = (s->sp - size) & s->mask, lin;

	BT_TRY(stack_linear(v, s, sp, size, BT_WRITE, &lin));
	if (!s->access)
		BT_TRY(bt_check_alignment(v, lin, size, BT_WRITE));
	BT_TRY(bt_store(v, lin, size, BT_WRITE | s->access, value));
	s->sp = sp;
	return BT_NEXT;
}

enum bt_result bt_push_selector(struct bt_vcpu *v, struct bt_stack *s, unsigned size, uint16_t value)
{
	uint64_t sp = (s->sp - size) & s->mask, lin;

	if (size != 4 || v->cpuid->amd)
		return bt_push(v, s, size, value);
	BT_TRY(stack_linear(v, s, sp, 2, BT_WRITE, &lin));
	BT_TRY(bt_check_alignment(v, lin, 2, BT_WRITE));
	BT_TRY(bt_store(v, lin, 2, BT_WRITE, value));
	s->sp = sp;
	return BT_NEXT;
}

enum bt_result bt_peek(struct bt_vcpu *v, const struct bt_stack *s, unsigned offset, unsigned size,
		       uint64_t *value)
{
	uint64_t lin;

	BT_TRY(stack_linear(v, s, (s->sp + offset) & s->mask, size, BT_READ, &lin));
	if (!s->access)
		BT_TRY(bt_check_alignment(v, lin, size, BT_READ));
	return bt_load(v, lin, size, BT_READ | s->access, value);
}

enum bt_result bt_pop(struct bt_vcpu *v, struct bt_stack *s, unsigned size, uint64_t *value)
{
	BT_TRY(bt_peek(v, s, 0, size, value));
	s->sp = (s->sp + size) & s->mask;
	return BT_NEXT;
}

enum bt_result bt_stack_room(struct bt_vcpu *v, const struct bt_stack *s, unsigned len)
{
	uint64_t lin;

	if (!len)
		return BT_NEXT;
	BT_TRY(stack_linear(v, s, (s->sp - len) & s->mask, len, BT_WRITE, &lin));
	return bt_probe(v, lin, len, BT_WRITE | s->access);
}

void bt_stack_commit(struct bt_vcpu *v, const struct bt_stack *s)
{
	uint64_t sp = s->sp & s->mask;

	if (s->mask == 0xffff)
		BT_REG(v, X86_RSP) = (BT_REG(v, X86_RSP) & ~0xffffull) | sp;
	else
		BT_REG(v, X86_RSP) = sp;
}

enum bt_result bt_stack_from_tss(struct bt_vcpu *v, unsigned cpl, struct bt_stack *s,
				 struct bt_descriptor *ss, uint16_t *selector)
{
	unsigned type = v->tr.attr & 15, offset, len;
	bool tss32 = type & 8;
	uint64_t sp, sel;

	s->error = 0;
	s->access = BT_FRAME | (cpl == 3 ? BT_AS_USER : BT_SYSTEM);
	s->flat = bt_long_mode(v);
	if (s->flat) {
		offset = 4 + cpl * 8;
		if ((uint64_t)offset + 7 > v->tr.limit)
			return bt_raise_selector(v, X86_TS, v->tr.selector);
		BT_TRY(bt_load(v, v->tr.base + offset, 8, BT_READ | BT_SYSTEM, &s->sp));
		s->mask = ~0ull;
		*selector = (uint16_t)cpl; /* null, with RPL = new CPL */
		s->ss = (struct x86_segment){ .selector = *selector, .attr = (uint16_t)(cpl << 5) };
		return BT_NEXT;
	}
	offset = tss32 ? 4 + cpl * 8 : 2 + cpl * 4;
	len = tss32 ? 4 : 2;
	if (offset + len + 1 > v->tr.limit)
		return bt_raise_selector(v, X86_TS, v->tr.selector);
	BT_TRY(bt_load(v, (uint32_t)(v->tr.base + offset), len, BT_READ | BT_SYSTEM, &sp));
	BT_TRY(bt_load(v, (uint32_t)(v->tr.base + offset + len), 2, BT_READ | BT_SYSTEM, &sel));
	*selector = (uint16_t)sel;
	if (bt_selector_is_null(*selector))
		return bt_raise_error(v, X86_TS, 0);
	BT_TRY(bt_check_stack_segment(v, *selector, cpl, X86_TS, ss));
	s->ss = bt_segment(ss, *selector);
	s->mask = stack_mask(&s->ss);
	s->sp = sp & s->mask;
	s->error = *selector & 0xfffc;
	return BT_NEXT;
}

/* Instructions --------------------------------------------------------------------------------- */

/* SDM vol. 2, "PUSHA": the whole frame or nothing. */
enum bt_result bt_op_pusha(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_stack s;

	bt_stack_current(v, &s);
	for (unsigned reg = 0; reg < 8; reg++)
		BT_TRY(bt_push(v, &s, i->opsize, bt_truncate(BT_REG(v, reg), i->opsize)));
	bt_stack_commit(v, &s);
	return BT_NEXT;
}

enum bt_result bt_op_popa(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t value;
	struct bt_stack s;

	/* A fault on the way leaves the registers that were popped, as on CPUs; rSP is unchanged then. */
	bt_stack_current(v, &s);
	for (unsigned reg = 8; reg-- > 0;) {
		BT_TRY(bt_pop(v, &s, i->opsize, &value));
		if (reg != X86_RSP)
			bt_set_reg(v, reg, i->opsize, true, value);
	}
	bt_stack_commit(v, &s);
	return BT_NEXT;
}

/* SDM vol. 2, "ENTER". imm: size of the frame, imm2: nesting level. */
enum bt_result bt_op_enter(struct bt_vcpu *v, const struct insn *i)
{
	unsigned size = i->opsize, level = i->imm2 & 31;
	uint64_t frame, bp = BT_REG(v, X86_RBP), value;
	struct bt_stack s, from;

	bt_stack_current(v, &s);
	BT_TRY(bt_push(v, &s, size, bt_truncate(bp, size)));
	frame = s.sp;
	for (unsigned n = 1; n < level; n++) {
		bp -= size;
		from = s;
		from.sp = bp & s.mask;
		BT_TRY(bt_peek(v, &from, 0, size, &value));
		BT_TRY(bt_push(v, &s, size, value));
	}
	if (level)
		BT_TRY(bt_push(v, &s, size, bt_truncate(frame, size)));
	s.sp = (s.sp - (uint16_t)i->imm) & s.mask;
	/*
	 * "#SS(0) if the new value of rSP is outside the stack's limit; #PF if a write there would
	 * fault." CPUs check the alignment, too.
	 */
	from = s;
	from.sp = (s.sp + 1) & s.mask;
	BT_TRY(bt_check_alignment(v, s.sp + (s.flat ? 0 : s.ss.base), size, BT_WRITE));
	BT_TRY(bt_stack_room(v, &from, 1));
	bt_set_reg(v, X86_RBP, size, true, frame);
	bt_stack_commit(v, &s);
	return BT_NEXT;
}
