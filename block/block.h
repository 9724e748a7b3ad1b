/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block interface: an asynchronous disk of bytes that a device model reads and writes.
 *
 * Theory of operation. A request is submitted with the machine's lock held and completes later in the
 * loop's thread, with the lock held; never inside submit. The number of requests in flight is the
 * caller's to bound. Formats run on worker threads; requests may complete in any order; a flush covers
 * every request that completed before the flush was submitted: when it completes, they are on stable storage.
 *
 * Ownership: the request is embedded in its owner and stays untouched until done() is called.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

#define BLOCK_SECTOR 512u

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

struct block_request {
	enum block_op op;
	uint64_t offset_bytes; /* multiple of BLOCK_SECTOR; offset + length within the disk: checked, else -EINVAL */
	uint64_t length_bytes; /* for READ and WRITE: the sum of iov */
	struct iovec *iov;     /* READ and WRITE; points into guest RAM or buffers; stays until done */
	int iov_count;
	bool may_unmap; /* WRITE_ZEROES: may deallocate */
	int result;	/* 0, or -errno (-EIO, -ENOSPC, -EROFS, -EINVAL …) */
	void (*done)(struct block_request *req); /* loop thread, lock held */
	void *opaque;

	/* Private to the block layer. */
	struct block_request *next;
	struct block_device *device;
};

struct block_device;

enum block_format { BLOCK_FORMAT_RAW, BLOCK_FORMAT_QCOW2 };

/* "raw", "qcow2"; false when unknown. */
bool block_format_parse(const char *name, enum block_format *out);
const char *block_format_name(enum block_format format);

/*
 * What opens a disk: descriptors only, so that a sandboxed process can. chain[0] is the image itself,
 * chain[1] its backing file, and so on; all but the first are read-only. The formats come from the
 * configuration, never from the content; backing-file names in headers are never followed here.
 */
#define BLOCK_CHAIN_MAX 16
struct block_open {
	bool readonly;
	unsigned count;
	struct {
		int fd; /* taken over on success, left to the caller on failure */
		enum block_format format;
	} chain[BLOCK_CHAIN_MAX];
	const char *name; /* for messages; copied */
};
struct error *block_open(struct loop *loop, const struct block_open *how,
			 struct block_device **out) MUST_CHECK;

/* Waits for all requests, flushes, closes. NULL-safe. */
void block_close(struct block_device *dev);

void block_submit(struct block_device *dev, struct block_request *req);

/* Blocks until every request in flight has been completed (their done() has run). Loop thread, lock held. */
void block_drain(struct block_device *dev);

/* What has been done since it was opened. Lock held. */
struct block_counters {
	uint64_t reads, writes, read_bytes, written_bytes;
	uint64_t errors; /* requests of any kind that failed */
};
void block_get_counters(const struct block_device *dev, struct block_counters *out);

uint64_t block_size_bytes(const struct block_device *dev); /* multiple of BLOCK_SECTOR */
bool block_is_readonly(const struct block_device *dev);
const char *block_name(const struct block_device *dev);

#endif
