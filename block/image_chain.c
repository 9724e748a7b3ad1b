// SPDX-License-Identifier: Apache-2.0
/*
 * From a path to locked descriptors: for the programs that run as the user, outside of the sandbox.
 *
 * A backing file's name comes from an image, which a guest may have written. It is therefore followed
 * only when the header also states the format (nothing is guessed), and whoever can put files before
 * the user's programs can name any file that the user can read: images from strangers are to be opened
 * by people who look at `maru image info` first, or without a backing file.
 *
 * Locks are open-file-description locks on the whole file, which meet those of other programs that lock
 * images (qemu locks single bytes of the same kind).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/image.h"
#include "block/qcow2.h"

struct error *block_lock(int fd, bool readonly, const char *name)
{
	struct flock lock = { .l_type = readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return NULL;
	if (errno == EAGAIN || errno == EACCES)
		return error_new("disk '%s' is in use by another virtual machine or program%s", name,
				 readonly ? ", which writes to it" :
					    "; stop that one first, or share the disk with readonly=on "
					    "in all of them");
	if (errno == EINVAL || errno == EOPNOTSUPP || errno == ENOLCK || errno == ENOSYS)
		return error_errno(errno, "disk '%s' cannot be locked: its file system has no locks",
				   name);
	return error_errno(errno, "disk '%s' cannot be locked", name);
}

static struct error *open_one(const char *path, bool readonly, int *out)
{
	struct error *err;
	uint64_t size;
	/* O_NONBLOCK: a FIFO must not hang us; it means nothing for what is accepted. */
	int fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0) {
		int e = errno;

		if (e == ENOENT)
			return error_errno(e, "no such disk: '%s'", path);
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

/* @name as seen from the directory of @image; NULL: no memory. */
static char *beside(const char *image, const char *name)
{
	const char *slash = strrchr(image, '/');
	size_t dir = slash ? (size_t)(slash - image) + 1 : 0;
	char *out;

	if (name[0] == '/')
		return strdup(name);
	out = malloc(dir + strlen(name) + 1);
	if (out) {
		memcpy(out, image, dir);
		strcpy(out + dir, name);
	}
	return out;
}

/* What lies under @path, the last image of @how so far; *next is NULL if it is a bottom. */
static struct error *backing_of(const char *path, const struct block_open *how, char **next,
				enum block_format *format)
{
	struct qcow2_header h;
	struct error *err;

	*next = NULL;
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
	*next = beside(path, h.backing_name);
	return *next ? NULL : error_new("out of memory opening disk '%s'", path);
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

struct error *block_resolve_chain(const char *path, enum block_format format, bool readonly,
				  struct block_open *out)
{
	char *here = strdup(path), *next = NULL;
	struct error *err = here ? NULL : error_new("out of memory opening disk '%s'", path);

	*out = (struct block_open){ .readonly = readonly, .name = path };
	while (!err) {
		int fd = -1;

		/* A cycle back to the disk itself would meet its lock: look before locking. */
		if (out->count > 0) {
			fd = open(here, O_PATH | O_CLOEXEC);
			bool cycle = fd >= 0 && is_in_chain(out, fd);

			if (fd >= 0)
				close(fd);
			if (cycle) {
				err = error_new("disk '%s' is its own backing file, by way of '%s'",
						path, here);
				break;
			}
		}
		err = open_one(here, readonly || out->count > 0, &fd);
		if (err)
			break;
		out->chain[out->count].fd = fd;
		out->chain[out->count++].format = format;
		err = backing_of(here, out, &next, &format);
		if (err || !next)
			break;
		free(here);
		here = next;
	}
	if (err) {
		if (out->count > 0 && strcmp(here ? here : path, path) != 0)
			err = error_wrap(err, "cannot open disk '%s'", path);
		block_open_close(out);
	}
	free(here);
	return err;
}

void block_open_close(struct block_open *how)
{
	for (unsigned i = 0; i < how->count; i++)
		close(how->chain[i].fd);
	how->count = 0;
}
