/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers and strings of 9P messages: little-endian, strings with a 16-bit length. A reader that runs past the end
 * says so once, at the end (bad); what it read then is zero. A writer never goes past its limit either.
 */
#ifndef SHARE_WIRE_H
#define SHARE_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/util.h"

struct reader {
	const uint8_t *at, *end;
	bool bad;
};

struct writer {
	uint8_t *start, *at, *end;
	bool full;
};

static inline uint64_t get(struct reader *r, unsigned size)
{
	uint64_t v;

	if ((size_t)(r->end - r->at) < size) {
		r->bad = true;
		r->at = r->end;
		return 0;
	}
	v = load_le(r->at, size);
	r->at += size;
	return v;
}

static inline const uint8_t *get_bytes(struct reader *r, size_t len)
{
	const uint8_t *p = r->at;

	if ((size_t)(r->end - r->at) < len) {
		r->bad = true;
		r->at = r->end;
		return NULL;
	}
	r->at += len;
	return p;
}

static inline void put(struct writer *w, uint64_t v, unsigned size)
{
	if ((size_t)(w->end - w->at) < size) {
		w->full = true;
		return;
	}
	store_le(w->at, v, size);
	w->at += size;
}

static inline void put_bytes(struct writer *w, const void *data, size_t len)
{
	if ((size_t)(w->end - w->at) < len) {
		w->full = true;
		return;
	}
	memcpy(w->at, data, len);
	w->at += len;
}

static inline void put_string(struct writer *w, const char *s)
{
	put(w, strlen(s), 2);
	put_bytes(w, s, strlen(s));
}

#endif
