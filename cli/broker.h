/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small process that connects a VM to Unix sockets of this host: the VM's own process may not connect to anything.
 */
#ifndef CLI_BROKER_H
#define CLI_BROKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/*
 * Starts it. On packet socket @fd, which stays the caller's to close, it is asked {le32 id, le32 port} and answers {le32 id}
 * with a socket connected to PATH_<port>, or without one. It ends when the other end of @fd is closed.
 */
struct error *broker_start(int fd, const char *path, pid_t *pid) MUST_CHECK;

#endif
