/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator's vCPU: architectural state, and what C code that implements instructions works with.
 *
 * Theory of operation. While translated code runs, host rsp points at struct bt_vcpu (the stack grows
 * below it), the guest's general registers are in host registers (bt/emit.h, "register map"), its
 * arithmetic flags in host RFLAGS, its x87/SSE/AVX state in the host's. Before C code is called the
 * general registers and flags are stored here; the vector state stays in the host's registers. All of
 * cpu/bt is therefore compiled without vector and floating-point instructions, and calls nothing that might
 * use them, except between bt_heavy_begin() and bt_heavy_end().
 *
 * C functions that implement an instruction ("ops") return enum bt_result. On entry v->rip is the
 * instruction's own address and v->next_rip the one after it; an op that jumps sets v->next_rip. An op
 * that raises an exception (`return bt_raise(...)`) has changed nothing that is visible, except where the
 * manual says so.
 *
 * Threading: a struct bt_vcpu belongs to its thread; others touch only the fields marked "any thread".
 */
#ifndef CPU_BT_VCPU_H
#define CPU_BT_VCPU_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/bt/insn.h"
#include "cpu/engine_ops.h"
#include "cpu/x86.h"

struct bt_engine;
struct cpuid_model;

enum bt_result {
	BT_NEXT,  /* done; go on after it in the same block */
	BT_FAULT, /* v->exception is pending; nothing else happened */
	BT_EXIT,  /* done; leave the block: the mode, the mapping or the flow may have changed */
};

/* An exception on its way to the guest. */
struct bt_exception {
	uint8_t vector;
	bool has_error;
	bool is_trap;	 /* saved RIP is the next instruction's (#DB traps, INT3, INTO) */
	bool is_soft;	 /* INT n, INT3, INTO: gate DPL is checked */
	uint32_t error;
	uint64_t cr2;	 /* #PF */
	uint64_t dr6;	 /* #DB: bits to set */
};

/* What the selected mode means for translation: the block key (bt_mode_update). */
enum bt_mode_bits {
	MODE_CODE16 = 0, MODE_CODE32 = 1, MODE_CODE64 = 2, MODE_CODE_MASK = 3,
	MODE_USER = 1 << 2,	 /* CPL 3 */
	MODE_SMAP_OPEN = 1 << 3, /* supervisor, and explicit accesses to user pages are allowed (AC, or no SMAP) */
	MODE_FLAT_DATA = 1 << 4, /* DS, ES, SS have base 0, limit 4 GiB, are readable and writable (64-bit: set) */
	MODE_FLAT_CODE = 1 << 5, /* CS has base 0 and limit 4 GiB (64-bit: set) */
	MODE_STACK32 = 1 << 6,	 /* SS.B; 64-bit code: clear */
	MODE_STEP = 1 << 7,	 /* one instruction per block: TF, debug registers, debugger */
	MODE_TS = 1 << 8,	 /* CR0.TS */
	MODE_EM = 1 << 9,	 /* CR0.EM */
	MODE_SSE = 1 << 10,	 /* CR4.OSFXSR and not CR0.EM */
	MODE_AVX = 1 << 11,	 /* CR4.OSXSAVE and XCR0 has AVX, and protected mode not V86 */
	MODE_AVX512 = 1 << 12,
	MODE_ALIGN = 1 << 13,	 /* CPL 3, CR0.AM and RFLAGS.AC: alignment is checked */
	MODE_V86_REAL = 1 << 14, /* real or virtual-8086 mode: no VEX/EVEX */
	MODE_MP = 1 << 15,	 /* CR0.MP: WAIT looks at TS */
	MODE_NE = 1 << 16,	 /* CR0.NE */
};

#define BT_GROUP_SLOTS 8
#define BT_HELD_REGS 13 /* guest registers that live in host registers: RAX to R12 */
#define JUMPED_BY_CALL (1u << 16)
#define JUMPED_NOWHERE (1u << 17)

enum bt_shadow { SHADOW_NONE, SHADOW_STI, SHADOW_SS /* holds off #DB traps as well */ };

/* What a #DB trap that is due is for: a new TSS with its T bit set (DR6.BT), or an event's frame on a data breakpoint. */
enum { TRAP_TASK = 1, TRAP_FRAME = 2 };

struct bt_vcpu {
	/*
	 * Hot: reached from translated code by offset from rsp, what it uses most within the 128 bytes that a displacement
	 * of one byte reaches: code is that much denser. The guest's registers: BT_REG().
	 */
	uint64_t high_regs[16 - BT_HELD_REGS]; /* those that always live here */
	uint64_t vbase;	       /* linear address of the page the running block is in */
	_Atomic uint64_t poll; /* any thread sets it non-zero: leave translated code at the next safepoint */
	uint32_t tlb_mask[3];  /* of the TLB tables in use, by enum tlb_class (struct tlb_table) */
	uint16_t aflags;       /* the arithmetic flags: high byte as LAHF gives it, low byte OF as 0 or 1 */
	uint8_t ring_top[2];   /* newest entries of the rings of return addresses in use: the kernel's, the user's */
	uint64_t group[BT_GROUP_SLOTS]; /* guest address to host address, of checked groups of accesses (tr_group.c) */
	uint64_t scratch[4];   /* translated code's */
	uint64_t held_regs[BT_HELD_REGS]; /* while C runs; in host registers otherwise */
	uint32_t sysflags;     /* all other bits of RFLAGS (bit 1 included) */
	uint64_t host_rsp;     /* the C stack while translated code runs */
	uint64_t exit_target;  /* linear address to go on at */
	uint64_t exit_link;    /* the link (blocks.h) that can be patched to get there */
	uint32_t exit_reason;  /* set by C code that makes translated code exit */
	uint32_t jumped_from;  /* page offset of the last indirect jump whose target was not looked at, and JUMPED_BY_CALL; JUMPED_NOWHERE: C has been here since */
	uint64_t fs_base, gs_base; /* copies of seg[].base for 64-bit code: bt_seg_loaded keeps them */
	uint64_t cs_base;	   /* seg[X86_CS].base outside of 64-bit mode, else 0 */
	uint64_t cs_limit;	   /* seg[X86_CS].limit, outside of 64-bit mode */
	struct {
		uint64_t base;
		/* An access whose last byte's offset is below this is allowed without looking; 0: always look. */
		uint64_t read_limit, write_limit;
	} segcheck[X86_SEG_COUNT];

	/* Architectural state. */
	uint64_t rip, next_rip; /* offsets in CS, as the guest sees them */
	struct x86_segment seg[X86_SEG_COUNT], ldtr, tr;
	struct x86_table gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
	uint64_t dr[8];
	uint8_t cpl;
	uint8_t interrupt_shadow; /* enum bt_shadow: no interrupt before the next instruction is done */
	bool nmi_blocked;      /* until IRET */
	bool halted;
	bool wait_sipi;
	uint32_t mode; /* enum bt_mode_bits */

	/* MSRs that have no home above. */
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t tsc_offset, tsc_adjust; /* guest TSC = host TSC + tsc_offset */
	uint64_t pat, misc_enable, spec_ctrl, mtrr_def_type, mtrr_fixed[11], mtrr_phys[16];
	uint64_t mcg_status, mcg_ctl, bios_sign_id, debugctl;

	struct bt_exception exception; /* after BT_FAULT */

	struct bt_engine *engine;
	unsigned index;
	struct vcpu_irqchip chip;
	const struct cpuid_model *cpuid; /* the guest's CPUID, shared by all vCPUs */
	uint32_t pauses;	/* PAUSE instructions run */
	uint64_t monitor_gpa;	/* MONITOR's line, 0 none */
	bool debugger_steps;	/* the debugger wants one instruction per block (MODE_STEP) */
	bool in_rep;		/* stopped between two iterations of a REP string instruction at v->rip */
	bool step_by_new; /* SYSCALL, SYSRET, INT n: single-step looks at the TF they left (vol. 3, 17.3.1.4) */
	uint8_t trap_pending;	/* TRAP_…: a #DB trap is due before the next instruction */
	uint64_t pdpte[4];	/* PAE paging outside of IA-32e mode (SDM vol. 3, 4.4.1): bt_tlb_load_pdptes */

	struct vcpu base; /* what others have of it */

	/* Private to vm.c, run.c, tlb.c: see bt/engine_priv.h. */
	struct bt_private *priv;
};

/* The guest's general register @n (enum x86_gpr), as an lvalue. */
#define BT_REG(v, n) (*((n) < BT_HELD_REGS ? &(v)->held_regs[(n) % BT_HELD_REGS] : &(v)->high_regs[((n) - BT_HELD_REGS) & 3]))

_Static_assert(offsetof(struct bt_vcpu, scratch[1]) <= 128, "what translated code uses most is near");

/* Flags -------------------------------------------------------------------------------------------- */

static inline uint64_t bt_get_rflags(const struct bt_vcpu *v)
{
	return v->sysflags | ((v->aflags >> 8) & 0xd5) | (v->aflags & 1u ? X86_OF : 0);
}

/* Arithmetic flags only. */
static inline void bt_set_aflags(struct bt_vcpu *v, uint64_t rflags)
{
	v->aflags = (uint16_t)(((rflags & 0xd5) | 2) << 8 | (rflags & X86_OF ? 1 : 0));
}

/* All of RFLAGS; call bt_mode_update() when AC, TF or VM may have changed. */
static inline void bt_set_rflags(struct bt_vcpu *v, uint64_t rflags)
{
	bt_set_aflags(v, rflags);
	v->sysflags = (uint32_t)(rflags & ~(uint64_t)X86_ARITH_FLAGS) | 2;
}

/* Modes -------------------------------------------------------------------------------------------- */

static inline bool bt_protected(const struct bt_vcpu *v)
{
	return v->cr0 & X86_CR0_PE;
}

static inline bool bt_v86(const struct bt_vcpu *v)
{
	return v->sysflags & X86_VM;
}

static inline bool bt_long_mode(const struct bt_vcpu *v) /* IA-32e mode active, 64-bit or compatibility */
{
	return v->efer & X86_EFER_LMA;
}

static inline bool bt_code64(const struct bt_vcpu *v)
{
	return bt_long_mode(v) && (v->seg[X86_CS].attr & X86_ATTR_L);
}

static inline unsigned bt_iopl(const struct bt_vcpu *v)
{
	return (v->sysflags & X86_IOPL) >> 12;
}

/* Recomputes v->mode, v->cs_base, cs_limit, fs_base, gs_base and segcheck after any change of segments, CPL, CRs, EFER, XCR0, RFLAGS. (mode.c) */
void bt_mode_update(struct bt_vcpu *v);

/* Exceptions --------------------------------------------------------------------------------------- */

static inline enum bt_result bt_raise(struct bt_vcpu *v, uint8_t vector)
{
	v->exception = (struct bt_exception){.vector = vector};
	return BT_FAULT;
}

static inline enum bt_result bt_raise_error(struct bt_vcpu *v, uint8_t vector, uint32_t error)
{
	v->exception = (struct bt_exception){.vector = vector, .has_error = true, .error = error};
	return BT_FAULT;
}

/*
 * Delivers an exception, or an external or software interrupt, through the IDT (real-mode IVT, 16/32-bit
 * gates, task gates, 64-bit gates with IST): pushes, switches stacks, loads CS:RIP into v->rip. For faults v->rip
 * is the faulting instruction; for traps and interrupts v->rip is where to return to (the caller has
 * advanced it). Handles contributory faults, #DF, and a triple fault (returns false). (exc.c)
 */
bool bt_deliver_exception(struct bt_vcpu *v, const struct bt_exception *e);
bool bt_deliver_interrupt(struct bt_vcpu *v, uint8_t vector); /* external; NMI: vector 2 */

/* Guest memory from C (access.c) ----------------------------------------------------------------- */

enum bt_access {
	BT_READ = 0,
	BT_WRITE = 1,
	BT_FETCH = 2,
	BT_RMW = 3,	    /* read, to be written: must be writable */
	BT_ACCESS_MASK = 3,
	BT_SYSTEM = 4,	    /* implicit supervisor access (descriptor tables, TSS, IDT), whatever the CPL; SMAP applies, AC does not open it */
	BT_AS_USER = 8,	    /* as CPL 3, whatever the CPL */
	BT_FRAME = 16,	    /* a push by an event or a call gate: data breakpoints see it, though BT_SYSTEM */
};

/*
 * Linear (segmentation is done) memory of 1..8 bytes, any alignment, page crossing handled, RAM or MMIO.
 * BT_FAULT: exception set (#PF with CR2; #GP/#SS for non-canonical addresses; SS says which).
 * All-or-nothing for RAM: both pages are checked before a byte is written.
 */
enum bt_result bt_load(struct bt_vcpu *v, uint64_t lin, unsigned size, unsigned access, uint64_t *out);
enum bt_result bt_store(struct bt_vcpu *v, uint64_t lin, unsigned size, unsigned access, uint64_t value);
/* The same for longer ranges (≤ 4096 bytes: FXSAVE areas, TSS, gates). */
enum bt_result bt_load_bytes(struct bt_vcpu *v, uint64_t lin, void *buf, unsigned len, unsigned access);
enum bt_result bt_store_bytes(struct bt_vcpu *v, uint64_t lin, const void *buf, unsigned len,
			      unsigned access);
/* Checks that [lin, lin+len) (≤ 4096) can be accessed, without accessing it; raises as the access would. */
enum bt_result bt_probe(struct bt_vcpu *v, uint64_t lin, unsigned len, unsigned access);

/*
 * A host pointer to guest RAM for [lin, lin + *len), *len cut to the end of the page; for writing when access says so
 * (dirty tracking and code invalidation are done). NULL with *res BT_FAULT: exception; with *res BT_NEXT:
 * not RAM, use bt_load/bt_store. Valid until the op returns.
 */
void *bt_ram(struct bt_vcpu *v, uint64_t lin, unsigned *len, unsigned access, enum bt_result *res);

/*
 * Segment arithmetic: offset in segment to linear address, with limit and type checks in legacy modes and the
 * canonical check in 64-bit mode (#GP(0), #SS(0)). (seg.c)
 */
enum bt_result bt_linear(struct bt_vcpu *v, unsigned seg, uint64_t offset, unsigned len,
			 unsigned access, uint64_t *lin);
/* Effective address of i's memory operand (an offset in segment i->seg), truncated to i->addrsize. */
uint64_t bt_effective_address(const struct bt_vcpu *v, const struct insn *i);
/* Both of the above, then the access. */
enum bt_result bt_load_operand(struct bt_vcpu *v, const struct insn *i, unsigned size, uint64_t *out);
enum bt_result bt_store_operand(struct bt_vcpu *v, const struct insn *i, unsigned size, uint64_t value);

/* Registers by encoding ------------------------------------------------------------------------------ */

/* General register @reg, @size bytes; byte registers 4–7 without REX are AH CH DH BH. 4-byte writes clear the upper half. */
static inline uint64_t bt_get_reg(const struct bt_vcpu *v, unsigned reg, unsigned size, bool rex)
{
	if (size == 1 && reg >= 4 && reg < 8 && !rex)
		return (BT_REG(v, reg - 4) >> 8) & 0xff;
	return size == 8 ? BT_REG(v, reg) : BT_REG(v, reg) & ((1ull << (8 * size)) - 1);
}

static inline void bt_set_reg(struct bt_vcpu *v, unsigned reg, unsigned size, bool rex, uint64_t val)
{
	if (size == 8)
		BT_REG(v, reg) = val;
	else if (size == 4)
		BT_REG(v, reg) = (uint32_t)val;
	else if (size == 2)
		BT_REG(v, reg) = (BT_REG(v, reg) & ~0xffffull) | (val & 0xffff);
	else if (reg >= 4 && reg < 8 && !rex)
		BT_REG(v, reg - 4) = (BT_REG(v, reg - 4) & ~0xff00ull) | (val & 0xff) << 8;
	else
		BT_REG(v, reg) = (BT_REG(v, reg) & ~0xffull) | (val & 0xff);
}

/* TLB and blocks (tlb.c, cache.c), for the ops that change what they depend on ------------------------- */

void bt_tlb_flush_all(struct bt_vcpu *v);      /* everything, global too: CR0.PG/WP, CR4 bits, EFER.NXE */
void bt_tlb_load_cr3(struct bt_vcpu *v, uint64_t cr3); /* sets v->cr3; flushes by CR4.PCIDE and bit 63 (SDM vol. 3, 4.10.4.1) */
void bt_tlb_flush_page(struct bt_vcpu *v, uint64_t lin); /* INVLPG: the current PCID and global entries */
/*
 * Reads the four PDPTEs at @cr3 into v->pdpte for legacy PAE paging; #GP(0), and nothing changed, when a present
 * one has a reserved bit set (SDM vol. 3, 4.4.1). Called when MOV to CR0, CR3 or CR4 has turned them in use.
 */
enum bt_result bt_tlb_load_pdptes(struct bt_vcpu *v, uint64_t cr3);
void bt_tlb_invpcid(struct bt_vcpu *v, unsigned type, unsigned pcid, uint64_t lin);

/* Heavy sections: libc and devices may be called between them; the guest's vector state is in v->priv. (stubs.c) */
void bt_heavy_begin(struct bt_vcpu *v);
void bt_heavy_end(struct bt_vcpu *v);
/* The guest's extended state, host XSAVE standard format; valid between bt_heavy_begin and bt_heavy_end, writable. */
struct x86_xstate *bt_xstate(struct bt_vcpu *v);

/* Buses, with the machine's lock taken inside a heavy section. (access.c) */
uint64_t bt_port_read(struct bt_vcpu *v, uint16_t port, unsigned size);
void bt_port_write(struct bt_vcpu *v, uint16_t port, uint64_t value, unsigned size);

uint64_t bt_guest_tsc(const struct bt_vcpu *v); /* host TSC + offset */
uint64_t bt_tsc_hz(const struct bt_vcpu *v);
uint64_t bt_vm_time_ns(struct bt_vcpu *v);	/* heavy section is taken inside */

/* Gives up the host's CPU if other vCPUs may be waiting for it. (sync.c) */
void bt_yield(struct bt_vcpu *v);

/* The machine's lock, in a heavy section: what struct vcpu_irqchip's functions are called with. (vm.c) */
void bt_machine_lock(struct bt_vcpu *v);
void bt_machine_unlock(struct bt_vcpu *v);

/* CPUID: the static part is v->cpuid (cpu/cpuid.h); sys.c adds OSXSAVE, APIC ids, XSAVE sizes by XCR0. */

/* One C function per enum insn_op ≥ OP_FIRST_CALL (ops.c collects them). */
typedef enum bt_result bt_op(struct bt_vcpu *v, const struct insn *i);
extern bt_op *const bt_ops[OP_COUNT];

#endif
