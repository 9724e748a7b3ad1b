/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Q35 chipset: 82Q35 memory controller hub (8086:29c0 at 00.0), ICH9 LPC bridge (8086:2918 at
 * 1f.0), and the two ways to PCI configuration space, ports 0xcf8/0xcfc and the ECAM window.
 */
#ifndef DEV_PCI_Q35_H
#define DEV_PCI_Q35_H

#include "dev/pci/ich9_lpc.h"
#include "dev/pci/pci.h"

#define Q35_ECAM_BYTES (256 * MiB) /* 256 buses */
#define Q35_LPC_SLOT 31u

struct q35_config {
	struct memory *mem;
	struct msi_sink msi;
	/* 0..15 ISA, 16..23 the I/O APIC's PCI inputs; see ich9_lpc.h. Entries may be empty. */
	struct irq_line irq[24];
	struct irq_line
		reset;	    /* pulsed when the guest writes a reset to port 0xcf9; may be empty */
	uint64_t ecam_base; /* a multiple of Q35_ECAM_BYTES, below 4 GiB */
	uint16_t pm_base;   /* the ACPI registers' port, shown in PMBASE; 0: none */
};

struct q35 {
	struct device dev;
	struct memory *mem;
	struct pci_bus bus;
	struct pci_device mch;
	struct ich9_lpc lpc;
	struct io_region address_port, data_port, ecam;
	uint32_t address; /* CONFIG_ADDRESS, port 0xcf8 */
};

/* Claims its ports and the ECAM window. &q35->bus is where devices attach, slots 1..30. */
struct q35 *q35_create(const struct q35_config *config);

/*
 * &q35->dev: reset resets every function on the bus too; destroy destroys them too.
 */

/* The I/O APIC input (16..23) of interrupt pin @pin (0: INTA#) of @slot; what ACPI's _PRT says. */
unsigned q35_gsi(unsigned slot, unsigned pin);

/*
 * What firmware does after a reset, for guests started without any: interrupt routing for the 8259
 * (and its edge/level register), BAR addresses from the given windows, interrupt-line registers.
 * False when a window is too small.
 */
bool q35_firmware_setup(struct q35 *q35, uint64_t mmio_base, uint64_t mmio_bytes, uint16_t io_base,
			uint32_t io_bytes);

#endif
