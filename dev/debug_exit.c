/* SPDX-License-Identifier: Apache-2.0 */
/* Debug exit port: a write of any width from its first port is a value handed to the machine. */
#include "dev/debug_exit.h"

#include <assert.h>
#include <stdlib.h>

struct debug_exit {
	struct device dev;
	struct bus *ports;
	void (*exited)(void *opaque, uint32_t value);
	void *opaque;
	struct io_region region;
};

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct debug_exit *d = opaque;

	d->exited(d->opaque, (uint32_t)value);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}

static void reset(struct device *dev)
{
}

static void destroy(struct device *dev)
{
	struct debug_exit *d = container_of(dev, struct debug_exit, dev);

	bus_remove(d->ports, &d->region);
	free(d);
}

struct device *debug_exit_create(struct bus *ports, uint16_t base,
				 void (*exited)(void *opaque, uint32_t value), void *opaque)
{
	static const struct device_ops ops = { "debug_exit", reset, destroy };
	static const struct io_ops port_ops = { port_read, port_write, 1, 4 };
	struct debug_exit *d = calloc(1, sizeof(*d));

	assert(d);
	d->dev.ops = &ops;
	d->ports = ports;
	d->exited = exited;
	d->opaque = opaque;
	d->region = (struct io_region){
		.name = "debug_exit",
		.base = base,
		.length = 4,
		.ops = &port_ops,
		.opaque = d,
	};
	bus_add(ports, &d->region);
	return &d->dev;
}
