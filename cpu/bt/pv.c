/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's paravirtual interfaces on the translator (cpu/pv.h): MSRs, hypercalls, the end of interrupts.
 *
 * End of interrupt. When an edge-triggered interrupt has been delivered and nothing else waits, the local APIC leaves it in
 * service and the guest's bit is set: clearing it ends the interrupt. The local APIC kicks when something new comes while it is so;
 * then, and before anybody looks at the local APIC, bt_pv_settle() takes the bit back and tells how it was.
 *
 * A vCPU in HLT is "preempted": another one that flushes TLBs leaves it a note there instead of waking it (bt_pv_sleep, bt_pv_wake:
 * run.c). A vCPU that the host's scheduler has taken away does not know, so it is not.
 *
 * Heavy: called between bt_heavy_begin() and bt_heavy_end(), in the vCPU's thread.
 */
#include <sched.h>

#include "base/log.h"
#include "cpu/bt/private.h"

#define STEAL_PERIOD_NS (2 * NS_PER_MS)
#define IPI_DEST_FORM 0xc0800u /* of the ICR: shorthand, logical mode; the bitmap says who */

static struct pv_vcpu *pv_of(struct bt_vcpu *v)
{
	return &v->priv->pv;
}

/* ---- Clock and steal time ---- */

void bt_pv_run_begin(struct bt_vcpu *v)
{
	struct bt_engine *e = v->engine;
	struct pv_vcpu *p = pv_of(v);

	if (!e->paravirt)
		return;
	pv_clock_start(&e->clock, e->vm_time_ns(e->vm_time_opaque));
	if (p->clock_generation != e->clock.generation)
		pv_write_system_time(p, &e->clock, e->mem, v->tsc_offset, true);
	p->clock_generation = e->clock.generation;
	pv_steal_begin(p);
}

void bt_pv_run_end(struct bt_vcpu *v)
{
	struct bt_engine *e = v->engine;

	if (!e->paravirt)
		return;
	if (pv_of(v)->eoi_armed) {
		bt_machine_lock(v);
		bt_pv_settle(v);
		bt_machine_unlock(v);
	}
	pv_steal_update(pv_of(v), &e->clock, e->mem);
	pv_clock_stop(&e->clock, e->vm_time_ns(e->vm_time_opaque));
}

void bt_pv_tsc_moved(struct bt_vcpu *v)
{
	if (v->engine->paravirt)
		pv_write_system_time(pv_of(v), &v->engine->clock, v->engine->mem, v->tsc_offset, false);
}

/* ---- End of interrupt ---- */

/* The guest's bit, where it still is RAM. */
static _Atomic uint8_t *eoi_bit(struct bt_vcpu *v)
{
	uint64_t avail;

	return mem_ram_ptr(v->engine->mem, pv_of(v)->eoi & ~3ull, 1, &avail);
}

/* With the machine's lock. */
void bt_pv_settle(struct bt_vcpu *v)
{
	struct pv_vcpu *p = pv_of(v);
	_Atomic uint8_t *bit = eoi_bit(v);

	if (!p->eoi_armed)
		return;
	p->eoi_armed = false;
	v->chip.settle_eoi(v->chip.opaque, bit && !(atomic_fetch_and(bit, (uint8_t)~1u) & 1));
	dirty_mark(&v->engine->dirty, p->eoi);
}

/* An external interrupt was acknowledged; with the machine's lock. */
void bt_pv_interrupt(struct bt_vcpu *v, int vector)
{
	struct bt_engine *e = v->engine;
	struct pv_vcpu *p = pv_of(v);
	uint64_t now;
	_Atomic uint8_t *bit;

	if ((p->eoi & 1) && vector >= 0 && v->chip.defer_eoi && (bit = eoi_bit(v)) &&
	    v->chip.defer_eoi(v->chip.opaque, (uint8_t)vector)) {
		atomic_fetch_or(bit, 1);
		dirty_mark(&e->dirty, p->eoi);
		p->eoi_armed = true;
	}
	if (!(p->steal_time & 1))
		return;
	now = __builtin_ia32_rdtsc();
	if (pv_tsc_to_ns(&e->clock, now - p->updated_tsc) >= STEAL_PERIOD_NS) {
		p->updated_tsc = now;
		pv_steal_update(p, &e->clock, e->mem);
	}
}

/* ---- MSRs ---- */

bool bt_pv_read_msr(struct bt_vcpu *v, uint32_t msr, uint64_t *value)
{
	const struct pv_vcpu *p = pv_of(v);

	if (!v->engine->paravirt)
		return false;
	switch (msr) {
	case PV_MSR_WALL_CLOCK_OLD:
	case PV_MSR_WALL_CLOCK: *value = p->wall_clock; break;
	case PV_MSR_SYSTEM_TIME_OLD:
	case PV_MSR_SYSTEM_TIME: *value = p->system_time; break;
	case PV_MSR_STEAL_TIME: *value = p->steal_time; break;
	case PV_MSR_EOI: *value = p->eoi; break;
	case PV_MSR_POLL_CONTROL: *value = p->poll_control; break;
	default: return false;
	}
	return true;
}

static bool write_steal_time(struct bt_vcpu *v, uint64_t value)
{
	struct bt_engine *e = v->engine;
	struct pv_vcpu *p = pv_of(v);
	uint64_t avail;

	p->preempted = NULL;
	if (value & 1) {
		if (!pv_address_ok(e->mem, value & ~1ull, 64, 64))
			return false;
		p->preempted = mem_ram_ptr(e->mem, (value & ~63ull) + 16, 1, &avail);
		pv_steal_begin(p);
	}
	p->steal_time = value;
	pv_steal_update(p, &e->clock, e->mem);
	return true;
}

static bool write_eoi(struct bt_vcpu *v, uint64_t value)
{
	if (value & 2 || ((value & 1) && !pv_address_ok(v->engine->mem, value & ~1ull, 4, 4)))
		return false;
	bt_machine_lock(v);
	bt_pv_settle(v);
	bt_machine_unlock(v);
	pv_of(v)->eoi = v->chip.settle_eoi ? value : value & ~1ull;
	return true;
}

enum bt_pv_msr bt_pv_write_msr(struct bt_vcpu *v, uint32_t msr, uint64_t value)
{
	struct bt_engine *e = v->engine;
	struct pv_vcpu *p = pv_of(v);
	bool good = true;

	if (!e->paravirt)
		return BT_PV_OTHER;
	switch (msr) {
	case PV_MSR_WALL_CLOCK_OLD:
	case PV_MSR_WALL_CLOCK:
		good = pv_address_ok(e->mem, value, 4, 12);
		if (good) {
			p->wall_clock = value;
			pv_write_wall_clock(&e->clock, e->mem, value);
		}
		break;
	case PV_MSR_SYSTEM_TIME_OLD:
	case PV_MSR_SYSTEM_TIME:
		good = !(value & 1) || pv_address_ok(e->mem, value & ~1ull, 4, 32);
		if (good) {
			p->system_time = value;
			pv_write_system_time(p, &e->clock, e->mem, v->tsc_offset, false);
		}
		break;
	case PV_MSR_STEAL_TIME: good = write_steal_time(v, value); break;
	case PV_MSR_EOI: good = write_eoi(v, value); break;
	case PV_MSR_POLL_CONTROL:
		good = !(value & ~1ull);
		if (good)
			p->poll_control = value;
		break;
	default: return BT_PV_OTHER;
	}
	if (!good)
		log_guest("vCPU %u: paravirtual MSR 0x%x takes no 0x%llx (not in RAM, or not aligned): #GP", v->index, msr,
			  (unsigned long long)value);
	return good ? BT_PV_DONE : BT_PV_BAD;
}

/* ---- Hypercalls ---- */

static int64_t kick_cpu(struct bt_vcpu *v, uint64_t apic_id)
{
	struct bt_engine *e = v->engine;

	if (apic_id < e->vcpu_count)
		bt_request(e->vcpus[apic_id], REQ_UNHALT);
	return 0;
}

static int64_t send_ipis(struct bt_vcpu *v, const uint64_t bitmap[2], unsigned width, uint64_t first, uint64_t icr)
{
	int64_t count = 0;

	if ((icr & IPI_DEST_FORM) || !v->chip.send_ipi)
		return -PV_EINVAL;
	bt_machine_lock(v);
	bt_pv_settle(v);
	for (unsigned n = 0; n < 2 * width; n++)
		if ((bitmap[n / width] >> n % width & 1) && first + n < v->engine->vcpu_count)
			count += v->chip.send_ipi(v->chip.opaque, (uint32_t)first + n, (uint32_t)icr);
	bt_machine_unlock(v);
	return count;
}

static int64_t yield(struct bt_vcpu *v, uint64_t apic_id)
{
	if (apic_id < v->engine->vcpu_count && apic_id != v->index)
		sched_yield();
	return 0;
}

static int64_t hypercall(struct bt_vcpu *v, bool wide)
{
	uint64_t mask = wide ? ~0ull : 0xffffffff, nr = BT_REG(v, X86_RAX) & mask;
	uint64_t a[4] = { BT_REG(v, X86_RBX) & mask, BT_REG(v, X86_RCX) & mask, BT_REG(v, X86_RDX) & mask,
			  BT_REG(v, X86_RSI) & mask };

	if (v->cpl)
		return -PV_EPERM;
	switch (nr) {
	case PV_HC_POLL_IRQ: return 0; /* between blocks it looks anyway */
	case PV_HC_KICK_CPU: return kick_cpu(v, a[1]);
	case PV_HC_CLOCK_PAIRING: return pv_clock_pairing(v->engine->mem, a[0], a[1], v->tsc_offset);
	case PV_HC_SEND_IPI: return send_ipis(v, a, wide ? 64 : 32, a[2], a[3]);
	case PV_HC_YIELD: return yield(v, a[0]);
	default: return -PV_ENOSYS;
	}
}

bool bt_pv_hypercall(struct bt_vcpu *v, bool wide, int64_t *result)
{
	if (!v->engine->paravirt)
		return false;
	*result = hypercall(v, wide);
	return true;
}
