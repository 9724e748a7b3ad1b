/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus between local APICs: who receives a message.
 *
 * Theory of operation. A message has a destination of eight bits (xAPIC, MSI, I/O APIC) or of 32
 * (x2APIC ICR). Each local APIC that is enabled in hardware compares it with its own id or logical
 * id in the mode it is in. An eight-bit logical destination reaches x2APIC processors as their
 * cluster 0, an eight-bit physical 0xff reaches all. Lowest priority chooses among the
 * software-enabled ones the lowest PPR; among equals the turn goes round.
 *
 * Manual: Intel SDM volume 3A, sections "Determining IPI Destination", "Lowest Priority Delivery
 * Mode", "Message Signalled Interrupts". Threading: machine lock.
 */
#include <assert.h>
#include <stdlib.h>

#include "dev/lapic_priv.h"

#define BROADCAST8 0xffu
#define BROADCAST32 0xffffffffu

struct apic_bus {
	struct msi_sink sink;
	uint8_t (*pic_ack)(void *opaque);
	void *pic_opaque;
	void (*eoi)(void *opaque, uint8_t vector);
	void *eoi_opaque;
	void (*taken)(void *opaque);
	void *taken_opaque;
	bool lint[2];
	unsigned turn; /* where the search for the lowest priority starts */
	unsigned count, max;
	struct lapic *cpu[];
};

static bool matches_physical(const struct lapic *l, const struct apic_message *m)
{
	uint32_t id = lapic_x2apic(l) ? l->config.apic_id : l->config.apic_id & 0xff;

	return m->dest == (m->wide ? BROADCAST32 : BROADCAST8) || m->dest == id;
}

static bool matches_logical(const struct lapic *l, const struct apic_message *m)
{
	uint32_t id = lapic_logical_id(l), dest = m->dest;

	if (m->wide && dest == BROADCAST32)
		return true;
	if (lapic_x2apic(l))
		return dest >> 16 == id >> 16 && dest & id & 0xffff;
	if (dest >= BROADCAST8)
		return dest == BROADCAST8;
	id >>= 24;
	switch (l->dfr >> 28) {
	case 0xf: /* flat */ return dest & id;
	case 0x0: /* cluster */ return dest >> 4 == id >> 4 && dest & id & 0xf;
	default: return false;
	}
}

static bool matches(const struct lapic *l, const struct apic_message *m)
{
	if (!lapic_hw_enabled(l))
		return false;
	return m->logical ? matches_logical(l, m) : matches_physical(l, m);
}

static struct lapic *arbitrate(struct apic_bus *bus, const struct apic_message *m)
{
	struct lapic *best = NULL;
	unsigned best_at = 0;

	for (unsigned i = 0; i < bus->count; i++) {
		unsigned at = (bus->turn + i) % bus->count;
		struct lapic *l = bus->cpu[at];

		if (!matches(l, m) || !(l->svr & APIC_SVR_ENABLE))
			continue;
		if (!best || lapic_ppr(l) < lapic_ppr(best)) {
			best = l;
			best_at = at;
		}
	}
	if (best)
		bus->turn = best_at + 1;
	return best;
}

void apic_bus_send(struct apic_bus *bus, struct lapic *from, enum apic_shorthand shorthand,
		   const struct apic_message *m)
{
	if (shorthand == APIC_TO_SELF) {
		lapic_deliver(from, m->delivery, m->vector, m->level);
		return;
	}
	if (shorthand == APIC_TO_DEST && (m->delivery == APIC_LOWEST || m->redirect)) {
		struct lapic *l = arbitrate(bus, m);

		if (l)
			lapic_deliver(l, m->delivery, m->vector, m->level);
		return;
	}
	for (unsigned i = 0; i < bus->count; i++) {
		struct lapic *l = bus->cpu[i];
		bool wanted;

		switch (shorthand) {
		case APIC_TO_ALL: wanted = lapic_hw_enabled(l); break;
		case APIC_TO_OTHERS: wanted = lapic_hw_enabled(l) && l != from; break;
		default: wanted = matches(l, m); break;
		}
		if (wanted)
			lapic_deliver(l, m->delivery, m->vector, m->level);
	}
}

static struct apic_message msi_message(uint64_t address, uint32_t data)
{
	return (struct apic_message){
		.delivery = (enum apic_delivery)(data >> 8 & 7),
		.vector = (uint8_t)data,
		.level = data & 1u << 15,
		.logical = address & 1u << 2,
		.redirect = (address & 0xc) == 0xc,
		.dest = address >> 12 & 0xff,
	};
}

bool apic_bus_send_one(struct apic_bus *bus, const struct apic_message *m)
{
	for (unsigned i = 0; i < bus->count; i++) {
		struct lapic *l = bus->cpu[i];

		if (l->config.apic_id == m->dest && lapic_hw_enabled(l)) {
			lapic_deliver(l, m->delivery, m->vector, m->level);
			return true;
		}
	}
	return false;
}

bool apic_msi_valid(uint64_t address, uint32_t data)
{
	unsigned delivery = data >> 8 & 7;

	if (address >> 20 != 0xfee) {
		log_guest("a device sent an interrupt message to 0x%llx, which no local APIC "
			  "listens to",
			  (unsigned long long)address);
		return false;
	}
	/* Start-up and the reserved code are not among the delivery modes of an MSI. */
	return delivery != APIC_SIPI && delivery != 3;
}

static void send_msi(void *opaque, uint64_t address, uint32_t data)
{
	struct apic_message m = msi_message(address, data);

	if (apic_msi_valid(address, data))
		apic_bus_send(opaque, NULL, APIC_TO_DEST, &m);
}

static enum irq_edge msi_edge(void *opaque, uint64_t address, uint32_t data)
{
	const struct apic_bus *bus = opaque;
	struct apic_message m = msi_message(address, data);
	enum irq_edge edge = IRQ_EDGE_IGNORED;

	if (address >> 20 != 0xfee || m.delivery > APIC_LOWEST)
		return IRQ_EDGE_IGNORED;
	for (unsigned i = 0; i < bus->count; i++) {
		const struct lapic *l = bus->cpu[i];

		if (!matches(l, &m) || !(l->svr & APIC_SVR_ENABLE))
			continue;
		if (lapic_has_request(l, m.vector))
			return IRQ_EDGE_WAITS;
		edge = IRQ_EDGE_TAKEN;
	}
	return edge;
}

const struct msi_sink *apic_bus_msi_sink(struct apic_bus *bus)
{
	return &bus->sink;
}

void apic_bus_set_lint(void *opaque, unsigned pin, bool level)
{
	struct apic_bus *bus = opaque;

	assert(pin < 2);
	bus->lint[pin] = level;
	for (unsigned i = 0; i < bus->count; i++)
		lapic_set_lint(bus->cpu[i], pin, level);
}

void apic_bus_set_pic(struct apic_bus *bus, uint8_t (*ack)(void *opaque), void *opaque)
{
	bus->pic_ack = ack;
	bus->pic_opaque = opaque;
}

int apic_bus_pic_ack(struct apic_bus *bus)
{
	return bus->pic_ack ? bus->pic_ack(bus->pic_opaque) : -1;
}

void apic_bus_set_eoi(struct apic_bus *bus, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
	bus->eoi = eoi;
	bus->eoi_opaque = opaque;
}

void apic_bus_eoi(struct apic_bus *bus, uint8_t vector)
{
	if (bus->eoi)
		bus->eoi(bus->eoi_opaque, vector);
}

void apic_bus_set_taken(struct apic_bus *bus, void (*taken)(void *opaque), void *opaque)
{
	bus->taken = taken;
	bus->taken_opaque = opaque;
}

void apic_bus_taken(struct apic_bus *bus)
{
	if (bus->taken)
		bus->taken(bus->taken_opaque);
}

void apic_bus_attach(struct apic_bus *bus, struct lapic *l)
{
	assert(bus->count < bus->max);
	for (unsigned i = 0; i < bus->count; i++)
		assert(bus->cpu[i]->config.apic_id != l->config.apic_id);
	bus->cpu[bus->count++] = l;
	l->lint[0] = bus->lint[0];
	l->lint[1] = bus->lint[1];
}

void apic_bus_detach(struct apic_bus *bus, struct lapic *l)
{
	for (unsigned i = 0; i < bus->count; i++) {
		if (bus->cpu[i] == l) {
			bus->cpu[i] = bus->cpu[--bus->count];
			return;
		}
	}
	assert(!"a local APIC that is on its bus");
}

struct apic_bus *apic_bus_create(unsigned max_cpus)
{
	struct apic_bus *bus = calloc(1, sizeof(*bus) + max_cpus * sizeof(bus->cpu[0]));

	assert(bus);
	bus->max = max_cpus;
	bus->sink = (struct msi_sink){ .send = send_msi, .opaque = bus, .edge = msi_edge };
	return bus;
}

void apic_bus_destroy(struct apic_bus *bus)
{
	assert(!bus || bus->count == 0);
	free(bus);
}
