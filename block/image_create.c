// SPDX-License-Identifier: Apache-2.0
/*
 * Making disk images. A new qcow2 image is: header, refcount table, refcount blocks, L1 table, each from
 * a cluster boundary on, and nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/image.h"
#include "block/qcow2.h"

/* Where the parts of a new image are, in clusters. */
struct layout {
	unsigned cluster_bits, refcount_order, version;
	uint64_t l1_entries, l1_clusters, rt_clusters, rb_count;
	uint64_t total;
};

static bool power_of_two(uint64_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

static struct error *plan(const char *path, uint64_t size, const struct image_options *o,
			  struct layout *l)
{
	uint64_t cluster = o->cluster_bytes ? o->cluster_bytes : 64 * KiB;
	unsigned refcount_bits = o->refcount_bits ? o->refcount_bits : 16;
	uint64_t l2_covers = cluster * (cluster / 8), per_block, fixed;

	*l = (struct layout){ .version = o->version ? o->version : 3 };
	if (l->version != 2 && l->version != 3)
		return error_new("qcow2 has no version %u; use 2 or 3", l->version);
	if (!power_of_two(cluster) || cluster < 1u << QCOW2_MIN_CLUSTER_BITS ||
	    cluster > 1u << QCOW2_MAX_CLUSTER_BITS)
		return error_new("the cluster size must be a power of two from 512 to 2M");
	if (!power_of_two(refcount_bits) || refcount_bits > 64 ||
	    (l->version == 2 && refcount_bits != 16))
		return error_new("the refcount width must be 1, 2, 4, 8, 16, 32 or 64 bits, and 16 in "
				 "version 2");
	l->cluster_bits = (unsigned)__builtin_ctzll(cluster);
	l->refcount_order = (unsigned)__builtin_ctz(refcount_bits);
	if (size > INT64_MAX - 4 * MiB || (size + l2_covers - 1) / l2_covers > QCOW2_MAX_L1_BYTES / 8)
		return error_new("'%s' would be too large for clusters of %llu bytes; use a larger "
				 "cluster size",
				 path, (unsigned long long)cluster);
	l->l1_entries = MAX((size + l2_covers - 1) / l2_covers, 1u);
	l->l1_clusters = (l->l1_entries * 8 + cluster - 1) >> l->cluster_bits;
	per_block = cluster * 8 / refcount_bits;
	/* One block counts itself and the rest; with the largest L1 tables it takes more of them. */
	l->rb_count = l->rt_clusters = 1;
	do {
		fixed = 1 + l->l1_clusters + l->rt_clusters;
		l->rb_count = MAX(l->rb_count, (fixed + l->rb_count + per_block - 1) / per_block);
		l->rt_clusters = MAX(l->rt_clusters, (l->rb_count * 8 + cluster - 1) >> l->cluster_bits);
	} while ((1 + l->l1_clusters + l->rt_clusters + l->rb_count + per_block - 1) / per_block >
		 l->rb_count);
	l->total = 1 + l->l1_clusters + l->rt_clusters + l->rb_count;
	return NULL;
}

static uint8_t *put_be(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> 8 * (bytes - 1 - i));
	return p + bytes;
}

/* Header cluster into @buf (a zeroed cluster); false: the backing file's name does not fit. */
static bool fill_header(const struct layout *l, uint64_t size, const char *backing,
			const char *backing_format, uint8_t *buf)
{
	unsigned header = l->version == 3 ? QCOW2_HDR_V3_BYTES : QCOW2_HDR_V2_BYTES;
	uint64_t name_at = header + 8, cluster = 1ull << l->cluster_bits;
	uint8_t *p = buf;

	if (backing) {
		name_at += 8 + align_up(strlen(backing_format), 8);
		if (strlen(backing) > QCOW2_MAX_BACKING_NAME || name_at + strlen(backing) > cluster)
			return false;
	}
	p = put_be(p, QCOW2_MAGIC, 4);
	p = put_be(p, l->version, 4);
	p = put_be(p, backing ? name_at : 0, 8);
	p = put_be(p, backing ? strlen(backing) : 0, 4);
	p = put_be(p, l->cluster_bits, 4);
	p = put_be(p, size, 8);
	p = put_be(p, 0, 4); /* not encrypted */
	p = put_be(p, l->l1_entries, 4);
	p = put_be(p, (1 + l->rt_clusters + l->rb_count) << l->cluster_bits, 8);
	p = put_be(p, 1ull << l->cluster_bits, 8); /* refcount table */
	p = put_be(p, l->rt_clusters, 4);
	p = put_be(p, 0, 4); /* no snapshots */
	p = put_be(p, 0, 8);
	if (l->version == 3) {
		p = put_be(p, 0, 8); /* incompatible, */
		p = put_be(p, 0, 8); /* compatible, */
		p = put_be(p, 0, 8); /* autoclear features */
		p = put_be(p, l->refcount_order, 4);
		p = put_be(p, header, 4);
	}
	if (backing) {
		p = put_be(p, QCOW2_EXT_BACKING_FORMAT, 4);
		p = put_be(p, strlen(backing_format), 4);
		memcpy(p, backing_format, strlen(backing_format));
		memcpy(buf + name_at, backing, strlen(backing));
	}
	return true;
}

/* Everything but the header: an image cut short has no magic number. */
static int write_tables(int fd, const struct layout *l, uint8_t *buf)
{
	struct qcow2 q = { .cluster_bits = l->cluster_bits,
			   .header.refcount_order = l->refcount_order };
	uint64_t cluster = 1ull << l->cluster_bits, per_block = cluster * 8 >> l->refcount_order;
	uint64_t first_rb = 1 + l->rt_clusters;
	int r;

	if (ftruncate(fd, (off_t)(l->total << l->cluster_bits)) < 0)
		return -errno;
	for (uint64_t i = 0; i < l->rb_count; i++) {
		uint8_t entry[8];

		put_be(entry, (first_rb + i) << l->cluster_bits, 8);
		r = io_write(fd, cluster + i * 8, entry, 8);
		if (r < 0)
			return r;
		memset(buf, 0, cluster);
		for (uint64_t k = 0; k < per_block && i * per_block + k < l->total; k++)
			qcow2_refcount_put(&q, buf, k, 1);
		r = io_write(fd, (first_rb + i) << l->cluster_bits, buf, cluster);
		if (r < 0)
			return r;
	}
	return 0;
}

static struct error *create_qcow2(int fd, const char *path, uint64_t size, const char *backing,
				  enum block_format backing_format, const struct image_options *o)
{
	struct error *err;
	struct layout l;
	uint8_t *buf;
	int r;

	err = plan(path, size, o, &l);
	if (err)
		return err;
	buf = calloc(1, 1ull << l.cluster_bits);
	if (!buf)
		return error_new("out of memory making '%s'", path);
	r = write_tables(fd, &l, buf);
	if (r == 0) {
		memset(buf, 0, 1ull << l.cluster_bits);
		if (fill_header(&l, size, backing, block_format_name(backing_format), buf))
			r = io_write(fd, 0, buf, 1ull << l.cluster_bits);
		else
			err = error_new("the name of the backing file is too long for clusters of %llu "
					"bytes",
					1ull << l.cluster_bits);
	}
	free(buf);
	return r < 0 ? error_errno(-r, "cannot write '%s'", path) : err;
}

/* The size of the disk that @backing (as named in @path) is. */
static struct error *backing_size(const char *path, const char *backing, enum block_format format,
				  uint64_t *out)
{
	const char *slash = strrchr(path, '/');
	struct image_info info;
	struct error *err;
	char *full = NULL;

	if (asprintf(&full, "%.*s%s",
		     backing[0] == '/' || !slash ? 0 : (int)(slash - path) + 1, path, backing) < 0)
		return error_new("out of memory making '%s'", path);
	err = image_info(full, format, &info);
	free(full);
	*out = err ? 0 : info.size_bytes;
	return err;
}

struct error *image_create(const char *path, enum block_format format, uint64_t size_bytes,
			   const char *backing, enum block_format backing_format,
			   const struct image_options *options)
{
	static const struct image_options defaults;
	struct error *err = NULL;
	uint64_t size;
	int fd;

	if (backing && format == BLOCK_FORMAT_RAW)
		return error_new("a raw image has no backing file; make '%s' a qcow2 image", path);
	if (backing) {
		err = backing_size(path, backing, backing_format, &size);
		if (err)
			return error_wrap(err, "cannot use '%s' as a backing file", backing);
		if (size_bytes == 0)
			size_bytes = size;
	}
	if (size_bytes > INT64_MAX - BLOCK_SECTOR)
		return error_new("'%s' would be larger than a disk can be", path);
	size_bytes = align_up(size_bytes, BLOCK_SECTOR);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 && errno == EEXIST)
		return error_new("'%s' exists already; remove it first or choose another name", path);
	if (fd < 0)
		return error_errno(errno, "cannot make '%s'", path);
	if (format == BLOCK_FORMAT_QCOW2)
		err = create_qcow2(fd, path, size_bytes, backing, backing_format,
				   options ? options : &defaults);
	else if (ftruncate(fd, (off_t)size_bytes) < 0)
		err = error_errno(errno, "cannot make '%s'", path);
	if (!err && fsync(fd) < 0)
		err = error_errno(errno, "cannot write '%s'", path);
	close(fd);
	if (err)
		unlink(path);
	return err;
}
