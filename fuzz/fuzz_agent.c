// SPDX-License-Identifier: Apache-2.0
/*
 * `maru guest` with an agent that says anything. The input's first byte chooses the command; the rest is all that the
 * agent says, before it is asked. Random numbers are RANDOM, so that the input can have the answer to the synchronization; nobody waits.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/agent.h"
#include "cli/cli.h"

#define RANDOM 0x07 /* each byte: the number is 117901063 */
#define QUESTIONS 50u

ssize_t getrandom(void *buf, size_t len, unsigned flags)
{
	memset(buf, RANDOM, len);
	return (ssize_t)len;
}

int nanosleep(const struct timespec *wanted, struct timespec *left)
{
	return 0;
}

/* A connection whose other end has said @data and nothing more. */
static int connection(const uint8_t *data, size_t size, int *other)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	while (size) {
		ssize_t n = send(pair[1], data, size, MSG_DONTWAIT);

		if (n <= 0)
			break;
		data += n;
		size -= (size_t)n;
	}
	shutdown(pair[1], SHUT_WR);
	*other = pair[1];
	return pair[0];
}

/* What is shown is text for a terminal: UTF-8 without control characters. */
static void check_text(const char *s)
{
	for (; *s; s++)
		assert((unsigned char)*s >= 0x20 && *s != 0x7f && ((unsigned char)*s != 0xc2 || (unsigned char)s[1] >= 0xa0));
}

/* Question after question, until there is nothing more. They stay in the socket, which has room for so many. */
static void talk(int fd)
{
	struct agent a;
	struct error *err = agent_attach(fd, &a);

	for (unsigned n = 0; n < QUESTIONS && !err; n++) {
		json_t *result = NULL;
		char *text;
		size_t len;

		err = agent_call(&a, "guest-x", NULL, 1000, false, &result);
		text = cli_printable(result, 100);
		check_text(text);
		assert(strlen(text) <= 100);
		free(text);
		if (json_is_string(result))
			free(agent_decode(json_string_value(result), json_string_length(result), &len));
		json_decref(result);
		if (err && error_code(err) != EPIPE && a.used) {
			check_text(error_message(err));
			error_free(err);
			err = NULL;
		}
	}
	if (err)
		check_text(error_message(err));
	error_free(err);
	agent_close(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *commands[][8] = {
		{ "guest", "ping", "vm" },	   { "guest", "info", "vm" },
		{ "guest", "info", "vm", "-o", "json" }, { "guest", "ip", "vm" },
		{ "guest", "ip", "vm", "-o", "json" }, { "guest", "exec", "-o", "json", "vm", "/bin/true" },
		{ "guest", "shutdown", "vm" },	   { "guest", "freeze", "vm" },
	};
	static FILE *nowhere;
	int fd, other, argc = 0;
	unsigned which;

	if (!nowhere)
		nowhere = freopen("/dev/null", "w", stdout);
	if (!size)
		return 0;
	which = data[0] % (ARRAY_SIZE(commands) + 1);
	fd = connection(data + 1, size - 1, &other);
	if (which == ARRAY_SIZE(commands)) {
		talk(fd);
	} else {
		while (argc < 8 && commands[which][argc])
			argc++;
		guest_main(argc, commands[which], fd);
	}
	close(other);
	return 0;
}
