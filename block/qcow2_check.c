// SPDX-License-Identifier: Apache-2.0
/*
 * qcow2: counting all references to each cluster and holding the sums against the refcounts.
 *
 * A count above the references is a leak: space that nobody uses (persistent bitmaps, which are not
 * followed here, show up as such). A count below them is an error: the cluster could be given away while
 * in use. Repairing raises such counts and touches nothing else.
 *
 * The file is gone through in windows of WINDOW clusters, so that memory stays bounded however large the
 * file claims to be; the tables are read again for each window. Nobody else uses the image meanwhile.
 *
 * Snapshots share tables, which are read for each of them; a hostile image has thousands that share one of millions of
 * entries. What is read of tables in all is bounded by what is plausible for a file of this size.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/qcow2.h"

#define WINDOW (4u * 1024 * 1024)
#define WINDOWS_MAX 1024u
#define TABLE_BYTES_MIN GiB
#define TABLE_BYTES_MAX (16 * GiB) /* a hundred snapshots of 1 TiB have less */

struct walk {
	struct qcow2 *q;
	struct qcow2_check *c;
	uint64_t first, clusters; /* the window */
	uint32_t *count;
	bool first_pass; /* complain in the first one only */
	uint64_t table_bytes; /* that may still be read */
	uint8_t *buf;	 /* an L2 table */
};

static void complain(struct walk *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void complain(struct walk *w, const char *fmt, ...)
{
	va_list ap;

	if (w->c->errors++ > 0)
		return;
	va_start(ap, fmt);
	vsnprintf(w->c->first_error, sizeof(w->c->first_error), fmt, ap);
	va_end(ap);
}

/* Somebody refers to all clusters that [offset, offset + bytes) touches. */
static void refer(struct walk *w, uint64_t offset, uint64_t bytes)
{
	struct qcow2 *q = w->q;
	uint64_t first = offset >> q->cluster_bits, last;

	if (bytes == 0)
		return;
	last = (offset + bytes - 1) >> q->cluster_bits;
	for (uint64_t i = MAX(first, w->first); i <= last && i < w->first + w->clusters; i++)
		if (w->count[i - w->first] < UINT32_MAX)
			w->count[i - w->first]++;
}

/* Before @bytes of tables are read. */
static struct error *spend(struct walk *w, uint64_t bytes)
{
	if (bytes > w->table_bytes)
		return error_new("disk '%s' has too many tables to be checked here; use 'qemu-img check'", w->q->img->name);
	w->table_bytes -= bytes;
	return NULL;
}

static void check_copied(struct walk *w, uint64_t host, bool copied, const char *what)
{
	uint64_t count;

	if (qcow2_refcount_get(w->q, host >> w->q->cluster_bits, &count) < 0)
		return; /* the block is broken: complained about where it is walked */
	if (copied != (count == 1))
		complain(w, "the %s at offset %llu %s", what, (unsigned long long)host,
			 copied ? "is marked as unshared and has another count" :
				  "is marked as shared and is not");
}

static struct error *walk_l2(struct walk *w, uint64_t offset, bool active)
{
	struct qcow2 *q = w->q;
	struct error *err = spend(w, q->cluster_bytes);
	int r;

	if (err)
		return err;
	r = io_read(q->img->fd, offset, w->buf, q->cluster_bytes);
	if (r < 0)
		return error_errno(-r, "cannot read an L2 table of disk '%s'", q->img->name);
	for (uint64_t i = 0; i < 1ull << q->l2_bits; i++) {
		uint64_t raw;
		struct qcow2_entry e;

		memcpy(&raw, w->buf + i * 8, 8);
		raw = be64toh(raw);
		if (raw == 0)
			continue;
		if (!qcow2_decode(q, raw, &e)) {
			if (w->first_pass)
				complain(w, "entry %llu of the L2 table at offset %llu is impossible",
					 (unsigned long long)i, (unsigned long long)offset);
			continue;
		}
		switch (e.kind) {
		case QCOW2_KIND_DATA:
		case QCOW2_KIND_ZERO_ALLOCATED:
			refer(w, e.host, q->cluster_bytes);
			if (w->first_pass && active && !w->c->repair)
				check_copied(w, e.host, e.copied, "data cluster");
			break;
		case QCOW2_KIND_COMPRESSED:
			refer(w, e.host, e.packed_bytes);
			break;
		default:
			break;
		}
		if (w->first_pass && active && e.kind != QCOW2_KIND_UNALLOCATED &&
		    e.kind != QCOW2_KIND_ZERO)
			w->c->allocated_clusters++;
	}
	return NULL;
}

static struct error *walk_l1(struct walk *w, const struct qcow2_bigtable *l1, bool active)
{
	struct qcow2 *q = w->q;

	refer(w, l1->offset, l1->count * 8ull);
	for (uint32_t i = 0; i < l1->count; i++) {
		uint64_t offset = l1->entry[i] & QCOW2_OFFSET_MASK;
		struct error *err;

		if (l1->entry[i] & QCOW2_L1_RESERVED || offset & (q->cluster_bytes - 1) ||
		    offset >= q->file_end) {
			if (w->first_pass)
				complain(w, "L1 entry %u is impossible", i);
			continue;
		}
		if (offset == 0)
			continue;
		refer(w, offset, q->cluster_bytes);
		if (w->first_pass && active && !w->c->repair)
			check_copied(w, offset, l1->entry[i] & QCOW2_COPIED, "L2 table");
		err = walk_l2(w, offset, active);
		if (err)
			return err;
	}
	return NULL;
}

static struct error *walk_snapshots(struct walk *w)
{
	struct qcow2 *q = w->q;

	refer(w, q->header.snapshots_offset, q->snapshots_bytes);
	for (unsigned i = 0; i < q->snapshot_l1_count; i++) {
		const struct qcow2_snapshot *s = &q->snapshot_l1[i];
		struct qcow2_bigtable l1 = { 0 };
		struct error *err = spend(w, s->l1_entries * 8ull);

		if (!err)
			err = qcow2_bigtable_read(q, &l1, s->l1_offset, s->l1_entries,
					  "L1 table of a snapshot");
		if (!err)
			err = walk_l1(w, &l1, false);
		qcow2_bigtable_finish(&l1);
		if (err)
			return err;
	}
	return NULL;
}

static struct error *walk_all(struct walk *w)
{
	struct qcow2 *q = w->q;
	struct error *err;

	refer(w, 0, q->cluster_bytes);
	refer(w, q->rt.offset, (uint64_t)q->header.rt_clusters << q->cluster_bits);
	for (uint32_t i = 0; i < q->rt.count; i++) {
		uint64_t offset = q->rt.entry[i];

		if (offset & (q->cluster_bytes - 1) || offset >= q->file_end) {
			if (w->first_pass)
				complain(w, "refcount block %u is misplaced", i);
		} else if (offset) {
			refer(w, offset, q->cluster_bytes);
		}
	}
	err = walk_l1(w, &q->l1, true);
	return err ? err : walk_snapshots(w);
}

static struct error *compare(struct walk *w)
{
	struct qcow2 *q = w->q;

	for (uint64_t i = 0; i < w->clusters; i++) {
		uint64_t cluster = w->first + i, stored;

		/* A missing or broken block: every count in it is 0. */
		if (qcow2_refcount_get(q, cluster, &stored) < 0)
			stored = 0;
		if (stored > w->count[i])
			w->c->leaks++;
		if (stored >= w->count[i])
			continue;
		if (!w->c->repair) {
			complain(w, "the cluster at offset %llu is in use %u times and counts %llu",
				 (unsigned long long)(cluster << q->cluster_bits), w->count[i],
				 (unsigned long long)stored);
			continue;
		}
		if (q->header.refcount_order < 6 &&
		    w->count[i] >> (1u << q->header.refcount_order) != 0)
			return error_new("a reference count does not fit its width");
		if (qcow2_refcount_set(q, cluster, w->count[i]) < 0)
			return error_new("a refcount block is missing; repair the image with "
					 "'qemu-img check -r all'");
	}
	return NULL;
}

struct error *qcow2_check(struct qcow2 *q, struct qcow2_check *c)
{
	uint64_t total = q->file_end >> q->cluster_bits;
	struct walk w = { .q = q, .c = c, .first_pass = true };
	struct error *err = NULL;

	if (total > (uint64_t)WINDOW * WINDOWS_MAX)
		return error_new("disk '%s' is too large to be checked", q->img->name);
	w.table_bytes = MIN(TABLE_BYTES_MIN + 64 * MIN(q->file_end, TABLE_BYTES_MAX), TABLE_BYTES_MAX);
	w.count = calloc(MIN(total, WINDOW), sizeof(*w.count));
	w.buf = malloc(q->cluster_bytes);
	if (!w.count || !w.buf)
		err = error_new("out of memory checking disk '%s'", q->img->name);
	for (; w.first < total && !err; w.first += WINDOW) {
		w.clusters = MIN(total - w.first, WINDOW);
		memset(w.count, 0, w.clusters * sizeof(*w.count));
		err = walk_all(&w);
		if (!err)
			err = compare(&w);
		w.first_pass = false;
	}
	free(w.count);
	free(w.buf);
	return err;
}
