/* SPDX-License-Identifier: Apache-2.0 */
/*
 * National Semiconductor NS16550A UART.
 *
 * Theory of operation. A byte to send goes to the back end at once, whatever the divisor, so the
 * transmitter is always empty; its interrupt is a flag that is set when that happens (again).
 * Received bytes wait in a FIFO of 16 (of 1 with FIFOs off), each with the errors it came with; the
 * back end is told how many fit and is called when the FIFO has been emptied. A modem is always
 * there: CTS, DSR and DCD are on. In loopback the transmitter feeds the receiver and the modem
 * outputs feed the modem inputs.
 *
 * The interrupt output goes through OUT2, as on the PC. It is a level; writing THR takes the
 * transmitter's interrupt away before it sets it again, so that an edge-triggered input sees an
 * edge.
 *
 * Manual: National PC16550D data sheet. Threading: machine lock.
 */
#include "dev/ns16550.h"

#include <assert.h>
#include <stdlib.h>

#define FIFO 16u
#define CRYSTAL_HZ 1843200u
#define TIMEOUT_CHARACTERS 4
#define IER_BITS 0x0f
#define MCR_BITS 0x1f
#define MSR_MODEM (MSR_CTS | MSR_DSR | MSR_DCD)
#define LSR_ERRORS (LSR_OE | LSR_PE | LSR_FE | LSR_BI)

struct ns16550 {
	struct device dev;
	struct bus *ports;
	struct clock *clock;
	struct irq_line irq;
	struct chardev *chr;
	struct clock_timer timeout;
	uint8_t ier, fcr, lcr, mcr, msr, scr;
	uint8_t lsr; /* the error bits; the rest is computed */
	uint16_t divisor;
	bool thre_pending, timeout_pending, irq_level;
	struct {
		uint8_t byte, errors;
	} fifo[FIFO];
	unsigned head, count;
	struct io_region region;
};

static unsigned capacity(const struct ns16550 *u)
{
	return u->fcr & FCR_ENABLE ? FIFO : 1;
}

static unsigned trigger_level(const struct ns16550 *u)
{
	static const uint8_t levels[4] = { 1, 4, 8, 14 };

	return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

/* The interrupt of highest priority that is enabled and pending. */
static uint8_t interrupt_id(const struct ns16550 *u)
{
	if (u->ier & IER_ELSI && u->lsr & LSR_ERRORS)
		return IIR_RLSI;
	if (u->ier & IER_ERBFI && u->count >= trigger_level(u))
		return IIR_RDI;
	if (u->ier & IER_ERBFI && u->timeout_pending)
		return IIR_TIMEOUT;
	if (u->ier & IER_ETBEI && u->thre_pending)
		return IIR_THRI;
	if (u->ier & IER_EDSSI && u->msr & 0x0f)
		return IIR_MSI;
	return IIR_NONE;
}

static void update_irq(struct ns16550 *u)
{
	bool level = interrupt_id(u) != IIR_NONE && u->mcr & MCR_OUT2;

	if (level == u->irq_level)
		return;
	u->irq_level = level;
	irq_set(&u->irq, level);
}

static uint64_t character_ns(const struct ns16550 *u)
{
	/* Start, data, parity and stop bits, 16 clocks each. */
	unsigned bits = 1 + 5 + (u->lcr & 3) + (u->lcr >> 3 & 1) + 1 + (u->lcr >> 2 & 1);

	return (uint64_t)bits * 16 * MAX(u->divisor, 1) * NS_PER_SEC / CRYSTAL_HZ;
}

/* Four character times without a byte coming or going, with some in the FIFO, are a timeout. */
static void restart_timeout(struct ns16550 *u)
{
	u->timeout_pending = false;
	if (u->fcr & FCR_ENABLE && u->count)
		clock_arm(u->clock, &u->timeout,
			  clock_now_ns(u->clock) + TIMEOUT_CHARACTERS * character_ns(u));
	else
		clock_cancel(u->clock, &u->timeout);
}

static void timed_out(void *opaque)
{
	struct ns16550 *u = opaque;

	u->timeout_pending = u->count > 0;
	update_irq(u);
}

/* The byte now at the top of the FIFO shows its errors in LSR. */
static void reveal_errors(struct ns16550 *u)
{
	if (u->count) {
		u->lsr |= u->fifo[u->head].errors;
		u->fifo[u->head].errors = 0;
	}
}

static void push(struct ns16550 *u, uint8_t byte, uint8_t errors)
{
	unsigned at;

	if (u->count == capacity(u)) {
		u->lsr |= LSR_OE;
		/* Without FIFOs the new byte replaces the old, with them it is lost. */
		if (u->fcr & FCR_ENABLE)
			return;
		u->count--;
	}
	at = (u->head + u->count) % FIFO;
	u->fifo[at].byte = byte;
	u->fifo[at].errors = errors;
	if (u->count++ == 0)
		reveal_errors(u);
	restart_timeout(u);
}

static uint8_t pop(struct ns16550 *u)
{
	uint8_t byte = u->fifo[u->head].byte;

	if (!u->count)
		return byte; /* what is there from before */
	u->head = (u->head + 1) % FIFO;
	u->count--;
	reveal_errors(u);
	restart_timeout(u);
	return byte;
}

static void clear_fifo(struct ns16550 *u)
{
	u->head = u->count = 0;
	restart_timeout(u);
}

static size_t can_receive(void *opaque)
{
	const struct ns16550 *u = opaque;

	return u->mcr & MCR_LOOP ? 0 : capacity(u) - u->count;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct ns16550 *u = opaque;

	for (size_t i = 0; i < len; i++)
		push(u, buf[i], 0);
	update_irq(u);
}

/* The modem inputs, with the changes since MSR was read. */
static void update_modem(struct ns16550 *u)
{
	uint8_t inputs = MSR_MODEM, changed;

	if (u->mcr & MCR_LOOP)
		inputs = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
			 (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
	changed = (u->msr ^ inputs) >> 4;
	/* RI counts only when it goes off. */
	if (inputs & MSR_RI)
		changed &= (uint8_t)~MSR_TERI;
	u->msr = inputs | (u->msr & 0x0f) | changed;
}

static void transmit(struct ns16550 *u, uint8_t byte)
{
	u->thre_pending = false;
	update_irq(u);
	if (u->mcr & MCR_LOOP)
		push(u, byte, 0);
	else
		chardev_write(u->chr, &byte, 1);
	u->thre_pending = true;
}

static void write_fcr(struct ns16550 *u, uint8_t value)
{
	if ((value ^ u->fcr) & FCR_ENABLE)
		value |= FCR_RX_RESET;
	/* The other bits count only together with this one. */
	u->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | 0xc0) : 0;
	if (value & FCR_RX_RESET)
		clear_fifo(u);
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ns16550 *u = opaque;
	size_t room = can_receive(u);
	uint8_t v = (uint8_t)value, old;

	switch (offset) {
	case UART_RBR:
		if (u->lcr & LCR_DLAB)
			u->divisor = (u->divisor & 0xff00) | v;
		else
			transmit(u, v);
		break;
	case UART_IER:
		if (u->lcr & LCR_DLAB) {
			u->divisor = (uint16_t)((u->divisor & 0xff) | v << 8);
			break;
		}
		/* Enabling the transmitter's interrupt while it is empty, as it is, raises it. */
		if (v & IER_ETBEI && !(u->ier & IER_ETBEI))
			u->thre_pending = true;
		u->ier = v & IER_BITS;
		break;
	case UART_IIR: write_fcr(u, v); break;
	case UART_LCR:
		old = u->lcr;
		u->lcr = v;
		/* A break on the line, looped back, is a zero without a stop bit. */
		if (v & LCR_SBC && !(old & LCR_SBC) && u->mcr & MCR_LOOP)
			push(u, 0, LSR_BI | LSR_FE);
		break;
	case UART_MCR:
		u->mcr = v & MCR_BITS;
		update_modem(u);
		break;
	case UART_SCR: u->scr = v; break;
	}
	update_irq(u);
	/* Last, as the back end may give bytes at once. */
	if (can_receive(u) > room)
		chardev_resume(u->chr);
}

static uint8_t read_lsr(struct ns16550 *u)
{
	uint8_t value = u->lsr | LSR_THRE | LSR_TEMT;

	if (u->count)
		value |= LSR_DR;
	if (u->fcr & FCR_ENABLE) {
		if (u->lsr & (LSR_PE | LSR_FE | LSR_BI))
			value |= LSR_FIFOE;
		for (unsigned i = 0; i < u->count; i++)
			if (u->fifo[(u->head + i) % FIFO].errors)
				value |= LSR_FIFOE;
	}
	u->lsr = 0;
	return value;
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ns16550 *u = opaque;
	uint8_t value = 0;
	bool had;

	switch (offset) {
	case UART_RBR:
		if (u->lcr & LCR_DLAB)
			return u->divisor & 0xff;
		had = u->count;
		value = pop(u);
		update_irq(u);
		/* Once empty, not byte by byte: a burst for each wake-up of the back end. */
		if (had && !u->count && can_receive(u))
			chardev_resume(u->chr);
		return value;
	case UART_IER: return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
	case UART_IIR:
		value = interrupt_id(u);
		if (value == IIR_THRI)
			u->thre_pending = false;
		if (u->fcr & FCR_ENABLE)
			value |= IIR_FIFO;
		break;
	case UART_LCR: return u->lcr;
	case UART_MCR: return u->mcr;
	case UART_LSR: value = read_lsr(u); break;
	case UART_MSR:
		value = u->msr;
		u->msr &= 0xf0;
		break;
	case UART_SCR: return u->scr;
	}
	update_irq(u);
	return value;
}

static void reset(struct device *dev)
{
	struct ns16550 *u = container_of(dev, struct ns16550, dev);

	u->ier = u->fcr = u->lcr = u->mcr = u->lsr = 0;
	u->msr = MSR_MODEM;
	u->divisor = 12;
	u->thre_pending = false;
	clear_fifo(u);
	update_irq(u);
	chardev_resume(u->chr);
}

static void destroy(struct device *dev)
{
	struct ns16550 *u = container_of(dev, struct ns16550, dev);

	clock_cancel(u->clock, &u->timeout);
	if (u->chr)
		u->chr->client = (struct chardev_client){ 0 };
	bus_remove(u->ports, &u->region);
	free(u);
}

struct device *ns16550_create(struct bus *ports, uint16_t base, struct clock *clock,
			      struct irq_line irq, struct chardev *chr)
{
	static const struct device_ops ops = { "ns16550", reset, destroy };
	static const struct io_ops port_ops = { port_read, port_write, 1, 1 };
	struct ns16550 *u = calloc(1, sizeof(*u));

	assert(u);
	u->dev.ops = &ops;
	u->ports = ports;
	u->clock = clock;
	u->irq = irq;
	u->chr = chr;
	u->timeout.fire = timed_out;
	u->timeout.opaque = u;
	u->region = (struct io_region){
		.name = "ns16550",
		.base = base,
		.length = 8,
		.ops = &port_ops,
		.opaque = u,
	};
	bus_add(ports, &u->region);
	if (chr)
		chr->client = (struct chardev_client){ .can_receive = can_receive, .receive = receive, .opaque = u };
	reset(&u->dev);
	return &u->dev;
}
