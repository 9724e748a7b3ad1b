/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues, the device's side (virtio 1.2, section 2.7), with indirect descriptors and the
 * event index. A library: it knows rings and guest RAM, and nothing of devices or transports.
 *
 * Threading: the machine's lock. The driver's side is guest memory that changes at any time.
 */
#ifndef DEV_VIRTIO_VIRTQUEUE_H
#define DEV_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "mem/memory.h"

#define VIRTQUEUE_SIZE_MAX 512u

struct virtqueue {
	struct memory *mem;
	uint16_t size_max; /* a power of two, ≤ VIRTQUEUE_SIZE_MAX */

	/* What the driver has set; frozen while enabled. */
	uint16_t size;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	uint16_t vector; /* MSI-X */
	bool enabled;
	bool indirect, event_index; /* the negotiated features, given to virtqueue_enable */

	/*
	 * Where the rings are, while enabled: each of them contiguous RAM, checked by
	 * virtqueue_enable.
	 */
	const uint8_t *desc;
	const uint16_t *avail;
	uint8_t *used;

	uint16_t last_avail;   /* next entry of the available ring */
	uint16_t used_idx;     /* next entry of the used ring, as published */
	uint16_t notified_idx; /* used_idx at the last decision about an interrupt */
	bool kicks_off;	       /* VIRTQ_USED_F_NO_NOTIFY is set */
	bool broken;	       /* the driver broke the rules; nothing more happens until reset */
};

/*
 * One descriptor chain, resolved to host addresses: first what the driver wrote, then what it wants
 * written. The vector belongs to the caller, who sets iov and iov_max; a chain that needs more
 * breaks the queue.
 */
struct virtqueue_chain {
	struct iovec *iov;
	unsigned iov_max;

	uint16_t head;
	unsigned out_count, in_count; /* iov[0..out_count) is out, in follows */
	uint32_t out_bytes, in_bytes; /* their sum fits in 32 bits */
};

/* Back to after reset. size_max and mem stay. */
void virtqueue_reset(struct virtqueue *vq);

/* The driver has given addresses and size. False when they cannot be: broken. */
bool virtqueue_enable(struct virtqueue *vq, bool indirect, bool event_index);

enum virtqueue_pop {
	VIRTQUEUE_EMPTY, /* and the driver will kick when that changes */
	VIRTQUEUE_CHAIN,
	VIRTQUEUE_BROKEN,
};
enum virtqueue_pop virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);

/* Puts the @count chains popped last back, untouched. */
void virtqueue_unpop(struct virtqueue *vq, unsigned count);

/*
 * Returns a chain whose in part holds @written bytes from its start: as the @ahead-th one (0, 1, …)
 * of a batch that virtqueue_publish then shows to the driver.
 */
void virtqueue_fill(struct virtqueue *vq, unsigned ahead, uint16_t head, uint32_t written);
/* True: the driver wants an interrupt. */
bool virtqueue_publish(struct virtqueue *vq, unsigned count);

/*
 * Copies between @buf and a chain, from byte @offset of its out or in part; returns how many bytes.
 */
size_t virtqueue_read(const struct virtqueue_chain *chain, size_t offset, void *buf, size_t len);
size_t virtqueue_write(struct virtqueue *vq, const struct virtqueue_chain *chain, size_t offset,
		       const void *buf, size_t len);

/*
 * Announces [offset, offset + len) of the in part as written (mem_written), after I/O through its
 * iov.
 */
void virtqueue_written(struct virtqueue *vq, const struct virtqueue_chain *chain, size_t offset,
		       size_t len);

/* Drops @bytes from the start of *@iov, or from its end; the vector is changed in place. */
void virtqueue_iov_skip(struct iovec **iov, unsigned *count, size_t bytes);
void virtqueue_iov_trim(struct iovec *iov, unsigned *count, size_t bytes);

#endif
