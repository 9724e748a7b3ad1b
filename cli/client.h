/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a running VM, from the client's side: finding it by the VM's name, requests, replies.
 * maru-vm(1) is the reference of the protocol.
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define CLIENT_TIMEOUT_MS 10000u

/* The port that the guest's agent opens, and what its socket's name has behind that of the control socket. */
#define AGENT_PORT "org.qemu.guest_agent.0"
#define AGENT_SUFFIX ".agent"

/*
 * The folder with the control sockets of running VMs, each by its VM's name with CLIENT_SUFFIX behind it. It is the user's
 * alone, and made if @create; what could be put there by somebody else is refused. Error code ENOENT: there is none.
 */
#define CLIENT_SUFFIX ".control"
struct error *client_folder(bool create, char *folder, size_t size) MUST_CHECK;

/* Where `maru run` puts the control socket of the VM @name in it. */
struct error *client_socket_path(const char *name, bool create, char *path, size_t size) MUST_CHECK;

/* The path of the control socket of @vm, a name or such a path (that has a slash), and @suffix behind it. */
struct error *client_find(const char *vm, const char *suffix, char *path, size_t size) MUST_CHECK;

/* A connection to the socket at @path, or -1 (errno). Does not wait: EAGAIN if too many others already wait for whoever listens there. */
int client_dial(const char *path);

/* Sends all of it on socket @fd. 0, ETIME at the deadline, as loop_now_ns() counts, or else the errno value. */
int client_send_all(int fd, const char *text, size_t len, uint64_t deadline_ns);

struct client {
	int fd;
	char *buf;
	size_t used;
	unsigned last_id;
};

/* @vm as above. */
struct error *client_connect(const char *vm, struct client *out) MUST_CHECK;
/* On the connection @fd, taken. */
struct error *client_attach(int fd, struct client *out) MUST_CHECK;

/*
 * Sends the request @name with @args (taken; an object, or NULL) and waits for its reply. The VM's refusal is the
 * error, and error_code() then is 0. *@result is the caller's.
 */
struct error *client_request(struct client *c, const char *name, json_t *args, unsigned timeout_ms,
			     json_t **result) MUST_CHECK;

/* The same in two steps, for who asks several VMs at once; @deadline_ns as loop_now_ns() counts. One request at a time. */
struct error *client_ask(struct client *c, const char *name, json_t *args, uint64_t deadline_ns) MUST_CHECK;
struct error *client_reply(struct client *c, uint64_t deadline_ns, json_t **result) MUST_CHECK;

void client_close(struct client *c);

#endif
