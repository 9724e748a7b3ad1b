/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory from C: loads and stores of instructions that are done in C, the slow path of translated
 * memory accesses, and accesses through the bounce buffer.
 *
 * A translated access comes here (bt_mem_slow) when the TLB has no entry that allows it. If the page is RAM and
 * the access stays in it, the host pointer goes back and the instruction runs as translated. Otherwise (MMIO, two
 * pages, a write over translated code) translated code is left with EXIT_BOUNCE, and the instruction runs
 * alone, as a block in which every operand is copied to priv->bounce before (bt_bounce_in) and from there after
 * it (bt_bounce_out).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/private.h"

/* ---- one page ---- */

struct piece {
	uint8_t *host; /* NULL: not RAM */
	uint64_t gpa;
	unsigned len;
};

/* [lin, lin+len), len ≤ 4096, as one or two pieces; all checked for @access. */
static enum bt_result split(struct bt_vcpu *v, uint64_t lin, unsigned len, unsigned access,
			    struct piece piece[2])
{
	unsigned first = MIN(len, MEM_PAGE_SIZE - (unsigned)(lin & 0xfff));
	bool wide = bt_code64(v) || (bt_long_mode(v) && (access & (BT_SYSTEM | BT_AS_USER)));

	piece[1].len = len - first;
	for (unsigned k = 0; k < 2; k++) {
		uint64_t at = k ? lin + first : lin;
		bool code;

		if (k)
			len = piece[1].len;
		else
			piece[0].len = first;
		if (k && !piece[1].len)
			break;
		if (!wide)
			at = (uint32_t)at;
		else if (!bt_canonical(at))
			return bt_raise_error(v, X86_GP, 0);
		if (tlb_lookup(v, at, access, &piece[k].host, &piece[k].gpa, &code) != BT_NEXT)
			return BT_FAULT;
		piece[k].gpa |= at & 0xfff;
		if (piece[k].host)
			piece[k].host += at & 0xfff;
	}
	return BT_NEXT;
}

/*
 * RAM has been written through C: code made from it goes. Who makes code sets PAGE_CODE and then reads; here it must
 * be the other way round.
 */
static void wrote(struct bt_vcpu *v, uint64_t gpa, unsigned len)
{
	struct bt_engine *e = v->engine;

	dirty_mark(&e->dirty, gpa);
	atomic_thread_fence(memory_order_seq_cst);
	if ((e->page_state[ram_page_index(e, gpa)] & PAGE_CODE) && cache_invalidate(e, gpa, len))
		v->priv->stats.smc_invalidations++;
}

static void mmio_bytes(struct bt_vcpu *v, uint64_t gpa, uint8_t *buf, unsigned len, bool write)
{
	while (len) {
		unsigned n = len >= 8 && !(gpa & 7) ? 8 : len >= 4 && !(gpa & 3) ? 4
			     : len >= 2 && !(gpa & 1) ? 2 : 1;
		uint64_t value = 0;

		if (write) {
			bt_copy(&value, buf, n);
			bt_mmio_write(v, gpa, value, n);
		} else {
			value = bt_mmio_read(v, gpa, n);
			bt_copy(buf, &value, n);
		}
		gpa += n;
		buf += n;
		len -= n;
	}
}

static void read_piece(struct bt_vcpu *v, const struct piece *p, uint8_t *buf)
{
	if (!p->host) {
		mmio_bytes(v, p->gpa, buf, p->len, false);
		return;
	}
	switch (p->len) { /* single accesses where the CPU would make one */
	case 8: *(uint64_t *)buf = *(volatile uint64_t *)p->host; break;
	case 4: *(uint32_t *)buf = *(volatile uint32_t *)p->host; break;
	case 2: *(uint16_t *)buf = *(volatile uint16_t *)p->host; break;
	case 1: *buf = *(volatile uint8_t *)p->host; break;
	default: bt_copy(buf, p->host, p->len); break;
	}
}

static void write_piece(struct bt_vcpu *v, const struct piece *p, const uint8_t *buf)
{
	if (!p->host) {
		mmio_bytes(v, p->gpa, (uint8_t *)buf, p->len, true);
		return;
	}
	switch (p->len) {
	case 8: *(volatile uint64_t *)p->host = *(const uint64_t *)buf; break;
	case 4: *(volatile uint32_t *)p->host = *(const uint32_t *)buf; break;
	case 2: *(volatile uint16_t *)p->host = *(const uint16_t *)buf; break;
	case 1: *(volatile uint8_t *)p->host = *buf; break;
	default: bt_copy(p->host, buf, p->len); break;
	}
	wrote(v, p->gpa, p->len);
}

/* ---- for C code ---- */

enum bt_result bt_load_bytes(struct bt_vcpu *v, uint64_t lin, void *buf, unsigned len,
			     unsigned access)
{
	struct piece p[2];

	if (!len)
		return BT_NEXT;
	if (split(v, lin, len, access, p) != BT_NEXT)
		return BT_FAULT;
	if ((v->mode & MODE_STEP) && !(access & BT_SYSTEM))
		debug_data_access(v, lin, len, false);
	read_piece(v, &p[0], buf);
	if (p[1].len)
		read_piece(v, &p[1], (uint8_t *)buf + p[0].len);
	return BT_NEXT;
}

enum bt_result bt_store_bytes(struct bt_vcpu *v, uint64_t lin, const void *buf, unsigned len,
			      unsigned access)
{
	struct piece p[2];

	if (!len)
		return BT_NEXT;
	if (split(v, lin, len, access | BT_WRITE, p) != BT_NEXT)
		return BT_FAULT;
	if ((v->mode & MODE_STEP) && (access & (BT_SYSTEM | BT_FRAME)) != BT_SYSTEM) {
		debug_data_access(v, lin, len, true);
		if ((access & BT_FRAME) && v->priv->step_dr6)
			v->trap_pending |= TRAP_FRAME;
	}
	write_piece(v, &p[0], buf);
	if (p[1].len)
		write_piece(v, &p[1], (const uint8_t *)buf + p[0].len);
	return BT_NEXT;
}

enum bt_result bt_load(struct bt_vcpu *v, uint64_t lin, unsigned size, unsigned access, uint64_t *out)
{
	*out = 0;
	return bt_load_bytes(v, lin, out, size, access);
}

enum bt_result bt_store(struct bt_vcpu *v, uint64_t lin, unsigned size, unsigned access,
			uint64_t value)
{
	return bt_store_bytes(v, lin, &value, size, access);
}

enum bt_result bt_probe(struct bt_vcpu *v, uint64_t lin, unsigned len, unsigned access)
{
	struct piece p[2];

	return len ? split(v, lin, len, access, p) : BT_NEXT;
}

void *bt_ram(struct bt_vcpu *v, uint64_t lin, unsigned *len, unsigned access, enum bt_result *res)
{
	unsigned n = MIN(*len, MEM_PAGE_SIZE - (unsigned)(lin & 0xfff));
	struct piece p[2];

	*res = split(v, lin, n, access, p);
	if (*res != BT_NEXT || !p[0].host)
		return NULL;
	/*
	 * Code there must go behind the write, not before it: another vCPU may make it again from the old bytes
	 * meanwhile. On pages without code that cannot happen, making them code pages waits for us.
	 */
	if ((access & BT_WRITE) && !(access & BT_SYSTEM) &&
	    (v->engine->page_state[ram_page_index(v->engine, p[0].gpa)] & PAGE_CODE))
		return NULL;
	if (v->mode & MODE_STEP)
		debug_data_access(v, lin, n, access & BT_WRITE);
	if (access & BT_WRITE)
		wrote(v, p[0].gpa, n);
	*len = n;
	return p[0].host;
}

/* ---- for translated code ---- */

static unsigned info_guest(uint32_t info)
{
	return info & 0x1fff;
}

static unsigned info_size(uint32_t info)
{
	return info >> 13 & 0xff;
}

static unsigned info_access(uint32_t info)
{
	static const uint8_t map[4] = {BT_READ, BT_READ, BT_WRITE, BT_RMW};

	return map[info >> 23 & 3];
}

static unsigned info_seg(uint32_t info)
{
	return info >> 25 & 7;
}

static void set_rip(struct bt_vcpu *v, uint32_t info)
{
	uint64_t rip = v->vbase + info_guest(info) - v->cs_base;

	v->rip = bt_code64(v) ? rip : (uint32_t)rip;
}

static uint64_t leave(struct bt_vcpu *v, enum exit_reason why)
{
	v->exit_reason = why;
	return 0;
}

/*
 * A fault of the memory operand. A pending x87 exception comes before it; and an MMX store that finds TOP other than
 * 0 has set it to 0 before it.
 */
static uint64_t leave_fault(struct bt_vcpu *v, uint32_t info)
{
	uint32_t env[7];
	uint16_t status;

	if (info & MEM_X87) {
		__asm__ volatile("fnstsw %0" : "=a"(status));
		if (status & 0x80) {
			bt_raise(v, X86_MF);
		} else if ((info & MEM_MMX) && (status & 0x3800) && info_access(info) == BT_WRITE) {
			__asm__ volatile("fnstenv %0" : "=m"(env));
			env[1] &= ~0x3800u;
			__asm__ volatile("fldenv %0" : : "m"(env));
		}
	}
	return leave(v, EXIT_FAULT);
}

static uint64_t segment_base(const struct bt_vcpu *v, unsigned seg)
{
	return bt_code64(v) && seg != X86_FS && seg != X86_GS ? 0 : v->seg[seg].base;
}

/* Vectors that must be aligned: #GP before all else. */
static enum bt_result check_vector(struct bt_vcpu *v, uint64_t offset, uint32_t info)
{
	unsigned align = info >> MEM_ALIGN_AT & 3;
	uint64_t lin = offset + segment_base(v, info_seg(info));

	return align && (lin & ((8u << align) - 1)) ? bt_raise_error(v, X86_GP, 0) : BT_NEXT;
}

/* Alignment checking of user code (SDM vol. 3, 6.15, #AC): before page faults. */
static enum bt_result check_alignment(struct bt_vcpu *v, uint64_t lin, uint32_t info)
{
	unsigned align = mem_checked_alignment(info);

	if (!(v->mode & MODE_ALIGN) || !align || !(lin & (align - 1)))
		return BT_NEXT;
	return bt_raise_error(v, X86_AC_VEC, 0);
}

uint64_t bt_mem_slow(struct bt_vcpu *v, uint64_t offset, uint32_t info)
{
	unsigned size = info_size(info), access = info_access(info);
	uint64_t lin, gpa;
	uint8_t *host;
	bool code;

	v->priv->stats.slow_accesses++;
	set_rip(v, info);
	if (check_vector(v, offset, info) != BT_NEXT)
		return info & MEM_MASKED ? leave(v, EXIT_BOUNCE) : leave_fault(v, info);
	if (bt_linear(v, info_seg(info), offset, size, access, &lin) != BT_NEXT ||
	    check_alignment(v, lin, info) != BT_NEXT)
		return info & MEM_MASKED ? leave(v, EXIT_BOUNCE) : leave_fault(v, info);
	if ((lin & 0xfff) + size > MEM_PAGE_SIZE)
		return leave(v, EXIT_BOUNCE);
	if (tlb_lookup(v, lin, access, &host, &gpa, &code) != BT_NEXT)
		return info & MEM_MASKED ? leave(v, EXIT_BOUNCE) : leave_fault(v, info);
	if (!host)
		return leave(v, EXIT_BOUNCE);
	if (code) {
		/*
		 * If code was dropped, perhaps the running block itself: this instruction alone, then look again. With
		 * other vCPUs always, so that the store is in C, which looks behind it (see bt_ram).
		 */
		bool dropped = cache_invalidate(v->engine, gpa | (lin & 0xfff), size);

		v->priv->stats.smc_invalidations += dropped;
		if (dropped || v->engine->vcpu_count > 1)
			return leave(v, EXIT_BOUNCE);
	}
	return (uint64_t)(host + (lin & 0xfff));
}

uint64_t bt_group_slow(struct bt_vcpu *v, uint64_t offset, uint32_t info)
{
	uint32_t group = (uint32_t)v->scratch[3];
	unsigned span = group & 0x3ff, first = group >> 10 & 0x3ff, slot = group >> 21 & 7;
	uint64_t base = segment_base(v, info_seg(info)), low = offset + base - first, page = low & ~0xfffull;
	struct tlb_entry *e;

	if (!bt_mem_slow(v, offset, info))
		return 0;
	e = &v->priv->slot->table[tlb_class_of_mode(v->mode)][tlb_index(v->priv->slot, tlb_class_of_mode(v->mode), low)];
	if ((group & 1u << 20 ? e->write_tag : e->read_tag) != page || (low & 0xfff) + span > MEM_PAGE_SIZE)
		return 2;
	v->group[slot] = e->host - page + base + (group & 1u << 24 ? v->vbase : 0);
	return 1;
}

/* With an unmasked x87 exception nothing is stored. */
static bool x87_may_not_store(void)
{
	uint16_t control;

	__asm__ volatile("fnstcw %0" : "=m"(control));
	return (control & 0x3f) != 0x3f;
}

/*
 * Operands that are read and written: a locked instruction must find them in place, for the host's LOCK to be one. On
 * two pages it cannot, and has to run alone.
 */
static uint64_t bounce_rmw(struct bt_vcpu *v, uint64_t lin, uint32_t info)
{
	struct bt_private *p = v->priv;
	unsigned size = info_size(info);
	uint8_t *buf = p->bounce + (lin & 63);
	struct piece piece[2];

	if (split(v, lin, size, BT_RMW, piece) != BT_NEXT)
		return leave_fault(v, info);
	if (piece[1].len && p->atomic) {
		p->lock_splits = true;
		return leave(v, EXIT_BOUNCE);
	}
	if (piece[0].host && !piece[1].len) {
		if (v->mode & MODE_STEP)
			debug_data_access(v, lin, size, true);
		p->bounce_direct = true;
		p->bounce_gpa = piece[0].gpa;
		return (uint64_t)piece[0].host;
	}
	if (bt_load_bytes(v, lin, buf, size, BT_READ) != BT_NEXT)
		return leave_fault(v, info);
	return (uint64_t)buf;
}

uint64_t bt_bounce_in(struct bt_vcpu *v, uint64_t offset, uint32_t info)
{
	unsigned size = info_size(info), access = info_access(info);
	struct bt_private *p = v->priv;
	uint64_t lin;

	set_rip(v, info);
	p->masked = info & MEM_MASKED ? (const struct insn *)v->scratch[2] : NULL;
	if (!p->masked && check_vector(v, offset, info) != BT_NEXT)
		return leave_fault(v, info);
	if (p->masked)
		lin = offset + segment_base(v, info_seg(info)); /* checked for each element */
	else if (bt_linear(v, info_seg(info), offset, size, access, &lin) != BT_NEXT ||
		 check_alignment(v, lin, info) != BT_NEXT)
		return leave_fault(v, info);
	p->stats.bounces++;
	p->bounce_lin = lin;
	p->bounce_size = size;
	p->bounce_direct = false;
	/* Keep the alignment, for instructions that check it. */
	uint8_t *buf = p->bounce + (lin & 63);

	if (p->masked)
		return bt_masked_in(v, info_seg(info), offset, access) ? (uint64_t)buf : leave_fault(v, info);
	if (access == BT_RMW)
		return bounce_rmw(v, lin, info);
	if (access == BT_WRITE) {
		if (bt_probe(v, lin, size, BT_WRITE) != BT_NEXT)
			return leave_fault(v, info);
		if ((info & MEM_X87) && x87_may_not_store())
			bt_load_bytes(v, lin, buf, size, BT_READ);
	} else if (bt_load_bytes(v, lin, buf, size, BT_READ) != BT_NEXT) {
		return leave_fault(v, info);
	}
	return (uint64_t)buf;
}

uint64_t bt_bounce_out(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;

	if (p->masked)
		return bt_masked_out(v) ? 1 : leave(v, EXIT_FAULT);
	if (p->bounce_direct) {
		wrote(v, p->bounce_gpa, p->bounce_size);
		return 1;
	}
	if (bt_store_bytes(v, p->bounce_lin, p->bounce + (p->bounce_lin & 63), p->bounce_size,
			   BT_WRITE) != BT_NEXT)
		return leave(v, EXIT_FAULT);
	return 1;
}
