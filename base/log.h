/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines to standard error: "<program>: <level>: text". One write(2) a line, so that lines of
 * several threads and processes do not mix. Control characters in the text are shown as '?': it may come
 * from a guest, and the terminal is a person's. Safe from any thread.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/util.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* @program is kept, not copied. The default level is LOG_LEVEL_WARN. */
void log_init(const char *program, enum log_level level);
bool log_enabled(enum log_level level);

/*
 * Also hands every line that is written to @sink (NULL: to nobody); used for the control socket. The sink
 * runs in the thread that logs, one call at a time, with whatever locks that thread holds: it must not
 * block or take a loop's lock (loop_post is right). When this returns the old sink is not called any more.
 */
void log_set_sink(void (*sink)(void *opaque, enum log_level level, const char *text), void *opaque);

void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);

/*
 * For everything that a guest, an image or a peer can trigger: at most LOG_GUEST_BURST lines per call
 * site, then one line per second that says how many were left out. Level: warning.
 */
#define LOG_GUEST_BURST 10
struct log_ratelimit {
	atomic_uint_fast64_t window_ns;
	atomic_uint count;
	atomic_uint suppressed;
};
void log_guest_limited(struct log_ratelimit *limit, const char *fmt, ...) PRINTF_LIKE(2, 3);
#define log_guest(...)                                         \
	do {                                                   \
		static struct log_ratelimit limit_;            \
		log_guest_limited(&limit_, __VA_ARGS__);       \
	} while (0)

#endif
