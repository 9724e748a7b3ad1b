/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds what the translator has emitted against what it may emit, with Zydis as the judge: it knows all memory
 * operands, the implicit ones too, and shares no table with the translator.
 *
 * A block is read from its first to its last byte, then its cold paths, which lie apart. Allowed are: accesses to the translator's slots at [rsp + n];
 * reads of the TLB and of the jump caches; accesses in a range that a check has granted, and writes only where writing
 * was checked; calls of stubs; jumps in the block, to stubs, and to entries of blocks of the same page and mode, or of
 * the block's twin without groups (a dropped block may still jump to another one); indirect jumps by the jump caches and the
 * rings of return addresses, into which code writes nothing but entries for that of blocks of its page, and stubs. Nothing
 * else that touches memory, privileges, segments, or host rsp.
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

#include <Zydis/Zydis.h>

#include <stdio.h>
#include <string.h>

#include "cpu/bt/private.h"
#include "tests/unit/bt_values.h"

#define VERIFY_GRANTS 512
#define VERIFY_COLD 512
#define VERIFY_SLOTS (offsetof(struct bt_vcpu, rip) / 8)

enum verify_ring { RING_NONE, RING_TOP, RING_OFFSET };
enum verify_index { INDEX_NONE, INDEX_TLB, INDEX_JUMP_CACHE };

struct verify_grant {
	struct value base, address; /* of the host; of the guest, which was checked */
	unsigned bytes;
	bool writable;
};

struct verify_state {
	struct value reg[16], slot[VERIFY_SLOTS];
};

/* Where the path of a check goes on. */
struct verify_back {
	uint16_t grant; /* its number + 1; 0: none */
	uint8_t slot;	/* of a group, its number + 1; 0: none */
};

struct verify {
	ZydisDecoder zydis;
	const struct bt_engine *e;
	const struct block *b;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint32_t pos, next;
	uint32_t unknowns;
	struct verify_state now;
	struct verify_grant grant[VERIFY_GRANTS];
	unsigned grants;
	uint8_t index;	    /* what T1 is: enum verify_index */
	uint8_t ring[16];   /* what registers are: enum verify_ring */
	bool code;	    /* T1 is the address of code for the ring */

	/* The check on its way. */
	struct value host, tag[2]; /* of the TLB entry that T1 names; by reading and writing */
	struct value checked;	   /* what a tag was taken from */
	bool subtracted, writable;
	unsigned compared;	   /* bytes */

	/* The slow path on its way. */
	uint32_t info, group;	   /* the last "mov T1d, imm32" and "mov dword [scratch 3], imm32" */
	struct value asked;	   /* T0 at the call */
	enum { SLOW_NO, SLOW_MEM, SLOW_GROUP, SLOW_COMPARED, SLOW_DECIDED, SLOW_LOADED } slow;

	/* By place: distance from the block's start, then that from the start of its cold paths. */
	struct verify_back back[65536];
	uint16_t cold[65536]; /* the state there is that at the jump: number + 1 */
	uint8_t target[65536];
	struct verify_state at_jump[VERIFY_COLD];
	unsigned colds;
	char what[160];
};
enum { IS_TARGET = 1, IS_START = 2, IS_STRAY = 4 /* jumped to by what is no slow path */, IS_BACKWARD = 16, IS_ENTRY = 8 /* all is forgotten */ };

#define VERIFY_OUTSIDE (~0u)

static inline unsigned verify_length(const struct block *b)
{
	return block_code_end(b) - b->jc_entry + block_cold_end(b) - b->cold_start;
}

/* The place of a position in the cache. */
static inline unsigned verify_place_of(const struct block *b, uint32_t pos)
{
	if (pos >= b->jc_entry && pos < block_code_end(b))
		return pos - b->jc_entry;
	return pos >= b->cold_start && pos < block_cold_end(b) ? block_code_end(b) - b->jc_entry + pos - b->cold_start : VERIFY_OUTSIDE;
}

static inline uint32_t verify_end(const struct verify *v, uint32_t pos)
{
	return pos >= v->b->jc_entry && pos < block_code_end(v->b) ? block_code_end(v->b) : block_cold_end(v->b);
}

static inline bool verify_fails(struct verify *v, const char *what)
{
	int n = snprintf(v->what, sizeof(v->what), "%s at +%#x: %s", what, verify_place_of(v->b, v->pos),
			 ZydisMnemonicGetString(v->in.mnemonic));

	for (unsigned k = 0; k < 15 && v->pos + k < verify_end(v, v->pos); k++)
		n += snprintf(v->what + n, sizeof(v->what) - (size_t)n, " %02x", v->e->cache_rx[v->pos + k]);
	return false;
}

static inline int verify_gpr(ZydisRegister r)
{
	ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return full >= ZYDIS_REGISTER_RAX && full <= ZYDIS_REGISTER_R15 ? (int)(full - ZYDIS_REGISTER_RAX) : -1;
}

/* ---- values ---- */

static inline void verify_forget(struct verify *v)
{
	for (unsigned k = 0; k < 16; k++)
		v->now.reg[k] = value_new(&v->unknowns);
	for (unsigned k = 0; k < VERIFY_SLOTS; k++)
		v->now.slot[k] = value_new(&v->unknowns);
	memset(v->ring, 0, sizeof(v->ring));
	v->code = false;
	v->index = INDEX_NONE;
	v->subtracted = false;
	v->compared = 0;
}

static inline bool verify_is_slot(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.base == ZYDIS_REGISTER_RSP &&
	       op->mem.index == ZYDIS_REGISTER_NONE && op->mem.segment == ZYDIS_REGISTER_SS && op->mem.disp.value >= 0 &&
	       op->mem.disp.value < (int64_t)(8 * VERIFY_SLOTS);
}

/* The value of 64 bits that the operand is, or NULL. */
static inline struct value *verify_place(struct verify *v, const ZydisDecodedOperand *op)
{
	if (op->size != 64)
		return NULL;
	if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && verify_gpr(op->reg.value) >= 0)
		return &v->now.reg[verify_gpr(op->reg.value)];
	if (verify_is_slot(op) && !(op->mem.disp.value & 7) && op->mem.disp.value != SLOT(poll))
		return &v->now.slot[op->mem.disp.value / 8];
	return NULL;
}

static inline struct value verify_address(struct verify *v, const ZydisDecodedOperand *op)
{
	struct value sum = value_constant((uint64_t)op->mem.disp.value);

	if (op->mem.base != ZYDIS_REGISTER_NONE && verify_gpr(op->mem.base) < 0)
		return value_new(&v->unknowns);
	if (op->mem.base != ZYDIS_REGISTER_NONE)
		sum = value_sum(&sum, &v->now.reg[verify_gpr(op->mem.base)], 1, &v->unknowns);
	if (op->mem.index != ZYDIS_REGISTER_NONE)
		sum = value_sum(&sum, &v->now.reg[verify_gpr(op->mem.index)], op->mem.scale, &v->unknowns);
	return sum;
}

static inline struct verify_grant *verify_new_grant(struct verify *v, struct value base, struct value address,
						    unsigned bytes, bool writable)
{
	if (v->grants == VERIFY_GRANTS)
		return NULL;
	v->grant[v->grants] = (struct verify_grant){base, address, bytes, writable};
	return &v->grant[v->grants++];
}

static inline bool verify_granted(struct verify *v, const struct value *address, unsigned bytes, bool writes)
{
	uint64_t distance;

	for (unsigned k = v->grants; k-- > 0;) {
		const struct verify_grant *g = &v->grant[k];

		if (value_distance(address, &g->base, &distance) && distance < g->bytes &&
		    bytes <= g->bytes - distance && (g->writable || !writes))
			return true;
	}
	return false;
}

/* ---- memory and jumps ---- */

static inline bool verify_jump_target(struct verify *v, uint32_t to)
{
	const struct block *b = v->b;

	if (verify_place_of(b, to) != VERIFY_OUTSIDE || to < v->e->cache_stubs_end)
		return true;
	/* A far entry finds out whether T0's page is its own: the offset must be right. */
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

static inline bool verify_in_jump_cache(const ZydisDecodedOperand *op)
{
	if (op->mem.base == ZYDIS_REGISTER_R15 && op->mem.segment == ZYDIS_REGISTER_GS)
		return op->mem.index == ZYDIS_REGISTER_NONE &&
		       (op->mem.disp.value == USER_JC_OFF || op->mem.disp.value == USER_JC_OFF + 8);
	return op->mem.base == ZYDIS_REGISTER_RSP && op->mem.index == ZYDIS_REGISTER_R15 && op->mem.scale <= 1 &&
	       (op->mem.disp.value == KERNEL_JC_OFF || op->mem.disp.value == KERNEL_JC_OFF + 8);
}

/* Offset in the current jump cache that the operand names, without its index register, if it has one; -1: it does not. */
static inline int64_t verify_cache_field(const struct verify *v, const ZydisDecodedOperand *op, int *index)
{
	bool user = v->b->mode & MODE_USER;
	ZydisRegister reg = user ? op->mem.base : op->mem.index;
	int64_t field = op->mem.disp.value - (user ? USER_JC_OFF : KERNEL_JC_OFF);

	*index = reg == ZYDIS_REGISTER_NONE ? -1 : verify_gpr(reg);
	if (user ? op->mem.segment != ZYDIS_REGISTER_GS || op->mem.index != ZYDIS_REGISTER_NONE
		 : op->mem.segment != ZYDIS_REGISTER_SS || op->mem.base != ZYDIS_REGISTER_RSP)
		return -1;
	if ((reg != ZYDIS_REGISTER_NONE && (*index < 0 || (!user && op->mem.scale != 1))) || field < 0)
		return -1;
	return field;
}

/* The number of the ring's newest entry. */
static inline bool verify_is_top(const struct verify *v, const ZydisDecodedOperand *op)
{
	return op->mem.base == ZYDIS_REGISTER_RSP && op->mem.index == ZYDIS_REGISTER_NONE && op->size == 8 &&
	       op->mem.disp.value == SLOT(ring_top) + !!(v->b->mode & MODE_USER);
}

/* One of the fields of an entry of the ring; *code: the entry's code. */
static inline bool verify_is_ring(const struct verify *v, const ZydisDecodedOperand *op, bool *code)
{
	int index;
	int64_t field = verify_cache_field(v, op, &index);

	*code = field == (int64_t)(offsetof(struct jump_cache, ring) + offsetof(struct jc_entry, code));
	return index >= 0 && op->size == 64 && v->ring[index] == RING_OFFSET &&
	       (*code || field == (int64_t)(offsetof(struct jump_cache, ring) + offsetof(struct jc_entry, tag)));
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
		return v->in.mnemonic == ZYDIS_MNEMONIC_CALL ? true : verify_fails(v, "an implicit memory operand");
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
	bool code;

	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
		return v->in.mnemonic == ZYDIS_MNEMONIC_JMP &&
				       ((verify_in_jump_cache(op) && v->index == INDEX_JUMP_CACHE) ||
					(verify_is_ring(v, op, &code) && code))
			       ? true : verify_fails(v, "an indirect jump");
	if (op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !op->imm.is_relative)
		return verify_fails(v, "an indirect jump");
	if (v->in.mnemonic == ZYDIS_MNEMONIC_CALL)
		return verify_call(v, to);
	if (!verify_jump_target(v, to))
		return verify_fails(v, "a jump out of its page");
	if (place == VERIFY_OUTSIDE)
		return true;
	if (v->in.mnemonic == ZYDIS_MNEMONIC_JMP && (v->slow == SLOW_MEM || v->slow == SLOW_LOADED))
		return verify_comes_back(v, place);
	v->target[place] |= IS_STRAY;
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

/* ---- the straight path ---- */

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

/* Registers that select an entry of the ring: "movzx r, byte [top]; shl r, 4"; T1 with the address of code for it. */
static inline void verify_ring(struct verify *v)
{
	const ZydisDecodedOperand *a = &v->op[0], *b = &v->op[1];
	int r = a->type == ZYDIS_OPERAND_TYPE_REGISTER && a->size == 32 ? verify_gpr(a->reg.value) : -1;
	bool top = r >= 0 && v->in.mnemonic == ZYDIS_MNEMONIC_MOVZX && b->type == ZYDIS_OPERAND_TYPE_MEMORY;
	bool offset = r >= 0 && v->in.mnemonic == ZYDIS_MNEMONIC_SHL && v->ring[r] == RING_TOP &&
		      b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && b->imm.value.u == 4;

	top = top && verify_is_top(v, b);
	for (unsigned k = 0; k < v->in.operand_count; k++)
		if (v->op[k].type == ZYDIS_OPERAND_TYPE_REGISTER && verify_gpr(v->op[k].reg.value) >= 0 &&
		    (v->op[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
			v->ring[verify_gpr(v->op[k].reg.value)] = RING_NONE;
			v->code &= verify_gpr(v->op[k].reg.value) != T1;
		}
	if (top || offset)
		v->ring[r] = top ? RING_TOP : RING_OFFSET;
	if (v->in.mnemonic == ZYDIS_MNEMONIC_LEA && a->reg.value == ZYDIS_REGISTER_R15 && b->mem.base == ZYDIS_REGISTER_RIP)
		v->code = verify_return_target(v, (uint32_t)(v->next + b->mem.disp.value));
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
	bool slow = v->slow != SLOW_NO;

	for (unsigned k = 0; k < v->in.operand_count; k++) {
		const ZydisDecodedOperand *op = &v->op[k];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && !verify_memory(v, op))
			return false;
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
		    verify_gpr(op->reg.value) == H_RSP && v->in.mnemonic != ZYDIS_MNEMONIC_CALL)
			return verify_fails(v, "a write to rsp");
	}
	if (slow && !verify_slow(v))
		return verify_fails(v, "not what follows a slow path");
	switch (v->in.meta.category) {
	case ZYDIS_CATEGORY_CALL:
		return verify_control(v);
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

static inline bool verify_decode(struct verify *v, uint32_t pos)
{
	v->pos = pos;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&v->zydis, v->e->cache_rx + pos, verify_end(v, pos) - pos, &v->in, v->op)))
		return verify_fails(v, "no instruction");
	v->next = pos + v->in.length;
	return verify_forbidden(v) ? verify_fails(v, "a forbidden instruction") : true;
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
	} else if (v->cold[at] && !(v->target[at] & IS_BACKWARD) && v->in.mnemonic == ZYDIS_MNEMONIC_JMP) { /* nobody comes here from above */
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

static inline bool verify_part(struct verify *v, uint32_t pos, uint32_t end)
{
	for (; pos < end; pos = v->next) {
		unsigned at = verify_place_of(v->b, pos);

		v->next = pos + 8;
		if (verify_is_patched(v->b, pos))
			continue;
		if (v->target[at])
			verify_arrive(v, at);
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
	if (v->slow != SLOW_NO || v->in.mnemonic != ZYDIS_MNEMONIC_JMP)
		return verify_fails(v, "the straight path has no end");
	verify_forget(v);
	if (!verify_part(v, b->cold_start, block_cold_end(b)))
		return false;
	for (unsigned k = start - b->jc_entry; k < length; k++) {
		v->pos = k < block_code_end(b) - b->jc_entry ? b->jc_entry + k : b->cold_start + k - (block_code_end(b) - b->jc_entry);
		if ((v->target[k] & IS_TARGET) && !(v->target[k] & IS_START))
			return verify_fails(v, "a jump into an instruction");
		if (v->back[k].grant && (v->target[k] & IS_STRAY))
			return verify_fails(v, "a jump behind a check");
	}
	return true;
}

#endif
