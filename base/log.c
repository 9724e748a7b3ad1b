/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines: formatted on the stack, written with one write(2), never allocated.
 *
 * The one place in the house with state of the process instead of an instance: standard error is one per
 * process too. The sink is called under a lock of its own, so that taking it away is final; a line logged
 * by the sink itself goes to standard error only.
 */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/loop.h"

#define LINE_MAX_BYTES 1024

static const char *_Atomic program_name;
static _Atomic enum log_level threshold = LOG_LEVEL_WARN;

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*sink_function)(void *opaque, enum log_level level, const char *text);
static void *sink_opaque;
static _Thread_local bool in_sink;

void log_init(const char *program, enum log_level level)
{
	program_name = program;
	threshold = level;
}

bool log_enabled(enum log_level level)
{
	return level <= threshold;
}

void log_set_sink(void (*sink)(void *opaque, enum log_level level, const char *text), void *opaque)
{
	pthread_mutex_lock(&sink_lock);
	sink_function = sink;
	sink_opaque = opaque;
	pthread_mutex_unlock(&sink_lock);
}

static void write_line(enum log_level level, const char *fmt, va_list ap, const char *suffix)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	const char *program = program_name;
	char line[LINE_MAX_BYTES + 1];
	int saved_errno = errno;
	size_t start, len;
	ssize_t written;
	int n;

	n = snprintf(line, sizeof(line), "%s: %s: ", program ? program : "maru", names[level]);
	start = MIN((size_t)MAX(n, 0), (size_t)LINE_MAX_BYTES / 2);
	n = vsnprintf(line + start, LINE_MAX_BYTES - start, fmt, ap);
	len = start + MIN((size_t)MAX(n, 0), LINE_MAX_BYTES - start - 1);
	n = snprintf(line + len, LINE_MAX_BYTES - len, "%s", suffix);
	len += MIN((size_t)MAX(n, 0), LINE_MAX_BYTES - len - 1);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';

	if (!in_sink) {
		in_sink = true;
		pthread_mutex_lock(&sink_lock);
		if (sink_function)
			sink_function(sink_opaque, level, line + start);
		pthread_mutex_unlock(&sink_lock);
		in_sink = false;
	}
	line[len++] = '\n';
	do
		written = write(STDERR_FILENO, line, len);
	while (written < 0 && errno == EINTR);
	errno = saved_errno;
}

#define DEFINE_LOG(name, level)                 \
	void name(const char *fmt, ...)         \
	{                                       \
		va_list ap;                     \
                                                \
		if (!log_enabled(level))        \
			return;                 \
		va_start(ap, fmt);              \
		write_line(level, fmt, ap, ""); \
		va_end(ap);                     \
	}

DEFINE_LOG(log_error, LOG_LEVEL_ERROR)
DEFINE_LOG(log_warn, LOG_LEVEL_WARN)
DEFINE_LOG(log_info, LOG_LEVEL_INFO)
DEFINE_LOG(log_debug, LOG_LEVEL_DEBUG)

void log_guest_limited(struct log_ratelimit *limit, const char *fmt, ...)
{
	char suffix[48] = "";
	va_list ap;

	if (!log_enabled(LOG_LEVEL_WARN))
		return;
	/* The count stops at the burst, so that it cannot wrap; a line or two too many in a race is no harm. */
	if (atomic_load(&limit->count) >= LOG_GUEST_BURST) {
		uint_fast64_t since = atomic_load(&limit->window_ns);
		uint64_t now = loop_now_ns();
		unsigned suppressed;

		if (now - since < NS_PER_SEC ||
		    !atomic_compare_exchange_strong(&limit->window_ns, &since, now)) {
			atomic_fetch_add(&limit->suppressed, 1);
			return;
		}
		suppressed = atomic_exchange(&limit->suppressed, 0);
		if (suppressed)
			snprintf(suffix, sizeof(suffix), " (%u more like this left out)",
				 suppressed);
	} else {
		atomic_fetch_add(&limit->count, 1);
		atomic_store(&limit->window_ns, loop_now_ns());
	}
	va_start(ap, fmt);
	write_line(LOG_LEVEL_WARN, fmt, ap, suffix);
	va_end(ap);
}
