/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio socket device: streams between programs of the guest and of the host.
 *
 * Theory of operation. The transmit queue brings packets, each a header with or without data, that belong to a
 * connection by their two ports. What is to go to the guest is never queued as packets: a connection has a bit for
 * each operation that it has to send, its data waits in its socket, and resets for what is no connection
 * wait in a small ring. deliver() turns all that into packets as the driver gives buffers, fairly among
 * connections. While the ring of resets is full no packet is taken from the transmit queue, so a driver that gives
 * no receive buffers stops itself and nobody else.
 *
 * Threading: the machine's lock; doorbells in vCPU threads, sockets and timers in the loop's.
 *
 * Manual: virtio 1.2, section 5.10.
 */
#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "dev/virtio/virtio_vsock.h"
#include "dev/virtio/vsock_conn.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUES };
enum { CONFIG_CID = 0, CONFIG_BYTES = 8 };

/* struct virtio_vsock_hdr */
enum {
	HDR_SRC_CID = 0,
	HDR_DST_CID = 8,
	HDR_SRC_PORT = 16,
	HDR_DST_PORT = 20,
	HDR_LEN = 24,
	HDR_TYPE = 28,
	HDR_OP = 30,
	HDR_FLAGS = 32,
	HDR_BUF_ALLOC = 36,
	HDR_FWD_CNT = 40,
	HDR_BYTES = 44,
};
#define TYPE_STREAM 1u

#define RESETS_MAX 64u
#define DATA_MAX (16u * 1024) /* of one packet to the guest */
#define FIRST_HOST_PORT 0x40000000u
#define ANSWER_NS (10 * NS_PER_SEC) /* for the guest to answer a request, or the end of a connection */

struct packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len, flags, buf_alloc, fwd_cnt;
	uint16_t type, op;
};

struct virtio_vsock {
	struct virtio_device v;
	struct vsock_backend *backend;
	uint32_t cid;
	struct vsock_conn conns[VIRTIO_VSOCK_CONNECTIONS];
	unsigned next; /* whose turn it is */
	uint32_t next_port;
	/* Resets for packets that belong to nothing: who gets them, and on whose behalf. */
	struct {
		uint64_t cid;
		uint32_t guest_port, host_port;
	} resets[RESETS_MAX];
	unsigned reset_first, reset_count;
	uint8_t data[DATA_MAX];
	struct virtqueue_chain chain;
	struct iovec iov[VIRTIO_VSOCK_QUEUE_SIZE];
};

static struct virtio_vsock *vsock_of(struct virtio_device *v)
{
	return container_of(v, struct virtio_vsock, v);
}

/* ---- To the guest ---- */

/*
 * One packet with @len bytes of vs->data, whose header's fwd_cnt and buf_alloc are @c's (NULL: none). False: no buffer.
 * With @c and VSOCK_OP_RW the data is read from its socket, and there is no packet when there is none.
 */
static bool send_packet(struct virtio_vsock *vs, struct packet p, struct vsock_conn *c)
{
	uint8_t header[HDR_BYTES] = { 0 };

	if (!virtio_pop(&vs->v, QUEUE_RX, &vs->chain))
		return false;
	if (vs->chain.in_bytes <= HDR_BYTES) {
		virtio_break(&vs->v, "a receive buffer has no room for a packet");
		return false;
	}
	if (p.op == VSOCK_OP_RW) {
		uint32_t most = MIN(vsock_conn_room(c), vs->chain.in_bytes - HDR_BYTES);

		p.len = (uint32_t)vsock_conn_read(c, vs->data, MIN(most, sizeof(vs->data)));
		if (!p.len) {
			virtqueue_unpop(&vs->v.queues[QUEUE_RX], 1);
			return true;
		}
		c->sent += p.len;
	}
	store_le(header + HDR_SRC_CID, p.src_cid, 8);
	store_le(header + HDR_DST_CID, vs->cid, 8);
	store_le(header + HDR_SRC_PORT, p.src_port, 4);
	store_le(header + HDR_DST_PORT, p.dst_port, 4);
	store_le(header + HDR_LEN, p.len, 4);
	store_le(header + HDR_TYPE, TYPE_STREAM, 2);
	store_le(header + HDR_OP, p.op, 2);
	store_le(header + HDR_FLAGS, p.flags, 4);
	if (c) {
		store_le(header + HDR_BUF_ALLOC, VIRTIO_VSOCK_BUFFER, 4);
		store_le(header + HDR_FWD_CNT, c->forwarded, 4);
		c->told = c->forwarded;
		c->pending &= ~(1u << VSOCK_OP_CREDIT_UPDATE);
	}
	virtqueue_write(&vs->v.queues[QUEUE_RX], &vs->chain, 0, header, sizeof(header));
	virtqueue_write(&vs->v.queues[QUEUE_RX], &vs->chain, HDR_BYTES, vs->data, p.len);
	virtio_push(&vs->v, QUEUE_RX, vs->chain.head, HDR_BYTES + p.len);
	return true;
}

static bool send_of(struct virtio_vsock *vs, struct vsock_conn *c, uint16_t op)
{
	return send_packet(vs,
			   (struct packet){ .src_cid = VIRTIO_VSOCK_CID_HOST,
					    .src_port = c->host_port,
					    .dst_port = c->guest_port,
					    .op = op,
					    .flags = op == VSOCK_OP_SHUTDOWN ? c->shutdown_flags : 0 },
			   c);
}

/* What the connection has to send besides data. False: no buffer. */
static bool deliver_pending(struct virtio_vsock *vs, struct vsock_conn *c)
{
	static const uint16_t order[] = { VSOCK_OP_REQUEST, VSOCK_OP_RESPONSE, VSOCK_OP_CREDIT_UPDATE,
					  VSOCK_OP_SHUTDOWN, VSOCK_OP_RST };

	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		uint16_t op = order[i];

		if (!(c->pending & 1u << op))
			continue;
		if (!send_of(vs, c, op))
			return false;
		c->pending &= ~(1u << op);
		if (op == VSOCK_OP_RST)
			vsock_conn_free(c);
		else if (op == VSOCK_OP_REQUEST ||
			 (op == VSOCK_OP_SHUTDOWN && c->shutdown_flags == VSOCK_SHUTDOWN_BOTH))
			vsock_conn_expect(c, ANSWER_NS);
	}
	return true;
}

static bool deliver_resets(struct virtio_vsock *vs)
{
	while (vs->reset_count) {
		typeof(vs->resets[0]) *r = &vs->resets[vs->reset_first];

		if (!send_packet(vs,
				 (struct packet){ .src_cid = r->cid,
						  .src_port = r->host_port,
						  .dst_port = r->guest_port,
						  .op = VSOCK_OP_RST },
				 NULL))
			return false;
		vs->reset_first = (vs->reset_first + 1) % RESETS_MAX;
		vs->reset_count--;
	}
	return true;
}

static bool wants_data(const struct vsock_conn *c)
{
	return c->state == VSOCK_OPEN && c->readable && !c->host_done && vsock_conn_room(c) &&
	       !(c->guest_shutdown & VSOCK_SHUTDOWN_RECEIVE);
}

/* All that can be sent: a packet of data of each connection in turn. The rest of much follows from the loop. */
static void deliver(struct virtio_vsock *vs)
{
	unsigned budget = VIRTIO_VSOCK_QUEUE_SIZE, idle = 0;

	if (!virtio_is_live(&vs->v) || !deliver_resets(vs))
		return;
	while (idle < VIRTIO_VSOCK_CONNECTIONS) {
		struct vsock_conn *c = &vs->conns[vs->next];

		if (budget-- == 0) {
			virtio_requeue(&vs->v, QUEUE_RX);
			return;
		}
		idle++;
		if (c->pending && !deliver_pending(vs, c))
			return;
		if (wants_data(c)) {
			if (!send_of(vs, c, VSOCK_OP_RW))
				return;
			idle = 0;
			/* The end of the socket's data may have been found. */
			if (c->pending && !deliver_pending(vs, c))
				return;
		}
		vs->next = (vs->next + 1) % VIRTIO_VSOCK_CONNECTIONS;
	}
}

/* ---- From the guest ---- */

static struct vsock_conn *find(struct virtio_vsock *vs, uint32_t guest_port, uint32_t host_port)
{
	for (unsigned i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++) {
		struct vsock_conn *c = &vs->conns[i];

		if (c->state != VSOCK_FREE && c->state != VSOCK_DRAINING && c->guest_port == guest_port &&
		    c->host_port == host_port)
			return c;
	}
	return NULL;
}

static struct vsock_conn *find_free(struct virtio_vsock *vs)
{
	for (unsigned i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++)
		if (vs->conns[i].state == VSOCK_FREE)
			return &vs->conns[i];
	log_guest("vsock: more than %u connections: one is refused", VIRTIO_VSOCK_CONNECTIONS);
	return NULL;
}

static void refuse(struct virtio_vsock *vs, const struct packet *p)
{
	unsigned at = (vs->reset_first + vs->reset_count) % RESETS_MAX;

	if (p->op == VSOCK_OP_RST)
		return;
	assert(vs->reset_count < RESETS_MAX);
	vs->resets[at].cid = p->dst_cid;
	vs->resets[at].guest_port = p->src_port;
	vs->resets[at].host_port = p->dst_port;
	vs->reset_count++;
}

static void take_request(struct virtio_vsock *vs, const struct packet *p)
{
	struct vsock_conn *c = find_free(vs);

	if (!c || !vsock_conn_open(c, VSOCK_CONNECTING, p->src_port, p->dst_port, -1)) {
		refuse(vs, p);
		return;
	}
	if (!vsock_conn_credit(c, p->buf_alloc, p->fwd_cnt) || !vs->backend->ops->connect(vs->backend, c->id, p->dst_port))
		vsock_conn_reset(c);
}

static void copy_data(void *opaque, uint32_t offset, uint8_t *to, uint32_t len)
{
	struct virtio_vsock *vs = opaque;

	virtqueue_read(&vs->chain, HDR_BYTES + (size_t)offset, to, len);
}

static void take_packet(struct virtio_vsock *vs, struct vsock_conn *c, const struct packet *p)
{
	if (p->op == VSOCK_OP_RST) {
		vsock_conn_guest_reset(c);
		return;
	}
	if (c->state == VSOCK_ENDING)
		return;
	if (!vsock_conn_credit(c, p->buf_alloc, p->fwd_cnt)) {
		log_guest("vsock: the guest has taken bytes that were not sent: its connection is reset");
		vsock_conn_reset(c);
		return;
	}
	if (c->state == VSOCK_REQUESTED && p->op == VSOCK_OP_RESPONSE) {
		loop_timer_cancel(&c->timer);
		c->state = VSOCK_OPEN;
		vsock_conn_greet(c);
		vsock_conn_flush(c);
		return;
	}
	if (c->state != VSOCK_OPEN) {
		vsock_conn_reset(c);
		return;
	}
	switch (p->op) {
	case VSOCK_OP_RW:
		if ((c->guest_shutdown & VSOCK_SHUTDOWN_SEND) || !vsock_conn_take(c, p->len, copy_data, vs)) {
			log_guest("vsock: the guest sends more than it may: its connection is reset");
			vsock_conn_reset(c);
			return;
		}
		vsock_conn_flush(c);
		return;
	case VSOCK_OP_CREDIT_UPDATE: return;
	case VSOCK_OP_CREDIT_REQUEST: c->pending |= 1u << VSOCK_OP_CREDIT_UPDATE; return;
	case VSOCK_OP_SHUTDOWN: vsock_conn_guest_shutdown(c, p->flags); return;
	default: vsock_conn_reset(c); return;
	}
}

static void take(struct virtio_vsock *vs)
{
	struct packet p;
	uint8_t h[HDR_BYTES];
	struct vsock_conn *c;

	if (virtqueue_read(&vs->chain, 0, h, sizeof(h)) != sizeof(h)) {
		log_guest("vsock: a packet without a whole header");
		return;
	}
	p = (struct packet){
		.src_cid = load_le(h + HDR_SRC_CID, 8),
		.dst_cid = load_le(h + HDR_DST_CID, 8),
		.src_port = (uint32_t)load_le(h + HDR_SRC_PORT, 4),
		.dst_port = (uint32_t)load_le(h + HDR_DST_PORT, 4),
		.len = (uint32_t)load_le(h + HDR_LEN, 4),
		.type = (uint16_t)load_le(h + HDR_TYPE, 2),
		.op = (uint16_t)load_le(h + HDR_OP, 2),
		.flags = (uint32_t)load_le(h + HDR_FLAGS, 4),
		.buf_alloc = (uint32_t)load_le(h + HDR_BUF_ALLOC, 4),
		.fwd_cnt = (uint32_t)load_le(h + HDR_FWD_CNT, 4),
	};
	if (p.src_cid != vs->cid) {
		log_guest("vsock: a packet from another address than the guest's own");
		return;
	}
	if (p.len > vs->chain.out_bytes - HDR_BYTES) {
		log_guest("vsock: a packet whose data is not there");
		return;
	}
	c = p.type == TYPE_STREAM && p.dst_cid == VIRTIO_VSOCK_CID_HOST ? find(vs, p.src_port, p.dst_port) : NULL;
	if (c && p.op == VSOCK_OP_REQUEST)
		vsock_conn_reset(c);
	else if (c)
		take_packet(vs, c, &p);
	else if (p.op == VSOCK_OP_REQUEST && p.type == TYPE_STREAM && p.dst_cid == VIRTIO_VSOCK_CID_HOST)
		take_request(vs, &p);
	else
		refuse(vs, &p);
}

static void transmit(struct virtio_vsock *vs)
{
	for (unsigned budget = VIRTIO_VSOCK_QUEUE_SIZE; budget; budget--) {
		if (vs->reset_count == RESETS_MAX)
			deliver(vs);
		if (vs->reset_count == RESETS_MAX || !virtio_pop(&vs->v, QUEUE_TX, &vs->chain))
			return;
		/* deliver() uses the chain too, later. */
		take(vs);
		virtio_push(&vs->v, QUEUE_TX, vs->chain.head, 0);
	}
	virtio_requeue(&vs->v, QUEUE_TX);
}

static void vsock_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_vsock *vs = vsock_of(v);
	bool held_up = vs->reset_count == RESETS_MAX;

	if (queue == QUEUE_TX)
		transmit(vs);
	deliver(vs);
	if (held_up && vs->reset_count < RESETS_MAX)
		virtio_requeue(v, QUEUE_TX);
}

/* ---- From the host ---- */

static void on_change(void *opaque)
{
	deliver(opaque);
}

static void on_expired(void *opaque)
{
	struct vsock_conn *c = opaque;

	vsock_conn_reset(c);
	deliver(c->owner);
}

static void on_incoming(void *opaque, int fd, uint32_t port)
{
	struct virtio_vsock *vs = opaque;
	struct vsock_conn *c = virtio_is_live(&vs->v) ? find_free(vs) : NULL;

	/* No other connection has this port: there are more of them than connections. */
	do {
		vs->next_port = MAX(vs->next_port + 1, FIRST_HOST_PORT);
	} while (vs->next_port == UINT32_MAX || find(vs, port, vs->next_port));
	if (!c || !vsock_conn_open(c, VSOCK_REQUESTED, port, vs->next_port, fd)) {
		close(fd);
		return;
	}
	c->pending |= 1u << VSOCK_OP_REQUEST;
	deliver(vs);
}

static void on_connected(void *opaque, uint32_t id, int fd)
{
	struct virtio_vsock *vs = opaque;

	for (unsigned i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++) {
		struct vsock_conn *c = &vs->conns[i];

		if (c->state != VSOCK_CONNECTING || c->id != id)
			continue;
		if (fd >= 0 && vsock_conn_attach(c, fd)) {
			fd = -1;
			c->state = VSOCK_OPEN;
			c->pending |= 1u << VSOCK_OP_RESPONSE;
		} else {
			vsock_conn_reset(c);
		}
		deliver(vs);
		break;
	}
	if (fd >= 0)
		close(fd); /* the guest has given up meanwhile */
}

/* ---- Making and ending ---- */

static bool vsock_stop(struct virtio_device *v)
{
	struct virtio_vsock *vs = vsock_of(v);

	for (unsigned i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++)
		if (vs->conns[i].state != VSOCK_FREE)
			vsock_conn_free(&vs->conns[i]);
	vs->reset_first = vs->reset_count = 0;
	return true;
}

static void vsock_destroy(struct virtio_device *v)
{
	struct virtio_vsock *vs = vsock_of(v);

	vsock_stop(v);
	vs->backend->client = (struct vsock_client){ 0 };
	virtio_finish(v);
	free(vs);
}

static const struct virtio_ops vsock_ops = {
	.name = "virtio-vsock",
	.id = VIRTIO_ID_VSOCK,
	.class_code = 0x078000,
	.notify = vsock_notify,
	.stop = vsock_stop,
	.destroy = vsock_destroy,
};

unsigned virtio_vsock_connections(struct virtio_device *v)
{
	const struct virtio_vsock *vs = vsock_of(v);
	unsigned count = 0;

	assert(v->ops == &vsock_ops);
	for (unsigned i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++)
		count += vs->conns[i].state != VSOCK_FREE;
	return count;
}

struct virtio_device *virtio_vsock_create(const struct virtio_vsock_config *config)
{
	struct virtio_vsock *vs = calloc(1, sizeof(*vs));

	assert(vs && config->cid > VIRTIO_VSOCK_CID_HOST);
	virtio_init(&vs->v, &vsock_ops, config->mem, config->loop, 0);
	for (unsigned i = 0; i < QUEUES; i++)
		virtio_add_queue(&vs->v, VIRTIO_VSOCK_QUEUE_SIZE);
	vs->v.config_len = CONFIG_BYTES;
	store_le(vs->v.config + CONFIG_CID, config->cid, 8);
	vs->cid = config->cid;
	vs->chain.iov = vs->iov;
	vs->chain.iov_max = VIRTIO_VSOCK_QUEUE_SIZE;
	for (unsigned i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++) {
		struct vsock_conn *c = &vs->conns[i];

		c->changed = on_change;
		c->owner = vs;
		c->loop = config->loop;
		c->watch.fd = -1;
		c->id = i;
		loop_timer_init(config->loop, &c->timer, on_expired, c);
	}
	vs->backend = config->backend;
	vs->backend->client = (struct vsock_client){ on_incoming, on_connected, vs };
	return &vs->v;
}
