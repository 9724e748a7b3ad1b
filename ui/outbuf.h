/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output that the other side has not taken yet: a ring of OUTBUF_BYTES. When it is full the oldest bytes
 * make room for the newest: the last lines before a hang say more than the first. Private to ui/.
 */
#ifndef UI_OUTBUF_H
#define UI_OUTBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUTBUF_BYTES (256u * 1024)

struct outbuf {
	uint8_t *data;
	size_t first, used;
};

bool outbuf_init(struct outbuf *b); /* false: no memory */
void outbuf_finish(struct outbuf *b);
void outbuf_add(struct outbuf *b, const uint8_t *buf, size_t len);
size_t outbuf_peek(const struct outbuf *b, const uint8_t **from); /* the oldest bytes, contiguous */
void outbuf_consume(struct outbuf *b, size_t len);
void outbuf_clear(struct outbuf *b);

#endif
