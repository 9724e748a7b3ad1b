// SPDX-License-Identifier: Apache-2.0
/*
 * qcow2 tables in memory: the two that are held as a whole, the caches of L2 tables and refcount blocks,
 * and the set of offsets at which metadata lies. See qcow2.h for the order in which they reach the disk.
 * Threading: the image's `lock`.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2.h"

/* --- Tables held as a whole --- */

struct error *qcow2_bigtable_read(struct qcow2 *q, struct qcow2_bigtable *t, uint64_t offset,
				  uint32_t count, const char *what)
{
	uint32_t blocks = (count + QCOW2_BLOCK_ENTRIES - 1) / QCOW2_BLOCK_ENTRIES;
	uint32_t padded = blocks * QCOW2_BLOCK_ENTRIES;
	int r;

	*t = (struct qcow2_bigtable){ .offset = offset, .count = count };
	t->entry = calloc(MAX(padded, 1u), sizeof(uint64_t));
	t->dirty = calloc(blocks / 64 + 1, sizeof(uint64_t));
	if (!t->entry || !t->dirty) {
		qcow2_bigtable_finish(t);
		return error_new("out of memory reading the %s of disk '%s'", what, q->img->name);
	}
	r = io_read(q->img->fd, offset, t->entry, (size_t)count * 8);
	if (r < 0) {
		qcow2_bigtable_finish(t);
		return error_errno(-r, "cannot read the %s of disk '%s'", what, q->img->name);
	}
	for (uint32_t i = 0; i < count; i++)
		t->entry[i] = be64toh(t->entry[i]);
	return NULL;
}

void qcow2_bigtable_set(struct qcow2_bigtable *t, uint32_t index, uint64_t value)
{
	uint32_t block = index / QCOW2_BLOCK_ENTRIES;

	assert(index < t->count);
	t->entry[index] = value;
	if (!(t->dirty[block / 64] >> block % 64 & 1)) {
		t->dirty[block / 64] |= 1ull << block % 64;
		t->dirty_blocks++;
	}
}

int qcow2_bigtable_write(struct qcow2 *q, struct qcow2_bigtable *t)
{
	uint32_t blocks = (t->count + QCOW2_BLOCK_ENTRIES - 1) / QCOW2_BLOCK_ENTRIES;

	for (uint32_t b = 0; b < blocks && t->dirty_blocks > 0; b++) {
		uint64_t disk[QCOW2_BLOCK_ENTRIES];
		uint32_t first = b * QCOW2_BLOCK_ENTRIES;
		uint32_t n = MIN(QCOW2_BLOCK_ENTRIES, t->count - first);
		int r;

		if (!(t->dirty[b / 64] >> b % 64 & 1))
			continue;
		for (uint32_t i = 0; i < n; i++)
			disk[i] = htobe64(t->entry[first + i]);
		r = io_write(q->img->fd, t->offset + first * 8ull, disk, n * 8);
		if (r < 0)
			return r;
		t->dirty[b / 64] &= ~(1ull << b % 64);
		t->dirty_blocks--;
	}
	return 0;
}

void qcow2_bigtable_finish(struct qcow2_bigtable *t)
{
	free(t->entry);
	free(t->dirty);
	*t = (struct qcow2_bigtable){ 0 };
}

/* --- Caches --- */

static unsigned cache_hash(const struct qcow2_cache *c, uint64_t offset)
{
	return (unsigned)((offset >> QCOW2_MIN_CLUSTER_BITS) * 0x9e3779b97f4a7c15ull >> 32) &
	       c->hash_mask;
}

bool qcow2_cache_init(struct qcow2_cache *c, unsigned count)
{
	unsigned buckets = 1;

	while (buckets < count)
		buckets *= 2;
	*c = (struct qcow2_cache){ .count = count, .hash_mask = buckets - 1 };
	c->table = calloc(count, sizeof(*c->table));
	c->hash = calloc(buckets, sizeof(*c->hash));
	return c->table && c->hash;
}

void qcow2_cache_finish(struct qcow2_cache *c)
{
	for (unsigned i = 0; i < c->used; i++)
		free(c->table[i].data);
	free(c->table);
	free(c->hash);
	*c = (struct qcow2_cache){ 0 };
}

static void lru_unlink(struct qcow2_cache *c, struct qcow2_table *t)
{
	*(t->newer ? &t->newer->older : &c->newest) = t->older;
	*(t->older ? &t->older->newer : &c->oldest) = t->newer;
}

static void lru_link_newest(struct qcow2_cache *c, struct qcow2_table *t)
{
	t->newer = NULL;
	t->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = t;
	c->newest = t;
}

static void hash_link(struct qcow2_cache *c, struct qcow2_table *t, uint64_t offset)
{
	struct qcow2_table **bucket = &c->hash[cache_hash(c, offset)];

	t->offset = offset;
	t->hash_next = *bucket;
	*bucket = t;
}

static void hash_unlink(struct qcow2_cache *c, struct qcow2_table *t)
{
	struct qcow2_table **p = &c->hash[cache_hash(c, t->offset)];

	if (t->offset == 0)
		return;
	while (*p != t)
		p = &(*p)->hash_next;
	*p = t->hash_next;
	t->offset = 0;
}

/* A table to be filled: unlinked from the hash, clean, newest in the list. */
static int cache_take(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_table **out)
{
	struct qcow2_table *t;

	if (c->used < c->count) {
		t = &c->table[c->used];
		t->data = malloc(q->cluster_bytes);
		if (t->data) {
			c->used++;
			lru_link_newest(c, t);
			*out = t;
			return 0;
		}
		if (c->used == 0)
			return -ENOMEM; /* otherwise make do with those that are there */
	}
	t = c->oldest;
	if (t->dirty_from < t->dirty_to) {
		/* Counts may go to the disk at any time; L2 tables only in their turn. */
		int r = c == &q->rb ? qcow2_cache_write(q, c) : qcow2_writeback(q);

		if (r < 0)
			return r;
	}
	assert(t->dirty_from == t->dirty_to);
	hash_unlink(c, t);
	lru_unlink(c, t);
	lru_link_newest(c, t);
	*out = t;
	return 0;
}

int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t offset, bool fresh,
		    struct qcow2_table **out)
{
	struct qcow2_table *t;
	int r;

	assert(offset != 0);
	for (t = c->hash[cache_hash(c, offset)]; t; t = t->hash_next)
		if (t->offset == offset)
			break;
	if (t) {
		lru_unlink(c, t);
		lru_link_newest(c, t);
	} else {
		r = cache_take(q, c, &t);
		if (r < 0)
			return r;
		if (!fresh) {
			r = io_read(q->img->fd, offset, t->data, q->cluster_bytes);
			if (r < 0)
				return r;
		}
		hash_link(c, t, offset);
	}
	if (fresh) {
		memset(t->data, 0, q->cluster_bytes);
		qcow2_cache_dirty(c, t, 0, (uint32_t)q->cluster_bytes);
	}
	*out = t;
	return 0;
}

void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_table *t, uint32_t from, uint32_t to)
{
	if (t->dirty_from == t->dirty_to) {
		c->dirty++;
		t->dirty_from = from;
		t->dirty_to = to;
	} else {
		t->dirty_from = MIN(t->dirty_from, from);
		t->dirty_to = MAX(t->dirty_to, to);
	}
}

/* The table's content is to be at another place from now on. */
void qcow2_cache_move(struct qcow2_cache *c, struct qcow2_table *t, uint64_t offset)
{
	hash_unlink(c, t);
	hash_link(c, t, offset);
}

int qcow2_cache_write(struct qcow2 *q, struct qcow2_cache *c)
{
	for (unsigned i = 0; i < c->used && c->dirty > 0; i++) {
		struct qcow2_table *t = &c->table[i];
		int r;

		if (t->dirty_from == t->dirty_to)
			continue;
		/* Whole sectors: what is torn by a power cut is then a sector and not an entry. */
		t->dirty_from = (uint32_t)align_down(t->dirty_from, BLOCK_SECTOR);
		t->dirty_to = (uint32_t)align_up(t->dirty_to, BLOCK_SECTOR);
		r = io_write(q->img->fd, t->offset + t->dirty_from, t->data + t->dirty_from,
			     t->dirty_to - t->dirty_from);
		if (r < 0)
			return r;
		t->dirty_from = t->dirty_to = 0;
		c->dirty--;
	}
	return 0;
}

/* --- The set of metadata offsets: open addressing; 0 is empty, 1 was deleted --- */

#define SLOT_DELETED 1u

bool qcow2_set_init(struct qcow2_set *s)
{
	*s = (struct qcow2_set){ .mask = 63 };
	s->slot = calloc(s->mask + 1, sizeof(*s->slot));
	return s->slot != NULL;
}

static uint64_t set_hash(const struct qcow2_set *s, uint64_t offset)
{
	return ((offset >> QCOW2_MIN_CLUSTER_BITS) * 0x9e3779b97f4a7c15ull >> 24) & s->mask;
}

static bool set_grow(struct qcow2_set *s)
{
	struct qcow2_set bigger = { .mask = 63 };

	while (bigger.mask + 1 < s->live * 4)
		bigger.mask = bigger.mask * 2 + 1;
	bigger.slot = calloc(bigger.mask + 1, sizeof(*bigger.slot));
	if (!bigger.slot)
		return false;
	for (uint64_t i = 0; i <= s->mask; i++) {
		uint64_t h;

		if (s->slot[i] <= SLOT_DELETED)
			continue;
		for (h = set_hash(&bigger, s->slot[i]); bigger.slot[h]; h = (h + 1) & bigger.mask)
			;
		bigger.slot[h] = s->slot[i];
	}
	bigger.used = bigger.live = s->live;
	free(s->slot);
	*s = bigger;
	return true;
}

bool qcow2_set_has(const struct qcow2_set *s, uint64_t offset)
{
	for (uint64_t h = set_hash(s, offset); s->slot[h]; h = (h + 1) & s->mask)
		if (s->slot[h] == offset)
			return true;
	return false;
}

bool qcow2_set_add(struct qcow2_set *s, uint64_t offset, bool *was_there)
{
	uint64_t h;

	assert(offset > SLOT_DELETED);
	*was_there = qcow2_set_has(s, offset);
	if (*was_there)
		return true;
	if ((s->used + 1) * 4 > (s->mask + 1) * 3 && !set_grow(s))
		return false;
	for (h = set_hash(s, offset); s->slot[h]; h = (h + 1) & s->mask)
		;
	s->slot[h] = offset;
	s->used++;
	s->live++;
	return true;
}

void qcow2_set_remove(struct qcow2_set *s, uint64_t offset)
{
	for (uint64_t h = set_hash(s, offset); s->slot[h]; h = (h + 1) & s->mask) {
		if (s->slot[h] == offset) {
			s->slot[h] = SLOT_DELETED;
			s->live--;
			return;
		}
	}
}
