// SPDX-License-Identifier: Apache-2.0
/*
 * Attributes. Users, groups and modes are the host's, as they are; the guest's kernel decides by them who of its own may do
 * what. Nothing can be given to another user: all belongs to who shares it.
 *
 * How long the guest believes what it was told: VALID_SECONDS, for names as for attributes. The host may change the
 * tree at any time, so it is short; that a name does not exist is never believed, and what was read of a file is kept only
 * until it is opened again or found changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "share/private.h"

#define VALID_SECONDS 1u

void reply_fill_valid(uint64_t *seconds, uint32_t *nanoseconds)
{
	*seconds = VALID_SECONDS;
	*nanoseconds = 0;
}

/* As Linux packs it for its user space. */
static uint32_t pack_dev(dev_t dev)
{
	return (minor(dev) & 0xffu) | major(dev) << 8 | (minor(dev) & ~0xffu) << 12;
}

void reply_fill_attr(struct fuse_attr *out, const struct stat *st)
{
	*out = (struct fuse_attr){
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec,
		.mtime = (uint64_t)st->st_mtim.tv_sec,
		.ctime = (uint64_t)st->st_ctim.tv_sec,
		.atimensec = (uint32_t)st->st_atim.tv_nsec,
		.mtimensec = (uint32_t)st->st_mtim.tv_nsec,
		.ctimensec = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode,
		.nlink = (uint32_t)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.rdev = pack_dev(st->st_rdev),
		.blksize = (uint32_t)st->st_blksize,
	};
}

void reply_fill_entry(struct fuse_entry_out *out, const struct node *n, const struct stat *st)
{
	*out = (struct fuse_entry_out){ .nodeid = n->id };
	reply_fill_valid(&out->entry_valid, &out->entry_valid_nsec);
	reply_fill_valid(&out->attr_valid, &out->attr_valid_nsec);
	reply_fill_attr(&out->attr, st);
}

/* By the open descriptor if there is one: it works for what has lost its name. */
static int reply_attr(struct share *s, struct request *r, const struct handle *h, struct reply *w)
{
	struct fuse_attr_out out = { 0 };
	int fd = h ? h->fd : node_fd(s, r->node);
	struct stat st;

	if (fd < 0)
		return -fd;
	if (fstat(fd, &st) < 0)
		return errno;
	reply_fill_valid(&out.attr_valid, &out.attr_valid_nsec);
	reply_fill_attr(&out.attr, &st);
	reply_put(w, &out, sizeof(out));
	return 0;
}

int do_getattr(struct share *s, struct request *r, struct reply *w)
{
	bool open = r->in.getattr.getattr_flags & FUSE_GETATTR_FH;
	struct handle *h = open ? handle_find(s, r->in.getattr.fh, r->node) : NULL;

	return open && !h ? EBADF : reply_attr(s, r, h, w);
}

/* A time: left alone, now, or as given. */
static struct timespec get_time(uint32_t valid, uint32_t set, uint32_t set_now, uint64_t seconds, uint32_t ns)
{
	if (!(valid & set))
		return (struct timespec){ 0, UTIME_OMIT };
	if ((valid & set_now) || ns >= NS_PER_SEC)
		return (struct timespec){ 0, UTIME_NOW };
	return (struct timespec){ (time_t)seconds, (long)ns };
}

static int set_size(struct share *s, int path_fd, const struct handle *h, uint64_t size)
{
	if (size > INT64_MAX)
		return EFBIG;
	if (h)
		return ftruncate(h->fd, (off_t)size) < 0 ? errno : 0;
	return tree_truncate(s, path_fd, size);
}

int do_setattr(struct share *s, struct request *r, struct reply *w)
{
	const struct fuse_setattr_in *in = &r->in.setattr;
	struct handle *h = in->valid & FATTR_FH ? handle_find(s, in->fh, r->node) : NULL;
	struct timespec times[2] = { get_time(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
				     get_time(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec) };
	int fd = node_fd(s, r->node), rc = 0;

	if (fd < 0)
		return -fd;
	if (in->valid & FATTR_FH && !h)
		return EBADF;
	if (in->valid & (FATTR_UID | FATTR_GID))
		rc = tree_chown(fd, in->valid & FATTR_UID ? in->uid : (uid_t)-1,
				in->valid & FATTR_GID ? in->gid : (gid_t)-1);
	if (!rc && in->valid & FATTR_MODE)
		rc = tree_chmod(s, fd, in->mode);
	if (!rc && in->valid & FATTR_SIZE)
		rc = set_size(s, fd, h, in->size);
	if (!rc && in->valid & (FATTR_ATIME | FATTR_MTIME))
		rc = tree_set_times(s, fd, times);
	return rc ? rc : reply_attr(s, r, h, w);
}

int do_statfs(struct share *s, struct request *r, struct reply *w)
{
	struct fuse_statfs_out out = { 0 };
	struct statfs st;

	if (fstatfs(s->root.path_fd, &st) < 0)
		return errno;
	out.st.blocks = st.f_blocks;
	out.st.bfree = st.f_bfree;
	out.st.bavail = st.f_bavail;
	out.st.files = st.f_files;
	out.st.ffree = st.f_ffree;
	out.st.bsize = (uint32_t)st.f_bsize;
	out.st.frsize = (uint32_t)st.f_frsize;
	out.st.namelen = NAME_BYTES_MAX;
	reply_put(w, &out, sizeof(out));
	return 0;
}

/* What the guest's sync(2) asks for. */
int do_syncfs(struct share *s, struct request *r, struct reply *w)
{
	int fd, rc;

	if (s->readonly)
		return 0;
	fd = tree_open(s, s->root.path_fd, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return -fd;
	rc = syncfs(fd) < 0 ? errno : 0;
	close(fd);
	return rc;
}
