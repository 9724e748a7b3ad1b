/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of gdb's remote protocol on a socket: framing, checksums, acknowledgements, escapes, and the numbers and bytes
 * in them. What the packets mean is gdb.c's business. In the loop's monitor.
 */
#ifndef VM_GDB_PACKET_H
#define VM_GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "vm/gdb.h"

#define GDB_REPLY_MAX (2 * GDB_PACKET_MAX)

/* Where the bytes of a packet are. */
enum gdb_framing { FRAME_NONE, FRAME_BODY, FRAME_SUM1, FRAME_SUM2 };

struct gdb_link {
	/* The user's; called from gdb_link_input(). */
	void (*packet)(void *opaque);	 /* one is complete, unescaped, in @text, @used bytes and a zero */
	void (*interrupt)(void *opaque); /* Ctrl-C */
	void (*closed)(void *opaque);	 /* the peer is gone */
	void *opaque;
	/* Where output goes when there is no socket. */
	void (*output)(void *opaque, const void *data, size_t len);
	void *output_opaque;

	bool live;   /* input counts; the user clears it to have the connection closed */
	bool no_ack; /* the peer trusts the transport */
	size_t used;
	char text[GDB_PACKET_MAX + 1];

	struct loop_fd peer; /* private from here on; fd -1: none */
	enum gdb_framing framing;
	uint8_t sum, want_sum;
	char *out; /* what the socket did not take */
	size_t out_used;
};

/* The user's members are set already. False: no memory. */
bool gdb_link_init(struct gdb_link *l) MUST_CHECK;
void gdb_link_finish(struct gdb_link *l); /* closes the connection without a callback */

bool gdb_link_connected(const struct gdb_link *l);
/* Takes the connected socket @fd. Nothing is read before gdb_link_listen(). */
struct error *gdb_link_connect(struct gdb_link *l, struct loop *loop, int fd) MUST_CHECK;
void gdb_link_listen(struct gdb_link *l);
void gdb_link_start(struct gdb_link *l); /* forgets what was there of an earlier peer */

void gdb_link_input(struct gdb_link *l, const uint8_t *data, size_t len);
void gdb_link_reply(struct gdb_link *l, const char *text);
void gdb_link_reply_bytes(struct gdb_link *l, const char *data, size_t len); /* at most GDB_REPLY_MAX */

/* ---- What is in packets ---- */

char *gdb_put_hex(char *to, const uint8_t *from, size_t len); /* returns the end */
/* These move *@p behind what they took; false: it is something else. */
bool gdb_get_number(const char **p, uint64_t *out); /* 1 to 16 hexadecimal digits */
bool gdb_get_char(const char **p, char c);
bool gdb_get_bytes(const char **p, uint8_t *out, size_t len);

#endif
