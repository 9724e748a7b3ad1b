/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that does its worst, from the seed and number of processors on its command line ("SEED CPUS"): every
 * processor does, in random order, what is in actions[]. Exceptions are caught and the next action follows, as
 * long as the guest has not destroyed itself. How it ends does not matter; what the VMM does, does (test_hostile.sh).
 */
#include "lib/bare.h"

#define CPUS 4
#define CHAOS_BASE (TEST_BASE + 0x8000000000ul) /* a PML4 entry whose tables are random */
#define ROUNDS 30000

static uint64_t state[CPUS];
static void *volatile resume[CPUS][5];
static unsigned cpus = 1;
static uint8_t *shared, *rings; /* code that all rewrite; a megabyte that queues lie in */
static volatile uint64_t *chaos[4];
static uint64_t bars[32];
static unsigned nbars;

static uint64_t rnd(void)
{
	uint64_t *s = &state[cpu_index()];

	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1dull;
}

static unsigned below(unsigned n)
{
	return (unsigned)(rnd() >> 33) % n;
}

/* Numbers as attackers choose them. */
static uint64_t odd_number(void)
{
	static const uint64_t edges[] = {0, 1, 0xff, 0x7f, 0xffff, 0x8000, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32,
					 1ull << 47, 0x7fffffffffffffff, 1ull << 63, ~0ull, 0xfee00000, 4096};

	return below(2) ? edges[below(16)] + below(3) - 1 : rnd() >> below(64);
}

static uint64_t odd_address(void)
{
	switch (below(8)) {
	case 0: return 0xfee00000 + below(4096);
	case 1: return 0xfec00000 + below(4096);
	case 2: return 0xfed00000 + below(1024);
	case 3: return 0xe0000000 + below(0x1000000); /* where ECAM may be */
	case 4: return 0x80000000 + (uint32_t)rnd() / 2;
	case 5: return (uint64_t)rings + below(1 << 20);
	default: return nbars ? bars[below(nbars)] + below(below(4) ? 64 : 0x4000) : 0;
	}
}

/* Runs fn(); an exception ends it, and continues here. */
static void guarded(void (*fn)(void))
{
	unsigned cpu = cpu_index();

	if (!__builtin_setjmp((void **)resume[cpu]))
		fn();
}

static void recover(void)
{
	__builtin_longjmp((void **)resume[cpu_index()], 1);
}

static void on_exception(struct frame *f)
{
	if (f->vector >= 32) /* an interrupt: answer it, most times */
		apic_write(APIC_EOI, 0);
	if (f->vector >= 32 && f->cs == SEL_KCODE)
		return;
	f->ip = (word)recover;
	f->cs = SEL_KCODE;
	f->ss = SEL_KDATA;
	f->sp = (word)resume[cpu_index()][2] - 256; /* below the frame that set it */
	f->flags = 2;
}

/* ---- what it does ---- */

static void ports(void)
{
	static const uint16_t known[] = {0x20, 0x21, 0xa0, 0xa1, 0x40, 0x42, 0x43, 0x60, 0x64, 0x70, 0x71, 0x3f8, 0x3f9, 0x3fa,
					 0x3fb, 0x3fc, 0xcf8, 0xcfc, 0xcfd, 0x600, 0x602, 0x4d0, 0x4d1, 0xb2, 0x92, 0x61};
	uint16_t port = below(4) ? known[below(26)] : (uint16_t)rnd();
	uint32_t v = (uint32_t)odd_number();

	if ((port >= 0xcf9 && port < 0xcfc) || (port >= 0x604 && port < 0x606) || (port == 0x64 && below(50)) ||
	    (port == 0x92 && below(50)))
		return; /* ends too soon */
	if (port == 0x64 || port == 0x92)
		v &= below(8) ? ~0x81u : ~0u;
	switch (below(8)) {
	case 0: inb(port); break;
	case 1: inw(port); break;
	case 2: inl(port); break;
	case 3: outw(port, (uint16_t)v); break;
	case 4: outl(port, v); break;
	case 5:
		__asm__ volatile("rep insb" : : "d"(port), "D"(rings + below(1 << 19)), "c"(below(5000)) : "memory");
		break;
	default: outb(port, (uint8_t)v);
	}
}

static void mmio(void)
{
	uint64_t at = odd_address(), v = odd_number();

	switch (below(9)) {
	case 0: *(volatile uint8_t *)at = (uint8_t)v; break;
	case 1: *(volatile uint16_t *)at = (uint16_t)v; break;
	case 2: *(volatile uint32_t *)at = (uint32_t)v; break;
	case 3: *(volatile uint64_t *)at = v; break;
	case 4: (void)*(volatile uint64_t *)at; break;
	case 5: __asm__ volatile("lock xaddq %0, (%1)" : "+r"(v) : "r"(at) : "memory"); break;
	case 6: __asm__ volatile("rep movsb" : : "S"(at), "D"(rings + below(1 << 19)), "c"(below(9000)) : "memory"); break;
	case 7: __asm__ volatile("lock cmpxchg16b (%0)" : : "r"(at & ~15ul) : "rax", "rbx", "rcx", "rdx", "memory"); break;
	default: (void)*(volatile uint32_t *)at;
	}
}

static void msrs(void)
{
	static const uint32_t known[] = {0x10, 0x1b, 0x3a, 0x3b, 0x8b, 0xfe, 0x174, 0x175, 0x176, 0x179, 0x1a0, 0x1d9, 0x200, 0x250,
					 0x277, 0x2ff, 0x6e0, 0x800, 0x80f, 0x830, 0x838, 0xc0000080, 0xc0000081, 0xc0000082,
					 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xda0, 0x48, 0x49, 0x400};
	uint32_t n = below(8) ? known[below(33)] + below(3) : (uint32_t)odd_number();

	if (below(3))
		rdmsr(n);
	else if (n != 0x1b && !(n >= 0x800 && n < 0x900 && below(30)))
		wrmsr(n, n == 0xc0000080 ? rdmsr(n) ^ 1ull << below(16) : odd_number());
}

/* Registrations anywhere, hypercalls with anything. */
static void paravirtual(void)
{
	uint64_t at = below(2) ? (uint64_t)(rings + below(1 << 20)) & ~63ul : odd_address(), nr = below(4) ? below(13) : odd_number();

	switch (below(4)) {
	case 0: wrmsr(0x4b564d00 + below(9), at | below(4)); break;
	case 1: wrmsr(0x11 + below(2), (at + below(2) * below(64)) | below(2)); break;
	case 2: rdmsr(0x4b564d00 + below(9)); break;
	default:
		__asm__ volatile("vmcall" : "+a"(nr)
				 : "b"(below(2) ? at : odd_number()), "c"(below(2) ? below(8) : odd_number()), "d"(odd_number()),
				   "S"(below(2) ? 0x20 + below(0xd0) : odd_number()) : "memory");
	}
}

static void control_registers(void)
{
	static const word keep0 = 1ul << 31 | 1, keep4 = 1 << 5;
	word cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();

	switch (below(8)) {
	case 0: write_cr0((cr0 ^ 1ul << below(32)) | keep0); break;
	case 1: write_cr4((cr4 ^ 1ul << below(24)) | keep4); break;
	case 2: write_cr3(cr3 ^ (rnd() & 0x8000000000000018)); break;
	case 3: write_dr7(odd_number()); break;
	case 4: write_dr0(odd_number()); break;
	case 5: __asm__ volatile("xsetbv" : : "a"((uint32_t)odd_number()), "d"(0), "c"(below(2))); break;
	case 6: invlpg(odd_address()); break;
	default: __asm__ volatile("invpcid (%0), %1" : : "r"(rings), "r"((word)below(6)) : "memory");
	}
	write_dr7(0x400);
	write_cr0(cr0);
	write_cr4(cr4);
	write_cr3(cr3);
}

/* Tables full of whatever, and accesses through them. */
static void page_tables(void)
{
	volatile uint64_t *table = chaos[below(4)];
	uint64_t to = below(3) ? (uint64_t)chaos[below(4)] : below(2) ? odd_address() : odd_number();

	table[below(512)] = (to & PTE_ADDR) | (rnd() & (below(4) ? 0x1ff : 0xfff)) | (below(4) ? 3 : 0);
	for (unsigned n = 0; n < 4; n++) {
		word at = CHAOS_BASE + (rnd() & 0x7fffffffff);

		if (below(16))
			(void)*(volatile uint64_t *)at;
		else if (below(2048) == 0)
			__asm__ volatile("call *%0" : : "r"(at) : "memory");
		else
			__asm__ volatile("lock orl $0, (%0)" : : "r"(at) : "memory");
		if (below(8) == 0)
			invlpg(at);
	}
}

/* Small functions in pages that the others write to meanwhile, entered anywhere. */
static void rewritten_code(void)
{
	static const uint8_t bytes[] = {0x90, 0xc3, 0xf8, 0xf9, 0x48, 0xff, 0xc0, 0x66, 0xf3, 0xeb, 0x04, 0x75, 0x3c, 0x41, 0xb8};

	for (unsigned n = 0; n < 8; n++) {
		unsigned at = below(3 * 4096);

		shared[at] = bytes[below(sizeof(bytes))];
		shared[4096 * (1 + below(2)) - 3 + below(6)] = bytes[below(sizeof(bytes))];
		if (below(4) == 0)
			__asm__ volatile("rep stosb" : : "D"(shared + below(8192)), "a"(0xc3), "c"(below(300)) : "memory");
		__asm__ volatile("call *%0" : : "r"(shared + (below(2) ? 4096 * (1 + below(2)) - below(8) : at))
				 : "rax", "rcx", "rdx", "rbx", "memory", "cc");
	}
}

/* A virtio device is taken to work with queues of nonsense. */
static void virtio(void)
{
	volatile uint8_t *common = (volatile uint8_t *)(nbars ? bars[below(nbars)] : (uint64_t)rings);
	unsigned queues = 1 + below(3);

	common[20] = 0;
	common[20] = 3;
	*(volatile uint32_t *)(common + 8) = 0;
	*(volatile uint32_t *)(common + 12) = below(2) ? 0 : (uint32_t)rnd();
	*(volatile uint32_t *)(common + 8) = 1;
	*(volatile uint32_t *)(common + 12) = 1;
	common[20] = 11;
	for (unsigned n = 0; n < queues; n++) {
		*(volatile uint16_t *)(common + 22) = (uint16_t)n;
		*(volatile uint16_t *)(common + 24) = (uint16_t)(below(2) ? 1u << below(16) : rnd());
		for (unsigned k = 0; k < 3; k++)
			*(volatile uint64_t *)(common + 32 + 8 * k) =
				below(8) ? (uint64_t)rings + 4096 * below(256) + (below(4) ? 0 : below(64)) : odd_number();
		*(volatile uint16_t *)(common + 28) = 1;
	}
	common[20] = 15;
	for (unsigned n = 0; n < 64; n++) { /* descriptors, rings and indices */
		volatile uint64_t *p = (volatile uint64_t *)(rings + 16 * below(1 << 16));

		p[0] = below(4) ? (uint64_t)rings + below(1 << 20) : odd_number();
		p[1] = (below(4) ? below(70000) : (uint32_t)odd_number()) | (uint64_t)below(8) << 32 | (uint64_t)below(300) << 48;
		*(volatile uint32_t *)(rings + 4096 * below(256)) = (uint32_t)rnd();
	}
	for (unsigned n = 0; n < 32; n++)
		*(volatile uint16_t *)(common + 0x1000 * below(4) + 4 * below(8)) = (uint16_t)below(4);
}

static void pci(void)
{
	unsigned devfn = below(64), reg = below(256) & ~3u;

	if (below(2))
		pci_read(devfn, reg);
	else if (below(4) == 0)
		pci_write(devfn, 4, 7);
	else
		pci_write(devfn, reg, below(2) ? (uint32_t)odd_number() : (uint32_t)odd_address());
}

static void interrupts(void)
{
	uint32_t command = (uint32_t)rnd() & 0xcdfff;

	if ((command & 0x700) == 0x500 || (command & 0x700) == 0x600)
		command &= below(20) ? ~0x700u : ~0u; /* INIT and SIPI stop what is hostile */
	apic_write(APIC_ICR2, below(8) << 24);
	apic_write(APIC_ICR, command);
	if (below(4) == 0)
		apic_write(below(64) * 16, (uint32_t)odd_number());
	__asm__ volatile("sti; nop; nop; cli" ::: "memory");
}

static void segments(void)
{
	uint64_t *d = &gdt[16 + below(8)];

	*d = below(2) ? rnd() : descriptor((uint32_t)rnd(), (uint32_t)rnd(), (unsigned)rnd() & 0xfff);
	switch (below(6)) {
	case 0: __asm__ volatile("mov %0, %%fs" : : "r"((unsigned)((16 + below(8)) * 8 | below(4)))); break;
	case 1: __asm__ volatile("lldt %w0" : : "r"((16 + below(8)) * 8)); break;
	case 2: __asm__ volatile("lar %w0, %%eax; lsl %w0, %%ecx; verr %w0" : : "r"((unsigned)rnd()) : "eax", "ecx", "cc"); break;
	case 3: __asm__ volatile("pushq %0; pushq $1f; lretq; 1:" : : "r"((word)((16 + below(8)) * 8))); break;
	case 4: __asm__ volatile("pushq $0; pushq %%rsp; pushq %0; pushq %1; pushq $1f; iretq; 1:"
				 : : "r"(rnd() & 0x3f7fd7), "r"((word)((16 + below(8)) * 8)) : "memory"); break;
	default: __asm__ volatile("int $0x40; int3; int1");
	}
}

/* Anything at all, in the kernel's own ring. */
static void random_code(void)
{
	uint8_t *code = shared + 3 * 4096 + 1024 * cpu_index();

	for (unsigned n = 0; n < 64; n++)
		code[n] = (uint8_t)rnd();
	code[64] = 0xc3;
	__asm__ volatile("call *%0" : : "r"(code), "a"(odd_number()), "b"(odd_address()), "c"(odd_number()), "d"(odd_number()),
			 "S"(odd_address()), "D"(rings + below(1 << 20)) : "r8", "r9", "r10", "r11", "memory", "cc");
}

static void (*const actions[])(void) = {ports, mmio, mmio, msrs, paravirtual, control_registers, page_tables, page_tables, rewritten_code,
					rewritten_code, virtio, pci, interrupts, segments};

static void be_hostile(void *arg)
{
	unsigned last = (unsigned)sizeof(actions) / sizeof(actions[0]);

	for (unsigned n = 0; n < ROUNDS; n++)
		guarded(actions[below(last)]);
	for (unsigned n = 0; n < ROUNDS; n++)
		guarded(random_code);
}

static uint64_t number(const char **s)
{
	uint64_t v = 0;

	while (**s == ' ')
		(*s)++;
	while (**s >= '0' && **s <= '9')
		v = v * 10 + (uint64_t)(*(*s)++ - '0');
	return v;
}

static void find_devices(void)
{
	for (unsigned devfn = 0; devfn < 256; devfn++) {
		if ((pci_read(devfn, 0) & 0xffff) == 0xffff)
			continue;
		pci_write(devfn, 4, 7);
		for (unsigned n = 0; n < 6 && nbars < 32; n++) {
			uint32_t bar = pci_read(devfn, 16 + 4 * n);

			if (!(bar & 1) && (bar & ~15u))
				bars[nbars++] = pci_bar(devfn, n);
		}
	}
}

void main(void)
{
	const char *s = command_line;
	uint64_t seed = number(&s);

	while (*s && (*s < '0' || *s > '9')) /* the kernel's name may come first */
		s++;
	if (!seed)
		seed = number(&s);
	cpus = (unsigned)number(&s);
	cpus = cpus < 1 ? 1 : cpus > CPUS ? CPUS : cpus;
	for (unsigned n = 0; n < CPUS; n++)
		state[n] = (seed + 1) * (2 * n + 1) * 0x9e3779b97f4a7c15ull | 1;
	shared = pages_alloc(8, 4096);
	memset(shared, 0xc3, 8 * 4096);
	rings = pages_alloc(256, 1 << 20);
	map(CHAOS_BASE, (uint64_t)rings, PTE_P | PTE_W);
	for (unsigned level = 4; level > 1; level--)
		chaos[4 - level] = (volatile uint64_t *)(*pte_at(CHAOS_BASE, level) & PTE_ADDR);
	chaos[3] = page_alloc();
	find_devices();
	for (unsigned n = 0; n < 256; n++)
		on_vector(n, on_exception);
	pic_off();
	cpus_start(cpus);
	print("# seed %lu, %u processors, %u regions of devices\n", (word)seed, cpus, nbars);
	for (unsigned n = 1; n < cpus; n++)
		cpu_call(n, be_hostile, NULL);
	be_hostile(NULL);
	print("# at its end\n");
}
