/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of share/share.h for unit tests: makes a folder, builds FUSE requests, sends them, keeps the reply. There is one in
 * a test: c.
 */
#ifndef TESTS_UNIT_SHARE_CLIENT_H
#define TESTS_UNIT_SHARE_CLIENT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share/share.h"
#include "tests/tap.h"

#define ROOT FUSE_ROOT_ID

struct client {
	struct share *share;
	/* As share_handle(), for a test that has its own way to send; NULL: that. */
	size_t (*handle)(const void *request, size_t len, uint8_t *reply, size_t room);
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
	n = c->handle ? c->handle(c->request, c->len, c->reply, room)
		      : share_handle(c->share, c->request, c->len, c->reply, room);
	if (n < sizeof(head) || n > room)
		return -1;
	memcpy(&head, c->reply, sizeof(head));
	c->got = n - sizeof(head);
	return head.len != n || head.unique != 0x1122334455667788 || head.error > 0 || (head.error && c->got)
		       ? -1
		       : -head.error;
}

static inline int client_send(struct client *c)
{
	return client_send_room(c, sizeof(c->reply));
}

static inline int client_do(struct client *c, uint32_t opcode, uint64_t node, const void *in, size_t in_len,
			    const char *name)
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

static struct client c;
static char top[64]; /* top/in is shared, top/out is not */

static inline const char *path(const char *name)
{
	static char text[4][512];
	static unsigned next;

	next = (next + 1) % 4;
	snprintf(text[next], sizeof(text[0]), "%s/%s", top, name);
	return text[next];
}

static inline void host_write(const char *name, const char *text)
{
	FILE *f = fopen(path(name), "w");

	if (!f || fputs(text, f) < 0 || fclose(f))
		abort();
}

static inline const char *host_read(const char *name)
{
	static char text[256];
	FILE *f = fopen(path(name), "r");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

	if (f)
		fclose(f);
	text[n] = 0;
	return f ? text : "(none)";
}

/* ---- Requests: an errno value; what they find or open in *out ---- */

static inline int lookup(uint64_t dir, const char *name, uint64_t *out)
{
	int rc = client_do(&c, FUSE_LOOKUP, dir, NULL, 0, name);

	if (!rc && out)
		*out = client_entry(&c)->nodeid;
	return rc;
}

static inline int open_as(uint32_t opcode, uint64_t node, int flags, uint64_t *fh)
{
	struct fuse_open_in in = { .flags = (uint32_t)flags };
	int rc = client_do(&c, opcode, node, &in, sizeof(in), NULL);

	if (!rc && fh)
		*fh = ((const struct fuse_open_out *)client_out(&c))->fh;
	return rc;
}

static inline int open_file(uint64_t node, int flags, uint64_t *fh)
{
	return open_as(FUSE_OPEN, node, flags, fh);
}

static inline int release(uint64_t node, uint64_t fh)
{
	struct fuse_release_in in = { .fh = fh };

	return client_do(&c, FUSE_RELEASE, node, &in, sizeof(in), NULL);
}

static inline int create(uint64_t dir, const char *name, int flags, uint64_t *node, uint64_t *fh)
{
	struct fuse_create_in in = { .flags = (uint32_t)flags, .mode = S_IFREG | 06755 };
	int rc = client_do(&c, FUSE_CREATE, dir, &in, sizeof(in), name);

	if (!rc) {
		*node = client_entry(&c)->nodeid;
		*fh = ((const struct fuse_open_out *)(client_entry(&c) + 1))->fh;
	}
	return rc;
}

/* Makes it and closes it. */
static inline int touch(uint64_t dir, const char *name, uint64_t *node)
{
	uint64_t n, fh;
	int rc = create(dir, name, O_RDWR, &n, &fh);

	if (rc)
		return rc;
	if (node)
		*node = n;
	return release(n, fh);
}

static inline int write_at(uint64_t node, uint64_t fh, uint64_t offset, const char *text)
{
	struct fuse_write_in in = { .fh = fh, .offset = offset, .size = (uint32_t)strlen(text) };

	client_begin(&c, FUSE_WRITE, node, &in, sizeof(in));
	client_add(&c, text, strlen(text));
	return client_send(&c);
}

static inline int read_at(uint64_t node, uint64_t fh, uint64_t offset, uint32_t size)
{
	struct fuse_read_in in = { .fh = fh, .offset = offset, .size = size };

	return client_do(&c, FUSE_READ, node, &in, sizeof(in), NULL);
}

static inline bool got(const char *text)
{
	return c.got == strlen(text) && !memcmp(client_out(&c), text, c.got);
}

static inline int make_dir(uint64_t dir, const char *name, uint64_t *out)
{
	struct fuse_mkdir_in in = { .mode = 0755 };
	int rc = client_do(&c, FUSE_MKDIR, dir, &in, sizeof(in), name);

	if (!rc && out)
		*out = client_entry(&c)->nodeid;
	return rc;
}

static inline int symlink_to(uint64_t dir, const char *name, const char *target)
{
	client_begin(&c, FUSE_SYMLINK, dir, NULL, 0);
	client_name(&c, name);
	client_name(&c, target);
	return client_send(&c);
}

static inline int make_node(uint64_t dir, const char *name, mode_t mode)
{
	struct fuse_mknod_in in = { .mode = mode, .rdev = 0x800 };

	return client_do(&c, FUSE_MKNOD, dir, &in, sizeof(in), name);
}

static inline int rename_to(uint64_t from, const char *name, uint64_t to, const char *new_name, uint32_t flags)
{
	struct fuse_rename2_in in = { .newdir = to, .flags = flags };

	client_begin(&c, FUSE_RENAME2, from, &in, sizeof(in));
	client_name(&c, name);
	client_name(&c, new_name);
	return client_send(&c);
}

static inline int unlink_name(uint64_t dir, const char *name)
{
	return client_do(&c, FUSE_UNLINK, dir, NULL, 0, name);
}

static inline int remove_dir(uint64_t dir, const char *name)
{
	return client_do(&c, FUSE_RMDIR, dir, NULL, 0, name);
}

static inline int link_to(uint64_t dir, uint64_t node, const char *name)
{
	struct fuse_link_in in = { .oldnodeid = node };

	return client_do(&c, FUSE_LINK, dir, &in, sizeof(in), name);
}

static inline int getattr(uint64_t node)
{
	struct fuse_getattr_in in = { 0 };

	return client_do(&c, FUSE_GETATTR, node, &in, sizeof(in), NULL);
}

static inline const struct fuse_attr *attr(void)
{
	return &((const struct fuse_attr_out *)client_out(&c))->attr;
}

static inline int setattr(uint64_t node, const struct fuse_setattr_in *in)
{
	return client_do(&c, FUSE_SETATTR, node, in, sizeof(*in), NULL);
}

static inline void forget(uint64_t node, uint64_t lookups)
{
	struct fuse_forget_in in = { lookups };

	client_do(&c, FUSE_FORGET, node, &in, sizeof(in), NULL);
}

static inline void start(bool readonly, unsigned fds)
{
	int dir = open(path("in"), O_RDONLY | O_DIRECTORY), proc = open("/proc/self/fd", O_PATH | O_DIRECTORY);

	share_destroy(c.share);
	if (share_create(dir, proc, readonly, fds, &c.share))
		abort();
	is_u64((uint64_t)client_init(&c), 0, "it is begun");
}

/* The folder and what is beside it, with a secret; then client_start(). */
static inline void client_make_tree(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(top, sizeof(top), "%s/maru-share.XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	if (!mkdtemp(top) || mkdir(path("in"), 0755) || mkdir(path("out"), 0755))
		abort();
	umask(0);
	host_write("out/secret", "secret");
}

static inline int client_end(void)
{
	char command[128];

	share_destroy(c.share);
	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	return system(command) ? 1 : done_testing();
}

#endif
