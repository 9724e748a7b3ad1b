/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC's timer (one-shot, periodic, TSC deadline), and what the timers of the machine are told about the ticks that they send
 * through an I/O APIC or the 8259 (lapic_bus.h).
 */
#include "tests/unit/lapic_bus.h"

static void test_timer(void)
{
	uint64_t out;

	wr(0, APIC_TDCR, 0xb);
	wr(0, APIC_LVT_TIMER, 0x80);
	wr(0, APIC_TMICT, 1000);
	fake_clock_advance(&fc, 400);
	is_u64(rd(0, APIC_TMCCT), 600, "1 GHz at divide 1");
	wr(0, APIC_TDCR, 0);
	fake_clock_advance(&fc, 200);
	is_u64(rd(0, APIC_TMCCT), 500, "divide by 2 from here on");
	fake_clock_advance(&fc, 999);
	ok(!pending(0), "not yet");
	fake_clock_advance(&fc, 1);
	is_u64(ack(0), 0x80, "one-shot");
	wr(0, APIC_EOI, 0);
	is_u64(rd(0, APIC_TMCCT), 0, "stopped at zero");
	wr(0, APIC_TMICT, 100);
	fc.now_ns += 500;
	wr(0, APIC_LVT_TIMER, 0x20080);
	is_u64(got(0x80), 1, "expired, and the host late: expires before the mode changes");
	is_u64(rd(0, APIC_TMCCT), 0, "so it is not periodic");
	wr(0, APIC_LVT_TIMER, 0x80);
	ok(!fc.armed, "nothing armed");
	for (unsigned i = 0; i < 8; i++) {
		static const uint8_t divide[] = { 2, 4, 8, 16, 32, 64, 128, 1 };

		wr(0, APIC_TDCR, (i & 3) | (i & 4) << 1);
		wr(0, APIC_TMICT, 100);
		fake_clock_advance(&fc, 10 * divide[i]);
		is_u64(rd(0, APIC_TMCCT), 90, "divide by %u", divide[i]);
	}
	wr(0, APIC_TMICT, 0);
	ok(!fc.armed, "count 0 stops it");

	wr(0, APIC_LVT_TIMER, 0x20081);
	wr(0, APIC_TMICT, 50000);
	for (unsigned i = 0; i < 5; i++) {
		fake_clock_advance(&fc, 50000);
		is_u64(got(0x81), 1, "periodic");
	}
	fc.now_ns += 120000;
	is_u64(rd(0, APIC_TMCCT), 30000, "the count does not wait for the host");
	fake_clock_advance(&fc, 0);
	is_u64(got(0x81), 1, "missed periods are one interrupt");
	ok(!fake_clock_advance(&fc, 0), "which needed no timer, as the guest looked");
	fake_clock_advance(&fc, 30000);
	is_u64(got(0x81), 1, "and the next comes in time");
	wr(0, APIC_TMICT, 1);
	ok(fake_clock_advance(&fc, NS_PER_MS) <= 100, "a mad rate is limited");

	lapic_set_tsc_deadline(cpu[0].apic, 5, fc.now_ns + 5);
	ok(lapic_msr_read(cpu[0].apic, MSR_IA32_TSC_DEADLINE, &out) && out == 0,
	   "no deadline outside of TSC-deadline mode");
	wr(0, APIC_LVT_TIMER, 0x40082);
	ok(!fc.armed, "the change of mode disarms");
	got(0x81);
	wr(0, APIC_TMICT, 100);
	is_u64(rd(0, APIC_TMICT), 0, "counts are ignored");
	lapic_set_tsc_deadline(cpu[0].apic, 123456, fc.now_ns + 777);
	ok(lapic_msr_read(cpu[0].apic, MSR_IA32_TSC_DEADLINE, &out) && out == 123456, "reads back");
	fake_clock_advance(&fc, 776);
	ok(!pending(0), "not yet");
	fake_clock_advance(&fc, 1);
	is_u64(got(0x82), 1, "deadline");
	ok(lapic_msr_read(cpu[0].apic, MSR_IA32_TSC_DEADLINE, &out) && out == 0,
	   "zero when it has fired");
	lapic_set_tsc_deadline(cpu[0].apic, 1, 0);
	is_u64(got(0x82), 1, "a past deadline fires at once");
	lapic_set_tsc_deadline(cpu[0].apic, 9, fc.now_ns + 9);
	lapic_set_tsc_deadline(cpu[0].apic, 0, 0);
	ok(!fc.armed, "zero disarms");
}

static unsigned taken;

static void on_taken(void *opaque)
{
	taken++;
}

/* What a timer asks before it sends a tick, and what it is told. */
static void test_edges(void)
{
	reset_all();
	apic_bus_set_taken(bus, on_taken, NULL);
	bus_write(mmio, IOAPIC_BASE + IOREGSEL, IOREDTBL + 5, 4);
	bus_write(mmio, IOAPIC_BASE + IOWIN, 1u << 24, 4);
	bus_write(mmio, IOAPIC_BASE + IOREGSEL, IOREDTBL + 4, 4);
	is_u64(ioapic_edge(ioapic, 2), IRQ_EDGE_IGNORED, "an edge on a masked pin is ignored");
	bus_write(mmio, IOAPIC_BASE + IOWIN, 0x40, 4);
	is_u64(ioapic_edge(ioapic, 2), IRQ_EDGE_TAKEN, "unmasked: it would be taken");
	ioapic_set_irq(ioapic, 2, true);
	ioapic_set_irq(ioapic, 2, false);
	is_u64(ioapic_edge(ioapic, 2), IRQ_EDGE_WAITS, "the next would be lost: the first waits");
	is_u64((unsigned)ack(1), 0x40, "taken");
	is_u64(taken, 1, "which is told");
	is_u64(ioapic_edge(ioapic, 2), IRQ_EDGE_TAKEN, "in service: the next has its place in IRR");
	wr(1, APIC_EOI, 0);
	wr(1, APIC_SVR, 0xff);
	is_u64(ioapic_edge(ioapic, 2), IRQ_EDGE_IGNORED, "a local APIC that is off takes nothing");
	bus_write(ports, I8259_MASTER_PORT + 1, 0xff, 1);
	is_u64(i8259_edge(pic, 0), IRQ_EDGE_IGNORED, "nor does a masked 8259");
	is_u64((unsigned)(ack(1) + 1), 0, "nothing to take");
	is_u64(taken, 1, "is not told");
	bus_write(mmio, IOAPIC_BASE + IOWIN, IOREDTBL_MASK, 4);
	apic_bus_set_taken(bus, NULL, NULL);
}

int main(void)
{
	make_all();
	reset_all();
	test_timer();
	test_edges();
	destroy_all();
	return done_testing();
}
