// SPDX-License-Identifier: Apache-2.0
/*
 * The raw format: the disk's bytes are the file's bytes. A file whose size is not a multiple of 512 has
 * its last sector filled up with zeroes. Threading: stateless, the kernel orders what overlaps.
 */
#include <errno.h>
#include <fcntl.h>

#include "block/driver.h"

static struct error *raw_open(struct block_image *img)
{
	struct error *err;
	uint64_t size;

	if (img->backing)
		return error_new("raw disk '%s' was given a backing file, and a raw disk has none",
				 img->name);
	err = image_fd_size(img->fd, img->name, &size);
	if (err)
		return err;
	img->size_bytes = align_up(size, BLOCK_SECTOR);
	return NULL;
}

static int raw_read(struct block_image *img, uint64_t offset, struct iov_cursor *cur, uint64_t len)
{
	return io_readv(img->fd, offset, cur, len);
}

static int raw_write(struct block_image *img, uint64_t offset, struct iov_cursor *cur, uint64_t len)
{
	return io_writev(img->fd, offset, cur, len);
}

static int raw_discard(struct block_image *img, uint64_t offset, uint64_t len)
{
	int r = io_punch(img->fd, offset, len);

	return r == -EOPNOTSUPP ? 0 : r; /* a discard is only advice */
}

static int raw_write_zeroes(struct block_image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	int r;

	if (may_unmap) {
		r = io_punch(img->fd, offset, len);
		if (r != -EOPNOTSUPP)
			return r;
	}
	do {
		r = fallocate(img->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			      (off_t)len);
	} while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	if (errno == ENOSPC || errno == EIO)
		return -errno;
	return image_write_zero_bytes(img, offset, len);
}

static int raw_flush(struct block_image *img)
{
	return img->readonly ? 0 : image_sync(img);
}

static void raw_close(struct block_image *img)
{
	raw_flush(img);
}

const struct block_driver block_raw_driver = {
	.name = "raw",
	.open = raw_open,
	.read = raw_read,
	.write = raw_write,
	.discard = raw_discard,
	.write_zeroes = raw_write_zeroes,
	.flush = raw_flush,
	.close = raw_close,
};
