/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio network device (virtio 1.2, section 5.1). */
#ifndef DEV_VIRTIO_VIRTIO_NET_H
#define DEV_VIRTIO_VIRTIO_NET_H

#include "dev/virtio/virtio.h"
#include "net/net.h"

#define VIRTIO_NET_QUEUE_SIZE 256u
#define VIRTIO_NET_CTRL_QUEUE_SIZE 64u

struct virtio_net_config {
	struct memory *mem;
	struct loop *loop;
	struct net_backend *backend; /* stays the caller's, outlives the device */
	uint8_t mac[6];
};

/* To be given to virtio_pci_attach(). */
struct virtio_device *virtio_net_create(const struct virtio_net_config *config);

#endif
