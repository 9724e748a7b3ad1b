// SPDX-License-Identifier: Apache-2.0
/*
 * From a path to locked descriptors: for the programs that run as the user, outside of the sandbox.
 *
 * A backing file's name comes from an image, which a stranger or a guest may have written, and what it names
 * is read by the guest. It is therefore followed only when the header also states the format (nothing
 * is guessed), and only within the folder of the disk that the user has named, or below: no "..", no symbolic
 * link and no absolute name leads out of there (openat2(2), RESOLVE_BENEATH). For the file directly under
 * the disk the user may say which one it is; the folder that counts is that file's from there on.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/image.h"
#include "block/qcow2.h"

/* Where the files of a chain may be, and how to get at them. */
struct place {
	int folder; /* where the names in headers have to stay; -1: the next is opened as the user named it */
	char *root; /* its path, "" or with a slash at the end */
	char *path; /* of the file: with @root as its start, but for one that the user named */
};

static int open_beneath(const struct place *p, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)flags,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, p->folder, p->path + strlen(p->root), &how, sizeof(how));
}

static int open_at(const struct place *p, int flags)
{
	return p->folder < 0 ? open(p->path, flags) : open_beneath(p, flags);
}

static struct error *outside(const struct place *p, const char *name)
{
	return error_new("its backing file '%s' is not in its folder (%s) or below, and an image is not trusted to name others: if that is the right file, say so with ,backing=%s behind the disk",
			 name, *p->root ? p->root : ".", name);
}

static struct error *open_one(const struct place *p, bool readonly, int *out)
{
	const char *path = p->path;
	struct error *err;
	uint64_t size;
	/* O_NONBLOCK: a FIFO must not hang us; it means nothing for what is accepted. */
	int fd = open_at(p, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0) {
		int e = errno;

		if (e == ENOENT)
			return error_errno(e, "no such disk: '%s'", path);
		if (p->folder >= 0 && (e == EXDEV || e == ELOOP))
			return outside(p, path);
		if (p->folder >= 0 && e == ENOSYS)
			return error_errno(e, "backing file '%s': it cannot be made sure that it is below '%s', for which Linux 5.6 is needed; name it with ,backing=FILE behind the disk",
					   path, *p->root ? p->root : ".");
		if (!readonly && (e == EACCES || e == EROFS || e == EPERM))
			return error_errno(e, "disk '%s' may not be written to; use it with readonly=on",
					   path);
		return error_errno(e, "cannot open disk '%s'", path);
	}
	err = image_fd_size(fd, path, &size);
	if (!err)
		err = block_lock(fd, readonly, path);
	if (err) {
		close(fd);
		return err;
	}
	*out = fd;
	return NULL;
}

/* The folder of @path, "" or with a slash at the end; NULL: no memory. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return strndup(path, slash ? (size_t)(slash - path) + 1 : 0);
}

/* @name as seen from the folder of @image; NULL: no memory. */
static char *beside(const char *image, const char *name)
{
	char *folder = folder_of(image), *out = NULL;

	if (folder && asprintf(&out, "%s%s", folder, name) < 0)
		out = NULL;
	free(folder);
	return out;
}

/* The files below the one that the user has just named have to stay in its folder. */
static struct error *enter(struct place *p)
{
	char *root = folder_of(p->path);

	if (!root)
		return error_new("out of memory opening disk '%s'", p->path);
	free(p->root);
	p->root = root;
	p->folder = open(*root ? root : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (p->folder < 0)
		return error_errno(errno, "cannot open the folder of disk '%s'", p->path);
	return NULL;
}

/*
 * The header's @name becomes the place to look at. An absolute one may lead into the folder, too, in the user's words
 * for it or in the kernel's.
 */
static struct error *follow(struct place *p, const char *name)
{
	char real[PATH_MAX], *next;
	const char *rest = NULL;
	size_t n = strlen(p->root);

	if (name[0] == '/') {
		if (n > 0 && strncmp(name, p->root, n) == 0) {
			rest = name + n;
		} else if (realpath(*p->root ? p->root : ".", real)) {
			n = strlen(real);
			if (strncmp(name, real, n) == 0 && name[n] == '/')
				rest = name + n + 1;
		}
		if (!rest)
			return outside(p, name);
		while (*rest == '/')
			rest++;
		next = beside(p->root, rest);
	} else {
		next = beside(p->path, name);
	}
	if (!next)
		return error_new("out of memory opening disk '%s'", p->path);
	free(p->path);
	p->path = next;
	return NULL;
}

/* The user has said which file it is. */
static struct error *follow_user(struct place *p, const char *path)
{
	char *next = strdup(path);

	if (!next)
		return error_new("out of memory opening disk '%s'", path);
	close(p->folder);
	p->folder = -1;
	free(p->path);
	p->path = next;
	return NULL;
}

/* What lies under the last image of @how so far, if there is @more. @users: which file it is by the user's word, or NULL. */
static struct error *backing_of(struct place *p, const struct block_open *how, const char *users,
				enum block_format *format, bool *more)
{
	const char *path = p->path;
	struct qcow2_header h;
	struct error *err;

	*more = false;
	if (how->chain[how->count - 1].format != BLOCK_FORMAT_QCOW2)
		return NULL;
	err = qcow2_header_read(how->chain[how->count - 1].fd, path, &h);
	if (err || !h.backing_name[0])
		return err;
	if (!h.backing_format[0])
		return error_new("disk '%s' has the backing file '%s' and does not state its format; state "
				 "it with 'qemu-img rebase -u -F FORMAT -b %s %s'",
				 path, h.backing_name, h.backing_name, path);
	if (!block_format_parse(h.backing_format, format))
		return error_new("disk '%s' has a backing file of format '%s'; raw and qcow2 can be used",
				 path, h.backing_format);
	if (strncmp(h.backing_name, "json:", 5) == 0 || strstr(h.backing_name, "://"))
		return error_new("disk '%s' has the backing file '%s'; only files can be used", path,
				 h.backing_name);
	if (how->count == BLOCK_CHAIN_MAX)
		return error_new("disk '%s' has more than %d backing files", how->name,
				 BLOCK_CHAIN_MAX - 1);
	*more = true;
	return users ? follow_user(p, users) : follow(p, h.backing_name);
}

static bool is_in_chain(const struct block_open *how, int fd)
{
	struct stat a, b;

	if (fstat(fd, &a) < 0)
		return false;
	for (unsigned i = 0; i < how->count; i++)
		if (fstat(how->chain[i].fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
			return true;
	return false;
}

/* A cycle back to the disk itself would meet its lock: look before locking. */
static struct error *check_cycle(const struct place *p, const struct block_open *how)
{
	int fd = open_at(p, O_PATH | O_CLOEXEC);
	bool cycle = fd >= 0 && is_in_chain(how, fd);

	if (fd >= 0)
		close(fd);
	return cycle ? error_new("disk '%s' is its own backing file, by way of '%s'", how->name, p->path) : NULL;
}

struct error *block_resolve_chain(const char *path, const char *backing, enum block_format format,
				  bool readonly, struct block_open *out)
{
	struct place p = { .folder = -1, .root = strdup(""), .path = strdup(path) };
	struct error *err = p.root && p.path ? NULL : error_new("out of memory opening disk '%s'", path);
	bool more = true;

	*out = (struct block_open){ .readonly = readonly, .name = path };
	while (!err && more) {
		int fd = -1;

		if (out->count > 0)
			err = check_cycle(&p, out);
		if (!err)
			err = open_one(&p, readonly || out->count > 0, &fd);
		if (err)
			break;
		out->chain[out->count].fd = fd;
		out->chain[out->count++].format = format;
		if (p.folder < 0)
			err = enter(&p);
		if (!err)
			err = backing_of(&p, out, out->count == 1 ? backing : NULL, &format, &more);
		if (!err && !more && backing && out->count == 1)
			err = error_new("disk '%s' has no backing file; it was given '%s'", path, backing);
	}
	if (err) {
		if (out->count > 0)
			err = error_wrap(err, "cannot open disk '%s'", path);
		block_open_close(out);
	}
	if (p.folder >= 0)
		close(p.folder);
	free(p.root);
	free(p.path);
	return err;
}

void block_open_close(struct block_open *how)
{
	for (unsigned i = 0; i < how->count; i++)
		close(how->chain[i].fd);
	how->count = 0;
}
