/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC's timer: one-shot, periodic and TSC-deadline.
 *
 * Theory of operation. The timer runs at 1 GHz, so a count at divide 1 is a nanosecond. What is
 * kept is the moment at which the count reaches zero; the current count follows from it. A periodic
 * timer's next moment is computed from the last one, not from when the host got round to it;
 * periods missed altogether are one interrupt. A guest's period may be a nanosecond; the host
 * serves it at most once every MIN_PERIOD_NS.
 *
 * Manual: Intel SDM volume 3A, section "APIC Timer". Threading: machine lock.
 */
#include <assert.h>

#include "dev/lapic_priv.h"

#define MIN_PERIOD_NS (10 * NS_PER_US)

enum mode { ONE_SHOT, PERIODIC, TSC_DEADLINE, RESERVED };

static enum mode mode_of(uint32_t lvt)
{
	return (enum mode)(lvt >> 17 & 3);
}

static unsigned divide(const struct lapic_timer *t)
{
	unsigned code = (t->dcr & 3) | (t->dcr >> 1 & 4);

	return code == 7 ? 1 : 2u << code;
}

static void stop(struct lapic *l)
{
	l->timer.running = false;
	clock_cancel(l->clock, &l->timer.timer);
}

static void start(struct lapic *l, uint64_t deadline_ns)
{
	l->timer.running = true;
	l->timer.deadline_ns = deadline_ns;
	clock_arm(l->clock, &l->timer.timer, deadline_ns);
}

static void fire(void *opaque)
{
	struct lapic *l = opaque;
	struct lapic_timer *t = &l->timer;
	uint64_t now = clock_now_ns(l->clock), period;

	if (!t->running)
		return;
	t->running = false;
	t->tsc_deadline = 0;
	if (mode_of(l->lvt[LVT_TIMER]) == PERIODIC && t->initial) {
		period = (uint64_t)t->initial * divide(t);
		t->running = true;
		t->deadline_ns += period;
		if (now >= t->deadline_ns)
			t->deadline_ns += ((now - t->deadline_ns) / period + 1) * period;
		clock_arm(l->clock, &t->timer, MAX(t->deadline_ns, now + MIN_PERIOD_NS));
	}
	lapic_fire_lvt(l, LVT_TIMER);
}

/*
 * Does what has fallen due and the host has not come to yet: before the guest changes the timer, and
 * before it looks where it could tell.
 */
void lapic_timer_sync(struct lapic *l)
{
	if (l->timer.running && clock_now_ns(l->clock) >= l->timer.deadline_ns) {
		clock_cancel(l->clock, &l->timer.timer);
		fire(l);
	}
}

void lapic_timer_set_count(struct lapic *l, uint32_t value)
{
	struct lapic_timer *t = &l->timer;

	lapic_timer_sync(l);
	if (mode_of(l->lvt[LVT_TIMER]) == TSC_DEADLINE)
		return;
	t->initial = value;
	if (value)
		start(l, clock_now_ns(l->clock) + (uint64_t)value * divide(t));
	else
		stop(l);
}

/* After lapic_timer_sync(). */
uint32_t lapic_timer_count(const struct lapic *l)
{
	const struct lapic_timer *t = &l->timer;
	uint64_t now = clock_now_ns(l->clock), left;

	if (!t->running || mode_of(l->lvt[LVT_TIMER]) == TSC_DEADLINE)
		return 0;
	left = now < t->deadline_ns ? t->deadline_ns - now : 0;
	return (uint32_t)((left + divide(t) - 1) / divide(t));
}

void lapic_timer_set_divide(struct lapic *l, uint32_t value)
{
	struct lapic_timer *t = &l->timer;
	uint32_t count;

	lapic_timer_sync(l);
	count = lapic_timer_count(l);
	t->dcr = value & 0xb;
	/* What is left to count is counted at the new rate. */
	if (t->running && count)
		start(l, clock_now_ns(l->clock) + (uint64_t)count * divide(t));
}

/*
 * A change into or out of TSC-deadline mode disarms the timer; others take effect when it expires.
 */
void lapic_timer_lvt_changed(struct lapic *l, uint32_t old_lvt)
{
	enum mode before = mode_of(old_lvt), after = mode_of(l->lvt[LVT_TIMER]);

	if ((before == TSC_DEADLINE) == (after == TSC_DEADLINE))
		return;
	stop(l);
	l->timer.initial = 0;
	l->timer.tsc_deadline = 0;
}

void lapic_set_tsc_deadline(struct lapic *l, uint64_t guest_tsc, uint64_t deadline_ns)
{
	struct lapic_timer *t = &l->timer;

	if (!lapic_hw_enabled(l) || mode_of(l->lvt[LVT_TIMER]) != TSC_DEADLINE)
		return;
	lapic_timer_sync(l);
	stop(l);
	t->tsc_deadline = guest_tsc;
	if (!guest_tsc)
		return;
	start(l, deadline_ns);
	lapic_timer_sync(l);
}

uint64_t lapic_timer_tsc_deadline(const struct lapic *l)
{
	return l->timer.tsc_deadline;
}

uint64_t lapic_timer_deadline_left(const struct lapic *l)
{
	uint64_t now = clock_now_ns(l->clock);

	return l->timer.tsc_deadline && l->timer.deadline_ns > now ? l->timer.deadline_ns - now : 0;
}

void lapic_timer_load(struct lapic *l, const struct lapic_state *in)
{
	struct lapic_timer *t = &l->timer;
	uint64_t now = clock_now_ns(l->clock), left = in->deadline_left_ns;
	bool armed = in->tsc_deadline;

	t->dcr = in->reg[APIC_TDCR >> 4] & 0xb;
	if (mode_of(l->lvt[LVT_TIMER]) == TSC_DEADLINE) {
		t->tsc_deadline = in->tsc_deadline;
	} else {
		t->initial = in->reg[APIC_TMICT >> 4];
		armed = in->reg[APIC_TMCCT >> 4];
		left = (uint64_t)in->reg[APIC_TMCCT >> 4] * divide(t);
	}
	if (armed)
		start(l, left > UINT64_MAX - now ? UINT64_MAX : now + left);
}

void lapic_timer_reset(struct lapic *l)
{
	stop(l);
	l->timer.initial = 0;
	l->timer.dcr = 0;
	l->timer.tsc_deadline = 0;
}

void lapic_timer_init(struct lapic *l)
{
	l->timer.timer.fire = fire;
	l->timer.timer.opaque = l;
}
