// SPDX-License-Identifier: Apache-2.0
/*
 * A folder by 9P2000.L: the messages.
 *
 * Theory of operation. A message is size[4] type[1] tag[2] and what its type says; a reply has the type's number plus
 * one, or is Rlerror with an errno value. The client names things by numbers of its choice (fids): Tattach gives the
 * folder one, Twalk goes on from there. One request is handled after the other, so there is nothing to flush.
 *
 * Every number and string is checked where it is read (wire.h), every name is one component (tree.c). With readonly
 * nothing is changed, whatever the client asks for. What we do not offer (extended attributes, device nodes, removal
 * without a name) is answered by an error that the client knows how to live with.
 *
 * Protocol: intro(5) of Plan 9, and 9P2000.L as Linux' v9fs speaks it.
 */
#include "share/share.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share/private.h"

#define HEADER_BYTES 7u
#define QID_BYTES 13u
#define READ_HEADER (HEADER_BYTES + 4u)
#define MESSAGE_MIN 4096u /* a client that wants less is refused */
#define WALK_MAX 16u	  /* components of one Twalk, by the protocol */
#define TARGET_MAX 4095u  /* of a symbolic link */

enum {
	TLERROR = 6, TSTATFS = 8, TLOPEN = 12, TLCREATE = 14, TSYMLINK = 16, TMKNOD = 18, TREADLINK = 22, TGETATTR = 24,
	TSETATTR = 26, TXATTRWALK = 30, TREADDIR = 40, TFSYNC = 50, TLOCK = 52, TGETLOCK = 54, TLINK = 70, TMKDIR = 72,
	TRENAMEAT = 74, TUNLINKAT = 76, TVERSION = 100, TATTACH = 104, TFLUSH = 108, TWALK = 110, TREAD = 116,
	TWRITE = 118, TCLUNK = 120, TREMOVE = 122,
};

#define QID_DIR 0x80u
#define QID_LINK 0x02u

/* Tsetattr */
enum { SET_MODE = 1, SET_UID = 2, SET_GID = 4, SET_SIZE = 8, SET_ATIME = 16, SET_MTIME = 32, SET_ATIME_TO = 128, SET_MTIME_TO = 256 };
#define GETATTR_BASIC 0x7ffu
#define LOCK_SUCCESS 0u
#define LOCK_UNLOCKED 2u
#define STATFS_TYPE 0x01021997u

static void put_qid(struct writer *w, const struct stat *st)
{
	put(w, S_ISDIR(st->st_mode) ? QID_DIR : S_ISLNK(st->st_mode) ? QID_LINK : 0, 1);
	put(w, (uint32_t)st->st_mtim.tv_sec ^ (uint32_t)st->st_mtim.tv_nsec, 4);
	put(w, st->st_ino, 8);
}

static int put_qid_of(struct writer *w, int fd)
{
	struct stat st;
	int rc = tree_stat(fd, &st);

	if (!rc)
		put_qid(w, &st);
	return rc;
}

/* Which thing a request is about. */
static struct fid *get_fid(struct share *s, struct reader *r)
{
	return fid_find(s, (uint32_t)get(r, 4));
}

/* ---- Beginning, walking, ending ---- */

static int version(struct share *s, struct reader *r, struct writer *w)
{
	uint32_t wanted = (uint32_t)get(r, 4);
	size_t len = get(r, 2);
	const uint8_t *name = get_bytes(r, len);
	bool known = name && len == 8 && !memcmp(name, "9P2000.L", 8);

	if (r->bad || wanted < MESSAGE_MIN)
		return EINVAL;
	fid_remove_all(s);
	s->message_max = MIN(wanted, SHARE_MESSAGE_MAX);
	put(w, s->message_max, 4);
	put_string(w, known ? "9P2000.L" : "unknown");
	return 0;
}

static int attach(struct share *s, struct reader *r, struct writer *w)
{
	uint32_t number = (uint32_t)get(r, 4);
	int rc;

	if (r->bad)
		return EINVAL;
	rc = fid_add(s, number, fcntl(s->root_fd, F_DUPFD_CLOEXEC, 0));
	return rc ? rc : put_qid_of(w, s->root_fd);
}

/* Goes as far as it can; only a walk to the end gives the new fid its place. */
static int walk(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *from = get_fid(s, r);
	uint32_t number = (uint32_t)get(r, 4);
	unsigned count = (unsigned)get(r, 2), done = 0;
	uint8_t *count_at = w->at;
	int fd, rc = 0;

	if (r->bad || !from || count > WALK_MAX)
		return r->bad || count > WALK_MAX ? EINVAL : EBADF;
	if (number != from->number && fid_find(s, number))
		return EEXIST;
	put(w, 0, 2);
	fd = fcntl(from->path_fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	for (; done < count; done++) {
		char name[NAME_BYTES_MAX + 1];
		int next;

		rc = tree_name(r, name);
		if (rc)
			break;
		next = tree_walk(fd, name);
		if (next < 0) {
			rc = -next;
			break;
		}
		close(fd);
		fd = next;
		rc = put_qid_of(w, fd);
		if (rc)
			break;
	}
	if (rc && !done) {
		close(fd);
		return rc;
	}
	store_le(count_at, done, 2);
	if (done < count) {
		close(fd);
		return 0;
	}
	if (number == from->number)
		fid_remove(s, from);
	return fid_add(s, number, fd);
}

static int clunk(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);

	if (!f)
		return EBADF;
	fid_remove(s, f);
	return 0;
}

/* Linux removes by folder and name; this one still gives up the fid, as it must. */
static int remove_fid(struct share *s, struct reader *r, struct writer *w)
{
	int rc = clunk(s, r, w);

	return rc ? rc : EOPNOTSUPP;
}

static int flush(struct share *s, struct reader *r, struct writer *w)
{
	return 0;
}

/* ---- Files ---- */

/* What the client may ask for of open(2); the rest of its flags has no meaning here. */
static int open_flags(const struct share *s, uint32_t wanted, int *flags)
{
	*flags = (int)(wanted & (O_ACCMODE | O_TRUNC | O_APPEND | O_DIRECTORY));
	if ((wanted & O_ACCMODE) == O_ACCMODE)
		return EINVAL;
	return s->readonly && ((wanted & O_ACCMODE) != O_RDONLY || (wanted & O_TRUNC)) ? EROFS : 0;
}

static int lopen(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	uint32_t wanted = (uint32_t)get(r, 4);
	int flags, fd, rc;

	if (!f || f->io_fd >= 0)
		return EBADF;
	rc = r->bad ? EINVAL : open_flags(s, wanted, &flags);
	if (rc)
		return rc;
	fd = tree_open(s, f->path_fd, flags);
	if (fd < 0)
		return -fd;
	f->io_fd = fd;
	rc = put_qid_of(w, fd);
	put(w, 0, 4); /* as much at a time as fits into a message */
	return rc;
}

static int lcreate(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	char name[NAME_BYTES_MAX + 1];
	int flags, fd, path_fd, rc = tree_name(r, name);
	uint32_t wanted = (uint32_t)get(r, 4), mode = (uint32_t)get(r, 4);

	if (!f || f->io_fd >= 0)
		return EBADF;
	if (!rc)
		rc = r->bad ? EINVAL : s->readonly ? EROFS : open_flags(s, wanted, &flags);
	if (rc)
		return rc;
	fd = tree_create(s, f->path_fd, name, flags | (int)(wanted & O_EXCL), mode);
	if (fd < 0)
		return -fd;
	path_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (path_fd < 0) {
		close(fd);
		return ENFILE;
	}
	close(f->path_fd);
	f->path_fd = path_fd;
	f->io_fd = fd;
	rc = put_qid_of(w, fd);
	put(w, 0, 4);
	return rc;
}

static int read_file(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	uint64_t offset = get(r, 8), count = get(r, 4);
	ssize_t n;

	if (!f || f->io_fd < 0)
		return EBADF;
	if (r->bad || offset > INT64_MAX)
		return EINVAL;
	count = MIN(count, s->message_max - READ_HEADER);
	n = pread(f->io_fd, w->at + 4, count, (off_t)offset);
	if (n < 0)
		return errno;
	put(w, (uint64_t)n, 4);
	w->at += n;
	return 0;
}

static int write_file(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	uint64_t offset = get(r, 8), count = get(r, 4);
	const uint8_t *data = get_bytes(r, count);
	ssize_t n;

	if (!f || f->io_fd < 0)
		return EBADF;
	if (!data || offset > INT64_MAX)
		return EINVAL;
	if (s->readonly)
		return EROFS;
	n = pwrite(f->io_fd, data, count, (off_t)offset);
	if (n < 0)
		return errno;
	put(w, (uint64_t)n, 4);
	return 0;
}

static int fsync_file(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	bool data_only = get(r, 4);

	if (!f || f->io_fd < 0)
		return EBADF;
	return (data_only ? fdatasync(f->io_fd) : fsync(f->io_fd)) < 0 ? errno : 0;
}

/* Whole entries, as many as fit; the kernel's positions are what the client goes on from. */
static int read_dir(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	uint64_t offset = get(r, 8), count = get(r, 4);
	uint8_t *count_at = w->at;
	struct writer entries;
	long got;

	if (!f || f->io_fd < 0)
		return EBADF;
	if (r->bad || offset > INT64_MAX)
		return EINVAL;
	if (lseek(f->io_fd, (off_t)offset, SEEK_SET) < 0)
		return errno;
	put(w, 0, 4);
	entries = (struct writer){ w->at, w->at, w->at + MIN(count, (uint64_t)s->message_max - READ_HEADER), false };
	while ((got = syscall(SYS_getdents64, f->io_fd, s->names, sizeof(s->names))) > 0) {
		for (long at = 0; at < got;) {
			const struct dirent64 *d = (const struct dirent64 *)(s->names + at);
			uint8_t *start = entries.at;

			at += d->d_reclen;
			put(&entries, d->d_type == DT_DIR ? QID_DIR : d->d_type == DT_LNK ? QID_LINK : 0, 1);
			put(&entries, 0, 4);
			/* What is above the folder is not the client's to know. */
			put(&entries, strcmp(d->d_name, "..") ? d->d_ino : s->root_ino, 8);
			put(&entries, (uint64_t)d->d_off, 8);
			put(&entries, d->d_type, 1);
			put_string(&entries, d->d_name);
			if (entries.full) {
				entries.at = start;
				goto out;
			}
		}
	}
	if (got < 0)
		return errno;
out:
	store_le(count_at, (uint64_t)(entries.at - entries.start), 4);
	w->at = entries.at;
	return 0;
}

/* ---- Attributes ---- */

static void put_time(struct writer *w, const struct timespec *t)
{
	put(w, (uint64_t)t->tv_sec, 8);
	put(w, (uint64_t)t->tv_nsec, 8);
}

static int getattr(struct share *s, struct reader *r, struct writer *w)
{
	static const struct timespec none = { 0, 0 };
	struct fid *f = get_fid(s, r);
	struct stat st;
	int rc;

	if (!f)
		return EBADF;
	rc = tree_stat(f->path_fd, &st);
	if (rc)
		return rc;
	put(w, GETATTR_BASIC, 8);
	put_qid(w, &st);
	put(w, st.st_mode, 4);
	put(w, st.st_uid, 4);
	put(w, st.st_gid, 4);
	put(w, st.st_nlink, 8);
	put(w, st.st_rdev, 8);
	put(w, (uint64_t)st.st_size, 8);
	put(w, (uint64_t)st.st_blksize, 8);
	put(w, (uint64_t)st.st_blocks, 8);
	put_time(w, &st.st_atim);
	put_time(w, &st.st_mtim);
	put_time(w, &st.st_ctim);
	put_time(w, &none);
	put(w, 0, 8); /* generation */
	put(w, 0, 8); /* data version */
	return 0;
}

/* A time: left alone, now, or as given. */
static struct timespec get_time(struct reader *r, uint32_t valid, uint32_t set, uint32_t set_to)
{
	uint64_t s = get(r, 8), ns = get(r, 8);

	if (!(valid & set))
		return (struct timespec){ 0, UTIME_OMIT };
	if (!(valid & set_to) || ns >= NS_PER_SEC)
		return (struct timespec){ 0, UTIME_NOW };
	return (struct timespec){ (time_t)s, (long)ns };
}

static int setattr(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	uint32_t valid = (uint32_t)get(r, 4), mode = (uint32_t)get(r, 4), uid = (uint32_t)get(r, 4), gid = (uint32_t)get(r, 4);
	uint64_t size = get(r, 8);
	struct timespec times[2];
	int rc = 0;

	times[0] = get_time(r, valid, SET_ATIME, SET_ATIME_TO);
	times[1] = get_time(r, valid, SET_MTIME, SET_MTIME_TO);
	if (!f)
		return EBADF;
	if (r->bad)
		return EINVAL;
	if (s->readonly)
		return EROFS;
	if (valid & (SET_UID | SET_GID))
		rc = tree_chown(f->path_fd, valid & SET_UID ? uid : (uid_t)-1, valid & SET_GID ? gid : (gid_t)-1);
	if (!rc && (valid & SET_MODE))
		rc = tree_chmod(s, f->path_fd, mode);
	if (!rc && (valid & SET_SIZE))
		rc = tree_truncate(s, f->path_fd, size);
	if (!rc && (valid & (SET_ATIME | SET_MTIME)))
		rc = tree_set_times(s, f->path_fd, times);
	return rc;
}

static int stat_fs(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	struct statfs st;

	if (!f)
		return EBADF;
	if (fstatfs(f->path_fd, &st) < 0)
		return errno;
	put(w, STATFS_TYPE, 4);
	put(w, (uint64_t)st.f_bsize, 4);
	put(w, st.f_blocks, 8);
	put(w, st.f_bfree, 8);
	put(w, st.f_bavail, 8);
	put(w, st.f_files, 8);
	put(w, st.f_ffree, 8);
	put(w, 0, 8);
	put(w, NAME_BYTES_MAX, 4);
	return 0;
}

/* ---- Names ---- */

static int make_dir(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	char name[NAME_BYTES_MAX + 1];
	int rc = tree_name(r, name), fd;
	uint32_t mode = (uint32_t)get(r, 4);

	if (!f || rc || r->bad || s->readonly)
		return !f ? EBADF : rc ? rc : r->bad ? EINVAL : EROFS;
	if (mkdirat(f->path_fd, name, mode & 0777) < 0)
		return errno;
	fd = tree_walk(f->path_fd, name);
	if (fd < 0)
		return -fd;
	rc = put_qid_of(w, fd);
	close(fd);
	return rc;
}

static int make_symlink(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	char name[NAME_BYTES_MAX + 1], target[TARGET_MAX + 1];
	int rc = tree_name(r, name), fd;
	size_t len = get(r, 2);
	const uint8_t *text = get_bytes(r, len);

	if (!f || rc || s->readonly)
		return !f ? EBADF : rc ? rc : EROFS;
	if (!text || !len || len > TARGET_MAX || memchr(text, 0, len))
		return EINVAL;
	memcpy(target, text, len);
	target[len] = 0;
	if (symlinkat(target, f->path_fd, name) < 0)
		return errno;
	fd = tree_walk(f->path_fd, name);
	if (fd < 0)
		return -fd;
	rc = put_qid_of(w, fd);
	close(fd);
	return rc;
}

static int read_link(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	char target[TARGET_MAX + 1];
	ssize_t n;

	if (!f)
		return EBADF;
	n = readlinkat(f->path_fd, "", target, TARGET_MAX);
	if (n < 0)
		return errno == ENOENT ? EINVAL : errno; /* no link, as the kernel has it for "" */
	target[n] = 0;
	put_string(w, target);
	return 0;
}

static int make_link(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *dir = get_fid(s, r), *f = get_fid(s, r);
	char name[NAME_BYTES_MAX + 1];
	int rc = tree_name(r, name);

	if (!dir || !f || rc || s->readonly)
		return !dir || !f ? EBADF : rc ? rc : EROFS;
	return tree_link(s, f->path_fd, dir->path_fd, name);
}

static int rename_at(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *from = get_fid(s, r), *to;
	char name[NAME_BYTES_MAX + 1], new_name[NAME_BYTES_MAX + 1];
	int rc = tree_name(r, name), rc2;

	to = get_fid(s, r);
	rc2 = tree_name(r, new_name);
	if (!from || !to || rc || rc2 || s->readonly)
		return !from || !to ? EBADF : rc ? rc : rc2 ? rc2 : EROFS;
	return renameat(from->path_fd, name, to->path_fd, new_name) < 0 ? errno : 0;
}

static int unlink_at(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	char name[NAME_BYTES_MAX + 1];
	int rc = tree_name(r, name);
	uint32_t flags = (uint32_t)get(r, 4);

	if (!f || rc || r->bad || s->readonly)
		return !f ? EBADF : rc ? rc : r->bad ? EINVAL : EROFS;
	return unlinkat(f->path_fd, name, (int)(flags & AT_REMOVEDIR)) < 0 ? errno : 0;
}

/* ---- What is there in name only ---- */

static int refuse_node(struct share *s, struct reader *r, struct writer *w)
{
	return EPERM;
}

static int refuse_xattr(struct share *s, struct reader *r, struct writer *w)
{
	return EOPNOTSUPP;
}

/* Locks hold within the guest, which has its own; the host's programs do not see them. */
static int lock(struct share *s, struct reader *r, struct writer *w)
{
	if (!get_fid(s, r))
		return EBADF;
	put(w, LOCK_SUCCESS, 1);
	return 0;
}

static int get_lock(struct share *s, struct reader *r, struct writer *w)
{
	struct fid *f = get_fid(s, r);
	const uint8_t *rest, *id;
	size_t len;

	get(r, 1);
	rest = get_bytes(r, 8 + 8 + 4);
	len = get(r, 2);
	id = get_bytes(r, len);
	if (!f || !rest || !id)
		return f ? EINVAL : EBADF;
	put(w, LOCK_UNLOCKED, 1);
	put_bytes(w, rest, 8 + 8 + 4);
	put(w, len, 2);
	put_bytes(w, id, len);
	return 0;
}

static const struct {
	uint8_t type;
	int (*handle)(struct share *s, struct reader *r, struct writer *w); /* an errno value; 0: w has the reply */
} handlers[] = {
	{ TREAD, read_file },	  { TWRITE, write_file },    { TWALK, walk },	       { TCLUNK, clunk },
	{ TGETATTR, getattr },	  { TLOPEN, lopen },	     { TREADDIR, read_dir },   { TLCREATE, lcreate },
	{ TSETATTR, setattr },	  { TSTATFS, stat_fs },	     { TMKDIR, make_dir },     { TUNLINKAT, unlink_at },
	{ TRENAMEAT, rename_at }, { TSYMLINK, make_symlink }, { TREADLINK, read_link }, { TLINK, make_link },
	{ TFSYNC, fsync_file },	  { TLOCK, lock },	     { TGETLOCK, get_lock },   { TMKNOD, refuse_node },
	{ TVERSION, version },	  { TATTACH, attach },	     { TFLUSH, flush },	       { TREMOVE, remove_fid },
	{ TXATTRWALK, refuse_xattr },
};

size_t share_handle(struct share *s, const uint8_t *request, size_t len, uint8_t *reply)
{
	struct writer w = { reply, reply, reply + s->message_max, false };
	struct reader r = { request, request + len, false };
	uint64_t size = get(&r, 4);
	uint8_t type = (uint8_t)get(&r, 1);
	uint16_t tag = (uint16_t)get(&r, 2);
	int rc = EOPNOTSUPP;

	if (r.bad || size != len)
		return 0;
	w.at += HEADER_BYTES;
	for (unsigned i = 0; i < ARRAY_SIZE(handlers); i++) {
		if (handlers[i].type == type) {
			rc = handlers[i].handle(s, &r, &w);
			break;
		}
	}
	if (!rc && w.full)
		rc = EMSGSIZE;
	if (rc) {
		w = (struct writer){ reply, reply + HEADER_BYTES, w.end, false };
		put(&w, (uint64_t)rc, 4);
		type = TLERROR;
	}
	store_le(reply, (uint64_t)(w.at - reply), 4);
	reply[4] = (uint8_t)(type + 1);
	store_le(reply + 5, tag, 2);
	return (size_t)(w.at - reply);
}

struct error *share_create(int dir_fd, int fds_fd, bool readonly, unsigned fids_max, struct share **out)
{
	struct share *s = calloc(1, sizeof(*s));
	struct stat st;

	if (!s)
		return error_errno(ENOMEM, "a shared folder");
	if (fstat(dir_fd, &st) < 0 || !S_ISDIR(st.st_mode)) {
		free(s);
		return error_new("what is to be shared is not a folder");
	}
	s->root_fd = dir_fd;
	s->fds_fd = fds_fd;
	s->readonly = readonly;
	s->fids_max = fids_max;
	s->message_max = SHARE_MESSAGE_MAX;
	s->root_ino = st.st_ino;
	*out = s;
	return NULL;
}

void share_reset(struct share *s)
{
	fid_remove_all(s);
	s->message_max = SHARE_MESSAGE_MAX;
}

void share_destroy(struct share *s)
{
	if (!s)
		return;
	fid_remove_all(s);
	close(s->root_fd);
	close(s->fds_fd);
	free(s);
}
