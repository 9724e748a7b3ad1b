/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the selected mode means for translated code: v->mode (the block key), the copies of segment
 * bases, and the limits below which an access needs no look at its segment.
 *
 * Called after every change of segments, CPL, control registers, EFER, XCR0 and RFLAGS; it is on
 * the path of each system call and interrupt, so the common case (64-bit code) is short.
 */
#include "cpu/bt/ops.h"

enum { TYPE_CODE = 8, TYPE_EXPAND_DOWN = 4, TYPE_READ_WRITE = 2 };

/* Expand-up segments allow [0, limit]; others are always looked at (bt_linear). */
static void update_segcheck(struct bt_vcpu *v, unsigned seg, bool real)
{
	const struct x86_segment *s = &v->seg[seg];
	uint64_t read = 0, write = 0;

	if (s->attr & X86_ATTR_P) {
		uint64_t end = (uint64_t)s->limit + 1;

		if (real)
			read = write = end;
		else if (s->attr & TYPE_CODE)
			read = s->attr & TYPE_READ_WRITE ? end : 0;
		else if (!(s->attr & TYPE_EXPAND_DOWN)) {
			read = end;
			write = s->attr & TYPE_READ_WRITE ? end : 0;
		}
	}
	v->segcheck[seg].base = (uint32_t)s->base;
	v->segcheck[seg].read_limit = read;
	v->segcheck[seg].write_limit = write;
}

static void update_segments64(struct bt_vcpu *v)
{
	for (unsigned seg = 0; seg < X86_SEG_COUNT; seg++) {
		v->segcheck[seg].base = 0;
		v->segcheck[seg].read_limit = ~0ull;
		v->segcheck[seg].write_limit = ~0ull;
	}
	v->segcheck[X86_FS].base = v->seg[X86_FS].base;
	v->segcheck[X86_GS].base = v->seg[X86_GS].base;
	v->cs_base = 0;
}

static bool is_flat(const struct bt_vcpu *v, unsigned seg)
{
	return v->segcheck[seg].base == 0 && v->segcheck[seg].read_limit == 1ull << 32 &&
	       v->segcheck[seg].write_limit == 1ull << 32;
}

static uint32_t update_segments(struct bt_vcpu *v)
{
	bool real = !bt_protected(v) || bt_v86(v);
	const struct x86_segment *cs = &v->seg[X86_CS];
	uint32_t mode = cs->attr & X86_ATTR_DB ? MODE_CODE32 : MODE_CODE16;

	for (unsigned seg = 0; seg < X86_SEG_COUNT; seg++)
		update_segcheck(v, seg, real);
	v->cs_base = (uint32_t)cs->base;
	v->cs_limit = cs->limit;
	if (is_flat(v, X86_DS) && is_flat(v, X86_ES) && is_flat(v, X86_SS))
		mode |= MODE_FLAT_DATA;
	if (v->cs_base == 0 && cs->limit == 0xffffffff)
		mode |= MODE_FLAT_CODE;
	if (v->seg[X86_SS].attr & X86_ATTR_DB)
		mode |= MODE_STACK32;
	if (real)
		mode |= MODE_V86_REAL;
	return mode;
}

void bt_mode_update(struct bt_vcpu *v)
{
	uint32_t mode;

	v->fs_base = v->seg[X86_FS].base;
	v->gs_base = v->seg[X86_GS].base;
	if (bt_code64(v)) {
		update_segments64(v);
		mode = MODE_CODE64 | MODE_FLAT_DATA | MODE_FLAT_CODE;
	} else {
		mode = update_segments(v);
	}
	if (v->cpl == 3) {
		mode |= MODE_USER;
		if ((v->cr0 & X86_CR0_AM) && (v->sysflags & X86_AC))
			mode |= MODE_ALIGN;
	} else if (!(v->cr4 & X86_CR4_SMAP) || (v->sysflags & X86_AC)) {
		mode |= MODE_SMAP_OPEN;
	}
	if ((v->sysflags & X86_TF) || (v->dr[7] & 0xff) || v->debugger_steps)
		mode |= MODE_STEP;
	if (v->cr0 & X86_CR0_TS)
		mode |= MODE_TS;
	if (v->cr0 & X86_CR0_MP)
		mode |= MODE_MP;
	if (v->cr0 & X86_CR0_NE)
		mode |= MODE_NE;
	if (v->cr0 & X86_CR0_EM)
		mode |= MODE_EM;
	else if (v->cr4 & X86_CR4_OSFXSR)
		mode |= MODE_SSE;
	if ((v->cr4 & X86_CR4_OSXSAVE) && (v->xcr0 & X86_XCR0_AVX) && !(mode & MODE_V86_REAL)) {
		mode |= MODE_AVX;
		if ((v->xcr0 & X86_XCR0_AVX512) == X86_XCR0_AVX512)
			mode |= MODE_AVX512;
	}
	v->mode = mode;
}
