/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio memory balloon (virtio 1.2, section 5.5). */
#ifndef DEV_VIRTIO_VIRTIO_BALLOON_H
#define DEV_VIRTIO_VIRTIO_BALLOON_H

#include "dev/virtio/virtio.h"

/* What the guest says about its memory (section 5.5.6.3), by tag. */
enum virtio_balloon_tag {
	VIRTIO_BALLOON_SWAP_IN,
	VIRTIO_BALLOON_SWAP_OUT,
	VIRTIO_BALLOON_MAJOR_FAULTS,
	VIRTIO_BALLOON_MINOR_FAULTS,
	VIRTIO_BALLOON_FREE,
	VIRTIO_BALLOON_TOTAL,
	VIRTIO_BALLOON_AVAILABLE,
	VIRTIO_BALLOON_CACHES,
	VIRTIO_BALLOON_HUGE_ALLOCATED,
	VIRTIO_BALLOON_HUGE_FAILED,
	VIRTIO_BALLOON_TAGS,
};

struct virtio_balloon_state {
	bool driver;	       /* the guest has a driver for it */
	uint64_t target_bytes; /* what the guest is to give */
	uint64_t given_bytes;  /* what it says it has given */
	/* Pages that the guest reported as free, since the start: the host took them back for a while. */
	uint64_t reported_bytes;
	bool has_statistics;
	uint64_t statistics_ns;	 /* when they came, as loop_now_ns() */
	uint32_t statistics_set; /* bit n: tag n is there */
	uint64_t statistics[VIRTIO_BALLOON_TAGS];
};

/* To be given to virtio_pci_attach(). */
struct virtio_device *virtio_balloon_create(struct memory *mem, struct loop *loop);

/* Asks the guest to give @bytes, whole pages, and to take back what it has given beyond that. */
void virtio_balloon_set_target(struct virtio_device *v, uint64_t bytes);
void virtio_balloon_get_state(struct virtio_device *v, struct virtio_balloon_state *out);
/* Asks the guest for new statistics, which come later, or never. */
void virtio_balloon_ask_statistics(struct virtio_device *v);

#endif
