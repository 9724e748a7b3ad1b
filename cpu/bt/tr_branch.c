/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What jumps: conditional and counting jumps here; the ways to their targets are in tr_link.c, calls and returns in tr_call.c.
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

int64_t tr_target_of(const struct tr *t, const struct insn *i)
{
	return t->off[t->cur] + i->len + i->imm;
}

static void branch_jcc(struct tr *t, const struct insn *i)
{
	int64_t target = tr_target_of(t, i);

	tr_flags_to_host(t);
	t->t0_kept = true;
	if (tr_linkable(t, target) && tr_plain_code(t, i)) {
		tr_link_jump(t, i->cc, (unsigned)target);
		return;
	}
	if (tr_plain_code(t, i) && !t->single) {
		struct cold *c = tr_cold(t, COLD_FAR_JUMP);

		c->target = target;
		c->field[c->nfields++] = emit_jcc_forward(&t->e, i->cc);
		return;
	}
	/* Both ways end in C. */
	uint32_t not_taken = emit_jcc_forward(&t->e, i->cc ^ 1);
	unsigned flags = t->flags;

	tr_goto_target(t, i, target);
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
	if (tr_may_miss(t, tr_target_of(t, i)))
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
	tr_goto_target(t, i, tr_target_of(t, i));
	emit_patch_rel32(e, skip, emit_pos(e));
	t->flags = flags;
	tr_goto(t, t->off[t->cur] + i->len);
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
		tr_goto_target(t, i, tr_target_of(t, i));
		break;
	case OP_CALL:
		tr_call(t, i);
		break;
	case OP_CALL_IND:
		tr_call_indirect(t, i);
		break;
	case OP_JMP_IND:
		tr_jump_indirect(t, i);
		break;
	case OP_RET:
		tr_ret(t, i);
		break;
	}
}
