/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds the decoder against Zydis, for test_decode and test_decode_text.
 *
 * oracle_compare() decodes the same bytes with both and says in what they differ. Differences that are meant
 * are listed here, each with its reason; the judge is the Intel SDM.
 */
#ifndef TESTS_UNIT_DECODE_ORACLE_H
#define TESTS_UNIT_DECODE_ORACLE_H

#include <Zydis/Zydis.h>

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cpu/bt/decode.h"
#include "cpu/x86.h"

struct oracle {
	ZydisDecoder zydis;
	unsigned bits;
	/* The last comparison. */
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	bool zydis_valid;
	enum decode_result result;
	struct insn in;
};

static inline void oracle_init(struct oracle *o, unsigned bits)
{
	static const ZydisDecoderMode off[] = {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET,
					       ZYDIS_DECODER_MODE_WBNOINVD, ZYDIS_DECODER_MODE_CLDEMOTE};

	o->bits = bits;
	if (bits == 64)
		ZydisDecoderInit(&o->zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else if (bits == 32)
		ZydisDecoderInit(&o->zydis, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(&o->zydis, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	for (unsigned i = 0; i < sizeof(off) / sizeof(off[0]); i++)
		ZydisDecoderEnableMode(&o->zydis, off[i], ZYAN_FALSE);
}

/* Extensions that Zydis knows and the decoder does not offer. */
static inline bool oracle_not_offered(const ZydisDecodedInstruction *zi)
{
	switch (zi->meta.isa_ext) {
	case ZYDIS_ISA_EXT_AMD3DNOW: case ZYDIS_ISA_EXT_AMD_INVLPGB: case ZYDIS_ISA_EXT_AMX_BF16:
	case ZYDIS_ISA_EXT_AMX_INT8: case ZYDIS_ISA_EXT_AMX_TILE: case ZYDIS_ISA_EXT_AVX_VNNI:
	case ZYDIS_ISA_EXT_CET: case ZYDIS_ISA_EXT_CLZERO: case ZYDIS_ISA_EXT_ENQCMD: case ZYDIS_ISA_EXT_FMA4:
	case ZYDIS_ISA_EXT_HRESET: case ZYDIS_ISA_EXT_KEYLOCKER: case ZYDIS_ISA_EXT_KEYLOCKER_WIDE:
	case ZYDIS_ISA_EXT_KNC: case ZYDIS_ISA_EXT_KNCE: case ZYDIS_ISA_EXT_KNCV: case ZYDIS_ISA_EXT_MCOMMIT:
	case ZYDIS_ISA_EXT_MONITORX: case ZYDIS_ISA_EXT_MOVDIR: case ZYDIS_ISA_EXT_PADLOCK:
	case ZYDIS_ISA_EXT_PCONFIG: case ZYDIS_ISA_EXT_PKU: case ZYDIS_ISA_EXT_PT: case ZYDIS_ISA_EXT_RDPRU:
	case ZYDIS_ISA_EXT_RTM: case ZYDIS_ISA_EXT_SERIALIZE: case ZYDIS_ISA_EXT_SGX:
	case ZYDIS_ISA_EXT_SGX_ENCLV: case ZYDIS_ISA_EXT_SMX: case ZYDIS_ISA_EXT_SNP: case ZYDIS_ISA_EXT_SSE4A:
	case ZYDIS_ISA_EXT_SVM: case ZYDIS_ISA_EXT_TBM: case ZYDIS_ISA_EXT_TDX: case ZYDIS_ISA_EXT_TSX_LDTRK:
	case ZYDIS_ISA_EXT_UINTR: case ZYDIS_ISA_EXT_VMFUNC: case ZYDIS_ISA_EXT_VTX: case ZYDIS_ISA_EXT_WAITPKG:
	case ZYDIS_ISA_EXT_XOP: case ZYDIS_ISA_EXT_XSAVES:
		return true;
	default:
		break;
	}
	switch (zi->meta.isa_set) {
	case ZYDIS_ISA_SET_AVX512ER_512: case ZYDIS_ISA_SET_AVX512ER_SCALAR: case ZYDIS_ISA_SET_AVX512PF_512:
	case ZYDIS_ISA_SET_AVX512_4FMAPS_512: case ZYDIS_ISA_SET_AVX512_4FMAPS_SCALAR:
	case ZYDIS_ISA_SET_AVX512_4VNNIW_512: case ZYDIS_ISA_SET_AVX512_BF16_128:
	case ZYDIS_ISA_SET_AVX512_BF16_256: case ZYDIS_ISA_SET_AVX512_BF16_512:
	case ZYDIS_ISA_SET_AVX512_FP16_128: case ZYDIS_ISA_SET_AVX512_FP16_128N:
	case ZYDIS_ISA_SET_AVX512_FP16_256: case ZYDIS_ISA_SET_AVX512_FP16_512:
	case ZYDIS_ISA_SET_AVX512_FP16_SCALAR: case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_128:
	case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_256: case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_512:
		return true;
	default:
		return false;
	}
}

/* The number of a general register as an encoding field has it (AH to BH are 4 to 7). */
static inline int oracle_gpr(ZydisRegister reg)
{
	int id = ZydisRegisterGetId(reg);

	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR8:
		return id >= 8 ? id - 4 : id;
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return id;
	default:
		return -1;
	}
}

static inline int oracle_seg(ZydisRegister reg)
{
	switch (reg) {
	case ZYDIS_REGISTER_ES: return X86_ES;
	case ZYDIS_REGISTER_CS: return X86_CS;
	case ZYDIS_REGISTER_SS: return X86_SS;
	case ZYDIS_REGISTER_DS: return X86_DS;
	case ZYDIS_REGISTER_FS: return X86_FS;
	case ZYDIS_REGISTER_GS: return X86_GS;
	default: return -1;
	}
}

static inline int oracle_address_reg(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_IP:
		return REG_PC;
	case ZYDIS_REGCLASS_INVALID:
		return REG_NONE;
	default:
		return ZydisRegisterGetId(reg);
	}
}

static inline unsigned oracle_access(const ZydisDecodedOperand *op)
{
	return (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ ? ACCESS_READ : 0) |
	       (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? ACCESS_WRITE : 0);
}

static inline bool oracle_no_suppression(ZydisExceptionClass c)
{
	return c == ZYDIS_EXCEPTION_CLASS_E1NF || c == ZYDIS_EXCEPTION_CLASS_E2NF ||
	       c == ZYDIS_EXCEPTION_CLASS_E3NF || c == ZYDIS_EXCEPTION_CLASS_E4NF ||
	       c == ZYDIS_EXCEPTION_CLASS_E5NF || c == ZYDIS_EXCEPTION_CLASS_E6NF ||
	       c == ZYDIS_EXCEPTION_CLASS_E9NF || c == ZYDIS_EXCEPTION_CLASS_E10NF ||
	       c == ZYDIS_EXCEPTION_CLASS_E11NF;
}

static inline const char *oracle_compare_memory(const struct oracle *o, const ZydisDecodedOperand *op)
{
	const struct insn *in = &o->in;
	unsigned size = op->size / 8;

	if (!in->has_mem)
		return "memory operand missing";
	if (oracle_address_reg(op->mem.base) != in->base)
		return "base";
	if (oracle_address_reg(op->mem.index) != in->index)
		return "index";
	if (in->index != REG_NONE && op->mem.scale != 1 << in->scale)
		return "scale";
	/* The whole address of A0 to A3 is unsigned here, signed there. */
	if (((uint64_t)op->mem.disp.value ^ (uint64_t)in->disp) & (in->has_modrm ? ~0ull : ~0ull >> (64 - 8 * in->addrsize)))
		return "displacement";
	if (oracle_seg(op->mem.segment) != in->seg && in->op != OP_LEA)
		return "segment";
	if (in->op == OP_NOP || in->op == OP_UD || in->op == OP_LEA || in->op == OP_INVLPG)
		return in->mem_size ? "memory size of an address" : NULL;
	if (in->op == OP_XSAVE || in->op == OP_XSAVEC || in->op == OP_XSAVEOPT || in->op == OP_XRSTOR)
		return in->mem_align == 64 ? NULL : "XSAVE's alignment";
	if (in->mem_size != size)
		return "memory size";
	if (in->mem_access != oracle_access(op))
		return "memory access";
	return NULL;
}

/* General registers: fields, implicit ones, sizes and accesses; and the memory operand. */
static inline const char *oracle_compare_operands(const struct oracle *o)
{
	const struct insn *in = &o->in;
	unsigned fields = 0, read = 0, written = 0, cond = 0, byte = 0, size = 0, implicit_read = 0;
	unsigned implicit_written = 0, implicit_cond = 0;
	bool has_mem = false;

	for (unsigned i = 0; i < o->zi.operand_count; i++) {
		const ZydisDecodedOperand *op = &o->ops[i];
		unsigned acc = oracle_access(op), field = 0, number;
		int reg;

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->encoding != ZYDIS_OPERAND_ENCODING_NONE) {
			const char *what = oracle_compare_memory(o, op);

			if (what)
				return what;
			has_mem = true;
			continue;
		}
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		reg = oracle_gpr(op->reg.value);
		if (reg < 0)
			continue;
		switch (op->encoding) {
		case ZYDIS_OPERAND_ENCODING_MODRM_REG:
			field = FIELD_REG;
			number = in->reg;
			break;
		case ZYDIS_OPERAND_ENCODING_MODRM_RM:
			field = FIELD_RM;
			number = in->rm;
			break;
		case ZYDIS_OPERAND_ENCODING_OPCODE:
			field = FIELD_OPCODE;
			number = in->rm;
			break;
		case ZYDIS_OPERAND_ENCODING_NDSNDD:
			field = FIELD_VVVV;
			number = in->vvvv;
			break;
		default:
			if (ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_GPR8)
				reg &= 3; /* AH */
			implicit_read |= acc & ACCESS_READ ? 1u << reg : 0;
			implicit_written |= acc & ACCESS_WRITE ? 1u << reg : 0;
			implicit_cond |= op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE ? 1u << reg : 0;
			continue;
		}
		if (number != (unsigned)reg)
			return "register number";
		fields |= field;
		read |= acc & ACCESS_READ ? field : 0;
		written |= acc & ACCESS_WRITE ? field : 0;
		cond |= op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE ? field : 0;
		byte |= op->size == 8 ? field : 0;
		if (!size || field == FIELD_REG)
			size = op->size / 8;
	}
	if (in->op == OP_NOP || in->op == OP_UD)
		return in->gpr_fields || in->implicit_written ? "registers of a NOP" : NULL;
	if (has_mem != in->has_mem)
		return "memory operand too many";
	if (fields != in->gpr_fields)
		return "register fields";
	/* What is written under a condition is also read: the old value may stay. */
	if ((read | (cond & in->gpr_read)) != in->gpr_read)
		return "registers read";
	if (written != in->gpr_written)
		return "registers written";
	if (byte != in->gpr_byte)
		return "byte registers";
	if (fields && size != in->gpr_size)
		return "register size";
	if (in->klass == CLASS_CALL)
		return NULL;
	if ((implicit_read | (implicit_cond & in->implicit_read)) != in->implicit_read)
		return "implicit registers read";
	if (implicit_written != in->implicit_written)
		return "implicit registers written";
	return NULL;
}

static inline const char *oracle_compare_flags(const struct oracle *o)
{
	const ZydisAccessedFlags *f = o->zi.cpu_flags;
	const struct insn *in = &o->in;
	unsigned read = 0, written = 0;

	if (f) {
		read = f->tested & X86_ARITH_FLAGS;
		written = (f->modified | f->set_0 | f->set_1 | f->undefined) & X86_ARITH_FLAGS;
	}
	if (in->flags_read != read)
		return "flags read";
	if ((in->flags_written | in->flags_maybe) != written)
		return "flags written";
	return NULL;
}

static inline const char *oracle_compare_vector(const struct oracle *o)
{
	const struct insn *in = &o->in;
	ZydisExceptionClass c = o->zi.meta.exception_class;
	bool aligned;

	if (!in->has_mem)
		return NULL;
	if (in->encoding == ENC_EVEX && in->mem_masked != (in->evex_aaa && !oracle_no_suppression(c)))
		return "fault suppression";
	if (in->fpu < FPU_SSE || in->fpu > FPU_AVX512 || in->klass == CLASS_CALL)
		return NULL;
	aligned = c == ZYDIS_EXCEPTION_CLASS_SSE1 || c == ZYDIS_EXCEPTION_CLASS_SSE2 ||
		  c == ZYDIS_EXCEPTION_CLASS_SSE4 || c == ZYDIS_EXCEPTION_CLASS_AVX1 ||
		  c == ZYDIS_EXCEPTION_CLASS_E1 || c == ZYDIS_EXCEPTION_CLASS_E1NF;
	if (in->mem_align != (aligned ? in->mem_size : 0))
		return "alignment";
	return NULL;
}

/* Immediates, operand and address size, vector length. */
static inline const char *oracle_compare_sizes(const struct oracle *o)
{
	const ZydisDecodedInstruction *zi = &o->zi;
	const struct insn *in = &o->in;
	uint64_t mask;

	if (in->addrsize * 8 != zi->address_width)
		return "address size";
	/* The operand size as an attribute of the mode says nothing to LAHF (8 bits) and MOVNTI (32 or 64). */
	if (in->klass != CLASS_CALL && in->fpu == FPU_NONE && in->op != OP_NOP && in->opsize * 8 != zi->operand_width &&
	    zi->mnemonic != ZYDIS_MNEMONIC_LAHF && zi->mnemonic != ZYDIS_MNEMONIC_SAHF &&
	    zi->mnemonic != ZYDIS_MNEMONIC_MOVNTI)
		return "operand size";
	if ((in->encoding == ENC_EVEX || in->fpu == FPU_AVX) && 128 << in->vl != zi->avx.vector_length)
		return "vector length";
	if (in->imm_size * 8 != zi->raw.imm[0].size)
		return "immediate size";
	if (!in->imm_size)
		return NULL;
	mask = ~0ull >> (64 - 8 * in->imm_size);
	if (in->imm_bytes_at != zi->raw.imm[0].offset || ((uint64_t)in->imm & mask) != (zi->raw.imm[0].value.u & mask))
		return "immediate";
	if (zi->raw.imm[1].size && in->imm2 != zi->raw.imm[1].value.u)
		return "second immediate";
	return NULL;
}

/* Differences that are meant. */
static inline bool oracle_excused(const struct oracle *o, const char *what)
{
	const struct insn *in = &o->in;
	bool repeated = in->rep || in->repne;

	/* SDM vol. 2, table 2-5: with mod 0 a base of 101 in SIB is a displacement, whatever REX.B is. */
	if (!strcmp(what, "base") && o->bits == 64 && in->addrsize == 4 && in->base == REG_NONE && in->mod == 0 &&
	    (o->zi.raw.sib.base & 7) == 5)
		return true;
	switch (o->zydis_valid ? o->zi.mnemonic : ZYDIS_MNEMONIC_INVALID) {
	case ZYDIS_MNEMONIC_RSM:
		/* SDM vol. 2, RSM: #UD outside of SMM, and there is no SMM. */
		return !strcmp(what, "valid only there");
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
		/* SDM vol. 2, BSF: with a source of 0 the destination is unmodified, so it is read. */
		return !strcmp(what, "registers read");
	case ZYDIS_MNEMONIC_LEAVE:
		/* SDM vol. 2, LEAVE: rSP is set from rBP, its old value is not looked at. */
		return !strcmp(what, "implicit registers read");
	case ZYDIS_MNEMONIC_CMPSB: case ZYDIS_MNEMONIC_CMPSW: case ZYDIS_MNEMONIC_CMPSD: case ZYDIS_MNEMONIC_CMPSQ:
	case ZYDIS_MNEMONIC_SCASB: case ZYDIS_MNEMONIC_SCASW: case ZYDIS_MNEMONIC_SCASD: case ZYDIS_MNEMONIC_SCASQ:
		/* SDM vol. 2, REP: ZF is looked at after an iteration, never the one from before. */
		return !strcmp(what, "flags read") && repeated && !in->flags_read;
	case ZYDIS_MNEMONIC_ROL: case ZYDIS_MNEMONIC_ROR: case ZYDIS_MNEMONIC_RCL: case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR: case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_SHLD: case ZYDIS_MNEMONIC_SHRD:
		/* SDM vol. 2, SAL and RCL: with a count of 0 the flags are unaffected. */
		return !strncmp(what, "flags", 5) && in->imm_size && !(in->imm & (in->opsize == 8 ? 63 : 31)) &&
		       !in->flags_read && !in->flags_written;
	case ZYDIS_MNEMONIC_INT: case ZYDIS_MNEMONIC_INT3: case ZYDIS_MNEMONIC_INT1: case ZYDIS_MNEMONIC_INTO:
	case ZYDIS_MNEMONIC_SYSCALL:
		/* The flags are pushed or, SYSCALL, kept in R11. */
		return !strcmp(what, "flags read") && in->flags_read == X86_ARITH_FLAGS;
	case ZYDIS_MNEMONIC_VMCALL:
		/* As the KVM hypercall that it is here: registers and flags are kept, but for RAX. */
		return !strcmp(what, "flags written") && !in->flags_written && !in->flags_maybe;
	case ZYDIS_MNEMONIC_SYSRET:
		/* Loads all flags from R11. */
		return !strcmp(what, "flags written") && in->flags_written == X86_ARITH_FLAGS;
	case ZYDIS_MNEMONIC_MOVSXD:
		/* SDM vol. 2, MOVSXD: r16, r/m16 with an operand size of 16 bits. */
		return !strcmp(what, "memory size") && in->opsize == 2 && in->mem_size == 2;
	case ZYDIS_MNEMONIC_CLFLUSH: case ZYDIS_MNEMONIC_CLFLUSHOPT: case ZYDIS_MNEMONIC_CLWB:
		/* SDM vol. 2, CLFLUSH: checked as a load of one byte is. */
		return !strncmp(what, "memory", 6) && in->mem_size == 1 && in->mem_access == ACCESS_READ;
	case ZYDIS_MNEMONIC_MOVUPS: case ZYDIS_MNEMONIC_MOVUPD: case ZYDIS_MNEMONIC_MOVDQU: case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI: case ZYDIS_MNEMONIC_PCMPESTRM: case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		/* SDM vol. 2, table 2-21, footnote: no alignment is asked for. */
		return !strcmp(what, "alignment") && !in->mem_align;
	case ZYDIS_MNEMONIC_VDBPSADBW:
		/* SDM vol. 2, VDBPSADBW: exceptions type E4NF, and so a Skylake does. */
		return !strcmp(what, "fault suppression") && !in->mem_masked;
	case ZYDIS_MNEMONIC_INVALID:
		/* SDM vol. 2, VCVTSI2SD: outside of 64-bit mode W makes no difference, and rounding is ignored. */
		return o->bits != 64 && in->encoding == ENC_EVEX && in->map == MAP_0F && in->pp == 3 &&
		       (in->opcode == 0x2a || in->opcode == 0x7b) && in->evex_b;
	case ZYDIS_MNEMONIC_VPTEST: case ZYDIS_MNEMONIC_VTESTPS: case ZYDIS_MNEMONIC_VTESTPD:
		/* SDM vol. 2, PTEST and VTESTPS: OF, AF, PF and SF are cleared. */
		return !strcmp(what, "flags written") && in->flags_written == X86_ARITH_FLAGS;
	case ZYDIS_MNEMONIC_CVTPD2PI: case ZYDIS_MNEMONIC_CVTTPD2PI:
		/* SDM vol. 2, CVTPD2PI: exceptions of table 23-4, with 16-byte alignment. */
		return !strcmp(what, "alignment") && in->mem_align == 16;
	default:
		return false;
	}
}

/* What the two differ in, or NULL. */
static inline const char *oracle_compare(struct oracle *o, const uint8_t *code, size_t avail)
{
	static const struct decode_features all = {.bits = ~0ull};
	const char *what = NULL;
	bool valid;

	o->zydis_valid = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&o->zydis, code, avail, &o->zi, o->ops));
	o->result = decode(code, avail, o->bits, &all, &o->in);
	valid = o->result == DECODE_OK && o->in.klass != CLASS_INVALID;
	if (!valid && !o->zydis_valid)
		return NULL;
	if (valid != o->zydis_valid) {
		if (!valid && oracle_not_offered(&o->zi))
			return NULL;
		what = valid ? "valid only here" : "valid only there";
	} else if (o->zi.length != o->in.len) {
		what = "length";
	} else {
		what = oracle_compare_operands(o);
		if (!what)
			what = oracle_compare_sizes(o);
		if (!what)
			what = oracle_compare_flags(o);
		if (!what)
			what = oracle_compare_vector(o);
	}
	return what && !oracle_excused(o, what) ? what : NULL;
}

#endif
