// SPDX-License-Identifier: Apache-2.0
/*
 * Reading and writing the guest's data in a qcow2 image.
 *
 * A write first holds its range shared and writes in place. At the first cluster that has no place of
 * its own it takes the rest of its range exclusively, gives a run of clusters new places, writes the
 * data with what surrounds it, and only then enters the places into the L2 table: a failure or a crash
 * in between loses nothing that was there before.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2.h"

#define RUN_MAX_BYTES (16 * MiB)

/* --- Range locks, first come first served --- */

static bool must_wait(const struct qcow2 *q, const struct qcow2_range *r)
{
	for (const struct qcow2_range *o = q->ranges; o != r; o = o->next)
		if ((o->exclusive || r->exclusive) && o->first <= r->last && r->first <= o->last)
			return true;
	return false;
}

void qcow2_range_take(struct qcow2 *q, struct qcow2_range *r, uint64_t offset, uint64_t len,
		      bool exclusive)
{
	assert(len > 0);
	*r = (struct qcow2_range){ .first = offset >> q->cluster_bits,
				   .last = (offset + len - 1) >> q->cluster_bits,
				   .exclusive = exclusive };
	pthread_mutex_lock(&q->range_lock);
	*q->ranges_tail = r;
	q->ranges_tail = &r->next;
	while (must_wait(q, r))
		pthread_cond_wait(&q->range_freed, &q->range_lock);
	pthread_mutex_unlock(&q->range_lock);
}

void qcow2_range_drop(struct qcow2 *q, struct qcow2_range *r)
{
	struct qcow2_range **p = &q->ranges;

	pthread_mutex_lock(&q->range_lock);
	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	if (!r->next)
		q->ranges_tail = p;
	pthread_cond_broadcast(&q->range_freed);
	pthread_mutex_unlock(&q->range_lock);
}

/* --- Reading --- */

/* A stretch of guest bytes that is stored in one way and, if stored, contiguously. */
struct extent {
	struct qcow2_entry entry;
	uint64_t raw;
	uint64_t host; /* of the first byte, for QCOW2_KIND_DATA */
	uint64_t bytes;
};

/* `lock` held. */
static int map(struct qcow2 *q, uint64_t offset, uint64_t len, struct extent *out)
{
	uint64_t cluster = offset >> q->cluster_bits, in = offset & (q->cluster_bytes - 1);
	uint64_t per_table = 1ull << q->l2_bits, index = cluster & (per_table - 1);
	struct qcow2_table *t;
	struct qcow2_entry next;
	uint64_t n = 1;
	int r;

	r = qcow2_l2_get(q, cluster >> q->l2_bits, false, &t);
	if (r < 0)
		return r;
	if (!t) {
		out->entry = (struct qcow2_entry){ .kind = QCOW2_KIND_UNALLOCATED };
		out->bytes = MIN(len, ((per_table - index) << q->cluster_bits) - in);
		return 0;
	}
	out->raw = qcow2_l2_entry(t, index);
	if (!qcow2_decode(q, out->raw, &out->entry))
		return qcow2_corrupt(q, "the L2 entry of guest offset %llu is impossible",
				     (unsigned long long)offset);
	for (; out->entry.kind != QCOW2_KIND_COMPRESSED && index + n < per_table &&
	       (n << q->cluster_bits) - in < len;
	     n++) {
		if (!qcow2_decode(q, qcow2_l2_entry(t, index + n), &next) ||
		    next.kind != out->entry.kind || next.copied != out->entry.copied)
			break;
		if (next.kind == QCOW2_KIND_DATA &&
		    next.host != out->entry.host + (n << q->cluster_bits))
			break;
	}
	out->host = out->entry.host + in;
	out->bytes = MIN(len, (n << q->cluster_bits) - in);
	return 0;
}

static int read_backing(struct block_image *img, uint64_t offset, struct iov_cursor *cur,
			uint64_t len)
{
	uint64_t size = img->backing ? img->backing->size_bytes : 0;
	uint64_t there = offset < size ? MIN(len, size - offset) : 0;
	int r = 0;

	if (there)
		r = img->backing->driver->read(img->backing, offset, cur, there);
	if (r == 0)
		iov_cursor_zero(cur, len - there);
	return r;
}

/* The caller holds the range. */
static int read_held(struct block_image *img, uint64_t offset, struct iov_cursor *cur, uint64_t len)
{
	struct qcow2 *q = img->priv;

	while (len > 0) {
		struct extent x;
		int r;

		pthread_mutex_lock(&q->lock);
		r = map(q, offset, len, &x);
		pthread_mutex_unlock(&q->lock);
		if (r < 0)
			return r;
		switch (x.entry.kind) {
		case QCOW2_KIND_DATA:
			r = io_readv(img->fd, x.host, cur, x.bytes);
			break;
		case QCOW2_KIND_COMPRESSED:
			r = qcow2_unpack(q, &x.entry, x.raw, offset & (q->cluster_bytes - 1), cur,
					 x.bytes);
			break;
		case QCOW2_KIND_UNALLOCATED:
			r = read_backing(img, offset, cur, x.bytes);
			break;
		default:
			iov_cursor_zero(cur, x.bytes);
		}
		if (r < 0)
			return r;
		offset += x.bytes;
		len -= x.bytes;
	}
	return 0;
}

int qcow2_read(struct block_image *img, uint64_t offset, struct iov_cursor *cur, uint64_t len)
{
	struct qcow2 *q = img->priv;
	struct qcow2_range range;
	int r;

	if (img->readonly)
		return read_held(img, offset, cur, len); /* nothing moves */
	qcow2_range_take(q, &range, offset, len, false);
	r = read_held(img, offset, cur, len);
	qcow2_range_drop(q, &range);
	return r;
}

/* --- Writing --- */

/* Writes in place as far as it goes; *done may be 0. */
static int write_in_place(struct qcow2 *q, uint64_t offset, struct iov_cursor *cur, uint64_t len,
			  uint64_t *done)
{
	struct extent x;
	int r;

	*done = 0;
	pthread_mutex_lock(&q->lock);
	r = q->corrupt ? -EIO : map(q, offset, len, &x);
	if (r == 0) {
		uint64_t in = x.host & (q->cluster_bytes - 1);

		if (x.entry.kind != QCOW2_KIND_DATA || !x.entry.copied)
			x.bytes = 0;
		else if (qcow2_overlaps(q, x.host - in,
					(in + x.bytes + q->cluster_bytes - 1) >> q->cluster_bits))
			r = qcow2_corrupt(q, "guest offset %llu is stored over metadata",
					  (unsigned long long)offset);
	}
	pthread_mutex_unlock(&q->lock);
	if (r == 0 && x.bytes)
		r = io_writev(q->img->fd, x.host, cur, x.bytes);
	if (r == 0)
		*done = x.bytes;
	return r;
}

/* New places for the first clusters of a write. */
struct placement {
	uint64_t host;
	uint64_t clusters;
	bool reused; /* set aside before: nothing to release */
	bool fresh;  /* reads as zeroes */
};

/* `lock` held. The first cluster is known to have no data cluster of its own. */
static int place(struct qcow2 *q, uint64_t cluster, uint64_t want, struct placement *p)
{
	uint64_t per_table = 1ull << q->l2_bits, index = cluster & (per_table - 1), n;
	struct qcow2_entry first, e;
	struct qcow2_table *t;
	int r;

	*p = (struct placement){ 0 };
	r = qcow2_l2_get(q, cluster >> q->l2_bits, true, &t);
	if (r < 0)
		return r;
	want = MIN(want, per_table - index);
	if (!qcow2_decode(q, qcow2_l2_entry(t, index), &first))
		return qcow2_corrupt(q, "the L2 entry of guest cluster %llu is impossible",
				     (unsigned long long)cluster);
	p->reused = first.kind == QCOW2_KIND_ZERO_ALLOCATED && first.copied;
	for (n = 1; n < want; n++) {
		bool own;

		if (!qcow2_decode(q, qcow2_l2_entry(t, index + n), &e))
			break;
		own = e.copied && (e.kind == QCOW2_KIND_DATA || e.kind == QCOW2_KIND_ZERO_ALLOCATED);
		if (p->reused ? e.kind != QCOW2_KIND_ZERO_ALLOCATED || !e.copied ||
					e.host != first.host + (n << q->cluster_bits) :
				own)
			break;
	}
	if (!p->reused)
		return qcow2_alloc(q, n, &p->host, &p->clusters, &p->fresh);
	p->host = first.host;
	p->clusters = n;
	if (qcow2_overlaps(q, p->host, n))
		return qcow2_corrupt(q, "guest cluster %llu is stored over metadata",
				     (unsigned long long)cluster);
	return 0;
}

/* `lock` held. Enters the places into the L2 table and lets go of the old ones. */
static int enter(struct qcow2 *q, uint64_t cluster, const struct placement *p)
{
	uint64_t index = cluster & ((1ull << q->l2_bits) - 1);
	struct qcow2_table *t;
	int r = qcow2_l2_get(q, cluster >> q->l2_bits, true, &t);

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < p->clusters; i++) {
		uint64_t old = qcow2_l2_entry(t, index + i);
		struct qcow2_entry e;

		qcow2_l2_set(q, t, index + i,
			     (p->host + (i << q->cluster_bits)) | QCOW2_COPIED);
		if (!p->reused && qcow2_decode(q, old, &e))
			qcow2_release_entry(q, &e);
	}
	return 0;
}

/* Fills [offset, offset + len) of the guest's old content into its new place at @host. */
static int copy_old(struct qcow2 *q, uint64_t offset, uint64_t host, uint64_t len, bool fresh)
{
	struct iovec v = { malloc(len), len };
	struct iov_cursor cur = { &v, 1, 0 };
	int r;

	if (!v.iov_base)
		return -ENOMEM;
	r = read_held(q->img, offset, &cur, len);
	if (r == 0 && !(fresh && io_is_zero(v.iov_base, len)))
		r = io_write(q->img->fd, host, v.iov_base, len);
	free(v.iov_base);
	return r;
}

/* The range is held exclusively. Writes the first part, *done > 0 bytes, to new places. */
static int write_new(struct qcow2 *q, uint64_t offset, struct iov_cursor *cur, uint64_t len,
		     uint64_t *done)
{
	uint64_t cluster = offset >> q->cluster_bits, head = offset & (q->cluster_bytes - 1);
	uint64_t want = MIN(align_up(head + len, q->cluster_bytes), RUN_MAX_BYTES) >> q->cluster_bits;
	struct placement p;
	uint64_t tail, bytes;
	int r;

	pthread_mutex_lock(&q->lock);
	r = q->corrupt ? -EIO : place(q, cluster, want, &p);
	pthread_mutex_unlock(&q->lock);
	if (r < 0)
		return r;
	bytes = MIN(len, (p.clusters << q->cluster_bits) - head);
	tail = (p.clusters << q->cluster_bits) - head - bytes;

	r = io_writev(q->img->fd, p.host + head, cur, bytes);
	if (r == 0 && head)
		r = copy_old(q, offset - head, p.host, head, p.fresh);
	if (r == 0 && tail)
		r = copy_old(q, offset + bytes, p.host + head + bytes, tail, p.fresh);

	pthread_mutex_lock(&q->lock);
	if (r == 0)
		r = enter(q, cluster, &p);
	if (r < 0 && !p.reused)
		qcow2_unalloc(q, p.host, p.clusters);
	pthread_mutex_unlock(&q->lock);
	*done = bytes;
	return r;
}

int qcow2_write(struct block_image *img, uint64_t offset, struct iov_cursor *cur, uint64_t len)
{
	struct qcow2 *q = img->priv;
	struct qcow2_range range;
	bool exclusive = false;
	int r = 0;

	qcow2_range_take(q, &range, offset, len, false);
	while (len > 0 && r == 0) {
		uint64_t done;

		r = write_in_place(q, offset, cur, len, &done);
		if (r == 0 && done == 0 && !exclusive) {
			qcow2_range_drop(q, &range);
			qcow2_range_take(q, &range, offset, len, true);
			exclusive = true;
			continue; /* somebody else may have made the place meanwhile */
		}
		if (r == 0 && done == 0)
			r = write_new(q, offset, cur, len, &done);
		offset += done;
		len -= done;
	}
	qcow2_range_drop(q, &range);
	return r;
}
