/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit paging: legacy (4K pages, 4M with PSE, PSE-36) and PAE (4K, 2M). Every combination of permission bits in directory
 * and page against every access from both privileges with and without WP, SMEP, SMAP and AC (SDM vol. 3, 4.6.1), error codes
 * (4.7), A and D (4.8), reserved bits (4.3, 4.4.2), the four PDPTEs (4.4.1), and what invalidates translations (4.10).
 */
#include "lib/rights.h"

enum { CR4_PSE = 1 << 4, CR4_PAE = 1 << 5, CR4_PGE = 1 << 7, CR4_SMEP = 1 << 20, CR4_SMAP = 1 << 21, FLAG_AC = 1 << 18 };
#define CR0_WP (1u << 16)
#define CR0_CD (1u << 30)
#define CR0_PG (1u << 31)
#define EFER 0xc0000080
#define NONE ((uint64_t)-1)
#define RW (PTE_P | PTE_W)

/* The first GiB is mapped to itself for the supervisor, again for user mode, and then there is room for tests. */
#define WINDOW 0x40000000u
#define TEST 0x80000000u

static bool pae;
static uint32_t *pd32;
static uint64_t *pdpt, *pd64; /* four directories in a row */
static void *pt;	      /* of TEST */
static word cr0_on, cr4_on, cr3_on;

CODE(user_read, "mov 32(%eax), %cl\n int $0x80");
CODE(user_write, "movb $1, 32(%eax)\n int $0x80");

static uint64_t entry_get(bool dir, word va)
{
	if (pae)
		return dir ? pd64[va >> 21] : ((uint64_t *)pt)[va >> 12 & 511];
	return dir ? pd32[va >> 22] : ((uint32_t *)pt)[va >> 12 & 1023];
}

static void entry_put(bool dir, word va, uint64_t v)
{
	if (pae)
		*(dir ? &pd64[va >> 21] : &((uint64_t *)pt)[va >> 12 & 511]) = v;
	else
		*(dir ? &pd32[va >> 22] : &((uint32_t *)pt)[va >> 12 & 1023]) = (uint32_t)v;
	__asm__ volatile("" ::: "memory");
}

static void paging_off(void)
{
	write_cr0(read_cr0() & ~(word)CR0_PG);
}

static void paging_on(bool with_pae)
{
	paging_off();
	pae = with_pae;
	if (pae) {
		for (unsigned n = 0; n < 512; n++) {
			pd64[n] = (uint64_t)n << 21 | RW | PTE_PS;
			pd64[512 + n] = (uint64_t)n << 21 | RW | PTE_U | PTE_PS;
		}
		for (unsigned n = 0; n < 4; n++)
			pdpt[n] = ((word)pd64 + n * 4096) | PTE_P;
	} else {
		for (unsigned n = 0; n < 256; n++) {
			pd32[n] = n << 22 | RW | PTE_PS;
			pd32[256 + n] = n << 22 | RW | PTE_U | PTE_PS;
		}
	}
	memset(pt, 0, 4096);
	entry_put(true, TEST, (word)pt | RW | PTE_U);
	cr3_on = pae ? (word)pdpt : (word)pd32;
	write_cr4(cr4_on = (read_cr4() & ~(word)(CR4_PAE | CR4_PSE | CR4_PGE)) | (pae ? CR4_PAE : CR4_PSE));
	write_cr3(cr3_on);
	write_cr0(cr0_on = read_cr0() | CR0_PG | CR0_WP);
}

static int access(word va, int kind, bool user)
{
	if (user) {
		int v = user_run(kind == READ ? WINDOW + (word)user_read : kind == WRITE ? WINDOW + (word)user_write : va + 16, va, 0);

		return v == 0x80 ? -1 : v;
	}
	if (kind == READ)
		return TRY("movb 32(%0), %%al", (), ("r"(va)), "eax");
	if (kind == WRITE)
		return TRY("movb $1, 32(%0)", (), ("r"(va)));
	return TRY("mov $98f, %%edx; jmp *%0; 98:", (), ("r"(va)), "edx");
}

static uint64_t rights(unsigned bits)
{
	return (bits & 1 ? PTE_U : 0) | (bits & 2 ? PTE_W : 0) | (bits & 4 ? PTE_NX : 0);
}

/* @large: the directory's entry maps the page, and there is no second level. */
static void permissions(bool large, word pa, const char *what)
{
	word va = TEST;
	unsigned each = pae ? 8 : 4;

	fill_code(pa);
	for (unsigned mode = 0; mode < 16; mode++) {
		bool wp = mode & 1, smep = mode & 2, smap = mode & 4, ac = mode & 8;
		unsigned wrong = 0, wrong_ad = 0, wrong_error = 0, runs = 0;

		write_cr0(wp ? cr0_on : cr0_on & ~(word)CR0_WP);
		write_cr4(cr4_on | (smep ? CR4_SMEP : 0) | (smap ? CR4_SMAP : 0));
		for (unsigned bits = 0; bits < (large ? each : each * each); bits++) {
			unsigned page = bits % each, dir = large ? 7 & ~4u : bits / each, both = (page & dir & 3) | ((page | dir) & 4);

			for (unsigned n = 0; n < KINDS * 2; n++) {
				int kind = (int)n % KINDS, v;
				bool user = n >= KINDS, good;
				uint64_t leaf, upper, want;

				if (large) {
					entry_put(true, va, pa | PTE_P | PTE_PS | rights(page));
				} else {
					entry_put(false, va, pa | PTE_P | rights(page));
					entry_put(true, va, (word)pt | PTE_P | rights(dir));
				}
				invlpg(va);
				write_flags(ac ? 2 | FLAG_AC : 2);
				v = access(va, kind, user);
				write_flags(2);
				leaf = entry_get(large, va);
				upper = entry_get(true, va);
				good = allowed(kind, user, both & 1, both & 2, both & 4, wp, smep, smap, ac);
				runs++;
				if (v != (good ? -1 : PF)) {
					if (!wrong++)
						print("# page %u, directory %u: %s %d gives %d\n", page, dir, user ? "user" : "supervisor", kind, v);
					continue;
				}
				if (good ? !(leaf & PTE_A) || !(upper & PTE_A) || !(leaf & PTE_D) != (kind != WRITE)
					 : (leaf & PTE_D) != 0)
					wrong_ad++;
				if (!large && upper & PTE_D)
					wrong_ad++;
				if (good)
					continue;
				want = 1 | (kind == WRITE ? 2 : 0) | (user ? 4 : 0) | (kind == FETCH && (pae || smep) ? 16 : 0);
				if (exc.error != want || exc.cr2 != va + (kind == FETCH ? user ? 16 : 0 : 32))
					wrong_error++;
			}
		}
		ok(!wrong && !wrong_ad && !wrong_error,
		   "%s, WP %d SMEP %d SMAP %d AC %d: %u accesses (wrong: %u, A/D %u, error codes or CR2 %u)", what, wp, smep, smap, ac,
		   runs, wrong, wrong_ad, wrong_error);
	}
	write_cr0(cr0_on);
	write_cr4(cr4_on);
	entry_put(true, va, (word)pt | RW | PTE_U);
	entry_put(false, va, pa | RW | PTE_U);
	invlpg(va);
}

static void reserved(bool dir, unsigned bit, bool is_reserved, const char *what)
{
	uint64_t was = entry_get(dir, TEST);
	int v;

	entry_put(dir, TEST, was | 1ull << bit);
	invlpg(TEST);
	v = access(TEST, READ, false);
	if (is_reserved)
		ok(v == PF && exc.error == 9, "%s: bit %u is reserved: #PF, error code 9 (%d, 0x%lx)", what, bit, v, exc.error);
	else
		ok(v == -1, "%s: bit %u is not reserved (%d, 0x%lx)", what, bit, v, exc.error);
	if (is_reserved) {
		access(TEST, WRITE, true);
		ok(exc.vector == PF && exc.error == 15, "%s: bit %u, a user's write: error code 15 (0x%lx)", what, bit, exc.error);
		entry_put(dir, TEST, (was | 1ull << bit) & ~1ull);
		invlpg(TEST);
		access(TEST, READ, false);
		ok(exc.vector == PF && exc.error == 0, "%s: bit %u, not present: error code 0 (0x%lx)", what, bit, exc.error);
	}
	entry_put(dir, TEST, was);
	invlpg(TEST);
}

static void legacy_large(uint32_t *a)
{
	word pa = (word)a;

	entry_put(true, TEST, pa | RW | PTE_U | PTE_PS);
	invlpg(TEST);
	a[8] = 0x1234;
	is(MMIO32(TEST + 32), 0x1234, "a 4M page");
	is(MMIO32(TEST + 0x3ff000 + 32), a[0x3ff000 / 4 + 8], "its last 4K");
	reserved(true, 21, true, "a 4M page");
	reserved(true, 12, false, "a 4M page (PAT)");
	if (cpuid(1, 0).d >> 17 & 1) {
		entry_put(true, TEST, pa | RW | PTE_PS | 1 << 13);
		invlpg(TEST);
		is(MMIO32(TEST + 32), 0xffffffff, "PSE-36: bit 13 is address bit 32, where there is nothing");
	}
	/* Without CR4.PSE bit 7 says nothing. */
	paging_off();
	write_cr4(read_cr4() & ~(word)CR4_PSE);
	uint32_t *small = page_alloc(), *tables = pages_alloc(64, 4096);

	for (unsigned n = 0; n < 64 * 1024; n++) /* 256 MiB by themselves, in 4K pages */
		tables[n] = n << 12 | RW | PTE_G;
	for (unsigned n = 0; n < 64; n++)
		small[n] = ((word)tables + n * 4096) | RW | (n & 1 ? PTE_PS : 0);
	small[TEST >> 22] = (word)pt | RW | PTE_PS;
	((uint32_t *)pt)[0] = pa | RW | PTE_PS;
	write_cr3((word)small);
	write_cr0(read_cr0() | CR0_PG);
	is(MMIO32(TEST + 32), 0x1234, "without CR4.PSE, bit 7 of a directory entry is ignored; in a page's it is PAT");
	paging_off();
}

/* An entry changes; what has been cached of it goes when it must. */
static void invalidation(bool large, word a, word b, const char *what)
{
	uint64_t flags = RW | (large ? PTE_PS : 0);
	word cr4 = read_cr4();

	MMIO32(a + 64) = 1;
	MMIO32(b + 64) = 2;
	entry_put(true, TEST, large ? a | flags : (word)pt | RW | PTE_U);
	if (!large)
		entry_put(false, TEST, a | flags);
	invlpg(TEST);
	is(MMIO32(TEST + 64), 1, "%s: the page", what);
	entry_put(large, TEST, b | flags);
	invlpg(TEST + (large ? 0x1ff000 : 0xfff));
	is(MMIO32(TEST + 64), 2, "%s: INVLPG anywhere in it forgets it", what);
	entry_put(large, TEST, a | flags);
	write_cr3(cr3_on);
	is(MMIO32(TEST + 64), 1, "%s: MOV CR3 too", what);
	write_cr4(cr4 | CR4_PGE);
	entry_put(large, TEST, a | flags | PTE_G);
	invlpg(TEST);
	is(MMIO32(TEST + 64), 1, "%s: global", what);
	entry_put(large, TEST, b | flags | PTE_G);
	write_cr4(cr4);
	is(MMIO32(TEST + 64), 2, "%s: clearing CR4.PGE forgets it", what);
	entry_put(large, TEST, 0);
	invlpg(TEST);
	is((uint64_t)access(TEST, READ, false), PF, "%s: not present", what);
	is(exc.error, 0, "%s: error code 0", what);
	entry_put(large, TEST, a | flags);
	is(MMIO32(TEST + 64), 1, "%s: what is not present is not cached", what);
	entry_put(large, TEST, (a | flags) & ~(uint64_t)PTE_W);
	invlpg(TEST);
	is((uint64_t)access(TEST, WRITE, false), PF, "%s: read-only", what);
	entry_put(large, TEST, a | flags);
	is((uint64_t)access(TEST, WRITE, false), NONE, "%s: more rights need no INVLPG after a fault", what);
}

/* An access that lies in two pages: both must allow it before anything is written. */
static void straddle(word a, word b)
{
	uint32_t before = 0x55555555;

	entry_put(true, TEST, (word)pt | RW | PTE_U);
	entry_put(false, TEST, a | RW);
	entry_put(false, TEST + 4096, b | PTE_P);
	invlpg(TEST);
	invlpg(TEST + 4096);
	memcpy((void *)(a + 4094), &before, 2);
	memcpy((void *)b, &before, 2);
	is((uint64_t)TRY("movl $0, (%0)", (), ("r"(TEST + 4094))), PF, "a write into a read-only second page");
	ok(exc.cr2 == TEST + 4096 && exc.error == 3, "CR2 is that page, error code 3 (0x%lx, 0x%lx)", exc.cr2, exc.error);
	is(*(uint16_t *)(a + 4094), 0x5555, "the first has not been written");
	TRY("movl (%0), %%eax", (), ("r"(TEST + 4094)), "eax");
	is((uint64_t)exc.vector, NONE, "reading both");
	/* The top of the address space wraps to its bottom. */
	word top = 0xfffff000;
	void *last = page_alloc(), *top_pt = page_alloc();

	entry_put(true, top, (word)top_pt | RW);
	if (pae)
		((uint64_t *)top_pt)[511] = (word)last | RW;
	else
		((uint32_t *)top_pt)[1023] = (word)last | RW;
	invlpg(top);
	*(uint32_t *)((word)last + 4092) = 0xabcd1234;
	is(MMIO32(0xfffffffc), 0xabcd1234, "the last doubleword of 4 GiB");
}

static int load_cr3(word v)
{
	return TRY("mov %0, %%cr3", (), ("r"(v)));
}

static void pdptes(word a)
{
	static const uint8_t bits[] = { 1, 2, 5, 6, 7, 8, 52, 62, 63 };
	uint64_t good = pdpt[2], *low = (uint64_t *)((word)page_alloc() + 0x7e0);
	unsigned phys = cpuid(0x80000008, 0).a & 0xff;

	entry_put(true, TEST, (word)pt | RW | PTE_U);
	entry_put(false, TEST, a | RW | PTE_U);
	MMIO32(a + 64) = 0x77;
	write_cr3(cr3_on);
	is(MMIO32(TEST + 64), 0x77, "through PDPTE 2");
	is((uint64_t)access(TEST, WRITE, true), NONE, "which says nothing about rights");
	is(pdpt[2], good, "and gets no A bit");
	pdpt[2] = 0;
	invlpg(TEST);
	is(MMIO32(TEST + 64), 0x77, "PDPTEs are registers: neither a write to memory nor INVLPG changes them");
	write_cr3(cr3_on);
	is((uint64_t)access(TEST, READ, false), PF, "MOV CR3 loads them");
	ok(exc.error == 0 && exc.cr2 == TEST + 32, "not present: error code 0");
	access(TEST, FETCH, true);
	is(exc.error, 0x14, "a user's fetch: 14h");
	pdpt[2] = good;
	is((uint64_t)access(TEST, READ, false), PF, "not present until they are loaded");
	write_cr0(cr0_on | CR0_CD);
	is(MMIO32(TEST + 64), 0x77, "MOV CR0 that changes CD loads them");
	pdpt[2] = 0;
	write_cr0(cr0_on);
	invlpg(TEST);
	is((uint64_t)access(TEST, READ, false), PF, "and again");
	pdpt[2] = good;
	write_cr4(cr4_on | CR4_PGE);
	is(MMIO32(TEST + 64), 0x77, "MOV CR4 that changes PGE loads them");
	write_cr4(cr4_on);
	for (unsigned n = 0; n < sizeof(bits); n++) {
		pdpt[3] = ((word)pd64 + 3 * 4096) | PTE_P | 1ull << bits[n];
		ok(load_cr3(cr3_on) == GP && exc.error == 0, "PDPTE with bit %u: MOV CR3 is #GP(0)", bits[n]);
		pdpt[3] &= ~1ull;
		is((uint64_t)load_cr3(cr3_on), NONE, "but not if it is not present");
	}
	pdpt[3] = ((word)pd64 + 3 * 4096) | PTE_P | 1ull << phys;
	is((uint64_t)load_cr3(cr3_on), GP, "an address beyond MAXPHYADDR (%u)", phys);
	memcpy(low, pdpt, 32);
	is((uint64_t)load_cr3((word)low), GP, "another table as bad");
	is(read_cr3(), cr3_on, "CR3 is as it was");
	is(MMIO32(TEST + 64), 0x77, "and so are the PDPTEs");
	ok(TRY("mov %0, %%cr4", (), ("r"(cr4_on | CR4_PGE))) == GP && exc.error == 0, "MOV CR4 with a bad PDPTE: #GP(0)");
	is(read_cr4(), cr4_on, "CR4 is as it was");
	ok(TRY("mov %0, %%cr0", (), ("r"(cr0_on | CR0_CD))) == GP && exc.error == 0, "MOV CR0 with a bad PDPTE: #GP(0)");
	is(read_cr0(), cr0_on, "CR0 is as it was");
	pdpt[3] &= ~(1ull << phys);
	memcpy(low, pdpt, 32);
	is((uint64_t)load_cr3((word)low | 0x18), NONE, "a table at a multiple of 32; PCD and PWT are no part of its address");
	is(MMIO32(TEST + 64), 0x77, "is used");
	write_cr3(cr3_on);
	pdpt[3] |= 9 << 9;
	is((uint64_t)load_cr3(cr3_on), NONE, "bits 9 to 11 are ignored");
}

static void pae_reserved(word two_m)
{
	unsigned phys = cpuid(0x80000008, 0).a & 0xff;
	uint64_t efer = rdmsr(EFER);

	entry_put(true, TEST, (word)pt | RW | PTE_U);
	entry_put(false, TEST, two_m | RW | PTE_U);
	for (unsigned dir = 0; dir < 2; dir++) {
		const char *what = dir ? "a PAE directory entry" : "a PAE page";

		reserved(dir, phys, true, what);
		reserved(dir, 51, true, what);
		reserved(dir, 52, true, what);
		reserved(dir, 62, true, what);
		reserved(dir, 63, false, what);
		reserved(dir, 9, false, what);
		wrmsr(EFER, efer & ~0x800ull);
		reserved(dir, 63, true, dir ? "a directory entry without NXE" : "a page without NXE");
		wrmsr(EFER, efer);
	}
	wrmsr(EFER, efer & ~0x800ull);
	entry_put(false, TEST, 0);
	invlpg(TEST);
	access(TEST, FETCH, true);
	is(exc.error, 4, "a user's fetch without NXE and SMEP: no I/D bit");
	wrmsr(EFER, efer);
	access(TEST, FETCH, true);
	is(exc.error, 0x14, "with NXE there is one");
	entry_put(true, TEST, two_m | RW | PTE_U | PTE_PS);
	invlpg(TEST);
	reserved(true, 13, true, "a 2M page");
	reserved(true, 20, true, "a 2M page");
	reserved(true, 12, false, "a 2M page (PAT)");
	reserved(true, phys, true, "a 2M page");
	reserved(true, 62, true, "a 2M page");
	entry_put(true, TEST, (word)pt | RW | PTE_U);
	invlpg(TEST);
}

void main(void)
{
	word four_m, small;

	pd32 = page_alloc();
	pdpt = page_alloc();
	pd64 = pages_alloc(4, 4096);
	pt = page_alloc();
	small = (word)page_alloc();
	four_m = (word)pages_alloc(2048, 0x400000);
	user_sp += WINDOW;

	is((uint64_t)TRY("mov %0, %%cr0", (), ("r"(CR0_PG | 0x10))), GP, "CR0.PG without PE: #GP");
	paging_on(false);
	permissions(false, small, "legacy 4K");
	permissions(true, four_m, "legacy 4M");
	invalidation(false, small, four_m, "legacy 4K");
	invalidation(true, four_m, four_m + 0x400000, "legacy 4M");
	straddle(small, four_m);
	ok(TRY("mov %0, %%cr4", (), ("r"(cr4_on | CR4_PAE))) == GP && exc.error == 0,
	   "setting CR4.PAE with a directory whose first entries are no PDPTEs: #GP(0)");
	reserved(false, 7, false, "a legacy page (PAT)");
	reserved(true, 9, false, "a legacy directory entry");
	legacy_large((uint32_t *)four_m);

	wrmsr(EFER, rdmsr(EFER) | 0x800);
	paging_on(true);
	permissions(false, small, "PAE 4K");
	permissions(true, four_m, "PAE 2M");
	invalidation(false, small, four_m, "PAE 4K");
	invalidation(true, four_m, four_m + 0x200000, "PAE 2M");
	straddle(small, four_m);
	pae_reserved(four_m);
	pdptes(small);
	paging_off();
	is(MMIO32(small + 64), 0x77, "paging off again");
}
