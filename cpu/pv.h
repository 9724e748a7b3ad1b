/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's paravirtual interfaces as a guest sees them: the ABI of Linux' Documentation/virt/kvm/x86/cpuid.rst, msr.rst and
 * hypercalls.rst, and the part of an implementation that is no engine's own: the clock and its structures in guest memory.
 *
 * The kernel implements them for the KVM engine; the translator uses what is here (cpu/bt/pv.c).
 */
#ifndef CPU_PV_H
#define CPU_PV_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "mem/memory.h"

/* CPUID leaf 0x40000001, EAX */
enum pv_feature {
	PV_CLOCK = 1u << 0,
	PV_NO_IO_DELAY = 1u << 1,
	PV_CLOCK_NEW = 1u << 3,
	PV_STEAL_TIME = 1u << 5,
	PV_EOI = 1u << 6,
	PV_UNHALT = 1u << 7,
	PV_TLB_FLUSH = 1u << 9,
	PV_SEND_IPI = 1u << 11,
	PV_POLL_CONTROL = 1u << 12,
	PV_YIELD = 1u << 13,
	PV_CLOCK_STABLE = 1u << 24,
};

enum pv_msr {
	PV_MSR_WALL_CLOCK_OLD = 0x11,
	PV_MSR_SYSTEM_TIME_OLD = 0x12,
	PV_MSR_WALL_CLOCK = 0x4b564d00,
	PV_MSR_SYSTEM_TIME = 0x4b564d01,
	PV_MSR_STEAL_TIME = 0x4b564d03,
	PV_MSR_EOI = 0x4b564d04,
	PV_MSR_POLL_CONTROL = 0x4b564d05,
};

enum pv_hypercall {
	PV_HC_POLL_IRQ = 1,
	PV_HC_KICK_CPU = 5,
	PV_HC_CLOCK_PAIRING = 9,
	PV_HC_SEND_IPI = 10,
	PV_HC_YIELD = 11,
};

/* Results of hypercalls, negated */
enum pv_error { PV_EPERM = 1, PV_EFAULT = 14, PV_EINVAL = 22, PV_EOPNOTSUPP = 95, PV_ENOSYS = 1000 };

/* The preempted byte of the steal-time structure */
#define PV_PREEMPTED 1u
#define PV_FLUSH_TLB 2u

/*
 * The clock of one VM: nanoseconds as a line over the host's TSC, the same line for all vCPUs, so that what they read never
 * goes back. It stands still while no vCPU runs, and goes on from where it stood: only then is the line moved.
 */
struct pv_clock {
	pthread_mutex_t lock; /* a leaf */
	uint32_t mul;
	int8_t shift; /* ns = ((tsc << shift) * mul) >> 32 */
	bool stable;
	unsigned running;     /* vCPUs in vcpu_run() */
	uint32_t generation;  /* of the line */
	uint64_t tsc, ns;     /* a point on it */
	uint64_t stopped_ns, stopped_vm_ns;
};

void pv_clock_init(struct pv_clock *c, uint64_t tsc_hz, bool stable);
/* A vCPU begins or ends running; @vm_ns: the VM clock now. */
void pv_clock_start(struct pv_clock *c, uint64_t vm_ns);
void pv_clock_stop(struct pv_clock *c, uint64_t vm_ns);
uint64_t pv_clock_ns(struct pv_clock *c, uint64_t tsc);

/* Nanoseconds of a difference of TSC values. */
static inline uint64_t pv_tsc_to_ns(const struct pv_clock *c, uint64_t delta)
{
	delta = c->shift >= 0 ? delta << c->shift : delta >> -c->shift;
	return (uint64_t)((unsigned __int128)delta * c->mul >> 32);
}

/*
 * One vCPU's registrations and what belongs to them. Guest addresses in here have been checked when they were written, and are
 * checked again at each use.
 */
struct pv_vcpu {
	uint64_t wall_clock, system_time, steal_time, eoi, poll_control; /* the MSRs */
	uint32_t clock_generation; /* that system_time's structure has */
	_Atomic uint8_t *preempted; /* of the steal-time structure, in RAM; NULL: not registered */
	bool eoi_armed;		   /* the guest may end the interrupt in service by clearing its bit */
	uint64_t halted_tsc;	   /* time slept in HLT since the base */
	uint64_t base_wall, base_cpu, base_stolen, stolen; /* ns; steal time */
	uint64_t updated_tsc;	   /* when that was last looked at */
};

void pv_vcpu_reset(struct pv_vcpu *p);
/* Does [gpa, gpa+len) lie in RAM, aligned to @align? What a registration has to fulfil. */
bool pv_address_ok(const struct memory *mem, uint64_t gpa, unsigned align, unsigned len);
/* Fills in the structures: with sequence counters, odd while they change. @tsc_offset: guest TSC less host TSC. */
void pv_write_system_time(const struct pv_vcpu *p, struct pv_clock *c, struct memory *mem,
			  uint64_t tsc_offset, bool was_stopped);
void pv_write_wall_clock(struct pv_clock *c, struct memory *mem, uint64_t gpa);
/* The steal time so far starts here: in the vCPU's thread, which runs from now. */
void pv_steal_begin(struct pv_vcpu *p);
void pv_steal_update(struct pv_vcpu *p, const struct pv_clock *c, struct memory *mem);
/* PV_HC_CLOCK_PAIRING: 0 or an error, negated. */
int64_t pv_clock_pairing(struct memory *mem, uint64_t gpa, uint64_t type, uint64_t tsc_offset);

#endif
