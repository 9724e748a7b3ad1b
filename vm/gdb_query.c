// SPDX-License-Identifier: Apache-2.0
/* What a debugger asks: the features of this stub, the threads (which are vCPUs), the description of the target. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "vm/gdb_private.h"

bool gdb_get_thread(struct gdb *g, const char **p, int *cpu)
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

static void thread_list(struct gdb *g)
{
	char text[GDB_CPUS_MAX * 3 + 8]; /* two digits and a comma each */
	size_t n = 0;

	for (unsigned i = 0; i < g->target.cpu_count; i++)
		n += snprintf(text + n, sizeof(text) - n, "%c%x", i ? ',' : 'm', i + 1);
	gdb_reply(g, text);
}

static void thread_info(struct gdb *g, const char *p)
{
	char plain[64], text[2 * sizeof(plain)];
	int cpu, n;

	if (!gdb_get_thread(g, &p, &cpu) || cpu < 0) {
		gdb_reply(g, "E01");
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
		gdb_reply(g, "E00");
		return;
	}
	p += sizeof(annex) - 1;
	if (!gdb_get_number(&p, &offset) || !gdb_get_char(&p, ',') || !gdb_get_number(&p, &length) || offset > total) {
		gdb_reply(g, "E01");
		return;
	}
	length = MIN(length, MIN(total - offset, sizeof(part) - 1));
	part[0] = offset + length < total ? 'm' : 'l';
	memcpy(part + 1, xml + offset, length);
	gdb_link_reply_bytes(&g->link, part, length + 1);
}

static void supported(struct gdb *g, const char *p)
{
	char text[160];

	g->wants_break_reason = strstr(p, "swbreak+");
	snprintf(text, sizeof(text),
		 "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+", GDB_PACKET_MAX);
	gdb_reply(g, text);
}

void gdb_query(struct gdb *g, const char *p)
{
	const char *rest;
	char text[16];

	if (gdb_starts(p, "qSupported", &rest)) {
		supported(g, rest);
	} else if (gdb_starts(p, "qXfer:features:read:", &rest)) {
		features(g, rest);
	} else if (!strcmp(p, "qfThreadInfo")) {
		thread_list(g);
	} else if (!strcmp(p, "qsThreadInfo")) {
		gdb_reply(g, "l");
	} else if (gdb_starts(p, "qThreadExtraInfo,", &rest)) {
		thread_info(g, rest);
	} else if (!strcmp(p, "qC")) {
		snprintf(text, sizeof(text), "QC%x", g->cpu + 1);
		gdb_reply(g, text);
	} else if (gdb_starts(p, "qAttached", &rest)) {
		gdb_reply(g, "1");
	} else {
		gdb_reply(g, "");
	}
}

void gdb_select_thread(struct gdb *g, const char *p)
{
	char kind = *p;
	int cpu;

	if (kind != 'g' && kind != 'c') {
		gdb_reply(g, "E01");
		return;
	}
	p++;
	if (!gdb_get_thread(g, &p, &cpu)) {
		gdb_reply(g, "E01");
		return;
	}
	if (cpu >= 0 && (kind == 'g' || *p == 0))
		g->cpu = cpu;
	gdb_reply(g, "OK");
}
