/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of RAM have been written: one bit each, for engines (engine_dirty_start() and so on). Any thread marks, without locks;
 * nothing is marked while the log is off. The order that makes it right is the engine's: a page is marked before, or as long as, it
 * can be written without being marked again.
 *
 * The functions here use no vector registers and call nothing: the translator's light code uses them too.
 */
#ifndef CPU_DIRTY_H
#define CPU_DIRTY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mem/memory.h"

struct dirty_log {
	atomic_bool on;
	uint64_t pages;		/* from address 0 on, the hole included */
	_Atomic uint64_t *bits; /* made by the first start, kept until the end */
};

static inline void dirty_mark(struct dirty_log *l, uint64_t gpa)
{
	uint64_t page = gpa / MEM_PAGE_SIZE;

	if (atomic_load_explicit(&l->on, memory_order_relaxed) && page < l->pages)
		atomic_fetch_or(&l->bits[page / 64], 1ull << (page % 64));
}

static inline void dirty_mark_range(struct dirty_log *l, uint64_t gpa, uint64_t len)
{
	for (uint64_t at = gpa & ~(uint64_t)(MEM_PAGE_SIZE - 1); len && at < gpa + len; at += MEM_PAGE_SIZE)
		dirty_mark(l, at);
}

/* On, with all pages clean. */
struct error *dirty_log_start(struct dirty_log *l, const struct memory *mem) MUST_CHECK;
void dirty_log_stop(struct dirty_log *l);
void dirty_log_finish(struct dirty_log *l); /* nobody marks any more */
/* Bit n of @bitmap: page n from @gpa on; they are clean then. */
void dirty_log_take(struct dirty_log *l, uint64_t gpa, uint64_t pages, uint64_t *bitmap);

#endif
