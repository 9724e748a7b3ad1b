/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all virtio devices have in common: the status machine, features, queues.
 *
 * Theory of operation. The driver walks the status bits up in order: ACKNOWLEDGE, DRIVER,
 * FEATURES_OK (after which features are frozen, and only then can queues be enabled), DRIVER_OK
 * (after which queues are frozen and the device works). It goes back to the start only by a reset.
 * Anything else that it writes is ignored.
 *
 * A reset while requests are in flight cannot wait, as it comes from a vCPU, and must not hurry, as
 * the requests point into guest memory. So the device goes on to show its old status until the last
 * of them is done, and drivers wait for zero (section 2.4.2). Nothing reaches the rings meanwhile.
 *
 * A doorbell is handled at once in the vCPU's thread, one queue's worth at most; what is left waits
 * for the loop.
 *
 * Manual: virtio 1.2, sections 2.1 to 2.5 and 3.1.
 */
#include <assert.h>

#include "base/log.h"
#include "dev/virtio/virtio.h"

#define STATUS_ORDERLY                                                                  \
	(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK | \
	 VIRTIO_STATUS_DRIVER_OK)
#define STATUS_KNOWN (STATUS_ORDERLY | VIRTIO_STATUS_FAILED)

static void run_requeued(void *opaque)
{
	struct virtio_device *v = opaque;
	uint32_t mask = v->requeue_mask;

	v->requeue_mask = 0;
	for (; mask; mask &= mask - 1)
		virtio_notify(v, (unsigned)__builtin_ctz(mask));
}

static void forget_driver(struct virtio_device *v)
{
	v->status = 0;
	v->resetting = false;
	v->driver_features = 0;
	v->config_vector = VIRTIO_NO_VECTOR;
	v->requeue_mask = 0;
	loop_timer_cancel(&v->requeue);
	for (unsigned i = 0; i < v->queue_count; i++)
		virtqueue_reset(&v->queues[i]);
	if (v->transport_ops)
		v->transport_ops->was_reset(v->transport);
}

void virtio_init(struct virtio_device *v, const struct virtio_ops *ops, struct memory *mem,
		 struct loop *loop, uint64_t features)
{
	v->ops = ops;
	v->mem = mem;
	v->loop = loop;
	v->features = features | VIRTIO_BIT(VIRTIO_F_VERSION_1) |
		      VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
	v->config_vector = VIRTIO_NO_VECTOR;
	loop_timer_init(loop, &v->requeue, run_requeued, v);
}

void virtio_add_queue(struct virtio_device *v, uint16_t size_max)
{
	struct virtqueue *vq = &v->queues[v->queue_count];

	assert(v->queue_count < VIRTIO_QUEUES_MAX);
	vq->mem = v->mem;
	vq->size_max = size_max;
	virtqueue_reset(vq);
	v->queue_count++;
}

void virtio_finish(struct virtio_device *v)
{
	loop_timer_cancel(&v->requeue);
}

void virtio_break(struct virtio_device *v, const char *what)
{
	if (v->status & VIRTIO_STATUS_NEEDS_RESET)
		return;
	log_guest("%s: %s; the device stops until the driver resets it", v->ops->name, what);
	v->status |= VIRTIO_STATUS_NEEDS_RESET;
	if (v->status & VIRTIO_STATUS_DRIVER_OK)
		v->transport_ops->interrupt(v->transport, v->config_vector, true);
}

void virtio_config_changed(struct virtio_device *v)
{
	v->config_generation++;
	if ((v->status & VIRTIO_STATUS_DRIVER_OK) && !v->resetting)
		v->transport_ops->interrupt(v->transport, v->config_vector, true);
}

bool virtio_pop(struct virtio_device *v, unsigned queue, struct virtqueue_chain *chain)
{
	assert(queue < v->queue_count);
	if (!virtio_is_live(v) || !v->queues[queue].enabled)
		return false;
	switch (virtqueue_pop(&v->queues[queue], chain)) {
	case VIRTQUEUE_CHAIN: return true;
	case VIRTQUEUE_EMPTY: return false;
	case VIRTQUEUE_BROKEN: virtio_break(v, "a queue is broken"); return false;
	}
	return false;
}

void virtio_publish(struct virtio_device *v, unsigned queue, unsigned count)
{
	struct virtqueue *vq = &v->queues[queue];

	if (virtio_is_live(v) && virtqueue_publish(vq, count))
		v->transport_ops->interrupt(v->transport, vq->vector, false);
}

void virtio_push(struct virtio_device *v, unsigned queue, uint16_t head, uint32_t written)
{
	if (!virtio_is_live(v))
		return;
	virtqueue_fill(&v->queues[queue], 0, head, written);
	virtio_publish(v, queue, 1);
}

void virtio_requeue(struct virtio_device *v, unsigned queue)
{
	v->requeue_mask |= 1u << queue;
	loop_timer_arm(&v->requeue, loop_now_ns());
}

void virtio_notify(struct virtio_device *v, unsigned queue)
{
	if (queue < v->queue_count && virtio_is_live(v) && v->queues[queue].enabled)
		v->ops->notify(v, queue);
}

static void notify_all(struct virtio_device *v)
{
	for (unsigned i = 0; i < v->queue_count; i++)
		virtio_notify(v, i);
}

void virtio_set_dma(struct virtio_device *v, bool enabled)
{
	if (enabled == v->dma_enabled)
		return;
	v->dma_enabled = enabled;
	notify_all(v);
}

void virtio_stopped(struct virtio_device *v)
{
	if (v->resetting)
		forget_driver(v);
}

static void begin_reset(struct virtio_device *v)
{
	if (v->resetting)
		return;
	v->resetting = true;
	if (!v->ops->stop || v->ops->stop(v))
		forget_driver(v);
}

void virtio_reset(struct virtio_device *v)
{
	begin_reset(v);
	if (v->resetting) {
		v->ops->drain(v);
		assert(!v->resetting);
	}
}

static bool features_acceptable(const struct virtio_device *v)
{
	return !(v->driver_features & ~v->features) && virtio_has(v, VIRTIO_F_VERSION_1);
}

void virtio_write_status(struct virtio_device *v, uint8_t value)
{
	uint8_t added;

	if (value == 0) {
		begin_reset(v);
		return;
	}
	if (v->resetting)
		return;
	value &= STATUS_KNOWN;
	if ((v->status & STATUS_KNOWN) & ~value) {
		log_guest("%s: the driver clears status bits without a reset: ignored",
			  v->ops->name);
		return;
	}
	added = value & ~v->status;
	v->status |= added & (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_FAILED);
	if ((added & VIRTIO_STATUS_DRIVER) && (v->status & VIRTIO_STATUS_ACKNOWLEDGE))
		v->status |= VIRTIO_STATUS_DRIVER;
	if ((added & VIRTIO_STATUS_FEATURES_OK) && (v->status & VIRTIO_STATUS_DRIVER) &&
	    features_acceptable(v))
		v->status |= VIRTIO_STATUS_FEATURES_OK;
	if ((added & VIRTIO_STATUS_DRIVER_OK) && (v->status & VIRTIO_STATUS_FEATURES_OK)) {
		v->status |= VIRTIO_STATUS_DRIVER_OK;
		notify_all(v);
	}
	if ((v->status & STATUS_ORDERLY) != (value & STATUS_ORDERLY))
		log_guest("%s: the driver's status 0x%02x is not taken: it stays 0x%02x",
			  v->ops->name, value, v->status);
}

void virtio_write_driver_features(struct virtio_device *v, unsigned word, uint32_t value)
{
	unsigned shift = 32 * word;

	/* No features beyond bit 63 exist. */
	if (word > 1 || v->resetting || (v->status & VIRTIO_STATUS_FEATURES_OK))
		return;
	v->driver_features &= ~(0xffffffffull << shift);
	v->driver_features |= (uint64_t)value << shift;
}

void virtio_enable_queue(struct virtio_device *v, unsigned queue)
{
	struct virtqueue *vq = &v->queues[queue];

	assert(queue < v->queue_count);
	if (v->resetting || vq->enabled ||
	    (v->status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)) !=
		    VIRTIO_STATUS_FEATURES_OK) {
		log_guest("%s: queue %u cannot be enabled in status 0x%02x: ignored", v->ops->name,
			  queue, v->status);
		return;
	}
	if (!virtqueue_enable(vq, virtio_has(v, VIRTIO_F_INDIRECT_DESC),
			      virtio_has(v, VIRTIO_F_EVENT_IDX)))
		virtio_break(v, "a queue cannot be used");
}
