/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus: which chip answers an address. One bus for I/O ports, one for memory-mapped I/O.
 *
 * A chip describes each window it answers with a struct io_region; the bus finds it, splits and aligns
 * accesses to the widths the chip allows, and answers unclaimed reads with all ones. Regions
 * should overlap unless priorities differ: the higher priority wins. A guest can place PCI windows where it
 * likes; at equal priority the region that was added first wins.
 *
 * Chips see naturally aligned accesses only. What a chip does in read or write may add and remove regions,
 * its own included.
 *
 * Threading: every call is made with the machine's lock (the loop's) held, and so runs every chip.
 */
#ifndef MEM_BUS_H
#define MEM_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct io_ops {
	/* @offset is relative to the region; @size is 1, 2, 4 or 8 and within min_width..max_width. */
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
	/*
	 * The widths the chip itself understands; 0 means 1 and 8. Wider accesses are split, low part first.
	 * Narrower reads are cut out of one wider read; narrower writes are passed on as they are widened
	 * with zeroes only if the chip sets min_width, so leave it 0 where a byte write has a meaning.
	 */
	uint8_t min_width, max_width;
};

/*
 * A doorbell: a write at @offset of its region, of any width and value, only says "look". So it may come as a signal on @fd, an eventfd,
 * instead of a call, later, and several as one.
 */
struct io_doorbell {
	uint64_t offset;
	int fd;
};

struct io_region {
	const char *name;
	uint64_t base, length; /* length > 0; base + length does not wrap */
	int priority;	       /* 0 for ordinary chips */
	const struct io_ops *ops;
	void *opaque;
	const struct io_doorbell *doorbells; /* not changed while it is mapped */
	unsigned doorbell_count;
	bool mapped; /* set by the bus */
	uint64_t reads, writes; /* counted by the bus */
	struct io_region *next; /* private */
};

struct bus;

struct bus *bus_create(const char *name);
void bus_destroy(struct bus *bus); /* NULL-safe; does not free regions */

/*
 * Who can make signals of writes to doorbells, before they come here: told of each when its region is mapped and when it goes.
 * What it cannot take comes as a call. Set before a region with doorbells is made; NULL: nobody can.
 */
struct bus_ringer {
	void (*set)(void *opaque, uint64_t addr, int fd, bool on);
	void *opaque;
};
void bus_set_ringer(struct bus *bus, const struct bus_ringer *ringer); /* copied */
bool bus_has_ringer(const struct bus *bus);

/* The region belongs to the caller and stays in place until bus_remove. */
void bus_add(struct bus *bus, struct io_region *region);
void bus_remove(struct bus *bus, struct io_region *region); /* harmless when not mapped */

/* @size 1, 2, 4 or 8; any alignment. Unclaimed bytes read as all ones; writes to them go nowhere. */
uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size);
void bus_write(struct bus *bus, uint64_t addr, uint64_t value, unsigned size);

/* Accesses that each mapped region has answered, and last those that nobody has. A split one counts once a part. */
void bus_statistics(struct bus *bus,
		    void (*each)(void *opaque, const char *name, uint64_t reads, uint64_t writes), void *opaque);

#endif
