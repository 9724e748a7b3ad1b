/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory map that a guest is told (its numbers are those of BIOS call E820), and finding room in it
 * for what a loader places.
 */
#ifndef MACHINE_MEMMAP_H
#define MACHINE_MEMMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "mem/memory.h"

enum memmap_type { MEMMAP_RAM = 1, MEMMAP_RESERVED = 2 };

#define MEMMAP_MAX 16
struct memmap {
	unsigned count;
	struct memmap_entry {
		uint64_t base, length;
		enum memmap_type type;
	} entry[MEMMAP_MAX]; /* ascending, without overlaps */
};

void memmap_build(struct memmap *map, const struct memory *mem);

/* Is all of [base, base + length) in one piece of usable RAM? */
bool memmap_is_usable(const struct memmap *map, uint64_t base, uint64_t length);

/* Ranges that a loader has given away. */
#define PLACEMENT_MAX 96
struct placement {
	const struct memmap *map;
	unsigned count;
	struct {
		uint64_t base, end;
	} used[PLACEMENT_MAX];
};

void placement_init(struct placement *p, const struct memmap *map);

/* Marks a range as used. False when it is not usable RAM, or there are too many. */
bool placement_mark(struct placement *p, uint64_t base, uint64_t length) MUST_CHECK;

/*
 * Finds the highest free place of @length bytes within usable RAM that starts at a multiple of @align (a
 * power of two), not below @min and ends at or below @max_end, and marks it. False when there is none.
 */
bool placement_find(struct placement *p, uint64_t length, uint64_t align, uint64_t min,
		    uint64_t max_end, uint64_t *base) MUST_CHECK;

/* Writes zeroes; false unless all of it is RAM. */
bool memmap_zero(struct memory *mem, uint64_t gpa, uint64_t length) MUST_CHECK;

#endif
