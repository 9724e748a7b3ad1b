/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 8254 programmable interval timer.
 *
 * Theory of operation. Nothing ticks: what a channel's count and output are, i8254_channel.c computes from the tick at which it is
 * asked. Of the three outputs only channel 0's goes to a wire, so one timer is armed for the next edge of that output; port 0x61 has
 * channel 2's gate and output.
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

#include "dev/i8254_channel.h"

#define CHANNELS 3
#define CONTROL 3
#define MIN_EDGE_NS (10 * NS_PER_US)
#define REFRESH_NS 15085u /* the refresh request toggles this often */

#define CW_READ_BACK 3u /* in place of a channel's number */
#define RB_NO_COUNT 0x20
#define RB_NO_STATUS 0x10

struct i8254 {
	struct device dev;
	struct bus *ports;
	struct clock *clock;
	struct irq_line irq;
	irq_waits_fn *waits;
	struct clock_timer timer;
	struct i8254_channel ch[CHANNELS];
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
	struct i8254_channel *c = &pit->ch[0];
	uint64_t now = tick_now(pit), now_ns = clock_now_ns(pit->clock), rises, tick;
	bool level;

	i8254_channel_settle(c, now);
	rises = i8254_channel_rising_edges(c, now);
	level = i8254_channel_output(c, now);
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
	if (i8254_channel_next_edge(c, now, &tick))
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

static void read_back(struct i8254 *pit, uint8_t value)
{
	uint64_t now = tick_now(pit);

	for (unsigned i = 0; i < CHANNELS; i++) {
		if (!(value & 2u << i))
			continue;
		if (!(value & RB_NO_COUNT))
			i8254_channel_latch_count(&pit->ch[i], now);
		if (!(value & RB_NO_STATUS))
			i8254_channel_latch_status(&pit->ch[i], now);
	}
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8254 *pit = opaque;
	unsigned select = (uint8_t)value >> 6;
	bool loaded = false;
	uint64_t now;

	update_irq(pit);
	now = tick_now(pit);
	for (unsigned i = 1; i < CHANNELS; i++)
		i8254_channel_settle(&pit->ch[i], now);
	if (offset != CONTROL) {
		select = (unsigned)offset;
		loaded = i8254_channel_write(&pit->ch[select], (uint8_t)value, now);
	} else if (select != CW_READ_BACK) {
		loaded = i8254_channel_control(&pit->ch[select], (uint8_t)value, now);
	} else {
		read_back(pit, (uint8_t)value);
	}
	if (loaded && select == 0)
		pit->rises = 0; /* are counted anew */
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
		i8254_channel_settle(&pit->ch[offset], tick_now(pit));
	return i8254_channel_read(&pit->ch[offset], tick_now(pit));
}

static void nmi_sc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8254 *pit = opaque;

	pit->nmi_sc = (uint8_t)value & 0x0f;
	i8254_channel_set_gate(&pit->ch[2], value & NMI_SC_TIM_CNT2_EN, tick_now(pit));
}

static uint64_t nmi_sc_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8254 *pit = opaque;
	uint64_t now = tick_now(pit);
	uint8_t value = pit->nmi_sc;

	i8254_channel_settle(&pit->ch[2], now);
	if (i8254_channel_output(&pit->ch[2], now))
		value |= NMI_SC_TMR2_OUT_STS;
	if (clock_now_ns(pit->clock) / REFRESH_NS & 1)
		value |= NMI_SC_REF_TOGGLE;
	return value;
}

static void reset(struct device *dev)
{
	struct i8254 *pit = container_of(dev, struct i8254, dev);

	for (unsigned i = 0; i < CHANNELS; i++)
		i8254_channel_reset(&pit->ch[i], i != 2);
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
