/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FNSTENV, FLDENV, FNSAVE, FRSTOR: the x87 environment in its four formats. SDM vol. 1, 8.1.10
 * (figures 8-9 to 8-12); vol. 2 under their names. The host's instruction runs on a buffer in the
 * 32-bit protected-mode format. Instruction and data pointers are 0 in what the guest sees
 * (xstate.c says why).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

enum { ENV32 = 28, ENV16 = 14, REGISTERS = 80 };

/* The host's format: words of 32 bits. */
enum { CONTROL, STATUS, TAG, IP, OPCODE_CS, DP, DS, ENV_WORDS };

struct image {
	uint32_t env[ENV_WORDS];
	uint8_t registers[REGISTERS];
};

static bool real_format(const struct bt_vcpu *v)
{
	return !bt_protected(v) || bt_v86(v);
}

static unsigned env_size(const struct insn *i)
{
	return i->opsize == 2 ? ENV16 : ENV32;
}

static enum bt_result check_x87(struct bt_vcpu *v)
{
	return v->cr0 & (X86_CR0_EM | X86_CR0_TS) ? bt_raise(v, X86_NM) : BT_NEXT;
}

/* Waiting instructions: an unmasked exception is pending (FSW.ES)? */
static enum bt_result check_pending(struct bt_vcpu *v)
{
	uint16_t status;

	__asm__ volatile("fnstsw %0" : "=a"(status));
	return status & 0x80 ? bt_raise(v, X86_MF) : BT_NEXT;
}

/* From the host's format in @m to the guest's in @out. */
static unsigned encode(const struct bt_vcpu *v, const struct insn *i, const struct image *m,
		       uint8_t *out)
{
	uint32_t opcode = m->env[OPCODE_CS] >> 16 & 0x7ff;
	uint32_t env32[ENV_WORDS] = { m->env[CONTROL], m->env[STATUS], m->env[TAG] };
	uint16_t env16[ENV_WORDS] = { (uint16_t)m->env[CONTROL], (uint16_t)m->env[STATUS],
				      (uint16_t)m->env[TAG] };

	if (i->opsize == 2) {
		env16[OPCODE_CS] = real_format(v) ? (uint16_t)opcode : 0;
		bt_copy(out, env16, ENV16);
		return ENV16;
	}
	env32[OPCODE_CS] = real_format(v) ? opcode : opcode << 16;
	env32[DS] = real_format(v) ? 0 : 0xffff0000;
	bt_copy(out, env32, ENV32);
	return ENV32;
}

static void decode_env(const struct bt_vcpu *v, const struct insn *i, const uint8_t *in,
		       struct image *m)
{
	uint32_t opcode = 0, env32[ENV_WORDS];
	uint16_t env16[ENV_WORDS];

	if (i->opsize == 2) {
		bt_copy(env16, in, ENV16);
		for (unsigned n = 0; n < ENV_WORDS; n++)
			env32[n] = env16[n];
		if (real_format(v))
			opcode = env16[OPCODE_CS] & 0x7ff;
	} else {
		bt_copy(env32, in, ENV32);
		opcode = (real_format(v) ? env32[OPCODE_CS] : env32[OPCODE_CS] >> 16) & 0x7ff;
	}
	for (unsigned n = 0; n < ENV_WORDS; n++)
		m->env[n] = n <= TAG ? env32[n] | 0xffff0000 : 0;
	m->env[OPCODE_CS] = opcode << 16;
}

static enum bt_result operand(struct bt_vcpu *v, const struct insn *i, unsigned len,
			      unsigned access, uint64_t *lin)
{
	BT_TRY(check_x87(v));
	if (access == BT_READ)
		BT_TRY(check_pending(v));
	BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), len, access, lin));
	BT_TRY(bt_check_alignment(v, *lin, i->opsize == 2 ? 2 : 4, access));
	return access == BT_WRITE ? bt_probe(v, *lin, len, access) : BT_NEXT;
}

/*
 * Both also change the state (masks all exceptions; initializes), so the operand is checked first.
 */
enum bt_result bt_op_fnstenv(struct bt_vcpu *v, const struct insn *i)
{
	uint8_t out[ENV32];
	struct image m;
	uint64_t lin;
	unsigned len;

	BT_TRY(operand(v, i, env_size(i), BT_WRITE, &lin));
	__asm__ volatile("fnstenv %0" : "=m"(m));
	len = encode(v, i, &m, out);
	return bt_store_bytes(v, lin, out, len, BT_WRITE);
}

enum bt_result bt_op_fnsave(struct bt_vcpu *v, const struct insn *i)
{
	uint8_t out[ENV32 + REGISTERS];
	struct image m;
	uint64_t lin;
	unsigned len;

	BT_TRY(operand(v, i, env_size(i) + REGISTERS, BT_WRITE, &lin));
	__asm__ volatile("fnsave %0" : "=m"(m));
	len = encode(v, i, &m, out);
	bt_copy(out + len, m.registers, REGISTERS);
	return bt_store_bytes(v, lin, out, len + REGISTERS, BT_WRITE);
}

enum bt_result bt_op_fldenv(struct bt_vcpu *v, const struct insn *i)
{
	uint8_t in[ENV32];
	struct image m;
	uint64_t lin;

	BT_TRY(operand(v, i, env_size(i), BT_READ, &lin));
	BT_TRY(bt_load_bytes(v, lin, in, env_size(i), BT_READ));
	decode_env(v, i, in, &m);
	__asm__ volatile("fldenv %0" : : "m"(m));
	return BT_NEXT;
}

enum bt_result bt_op_frstor(struct bt_vcpu *v, const struct insn *i)
{
	uint8_t in[ENV32 + REGISTERS];
	unsigned size = env_size(i);
	struct image m;
	uint64_t lin;

	BT_TRY(operand(v, i, size + REGISTERS, BT_READ, &lin));
	BT_TRY(bt_load_bytes(v, lin, in, size + REGISTERS, BT_READ));
	decode_env(v, i, in, &m);
	bt_copy(m.registers, in + size, REGISTERS);
	__asm__ volatile("frstor %0" : : "m"(m));
	return BT_NEXT;
}
