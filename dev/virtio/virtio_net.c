/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio network device: one receive queue, one transmit queue, a control queue.
 *
 * Theory of operation. Every frame in guest memory has a header of 12 bytes before it. On receive it
 * says over how many buffers a frame is spread.
 *
 * Back ends pass plain frames. To one with offload (net.h) the guest may send, and gets, frames of
 * 64 KiB: its card then has an MTU of that size, which spares it as much work as segmentation
 * offload would and leaves the header simple. It may leave a frame's checksum to us, and what it
 * receives is marked as checked. To a guest that does not know of MTUs long frames are cut.
 *
 * Transmit: the chain's vector less the header goes to the back end as it is, which takes or drops
 * it at once; then the chain is returned. A frame that lacks its checksum is copied first, as what
 * is in guest memory is neither ours to change nor stable.
 *
 * Receive: the frame is copied into as many chains as it takes (one, without mergeable buffers). If
 * there are not enough, the chains are put back, the back end is told to keep the frame, and the
 * next doorbell of the receive queue resumes it. Frames that come before the driver is up are
 * dropped.
 *
 * The receive filter is what the control queue sets: promiscuous, all-multicast and an address
 * table; a table that is too long for us lets everything of its kind through (5.1.6.5.2).
 *
 * Manual: virtio 1.2, section 5.1.
 */
#include <assert.h>
#include <stdlib.h>

#include "dev/virtio/virtio_net.h"
#include "net/segment.h"

enum {
	VIRTIO_NET_F_CSUM = 0,
	VIRTIO_NET_F_GUEST_CSUM = 1,
	VIRTIO_NET_F_MTU = 3,
	VIRTIO_NET_F_MAC = 5,
	VIRTIO_NET_F_MRG_RXBUF = 15,
	VIRTIO_NET_F_STATUS = 16,
	VIRTIO_NET_F_CTRL_VQ = 17,
	VIRTIO_NET_F_CTRL_RX = 18,
	VIRTIO_NET_F_CTRL_MAC_ADDR = 23,
};

enum { QUEUE_RX, QUEUE_TX, QUEUE_CTRL };

/* struct virtio_net_config (section 5.1.4), by offset. */
enum { CONFIG_MAC = 0, CONFIG_STATUS = 6, CONFIG_BYTES = 8, CONFIG_MTU = 10, CONFIG_BYTES_MTU = 12 };
#define STATUS_LINK_UP 1u

/*
 * struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers.
 */
#define HEADER_BYTES 12u
#define HEADER_FLAGS 0u
#define HEADER_CSUM_START 6u
#define HEADER_CSUM_OFFSET 8u
#define HEADER_NUM_BUFFERS 10u
#define FLAG_NEEDS_CSUM 1u
#define FLAG_DATA_VALID 2u
#define ETHERNET_HEADER 14u

/* Control commands (section 5.1.6.5): class << 8 | command. */
enum {
	CTRL_RX_PROMISC = 0x0000,
	CTRL_RX_ALLMULTI = 0x0001,
	CTRL_MAC_TABLE_SET = 0x0100,
	CTRL_MAC_ADDR_SET = 0x0101,
};
enum { CTRL_OK = 0, CTRL_ERR = 1 };
#define CTRL_COMMAND_BYTES 2u

#define TABLE_MAX 64u	  /* addresses of each kind that we keep */
#define RX_CHAINS_MAX 64u /* over which we spread a frame */

struct mac_table {
	bool overflow; /* too long: everything of this kind is let through */
	unsigned count;
	uint8_t mac[TABLE_MAX][6];
};

struct virtio_net {
	struct virtio_device v;
	struct net_backend *backend;
	uint8_t permanent_mac[6];
	bool rx_waiting; /* the back end keeps a frame for us */
	unsigned rx_cut; /* of which so many pieces have been received */
	bool promiscuous, all_multicast;
	struct mac_table unicast, multicast;

	uint8_t *frame; /* NET_FRAME_MAX, with offload */
	struct virtqueue_chain chain, rx_first;
	struct iovec iov[VIRTIO_NET_QUEUE_SIZE], rx_first_iov[VIRTIO_NET_QUEUE_SIZE];
};

/* Transmit. */

/* A copy of the frame of @bytes, with the checksum that the header asks for; false: it cannot be. */
static bool complete(struct virtio_net *net, const uint8_t *header, size_t bytes)
{
	size_t start = load_le(header + HEADER_CSUM_START, 2);
	size_t at = start + load_le(header + HEADER_CSUM_OFFSET, 2);
	uint16_t sum;

	if (at + 2 > bytes)
		return false;
	virtqueue_read(&net->chain, HEADER_BYTES, net->frame, bytes);
	sum = net_checksum(net_sum(0, net->frame + start, bytes - start));
	if (!sum)
		sum = 0xffff; /* which is the same, but to UDP, for which 0 is no checksum */
	memcpy(net->frame + at, &sum, 2);
	return true;
}

static void send_chain(struct virtio_net *net)
{
	struct iovec *iov = net->chain.iov;
	unsigned count = net->chain.out_count;
	uint32_t bytes = net->chain.out_bytes;
	uint8_t header[HEADER_BYTES];

	if (bytes < HEADER_BYTES + ETHERNET_HEADER || bytes > HEADER_BYTES + NET_FRAME_MAX) {
		log_guest("virtio-net: a frame of %u bytes is dropped", bytes);
		net->backend->counters.from_guest_dropped++;
		return;
	}
	virtqueue_read(&net->chain, 0, header, sizeof(header));
	if (virtio_has(&net->v, VIRTIO_NET_F_CSUM) && header[HEADER_FLAGS] & FLAG_NEEDS_CSUM) {
		struct iovec copy = { net->frame, bytes - HEADER_BYTES };

		if (complete(net, header, copy.iov_len)) {
			net_send(net->backend, &copy, 1);
		} else {
			log_guest("virtio-net: a frame whose checksum lies beyond its end is dropped");
			net->backend->counters.from_guest_dropped++;
		}
		return;
	}
	virtqueue_iov_skip(&iov, &count, HEADER_BYTES);
	net_send(net->backend, iov, (int)count);
}

static void transmit(struct virtio_net *net)
{
	struct virtqueue *vq = &net->v.queues[QUEUE_TX];
	unsigned sent = 0;

	while (sent < vq->size && virtio_pop(&net->v, QUEUE_TX, &net->chain)) {
		send_chain(net);
		virtqueue_fill(vq, sent++, net->chain.head, 0);
	}
	if (sent)
		virtio_publish(&net->v, QUEUE_TX, sent);
	if (sent == vq->size)
		virtio_requeue(&net->v, QUEUE_TX);
}

/* Receive. */

static bool table_has(const struct mac_table *table, const uint8_t *mac)
{
	if (table->overflow)
		return true;
	for (unsigned i = 0; i < table->count; i++)
		if (!memcmp(table->mac[i], mac, 6))
			return true;
	return false;
}

static bool wanted(const struct virtio_net *net, const uint8_t *to)
{
	static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (net->promiscuous || !memcmp(to, broadcast, 6))
		return true;
	if (to[0] & 1)
		return net->all_multicast || table_has(&net->multicast, to);
	return !memcmp(to, net->v.config + CONFIG_MAC, 6) || table_has(&net->unicast, to);
}

enum fill { FILL_DONE, FILL_NO_BUFFERS, FILL_DROP };

/* Copies header and frame into chains, which are filled in the used ring but not yet published. */
static enum fill fill_chains(struct virtio_net *net, const uint8_t *frame, size_t len,
			     unsigned *chains)
{
	struct virtqueue *vq = &net->v.queues[QUEUE_RX];
	/* If all that a queue can hold is not enough, waiting for more does not help. */
	unsigned limit =
		virtio_has(&net->v, VIRTIO_NET_F_MRG_RXBUF) ? MIN(vq->size, RX_CHAINS_MAX) : 1;
	const uint8_t header[HEADER_BYTES] = {
		[HEADER_FLAGS] = virtio_has(&net->v, VIRTIO_NET_F_GUEST_CSUM) ? FLAG_DATA_VALID : 0,
	};
	uint8_t num_buffers[2];
	size_t done = 0;

	for (*chains = 0; done < len || *chains == 0;) {
		struct virtqueue_chain *c = *chains == 0 ? &net->rx_first : &net->chain;
		size_t skip = *chains == 0 ? HEADER_BYTES : 0, n;

		if (*chains == limit) {
			log_guest("virtio-net: receive buffers are too small for a frame of %zu "
				  "bytes: dropped",
				  len);
			return FILL_DROP;
		}
		if (!virtio_pop(&net->v, QUEUE_RX, c))
			return FILL_NO_BUFFERS;
		++*chains;
		if (c->in_bytes < skip) {
			virtio_break(&net->v, "a receive buffer without room for the header");
			return FILL_DROP;
		}
		if (skip)
			virtqueue_write(vq, c, 0, header, HEADER_BYTES);
		n = virtqueue_write(vq, c, skip, frame + done, len - done);
		done += n;
		virtqueue_fill(vq, *chains - 1, c->head, (uint32_t)(skip + n));
	}
	store_le(num_buffers, *chains, 2);
	virtqueue_write(vq, &net->rx_first, HEADER_NUM_BUFFERS, num_buffers, 2);
	return FILL_DONE;
}

/* False: the back end has to keep it. */
static bool put_frame(struct virtio_net *net, const uint8_t *frame, size_t len)
{
	struct virtqueue *vq = &net->v.queues[QUEUE_RX];
	unsigned chains;

	switch (fill_chains(net, frame, len, &chains)) {
	case FILL_DONE: virtio_publish(&net->v, QUEUE_RX, chains); return true;
	case FILL_DROP:
		virtqueue_unpop(vq, chains);
		net->backend->counters.to_guest_dropped++;
		return true;
	case FILL_NO_BUFFERS:
		virtqueue_unpop(vq, chains);
		/* Not when the queue broke meanwhile: nobody would resume it. */
		net->rx_waiting = virtio_is_live(&net->v);
		return !net->rx_waiting;
	}
	return true;
}

static bool net_receive(void *opaque, const void *frame, size_t len)
{
	struct virtio_net *net = opaque;
	unsigned piece = net->rx_cut;
	uint8_t cut[NET_STANDARD_FRAME];
	size_t n;

	net->rx_cut = 0;
	if (!virtio_is_live(&net->v) || !net->v.queues[QUEUE_RX].enabled || len < ETHERNET_HEADER ||
	    len > NET_FRAME_MAX || !wanted(net, frame)) {
		net->backend->counters.to_guest_ignored++;
		return true;
	}
	if (len <= NET_STANDARD_FRAME || !net->backend->offload || virtio_has(&net->v, VIRTIO_NET_F_MTU))
		return put_frame(net, frame, len);
	for (; (n = net_segment(frame, len, piece, cut)); piece++) {
		if (!put_frame(net, cut, n)) {
			net->rx_cut = piece;
			return false;
		}
	}
	if (!piece) /* and cannot be cut */
		net->backend->counters.to_guest_dropped++;
	return true;
}

static void resume(struct virtio_net *net)
{
	if (net->rx_waiting) {
		net->rx_waiting = false;
		net_resume(net->backend);
	}
}

/* Control. */

/* One table: a count and so many addresses. False: the command ends before it. */
static bool read_table(const struct virtqueue_chain *chain, size_t *offset, struct mac_table *table)
{
	uint32_t count;
	uint64_t bytes;

	if (virtqueue_read(chain, *offset, &count, 4) != 4)
		return false;
	bytes = (uint64_t)count * 6;
	if (bytes > chain->out_bytes - *offset - 4)
		return false;
	table->overflow = count > TABLE_MAX;
	table->count = table->overflow ? 0 : count;
	virtqueue_read(chain, *offset + 4, table->mac, table->count * 6);
	*offset += 4 + bytes;
	return true;
}

static bool set_tables(struct virtio_net *net)
{
	size_t offset = CTRL_COMMAND_BYTES;
	struct mac_table unicast, multicast;

	if (!read_table(&net->chain, &offset, &unicast) ||
	    !read_table(&net->chain, &offset, &multicast))
		return false;
	net->unicast = unicast;
	net->multicast = multicast;
	return true;
}

static bool set_flag(const struct virtio_net *net, bool *flag)
{
	uint8_t on;

	if (!virtio_has(&net->v, VIRTIO_NET_F_CTRL_RX) ||
	    virtqueue_read(&net->chain, CTRL_COMMAND_BYTES, &on, 1) != 1)
		return false;
	*flag = on;
	return true;
}

static bool set_mac(struct virtio_net *net)
{
	uint8_t mac[6];

	if (!virtio_has(&net->v, VIRTIO_NET_F_CTRL_MAC_ADDR) ||
	    virtqueue_read(&net->chain, CTRL_COMMAND_BYTES, mac, 6) != 6)
		return false;
	memcpy(net->v.config + CONFIG_MAC, mac, 6);
	return true;
}

static bool command(struct virtio_net *net)
{
	uint8_t c[CTRL_COMMAND_BYTES];

	if (virtqueue_read(&net->chain, 0, c, sizeof(c)) != sizeof(c))
		return false;
	switch (c[0] << 8 | c[1]) {
	case CTRL_RX_PROMISC: return set_flag(net, &net->promiscuous);
	case CTRL_RX_ALLMULTI: return set_flag(net, &net->all_multicast);
	case CTRL_MAC_TABLE_SET:
		return virtio_has(&net->v, VIRTIO_NET_F_CTRL_RX) && set_tables(net);
	case CTRL_MAC_ADDR_SET: return set_mac(net);
	default: return false;
	}
}

static void control(struct virtio_net *net)
{
	for (unsigned budget = net->v.queues[QUEUE_CTRL].size; budget; budget--) {
		uint8_t ack;

		if (!virtio_pop(&net->v, QUEUE_CTRL, &net->chain))
			return;
		if (net->chain.in_bytes == 0) {
			virtio_break(&net->v, "a control command without room for its result");
			return;
		}
		ack = command(net) ? CTRL_OK : CTRL_ERR;
		virtqueue_write(&net->v.queues[QUEUE_CTRL], &net->chain, 0, &ack, 1);
		virtio_push(&net->v, QUEUE_CTRL, net->chain.head, 1);
	}
	virtio_requeue(&net->v, QUEUE_CTRL);
}

static void net_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_net *net = container_of(v, struct virtio_net, v);

	switch (queue) {
	case QUEUE_RX: resume(net); break;
	case QUEUE_TX: transmit(net); break;
	case QUEUE_CTRL: control(net); break;
	}
}

static void forget_filter(struct virtio_net *net)
{
	/* Until the driver narrows it, everything is received (5.1.6.5.1). */
	net->promiscuous = true;
	net->all_multicast = false;
	net->unicast.count = net->multicast.count = 0;
	net->unicast.overflow = net->multicast.overflow = false;
	memcpy(net->v.config + CONFIG_MAC, net->permanent_mac, 6);
}

static bool net_stop(struct virtio_device *v)
{
	struct virtio_net *net = container_of(v, struct virtio_net, v);

	forget_filter(net);
	net->rx_cut = 0;
	/* What the back end kept is dropped when it offers it again. */
	resume(net);
	return true;
}

static void net_destroy(struct virtio_device *v)
{
	struct virtio_net *net = container_of(v, struct virtio_net, v);

	net->backend->client = (struct net_client){ 0 };
	virtio_finish(v);
	free(net->frame);
	free(net);
}

static const struct virtio_ops net_ops = {
	.name = "virtio-net",
	.id = VIRTIO_ID_NET,
	.class_code = 0x020000,
	.notify = net_notify,
	.stop = net_stop,
	.destroy = net_destroy,
};

struct virtio_device *virtio_net_create(const struct virtio_net_config *config)
{
	struct virtio_net *net = calloc(1, sizeof(*net));

	assert(net);
	net->backend = config->backend;
	memcpy(net->permanent_mac, config->mac, 6);
	virtio_init(&net->v, &net_ops, config->mem, config->loop,
		    VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    VIRTIO_BIT(VIRTIO_NET_F_STATUS) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) |
			    VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) |
			    VIRTIO_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR));
	virtio_add_queue(&net->v, VIRTIO_NET_QUEUE_SIZE);
	virtio_add_queue(&net->v, VIRTIO_NET_QUEUE_SIZE);
	virtio_add_queue(&net->v, VIRTIO_NET_CTRL_QUEUE_SIZE);
	net->v.config_len = CONFIG_BYTES;
	if (config->backend->offload) {
		net->frame = malloc(NET_FRAME_MAX);
		assert(net->frame);
		net->v.features |= VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) |
				   VIRTIO_BIT(VIRTIO_NET_F_MTU);
		net->v.config_len = CONFIG_BYTES_MTU;
		store_le(net->v.config + CONFIG_MTU, NET_OFFLOAD_MTU, 2);
	}
	store_le(net->v.config + CONFIG_STATUS, STATUS_LINK_UP, 2);
	forget_filter(net);
	net->chain.iov = net->iov;
	net->rx_first.iov = net->rx_first_iov;
	net->chain.iov_max = net->rx_first.iov_max = VIRTIO_NET_QUEUE_SIZE;
	net->backend->client = (struct net_client){ .receive = net_receive, .opaque = net };
	return &net->v;
}
