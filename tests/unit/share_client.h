/* SPDX-License-Identifier: Apache-2.0 */
/* A client of share/share.h for unit tests: builds FUSE requests, sends them, keeps the reply. */
#ifndef TESTS_UNIT_SHARE_CLIENT_H
#define TESTS_UNIT_SHARE_CLIENT_H

#include <linux/fuse.h>
#include <string.h>

#include "share/share.h"

struct client {
	struct share *share;
	size_t len; /* of the request so far */
	size_t got; /* bytes of the reply behind its header */
	uint8_t request[SHARE_MESSAGE_MAX];
	_Alignas(8) uint8_t reply[SHARE_MESSAGE_MAX];
};

static inline void client_add(struct client *c, const void *data, size_t len)
{
	if (len)
		memcpy(c->request + c->len, data, len);
	c->len += len;
}

static inline void client_name(struct client *c, const char *name)
{
	client_add(c, name, strlen(name) + 1);
}

/* A request with @in_len bytes of arguments; names and data may follow. */
static inline void client_begin(struct client *c, uint32_t opcode, uint64_t node, const void *in, size_t in_len)
{
	struct fuse_in_header head = { .opcode = opcode, .unique = 0x1122334455667788, .nodeid = node };

	c->len = 0;
	client_add(c, &head, sizeof(head));
	client_add(c, in, in_len);
}

/* Sends it; the errno value of the reply, 0 for success, -1 for no reply that can be one. */
static inline int client_send_room(struct client *c, size_t room)
{
	struct fuse_out_header head;
	size_t n;

	((struct fuse_in_header *)c->request)->len = (uint32_t)c->len;
	memset(c->reply, 0xee, MIN(room, sizeof(c->reply)));
	n = share_handle(c->share, c->request, c->len, c->reply, room);
	if (n < sizeof(head) || n > room)
		return -1;
	memcpy(&head, c->reply, sizeof(head));
	c->got = n - sizeof(head);
	return head.len != n || head.unique != 0x1122334455667788 || head.error > 0 || (head.error && c->got) ? -1 : -head.error;
}

static inline int client_send(struct client *c)
{
	return client_send_room(c, sizeof(c->reply));
}

static inline int client_do(struct client *c, uint32_t opcode, uint64_t node, const void *in, size_t in_len, const char *name)
{
	client_begin(c, opcode, node, in, in_len);
	if (name)
		client_name(c, name);
	return client_send(c);
}

/* What the reply has behind its header. */
static inline const void *client_out(const struct client *c)
{
	return c->reply + sizeof(struct fuse_out_header);
}

static inline const struct fuse_entry_out *client_entry(const struct client *c)
{
	return client_out(c);
}

static inline int client_init(struct client *c)
{
	struct fuse_init_in in = { .major = 7, .minor = 36, .max_readahead = 1 << 20, .flags = ~0u };

	return client_do(c, FUSE_INIT, 0, &in, sizeof(in), NULL);
}

#endif
