// SPDX-License-Identifier: Apache-2.0
/*
 * The gdb remote stub: the connection, and what packets there are; see gdb.h. gdb_packet.c has their form, gdb_data.c,
 * gdb_run.c and gdb_query.c do what they ask for. The protocol is in gdb's manual, appendix "Remote Serial Protocol".
 *
 * Theory of operation. A connection stops the VM; from then on the debugger has it until it says continue.
 * While the VM runs only an interrupt byte (Ctrl-C) is listened to. A stop by a breakpoint, a step or an
 * interrupt is reported once, when all vCPUs stand still. A VM that is held does not start before its first
 * debugger says so, or leaves.
 *
 * A debugger may read and change everything in the guest, and nothing else: lengths, numbers and addresses
 * are checked, a packet that is not understood gets the empty reply, a malformed one an error.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/gdb_private.h"

static void detach(struct gdb *g);

static void handle(struct gdb *g)
{
	const char *p = g->link.text, *rest = p + 1;
	int cpu;

	switch (*p) {
	case '?':
		gdb_stop_reply(g);
		break;
	case 'g':
		gdb_read_registers(g);
		break;
	case 'G':
		gdb_write_registers(g, rest);
		break;
	case 'p':
	case 'P':
		gdb_one_register(g, rest, *p == 'P');
		break;
	case 'm':
		gdb_read_memory(g, rest);
		break;
	case 'M':
	case 'X':
		gdb_write_memory(g, rest, *p == 'X');
		break;
	case 'H':
		gdb_select_thread(g, rest);
		break;
	case 'T':
		gdb_reply(g, gdb_get_thread(g, &rest, &cpu) && cpu >= 0 ? "OK" : "E01");
		break;
	case 'Z':
	case 'z':
		gdb_breakpoint(g, rest, *p == 'Z');
		break;
	case 'c':
	case 'C':
	case 's':
	case 'S':
		gdb_resume_one(g, *p == 's' || *p == 'S');
		break;
	case 'D':
		gdb_reply(g, "OK");
		detach(g);
		break;
	case 'k':
		g->target.kill(g->target.opaque);
		break;
	case 'q':
		gdb_query(g, p);
		break;
	case 'Q':
		gdb_reply(g, strcmp(p, "QStartNoAckMode") ? "" : "OK");
		if (!strcmp(p, "QStartNoAckMode"))
			g->link.no_ack = true;
		break;
	case 'v':
		if (!strcmp(p, "vCont?")) {
			gdb_reply(g, "vCont;c;C;s;S");
		} else if (gdb_starts(p, "vCont", &rest)) {
			gdb_vcont(g, rest);
		} else if (gdb_starts(p, "vKill", &rest)) {
			gdb_reply(g, "OK");
			g->target.kill(g->target.opaque);
		} else {
			gdb_reply(g, "");
		}
		break;
	default:
		gdb_reply(g, "");
		break;
	}
}

/* ---- What the link tells ------------------------------------------------------------------------ */

static void on_packet(void *opaque)
{
	struct gdb *g = opaque;

	/* While the VM runs there is nothing to ask: a debugger that does is out of step. */
	if (g->state == GDB_STOPPED)
		handle(g);
}

static void on_interrupt(void *opaque)
{
	gdb_stop(opaque, 2);
}

void gdb_input(struct gdb *g, const uint8_t *data, size_t len)
{
	gdb_link_input(&g->link, data, len);
}

/* ---- Attaching and detaching -------------------------------------------------------------------- */

static void attach(struct gdb *g)
{
	g->attached = true;
	g->wants_break_reason = g->holding = false;
	gdb_link_start(&g->link);
	g->report = false;
	g->cpu = g->stop_cpu = 0;
	g->signal = 5;
	*g->stop_reason = 0;
	g->point_count = 0;
	g->stepping = 0;
	g->state = GDB_STOPPING;
	g->target.stop(g->target.opaque);
}

/* The guest goes on as if there had been no debugger. */
static void detach(struct gdb *g)
{
	bool stopped = g->state == GDB_STOPPED;

	if (!g->attached)
		return;
	g->attached = g->link.live = false;
	g->point_count = 0;
	g->stepping = 0;
	if (stopped) {
		gdb_apply_debug(g);
		g->target.go_on(g->target.opaque);
	} else {
		/* Its breakpoints go when the vCPUs have stopped. */
		g->state = GDB_STOPPING;
		g->target.stop(g->target.opaque);
	}
}

void gdb_stopped(struct gdb *g)
{
	if (g->holding)
		return;
	if (!g->attached) {
		gdb_apply_debug(g);
		g->state = GDB_STOPPED;
		g->target.go_on(g->target.opaque);
		return;
	}
	if (g->state != GDB_STOPPING)
		return;
	g->state = GDB_STOPPED;
	g->cpu = g->stop_cpu;
	if (g->report)
		gdb_stop_reply(g);
	g->report = false;
	gdb_link_listen(&g->link);
}

void gdb_hit(struct gdb *g, unsigned cpu, const struct vcpu_exit *exit)
{
	if (!g->attached || g->state != GDB_RUNNING)
		return;
	g->stop_cpu = cpu;
	*g->stop_reason = 0;
	for (unsigned i = 0; i < g->point_count; i++) {
		const struct gdb_point *b = &g->points[i];
		const char *what = b->type == '2' ? "watch" : b->type == '3' ? "rwatch" : "awatch";

		if (exit->debug_watch && b->type >= '2' && exit->debug_address - b->gva < b->length)
			snprintf(g->stop_reason, sizeof(g->stop_reason), "%s:%" PRIx64 ";", what, exit->debug_address);
		else if (!exit->debug_watch && b->type <= '1' && b->gva == exit->debug_address && g->wants_break_reason)
			snprintf(g->stop_reason, sizeof(g->stop_reason), "%s:;", b->type == '0' ? "swbreak" : "hwbreak");
	}
	gdb_stop(g, 5);
}

bool gdb_attached(const struct gdb *g)
{
	return g && g->attached;
}

static void on_closed(void *opaque)
{
	detach(opaque);
}

static void listen_ready(void *opaque, uint32_t events)
{
	struct gdb *g = opaque;
	int fd = accept4(g->listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct error *err;

	if (fd < 0)
		return;
	if (gdb_link_connected(&g->link)) {
		log_guest("gdb: a second debugger is turned away");
		close(fd);
		return;
	}
	/* Nothing is read before the VM has stopped: gdb_stopped() starts listening. */
	err = gdb_link_connect(&g->link, g->loop, fd);
	if (err) {
		log_guest("gdb: %s", error_message(err));
		error_free(err);
		return;
	}
	attach(g);
}

static struct gdb *create(const struct gdb_target *target)
{
	struct gdb *g = calloc(1, sizeof(*g));

	assert(target->cpu_count >= 1 && target->cpu_count <= GDB_CPUS_MAX);
	if (!g)
		return NULL;
	g->target = *target;
	g->listen.fd = -1;
	g->state = GDB_RUNNING;
	g->link.packet = on_packet;
	g->link.interrupt = on_interrupt;
	g->link.closed = on_closed;
	g->link.opaque = g;
	if (!gdb_link_init(&g->link)) {
		free(g);
		return NULL;
	}
	return g;
}

struct error *gdb_create(struct loop *loop, int listen_fd, bool hold, const struct gdb_target *target,
			 struct gdb **out)
{
	struct gdb *g = create(target);
	struct error *err;

	if (!g)
		return error_errno(ENOMEM, "gdb stub");
	g->loop = loop;
	g->holding = hold;
	fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK);
	err = loop_fd_add(loop, &g->listen, listen_fd, EPOLLIN, listen_ready, g);
	if (err) {
		gdb_link_finish(&g->link);
		free(g);
		return err;
	}
	*out = g;
	return NULL;
}

struct gdb *gdb_create_detached(const struct gdb_target *target,
				void (*output)(void *opaque, const void *data, size_t len), void *opaque)
{
	struct gdb *g = create(target);

	assert(g);
	g->link.output = output;
	g->link.output_opaque = opaque;
	attach(g);
	return g;
}

void gdb_destroy(struct gdb *g)
{
	if (!g)
		return;
	if (gdb_link_connected(&g->link) && g->state != GDB_STOPPED)
		gdb_reply(g, "W00");
	gdb_link_finish(&g->link);
	if (g->listen.fd >= 0) {
		loop_fd_remove(&g->listen);
		close(g->listen.fd);
	}
	free(g);
}
