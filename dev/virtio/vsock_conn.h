/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of a virtio socket device: a socket of the host on one side, packets on the other. Private to
 * virtio_vsock.c (packets, queues) and vsock_conn.c (the connection itself).
 */
#ifndef DEV_VIRTIO_VSOCK_CONN_H
#define DEV_VIRTIO_VSOCK_CONN_H

#include "base/loop.h"
#include "dev/virtio/virtio_vsock.h"

/* Operations of a packet (section 5.10.6). */
enum vsock_op {
	VSOCK_OP_REQUEST = 1,
	VSOCK_OP_RESPONSE = 2,
	VSOCK_OP_RST = 3,
	VSOCK_OP_SHUTDOWN = 4,
	VSOCK_OP_RW = 5,
	VSOCK_OP_CREDIT_UPDATE = 6,
	VSOCK_OP_CREDIT_REQUEST = 7,
};
#define VSOCK_SHUTDOWN_RECEIVE 1u
#define VSOCK_SHUTDOWN_SEND 2u
#define VSOCK_SHUTDOWN_BOTH 3u

#define VSOCK_GREETING_BYTES 16u /* "OK 4294967295\n" */

/*
 * FREE        nothing
 * CONNECTING  the guest has asked; the back end looks for somebody
 * REQUESTED   the guest was asked; it has some seconds to answer
 * OPEN        bytes flow
 * ENDING      only the reset that says so is still to be sent
 * DRAINING    over for the guest; what it sent is still on its way to the socket
 */
enum vsock_state { VSOCK_FREE, VSOCK_CONNECTING, VSOCK_REQUESTED, VSOCK_OPEN, VSOCK_ENDING, VSOCK_DRAINING };

struct vsock_conn {
	void (*changed)(void *owner); /* something is to be sent, not from inside of a call of ours */
	void *owner;
	struct loop *loop;

	enum vsock_state state;
	uint32_t id; /* changes with each use of the slot */
	uint32_t guest_port, host_port;
	struct loop_fd watch; /* watch.fd is -1: no socket */
	struct loop_timer timer;
	uint32_t pending; /* bit n: operation n is to be sent */

	/* To the guest: what it can take is peer_alloc - (sent - peer_fwd). */
	uint32_t peer_alloc, peer_fwd, sent;
	bool readable, host_done, hung_up; /* the socket may have bytes; has no more; nobody reads it */
	uint32_t shutdown_flags;	   /* of the SHUTDOWN that is pending or was sent */
	/* From the guest: at most VIRTIO_VSOCK_BUFFER bytes that it sent and that were not forwarded. */
	uint32_t received, forwarded, told; /* told: forwarded as the guest knows it */
	uint32_t guest_shutdown;
	bool write_shut;
	unsigned head, used, greeting; /* out[]: a ring; greeting: bytes of used that are ours, not the guest's */
	uint8_t out[VIRTIO_VSOCK_BUFFER + VSOCK_GREETING_BYTES];
};

/* @fd -1: none yet. False: the host cannot watch it; the slot stays free and @fd the caller's. */
bool vsock_conn_open(struct vsock_conn *c, enum vsock_state state, uint32_t guest_port, uint32_t host_port, int fd);
bool vsock_conn_attach(struct vsock_conn *c, int fd); /* as above, later */
void vsock_conn_free(struct vsock_conn *c);	     /* at once, with its socket */
/* It is over: the guest is told by a reset. */
void vsock_conn_reset(struct vsock_conn *c);
/* Waits @ns for the guest, then resets. */
void vsock_conn_expect(struct vsock_conn *c, uint64_t ns);

/* The guest's buffer, as in each of its packets. False: its counters are wrong. */
bool vsock_conn_credit(struct vsock_conn *c, uint32_t alloc, uint32_t fwd) MUST_CHECK;
uint32_t vsock_conn_room(const struct vsock_conn *c); /* of the guest's */
/* Room for @len bytes of the guest's, in up to two pieces; false: it sends more than it may. */
bool vsock_conn_take(struct vsock_conn *c, uint32_t len, void (*copy)(void *opaque, uint32_t offset, uint8_t *to, uint32_t len),
		     void *opaque) MUST_CHECK;
void vsock_conn_greet(struct vsock_conn *c); /* the host's program is told that it is connected */
void vsock_conn_flush(struct vsock_conn *c); /* to the socket, as much as it takes */
/* Bytes for the guest from the socket; 0: none at present, or the end, which is then pending. */
size_t vsock_conn_read(struct vsock_conn *c, uint8_t *buf, size_t len);
void vsock_conn_guest_shutdown(struct vsock_conn *c, uint32_t flags);
void vsock_conn_guest_reset(struct vsock_conn *c);

#endif
