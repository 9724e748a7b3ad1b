/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jump caches of one vCPU: where indirect jumps, returns and jumps to other pages find their code.
 *
 * One is for user code in each address space, one for the kernel's in all of them. Each has entries by linear target, the ring
 * of return addresses and the table of pages (private.h, struct jump_cache); all of them are good until the mapping of
 * their pages changes, and are then cleared by page, as far as a filter says that there is something. What was filled
 * is in a log as long as it is little.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/private.h"

static uint64_t jc_miss_code(const struct bt_vcpu *v)
{
	return (uint64_t)(v->engine->cache_rx + v->engine->stub.lookup_mem);
}

static unsigned page_filter(uint64_t lin)
{
	return (unsigned)(lin >> 12) & (JC_PAGES - 1);
}

/*
 * Whatever the tag of an empty entry is, a guest can return there; so the entry is a good one: that goes by the jump
 * cache. And 0 is canonical, which a return by the ring does not look at.
 */
static void ring_clear(struct bt_vcpu *v, struct jump_cache *jc)
{
	struct bt_engine *e = v->engine;
	uint32_t stub = jc == bt_kernel_jc(v) ? e->stub.jump_kernel : e->stub.jump_user;

	bt_zero(jc->ring_tag, sizeof(jc->ring_tag));
	for (unsigned k = 0; k < RING_ENTRIES; k++)
		jc->ring_code[k] = (uint64_t)(e->cache_rx + stub);
}

static void pages_clear(struct jump_cache *jc)
{
	if (jc->pages_used > JC_PAGE_LOG)
		bt_zero(jc->page, sizeof(jc->page));
	for (uint32_t k = 0; jc->pages_used <= JC_PAGE_LOG && k < jc->pages_used; k++)
		jc->page[jc->page_log[k]] = 0;
	jc->pages_used = 0;
}

void jc_clear(struct bt_vcpu *v, struct jump_cache *jc)
{
	uint64_t miss = jc_miss_code(v);

	if (!jc->used && !jc->entered)
		return;
	ring_clear(v, jc);
	pages_clear(jc);
	jc->entered = false;
	if (jc->used <= JC_LOG) {
		for (uint32_t k = 0; k < jc->used; k++)
			jc->entry[jc->log[k]].code = miss;
	} else {
		for (uint32_t k = 0; k < JC_ENTRIES; k++)
			jc->entry[k].code = miss;
	}
	bt_zero(jc->filter, sizeof(jc->filter));
	jc->used = 0;
	jc->has_local = false;
}

void jc_fill(struct bt_vcpu *v, struct jump_cache *jc)
{
	jc->used = JC_LOG + 1; /* nothing is known of it: clear it all */
	jc->pages_used = JC_PAGE_LOG + 1;
	jc_clear(v, jc);
}

static struct jump_cache *current_jc(struct bt_vcpu *v)
{
	return v->mode & MODE_USER ? &v->priv->slot->jc : bt_kernel_jc(v);
}

static void note_page(struct jump_cache *jc, uint64_t lin, bool global)
{
	jc->filter[page_filter(lin) >> 6] |= 1ull << (page_filter(lin) & 63);
	jc->has_local |= !global;
}

/* Takes the page out of the table that is found by @lin, if its address is the same but for bits that are not in @mask. */
static void forget_page(struct jump_cache *jc, uint64_t lin, uint64_t mask)
{
	uint64_t *page = &jc->page[jc->page_at[page_filter(lin)]];

	if (((*page ^ lin) & mask) == 0)
		*page = 0;
}

void jc_note(struct bt_vcpu *v, uint64_t lin, const struct block *b, bool global)
{
	struct jump_cache *jc = current_jc(v);
	uint32_t serial = blocks_serial(v->engine, b);
	unsigned k = jc_page_index(serial);
	uint64_t known = (lin & ~0xfffull) + jc_page_low(serial);

	note_page(jc, lin, global);
	jc->entered = true;
	if (jc->page[k] == known)
		return;
	forget_page(jc, lin, ~0xfffull & (JC_PAGES * 4096ull - 1)); /* whose place in page_at this one takes */
	jc->page_at[page_filter(lin)] = (uint16_t)k;
	if (jc->pages_used < JC_PAGE_LOG)
		jc->page_log[jc->pages_used] = (uint16_t)k;
	if (jc->pages_used <= JC_PAGE_LOG)
		jc->pages_used++;
	jc->page[k] = known;
}

void jc_insert(struct bt_vcpu *v, uint64_t lin, const struct block *b, bool global)
{
	struct jump_cache *jc = current_jc(v);
	struct jc_entry *e = &jc->entry[jc_index(lin)];

	if (jc->mode != b->mode) {
		jc_clear(v, jc);
		jc->mode = b->mode;
	}
	e->tag = lin;
	e->code = (uint64_t)(v->engine->cache_rx + b->jc_entry);
	if (jc->used < JC_LOG)
		jc->log[jc->used] = (uint16_t)jc_index(lin);
	if (jc->used <= JC_LOG)
		jc->used++;
	note_page(jc, lin, global);
	v->priv->stats.jc_fills++;
}

void jc_drop_page(struct bt_vcpu *v, struct jump_cache *jc, uint64_t lin)
{
	uint64_t page = lin >> 12, miss = jc_miss_code(v);

	if (!(jc->filter[page_filter(lin) >> 6] >> (page_filter(lin) & 63) & 1))
		return;
	ring_clear(v, jc);
	forget_page(jc, lin, ~0xfffull);
	if (jc->used <= JC_LOG) {
		for (uint32_t k = 0; k < jc->used; k++) {
			struct jc_entry *e = &jc->entry[jc->log[k]];

			if (e->tag >> 12 == page)
				e->code = miss;
		}
		return;
	}
	struct jc_entry *e = &jc->entry[jc_index(lin) & ~0xfffu];

	for (unsigned k = 0; k < 4096; k++)
		if (e[k].tag >> 12 == page)
			e[k].code = miss;
}

void jc_clear_all(struct bt_vcpu *v)
{
	jc_clear(v, bt_kernel_jc(v));
	for (unsigned s = 0; s < TLB_SLOTS; s++)
		if (v->priv->slots[s].ready)
			jc_clear(v, &v->priv->slots[s].jc);
}
