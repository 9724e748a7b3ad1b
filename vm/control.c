// SPDX-License-Identifier: Apache-2.0
/*
 * The control socket; see control.h.
 *
 * Theory of operation. A connection gathers bytes until there is a line, answers it at once, and puts the
 * reply and every event into its output buffer, which is written as the peer reads. What a peer can do is
 * bounded: the length of a line, the number of connections, the output kept for one that does not read,
 * and lines answered in one go: who sends many at once is busy, and not read from, until they are answered, a few in each
 * round of the loop, so that the VM is not held up. Who finds no place is told so, as far as that takes no waiting, and disconnected.
 */
#include "vm/control.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define LINES_PER_ROUND 16u

struct client {
	struct control *control;
	struct loop_fd watch; /* watch.fd is -1 while the slot is free */
	bool owner;
	char *in;	      /* CONTROL_LINE_MAX bytes */
	size_t in_used;
	char *out;
	size_t out_used, out_size;
	bool busy;  /* there are whole lines in @in */
	bool ended; /* it sends nothing more, and still has replies to read */
	struct loop_timer next_round;
};

struct control {
	struct loop *loop;
	struct control_handler handler;
	char *vm_name;
	struct loop_fd listen;
	struct client clients[CONTROL_CLIENTS_MAX];
};

/* ---- The protocol ---------------------------------------------------------------------------- */

static json_t *failure(const char *sentence)
{
	return json_pack("{s:b, s:s}", "ok", 0, "error", sentence);
}

static json_t *dispatch(const struct control_handler *h, json_t *line)
{
	const char *name = json_string_value(json_object_get(line, "request"));
	json_t *result = NULL, *reply;
	struct error *err;

	if (!json_is_object(line))
		return failure("a request is an object: {\"request\": \"status\"}");
	if (!name)
		return failure("'request' has to be a string, the name of the request");
	err = h->request(h->opaque, name, line, &result);
	if (err) {
		reply = json_pack("{s:b, s:s}", "ok", 0, "error", error_message(err));
		/* The sentence may quote bytes of the peer's that are no text. */
		if (!reply)
			reply = failure("the request failed");
		error_free(err);
		return reply;
	}
	reply = json_pack("{s:b}", "ok", 1);
	json_object_set_new(reply, "result", result ? result : json_object());
	return reply;
}

char *control_answer(const struct control_handler *h, const char *line, size_t length)
{
	json_error_t where;
	json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where), *reply;
	char *text;

	if (request) {
		reply = dispatch(h, request);
		if (json_object_get(request, "id"))
			json_object_set(reply, "id", json_object_get(request, "id"));
	} else {
		char why[JSON_ERROR_TEXT_LENGTH + 32];

		snprintf(why, sizeof(why), "not JSON: %s", where.text);
		reply = failure(why);
		if (!reply)
			reply = failure("not JSON");
	}
	text = json_dumps(reply, JSON_COMPACT);
	json_decref(request);
	json_decref(reply);
	return text;
}

/* ---- Connections ------------------------------------------------------------------------------ */

static void answer_more(void *opaque);

static void client_init(struct client *cl, struct control *c)
{
	*cl = (struct client){ .control = c, .watch.fd = -1 };
	loop_timer_init(c->loop, &cl->next_round, answer_more, cl);
}

static void client_close(struct client *cl, bool by_peer)
{
	struct control *c = cl->control;
	bool owner = cl->owner;

	loop_timer_cancel(&cl->next_round);
	loop_fd_remove(&cl->watch);
	close(cl->watch.fd);
	free(cl->in);
	free(cl->out);
	client_init(cl, c);
	if (owner && by_peer && c->handler.owner_gone)
		c->handler.owner_gone(c->handler.opaque);
}

static void set_events(struct client *cl)
{
	loop_fd_set_events(&cl->watch, (cl->busy || cl->ended ? 0 : (uint32_t)EPOLLIN) | (cl->out_used ? (uint32_t)EPOLLOUT : 0));
}

/* Writes what the socket takes. False: the connection is closed. */
static bool client_flush(struct client *cl)
{
	size_t done = 0;

	while (done < cl->out_used) {
		ssize_t n = send(cl->watch.fd, cl->out + done, cl->out_used - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			client_close(cl, true);
			return false;
		}
		if (n < 0)
			break;
		done += n;
	}
	memmove(cl->out, cl->out + done, cl->out_used - done);
	cl->out_used -= done;
	if (cl->ended && !cl->out_used) {
		client_close(cl, true);
		return false;
	}
	set_events(cl);
	return true;
}

/* Queues @text and a newline. False: the connection is closed. */
static bool client_send(struct client *cl, const char *text)
{
	size_t n = text ? strlen(text) : 0;

	if (!text || n + 1 > CONTROL_BACKLOG_MAX - cl->out_used) {
		log_guest("control: a client that does not read its replies is disconnected");
		client_close(cl, true);
		return false;
	}
	if (cl->out_used + n + 1 > cl->out_size) {
		size_t size = align_up(cl->out_used + n + 1, 4096);
		char *out = realloc(cl->out, size);

		if (!out) {
			client_close(cl, true);
			return false;
		}
		cl->out = out;
		cl->out_size = size;
	}
	memcpy(cl->out + cl->out_used, text, n);
	cl->out[cl->out_used + n] = '\n';
	cl->out_used += n + 1;
	return client_flush(cl);
}

/* Answers complete lines that have come in. False: the connection is closed. */
static bool client_lines(struct client *cl)
{
	unsigned answered = 0;
	size_t start = 0;
	char *end;

	while (answered < LINES_PER_ROUND && (end = memchr(cl->in + start, '\n', cl->in_used - start))) {
		size_t length = end - (cl->in + start);
		int fd = cl->watch.fd;
		char *reply;

		if (length && cl->in[start + length - 1] == '\r')
			length--;
		if (length) {
			reply = control_answer(&cl->control->handler, cl->in + start, length);
			/* An event sent while answering may have closed this very connection. */
			if (cl->watch.fd != fd || !client_send(cl, reply)) {
				free(reply);
				return false;
			}
			free(reply);
			answered++;
		}
		start = end + 1 - cl->in;
	}
	memmove(cl->in, cl->in + start, cl->in_used - start);
	cl->in_used -= start;
	cl->busy = answered == LINES_PER_ROUND && memchr(cl->in, '\n', cl->in_used);
	if (cl->busy)
		loop_timer_arm(&cl->next_round, loop_now_ns());
	set_events(cl);
	return true;
}

static void take_lines(struct client *cl)
{
	if (!client_lines(cl) || cl->busy || cl->in_used < CONTROL_LINE_MAX)
		return;
	log_guest("control: a request longer than %u bytes is refused, its client disconnected", CONTROL_LINE_MAX);
	client_close(cl, true);
}

static void answer_more(void *opaque)
{
	take_lines(opaque);
}

static void client_ready(void *opaque, uint32_t events)
{
	struct client *cl = opaque;
	ssize_t n;

	if ((events & EPOLLOUT) && !client_flush(cl))
		return;
	if (cl->busy || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (cl->ended) {
		if (events & (EPOLLHUP | EPOLLERR))
			client_close(cl, true);
		return;
	}
	n = recv(cl->watch.fd, cl->in + cl->in_used, CONTROL_LINE_MAX - cl->in_used, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == 0 && cl->out_used && !(events & EPOLLHUP)) {
		cl->ended = true;
		set_events(cl);
		return;
	}
	if (n <= 0) {
		client_close(cl, true);
		return;
	}
	cl->in_used += n;
	take_lines(cl);
}

static void greet(struct client *cl)
{
	json_t *hello = json_pack("{s:s, s:i, s:s, s:i}", "greeting", "maru-vm", "protocol", CONTROL_PROTOCOL,
				  "name", cl->control->vm_name, "pid", (int)getpid());
	char *text = json_dumps(hello, JSON_COMPACT);

	client_send(cl, text);
	free(text);
	json_decref(hello);
}

struct error *control_attach(struct control *c, int fd, bool owner)
{
	struct client *cl = NULL;
	struct error *err;

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX && !cl; i++)
		if (c->clients[i].watch.fd < 0)
			cl = &c->clients[i];
	if (!cl)
		return error_new("%u programs are connected to the VM's control socket, and it serves no more: end one of them, or try again later",
				 CONTROL_CLIENTS_MAX);
	cl->in = malloc(CONTROL_LINE_MAX);
	if (!cl->in)
		return error_errno(ENOMEM, "the VM has no memory for another connection to its control socket");
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	err = loop_fd_add(c->loop, &cl->watch, fd, EPOLLIN, client_ready, cl);
	if (err) {
		free(cl->in);
		client_init(cl, c);
		return err;
	}
	cl->owner = owner;
	greet(cl);
	return NULL;
}

/* In one go, for @fd is closed then: what of @why its socket does not take is lost. */
static void refuse(int fd, const struct error *why)
{
	json_t *reply = failure(error_message(why));
	char *text = json_dumps(reply, JSON_COMPACT), said[4096];
	struct iovec iov[2] = { { text, text ? strlen(text) : 0 }, { "\n", 1 } };
	const struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	/* A request that is closed over unread would be a broken connection for the peer, not an ended one. */
	if (text && sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		recv(fd, said, sizeof(said), MSG_DONTWAIT);
	free(text);
	json_decref(reply);
}

static void listen_ready(void *opaque, uint32_t events)
{
	struct control *c = opaque;
	int fd = accept4(c->listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct error *err;

	if (fd < 0)
		return;
	err = control_attach(c, fd, false);
	if (err) {
		log_guest("control: %s", error_message(err));
		refuse(fd, err);
		error_free(err);
		close(fd);
	}
}

struct error *control_create(struct loop *loop, const char *vm_name, const struct control_handler *handler,
			     struct control **out)
{
	struct control *c = calloc(1, sizeof(*c));

	if (!c)
		return error_errno(ENOMEM, "control");
	c->loop = loop;
	c->handler = *handler;
	c->listen.fd = -1;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		client_init(&c->clients[i], c);
	c->vm_name = strdup(vm_name);
	if (!c->vm_name) {
		free(c);
		return error_errno(ENOMEM, "control");
	}
	*out = c;
	return NULL;
}

struct error *control_listen(struct control *c, int fd)
{
	struct error *err;

	assert(c->listen.fd < 0);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	err = loop_fd_add(c->loop, &c->listen, fd, EPOLLIN, listen_ready, c);
	if (err)
		c->listen.fd = -1;
	return err;
}

void control_event(struct control *c, const char *event, json_t *members)
{
	json_t *line = json_pack("{s:s}", "event", event);
	char *text;

	if (members)
		json_object_update(line, members);
	json_decref(members);
	text = json_dumps(line, JSON_COMPACT);
	for (unsigned i = 0; text && i < CONTROL_CLIENTS_MAX; i++)
		if (c->clients[i].watch.fd >= 0)
			client_send(&c->clients[i], text);
	free(text);
	json_decref(line);
}

void control_destroy(struct control *c)
{
	uint64_t deadline = loop_now_ns() + NS_PER_SEC;

	if (!c)
		return;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct client *cl = &c->clients[i];

		while (cl->watch.fd >= 0 && client_flush(cl) && cl->out_used && loop_now_ns() < deadline) {
			struct pollfd p = { .fd = cl->watch.fd, .events = POLLOUT };

			poll(&p, 1, 50);
		}
		if (cl->watch.fd >= 0)
			client_close(cl, false);
	}
	if (c->listen.fd >= 0) {
		loop_fd_remove(&c->listen);
		close(c->listen.fd);
	}
	free(c->vm_name);
	free(c);
}
