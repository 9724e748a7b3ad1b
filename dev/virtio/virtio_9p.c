/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio 9P transport: requests of the guest's to the process that serves the folder, and replies back.
 *
 * Theory of operation. A chain is a request to read and room for its reply. The request is copied out, given a number and
 * sent; the chain is kept under that number until the reply comes, which is copied into its room. We look at
 * nothing but the request's length: what is in it is between the guest and that process. A reset forgets all
 * chains at once, as nobody else knows of their memory, and changes the numbers, so that late replies belong to
 * nothing.
 *
 * When the process is gone the guest gets an I/O error for each request.
 *
 * Manual: virtio 1.2 names the device (section 5); the layout is Linux' (net/9p/trans_virtio.c's protocol).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dev/virtio/virtio_9p.h"

enum { F_MOUNT_TAG = 0 };
#define ID_BYTES 4u
#define HEADER_BYTES 7u /* size[4] type[1] tag[2] */
#define RLERROR 7u
#define RLERROR_BYTES (HEADER_BYTES + 4u)
#define SLOTS VIRTIO_9P_QUEUE_SIZE
#define SOCKET_BYTES (1024 * 1024)

struct slot {
	bool used;
	uint32_t id;
	struct virtqueue_chain chain;
	struct iovec iov[VIRTIO_9P_QUEUE_SIZE];
};

struct virtio_9p {
	struct virtio_device v;
	struct loop_fd server; /* fd -1: gone */
	uint32_t next_id;
	unsigned in_flight;
	struct slot slots[SLOTS];
	uint8_t message[ID_BYTES + VIRTIO_9P_MESSAGE_MAX];
};

static struct virtio_9p *p9_of(struct virtio_device *v)
{
	return container_of(v, struct virtio_9p, v);
}

static void finish(struct virtio_9p *p, struct slot *slot, const uint8_t *reply, size_t len)
{
	size_t n = virtqueue_write(&p->v.queues[0], &slot->chain, 0, reply, MIN(len, slot->chain.in_bytes));

	slot->used = false;
	p->in_flight--;
	virtio_push(&p->v, 0, slot->chain.head, (uint32_t)n);
}

/* Linux waits for ever for a reply that is none. */
static void finish_error(struct virtio_9p *p, struct slot *slot)
{
	uint8_t reply[RLERROR_BYTES], tag[HEADER_BYTES] = { 0 };

	virtqueue_read(&slot->chain, 0, tag, sizeof(tag));
	store_le(reply, RLERROR_BYTES, 4);
	reply[4] = RLERROR;
	memcpy(reply + 5, tag + 5, 2);
	store_le(reply + HEADER_BYTES, EIO, 4);
	finish(p, slot, reply, sizeof(reply));
}

static void server_gone(struct virtio_9p *p)
{
	log_warn("the process that serves the shared folder '%.*s' has ended: the guest gets I/O errors",
		 (int)load_le(p->v.config, 2), (const char *)p->v.config + 2);
	loop_fd_remove(&p->server);
	close(p->server.fd);
	p->server.fd = -1;
	for (unsigned i = 0; i < SLOTS; i++)
		if (p->slots[i].used)
			finish_error(p, &p->slots[i]);
}

/* False: the socket is full, or the server gone; the request was not sent. */
static bool send_message(struct virtio_9p *p, size_t len)
{
	ssize_t n = send(p->server.fd, p->message, len, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		server_gone(p);
	return n == (ssize_t)len;
}

static struct slot *free_slot(struct virtio_9p *p)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!p->slots[i].used)
			return &p->slots[i];
	return NULL;
}

/* One request. False: none now. */
static bool take(struct virtio_9p *p)
{
	struct slot *slot = free_slot(p);
	uint32_t len;

	if (!slot || !virtio_pop(&p->v, 0, &slot->chain))
		return false;
	slot->used = true;
	slot->id = p->next_id++;
	p->in_flight++;
	len = slot->chain.out_bytes;
	if (p->server.fd < 0 || len < HEADER_BYTES || len > VIRTIO_9P_MESSAGE_MAX) {
		finish_error(p, slot);
		return true;
	}
	store_le(p->message, slot->id, ID_BYTES);
	virtqueue_read(&slot->chain, 0, p->message + ID_BYTES, len);
	if (send_message(p, ID_BYTES + len) || !slot->used)
		return true;
	/* The replies to what is in flight bring us back here. */
	slot->used = false;
	p->in_flight--;
	virtqueue_unpop(&p->v.queues[0], 1);
	if (!p->in_flight)
		virtio_requeue(&p->v, 0);
	return false;
}

static void p9_notify(struct virtio_device *v, unsigned queue)
{
	for (unsigned budget = VIRTIO_9P_QUEUE_SIZE; budget; budget--)
		if (!take(p9_of(v)))
			return;
	virtio_requeue(v, queue);
}

static void on_server(void *opaque, uint32_t events UNUSED)
{
	struct virtio_9p *p = opaque;
	ssize_t n = recv(p->server.fd, p->message, sizeof(p->message), MSG_DONTWAIT);
	uint32_t id;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < (ssize_t)ID_BYTES) {
		server_gone(p);
		return;
	}
	id = (uint32_t)load_le(p->message, ID_BYTES);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = &p->slots[i];

		if (!slot->used || slot->id != id)
			continue;
		if (n == (ssize_t)ID_BYTES)
			finish_error(p, slot);
		else
			finish(p, slot, p->message + ID_BYTES, (size_t)n - ID_BYTES);
		break;
	}
	virtio_notify(&p->v, 0);
}

static bool p9_stop(struct virtio_device *v)
{
	struct virtio_9p *p = p9_of(v);

	for (unsigned i = 0; i < SLOTS; i++)
		p->slots[i].used = false;
	p->in_flight = 0;
	/* Who had something open is gone. If this is not sent, the next client's Tversion says the same. */
	store_le(p->message, p->next_id++, ID_BYTES);
	if (p->server.fd >= 0)
		send_message(p, ID_BYTES);
	return true;
}

static void p9_destroy(struct virtio_device *v)
{
	struct virtio_9p *p = p9_of(v);

	if (p->server.fd >= 0) {
		loop_fd_remove(&p->server);
		close(p->server.fd);
	}
	virtio_finish(v);
	free(p);
}

static const struct virtio_ops p9_ops = {
	.name = "virtio-9p",
	.id = VIRTIO_ID_9P,
	.class_code = 0x018000,
	.notify = p9_notify,
	.stop = p9_stop,
	.destroy = p9_destroy,
};

struct virtio_device *virtio_9p_create(struct memory *mem, struct loop *loop, const char *tag, int fd)
{
	struct virtio_9p *p = calloc(1, sizeof(*p));
	int bytes = SOCKET_BYTES;
	struct error *err;

	assert(p && strlen(tag) <= VIRTIO_9P_TAG_MAX);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)); /* room for more than one request, if the host lets us */
	err = loop_fd_add(loop, &p->server, fd, EPOLLIN, on_server, p);
	if (err) {
		log_error("%s", error_message(err));
		error_free(err);
		free(p);
		return NULL;
	}
	virtio_init(&p->v, &p9_ops, mem, loop, VIRTIO_BIT(F_MOUNT_TAG));
	virtio_add_queue(&p->v, VIRTIO_9P_QUEUE_SIZE);
	store_le(p->v.config, strlen(tag), 2);
	memcpy(p->v.config + 2, tag, strlen(tag));
	p->v.config_len = 2 + (unsigned)strlen(tag);
	for (unsigned i = 0; i < SLOTS; i++) {
		p->slots[i].chain.iov = p->slots[i].iov;
		p->slots[i].chain.iov_max = VIRTIO_9P_QUEUE_SIZE;
	}
	return &p->v;
}
