/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 8254 programmable interval timer.
 *
 * Theory of operation. Nothing ticks. A channel remembers at which tick of the 1.193182 MHz clock
 * its counting element was loaded and with what; its count and its output are functions of the
 * ticks that have passed since. A count written while mode 2 or 3 runs waits for the end of the
 * period: settle() catches up with that before every use. Of the three outputs only channel 0's
 * goes to a wire, so one timer is armed for the next edge of that output. The low strobe of modes 2,
 * 4 and 5 lasts one tick and is played together with its rising edge.
 *
 * A guest that counts ticks keeps its time on a busy host: an edge is held back while the one before
 * it waits for the processor, and so are those that the host was late for, a second's worth at most.
 * What is owed goes out one by one, as the processor takes them.
 *
 * A guest may ask for an edge every microsecond; the wire gets one every MIN_EDGE_NS at most.
 *
 * Manual: Intel 82C54 data sheet (order 231244). Port 0x61: ICH9 data sheet, section 13.7.1.
 * Threading: machine lock.
 */
#include "dev/i8254.h"

#include <assert.h>
#include <stdlib.h>

#define CHANNELS 3
#define CONTROL 3
#define MIN_EDGE_NS (10 * NS_PER_US)
#define REFRESH_NS 15085u /* the refresh request toggles this often */

#define CW_RW(v) (((v) >> 4) & 3)
#define CW_MODE(v) (((v) >> 1) & 7)
#define CW_READ_BACK 3
#define RB_NO_COUNT 0x20
#define RB_NO_STATUS 0x10
#define STATUS_OUT 0x80
#define STATUS_NULL 0x40

enum access { ACCESS_LATCH, ACCESS_LSB, ACCESS_MSB, ACCESS_BOTH };

struct channel {
	uint8_t mode;	 /* 0..5 */
	uint8_t control; /* the low six bits of the control word: what read-back reports */
	enum access access;
	bool bcd, gate;
	bool loaded;	    /* the counting element has been loaded: @count, @load_tick are valid */
	bool count_written; /* a count has been written since the control word */
	bool pending;	    /* @next waits for a trigger or the end of the period */
	bool stopped;	    /* the gate holds it at @held ticks after its load */
	uint32_t count;	    /* 1..65536, in BCD modes 1..10000 */
	uint32_t next;
	uint64_t load_tick, held;
	uint8_t lsb; /* first half of a two-byte write */
	bool write_high, read_high, latched_high;
	bool count_latched, status_latched;
	uint16_t latch;
	uint8_t status;
};

struct i8254 {
	struct device dev;
	struct bus *ports;
	struct clock *clock;
	struct irq_line irq;
	irq_waits_fn *waits;
	struct clock_timer timer;
	struct channel ch[CHANNELS];
	/* How many rising edges of channel 0's present load the wire has seen, or will never see. */
	uint64_t rises;
	bool owed; /* there are more by now */
	bool irq_level;
	uint8_t nmi_sc;
	struct io_region region, nmi_sc_region;
};

static uint64_t tick_now(struct i8254 *pit)
{
	return mul_div(clock_now_ns(pit->clock), I8254_HZ, NS_PER_SEC);
}

/* The first nanosecond of @tick. */
static uint64_t tick_to_ns(uint64_t tick)
{
	return mul_div(tick, NS_PER_SEC, I8254_HZ) + 1;
}

static bool periodic(const struct channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

static void load(struct channel *c, uint64_t tick)
{
	c->count = c->next;
	c->load_tick = tick;
	c->loaded = true;
	c->pending = false;
	c->stopped = false;
}

/* Ticks since the load; 0 too during the one clock that loading takes. */
static uint64_t elapsed(const struct channel *c, uint64_t now)
{
	if (c->stopped)
		return c->held;
	return now > c->load_tick ? now - c->load_tick : 0;
}

/* A count that waits for the end of a running period is taken over when that has passed. */
static void settle(struct channel *c, uint64_t now)
{
	uint64_t end;

	if (!periodic(c) || !c->loaded || !c->pending || c->stopped)
		return;
	end = c->load_tick + c->count;
	/*
	 * The period that was running when the count was written starts at load_tick: see
	 * set_count().
	 */
	if (now >= end)
		load(c, end);
}

static bool output(const struct channel *c, uint64_t now)
{
	uint64_t t = elapsed(c, now);

	if (!c->loaded)
		return c->mode != 0;
	switch (c->mode) {
	case 0:
	case 1:
		/* In mode 1 the output falls with the load, one clock after the trigger. */
		return t >= c->count || (c->mode == 1 && now < c->load_tick);
	case 2: return c->stopped || t % c->count != c->count - 1;
	case 3: return c->stopped || t % c->count < (c->count + 1) / 2;
	default: return t != c->count;
	}
}

/* Rising edges of the output from the load until @now. */
static uint64_t rising_edges(const struct channel *c, uint64_t now)
{
	uint64_t t = elapsed(c, now);

	if (!c->loaded || (c->stopped && periodic(c)))
		return 0;
	if (periodic(c))
		return t / c->count;
	if (c->mode >= 4)
		return t > c->count;
	return t >= c->count;
}

/* The tick of the next edge of the output; false when there is none to come. */
static bool next_edge(const struct channel *c, uint64_t now, uint64_t *tick)
{
	uint64_t t = elapsed(c, now), start;

	if (!c->loaded || c->stopped)
		return false;
	if (periodic(c)) {
		start = t - t % c->count;
		if (c->mode == 3 && t - start < (c->count + 1) / 2 && c->count > 1)
			*tick = c->load_tick + start + (c->count + 1) / 2;
		else
			*tick = c->load_tick + start + c->count;
		return true;
	}
	*tick = c->load_tick + c->count + (c->mode >= 4);
	return *tick > now;
}

static uint16_t present_count(const struct channel *c, uint64_t now)
{
	uint64_t t = elapsed(c, now), half;
	uint32_t wrap = c->bcd ? 10000 : 65536, value = 0, phase;

	if (c->loaded) {
		switch (c->mode) {
		case 2: value = c->count - (uint32_t)(t % c->count); break;
		case 3:
			/* Counts by two, twice a period; an odd count is loaded less one. */
			phase = (uint32_t)(t % c->count);
			half = (c->count + 1) / 2;
			if (phase >= half)
				phase -= (uint32_t)half;
			value = (c->count & ~1u) - 2 * phase;
			break;
		default: value = (c->count + wrap - (uint32_t)(t % wrap)) % wrap; break;
		}
	}
	value %= wrap;
	if (c->bcd)
		value = value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 |
			value % 10;
	return (uint16_t)value;
}

static bool waits(const struct i8254 *pit)
{
	return pit->waits && pit->waits(pit->irq.opaque, pit->irq.pin);
}

/* Sends the next of the edges up to @rises, if the wire is free. */
static void deliver_edge(struct i8254 *pit, uint64_t rises)
{
	uint64_t most = MAX(I8254_HZ / pit->ch[0].count, 1);

	if (!waits(pit)) {
		irq_set(&pit->irq, false);
		irq_set(&pit->irq, true);
		pit->irq_level = true;
		pit->rises++;
		/* Nobody has got it: the others would have been lost just so. */
		if (!waits(pit))
			pit->rises = rises;
	}
	pit->rises = MAX(pit->rises, rises - MIN(rises, most));
	pit->owed = pit->rises < rises;
}

/* Brings the wire up to date with channel 0 and arms the timer for what comes next. */
static void update_irq(struct i8254 *pit)
{
	struct channel *c = &pit->ch[0];
	uint64_t now = tick_now(pit), now_ns = clock_now_ns(pit->clock), rises, tick;
	bool level;

	settle(c, now);
	rises = rising_edges(c, now);
	level = output(c, now);
	if (rises > pit->rises) {
		deliver_edge(pit, rises);
	} else {
		pit->rises = rises;
		pit->owed = false;
	}
	if (level != pit->irq_level) {
		pit->irq_level = level;
		irq_set(&pit->irq, level);
	}
	if (next_edge(c, now, &tick))
		clock_arm(pit->clock, &pit->timer, MAX(tick_to_ns(tick), now_ns + MIN_EDGE_NS));
	else
		clock_cancel(pit->clock, &pit->timer);
}

void i8254_tick_taken(struct i8254 *pit)
{
	if (pit->owed)
		update_irq(pit);
}

static void fire(void *opaque)
{
	update_irq(opaque);
}

/*
 * A channel's load has changed: its edges are counted anew. Call with the output delivered until
 * now.
 */
static void restart_edges(struct i8254 *pit, const struct channel *c)
{
	if (c == &pit->ch[0])
		pit->rises = 0;
}

static void set_count(struct i8254 *pit, struct channel *c, uint32_t value)
{
	uint64_t now = tick_now(pit);

	if (c->bcd)
		value = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 +
			(value & 15);
	if (value == 0)
		value = c->bcd ? 10000 : 65536;
	c->next = value;
	c->count_written = true;
	c->pending = true;
	if (c->mode == 1 || c->mode == 5)
		return;
	if (periodic(c) && c->loaded) {
		/*
		 * The load moves to the start of the running period, so that settle() knows its
		 * end.
		 */
		if (!c->stopped) {
			uint64_t t = elapsed(c, now);

			c->load_tick += t - t % c->count;
			restart_edges(pit, c);
		}
		return;
	}
	load(c, now + 1);
	restart_edges(pit, c);
	if (!c->gate) {
		c->stopped = true;
		c->held = 0;
	}
}

static void write_count(struct i8254 *pit, struct channel *c, uint8_t value)
{
	switch (c->access) {
	case ACCESS_LSB: set_count(pit, c, value); break;
	case ACCESS_MSB: set_count(pit, c, (uint32_t)value << 8); break;
	case ACCESS_BOTH:
		c->write_high = !c->write_high;
		if (c->write_high) {
			c->lsb = value;
			/* Half a count stops mode 0 and pulls its output low at once. */
			if (c->mode == 0)
				c->loaded = false;
		} else {
			set_count(pit, c, (uint32_t)value << 8 | c->lsb);
		}
		break;
	case ACCESS_LATCH: /* not programmed yet */ break;
	}
}

static void latch_count(struct i8254 *pit, struct channel *c)
{
	if (c->count_latched)
		return;
	c->latch = present_count(c, tick_now(pit));
	c->count_latched = true;
	c->latched_high = false;
}

static void latch_status(struct i8254 *pit, struct channel *c)
{
	uint64_t now = tick_now(pit);

	if (c->status_latched)
		return;
	c->status = c->control;
	if (output(c, now))
		c->status |= STATUS_OUT;
	if (!c->loaded || c->pending || now < c->load_tick)
		c->status |= STATUS_NULL;
	c->status_latched = true;
}

static void write_control(struct i8254 *pit, uint8_t value)
{
	unsigned select = value >> 6;
	struct channel *c;

	if (select == CW_READ_BACK) {
		for (unsigned i = 0; i < CHANNELS; i++) {
			if (!(value & 2u << i))
				continue;
			if (!(value & RB_NO_COUNT))
				latch_count(pit, &pit->ch[i]);
			if (!(value & RB_NO_STATUS))
				latch_status(pit, &pit->ch[i]);
		}
		return;
	}
	c = &pit->ch[select];
	if (CW_RW(value) == ACCESS_LATCH) {
		latch_count(pit, c);
		return;
	}
	*c = (struct channel){
		/* Bit 2 of the mode is ignored in modes 2 and 3. */
		.mode = CW_MODE(value) > 5 ? CW_MODE(value) & 3 : CW_MODE(value),
		.control = value & 0x3f,
		.access = (enum access)CW_RW(value),
		.bcd = value & 1,
		.gate = c->gate,
	};
	restart_edges(pit, c);
}

static uint8_t read_count(struct i8254 *pit, struct channel *c)
{
	uint16_t value;
	bool high;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	value = c->count_latched ? c->latch : present_count(c, tick_now(pit));
	high = c->access == ACCESS_MSB;
	if (c->access == ACCESS_BOTH) {
		high = c->read_high;
		c->read_high = !high;
	}
	if (c->access != ACCESS_BOTH || high)
		c->count_latched = false;
	return (uint8_t)(high ? value >> 8 : value);
}

static void set_gate(struct i8254 *pit, struct channel *c, bool gate)
{
	uint64_t now = tick_now(pit);
	bool rising = gate && !c->gate;

	settle(c, now);
	if (gate == c->gate)
		return;
	c->gate = gate;
	switch (c->mode) {
	case 0:
	case 4:
		if (!c->loaded)
			break;
		if (rising) {
			c->stopped = false;
			c->load_tick = now - c->held;
		} else {
			c->held = elapsed(c, now);
			c->stopped = true;
		}
		break;
	case 1:
	case 5:
		if (rising && c->count_written)
			load(c, now + 1);
		break;
	default:
		if (!c->loaded)
			break;
		if (rising) {
			load(c, now + 1);
		} else {
			c->held = elapsed(c, now);
			c->stopped = true;
		}
		break;
	}
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8254 *pit = opaque;

	update_irq(pit);
	for (unsigned i = 1; i < CHANNELS; i++)
		settle(&pit->ch[i], tick_now(pit));
	if (offset == CONTROL)
		write_control(pit, (uint8_t)value);
	else
		write_count(pit, &pit->ch[offset], (uint8_t)value);
	update_irq(pit);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8254 *pit = opaque;

	if (offset == CONTROL)
		return 0xff; /* write-only */
	if (offset == 0)
		update_irq(pit);
	else
		settle(&pit->ch[offset], tick_now(pit));
	return read_count(pit, &pit->ch[offset]);
}

static void nmi_sc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8254 *pit = opaque;

	pit->nmi_sc = (uint8_t)value & 0x0f;
	set_gate(pit, &pit->ch[2], value & NMI_SC_TIM_CNT2_EN);
}

static uint64_t nmi_sc_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8254 *pit = opaque;
	uint64_t now = tick_now(pit);
	uint8_t value = pit->nmi_sc;

	settle(&pit->ch[2], now);
	if (output(&pit->ch[2], now))
		value |= NMI_SC_TMR2_OUT_STS;
	if (clock_now_ns(pit->clock) / REFRESH_NS & 1)
		value |= NMI_SC_REF_TOGGLE;
	return value;
}

static void reset(struct device *dev)
{
	struct i8254 *pit = container_of(dev, struct i8254, dev);

	for (unsigned i = 0; i < CHANNELS; i++) {
		/* Undefined on the real chip: all in mode 3, waiting for a count. */
		pit->ch[i] = (struct channel){
			.mode = 3,
			.control = 0x36,
			.access = ACCESS_BOTH,
			.gate = i != 2,
		};
	}
	pit->nmi_sc = 0;
	pit->rises = 0;
	update_irq(pit);
}

static void destroy(struct device *dev)
{
	struct i8254 *pit = container_of(dev, struct i8254, dev);

	clock_cancel(pit->clock, &pit->timer);
	bus_remove(pit->ports, &pit->region);
	bus_remove(pit->ports, &pit->nmi_sc_region);
	free(pit);
}

struct i8254 *i8254_create(struct bus *ports, struct clock *clock, struct irq_line irq,
			   irq_waits_fn *waits)
{
	static const struct device_ops ops = { "i8254", reset, destroy };
	static const struct io_ops port_ops = { port_read, port_write, 1, 1 };
	static const struct io_ops nmi_sc_ops = { nmi_sc_read, nmi_sc_write, 1, 1 };
	struct i8254 *pit = calloc(1, sizeof(*pit));

	assert(pit);
	pit->dev.ops = &ops;
	pit->ports = ports;
	pit->clock = clock;
	pit->irq = irq;
	pit->waits = waits;
	pit->timer.fire = fire;
	pit->timer.opaque = pit;
	pit->region = (struct io_region){
		.name = "i8254",
		.base = I8254_PORT,
		.length = 4,
		.ops = &port_ops,
		.opaque = pit,
	};
	pit->nmi_sc_region = (struct io_region){
		.name = "NMI_SC",
		.base = NMI_SC_PORT,
		.length = 1,
		.ops = &nmi_sc_ops,
		.opaque = pit,
	};
	bus_add(ports, &pit->region);
	bus_add(ports, &pit->nmi_sc_region);
	reset(&pit->dev);
	return pit;
}

struct device *i8254_device(struct i8254 *pit)
{
	return &pit->dev;
}
