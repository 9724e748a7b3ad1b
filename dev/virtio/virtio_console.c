/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio console: one port, bytes through a chardev.
 *
 * Theory of operation. What the person types waits in a FIFO until the driver gives buffers; the
 * chardev is told to go on when the FIFO has room again. What the guest prints goes to the chardev
 * at once, which never blocks. Emergency writes print a byte without any queue.
 *
 * Manual: virtio 1.2, section 5.3.
 */
#include <assert.h>
#include <stdlib.h>

#include "dev/virtio/virtio_console.h"

enum { VIRTIO_CONSOLE_F_EMERG_WRITE = 2 };
enum { QUEUE_RX, QUEUE_TX };

/* struct virtio_console_config: cols, rows, max_nr_ports (not offered), emerg_wr. */
enum { CONFIG_EMERG_WRITE = 8, CONFIG_BYTES = 12 };

/* Of one buffer; the rest is dropped, so that a doorbell takes bounded time. */
#define WRITE_MAX (64 * KiB)

struct virtio_console {
	struct virtio_device v;
	struct chardev *chardev;
	/* Bytes to the guest: fifo[head], and count of them, around the end. */
	uint8_t fifo[VIRTIO_CONSOLE_FIFO_BYTES];
	unsigned head, count;
	bool was_full;
	struct virtqueue_chain chain;
	struct iovec iov[VIRTIO_CONSOLE_QUEUE_SIZE];
};

static size_t console_can_receive(void *opaque)
{
	struct virtio_console *con = opaque;
	size_t room = sizeof(con->fifo) - con->count;

	if (room == 0)
		con->was_full = true;
	return room;
}

/* Moves what the driver has buffers for. */
static void deliver(struct virtio_console *con)
{
	struct virtqueue *vq = &con->v.queues[QUEUE_RX];

	for (unsigned budget = vq->size; con->count; budget--) {
		uint32_t written = 0;

		if (budget == 0) {
			virtio_requeue(&con->v, QUEUE_RX);
			return;
		}
		if (!virtio_pop(&con->v, QUEUE_RX, &con->chain))
			return;
		while (con->count && written < con->chain.in_bytes) {
			size_t run = MIN(con->count, sizeof(con->fifo) - con->head);
			size_t n = virtqueue_write(vq, &con->chain, written, con->fifo + con->head,
						   run);

			con->head = (unsigned)((con->head + n) % sizeof(con->fifo));
			con->count -= (unsigned)n;
			written += (uint32_t)n;
		}
		virtio_push(&con->v, QUEUE_RX, con->chain.head, written);
	}
}

static void resume(struct virtio_console *con)
{
	if (con->was_full && con->count < sizeof(con->fifo)) {
		con->was_full = false;
		chardev_resume(con->chardev);
	}
}

static void console_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct virtio_console *con = opaque;

	assert(len <= sizeof(con->fifo) - con->count);
	for (size_t i = 0; i < len; i++)
		con->fifo[(con->head + con->count + i) % sizeof(con->fifo)] = buf[i];
	con->count += (unsigned)len;
	deliver(con);
}

static void transmit(struct virtio_console *con)
{
	for (unsigned budget = con->v.queues[QUEUE_TX].size; budget; budget--) {
		uint8_t buf[512];
		size_t offset = 0, n;

		if (!virtio_pop(&con->v, QUEUE_TX, &con->chain))
			return;
		/* Through a copy: the chardev may look at the bytes more than once. */
		while ((n = virtqueue_read(&con->chain, offset, buf, sizeof(buf))) > 0 &&
		       offset < WRITE_MAX) {
			chardev_write(con->chardev, buf, n);
			offset += n;
		}
		virtio_push(&con->v, QUEUE_TX, con->chain.head, 0);
	}
	virtio_requeue(&con->v, QUEUE_TX);
}

static void console_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_console *con = container_of(v, struct virtio_console, v);

	if (queue == QUEUE_TX) {
		transmit(con);
	} else {
		deliver(con);
		resume(con);
	}
}

static void console_config_write(struct virtio_device *v, unsigned offset, uint32_t value,
				 unsigned size)
{
	struct virtio_console *con = container_of(v, struct virtio_console, v);
	uint8_t byte = (uint8_t)value;

	if (offset == CONFIG_EMERG_WRITE)
		chardev_write(con->chardev, &byte, 1);
}

static bool console_stop(struct virtio_device *v)
{
	struct virtio_console *con = container_of(v, struct virtio_console, v);

	con->head = con->count = 0;
	resume(con);
	return true;
}

static void console_destroy(struct virtio_device *v)
{
	struct virtio_console *con = container_of(v, struct virtio_console, v);

	if (con->chardev)
		con->chardev->client = (struct chardev_client){ 0 };
	virtio_finish(v);
	free(con);
}

static const struct virtio_ops console_ops = {
	.name = "virtio-console",
	.id = VIRTIO_ID_CONSOLE,
	.class_code = 0x078000,
	.notify = console_notify,
	.stop = console_stop,
	.config_write = console_config_write,
	.destroy = console_destroy,
};

struct virtio_device *virtio_console_create(const struct virtio_console_config *config)
{
	struct virtio_console *con = calloc(1, sizeof(*con));

	assert(con);
	virtio_init(&con->v, &console_ops, config->mem, config->loop,
		    VIRTIO_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE));
	virtio_add_queue(&con->v, VIRTIO_CONSOLE_QUEUE_SIZE);
	virtio_add_queue(&con->v, VIRTIO_CONSOLE_QUEUE_SIZE);
	con->v.config_len = CONFIG_BYTES;
	con->chain.iov = con->iov;
	con->chain.iov_max = VIRTIO_CONSOLE_QUEUE_SIZE;
	con->chardev = config->chardev;
	if (con->chardev)
		con->chardev->client = (struct chardev_client){
			.can_receive = console_can_receive,
			.receive = console_receive,
			.opaque = con,
		};
	return &con->v;
}
