/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gdb remote stub on a listening socket: one debugger at a time, the vCPUs as its threads 1…n.
 *
 * It sees the machine through struct gdb_target, so that tests need no engine. Everything runs in the loop's
 * monitor; vCPUs are touched only while the target says that they are stopped.
 */
#ifndef VM_GDB_H
#define VM_GDB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "cpu/engine.h"
#include "cpu/x86.h"

#define GDB_PACKET_MAX 4096u /* between '$' and '#', as the stub tells gdb */

struct gdb_target {
	void *opaque;
	unsigned cpu_count;
	void (*get_regs)(void *opaque, unsigned cpu, struct x86_regs *out);
	void (*set_regs)(void *opaque, unsigned cpu, const struct x86_regs *in);
	void (*get_sregs)(void *opaque, unsigned cpu, struct x86_sregs *out);
	void (*set_sregs)(void *opaque, unsigned cpu, const struct x86_sregs *in);
	void (*get_xstate)(void *opaque, unsigned cpu, struct x86_xstate *out);
	void (*set_xstate)(void *opaque, unsigned cpu, const struct x86_xstate *in);
	bool (*translate)(void *opaque, unsigned cpu, uint64_t gva, uint64_t *gpa);
	/* RAM only; false otherwise. */
	bool (*read)(void *opaque, uint64_t gpa, void *buf, size_t len);
	bool (*write)(void *opaque, uint64_t gpa, const void *buf, size_t len);
	void (*set_debug)(void *opaque, unsigned cpu, const struct vcpu_debug *debug);
	const char *(*activity)(void *opaque, unsigned cpu); /* "running", "halted" … */
	/* Asks all vCPUs to stop: gdb_stopped() follows. */
	void (*stop)(void *opaque);
	void (*go_on)(void *opaque);
	void (*kill)(void *opaque);
};

struct gdb;

/*
 * Takes @listen_fd, a listening stream socket. @target is copied. @hold: the target does not run yet and is not to before
 * a debugger has been there; it calls gdb_stopped() all the same.
 */
struct error *gdb_create(struct loop *loop, int listen_fd, bool hold, const struct gdb_target *target,
			 struct gdb **out) MUST_CHECK;
void gdb_destroy(struct gdb *g); /* NULL-safe; tells a debugger that the VM has ended */

/* A vCPU met a breakpoint, watchpoint or step; the others are being stopped. */
void gdb_hit(struct gdb *g, unsigned cpu, const struct vcpu_exit *exit);

/* All vCPUs have stopped. */
void gdb_stopped(struct gdb *g);

bool gdb_attached(const struct gdb *g); /* NULL-safe */

/* Bytes as from the socket, into a stub without one: for the fuzzer and tests. */
struct gdb *gdb_create_detached(const struct gdb_target *target,
				void (*output)(void *opaque, const void *data, size_t len), void *opaque);
void gdb_input(struct gdb *g, const uint8_t *data, size_t len);

#endif
