/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 4-level paging: every combination of permission bits in leaf and directory, at 4K, 2M and 1G, against every access from both
 * privileges with and without WP, SMEP, SMAP and AC (SDM vol. 3, 4.6.1), the error codes (4.7), A and D (4.8), reserved bits,
 * and what invalidates translations (4.10).
 */
#include "lib/rights.h"

enum { CR4_PGE = 1 << 7, CR4_PCIDE = 1 << 17, CR4_SMEP = 1 << 20, CR4_SMAP = 1 << 21, FLAG_AC = 1 << 18, CR0_WP = 1 << 16 };
#define EFER 0xc0000080

CODE(user_read, "mov 32(%rdi), %al\n int $0x80");
CODE(user_write, "movb $1, 32(%rdi)\n int $0x80");

static int access(word va, int kind, bool user)
{
	if (user) {
		int v = user_run(kind == READ ? USER(user_read) : kind == WRITE ? USER(user_write) : va + 16, va, 0);

		return v == 0x80 ? -1 : v;
	}
	if (kind == READ)
		return TRY("movb 32(%0), %%al", (), ("r"(va)), "rax");
	if (kind == WRITE)
		return TRY("movb $1, 32(%0)", (), ("r"(va)));
	return TRY("lea 98f(%%rip), %%rdx; jmp *%0; 98:", (), ("r"(va)), "rdx");
}

static void permissions(unsigned level, uint64_t pa, word va, const char *size)
{
	volatile uint64_t *leaf = pte_at(va, level), *dir = pte_at(va, level + 1);
	word cr0 = read_cr0(), cr4 = read_cr4();
	uint64_t ps = level > 1 ? PTE_PS : 0, dir_was;

	fill_code(pa);
	*leaf = pa | PTE_P | ps;
	dir_was = *dir;
	for (unsigned mode = 0; mode < 16; mode++) {
		bool wp = mode & 1, smep = mode & 2, smap = mode & 4, ac = mode & 8;
		unsigned wrong = 0, wrong_ad = 0, wrong_error = 0, runs = 0;

		write_cr0(wp ? cr0 | CR0_WP : cr0 & ~(word)CR0_WP);
		write_cr4((cr4 & ~(word)(CR4_SMEP | CR4_SMAP)) | (smep ? CR4_SMEP : 0) | (smap ? CR4_SMAP : 0));
		for (unsigned bits = 0; bits < 64; bits++) {
			bool u1 = bits & 1, w1 = bits & 2, nx1 = bits & 4, u2 = bits & 8, w2 = bits & 16, nx2 = bits & 32;

			for (unsigned n = 0; n < KINDS * 2; n++) {
				int kind = (int)n % KINDS;
				bool user = n >= KINDS, good;
				uint64_t pte, want;
				int v;

				*leaf = pa | PTE_P | ps | (u1 ? PTE_U : 0) | (w1 ? PTE_W : 0) | (nx1 ? PTE_NX : 0);
				*dir = (dir_was & ~(PTE_W | PTE_U | PTE_NX | PTE_A)) | (u2 ? PTE_U : 0) | (w2 ? PTE_W : 0) |
				       (nx2 ? PTE_NX : 0);
				invlpg(va);
				write_flags(ac ? 2 | FLAG_AC : 2);
				v = access(va, kind, user);
				pte = *leaf;
				write_flags(2);
				good = allowed(kind, user, u1 && u2, w1 && w2, nx1 || nx2, wp, smep, smap, ac);
				runs++;
				if (v != (good ? -1 : PF)) {
					if (!wrong++)
						print("# U%d W%d NX%d, directory U%d W%d NX%d: %s %d gives %d\n", u1, w1, nx1, u2, w2,
						      nx2, user ? "user" : "supervisor", kind, v);
					continue;
				}
				want = good ? PTE_A | (kind == WRITE ? PTE_D : 0) : 0;
				if ((pte & PTE_D) != (want & PTE_D) || (good && (!(pte & PTE_A) || !(*dir & PTE_A))))
					wrong_ad++;
				if (good)
					continue;
				want = 1 | (kind == WRITE ? 2 : 0) | (user ? 4 : 0) | (kind == FETCH ? 16 : 0);
				if (exc.error != want || exc.cr2 != va + (kind == FETCH ? user ? 16 : 0 : 32))
					wrong_error++;
			}
		}
		ok(!wrong && !wrong_ad && !wrong_error,
		   "%s pages, WP %d SMEP %d SMAP %d AC %d: %u accesses (wrong: %u, A/D %u, error codes or CR2 %u)", size, wp, smep,
		   smap, ac, runs, wrong, wrong_ad, wrong_error);
	}
	*dir = dir_was;
	*leaf = pa | PTE_P | PTE_W | PTE_U | ps;
	invlpg(va);
	write_cr0(cr0);
	write_cr4(cr4);
}

/* AC set by STAC and by POPF, cleared by CLAC, between two accesses through a warm TLB. */
static void smap_switches(void)
{
	word va = TEST_BASE + 0x100000, pa = (word)page_alloc(), cr4 = read_cr4();

	map(va, pa, PTE_P | PTE_W | PTE_U);
	write_cr4(cr4 | CR4_SMAP);
	for (unsigned n = 0; n < 3; n++) {
		is((uint64_t)TRY("stac; mov (%0), %%eax; clac", (), ("r"(va)), "rax"), (uint64_t)-1, "STAC opens");
		is((uint64_t)TRY("mov (%0), %%eax", (), ("r"(va)), "rax"), PF, "CLAC closes");
		is((uint64_t)TRY("pushf; orl $0x40000, (%%rsp); popf; mov (%0), %%eax; pushf; andl $~0x40000, (%%rsp); popf", (),
				 ("r"(va)), "rax"),
		   (uint64_t)-1, "POPF with AC opens");
		is((uint64_t)TRY("mov %%eax, (%0)", (), ("r"(va)), "rax"), PF, "POPF without AC closes");
	}
	write_cr4(cr4);
	is((uint64_t)TRY("mov (%0), %%eax", (), ("r"(va)), "rax"), (uint64_t)-1, "clearing CR4.SMAP opens");
	/* An implicit supervisor access (here: to the GDT) is not helped by AC. */
	word big = TEST_BASE + 0x200000;
	uint64_t *copy = pages_alloc(2, 4096);

	memcpy(copy, gdt, sizeof(gdt));
	copy[512] = descriptor(0, 0xfffff, 0xc93);
	map(big, (word)copy, PTE_P | PTE_W);
	map(big + 4096, (word)copy + 4096, PTE_P | PTE_W | PTE_U);
	struct table_reg r = { 8191, big };

	__asm__ volatile("lgdt %0" ::"m"(r));
	is((uint64_t)TRY("mov %0, %%es", (), ("r"(0x1000))), (uint64_t)-1, "a descriptor in a user page, without SMAP");
	write_cr4(cr4 | CR4_SMAP);
	is((uint64_t)TRY("stac; mov %0, %%es; clac", (), ("r"(0x1000))), PF, "the same with SMAP and AC: #PF");
	is(exc.error, 1, "a supervisor's read");
	write_flags(2);
	write_cr4(cr4);
	gdt_load();
	__asm__ volatile("mov %0, %%es" ::"r"(SEL_KDATA));
}

static void reserved_bits(void)
{
	word va = TEST_BASE + (3ul << 39), efer = rdmsr(EFER);
	unsigned phys = cpuid(0x80000008, 0).a & 0xff;

	map(va, (word)page_alloc(), PTE_P | PTE_W | PTE_U);
	for (unsigned level = 1; level <= 4; level++) {
		volatile uint64_t *e = pte_at(va, level);
		uint64_t was = *e;

		for (unsigned bit = phys; bit < 52; bit++) {
			*e = was | 1ull << bit;
			invlpg(va);
			if (access(va, READ, false) != PF || exc.error != 9)
				break;
			if (bit == 51)
				ok(true, "level %u: address bits %u to 51 are reserved: #PF, error code 9", level, phys);
		}
		if (exc.vector != PF || exc.error != 9)
			ok(false, "level %u: reserved address bits: vector %d, error 0x%lx", level, exc.vector, exc.error);
		*e = was | 0x700ull << 44;
		invlpg(va);
		is((uint64_t)access(va, READ, false), (uint64_t)-1, "level %u: bits 52 to 58 are ignored", level);
		access(va, READ, true);
		*e = was | 1ull << phys;
		invlpg(va);
		access(va, WRITE, true);
		ok(exc.vector == PF && exc.error == 15, "level %u: write from user mode: error code 15 (0x%lx)", level, exc.error);
		/* Not present: nothing else counts. */
		*e = (was | 1ull << phys) & ~1ull;
		invlpg(va);
		access(va, READ, false);
		ok(exc.vector == PF && exc.error == 0, "level %u: not present: error code 0", level);
		wrmsr(EFER, efer & ~0x800ul);
		*e = was | PTE_NX;
		invlpg(va);
		access(va, READ, false);
		ok(exc.vector == PF && exc.error == 9, "level %u: XD is reserved without EFER.NXE", level);
		wrmsr(EFER, efer);
		*e = was | PTE_NX;
		invlpg(va);
		is((uint64_t)access(va, READ, false), (uint64_t)-1, "level %u: and is not with it", level);
		*e = was;
		invlpg(va);
	}
	wrmsr(EFER, efer & ~0x800ul);
	*pte_at(va, 1) &= ~1ull;
	invlpg(va);
	access(va, FETCH, true);
	ok(exc.vector == PF && exc.error == 4, "without NXE and SMEP a fetch's error code has no I/D bit");
	write_cr4(read_cr4() | CR4_SMEP);
	access(va, FETCH, true);
	ok(exc.vector == PF && exc.error == 0x14, "with SMEP it has");
	write_cr4(read_cr4() & ~(word)CR4_SMEP);
	wrmsr(EFER, efer);
	*pte_at(va, 4) |= PTE_PS;
	invlpg(va);
	access(va, READ, false);
	ok(exc.vector == PF && exc.error == 9, "PS is reserved in a PML4 entry");
	*pte_at(va, 4) &= ~(uint64_t)PTE_PS;
	va += 1ul << 30;
	volatile uint64_t *e = pte_at(va, 3);

	*e = PTE_P | PTE_W | PTE_PS | 1 << 13;
	invlpg(va);
	access(va, READ, false);
	ok(exc.vector == PF && exc.error == 9, "bits 13 to 29 of a 1G page are reserved");
	*e = 0;
	e = pte_at(va, 2);
	*e = PTE_P | PTE_W | PTE_PS | 1 << 20;
	invlpg(va);
	access(va, READ, false);
	ok(exc.vector == PF && exc.error == 9, "bits 13 to 20 of a 2M page are reserved");
	*e = PTE_P | PTE_W | PTE_PS | 1 << 12;
	invlpg(va);
	is((uint64_t)access(va, READ, false), (uint64_t)-1, "bit 12 of a 2M page is PAT");
}

static void invalidation(void)
{
	word va = TEST_BASE + (4ul << 39), cr4 = read_cr4(), cr3 = read_cr3();
	uint32_t *a = pages_alloc(1024, 0x200000), *b = a + 0x200000 / 4;
	unsigned stale = 0;

	for (unsigned n = 0; n < 512; n++)
		a[n * 1024] = n, b[n * 1024] = 1000 + n;
	volatile uint64_t *e = pte_at(va, 2);

	*e = (word)a | PTE_P | PTE_W | PTE_PS;
	for (unsigned n = 0; n < 512; n++)
		stale += MMIO32(va + n * 4096) != n;
	*e = (word)b | PTE_P | PTE_W | PTE_PS;
	invlpg(va + 0x123456);
	for (unsigned n = 0; n < 512; n++)
		stale += MMIO32(va + n * 4096) != 1000 + n;
	is(stale, 0, "INVLPG anywhere in a 2M page forgets all of it");
	*e = (word)a | PTE_P | PTE_W | PTE_PS;
	write_cr3(cr3);
	for (unsigned n = 0; n < 512; n++)
		stale += MMIO32(va + n * 4096) != n;
	is(stale, 0, "MOV CR3 forgets pages that are not global");
	*pte_at(va + (1ul << 30), 3) = PTE_P | PTE_W | PTE_PS;
	is(MMIO32(va + (1ul << 30) + (word)b), 1000, "a 1G page");
	*pte_at(va + (1ul << 30), 3) = 0;
	invlpg(va + (1ul << 30) + 0x3f000000);
	TRY("mov (%0), %%eax", (), ("r"(va + (1ul << 30) + (word)b)), "rax");
	is((uint64_t)exc.vector, PF, "INVLPG elsewhere in a 1G page forgets it");

	write_cr4(cr4 | CR4_PGE);
	*e = (word)a | PTE_P | PTE_W | PTE_PS | PTE_G;
	invlpg(va);
	is(MMIO32(va), 0, "a global page");
	*e = (word)b | PTE_P | PTE_W | PTE_PS | PTE_G;
	invlpg(va);
	is(MMIO32(va), 1000, "INVLPG forgets a global page");
	*e = (word)a | PTE_P | PTE_W | PTE_PS | PTE_G;
	write_cr4(cr4);
	is(MMIO32(va), 0, "clearing CR4.PGE forgets global pages");
	write_cr4(cr4 | CR4_PGE);
	is(MMIO32(va), 0, "set again");
	*e = (word)b | PTE_P | PTE_W | PTE_PS | PTE_G;
	write_cr4(cr4 | CR4_PGE | CR4_PCIDE);
	write_cr4(cr4 | CR4_PGE);
	is(MMIO32(va), 1000, "clearing CR4.PCIDE forgets everything");
	*e = (word)a | PTE_P | PTE_PS | PTE_W;
	write_cr4(cr4);
	invlpg(va);
	/* Less rights, more rights */
	volatile uint64_t *p = pte_at(va + (2ul << 30), 1);
	word at = va + (2ul << 30), cr0 = read_cr0();

	*p = (word)a | PTE_P | PTE_W;
	MMIO32(at) = 0;
	*p = (word)a | PTE_P;
	invlpg(at);
	is((uint64_t)TRY("movl $0, (%0)", (), ("r"(at))), PF, "a page made read-only is read-only after INVLPG");
	write_cr0(cr0 & ~(word)CR0_WP);
	is((uint64_t)TRY("movl $0, (%0)", (), ("r"(at))), (uint64_t)-1, "clearing CR0.WP");
	write_cr0(cr0);
	is((uint64_t)TRY("movl $0, (%0)", (), ("r"(at))), PF, "setting CR0.WP");
	*p = (word)a | PTE_P | PTE_W;
	is((uint64_t)TRY("movl $0, (%0)", (), ("r"(at))), (uint64_t)-1, "more rights need no INVLPG after a fault");
	*p = 0;
	invlpg(at);
	is((uint64_t)TRY("movl $0, (%0)", (), ("r"(at))), PF, "not present");
	*p = (word)b | PTE_P | PTE_W;
	is(MMIO32(at), 1000, "not-present entries are not cached");
	/* A page table is written through one of its own mappings. */
	word window = va + (3ul << 30);

	map(window, (word)pte_at(at, 1) & ~0xffful, PTE_P | PTE_W);
	MMIO64(window + ((at >> 12) & 511) * 8) = (word)a | PTE_P | PTE_W;
	invlpg(at);
	is(MMIO32(at), 0, "a page table changed through a mapping of it");
	/* D is set again after software has cleared it. */
	*p &= ~(uint64_t)(PTE_D | PTE_A);
	invlpg(at);
	is(MMIO32(at), 0, "read");
	is(*p & (PTE_D | PTE_A), PTE_A, "sets A alone");
	MMIO32(at) = 0;
	is(*p & (PTE_D | PTE_A), PTE_A | PTE_D, "a write behind a read sets D");
}

static word new_space(word va, uint32_t *page)
{
	word was = read_cr3(), space = (word)page_alloc();

	memcpy((void *)space, (void *)(was & PTE_ADDR), 4096);
	((uint64_t *)space)[va >> 39 & 511] = 0;
	write_cr3(space);
	map(va, (word)page, PTE_P | PTE_W);
	write_cr3(was);
	return space;
}

static int invpcid(word type, word pcid, word address)
{
	struct { word pcid, address; } d = { pcid, address };

	return TRY("invpcid %0, %1", (), ("m"(d), "r"(type)));
}

static void pcid(void)
{
	word va = TEST_BASE + (5ul << 39), cr4 = read_cr4(), cr3 = read_cr3(), s1, s2;
	uint32_t *a = page_alloc(), *b = page_alloc(), *c = page_alloc();
	const word keep = 1ul << 63;
	volatile uint64_t *p1, *p2;

	is((uint64_t)TRY("mov %0, %%cr3", (), ("r"(cr3 | keep))), GP, "CR3 bit 63 without PCIDE: #GP");
	write_cr3(cr3 | 8);
	is((uint64_t)TRY("mov %0, %%cr4", (), ("r"(cr4 | CR4_PCIDE))), GP, "PCIDE with CR3[11:0] not zero: #GP");
	write_cr3(cr3);
	*a = 1, *b = 2, *c = 3;
	s1 = new_space(va, a);
	s2 = new_space(va, b);
	write_cr4(cr4 | CR4_PCIDE | CR4_PGE);
	write_cr3(s1);
	p1 = pte_at(va, 1);
	write_cr3(s2);
	p2 = pte_at(va, 1);
	write_cr3(s1 | 1);
	is(MMIO32(va), 1, "PCID 1");
	write_cr3(s2 | 2);
	is(MMIO32(va), 2, "PCID 2");
	for (unsigned n = 0, bad = 0; n < 1000; n++) {
		write_cr3(s1 | 1 | keep);
		bad += MMIO32(va) != 1;
		write_cr3(s2 | 2 | keep);
		bad += MMIO32(va) != 2;
		if (n == 999)
			is(bad, 0, "PCIDs do not mix in 1000 switches without flushes");
	}
	*p1 = (word)c | PTE_P | PTE_W;
	is(MMIO32(va), 2, "the other space is as it was");
	is((uint64_t)invpcid(0, 1, va), (uint64_t)-1, "INVPCID type 0");
	write_cr3(s1 | 1 | keep);
	is(MMIO32(va), 3, "forgets one address of another PCID");
	write_cr3(s2 | 2 | keep);
	*p1 = (word)a | PTE_P | PTE_W;
	invpcid(1, 1, 0);
	write_cr3(s1 | 1 | keep);
	is(MMIO32(va), 1, "INVPCID type 1 forgets one PCID");
	*p1 = (word)b | PTE_P | PTE_W | PTE_G;
	*p2 = (word)c | PTE_P | PTE_W | PTE_G;
	invpcid(2, 0, 0);
	is(MMIO32(va), 2, "INVPCID type 2 forgets everything (this PCID)");
	write_cr3(s2 | 2);
	invlpg(va);
	is(MMIO32(va), 3, "and the other");
	*p1 = (word)a | PTE_P | PTE_W;
	*p2 = (word)b | PTE_P | PTE_W;
	invpcid(2, 0, 0);
	is(MMIO32(va), 2, "type 2 forgets global pages");
	*p2 = (word)c | PTE_P | PTE_W;
	invpcid(3, 0, 0);
	is(MMIO32(va), 3, "INVPCID type 3");
	*p2 = (word)a | PTE_P | PTE_W;
	write_cr3(s2 | 2);
	is(MMIO32(va), 1, "MOV CR3 without bit 63 forgets its PCID");
	write_cr3(s1 | 1 | keep);
	write_cr3(s1 | 3 | keep);
	/* Twenty PCIDs: more than are kept. */
	unsigned bad = 0;

	for (unsigned n = 0; n < 200; n++) {
		bool first = n % 3 == 0;

		write_cr3((first ? s1 : s2) | (100 + n % 20 * 3 + n % 3));
		bad += MMIO32(va) != 1;
	}
	is(bad, 0, "sixty PCIDs");
	is((uint64_t)invpcid(4, 0, 0), GP, "INVPCID type 4: #GP");
	is((uint64_t)invpcid(0, 0x1000, 0), GP, "reserved bits of the descriptor: #GP");
	is((uint64_t)invpcid(0, 1, 1ul << 47), GP, "a non-canonical address: #GP");
	is(read_cr3() >> 63, 0, "CR3 bit 63 reads as 0");
	write_cr3(cr3);
	is((uint64_t)TRY("mov %0, %%cr0", (), ("r"(read_cr0() & ~(1ul << 31)))), GP, "PG cannot be cleared with PCIDE set");
	write_cr4(cr4);
	is((uint64_t)invpcid(0, 1, 0), GP, "INVPCID type 0 with a PCID, PCIDE clear: #GP");
	is((uint64_t)invpcid(0, 0, 0), (uint64_t)-1, "with PCID 0: fine");
	is((uint64_t)TRY("mov %0, %%cr3", (), ("r"(1ul << 52))), GP, "reserved bits of CR3: #GP");
	is((uint64_t)TRY("mov %0, %%cr4", (), ("r"(cr4 & ~(word)(1 << 5)))), GP, "PAE cannot be cleared in long mode");
}

/* Instructions that fault in the middle leave nothing behind but what the manual says. */
static void precise(void)
{
	word va = TEST_BASE + (6ul << 39), rcx, rsi, rdi, rsp, rax, rdx;
	uint8_t *page = page_alloc();

	map(va, (word)page, PTE_P | PTE_W);
	memset(page, 0x11, 4096);
	is((uint64_t)TRY("movq $-1, (%0)", (), ("r"(va + 4092))), PF, "a write into a page that is not there");
	ok(exc.cr2 == va + 4096 && exc.error == 2, "CR2 is the first byte of the second page");
	is(*(uint32_t *)(page + 4092), 0x11111111, "nothing is written to the first");
	TRY("lock addq $1, (%0)", (), ("r"(va + 4092)));
	ok(exc.vector == PF && exc.cr2 == va + 4096 && exc.error == 2, "a locked one: error code says write");
	TRY("mov $100, %%ecx; mov %3, %%rdi; mov %4, %%rsi; rep movsb", ("=&c"(rcx), "=&D"(rdi), "=&S"(rsi)), ("r"(va + 4096 - 60), "r"(page)));
	ok(exc.vector == PF && exc.cr2 == va + 4096, "REP MOVSB into a hole");
	ok(rcx == 40 && rdi == va + 4096 && rsi == (word)page + 60, "stops at the byte that faults");
	is(exc.flags & 1 << 16, 1 << 16, "with RF saved");
	TRY("mov $3, %%ecx; mov %2, %%rdi; xor %%eax, %%eax; rep stosq", ("=&c"(rcx), "=&D"(rdi)), ("r"(va + 4096 - 20)), "rax");
	ok(rcx == 1 && rdi == va + 4096 - 4, "REP STOSQ stops before an element that straddles");
	TRY("mov $50, %%ecx; mov %2, %%rsi; std; rep lodsb; cld", ("=&c"(rcx), "=&S"(rsi)), ("r"(va + 9)), "rax");
	__asm__ volatile("cld");
	ok(rcx == 40 && rsi == va - 1 && exc.cr2 == va - 1, "REP LODSB downwards");
	TRY("mov %%rsp, %0; push (%2); 97:", ("=&r"(rsp), "=&r"(rax)), ("r"(va + 4096)));
	is(exc.sp, rsp, "PUSH of memory that is not there leaves RSP");
	TRY("mov %%rsp, %0; push $5; mov %%rsp, %0; pop (%2)", ("=&r"(rsp), "=&r"(rax)), ("r"(va + 4096)));
	is(exc.sp, rsp, "POP to memory that is not there leaves RSP");
	__asm__ volatile("add $8, %rsp");
	TRY("mov $7, %0; xchg %0, (%2)", ("=&r"(rax), "=&r"(rdx)), ("r"(va + 4096)));
	is(rax, 7, "XCHG leaves its register");
	*pte_at(va, 1) = (word)page | PTE_P;
	invlpg(va);
	rax = 1;
	TRY("cmpxchg %2, (%1)", ("+a"(rax)), ("r"(va), "r"(5ul)));
	ok(exc.vector == PF && exc.error == 3, "CMPXCHG that would not store is a write all the same");
	is(rax, 1, "and leaves RAX");
	TRY("btsl $1, (%0)", (), ("r"(va)));
	ok(exc.vector == PF && exc.error == 3, "BTS of read-only memory");
	TRY("btl %1, (%0)", (), ("r"(va), "r"(32768 + 5)));
	ok(exc.vector == PF && exc.cr2 == va + 4096 && exc.error == 0, "BT with a bit offset beyond the page");
	TRY("mov $1, %%ecx; shll %%cl, (%0)", (), ("r"(va)), "rcx");
	ok(exc.vector == PF && exc.error == 3, "SHL of read-only memory");
	TRY("cmpl $1, (%0)", (), ("r"(va)));
	is((uint64_t)exc.vector, (uint64_t)-1, "CMP only reads");
	TRY("enter $16, $0; leave", (), ());
	is((uint64_t)exc.vector, (uint64_t)-1, "ENTER, LEAVE");
	/* Fetches that straddle into a missing page: CR2 is the second page. */
	*pte_at(va, 1) = (word)page | PTE_P | PTE_W;
	invlpg(va);
	memcpy(page + 4093, "\x48\xb8\x00", 3); /* the first bytes of MOV RAX, imm64 */
	TRY("lea 98f(%%rip), %%rdx; jmp *%0; 98:", (), ("r"(va + 4093)), "rdx", "rax");
	ok(exc.vector == PF && exc.ip == va + 4093 && exc.cr2 == va + 4096 && exc.error == 16,
	   "a fetch that straddles: RIP in the first page, CR2 in the second");
	map(va + 4096, (word)page_alloc(), PTE_P);
	memcpy((void *)(*pte_at(va + 4096, 1) & PTE_ADDR), "\0\0\0\0\0\0\x12\xff\xe2", 9);
	TRY("lea 98f(%%rip), %%rdx; jmp *%1; 98:", ("=&a"(rax)), ("r"(va + 4093)), "rdx");
	ok(exc.vector == -1 && rax == 0x1200000000000000, "with the page there it runs");
}

void main(void)
{
	uint64_t two_m = (word)pages_alloc(512, 0x200000);

	permissions(1, (word)page_alloc(), TEST_BASE, "4K");
	permissions(2, two_m, TEST_BASE + (1ul << 39), "2M");
	/* A 1G page holds all of memory: the code to jump to is in its first page, which is free. */
	permissions(3, 0, TEST_BASE + (2ul << 39), "1G");
	smap_switches();
	reserved_bits();
	invalidation();
	pcid();
	precise();
}
