/* SPDX-License-Identifier: Apache-2.0 */
/* PCI configuration space by ports 0xcf8 and 0xcfc, bus 0. */
#include "lib/bare.h"

uint32_t pci_read(unsigned devfn, unsigned reg)
{
	outl(0xcf8, 0x80000000 | devfn << 8 | (reg & ~3u));
	return inl(0xcfc);
}

void pci_write(unsigned devfn, unsigned reg, uint32_t v)
{
	outl(0xcf8, 0x80000000 | devfn << 8 | (reg & ~3u));
	outl(0xcfc, v);
}

int pci_find(uint16_t vendor, uint16_t device)
{
	for (unsigned devfn = 0; devfn < 256; devfn++)
		if (pci_read(devfn, 0) == ((uint32_t)device << 16 | vendor))
			return (int)devfn;
	return -1;
}

unsigned pci_capability(unsigned devfn, uint8_t id, unsigned after)
{
	unsigned at = after ? pci_read(devfn, after) >> 8 & 0xfc : pci_read(devfn, 0x34) & 0xfc;

	for (unsigned n = 0; at && n < 48; n++) {
		uint32_t head = pci_read(devfn, at);

		if ((head & 0xff) == id)
			return at;
		at = head >> 8 & 0xfc;
	}
	return 0;
}

uint64_t pci_bar(unsigned devfn, unsigned n)
{
	uint32_t low = pci_read(devfn, 0x10 + n * 4);
	uint64_t bar = low & 1 ? low & ~3u : low & ~15u;

	if ((low & 7) == 4)
		bar |= (uint64_t)pci_read(devfn, 0x14 + n * 4) << 32;
	return bar;
}
