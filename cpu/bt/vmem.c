/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector instructions whose memory accesses are one by one: gathers and scatters (AVX2, AVX-512)
 * and MASKMOVQ, MASKMOVDQU. SDM vol. 2, "VGATHERDPS/VGATHERDPD", "VPSCATTERDD…", "MASKMOVDQU".
 *
 * Elements are accessed from the lowest to the highest; each one done clears its mask bit, and a
 * fault leaves the destination and mask with the progress made, as the manual asks.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/cpuid.h"

enum {
	OFFSET_FSW = 2,
	OFFSET_ST = 32,
	OFFSET_XMM = 160,
	OFFSET_XSTATE_BV = 512,
	YMM = 2,
	OPMASK = 5,
	ZMM_HI = 6,
	HI16 = 7
};

struct vector {
	_Alignas(8) uint8_t bytes[64];
};

static uint8_t *component(const struct bt_vcpu *v, struct bt_xarea *a, unsigned n)
{
	return v->xcr0 >> n & 1 ? a->bytes + v->cpuid->xsave[n].offset : NULL;
}

/* Moves a whole vector register (0–31) between @a and @r; parts that XCR0 does not have are 0. */
static void move_vector(const struct bt_vcpu *v, struct bt_xarea *a, unsigned reg, struct vector *r,
			bool store)
{
	const struct {
		uint8_t *at;
		unsigned from, size;
	} low[] = {
		{ a->bytes + OFFSET_XMM + 16 * (reg & 15), 0, 16 },
		{ component(v, a, YMM) ? component(v, a, YMM) + 16 * (reg & 15) : NULL, 16, 16 },
		{ component(v, a, ZMM_HI) ? component(v, a, ZMM_HI) + 32 * (reg & 15) : NULL, 32,
		  32 },
	};

	if (!store)
		bt_zero(r, sizeof(*r));
	if (reg >= 16) {
		uint8_t *at = component(v, a, HI16);

		if (at && store)
			bt_copy(at + 64 * (reg & 15), r->bytes, 64);
		else if (at)
			bt_copy(r->bytes, at + 64 * (reg & 15), 64);
		return;
	}
	for (unsigned n = 0; n < 3; n++) {
		if (low[n].at && store)
			bt_copy(low[n].at, r->bytes + low[n].from, low[n].size);
		else if (low[n].at)
			bt_copy(r->bytes + low[n].from, low[n].at, low[n].size);
	}
}

static uint64_t get_element(const struct vector *r, unsigned n, unsigned size)
{
	uint64_t value = 0;

	bt_copy(&value, r->bytes + (n * size & 63), size);
	return value;
}

static void set_element(struct vector *r, unsigned n, unsigned size, uint64_t value)
{
	bt_copy(r->bytes + (n * size & 63), &value, size);
}

static enum bt_result check_vector(struct bt_vcpu *v, const struct insn *i)
{
	uint32_t needed = i->encoding == ENC_EVEX  ? MODE_AVX512
			  : i->encoding == ENC_VEX ? MODE_AVX
						   : MODE_SSE;

	if (!(v->mode & needed))
		return bt_raise(v, X86_UD);
	if (v->mode & MODE_TS)
		return bt_raise(v, X86_NM);
	return BT_NEXT;
}

/* A gather or scatter in progress. */
struct indexed {
	unsigned count, element, index_size;
	uint32_t mask; /* elements still to do */
	struct vector index, data;
};

static enum bt_result element_address(struct bt_vcpu *v, const struct insn *i,
				      const struct indexed *x, unsigned n, unsigned access,
				      uint64_t *lin)
{
	uint64_t index = get_element(&x->index, n, x->index_size), ea;

	if (x->index_size == 4)
		index = (uint64_t)(int64_t)(int32_t)index;
	ea = bt_effective_address(v, i) + (index << (i->scale & 3));
	return bt_linear(v, i->seg, bt_truncate(ea, i->addrsize), x->element, access, lin);
}

static void indexed_init(struct indexed *x, const struct bt_vcpu *v, const struct insn *i,
			 struct bt_xarea *a)
{
	unsigned widest;

	x->element = i->w ? 8 : 4;
	x->index_size = i->opcode & 1 ? 8 : 4;
	widest = x->element > x->index_size ? x->element : x->index_size;
	x->count = (16u << (i->vl & 3)) / widest;
	if (x->count > 16)
		x->count = 16;
	move_vector(v, a, i->index & 31, &x->index, false);
	move_vector(v, a, i->reg & 31, &x->data, false);
	x->mask = 0;
}

static uint64_t read_opmask(const struct bt_vcpu *v, const struct insn *i, struct bt_xarea *a)
{
	uint8_t *k = component(v, a, OPMASK);
	uint64_t value = 0;

	if (k)
		bt_copy(&value, k + 8 * (i->evex_aaa & 7), 8);
	return value;
}

static void write_opmask(const struct bt_vcpu *v, const struct insn *i, struct bt_xarea *a,
			 uint64_t value)
{
	uint8_t *k = component(v, a, OPMASK);

	if (k)
		bt_copy(k + 8 * (i->evex_aaa & 7), &value, 8);
}

/* Everything in XCR0 is in use now, as far as XRSTOR needs to know. */
static void restore_all(const struct bt_vcpu *v, struct bt_xarea *a)
{
	bt_copy(a->bytes + OFFSET_XSTATE_BV, &v->xcr0, 8);
	bt_xarea_restore(a, v->xcr0);
}

/* A VEX mask in progress: elements are all ones or zeros, also those beyond the ones that are gathered. */
static void spread_signs(struct vector *mask, const struct indexed *x, unsigned length)
{
	for (unsigned n = 0; n < length / x->element; n++) {
		bool set = n < x->count ? x->mask >> n & 1
					: get_element(mask, n, x->element) >> (8 * x->element - 1) & 1;

		set_element(mask, n, x->element, set ? ~0ull : 0);
	}
	bt_zero(mask->bytes + length, sizeof(*mask) - length);
}

/* After a fault: with elements done, the single-step trap comes instead (SDM vol. 2, VPGATHERDD: "in lieu of"). */
static enum bt_result partly_done(struct bt_vcpu *v, bool progress)
{
	if (progress && (v->sysflags & X86_TF))
		v->exception = (struct bt_exception){.vector = X86_DB, .dr6 = 1u << 14 /* BS */};
	return BT_FAULT;
}

enum bt_result bt_op_gather(struct bt_vcpu *v, const struct insn *i)
{
	bool vex = i->encoding == ENC_VEX;
	enum bt_result res = BT_NEXT;
	struct vector mask;
	struct bt_xarea a;
	struct indexed x;
	uint64_t lin, value, opmask = 0;
	unsigned length = 16u << (i->vl & 3);
	uint32_t wanted;

	BT_TRY(check_vector(v, i));
	if (i->reg == i->index ||
	    (vex ? i->vvvv == i->reg || i->vvvv == i->index : i->evex_aaa == 0))
		return bt_raise(v, X86_UD);
	bt_xarea_save(&a, v->xcr0);
	indexed_init(&x, v, i, &a);
	if (vex) {
		move_vector(v, &a, i->vvvv & 15, &mask, false);
		for (unsigned n = 0; n < x.count; n++)
			x.mask |=
				(uint32_t)(get_element(&mask, n, x.element) >> (8 * x.element - 1) &
					   1)
				<< n;
	} else {
		opmask = read_opmask(v, i, &a);
		x.mask = (uint32_t)opmask & ((1u << x.count) - 1);
	}
	wanted = x.mask;
	for (unsigned n = 0; n < x.count; n++) {
		if (!(x.mask >> n & 1))
			continue;
		res = element_address(v, i, &x, n, BT_READ, &lin);
		if (res != BT_FAULT)
			res = bt_load(v, lin, x.element, BT_READ, &value);
		if (res == BT_FAULT)
			break;
		set_element(&x.data, n, x.element, value);
		x.mask &= ~(1u << n);
	}
	if (res != BT_FAULT)
		bt_zero(x.data.bytes + x.count * x.element, sizeof(x.data) - x.count * x.element);
	else if (x.mask != wanted) /* something was written */
		bt_zero(x.data.bytes + length, sizeof(x.data) - length);
	move_vector(v, &a, i->reg & 31, &x.data, true);
	if (vex) {
		if (res != BT_FAULT)
			bt_zero(&mask, sizeof(mask));
		else
			spread_signs(&mask, &x, length);
		move_vector(v, &a, i->vvvv & 15, &mask, true);
	} else {
		write_opmask(v, i, &a, res == BT_FAULT ? opmask & ~(uint64_t)(wanted & ~x.mask) : 0);
	}
	restore_all(v, &a);
	return res == BT_FAULT ? partly_done(v, x.mask != wanted) : BT_NEXT;
}

enum bt_result bt_op_scatter(struct bt_vcpu *v, const struct insn *i)
{
	enum bt_result res = BT_NEXT;
	struct bt_xarea a;
	struct indexed x;
	uint64_t lin, opmask;
	uint32_t wanted;

	BT_TRY(check_vector(v, i));
	if (i->encoding != ENC_EVEX || i->evex_aaa == 0)
		return bt_raise(v, X86_UD);
	bt_xarea_save(&a, v->xcr0);
	indexed_init(&x, v, i, &a);
	opmask = read_opmask(v, i, &a);
	x.mask = wanted = (uint32_t)opmask & ((1u << x.count) - 1);
	for (unsigned n = 0; n < x.count; n++) {
		if (!(x.mask >> n & 1))
			continue;
		res = element_address(v, i, &x, n, BT_WRITE, &lin);
		if (res != BT_FAULT)
			res = bt_store(v, lin, x.element, BT_WRITE,
				       get_element(&x.data, n, x.element));
		if (res == BT_FAULT)
			break;
		x.mask &= ~(1u << n);
	}
	write_opmask(v, i, &a, res == BT_FAULT ? opmask & ~(uint64_t)(wanted & ~x.mask) : 0);
	restore_all(v, &a);
	return res == BT_FAULT ? partly_done(v, x.mask != wanted) : BT_NEXT;
}

/* MASKMOVQ is the form without prefix. */
enum bt_result bt_op_maskmov(struct bt_vcpu *v, const struct insn *i)
{
	bool mmx = i->encoding == ENC_LEGACY && i->pp == 0;
	uint64_t offset = bt_truncate(BT_REG(v, X86_RDI), i->addrsize), lin;
	unsigned len = mmx ? 8 : 16;
	uint8_t data[16], mask[16];
	struct bt_xarea a;
	uint16_t status;

	if (mmx) {
		if (v->mode & (MODE_EM | MODE_TS))
			return v->mode & MODE_EM ? bt_raise(v, X86_UD) : bt_raise(v, X86_NM);
		__asm__ volatile("fnstsw %0" : "=a"(status));
		if (status & 0x80)
			return bt_raise(v, X86_MF);
	} else {
		BT_TRY(check_vector(v, i));
	}
	/* FXSAVE: it is in every x86-64 CPU. */
	__asm__ volatile("fxsave64 %0" : "=m"(a) : : "memory");
	if (mmx) {
		/* ST(n) is physical register (TOP + n) mod 8; MMn is physical register n. */
		unsigned top = a.bytes[OFFSET_FSW + 1] >> 3 & 7;

		bt_copy(data, a.bytes + OFFSET_ST + 16 * ((i->reg - top) & 7), 8);
		bt_copy(mask, a.bytes + OFFSET_ST + 16 * ((i->rm - top) & 7), 8);
	} else {
		bt_copy(data, a.bytes + OFFSET_XMM + 16 * (i->reg & 15), 16);
		bt_copy(mask, a.bytes + OFFSET_XMM + 16 * (i->rm & 15), 16);
	}
	if (mmx) /* to MMX state, also when it faults: TOP 0, all registers valid */
		__asm__ volatile("movq %%mm0, %0" : "=r"(lin));
	/* Whether an address is looked at when no byte is stored is the CPU's choice: it is. */
	BT_TRY(bt_linear(v, i->seg, offset, len, BT_WRITE, &lin));
	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned n = 0; n < len; n++) {
			if (!(mask[n] & 0x80))
				continue;
			BT_TRY(bt_linear(v, i->seg, bt_truncate(offset + n, i->addrsize), 1,
					 BT_WRITE, &lin));
			if (pass == 0)
				BT_TRY(bt_probe(v, lin, 1, BT_WRITE));
			else
				BT_TRY(bt_store(v, lin, 1, BT_WRITE, data[n]));
		}
	return BT_NEXT;
}
