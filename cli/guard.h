/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small process that outlives us if we are killed: it then restores the terminal and removes the sockets
 * that we had made in the file system.
 */
#ifndef CLI_GUARD_H
#define CLI_GUARD_H

#include <sys/types.h>

#include "base/error.h"
#include "cli/console.h"

#define GUARD_PATHS_MAX 16u

struct guard {
	unsigned path_count;
	const char *paths[GUARD_PATHS_MAX];
	int pipe_fd; /* its other end is the guard's; -1: no guard */
	pid_t pid;
};

/* A Unix socket that listens at @path (@what is the option, for messages); the guard removes it. Error code EADDRINUSE: somebody does. */
struct error *guard_listen(struct guard *g, const char *what, const char *path, int *fd) MUST_CHECK;

/* The same for a symbolic link at @path to such a socket, in a folder where links are ours. */
struct error *guard_link(struct guard *g, const char *target, const char *path) MUST_CHECK;
/* Removes such a link if nobody listens where it leads to. Error code EADDRINUSE: somebody does. */
struct error *guard_clear_link(const char *path) MUST_CHECK;

/* Starts the process if there is something to look after. Before the terminal is made raw. */
void guard_start(struct guard *g);

/* Removes the sockets and ends the guard. */
void guard_finish(struct guard *g);

#endif
