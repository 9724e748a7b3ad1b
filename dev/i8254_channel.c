/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel of the 8254; see i8254_channel.h.
 *
 * Theory of operation. A channel remembers at which tick its counting element was loaded and with what; its count and its output are
 * functions of the ticks that have passed since. A count written while mode 2 or 3 runs waits for the end of the period: settle()
 * catches up with that before every use. The low strobe of modes 2, 4 and 5 lasts one tick and is played together with its rising edge.
 *
 * Manual: Intel 82C54 data sheet (order 231244), "Mode definitions" and "Read operations".
 * Threading: machine lock.
 */
#include "dev/i8254_channel.h"

#define CW_RW(v) (((v) >> 4) & 3)
#define CW_MODE(v) (((v) >> 1) & 7)
#define STATUS_OUT 0x80
#define STATUS_NULL 0x40

static bool periodic(const struct i8254_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

static void load(struct i8254_channel *c, uint64_t tick)
{
	c->count = c->next;
	c->load_tick = tick;
	c->loaded = true;
	c->pending = false;
	c->stopped = false;
}

/* Ticks since the load; 0 too during the one clock that loading takes. */
static uint64_t elapsed(const struct i8254_channel *c, uint64_t now)
{
	if (c->stopped)
		return c->held;
	return now > c->load_tick ? now - c->load_tick : 0;
}

void i8254_channel_settle(struct i8254_channel *c, uint64_t now)
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

bool i8254_channel_output(const struct i8254_channel *c, uint64_t now)
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

uint64_t i8254_channel_rising_edges(const struct i8254_channel *c, uint64_t now)
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

bool i8254_channel_next_edge(const struct i8254_channel *c, uint64_t now, uint64_t *tick)
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

static uint16_t present_count(const struct i8254_channel *c, uint64_t now)
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

/* True: the load has changed. */
static bool set_count(struct i8254_channel *c, uint32_t value, uint64_t now)
{
	if (c->bcd)
		value = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 +
			(value & 15);
	if (value == 0)
		value = c->bcd ? 10000 : 65536;
	c->next = value;
	c->count_written = true;
	c->pending = true;
	if (c->mode == 1 || c->mode == 5)
		return false;
	if (periodic(c) && c->loaded) {
		uint64_t t = elapsed(c, now);

		if (c->stopped)
			return false;
		/* The load moves to the start of the running period, so that settle() knows its end. */
		c->load_tick += t - t % c->count;
		return true;
	}
	load(c, now + 1);
	if (!c->gate) {
		c->stopped = true;
		c->held = 0;
	}
	return true;
}

bool i8254_channel_write(struct i8254_channel *c, uint8_t value, uint64_t now)
{
	switch (c->access) {
	case I8254_LSB: return set_count(c, value, now);
	case I8254_MSB: return set_count(c, (uint32_t)value << 8, now);
	case I8254_BOTH:
		c->write_high = !c->write_high;
		if (!c->write_high)
			return set_count(c, (uint32_t)value << 8 | c->lsb, now);
		c->lsb = value;
		/* Half a count stops mode 0 and pulls its output low at once. */
		if (c->mode == 0)
			c->loaded = false;
		return false;
	case I8254_LATCH: /* not programmed yet */ break;
	}
	return false;
}

void i8254_channel_latch_count(struct i8254_channel *c, uint64_t now)
{
	if (c->count_latched)
		return;
	c->latch = present_count(c, now);
	c->count_latched = true;
}

void i8254_channel_latch_status(struct i8254_channel *c, uint64_t now)
{
	if (c->status_latched)
		return;
	c->status = c->control;
	if (i8254_channel_output(c, now))
		c->status |= STATUS_OUT;
	if (!c->loaded || c->pending || now < c->load_tick)
		c->status |= STATUS_NULL;
	c->status_latched = true;
}

bool i8254_channel_control(struct i8254_channel *c, uint8_t value, uint64_t now)
{
	if (CW_RW(value) == I8254_LATCH) {
		i8254_channel_latch_count(c, now);
		return false;
	}
	*c = (struct i8254_channel){
		/* Bit 2 of the mode is ignored in modes 2 and 3. */
		.mode = CW_MODE(value) > 5 ? CW_MODE(value) & 3 : CW_MODE(value),
		.control = value & 0x3f,
		.access = (enum i8254_access)CW_RW(value),
		.bcd = value & 1,
		.gate = c->gate,
	};
	return true;
}

uint8_t i8254_channel_read(struct i8254_channel *c, uint64_t now)
{
	uint16_t value;
	bool high;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	value = c->count_latched ? c->latch : present_count(c, now);
	high = c->access == I8254_MSB;
	if (c->access == I8254_BOTH) {
		high = c->read_high;
		c->read_high = !high;
	}
	if (c->access != I8254_BOTH || high)
		c->count_latched = false;
	return (uint8_t)(high ? value >> 8 : value);
}

void i8254_channel_set_gate(struct i8254_channel *c, bool gate, uint64_t now)
{
	bool rising = gate && !c->gate;

	i8254_channel_settle(c, now);
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

void i8254_channel_reset(struct i8254_channel *c, bool gate)
{
	*c = (struct i8254_channel){ .mode = 3, .control = 0x36, .access = I8254_BOTH, .gate = gate };
}
