/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small guest driver for unit tests and fuzzers of virtio devices: guest RAM, a PCI bus, and a
 * driver that finds the device's structures through its capabilities and talks to it as a guest
 * does, by memory-mapped accesses and rings in RAM. It also lets a test write anything wrong into
 * the rings.
 *
 * Guest memory: rings of queue q at RING_BASE + q * RING_STRIDE; from DATA_BASE on it is the
 * test's.
 */
#ifndef TESTS_UNIT_VIRTIO_DRIVER_H
#define TESTS_UNIT_VIRTIO_DRIVER_H

#include <stdlib.h>

#include "dev/virtio/virtio_pci.h"
#include "tests/unit/fakes.h"

#define RIG_RAM_BYTES (4 * MiB)
#define RING_BASE 0x10000ull
#define RING_STRIDE 0x4000ull
#define DATA_BASE 0x100000ull
#define RIG_BAR 0xd0000000ull
#define RIG_MSIX_BAR 0xd0010000ull
#define RIG_DEVFN PCI_DEVFN(3, 0)

struct rig {
	struct memory *mem;
	struct loop *loop;
	struct pci_bus bus;
	struct fake_msi msi;
	struct fake_line lines[PCI_IRQ_LINES];
};

static inline unsigned rig_route(unsigned slot, unsigned pin)
{
	return (slot + pin) % PCI_IRQ_LINES;
}

static inline void rig_init(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	if (memory_create(RIG_RAM_BYTES, &rig->mem) || loop_create(&rig->loop))
		abort();
	fake_msi_init(&rig->msi);
	rig->bus.mem = rig->mem;
	rig->bus.msi = rig->msi.sink;
	rig->bus.route = rig_route;
	rig->bus.set_line = fake_line_set;
	rig->bus.opaque = rig->lines;
}

static inline void rig_finish(struct rig *rig)
{
	pci_bus_destroy_functions(&rig->bus);
	loop_destroy(rig->loop);
	memory_destroy(rig->mem);
}

static inline void rig_stop_loop(void *opaque)
{
	loop_stop(opaque);
}

/* Runs the loop for some rounds: in each, what is due fires before the timer that ends the round. */
static inline void rig_run_loop(struct rig *rig)
{
	struct loop_timer stop;

	for (unsigned round = 0; round < 16; round++) {
		loop_timer_init(rig->loop, &stop, rig_stop_loop, rig->loop);
		loop_timer_arm(&stop, loop_now_ns());
		loop_run(rig->loop);
	}
}

struct drv_buffer {
	uint64_t gpa;
	uint32_t len;
	bool in; /* the device writes it */
};

struct drv_queue {
	unsigned index;
	uint16_t size;
	uint64_t desc, avail, used;
	uint16_t next_desc; /* next free descriptor, around the table */
	uint16_t avail_idx, used_seen;
};

struct drv {
	struct rig *rig;
	uint64_t common, notify, isr, device; /* addresses of the structures */
	uint32_t notify_multiplier;
	unsigned peephole; /* offset of the PCI access capability */
	unsigned msix;
	bool event_index;
	struct drv_queue q[VIRTIO_QUEUES_MAX];
};

static inline uint32_t drv_cfg_read(struct drv *d, unsigned offset, unsigned size)
{
	return pci_bus_config_read(&d->rig->bus, RIG_DEVFN, offset, size);
}

static inline void drv_cfg_write(struct drv *d, unsigned offset, uint32_t value, unsigned size)
{
	pci_bus_config_write(&d->rig->bus, RIG_DEVFN, offset, value, size);
}

static inline uint64_t drv_read(struct drv *d, uint64_t addr, unsigned size)
{
	return bus_read(d->rig->mem->mmio, addr, size);
}

static inline void drv_write(struct drv *d, uint64_t addr, uint64_t value, unsigned size)
{
	bus_write(d->rig->mem->mmio, addr, value, size);
}

static inline uint8_t drv_status(struct drv *d)
{
	return (uint8_t)drv_read(d, d->common + VIRTIO_PCI_STATUS, 1);
}

static inline void drv_set_status(struct drv *d, uint8_t status)
{
	drv_write(d, d->common + VIRTIO_PCI_STATUS, status, 1);
}

/* Places the BARs, enables memory and bus mastering, walks the capabilities. */
static inline void drv_probe(struct drv *d, struct rig *rig)
{
	unsigned cap;

	memset(d, 0, sizeof(*d));
	d->rig = rig;
	drv_cfg_write(d, PCI_BAR0, RIG_BAR, 4);
	drv_cfg_write(d, PCI_BAR0 + 4, RIG_MSIX_BAR, 4);
	drv_cfg_write(d, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	for (cap = drv_cfg_read(d, PCI_CAPABILITY_LIST, 1); cap;
	     cap = drv_cfg_read(d, cap + 1, 1)) {
		uint64_t at = RIG_BAR + drv_cfg_read(d, cap + 8, 4);

		if (drv_cfg_read(d, cap, 1) == PCI_CAP_ID_MSIX)
			d->msix = cap;
		if (drv_cfg_read(d, cap, 1) != PCI_CAP_ID_VENDOR)
			continue;
		switch (drv_cfg_read(d, cap + 3, 1)) {
		case VIRTIO_PCI_CAP_COMMON: d->common = at; break;
		case VIRTIO_PCI_CAP_NOTIFY:
			d->notify = at;
			d->notify_multiplier = drv_cfg_read(d, cap + 16, 4);
			break;
		case VIRTIO_PCI_CAP_ISR: d->isr = at; break;
		case VIRTIO_PCI_CAP_DEVICE: d->device = at; break;
		case VIRTIO_PCI_CAP_PCI: d->peephole = cap; break;
		}
	}
}

static inline uint64_t drv_offered(struct drv *d)
{
	uint64_t features = 0;

	for (unsigned i = 0; i < 2; i++) {
		drv_write(d, d->common + VIRTIO_PCI_DEVICE_FEATURE_SELECT, i, 4);
		features |= drv_read(d, d->common + VIRTIO_PCI_DEVICE_FEATURE, 4) << (32 * i);
	}
	return features;
}

/* Reset up to and with FEATURES_OK; returns the status that the device then shows. */
static inline uint8_t drv_negotiate(struct drv *d, uint64_t features)
{
	drv_set_status(d, 0);
	drv_set_status(d, VIRTIO_STATUS_ACKNOWLEDGE);
	drv_set_status(d, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		drv_write(d, d->common + VIRTIO_PCI_DRIVER_FEATURE_SELECT, i, 4);
		drv_write(d, d->common + VIRTIO_PCI_DRIVER_FEATURE,
			  features >> (32 * i) & 0xffffffff, 4);
	}
	d->event_index = features & VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
	drv_set_status(d, 0x0b);
	return drv_status(d);
}

/* Gives the device the addresses of queue @index, and with @enable enables it. */
static inline void drv_set_queue(struct drv *d, unsigned index, uint16_t size, bool enable)
{
	struct drv_queue *q = &d->q[index];
	uint64_t base = RING_BASE + index * RING_STRIDE;

	*q = (struct drv_queue){
		.index = index,
		.size = size,
		.desc = base,
		.avail = base + 0x1000,
		.used = base + 0x2000,
	};
	memset(d->rig->mem->ram_base + base, 0, 0x3000);
	drv_write(d, d->common + VIRTIO_PCI_QUEUE_SELECT, index, 2);
	drv_write(d, d->common + VIRTIO_PCI_QUEUE_SIZE, size, 2);
	drv_write(d, d->common + VIRTIO_PCI_QUEUE_DESC, q->desc, 8);
	drv_write(d, d->common + VIRTIO_PCI_QUEUE_DRIVER, q->avail, 8);
	drv_write(d, d->common + VIRTIO_PCI_QUEUE_DEVICE, q->used, 8);
	if (enable)
		drv_write(d, d->common + VIRTIO_PCI_QUEUE_ENABLE, 1, 2);
}

static inline void drv_ready(struct drv *d)
{
	drv_set_status(d, 0x0f);
}

/*
 * All of it, with all queues (at most four) of @size entries. Returns the status: 0x0f is success.
 */
static inline uint8_t drv_start(struct drv *d, uint64_t features, uint16_t size)
{
	unsigned queues = MIN((unsigned)drv_read(d, d->common + VIRTIO_PCI_NUM_QUEUES, 2), 4u);

	drv_negotiate(d, features);
	for (unsigned i = 0; i < queues; i++)
		drv_set_queue(d, i, size, true);
	drv_ready(d);
	return drv_status(d);
}

/*
 * Programs MSI-X: message @v for vector @v, one vector for each queue and one for the
 * configuration.
 */
static inline void drv_enable_msix(struct drv *d)
{
	unsigned vectors = (drv_cfg_read(d, d->msix + 2, 2) & 0x7ff) + 1;

	for (unsigned i = 0; i < vectors; i++) {
		drv_write(d, RIG_MSIX_BAR + 16 * i, 0xfee00000, 4);
		drv_write(d, RIG_MSIX_BAR + 16 * i + 4, 0, 4);
		drv_write(d, RIG_MSIX_BAR + 16 * i + 8, 0x40 + i, 4);
		drv_write(d, RIG_MSIX_BAR + 16 * i + 12, 0, 4);
	}
	drv_cfg_write(d, d->msix + 2, 0x8000, 2);
	for (unsigned i = 0; i + 1 < vectors; i++) {
		drv_write(d, d->common + VIRTIO_PCI_QUEUE_SELECT, i, 2);
		drv_write(d, d->common + VIRTIO_PCI_QUEUE_VECTOR, i, 2);
	}
	drv_write(d, d->common + VIRTIO_PCI_CONFIG_VECTOR, vectors - 1, 2);
}

static inline void ram_store(struct rig *rig, uint64_t gpa, uint64_t value, unsigned size)
{
	store_le(rig->mem->ram_base + gpa, value, size);
}

static inline uint64_t ram_load(struct rig *rig, uint64_t gpa, unsigned size)
{
	return load_le(rig->mem->ram_base + gpa, size);
}

/* One raw descriptor. */
static inline void drv_desc(struct drv *d, uint64_t table, unsigned i, uint64_t addr, uint32_t len,
			    uint16_t flags, uint16_t next)
{
	ram_store(d->rig, table + 16 * i, addr, 8);
	ram_store(d->rig, table + 16 * i + 8, len, 4);
	ram_store(d->rig, table + 16 * i + 12, flags, 2);
	ram_store(d->rig, table + 16 * i + 14, next, 2);
}

/* Makes the chain at @head available. */
static inline void drv_offer(struct drv *d, unsigned index, uint16_t head)
{
	struct drv_queue *q = &d->q[index];

	ram_store(d->rig, q->avail + 4 + 2 * (q->avail_idx % q->size), head, 2);
	q->avail_idx++;
	ram_store(d->rig, q->avail + 2, q->avail_idx, 2);
}

/* Adds a chain of @count buffers and returns its head. */
static inline uint16_t drv_add(struct drv *d, unsigned index, const struct drv_buffer *buffers,
			       unsigned count)
{
	struct drv_queue *q = &d->q[index];
	uint16_t head = q->next_desc % q->size;

	for (unsigned i = 0; i < count; i++) {
		unsigned at = q->next_desc++ % q->size;

		drv_desc(d, q->desc, at, buffers[i].gpa, buffers[i].len,
			 (uint16_t)((i + 1 < count ? 1 : 0) | (buffers[i].in ? 2 : 0)),
			 (uint16_t)(q->next_desc % q->size));
	}
	drv_offer(d, index, head);
	return head;
}

static inline void drv_kick(struct drv *d, unsigned index)
{
	drv_write(d, d->notify + index * d->notify_multiplier, index, 2);
}

/* The next used entry. */
static inline bool drv_used(struct drv *d, unsigned index, uint32_t *id, uint32_t *len)
{
	struct drv_queue *q = &d->q[index];
	uint64_t entry = q->used + 4 + 8 * (q->used_seen % q->size);

	if ((uint16_t)ram_load(d->rig, q->used + 2, 2) == q->used_seen)
		return false;
	if (id)
		*id = (uint32_t)ram_load(d->rig, entry, 4);
	if (len)
		*len = (uint32_t)ram_load(d->rig, entry + 4, 4);
	q->used_seen++;
	return true;
}

#endif
