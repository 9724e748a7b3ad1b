// SPDX-License-Identifier: Apache-2.0
/* Describing and checking disk images. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/image.h"
#include "block/qcow2.h"

/* Read only and without a lock: an image that is in use can be described. */
static struct error *open_to_look(const char *path, int *out)
{
	*out = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (*out < 0)
		return error_errno(errno, "cannot open '%s'", path);
	return NULL;
}

static struct error *describe(int fd, const char *path, struct image_info *out)
{
	struct qcow2_header h;
	struct error *err;
	struct stat st;

	err = image_fd_size(fd, path, &out->size_bytes);
	if (err)
		return err;
	if (fstat(fd, &st) == 0)
		out->host_bytes = S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * 512 :
							out->size_bytes;
	out->size_bytes = align_up(out->size_bytes, BLOCK_SECTOR);
	if (out->format == BLOCK_FORMAT_RAW)
		return NULL;
	err = qcow2_header_read(fd, path, &h);
	if (err)
		return err;
	out->size_bytes = align_up(h.size_bytes, BLOCK_SECTOR);
	out->version = h.version;
	out->cluster_bytes = 1u << h.cluster_bits;
	out->refcount_bits = 1u << h.refcount_order;
	out->snapshots = h.snapshots;
	out->compression = h.compression == QCOW2_ZLIB ? "zlib" :
			   h.compression == QCOW2_ZSTD ? "zstd" :
							 "unknown";
	out->dirty = h.incompatible & QCOW2_INCOMPAT_DIRTY;
	out->corrupt = h.incompatible & QCOW2_INCOMPAT_CORRUPT;
	out->encrypted = h.encrypted;
	snprintf(out->backing, sizeof(out->backing), "%s", h.backing_name);
	snprintf(out->backing_format, sizeof(out->backing_format), "%s", h.backing_format);
	return NULL;
}

struct error *image_info(const char *path, enum block_format format, struct image_info *out)
{
	struct error *err;
	int fd;

	*out = (struct image_info){ .format = format };
	err = open_to_look(path, &fd);
	if (err)
		return err;
	err = describe(fd, path, out);
	close(fd);
	return err;
}

struct error *image_check(const char *path, enum block_format format, struct image_check *out)
{
	struct qcow2_check c = { 0 };
	struct error *err;
	struct qcow2 *q;
	int fd;

	*out = (struct image_check){ 0 };
	err = open_to_look(path, &fd);
	if (err)
		return err;
	if (format == BLOCK_FORMAT_QCOW2) {
		struct block_image img = { .fd = fd, .readonly = true, .name = path };

		err = qcow2_open_alone(&img, &q);
		if (!err) {
			err = qcow2_check(q, &c);
			out->allocated_bytes = c.allocated_clusters << q->cluster_bits;
			qcow2_free(q);
		}
		out->errors = c.errors;
		out->leaks = c.leaks;
		snprintf(out->first_error, sizeof(out->first_error), "%s", c.first_error);
	}
	close(fd);
	return err;
}
