/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qcow2 format, private to block/qcow2_*.c. Format: QEMU's docs/interop/qcow2.txt.
 *
 * Theory of operation. A guest cluster's place in the file is found through the active L1 table (all in
 * memory) and an L2 table (in a bounded cache). Which clusters of the file are in use is counted in
 * refcount blocks (a second bounded cache), found through the refcount table (all in memory).
 *
 * Two locks. `lock` guards all metadata; it is held for lookups and changes, not for reading and writing
 * guest data. Before it, a request takes a lock on its range of guest clusters (qcow2_range_*): shared
 * for reading and for writing in place, exclusive for whatever changes where a cluster is. So requests on
 * distinct clusters run in parallel, and no cluster moves under a reader.
 *
 * What is on disk after a crash (kill -9 or power). Changed metadata stays in memory until a flush or
 * until a cache is full, and qcow2_writeback() then writes it in an order in which each step is stable
 * before the next begins:
 *
 *	guest data and refcount blocks → refcount table → L2 tables → L1 table → released clusters
 *
 * A pointer thus reaches the disk after what it points to and after the count that protects it. Clusters
 * that lost their last reference are only counted down (and become free to be used again) once no table
 * on disk refers to them. An interrupted sequence can leave clusters that nobody uses; never one that is
 * used twice.
 *
 * An image is hostile until checked: sizes of tables are capped, every offset is checked when it is used,
 * nothing is written over the image's own tables (qcow2_overlaps). What cannot be right sets the corrupt
 * bit and stops writing; reads of what is intact go on.
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include <endian.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_L1_BYTES (32 * MiB)
#define QCOW2_MAX_REFTABLE_BYTES (8 * MiB)
#define QCOW2_MAX_SNAPSHOTS 65536u
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024u
#define QCOW2_MAX_BACKING_NAME 1023u

#define QCOW2_INCOMPAT_DIRTY (1ull << 0)
#define QCOW2_INCOMPAT_CORRUPT (1ull << 1)
#define QCOW2_INCOMPAT_DATA_FILE (1ull << 2)
#define QCOW2_INCOMPAT_COMPRESSION (1ull << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (1ull << 4)

/* Byte offsets of header fields. */
#define QCOW2_HDR_RT_OFFSET 48
#define QCOW2_HDR_INCOMPAT 72
#define QCOW2_HDR_AUTOCLEAR 88
#define QCOW2_HDR_V2_BYTES 72u
#define QCOW2_HDR_V3_BYTES 104u
#define QCOW2_HDR_FULL_BYTES 112u /* with the compression type, padded to 8 */

#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES 0x6803f857u

/* L1 and L2 entries. */
#define QCOW2_COPIED (1ull << 63) /* the refcount is exactly 1 */
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO 1ull /* L2, version 3 */
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull
#define QCOW2_L1_RESERVED 0x7f000000000001ffull
#define QCOW2_L2_RESERVED 0x3f000000000001feull

enum qcow2_compression { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 };

/* The header, decoded and checked as far as it can be without the tables. */
struct qcow2_header {
	unsigned version;
	unsigned cluster_bits;
	uint64_t size_bytes;
	uint64_t l1_offset;
	uint32_t l1_entries;
	uint64_t rt_offset;
	uint32_t rt_clusters;
	uint64_t snapshots_offset;
	uint32_t snapshots;
	uint64_t incompatible, compatible, autoclear;
	unsigned refcount_order; /* a refcount has 1 << order bits */
	unsigned header_bytes;
	enum qcow2_compression compression;
	bool encrypted;
	char unknown_feature[64]; /* a name for the first unknown incompatible feature */
	char backing_name[QCOW2_MAX_BACKING_NAME + 1]; /* "": none */
	char backing_format[64];		       /* "": not stated */
};
struct error *qcow2_header_read(int fd, const char *name, struct qcow2_header *out) MUST_CHECK;

/* Refuses what cannot be read here (encryption, unknown features …). */
struct error *qcow2_header_usable(const struct qcow2_header *h, const char *name) MUST_CHECK;

/* A table held in memory as a whole (L1, refcount table), in host byte order. */
#define QCOW2_BLOCK_ENTRIES 64u /* entries that are written together: a sector */
struct qcow2_bigtable {
	uint64_t offset;
	uint64_t *entry;
	uint32_t count;
	uint64_t *dirty; /* a bit per QCOW2_BLOCK_ENTRIES entries */
	uint32_t dirty_blocks;
};

/* A cached cluster of metadata, as on disk. */
struct qcow2_table {
	uint64_t offset; /* 0: not in use */
	uint8_t *data;
	uint32_t dirty_from, dirty_to; /* bytes; equal: clean */
	struct qcow2_table *hash_next, *newer, *older;
};

struct qcow2_cache {
	struct qcow2_table *table;
	unsigned count, used;
	struct qcow2_table **hash;
	unsigned hash_mask;
	struct qcow2_table *newest, *oldest;
	unsigned dirty; /* tables */
};

/* A set of file offsets of metadata clusters. */
struct qcow2_set {
	uint64_t *slot;
	uint64_t mask;
	uint64_t used; /* slots that are not empty, deleted ones included */
	uint64_t live;
};

struct qcow2_run {
	uint64_t offset;
	uint64_t clusters;
};

struct qcow2_snapshot {
	uint64_t l1_offset;
	uint32_t l1_entries;
};

/* A request's hold on guest clusters [first, last]; lives on its stack. */
struct qcow2_range {
	uint64_t first, last;
	bool exclusive;
	struct qcow2_range *next;
};

struct qcow2 {
	struct block_image *img;
	struct qcow2_header header;
	unsigned cluster_bits, l2_bits, rb_bits; /* entries of an L2 table, of a refcount block */
	uint64_t cluster_bytes;

	pthread_mutex_t lock; /* guards all below, but ranges */
	struct qcow2_bigtable l1, rt;
	struct qcow2_cache l2, rb;
	struct qcow2_set meta;		/* L2 tables and refcount blocks; writable images */
	struct qcow2_snapshot *snapshot_l1; /* sorted by offset */
	unsigned snapshot_l1_count;
	uint64_t snapshots_bytes;
	uint64_t file_end;	/* no cluster at or behind it is in use */
	bool is_device;		/* what lies behind file_end reads as zeroes in a file only */
	uint64_t free_hint;	/* no free cluster below this index */
	struct qcow2_run *released; /* references dropped, to be counted down after a writeback */
	unsigned released_count;
	bool corrupt;

	pthread_mutex_t range_lock;
	pthread_cond_t range_freed;
	struct qcow2_range *ranges, **ranges_tail; /* in order of arrival */

	pthread_mutex_t unpack_lock; /* the last compressed cluster that was read */
	uint64_t unpacked_entry;
	uint8_t *unpacked;
};

/* Guest-visible meaning of an L2 entry. */
enum qcow2_kind {
	QCOW2_KIND_UNALLOCATED, /* read the backing file */
	QCOW2_KIND_ZERO,
	QCOW2_KIND_ZERO_ALLOCATED, /* zeroes, with a cluster set aside */
	QCOW2_KIND_DATA,
	QCOW2_KIND_COMPRESSED,
};
struct qcow2_entry {
	enum qcow2_kind kind;
	bool copied;
	uint64_t host; /* of compressed data too */
	uint32_t packed_bytes;
};

/* qcow2_table.c; all with `lock` held. */
struct error *qcow2_bigtable_read(struct qcow2 *q, struct qcow2_bigtable *t, uint64_t offset,
				  uint32_t count, const char *what) MUST_CHECK;
void qcow2_bigtable_set(struct qcow2_bigtable *t, uint32_t index, uint64_t value);
int qcow2_bigtable_write(struct qcow2 *q, struct qcow2_bigtable *t);
void qcow2_bigtable_finish(struct qcow2_bigtable *t);
bool qcow2_cache_init(struct qcow2_cache *c, unsigned count);
void qcow2_cache_finish(struct qcow2_cache *c);
/* The table at @offset; @fresh: it is new, do not read it but start with zeroes. May write back. */
int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t offset, bool fresh,
		    struct qcow2_table **out);
void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_table *t, uint32_t from, uint32_t to);
void qcow2_cache_move(struct qcow2_cache *c, struct qcow2_table *t, uint64_t offset);
int qcow2_cache_write(struct qcow2 *q, struct qcow2_cache *c);
bool qcow2_set_init(struct qcow2_set *s);
bool qcow2_set_add(struct qcow2_set *s, uint64_t offset, bool *was_there); /* false: no memory */
void qcow2_set_remove(struct qcow2_set *s, uint64_t offset);
bool qcow2_set_has(const struct qcow2_set *s, uint64_t offset);

/* qcow2_refcount.c; with `lock` held. */
uint64_t qcow2_refcount_in(const struct qcow2 *q, const uint8_t *block, uint64_t index);
void qcow2_refcount_put(const struct qcow2 *q, uint8_t *block, uint64_t index, uint64_t value);
int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out);
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value);
/* 1 to @want clusters in a row; *@fresh: their bytes in the file are zeroes. */
int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *offset, uint64_t *got, bool *fresh);
/* Undoes qcow2_alloc of clusters that no table refers to yet. */
void qcow2_unalloc(struct qcow2 *q, uint64_t offset, uint64_t clusters);
/* Drops a reference that has been removed from a table in memory. */
void qcow2_release(struct qcow2 *q, uint64_t offset, uint64_t clusters);
void qcow2_apply_released(struct qcow2 *q);

/* qcow2_map.c; with `lock` held. */
bool qcow2_decode(const struct qcow2 *q, uint64_t raw, struct qcow2_entry *out);
/* The L2 table for @l1_index; @write: one of our own. *out is NULL if there is none and none is to be made. */
int qcow2_l2_get(struct qcow2 *q, uint64_t l1_index, bool write, struct qcow2_table **out);
/* Drops the reference of an entry that has been overwritten. */
void qcow2_release_entry(struct qcow2 *q, const struct qcow2_entry *e);
static inline uint64_t qcow2_l2_entry(const struct qcow2_table *t, uint64_t index)
{
	return be64toh(((const uint64_t *)t->data)[index]);
}
void qcow2_l2_set(struct qcow2 *q, struct qcow2_table *t, uint64_t index, uint64_t raw);

/* qcow2.c */
/* Opens without looking whether a backing file is needed: for the tools, and the driver's open. */
struct error *qcow2_open_alone(struct block_image *img, struct qcow2 **out) MUST_CHECK;
void qcow2_free(struct qcow2 *q);
int qcow2_sync(struct qcow2 *q);
int qcow2_writeback(struct qcow2 *q); /* `lock` held */
bool qcow2_overlaps(struct qcow2 *q, uint64_t offset, uint64_t clusters); /* `lock` held */
/* Logs, sets the corrupt bit if the image is writable; returns -EIO. `lock` held. */
int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* qcow2_io.c */
int qcow2_read(struct block_image *img, uint64_t offset, struct iov_cursor *cur, uint64_t len);
int qcow2_write(struct block_image *img, uint64_t offset, struct iov_cursor *cur, uint64_t len);
void qcow2_range_take(struct qcow2 *q, struct qcow2_range *r, uint64_t offset, uint64_t len,
		      bool exclusive);
void qcow2_range_drop(struct qcow2 *q, struct qcow2_range *r);

/* qcow2_zero.c */
int qcow2_discard(struct block_image *img, uint64_t offset, uint64_t len);
int qcow2_write_zeroes(struct block_image *img, uint64_t offset, uint64_t len, bool may_unmap);

/* qcow2_unpack.c: @len bytes at @from of the compressed cluster @e, whose L2 entry is @raw. Any thread. */
int qcow2_unpack(struct qcow2 *q, const struct qcow2_entry *e, uint64_t raw, uint64_t from,
		 struct iov_cursor *cur, uint64_t len);

/* qcow2_check.c: counts references and holds them against the refcounts. Nobody else uses the image. */
struct qcow2_check {
	uint64_t errors, leaks;
	uint64_t allocated_clusters; /* of the active disk */
	char first_error[160];
	bool repair; /* raise refcounts that are too low */
};
struct error *qcow2_check(struct qcow2 *q, struct qcow2_check *c) MUST_CHECK;

#endif
