// SPDX-License-Identifier: Apache-2.0
/*
 * The gdb remote stub: what packets ask for; see gdb.h. gdb_packet.c has their form. The protocol is in gdb's manual,
 * appendix "Remote Serial Protocol".
 *
 * Theory of operation. A connection stops the VM; from then on the debugger has it until it says continue.
 * While the VM runs only an interrupt byte (Ctrl-C) is listened to. A stop by a breakpoint, a step or an
 * interrupt is reported once, when all vCPUs stand still. A VM that is held does not start before its first
 * debugger says so, or leaves. Breakpoints of both kinds are the engine's: guest
 * memory is never changed. All vCPUs run when one does; a step is of one vCPU while the others run.
 *
 * A debugger may read and change everything in the guest, and nothing else: lengths, numbers and addresses
 * are checked, a packet that is not understood gets the empty reply, a malformed one an error.
 */
#include "vm/gdb.h"

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
#include "base/util.h"
#include "mem/memory.h"
#include "vm/gdb_packet.h"
#include "vm/gdb_regs.h"

enum state {
	STATE_STOPPING, /* the VM was asked to stop; gdb_stopped() comes */
	STATE_STOPPED,	/* the debugger has the VM */
	STATE_RUNNING,
};

struct breakpoint {
	char type; /* '0' … '4' as in packet Z */
	uint64_t gva;
	uint8_t length;
};

struct gdb {
	struct loop *loop;
	struct gdb_target target;
	struct loop_fd listen; /* fd -1: none */
	struct gdb_link link;

	enum state state;
	bool attached, wants_break_reason;
	bool holding;		 /* the VM has not started: it waits for its first debugger */
	bool report;		 /* a stop reply is due when stopped */
	unsigned cpu;		 /* for g, m, … (Hg) */
	unsigned stop_cpu;
	char stop_reason[48];
	unsigned signal;
	uint64_t stepping; /* vCPUs to be single-stepped */

	unsigned point_count;
	struct breakpoint points[VCPU_DEBUG_POINTS];

	struct gdb_cpu_state cpu_state; /* scratch */
};

static void detach(struct gdb *g);

static void reply(struct gdb *g, const char *text)
{
	gdb_link_reply(&g->link, text);
}

/* A thread id: -1 all, 0 any, else a vCPU's number plus one. */
static bool get_thread(struct gdb *g, const char **p, int *cpu)
{
	uint64_t id;

	if ((*p)[0] == '-' && (*p)[1] == '1') {
		*p += 2;
		*cpu = -1;
		return true;
	}
	if (!gdb_get_number(p, &id) || id > g->target.cpu_count)
		return false;
	*cpu = id ? (int)id - 1 : (int)g->cpu;
	return true;
}

/* ---- Memory ------------------------------------------------------------------------------------- */

/* By guest-virtual address, page by page. Returns how many bytes could be reached from the start. */
static size_t reach(struct gdb *g, uint64_t gva, uint8_t *buf, size_t len, bool write)
{
	const struct gdb_target *t = &g->target;
	size_t done = 0;

	while (done < len) {
		size_t n = MIN(len - done, MEM_PAGE_SIZE - (gva & (MEM_PAGE_SIZE - 1)));
		uint64_t gpa;

		if (!t->translate(t->opaque, g->cpu, gva, &gpa))
			break;
		if (!(write ? t->write(t->opaque, gpa, buf + done, n) : t->read(t->opaque, gpa, buf + done, n)))
			break;
		done += n;
		gva += n;
	}
	return done;
}

static void read_memory(struct gdb *g, const char *p)
{
	uint8_t data[GDB_PACKET_MAX / 2];
	char text[GDB_PACKET_MAX];
	uint64_t gva, len;
	size_t got;

	if (!gdb_get_number(&p, &gva) || !gdb_get_char(&p, ',') || !gdb_get_number(&p, &len)) {
		reply(g, "E01");
		return;
	}
	got = reach(g, gva, data, MIN(len, sizeof(data)), false);
	if (!got && len)
		reply(g, "E14");
	else
		gdb_link_reply_bytes(&g->link, text, gdb_put_hex(text, data, got) - text);
}

/* M (hexadecimal) and X (binary, already unescaped in the packet). */
static void write_memory(struct gdb *g, const char *p, bool binary)
{
	uint8_t data[GDB_PACKET_MAX];
	uint64_t gva, len;
	bool good = gdb_get_number(&p, &gva) && gdb_get_char(&p, ',') && gdb_get_number(&p, &len) && gdb_get_char(&p, ':') &&
		    len <= sizeof(data);

	if (good && binary) {
		good = len == (size_t)(g->link.text + g->link.used - p);
		if (good)
			memcpy(data, p, len);
	} else if (good) {
		good = gdb_get_bytes(&p, data, len) && !*p;
	}
	if (!good)
		reply(g, "E01");
	else
		reply(g, reach(g, gva, data, len, true) == len ? "OK" : "E14");
}

/* ---- Registers ---------------------------------------------------------------------------------- */

static void load_cpu(struct gdb *g)
{
	const struct gdb_target *t = &g->target;

	t->get_regs(t->opaque, g->cpu, &g->cpu_state.regs);
	t->get_sregs(t->opaque, g->cpu, &g->cpu_state.sregs);
	t->get_xstate(t->opaque, g->cpu, &g->cpu_state.xstate);
	gdb_xstate_normalize(&g->cpu_state.xstate);
}

static void store_cpu(struct gdb *g)
{
	const struct gdb_target *t = &g->target;

	t->set_sregs(t->opaque, g->cpu, &g->cpu_state.sregs);
	t->set_xstate(t->opaque, g->cpu, &g->cpu_state.xstate);
	t->set_regs(t->opaque, g->cpu, &g->cpu_state.regs);
}

static void read_registers(struct gdb *g)
{
	char text[GDB_PACKET_MAX], *to = text;
	uint8_t value[16];

	load_cpu(g);
	for (unsigned i = 0; i < gdb_reg_count(); i++) {
		gdb_reg_get(&g->cpu_state, i, value);
		to = gdb_put_hex(to, value, gdb_reg_size(i));
	}
	gdb_link_reply_bytes(&g->link, text, to - text);
}

static void write_registers(struct gdb *g, const char *p)
{
	uint8_t value[16];

	load_cpu(g);
	for (unsigned i = 0; i < gdb_reg_count(); i++) {
		if (!gdb_get_bytes(&p, value, gdb_reg_size(i))) {
			reply(g, "E01");
			return;
		}
		gdb_reg_set(&g->cpu_state, i, value);
	}
	store_cpu(g);
	reply(g, "OK");
}

static void one_register(struct gdb *g, const char *p, bool write)
{
	uint8_t value[16];
	char text[40];
	uint64_t n;

	if (!gdb_get_number(&p, &n) || n >= gdb_reg_count()) {
		reply(g, "E01");
		return;
	}
	load_cpu(g);
	if (!write) {
		gdb_reg_get(&g->cpu_state, n, value);
		gdb_link_reply_bytes(&g->link, text, gdb_put_hex(text, value, gdb_reg_size(n)) - text);
	} else if (gdb_get_char(&p, '=') && gdb_get_bytes(&p, value, gdb_reg_size(n)) && !*p) {
		gdb_reg_set(&g->cpu_state, n, value);
		store_cpu(g);
		reply(g, "OK");
	} else {
		reply(g, "E01");
	}
}

/* ---- Breakpoints and running -------------------------------------------------------------------- */

static void apply_debug(struct gdb *g)
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
static void breakpoint(struct gdb *g, const char *p, bool insert)
{
	char type = *p;
	uint64_t gva, length;
	unsigned i;

	if (type < '0' || type > '4') {
		reply(g, "");
		return;
	}
	p++;
	if (!gdb_get_char(&p, ',') || !gdb_get_number(&p, &gva) || !gdb_get_char(&p, ',') || !gdb_get_number(&p, &length)) {
		reply(g, "E01");
		return;
	}
	if (type <= '1')
		length = 1;
	if (length != 1 && length != 2 && length != 4 && length != 8) {
		reply(g, "E16");
		return;
	}
	i = find_point(g, type, gva, length);
	if (insert && i == g->point_count) {
		if (i == VCPU_DEBUG_POINTS) {
			reply(g, "E1c");
			return;
		}
		g->points[g->point_count++] = (struct breakpoint){ type, gva, length };
	} else if (!insert && i < g->point_count) {
		g->points[i] = g->points[--g->point_count];
	}
	reply(g, "OK");
}

static void go_on(struct gdb *g)
{
	apply_debug(g);
	g->state = STATE_RUNNING;
	g->report = true;
	g->signal = 5;
	*g->stop_reason = 0;
	g->target.go_on(g->target.opaque);
}

static void stop(struct gdb *g, unsigned signal)
{
	if (g->state != STATE_RUNNING)
		return;
	g->state = STATE_STOPPING;
	g->signal = signal;
	g->target.stop(g->target.opaque);
}

/* c, s and their forms with a signal; an address to go on at is the debugger's job (it writes rip). */
static void resume_one(struct gdb *g, bool step)
{
	g->stepping = step ? 1ull << g->cpu : 0;
	go_on(g);
}

/* vCont;action[:thread]…: for each vCPU the first action that fits counts. */
static void vcont(struct gdb *g, const char *p)
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
		if (gdb_get_char(&p, ':') && !get_thread(g, &p, &cpu))
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
	reply(g, "E01");
}

static void stop_reply(struct gdb *g)
{
	char text[96];

	snprintf(text, sizeof(text), "T%02x%sthread:%x;", g->signal, g->stop_reason, g->stop_cpu + 1);
	reply(g, text);
}

/* ---- Queries ------------------------------------------------------------------------------------ */

static void thread_list(struct gdb *g)
{
	char text[VCPU_DEBUG_POINTS * 4 + 8];
	size_t n = 0;

	for (unsigned i = 0; i < g->target.cpu_count; i++)
		n += snprintf(text + n, sizeof(text) - n, "%c%x", i ? ',' : 'm', i + 1);
	reply(g, text);
}

static void thread_info(struct gdb *g, const char *p)
{
	char plain[64], text[2 * sizeof(plain)];
	int cpu, n;

	if (!get_thread(g, &p, &cpu) || cpu < 0) {
		reply(g, "E01");
		return;
	}
	n = snprintf(plain, sizeof(plain), "vCPU %d (%s)", cpu, g->target.activity(g->target.opaque, cpu));
	gdb_link_reply_bytes(&g->link, text, gdb_put_hex(text, (uint8_t *)plain, MIN(n, (int)sizeof(plain) - 1)) - text);
}

/* qXfer:features:read:target.xml:offset,length */
static void features(struct gdb *g, const char *p)
{
	static const char annex[] = "target.xml:";
	char xml[16384], part[GDB_PACKET_MAX];
	size_t total = gdb_target_xml(xml, sizeof(xml));
	uint64_t offset, length;

	assert(total < sizeof(xml));
	if (strncmp(p, annex, sizeof(annex) - 1)) {
		reply(g, "E00");
		return;
	}
	p += sizeof(annex) - 1;
	if (!gdb_get_number(&p, &offset) || !gdb_get_char(&p, ',') || !gdb_get_number(&p, &length) || offset > total) {
		reply(g, "E01");
		return;
	}
	length = MIN(length, MIN(total - offset, sizeof(part) - 1));
	part[0] = offset + length < total ? 'm' : 'l';
	memcpy(part + 1, xml + offset, length);
	gdb_link_reply_bytes(&g->link, part, length + 1);
}

static bool starts(const char *s, const char *with, const char **rest)
{
	size_t n = strlen(with);

	if (strncmp(s, with, n))
		return false;
	*rest = s + n;
	return true;
}

static void supported(struct gdb *g, const char *p)
{
	char text[160];

	g->wants_break_reason = strstr(p, "swbreak+");
	snprintf(text, sizeof(text),
		 "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+", GDB_PACKET_MAX);
	reply(g, text);
}

static void query(struct gdb *g, const char *p)
{
	const char *rest;
	char text[16];

	if (starts(p, "qSupported", &rest)) {
		supported(g, rest);
	} else if (starts(p, "qXfer:features:read:", &rest)) {
		features(g, rest);
	} else if (!strcmp(p, "qfThreadInfo")) {
		thread_list(g);
	} else if (!strcmp(p, "qsThreadInfo")) {
		reply(g, "l");
	} else if (starts(p, "qThreadExtraInfo,", &rest)) {
		thread_info(g, rest);
	} else if (!strcmp(p, "qC")) {
		snprintf(text, sizeof(text), "QC%x", g->cpu + 1);
		reply(g, text);
	} else if (starts(p, "qAttached", &rest)) {
		reply(g, "1");
	} else {
		reply(g, "");
	}
}

static void select_thread(struct gdb *g, const char *p)
{
	char kind = *p;
	int cpu;

	if (kind != 'g' && kind != 'c') {
		reply(g, "E01");
		return;
	}
	p++;
	if (!get_thread(g, &p, &cpu)) {
		reply(g, "E01");
		return;
	}
	if (cpu >= 0 && (kind == 'g' || *p == 0))
		g->cpu = cpu;
	reply(g, "OK");
}

static void handle(struct gdb *g)
{
	const char *p = g->link.text, *rest = p + 1;
	int cpu;

	switch (*p) {
	case '?':
		stop_reply(g);
		break;
	case 'g':
		read_registers(g);
		break;
	case 'G':
		write_registers(g, rest);
		break;
	case 'p':
	case 'P':
		one_register(g, rest, *p == 'P');
		break;
	case 'm':
		read_memory(g, rest);
		break;
	case 'M':
	case 'X':
		write_memory(g, rest, *p == 'X');
		break;
	case 'H':
		select_thread(g, rest);
		break;
	case 'T':
		reply(g, get_thread(g, &rest, &cpu) && cpu >= 0 ? "OK" : "E01");
		break;
	case 'Z':
	case 'z':
		breakpoint(g, rest, *p == 'Z');
		break;
	case 'c':
	case 'C':
	case 's':
	case 'S':
		resume_one(g, *p == 's' || *p == 'S');
		break;
	case 'D':
		reply(g, "OK");
		detach(g);
		break;
	case 'k':
		g->target.kill(g->target.opaque);
		break;
	case 'q':
		query(g, p);
		break;
	case 'Q':
		reply(g, strcmp(p, "QStartNoAckMode") ? "" : "OK");
		if (!strcmp(p, "QStartNoAckMode"))
			g->link.no_ack = true;
		break;
	case 'v':
		if (!strcmp(p, "vCont?")) {
			reply(g, "vCont;c;C;s;S");
		} else if (starts(p, "vCont", &rest)) {
			vcont(g, rest);
		} else if (starts(p, "vKill", &rest)) {
			reply(g, "OK");
			g->target.kill(g->target.opaque);
		} else {
			reply(g, "");
		}
		break;
	default:
		reply(g, "");
		break;
	}
}

/* ---- What the link tells ------------------------------------------------------------------------ */

static void on_packet(void *opaque)
{
	struct gdb *g = opaque;

	/* While the VM runs there is nothing to ask: a debugger that does is out of step. */
	if (g->state == STATE_STOPPED)
		handle(g);
}

static void on_interrupt(void *opaque)
{
	stop(opaque, 2);
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
	g->state = STATE_STOPPING;
	g->target.stop(g->target.opaque);
}

/* The guest goes on as if there had been no debugger. */
static void detach(struct gdb *g)
{
	bool stopped = g->state == STATE_STOPPED;

	if (!g->attached)
		return;
	g->attached = g->link.live = false;
	g->point_count = 0;
	g->stepping = 0;
	if (stopped) {
		apply_debug(g);
		g->target.go_on(g->target.opaque);
	} else {
		/* Its breakpoints go when the vCPUs have stopped. */
		g->state = STATE_STOPPING;
		g->target.stop(g->target.opaque);
	}
}

void gdb_stopped(struct gdb *g)
{
	if (g->holding)
		return;
	if (!g->attached) {
		apply_debug(g);
		g->state = STATE_STOPPED;
		g->target.go_on(g->target.opaque);
		return;
	}
	if (g->state != STATE_STOPPING)
		return;
	g->state = STATE_STOPPED;
	g->cpu = g->stop_cpu;
	if (g->report)
		stop_reply(g);
	g->report = false;
	gdb_link_listen(&g->link);
}

void gdb_hit(struct gdb *g, unsigned cpu, const struct vcpu_exit *exit)
{
	if (!g->attached || g->state != STATE_RUNNING)
		return;
	g->stop_cpu = cpu;
	*g->stop_reason = 0;
	for (unsigned i = 0; i < g->point_count; i++) {
		const struct breakpoint *b = &g->points[i];
		const char *what = b->type == '2' ? "watch" : b->type == '3' ? "rwatch" : "awatch";

		if (exit->debug_watch && b->type >= '2' && exit->debug_address - b->gva < b->length)
			snprintf(g->stop_reason, sizeof(g->stop_reason), "%s:%" PRIx64 ";", what, exit->debug_address);
		else if (!exit->debug_watch && b->type <= '1' && b->gva == exit->debug_address && g->wants_break_reason)
			snprintf(g->stop_reason, sizeof(g->stop_reason), "%s:;", b->type == '0' ? "swbreak" : "hwbreak");
	}
	stop(g, 5);
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

	assert(target->cpu_count >= 1 && target->cpu_count <= 64);
	if (!g)
		return NULL;
	g->target = *target;
	g->listen.fd = -1;
	g->state = STATE_RUNNING;
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
	if (gdb_link_connected(&g->link) && g->state != STATE_STOPPED)
		reply(g, "W00");
	gdb_link_finish(&g->link);
	if (g->listen.fd >= 0) {
		loop_fd_remove(&g->listen);
		close(g->listen.fd);
	}
	free(g);
}
