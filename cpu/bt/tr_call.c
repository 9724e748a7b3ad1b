/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls, returns and indirect jumps.
 *
 * The ring of return addresses: a call notes the linear address behind it and where code goes on there; a return whose target is
 * the newest note's goes to that code, any other by the jump cache. Both ways it is a RET of the host's, and a call is a
 * CALL of the host's, so that its processor, which keeps such a stack too, foresees where returns go:
 *
 *		call	on
 *	back:	jmp	the block behind the call	; a link; the ring's code
 *	on:	lea	rsp, [rsp + 8]			; host rsp is the vCPU
 *		…	to the target
 *
 * The LEA is in the target's entry for calls, if the call is a link to another page.
 *
 *	return:	push	[the ring's code]
 *		ret
 */
#include "cpu/bt/translate.h"

static bool has_ring(const struct tr *t, unsigned size)
{
	return t->code_bits == 64 && size == 8 && !t->single &&
	       !(t->mode & (MODE_PRIVATE_NO_JC | MODE_PRIVATE_BREAK)) && !(t->b->debug_opts & (BT_OPT_NO_LINK | BT_OPT_NO_RING));
}

/* An instruction with a field of the current ring's entry @index. */
static void ring_op(struct tr *t, bool w, unsigned op, unsigned reg, uint8_t index, size_t field)
{
	emit_jump_cache_op(&t->e, t->mode & MODE_USER, w, op, reg, index, 3, field);
}

static void ring_top_op(struct tr *t, unsigned op, unsigned reg)
{
	emit_op_mem(&t->e, false, op, reg, H_RSP, H_NONE, 0, SLOT(ring_top) + !!(t->mode & MODE_USER));
}

/* T1 is the linear address behind a call, page offset @next. Uses T0 and T1. Flags are in memory. */
static void ring_push(struct tr *t, unsigned next)
{
	struct emit *e = &t->e;

	t->t0_group = GROUP_NONE;
	t->flags &= ~(unsigned)FLAGS_HOST;
	ring_top_op(t, 0xfe, 0);    /* inc byte */
	ring_top_op(t, 0x0fb6, T0); /* movzx */
	ring_op(t, true, 0x89, T1, T0, offsetof(struct jump_cache, ring_tag));
	emit8(e, 0x4c); /* lea T1, [rip + rel32] */
	emit8(e, 0x8d);
	emit8(e, 0x3d);
	t->back.field = emit_pos(e);
	t->back.next = next;
	emit32(e, 0);
	ring_op(t, true, 0x89, T1, T0, offsetof(struct jump_cache, ring_code));
}

void tr_host_call(struct tr *t, struct link *to)
{
	bool user = t->mode & MODE_USER;
	struct emit *e = &t->e;
	struct link *l = tr_new_link(t, t->back.next);
	uint32_t on;

	if (!l)
		return;
	l->ret = true;
	l->by_cache = true;
	tr_align_field(t, 1);
	tr_align_field(t, 1 + 4 + 1);
	on = emit_call_forward(e);
	if (to)
		tr_set_field(t, to, on);
	emit_patch_rel32(e, t->back.field, emit_pos(e));
	tr_set_field(t, l, emit_jmp_forward(e));
	emit_patch_rel32(e, link_field(l), user ? t->b->stub.jump_user : t->b->stub.jump_kernel);
	if (!to) {
		emit_patch_rel32(e, on, emit_pos(e));
		emit_behind_call(e);
	}
	t->back.field = 0;
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
		tr_offset_in_cs(t, i, next);
		if (size == 2)
			emit8(e, 0x66);
		emit_op_mem(e, size == 8, 0x89, T0, T1, H_NONE, 0, 0);
	}
	tr_access_done(t, ACCESS_WRITE);
	if (check) {
		emit_load_slot(e, T0, SLOT(scratch[0]));
		tr_check_target(t, i);
	}
	tr_stack_move(t, -(int)size);
}

void tr_call(struct tr *t, const struct insn *i)
{
	int64_t target = tr_target_of(t, i);
	bool check = tr_may_miss(t, target);

	tr_flags_to_mem(t);
	if (check) {
		tr_offset_in_cs(t, i, target);
		emit_store_slot(&t->e, SLOT(scratch[0]), T0);
	}
	push_return(t, i, check);
	if (t->back.field && !tr_is_far_link(t, target))
		tr_host_call(t, NULL);
	tr_goto_target(t, i, target);
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

void tr_call_indirect(struct tr *t, const struct insn *i)
{
	tr_flags_to_mem(t);
	load_target(t, i);
	emit_store_slot(&t->e, SLOT(scratch[0]), T0);
	push_return(t, i, true);
	if (t->back.field)
		tr_host_call(t, NULL);
	tr_goto_offset_t0(t);
}

void tr_jump_indirect(struct tr *t, const struct insn *i)
{
	tr_flags_to_mem(t);
	load_target(t, i);
	tr_check_target(t, i);
	tr_goto_offset_t0(t);
}

static int ret_pops(const struct insn *i)
{
	return i->opsize + (i->opcode == 0xc2 ? (int)(uint16_t)i->imm : 0);
}

void tr_ret(struct tr *t, const struct insn *i)
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
		ring_top_op(t, 0x0fb6, T1); /* movzx */
		ring_op(t, true, 0x3b, T0, T1, offsetof(struct jump_cache, ring_tag));
		c->field[c->nfields++] = emit_jcc_forward(&t->e, CC_NE);
		ring_top_op(t, 0xfe, 1); /* dec byte */
		tr_stack_move(t, ret_pops(i));
		ring_op(t, false, 0xff, 6, T1, offsetof(struct jump_cache, ring_code)); /* push */
		emit8(&t->e, 0xc3);
		return;
	}
	tr_check_target(t, i);
	tr_stack_move(t, ret_pops(i));
	tr_goto_offset_t0(t);
}

/* A return to somewhere else than expected: the host's processor forgets its note, too. */
void tr_cold_ret(struct tr *t, const struct cold *c)
{
	emit_patch_rel32(&t->e, c->field[0], emit_pos(&t->e));
	tr_check_target(t, &t->insn[c->insn]);
	ring_top_op(t, 0xfe, 1); /* dec byte */
	tr_stack_move(t, ret_pops(&t->insn[c->insn]));
	emit_jump_by_cache(&t->e, t->mode & MODE_USER, t->b->has_bmi2, true);
}
