/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page-table walk: linear to guest-physical addresses by the guest's tables (SDM vol. 3, chapter 4), with the access
 * rights, the accessed and dirty bits, and the page-fault error code.
 *
 * A PTE as drawn in SDM vol. 3, figure 4-11 (bits): 0 P, 1 R/W, 2 U/S, 3 PWT, 4 PCD, 5 A, 6 D, 7 PS or PAT, 8 G,
 * 12… address, 63 XD.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/private.h"
#include "cpu/cpuid.h"

#define PTE_P (1ull << 0)
#define PTE_W (1ull << 1)
#define PTE_U (1ull << 2)
#define PTE_A (1ull << 5)
#define PTE_D (1ull << 6)
#define PTE_PS (1ull << 7)
#define PTE_G (1ull << 8)
#define PTE_XD (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull /* with the reserved bits above MAXPHYADDR, which are checked */

static uint64_t phys_mask(const struct bt_vcpu *v)
{
	return (1ull << v->cpuid->phys_bits) - 1;
}

struct walk {
	uint64_t entry[4], where[4]; /* the entries used, top first, and where they are */
	unsigned levels, size;	     /* number of entries; bytes an entry (4 or 8) */
	unsigned shift;		     /* log2 of the page's size */
	bool reserved;
};

static uint64_t read_entry(struct bt_vcpu *v, uint64_t gpa, unsigned size)
{
	struct memory *mem = v->engine->mem;
	const uint8_t *p = mem->ram_base + gpa;

	if (!mem_is_ram(mem, gpa)) /* nothing answers there */
		return size == 4 ? ~0u : ~0ull;
	return size == 4 ? __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED)
			 : __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
}

static bool large_reserved(uint64_t entry, unsigned shift)
{
	return entry & ((1ull << shift) - 1) & ~0x1fffull;
}

/* 8-byte entries: 4-level, or PAE (three levels, the first in pdpte[]). False: not present at w->levels. */
static bool walk_long(struct bt_vcpu *v, uint64_t lin, struct walk *w)
{
	bool long_mode = v->efer & X86_EFER_LMA;
	uint64_t reserved = ~phys_mask(v) & 0x000fffffffffffffull;
	uint64_t table = v->cr3 & PTE_ADDR;
	unsigned shift = long_mode ? 39 : 30;

	if (!long_mode) /* where 4-level paging ignores them (SDM vol. 3, 4.4.2) */
		reserved |= 0x7ff0000000000000ull;
	if (!(v->efer & X86_EFER_NXE))
		reserved |= PTE_XD;
	w->size = 8;
	for (;; shift -= 9) {
		unsigned n = w->levels;

		if (!long_mode && shift == 30) { /* loaded with CR3, and without rights */
			uint64_t e = v->pdpte[lin >> 30 & 3];

			if (!(e & PTE_P))
				return false;
			table = e & PTE_ADDR;
			continue;
		}
		w->where[n] = table + ((lin >> shift) & 511) * 8;
		w->entry[n] = read_entry(v, w->where[n], 8);
		w->levels++;
		uint64_t e = w->entry[n];

		if (!(e & PTE_P))
			return false;
		w->reserved |= (e & reserved) != 0;
		if (shift == 39 && (e & PTE_PS))
			w->reserved = true;
		if (shift > 12 && shift < 39 && (e & PTE_PS)) {
			w->reserved |= large_reserved(e, shift);
			break;
		}
		if (shift == 12 || w->reserved)
			break;
		table = e & PTE_ADDR;
	}
	w->shift = shift;
	return true;
}

static bool walk_legacy(struct bt_vcpu *v, uint64_t lin, struct walk *w)
{
	w->size = 4;
	w->where[0] = (v->cr3 & 0xfffff000ull) + ((lin >> 22) & 1023) * 4;
	w->entry[0] = read_entry(v, w->where[0], 4);
	w->levels = 1;
	if (!(w->entry[0] & PTE_P))
		return false;
	if ((w->entry[0] & PTE_PS) && (v->cr4 & X86_CR4_PSE)) {
		/* PSE-36: bits 13–20 are address bits 32–39, bit 21 is reserved. */
		uint64_t high = (w->entry[0] >> 13 & 0xff) << 32;

		w->reserved = (w->entry[0] & 1 << 21) || (high & ~phys_mask(v));
		w->entry[0] = (w->entry[0] & 0xffc01fffull) | high;
		w->shift = 22;
		return true;
	}
	w->where[1] = (w->entry[0] & 0xfffff000ull) + ((lin >> 12) & 1023) * 4;
	w->entry[1] = read_entry(v, w->where[1], 4);
	w->levels = 2;
	w->shift = 12;
	return w->entry[1] & PTE_P;
}

/* Sets @bits in the entry at @where if it has not changed since it was read. False: it has; walk again. */
static bool set_bits(struct bt_vcpu *v, uint64_t where, unsigned size, uint64_t old, uint64_t bits)
{
	struct bt_engine *e = v->engine;
	uint8_t *p = e->mem->ram_base + where;
	bool ok;

	if (!mem_is_ram(e->mem, where))
		return true;
	if (size == 4) {
		uint32_t now = __atomic_load_n((uint32_t *)p, __ATOMIC_RELAXED);

		if (!(now & PTE_P) || ((now ^ old) & 0xfffff006u & ~(1u << 21 | 0xffu << 13)))
			return false;
		ok = __atomic_compare_exchange_n((uint32_t *)p, &now, now | (uint32_t)bits, false,
						 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else {
		uint64_t now = __atomic_load_n((uint64_t *)p, __ATOMIC_RELAXED);

		if (!(now & PTE_P) || ((now ^ old) & PTE_ADDR))
			return false;
		ok = __atomic_compare_exchange_n((uint64_t *)p, &now, now | bits, false,
						 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	if (ok)
		dirty_mark(&e->dirty, where);
	if (ok && (e->page_state[ram_page_index(e, where)] & PAGE_CODE))
		cache_invalidate(e, where, size);
	return ok;
}

static enum bt_result page_fault(struct bt_vcpu *v, uint64_t lin, uint32_t code)
{
	v->exception = (struct bt_exception){.vector = X86_PF_VEC, .has_error = true, .error = code,
					     .cr2 = lin};
	return BT_FAULT;
}

static bool walk_tables(struct bt_vcpu *v, uint64_t lin, struct walk *w)
{
	*w = (struct walk){0};
	return v->cr4 & X86_CR4_PAE ? walk_long(v, lin, w) : walk_legacy(v, lin, w);
}

static void describe(const struct bt_vcpu *v, uint64_t lin, const struct walk *w,
		     struct tlb_page *out)
{
	uint64_t leaf = w->entry[w->levels - 1];
	uint64_t mask = (1ull << w->shift) - 1;

	*out = (struct tlb_page){.writable = true, .user = true};
	for (unsigned k = 0; k < w->levels; k++) {
		out->writable &= !!(w->entry[k] & PTE_W);
		out->user &= !!(w->entry[k] & PTE_U);
		out->nx |= !!(w->entry[k] & PTE_XD) && w->size == 8;
	}
	out->gpa = ((leaf & PTE_ADDR & ~mask) | (lin & mask)) & ~0xfffull;
	out->global = (leaf & PTE_G) && (v->cr4 & X86_CR4_PGE);
	out->dirty = leaf & PTE_D;
	out->large = w->shift > 12;
	out->large_1g = w->shift == 30;
}

/* SDM vol. 3, 4.6.1 */
static bool allowed(const struct bt_vcpu *v, const struct tlb_page *pg, unsigned access, bool user)
{
	bool write = access & BT_WRITE;

	if ((access & BT_ACCESS_MASK) == BT_FETCH)
		return !pg->nx && (user ? pg->user : !(pg->user && (v->cr4 & X86_CR4_SMEP)));
	if (user)
		return pg->user && (!write || pg->writable);
	if (pg->user && (v->cr4 & X86_CR4_SMAP) &&
	    ((access & BT_SYSTEM) || !(v->sysflags & X86_AC)))
		return false;
	return !write || pg->writable || !(v->cr0 & X86_CR0_WP);
}

enum bt_result tlb_walk(struct bt_vcpu *v, uint64_t lin, unsigned access, struct tlb_page *out)
{
	bool fetch = (access & BT_ACCESS_MASK) == BT_FETCH;
	bool write = !fetch && (access & BT_WRITE);
	bool user = (access & BT_AS_USER) || (v->cpl == 3 && !(access & BT_SYSTEM));
	uint32_t code = (write ? X86_PFEC_W : 0) | (user ? X86_PFEC_U : 0);
	struct walk w;

	if (!(v->cr0 & X86_CR0_PG)) {
		*out = (struct tlb_page){.gpa = lin & 0xfffff000ull, .writable = true, .user = true,
					 .global = true, .dirty = true};
		return BT_NEXT;
	}
	if (fetch && ((v->efer & X86_EFER_NXE) || (v->cr4 & X86_CR4_SMEP)) && (v->cr4 & X86_CR4_PAE))
		code |= X86_PFEC_I;
	else if (fetch && (v->cr4 & X86_CR4_SMEP))
		code |= X86_PFEC_I;
	for (;;) {
		bool present = walk_tables(v, lin, &w);
		bool again = false;

		if (w.reserved)
			return page_fault(v, lin, code | X86_PFEC_P | X86_PFEC_RSVD);
		if (!present)
			return page_fault(v, lin, code);
		describe(v, lin, &w, out);
		if (!allowed(v, out, access, user))
			return page_fault(v, lin, code | X86_PFEC_P);
		for (unsigned k = 0; k < w.levels && !again; k++) {
			bool leaf = k + 1 == w.levels;
			uint64_t want = PTE_A | (leaf && write ? PTE_D : 0);

			if ((w.entry[k] & want) != want)
				again = !set_bits(v, w.where[k], w.size, w.entry[k], want);
		}
		if (again)
			continue;
		out->dirty |= write;
		return BT_NEXT;
	}
}

bool tlb_walk_quiet(struct bt_vcpu *v, uint64_t lin, uint64_t *gpa)
{
	struct tlb_page pg;
	struct walk w;

	if (!(v->cr0 & X86_CR0_PG)) {
		*gpa = (uint32_t)lin;
		return true;
	}
	if (!walk_tables(v, lin, &w) || w.reserved)
		return false;
	describe(v, lin, &w, &pg);
	*gpa = pg.gpa | (lin & 0xfff);
	return true;
}

/* PAE paging's four top entries (SDM vol. 3, 4.4.1): read with CR3, #GP(0) if a present one has reserved bits. */
enum bt_result bt_tlb_load_pdptes(struct bt_vcpu *v, uint64_t cr3)
{
	uint64_t e[4], table = cr3 & 0xffffffe0ull;
	uint64_t reserved = (~phys_mask(v) & 0x000fffffffffffffull) | 0xfff00000000001e6ull;

	for (unsigned n = 0; n < 4; n++) {
		e[n] = read_entry(v, table + 8 * n, 8);
		if ((e[n] & PTE_P) && (e[n] & reserved))
			return bt_raise_error(v, X86_GP, 0);
	}
	for (unsigned n = 0; n < 4; n++)
		v->pdpte[n] = e[n];
	return BT_NEXT;
}
