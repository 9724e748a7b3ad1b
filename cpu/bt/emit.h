/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host assembler: x86-64 instructions into the code cache.
 *
 * Register map. Guest registers live in host registers of the same name, except: guest rsp in host r12,
 * guest r12 in host r13, guest r13, r14, r15 in the vCPU's high_regs[]. Host r14 and r15 are the translator's
 * temporaries T0 and T1. Host rsp points at struct bt_vcpu; the slots are reached from it.
 *
 * Code is written through the writable view of the cache and runs at the executable one, at a constant
 * distance: positions are offsets in the cache.
 */
#ifndef CPU_BT_EMIT_H
#define CPU_BT_EMIT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/bt/vcpu.h"

enum host_reg {
	H_RAX, H_RCX, H_RDX, H_RBX, H_RSP, H_RBP, H_RSI, H_RDI,
	H_R8, H_R9, H_R10, H_R11, H_R12, H_R13, H_R14, H_R15,
	H_NONE = 0xff,
};
#define T0 H_R14
#define T1 H_R15
#define HOST_GUEST_RSP H_R12

/* The host register of a guest register, or H_NONE when it lives in its slot. */
static inline uint8_t emit_host_reg(unsigned guest)
{
	static const uint8_t map[16] = {
		H_RAX, H_RCX, H_RDX, H_RBX, H_R12, H_RBP, H_RSI, H_RDI,
		H_R8, H_R9, H_R10, H_R11, H_R13, H_NONE, H_NONE, H_NONE,
	};
	return map[guest & 15];
}

/*
 * A memory operand of the host, base + index + disp: guest memory after its check. An index is T0, which holds a
 * group's distance (tr_group.c).
 */
struct host_mem {
	uint8_t base, index;
	int32_t disp;
};

/* Where code goes: [p, end) in the writable view. Past the end nothing is written and full is set. */
struct emit {
	uint8_t *base; /* writable view of the cache */
	uint8_t *p, *end;
	bool full;
};

static inline uint32_t emit_pos(const struct emit *e)
{
	return (uint32_t)(e->p - e->base);
}

static inline void emit8(struct emit *e, uint8_t b)
{
	if (e->p < e->end)
		*e->p++ = b;
	else
		e->full = true;
}

static inline void emit32(struct emit *e, uint32_t v)
{
	if (e->end - e->p >= 4) {
		*(uint32_t *)e->p = v;
		e->p += 4;
	} else {
		e->full = true;
	}
}

static inline void emit64(struct emit *e, uint64_t v)
{
	emit32(e, (uint32_t)v);
	emit32(e, (uint32_t)(v >> 32));
}

/* ModRM (and SIB, displacement) for [base + index*2^scale + disp]; base may be H_NONE. @reg: low 3 bits. */
static inline void emit_modrm_mem(struct emit *e, unsigned reg, uint8_t base, uint8_t index,
				  unsigned scale, int32_t disp)
{
	unsigned r = (reg & 7) << 3;

	if (base == H_NONE) { /* [index*scale + disp32], or [disp32] through SIB without base and index */
		emit8(e, r | 4);
		emit8(e, scale << 6 | (index == H_NONE ? 4 : index & 7) << 3 | 5);
		emit32(e, (uint32_t)disp);
		return;
	}
	unsigned mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;

	if (index == H_NONE && (base & 7) != 4) {
		emit8(e, mod << 6 | r | (base & 7));
	} else {
		emit8(e, mod << 6 | r | 4);
		emit8(e, scale << 6 | (index == H_NONE ? 4 : index & 7) << 3 | (base & 7));
	}
	if (mod == 1)
		emit8(e, (uint8_t)disp);
	else if (mod == 2)
		emit32(e, (uint32_t)disp);
}

static inline uint8_t emit_rex_bits(bool w, unsigned reg, uint8_t index, uint8_t base)
{
	return 0x40 | w << 3 | (reg >> 3 & 1) << 2 |
	       (index != H_NONE ? (index >> 3 & 1) << 1 : 0) |
	       (base != H_NONE ? base >> 3 & 1 : 0);
}

/* op reg, [base+index*scale+disp], 64- or 32-bit; one-byte opcode, or two-byte when @op ≥ 0x0f00. */
static inline void emit_op_mem(struct emit *e, bool w, unsigned op, unsigned reg, uint8_t base,
			       uint8_t index, unsigned scale, int32_t disp)
{
	uint8_t rex = emit_rex_bits(w, reg, index, base);

	if (rex != 0x40)
		emit8(e, rex);
	if (op >= 0x0f00)
		emit8(e, 0x0f);
	emit8(e, (uint8_t)op);
	emit_modrm_mem(e, reg, base, index, scale, disp);
}

/* op with both operands in registers: @reg in ModRM.reg, @rm in ModRM.rm. */
static inline void emit_op_reg(struct emit *e, bool w, unsigned op, unsigned reg, unsigned rm)
{
	uint8_t rex = emit_rex_bits(w, reg, H_NONE, (uint8_t)rm);

	if (rex != 0x40)
		emit8(e, rex);
	if (op >= 0x0f00)
		emit8(e, 0x0f);
	emit8(e, (uint8_t)op);
	emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* The vCPU's fields, from rsp. */
#define SLOT(field) ((int32_t)offsetof(struct bt_vcpu, field))
#define REG_SLOT(guest)                                                                      \
	((guest) < BT_HELD_REGS ? SLOT(held_regs) + (int32_t)(8 * (guest))                   \
				: SLOT(high_regs) + (int32_t)(8 * ((guest) - BT_HELD_REGS)))
#define GROUP_SLOT(k) (SLOT(group) + (int32_t)(8 * (k)))

static inline void emit_load_slot(struct emit *e, uint8_t reg, int32_t slot)
{
	emit_op_mem(e, true, 0x8b, reg, H_RSP, H_NONE, 0, slot);
}

static inline void emit_store_slot(struct emit *e, int32_t slot, uint8_t reg)
{
	emit_op_mem(e, true, 0x89, reg, H_RSP, H_NONE, 0, slot);
}

static inline void emit_store_slot_imm(struct emit *e, int32_t slot, uint32_t imm) /* 32 bits */
{
	emit8(e, 0xc7);
	emit_modrm_mem(e, 0, H_RSP, H_NONE, 0, slot);
	emit32(e, imm);
}

/* T1 := T0 >> count, of the low 32 bits; what comes in above is anything. Flags are clobbered without BMI2. */
static inline void emit_shifted(struct emit *e, bool bmi2, uint8_t count)
{
	if (bmi2) { /* rorx r15d, r14d, count */
		static const uint8_t rorx[] = {0xc4, 0x43, 0x7b, 0xf0, 0xfe};

		for (unsigned k = 0; k < sizeof(rorx); k++)
			emit8(e, rorx[k]);
	} else {
		emit_op_reg(e, false, 0x8b, T1, T0); /* mov */
		emit8(e, 0x41);			     /* shr r15d, count */
		emit8(e, 0xc1);
		emit8(e, 0xef);
	}
	emit8(e, count);
}

static inline void emit_lea(struct emit *e, bool w, uint8_t reg, uint8_t base, uint8_t index,
			    unsigned scale, int32_t disp)
{
	emit_op_mem(e, w, 0x8d, reg, base, index, scale, disp);
}

/* Behind a host's CALL: rsp is the vCPU again. */
#define BEHIND_CALL_BYTES 5u
static inline void emit_behind_call(struct emit *e)
{
	emit_lea(e, true, H_RSP, H_RSP, H_NONE, 0, 8);
}

static inline void emit_mov_reg(struct emit *e, bool w, uint8_t to, uint8_t from)
{
	emit_op_reg(e, w, 0x89, from, to);
}

static inline void emit_mov_imm32(struct emit *e, uint8_t reg, uint32_t v) /* zero-extends */
{
	if (reg >= 8)
		emit8(e, 0x41);
	emit8(e, 0xb8 | (reg & 7));
	emit32(e, v);
}

static inline void emit_mov_imm(struct emit *e, uint8_t reg, uint64_t v)
{
	if (v == (uint32_t)v) {
		emit_mov_imm32(e, reg, (uint32_t)v);
	} else if ((int64_t)v == (int32_t)v) {
		emit8(e, reg >= 8 ? 0x49 : 0x48);
		emit8(e, 0xc7);
		emit8(e, 0xc0 | (reg & 7));
		emit32(e, (uint32_t)v);
	} else {
		emit8(e, reg >= 8 ? 0x49 : 0x48);
		emit8(e, 0xb8 | (reg & 7));
		emit64(e, v);
	}
}

/* @n bytes that do nothing, in as few instructions as there are (SDM vol. 2, NOP). */
static inline void emit_nops(struct emit *e, unsigned n)
{
	static const uint8_t nop[8][8] = {
		{0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0x00}, {0x0f, 0x1f, 0x40, 0x00}, {0x0f, 0x1f, 0x44, 0x00, 0x00},
		{0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00}, {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
		{0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
	};

	while (n) {
		unsigned len = n < 8 ? n : 8;

		for (unsigned k = 0; k < len; k++)
			emit8(e, nop[len - 1][k]);
		n -= len;
	}
}

/* Jumps. @target is a position in the cache. */
static inline void emit_jmp(struct emit *e, uint32_t target)
{
	emit8(e, 0xe9);
	emit32(e, target - (emit_pos(e) + 4));
}

static inline void emit_call(struct emit *e, uint32_t target)
{
	emit8(e, 0xe8);
	emit32(e, target - (emit_pos(e) + 4));
}

static inline void emit_jcc(struct emit *e, unsigned cc, uint32_t target)
{
	emit8(e, 0x0f);
	emit8(e, 0x80 | cc);
	emit32(e, target - (emit_pos(e) + 4));
}

/* A forward rel32 to be filled in: returns the position of the field. */
static inline uint32_t emit_jcc_forward(struct emit *e, unsigned cc)
{
	emit_jcc(e, cc, emit_pos(e));
	return emit_pos(e) - 4;
}

static inline uint32_t emit_jmp_forward(struct emit *e)
{
	emit_jmp(e, emit_pos(e));
	return emit_pos(e) - 4;
}

static inline uint32_t emit_call_forward(struct emit *e)
{
	emit_call(e, emit_pos(e));
	return emit_pos(e) - 4;
}

static inline void emit_patch_rel32(struct emit *e, uint32_t field, uint32_t target)
{
	if (!e->full)
		*(uint32_t *)(e->base + field) = target - (field + 4);
}

enum host_cc { CC_O = 0, CC_NO = 1, CC_B = 2, CC_AE = 3, CC_E = 4, CC_NE = 5, CC_BE = 6, CC_A = 7 };

/*
 * Arithmetic flags from RFLAGS to aflags and back. Both borrow rax, and T1 when @t1_free (faster); restoring leaves
 * the other flags of the host as they are (all zero but the reserved bit and IF).
 */
void emit_save_flags(struct emit *e, bool t1_free);
void emit_restore_flags(struct emit *e, bool t1_free);

/*
 * Re-encodes guest instruction @i (bytes at @code) with other register numbers. Memory operands become
 * @mem; without one (@mem NULL) the rm field is register @rm. Vector and other non-GPR
 * numbers are passed through by the caller. With EVEX @mem is a base alone. (emit.c)
 */
void emit_reencode(struct emit *e, const struct insn *i, const uint8_t *code, unsigned reg,
		   unsigned rm, unsigned vvvv, const struct host_mem *mem);

#endif
