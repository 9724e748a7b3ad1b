/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of a virtio socket device; see vsock_conn.h.
 *
 * Theory of operation. What the guest sends goes into a ring and from there to the socket; how much of it has been
 * forwarded is told to the guest, which never has more than the ring's size outstanding. What the
 * host sends stays in its socket until the guest has buffers and credit. Nobody who does not read holds up
 * others or makes us keep more than that.
 *
 * The end. The socket's end becomes SHUTDOWN, which the guest answers by a reset when it is done; a guest that does not
 * is reset after a while. The guest's SHUTDOWN takes effect when what it sent before is forwarded.
 *
 * Counters are of 32 bits and wrap (section 5.10.6.3). The guest's are checked: it cannot have forwarded
 * what was not sent.
 */
#include "dev/virtio/vsock_conn.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CREDIT_STEP (VIRTIO_VSOCK_BUFFER / 4) /* the guest is told each time so much was forwarded */

static void update_events(struct vsock_conn *c)
{
	if (c->watch.fd >= 0)
		loop_fd_set_events(&c->watch, (c->readable || c->host_done ? 0 : (uint32_t)EPOLLIN) |
						      (c->used ? (uint32_t)EPOLLOUT : 0));
}

static void close_socket(struct vsock_conn *c)
{
	if (c->watch.fd < 0)
		return;
	loop_fd_remove(&c->watch);
	close(c->watch.fd);
	c->watch.fd = -1;
}

static void on_socket(void *opaque, uint32_t events)
{
	struct vsock_conn *c = opaque;

	if (events & EPOLLHUP)
		c->hung_up = true;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (c->host_done && c->hung_up && c->shutdown_flags != VSOCK_SHUTDOWN_BOTH) {
		c->shutdown_flags = VSOCK_SHUTDOWN_BOTH;
		c->pending |= 1u << VSOCK_OP_SHUTDOWN;
	}
	if (c->hung_up && c->state == VSOCK_DRAINING) {
		vsock_conn_free(c);
		return;
	}
	update_events(c);
	if (events & EPOLLOUT)
		vsock_conn_flush(c);
	c->changed(c->owner);
}

bool vsock_conn_attach(struct vsock_conn *c, int fd)
{
	struct error *err = loop_fd_add(c->loop, &c->watch, fd, EPOLLIN, on_socket, c);

	if (!err)
		return true;
	log_warn("vsock: %s", error_message(err));
	error_free(err);
	c->watch.fd = -1;
	return false;
}

bool vsock_conn_open(struct vsock_conn *c, enum vsock_state state, uint32_t guest_port, uint32_t host_port, int fd)
{
	assert(c->state == VSOCK_FREE && c->watch.fd < 0);
	if (fd >= 0 && !vsock_conn_attach(c, fd))
		return false;
	c->state = state;
	c->guest_port = guest_port;
	c->host_port = host_port;
	return true;
}

void vsock_conn_free(struct vsock_conn *c)
{
	close_socket(c);
	loop_timer_cancel(&c->timer);
	c->state = VSOCK_FREE;
	c->id += VIRTIO_VSOCK_CONNECTIONS; /* no other slot has it */
	c->pending = 0;
	c->peer_alloc = c->peer_fwd = c->sent = 0;
	c->readable = c->host_done = c->hung_up = false;
	c->shutdown_flags = c->guest_shutdown = 0;
	c->received = c->forwarded = c->told = 0;
	c->write_shut = false;
	c->head = c->used = c->greeting = 0;
}

void vsock_conn_reset(struct vsock_conn *c)
{
	close_socket(c);
	loop_timer_cancel(&c->timer);
	c->state = VSOCK_ENDING;
	c->used = c->greeting = 0;
	c->pending = 1u << VSOCK_OP_RST;
}

void vsock_conn_expect(struct vsock_conn *c, uint64_t ns)
{
	loop_timer_arm(&c->timer, loop_now_ns() + ns);
}

bool vsock_conn_credit(struct vsock_conn *c, uint32_t alloc, uint32_t fwd)
{
	if (fwd - c->peer_fwd > c->sent - c->peer_fwd)
		return false;
	c->peer_alloc = alloc;
	c->peer_fwd = fwd;
	return true;
}

uint32_t vsock_conn_room(const struct vsock_conn *c)
{
	uint32_t outstanding = c->sent - c->peer_fwd;

	/* A guest may make its buffer smaller than what is under way. */
	return c->peer_alloc > outstanding ? c->peer_alloc - outstanding : 0;
}

bool vsock_conn_take(struct vsock_conn *c, uint32_t len,
		     void (*copy)(void *opaque, uint32_t offset, uint8_t *to, uint32_t len), void *opaque)
{
	uint32_t first;
	unsigned tail;

	if (len > VIRTIO_VSOCK_BUFFER - (c->received - c->forwarded))
		return false;
	tail = (c->head + c->used) % (unsigned)sizeof(c->out);
	first = MIN(len, (uint32_t)sizeof(c->out) - tail);
	copy(opaque, 0, c->out + tail, first);
	copy(opaque, first, c->out, len - first);
	c->used += len;
	c->received += len;
	assert(c->used <= sizeof(c->out));
	return true;
}

void vsock_conn_greet(struct vsock_conn *c)
{
	assert(!c->used);
	c->head = 0;
	c->greeting = c->used = (unsigned)snprintf((char *)c->out, VSOCK_GREETING_BYTES, "OK %u\n", c->host_port);
}

/* What the guest's SHUTDOWN asked for, once everything is forwarded. */
static void finish_shutdown(struct vsock_conn *c)
{
	if (c->used || c->watch.fd < 0)
		return;
	if (c->state == VSOCK_DRAINING) {
		vsock_conn_free(c);
	} else if (c->guest_shutdown == VSOCK_SHUTDOWN_BOTH) {
		vsock_conn_reset(c);
	} else if ((c->guest_shutdown & VSOCK_SHUTDOWN_SEND) && !c->write_shut) {
		c->write_shut = true;
		shutdown(c->watch.fd, SHUT_WR);
	}
}

/* What the guest sent and sends is for nobody; what was sent to it is still delivered, and then the end. */
static void nobody_reads(struct vsock_conn *c)
{
	c->forwarded += c->used - c->greeting;
	c->used = c->greeting = 0;
	c->hung_up = true;
	c->readable = true;
}

void vsock_conn_flush(struct vsock_conn *c)
{
	while (c->used && c->watch.fd >= 0) {
		size_t run = MIN(c->used, sizeof(c->out) - c->head);
		ssize_t n = send(c->watch.fd, c->out + c->head, run, MSG_NOSIGNAL | MSG_DONTWAIT);
		unsigned ours;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0) {
			nobody_reads(c);
			break;
		}
		ours = MIN((unsigned)n, c->greeting);
		c->greeting -= ours;
		c->forwarded += (uint32_t)n - ours;
		c->head = (c->head + (unsigned)n) % (unsigned)sizeof(c->out);
		c->used -= (unsigned)n;
	}
	if (c->state == VSOCK_OPEN && c->forwarded - c->told >= CREDIT_STEP)
		c->pending |= 1u << VSOCK_OP_CREDIT_UPDATE;
	finish_shutdown(c);
	update_events(c);
}

size_t vsock_conn_read(struct vsock_conn *c, uint8_t *buf, size_t len)
{
	ssize_t n;

	if (c->state != VSOCK_OPEN || !c->readable || c->host_done || c->watch.fd < 0)
		return 0;
	n = recv(c->watch.fd, buf, len, MSG_DONTWAIT);
	if (n > 0)
		return (size_t)n;
	c->readable = false;
	if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		c->host_done = true;
		if (n < 0)
			c->hung_up = true;
		c->shutdown_flags = c->hung_up ? VSOCK_SHUTDOWN_BOTH : VSOCK_SHUTDOWN_SEND;
		c->pending |= 1u << VSOCK_OP_SHUTDOWN;
	}
	update_events(c);
	return 0;
}

void vsock_conn_guest_shutdown(struct vsock_conn *c, uint32_t flags)
{
	c->guest_shutdown |= flags & VSOCK_SHUTDOWN_BOTH;
	finish_shutdown(c);
}

void vsock_conn_guest_reset(struct vsock_conn *c)
{
	bool finish = c->state == VSOCK_OPEN && (c->guest_shutdown & VSOCK_SHUTDOWN_SEND) && c->used &&
		      !c->hung_up;

	if (!finish) {
		vsock_conn_free(c);
		return;
	}
	loop_timer_cancel(&c->timer);
	c->state = VSOCK_DRAINING;
	c->pending = 0;
	c->host_done = true; /* nobody reads any more */
	update_events(c);
}
