// SPDX-License-Identifier: Apache-2.0
/*
 * A character back end behind a listening Unix socket: one client at a time, who may leave and come back.
 *
 * While nobody is connected, output is kept in the ring (outbuf.h), so that whoever connects sees the
 * last of what was printed. While somebody is connected, nobody else is accepted: further clients wait
 * in the socket's backlog. Input is read only while the chip has room; a chip that does not want to lose output can
 * wait for whoever is connected.
 *
 * Threading: the loop's monitor.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ui/chardev.h"
#include "ui/outbuf.h"

#define IN_CHUNK 4096u
#define OUT_PER_WAKEUP 65536u
#define LAST_WORDS_MS 1000

struct chardev_socket {
	struct chardev chr;
	struct loop *loop;
	int listen_fd, fd; /* fd is -1: nobody is connected */
	bool full;	   /* the chip has no room: not reading */
	struct loop_fd listen_watch, watch;
	struct loop_timer resume_timer;
	struct outbuf out;
};

static void set_events(struct chardev_socket *c)
{
	if (c->fd >= 0)
		loop_fd_set_events(&c->watch, (c->full ? 0 : (uint32_t)EPOLLIN) |
						      (c->out.used ? (uint32_t)EPOLLOUT : 0));
}

/* The chip may be waiting for somebody to read. Not while it is writing. */
static void tell_writable(struct chardev_socket *c)
{
	if (c->chr.client.writable)
		c->chr.client.writable(c->chr.client.opaque);
}

static void hang_up(struct chardev_socket *c)
{
	loop_fd_remove(&c->watch);
	close(c->fd);
	c->fd = -1;
	c->full = false;
	loop_fd_set_events(&c->listen_watch, EPOLLIN);
}

static void read_some(struct chardev_socket *c)
{
	size_t room = c->chr.client.receive ? c->chr.client.can_receive(c->chr.client.opaque) : 0;
	uint8_t buf[IN_CHUNK];
	ssize_t got;

	room = MIN(room, sizeof(buf));
	c->full = room == 0;
	if (c->full)
		return;
	got = recv(c->fd, buf, room, MSG_DONTWAIT);
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (got <= 0)
		hang_up(c);
	else
		c->chr.client.receive(c->chr.client.opaque, buf, (size_t)got);
}

static void write_some(struct chardev_socket *c)
{
	size_t done = 0;

	while (c->fd >= 0 && c->out.used > 0 && done < OUT_PER_WAKEUP) {
		const uint8_t *from;
		size_t len = outbuf_peek(&c->out, &from);
		ssize_t put = send(c->fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (put < 0 && (errno == EINTR || errno == EAGAIN))
			break;
		if (put <= 0) {
			hang_up(c);
			return;
		}
		outbuf_consume(&c->out, (size_t)put);
		done += (size_t)put;
	}
}

static void on_ready(void *opaque, uint32_t events)
{
	struct chardev_socket *c = opaque;

	if (events & EPOLLOUT)
		write_some(c);
	if (c->fd >= 0 && (events & EPOLLIN))
		read_some(c);
	else if (c->fd >= 0 && !c->full && (events & (EPOLLHUP | EPOLLERR)))
		hang_up(c); /* while full there may be something left to read */
	set_events(c);
	if ((events & EPOLLOUT) || c->fd < 0)
		tell_writable(c);
}

static void on_connect(void *opaque, uint32_t events UNUSED)
{
	struct chardev_socket *c = opaque;
	struct error *err;
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return; /* gone again, or no descriptors: it is asked again */
	err = loop_fd_add(c->loop, &c->watch, fd, EPOLLIN, on_ready, c);
	if (err) {
		error_free(err);
		close(fd);
		return;
	}
	c->fd = fd;
	loop_fd_set_events(&c->listen_watch, 0);
	write_some(c);
	set_events(c);
}

static void on_resume(void *opaque)
{
	struct chardev_socket *c = opaque;

	c->full = false;
	set_events(c);
}

static void socket_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	struct chardev_socket *c = container_of(chr, struct chardev_socket, chr);
	bool was_empty = c->out.used == 0;

	outbuf_add(&c->out, buf, len);
	if (was_empty)
		write_some(c);
	set_events(c);
}

static size_t socket_room(struct chardev *chr)
{
	const struct chardev_socket *c = container_of(chr, struct chardev_socket, chr);

	return c->fd < 0 ? SIZE_MAX : OUTBUF_BYTES - c->out.used;
}

static void socket_resume(struct chardev *chr)
{
	struct chardev_socket *c = container_of(chr, struct chardev_socket, chr);

	if (c->full) /* not from here: the chip is in the middle of something */
		loop_timer_arm(&c->resume_timer, 0);
}

static void socket_destroy(struct chardev *chr)
{
	struct chardev_socket *c = container_of(chr, struct chardev_socket, chr);
	uint64_t deadline = loop_now_ns() + LAST_WORDS_MS * NS_PER_MS;

	while (c->fd >= 0 && c->out.used > 0 && loop_now_ns() < deadline) {
		struct pollfd p = { .fd = c->fd, .events = POLLOUT };

		poll(&p, 1, 20);
		write_some(c);
	}
	if (c->fd >= 0)
		hang_up(c);
	loop_fd_remove(&c->listen_watch);
	loop_timer_cancel(&c->resume_timer);
	close(c->listen_fd);
	outbuf_finish(&c->out);
	free(c);
}

static const struct chardev_ops socket_ops = {
	.name = "socket",
	.write = socket_write,
	.room = socket_room,
	.resume = socket_resume,
	.destroy = socket_destroy,
};

struct error *chardev_socket_create(struct loop *loop, int listen_fd, struct chardev **out)
{
	struct chardev_socket *c = calloc(1, sizeof(*c));
	struct error *err;

	if (!c || !outbuf_init(&c->out)) {
		free(c);
		return error_new("out of memory making a console");
	}
	c->chr.ops = &socket_ops;
	c->loop = loop;
	c->listen_fd = listen_fd;
	c->fd = -1;
	loop_timer_init(loop, &c->resume_timer, on_resume, c);
	/* A client may be gone again by the time it is accepted: that must not block. */
	fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK);
	err = loop_fd_add(loop, &c->listen_watch, listen_fd, EPOLLIN, on_connect, c);
	if (err) {
		outbuf_finish(&c->out);
		free(c);
		return err;
	}
	*out = &c->chr;
	return NULL;
}
