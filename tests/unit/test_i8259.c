/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 8259 pair: priorities, every EOI and rotation, poll, special modes, level lines, the default
 * IR7.
 */
#include "dev/i8259.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

static struct bus *ports;
static struct i8259 *pic;
static struct fake_line intr;

static void out(unsigned port, uint8_t v)
{
	bus_write(ports, port, v, 1);
}

static uint8_t in(unsigned port)
{
	return (uint8_t)bus_read(ports, port, 1);
}

static void init(uint8_t icw4_master, uint8_t icw4_slave)
{
	out(0x20, 0x11);
	out(0x21, 0x30);
	out(0x21, 0x04);
	out(0x21, icw4_master);
	out(0xa0, 0x11);
	out(0xa1, 0x38);
	out(0xa1, 0x02);
	out(0xa1, icw4_slave);
	out(0x4d0, 0);
	out(0x4d1, 0);
}

static void pulse(unsigned irq)
{
	i8259_set_irq(pic, irq, true);
	i8259_set_irq(pic, irq, false);
}

static void quiet(void)
{
	for (unsigned i = 0; i < 16; i++)
		i8259_set_irq(pic, i, false);
	init(1, 1);
}

static uint8_t isr(unsigned port)
{
	out(port, 0x0b);
	return in(port);
}

static uint8_t irr(unsigned port)
{
	out(port, 0x0a);
	return in(port);
}

static void test_basic(void)
{
	pulse(1);
	ok(!intr.level, "nothing passes before the chip is programmed");
	init(1, 1);
	is_u64(in(0x21), 0, "ICW1 clears the mask");
	pulse(4);
	ok(intr.level && i8259_intr(pic), "an edge raises INTR");
	is_u64(irr(0x20), 0x10, "IRR shows it");
	is_u64(i8259_ack(pic), 0x34, "its vector");
	ok(!intr.level, "INTR falls");
	is_u64(isr(0x20), 0x10, "in service");
	is_u64(irr(0x20), 0, "no longer requested");
	pulse(5);
	ok(!intr.level, "a lower one waits");
	pulse(0);
	is_u64(i8259_ack(pic), 0x30, "a higher one nests");
	out(0x20, 0x20);
	is_u64(isr(0x20), 0x10, "non-specific EOI ends the highest");
	out(0x20, 0x64);
	is_u64(isr(0x20), 0, "specific EOI");
	is_u64(i8259_ack(pic), 0x35, "and the lower one comes");
	out(0x20, 0x20);
	is_u64(i8259_ack(pic), 0x37, "nothing pending: IR7");
	is_u64(isr(0x20), 0, "with nothing in service");
	out(0x21, 0x08);
	pulse(3);
	ok(!intr.level, "masked");
	out(0x21, 0);
	ok(intr.level, "unmasked: the latched edge counts");
	out(0x20, 0x11);
	ok(!intr.level, "ICW1 forgets edges");
	quiet();
}

static void test_cascade(void)
{
	pulse(12);
	ok(intr.level, "the slave asks through the master");
	is_u64(irr(0x20), 0x04, "master IR2");
	is_u64(i8259_ack(pic), 0x3c, "the slave's vector");
	is_u64(isr(0x20), 0x04, "in service on the master");
	is_u64(isr(0xa0), 0x10, "and on the slave");
	pulse(9);
	ok(!intr.level, "plain nesting: the slave's higher one waits for the master's EOI");
	out(0x20, 0x20);
	is_u64(i8259_ack(pic), 0x39, "then it comes");
	out(0xa0, 0x20);
	out(0xa0, 0x20);
	out(0x20, 0x20);
	is_u64(isr(0xa0) | isr(0x20), 0, "all done");
	pulse(14);
	out(0xa1, 0x40);
	ok(!intr.level, "masking on the slave withdraws the master's request");
	out(0xa1, 0);
	ok(intr.level, "and back");
	i8259_set_irq(pic, 2, true);
	is_u64(i8259_ack(pic), 0x3e, "wire 2 is not connected to anything else");
	quiet();

	init(0x11, 1);
	pulse(12);
	i8259_ack(pic);
	pulse(9);
	ok(intr.level, "special fully nested: the slave's higher one comes at once");
	is_u64(i8259_ack(pic), 0x39, "its vector");
	pulse(15);
	ok(!intr.level, "not the lower one");
	quiet();
}

static void test_rotation(void)
{
	for (unsigned i = 3; i < 6; i++)
		pulse(i);
	is_u64(i8259_ack(pic), 0x33, "3 first");
	out(0x20, 0xa0);
	pulse(3);
	is_u64(i8259_ack(pic), 0x34, "rotated: 4 before 3");
	out(0x20, 0xe5);
	is_u64(isr(0x20), 0x10, "rotate on specific EOI touches only its level");
	out(0x20, 0x64);
	is_u64(i8259_ack(pic), 0x33, "5 is lowest now");
	out(0x20, 0x20);
	out(0x20, 0xc3);
	pulse(3);
	is_u64(i8259_ack(pic), 0x35, "set priority: 3 is lowest, 5 before it");
	quiet();

	init(3, 1);
	pulse(1);
	pulse(2);
	pulse(4);
	is_u64(i8259_ack(pic), 0x31, "automatic EOI");
	is_u64(isr(0x20), 0, "nothing stays in service");
	out(0x20, 0x80);
	is_u64(i8259_ack(pic), 0x34, "next");
	pulse(4);
	pulse(5);
	is_u64(i8259_ack(pic), 0x35, "rotating in automatic EOI: 4 went to the end");
	out(0x20, 0x00);
	is_u64(i8259_ack(pic), 0x34, "4");
	pulse(4);
	pulse(6);
	is_u64(i8259_ack(pic), 0x36, "rotation off: the order stays");
	quiet();
}

static void test_special_mask_and_poll(void)
{
	pulse(2 + 1);
	i8259_ack(pic);
	out(0x21, 0x08);
	pulse(6);
	ok(!intr.level, "6 waits while 3 is in service");
	out(0x20, 0x68);
	ok(intr.level, "special mask mode lets it through as 3 is masked");
	i8259_ack(pic);
	out(0x20, 0x20);
	is_u64(isr(0x20), 0x08, "non-specific EOI passes over the masked 3");
	out(0x20, 0x48);
	pulse(6);
	ok(!intr.level, "special mask mode off");
	quiet();

	pulse(5);
	out(0x20, 0x0c);
	is_u64(in(0x20), 0x85, "poll: bit 7 and the level");
	is_u64(isr(0x20), 0x20, "which counts as INTA");
	out(0x20, 0x0c);
	is_u64(in(0x21), 0, "poll with nothing to report, read at either address");
	is_u64(in(0x21), 0, "then the mask again");
	quiet();
}

static void test_level(void)
{
	out(0x4d0, 0xff);
	out(0x4d1, 0xff);
	is_u64(in(0x4d0), 0xf8, "IRQ 0, 1, 2 stay edge-triggered");
	is_u64(in(0x4d1), 0xde, "IRQ 8, 13 too");
	is_u64(bus_read(ports, 0x4d0, 2), 0xdef8, "ELCR as a word");
	i8259_set_irq(pic, 11, true);
	is_u64(i8259_ack(pic), 0x3b, "level request");
	out(0xa0, 0x20);
	out(0x20, 0x20);
	ok(intr.level, "comes again while the wire is high");
	i8259_set_irq(pic, 11, false);
	ok(!intr.level, "and goes with it");
	is_u64(i8259_ack(pic), 0x37, "too late: the default");
	i8259_set_irq(pic, 5, true);
	out(0x4d0, 0);
	ok(!intr.level, "turned to edge sensing: the level is no edge");
	out(0x4d0, 0x20);
	ok(intr.level, "and back");
	i8259_device(pic)->ops->reset(i8259_device(pic));
	ok(!intr.level, "reset");
}

int main(void)
{
	ports = bus_create("ports");
	pic = i8259_create(ports, fake_line(&intr));
	test_basic();
	test_cascade();
	test_rotation();
	test_special_mask_and_poll();
	test_level();
	i8259_device(pic)->ops->destroy(i8259_device(pic));
	is_u64(bus_read(ports, 0x20, 1), 0xff, "destroyed: ports are free");
	bus_destroy(ports);
	return done_testing();
}
