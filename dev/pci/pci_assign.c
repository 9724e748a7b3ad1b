/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What firmware does to the PCI bus before an operating system starts, for guests that are started
 * without firmware: addresses for BARs, interrupt-line registers, decoding.
 *
 * It works through configuration accesses only, as firmware would. Within a window addresses are
 * handed out upwards, each aligned to its own size.
 */
#include "dev/pci/pci.h"

struct cursor {
	uint64_t next, end;
};

/* An aligned piece of @length bytes. */
static bool take(struct cursor *c, uint64_t length, uint64_t *out)
{
	uint64_t base = align_up(c->next, length);

	if (base < c->next || base > c->end || length > c->end - base)
		return false;
	c->next = base + length;
	*out = base;
	return true;
}

static bool assign_function(struct pci_bus *bus, struct pci_device *pci, struct cursor *mmio,
			    struct cursor *io, uint16_t *decode)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		const struct pci_bar *bar = &pci->bars[i];
		unsigned offset = PCI_BAR0 + 4 * i;
		uint64_t base;

		if (bar->kind == PCI_BAR_NONE)
			continue;
		if (!take(bar->kind == PCI_BAR_IO ? io : mmio, bar->length, &base)) {
			log_warn("PCI device %02x.%x: no address space is left for its region of "
				 "%llu bytes; "
				 "it stays switched off: use fewer devices",
				 pci->devfn >> 3, pci->devfn & 7, (unsigned long long)bar->length);
			return false;
		}
		pci_bus_config_write(bus, pci->devfn, offset, (uint32_t)base, 4);
		if (bar->kind == PCI_BAR_MEM64)
			pci_bus_config_write(bus, pci->devfn, offset + 4, (uint32_t)(base >> 32),
					     4);
		*decode |= bar->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
	}
	return true;
}

bool pci_bus_assign(struct pci_bus *bus, const struct pci_windows *windows)
{
	struct cursor mmio = { windows->mmio_base, windows->mmio_base + windows->mmio_bytes };
	struct cursor io = { windows->io_base, windows->io_base + windows->io_bytes };
	bool complete = true;

	for (unsigned devfn = 0; devfn < ARRAY_SIZE(bus->functions); devfn++) {
		struct pci_device *pci = bus->functions[devfn];
		unsigned pin;
		uint16_t decode = 0;

		if (!pci)
			continue;
		pin = pci->config[PCI_INTERRUPT_PIN];
		if (pin)
			pci_bus_config_write(
				bus, (uint8_t)devfn, PCI_INTERRUPT_LINE,
				windows->interrupt_line(bus->route(devfn >> 3, pin - 1)), 1);
		if (!assign_function(bus, pci, &mmio, &io, &decode)) {
			complete = false;
			continue;
		}
		if (decode)
			pci_bus_config_write(bus, (uint8_t)devfn, PCI_COMMAND, decode, 2);
	}
	return complete;
}
