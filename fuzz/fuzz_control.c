// SPDX-License-Identifier: Apache-2.0
/* The control socket's protocol: each line of the input is a request. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "vm/control.h"

static struct error *request(void *opaque, const char *name, json_t *args, json_t **result)
{
	if (!strcmp(name, "status")) {
		*result = json_pack("{s:O}", "echo", args);
		return NULL;
	}
	return error_new("request '%.64s' is unknown", name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct control_handler handler = { .request = request };

	while (size) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t n = end ? (size_t)(end - data) : size;
		char *reply = control_answer(&handler, (const char *)data, n);

		assert(reply && !strchr(reply, '\n'));
		free(reply);
		n += end ? 1 : 0;
		data += n;
		size -= n;
	}
	return 0;
}
