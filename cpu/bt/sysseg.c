/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptor table registers, and instructions that look at descriptors: SGDT SIDT LGDT LIDT SLDT
 * STR LLDT LTR LAR LSL VERR VERW. SDM vol. 2 under their names.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

static bool is_real(const struct bt_vcpu *v)
{
	return !bt_protected(v) || bt_v86(v);
}

/* SGDT, SIDT, SLDT, STR (and SMSW) outside of CPL 0 when CR4.UMIP is set. */
static bool umip_denies(const struct bt_vcpu *v)
{
	return v->cpl && (v->cr4 & X86_CR4_UMIP);
}

static enum bt_result store_table(struct bt_vcpu *v, const struct insn *i,
				  const struct x86_table *t)
{
	unsigned size = bt_code64(v) ? 8 : 4;
	uint8_t image[10];
	uint64_t lin;

	if (umip_denies(v))
		return bt_raise_error(v, X86_GP, 0);
	__builtin_memcpy(image, &t->limit, 2);
	__builtin_memcpy(image + 2, &t->base, 8);
	BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), 2 + size, BT_WRITE, &lin));
	return bt_store_bytes(v, lin, image, 2 + size, BT_WRITE);
}

static enum bt_result load_table(struct bt_vcpu *v, const struct insn *i, struct x86_table *t)
{
	unsigned size = bt_code64(v) ? 8 : 4;
	uint64_t lin, limit, base;

	if (v->cpl)
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), 2 + size, BT_READ, &lin));
	BT_TRY(bt_load(v, lin, 2, BT_READ, &limit));
	BT_TRY(bt_load(v, lin + 2, size, BT_READ, &base));
	if (size == 4 && i->opsize == 2)
		base &= 0xffffff;
	if (!bt_canonical(base))
		return bt_raise_error(v, X86_GP, 0);
	t->limit = (uint16_t)limit;
	t->base = base;
	return BT_NEXT;
}

enum bt_result bt_op_sgdt(struct bt_vcpu *v, const struct insn *i)
{
	return store_table(v, i, &v->gdtr);
}

enum bt_result bt_op_sidt(struct bt_vcpu *v, const struct insn *i)
{
	return store_table(v, i, &v->idtr);
}

enum bt_result bt_op_lgdt(struct bt_vcpu *v, const struct insn *i)
{
	return load_table(v, i, &v->gdtr);
}

enum bt_result bt_op_lidt(struct bt_vcpu *v, const struct insn *i)
{
	return load_table(v, i, &v->idtr);
}

/* r/m16: memory takes 16 bits, a register the operand size, zero-extended. */
static enum bt_result store_selector(struct bt_vcpu *v, const struct insn *i, uint16_t selector)
{
	if (is_real(v))
		return bt_raise(v, X86_UD);
	if (umip_denies(v))
		return bt_raise_error(v, X86_GP, 0);
	if (i->has_mem)
		return bt_store_operand(v, i, 2, selector);
	bt_set_reg(v, i->rm & 15, i->opsize, true, selector);
	return BT_NEXT;
}

static enum bt_result load_selector(struct bt_vcpu *v, const struct insn *i, uint16_t *selector)
{
	uint64_t value = BT_REG(v, i->rm & 15);

	if (i->has_mem)
		BT_TRY(bt_load_operand(v, i, 2, &value));
	*selector = (uint16_t)value;
	return BT_NEXT;
}

enum bt_result bt_op_sldt(struct bt_vcpu *v, const struct insn *i)
{
	return store_selector(v, i, v->ldtr.selector);
}

enum bt_result bt_op_str(struct bt_vcpu *v, const struct insn *i)
{
	return store_selector(v, i, v->tr.selector);
}

/*
 * Reads the system descriptor for LLDT and LTR: in the GDT, type @type or (legacy only) @type16,
 * present.
 */
static enum bt_result read_system(struct bt_vcpu *v, uint16_t selector, unsigned type,
				  unsigned type16, struct bt_descriptor *d, struct x86_segment *s)
{
	unsigned t;

	if (selector & 4)
		return bt_raise_selector(v, X86_GP, selector);
	BT_TRY(bt_read_descriptor(v, selector, X86_GP, d));
	t = bt_desc_type(d);
	if (!bt_desc_is_system(d) || (t != type && (bt_long_mode(v) || t != type16)))
		return bt_raise_selector(v, X86_GP, selector);
	if (!bt_desc_is_present(d))
		return bt_raise_selector(v, X86_NP, selector);
	if (bt_long_mode(v))
		BT_TRY(bt_read_descriptor_upper(v, selector, d));
	*s = bt_segment(d, selector);
	s->base |= (uint64_t)d->upper << 32;
	if (!bt_canonical(s->base))
		return bt_raise_selector(v, X86_GP, selector);
	return BT_NEXT;
}

/* LLDT and LTR are for protected mode, ring 0. */
static enum bt_result load_privileged(struct bt_vcpu *v, const struct insn *i, uint16_t *selector)
{
	if (is_real(v))
		return bt_raise(v, X86_UD);
	if (v->cpl)
		return bt_raise_error(v, X86_GP, 0);
	return load_selector(v, i, selector);
}

enum bt_result bt_op_lldt(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_descriptor d;
	struct x86_segment s;
	uint16_t selector;

	BT_TRY(load_privileged(v, i, &selector));
	if (bt_selector_is_null(selector)) {
		v->ldtr = (struct x86_segment){ .selector = selector };
		return BT_NEXT;
	}
	BT_TRY(read_system(v, selector, DESC_LDT, DESC_LDT, &d, &s));
	v->ldtr = s;
	return BT_NEXT;
}

enum bt_result bt_op_ltr(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_descriptor d;
	struct x86_segment s;
	uint16_t selector;

	BT_TRY(load_privileged(v, i, &selector));
	if (bt_selector_is_null(selector))
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(read_system(v, selector, DESC_TSS, DESC_TSS16, &d, &s));
	BT_TRY(bt_set_busy(v, d.lin, true));
	s.attr |= 2;
	v->tr = s;
	return BT_NEXT;
}

/* Looking at descriptors ----------------------------------------------------------------------- */

#define TYPE(t) (1u << (t))
#define LSL_LEGACY                                                                    \
	(TYPE(DESC_TSS16) | TYPE(DESC_LDT) | TYPE(DESC_TSS16_BUSY) | TYPE(DESC_TSS) | \
	 TYPE(DESC_TSS_BUSY))
#define LSL_LONG (TYPE(DESC_LDT) | TYPE(DESC_TSS) | TYPE(DESC_TSS_BUSY))
#define LAR_LEGACY (LSL_LEGACY | TYPE(DESC_CALL16) | TYPE(DESC_TASK_GATE) | TYPE(DESC_CALL))
#define LAR_LONG (LSL_LONG | TYPE(DESC_CALL))

/*
 * Reads the descriptor of the source operand, if it may be looked at. @types: system types that
 * count. BT_FAULT only for the accesses themselves.
 */
static enum bt_result look(struct bt_vcpu *v, const struct insn *i, unsigned types,
			   struct bt_descriptor *d, bool *good)
{
	uint16_t selector;
	unsigned dpl;

	*good = false;
	if (is_real(v))
		return bt_raise(v, X86_UD);
	BT_TRY(load_selector(v, i, &selector));
	if (bt_selector_is_null(selector) || !bt_descriptor_address(v, selector, 8, &d->lin))
		return BT_NEXT;
	BT_TRY(bt_read_descriptor(v, selector, X86_GP, d));
	if (bt_desc_is_system(d) && !(types >> bt_desc_type(d) & 1))
		return BT_NEXT;
	dpl = bt_desc_dpl(d);
	*good = bt_desc_is_conforming(d) || (v->cpl <= dpl && (selector & 3u) <= dpl);
	return BT_NEXT;
}

static void set_zf(struct bt_vcpu *v, bool set)
{
	bt_set_aflags(v, (bt_get_rflags(v) & ~(uint64_t)X86_ZF) | (set ? X86_ZF : 0));
}

enum bt_result bt_op_lar(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_descriptor d;
	bool good;

	BT_TRY(look(v, i, bt_long_mode(v) ? LAR_LONG : LAR_LEGACY, &d, &good));
	if (good)
		bt_set_reg(v, i->reg & 15, i->opsize, true,
			   d.hi & (i->opsize == 2 ? 0xff00 : 0xf0ff00));
	set_zf(v, good);
	return BT_NEXT;
}

enum bt_result bt_op_lsl(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_descriptor d;
	bool good;

	BT_TRY(look(v, i, bt_long_mode(v) ? LSL_LONG : LSL_LEGACY, &d, &good));
	if (good)
		bt_set_reg(v, i->reg & 15, i->opsize, true, bt_segment(&d, 0).limit);
	set_zf(v, good);
	return BT_NEXT;
}

enum bt_result bt_op_verr(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_descriptor d;
	bool good;

	BT_TRY(look(v, i, 0, &d, &good));
	set_zf(v, good && !(bt_desc_is_code(&d) && !(d.hi & 0x200)));
	return BT_NEXT;
}

enum bt_result bt_op_verw(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_descriptor d;
	bool good;

	BT_TRY(look(v, i, 0, &d, &good));
	set_zf(v, good && bt_desc_is_writable_data(&d));
	return BT_NEXT;
}
