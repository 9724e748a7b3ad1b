/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC: priorities, what becomes of an interrupt that arrives, and what is sent. Its registers are in lapic_registers.c.
 *
 * Theory of operation. An accepted interrupt sets its bit in IRR. lapic_update() compares the highest of
 * those with the processor priority (the greater of TPR and the highest vector in service) and
 * keeps the result in @ready; it runs after every change, so that asking is cheap. When the answer
 * turns from no to yes the CPU side is kicked. The CPU side then takes the vector (IRR to ISR); EOI
 * ends the highest in service and tells the I/O APIC when it was level-triggered.
 *
 * An ExtINT passes by IRR and PPR: it is pending while the 8259 holds INTR and LINT0 is set to
 * ExtINT, or while the APIC is disabled in IA32_APIC_BASE, when LINT0 is the INTR pin and LINT1 the
 * NMI pin.
 *
 * Manual: Intel SDM volume 3A, chapter "APIC". Threading: machine lock; lapic_intr_pending() also
 * without.
 */
#include <assert.h>
#include <stdlib.h>

#include "dev/lapic_priv.h"

#define ICR_LEVEL_ASSERT (1u << 14)
#define ICR_LEVEL_TRIGGER (1u << 15)
#define ICR_LOGICAL (1u << 11)

static int highest_bit(const uint32_t set[8])
{
	for (int i = 7; i >= 0; i--)
		if (set[i])
			return i * 32 + 31 - __builtin_clz(set[i]);
	return -1;
}

static bool test_bit(const uint32_t set[8], uint8_t vector)
{
	return set[vector >> 5] & 1u << (vector & 31);
}

static void assign_bit(uint32_t set[8], uint8_t vector, bool value)
{
	if (value)
		set[vector >> 5] |= 1u << (vector & 31);
	else
		set[vector >> 5] &= ~(1u << (vector & 31));
}

uint32_t lapic_ppr(const struct lapic *l)
{
	int isrv = highest_bit(l->isr);
	uint32_t in_service = isrv < 0 ? 0 : (uint32_t)isrv & 0xf0;

	return (l->tpr & 0xf0) >= in_service ? l->tpr : in_service;
}

uint32_t lapic_logical_id(const struct lapic *l)
{
	uint32_t id = l->config.apic_id;

	return lapic_x2apic(l) ? (id >> 4) << 16 | 1u << (id & 15) : l->ldr;
}

static bool extint_pending(const struct lapic *l)
{
	if (!lapic_hw_enabled(l))
		return l->lint[0];
	if (l->extint_message)
		return true;
	return l->lint[0] && !(l->lvt[LVT_LINT0] & LVT_MASK) &&
	       LVT_DELMOD(l->lvt[LVT_LINT0]) == APIC_EXTINT;
}

void lapic_update(struct lapic *l)
{
	int irrv = lapic_hw_enabled(l) ? highest_bit(l->irr) : -1;
	bool before = atomic_load_explicit(&l->pending, memory_order_relaxed), pending;

	l->ready = irrv >= 0 && ((uint32_t)irrv & 0xf0) > (lapic_ppr(l) & 0xf0) ? irrv : -1;
	pending = l->ready >= 0 || extint_pending(l);
	atomic_store_explicit(&l->pending, pending, memory_order_release);
	if ((pending && !before) || (l->eoi_deferred && irrv >= 0))
		l->config.ops.kick(l->config.opaque);
}

bool lapic_has_request(const struct lapic *l, uint8_t vector)
{
	return test_bit(l->irr, vector);
}

bool lapic_intr_pending(const struct lapic *l)
{
	return atomic_load_explicit(&l->pending, memory_order_acquire);
}

int lapic_intr_ack(struct lapic *l)
{
	int vector;

	if (extint_pending(l)) {
		l->extint_message = false;
		vector = apic_bus_pic_ack(l->bus);
	} else {
		vector = l->ready;
		if (vector >= 0) {
			assign_bit(l->irr, (uint8_t)vector, false);
			assign_bit(l->isr, (uint8_t)vector, true);
		}
	}
	lapic_update(l);
	if (vector >= 0)
		apic_bus_taken(l->bus);
	return vector;
}

void lapic_raise_error(struct lapic *l, uint32_t bit)
{
	/*
	 * Once per error until the guest has looked: this also ends the recursion of a bad error
	 * vector.
	 */
	if (l->esr_pending & bit)
		return;
	l->esr_pending |= bit;
	lapic_fire_lvt(l, LVT_ERROR);
}

static void accept(struct lapic *l, uint8_t vector, bool level)
{
	if (vector < APIC_FIRST_VECTOR) {
		lapic_raise_error(l, APIC_ESR_RECEIVE_ILLEGAL_VECTOR);
		return;
	}
	if (!(l->svr & APIC_SVR_ENABLE))
		return;
	assign_bit(l->irr, vector, true);
	assign_bit(l->tmr, vector, level);
	lapic_update(l);
}

/* INIT leaves IA32_APIC_BASE and the id alone, and the wires are as they are. */
void lapic_init_registers(struct lapic *l)
{
	memset(l->irr, 0, sizeof(l->irr));
	memset(l->isr, 0, sizeof(l->isr));
	memset(l->tmr, 0, sizeof(l->tmr));
	l->tpr = l->ldr = l->esr = l->esr_pending = 0;
	l->dfr = 0xffffffff;
	l->svr = 0xff;
	l->icr = 0;
	l->extint_message = l->eoi_deferred = false;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASK;
	lapic_timer_reset(l);
	lapic_update(l);
}

void lapic_deliver(struct lapic *l, enum apic_delivery delivery, uint8_t vector, bool level)
{
	switch (delivery) {
	case APIC_FIXED:
	case APIC_LOWEST: accept(l, vector, level); break;
	case APIC_SMI: l->config.ops.smi(l->config.opaque); break;
	case APIC_NMI: l->config.ops.nmi(l->config.opaque); break;
	case APIC_INIT:
		lapic_init_registers(l);
		l->config.ops.init(l->config.opaque);
		break;
	case APIC_SIPI: l->config.ops.sipi(l->config.opaque, vector); break;
	case APIC_EXTINT:
		l->extint_message = true;
		lapic_update(l);
		break;
	}
}

/*
 * The event of a local source. For LINT0 programmed as fixed and level-triggered: its wire is high.
 */
void lapic_fire_lvt(struct lapic *l, enum lvt i)
{
	uint32_t v = l->lvt[i];
	bool level = i == LVT_LINT0 && v & LVT_LEVEL;
	enum apic_delivery delivery = (enum apic_delivery)LVT_DELMOD(v);

	if (v & LVT_MASK)
		return;
	switch (delivery) {
	case APIC_FIXED:
		if (level) {
			if (v & LVT_REMOTE_IRR)
				return;
			l->lvt[i] |= LVT_REMOTE_IRR;
		}
		accept(l, v & LVT_VECTOR, level);
		break;
	case APIC_SMI:
	case APIC_NMI: lapic_deliver(l, delivery, 0, false); break;
	case APIC_INIT:
		if (i == LVT_LINT0 || i == LVT_LINT1)
			lapic_deliver(l, delivery, 0, false);
		break;
	default: /* ExtINT is a level that extint_pending() looks at; others are reserved */ break;
	}
}

void lapic_set_lint(struct lapic *l, unsigned pin, bool level)
{
	bool rising = level && !l->lint[pin];

	l->lint[pin] = level;
	if (!lapic_hw_enabled(l)) {
		if (pin == 1 && rising)
			l->config.ops.nmi(l->config.opaque);
	} else if (rising) {
		lapic_fire_lvt(l, pin == 0 ? LVT_LINT0 : LVT_LINT1);
	}
	lapic_update(l);
}

void lapic_eoi(struct lapic *l)
{
	int vector = highest_bit(l->isr);
	uint32_t *lint0 = &l->lvt[LVT_LINT0];

	if (vector < 0)
		return;
	assign_bit(l->isr, (uint8_t)vector, false);
	lapic_update(l);
	if (!test_bit(l->tmr, (uint8_t)vector))
		return;
	if (*lint0 & LVT_REMOTE_IRR && (*lint0 & LVT_VECTOR) == (uint32_t)vector) {
		*lint0 &= ~LVT_REMOTE_IRR;
		if (l->lint[0])
			lapic_fire_lvt(l, LVT_LINT0);
	}
	if (!(l->svr & APIC_SVR_SUPPRESS_EOI))
		apic_bus_eoi(l->bus, (uint8_t)vector);
}

bool lapic_defer_eoi(struct lapic *l, uint8_t vector)
{
	if (highest_bit(l->isr) != vector || test_bit(l->tmr, vector) || highest_bit(l->irr) >= 0 || !lapic_hw_enabled(l))
		return false;
	l->eoi_deferred = true;
	return true;
}

void lapic_settle_eoi(struct lapic *l, bool done)
{
	if (!l->eoi_deferred)
		return;
	l->eoi_deferred = false;
	if (done)
		lapic_eoi(l);
	else
		lapic_update(l);
}

void lapic_send_icr(struct lapic *l)
{
	uint32_t icr = (uint32_t)l->icr;
	enum apic_shorthand shorthand = (enum apic_shorthand)(icr >> 18 & 3);
	/* An IPI is edge-triggered whatever the trigger mode says. */
	struct apic_message m = {
		.delivery = (enum apic_delivery)(icr >> 8 & 7),
		.vector = (uint8_t)icr,
		.logical = icr & ICR_LOGICAL,
		.wide = lapic_x2apic(l),
		.dest = (uint32_t)(l->icr >> (lapic_x2apic(l) ? 32 : 56)),
	};

	switch (m.delivery) {
	case APIC_FIXED:
	case APIC_LOWEST:
		if (m.vector < APIC_FIRST_VECTOR) {
			lapic_raise_error(l, APIC_ESR_SEND_ILLEGAL_VECTOR);
			return;
		}
		break;
	case APIC_INIT:
		/*
		 * INIT level de-assert synchronised arbitration ids once; nothing receives it any
		 * more.
		 */
		if (icr & ICR_LEVEL_TRIGGER && !(icr & ICR_LEVEL_ASSERT))
			return;
		break;
	case APIC_SMI:
	case APIC_NMI:
	case APIC_SIPI: break;
	default:
		log_guest(
			"vCPU with APIC id %u: interrupt command 0x%x has a reserved delivery mode",
			l->config.apic_id, icr);
		return;
	}
	apic_bus_send(l->bus, l, shorthand, &m);
}

bool lapic_send_ipi(struct lapic *l, uint32_t apic_id, uint32_t icr)
{
	struct apic_message m = {
		.delivery = (enum apic_delivery)(icr >> 8 & 7),
		.vector = (uint8_t)icr,
		.wide = true,
		.dest = apic_id,
	};

	if (m.delivery == APIC_FIXED ? m.vector < APIC_FIRST_VECTOR : m.delivery != APIC_NMI)
		return false;
	return apic_bus_send_one(l->bus, &m);
}

static void reset(struct device *dev)
{
	struct lapic *l = container_of(dev, struct lapic, dev);

	l->base = LAPIC_DEFAULT_BASE | APIC_BASE_EN | (l->config.bsp ? APIC_BASE_BSP : 0);
	lapic_init_registers(l);
}

static void destroy(struct device *dev)
{
	struct lapic *l = container_of(dev, struct lapic, dev);

	lapic_timer_reset(l);
	apic_bus_detach(l->bus, l);
	free(l);
}

struct lapic *lapic_create(struct apic_bus *bus, struct clock *clock,
			   const struct lapic_config *config)
{
	static const struct device_ops ops = { "lapic", reset, destroy };
	struct lapic *l = calloc(1, sizeof(*l));

	assert(l && config->phys_bits >= 32 && config->phys_bits <= 52);
	assert(config->ops.kick && config->ops.nmi && config->ops.init && config->ops.sipi &&
	       config->ops.smi);
	l->dev.ops = &ops;
	l->bus = bus;
	l->clock = clock;
	l->config = *config;
	lapic_timer_init(l);
	apic_bus_attach(bus, l);
	reset(&l->dev);
	return l;
}

struct device *lapic_device(struct lapic *l)
{
	return &l->dev;
}
