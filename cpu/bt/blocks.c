/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records of the code cache: where blocks are found, by address and by page, and the links between them.
 *
 * A block that is dropped stays in place, so that a vCPU that is in it can go on to its end; it is made unreachable: out of
 * the hash and its pages' lists, its incoming links pointed at their stubs again, its entries from the jump cache patched
 * to go to C.
 *
 * All with the engine's lock held, unless it says otherwise.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/private.h"

void blocks_forget_all(struct bt_engine *e)
{
	bt_zero(e->hash, sizeof(e->hash));
	bt_zero(e->insns, sizeof(e->insns));
	for (struct code_page *cp = code_page_at(e, e->pages); cp; cp = code_page_at(e, cp->next)) {
		e->code_pages[cp->index] = 0;
		e->page_state[cp->index] = 0;
	}
	e->pages = e->newest = 0;
	e->meta_used = RECORDS_START;
	e->insns_start = META_BYTES;
	bt_give_back(e->meta, META_BYTES);
	e->serial = 0;
}

uint32_t blocks_record(struct bt_engine *e, unsigned bytes, unsigned align)
{
	uint64_t at = align_up(e->meta_used, align);

	if (at + bytes > e->insns_start)
		return 0;
	e->meta_used = (uint32_t)(at + bytes);
	return (uint32_t)at;
}

/* ---- instructions ---- */

struct kept_insn {
	struct insn insn; /* first */
	uint32_t next;
};

static bool same_insn(const struct insn *a, const struct insn *b)
{
	const uint8_t *p = (const uint8_t *)a, *q = (const uint8_t *)b;

	for (unsigned k = 0; k < sizeof(*a); k++)
		if (p[k] != q[k])
			return false;
	return true;
}

const struct insn *blocks_insn(struct bt_engine *e, const struct insn *i)
{
	uint64_t h = ((uint64_t)i->op << 40 ^ (uint64_t)i->opcode << 32 ^ (uint64_t)i->imm ^ (uint64_t)i->disp << 8 ^ i->len ^
		      (uint64_t)i->rm << 24 ^ (uint64_t)i->base << 16) * 0x9e3779b97f4a7c15ull;
	uint32_t *first = &e->insns[h >> (64 - INSN_HASH_BITS)], ref;
	struct kept_insn *kept;

	for (uint32_t at = *first; at; at = kept->next) {
		kept = record_at(e, at);
		if (same_insn(&kept->insn, i))
			return &kept->insn;
	}
	ref = e->insns_start - (uint32_t)sizeof(*kept);
	if (ref < e->meta_used)
		return NULL;
	e->insns_start = ref;
	kept = record_at(e, ref);
	bt_copy(&kept->insn, i, sizeof(*i));
	kept->next = *first;
	*first = ref;
	return &kept->insn;
}

/* ---- by address ---- */

static unsigned hash_of(uint64_t gpa, uint32_t mode)
{
	uint64_t h = (gpa ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;

	return (unsigned)(h >> (64 - BLOCK_HASH_BITS));
}

struct block *blocks_find(struct bt_engine *e, uint64_t gpa, uint32_t page2, uint32_t mode)
{
	struct block *b = block_at(e, e->hash[hash_of(gpa, mode)]);

	while (b && !(block_gpa(b) == gpa && b->mode == mode && (!b->straddles || block_page2(b) == page2)))
		b = block_at(e, b->hash_next);
	return b;
}

bool blocks_known(struct bt_engine *e, uint64_t gpa, uint32_t mode)
{
	const struct code_page *cp = code_page_at(e, e->code_pages[ram_page_index(e, gpa)]);

	return cp && (cp->starts[(gpa & 0xfff) >> 8] >> (gpa >> 2 & 63) & 1) && blocks_find(e, gpa, NO_PAGE, mode);
}

/* ---- links ---- */

static void patch(struct bt_engine *e, const struct link *l, uint32_t target)
{
	uint32_t field = link_field(l);

	__atomic_store_n((uint32_t *)(e->cache_rw + field), target - (field + 4), __ATOMIC_RELEASE);
}

static void unpatch(struct bt_engine *e, const struct link *l)
{
	const struct block *from = link_from(l);
	bool user = from->mode & MODE_USER;
	uint32_t jump = user ? e->stub.jump_user : e->stub.jump_kernel, call = user ? e->stub.call_user : e->stub.call_kernel;

	patch(e, l, !l->by_cache ? from->cold_start + l->stub_at : l->call ? call : jump);
}

static void connect(struct bt_engine *e, struct link *l, struct block *to)
{
	l->to = record_of(e, to);
	l->next = to->in;
	to->in = record_of(e, l);
	patch(e, l,
	      l->call ? to->far_entry - BEHIND_CALL_BYTES : l->far ? to->far_entry : l->ret ? block_ret_entry(to) : l->backward ? block_poll_entry(to) : block_main_entry(to));
}

static void wait_for_block(struct bt_engine *e, struct code_page *cp, struct link *l)
{
	l->next = cp->waiting;
	cp->waiting = record_of(e, l);
}

/* Return addresses: to the blocks that are there already, and from those that wait for this one. */
static void connect_returns(struct bt_engine *e, struct block *b)
{
	struct code_page *cp = code_page_at(e, e->code_pages[b->page]);
	uint32_t mode = b->mode & ~MODE_PRIVATE_TWIN, *at = &cp->waiting;

	while (*at) {
		struct link *l = link_at(e, *at);
		const struct block *from = link_from(l);
		bool met = l->target == b->start && b->mode == (from->mode & ~MODE_PRIVATE_TWIN);

		if (!from->dead && !met) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		if (!from->dead)
			connect(e, l, b);
	}
	for (struct link *l = block_links(b), *end = l + b->link_count; l < end; l++) {
		if (!l->ret)
			continue;
		struct block *to = blocks_find(e, (uint64_t)b->page << 12 | l->target, NO_PAGE, mode);

		if (to && !to->straddles)
			connect(e, l, to);
		else
			wait_for_block(e, cp, l);
	}
}

uint32_t blocks_serial(const struct bt_engine *e, const struct block *b)
{
	return code_page_at(e, e->code_pages[b->page])->serial;
}

/*
 * A jump from another page leads to a block as long as the linear address is that of the block's page: the far entry looks
 * in the jump cache's table of pages, with T0 the linear target.
 */
static bool make_far_entry(struct bt_vcpu *v, struct block *b)
{
	struct bt_engine *e = v->engine;
	bool user = b->mode & MODE_USER;
	struct emit emit = {.base = e->cache_rw, .p = e->cache_rw + align_up(e->cache_used, 16),
			    .end = e->cache_rw + CODE_HOT_BYTES};
	struct emit *to = &emit;
	uint32_t serial = blocks_serial(e, b), at;

	emit_behind_call(to);
	at = emit_pos(to);
	emit_lea(to, true, T1, T0, H_NONE, 0, (int32_t)jc_page_low(serial) - (int32_t)b->start);
	emit_jump_cache_op(to, user, true, 0x3b, T1, H_NONE, 0,
			   offsetof(struct jump_cache, page) + 8 * jc_page_index(serial)); /* cmp */
	emit_jcc(to, CC_NE, user ? e->stub.jump_user : e->stub.jump_kernel);
	emit_jmp(to, block_ret_entry(b));
	if (to->full)
		return false;
	b->far_entry = at;
	e->cache_used = emit_pos(to);
	perfmap_far_entry(v, b);
	return true;
}

/* May it ever lead to this block? */
static bool may_link(const struct link *l, const struct block *from, const struct block *to)
{
	return !to->straddles && (l->far || to->page == from->page) && to->start == l->target &&
	       l->twin == !!(to->mode & MODE_PRIVATE_TWIN) &&
	       (to->mode & ~MODE_PRIVATE_TWIN) == (from->mode & ~MODE_PRIVATE_TWIN);
}

void blocks_link(struct bt_vcpu *v, uint32_t link, struct block *to)
{
	struct bt_engine *e = v->engine;
	struct link *l = link_at(e, link);

	bt_lock(&e->lock);
	const struct block *from = link_from(l);

	if (!l->to && !from->dead && !to->dead) {
		if (may_link(l, from, to) && (!l->far || to->far_entry || make_far_entry(v, to))) {
			connect(e, l, to);
			v->priv->stats.links++;
		} else if (l->far) { /* then it need not come here again */
			l->by_cache = true;
			unpatch(e, l);
		}
	}
	bt_unlock(&e->lock);
}

static void unlink_incoming(struct bt_engine *e, struct block *b)
{
	struct link *next;

	for (struct link *l = link_at(e, b->in); l; l = next) {
		next = link_at(e, l->next);
		l->to = 0;
		unpatch(e, l);
		if (l->ret)
			wait_for_block(e, code_page_at(e, e->code_pages[b->page]), l);
	}
	b->in = 0;
}

static void unlink_outgoing(struct bt_engine *e, struct block *b)
{
	for (struct link *l = block_links(b), *end = l + b->link_count; l < end; l++) {
		if (!l->to)
			continue;
		uint32_t *at = &block_at(e, l->to)->in, link = record_of(e, l);

		while (*at && *at != link)
			at = &link_at(e, *at)->next;
		if (*at)
			*at = l->next;
		l->to = 0;
	}
}

/* ---- dropping blocks ---- */

static void remove_from_hash(struct bt_engine *e, struct block *b)
{
	uint32_t *at = &e->hash[hash_of(block_gpa(b), b->mode)], block = record_of(e, b);

	while (*at && *at != block)
		at = &block_at(e, *at)->hash_next;
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
	if (!b->mem_at)
		return;
	kill_entry(e, b->jc_entry);
	kill_entry(e, block_ret_entry(b));
}

static uint32_t *next_in_page(struct block *b, uint32_t page)
{
	return b->page == page ? &b->page_next : &block_second(b)->page_next;
}

struct block *blocks_next_in_page(struct bt_engine *e, struct block *b, uint32_t page)
{
	return block_at(e, *next_in_page(b, page));
}

/* An instruction that straddles two pages of linear addresses may lie in one page of RAM, mapped twice. */
static bool in_two_pages(const struct block *b)
{
	return b->straddles && block_page2(b) != b->page;
}

static void remove_from_page(struct bt_engine *e, struct block *b, uint32_t page)
{
	uint32_t *at = &code_page_at(e, e->code_pages[page])->blocks, block = record_of(e, b);

	while (*at && *at != block)
		at = next_in_page(block_at(e, *at), page);
	if (*at)
		*at = *next_in_page(b, page);
}

void blocks_drop(struct bt_engine *e, struct block *b)
{
	b->dead = true;
	remove_from_hash(e, b);
	remove_from_page(e, b, b->page);
	if (in_two_pages(b))
		remove_from_page(e, b, block_page2(b));
	unlink_incoming(e, b);
	unlink_outgoing(e, b);
	kill_jc_entry(e, b);
}

/* ---- adding blocks ---- */

_Static_assert(META_BYTES / sizeof(struct code_page) + JC_PAGES < 4096 * JC_PAGES, "jc_page_low() is less than a page");

static bool page_prepare(struct bt_engine *e, uint32_t page)
{
	struct code_page *cp;
	uint32_t ref;

	if (e->code_pages[page])
		return true;
	ref = blocks_record(e, sizeof(*cp), _Alignof(struct code_page));
	if (!ref)
		return false;
	cp = record_at(e, ref);
	bt_zero(cp, sizeof(*cp));
	cp->index = page;
	cp->serial = JC_PAGES + e->serial++;
	cp->next = e->pages;
	e->pages = ref;
	e->code_pages[page] = ref;
	return true;
}

/* The 64-byte lines of the page that the block was made from: of a second page the first. */
uint64_t blocks_lines(const struct block *b, uint32_t page)
{
	uint64_t first = ~0ull << b->first_line & ~0ull >> (63 - b->last_line);

	return (b->page == page ? first : 0) | (block_page2(b) == page ? 1 : 0);
}

static void page_add(struct bt_engine *e, struct block *b, uint32_t page)
{
	struct code_page *cp = code_page_at(e, e->code_pages[page]);

	*next_in_page(b, page) = cp->blocks;
	cp->blocks = record_of(e, b);
	cp->lines |= blocks_lines(b, page);
	if (page == b->page)
		cp->starts[b->start >> 8] |= 1ull << (b->start >> 2 & 63);
}

bool blocks_add(struct bt_engine *e, struct block *b)
{
	unsigned h = hash_of(block_gpa(b), b->mode);
	bool two = in_two_pages(b);

	if (!page_prepare(e, b->page) || (two && !page_prepare(e, block_page2(b))))
		return false;
	page_add(e, b, b->page);
	if (two)
		page_add(e, b, block_page2(b));
	b->hash_next = e->hash[h];
	e->hash[h] = record_of(e, b);
	if (!b->straddles)
		connect_returns(e, b);
	b->older = e->newest;
	__atomic_store_n(&e->newest, record_of(e, b), __ATOMIC_RELEASE); /* signal handlers look without the lock */
	return true;
}
