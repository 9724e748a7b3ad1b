/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs on their bus (lapic_bus.h): priorities, IPIs and MSIs, LVTs, modes, errors, their state. The timer is in
 * test_lapic_timer.c.
 */
#include "tests/unit/lapic_bus.h"

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
	make_all();
	test_reset_state();
	reset_all();
	test_priorities();
	test_destinations();
	test_errors();
	test_pic();
	reset_all();
	test_ioapic();
	test_deferred_eoi();
	reset_all();
	test_state();
	test_x2apic();

	destroy_all();
	return done_testing();
}
