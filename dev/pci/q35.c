/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Q35 chipset: host bridge and the access mechanisms to PCI configuration space.
 *
 * Theory of operation. CONFIG_ADDRESS at port 0xcf8 answers only four-byte accesses (PCI Local Bus
 * 3.0, section 3.2.2.3.2); a byte access to 0xcf9 is the reset control register of the ICH9, and
 * everything else there is nobody's. CONFIG_DATA at 0xcfc..0xcff reads and writes the bytes it is
 * asked for, if bit 31 of the address says so. ECAM is a window of 4096 bytes for each function of
 * 256 buses; there is no firmware that would switch it on, so it is on from reset and PCIEXBAR is
 * read-only. Only bus 0 exists.
 *
 * Interrupt pins are spread over PIRQA#..PIRQH# by slot number plus pin.
 *
 * Manual: Intel 3 Series Express Chipset Family data sheet, section 5.1 (PCIEXBAR).
 */
#include <assert.h>
#include <stdlib.h>

#include "dev/pci/q35.h"

#define PORT_ADDRESS 0xcf8u
#define PORT_DATA 0xcfcu
#define RESET_CONTROL_OFFSET 1u /* 0xcf9 */
#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu

#define MCH_PCIEXBAR 0x60u
#define MCH_PCIEXBAR_ENABLE 1u /* and length 0: 256 MiB */

#define ELCR2_PORT 0x4d1u /* edge/level control of IRQ 8..15 */

static unsigned route(unsigned slot, unsigned pin)
{
	return (slot + pin) % PCI_IRQ_LINES;
}

unsigned q35_gsi(unsigned slot, unsigned pin)
{
	return 16 + route(slot, pin);
}

static void set_line(void *opaque, unsigned line, bool level)
{
	struct q35 *q35 = opaque;

	ich9_lpc_set_pirq(&q35->lpc, line, level);
}

static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
	struct q35 *q35 = opaque;

	if (size == 4)
		return q35->address;
	if (size == 1 && offset == RESET_CONTROL_OFFSET)
		return ich9_lpc_read_cf9(&q35->lpc);
	return size_mask(size);
}

static void address_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct q35 *q35 = opaque;

	if (size == 4)
		q35->address = (uint32_t)value & ADDRESS_WRITABLE;
	else if (size == 1 && offset == RESET_CONTROL_OFFSET)
		ich9_lpc_write_cf9(&q35->lpc, (uint8_t)value);
}

static const struct io_ops address_ops = {
	.read = address_read,
	.write = address_write,
	.max_width = 4,
};

/* Only bus 0 is there. */
static bool data_selects(const struct q35 *q35, uint64_t offset, unsigned size)
{
	return (q35->address & ADDRESS_ENABLE) && bits(q35->address, 16, 23) == 0 &&
	       offset + size <= 4;
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct q35 *q35 = opaque;

	if (!data_selects(q35, offset, size))
		return size_mask(size);
	return pci_bus_config_read(&q35->bus, (uint8_t)bits(q35->address, 8, 15),
				   (q35->address & 0xfc) + (unsigned)offset, size);
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct q35 *q35 = opaque;

	if (data_selects(q35, offset, size))
		pci_bus_config_write(&q35->bus, (uint8_t)bits(q35->address, 8, 15),
				     (q35->address & 0xfc) + (unsigned)offset, (uint32_t)value,
				     size);
}

static const struct io_ops data_ops = {
	.read = data_read,
	.write = data_write,
	.max_width = 4,
};

/* Bus 0 is the first MiB of the window; no access crosses the end of a function. */
static bool ecam_selects(uint64_t offset, unsigned size)
{
	return offset < 256 * PCI_CONFIG_BYTES &&
	       offset % PCI_CONFIG_BYTES + size <= PCI_CONFIG_BYTES;
}

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
	struct q35 *q35 = opaque;

	if (!ecam_selects(offset, size))
		return size_mask(size);
	return pci_bus_config_read(&q35->bus, (uint8_t)(offset / PCI_CONFIG_BYTES),
				   (unsigned)(offset % PCI_CONFIG_BYTES), size);
}

static void ecam_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct q35 *q35 = opaque;

	if (ecam_selects(offset, size))
		pci_bus_config_write(&q35->bus, (uint8_t)(offset / PCI_CONFIG_BYTES),
				     (unsigned)(offset % PCI_CONFIG_BYTES), (uint32_t)value, size);
}

static const struct io_ops ecam_ops = {
	.read = ecam_read,
	.write = ecam_write,
	.max_width = 4,
};

static void mch_reset(struct device *dev)
{
	pci_device_reset(container_of(dev, struct pci_device, dev));
}

static void mch_destroy(struct device *dev)
{
	/* Embedded in the chipset, which frees it. */
	pci_device_finish(container_of(dev, struct pci_device, dev));
}

static const struct device_ops mch_ops = {
	.name = "82q35-mch",
	.reset = mch_reset,
	.destroy = mch_destroy,
};

static void mch_init(struct pci_device *mch, uint64_t ecam_base)
{
	static const struct pci_identity id = {
		.vendor = 0x8086,
		.device = 0x29c0,
		.class_code = 0x060000,
		.revision = 2,
	};

	mch->dev.ops = &mch_ops;
	pci_device_init(mch, &id);
	pci_set(mch, MCH_PCIEXBAR, (uint32_t)ecam_base | MCH_PCIEXBAR_ENABLE, 4);
}

static void q35_reset(struct device *dev)
{
	struct q35 *q35 = container_of(dev, struct q35, dev);

	q35->address = 0;
	pci_bus_reset(&q35->bus);
}

static void q35_destroy(struct device *dev)
{
	struct q35 *q35 = container_of(dev, struct q35, dev);

	pci_bus_destroy_functions(&q35->bus);
	bus_remove(q35->mem->ports, &q35->address_port);
	bus_remove(q35->mem->ports, &q35->data_port);
	bus_remove(q35->mem->mmio, &q35->ecam);
	free(q35);
}

static const struct device_ops q35_ops = {
	.name = "q35",
	.reset = q35_reset,
	.destroy = q35_destroy,
};

struct q35 *q35_create(const struct q35_config *config)
{
	struct q35 *q35 = calloc(1, sizeof(*q35));

	assert(q35);
	assert(config->ecam_base && config->ecam_base % Q35_ECAM_BYTES == 0 &&
	       config->ecam_base + Q35_ECAM_BYTES <= 4 * GiB);
	q35->dev.ops = &q35_ops;
	q35->mem = config->mem;
	q35->bus.mem = config->mem;
	q35->bus.msi = config->msi;
	q35->bus.route = route;
	q35->bus.set_line = set_line;
	q35->bus.opaque = q35;

	mch_init(&q35->mch, config->ecam_base);
	pci_bus_attach(&q35->bus, &q35->mch, PCI_DEVFN(0, 0));

	ich9_lpc_init(&q35->lpc, config->pm_base);
	memcpy(q35->lpc.irq, config->irq, sizeof(q35->lpc.irq));
	q35->lpc.reset = config->reset;
	pci_bus_attach(&q35->bus, &q35->lpc.pci, PCI_DEVFN(Q35_LPC_SLOT, 0));

	q35->address_port = (struct io_region){
		.name = "pci-config-address",
		.base = PORT_ADDRESS,
		.length = 4,
		.ops = &address_ops,
		.opaque = q35,
	};
	q35->data_port = (struct io_region){
		.name = "pci-config-data",
		.base = PORT_DATA,
		.length = 4,
		.ops = &data_ops,
		.opaque = q35,
	};
	q35->ecam = (struct io_region){
		.name = "pci-ecam",
		.base = config->ecam_base,
		.length = Q35_ECAM_BYTES,
		.ops = &ecam_ops,
		.opaque = q35,
	};
	bus_add(q35->mem->ports, &q35->address_port);
	bus_add(q35->mem->ports, &q35->data_port);
	bus_add(q35->mem->mmio, &q35->ecam);
	return q35;
}

static uint8_t interrupt_line(unsigned line)
{
	return ICH9_LPC_ISA_IRQ(line);
}

bool q35_firmware_setup(struct q35 *q35, uint64_t mmio_base, uint64_t mmio_bytes, uint16_t io_base,
			uint32_t io_bytes)
{
	const struct pci_windows windows = {
		.mmio_base = mmio_base,
		.mmio_bytes = mmio_bytes,
		.io_base = io_base,
		.io_bytes = io_bytes,
		.interrupt_line = interrupt_line,
	};
	uint64_t level;

	ich9_lpc_route_isa(&q35->lpc);
	/* PCI interrupts are level-triggered. */
	level = bus_read(q35->mem->ports, ELCR2_PORT, 1);
	for (unsigned line = 0; line < PCI_IRQ_LINES; line++)
		level |= 1u << (ICH9_LPC_ISA_IRQ(line) - 8);
	bus_write(q35->mem->ports, ELCR2_PORT, level, 1);
	return pci_bus_assign(&q35->bus, &windows);
}
