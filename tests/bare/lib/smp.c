/* SPDX-License-Identifier: Apache-2.0 */
/* Local APIC, delays, and the other processors. SDM vol. 3, 9.4 (start-up), 11.6 (IPIs). */
#include "lib/bare.h"

#define PM_TIMER 0x608

uint32_t pm_timer(void)
{
	return inl(PM_TIMER) & 0xffffff;
}

/* 3.579545 MHz, 24 bits */
void wait_us(unsigned us)
{
	uint32_t start = pm_timer(), ticks = us * 3 + us / 2 + us / 12;

	while (((pm_timer() - start) & 0xffffff) < ticks)
		cpu_relax();
}

void pic_off(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

void apic_enable(void)
{
	apic_write(APIC_LINT0, 0x10000);
	apic_write(APIC_SVR, 0x1ff);
	apic_write(APIC_TPR, 0);
}

void apic_ipi(unsigned apic_id, uint32_t command)
{
	apic_write(APIC_ICR2, apic_id << 24);
	apic_write(APIC_ICR, command);
	while (apic_read(APIC_ICR) & 1 << 12)
		cpu_relax();
}

#ifdef __x86_64__
extern char ap_code[], ap_code_end[];
extern word ap_stack;
void ap_start_c(void) __attribute__((noreturn));
static volatile unsigned ap_next;
static struct {
	void (*volatile fn)(void *);
	void *volatile arg;
	volatile bool up;
} cpus[CPUS_MAX];

unsigned cpu_index(void)
{
	unsigned sel;

	__asm__ volatile("str %0" : "=r"(sel));
	return ((sel & 0xffff) - SEL_TSS) / 16;
}

void ap_start_c(void)
{
	unsigned n = ap_next;

	gdt_load();
	idt_load();
	__asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss" ::"r"(SEL_KDATA));
	__asm__ volatile("ltr %w0" ::"r"(SEL_TSS + n * 16));
	apic_enable();
	cpus[n].up = true;
	for (;;) {
		void (*fn)(void *) = cpus[n].fn;

		if (fn) {
			fn(cpus[n].arg);
			__atomic_store_n(&cpus[n].fn, NULL, __ATOMIC_SEQ_CST);
		}
		cpu_relax();
	}
}

void cpus_start(unsigned count)
{
	apic_enable();
	memcpy((void *)0x8000, ap_code, ap_code_end - ap_code);
	for (unsigned n = 1; n < count; n++) {
		ap_next = n;
		ap_stack = (word)pages_alloc(4, 4096) + 4 * 4096;
		apic_ipi(n, 0x4500);
		wait_us(1000);
		apic_ipi(n, 0x4600 | 8);
		for (unsigned ms = 0; !cpus[n].up; ms++) {
			if (ms == 5000)
				bail("processor %u does not start", n);
			wait_us(1000);
		}
	}
}

void cpu_call(unsigned cpu, void (*fn)(void *), void *arg)
{
	cpus[cpu].arg = arg;
	__atomic_store_n(&cpus[cpu].fn, fn, __ATOMIC_SEQ_CST);
}

void cpu_join(unsigned cpu)
{
	while (cpus[cpu].fn)
		cpu_relax();
}
#endif
