/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of the verifier (bt_verify.h): what code may access, and where it may go.
 */
#ifndef TESTS_UNIT_BT_VERIFY_ACCESS_H
#define TESTS_UNIT_BT_VERIFY_ACCESS_H

#include "tests/unit/bt_verify_state.h"

/* ---- jumps and returns ---- */

#define VERIFY_CALL_BYTES 5

static inline bool verify_in_jump_cache(const ZydisDecodedOperand *op)
{
	if (op->mem.base == ZYDIS_REGISTER_R15 && op->mem.segment == ZYDIS_REGISTER_GS)
		return op->mem.index == ZYDIS_REGISTER_NONE &&
		       (op->mem.disp.value == USER_JC_OFF || op->mem.disp.value == USER_JC_OFF + 8);
	return op->mem.base == ZYDIS_REGISTER_RSP && op->mem.index == ZYDIS_REGISTER_R15 && op->mem.scale <= 1 &&
	       (op->mem.disp.value == KERNEL_JC_OFF || op->mem.disp.value == KERNEL_JC_OFF + 8);
}

/* The number of the ring's newest entry. */
static inline bool verify_is_top(const struct verify *v, const ZydisDecodedOperand *op)
{
	return op->mem.base == ZYDIS_REGISTER_RSP && op->mem.index == ZYDIS_REGISTER_NONE && op->size == 8 &&
	       op->mem.disp.value == SLOT(ring_top) + !!(v->b->mode & MODE_USER);
}

/* A field of the ring's newest entry; *code: its code. */
static inline bool verify_is_ring(const struct verify *v, const ZydisDecodedOperand *op, bool *code)
{
	bool user = v->b->mode & MODE_USER;
	int64_t field = op->mem.disp.value - (user ? USER_JC_OFF : KERNEL_JC_OFF);
	int index = op->mem.index == ZYDIS_REGISTER_NONE ? -1 : verify_gpr(op->mem.index);

	*code = field == offsetof(struct jump_cache, ring_code);
	if (user ? op->mem.segment != ZYDIS_REGISTER_GS || op->mem.base != ZYDIS_REGISTER_NONE
		 : op->mem.segment != ZYDIS_REGISTER_SS || op->mem.base != ZYDIS_REGISTER_RSP)
		return false;
	return index >= 0 && v->ring[index] && op->mem.scale == 8 && op->size == 64 &&
	       (*code || field == offsetof(struct jump_cache, ring_tag));
}

/* What the ring may lead to: blocks of this page and mode, by their own entry; and the stubs that look elsewhere. */
static inline bool verify_return_target(const struct verify *v, uint32_t to)
{
	const struct block *b = v->b;

	if (to == (b->mode & MODE_USER ? v->e->stub.jump_user : v->e->stub.jump_kernel))
		return true;
	for (const struct block *o = block_at(v->e, v->e->newest); o; o = block_at(v->e, o->older))
		if (to == block_ret_entry(o) && o->mem_at && (!o->dead || b->dead) && !o->straddles &&
		    o->mode == (b->mode & ~(uint32_t)MODE_PRIVATE_TWIN) && o->page == b->page)
			return true;
	return false;
}

/* Behind a host's call: a jump to where the ring may lead. */
static inline bool verify_is_back(const struct verify *v, uint32_t pos)
{
	const uint8_t *at = v->e->cache_rx + pos;
	int32_t field;

	if (pos < v->b->jc_entry + VERIFY_CALL_BYTES || pos + 5 > block_code_end(v->b) || at[-VERIFY_CALL_BYTES] != 0xe8 || at[0] != 0xe9)
		return false;
	memcpy(&field, at + 1, sizeof(field));
	return verify_return_target(v, pos + 5 + (uint32_t)field);
}

/* lea rsp, [rsp + 8] */
static inline bool verify_puts_rsp_right(const struct verify *v, uint32_t pos)
{
	static const uint8_t bytes[] = { 0x48, 0x8d, 0x64, 0x24, 0x08 };

	return pos + sizeof(bytes) <= verify_end(v, pos) && !memcmp(v->e->cache_rx + pos, bytes, sizeof(bytes));
}

static inline bool verify_jump_target(struct verify *v, uint32_t to)
{
	const struct block *b = v->b;

	if (verify_place_of(b, to) != VERIFY_OUTSIDE || to < v->e->cache_stubs_end)
		return true;
	if (verify_is_back(v, v->pos))
		return true; /* only returns come here, and find what they may */
	/* A far entry finds out whether T0's page is its own: the offset must be right. Calls enter a little before it. */
	if (v->in.mnemonic == ZYDIS_MNEMONIC_CALL)
		to += BEHIND_CALL_BYTES;
	const struct value *page = &v->now.slot[SLOT(vbase) / 8];
	uint64_t offset;
	bool far = value_distance(&v->now.reg[T0], page, &offset);

	for (const struct block *o = block_at(v->e, v->e->newest); o; o = block_at(v->e, o->older))
		if (far && o->far_entry && to == o->far_entry && (offset & 0xfff) == o->start && (!o->dead || b->dead) &&
		    o->mode == (b->mode & ~(uint32_t)MODE_PRIVATE_TWIN) && !o->straddles)
			return true;
		else if ((to == block_main_entry(o) || to == block_poll_entry(o)) && (!o->dead || b->dead) &&
		    !((o->mode ^ b->mode) & ~(uint32_t)MODE_PRIVATE_TWIN) &&
		    o->page == b->page && !o->straddles)
			return true;
	return false;
}

/* ---- memory ---- */

/* gs:[T1 + disp]: the part of the TLB's entries that disp names; -1 for something else, or another class's table. */
static inline int verify_tlb_field(const struct verify *v, const ZydisDecodedOperand *op)
{
	int64_t table = (int64_t)(offsetof(struct tlb_slot, table) +
				  tlb_class_of_mode(v->b->mode) * TLB_ENTRIES_MAX * sizeof(struct tlb_entry));

	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.segment != ZYDIS_REGISTER_GS ||
	    op->mem.base != ZYDIS_REGISTER_R15 || op->mem.index != ZYDIS_REGISTER_NONE || op->size != 64)
		return -1;
	return op->mem.disp.value >= table && op->mem.disp.value < table + 24 ? (int)(op->mem.disp.value - table) : -1;
}

/* The mask of the TLB table in use. */
static inline bool verify_is_mask(const struct verify *v, const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.base == ZYDIS_REGISTER_RSP &&
	       op->mem.index == ZYDIS_REGISTER_NONE && op->size == 32 &&
	       op->mem.disp.value == SLOT(tlb_mask[tlb_class_of_mode(v->b->mode)]);
}

static inline bool verify_uses_stack(const struct verify *v)
{
	return v->in.mnemonic == ZYDIS_MNEMONIC_CALL || v->in.mnemonic == ZYDIS_MNEMONIC_PUSH || v->in.mnemonic == ZYDIS_MNEMONIC_RET;
}

static inline bool verify_memory(struct verify *v, const ZydisDecodedOperand *op)
{
	bool writes = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	unsigned bytes = op->size / 8;
	int64_t disp = op->mem.disp.value;
	struct value address;
	bool code;

	if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN || v->in.mnemonic == ZYDIS_MNEMONIC_NOP)
		return true;
	if (op->mem.type != ZYDIS_MEMOP_TYPE_MEM)
		return verify_fails(v, "a vector index");
	if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
		return verify_uses_stack(v) ? true : verify_fails(v, "an implicit memory operand");
	if (verify_is_ring(v, op, &code))
		return !writes || !code ||
				       (v->code && v->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
					v->op[1].reg.value == ZYDIS_REGISTER_R15 && v->in.mnemonic == ZYDIS_MNEMONIC_MOV)
			       ? true : verify_fails(v, "not code that the ring may lead to");
	if (op->mem.segment == ZYDIS_REGISTER_GS || (op->mem.index == ZYDIS_REGISTER_R15 && op->mem.base == ZYDIS_REGISTER_RSP)) {
		if (!writes && v->index == INDEX_TLB && verify_tlb_field(v, op) >= 0)
			return true;
		if (!writes && v->index == INDEX_JUMP_CACHE && verify_in_jump_cache(op))
			return true;
		return verify_fails(v, "not a use of TLB or jump cache");
	}
	if (op->mem.segment != ZYDIS_REGISTER_DS && op->mem.segment != ZYDIS_REGISTER_SS)
		return verify_fails(v, "a segment");
	if (v->in.address_width != 64)
		return verify_fails(v, "an address");
	if (op->mem.base == ZYDIS_REGISTER_RSP) {
		if (op->mem.index != ZYDIS_REGISTER_NONE || disp < 0 ||
		    disp + bytes > (int64_t)offsetof(struct bt_vcpu, rip))
			return verify_fails(v, "not a slot");
		if (writes && disp + bytes > (unsigned)SLOT(host_rsp) && disp < SLOT(exit_target))
			return verify_fails(v, "a write to host_rsp");
		if (writes && disp + bytes > (unsigned)SLOT(tlb_mask) && disp < SLOT(aflags))
			return verify_fails(v, "a write to tlb_mask");
		return true;
	}
	if (v->in.meta.category == ZYDIS_CATEGORY_PREFETCH || v->in.meta.category == ZYDIS_CATEGORY_CLFLUSHOPT || v->in.mnemonic == ZYDIS_MNEMONIC_CLFLUSH ||
	    v->in.mnemonic == ZYDIS_MNEMONIC_CLWB)
		bytes = 1; /* the line that has the byte */
	address = verify_address(v, op);
	return verify_granted(v, &address, bytes, writes) ? true : verify_fails(v, "an access that was not checked");
}

/* ---- calls, slow paths, the ways back ---- */

/* Calls of stubs: what they leave as it was, and what they grant. */
static inline bool verify_call(struct verify *v, uint32_t to)
{
	unsigned slot = v->group >> 21 & 7;

	v->slow = SLOW_NO;
	v->asked = v->now.reg[T0];
	if (to == v->e->stub.mem_slow || to == v->e->stub.group_slow) {
		v->now.reg[T0] = value_new(&v->unknowns);
		v->now.reg[T1] = value_new(&v->unknowns);
		v->slow = to == v->e->stub.mem_slow ? SLOW_MEM : SLOW_GROUP;
		if (v->slow == SLOW_GROUP)
			v->now.slot[GROUP_SLOT(slot) / 8] = value_new(&v->unknowns);
		return true;
	}
	verify_forget(v);
	if (to == v->e->stub.bounce_in &&
	    !verify_new_grant(v, v->now.reg[T0], v->now.reg[T0], v->info >> 13 & 0xff, (v->info >> 23 & 3) != ACCESS_READ))
		return verify_fails(v, "too many accesses");
	if (to == v->e->stub.bounce_in || to == v->e->stub.bounce_out || to == v->e->stub.call_op)
		return true;
	return verify_fails(v, "a call of no stub");
}

/*
 * The jump back from a slow path, which must have asked for all that the check would have: of mem_slow, any
 * access as wide; of group_slow, the same range, and T0 is what its slot is.
 */
static inline bool verify_comes_back(struct verify *v, unsigned to)
{
	const struct verify_back *back = &v->back[to];
	const struct verify_grant *g = back->grant ? &v->grant[back->grant - 1] : NULL;
	unsigned seg = v->info >> 25 & 7;
	struct value low = v->asked;

	if (!g || (v->slow == SLOW_LOADED) != !!back->slot)
		return verify_fails(v, "no way back");
	if (v->slow == SLOW_MEM)
		return (v->info >> 13 & 0xff) >= g->bytes && (!g->writable || (v->info >> 23 & 3) != ACCESS_READ)
			       ? true : verify_fails(v, "the slow path checks less");
	if (seg == X86_FS || seg == X86_GS)
		low = value_sum(&low, &v->now.slot[(seg == X86_FS ? SLOT(fs_base) : SLOT(gs_base)) / 8], 1, &v->unknowns);
	low = value_add(low, -(uint64_t)(v->group >> 10 & 0x3ff));
	if (!value_same(&low, &g->address) || (v->group & 0x3ff) < g->bytes || (g->writable && !(v->group >> 20 & 1)) ||
	    back->slot != (v->group >> 21 & 7) + 1)
		return verify_fails(v, "the group's slow path checks something else");
	return true;
}

/* Behind "call group_slow": cmp T0d, 1; jne to the twin; mov T0, [the group's slot]; jmp back. */
static inline bool verify_slow(struct verify *v)
{
	const ZydisDecodedOperand *a = &v->op[0], *b = &v->op[1];

	switch (v->slow) {
	case SLOW_GROUP:
		v->slow = SLOW_COMPARED;
		return v->in.mnemonic == ZYDIS_MNEMONIC_CMP && a->reg.value == ZYDIS_REGISTER_R14D &&
		       b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && b->imm.value.u == 1;
	case SLOW_COMPARED:
		v->slow = SLOW_DECIDED;
		return v->in.mnemonic == ZYDIS_MNEMONIC_JNZ;
	case SLOW_DECIDED:
		v->slow = SLOW_LOADED;
		return v->in.mnemonic == ZYDIS_MNEMONIC_MOV && a->reg.value == ZYDIS_REGISTER_R14 && verify_is_slot(b) &&
		       b->mem.disp.value == GROUP_SLOT(v->group >> 21 & 7);
	default:
		return v->in.mnemonic == ZYDIS_MNEMONIC_JMP && a->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	}
}

static inline bool verify_control(struct verify *v)
{
	const ZydisDecodedOperand *op = &v->op[0];
	uint32_t to = (uint32_t)(v->next + op->imm.value.s);
	unsigned place = verify_place_of(v->b, to);

	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
		return v->in.mnemonic == ZYDIS_MNEMONIC_JMP && verify_in_jump_cache(op) && v->index == INDEX_JUMP_CACHE
			       ? true : verify_fails(v, "an indirect jump");
	if (op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !op->imm.is_relative)
		return verify_fails(v, "an indirect jump");
	if (v->in.mnemonic == ZYDIS_MNEMONIC_CALL) {
		if (!verify_is_back(v, v->next))
			return verify_call(v, to);
		if (to == (v->b->mode & MODE_USER ? v->e->stub.call_user : v->e->stub.call_kernel))
			return true;
		if (place != VERIFY_OUTSIDE && !verify_puts_rsp_right(v, to))
			return verify_fails(v, "a call");
		if (place == VERIFY_OUTSIDE && to < v->e->cache_stubs_end)
			return verify_fails(v, "a call of no stub for it");
	}
	if (!verify_jump_target(v, to))
		return verify_fails(v, "a jump out of its page");
	if (place == VERIFY_OUTSIDE)
		return true;
	if (v->in.mnemonic == ZYDIS_MNEMONIC_JMP && (v->slow == SLOW_MEM || v->slow == SLOW_LOADED))
		return verify_comes_back(v, place);
	v->target[place] |= v->in.mnemonic == ZYDIS_MNEMONIC_CALL ? IS_CALLED : IS_STRAY;
	if (place > verify_place_of(v->b, v->pos) && !v->cold[place]) {
		if (v->colds == VERIFY_COLD)
			return verify_fails(v, "too many jumps");
		v->at_jump[v->colds] = v->now;
		v->cold[place] = (uint16_t)++v->colds;
	} else if (v->cold[place]) { /* the same but for what the check works with */
		struct verify_state *s = &v->at_jump[v->cold[place] - 1];

		for (unsigned k = 0; k < 16; k++)
			if (!value_same(&s->reg[k], &v->now.reg[k]))
				s->reg[k] = value_new(&v->unknowns);
		for (unsigned k = 0; k < VERIFY_SLOTS; k++)
			if (!value_same(&s->slot[k], &v->now.slot[k]))
				s->slot[k] = value_new(&v->unknowns);
	}
	return true;
}

/* A return: "push", of code that the ring or the jump cache leads to, and "ret". */
static inline bool verify_return(struct verify *v)
{
	const ZydisDecodedOperand *op = &v->op[0];
	bool code;

	if (v->in.mnemonic == ZYDIS_MNEMONIC_RET)
		return v->ret == v->pos && v->in.length == 1 ? true : verify_fails(v, "a return");
	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || !((verify_in_jump_cache(op) && v->index == INDEX_JUMP_CACHE) ||
						       (verify_is_ring(v, op, &code) && code)))
		return verify_fails(v, "a push");
	v->ret = v->next;
	return true;
}

#endif
