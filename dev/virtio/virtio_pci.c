/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio over PCI, modern only: device ids 0x1040 + type, revision 1.
 *
 * Theory of operation. BAR 0 holds the four structures, a page each: common configuration, ISR,
 * device configuration, doorbells (one of four bytes for each queue; its place says which queue).
 * Vendor capabilities tell the driver where they are. A fifth capability is a peephole from
 * configuration space into BAR 0, for firmware that has no memory-mapped I/O: writing or reading
 * its data field makes an access with the offset and length in its other fields, under the same
 * checks as one through the BAR.
 *
 * Doorbells are declared to the bus: an engine that can makes a signal of each (mem/bus.h), which the loop then serves, while the vCPU
 * goes on.
 *
 * Interrupts: with MSI-X on, the vector that the driver chose, or none; else the ISR byte and INTx,
 * which reading the ISR releases. Without bus mastering the device reaches no memory.
 *
 * Manual: virtio 1.2, section 4.1.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dev/virtio/virtio_pci.h"

#define STRUCTURE_BYTES 0x1000u
#define BAR_STRUCTURES 0u
#define BAR_MSIX 1u

#define ISR_QUEUE 1u
#define ISR_CONFIG 2u

/* struct virtio_pci_cap */
enum { CAP_LEN = 2, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_EXTRA = 16 };

struct virtio_pci;

/* A doorbell that rings without a visit here. */
struct doorbell {
	struct virtio_pci *vp;
	unsigned queue;
	struct loop_fd watch;
};

struct virtio_pci {
	struct pci_device pci;
	struct virtio_device *v;
	uint32_t device_feature_select, driver_feature_select;
	uint16_t queue_select;
	uint8_t isr;
	unsigned peephole; /* offset of VIRTIO_PCI_CAP_PCI */
	unsigned bell_count; /* 0: all doorbells come as calls */
	struct doorbell bells[VIRTIO_QUEUES_MAX];
	struct io_doorbell declared[VIRTIO_QUEUES_MAX];
};

static struct virtqueue *selected_queue(struct virtio_pci *vp)
{
	return vp->queue_select < vp->v->queue_count ? &vp->v->queues[vp->queue_select] : NULL;
}

static uint64_t common_read(struct virtio_pci *vp, unsigned offset, unsigned size)
{
	const struct virtio_device *v = vp->v;
	const struct virtqueue *vq = selected_queue(vp);
	uint8_t regs[VIRTIO_PCI_COMMON_BYTES] = { 0 };

	if (offset + size > sizeof(regs))
		return size_mask(size);
	store_le(regs + VIRTIO_PCI_DEVICE_FEATURE_SELECT, vp->device_feature_select, 4);
	if (vp->device_feature_select < 2)
		store_le(regs + VIRTIO_PCI_DEVICE_FEATURE,
			 v->features >> (32 * vp->device_feature_select), 4);
	store_le(regs + VIRTIO_PCI_DRIVER_FEATURE_SELECT, vp->driver_feature_select, 4);
	if (vp->driver_feature_select < 2)
		store_le(regs + VIRTIO_PCI_DRIVER_FEATURE,
			 v->driver_features >> (32 * vp->driver_feature_select), 4);
	store_le(regs + VIRTIO_PCI_CONFIG_VECTOR, v->config_vector, 2);
	store_le(regs + VIRTIO_PCI_NUM_QUEUES, v->queue_count, 2);
	regs[VIRTIO_PCI_STATUS] = v->status;
	regs[VIRTIO_PCI_CONFIG_GENERATION] = v->config_generation;
	store_le(regs + VIRTIO_PCI_QUEUE_SELECT, vp->queue_select, 2);
	store_le(regs + VIRTIO_PCI_QUEUE_VECTOR, VIRTIO_NO_VECTOR, 2);
	if (vq) {
		store_le(regs + VIRTIO_PCI_QUEUE_SIZE, vq->size, 2);
		store_le(regs + VIRTIO_PCI_QUEUE_VECTOR, vq->vector, 2);
		store_le(regs + VIRTIO_PCI_QUEUE_ENABLE, vq->enabled, 2);
		store_le(regs + VIRTIO_PCI_QUEUE_NOTIFY_OFF, vp->queue_select, 2);
		store_le(regs + VIRTIO_PCI_QUEUE_DESC, vq->desc_gpa, 8);
		store_le(regs + VIRTIO_PCI_QUEUE_DRIVER, vq->avail_gpa, 8);
		store_le(regs + VIRTIO_PCI_QUEUE_DEVICE, vq->used_gpa, 8);
	}
	return load_le(regs + offset, size);
}

/* NO_VECTOR tells the driver that there is no such vector. */
static uint16_t vector_or_none(const struct virtio_pci *vp, uint64_t value)
{
	return value < vp->pci.msix.vectors ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

static void write_half(uint64_t *gpa, unsigned half, uint32_t value)
{
	store_le((uint8_t *)gpa + 4 * half, value, 4);
}

/* Fields of the selected queue; its geometry is frozen once it is enabled. */
static void queue_write(struct virtio_pci *vp, struct virtqueue *vq, unsigned offset,
			uint32_t value, unsigned size)
{
	bool frozen = vq->enabled || (vp->v->status & VIRTIO_STATUS_DRIVER_OK);

	if (size == 2 && offset == VIRTIO_PCI_QUEUE_VECTOR) {
		vq->vector = vector_or_none(vp, value);
		return;
	}
	if (frozen) {
		log_guest("%s: queue %u is changed while it is live: ignored", vp->v->ops->name,
			  vp->queue_select);
		return;
	}
	if (size == 2 && offset == VIRTIO_PCI_QUEUE_SIZE) {
		if (value && value <= vq->size_max && !(value & (value - 1)))
			vq->size = (uint16_t)value;
	} else if (size == 2 && offset == VIRTIO_PCI_QUEUE_ENABLE) {
		if (value == 1)
			virtio_enable_queue(vp->v, vp->queue_select);
	} else if (size == 4 && (offset & ~4u) == VIRTIO_PCI_QUEUE_DESC) {
		write_half(&vq->desc_gpa, offset / 4 & 1, value);
	} else if (size == 4 && (offset & ~4u) == VIRTIO_PCI_QUEUE_DRIVER) {
		write_half(&vq->avail_gpa, offset / 4 & 1, value);
	} else if (size == 4 && (offset & ~4u) == VIRTIO_PCI_QUEUE_DEVICE) {
		write_half(&vq->used_gpa, offset / 4 & 1, value);
	}
}

/*
 * Each field by its own width, the 64-bit ones by halves (section 4.1.3.1); other accesses do
 * nothing.
 */
static void common_write(struct virtio_pci *vp, unsigned offset, uint32_t value, unsigned size)
{
	struct virtio_device *v = vp->v;
	struct virtqueue *vq = selected_queue(vp);

	if (size == 1 && offset == VIRTIO_PCI_STATUS)
		virtio_write_status(v, (uint8_t)value);
	else if (v->resetting)
		return;
	else if (size == 4 && offset == VIRTIO_PCI_DEVICE_FEATURE_SELECT)
		vp->device_feature_select = value;
	else if (size == 4 && offset == VIRTIO_PCI_DRIVER_FEATURE_SELECT)
		vp->driver_feature_select = value;
	else if (size == 4 && offset == VIRTIO_PCI_DRIVER_FEATURE)
		virtio_write_driver_features(v, vp->driver_feature_select, value);
	else if (size == 2 && offset == VIRTIO_PCI_CONFIG_VECTOR)
		v->config_vector = vector_or_none(vp, value);
	else if (size == 2 && offset == VIRTIO_PCI_QUEUE_SELECT)
		vp->queue_select = (uint16_t)value;
	else if (vq && offset >= VIRTIO_PCI_QUEUE_SIZE)
		queue_write(vp, vq, offset, value, size);
}

static uint64_t isr_read(struct virtio_pci *vp)
{
	uint8_t isr = vp->isr;

	vp->isr = 0;
	pci_set_intx(&vp->pci, false);
	return isr;
}

static uint64_t structures_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_pci *vp = opaque;
	unsigned within = (unsigned)(offset % STRUCTURE_BYTES);

	switch (align_down(offset, STRUCTURE_BYTES)) {
	case VIRTIO_PCI_COMMON: return common_read(vp, within, size);
	case VIRTIO_PCI_ISR: return within == 0 ? isr_read(vp) : 0;
	case VIRTIO_PCI_DEVICE:
		if (within + size <= vp->v->config_len)
			return load_le(vp->v->config + within, size);
		return size_mask(size);
	default: return 0; /* doorbells are write-only */
	}
}

static void structures_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_pci *vp = opaque;
	unsigned within = (unsigned)(offset % STRUCTURE_BYTES);

	switch (align_down(offset, STRUCTURE_BYTES)) {
	case VIRTIO_PCI_NOTIFY: virtio_notify(vp->v, within / VIRTIO_PCI_NOTIFY_MULTIPLIER); break;
	case VIRTIO_PCI_COMMON: common_write(vp, within, (uint32_t)value, size); break;
	case VIRTIO_PCI_DEVICE:
		if (vp->v->ops->config_write && within + size <= vp->v->config_len)
			vp->v->ops->config_write(vp->v, within, (uint32_t)value, size);
		break;
	}
}

static const struct io_ops structures_ops = {
	.read = structures_read,
	.write = structures_write,
	.max_width = 4,
};

static void vp_interrupt(void *transport, uint16_t vector, bool config)
{
	struct virtio_pci *vp = transport;

	if (pci_msix_enabled(&vp->pci)) {
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix_notify(&vp->pci, vector);
		return;
	}
	vp->isr |= config ? ISR_CONFIG : ISR_QUEUE;
	pci_set_intx(&vp->pci, true);
}

static void vp_was_reset(void *transport)
{
	struct virtio_pci *vp = transport;

	vp->device_feature_select = vp->driver_feature_select = 0;
	vp->queue_select = 0;
	isr_read(vp);
}

static const struct virtio_transport_ops transport_ops = {
	.interrupt = vp_interrupt,
	.was_reset = vp_was_reset,
};

/* What the peephole's fields name now; false: nothing that may be accessed. */
static bool peephole_target(const struct virtio_pci *vp, uint32_t *offset, uint32_t *length)
{
	const struct pci_device *pci = &vp->pci;

	*offset = pci_get(pci, vp->peephole + CAP_OFFSET, 4);
	*length = pci_get(pci, vp->peephole + CAP_LENGTH, 4);
	return pci->config[vp->peephole + CAP_BAR] == BAR_STRUCTURES &&
	       (*length == 1 || *length == 2 || *length == 4) && *offset % *length == 0 &&
	       *offset < VIRTIO_PCI_BAR_BYTES;
}

static bool touches_peephole(const struct virtio_pci *vp, unsigned offset, unsigned size)
{
	return offset < vp->peephole + CAP_EXTRA + 4 && offset + size > vp->peephole + CAP_EXTRA;
}

static void vp_config_reading(struct pci_device *pci, unsigned offset, unsigned size)
{
	struct virtio_pci *vp = container_of(pci, struct virtio_pci, pci);
	uint32_t at, length;

	if (touches_peephole(vp, offset, size) && peephole_target(vp, &at, &length))
		pci_set(pci, vp->peephole + CAP_EXTRA, (uint32_t)structures_read(vp, at, length),
			length);
}

static void vp_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	struct virtio_pci *vp = container_of(pci, struct virtio_pci, pci);
	uint32_t at, length;

	if (pci_msix_enabled(pci))
		pci_set_intx(pci, false);
	virtio_set_dma(vp->v, pci_is_master(pci));
	if (touches_peephole(vp, offset, size) && peephole_target(vp, &at, &length))
		structures_write(vp, at, pci_get(pci, vp->peephole + CAP_EXTRA, length), length);
}

static void on_doorbell(void *opaque, uint32_t events)
{
	struct doorbell *bell = opaque;
	uint64_t times;

	if (read(bell->watch.fd, &times, sizeof(times)) == sizeof(times))
		virtio_notify(bell->vp->v, bell->queue);
}

/* A host that gives no more descriptors costs speed, nothing else. */
static void make_doorbells(struct virtio_pci *vp)
{
	struct io_region *region = &vp->pci.bars[BAR_STRUCTURES].region;

	for (unsigned q = 0; q < vp->v->queue_count; q++) {
		struct doorbell *bell = &vp->bells[q];
		int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		struct error *err;

		if (fd < 0)
			break;
		*bell = (struct doorbell){ .vp = vp, .queue = q };
		err = loop_fd_add(vp->v->loop, &bell->watch, fd, EPOLLIN, on_doorbell, bell);
		if (err) {
			error_free(err);
			close(fd);
			break;
		}
		vp->declared[q] = (struct io_doorbell){ VIRTIO_PCI_NOTIFY + q * VIRTIO_PCI_NOTIFY_MULTIPLIER, fd };
		vp->bell_count++;
	}
	region->doorbells = vp->declared;
	region->doorbell_count = vp->bell_count;
}

/* The BAR is unmapped. */
static void end_doorbells(struct virtio_pci *vp)
{
	for (unsigned q = 0; q < vp->bell_count; q++) {
		loop_fd_remove(&vp->bells[q].watch);
		close(vp->declared[q].fd);
	}
}

static void vp_reset(struct device *dev)
{
	struct virtio_pci *vp = container_of(dev, struct virtio_pci, pci.dev);

	virtio_reset(vp->v);
	pci_device_reset(&vp->pci);
	virtio_set_dma(vp->v, false);
}

static void vp_destroy(struct device *dev)
{
	struct virtio_pci *vp = container_of(dev, struct virtio_pci, pci.dev);

	virtio_reset(vp->v);
	pci_device_finish(&vp->pci);
	end_doorbells(vp);
	vp->v->ops->destroy(vp->v);
	free(vp);
}

static const struct device_ops vp_ops = {
	.name = "virtio-pci",
	.reset = vp_reset,
	.destroy = vp_destroy,
};

static unsigned add_structure(struct pci_device *pci, uint8_t type, uint32_t offset,
			      uint32_t length, unsigned extra)
{
	unsigned cap = pci_add_capability(pci, PCI_CAP_ID_VENDOR, CAP_EXTRA + extra);

	pci_set(pci, cap + CAP_LEN, CAP_EXTRA + extra, 1);
	pci_set(pci, cap + CAP_TYPE, type, 1);
	pci_set(pci, cap + CAP_BAR, BAR_STRUCTURES, 1);
	pci_set(pci, cap + CAP_OFFSET, offset, 4);
	pci_set(pci, cap + CAP_LENGTH, length, 4);
	return cap;
}

void virtio_pci_attach(struct pci_bus *bus, uint8_t devfn, struct virtio_device *v)
{
	const struct pci_identity id = {
		.vendor = 0x1af4,
		.device = 0x1040 + v->ops->id,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1040 + v->ops->id,
		.class_code = v->ops->class_code,
		.revision = 1,
		.interrupt_pin = 1,
	};
	struct virtio_pci *vp = calloc(1, sizeof(*vp));
	struct pci_device *pci = &vp->pci;
	unsigned cap;

	assert(vp);
	static_assert(VIRTIO_QUEUES_MAX + 1 <= PCI_MSIX_VECTORS_MAX, "a vector for each queue");
	pci->dev.ops = &vp_ops;
	pci_device_init(pci, &id);
	pci->config_reading = vp_config_reading;
	pci->config_written = vp_config_written;
	pci_add_bar(pci, BAR_STRUCTURES, PCI_BAR_MEM32, VIRTIO_PCI_BAR_BYTES,
		    v->ops->name, &structures_ops, vp);

	add_structure(pci, VIRTIO_PCI_CAP_COMMON, VIRTIO_PCI_COMMON, VIRTIO_PCI_COMMON_BYTES, 0);
	cap = add_structure(pci, VIRTIO_PCI_CAP_NOTIFY, VIRTIO_PCI_NOTIFY,
			    VIRTIO_PCI_NOTIFY_MULTIPLIER * v->queue_count, 4);
	pci_set(pci, cap + CAP_EXTRA, VIRTIO_PCI_NOTIFY_MULTIPLIER, 4);
	add_structure(pci, VIRTIO_PCI_CAP_ISR, VIRTIO_PCI_ISR, 1, 0);
	if (v->config_len)
		add_structure(pci, VIRTIO_PCI_CAP_DEVICE, VIRTIO_PCI_DEVICE, v->config_len, 0);
	vp->peephole = add_structure(pci, VIRTIO_PCI_CAP_PCI, 0, 0, 4);
	pci_set_writable(pci, vp->peephole + CAP_BAR, 0xff, 1);
	pci_set_writable(pci, vp->peephole + CAP_OFFSET, ~0u, 4);
	pci_set_writable(pci, vp->peephole + CAP_LENGTH, ~0u, 4);
	pci_set_writable(pci, vp->peephole + CAP_EXTRA, ~0u, 4);
	pci_msix_init(pci, BAR_MSIX, v->queue_count + 1);

	vp->v = v;
	if (bus_has_ringer(bus->mem->mmio))
		make_doorbells(vp);
	v->transport_ops = &transport_ops;
	v->transport = vp;
	pci_bus_attach(bus, pci, devfn);
}
