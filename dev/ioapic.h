/* SPDX-License-Identifier: Apache-2.0 */
/* I/O APIC, 82093AA with the EOI register of later ones (version 0x20). */
#ifndef DEV_IOAPIC_H
#define DEV_IOAPIC_H

#include "dev/device.h"

#define IOAPIC_BASE 0xfec00000u
#define IOAPIC_PINS 24u

#define IOREGSEL 0x00
#define IOWIN 0x10
#define IOEOI 0x40

#define IOAPICID 0x00
#define IOAPICVER 0x01
#define IOAPICARB 0x02
#define IOREDTBL 0x10

#define IOREDTBL_VECTOR 0xffu
#define IOREDTBL_DELMOD_SHIFT 8
#define IOREDTBL_DESTMOD (1u << 11)
#define IOREDTBL_DELIVS (1u << 12)
#define IOREDTBL_INTPOL (1u << 13)
#define IOREDTBL_REMOTE_IRR (1u << 14)
#define IOREDTBL_TRIGGER (1u << 15)
#define IOREDTBL_MASK (1u << 16)
#define IOREDTBL_DEST_SHIFT 56

struct ioapic;

/* Claims one page at @base. Interrupts leave as messages through @sink. */
struct ioapic *ioapic_create(struct bus *mmio, uint64_t base, const struct msi_sink *sink);
struct device *ioapic_device(struct ioapic *ioapic);

/*
 * An irq_line set function: @opaque is the struct ioapic, @pin 0..23. @level says whether the
 * source asserts its wire; the polarity programmed by the guest is taken to be the wire's.
 */
void ioapic_set_irq(void *opaque, unsigned pin, bool level);

/* Told what an assertion of @pin sends: from now on, and whenever that may have changed. */
typedef void ioapic_pin_fn(void *opaque, unsigned pin, bool masked, uint64_t address, uint32_t data);
void ioapic_watch(struct ioapic *ioapic, ioapic_pin_fn *changed, void *opaque);

/* What would become of an edge on @pin. */
enum irq_edge ioapic_edge(const struct ioapic *ioapic, unsigned pin);

/* A local APIC has ended a level-triggered interrupt of this vector. */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

#endif
