/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI functions and bus 0.
 *
 * Theory of operation. Configuration space is 4096 bytes with two masks beside it: the bits that a
 * write sets, and the bits that writing a one clears; everything else is read-only. That covers BAR
 * sizing too: a BAR of N bytes has only the bits above N writable, so writing all ones and reading
 * back gives the size. After each write the parts with a meaning are looked at again: the command
 * register and the BARs (map, move or unmap the windows), Interrupt Disable, and MSI-X message
 * control.
 *
 * A guest may put a BAR anywhere, over RAM, over another BAR or over a chip of the board. RAM wins
 * because engines look there first; for the rest every BAR gets a bus priority of its own below
 * zero, so chips of the board win, and of two BARs always the same one.
 *
 * Manual: PCI Local Bus Specification 3.0, sections 6.1, 6.2 and 6.7; PCI Express Base
 * Specification, section 7.9 for extended capabilities.
 */
#include <assert.h>

#include "dev/pci/pci.h"

/* No BAR is decoded beyond what x86 can address; sizing writes end up there. */
#define MEM64_LIMIT (1ull << 52)

void pci_device_init(struct pci_device *pci, const struct pci_identity *id)
{
	const struct device_ops *ops = pci->dev.ops;

	memset(pci, 0, sizeof(*pci));
	pci->dev.ops = ops;
	pci->cap_next = 0x40;
	pci->ext_cap_next = PCI_EXT_CAP_BASE;

	pci_set(pci, PCI_VENDOR_ID, id->vendor, 2);
	pci_set(pci, PCI_DEVICE_ID, id->device, 2);
	pci_set(pci, PCI_REVISION_ID, id->revision, 1);
	pci_set(pci, PCI_CLASS_PROG, id->class_code, 3);
	pci_set(pci, PCI_SUBSYSTEM_VENDOR_ID, id->subsystem_vendor, 2);
	pci_set(pci, PCI_SUBSYSTEM_ID, id->subsystem, 2);
	pci_set(pci, PCI_INTERRUPT_PIN, id->interrupt_pin, 1);

	pci_set_writable(pci, PCI_COMMAND,
			 PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
				 (id->interrupt_pin ? PCI_COMMAND_INTX_DISABLE : 0),
			 2);
	store_le(pci->clearable + PCI_STATUS, PCI_STATUS_ERRORS, 2);
	if (id->interrupt_pin)
		pci_set_writable(pci, PCI_INTERRUPT_LINE, 0xff, 1);
}

void pci_add_bar(struct pci_device *pci, unsigned index, enum pci_bar_kind kind, uint64_t length,
		 const char *name, const struct io_ops *ops, void *opaque)
{
	unsigned offset = PCI_BAR0 + 4 * index;
	struct pci_bar *bar = &pci->bars[index];

	assert(!pci->bus && index < PCI_BARS && bar->kind == PCI_BAR_NONE);
	assert(length && !(length & (length - 1)));

	switch (kind) {
	case PCI_BAR_IO:
		assert(length >= 4 && length <= 256);
		pci_set(pci, offset, 1, 4);
		pci_set_writable(pci, offset, 0xffff & ~((uint32_t)length - 1), 4);
		pci->writable[PCI_COMMAND] |= PCI_COMMAND_IO;
		break;
	case PCI_BAR_MEM32:
		assert(length >= 16 && length <= 1 * GiB);
		pci_set_writable(pci, offset, ~((uint32_t)length - 1), 4);
		pci->writable[PCI_COMMAND] |= PCI_COMMAND_MEMORY;
		break;
	case PCI_BAR_MEM64:
		assert(length >= 16 && length <= 1 * TiB);
		assert(index + 1 < PCI_BARS && bar[1].kind == PCI_BAR_NONE);
		pci_set(pci, offset, 4, 4);
		store_le(pci->writable + offset, ~(length - 1), 8);
		pci->writable[PCI_COMMAND] |= PCI_COMMAND_MEMORY;
		break;
	case PCI_BAR_NONE: assert(!"a BAR needs a kind");
	}
	bar->kind = kind;
	bar->length = length;
	bar->region = (struct io_region){
		.name = name,
		.length = length,
		.ops = ops,
		.opaque = opaque,
	};
}

unsigned pci_add_capability(struct pci_device *pci, uint8_t id, unsigned bytes)
{
	unsigned offset = pci->cap_next;

	assert(bytes >= 2 && offset + bytes <= 0x100);
	pci->config[offset] = id;
	pci->config[pci->cap_last ? pci->cap_last + 1 : PCI_CAPABILITY_LIST] = (uint8_t)offset;
	pci->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	pci->cap_last = offset;
	pci->cap_next = (unsigned)align_up(offset + bytes, 4);
	return offset;
}

unsigned pci_add_ext_capability(struct pci_device *pci, uint16_t id, unsigned version,
				unsigned bytes)
{
	unsigned offset = pci->ext_cap_next;

	assert(bytes >= 4 && offset + bytes <= PCI_CONFIG_BYTES && version < 16);
	pci_set(pci, offset, id | version << 16, 4);
	if (pci->ext_cap_last)
		pci_set(pci, pci->ext_cap_last,
			(pci_get(pci, pci->ext_cap_last, 4) & 0xfffff) | offset << 20, 4);
	pci->ext_cap_last = offset;
	pci->ext_cap_next = (unsigned)align_up(offset + bytes, 4);
	return offset;
}

/* Where @bar is decoded now; false: nowhere. */
static bool bar_address(const struct pci_device *pci, unsigned index, uint64_t *base)
{
	const struct pci_bar *bar = &pci->bars[index];
	const uint8_t *reg = pci->config + PCI_BAR0 + 4 * index;
	uint8_t command = pci->config[PCI_COMMAND];
	uint64_t limit, end;

	switch (bar->kind) {
	case PCI_BAR_IO:
		if (!(command & PCI_COMMAND_IO))
			return false;
		*base = load_le(reg, 2) & ~3ull;
		limit = 0x10000;
		break;
	case PCI_BAR_MEM32:
		if (!(command & PCI_COMMAND_MEMORY))
			return false;
		*base = load_le(reg, 4) & ~15ull;
		/* The top of the 4 GiB is where a sizing write leaves a BAR; nobody lives there. */
		limit = 0xffffffff;
		break;
	case PCI_BAR_MEM64:
		if (!(command & PCI_COMMAND_MEMORY))
			return false;
		*base = load_le(reg, 8) & ~15ull;
		limit = MEM64_LIMIT;
		break;
	default: return false;
	}
	return *base && !__builtin_add_overflow(*base, bar->length, &end) && end <= limit;
}

static void unmap_bar(struct pci_bar *bar)
{
	if (bar->mapped_on)
		bus_remove(bar->mapped_on, &bar->region);
	bar->mapped_on = NULL;
}

static void update_bars(struct pci_device *pci)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		struct pci_bar *bar = &pci->bars[i];
		uint64_t base;

		if (!bar_address(pci, i, &base)) {
			unmap_bar(bar);
			continue;
		}
		if (bar->mapped_on && bar->region.base == base)
			continue;
		unmap_bar(bar);
		bar->region.base = base;
		bar->region.priority = -1 - (int)(pci->devfn * PCI_BARS + i);
		bar->mapped_on =
			bar->kind == PCI_BAR_IO ? pci->bus->mem->ports : pci->bus->mem->mmio;
		bus_add(bar->mapped_on, &bar->region);
	}
}

static void update_intx(struct pci_device *pci)
{
	uint16_t command = (uint16_t)pci_get(pci, PCI_COMMAND, 2);
	bool drive = pci->intx_asserted && !(command & PCI_COMMAND_INTX_DISABLE);
	struct pci_bus *bus = pci->bus;
	unsigned line;

	/* The status bit tells the truth even while the pin is disabled (section 6.2.3). */
	if (pci->intx_asserted)
		pci->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	else
		pci->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
	if (drive == pci->intx_driven || !bus)
		return;
	pci->intx_driven = drive;
	line = bus->route(pci->devfn >> 3, pci->config[PCI_INTERRUPT_PIN] - 1u);
	assert(line < PCI_IRQ_LINES);
	if (drive) {
		if (bus->line_users[line]++ == 0)
			bus->set_line(bus->opaque, line, true);
	} else {
		assert(bus->line_users[line]);
		if (--bus->line_users[line] == 0)
			bus->set_line(bus->opaque, line, false);
	}
}

void pci_set_intx(struct pci_device *pci, bool level)
{
	assert(pci->config[PCI_INTERRUPT_PIN]);
	if (level == pci->intx_asserted)
		return;
	pci->intx_asserted = level;
	update_intx(pci);
}

void pci_device_reset(struct pci_device *pci)
{
	for (unsigned i = 0; i < PCI_CONFIG_BYTES; i += 8) {
		uint64_t keep = ~(load_le(pci->writable + i, 8) | load_le(pci->clearable + i, 8));

		store_le(pci->config + i, load_le(pci->config + i, 8) & keep, 8);
	}
	pci->intx_asserted = false;
	update_intx(pci);
	pci_msix_reset(pci);
	if (pci->bus)
		update_bars(pci);
}

void pci_device_finish(struct pci_device *pci)
{
	if (!pci->bus)
		return;
	pci->intx_asserted = false;
	update_intx(pci);
	pci_msix_detach(pci);
	for (unsigned i = 0; i < PCI_BARS; i++)
		unmap_bar(&pci->bars[i]);
	pci->bus->functions[pci->devfn] = NULL;
	pci->bus = NULL;
}

void pci_bus_attach(struct pci_bus *bus, struct pci_device *pci, uint8_t devfn)
{
	assert(!pci->bus && !bus->functions[devfn]);
	pci->bus = bus;
	pci->devfn = devfn;
	bus->functions[devfn] = pci;
	pci_msix_attach(pci);
	/* Software looks at functions 1..7 only if function 0 says that there may be some. */
	if ((devfn & 7) && bus->functions[devfn & ~7])
		bus->functions[devfn & ~7]->config[PCI_HEADER_TYPE] |= PCI_HEADER_MULTIFUNCTION;
}

void pci_bus_reset(struct pci_bus *bus)
{
	for (unsigned i = 0; i < ARRAY_SIZE(bus->functions); i++)
		if (bus->functions[i])
			bus->functions[i]->dev.ops->reset(&bus->functions[i]->dev);
}

void pci_bus_destroy_functions(struct pci_bus *bus)
{
	for (unsigned i = 0; i < ARRAY_SIZE(bus->functions); i++)
		if (bus->functions[i])
			bus->functions[i]->dev.ops->destroy(&bus->functions[i]->dev);
}

/* Whether [a, a + an) and [b, b + bn) have a byte in common. */
static bool touches(unsigned a, unsigned an, unsigned b, unsigned bn)
{
	return a < b + bn && b < a + an;
}

uint32_t pci_bus_config_read(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size)
{
	struct pci_device *pci = bus->functions[devfn];

	assert(size >= 1 && size <= 4 && offset + size <= PCI_CONFIG_BYTES);
	if (!pci)
		return (uint32_t)size_mask(size);
	if (pci->config_reading)
		pci->config_reading(pci, offset, size);
	return pci_get(pci, offset, size);
}

void pci_bus_config_write(struct pci_bus *bus, uint8_t devfn, unsigned offset, uint32_t value,
			  unsigned size)
{
	struct pci_device *pci = bus->functions[devfn];

	assert(size >= 1 && size <= 4 && offset + size <= PCI_CONFIG_BYTES);
	if (!pci)
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(value >> (8 * i));
		uint8_t set = pci->writable[offset + i], clear = pci->clearable[offset + i];
		uint8_t *reg = &pci->config[offset + i];

		*reg = (uint8_t)(((*reg & ~set) | (byte & set)) & ~(byte & clear));
	}
	if (touches(offset, size, PCI_COMMAND, 2)) {
		update_bars(pci);
		update_intx(pci);
	} else if (touches(offset, size, PCI_BAR0, 4 * PCI_BARS)) {
		update_bars(pci);
	}
	if (touches(offset, size, PCI_COMMAND, 2) || touches(offset, size, pci->msix.cap + 2, 2))
		pci_msix_update(pci);
	if (pci->config_written)
		pci->config_written(pci, offset, size);
}
