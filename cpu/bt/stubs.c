/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generated glue between C and translated code, at the start of the code cache; and the switch between
 * the guest's vector state and C's ("heavy sections").
 *
 * Stack: the C stack of bt_run is left behind when translated code is entered; host rsp then points at
 * struct bt_vcpu, and what is pushed (return addresses, C functions called from stubs) lies below it.
 * struct bt_vcpu is 64-byte aligned.
 */
#include "cpu/bt/private.h"

static const uint8_t caller_saved[] = {X86_RAX, X86_RCX, X86_RDX, X86_RSI, X86_RDI,
				       X86_R8,	X86_R9,	 X86_R10, X86_R11};
static const uint8_t callee_saved[] = {X86_RBX, X86_RBP, X86_RSP, X86_R12}; /* guest names */

/* @depth: bytes pushed since rsp pointed at the vCPU. */
static void store_regs(struct emit *e, const uint8_t *regs, unsigned n, int32_t depth)
{
	for (unsigned k = 0; k < n; k++)
		emit_store_slot(e, REG_SLOT(regs[k]) + depth, emit_host_reg(regs[k]));
}

static void load_regs(struct emit *e, const uint8_t *regs, unsigned n, int32_t depth)
{
	for (unsigned k = 0; k < n; k++)
		emit_load_slot(e, emit_host_reg(regs[k]), REG_SLOT(regs[k]) + depth);
}

static void emit_push(struct emit *e, uint8_t reg)
{
	if (reg >= 8)
		emit8(e, 0x41);
	emit8(e, 0x50 | (reg & 7));
}

static void emit_pop(struct emit *e, uint8_t reg)
{
	if (reg >= 8)
		emit8(e, 0x41);
	emit8(e, 0x58 | (reg & 7));
}

static void emit_add_rsp(struct emit *e, int8_t n)
{
	emit8(e, 0x48);
	emit8(e, 0x83);
	emit8(e, 0xc4);
	emit8(e, (uint8_t)n);
}

static void emit_call_c(struct emit *e, uint64_t fn)
{
	emit_mov_imm(e, H_RAX, fn);
	emit8(e, 0xff); /* call rax */
	emit8(e, 0xd0);
}

static const uint8_t host_saved[] = {H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15};

static void gen_enter(struct bt_engine *b, struct emit *e)
{
	b->stub.enter = emit_pos(e);
	for (unsigned k = 0; k < ARRAY_SIZE(host_saved); k++)
		emit_push(e, host_saved[k]);
	emit_op_mem(e, true, 0x89, H_RSP, H_RDI, H_NONE, 0, SLOT(host_rsp));
	emit_mov_reg(e, true, T0, H_RSI);
	emit_mov_reg(e, true, H_RSP, H_RDI);
	load_regs(e, callee_saved, ARRAY_SIZE(callee_saved), 0);
	load_regs(e, caller_saved, ARRAY_SIZE(caller_saved), 0);
	emit_mov_reg(e, true, T1, T0);
	emit_load_slot(e, T0, SLOT(exit_target));
	emit8(e, 0x41); /* jmp r15 */
	emit8(e, 0xff);
	emit8(e, 0xe7);
}

static void gen_exits(struct bt_engine *b, struct emit *e)
{
	b->stub.exit_tail = emit_pos(e);
	emit_load_slot(e, H_RSP, SLOT(host_rsp));
	for (unsigned k = ARRAY_SIZE(host_saved); k-- > 0;)
		emit_pop(e, host_saved[k]);
	emit8(e, 0xc3);

	uint32_t exit_save = emit_pos(e); /* T1: reason */

	store_regs(e, callee_saved, ARRAY_SIZE(callee_saved), 0);
	store_regs(e, caller_saved, ARRAY_SIZE(caller_saved), 0);
	emit_mov_reg(e, false, H_RAX, T1);
	emit_jmp(e, b->stub.exit_tail);

	b->stub.lookup_host = emit_pos(e);
	emit_save_flags(e, false);
	b->stub.lookup_mem = emit_pos(e);
	emit_store_slot(e, SLOT(exit_target), T0);
	emit_mov_imm32(e, T1, EXIT_LOOKUP);
	emit_jmp(e, exit_save);

	b->stub.step_done = emit_pos(e);
	emit_store_slot(e, SLOT(exit_target), T0);
	emit_mov_imm32(e, T1, EXIT_STEPPED);
	emit_jmp(e, exit_save);

	b->stub.bounce = emit_pos(e);
	emit_store_slot(e, SLOT(exit_target), T0);
	emit_mov_imm32(e, T1, EXIT_BOUNCE);
	emit_jmp(e, exit_save);

	b->stub.link_host = emit_pos(e);
	emit_save_flags(e, false);
	b->stub.link_mem = emit_pos(e);
	emit_store_slot(e, SLOT(exit_link), T1);
	emit_mov_imm32(e, T1, EXIT_LINK);
	emit_jmp(e, exit_save);

	b->stub.link_far = emit_pos(e);
	emit_store_slot(e, SLOT(exit_target), T0);
	emit_store_slot(e, SLOT(exit_link), T1);
	emit_mov_imm32(e, T1, EXIT_FAR);
	emit_jmp(e, exit_save);
}

/*
 * uint64_t fn(v, T0, (uint32_t)T1) → T0. Zero: leave translated code with v->exit_reason; the guest's
 * registers are those before the instruction.
 */
static uint32_t gen_memory_call(struct bt_engine *b, struct emit *e, uint64_t fn)
{
	uint32_t at = emit_pos(e);

	emit_add_rsp(e, -8);
	store_regs(e, caller_saved, ARRAY_SIZE(caller_saved), 16);
	emit_lea(e, true, H_RDI, H_RSP, H_NONE, 0, 16);
	emit_mov_reg(e, true, H_RSI, T0);
	emit_mov_reg(e, false, H_RDX, T1);
	emit_call_c(e, fn);
	emit_op_reg(e, true, 0x85, H_RAX, H_RAX); /* test */
	uint32_t fail = emit_jcc_forward(e, CC_E);

	emit_mov_reg(e, true, T0, H_RAX);
	load_regs(e, caller_saved, ARRAY_SIZE(caller_saved), 16);
	emit_add_rsp(e, 8);
	emit8(e, 0xc3);

	emit_patch_rel32(e, fail, emit_pos(e));
	emit_add_rsp(e, 16);
	store_regs(e, callee_saved, ARRAY_SIZE(callee_saved), 0);
	emit_op_mem(e, false, 0x8b, H_RAX, H_RSP, H_NONE, 0, SLOT(exit_reason));
	emit_jmp(e, b->stub.exit_tail);
	return at;
}

void emit_jump_cache_op(struct emit *e, bool user, bool w, unsigned op, unsigned reg, uint8_t index, unsigned scale, size_t field)
{
	if (user)
		emit8(e, 0x65);
	if (user && scale)
		emit_op_mem(e, w, op, reg, H_NONE, index, scale, USER_JC_OFF + (int32_t)field);
	else if (user)
		emit_op_mem(e, w, op, reg, index, H_NONE, 0, USER_JC_OFF + (int32_t)field);
	else
		emit_op_mem(e, w, op, reg, H_RSP, index, scale, KERNEL_JC_OFF + (int32_t)field);
}

void emit_jump_by_cache(struct emit *e, bool user, bool bmi2, bool ret)
{
	emit_shifted(e, bmi2, 16); /* jc_index() */
	emit_op_reg(e, false, 0x33, T1, T0); /* xor */
	emit8(e, 0x41);			     /* shl r15d, 4 */
	emit8(e, 0xc1);
	emit8(e, 0xe7);
	emit8(e, 4);
	emit8(e, 0x41); /* and r15d, (JC_ENTRIES - 1) * 16 */
	emit8(e, 0x81);
	emit8(e, 0xe7);
	emit32(e, (JC_ENTRIES - 1) * sizeof(struct jc_entry));
	emit_jump_cache_op(e, user, false, 0xff, ret ? 6 : 4, T1, 0, offsetof(struct jc_entry, code));
	if (ret)
		emit8(e, 0xc3);
}

/*
 * uint64_t bt_call_op(v, T0, (uint32_t)T1), with all registers in v. CALL_OP_GO_ON: the block goes on;
 * CALL_OP_LEAVE: to C with v->exit_reason; CALL_OP_USER, CALL_OP_KERNEL: straight to v->exit_target.
 */
static void gen_call_op(struct bt_engine *b, struct emit *e)
{
	b->stub.call_op = emit_pos(e);
	emit_add_rsp(e, -8);
	store_regs(e, caller_saved, ARRAY_SIZE(caller_saved), 16);
	store_regs(e, callee_saved, ARRAY_SIZE(callee_saved), 16);
	emit_lea(e, true, H_RDI, H_RSP, H_NONE, 0, 16);
	emit_mov_reg(e, true, H_RSI, T0);
	emit_mov_reg(e, false, H_RDX, T1);
	emit_call_c(e, (uint64_t)bt_call_op);
	emit_op_reg(e, true, 0x85, H_RAX, H_RAX);
	uint32_t leave = emit_jcc_forward(e, CC_NE);

	load_regs(e, callee_saved, ARRAY_SIZE(callee_saved), 16);
	load_regs(e, caller_saved, ARRAY_SIZE(caller_saved), 16);
	emit_add_rsp(e, 8);
	emit8(e, 0xc3);

	emit_patch_rel32(e, leave, emit_pos(e));
	emit_add_rsp(e, 16);
	emit8(e, 0x83); /* cmp eax, CALL_OP_LEAVE */
	emit8(e, 0xf8);
	emit8(e, CALL_OP_LEAVE);
	uint32_t jump = emit_jcc_forward(e, CC_A);

	emit_op_mem(e, false, 0x8b, H_RAX, H_RSP, H_NONE, 0, SLOT(exit_reason));
	emit_jmp(e, b->stub.exit_tail);

	emit_patch_rel32(e, jump, emit_pos(e));
	emit_load_slot(e, T0, SLOT(exit_target));
	emit8(e, 0x83); /* cmp eax, CALL_OP_USER */
	emit8(e, 0xf8);
	emit8(e, CALL_OP_USER);
	load_regs(e, callee_saved, ARRAY_SIZE(callee_saved), 0);
	load_regs(e, caller_saved, ARRAY_SIZE(caller_saved), 0);
	uint32_t user = emit_jcc_forward(e, CC_E), kernel = emit_jmp_forward(e);

	b->stub.call_kernel = emit_pos(e);
	emit_behind_call(e);
	emit_patch_rel32(e, kernel, emit_pos(e));
	b->stub.jump_kernel = emit_pos(e);
	emit_jump_by_cache(e, false, b->has_bmi2, false);
	b->stub.call_user = emit_pos(e);
	emit_behind_call(e);
	emit_patch_rel32(e, user, emit_pos(e));
	b->stub.jump_user = emit_pos(e);
	emit_jump_by_cache(e, true, b->has_bmi2, false);
}

void stubs_generate(struct bt_engine *b)
{
	struct emit e = {.base = b->cache_rw, .p = b->cache_rw, .end = b->cache_rw + 4096};

	gen_enter(b, &e);
	gen_exits(b, &e);
	b->stub.mem_slow = gen_memory_call(b, &e, (uint64_t)bt_mem_slow);
	b->stub.group_slow = gen_memory_call(b, &e, (uint64_t)bt_group_slow);
	b->stub.bounce_in = gen_memory_call(b, &e, (uint64_t)bt_bounce_in);
	b->stub.bounce_out = gen_memory_call(b, &e, (uint64_t)bt_bounce_out);
	gen_call_op(b, &e);
	assert(!e.full);
	b->cache_stubs_end = (uint32_t)align_up(emit_pos(&e), 64);
	b->cache_used = b->cache_stubs_end;
	b->cold_used = CODE_HOT_BYTES;
}

enum exit_reason stubs_enter(struct bt_vcpu *v, const void *code)
{
	enum exit_reason (*enter)(struct bt_vcpu *, const void *);

	enter = (enum exit_reason(*)(struct bt_vcpu *, const void *))(uintptr_t)(
		v->engine->cache_rx + v->engine->stub.enter);
	return enter(v, code);
}

/* ---- heavy sections ---- */

static const uint32_t default_mxcsr = 0x1f80;

void bt_heavy_begin(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;

	if (p->heavy_depth++)
		return;
	if (v->engine->has_xsave)
		__asm__ volatile("xsave64 %0"
				 : "+m"(p->xstate)
				 : "a"((uint32_t)v->engine->host_xcr0),
				   "d"((uint32_t)(v->engine->host_xcr0 >> 32))
				 : "memory");
	else
		__asm__ volatile("fxsave64 %0" : "+m"(p->xstate) : : "memory");
	__asm__ volatile("fninit; ldmxcsr %0" : : "m"(default_mxcsr));
}

void bt_heavy_end(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;

	assert(p->heavy_depth > 0);
	if (--p->heavy_depth)
		return;
	if (v->engine->has_xsave)
		__asm__ volatile("xrstor64 %0"
				 :
				 : "m"(p->xstate), "a"((uint32_t)v->engine->host_xcr0),
				   "d"((uint32_t)(v->engine->host_xcr0 >> 32))
				 : "memory");
	else
		__asm__ volatile("fxrstor64 %0" : : "m"(p->xstate) : "memory");
}

struct x86_xstate *bt_xstate(struct bt_vcpu *v)
{
	assert(v->priv->heavy_depth > 0);
	return &v->priv->xstate;
}
