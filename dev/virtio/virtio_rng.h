/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio entropy device (virtio 1.2, section 5.4). */
#ifndef DEV_VIRTIO_VIRTIO_RNG_H
#define DEV_VIRTIO_VIRTIO_RNG_H

#include "dev/virtio/virtio.h"

/* To be given to virtio_pci_attach(). */
struct virtio_device *virtio_rng_create(struct memory *mem, struct loop *loop);

#endif
