/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ways out of a machine: triple faults, ACPI power-off, and the resets, each in a run of its own.
 *
 * run: -s 4 --append triple
 * run: -s 4 --append triple-idt
 * run: -s 0 --append off
 * run: --append cf9
 * run: --append cf9-full
 * run: --append i8042
 * run: --append port92
 * run: -s 4 --cpus 2 --append triple-ap
 * run: -s 253 --append exit-value
 */
#include "lib/bare.h"

static uint8_t cmos(uint8_t at)
{
	outb(0x70, at);
	return inb(0x71);
}

static void cmos_write(uint8_t at, uint8_t v)
{
	outb(0x70, at);
	outb(0x71, v);
}

static void triple(void *arg)
{
	struct table_reg none = { 0, 0 };

	__asm__ volatile("lidt %0; ud2" ::"m"(none));
}

static void triple_stack(void)
{
	tss[0].rsp[0] = 0;
	__asm__ volatile("mov %0, %%rsp; ud2" ::"r"(TEST_BASE));
}

/* On the way up again: the machine is as after power-on, CMOS RAM is kept. */
static void after_reset(void)
{
	is(cmos(0x70), 0x5a, "CMOS RAM is kept over a reset");
	is(read_cr4() & 0x80, 0, "CR4.PGE is clear again");
	is(rdmsr(0xc0000082), 0, "LSTAR is zero again");
	is(MMIO32(LAPIC + APIC_TMICT), 0, "the local APIC's timer is off");
	is(read_dr7(), 0x400, "DR7");
	cmos_write(0x70, 0);
	done();
}

void main(void)
{
	const char *what = command_line;

	while (*what && *what != ' ')
		what++;
	what += *what == ' ';
	if (cmos(0x70) == 0x5a)
		after_reset();
	if (strcmp(what, "cf9") && strcmp(what, "cf9-full") && strcmp(what, "i8042") && strcmp(what, "port92"))
		ok(true, "before: %s", what);
	if (!strcmp(what, "triple")) {
		plan_only();
		triple(NULL);
	} else if (!strcmp(what, "triple-idt")) {
		plan_only();
		triple_stack();
	} else if (!strcmp(what, "triple-ap")) {
		cpus_start(2);
		plan_only();
		cpu_call(1, triple, NULL);
		for (;;)
			cpu_relax();
	} else if (!strcmp(what, "exit-value")) {
		plan_only();
		outl(0xf4, 0x7e);
	} else if (!strcmp(what, "off")) {
		/* PM1a control: SLP_TYP as in the DSDT's \_S5, SLP_EN (ACPI 6.4, 4.8.3.2). */
		plan_only();
		outw(0x604, 7 << 10);
		wait_us(1000); /* without SLP_EN: nothing */
		outw(0x604, 7 << 10 | 1 << 13);
	} else {
		cmos_write(0x70, 0x5a);
		wrmsr(0xc0000082, 0x1234);
		write_cr4(read_cr4() | 0x80);
		write_dr7(0x455);
		apic_enable();
		apic_write(APIC_LVTT, 0x20040);
		apic_write(APIC_TMICT, 1000000);
		if (!strcmp(what, "cf9")) {
			outb(0xcf9, 2);
			outb(0xcf9, 6);
		} else if (!strcmp(what, "cf9-full")) {
			outb(0xcf9, 0xa);
			outb(0xcf9, 0xe);
		} else if (!strcmp(what, "i8042")) {
			outb(0x64, 0xfe);
		} else if (!strcmp(what, "port92")) {
			outb(0x92, (uint8_t)((inb(0x92) & ~1) | 1));
		}
	}
	wait_us(2000000);
	bail("%s did nothing", what);
}
