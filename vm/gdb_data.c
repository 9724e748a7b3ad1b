// SPDX-License-Identifier: Apache-2.0
/* What a debugger reads and writes: guest memory and registers. */
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "mem/memory.h"
#include "vm/gdb_private.h"

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

void gdb_read_memory(struct gdb *g, const char *p)
{
	uint8_t data[GDB_PACKET_MAX / 2];
	char text[GDB_PACKET_MAX];
	uint64_t gva, len;
	size_t got;

	if (!gdb_get_number(&p, &gva) || !gdb_get_char(&p, ',') || !gdb_get_number(&p, &len)) {
		gdb_reply(g, "E01");
		return;
	}
	got = reach(g, gva, data, MIN(len, sizeof(data)), false);
	if (!got && len)
		gdb_reply(g, "E14");
	else
		gdb_link_reply_bytes(&g->link, text, gdb_put_hex(text, data, got) - text);
}

/* M (hexadecimal) and X (binary, already unescaped in the packet). */
void gdb_write_memory(struct gdb *g, const char *p, bool binary)
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
		gdb_reply(g, "E01");
	else
		gdb_reply(g, reach(g, gva, data, len, true) == len ? "OK" : "E14");
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

/* With the reply: what no processor can be set to is not. */
static void store_cpu(struct gdb *g)
{
	const struct gdb_target *t = &g->target;
	struct x86_sregs was;

	t->get_sregs(t->opaque, g->cpu, &was);
	if (!gdb_control_settle(&was, &g->cpu_state.sregs)) {
		log_guest("gdb: the control registers cannot be set to what the debugger asks for");
		gdb_reply(g, "E22");
		return;
	}
	t->set_sregs(t->opaque, g->cpu, &g->cpu_state.sregs);
	t->set_xstate(t->opaque, g->cpu, &g->cpu_state.xstate);
	t->set_regs(t->opaque, g->cpu, &g->cpu_state.regs);
	gdb_reply(g, "OK");
}

void gdb_read_registers(struct gdb *g)
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

void gdb_write_registers(struct gdb *g, const char *p)
{
	uint8_t value[16];

	load_cpu(g);
	for (unsigned i = 0; i < gdb_reg_count(); i++) {
		if (!gdb_get_bytes(&p, value, gdb_reg_size(i))) {
			gdb_reply(g, "E01");
			return;
		}
		gdb_reg_set(&g->cpu_state, i, value);
	}
	store_cpu(g);
}

void gdb_one_register(struct gdb *g, const char *p, bool write)
{
	uint8_t value[16];
	char text[40];
	uint64_t n;

	if (!gdb_get_number(&p, &n) || n >= gdb_reg_count()) {
		gdb_reply(g, "E01");
		return;
	}
	load_cpu(g);
	if (!write) {
		gdb_reg_get(&g->cpu_state, n, value);
		gdb_link_reply_bytes(&g->link, text, gdb_put_hex(text, value, gdb_reg_size(n)) - text);
	} else if (gdb_get_char(&p, '=') && gdb_get_bytes(&p, value, gdb_reg_size(n)) && !*p) {
		gdb_reg_set(&g->cpu_state, n, value);
		store_cpu(g);
	} else {
		gdb_reply(g, "E01");
	}
}
