/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk images for programs that may open files by name: making, describing and checking them, and
 * turning a path into the descriptors that a sandboxed VM is given.
 */
#ifndef BLOCK_IMAGE_H
#define BLOCK_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "block/block.h"

/*
 * Claims an open disk for this open file description: exclusively to write, shared to read. Fails when
 * another program (a VM, QEMU) has it and one of the two writes. On failure the descriptor is to be closed. The claim ends when the last copy of @fd is closed, so it follows
 * the descriptor into the VM process. @name is for the message.
 */
struct error *block_lock(int fd, bool readonly, const char *name) MUST_CHECK;

/*
 * Opens and locks @path and, for qcow2, the backing files it names, each relative to the directory of the
 * image that names it, and none outside of the directory of @path; or the first of them is @backing, if the
 * user says so, and the others are not outside of that one's. At most BLOCK_CHAIN_MAX images, no cycles, regular
 * files and block devices only; the format of each backing file has to be stated in the header above it.
 * The caller owns the descriptors; out->name is @path itself.
 */
struct error *block_resolve_chain(const char *path, const char *backing, enum block_format format,
				  bool readonly, struct block_open *out) MUST_CHECK;
void block_open_close(struct block_open *how); /* closes the descriptors, for callers that stop here */

struct image_options { /* zero: the default */
	uint32_t cluster_bytes; /* qcow2: 512 … 2 MiB, a power of two; 64 KiB */
	unsigned refcount_bits; /* qcow2: 1 … 64, a power of two; 16 */
	unsigned version;	/* qcow2: 2 or 3; 3 */
};

/*
 * Makes a new image; @path must not exist. @size_bytes is rounded up to a sector; 0 with a backing file:
 * the backing file's size. @backing (or NULL) is written into the header as given, so relative names are
 * relative to the new image. @options may be NULL. On failure nothing is left behind.
 */
struct error *image_create(const char *path, enum block_format format, uint64_t size_bytes,
			   const char *backing, enum block_format backing_format,
			   const struct image_options *options) MUST_CHECK;

struct image_info {
	enum block_format format;
	uint64_t size_bytes; /* of the disk */
	uint64_t host_bytes; /* taken on the host */
	/* qcow2 */
	unsigned version;
	uint32_t cluster_bytes;
	unsigned refcount_bits;
	unsigned snapshots;
	const char *compression; /* "zlib", "zstd" */
	bool dirty, corrupt, encrypted;
	char backing[1024];	 /* "": none */
	char backing_format[64]; /* "": not stated */
};
struct error *image_info(const char *path, enum block_format format, struct image_info *out) MUST_CHECK;

struct image_check {
	uint64_t errors; /* to be repaired before the image is written to */
	uint64_t leaks;	 /* clusters that nobody uses: wasted space, harmless */
	uint64_t allocated_bytes;
	char first_error[160];
};
/* Holds the references of a qcow2 image against its counts; a raw image has nothing to check. */
struct error *image_check(const char *path, enum block_format format, struct image_check *out) MUST_CHECK;

#endif
