/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What translated code is, for perf and scripts/profile: debug option "perf-map" (doc/engine.md).
 *
 * One line for each block and its cold paths, as perf wants it in /tmp/perf-PID.map: host address, length, name, in hexadecimal. The
 * name says who the guest code is: "kernel", or "user" and its CR3; and its linear address where it was first met.
 * The file is made with the engine, before the sandbox closes, by perfmap_open() (vm.c); here it is only written to.
 */
#include "cpu/bt/private.h"

static char *put_text(char *p, const char *text)
{
	while (*text)
		*p++ = *text++;
	return p;
}

static char *put_hex(char *p, uint64_t value)
{
	unsigned digits = 1;

	while (digits < 16 && value >> (4 * digits))
		digits++;
	while (digits--)
		*p++ = "0123456789abcdef"[value >> (4 * digits) & 15];
	return p;
}

static void put_line(struct bt_vcpu *v, const struct block *b, uint32_t start, uint32_t end)
{
	struct bt_engine *e = v->engine;
	char line[96], *p = line;

	p = put_hex(p, (uint64_t)e->cache_rx + start);
	p = put_text(p, " ");
	p = put_hex(p, end - start);
	if (b->mode & MODE_USER) {
		p = put_text(p, " user cr3=");
		p = put_hex(p, v->cr3 & ~0xfffull);
		p = put_text(p, " ");
	} else {
		p = put_text(p, " kernel ");
	}
	p = put_hex(p, v->cs_base + v->rip);
	p = put_text(p, "\n");
	bt_write(e->perfmap_fd, line, (size_t)(p - line));
}

void perfmap_far_entry(struct bt_vcpu *v, const struct block *b)
{
	if (v->engine->perfmap_fd >= 0)
		put_line(v, b, b->far_entry, v->engine->cache_used);
}

void perfmap_block(struct bt_vcpu *v, const struct block *b)
{
	if (v->engine->perfmap_fd < 0)
		return;
	put_line(v, b, b->jc_entry, block_code_end(b));
	if (b->cold_bytes)
		put_line(v, b, b->cold_start, block_cold_end(b));
}
