/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio console: a console, and named ports for programs, bytes through chardevs.
 *
 * Theory of operation. What comes for the guest waits in a FIFO of the port until the driver gives buffers; the
 * chardev is told to go on when the FIFO has room again. What the guest prints goes to the chardev
 * at once, which never blocks. Emergency writes print a byte without any queue.
 *
 * Port 0 is the console, if there is one. Named ports, from 1 on, are there if the driver knows of several
 * (MULTIPORT). It hears of them by control messages, each of which is a bit of a port until the driver has a
 * buffer for it. What is written to a named port waits in the queue while its reader is slow. Bytes for a named port wait at the host's side until a program in the guest has opened it. The guest
 * always sees the host's side as open: a program that waits there would otherwise be woken again and again.
 *
 * Manual: virtio 1.2, section 5.3.
 */
#include <assert.h>
#include <stdlib.h>

#include "dev/virtio/virtio_console.h"

enum { VIRTIO_CONSOLE_F_MULTIPORT = 1, VIRTIO_CONSOLE_F_EMERG_WRITE = 2 };
enum { QUEUE_RX, QUEUE_TX, QUEUE_CONTROL_RX, QUEUE_CONTROL_TX, QUEUE_NAMED };

/* struct virtio_console_config: cols, rows (not offered), max_nr_ports, emerg_wr. */
enum { CONFIG_PORTS = 4, CONFIG_EMERG_WRITE = 8, CONFIG_BYTES = 12 };

/* struct virtio_console_control: le32 id, le16 event, le16 value; section 5.3.6.2. */
#define CONTROL_BYTES 8u
enum {
	CONTROL_DEVICE_READY = 0,
	CONTROL_PORT_ADD = 1,
	CONTROL_PORT_READY = 3,
	CONTROL_CONSOLE_PORT = 4,
	CONTROL_PORT_OPEN = 6,
	CONTROL_PORT_NAME = 7,
	CONTROL_EVENTS,
};

#define PORTS (VIRTIO_CONSOLE_PORTS_MAX + 1)

/* Of one buffer; the rest is dropped, so that a doorbell takes bounded time. */
#define WRITE_MAX (64 * KiB)

struct port {
	struct virtio_console *con;
	unsigned id;
	struct chardev *chardev; /* port 0: NULL without a console */
	const char *name;	 /* NULL: the console */
	bool guest_open;
	unsigned pending; /* bit n: control event n is to be sent */
	/* Bytes to the guest: fifo[head], and count of them, around the end. */
	uint8_t fifo[VIRTIO_CONSOLE_FIFO_BYTES];
	unsigned head, count;
	bool waits; /* the chardev was told that there is no room */
};

struct virtio_console {
	struct virtio_device v;
	unsigned port_count; /* with port 0 */
	struct port ports[PORTS];
	struct virtqueue_chain chain;
	struct iovec iov[VIRTIO_CONSOLE_QUEUE_SIZE];
};

static unsigned rx_queue(const struct port *p)
{
	return p->id ? QUEUE_NAMED + 2 * (p->id - 1) : QUEUE_RX;
}

/* The port that @queue belongs to; NULL: a control queue. */
static struct port *port_of(struct virtio_console *con, unsigned queue)
{
	if (queue < QUEUE_CONTROL_RX)
		return &con->ports[0];
	return queue < QUEUE_NAMED ? NULL : &con->ports[1 + (queue - QUEUE_NAMED) / 2];
}

static size_t console_can_receive(void *opaque)
{
	struct port *p = opaque;
	size_t room = p->name && !p->guest_open ? 0 : sizeof(p->fifo) - p->count;

	if (room == 0)
		p->waits = true;
	return room;
}

/* Moves what the driver has buffers for. */
static void deliver(struct port *p)
{
	struct virtio_console *con = p->con;
	unsigned queue = rx_queue(p);
	struct virtqueue *vq = &con->v.queues[queue];

	for (unsigned budget = vq->size; p->count; budget--) {
		uint32_t written = 0;

		if (budget == 0) {
			virtio_requeue(&con->v, queue);
			return;
		}
		if (!virtio_pop(&con->v, queue, &con->chain))
			return;
		while (p->count && written < con->chain.in_bytes) {
			size_t run = MIN(p->count, sizeof(p->fifo) - p->head);
			size_t n = virtqueue_write(vq, &con->chain, written, p->fifo + p->head, run);

			p->head = (unsigned)((p->head + n) % sizeof(p->fifo));
			p->count -= (unsigned)n;
			written += (uint32_t)n;
		}
		virtio_push(&con->v, queue, con->chain.head, written);
	}
}

static void resume(struct port *p)
{
	if (p->waits && p->count < sizeof(p->fifo) && (!p->name || p->guest_open)) {
		p->waits = false;
		chardev_resume(p->chardev);
	}
}

static void console_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct port *p = opaque;

	assert(len <= sizeof(p->fifo) - p->count);
	for (size_t i = 0; i < len; i++)
		p->fifo[(p->head + p->count + i) % sizeof(p->fifo)] = buf[i];
	p->count += (unsigned)len;
	deliver(p);
}

static void transmit(struct port *p, unsigned queue)
{
	struct virtio_console *con = p->con;

	for (unsigned budget = con->v.queues[queue].size; budget; budget--) {
		uint8_t buf[512];
		size_t offset = 0, n;

		/* A program's bytes are not lost while another reads them; a console does not wait for its reader. */
		if (p->name && chardev_room(p->chardev) < WRITE_MAX + sizeof(buf))
			return;
		if (!virtio_pop(&con->v, queue, &con->chain))
			return;
		/* Through a copy: the chardev may look at the bytes more than once. */
		while ((n = virtqueue_read(&con->chain, offset, buf, sizeof(buf))) > 0 &&
		       offset < WRITE_MAX) {
			chardev_write(p->chardev, buf, n);
			offset += n;
		}
		virtio_push(&con->v, queue, con->chain.head, 0);
	}
	virtio_requeue(&con->v, queue);
}

static void console_writable(void *opaque)
{
	struct port *p = opaque;

	if (p->name)
		virtio_notify(&p->con->v, rx_queue(p) + 1);
}

/* ---- Control messages ---- */

static bool send_control(struct port *p, unsigned event)
{
	static const uint8_t values[CONTROL_EVENTS] = { [CONTROL_CONSOLE_PORT] = 1, [CONTROL_PORT_OPEN] = 1 };
	struct virtio_console *con = p->con;
	uint8_t message[CONTROL_BYTES + VIRTIO_CONSOLE_NAME_MAX];
	size_t len = CONTROL_BYTES;

	if (!virtio_pop(&con->v, QUEUE_CONTROL_RX, &con->chain))
		return false;
	store_le(message, p->id, 4);
	store_le(message + 4, event, 2);
	store_le(message + 6, values[event], 2);
	if (event == CONTROL_PORT_NAME) {
		memcpy(message + len, p->name, strlen(p->name));
		len += strlen(p->name);
	}
	len = virtqueue_write(&con->v.queues[QUEUE_CONTROL_RX], &con->chain, 0, message, len);
	virtio_push(&con->v, QUEUE_CONTROL_RX, con->chain.head, (uint32_t)len);
	return true;
}

static void deliver_control(struct virtio_console *con)
{
	static const unsigned order[] = { CONTROL_PORT_ADD, CONTROL_CONSOLE_PORT, CONTROL_PORT_NAME, CONTROL_PORT_OPEN };

	for (unsigned i = 0; i < con->port_count; i++) {
		struct port *p = &con->ports[i];

		for (unsigned k = 0; k < ARRAY_SIZE(order); k++) {
			if (!(p->pending & 1u << order[k]))
				continue;
			if (!send_control(p, order[k]))
				return;
			p->pending &= ~(1u << order[k]);
		}
	}
}

static bool exists(const struct port *p)
{
	return p->name || p->chardev;
}

static void take_control(struct virtio_console *con)
{
	uint8_t message[CONTROL_BYTES];
	uint64_t id, event, value;
	struct port *p;

	if (virtqueue_read(&con->chain, 0, message, sizeof(message)) != sizeof(message))
		return;
	id = load_le(message, 4);
	event = load_le(message + 4, 2);
	value = load_le(message + 6, 2);
	if (event == CONTROL_DEVICE_READY && value == 1) {
		for (unsigned i = 0; i < con->port_count; i++)
			if (exists(&con->ports[i]))
				con->ports[i].pending |= 1u << CONTROL_PORT_ADD;
		return;
	}
	if (id >= con->port_count || !exists(&con->ports[id]))
		return;
	p = &con->ports[id];
	if (event == CONTROL_PORT_READY && value == 1) {
		p->pending |= 1u << CONTROL_PORT_OPEN | 1u << (p->name ? CONTROL_PORT_NAME : CONTROL_CONSOLE_PORT);
	} else if (event == CONTROL_PORT_OPEN) {
		p->guest_open = value == 1;
		if (!p->guest_open && p->name)
			p->head = p->count = 0; /* for nobody */
		resume(p);
	}
}

static void control(struct virtio_console *con)
{
	for (unsigned budget = con->v.queues[QUEUE_CONTROL_TX].size; budget; budget--) {
		if (!virtio_pop(&con->v, QUEUE_CONTROL_TX, &con->chain))
			return;
		take_control(con);
		virtio_push(&con->v, QUEUE_CONTROL_TX, con->chain.head, 0);
	}
	virtio_requeue(&con->v, QUEUE_CONTROL_TX);
}

static void console_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_console *con = container_of(v, struct virtio_console, v);
	struct port *p = port_of(con, queue);

	if (queue >= QUEUE_CONTROL_RX && !virtio_has(v, VIRTIO_CONSOLE_F_MULTIPORT))
		return;
	if (!p) {
		if (queue == QUEUE_CONTROL_TX)
			control(con);
		deliver_control(con);
	} else if (queue != rx_queue(p)) {
		transmit(p, queue);
	} else {
		deliver(p);
		resume(p);
	}
}

static void console_config_write(struct virtio_device *v, unsigned offset, uint32_t value,
				 unsigned size)
{
	struct virtio_console *con = container_of(v, struct virtio_console, v);
	uint8_t byte = (uint8_t)value;

	if (offset == CONFIG_EMERG_WRITE)
		chardev_write(con->ports[0].chardev, &byte, 1);
}

static bool console_stop(struct virtio_device *v)
{
	struct virtio_console *con = container_of(v, struct virtio_console, v);

	for (unsigned i = 0; i < con->port_count; i++) {
		struct port *p = &con->ports[i];

		p->head = p->count = 0;
		p->pending = 0;
		p->guest_open = false;
		resume(p);
	}
	return true;
}

static void console_destroy(struct virtio_device *v)
{
	struct virtio_console *con = container_of(v, struct virtio_console, v);

	for (unsigned i = 0; i < con->port_count; i++)
		if (con->ports[i].chardev)
			con->ports[i].chardev->client = (struct chardev_client){ 0 };
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

static void add_port(struct virtio_console *con, const char *name, struct chardev *chardev)
{
	struct port *p = &con->ports[con->port_count];

	assert(!name || strlen(name) <= VIRTIO_CONSOLE_NAME_MAX);
	p->con = con;
	p->id = con->port_count++;
	p->name = name;
	p->chardev = chardev;
	if (chardev)
		chardev->client = (struct chardev_client){
			.can_receive = console_can_receive,
			.receive = console_receive,
			.writable = console_writable,
			.opaque = p,
		};
}

bool virtio_console_guest_open(struct virtio_device *v, const char *name)
{
	const struct virtio_console *con = container_of(v, struct virtio_console, v);

	assert(v->ops == &console_ops);
	for (unsigned i = 1; i < con->port_count; i++)
		if (!strcmp(con->ports[i].name, name))
			return con->ports[i].guest_open;
	return false;
}

struct virtio_device *virtio_console_create(const struct virtio_console_config *config)
{
	struct virtio_console *con = calloc(1, sizeof(*con));
	unsigned queues = config->port_count ? QUEUE_NAMED + 2 * config->port_count : QUEUE_CONTROL_RX;

	assert(con && config->port_count <= VIRTIO_CONSOLE_PORTS_MAX);
	static_assert(QUEUE_NAMED + 2 * VIRTIO_CONSOLE_PORTS_MAX <= VIRTIO_QUEUES_MAX, "two queues for each port");
	virtio_init(&con->v, &console_ops, config->mem, config->loop,
		    VIRTIO_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE) |
			    (config->port_count ? VIRTIO_BIT(VIRTIO_CONSOLE_F_MULTIPORT) : 0));
	for (unsigned i = 0; i < queues; i++)
		virtio_add_queue(&con->v, VIRTIO_CONSOLE_QUEUE_SIZE);
	con->v.config_len = CONFIG_BYTES;
	store_le(con->v.config + CONFIG_PORTS, config->port_count + 1, 4);
	con->chain.iov = con->iov;
	con->chain.iov_max = VIRTIO_CONSOLE_QUEUE_SIZE;
	add_port(con, NULL, config->chardev);
	for (unsigned i = 0; i < config->port_count; i++)
		add_port(con, config->ports[i].name, config->ports[i].chardev);
	return &con->v;
}
