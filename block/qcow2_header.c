// SPDX-License-Identifier: Apache-2.0
/*
 * The qcow2 header and its extensions, read from the file into a checked struct. Everything here comes
 * from the file and is believed only within bounds. The backing file's name is kept for the tools that
 * resolve chains; the VM never follows it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/qcow2.h"

static uint32_t be32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return be32toh(v);
}

static uint64_t be64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return be64toh(v);
}

static struct error *broken(const char *name, const char *what)
{
	return error_new("'%s' is not a usable qcow2 image: %s", name, what);
}

/* Copies @len bytes from the file's text into @out as a string without control characters. */
static void copy_text(char *out, size_t out_bytes, const uint8_t *from, size_t len)
{
	size_t n = MIN(len, out_bytes - 1);

	memcpy(out, from, n);
	out[n] = 0;
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
}

/* The feature name table: 48 bytes each, type, bit, name. Names the lowest unknown incompatible bit. */
static void name_unknown_feature(struct qcow2_header *h, const uint8_t *p, size_t len)
{
	uint64_t known = QCOW2_INCOMPAT_EXTENDED_L2 * 2 - 1;

	for (; len >= 48; p += 48, len -= 48)
		if (p[0] == 0 && p[1] < 64 && ((h->incompatible & ~known) >> p[1] & 1))
			copy_text(h->unknown_feature, sizeof(h->unknown_feature), p + 2, 46);
}

static struct error *read_extensions(struct qcow2_header *h, const char *name, const uint8_t *buf,
				     size_t end)
{
	size_t at = h->header_bytes;

	while (at + 8 <= end) {
		uint32_t type = be32(buf + at), len = be32(buf + at + 4);

		at += 8;
		if (type == 0)
			return NULL;
		if (len > end - at)
			return broken(name, "a header extension is longer than the header");
		if (type == QCOW2_EXT_BACKING_FORMAT) {
			if (len >= sizeof(h->backing_format))
				return broken(name, "the name of its backing file's format is too long");
			copy_text(h->backing_format, sizeof(h->backing_format), buf + at, len);
		} else if (type == QCOW2_EXT_FEATURE_NAMES) {
			name_unknown_feature(h, buf + at, len);
		}
		at += align_up(len, 8);
	}
	return NULL;
}

static struct error *check_geometry(const struct qcow2_header *h, const char *name)
{
	uint64_t cluster = 1ull << h->cluster_bits;
	uint64_t l2_covers = cluster * (cluster / 8);

	if (h->size_bytes > INT64_MAX - 2 * MiB)
		return broken(name, "its disk is larger than can be");
	if (h->l1_entries > QCOW2_MAX_L1_BYTES / 8)
		return broken(name, "its L1 table is larger than 32 MiB");
	if (h->l1_offset % cluster || h->l1_offset > INT64_MAX / 2)
		return broken(name, "its L1 table is misplaced");
	if (h->l1_entries < (h->size_bytes + l2_covers - 1) / l2_covers)
		return broken(name, "its L1 table is too small for the disk");
	if (h->rt_clusters > QCOW2_MAX_REFTABLE_BYTES / cluster)
		return broken(name, "its refcount table is larger than 8 MiB");
	if (h->rt_offset % cluster || h->rt_offset > INT64_MAX / 2)
		return broken(name, "its refcount table is misplaced");
	if (h->snapshots > QCOW2_MAX_SNAPSHOTS)
		return broken(name, "it has more than 65536 snapshots");
	if (h->snapshots_offset % cluster || h->snapshots_offset > INT64_MAX / 2)
		return broken(name, "its snapshot table is misplaced");
	return NULL;
}

struct error *qcow2_header_read(int fd, const char *name, struct qcow2_header *h)
{
	uint8_t fixed[QCOW2_HDR_FULL_BYTES] = { 0 };
	uint64_t backing_offset, cluster;
	uint32_t backing_bytes;
	struct error *err;
	uint8_t *buf;
	ssize_t got;

	*h = (struct qcow2_header){ 0 };
	got = pread(fd, fixed, sizeof(fixed), 0);
	if (got < 0)
		return error_errno(errno, "cannot read disk '%s'", name);
	if (got < (ssize_t)QCOW2_HDR_V2_BYTES || be32(fixed) != QCOW2_MAGIC)
		return error_new("disk '%s' is not in qcow2 format; if it is a raw disk say format=raw",
				 name);
	h->version = be32(fixed + 4);
	if (h->version != 2 && h->version != 3)
		return error_new("disk '%s' is qcow2 of version %u; versions 2 and 3 can be used", name,
				 h->version);
	backing_offset = be64(fixed + 8);
	backing_bytes = be32(fixed + 16);
	h->cluster_bits = be32(fixed + 20);
	h->size_bytes = be64(fixed + 24);
	h->encrypted = be32(fixed + 32) != 0;
	h->l1_entries = be32(fixed + 36);
	h->l1_offset = be64(fixed + 40);
	h->rt_offset = be64(fixed + QCOW2_HDR_RT_OFFSET);
	h->rt_clusters = be32(fixed + 56);
	h->snapshots = be32(fixed + 60);
	h->snapshots_offset = be64(fixed + 64);
	h->refcount_order = 4;
	h->header_bytes = QCOW2_HDR_V2_BYTES;
	if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return broken(name, "its cluster size is not between 512 bytes and 2 MiB");
	cluster = 1ull << h->cluster_bits;
	if (h->version == 3) {
		if (got < (ssize_t)QCOW2_HDR_V3_BYTES)
			return broken(name, "its header is cut off");
		h->incompatible = be64(fixed + QCOW2_HDR_INCOMPAT);
		h->compatible = be64(fixed + 80);
		h->autoclear = be64(fixed + QCOW2_HDR_AUTOCLEAR);
		h->refcount_order = be32(fixed + 96);
		h->header_bytes = be32(fixed + 100);
		if (h->refcount_order > 6)
			return broken(name, "its refcounts are wider than 64 bits");
		if (h->header_bytes < QCOW2_HDR_V3_BYTES || h->header_bytes > cluster ||
		    h->header_bytes % 8)
			return broken(name, "its header has an impossible length");
		if (h->header_bytes > QCOW2_HDR_V3_BYTES)
			h->compression = fixed[104];
	}
	err = check_geometry(h, name);
	if (err)
		return err;
	if (backing_offset && (backing_bytes > QCOW2_MAX_BACKING_NAME || backing_offset > cluster ||
			       backing_bytes > cluster - backing_offset))
		return broken(name, "the name of its backing file is misplaced or too long");

	buf = calloc(1, cluster);
	if (!buf)
		return error_new("out of memory reading disk '%s'", name);
	if (io_read(fd, 0, buf, cluster) < 0) {
		err = error_new("cannot read the header of disk '%s'", name);
	} else {
		if (backing_offset)
			copy_text(h->backing_name, sizeof(h->backing_name), buf + backing_offset,
				  backing_bytes);
		err = read_extensions(h, name, buf,
				      backing_offset ? backing_offset : (size_t)cluster);
	}
	free(buf);
	return err;
}

struct error *qcow2_header_usable(const struct qcow2_header *h, const char *name)
{
	uint64_t known = QCOW2_INCOMPAT_EXTENDED_L2 * 2 - 1;

	if (h->encrypted)
		return error_new("disk '%s' is encrypted, which is not supported; convert it to an "
				 "unencrypted image",
				 name);
	if (h->incompatible & ~known)
		return error_new("disk '%s' uses the qcow2 feature '%s', which is not supported; convert "
				 "it with the program that made it",
				 name, h->unknown_feature[0] ? h->unknown_feature : "unknown");
	if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE)
		return error_new("disk '%s' keeps its data in another file, which is not supported; "
				 "convert it to a plain qcow2 image",
				 name);
	if (h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2)
		return error_new("disk '%s' uses subclusters (extended_l2), which is not supported; "
				 "convert it to an image without them",
				 name);
	if (h->incompatible & QCOW2_INCOMPAT_COMPRESSION
		    ? h->compression != QCOW2_ZSTD
		    : h->compression != QCOW2_ZLIB)
		return error_new("disk '%s' is compressed with an unknown method (%u); zlib and zstd "
				 "can be read",
				 name, (unsigned)h->compression);
	return NULL;
}
