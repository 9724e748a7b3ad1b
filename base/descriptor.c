// SPDX-License-Identifier: Apache-2.0
/* Descriptors given by number; see descriptor.h. */
#include "base/descriptor.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

struct error *descriptor_parse(const char *option, const char *text, int *out)
{
	char *end;
	long v;

	errno = 0;
	v = text ? strtol(text, &end, 10) : -1;
	if (v < 0 || v > INT_MAX || errno || end == text || *end)
		return error_new("%s takes the number of an open descriptor, not '%s'", option, text ? text : "");
	*out = (int)v;
	return NULL;
}

void descriptor_close_others(const int *keep, unsigned count)
{
	unsigned from = STDERR_FILENO + 1, next;

	do {
		next = UINT_MAX;
		for (unsigned i = 0; i < count; i++)
			if (keep[i] >= 0 && (unsigned)keep[i] >= from)
				next = MIN(next, (unsigned)keep[i]);
		if (next > from)
			close_range(from, next - 1, 0);
		from = next + 1;
	} while (next != UINT_MAX);
}
