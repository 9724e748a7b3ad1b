/* SPDX-License-Identifier: Apache-2.0 */
/* pvpanic: one byte. Reading tells which events are known, writing tells that they have happened. */
#include "dev/pvpanic.h"

#include <assert.h>
#include <stdlib.h>

#define EVENTS (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

struct pvpanic {
	struct device dev;
	struct bus *ports;
	void (*happened)(void *opaque, unsigned events);
	void *opaque;
	struct io_region region;
};

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	return EVENTS;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pvpanic *p = opaque;

	if (value & EVENTS)
		p->happened(p->opaque, value & EVENTS);
}

static void reset(struct device *dev)
{
}

static void destroy(struct device *dev)
{
	struct pvpanic *p = container_of(dev, struct pvpanic, dev);

	bus_remove(p->ports, &p->region);
	free(p);
}

struct device *pvpanic_create(struct bus *ports, uint16_t port, void (*happened)(void *opaque, unsigned events),
			      void *opaque)
{
	static const struct device_ops ops = { "pvpanic", reset, destroy };
	static const struct io_ops port_ops = { port_read, port_write, 1, 1 };
	struct pvpanic *p = calloc(1, sizeof(*p));

	assert(p);
	p->dev.ops = &ops;
	p->ports = ports;
	p->happened = happened;
	p->opaque = opaque;
	p->region = (struct io_region){ .name = "pvpanic", .base = port, .length = 1, .ops = &port_ops, .opaque = p };
	bus_add(ports, &p->region);
	return &p->dev;
}
