// SPDX-License-Identifier: Apache-2.0
/*
 * The folder and what is beneath it; nothing here leaves it.
 *
 * Theory of operation. Everything is reached from the folder's descriptor, one component at a time: a name without
 * slash that is not "." or "..", looked up by openat2() which follows no symbolic link and does not leave
 * the file system. What is found is held as an O_PATH descriptor, which goes on to name the same thing
 * whoever renames what; so there is nothing to race with. Links are shown to the client, who follows
 * them in its own tree.
 *
 * What the host moves out of the folder would be named on by its descriptor, too. So each request first asks where that
 * is (tree_is_beneath); what was opened before stays open, as with any program.
 *
 * Only regular files and folders are ever opened: what a descriptor names does not change its kind, so it is looked at first
 * and then opened again through /proc/self/fd. Devices, FIFOs and sockets can be seen, renamed and removed, but
 * neither opened nor made. Set-user-id bits are not the client's to give: files belong to a user of the host.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share/private.h"

#define RESOLVE (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)
#define MODE_BITS 0777u

struct fd_name {
	char text[16];
};

static struct fd_name fd_name(int fd)
{
	struct fd_name n;

	snprintf(n.text, sizeof(n.text), "%d", fd);
	return n;
}

static int result(int rc)
{
	return rc < 0 ? -errno : rc;
}

bool tree_is_name(const char *name)
{
	return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

static int open_at(int dir_fd, const char *name, int flags, mode_t mode)
{
	const struct open_how how = { .flags = (uint64_t)(flags | O_NOFOLLOW | O_CLOEXEC),
				      .mode = mode,
				      .resolve = RESOLVE };

	return result((int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how)));
}

int tree_walk(int dir_fd, const char *name)
{
	return open_at(dir_fd, name, O_PATH, 0);
}

/* The kernel's path of it; -1: none, or longer than it tells. */
static ssize_t path_of(const struct share *s, int fd, char path[PATH_MAX])
{
	return readlinkat(s->fds_fd, fd_name(fd).text, path, PATH_MAX);
}

void tree_name(const struct share *s, int fd, char path[PATH_MAX])
{
	ssize_t len = path_of(s, fd, path);

	path[len < 0 ? 0 : MIN(len, PATH_MAX - 1)] = 0;
}

/* What has lost its name is where it was last. */
int tree_is_beneath(const struct share *s, int path_fd)
{
	char root[PATH_MAX], at[PATH_MAX];
	ssize_t len = path_of(s, path_fd, at), root_len;
	bool too_long = errno == ENAMETOOLONG;

	root_len = path_of(s, s->root.path_fd, root);
	if (len < 0 && too_long)
		return -ENAMETOOLONG;
	if (root_len == 1) /* all of the host's files */
		root_len = 0;
	return len > root_len && root_len >= 0 && !memcmp(at, root, (size_t)root_len) && at[root_len] == '/';
}

int tree_path(const struct share *s, int fd)
{
	return result(openat(s->fds_fd, fd_name(fd).text, O_PATH | O_CLOEXEC));
}

int tree_open(const struct share *s, int path_fd, int flags)
{
	struct stat st;

	if (fstat(path_fd, &st) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode))
		return -ELOOP;
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return -EACCES;
	return result(openat(s->fds_fd, fd_name(path_fd).text, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
}

int tree_create(const struct share *s, int dir_fd, const char *name, int flags, mode_t mode)
{
	int fd = open_at(dir_fd, name, flags | O_CREAT | O_EXCL, mode & MODE_BITS), path_fd;

	if (fd != -EEXIST || (flags & O_EXCL))
		return fd;
	path_fd = tree_walk(dir_fd, name);
	if (path_fd < 0)
		return path_fd;
	fd = tree_open(s, path_fd, flags);
	close(path_fd);
	return fd;
}

int tree_chmod(const struct share *s, int path_fd, mode_t mode)
{
	struct stat st;

	if (fstat(path_fd, &st) < 0)
		return errno;
	if (S_ISLNK(st.st_mode))
		return EOPNOTSUPP;
	return fchmodat(s->fds_fd, fd_name(path_fd).text, mode & MODE_BITS, 0) < 0 ? errno : 0;
}

/* Files belong to who shares them; a client that wants it otherwise is told so. */
int tree_chown(int path_fd, uid_t uid, gid_t gid)
{
	struct stat st;

	if (fstat(path_fd, &st) < 0)
		return errno;
	return (uid == (uid_t)-1 || uid == st.st_uid) && (gid == (gid_t)-1 || gid == st.st_gid) ? 0 : EPERM;
}

int tree_truncate(const struct share *s, int path_fd, uint64_t size)
{
	int fd, rc;

	if (size > INT64_MAX)
		return EFBIG;
	fd = tree_open(s, path_fd, O_WRONLY);
	if (fd < 0)
		return -fd;
	rc = ftruncate(fd, (off_t)size) < 0 ? errno : 0;
	close(fd);
	return rc;
}

int tree_set_times(const struct share *s, int path_fd, const struct timespec times[2])
{
	return utimensat(s->fds_fd, fd_name(path_fd).text, times, 0) < 0 ? errno : 0;
}

int tree_link(const struct share *s, int path_fd, int dir_fd, const char *name)
{
	struct stat st;

	if (fstat(path_fd, &st) < 0)
		return errno;
	if (!S_ISREG(st.st_mode))
		return EPERM;
	return linkat(s->fds_fd, fd_name(path_fd).text, dir_fd, name, AT_SYMLINK_FOLLOW) < 0 ? errno : 0;
}
