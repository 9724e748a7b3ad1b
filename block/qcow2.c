// SPDX-License-Identifier: Apache-2.0
/*
 * The qcow2 format: opening and closing an image, writing metadata back in order, and guarding the
 * image's own tables. See qcow2.h for the theory of operation.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/log.h"

#define L2_CACHE_TOP_BYTES (16 * MiB) /* with clusters of 64 KiB: 128 GiB of disk */
#define L2_CACHE_BACKING_BYTES (4 * MiB)
#define RB_CACHE_BYTES (2 * MiB)
#define CACHE_MIN_TABLES 4u

int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...)
{
	char what[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	log_guest("disk '%s' is corrupt: %s%s", q->img->name, what,
		  q->img->readonly || q->corrupt ? "" : "; it is not written to any more");
	if (!q->img->readonly && !q->corrupt && q->header.version >= 3) {
		uint64_t flags = htobe64(q->header.incompatible | QCOW2_INCOMPAT_CORRUPT);

		io_write(q->img->fd, QCOW2_HDR_INCOMPAT, &flags, sizeof(flags));
	}
	q->corrupt = true;
	return -EIO;
}

int qcow2_sync(struct qcow2 *q)
{
	return image_sync(q->img);
}

static bool ranges_meet(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a < b + b_bytes && b < a + a_bytes;
}

bool qcow2_overlaps(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
	uint64_t bytes = clusters << q->cluster_bits;
	unsigned lo = 0, hi = q->snapshot_l1_count;

	if (ranges_meet(offset, bytes, 0, q->cluster_bytes) ||
	    ranges_meet(offset, bytes, q->l1.offset, q->l1.count * 8ull) ||
	    ranges_meet(offset, bytes, q->rt.offset, q->rt.count * 8ull) ||
	    ranges_meet(offset, bytes, q->header.snapshots_offset, q->snapshots_bytes))
		return true;
	while (lo < hi) { /* the first snapshot table that ends behind @offset */
		unsigned mid = lo + (hi - lo) / 2;
		const struct qcow2_snapshot *s = &q->snapshot_l1[mid];

		if (s->l1_offset + s->l1_entries * 8ull <= offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < q->snapshot_l1_count && q->snapshot_l1[lo].l1_offset < offset + bytes)
		return true;
	for (uint64_t i = 0; i < clusters; i++)
		if (qcow2_set_has(&q->meta, offset + (i << q->cluster_bits)))
			return true;
	return false;
}

int qcow2_writeback(struct qcow2 *q)
{
	bool tables = q->l2.dirty || q->l1.dirty_blocks || q->rt.dirty_blocks;
	int r;

	r = qcow2_cache_write(q, &q->rb);
	if (r == 0 && tables)
		r = qcow2_sync(q); /* guest data and counts */
	if (r == 0 && q->rt.dirty_blocks) {
		r = qcow2_bigtable_write(q, &q->rt);
		if (r == 0)
			r = qcow2_sync(q);
	}
	if (r == 0)
		r = qcow2_cache_write(q, &q->l2);
	if (r == 0 && q->l1.dirty_blocks) {
		r = qcow2_sync(q);
		if (r == 0)
			r = qcow2_bigtable_write(q, &q->l1);
	}
	if (r == 0 && q->released_count) {
		r = qcow2_sync(q);
		if (r == 0)
			qcow2_apply_released(q);
	}
	return r;
}

static bool metadata_dirty(const struct qcow2 *q)
{
	return q->rb.dirty || q->l2.dirty || q->l1.dirty_blocks || q->rt.dirty_blocks ||
	       q->released_count;
}

static int qcow2_flush(struct block_image *img)
{
	struct qcow2 *q = img->priv;
	bool dirty;
	int r = 0;

	if (img->readonly)
		return 0;
	pthread_mutex_lock(&q->lock);
	dirty = metadata_dirty(q);
	pthread_mutex_unlock(&q->lock);
	if (dirty) {
		r = qcow2_sync(q); /* the bulk, while others may go on */
		pthread_mutex_lock(&q->lock);
		if (r == 0)
			r = qcow2_writeback(q);
		pthread_mutex_unlock(&q->lock);
	}
	return r < 0 ? r : qcow2_sync(q);
}

static int by_offset(const void *a, const void *b)
{
	const struct qcow2_snapshot *x = a, *y = b;

	return x->l1_offset < y->l1_offset ? -1 : x->l1_offset > y->l1_offset;
}

/* Where the internal snapshots' L1 tables are: not to be written over. */
static struct error *read_snapshots(struct qcow2 *q)
{
	const char *name = q->img->name;
	uint64_t at = q->header.snapshots_offset;

	if (q->header.snapshots == 0)
		return NULL;
	q->snapshot_l1 = calloc(q->header.snapshots, sizeof(*q->snapshot_l1));
	if (!q->snapshot_l1)
		return error_new("out of memory reading the snapshots of disk '%s'", name);
	for (uint32_t i = 0; i < q->header.snapshots; i++) {
		struct {
			uint64_t l1_offset;
			uint32_t l1_entries;
			uint16_t id_bytes, name_bytes;
			uint8_t unused[20];
			uint32_t extra_bytes;
		} s;
		uint64_t offset, bytes;
		int r = io_read(q->img->fd, at, &s, 40);

		if (r < 0)
			return error_errno(-r, "cannot read the snapshots of disk '%s'", name);
		offset = be64toh(s.l1_offset);
		bytes = be32toh(s.l1_entries) * 8ull;
		if (offset == 0 || offset & (q->cluster_bytes - 1) || offset >= q->file_end ||
		    bytes > QCOW2_MAX_L1_BYTES ||
		    be32toh(s.extra_bytes) > QCOW2_MAX_SNAPSHOT_EXTRA)
			return error_new("'%s' is not a usable qcow2 image: snapshot %u is impossible",
					 name, i + 1);
		q->snapshot_l1[i].l1_offset = offset;
		q->snapshot_l1[i].l1_entries = be32toh(s.l1_entries);
		at += align_up(40ull + be32toh(s.extra_bytes) + be16toh(s.id_bytes) +
				       be16toh(s.name_bytes),
			       8);
	}
	q->snapshot_l1_count = q->header.snapshots;
	q->snapshots_bytes = at - q->header.snapshots_offset;
	qsort(q->snapshot_l1, q->snapshot_l1_count, sizeof(*q->snapshot_l1), by_offset);
	return NULL;
}

static struct error *overlapping(const struct qcow2 *q)
{
	return error_new("'%s' is not a usable qcow2 image: two of its tables are in the same place; it "
			 "can only be opened readonly",
			 q->img->name);
}

/* The clusters that hold tables, for qcow2_overlaps. */
static struct error *collect_metadata(struct qcow2 *q)
{
	struct qcow2_bigtable *tables[] = { &q->rt, &q->l1 };
	const struct qcow2_run fixed[] = {
		{ 0, 1 },
		{ q->l1.offset, (q->l1.count * 8ull + q->cluster_bytes - 1) >> q->cluster_bits },
		{ q->rt.offset, q->header.rt_clusters },
		{ q->header.snapshots_offset,
		  (q->snapshots_bytes + q->cluster_bytes - 1) >> q->cluster_bits },
	};

	for (unsigned a = 0; a < ARRAY_SIZE(fixed); a++)
		for (unsigned b = 0; b < a; b++)
			if (fixed[a].clusters && fixed[b].clusters &&
			    ranges_meet(fixed[a].offset, fixed[a].clusters << q->cluster_bits,
					fixed[b].offset, fixed[b].clusters << q->cluster_bits))
				return overlapping(q);
	for (unsigned n = 0; n < ARRAY_SIZE(tables); n++) {
		for (uint32_t i = 0; i < tables[n]->count; i++) {
			uint64_t offset = tables[n]->entry[i] & QCOW2_OFFSET_MASK;
			bool was_there;

			if (offset == 0)
				continue;
			if (offset & (q->cluster_bytes - 1) || offset >= q->file_end)
				return error_new("'%s' is not a usable qcow2 image: its tables point "
						 "outside of the file; it can only be opened readonly",
						 q->img->name);
			/* The set is empty still but for tables: what it finds is a table twice. */
			if (qcow2_overlaps(q, offset, 1))
				return overlapping(q);
			if (!qcow2_set_add(&q->meta, offset, &was_there))
				return error_new("out of memory opening disk '%s'", q->img->name);
		}
	}
	return NULL;
}

/* What a writer has to settle before it may write. */
static struct error *prepare_to_write(struct qcow2 *q)
{
	struct qcow2_header *h = &q->header;
	const char *name = q->img->name;
	struct error *err;
	int r;

	if (h->incompatible & QCOW2_INCOMPAT_CORRUPT)
		return error_new("disk '%s' is marked as corrupt and is not written to; open it readonly "
				 "to save what is on it, or repair it with 'qemu-img check -r all'",
				 name);
	if (h->rt_clusters == 0)
		return error_new("'%s' is not a usable qcow2 image: it has no refcount table", name);
	err = collect_metadata(q);
	if (err)
		return err;
	if (h->incompatible & QCOW2_INCOMPAT_DIRTY) {
		struct qcow2_check check = { .repair = true };
		uint64_t flags = htobe64(h->incompatible & ~QCOW2_INCOMPAT_DIRTY);

		log_warn("disk '%s' was not closed properly; its reference counts are being repaired",
			 name);
		err = qcow2_check(q, &check);
		if (err)
			return error_wrap(err, "cannot repair disk '%s'", name);
		r = qcow2_writeback(q);
		if (r == 0)
			r = qcow2_sync(q);
		if (r == 0)
			r = io_write(q->img->fd, QCOW2_HDR_INCOMPAT, &flags, sizeof(flags));
		if (r < 0)
			return error_errno(-r, "cannot repair disk '%s'", name);
		h->incompatible &= ~QCOW2_INCOMPAT_DIRTY;
	}
	if (h->autoclear) { /* extensions that we do not keep up to date stop being valid */
		uint64_t none = 0;

		r = io_write(q->img->fd, QCOW2_HDR_AUTOCLEAR, &none, sizeof(none));
		if (r < 0)
			return error_errno(-r, "cannot write to disk '%s'", name);
		h->autoclear = 0;
	}
	return NULL;
}

void qcow2_free(struct qcow2 *q)
{
	qcow2_bigtable_finish(&q->l1);
	qcow2_bigtable_finish(&q->rt);
	qcow2_cache_finish(&q->l2);
	qcow2_cache_finish(&q->rb);
	free(q->meta.slot);
	free(q->snapshot_l1);
	free(q->released);
	free(q->unpacked);
	pthread_mutex_destroy(&q->lock);
	pthread_mutex_destroy(&q->range_lock);
	pthread_mutex_destroy(&q->unpack_lock);
	pthread_cond_destroy(&q->range_freed);
	free(q);
}

static struct error *open_tables(struct qcow2 *q)
{
	const struct qcow2_header *h = &q->header;
	uint64_t l2_bytes = q->img->is_top ? L2_CACHE_TOP_BYTES : L2_CACHE_BACKING_BYTES;
	uint64_t file_bytes, l2_tables;
	struct error *err;
	struct stat st;

	err = image_fd_size(q->img->fd, q->img->name, &file_bytes);
	if (err)
		return err;
	q->file_end = align_up(file_bytes, q->cluster_bytes);
	q->is_device = fstat(q->img->fd, &st) == 0 && S_ISBLK(st.st_mode);
	if (h->l1_offset + h->l1_entries * 8ull > q->file_end ||
	    h->rt_offset + ((uint64_t)h->rt_clusters << q->cluster_bits) > q->file_end ||
	    h->snapshots_offset > q->file_end)
		return error_new("'%s' is not a usable qcow2 image: it is cut off; copy it again",
				 q->img->name);
	l2_tables = MIN(l2_bytes >> q->cluster_bits, h->l1_entries); /* there are no more of them */
	if (!qcow2_cache_init(&q->l2, (unsigned)MAX(l2_tables, CACHE_MIN_TABLES)) ||
	    !qcow2_cache_init(&q->rb,
			      (unsigned)MAX(RB_CACHE_BYTES >> q->cluster_bits, CACHE_MIN_TABLES)) ||
	    !qcow2_set_init(&q->meta))
		return error_new("out of memory opening disk '%s'", q->img->name);
	err = qcow2_bigtable_read(q, &q->l1, h->l1_offset, h->l1_entries, "L1 table");
	if (!err)
		err = qcow2_bigtable_read(q, &q->rt, h->rt_offset,
					  h->rt_clusters << (q->cluster_bits - 3), "refcount table");
	if (!err)
		err = read_snapshots(q);
	if (!err && !q->img->readonly)
		err = prepare_to_write(q);
	return err;
}

struct error *qcow2_open_alone(struct block_image *img, struct qcow2 **out)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	struct error *err;

	if (!q)
		return error_new("out of memory opening disk '%s'", img->name);
	q->img = img;
	q->ranges_tail = &q->ranges;
	pthread_mutex_init(&q->lock, NULL);
	pthread_mutex_init(&q->range_lock, NULL);
	pthread_mutex_init(&q->unpack_lock, NULL);
	pthread_cond_init(&q->range_freed, NULL);
	err = qcow2_header_read(img->fd, img->name, &q->header);
	if (!err)
		err = qcow2_header_usable(&q->header, img->name);
	if (!err) {
		q->cluster_bits = q->header.cluster_bits;
		q->cluster_bytes = 1ull << q->cluster_bits;
		q->l2_bits = q->cluster_bits - 3;
		q->rb_bits = q->cluster_bits + 3 - q->header.refcount_order;
		err = open_tables(q);
	}
	if (err) {
		qcow2_free(q);
		return err;
	}
	img->priv = q;
	img->size_bytes = align_up(q->header.size_bytes, BLOCK_SECTOR);
	*out = q;
	return NULL;
}

static struct error *qcow2_open(struct block_image *img)
{
	struct qcow2_header h;
	struct error *err;
	struct qcow2 *q;

	/* Before anything of the image is touched. */
	err = qcow2_header_read(img->fd, img->name, &h);
	if (err)
		return err;
	if (img->backing && !h.backing_name[0])
		return error_new("disk '%s' was given a backing file and has none", img->name);
	if (!img->backing && h.backing_name[0])
		return error_new("disk '%s' needs its backing file, which was not given", img->name);
	return qcow2_open_alone(img, &q);
}

static void qcow2_close(struct block_image *img)
{
	struct qcow2 *q = img->priv;

	/* The second flush writes the counts of what the first one released. */
	if (qcow2_flush(img) < 0 || qcow2_flush(img) < 0)
		log_error("cannot write all of disk '%s'", img->name);
	qcow2_free(q);
}

const struct block_driver block_qcow2_driver = {
	.name = "qcow2",
	.open = qcow2_open,
	.read = qcow2_read,
	.write = qcow2_write,
	.discard = qcow2_discard,
	.write_zeroes = qcow2_write_zeroes,
	.flush = qcow2_flush,
	.close = qcow2_close,
};
