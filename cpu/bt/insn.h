/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One decoded guest instruction: what the decoder (decode.h) produces and everything else in the
 * translator works from. Notation as in the Intel SDM vol. 2.
 */
#ifndef CPU_BT_INSN_H
#define CPU_BT_INSN_H

#include <stdbool.h>
#include <stdint.h>

#define INSN_MAX_LEN 15
#define REG_NONE 0xff
#define REG_PC 0xfe

enum insn_encoding { ENC_LEGACY, ENC_VEX, ENC_EVEX };
enum insn_map { MAP_ONE, MAP_0F, MAP_0F38, MAP_0F3A, MAP_5 = 5, MAP_6 = 6 };

/* How the translator treats it. */
enum insn_class {
	CLASS_INVALID, /* #UD: not an instruction in this mode, or of an extension we do not offer */
	CLASS_COPY,    /* re-encoded with renamed registers and a checked memory operand */
	CLASS_REWRITE, /* the translator emits something of its own, chosen by op */
	CLASS_CALL,    /* a C function, chosen by op */
};

/*
 * The instructions that are not plain copies, one per behaviour (operand sizes and forms are in the other fields).
 * OP_COPY stands for all of CLASS_COPY.
 */
enum insn_op {
	OP_COPY,
	/* CLASS_REWRITE */
	OP_NOP,	     /* no architectural effect: NOP, multi-byte NOP, PREFETCH*, ENDBR, CLDEMOTE, … (PAUSE is a call) */
	OP_MOV,	     /* MOV reg/mem/imm, opcodes 88–8B, A0–A3 (moffs), B0–BF, C6, C7: a copy, but known to be a move */
	OP_LEA,
	OP_PUSH,     /* 50–57, 68, 6A, FF /6 */
	OP_POP,	     /* 58–5F, 8F /0 */
	OP_JMP,	     /* E9, EB: near direct */
	OP_JCC,	     /* 70–7F, 0F 80–8F; condition in cc */
	OP_CALL,     /* E8 */
	OP_RET,	     /* C3, C2 */
	OP_JMP_IND,  /* FF /4 */
	OP_CALL_IND, /* FF /2 */
	OP_LOOP,     /* E0 LOOPNE, E1 LOOPE, E2 LOOP, E3 JCXZ: by opcode */
	OP_LEAVE,
	OP_XCHG,     /* 86, 87, 90+r: a copy; with memory implicitly locked */
	OP_INCDEC,   /* INC/DEC 40–4F in 16/32-bit code: re-encoded as FF /0, /1 */
	OP_CBW,	     /* 98, 99: copies on implicit registers */
	OP_BT_MEM,   /* BT, BTS, BTR, BTC m, r: the bit is at (r >> 3) bytes from the address, signed */
	/* CLASS_CALL */
	OP_FIRST_CALL,
	OP_PAUSE = OP_FIRST_CALL, OP_PUSHF, OP_POPF, OP_CLI, OP_STI, OP_CLD, OP_STD, OP_STAC, OP_CLAC,
	OP_PUSHA, OP_POPA, OP_PUSH_SEG, OP_POP_SEG, OP_ENTER, OP_XLAT, OP_BOUND, OP_ARPL,
	OP_MOV_SEG_TO, /* 8E: MOV Sreg, r/m16 */
	OP_MOV_SEG_FROM, /* 8C */
	OP_LOAD_FAR,	 /* LDS LES LSS LFS LGS: target segment in sreg */
	OP_JMP_FAR, OP_CALL_FAR, OP_RET_FAR, OP_IRET, /* JMP/CALL: EA/9A immediate or FF /5, /3 memory (has_mem) */
	OP_INT, OP_INT3, OP_INTO, OP_INT1, OP_UD, /* OP_UD: UD0 UD1 UD2 */
	OP_SYSCALL, OP_SYSRET, OP_SYSENTER, OP_SYSEXIT,
	OP_MOVS, OP_CMPS, OP_STOS, OP_LODS, OP_SCAS, OP_INS, OP_OUTS, /* with REP in rep/repne */
	OP_IN, OP_OUT, /* E4–E7 immediate port, EC–EF port in DX */
	OP_HLT, OP_CPUID, OP_RDTSC, OP_RDTSCP, OP_RDPMC, OP_RDMSR, OP_WRMSR, OP_RDPID,
	OP_MOV_FROM_CR, OP_MOV_TO_CR, OP_MOV_FROM_DR, OP_MOV_TO_DR, OP_CLTS, OP_LMSW, OP_SMSW,
	OP_SGDT, OP_SIDT, OP_LGDT, OP_LIDT, OP_SLDT, OP_STR, OP_LLDT, OP_LTR,
	OP_LAR, OP_LSL, OP_VERR, OP_VERW,
	OP_INVD, OP_WBINVD, OP_INVLPG, OP_INVPCID, OP_SWAPGS,
	OP_RDFSBASE, OP_RDGSBASE, OP_WRFSBASE, OP_WRGSBASE,
	OP_XGETBV, OP_XSETBV, OP_FXSAVE, OP_FXRSTOR, OP_XSAVE, OP_XSAVEOPT, OP_XSAVEC, OP_XRSTOR,
	OP_FNSAVE, OP_FRSTOR, OP_FNSTENV, OP_FLDENV, /* mode-dependent memory layout */
	OP_MONITOR, OP_MWAIT, OP_VMCALL,
	OP_AAA, OP_AAS, OP_AAD, OP_AAM, OP_DAA, OP_DAS, OP_SALC,
	OP_GATHER, OP_SCATTER, /* vector-indexed memory; AVX2 and AVX-512 forms */
	OP_MASKMOV,	       /* MASKMOVQ, MASKMOVDQU, VMASKMOVDQU: [DS:rDI] under a register mask */
	OP_RAISE_NM, OP_RAISE_GP, /* the translator's own: the unit is off; longer than 15 bytes */
	OP_COUNT,
};

enum insn_access { ACCESS_NONE = 0, ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_RW = 3 };

/* Where a general register can stand in an encoding. */
enum insn_field { FIELD_REG = 1, FIELD_RM = 2, FIELD_VVVV = 4, FIELD_OPCODE = 8 };

struct insn {
	uint8_t len;
	uint8_t klass;	/* enum insn_class */
	uint8_t op;	/* enum insn_op */
	uint8_t encoding; /* enum insn_encoding */
	uint8_t map;	/* enum insn_map */
	uint8_t opcode;
	uint8_t code_bits; /* 16, 32, 64: of the code segment */

	/* Prefixes as they take effect. */
	bool lock, rep, repne; /* F0, F3, F2 present (the last of F2/F3 wins: at most one of rep, repne) */
	bool opsize_prefix, addrsize_prefix;
	uint8_t pp;    /* mandatory prefix of SSE/VEX/EVEX opcodes: 0 none, 1 66, 2 F3, 3 F2 */
	uint8_t rex;   /* the REX byte, or 0; only 64-bit code */
	uint8_t opsize;	  /* effective operand size of integer operands: 1, 2, 4 or 8 bytes (64-bit defaults applied: PUSH, near branches …) */
	uint8_t addrsize; /* 2, 4, 8 bytes */
	uint8_t w;	  /* REX.W, VEX.W, EVEX.W */
	uint8_t vl;	  /* VEX/EVEX vector length: 0 128 (also EVEX scalars), 1 256, 2 512 */
	uint8_t evex_z, evex_b, evex_aaa;
	uint8_t evex_ll;  /* the length field itself, which is the rounding mode with evex_b and registers */
	uint8_t vvvv;	  /* VEX/EVEX second source, 0..31, already inverted; 0 when unused */

	bool has_modrm;
	uint8_t mod, reg, rm; /* reg and rm extended by REX/VEX (0..15) or EVEX (0..31); FIELD_OPCODE's register is in rm */
	uint8_t cc;	      /* condition of JCC, SETcc, CMOVcc */
	uint8_t sreg;	      /* segment register operand (MOV Sreg, PUSH Sreg, Lxx), enum x86_seg_reg */

	/*
	 * Which encoding fields name general registers, each as FIELD_* bits, and which of these are byte
	 * registers (without REX, 4–7 are AH CH DH BH), and read or written. A field that names a vector,
	 * mask, x87, control … register is not in gpr_fields.
	 */
	uint8_t gpr_fields, gpr_read, gpr_written, gpr_byte;
	/*
	 * Their width in bytes; where it is not common to all (MOVZX, CRC32) that of the reg field. A 4-byte
	 * write zeroes the upper half of the register, a shorter one keeps what is above it.
	 */
	uint8_t gpr_size;
	uint16_t implicit_read, implicit_written; /* general registers used without being named: bit per enum x86_gpr */

	/* Memory operand. */
	bool has_mem;
	uint8_t seg;	      /* enum x86_seg_reg, override and defaults applied */
	uint8_t base, index;  /* 0..15, REG_NONE, base also REG_PC; a vector index (VSIB) is in index 0..31 with vsib set */
	uint8_t scale;	      /* 0..3 */
	bool vsib;
	int64_t disp;	      /* sign-extended; EVEX disp8 already multiplied; moffs whole */
	uint16_t mem_size;    /* bytes accessed at the effective address (most that can be; 0: none, as LEA, NOP) */
	uint8_t mem_access;   /* enum insn_access */
	uint8_t mem_align;    /* alignment whose lack is #GP (16, 32, 64), 0 none */
	uint8_t mem_elem;     /* masked or broadcast vector operand: element size in bytes, else 0 */
	bool mem_masked;      /* EVEX mask (aaa != 0) or VMASKMOV suppresses faults per element */
	bool mem_packed;      /* VEXPAND, VCOMPRESS: memory holds only the elements of set mask bits, one after the other */
	uint8_t mem_mask_vreg; /* VMASKMOV: vector register whose element sign bits are the mask */

	int64_t imm;	      /* sign-extended as the instruction does it; relative branches: displacement */
	uint8_t imm_size, imm_bytes_at; /* bytes of it in the encoding, offset of the first one */
	uint16_t imm2;	      /* ENTER's level, far pointers' selector */

	/* Arithmetic flags (X86_ARITH_FLAGS bits; DF and others are not here). "Undefined" counts as written. */
	uint16_t flags_read, flags_written; /* written: surely overwritten whatever the operands are */
	uint16_t flags_maybe;		    /* may be written, may be kept: shifts by CL, REP CMPS … */

	uint8_t fpu;	      /* FPU_* : which unit it needs, for #NM/#UD by CR0/CR4/XCR0 */
	bool may_trap;	      /* can raise an exception by its values: DIV, x87/SSE numeric, INTO, BOUND */
	bool lockable;	      /* LOCK is allowed on this form (else LOCK is #UD: the decoder already says INVALID) */
};

enum insn_fpu { FPU_NONE, FPU_X87, FPU_MMX, FPU_SSE, FPU_AVX, FPU_AVX512, FPU_WAIT };

#endif
