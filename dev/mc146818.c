/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Motorola MC146818 real-time clock with CMOS RAM, as in the PC.
 *
 * Theory of operation. While it runs, the clock is a number: seconds @base_s at the moment
 * @phase_ns of the VM's clock, so every second begins at a whole number of seconds after that
 * moment, and the time registers are computed when they are read. While the guest sets it (SET, or
 * the divider held in reset) the registers are plain bytes in @cmos, from which the number is made
 * again at the end; its distance from the wall clock is kept, so that the time is right again after
 * the VM was paused.
 *
 * The flags of register C are brought up to date by sync() from what happened since the last look:
 * a period, a second, an alarm. A timer is armed only for an event whose interrupt is enabled and
 * not already pending. The update itself takes no time; UIP announces it for the documented 244 µs
 * before.
 *
 * Manual: Motorola MC146818A data sheet; upper bank: Intel ICH9 data sheet, section 13.6.
 * Threading: machine lock.
 */
#include "dev/mc146818.h"

#include <assert.h>
#include <stdlib.h>

#define BANK 128
#define REG_A_DV_RESET 0x60 /* both set: the divider is held in reset */
#define REG_A_RESET 0x26    /* 32.768 kHz, 1024 Hz */
#define XTAL_HZ 32768u
#define UIP_NS (244 * NS_PER_US)
#define DAY_S 86400
#define ALARM_DONT_CARE 0xc0
#define HOUR_PM 0x80
#define MAX_DRIFT_S 1
#define FLAGS (REG_C_PF | REG_C_AF | REG_C_UF)

struct mc146818 {
	struct device dev;
	struct bus *ports;
	struct clock *clock;
	struct irq_line irq;
	struct clock_timer timer;
	uint8_t index[2]; /* of the two banks */
	uint8_t cmos[2 * BANK];
	int64_t base_s, phase_ns;  /* the time was base_s (seconds since 1970) at phase_ns */
	int64_t offset_s;	   /* of the guest's time from the wall clock */
	int64_t day_of_week_shift; /* 0..6: how far the guest's day of week is from the true one */
	int64_t synced_ns;	   /* events up to here are in register C */
	struct io_region region;
};

struct date {
	int64_t year;
	int month, day, hour, minute, second, day_of_week; /* month and day from 1, Sunday is 1 */
};

static int64_t days_from_civil(int64_t year, int month, int day)
{
	/* Years begin in March, so that the leap day is the last; 400 years are 146,097 days. */
	int64_t y = year - (month <= 2), era = (y >= 0 ? y : y - 399) / 400, yoe = y - era * 400;
	int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static struct date date_from_seconds(int64_t s)
{
	int64_t days = floor_div(s, DAY_S), rest = s - days * DAY_S, z = days + 719468;
	int64_t era = floor_div(z, 146097), doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
	struct date d = {
		.day = (int)(doy - (153 * mp + 2) / 5 + 1),
		.month = (int)(mp < 10 ? mp + 3 : mp - 9),
		.hour = (int)(rest / 3600),
		.minute = (int)(rest / 60 % 60),
		.second = (int)(rest % 60),
		/* 1970 began on a Thursday. */
		.day_of_week = (int)((days + 4) - floor_div(days + 4, 7) * 7) + 1,
	};

	d.year = yoe + era * 400 + (d.month <= 2);
	return d;
}

static uint8_t encode(const struct mc146818 *rtc, int value)
{
	if (rtc->cmos[RTC_REG_B] & REG_B_DM_BINARY)
		return (uint8_t)value;
	return (uint8_t)(value / 10 << 4 | value % 10);
}

static int decode(const struct mc146818 *rtc, uint8_t value)
{
	if (rtc->cmos[RTC_REG_B] & REG_B_DM_BINARY)
		return value;
	return (value >> 4) * 10 + (value & 15);
}

static uint8_t encode_hour(const struct mc146818 *rtc, int hour)
{
	if (rtc->cmos[RTC_REG_B] & REG_B_24H)
		return encode(rtc, hour);
	return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(const struct mc146818 *rtc, uint8_t value)
{
	if (rtc->cmos[RTC_REG_B] & REG_B_24H)
		return decode(rtc, value);
	return decode(rtc, value & 0x7f) % 12 + (value & HOUR_PM ? 12 : 0);
}

static bool is_time(unsigned index)
{
	return index == RTC_SECONDS || index == RTC_MINUTES || index == RTC_HOURS ||
	       (index >= RTC_DAY_OF_WEEK && index <= RTC_YEAR) || index == RTC_CENTURY;
}

static bool running(const struct mc146818 *rtc)
{
	return !(rtc->cmos[RTC_REG_B] & REG_B_SET) &&
	       (rtc->cmos[RTC_REG_A] & REG_A_DV_RESET) != REG_A_DV_RESET;
}

static int64_t now_ns(const struct mc146818 *rtc)
{
	return (int64_t)clock_now_ns(rtc->clock);
}

/* Whole seconds of the divider from phase_ns to @ns. */
static int64_t seconds_at(const struct mc146818 *rtc, int64_t ns)
{
	return floor_div(ns - rtc->phase_ns, (int64_t)NS_PER_SEC);
}

static int64_t time_at(const struct mc146818 *rtc, int64_t ns)
{
	return rtc->base_s + seconds_at(rtc, ns);
}

/* Fills the time registers with @s. */
static void store_time(struct mc146818 *rtc, int64_t s)
{
	struct date d = date_from_seconds(s);
	int year = (int)(d.year % 10000);

	if (year < 0)
		year = 0;
	rtc->cmos[RTC_SECONDS] = encode(rtc, d.second);
	rtc->cmos[RTC_MINUTES] = encode(rtc, d.minute);
	rtc->cmos[RTC_HOURS] = encode_hour(rtc, d.hour);
	rtc->cmos[RTC_DAY_OF_WEEK] =
		encode(rtc, (int)((d.day_of_week - 1 + rtc->day_of_week_shift) % 7) + 1);
	rtc->cmos[RTC_DAY_OF_MONTH] = encode(rtc, d.day);
	rtc->cmos[RTC_MONTH] = encode(rtc, d.month);
	rtc->cmos[RTC_YEAR] = encode(rtc, year % 100);
	rtc->cmos[RTC_CENTURY] = encode(rtc, year / 100);
}

/* Takes the time from the time registers. Values out of range count on, as in 61 seconds. */
static void load_time(struct mc146818 *rtc)
{
	int64_t year = decode(rtc, rtc->cmos[RTC_CENTURY]) * 100 + decode(rtc, rtc->cmos[RTC_YEAR]);
	int month = decode(rtc, rtc->cmos[RTC_MONTH]) - 1, shift;
	int64_t days, s;

	year += floor_div(month, 12);
	month -= (int)floor_div(month, 12) * 12;
	days = days_from_civil(year, month + 1, 1) + decode(rtc, rtc->cmos[RTC_DAY_OF_MONTH]) - 1;
	s = days * DAY_S + decode_hour(rtc, rtc->cmos[RTC_HOURS]) * 3600 +
	    decode(rtc, rtc->cmos[RTC_MINUTES]) * 60 + decode(rtc, rtc->cmos[RTC_SECONDS]);
	shift = decode(rtc, rtc->cmos[RTC_DAY_OF_WEEK]) - date_from_seconds(s).day_of_week;
	rtc->day_of_week_shift = (shift % 7 + 7) % 7;
	rtc->base_s = s - seconds_at(rtc, now_ns(rtc));
	rtc->offset_s = s - rtc->clock->wall_s(rtc->clock);
}

/* Ticks of the 32.768 kHz crystal between periodic events; 0 for none. */
static uint32_t period_ticks(const struct mc146818 *rtc)
{
	unsigned rate = rtc->cmos[RTC_REG_A] & 15;

	if (rate == 0 || (rtc->cmos[RTC_REG_A] & REG_A_DV_RESET) == REG_A_DV_RESET)
		return 0;
	return 1u << ((rate < 3 ? rate + 7 : rate) - 1);
}

/* How many periodic events there were from phase_ns to @ns. */
static int64_t periods_at(const struct mc146818 *rtc, int64_t ns, uint32_t ticks)
{
	int64_t s = seconds_at(rtc, ns), rest = ns - rtc->phase_ns - s * (int64_t)NS_PER_SEC;

	/* A second holds a whole number of periods. */
	return s * (XTAL_HZ / ticks) + rest * XTAL_HZ / (int64_t)NS_PER_SEC / ticks;
}

static int64_t period_ns(const struct mc146818 *rtc, int64_t n, uint32_t ticks)
{
	int64_t per_second = XTAL_HZ / ticks, s = floor_div(n, per_second);
	int64_t rest = (n - s * per_second) * ticks * (int64_t)NS_PER_SEC;

	return rtc->phase_ns + s * (int64_t)NS_PER_SEC + (rest + XTAL_HZ - 1) / XTAL_HZ;
}

static bool alarm_byte(uint8_t alarm, uint8_t now)
{
	return (alarm & ALARM_DONT_CARE) == ALARM_DONT_CARE || alarm == now;
}

/* The first time after @s that the alarm matches, within a day; INT64_MAX when there is none. */
static int64_t next_alarm(const struct mc146818 *rtc, int64_t s)
{
	int64_t end = s + DAY_S, day;
	int second;

	/* Steps over whole hours and minutes that do not match: at most some 150 steps. */
	for (s++; s <= end;) {
		day = floor_div(s, DAY_S) * DAY_S;
		second = (int)(s - day);
		if (!alarm_byte(rtc->cmos[RTC_HOURS_ALARM], encode_hour(rtc, second / 3600)))
			s = day + (second / 3600 + 1) * 3600;
		else if (!alarm_byte(rtc->cmos[RTC_MINUTES_ALARM], encode(rtc, second / 60 % 60)))
			s = day + (second / 60 + 1) * 60;
		else if (!alarm_byte(rtc->cmos[RTC_SECONDS_ALARM], encode(rtc, second % 60)))
			s++;
		else
			return s;
	}
	return INT64_MAX;
}

static void update_irq(struct mc146818 *rtc)
{
	uint8_t *c = &rtc->cmos[RTC_REG_C];
	bool pending = *c & rtc->cmos[RTC_REG_B] & FLAGS, before = *c & REG_C_IRQF;

	if (pending == before)
		return;
	*c ^= REG_C_IRQF;
	irq_set(&rtc->irq, pending);
}

/* Arms for the first event whose interrupt is enabled, unless one is pending already. */
static void arm(struct mc146818 *rtc)
{
	uint8_t b = rtc->cmos[RTC_REG_B];
	uint32_t ticks = period_ticks(rtc);
	int64_t now = now_ns(rtc), first = INT64_MAX, s;

	if (!(rtc->cmos[RTC_REG_C] & REG_C_IRQF)) {
		if (b & REG_B_PIE && ticks)
			first = period_ns(rtc, periods_at(rtc, now, ticks) + 1, ticks);
		if (running(rtc) && b & (REG_B_UIE | REG_B_AIE)) {
			s = time_at(rtc, now);
			s = b & REG_B_UIE ? s + 1 : next_alarm(rtc, s);
			if (s != INT64_MAX)
				first = MIN(first, rtc->phase_ns +
							   (s - rtc->base_s) * (int64_t)NS_PER_SEC);
		}
	}
	if (first != INT64_MAX)
		clock_arm(rtc->clock, &rtc->timer, (uint64_t)first);
	else
		clock_cancel(rtc->clock, &rtc->timer);
}

static void sync(struct mc146818 *rtc)
{
	uint8_t *c = &rtc->cmos[RTC_REG_C];
	uint32_t ticks = period_ticks(rtc);
	int64_t now = now_ns(rtc), before, after, wanted;

	if (ticks && periods_at(rtc, now, ticks) > periods_at(rtc, rtc->synced_ns, ticks))
		*c |= REG_C_PF;
	if (running(rtc)) {
		before = time_at(rtc, rtc->synced_ns);
		after = time_at(rtc, now);
		if (after > before) {
			*c |= REG_C_UF;
			if (next_alarm(rtc, before) <= after)
				*c |= REG_C_AF;
		}
		/* The VM was paused, or the host's clock was set. */
		wanted = rtc->clock->wall_s(rtc->clock) + rtc->offset_s;
		if (wanted - after > MAX_DRIFT_S || after - wanted > MAX_DRIFT_S)
			rtc->base_s += wanted - after;
	}
	rtc->synced_ns = now;
	update_irq(rtc);
}

static void fire(void *opaque)
{
	sync(opaque);
	arm(opaque);
}

static void write_a(struct mc146818 *rtc, uint8_t value)
{
	uint8_t old = rtc->cmos[RTC_REG_A];
	bool was_running = running(rtc);

	if (was_running)
		store_time(rtc, time_at(rtc, now_ns(rtc)));
	rtc->cmos[RTC_REG_A] = value & (uint8_t)~REG_A_UIP;
	if ((old & REG_A_DV_RESET) == REG_A_DV_RESET &&
	    (value & REG_A_DV_RESET) != REG_A_DV_RESET) {
		/* Out of reset the first update comes half a second later. */
		rtc->phase_ns = now_ns(rtc) - (int64_t)NS_PER_SEC / 2;
		rtc->synced_ns = now_ns(rtc);
	}
	if (running(rtc) && !was_running)
		load_time(rtc);
}

static void write_b(struct mc146818 *rtc, uint8_t value)
{
	bool was_running = running(rtc);

	if (value & REG_B_SET)
		value &= (uint8_t)~REG_B_UIE;
	if (was_running && value & REG_B_SET)
		store_time(rtc, time_at(rtc, now_ns(rtc)));
	rtc->cmos[RTC_REG_B] = value;
	if (running(rtc) && !was_running)
		load_time(rtc);
}

static void write_cell(struct mc146818 *rtc, unsigned index, uint8_t value)
{
	sync(rtc);
	switch (index) {
	case RTC_REG_A: write_a(rtc, value); break;
	case RTC_REG_B: write_b(rtc, value); break;
	case RTC_REG_C:
	case RTC_REG_D: break;
	default:
		if (is_time(index) && running(rtc)) {
			store_time(rtc, time_at(rtc, now_ns(rtc)));
			rtc->cmos[index] = value;
			load_time(rtc);
		} else {
			rtc->cmos[index] = value;
		}
		break;
	}
	update_irq(rtc);
	arm(rtc);
}

static uint8_t read_cell(struct mc146818 *rtc, unsigned index)
{
	int64_t now = now_ns(rtc), next;
	uint8_t value;

	sync(rtc);
	if (is_time(index) && running(rtc))
		store_time(rtc, time_at(rtc, now));
	value = rtc->cmos[index];
	switch (index) {
	case RTC_REG_A:
		next = rtc->phase_ns + (seconds_at(rtc, now) + 1) * (int64_t)NS_PER_SEC;
		if (running(rtc) && next - now <= (int64_t)UIP_NS)
			value |= REG_A_UIP;
		break;
	case RTC_REG_C:
		rtc->cmos[RTC_REG_C] &= (uint8_t)~FLAGS;
		update_irq(rtc);
		arm(rtc);
		break;
	case RTC_REG_D: value = REG_D_VRT; break;
	}
	return value;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct mc146818 *rtc = opaque;
	unsigned bank = offset >> 1 & 1;

	/* Bit 7 of port 0x70 masks NMI; nothing here makes one. */
	if (!(offset & 1))
		rtc->index[bank] = value & (BANK - 1);
	else if (bank == 0)
		write_cell(rtc, rtc->index[0], (uint8_t)value);
	else
		rtc->cmos[BANK + rtc->index[1]] = (uint8_t)value;
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct mc146818 *rtc = opaque;

	switch (offset) {
	case 1: return read_cell(rtc, rtc->index[0]);
	case 2: return rtc->index[1];
	case 3: return rtc->cmos[BANK + rtc->index[1]];
	default: /* the index of the lower bank is write-only */ return 0xff;
	}
}

void mc146818_set_cmos(struct mc146818 *rtc, uint8_t index, uint8_t value)
{
	assert(index > RTC_REG_D && index != RTC_CENTURY);
	rtc->cmos[index] = value;
}

/* RESET leaves the time and the RAM alone. */
static void reset(struct device *dev)
{
	struct mc146818 *rtc = container_of(dev, struct mc146818, dev);

	sync(rtc);
	rtc->cmos[RTC_REG_B] &= (uint8_t) ~(REG_B_PIE | REG_B_AIE | REG_B_UIE | REG_B_SQWE);
	rtc->cmos[RTC_REG_C] &= (uint8_t)~FLAGS;
	rtc->index[0] = rtc->index[1] = 0;
	update_irq(rtc);
	arm(rtc);
}

static void destroy(struct device *dev)
{
	struct mc146818 *rtc = container_of(dev, struct mc146818, dev);

	clock_cancel(rtc->clock, &rtc->timer);
	bus_remove(rtc->ports, &rtc->region);
	free(rtc);
}

struct mc146818 *mc146818_create(struct bus *ports, struct clock *clock, struct irq_line irq)
{
	static const struct device_ops ops = { "mc146818", reset, destroy };
	static const struct io_ops port_ops = { port_read, port_write, 1, 1 };
	struct mc146818 *rtc = calloc(1, sizeof(*rtc));

	assert(rtc);
	rtc->dev.ops = &ops;
	rtc->ports = ports;
	rtc->clock = clock;
	rtc->irq = irq;
	rtc->timer.fire = fire;
	rtc->timer.opaque = rtc;
	rtc->cmos[RTC_REG_A] = REG_A_RESET;
	rtc->cmos[RTC_REG_B] = REG_B_24H;
	rtc->phase_ns = rtc->synced_ns = now_ns(rtc);
	rtc->base_s = clock->wall_s(clock);
	rtc->region = (struct io_region){
		.name = "mc146818",
		.base = RTC_PORT,
		.length = 4,
		.ops = &port_ops,
		.opaque = rtc,
	};
	bus_add(ports, &rtc->region);
	return rtc;
}

struct device *mc146818_device(struct mc146818 *rtc)
{
	return &rtc->dev;
}
