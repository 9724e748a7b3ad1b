/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds what the translator has emitted against what it may emit, with Zydis as the judge: it knows all memory
 * operands, the implicit ones too, and shares no table with the translator.
 *
 * A block is read from its first to its last byte. Allowed are: accesses to the translator's slots at [rsp + n];
 * reads of the TLB and of the jump caches; accesses through a pointer that a check has given out, no wider than
 * checked, and writes only where writing was checked; calls of stubs; jumps in the block, to stubs, and to
 * entries of blocks of the same page and mode (a dropped block may still jump to another one); indirect jumps by the jump caches. Nothing else that touches memory,
 * privileges, segments, or host rsp.
 *
 * Pointers are followed along the straight path: "cmp T0, 4096 - n; ja" and "add T0, gs:[T1 + host]" make T0 one
 * of n bytes, as do the calls of bounce_in; moves copy it; every other write to the register and every
 * place that is jumped to forgets it. The cold path of a check must come back behind it with no fewer bytes.
 */
#ifndef TESTS_UNIT_BT_VERIFY_H
#define TESTS_UNIT_BT_VERIFY_H

#include <Zydis/Zydis.h>

#include <stdio.h>
#include <string.h>

#include "cpu/bt/private.h"

#define VERIFY_MAX 8192 /* instructions of one block */

enum verify_index { INDEX_NONE, INDEX_TLB, INDEX_WORD, INDEX_JUMP_CACHE };

struct verify_pointer {
	uint16_t bytes;
	bool writable;
};

struct verify {
	ZydisDecoder zydis;
	const struct bt_engine *e;
	const struct block *b;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint32_t pos, next;
	struct verify_pointer ptr[16];
	uint16_t limit;	    /* of the last "cmp T0, imm" that was followed by ja */
	uint16_t compared;
	bool tag_writable;  /* the last tag subtracted was that for writes */
	uint8_t index;	    /* what T1 is: enum verify_index */
	uint32_t info;	    /* the last "mov T1d, imm32" */
	bool after_mem_slow;
	struct verify_pointer at[65536]; /* by distance from the block's start: what holds behind a check */
	uint8_t target[65536];		 /* is jumped to */
	char what[160];
};

static inline bool verify_fails(struct verify *v, const char *what)
{
	int n = snprintf(v->what, sizeof(v->what), "%s at +%#x: %s", what, v->pos - v->b->jc_entry,
			 ZydisMnemonicGetString(v->in.mnemonic));

	for (unsigned k = 0; k < 15 && v->pos + k < v->b->code_end; k++)
		n += snprintf(v->what + n, sizeof(v->what) - (size_t)n, " %02x", v->e->cache_rx[v->pos + k]);
	return false;
}

static inline int verify_gpr(ZydisRegister r)
{
	ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return full >= ZYDIS_REGISTER_RAX && full <= ZYDIS_REGISTER_R15 ? (int)(full - ZYDIS_REGISTER_RAX) : -1;
}

static inline bool verify_jump_target(struct verify *v, uint32_t to)
{
	const struct block *b = v->b;

	if (to >= b->jc_entry && to < b->code_end)
		return true;
	if (to < v->e->cache_stubs_end)
		return true;
	for (const struct block *o = v->e->newest; o; o = o->older)
		if ((to == o->main_entry || to == o->poll_entry) && (!o->dead || b->dead) && o->mode == b->mode &&
		    (o->gpa & ~0xfffull) == (b->gpa & ~0xfffull) && o->gpa2 == ~0ull)
			return true;
	return false;
}

static inline bool verify_in_jump_cache(const ZydisDecodedOperand *op)
{
	if (op->mem.base == ZYDIS_REGISTER_R15 && op->mem.segment == ZYDIS_REGISTER_GS)
		return op->mem.index == ZYDIS_REGISTER_NONE &&
		       (op->mem.disp.value == USER_JC_OFF || op->mem.disp.value == USER_JC_OFF + 8);
	return op->mem.base == ZYDIS_REGISTER_RSP && op->mem.index == ZYDIS_REGISTER_R15 && op->mem.scale <= 1 &&
	       (op->mem.disp.value == KERNEL_JC_OFF || op->mem.disp.value == KERNEL_JC_OFF + 8);
}

/* gs:[T1 + disp]: the part of the TLB's entries that disp names; -1 for something else, or another class's table. */
static inline int verify_tlb_field(const struct verify *v, const ZydisDecodedOperand *op)
{
	int64_t table = (int64_t)(offsetof(struct tlb_slot, table) +
				  tlb_class_of_mode(v->b->mode) * TLB_ENTRIES_MAX * sizeof(struct tlb_entry));

	if (op->mem.segment != ZYDIS_REGISTER_GS || op->mem.base != ZYDIS_REGISTER_R15 ||
	    op->mem.index != ZYDIS_REGISTER_NONE || op->size != 64)
		return -1;
	return op->mem.disp.value >= table && op->mem.disp.value < table + 24 ? (int)(op->mem.disp.value - table) : -1;
}

static inline bool verify_memory(struct verify *v, const ZydisDecodedOperand *op)
{
	bool writes = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	unsigned bytes = op->size / 8;
	int64_t disp = op->mem.disp.value;
	int base = verify_gpr(op->mem.base);

	if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		return true;
	if (op->mem.type != ZYDIS_MEMOP_TYPE_MEM)
		return verify_fails(v, "a vector index");
	if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
		return v->in.mnemonic == ZYDIS_MNEMONIC_CALL ? true : verify_fails(v, "an implicit memory operand");
	if (op->mem.segment == ZYDIS_REGISTER_GS || op->mem.index == ZYDIS_REGISTER_R15) {
		if (!writes && v->index == INDEX_TLB && verify_tlb_field(v, op) >= 0)
			return true;
		if (!writes && v->index == INDEX_JUMP_CACHE && verify_in_jump_cache(op))
			return true;
		return verify_fails(v, "not a use of TLB or jump cache");
	}
	if (op->mem.segment != ZYDIS_REGISTER_DS && op->mem.segment != ZYDIS_REGISTER_SS)
		return verify_fails(v, "a segment");
	if (op->mem.index != ZYDIS_REGISTER_NONE || base < 0 || v->in.address_width != 64)
		return verify_fails(v, "an address");
	if (base == H_RSP) {
		if (disp < 0 || disp + bytes > (int64_t)offsetof(struct bt_vcpu, rip))
			return verify_fails(v, "not a slot");
		if (writes && disp >= SLOT(host_rsp) && disp < SLOT(exit_target))
			return verify_fails(v, "a write to host_rsp");
		return true;
	}
	if (v->in.meta.category == ZYDIS_CATEGORY_CLFLUSHOPT || v->in.mnemonic == ZYDIS_MNEMONIC_CLFLUSH ||
	    v->in.mnemonic == ZYDIS_MNEMONIC_CLWB)
		bytes = 1; /* the line that has the byte */
	if (disp || bytes > v->ptr[base].bytes || (writes && !v->ptr[base].writable))
		return verify_fails(v, "an access that was not checked");
	return true;
}

static inline bool verify_control(struct verify *v)
{
	const ZydisDecodedOperand *op = &v->op[0];
	uint32_t to = (uint32_t)(v->next + op->imm.value.s);

	v->after_mem_slow = false;
	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
		return v->in.mnemonic == ZYDIS_MNEMONIC_JMP && verify_in_jump_cache(op) && v->index == INDEX_JUMP_CACHE
			       ? true : verify_fails(v, "an indirect jump");
	if (op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !op->imm.is_relative)
		return verify_fails(v, "an indirect jump");
	if (v->in.mnemonic != ZYDIS_MNEMONIC_CALL)
		return verify_jump_target(v, to) ? true : verify_fails(v, "a jump out of its page");
	if (to != v->e->stub.mem_slow && to != v->e->stub.bounce_in && to != v->e->stub.bounce_out &&
	    to != v->e->stub.call_op)
		return verify_fails(v, "a call of no stub");
	memset(v->ptr, 0, sizeof(v->ptr));
	if (to == v->e->stub.mem_slow || to == v->e->stub.bounce_in) {
		v->ptr[T0].bytes = v->info >> 13 & 0xff;
		v->ptr[T0].writable = (v->info >> 23 & 3) != ACCESS_READ;
		v->after_mem_slow = to == v->e->stub.mem_slow;
	}
	return true;
}

/* T1 as it is used to index: "and T1d, mask" for the TLB, "movzx T1d, T0w; shl T1d, 4" for a jump cache. */
static inline void verify_index(struct verify *v)
{
	const ZydisDecodedOperand *a = &v->op[0], *b = &v->op[1];
	uint8_t old = v->index;

	if (a->type != ZYDIS_OPERAND_TYPE_REGISTER || verify_gpr(a->reg.value) != T1 ||
	    !(a->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		return;
	v->index = INDEX_NONE;
	if (a->reg.value != ZYDIS_REGISTER_R15D)
		return;
	if (v->in.mnemonic == ZYDIS_MNEMONIC_AND && b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	    b->imm.value.u == (TLB_ENTRIES - 1) * sizeof(struct tlb_entry))
		v->index = INDEX_TLB;
	else if (v->in.mnemonic == ZYDIS_MNEMONIC_MOVZX && b->reg.value == ZYDIS_REGISTER_R14W)
		v->index = INDEX_WORD;
	else if (v->in.mnemonic == ZYDIS_MNEMONIC_SHL && old == INDEX_WORD && b->imm.value.u == 4)
		v->index = INDEX_JUMP_CACHE;
}

/* The straight path's knowledge of pointers, behind the instruction. */
static inline void verify_follow(struct verify *v)
{
	const ZydisDecodedOperand *a = &v->op[0], *b = &v->op[1];
	bool regs = a->type == ZYDIS_OPERAND_TYPE_REGISTER && b->type == ZYDIS_OPERAND_TYPE_REGISTER;
	struct verify_pointer moved = {0};
	int field = b->type == ZYDIS_OPERAND_TYPE_MEMORY ? verify_tlb_field(v, b) : -1;
	bool to_t0 = a->type == ZYDIS_OPERAND_TYPE_REGISTER && a->reg.value == ZYDIS_REGISTER_R14;

	if (v->in.mnemonic == ZYDIS_MNEMONIC_MOV && regs && a->size == 64 && verify_gpr(b->reg.value) >= 0)
		moved = v->ptr[verify_gpr(b->reg.value)];
	if (v->in.mnemonic == ZYDIS_MNEMONIC_SUB && to_t0 && field >= 0)
		v->tag_writable = field == offsetof(struct tlb_entry, write_tag);
	if (v->in.mnemonic == ZYDIS_MNEMONIC_CMP && to_t0 && b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		v->compared = b->imm.value.u <= 4096 ? (uint16_t)(4096 - b->imm.value.u) : 0;
	else if (v->in.mnemonic == ZYDIS_MNEMONIC_JNBE)
		v->limit = v->compared;
	if (v->in.mnemonic == ZYDIS_MNEMONIC_ADD && to_t0 && field == offsetof(struct tlb_entry, host))
		moved = (struct verify_pointer){v->limit, v->tag_writable};
	if (v->in.mnemonic == ZYDIS_MNEMONIC_MOV && a->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    a->reg.value == ZYDIS_REGISTER_R15D && b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		v->info = (uint32_t)b->imm.value.u;
	for (unsigned k = 0; k < v->in.operand_count; k++)
		if (v->op[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    (v->op[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && verify_gpr(v->op[k].reg.value) >= 0)
			v->ptr[verify_gpr(v->op[k].reg.value)] = (struct verify_pointer){0};
	verify_index(v);
	if (moved.bytes)
		v->ptr[verify_gpr(a->reg.value)] = moved;
	if (v->in.mnemonic == ZYDIS_MNEMONIC_ADD && moved.bytes) {
		v->at[v->next - v->b->jc_entry] = moved;
		v->limit = v->compared = 0;
	}
}

static inline bool verify_forbidden(struct verify *v)
{
	if (v->in.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		return true;
	switch (v->in.meta.category) {
	case ZYDIS_CATEGORY_CALL: case ZYDIS_CATEGORY_COND_BR: case ZYDIS_CATEGORY_UNCOND_BR:
		return v->in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
	case ZYDIS_CATEGORY_RET: case ZYDIS_CATEGORY_SYSCALL: case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_INTERRUPT: case ZYDIS_CATEGORY_SYSTEM: case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP: case ZYDIS_CATEGORY_STRINGOP: case ZYDIS_CATEGORY_PUSH:
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
	for (unsigned k = 0; k < v->in.operand_count; k++) {
		const ZydisDecodedOperand *op = &v->op[k];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && !verify_memory(v, op))
			return false;
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
		    verify_gpr(op->reg.value) == H_RSP && v->in.mnemonic != ZYDIS_MNEMONIC_CALL)
			return verify_fails(v, "a write to rsp");
	}
	switch (v->in.meta.category) {
	case ZYDIS_CATEGORY_CALL: case ZYDIS_CATEGORY_COND_BR: case ZYDIS_CATEGORY_UNCOND_BR:
		return verify_control(v) && (verify_follow(v), true);
	default:
		verify_follow(v);
		return true;
	}
}

/* Behind "call mem_slow" only "jmp back" may stand, to where no more is allowed than it has checked. */
static inline bool verify_back(struct verify *v, const struct verify_pointer *slow)
{
	uint32_t to = (uint32_t)(v->next + v->op[0].imm.value.s) - v->b->jc_entry;

	if (v->in.mnemonic != ZYDIS_MNEMONIC_JMP || v->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || to >= 65536)
		return verify_fails(v, "no way back");
	if (v->at[to].bytes > slow->bytes || (v->at[to].writable && !slow->writable))
		return verify_fails(v, "the slow path checks less");
	return true;
}

static inline bool verify_decode(struct verify *v, uint32_t pos)
{
	v->pos = pos;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&v->zydis, v->e->cache_rx + pos, v->b->code_end - pos, &v->in, v->op)))
		return verify_fails(v, "no instruction");
	v->next = pos + v->in.length;
	return verify_forbidden(v) ? verify_fails(v, "a forbidden instruction") : true;
}

/* False: v->what says why. No vCPU runs. */
static inline bool verify_block(struct verify *v, const struct bt_engine *e, const struct block *b)
{
	bool patched = b->dead && b->mem_entry != b->jc_entry; /* its first instruction is a jump now */
	uint32_t start = b->jc_entry + (patched ? 8 : 0);

	ZydisDecoderInit(&v->zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	v->e = e;
	v->b = b;
	if (b->code_end - b->jc_entry >= 65536)
		return verify_fails(v, "too long");
	memset(v->ptr, 0, sizeof(v->ptr));
	memset(v->at, 0, (b->code_end - b->jc_entry + 1) * sizeof(v->at[0]));
	memset(v->target, 0, b->code_end - b->jc_entry + 1);
	v->limit = v->compared = 0;
	v->info = 0;
	v->index = INDEX_JUMP_CACHE;
	v->after_mem_slow = false;
	for (uint32_t pos = start; pos < b->code_end; pos = v->next) {
		if (!verify_decode(v, pos))
			return false;
		uint32_t to = (uint32_t)(v->next + v->op[0].imm.value.s) - b->jc_entry;

		if (v->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && v->op[0].imm.is_relative &&
		    to <= b->code_end - b->jc_entry)
			v->target[to] = 1;
	}
	for (uint32_t pos = start; pos < b->code_end; pos = v->next) {
		bool slow = v->after_mem_slow;
		struct verify_pointer given = v->ptr[T0];

		v->after_mem_slow = false;
		if (v->target[pos - b->jc_entry]) {
			struct verify_pointer here = v->at[pos - b->jc_entry];

			memset(v->ptr, 0, sizeof(v->ptr));
			v->ptr[T0] = here;
		}
		if (!verify_decode(v, pos) || (slow && !verify_back(v, &given)) || !verify_step(v))
			return false;
		v->target[pos - b->jc_entry] |= 2; /* an instruction begins here */
	}
	for (uint32_t k = start - b->jc_entry; k < b->code_end - b->jc_entry; k++)
		if (v->target[k] == 1) {
			v->pos = b->jc_entry + k;
			return verify_fails(v, "a jump into an instruction");
		}
	return true;
}

#endif
