// SPDX-License-Identifier: Apache-2.0
/*
 * Packets of gdb's remote protocol; see gdb_packet.h, and gdb's manual, appendix "Remote Serial Protocol", "Overview".
 *
 * Theory of operation. One byte after the other goes through a machine of four states. A packet with a wrong checksum is
 * asked for again, one that is too long is dropped. Output that the socket does not take is kept, up to BACKLOG_MAX.
 */
#include "vm/gdb_packet.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define BACKLOG_MAX (256u * 1024)
#define CTRL_C 0x03

/* ---- Output ------------------------------------------------------------------------------------- */

static void flush(struct gdb_link *l)
{
	size_t done = 0;

	while (done < l->out_used) {
		ssize_t n = send(l->peer.fd, l->out + done, l->out_used - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break; /* a dead peer is noticed when reading */
		done += n;
	}
	memmove(l->out, l->out + done, l->out_used - done);
	l->out_used -= done;
	gdb_link_listen(l);
}

static void put(struct gdb_link *l, const void *data, size_t len)
{
	if (l->output) {
		l->output(l->output_opaque, data, len);
		return;
	}
	if (l->peer.fd < 0 || len > BACKLOG_MAX - l->out_used)
		return; /* a debugger that does not read its replies loses them */
	memcpy(l->out + l->out_used, data, len);
	l->out_used += len;
	flush(l);
}

/* Those bytes that have a meaning in the protocol are escaped. */
void gdb_link_reply_bytes(struct gdb_link *l, const char *data, size_t len)
{
	char buf[2 * GDB_REPLY_MAX + 4];
	size_t n = 0;
	uint8_t sum = 0;

	assert(len <= GDB_REPLY_MAX);
	buf[n++] = '$';
	for (size_t i = 0; i < len; i++) {
		if (data[i] == '$' || data[i] == '#' || data[i] == '}' || data[i] == '*') {
			buf[n++] = '}';
			buf[n++] = data[i] ^ 0x20;
		} else {
			buf[n++] = data[i];
		}
	}
	for (size_t i = 1; i < n; i++)
		sum += (uint8_t)buf[i];
	n += snprintf(buf + n, 4, "#%02x", sum);
	put(l, buf, n);
}

void gdb_link_reply(struct gdb_link *l, const char *text)
{
	gdb_link_reply_bytes(l, text, strlen(text));
}

/* ---- What is in packets ------------------------------------------------------------------------- */

char *gdb_put_hex(char *to, const uint8_t *from, size_t len)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		*to++ = digits[from[i] >> 4];
		*to++ = digits[from[i] & 15];
	}
	return to;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool gdb_get_number(const char **p, uint64_t *out)
{
	unsigned digits = 0;
	uint64_t v = 0;

	for (int d; (d = hex_digit(**p)) >= 0; (*p)++) {
		if (++digits > 16)
			return false;
		v = v << 4 | (unsigned)d;
	}
	*out = v;
	return digits > 0;
}

bool gdb_get_char(const char **p, char c)
{
	if (**p != c)
		return false;
	(*p)++;
	return true;
}

bool gdb_get_bytes(const char **p, uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		int high = hex_digit((*p)[0]), low = high < 0 ? -1 : hex_digit((*p)[1]);

		if (low < 0)
			return false;
		out[i] = high << 4 | low;
		*p += 2;
	}
	return true;
}

/* ---- Framing ------------------------------------------------------------------------------------ */

/* Undoes the escapes of binary data in place. */
static void unescape(struct gdb_link *l)
{
	size_t to = 0;

	for (size_t from = 0; from < l->used; from++) {
		if (l->text[from] == '}' && from + 1 < l->used)
			l->text[to++] = l->text[++from] ^ 0x20;
		else
			l->text[to++] = l->text[from];
	}
	l->used = to;
	l->text[to] = 0;
}

static void packet_complete(struct gdb_link *l)
{
	if (l->sum != l->want_sum && !l->no_ack) {
		put(l, "-", 1);
		return;
	}
	if (!l->no_ack)
		put(l, "+", 1);
	unescape(l);
	l->packet(l->opaque);
}

static void input_byte(struct gdb_link *l, uint8_t c)
{
	int d = hex_digit(c);

	switch (l->framing) {
	case FRAME_NONE:
		if (c == '$') {
			l->framing = FRAME_BODY;
			l->used = 0;
			l->sum = 0;
		} else if (c == CTRL_C) {
			l->interrupt(l->opaque);
		}
		return;
	case FRAME_BODY:
		if (c == '#') {
			l->framing = FRAME_SUM1;
			return;
		}
		if (l->used == GDB_PACKET_MAX) {
			log_guest("gdb: a packet longer than %u bytes is dropped", GDB_PACKET_MAX);
			l->framing = FRAME_NONE;
			return;
		}
		l->text[l->used++] = c;
		l->sum += c;
		return;
	case FRAME_SUM1:
		l->want_sum = d < 0 ? 0 : d << 4;
		l->framing = d < 0 ? FRAME_NONE : FRAME_SUM2;
		return;
	case FRAME_SUM2:
		l->want_sum |= d < 0 ? 0 : d;
		l->framing = FRAME_NONE;
		if (d >= 0)
			packet_complete(l);
		return;
	}
}

void gdb_link_input(struct gdb_link *l, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len && l->live; i++)
		input_byte(l, data[i]);
}

/* ---- The socket --------------------------------------------------------------------------------- */

static void disconnect(struct gdb_link *l)
{
	loop_fd_remove(&l->peer);
	close(l->peer.fd);
	l->peer.fd = -1;
}

static void peer_ready(void *opaque, uint32_t events)
{
	struct gdb_link *l = opaque;
	uint8_t buf[4096];
	ssize_t n;

	if (events & EPOLLOUT)
		flush(l);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = recv(l->peer.fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		gdb_link_input(l, buf, n);
	if (n <= 0 || !l->live) {
		disconnect(l);
		l->closed(l->opaque);
	}
}

bool gdb_link_init(struct gdb_link *l)
{
	l->peer.fd = -1;
	l->out = malloc(BACKLOG_MAX);
	return l->out;
}

void gdb_link_finish(struct gdb_link *l)
{
	if (l->peer.fd >= 0)
		disconnect(l);
	free(l->out);
	l->out = NULL;
}

bool gdb_link_connected(const struct gdb_link *l)
{
	return l->peer.fd >= 0;
}

struct error *gdb_link_connect(struct gdb_link *l, struct loop *loop, int fd)
{
	struct error *err = loop_fd_add(loop, &l->peer, fd, 0, peer_ready, l);

	if (err) {
		close(fd);
		l->peer.fd = -1;
	}
	return err;
}

void gdb_link_listen(struct gdb_link *l)
{
	if (l->peer.fd >= 0)
		loop_fd_set_events(&l->peer, l->out_used ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void gdb_link_start(struct gdb_link *l)
{
	l->live = true;
	l->no_ack = false;
	l->framing = FRAME_NONE;
	l->out_used = 0;
}
