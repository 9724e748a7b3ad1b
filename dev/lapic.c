/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC: registers, priorities, what becomes of an interrupt that arrives.
 *
 * Theory of operation. An accepted interrupt sets its bit in IRR. update() compares the highest of
 * those with the processor priority (the greater of TPR and the highest vector in service) and
 * keeps the result in @ready; it runs after every change, so that asking is cheap. When the answer
 * turns from no to yes the CPU side is kicked. The CPU side then takes the vector (IRR to ISR); EOI
 * ends the highest in service and tells the I/O APIC when it was level-triggered.
 *
 * An ExtINT passes by IRR and PPR: it is pending while the 8259 holds INTR and LINT0 is set to
 * ExtINT, or while the APIC is disabled in IA32_APIC_BASE, when LINT0 is the INTR pin and LINT1 the
 * NMI pin.
 *
 * IA32_APIC_BASE moves between disabled, xAPIC and x2APIC along the arrows of the manual's state
 * diagram only; disabling resets the registers. The xAPIC id cannot be written, as on recent
 * processors.
 *
 * Manual: Intel SDM volume 3A, chapter "APIC". Threading: machine lock; lapic_intr_pending() and
 * lapic_apic_base() also without.
 */
#include <assert.h>
#include <stdlib.h>

#include "dev/lapic_priv.h"

#define ICR_LEVEL_ASSERT (1u << 14)
#define ICR_LEVEL_TRIGGER (1u << 15)
#define ICR_LOGICAL (1u << 11)
#define ICR_BUSY (1u << 12)
#define ICR_LOW_BITS 0x000ccfffu
#define X2_ICR_RESERVED (0xfffff000u & ~(ICR_LOW_BITS | ICR_BUSY))
#define SVR_BITS 0x13ffu
#define ESR_BITS 0xefu
#define FIRST_VALID_VECTOR 16

static const struct {
	uint32_t offset, writable, reads; /* @reads: with the read-only bits */
} lvt_info[LVT_COUNT] = {
	[LVT_TIMER] = { APIC_LVT_TIMER, 0x000700ff, 0x000710ff },
	[LVT_THERMAL] = { APIC_LVT_THERMAL, 0x000107ff, 0x000117ff },
	[LVT_PERF] = { APIC_LVT_PERF, 0x000107ff, 0x000117ff },
	[LVT_LINT0] = { APIC_LVT_LINT0, 0x0001a7ff, 0x0001f7ff },
	[LVT_LINT1] = { APIC_LVT_LINT1, 0x0001a7ff, 0x0001f7ff },
	[LVT_ERROR] = { APIC_LVT_ERROR, 0x000100ff, 0x000110ff },
	[LVT_CMCI] = { APIC_LVT_CMCI, 0x000107ff, 0x000117ff },
};

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

static void update(struct lapic *l)
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
	update(l);
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
	if (vector < FIRST_VALID_VECTOR) {
		lapic_raise_error(l, APIC_ESR_RECEIVE_ILLEGAL_VECTOR);
		return;
	}
	if (!(l->svr & APIC_SVR_ENABLE))
		return;
	assign_bit(l->irr, vector, true);
	assign_bit(l->tmr, vector, level);
	update(l);
}

/* INIT leaves IA32_APIC_BASE and the id alone, and the wires are as they are. */
static void init_registers(struct lapic *l)
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
	update(l);
}

void lapic_deliver(struct lapic *l, enum apic_delivery delivery, uint8_t vector, bool level)
{
	switch (delivery) {
	case APIC_FIXED:
	case APIC_LOWEST: accept(l, vector, level); break;
	case APIC_SMI: l->config.ops.smi(l->config.opaque); break;
	case APIC_NMI: l->config.ops.nmi(l->config.opaque); break;
	case APIC_INIT:
		init_registers(l);
		l->config.ops.init(l->config.opaque);
		break;
	case APIC_SIPI: l->config.ops.sipi(l->config.opaque, vector); break;
	case APIC_EXTINT:
		l->extint_message = true;
		update(l);
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
	update(l);
}

static void eoi(struct lapic *l)
{
	int vector = highest_bit(l->isr);
	uint32_t *lint0 = &l->lvt[LVT_LINT0];

	if (vector < 0)
		return;
	assign_bit(l->isr, (uint8_t)vector, false);
	update(l);
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
		eoi(l);
	else
		update(l);
}

static void send_ipi(struct lapic *l)
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
		if (m.vector < FIRST_VALID_VECTOR) {
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

	if (m.delivery == APIC_FIXED ? m.vector < FIRST_VALID_VECTOR : m.delivery != APIC_NMI)
		return false;
	return apic_bus_send_one(l->bus, &m);
}

static void write_lvt(struct lapic *l, enum lvt i, uint32_t value)
{
	uint32_t old;
	bool level;

	if (i == LVT_TIMER)
		lapic_timer_sync(l);
	old = l->lvt[i];
	value &= lvt_info[i].writable;
	if (!(l->svr & APIC_SVR_ENABLE))
		value |= LVT_MASK;
	/* Remote IRR is for a fixed, level-triggered LINT0, whose wire counts at once. */
	level = i == LVT_LINT0 && value & LVT_LEVEL && LVT_DELMOD(value) == APIC_FIXED;
	if (level)
		value |= old & LVT_REMOTE_IRR;
	l->lvt[i] = value;
	if (i == LVT_TIMER)
		lapic_timer_lvt_changed(l, old);
	if (level && l->lint[0])
		lapic_fire_lvt(l, LVT_LINT0);
	update(l);
}

static void write_svr(struct lapic *l, uint32_t value)
{
	l->svr = value & SVR_BITS;
	if (!(l->svr & APIC_SVR_ENABLE))
		for (unsigned i = 0; i < LVT_COUNT; i++)
			l->lvt[i] |= LVT_MASK;
	update(l);
}

static int lvt_at(uint32_t offset)
{
	for (int i = 0; i < LVT_COUNT; i++)
		if (lvt_info[i].offset == offset)
			return i;
	return -1;
}

/* Both modes; false when there is no such register. */
static bool read_register(struct lapic *l, uint32_t offset, uint32_t *out)
{
	int i = lvt_at(offset);

	*out = 0;
	if (i >= 0) {
		*out = l->lvt[i];
		return true;
	}
	switch (offset) {
	case APIC_ID:
		*out = lapic_x2apic(l) ? l->config.apic_id : l->config.apic_id << 24;
		return true;
	case APIC_LVR: *out = LAPIC_VERSION; return true;
	case APIC_TPR: *out = l->tpr; return true;
	case APIC_PPR: *out = lapic_ppr(l); return true;
	case APIC_APR:
	case APIC_RRD:
	case APIC_EOI: return !lapic_x2apic(l);
	case APIC_LDR: *out = lapic_logical_id(l); return true;
	case APIC_DFR: *out = l->dfr; return !lapic_x2apic(l);
	case APIC_SVR: *out = l->svr; return true;
	case APIC_ISR ... APIC_ISR + 0x70: *out = l->isr[(offset - APIC_ISR) >> 4]; return true;
	case APIC_TMR ... APIC_TMR + 0x70: *out = l->tmr[(offset - APIC_TMR) >> 4]; return true;
	case APIC_IRR ... APIC_IRR + 0x70:
		lapic_timer_sync(l);
		*out = l->irr[(offset - APIC_IRR) >> 4];
		return true;
	case APIC_ESR: *out = l->esr; return true;
	case APIC_ICR: *out = (uint32_t)l->icr; return true;
	case APIC_ICR2: *out = (uint32_t)(l->icr >> 32); return !lapic_x2apic(l);
	case APIC_TMICT: *out = l->timer.initial; return true;
	case APIC_TMCCT:
		lapic_timer_sync(l);
		*out = lapic_timer_count(l);
		return true;
	case APIC_TDCR: *out = l->timer.dcr; return true;
	default: return false;
	}
}

/* The registers that are written alike in both modes; false when @offset is not one. */
static bool write_register(struct lapic *l, uint32_t offset, uint32_t value)
{
	int i = lvt_at(offset);

	if (i >= 0) {
		write_lvt(l, (enum lvt)i, value);
		return true;
	}
	switch (offset) {
	case APIC_TPR:
		l->tpr = value & 0xff;
		update(l);
		return true;
	case APIC_EOI: eoi(l); return true;
	case APIC_SVR: write_svr(l, value); return true;
	case APIC_ESR:
		l->esr = l->esr_pending;
		l->esr_pending = 0;
		return true;
	case APIC_TMICT: lapic_timer_set_count(l, value); return true;
	case APIC_TDCR: lapic_timer_set_divide(l, value); return true;
	default: return false;
	}
}

bool lapic_mmio_claims(const struct lapic *l, uint64_t gpa)
{
	return lapic_hw_enabled(l) && !lapic_x2apic(l) &&
	       align_down(gpa, 4096) == align_down(l->base, 4096);
}

uint32_t lapic_mmio_read(struct lapic *l, uint32_t offset)
{
	uint32_t value;

	if (!lapic_hw_enabled(l) || lapic_x2apic(l))
		return 0xffffffff;
	if (offset & 0xf)
		return 0;
	if (!read_register(l, offset, &value))
		lapic_raise_error(l, APIC_ESR_ILLEGAL_REGISTER);
	return value;
}

void lapic_mmio_write(struct lapic *l, uint32_t offset, uint32_t value)
{
	uint32_t ignored;

	if (!lapic_hw_enabled(l) || lapic_x2apic(l) || offset & 0xf)
		return;
	switch (offset) {
	case APIC_LDR: l->ldr = value & 0xff000000; break;
	case APIC_DFR: l->dfr = value | 0x0fffffff; break;
	case APIC_ICR:
		l->icr = (l->icr & ~0xffffffffull) | (value & ICR_LOW_BITS);
		send_ipi(l);
		break;
	case APIC_ICR2: l->icr = (uint64_t)(value & 0xff000000) << 32 | (uint32_t)l->icr; break;
	default:
		if (!write_register(l, offset, value) && !read_register(l, offset, &ignored))
			lapic_raise_error(l, APIC_ESR_ILLEGAL_REGISTER);
		break;
	}
}

/* IA32_APIC_BASE: the arrows of the state diagram in "x2APIC State Transitions". */
static bool write_apic_base(struct lapic *l, uint64_t value)
{
	uint64_t reserved = ~((1ull << l->config.phys_bits) - 1) | 0x2ff;
	uint64_t mode_bits = APIC_BASE_EN | APIC_BASE_EXTD;
	uint64_t from = l->base & mode_bits, to = value & mode_bits;

	if (value & reserved || to == APIC_BASE_EXTD)
		return false;
	if (from == 0 && to == mode_bits)
		return false;
	if (from == mode_bits && to == APIC_BASE_EN)
		return false;
	l->base = value;
	if (from == to)
		return true;
	if (to == 0)
		init_registers(l);
	else if (to == mode_bits)
		l->icr &= 0xffffffff;
	update(l);
	return true;
}

static bool x2apic_write(struct lapic *l, uint32_t offset, uint64_t value)
{
	uint64_t allowed;
	int i = lvt_at(offset);

	switch (offset) {
	case APIC_ICR:
		if (value & X2_ICR_RESERVED)
			return false;
		l->icr = value & ~(uint64_t)ICR_BUSY;
		send_ipi(l);
		return true;
	case APIC_SELF_IPI:
		if (value & ~0xffull)
			return false;
		if (value < FIRST_VALID_VECTOR)
			lapic_raise_error(l, APIC_ESR_SEND_ILLEGAL_VECTOR);
		else
			lapic_deliver(l, APIC_FIXED, (uint8_t)value, false);
		return true;
	case APIC_EOI:
	case APIC_ESR: allowed = 0; break;
	case APIC_TPR: allowed = 0xff; break;
	case APIC_SVR: allowed = SVR_BITS; break;
	case APIC_TDCR: allowed = 0xb; break;
	case APIC_TMICT: allowed = 0xffffffff; break;
	default:
		if (i < 0)
			return false;
		allowed = lvt_info[i].reads;
		break;
	}
	return !(value & ~allowed) && write_register(l, offset, (uint32_t)value);
}

bool lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *out)
{
	uint32_t offset = (msr - MSR_X2APIC_FIRST) << 4, value;

	*out = 0;
	if (msr == MSR_IA32_APIC_BASE) {
		*out = l->base;
		return true;
	}
	if (msr == MSR_IA32_TSC_DEADLINE) {
		lapic_timer_sync(l);
		*out = lapic_timer_tsc_deadline(l);
		return true;
	}
	if (msr < MSR_X2APIC_FIRST || msr > MSR_X2APIC_LAST || !lapic_x2apic(l))
		return false;
	if (!read_register(l, offset, &value))
		return false;
	*out = offset == APIC_ICR ? l->icr : value;
	return true;
}

bool lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value)
{
	if (msr == MSR_IA32_APIC_BASE)
		return write_apic_base(l, value);
	if (msr < MSR_X2APIC_FIRST || msr > MSR_X2APIC_LAST || !lapic_x2apic(l))
		return false;
	return x2apic_write(l, (msr - MSR_X2APIC_FIRST) << 4, value);
}

uint64_t lapic_apic_base(const struct lapic *l)
{
	return l->base;
}

uint8_t lapic_get_cr8(const struct lapic *l)
{
	return (uint8_t)(l->tpr >> 4);
}

void lapic_set_cr8(struct lapic *l, uint8_t cr8)
{
	l->tpr = (uint32_t)(cr8 & 15) << 4;
	update(l);
}

void lapic_get_state(struct lapic *l, struct lapic_state *out)
{
	lapic_timer_sync(l);
	*out = (struct lapic_state){
		.base = l->base,
		.tsc_deadline = l->timer.tsc_deadline,
		.deadline_left_ns = lapic_timer_deadline_left(l),
		.esr_pending = l->esr_pending,
		.extint = l->extint_message,
	};
	for (uint32_t offset = 0; offset < 0x400; offset += 16)
		read_register(l, offset, &out->reg[offset >> 4]);
}

static void load_vectors(uint32_t set[8], const uint32_t *reg)
{
	for (unsigned k = 0; k < 8; k++)
		set[k] = reg[k];
	set[0] &= ~0u << FIRST_VALID_VECTOR;
}

bool lapic_set_state(struct lapic *l, const struct lapic_state *in)
{
	const uint32_t *reg = in->reg;
	uint64_t address = ((1ull << l->config.phys_bits) - 1) & ~0xfffull;

	if (in->base & ~(address | APIC_BASE_BSP | APIC_BASE_EXTD | APIC_BASE_EN) ||
	    (in->base & (APIC_BASE_EXTD | APIC_BASE_EN)) == APIC_BASE_EXTD)
		return false;
	init_registers(l);
	l->base = in->base;
	load_vectors(l->isr, reg + (APIC_ISR >> 4));
	load_vectors(l->tmr, reg + (APIC_TMR >> 4));
	load_vectors(l->irr, reg + (APIC_IRR >> 4));
	l->tpr = reg[APIC_TPR >> 4] & 0xff;
	l->ldr = lapic_x2apic(l) ? 0 : reg[APIC_LDR >> 4] & 0xff000000;
	l->dfr = reg[APIC_DFR >> 4] | 0x0fffffff;
	l->svr = reg[APIC_SVR >> 4] & SVR_BITS;
	l->esr = reg[APIC_ESR >> 4] & ESR_BITS;
	l->esr_pending = in->esr_pending & ESR_BITS;
	l->icr = (reg[APIC_ICR >> 4] & ICR_LOW_BITS) | (uint64_t)reg[APIC_ICR2 >> 4] << 32;
	l->extint_message = in->extint;
	for (int i = 0; i < LVT_COUNT; i++) {
		l->lvt[i] = reg[lvt_info[i].offset >> 4] & (lvt_info[i].writable | (i == LVT_LINT0 ? LVT_REMOTE_IRR : 0));
		if (!(l->svr & APIC_SVR_ENABLE))
			l->lvt[i] |= LVT_MASK;
	}
	lapic_timer_load(l, in);
	update(l);
	return true;
}

void lapic_set_virtual_wire(struct lapic *l)
{
	write_svr(l, APIC_SVR_ENABLE | 0xff);
	write_lvt(l, LVT_LINT0, APIC_EXTINT << 8);
	write_lvt(l, LVT_LINT1, APIC_NMI << 8);
}

static void reset(struct device *dev)
{
	struct lapic *l = container_of(dev, struct lapic, dev);

	l->base = LAPIC_DEFAULT_BASE | APIC_BASE_EN | (l->config.bsp ? APIC_BASE_BSP : 0);
	init_registers(l);
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
