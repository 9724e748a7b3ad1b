/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single-stepping and breakpoints: the guest's own (TF, DR0–DR7; SDM vol. 3, chapter 17) and those of the
 * debugger outside. While any is in force, blocks have one instruction (MODE_STEP) and all memory accesses go
 * through C, which tells this file. Except: with nothing but the debugger's instruction breakpoints, blocks
 * stay whole and only end in C each time (MODE_PRIVATE_BREAK); a block with a breakpoint inside is run one
 * instruction at a time.
 */
#include "cpu/bt/run.h"

#define DR6_BS (1u << 14)
#define DR6_BT (1u << 15)
enum { DR7_EXEC = 0, DR7_WRITE = 1, DR7_IO = 2, DR7_ACCESS = 3 };

static bool dr_enabled(const struct bt_vcpu *v, unsigned n)
{
	return v->dr[7] >> (2 * n) & 3;
}

static unsigned dr_kind(const struct bt_vcpu *v, unsigned n)
{
	return v->dr[7] >> (16 + 4 * n) & 3;
}

static unsigned dr_length(const struct bt_vcpu *v, unsigned n)
{
	static const uint8_t len[] = {1, 2, 8, 4};

	return len[v->dr[7] >> (18 + 4 * n) & 3];
}

static bool overlaps(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

void debug_data_access(struct bt_vcpu *v, uint64_t lin, unsigned len, bool write)
{
	struct bt_private *p = v->priv;

	for (unsigned n = 0; n < 4; n++) {
		unsigned kind = dr_kind(v, n), size = dr_length(v, n);

		if (dr_enabled(v, n) && (kind == DR7_ACCESS || (kind == DR7_WRITE && write)) &&
		    overlaps(v->dr[n] & ~(uint64_t)(size - 1), size, lin, len))
			p->step_dr6 |= 1u << n;
	}
	for (unsigned n = 0; n < p->debug.count; n++) {
		unsigned kind = p->debug.point[n].kind;

		if (kind == VCPU_BREAK_EXEC || (kind == VCPU_WATCH_WRITE && !write) ||
		    (kind == VCPU_WATCH_READ && write))
			continue;
		if (overlaps(p->debug.point[n].gva, p->debug.point[n].length, lin, len)) {
			p->debug_hit = true;
			p->debug_is_watch = true;
			p->debug_address = p->debug.point[n].gva;
		}
	}
}

void debug_port_access(struct bt_vcpu *v, uint16_t port, unsigned size)
{
	for (unsigned n = 0; n < 4; n++) {
		unsigned len = dr_length(v, n);

		if (dr_enabled(v, n) && dr_kind(v, n) == DR7_IO && (v->cr4 & X86_CR4_DE) &&
		    overlaps(v->dr[n] & ~(uint64_t)(len - 1), len, port, size))
			v->priv->step_dr6 |= 1u << n;
	}
}

enum debug_result debug_before(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;
	uint64_t lin = v->cs_base + v->rip, dr6 = 0;

	if (p->debug_resume) { /* going on from a stop at this very instruction */
		p->debug_resume = false;
	} else {
		for (unsigned n = 0; n < p->debug.count; n++)
			if (p->debug.point[n].kind == VCPU_BREAK_EXEC && p->debug.point[n].gva == lin) {
				p->debug_hit = true;
				p->debug_is_watch = false;
				p->debug_address = lin;
				return DEBUG_STOP;
			}
	}
	if (v->sysflags & X86_RF) {
		v->sysflags &= ~X86_RF;
		return DEBUG_GO;
	}
	for (unsigned n = 0; n < 4; n++)
		if (dr_enabled(v, n) && dr_kind(v, n) == DR7_EXEC && v->dr[n] == lin)
			dr6 |= 1u << n;
	if (!dr6)
		return DEBUG_GO;
	v->exception = (struct bt_exception){.vector = X86_DB, .dr6 = dr6};
	return DEBUG_FAULT;
}

bool debug_breaks_within(const struct bt_vcpu *v, uint64_t lin, unsigned len)
{
	const struct vcpu_debug *d = &v->priv->debug;

	for (unsigned n = 0; n < d->count; n++)
		if (d->point[n].kind == VCPU_BREAK_EXEC && d->point[n].gva > lin &&
		    d->point[n].gva < lin + len)
			return true;
	return false;
}

enum debug_result debug_after(struct bt_vcpu *v, uint32_t sysflags_before)
{
	struct bt_private *p = v->priv;
	uint64_t dr6 = p->step_dr6;
	bool trap = dr6;

	p->step_dr6 = 0;
	if (sysflags_before & X86_TF) {
		dr6 |= DR6_BS;
		trap = true;
	}
	if (v->trap_pending & TRAP_TASK)
		dr6 |= DR6_BT;
	trap |= v->trap_pending != 0;
	v->trap_pending = 0;
	if (v->debugger_steps && !p->debug_hit && p->debug.single_step) {
		p->debug_hit = true;
		p->debug_is_watch = false;
		p->debug_address = v->cs_base + v->rip;
	}
	if (trap)
		v->exception = (struct bt_exception){.vector = X86_DB, .is_trap = true, .dr6 = dr6};
	/* The guest's own trap is delivered first; the debugger then sees its handler's first instruction. */
	if (trap)
		return DEBUG_FAULT;
	return p->debug_hit ? DEBUG_STOP : DEBUG_GO;
}
