/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs of two engines (engines.h): their state moves from our chips to those in the kernel and back, and interrupts come there
 * once, from an 8259 and by a signal on an eventfd. Without KVM the state moves among our own chips.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>

#include "machine/lapics.h"
#include "tests/unit/engines.h"
#include "tests/unit/fakes.h"

static struct fake_clock fc;
static struct lapics lapics[2];

static uint8_t no_pic(void *opaque)
{
	return 0xff;
}

static void no_eoi(void *opaque, uint8_t vector)
{
}

static void no_taken(void *opaque)
{
}

/* But for what is the chip's: its version and PPR; and the time left, which goes on in the kernel. */
static bool same_lapic(const struct x86_lapic *a, const struct x86_lapic *b)
{
	static const uint16_t own[] = { APIC_LVR, APIC_PPR, APIC_APR, APIC_TMCCT, APIC_LVT_CMCI };
	struct x86_lapic x = *a, y = *b;

	for (unsigned k = 0; k < ARRAY_SIZE(own); k++)
		x.reg[own[k] >> 4] = y.reg[own[k] >> 4] = 0;
	for (unsigned k = 0; k < 64; k++)
		if (x.reg[k] != y.reg[k])
			printf("# local APIC, offset %#x: %#x and %#x\n", k * 16, x.reg[k], y.reg[k]);
	return x.base == y.base && !memcmp(x.reg, y.reg, sizeof(x.reg)) && x.tsc_deadline == y.tsc_deadline;
}

/* To the translator's chips, from there to KVM (@to: 1) or to chips again (0), and back. */
static void lapic_travels(const struct x86_lapic *start, unsigned to, const char *what)
{
	struct x86_lapic a, b, c;

	loop_lock(g.loop);
	ok(lapics_set_state(&lapics[0], 0, start), "%s: a local APIC takes it", what);
	lapics_get_state(&lapics[0], 0, &a);
	ok(lapics_set_state(&lapics[to], 0, &a), "%s: there", what);
	lapics_get_state(&lapics[to], 0, &b);
	ok(same_lapic(&a, &b), "%s: the same there", what);
	ok(lapics_set_state(&lapics[0], 0, &b), "%s: and back", what);
	lapics_get_state(&lapics[0], 0, &c);
	ok(same_lapic(&a, &c), "%s: as it was", what);
	loop_unlock(g.loop);
}

/* ---- Interrupts to local APICs of an engine ---- */

#define VECTOR 0x40u
#define GUEST_IDT (GUEST_DATA + 0x1000)
#define GUEST_GDT (GUEST_DATA + 0x3000)
#define HANDLER (GUEST_CODE + 0x100)

static unsigned pic_asked, pic_taken;

static uint8_t one_vector(void *opaque)
{
	pic_asked++;
	lapics_set_lint(&lapics[1], 0, false);
	return VECTOR;
}

static void one_taken(void *opaque)
{
	pic_taken++;
}

static void *run_until_stop(void *opaque)
{
	struct vcpu_exit exit;

	vcpu_run(opaque, &exit);
	return NULL;
}

static void raise_lint0(void)
{
	loop_lock(g.loop);
	lapics_set_lint(&lapics[1], 0, true);
	loop_unlock(g.loop);
}

/* cli; nop; sti; again: hlt; jmp again: it is raised before, or when the processor has long been halted. Whether it comes, once. */
static bool interrupt_comes(void (*raise)(void), bool halted)
{
	static const uint8_t waits[] = { 0xfa, 0x90, 0xfb, 0xf4, 0xeb, 0xfd };
	static const uint8_t handler[] = { 0x48, 0xff, 0x07, 0xe6, 0xf4, 0x48, 0xcf }; /* incq (%rdi); out %al, $0xf4; iretq */
	const struct timespec nap = { 0, 200000000 };
	struct x86_sregs s;
	struct x86_regs r;
	pthread_t thread;
	uint64_t count = 0;

	current = 1;
	start_state(on[1]);
	lapics_set_up(&lapics[1]);
	guest_load(&g, GUEST_CODE, waits, sizeof(waits));
	guest_load(&g, HANDLER, handler, sizeof(handler));
	guest_put64(&g, GUEST_GDT + 8, 0x00af9b000000ffff);
	guest_put64(&g, GUEST_GDT + 16, 0x00cf93000000ffff);
	guest_put64(&g, GUEST_IDT + 16 * VECTOR, (uint64_t)(HANDLER >> 16) << 48 | 0x8e0000080000 | (HANDLER & 0xffff));
	vcpu_get_sregs(on[1], &s);
	s.gdtr = (struct x86_table){ GUEST_GDT, 23 };
	s.idtr = (struct x86_table){ GUEST_IDT, 0xfff };
	vcpu_set_sregs(on[1], &s);
	if (!halted)
		raise();
	pthread_create(&thread, NULL, run_until_stop, on[1]);
	if (halted) {
		nanosleep(&nap, NULL);
		raise();
	}
	pthread_join(thread, NULL);
	vcpu_get_regs(on[1], &r);
	if (!mem_read(g.mem, GUEST_DATA, &count, 8))
		abort();
	if (count != 1 || r.rip != HANDLER + 5)
		printf("# %u interrupts, RIP %#llx\n", (unsigned)count, (unsigned long long)r.rip);
	return count == 1 && r.rip == HANDLER + 5;
}

/* The 8259's. A vector that has been given is part of the state, and a reset ends it. */
static void test_pic(void)
{
	const struct x86_events given = { .interrupt = VECTOR };
	struct x86_events e;

	for (unsigned halted = 0; halted < 2; halted++) {
		pic_asked = pic_taken = 0;
		ok(interrupt_comes(raise_lint0, halted) && pic_asked == 1 && pic_taken == 1, "the 8259's interrupt comes once, %s",
		   halted ? "out of HLT" : "when it may");
	}
	vcpu_set_events(on[1], &given);
	vcpu_reset(on[1]);
	vcpu_get_events(on[1], &e);
	ok(e.interrupt == -1, "a reset forgets an interrupt that is about to be delivered");
}

static int line = -1;

static void signal_line(void)
{
	if (eventfd_write(line, 1))
		abort();
}

static bool set_line(bool is_on, uint32_t data)
{
	const struct msi_sink *sink = lapics_msi_sink(&lapics[1]);
	bool listens;

	loop_lock(g.loop);
	listens = sink->set_irqfd(sink->opaque, line, is_on, 0xfee00000, data);
	loop_unlock(g.loop);
	return listens;
}

/* A message by a signal: what is behind it changes, and ends. */
static void test_irqfd(void)
{
	struct x86_lapic x;

	line = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ok(set_line(true, VECTOR), "KVM listens to an eventfd");
	ok(interrupt_comes(signal_line, false), "its signal is an interrupt, when it may");
	ok(interrupt_comes(signal_line, true), "out of HLT");
	ok(set_line(true, 0x51), "another message");
	lapics_set_up(&lapics[1]);
	signal_line();
	lapics_get_state(&lapics[1], 0, &x);
	ok(x.reg[APIC_IRR >> 4 | 0x51 / 32] == 1u << 0x51 % 32, "is the one that comes");
	ok(!set_line(true, 0x100 | 0x51), "not one of lowest priority, which the kernel would deliver later");
	lapics_set_up(&lapics[1]);
	signal_line();
	lapics_get_state(&lapics[1], 0, &x);
	ok(!x.reg[APIC_IRR >> 4 | 0x51 / 32], "so a signal is none of both");
	ok(set_line(true, 0x51) && !set_line(false, 0), "no longer");
	lapics_set_up(&lapics[1]);
	signal_line();
	lapics_get_state(&lapics[1], 0, &x);
	ok(!x.reg[APIC_IRR >> 4 | 0x51 / 32], "a signal is nothing then");
	close(line);
}

static void test_lapics(void)
{
	struct lapics_config c = { g.engine, &fc.clock, 1, no_pic, no_eoi, no_taken, NULL };
	struct x86_lapic x;
	unsigned to = kvm ? 1 : 0;

	fake_clock_init(&fc);
	vcpu_reset(on[0]);
	lapics_init(&lapics[0], &c);
	if (kvm) {
		c.engine = kvm;
		c.pic_ack = one_vector;
		c.taken = one_taken;
		vcpu_reset(on[1]);
		lapics_init(&lapics[1], &c);
		ok(lapics[1].engines, "KVM's are in the kernel");
	}
	lapics_get_state(&lapics[0], 0, &x);
	lapic_travels(&x, to, "after power-on");
	lapics_set_up(&lapics[0]);
	lapics_get_state(&lapics[0], 0, &x);
	lapic_travels(&x, to, "virtual wire");

	x.reg[APIC_TPR >> 4] = 0x30;
	x.reg[APIC_LDR >> 4] = 0x01000000;
	x.reg[APIC_ISR >> 4 | 2] = 2;
	x.reg[APIC_IRR >> 4 | 1] = 0x100;
	x.reg[APIC_TMR >> 4 | 2] = 2;
	x.reg[APIC_LVT_TIMER >> 4] = 0x20041;
	x.reg[APIC_TDCR >> 4] = 0xb;
	x.reg[APIC_TMICT >> 4] = x.reg[APIC_TMCCT >> 4] = 4000000000u;
	lapic_travels(&x, to, "vectors, a periodic timer");
	x.reg[APIC_LVT_TIMER >> 4] = 0x40041;
	x.reg[APIC_TMICT >> 4] = x.reg[APIC_TMCCT >> 4] = 0;
	x.tsc_deadline = 1ull << 60;
	x.deadline_left_ns = 1ull << 58;
	lapic_travels(&x, to, "a deadline");
	x.tsc_deadline = x.deadline_left_ns = 0;
	lapic_travels(&x, to, "and none");
	x.base |= APIC_BASE_EXTD;
	x.reg[APIC_ICR >> 4] = 0x40041;
	x.reg[APIC_ICR2 >> 4] = 7;
	x.reg[APIC_DFR >> 4] = ~0u;
	lapic_travels(&x, to, "x2APIC mode");
	if (kvm) {
		test_pic();
		test_irqfd();
	}

	for (unsigned k = 0; k <= to; k++) {
		lapic_device(lapics[k].chip[0])->ops->destroy(lapic_device(lapics[k].chip[0]));
		lapics_finish(&lapics[k]);
	}
}

int main(void)
{
	engines_open();
	test_lapics();
	engines_close();
	return done_testing();
}
