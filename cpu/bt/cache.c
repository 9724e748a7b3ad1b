/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: blocks by guest-physical address and mode, links between them, and what happens when the
 * guest memory that they were made from changes.
 *
 * Memory is given out from the front and taken back only all at once, by cache_flush() with the world stopped; a
 * block that is dropped stays in place until then, so that a vCPU that is in it can go on to its end. It is
 * made unreachable: out of the hash, its incoming links pointed at their stubs again, its jump-cache entry
 * patched to go to C.
 *
 * Pages with code: PAGE_CODE is set in page_state before the bytes are read; from then on no TLB entry allows
 * writes to the page (tlb.c looks at the bit after announcing itself as the page's owner, here owners are looked at
 * after setting the bit, and asked to forget).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/private.h"

void *cache_meta_alloc(struct bt_engine *e, uint64_t bytes)
{
	uint64_t at = align_up(e->meta_used, 16);

	if (at + bytes > META_BYTES)
		return NULL;
	e->meta_used = at + bytes;
	return e->meta + at;
}

static unsigned hash_of(uint64_t gpa, uint32_t mode)
{
	uint64_t h = (gpa ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;

	return (unsigned)(h >> (64 - BLOCK_HASH_BITS));
}

static struct block *find(struct bt_engine *e, uint64_t gpa, uint64_t gpa2, uint32_t mode)
{
	struct block *b = e->hash[hash_of(gpa, mode)];

	while (b && !(b->gpa == gpa && b->mode == mode && (b->gpa2 == ~0ull || b->gpa2 == gpa2)))
		b = b->hash_next;
	return b;
}

bool cache_known(struct bt_engine *e, uint64_t gpa, uint32_t mode)
{
	const struct code_page *cp = e->code_pages[ram_page_index(e, gpa)];

	return cp && (cp->starts[(gpa & 0xfff) >> 6] >> (gpa & 63) & 1) && find(e, gpa, ~0ull, mode);
}

/* ---- links ---- */

static void patch_field(struct bt_engine *e, uint32_t field, uint32_t target)
{
	__atomic_store_n((uint32_t *)(e->cache_rw + field), target - (field + 4), __ATOMIC_RELEASE);
}

static void connect(struct bt_engine *e, struct link *l, struct block *to)
{
	l->to = to;
	l->next_in = to->in;
	to->in = l;
	patch_field(e, l->field, l->ret ? to->ret_entry : l->backward ? to->poll_entry : to->main_entry);
}

/* Return addresses: to the blocks that are there already, and from those that wait for this one. Lock held. */
static void connect_returns(struct bt_engine *e, struct block *b)
{
	uint64_t page = b->gpa & ~0xfffull;
	struct code_page *cp = e->code_pages[ram_page_index(e, page)];
	uint32_t mode = b->mode & ~MODE_PRIVATE_TWIN;
	struct link **at = &cp->waiting;

	while (*at) {
		struct link *l = *at;

		if (l->from->dead) {
			*at = l->next_waiting;
			continue;
		}
		if (!l->to && l->target == (b->gpa & 0xfff) && b->mode == (l->from->mode & ~MODE_PRIVATE_TWIN) &&
		    b->gpa2 == ~0ull)
			connect(e, l, b);
		at = &l->next_waiting;
	}
	for (struct link *l = b->links; l; l = l->next_out) {
		if (!l->ret)
			continue;
		l->next_waiting = cp->waiting;
		cp->waiting = l;
		struct block *to = find(e, page + l->target, ~0ull, mode);

		if (to && to->gpa2 == ~0ull)
			connect(e, l, to);
	}
}

void cache_link(struct bt_vcpu *v, struct link *l, struct block *to)
{
	struct bt_engine *e = v->engine;

	bt_lock(&e->lock);
	if (!l->to && !l->from->dead && !to->dead && to->gpa2 == ~0ull &&
	    (to->gpa & ~0xfffull) == (l->from->gpa & ~0xfffull) &&
	    (to->gpa & 0xfff) == l->target && l->twin == !!(to->mode & MODE_PRIVATE_TWIN) &&
	    (to->mode & ~MODE_PRIVATE_TWIN) == (l->from->mode & ~MODE_PRIVATE_TWIN)) {
		connect(e, l, to);
		v->priv->stats.links++;
	}
	bt_unlock(&e->lock);
}

static void unlink_incoming(struct bt_engine *e, struct block *b)
{
	for (struct link *l = b->in; l; l = l->next_in) {
		l->to = NULL;
		patch_field(e, l->field, l->stub);
	}
	b->in = NULL;
}

static void unlink_outgoing(struct block *b)
{
	for (struct link *l = b->links; l; l = l->next_out) {
		if (!l->to)
			continue;
		struct link **at = &l->to->in;

		while (*at && *at != l)
			at = &(*at)->next_in;
		if (*at)
			*at = l->next_in;
		l->to = NULL;
	}
}

/* ---- dropping blocks ---- */

static void remove_from_hash(struct bt_engine *e, struct block *b)
{
	struct block **at = &e->hash[hash_of(b->gpa, b->mode)];

	while (*at && *at != b)
		at = &(*at)->hash_next;
	if (*at)
		*at = b->hash_next;
}

static void kill_entry(struct bt_engine *e, uint32_t pos)
{
	uint64_t *at = (uint64_t *)(e->cache_rw + pos);
	uint64_t old = *at, jump = 0xe9;

	jump |= (uint64_t)(e->stub.lookup_mem - (pos + 5)) << 8 & 0xffffffff00ull;
	__atomic_store_n(at, (old & ~0xffffffffffull) | jump, __ATOMIC_RELEASE);
}

/*
 * The first bytes of the entries from jump cache and ring become "jmp lookup_mem"; T0 is the target there. They are
 * one instruction each, so that a vCPU is before or behind them. A one-instruction block has no such entry and is in no jump cache: what
 * stands there is its body, of several short instructions, and another vCPU may be in the middle of it.
 */
static void kill_jc_entry(struct bt_engine *e, struct block *b)
{
	if (b->mem_entry == b->jc_entry)
		return;

	kill_entry(e, b->jc_entry);
	kill_entry(e, b->ret_entry);
}

static struct block **next_in_page(struct block *b, uint64_t page)
{
	return (b->gpa & ~0xfffull) == page ? &b->page_next : &b->page2_next;
}

/* An instruction that straddles two pages of linear addresses may lie in one page of RAM, mapped twice. */
static bool in_two_pages(const struct block *b)
{
	return b->gpa2 != ~0ull && b->gpa2 != (b->gpa & ~0xfffull);
}

static void remove_from_page(struct bt_engine *e, struct block *b, uint64_t page)
{
	struct code_page *cp = e->code_pages[ram_page_index(e, page)];
	struct block **at = &cp->blocks;

	while (*at && *at != b)
		at = next_in_page(*at, page);
	if (*at)
		*at = *next_in_page(b, page);
}

static void drop_block(struct bt_engine *e, struct block *b)
{
	b->dead = true;
	remove_from_hash(e, b);
	remove_from_page(e, b, b->gpa & ~0xfffull);
	if (in_two_pages(b))
		remove_from_page(e, b, b->gpa2);
	unlink_incoming(e, b);
	unlink_outgoing(b);
	kill_jc_entry(e, b);
}

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
	uint64_t page = gpa & ~0xfffull, index = ram_page_index(e, gpa);
	uint64_t mask = line_mask(gpa & 0xfff, len);
	bool dropped = false;

	if (index >= e->page_count || !(e->page_state[index] & PAGE_CODE))
		return false;
	bt_lock(&e->lock);
	struct code_page *cp = e->code_pages[index];

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

		for (struct block *b = cp->blocks; b; b = next) {
			bool first = (b->gpa & ~0xfffull) == page;
			uint64_t lines = first ? b->lines : b->lines2;

			next = *next_in_page(b, page);
			if (lines & mask) {
				drop_block(e, b);
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
	bt_zero(e->hash, sizeof(e->hash));
	for (struct code_page *cp = e->pages; cp; cp = cp->next) {
		e->code_pages[cp->index] = NULL;
		e->page_state[cp->index] = 0;
	}
	e->pages = NULL;
	e->cache_used = e->cache_stubs_end;
	e->cold_used = CODE_HOT_BYTES;
	e->meta_used = 0;
	e->newest = NULL;
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

static bool page_prepare(struct bt_engine *e, uint64_t page)
{
	uint64_t index = ram_page_index(e, page);
	struct code_page *cp = e->code_pages[index];

	if (cp)
		return true;
	cp = cache_meta_alloc(e, sizeof(*cp));
	if (!cp)
		return false;
	bt_zero(cp, sizeof(*cp));
	cp->index = index;
	cp->next = e->pages;
	e->pages = cp;
	e->code_pages[index] = cp;
	return true;
}

static void page_add(struct bt_engine *e, struct block *b, uint64_t page, uint64_t lines)
{
	struct code_page *cp = e->code_pages[ram_page_index(e, page)];

	*next_in_page(b, page) = cp->blocks;
	cp->blocks = b;
	cp->lines |= lines;
	if (page == (b->gpa & ~0xfffull))
		cp->starts[(b->gpa & 0xfff) >> 6] |= 1ull << (b->gpa & 63);
}

/* Makes the block known: wholly, or not at all (false: no room). */
static bool publish(struct bt_engine *e, struct block *b)
{
	unsigned h = hash_of(b->gpa, b->mode);
	bool two = in_two_pages(b);

	if (!page_prepare(e, b->gpa & ~0xfffull) || (two && !page_prepare(e, b->gpa2)))
		return false;
	b->lines |= b->gpa2 != ~0ull && !two ? b->lines2 : 0;
	page_add(e, b, b->gpa & ~0xfffull, b->lines);
	if (two)
		page_add(e, b, b->gpa2, b->lines2);
	b->hash_next = e->hash[h];
	e->hash[h] = b;
	if (b->gpa2 == ~0ull)
		connect_returns(e, b);
	b->older = e->newest;
	__atomic_store_n(&e->newest, b, __ATOMIC_RELEASE); /* signal handlers look without the lock */
	return true;
}

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
			run_revoke_writes_all(v);
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

static struct block *make(struct bt_vcpu *v, uint64_t gpa, uint64_t gpa2, uint32_t mode)
{
	struct bt_engine *e = v->engine;
	const uint8_t *ram = e->mem->ram_base;
	struct block *b;

	for (;;) {
		uint32_t given_up = atomic_load(&e->given_up);

		watch_page(v, gpa);
		if (gpa2 != ~0ull)
			watch_page(v, gpa2);
		bt_lock(&e->lock);
		if (given_up == atomic_load(&e->given_up))
			break; /* else it may have been this page, and it may have an owner again */
		bt_unlock(&e->lock);
	}
	forget_owner(e, gpa);
	if (gpa2 != ~0ull)
		forget_owner(e, gpa2);
	b = find(e, gpa, gpa2, mode);
	if (!b) {
		b = translate(v, gpa, ram + (gpa & ~0xfffull), gpa2,
			      gpa2 == ~0ull ? NULL : ram + gpa2, mode);
		if (b && b->guest_len && !publish(e, b))
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
		struct block *b = find(e, gpa, ~0ull, mode);

		bt_unlock(&e->lock);
		if (b && b->gpa2 == ~0ull)
			return b;
		if (!b)
			b = make(v, gpa, ~0ull, mode);
		if (b && b->guest_len && b->gpa2 == ~0ull)
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
			b = make(v, gpa, gpa2, mode);
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
	for (struct block *b = __atomic_load_n(&e->newest, __ATOMIC_ACQUIRE); b; b = b->older)
		if (pos >= b->jc_entry && pos < b->code_end)
			return b;
	return NULL;
}
