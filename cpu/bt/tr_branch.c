/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jumps. Inside of the page: patched rel32 links. Elsewhere: through the jump cache, with the linear target in T0
 * and the flags in memory; what the jump cache does not know goes to C. In code segments that are not flat, with
 * 16-bit operand size, and in one-instruction blocks every jump goes to C, which knows the rules.
 */
#include "cpu/bt/translate.h"

bool tr_is_branch(const struct insn *i)
{
	if (i->klass != CLASS_REWRITE)
		return false;
	switch (i->op) {
	case OP_JMP: case OP_JCC: case OP_CALL: case OP_RET: case OP_JMP_IND: case OP_CALL_IND:
	case OP_LOOP:
		return true;
	default:
		return false;
	}
}

void tr_linear_of(struct tr *t, int64_t target)
{
	int32_t rest = (int32_t)target;

	t->t0_group = GROUP_NONE;
	emit_load_slot(&t->e, T0, SLOT(vbase));
	if (target != rest) { /* a rel32 and the offset in the page may be more than one displacement takes */
		rest = target < 0 ? INT32_MIN : INT32_MAX;
		emit_lea(&t->e, t->code_bits == 64, T0, T0, H_NONE, 0, (int32_t)(target - rest));
	}
	if (rest)
		emit_lea(&t->e, t->code_bits == 64, T0, T0, H_NONE, 0, rest);
}

/* 16-bit jumps wrap in the segment, other segments have limits and bases: C does it. */
static bool plain_code(const struct tr *t, const struct insn *i)
{
	return t->code_bits == 64 || ((t->mode & MODE_FLAT_CODE) && (!i || i->opsize != 2));
}

static bool has_jump_cache(const struct tr *t)
{
	return !t->single && !(t->mode & MODE_PRIVATE_NO_JC) && plain_code(t, NULL) && !(t->b->debug_opts & BT_OPT_NO_LINK);
}

void tr_jump_cache(struct tr *t)
{
	if (has_jump_cache(t))
		emit_jump_by_cache(&t->e, t->mode & MODE_USER, t->b->has_bmi2);
	else
		emit_jmp(&t->e, t->single ? t->b->stub.step_done : t->b->stub.lookup_mem);
}

/* The four bytes of a link must not straddle a cache line: they are patched while others run. */
static void align_field(struct tr *t, unsigned opcode_len)
{
	unsigned at = (emit_pos(&t->e) + opcode_len) & 63;

	if (at > 60)
		emit_nops(&t->e, 64 - at);
}

static struct link *new_link(struct tr *t, unsigned target)
{
	uint32_t ref = blocks_record(t->b, sizeof(struct link), _Alignof(struct link));
	struct link *l = link_at(t->b, ref);

	if (!l) {
		t->failed = true;
		return NULL;
	}
	assert(l == block_links(t->block) + t->block->link_count && t->block->link_count < UINT8_MAX);
	*l = (struct link){.number = t->block->link_count++, .target = (uint16_t)target,
			   .backward = target <= t->off[t->cur < t->n ? t->cur : t->n - 1]};
	return l;
}

static void set_field(struct tr *t, struct link *l, uint32_t field)
{
	l->cold = t->in_cold;
	l->field_at = (uint16_t)(field - (t->in_cold ? t->block->cold_start : t->block->jc_entry));
}

/* In the cold part: where the link leads to until it is linked. */
static void emit_link_stub(struct tr *t, struct link *l, unsigned flags)
{
	struct emit *e = &t->e;

	l->stub_at = (uint16_t)(emit_pos(e) - t->block->cold_start);
	emit_patch_rel32(e, link_field(l), emit_pos(e));
	emit_mov_imm32(e, T1, record_of(t->b, l));
	emit_jmp(e, l->far ? t->b->stub.link_far : flags & FLAGS_HOST ? t->b->stub.link_host : t->b->stub.link_mem);
}

/* Can a jump to this page offset be a link? */
static bool linkable(struct tr *t, int64_t target)
{
	bool straddles;

	if (t->single || t->straddles || !plain_code(t, NULL) || target < 0 ||
	    target >= MEM_PAGE_SIZE || (t->b->debug_opts & BT_OPT_NO_LINK) ||
	    (t->mode & MODE_PRIVATE_BREAK))
		return false;
	tr_live_at(t, (unsigned)target, &straddles);
	return !straddles;
}

static void emit_link_jump(struct tr *t, int cc, unsigned target)
{
	struct link *l = new_link(t, target);
	struct cold *c = tr_cold(t, COLD_LINK);

	if (!l)
		return;
	align_field(t, cc < 0 ? 1 : 2);
	c->link = l;
	set_field(t, l, cc < 0 ? emit_jmp_forward(&t->e) : emit_jcc_forward(&t->e, (unsigned)cc));
}

void tr_goto_twin(struct tr *t, unsigned insn)
{
	struct link *l = new_link(t, t->off[insn]);

	if (!l)
		return;
	l->twin = true;
	l->backward = false;
	if (t->live[insn])
		tr_flags_to_host(t);
	align_field(t, 1);
	set_field(t, l, emit_jmp_forward(&t->e));
	emit_link_stub(t, l, t->flags);
}

void tr_cold_link(struct tr *t, const struct cold *c)
{
	emit_link_stub(t, c->link, c->flags);
}

/* Jumps to @target, page offset of another page, whose linear address is in T0. Flags are in memory. */
static void far_jump(struct tr *t, int64_t target)
{
	struct link *l;

	if (t->code_bits != 64 || !has_jump_cache(t) || (t->b->debug_opts & (BT_OPT_NO_FAR | BT_OPT_SINGLE))) {
		tr_jump_cache(t);
		return;
	}
	l = new_link(t, (unsigned)target & PAGE_OFF_MASK);
	if (!l)
		return;
	l->far = true;
	align_field(t, 1);
	set_field(t, l, emit_jmp_forward(&t->e));
	if (t->in_cold)
		emit_link_stub(t, l, t->flags);
	else
		tr_cold(t, COLD_LINK)->link = l;
}

/*
 * A jump to what is not canonical, or beyond the limit of CS, is #GP at the jump, with RIP and RSP as they were (SDM
 * vol. 2, JMP, CALL, RET; the return address of a CALL has been written by then). An in-page jump cannot leave the
 * canonical addresses, nor can one of less than EDGE_BYTES but in the pages that have a mode of their own for it.
 * One through the jump cache leaves a note of where it was: the jump cache holds no such target, and C, where it goes then,
 * looks at the note (run.c, missed_target).
 */
static bool may_miss(const struct tr *t, int64_t target)
{
	if (t->code_bits != 64)
		return !(t->mode & MODE_FLAT_CODE);
	return target < -(int64_t)EDGE_BYTES || target > (int64_t)EDGE_BYTES ||
	       ((t->mode & MODE_PRIVATE_EDGE) && (target < 0 || target >= MEM_PAGE_SIZE));
}

/* T0: the offset in CS that instruction @i goes to. Flags are in memory; T1 is clobbered. */
static void check_target(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	struct cold *c;

	if (t->code_bits == 64 && i->op != OP_RET && i->op != OP_LOOP && i->opsize == 8 && has_jump_cache(t)) {
		bool call = i->op == OP_CALL || i->op == OP_CALL_IND;

		emit_store_slot_imm(e, SLOT(jumped_from), t->off[t->cur] | (call ? JUMPED_BY_CALL : 0));
		return;
	}
	t->flags &= ~(unsigned)FLAGS_HOST;
	if (t->code_bits == 64) {
		emit_mov_reg(e, true, T1, T0);
		for (unsigned k = 0; k < 2; k++) { /* shl T1, 16; sar T1, 16 */
			emit8(e, 0x49);
			emit8(e, 0xc1);
			emit8(e, k ? 0xff : 0xe7);
			emit8(e, 16);
		}
		emit_op_reg(e, true, 0x39, T0, T1); /* cmp */
	} else if (!(t->mode & MODE_FLAT_CODE)) {
		emit_op_mem(e, true, 0x3b, T0, H_RSP, H_NONE, 0, SLOT(cs_limit));
	} else {
		return;
	}
	c = tr_cold(t, COLD_BAD_TARGET);
	c->field[c->nfields++] = emit_jcc_forward(e, t->code_bits == 64 ? CC_NE : CC_A);
}

void tr_cold_bad_target(struct tr *t, const struct cold *c)
{
	const struct insn *i = &t->insn[c->insn];
	struct insn gp = {.klass = CLASS_INVALID, .op = OP_RAISE_GP, .len = i->len};

	emit_patch_rel32(&t->e, c->field[0], emit_pos(&t->e));
	if (i->op == OP_LOOP)
		emit_load_slot(&t->e, H_RCX, REG_SLOT(X86_RCX));
	tr_call_op(t, &gp);
}

/* A conditional jump that leaves the page, taken. */
void tr_cold_far(struct tr *t, const struct cold *c)
{
	emit_patch_rel32(&t->e, c->field[0], emit_pos(&t->e));
	tr_flags_to_mem(t);
	tr_linear_of(t, c->target);
	if (may_miss(t, c->target))
		check_target(t, &t->insn[c->insn]);
	far_jump(t, c->target);
}

void tr_goto(struct tr *t, int64_t target)
{
	bool straddles;

	t->done = true;
	if (linkable(t, target)) {
		if (tr_live_at(t, (unsigned)target, &straddles))
			tr_flags_to_host(t);
		emit_link_jump(t, -1, (unsigned)target);
		return;
	}
	tr_flags_to_mem(t);
	tr_linear_of(t, target);
	far_jump(t, target);
}

/* T0 holds an offset in CS: makes it linear, and goes there. Flags are in memory. */
static void goto_offset_t0(struct tr *t)
{
	t->done = true;
	if (t->code_bits != 64 && !(t->mode & MODE_FLAT_CODE)) {
		emit_op_mem(&t->e, true, 0x03, T0, H_RSP, H_NONE, 0, SLOT(cs_base));
		emit_mov_reg(&t->e, false, T0, T0);
	}
	tr_jump_cache(t);
}

/* T0 := offset in CS of page offset @off, plus @disp, as a branch of @i's size computes it. Flags clobbered. */
static void offset_in_cs(struct tr *t, const struct insn *i, int64_t target)
{
	tr_linear_of(t, target);
	if (t->code_bits == 64)
		return;
	if (!(t->mode & MODE_FLAT_CODE))
		emit_op_mem(&t->e, true, 0x2b, T0, H_RSP, H_NONE, 0, SLOT(cs_base));
	if (i->opsize == 2)
		emit_op_reg(&t->e, false, 0x0fb7, T0, T0);
	else
		emit_mov_reg(&t->e, false, T0, T0);
}

/* The taken side of a direct jump, as the end of the block. */
static void goto_target(struct tr *t, const struct insn *i, int64_t target)
{
	bool check = may_miss(t, target) && i->op != OP_CALL;

	if (plain_code(t, i) && !check) {
		tr_goto(t, target);
		return;
	}
	if (t->code_bits == 64 && i->op != OP_LOOP && has_jump_cache(t)) {
		tr_flags_to_mem(t);
		tr_linear_of(t, target);
		check_target(t, i);
		t->done = true;
		far_jump(t, target);
		return;
	}
	tr_flags_to_mem(t);
	offset_in_cs(t, i, target);
	if (check)
		check_target(t, i);
	goto_offset_t0(t);
}

static int64_t target_of(const struct tr *t, const struct insn *i)
{
	return t->off[t->cur] + i->len + i->imm;
}

static void branch_jcc(struct tr *t, const struct insn *i)
{
	int64_t target = target_of(t, i);

	tr_flags_to_host(t);
	t->t0_kept = true;
	if (linkable(t, target) && plain_code(t, i)) {
		emit_link_jump(t, i->cc, (unsigned)target);
		return;
	}
	if (plain_code(t, i) && !t->single) {
		struct cold *c = tr_cold(t, COLD_FAR_JUMP);

		c->target = target;
		c->field[c->nfields++] = emit_jcc_forward(&t->e, i->cc);
		return;
	}
	/* Both ways end in C. */
	uint32_t not_taken = emit_jcc_forward(&t->e, i->cc ^ 1);
	unsigned flags = t->flags;

	goto_target(t, i, target);
	emit_patch_rel32(&t->e, not_taken, emit_pos(&t->e));
	t->flags = flags;
	t->done = true;
	tr_goto(t, t->off[t->cur] + i->len);
}

/* After a loop that counted in CX: the count into its register, the rest of RCX as it was. */
static void loop_count_back(struct tr *t, bool cx, bool counted)
{
	if (cx && counted) {
		emit8(&t->e, 0x66);
		emit_op_mem(&t->e, false, 0x89, H_RCX, H_RSP, H_NONE, 0, SLOT(scratch[0]));
	}
	if (cx)
		emit_load_slot(&t->e, H_RCX, SLOT(scratch[0]));
}

/* LOOP, LOOPE, LOOPNE, JrCXZ: the host's own, around a jump. They touch no flags. */
static void branch_loop(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	bool cx = i->addrsize == 2, dec = i->opcode != 0xe3;

	if (i->flags_read)
		tr_flags_to_host(t);
	if (may_miss(t, target_of(t, i)))
		emit_store_slot(e, REG_SLOT(X86_RCX), H_RCX);
	if (cx) { /* no 16-bit form in 64-bit code: count in ecx, keep the upper part aside */
		emit_store_slot(e, SLOT(scratch[0]), H_RCX);
		emit_op_reg(e, false, 0x0fb7, H_RCX, H_RCX);
	}
	if (i->addrsize != 8)
		emit8(e, 0x67);
	emit8(e, i->opcode);
	emit8(e, 0);
	uint32_t short_at = emit_pos(e);


	unsigned flags = t->flags;

	loop_count_back(t, cx, dec);
	uint32_t skip = emit_jmp_forward(e);

	if (!e->full)
		e->base[short_at - 1] = (uint8_t)(emit_pos(e) - short_at);
	loop_count_back(t, cx, dec);
	goto_target(t, i, target_of(t, i));
	emit_patch_rel32(e, skip, emit_pos(e));
	t->flags = flags;
	tr_goto(t, t->off[t->cur] + i->len);
}

/* ---- the ring of return addresses ---- */

static bool has_ring(const struct tr *t, unsigned size)
{
	return t->code_bits == 64 && size == 8 && !t->single &&
	       !(t->mode & (MODE_PRIVATE_NO_JC | MODE_PRIVATE_BREAK)) && !(t->b->debug_opts & (BT_OPT_NO_LINK | BT_OPT_NO_RING));
}

static void ring_op(struct tr *t, bool w, unsigned op, unsigned reg, uint8_t index, size_t field)
{
	emit_jump_cache_op(&t->e, t->mode & MODE_USER, w, op, reg, index, offsetof(struct jump_cache, ring) + field);
}

static void ring_top_op(struct tr *t, unsigned op, unsigned reg)
{
	emit_op_mem(&t->e, false, op, reg, H_RSP, H_NONE, 0, SLOT(ring_top) + !!(t->mode & MODE_USER));
}

/* @temp := byte offset of the newest entry. */
static void ring_newest(struct tr *t, uint8_t temp)
{
	ring_top_op(t, 0x0fb6, temp); /* movzx */
	emit8(&t->e, 0x41); /* shl temp, 4 */
	emit8(&t->e, 0xc1);
	emit8(&t->e, 0xe0 | (temp & 7));
	emit8(&t->e, 4);
}

/* T1 is the linear address behind a call. Uses T0 and T1. Flags are in memory. */
static void ring_push(struct tr *t, unsigned next)
{
	struct emit *e = &t->e;
	struct link *l = new_link(t, next);

	if (!l)
		return;
	t->t0_group = GROUP_NONE;
	t->flags &= ~(unsigned)FLAGS_HOST;
	l->ret = true;
	ring_top_op(t, 0xfe, 0); /* inc byte */
	ring_newest(t, T0);
	ring_op(t, true, 0x89, T1, T0, offsetof(struct jc_entry, tag));
	align_field(t, 3);
	emit8(e, 0x4c); /* lea T1, [rip + rel32] */
	emit8(e, 0x8d);
	emit8(e, 0x3d);
	l->by_cache = true;
	set_field(t, l, emit_pos(e));
	emit32(e, (t->mode & MODE_USER ? t->b->stub.jump_user : t->b->stub.jump_kernel) - (emit_pos(e) + 4));
	ring_op(t, true, 0x89, T1, T0, offsetof(struct jc_entry, code));
}

/* Pushes the return address of a call; then @check looks at the target, an offset in CS in scratch[0]. */
static void push_return(struct tr *t, const struct insn *i, bool check)
{
	unsigned size = i->opsize;
	int32_t next = (int32_t)(t->off[t->cur] + i->len);
	struct emit *e = &t->e;
	struct host_mem m;
	struct ea ea;

	tr_stack_addr(t, &ea, -(int)size);
	tr_operand(t, &ea, size, ACCESS_WRITE, &m);
	if (t->code_bits == 64 && size == 8) {
		emit_load_slot(e, T1, SLOT(vbase));
		emit_lea(e, true, T1, T1, H_NONE, 0, next);
		emit_op_mem(e, true, 0x89, T1, m.base, m.index, 0, m.disp);
		if (has_ring(t, size) && !t->straddles && next < (int32_t)MEM_PAGE_SIZE)
			ring_push(t, (unsigned)next);
	} else {
		tr_pointer(t, &m);
		emit_mov_reg(e, true, T1, T0);
		offset_in_cs(t, i, next);
		if (size == 2)
			emit8(e, 0x66);
		emit_op_mem(e, size == 8, 0x89, T0, T1, H_NONE, 0, 0);
	}
	tr_access_done(t, ACCESS_WRITE);
	if (check) {
		emit_load_slot(e, T0, SLOT(scratch[0]));
		check_target(t, i);
	}
	tr_stack_move(t, -(int)size);
}

static void direct_call(struct tr *t, const struct insn *i)
{
	int64_t target = target_of(t, i);
	bool check = may_miss(t, target);

	tr_flags_to_mem(t);
	if (check) {
		offset_in_cs(t, i, target);
		emit_store_slot(&t->e, SLOT(scratch[0]), T0);
	}
	push_return(t, i, check);
	goto_target(t, i, target);
}

/* T0 := memory, zero-extended. */
static void load_t0(struct tr *t, unsigned size, const struct host_mem *m)
{
	emit_op_mem(&t->e, size == 8, size == 2 ? 0x0fb7 : 0x8b, T0, m->base, m->index, 0, m->disp);
	t->t0_group = GROUP_NONE;
}

/* The target of an indirect jump → T0, zero-extended from the operand size. */
static void load_target(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;

	if (i->has_mem) {
		struct ea ea = tr_ea(i);
		struct host_mem m;

		tr_operand(t, &ea, i->opsize, ACCESS_READ, &m);
		load_t0(t, i->opsize, &m);
		return;
	}
	tr_load_guest(t, T0, i->rm);
	if (i->opsize == 2)
		emit_op_reg(e, false, 0x0fb7, T0, T0);
	else if (i->opsize == 4)
		emit_mov_reg(e, false, T0, T0);
}

static int ret_pops(const struct insn *i)
{
	return i->opsize + (i->opcode == 0xc2 ? (int)(uint16_t)i->imm : 0);
}

static void branch_ret(struct tr *t, const struct insn *i)
{
	unsigned size = i->opsize;
	struct host_mem m;
	struct ea ea;

	tr_flags_to_mem(t);
	tr_stack_addr(t, &ea, 0);
	tr_operand(t, &ea, size, ACCESS_READ, &m);
	load_t0(t, size, &m);
	if (has_ring(t, size)) {
		struct cold *c = tr_cold(t, COLD_RET);

		t->done = true;
		ring_newest(t, T1);
		ring_op(t, true, 0x3b, T0, T1, offsetof(struct jc_entry, tag));
		c->field[c->nfields++] = emit_jcc_forward(&t->e, CC_NE);
		ring_top_op(t, 0xfe, 1); /* dec byte */
		tr_stack_move(t, ret_pops(i));
		ring_op(t, false, 0xff, 4, T1, offsetof(struct jc_entry, code));
		return;
	}
	check_target(t, i);
	tr_stack_move(t, ret_pops(i));
	goto_offset_t0(t);
}

/* A return to somewhere else than expected. */
void tr_cold_ret(struct tr *t, const struct cold *c)
{
	emit_patch_rel32(&t->e, c->field[0], emit_pos(&t->e));
	check_target(t, &t->insn[c->insn]);
	ring_top_op(t, 0xfe, 1); /* dec byte */
	tr_stack_move(t, ret_pops(&t->insn[c->insn]));
	goto_offset_t0(t);
}

void tr_branch(struct tr *t, const struct insn *i)
{
	switch (i->op) {
	case OP_JCC:
		branch_jcc(t, i);
		break;
	case OP_LOOP:
		branch_loop(t, i);
		break;
	case OP_JMP:
		goto_target(t, i, target_of(t, i));
		break;
	case OP_CALL:
		direct_call(t, i);
		break;
	case OP_CALL_IND:
		tr_flags_to_mem(t);
		load_target(t, i);
		emit_store_slot(&t->e, SLOT(scratch[0]), T0);
		push_return(t, i, true);
		goto_offset_t0(t);
		break;
	case OP_JMP_IND:
		tr_flags_to_mem(t);
		load_target(t, i);
		check_target(t, i);
		goto_offset_t0(t);
		break;
	case OP_RET:
		branch_ret(t, i);
		break;
	}
}
