/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug console: as in Bochs, a guest finds it by reading 0xe9 from port 0xe9. Threading: machine
 * lock.
 */
#include "dev/debugcon.h"

#include <assert.h>
#include <stdlib.h>

struct debugcon {
	struct device dev;
	struct bus *ports;
	struct chardev *chr;
	struct io_region region;
};

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct debugcon *d = opaque;
	uint8_t byte = (uint8_t)value;

	chardev_write(d->chr, &byte, 1);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	return DEBUGCON_PORT;
}

static void reset(struct device *dev)
{
}

static void destroy(struct device *dev)
{
	struct debugcon *d = container_of(dev, struct debugcon, dev);

	bus_remove(d->ports, &d->region);
	free(d);
}

struct device *debugcon_create(struct bus *ports, struct chardev *chr)
{
	static const struct device_ops ops = { "debugcon", reset, destroy };
	static const struct io_ops port_ops = { port_read, port_write, 1, 1 };
	struct debugcon *d = calloc(1, sizeof(*d));

	assert(d);
	d->dev.ops = &ops;
	d->ports = ports;
	d->chr = chr;
	d->region = (struct io_region){
		.name = "debugcon",
		.base = DEBUGCON_PORT,
		.length = 1,
		.ops = &port_ops,
		.opaque = d,
	};
	bus_add(ports, &d->region);
	return &d->dev;
}
