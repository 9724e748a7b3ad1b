/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four local APICs on their bus, with the real I/O APIC and 8259 and a clock that the test sets, for tests of lapic.c. What reaches a
 * CPU is counted; tests say what they do to local APIC c with wr(), rd() and the like.
 */
#ifndef TESTS_UNIT_LAPIC_BUS_H
#define TESTS_UNIT_LAPIC_BUS_H

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

static inline void kick(void *opaque)
{
	((struct cpu *)opaque)->kicks++;
}

static inline void nmi(void *opaque)
{
	((struct cpu *)opaque)->nmis++;
}

static inline void init(void *opaque)
{
	((struct cpu *)opaque)->inits++;
}

static inline void sipi(void *opaque, uint8_t vector)
{
	((struct cpu *)opaque)->sipis++;
	((struct cpu *)opaque)->sipi_vector = vector;
}

static inline void smi(void *opaque)
{
	((struct cpu *)opaque)->smis++;
}

static inline uint8_t pic_ack(void *opaque)
{
	return i8259_ack(opaque);
}

static inline void broadcast_eoi(void *opaque, uint8_t vector)
{
	ioapic_eoi(opaque, vector);
}

static inline void wr(unsigned c, uint32_t reg, uint32_t value)
{
	lapic_mmio_write(cpu[c].apic, reg, value);
}

static inline uint32_t rd(unsigned c, uint32_t reg)
{
	return lapic_mmio_read(cpu[c].apic, reg);
}

static inline int ack(unsigned c)
{
	return lapic_intr_ack(cpu[c].apic);
}

static inline bool pending(unsigned c)
{
	return lapic_intr_pending(cpu[c].apic);
}

static inline void msi(uint32_t dest, bool logical, uint32_t data)
{
	msi_send(apic_bus_msi_sink(bus), 0xfee00000 | dest << 12 | (logical ? 4 : 0), data);
}

static inline void ipi(unsigned c, uint32_t dest, uint32_t icr)
{
	wr(c, APIC_ICR2, dest << 24);
	wr(c, APIC_ICR, icr);
}

/* Bit mask of the CPUs that have @vector, which they take and end. */
static inline unsigned got(int vector)
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

static inline void reset_all(void)
{
	for (unsigned c = 0; c < CPUS; c++) {
		lapic_device(cpu[c].apic)->ops->reset(lapic_device(cpu[c].apic));
		wr(c, APIC_SVR, 0x1ff);
	}
	ioapic_device(ioapic)->ops->reset(ioapic_device(ioapic));
}

static inline void make_all(void)
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
}

static inline void destroy_all(void)
{
	ioapic_device(ioapic)->ops->destroy(ioapic_device(ioapic));
	i8259_device(pic)->ops->destroy(i8259_device(pic));
	for (unsigned c = 0; c < CPUS; c++)
		lapic_device(cpu[c].apic)->ops->destroy(lapic_device(cpu[c].apic));
	apic_bus_destroy(bus);
	bus_destroy(mmio);
	bus_destroy(ports);
}

#endif
