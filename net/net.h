/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network interface: Ethernet frames between a network card and a back end.
 *
 * The card calls net_send; the back end calls the card's receive. Both in the loop's monitor. A back end
 * that cannot take a frame drops it; a card that has no buffers returns false from receive, the back end
 * stops reading, and the card calls net_resume when it has some again.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

#define NET_FRAME_MAX 65550u /* longest frame either side passes, headers included */
#define NET_OFFLOAD_MTU 65520u /* of a guest's card on a back end with offload; what maru-nat takes */

struct net_client {
	/* True: taken. False: keep it and wait for net_resume. */
	bool (*receive)(void *opaque, const void *frame, size_t len);
	void *opaque;
};

/* Frames, since the start: what the back end and the card have done with them. */
struct net_counters {
	uint64_t to_guest;	    /* that the card took from the back end */
	uint64_t to_guest_bytes;    /* in these */
	uint64_t to_guest_waits;    /* times that the card had no room for one, which then waited */
	uint64_t to_guest_ignored;  /* of those taken: the driver was not there, or not interested */
	uint64_t to_guest_dropped;  /* too short or too long, or more than the driver's buffers hold */
	uint64_t from_guest;	    /* that the other end took */
	uint64_t from_guest_bytes;  /* in these */
	uint64_t from_guest_waits;  /* of these, those that it took later */
	uint64_t from_guest_dropped; /* it took nothing for too long, or they were no frames */
};

struct net_backend;

struct net_backend_ops {
	const char *name;
	void (*send)(struct net_backend *be, const struct iovec *iov, int count);
	void (*resume)(struct net_backend *be);
	void (*destroy)(struct net_backend *be);
};

struct net_backend {
	const struct net_backend_ops *ops;
	/*
	 * The other end is a program of this host that takes frames of any length up to NET_FRAME_MAX, and that
	 * checksums what it sends: the guest need not cut its data into small packets, nor check ours.
	 */
	bool offload;
	struct net_client client; /* set by the card */
	struct net_counters counters;
};

static inline void net_send(struct net_backend *be, const struct iovec *iov, int count)
{
	be->ops->send(be, iov, count);
}

static inline void net_resume(struct net_backend *be)
{
	be->ops->resume(be);
}

/*
 * A peer process on a connected Unix SOCK_SEQPACKET socket, one frame a packet: `maru-nat`, another VM,
 * a switch. Takes @fd.
 */
struct error *net_socket_create(struct loop *loop, int fd, struct net_backend **out) MUST_CHECK;

#endif
