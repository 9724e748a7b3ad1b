/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds what the translator has emitted against what it may emit, with Zydis as the judge: it knows all memory
 * operands, the implicit ones too, and shares no table with the translator.
 *
 * A block is read from its first to its last byte, then its cold paths, which lie apart. Allowed are: accesses to the translator's slots at [rsp + n];
 * reads of the TLB and of the jump caches; accesses in a range that a check has granted, and writes only where writing
 * was checked; calls of stubs; jumps in the block, to stubs, and to entries of blocks of the same page and mode, or of
 * the block's twin without groups (a dropped block may still jump to another one); indirect jumps by the jump caches; returns
 * (push, ret) by these and by the rings of return addresses, into which code writes nothing but the place behind a host's call
 * (verify_is_back). Nothing else that touches memory, privileges, segments, or host rsp.
 *
 * Values are followed along the straight path (bt_values.h), through registers and slots: moves, LEA, and additions
 * and subtractions of 64 bits. A check is "sub T0, gs:[T1 + tag]; cmp T0, 4096 - n; ja": where T0 was A, and the tag was G and
 * goes with the host's address H, the n bytes from A - G + H on are granted. An access is good if its address is
 * known to differ from such a one by a constant that fits. In this way the distance H - G may be kept, and be used
 * for all accesses of a group. Calls of bounce_in grant what they were asked for.
 *
 * Everything is forgotten at each place that is jumped to; but where the cold path of a check comes back, which
 * must have asked for no less: then what the check has made known holds on both ways.
 */
#ifndef TESTS_UNIT_BT_VERIFY_H
#define TESTS_UNIT_BT_VERIFY_H

#include "tests/unit/bt_verify_access.h"

/* ---- what the instructions do ---- */

/* T1 as it is used to index: "and T1d, [rsp + mask]" for the TLB, "and T1d, …" for a jump cache. */
static inline void verify_index(struct verify *v)
{
	const ZydisDecodedOperand *a = &v->op[0], *b = &v->op[1];

	if (a->type != ZYDIS_OPERAND_TYPE_REGISTER || verify_gpr(a->reg.value) != T1 ||
	    !(a->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		return;
	v->index = INDEX_NONE;
	if (a->reg.value != ZYDIS_REGISTER_R15D)
		return;
	if (v->in.mnemonic == ZYDIS_MNEMONIC_AND && verify_is_mask(v, b)) {
		v->index = INDEX_TLB;
		v->host = value_new(&v->unknowns);
		v->tag[0] = value_new(&v->unknowns);
		v->tag[1] = value_new(&v->unknowns);
		v->subtracted = false;
	} else if (v->in.mnemonic == ZYDIS_MNEMONIC_AND && b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		   b->imm.value.u == (JC_ENTRIES - 1) * sizeof(struct jc_entry)) {
		v->index = INDEX_JUMP_CACHE;
	}
}

/* What an entry of the ring is to lead to; that it is an instruction, behind a call, is seen at the end. */
static inline bool verify_notes_back(struct verify *v, uint32_t pos)
{
	if (!verify_is_back(v, pos))
		return false;
	v->target[verify_place_of(v->b, pos)] |= IS_BACK;
	return true;
}

/* Registers that select an entry of the ring: "movzx r, byte [top]"; T1 with the address of code for it. */
static inline void verify_ring(struct verify *v)
{
	const ZydisDecodedOperand *a = &v->op[0], *b = &v->op[1];
	int r = a->type == ZYDIS_OPERAND_TYPE_REGISTER && a->size == 32 ? verify_gpr(a->reg.value) : -1;
	bool top = r >= 0 && v->in.mnemonic == ZYDIS_MNEMONIC_MOVZX && b->type == ZYDIS_OPERAND_TYPE_MEMORY && verify_is_top(v, b);

	for (unsigned k = 0; k < v->in.operand_count; k++)
		if (v->op[k].type == ZYDIS_OPERAND_TYPE_REGISTER && verify_gpr(v->op[k].reg.value) >= 0 &&
		    (v->op[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
			v->ring[verify_gpr(v->op[k].reg.value)] = false;
			v->code &= verify_gpr(v->op[k].reg.value) != T1;
		}
	if (top)
		v->ring[r] = true;
	if (v->in.mnemonic == ZYDIS_MNEMONIC_LEA && a->reg.value == ZYDIS_REGISTER_R15 && b->mem.base == ZYDIS_REGISTER_RIP)
		v->code = verify_notes_back(v, (uint32_t)(v->next + b->mem.disp.value));
}

/* The second operand's value: register, slot, immediate, field of the TLB entry. */
static inline bool verify_source(struct verify *v, const ZydisDecodedOperand *op, struct value *out)
{
	const struct value *place = verify_place(v, op);
	int field = verify_tlb_field(v, op);

	if (place)
		*out = *place;
	else if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		*out = value_constant(op->imm.is_signed ? (uint64_t)op->imm.value.s : op->imm.value.u);
	else if (field == offsetof(struct tlb_entry, host))
		*out = v->host;
	else if (field >= 0)
		*out = v->tag[field == offsetof(struct tlb_entry, write_tag)];
	else
		return false;
	return true;
}

/* "sub T0, tag; cmp T0, 4096 - n; ja", with T0 and T1 left alone meanwhile. */
static inline bool verify_check(struct verify *v)
{
	const ZydisDecodedOperand *a = &v->op[0], *b = &v->op[1];
	bool t0 = a->type == ZYDIS_OPERAND_TYPE_REGISTER && a->reg.value == ZYDIS_REGISTER_R14;
	int field = verify_tlb_field(v, b);
	struct value base;

	if (v->in.mnemonic == ZYDIS_MNEMONIC_SUB && t0 && (field == 0 || field == 8) && v->index == INDEX_TLB) {
		v->checked = v->now.reg[T0];
		v->writable = field == offsetof(struct tlb_entry, write_tag);
		v->subtracted = true;
		v->compared = 0;
	} else if (v->in.mnemonic == ZYDIS_MNEMONIC_CMP && t0 && b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && v->subtracted) {
		base = value_sum(&v->checked, &v->tag[v->writable], -1, &v->unknowns);
		if (!value_same(&base, &v->now.reg[T0]))
			return verify_fails(v, "not the distance that is compared");
		v->compared = b->imm.value.u <= 4096 ? 4096 - (unsigned)b->imm.value.u : 0;
	} else if (v->in.mnemonic == ZYDIS_MNEMONIC_JNBE && v->compared) {
		base = value_sum(&v->checked, &v->tag[v->writable], -1, &v->unknowns);
		base = value_sum(&base, &v->host, 1, &v->unknowns);
		v->subtracted = false;
		if (!verify_new_grant(v, base, v->checked, v->compared, v->writable))
			return verify_fails(v, "too many accesses");
		v->compared = 0;
	} else {
		v->compared = 0;
	}
	return true;
}

/* A check ends with T0 as the pointer, or with the distance in a group's slot and T0: there its slow path comes back. */
static inline void verify_ends_check(struct verify *v)
{
	const ZydisDecodedOperand *a = &v->op[0], *b = &v->op[1];
	struct verify_back back = {.grant = (uint16_t)v->grants};

	if (v->in.mnemonic == ZYDIS_MNEMONIC_ADD && a->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    a->reg.value == ZYDIS_REGISTER_R14 && verify_tlb_field(v, b) == offsetof(struct tlb_entry, host) && v->grants &&
	    value_same(&v->now.reg[T0], &v->grant[v->grants - 1].base)) {
		v->back[verify_place_of(v->b, v->pos) + v->in.length] = back;
	} else if (v->in.mnemonic == ZYDIS_MNEMONIC_MOV && verify_is_slot(a) && b->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		   b->reg.value == ZYDIS_REGISTER_R14 && a->mem.disp.value >= GROUP_SLOT(0) &&
		   a->mem.disp.value < GROUP_SLOT(BT_GROUP_SLOTS) && v->grants) {
		back.slot = (uint8_t)((a->mem.disp.value - GROUP_SLOT(0)) / 8 + 1);
		v->back[verify_place_of(v->b, v->pos) + v->in.length] = back;
	}
}

/* What registers and slots are behind the instruction. */
static inline bool verify_follow(struct verify *v)
{
	const ZydisDecodedOperand *a = &v->op[0], *b = &v->op[1];
	struct value result, *to = v->in.operand_count ? verify_place(v, a) : NULL, source;
	ZydisMnemonic m = v->in.mnemonic;
	bool known = false;

	if (!verify_check(v))
		return false;
	if (m == ZYDIS_MNEMONIC_MOV && a->type == ZYDIS_OPERAND_TYPE_REGISTER && a->reg.value == ZYDIS_REGISTER_R15D &&
	    b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		v->info = (uint32_t)b->imm.value.u;
	if (m == ZYDIS_MNEMONIC_MOV && verify_is_slot(a) && a->size == 32 && a->mem.disp.value == SLOT(scratch[3]) &&
	    b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		v->group = (uint32_t)b->imm.value.u;
	if (m == ZYDIS_MNEMONIC_MOV && a->type == ZYDIS_OPERAND_TYPE_REGISTER && a->size == 32 &&
	    b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && verify_gpr(a->reg.value) >= 0) {
		to = &v->now.reg[verify_gpr(a->reg.value)];
		result = value_constant((uint32_t)b->imm.value.u);
		known = true;
	} else if (to && m == ZYDIS_MNEMONIC_LEA && v->in.address_width == 64) {
		result = verify_address(v, b);
		known = true;
	} else if (to && (m == ZYDIS_MNEMONIC_MOV || m == ZYDIS_MNEMONIC_ADD || m == ZYDIS_MNEMONIC_SUB) &&
		   verify_source(v, b, &source)) {
		result = m == ZYDIS_MNEMONIC_MOV ? source
						 : value_sum(to, &source, m == ZYDIS_MNEMONIC_ADD ? 1 : -1, &v->unknowns);
		known = true;
	} else if (to && (m == ZYDIS_MNEMONIC_INC || m == ZYDIS_MNEMONIC_DEC)) {
		result = value_add(*to, m == ZYDIS_MNEMONIC_INC ? 1 : ~0ull);
		known = true;
	}
	for (unsigned k = 0; k < v->in.operand_count; k++) {
		const ZydisDecodedOperand *op = &v->op[k];
		int r = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? verify_gpr(op->reg.value) : -1;

		if (!(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		if (r >= 0) {
			v->now.reg[r] = value_new(&v->unknowns);
			if (r == T0 && !(known && k == 0))
				v->subtracted = false;
		}
		if (verify_is_slot(op))
			for (unsigned s = (unsigned)op->mem.disp.value / 8;
			     s < VERIFY_SLOTS && s * 8 < op->mem.disp.value + op->size / 8; s++)
				v->now.slot[s] = value_new(&v->unknowns);
	}
	verify_index(v);
	verify_ring(v);
	if (known)
		*to = result;
	verify_ends_check(v);
	return true;
}

static inline bool verify_forbidden(struct verify *v)
{
	if (v->in.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		return true;
	switch (v->in.meta.category) {
	case ZYDIS_CATEGORY_CALL: case ZYDIS_CATEGORY_COND_BR: case ZYDIS_CATEGORY_UNCOND_BR:
		return v->in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
	case ZYDIS_CATEGORY_RET: case ZYDIS_CATEGORY_PUSH:
		return v->in.mnemonic != ZYDIS_MNEMONIC_RET && v->in.mnemonic != ZYDIS_MNEMONIC_PUSH;
	case ZYDIS_CATEGORY_SYSCALL: case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_INTERRUPT: case ZYDIS_CATEGORY_SYSTEM: case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP: case ZYDIS_CATEGORY_STRINGOP:
	case ZYDIS_CATEGORY_POP: case ZYDIS_CATEGORY_SEGOP: case ZYDIS_CATEGORY_XSAVE: case ZYDIS_CATEGORY_XSAVEOPT:
	case ZYDIS_CATEGORY_RDWRFSGS: case ZYDIS_CATEGORY_VTX: case ZYDIS_CATEGORY_PKU: case ZYDIS_CATEGORY_CET:
	case ZYDIS_CATEGORY_SGX: case ZYDIS_CATEGORY_GATHER: case ZYDIS_CATEGORY_SCATTER:
		return true;
	default:
		return false;
	}
}

static inline bool verify_step(struct verify *v)
{
	bool slow = v->slow != SLOW_NO;

	for (unsigned k = 0; k < v->in.operand_count; k++) {
		const ZydisDecodedOperand *op = &v->op[k];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && !verify_memory(v, op))
			return false;
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
		    verify_gpr(op->reg.value) == H_RSP && !verify_uses_stack(v)) {
			if (v->falls || !verify_puts_rsp_right(v, v->pos))
				return verify_fails(v, "a write to rsp");
			v->target[verify_place_of(v->b, v->pos)] |= IS_CALLED; /* or was, until its link led elsewhere */
		}
	}
	if (slow && !verify_slow(v))
		return verify_fails(v, "not what follows a slow path");
	switch (v->in.meta.category) {
	case ZYDIS_CATEGORY_CALL:
		return verify_control(v);
	case ZYDIS_CATEGORY_PUSH: case ZYDIS_CATEGORY_RET:
		return verify_return(v) && verify_follow(v);
	case ZYDIS_CATEGORY_COND_BR: case ZYDIS_CATEGORY_UNCOND_BR:
		if (!verify_control(v) || !verify_follow(v))
			return false;
		if (v->slow == SLOW_MEM || v->slow == SLOW_LOADED)
			v->slow = SLOW_NO;
		return true;
	default:
		return verify_follow(v);
	}
}

/* ---- the way through a block ---- */

static inline bool verify_decode(struct verify *v, uint32_t pos)
{
	v->pos = pos;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&v->zydis, v->e->cache_rx + pos, verify_end(v, pos) - pos, &v->in, v->op)))
		return verify_fails(v, "no instruction");
	v->next = pos + v->in.length;
	return verify_forbidden(v) ? verify_fails(v, "a forbidden instruction") : true;
}

static inline bool verify_ends(const struct verify *v)
{
	return v->in.mnemonic == ZYDIS_MNEMONIC_JMP || v->in.mnemonic == ZYDIS_MNEMONIC_RET;
}

/* Where a jump leads to: what is known there. */
static inline void verify_arrive(struct verify *v, unsigned at)
{
	if (v->target[at] & IS_ENTRY) {
		verify_forget(v);
	} else if (v->back[at].grant) { /* T1 is the slow path's; all else is the same on both ways */
		v->now.reg[T1] = value_new(&v->unknowns);
		v->index = INDEX_NONE;
	} else if (v->in.meta.category == ZYDIS_CATEGORY_PREFETCH) { /* jumped over when its check fails */
		if (v->grants)
			v->grant[v->grants - 1].bytes = 0;
		v->now.reg[T0] = value_new(&v->unknowns);
		v->now.reg[T1] = value_new(&v->unknowns);
		v->index = INDEX_NONE;
	} else if (v->cold[at] && !(v->target[at] & IS_BACKWARD) && verify_ends(v)) { /* nobody comes here from above */
		v->now = v->at_jump[v->cold[at] - 1];
		v->index = INDEX_NONE;
	} else {
		verify_forget(v);
	}
}

/* The first instruction behind an entry of a dropped block, 8 bytes, is a jump now. */
static inline bool verify_is_patched(const struct block *b, uint32_t pos)
{
	return b->dead && b->mem_at && (pos == b->jc_entry || pos == block_ret_entry(b));
}

/* The targets of the jumps from one part of the block. */
static inline bool verify_find_targets(struct verify *v, uint32_t pos, uint32_t end)
{
	for (; pos < end; pos = v->next) {
		v->next = pos + 8;
		if (verify_is_patched(v->b, pos))
			continue;
		if (!verify_decode(v, pos))
			return false;
		unsigned to = verify_place_of(v->b, (uint32_t)(v->next + v->op[0].imm.value.s));

		if (v->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && v->op[0].imm.is_relative && to != VERIFY_OUTSIDE)
			v->target[to] |= to <= verify_place_of(v->b, pos) ? IS_TARGET | IS_BACKWARD : IS_TARGET;
	}
	return true;
}

static inline bool verify_part(struct verify *v, uint32_t start, uint32_t end)
{
	for (uint32_t pos = start; pos < end; pos = v->next) {
		unsigned at = verify_place_of(v->b, pos);

		v->next = pos + 8;
		if (verify_is_patched(v->b, pos))
			continue;
		if (v->target[at])
			verify_arrive(v, at);
		v->falls = pos != start && !verify_ends(v);
		if (!verify_decode(v, pos) || !verify_step(v))
			return false;
		v->target[at] |= IS_START;
	}
	return true;
}

/* False: v->what says why. No vCPU runs. */
static inline bool verify_block(struct verify *v, const struct bt_engine *e, const struct block *b)
{
	uint32_t start = b->jc_entry;
	unsigned length = verify_length(b);

	ZydisDecoderInit(&v->zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	v->e = e;
	v->b = b;
	v->pos = start;
	if (length >= 65536)
		return verify_fails(v, "too long");
	memset(v->back, 0, (length + 1) * sizeof(v->back[0]));
	memset(v->cold, 0, (length + 1) * sizeof(v->cold[0]));
	memset(v->target, 0, length + 1);
	v->unknowns = v->grants = v->colds = 0;
	v->info = v->group = 0;
	v->slow = SLOW_NO;
	if (!verify_find_targets(v, start, block_code_end(b)) || !verify_find_targets(v, b->cold_start, block_cold_end(b)))
		return false;
	if (b->mem_at && !b->dead)
		v->target[b->ret_at] |= IS_TARGET | IS_ENTRY;
	if (b->mem_at)
		v->target[b->mem_at] |= IS_TARGET | IS_ENTRY;
	v->target[b->poll_at] |= IS_TARGET | IS_ENTRY;
	v->target[b->main_at] |= IS_TARGET | IS_ENTRY;
	verify_forget(v);
	v->index = INDEX_JUMP_CACHE;
	if (!verify_part(v, start, block_code_end(b)))
		return false;
	if (v->slow != SLOW_NO || !verify_ends(v))
		return verify_fails(v, "the straight path has no end");
	verify_forget(v);
	if (!verify_part(v, b->cold_start, block_cold_end(b)))
		return false;
	for (unsigned k = start - b->jc_entry; k < length; k++) {
		v->pos = k < block_code_end(b) - b->jc_entry ? b->jc_entry + k : b->cold_start + k - (block_code_end(b) - b->jc_entry);
		if ((v->target[k] & IS_TARGET) && !(v->target[k] & IS_START))
			return verify_fails(v, "a jump into an instruction");
		if ((v->target[k] & IS_CALLED) && (v->target[k] & IS_STRAY))
			return verify_fails(v, "a jump to where host rsp is put right");
		if ((v->target[k] & IS_BACK) && (!(v->target[k] & IS_START) || !(v->target[k - VERIFY_CALL_BYTES] & IS_START)))
			return verify_fails(v, "not the way back of a call");
		if (v->back[k].grant && (v->target[k] & IS_STRAY))
			return verify_fails(v, "a jump behind a check");
	}
	return true;
}

#endif
