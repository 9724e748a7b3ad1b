/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways to where a jump goes. Inside of the page: patched rel32 links. To another page: a link to the target's far entry, or
 * through the jump cache, with the linear target in T0 and the flags in memory; what the jump cache does not know goes to
 * C. In code segments that are not flat, with 16-bit operand size, and in one-instruction blocks every jump goes to C,
 * which knows the rules.
 */
#include "cpu/bt/translate.h"

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

bool tr_plain_code(const struct tr *t, const struct insn *i)
{
	return t->code_bits == 64 || ((t->mode & MODE_FLAT_CODE) && (!i || i->opsize != 2));
}

bool tr_has_jump_cache(const struct tr *t)
{
	return !t->single && !(t->mode & MODE_PRIVATE_NO_JC) && tr_plain_code(t, NULL) && !(t->b->debug_opts & BT_OPT_NO_LINK);
}

/* Flags must be in memory. */
static void jump_by_cache(struct tr *t)
{
	if (tr_has_jump_cache(t))
		emit_jump_by_cache(&t->e, t->mode & MODE_USER, t->b->has_bmi2, false);
	else
		emit_jmp(&t->e, t->single ? t->b->stub.step_done : t->b->stub.lookup_mem);
}

/* The four bytes of a link must not straddle a cache line: they are patched while others run. */
void tr_align_field(struct tr *t, unsigned opcode_len)
{
	unsigned at = (emit_pos(&t->e) + opcode_len) & 63;

	if (at > 60)
		emit_nops(&t->e, 64 - at);
}

struct link *tr_new_link(struct tr *t, unsigned target)
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

void tr_set_field(struct tr *t, struct link *l, uint32_t field)
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
	if (l->call)
		emit_behind_call(e);
	emit_mov_imm32(e, T1, record_of(t->b, l));
	emit_jmp(e, l->far ? t->b->stub.link_far : flags & FLAGS_HOST ? t->b->stub.link_host : t->b->stub.link_mem);
}

bool tr_linkable(struct tr *t, int64_t target)
{
	bool straddles;

	if (t->single || t->straddles || !tr_plain_code(t, NULL) || target < 0 ||
	    target >= MEM_PAGE_SIZE || (t->b->debug_opts & BT_OPT_NO_LINK) ||
	    (t->mode & MODE_PRIVATE_BREAK))
		return false;
	tr_live_at(t, (unsigned)target, &straddles);
	return !straddles;
}

void tr_link_jump(struct tr *t, int cc, unsigned target)
{
	struct link *l = tr_new_link(t, target);

	if (!l)
		return;
	tr_align_field(t, cc < 0 ? 1 : 2);
	tr_cold(t, COLD_LINK)->link = l;
	tr_set_field(t, l, cc < 0 ? emit_jmp_forward(&t->e) : emit_jcc_forward(&t->e, (unsigned)cc));
}

void tr_goto_twin(struct tr *t, unsigned insn)
{
	struct link *l = tr_new_link(t, t->off[insn]);

	if (!l)
		return;
	l->twin = true;
	l->backward = false;
	if (t->live[insn])
		tr_flags_to_host(t);
	tr_align_field(t, 1);
	tr_set_field(t, l, emit_jmp_forward(&t->e));
	emit_link_stub(t, l, t->flags);
}

void tr_cold_link(struct tr *t, const struct cold *c)
{
	emit_link_stub(t, c->link, c->flags);
}

static bool has_far_links(const struct tr *t)
{
	return t->code_bits == 64 && tr_has_jump_cache(t) && !(t->b->debug_opts & (BT_OPT_NO_FAR | BT_OPT_SINGLE));
}

bool tr_is_far_link(struct tr *t, int64_t target)
{
	return has_far_links(t) && !tr_linkable(t, target);
}

/* Jumps to @target, page offset of another page, whose linear address is in T0; calls it if a call is on its way. Flags are in memory. */
static void far_jump(struct tr *t, int64_t target)
{
	struct link *l;

	if (!has_far_links(t)) {
		jump_by_cache(t);
		return;
	}
	l = tr_new_link(t, (unsigned)target & PAGE_OFF_MASK);
	if (!l)
		return;
	l->far = true;
	l->call = t->back.field && !t->in_cold;
	if (l->call) {
		tr_host_call(t, l);
	} else {
		tr_align_field(t, 1);
		tr_set_field(t, l, emit_jmp_forward(&t->e));
	}
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
bool tr_may_miss(const struct tr *t, int64_t target)
{
	if (t->code_bits != 64)
		return !(t->mode & MODE_FLAT_CODE);
	return target < -(int64_t)EDGE_BYTES || target > (int64_t)EDGE_BYTES ||
	       ((t->mode & MODE_PRIVATE_EDGE) && (target < 0 || target >= MEM_PAGE_SIZE));
}

void tr_check_target(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	struct cold *c;

	if (t->code_bits == 64 && i->op != OP_RET && i->op != OP_LOOP && i->opsize == 8 && tr_has_jump_cache(t)) {
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
	if (tr_may_miss(t, c->target))
		tr_check_target(t, &t->insn[c->insn]);
	far_jump(t, c->target);
}

void tr_goto(struct tr *t, int64_t target)
{
	bool straddles;

	t->done = true;
	if (tr_linkable(t, target)) {
		if (tr_live_at(t, (unsigned)target, &straddles))
			tr_flags_to_host(t);
		tr_link_jump(t, -1, (unsigned)target);
		return;
	}
	tr_flags_to_mem(t);
	tr_linear_of(t, target);
	far_jump(t, target);
}

void tr_goto_offset_t0(struct tr *t)
{
	t->done = true;
	if (t->code_bits != 64 && !(t->mode & MODE_FLAT_CODE)) {
		emit_op_mem(&t->e, true, 0x03, T0, H_RSP, H_NONE, 0, SLOT(cs_base));
		emit_mov_reg(&t->e, false, T0, T0);
	}
	jump_by_cache(t);
}

void tr_offset_in_cs(struct tr *t, const struct insn *i, int64_t target)
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

void tr_goto_target(struct tr *t, const struct insn *i, int64_t target)
{
	bool check = tr_may_miss(t, target) && i->op != OP_CALL;

	if (tr_plain_code(t, i) && !check) {
		tr_goto(t, target);
		return;
	}
	if (t->code_bits == 64 && i->op != OP_LOOP && tr_has_jump_cache(t)) {
		tr_flags_to_mem(t);
		tr_linear_of(t, target);
		tr_check_target(t, i);
		t->done = true;
		far_jump(t, target);
		return;
	}
	tr_flags_to_mem(t);
	tr_offset_in_cs(t, i, target);
	if (check)
		tr_check_target(t, i);
	tr_goto_offset_t0(t);
}
