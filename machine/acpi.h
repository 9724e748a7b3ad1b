/* SPDX-License-Identifier: Apache-2.0 */
/* The ACPI tables of the machine, generated (ACPI 6.4; revision numbers of each table in acpi.c). */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "mem/memory.h"

struct acpi_config {
	unsigned vcpu_count;
	uint8_t slp_typ_s5;		   /* what SLP_TYP means power-off in the chip */
	/* The I/O APIC input (16..23) of @pin (0: INTA#) of @slot. */
	unsigned (*gsi)(unsigned slot, unsigned pin);
	/* The ISA interrupt that the same pin has for systems that use the 8259. */
	unsigned (*isa_irq)(unsigned slot, unsigned pin);
};

/* Writes all tables to LAYOUT_TABLES…LAYOUT_SMBIOS; returns where the RSDP is. */
uint64_t acpi_write(struct memory *mem, const struct acpi_config *config);

/* For acpi.c: the DSDT's definition block (without header) into @buf; returns its length. */
size_t acpi_dsdt(uint8_t *buf, size_t size, const struct acpi_config *config);

#endif
