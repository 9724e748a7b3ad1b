/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HPET: counter, one-shot and periodic comparators, widths, levels, routing, legacy
 * replacement.
 */
#include "dev/hpet.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

static struct bus *mmio;
static struct hpet *hpet;
static struct fake_clock fc;
static struct fake_line gsi[32], legacy[2];

static uint64_t rd(uint64_t reg)
{
	return bus_read(mmio, HPET_BASE + reg, 8);
}

static void wr(uint64_t reg, uint64_t value)
{
	bus_write(mmio, HPET_BASE + reg, value, 8);
}

static void ticks(uint64_t n)
{
	fake_clock_advance(&fc, n * HPET_PERIOD_NS);
}

static void test_counter(void)
{
	is_u64(rd(HPET_GCAP_ID), 0x009896808086a201, "10 ns, 64 bits, legacy capable, 3 timers");
	ticks(100);
	is_u64(rd(HPET_MAIN_CNT), 0, "halted");
	wr(HPET_MAIN_CNT, 5);
	wr(HPET_GEN_CONF, 1);
	ticks(100);
	is_u64(rd(HPET_MAIN_CNT), 105, "runs");
	bus_write(mmio, HPET_BASE + HPET_MAIN_CNT + 4, 7, 4);
	is_u64(rd(HPET_MAIN_CNT), 7ull << 32 | 105, "upper half");
	is_u64(bus_read(mmio, HPET_BASE + HPET_MAIN_CNT + 4, 4), 7, "read by halves");
	wr(HPET_GEN_CONF, 0);
	ticks(10);
	is_u64(rd(HPET_MAIN_CNT), 7ull << 32 | 105, "halted again");
	is_u64(rd(HPET_TIM_CONF(0)), 0x00f0000000000030, "routes, periodic and 64-bit capable");
	is_u64(rd(HPET_TIM_COMP(1)), ~0ull, "comparators at the top");
	is_u64(rd(HPET_TIM_CONF(3)), 0, "no fourth timer");
	wr(HPET_GCAP_ID, 0);
	is_u64(rd(HPET_GCAP_ID) >> 32, 0x989680, "read-only");
}

static void test_one_shot(void)
{
	wr(HPET_MAIN_CNT, 0);
	wr(HPET_TIM_CONF(2), HPET_TN_INT_ENB | 21u << 9);
	wr(HPET_TIM_COMP(2), 1000);
	wr(HPET_GEN_CONF, 1);
	ticks(999);
	is_u64(gsi[21].rises, 0, "not yet");
	ticks(1);
	ok(gsi[21].rises == 1 && !gsi[21].level, "a pulse on its input");
	ticks(100000);
	is_u64(gsi[21].rises, 1, "once");
	ok(!fc.armed, "64-bit comparator behind the counter: nothing armed");
	wr(HPET_TIM_CONF(2), HPET_TN_INT_ENB | 5u << 9);
	is_u64(rd(HPET_TIM_CONF(2)) >> 9 & 31, 21, "a route it does not have is refused");

	wr(HPET_TIM_CONF(2), HPET_TN_INT_ENB | HPET_TN_32MODE | 21u << 9);
	wr(HPET_MAIN_CNT, 0xfffffff0);
	wr(HPET_TIM_COMP(2), 0x10);
	ticks(0x20);
	is_u64(gsi[21].rises, 2, "32-bit comparator across the wrap");
	ticks(1ull << 32);
	is_u64(gsi[21].rises, 3, "and again a wrap later");
	wr(HPET_TIM_CONF(2), 21u << 9);
	wr(HPET_TIM_COMP(2), rd(HPET_MAIN_CNT) + 10);
	ticks(20);
	is_u64(gsi[21].rises, 3, "not enabled: no interrupt");
}

static void test_periodic(void)
{
	unsigned base = gsi[20].rises;
	uint64_t now = rd(HPET_MAIN_CNT);

	wr(HPET_TIM_CONF(0), HPET_TN_INT_ENB | HPET_TN_TYPE | HPET_TN_VAL_SET | 20u << 9);
	wr(HPET_TIM_COMP(0), now + 5000);
	wr(HPET_TIM_COMP(0), 2000);
	is_u64(rd(HPET_TIM_COMP(0)), now + 5000, "VAL_SET: the first write sets the comparator");
	ticks(4999);
	is_u64(gsi[20].rises - base, 0, "before the first");
	ticks(1);
	is_u64(gsi[20].rises - base, 1, "the first");
	is_u64(rd(HPET_TIM_COMP(0)), now + 7000, "moves on by the period");
	ticks(2000 * 10);
	is_u64(gsi[20].rises - base, 11, "ten more");
	fc.now_ns += 5000 * HPET_PERIOD_NS;
	fake_clock_advance(&fc, 0);
	is_u64(gsi[20].rises - base, 12, "missed periods are one interrupt");
	is_u64(rd(HPET_TIM_COMP(0)), now + 5000 + 2000 * 13,
	       "and the comparator is ahead of the counter");
	/* As Linux leaves it when it has found a better timer. */
	wr(HPET_TIM_CONF(0), HPET_TN_TYPE | 20u << 9);
	is_u64(fake_clock_advance(&fc, NS_PER_SEC), 0, "without its interrupt it wakes nobody");
	ok(rd(HPET_TIM_COMP(0)) - rd(HPET_MAIN_CNT) <= 2000, "the comparator has moved on all the same");
	is_u64(gsi[20].rises - base, 12, "silently");
	wr(HPET_TIM_CONF(0), HPET_TN_INT_ENB | HPET_TN_TYPE | 20u << 9);
	ticks(2000);
	is_u64(gsi[20].rises - base, 13, "enabled again it interrupts at its next match");
	/* A processor listens, but is slow. */
	gsi[20].listens = true;
	gsi[20].waits = false;
	base = gsi[20].rises;
	ticks(2000 * 10);
	is_u64(gsi[20].rises - base, 1, "the next waits until the last is taken");
	gsi[20].waits = false;
	hpet_tick_taken(hpet);
	is_u64(gsi[20].rises - base, 2, "and follows at once");
	hpet_tick_taken(hpet);
	is_u64(gsi[20].rises - base, 2, "one at a time: that was another interrupt");
	fc.now_ns += 2000 * 10 * HPET_PERIOD_NS;
	fake_clock_advance(&fc, 0);
	for (unsigned i = 0; i < 30; i++) {
		gsi[20].waits = false;
		hpet_tick_taken(hpet);
	}
	is_u64(gsi[20].rises - base, 20, "none is lost, none invented, though the host was late");
	fc.now_ns += 3600 * NS_PER_SEC;
	fake_clock_advance(&fc, 0);
	base = gsi[20].rises;
	for (unsigned i = 0; i < 60000; i++) {
		gsi[20].waits = false;
		hpet_tick_taken(hpet);
	}
	is_u64(gsi[20].rises - base, 49999, "but for no more than a second, the one delivered included");
	ticks(2000 * 3);
	wr(HPET_TIM_COMP(0), rd(HPET_MAIN_CNT) + 100000);
	base = gsi[20].rises;
	gsi[20].waits = false;
	hpet_tick_taken(hpet);
	is_u64(gsi[20].rises - base, 0, "a new comparator owes nothing");
	gsi[20].listens = false;
	wr(HPET_TIM_COMP(0), 1);
	ok(fake_clock_advance(&fc, NS_PER_MS) < 300, "a mad rate is limited");
	wr(HPET_TIM_CONF(0), 0);
}

static void test_level(void)
{
	wr(HPET_TIM_CONF(1), HPET_TN_INT_ENB | HPET_TN_INT_TYPE | 22u << 9);
	wr(HPET_TIM_COMP(1), rd(HPET_MAIN_CNT) + 50);
	ticks(50);
	ok(gsi[22].level, "level held");
	is_u64(rd(HPET_GINTR_STA), 2, "status");
	wr(HPET_TIM_CONF(1), HPET_TN_INT_ENB | HPET_TN_INT_TYPE | 23u << 9);
	ok(!gsi[22].level && gsi[23].level, "moves with the route");
	wr(HPET_GEN_CONF, 3);
	ok(!gsi[23].level && legacy[1].level, "and with legacy replacement");
	wr(HPET_GEN_CONF, 1);
	ok(gsi[23].level && !legacy[1].level, "and back");
	wr(HPET_GEN_CONF, 0);
	ok(!gsi[23].level, "disabled: no interrupts");
	wr(HPET_GEN_CONF, 1);
	wr(HPET_GINTR_STA, 2);
	ok(!gsi[23].level && rd(HPET_GINTR_STA) == 0, "cleared by writing one");
	wr(HPET_TIM_CONF(1), 0);
}

static void test_legacy(void)
{
	hpet_set_legacy(hpet, 0, true);
	ok(legacy[0].level, "the 8254 passes");
	wr(HPET_GEN_CONF, 3);
	ok(!legacy[0].level, "legacy replacement cuts it off");
	hpet_set_legacy(hpet, 1, true);
	ok(!legacy[1].level, "the RTC too");
	wr(HPET_TIM_CONF(0), HPET_TN_INT_ENB);
	wr(HPET_TIM_COMP(0), rd(HPET_MAIN_CNT) + 10);
	ticks(10);
	is_u64(legacy[0].rises, 2, "comparator 0 drives interrupt 0");
	hpet_device(hpet)->ops->reset(hpet_device(hpet));
	ok(legacy[0].level && legacy[1].level, "reset gives the wires back");
	is_u64(rd(HPET_MAIN_CNT), 0, "and clears the counter");
	ok(!fc.armed, "and disarms");
}

int main(void)
{
	struct hpet_config config = {
		.base = HPET_BASE,
		.route_cap = 0x00f00000,
		.ioapic = fake_line(gsi),
		.legacy = { fake_line(&legacy[0]), fake_line(&legacy[1]) },
		.waits = fake_line_waits,
	};

	fake_clock_init(&fc);
	mmio = bus_create("mmio");
	hpet = hpet_create(mmio, &fc.clock, &config);
	test_counter();
	test_one_shot();
	test_periodic();
	test_level();
	test_legacy();
	hpet_device(hpet)->ops->destroy(hpet_device(hpet));
	bus_destroy(mmio);
	return done_testing();
}
