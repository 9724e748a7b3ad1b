/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop: events, the next block, into it, and why it came back.
 *
 * Translated code leaves at the next polling point (the entry of a loop, a jump-cache hit) once v->poll is set.
 * Whoever wants something of a vCPU sets its request bit first and poll after it; the loop clears poll and
 * then looks at everything. Order of events at an instruction boundary: SDM vol. 3, table 6-2.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/bt/run.h"

/* Blocks of these modes are not in the jump caches. */
#define MODES_WITHOUT_CACHE \
	(MODE_PRIVATE_NO_JC | MODE_PRIVATE_BOUNCE | MODE_PRIVATE_BREAK | MODE_STEP)

static uint64_t code_address(const struct bt_vcpu *v, uint64_t rip)
{
	return bt_code64(v) ? rip : (uint32_t)rip;
}

static void set_rip_linear(struct bt_vcpu *v, uint64_t lin)
{
	v->rip = code_address(v, lin - v->cs_base);
}

/* ---- modes of blocks ---- */

static uint32_t block_mode(const struct bt_vcpu *v, bool bounce)
{
	uint32_t mode = v->mode;

	if (!(mode & MODE_USER) && (mode & MODE_SMAP_OPEN) && (v->cr4 & X86_CR4_SMAP))
		mode |= MODE_PRIVATE_NO_JC;
	if ((mode & MODE_CODE_MASK) == MODE_CODE64 &&
	    (!bt_canonical(v->rip + EDGE_BYTES) || !bt_canonical(v->rip - EDGE_BYTES)))
		mode |= MODE_PRIVATE_EDGE | MODE_PRIVATE_NO_JC;
	if (v->priv->breakpoints)
		mode |= MODE_PRIVATE_BREAK | MODE_PRIVATE_NO_JC;
	if (bounce || v->interrupt_shadow || (v->engine->debug_opts & BT_OPT_BOUNCE))
		mode |= MODE_PRIVATE_BOUNCE;
	return mode;
}

/* The jump cache in use holds code of one mode only. */
static void check_jump_cache(struct bt_vcpu *v, uint32_t mode)
{
	struct jump_cache *jc;

	if (mode & MODES_WITHOUT_CACHE)
		return;
	jc = mode & MODE_USER ? &v->priv->slot->jc : bt_kernel_jc(v);
	if (jc->mode != mode) {
		jc_clear(v, jc);
		jc->mode = mode;
	}
}


/* ---- called from translated code ---- */

static enum bt_result raise_invalid(struct bt_vcpu *v, const struct insn *i)
{
	if (i->op == OP_RAISE_NM)
		return bt_raise(v, X86_NM);
	if (i->op == OP_RAISE_GP)
		return bt_raise_error(v, X86_GP, 0);
	bt_heavy_begin(v);
	bt_log_guest(v, "invalid instruction at %#llx (CPL %u): #UD", (unsigned long long)v->rip, v->cpl);
	bt_heavy_end(v);
	return bt_raise(v, X86_UD);
}

static bool event_pending(const struct bt_vcpu *v)
{
	return atomic_load_explicit(&v->poll, memory_order_relaxed) ||
	       (v->chip.has_interrupt && v->chip.has_interrupt(v->chip.opaque));
}

/*
 * IF was set and nothing waits for it: no need to leave the block. Events that come from now on are seen behind the
 * block's next instruction at the earliest, which is what STI's shadow asks for; if there is a next one.
 */
static bool can_go_on(struct bt_vcpu *v, const struct insn *i, uint32_t mode, bool last)
{
	if ((i->op != OP_STI && i->op != OP_POPF) || v->mode != mode || (mode & MODE_STEP) ||
	    (v->interrupt_shadow && last) || event_pending(v))
		return false;
	v->interrupt_shadow = SHADOW_NONE;
	return true;
}

/* After an op that jumped or changed the mode, with nothing pending: on by the jump cache, without the run loop. */
static enum call_op_result jump_or_leave(struct bt_vcpu *v)
{
	uint32_t mode = block_mode(v, false);

	if ((mode & MODES_WITHOUT_CACHE) || !(mode & MODE_FLAT_CODE) || v->halted || v->trap_pending ||
	    v->in_rep || v->priv->in_single || event_pending(v))
		return CALL_OP_LEAVE;
	check_jump_cache(v, mode);
	v->jumped_from = JUMPED_NOWHERE;
	v->exit_target = code_address(v, v->cs_base + v->rip);
	return mode & MODE_USER ? CALL_OP_USER : CALL_OP_KERNEL;
}

uint64_t bt_call_op(struct bt_vcpu *v, const struct insn *i, uint32_t info)
{
	uint32_t mode = v->mode;
	enum bt_result res;
	uint64_t next, dropped = v->priv->stats.smc_invalidations;

	v->priv->stats.calls++;
	v->priv->stats.op_calls[i->op]++;
	set_rip_linear(v, v->vbase + (info & 0x1fff));
	next = code_address(v, v->rip + i->len);
	v->next_rip = next;
	res = i->klass == CLASS_INVALID ? raise_invalid(v, i) : bt_ops[i->op](v, i);
	if (res == BT_FAULT) {
		v->exit_reason = EXIT_FAULT;
		return CALL_OP_LEAVE;
	}
	if (v->next_rip == next && v->mode == mode && !v->halted && dropped == v->priv->stats.smc_invalidations &&
	    ((res == BT_NEXT && !v->interrupt_shadow) || can_go_on(v, i, mode, info & CALL_OP_LAST)))
		return CALL_OP_GO_ON;
	v->rip = v->next_rip;
	v->exit_reason = EXIT_OP;
	return (mode & MODE_STEP) ? CALL_OP_LEAVE : jump_or_leave(v);
}

/* ---- events ---- */

static bool shutdown(struct bt_vcpu *v)
{
	v->priv->triple_fault = true;
	return false;
}

static bool deliver_pending(struct bt_vcpu *v)
{
	struct bt_exception e = v->exception;

	v->priv->stats.exceptions++;
	v->interrupt_shadow = SHADOW_NONE;
	return bt_deliver_exception(v, &e) || shutdown(v);
}

static bool deliver_interrupts(struct bt_vcpu *v)
{
	uint32_t requests = atomic_load(&v->priv->requests);

	if (v->priv->interrupt_taken) {
		v->priv->interrupt_taken = false;
		return bt_deliver_interrupt(v, v->priv->interrupt) || shutdown(v);
	}
	if (v->interrupt_shadow)
		return true;
	if ((requests & REQ_NMI) && !v->nmi_blocked) {
		atomic_fetch_and(&v->priv->requests, ~(uint32_t)REQ_NMI);
		return bt_deliver_interrupt(v, X86_NMI) || shutdown(v);
	}
	if (!(v->sysflags & X86_IF) || !v->chip.has_interrupt || !v->chip.has_interrupt(v->chip.opaque))
		return true;
	int vector = bt_chip_ack(v);

	if (vector < 0)
		return true;
	v->priv->stats.interrupts++;
	return bt_deliver_interrupt(v, (uint8_t)vector) || shutdown(v);
}

/* INIT and SIPI (SDM vol. 3, 8.4 and table 9-1). */
static void serve_init(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;
	uint32_t requests = atomic_load(&p->requests);

	if (requests & REQ_INIT) {
		atomic_fetch_and(&p->requests, ~(uint32_t)(REQ_INIT | REQ_NMI));
		bt_init_cpu(v, false);
		v->wait_sipi = v->index != 0;
	}
	if (requests & REQ_SIPI) {
		atomic_fetch_and(&p->requests, ~(uint32_t)REQ_SIPI);
		if (v->wait_sipi) {
			v->wait_sipi = false;
			v->seg[X86_CS].selector = (uint16_t)(p->sipi_vector << 8);
			v->seg[X86_CS].base = (uint64_t)p->sipi_vector << 12;
			v->rip = 0;
			bt_mode_update(v);
		}
	}
}

static void serve_requests(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;

	if (!atomic_load(&p->requests))
		return;
	run_serve_write_flush(v);
	serve_init(v);
}

static bool wakes(struct bt_vcpu *v)
{
	uint32_t requests = atomic_load(&v->priv->requests);

	if (requests & (REQ_STOP | REQ_INIT | REQ_SIPI))
		return true;
	if (v->wait_sipi)
		return false;
	if (requests & REQ_UNHALT)
		return true;
	if ((requests & REQ_NMI) && !v->nmi_blocked)
		return true;
	return (v->sysflags & X86_IF) && v->chip.has_interrupt &&
	       v->chip.has_interrupt(v->chip.opaque);
}

/* HLT, or an AP that waits for SIPI: no host CPU is used until a kick. Who flushes TLBs meanwhile leaves a note (pv.c). */
static void sleep_halted(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;
	uint64_t since = __builtin_ia32_rdtsc();

	p->stats.halts++;
	if (p->pv.eoi_armed)
		bt_chip_settle(v);
	if (p->pv.preempted) {
		atomic_fetch_or(p->pv.preempted, PV_PREEMPTED);
		dirty_mark(&v->engine->dirty, p->pv.steal_time);
	}
	bt_guest_leave(v);
	for (;;) {
		uint32_t seen = atomic_load(&p->wake);

		if (wakes(v))
			break;
		bt_futex_wait(&p->wake, seen, 0);
	}
	bt_guest_enter(v);
	p->pv.halted_tsc += __builtin_ia32_rdtsc() - since;
	if (p->pv.preempted && (atomic_exchange(p->pv.preempted, 0) & PV_FLUSH_TLB))
		bt_tlb_invpcid(v, 3, 0, 0);
}

/* False: leave the run loop; p->requests or p->triple_fault say why. */
static bool events(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;

	for (;;) {
		if (atomic_exchange(&v->poll, v->engine->debug_opts & BT_OPT_POLL ? 1 : 0) && p->pv.eoi_armed)
			bt_chip_settle(v);
		if (atomic_load(&v->engine->exclusive)) {
			bt_guest_leave(v);
			bt_guest_enter(v);
		}
		serve_requests(v);
		if (atomic_load(&p->requests) & REQ_STOP)
			return false;
		if (!v->wait_sipi && !deliver_interrupts(v))
			return false;
		if (!v->halted && !v->wait_sipi)
			return true;
		sleep_halted(v);
		if (v->halted && wakes(v) && !(atomic_load(&p->requests) & REQ_STOP)) {
			v->halted = false;
			atomic_fetch_and(&p->requests, ~(uint32_t)REQ_UNHALT);
		}
	}
}

/* ---- blocks ---- */

/*
 * The block to run. For a locked instruction whose operand lies on two pages (bt_bounce_in has found out) the other
 * vCPUs stand still until run_block() has run it.
 */
static struct block *get_block(struct bt_vcpu *v, uint32_t mode, bool *global)
{
	struct bt_engine *e = v->engine;
	struct bt_private *p = v->priv;
	struct block *b;

	for (;;) {
		b = cache_get(v, mode, global);
		p->atomic = b && b->atomic && e->vcpu_count > 1 && !p->lock_splits;
		if (!b || !b->atomic || !p->lock_splits)
			return b;
		uint64_t flushes = e->cache_flushes;

		exclusive_begin(v);
		if (flushes == e->cache_flushes && !b->dead) {
			p->lock_splits = false;
			return b;
		}
		exclusive_end(v);
	}
}

static enum exit_reason enter(struct bt_vcpu *v, uint32_t code)
{
	v->priv->stats.exits++;
	v->jumped_from = JUMPED_NOWHERE;
	return stubs_enter(v, v->engine->cache_rx + code);
}

/* Runs one block. *reason as the stubs gave it; false: no block, an exception is pending. */
static bool run_block(struct bt_vcpu *v, bool bounce, enum exit_reason *reason)
{
	uint32_t mode = block_mode(v, bounce);
	bool by_link = *reason == EXIT_LINK || *reason == EXIT_FAR;
	const struct link *link = link_at(v->engine, by_link ? (uint32_t)v->exit_link : 0);
	bool global, missed = *reason == EXIT_LOOKUP;
	uint64_t flushes = v->priv->stats.flushes;

	/* After an event the target is mostly known; a miss comes back as EXIT_LOOKUP. */
	if (*reason == EXIT_FAULT && !(mode & MODES_WITHOUT_CACHE) && (mode & MODE_FLAT_CODE)) {
		check_jump_cache(v, mode);
		v->exit_target = code_address(v, v->cs_base + v->rip);
		*reason = enter(v, mode & MODE_USER ? v->engine->stub.jump_user : v->engine->stub.jump_kernel);
		return true;
	}

	uint64_t lin = code_address(v, v->cs_base + v->rip);
	bool twin = link && link->twin && lin == v->vbase + link->target;
	struct block *b;

	if (*reason == EXIT_FAR && lin != v->exit_target)
		link = NULL; /* an event came first */
	b = get_block(v, mode | (twin ? MODE_PRIVATE_TWIN : 0), &global);

	if (!b)
		return false;

	/* One instruction is as short as it gets; and the world may be stopped for it already. */
	if ((mode & MODE_PRIVATE_BREAK) && !(mode & (MODE_PRIVATE_BOUNCE | MODE_STEP)) &&
	    debug_breaks_within(v, lin, b->guest_len)) {
		b = get_block(v, mode | MODE_PRIVATE_BOUNCE, &global);
		if (!b)
			return false;
	}
	v->vbase = lin & ~0xfffull;
	check_jump_cache(v, mode);
	if (!(b->mode & MODES_WITHOUT_CACHE)) {
		jc_note(v, lin, b, global);
		if (missed)
			jc_insert(v, lin, b, global);
		else if (link && v->exit_link && flushes == v->priv->stats.flushes)
			blocks_link(v, (uint32_t)v->exit_link, b);
	}
	*reason = enter(v, block_mem_entry(b));
	if (atomic_load_explicit(&v->engine->exclusive, memory_order_relaxed) == v->index + 1)
		exclusive_end(v);
	return true;
}

/* A jump to what is not canonical: #GP at the jump (tr_link.c, tr_check_target). */
static enum exit_reason missed_target(struct bt_vcpu *v)
{
	set_rip_linear(v, v->vbase + (v->jumped_from & 0xfff));
	if (v->jumped_from & JUMPED_BY_CALL)
		BT_REG(v, X86_RSP) += 8;
	bt_raise_error(v, X86_GP, 0);
	return EXIT_FAULT;
}

/* Sets v->rip for what has happened in translated code. */
static enum exit_reason finish_exit(struct bt_vcpu *v, enum exit_reason reason)
{
	switch (reason) {
	case EXIT_LINK:
		set_rip_linear(v, v->vbase + link_at(v->engine, (uint32_t)v->exit_link)->target);
		break;
	case EXIT_LOOKUP:
	case EXIT_FAR:
		if (bt_code64(v) && !bt_canonical(v->exit_target) && v->jumped_from != JUMPED_NOWHERE)
			return missed_target(v);
		set_rip_linear(v, v->exit_target);
		break;
	case EXIT_STEPPED:
		set_rip_linear(v, v->exit_target);
		break;
	default: /* v->rip is set */
		break;
	}
	return reason;
}

enum run_result bt_run(struct bt_vcpu *v)
{
	struct bt_private *p = v->priv;
	enum exit_reason reason = EXIT_OP; /* EXIT_FAULT: an event was delivered */
	bool bounce = false;

	bt_guest_enter(v);
	for (;;) {
		bool single;
		uint8_t shadow;
		uint32_t flags_before;

		if (v->trap_pending && debug_after(v, 0) == DEBUG_FAULT && !deliver_pending(v))
			break;
		if (!events(v) || p->debug_hit)
			break;
		if ((v->mode & MODE_STEP) || p->breakpoints) {
			enum debug_result d = debug_before(v);

			if (d == DEBUG_STOP)
				break;
			if (d == DEBUG_FAULT) {
				if (!deliver_pending(v))
					break;
				continue;
			}
		}
		shadow = v->interrupt_shadow;
		single = bounce || shadow || (v->mode & MODE_STEP);
		flags_before = v->sysflags;
		p->step_dr6 = p->held_dr6;
		p->held_dr6 = 0;
		p->in_single = single;
		if (shadow)
			v->interrupt_shadow = SHADOW_NONE;
		if (!run_block(v, bounce || shadow, &reason)) {
			reason = EXIT_FAULT;
			bounce = false;
			if (!deliver_pending(v))
				break;
			continue;
		}
		p->stats.exits_by_reason[reason]++;
		bounce = reason == EXIT_BOUNCE;
		reason = finish_exit(v, reason);
		if (reason == EXIT_BOUNCE) {
			/* Perhaps behind an STI in the same block: no interrupt before this one is done. */
			v->interrupt_shadow = shadow ? shadow : SHADOW_STI;
			continue;
		}
		if (reason == EXIT_FAULT) {
			if (!deliver_pending(v))
				break;
			continue;
		}
		if (single && v->interrupt_shadow == SHADOW_SS) {
			p->held_dr6 = p->step_dr6;
			continue;
		}
		if (v->step_by_new) {
			v->step_by_new = false;
			flags_before = v->sysflags;
			single = true;
		}
		if (single && ((flags_before & X86_TF) || p->step_dr6 || v->trap_pending || p->debug_hit ||
			       v->debugger_steps)) {
			enum debug_result d = debug_after(v, flags_before);

			if (d == DEBUG_STOP)
				break;
			if (d == DEBUG_FAULT && !deliver_pending(v))
				break;
		}
	}
	bt_guest_leave(v);
	if (p->triple_fault)
		return RUN_TRIPLE_FAULT;
	return p->debug_hit ? RUN_DEBUG : RUN_STOPPED;
}

/* ---- time ---- */

uint64_t bt_guest_tsc(const struct bt_vcpu *v)
{
	return __builtin_ia32_rdtsc() + v->tsc_offset;
}

uint64_t bt_tsc_hz(const struct bt_vcpu *v)
{
	return v->engine->tsc_hz;
}
