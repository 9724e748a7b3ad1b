// SPDX-License-Identifier: Apache-2.0
/*
 * Hostile qcow2 images: the input is an image's bytes. It is opened read-only and checked, then opened to
 * be written to (if it allows that), read, written, zeroed, discarded and flushed here and there, and
 * closed. The guest's writes must leave the header's backing file name and size alone whatever the tables
 * say.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "block/driver.h"
#include "block/qcow2.h"

#define INPUT_MAX (256u * 1024)
#define IO_BYTES (96u * 1024)

static struct block_image *open_image(int fd, bool readonly)
{
	struct block_image *img = calloc(1, sizeof(*img));
	struct error *err;

	*img = (struct block_image){ .driver = &block_qcow2_driver, .fd = fd, .readonly = readonly,
				     .is_top = true, .name = "fuzz" };
	err = img->driver->open(img);
	if (!err)
		return img;
	assert(error_message(err)[0]);
	error_free(err);
	free(img);
	return NULL;
}

static void close_image(struct block_image *img)
{
	if (img)
		img->driver->close(img);
	free(img);
}

static void touch(struct block_image *img, uint8_t *buf)
{
	uint64_t sectors = img->size_bytes / BLOCK_SECTOR;

	for (unsigned i = 0; i < 16 && sectors > 0; i++) {
		/* The start, the middle, the end, and places between. */
		uint64_t offset = (i < 3 ? (sectors - 1) / 2 * i : sectors / 17 * i) * BLOCK_SECTOR;
		uint64_t len = MIN(IO_BYTES >> i % 4, img->size_bytes - offset);
		struct iovec v = { buf, len };
		struct iov_cursor cur = { &v, 1, 0 };

		img->driver->read(img, offset, &cur, len);
		if (img->readonly)
			continue;
		cur = (struct iov_cursor){ &v, 1, 0 };
		switch (i % 5) {
		case 0:
			img->driver->discard(img, offset, len);
			break;
		case 1:
			img->driver->write_zeroes(img, offset, len, i & 1);
			break;
		case 2:
			img->driver->flush(img);
			break;
		default:
			img->driver->write(img, offset, &cur, len);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qcow2_check check = { 0 };
	struct qcow2_header before, after;
	struct block_image *img;
	struct error *err;
	uint8_t *buf;
	int fd;

	if (size > INPUT_MAX)
		return 0;
	log_init("fuzz", LOG_LEVEL_ERROR);
	fd = memfd_create("fuzz", MFD_CLOEXEC);
	buf = calloc(1, IO_BYTES);
	if (fd < 0 || !buf || io_write(fd, 0, data, size) < 0)
		abort();
	img = open_image(fd, true);
	if (img) {
		touch(img, buf);
		err = qcow2_check(img->priv, &check);
		error_free(err);
		close_image(img);
		err = qcow2_header_read(fd, "fuzz", &before);
		assert(!err);
		img = open_image(fd, false);
		if (img) {
			memset(buf, 0x5a, IO_BYTES);
			touch(img, buf);
			close_image(img);
		}
		err = qcow2_header_read(fd, "fuzz", &after);
		assert(!err);
		assert(strcmp(before.backing_name, after.backing_name) == 0);
		assert(before.size_bytes == after.size_bytes);
	}
	free(buf);
	close(fd);
	return 0;
}
