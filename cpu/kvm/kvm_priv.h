/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the KVM engine. The kernel runs the guest's instructions, its local APICs and their timers; the 8259, the I/O APIC and
 * all other timers are the machine's own (KVM's documentation, api.rst: KVM_CAP_SPLIT_IRQCHIP).
 */
#ifndef CPU_KVM_KVM_PRIV_H
#define CPU_KVM_KVM_PRIV_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cpu/cpuid.h"
#include "cpu/dirty.h"
#include "cpu/engine_ops.h"

#define KVM_IRQFDS 512u /* eventfds that are messages; a device with more sends them itself */

enum kvm_requests {
	KVM_REQ_STOP = 1,
	KVM_REQ_NMI = 2,
};

struct kvm_vcpu {
	struct vcpu base;
	struct kvm_engine *engine;
	unsigned index;
	int fd;
	struct kvm_run *run;

	/* Any thread */
	_Atomic uint32_t requests;
	_Atomic uint32_t in_run; /* between here and there a signal is needed to get it out of the kernel */
	_Atomic int thread;	 /* its id */
	_Atomic enum vcpu_activity activity; /* when it was last stopped */

	bool io_pending; /* the last exit's access is completed by the next KVM_RUN */
	struct vcpu_debug debug;
	struct kvm_dirty_gfn *ring; /* written pages; NULL: the kernel has no rings. Read with dirty_lock */
	uint32_t ring_next;
	uint64_t exits, io_exits, mmio_exits, eoi_exits, interrupts;
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
	struct engine_board board;
	atomic_bool intr; /* the 8259's output; changed with the machine's lock */
	/* Of pins and of eventfds (routes.c). With the machine's lock */
	struct kvm_irq_routing_entry routes[ENGINE_PINS + KVM_IRQFDS]; /* gsi: its index; type 0: none */
	int irqfds[KVM_IRQFDS];					       /* route ENGINE_PINS + n is descriptor n's; -1: free */
	_Atomic unsigned irqfd_count;				       /* changed with the machine's lock */
	struct dirty_log dirty;
	unsigned ring_entries;	    /* of each vCPU's ring; 0: the kernel keeps bitmaps */
	unsigned ring_taken;	    /* entries out of the rings whose pages the kernel does not watch again yet. With dirty_lock */
	uint64_t *kernel_bitmap;    /* of one area */
	pthread_mutex_t dirty_lock; /* a leaf */
	pthread_mutex_t clock_lock; /* a leaf: kvmclock stands still while no vCPU runs */
	unsigned running;
	bool clock_saved;
	uint64_t clock_ns;
};

static inline struct kvm_engine *kvm_engine_of(struct engine *e)
{
	return (struct kvm_engine *)e;
}

static inline struct kvm_vcpu *kvm_vcpu_of(struct vcpu *v)
{
	return container_of(v, struct kvm_vcpu, base);
}

/* run.c */
void kvm_vcpu_run(struct vcpu *v, struct vcpu_exit *exit);
void kvm_vcpu_kick(struct vcpu *v);
void kvm_vcpu_request(struct kvm_vcpu *v, uint32_t bit);

/* irq.c */
struct error *kvm_split_irqchip(struct kvm_engine *e) MUST_CHECK;
void kvm_set_board(struct engine *e, const struct engine_board *board);
void kvm_send_msi(struct engine *e, uint64_t address, uint32_t data);
void kvm_set_intr(struct engine *e, bool level);
void kvm_vcpu_init(struct vcpu *v);
void kvm_vcpu_sipi(struct vcpu *v, uint8_t vector);
void kvm_vcpu_get_lapic(struct vcpu *v, struct x86_lapic *out);
void kvm_vcpu_set_lapic(struct vcpu *v, const struct x86_lapic *in);
void kvm_vcpu_get_events(struct vcpu *v, struct x86_events *out);
void kvm_vcpu_set_events(struct vcpu *v, const struct x86_events *in);
bool kvm_can_deliver(struct kvm_vcpu *v); /* asked in the vCPU's thread, as is the next */
void kvm_deliver(struct kvm_vcpu *v, uint8_t vector);
void kvm_reset_irqs(struct kvm_vcpu *v);
enum vcpu_activity kvm_vcpu_activity(struct vcpu *v);
void kvm_note_activity(struct kvm_vcpu *v); /* in its thread, or stopped */

/* routes.c */
void kvm_routes_init(struct kvm_engine *e);
void kvm_take_doorbells(struct kvm_engine *e);
void kvm_set_pin(struct engine *e, unsigned pin, bool masked, uint64_t address, uint32_t data);
bool kvm_set_irqfd(struct engine *e, int fd, bool on, uint64_t address, uint32_t data);

/* dirty.c */
void kvm_dirty_init(struct kvm_engine *e);
void kvm_dirty_finish(struct kvm_engine *e);
struct error *kvm_dirty_map_ring(struct kvm_vcpu *v) MUST_CHECK;
void kvm_dirty_unmap_ring(struct kvm_vcpu *v);
void kvm_dirty_collect(struct kvm_engine *e); /* empties the rings */
struct error *kvm_dirty_start(struct engine *e) MUST_CHECK;
void kvm_dirty_fetch(struct engine *e, uint64_t gpa, uint64_t pages, uint64_t *bitmap);
void kvm_dirty_stop(struct engine *e);
void kvm_memory_written(void *opaque, uint64_t gpa, uint64_t len);

/* cpuid.c */
struct error *kvm_set_cpuid(struct kvm_engine *e) MUST_CHECK;
struct error *kvm_set_vcpu_cpuid(struct kvm_vcpu *v) MUST_CHECK;

/* state.c */
void kvm_refused(struct kvm_vcpu *v, const char *what); /* logs errno */
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

#endif
