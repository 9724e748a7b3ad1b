// SPDX-License-Identifier: Apache-2.0
/* The memory map that a guest is told, and finding room in it. See memmap.h. */
#include "machine/memmap.h"

#include <assert.h>

#include "base/util.h"
#include "machine/layout.h"

static void add(struct memmap *map, uint64_t base, uint64_t end, enum memmap_type type)
{
	if (base >= end)
		return;
	assert(map->count < MEMMAP_MAX);
	map->entry[map->count++] = (struct memmap_entry){ base, end - base, type };
}

void memmap_build(struct memmap *map, const struct memory *mem)
{
	map->count = 0;
	add(map, 0, LAYOUT_LOW_RAM_END, MEMMAP_RAM);
	add(map, LAYOUT_EBDA, LAYOUT_VGA_HOLE, MEMMAP_RESERVED);
	add(map, LAYOUT_TABLES, LAYOUT_TABLES_END, MEMMAP_RESERVED);
	add(map, LAYOUT_TABLES_END, mem->low_bytes, MEMMAP_RAM);
	add(map, LAYOUT_ECAM, LAYOUT_ECAM + (uint64_t)LAYOUT_ECAM_BYTES, MEMMAP_RESERVED);
	add(map, LAYOUT_IOAPIC, LAYOUT_IOAPIC + 0x1000, MEMMAP_RESERVED);
	add(map, LAYOUT_HPET, LAYOUT_HPET + 0x1000, MEMMAP_RESERVED);
	add(map, LAYOUT_LAPIC, LAYOUT_LAPIC + 0x1000, MEMMAP_RESERVED);
	add(map, MEM_HIGH_BASE, MEM_HIGH_BASE + mem->high_bytes, MEMMAP_RAM);
}

bool memmap_is_usable(const struct memmap *map, uint64_t base, uint64_t length)
{
	uint64_t end;

	if (__builtin_add_overflow(base, length, &end))
		return false;
	for (unsigned i = 0; i < map->count; i++) {
		const struct memmap_entry *e = &map->entry[i];

		if (e->type == MEMMAP_RAM && base >= e->base && end <= e->base + e->length)
			return true;
	}
	return false;
}

void placement_init(struct placement *p, const struct memmap *map)
{
	p->map = map;
	p->count = 0;
}

bool placement_mark(struct placement *p, uint64_t base, uint64_t length)
{
	if (!length)
		return true;
	if (p->count == PLACEMENT_MAX || !memmap_is_usable(p->map, base, length))
		return false;
	p->used[p->count].base = base;
	p->used[p->count].end = base + length;
	p->count++;
	return true;
}

/* The highest start in [low, high) for @length bytes that meets no used range. */
static bool find_in(const struct placement *p, uint64_t low, uint64_t high, uint64_t length,
		    uint64_t align, uint64_t *base)
{
	while (high >= low && high - low >= length) {
		uint64_t start = align_down(high - length, align);
		bool moved = false;

		if (start < low)
			return false;
		for (unsigned i = 0; i < p->count; i++) {
			if (p->used[i].base < start + length && p->used[i].end > start) {
				high = p->used[i].base;
				moved = true;
				break;
			}
		}
		if (!moved) {
			*base = start;
			return true;
		}
	}
	return false;
}

bool placement_find(struct placement *p, uint64_t length, uint64_t align, uint64_t min,
		    uint64_t max_end, uint64_t *base)
{
	for (unsigned i = p->map->count; i-- > 0;) {
		const struct memmap_entry *e = &p->map->entry[i];
		uint64_t low = MAX(e->base, min), high = MIN(e->base + e->length, max_end);

		if (e->type == MEMMAP_RAM && low < high &&
		    find_in(p, low, high, MAX(length, 1), align, base))
			return placement_mark(p, *base, length);
	}
	return false;
}

bool memmap_zero(struct memory *mem, uint64_t gpa, uint64_t length)
{
	static const uint8_t zeroes[65536];

	while (length) {
		uint64_t n = MIN(length, sizeof(zeroes));

		if (!mem_write(mem, gpa, zeroes, n))
			return false;
		gpa += n;
		length -= n;
	}
	return true;
}
