/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio 9P transport: a shared folder. Linux, net/9p/trans_virtio.c's protocol; device type 9 of virtio 1.2, section 5. */
#ifndef DEV_VIRTIO_VIRTIO_9P_H
#define DEV_VIRTIO_VIRTIO_9P_H

#include "dev/virtio/virtio.h"

#define VIRTIO_9P_QUEUE_SIZE 128u
#define VIRTIO_9P_TAG_MAX 32u		      /* the name that the guest mounts it by */
#define VIRTIO_9P_MESSAGE_MAX (128u * 1024) /* of a request or reply */

/*
 * To be given to virtio_pci_attach(). @fd is a packet socket to the process that serves the folder (share/main.c has the
 * protocol), taken. NULL: it cannot be watched, and stays the caller's.
 */
struct virtio_device *virtio_9p_create(struct memory *mem, struct loop *loop, const char *tag, int fd);

#endif
