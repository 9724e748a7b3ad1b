// SPDX-License-Identifier: Apache-2.0
/*
 * Virtio file system device: FUSE requests of the guest's to the process that serves the folder, and replies back.
 *
 * Theory of operation. A chain is a request to read and room for its reply. It gets a number, and its request is sent
 * piece by piece, one request after the other; then the chain waits in its slot until the reply has come, whose pieces are
 * copied into its room. A request without room for a reply (FUSE_FORGET) is done when it is sent. We look at nothing in a
 * message, but for an error of our own at the request's number: what is in it is between the guest and that
 * process, which neither believes. The process's packets are checked like a driver's rings.
 *
 * The high-priority queue goes first whenever a request is done with being sent. The socket takes as much as it
 * likes; what is left waits for EPOLLOUT. A reset forgets all chains at once, as nobody else knows of their memory; it
 * is told to the process before anything else is, and late replies belong to no number that is in use.
 *
 * When the process is gone the guest gets an I/O error for each request.
 *
 * Manual: virtio 1.2, section 5.11; linux/fuse.h for the two headers.
 */
#include "dev/virtio/virtio_fs.h"

#include <assert.h>
#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

#define SLOTS 64u
#define BUDGET 16u /* packets at a time, each way: others want the machine's lock, too */
#define SOCKET_BYTES (1024 * 1024)

struct slot {
	bool used;
	uint32_t id;
	unsigned queue;
	uint32_t total, received; /* of the reply, as the process tells it */
	struct virtqueue_chain chain;
	struct iovec iov[VIRTIO_FS_QUEUE_SIZE];
};

struct virtio_fs {
	struct virtio_device v;
	struct loop_fd server; /* fd -1: gone */
	uint32_t next_id;
	bool tell_reset;      /* to be sent before anything else */
	struct slot *sending; /* whose request is under way, and how much of it was sent */
	uint32_t sent;
	struct slot slots[SLOTS];
	struct {
		struct share_packet head;
		uint8_t piece[SHARE_PIECE_MAX];
	} packet;
};

static struct virtio_fs *fs_of(struct virtio_device *v)
{
	return container_of(v, struct virtio_fs, v);
}

/* ---- Chains ---- */

static void finish(struct virtio_fs *fs, struct slot *slot, uint32_t written)
{
	slot->used = false;
	virtio_push(&fs->v, slot->queue, slot->chain.head, written);
}

static bool wants_reply(const struct slot *slot)
{
	return slot->chain.in_bytes >= sizeof(struct fuse_out_header);
}

static void finish_error(struct virtio_fs *fs, struct slot *slot)
{
	struct fuse_out_header reply = { .len = sizeof(reply), .error = -EIO };
	struct fuse_in_header request = { 0 };
	size_t n = 0;

	if (wants_reply(slot)) {
		virtqueue_read(&slot->chain, 0, &request, sizeof(request));
		reply.unique = request.unique;
		n = virtqueue_write(&fs->v.queues[slot->queue], &slot->chain, 0, &reply, sizeof(reply));
	}
	finish(fs, slot, (uint32_t)n);
}

static void server_gone(struct virtio_fs *fs)
{
	log_warn("the process that serves the shared folder '%.*s' has ended: the guest gets I/O errors",
		 (int)VIRTIO_FS_TAG_MAX, (const char *)fs->v.config);
	loop_fd_remove(&fs->server);
	close(fs->server.fd);
	fs->server.fd = -1;
	fs->sending = NULL;
	for (unsigned i = 0; i < SLOTS; i++)
		if (fs->slots[i].used)
			finish_error(fs, &fs->slots[i]);
	virtio_requeue(&fs->v, VIRTIO_FS_REQUESTS); /* and what is in the queues */
}

static struct slot *free_slot(struct virtio_fs *fs)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!fs->slots[i].used)
			return &fs->slots[i];
	return NULL;
}

/* The next request, to be sent. False: none, or no slot until a reply comes. */
static bool take(struct virtio_fs *fs)
{
	struct slot *slot = free_slot(fs);

	if (!slot)
		return false;
	if (virtio_pop(&fs->v, VIRTIO_FS_HIPRIO, &slot->chain))
		slot->queue = VIRTIO_FS_HIPRIO;
	else if (virtio_pop(&fs->v, VIRTIO_FS_REQUESTS, &slot->chain))
		slot->queue = VIRTIO_FS_REQUESTS;
	else
		return false;
	slot->used = true;
	slot->id = fs->next_id++;
	slot->total = slot->received = 0;
	if (fs->server.fd < 0 || !slot->chain.out_bytes || slot->chain.out_bytes > SHARE_MESSAGE_MAX) {
		finish_error(fs, slot);
	} else {
		fs->sending = slot;
		fs->sent = 0;
	}
	return true;
}

/* ---- To the process ---- */

/* A packet with @len bytes. False: the socket is full, or the process gone. */
static bool send_packet(struct virtio_fs *fs, size_t len)
{
	ssize_t n = send(fs->server.fd, &fs->packet, sizeof(fs->packet.head) + len, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n >= 0)
		return true;
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM)
		loop_fd_set_events(&fs->server, EPOLLIN | EPOLLOUT);
	else
		server_gone(fs);
	return false;
}

static bool send_reset(struct virtio_fs *fs)
{
	fs->packet.head = (struct share_packet){ .total = 0 };
	if (!send_packet(fs, 0))
		return false;
	fs->tell_reset = false;
	return true;
}

/* The next piece of the request under way. */
static bool send_piece(struct virtio_fs *fs)
{
	struct slot *slot = fs->sending;
	uint32_t total = slot->chain.out_bytes, len = MIN(total - fs->sent, SHARE_PIECE_MAX);

	fs->packet.head = (struct share_packet){ slot->id, total, fs->sent, slot->chain.in_bytes };
	virtqueue_read(&slot->chain, fs->sent, fs->packet.piece, len);
	if (!send_packet(fs, len))
		return false;
	fs->sent += len;
	if (fs->sent < total)
		return true;
	fs->sending = NULL;
	if (!wants_reply(slot))
		finish(fs, slot, 0);
	return true;
}

/* Sends what there is, as far as the socket takes it. */
static void pump(struct virtio_fs *fs)
{
	for (unsigned budget = BUDGET; budget; budget--) {
		if (fs->tell_reset && fs->server.fd >= 0 && !send_reset(fs))
			return;
		if (!fs->sending && !take(fs))
			return;
		if (fs->sending && !send_piece(fs))
			return;
	}
	virtio_requeue(&fs->v, VIRTIO_FS_REQUESTS);
}

static void fs_notify(struct virtio_device *v, unsigned queue UNUSED)
{
	pump(fs_of(v));
}

/* ---- From the process ---- */

static struct slot *find_slot(struct virtio_fs *fs, uint32_t id)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (fs->slots[i].used && fs->slots[i].id == id && &fs->slots[i] != fs->sending)
			return &fs->slots[i];
	return NULL;
}

/* A piece of a reply, of @len bytes. False: not one that can be. */
static bool take_piece(struct virtio_fs *fs, uint32_t len)
{
	const struct share_packet *head = &fs->packet.head;
	struct slot *slot = find_slot(fs, head->id);

	if (!slot)
		return true; /* from before a reset */
	if (!slot->received)
		slot->total = head->total;
	if (!len || head->total != slot->total || head->offset != slot->received ||
	    slot->total < sizeof(struct fuse_out_header) || slot->total > slot->chain.in_bytes ||
	    len > slot->total - slot->received)
		return false;
	virtqueue_write(&fs->v.queues[slot->queue], &slot->chain, slot->received, fs->packet.piece, len);
	slot->received += len;
	if (slot->received == slot->total)
		finish(fs, slot, slot->total);
	return true;
}

static void on_server(void *opaque, uint32_t events)
{
	struct virtio_fs *fs = opaque;

	if (events & EPOLLOUT)
		loop_fd_set_events(&fs->server, EPOLLIN);
	for (unsigned budget = BUDGET; budget; budget--) {
		ssize_t n = recv(fs->server.fd, &fs->packet, sizeof(fs->packet), MSG_DONTWAIT | MSG_TRUNC);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < (ssize_t)sizeof(fs->packet.head) || n > (ssize_t)sizeof(fs->packet) ||
		    !take_piece(fs, (uint32_t)n - (uint32_t)sizeof(fs->packet.head))) {
			server_gone(fs);
			break;
		}
	}
	pump(fs);
}

static bool fs_stop(struct virtio_device *v)
{
	struct virtio_fs *fs = fs_of(v);

	for (unsigned i = 0; i < SLOTS; i++)
		fs->slots[i].used = false;
	fs->sending = NULL;
	fs->tell_reset = true;
	if (fs->server.fd >= 0)
		send_reset(fs);
	return true;
}

static void fs_destroy(struct virtio_device *v)
{
	struct virtio_fs *fs = fs_of(v);

	if (fs->server.fd >= 0) {
		loop_fd_remove(&fs->server);
		close(fs->server.fd);
	}
	virtio_finish(v);
	free(fs);
}

static const struct virtio_ops fs_ops = {
	.name = "virtio-fs",
	.id = VIRTIO_ID_FS,
	.class_code = 0x018000,
	.notify = fs_notify,
	.stop = fs_stop,
	.destroy = fs_destroy,
};

struct virtio_device *virtio_fs_create(struct memory *mem, struct loop *loop, const char *tag, int fd)
{
	struct virtio_fs *fs = calloc(1, sizeof(*fs));
	int bytes = SOCKET_BYTES;
	struct error *err;

	assert(fs && strlen(tag) <= VIRTIO_FS_TAG_MAX);
	/* Room for more than one packet, if the host lets us. */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	err = loop_fd_add(loop, &fs->server, fd, EPOLLIN, on_server, fs);
	if (err) {
		log_error("%s", error_message(err));
		error_free(err);
		free(fs);
		return NULL;
	}
	virtio_init(&fs->v, &fs_ops, mem, loop, 0);
	virtio_add_queue(&fs->v, VIRTIO_FS_QUEUE_SIZE);
	virtio_add_queue(&fs->v, VIRTIO_FS_QUEUE_SIZE);
	/* tag[36], num_request_queues */
	memcpy(fs->v.config, tag, strlen(tag));
	store_le(fs->v.config + VIRTIO_FS_TAG_MAX, 1, 4);
	fs->v.config_len = VIRTIO_FS_TAG_MAX + 4;
	for (unsigned i = 0; i < SLOTS; i++) {
		fs->slots[i].chain.iov = fs->slots[i].iov;
		fs->slots[i].chain.iov_max = VIRTIO_FS_QUEUE_SIZE;
	}
	return &fs->v;
}
