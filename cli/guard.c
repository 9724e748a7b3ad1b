// SPDX-License-Identifier: Apache-2.0
/*
 * The guard; see guard.h.
 *
 * Theory of operation. It waits on a pipe. A byte means that we have cleaned up ourselves; the end of the pipe
 * without one means that we were killed. It has a session of its own, so that what ends us does not end it.
 */
#include "cli/guard.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "cli/client.h"

#define BACKLOG 64 /* programs that connect at once; one more that does not wait is turned away */

/* Does anybody accept connections at @path, or has more of them than can wait? */
static bool is_alive(const char *path)
{
	int fd = client_dial(path);

	if (fd < 0)
		return errno == EAGAIN;
	close(fd);
	return true;
}

static void remember(struct guard *g, const char *path)
{
	assert(g->path_count < GUARD_PATHS_MAX);
	g->paths[g->path_count++] = path;
}

struct error *guard_listen(struct guard *g, const char *what, const char *path, int *out)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stat st;
	mode_t mask;
	int fd, rc, saved;

	if (strlen(path) >= sizeof(addr.sun_path))
		return error_new("%s: the path '%s' is too long for a socket (%zu bytes are possible)", what, path,
				 sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return error_new("%s: '%s' exists and is not a socket", what, path);
		if (is_alive(path))
			return error_errno(EADDRINUSE, "%s: '%s' is in use by another program", what, path);
		unlink(path); /* left behind by a crash */
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_errno(errno, "%s: cannot make a socket", what);
	mask = umask(0177); /* whoever connects commands the VM */
	rc = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	saved = errno;
	umask(mask);
	if (rc < 0 || listen(fd, BACKLOG) < 0) {
		close(fd);
		return error_errno(rc < 0 ? saved : errno, "%s: cannot listen at '%s'", what, path);
	}
	remember(g, path);
	*out = fd;
	return NULL;
}

struct error *guard_clear_link(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode))
		return NULL;
	if (is_alive(path))
		return error_errno(EADDRINUSE, "'%s' leads to a socket that is in use", path);
	unlink(path);
	return NULL;
}

struct error *guard_link(struct guard *g, const char *target, const char *path)
{
	struct error *err = guard_clear_link(path);
	struct stat st;

	if (err)
		return err;
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && !is_alive(path))
		unlink(path);
	if (symlink(target, path) < 0)
		return error_errno(errno == EEXIST ? EADDRINUSE : errno, "cannot make the link '%s' to '%s'", path, target);
	remember(g, path);
	return NULL;
}

void guard_start(struct guard *g)
{
	struct terminal t = { .raw = false };
	int fds[2];

	t.raw = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &t.before) == 0;
	g->pipe_fd = -1;
	if ((!g->path_count && !t.raw) || pipe2(fds, O_CLOEXEC) < 0)
		return;
	g->pid = fork();
	if (g->pid == 0) {
		char done;
		ssize_t n;

		setsid();
		for (int sig = 1; sig < 32; sig++)
			signal(sig, SIG_IGN);
		/* Nothing but the pipe and the terminal: the VM must see the end of its sockets. */
		descriptor_close_others(fds, 1);
		do {
			n = read(fds[0], &done, 1);
		} while (n < 0 && errno == EINTR);
		if (n == 0) {
			terminal_restore(&t);
			for (unsigned i = 0; i < g->path_count; i++)
				unlink(g->paths[i]);
		}
		_exit(0);
	}
	close(fds[0]);
	if (g->pid < 0)
		close(fds[1]);
	else
		g->pipe_fd = fds[1];
}

void guard_finish(struct guard *g)
{
	for (unsigned i = 0; i < g->path_count; i++)
		unlink(g->paths[i]);
	g->path_count = 0;
	if (g->pipe_fd < 0)
		return;
	while (write(g->pipe_fd, "d", 1) < 0 && errno == EINTR)
		;
	close(g->pipe_fd);
	waitpid(g->pid, NULL, 0);
	g->pipe_fd = -1;
}
