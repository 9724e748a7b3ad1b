// SPDX-License-Identifier: Apache-2.0
/*
 * Names: finding, making, removing and renaming what they stand for. A request's names were checked to be of one
 * component (share.c); what is found or made is told to the client as its kernel wants it, with a node's number.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share/private.h"

int reply_entry(struct share *s, const struct request *r, const char *name, struct reply *w)
{
	struct fuse_entry_out out;
	struct node *n;
	struct stat st;
	int dir_fd = node_fd(s, r->node), rc;

	if (dir_fd < 0)
		return -dir_fd;
	rc = node_tell(s, r->node, name, tree_walk(dir_fd, name), &n, &st);
	if (rc)
		return rc;
	reply_fill_entry(&out, n, &st);
	reply_put(w, &out, sizeof(out));
	return 0;
}

int do_lookup(struct share *s, struct request *r, struct reply *w)
{
	return reply_entry(s, r, r->name[0], w);
}

/* Regular files only: a device is not the guest's to make, a FIFO would be a trap for the host's programs. */
int do_mknod(struct share *s, struct request *r, struct reply *w)
{
	int dir_fd = node_fd(s, r->node), fd;

	if (dir_fd < 0)
		return -dir_fd;
	if (!S_ISREG(r->in.mknod.mode))
		return EPERM;
	fd = tree_create(s, dir_fd, r->name[0], O_WRONLY | O_EXCL, r->in.mknod.mode);
	if (fd < 0)
		return -fd;
	close(fd);
	return reply_entry(s, r, r->name[0], w);
}

int do_mkdir(struct share *s, struct request *r, struct reply *w)
{
	int dir_fd = node_fd(s, r->node);

	if (dir_fd < 0)
		return -dir_fd;
	if (mkdirat(dir_fd, r->name[0], r->in.mkdir.mode & 0777) < 0)
		return errno;
	return reply_entry(s, r, r->name[0], w);
}

int do_symlink(struct share *s, struct request *r, struct reply *w)
{
	const char *target = (const char *)r->rest;
	size_t len = strnlen(target, r->rest_len);
	int dir_fd = node_fd(s, r->node);

	if (dir_fd < 0)
		return -dir_fd;
	if (!len || len == r->rest_len)
		return EINVAL;
	if (len > TARGET_MAX)
		return ENAMETOOLONG;
	if (symlinkat(target, dir_fd, r->name[0]) < 0)
		return errno;
	return reply_entry(s, r, r->name[0], w);
}

int do_readlink(struct share *s, struct request *r, struct reply *w)
{
	int fd = node_fd(s, r->node);
	char target[TARGET_MAX + 1];
	ssize_t n;

	if (fd < 0)
		return -fd;
	n = readlinkat(fd, "", target, TARGET_MAX);
	if (n < 0)
		return errno == ENOENT ? EINVAL : errno; /* no link, as the kernel has it for "" */
	reply_put(w, target, (size_t)n);
	return 0;
}

/* Of a node that a request names beside its own; or less than 0: the error. */
static int other_fd(struct share *s, uint64_t id)
{
	struct node *n = node_find(s, id);

	return n ? node_fd(s, n) : -ESTALE;
}

int do_link(struct share *s, struct request *r, struct reply *w)
{
	int dir_fd = node_fd(s, r->node), fd = other_fd(s, r->in.link.oldnodeid), rc;

	if (dir_fd < 0)
		return -dir_fd;
	if (fd < 0)
		return -fd;
	rc = tree_link(s, fd, dir_fd, r->name[0]);
	return rc ? rc : reply_entry(s, r, r->name[0], w);
}

static int remove_name(struct share *s, struct request *r, int flags)
{
	int dir_fd = node_fd(s, r->node);

	if (dir_fd < 0)
		return -dir_fd;
	return unlinkat(dir_fd, r->name[0], flags) < 0 ? errno : 0;
}

int do_unlink(struct share *s, struct request *r, struct reply *w)
{
	return remove_name(s, r, 0);
}

int do_rmdir(struct share *s, struct request *r, struct reply *w)
{
	return remove_name(s, r, AT_REMOVEDIR);
}

static int rename_name(struct share *s, struct request *r, uint64_t new_dir, unsigned flags)
{
	int from_fd = node_fd(s, r->node), to_fd = other_fd(s, new_dir);

	if (from_fd < 0)
		return -from_fd;
	if (to_fd < 0)
		return -to_fd;
	/* Not by the C library, for which renaming without flags is another system call. */
	if (syscall(SYS_renameat2, from_fd, r->name[0], to_fd, r->name[1], flags) < 0)
		return errno;
	node_moved(s, node_find(s, new_dir), r->name[1]);
	if (flags & RENAME_EXCHANGE)
		node_moved(s, r->node, r->name[0]);
	return 0;
}

int do_rename(struct share *s, struct request *r, struct reply *w)
{
	return rename_name(s, r, r->in.rename.newdir, 0);
}

int do_rename2(struct share *s, struct request *r, struct reply *w)
{
	/* A whiteout would be a device node. */
	if (r->in.rename2.flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return EINVAL;
	return rename_name(s, r, r->in.rename2.newdir, r->in.rename2.flags);
}
