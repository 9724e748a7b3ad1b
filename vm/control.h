/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: JSON lines, requests in, replies and events out. maru-vm(1) is its reference.
 *
 * Everything runs in the loop's monitor.
 */
#ifndef VM_CONTROL_H
#define VM_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/loop.h"

#define CONTROL_PROTOCOL 1
#define CONTROL_LINE_MAX 65536u	       /* longer requests: the connection is closed */
#define CONTROL_CLIENTS_MAX 16u	       /* further ones are refused: a line that says so, and the end */
#define CONTROL_BACKLOG_MAX (1u << 20) /* who does not read its replies is disconnected */

struct control_handler {
	/*
	 * One request: @args is the whole line. Success: NULL and in *@result an object for the reply (or NULL
	 * for an empty one). An error's sentence goes to the peer.
	 */
	struct error *(*request)(void *opaque, const char *name, json_t *args, json_t **result);
	/* The connection given with owner = true was closed by its peer. */
	void (*owner_gone)(void *opaque);
	void *opaque;
};

struct control;

struct error *control_create(struct loop *loop, const char *vm_name, const struct control_handler *handler,
			     struct control **out) MUST_CHECK;
/* Takes @fd, a listening stream socket. At most once. */
struct error *control_listen(struct control *c, int fd) MUST_CHECK;
/* Takes @fd, a connected stream socket. */
struct error *control_attach(struct control *c, int fd, bool owner) MUST_CHECK;
/* To every connection; takes @members (an object, or NULL). */
void control_event(struct control *c, const char *event, json_t *members);
/* Writes out what can be written within a second, closes everything. NULL-safe. */
void control_destroy(struct control *c);

/* One request line to one reply line (without newline), which the caller frees; NULL without memory. */
char *control_answer(const struct control_handler *handler, const char *line, size_t length);

#endif
