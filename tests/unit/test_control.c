// SPDX-License-Identifier: Apache-2.0
/* The control socket: protocol, several clients, hostile clients. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/tap.h"
#include "vm/control.h"

static struct loop *loop;
static struct control *control;
static volatile bool owner_gone;

static struct error *request(void *opaque, const char *name, json_t *args, json_t **result)
{
	if (!strcmp(name, "echo")) {
		*result = json_pack("{s:O?}", "value", json_object_get(args, "value"));
		return NULL;
	}
	if (!strcmp(name, "event")) {
		control_event(control, "something", json_pack("{s:i}", "n", 1));
		return NULL;
	}
	if (!strcmp(name, "slow")) {
		usleep(1000);
		return NULL;
	}
	return error_new("request '%.64s' is unknown", name);
}

static void gone(void *opaque)
{
	owner_gone = true;
}

static const struct control_handler handler = { request, gone, NULL };

static void answers(const char *line, const char *want)
{
	char *reply = control_answer(&handler, line, strlen(line));

	is_str(reply, want, "%s", line);
	free(reply);
}

static int attach(bool owner)
{
	struct timeval patience = { 5, 0 };
	struct error *err;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	loop_lock(loop);
	err = control_attach(control, pair[1], owner);
	loop_unlock(loop);
	if (err) {
		error_free(err);
		close(pair[0]);
		close(pair[1]);
		return -1;
	}
	return pair[0];
}

/* One line, or "" at the end. */
static const char *line(int fd)
{
	static char buf[1024];
	size_t n = 0;

	while (n < sizeof(buf) - 1 && read(fd, buf + n, 1) == 1 && buf[n] != '\n')
		n++;
	buf[n] = 0;
	return buf;
}

static void say(int fd, const char *text)
{
	if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		diag("send: %s", strerror(errno));
}

static void *run(void *opaque)
{
	loop_run(loop);
	return NULL;
}

/* Requests that take a millisecond each, many at once: others are served meanwhile. */
static void test_many_lines(int a)
{
	enum { COUNT = 1000 };
	static const char one[] = "{\"request\":\"slow\"}\n";
	static char all[COUNT * (sizeof(one) - 1) + 1];
	struct timespec before, after;
	unsigned answered = 0;
	int b = attach(false);

	line(b);
	for (unsigned i = 0; i < COUNT; i++)
		strcat(all + i * (sizeof(one) - 1), one);
	say(b, all);
	line(b);
	clock_gettime(CLOCK_MONOTONIC, &before);
	say(a, "{\"request\":\"echo\",\"value\":3}\n");
	ok(strstr(line(a), "\"value\":3"), "another client is answered");
	clock_gettime(CLOCK_MONOTONIC, &after);
	ok((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 < 500,
	   "without a wait for all requests of the first");
	shutdown(b, SHUT_WR);
	for (answered = 1; !strcmp(line(b), "{\"ok\":true,\"result\":{}}"); answered++)
		;
	is_u64(answered, COUNT, "which are all answered");
	close(b);

	/* More replies than a socket holds, read later. */
	b = attach(false);
	line(b);
	for (unsigned i = 0; i < 2000; i++)
		say(b, "{\"request\":\"echo\"}\n");
	shutdown(b, SHUT_WR);
	usleep(300000);
	for (answered = 0; strstr(line(b), "{\"ok\":true"); answered++)
		;
	is_u64(answered, 2000, "who says that there is no more gets all replies");
	close(b);

	/* As many as fit, and half a line. */
	b = attach(false);
	line(b);
	say(b, all);
	say(b, "{\"request\":\"echo\",");
	for (answered = 0; answered < COUNT && *line(b); answered++)
		;
	say(b, "\"value\":4}\n");
	ok(strstr(line(b), "\"value\":4"), "and half a line behind them is kept");
	say(b, all);
	close(b);
	say(a, "{\"request\":\"echo\",\"value\":5}\n");
	ok(strstr(line(a), "\"value\":5"), "one that leaves while it is answered");
}

/* Connections to a socket that listens, while there is no place for one more. */
static void test_refusal(int a)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX }; /* the kernel finds a name */
	socklen_t len = sizeof(addr);
	int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
	struct error *err;
	bool all = true;
	char byte;

	if (bind(listening, (struct sockaddr *)&addr, sizeof(sa_family_t)) < 0 || listen(listening, 8) < 0 ||
	    getsockname(listening, (struct sockaddr *)&addr, &len) < 0)
		diag("no socket: %s", strerror(errno));
	loop_lock(loop);
	err = control_listen(control, listening);
	loop_unlock(loop);
	ok(!err, "listening");
	error_free(err);
	for (unsigned i = 0; i < 100; i++) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		all &= connect(fd, (struct sockaddr *)&addr, len) == 0;
		send(fd, "{\"request\":\"echo\"}\n", 19, MSG_NOSIGNAL);
		if (i % 2)
			all &= strstr(line(fd), "{\"ok\":false,\"error\":\"16 programs") != NULL;
		close(fd);
	}
	ok(all, "who finds no place is told so");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	all = connect(fd, (struct sockaddr *)&addr, len) == 0;
	ok(all && strstr(line(fd), "end one of them") && recv(fd, &byte, 1, 0) == 0, "and disconnected");
	close(fd);
	say(a, "{\"request\":\"echo\",\"value\":6}\n");
	ok(strstr(line(a), "\"value\":6"), "which is no trouble for the others");
}

static void test_clients(void)
{
	int a = attach(true), b = attach(false), many[CONTROL_CLIENTS_MAX], count = 0;
	static char big[CONTROL_LINE_MAX + 16];
	char chunk[512];

	ok(strstr(line(a), "\"greeting\":\"maru-vm\"") && strstr(line(b), "\"protocol\":1"), "both clients are greeted");
	say(a, "{\"request\":\"ec");
	say(a, "ho\",\"value\":7}\r\n\n{\"request\":\"echo\",\"id\":2}\n");
	is_str(line(a), "{\"ok\":true,\"result\":{\"value\":7}}", "a line in pieces");
	is_str(line(a), "{\"ok\":true,\"result\":{\"value\":null},\"id\":2}", "and the next one");
	say(b, "{\"request\":\"event\"}\n");
	is_str(line(a), "{\"event\":\"something\",\"n\":1}", "an event reaches the other client");
	ok(strstr(line(b), "something") && strstr(line(b), "\"ok\":true"), "and the one that caused it");

	memset(big, 'x', sizeof(big));
	for (size_t at = 0; at < sizeof(big);) {
		ssize_t n = send(b, big + at, sizeof(big) - at, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		at += n;
	}
	is_str(line(b), "", "a line that is too long ends the connection");
	close(b);

	while (count < (int)CONTROL_CLIENTS_MAX && (many[count] = attach(false)) >= 0)
		count++;
	is_u64(count, CONTROL_CLIENTS_MAX - 1, "connections are bounded");
	test_refusal(a);
	while (count)
		close(many[--count]);
	say(a, "{\"request\":\"echo\",\"value\":1}\n");
	ok(strstr(line(a), "\"value\":1"), "the first client is still served");

	/* One that asks and never reads. */
	b = attach(false);
	fcntl(b, F_SETFL, O_NONBLOCK);
	snprintf(chunk, sizeof(chunk), "{\"request\":\"echo\",\"value\":\"%0400d\"}\n", 1);
	for (unsigned i = 0; i < 2000000; i++) {
		ssize_t n = send(b, chunk, strlen(chunk), MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			break;
		if (n < 0)
			usleep(100);
	}
	ok(send(b, chunk, 1, MSG_NOSIGNAL) < 0 && errno != EAGAIN, "a client that does not read is disconnected");
	close(b);
	say(a, "{\"request\":\"echo\",\"value\":2}\n");
	ok(strstr(line(a), "\"value\":2"), "and the first client is still served");
	test_many_lines(a);
	ok(!owner_gone, "the owner is there");
	close(a);
	for (unsigned i = 0; i < 500 && !owner_gone; i++)
		usleep(10000);
	ok(owner_gone, "the owner's end is noticed");
}

int main(void)
{
	struct error *err = loop_create(&loop);
	pthread_t thread;

	if (err)
		return 1;
	answers("{\"request\":\"echo\",\"id\":\"a\",\"value\":[1]}", "{\"ok\":true,\"result\":{\"value\":[1]},\"id\":\"a\"}");
	answers("{\"request\":\"nope\"}", "{\"ok\":false,\"error\":\"request 'nope' is unknown\"}");
	answers("{}", "{\"ok\":false,\"error\":\"'request' has to be a string, the name of the request\"}");
	answers("[]", "{\"ok\":false,\"error\":\"a request is an object: {\\\"request\\\": \\\"status\\\"}\"}");
	answers("7", "{\"ok\":false,\"error\":\"a request is an object: {\\\"request\\\": \\\"status\\\"}\"}");
	for (unsigned i = 0; i < 4; i++) {
		static const char *const rubbish[] = { "{", "\xff\xfe", "{\"request\":\"a\",\"request\":\"b\"}", "nonsense" };
		char *reply = control_answer(&handler, rubbish[i], strlen(rubbish[i]));

		ok(reply && !strncmp(reply, "{\"ok\":false", 11), "rubbish %u gets an error", i);
		free(reply);
	}
	loop_lock(loop);
	err = control_create(loop, "vm", &handler, &control);
	loop_unlock(loop);
	if (err)
		return 1;
	pthread_create(&thread, NULL, run, NULL);
	test_clients();
	loop_stop(loop);
	pthread_join(thread, NULL);
	loop_lock(loop);
	control_destroy(control);
	loop_unlock(loop);
	loop_destroy(loop);
	return done_testing();
}
