/* SPDX-License-Identifier: Apache-2.0 */
/* The RTC: formats, UIP, setting the time, alarms, the three interrupts, pauses, CMOS RAM. */
#include <time.h>

#include "dev/mc146818.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

#define START 1700000000 /* Tuesday 2023-11-14 22:13:20 UTC */

static struct bus *ports;
static struct mc146818 *rtc;
static struct fake_clock fc;
static struct fake_line irq;

static uint8_t rd(uint8_t i)
{
	bus_write(ports, 0x70, i, 1);
	return (uint8_t)bus_read(ports, 0x71, 1);
}

static void wr(uint8_t i, uint8_t v)
{
	bus_write(ports, 0x70, i, 1);
	bus_write(ports, 0x71, v, 1);
}

/* As 0xCCYYMMDDhhmmss in BCD. */
static uint64_t stamp(void)
{
	static const uint8_t order[] = { RTC_CENTURY, RTC_YEAR,	   RTC_MONTH,  RTC_DAY_OF_MONTH,
					 RTC_HOURS,   RTC_MINUTES, RTC_SECONDS };
	uint64_t v = 0;

	for (unsigned i = 0; i < sizeof(order); i++)
		v = v << 8 | rd(order[i]);
	return v;
}

static void set(uint64_t bcd)
{
	static const uint8_t order[] = { RTC_SECONDS, RTC_MINUTES, RTC_HOURS,  RTC_DAY_OF_MONTH,
					 RTC_MONTH,   RTC_YEAR,	   RTC_CENTURY };

	for (unsigned i = 0; i < sizeof(order); i++)
		wr(order[i], (uint8_t)(bcd >> 8 * i));
}

static void seconds(uint64_t n)
{
	fake_clock_advance(&fc, n * NS_PER_SEC);
}

static void test_reading(void)
{
	is_u64(stamp(), 0x20231114221320, "BCD, 24 hours");
	is_u64(rd(RTC_DAY_OF_WEEK), 3, "Tuesday");
	is_u64(rd(RTC_REG_A), 0x26, "register A");
	is_u64(rd(RTC_REG_D), 0x80, "battery good");
	fake_clock_advance(&fc, NS_PER_SEC - 245000);
	ok(!(rd(RTC_REG_A) & 0x80), "no update yet");
	is_u64(stamp(), 0x20231114221320, "nor a new second");
	fake_clock_advance(&fc, 2000);
	ok(rd(RTC_REG_A) & 0x80, "UIP 244 us before the update");
	fake_clock_advance(&fc, 243000);
	ok(!(rd(RTC_REG_A) & 0x80), "then not");
	is_u64(stamp(), 0x20231114221321, "and the new second");
	wr(RTC_REG_B, 0x06);
	is_u64(rd(RTC_SECONDS), 21, "binary");
	is_u64(rd(RTC_CENTURY), 20, "century too");
	wr(RTC_REG_B, 0x00);
	is_u64(rd(RTC_HOURS), 0x90, "12 hours, pm");
	wr(RTC_REG_B, 0x02);
	ok(!fc.armed, "no timer for a clock that only runs");
}

static void test_calendar(void)
{
	bool good = true;

	/* Every 5 days and some seconds from 1970 to 2110 against the C library. */
	for (int64_t t = 0; t < 140ll * 365 * 86400; t += 5 * 86400 + 7919) {
		struct tm tm;
		time_t tt = t;
		uint64_t want;

		fc.wall_base_s = t - (int64_t)(fc.now_ns / NS_PER_SEC);
		gmtime_r(&tt, &tm);
		want = (uint64_t)tm.tm_year + 1900;
		want = want * 100 + (uint64_t)tm.tm_mon + 1;
		want = want * 100 + (uint64_t)tm.tm_mday;
		want = want * 100 + (uint64_t)tm.tm_hour;
		want = want * 100 + (uint64_t)tm.tm_min;
		want = want * 100 + (uint64_t)tm.tm_sec;
		for (uint64_t v = stamp(), i = 0; i < 14; i++, v >>= 4, want /= 10)
			good = good && (v & 15) == want % 10;
		good = good && rd(RTC_DAY_OF_WEEK) == tm.tm_wday + 1;
		/* The guest sets what it reads: the distance from the wall clock stays zero. */
		wr(RTC_MINUTES, rd(RTC_MINUTES));
	}
	ok(good, "calendar agrees with gmtime, back and forth");
	fc.wall_base_s = START - (int64_t)(fc.now_ns / NS_PER_SEC);
	is_u64(stamp(), 0x20231114221320, "follows the wall clock when that is set");
}

static void test_setting(void)
{
	wr(RTC_REG_B, 0x82);
	set(0x20991231235959);
	wr(RTC_DAY_OF_WEEK, 5);
	seconds(10);
	is_u64(stamp(), 0x20991231235959, "SET holds the registers");
	ok(!(rd(RTC_REG_A) & 0x80), "no UIP");
	wr(RTC_REG_B, 0x02);
	is_u64(rd(RTC_DAY_OF_WEEK), 5, "day of week as set");
	seconds(1);
	is_u64(stamp(), 0x21000101000000, "across the century");
	is_u64(rd(RTC_DAY_OF_WEEK), 6, "day of week counts on");
	fc.wall_base_s += 3600;
	is_u64(stamp(), 0x21000101010000,
	       "a pause of an hour: the guest's time follows, at its distance");
	set(0x20240228120000);
	is_u64(stamp(), 0x20240228120000, "set while running");
	wr(RTC_REG_A, 0x76);
	wr(RTC_SECONDS, 0x30);
	seconds(3);
	is_u64(rd(RTC_SECONDS), 0x30, "divider in reset");
	wr(RTC_REG_A, 0x26);
	fake_clock_advance(&fc, NS_PER_SEC / 2 - 1000);
	is_u64(rd(RTC_SECONDS), 0x30, "half a second to the first update");
	fake_clock_advance(&fc, 1000);
	is_u64(rd(RTC_SECONDS), 0x31, "then it comes");
	wr(RTC_REG_B, 0x86);
	for (uint8_t i = 0; i < 10; i++)
		wr(i, 0xff);
	wr(RTC_CENTURY, 0xff);
	wr(RTC_REG_B, 0x02);
	stamp();
	ok(true, "a nonsense date is survived");
	set(0x20231114221320);
}

static void test_interrupts(void)
{
	unsigned rises;

	rd(RTC_REG_C);
	seconds(1);
	wr(RTC_SECONDS_ALARM, 0);
	is_u64(rd(RTC_REG_C) & 0xd0, REG_C_UF | REG_C_PF, "flags without interrupts");
	is_u64(rd(RTC_REG_C), 0, "cleared by reading");

	wr(RTC_REG_B, 0x12);
	seconds(1);
	ok(irq.level, "update-ended interrupt");
	ok(!fc.armed, "no timer while it is pending");
	is_u64(rd(RTC_REG_C) & 0x90, REG_C_IRQF | REG_C_UF, "its flags");
	ok(!irq.level, "released");
	rises = irq.rises;
	for (unsigned i = 0; i < 5; i++) {
		seconds(1);
		rd(RTC_REG_C);
	}
	is_u64(irq.rises - rises, 5, "every second");

	wr(RTC_REG_B, 0x42); /* 1024 Hz */
	rd(RTC_REG_C);
	rises = irq.rises;
	for (unsigned i = 0; i < 4000; i++) {
		fake_clock_advance(&fc, 250000);
		if (irq.level)
			rd(RTC_REG_C);
	}
	ok(irq.rises - rises >= 1023 && irq.rises - rises <= 1025, "periodic: 1024 in a second");
	wr(RTC_REG_A, 0x2f);
	rd(RTC_REG_C);
	fake_clock_advance(&fc, NS_PER_SEC / 2);
	ok(irq.level, "2 Hz");

	wr(RTC_REG_B, 0x02);
	set(0x20240101115900);
	wr(RTC_SECONDS_ALARM, 0x10);
	wr(RTC_MINUTES_ALARM, 0x00);
	wr(RTC_HOURS_ALARM, 0x12);
	rd(RTC_REG_C);
	wr(RTC_REG_B, 0x22);
	seconds(69);
	ok(!irq.level, "before the alarm");
	seconds(1);
	ok(irq.level, "alarm");
	is_u64(stamp(), 0x20240101120010, "at its time");
	ok(rd(RTC_REG_C) & REG_C_AF, "its flag");
	wr(RTC_MINUTES_ALARM, 0xff);
	wr(RTC_HOURS_ALARM, 0xc0);
	seconds(60);
	ok(irq.level, "every minute, with don't-care hours and minutes");
	rd(RTC_REG_C);
	wr(RTC_SECONDS_ALARM, 0x61);
	ok(!fc.armed, "an alarm that cannot match arms nothing");
	mc146818_device(rtc)->ops->reset(mc146818_device(rtc));
	is_u64(rd(RTC_REG_B), 0x02, "reset turns interrupts off and keeps the format");
	is_u64(stamp(), 0x20240101120110, "and the time");
}

static void test_cmos(void)
{
	mc146818_set_cmos(rtc, 0x34, 0xab);
	is_u64(rd(0x34), 0xab, "a cell of the machine's");
	is_u64(rd(0xb4), 0xab, "with the NMI mask bit");
	wr(0x40, 0x55);
	is_u64(rd(0x40), 0x55, "RAM");
	bus_write(ports, 0x72, 0x40, 1);
	bus_write(ports, 0x73, 0x66, 1);
	is_u64(rd(0x40), 0x55, "the upper bank is another");
	mc146818_set_cmos(rtc, 0xc1, 0x77);
	bus_write(ports, 0x72, 0xc0, 1);
	is_u64(bus_read(ports, 0x73, 1), 0x66, "its index has seven bits");
	bus_write(ports, 0x72, 0x41, 1);
	is_u64(bus_read(ports, 0x73, 1), 0x77, "set by the machine");
	is_u64(bus_read(ports, 0x70, 1), 0xff, "the index is write-only");
	wr(RTC_REG_D, 0);
	is_u64(rd(RTC_REG_D), 0x80, "register D is read-only");
}

int main(void)
{
	fake_clock_init(&fc);
	fc.wall_base_s = START;
	ports = bus_create("ports");
	rtc = mc146818_create(ports, &fc.clock, fake_line(&irq));
	test_reading();
	test_calendar();
	test_setting();
	test_interrupts();
	test_cmos();
	mc146818_device(rtc)->ops->destroy(mc146818_device(rtc));
	bus_destroy(ports);
	return done_testing();
}
