/* SPDX-License-Identifier: Apache-2.0 */
/*
 * High Precision Event Timer.
 *
 * Theory of operation. The main counter is the clock in units of 10 ns less what it stood at while
 * halted. A comparator that may interrupt arms a timer for the moment at which the counter will
 * equal it; one that may not is only brought up to date when the guest looks. A periodic one then
 * moves on by its period, from its own last value, so that it does not drift. A comparator that
 * lies behind the counter matches when the counter has wrapped: after 43 s in 32-bit mode, and
 * never, in practice, in 64-bit mode. A guest's period may be 10 ns; it is served every
 * MIN_PERIOD_NS at most. Periods that have passed without an interrupt, because the host was
 * late or because the interrupt before still waits for its processor, are owed, a second's worth at
 * most: they follow one by one as the processor takes them, so that a guest that counts them keeps
 * its time.
 *
 * An edge-triggered comparator pulses its output; a level-triggered one sets its status bit and
 * holds the output until that bit is cleared. Outputs go to an input of the I/O APIC, or for
 * comparators 0 and 1 with legacy replacement to ISA interrupts 0 and 8, from which the 8254 and
 * the RTC are then cut off.
 *
 * Manual: IA-PC HPET specification 1.0a. Message delivery (FSB) is not offered. Threading: machine
 * lock.
 */
#include "dev/hpet.h"

#include <assert.h>
#include <stdlib.h>

#define LENGTH 0x400
#define MIN_PERIOD_NS (10 * NS_PER_US)
#define NEVER UINT64_MAX

#define CAP_REV 0x01u
#define CAP_COUNT_SIZE (1u << 13)
#define CAP_LEG_RT (1u << 15)
#define CAP_VENDOR 0x8086u
#define CONF_BITS (HPET_ENABLE_CNF | HPET_LEG_RT_CNF)
#define TN_ROUTE_BITS (31u << HPET_TN_INT_ROUTE_SHIFT)
#define TN_BITS (HPET_TN_INT_TYPE | HPET_TN_INT_ENB | HPET_TN_TYPE | HPET_TN_32MODE | TN_ROUTE_BITS)

struct comparator {
	struct hpet *hpet;
	unsigned index;
	uint32_t conf;
	uint64_t comp, period;
	uint64_t owed; /* interrupts of periods that have passed */
	/* The counter's value, unwrapped, of the next match, and when that will be; or NEVER. */
	uint64_t due, due_ns;
	struct clock_timer timer;
	const struct irq_line *held; /* the wire that is held high, or NULL */
	unsigned held_pin;
};

struct hpet {
	struct device dev;
	struct bus *mmio;
	struct clock *clock;
	struct hpet_config config;
	uint32_t conf, status;
	uint64_t count;	   /* main counter at @since_ns */
	uint64_t since_ns; /* when it was started, while enabled */
	bool legacy_in[2]; /* levels of the 8254's and the RTC's output */
	struct comparator comparator[HPET_TIMERS];
	struct io_region region;
};

static bool enabled(const struct hpet *h)
{
	return h->conf & HPET_ENABLE_CNF;
}

static uint64_t counter(const struct hpet *h)
{
	if (!enabled(h))
		return h->count;
	return h->count + (clock_now_ns(h->clock) - h->since_ns) / HPET_PERIOD_NS;
}

static uint64_t width_mask(const struct comparator *c)
{
	return c->conf & HPET_TN_32MODE ? 0xffffffff : ~0ull;
}

/* The wire a comparator drives, with its pin; NULL when it is routed nowhere. */
static const struct irq_line *wire(const struct comparator *c, unsigned *pin)
{
	const struct hpet *h = c->hpet;
	unsigned route = (c->conf & TN_ROUTE_BITS) >> HPET_TN_INT_ROUTE_SHIFT;

	if (h->conf & HPET_LEG_RT_CNF && c->index < 2) {
		*pin = h->config.legacy[c->index].pin;
		return &h->config.legacy[c->index];
	}
	*pin = route;
	return h->config.route_cap & 1u << route ? &h->config.ioapic : NULL;
}

static void set_wire(const struct irq_line *line, unsigned pin, bool level)
{
	if (line && line->set)
		line->set(line->opaque, pin, level);
}

/*
 * Holds or releases the output of a level-triggered comparator as its status, enables and route
 * say.
 */
static void update_level(struct comparator *c)
{
	struct hpet *h = c->hpet;
	const struct irq_line *line = NULL;
	unsigned pin = 0;

	if (enabled(h) && c->conf & HPET_TN_INT_ENB && c->conf & HPET_TN_INT_TYPE &&
	    h->status & 1u << c->index)
		line = wire(c, &pin);
	if (line == c->held && pin == c->held_pin)
		return;
	set_wire(c->held, c->held_pin, false);
	c->held = line;
	c->held_pin = pin;
	set_wire(line, pin, true);
}

/* Sends the next interrupt that an edge-triggered comparator owes, if the wire is free. */
static void deliver_tick(struct comparator *c)
{
	irq_waits_fn *waits = c->hpet->config.waits;
	unsigned pin;
	const struct irq_line *line = wire(c, &pin);

	if (!line || !(c->conf & HPET_TN_INT_ENB)) {
		c->owed = 0;
		return;
	}
	if (waits && waits(line->opaque, pin))
		return;
	set_wire(line, pin, true);
	set_wire(line, pin, false);
	/* Unless it waits now, nobody has got it, and the others would have been lost just so. */
	c->owed = waits && waits(line->opaque, pin) ? c->owed - 1 : 0;
}

void hpet_tick_taken(struct hpet *h)
{
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		if (h->comparator[i].owed)
			deliver_tick(&h->comparator[i]);
}

/* @periods have passed; a one-shot comparator matches once. */
static void matched(struct comparator *c, uint64_t periods)
{
	struct hpet *h = c->hpet;
	const struct irq_line *line;
	unsigned pin;

	if (c->conf & HPET_TN_INT_TYPE) {
		h->status |= 1u << c->index;
		update_level(c);
	} else if (c->conf & HPET_TN_TYPE && c->period) {
		c->owed = MIN(c->owed + periods,
			      MAX(NS_PER_SEC / HPET_PERIOD_NS / c->period, 1));
		deliver_tick(c);
	} else if (c->conf & HPET_TN_INT_ENB) {
		line = wire(c, &pin);
		set_wire(line, pin, true);
		set_wire(line, pin, false);
	}
}

/* Guests leave a comparator running that they no longer use, with its interrupt disabled: no need to wake up for it. */
static void schedule(struct comparator *c)
{
	if (c->due != NEVER && c->conf & HPET_TN_INT_ENB)
		clock_arm(c->hpet->clock, &c->timer, c->due_ns);
	else
		clock_cancel(c->hpet->clock, &c->timer);
}

/* Computes the next match and schedules it. @passed: a match right now has been dealt with. */
static void find_next(struct comparator *c, bool passed)
{
	struct hpet *h = c->hpet;
	uint64_t now = counter(h), left, ns;

	c->due = NEVER;
	if (!enabled(h))
		return;
	left = (c->comp - now) & width_mask(c);
	if (left == 0 && passed) {
		if (!(c->conf & HPET_TN_32MODE))
			return;
		left = 1ull << 32;
	}
	if (__builtin_add_overflow(now, left, &c->due) ||
	    __builtin_mul_overflow(c->due - h->count, (uint64_t)HPET_PERIOD_NS, &ns) ||
	    __builtin_add_overflow(h->since_ns, ns, &c->due_ns)) {
		c->due = NEVER;
		return;
	}
	if (passed)
		c->due_ns = MAX(c->due_ns, clock_now_ns(h->clock) + MIN_PERIOD_NS);
}

static void arm(struct comparator *c, bool passed)
{
	find_next(c, passed);
	schedule(c);
}

/* Does what has fallen due. */
static void run(struct comparator *c)
{
	uint64_t now = counter(c->hpet), periods = 1;

	if (!enabled(c->hpet) || c->due == NEVER || now < c->due)
		return;
	if (c->conf & HPET_TN_TYPE && c->period) {
		periods += (now - c->due) / c->period;
		c->comp = (c->comp + periods * c->period) & width_mask(c);
	}
	arm(c, true);
	matched(c, periods);
}

static void fire(void *opaque)
{
	struct comparator *c = opaque;

	run(c);
	if (!c->timer.armed)
		schedule(c);
}

/* The guest has changed what the comparator counts towards. */
static void restart(struct comparator *c)
{
	c->owed = 0;
	arm(c, false);
}

static void update_legacy(struct hpet *h, bool was_replaced)
{
	bool replaced = h->conf & HPET_LEG_RT_CNF;

	if (replaced == was_replaced)
		return;
	for (unsigned i = 0; i < 2; i++)
		if (h->legacy_in[i])
			irq_set(&h->config.legacy[i], !replaced);
}

void hpet_set_legacy(void *opaque, unsigned pin, bool level)
{
	struct hpet *h = opaque;

	assert(pin < 2);
	h->legacy_in[pin] = level;
	if (!(h->conf & HPET_LEG_RT_CNF))
		irq_set(&h->config.legacy[pin], level);
}

bool hpet_legacy_waits(void *opaque, unsigned pin)
{
	struct hpet *h = opaque;
	const struct irq_line *line = &h->config.legacy[pin];

	assert(pin < 2);
	return !(h->conf & HPET_LEG_RT_CNF) && h->config.waits &&
	       h->config.waits(line->opaque, line->pin);
}

static void write_conf(struct hpet *h, uint32_t value)
{
	uint32_t old = h->conf;

	if ((value ^ old) & HPET_ENABLE_CNF) {
		h->count = counter(h);
		h->since_ns = clock_now_ns(h->clock);
	}
	/* Levels leave the old wires before these change hands. */
	h->conf = old & ~HPET_ENABLE_CNF;
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		update_level(&h->comparator[i]);
	h->conf = value & CONF_BITS;
	update_legacy(h, old & HPET_LEG_RT_CNF);
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		update_level(&h->comparator[i]);
		if (value != old)
			h->comparator[i].owed = 0;
		if ((value ^ old) & HPET_ENABLE_CNF)
			restart(&h->comparator[i]);
	}
}

static void write_tn_conf(struct comparator *c, uint32_t value)
{
	uint32_t route = (value & TN_ROUTE_BITS) >> HPET_TN_INT_ROUTE_SHIFT, old = c->conf;

	/*
	 * An input that cannot be driven is not taken over: the guest finds the old one when it
	 * reads back.
	 */
	if (!(c->hpet->config.route_cap & 1u << route))
		value = (value & ~TN_ROUTE_BITS) | (old & TN_ROUTE_BITS);
	c->conf = (value & (TN_BITS | HPET_TN_VAL_SET)) | HPET_TN_PER_INT_CAP | HPET_TN_SIZE_CAP;
	if (!(value & HPET_TN_TYPE))
		c->conf &= ~HPET_TN_VAL_SET;
	c->comp &= width_mask(c);
	c->period &= width_mask(c);
	update_level(c);
	c->owed = 0;
	if ((old ^ c->conf) & (HPET_TN_TYPE | HPET_TN_32MODE))
		restart(c);
	else
		schedule(c);
}

/* @mask: which bits of the register are written. */
static void write_comp(struct comparator *c, uint64_t value, uint64_t mask)
{
	if (!(c->conf & HPET_TN_TYPE) || c->conf & HPET_TN_VAL_SET)
		c->comp = ((c->comp & ~mask) | value) & width_mask(c);
	c->period = ((c->period & ~mask) | value) & width_mask(c);
	c->conf &= ~HPET_TN_VAL_SET;
	restart(c);
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct hpet *h = opaque;
	unsigned shift = 8 * (offset & 7), i;
	uint64_t mask = size_mask(size) << shift;

	value <<= shift;
	offset &= ~7ull;
	for (i = 0; i < HPET_TIMERS; i++)
		run(&h->comparator[i]);
	switch (offset) {
	case HPET_GEN_CONF:
		if (mask & 0xffffffff)
			write_conf(h, (uint32_t)value);
		return;
	case HPET_GINTR_STA:
		h->status &= ~(uint32_t)value;
		for (i = 0; i < HPET_TIMERS; i++)
			update_level(&h->comparator[i]);
		return;
	case HPET_MAIN_CNT:
		h->count = (counter(h) & ~mask) | value;
		h->since_ns = clock_now_ns(h->clock);
		for (i = 0; i < HPET_TIMERS; i++)
			restart(&h->comparator[i]);
		return;
	}
	if (offset < HPET_TIM_CONF(0) || offset >= HPET_TIM_CONF(HPET_TIMERS))
		return;
	i = (unsigned)(offset - HPET_TIM_CONF(0)) / 0x20;
	if (offset == HPET_TIM_CONF(i) && mask & 0xffffffff)
		write_tn_conf(&h->comparator[i], (uint32_t)value);
	else if (offset == HPET_TIM_COMP(i))
		write_comp(&h->comparator[i], value, mask);
}

static uint64_t read_register(struct hpet *h, uint64_t offset)
{
	unsigned i;

	switch (offset) {
	case HPET_GCAP_ID:
		return HPET_PERIOD_NS * 1000000ull << 32 | CAP_VENDOR << 16 | CAP_LEG_RT |
		       CAP_COUNT_SIZE | (HPET_TIMERS - 1) << 8 | CAP_REV;
	case HPET_GEN_CONF: return h->conf;
	case HPET_GINTR_STA: return h->status;
	case HPET_MAIN_CNT: return counter(h);
	}
	if (offset < HPET_TIM_CONF(0) || offset >= HPET_TIM_CONF(HPET_TIMERS))
		return 0;
	i = (unsigned)(offset - HPET_TIM_CONF(0)) / 0x20;
	if (offset == HPET_TIM_CONF(i))
		return (uint64_t)h->config.route_cap << 32 | h->comparator[i].conf;
	return offset == HPET_TIM_COMP(i) ? h->comparator[i].comp : 0;
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	struct hpet *h = opaque;

	for (unsigned i = 0; i < HPET_TIMERS; i++)
		run(&h->comparator[i]);
	return read_register(h, offset & ~7ull) >> 8 * (offset & 7) & size_mask(size);
}

static void reset(struct device *dev)
{
	struct hpet *h = container_of(dev, struct hpet, dev);

	write_conf(h, 0);
	h->count = 0;
	h->status = 0;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		struct comparator *c = &h->comparator[i];

		c->conf = HPET_TN_PER_INT_CAP | HPET_TN_SIZE_CAP;
		c->comp = ~0ull;
		c->period = 0;
		restart(c);
	}
}

static void destroy(struct device *dev)
{
	struct hpet *h = container_of(dev, struct hpet, dev);

	for (unsigned i = 0; i < HPET_TIMERS; i++)
		clock_cancel(h->clock, &h->comparator[i].timer);
	bus_remove(h->mmio, &h->region);
	free(h);
}

struct hpet *hpet_create(struct bus *mmio, struct clock *clock, const struct hpet_config *config)
{
	static const struct device_ops ops = { "hpet", reset, destroy };
	static const struct io_ops mmio_ops = { mmio_read, mmio_write, 4, 8 };
	struct hpet *h = calloc(1, sizeof(*h));

	assert(h);
	h->dev.ops = &ops;
	h->mmio = mmio;
	h->clock = clock;
	h->config = *config;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		struct comparator *c = &h->comparator[i];

		c->hpet = h;
		c->index = i;
		c->timer.fire = fire;
		c->timer.opaque = c;
	}
	h->region = (struct io_region){
		.name = "hpet",
		.base = config->base,
		.length = LENGTH,
		.ops = &mmio_ops,
		.opaque = h,
	};
	bus_add(mmio, &h->region);
	reset(&h->dev);
	return h;
}

struct device *hpet_device(struct hpet *h)
{
	return &h->dev;
}
