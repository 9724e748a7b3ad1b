/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is behind a virtio socket device: programs of this host that talk with the guest over Unix sockets.
 *
 * A program of the host connects to one socket and names a port of the guest; a program of the guest that connects
 * to a port of the host reaches whoever listens there. The device gets connected sockets, which it
 * owns from then on. In the loop's monitor, all of it.
 */
#ifndef NET_VSOCK_H
#define NET_VSOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

struct vsock_client {
	/* A program of the host, connected by @fd, wants the guest's @port. Takes @fd. */
	void (*incoming)(void *opaque, int fd, uint32_t port);
	/* The answer to connect: a socket, taken, or -1. Not from inside of connect. */
	void (*connected)(void *opaque, uint32_t id, int fd);
	void *opaque;
};

struct vsock_backend;

struct vsock_backend_ops {
	const char *name;
	/* The guest wants @port of the host: the answer comes under @id. False: there will be none, nobody is there. */
	bool (*connect)(struct vsock_backend *be, uint32_t id, uint32_t port);
	void (*destroy)(struct vsock_backend *be);
};

struct vsock_backend {
	const struct vsock_backend_ops *ops;
	struct vsock_client client; /* set by the device */
};

/*
 * @listen_fd is a listening Unix stream socket; who connects sends "CONNECT <port>\n". @broker_fd is a packet
 * socket to a process that may connect where we may not: {le32 id, le32 port} is answered by {le32 id} with
 * a connected socket, or without one. -1: none. Takes both.
 */
struct error *vsock_unix_create(struct loop *loop, int listen_fd, int broker_fd, struct vsock_backend **out) MUST_CHECK;

#endif
