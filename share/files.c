// SPDX-License-Identifier: Apache-2.0
/*
 * What is open: files that are read and written, folders that are listed. A handle is a descriptor of ours and belongs to
 * the node that it was opened by.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share/private.h"

/* What the client may ask for of open(2); the rest of its flags has no meaning here. */
#define OPEN_FLAGS (O_ACCMODE | O_TRUNC | O_APPEND | O_SYNC)

static int open_flags(const struct share *s, uint32_t wanted, int *flags)
{
	*flags = (int)wanted & OPEN_FLAGS;
	if ((*flags & O_ACCMODE) == O_ACCMODE)
		return EINVAL;
	return s->readonly && *flags & (O_WRONLY | O_RDWR | O_TRUNC) ? EROFS : 0;
}

/* Takes @fd, a descriptor of @n, and tells its number. */
static int reply_handle(struct share *s, struct node *n, int fd, struct reply *w)
{
	struct fuse_open_out out = { 0 };
	int rc = handle_add(s, n, fd, &out.fh);

	if (!rc)
		reply_put(w, &out, sizeof(out));
	return rc;
}

static int open_node(struct share *s, struct request *r, int flags, mode_t kind, struct reply *w)
{
	mode_t is = r->node->identity.kind;
	int fd = node_fd(s, r->node);

	if (fd < 0)
		return -fd;
	if (is != kind)
		return kind == S_IFDIR ? ENOTDIR : S_ISDIR(is) ? EISDIR : S_ISLNK(is) ? ELOOP : EACCES;
	return reply_handle(s, r->node, tree_open(s, fd, flags), w);
}

int do_open(struct share *s, struct request *r, struct reply *w)
{
	int flags, rc = open_flags(s, r->in.open.flags, &flags);

	return rc ? rc : open_node(s, r, flags, S_IFREG, w);
}

int do_opendir(struct share *s, struct request *r, struct reply *w)
{
	return open_node(s, r, O_RDONLY | O_DIRECTORY, S_IFDIR, w);
}

int do_create(struct share *s, struct request *r, struct reply *w)
{
	int dir_fd = node_fd(s, r->node), flags, fd, rc = open_flags(s, r->in.create.flags, &flags);
	struct fuse_entry_out out;
	struct node *n;
	struct stat st;

	if (dir_fd < 0 || rc)
		return rc ? rc : -dir_fd;
	fd = tree_create(s, dir_fd, r->name[0], flags | (int)(r->in.create.flags & O_EXCL), r->in.create.mode);
	if (fd < 0)
		return -fd;
	rc = node_tell(s, r->node, r->name[0], tree_path(s, fd), &n, &st);
	if (rc) {
		close(fd);
		return rc;
	}
	reply_fill_entry(&out, n, &st);
	reply_put(w, &out, sizeof(out));
	rc = reply_handle(s, n, fd, w);
	if (rc)
		node_forget(s, n, 1);
	return rc;
}

int do_read(struct share *s, struct request *r, struct reply *w)
{
	struct handle *h = handle_find(s, r->in.read.fh, r->node);
	ssize_t n;

	if (!h)
		return EBADF;
	if (r->in.read.offset > INT64_MAX)
		return EINVAL;
	n = pread(h->fd, w->bytes, MIN(r->in.read.size, w->room), (off_t)r->in.read.offset);
	if (n < 0)
		return errno;
	w->len = (size_t)n;
	return 0;
}

int do_write(struct share *s, struct request *r, struct reply *w)
{
	struct handle *h = handle_find(s, r->in.write.fh, r->node);
	struct fuse_write_out out = { 0 };
	ssize_t n;

	if (!h)
		return EBADF;
	if (r->in.write.offset > INT64_MAX || r->in.write.size > r->rest_len)
		return EINVAL;
	n = pwrite(h->fd, r->rest, r->in.write.size, (off_t)r->in.write.offset);
	if (n < 0)
		return errno;
	out.size = (uint32_t)n;
	reply_put(w, &out, sizeof(out));
	return 0;
}

int do_release(struct share *s, struct request *r, struct reply *w)
{
	struct handle *h = handle_find(s, r->in.release.fh, r->node);

	if (!h)
		return EBADF;
	handle_remove(s, h);
	return 0;
}

int do_fsync(struct share *s, struct request *r, struct reply *w)
{
	struct handle *h = handle_find(s, r->in.fsync.fh, r->node);

	if (!h)
		return EBADF;
	return (r->in.fsync.fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd)) < 0 ? errno : 0;
}

int do_fallocate(struct share *s, struct request *r, struct reply *w)
{
	const struct fuse_fallocate_in *in = &r->in.fallocate;
	struct handle *h = handle_find(s, in->fh, r->node);

	if (!h)
		return EBADF;
	if (in->mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return EOPNOTSUPP;
	if (in->offset > INT64_MAX || in->length > INT64_MAX)
		return EINVAL;
	return fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? errno : 0;
}

/* Where data begins and ends; positions are otherwise the client's own. */
int do_lseek(struct share *s, struct request *r, struct reply *w)
{
	const struct fuse_lseek_in *in = &r->in.lseek;
	struct handle *h = handle_find(s, in->fh, r->node);
	struct fuse_lseek_out out;
	off_t at;

	if (!h)
		return EBADF;
	if ((in->whence != SEEK_DATA && in->whence != SEEK_HOLE) || in->offset > INT64_MAX)
		return EINVAL;
	at = lseek(h->fd, (off_t)in->offset, (int)in->whence);
	if (at < 0)
		return errno;
	out.offset = (uint64_t)at;
	reply_put(w, &out, sizeof(out));
	return 0;
}

/* ---- Folders ---- */

static bool is_dots(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

/*
 * One entry, if it fits. With @plus the client is told what it is at once, as by a lookup; where that cannot be (it is gone,
 * or another file system), the number 0 says so.
 */
static bool put_entry(struct share *s, struct handle *h, const struct dirent64 *d, bool plus, struct reply *w)
{
	static const uint8_t zeros[8];
	size_t len = strlen(d->d_name), size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + len);
	struct fuse_dirent head = { d->d_ino, (uint64_t)d->d_off, (uint32_t)len, d->d_type };
	struct fuse_entry_out entry = { 0 };
	struct node *n;
	struct stat st;

	if (w->room - w->len < size + (plus ? sizeof(entry) : 0))
		return false;
	if (!strcmp(d->d_name, ".."))
		head.ino = s->root.identity.ino; /* what is above the folder is not the client's to know */
	if (plus) {
		if (!is_dots(d->d_name) && node_tell(s, h->node, d->d_name, tree_walk(h->fd, d->d_name), &n, &st) == 0)
			reply_fill_entry(&entry, n, &st);
		reply_put(w, &entry, sizeof(entry));
	}
	reply_put(w, &head, FUSE_NAME_OFFSET);
	reply_put(w, d->d_name, len);
	reply_put(w, zeros, size - FUSE_NAME_OFFSET - len);
	return true;
}

/* Whole entries, as many as fit; the kernel's positions are what the client goes on from. */
static int list(struct share *s, struct request *r, bool plus, struct reply *w)
{
	struct handle *h = handle_find(s, r->in.read.fh, r->node);
	long got;

	if (!h)
		return EBADF;
	if (r->in.read.offset > INT64_MAX)
		return EINVAL;
	if (lseek(h->fd, (off_t)r->in.read.offset, SEEK_SET) < 0)
		return errno;
	w->room = MIN(w->room, r->in.read.size);
	while ((got = syscall(SYS_getdents64, h->fd, s->names, MIN(sizeof(s->names), MAX(w->room, 512)))) > 0) {
		for (long at = 0; at < got;) {
			const struct dirent64 *d = (const struct dirent64 *)(s->names + at);

			at += d->d_reclen;
			if (strlen(d->d_name) <= NAME_BYTES_MAX && !put_entry(s, h, d, plus, w))
				return w->len ? 0 : EINVAL;
		}
	}
	return got < 0 ? errno : 0;
}

int do_readdir(struct share *s, struct request *r, struct reply *w)
{
	return list(s, r, false, w);
}

int do_readdirplus(struct share *s, struct request *r, struct reply *w)
{
	return list(s, r, true, w);
}
