// SPDX-License-Identifier: Apache-2.0
/* Output that waits, in a bounded ring; see outbuf.h. */
#include "ui/outbuf.h"

#include <assert.h>
#include <stdlib.h>

#include "base/util.h"

bool outbuf_init(struct outbuf *b)
{
	*b = (struct outbuf){ .data = malloc(OUTBUF_BYTES) };
	return b->data != NULL;
}

void outbuf_finish(struct outbuf *b)
{
	free(b->data);
	*b = (struct outbuf){ 0 };
}

void outbuf_clear(struct outbuf *b)
{
	b->first = b->used = 0;
}

void outbuf_consume(struct outbuf *b, size_t len)
{
	assert(len <= b->used);
	b->first = (b->first + len) % OUTBUF_BYTES;
	b->used -= len;
}

void outbuf_add(struct outbuf *b, const uint8_t *buf, size_t len)
{
	if (len > OUTBUF_BYTES) {
		buf += len - OUTBUF_BYTES;
		len = OUTBUF_BYTES;
	}
	if (len > OUTBUF_BYTES - b->used)
		outbuf_consume(b, len - (OUTBUF_BYTES - b->used));
	while (len > 0) {
		size_t at = (b->first + b->used) % OUTBUF_BYTES;
		size_t here = MIN(len, OUTBUF_BYTES - at);

		memcpy(b->data + at, buf, here);
		b->used += here;
		buf += here;
		len -= here;
	}
}

size_t outbuf_peek(const struct outbuf *b, const uint8_t **from)
{
	*from = b->data + b->first;
	return MIN(b->used, OUTBUF_BYTES - b->first);
}
