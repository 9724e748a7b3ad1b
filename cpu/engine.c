/* SPDX-License-Identifier: Apache-2.0 */
/* Which engine runs: here, and nowhere else outside of its own folder. Calls go on to it. */
#include "cpu/engine_ops.h"

#include <assert.h>
#include <stdio.h>

#include "cpu/cpuid.h"
#include "cpu/kvm/probe.h"

struct error *engine_create(const struct engine_config *config, struct engine **out)
{
	struct kvm_probe probe = { 0 };
	bool kvm = config->kind == ENGINE_KVM;
	struct error *err;

	if (config->kind == ENGINE_AUTO) {
		kvm_probe_run(config->kvm_fd, &probe);
		kvm = probe.good;
	}
	err = kvm ? kvm_engine_create(config, out) : bt_engine_create(config, out);
	if (!err)
		snprintf((*out)->reason, sizeof((*out)->reason), "%s", probe.reason);
	return err;
}

const char *engine_reason(const struct engine *e)
{
	return e->reason;
}

void engine_destroy(struct engine *e)
{
	if (e)
		e->ops->destroy(e);
}

const char *engine_name(const struct engine *e)
{
	return e->ops->name;
}

const uint32_t *engine_ioctls(const struct engine *e, unsigned *count)
{
	*count = 0;
	return e->ops->ioctls ? e->ops->ioctls(e, count) : NULL;
}

struct cpuid_result engine_cpuid(const struct engine *e, uint32_t leaf, uint32_t subleaf)
{
	return cpuid_guest(e->ops->cpuid(e), leaf, subleaf);
}

struct vcpu *engine_vcpu(struct engine *e, unsigned index)
{
	return e->ops->vcpu(e, index);
}

struct error *engine_dirty_start(struct engine *e)
{
	return e->ops->dirty_start(e);
}

void engine_dirty_fetch(struct engine *e, uint64_t gpa, uint64_t pages, uint64_t *bitmap)
{
	e->ops->dirty_fetch(e, gpa, pages, bitmap);
}

void engine_dirty_stop(struct engine *e)
{
	e->ops->dirty_stop(e);
}

void engine_statistics(struct engine *e, engine_counter_fn *each, void *opaque)
{
	e->ops->statistics(e, each, opaque);
}

void vcpu_set_irqchip(struct vcpu *v, const struct vcpu_irqchip *chip)
{
	v->ops->set_irqchip(v, chip);
}

bool engine_has_lapics(const struct engine *e)
{
	return e->ops->set_lapic;
}

void engine_set_board(struct engine *e, const struct engine_board *board)
{
	e->ops->set_board(e, board);
}

void engine_send_msi(struct engine *e, uint64_t address, uint32_t data)
{
	e->ops->send_msi(e, address, data);
}

bool engine_set_irqfd(struct engine *e, int fd, bool on, uint64_t address, uint32_t data)
{
	return e->ops->set_irqfd(e, fd, on, address, data);
}

void engine_set_intr(struct engine *e, bool level)
{
	e->ops->set_intr(e, level);
}

void engine_set_pin(struct engine *e, unsigned pin, bool masked, uint64_t address, uint32_t data)
{
	assert(pin < ENGINE_PINS);
	e->ops->set_pin(e, pin, masked, address, data);
}

void vcpu_get_lapic(struct vcpu *v, struct x86_lapic *out)
{
	v->ops->get_lapic(v, out);
}

void vcpu_set_lapic(struct vcpu *v, const struct x86_lapic *in)
{
	v->ops->set_lapic(v, in);
}

void vcpu_run(struct vcpu *v, struct vcpu_exit *exit)
{
	v->ops->run(v, exit);
}

void vcpu_kick(struct vcpu *v)
{
	v->ops->kick(v);
}

void vcpu_request_stop(struct vcpu *v)
{
	v->ops->request_stop(v);
}

void vcpu_nmi(struct vcpu *v)
{
	v->ops->nmi(v);
}

void vcpu_init(struct vcpu *v)
{
	v->ops->init(v);
}

void vcpu_sipi(struct vcpu *v, uint8_t vector)
{
	v->ops->sipi(v, vector);
}

void vcpu_reset(struct vcpu *v)
{
	v->ops->reset(v);
}

void vcpu_get_regs(struct vcpu *v, struct x86_regs *out)
{
	v->ops->get_regs(v, out);
}

void vcpu_set_regs(struct vcpu *v, const struct x86_regs *in)
{
	v->ops->set_regs(v, in);
}

void vcpu_get_sregs(struct vcpu *v, struct x86_sregs *out)
{
	v->ops->get_sregs(v, out);
}

void vcpu_set_sregs(struct vcpu *v, const struct x86_sregs *in)
{
	v->ops->set_sregs(v, in);
}

void vcpu_get_xstate(struct vcpu *v, struct x86_xstate *out)
{
	v->ops->get_xstate(v, out);
}

void vcpu_set_xstate(struct vcpu *v, const struct x86_xstate *in)
{
	v->ops->set_xstate(v, in);
}

bool vcpu_get_msr(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	return v->ops->get_msr(v, msr, value);
}

bool vcpu_set_msr(struct vcpu *v, uint32_t msr, uint64_t value)
{
	return v->ops->set_msr(v, msr, value);
}

void vcpu_get_events(struct vcpu *v, struct x86_events *out)
{
	v->ops->get_events(v, out);
}

void vcpu_set_events(struct vcpu *v, const struct x86_events *in)
{
	v->ops->set_events(v, in);
}

enum vcpu_activity vcpu_activity(struct vcpu *v)
{
	return v->ops->activity(v);
}

bool vcpu_translate(struct vcpu *v, uint64_t gva, uint64_t *gpa)
{
	return v->ops->translate(v, gva, gpa);
}

void vcpu_set_debug(struct vcpu *v, const struct vcpu_debug *debug)
{
	v->ops->set_debug(v, debug);
}
