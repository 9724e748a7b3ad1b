// SPDX-License-Identifier: Apache-2.0
/*
 * Breakpoints, going on and stopping. Breakpoints of both kinds are the engine's: guest memory is never changed. All vCPUs run when
 * one does; a step is of one vCPU while the others run.
 */
#include <stdio.h>
#include <string.h>

#include "vm/gdb_private.h"

void gdb_apply_debug(struct gdb *g)
{
	struct vcpu_debug d = { .count = g->point_count };

	for (unsigned i = 0; i < g->point_count; i++) {
		d.point[i].gva = g->points[i].gva;
		d.point[i].length = g->points[i].length;
		d.point[i].kind = g->points[i].type == '2' ? VCPU_WATCH_WRITE :
				  g->points[i].type == '3' ? VCPU_WATCH_READ :
				  g->points[i].type == '4' ? VCPU_WATCH_ACCESS :
							     VCPU_BREAK_EXEC;
	}
	for (unsigned cpu = 0; cpu < g->target.cpu_count; cpu++) {
		d.single_step = g->stepping >> cpu & 1;
		g->target.set_debug(g->target.opaque, cpu, &d);
	}
}

static unsigned find_point(struct gdb *g, char type, uint64_t gva, uint64_t length)
{
	unsigned i;

	for (i = 0; i < g->point_count; i++)
		if (g->points[i].type == type && g->points[i].gva == gva && g->points[i].length == length)
			break;
	return i;
}

/* Ztype,address,kind and z. The engine is told when it goes on. */
void gdb_breakpoint(struct gdb *g, const char *p, bool insert)
{
	char type = *p;
	uint64_t gva, length;
	unsigned i;

	if (type < '0' || type > '4') {
		gdb_reply(g, "");
		return;
	}
	p++;
	if (!gdb_get_char(&p, ',') || !gdb_get_number(&p, &gva) || !gdb_get_char(&p, ',') || !gdb_get_number(&p, &length)) {
		gdb_reply(g, "E01");
		return;
	}
	if (type <= '1')
		length = 1;
	if (length != 1 && length != 2 && length != 4 && length != 8) {
		gdb_reply(g, "E16");
		return;
	}
	i = find_point(g, type, gva, length);
	if (insert && i == g->point_count) {
		if (i == VCPU_DEBUG_POINTS) {
			gdb_reply(g, "E1c");
			return;
		}
		g->points[g->point_count++] = (struct gdb_point){ type, gva, length };
	} else if (!insert && i < g->point_count) {
		g->points[i] = g->points[--g->point_count];
	}
	gdb_reply(g, "OK");
}

static void go_on(struct gdb *g)
{
	gdb_apply_debug(g);
	g->state = GDB_RUNNING;
	g->report = true;
	g->signal = 5;
	*g->stop_reason = 0;
	g->target.go_on(g->target.opaque);
}

void gdb_stop(struct gdb *g, unsigned signal)
{
	if (g->state != GDB_RUNNING)
		return;
	g->state = GDB_STOPPING;
	g->signal = signal;
	g->target.stop(g->target.opaque);
}

/* c, s and their forms with a signal; an address to go on at is the debugger's job (it writes rip). */
void gdb_resume_one(struct gdb *g, bool step)
{
	g->stepping = step ? 1ull << g->cpu : 0;
	go_on(g);
}

/* vCont;action[:thread]…: for each vCPU the first action that fits counts. */
void gdb_vcont(struct gdb *g, const char *p)
{
	uint64_t decided = 0, stepping = 0, all = ~0ull >> (64 - g->target.cpu_count);
	bool any = false;

	while (gdb_get_char(&p, ';')) {
		char action = *p;
		int cpu = -1;
		uint64_t which, signal;

		if (!action || !strchr("cCsS", action))
			goto bad;
		p++;
		if ((action == 'C' || action == 'S') && !gdb_get_number(&p, &signal))
			goto bad;
		if (gdb_get_char(&p, ':') && !gdb_get_thread(g, &p, &cpu))
			goto bad;
		which = (cpu < 0 ? all : 1ull << cpu) & ~decided;
		decided |= which;
		if (action == 's' || action == 'S')
			stepping |= which;
		any = true;
	}
	if (!any || *p)
		goto bad;
	g->stepping = stepping;
	go_on(g);
	return;
bad:
	gdb_reply(g, "E01");
}

void gdb_stop_reply(struct gdb *g)
{
	char text[96];

	snprintf(text, sizeof(text), "T%02x%sthread:%x;", g->signal, g->stop_reason, g->stop_cpu + 1);
	gdb_reply(g, text);
}
