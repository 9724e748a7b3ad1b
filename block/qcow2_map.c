// SPDX-License-Identifier: Apache-2.0
/*
 * qcow2 mapping: the meaning of an L2 entry, and finding or making the L2 table that holds it.
 *
 * A table that a snapshot shares (no COPIED flag) is never written: it is first moved to a cluster of
 * its own. The guest clusters it maps need no new counts for that, for a snapshot counts each of them.
 *
 * Threading: the image's `lock`.
 */
#include <errno.h>

#include "block/qcow2.h"

bool qcow2_decode(const struct qcow2 *q, uint64_t raw, struct qcow2_entry *e)
{
	*e = (struct qcow2_entry){ .kind = QCOW2_KIND_UNALLOCATED };
	if (raw & QCOW2_COMPRESSED) {
		/* Bits 0..x-1 offset, x..61 count of further sectors; x = 62 - (cluster_bits - 8). */
		unsigned x = 62 - (q->cluster_bits - 8);
		uint64_t sectors = bits(raw, x, 61) + 1;

		e->kind = QCOW2_KIND_COMPRESSED;
		e->host = bits(raw, 0, x - 1);
		e->packed_bytes = (uint32_t)(sectors * 512 - e->host % 512);
		return !(raw & QCOW2_COPIED) && e->host >= q->cluster_bytes &&
		       e->host < q->file_end;
	}
	e->host = raw & QCOW2_OFFSET_MASK;
	e->copied = raw & QCOW2_COPIED;
	if (raw & QCOW2_L2_RESERVED || e->host & (q->cluster_bytes - 1) || e->host >= q->file_end)
		return false;
	if (raw & QCOW2_ZERO) {
		e->kind = e->host ? QCOW2_KIND_ZERO_ALLOCATED : QCOW2_KIND_ZERO;
		return q->header.version >= 3;
	}
	if (e->host)
		e->kind = QCOW2_KIND_DATA;
	return true;
}

void qcow2_l2_set(struct qcow2 *q, struct qcow2_table *t, uint64_t index, uint64_t raw)
{
	((uint64_t *)t->data)[index] = htobe64(raw);
	qcow2_cache_dirty(&q->l2, t, (uint32_t)index * 8, (uint32_t)index * 8 + 8);
}

/* A new table at @l1_index, with the content of @old if that is not NULL. */
static int make_table(struct qcow2 *q, uint64_t l1_index, uint64_t old_offset,
		      struct qcow2_table **out)
{
	struct qcow2_table *t;
	uint64_t offset, got;
	bool fresh, was_there;
	int r;

	r = qcow2_alloc(q, 1, &offset, &got, &fresh);
	if (r < 0)
		return r;
	if (!qcow2_set_add(&q->meta, offset, &was_there)) {
		qcow2_unalloc(q, offset, 1);
		return -ENOMEM;
	}
	/* The allocation may have written back, and so dropped, anything: the old table is read now. */
	r = qcow2_cache_get(q, &q->l2, old_offset ? old_offset : offset, old_offset == 0, &t);
	if (r < 0) {
		qcow2_set_remove(&q->meta, offset);
		qcow2_unalloc(q, offset, 1);
		return r;
	}
	if (old_offset) {
		qcow2_cache_move(&q->l2, t, offset);
		qcow2_cache_dirty(&q->l2, t, 0, (uint32_t)q->cluster_bytes);
	}
	qcow2_bigtable_set(&q->l1, (uint32_t)l1_index, offset | QCOW2_COPIED);
	if (old_offset) {
		qcow2_set_remove(&q->meta, old_offset);
		qcow2_release(q, old_offset, 1);
	}
	*out = t;
	return 0;
}

int qcow2_l2_get(struct qcow2 *q, uint64_t l1_index, bool write, struct qcow2_table **out)
{
	uint64_t entry, offset;

	*out = NULL;
	if (l1_index >= q->l1.count)
		return -EIO;
	entry = q->l1.entry[l1_index];
	offset = entry & QCOW2_OFFSET_MASK;
	if (entry & QCOW2_L1_RESERVED || offset & (q->cluster_bytes - 1) || offset >= q->file_end)
		return qcow2_corrupt(q, "L1 entry %llu is impossible", (unsigned long long)l1_index);
	if (write && (offset == 0 || !(entry & QCOW2_COPIED)))
		return make_table(q, l1_index, offset, out);
	return offset ? qcow2_cache_get(q, &q->l2, offset, false, out) : 0;
}

void qcow2_release_entry(struct qcow2 *q, const struct qcow2_entry *e)
{
	uint64_t first, last;

	switch (e->kind) {
	case QCOW2_KIND_DATA:
	case QCOW2_KIND_ZERO_ALLOCATED:
		qcow2_release(q, e->host, 1);
		break;
	case QCOW2_KIND_COMPRESSED:
		first = align_down(e->host, q->cluster_bytes);
		last = align_down(e->host + e->packed_bytes - 1, q->cluster_bytes);
		qcow2_release(q, first, ((last - first) >> q->cluster_bits) + 1);
		break;
	default:
		break;
	}
}
