/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio console with named ports (virtio 1.2, section 5.3). */
#ifndef DEV_VIRTIO_VIRTIO_CONSOLE_H
#define DEV_VIRTIO_VIRTIO_CONSOLE_H

#include "dev/virtio/virtio.h"
#include "ui/chardev.h"

#define VIRTIO_CONSOLE_QUEUE_SIZE 64u
#define VIRTIO_CONSOLE_FIFO_BYTES 4096u
#define VIRTIO_CONSOLE_PORTS_MAX 8u /* besides the console */
#define VIRTIO_CONSOLE_NAME_MAX 64u

struct virtio_console_port {
	const char *name; /* kept, not copied */
	struct chardev *chardev;
};

struct virtio_console_config {
	struct memory *mem;
	struct loop *loop;
	struct chardev *chardev; /* stays the caller's, outlives the device; NULL: nobody listens */
	unsigned port_count;
	struct virtio_console_port ports[VIRTIO_CONSOLE_PORTS_MAX]; /* chardevs as above */
};

/* To be given to virtio_pci_attach(). */
struct virtio_device *virtio_console_create(const struct virtio_console_config *config);

/* Whether a program in the guest has opened the port of that name. */
bool virtio_console_guest_open(struct virtio_device *v, const char *name);

#endif
