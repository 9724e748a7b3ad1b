/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs on their bus: priorities, IPIs and MSIs, LVTs, timer, modes, errors; with the real
 * I/O APIC and 8259.
 */
#include "dev/i8259.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

#define CPUS 4

static struct cpu {
	struct lapic *apic;
	unsigned kicks, nmis, inits, sipis, smis;
	uint8_t sipi_vector;
} cpu[CPUS];
static struct fake_clock fc;
static struct bus *ports, *mmio;
static struct apic_bus *bus;
static struct i8259 *pic;
static struct ioapic *ioapic;

static void kick(void *opaque)
{
	((struct cpu *)opaque)->kicks++;
}
static void nmi(void *opaque)
{
	((struct cpu *)opaque)->nmis++;
}
static void init(void *opaque)
{
	((struct cpu *)opaque)->inits++;
}
static void sipi(void *opaque, uint8_t vector)
{
	((struct cpu *)opaque)->sipis++;
	((struct cpu *)opaque)->sipi_vector = vector;
}
static void smi(void *opaque)
{
	((struct cpu *)opaque)->smis++;
}
static uint8_t pic_ack(void *opaque)
{
	return i8259_ack(opaque);
}
static void broadcast_eoi(void *opaque, uint8_t vector)
{
	ioapic_eoi(opaque, vector);
}

static void wr(unsigned c, uint32_t reg, uint32_t value)
{
	lapic_mmio_write(cpu[c].apic, reg, value);
}
static uint32_t rd(unsigned c, uint32_t reg)
{
	return lapic_mmio_read(cpu[c].apic, reg);
}
static int ack(unsigned c)
{
	return lapic_intr_ack(cpu[c].apic);
}
static bool pending(unsigned c)
{
	return lapic_intr_pending(cpu[c].apic);
}
static void msi(uint32_t dest, bool logical, uint32_t data)
{
	msi_send(apic_bus_msi_sink(bus), 0xfee00000 | dest << 12 | (logical ? 4 : 0), data);
}
static void ipi(unsigned c, uint32_t dest, uint32_t icr)
{
	wr(c, APIC_ICR2, dest << 24);
	wr(c, APIC_ICR, icr);
}
/* Bit mask of the CPUs that have @vector, which they take and end. */
static unsigned got(int vector)
{
	unsigned set = 0;

	for (unsigned c = 0; c < CPUS; c++) {
		if (!pending(c))
			continue;
		if (ack(c) == vector)
			set |= 1u << c;
		wr(c, APIC_EOI, 0);
	}
	return set;
}

static void reset_all(void)
{
	for (unsigned c = 0; c < CPUS; c++) {
		lapic_device(cpu[c].apic)->ops->reset(lapic_device(cpu[c].apic));
		wr(c, APIC_SVR, 0x1ff);
	}
	ioapic_device(ioapic)->ops->reset(ioapic_device(ioapic));
}

static void test_reset_state(void)
{
	is_u64(lapic_apic_base(cpu[0].apic), 0xfee00900, "BSP");
	is_u64(lapic_apic_base(cpu[1].apic), 0xfee00800, "AP");
	is_u64(rd(1, APIC_ID), 1u << 24, "id");
	is_u64(rd(0, APIC_LVR), LAPIC_VERSION, "version");
	is_u64(rd(0, APIC_SVR), 0xff, "software-disabled");
	is_u64(rd(0, APIC_LVT_LINT0), 0x10000, "LVTs masked");
	is_u64(rd(0, APIC_DFR), 0xffffffff, "flat model");
	msi(0, false, 0x40);
	ok(!pending(0), "a software-disabled APIC takes no fixed interrupt");
	wr(0, APIC_LVT_ERROR, 0x20);
	is_u64(rd(0, APIC_LVT_ERROR), 0x10020, "nor can LVTs be unmasked");
	ok(lapic_mmio_claims(cpu[0].apic, 0xfee00ffc) &&
		   !lapic_mmio_claims(cpu[0].apic, 0xfee01000),
	   "one page");
}

static void test_priorities(void)
{
	unsigned kicks = cpu[0].kicks;

	msi(0, false, 0x41);
	ok(pending(0) && cpu[0].kicks == kicks + 1, "accepted, kicked once");
	msi(0, false, 0x41);
	msi(0, false, 0x62);
	is_u64(rd(0, APIC_IRR + 0x20), 2, "IRR bit 0x41");
	is_u64(ack(0), 0x62, "the highest first");
	is_u64(rd(0, APIC_PPR), 0x60, "PPR follows the vector in service");
	ok(!pending(0), "0x41 waits");
	msi(0, false, 0x6f);
	ok(!pending(0), "same class waits");
	msi(0, false, 0x70);
	is_u64(ack(0), 0x70, "higher class nests");
	wr(0, APIC_EOI, 0);
	is_u64(rd(0, APIC_ISR + 0x30), 4, "EOI ends the highest");
	wr(0, APIC_EOI, 0);
	is_u64(ack(0), 0x6f, "then the others");
	wr(0, APIC_EOI, 0);
	wr(0, APIC_TPR, 0x45);
	ok(!pending(0), "TPR holds its class back");
	is_u64(rd(0, APIC_PPR), 0x45, "PPR is TPR");
	is_u64(lapic_get_cr8(cpu[0].apic), 4, "CR8 shows TPR");
	is_u64(ack(0), (uint64_t)-1, "nothing to take");
	kicks = cpu[0].kicks;
	lapic_set_cr8(cpu[0].apic, 3);
	ok(pending(0) && cpu[0].kicks == kicks + 1, "CR8 lets it through");
	is_u64(ack(0), 0x41, "0x41");
	wr(0, APIC_EOI, 0);
	lapic_set_cr8(cpu[0].apic, 0);
	wr(0, APIC_EOI, 0);
	ok(!pending(0), "a stray EOI does nothing");
}

static void test_destinations(void)
{
	msi(2, false, 0x51);
	is_u64(got(0x51), 4, "physical");
	msi(0xff, false, 0x51);
	is_u64(got(0x51), 0xf, "physical broadcast");
	for (unsigned c = 0; c < CPUS; c++)
		wr(c, APIC_LDR, 1u << (24 + c));
	msi(0x6, true, 0x52);
	is_u64(got(0x52), 6, "logical flat");
	msi(0xff, true, 0x52);
	is_u64(got(0x52), 0xf, "logical broadcast");
	for (unsigned c = 0; c < CPUS; c++) {
		wr(c, APIC_DFR, 0);
		wr(c, APIC_LDR, (c / 2) << 28 | 1u << (24 + c % 2));
	}
	msi(0x13, true, 0x53);
	is_u64(got(0x53), 0xc, "logical cluster 1");
	msi(0x02, true, 0x53);
	is_u64(got(0x53), 2, "one of cluster 0");
	is_u64(rd(0, APIC_DFR), 0x0fffffff, "DFR reads back");
	for (unsigned c = 0; c < CPUS; c++) {
		wr(c, APIC_DFR, 0xffffffff);
		wr(c, APIC_LDR, 1u << (24 + c));
	}

	lapic_set_cr8(cpu[0].apic, 5);
	lapic_set_cr8(cpu[1].apic, 2);
	lapic_set_cr8(cpu[3].apic, 2);
	msi(0xb, true, 0x161);
	msi(0xb, true, 0x161);
	is_u64(got(0x61), 0xa, "lowest priority, in turn among equals");
	wr(1, APIC_SVR, 0xff);
	msi(0x3, true, 0x161);
	is_u64(got(0x61), 1, "not to a software-disabled one");
	wr(1, APIC_SVR, 0x1ff);
	for (unsigned c = 0; c < CPUS; c++)
		lapic_set_cr8(cpu[c].apic, 0);

	ipi(0, 3, 0x4054);
	is_u64(got(0x54), 8, "IPI physical");
	is_u64(rd(0, APIC_ICR), 0x4054, "idle at once");
	ipi(1, 0x5, 0x4855);
	is_u64(got(0x55), 5, "IPI logical");
	ipi(1, 0, 0x44056);
	is_u64(got(0x56), 2, "self");
	ipi(1, 0, 0x84056);
	is_u64(got(0x56), 0xf, "all");
	ipi(1, 0, 0xc4056);
	is_u64(got(0x56), 0xd, "all others");
	ipi(1, 0, 0xcc056);
	is_u64(rd(0, APIC_TMR + 0x20), 0, "an IPI is edge-triggered");
	got(0x56);

	ipi(0, 1, 0x4400);
	is_u64(cpu[1].nmis, 1, "NMI");
	ipi(0, 1, 0x4200);
	is_u64(cpu[1].smis, 1, "SMI");
	msi(1, false, 0x400);
	is_u64(cpu[1].nmis, 2, "NMI by MSI");
	lapic_set_cr8(cpu[1].apic, 7);
	ipi(0, 1, 0xc500);
	is_u64(cpu[1].inits, 1, "INIT");
	is_u64(rd(1, APIC_TPR) | (rd(1, APIC_SVR) & 0x100), 0, "resets the APIC too");
	ipi(0, 1, 0x8500);
	is_u64(cpu[1].inits, 1, "INIT de-assert does nothing");
	ipi(0, 1, 0x4609);
	ok(cpu[1].sipis == 1 && cpu[1].sipi_vector == 9, "start-up with its vector");
	wr(1, APIC_SVR, 0x1ff);
	ipi(0, 1, 0x4300);
	ipi(0, 1, 0x4700);
	ok(!pending(1), "reserved delivery modes do nothing");
}

static void test_errors(void)
{
	wr(0, APIC_LVT_ERROR, 0x3f);
	ipi(0, 1, 0x4005);
	is_u64(ack(0), 0x3f, "illegal vector to send: error interrupt");
	wr(0, APIC_EOI, 0);
	is_u64(rd(0, APIC_ESR), 0, "ESR shows it only after a write");
	wr(0, APIC_ESR, 0);
	is_u64(rd(0, APIC_ESR), APIC_ESR_SEND_ILLEGAL_VECTOR, "then");
	wr(0, APIC_ESR, 0);
	is_u64(rd(0, APIC_ESR), 0, "and is gone with the next");
	msi(0, false, 0x0f);
	wr(0, APIC_ESR, 0);
	is_u64(rd(0, APIC_ESR), APIC_ESR_RECEIVE_ILLEGAL_VECTOR, "illegal vector received");
	ok(got(0x3f) == 1, "with its interrupt");
	wr(0, APIC_LVT_ERROR, 0x02);
	rd(0, 0x40);
	wr(0, APIC_ESR, 0);
	is_u64(rd(0, APIC_ESR), APIC_ESR_ILLEGAL_REGISTER | APIC_ESR_RECEIVE_ILLEGAL_VECTOR,
	       "illegal register, told by an illegal vector");
	wr(0, APIC_LVT_ERROR, 0x10000);
	is_u64(rd(0, 0x24), 0, "between the registers");
}

static void test_pic(void)
{
	bus_write(ports, 0x20, 0x11, 1);
	bus_write(ports, 0x21, 0x20, 1);
	bus_write(ports, 0x21, 4, 1);
	bus_write(ports, 0x21, 3, 1);
	i8259_set_irq(pic, 3, true);
	ok(!pending(0), "LINT0 masked");
	lapic_set_virtual_wire(cpu[0].apic);
	ok(pending(0) && !pending(1), "virtual wire: the CPU with LINT0 set to ExtINT");
	lapic_set_cr8(cpu[0].apic, 15);
	ok(pending(0), "whatever the TPR");
	is_u64(ack(0), 0x23, "the 8259's vector");
	ok(!pending(0), "taken");
	is_u64(ack(0), (uint64_t)-1, "once");
	is_u64(rd(0, APIC_ISR + 0x10), 0, "not in service here");
	lapic_set_cr8(cpu[0].apic, 0);
	i8259_set_irq(pic, 3, false);

	ok(lapic_msr_write(cpu[1].apic, MSR_IA32_APIC_BASE, 0xfee00000), "APIC disabled");
	i8259_set_irq(pic, 4, true);
	ok(pending(1), "then LINT0 is INTR");
	wr(0, APIC_LVT_LINT0, 0x10000);
	ok(!pending(0), "masking LINT0 withdraws it");
	is_u64(ack(1), 0x24, "taken there");
	i8259_set_irq(pic, 4, false);
	apic_bus_set_lint(bus, 1, true);
	ok(cpu[1].nmis == 3 && cpu[0].nmis == 1, "and LINT1 is NMI, as it is by LVT");
	apic_bus_set_lint(bus, 1, false);
	is_u64(rd(1, APIC_ID), 0xffffffff, "no registers while disabled");
	msi(0xff, false, 0x59);
	ok(!pending(1), "no messages either");
	got(0x59);

	wr(0, APIC_LVT_LINT0, 0x8048); /* fixed, level-triggered */
	i8259_set_irq(pic, 5, true);
	is_u64(ack(0), 0x48, "LINT0 as an ordinary input");
	is_u64(rd(0, APIC_LVT_LINT0), 0xc048, "remote IRR");
	wr(0, APIC_EOI, 0);
	is_u64(ack(0), 0x48, "again while the wire is high");
	i8259_ack(pic);
	wr(0, APIC_EOI, 0);
	ok(!pending(0), "and then not");
	i8259_set_irq(pic, 5, false);
	wr(0, APIC_LVT_LINT0, 0x10700);
	msi(0, false, 0x700);
	i8259_set_irq(pic, 6, true);
	is_u64(ack(0), 0x26, "ExtINT by message");
	i8259_set_irq(pic, 6, false);
}

static void test_ioapic(void)
{
	bus_write(mmio, IOAPIC_BASE, 0x10 + 2 * 20, 4);
	bus_write(mmio, IOAPIC_BASE + 0x10, 0x8071, 4);
	ioapic_set_irq(ioapic, 20, true);
	is_u64(ack(0), 0x71, "level interrupt through the I/O APIC");
	is_u64(rd(0, APIC_TMR + 0x30), 1u << 17, "TMR");
	wr(0, APIC_EOI, 0);
	is_u64(ack(0), 0x71, "EOI is broadcast: it comes again");
	wr(0, APIC_SVR, 0x11ff);
	wr(0, APIC_EOI, 0);
	ok(!pending(0), "suppressed broadcast");
	wr(0, APIC_SVR, 0x1ff);
	bus_write(mmio, IOAPIC_BASE + 0x40, 0x71, 4);
	is_u64(ack(0), 0x71, "directed EOI");
	ioapic_set_irq(ioapic, 20, false);
	wr(0, APIC_EOI, 0);
	ok(!pending(0), "done");
}

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

static bool base_write(unsigned c, uint64_t v)
{
	return lapic_msr_write(cpu[c].apic, MSR_IA32_APIC_BASE, v);
}

static bool x2_write(unsigned c, uint32_t msr, uint64_t v)
{
	return lapic_msr_write(cpu[c].apic, msr, v);
}

static uint64_t x2_read(unsigned c, uint32_t msr)
{
	uint64_t v;

	return lapic_msr_read(cpu[c].apic, msr, &v) ? v : ~0ull;
}

static void test_x2apic(void)
{
	uint64_t v;

	ok(!lapic_msr_read(cpu[2].apic, 0x802, &v), "no x2APIC MSRs in xAPIC mode");
	ok(!base_write(2, 0xfee00400), "EXTD without EN");
	ok(!base_write(2, 0xfee00801) && !base_write(2, 1ull << 45 | 0xfee00800), "reserved bits");
	ok(base_write(2, 0xfee00c00), "xAPIC to x2APIC");
	ok(!base_write(2, 0xfee00800), "no way back to xAPIC");
	ok(base_write(2, 0xfee00000), "to disabled");
	ok(!base_write(2, 0xfee00c00), "from there not to x2APIC");
	ok(base_write(2, 0xfee00800) && base_write(2, 0xfee00c00), "by way of xAPIC");
	ok(!lapic_mmio_claims(cpu[2].apic, 0xfee00000) && rd(2, APIC_ID) == 0xffffffff,
	   "MMIO is off");
	is_u64(x2_read(2, 0x802), 2, "id");
	is_u64(x2_read(2, 0x80d), 4, "logical id");
	ok(!x2_write(2, 0x802, 0) && !x2_write(2, 0x80d, 0) && !x2_write(2, 0x803, 0), "read-only");
	ok(!x2_write(2, 0x80b, 1) && x2_write(2, 0x80b, 0), "EOI takes zero only");
	is_u64(x2_read(2, 0x80b), ~0ull, "and is write-only");
	ok(!x2_write(2, 0x828, 1) && x2_write(2, 0x828, 0), "so does ESR");
	ok(x2_read(2, 0x80e) == ~0ull && !x2_write(2, 0x80e, 0), "no DFR");
	ok(x2_read(2, 0x831) == ~0ull && x2_read(2, 0x83f) == ~0ull,
	   "no ICR2, self IPI is write-only");
	ok(!x2_write(2, 0x80f, 1 << 16) && x2_write(2, 0x80f, 0x1ff), "SVR");
	ok(!x2_write(2, 0x808, 0x100) && !x2_write(2, 0x808, 1ull << 32), "TPR's reserved bits");
	ok(!x2_write(2, 0x832, 0x80000) && x2_write(2, 0x832, 0x10000), "LVT's reserved bits");
	ok(x2_write(2, 0x83f, 0x91), "self IPI");
	is_u64(ack(2), 0x91, "arrives");
	ok(x2_write(2, 0x80b, 0), "EOI");
	ok(!x2_write(2, 0x830, 1ull << 20), "ICR's reserved bits");
	ok(x2_write(2, 0x830, 0x4092) && got(0x92) == 1, "x2APIC IPI to an xAPIC processor");
	is_u64(x2_read(2, 0x830), 0x4092, "ICR reads back");
	ok(base_write(3, 0xfee00c00) && x2_write(3, 0x80f, 0x1ff), "another");
	ok(x2_write(2, 0x830, 0xcull << 32 | 0x4893), "logical");
	is_u64(ack(2), 0x93, "cluster 0, bit 2");
	is_u64(ack(3), 0x93, "and bit 3");
	ok(x2_write(2, 0x80b, 0) && x2_write(3, 0x80b, 0), "EOI");
	ok(x2_write(2, 0x830, 0xffffffffull << 32 | 0x4094), "broadcast");
	ok(pending(0) && pending(2) && pending(3), "to all");
	ok(lapic_msr_write(cpu[0].apic, MSR_IA32_APIC_BASE, 0xd0000900), "xAPIC elsewhere");
	ok(lapic_mmio_claims(cpu[0].apic, 0xd0000020), "claims its new page");
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

/* An EOI that is told later; IPIs to one APIC id. */
static void test_deferred_eoi(void)
{
	unsigned kicks;

	reset_all();
	ok(!lapic_defer_eoi(cpu[0].apic, 0x41), "nothing is in service, so nothing to defer");
	msi(0, false, 0x41);
	ok(ack(0) == 0x41 && lapic_defer_eoi(cpu[0].apic, 0x41), "an edge-triggered interrupt");
	kicks = cpu[0].kicks;
	msi(0, false, 0x31);
	ok(!pending(0) && cpu[0].kicks == kicks + 1, "a lower one behind it is not pending, but kicks");
	lapic_settle_eoi(cpu[0].apic, true);
	ok(pending(0) && ack(0) == 0x31, "once it is known to be ended it is");
	ok(lapic_defer_eoi(cpu[0].apic, 0x31), "deferred");
	lapic_settle_eoi(cpu[0].apic, false);
	is_u64(rd(0, APIC_ISR + 0x10), 1u << 17, "and after all still in service");
	wr(0, APIC_EOI, 0);
	is_u64(rd(0, APIC_ISR + 0x10), 0, "until its EOI");
	lapic_settle_eoi(cpu[0].apic, true);
	msi(0, false, 0x41);
	msi(0, false, 0x42);
	ok(ack(0) == 0x42 && !lapic_defer_eoi(cpu[0].apic, 0x42), "not when another waits");
	wr(0, APIC_EOI, 0);
	ok(ack(0) == 0x41, "which comes then");
	wr(0, APIC_EOI, 0);
	msi(0, false, 0xc041);
	ok(ack(0) == 0x41 && !lapic_defer_eoi(cpu[0].apic, 0x41), "not a level-triggered one");
	wr(0, APIC_EOI, 0);
	ok(lapic_send_ipi(cpu[0].apic, 2, 0x55) && got(0x55) == 4, "an IPI to one");
	ok(!lapic_send_ipi(cpu[0].apic, CPUS, 0x55) && !lapic_send_ipi(cpu[0].apic, 0xffffffff, 0x55) && !got(0x55), "nobody has that id");
	ok(!lapic_send_ipi(cpu[0].apic, 2, 0x05) && !lapic_send_ipi(cpu[0].apic, 2, 0x500), "nor are there other commands");
	ok(lapic_send_ipi(cpu[0].apic, 3, 0x400) && cpu[3].nmis, "but NMI");
}

static bool same_state(const struct lapic_state *a, const struct lapic_state *b)
{
	return a->base == b->base && !memcmp(a->reg, b->reg, sizeof(a->reg)) && a->tsc_deadline == b->tsc_deadline &&
	       a->deadline_left_ns == b->deadline_left_ns && a->esr_pending == b->esr_pending && a->extint == b->extint;
}

/* Out, reset, in: whether it is as before. @s: what it was. */
static bool there_and_back(unsigned c, struct lapic_state *s)
{
	struct lapic_state now;

	lapic_get_state(cpu[c].apic, s);
	lapic_device(cpu[c].apic)->ops->reset(lapic_device(cpu[c].apic));
	if (!lapic_set_state(cpu[c].apic, s))
		return false;
	lapic_get_state(cpu[c].apic, &now);
	return same_state(s, &now);
}

static void test_state(void)
{
	struct lapic_state s, t;
	uint64_t value;

	wr(1, APIC_TPR, 0x20);
	wr(1, APIC_LDR, 0x42000000);
	wr(1, APIC_DFR, 0x0fffffff);
	wr(1, APIC_LVT_LINT0, APIC_EXTINT << 8);
	wr(1, APIC_ESR, 0);
	wr(1, APIC_ICR, 0x00000005); /* an illegal vector */
	wr(1, APIC_TDCR, 3);	     /* by 16 */
	wr(1, APIC_LVT_TIMER, 0x20000 | 0x61);
	wr(1, APIC_TMICT, 1000);
	fake_clock_advance(&fc, 6000);
	msi(1, false, 0x51);
	ok(ack(1) == 0x51, "one in service");
	msi(1, false, 0x8071);
	msi(1, false, 0x41);
	ok(there_and_back(1, &s), "registers, vectors, timer: there and back");
	is_u64(s.reg[APIC_TMCCT >> 4], 625, "the current count is what is left");
	ok(pending(1) && ack(1) == 0x71, "what waited is delivered");
	wr(1, APIC_EOI, 0);
	ok(!pending(1), "but no lower one than is in service");
	wr(1, APIC_EOI, 0);
	ok(ack(1) == 0x41, "which comes then");
	wr(1, APIC_EOI, 0);
	fake_clock_advance(&fc, 9999);
	ok(!pending(1), "the timer goes on");
	fake_clock_advance(&fc, 1);
	ok(ack(1) == 0x61, "from where it was");
	wr(1, APIC_EOI, 0);
	fake_clock_advance(&fc, 16000);
	ok(ack(1) == 0x61, "with its period");
	wr(1, APIC_EOI, 0);
	wr(1, APIC_ESR, 0);
	is_u64(rd(1, APIC_ESR), APIC_ESR_SEND_ILLEGAL_VECTOR, "the error was not lost");

	reset_all();
	ok(lapic_msr_write(cpu[2].apic, MSR_IA32_APIC_BASE, 0xfee00c00) && lapic_msr_write(cpu[2].apic, 0x832, 0x40000 | 0x62), "x2APIC, TSC deadline");
	lapic_set_tsc_deadline(cpu[2].apic, 123456, clock_now_ns(&fc.clock) + 500);
	ok(there_and_back(2, &s) && s.tsc_deadline == 123456 && s.deadline_left_ns == 500 && s.reg[APIC_ID >> 4] == 2, "there and back");
	ok(lapic_msr_read(cpu[2].apic, 0x80d, &value) && value == 4, "the logical id follows from the id");
	fake_clock_advance(&fc, 500);
	ok(ack(2) == 0x62 && lapic_msr_read(cpu[2].apic, MSR_IA32_TSC_DEADLINE, &value) && !value, "the deadline comes");

	t = s;
	t.base = 0xfee00400;
	ok(!lapic_set_state(cpu[2].apic, &t), "x2APIC mode without the APIC cannot be");
	t.base = 1ull << 41 | 0xfee00800;
	ok(!lapic_set_state(cpu[2].apic, &t), "nor an address that the processor does not have");
	memset(t.reg, 0xff, sizeof(t.reg));
	t.base = 0xfee00800;
	t.tsc_deadline = t.deadline_left_ns = UINT64_MAX;
	t.esr_pending = ~0u;
	ok(lapic_set_state(cpu[3].apic, &t), "reserved bits are ignored");
	is_u64(rd(3, APIC_SVR), 0x13ff, "SVR");
	is_u64(rd(3, APIC_IRR), 0xffff0000, "IRR");
	is_u64(rd(3, APIC_ID), 3u << 24, "the id is its own");
	reset_all();
	for (unsigned c = 0; c < CPUS; c++)
		lapic_device(cpu[c].apic)->ops->reset(lapic_device(cpu[c].apic));
	ok(there_and_back(0, &s), "the state after power-on");
	reset_all();
}

int main(void)
{
	fake_clock_init(&fc);
	ports = bus_create("ports");
	mmio = bus_create("mmio");
	bus = apic_bus_create(CPUS);
	for (unsigned c = 0; c < CPUS; c++) {
		struct lapic_config config = {
			.apic_id = c,
			.bsp = c == 0,
			.phys_bits = 40,
			.ops = { kick, nmi, init, sipi, smi },
			.opaque = &cpu[c],
		};

		cpu[c].apic = lapic_create(bus, &fc.clock, &config);
	}
	pic = i8259_create(ports, (struct irq_line){ apic_bus_set_lint, bus, 0 });
	ioapic = ioapic_create(mmio, IOAPIC_BASE, apic_bus_msi_sink(bus));
	apic_bus_set_pic(bus, pic_ack, pic);
	apic_bus_set_eoi(bus, broadcast_eoi, ioapic);

	test_reset_state();
	reset_all();
	test_priorities();
	test_destinations();
	test_errors();
	test_pic();
	reset_all();
	test_ioapic();
	test_timer();
	test_edges();
	test_deferred_eoi();
	reset_all();
	test_state();
	test_x2apic();

	ioapic_device(ioapic)->ops->destroy(ioapic_device(ioapic));
	i8259_device(pic)->ops->destroy(i8259_device(pic));
	for (unsigned c = 0; c < CPUS; c++)
		lapic_device(cpu[c].apic)->ops->destroy(lapic_device(cpu[c].apic));
	apic_bus_destroy(bus);
	bus_destroy(mmio);
	bus_destroy(ports);
	return done_testing();
}
