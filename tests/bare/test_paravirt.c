/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paravirtual end of interrupts (Linux' Documentation/virt/kvm/x86/msr.rst, MSR_KVM_PV_EOI_EN): a timer's interrupts are ended
 * by clearing a bit where it is set, by the local APIC otherwise, and each comes once.
 */
#include "lib/bare.h"

enum { PV_EOI = 1 << 6, MSR_PV_EOI = 0x4b564d04, TIMER = 0x50, PERIODIC = 1 << 17, WANTED = 300 };

static volatile uint32_t *word_at;
static volatile unsigned count, by_bit, nested;
static volatile bool inside;

static void on_timer(struct frame *f)
{
	uint32_t was;

	nested += inside;
	inside = true;
	/* An edge in between: the bit may be taken back at any time, so that is one instruction. */
	__asm__ volatile("xor %0, %0; btrl $0, %1; adc $0, %0" : "=&r"(was), "+m"(*word_at) :: "cc", "memory");
	inside = false;
	count++;
	if (was)
		by_bit++;
	else
		apic_write(APIC_EOI, 0);
}

void main(void)
{
	if (cpuid(0x40000000, 0).b != 0x4b4d564b || !(cpuid(0x40000001, 0).a & PV_EOI)) {
		ok(true, "no paravirtual end of interrupts # SKIP this engine does not offer it");
		return;
	}
	pic_off();
	apic_enable();
	on_vector(TIMER, on_timer);
	word_at = page_alloc();
	is((uint64_t)TRY("wrmsr", (), ("c"(MSR_PV_EOI), "a"(2), "d"(0))), GP, "a reserved bit in its MSR: #GP");
	is((uint64_t)TRY("wrmsr", (), ("c"(MSR_PV_EOI), "a"(1), "d"(0x1000))), GP, "an address without RAM: #GP");
	wrmsr(MSR_PV_EOI, (word)word_at | 1);
	is(rdmsr(MSR_PV_EOI), (word)word_at | 1, "it is on");
	apic_write(APIC_TDCR, 0xb);
	apic_write(APIC_LVTT, TIMER | PERIODIC);
	apic_write(APIC_TMICT, 1000000); /* of a nanosecond or more each */
	irq_on();
	for (unsigned k = 0; k < 200000 && count < WANTED; k++)
		wait_us(50);
	irq_off();
	apic_write(APIC_LVTT, 1 << 16);
	ok(count >= WANTED, "%u interrupts of the timer", count);
	is(nested, 0, "none within another");
	/* An engine that polls at each opportunity (a debug option) takes each bit back, but not one of two. */
	ok(4 * by_bit >= 3 * count || 4 * by_bit <= count, "of them %u were ended by the bit", by_bit);
	is(*word_at, 0, "no bit is left");
	wrmsr(MSR_PV_EOI, 0);
	is(MMIO32(LAPIC + APIC_ISR + 0x10 * (TIMER / 32)), 0, "nothing is left in service");
}
