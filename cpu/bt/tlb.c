/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The software TLB and the instruction TLB of one vCPU.
 *
 * A slot holds all that is known of one address space; with PCIDs a guest's process switch selects another
 * slot and flushes nothing. The kernel's jump cache is one for all slots and holds mostly global pages; when it has
 * entries of pages that are not global it is cleared at every switch.
 *
 * Entries are 4 KiB; those cut out of large pages are remembered in a filter, so that INVLPG of any address in
 * the large page finds them (SDM vol. 3, 4.10.4.1).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/private.h"

/* ---- slots ---- */

static unsigned table_size(const struct tlb_slot *s, unsigned c)
{
	return (unsigned)(s->info[c].mask / sizeof(struct tlb_entry)) + 1;
}

static void drop_entry(struct tlb_slot *s, unsigned c, unsigned k)
{
	s->table[c][k] = (struct tlb_entry){tlb_invalid_tag(k), tlb_invalid_tag(k), 0, 0};
}

static void resize_table(struct bt_vcpu *v, struct tlb_slot *s, unsigned c, unsigned entries)
{
	s->info[c].mask = (entries - 1) * (uint32_t)sizeof(struct tlb_entry);
	if (s == v->priv->slot)
		v->tlb_mask[c] = s->info[c].mask;
	s->info[c].filled = s->info[c].conflicts = 0;
	for (unsigned k = 0; k < entries; k++)
		drop_entry(s, c, k);
}

static void shrink_table(struct bt_vcpu *v, struct tlb_slot *s, unsigned c)
{
	if (table_size(s, c) == TLB_ENTRIES_MIN)
		return;
	bt_give_back(&s->table[c][TLB_ENTRIES_MIN], (table_size(s, c) - TLB_ENTRIES_MIN) * sizeof(s->table[c][0]));
	resize_table(v, s, c, TLB_ENTRIES_MIN);
}

static void clear_table(struct bt_vcpu *v, struct tlb_slot *s, unsigned c)
{
	struct tlb_table *t = &s->info[c];

	if (t->filled > TLB_LOG) {
		resize_table(v, s, c, table_size(s, c));
		return;
	}
	for (unsigned n = 0; n < t->filled; n++)
		drop_entry(s, c, t->log[n]);
	t->filled = 0;
	shrink_table(v, s, c); /* so much is not needed any more */
}

static void drop_local(struct tlb_slot *s, unsigned c)
{
	struct tlb_table *t = &s->info[c];
	bool all = t->filled > TLB_LOG;
	unsigned n = all ? table_size(s, c) : t->filled, kept = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned k = all ? i : t->log[i];

		if (!(s->table[c][k].info & TLB_GLOBAL))
			drop_entry(s, c, k);
		else if (kept++ < TLB_LOG)
			t->log[kept - 1] = (uint16_t)k;
	}
	t->filled = MIN(kept, TLB_LOG + 1);
}

/* Entry @k is about to be made that of @page. It has at most @max. True: the table has grown instead, and is empty. */
static bool note_fill(struct bt_vcpu *v, struct tlb_slot *s, unsigned c, unsigned k, uint64_t page, unsigned max)
{
	struct tlb_table *t = &s->info[c];
	const struct tlb_entry *e = &s->table[c][k];
	bool grows = false;

	if (e->read_tag == page) /* for writes now: it is in the log */
		return false;

	if (e->read_tag != tlb_invalid_tag(k) && ++t->conflicts > table_size(s, c) && table_size(s, c) < max) {
		grows = true;
		resize_table(v, s, c, 4 * table_size(s, c));
		k = tlb_index(s, c, page);
	}
	if (t->filled < TLB_LOG)
		t->log[t->filled] = (uint16_t)k;
	if (t->filled <= TLB_LOG)
		t->filled++;
	return grows;
}

static void flush_slot(struct bt_vcpu *v, struct tlb_slot *s, bool keep_global)
{
	for (unsigned c = 0; c < TLB_CLASSES; c++) {
		if (keep_global && c != TLB_USER)
			drop_local(s, c);
		else
			clear_table(v, s, c);
	}
	for (unsigned c = 0; c < TLB_CLASSES - 1; c++) {
		if (!s->itlb_used[c])
			continue;
		for (unsigned k = 0; k < ITLB_ENTRIES; k++)
			if (!keep_global || !(s->itlb[c][k].info & TLB_GLOBAL))
				s->itlb[c][k].tag = 0;
	}
	if (!keep_global) {
		bt_zero(s->large_2m, sizeof(s->large_2m));
		s->large_1g = 0;
	}
	jc_clear(v, &s->jc);
}

static void prepare_slot(struct bt_vcpu *v, struct tlb_slot *s, uint16_t pcid)
{
	if (!s->ready) {
		for (unsigned c = 0; c < TLB_CLASSES; c++)
			resize_table(v, s, c, TLB_ENTRIES_MIN);
		jc_fill(v, &s->jc);
		s->ready = true;
	} else {
		flush_slot(v, s, false);
		for (unsigned c = 0; c < TLB_CLASSES; c++)
			shrink_table(v, s, c);
	}
	s->valid = true;
	s->pcid = pcid;
}

void tlb_bind(struct bt_vcpu *v)
{
	uint64_t base = (uint64_t)v->priv->slot;

	if (v->engine->has_fsgsbase)
		__asm__ volatile("wrgsbase %0" : : "r"(base));
	else /* arch_prctl(ARCH_SET_GS) */
		__asm__ volatile("syscall" : : "a"(158), "D"(0x1001), "S"(base) : "rcx", "r11", "memory");
}

static void select_slot(struct bt_vcpu *v, struct tlb_slot *s)
{
	s->last_use = ++v->priv->slot_clock;
	if (v->priv->slot == s)
		return;
	v->priv->slot->jc.ring_top = v->ring_top[true];
	v->ring_top[true] = s->jc.ring_top;
	v->priv->slot = s;
	for (unsigned c = 0; c < TLB_CLASSES; c++)
		v->tlb_mask[c] = s->info[c].mask;
	tlb_bind(v);
}

void tlb_init(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;

	jc_fill(v, bt_kernel_jc(v));
	p->slot = &p->slots[0];
	prepare_slot(v, p->slot, 0);
}

static struct tlb_slot *find_slot(struct bt_vcpu *v, uint16_t pcid)
{
	for (unsigned k = 0; k < TLB_SLOTS; k++)
		if (v->priv->slots[k].valid && v->priv->slots[k].pcid == pcid)
			return &v->priv->slots[k];
	return NULL;
}

static struct tlb_slot *oldest_slot(struct bt_vcpu *v)
{
	struct tlb_slot *best = NULL;

	for (unsigned k = 0; k < TLB_SLOTS; k++) {
		struct tlb_slot *s = &v->priv->slots[k];

		if (!s->valid)
			return s;
		if (!best || s->last_use < best->last_use)
			best = s;
	}
	return best;
}

void bt_tlb_load_cr3(struct bt_vcpu *v, uint64_t cr3)
{
	bool pcide = v->cr4 & X86_CR4_PCIDE;
	bool keep = pcide && (cr3 >> 63);
	uint16_t pcid = pcide ? cr3 & 0xfff : 0;
	struct tlb_slot *s = find_slot(v, pcid);

	v->cr3 = cr3 & ~(1ull << 63);
	if (!s) {
		s = oldest_slot(v);
		prepare_slot(v, s, pcid);
	} else if (!keep) {
		flush_slot(v, s, true);
	}
	if (bt_kernel_jc(v)->has_local)
		jc_clear(v, bt_kernel_jc(v));
	select_slot(v, s);
}

void bt_tlb_flush_all(struct bt_vcpu *v)
{
	uint16_t pcid = v->cr4 & X86_CR4_PCIDE ? v->cr3 & 0xfff : 0;

	for (unsigned k = 0; k < TLB_SLOTS; k++) {
		struct tlb_slot *s = &v->priv->slots[k];

		if (s == v->priv->slot)
			flush_slot(v, s, false);
		else
			s->valid = false;
	}
	v->priv->slot->pcid = pcid;
	jc_clear(v, bt_kernel_jc(v));
}

static bool same_page(const struct tlb_entry *e, uint64_t page)
{
	return e->read_tag == page || e->write_tag == page;
}

/* Everything cut out of large pages goes: which one it was is not known any more. */
static void drop_large(struct bt_vcpu *v, struct tlb_slot *s)
{
	for (unsigned c = 0; c < TLB_CLASSES; c++)
		for (unsigned k = 0; k < table_size(s, c); k++)
			if (s->table[c][k].info & TLB_LARGE)
				drop_entry(s, c, k);
	for (unsigned c = 0; c < TLB_CLASSES - 1; c++)
		for (unsigned k = 0; k < ITLB_ENTRIES; k++)
			if (s->itlb[c][k].info & TLB_LARGE)
				s->itlb[c][k].tag = 0;
	bt_zero(s->large_2m, sizeof(s->large_2m));
	s->large_1g = 0;
	jc_clear(v, &s->jc);
	jc_clear(v, bt_kernel_jc(v));
}

static unsigned filter_2m(uint64_t lin)
{
	return (unsigned)(lin >> 21) & 511;
}

void bt_tlb_flush_page(struct bt_vcpu *v, uint64_t lin)
{
	uint64_t page = lin & ~0xfffull;
	unsigned ik = (unsigned)(lin >> 12) & (ITLB_ENTRIES - 1);

	for (unsigned n = 0; n < TLB_SLOTS; n++) {
		struct tlb_slot *s = &v->priv->slots[n];

		if (!s->valid)
			continue;
		for (unsigned c = 0; c < TLB_CLASSES; c++) {
			unsigned k = tlb_index(s, c, lin);

			if (same_page(&s->table[c][k], page))
				drop_entry(s, c, k);
		}
		for (unsigned c = 0; c < TLB_CLASSES - 1; c++)
			if (s->itlb[c][ik].tag == (page | 1))
				s->itlb[c][ik].tag = 0;
		if ((s->large_2m[filter_2m(lin) >> 6] >> (filter_2m(lin) & 63) & 1) ||
		    (s->large_1g >> (lin >> 30 & 63) & 1))
			drop_large(v, s);
		/* An instruction that straddles two pages is known under the first. */
		jc_drop_page(v, &s->jc, lin);
		jc_drop_page(v, &s->jc, lin - 4096);
	}
	jc_drop_page(v, bt_kernel_jc(v), lin);
	jc_drop_page(v, bt_kernel_jc(v), lin - 4096);
}

/* SDM vol. 2, INVPCID: 0 an address, 1 a context, 2 all with global, 3 all but global. More than asked is allowed. */
void bt_tlb_invpcid(struct bt_vcpu *v, unsigned type, unsigned pcid, uint64_t lin)
{
	if (type == 2) {
		bt_tlb_flush_all(v);
		return;
	}
	if (type == 3) {
		for (unsigned k = 0; k < TLB_SLOTS; k++)
			if (&v->priv->slots[k] != v->priv->slot)
				v->priv->slots[k].valid = false;
		flush_slot(v, v->priv->slot, true);
		if (bt_kernel_jc(v)->has_local)
			jc_clear(v, bt_kernel_jc(v));
		return;
	}
	struct tlb_slot *s = find_slot(v, (uint16_t)pcid);

	if (!s)
		return;
	if (type == 0 && s == v->priv->slot)
		bt_tlb_flush_page(v, lin);
	else if (s == v->priv->slot) {
		flush_slot(v, s, true);
		if (bt_kernel_jc(v)->has_local)
			jc_clear(v, bt_kernel_jc(v));
	} else
		s->valid = false;
}

/* ---- who may write ---- */

/* Announces this vCPU as a writer of the page; false: it holds code, and writes must come through C. */
static bool own_page(struct bt_vcpu *v, uint64_t gpa)
{
	struct bt_engine *e = v->engine;
	_Atomic uint8_t *state = &e->page_state[ram_page_index(e, gpa)];
	uint8_t old, now;

	/* Before the look at PAGE_CODE: who sets it looks here after it (cache.c, watch_page). */
	if (!atomic_load_explicit(&v->priv->may_write[may_write_index(gpa)], memory_order_relaxed))
		atomic_store(&v->priv->may_write[may_write_index(gpa)], 1);
	old = atomic_load(state);
	do {
		unsigned owner = old & PAGE_OWNER_MASK;

		if (old & PAGE_CODE)
			return false;
		now = owner && owner != v->index + 1 ? PAGE_OWNER_MANY : (uint8_t)(v->index + 1);
		if (now == old)
			return true;
	} while (!atomic_compare_exchange_weak(state, &old, now));
	return true;
}

void tlb_revoke_writes(struct bt_vcpu *v)
{
	for (unsigned n = 0; n < TLB_SLOTS; n++) {
		struct tlb_slot *s = &v->priv->slots[n];

		for (unsigned c = 0; s->valid && c < TLB_CLASSES; c++)
			for (unsigned k = 0; s->info[c].filled && k < table_size(s, c); k++)
				s->table[c][k].write_tag = tlb_invalid_tag(k);
	}
	bt_zero((void *)v->priv->may_write, sizeof(v->priv->may_write));
}

/* ---- filling ---- */

enum tlb_class tlb_class_of(const struct bt_vcpu *v, unsigned access)
{
	if (access & BT_AS_USER)
		return TLB_USER;
	if (access & BT_SYSTEM)
		return v->cr4 & X86_CR4_SMAP ? TLB_SUPER : TLB_SUPER_OPEN;
	return (enum tlb_class)tlb_class_of_mode(v->mode);
}

static void note_large(struct tlb_slot *s, uint64_t lin, const struct tlb_page *pg)
{
	if (pg->large_1g)
		s->large_1g |= 1ull << (lin >> 30 & 63);
	else if (pg->large)
		s->large_2m[filter_2m(lin) >> 6] |= 1ull << (filter_2m(lin) & 63);
}

enum bt_result tlb_lookup(struct bt_vcpu *v, uint64_t lin, unsigned access, uint8_t **host,
			  uint64_t *gpa, bool *code)
{
	struct tlb_slot *s = v->priv->slot;
	unsigned c = tlb_class_of(v, access), k = tlb_index(s, c, lin);
	struct tlb_entry *e = &s->table[c][k];
	uint64_t page = lin & ~0xfffull;
	bool write = access & BT_WRITE;
	struct tlb_page pg;

	*code = false;
	if ((write ? e->write_tag : e->read_tag) == page) {
		*host = (uint8_t *)e->host;
		*gpa = e->info & ~0xfffull;
		return BT_NEXT;
	}
	if (write && e->read_tag == page && (e->info & TLB_WRITE_CODE) &&
	    (v->engine->page_state[ram_page_index(v->engine, e->info)] & PAGE_CODE)) {
		*host = (uint8_t *)e->host;
		*gpa = e->info & ~0xfffull;
		*code = true;
		return BT_NEXT;
	}
	if (tlb_walk(v, lin, access, &pg) != BT_NEXT)
		return BT_FAULT;
	*gpa = pg.gpa;
	*host = NULL;
	if (!mem_is_ram(v->engine->mem, pg.gpa))
		return BT_NEXT;
	*host = v->engine->mem->ram_base + pg.gpa;

	struct dirty_log *log = &v->engine->dirty;
	bool may_write = pg.dirty && (pg.writable || (c != TLB_USER && !(v->cr0 & X86_CR0_WP)));

	/* Who only reads does not become a writer. */
	if (atomic_load_explicit(&log->on, memory_order_relaxed))
		may_write = may_write && write;

	if (note_fill(v, s, c, k, page, v->engine->debug_opts & BT_OPT_SMALL_TLB ? TLB_ENTRIES_MIN : TLB_ENTRIES_MAX)) {
		k = tlb_index(s, c, lin);
		e = &s->table[c][k];
	}

	bool through_c = may_write && !own_page(v, pg.gpa);

	if (through_c) {
		may_write = false;
		*code = write;
	}
	if (may_write)
		dirty_mark(log, pg.gpa);
	e->read_tag = page;
	e->write_tag = may_write ? page : tlb_invalid_tag(k);
	e->host = (uint64_t)*host;
	e->info = pg.gpa | (pg.global ? TLB_GLOBAL : 0) | (pg.large ? TLB_LARGE : 0) |
		  (through_c ? TLB_WRITE_CODE : 0);
	note_large(s, lin, &pg);
	v->priv->stats.tlb_fills++;
	return BT_NEXT;
}

enum bt_result tlb_fetch(struct bt_vcpu *v, uint64_t lin, uint64_t *gpa, bool *global)
{
	struct tlb_slot *s = v->priv->slot;
	unsigned c = v->cpl == 3 ? TLB_USER : TLB_SUPER;
	struct itlb_entry *e = &s->itlb[c][(lin >> 12) & (ITLB_ENTRIES - 1)];
	uint64_t page = lin & ~0xfffull;
	struct tlb_page pg;

	if (e->tag != (page | 1)) {
		if (bt_code64(v) && !bt_canonical(lin))
			return bt_raise_error(v, X86_GP, 0);
		if (tlb_walk(v, lin, BT_FETCH, &pg) != BT_NEXT)
			return BT_FAULT;
		e->tag = page | 1;
		e->info = pg.gpa | (pg.global ? TLB_GLOBAL : 0) | (pg.large ? TLB_LARGE : 0);
		s->itlb_used[c] = true;
		note_large(s, lin, &pg);
	}
	*gpa = (e->info & ~0xfffull) | (lin & 0xfff);
	*global = e->info & TLB_GLOBAL;
	return BT_NEXT;
}
