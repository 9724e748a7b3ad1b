// SPDX-License-Identifier: Apache-2.0
/*
 * qcow2: compressed clusters (zlib's raw deflate with a 4 KiB window, or zstd). The last one unpacked is
 * kept, because sequential readers come back for the rest of it. It is known by its L2 entry, and stays
 * right: nothing here ever writes a compressed cluster.
 *
 * Threading: `unpack_lock`, so that one cluster is unpacked at a time and memory stays bounded.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/log.h"
#include "block/qcow2.h"

static bool inflate_cluster(uint8_t *out, size_t out_bytes, uint8_t *in, size_t in_bytes)
{
	z_stream z = { .next_in = in,
		       .avail_in = (unsigned)in_bytes,
		       .next_out = out,
		       .avail_out = (unsigned)out_bytes };
	int r;

	if (inflateInit2(&z, -12) != Z_OK)
		return false;
	r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	/* What follows the stream in its last sector may keep it from noticing the end. */
	return (r == Z_STREAM_END || r == Z_BUF_ERROR) && z.avail_out == 0;
}

static bool zstd_cluster(uint8_t *out, size_t out_bytes, const uint8_t *in, size_t in_bytes)
{
	ZSTD_DCtx *ctx = ZSTD_createDCtx();
	ZSTD_outBuffer o = { out, out_bytes, 0 };
	ZSTD_inBuffer i = { in, in_bytes, 0 };
	size_t r = 1;

	while (ctx && r != 0 && o.pos < o.size) {
		size_t in_before = i.pos, out_before = o.pos;

		r = ZSTD_decompressStream(ctx, &o, &i);
		if (ZSTD_isError(r) || (i.pos == in_before && o.pos == out_before))
			break;
	}
	ZSTD_freeDCtx(ctx);
	return o.pos == o.size;
}

/* `unpack_lock` held. */
static int unpack(struct qcow2 *q, const struct qcow2_entry *e)
{
	uint8_t *in;
	bool good;
	int r;

	q->unpacked_entry = 0;
	if (!q->unpacked)
		q->unpacked = malloc(q->cluster_bytes);
	in = malloc(e->packed_bytes);
	if (!q->unpacked || !in) {
		free(in);
		return -ENOMEM;
	}
	r = io_read(q->img->fd, e->host, in, e->packed_bytes);
	if (r == 0) {
		good = q->header.compression == QCOW2_ZSTD ?
			       zstd_cluster(q->unpacked, q->cluster_bytes, in, e->packed_bytes) :
			       inflate_cluster(q->unpacked, q->cluster_bytes, in, e->packed_bytes);
		if (!good) {
			log_guest("disk '%s': the compressed cluster at offset %llu is damaged",
				  q->img->name, (unsigned long long)e->host);
			r = -EIO;
		}
	}
	free(in);
	return r;
}

int qcow2_unpack(struct qcow2 *q, const struct qcow2_entry *e, uint64_t raw, uint64_t from,
		 struct iov_cursor *cur, uint64_t len)
{
	int r = 0;

	pthread_mutex_lock(&q->unpack_lock);
	if (q->unpacked_entry != raw) {
		r = unpack(q, e);
		if (r == 0)
			q->unpacked_entry = raw;
	}
	if (r == 0)
		iov_cursor_copy_in(cur, q->unpacked + from, len);
	pthread_mutex_unlock(&q->unpack_lock);
	return r;
}
