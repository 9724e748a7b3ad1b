/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio file system device: a shared folder (virtio 1.2, section 5.11), without a DAX window. */
#ifndef DEV_VIRTIO_VIRTIO_FS_H
#define DEV_VIRTIO_VIRTIO_FS_H

#include "base/share_link.h"
#include "dev/virtio/virtio.h"

/* Linux puts each page of a request into a buffer of its own, and the rest of it into four. */
#define VIRTIO_FS_QUEUE_SIZE 512u
#define VIRTIO_FS_TAG_MAX 36u /* the name that the guest mounts it by */
enum { VIRTIO_FS_HIPRIO = 0, VIRTIO_FS_REQUESTS = 1 }; /* queues */

/*
 * To be given to virtio_pci_attach(). @fd is a packet socket to the process that serves the folder, taken. NULL: it cannot be
 * watched, and stays the caller's.
 */
struct virtio_device *virtio_fs_create(struct memory *mem, struct loop *loop, const char *tag, int fd);

#endif
