/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI function: configuration space, base address registers, INTx and MSI-X; and the bus it sits
 * on.
 *
 * A chip embeds struct pci_device, calls pci_device_init() with its identity, adds its BARs and
 * capabilities, and attaches itself with pci_bus_attach(). From then on the guest moves the BARs
 * about; the chip only sees reads and writes of its io_regions.
 *
 * Threading: every call is made with the machine's lock held.
 */
#ifndef DEV_PCI_PCI_H
#define DEV_PCI_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "dev/device.h"
#include "mem/bus.h"

/* Configuration header type 0 (PCI Local Bus 3.0, section 6.1). */
enum {
	PCI_VENDOR_ID = 0x00,
	PCI_DEVICE_ID = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION_ID = 0x08,
	PCI_CLASS_PROG = 0x09,
	PCI_CLASS_DEVICE = 0x0a,
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
	PCI_SUBSYSTEM_ID = 0x2e,
	PCI_CAPABILITY_LIST = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
	PCI_EXT_CAP_BASE = 0x100,
};

#define PCI_COMMAND_IO 0x0001u
#define PCI_COMMAND_MEMORY 0x0002u
#define PCI_COMMAND_MASTER 0x0004u
#define PCI_COMMAND_PARITY 0x0040u
#define PCI_COMMAND_SERR 0x0100u
#define PCI_COMMAND_INTX_DISABLE 0x0400u

#define PCI_STATUS_INTERRUPT 0x0008u
#define PCI_STATUS_CAP_LIST 0x0010u
#define PCI_STATUS_ERRORS 0xf900u /* write 1 to clear */

#define PCI_HEADER_MULTIFUNCTION 0x80u

#define PCI_CAP_ID_VENDOR 0x09u
#define PCI_CAP_ID_MSIX 0x11u

#define PCI_CONFIG_BYTES 4096u
#define PCI_BARS 6u
#define PCI_MSIX_VECTORS_MAX 64u
#define PCI_IRQ_LINES 8u

#define PCI_DEVFN(slot, function) ((uint8_t)((slot) << 3 | (function)))

struct pci_device;
struct pci_bus;

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
	enum pci_bar_kind kind;
	uint64_t length; /* a power of two */
	struct io_region region;
	struct bus *mapped_on; /* NULL while not decoded */
};

/* MSI-X (PCI Local Bus 3.0, section 6.8.2). Table at offset 0 of its own BAR, PBA behind it. */
struct pci_msix {
	unsigned vectors;     /* 0: the function has no MSI-X */
	unsigned cap;	      /* where its capability is */
	bool enabled, masked; /* as message control says */
	uint32_t table[PCI_MSIX_VECTORS_MAX][4];
	uint64_t pending;
	/* Where the bus knows eventfds: a vector's own, and the message that was last asked to be behind it. */
	struct pci_irqfd {
		int fd; /* -1: none */
		bool listening;
		uint64_t address;
		uint32_t data;
	} irqfd[PCI_MSIX_VECTORS_MAX];
};

/* What a function is. */
struct pci_identity {
	uint16_t vendor, device;
	uint16_t subsystem_vendor, subsystem;
	uint32_t class_code; /* 24 bits: class, subclass, programming interface */
	uint8_t revision;
	uint8_t interrupt_pin; /* 0: none, 1: INTA# … 4: INTD# */
};

struct pci_device {
	struct device dev;
	struct pci_bus *bus; /* NULL until attached */
	uint8_t devfn;

	uint8_t config[PCI_CONFIG_BYTES];
	uint8_t writable[PCI_CONFIG_BYTES];  /* bits that a write sets */
	uint8_t clearable[PCI_CONFIG_BYTES]; /* bits that writing a one clears */
	unsigned cap_next, cap_last;	     /* free space; the last entry of the list */
	unsigned ext_cap_next, ext_cap_last;

	struct pci_bar bars[PCI_BARS];
	struct pci_msix msix;
	bool intx_asserted; /* what the function wants */
	bool intx_driven;   /* what its pin shows */

	/*
	 * Optional. Before a read and after a write of [offset, offset + size) of configuration
	 * space.
	 */
	void (*config_reading)(struct pci_device *pci, unsigned offset, unsigned size);
	void (*config_written)(struct pci_device *pci, unsigned offset, unsigned size);
};

/* Bus 0. Embedded in the host bridge, which fills it in. */
struct pci_bus {
	struct memory *mem; /* whose mmio and ports buses the BARs appear on */
	struct msi_sink msi;
	/*
	 * Which of the PCI_IRQ_LINES wires interrupt pin @pin (0: INTA#) of @slot is soldered to.
	 */
	unsigned (*route)(unsigned slot, unsigned pin);
	void (*set_line)(void *opaque, unsigned line, bool level);
	void *opaque;
	unsigned line_users[PCI_IRQ_LINES]; /* how many functions drive it: the wires are ORed */
	struct pci_device *functions[256];
};

/* Zeroes @pci and fills in the header. @pci->dev.ops is the caller's. */
void pci_device_init(struct pci_device *pci, const struct pci_identity *id);

/* Detaches @pci and unmaps its BARs. */
void pci_device_finish(struct pci_device *pci);

/*
 * Configuration space as after RST#: nothing decoded, no bus mastering, MSI-X off, INTx released.
 */
void pci_device_reset(struct pci_device *pci);

/*
 * BAR @index, of @length bytes (a power of two; ≥ 16, I/O ≥ 4 and ≤ 256). A 64-bit BAR also takes
 * the next index. @name, @ops and @opaque are those of the io_region. Before pci_bus_attach.
 */
void pci_add_bar(struct pci_device *pci, unsigned index, enum pci_bar_kind kind, uint64_t length,
		 const char *name, const struct io_ops *ops, void *opaque);

/*
 * Appends a capability of @bytes (its two header bytes included); returns its offset. All
 * read-only.
 */
unsigned pci_add_capability(struct pci_device *pci, uint8_t id, unsigned bytes);
/* The same in extended configuration space; @bytes includes the four header bytes. */
unsigned pci_add_ext_capability(struct pci_device *pci, uint16_t id, unsigned version,
				unsigned bytes);

/* Little-endian access to the function's own view of its configuration space. */
static inline uint32_t pci_get(const struct pci_device *pci, unsigned offset, unsigned size)
{
	return (uint32_t)load_le(pci->config + offset, size);
}

static inline void pci_set(struct pci_device *pci, unsigned offset, uint32_t value, unsigned size)
{
	store_le(pci->config + offset, value, size);
}

static inline void pci_set_writable(struct pci_device *pci, unsigned offset, uint32_t mask,
				    unsigned size)
{
	store_le(pci->writable + offset, mask, size);
}

static inline bool pci_is_master(const struct pci_device *pci)
{
	return pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

/* The level that the function wants on its INTx pin; Interrupt Disable is seen to here. */
void pci_set_intx(struct pci_device *pci, bool level);

/*
 * Gives the function @vectors (1..PCI_MSIX_VECTORS_MAX) MSI-X vectors, in a 32-bit BAR of 4 KiB at
 * @bar.
 */
void pci_msix_init(struct pci_device *pci, unsigned bar, unsigned vectors);
/* The driver has switched MSI-X on: the function must not use INTx. */
static inline bool pci_msix_enabled(const struct pci_device *pci)
{
	return pci->msix.enabled;
}
/* Sends the message of @vector, or holds it while it is masked. Does nothing when MSI-X is off. */
void pci_msix_notify(struct pci_device *pci, unsigned vector);
/* For pci.c: message control or Bus Master may have changed; the function was reset, attached, or is about to be detached. */
void pci_msix_update(struct pci_device *pci);
void pci_msix_reset(struct pci_device *pci);
void pci_msix_attach(struct pci_device *pci);
void pci_msix_detach(struct pci_device *pci);

/* Puts @pci at @devfn, which is free. */
void pci_bus_attach(struct pci_bus *bus, struct pci_device *pci, uint8_t devfn);

/* Resets every function, through its device_ops. */
void pci_bus_reset(struct pci_bus *bus);
/* Destroys every function, through its device_ops. */
void pci_bus_destroy_functions(struct pci_bus *bus);

/*
 * What the guest reads and writes: @offset + @size within 4096, @size 1, 2 or 4. No function there:
 * all ones.
 */
uint32_t pci_bus_config_read(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size);
void pci_bus_config_write(struct pci_bus *bus, uint8_t devfn, unsigned offset, uint32_t value,
			  unsigned size);

/*
 * What firmware does before an operating system starts: gives every BAR an address in the windows,
 * writes the interrupt lines, and enables decoding; bus mastering stays off, for the driver to
 * enable. False, and a log line, when a window is too small (that function stays undecoded). 64-bit
 * BARs are placed in the same window, below 4 GiB, so that 32-bit systems reach them.
 */
struct pci_windows {
	uint64_t mmio_base, mmio_bytes;
	uint64_t io_base, io_bytes;
	uint8_t (*interrupt_line)(unsigned line); /* the value for PCI_INTERRUPT_LINE */
};
bool pci_bus_assign(struct pci_bus *bus, const struct pci_windows *windows);

#endif
