/* SPDX-License-Identifier: Apache-2.0 */
/* Talking with the agent in a guest, which may say anything. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "cli/agent.h"
#include "cli/cli.h"
#include "tests/tap.h"

/* What the agent says to the first line it gets ("%" in it: the number of the synchronization), and to the second. */
struct script {
	int fd;
	const char *first, *second;
	char heard[512];
};

static void say_bytes(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

static void say(int fd, const char *text, const char *number)
{
	const char *mark;

	while ((mark = strchr(text, '%'))) {
		say_bytes(fd, text, (size_t)(mark - text));
		say_bytes(fd, number, strlen(number));
		text = mark + 1;
	}
	say_bytes(fd, text, strlen(text));
}

static void *play(void *opaque)
{
	struct script *s = opaque;
	char number[32] = "0", line[512];
	const char *texts[] = { s->first, s->second };

	for (unsigned i = 0; i < 2; i++) {
		size_t used = 0;

		while (used < sizeof(line) - 1 && read(s->fd, line + used, 1) == 1 && line[used++] != '\n')
			;
		line[used] = 0;
		if (i == 0 && strstr(line, "\"id\":"))
			snprintf(number, sizeof(number), "%lu", strtoul(strstr(line, "\"id\":") + 5, NULL, 10));
		if (i == 1)
			strcpy(s->heard, line);
		if (!used || !texts[i])
			break;
		say(s->fd, texts[i], number);
	}
	/* Until we are hung up on. */
	while (texts[1] && read(s->fd, line, 1) > 0)
		;
	close(s->fd);
	return NULL;
}

#define SYNC "\xff{\"return\": %}\n"

static struct error *converse(const char *first, const char *second, bool may_end, char **result, char *heard)
{
	struct script s = { .first = first, .second = second };
	json_t *value = NULL;
	struct agent a;
	struct error *err;
	pthread_t thread;
	int pair[2];

	*result = NULL;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		abort();
	s.fd = pair[1];
	pthread_create(&thread, NULL, play, &s);
	err = agent_attach(pair[0], &a);
	if (!err) {
		err = agent_call(&a, "guest-x", json_pack("{s:i}", "n", 1), 1000, may_end, &value);
		agent_close(&a);
	}
	pthread_join(thread, NULL);
	if (value)
		*result = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
	json_decref(value);
	if (heard)
		strcpy(heard, s.heard);
	return err;
}

static void good(const char *first, const char *second, const char *want, const char *what)
{
	char *result;
	struct error *err = converse(first, second, false, &result, NULL);

	ok(!err && result && !strcmp(result, want), "%s%s%s", what, err ? ": " : "", err ? error_message(err) : "");
	error_free(err);
	free(result);
}

static void bad(const char *first, const char *second, const char *part, const char *what)
{
	char *result;
	struct error *err = converse(first, second, false, &result, NULL);

	ok(err && strstr(error_message(err), part), "%s: %s", what, err ? error_message(err) : "was taken");
	error_free(err);
	free(result);
}

static void decodes(const char *text, const char *want)
{
	size_t len;
	uint8_t *data = agent_decode(text, strlen(text), &len);

	ok(want ? data && len == strlen(want) && !memcmp(data, want, len) : !data, "base64 '%s'", text);
	free(data);
}

static void *flood(void *opaque)
{
	static char block[65536];
	int fd = *(int *)opaque;

	memset(block, 'x', sizeof(block));
	while (send(fd, block, sizeof(block), MSG_NOSIGNAL) > 0)
		;
	close(fd);
	return NULL;
}

static void test_flood(void)
{
	struct error *err;
	struct agent a;
	pthread_t thread;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		abort();
	pthread_create(&thread, NULL, flood, &pair[1]);
	err = agent_attach(pair[0], &a);
	ok(err && strstr(error_message(err), "more than can be an answer"), "an agent that does not stop: %s",
	   err ? error_message(err) : "was taken");
	error_free(err);
	pthread_join(thread, NULL);
}

/* ---- The command, as a person sees it ---- */

/* What `maru guest ARGS` writes to @stream when the agent answers like this. */
static void shows(char **args, const char *answer, FILE *stream, char *text, size_t size)
{
	struct script s = { .first = SYNC, .second = answer };
	int argc = 0, kept = dup(fileno(stream)), pair[2], catcher = memfd_create("shown", MFD_CLOEXEC);
	pthread_t thread;
	ssize_t n;

	while (args[argc])
		argc++;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || kept < 0 || catcher < 0)
		abort();
	s.fd = pair[1];
	pthread_create(&thread, NULL, play, &s);
	fflush(stream);
	dup2(catcher, fileno(stream));
	guest_main(argc, args, pair[0]);
	fflush(stream);
	dup2(kept, fileno(stream));
	pthread_join(thread, NULL);
	n = pread(catcher, text, size - 1, 0);
	text[n > 0 ? n : 0] = 0;
	close(kept);
	close(catcher);
}

/* A guest cannot send the terminal anything but text. */
static void test_shown(void)
{
	static char *ip[] = { "guest", "ip", "vm", NULL }, *ip_json[] = { "guest", "ip", "vm", "-o", "json", NULL };
	const char *card = "{\"return\":[{\"name\":\"e\\u001b[2J\\u009b2J\u00fc\",\"hardware-address\":\"a\\u007f\\n\","
			   "\"ip-addresses\":[{\"ip-address\":\"10.0.2.15\",\"prefix\":24}]}]}\n";
	char text[1024];

	shows(ip, card, stdout, text, sizeof(text));
	is_str(text, "e?[2J?2J\u00fc\t10.0.2.15/24\ta??\n", "control characters in the name of a network card");
	shows(ip_json, card, stdout, text, sizeof(text));
	ok(strstr(text, "\\u001B[2J\\u009B2J\\u00FC") && !strpbrk(text, "\x1b\xc2\xc3"), "and as JSON it is ASCII");
	shows(ip, "{\"error\": {\"desc\": \"\\u001b]0;title\\u0007\\u009bm no\"}}\n", stderr, text, sizeof(text));
	is_str(text, "maru: the guest's agent refuses guest-network-get-interfaces: ?]0;title??m no\n",
	       "control characters in a refusal");
}

static void printable(const char *json, size_t most, const char *want)
{
	json_t *text = json_loads(json, JSON_DECODE_ANY, NULL);
	char *shown = cli_printable(text, most);

	is_str(shown, want, "%s, %zu bytes of it", json, most);
	free(shown);
	json_decref(text);
}

/* As many values as fit in the bytes of an answer would take gigabytes. */
static void test_values(void)
{
	size_t count = AGENT_VALUES_MAX + 10, used;
	char *answer = malloc(3 * count + 32);

	used = (size_t)sprintf(answer, "{\"return\":[0");
	for (size_t i = 0; i < count; i++)
		used += (size_t)sprintf(answer + used, ",0");
	strcpy(answer + used, "]}\n");
	bad(SYNC, answer, "more than can be an answer", "too many values");
	good(SYNC, "{\"return\":[0,1]}\n", "[0,1]", "some values");
	free(answer);
}

int main(void)
{
	char heard[512], *result;
	struct error *err = converse(SYNC, "{\"return\": {}}\n", false, &result, heard);

	ok(!err && result && !strcmp(result, "{}"), "a question and its answer");
	is_str(heard, "{\"execute\":\"guest-x\",\"arguments\":{\"n\":1}}\n", "as the agent hears it");
	free(result);
	good("old {\"return\": 5}\n{\"error\": {}}\n" SYNC, "{\"return\": [1]}\n", "[1]", "what is old is passed over");
	good("\xff{\"return\": 1}\n\xff\xff" SYNC, "{\"return\": 7}\n", "7", "and what answers somebody else");
	bad(SYNC, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n", "refuses guest-x: no", "a refusal");
	bad(SYNC, "{\"error\": 5}\n", "does not say why", "a refusal without a reason");
	bad(SYNC, "{}\n", "makes no sense", "neither");
	bad(SYNC, "[]\n", "makes no sense", "no object");
	bad(SYNC, "{\"return\": \xc0\xc1}\n", "makes no sense", "no JSON");
	bad(SYNC, "\n", "makes no sense", "nothing");
	bad(SYNC, "{\"return\"", "does not answer: it hangs", "half an answer");
	bad(SYNC, NULL, "the VM has ended", "the end");
	bad(NULL, NULL, "the VM has ended", "the end at once");

	err = converse(SYNC, NULL, true, &result, NULL);
	ok(!err && !result, "the end after a command that ends the guest");
	free(result);
	err = converse(SYNC, "{\"error\": {\"desc\": \"busy\"}}\n", true, &result, NULL);
	ok(err && strstr(error_message(err), "busy"), "its refusal");
	error_free(err);
	test_flood();
	test_values();
	test_shown();
	printable("\"plain\"", 10, "plain");
	printable("\"plain\"", 3, "pla");
	printable("\"a\u00fc\"", 2, "a");
	printable("\"a\u20acb\"", 4, "a\u20ac");
	printable("\"\U0001f600\\u0080\\u00a0\"", 100, "\U0001f600?\u00a0");
	printable("\"a\\u202eb\\u2066\\u2028\\u200f\\u061c\\u2013\\u2070\"", 100, "a?b????\u2013\u2070");
	printable("5", 10, "");
	printable("\"\"", 10, "");

	decodes("", "");
	decodes("aGVsbG8=", "hello");
	decodes("aGVsbG8h", "hello!");
	decodes("aA==", "h");
	decodes("aGVsbG8", NULL);
	decodes("aGVs=G8=", NULL);
	decodes("a===", NULL);
	decodes("====", NULL);
	decodes("aGV\x80", NULL);
	decodes("aG s", NULL);
	return done_testing();
}
