/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio console with one port (virtio 1.2, section 5.3). */
#ifndef DEV_VIRTIO_VIRTIO_CONSOLE_H
#define DEV_VIRTIO_VIRTIO_CONSOLE_H

#include "dev/virtio/virtio.h"
#include "ui/chardev.h"

#define VIRTIO_CONSOLE_QUEUE_SIZE 64u
#define VIRTIO_CONSOLE_FIFO_BYTES 4096u

struct virtio_console_config {
	struct memory *mem;
	struct loop *loop;
	struct chardev *chardev; /* stays the caller's, outlives the device; NULL: nobody listens */
};

/* To be given to virtio_pci_attach(). */
struct virtio_device *virtio_console_create(const struct virtio_console_config *config);

#endif
