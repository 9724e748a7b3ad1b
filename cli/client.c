// SPDX-License-Identifier: Apache-2.0
/*
 * The client's side of the control socket; see client.h.
 *
 * The VM is not trusted much: its process parses what a guest sends. A line is bounded, a reply must come in
 * time, and what is no reply to us is passed over. A refusal without an id is that of our connection.
 */
#include "cli/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "cli/cli.h"

#define LINE_MAX_BYTES (4 * MiB)
#define ID_BYTES 24u

struct error *client_folder(bool create, char *folder, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	struct stat st;
	int n;

	if (runtime && *runtime == '/')
		n = snprintf(folder, size, "%s/maru", runtime);
	else
		n = snprintf(folder, size, "/tmp/maru-%u", (unsigned)geteuid());
	if (n < 0 || (size_t)n >= size)
		return error_new("XDG_RUNTIME_DIR is too long");
	if (create && mkdir(folder, 0700) < 0 && errno != EEXIST)
		return error_errno(errno, "cannot make the folder '%s' for the control sockets of VMs", folder);
	if (lstat(folder, &st) < 0)
		return error_errno(errno, "the folder '%s' of the control sockets of VMs", folder);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return error_new("'%s' should be a folder of yours that nobody else can enter (chmod 700), for the control sockets of VMs; remove it, or set XDG_RUNTIME_DIR",
				 folder);
	return NULL;
}

static struct error *nobody(const char *name)
{
	return error_new("no VM named '%s' is running ('maru list' shows those that are)", name);
}

struct error *client_socket_path(const char *name, bool create, char *path, size_t size)
{
	char folder[3072];
	struct error *err = client_folder(create, folder, sizeof(folder));
	int n;

	if (err && error_code(err) == ENOENT && !create) {
		error_free(err);
		return nobody(name);
	}
	if (err)
		return err;
	n = snprintf(path, size, "%s/%s" CLIENT_SUFFIX, folder, name);
	if (n < 0 || (size_t)n >= size)
		return error_new("the name '%s' is too long", name);
	return NULL;
}

struct error *client_find(const char *vm, const char *suffix, char *path, size_t size)
{
	struct error *err = NULL;
	size_t used;

	if (!strchr(vm, '/'))
		err = client_socket_path(vm, false, path, size);
	else if ((size_t)snprintf(path, size, "%s", vm) >= size)
		err = error_new("the path '%s' is too long for a socket (%zu bytes are possible)", vm, size - 1);
	if (err)
		return err;
	used = strlen(path);
	if ((size_t)snprintf(path + used, size - used, "%s", suffix) >= size - used)
		return error_new("the path '%s' is too long for a socket (%zu bytes are possible)", path, size - 1);
	return NULL;
}

int client_dial(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = -1, saved;

	if ((size_t)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path) >= sizeof(addr.sun_path))
		errno = ENAMETOOLONG;
	else
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		saved = errno;
		close(fd);
		errno = saved;
		fd = -1;
	}
	return fd;
}

struct error *client_connect(const char *vm, struct client *out)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	bool is_path = strchr(vm, '/');
	struct error *err;
	int fd;

	*out = (struct client){ .fd = -1 };
	err = client_find(vm, "", path, sizeof(path));
	if (err)
		return err;
	fd = client_dial(path);
	if (fd >= 0)
		return client_attach(fd, out);
	if (errno == EAGAIN)
		return error_new("the VM at '%s' does not answer, nor others who wait for it", path);
	if (!is_path && (errno == ENOENT || errno == ECONNREFUSED))
		return nobody(vm);
	return error_errno(errno, "cannot reach the VM at '%s'", path);
}

struct error *client_attach(int fd, struct client *out)
{
	*out = (struct client){ .fd = fd, .buf = malloc(LINE_MAX_BYTES) };
	if (out->buf)
		return NULL;
	client_close(out);
	return error_errno(ENOMEM, "cannot ask the VM");
}

void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->buf);
	*c = (struct client){ .fd = -1 };
}

int client_send_all(int fd, const char *text, size_t len, uint64_t deadline_ns)
{
	while (len) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		uint64_t now = loop_now_ns();
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0) {
			text += n;
			len -= (size_t)n;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return errno;
		if (now >= deadline_ns)
			return ETIME;
		poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1);
	}
	return 0;
}

/* Takes the next line out of the buffer: an object, or NULL for what is none. False: there is no whole line. */
static bool take_line(struct client *c, json_t **out)
{
	char *end = memchr(c->buf, '\n', c->used);
	size_t len;

	if (!end)
		return false;
	len = end - c->buf;
	*out = json_loadb(c->buf, len, 0, NULL);
	memmove(c->buf, end + 1, c->used - len - 1);
	c->used -= len + 1;
	return true;
}

static struct error *no_answer(void)
{
	return error_new("the VM does not answer: its process hangs, is stopped, or has much to do; 'maru list' shows which one it is");
}

static struct error *receive(struct client *c, uint64_t deadline)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	uint64_t now = loop_now_ns();
	ssize_t n;

	if (c->used == LINE_MAX_BYTES)
		return error_new("the VM's answer is longer than %llu bytes", LINE_MAX_BYTES);
	if (now >= deadline)
		return no_answer();
	if (poll(&p, 1, (int)((deadline - now) / NS_PER_MS) + 1) <= 0)
		return NULL;
	n = recv(c->fd, c->buf + c->used, LINE_MAX_BYTES - c->used, MSG_DONTWAIT);
	if (n == 0)
		return error_new("the VM has ended");
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return error_errno(errno, "the VM has ended the connection");
	c->used += MAX(n, 0);
	return NULL;
}

/* The result of a reply, or the refusal in it. */
static struct error *open_reply(json_t *reply, json_t **result)
{
	json_t *refusal = json_object_get(reply, "error");

	if (!json_is_true(json_object_get(reply, "ok")) && json_is_string(refusal)) {
		char *why = cli_printable(refusal, CLI_REFUSAL_BYTES);
		struct error *err = error_new("%s", why);

		free(why);
		return err;
	}
	if (!json_is_true(json_object_get(reply, "ok")))
		return error_new("the VM's answer makes no sense");
	*result = json_incref(json_object_get(reply, "result"));
	if (json_is_object(*result))
		return NULL;
	json_decref(*result);
	*result = NULL;
	return error_new("the VM's answer makes no sense");
}

struct error *client_ask(struct client *c, const char *name, json_t *args, uint64_t deadline_ns)
{
	json_t *request = args ? args : json_object();
	char id[ID_BYTES], *text;
	int rc;

	snprintf(id, sizeof(id), "maru-%u", ++c->last_id);
	json_object_set_new(request, "request", json_string(name));
	json_object_set_new(request, "id", json_string(id));
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (!text)
		return error_errno(ENOMEM, "cannot ask the VM");
	rc = client_send_all(c->fd, text, strlen(text), deadline_ns);
	if (!rc)
		rc = client_send_all(c->fd, "\n", 1, deadline_ns);
	free(text);
	/* Who closes the connection may have said why before: that is for client_reply(). */
	if (!rc || rc == EPIPE || rc == ECONNRESET)
		return NULL;
	return rc == ETIME ? no_answer() : error_errno(rc, "the VM has ended the connection");
}

struct error *client_reply(struct client *c, uint64_t deadline_ns, json_t **result)
{
	char id[ID_BYTES];
	struct error *err = NULL;
	json_t *line;

	*result = NULL;
	snprintf(id, sizeof(id), "maru-%u", c->last_id);
	while (!err) {
		while (take_line(c, &line)) {
			json_t *of = json_object_get(line, "id");
			const char *got = json_string_value(of);

			if ((got && !strcmp(got, id)) || (!of && json_is_false(json_object_get(line, "ok")))) {
				err = open_reply(line, result);
				json_decref(line);
				return err;
			}
			json_decref(line);
		}
		err = receive(c, deadline_ns);
	}
	return err;
}

struct error *client_request(struct client *c, const char *name, json_t *args, unsigned timeout_ms, json_t **result)
{
	uint64_t deadline_ns = loop_now_ns() + timeout_ms * NS_PER_MS;
	struct error *err = client_ask(c, name, args, deadline_ns);

	*result = NULL;
	return err ? err : client_reply(c, deadline_ns, result);
}
