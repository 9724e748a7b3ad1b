/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel ICH9 LPC interface bridge, as far as an operating system uses it.
 *
 * Theory of operation. The eight PCI interrupt wires PIRQA#..PIRQH# always reach I/O APIC inputs
 * 16..23. Each also reaches the ISA interrupt named by its PIRQn_ROUT register, unless bit 7 there
 * is set, as it is after reset; only interrupts 3..7, 9..12, 14 and 15 can be named. An ISA input
 * is held while any wire routed to it is.
 *
 * Manual: Intel I/O Controller Hub 9 data sheet, sections 13.1 (LPC configuration registers) and
 * 13.7.5.
 */
#include "dev/pci/ich9_lpc.h"

enum {
	LPC_PMBASE = 0x40,
	LPC_ACPI_CNTL = 0x44,
	LPC_PIRQ_A = 0x60, /* .. 0x63 */
	LPC_PIRQ_E = 0x68, /* .. 0x6b */
};
#define LPC_ACPI_EN 0x80u
#define LPC_PIRQ_DISABLED 0x80u
#define LPC_ISA_ALLOWED 0xdef8u

#define RST_CPU 0x04u
#define RST_SYS 0x02u
#define RST_FULL 0x08u

static unsigned route_register(unsigned line)
{
	return line < 4 ? LPC_PIRQ_A + line : LPC_PIRQ_E + line - 4;
}

static void update_isa(struct ich9_lpc *lpc)
{
	uint16_t drive = 0, changed;

	for (unsigned line = 0; line < PCI_IRQ_LINES; line++) {
		uint8_t route = lpc->pci.config[route_register(line)];

		if (lpc->pirq[line] && !(route & LPC_PIRQ_DISABLED))
			drive |= (uint16_t)((1u << (route & 15)) & LPC_ISA_ALLOWED);
	}
	changed = drive ^ lpc->isa_driven;
	lpc->isa_driven = drive;
	for (unsigned i = 0; i < 16; i++)
		if (changed & (1u << i))
			irq_set(&lpc->irq[i], drive & (1u << i));
}

void ich9_lpc_set_pirq(struct ich9_lpc *lpc, unsigned line, bool level)
{
	lpc->pirq[line] = level;
	irq_set(&lpc->irq[16 + line], level);
	update_isa(lpc);
}

static void lpc_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	if (offset < LPC_PIRQ_E + 4 && offset + size > LPC_PIRQ_A)
		update_isa(container_of(pci, struct ich9_lpc, pci));
}

static void lpc_reset(struct device *dev)
{
	struct ich9_lpc *lpc = container_of(dev, struct ich9_lpc, pci.dev);

	pci_device_reset(&lpc->pci);
	for (unsigned line = 0; line < PCI_IRQ_LINES; line++)
		lpc->pci.config[route_register(line)] = LPC_PIRQ_DISABLED;
	lpc->reset_control = 0;
	update_isa(lpc);
}

static void lpc_destroy(struct device *dev)
{
	/* Embedded in the chipset, which frees it. */
	pci_device_finish(&container_of(dev, struct ich9_lpc, pci.dev)->pci);
}

static const struct device_ops lpc_ops = {
	.name = "ich9-lpc",
	.reset = lpc_reset,
	.destroy = lpc_destroy,
};

void ich9_lpc_init(struct ich9_lpc *lpc, uint16_t pm_base)
{
	static const struct pci_identity id = {
		.vendor = 0x8086,
		.device = 0x2918,
		.class_code = 0x060100,
		.revision = 2,
	};

	memset(lpc, 0, sizeof(*lpc));
	lpc->pci.dev.ops = &lpc_ops;
	pci_device_init(&lpc->pci, &id);
	lpc->pci.config_written = lpc_config_written;
	if (pm_base) {
		pci_set(&lpc->pci, LPC_PMBASE, pm_base | 1u, 4);
		pci_set(&lpc->pci, LPC_ACPI_CNTL, LPC_ACPI_EN, 1);
	}
	for (unsigned line = 0; line < PCI_IRQ_LINES; line++) {
		pci_set(&lpc->pci, route_register(line), LPC_PIRQ_DISABLED, 1);
		pci_set_writable(&lpc->pci, route_register(line), 0x8f, 1);
	}
}

uint8_t ich9_lpc_read_cf9(const struct ich9_lpc *lpc)
{
	return lpc->reset_control;
}

void ich9_lpc_write_cf9(struct ich9_lpc *lpc, uint8_t value)
{
	bool rising = (value & RST_CPU) && !(lpc->reset_control & RST_CPU);

	lpc->reset_control = value & (RST_CPU | RST_SYS | RST_FULL);
	if (rising)
		irq_pulse(&lpc->reset);
}

void ich9_lpc_route_isa(struct ich9_lpc *lpc)
{
	for (unsigned line = 0; line < PCI_IRQ_LINES; line++)
		pci_bus_config_write(lpc->pci.bus, lpc->pci.devfn, route_register(line),
				     ICH9_LPC_ISA_IRQ(line), 1);
}
