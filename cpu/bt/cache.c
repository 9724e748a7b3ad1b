/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: getting the block for an address, and what happens when the guest memory that blocks were made from
 * changes.
 *
 * Room for code and records is given out from the front and taken back only all at once, by cache_flush() with the world
 * stopped; a block that is dropped stays in place until then (blocks.c).
 *
 * Pages with code: PAGE_CODE is set in page_state before the bytes are read; from then on no TLB entry allows
 * writes to the page (tlb.c looks at the bit after announcing itself as the page's owner, here owners are looked at
 * after setting the bit, and asked to forget).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/private.h"

static uint64_t line_mask(unsigned off, unsigned len)
{
	unsigned first = off >> 6, last = (off + len - 1) >> 6;

	return (~0ull << first) & (~0ull >> (63 - last));
}

/* The page may be written again without our notice. Lock held. */
static void give_up(struct bt_engine *e, uint64_t index)
{
	e->given_up++;
	e->page_state[index] = 0;
}

/* A page that is written again and again through the slow path is given up as a page of code. */
#define SLOW_WRITES_MAX 64

bool cache_invalidate(struct bt_engine *e, uint64_t gpa, unsigned len)
{
	uint64_t index = ram_page_index(e, gpa);
	uint64_t mask = line_mask(gpa & 0xfff, len);
	bool dropped = false;

	if (index >= e->page_count || !(e->page_state[index] & PAGE_CODE))
		return false;
	bt_lock(&e->lock);
	struct code_page *cp = code_page_at(e, e->code_pages[index]);

	if (!cp) { /* watched, but nothing was made of it */
		give_up(e, index);
		bt_unlock(&e->lock);
		return false;
	}
	if (++cp->slow_writes > SLOW_WRITES_MAX)
		mask = ~0ull;
	if (cp->lines & mask) {
		struct block *next;
		uint64_t left = 0;

		for (struct block *b = block_at(e, cp->blocks); b; b = next) {
			uint64_t lines = blocks_lines(b, (uint32_t)index);

			next = blocks_next_in_page(e, b, (uint32_t)index);
			if (lines & mask) {
				blocks_drop(e, b);
				dropped = true;
			} else {
				left |= lines;
			}
		}
		cp->lines = left;
	}
	if (!cp->blocks) {
		cp->slow_writes = 0;
		give_up(e, index);
	}
	bt_unlock(&e->lock);
	return dropped;
}

void cache_flush(struct bt_engine *e)
{
	bt_lock(&e->lock);
	e->cache_flushes++;
	blocks_forget_all(e);
	e->cache_used = e->cache_stubs_end;
	e->cold_used = CODE_HOT_BYTES;
	for (unsigned k = 0; k < e->vcpu_count; k++) {
		struct bt_vcpu *v = e->vcpus[k];

		jc_clear(v, bt_kernel_jc(v));
		for (unsigned s = 0; s < TLB_SLOTS; s++)
			if (v->priv->slots[s].ready)
				jc_clear(v, &v->priv->slots[s].jc);
		v->exit_link = 0;
	}
	bt_unlock(&e->lock);
}

/* ---- making blocks ---- */

/* Makes sure that nobody writes to the page unseen, unless it is given up again. No lock is held. */
static void watch_page(struct bt_vcpu *v, uint64_t gpa)
{
	struct bt_engine *e = v->engine;
	_Atomic uint8_t *state = &e->page_state[ram_page_index(e, gpa)];
	uint8_t old = atomic_fetch_or(state, PAGE_CODE);
	unsigned owner = old & PAGE_OWNER_MASK;

	if (!owner)
		return;
	for (unsigned k = 0; k < e->vcpu_count; k++) {
		if (owner != PAGE_OWNER_MANY && owner != k + 1)
			continue;
		if (!atomic_load(&e->vcpus[k]->priv->may_write[may_write_index(gpa)]))
			continue;
		/* All pages at once: the next ones will find nothing to do. */
		if (e->vcpus[k] == v) {
			tlb_revoke_writes(v);
		} else {
			run_revoke_writes_all(e, v);
			return;
		}
	}
}

/*
 * Who was asked has forgotten; without an owner the page stays so while it holds code. Lock held, and nothing has
 * been given up since before watch_page().
 */
static void forget_owner(struct bt_engine *e, uint64_t gpa)
{
	atomic_fetch_and(&e->page_state[ram_page_index(e, gpa)], (uint8_t)~PAGE_OWNER_MASK);
}

/* @page2: the number of the second page, or NO_PAGE. */
static struct block *make(struct bt_vcpu *v, uint64_t gpa, uint32_t page2, uint32_t mode)
{
	struct bt_engine *e = v->engine;
	const uint8_t *ram = e->mem->ram_base;
	struct block *b;

	for (;;) {
		uint32_t given_up = atomic_load(&e->given_up);

		watch_page(v, gpa);
		if (page2 != NO_PAGE)
			watch_page(v, (uint64_t)page2 << 12);
		bt_lock(&e->lock);
		if (given_up == atomic_load(&e->given_up))
			break; /* else it may have been this page, and it may have an owner again */
		bt_unlock(&e->lock);
	}
	forget_owner(e, gpa);
	if (page2 != NO_PAGE)
		forget_owner(e, (uint64_t)page2 << 12);
	b = blocks_find(e, gpa, page2, mode);
	if (!b) {
		b = translate(v, gpa, ram + (gpa & ~0xfffull), page2, page2 == NO_PAGE ? NULL : ram + ((uint64_t)page2 << 12),
			      mode);
		if (b && b->guest_len && !blocks_add(e, b))
			b = NULL;
		if (b && b->guest_len)
			perfmap_block(v, b);
	}
	bt_unlock(&e->lock);
	return b;
}

static struct block *get_at(struct bt_vcpu *v, uint64_t lin, uint32_t mode, bool *global)
{
	struct bt_engine *e = v->engine;
	uint64_t gpa, gpa2;
	bool global2;

	if (tlb_fetch(v, lin, &gpa, global) != BT_NEXT)
		return NULL;
	if (!mem_is_ram(e->mem, gpa)) { /* nothing answers: all ones, which is no instruction */
		bt_raise(v, X86_UD);
		return NULL;
	}
	for (;;) {
		bt_lock(&e->lock);
		struct block *b = blocks_find(e, gpa, NO_PAGE, mode);

		bt_unlock(&e->lock);
		if (b && !b->straddles)
			return b;
		if (!b)
			b = make(v, gpa, NO_PAGE, mode);
		if (b && b->guest_len && !b->straddles)
			return b;
		if (b) { /* it goes on in the next page */
			uint64_t next = (lin | 0xfff) + 1;

			if (!bt_code64(v))
				next = (uint32_t)next;
			if (tlb_fetch(v, next, &gpa2, &global2) != BT_NEXT)
				return NULL;
			*global &= global2;
			if (!mem_is_ram(e->mem, gpa2)) {
				bt_raise(v, X86_UD);
				return NULL;
			}
			b = make(v, gpa, (uint32_t)(gpa2 >> 12), mode);
			if (b)
				return b;
		}
		exclusive_begin(v); /* the cache is full */
		cache_flush(e);
		v->priv->stats.flushes++;
		exclusive_end(v);
	}
}

struct block *cache_get(struct bt_vcpu *v, uint32_t mode, bool *global)
{
	struct block *b;

	if (v->mode & MODE_FLAT_CODE)
		return get_at(v, v->cs_base + v->rip, mode, global);

	/* The limit of CS (SDM vol. 3, 5.3): a block that goes past it is taken one instruction at a time. */
	uint64_t limit = v->seg[X86_CS].limit;

	if (v->rip > limit) {
		bt_raise_error(v, X86_GP, 0);
		return NULL;
	}
	b = get_at(v, (uint32_t)(v->cs_base + v->rip), mode, global);
	if (b && v->rip + b->guest_len - 1 > limit) {
		b = get_at(v, (uint32_t)(v->cs_base + v->rip), mode | MODE_PRIVATE_BOUNCE, global);
		if (b && v->rip + b->guest_len - 1 > limit) {
			bt_raise_error(v, X86_GP, 0);
			return NULL;
		}
	}
	return b;
}

/* ---- from host code back to the block ---- */

struct block *cache_find_host(struct bt_engine *e, uint32_t pos)
{
	/*
	 * Host exceptions are rare: a walk over all blocks will do. The hash changes under the lock, which
	 * the faulting thread does not hold; dropped blocks are found through the allocation order instead.
	 */
	for (struct block *b = block_at(e, __atomic_load_n(&e->newest, __ATOMIC_ACQUIRE)); b; b = block_at(e, b->older))
		if (pos >= b->jc_entry && pos < block_code_end(b))
			return b;
	return NULL;
}
