// SPDX-License-Identifier: Apache-2.0
/*
 * Talking with the agent in a guest; see agent.h.
 *
 * Theory of operation. Requests and answers are JSON objects, one a line. Before the first one we send a byte 0xff, which
 * makes the agent's parser forget what somebody else left half-said, and guest-sync-delimited with a random number: its
 * answer has a byte 0xff before it. What comes before that is not for us.
 */
#include "cli/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/client.h"

#define CHUNK 65536u
#define SILENCE_NS (3 * NS_PER_SEC) /* after a command that ends the guest */

static struct error *no_answer(struct agent *a)
{
	a->silent = true;
	return error_new("the guest's agent does not answer: it hangs, or the guest is paused or very busy; try again, or look in the guest (systemctl status qemu-guest-agent)");
}

static struct error *write_all(struct agent *a, const char *data, size_t len, uint64_t deadline)
{
	int rc = client_send_all(a->fd, data, len, deadline);

	if (!rc)
		return NULL;
	return rc == ETIME ? no_answer(a) : error_errno(rc, "the VM has ended the connection to the guest's agent");
}

/* Some bytes more. Error code EPIPE: the end. */
static struct error *read_more(struct agent *a, uint64_t deadline)
{
	struct pollfd p = { .fd = a->fd, .events = POLLIN };
	uint64_t now = loop_now_ns();
	ssize_t n;

	if (a->received >= AGENT_ANSWER_MAX)
		return error_new("the guest's agent says more than can be an answer");
	if (a->size - a->used < CHUNK) {
		char *buf = realloc(a->buf, a->size * 2 + CHUNK);

		if (!buf)
			return error_errno(ENOMEM, "the guest's agent");
		a->buf = buf;
		a->size = a->size * 2 + CHUNK;
	}
	if (now >= deadline)
		return no_answer(a);
	if (poll(&p, 1, (int)((deadline - now) / NS_PER_MS) + 1) <= 0)
		return NULL;
	n = recv(a->fd, a->buf + a->used, CHUNK, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return NULL;
	if (n <= 0)
		return error_errno(EPIPE, "the VM has ended");
	a->used += (size_t)n;
	a->received += (size_t)n;
	return NULL;
}

static void drop(struct agent *a, size_t len)
{
	memmove(a->buf, a->buf + len, a->used - len);
	a->used -= len;
}

/* More commas and brackets than an answer has, not looking at whether they are within strings. */
static bool too_many_values(const char *line, size_t len)
{
	size_t count = 0;

	for (size_t i = 0; i < len; i++)
		count += line[i] == ',' || line[i] == '[' || line[i] == '{';
	return count > AGENT_VALUES_MAX;
}

/* The next line, from its last byte 0xff on, as JSON in *@out, or NULL there when it is none. */
static struct error *read_line(struct agent *a, uint64_t deadline, json_t **out)
{
	size_t searched = 0;
	char *end, *start;

	for (;;) {
		struct error *err;

		end = a->used ? memchr(a->buf + searched, '\n', a->used - searched) : NULL;
		if (end)
			break;
		searched = a->used;
		err = read_more(a, deadline);
		if (err)
			return err;
	}
	start = memrchr(a->buf, '\xff', (size_t)(end - a->buf));
	start = start ? start + 1 : a->buf;
	if (too_many_values(start, (size_t)(end - start)))
		return error_new("the guest's agent says more than can be an answer");
	*out = json_loadb(start, (size_t)(end - start), 0, NULL);
	drop(a, (size_t)(end + 1 - a->buf));
	return NULL;
}

static struct error *synchronize(struct agent *a)
{
	uint64_t deadline = loop_now_ns() + AGENT_TIMEOUT_MS * NS_PER_MS;
	struct error *err;
	uint32_t number;
	char line[96];
	int n;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return error_errno(errno, "cannot get a random number");
	n = snprintf(line, sizeof(line), "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%u}}\n", number);
	err = write_all(a, line, (size_t)n, deadline);
	while (!err) {
		char *mark = a->used ? memchr(a->buf, '\xff', a->used) : NULL;
		json_t *answer = NULL, *id;

		if (!mark) {
			a->used = 0; /* nothing of it is for us */
			err = read_more(a, deadline);
			continue;
		}
		drop(a, (size_t)(mark + 1 - a->buf));
		err = read_line(a, deadline, &answer);
		id = json_object_get(answer, "return");
		if (!err && json_is_integer(id) && json_integer_value(id) == (json_int_t)number) {
			json_decref(answer);
			return NULL;
		}
		json_decref(answer);
	}
	return err;
}

struct error *agent_attach(int fd, struct agent *out)
{
	struct error *err;

	*out = (struct agent){ .fd = fd };
	err = synchronize(out);
	if (err)
		agent_close(out);
	return err;
}

/* Why there is no use in asking: the VM's own word on whether anybody listens in the guest. */
static struct error *check_port(const char *vm)
{
	struct client c;
	json_t *status = NULL, *port;
	struct error *err = client_connect(vm, &c);
	bool found = false, open = false;
	size_t i;

	if (err)
		return err;
	err = client_request(&c, "status", NULL, CLIENT_TIMEOUT_MS, &status);
	client_close(&c);
	if (err)
		return err;
	json_array_foreach(json_object_get(status, "ports"), i, port) {
		const char *name = json_string_value(json_object_get(port, "name"));

		if (!name || strcmp(name, AGENT_PORT))
			continue;
		found = true;
		open = json_is_true(json_object_get(port, "guest_open"));
	}
	json_decref(status);
	if (!found)
		return error_new("the VM '%s' has no port for an agent", vm);
	if (!open)
		return error_new("no agent runs in the guest: the package qemu-guest-agent has to be installed there, and started (systemctl start qemu-guest-agent); a guest that has just been started may need a while");
	return NULL;
}

struct error *agent_connect(const char *vm, struct agent *out)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct error *err = check_port(vm);
	int fd;

	if (!err)
		err = client_find(vm, AGENT_SUFFIX, path, sizeof(path));
	if (err)
		return err;
	fd = client_dial(path);
	if (fd < 0 && errno == EAGAIN)
		return error_new("the guest's agent does not answer: too many others wait for it");
	if (fd < 0)
		return error_errno(errno, "cannot reach the guest's agent at '%s'", path);
	return agent_attach(fd, out);
}

void agent_close(struct agent *a)
{
	if (a->fd >= 0)
		close(a->fd);
	free(a->buf);
	*a = (struct agent){ .fd = -1 };
}

/* "return" of an answer, or the refusal in it. */
static struct error *open_answer(const char *command, json_t *answer, json_t **result)
{
	json_t *value = json_object_get(answer, "return"), *refusal = json_object_get(answer, "error");

	if (refusal) {
		char *why = cli_printable(json_object_get(refusal, "desc"), CLI_REFUSAL_BYTES);
		struct error *err = error_new("the guest's agent refuses %s: %s", command, *why ? why : "it does not say why");

		free(why);
		return err;
	}
	if (!value)
		return error_new("the guest's agent answers %s with what makes no sense", command);
	if (result)
		*result = json_incref(value);
	return NULL;
}

struct error *agent_call(struct agent *a, const char *command, json_t *args, unsigned timeout_ms, bool may_end, json_t **result)
{
	uint64_t deadline = loop_now_ns() + (may_end ? SILENCE_NS : timeout_ms * NS_PER_MS);
	json_t *request = args ? json_pack("{s:s, s:o}", "execute", command, "arguments", args) :
				 json_pack("{s:s}", "execute", command);
	char *text = json_dumps(request, JSON_COMPACT);
	json_t *answer = NULL;
	struct error *err;

	json_decref(request);
	if (!text)
		return error_new("%s: the words are not UTF-8 text", command);
	a->received = 0;
	a->silent = false;
	err = write_all(a, text, strlen(text), deadline);
	if (!err)
		err = write_all(a, "\n", 1, deadline);
	free(text);
	if (!err)
		err = read_line(a, deadline, &answer);
	if (err && may_end && (a->silent || error_code(err) == EPIPE)) {
		error_free(err);
		return NULL;
	}
	if (!err)
		err = open_answer(command, answer, result);
	json_decref(answer);
	return err;
}

uint8_t *agent_decode(const char *text, size_t len, size_t *out_len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint8_t *out = malloc(len / 4 * 3 + 3);
	uint32_t group = 0;
	size_t used = 0, n = 0;

	for (; out && n < len && text[n] != '='; n++) {
		const char *digit = text[n] ? strchr(digits, text[n]) : NULL;

		if (!digit)
			break;
		group = group << 6 | (uint32_t)(digit - digits);
		if (n % 4 == 1)
			out[used++] = (uint8_t)(group >> 4);
		else if (n % 4 == 2)
			out[used++] = (uint8_t)(group >> 2);
		else if (n % 4 == 3)
			out[used++] = (uint8_t)group;
	}
	/* What is left has to be the padding, and the whole a number of groups. */
	if (out && (len % 4 || len - n > 2 || (n < len && (text[n] != '=' || text[len - 1] != '=')))) {
		free(out);
		out = NULL;
	}
	*out_len = used;
	return out;
}
