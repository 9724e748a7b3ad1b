/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 8259A, twice, as wired in a PC.
 *
 * Theory of operation. Each chip latches requests (IRR), masks them (IMR) and remembers what is
 * being serviced (ISR); priorities are a rotation of 0..7. An edge-triggered request stays latched
 * when its wire falls (chips may pulse a wire), a level-triggered one follows the wire. The slave's
 * INT output is the master's IR2, which the master sees as a level: a slave that has another
 * request after the one just acknowledged keeps asking, as the real one does by a new edge.
 *
 * Sensing is chosen by ELCR per line, as in the PC chip sets; ICW1.LTIM is accepted and has no
 * effect, nor has ICW3, the wiring being what it is. A chip raises no request until its ICWs are
 * complete.
 *
 * Manuals: Intel 8259A data sheet (order 231468); ELCR: Intel ICH9 data sheet, section 13.4.
 * Threading: machine lock.
 */
#include "dev/i8259.h"

#include <assert.h>
#include <stdlib.h>

#define CASCADE 2

enum init_step { READY, WANT_ICW2, WANT_ICW3, WANT_ICW4 };

struct chip {
	uint8_t lines; /* levels of the input wires */
	uint8_t irr, imr, isr;
	uint8_t elcr, elcr_mask;
	uint8_t icw1, vector_base;
	uint8_t lowest; /* the IR with the lowest priority */
	enum init_step step;
	bool auto_eoi, rotate_on_aeoi, special_mask, special_fully_nested;
	bool poll, read_isr;
	bool is_master;
	struct i8259 *pair;
	struct io_region region, elcr_region;
};

struct i8259 {
	struct device dev;
	struct bus *ports;
	struct irq_line intr;
	bool intr_level;
	struct chip chip[2];
};

/*
 * The IR of highest priority in @set, or -1; @rank, if wanted, gets its rank, 0 the highest, 8 for
 * none.
 */
static int highest(const struct chip *c, uint8_t set, unsigned *rank)
{
	for (unsigned i = 0; i < 8; i++) {
		unsigned ir = (c->lowest + 1 + i) & 7;

		if (set & 1u << ir) {
			*rank = i;
			return (int)ir;
		}
	}
	*rank = 8;
	return -1;
}

/* The request that the chip's INT output stands for, or -1. */
static int request(const struct chip *c)
{
	uint8_t blocking = c->isr;
	unsigned rank, in_service;
	int ir;

	if (c->step != READY)
		return -1;
	ir = highest(c, c->irr & (uint8_t)~c->imr, &rank);
	if (ir < 0)
		return -1;
	if (c->special_mask)
		blocking &= (uint8_t)~c->imr;
	if (c->special_fully_nested && c->is_master && ir == CASCADE)
		blocking &= (uint8_t) ~(1u << CASCADE);
	highest(c, blocking, &in_service);
	return rank < in_service ? ir : -1;
}

static void update(struct i8259 *pic)
{
	struct chip *master = &pic->chip[0];
	bool level;

	if (request(&pic->chip[1]) >= 0)
		master->irr |= 1u << CASCADE;
	else
		master->irr &= (uint8_t) ~(1u << CASCADE);
	level = request(master) >= 0;
	if (level != pic->intr_level) {
		pic->intr_level = level;
		irq_set(&pic->intr, level);
	}
}

static void rotate_below(struct chip *c, unsigned ir)
{
	c->lowest = ir & 7;
}

/* INTA for @ir on one chip. */
static void acknowledge(struct chip *c, unsigned ir)
{
	uint8_t bit = (uint8_t)(1u << ir);

	if (!(c->elcr & bit))
		c->irr &= (uint8_t)~bit;
	if (!c->auto_eoi)
		c->isr |= bit;
	else if (c->rotate_on_aeoi)
		rotate_below(c, ir);
}

void i8259_set_irq(void *opaque, unsigned pin, bool level)
{
	struct i8259 *pic = opaque;
	struct chip *c;
	uint8_t bit;

	assert(pin < 16);
	if (pin == CASCADE)
		return;
	c = &pic->chip[pin >> 3];
	bit = (uint8_t)(1u << (pin & 7));
	if (c->elcr & bit)
		c->irr = level ? c->irr | bit : c->irr & (uint8_t)~bit;
	else if (level && !(c->lines & bit))
		c->irr |= bit;
	c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
	update(pic);
}

enum irq_edge i8259_edge(const struct i8259 *pic, unsigned pin)
{
	const struct chip *c = &pic->chip[pin >> 3];
	uint8_t bit = (uint8_t)(1u << (pin & 7));

	assert(pin < 16);
	if (c->step != READY || c->imr & bit || c->elcr & bit)
		return IRQ_EDGE_IGNORED;
	return c->irr & bit ? IRQ_EDGE_WAITS : IRQ_EDGE_TAKEN;
}

bool i8259_intr(const struct i8259 *pic)
{
	return pic->intr_level;
}

uint8_t i8259_ack(struct i8259 *pic)
{
	struct chip *c = &pic->chip[0];
	int ir = request(c);

	if (ir >= 0) {
		acknowledge(c, (unsigned)ir);
		if (ir == CASCADE) {
			c = &pic->chip[1];
			ir = request(c);
			if (ir >= 0)
				acknowledge(c, (unsigned)ir);
		}
	}
	update(pic);
	return c->vector_base | (ir >= 0 ? (unsigned)ir : 7);
}

static void write_icw1(struct chip *c, uint8_t value)
{
	c->icw1 = value;
	c->step = WANT_ICW2;
	/* The edge detectors are cleared: a wire that is high must fall before it counts again. */
	c->irr = c->lines & c->elcr;
	c->imr = c->isr = 0;
	c->lowest = 7;
	c->special_mask = c->poll = c->read_isr = c->rotate_on_aeoi = false;
	if (!(value & ICW1_IC4))
		c->auto_eoi = c->special_fully_nested = false;
}

static void write_ocw2(struct chip *c, uint8_t value)
{
	unsigned ir = value & OCW2_LEVEL, rank;
	int top;

	switch (value & (OCW2_R | OCW2_SL | OCW2_EOI)) {
	case OCW2_EOI:
	case OCW2_R | OCW2_EOI:
		/* In special mask mode a masked level is not seen by a non-specific EOI. */
		top = highest(c, c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr, &rank);
		if (top < 0)
			break;
		c->isr &= (uint8_t) ~(1u << top);
		if (value & OCW2_R)
			rotate_below(c, (unsigned)top);
		break;
	case OCW2_SL | OCW2_EOI: c->isr &= (uint8_t) ~(1u << ir); break;
	case OCW2_R | OCW2_SL | OCW2_EOI:
		c->isr &= (uint8_t) ~(1u << ir);
		rotate_below(c, ir);
		break;
	case OCW2_R | OCW2_SL: rotate_below(c, ir); break;
	case OCW2_R: c->rotate_on_aeoi = true; break;
	case 0: c->rotate_on_aeoi = false; break;
	}
}

static void write_ocw3(struct chip *c, uint8_t value)
{
	c->poll = value & OCW3_P;
	if (value & OCW3_RR)
		c->read_isr = value & OCW3_RIS;
	if (value & OCW3_ESMM)
		c->special_mask = value & OCW3_SMM;
}

static void write_a1(struct chip *c, uint8_t value)
{
	switch (c->step) {
	case READY: c->imr = value; break;
	case WANT_ICW2:
		c->vector_base = value & 0xf8;
		if (!(c->icw1 & ICW1_SNGL))
			c->step = WANT_ICW3;
		else
			c->step = c->icw1 & ICW1_IC4 ? WANT_ICW4 : READY;
		break;
	case WANT_ICW3: c->step = c->icw1 & ICW1_IC4 ? WANT_ICW4 : READY; break;
	case WANT_ICW4:
		c->auto_eoi = value & ICW4_AEOI;
		c->special_fully_nested = value & ICW4_SFNM;
		c->step = READY;
		break;
	}
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct chip *c = opaque;
	uint8_t v = (uint8_t)value;

	if (offset & 1)
		write_a1(c, v);
	else if (v & ICW1_D4)
		write_icw1(c, v);
	else if (v & OCW3_D3)
		write_ocw3(c, v);
	else
		write_ocw2(c, v);
	update(c->pair);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct chip *c = opaque;

	if (c->poll) {
		int ir = request(c);

		c->poll = false;
		if (ir < 0)
			return 0;
		acknowledge(c, (unsigned)ir);
		update(c->pair);
		return 0x80u | (unsigned)ir;
	}
	if (offset & 1)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct chip *c = opaque;

	return c->elcr;
}

static void elcr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct chip *c = opaque;
	uint8_t changed = c->elcr ^ ((uint8_t)value & c->elcr_mask);

	c->elcr = (uint8_t)value & c->elcr_mask;
	c->irr = (c->irr & (uint8_t)~changed) | (c->lines & c->elcr);
	update(c->pair);
}

static void reset(struct device *dev)
{
	struct i8259 *pic = container_of(dev, struct i8259, dev);

	for (unsigned i = 0; i < 2; i++) {
		struct chip *c = &pic->chip[i];

		c->elcr = 0;
		write_icw1(c, 0);
		c->step = READY;
		c->vector_base = 0;
		c->imr = 0xff; /* undefined on the real chip; quiet until it is programmed */
	}
	update(pic);
}

static void destroy(struct device *dev)
{
	struct i8259 *pic = container_of(dev, struct i8259, dev);

	for (unsigned i = 0; i < 2; i++) {
		bus_remove(pic->ports, &pic->chip[i].region);
		bus_remove(pic->ports, &pic->chip[i].elcr_region);
	}
	free(pic);
}

struct i8259 *i8259_create(struct bus *ports, struct irq_line intr)
{
	static const struct device_ops ops = { "i8259", reset, destroy };
	static const struct io_ops port_ops = { port_read, port_write, 1, 1 };
	static const struct io_ops elcr_ops = { elcr_read, elcr_write, 1, 1 };
	struct i8259 *pic = calloc(1, sizeof(*pic));

	assert(pic);
	pic->dev.ops = &ops;
	pic->ports = ports;
	pic->intr = intr;
	for (unsigned i = 0; i < 2; i++) {
		struct chip *c = &pic->chip[i];

		c->pair = pic;
		c->is_master = i == 0;
		/* IRQ 0, 1, 2, 8 and 13 are edge-triggered for good. */
		c->elcr_mask = i == 0 ? 0xf8 : 0xde;
		c->region = (struct io_region){
			.name = i == 0 ? "i8259 master" : "i8259 slave",
			.base = i == 0 ? I8259_MASTER_PORT : I8259_SLAVE_PORT,
			.length = 2,
			.ops = &port_ops,
			.opaque = c,
		};
		c->elcr_region = (struct io_region){
			.name = "i8259 elcr",
			.base = I8259_ELCR_PORT + i,
			.length = 1,
			.ops = &elcr_ops,
			.opaque = c,
		};
		bus_add(ports, &c->region);
		bus_add(ports, &c->elcr_region);
	}
	reset(&pic->dev);
	return pic;
}

struct device *i8259_device(struct i8259 *pic)
{
	return &pic->dev;
}
