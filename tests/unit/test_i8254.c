/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 8254: the six modes by count and output, gate, latches, read-back, BCD, the interrupt's
 * edges.
 */
#include "dev/i8254.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

static struct bus *ports;
static struct i8254 *pit;
static struct fake_clock fc;
static struct fake_line irq;
static uint64_t base_tick;

static void out(unsigned port, uint8_t v)
{
	bus_write(ports, port, v, 1);
}

static uint8_t in(unsigned port)
{
	return (uint8_t)bus_read(ports, port, 1);
}

/* Time in ticks since begin(). */
static void at(uint64_t tick)
{
	fake_clock_advance_to(&fc, mul_div(base_tick + tick, NS_PER_SEC, I8254_HZ) + 1);
}

static void begin(void)
{
	base_tick = mul_div(fc.now_ns, I8254_HZ, NS_PER_SEC) + 10;
	at(0);
}

static void program(unsigned ch, unsigned mode, unsigned count)
{
	out(0x43, (uint8_t)(ch << 6 | 0x30 | mode << 1));
	out(0x40 + ch, (uint8_t)count);
	out(0x40 + ch, (uint8_t)(count >> 8));
}

static unsigned count(unsigned ch)
{
	unsigned lo;

	out(0x43, (uint8_t)(ch << 6));
	lo = in(0x40 + ch);
	return lo | (unsigned)in(0x40 + ch) << 8;
}

static bool out2(void)
{
	return in(0x61) & NMI_SC_TMR2_OUT_STS;
}

static uint8_t status(unsigned ch)
{
	out(0x43, (uint8_t)(0xe0 | 2u << ch));
	return in(0x40 + ch);
}

static void test_mode0(void)
{
	out(0x61, 1);
	begin();
	program(2, 0, 10);
	ok(!out2(), "mode 0: low after the control word");
	is_u64(status(2), 0x70, "null count until the next clock");
	at(1);
	is_u64(status(2), 0x30, "loaded");
	is_u64(count(2), 10, "count N one clock after the write");
	at(4);
	is_u64(count(2), 7, "counting down");
	out(0x61, 0);
	at(9);
	is_u64(count(2), 7, "the gate holds it");
	out(0x61, 1);
	at(15);
	ok(!out2(), "not yet");
	is_u64(count(2), 1, "count 1");
	at(16);
	ok(out2(), "high N + 1 clocks after the write, gate time apart");
	at(17);
	is_u64(count(2), 0xffff, "wraps");
	out(0x42, 5);
	ok(!out2(), "half a new count pulls it low");
	out(0x42, 0);
	at(18);
	is_u64(count(2), 5, "new count");
}

static void test_mode1(void)
{
	out(0x61, 0);
	begin();
	program(2, 1, 6);
	ok(out2(), "mode 1: high");
	at(10);
	ok(out2(), "waits for its trigger");
	out(0x61, 1);
	at(11);
	ok(!out2(), "low the clock after it");
	at(14);
	out(0x61, 0);
	out(0x61, 1);
	at(20);
	ok(!out2(), "retriggered");
	at(21);
	ok(out2(), "over after N clocks");
}

static void test_mode2(void)
{
	out(0x61, 1);
	begin();
	program(2, 2, 5);
	at(1);
	is_u64(count(2), 5, "mode 2: loaded");
	ok(out2(), "high");
	at(5);
	ok(!out2(), "low for one clock at count 1");
	is_u64(count(2), 1, "count 1");
	at(6);
	ok(out2(), "high again");
	is_u64(count(2), 5, "reloaded");
	at(7);
	out(0x42, 8);
	out(0x42, 0);
	is_u64(count(2), 4, "a new count waits for the period's end");
	at(11);
	is_u64(count(2), 8, "then it is taken");
	at(18);
	ok(!out2(), "new period");
	out(0x61, 0);
	ok(out2(), "gate low: output high at once");
	at(30);
	out(0x61, 1);
	at(31);
	is_u64(count(2), 8, "gate high: reload");
	at(38);
	ok(!out2(), "a full period after it");
}

static void test_mode3(void)
{
	out(0x61, 1);
	begin();
	program(2, 3, 7);
	at(1);
	is_u64(count(2), 6, "mode 3 odd: loaded less one");
	for (unsigned i = 0; i < 14; i++) {
		at(1 + i);
		ok(out2() == (i % 7 < 4), "odd square wave, clock %u", i);
	}
	begin();
	program(2, 7, 4);
	at(1);
	is_u64(status(2), 0xbe, "status keeps the mode as written");
	is_u64(count(2), 4, "even");
	at(2);
	is_u64(count(2), 2, "by twos");
	at(3);
	is_u64(count(2), 4, "second half");
	ok(!out2(), "low half");
}

static void test_mode45(void)
{
	out(0x61, 1);
	begin();
	program(2, 4, 3);
	at(3);
	ok(out2(), "mode 4: high");
	at(4);
	ok(!out2(), "strobe");
	at(5);
	ok(out2(), "one clock long");
	out(0x61, 0);
	begin();
	program(2, 5, 3);
	at(9);
	ok(out2(), "mode 5 waits for the trigger");
	out(0x61, 1);
	at(13);
	ok(!out2(), "strobe N + 1 after the trigger");
	at(14);
	ok(out2(), "one clock long");
}

static void test_access(void)
{
	out(0x61, 1);
	begin();
	out(0x43, 0x90 | 4); /* LSB only, mode 2 */
	out(0x42, 200);
	at(11);
	is_u64(in(0x42), 190, "LSB only");
	is_u64(in(0x42), 190, "each read");
	begin();
	out(0x43, 0xa0 | 4); /* MSB only */
	out(0x42, 0x12);
	at(1);
	is_u64(in(0x42), 0x12, "MSB only");
	begin();
	program(2, 2, 0x1234);
	at(1);
	out(0x43, 0x80);
	at(100);
	out(0x43, 0x80);
	is_u64(in(0x42), 0x34, "the first latch holds");
	is_u64(in(0x42), 0x12, "both halves");
	is_u64(in(0x42), (0x1234 - 99) & 0xff, "then live again");
	in(0x42);
	out(0x43, 0xc8); /* read-back: count and status of channel 2 */
	is_u64(in(0x42), 0xb4, "status first");
	is_u64(in(0x42), (0x1234 - 99) & 0xff, "then the count");
	in(0x42);
	begin();
	out(0x43, 0xb1); /* mode 0, BCD */
	out(0x42, 0x00);
	out(0x42, 0x10);
	at(2);
	is_u64(count(2), 0x0999, "BCD");
	program(2, 0, 0);
	at(4);
	is_u64(count(2), 0xffff, "zero means 65536");
	is_u64(in(0x43), 0xff, "control is write-only");
}

static void take(void)
{
	irq.waits = false;
	i8254_tick_taken(pit);
}

static void test_irq(void)
{
	unsigned rises;

	begin();
	rises = irq.rises;
	program(0, 2, 1193);
	at(1 + 1193);
	is_u64(irq.rises - rises, 1, "one edge after one period");
	at(1 + 1193 * 100);
	is_u64(irq.rises - rises, 100, "a hundred after a hundred");
	/* Nobody listens and the host was busy: time jumped without timers. */
	fc.now_ns += 5 * NS_PER_MS;
	fake_clock_advance(&fc, 0);
	is_u64(irq.rises - rises, 101, "late edges that nobody listens for are one");

	/* A processor listens, but is slow. */
	at(1 + 1193 * 110);
	irq.listens = true;
	irq.waits = false;
	rises = irq.rises;
	at(1 + 1193 * 120);
	is_u64(irq.rises - rises, 1, "the next edge waits until the last is taken");
	take();
	is_u64(irq.rises - rises, 2, "it follows at once");
	i8254_tick_taken(pit);
	is_u64(irq.rises - rises, 2, "one at a time: that was another interrupt");
	for (unsigned i = 0; i < 20; i++)
		take();
	is_u64(irq.rises - rises, 10, "none is lost, none invented");
	fc.now_ns += 5 * NS_PER_MS;
	fake_clock_advance(&fc, 0);
	for (unsigned i = 0; i < 20; i++)
		take();
	is_u64(irq.rises - rises, 15, "late edges are made up for too");
	fc.now_ns += 3600 * NS_PER_SEC;
	fake_clock_advance(&fc, 0);
	rises = irq.rises;
	for (unsigned i = 0; i < 3000; i++)
		take();
	ok(irq.rises - rises <= 1001 && irq.rises - rises >= 999, "but not for more than a second");
	fc.now_ns += 5 * NS_PER_MS;
	fake_clock_advance(&fc, 0);
	program(0, 2, 1193);
	rises = irq.rises;
	take();
	is_u64(irq.rises - rises, 0, "a new count owes nothing");
	irq.listens = false;

	begin();
	program(0, 0, 1000);
	rises = irq.rises;
	ok(!irq.level, "mode 0 low");
	at(1000);
	ok(!irq.level, "still");
	at(1001);
	ok(irq.level && irq.rises == rises + 1, "one-shot edge");
	ok(!fc.armed, "and no timer afterwards");

	begin();
	program(0, 3, 2000);
	rises = irq.rises;
	at(1 + 500);
	ok(irq.level, "mode 3 high half");
	at(1 + 1500);
	ok(!irq.level, "low half");
	at(1 + 2500);
	ok(irq.level && irq.rises == rises + 1, "edge");

	begin();
	program(0, 2, 2);
	is_u64(fake_clock_advance(&fc, NS_PER_MS) <= 100, 1, "a mad rate is limited");
	i8254_device(pit)->ops->reset(i8254_device(pit));
	ok(!fc.armed, "reset disarms");
}

static void test_nmi_sc(void)
{
	unsigned toggles = 0;

	out(0x61, 0xff);
	is_u64(in(0x61) & 0xcf, 0x0f, "port 61: low four bits stick");
	for (bool last = in(0x61) & 0x10, bit; toggles < 5; last = bit) {
		fake_clock_advance(&fc, 1000);
		bit = in(0x61) & 0x10;
		toggles += bit != last;
	}
	ok(true, "refresh bit toggles");
}

int main(void)
{
	fake_clock_init(&fc);
	ports = bus_create("ports");
	pit = i8254_create(ports, &fc.clock, fake_line(&irq), fake_line_waits);
	ok(!fc.armed, "idle after power-on");
	test_mode0();
	test_mode1();
	test_mode2();
	test_mode3();
	test_mode45();
	test_access();
	test_irq();
	test_nmi_sc();
	i8254_device(pit)->ops->destroy(i8254_device(pit));
	bus_destroy(ports);
	return done_testing();
}
