/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block: decode, find out where flags are live, emit, lay out.
 *
 * A block follows the guest's instructions through conditional branches that fall through, to the first
 * unconditional jump, the first instruction that another block begins with, the end of the page, or
 * BLOCK_INSNS_MAX. Layout in the cache:
 *
 *	jc_entry	from the jump cache: T0 is the linear address, T1 the index; flags in aflags
 *	ret_entry	from the ring of return addresses: the same, T1 is nothing
 *	mem_entry	from C: vbase is set; flags in aflags
 *			  (flags are restored here if the block reads them before it writes them)
 *	poll_entry	from backward links: leaves if v->poll is set; flags in RFLAGS
 *	main_entry	from forward links; flags in RFLAGS
 *	…		instructions
 *
 * and, in a part of its own, so that the straight paths lie close to each other, the cold paths.
 *
 * Flags that nothing reads before they are overwritten are not kept when a memory check needs RFLAGS
 * for itself. "Nothing reads" is a statement about the instruction stream: should an exception arrive in
 * between, the arithmetic flags it saves may be those of an earlier instruction (doc/engine.md). Debug option
 * BT_OPT_EXACT_FLAGS keeps them everywhere.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/translate.h"

struct cold *tr_cold(struct tr *t, enum cold_kind kind)
{
	static struct cold sink;

	if (t->ncold == COLD_MAX) {
		t->failed = true;
		return &sink;
	}
	struct cold *c = &t->cold[t->ncold++];

	c->kind = kind;
	c->nfields = 0;
	c->flags = (uint8_t)t->flags;
	c->insn = (uint8_t)t->cur;
	c->link = NULL;
	return c;
}

void tr_flags_clobber(struct tr *t)
{
	if (t->live[t->cur] && !(t->flags & FLAGS_MEM) && (t->flags & FLAGS_HOST)) {
		emit_save_flags(&t->e, !t->t1_used);
		t->flags |= FLAGS_MEM;
	}
	t->flags &= ~(unsigned)FLAGS_HOST;
}

void tr_flags_to_mem(struct tr *t)
{
	if ((t->flags & FLAGS_HOST) && !(t->flags & FLAGS_MEM)) {
		emit_save_flags(&t->e, !t->t1_used);
		t->flags |= FLAGS_MEM;
	}
}

void tr_flags_to_host(struct tr *t)
{
	if (!(t->flags & FLAGS_HOST) && (t->flags & FLAGS_MEM)) {
		emit_restore_flags(&t->e, !t->t1_used);
		t->flags |= FLAGS_HOST;
	}
}

/* ---- liveness ---- */

static bool exact_flags(const struct tr *t)
{
	return t->single || (t->b->debug_opts & BT_OPT_EXACT_FLAGS);
}

/* C code sees the flags whole. */
static bool needs_all_flags(const struct insn *i)
{
	return i->klass == CLASS_CALL || i->klass == CLASS_INVALID;
}

static void mark_lines(struct tr *t, unsigned off, unsigned len)
{
	for (unsigned k = off >> 6; k <= (off + len - 1) >> 6 && k < 64; k++)
		t->lines |= 1ull << k;
}

uint16_t tr_live_at(struct tr *t, unsigned off, bool *straddles)
{
	uint16_t live = 0, unknown = ALL_FLAGS;
	struct insn i;

	for (unsigned k = 0; k < t->nmemo; k++)
		if (t->memo[k].off == off) {
			*straddles = t->memo[k].straddles;
			return t->memo[k].live;
		}
	*straddles = false;

	unsigned at = off;

	for (unsigned k = 0; k < 8 && unknown; k++) {
		if (at >= MEM_PAGE_SIZE ||
		    decode(t->page + at, MEM_PAGE_SIZE - at, t->code_bits, &t->b->features, &i) !=
			    DECODE_OK) {
			*straddles = k == 0;
			break;
		}
		if (k == 0 && exact_flags(t))
			break;
		mark_lines(t, at, i.len);
		if (needs_all_flags(&i))
			break;
		live |= i.flags_read & unknown;
		unknown &= ~i.flags_written;
		if (tr_is_branch(&i) && i.op != OP_JCC)
			break;
		if (i.op == OP_JCC)
			break; /* the taken side is not followed: what is unknown stays live */
		at += i.len;
	}
	live |= unknown;
	if (t->nmemo < MEMO_MAX) {
		t->memo[t->nmemo].off = (uint16_t)off;
		t->memo[t->nmemo].live = live;
		t->memo[t->nmemo++].straddles = *straddles;
	}
	return live;
}

/* Flags live at the target of a direct branch. */
static uint16_t live_at_target(struct tr *t, int64_t target)
{
	bool straddles;

	if (target < 0 || target >= MEM_PAGE_SIZE || t->straddles)
		return ALL_FLAGS;
	return tr_live_at(t, (unsigned)target, &straddles);
}

static void find_live(struct tr *t)
{
	const struct insn *last = &t->insn[t->n - 1];
	uint16_t live = ALL_FLAGS;

	if (!t->single && !(tr_is_branch(last) && last->op != OP_JCC) && !tr_op_ends_block(last->op))
		live = live_at_target(t, t->off[t->n]);
	else if (!t->single && last->op == OP_JMP)
		live = live_at_target(t, t->off[t->n - 1] + last->len + last->imm);
	t->live[t->n] = live;
	for (unsigned k = t->n; k-- > 0;) {
		const struct insn *i = &t->insn[k];

		if (i->op == OP_JCC || i->op == OP_LOOP)
			live |= t->single ? ALL_FLAGS
					  : live_at_target(t, t->off[k] + i->len + i->imm);
		if (needs_all_flags(i) || exact_flags(t))
			live = ALL_FLAGS;
		else
			live = (live & ~i->flags_written) | i->flags_read;
		t->live[k] = live;
	}
}

/* ---- decoding ---- */

static void make_invalid(struct insn *i, uint8_t len, unsigned code_bits, uint8_t op)
{
	*i = (struct insn){.len = len, .klass = CLASS_INVALID, .op = op,
			   .code_bits = (uint8_t)code_bits};
}

/* The unit the instruction needs may be off: then it is a call that raises #UD or #NM (SDM vol. 3, 2.5, table 13-1…). */
static void check_unit(const struct tr *t, struct insn *i)
{
	bool no_sse = !(t->mode & MODE_SSE);
	uint8_t op = 0;

	switch (i->fpu) {
	case FPU_NONE:
		if (i->encoding != ENC_LEGACY && (t->mode & MODE_V86_REAL))
			op = OP_UD;
		break;
	case FPU_WAIT:
		if ((t->mode & MODE_TS) && (t->mode & MODE_MP))
			op = OP_RAISE_NM;
		break;
	case FPU_X87:
		if (t->mode & (MODE_TS | MODE_EM))
			op = OP_RAISE_NM;
		break;
	case FPU_MMX:
		if (t->mode & MODE_EM)
			op = OP_UD;
		else if (t->mode & MODE_TS)
			op = OP_RAISE_NM;
		break;
	case FPU_SSE:
		if (no_sse || (t->mode & MODE_EM))
			op = OP_UD;
		else if (t->mode & MODE_TS)
			op = OP_RAISE_NM;
		break;
	case FPU_AVX:
	case FPU_AVX512:
		if (!(t->mode & (i->fpu == FPU_AVX ? MODE_AVX : MODE_AVX512)) ||
		    (t->mode & MODE_V86_REAL))
			op = OP_UD;
		else if (t->mode & MODE_TS)
			op = OP_RAISE_NM;
		break;
	}
	if (op && i->klass != CLASS_INVALID)
		make_invalid(i, i->len, t->code_bits, op);
}

static bool ends_block(const struct insn *i)
{
	return (tr_is_branch(i) && i->op != OP_JCC) || i->klass == CLASS_INVALID ||
	       tr_op_ends_block(i->op);
}

/* False: not even one instruction lies whole in the page. */
static bool decode_block(struct tr *t, unsigned page_avail)
{
	unsigned at = t->start, max = t->single || t->straddles ? 1 : BLOCK_INSNS_MAX;

	if (!t->single && (t->b->debug_opts & BT_OPT_SINGLE))
		max = 1;

	while (t->n < max && at < page_avail) {
		struct insn *i = &t->insn[t->n];
		enum decode_result r = decode(t->page + at, page_avail - at, t->code_bits,
					      &t->b->features, i);

		if (r == DECODE_TRUNCATED)
			break;
		if (r == DECODE_TOO_LONG)
			make_invalid(i, 1, t->code_bits, OP_RAISE_GP);
		else if (i->klass == CLASS_INVALID)
			make_invalid(i, i->len ? i->len : 1, t->code_bits, OP_UD);
		check_unit(t, i);
		t->off[t->n] = (uint16_t)at;
		t->bytes[t->n] = t->page + at;
		if (!t->straddles)
			mark_lines(t, at, i->len);
		at += i->len;
		t->n++;
		t->off[t->n] = (uint16_t)at;
		if (ends_block(i) || (!t->single && !t->straddles && at < MEM_PAGE_SIZE &&
				      blocks_known(t->b, (t->gpa & ~0xfffull) + at, t->mode & ~MODE_PRIVATE_TWIN)))
			break;
	}
	return t->n > 0;
}

/* ---- layout ---- */

static void emit_poll(struct tr *t, bool keep_flags)
{
	struct emit *e = &t->e;
	struct cold *c = tr_cold(t, COLD_POLL);

	c->target = t->start;
	if (!keep_flags) {
		emit8(e, 0x83); /* cmp dword [poll], 0 */
		emit_modrm_mem(e, 7, H_RSP, H_NONE, 0, SLOT(poll));
		emit8(e, 0);
		c->field[c->nfields++] = emit_jcc_forward(e, CC_NE);
		c->flags = FLAGS_MEM; /* dead */
		return;
	}
	emit_store_slot(e, REG_SLOT(X86_RCX), H_RCX);
	emit_load_slot(e, H_RCX, SLOT(poll));
	emit8(e, 0xe3); /* jrcxz over the exit */
	emit8(e, 8 + 5 - 3);
	uint32_t at = emit_pos(e);

	emit_load_slot(e, H_RCX, REG_SLOT(X86_RCX));
	c->field[c->nfields++] = emit_jmp_forward(e);
	if (!e->full)
		e->base[at - 1] = (uint8_t)(emit_pos(e) - at);
	emit_load_slot(e, H_RCX, REG_SLOT(X86_RCX));
	c->flags = FLAGS_HOST;
}

static void emit_entries(struct tr *t, struct block *blk)
{
	struct emit *e = &t->e;
	bool live_in = t->live[0] != 0;

	emit_nops(e, -emit_pos(e) & 15);
	blk->jc_entry = emit_pos(e);
	if (!t->single) {
		bool user = t->mode & MODE_USER;

		if (user)
			emit8(e, 0x65);
		/* cmp T0, [jump cache + T1].tag */
		if (user)
			emit_op_mem(e, true, 0x3b, T0, T1, H_NONE, 0,
				    USER_JC_OFF + (int32_t)offsetof(struct jc_entry, tag));
		else
			emit_op_mem(e, true, 0x3b, T0, H_RSP, T1, 0,
				    KERNEL_JC_OFF + (int32_t)offsetof(struct jc_entry, tag));
		emit_jcc(e, CC_NE, t->b->stub.lookup_mem);
		emit_nops(e, -emit_pos(e) & 7);
		blk->ret_at = (uint8_t)(emit_pos(e) - blk->jc_entry);
		emit8(e, 0x49); /* and T0, -4096 */
		emit8(e, 0x81);
		emit8(e, 0xe6);
		emit32(e, (uint32_t)-4096);
		emit_store_slot(e, SLOT(vbase), T0);
	}
	/* Where all polls leave, one who comes from C has polled: else he would get nowhere. */
	bool leaves = (t->b->debug_opts & BT_OPT_POLL) && !t->single;
	uint32_t polled = 0, from_cache = leaves ? emit_jmp_forward(e) : 0;

	blk->mem_at = (uint8_t)(emit_pos(e) - blk->jc_entry);
	t->flags = FLAGS_MEM;
	if (live_in)
		tr_flags_to_host(t);
	if (leaves) {
		polled = emit_jmp_forward(e);
		emit_patch_rel32(e, from_cache, emit_pos(e));
		t->flags = FLAGS_MEM;
		if (live_in)
			tr_flags_to_host(t);
	}
	blk->poll_at = (uint8_t)(emit_pos(e) - blk->jc_entry);
	t->flags = FLAGS_HOST;
	if (!t->single)
		emit_poll(t, live_in);
	assert(emit_pos(e) - blk->jc_entry <= UINT8_MAX);
	blk->main_at = (uint8_t)(emit_pos(e) - blk->jc_entry);
	if (leaves)
		emit_patch_rel32(e, polled, emit_pos(e));
	t->flags = live_in ? FLAGS_HOST : 0;
}

static void emit_cold_paths(struct tr *t, struct block *blk)
{
	assert(emit_pos(&t->e) - blk->jc_entry <= UINT16_MAX);
	blk->code_bytes = (uint16_t)(emit_pos(&t->e) - blk->jc_entry);
	t->e.p = t->e.base + t->b->cold_used;
	t->e.end = t->e.base + CODE_CACHE_BYTES;
	blk->cold_start = emit_pos(&t->e);
	t->in_cold = true;
	for (unsigned k = 0; k < t->ncold && !t->failed && !t->e.full; k++) {
		const struct cold *c = &t->cold[k];

		t->cur = c->insn;
		t->flags = c->flags;
		switch (c->kind) {
		case COLD_MEM:
			tr_cold_mem(t, c);
			break;
		case COLD_GROUP:
			tr_cold_group(t, c);
			break;
		case COLD_RET:
			tr_cold_ret(t, c);
			break;
		case COLD_LINK:
			tr_cold_link(t, c);
			break;
		case COLD_FAR_JUMP:
			tr_cold_far(t, c);
			break;
		case COLD_BAD_TARGET:
			tr_cold_bad_target(t, c);
			break;
		case COLD_POLL:
			emit_patch_rel32(&t->e, c->field[0], emit_pos(&t->e));
			tr_linear_of(t, c->target);
			emit_jmp(&t->e, c->flags & FLAGS_HOST ? t->b->stub.lookup_host
							      : t->b->stub.lookup_mem);
			break;
		}
	}
}

static void emit_body(struct tr *t)
{
	t->t0_group = GROUP_NONE;
	t->rsp_ahead = 0;
	t->back.field = 0;
	tr_hold_nothing(t);
	for (t->cur = 0; t->cur < t->n && !t->done && !t->failed && !t->e.full; t->cur++) {
		const struct insn *i = &t->insn[t->cur];

		t->accesses = 0;
		t->t1_used = false;
		t->t0_kept = false;

		t->map[t->cur] = (struct block_map){.host = emit_pos(&t->e), .guest = t->off[t->cur],
						    .flags = (uint8_t)t->flags};
		if (tr_is_branch(i)) {
			tr_stack_settle(t);
			tr_branch(t, i);
		} else {
			tr_insn(t, i);
		}
		if (!t->t0_kept)
			t->t0_group = GROUP_NONE;
	}
	if (!t->done) {
		tr_stack_settle(t);
		t->cur = t->n;
		tr_goto(t, t->off[t->n]);
	}
}

/* By its values, or by a misaligned operand; what comes from guest memory has been checked. */
static bool may_trap_in_host(const struct insn *i)
{
	return i->klass == CLASS_COPY && (i->fpu != FPU_NONE || i->may_trap || i->mem_align);
}

static struct block *finish(struct tr *t, struct block *blk, uint32_t start_used)
{
	struct bt_engine *b = t->b;
	unsigned count = 0;

	for (unsigned k = 0; k < t->n; k++)
		if (may_trap_in_host(&t->insn[k]))
			t->map[count++] = t->map[k];
	if (t->e.full || t->failed || !blocks_record(b, count * (unsigned)sizeof(*t->map), _Alignof(struct block_map)))
		return NULL;
	bt_copy(block_maps(blk), t->map, count * sizeof(*t->map));
	blk->map_count = (uint8_t)count;
	blk->guest_len = (uint16_t)(t->off[t->n] - t->off[0]);
	blk->first_line = (uint8_t)__builtin_ctzll(t->lines);
	blk->last_line = (uint8_t)(63 - __builtin_clzll(t->lines));
	assert(emit_pos(&t->e) - blk->cold_start <= UINT16_MAX);
	blk->cold_bytes = (uint16_t)(emit_pos(&t->e) - blk->cold_start);
	b->cache_used = block_code_end(blk);
	b->cold_used = block_cold_end(blk);

	struct bt_stats *s = &t->v->priv->stats;

	s->translations++;
	s->insns += t->n;
	s->guest_bytes += blk->guest_len;
	s->host_bytes += block_code_end(blk) - start_used + blk->cold_bytes;
	return blk;
}

static unsigned code_bits_of(uint32_t mode)
{
	unsigned code = mode & MODE_CODE_MASK;

	return code == MODE_CODE64 ? 64 : code == MODE_CODE32 ? 32 : 16;
}

struct block *translate(struct bt_vcpu *v, uint64_t gpa, const uint8_t *bytes, uint32_t page2,
			const uint8_t *bytes2, uint32_t mode)
{
	struct bt_engine *b = v->engine;
	struct tr *t = b->tr;
	uint8_t joined[2 * INSN_MAX_LEN];
	unsigned start = gpa & PAGE_OFF_MASK, avail = MEM_PAGE_SIZE;
	uint32_t records = b->meta_used;
	struct block *blk;

	if (bytes2)
		blocks_record(b, sizeof(struct second_page), _Alignof(struct second_page));
	blk = block_at(b, blocks_record(b, sizeof(*blk), _Alignof(struct block)));
	if (!blk || b->cache_used + CACHE_BLOCK_ROOM > CODE_HOT_BYTES ||
	    b->cold_used + CACHE_BLOCK_ROOM > CODE_CACHE_BYTES)
		return NULL;
	t->v = v;
	t->b = b;
	t->e = (struct emit){.base = b->cache_rw, .p = b->cache_rw + b->cache_used,
			     .end = b->cache_rw + CODE_HOT_BYTES};
	t->mode = mode;
	t->code_bits = code_bits_of(mode);
	t->bounce = mode & (MODE_PRIVATE_BOUNCE | MODE_STEP);
	t->single = t->bounce;
	t->page = bytes;
	t->gpa = gpa;
	t->start = start;
	t->straddles = bytes2 != NULL;
	t->n = t->ncold = t->nmemo = 0;
	t->lines = 0;
	t->cur = 0;
	t->t1_used = false;
	t->done = t->failed = t->in_cold = false;
	t->block = blk;
	*blk = (struct block){.page = (uint32_t)(gpa >> 12), .mode = mode, .start = (uint16_t)start};
	if (bytes2) {
		unsigned first = MEM_PAGE_SIZE - start;

		for (unsigned k = 0; k < INSN_MAX_LEN; k++)
			joined[k] = k < first ? bytes[start + k] : bytes2[k - first];
		t->page = joined - start;
		avail = start + INSN_MAX_LEN;
	}
	if (!decode_block(t, avail)) {
		b->meta_used = records;
		return &t->nothing;
	}
	if (bytes2) {
		t->lines = 1ull << 63;
		blk->straddles = t->off[1] > MEM_PAGE_SIZE; /* or it was whole after all */
		if (blk->straddles)
			block_second(blk)->page = page2;
	}
	blk->atomic = t->bounce && t->insn[0].has_mem && (t->insn[0].lock || t->insn[0].op == OP_XCHG);
	find_live(t);
	tr_plan_groups(t);
	emit_entries(t, blk);
	emit_body(t);
	emit_cold_paths(t, blk);
	return finish(t, blk, b->cache_used);
}
