// SPDX-License-Identifier: Apache-2.0
/*
 * libslirp in a poll loop. The guest is 10.0.2.15 (by DHCP), the host 10.0.2.2, DNS 10.0.2.3.
 *
 * Theory of operation. One round: ask libslirp which descriptors it waits for, poll them and the frame
 * socket, let libslirp read and write, give it the guest's frames (a batch at a time). Frames for the
 * guest are collected in a bounded queue and sent in batches. While the frame socket is full, libslirp's
 * descriptors are not polled: what the world sends waits in the host's socket buffers, where TCP slows
 * the sender down, instead of being thrown away here.
 *
 * No protocol helpers (enable_emu), no TFTP, no commands on guest ports. IPv4 only.
 *
 * Threading: one thread.
 */
#include "net/nat/nat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glib.h>
#include <libslirp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/log.h"

#define FRAME_MAX 65550u
#define BATCH 64u
#define QUEUE_FRAMES 1024u /* a power of two */
#define SLOT_BYTES 2048u   /* a frame of the usual length; longer ones take memory of their own */
#define SOCKET_BYTES (4 * MiB)
#define POLL_MAX 8192u
/*
 * Long packets: a guest whose card has such an MTU (net/net.h, offload) works through a megabyte in few of them
 * instead of 700. What we take is as long as IP allows.
 *
 * What we send is a quarter of the largest window of a TCP without window scaling, as libslirp's is. Both ends avoid silly
 * windows (RFC 9293, 3.8.6.2): libslirp sends neither a part of a segment nor less than half of the largest window that it
 * has seen; Linux tells of a larger window only if that is twice as large, and in multiples of the longest segment that
 * came. Segments of half a window can leave both waiting, until libslirp's persist timer ends it after 5 s: when one
 * of 32,768 bytes is acknowledged, but not read, 32,712 are left of a window of 65,480, less than libslirp sends; and when
 * it is read, Linux would tell of 32,768, which is not twice as many. Quarters leave nobody waiting in
 * windows from 32 KiB on, nor in smaller ones of 16, 8 and 4.
 */
#define MTU_OUT 16384u
#define MTU_IN 65520u

struct slot {
	uint8_t *data; /* own or allocated */
	size_t len;
	uint8_t own[SLOT_BYTES];
};

struct nat {
	Slirp *slirp;
	int fd;
	bool gone;

	struct pollfd *poll;
	unsigned poll_count;

	/* Frames to the guest: [tail, head), indices modulo QUEUE_FRAMES. */
	struct slot *queue;
	unsigned head, tail;
	unsigned dropped; /* since the queue was last empty */

	uint8_t *in; /* BATCH frames of FRAME_MAX */
};

/* --- Frames to the guest --- */

static void send_queued(struct nat *n)
{
	while (n->tail != n->head) {
		struct mmsghdr m[BATCH] = { 0 };
		struct iovec iov[BATCH];
		unsigned count = 0;
		int sent;

		for (unsigned i = n->tail; i != n->head && count < BATCH; i++, count++) {
			struct slot *s = &n->queue[i % QUEUE_FRAMES];

			iov[count] = (struct iovec){ s->data, s->len };
			m[count].msg_hdr.msg_iov = &iov[count];
			m[count].msg_hdr.msg_iovlen = 1;
		}
		sent = sendmmsg(n->fd, m, count, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS)
			n->gone = true;
		if (sent <= 0)
			return;
		for (; sent > 0; sent--, n->tail++) {
			struct slot *s = &n->queue[n->tail % QUEUE_FRAMES];

			if (s->data != s->own)
				free(s->data);
		}
	}
	if (n->dropped) {
		log_guest("the guest's network card took nothing for a while: %u frames are lost", n->dropped);
		n->dropped = 0;
	}
}

/*
 * libslirp offers to take segments as long as those that it sends. It takes longer ones: says so in @frame, if
 * that is a SYN, with its only option. The checksum follows (RFC 1624).
 */
static void offer_long_segments(uint8_t *frame, size_t len)
{
	enum { IP = 14, TCP = IP + 20, FLAGS = TCP + 13, SUM = TCP + 16, OPTION = TCP + 20, MSS = OPTION + 2, END = OPTION + 4 };
	uint16_t was, now = htons(MTU_IN - 40), sum;
	uint32_t wide;

	if (len < END || frame[12] != 8 || frame[13] != 0 || frame[IP] != 0x45 || frame[IP + 9] != IPPROTO_TCP ||
	    !(frame[FLAGS] & 2) || frame[OPTION] != 2 || frame[OPTION + 1] != 4)
		return;
	memcpy(&was, frame + MSS, 2);
	memcpy(&sum, frame + SUM, 2);
	wide = (uint32_t)(uint16_t)~sum + (uint16_t)~was + now;
	wide = (wide & 0xffff) + (wide >> 16);
	sum = (uint16_t)~((wide & 0xffff) + (wide >> 16));
	memcpy(frame + MSS, &now, 2);
	memcpy(frame + SUM, &sum, 2);
}

/* libslirp: a frame for the guest. A full queue drops it; TCP sends it again. */
static ssize_t on_send_packet(const void *buf, size_t len, void *opaque)
{
	struct nat *n = opaque;
	struct slot *s;

	if (n->head - n->tail == QUEUE_FRAMES)
		send_queued(n);
	if (n->head - n->tail == QUEUE_FRAMES || len > FRAME_MAX) {
		n->dropped++;
		return (ssize_t)len;
	}
	s = &n->queue[n->head % QUEUE_FRAMES];
	s->data = len <= SLOT_BYTES ? s->own : malloc(len);
	if (!s->data) {
		n->dropped++;
		return (ssize_t)len;
	}
	memcpy(s->data, buf, len);
	s->len = len;
	offer_long_segments(s->data, len);
	n->head++;
	if (n->head - n->tail >= BATCH)
		send_queued(n);
	return (ssize_t)len;
}

/* --- Frames from the guest --- */

static void receive(struct nat *n)
{
	struct mmsghdr m[BATCH] = { 0 };
	struct iovec iov[BATCH];
	int got;

	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ n->in + (size_t)i * FRAME_MAX, FRAME_MAX };
		m[i].msg_hdr.msg_iov = &iov[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	do {
		got = recvmmsg(n->fd, m, BATCH, MSG_DONTWAIT, NULL);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (got <= 0 || m[0].msg_len == 0) { /* the end: no frame is empty */
		n->gone = true;
		return;
	}
	for (int i = 0; i < got; i++)
		if (m[i].msg_len >= 14 && !(m[i].msg_hdr.msg_flags & MSG_TRUNC))
			slirp_input(n->slirp, iov[i].iov_base, (int)m[i].msg_len);
}

/* --- What else libslirp asks for --- */

static void on_guest_error(const char *msg, void *opaque UNUSED)
{
	log_guest("the guest's network traffic: %s", msg);
}

/* Complaints of libslirp and glib; theirs would go through stdio, which the sandbox does not allow. */
static void on_glib_log(const char *domain UNUSED, GLogLevelFlags level UNUSED, const char *message,
			void *opaque UNUSED)
{
	log_guest("%s", message);
}

static int64_t on_clock_get_ns(void *opaque UNUSED)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * (int64_t)NS_PER_SEC + ts.tv_nsec;
}

/* Timers are for IPv6 router advertisements only, which are not sent. */
static void *on_timer_new(SlirpTimerCb cb UNUSED, void *cb_opaque UNUSED, void *opaque)
{
	return opaque;
}

static void on_timer_free(void *timer UNUSED, void *opaque UNUSED)
{
}

static void on_timer_mod(void *timer UNUSED, int64_t expire_ms UNUSED, void *opaque UNUSED)
{
}

/* Which descriptors there are is asked anew each round. */
static void on_poll_fd(int fd UNUSED, void *opaque UNUSED)
{
}

static void on_notify(void *opaque UNUSED)
{
}

static const SlirpCb callbacks = {
	.send_packet = on_send_packet,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock_get_ns,
	.timer_new = on_timer_new,
	.timer_free = on_timer_free,
	.timer_mod = on_timer_mod,
	.register_poll_fd = on_poll_fd,
	.unregister_poll_fd = on_poll_fd,
	.notify = on_notify,
};

static int on_add_poll(int fd, int events, void *opaque)
{
	struct nat *n = opaque;
	short e = 0;

	if (n->poll_count == POLL_MAX)
		return -1;
	if (events & SLIRP_POLL_IN)
		e |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		e |= POLLOUT;
	if (events & SLIRP_POLL_PRI)
		e |= POLLPRI;
	n->poll[n->poll_count] = (struct pollfd){ .fd = fd, .events = e };
	return (int)n->poll_count++;
}

static int on_get_revents(int index, void *opaque)
{
	struct nat *n = opaque;
	short e;
	int out = 0;

	if (index < 0 || (unsigned)index >= n->poll_count)
		return 0;
	e = n->poll[index].revents;
	if (e & POLLIN)
		out |= SLIRP_POLL_IN;
	if (e & POLLOUT)
		out |= SLIRP_POLL_OUT;
	if (e & POLLPRI)
		out |= SLIRP_POLL_PRI;
	if (e & POLLERR)
		out |= SLIRP_POLL_ERR;
	if (e & POLLHUP)
		out |= SLIRP_POLL_HUP;
	return out;
}

void nat_run(struct nat *n)
{
	while (!n->gone) {
		bool full = n->tail != n->head;
		uint32_t timeout_ms = UINT32_MAX;
		int r;

		n->poll[0] = (struct pollfd){ .fd = n->fd,
					      .events = full ? POLLIN | POLLOUT : POLLIN };
		n->poll_count = 1;
		slirp_pollfds_fill(n->slirp, &timeout_ms, on_add_poll, n);
		/* Full: only the guest matters until it has taken something. */
		r = poll(n->poll, full ? 1 : n->poll_count,
			 timeout_ms > INT32_MAX ? -1 : (int)timeout_ms);
		if (r < 0 && errno != EINTR) {
			log_error("the guest's network has failed: %s", strerror(errno));
			return;
		}
		if (n->poll[0].revents)
			receive(n);
		/* revents of what was not polled are 0: only libslirp's timers run then. */
		slirp_pollfds_poll(n->slirp, r < 0, on_get_revents, n);
		send_queued(n);
	}
}

/* --- Making --- */

static struct in_addr addr(const char *text)
{
	struct in_addr a = { 0 };

	inet_pton(AF_INET, text, &a);
	return a;
}

static struct error *parse_port(const char *text, size_t len, const char *whole, uint16_t *out)
{
	unsigned long v = 0;

	for (size_t i = 0; i < len && v <= UINT16_MAX; i++) {
		if (text[i] < '0' || text[i] > '9')
			v = UINT16_MAX + 1ul;
		else
			v = v * 10 + (unsigned long)(text[i] - '0');
	}
	if (v == 0 || v > UINT16_MAX)
		return error_new("'%s' names a port that is not between 1 and 65535", whole);
	*out = (uint16_t)v;
	return NULL;
}

struct error *nat_forward_parse(const char *text, struct nat_forward *out)
{
	const char *guest = strrchr(text, ':'), *host = guest;
	struct in_addr a;
	struct error *err;

	if (!guest)
		return error_new("'%s' is not a port forward; write [ADDR:]HOSTPORT:GUESTPORT", text);
	while (host > text && host[-1] != ':')
		host--;
	strcpy(out->host_addr, "127.0.0.1");
	if (host > text) {
		size_t len = (size_t)(host - 1 - text);

		if (len >= sizeof(out->host_addr))
			return error_new("'%s' does not begin with an IPv4 address", text);
		memcpy(out->host_addr, text, len);
		out->host_addr[len] = 0;
		if (inet_pton(AF_INET, out->host_addr, &a) != 1)
			return error_new("'%s' does not begin with an IPv4 address", text);
	}
	err = parse_port(host, (size_t)(guest - host), text, &out->host_port);
	return err ? err : parse_port(guest + 1, strlen(guest + 1), text, &out->guest_port);
}

static struct error *add_forward(struct nat *n, const struct nat_forward *f)
{
	errno = 0;
	if (slirp_add_hostfwd(n->slirp, 0, addr(f->host_addr), f->host_port, addr("10.0.2.15"),
			      f->guest_port) == 0)
		return NULL;
	if (errno == EADDRINUSE)
		return error_errno(errno,
				   "port %u on %s is taken by another program; publish the guest's port "
				   "%u on another one",
				   f->host_port, f->host_addr, f->guest_port);
	if (errno == EACCES)
		return error_errno(errno, "port %u on %s is for root; publish on a port above 1023",
				   f->host_port, f->host_addr);
	if (errno == EADDRNOTAVAIL)
		return error_errno(errno, "%s is not an address of this host", f->host_addr);
	return error_errno(errno ? errno : EIO, "cannot publish port %u on %s", f->host_port,
			   f->host_addr);
}

struct error *nat_create(const struct nat_config *config, struct nat **out)
{
	SlirpConfig sc = {
		.version = 4,
		.restricted = config->restricted,
		.in_enabled = true,
		.vnetwork = addr("10.0.2.0"),
		.vnetmask = addr("255.255.255.0"),
		.vhost = addr("10.0.2.2"),
		.vhostname = config->hostname,
		.vdhcp_start = addr("10.0.2.15"),
		.vnameserver = addr("10.0.2.3"),
		.if_mtu = MTU_OUT,
		.if_mru = MTU_IN,
		.enable_emu = false,
	};
	struct nat *n = calloc(1, sizeof(*n));
	struct error *err = NULL;
	int bytes = SOCKET_BYTES;

	if (n) {
		n->fd = config->fd;
		n->poll = calloc(POLL_MAX, sizeof(*n->poll));
		n->queue = calloc(QUEUE_FRAMES, sizeof(*n->queue));
		n->in = malloc((size_t)BATCH * FRAME_MAX);
	}
	if (!n || !n->poll || !n->queue || !n->in) {
		nat_destroy(n);
		return error_new("out of memory making the guest's network");
	}
	setsockopt(n->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	g_log_set_default_handler(on_glib_log, NULL);
	n->slirp = slirp_new(&sc, &callbacks, n);
	if (!n->slirp)
		err = error_new("libslirp cannot make the guest's network");
	for (unsigned i = 0; i < config->forward_count && !err; i++)
		err = add_forward(n, &config->forward[i]);
	if (err) {
		nat_destroy(n);
		return err;
	}
	*out = n;
	return NULL;
}

void nat_destroy(struct nat *n)
{
	if (!n)
		return;
	if (n->slirp)
		slirp_cleanup(n->slirp);
	for (; n->tail != n->head; n->tail++)
		if (n->queue[n->tail % QUEUE_FRAMES].data != n->queue[n->tail % QUEUE_FRAMES].own)
			free(n->queue[n->tail % QUEUE_FRAMES].data);
	free(n->poll);
	free(n->queue);
	free(n->in);
	free(n);
}
