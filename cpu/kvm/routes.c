/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel passes on without a visit here (KVM's documentation, api.rst).
 *
 * - Doorbells: a guest's write becomes a signal on an eventfd (KVM_IOEVENTFD).
 * - Messages: a signal on an eventfd becomes an interrupt (KVM_IRQFD). The message is in the route of an interrupt line that belongs to the
 *   descriptor; devices write it there before they signal, and again when their driver has changed it.
 * - Ends of interrupts: for the EOI of a level-triggered one to come out to us, the kernel has to know which vectors are such: from the
 *   routes of the first ENGINE_PINS lines, which therefore follow the I/O APIC's level-triggered entries. Nobody ever raises these lines.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "cpu/kvm/kvm_priv.h"

#define MSI_LEVEL (1u << 15)
#define MSI_MODE (7u << 8) /* 0: fixed */

/* ---- Doorbells (mem/bus.h) ---- */

static void set_doorbell(void *opaque, uint64_t addr, int fd, bool on)
{
	struct kvm_engine *e = opaque;
	struct kvm_ioeventfd k = { .addr = addr, .fd = fd, .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN };

	ioctl(e->vm_fd, KVM_IOEVENTFD, &k); /* what fails comes out to us as before */
}

/* Without the length, or there is a second one for each width. */
void kvm_take_doorbells(struct kvm_engine *e)
{
	const struct bus_ringer ringer = { set_doorbell, e };

	if (ioctl(e->fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD) > 0 &&
	    ioctl(e->fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0)
		bus_set_ringer(e->mem->mmio, &ringer);
}

/* ---- Routes ---- */

void kvm_routes_init(struct kvm_engine *e)
{
	for (unsigned n = 0; n < KVM_IRQFDS; n++)
		e->irqfds[n] = -1;
}

static bool set_routes(struct kvm_engine *e)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entries[ARRAY_SIZE(e->routes)];
	} table = { 0 };

	for (unsigned gsi = 0; gsi < ARRAY_SIZE(e->routes); gsi++)
		if (e->routes[gsi].type)
			table.entries[table.head.nr++] = e->routes[gsi];
	return ioctl(e->vm_fd, KVM_SET_GSI_ROUTING, &table) == 0;
}

static struct kvm_irq_routing_entry message(unsigned gsi, uint64_t address, uint32_t data)
{
	struct kvm_irq_routing_entry entry = { .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI };

	entry.u.msi.address_lo = (uint32_t)address;
	entry.u.msi.address_hi = (uint32_t)(address >> 32);
	entry.u.msi.data = data;
	return entry;
}

/* A masked entry keeps its route: the interrupt that it has sent may have its EOI to come. */
void kvm_set_pin(struct engine *engine, unsigned pin, bool masked, uint64_t address, uint32_t data)
{
	struct kvm_engine *e = kvm_engine_of(engine);
	struct kvm_irq_routing_entry entry = { .gsi = pin };

	if (!masked && (data & MSI_LEVEL))
		entry = message(pin, address, data);
	if ((masked && e->routes[pin].type && (data & MSI_LEVEL)) || !memcmp(&entry, &e->routes[pin], sizeof(entry)))
		return;
	e->routes[pin] = entry;
	if (!set_routes(e))
		log_warn("KVM refuses the I/O APIC's level-triggered interrupts: %s", strerror(errno));
}

/* ---- Messages of eventfds ---- */

/* @fd: -1 finds a free one. KVM_IRQFDS: none. */
static unsigned find_irqfd(const struct kvm_engine *e, int fd)
{
	unsigned n = 0;

	while (n < KVM_IRQFDS && e->irqfds[n] != fd)
		n++;
	return n;
}

static bool listen_to(struct kvm_engine *e, int fd, unsigned gsi, bool on)
{
	struct kvm_irqfd k = { .fd = (uint32_t)fd, .gsi = gsi, .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN };

	return ioctl(e->vm_fd, KVM_IRQFD, &k) == 0;
}

static void forget(struct kvm_engine *e, unsigned n)
{
	e->routes[ENGINE_PINS + n].type = 0;
	if (e->irqfds[n] < 0) /* it has not come as far as that */
		return;
	listen_to(e, e->irqfds[n], ENGINE_PINS + n, false);
	e->irqfds[n] = -1;
	e->irqfd_count--;
}

/* What the kernel delivers before the write to the eventfd returns. The rest it leaves to a thread of its own: a saved state could miss it. */
static bool is_immediate(uint64_t address, uint32_t data)
{
	return !(data & MSI_MODE) && (address >> 12 & 0xff) != 0xff;
}

/* A descriptor that cannot have this message has none: the old one would be wrong. */
bool kvm_set_irqfd(struct engine *engine, int fd, bool on, uint64_t address, uint32_t data)
{
	struct kvm_engine *e = kvm_engine_of(engine);
	unsigned n = find_irqfd(e, fd);
	bool is_new = n == KVM_IRQFDS;

	on = on && is_immediate(address, data);
	if (on && is_new)
		n = find_irqfd(e, -1);
	if (n == KVM_IRQFDS)
		return false;
	if (on) {
		e->routes[ENGINE_PINS + n] = message(ENGINE_PINS + n, address, data);
		on = set_routes(e);
	}
	if (on && is_new) {
		on = listen_to(e, fd, ENGINE_PINS + n, true);
		e->irqfds[n] = fd;
		e->irqfd_count++;
	}
	if (!on)
		forget(e, n);
	return on;
}
