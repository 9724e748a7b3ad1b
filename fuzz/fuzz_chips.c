/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the classic PC chips wired as on the board, driven by random port, MMIO, MSR and
 * APIC accesses, input events, time and resets. What is checked beside memory errors is that time
 * always moves on and that what the local APICs say about pending interrupts is true.
 */
#include <assert.h>
#include <stdlib.h>

#include "dev/acpi_pm.h"
#include "dev/debug_exit.h"
#include "dev/debugcon.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/i8254.h"
#include "dev/i8259.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev/mc146818.h"
#include "dev/ns16550.h"
#include "dev/port92.h"
#include "fuzz/input.h"
#include "tests/unit/fakes.h"

#define CPUS 3
#define DEVICES 16
#define PM_BASE 0x600
#define MAX_STEPS 4096
#define MAX_ADVANCE_NS (100 * NS_PER_MS) /* in all, so that an input takes no longer than a blink */

struct board {
	struct fake_clock fc;
	struct bus *ports, *mmio;
	struct apic_bus *apic_bus;
	struct lapic *lapic[CPUS];
	struct i8259 *pic;
	struct ioapic *ioapic;
	struct hpet *hpet;
	struct i8254 *pit;
	struct i8042 *kbc;
	struct acpi_pm *pm;
	struct fake_chardev chr;
	struct device *devices[DEVICES];
	unsigned device_count;
	bool reset_wanted;
};

static void ignore(void *opaque)
{
}

static void ignore_sipi(void *opaque, uint8_t vector)
{
}

static void ignore_value(void *opaque, uint32_t value)
{
}

static void want_reset(void *opaque, unsigned pin, bool level)
{
	struct board *b = opaque;

	b->reset_wanted |= level;
}

static uint8_t pic_ack(void *opaque)
{
	return i8259_ack(opaque);
}

static void broadcast_eoi(void *opaque, uint8_t vector)
{
	ioapic_eoi(opaque, vector);
}

/* An ISA interrupt (0–15) reaches both controllers; 0 is pin 2 of the I/O APIC. */
static void isa_irq(void *opaque, unsigned irq, bool level)
{
	struct board *b = opaque;

	if (irq < 16)
		i8259_set_irq(b->pic, irq, level);
	ioapic_set_irq(b->ioapic, irq == 0 ? 2 : irq, level);
}

static bool isa_waits(void *opaque, unsigned irq)
{
	struct board *b = opaque;

	return (irq < 16 && i8259_edge(b->pic, irq) == IRQ_EDGE_WAITS) ||
	       ioapic_edge(b->ioapic, irq == 0 ? 2 : irq) == IRQ_EDGE_WAITS;
}

static void interrupt_taken(void *opaque)
{
	struct board *b = opaque;

	hpet_tick_taken(b->hpet);
	i8254_tick_taken(b->pit);
}

static struct irq_line isa(struct board *b, unsigned irq)
{
	return (struct irq_line){ isa_irq, b, irq };
}

static void add(struct board *b, struct device *dev)
{
	assert(b->device_count < DEVICES);
	b->devices[b->device_count++] = dev;
}

static void build(struct board *b)
{
	struct irq_line nowhere = { 0 }, reset = { want_reset, b, 0 };

	*b = (struct board){ 0 };
	fake_clock_init(&b->fc);
	fake_chardev_init(&b->chr);
	b->fc.wall_base_s = 1700000000;
	b->ports = bus_create("ports");
	b->mmio = bus_create("mmio");
	b->apic_bus = apic_bus_create(CPUS);
	for (unsigned i = 0; i < CPUS; i++) {
		struct lapic_config config = {
			.apic_id = i,
			.bsp = i == 0,
			.phys_bits = 40,
			.ops = { ignore, ignore, ignore, ignore_sipi, ignore },
		};

		b->lapic[i] = lapic_create(b->apic_bus, &b->fc.clock, &config);
		lapic_set_virtual_wire(b->lapic[i]);
		add(b, lapic_device(b->lapic[i]));
	}
	b->pic = i8259_create(b->ports, (struct irq_line){ apic_bus_set_lint, b->apic_bus, 0 });
	b->ioapic = ioapic_create(b->mmio, IOAPIC_BASE, apic_bus_msi_sink(b->apic_bus));
	add(b, i8259_device(b->pic));
	add(b, ioapic_device(b->ioapic));
	apic_bus_set_pic(b->apic_bus, pic_ack, b->pic);
	apic_bus_set_eoi(b->apic_bus, broadcast_eoi, b->ioapic);
	apic_bus_set_taken(b->apic_bus, interrupt_taken, b);
	b->hpet = hpet_create(b->mmio, &b->fc.clock,
			      &(struct hpet_config){
				      .base = HPET_BASE,
				      .route_cap = 0x00f00000,
				      .ioapic = { isa_irq, b, 0 },
				      .legacy = { isa(b, 0), isa(b, 8) },
				      .waits = isa_waits,
			      });
	add(b, hpet_device(b->hpet));
	b->pit = i8254_create(b->ports, &b->fc.clock,
			      (struct irq_line){ hpet_set_legacy, b->hpet, 0 }, hpet_legacy_waits);
	add(b, i8254_device(b->pit));
	add(b, mc146818_device(mc146818_create(b->ports, &b->fc.clock,
					       (struct irq_line){ hpet_set_legacy, b->hpet, 1 })));
	add(b, ns16550_create(b->ports, NS16550_COM1_PORT, &b->fc.clock, isa(b, 4), &b->chr.chr));
	b->kbc = i8042_create(b->ports,
			      &(struct i8042_lines){ isa(b, 1), isa(b, 12), nowhere, reset });
	add(b, i8042_device(b->kbc));
	add(b, port92_create(b->ports, nowhere, reset));
	b->pm = acpi_pm_create(b->ports, &b->fc.clock,
			       &(struct acpi_pm_config){
				       .base = PM_BASE,
				       .sci = isa(b, 9),
				       .power_off = ignore,
			       });
	add(b, acpi_pm_device(b->pm));
	add(b, debug_exit_create(b->ports, DEBUG_EXIT_PORT, ignore_value, NULL));
	add(b, debugcon_create(b->ports, &b->chr.chr));
}

static void tear_down(struct board *b)
{
	while (b->device_count) {
		struct device *dev = b->devices[--b->device_count];

		dev->ops->destroy(dev);
	}
	assert(!b->fc.armed);
	apic_bus_destroy(b->apic_bus);
	bus_destroy(b->ports);
	bus_destroy(b->mmio);
}

static void reset_board(struct board *b)
{
	b->reset_wanted = false;
	for (unsigned i = 0; i < b->device_count; i++)
		b->devices[i]->ops->reset(b->devices[i]);
}

/* Ports on which something lives, so that the fuzzer need not search for them. */
static uint16_t take_port(struct input *in)
{
	static const struct {
		uint16_t base, length;
	} windows[] = {
		{ 0x20, 2 }, { 0xa0, 2 }, { 0x4d0, 2 }, { 0x40, 4 },
		{ 0x60, 5 }, { 0x70, 4 }, { 0x92, 1 },	{ 0xb2, 2 },
		{ 0xe9, 1 }, { 0xf4, 4 }, { 0x3f8, 8 }, { PM_BASE, ACPI_PM_LEN },
	};
	uint8_t v = (uint8_t)take(in, 1);
	unsigned w = v % ARRAY_SIZE(windows);

	return windows[w].base +
	       (w == ARRAY_SIZE(windows) - 1 ? (uint8_t)take(in, 1) : v >> 4) % windows[w].length;
}

static uint64_t take_mmio(struct input *in)
{
	static const uint16_t hpet[] = { 0x000, 0x010, 0x020, 0x0f0, 0x100, 0x108,
					 0x120, 0x128, 0x140, 0x148, 0x160, 0x3f8 };
	static const uint16_t ioapic[] = { IOREGSEL, IOWIN, IOEOI, 0x20 };
	uint8_t v = (uint8_t)take(in, 1);

	if (v & 1)
		return HPET_BASE + hpet[(v >> 1 & 15) % ARRAY_SIZE(hpet)] + (v >> 5);
	return IOAPIC_BASE + ioapic[v >> 1 & 3] + (v >> 5);
}

/* What a driver does in several steps, which the fuzzer would be long in finding. */
static void preset(struct board *b, struct input *in, struct lapic *l, unsigned which)
{
	uint8_t v = (uint8_t)take(in, 1);
	unsigned n = v % HPET_TIMERS, pin = v % IOAPIC_PINS;
	uint64_t now;

	switch (which) {
	case 0: /* a comparator soon to match */
		bus_write(b->mmio, HPET_BASE + HPET_GEN_CONF, HPET_ENABLE_CNF | (v >> 2 & 2), 4);
		bus_write(b->mmio, HPET_BASE + HPET_TIM_CONF(n),
			  take(in, 1) << 1 | take(in, 1) << 8, 4);
		now = bus_read(b->mmio, HPET_BASE + HPET_MAIN_CNT, 8);
		bus_write(b->mmio, HPET_BASE + HPET_TIM_COMP(n), now + take(in, 2), 8);
		break;
	case 1: /* the local APIC's timer */
		lapic_mmio_write(l, APIC_SVR, APIC_SVR_ENABLE | 0xff);
		lapic_mmio_write(l, APIC_LVT_TIMER, (v & 3u) << 17 | (v | 0x10u));
		lapic_mmio_write(l, APIC_TDCR, v >> 4);
		lapic_mmio_write(l, APIC_TMICT, (uint32_t)take(in, 2));
		lapic_set_tsc_deadline(l, v + 1, b->fc.now_ns + take(in, 2));
		break;
	case 2: /* an unmasked pin of the I/O APIC, asserted */
		bus_write(b->mmio, IOAPIC_BASE + IOREGSEL, IOREDTBL + 2 * pin, 4);
		bus_write(b->mmio, IOAPIC_BASE + IOWIN, take(in, 2) | 0x10, 4);
		ioapic_set_irq(b->ioapic, pin, false);
		ioapic_set_irq(b->ioapic, pin, true);
		break;
	case 3: /* ACPI mode with events on, a mouse that reports, alarms */
		bus_write(b->ports, ACPI_SMI_CMD_PORT, ACPI_ENABLE_COMMAND, 1);
		bus_write(b->ports, PM_BASE + 2, 0xffff, 2);
		bus_write(b->ports, PM_BASE + ACPI_GPE0 + 8 + v % 8, 0xff, 1);
		bus_write(b->ports, I8042_STATUS_PORT, 0xd4, 1);
		bus_write(b->ports, I8042_DATA_PORT, v & 1 ? 0xf4 : v, 1);
		i8042_leds(b->kbc);
		break;
	}
}

/* A saved state, with what somebody else has put into it; what is taken comes out as it went in. */
static void load_state(struct input *in, struct lapic *l)
{
	struct lapic_state s, t, u;
	unsigned count = (unsigned)take(in, 1) % 16;

	lapic_get_state(l, &s);
	s.base = (s.base & ~0xd00ull) | (take(in, 1) & 0xd) << 8;
	for (; count; count--) {
		unsigned n = (unsigned)take(in, 1) % ARRAY_SIZE(s.reg);

		s.reg[n] = (uint32_t)take(in, 4);
	}
	s.tsc_deadline = take(in, 2);
	s.deadline_left_ns = take(in, 4);
	s.esr_pending = (uint32_t)take(in, 1);
	s.extint = take(in, 1) & 1;
	if (!lapic_set_state(l, &s))
		return;
	lapic_get_state(l, &t);
	assert(lapic_set_state(l, &t));
	lapic_get_state(l, &u);
	assert(!memcmp(t.reg, u.reg, sizeof(t.reg)) && t.base == u.base && t.tsc_deadline == u.tsc_deadline);
}

static void step(struct board *b, struct input *in, uint64_t *advanced)
{
	uint8_t op = (uint8_t)take(in, 1);
	unsigned size = 1u << (op >> 4 & 3);
	struct lapic *l = b->lapic[(op >> 6) % CPUS];
	uint64_t v, ns;
	int vector;

	switch (op & 15) {
	case 0:
	case 1:
		v = take_port(in);
		bus_write(b->ports, v, take(in, size), size);
		break;
	case 2: bus_read(b->ports, take_port(in), size); break;
	case 3:
	case 4:
		v = take_mmio(in);
		bus_write(b->mmio, v, take(in, size), size);
		break;
	case 5: bus_read(b->mmio, take_mmio(in), size); break;
	case 6:
		v = take(in, 1) << 4;
		lapic_mmio_write(l, (uint32_t)v, (uint32_t)take(in, 4));
		break;
	case 7: lapic_mmio_read(l, (uint32_t)take(in, 2) & 0xfff); break;
	case 8:
		v = take(in, 1);
		if (!lapic_msr_write(l, MSR_X2APIC_FIRST + (uint32_t)v, take(in, size)))
			(void)!lapic_msr_read(l, MSR_X2APIC_FIRST + (uint32_t)v, &v);
		break;
	case 9:
		(void)!lapic_msr_write(l, MSR_IA32_APIC_BASE,
				       (take(in, 1) & 0xf) << 8 | LAPIC_DEFAULT_BASE);
		break;
	case 10:
		v = take(in, 4);
		lapic_set_tsc_deadline(l, v, v ? b->fc.now_ns + v : 0);
		break;
	case 11:
		ns = take(in, size > 4 ? 4 : size);
		ns = MIN(ns, MAX_ADVANCE_NS - *advanced);
		*advanced += ns;
		if (op & 0x80) /* the host is late */
			b->fc.now_ns += ns;
		else
			fake_clock_advance(&b->fc, ns);
		break;
	case 12:
		v = take(in, 3);
		if (op & 0x80)
			i8042_key(b->kbc, (uint16_t)v, v >> 16 & 1);
		else
			i8042_mouse(b->kbc, (int8_t)v, (int)(int16_t)(v >> 8), (int8_t)(v >> 4),
				    (uint8_t)v);
		break;
	case 13:
		if (op & 0x10)
			fake_chardev_input(&b->chr, in->data, MIN(in->left, 20));
		else if (op & 0x20)
			load_state(in, l);
		else
			preset(b, in, l, op >> 6);
		break;
	case 14:
		v = take(in, 1);
		if (v < 64)
			acpi_pm_gpe(b->pm, (unsigned)v);
		else if (v < 128)
			acpi_pm_power_button(b->pm);
		else if (v < 192)
			ioapic_set_irq(b->ioapic, 16 + v % 8, v & 8);
		else if (v < 255)
			msi_send(apic_bus_msi_sink(b->apic_bus), 0xfee00000 | take(in, 3),
				 (uint32_t)take(in, 2));
		else
			b->reset_wanted = true;
		break;
	case 15:
		if (lapic_intr_pending(l)) {
			vector = lapic_intr_ack(l);
			assert(vector >= 0 && vector <= 255);
		} else {
			assert(lapic_intr_ack(l) == -1);
		}
		lapic_set_cr8(l, op >> 4);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint64_t advanced = 0;
	struct board b;

	log_init("fuzz_chips", LOG_LEVEL_ERROR);
	build(&b);
	for (unsigned i = 0; in.left && i < MAX_STEPS; i++) {
		step(&b, &in, &advanced);
		if (b.reset_wanted)
			reset_board(&b);
	}
	tear_down(&b);
	return 0;
}
