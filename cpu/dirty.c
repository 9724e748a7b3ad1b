/* SPDX-License-Identifier: Apache-2.0 */
/* The log of written pages; see dirty.h. */
#include "cpu/dirty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct error *dirty_log_start(struct dirty_log *l, const struct memory *mem)
{
	uint64_t words;

	l->pages = (mem->high_bytes ? MEM_HIGH_BASE + mem->high_bytes : mem->low_bytes) / MEM_PAGE_SIZE;
	words = (l->pages + 63) / 64;
	if (!l->bits)
		l->bits = calloc(words, sizeof(*l->bits));
	if (!l->bits)
		return error_errno(ENOMEM, "cannot keep a log of written pages");
	for (uint64_t k = 0; k < words; k++)
		l->bits[k] = 0;
	atomic_store(&l->on, true);
	return NULL;
}

void dirty_log_stop(struct dirty_log *l)
{
	atomic_store(&l->on, false);
}

void dirty_log_finish(struct dirty_log *l)
{
	free(l->bits);
	l->bits = NULL;
}

void dirty_log_take(struct dirty_log *l, uint64_t gpa, uint64_t pages, uint64_t *bitmap)
{
	uint64_t first = gpa / MEM_PAGE_SIZE;

	memset(bitmap, 0, (pages + 63) / 64 * 8);
	for (uint64_t n = 0; n < pages && first + n < l->pages;) {
		uint64_t page = first + n, bit = page % 64, count = MIN(64 - bit, pages - n);
		uint64_t mask = (count == 64 ? ~0ull : (1ull << count) - 1) << bit, got;

		/* Most words are clean: they are not written. */
		got = atomic_load(&l->bits[page / 64]) & mask ? atomic_fetch_and(&l->bits[page / 64], ~mask) & mask : 0;
		got >>= bit;
		bitmap[n / 64] |= got << (n % 64);
		if (n % 64 && count > 64 - n % 64)
			bitmap[n / 64 + 1] |= got >> (64 - n % 64);
		n += count;
	}
}
