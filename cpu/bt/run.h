/* SPDX-License-Identifier: Apache-2.0 */
/* Between the run loop (run.c), debugging (debug.c) and the engine's interface (vm.c). */
#ifndef CPU_BT_RUN_H
#define CPU_BT_RUN_H

#include "cpu/bt/private.h"

enum run_result { RUN_STOPPED, RUN_DEBUG, RUN_TRIPLE_FAULT };

/* In the vCPU's thread, bound, vector state loaded. Returns when asked to stop, at a debugger's stop, at a triple fault. */
enum run_result bt_run(struct bt_vcpu *v);

/* The state after INIT, or after RESET (which also clears what INIT keeps: MSRs, caches, FPU). SDM vol. 3, table 9-1. */
void bt_init_cpu(struct bt_vcpu *v, bool reset);

/* state.c, stats.c: of cpu/engine_ops.h */
void bt_vcpu_reset(struct vcpu *v);
void bt_vcpu_get_regs(struct vcpu *v, struct x86_regs *out);
void bt_vcpu_set_regs(struct vcpu *v, const struct x86_regs *in);
void bt_vcpu_get_sregs(struct vcpu *v, struct x86_sregs *out);
void bt_vcpu_set_sregs(struct vcpu *v, const struct x86_sregs *in);
void bt_vcpu_get_xstate(struct vcpu *v, struct x86_xstate *out);
void bt_vcpu_set_xstate(struct vcpu *v, const struct x86_xstate *in);
bool bt_vcpu_get_msr(struct vcpu *v, uint32_t msr, uint64_t *value);
bool bt_vcpu_set_msr(struct vcpu *v, uint32_t msr, uint64_t value);
void bt_vcpu_get_events(struct vcpu *v, struct x86_events *out);
void bt_vcpu_set_events(struct vcpu *v, const struct x86_events *in);
bool bt_vcpu_translate(struct vcpu *v, uint64_t gva, uint64_t *gpa);
void bt_vcpu_set_debug(struct vcpu *v, const struct vcpu_debug *debug);
void bt_engine_statistics(struct engine *e, engine_counter_fn *each, void *opaque);

enum debug_result { DEBUG_GO, DEBUG_STOP, DEBUG_FAULT };
/* Before an instruction of a one-instruction block: instruction breakpoints. */
enum debug_result debug_before(struct bt_vcpu *v);
/* Is there a breakpoint of the debugger behind the first byte of [lin, lin+len)? */
bool debug_breaks_within(const struct bt_vcpu *v, uint64_t lin, unsigned len);
/* After it: TF, data breakpoints, task-switch trap, the debugger's step and watchpoints. */
enum debug_result debug_after(struct bt_vcpu *v, uint32_t sysflags_before);

#endif
