/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs, one for each vCPU, and the bus that carries messages among them.
 *
 * The CPU side decides which accesses reach a local APIC (its MMIO page is per vCPU, MSRs too) and
 * calls in here; the APIC answers with the callbacks of struct lapic_cpu_ops. The callbacks run
 * with the machine's lock held, possibly on another vCPU's thread, and must not call back into a
 * local APIC.
 *
 * Manual: Intel SDM volume 3A, chapter "Advanced Programmable Interrupt Controller (APIC)".
 */
#ifndef DEV_LAPIC_H
#define DEV_LAPIC_H

#include "dev/device.h"

#define LAPIC_DEFAULT_BASE 0xfee00000u
#define LAPIC_VERSION 0x01060015u /* 7 LVT entries, EOI broadcast suppression */

#define MSR_IA32_APIC_BASE 0x1bu
#define MSR_IA32_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_FIRST 0x800u
#define MSR_X2APIC_LAST 0x8ffu

#define APIC_BASE_BSP (1ull << 8)
#define APIC_BASE_EXTD (1ull << 10)
#define APIC_BASE_EN (1ull << 11)

/* Offsets of the MMIO registers; the x2APIC MSR is 0x800 + offset / 16. */
#define APIC_ID 0x20
#define APIC_LVR 0x30
#define APIC_TPR 0x80
#define APIC_APR 0x90
#define APIC_PPR 0xa0
#define APIC_EOI 0xb0
#define APIC_RRD 0xc0
#define APIC_LDR 0xd0
#define APIC_DFR 0xe0
#define APIC_SVR 0xf0
#define APIC_ISR 0x100
#define APIC_TMR 0x180
#define APIC_IRR 0x200
#define APIC_ESR 0x280
#define APIC_LVT_CMCI 0x2f0
#define APIC_ICR 0x300
#define APIC_ICR2 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_THERMAL 0x330
#define APIC_LVT_PERF 0x340
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_LVT_ERROR 0x370
#define APIC_TMICT 0x380
#define APIC_TMCCT 0x390
#define APIC_TDCR 0x3e0
#define APIC_SELF_IPI 0x3f0 /* x2APIC only */

#define APIC_SVR_ENABLE (1u << 8)
#define APIC_SVR_SUPPRESS_EOI (1u << 12)

#define APIC_ESR_SEND_ILLEGAL_VECTOR (1u << 5)
#define APIC_ESR_RECEIVE_ILLEGAL_VECTOR (1u << 6)
#define APIC_ESR_ILLEGAL_REGISTER (1u << 7)

enum apic_delivery {
	APIC_FIXED = 0,
	APIC_LOWEST = 1,
	APIC_SMI = 2,
	APIC_NMI = 4,
	APIC_INIT = 5,
	APIC_SIPI = 6,
	APIC_EXTINT = 7,
};

struct apic_bus;
struct lapic;

struct lapic_cpu_ops {
	void (*kick)(void *opaque); /* lapic_intr_pending() has become true, or something came behind a deferred EOI */
	void (*nmi)(void *opaque);
	void (*init)(void *opaque); /* the local APIC has already done its own INIT reset */
	void (*sipi)(void *opaque, uint8_t vector);
	void (*smi)(void *opaque);
};

struct lapic_config {
	uint32_t apic_id; /* x2APIC id; its low eight bits are the xAPIC id */
	bool bsp;
	unsigned phys_bits; /* MAXPHYADDR, 32..52: bounds IA32_APIC_BASE */
	struct lapic_cpu_ops ops;
	void *opaque;
};

/* The bus. At most @max_cpus local APICs. */
struct apic_bus *apic_bus_create(unsigned max_cpus);
void apic_bus_destroy(struct apic_bus *bus); /* NULL-safe; all local APICs are gone */

/* Acknowledges the 8259 for an ExtINT: returns the vector. */
void apic_bus_set_pic(struct apic_bus *bus, uint8_t (*ack)(void *opaque), void *opaque);
/* Told of every EOI of a level-triggered vector, unless the guest suppresses that. */
void apic_bus_set_eoi(struct apic_bus *bus, void (*eoi)(void *opaque, uint8_t vector),
		      void *opaque);

/* Told each time that a local APIC has given an interrupt to its processor. */
void apic_bus_set_taken(struct apic_bus *bus, void (*taken)(void *opaque), void *opaque);

/* Is this message one for local APICs, of a delivery mode that messages may have? Else the log says so. */
bool apic_msi_valid(uint64_t address, uint32_t data);
/* Where MSIs and the I/O APIC's messages go. Valid as long as the bus. */
const struct msi_sink *apic_bus_msi_sink(struct apic_bus *bus);

/*
 * An irq_line set function (opaque: the bus): pin 0 is the wire to LINT0 of all local APICs (INTR),
 * pin 1 that to LINT1 (NMI).
 */
void apic_bus_set_lint(void *opaque, unsigned pin, bool level);

struct lapic *lapic_create(struct apic_bus *bus, struct clock *clock,
			   const struct lapic_config *config);
/* Its reset is that of power-on, IA32_APIC_BASE included. */
struct device *lapic_device(struct lapic *lapic);

/*
 * What firmware does for a PC in virtual wire mode: enabled, LINT0 takes ExtINT, LINT1 takes NMI.
 */
void lapic_set_virtual_wire(struct lapic *lapic);

/*
 * All that a local APIC is: its registers as the xAPIC page has them, the one at offset n in reg[n / 16] (in x2APIC mode its id, and
 * the high half of the ICR at APIC_ICR2), and what no register shows.
 */
struct lapic_state {
	uint64_t base; /* IA32_APIC_BASE */
	uint32_t reg[64];
	uint64_t tsc_deadline, deadline_left_ns;
	uint32_t esr_pending;
	bool extint;
};
void lapic_get_state(struct lapic *lapic, struct lapic_state *out);
/* Of the same processor. False, and nothing changed: no local APIC could be so. Reserved bits are ignored. */
bool lapic_set_state(struct lapic *lapic, const struct lapic_state *in) MUST_CHECK;

/*
 * Is something to be delivered? Exact under the machine's lock; without it a hint that kick()
 * corrects.
 */
bool lapic_intr_pending(const struct lapic *lapic);

/*
 * Takes the interrupt to be delivered now: its vector, which is then in service, or -1 when there
 * is none.
 */
int lapic_intr_ack(struct lapic *lapic);

/*
 * The EOI of @vector, just acknowledged, is not to come by a register but is told later, by lapic_settle_eoi: @done, or it will
 * come by the register after all. False: not this one (level-triggered, or something waits for it). Meanwhile nothing becomes
 * pending; kick() tells when something would.
 */
bool lapic_defer_eoi(struct lapic *lapic, uint8_t vector);
void lapic_settle_eoi(struct lapic *lapic, bool done);

/* One interrupt command to the local APIC with x2APIC id @apic_id; false: there is none. */
bool lapic_send_ipi(struct lapic *lapic, uint32_t apic_id, uint32_t icr);

/* IA32_APIC_BASE: where the page is, whether CPUID shows an APIC (APIC_BASE_EN). Any thread. */
uint64_t lapic_apic_base(const struct lapic *lapic);

/*
 * Whether an access to this guest-physical address is one to the local APIC (not so in x2APIC
 * mode).
 */
bool lapic_mmio_claims(const struct lapic *lapic, uint64_t gpa);

/* 32-bit accesses; @offset 0..0xfff. Registers start at multiples of 16, the rest reads as zero. */
uint32_t lapic_mmio_read(struct lapic *lapic, uint32_t offset);
void lapic_mmio_write(struct lapic *lapic, uint32_t offset, uint32_t value);

/*
 * IA32_APIC_BASE, the x2APIC MSRs and (reading only: see lapic_set_tsc_deadline) IA32_TSC_DEADLINE.
 * False: #GP(0).
 */
bool lapic_msr_read(struct lapic *lapic, uint32_t msr, uint64_t *out) MUST_CHECK;
bool lapic_msr_write(struct lapic *lapic, uint32_t msr, uint64_t value) MUST_CHECK;

uint8_t lapic_get_cr8(const struct lapic *lapic);
void lapic_set_cr8(struct lapic *lapic, uint8_t cr8); /* 0..15 */

/*
 * A write of IA32_TSC_DEADLINE: @guest_tsc is what the guest wrote (0 disarms), @deadline_ns the
 * same moment on the clock. Ignored unless the timer is in TSC-deadline mode.
 */
void lapic_set_tsc_deadline(struct lapic *lapic, uint64_t guest_tsc, uint64_t deadline_ns);

#endif
