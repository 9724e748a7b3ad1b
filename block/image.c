// SPDX-License-Identifier: Apache-2.0
/*
 * Disk images without threads: opening a chain of them, and what the formats share. See driver.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/driver.h"

static const struct {
	enum block_format format;
	const struct block_driver *driver;
} formats[] = {
	{ BLOCK_FORMAT_RAW, &block_raw_driver },
	{ BLOCK_FORMAT_QCOW2, &block_qcow2_driver },
};

bool block_format_parse(const char *name, enum block_format *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		if (strcmp(name, formats[i].driver->name) == 0) {
			*out = formats[i].format;
			return true;
		}
	}
	return false;
}

static const struct block_driver *format_driver(enum block_format format)
{
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
		if (formats[i].format == format)
			return formats[i].driver;
	return NULL;
}

const char *block_format_name(enum block_format format)
{
	const struct block_driver *d = format_driver(format);

	return d ? d->name : "unknown";
}

struct error *image_fd_size(int fd, const char *name, uint64_t *out)
{
	struct stat st;
	off_t end;

	if (fstat(fd, &st) < 0)
		return error_errno(errno, "cannot examine disk '%s'", name);
	if (S_ISREG(st.st_mode)) {
		*out = (uint64_t)st.st_size;
		return NULL;
	}
	if (!S_ISBLK(st.st_mode))
		return error_new("disk '%s' is neither a regular file nor a block device", name);
	end = lseek(fd, 0, SEEK_END);
	if (end < 0)
		return error_errno(errno, "cannot find out the size of block device '%s'", name);
	*out = (uint64_t)end;
	return NULL;
}

int image_sync(struct block_image *img)
{
	int err = atomic_load(&img->sync_error);

	if (err)
		return err;
	if (fdatasync(img->fd) < 0) {
		err = errno == ENOSPC || errno == EDQUOT ? -ENOSPC : -EIO;
		atomic_store(&img->sync_error, err);
	}
	return err;
}

int image_write_zero_bytes(struct block_image *img, uint64_t offset, uint64_t len)
{
	while (len > 0) {
		uint64_t here = MIN(len, IO_ZEROES_BYTES);
		struct iovec v = { (void *)io_zeroes, here };
		struct iov_cursor cur = { &v, 1, 0 };
		int r = img->driver->write(img, offset, &cur, here);

		if (r < 0)
			return r;
		offset += here;
		len -= here;
	}
	return 0;
}

/* Frees the images; closes the descriptors only if they are ours already. */
static void chain_free(struct block_image *img, bool close_fds)
{
	while (img) {
		struct block_image *backing = img->backing;

		if (img->size_bytes != UINT64_MAX)
			img->driver->close(img);
		if (close_fds)
			close(img->fd);
		free((char *)img->name);
		free(img);
		img = backing;
	}
}

struct error *image_open_chain(const struct block_open *how, struct block_image **out)
{
	struct block_image *img = NULL;

	if (how->count == 0 || how->count > BLOCK_CHAIN_MAX)
		return error_new("disk '%s' has a chain of %u images; 1 to %d can be used", how->name,
				 how->count, BLOCK_CHAIN_MAX);
	/* From the far end of the chain, for an image opens on top of its backing file. */
	for (unsigned i = how->count; i-- > 0;) {
		const struct block_driver *driver = format_driver(how->chain[i].format);
		struct block_image *next;
		struct error *err;

		if (!driver) {
			chain_free(img, false);
			return error_new("disk '%s' has a format that does not exist", how->name);
		}
		next = calloc(1, sizeof(*next));
		if (!next || !(next->name = strdup(how->name))) {
			free(next);
			chain_free(img, false);
			return error_new("out of memory opening disk '%s'", how->name);
		}
		next->driver = driver;
		next->fd = how->chain[i].fd;
		next->readonly = how->readonly || i > 0;
		next->is_top = i == 0;
		next->backing = img;
		next->size_bytes = UINT64_MAX; /* not open yet */
		img = next;
		err = driver->open(img);
		if (err) {
			if (i > 0)
				err = error_wrap(err, "backing file %u", i);
			img->size_bytes = UINT64_MAX;
			chain_free(img, false);
			return err;
		}
	}
	*out = img;
	return NULL;
}

void image_close(struct block_image *img)
{
	chain_free(img, true);
}

void image_release(struct block_image *img)
{
	chain_free(img, false);
}
