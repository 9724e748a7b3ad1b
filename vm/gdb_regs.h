/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU's registers as gdb numbers and names them: general, x87, SSE, segment bases, control. */
#ifndef VM_GDB_REGS_H
#define VM_GDB_REGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/x86.h"

/* All register groups of one vCPU, so that a packet reads and writes each group once. */
struct gdb_cpu_state {
	struct x86_regs regs;
	struct x86_sregs sregs;
	struct x86_xstate xstate;
};

unsigned gdb_reg_count(void);
/* In bytes, at most 16. @n is below gdb_reg_count(). */
unsigned gdb_reg_size(unsigned n);
void gdb_reg_get(const struct gdb_cpu_state *s, unsigned n, uint8_t *out);
void gdb_reg_set(struct gdb_cpu_state *s, unsigned n, const uint8_t *in);

/*
 * False: no processor gets from the control registers @was to @now. Else what is the processor's own in @now is as it
 * would be (gdb_control.c).
 */
bool gdb_control_settle(const struct x86_sregs *was, struct x86_sregs *now);

/* The XSAVE area may leave parts in their initial state unwritten: fills them in. Before get and set. */
void gdb_xstate_normalize(struct x86_xstate *x);

/* Writes the target description (XML) and returns its length; @size 0 to ask for it. */
size_t gdb_target_xml(char *buf, size_t size);

#endif
