/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs of two kinds; see lapics.h. Chips of our own are asked by their vCPU through struct vcpu_irqchip. An engine's are sent
 * messages; it asks for the 8259's vector and reports EOIs through struct engine_board.
 */
#include "machine/lapics.h"

#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"

/* ---- From a local APIC to its vCPU ---- */

static void cpu_kick(void *opaque)
{
	vcpu_kick(opaque);
}

static void cpu_nmi(void *opaque)
{
	vcpu_nmi(opaque);
}

static void cpu_init(void *opaque)
{
	vcpu_init(opaque);
}

static void cpu_sipi(void *opaque, uint8_t vector)
{
	vcpu_sipi(opaque, vector);
}

static void cpu_smi(void *opaque)
{
	log_guest("a system management interrupt was sent; there is no system management mode");
}

/* ---- From a vCPU to its local APIC ---- */

static bool chip_has_interrupt(void *opaque)
{
	return lapic_intr_pending(opaque);
}

static int chip_ack(void *opaque)
{
	return lapic_intr_ack(opaque);
}

static uint32_t chip_mmio_read(void *opaque, uint32_t offset)
{
	return lapic_mmio_read(opaque, offset);
}

static void chip_mmio_write(void *opaque, uint32_t offset, uint32_t value)
{
	lapic_mmio_write(opaque, offset, value);
}

static bool chip_msr_read(void *opaque, uint32_t msr, uint64_t *value)
{
	return lapic_msr_read(opaque, msr, value);
}

static bool chip_msr_write(void *opaque, uint32_t msr, uint64_t value)
{
	return lapic_msr_write(opaque, msr, value);
}

static uint64_t chip_mmio_base(void *opaque)
{
	uint64_t base = lapic_apic_base(opaque);

	return (base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN ? align_down(base, 4096) : ~0ull;
}

static uint8_t chip_get_tpr(void *opaque)
{
	return lapic_get_cr8(opaque);
}

static void chip_set_tpr(void *opaque, uint8_t tpr)
{
	lapic_set_cr8(opaque, tpr);
}

static void chip_set_tsc_deadline(void *opaque, uint64_t guest_tsc, uint64_t deadline_ns)
{
	lapic_set_tsc_deadline(opaque, guest_tsc, deadline_ns);
}

static uint64_t chip_get_tsc_deadline(void *opaque)
{
	uint64_t v = 0;

	return lapic_msr_read(opaque, MSR_IA32_TSC_DEADLINE, &v) ? v : 0;
}

static bool chip_send_ipi(void *opaque, uint32_t apic_id, uint32_t icr)
{
	return lapic_send_ipi(opaque, apic_id, icr);
}

static bool chip_defer_eoi(void *opaque, uint8_t vector)
{
	return lapic_defer_eoi(opaque, vector);
}

static void chip_settle_eoi(void *opaque, bool done)
{
	lapic_settle_eoi(opaque, done);
}

static const struct vcpu_irqchip chip_functions = {
	.has_interrupt = chip_has_interrupt,
	.ack = chip_ack,
	.mmio_read = chip_mmio_read,
	.mmio_write = chip_mmio_write,
	.msr_read = chip_msr_read,
	.msr_write = chip_msr_write,
	.mmio_base = chip_mmio_base,
	.get_tpr = chip_get_tpr,
	.set_tpr = chip_set_tpr,
	.set_tsc_deadline = chip_set_tsc_deadline,
	.get_tsc_deadline = chip_get_tsc_deadline,
	.send_ipi = chip_send_ipi,
	.defer_eoi = chip_defer_eoi,
	.settle_eoi = chip_settle_eoi,
};

/* ---- An engine's ---- */

static int board_ack(void *opaque)
{
	const struct lapics *l = opaque;
	int vector = l->config.pic_ack(l->config.opaque);

	l->config.taken(l->config.opaque);
	return vector;
}

static void board_eoi(void *opaque, uint8_t vector)
{
	const struct lapics *l = opaque;

	l->config.eoi(l->config.opaque, vector);
}

static void engine_msi(void *opaque, uint64_t address, uint32_t data)
{
	const struct lapics *l = opaque;

	if (apic_msi_valid(address, data))
		engine_send_msi(l->config.engine, address, data);
}

static bool engine_irqfd(void *opaque, int fd, bool on, uint64_t address, uint32_t data)
{
	const struct lapics *l = opaque;

	on = on && apic_msi_valid(address, data);
	return engine_set_irqfd(l->config.engine, fd, on, address, data);
}

static void pin_changed(void *opaque, unsigned pin, bool masked, uint64_t address, uint32_t data)
{
	const struct lapics *l = opaque;

	engine_set_pin(l->config.engine, pin, masked, address, data);
}

/* ---- Both ---- */

void lapics_init(struct lapics *l, const struct lapics_config *config)
{
	const struct engine_board board = { l, board_ack, board_eoi };

	*l = (struct lapics){ .config = *config, .engines = engine_has_lapics(config->engine) };
	assert(config->count <= LAYOUT_VCPU_MAX);
	l->bus = apic_bus_create(config->count);
	apic_bus_set_pic(l->bus, config->pic_ack, config->opaque);
	apic_bus_set_eoi(l->bus, config->eoi, config->opaque);
	apic_bus_set_taken(l->bus, config->taken, config->opaque);
	l->sink = *apic_bus_msi_sink(l->bus);
	for (unsigned i = 0; i < config->count; i++) {
		struct vcpu *v = engine_vcpu(config->engine, i);
		struct vcpu_irqchip chip = chip_functions;
		struct lapic_config c = {
			.apic_id = i,
			.bsp = i == 0,
			.phys_bits = LAYOUT_PHYS_BITS,
			.ops = { cpu_kick, cpu_nmi, cpu_init, cpu_sipi, cpu_smi },
			.opaque = v,
		};

		l->chip[i] = lapic_create(l->bus, config->clock, &c);
		chip.opaque = l->chip[i];
		if (!l->engines)
			vcpu_set_irqchip(v, &chip);
	}
	if (l->engines) {
		l->sink = (struct msi_sink){ .send = engine_msi, .opaque = l, .set_irqfd = engine_irqfd };
		engine_set_board(config->engine, &board);
	}
}

void lapics_finish(struct lapics *l)
{
	apic_bus_destroy(l->bus);
}

const struct msi_sink *lapics_msi_sink(const struct lapics *l)
{
	return &l->sink;
}

void lapics_set_lint(void *opaque, unsigned pin, bool level)
{
	struct lapics *l = opaque;

	if (!l->engines)
		apic_bus_set_lint(l->bus, pin, level);
	else if (pin == 0)
		engine_set_intr(l->config.engine, level);
}

void lapics_attach_ioapic(struct lapics *l, struct ioapic *ioapic)
{
	static_assert(ENGINE_PINS == IOAPIC_PINS, "an engine knows all inputs of the I/O APIC");
	if (l->engines)
		ioapic_watch(ioapic, pin_changed, l);
}

static struct x86_lapic from_chip(const struct lapic_state *s)
{
	struct x86_lapic x = { .base = s->base, .tsc_deadline = s->tsc_deadline, .deadline_left_ns = s->deadline_left_ns,
			       .esr_pending = s->esr_pending, .extint = s->extint };

	memcpy(x.reg, s->reg, sizeof(x.reg));
	return x;
}

static struct lapic_state to_chip(const struct x86_lapic *x)
{
	struct lapic_state s = { .base = x->base, .tsc_deadline = x->tsc_deadline, .deadline_left_ns = x->deadline_left_ns,
				 .esr_pending = x->esr_pending, .extint = x->extint };

	memcpy(s.reg, x->reg, sizeof(s.reg));
	return s;
}

void lapics_set_up(struct lapics *l)
{
	lapic_set_virtual_wire(l->chip[0]);
	for (unsigned i = 0; l->engines && i < l->config.count; i++) {
		struct lapic_state s;
		struct x86_lapic x;

		lapic_get_state(l->chip[i], &s);
		x = from_chip(&s);
		vcpu_set_lapic(engine_vcpu(l->config.engine, i), &x);
	}
}

void lapics_get_state(struct lapics *l, unsigned cpu, struct x86_lapic *out)
{
	struct lapic_state s;

	if (l->engines) {
		vcpu_get_lapic(engine_vcpu(l->config.engine, cpu), out);
		return;
	}
	lapic_get_state(l->chip[cpu], &s);
	*out = from_chip(&s);
}

/* The chip looks at it in any case, and comes back to rest if it is not used. */
bool lapics_set_state(struct lapics *l, unsigned cpu, const struct x86_lapic *in)
{
	struct device *chip = lapic_device(l->chip[cpu]);
	struct lapic_state s = to_chip(in);
	struct x86_lapic x;

	if (!lapic_set_state(l->chip[cpu], &s))
		return false;
	if (!l->engines)
		return true;
	lapic_get_state(l->chip[cpu], &s);
	chip->ops->reset(chip);
	x = from_chip(&s);
	vcpu_set_lapic(engine_vcpu(l->config.engine, cpu), &x);
	return true;
}
