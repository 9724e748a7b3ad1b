// SPDX-License-Identifier: Apache-2.0
/* Cutting long frames. */
#include <assert.h>
#include <stdlib.h>

#include "net/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *out = malloc(NET_STANDARD_FRAME);
	unsigned pieces = 0;
	size_t n;

	while (out && (n = net_segment(data, size, pieces, out))) {
		assert(n <= NET_STANDARD_FRAME);
		assert(++pieces <= size);
	}
	free(out);
	return 0;
}
