// SPDX-License-Identifier: Apache-2.0
/*
 * The host's side of virtio sockets, over Unix sockets; see vsock.h.
 *
 * Theory of operation. Who connects has some seconds to say which port it wants; a few may be about to at a time. The
 * line is looked at without taking it (MSG_PEEK) until it is whole, so that what follows it stays in the
 * socket for the guest. Connections that the guest makes are a question to the broker, which is outside of
 * the sandbox and does nothing but connect() to the socket whose name ends in the port's number.
 *
 * Threading: the loop's monitor; connect() also from a vCPU's thread.
 */
#include "net/vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define CALLERS_MAX 16u
#define CALLER_NS (5 * NS_PER_SEC)
#define LINE_BYTES 24u /* "CONNECT 4294967295\n" and some */

/* Somebody who has connected and not yet said what for. */
struct caller {
	struct vsock_unix *u;
	struct loop_fd watch; /* watch.fd is -1 while the slot is free */
	struct loop_timer timer;
};

struct vsock_unix {
	struct vsock_backend be;
	struct loop *loop;
	struct loop_fd listen, broker; /* fd -1: none */
	struct caller callers[CALLERS_MAX];
};

/* Frees the slot; the socket is the caller's of this. */
static int caller_release(struct caller *c)
{
	int fd = c->watch.fd;

	loop_timer_cancel(&c->timer);
	loop_fd_remove(&c->watch);
	c->watch.fd = -1;
	return fd;
}

static void caller_expired(void *opaque)
{
	close(caller_release(opaque));
}

/* The port in "CONNECT <port>\n" of @len bytes. */
static bool parse_line(const char *line, size_t len, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	const size_t start = sizeof(word) - 1;
	uint64_t value = 0;

	if (len <= start + 1 || memcmp(line, word, start))
		return false;
	for (size_t i = start; i + 1 < len; i++) {
		if (line[i] < '0' || line[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(line[i] - '0');
	}
	*port = (uint32_t)value;
	return value < UINT32_MAX; /* that one means any port */
}

static void caller_ready(void *opaque, uint32_t events UNUSED)
{
	struct caller *c = opaque;
	struct vsock_unix *u = c->u;
	char line[LINE_BYTES], *end;
	ssize_t n = recv(c->watch.fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
	uint32_t port = 0;
	size_t len;
	int fd;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
	if (n > 0 && !end && (size_t)n < sizeof(line))
		return; /* it comes in pieces */
	fd = caller_release(c);
	len = end ? (size_t)(end + 1 - line) : 0;
	if (!end || !parse_line(line, len, &port) || recv(fd, line, len, MSG_DONTWAIT) != (ssize_t)len ||
	    !u->be.client.incoming) {
		close(fd);
		return;
	}
	u->be.client.incoming(u->be.client.opaque, fd, port);
}

static void on_caller(void *opaque, uint32_t events UNUSED)
{
	struct vsock_unix *u = opaque;
	int fd = accept4(u->listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct caller *c = NULL;
	struct error *err;

	if (fd < 0)
		return;
	for (unsigned i = 0; i < CALLERS_MAX && !c; i++)
		if (u->callers[i].watch.fd < 0)
			c = &u->callers[i];
	if (!c) {
		log_guest("vsock: more than %u programs connect at the same time: one is turned away", CALLERS_MAX);
		close(fd);
		return;
	}
	/* Edge-triggered, as what is only looked at stays readable. */
	err = loop_fd_add(u->loop, &c->watch, fd, EPOLLIN | EPOLLET, caller_ready, c);
	if (err) {
		error_free(err);
		c->watch.fd = -1;
		close(fd);
		return;
	}
	loop_timer_arm(&c->timer, loop_now_ns() + CALLER_NS);
}

/* The broker is gone: what was asked of it is never answered. */
static void broker_lost(struct vsock_unix *u)
{
	log_warn("vsock: the process that connects the guest to sockets of this host has ended");
	loop_fd_remove(&u->broker);
	close(u->broker.fd);
	u->broker.fd = -1;
}

static void on_broker(void *opaque, uint32_t events UNUSED)
{
	struct vsock_unix *u = opaque;
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	uint8_t answer[4];
	struct iovec iov = { answer, sizeof(answer) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
			      .msg_controllen = sizeof(control.space) };
	ssize_t n = recvmsg(u->broker.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;
	int fd = -1;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != sizeof(answer)) {
		broker_lost(u);
		return;
	}
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	if (u->be.client.connected)
		u->be.client.connected(u->be.client.opaque, (uint32_t)load_le(answer, 4), fd);
	else if (fd >= 0)
		close(fd);
}

static bool unix_connect(struct vsock_backend *be, uint32_t id, uint32_t port)
{
	struct vsock_unix *u = container_of(be, struct vsock_unix, be);
	uint8_t question[8];

	store_le(question, id, 4);
	store_le(question + 4, port, 4);
	return u->broker.fd >= 0 &&
	       send(u->broker.fd, question, sizeof(question), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(question);
}

static void unix_destroy(struct vsock_backend *be)
{
	struct vsock_unix *u = container_of(be, struct vsock_unix, be);

	for (unsigned i = 0; i < CALLERS_MAX; i++)
		if (u->callers[i].watch.fd >= 0)
			close(caller_release(&u->callers[i]));
	loop_fd_remove(&u->listen);
	close(u->listen.fd);
	if (u->broker.fd >= 0) {
		loop_fd_remove(&u->broker);
		close(u->broker.fd);
	}
	free(u);
}

static const struct vsock_backend_ops unix_ops = {
	.name = "unix",
	.connect = unix_connect,
	.destroy = unix_destroy,
};

struct error *vsock_unix_create(struct loop *loop, int listen_fd, int broker_fd, struct vsock_backend **out)
{
	struct vsock_unix *u = calloc(1, sizeof(*u));
	struct error *err;

	if (!u)
		return error_errno(ENOMEM, "vsock");
	u->be.ops = &unix_ops;
	u->loop = loop;
	for (unsigned i = 0; i < CALLERS_MAX; i++) {
		u->callers[i].u = u;
		u->callers[i].watch.fd = -1;
		loop_timer_init(loop, &u->callers[i].timer, caller_expired, &u->callers[i]);
	}
	u->broker.fd = -1;
	fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK);
	err = loop_fd_add(loop, &u->listen, listen_fd, EPOLLIN, on_caller, u);
	if (!err && broker_fd >= 0) {
		err = loop_fd_add(loop, &u->broker, broker_fd, EPOLLIN, on_broker, u);
		if (err)
			loop_fd_remove(&u->listen);
	}
	if (err) {
		free(u);
		return err;
	}
	*out = &u->be;
	return NULL;
}
