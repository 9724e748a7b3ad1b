/* SPDX-License-Identifier: Apache-2.0 */
/* Starting our own programs with a few descriptors, and nothing else of ours. */
#ifndef CLI_SPAWN_H
#define CLI_SPAWN_H

#include <sys/types.h>

#include "base/error.h"

#define SPAWN_FDS_MAX 320u

struct spawn_fds {
	unsigned count;
	int fd[SPAWN_FDS_MAX]; /* keep their numbers in the program; close-on-exec everywhere else */
};

void spawn_add_fd(struct spawn_fds *fds, int fd);
/* Closes our copies. */
void spawn_close_fds(struct spawn_fds *fds);

/*
 * Starts the program beside us in a process group of its own, so that keys on the terminal reach it through us
 * only, with no signal blocked, and with nothing but standard error of ours: it has no use for the terminal.
 * @argv[0] is its name.
 */
struct error *spawn(char *const argv[], const struct spawn_fds *fds, pid_t *pid) MUST_CHECK;

/* Waits up to @ms for the end of @pid, then kills it. */
void spawn_reap(pid_t pid, unsigned ms);

#endif
