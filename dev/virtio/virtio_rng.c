/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio entropy device: the host's getrandom().
 *
 * Theory of operation. Each buffer gets at most REQUEST_MAX bytes, which the standard allows, and a
 * doorbell handles few of them before the loop goes on: random bytes cost time, and the guest may
 * ask for any number.
 *
 * Manual: virtio 1.2, section 5.4.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "dev/virtio/virtio_rng.h"

#define QUEUE_SIZE 16u
#define BUDGET 4u
#define REQUEST_MAX 1024u
#define GETRANDOM_WHOLE 256u /* up to here getrandom is never short, see getrandom(2) */

struct virtio_rng {
	struct virtio_device v;
	struct virtqueue_chain chain;
	struct iovec iov[QUEUE_SIZE];
};

static bool fill_random(uint8_t *buf, size_t len)
{
	for (size_t done = 0; done < len; done += GETRANDOM_WHOLE) {
		size_t n = MIN(len - done, GETRANDOM_WHOLE);

		if (getrandom(buf + done, n, GRND_NONBLOCK) != (ssize_t)n)
			return false;
	}
	return true;
}

static void rng_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_rng *rng = container_of(v, struct virtio_rng, v);

	for (unsigned budget = BUDGET; budget; budget--) {
		uint8_t buf[REQUEST_MAX];
		uint32_t n;

		if (!virtio_pop(v, queue, &rng->chain))
			return;
		n = MIN(rng->chain.in_bytes, REQUEST_MAX);
		if (!fill_random(buf, n)) {
			log_warn("virtio-rng: the host has no random numbers: %s", strerror(errno));
			n = 0;
		}
		virtqueue_write(&v->queues[queue], &rng->chain, 0, buf, n);
		virtio_push(v, queue, rng->chain.head, n);
	}
	virtio_requeue(v, queue);
}

static void rng_destroy(struct virtio_device *v)
{
	virtio_finish(v);
	free(container_of(v, struct virtio_rng, v));
}

static const struct virtio_ops rng_ops = {
	.name = "virtio-rng",
	.id = VIRTIO_ID_RNG,
	.class_code = 0x00ff00,
	.notify = rng_notify,
	.destroy = rng_destroy,
};

struct virtio_device *virtio_rng_create(struct memory *mem, struct loop *loop)
{
	struct virtio_rng *rng = calloc(1, sizeof(*rng));

	assert(rng);
	virtio_init(&rng->v, &rng_ops, mem, loop, 0);
	virtio_add_queue(&rng->v, QUEUE_SIZE);
	rng->chain.iov = rng->iov;
	rng->chain.iov_max = QUEUE_SIZE;
	return &rng->v;
}
