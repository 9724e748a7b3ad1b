/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stack: PUSH, POP, LEAVE. Pushes and pops in a row move the guest's rsp once, behind them (tr.rsp_ahead).
 */
#include "cpu/bt/translate.h"

/* mov of @size bytes between registers. */
static void mov_sized(struct tr *t, unsigned size, uint8_t op, uint8_t reg, uint8_t rm)
{
	if (size == 2)
		emit8(&t->e, 0x66);
	emit_op_reg(&t->e, size == 8, op, reg, rm);
}

/* The same between register and memory. */
static void mov_mem(struct tr *t, unsigned size, uint8_t op, uint8_t reg, const struct host_mem *m)
{
	if (size == 2)
		emit8(&t->e, 0x66);
	emit_op_mem(&t->e, size == 8, op, reg, m->base, m->index, 0, m->disp);
}

void tr_stack_addr(struct tr *t, struct ea *ea, int disp)
{
	unsigned size = t->code_bits == 64 ? 8 : t->mode & MODE_STACK32 ? 4 : 2;

	*ea = (struct ea){.seg = X86_SS, .base = X86_RSP, .index = REG_NONE,
			  .addrsize = (uint8_t)size, .disp = disp};
}

void tr_stack_move(struct tr *t, int delta)
{
	bool wide = t->code_bits == 64;

	if (!wide && !(t->mode & MODE_STACK32))
		emit8(&t->e, 0x66);
	emit_lea(&t->e, wide, HOST_GUEST_RSP, HOST_GUEST_RSP, H_NONE, 0, delta);
}

void tr_stack_settle(struct tr *t)
{
	bool held = t->held.at == emit_pos(&t->e);

	if (!t->rsp_ahead)
		return;
	emit_lea(&t->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, H_NONE, 0, t->rsp_ahead);
	t->rsp_ahead = 0;
	if (held)
		t->held.at = emit_pos(&t->e);
}

bool tr_stack_moves_later(const struct tr *t, const struct insn *i)
{
	return (i->op == OP_PUSH || i->op == OP_POP) && t->code_bits == 64 && i->opsize == 8 && !i->has_mem &&
	       !(i->gpr_fields && i->rm == X86_RSP);
}

/* Pushed or popped @delta bytes by an access at @m. */
static void stack_moved(struct tr *t, const struct insn *i, const struct host_mem *m, int delta)
{
	if (m->base == HOST_GUEST_RSP && tr_stack_moves_later(t, i))
		t->rsp_ahead += delta;
	else
		tr_stack_move(t, delta);
}

void tr_push(struct tr *t, const struct insn *i)
{
	unsigned size = i->opsize;
	bool from_mem = i->has_mem;
	struct host_mem m;
	struct ea ea;

	if (from_mem) {
		ea = tr_ea(i);
		tr_operand(t, &ea, size, ACCESS_READ, &m);
		mov_mem(t, size, 0x8b, T1, &m);
		emit_store_slot(&t->e, SLOT(scratch[0]), T1);
	}
	tr_stack_addr(t, &ea, -(int)size);
	tr_operand(t, &ea, size, ACCESS_WRITE, &m);
	t->t0_kept = true;
	if (from_mem) {
		emit_load_slot(&t->e, T1, SLOT(scratch[0]));
		mov_mem(t, size, 0x89, T1, &m);
	} else if (!i->gpr_fields) { /* PUSH imm */
		mov_mem(t, size, 0xc7, 0, &m);
		if (size == 2) {
			emit8(&t->e, (uint8_t)i->imm);
			emit8(&t->e, (uint8_t)(i->imm >> 8));
		} else {
			emit32(&t->e, (uint32_t)i->imm);
		}
	} else {
		unsigned g = i->rm;
		uint8_t h = emit_host_reg(g);

		if (h == H_NONE) {
			h = T1;
			tr_load_guest(t, T1, g);
		}
		mov_mem(t, size, 0x89, h, &m);
	}
	stack_moved(t, i, &m, -(int)size);
	tr_access_done(t, ACCESS_WRITE);
}

void tr_pop(struct tr *t, const struct insn *i)
{
	unsigned size = i->opsize;
	struct host_mem m;
	struct ea ea;

	tr_stack_addr(t, &ea, 0);
	tr_operand(t, &ea, size, ACCESS_READ, &m);
	if (!i->has_mem) {
		uint8_t to = emit_host_reg(i->rm);

		if (to == H_NONE || size != 8 || i->rm == X86_RSP)
			to = T1;
		mov_mem(t, size, 0x8b, to, &m);
		t->t0_kept = size != 2;
		if (i->rm != X86_RSP) {
			stack_moved(t, i, &m, (int)size);
			if (to == T1)
				tr_store_sized(t, size, i->rm, T1);
		} else if (size == 2) { /* POP SP: the increment first, then the value over it */
			tr_stack_move(t, 2);
			tr_store_sized(t, 2, X86_RSP, T1);
		} else {
			tr_store_guest(t, X86_RSP, T1);
		}
		return;
	}
	/* POP m: an address with rSP is computed after the increment (SDM vol. 2, POP). */
	mov_mem(t, size, 0x8b, T1, &m);
	emit_store_slot(&t->e, SLOT(scratch[0]), T1);
	ea = tr_ea(i);
	if (ea.base == X86_RSP)
		ea.disp += size;
	tr_operand(t, &ea, size, ACCESS_WRITE, &m);
	emit_load_slot(&t->e, T1, SLOT(scratch[0]));
	mov_mem(t, size, 0x89, T1, &m);
	tr_stack_move(t, (int)size);
	tr_access_done(t, ACCESS_WRITE);
}

/* rSP := rBP; POP rBP. */
void tr_leave(struct tr *t, const struct insn *i)
{
	unsigned size = i->opsize;
	unsigned width = t->code_bits == 64 ? 8 : t->mode & MODE_STACK32 ? 4 : 2;
	struct ea ea = {.seg = X86_SS, .base = X86_RBP, .index = REG_NONE, .addrsize = (uint8_t)width};
	struct host_mem m;

	tr_operand(t, &ea, size, ACCESS_READ, &m);
	mov_mem(t, size, 0x8b, T1, &m);
	mov_sized(t, width, 0x89, H_RBP, HOST_GUEST_RSP);
	tr_stack_move(t, (int)size);
	tr_store_sized(t, size, X86_RBP, T1);
	t->t0_kept = size != 2;
}
