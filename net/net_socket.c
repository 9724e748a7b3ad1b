// SPDX-License-Identifier: Apache-2.0
/*
 * A network back end that is a connected Unix SOCK_SEQPACKET socket: one Ethernet frame a packet.
 *
 * Theory of operation. Frames from the peer are read in batches (recvmmsg) and handed to the card one by
 * one. When the card has no room, what is left of the batch is kept and the socket is not watched until
 * the card says that it has room; the peer then finds its own buffer full, which is how it learns to
 * slow down. Frames to the peer go out at once; while the socket is full they are kept, up to
 * QUEUE_BYTES, and then dropped, as a switch would. One wakeup does a bounded amount of work.
 *
 * The peer may be hostile: frames that are too short or too long are dropped, nothing else is looked at.
 *
 * Threading: the loop's monitor.
 */
#include "net/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

#define BATCH 32u
#define BATCHES_PER_WAKEUP 4u
#define FRAME_MIN 14u /* an Ethernet header */
#define QUEUE_BYTES (1 * MiB)
#define SOCKET_BYTES (4 * MiB) /* asked for; the kernel gives what it allows */

struct queued {
	struct queued *next;
	size_t len;
	uint8_t data[];
};

struct net_socket {
	struct net_backend be;
	struct loop *loop;
	int fd;
	bool gone; /* the peer has closed */
	struct loop_fd watch;
	struct loop_timer again; /* goes on with the batch that is kept, from the loop and not from resume */

	uint8_t *buffer; /* BATCH frames of NET_FRAME_MAX */
	struct mmsghdr msg[BATCH];
	struct iovec iov[BATCH];
	unsigned next, count; /* frames [next, count) are still to be handed over */
	bool blocked;	      /* the card has no room */

	struct queued *queue, **queue_tail;
	size_t queue_bytes;
};

static void set_events(struct net_socket *s)
{
	if (!s->gone)
		loop_fd_set_events(&s->watch,
				   (s->blocked ? 0 : (uint32_t)EPOLLIN) |
					   (s->queue ? (uint32_t)EPOLLOUT : 0));
}

static void drop_queue(struct net_socket *s)
{
	while (s->queue) {
		struct queued *q = s->queue;

		s->queue = q->next;
		free(q);
		s->be.counters.from_guest_dropped++;
	}
	s->queue_tail = &s->queue;
	s->queue_bytes = 0;
}

static void peer_gone(struct net_socket *s)
{
	if (s->gone)
		return;
	log_warn("the network's other end is gone; the guest's network is dead from now on");
	loop_fd_remove(&s->watch);
	drop_queue(s);
	s->gone = true;
}

/* Hands over what is left of the batch; false: the card has no room. */
static bool deliver(struct net_socket *s)
{
	while (s->next < s->count) {
		const struct mmsghdr *m = &s->msg[s->next];
		bool good = m->msg_len >= FRAME_MIN && !(m->msg_hdr.msg_flags & MSG_TRUNC);

		if (good && s->be.client.receive &&
		    !s->be.client.receive(s->be.client.opaque,
					  s->buffer + (size_t)s->next * NET_FRAME_MAX, m->msg_len)) {
			s->be.counters.to_guest_waits++;
			s->blocked = true;
			return false;
		}
		*(good ? &s->be.counters.to_guest : &s->be.counters.to_guest_dropped) += 1;
		s->be.counters.to_guest_bytes += good ? m->msg_len : 0;
		s->next++;
	}
	s->blocked = false;
	return true;
}

/* Reads a batch; false: there is nothing (more) to read now. */
static bool read_batch(struct net_socket *s)
{
	int n;

	do {
		n = recvmmsg(s->fd, s->msg, BATCH, MSG_DONTWAIT, NULL);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return false;
	s->next = 0;
	s->count = n < 0 ? 0 : (unsigned)n;
	/* An empty packet is the end: no frame is empty. */
	if (n <= 0 || s->msg[0].msg_len == 0) {
		s->count = 0;
		peer_gone(s);
		return false;
	}
	return s->count == BATCH;
}

static void flush_queue(struct net_socket *s)
{
	while (s->queue) {
		struct mmsghdr m[BATCH] = { 0 };
		struct iovec iov[BATCH];
		unsigned n = 0;
		int sent;

		for (struct queued *q = s->queue; q && n < BATCH; q = q->next) {
			iov[n] = (struct iovec){ q->data, q->len };
			m[n].msg_hdr.msg_iov = &iov[n];
			m[n++].msg_hdr.msg_iovlen = 1;
		}
		sent = sendmmsg(s->fd, m, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS)
			peer_gone(s);
		if (sent <= 0)
			return;
		while (sent-- > 0) {
			struct queued *q = s->queue;

			s->queue = q->next;
			s->queue_bytes -= q->len;
			s->be.counters.from_guest_bytes += q->len;
			free(q);
			s->be.counters.from_guest++;
			s->be.counters.from_guest_waits++;
		}
		if (!s->queue)
			s->queue_tail = &s->queue;
	}
}

static void work(struct net_socket *s)
{
	bool more = deliver(s);

	for (unsigned i = 0; more && !s->gone && i < BATCHES_PER_WAKEUP; i++) {
		more = read_batch(s);
		if (!deliver(s))
			break;
	}
	set_events(s); /* what is left in the socket wakes us again */
}

static void on_ready(void *opaque, uint32_t events)
{
	struct net_socket *s = opaque;

	if (events & EPOLLOUT)
		flush_queue(s);
	if (!s->gone && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		work(s);
	set_events(s);
}

static void on_again(void *opaque)
{
	work(opaque);
}

static void socket_resume(struct net_backend *be)
{
	struct net_socket *s = container_of(be, struct net_socket, be);

	if (s->blocked)
		loop_timer_arm(&s->again, 0);
}

static void queue_frame(struct net_socket *s, const struct iovec *iov, int count, size_t len)
{
	struct queued *q;
	size_t at = 0;

	if (s->queue_bytes + len > QUEUE_BYTES || !(q = malloc(sizeof(*q) + len))) {
		s->be.counters.from_guest_dropped++;
		return;
	}
	q->next = NULL;
	q->len = len;
	for (int i = 0; i < count; i++) {
		memcpy(q->data + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	*s->queue_tail = q;
	s->queue_tail = &q->next;
	s->queue_bytes += len;
	set_events(s);
}

static void socket_send(struct net_backend *be, const struct iovec *iov, int count)
{
	struct net_socket *s = container_of(be, struct net_socket, be);
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count };
	size_t len = 0;
	ssize_t sent;

	/* A sum that wraps is too long, too. */
	for (int i = 0; i < count; i++)
		if (__builtin_add_overflow(len, iov[i].iov_len, &len))
			len = SIZE_MAX / 2;
	if (s->gone || len < FRAME_MIN || len > NET_FRAME_MAX) {
		s->be.counters.from_guest_dropped++;
		return;
	}
	if (s->queue) {
		queue_frame(s, iov, count, len); /* frames stay in order */
		return;
	}
	do {
		sent = sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent >= 0) {
		s->be.counters.from_guest++;
		s->be.counters.from_guest_bytes += len;
	} else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
		queue_frame(s, iov, count, len);
	} else {
		s->be.counters.from_guest_dropped++;
		if (errno != EFAULT && errno != EMSGSIZE)
			peer_gone(s);
	}
}

static void socket_destroy(struct net_backend *be)
{
	struct net_socket *s = container_of(be, struct net_socket, be);

	if (!s->gone)
		loop_fd_remove(&s->watch);
	loop_timer_cancel(&s->again);
	drop_queue(s);
	close(s->fd);
	free(s->buffer);
	free(s);
}

static const struct net_backend_ops socket_ops = {
	.name = "socket",
	.send = socket_send,
	.resume = socket_resume,
	.destroy = socket_destroy,
};

struct error *net_socket_create(struct loop *loop, int fd, struct net_backend **out)
{
	struct net_socket *s = calloc(1, sizeof(*s));
	int type, bytes = SOCKET_BYTES;
	socklen_t len = sizeof(type);
	struct error *err;

	if (!s)
		return error_new("out of memory making a network back end");
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET) {
		free(s);
		return error_new("the descriptor of the network is not a SOCK_SEQPACKET socket");
	}
	s->buffer = malloc((size_t)BATCH * NET_FRAME_MAX);
	if (!s->buffer) {
		free(s);
		return error_new("out of memory making a network back end");
	}
	for (unsigned i = 0; i < BATCH; i++) {
		s->iov[i] = (struct iovec){ s->buffer + (size_t)i * NET_FRAME_MAX, NET_FRAME_MAX };
		s->msg[i].msg_hdr.msg_iov = &s->iov[i];
		s->msg[i].msg_hdr.msg_iovlen = 1;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	s->be.ops = &socket_ops;
	s->loop = loop;
	s->fd = fd;
	s->queue_tail = &s->queue;
	loop_timer_init(loop, &s->again, on_again, s);
	err = loop_fd_add(loop, &s->watch, fd, EPOLLIN, on_ready, s);
	if (err) {
		free(s->buffer);
		free(s);
		return err;
	}
	*out = &s->be;
	return NULL;
}
