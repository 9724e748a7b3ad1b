/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: an errno value and a sentence in one allocation. When even that cannot be had, one constant
 * error stands in for all, so that callers never need to think about it.
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct error {
	int code;
	const char *text; /* points behind the struct, or at a literal */
};

static const struct error out_of_memory = { ENOMEM, "out of memory" };

/* "<prefix>" or "<prefix>: <tail>". */
static struct error *make(int code, const char *tail, const char *fmt, va_list ap)
{
	va_list again;
	size_t head, size;
	struct error *err;
	char *text;
	int len;

	va_copy(again, ap);
	len = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	head = len < 0 ? 0 : (size_t)len;
	size = head + (tail ? 2 + strlen(tail) : 0) + 1;
	err = malloc(sizeof(*err) + size);
	if (!err)
		return (struct error *)&out_of_memory;
	text = (char *)(err + 1);
	vsnprintf(text, head + 1, fmt, ap);
	if (tail)
		snprintf(text + head, size - head, ": %s", tail);
	err->code = code;
	err->text = text;
	return err;
}

struct error *error_new(const char *fmt, ...)
{
	struct error *err;
	va_list ap;

	va_start(ap, fmt);
	err = make(0, NULL, fmt, ap);
	va_end(ap);
	return err;
}

struct error *error_errno(int errnum, const char *fmt, ...)
{
	char buf[128];
	struct error *err;
	va_list ap;

	va_start(ap, fmt);
	err = make(errnum, strerror_r(errnum, buf, sizeof(buf)), fmt, ap);
	va_end(ap);
	return err;
}

struct error *error_wrap(struct error *err, const char *fmt, ...)
{
	struct error *wrapped;
	va_list ap;

	va_start(ap, fmt);
	wrapped = make(err->code, err->text, fmt, ap);
	va_end(ap);
	error_free(err);
	return wrapped;
}

const char *error_message(const struct error *err)
{
	return err->text;
}

int error_code(const struct error *err)
{
	return err->code;
}

void error_free(struct error *err)
{
	if (err != &out_of_memory)
		free(err);
}
