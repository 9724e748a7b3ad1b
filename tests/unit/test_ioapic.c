/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The I/O APIC: registers, edge and level delivery, remote IRR, both ways of EOI, message encoding.
 */
#include "dev/ioapic.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

static struct bus *mmio;
static struct ioapic *ioapic;
static struct fake_msi msi;

static uint32_t get(uint8_t reg)
{
	bus_write(mmio, IOAPIC_BASE + IOREGSEL, reg, 4);
	return (uint32_t)bus_read(mmio, IOAPIC_BASE + IOWIN, 4);
}

static void set(uint8_t reg, uint32_t value)
{
	bus_write(mmio, IOAPIC_BASE + IOREGSEL, reg, 4);
	bus_write(mmio, IOAPIC_BASE + IOWIN, value, 4);
}

static void entry(unsigned pin, uint64_t e)
{
	set((uint8_t)(IOREDTBL + 2 * pin + 1), (uint32_t)(e >> 32));
	set((uint8_t)(IOREDTBL + 2 * pin), (uint32_t)e);
}

int main(void)
{
	mmio = bus_create("mmio");
	fake_msi_init(&msi);
	ioapic = ioapic_create(mmio, IOAPIC_BASE, &msi.sink);

	is_u64(get(IOAPICVER), 0x00170020, "version 0x20, 24 entries");
	is_u64(get(IOREDTBL + 46), 0x10000, "entries are masked after reset");
	is_u64(get(0x40), 0, "no register beyond the table");
	set(IOAPICID, 0xffffffff);
	is_u64(get(IOAPICID), 0x0f000000, "four bits of ID");
	bus_write(mmio, IOAPIC_BASE, IOAPICVER, 1);
	is_u64(bus_read(mmio, IOAPIC_BASE + IOWIN + 2, 1), 0x17, "bytes work");

	ioapic_set_irq(ioapic, 4, true);
	ioapic_set_irq(ioapic, 4, false);
	entry(4, 0x0500000000000034ull);
	is_u64(msi.count, 0, "an edge on a masked pin is lost");
	ioapic_set_irq(ioapic, 4, true);
	is_u64(msi.count, 1, "edge");
	is_u64(msi.address, 0xfee05000, "physical destination 5");
	is_u64(msi.data, 0x4034, "fixed, edge, vector 0x34");
	ioapic_set_irq(ioapic, 4, true);
	is_u64(msi.count, 1, "no second edge");
	ioapic_set_irq(ioapic, 4, false);
	is_u64(msi.count, 1, "nothing when it falls");

	entry(9, 0x0300000000008950ull); /* level, logical 3, lowest priority, vector 0x50 */
	ioapic_set_irq(ioapic, 9, true);
	is_u64(msi.address, 0xfee03004, "logical destination");
	is_u64(msi.data, 0xc150, "level, lowest priority");
	is_u64(get(IOREDTBL + 18), 0xc950, "remote IRR is set");
	ioapic_set_irq(ioapic, 9, false);
	ioapic_set_irq(ioapic, 9, true);
	is_u64(msi.count, 2, "nothing more until the EOI");
	ioapic_eoi(ioapic, 0x51);
	is_u64(msi.count, 2, "another vector's EOI");
	ioapic_eoi(ioapic, 0x50);
	is_u64(msi.count, 3, "EOI with the level still there: again");
	ioapic_set_irq(ioapic, 9, false);
	bus_write(mmio, IOAPIC_BASE + IOEOI, 0x50, 4);
	is_u64(get(IOREDTBL + 18), 0x8950, "EOI register clears remote IRR");
	set(IOREDTBL + 18, 0x18950);
	ioapic_set_irq(ioapic, 9, true);
	is_u64(msi.count, 3, "masked");
	set(IOREDTBL + 18, 0x8950);
	is_u64(msi.count, 4, "unmasked: the level is delivered");
	set(IOREDTBL + 18, 0x18950);
	is_u64(get(IOREDTBL + 18), 0x1c950, "remote IRR survives masking");
	set(IOREDTBL + 18, 0x10950);
	set(IOREDTBL + 18, 0x18950);
	is_u64(get(IOREDTBL + 18), 0x18950, "a turn to edge clears it");

	entry(0, 0x700);
	ioapic_set_irq(ioapic, 0, true);
	is_u64(msi.data, 0x4700, "ExtINT");
	entry(3, 0xffffffffffffffffull);
	is_u64(get(IOREDTBL + 6), 0x1afff, "read-only bits stay clear");
	is_u64(get(IOREDTBL + 7), 0xff000000, "reserved bits too");
	ioapic_device(ioapic)->ops->reset(ioapic_device(ioapic));
	is_u64(get(IOREDTBL + 6), 0x10000, "reset");
	ioapic_device(ioapic)->ops->destroy(ioapic_device(ioapic));
	bus_destroy(mmio);
	return done_testing();
}
