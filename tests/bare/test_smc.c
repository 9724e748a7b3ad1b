/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Self- and cross-modifying code. SDM vol. 3, 8.1.3: a processor sees its own writes to code at once (we check: even without a
 * jump between, as processors since the Pentium do), another's after it has serialized.
 *
 * run: --cpus 2
 */
#include "lib/bare.h"

static uint8_t *page, *page2;
typedef word (*function)(void);

/* mov $imm32, %eax; ret */
static void put_mov(uint8_t *at, uint32_t v)
{
	at[0] = 0xb8;
	memcpy(at + 1, &v, 4);
	at[5] = 0xc3;
}

static void plain(void)
{
	unsigned bad = 0;

	for (unsigned n = 0; n < 2000; n++) {
		put_mov(page, n);
		bad += ((function)page)() != n;
	}
	is(bad, 0, "a function rewritten before each of 2000 calls");
	for (unsigned n = 0; n < 2000; n++) {
		page[1 + n % 4] = (uint8_t)n;
		uint32_t want;

		memcpy(&want, page + 1, 4);
		bad += ((function)page)() != want;
	}
	is(bad, 0, "single bytes of an immediate");
	put_mov(page, 5);
	((function)page)();
	for (unsigned n = 0; n < 200; n++) {
		*(volatile uint32_t *)(page + 2048 + n) = n; /* data on the same page */
		bad += ((function)page)() != 5;
	}
	is(bad, 0, "data written beside code");
	/* Two functions on one page: one changes, the other stays; calls between them. */
	put_mov(page + 64, 7);
	put_mov(page + 128, 8);
	for (unsigned n = 0; n < 100; n++) {
		put_mov(page + 64, n);
		bad += ((function)(page + 64))() != n || ((function)(page + 128))() != 8;
	}
	is(bad, 0, "one of two functions");
}

/* The store is in front of the instruction it changes, in the same straight line. */
CODE(same_block,
     "mov %rdi, %rcx\n lea 1f+1(%rip), %rdx\n mov %ecx, (%rdx)\n 1: mov $0x11111111, %eax\n ret");
CODE(same_block_loop,
     "xor %eax, %eax\n mov $100, %ecx\n lea 2f+1(%rip), %rdx\n 1: mov %cl, (%rdx)\n 2: mov $0, %dl\n movzx %dl, %esi\n add %esi, %eax\n"
     " lea 2b+1(%rip), %rdx\n dec %ecx\n jnz 1b\n ret");
CODE(same_block_rep, "lea 1f(%rip), %rdi\n mov $6, %ecx\n rep movsb\n 1: mov $0x22222222, %eax\n ret");
CODE(same_block_push, "mov %rsp, %rdx\n lea 1f+8(%rip), %rsp\n push %rdi\n 1: mov $0x33333333, %eax\n nop\n nop\n nop\n mov %rdx, %rsp\n ret");

static void same_line(void)
{
	unsigned bad = 0;

	for (unsigned n = 0; n < 300; n++)
		bad += ((word(*)(word))same_block)(n * 77777) != (uint32_t)(n * 77777);
	is(bad, 0, "a store into the next instruction of the same block");
	is(((function)same_block_loop)(), 5050, "in a loop that changes itself each time");
	uint8_t with[6];

	put_mov(with, 0x4444);
	is(((word(*)(word, void *))same_block_rep)(0, with), 0x4444, "REP MOVSB over the next instruction");
	is(((word(*)(word))same_block_push)(0x9090900000abcdb8), 0xabcd, "PUSH over the next instruction");
}

static void straddle(void)
{
	uint8_t *at = page + 4096 - 3;
	unsigned bad = 0;

	for (unsigned n = 0; n < 300; n++) {
		put_mov(at, n * 0x01010101);
		bad += ((function)at)() != n * 0x01010101;
	}
	is(bad, 0, "an instruction across two pages");
	for (unsigned n = 0; n < 300; n++) {
		page[4096 + 1] = (uint8_t)n;
		bad += (((function)at)() >> 24) != (uint8_t)n;
		page[4096 - 2] = (uint8_t)(n * 3);
		bad += (((function)at)() & 0xff) != (uint8_t)(n * 3);
	}
	is(bad, 0, "changed in its second or its first page");
	*(volatile uint64_t *)(page + 4096 - 4) = 0x00c30000010db8 << 8 | 0x90;
	is(((function)(page + 4096 - 3))(), 0x10d, "a store across two pages of code");
}

static void aliases(void)
{
	unsigned bad = 0;
	uint8_t *alias = (uint8_t *)TEST_BASE, *other = (uint8_t *)TEST_BASE + 0x200000;

	map((word)alias, (word)page2, PTE_P | PTE_W);
	map((word)other, (word)page2, PTE_P);
	for (unsigned n = 0; n < 300; n++) {
		put_mov(alias, n);
		bad += ((function)page2)() != n || ((function)other)() != n || ((function)alias)() != n;
	}
	is(bad, 0, "written through one mapping, run through three");
	/* The same linear address, another page. */
	put_mov(page, 1);
	put_mov(page2, 2);
	for (unsigned n = 0; n < 300; n++) {
		map((word)other, (word)(n & 1 ? page : page2), PTE_P);
		invlpg((word)other);
		bad += ((function)other)() != (n & 1 ? 1 : 2);
	}
	is(bad, 0, "a mapping that changes below code");
	/* The same bytes in other modes: 32-bit code. */
	gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0xc9b));
	memcpy(page, "\x48\xff\xc0\xcb", 4); /* 64-bit: inc %rax; 32-bit: dec %eax, inc %eax; then lret */
	for (unsigned n = 0; n < 50; n++) {
		struct { uint32_t at; uint16_t sel; } __attribute__((packed)) far32 = { (uint32_t)(word)page, SEL_FREE },
									      far64 = { (uint32_t)(word)page, SEL_KCODE };
		word a = 10, b = 10;

		__asm__ volatile("lcall *%1" : "+a"(a) : "m"(far32) : "memory");
		__asm__ volatile("lcall *%1" : "+a"(b) : "m"(far64) : "memory");
		bad += a != 10 || b != 11;
	}
	is(bad, 0, "the same bytes as 32- and as 64-bit code");
}

static volatile unsigned turn;

static void other_cpu(void *arg)
{
	for (unsigned n = 0; n < 500; n++) {
		while (turn != 2 * n + 1)
			cpu_relax();
		put_mov(page2, n + 5);
		turn = 2 * n + 2;
	}
}

static volatile unsigned ipi_bad, ipi_count;

static void on_ipi(struct frame *f)
{
	cpuid(0, 0);
	ipi_bad += ((function)page2)() != ipi_count;
	ipi_count++;
	apic_write(APIC_EOI, 0);
}

static volatile bool stop;

static void runner(void *arg)
{
	irq_on();
	while (!stop)
		((function)page2)();
	irq_off();
}

static void cross(void)
{
	unsigned bad = 0;

	cpus_start(2);
	put_mov(page2, 0);
	((function)page2)();
	cpu_call(1, other_cpu, NULL);
	for (unsigned n = 0; n < 500; n++) {
		turn = 2 * n + 1;
		while (turn != 2 * n + 2)
			cpu_relax();
		cpuid(0, 0);
		bad += ((function)page2)() != n + 5;
	}
	cpu_join(1);
	is(bad, 0, "code written by another processor, 500 times");
	on_vector(0x50, on_ipi);
	put_mov(page2, 0);
	cpu_call(1, runner, NULL);
	for (unsigned n = 0; n < 200; n++) {
		page2[1] = (uint8_t)n;
		apic_ipi(1, 0x50);
		while (ipi_count != n + 1)
			cpu_relax();
	}
	stop = true;
	cpu_join(1);
	is(ipi_bad, 0, "code changed while it runs elsewhere, then an IPI and CPUID");
	/* Instructions patched under a running processor by whole aligned words: the old or the new, nothing else. */
	stop = false;
	put_mov(page2, 1);
	page2[8] = 0xc3;
	cpu_call(1, runner, NULL);
	for (unsigned n = 0; n < 20000; n++)
		*(volatile uint64_t *)page2 = n & 1 ? 0x9090c300000001b8 : 0x9090c300000002b8;
	stop = true;
	cpu_join(1);
	ok(true, "patched 20000 times under a running processor");
}

void main(void)
{
	page = pages_alloc(2, 4096);
	page2 = page_alloc();
	plain();
	same_line();
	straddle();
	aliases();
	cross();
}
