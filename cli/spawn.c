// SPDX-License-Identifier: Apache-2.0
/* Starting our own programs; see spawn.h. */
#include "cli/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

void spawn_add_fd(struct spawn_fds *fds, int fd)
{
	assert(fds->count < SPAWN_FDS_MAX);
	fds->fd[fds->count++] = fd;
}

void spawn_close_fds(struct spawn_fds *fds)
{
	for (unsigned i = 0; i < fds->count; i++)
		close(fds->fd[i]);
	fds->count = 0;
}

struct error *spawn(char *const argv[], const struct spawn_fds *fds, pid_t *pid)
{
	char path[4096];
	struct error *err = cli_program(argv[0], path, sizeof(path));
	sigset_t none;
	int null;

	if (err)
		return err;
	*pid = fork();
	if (*pid < 0)
		return error_errno(errno, "cannot start %s", argv[0]);
	if (*pid > 0)
		return NULL;

	setpgid(0, 0);
	null = open("/dev/null", O_RDWR);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		close(null);
	}
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (unsigned i = 0; i < fds->count; i++)
		fcntl(fds->fd[i], F_SETFD, 0);
	execv(path, argv);
	dprintf(STDERR_FILENO, "maru: cannot start %s: %s\n", path, strerror(errno));
	_exit(CLI_EXIT_USAGE);
}

void spawn_reap(pid_t pid, unsigned ms)
{
	const struct timespec tick = { 0, 10000000 };

	for (unsigned waited = 0; waited < ms; waited += 10) {
		if (waitpid(pid, NULL, WNOHANG) != 0)
			return;
		nanosleep(&tick, NULL);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
