/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzzer's input, taken in small numbers: what is missing at its end is zero. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include "base/util.h"

struct input {
	const uint8_t *data;
	size_t left;
};

static inline uint64_t take(struct input *in, unsigned size)
{
	uint64_t v = 0;

	size = (unsigned)MIN(size, in->left);
	if (size)
		v = load_le(in->data, size);
	in->data += size;
	in->left -= size;
	return v;
}

#endif
