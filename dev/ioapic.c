/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O APIC: 24 inputs, each with a redirection entry that says what message an assertion becomes.
 *
 * Theory of operation. An edge on an unmasked pin sends one message; an edge on a masked pin is
 * lost. A level sends a message when the pin is asserted, unmasked and its remote IRR is clear, and
 * sets remote IRR; the EOI of its vector (broadcast by the local APIC, or written to the EOI
 * register) clears that, and the level is looked at again. Delivery is immediate, so the delivery
 * status always reads idle. Messages have the format of MSIs.
 *
 * Manuals: Intel 82093AA data sheet (order 290566); EOI register: ICH9 data sheet, section 13.5.
 * Turning an entry to edge-triggered clears its remote IRR, which system software relies on.
 * Threading: machine lock.
 */
#include "dev/ioapic.h"

#include <assert.h>
#include <stdlib.h>

#define VERSION 0x20u
#define RO_BITS ((uint64_t)(IOREDTBL_DELIVS | IOREDTBL_REMOTE_IRR))
#define RW_BITS (0xff0000000001ffffull & ~RO_BITS)
#define ID_BITS 0x0f000000u

#define MSI_ADDRESS 0xfee00000u
#define DELMOD_LOWEST 1

struct ioapic {
	struct device dev;
	struct bus *mmio;
	const struct msi_sink *sink;
	uint8_t select;
	uint32_t id;
	uint32_t lines; /* asserted pins */
	uint64_t entry[IOAPIC_PINS];
	struct io_region region;
	ioapic_pin_fn *changed; /* NULL: nobody watches */
	void *changed_opaque;
};

static uint64_t message_address(uint64_t e)
{
	return MSI_ADDRESS | (e >> IOREDTBL_DEST_SHIFT) << 12 |
	       (e & IOREDTBL_DESTMOD ? 1u << 2 : 0);
}

/*
 * Vector, delivery mode and trigger have the same places in both formats; bit 14 is "assert".
 */
static uint32_t message_data(uint64_t e)
{
	return ((uint32_t)e &
		(IOREDTBL_VECTOR | 7u << IOREDTBL_DELMOD_SHIFT | IOREDTBL_TRIGGER)) |
	       1u << 14;
}

static void send(struct ioapic *ioapic, unsigned pin)
{
	uint64_t e = ioapic->entry[pin];

	msi_send(ioapic->sink, message_address(e), message_data(e));
}

static void service_level(struct ioapic *ioapic, unsigned pin)
{
	uint64_t *e = &ioapic->entry[pin];

	if (!(*e & IOREDTBL_TRIGGER) || *e & (IOREDTBL_MASK | IOREDTBL_REMOTE_IRR) ||
	    !(ioapic->lines & 1u << pin))
		return;
	/* SMI, NMI, INIT and ExtINT have no EOI: remote IRR is for fixed and lowest priority. */
	if ((*e >> IOREDTBL_DELMOD_SHIFT & 7) <= DELMOD_LOWEST)
		*e |= IOREDTBL_REMOTE_IRR;
	send(ioapic, pin);
}

void ioapic_set_irq(void *opaque, unsigned pin, bool level)
{
	struct ioapic *ioapic = opaque;
	bool before;

	assert(pin < IOAPIC_PINS);
	before = ioapic->lines & 1u << pin;
	if (level == before)
		return;
	ioapic->lines ^= 1u << pin;
	if (!level)
		return;
	if (ioapic->entry[pin] & IOREDTBL_TRIGGER)
		service_level(ioapic, pin);
	else if (!(ioapic->entry[pin] & IOREDTBL_MASK))
		send(ioapic, pin);
}

enum irq_edge ioapic_edge(const struct ioapic *ioapic, unsigned pin)
{
	uint64_t e = ioapic->entry[pin];

	assert(pin < IOAPIC_PINS);
	if (e & (IOREDTBL_MASK | IOREDTBL_TRIGGER) || !ioapic->sink->edge)
		return IRQ_EDGE_IGNORED;
	return ioapic->sink->edge(ioapic->sink->opaque, message_address(e), message_data(e));
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t *e = &ioapic->entry[pin];

		if ((*e & IOREDTBL_VECTOR) == vector && *e & IOREDTBL_REMOTE_IRR) {
			*e &= ~(uint64_t)IOREDTBL_REMOTE_IRR;
			service_level(ioapic, pin);
		}
	}
}

static void tell(struct ioapic *ioapic, unsigned pin)
{
	uint64_t e = ioapic->entry[pin];

	if (ioapic->changed)
		ioapic->changed(ioapic->changed_opaque, pin, e & IOREDTBL_MASK, message_address(e), message_data(e));
}

void ioapic_watch(struct ioapic *ioapic, ioapic_pin_fn *changed, void *opaque)
{
	ioapic->changed = changed;
	ioapic->changed_opaque = opaque;
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		tell(ioapic, pin);
}

static void write_entry(struct ioapic *ioapic, unsigned pin, bool high, uint32_t value)
{
	uint64_t *e = &ioapic->entry[pin], wanted;

	wanted = high ? (uint64_t)value << 32 | (uint32_t)*e : (*e & ~0xffffffffull) | value;
	*e = (*e & RO_BITS) | (wanted & RW_BITS);
	if (!(*e & IOREDTBL_TRIGGER))
		*e &= ~(uint64_t)IOREDTBL_REMOTE_IRR;
	tell(ioapic, pin);
	service_level(ioapic, pin);
}

static uint32_t read_register(const struct ioapic *ioapic)
{
	unsigned i = ioapic->select;

	switch (i) {
	case IOAPICID:
	case IOAPICARB: return ioapic->id;
	case IOAPICVER: return VERSION | (IOAPIC_PINS - 1) << 16;
	}
	if (i < IOREDTBL || i >= IOREDTBL + 2 * IOAPIC_PINS)
		return 0;
	i -= IOREDTBL;
	return (uint32_t)(ioapic->entry[i / 2] >> (i % 2 ? 32 : 0));
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct ioapic *ioapic = opaque;

	switch (offset) {
	case IOREGSEL: return ioapic->select;
	case IOWIN: return read_register(ioapic);
	default: return 0;
	}
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ioapic *ioapic = opaque;
	unsigned i = ioapic->select;

	switch (offset) {
	case IOREGSEL: ioapic->select = (uint8_t)value; break;
	case IOWIN:
		if (i == IOAPICID)
			ioapic->id = (uint32_t)value & ID_BITS;
		else if (i >= IOREDTBL && i < IOREDTBL + 2 * IOAPIC_PINS)
			write_entry(ioapic, (i - IOREDTBL) / 2, i & 1, (uint32_t)value);
		break;
	case IOEOI: ioapic_eoi(ioapic, (uint8_t)value); break;
	}
}

static void reset(struct device *dev)
{
	struct ioapic *ioapic = container_of(dev, struct ioapic, dev);

	ioapic->select = 0;
	ioapic->id = 0;
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		ioapic->entry[pin] = IOREDTBL_MASK;
		tell(ioapic, pin);
	}
}

static void destroy(struct device *dev)
{
	struct ioapic *ioapic = container_of(dev, struct ioapic, dev);

	bus_remove(ioapic->mmio, &ioapic->region);
	free(ioapic);
}

struct ioapic *ioapic_create(struct bus *mmio, uint64_t base, const struct msi_sink *sink)
{
	static const struct device_ops ops = { "ioapic", reset, destroy };
	static const struct io_ops mmio_ops = { mmio_read, mmio_write, 4, 4 };
	struct ioapic *ioapic = calloc(1, sizeof(*ioapic));

	assert(ioapic);
	ioapic->dev.ops = &ops;
	ioapic->mmio = mmio;
	ioapic->sink = sink;
	ioapic->region = (struct io_region){
		.name = "ioapic",
		.base = base,
		.length = 0x1000,
		.ops = &mmio_ops,
		.opaque = ioapic,
	};
	bus_add(mmio, &ioapic->region);
	reset(&ioapic->dev);
	return ioapic;
}

struct device *ioapic_device(struct ioapic *ioapic)
{
	return &ioapic->dev;
}
