/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 16550: bytes both ways, FIFO and trigger levels, timeout, interrupt priorities, loopback,
 * break.
 */
#include "dev/ns16550.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

static struct bus *ports;
static struct device *uart;
static struct fake_clock fc;
static struct fake_line irq;
static struct fake_chardev chr;

static uint8_t rd(unsigned reg)
{
	return (uint8_t)bus_read(ports, 0x3f8 + reg, 1);
}

static void wr(unsigned reg, uint8_t v)
{
	bus_write(ports, 0x3f8 + reg, v, 1);
}

static void test_transmit(void)
{
	is_u64(rd(UART_LSR), 0x60, "transmitter empty");
	is_u64(rd(UART_IIR), 0x01, "no interrupt");
	is_u64(rd(UART_MSR), 0xb0, "a modem is there");
	wr(UART_RBR, 'h');
	wr(UART_RBR, 'i');
	ok(chr.out_len == 2 && !memcmp(chr.out, "hi", 2), "bytes go out");
	wr(UART_IER, IER_ETBEI);
	ok(!irq.level, "OUT2 gates the interrupt");
	wr(UART_MCR, MCR_OUT2);
	ok(irq.level, "THRE interrupt when enabled");
	is_u64(rd(UART_IIR), IIR_THRI, "identified");
	ok(!irq.level && rd(UART_IIR) == IIR_NONE, "reading IIR clears it");
	wr(UART_RBR, '!');
	ok(irq.level, "and the next byte raises it");
	wr(UART_RBR, '?');
	is_u64(irq.rises, 3, "each byte is a new edge");
	wr(UART_IER, 0);
	ok(!irq.level, "disabled");
	wr(UART_SCR, 0x5a);
	is_u64(rd(UART_SCR), 0x5a, "scratch");
	wr(UART_LCR, 0x83);
	wr(0, 1);
	wr(1, 2);
	ok(rd(0) == 1 && rd(1) == 2, "divisor");
	wr(0, 12);
	wr(1, 0);
	wr(UART_LCR, 3);
	is_u64(rd(UART_LCR), 3, "LCR");
	is_u64(chr.out_len, 4, "the divisor is not sent");
}

static void test_receive(void)
{
	is_u64(fake_chardev_input(&chr, "ab", 2), 1, "room for one without FIFOs");
	is_u64(rd(UART_LSR), 0x61, "data ready");
	chr.resumed = 0;
	is_u64(rd(UART_RBR), 'a', "the byte");
	is_u64(chr.resumed, 1, "the back end is called when it was read");
	is_u64(rd(UART_LSR), 0x60, "empty");
	wr(UART_IER, IER_ERBFI);
	fake_chardev_input(&chr, "c", 1);
	ok(irq.level && rd(UART_IIR) == IIR_RDI, "received data interrupt");
	rd(UART_RBR);
	ok(!irq.level, "gone with the byte");

	wr(UART_IIR, 0x81); /* FIFOs, trigger at 8 */
	is_u64(rd(UART_IIR), 0xc1, "FIFOs on");
	is_u64(fake_chardev_input(&chr, "0123456789abcdefXYZ", 19), 16, "room for 16");
	ok(irq.level && rd(UART_IIR) == (0xc0 | IIR_RDI), "above the trigger level");
	for (unsigned i = 0; i < 8; i++)
		rd(UART_RBR);
	ok(irq.level, "8 left: still");
	is_u64(rd(UART_RBR), '8', "in order");
	ok(!irq.level, "7 left: not");
	fake_clock_advance(&fc, NS_PER_SEC * 10 * 16 * 12 / 1843200 * 4 - 1000);
	ok(!irq.level, "no timeout yet");
	fake_clock_advance(&fc, 2000);
	ok(irq.level && rd(UART_IIR) == (0xc0 | IIR_TIMEOUT), "timeout after four characters");
	is_u64(rd(UART_RBR), '9', "reading");
	ok(!irq.level, "ends it");
	wr(UART_IIR, 0x83);
	is_u64(rd(UART_LSR), 0x60, "receiver FIFO reset");
	ok(!fc.armed, "no timeout without data");
	fake_chardev_input(&chr, "x", 1);
	wr(UART_IIR, 0x00);
	is_u64(rd(UART_LSR), 0x60, "turning FIFOs off empties them");
	wr(UART_IER, 0);
}

static void test_loopback(void)
{
	size_t out_len = chr.out_len;

	wr(UART_IIR, 0x01);
	wr(UART_MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
	is_u64(rd(UART_MSR), MSR_DCD | MSR_CTS | MSR_DDSR, "modem inputs are the outputs");
	is_u64(rd(UART_MSR), MSR_DCD | MSR_CTS, "changes are shown once");
	wr(UART_MCR, MCR_LOOP | MCR_OUT2 | MCR_OUT1);
	is_u64(rd(UART_MSR), MSR_DCD | MSR_RI | MSR_DCTS, "RI on is no event");
	wr(UART_IER, IER_EDSSI);
	wr(UART_MCR, MCR_LOOP | MCR_OUT2);
	ok(irq.level && rd(UART_IIR) == (0xc0 | IIR_MSI), "RI off is, with its interrupt");
	is_u64(rd(UART_MSR), MSR_DCD | MSR_TERI, "TERI");
	ok(!irq.level, "gone with reading MSR");
	is_u64(fake_chardev_input(&chr, "x", 1), 0, "nothing comes in from outside");
	for (unsigned i = 0; i < 17; i++)
		wr(UART_RBR, (uint8_t)i);
	is_u64(chr.out_len, out_len, "nothing goes out");
	wr(UART_IER, 0x0f);
	is_u64(rd(UART_IIR), 0xc0 | IIR_RLSI, "overrun: the highest priority");
	is_u64(rd(UART_LSR), 0x63, "OE");
	is_u64(rd(UART_IIR), 0xc0 | IIR_RDI, "then the data");
	for (unsigned i = 0; i < 15; i++)
		rd(UART_RBR);
	is_u64(rd(UART_RBR), 15, "the byte too many was lost");
	is_u64(rd(UART_IIR), 0xc0 | IIR_THRI, "then the transmitter");
	is_u64(rd(UART_IIR), 0xc1, "then none");
	wr(UART_RBR, 'A');
	wr(UART_LCR, 0x43);
	is_u64(rd(UART_LSR), 0xe1, "a break behind a good byte: only the FIFO bit");
	rd(UART_RBR);
	is_u64(rd(UART_LSR), 0xf9, "at the top: break and framing error");
	is_u64(rd(UART_RBR), 0, "a zero");
	is_u64(rd(UART_LSR), 0x60, "all gone");
	wr(UART_LCR, 3);
	wr(UART_IIR, 0);
	wr(UART_RBR, 'B');
	wr(UART_RBR, 'C');
	is_u64(rd(UART_LSR), 0x63, "overrun without FIFOs");
	chr.resumed = 0;
	is_u64(rd(UART_RBR), 'C', "keeps the last");
	is_u64(chr.resumed, 0, "not a matter for the back end");
	wr(UART_MCR, 0);
	is_u64(chr.resumed, 1, "until loopback ends");
	uart->ops->reset(uart);
	ok(!irq.level && rd(UART_IER) == 0 && !fc.armed, "reset");
}

int main(void)
{
	fake_clock_init(&fc);
	fake_chardev_init(&chr);
	ports = bus_create("ports");
	uart = ns16550_create(ports, NS16550_COM1_PORT, &fc.clock, fake_line(&irq), &chr.chr);
	test_transmit();
	test_receive();
	test_loopback();
	uart->ops->destroy(uart);
	ok(!chr.chr.client.receive, "the back end is let go");
	uart = ns16550_create(ports, NS16550_COM1_PORT, &fc.clock, fake_line(&irq), NULL);
	wr(UART_RBR, 'x');
	is_u64(rd(UART_LSR), 0x60, "works without a back end");
	uart->ops->destroy(uart);
	bus_destroy(ports);
	return done_testing();
}
