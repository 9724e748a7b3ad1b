/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio socket device (virtio 1.2, section 5.10): streams between programs of the guest and of the host. */
#ifndef DEV_VIRTIO_VIRTIO_VSOCK_H
#define DEV_VIRTIO_VIRTIO_VSOCK_H

#include "dev/virtio/virtio.h"
#include "net/vsock.h"

#define VIRTIO_VSOCK_QUEUE_SIZE 128u
#define VIRTIO_VSOCK_CONNECTIONS 64u
#define VIRTIO_VSOCK_BUFFER (64u * 1024) /* of each: what the guest may send ahead of who reads */
#define VIRTIO_VSOCK_CID_HOST 2u

struct virtio_vsock_config {
	struct memory *mem;
	struct loop *loop;
	struct vsock_backend *backend; /* stays the caller's, outlives the device */
	uint32_t cid;		       /* the guest's address, 3 or more */
};

/* To be given to virtio_pci_attach(). */
struct virtio_device *virtio_vsock_create(const struct virtio_vsock_config *config);

/* Connections at present, for the status and tests. */
unsigned virtio_vsock_connections(struct virtio_device *v);

#endif
