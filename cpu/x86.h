/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The architectural state of an x86 CPU as engines exchange it with the rest of the machine, and the
 * constants of the architecture (names as in the Intel SDM).
 */
#ifndef CPU_X86_H
#define CPU_X86_H

#include <stdbool.h>
#include <stdint.h>

enum x86_gpr {
	X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI,
	X86_R8, X86_R9, X86_R10, X86_R11, X86_R12, X86_R13, X86_R14, X86_R15,
};

enum x86_seg_reg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEG_COUNT };

/* RFLAGS */
#define X86_CF (1u << 0)
#define X86_PF (1u << 2)
#define X86_AF (1u << 4)
#define X86_ZF (1u << 6)
#define X86_SF (1u << 7)
#define X86_TF (1u << 8)
#define X86_IF (1u << 9)
#define X86_DF (1u << 10)
#define X86_OF (1u << 11)
#define X86_IOPL (3u << 12)
#define X86_NT (1u << 14)
#define X86_RF (1u << 16)
#define X86_VM (1u << 17)
#define X86_AC (1u << 18)
#define X86_VIF (1u << 19)
#define X86_VIP (1u << 20)
#define X86_ID (1u << 21)
#define X86_ARITH_FLAGS (X86_CF | X86_PF | X86_AF | X86_ZF | X86_SF | X86_OF)

/* Control registers */
#define X86_CR0_PE (1u << 0)
#define X86_CR0_MP (1u << 1)
#define X86_CR0_EM (1u << 2)
#define X86_CR0_TS (1u << 3)
#define X86_CR0_ET (1u << 4)
#define X86_CR0_NE (1u << 5)
#define X86_CR0_WP (1u << 16)
#define X86_CR0_AM (1u << 18)
#define X86_CR0_NW (1u << 29)
#define X86_CR0_CD (1u << 30)
#define X86_CR0_PG (1u << 31)
#define X86_CR4_VME (1u << 0)
#define X86_CR4_PVI (1u << 1)
#define X86_CR4_TSD (1u << 2)
#define X86_CR4_DE (1u << 3)
#define X86_CR4_PSE (1u << 4)
#define X86_CR4_PAE (1u << 5)
#define X86_CR4_MCE (1u << 6)
#define X86_CR4_PGE (1u << 7)
#define X86_CR4_PCE (1u << 8)
#define X86_CR4_OSFXSR (1u << 9)
#define X86_CR4_OSXMMEXCPT (1u << 10)
#define X86_CR4_UMIP (1u << 11)
#define X86_CR4_FSGSBASE (1u << 16)
#define X86_CR4_PCIDE (1u << 17)
#define X86_CR4_OSXSAVE (1u << 18)
#define X86_CR4_SMEP (1u << 20)
#define X86_CR4_SMAP (1u << 21)
#define X86_EFER_SCE (1u << 0)
#define X86_EFER_LME (1u << 8)
#define X86_EFER_LMA (1u << 10)
#define X86_EFER_NXE (1u << 11)
#define X86_XCR0_X87 (1u << 0)
#define X86_XCR0_SSE (1u << 1)
#define X86_XCR0_AVX (1u << 2)
#define X86_XCR0_AVX512 (7u << 5)

/* Exceptions (SDM vol. 3, table 6-1) */
enum x86_vector {
	X86_DE = 0, X86_DB = 1, X86_NMI = 2, X86_BP = 3, X86_OFV = 4, X86_BR = 5, X86_UD = 6, X86_NM = 7,
	X86_DF_VEC = 8, X86_TS = 10, X86_NP = 11, X86_SS_VEC = 12, X86_GP = 13, X86_PF_VEC = 14,
	X86_MF = 16, X86_AC_VEC = 17, X86_MC = 18, X86_XM = 19,
};
/* Page-fault error code */
#define X86_PFEC_P (1u << 0)
#define X86_PFEC_W (1u << 1)
#define X86_PFEC_U (1u << 2)
#define X86_PFEC_RSVD (1u << 3)
#define X86_PFEC_I (1u << 4)

/*
 * A segment register with its hidden part. @attr is the descriptor's access-rights word: bits 0–3 type,
 * 4 S, 5–6 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G (SDM vol. 3, 3.4.5, the second dword shifted by 8).
 * @limit is in bytes, already scaled by G. A null or unusable segment has P = 0.
 */
struct x86_segment {
	uint16_t selector;
	uint16_t attr;
	uint32_t limit;
	uint64_t base;
};
#define X86_ATTR_TYPE 0x000fu
#define X86_ATTR_S 0x0010u
#define X86_ATTR_DPL 0x0060u
#define X86_ATTR_P 0x0080u
#define X86_ATTR_AVL 0x1000u
#define X86_ATTR_L 0x2000u
#define X86_ATTR_DB 0x4000u
#define X86_ATTR_G 0x8000u

struct x86_table { /* GDTR, IDTR */
	uint64_t base;
	uint16_t limit;
};

/* Register groups, the unit in which state is read and written (engine.h). */
struct x86_regs {
	uint64_t gpr[16];
	uint64_t rip;
	uint64_t rflags;
};

struct x86_sregs {
	struct x86_segment seg[X86_SEG_COUNT];
	struct x86_segment ldtr, tr;
	struct x86_table gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
	uint64_t dr[8]; /* DR4 and DR5 unused */
};

/*
 * A local APIC: IA32_APIC_BASE, and the registers as its page has them, the one at @offset in reg[offset / 16] (SDM vol. 3, table
 * 11-1); the id is x2APIC's in x2APIC mode, and the high half of the ICR is at 0x310 in both modes. The current count (0x390) is what
 * is left of it.
 */
struct x86_lapic {
	uint64_t base;
	uint32_t reg[64];
	uint64_t tsc_deadline;	   /* IA32_TSC_DEADLINE; 0: disarmed */
	uint64_t deadline_left_ns; /* until then */
	uint32_t esr_pending;	   /* errors that the next write of the ESR shows */
	bool extint;		   /* an ExtINT came as a message and waits */
};

/* What is neither in registers nor in a chip: what the processor does, what holds events off, what is on its way. */
struct x86_events {
	bool halted, wait_sipi; /* neither: it runs */
	bool sti_shadow, ss_shadow; /* held off for one instruction, after STI or a move to SS */
	bool nmi_pending, nmi_blocked;
	int16_t interrupt; /* a vector taken from its controller, but not delivered; -1: none */
};

/* The XSAVE area in the standard (non-compacted) format of the host. */
#define X86_XSAVE_MAX 4096
struct x86_xstate {
	_Alignas(64) uint8_t area[X86_XSAVE_MAX];
};

#endif
