/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk format implements, and what block.c makes of it: private to block/.
 *
 * A format is synchronous and thread-safe: read, write, discard, write_zeroes and flush are called from
 * several worker threads at the same time, with ranges inside the image and multiples of BLOCK_SECTOR.
 * They return 0 or -errno. open and close have the image for themselves.
 */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "block/block.h"
#include "block/io.h"

struct block_image;

struct block_driver {
	const char *name;
	/*
	 * The common part of @img is filled in but for size_bytes; the format allocates what it needs
	 * (img->priv) and sets size_bytes. On failure everything it made is gone again.
	 */
	struct error *(*open)(struct block_image *img);
	int (*read)(struct block_image *img, uint64_t offset, struct iov_cursor *cur, uint64_t len);
	int (*write)(struct block_image *img, uint64_t offset, struct iov_cursor *cur,
		     uint64_t len);
	int (*discard)(struct block_image *img, uint64_t offset, uint64_t len);
	int (*write_zeroes)(struct block_image *img, uint64_t offset, uint64_t len, bool may_unmap);
	int (*flush)(struct block_image *img);
	void (*close)(struct block_image *img); /* flushes; leaves img->fd open */
};

struct block_image {
	const struct block_driver *driver;
	void *priv;
	int fd;
	bool readonly;
	bool is_top; /* not a backing file: worth a larger cache */
	uint64_t size_bytes;
	struct block_image *backing; /* NULL: none */
	const char *name;
	atomic_int sync_error; /* see image_sync */
};

extern const struct block_driver block_raw_driver;
extern const struct block_driver block_qcow2_driver;

/* Opens a chain without threads: for block.c and the image tools. Takes the descriptors on success. */
struct error *image_open_chain(const struct block_open *how, struct block_image **out) MUST_CHECK;
void image_close(struct block_image *img);   /* NULL-safe; closes the descriptors too */
void image_release(struct block_image *img); /* NULL-safe; gives the descriptors back to the caller */

/*
 * fdatasync. Once it has failed it fails for good: the kernel forgets which pages it could not write, so
 * that a later success would promise what is not so.
 */
int image_sync(struct block_image *img);

/* Writes zeroes the long way, through the format's own write. */
int image_write_zero_bytes(struct block_image *img, uint64_t offset, uint64_t len);

/* Size of what @fd refers to, a regular file or a block device. */
struct error *image_fd_size(int fd, const char *name, uint64_t *out) MUST_CHECK;

#endif
