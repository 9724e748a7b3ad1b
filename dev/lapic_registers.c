/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers of the local APIC: in memory (xAPIC), as MSRs (x2APIC), and all of them as its state.
 *
 * IA32_APIC_BASE moves between disabled, xAPIC and x2APIC along the arrows of the manual's state
 * diagram only; disabling resets the registers. The xAPIC id cannot be written, as on recent
 * processors.
 *
 * Manual: Intel SDM volume 3A, chapter "APIC". Threading: machine lock; lapic_apic_base() also
 * without.
 */
#include "dev/lapic_priv.h"

#define ICR_BUSY (1u << 12)
#define ICR_LOW_BITS 0x000ccfffu
#define X2_ICR_RESERVED (0xfffff000u & ~(ICR_LOW_BITS | ICR_BUSY))
#define SVR_BITS 0x13ffu
#define ESR_BITS 0xefu

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
	lapic_update(l);
}

static void write_svr(struct lapic *l, uint32_t value)
{
	l->svr = value & SVR_BITS;
	if (!(l->svr & APIC_SVR_ENABLE))
		for (unsigned i = 0; i < LVT_COUNT; i++)
			l->lvt[i] |= LVT_MASK;
	lapic_update(l);
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
		lapic_update(l);
		return true;
	case APIC_EOI: lapic_eoi(l); return true;
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
		lapic_send_icr(l);
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
		lapic_init_registers(l);
	else if (to == mode_bits)
		l->icr &= 0xffffffff;
	lapic_update(l);
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
		lapic_send_icr(l);
		return true;
	case APIC_SELF_IPI:
		if (value & ~0xffull)
			return false;
		if (value < APIC_FIRST_VECTOR)
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
	lapic_update(l);
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
	set[0] &= ~0u << APIC_FIRST_VECTOR;
}

bool lapic_set_state(struct lapic *l, const struct lapic_state *in)
{
	const uint32_t *reg = in->reg;
	uint64_t address = ((1ull << l->config.phys_bits) - 1) & ~0xfffull;

	if (in->base & ~(address | APIC_BASE_BSP | APIC_BASE_EXTD | APIC_BASE_EN) ||
	    (in->base & (APIC_BASE_EXTD | APIC_BASE_EN)) == APIC_BASE_EXTD)
		return false;
	lapic_init_registers(l);
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
	lapic_update(l);
	return true;
}

void lapic_set_virtual_wire(struct lapic *l)
{
	write_svr(l, APIC_SVR_ENABLE | 0xff);
	write_lvt(l, LVT_LINT0, APIC_EXTINT << 8);
	write_lvt(l, LVT_LINT1, APIC_NMI << 8);
}
