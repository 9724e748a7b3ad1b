// SPDX-License-Identifier: Apache-2.0
/*
 * A folder by FUSE: the messages.
 *
 * Theory of operation. A request is a header that says what is wanted of which node, a structure with arguments, names that
 * end with NUL, and data; a reply is a header with an errno value and what was asked for. The table below says what each
 * request has. It is taken apart here, once: structures are copied, names must be of one component, lengths must be within
 * the message, the node must be one that the client was told about. With readonly nothing is changed,
 * whatever the client asks for.
 *
 * One request is handled after the other, so there is nothing to interrupt. What we do not have (extended
 * attributes, locks that the host's programs would see, ioctl, …) is ENOSYS, after which Linux does without: locks then
 * hold within the guest. So is FLUSH: what is written is the host's at once, and close() need not wait for us.
 *
 * Protocol: linux/fuse.h of version 7.31, fuse(4); virtio 1.2, section 5.11.
 */
#include "share/share.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "share/private.h"

#define VERSION_MINOR 31u /* the first with virtio-fs */
#define BACKGROUND_MAX 64u
#define INIT_FLAGS                                                                                                     \
	(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |         \
	 FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES)
#define INIT_BYTES offsetof(struct fuse_init_in, flags2) /* what 7.31 has of it */
#define GUEST_PAGE 4096u
#define NODE_BYTES_MAX (128ull * MiB) /* for about a million names */

void reply_put(struct reply *w, const void *data, size_t len)
{
	if (w->room - w->len < len) {
		w->full = true;
		return;
	}
	memcpy(w->bytes + w->len, data, len);
	w->len += len;
}

static int do_init(struct share *s, struct request *r, struct reply *w)
{
	const struct fuse_init_in *in = &r->in.init;
	struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION, .minor = VERSION_MINOR };

	share_reset(s);
	if (in->major < FUSE_KERNEL_VERSION || (in->major == FUSE_KERNEL_VERSION && in->minor < VERSION_MINOR))
		return EPROTO;
	if (in->major == FUSE_KERNEL_VERSION) {
		out.max_readahead = MIN(in->max_readahead, SHARE_DATA_MAX);
		out.flags = in->flags & INIT_FLAGS;
		out.max_background = BACKGROUND_MAX;
		out.congestion_threshold = BACKGROUND_MAX * 3 / 4;
		out.max_write = SHARE_DATA_MAX;
		out.max_pages = SHARE_DATA_MAX / GUEST_PAGE;
		out.time_gran = 1;
	}
	/* Who speaks a later one asks again. */
	reply_put(w, &out, sizeof(out));
	return 0;
}

static int do_destroy(struct share *s, struct request *r, struct reply *w)
{
	share_reset(s);
	return 0;
}

static int do_forget(struct share *s, struct request *r, struct reply *w)
{
	struct node *n = node_find(s, r->head.nodeid);

	if (n)
		node_forget(s, n, r->in.forget.nlookup);
	return 0;
}

static int do_batch_forget(struct share *s, struct request *r, struct reply *w)
{
	for (uint32_t i = 0; i < r->in.batch_forget.count; i++) {
		struct fuse_forget_one one;
		struct node *n;

		if (r->rest_len < sizeof(one))
			return EINVAL;
		memcpy(&one, r->rest, sizeof(one));
		r->rest += sizeof(one);
		r->rest_len -= sizeof(one);
		n = node_find(s, one.nodeid);
		if (n)
			node_forget(s, n, one.nlookup);
	}
	return 0;
}

/* What it would interrupt has its reply already. */
static int do_interrupt(struct share *s, struct request *r, struct reply *w)
{
	return 0;
}

enum { OF_NODE = 1, CHANGES = 2 }; /* is about a node; is refused when read-only */

static const struct operation {
	uint32_t opcode;
	int (*handle)(struct share *s, struct request *r, struct reply *w); /* an errno value */
	size_t in_bytes;
	unsigned names, flags;
} operations[] = {
	/* clang-format off */
	{ FUSE_READ,         do_read,         sizeof(struct fuse_read_in),         0, OF_NODE },
	{ FUSE_WRITE,        do_write,        sizeof(struct fuse_write_in),        0, OF_NODE | CHANGES },
	{ FUSE_LOOKUP,       do_lookup,       0,                                   1, OF_NODE },
	{ FUSE_GETATTR,      do_getattr,      sizeof(struct fuse_getattr_in),      0, OF_NODE },
	{ FUSE_OPEN,         do_open,         sizeof(struct fuse_open_in),         0, OF_NODE },
	{ FUSE_RELEASE,      do_release,      sizeof(struct fuse_release_in),      0, OF_NODE },
	{ FUSE_READDIRPLUS,  do_readdirplus,  sizeof(struct fuse_read_in),         0, OF_NODE },
	{ FUSE_READDIR,      do_readdir,      sizeof(struct fuse_read_in),         0, OF_NODE },
	{ FUSE_OPENDIR,      do_opendir,      sizeof(struct fuse_open_in),         0, OF_NODE },
	{ FUSE_RELEASEDIR,   do_release,      sizeof(struct fuse_release_in),      0, OF_NODE },
	{ FUSE_FORGET,       do_forget,       sizeof(struct fuse_forget_in),       0, 0 },
	{ FUSE_BATCH_FORGET, do_batch_forget, sizeof(struct fuse_batch_forget_in), 0, 0 },
	{ FUSE_CREATE,       do_create,       sizeof(struct fuse_create_in),       1, OF_NODE | CHANGES },
	{ FUSE_SETATTR,      do_setattr,      sizeof(struct fuse_setattr_in),      0, OF_NODE | CHANGES },
	{ FUSE_UNLINK,       do_unlink,       0,                                   1, OF_NODE | CHANGES },
	{ FUSE_MKDIR,        do_mkdir,        sizeof(struct fuse_mkdir_in),        1, OF_NODE | CHANGES },
	{ FUSE_RMDIR,        do_rmdir,        0,                                   1, OF_NODE | CHANGES },
	{ FUSE_RENAME,       do_rename,       sizeof(struct fuse_rename_in),       2, OF_NODE | CHANGES },
	{ FUSE_RENAME2,      do_rename2,      sizeof(struct fuse_rename2_in),      2, OF_NODE | CHANGES },
	{ FUSE_READLINK,     do_readlink,     0,                                   0, OF_NODE },
	{ FUSE_SYMLINK,      do_symlink,      0,                                   1, OF_NODE | CHANGES },
	{ FUSE_LINK,         do_link,         sizeof(struct fuse_link_in),         1, OF_NODE | CHANGES },
	{ FUSE_MKNOD,        do_mknod,        sizeof(struct fuse_mknod_in),        1, OF_NODE | CHANGES },
	{ FUSE_FSYNC,        do_fsync,        sizeof(struct fuse_fsync_in),        0, OF_NODE },
	{ FUSE_FSYNCDIR,     do_fsync,        sizeof(struct fuse_fsync_in),        0, OF_NODE },
	{ FUSE_LSEEK,        do_lseek,        sizeof(struct fuse_lseek_in),        0, OF_NODE },
	{ FUSE_FALLOCATE,    do_fallocate,    sizeof(struct fuse_fallocate_in),    0, OF_NODE | CHANGES },
	{ FUSE_STATFS,       do_statfs,       0,                                   0, 0 },
	{ FUSE_SYNCFS,       do_syncfs,       0,                                   0, 0 },
	{ FUSE_INIT,         do_init,         INIT_BYTES,                          0, 0 },
	{ FUSE_DESTROY,      do_destroy,      0,                                   0, 0 },
	{ FUSE_INTERRUPT,    do_interrupt,    0,                                   0, 0 },
	/* clang-format on */
};

/* The next NUL-terminated string of the message. */
static int take_name(struct request *r, const char **out)
{
	const char *name = (const char *)r->rest;
	size_t len = strnlen(name, r->rest_len);

	if (len == r->rest_len)
		return EINVAL;
	r->rest += len + 1;
	r->rest_len -= len + 1;
	*out = name;
	return len > NAME_BYTES_MAX ? ENAMETOOLONG : tree_is_name(name) ? 0 : EINVAL;
}

/* @r->rest is what follows the header. */
static int handle(struct share *s, const struct operation *op, struct request *r, struct reply *w)
{
	int rc = 0;

	if (r->rest_len < op->in_bytes)
		return EINVAL;
	memcpy(&r->in, r->rest, op->in_bytes);
	r->rest += op->in_bytes;
	r->rest_len -= op->in_bytes;
	for (unsigned i = 0; !rc && i < op->names; i++)
		rc = take_name(r, &r->name[i]);
	if (rc)
		return rc;
	if (s->readonly && op->flags & CHANGES)
		return EROFS;
	r->node = op->flags & OF_NODE ? node_find(s, r->head.nodeid) : &s->root;
	if (!r->node)
		return ESTALE;
	node_hold(s, r->node);
	rc = op->handle(s, r, w);
	node_end_request(s);
	return rc ? rc : w->full ? EINVAL : 0;
}

static int dispatch(struct share *s, struct request *r, struct reply *w)
{
	for (unsigned i = 0; i < ARRAY_SIZE(operations); i++)
		if (operations[i].opcode == r->head.opcode)
			return handle(s, &operations[i], r, w);
	return ENOSYS;
}

/* The guest would see an empty folder in which nothing can be made. */
static void look_for_folder(struct share *s)
{
	char path[PATH_MAX];
	struct stat st;

	if (s->gone || fstat(s->root.path_fd, &st) < 0 || st.st_nlink)
		return;
	s->gone = true;
	tree_name(s, s->root.path_fd, path);
	log_warn("the shared folder was removed from this host, and is empty for the guest from now on: %s", path);
}

size_t share_handle(struct share *s, const void *request, size_t len, uint8_t *reply, size_t room)
{
	struct fuse_out_header head = { .len = sizeof(head) };
	struct request r = { .rest = (const uint8_t *)request + sizeof(r.head) };
	struct reply w = { .bytes = reply + sizeof(head) };
	int rc = EINVAL;

	room = MIN(room, SHARE_MESSAGE_MAX);
	w.room = room > sizeof(head) ? room - sizeof(head) : 0;
	memcpy(&r.head, request, MIN(len, sizeof(r.head)));
	if (len >= sizeof(r.head) && r.head.len == len) {
		r.rest_len = len - sizeof(r.head);
		rc = dispatch(s, &r, &w);
		if (rc == ENOENT || rc == ESTALE || (r.head.nodeid == FUSE_ROOT_ID && r.head.opcode == FUSE_OPENDIR))
			look_for_folder(s);
	}
	if (room < sizeof(head))
		return 0;
	head.unique = r.head.unique;
	head.error = -rc;
	if (!rc)
		head.len += (uint32_t)w.len;
	memcpy(reply, &head, sizeof(head));
	return head.len;
}

/* ---- The folder ---- */

struct error *share_create(int dir_fd, int fds_fd, bool readonly, unsigned fds_max, struct share **out)
{
	struct share *s;
	struct stat st;

	assert(fds_max >= SHARE_FDS_MIN);
	if (fstat(dir_fd, &st) < 0 || !S_ISDIR(st.st_mode))
		return error_new("what is to be shared is not a folder");
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_errno(ENOMEM, "a shared folder");
	/* What is open is held, so there must be more of the others, at least as many as a request holds. */
	s->handles_max = fds_max / 3;
	s->paths_max = fds_max - s->handles_max;
	assert(s->paths_max > s->handles_max + HELD_MAX);
	s->handles = calloc(s->handles_max, sizeof(*s->handles));
	if (!s->handles) {
		free(s);
		return error_errno(ENOMEM, "a shared folder");
	}
	s->node_bytes_max = NODE_BYTES_MAX;
	s->root.id = s->last_id = FUSE_ROOT_ID;
	s->root.path_fd = dir_fd;
	s->root.identity = (struct identity){ st.st_dev, st.st_ino, S_IFDIR };
	s->fds_fd = fds_fd;
	s->readonly = readonly;
	*out = s;
	return NULL;
}

void share_reset(struct share *s)
{
	node_reset(s);
}

void share_destroy(struct share *s)
{
	if (!s)
		return;
	share_reset(s);
	close(s->root.path_fd);
	close(s->fds_fd);
	free(s->handles);
	free(s);
}
