/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all chips have in common, and the wires between them.
 *
 * A chip is a struct that embeds struct device; `NAME_create()` takes everything the chip needs (bus,
 * clock, interrupt lines, back end), claims its windows on the bus, and returns it. There is no state
 * outside of instances. Every chip function runs with the machine's lock held.
 */
#ifndef DEV_DEVICE_H
#define DEV_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/log.h"
#include "mem/memory.h"

struct device;

struct device_ops {
	const char *name;		      /* part name: "i8259" */
	void (*reset)(struct device *dev);    /* as by the RESET line */
	void (*destroy)(struct device *dev);  /* unmaps, frees */
};

struct device {
	const struct device_ops *ops;
};

/* An output wire. Level-triggered sources hold it; edge-triggered ones pulse it (true, then false). */
struct irq_line {
	void (*set)(void *opaque, unsigned pin, bool level);
	void *opaque;
	unsigned pin;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
	if (line->set)
		line->set(line->opaque, line->pin, level);
}

static inline void irq_pulse(const struct irq_line *line)
{
	irq_set(line, true);
	irq_set(line, false);
}

/*
 * Asked about a wire, with its opaque and pin: would an edge on it be lost now, because an earlier one still waits to
 * be taken by a processor? Not so when nobody listens: then there is nothing to make up for later.
 */
typedef bool irq_waits_fn(void *opaque, unsigned pin);

/* What an interrupt controller would do with an edge. */
enum irq_edge { IRQ_EDGE_IGNORED, IRQ_EDGE_TAKEN, IRQ_EDGE_WAITS };

/*
 * Message-signalled interrupts: a write of @data to @address (0xfeexxxxx), delivered to the local APICs.
 */
struct msi_sink {
	void (*send)(void *opaque, uint64_t address, uint32_t data);
	void *opaque;
	/* What would become of this message; NULL: nobody can tell. */
	enum irq_edge (*edge)(void *opaque, uint64_t address, uint32_t data);
	/*
	 * From now on (@on) a signal on @fd, an eventfd, is this message, instead of what it was before; or (!@on) none. False: nobody
	 * listens to @fd. NULL: nobody can.
	 */
	bool (*set_irqfd)(void *opaque, int fd, bool on, uint64_t address, uint32_t data);
};

static inline void msi_send(const struct msi_sink *sink, uint64_t address, uint32_t data)
{
	if (sink->send)
		sink->send(sink->opaque, address, data);
}

#endif
