/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk in memory for virtio-blk: requests wait until the test completes them, in the order it
 * likes.
 */
#ifndef TESTS_UNIT_FAKE_DISK_H
#define TESTS_UNIT_FAKE_DISK_H

#include <assert.h>
#include <errno.h>

#include "dev/virtio/virtio_blk.h"

#define FAKE_DISK_BYTES (256 * KiB)
#define FAKE_DISK_PENDING 512u

struct fake_disk {
	uint8_t bytes[FAKE_DISK_BYTES];
	struct block_request *pending[FAKE_DISK_PENDING];
	unsigned count;
	bool readonly;
	int fail; /* the next request completes with this result */
	unsigned flushes, discards, zeroes, drains;
	bool may_unmap;
};

static inline struct fake_disk *fake_disk_of(const struct block_device *disk)
{
	return (struct fake_disk *)disk;
}

static inline void fake_disk_submit(struct block_device *disk, struct block_request *req)
{
	struct fake_disk *f = fake_disk_of(disk);

	assert(f->count < FAKE_DISK_PENDING);
	f->pending[f->count++] = req;
}

/* Performs and completes the @i-th of the pending requests. */
static inline void fake_disk_complete(struct fake_disk *f, unsigned i)
{
	struct block_request *req = f->pending[i];
	uint8_t *at;

	assert(i < f->count);
	memmove(&f->pending[i], &f->pending[i + 1], (f->count - i - 1) * sizeof(f->pending[0]));
	f->count--;
	/*
	 * What the device may ask for at all; the block layer checks it too, but here nothing slips
	 * through.
	 */
	assert(req->offset_bytes % BLOCK_SECTOR == 0 && req->length_bytes % BLOCK_SECTOR == 0);
	assert(req->offset_bytes <= FAKE_DISK_BYTES);
	assert(req->length_bytes <= FAKE_DISK_BYTES - req->offset_bytes);
	at = f->bytes + req->offset_bytes;
	req->result = f->fail;
	f->fail = 0;
	if (!req->result) {
		uint64_t sum = 0;

		for (int v = 0; v < req->iov_count; v++) {
			if (req->op == BLOCK_READ)
				memcpy(req->iov[v].iov_base, at + sum, req->iov[v].iov_len);
			else
				memcpy(at + sum, req->iov[v].iov_base, req->iov[v].iov_len);
			sum += req->iov[v].iov_len;
		}
		assert(sum ==
		       (req->op == BLOCK_READ || req->op == BLOCK_WRITE ? req->length_bytes : 0));
		f->flushes += req->op == BLOCK_FLUSH;
		f->discards += req->op == BLOCK_DISCARD;
		if (req->op == BLOCK_WRITE_ZEROES) {
			f->zeroes++;
			f->may_unmap = req->may_unmap;
			memset(at, 0, req->length_bytes);
		}
	}
	req->done(req);
}

static inline void fake_disk_complete_all(struct fake_disk *f)
{
	while (f->count)
		fake_disk_complete(f, 0);
}

static inline void fake_disk_drain(struct block_device *disk)
{
	fake_disk_of(disk)->drains++;
	fake_disk_complete_all(fake_disk_of(disk));
}

static inline uint64_t fake_disk_size(const struct block_device *disk)
{
	return FAKE_DISK_BYTES;
}

static inline bool fake_disk_is_readonly(const struct block_device *disk)
{
	return fake_disk_of(disk)->readonly;
}

static const struct virtio_blk_disk_ops fake_disk_ops = {
	fake_disk_submit,
	fake_disk_drain,
	fake_disk_size,
	fake_disk_is_readonly,
};

#endif
