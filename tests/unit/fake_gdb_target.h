/* SPDX-License-Identifier: Apache-2.0 */
/* A machine of two vCPUs and 64 KiB of memory behind the gdb stub; pages from 0x8000 on are not mapped. */
#ifndef TESTS_UNIT_FAKE_GDB_TARGET_H
#define TESTS_UNIT_FAKE_GDB_TARGET_H

#include <string.h>

#include "vm/gdb.h"

#define FAKE_RAM 65536u

struct fake_target {
	struct x86_regs regs[2];
	struct x86_sregs sregs[2];
	struct x86_xstate xstate[2];
	struct vcpu_debug debug[2];
	uint8_t ram[FAKE_RAM];
	unsigned stops, go_ons, kills;
	bool stopped, stop_wanted;
};

static inline void fake_get_regs(void *o, unsigned cpu, struct x86_regs *r)
{
	*r = ((struct fake_target *)o)->regs[cpu];
}
static inline void fake_set_regs(void *o, unsigned cpu, const struct x86_regs *r)
{
	((struct fake_target *)o)->regs[cpu] = *r;
}
static inline void fake_get_sregs(void *o, unsigned cpu, struct x86_sregs *s)
{
	*s = ((struct fake_target *)o)->sregs[cpu];
}
static inline void fake_set_sregs(void *o, unsigned cpu, const struct x86_sregs *s)
{
	((struct fake_target *)o)->sregs[cpu] = *s;
}
static inline void fake_get_xstate(void *o, unsigned cpu, struct x86_xstate *x)
{
	*x = ((struct fake_target *)o)->xstate[cpu];
}
static inline void fake_set_xstate(void *o, unsigned cpu, const struct x86_xstate *x)
{
	((struct fake_target *)o)->xstate[cpu] = *x;
}
static inline bool fake_translate(void *o, unsigned cpu, uint64_t gva, uint64_t *gpa)
{
	*gpa = gva;
	return gva < 0x8000;
}
static inline bool fake_read(void *o, uint64_t gpa, void *buf, size_t len)
{
	if (gpa > FAKE_RAM || len > FAKE_RAM - gpa)
		return false;
	memcpy(buf, ((struct fake_target *)o)->ram + gpa, len);
	return true;
}
static inline bool fake_write(void *o, uint64_t gpa, const void *buf, size_t len)
{
	if (gpa > FAKE_RAM || len > FAKE_RAM - gpa)
		return false;
	memcpy(((struct fake_target *)o)->ram + gpa, buf, len);
	return true;
}
static inline void fake_set_debug(void *o, unsigned cpu, const struct vcpu_debug *d)
{
	((struct fake_target *)o)->debug[cpu] = *d;
}
static inline const char *fake_activity(void *o, unsigned cpu)
{
	return cpu ? "halted" : "running";
}
static inline void fake_stop(void *o)
{
	struct fake_target *t = o;

	t->stops++;
	t->stop_wanted = true;
}
static inline void fake_go_on(void *o)
{
	struct fake_target *t = o;

	t->go_ons++;
	t->stopped = false;
}
static inline void fake_kill(void *o)
{
	((struct fake_target *)o)->kills++;
}

static inline struct gdb_target fake_gdb_target(struct fake_target *t)
{
	return (struct gdb_target){
		.opaque = t,
		.cpu_count = 2,
		.get_regs = fake_get_regs,
		.set_regs = fake_set_regs,
		.get_sregs = fake_get_sregs,
		.set_sregs = fake_set_sregs,
		.get_xstate = fake_get_xstate,
		.set_xstate = fake_set_xstate,
		.translate = fake_translate,
		.read = fake_read,
		.write = fake_write,
		.set_debug = fake_set_debug,
		.activity = fake_activity,
		.stop = fake_stop,
		.go_on = fake_go_on,
		.kill = fake_kill,
	};
}

/* What the VM does when it has been asked to stop. */
static inline void fake_settle(struct fake_target *t, struct gdb *g)
{
	if (t->stop_wanted) {
		t->stop_wanted = false;
		t->stopped = true;
		gdb_stopped(g);
	}
}

#endif
