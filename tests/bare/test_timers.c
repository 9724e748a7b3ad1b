/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupt controllers and timers: 8259, 8254, I/O APIC, local APIC with its timer in all modes, HPET, RTC, PM timer. Intel 8259A
 * and 8254 data sheets; 82093AA data sheet; SDM vol. 3, chapter 11; IA-PC HPET 1.0a; MC146818 data sheet.
 */
#include "lib/bare.h"

#define IOAPIC 0xfec00000u
#define HPET 0xfed00000u
enum { IRQ_BASE = 0x30 };
static volatile unsigned count[256], order[32], orders;

static void note(struct frame *f)
{
	count[f->vector]++;
	if (orders < 32)
		order[orders++] = (unsigned)f->vector;
}

static void on_pic(struct frame *f)
{
	note(f);
	if (f->vector >= IRQ_BASE + 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

static void on_apic(struct frame *f)
{
	note(f);
	apic_write(APIC_EOI, 0);
}

static void clear(void)
{
	for (unsigned n = 0; n < 256; n++)
		count[n] = 0;
	orders = 0;
}

static unsigned level_timer;

/* The source is held until the third interrupt. */
static void on_level(struct frame *f)
{
	note(f);
	if (count[f->vector] == 3) {
		level_timer = MMIO32(HPET + 0x20) & 1;
		MMIO64(HPET + 0x100) = 0;
		MMIO32(HPET + 0x20) = 1;
	}
	apic_write(APIC_EOI, 0);
}

/* Lets interrupts in until @n of @vector came, or @ms are over. */
static bool await(unsigned vector, unsigned n, unsigned ms)
{
	irq_on();
	for (unsigned k = 0; k < ms * 10 && count[vector] < n; k++)
		wait_us(100);
	irq_off();
	return count[vector] >= n;
}

static void let_in(void)
{
	__asm__ volatile("sti; nop; nop; cli" ::: "memory");
}

static void pic_init(void)
{
	outb(0x20, 0x11), outb(0xa0, 0x11);
	outb(0x21, IRQ_BASE), outb(0xa1, IRQ_BASE + 8);
	outb(0x21, 4), outb(0xa1, 2);
	outb(0x21, 1), outb(0xa1, 1);
	outb(0x21, 0xff), outb(0xa1, 0xff);
}

static void pit(unsigned mode, unsigned n)
{
	outb(0x43, (uint8_t)(0x30 | mode << 1));
	outb(0x40, (uint8_t)n);
	outb(0x40, (uint8_t)(n >> 8));
}

static unsigned pit_read(void)
{
	outb(0x43, 0);
	unsigned low = inb(0x40);

	return low | (unsigned)inb(0x40) << 8;
}

/*
 * Ticks that came while interrupts were off, for @ms at 1 kHz: none may be missing, as none would be on a machine whose
 * processor is not slowed down by its neighbours.
 */
static void ticks_owed(unsigned vector, unsigned ms, const char *what)
{
	let_in();
	clear();
	uint32_t before = pm_timer();

	wait_us(ms * 1000);
	for (unsigned n = 0; n < 10; n++)
		let_in();
	unsigned passed = ((pm_timer() - before) & 0xffffff) / 3580;

	ok(count[vector] + 2 >= ms && count[vector] <= passed + 2, "%s: %u ticks after %u ms without interrupts", what,
	   count[vector], passed);
	clear();
	await(vector, 1, 100);
	let_in();
	ok(count[vector] >= 1 && count[vector] <= 100, "%s: then as before", what);
}

static void pic(void)
{
	for (unsigned v = IRQ_BASE; v < IRQ_BASE + 16; v++)
		on_vector(v, on_pic);
	/* Virtual wire: LINT0 as ExtINT, APIC software-disabled or enabled */
	apic_write(APIC_SVR, 0x1ff);
	apic_write(APIC_LINT0, 0x700);
	pic_init();
	is(inb(0x21), 0xff, "the mask reads back");
	clear();
	outb(0x21, 0xfe);
	pit(0, 1193);
	ok(await(IRQ_BASE, 1, 1000), "8254 mode 0 through the 8259: one interrupt");
	wait_us(5000);
	let_in();
	is(count[IRQ_BASE], 1, "and no second");
	clear();
	pit(2, 11932); /* 100 Hz */
	ok(await(IRQ_BASE, 5, 3000), "mode 2 is periodic");
	pit(2, 1193);
	ticks_owed(IRQ_BASE, 100, "8254 through the 8259");
	pit(2, 11932);
	outb(0x21, 0xff);
	wait_us(15000);
	let_in();
	clear();
	wait_us(15000);
	let_in();
	is(count[IRQ_BASE], 0, "masked: none");
	outb(0x20, 0x0a);
	is(inb(0x20) & 1, 1, "IRR shows the request");
	outb(0x21, 0xfe);
	let_in();
	is(count[IRQ_BASE], 1, "unmasked: it comes");
	outb(0x21, 0xff);
	unsigned a = pit_read(), b;

	wait_us(300);
	b = pit_read();
	ok(a <= 11932 && b <= 11932 && a != b, "the counter counts (%u, %u)", a, b);
	pit(0, 0xffff);
	a = pit_read();
	wait_us(1000);
	b = pit_read();
	ok(a - b > 900 && a - b < 40000, "1 ms is about 1193 counts (%u)", a - b);
	/* Channel 2 and port 61h */
	outb(0x61, (uint8_t)((inb(0x61) & ~2) | 1));
	outb(0x43, 0xb0);
	outb(0x42, 0xa9), outb(0x42, 4);
	is(inb(0x61) >> 5 & 1, 0, "channel 2: OUT is low");
	wait_us(20000);
	is(inb(0x61) >> 5 & 1, 1, "and high at the end");
	/* Read-back: status */
	pit(3, 1000);
	outb(0x43, 0xe2);
	is(inb(0x40) & 0x3f, 0x36, "read-back status: mode 3, both bytes");
	/* The slave, by the RTC: IRQ 8 */
	clear();
	outb(0x70, 0x0b);
	uint8_t was = inb(0x71);

	outb(0x70, 0x0a), outb(0x71, 0x26);
	outb(0x70, 0x0c), inb(0x71);
	outb(0xa1, 0xfe), outb(0x21, 0xfb);
	outb(0x70, 0x0b), outb(0x71, (uint8_t)(was | 0x40));
	ok(await(IRQ_BASE + 8, 1, 1000), "RTC periodic interrupt through the slave");
	wait_us(5000);
	let_in();
	is(count[IRQ_BASE + 8], 1, "none more until register C is read");
	outb(0x70, 0x0c);
	ok((inb(0x71) & 0xc0) == 0xc0, "register C: IRQF, PF");
	ok(await(IRQ_BASE + 8, 2, 1000), "then the next");
	outb(0x70, 0x0b), outb(0x71, was);
	outb(0x70, 0x0c), inb(0x71);
	outb(0xa1, 0xff), outb(0x21, 0xff);
	/* The time of day */
	outb(0x70, 0x00);
	uint8_t s = inb(0x71);
	unsigned changed = 0;

	for (unsigned n = 0; n < 250 && !changed; n++) {
		wait_us(10000);
		outb(0x70, 0);
		changed = inb(0x71) != s;
	}
	ok(changed, "the RTC's seconds go on");
	outb(0x70, 0x0d);
	is(inb(0x71) & 0x80, 0x80, "register D: valid RAM and time");
}

static uint32_t io_read(unsigned reg)
{
	MMIO32(IOAPIC) = reg;
	return MMIO32(IOAPIC + 0x10);
}

static void io_write(unsigned reg, uint32_t v)
{
	MMIO32(IOAPIC) = reg;
	MMIO32(IOAPIC + 0x10) = v;
}

static void io_route(unsigned pin, uint32_t low)
{
	io_write(0x11 + pin * 2, 0);
	io_write(0x10 + pin * 2, low);
}

static void ioapic(void)
{
	pic_off();
	apic_write(APIC_LINT0, 0x10000);
	ok((io_read(1) & 0xff) == 0x20 && (io_read(1) >> 16 & 0xff) == 23, "I/O APIC version 20h, 24 pins");
	on_vector(0x60, on_apic);
	on_vector(0x61, on_level);
	clear();
	pit(2, 11932);
	io_route(2, 0x60);
	ok(await(0x60, 3, 2000), "the timer, edge-triggered, on pin 2");
	pit(2, 1193);
	ticks_owed(0x60, 100, "8254 through the I/O APIC");
	io_route(2, 0x10060);
	wait_us(20000);
	let_in();
	clear();
	wait_us(20000);
	let_in();
	is(count[0x60], 0, "masked: none");
	/* Level: the HPET can hold a pin. */
	is(MMIO32(HPET + 4), MMIO32(HPET + 4), "the HPET answers");
	uint64_t period = MMIO32(HPET + 4);

	ok(period > 0 && period <= 100000000, "HPET period %llu fs", (unsigned long long)period);
	MMIO64(HPET + 0x10) = 0;
	MMIO64(HPET + 0xf0) = 0;
	MMIO64(HPET + 0x10) = 1;
	uint64_t h = MMIO64(HPET + 0xf0);

	wait_us(2000);
	h = MMIO64(HPET + 0xf0) - h;
	uint64_t us = h * period / 1000000000;

	ok(us >= 1900 && us < 50000, "2 ms by the HPET: %llu us", (unsigned long long)us);
	uint32_t routes = MMIO32(HPET + 0x104);

	unsigned pin = 0;

	for (unsigned n = 16; n < 24 && !pin; n++)
		if (routes >> n & 1)
			pin = n;
	if (!pin) {
		ok(false, "no HPET route to pins 16 to 23 (0x%x)", routes);
		return;
	}
	clear();
	io_route(pin, 0x8000 | 0x61);
	MMIO64(HPET + 0x100) = pin << 9 | 2 | 4; /* level, enabled */
	MMIO64(HPET + 0x108) = MMIO64(HPET + 0xf0) + 1000000000000 / period; /* 1 ms */
	ok(await(0x61, 3, 1000), "a level interrupt comes again after each EOI while it is held (%u)", count[0x61]);
	is(level_timer, 1, "HPET status bit");
	let_in();
	clear();
	wait_us(2000);
	let_in();
	is(count[0x61], 0, "cleared: none");
	is(io_read(0x10 + pin * 2) >> 14 & 1, 0, "remote IRR is clear");
	/* HPET periodic, edge */
	clear();
	io_route(pin, 0x60);
	MMIO64(HPET + 0x100) = pin << 9 | 4 | 8 | 0x40;
	MMIO64(HPET + 0x108) = MMIO64(HPET + 0xf0) + 5000000000000 / period;
	MMIO64(HPET + 0x108) = 5000000000000 / period;
	ok(await(0x60, 4, 3000), "HPET periodic, edge-triggered");
	MMIO64(HPET + 0x100) = 0;
	io_route(pin, 0x10000);
	/* Legacy replacement: comparator 0 is the timer interrupt, 1 the RTC's; the 8254 and the RTC are cut off. */
	pit(2, 11932);
	io_route(2, 0x60);
	io_route(8, 0x62);
	on_vector(0x62, on_apic);
	MMIO64(HPET + 0x10) = 3;
	is(MMIO32(HPET + 0x10) & 3, 3, "HPET legacy replacement");
	let_in();
	clear();
	wait_us(30000);
	let_in();
	is(count[0x60], 0, "the 8254 is cut off");
	MMIO64(HPET + 0x120) = 4;
	MMIO64(HPET + 0x128) = MMIO64(HPET + 0xf0) + 1000000000000 / period;
	ok(await(0x62, 1, 1000), "comparator 1 is interrupt 8");
	MMIO64(HPET + 0x120) = 0;
	MMIO64(HPET + 0x100) = 4 | 8 | 0x40 | pin << 9;
	MMIO64(HPET + 0x108) = MMIO64(HPET + 0xf0) + 1000000000000 / period;
	MMIO64(HPET + 0x108) = 1000000000000 / period;
	ok(await(0x60, 4, 3000), "comparator 0 is the timer interrupt, whatever its route");
	ticks_owed(0x60, 100, "HPET");
	MMIO64(HPET + 0x100) = 0;
	MMIO64(HPET + 0x10) = 1;
	let_in();
	clear();
	ok(await(0x60, 2, 1000), "replacement off: the 8254 is back");
	io_route(2, 0x10000);
	io_route(8, 0x10000);
}

static void lapic(void)
{
	apic_enable();
	is(apic_read(APIC_ID) >> 24, 0, "APIC ID");
	ok((apic_read(APIC_VERSION) & 0xff) >= 0x10 && (apic_read(APIC_VERSION) >> 16 & 0xff) >= 5, "version, LVT entries");
	on_vector(0x70, on_apic);
	on_vector(0x80, on_apic);
	on_vector(0x91, on_apic);
	clear();
	/* Priorities */
	apic_ipi(0, 0x40070);
	apic_ipi(0, 0x40091);
	apic_ipi(0, 0x40080);
	is(apic_read(APIC_IRR + 0x10 * (0x91 / 32)) >> (0x91 % 32) & 1, 1, "IRR");
	let_in();
	for (unsigned n = 0; n < 3; n++)
		let_in();
	ok(orders == 3 && order[0] == 0x91 && order[1] == 0x80 && order[2] == 0x70, "three pending: highest vector first");
	clear();
	apic_write(APIC_TPR, 0x80);
	apic_ipi(0, 0x40080);
	apic_ipi(0, 0x40091);
	let_in();
	let_in();
	ok(count[0x91] == 1 && count[0x80] == 0, "TPR 80h: class 8 waits");
	is(apic_read(APIC_PPR), 0x80, "PPR");
	apic_write(APIC_TPR, 0);
	let_in();
	is(count[0x80], 1, "TPR 0: it comes");
	__asm__ volatile("mov %0, %%cr8" ::"r"(9ul));
	apic_ipi(0, 0x40091);
	let_in();
	is(count[0x91], 1, "CR8 9: class 9 waits");
	__asm__ volatile("mov %0, %%cr8" ::"r"(0ul));
	let_in();
	is(count[0x91], 2, "CR8 0: it comes");
	/* Errors */
	apic_write(APIC_ESR, 0);
	apic_write(APIC_ESR, 0);
	apic_write(APIC_LVTERR, 0x70);
	clear();
	apic_ipi(0, 0x40000 | 5);
	let_in();
	apic_write(APIC_ESR, 0);
	ok(apic_read(APIC_ESR) & 0x60, "a vector below 16: ESR (0x%x)", apic_read(APIC_ESR));
	is(count[0x70], 1, "and the error interrupt");
	/* Timer */
	apic_write(APIC_TDCR, 0xb);
	apic_write(APIC_LVTT, 0x70);
	clear();
	apic_write(APIC_TMICT, 1000000);
	ok(apic_read(APIC_TMCCT) > 0, "one-shot: counts");
	ok(await(0x70, 1, 1000), "one-shot: fires");
	wait_us(5000);
	let_in();
	ok(count[0x70] == 1 && apic_read(APIC_TMCCT) == 0, "once");
	clear();
	apic_write(APIC_LVTT, 0x20070);
	apic_write(APIC_TMICT, 2000000);
	ok(await(0x70, 5, 3000), "periodic");
	apic_write(APIC_TMICT, 0);
	let_in();
	clear();
	wait_us(5000);
	let_in();
	is(count[0x70], 0, "initial count 0 stops it");
	apic_write(APIC_LVTT, 0x40070);
	wrmsr(0x6e0, rdtsc() + 3000000);
	ok(rdmsr(0x6e0) != 0, "TSC deadline armed");
	ok(await(0x70, 1, 1000), "fires");
	is(rdmsr(0x6e0), 0, "and is disarmed");
	clear();
	wrmsr(0x6e0, 1);
	let_in();
	ok(await(0x70, 1, 100), "a deadline in the past fires at once");
	clear();
	wrmsr(0x6e0, rdtsc() + 300000000);
	wrmsr(0x6e0, 0);
	apic_write(APIC_LVTT, 0x10070);
	wait_us(2000);
	let_in();
	is(count[0x70], 0, "0 disarms it");
	/* x2APIC */
	uint64_t base = rdmsr(0x1b), x;

	ok((base & 0xd00) == 0x900, "IA32_APIC_BASE: enabled, BSP");
	is((uint64_t)TRY("wrmsr", (), ("c"(0x80b), "a"(0), "d"(0))), GP, "x2APIC MSRs in xAPIC mode: #GP");
	wrmsr(0x1b, base | 0x400);
	is(rdmsr(0x802), 0, "x2APIC: ID");
	clear();
	wrmsr(0x830, 0x40000 | 0x91);
	__asm__ volatile("sti; nop" ::: "memory");
	on_vector(0x91, note);
	irq_off();
	wrmsr(0x83f, 0x80); /* SELF IPI */
	on_vector(0x80, note);
	wrmsr(0x80b, 0);
	let_in();
	wrmsr(0x80b, 0);
	ok(count[0x91] == 1 && count[0x80] == 1, "ICR and SELF IPI (%u, %u)", count[0x91], count[0x80]);
	is((uint64_t)TRY("wrmsr", (), ("c"(0x802), "a"(0), "d"(0))), GP, "the ID is read-only: #GP");
	is((uint64_t)TRY("wrmsr", (), ("c"(0x80b), "a"(1), "d"(0))), GP, "EOI of other than 0: #GP");
	is((uint64_t)TRY("rdmsr", (), ("c"(0x80b)), "eax", "edx"), GP, "reading EOI: #GP");
	is((uint64_t)TRY("wrmsr", (), ("c"(0x1b), "a"((uint32_t)base), "d"(0))), GP, "x2APIC to xAPIC: #GP");
	x = rdmsr(0x80d);
	is(x, 1, "LDR of x2APIC ID 0");
	is(rdmsr(0x80f) & 0x1ff, 0x1ff, "SVR");
	wrmsr(0x1b, base & ~0x800ull);
	is(cpuid(1, 0).d >> 9 & 1, 0, "disabled: CPUID has no APIC");
	wrmsr(0x1b, base);
	is(cpuid(1, 0).d >> 9 & 1, 1, "enabled again");
}

void main(void)
{
	uint32_t a = pm_timer();

	wait_us(1000);
	ok(((pm_timer() - a) & 0xffffff) >= 3500, "the PM timer runs");
	pic();
	ioapic();
	lapic();
}
