/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel ICH9 LPC interface bridge (8086:2918): the ISA bridge, PCI interrupt routing, reset
 * control.
 */
#ifndef DEV_PCI_ICH9_LPC_H
#define DEV_PCI_ICH9_LPC_H

#include "dev/pci/pci.h"

struct ich9_lpc {
	struct pci_device pci;
	/*
	 * The interrupt inputs of the board: 0..15 are the ISA ones (8259 and I/O APIC), 16..23 the
	 * I/O APIC's PCI inputs PIRQA#..PIRQH#. Each is one source on a wire that may have others.
	 */
	struct irq_line irq[24];
	struct irq_line reset;	  /* pulsed: the guest asks for a reset of the board */
	bool pirq[PCI_IRQ_LINES]; /* levels of PIRQA#..PIRQH# */
	uint16_t isa_driven;	  /* which ISA inputs this chip holds */
	uint8_t reset_control;	  /* port 0xcf9 */
};

/* Fills in the function; @pm_base is what PMBASE shows (0: no ACPI registers). Not yet attached. */
void ich9_lpc_init(struct ich9_lpc *lpc, uint16_t pm_base);

/* PIRQA#..PIRQH# is @line 0..7. */
void ich9_lpc_set_pirq(struct ich9_lpc *lpc, unsigned line, bool level);

/* Reset control register, port 0xcf9 (ICH9 data sheet, section 13.7.5). */
uint8_t ich9_lpc_read_cf9(const struct ich9_lpc *lpc);
void ich9_lpc_write_cf9(struct ich9_lpc *lpc, uint8_t value);

/* What firmware does: PIRQs alternate between ISA interrupts 10 and 11. */
#define ICH9_LPC_ISA_IRQ(line) (10 + ((line)&1))
void ich9_lpc_route_isa(struct ich9_lpc *lpc);

#endif
