/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of the verifier (bt_verify.h): what it knows on its way through a block. Places, values, ranges that have been granted.
 */
#ifndef TESTS_UNIT_BT_VERIFY_STATE_H
#define TESTS_UNIT_BT_VERIFY_STATE_H

#include <Zydis/Zydis.h>

#include <stdio.h>
#include <string.h>

#include "cpu/bt/private.h"
#include "tests/unit/bt_values.h"

#define VERIFY_GRANTS 512
#define VERIFY_COLD 512
#define VERIFY_SLOTS (offsetof(struct bt_vcpu, rip) / 8)

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
	bool falls; /* the instruction before this one leads here */
	uint32_t unknowns;
	struct verify_state now;
	struct verify_grant grant[VERIFY_GRANTS];
	unsigned grants;
	uint8_t index;	    /* what T1 is: enum verify_index */
	bool ring[16];	    /* which registers are the number of the ring's newest entry */
	bool code;	    /* T1 is the address of code for the ring */
	uint32_t ret;	    /* behind the push of code to return to */

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
enum {
	IS_TARGET = 1,
	IS_START = 2,
	IS_STRAY = 4, /* jumped to by what is no slow path */
	IS_ENTRY = 8, /* all is forgotten */
	IS_BACKWARD = 16,
	IS_CALLED = 32, /* by a host's call: host rsp is put right there */
	IS_BACK = 64,	/* behind such a call, for the ring */
};

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

#endif
