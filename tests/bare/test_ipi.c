/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who gets an interrupt: destinations of IPIs and of the I/O APIC's messages among four processors. SDM vol. 3, 11.6.2
 * (physical, logical flat, logical cluster, broadcast, shorthands, lowest priority), 11.12.9 and 11.12.10 (x2APIC).
 *
 * run: --cpus 4
 */
#include "lib/bare.h"

#define CPUS 4
#define IOAPIC 0xfec00000u
enum { VECTOR = 0x60, LOGICAL = 1 << 11, LOWEST = 1 << 8, SELF = 1 << 18, ALL = 2 << 18, OTHERS = 3 << 18 };
enum { X2APIC_LDR = 0x80d, X2APIC_ICR = 0x830, X2APIC_EOI = 0x80b, X2APIC_TPR = 0x808, X2APIC_SELF = 0x83f };

static volatile unsigned got[CPUS];
static volatile bool x2;
static struct request { void (*fn)(unsigned cpu, uint32_t arg); uint32_t arg[CPUS]; } request;
static volatile unsigned generation, served[CPUS];
static volatile bool stop;

static void on_ipi(struct frame *f)
{
	/* First the EOI: who has seen it counted may rely on this processor's priority being that of its TPR again. */
	if (x2)
		wrmsr(X2APIC_EOI, 0);
	else
		apic_write(APIC_EOI, 0);
	__atomic_fetch_add(&got[cpu_index()], 1, __ATOMIC_SEQ_CST);
}

/* The other processors wait for interrupts, and for something to do to themselves. */
static void serve(void *arg)
{
	unsigned cpu = cpu_index(), seen = 0;

	irq_on();
	while (!stop) {
		if (seen != generation) {
			seen = generation;
			request.fn(cpu, request.arg[cpu]);
			__atomic_store_n(&served[cpu], seen, __ATOMIC_SEQ_CST);
		}
		cpu_relax();
	}
	irq_off();
}

static void everywhere(void (*fn)(unsigned, uint32_t), uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	request = (struct request){ fn, { a, b, c, d } };
	__atomic_fetch_add(&generation, 1, __ATOMIC_SEQ_CST);
	fn(0, a);
	for (unsigned n = 1; n < CPUS; n++)
		while (served[n] != generation)
			cpu_relax();
}

static void set_ldr(unsigned cpu, uint32_t v)
{
	apic_write(APIC_LDR, v << 24);
}

static void set_dfr(unsigned cpu, uint32_t v)
{
	apic_write(APIC_DFR, v);
}

static void set_tpr(unsigned cpu, uint32_t v)
{
	if (x2)
		wrmsr(X2APIC_TPR, v);
	else
		apic_write(APIC_TPR, v);
}

static void set_x2apic(unsigned cpu, uint32_t on)
{
	uint64_t base = rdmsr(0x1b);

	wrmsr(0x1b, base | 0x400);
}

/* Which processors have got one; 0x100 and more: one got several. Waits until @want is there, and then for a while. */
static unsigned who(unsigned want)
{
	unsigned mask = 0;

	irq_on();
	for (unsigned ms = 0; ms < 1000; ms++) {
		mask = 0;
		for (unsigned n = 0; n < CPUS; n++)
			mask |= got[n] ? 1u << n : 0;
		if (mask == want)
			break;
		wait_us(1000);
	}
	wait_us(3000);
	irq_off();
	mask = 0;
	for (unsigned n = 0; n < CPUS; n++) {
		mask |= (got[n] ? 1u << n : 0) | (got[n] > 1 ? 0x100u << n : 0);
		got[n] = 0;
	}
	return mask;
}

static void send(uint32_t dest, uint32_t command)
{
	if (x2)
		wrmsr(X2APIC_ICR, (uint64_t)dest << 32 | command | 0x4000 | VECTOR);
	else
		apic_ipi(dest, command | 0x4000 | VECTOR);
}

static void expect(uint32_t dest, uint32_t command, unsigned want, const char *what)
{
	send(dest, command);
	unsigned mask = who(want);

	ok(mask == want, "%s%s to 0x%x: 0x%x (0x%x)", x2 ? "x2APIC: " : "", what, dest, mask, want);
}

/* One processor each time; and with equal priorities any of @among may be the one. */
static void lowest(uint32_t dest, unsigned among, const char *what)
{
	unsigned wrong = 0, total = 0;

	for (unsigned n = 0; n < 20; n++) {
		unsigned mask = 0;

		send(dest, LOGICAL | LOWEST);
		irq_on();
		for (unsigned ms = 0; ms < 1000 && !mask; ms++) {
			wait_us(200);
			for (unsigned c = 0; c < CPUS; c++)
				mask |= got[c] ? 1u << c : 0;
		}
		irq_off();
		for (unsigned c = 0; c < CPUS; c++)
			total += got[c], got[c] = 0;
		wrong += (mask & (mask - 1)) || !(mask & among) || mask & ~among;
	}
	ok(!wrong && total == 20, "%s%s: one of 0x%x each time (%u interrupts, %u wrong)", x2 ? "x2APIC: " : "", what, among, total, wrong);
}

static void shorthands(void)
{
	expect(0, SELF, 1, "self");
	expect(0, ALL, 15, "all");
	expect(0, OTHERS, 14, "all but self");
	expect(3, SELF, 1, "self, whatever the destination");
}

static void xapic(void)
{
	expect(0, 0, 1, "physical");
	expect(2, 0, 4, "physical");
	expect(0xff, 0, 15, "physical broadcast");
	expect(9, 0, 0, "physical, nobody");
	shorthands();
	everywhere(set_dfr, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff);
	everywhere(set_ldr, 1, 2, 4, 8);
	is(apic_read(APIC_LDR), 0x01000000, "LDR");
	expect(0x0a, LOGICAL, 10, "flat");
	expect(0x01, LOGICAL, 1, "flat");
	expect(0x0f, LOGICAL, 15, "flat");
	expect(0xff, LOGICAL, 15, "flat broadcast");
	expect(0xf0, LOGICAL, 0, "flat, nobody");
	everywhere(set_ldr, 3, 2, 6, 0);
	expect(0x02, LOGICAL, 7, "flat, several bits");
	/* Lowest priority: by the processor priority; vectors of class 6 go through all of these. */
	everywhere(set_ldr, 1, 2, 4, 8);
	everywhere(set_tpr, 0x40, 0x30, 0x20, 0x50);
	lowest(0x0f, 4, "lowest priority");
	lowest(0x0b, 2, "lowest priority without processor 2");
	everywhere(set_tpr, 0, 0, 0, 0);
	lowest(0x0f, 15, "lowest priority among equals");
	everywhere(set_tpr, 0x20, 0x10, 0x10, 0x20);
	lowest(0x0f, 6, "two of the lowest");
	everywhere(set_tpr, 0, 0, 0, 0);
	/* Clusters */
	everywhere(set_dfr, 0x0fffffff, 0x0fffffff, 0x0fffffff, 0x0fffffff);
	is(apic_read(APIC_DFR), 0x0fffffff, "DFR");
	everywhere(set_ldr, 0x11, 0x12, 0x21, 0x22);
	expect(0x13, LOGICAL, 3, "cluster");
	expect(0x22, LOGICAL, 8, "cluster");
	expect(0x2f, LOGICAL, 12, "cluster");
	expect(0x3f, LOGICAL, 0, "cluster, nobody");
	expect(0xff, LOGICAL, 15, "cluster broadcast");
	everywhere(set_dfr, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff);
	everywhere(set_ldr, 1, 2, 4, 8);
}

/* One tick of the 8254 through pin 2, its destination as the entry says. */
static void message(uint32_t dest, uint32_t low, unsigned want, const char *what)
{
	MMIO32(IOAPIC) = 0x15;
	MMIO32(IOAPIC + 0x10) = dest << 24;
	MMIO32(IOAPIC) = 0x14;
	MMIO32(IOAPIC + 0x10) = low | VECTOR;
	outb(0x43, 0x30);
	outb(0x40, 0xa9), outb(0x40, 4); /* mode 0: once, in 1 ms */
	unsigned mask = who(want);

	MMIO32(IOAPIC) = 0x14;
	MMIO32(IOAPIC + 0x10) = 0x10000;
	ok(mask == want, "%sI/O APIC, %s to 0x%x: 0x%x (0x%x)", x2 ? "x2APIC: " : "", what, dest, mask, want);
}

static void ioapic(void)
{
	message(3, 0, 8, "physical");
	message(0xff, 0, 15, "physical broadcast");
	message(0x06, LOGICAL, 6, "logical");
	everywhere(set_tpr, 0x40, 0x30, 0x20, 0x50);
	message(0x0f, LOGICAL | LOWEST, 4, "lowest priority");
	message(0x0b, LOGICAL | LOWEST, 2, "lowest priority");
	everywhere(set_tpr, 0, 0, 0, 0);
}

static void x2apic(void)
{
	everywhere(set_x2apic, 1, 1, 1, 1);
	x2 = true;
	is(rdmsr(X2APIC_LDR), 1, "x2APIC: LDR of processor 0: cluster 0, bit 0");
	is((uint64_t)TRY("wrmsr", (), ("c"(X2APIC_LDR), "a"(2), "d"(0))), GP, "x2APIC: the LDR is read-only");
	is((uint64_t)TRY("rdmsr", (), ("c"(0x80e)), "eax", "edx"), GP, "x2APIC: there is no DFR");
	expect(0, 0, 1, "physical");
	expect(2, 0, 4, "physical");
	expect(0xffffffff, 0, 15, "physical broadcast");
	expect(0xff, 0, 0, "physical 0xff is nobody");
	shorthands();
	expect(0x0000000a, LOGICAL, 10, "cluster 0");
	expect(0x0000000f, LOGICAL, 15, "cluster 0");
	expect(0x0001000f, LOGICAL, 0, "cluster 1");
	expect(0xffffffff, LOGICAL, 15, "logical broadcast");
	everywhere(set_tpr, 0x40, 0x30, 0x20, 0x50);
	lowest(0x0f, 4, "lowest priority");
	everywhere(set_tpr, 0, 0, 0, 0);
	wrmsr(X2APIC_SELF, VECTOR);
	is(who(1), 1, "x2APIC: SELF IPI");
	is((uint64_t)TRY("wrmsr", (), ("c"(X2APIC_SELF), "a"(0x100), "d"(0))), GP, "SELF IPI: reserved bits: #GP");
	is((uint64_t)TRY("wrmsr", (), ("c"(X2APIC_ICR), "a"(0x80000000u), "d"(0))), GP, "ICR: reserved bits: #GP");
	ioapic();
}

void main(void)
{
	pic_off();
	cpus_start(CPUS);
	on_vector(VECTOR, on_ipi);
	for (unsigned c = 1; c < CPUS; c++)
		cpu_call(c, serve, NULL);
	xapic();
	ioapic();
	x2apic();
	stop = true;
	for (unsigned c = 1; c < CPUS; c++)
		cpu_join(c);
}
