/* SPDX-License-Identifier: Apache-2.0 */
/* System control port A. Manual: Intel ICH9 data sheet, section 13.7.3. Threading: machine lock. */
#include "dev/port92.h"

#include <assert.h>
#include <stdlib.h>

struct port92 {
	struct device dev;
	struct bus *ports;
	struct irq_line a20, reset;
	uint8_t value;
	struct io_region region;
};

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct port92 *p = opaque;
	bool init = value & PORT92_INIT_NOW && !(p->value & PORT92_INIT_NOW);

	p->value = (uint8_t)value & (PORT92_INIT_NOW | PORT92_ALT_A20_GATE);
	irq_set(&p->a20, value & PORT92_ALT_A20_GATE);
	if (init)
		irq_pulse(&p->reset);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct port92 *p = opaque;

	return p->value;
}

static void reset(struct device *dev)
{
	struct port92 *p = container_of(dev, struct port92, dev);

	p->value = PORT92_ALT_A20_GATE;
	irq_set(&p->a20, true);
}

static void destroy(struct device *dev)
{
	struct port92 *p = container_of(dev, struct port92, dev);

	bus_remove(p->ports, &p->region);
	free(p);
}

struct device *port92_create(struct bus *ports, struct irq_line a20, struct irq_line reset_line)
{
	static const struct device_ops ops = { "port92", reset, destroy };
	static const struct io_ops port_ops = { port_read, port_write, 1, 1 };
	struct port92 *p = calloc(1, sizeof(*p));

	assert(p);
	p->dev.ops = &ops;
	p->ports = ports;
	p->a20 = a20;
	p->reset = reset_line;
	p->region = (struct io_region){
		.name = "port92",
		.base = PORT92,
		.length = 1,
		.ops = &port_ops,
		.opaque = p,
	};
	bus_add(ports, &p->region);
	reset(&p->dev);
	return &p->dev;
}
