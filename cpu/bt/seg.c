/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segmentation: offsets to linear addresses, descriptors, and loads of data segment registers.
 * SDM vol. 3, chapter 3 (segment descriptors) and 5 (protection); vol. 2, "MOV", "POP", "LDS".
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

enum { TYPE_CODE = 8, TYPE_EXPAND_DOWN = 4, TYPE_READ_WRITE = 2 };

/* Offsets to linear addresses ------------------------------------------------------------------ */

static bool within_limit(const struct x86_segment *s, bool typed, uint64_t offset, unsigned len)
{
	uint64_t last;

	if (__builtin_add_overflow(offset, (uint64_t)len - 1, &last))
		return false;
	if (typed && (s->attr & (TYPE_CODE | TYPE_EXPAND_DOWN)) == TYPE_EXPAND_DOWN)
		return offset > s->limit && last <= (s->attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu);
	/* Across the end of 4 GiB: left to the implementation (vol. 3, 6.3), and CPUs wrap. */
	return last <= s->limit || (s->limit == 0xffffffff && offset <= s->limit);
}

enum bt_result bt_linear_in(struct bt_vcpu *v, const struct x86_segment *s, uint64_t offset,
			    unsigned len, unsigned access, uint8_t vector, uint32_t error,
			    uint64_t *lin)
{
	/* Virtual-8086 segments pass: they are present writable data. */
	bool typed = bt_protected(v);

	if (!len)
		len = 1;
	if (typed) {
		if (!(s->attr & X86_ATTR_P))
			return bt_raise_error(v, vector, error);
		if ((access & BT_WRITE) && ((s->attr & TYPE_CODE) || !(s->attr & TYPE_READ_WRITE)))
			return bt_raise_error(v, vector, error);
		if ((access & BT_ACCESS_MASK) == BT_READ &&
		    (s->attr & (TYPE_CODE | TYPE_READ_WRITE)) == TYPE_CODE)
			return bt_raise_error(v, vector, error);
	}
	if (!within_limit(s, typed, offset, len))
		return bt_raise_error(v, vector, error);
	*lin = (uint32_t)(s->base + offset);
	return BT_NEXT;
}

enum bt_result bt_linear(struct bt_vcpu *v, unsigned seg, uint64_t offset, unsigned len,
			 unsigned access, uint64_t *lin)
{
	uint8_t vector = seg == X86_SS ? X86_SS_VEC : X86_GP;

	if (!bt_code64(v))
		return bt_linear_in(v, &v->seg[seg], offset, len, access, vector, 0, lin);
	if (seg == X86_FS || seg == X86_GS)
		offset += v->seg[seg].base;
	if (!bt_canonical(offset) || !bt_canonical(offset + len - !!len))
		return bt_raise_error(v, vector, 0);
	*lin = offset;
	return BT_NEXT;
}

uint64_t bt_effective_address(const struct bt_vcpu *v, const struct insn *i)
{
	uint64_t ea = (uint64_t)i->disp;

	if (i->base == REG_PC)
		ea += v->next_rip;
	else if (i->base != REG_NONE)
		ea += BT_REG(v, i->base & 15);
	if (i->index != REG_NONE && !i->vsib)
		ea += BT_REG(v, i->index & 15) << (i->scale & 3);
	return bt_truncate(ea, i->addrsize);
}

enum bt_result bt_load_operand(struct bt_vcpu *v, const struct insn *i, unsigned size,
			       uint64_t *out)
{
	uint64_t lin;

	BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), size, BT_READ, &lin));
	BT_TRY(bt_check_alignment(v, lin, size, BT_READ));
	return bt_load(v, lin, size, BT_READ, out);
}

enum bt_result bt_store_operand(struct bt_vcpu *v, const struct insn *i, unsigned size,
				uint64_t value)
{
	uint64_t lin;

	BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), size, BT_WRITE, &lin));
	BT_TRY(bt_check_alignment(v, lin, size, BT_WRITE));
	return bt_store(v, lin, size, BT_WRITE, value);
}

/* Descriptors ---------------------------------------------------------------------------------- */

struct x86_segment bt_segment(const struct bt_descriptor *d, uint16_t selector)
{
	uint32_t limit = (d->lo & 0xffff) | (d->hi & 0xf0000);

	if (d->hi & 0x800000)
		limit = limit << 12 | 0xfff;
	return (struct x86_segment){
		.selector = selector,
		.attr = (d->hi >> 8) & 0xf0ff,
		.limit = limit,
		.base = (d->lo >> 16) | (d->hi & 0xff) << 16 | (d->hi & 0xff000000),
	};
}

bool bt_descriptor_address(const struct bt_vcpu *v, uint16_t selector, unsigned len, uint64_t *lin)
{
	uint32_t offset = selector & 0xfff8u, limit;
	uint64_t base;

	if (selector & 4) {
		if (!(v->ldtr.attr & X86_ATTR_P))
			return false;
		base = v->ldtr.base;
		limit = v->ldtr.limit;
	} else {
		base = v->gdtr.base;
		limit = v->gdtr.limit;
	}
	if (limit < len - 1 || offset > limit - (len - 1))
		return false;
	base += offset;
	*lin = bt_long_mode(v) ? base : (uint32_t)base;
	return true;
}

enum bt_result bt_read_descriptor(struct bt_vcpu *v, uint16_t selector, uint8_t vector,
				  struct bt_descriptor *d)
{
	uint64_t raw;

	if (!bt_descriptor_address(v, selector, 8, &d->lin))
		return bt_raise_selector(v, vector, selector);
	BT_TRY(bt_load(v, d->lin, 8, BT_READ | BT_SYSTEM, &raw));
	d->lo = (uint32_t)raw;
	d->hi = (uint32_t)(raw >> 32);
	d->upper = 0;
	return BT_NEXT;
}

/* SDM vol. 3, 8.2.3 and figure 5-8: bits 12:8 of the last doubleword are a type that must be 0. */
enum bt_result bt_read_descriptor_upper(struct bt_vcpu *v, uint16_t selector,
					struct bt_descriptor *d)
{
	uint64_t lin, raw;

	if (!bt_descriptor_address(v, selector, 16, &lin))
		return bt_raise_selector(v, X86_GP, selector);
	BT_TRY(bt_load(v, lin + 8, 8, BT_READ | BT_SYSTEM, &raw));
	if (raw >> 32 & 0x1f00)
		return bt_raise_selector(v, X86_GP, selector);
	d->upper = (uint32_t)raw;
	return BT_NEXT;
}

/* Sets or clears bits of byte 5 of a descriptor: a locked operation (SDM vol. 3, 9.1.2.1). */
static enum bt_result change_type(struct bt_vcpu *v, uint64_t lin, uint8_t set, uint8_t clear)
{
	enum bt_result res;
	unsigned len = 1;
	uint64_t byte;
	uint8_t *p = bt_ram(v, lin + 5, &len, BT_RMW | BT_SYSTEM, &res);

	if (p) {
		if (set)
			__atomic_fetch_or(p, set, __ATOMIC_SEQ_CST);
		if (clear)
			__atomic_fetch_and(p, (uint8_t)~clear, __ATOMIC_SEQ_CST);
		return BT_NEXT;
	}
	if (res == BT_FAULT)
		return BT_FAULT;
	BT_TRY(bt_load(v, lin + 5, 1, BT_RMW | BT_SYSTEM, &byte));
	return bt_store(v, lin + 5, 1, BT_WRITE | BT_SYSTEM, (byte | set) & ~(uint64_t)clear);
}

enum bt_result bt_set_accessed(struct bt_vcpu *v, struct bt_descriptor *d)
{
	if (d->hi & 0x100)
		return BT_NEXT;
	BT_TRY(change_type(v, d->lin, 1, 0));
	d->hi |= 0x100;
	return BT_NEXT;
}

enum bt_result bt_set_busy(struct bt_vcpu *v, uint64_t lin, bool busy)
{
	return change_type(v, lin, busy ? 2 : 0, busy ? 0 : 2);
}

/* Segment registers ---------------------------------------------------------------------------- */

void bt_load_segment_real(struct bt_vcpu *v, unsigned seg, uint16_t selector)
{
	struct x86_segment *s = &v->seg[seg];

	s->selector = selector;
	s->base = (uint32_t)selector << 4;
	if (bt_v86(v)) {
		s->limit = 0xffff;
		s->attr = X86_ATTR_P | X86_ATTR_DPL | X86_ATTR_S | 3;
	} else {
		/* Limit and size survive from protected mode: "unreal" mode. */
		if (!(s->attr & X86_ATTR_P))
			s->limit = 0xffff;
		s->attr = (s->attr & (X86_ATTR_DB | X86_ATTR_G)) | X86_ATTR_P | X86_ATTR_S | 3;
	}
}

enum bt_result bt_check_stack_segment(struct bt_vcpu *v, uint16_t selector, unsigned cpl,
				      uint8_t vector, struct bt_descriptor *d)
{
	BT_TRY(bt_read_descriptor(v, selector, vector, d));
	if ((selector & 3u) != cpl || !bt_desc_is_writable_data(d) || bt_desc_dpl(d) != cpl)
		return bt_raise_selector(v, vector, selector);
	if (!bt_desc_is_present(d))
		return bt_raise_selector(v, X86_SS_VEC, selector);
	return BT_NEXT;
}

static void load_null(struct bt_vcpu *v, unsigned seg, uint16_t selector)
{
	/* The DPL of a null SS is the CPL (SDM vol. 3, 6.14.4); bases are cleared. */
	v->seg[seg] = (struct x86_segment){ .selector = selector };
	if (seg == X86_SS)
		v->seg[seg].attr = (uint16_t)(v->cpl << 5);
}

enum bt_result bt_load_segment(struct bt_vcpu *v, unsigned seg, uint16_t selector)
{
	struct bt_descriptor d;
	unsigned rpl = selector & 3, dpl;

	if (!bt_protected(v) || bt_v86(v)) {
		bt_load_segment_real(v, seg, selector);
		return BT_NEXT;
	}
	if (bt_selector_is_null(selector)) {
		if (seg == X86_SS && (!bt_code64(v) || v->cpl == 3 || rpl != v->cpl))
			return bt_raise_error(v, X86_GP, 0);
		load_null(v, seg, selector);
		return BT_NEXT;
	}
	if (seg == X86_SS) {
		BT_TRY(bt_check_stack_segment(v, selector, v->cpl, X86_GP, &d));
	} else {
		BT_TRY(bt_read_descriptor(v, selector, X86_GP, &d));
		dpl = bt_desc_dpl(&d);
		/* Data, or code that is readable (S = 1 and not execute-only). */
		if (bt_desc_is_system(&d) || (d.hi & 0x0a00) == 0x0800)
			return bt_raise_selector(v, X86_GP, selector);
		if (!bt_desc_is_conforming(&d) && (rpl > dpl || v->cpl > dpl))
			return bt_raise_selector(v, X86_GP, selector);
		if (!bt_desc_is_present(&d))
			return bt_raise_selector(v, X86_NP, selector);
	}
	BT_TRY(bt_set_accessed(v, &d));
	v->seg[seg] = bt_segment(&d, selector);
	return BT_NEXT;
}

void bt_drop_privileged_segments(struct bt_vcpu *v)
{
	static const uint8_t segs[] = { X86_ES, X86_DS, X86_FS, X86_GS };

	for (unsigned n = 0; n < sizeof(segs); n++) {
		struct x86_segment *s = &v->seg[segs[n]];
		bool conforming = (s->attr & 0x1c) == 0x1c;

		if (bt_selector_is_null(s->selector))
			s->selector = 0; /* FS and GS keep a base that was loaded by other means */
		else if (!conforming && v->cpl > (s->attr & X86_ATTR_DPL) >> 5)
			load_null(v, segs[n], 0);
	}
}

/* Instructions --------------------------------------------------------------------------------- */

/*
 * After a segment register has been loaded by an instruction. MOV and POP of SS hold off interrupts
 * until the next instruction is done (SDM vol. 3, 6.8.3).
 */
static enum bt_result segment_loaded(struct bt_vcpu *v, unsigned seg, bool shadow)
{
	uint32_t before = v->mode;

	bt_mode_update(v);
	if (shadow && seg == X86_SS) {
		v->interrupt_shadow = SHADOW_SS;
		return BT_EXIT;
	}
	return v->mode == before ? BT_NEXT : BT_EXIT;
}

enum bt_result bt_op_mov_seg_to(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t selector;

	if (i->sreg >= X86_SEG_COUNT || i->sreg == X86_CS)
		return bt_raise(v, X86_UD);
	if (i->has_mem)
		BT_TRY(bt_load_operand(v, i, 2, &selector));
	else
		selector = BT_REG(v, i->rm & 15) & 0xffff;
	BT_TRY(bt_load_segment(v, i->sreg, (uint16_t)selector));
	return segment_loaded(v, i->sreg, true);
}

/*
 * To memory always 16 bits; to a register zero-extended to the operand size (16-bit: upper bits
 * kept).
 */
enum bt_result bt_op_mov_seg_from(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t selector;

	if (i->sreg >= X86_SEG_COUNT)
		return bt_raise(v, X86_UD);
	selector = v->seg[i->sreg].selector;
	if (i->has_mem)
		return bt_store_operand(v, i, 2, selector);
	bt_set_reg(v, i->rm & 15, i->opsize, true, selector);
	return BT_NEXT;
}

enum bt_result bt_op_load_far(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t ea = bt_effective_address(v, i), lin, offset, selector;
	unsigned size = i->opsize;

	if (!i->has_mem || i->sreg >= X86_SEG_COUNT || i->sreg == X86_CS)
		return bt_raise(v, X86_UD);
	BT_TRY(bt_linear(v, i->seg, ea, size + 2, BT_READ, &lin));
	BT_TRY(bt_load(v, lin, size, BT_READ, &offset));
	BT_TRY(bt_load(v, lin + size, 2, BT_READ, &selector));
	BT_TRY(bt_load_segment(v, i->sreg, (uint16_t)selector));
	bt_set_reg(v, i->reg & 15, size, true, offset);
	return segment_loaded(v, i->sreg, false);
}

enum bt_result bt_op_push_seg(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_stack s;

	bt_stack_current(v, &s);
	BT_TRY(bt_push_selector(v, &s, i->opsize, v->seg[i->sreg % X86_SEG_COUNT].selector));
	bt_stack_commit(v, &s);
	return BT_NEXT;
}

enum bt_result bt_op_pop_seg(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_stack s;
	uint64_t value;

	if (i->sreg >= X86_SEG_COUNT || i->sreg == X86_CS)
		return bt_raise(v, X86_UD);
	bt_stack_current(v, &s);
	BT_TRY(bt_peek(v, &s, 0, 2, &value));
	BT_TRY(bt_stack_room(v, &s, 0));
	s.sp += i->opsize;
	BT_TRY(bt_load_segment(v, i->sreg, (uint16_t)value));
	bt_stack_commit(v, &s); /* in the size that SS had */
	return segment_loaded(v, i->sreg, true);
}
