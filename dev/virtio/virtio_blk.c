/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio block device: several queues onto one asynchronous disk.
 *
 * Theory of operation. A request is a descriptor chain: a header of 16 bytes to read, data, and one
 * status byte to write, the last of the chain; how they are cut into buffers is the driver's
 * affair. Each request takes one of a fixed number of slots, which holds the chain's vector and the
 * block layer's request, until the block layer is done with it. Without a free slot the queues
 * wait; a completion lets them go on.
 *
 * The data vector points into guest RAM and goes to the block layer as it is. What was read into
 * RAM is announced with mem_written before the request is returned.
 *
 * If the driver does not know flushes, each write is followed by one before it is returned
 * (5.2.6.2).
 *
 * Reset: slots in flight are waited for (see virtio.c), so no slot outlives the driver that filled
 * it.
 *
 * Manual: virtio 1.2, section 5.2.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "dev/virtio/virtio_blk.h"

enum {
	VIRTIO_BLK_F_SIZE_MAX = 1,
	VIRTIO_BLK_F_SEG_MAX = 2,
	VIRTIO_BLK_F_RO = 5,
	VIRTIO_BLK_F_BLK_SIZE = 6,
	VIRTIO_BLK_F_FLUSH = 9,
	VIRTIO_BLK_F_TOPOLOGY = 10,
	VIRTIO_BLK_F_MQ = 12,
	VIRTIO_BLK_F_DISCARD = 13,
	VIRTIO_BLK_F_WRITE_ZEROES = 14,
};

enum {
	TYPE_IN = 0,
	TYPE_OUT = 1,
	TYPE_FLUSH = 4,
	TYPE_GET_ID = 8,
	TYPE_DISCARD = 11,
	TYPE_WRITE_ZEROES = 13
};
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

#define UNMAP_FLAG 1u
#define RANGE_SECTORS_MAX (1u << 22) /* of a discard or write-zeroes: 2 GiB */

/* struct virtio_blk_config (section 5.2.4), by offset. */
enum {
	CONFIG_CAPACITY = 0,
	CONFIG_SIZE_MAX = 8,
	CONFIG_SEG_MAX = 12,
	CONFIG_BLK_SIZE = 20,
	CONFIG_PHYSICAL_BLOCK_EXP = 24,
	CONFIG_MIN_IO_SIZE = 26,
	CONFIG_OPT_IO_SIZE = 28,
	CONFIG_NUM_QUEUES = 34,
	CONFIG_MAX_DISCARD_SECTORS = 36,
	CONFIG_MAX_DISCARD_SEG = 40,
	CONFIG_DISCARD_ALIGNMENT = 44,
	CONFIG_MAX_WRITE_ZEROES_SECTORS = 48,
	CONFIG_MAX_WRITE_ZEROES_SEG = 52,
	CONFIG_WRITE_ZEROES_MAY_UNMAP = 56,
	CONFIG_BYTES = 60,
};

/* Header and status may each have a buffer of its own. */
#define SLOT_IOV (VIRTIO_BLK_SEGMENTS + 2)

struct header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};

struct range {
	uint64_t sector;
	uint32_t count;
	uint32_t flags;
};

struct virtio_blk;

struct slot {
	struct block_request req;
	struct virtio_blk *blk;
	struct slot *next_free;
	unsigned queue;
	uint32_t data_in; /* bytes of the in part before the status */
	struct virtqueue_chain chain;
	struct iovec iov[SLOT_IOV];  /* of the chain */
	struct iovec data[SLOT_IOV]; /* of the request */
};

struct virtio_blk {
	struct virtio_device v;
	struct block_device *disk;
	const struct virtio_blk_disk_ops *disk_ops;
	bool readonly;
	char serial[VIRTIO_BLK_ID_BYTES];
	struct slot *free;
	unsigned in_flight;
	uint32_t waiting; /* queues that found no slot */
	struct slot slots[VIRTIO_BLK_SLOTS];
};

const struct virtio_blk_disk_ops virtio_blk_block_layer = {
	.submit = block_submit,
	.drain = block_drain,
	.size_bytes = block_size_bytes,
	.is_readonly = block_is_readonly,
};

static void put_slot(struct virtio_blk *blk, struct slot *s)
{
	s->next_free = blk->free;
	blk->free = s;
}

/* Returns the chain, with @data_written bytes of data and @status in it; frees the slot. */
static void finish(struct slot *s, uint8_t status, uint32_t data_written)
{
	struct virtio_blk *blk = s->blk;
	struct virtio_device *v = &blk->v;
	struct virtqueue *vq = &v->queues[s->queue];

	if (virtio_is_live(v)) {
		virtqueue_write(vq, &s->chain, s->data_in, &status, 1);
		/* The length counts from the start of the in part: all of it only after data. */
		virtio_push(v, s->queue, s->chain.head,
			    data_written == s->data_in ? data_written + 1 : 0);
	}
	put_slot(blk, s);
}

/* A slot of @queue became free: it comes last, so that a busy queue does not starve the others. */
static void run_waiting(struct virtio_blk *blk, unsigned queue)
{
	uint32_t mask = blk->waiting;

	blk->waiting = 0;
	for (unsigned i = 1; i <= blk->v.queue_count; i++) {
		unsigned q = (queue + i) % blk->v.queue_count;

		if (mask & (1u << q))
			virtio_notify(&blk->v, q);
	}
}

static bool changes_disk(enum block_op op)
{
	return op == BLOCK_WRITE || op == BLOCK_DISCARD || op == BLOCK_WRITE_ZEROES;
}

static void request_done(struct block_request *req)
{
	struct slot *s = container_of(req, struct slot, req);
	struct virtio_blk *blk = s->blk;
	uint32_t data = 0;

	if (req->result == 0 && changes_disk(req->op) && !virtio_has(&blk->v, VIRTIO_BLK_F_FLUSH)) {
		req->op = BLOCK_FLUSH;
		req->offset_bytes = req->length_bytes = 0;
		req->iov_count = 0;
		blk->disk_ops->submit(blk->disk, req);
		return;
	}
	assert(blk->in_flight);
	blk->in_flight--;
	if (req->op == BLOCK_READ) {
		/* Even a failed read may have changed memory, and even after the driver is gone. */
		virtqueue_written(&blk->v.queues[s->queue], &s->chain, 0, s->data_in);
		data = s->data_in;
	}
	finish(s, req->result == 0 ? STATUS_OK : STATUS_IOERR, data);
	if (blk->v.resetting) {
		if (!blk->in_flight)
			virtio_stopped(&blk->v);
	} else if (blk->waiting) {
		run_waiting(blk, s->queue);
	}
}

/* Fills in the request; the caller completes it and hands it to the disk. */
static void prepare(struct slot *s, enum block_op op, uint64_t sector, uint64_t bytes)
{
	struct virtio_blk *blk = s->blk;
	struct block_request *req = &s->req;

	*req = (struct block_request){
		.op = op,
		.offset_bytes = sector * BLOCK_SECTOR,
		.length_bytes = bytes,
		.iov = s->data,
		.done = request_done,
		.opaque = s,
	};
	blk->in_flight++;
}

/* Whether [sector, + bytes) lies on the disk, in whole sectors. */
static bool range_ok(const struct virtio_blk *blk, uint64_t sector, uint64_t bytes)
{
	uint64_t sectors = blk->disk_ops->size_bytes(blk->disk) / BLOCK_SECTOR;

	return bytes % BLOCK_SECTOR == 0 && sector <= sectors &&
	       bytes / BLOCK_SECTOR <= sectors - sector;
}

static void transfer(struct slot *s, const struct header *h)
{
	struct virtio_blk *blk = s->blk;
	const struct virtqueue_chain *chain = &s->chain;
	bool in = h->type == TYPE_IN;
	uint64_t bytes = in ? s->data_in : chain->out_bytes - sizeof(*h);
	struct iovec *data = s->data;
	unsigned count = in ? chain->in_count : chain->out_count;

	if (!range_ok(blk, h->sector, bytes) ||
	    bytes > VIRTIO_BLK_SEGMENTS * VIRTIO_BLK_SEGMENT_BYTES || (!in && blk->readonly)) {
		finish(s, STATUS_IOERR, 0);
		return;
	}
	if (bytes == 0) {
		finish(s, STATUS_OK, 0);
		return;
	}
	memcpy(data, in ? s->iov + chain->out_count : s->iov, count * sizeof(*data));
	if (in)
		virtqueue_iov_trim(data, &count, 1);
	else
		virtqueue_iov_skip(&data, &count, sizeof(*h));
	prepare(s, in ? BLOCK_READ : BLOCK_WRITE, h->sector, bytes);
	s->req.iov = data;
	s->req.iov_count = (int)count;
	blk->disk_ops->submit(blk->disk, &s->req);
}

static void discard_or_zero(struct slot *s, bool zero)
{
	struct virtio_blk *blk = s->blk;
	struct range r;
	uint64_t bytes;

	if (!virtio_has(&blk->v, zero ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD)) {
		finish(s, STATUS_UNSUPP, 0);
		return;
	}
	/* Exactly one range, as max_*_seg say. */
	if (blk->readonly || s->chain.out_bytes != sizeof(struct header) + sizeof(r)) {
		finish(s, STATUS_IOERR, 0);
		return;
	}
	virtqueue_read(&s->chain, sizeof(struct header), &r, sizeof(r));
	if (r.flags & (zero ? ~UNMAP_FLAG : ~0u)) {
		finish(s, STATUS_UNSUPP, 0);
		return;
	}
	bytes = (uint64_t)r.count * BLOCK_SECTOR;
	if (r.count > RANGE_SECTORS_MAX || !range_ok(blk, r.sector, bytes)) {
		finish(s, STATUS_IOERR, 0);
		return;
	}
	if (bytes == 0) {
		finish(s, STATUS_OK, 0);
		return;
	}
	prepare(s, zero ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD, r.sector, bytes);
	s->req.may_unmap = r.flags & UNMAP_FLAG;
	blk->disk_ops->submit(blk->disk, &s->req);
}

static void get_id(struct slot *s)
{
	struct virtio_blk *blk = s->blk;
	uint32_t n = MIN(s->data_in, VIRTIO_BLK_ID_BYTES);

	virtqueue_write(&blk->v.queues[s->queue], &s->chain, 0, blk->serial, n);
	finish(s, STATUS_OK, n);
}

/* False: the chain is no request, and not even its status can be reported. */
static bool handle(struct slot *s)
{
	struct virtio_blk *blk = s->blk;
	struct header h;

	if (virtqueue_read(&s->chain, 0, &h, sizeof(h)) != sizeof(h) || s->chain.in_bytes == 0)
		return false;
	s->data_in = s->chain.in_bytes - 1;
	switch (h.type) {
	case TYPE_IN:
	case TYPE_OUT: transfer(s, &h); break;
	case TYPE_FLUSH:
		prepare(s, BLOCK_FLUSH, 0, 0);
		blk->disk_ops->submit(blk->disk, &s->req);
		break;
	case TYPE_GET_ID: get_id(s); break;
	case TYPE_DISCARD:
	case TYPE_WRITE_ZEROES: discard_or_zero(s, h.type == TYPE_WRITE_ZEROES); break;
	default: finish(s, STATUS_UNSUPP, 0);
	}
	return true;
}

static void blk_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_blk *blk = container_of(v, struct virtio_blk, v);

	for (unsigned budget = v->queues[queue].size; budget; budget--) {
		struct slot *s = blk->free;

		if (!s) {
			blk->waiting |= 1u << queue;
			return;
		}
		if (!virtio_pop(v, queue, &s->chain))
			return;
		blk->free = s->next_free;
		s->queue = queue;
		if (!handle(s)) {
			put_slot(blk, s);
			virtio_break(v, "a request without header or status");
			return;
		}
	}
	virtio_requeue(v, queue);
}

static bool blk_stop(struct virtio_device *v)
{
	struct virtio_blk *blk = container_of(v, struct virtio_blk, v);

	blk->waiting = 0;
	return blk->in_flight == 0;
}

static void blk_drain(struct virtio_device *v)
{
	struct virtio_blk *blk = container_of(v, struct virtio_blk, v);

	/* A write may be followed by a flush of its own. */
	while (blk->in_flight)
		blk->disk_ops->drain(blk->disk);
}

static void blk_destroy(struct virtio_device *v)
{
	struct virtio_blk *blk = container_of(v, struct virtio_blk, v);

	assert(!blk->in_flight);
	virtio_finish(v);
	free(blk);
}

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk",
	.id = VIRTIO_ID_BLOCK,
	.class_code = 0x010000,
	.notify = blk_notify,
	.stop = blk_stop,
	.drain = blk_drain,
	.destroy = blk_destroy,
};

static void fill_config(struct virtio_blk *blk, unsigned queues)
{
	uint8_t *c = blk->v.config;

	blk->v.config_len = CONFIG_BYTES;
	store_le(c + CONFIG_CAPACITY, blk->disk_ops->size_bytes(blk->disk) / BLOCK_SECTOR, 8);
	store_le(c + CONFIG_SIZE_MAX, VIRTIO_BLK_SEGMENT_BYTES, 4);
	store_le(c + CONFIG_SEG_MAX, VIRTIO_BLK_SEGMENTS, 4);
	store_le(c + CONFIG_BLK_SIZE, BLOCK_SECTOR, 4);
	/* 512-byte sectors on 4 KiB pages of the host: whole pages are faster. */
	c[CONFIG_PHYSICAL_BLOCK_EXP] = 3;
	store_le(c + CONFIG_MIN_IO_SIZE, 8, 2);
	store_le(c + CONFIG_OPT_IO_SIZE, 0, 4);
	store_le(c + CONFIG_NUM_QUEUES, queues, 2);
	store_le(c + CONFIG_MAX_DISCARD_SECTORS, RANGE_SECTORS_MAX, 4);
	store_le(c + CONFIG_MAX_DISCARD_SEG, 1, 4);
	store_le(c + CONFIG_DISCARD_ALIGNMENT, 8, 4);
	store_le(c + CONFIG_MAX_WRITE_ZEROES_SECTORS, RANGE_SECTORS_MAX, 4);
	store_le(c + CONFIG_MAX_WRITE_ZEROES_SEG, 1, 4);
	c[CONFIG_WRITE_ZEROES_MAY_UNMAP] = 1;
}

struct virtio_device *virtio_blk_create(const struct virtio_blk_config *config)
{
	uint64_t features = VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) |
			    VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |
			    VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY);
	struct virtio_blk *blk = calloc(1, sizeof(*blk));

	assert(blk);
	assert(config->queues >= 1 && config->queues <= VIRTIO_BLK_QUEUES_MAX);
	blk->disk = config->disk;
	blk->disk_ops = config->disk_ops;
	blk->readonly = blk->disk_ops->is_readonly(blk->disk);
	if (config->serial)
		memcpy(blk->serial, config->serial, strnlen(config->serial, sizeof(blk->serial)));
	if (config->queues > 1)
		features |= VIRTIO_BIT(VIRTIO_BLK_F_MQ);
	features |= blk->readonly ? VIRTIO_BIT(VIRTIO_BLK_F_RO)
				  : VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) |
					    VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	virtio_init(&blk->v, &blk_ops, config->mem, config->loop, features);
	for (unsigned i = 0; i < config->queues; i++)
		virtio_add_queue(&blk->v, VIRTIO_BLK_QUEUE_SIZE);
	fill_config(blk, config->queues);
	for (unsigned i = VIRTIO_BLK_SLOTS; i-- > 0;) {
		struct slot *s = &blk->slots[i];

		s->blk = blk;
		s->chain.iov = s->iov;
		s->chain.iov_max = SLOT_IOV;
		put_slot(blk, s);
	}
	return &blk->v;
}
