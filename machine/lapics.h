/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APICs of the machine, one for each vCPU, whoever they are: chips of our own (dev/lapic.h), or an engine's
 * (engine_has_lapics()). The rest of the machine sends messages and sets wires, and does not see which. Their state has one form.
 *
 * Called with the machine's lock held.
 */
#ifndef MACHINE_LAPICS_H
#define MACHINE_LAPICS_H

#include "cpu/engine.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "machine/layout.h"

struct lapics_config {
	struct engine *engine;
	struct clock *clock;
	unsigned count;
	uint8_t (*pic_ack)(void *opaque);		/* the 8259 is asked for its vector */
	void (*eoi)(void *opaque, uint8_t vector);	/* a level-triggered interrupt has ended */
	void (*taken)(void *opaque);			/* a processor has taken an interrupt; of an engine's: the 8259's */
	void *opaque;
};

struct lapics {
	struct lapics_config config;
	struct apic_bus *bus;
	struct lapic *chip[LAYOUT_VCPU_MAX];
	struct msi_sink sink;
	bool engines; /* the engine has its own, and the chips rest but for what they say about power-on */
};

void lapics_init(struct lapics *l, const struct lapics_config *config);
void lapics_finish(struct lapics *l); /* the chips are destroyed */

/* Where MSIs and the I/O APIC's messages go. */
const struct msi_sink *lapics_msi_sink(const struct lapics *l);
/* An irq_line set function, opaque: the struct lapics. Pin 0: INTR, to LINT0 of all. */
void lapics_set_lint(void *opaque, unsigned pin, bool level);
/* The I/O APIC, whose level-triggered inputs are to hear of EOIs. */
void lapics_attach_ioapic(struct lapics *l, struct ioapic *ioapic);
/* After the reset of vCPUs and chips: what firmware does, the boot processor's virtual wire. */
void lapics_set_up(struct lapics *l);

/* Stopped vCPUs. False: no local APIC could be so. */
void lapics_get_state(struct lapics *l, unsigned cpu, struct x86_lapic *out);
bool lapics_set_state(struct lapics *l, unsigned cpu, const struct x86_lapic *in) MUST_CHECK;

#endif
