/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FXSAVE, FXRSTOR and the XSAVE family: SDM vol. 1, chapters 10.5 and 13; vol. 2 under their names.
 *
 * Theory of operation. The guest's state is in the host's registers here, since light code does not
 * touch it. Saving runs the host's XSAVE into a buffer on the stack, with the components of the
 * guest's XCR0 only, and copies to guest memory just the bytes that the instruction writes.
 * Restoring checks the guest's image as the manual says, fills in what it does not load from the
 * present state, and runs the host's XRSTOR.
 *
 * Outside of 64-bit mode only registers 0–7 of each bank exist.
 *
 * x87 instruction and data pointers: the host's are addresses of translated code and of its view of
 * guest RAM. They must not leak and mean nothing to the guest, so images have 0 there (CPUID tells
 * the guest that FCS and FDS are deprecated), and what an image has there is not loaded.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/cpuid.h"

enum {
	LEGACY_SIZE = 512,
	HEADER_SIZE = 64,
	AREA_SIZE = LEGACY_SIZE + HEADER_SIZE,
	OFFSET_POINTERS = 8,
	OFFSET_MXCSR = 24,
	OFFSET_ST = 32,
	OFFSET_XMM = 160,
	FXSAVE_USED = 416,
	OFFSET_XSTATE_BV = 512,
	OFFSET_XCOMP_BV = 520,
	HI16_ZMM = 7, /* component of ZMM16–31 */
};
#define COMPACTED (1ull << 63)
#define X87 ((uint64_t)X86_XCR0_X87)
#define SSE ((uint64_t)X86_XCR0_SSE)
#define AVX ((uint64_t)X86_XCR0_AVX)

static uint64_t get64(const uint8_t *p)
{
	uint64_t value;

	__builtin_memcpy(&value, p, 8);
	return value;
}

static void put64(uint8_t *p, uint64_t value)
{
	__builtin_memcpy(p, &value, 8);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t value;

	__builtin_memcpy(&value, p, 4);
	return value;
}

static void put32(uint8_t *p, uint32_t value)
{
	__builtin_memcpy(p, &value, 4);
}

void bt_xarea_save(struct bt_xarea *a, uint64_t mask)
{
	bt_zero(a->bytes, AREA_SIZE);
	__asm__ volatile("xsave64 %0"
			 : "+m"(*a)
			 : "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))
			 : "memory");
	bt_zero(a->bytes + OFFSET_POINTERS, 16);
}

void bt_xarea_restore(const struct bt_xarea *a, uint64_t mask)
{
	__asm__ volatile("xrstor64 %0"
			 :
			 : "m"(*a), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))
			 : "memory");
}

static void host_fxsave(struct bt_xarea *a)
{
	__asm__ volatile("fxsave64 %0" : "+m"(*a) : : "memory");
	bt_zero(a->bytes + OFFSET_POINTERS, 16);
}

/* Does the host (and so the guest) have XSAVE? */
static bool has_xsave(const struct bt_vcpu *v)
{
	return v->cpuid->xcr0 != 0;
}

/* The part of component @n (2 and up) that exists in this mode. */
static uint32_t component_used(const struct bt_vcpu *v, unsigned n)
{
	uint32_t size = v->cpuid->xsave[n].size;

	if (bt_code64(v))
		return size;
	if (n == HI16_ZMM)
		return 0;
	return n == 2 || n == 6 ? size / 2
				: size; /* YMM and ZMM upper halves of 8 of 16 registers */
}

static uint32_t xmm_bytes(const struct bt_vcpu *v)
{
	return bt_code64(v) ? 256 : 128;
}

/* Checks common to all. @align: #GP(0) when the operand is not aligned to it. */
static enum bt_result check_operand(struct bt_vcpu *v, const struct insn *i, unsigned len,
				    unsigned align, unsigned access, uint64_t *lin)
{
	BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), len, access, lin));
	if (*lin & (align - 1))
		return bt_raise_error(v, X86_GP, 0);
	return BT_NEXT;
}

/* FXSAVE, FXRSTOR ------------------------------------------------------------------------------ */

static enum bt_result check_fx(struct bt_vcpu *v)
{
	if (v->cr0 & (X86_CR0_EM | X86_CR0_TS))
		return bt_raise(v, X86_NM);
	return BT_NEXT;
}

/* XMM registers and MXCSR are part of the image only with CR4.OSFXSR. */
static bool with_sse(const struct bt_vcpu *v)
{
	return v->cr4 & X86_CR4_OSFXSR;
}

enum bt_result bt_op_fxsave(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_xarea a;
	uint64_t lin;

	BT_TRY(check_fx(v));
	BT_TRY(check_operand(v, i, LEGACY_SIZE, 16, BT_WRITE, &lin));
	BT_TRY(bt_probe(v, lin, LEGACY_SIZE, BT_WRITE));
	host_fxsave(&a);
	BT_TRY(bt_store_bytes(v, lin, a.bytes, OFFSET_MXCSR, BT_WRITE));
	if (with_sse(v))
		BT_TRY(bt_store_bytes(v, lin + OFFSET_MXCSR, a.bytes + OFFSET_MXCSR, 8, BT_WRITE));
	BT_TRY(bt_store_bytes(v, lin + OFFSET_ST, a.bytes + OFFSET_ST, OFFSET_XMM - OFFSET_ST,
			      BT_WRITE));
	if (with_sse(v))
		BT_TRY(bt_store_bytes(v, lin + OFFSET_XMM, a.bytes + OFFSET_XMM, xmm_bytes(v),
				      BT_WRITE));
	return BT_NEXT;
}

/* Bits that MXCSR has on this host (SDM vol. 1, 11.6.6). @a: as saved by FXSAVE or XSAVE. */
static uint32_t mxcsr_mask(const struct bt_xarea *a)
{
	uint32_t mask = get32(a->bytes + OFFSET_MXCSR + 4);

	return mask ? mask : 0xffbf;
}

enum bt_result bt_op_fxrstor(struct bt_vcpu *v, const struct insn *i)
{
	struct bt_xarea a, image;
	uint64_t lin;

	BT_TRY(check_fx(v));
	BT_TRY(check_operand(v, i, LEGACY_SIZE, 16, BT_READ, &lin));
	BT_TRY(bt_load_bytes(v, lin, image.bytes, LEGACY_SIZE, BT_READ));
	host_fxsave(&a);
	if (with_sse(v)) {
		uint32_t mxcsr = get32(image.bytes + OFFSET_MXCSR);

		if (mxcsr & ~mxcsr_mask(&a))
			return bt_raise_error(v, X86_GP, 0);
		put32(a.bytes + OFFSET_MXCSR, mxcsr);
		bt_copy(a.bytes + OFFSET_XMM, image.bytes + OFFSET_XMM, xmm_bytes(v));
	}
	bt_copy(a.bytes, image.bytes, OFFSET_POINTERS);
	bt_copy(a.bytes + OFFSET_ST, image.bytes + OFFSET_ST, OFFSET_XMM - OFFSET_ST);
	__asm__ volatile("fxrstor64 %0" : : "m"(a) : "memory");
	return BT_NEXT;
}

/* XSAVE, XSAVEOPT, XSAVEC ---------------------------------------------------------------------- */

enum save_kind { SAVE_PLAIN, SAVE_OPT, SAVE_COMPACT };

static uint64_t requested(const struct bt_vcpu *v)
{
	return v->xcr0 & (BT_REG(v, X86_RDX) << 32 | (uint32_t)BT_REG(v, X86_RAX));
}

static enum bt_result check_x(struct bt_vcpu *v)
{
	if (!(v->cr4 & X86_CR4_OSXSAVE) || !has_xsave(v))
		return bt_raise(v, X86_UD);
	if (v->cr0 & X86_CR0_TS)
		return bt_raise(v, X86_NM);
	return BT_NEXT;
}

/* Where component @n is in an area of the components @in. */
static uint32_t component_offset(const struct bt_vcpu *v, unsigned n, bool compacted, uint64_t in)
{
	uint32_t offset = AREA_SIZE;

	if (!compacted)
		return v->cpuid->xsave[n].offset;
	for (unsigned k = 2; k <= n; k++) {
		if (!(in >> k & 1))
			continue;
		if (v->cpuid->xsave[k].aligned)
			offset = (offset + 63) & ~63u;
		if (k < n)
			offset += v->cpuid->xsave[k].size;
	}
	return offset;
}

static enum bt_result save(struct bt_vcpu *v, const struct insn *i, enum save_kind kind)
{
	bool compact = kind == SAVE_COMPACT;
	uint64_t rfbm, lin, old_bv = 0, inuse, write, mxcsr_for;
	struct bt_xarea a;
	uint32_t size;

	BT_TRY(check_x(v));
	rfbm = requested(v);
	size = cpuid_xsave_size(v->cpuid, rfbm, compact);
	BT_TRY(check_operand(v, i, size, 64, BT_WRITE, &lin));
	if (!compact)
		BT_TRY(bt_load(v, lin + OFFSET_XSTATE_BV, 8, BT_READ, &old_bv));
	bt_xarea_save(&a, rfbm);
	inuse = get64(a.bytes + OFFSET_XSTATE_BV) & rfbm;
	/* MXCSR outside of its initial state counts as SSE in use for XSAVEC (vol. 1, 13.10). */
	if (compact && (rfbm & SSE) && get32(a.bytes + OFFSET_MXCSR) != 0x1f80)
		inuse |= SSE;
	write = kind == SAVE_PLAIN ? rfbm : inuse;
	mxcsr_for = compact ? SSE : SSE | AVX;
	if (write & X87) {
		BT_TRY(bt_store_bytes(v, lin, a.bytes, OFFSET_MXCSR, BT_WRITE));
		BT_TRY(bt_store_bytes(v, lin + OFFSET_ST, a.bytes + OFFSET_ST,
				      OFFSET_XMM - OFFSET_ST, BT_WRITE));
	}
	if ((compact ? write : rfbm) & mxcsr_for)
		BT_TRY(bt_store_bytes(v, lin + OFFSET_MXCSR, a.bytes + OFFSET_MXCSR, 8, BT_WRITE));
	if (write & SSE)
		BT_TRY(bt_store_bytes(v, lin + OFFSET_XMM, a.bytes + OFFSET_XMM, xmm_bytes(v),
				      BT_WRITE));
	for (unsigned n = 2; n < CPUID_XSAVE_COMPONENTS; n++) {
		uint32_t used = component_used(v, n);

		if ((write >> n & 1) && used)
			BT_TRY(bt_store_bytes(v, lin + component_offset(v, n, compact, rfbm),
					      a.bytes + v->cpuid->xsave[n].offset, used, BT_WRITE));
	}
	BT_TRY(bt_store(v, lin + OFFSET_XSTATE_BV, 8, BT_WRITE, (old_bv & ~rfbm) | inuse));
	if (compact)
		BT_TRY(bt_store(v, lin + OFFSET_XCOMP_BV, 8, BT_WRITE, rfbm | COMPACTED));
	return BT_NEXT;
}

enum bt_result bt_op_xsave(struct bt_vcpu *v, const struct insn *i)
{
	return save(v, i, SAVE_PLAIN);
}

enum bt_result bt_op_xsaveopt(struct bt_vcpu *v, const struct insn *i)
{
	return save(v, i, SAVE_OPT);
}

enum bt_result bt_op_xsavec(struct bt_vcpu *v, const struct insn *i)
{
	return save(v, i, SAVE_COMPACT);
}

/* XRSTOR --------------------------------------------------------------------------------------- */

/* Vol. 1, 13.8.1 and 13.8.2: what makes a header invalid. */
static bool good_header(const struct bt_vcpu *v, const uint8_t *header, bool *compacted)
{
	uint64_t bv = get64(header), comp = get64(header + 8);
	uint64_t rest = 0;
	unsigned from = 16;

	*compacted = comp & COMPACTED;
	if (*compacted) {
		if (!(cpuid_guest(v->cpuid, 0xd, 1).eax & 2))
			return false;
		if ((comp & ~COMPACTED & ~v->xcr0) || (bv & ~comp) || (bv & COMPACTED))
			return false;
	} else {
		if ((bv & ~v->xcr0) || comp)
			return false;
		/*
		 * "bytes 23:8 of the header are all 0": the others are ignored in the standard
		 * form.
		 */
		return get64(header + 16) == 0;
	}
	for (; from < HEADER_SIZE; from += 8)
		rest |= get64(header + from);
	return rest == 0;
}

/* In the present state @a, replaces or resets x87, MXCSR and XMM as XRSTOR would. */
static enum bt_result merge_legacy(struct bt_vcpu *v, struct bt_xarea *a, const uint8_t *image,
				   uint64_t rfbm, uint64_t bv, bool compacted)
{
	uint32_t mxcsr = get32(image + OFFSET_MXCSR);

	if ((rfbm & X87) && (bv & X87)) {
		bt_copy(a->bytes, image, OFFSET_POINTERS);
		bt_copy(a->bytes + OFFSET_ST, image + OFFSET_ST, OFFSET_XMM - OFFSET_ST);
	}
	/*
	 * Standard form: MXCSR is loaded, and checked, when RFBM has SSE or AVX, whatever XSTATE_BV
	 * says; compacted form: it goes with SSE, and is reset with it (vol. 1, 13.8).
	 */
	if (compacted ? (rfbm & bv & SSE) != 0 : (rfbm & (SSE | AVX)) != 0) {
		if (mxcsr & ~mxcsr_mask(a))
			return bt_raise_error(v, X86_GP, 0);
		put32(a->bytes + OFFSET_MXCSR, mxcsr);
	} else if (compacted && (rfbm & SSE)) {
		put32(a->bytes + OFFSET_MXCSR, 0x1f80);
	}
	if (rfbm & SSE) {
		if (bv & SSE)
			bt_copy(a->bytes + OFFSET_XMM, image + OFFSET_XMM, xmm_bytes(v));
		else
			bt_zero(a->bytes + OFFSET_XMM, xmm_bytes(v));
	}
	return BT_NEXT;
}

enum bt_result bt_op_xrstor(struct bt_vcpu *v, const struct insn *i)
{
	uint8_t image[AREA_SIZE];
	uint64_t rfbm, lin, bv, in, mask, in_use;
	bool compacted;
	struct bt_xarea a;

	BT_TRY(check_x(v));
	rfbm = requested(v);
	BT_TRY(check_operand(v, i, AREA_SIZE, 64, BT_READ, &lin));
	BT_TRY(bt_load_bytes(v, lin, image, AREA_SIZE, BT_READ));
	if (!good_header(v, image + OFFSET_XSTATE_BV, &compacted))
		return bt_raise_error(v, X86_GP, 0);
	bv = get64(image + OFFSET_XSTATE_BV);
	in = get64(image + OFFSET_XCOMP_BV);
	/* The present state, whole: registers 8–15 stay outside of 64-bit mode, MXCSR may. */
	mask = rfbm | SSE;
	bt_xarea_save(&a, mask);
	BT_TRY(merge_legacy(v, &a, image, rfbm, bv, compacted));
	in_use = (get64(a.bytes + OFFSET_XSTATE_BV) & ~X87) | (bv & X87) | SSE;
	if ((rfbm & ~bv & SSE) && bt_code64(v))
		in_use &= ~SSE;
	for (unsigned n = 2; n < CPUID_XSAVE_COMPONENTS; n++) {
		uint32_t used = component_used(v, n);
		uint8_t *to = a.bytes + v->cpuid->xsave[n].offset;
		uint64_t bit = 1ull << n;

		if (!(rfbm & bit) || !used)
			continue;
		if (bv & bit) {
			BT_TRY(bt_load_bytes(v, lin + component_offset(v, n, compacted, in), to,
					     used, BT_READ));
			/* The part that does not exist in this mode is as the host saved it. */
			in_use |= bit;
		} else {
			bt_zero(to, used);
			if (used == v->cpuid->xsave[n].size)
				in_use &= ~bit;
		}
	}
	put64(a.bytes + OFFSET_XSTATE_BV, in_use);
	put64(a.bytes + OFFSET_XCOMP_BV, 0);
	bt_xarea_restore(&a, mask);
	return BT_NEXT;
}
