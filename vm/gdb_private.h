/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gdb stub's inside: gdb.c (the connection, and what packets there are), gdb_data.c (memory and registers), gdb_run.c
 * (breakpoints, going on and stopping), gdb_query.c.
 */
#ifndef VM_GDB_PRIVATE_H
#define VM_GDB_PRIVATE_H

#include <string.h>

#include "vm/gdb.h"
#include "vm/gdb_packet.h"
#include "vm/gdb_regs.h"

#define GDB_CPUS_MAX 64u /* bits of a word */

enum gdb_state {
	GDB_STOPPING, /* the VM was asked to stop; gdb_stopped() comes */
	GDB_STOPPED,  /* the debugger has the VM */
	GDB_RUNNING,
};

struct gdb_point {
	char type; /* '0' … '4' as in packet Z */
	uint64_t gva;
	uint8_t length;
};

struct gdb {
	struct loop *loop;
	struct gdb_target target;
	struct loop_fd listen; /* fd -1: none */
	struct gdb_link link;

	enum gdb_state state;
	bool attached, wants_break_reason;
	bool holding;		 /* the VM has not started: it waits for its first debugger */
	bool report;		 /* a stop reply is due when stopped */
	unsigned cpu;		 /* for g, m, … (Hg) */
	unsigned stop_cpu;
	char stop_reason[48];
	unsigned signal;
	uint64_t stepping; /* vCPUs to be single-stepped */

	unsigned point_count;
	struct gdb_point points[VCPU_DEBUG_POINTS];

	struct gdb_cpu_state cpu_state; /* scratch */
};

static inline void gdb_reply(struct gdb *g, const char *text)
{
	gdb_link_reply(&g->link, text);
}

/* The rest of @s, if it starts @with that. */
static inline bool gdb_starts(const char *s, const char *with, const char **rest)
{
	size_t n = strlen(with);

	if (strncmp(s, with, n))
		return false;
	*rest = s + n;
	return true;
}

/* A thread id: -1 all, 0 any, else a vCPU's number plus one. Moves *@p behind it. */
bool gdb_get_thread(struct gdb *g, const char **p, int *cpu);

/* What packets ask for; @p: the rest of the packet. */
void gdb_read_memory(struct gdb *g, const char *p);
void gdb_write_memory(struct gdb *g, const char *p, bool binary);
void gdb_read_registers(struct gdb *g);
void gdb_write_registers(struct gdb *g, const char *p);
void gdb_one_register(struct gdb *g, const char *p, bool write);
void gdb_breakpoint(struct gdb *g, const char *p, bool insert);
void gdb_resume_one(struct gdb *g, bool step);
void gdb_vcont(struct gdb *g, const char *p);
void gdb_stop_reply(struct gdb *g);
void gdb_query(struct gdb *g, const char *p);
void gdb_select_thread(struct gdb *g, const char *p);

/* The engine is told of breakpoints and steps. */
void gdb_apply_debug(struct gdb *g);
/* If the guest runs. */
void gdb_stop(struct gdb *g, unsigned signal);

#endif
