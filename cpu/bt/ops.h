/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files that implement the "called" instructions and the system behaviour of x86:
 * descriptors, stacks, control transfers, and the ops that ops.c collects.
 *
 * Functions that return enum bt_result and can fail leave v->exception set and, unless their
 * comment says otherwise, the vCPU as it was.
 */
#ifndef CPU_BT_OPS_H
#define CPU_BT_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/bt/insn.h"
#include "cpu/bt/vcpu.h"

/* Propagates BT_FAULT. */
#define BT_TRY(call)                     \
	do {                             \
		if ((call) == BT_FAULT)  \
			return BT_FAULT; \
	} while (0)

/* Descriptors (seg.c) -------------------------------------------------------------------------- */

/* A descriptor as it is in memory. @upper: base bits 63:32 of a 16-byte system descriptor. */
struct bt_descriptor {
	uint64_t lin;
	uint32_t lo, hi;
	uint32_t upper;
};

/* Types of system descriptors (SDM vol. 3, table 3-2). */
enum {
	DESC_TSS16 = 1,
	DESC_LDT = 2,
	DESC_TSS16_BUSY = 3,
	DESC_CALL16 = 4,
	DESC_TASK_GATE = 5,
	DESC_INT16 = 6,
	DESC_TRAP16 = 7,
	DESC_TSS = 9,
	DESC_TSS_BUSY = 11,
	DESC_CALL = 12,
	DESC_INT = 14,
	DESC_TRAP = 15,
};

static inline unsigned bt_desc_type(const struct bt_descriptor *d)
{
	return (d->hi >> 8) & 15;
}

static inline bool bt_desc_is_system(const struct bt_descriptor *d)
{
	return !(d->hi & 0x1000);
}

static inline bool bt_desc_is_code(const struct bt_descriptor *d)
{
	return (d->hi & 0x1800) == 0x1800;
}

static inline bool bt_desc_is_conforming(const struct bt_descriptor *d)
{
	return (d->hi & 0x1c00) == 0x1c00;
}

static inline bool bt_desc_is_writable_data(const struct bt_descriptor *d)
{
	return (d->hi & 0x1a00) == 0x1200;
}

static inline unsigned bt_desc_dpl(const struct bt_descriptor *d)
{
	return (d->hi >> 13) & 3;
}

static inline bool bt_desc_is_present(const struct bt_descriptor *d)
{
	return d->hi & 0x8000;
}

static inline bool bt_desc_is_long(const struct bt_descriptor *d)
{
	return d->hi & 0x200000;
}

static inline bool bt_desc_is_big(const struct bt_descriptor *d)
{
	return d->hi & 0x400000;
}

static inline bool bt_selector_is_null(uint16_t selector)
{
	return !(selector & 0xfffc);
}

/* What @descriptor and @selector make of a segment register, the hidden part included. */
struct x86_segment bt_segment(const struct bt_descriptor *descriptor, uint16_t selector);

/* Is entry @selector, of @len bytes, within its table? Then where. */
bool bt_descriptor_address(const struct bt_vcpu *v, uint16_t selector, unsigned len, uint64_t *lin);
/*
 * Reads the 8-byte descriptor of a selector that is not null; beyond the table's limit:
 * @vector(selector).
 */
enum bt_result bt_read_descriptor(struct bt_vcpu *v, uint16_t selector, uint8_t vector,
				  struct bt_descriptor *d);
/*
 * The upper half of a system descriptor in IA-32e mode; #GP(selector) when it is beyond the limit
 * or its type field is not 0.
 */
enum bt_result bt_read_descriptor_upper(struct bt_vcpu *v, uint16_t selector,
					struct bt_descriptor *d);
/* Sets the accessed bit of a code or data descriptor in memory, atomically, when it is clear. */
enum bt_result bt_set_accessed(struct bt_vcpu *v, struct bt_descriptor *d);
/* Sets or clears the busy bit of a TSS descriptor in memory. */
enum bt_result bt_set_busy(struct bt_vcpu *v, uint64_t lin, bool busy);

/* Loads ES, SS, DS, FS or GS as MOV does (SDM vol. 2, "MOV"); v->mode is not yet recomputed. */
enum bt_result bt_load_segment(struct bt_vcpu *v, unsigned seg, uint16_t selector);
/* A segment register in real-address or virtual-8086 mode. */
void bt_load_segment_real(struct bt_vcpu *v, unsigned seg, uint16_t selector);
/* Checks a new SS for CPL @cpl: errors are @vector(selector), not present #SS(selector). */
enum bt_result bt_check_stack_segment(struct bt_vcpu *v, uint16_t selector, unsigned cpl,
				      uint8_t vector, struct bt_descriptor *d);
/* After a return to an outer level: data segments that are too privileged become null. */
void bt_drop_privileged_segments(struct bt_vcpu *v);

static inline enum bt_result bt_raise_selector(struct bt_vcpu *v, uint8_t vector, uint16_t selector)
{
	return bt_raise_error(v, vector, selector & 0xfffc);
}

/*
 * bt_linear() for a segment that need not be loaded. @error is that of a violation, @vector SS or
 * GP.
 */
enum bt_result bt_linear_in(struct bt_vcpu *v, const struct x86_segment *s, uint64_t offset,
			    unsigned len, unsigned access, uint8_t vector, uint32_t error,
			    uint64_t *lin);

/*
 * Alignment checking of user accesses of 2, 4 or 8 bytes: #AC(0), before the page faults that the
 * access has, as CPUs do it.
 */
static inline enum bt_result bt_check_alignment(struct bt_vcpu *v, uint64_t lin, unsigned size,
						unsigned access)
{
	if (!(v->mode & MODE_ALIGN) || !(lin & (size - 1)))
		return BT_NEXT;
	return bt_raise_error(v, X86_AC_VEC, 0);
}

/* Stacks (stack.c) ----------------------------------------------------------------------------- */

/*
 * A stack being pushed to or popped from, before anything is committed. Violations are #SS(error).
 * flat: 64-bit, no segment.
 */
struct bt_stack {
	struct x86_segment ss;
	uint64_t sp, mask;
	uint32_t error;
	unsigned access; /* BT_SYSTEM or BT_AS_USER or 0 */
	bool flat;
};

void bt_stack_current(const struct bt_vcpu *v, struct bt_stack *s);
enum bt_result bt_push(struct bt_vcpu *v, struct bt_stack *s, unsigned size, uint64_t value);
/* A segment register: Intel's processors write only 16 bits of a 32-bit slot (vol. 2, "PUSH"), AMD's all of it. */
enum bt_result bt_push_selector(struct bt_vcpu *v, struct bt_stack *s, unsigned size, uint16_t value);
enum bt_result bt_pop(struct bt_vcpu *v, struct bt_stack *s, unsigned size, uint64_t *value);
/* The value @offset bytes above the top. */
enum bt_result bt_peek(struct bt_vcpu *v, const struct bt_stack *s, unsigned offset, unsigned size,
		       uint64_t *value);
/* Checks that @len more bytes can be pushed. */
enum bt_result bt_stack_room(struct bt_vcpu *v, const struct bt_stack *s, unsigned len);
/* rSP becomes s->sp. */
void bt_stack_commit(struct bt_vcpu *v, const struct bt_stack *s);
/*
 * SS:rSP for privilege @cpl from the current TSS; errors #TS. 64-bit: RSPn. (SDM vol. 3, 8.2.1,
 * 8.7)
 */
enum bt_result bt_stack_from_tss(struct bt_vcpu *v, unsigned cpl, struct bt_stack *s,
				 struct bt_descriptor *ss, uint16_t *selector);

/* Control transfers ---------------------------------------------------------------------------- */

/* Is @offset a place where code of @cs can run? else #GP(0) (exc.c). */
enum bt_result bt_check_code_offset(struct bt_vcpu *v, const struct bt_descriptor *cs,
				    uint64_t offset);
/* CS:rIP becomes @selector with RPL @cpl; v->next_rip, CPL. v->mode is not yet recomputed. */
void bt_load_cs(struct bt_vcpu *v, const struct bt_descriptor *cs, uint16_t selector, unsigned cpl,
		uint64_t offset);

/* RET and IRET (far.c): the code segment to return to; #GP, #NP. */
enum bt_result bt_check_return_cs(struct bt_vcpu *v, uint16_t selector, struct bt_descriptor *cs);
/*
 * The stack segment to return to at CPL @cpl; null is good for 64-bit code below CPL 3. #GP, #SS.
 */
enum bt_result bt_check_return_ss(struct bt_vcpu *v, uint16_t selector, unsigned cpl, bool to64,
				  struct bt_descriptor *ss);
/* SS:rSP of the return, after bt_load_cs(); rSP is @sp + @extra. */
void bt_load_return_stack(struct bt_vcpu *v, const struct bt_descriptor *ss, uint16_t selector,
			  uint64_t sp, uint64_t extra);

/* Where an event comes from: selects the checks of its delivery. */
enum bt_event_kind {
	EVENT_HARDWARE, /* external interrupt, exception, INT1 */
	EVENT_SOFTWARE, /* INT n */
	EVENT_BREAK, /* INT3, INTO: as INT n, but allowed in virtual-8086 mode whatever the IOPL */
};

/*
 * One attempt at delivering an event through the IDT or IVT: the return address is @return_rip.
 * Success sets v->next_rip, not v->rip (a task switch sets both). Error codes are without EXT.
 * (exc.c)
 */
enum bt_result bt_deliver_once(struct bt_vcpu *v, uint8_t vector, enum bt_event_kind kind,
			       bool has_error, uint32_t error, uint64_t return_rip,
			       uint32_t flags_image);

enum bt_task_reason { TASK_JMP, TASK_CALL, TASK_IRET };
/*
 * Hardware task switch to the TSS @selector (already checked to be a usable TSS in the GDT). The
 * outgoing task resumes at @return_rip with @flags_image. Sets v->rip and v->next_rip; a fault
 * after the point of no return is raised in the new task (SDM vol. 3, 8.3). (task.c)
 */
enum bt_result bt_task_switch(struct bt_vcpu *v, uint16_t selector, const struct bt_descriptor *tss,
			      enum bt_task_reason reason, uint64_t return_rip,
			      uint32_t flags_image);

/*
 * RFLAGS as IRET, POPF and task switches load them; the caller recomputes the mode. RF stays only
 * where it can matter.
 */
void bt_load_rflags(struct bt_vcpu *v, uint64_t rflags);
/* How a change of IF from 0 to 1 ends an op. */
static inline enum bt_result bt_flags_changed(uint32_t mode_before, uint32_t sysflags_before,
					      const struct bt_vcpu *v)
{
	if (v->mode != mode_before || (v->sysflags & ~sysflags_before & X86_IF))
		return BT_EXIT;
	return BT_NEXT;
}

/* Ports of the ops on them: may CPL and the I/O bitmap do this? else #GP(0). (port.c) */
enum bt_result bt_check_port(struct bt_vcpu *v, uint16_t port, unsigned size);

/* MSRs (msr.c); BT_FAULT: #GP(0). Also for the debugger and snapshots. */
enum bt_result bt_read_msr(struct bt_vcpu *v, uint32_t msr, uint64_t *value);
enum bt_result bt_write_msr(struct bt_vcpu *v, uint32_t msr, uint64_t value);

/* Extended state (xstate.c) -------------------------------------------------------------------- */

struct bt_xarea {
	_Alignas(64) uint8_t bytes[X86_XSAVE_MAX];
};

/*
 * The guest's live registers to and from @a: XSAVE's standard format of the host, components @mask.
 * The header says which are not in their initial state. x87 pointers are saved as 0: the host's
 * would tell the guest our addresses.
 */
void bt_xarea_save(struct bt_xarea *a, uint64_t mask);
void bt_xarea_restore(const struct bt_xarea *a, uint64_t mask);

/* Between bt_heavy_begin() and bt_heavy_end() only (heavy.c) ----------------------------------- */

void bt_log_guest(const struct bt_vcpu *v, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
bool bt_chip_read_msr(struct bt_vcpu *v, uint32_t msr, uint64_t *value);
bool bt_chip_write_msr(struct bt_vcpu *v, uint32_t msr, uint64_t value);
uint64_t bt_chip_get_deadline(struct bt_vcpu *v);
void bt_chip_set_deadline(struct bt_vcpu *v, uint64_t guest_tsc, uint64_t deadline_ns);
uint8_t bt_chip_get_tpr(struct bt_vcpu *v);
void bt_chip_set_tpr(struct bt_vcpu *v, uint8_t tpr);

/* The ops -------------------------------------------------------------------------------------- */

/* flags.c */
bt_op bt_op_pushf, bt_op_popf, bt_op_cli, bt_op_sti, bt_op_cld, bt_op_std, bt_op_stac, bt_op_clac;
/* arith.c */
bt_op bt_op_aaa, bt_op_aas, bt_op_aad, bt_op_aam, bt_op_daa, bt_op_das, bt_op_salc, bt_op_xlat,
	bt_op_bound, bt_op_arpl;
/* stack.c */
bt_op bt_op_pusha, bt_op_popa, bt_op_push_seg, bt_op_pop_seg, bt_op_enter;
/* seg.c, sysseg.c */
bt_op bt_op_mov_seg_to, bt_op_mov_seg_from, bt_op_load_far;
bt_op bt_op_sgdt, bt_op_sidt, bt_op_lgdt, bt_op_lidt, bt_op_sldt, bt_op_str, bt_op_lldt, bt_op_ltr,
	bt_op_lar, bt_op_lsl, bt_op_verr, bt_op_verw;
/* far.c, iret.c, fast.c */
bt_op bt_op_jmp_far, bt_op_call_far, bt_op_ret_far, bt_op_iret;
bt_op bt_op_syscall, bt_op_sysret, bt_op_sysenter, bt_op_sysexit;
/* exc.c */
bt_op bt_op_int, bt_op_int3, bt_op_into, bt_op_int1, bt_op_ud;
/* string.c */
bt_op bt_op_movs, bt_op_cmps, bt_op_stos, bt_op_lods, bt_op_scas, bt_op_ins, bt_op_outs;
/* port.c */
bt_op bt_op_in, bt_op_out;
/* sys.c */
bt_op bt_op_pause, bt_op_hlt, bt_op_vmcall, bt_op_cpuid, bt_op_rdtsc, bt_op_rdtscp, bt_op_rdpmc, bt_op_rdpid, bt_op_invd,
	bt_op_wbinvd, bt_op_invlpg, bt_op_invpcid, bt_op_swapgs, bt_op_rdfsbase, bt_op_rdgsbase,
	bt_op_wrfsbase, bt_op_wrgsbase;
/* msr.c */
bt_op bt_op_rdmsr, bt_op_wrmsr;
/* cr.c */
bt_op bt_op_mov_from_cr, bt_op_mov_to_cr, bt_op_mov_from_dr, bt_op_mov_to_dr, bt_op_clts,
	bt_op_lmsw, bt_op_smsw, bt_op_xgetbv, bt_op_xsetbv;
/* xstate.c, x87env.c, vmem.c */
bt_op bt_op_fxsave, bt_op_fxrstor, bt_op_xsave, bt_op_xsaveopt, bt_op_xsavec, bt_op_xrstor;
bt_op bt_op_fnsave, bt_op_frstor, bt_op_fnstenv, bt_op_fldenv;
bt_op bt_op_gather, bt_op_scatter, bt_op_maskmov;

#endif
