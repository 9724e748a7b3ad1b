/* SPDX-License-Identifier: Apache-2.0 */
/* base/log.h: what is written to standard error, read back through a pipe. */
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/loop.h"
#include "tests/tap.h"

static int saved_stderr, read_end;

static void capture_start(void)
{
	int fds[2];

	saved_stderr = dup(2);
	if (saved_stderr < 0 || pipe(fds) < 0 || dup2(fds[1], 2) < 0)
		abort();
	close(fds[1]);
	fcntl(fds[0], F_SETPIPE_SZ, 1 << 20);
	read_end = fds[0];
}

/* Everything since capture_start; standard error is as before. */
static const char *capture_end(void)
{
	static char text[1 << 20];
	size_t len = 0;
	ssize_t n;

	dup2(saved_stderr, 2);
	close(saved_stderr);
	while ((n = read(read_end, text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	close(read_end);
	text[len] = 0;
	return text;
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

static void hit(unsigned i)
{
	log_guest("strange write %u", i);
}

static char sunk[256];

static void sink(void *opaque, enum log_level level, const char *text)
{
	snprintf(sunk, sizeof(sunk), "%s/%d/%s", (const char *)opaque, level, text);
	log_warn("from the sink");
}

static void *spam(void *opaque)
{
	for (int i = 0; i < 200; i++)
		log_warn("thread %s says a line of some length", (const char *)opaque);
	return NULL;
}

static void test_lines(void)
{
	char longer[3000];
	const char *text;

	capture_start();
	log_error("one");
	log_warn("two %d", 2);
	log_info("three");
	is_str(capture_end(), "maru: error: one\nmaru: warning: two 2\n",
	       "default level is warning");

	log_init("prog", LOG_LEVEL_DEBUG);
	capture_start();
	log_info("three");
	log_debug("four\n\033[2J");
	is_str(capture_end(), "prog: info: three\nprog: debug: four??[2J\n",
	       "program name, level, no control characters");
	ok(log_enabled(LOG_LEVEL_DEBUG), "debug is enabled");
	log_init("prog", LOG_LEVEL_WARN);
	ok(!log_enabled(LOG_LEVEL_INFO), "info is not");

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	capture_start();
	log_warn("%s", longer);
	text = capture_end();
	ok(strlen(text) > 1000 && strlen(text) <= 1024 && text[strlen(text) - 1] == '\n',
	   "a long line is cut and still ends");
}

static void test_ratelimit(void)
{
	const char *text;
	unsigned i = 0;

	capture_start();
	for (; i < 1000; i++)
		hit(i);
	text = capture_end();
	is_u64(count(text, "\n"), LOG_GUEST_BURST, "a burst is cut");
	ok(strstr(text, "strange write 9\n"), "the first ones are written");

	usleep(1100000);
	capture_start();
	for (; i < 2000; i++)
		hit(i);
	is_str(capture_end(), "prog: warning: strange write 1000 (990 more like this left out)\n",
	       "one line a second later, with the count");
	usleep(1100000);
	capture_start();
	hit(i);
	is_str(capture_end(), "prog: warning: strange write 2000 (999 more like this left out)\n",
	       "and again");
}

static void test_sink(void)
{
	const char *text;

	log_set_sink(sink, "op");
	capture_start();
	log_error("to both");
	text = capture_end();
	is_str(sunk, "op/0/to both", "the sink gets the text");
	ok(count(text, "from the sink\n") == 1 && count(text, "to both\n") == 1,
	   "a line from the sink does not come back to it");
	log_set_sink(NULL, NULL);
	capture_start();
	log_error("other");
	capture_end();
	is_str(sunk, "op/0/to both", "a sink taken away is not called");
}

static void test_threads(void)
{
	pthread_t a, b;
	const char *text;

	capture_start();
	pthread_create(&a, NULL, spam, "a");
	pthread_create(&b, NULL, spam, "b");
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	text = capture_end();
	is_u64(count(text, "prog: warning: thread a says a line of some length\n") +
		       count(text, "prog: warning: thread b says a line of some length\n"),
	       400, "lines of two threads do not mix");
}

int main(void)
{
	test_lines();
	test_ratelimit();
	test_sink();
	test_threads();
	return done_testing();
}
