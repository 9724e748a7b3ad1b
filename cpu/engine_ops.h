/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an engine implements: the functions of cpu/engine.h under the same names and with the same meaning. engine.c passes the
 * calls on. An engine's own structures have these in them.
 */
#ifndef CPU_ENGINE_OPS_H
#define CPU_ENGINE_OPS_H

#include "cpu/engine.h"

struct cpuid_model;

struct engine {
	const struct engine_ops *ops;
	char reason[160]; /* engine.c's */
};

struct vcpu {
	const struct engine_ops *ops;
};

struct engine_ops {
	const char *name;
	void (*destroy)(struct engine *e);
	struct vcpu *(*vcpu)(struct engine *e, unsigned index);
	const struct cpuid_model *(*cpuid)(const struct engine *e);
	void (*statistics)(struct engine *e, engine_counter_fn *each, void *opaque);
	const uint32_t *(*ioctls)(const struct engine *e, unsigned *count); /* NULL: it makes none */
	struct error *(*dirty_start)(struct engine *e);
	void (*dirty_fetch)(struct engine *e, uint64_t gpa, uint64_t pages, uint64_t *bitmap);
	void (*dirty_stop)(struct engine *e);
	void (*set_irqchip)(struct vcpu *v, const struct vcpu_irqchip *chip);
	/* An engine has all of these or none. */
	void (*set_board)(struct engine *e, const struct engine_board *board);
	void (*send_msi)(struct engine *e, uint64_t address, uint32_t data);
	bool (*set_irqfd)(struct engine *e, int fd, bool on, uint64_t address, uint32_t data);
	void (*set_intr)(struct engine *e, bool level);
	void (*set_pin)(struct engine *e, unsigned pin, bool masked, uint64_t address, uint32_t data);
	void (*get_lapic)(struct vcpu *v, struct x86_lapic *out);
	void (*set_lapic)(struct vcpu *v, const struct x86_lapic *in);
	void (*run)(struct vcpu *v, struct vcpu_exit *exit);
	void (*kick)(struct vcpu *v);
	void (*request_stop)(struct vcpu *v);
	void (*nmi)(struct vcpu *v);
	void (*init)(struct vcpu *v);
	void (*sipi)(struct vcpu *v, uint8_t vector);
	void (*reset)(struct vcpu *v);
	void (*get_regs)(struct vcpu *v, struct x86_regs *out);
	void (*set_regs)(struct vcpu *v, const struct x86_regs *in);
	void (*get_sregs)(struct vcpu *v, struct x86_sregs *out);
	void (*set_sregs)(struct vcpu *v, const struct x86_sregs *in);
	void (*get_xstate)(struct vcpu *v, struct x86_xstate *out);
	void (*set_xstate)(struct vcpu *v, const struct x86_xstate *in);
	bool (*get_msr)(struct vcpu *v, uint32_t msr, uint64_t *value);
	bool (*set_msr)(struct vcpu *v, uint32_t msr, uint64_t value);
	void (*get_events)(struct vcpu *v, struct x86_events *out);
	void (*set_events)(struct vcpu *v, const struct x86_events *in);
	enum vcpu_activity (*activity)(struct vcpu *v);
	bool (*translate)(struct vcpu *v, uint64_t gva, uint64_t *gpa);
	void (*set_debug)(struct vcpu *v, const struct vcpu_debug *debug);
};

struct error *bt_engine_create(const struct engine_config *config, struct engine **out) MUST_CHECK;
struct error *kvm_engine_create(const struct engine_config *config, struct engine **out) MUST_CHECK;

#endif
