/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X: message-signalled interrupts of a PCI function.
 *
 * Theory of operation. The function's vectors live in a BAR of their own: the table at offset 0 (16
 * bytes a vector: address, address high, data, control), the pending bits at 0x800. A vector that
 * is masked, by its own control word or by the function mask, keeps a pending bit instead of
 * sending; the message goes out when the mask is lifted. A function may not write memory while bus
 * mastering is off, and a message is such a write: it is held as pending too. Where the bus takes
 * messages by eventfd, each vector has one (struct msi_sink).
 *
 * Manual: PCI Local Bus Specification 3.0, section 6.8.2.
 */
#include <assert.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dev/pci/pci.h"

#define MSIX_BAR_BYTES 4096u
#define MSIX_PBA 0x800u
#define MSIX_CONTROL_ENABLE 0x8000u
#define MSIX_CONTROL_MASK 0x4000u
#define MSIX_VECTOR_MASKED 1u

enum { ENTRY_ADDRESS, ENTRY_ADDRESS_HIGH, ENTRY_DATA, ENTRY_CONTROL };

static_assert(PCI_MSIX_VECTORS_MAX * 16 <= MSIX_PBA, "the table ends before the pending bits");
static_assert(PCI_MSIX_VECTORS_MAX <= 64, "the pending bits are one word");

/* Whether the message went out as a signal. What is behind the eventfd is asked for when it is sent, not each time its driver writes. */
static bool signal_irqfd(struct pci_device *pci, unsigned vector, uint64_t address, uint32_t data)
{
	const struct msi_sink *sink = &pci->bus->msi;
	struct pci_irqfd *line = &pci->msix.irqfd[vector];

	if (line->fd < 0)
		return false;
	if (line->address != address || line->data != data) {
		line->listening = sink->set_irqfd(sink->opaque, line->fd, true, address, data);
		line->address = address;
		line->data = data;
	}
	return line->listening && eventfd_write(line->fd, 1) == 0;
}

static void deliver(struct pci_device *pci, unsigned vector)
{
	const uint32_t *entry = pci->msix.table[vector];
	uint64_t address = (uint64_t)entry[ENTRY_ADDRESS_HIGH] << 32 | entry[ENTRY_ADDRESS];

	if (pci->msix.masked || (entry[ENTRY_CONTROL] & MSIX_VECTOR_MASKED) ||
	    !pci_is_master(pci)) {
		pci->msix.pending |= 1ull << vector;
		return;
	}
	pci->msix.pending &= ~(1ull << vector);
	if (!signal_irqfd(pci, vector, address, entry[ENTRY_DATA]))
		msi_send(&pci->bus->msi, address, entry[ENTRY_DATA]);
}

/* A mask may have been lifted. */
static void deliver_pending(struct pci_device *pci)
{
	uint64_t pending = pci->msix.pending;

	if (!pci->msix.enabled)
		return;
	while (pending) {
		deliver(pci, (unsigned)__builtin_ctzll(pending));
		pending &= pending - 1;
	}
}

void pci_msix_notify(struct pci_device *pci, unsigned vector)
{
	if (pci->msix.enabled && vector < pci->msix.vectors)
		deliver(pci, vector);
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct pci_device *pci = opaque;

	if (offset + size <= pci->msix.vectors * 16)
		return load_le((const uint8_t *)pci->msix.table + offset, size);
	if (offset >= MSIX_PBA && offset + size <= MSIX_PBA + sizeof(pci->msix.pending))
		return load_le((const uint8_t *)&pci->msix.pending + (offset - MSIX_PBA), size);
	return 0;
}

static void msix_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_device *pci = opaque;
	uint32_t *entry;

	/* The pending bits are read-only. */
	if (offset + size > pci->msix.vectors * 16)
		return;
	store_le((uint8_t *)pci->msix.table + offset, value, size);
	entry = pci->msix.table[offset / 16];
	entry[ENTRY_ADDRESS] &= ~3u;
	entry[ENTRY_CONTROL] &= MSIX_VECTOR_MASKED;
	if (pci->msix.pending & (1ull << (offset / 16)))
		deliver_pending(pci);
}

static const struct io_ops msix_ops = {
	.read = msix_read,
	.write = msix_write,
};

void pci_msix_init(struct pci_device *pci, unsigned bar, unsigned vectors)
{
	assert(vectors >= 1 && vectors <= PCI_MSIX_VECTORS_MAX);
	pci_add_bar(pci, bar, PCI_BAR_MEM32, MSIX_BAR_BYTES, "msi-x", &msix_ops, pci);
	pci->msix.vectors = vectors;
	pci->msix.cap = pci_add_capability(pci, PCI_CAP_ID_MSIX, 12);
	pci_set(pci, pci->msix.cap + 2, vectors - 1, 2);
	pci_set_writable(pci, pci->msix.cap + 2, MSIX_CONTROL_ENABLE | MSIX_CONTROL_MASK, 2);
	pci_set(pci, pci->msix.cap + 4, bar, 4);
	pci_set(pci, pci->msix.cap + 8, MSIX_PBA | bar, 4);
	pci_msix_reset(pci);
}

void pci_msix_update(struct pci_device *pci)
{
	if (!pci->msix.vectors)
		return;

	uint32_t control = pci_get(pci, pci->msix.cap + 2, 2);

	pci->msix.enabled = control & MSIX_CONTROL_ENABLE;
	pci->msix.masked = control & MSIX_CONTROL_MASK;
	deliver_pending(pci);
}

void pci_msix_reset(struct pci_device *pci)
{
	pci->msix.enabled = pci->msix.masked = false;
	pci->msix.pending = 0;
	memset(pci->msix.table, 0, sizeof(pci->msix.table));
	for (unsigned i = 0; i < pci->msix.vectors; i++)
		pci->msix.table[i][ENTRY_CONTROL] = MSIX_VECTOR_MASKED;
}

/* A host that gives no more descriptors costs speed, nothing else. */
void pci_msix_attach(struct pci_device *pci)
{
	for (unsigned i = 0; i < pci->msix.vectors; i++)
		pci->msix.irqfd[i] = (struct pci_irqfd){ .fd = pci->bus->msi.set_irqfd ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1 };
}

void pci_msix_detach(struct pci_device *pci)
{
	const struct msi_sink *sink = &pci->bus->msi;

	for (unsigned i = 0; i < pci->msix.vectors; i++) {
		struct pci_irqfd *line = &pci->msix.irqfd[i];

		if (line->listening)
			sink->set_irqfd(sink->opaque, line->fd, false, 0, 0);
		if (line->fd >= 0)
			close(line->fd);
	}
}
