// SPDX-License-Identifier: Apache-2.0
/*
 * qcow2: discarding and writing zeroes without writing data. Whole clusters change their L2 entries
 * under the exclusive hold of their range; what is left at the ends is written out (zeroes) or left
 * alone (discard).
 */
#include <errno.h>

#include "block/qcow2.h"

#define BATCH_CLUSTERS 32768u /* changed under one hold of `lock` */

enum zero_mode { DISCARD, ZERO_UNMAP, ZERO_KEEP };

/* The entry that @e becomes; false: it stays as it is. *release: its cluster is let go. */
static bool zero_entry(const struct qcow2 *q, enum zero_mode mode, const struct qcow2_entry *e,
		       uint64_t *raw, bool *release)
{
	bool backed = q->img->backing != NULL;

	*release = true;
	*raw = backed ? QCOW2_ZERO : 0; /* without a backing file nothing reads as zeroes */
	switch (e->kind) {
	case QCOW2_KIND_UNALLOCATED:
		*release = false;
		return backed && mode != DISCARD;
	case QCOW2_KIND_ZERO:
		return false;
	case QCOW2_KIND_ZERO_ALLOCATED:
		return mode != ZERO_KEEP;
	case QCOW2_KIND_DATA:
		if (mode == ZERO_KEEP && e->copied && q->header.version >= 3) {
			*raw = e->host | QCOW2_COPIED | QCOW2_ZERO;
			*release = false;
		}
		return true;
	default:
		return true;
	}
}

/* `lock` held; clusters of one L2 table. */
static int zero_in_table(struct qcow2 *q, enum zero_mode mode, uint64_t cluster, uint64_t n)
{
	uint64_t index = cluster & ((1ull << q->l2_bits) - 1);
	bool writable = false;
	struct qcow2_table *t;
	int r;

	r = qcow2_l2_get(q, cluster >> q->l2_bits, false, &t);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++) {
		struct qcow2_entry e = { .kind = QCOW2_KIND_UNALLOCATED };
		uint64_t raw;
		bool release;

		if (!t && (!q->img->backing || mode == DISCARD))
			return 0;
		if (t && !qcow2_decode(q, qcow2_l2_entry(t, index + i), &e))
			return qcow2_corrupt(q, "the L2 entry of guest cluster %llu is impossible",
					     (unsigned long long)(cluster + i));
		if (!zero_entry(q, mode, &e, &raw, &release))
			continue;
		if (!writable) {
			r = qcow2_l2_get(q, cluster >> q->l2_bits, true, &t);
			if (r < 0)
				return r;
			writable = true;
		}
		qcow2_l2_set(q, t, index + i, raw);
		if (release)
			qcow2_release_entry(q, &e);
	}
	return 0;
}

static int zero_clusters(struct qcow2 *q, enum zero_mode mode, uint64_t cluster, uint64_t n)
{
	uint64_t per_table = 1ull << q->l2_bits;
	struct qcow2_range range;
	int r = 0;

	if (n == 0)
		return 0;
	qcow2_range_take(q, &range, cluster << q->cluster_bits, n << q->cluster_bits, true);
	while (n > 0 && r == 0) {
		uint64_t here = MIN(n, per_table - (cluster & (per_table - 1)));

		here = MIN(here, BATCH_CLUSTERS);
		pthread_mutex_lock(&q->lock);
		r = q->corrupt ? -EIO : zero_in_table(q, mode, cluster, here);
		pthread_mutex_unlock(&q->lock);
		cluster += here;
		n -= here;
	}
	qcow2_range_drop(q, &range);
	return r;
}

/* The whole clusters in [offset, offset + len); the disk's last cluster counts as whole. */
static void whole_clusters(const struct qcow2 *q, uint64_t offset, uint64_t len, uint64_t *first,
			   uint64_t *last)
{
	uint64_t end = offset + len;

	*first = align_up(offset, q->cluster_bytes) >> q->cluster_bits;
	if (end == q->img->size_bytes)
		end = align_up(end, q->cluster_bytes);
	*last = MAX(*first, end >> q->cluster_bits);
}

int qcow2_discard(struct block_image *img, uint64_t offset, uint64_t len)
{
	struct qcow2 *q = img->priv;
	uint64_t first, last;

	if (q->header.version < 3 && img->backing)
		return 0; /* cannot say "zeroes", and the backing file's old content must not come back */
	whole_clusters(q, offset, len, &first, &last);
	return zero_clusters(q, DISCARD, first, last - first);
}

int qcow2_write_zeroes(struct block_image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	struct qcow2 *q = img->priv;
	uint64_t first, last, head_end, tail;
	int r;

	if (q->header.version < 3 && img->backing)
		return image_write_zero_bytes(img, offset, len);
	whole_clusters(q, offset, len, &first, &last);
	head_end = MIN(first << q->cluster_bits, offset + len);
	tail = MAX(last << q->cluster_bits, head_end);
	r = image_write_zero_bytes(img, offset, head_end - offset);
	if (r == 0)
		r = zero_clusters(q, may_unmap ? ZERO_UNMAP : ZERO_KEEP, first, last - first);
	if (r == 0 && tail < offset + len)
		r = image_write_zero_bytes(img, tail, offset + len - tail);
	return r;
}
