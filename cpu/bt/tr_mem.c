/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory operands: effective address, segment, TLB check.
 *
 * The check (T0: linear address, size bytes):
 *	mov  T1d, T0d ; shr T1d, 7 ; and T1d, [rsp + mask]
 *	sub  T0, gs:[T1 + tag]		; distance from the start of the page that the entry allows
 *	cmp  T0, 4096 - size ; ja cold	; another page, or across its end
 *	add  T0, gs:[T1 + host]
 * The cold path computes the offset again (nothing has changed) and calls C, which fills the TLB and gives the
 * host pointer, raises the exception, or has the instruction run again with all its accesses through C.
 */
#include "cpu/bt/translate.h"

/* CVTPS2PI and its like: SSE instructions that write an MMX register. */
static bool to_mmx(const struct insn *i)
{
	return i->fpu == FPU_SSE && i->encoding == ENC_LEGACY && i->map == MAP_0F && (i->opcode & 0xfe) == 0x2c &&
	       i->pp < 2;
}

/* VCVTPH2PS, VCVTPS2PH: never #AC (SDM vol. 2, exceptions type 11). */
static bool is_half(const struct insn *i)
{
	return i->encoding != ENC_LEGACY && i->pp == 1 && ((i->map == MAP_0F38 && i->opcode == 0x13) ||
					     (i->map == MAP_0F3A && i->opcode == 0x1d));
}

struct ea tr_ea(const struct insn *i)
{
	uint32_t info = i->mem_align < 16 ? 0 : i->mem_align / 16 - i->mem_align / 64;

	info <<= MEM_ALIGN_AT;
	if (i->fpu >= FPU_SSE && (i->mem_size >= 16 || is_half(i)))
		info |= MEM_NO_AC;
	if (i->mem_masked)
		info |= MEM_MASKED;
	if (i->fpu == FPU_MMX)
		info |= MEM_X87 | MEM_MMX;
	else if ((i->fpu == FPU_X87 && i->may_trap) || to_mmx(i))
		info |= MEM_X87;
	return (struct ea){.seg = i->seg, .base = i->base, .index = i->index, .scale = i->scale,
			   .addrsize = i->addrsize, .disp = i->disp, .info = info};
}

/* A register of an address: in its own place, in T0 or T1 if one of them has it, or H_NONE. */
static uint8_t address_reg(const struct tr *t, unsigned guest)
{
	if (guest == REG_NONE || emit_host_reg(guest) != H_NONE || t->held.at != emit_pos(&t->e))
		return guest == REG_NONE ? H_NONE : emit_host_reg(guest);
	return guest == t->held.t0 ? T0 : guest == t->held.t1 ? T1 : H_NONE;
}

void tr_address_regs(struct tr *t, const struct ea *ea, uint8_t *base, uint8_t *index)
{
	*base = address_reg(t, ea->base);
	*index = address_reg(t, ea->index);

	bool load_base = ea->base != REG_NONE && *base == H_NONE, load_index = ea->index != REG_NONE && *index == H_NONE;

	/* What is to be loaded goes where the other one is not. */
	if (load_base && load_index) {
		*base = T0;
		*index = T1;
	} else if (load_base) {
		*base = *index == T0 ? T1 : T0;
	} else if (load_index) {
		*index = *base == T1 ? T0 : T1;
	}
	if (load_base)
		emit_load_slot(&t->e, *base, REG_SLOT(ea->base));
	if (load_index)
		emit_load_slot(&t->e, *index, REG_SLOT(ea->index));
}

void tr_offset(struct tr *t, const struct ea *ea)
{
	struct emit *e = &t->e;
	bool wide = ea->addrsize == 8;
	uint8_t base, index;

	t->t0_group = GROUP_NONE;
	t->t1_spent = true;
	if (ea->base == EA_BASE_SCRATCH) {
		emit_load_slot(e, T0, SLOT(scratch[1]));
		return;
	}
	if (ea->base == REG_PC) {
		tr_linear_of(t, t->off[t->cur] + t->insn[t->cur].len + ea->disp);
		if (!wide)
			emit_mov_reg(e, false, T0, T0);
		return;
	}
	if (ea->base == REG_NONE && ea->index == REG_NONE) {
		emit_mov_imm(e, T0, wide ? (uint64_t)ea->disp
					 : (uint64_t)ea->disp & size_mask(ea->addrsize));
		return;
	}
	tr_address_regs(t, ea, &base, &index);
	emit_lea(e, wide, T0, base, index, ea->scale, (int32_t)ea->disp);
	if (ea->addrsize == 2)
		emit_op_reg(e, false, 0x0fb7, T0, T0); /* movzx r14d, r14w */
}

static void gs_op(struct tr *t, unsigned op, uint8_t reg, int32_t disp)
{
	emit8(&t->e, 0x65);
	emit_op_mem(&t->e, true, op, reg, T1, H_NONE, 0, disp);
}

/* T0 := segment base + T0, after the limit check; *@field: the way out, or 0. */
static void add_segment(struct tr *t, const struct ea *ea, unsigned size, unsigned access,
			struct cold *c)
{
	struct emit *e = &t->e;
	int32_t slot = SLOT(segcheck) + (int32_t)(ea->seg * sizeof(t->v->segcheck[0]));

	if (t->code_bits == 64) {
		if (ea->seg == X86_FS)
			emit_op_mem(e, true, 0x03, T0, H_RSP, H_NONE, 0, SLOT(fs_base));
		else if (ea->seg == X86_GS)
			emit_op_mem(e, true, 0x03, T0, H_RSP, H_NONE, 0, SLOT(gs_base));
		return;
	}
	if ((t->mode & MODE_FLAT_DATA) &&
	    (ea->seg == X86_DS || ea->seg == X86_ES || ea->seg == X86_SS))
		return;

	int32_t limit = access == ACCESS_READ ? slot + 8 : slot + 16;

	emit_lea(e, true, T1, T0, H_NONE, 0, (int32_t)size - 1);
	emit_op_mem(e, true, 0x3b, T1, H_RSP, H_NONE, 0, limit); /* cmp T1, [limit] */
	c->field[c->nfields++] = emit_jcc_forward(e, CC_AE);
	emit_op_mem(e, true, 0x03, T0, H_RSP, H_NONE, 0, slot);
	emit_mov_reg(e, false, T0, T0); /* linear addresses wrap at 4 GiB */
}

static void bounce_access(struct tr *t, const struct ea *ea, uint32_t info)
{
	tr_offset(t, ea);
	if (info & MEM_MASKED) {
		const struct insn *kept = blocks_insn(t->b, &t->insn[t->cur]);

		if (!kept) {
			t->failed = true;
			return;
		}
		emit_mov_imm(&t->e, T1, (uint64_t)kept);
		emit_store_slot(&t->e, SLOT(scratch[2]), T1);
	}
	emit_mov_imm32(&t->e, T1, info);
	emit_call(&t->e, t->b->stub.bounce_in);
}

/* Where the TLB entries of the current class begin, from the GS base. */
static int32_t tlb_table(const struct tr *t)
{
	return (int32_t)(offsetof(struct tlb_slot, table) +
			 tlb_class_of_mode(t->mode) * sizeof(t->v->priv->slot->table[0]));
}

static int32_t tlb_tag(const struct tr *t, bool writes)
{
	return tlb_table(t) + (int32_t)(writes ? offsetof(struct tlb_entry, write_tag)
					       : offsetof(struct tlb_entry, read_tag));
}

/* Checks [T0, T0 + size) for reads or writes: T1 := index of the TLB entry, T0 := offset in the page. */
static void check(struct tr *t, unsigned size, bool writes, struct cold *c)
{
	struct emit *e = &t->e;

	emit_shifted(e, t->b->has_bmi2, TLB_SHIFT);
	emit_op_mem(e, false, 0x23, T1, H_RSP, H_NONE, 0, SLOT(tlb_mask[tlb_class_of_mode(t->mode)])); /* and */
	gs_op(t, 0x2b, T0, tlb_tag(t, writes)); /* sub */
	emit8(e, 0x49);		 /* cmp r14, imm32 */
	emit8(e, 0x81);
	emit8(e, 0xfe);
	emit32(e, 4096 - size);
	c->field[c->nfields++] = emit_jcc_forward(e, CC_A);
}

/* One access with a check of its own: host pointer → T0. */
static void check_access(struct tr *t, const struct ea *ea, unsigned size, unsigned access)
{
	struct emit *e = &t->e;
	uint32_t info = mem_info(t->off[t->cur], size, access, ea->seg) | ea->info;

	tr_flags_clobber(t);
	t->t0_group = GROUP_NONE;
	if (t->bounce) {
		bounce_access(t, ea, info);
		return;
	}
	struct cold *c = tr_cold(t, COLD_MEM);

	c->ea = *ea;
	c->info = info;
	tr_offset(t, ea);
	add_segment(t, ea, size, access, c);
	if ((t->mode & MODE_ALIGN) && mem_checked_alignment(info)) {
		emit8(e, 0x41); /* test r14b, alignment - 1 */
		emit8(e, 0xf6);
		emit8(e, 0xc6);
		emit8(e, (uint8_t)(mem_checked_alignment(info) - 1));
		c->field[c->nfields++] = emit_jcc_forward(e, CC_NE);
	}
	check(t, size, access & ACCESS_WRITE, c);
	gs_op(t, 0x03, T0, tlb_table(t) + (int32_t)offsetof(struct tlb_entry, host)); /* add */
	c->back = emit_pos(e);
}

/*
 * A prefetch is a hint: made when the TLB knows the page, nothing otherwise. (Its address must be checked all the same: what
 * the guest could have fetched or not tells it where the process has its memory.)
 */
void tr_prefetch(struct tr *t, const struct insn *i)
{
	struct ea ea = tr_ea(i);
	struct cold unknown = {.nfields = 0};
	struct emit *e = &t->e;

	tr_flags_clobber(t);
	tr_offset(t, &ea);
	add_segment(t, &ea, 1, ACCESS_READ, &unknown);
	check(t, 1, false, &unknown);
	gs_op(t, 0x03, T0, tlb_table(t) + (int32_t)offsetof(struct tlb_entry, host)); /* add */
	emit_op_mem(e, false, 0x0f00 | i->opcode, i->reg & 7, T0, H_NONE, 0, 0);
	for (unsigned k = 0; k < unknown.nfields; k++)
		emit_patch_rel32(e, unknown.field[k], emit_pos(e));
}

/* ---- groups ---- */

/*
 * The check for all of a group, at its first access. T0, and the group's slot, := what makes a host address of a
 * guest's: of base and displacement, of a displacement from the page of the block (REG_PC), or of an absolute one.
 */
static void open_group(struct tr *t, const struct ea *ea, struct group *g, const struct planned *a,
		       unsigned access)
{
	struct emit *e = &t->e;
	unsigned span = (unsigned)(g->high - g->low), first = (unsigned)(a->at - g->low);
	bool pc = ea->base == REG_PC;
	struct ea low = *ea;

	tr_flags_clobber(t);

	struct cold *c = tr_cold(t, COLD_GROUP);

	c->ea = *ea;
	c->info = mem_info(t->off[t->cur], a->size, access, ea->seg) | ea->info;
	c->group = group_info(span, first, g->writes, g->slot, pc);
	low.disp -= first;
	tr_offset(t, &low);
	add_segment(t, ea, span, access, c);
	check(t, span, g->writes, c);
	gs_op(t, 0x8b, T0, tlb_table(t) + (int32_t)offsetof(struct tlb_entry, host)); /* mov */
	gs_op(t, 0x2b, T0, tlb_tag(t, g->writes));				      /* sub */
	add_segment(t, ea, span, access, c);
	if (pc)
		emit_op_mem(e, true, 0x03, T0, H_RSP, H_NONE, 0, SLOT(vbase));
	emit_store_slot(e, GROUP_SLOT(g->slot), T0);
	c->back = emit_pos(e);
	g->opened = true;
}

/* Is the access in a group that has more than this one? */
static struct group *group_of(struct tr *t, const struct ea *ea, unsigned size, unsigned access,
			      const struct planned **planned)
{
	unsigned j = t->accesses++;
	const struct planned *a;
	struct group *g;

	if (t->cur >= t->n || j >= 2)
		return NULL;
	a = &t->plan[t->cur][j];
	if (a->group == GROUP_NONE || a->size != size || a->base != ea->base || a->index != ea->index ||
	    a->disp != ea->disp || (access & ACCESS_WRITE && !a->writes))
		return NULL;
	g = &t->group[a->group];
	if (g->count < 2 || ea->disp - (a->at - g->low) < INT32_MIN)
		return NULL;
	*planned = a;
	return g;
}

void tr_operand(struct tr *t, const struct ea *ea, unsigned size, unsigned access, struct host_mem *out)
{
	const struct planned *a;
	struct group *g = group_of(t, ea, size, access, &a);
	struct emit *e = &t->e;

	*out = (struct host_mem){.base = T0, .index = H_NONE};
	if (!g || !g->opened)
		tr_stack_settle(t);
	if (!g) {
		check_access(t, ea, size, access);
		return;
	}
	if (!g->opened) {
		open_group(t, ea, g, a, access);
		t->t0_group = a->group;
	}
	bool direct = ea->index == REG_NONE &&
		      (ea->base == REG_NONE || ea->base == REG_PC || emit_host_reg(ea->base) != H_NONE);

	if (!direct) {
		tr_offset(t, ea);
		emit_load_slot(e, T1, GROUP_SLOT(g->slot));
		emit_lea(e, true, T0, T0, T1, 0, 0);
		t->t0_group = GROUP_NONE;
		return;
	}
	if (t->t0_group != a->group)
		emit_load_slot(e, T0, GROUP_SLOT(g->slot));
	t->t0_group = a->group;
	out->disp = (int32_t)ea->disp + (ea->base == X86_RSP ? t->rsp_ahead : 0);
	if (ea->base == REG_PC)
		out->disp += t->off[t->cur] + t->insn[t->cur].len;
	else if (ea->base != REG_NONE)
		*out = (struct host_mem){emit_host_reg(ea->base), T0, out->disp};
}

void tr_access(struct tr *t, const struct ea *ea, unsigned size, unsigned access)
{
	struct host_mem m;

	tr_operand(t, ea, size, access, &m);
	tr_pointer(t, &m);
}

void tr_pointer(struct tr *t, struct host_mem *m)
{
	if (m->base == T0 && m->index == H_NONE && !m->disp)
		return;
	emit_lea(&t->e, true, T0, m->base, m->index, 0, m->disp);
	*m = (struct host_mem){.base = T0, .index = H_NONE};
	t->t0_group = GROUP_NONE;
}

void tr_cold_group(struct tr *t, const struct cold *c)
{
	struct emit *e = &t->e;

	for (unsigned k = 0; k < c->nfields; k++)
		emit_patch_rel32(e, c->field[k], emit_pos(e));
	tr_offset(t, &c->ea);
	emit8(e, 0xc7); /* mov dword [scratch 3], imm32 */
	emit_modrm_mem(e, 0, H_RSP, H_NONE, 0, SLOT(scratch[3]));
	emit32(e, c->group);
	emit_mov_imm32(e, T1, c->info);
	emit_call(e, t->b->stub.group_slow);
	emit8(e, 0x41); /* cmp r14d, 1 */
	emit8(e, 0x83);
	emit8(e, 0xfe);
	emit8(e, 1);

	uint32_t twin = emit_jcc_forward(e, CC_NE);

	emit_load_slot(e, T0, GROUP_SLOT(c->group >> 21 & 7));
	emit_jmp(e, c->back);
	emit_patch_rel32(e, twin, emit_pos(e));
	tr_goto_twin(t, c->insn);
}

void tr_cold_mem(struct tr *t, const struct cold *c)
{
	struct emit *e = &t->e;

	for (unsigned k = 0; k < c->nfields; k++)
		emit_patch_rel32(e, c->field[k], emit_pos(e));
	tr_offset(t, &c->ea);
	emit_mov_imm32(e, T1, c->info);
	emit_call(e, t->b->stub.mem_slow);
	emit_jmp(e, c->back);
}

void tr_access_done(struct tr *t, unsigned access)
{
	if (!t->bounce || !(access & ACCESS_WRITE))
		return;
	tr_flags_to_mem(t);
	t->flags = FLAGS_MEM;
	emit_call(&t->e, t->b->stub.bounce_out);
}
