/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI transport and the status machine of virtio, with the entropy device behind them. */
#include <unistd.h>

#include "dev/virtio/virtio_rng.h"
#include "tests/tap.h"
#include "tests/unit/virtio_driver.h"

#define FEATURES (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC))
#define GSI (3 % PCI_IRQ_LINES) /* RIG_DEVFN, INTA# */

static struct rig rig;
static struct drv d;

static uint64_t common(unsigned offset, unsigned size)
{
	return drv_read(&d, d.common + offset, size);
}

static void test_identity(void)
{
	is_u64(drv_cfg_read(&d, 0, 4), 0x10441af4, "modern device id");
	is_u64(drv_cfg_read(&d, 8, 1), 1, "revision 1");
	is_u64(d.common, RIG_BAR, "common configuration found");
	is_u64(d.isr, RIG_BAR + 0x1000, "ISR found");
	is_u64(d.notify, RIG_BAR + 0x3000, "doorbells found");
	is_u64(d.device, 0, "no device configuration");
	ok(d.peephole && d.msix, "access capability and MSI-X found");
	is_u64(common(VIRTIO_PCI_NUM_QUEUES, 2), 1, "one queue");
	is_u64(drv_offered(&d), 0x130000000, "features");
	drv_write(&d, d.common + VIRTIO_PCI_DEVICE_FEATURE_SELECT, 2, 4);
	is_u64(common(VIRTIO_PCI_DEVICE_FEATURE, 4), 0, "no features beyond 63");
	is_u64(common(VIRTIO_PCI_QUEUE_SIZE, 2), 16, "queue size");
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_SELECT, 1, 2);
	is_u64(common(VIRTIO_PCI_QUEUE_SIZE, 2), 0, "no second queue");
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_ENABLE, 1, 2);
	is_u64(drv_status(&d), 0, "enabling it does nothing");
	is_u64(drv_read(&d, d.notify, 4), 0, "doorbells are write-only");
	is_u64(drv_read(&d, d.common + VIRTIO_PCI_COMMON_BYTES, 4), 0xffffffff,
	       "nothing behind the structure");
}

static void test_status(void)
{
	drv_set_status(&d, VIRTIO_STATUS_DRIVER);
	is_u64(drv_status(&d), 0, "DRIVER needs ACKNOWLEDGE");
	drv_set_status(&d, 1);
	drv_set_status(&d, 5);
	is_u64(drv_status(&d), 1, "DRIVER_OK needs FEATURES_OK");
	drv_set_status(&d, 3);
	drv_set_status(&d, 2);
	is_u64(drv_status(&d), 3, "bits are not cleared by writing");
	drv_set_status(&d, 0x0b);
	is_u64(drv_status(&d), 3, "FEATURES_OK needs VERSION_1");
	is_u64(drv_negotiate(&d, FEATURES | 1), 3, "and nothing that was not offered");
	is_u64(drv_negotiate(&d, FEATURES), 0x0b, "FEATURES_OK");
	drv_write(&d, d.common + VIRTIO_PCI_DRIVER_FEATURE_SELECT, 0, 4);
	drv_write(&d, d.common + VIRTIO_PCI_DRIVER_FEATURE, 0, 4);
	is_u64(common(VIRTIO_PCI_DRIVER_FEATURE, 4), 0x10000000, "features are frozen then");
	drv_set_status(&d, 0x8b);
	is_u64(drv_status(&d), 0x8b, "FAILED is taken");
	drv_set_status(&d, 0);
	is_u64(drv_status(&d), 0, "reset");
}

static void test_queue_rules(void)
{
	drv_set_status(&d, 3);
	drv_set_queue(&d, 0, 8, true);
	is_u64(common(VIRTIO_PCI_QUEUE_ENABLE, 2), 0, "no queue before FEATURES_OK");
	drv_negotiate(&d, FEATURES);
	drv_set_queue(&d, 0, 8, true);
	is_u64(common(VIRTIO_PCI_QUEUE_ENABLE, 2), 1, "enabled");
	is_u64(common(VIRTIO_PCI_QUEUE_SIZE, 2), 8, "with eight entries");
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_SIZE, 16, 2);
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_DESC, 0, 8);
	is_u64(common(VIRTIO_PCI_QUEUE_SIZE, 2), 8, "the size is frozen");
	is_u64(common(VIRTIO_PCI_QUEUE_DESC, 8), RING_BASE, "and the address");
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_ENABLE, 0, 2);
	is_u64(common(VIRTIO_PCI_QUEUE_ENABLE, 2), 1, "disabling is not possible");
	drv_set_status(&d, 0);
	is_u64(common(VIRTIO_PCI_QUEUE_SIZE, 2), 16, "reset brings the size back");
	is_u64(common(VIRTIO_PCI_QUEUE_ENABLE, 2), 0, "and disables");
	drv_negotiate(&d, FEATURES);
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_SIZE, 12, 2);
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_SIZE, 0, 2);
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_SIZE, 32, 2);
	is_u64(common(VIRTIO_PCI_QUEUE_SIZE, 2), 16, "sizes that cannot be are not taken");
	drv_ready(&d);
	drv_set_queue(&d, 0, 8, true);
	is_u64(common(VIRTIO_PCI_QUEUE_ENABLE, 2), 0, "no queue is enabled after DRIVER_OK");

	drv_negotiate(&d, FEATURES);
	drv_set_queue(&d, 0, 8, false);
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_DEVICE, 0xfee00000, 8);
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_ENABLE, 1, 2);
	is_u64(drv_status(&d), 0x4b, "a ring in MMIO: the device needs a reset");
	drv_set_status(&d, 0);
	is_u64(drv_status(&d), 0, "which helps");
}

static void ask(uint32_t len)
{
	struct drv_buffer b = { DATA_BASE, len, true };

	memset(rig.mem->ram_base + DATA_BASE, 0, 4096);
	drv_add(&d, 0, &b, 1);
	drv_kick(&d, 0);
}

static bool any_nonzero(uint64_t gpa, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		if (ram_load(&rig, gpa + i, 1))
			return true;
	return false;
}

static void test_intx(void)
{
	uint32_t len = 0;

	is_u64(drv_start(&d, FEATURES, 8), 0x0f, "driver is up");
	ask(64);
	ok(drv_used(&d, 0, NULL, &len), "random bytes come at once");
	is_u64(len, 64, "64 of them");
	ok(any_nonzero(DATA_BASE, 64), "and they are not zero");
	ok(!any_nonzero(DATA_BASE + 64, 64), "nothing behind them");
	ok(rig.lines[GSI].level, "INTx");
	is_u64(drv_read(&d, d.isr, 1), 1, "ISR: queue");
	ok(!rig.lines[GSI].level, "reading it releases the wire");
	is_u64(drv_read(&d, d.isr, 1), 0, "and clears it");
	ask(1 * MiB);
	drv_used(&d, 0, NULL, &len);
	is_u64(len, 1024, "a large request is answered in part");
	drv_read(&d, d.isr, 1);

	drv_cfg_write(&d, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	ask(8);
	ok(!drv_used(&d, 0, NULL, NULL), "no bus mastering, no DMA");
	drv_cfg_write(&d, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	ok(drv_used(&d, 0, NULL, NULL), "it catches up");
	ok(rig.lines[GSI].level, "and interrupts");
	drv_set_status(&d, 0);
	ok(!rig.lines[GSI].level, "reset releases the wire");
}

static void test_msix(void)
{
	unsigned before = rig.msi.count;

	drv_enable_msix(&d);
	drv_negotiate(&d, FEATURES);
	drv_set_queue(&d, 0, 8, true);
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_VECTOR, 9, 2);
	is_u64(common(VIRTIO_PCI_QUEUE_VECTOR, 2), VIRTIO_NO_VECTOR, "a vector that is not there");
	drv_ready(&d);
	ask(4);
	is_u64(rig.msi.count, before, "no vector, no message");
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_VECTOR, 0, 2);
	drv_write(&d, d.common + VIRTIO_PCI_CONFIG_VECTOR, 1, 2);
	ask(4);
	is_u64(rig.msi.count, before + 1, "a message");
	is_u64(rig.msi.data, 0x40, "of the queue's vector");
	ok(!rig.lines[GSI].level, "and no INTx");
	drv_offer(&d, 0, 99);
	drv_kick(&d, 0);
	is_u64(drv_status(&d), 0x4f, "a broken ring: the device needs a reset");
	is_u64(rig.msi.data, 0x41, "and says so by the configuration vector");
	ask(4);
	is_u64(rig.msi.count, before + 2, "then nothing more happens");
	drv_cfg_write(&d, d.msix + 2, 0, 2);
}

static void test_budget(void)
{
	struct drv_buffer b = { DATA_BASE, 8, true };
	unsigned used = 0;

	drv_start(&d, FEATURES, 16);
	for (unsigned i = 0; i < 16; i++)
		drv_add(&d, 0, &b, 1);
	drv_kick(&d, 0);
	while (drv_used(&d, 0, NULL, NULL))
		used++;
	is_u64(used, 4, "a doorbell handles a few requests");
	rig_run_loop(&rig);
	while (drv_used(&d, 0, NULL, NULL))
		used++;
	is_u64(used, 16, "the loop does the rest");
}

static uint32_t peep(unsigned bar, uint32_t offset, uint32_t length)
{
	drv_cfg_write(&d, d.peephole + 4, bar, 1);
	drv_cfg_write(&d, d.peephole + 8, offset, 4);
	drv_cfg_write(&d, d.peephole + 12, length, 4);
	return drv_cfg_read(&d, d.peephole + 16, length <= 4 && length ? length : 4);
}

static void test_peephole(void)
{
	drv_set_status(&d, 0);
	is_u64(peep(0, VIRTIO_PCI_NUM_QUEUES, 2), 1, "reading through configuration space");
	drv_cfg_write(&d, d.peephole + 16, 0, 4);
	peep(0, VIRTIO_PCI_STATUS, 1);
	drv_cfg_write(&d, d.peephole + 16, 1, 1);
	is_u64(drv_status(&d), 1, "writing through it");
	drv_cfg_write(&d, d.peephole + 16, 0xaa55aa55, 4);
	drv_set_status(&d, 0);
	is_u64(peep(1, VIRTIO_PCI_NUM_QUEUES, 2), peep(5, 0, 2), "another BAR answers nothing");
	peep(0, 0xfffffffc, 4);
	peep(0, 0x3fff, 4);
	peep(0, 0x4000, 4);
	peep(0, 2, 4);
	peep(0, 0, 0);
	peep(0, 0, 0xffffffff);
	drv_cfg_write(&d, d.peephole + 16, 0xffffffff, 4);
	is_u64(drv_status(&d), 0, "wild offsets and lengths do nothing");
}

/* The last descriptor of a doorbell, and how many are on. */
static struct {
	uint64_t addr;
	int fd, on;
} bell;

static void bell_set(void *opaque, uint64_t addr, int fd, bool on)
{
	bell.addr = addr;
	bell.fd = fd;
	bell.on += on ? 1 : -1;
}

/* An engine that rings doorbells itself: the queue is served from the loop, wherever the BAR is. */
static void test_doorbells(void)
{
	const struct bus_ringer ringer = { bell_set, NULL };
	uint64_t one = 1;
	struct rig own;
	struct drv drv;

	rig_init(&own);
	bus_set_ringer(own.mem->mmio, &ringer);
	virtio_pci_attach(&own.bus, RIG_DEVFN, virtio_rng_create(own.mem, own.loop));
	is_u64((uint64_t)bell.on, 0, "no doorbell before the BAR is decoded");
	drv_probe(&drv, &own);
	ok(bell.on == 1 && bell.addr == drv.notify, "one for the queue, at its place");
	drv_cfg_write(&drv, PCI_BAR0, RIG_BAR + 0x100000, 4);
	ok(bell.on == 1 && bell.addr == drv.notify + 0x100000, "it moves with the BAR");
	drv_cfg_write(&drv, PCI_BAR0, RIG_BAR, 4);
	drv_start(&drv, FEATURES, 8);
	drv_add(&drv, 0, &(struct drv_buffer){ DATA_BASE, 64, true }, 1);
	ok(!drv_used(&drv, 0, NULL, NULL), "nothing is rung");
	ok(write(bell.fd, &one, sizeof(one)) == sizeof(one), "a signal");
	rig_run_loop(&own);
	ok(drv_used(&drv, 0, NULL, NULL), "serves the queue");
	drv_set_status(&drv, 0);
	ok(write(bell.fd, &one, sizeof(one)) == sizeof(one), "a signal after a reset");
	rig_run_loop(&own);
	drv_cfg_write(&drv, PCI_COMMAND, 0, 2);
	is_u64((uint64_t)bell.on, 0, "none when the BAR is not decoded");
	rig_finish(&own);
	is_u64((uint64_t)bell.on, 0, "nor at the end");
}

int main(void)
{
	rig_init(&rig);
	virtio_pci_attach(&rig.bus, RIG_DEVFN, virtio_rng_create(rig.mem, rig.loop));
	drv_probe(&d, &rig);
	test_identity();
	test_status();
	test_queue_rules();
	test_intx();
	test_msix();
	test_budget();
	test_peephole();
	pci_bus_reset(&rig.bus);
	is_u64(drv_cfg_read(&d, PCI_COMMAND, 2), 0, "the machine's reset");
	rig_finish(&rig);
	test_doorbells();
	return done_testing();
}
