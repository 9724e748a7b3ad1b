/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the translator share while one block is being made.
 *
 * Parts: translate.c (which instructions, liveness of flags, layout of the block), tr_mem.c and tr_group.c (memory operands),
 * tr_insn.c, tr_copy.c and tr_stack.c (data instructions), tr_branch.c, tr_call.c and tr_link.c (what jumps, and where to).
 */
#ifndef CPU_BT_TRANSLATE_H
#define CPU_BT_TRANSLATE_H

#include "cpu/bt/private.h"

#define ALL_FLAGS X86_ARITH_FLAGS
#define PAGE_OFF_MASK 0xfffu

/* Where the guest's arithmetic flags are at this point of the block; none: they are dead. */
enum { FLAGS_HOST = 1, FLAGS_MEM = 2 };

/* A memory operand, or a stack slot; or an offset that was put into scratch[1]. */
#define EA_BASE_SCRATCH 0xfd
struct ea {
	uint8_t seg, base, index, scale, addrsize;
	int64_t disp;
	uint32_t info; /* MEM_… */
};

/* Accesses that share one check (tr_group.c). */
#define GROUP_MAX (2 * BLOCK_INSNS_MAX)
#define GROUP_NONE 0xff
struct group {
	uint8_t seg, scale, slot;
	bool writes, opened;
	uint8_t count;
	uint16_t base, index; /* numbers of the values */
	int64_t low, high;    /* the range, from those */
};

struct planned {
	uint8_t group; /* or GROUP_NONE */
	uint8_t size;
	bool writes;
	uint8_t base, index;
	int64_t disp, at; /* of the operand; in the group's terms */
};

enum cold_kind { COLD_MEM, COLD_GROUP, COLD_RET, COLD_LINK, COLD_FAR_JUMP, COLD_POLL, COLD_BAD_TARGET };

/* Code off the straight path, emitted after it. */
struct cold {
	uint8_t kind;
	uint8_t flags;		/* flag state at the jump */
	uint8_t nfields;
	uint8_t insn;		/* index of the instruction it belongs to */
	uint32_t field[3];	/* rel32 fields that come here */
	uint32_t back;		/* COLD_MEM, COLD_GROUP: where to go on */
	uint32_t group;		/* COLD_GROUP: group_info() */
	struct ea ea;
	uint32_t info;
	struct link *link;
	int64_t target;		/* COLD_FAR_JUMP, COLD_POLL: offset from the page's start */
};

#define COLD_MAX (4 * BLOCK_INSNS_MAX + 8)
#define MEMO_MAX 32

struct tr {
	struct bt_vcpu *v;
	struct bt_engine *b;
	struct emit e;
	uint32_t mode;
	unsigned code_bits;
	bool single;  /* one instruction, then back to C */
	bool bounce;  /* memory through C */
	const uint8_t *page; /* bytes of the page; the straddling instruction's bytes when page2 */
	uint64_t gpa;	/* of the block */
	unsigned start; /* page offset of the block */
	bool straddles;

	unsigned n;
	struct insn insn[BLOCK_INSNS_MAX];
	uint16_t off[BLOCK_INSNS_MAX + 1];
	const uint8_t *bytes[BLOCK_INSNS_MAX];
	uint16_t live[BLOCK_INSNS_MAX + 1]; /* flags live before the instruction; [n]: at the end */
	uint64_t lines;

	unsigned cur;
	unsigned flags; /* FLAGS_HOST | FLAGS_MEM */
	bool done;	/* the block has ended with a jump */
	bool in_cold;	/* its cold paths are emitted */

	unsigned ngroups;
	struct group group[GROUP_MAX];
	struct planned plan[BLOCK_INSNS_MAX][2];
	unsigned accesses; /* of the current instruction, so far */
	uint8_t t0_group;  /* the group whose distance is in T0, or GROUP_NONE */
	bool t1_used;	   /* T1 holds something that saving flags must not clobber */
	bool t0_kept;	   /* the current instruction leaves it there */
	/* Guest registers without a host register whose value T0 and T1 have, too, if no code has been emitted since; REG_NONE. */
	struct { uint8_t t0, t1; uint32_t at; } held;
	bool t1_spent;	   /* an address has been computed with it */
	struct { uint32_t field; unsigned next; } back; /* of a call on its way: the LEA of its way back (0: none), page offset behind it */
	int32_t rsp_ahead; /* what the guest's rsp is more than its register: pushes and pops move it together */

	struct cold cold[COLD_MAX];
	unsigned ncold;
	struct block *block;
	struct block nothing; /* what stands for an instruction that goes on in the second page: guest_len is 0 */
	struct block_map map[BLOCK_INSNS_MAX];

	struct { uint16_t off, live; bool straddles; } memo[MEMO_MAX];
	unsigned nmemo;
	bool failed; /* out of room */
};

/* translate.c */
struct cold *tr_cold(struct tr *t, enum cold_kind kind);
/* Flags live at offset @off of this page; *@straddles: the instruction there crosses the page. */
uint16_t tr_live_at(struct tr *t, unsigned off, bool *straddles);
/* Before host flags are overwritten by translator code while the current instruction's live-in must survive. */
void tr_flags_clobber(struct tr *t);
/* Makes aflags valid, whatever is live. */
void tr_flags_to_mem(struct tr *t);
/* Before the host executes something that reads or partly keeps flags. */
void tr_flags_to_host(struct tr *t);

/* tr_mem.c */
struct ea tr_ea(const struct insn *i);
/* Base and index of an address, as host registers; where they are in slots, in T0 and T1. */
void tr_address_regs(struct tr *t, const struct ea *ea, uint8_t *base, uint8_t *index);
void tr_offset(struct tr *t, const struct ea *ea);		    /* offset in segment → T0; uses T1 */
void tr_access(struct tr *t, const struct ea *ea, unsigned size, unsigned access); /* host pointer → T0; uses T1 */
/* The same, with what addressing can do left to the instruction that uses it. */
void tr_operand(struct tr *t, const struct ea *ea, unsigned size, unsigned access, struct host_mem *out);
void tr_prefetch(struct tr *t, const struct insn *i);
/* Makes the operand a plain pointer in T0. */
void tr_pointer(struct tr *t, struct host_mem *m);
void tr_cold_group(struct tr *t, const struct cold *c);
void tr_access_done(struct tr *t, unsigned access);	    /* after the instruction's write */
void tr_cold_mem(struct tr *t, const struct cold *c);

/* tr_group.c */
void tr_plan_groups(struct tr *t);

/* tr_insn.c */
void tr_insn(struct tr *t, const struct insn *i);
void tr_call_op(struct tr *t, const struct insn *i);
bool tr_op_ends_block(unsigned op);

/* tr_copy.c */
void tr_copy(struct tr *t, const struct insn *i);
/* Flags that the instruction leaves as they were must be in the host's when it writes any. */
void tr_flags_before_copy(struct tr *t, const struct insn *i);
void tr_flags_after_copy(struct tr *t, const struct insn *i);
/* Loads guest register into @host / stores it, whatever it lives in. Flag-free. */
void tr_load_guest(struct tr *t, uint8_t host, unsigned guest);
void tr_store_guest(struct tr *t, unsigned guest, uint8_t host);
/* As an instruction of operand size @size does; uses the other temporary than @value. */
void tr_store_sized(struct tr *t, unsigned size, unsigned guest, uint8_t value);
void tr_hold_nothing(struct tr *t);
/* Forgets what was held before code that does not say what it leaves. */
void tr_settle_held(struct tr *t);
/* @host has the value of @guest, which another temporary may have had; the other may still have something else. */
void tr_hold(struct tr *t, uint8_t host, unsigned guest);

/* tr_stack.c */
void tr_push(struct tr *t, const struct insn *i);
void tr_pop(struct tr *t, const struct insn *i);
void tr_leave(struct tr *t, const struct insn *i);
void tr_stack_addr(struct tr *t, struct ea *ea, int disp); /* [SS:rSP + disp] */
void tr_stack_move(struct tr *t, int delta);
void tr_stack_settle(struct tr *t); /* rsp_ahead := 0, by adding it to the register */
/* A push or pop of which the next one need not see more than rsp_ahead: nothing in it can fault but its access. */
bool tr_stack_moves_later(const struct tr *t, const struct insn *i);

/* tr_branch.c */
bool tr_is_branch(const struct insn *i);
void tr_branch(struct tr *t, const struct insn *i);
int64_t tr_target_of(const struct tr *t, const struct insn *i); /* page offset that a direct jump goes to */

/* tr_call.c */
void tr_call(struct tr *t, const struct insn *i);
void tr_call_indirect(struct tr *t, const struct insn *i);
void tr_jump_indirect(struct tr *t, const struct insn *i);
void tr_ret(struct tr *t, const struct insn *i);
void tr_cold_ret(struct tr *t, const struct cold *c);
/* The host's CALL of the call on its way, by link @to or, if NULL, to what is emitted next; and its way back. */
void tr_host_call(struct tr *t, struct link *to);

/* tr_link.c */
void tr_goto(struct tr *t, int64_t target); /* ends the block: to page offset @target (may be outside of the page) */
void tr_goto_target(struct tr *t, const struct insn *i, int64_t target); /* the same, for the taken side of direct jump @i */
void tr_goto_offset_t0(struct tr *t); /* the same, to the offset in CS in T0; flags are in memory */
void tr_goto_twin(struct tr *t, unsigned insn); /* to this instruction in the twin; flags as the block's state says */
void tr_linear_of(struct tr *t, int64_t target); /* T0 := linear address of a page offset */
/* T0 := offset in CS of page offset @target, as a branch of @i's size computes it; flags are clobbered. */
void tr_offset_in_cs(struct tr *t, const struct insn *i, int64_t target);
bool tr_may_miss(const struct tr *t, int64_t target); /* may a jump there be #GP? */
/* T0: the offset in CS that instruction @i goes to. Flags are in memory; T1 is clobbered. */
void tr_check_target(struct tr *t, const struct insn *i);
/* 16-bit jumps wrap in the segment, other segments have limits and bases: C does it. @i may be NULL. */
bool tr_plain_code(const struct tr *t, const struct insn *i);
bool tr_has_jump_cache(const struct tr *t);
/* Is a jump to this page offset a link to a far entry? */
bool tr_is_far_link(struct tr *t, int64_t target);
/* Can a jump to this page offset be a link? Then, a jump by one (@cc, or < 0). */
bool tr_linkable(struct tr *t, int64_t target);
void tr_link_jump(struct tr *t, int cc, unsigned target);
/* A link of another form: its record (NULL: no room), and where in the code the four bytes to patch are. */
struct link *tr_new_link(struct tr *t, unsigned target);
void tr_align_field(struct tr *t, unsigned opcode_len);
void tr_set_field(struct tr *t, struct link *l, uint32_t field);
void tr_cold_link(struct tr *t, const struct cold *c);
void tr_cold_far(struct tr *t, const struct cold *c);
void tr_cold_bad_target(struct tr *t, const struct cold *c);

#endif
