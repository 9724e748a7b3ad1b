/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus: a list of regions, highest priority first.
 *
 * An access is served in parts. Each part is the longest that lies in one region (or in none), is naturally
 * aligned and as wide as the chip allows; the region is looked up again for every part, since the chip may
 * have moved windows in between. Some dozens of regions, and a look-up that is short against the exit that
 * led here: a list is enough, and adding to it cannot fail.
 */
#include "mem/bus.h"

#include <assert.h>
#include <stdlib.h>

struct bus {
	const char *name;
	struct io_region *regions;
	struct bus_ringer ringer;
	uint64_t lost_reads, lost_writes;
};

struct bus *bus_create(const char *name)
{
	struct bus *bus = calloc(1, sizeof(*bus));

	if (bus)
		bus->name = name;
	return bus;
}

void bus_destroy(struct bus *bus)
{
	free(bus);
}

void bus_set_ringer(struct bus *bus, const struct bus_ringer *ringer)
{
	bus->ringer = ringer ? *ringer : (struct bus_ringer){ 0 };
}

bool bus_has_ringer(const struct bus *bus)
{
	return bus->ringer.set;
}

static void set_doorbells(struct bus *bus, const struct io_region *region, bool on)
{
	for (unsigned k = 0; bus->ringer.set && k < region->doorbell_count; k++)
		bus->ringer.set(bus->ringer.opaque, region->base + region->doorbells[k].offset, region->doorbells[k].fd, on);
}

void bus_add(struct bus *bus, struct io_region *region)
{
	struct io_region **p = &bus->regions;

	assert(!region->mapped);
	assert(region->length && region->base + (region->length - 1) >= region->base);
	while (*p && (*p)->priority >= region->priority)
		p = &(*p)->next;
	region->next = *p;
	*p = region;
	region->mapped = true;
	set_doorbells(bus, region, true);
}

void bus_remove(struct bus *bus, struct io_region *region)
{
	struct io_region **p = &bus->regions;

	if (!region->mapped)
		return;
	while (*p != region) {
		assert(*p);
		p = &(*p)->next;
	}
	*p = region->next;
	region->next = NULL;
	region->mapped = false;
	set_doorbells(bus, region, false);
}

/*
 * Who answers @addr, and in *@extent, which comes in as the length asked for, for how many bytes from there
 * the answer holds.
 */
static struct io_region *find(struct bus *bus, uint64_t addr, unsigned *extent)
{
	for (struct io_region *r = bus->regions; r; r = r->next) {
		if (addr - r->base < r->length) {
			*extent = (unsigned)MIN(*extent, r->length - (addr - r->base));
			return r;
		}
		if (r->base - addr < *extent)
			*extent = (unsigned)(r->base - addr);
	}
	return NULL;
}

/* The widest naturally aligned access at @offset of at most @limit bytes and @max, a power of two. */
static unsigned part_width(uint64_t offset, unsigned limit, unsigned max)
{
	unsigned width = max;

	while (width > limit || offset & (width - 1))
		width >>= 1;
	return width;
}

static unsigned min_width(const struct io_region *r)
{
	return r->ops->min_width ? r->ops->min_width : 1;
}

static unsigned max_width(const struct io_region *r)
{
	return r->ops->max_width ? r->ops->max_width : 8;
}

/* One part of at most @limit bytes; returns how many it was. */
static unsigned read_part(struct io_region *r, uint64_t offset, unsigned limit, uint64_t *value)
{
	unsigned width = part_width(offset, limit, max_width(r)), min = min_width(r);
	unsigned skip = 0;

	if (width < min) {
		skip = (unsigned)(offset & (min - 1));
		*value = r->ops->read(r->opaque, offset - skip, min) >> 8 * skip;
	} else {
		*value = r->ops->read(r->opaque, offset, width);
	}
	*value &= size_mask(width);
	return width;
}

static unsigned write_part(struct io_region *r, uint64_t offset, unsigned limit, uint64_t value)
{
	unsigned width = part_width(offset, limit, max_width(r)), min = min_width(r);

	value &= size_mask(width);
	if (width < min) {
		unsigned skip = (unsigned)(offset & (min - 1));

		r->ops->write(r->opaque, offset - skip, value << 8 * skip, min);
	} else {
		r->ops->write(r->opaque, offset, value, width);
	}
	return width;
}

uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size)
{
	uint64_t result = 0;

	assert(size == 1 || size == 2 || size == 4 || size == 8);
	for (unsigned done = 0; done < size;) {
		unsigned width = size - done;
		struct io_region *r = find(bus, addr + done, &width);
		uint64_t value = size_mask(width);

		if (r) {
			r->reads++;
			width = read_part(r, addr + done - r->base, width, &value);
		} else {
			bus->lost_reads++;
		}
		result |= value << 8 * done;
		done += width;
	}
	return result;
}

void bus_write(struct bus *bus, uint64_t addr, uint64_t value, unsigned size)
{
	assert(size == 1 || size == 2 || size == 4 || size == 8);
	for (unsigned done = 0; done < size;) {
		unsigned width = size - done;
		struct io_region *r = find(bus, addr + done, &width);

		if (r) {
			r->writes++;
			width = write_part(r, addr + done - r->base, width, value >> 8 * done);
		} else {
			bus->lost_writes++;
		}
		done += width;
	}
}

void bus_statistics(struct bus *bus,
		    void (*each)(void *opaque, const char *name, uint64_t reads, uint64_t writes), void *opaque)
{
	for (const struct io_region *r = bus->regions; r; r = r->next)
		each(opaque, r->name, r->reads, r->writes);
	each(opaque, "nobody", bus->lost_reads, bus->lost_writes);
}
