/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device without its transport: features, status, configuration, queues.
 *
 * A device embeds struct virtio_device, fills in the features it offers, its queues and
 * configuration space, and provides struct virtio_ops. A transport (virtio_pci.h) shows it to the
 * guest and owns it.
 *
 * Threading: the machine's lock. Doorbells come in vCPU threads, completions in the loop's.
 */
#ifndef DEV_VIRTIO_VIRTIO_H
#define DEV_VIRTIO_VIRTIO_H

#include "base/loop.h"
#include "dev/device.h"
#include "dev/virtio/virtqueue.h"

/* Device types (virtio 1.2, section 5). */
enum {
	VIRTIO_ID_NET = 1,
	VIRTIO_ID_BLOCK = 2,
	VIRTIO_ID_CONSOLE = 3,
	VIRTIO_ID_RNG = 4,
	VIRTIO_ID_BALLOON = 5,
	VIRTIO_ID_VSOCK = 19,
	VIRTIO_ID_FS = 26,
};

/* Device status (section 2.1). */
#define VIRTIO_STATUS_ACKNOWLEDGE 0x01u
#define VIRTIO_STATUS_DRIVER 0x02u
#define VIRTIO_STATUS_DRIVER_OK 0x04u
#define VIRTIO_STATUS_FEATURES_OK 0x08u
#define VIRTIO_STATUS_NEEDS_RESET 0x40u
#define VIRTIO_STATUS_FAILED 0x80u

/* Feature bits of every device (section 6). */
enum { VIRTIO_F_INDIRECT_DESC = 28, VIRTIO_F_EVENT_IDX = 29, VIRTIO_F_VERSION_1 = 32 };
#define VIRTIO_BIT(n) (1ull << (n))

#define VIRTIO_QUEUES_MAX 32u
#define VIRTIO_CONFIG_MAX 64u
#define VIRTIO_NO_VECTOR 0xffffu

struct virtio_device;

struct virtio_ops {
	const char *name;
	uint16_t id;
	uint32_t class_code; /* for PCI */
	/* @queue may have buffers: handle at most a queue's worth, then virtio_requeue. */
	void (*notify)(struct virtio_device *v, unsigned queue);
	/*
	 * Optional. Forget the driver and its buffers. False while requests in flight still use
	 * guest memory: virtio_stopped() follows.
	 */
	bool (*stop)(struct virtio_device *v);
	/* Optional, with stop: waits until nothing is in flight. Loop thread. */
	void (*drain)(struct virtio_device *v);
	/* Optional. The driver writes its configuration space; within config_len. */
	void (*config_write)(struct virtio_device *v, unsigned offset, uint32_t value,
			     unsigned size);
	void (*destroy)(struct virtio_device *v); /* nothing is in flight */
};

struct virtio_transport_ops {
	/*
	 * Buffers were used in a queue with @vector, or, if @config, the configuration has changed.
	 */
	void (*interrupt)(void *transport, uint16_t vector, bool config);
	void (*was_reset)(void *transport);
};

struct virtio_device {
	const struct virtio_ops *ops;
	struct memory *mem;
	struct loop *loop;

	/* Set by the device before it is attached. */
	uint64_t features;
	unsigned queue_count;
	uint8_t config[VIRTIO_CONFIG_MAX];
	unsigned config_len;
	uint8_t config_generation; /* counts virtio_config_changed() */

	const struct virtio_transport_ops *transport_ops;
	void *transport;
	bool dma_enabled; /* the transport lets the device reach memory (PCI: bus mastering) */

	uint64_t driver_features;
	uint8_t status;
	bool resetting; /* the driver has asked for a reset and requests are still in flight */
	uint16_t config_vector;
	struct virtqueue queues[VIRTIO_QUEUES_MAX];

	struct loop_timer requeue; /* fires at once: the rest of the work of a doorbell */
	uint32_t requeue_mask;
};

/* For devices. The caller has zeroed @v. Adds the features of every device to @features. */
void virtio_init(struct virtio_device *v, const struct virtio_ops *ops, struct memory *mem,
		 struct loop *loop, uint64_t features);
void virtio_add_queue(struct virtio_device *v, uint16_t size_max);
void virtio_finish(struct virtio_device *v);

static inline bool virtio_has(const struct virtio_device *v, unsigned feature)
{
	return v->driver_features & VIRTIO_BIT(feature);
}

/* The driver is up and the device may use its memory. */
static inline bool virtio_is_live(const struct virtio_device *v)
{
	return (v->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) ==
		       VIRTIO_STATUS_DRIVER_OK &&
	       !v->resetting && v->dma_enabled;
}

/* The next chain of @queue; false when there is none (or the device is not live). */
bool virtio_pop(struct virtio_device *v, unsigned queue, struct virtqueue_chain *chain);
/* Returns a chain with @written bytes in it, and interrupts if the driver wants that. */
void virtio_push(struct virtio_device *v, unsigned queue, uint16_t head, uint32_t written);
/* As virtio_push for @count chains after virtqueue_fill. */
void virtio_publish(struct virtio_device *v, unsigned queue, unsigned count);
/* notify() for @queue once more, soon, from the loop. */
void virtio_requeue(struct virtio_device *v, unsigned queue);
/* The device has changed its configuration space: tells the driver (section 2.5). */
void virtio_config_changed(struct virtio_device *v);
/* The driver broke the protocol: the device needs a reset (section 2.1.2). */
void virtio_break(struct virtio_device *v, const char *what);
/* What stop() promised. */
void virtio_stopped(struct virtio_device *v);

/* For transports. */
void virtio_write_status(struct virtio_device *v, uint8_t value);
void virtio_write_driver_features(struct virtio_device *v, unsigned word, uint32_t value);
void virtio_enable_queue(struct virtio_device *v, unsigned queue);
void virtio_notify(struct virtio_device *v, unsigned queue);
void virtio_set_dma(struct virtio_device *v, bool enabled);
/* Waits for what is in flight, then resets. Loop thread. */
void virtio_reset(struct virtio_device *v);

#endif
