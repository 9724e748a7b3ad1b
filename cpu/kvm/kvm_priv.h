/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the KVM engine. The kernel runs the guest's instructions; interrupt controllers and timers are the machine's own,
 * asked through struct vcpu_irqchip, so that their state is the same whatever engine runs (KVM's documentation, api.rst, without
 * KVM_CREATE_IRQCHIP).
 */
#ifndef CPU_KVM_KVM_PRIV_H
#define CPU_KVM_KVM_PRIV_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cpu/cpuid.h"
#include "cpu/engine_ops.h"

enum kvm_requests {
	KVM_REQ_STOP = 1,
	KVM_REQ_NMI = 2,
	KVM_REQ_INIT = 4,
	KVM_REQ_SIPI = 8,
};

struct kvm_vcpu {
	struct vcpu base;
	struct kvm_engine *engine;
	unsigned index;
	int fd;
	struct kvm_run *run;
	struct vcpu_irqchip chip;

	/* Any thread */
	_Atomic uint32_t requests;
	_Atomic uint32_t wake;	  /* futex: bumped by kicks */
	_Atomic uint32_t in_run;  /* between here and there a signal is needed to get it out of the kernel */
	_Atomic int thread;	  /* its id */
	_Atomic uint8_t sipi_vector;
	atomic_bool halted, wait_sipi;

	bool io_pending; /* the last exit's access is completed by the next KVM_RUN */
	uint8_t cr8;	 /* as the kernel has it */
	struct vcpu_debug debug;
	uint64_t exits, io_exits, mmio_exits, msr_exits, halts, interrupts;
};

struct kvm_engine {
	struct engine base; /* first */
	struct memory *mem;
	struct loop *loop;
	uint64_t (*vm_time_ns)(void *opaque);
	void *vm_time_opaque;
	int fd, vm_fd; /* fd: a copy of the caller's */
	unsigned vcpu_count;
	struct kvm_vcpu **vcpus;
	size_t run_bytes;
	uint64_t tsc_hz;
	bool paravirt;
	struct cpuid_model cpuid;
	pthread_mutex_t clock_lock; /* a leaf: kvmclock stands still while no vCPU runs */
	unsigned running;
	bool clock_saved;
	uint64_t clock_ns;
};

static inline struct kvm_vcpu *kvm_vcpu_of(struct vcpu *v)
{
	return container_of(v, struct kvm_vcpu, base);
}

/* run.c */
void kvm_vcpu_run(struct vcpu *v, struct vcpu_exit *exit);
void kvm_vcpu_kick(struct vcpu *v);
void kvm_vcpu_request(struct kvm_vcpu *v, uint32_t bit);

/* cpuid.c */
struct error *kvm_set_cpuid(struct kvm_engine *e) MUST_CHECK;
struct error *kvm_set_vcpu_cpuid(struct kvm_vcpu *v) MUST_CHECK;

/* state.c */
void kvm_vcpu_init_state(struct kvm_vcpu *v, bool reset);
bool kvm_get_one_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t *value);
bool kvm_set_one_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t value);
void kvm_vcpu_reset(struct vcpu *v);
void kvm_vcpu_get_regs(struct vcpu *v, struct x86_regs *out);
void kvm_vcpu_set_regs(struct vcpu *v, const struct x86_regs *in);
void kvm_vcpu_get_sregs(struct vcpu *v, struct x86_sregs *out);
void kvm_vcpu_set_sregs(struct vcpu *v, const struct x86_sregs *in);
void kvm_vcpu_get_xstate(struct vcpu *v, struct x86_xstate *out);
void kvm_vcpu_set_xstate(struct vcpu *v, const struct x86_xstate *in);
bool kvm_vcpu_get_msr(struct vcpu *v, uint32_t msr, uint64_t *value);
bool kvm_vcpu_set_msr(struct vcpu *v, uint32_t msr, uint64_t value);
bool kvm_vcpu_translate(struct vcpu *v, uint64_t gva, uint64_t *gpa);
void kvm_vcpu_set_debug(struct vcpu *v, const struct vcpu_debug *debug);
/* IA32_TSC_DEADLINE and the local APIC's MSRs, which are the machine's; with the machine's lock. *known: they are. */
bool kvm_chip_get_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t *value, bool *known);
bool kvm_chip_set_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t value, bool *known);

#endif
