// SPDX-License-Identifier: Apache-2.0
/*
 * qcow2 refcounts: which clusters of the file are in use, handing out free ones, taking back others.
 *
 * A missing refcount block is made in the first cluster of the region that it counts: that cluster is
 * free, because nothing counts it, and so the new block counts itself. A refcount table that is full is
 * replaced by a larger one behind everything that the old one could count.
 *
 * Threading: the image's `lock`.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2.h"

#define RELEASED_MAX 65536u /* bounds memory; reaching it costs a writeback */

uint64_t qcow2_refcount_in(const struct qcow2 *q, const uint8_t *block, uint64_t index)
{
	unsigned order = q->header.refcount_order;

	switch (order) {
	case 3:
		return block[index];
	case 4:
		return be16toh(((const uint16_t *)block)[index]);
	case 5:
		return be32toh(((const uint32_t *)block)[index]);
	case 6:
		return be64toh(((const uint64_t *)block)[index]);
	default: { /* 1, 2 or 4 bits, from the low end of the byte */
		unsigned bit = (unsigned)(index << order) & 7;

		return block[index << order >> 3] >> bit & ((1u << (1u << order)) - 1);
	}
	}
}

void qcow2_refcount_put(const struct qcow2 *q, uint8_t *block, uint64_t index, uint64_t value)
{
	unsigned order = q->header.refcount_order;

	switch (order) {
	case 3:
		block[index] = (uint8_t)value;
		break;
	case 4:
		((uint16_t *)block)[index] = htobe16((uint16_t)value);
		break;
	case 5:
		((uint32_t *)block)[index] = htobe32((uint32_t)value);
		break;
	case 6:
		((uint64_t *)block)[index] = htobe64(value);
		break;
	default: {
		unsigned bit = (unsigned)(index << order) & 7;
		unsigned mask = (1u << (1u << order)) - 1;
		uint8_t *p = &block[index << order >> 3];

		*p = (uint8_t)((*p & ~(mask << bit)) | ((unsigned)value & mask) << bit);
	}
	}
}

/* The block that counts @cluster; *out is NULL when there is none: all its counts are 0. */
static int block_get(struct qcow2 *q, uint64_t cluster, struct qcow2_table **out)
{
	uint64_t i = cluster >> q->rb_bits, entry;

	*out = NULL;
	if (i >= q->rt.count)
		return 0;
	entry = q->rt.entry[i];
	if (entry == 0)
		return 0;
	if (entry & (q->cluster_bytes - 1) || entry >= q->file_end)
		return qcow2_corrupt(q, "refcount block %llu is misplaced", (unsigned long long)i);
	return qcow2_cache_get(q, &q->rb, entry, false, out);
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out)
{
	struct qcow2_table *t;
	int r = block_get(q, cluster, &t);

	*out = 0;
	if (r == 0 && t)
		*out = qcow2_refcount_in(q, t->data, cluster & ((1ull << q->rb_bits) - 1));
	return r;
}

static void put_in_table(struct qcow2 *q, struct qcow2_table *t, uint64_t cluster, uint64_t value)
{
	uint64_t index = cluster & ((1ull << q->rb_bits) - 1);
	uint32_t byte = (uint32_t)(index << q->header.refcount_order >> 3);
	uint32_t bytes = MAX(1u, 1u << q->header.refcount_order >> 3);

	qcow2_refcount_put(q, t->data, index, value);
	qcow2_cache_dirty(&q->rb, t, byte, byte + bytes);
}

/* The block must exist. */
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
	struct qcow2_table *t;
	int r = block_get(q, cluster, &t);

	if (r < 0)
		return r;
	if (!t)
		return qcow2_corrupt(q, "cluster %llu has no refcount block",
				     (unsigned long long)cluster);
	put_in_table(q, t, cluster, value);
	return 0;
}

/* Something is about to be written to @clusters at @offset, which count as free. */
static int claim(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
	uint64_t end;

	if (__builtin_add_overflow(offset, clusters << q->cluster_bits, &end) ||
	    end > QCOW2_OFFSET_MASK)
		return -ENOSPC;
	if (qcow2_overlaps(q, offset, clusters))
		return qcow2_corrupt(q, "metadata at offset %llu counts as free",
				     (unsigned long long)offset);
	q->file_end = MAX(q->file_end, end);
	return 0;
}

static int new_block(struct qcow2 *q, uint64_t i, struct qcow2_table **out)
{
	uint64_t cluster = i << q->rb_bits, offset = cluster << q->cluster_bits;
	bool was_there;
	int r = claim(q, offset, 1);

	if (r < 0)
		return r;
	if (!qcow2_set_add(&q->meta, offset, &was_there))
		return -ENOMEM;
	r = qcow2_cache_get(q, &q->rb, offset, true, out);
	if (r < 0) {
		qcow2_set_remove(&q->meta, offset);
		return r;
	}
	put_in_table(q, *out, cluster, 1);
	qcow2_bigtable_set(&q->rt, (uint32_t)i, offset);
	return 0;
}

/* Writes the new table's refcount blocks and the table itself, behind all that was counted so far. */
static int write_new_rt(struct qcow2 *q, struct qcow2_bigtable *t, uint64_t first, uint64_t blocks,
			uint64_t table_clusters)
{
	uint64_t per_block = 1ull << q->rb_bits, used = blocks + table_clusters;
	uint8_t *buf = malloc(q->cluster_bytes);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t b = 0; b < blocks && r == 0; b++) {
		uint64_t offset = (first + b) << q->cluster_bits;

		memset(buf, 0, q->cluster_bytes);
		for (uint64_t i = 0; i < per_block && b * per_block + i < used; i++)
			qcow2_refcount_put(q, buf, i, 1);
		qcow2_bigtable_set(t, (uint32_t)((first >> q->rb_bits) + b), offset);
		r = io_write(q->img->fd, offset, buf, q->cluster_bytes);
	}
	free(buf);
	for (uint32_t i = 0; i < t->count; i++) /* everything is written: the place may hold anything */
		qcow2_bigtable_set(t, i, t->entry[i]);
	return r < 0 ? r : qcow2_bigtable_write(q, t);
}

static int point_header_at_rt(struct qcow2 *q, uint64_t offset, uint32_t clusters)
{
	uint8_t field[12];
	uint64_t o = htobe64(offset);
	uint32_t n = htobe32(clusters);

	memcpy(field, &o, 8);
	memcpy(field + 8, &n, 4);
	return io_write(q->img->fd, QCOW2_HDR_RT_OFFSET, field, sizeof(field));
}

static int grow_rt(struct qcow2 *q)
{
	uint64_t max = QCOW2_MAX_REFTABLE_BYTES >> q->cluster_bits;
	uint64_t first = (uint64_t)q->rt.count << q->rb_bits; /* first cluster not counted so far */
	uint64_t per_block = 1ull << q->rb_bits, blocks = 1, clusters;
	uint64_t old_offset = q->rt.offset, old_clusters = q->header.rt_clusters;
	struct qcow2_bigtable t = { 0 };
	bool was_there;
	int r;

	clusters = MIN(max, MAX(old_clusters, 1u) * 2);
	if (clusters <= old_clusters)
		return -ENOSPC;
	while ((blocks + clusters + per_block - 1) / per_block > blocks)
		blocks = (blocks + clusters + per_block - 1) / per_block;
	if (((first >> q->rb_bits) + blocks) * 8 > clusters << q->cluster_bits)
		return -ENOSPC;
	r = claim(q, first << q->cluster_bits, blocks + clusters);
	if (r < 0)
		return r;
	/* The new table takes over the old one's pointers: what they point to has to be there. */
	r = qcow2_cache_write(q, &q->rb);
	if (r < 0)
		return r;
	t.offset = (first + blocks) << q->cluster_bits;
	t.count = (uint32_t)(clusters << q->cluster_bits >> 3);
	t.entry = calloc(t.count, sizeof(uint64_t));
	t.dirty = calloc(t.count / QCOW2_BLOCK_ENTRIES / 64 + 1, sizeof(uint64_t));
	r = t.entry && t.dirty ? 0 : -ENOMEM;
	if (r == 0) {
		memcpy(t.entry, q->rt.entry, q->rt.count * 8ull);
		r = write_new_rt(q, &t, first, blocks, clusters);
	}
	for (uint64_t b = 0; b < blocks && r == 0; b++)
		if (!qcow2_set_add(&q->meta, (first + b) << q->cluster_bits, &was_there))
			r = -ENOMEM;
	if (r == 0)
		r = qcow2_sync(q);
	if (r == 0)
		r = point_header_at_rt(q, t.offset, (uint32_t)clusters);
	if (r < 0) {
		for (uint64_t b = 0; b < blocks; b++)
			qcow2_set_remove(&q->meta, (first + b) << q->cluster_bits);
		qcow2_bigtable_finish(&t);
		return r;
	}
	qcow2_bigtable_finish(&q->rt);
	q->rt = t;
	q->header.rt_clusters = (uint32_t)clusters;
	/* Counted down after the next writeback, which begins by making the header's change stable. */
	if (old_clusters)
		qcow2_release(q, old_offset, old_clusters);
	return 0;
}

int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *offset, uint64_t *got, bool *fresh)
{
	uint64_t mask = (1ull << q->rb_bits) - 1, cluster = q->free_hint, n = 0, end;
	struct qcow2_table *t;
	int r;

	for (;;) { /* the next free cluster */
		uint64_t i = cluster >> q->rb_bits;

		if (i >= q->rt.count) {
			r = grow_rt(q);
			if (r < 0)
				return r;
			continue;
		}
		r = block_get(q, cluster, &t);
		if (r == 0 && !t) {
			r = new_block(q, i, &t);
			cluster = (i << q->rb_bits) + 1;
		}
		if (r < 0)
			return r;
		while ((cluster >> q->rb_bits) == i &&
		       qcow2_refcount_in(q, t->data, cluster & mask) != 0)
			cluster++;
		if ((cluster >> q->rb_bits) == i)
			break;
	}
	/* A run of them, within one refcount block. */
	while (n < want && ((cluster + n) >> q->rb_bits) == (cluster >> q->rb_bits) &&
	       qcow2_refcount_in(q, t->data, (cluster + n) & mask) == 0)
		n++;
	end = q->file_end;
	r = claim(q, cluster << q->cluster_bits, n);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++)
		put_in_table(q, t, cluster + i, 1);
	q->free_hint = cluster + n;
	*offset = cluster << q->cluster_bits;
	*got = n;
	*fresh = *offset >= end && !q->is_device;
	return 0;
}

void qcow2_unalloc(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
	uint64_t first = offset >> q->cluster_bits;

	/* A failure here loses the space until the image is checked, nothing else. */
	for (uint64_t i = 0; i < clusters; i++)
		if (qcow2_refcount_set(q, first + i, 0) < 0)
			return;
	q->free_hint = MIN(q->free_hint, first);
}

void qcow2_release(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
	struct qcow2_run *last = q->released_count ? &q->released[q->released_count - 1] : NULL;

	if (last && last->offset + (last->clusters << q->cluster_bits) == offset) {
		last->clusters += clusters;
		return;
	}
	if (!q->released)
		q->released = calloc(RELEASED_MAX, sizeof(*q->released));
	/* Without memory, or when the disk takes nothing more, the space is lost until a check. */
	if (!q->released || (q->released_count == RELEASED_MAX && qcow2_writeback(q) < 0))
		return;
	q->released[q->released_count++] = (struct qcow2_run){ offset, clusters };
}

/* No table on disk refers to the released clusters any more: count them down. */
void qcow2_apply_released(struct qcow2 *q)
{
	for (unsigned i = 0; i < q->released_count; i++) {
		uint64_t first = q->released[i].offset >> q->cluster_bits;
		uint64_t freed = 0, n = q->released[i].clusters;

		for (uint64_t k = 0; k <= n; k++) {
			uint64_t count = 0;
			int r = k < n ? qcow2_refcount_get(q, first + k, &count) : 0;

			if (r == 0 && k < n && count == 0)
				r = qcow2_corrupt(q, "cluster %llu is in use and counts as free",
						  (unsigned long long)(first + k));
			/* A hostile image: a guest cluster that was in one of the tables. */
			if (r == 0 && count == 1 && qcow2_overlaps(q, (first + k) << q->cluster_bits, 1))
				r = qcow2_corrupt(q, "metadata at cluster %llu was given back",
						  (unsigned long long)(first + k));
			if (r == 0 && count > 0)
				r = qcow2_refcount_set(q, first + k, count - 1);
			if (r == 0 && count == 1) {
				freed++;
				continue;
			}
			/* The end of a run of clusters that became free: give the space back. */
			if (freed) {
				uint64_t from = first + k - freed;

				io_punch(q->img->fd, from << q->cluster_bits,
					 freed << q->cluster_bits);
				q->free_hint = MIN(q->free_hint, from);
				freed = 0;
			}
		}
	}
	q->released_count = 0;
}
