/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio block device (virtio 1.2, section 5.2). */
#ifndef DEV_VIRTIO_VIRTIO_BLK_H
#define DEV_VIRTIO_VIRTIO_BLK_H

#include "block/block.h"
#include "dev/virtio/virtio.h"

#define VIRTIO_BLK_QUEUES_MAX 16u
#define VIRTIO_BLK_QUEUE_SIZE 512u
#define VIRTIO_BLK_SEGMENTS 320u	     /* data buffers a request: Linux asks for 1280 KiB at most, in pages */
#define VIRTIO_BLK_SEGMENT_BYTES (512 * KiB) /* of each */
#define VIRTIO_BLK_SLOTS 128u		     /* requests in flight, all queues together */
#define VIRTIO_BLK_ID_BYTES 20u

/* The part of block.h that the device uses: a test puts its own disk behind it. */
struct virtio_blk_disk_ops {
	void (*submit)(struct block_device *disk, struct block_request *req);
	void (*drain)(struct block_device *disk);
	uint64_t (*size_bytes)(const struct block_device *disk);
	bool (*is_readonly)(const struct block_device *disk);
};
extern const struct virtio_blk_disk_ops virtio_blk_block_layer;

struct virtio_blk_config {
	struct memory *mem;
	struct loop *loop;
	struct block_device *disk;		    /* stays the caller's, outlives the device */
	const struct virtio_blk_disk_ops *disk_ops; /* &virtio_blk_block_layer */
	unsigned queues;    /* 1..VIRTIO_BLK_QUEUES_MAX, as a rule one for each vCPU */
	const char *serial; /* at most 20 bytes, copied; NULL: none */
};

/* To be given to virtio_pci_attach(). */
struct virtio_device *virtio_blk_create(const struct virtio_blk_config *config);

#endif
