/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the translator's C code cannot do itself because it runs with the guest's vector state in the host's
 * registers: calls into the machine (buses, local APIC), the VM clock, logging. Compiled like any other code;
 * everything here is called, and calls out, inside a heavy section.
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "cpu/bt/ops.h"
#include "cpu/bt/private.h"

/*
 * A vCPU that waits here for the machine's lock still counts as being in the guest: it returns into
 * translated code. Whoever holds the lock never waits for vCPUs.
 */
void bt_machine_lock(struct bt_vcpu *v)
{
	loop_lock(v->engine->loop);
}

void bt_machine_unlock(struct bt_vcpu *v)
{
	loop_unlock(v->engine->loop);
}

static void machine_enter(struct bt_vcpu *v)
{
	bt_heavy_begin(v);
	bt_machine_lock(v);
}

/* For what looks at the local APIC. */
static void chip_enter(struct bt_vcpu *v)
{
	machine_enter(v);
	bt_pv_settle(v);
}

static void machine_leave(struct bt_vcpu *v)
{
	bt_machine_unlock(v);
	bt_heavy_end(v);
}

uint64_t bt_port_read(struct bt_vcpu *v, uint16_t port, unsigned size)
{
	uint64_t value;

	if (v->mode & MODE_STEP)
		debug_port_access(v, port, size);
	machine_enter(v);
	value = bus_read(v->engine->mem->ports, port, size);
	machine_leave(v);
	return value;
}

void bt_port_write(struct bt_vcpu *v, uint16_t port, uint64_t value, unsigned size)
{
	if (v->mode & MODE_STEP)
		debug_port_access(v, port, size);
	machine_enter(v);
	bus_write(v->engine->mem->ports, port, value, size);
	machine_leave(v);
}

static bool in_apic(struct bt_vcpu *v, uint64_t gpa)
{
	return v->chip.mmio_base && (gpa & ~0xfffull) == v->chip.mmio_base(v->chip.opaque);
}

uint64_t bt_mmio_read(struct bt_vcpu *v, uint64_t gpa, unsigned size)
{
	uint64_t value;

	machine_enter(v);
	if (in_apic(v, gpa)) {
		v->priv->stats.apic_reads++;
		bt_pv_settle(v);
		value = (uint64_t)v->chip.mmio_read(v->chip.opaque, gpa & 0xffc) >> (8 * (gpa & 3));
	} else {
		value = bus_read(v->engine->mem->mmio, gpa, size);
	}
	machine_leave(v);
	return value;
}

void bt_mmio_write(struct bt_vcpu *v, uint64_t gpa, uint64_t value, unsigned size)
{
	machine_enter(v);
	if (in_apic(v, gpa)) {
		v->priv->stats.apic_writes++;
		bt_pv_settle(v);
		/* Only aligned 32-bit writes are defined (SDM vol. 3, 11.4.1). */
		if (size >= 4 && !(gpa & 3))
			v->chip.mmio_write(v->chip.opaque, gpa & 0xffc, (uint32_t)value);
	} else {
		bus_write(v->engine->mem->mmio, gpa, value, size);
	}
	machine_leave(v);
}

bool bt_chip_read_msr(struct bt_vcpu *v, uint32_t msr, uint64_t *value)
{
	bool ok;

	chip_enter(v);
	ok = v->chip.msr_read && v->chip.msr_read(v->chip.opaque, msr, value);
	machine_leave(v);
	return ok;
}

bool bt_chip_write_msr(struct bt_vcpu *v, uint32_t msr, uint64_t value)
{
	bool ok;

	chip_enter(v);
	ok = v->chip.msr_write && v->chip.msr_write(v->chip.opaque, msr, value);
	machine_leave(v);
	return ok;
}

uint64_t bt_chip_get_deadline(struct bt_vcpu *v)
{
	uint64_t deadline;

	machine_enter(v);
	deadline = v->chip.get_tsc_deadline ? v->chip.get_tsc_deadline(v->chip.opaque) : 0;
	machine_leave(v);
	return deadline;
}

void bt_chip_set_deadline(struct bt_vcpu *v, uint64_t guest_tsc, uint64_t deadline_ns)
{
	machine_enter(v);
	if (v->chip.set_tsc_deadline)
		v->chip.set_tsc_deadline(v->chip.opaque, guest_tsc, deadline_ns);
	machine_leave(v);
}

uint8_t bt_chip_get_tpr(struct bt_vcpu *v)
{
	uint8_t tpr;

	chip_enter(v);
	tpr = v->chip.get_tpr ? v->chip.get_tpr(v->chip.opaque) : 0;
	machine_leave(v);
	return tpr;
}

void bt_chip_set_tpr(struct bt_vcpu *v, uint8_t tpr)
{
	chip_enter(v);
	if (v->chip.set_tpr)
		v->chip.set_tpr(v->chip.opaque, tpr);
	machine_leave(v);
}

int bt_chip_ack(struct bt_vcpu *v)
{
	int vector = -1;

	chip_enter(v);
	if (v->chip.ack)
		vector = v->chip.ack(v->chip.opaque);
	if (v->engine->paravirt)
		bt_pv_interrupt(v, vector);
	machine_leave(v);
	return vector;
}

/*
 * What may be delivered now kicks us. Who calls this looks at everything that a kick is for next; a kick that stayed would have the
 * bit of the interrupt taken back before the guest has had time to end it.
 */
void bt_chip_settle(struct bt_vcpu *v)
{
	chip_enter(v);
	machine_leave(v);
	atomic_store(&v->poll, v->engine->debug_opts & BT_OPT_POLL ? 1 : 0);
}

uint64_t bt_vm_time_ns(struct bt_vcpu *v)
{
	uint64_t now;

	bt_heavy_begin(v);
	now = v->engine->vm_time_ns(v->engine->vm_time_opaque);
	bt_heavy_end(v);
	return now;
}

void bt_log_guest(const struct bt_vcpu *v, const char *fmt, ...)
{
	char line[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	log_guest("vCPU %u: %s", v->index, line);
}
