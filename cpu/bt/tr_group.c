/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of memory accesses that share one TLB check.
 *
 * Compiled code reads and writes again and again at small distances from the same register: stack frames, pushes and
 * pops, fields of a structure. Before a block is emitted its accesses are put into groups: those whose
 * addresses are the same value plus constants, no further apart than GROUP_SPAN. At the first access of a group
 * the whole range is checked and the distance from guest address to host address put into a slot of the vCPU
 * (bt_vcpu.group); the others add it to their address and need no check and no flags.
 *
 * "The same value" is known by numbering values: every register starts with a number of its own and an offset of 0. An
 * addition of a constant changes the offset, a move copies both, everything else gives a new number.
 *
 * Nothing architectural may come of a check for accesses that are not made yet. When the range does not lie in one
 * page, or the page does not allow all of it (RAM, and writes if one of the group writes), the first access goes
 * on in a twin of the block that has no groups (MODE_PRIVATE_TWIN). Only the first access itself fills the TLB.
 *
 * A group ends at every call of C, which may change registers and mappings. Translated code itself cannot change
 * what the check found: mappings, TLB and who may write change in C and in this thread only (tlb.c).
 */
#include "cpu/bt/translate.h"

#define GROUP_SPAN 512

/* ---- values ---- */

struct value {
	uint16_t number;
	int64_t offset;
};

/* Numbers of addresses without a base register, and of those relative to the instruction pointer. */
enum { VALUE_ABSOLUTE, VALUE_PC, VALUE_FIRST_REG };

struct values {
	struct value reg[16];
	uint16_t next;
};

static void values_start(struct values *s)
{
	for (unsigned g = 0; g < 16; g++)
		s->reg[g] = (struct value){(uint16_t)(VALUE_FIRST_REG + g), 0};
	s->next = VALUE_FIRST_REG + 16;
}

static void new_value(struct values *s, unsigned g)
{
	s->reg[g] = (struct value){s->next++, 0};
}

static void set_value(struct values *s, unsigned g, struct value v)
{
	s->reg[g] = v;
	if (v.offset > INT32_MAX / 2 || v.offset < INT32_MIN / 2)
		new_value(s, g);
}

static void add_constant(struct values *s, unsigned g, int64_t n)
{
	set_value(s, g, (struct value){s->reg[g].number, s->reg[g].offset + n});
}

static void written_registers(struct values *s, const struct insn *i)
{
	static const uint8_t fields[] = {FIELD_REG, FIELD_RM, FIELD_VVVV, FIELD_OPCODE};

	for (unsigned g = 0; g < 16; g++)
		if (i->implicit_written >> g & 1)
			new_value(s, g);
	for (unsigned k = 0; k < ARRAY_SIZE(fields); k++) {
		if (!(i->gpr_written & fields[k]))
			continue;
		unsigned g = fields[k] == FIELD_REG    ? i->reg
			     : fields[k] == FIELD_VVVV ? i->vvvv
						       : i->rm;

		new_value(s, g & 15);
		if (i->gpr_byte & fields[k]) /* AH, CH, DH, BH */
			new_value(s, (g - 4) & 15);
	}
}

/* ADD, SUB r64, imm; INC, DEC r64. */
static bool adds_constant(const struct insn *i, int64_t *n)
{
	if (i->op != OP_COPY || i->encoding != ENC_LEGACY || i->map != MAP_ONE || i->has_mem || i->opsize != 8)
		return false;
	if ((i->opcode == 0x81 || i->opcode == 0x83) && ((i->reg & 7) == 0 || (i->reg & 7) == 5))
		*n = (i->reg & 7) == 0 ? i->imm : -i->imm;
	else if (i->opcode == 0xff && (i->reg & 7) <= 1)
		*n = (i->reg & 7) == 0 ? 1 : -1;
	else
		return false;
	return true;
}

/* What the registers are after the instruction. */
static void values_after(struct values *s, const struct insn *i)
{
	struct value source;
	int64_t n;

	switch (i->op) {
	case OP_PUSH:
		add_constant(s, X86_RSP, -(int64_t)i->opsize);
		return;
	case OP_POP:
		add_constant(s, X86_RSP, i->opsize);
		if (!i->has_mem)
			new_value(s, i->rm);
		return;
	case OP_LEAVE:
		set_value(s, X86_RSP, s->reg[X86_RBP]);
		add_constant(s, X86_RSP, i->opsize);
		new_value(s, X86_RBP);
		return;
	case OP_LEA:
		if (i->opsize != 8 || i->addrsize != 8 || i->base > 15 || i->index != REG_NONE)
			break;
		set_value(s, i->reg, (struct value){s->reg[i->base].number, s->reg[i->base].offset + i->disp});
		return;
	case OP_MOV:
		if (i->has_mem || i->opsize != 8 || i->encoding != ENC_LEGACY || (i->opcode != 0x89 && i->opcode != 0x8b))
			break;
		source = s->reg[i->opcode == 0x89 ? i->reg : i->rm];
		set_value(s, i->opcode == 0x89 ? i->rm : i->reg, source);
		return;
	default:
		if (adds_constant(i, &n)) {
			add_constant(s, i->rm, n);
			return;
		}
		break;
	}
	written_registers(s, i);
}

/* ---- groups ---- */

struct group_plan {
	struct values values;
	uint8_t live[BT_GROUP_SLOTS]; /* the group that has the slot, or GROUP_NONE */
	unsigned next_slot;
};

static void no_live_groups(struct group_plan *p)
{
	for (unsigned s = 0; s < BT_GROUP_SLOTS; s++)
		p->live[s] = GROUP_NONE;
}

static bool same_address(const struct group *g, const struct ea *ea, uint16_t base, uint16_t index)
{
	return g->base == base && g->index == index && g->seg == ea->seg &&
	       (ea->index == REG_NONE || g->scale == ea->scale);
}

/* Segments other than FS and GS are the same in 64-bit code. */
static uint8_t plain_segment(const struct ea *ea)
{
	return ea->seg == X86_FS || ea->seg == X86_GS ? ea->seg : X86_DS;
}

static bool can_be_grouped(const struct ea *ea, unsigned size)
{
	return size && size <= 64 && ea->addrsize == 8 && ea->base != EA_BASE_SCRATCH && !(ea->info & MEM_MASKED) &&
	       ea->disp == (int32_t)ea->disp;
}

static void plan_access(struct tr *t, struct group_plan *p, unsigned k, unsigned j, struct ea ea, unsigned size,
			unsigned access)
{
	struct planned *a = &t->plan[k][j];
	struct value base = {VALUE_ABSOLUTE, 0}, index = {VALUE_ABSOLUTE, 0};

	if (!can_be_grouped(&ea, size))
		return;
	if (ea.base == REG_PC)
		base = (struct value){VALUE_PC, t->off[k] + t->insn[k].len};
	else if (ea.base != REG_NONE)
		base = p->values.reg[ea.base];
	if (ea.index != REG_NONE)
		index = p->values.reg[ea.index];
	ea.seg = plain_segment(&ea);

	int64_t at = base.offset + index.offset * (1 << ea.scale) + ea.disp;
	struct group *g = NULL;

	if (ea.base == REG_PC && at != (int32_t)at)
		return; /* it is to be a displacement */

	for (unsigned s = 0; s < BT_GROUP_SLOTS; s++) {
		struct group *old = p->live[s] == GROUP_NONE ? NULL : &t->group[p->live[s]];

		if (!old || !same_address(old, &ea, base.number, index.number))
			continue;
		if (MAX(old->high, at + size) - MIN(old->low, at) <= GROUP_SPAN)
			g = old;
	}
	if (!g) {
		if (t->ngroups == GROUP_MAX)
			return;
		p->live[p->next_slot] = (uint8_t)t->ngroups;
		g = &t->group[t->ngroups++];
		*g = (struct group){.seg = ea.seg, .scale = ea.scale, .base = base.number, .index = index.number,
				    .low = at, .high = at + size, .slot = (uint8_t)p->next_slot};
		p->next_slot = (p->next_slot + 1) % BT_GROUP_SLOTS;
	}
	g->low = MIN(g->low, at);
	g->high = MAX(g->high, at + size);
	g->writes |= access & ACCESS_WRITE;
	g->count++;
	*a = (struct planned){.group = (uint8_t)(g - t->group), .size = (uint8_t)size,
			      .writes = access & ACCESS_WRITE, .base = ea.base, .index = ea.index,
			      .disp = ea.disp, .at = at};
}

/* The accesses of one instruction, in the order in which tr_*.c makes them. */
static void plan_insn(struct tr *t, struct group_plan *p, unsigned k)
{
	const struct insn *i = &t->insn[k];
	struct ea mem = tr_ea(i), stack;
	unsigned j = 0;

	switch (i->op) {
	case OP_LEA:
	case OP_NOP:
	case OP_BT_MEM:
	case OP_JMP:
	case OP_JCC:
	case OP_LOOP:
		return;
	case OP_PUSH:
	case OP_CALL:
	case OP_CALL_IND:
		if (i->has_mem)
			plan_access(t, p, k, j++, mem, i->opsize, ACCESS_READ);
		tr_stack_addr(t, &stack, -(int)i->opsize);
		plan_access(t, p, k, j, stack, i->opsize, ACCESS_WRITE);
		return;
	case OP_POP:
	case OP_RET:
		tr_stack_addr(t, &stack, 0);
		plan_access(t, p, k, j++, stack, i->opsize, ACCESS_READ);
		if (i->has_mem) {
			if (mem.base == X86_RSP)
				mem.disp += i->opsize;
			plan_access(t, p, k, j, mem, i->opsize, ACCESS_WRITE);
		}
		return;
	case OP_LEAVE:
		tr_stack_addr(t, &stack, 0);
		stack.base = X86_RBP;
		plan_access(t, p, k, j, stack, i->opsize, ACCESS_READ);
		return;
	case OP_JMP_IND:
		if (i->has_mem)
			plan_access(t, p, k, j, mem, i->opsize, ACCESS_READ);
		return;
	default:
		if (i->has_mem && i->mem_size)
			plan_access(t, p, k, j, mem, i->mem_size, i->mem_access);
		return;
	}
}

static bool groups_allowed(const struct tr *t)
{
	return t->code_bits == 64 && !t->single && !t->straddles && !(t->mode & (MODE_PRIVATE_TWIN | MODE_ALIGN)) &&
	       !(t->b->debug_opts & BT_OPT_NO_GROUP);
}

void tr_plan_groups(struct tr *t)
{
	struct group_plan p;

	t->ngroups = 0;
	for (unsigned k = 0; k < t->n; k++)
		t->plan[k][0].group = t->plan[k][1].group = GROUP_NONE;
	if (!groups_allowed(t))
		return;
	p.next_slot = 0;
	no_live_groups(&p);
	values_start(&p.values);
	for (unsigned k = 0; k < t->n; k++) {
		const struct insn *i = &t->insn[k];

		if (i->klass == CLASS_CALL || i->klass == CLASS_INVALID) {
			no_live_groups(&p);
			for (unsigned g = 0; g < 16; g++)
				new_value(&p.values, g);
			continue;
		}
		plan_insn(t, &p, k);
		values_after(&p.values, i);
	}
}
