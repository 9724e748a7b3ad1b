/* SPDX-License-Identifier: Apache-2.0 */
/* PCI functions, MSI-X, the Q35 chipset: driven through ports, ECAM and BARs as a guest does. */
#include <sys/eventfd.h>

#include "dev/pci/q35.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

#define ECAM 0xe0000000ull
#define SLOT 4u
#define OTHER_SLOT 12u /* shares its wire: 4 and 12 are the same modulo 8 */

struct chip {
	struct pci_device pci;
	uint64_t last_offset, last_value;
	unsigned writes;
};

static unsigned destroyed;

static uint64_t chip_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0xa0 + offset;
}

static void chip_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct chip *chip = opaque;

	chip->last_offset = offset;
	chip->last_value = value;
	chip->writes++;
}

static const struct io_ops chip_io = { .read = chip_read, .write = chip_write, .max_width = 4 };

static void chip_reset(struct device *dev)
{
	pci_device_reset(container_of(dev, struct pci_device, dev));
}

static void chip_destroy(struct device *dev)
{
	pci_device_finish(container_of(dev, struct pci_device, dev));
	destroyed++;
}

static const struct device_ops chip_ops = { .name = "chip",
					    .reset = chip_reset,
					    .destroy = chip_destroy };

static void chip_init(struct chip *chip)
{
	static const struct pci_identity id = {
		.vendor = 0x1234,
		.device = 0x5678,
		.subsystem_vendor = 0x9abc,
		.subsystem = 0xdef0,
		.class_code = 0x020304,
		.revision = 7,
		.interrupt_pin = 1,
	};

	memset(chip, 0, sizeof(*chip));
	chip->pci.dev.ops = &chip_ops;
	pci_device_init(&chip->pci, &id);
	pci_add_bar(&chip->pci, 0, PCI_BAR_MEM32, 0x1000, "mem32", &chip_io, chip);
	pci_add_bar(&chip->pci, 1, PCI_BAR_IO, 32, "io", &chip_io, chip);
	pci_add_bar(&chip->pci, 2, PCI_BAR_MEM64, 0x4000, "mem64", &chip_io, chip);
	pci_msix_init(&chip->pci, 4, 3);
}

struct board {
	struct memory *mem;
	struct q35 *q35;
	struct fake_line lines[24], reset;
	struct fake_msi msi;
	struct chip chip, other;
};

/* Who listens to eventfds, the last one is noted. */
static struct {
	bool refuse;
	unsigned sets, ends;
	int fd;
	uint64_t address;
	uint32_t data;
} listener;

static bool set_irqfd(void *opaque, int fd, bool on, uint64_t address, uint32_t data)
{
	if (!on) {
		listener.ends++;
		return false;
	}
	listener.sets++;
	listener.fd = fd;
	listener.address = address;
	listener.data = data;
	return !listener.refuse;
}

static void board_init_with(struct board *b, bool with_irqfds)
{
	struct q35_config config = { .ecam_base = ECAM, .pm_base = 0x600 };

	memset(b, 0, sizeof(*b));
	if (memory_create(4 * MiB, &b->mem))
		abort();
	fake_msi_init(&b->msi);
	config.mem = b->mem;
	config.msi = b->msi.sink;
	config.msi.set_irqfd = with_irqfds ? set_irqfd : NULL;
	for (unsigned i = 0; i < 24; i++)
		config.irq[i] = fake_line(&b->lines[i]);
	config.reset = fake_line(&b->reset);
	b->q35 = q35_create(&config);
	chip_init(&b->chip);
	chip_init(&b->other);
	pci_bus_attach(&b->q35->bus, &b->chip.pci, PCI_DEVFN(SLOT, 0));
	pci_bus_attach(&b->q35->bus, &b->other.pci, PCI_DEVFN(OTHER_SLOT, 0));
}

static void board_init(struct board *b)
{
	board_init_with(b, false);
}

static uint64_t port_in(struct board *b, uint16_t port, unsigned size)
{
	return bus_read(b->mem->ports, port, size);
}

static void port_out(struct board *b, uint16_t port, uint32_t value, unsigned size)
{
	bus_write(b->mem->ports, port, value, size);
}

/* Configuration access through the ports. */
static uint32_t cfg_in(struct board *b, unsigned slot, unsigned offset, unsigned size)
{
	port_out(b, 0xcf8, 0x80000000 | slot << 11 | (offset & 0xfc), 4);
	return (uint32_t)port_in(b, (uint16_t)(0xcfc + (offset & 3)), size);
}

static void cfg_out(struct board *b, unsigned slot, unsigned offset, uint32_t value, unsigned size)
{
	port_out(b, 0xcf8, 0x80000000 | slot << 11 | (offset & 0xfc), 4);
	port_out(b, (uint16_t)(0xcfc + (offset & 3)), value, size);
}

static uint64_t mmio_in(struct board *b, uint64_t addr, unsigned size)
{
	return bus_read(b->mem->mmio, addr, size);
}

static void mmio_out(struct board *b, uint64_t addr, uint64_t value, unsigned size)
{
	bus_write(b->mem->mmio, addr, value, size);
}

static void test_config_mechanisms(struct board *b)
{
	is_u64(cfg_in(b, 0, 0, 4), 0x29c08086, "host bridge at 00.0");
	is_u64(cfg_in(b, 31, 0, 4), 0x29188086, "ISA bridge at 1f.0");
	is_u64(cfg_in(b, 31, 8, 4) >> 8, 0x060100, "its class");
	is_u64(cfg_in(b, 5, 0, 4), 0xffffffff, "an empty slot reads all ones");
	is_u64(cfg_in(b, SLOT, 0, 4), 0x56781234, "identity by dword");
	is_u64(cfg_in(b, SLOT, 2, 2), 0x5678, "identity by word");
	is_u64(cfg_in(b, SLOT, 3, 1), 0x56, "identity by byte");
	is_u64(cfg_in(b, SLOT, 0x2c, 4), 0xdef09abc, "subsystem");

	port_out(b, 0xcf8, 0x80000000 | SLOT << 11, 4);
	is_u64(port_in(b, 0xcf8, 4), 0x80000000 | SLOT << 11, "CONFIG_ADDRESS reads back");
	port_out(b, 0xcf8, 0x12, 1);
	port_out(b, 0xcf8, 0x3456, 2);
	is_u64(port_in(b, 0xcf8, 4), 0x80000000 | SLOT << 11,
	       "byte and word writes do not change it");
	is_u64(port_in(b, 0xcf8, 1), 0xff, "a byte read is not CONFIG_ADDRESS");
	port_out(b, 0xcf8, 0xffffffff, 4);
	is_u64(port_in(b, 0xcf8, 4), 0x80fffffc, "reserved bits read zero");
	is_u64(port_in(b, 0xcfc, 4), 0xffffffff, "bus 255 is empty");
	port_out(b, 0xcf8, SLOT << 11, 4);
	is_u64(port_in(b, 0xcfc, 4), 0xffffffff, "nothing without the enable bit");

	is_u64(mmio_in(b, ECAM + (SLOT << 15), 4), 0x56781234, "ECAM reads the same function");
	is_u64(mmio_in(b, ECAM + (SLOT << 15) + 2, 2), 0x5678, "ECAM by word");
	is_u64(mmio_in(b, ECAM + (1 << 20), 4), 0xffffffff, "ECAM bus 1 is empty");
	is_u64(mmio_in(b, ECAM + 0x0ffffffc, 4), 0xffffffff, "the end of the ECAM window");
	is_u64(cfg_in(b, 0, 0x60, 4), ECAM | 1, "PCIEXBAR shows the window");
	mmio_out(b, ECAM + (SLOT << 15), 0, 4);
	is_u64(cfg_in(b, SLOT, 0, 4), 0x56781234, "identity is read-only");
	is_u64(cfg_in(b, 31, 0x40, 4), 0x601, "PMBASE");
}

static void test_bars(struct board *b)
{
	unsigned writes;

	cfg_out(b, SLOT, 0x10, 0xffffffff, 4);
	is_u64(cfg_in(b, SLOT, 0x10, 4), 0xfffff000, "32-bit memory BAR sizes");
	cfg_out(b, SLOT, 0x14, 0xffffffff, 4);
	is_u64(cfg_in(b, SLOT, 0x14, 4), 0x0000ffe1, "I/O BAR sizes");
	cfg_out(b, SLOT, 0x18, 0xffffffff, 4);
	cfg_out(b, SLOT, 0x1c, 0xffffffff, 4);
	is_u64(cfg_in(b, SLOT, 0x18, 4), 0xffffc004, "64-bit BAR sizes, low half");
	is_u64(cfg_in(b, SLOT, 0x1c, 4), 0xffffffff, "64-bit BAR sizes, high half");
	cfg_out(b, SLOT, 0x24, 0xffffffff, 4);
	is_u64(cfg_in(b, SLOT, 0x24, 4), 0, "no BAR there");

	cfg_out(b, SLOT, 4, 3, 2);
	ok(!b->chip.pci.bars[0].mapped_on && !b->chip.pci.bars[2].mapped_on,
	   "BARs in the middle of sizing are not decoded");
	cfg_out(b, SLOT, 0x10, 0xc0000000, 4);
	cfg_out(b, SLOT, 0x14, 0xc000, 4);
	cfg_out(b, SLOT, 0x18, 0x00004000, 4);
	cfg_out(b, SLOT, 0x1c, 0x8, 4);
	is_u64(mmio_in(b, 0xc0000010, 1), 0xb0, "memory BAR answers");
	is_u64(port_in(b, 0xc004, 1), 0xa4, "I/O BAR answers");
	is_u64(mmio_in(b, 0x800004020, 1), 0xc0, "64-bit BAR answers above 4 GiB");
	mmio_out(b, 0xc0000ffc, 0x1234, 4);
	is_u64(b->chip.last_offset, 0xffc, "a write arrives");
	cfg_out(b, SLOT, 0x10, 0xc0002000, 4);
	is_u64(mmio_in(b, 0xc0000010, 1), 0xff, "a moved BAR leaves its place");
	is_u64(mmio_in(b, 0xc0002010, 1), 0xb0, "and answers at the new one");
	cfg_out(b, SLOT, 4, 1, 1);
	is_u64(mmio_in(b, 0xc0002010, 1), 0xff, "memory decoding off");
	is_u64(port_in(b, 0xc004, 1), 0xa4, "I/O decoding still on");
	cfg_out(b, SLOT, 4, 2, 1);
	is_u64(port_in(b, 0xc004, 1), 0xff, "I/O decoding off");

	/* Two BARs at one place, and one over the ECAM window. */
	cfg_out(b, OTHER_SLOT, 4, 2, 1);
	cfg_out(b, OTHER_SLOT, 0x10, 0xc0002000, 4);
	writes = b->chip.writes;
	mmio_out(b, 0xc0002000, 1, 4);
	is_u64(b->chip.writes, writes + 1, "of two BARs at one place the first function answers");
	cfg_out(b, SLOT, 0x10, ECAM, 4);
	is_u64(mmio_in(b, ECAM, 4), 0x29c08086, "a BAR over the ECAM window does not hide it");
	is_u64(mmio_in(b, 0xc0002010, 1), 0xb0, "the other function answers now");
	cfg_out(b, SLOT, 0x10, 0, 4);
	ok(!b->chip.pci.bars[0].mapped_on, "a BAR at zero is not decoded");

	b->q35->dev.ops->reset(&b->q35->dev);
	is_u64(cfg_in(b, SLOT, 4, 2), 0, "reset clears the command register");
	is_u64(cfg_in(b, SLOT, 0x14, 4), 1, "and the BARs");
	is_u64(mmio_in(b, 0xc0002010, 1), 0xff, "and nothing is decoded");
}

static void test_command_status(struct board *b)
{
	cfg_out(b, SLOT, 4, 0xffff, 2);
	is_u64(cfg_in(b, SLOT, 4, 2), 0x0547, "writable command bits");
	is_u64(cfg_in(b, 0, 4, 2), 0, "the host bridge's command register");
	b->chip.pci.config[PCI_STATUS + 1] = 0xf9;
	cfg_out(b, SLOT, 6, 0x2000, 2);
	is_u64(cfg_in(b, SLOT, 6, 2), 0xd910,
	       "status errors are cleared by writing ones, each alone");
	cfg_out(b, SLOT, 6, 0xffff, 2);
	is_u64(cfg_in(b, SLOT, 6, 2), 0x0010, "capability bit stays");
	cfg_out(b, SLOT, 0x3c, 0x5a5a, 2);
	is_u64(cfg_in(b, SLOT, 0x3c, 2), 0x015a, "interrupt line is scratch, pin is not");
	cfg_out(b, SLOT, 4, 0, 2);
}

static void test_intx(struct board *b)
{
	struct fake_line *gsi = &b->lines[16 + SLOT % 8];

	is_u64(q35_gsi(SLOT, 0), 16 + SLOT % 8, "INTA# of the slot");
	is_u64(q35_gsi(7, 3), 16 + 2, "INTD# of slot 7");
	pci_set_intx(&b->chip.pci, true);
	ok(gsi->level, "INTx reaches the I/O APIC input");
	is_u64(cfg_in(b, SLOT, 6, 2) & 8, 8, "interrupt status");
	pci_set_intx(&b->other.pci, true);
	pci_set_intx(&b->chip.pci, false);
	ok(gsi->level, "a shared wire stays up while one function holds it");
	is_u64(gsi->rises, 1, "without a glitch");
	pci_set_intx(&b->other.pci, false);
	ok(!gsi->level, "and falls with the last");

	pci_set_intx(&b->chip.pci, true);
	cfg_out(b, SLOT, 4, PCI_COMMAND_INTX_DISABLE, 2);
	ok(!gsi->level, "interrupt disable releases the wire");
	is_u64(cfg_in(b, SLOT, 6, 2) & 8, 8, "the status bit stays");
	cfg_out(b, SLOT, 4, 0, 2);
	ok(gsi->level, "enabled again, it is driven again");

	is_u64(cfg_in(b, 31, 0x68, 1), 0x80, "PIRQE routing is off after reset");
	cfg_out(b, 31, 0x68, 10, 1);
	ok(b->lines[10].level && gsi->level, "PIRQE to ISA interrupt 10 as well");
	cfg_out(b, 31, 0x68, 2, 1);
	ok(!b->lines[10].level && !b->lines[2].level, "interrupt 2 cannot be named");
	cfg_out(b, 31, 0x68, 11, 1);
	ok(b->lines[11].level, "to 11");
	pci_set_intx(&b->chip.pci, false);
	ok(!b->lines[11].level, "released");
	pci_set_intx(&b->chip.pci, true);
	b->q35->dev.ops->reset(&b->q35->dev);
	ok(!b->lines[11].level && !gsi->level, "reset releases everything");
}

static void test_msix(struct board *b)
{
	unsigned cap = cfg_in(b, SLOT, 0x34, 1);
	uint64_t table = 0xc0010000, pba = table + 0x800;

	is_u64(cfg_in(b, SLOT, cap, 1), 0x11, "MSI-X capability");
	is_u64(cfg_in(b, SLOT, cap + 2, 2), 2, "three vectors, off");
	is_u64(cfg_in(b, SLOT, cap + 4, 4), 4, "table in BAR 4");
	is_u64(cfg_in(b, SLOT, cap + 8, 4), 0x804, "pending bits behind it");
	cfg_out(b, SLOT, 0x20, (uint32_t)table, 4);
	cfg_out(b, SLOT, 4, 6, 2);
	is_u64(mmio_in(b, table + 12, 4), 1, "vectors are masked after reset");
	mmio_out(b, table + 16, 0xfee01003, 4);
	mmio_out(b, table + 20, 0, 4);
	mmio_out(b, table + 24, 0x41, 4);
	is_u64(mmio_in(b, table + 16, 8), 0xfee01000, "address bits 0 and 1 read zero");

	pci_msix_notify(&b->chip.pci, 1);
	is_u64(b->msi.count + mmio_in(b, pba, 8), 0, "nothing happens while MSI-X is off");
	cfg_out(b, SLOT, cap + 2, 0x8000, 2);
	pci_msix_notify(&b->chip.pci, 1);
	is_u64(b->msi.count, 0, "a masked vector does not send");
	is_u64(mmio_in(b, pba, 4), 2, "it is pending");
	mmio_out(b, table + 28, 0xfffffffe, 4);
	is_u64(b->msi.count, 1, "unmasking sends");
	is_u64(b->msi.address, 0xfee01000, "address");
	is_u64(b->msi.data, 0x41, "data");
	is_u64(mmio_in(b, pba, 4), 0, "no longer pending");
	is_u64(mmio_in(b, table + 28, 4), 0, "reserved control bits read zero");
	pci_msix_notify(&b->chip.pci, 1);
	is_u64(b->msi.count, 2, "an unmasked vector sends at once");

	cfg_out(b, SLOT, cap + 2, 0xc000, 2);
	pci_msix_notify(&b->chip.pci, 1);
	is_u64(b->msi.count, 2, "function mask");
	cfg_out(b, SLOT, cap + 2, 0x8000, 2);
	is_u64(b->msi.count, 3, "lifted");
	cfg_out(b, SLOT, 4, 2, 2);
	pci_msix_notify(&b->chip.pci, 1);
	is_u64(b->msi.count, 3, "no message without bus mastering");
	cfg_out(b, SLOT, 4, 6, 2);
	is_u64(b->msi.count, 4, "it goes out with it");
	pci_msix_notify(&b->chip.pci, 3);
	pci_msix_notify(&b->chip.pci, 0xffff);
	is_u64(b->msi.count, 4, "there is no vector 3");
	mmio_out(b, pba, ~0ull, 8);
	is_u64(mmio_in(b, pba, 8), 0, "pending bits are read-only");
	mmio_out(b, table + 48, ~0ull, 8);
	is_u64(mmio_in(b, table + 48, 4), 0, "nothing behind the table");
	b->q35->dev.ops->reset(&b->q35->dev);
	ok(!pci_msix_enabled(&b->chip.pci), "reset switches MSI-X off");
}

static uint64_t signals(void)
{
	eventfd_t n = 0;

	return eventfd_read(listener.fd, &n) == 0 ? n : 0;
}

/* The MSI-X table's entry @vector is written. */
static void set_vector(struct board *b, unsigned vector, uint32_t address, uint32_t data)
{
	mmio_out(b, 0xc0010000 + 16 * vector, address, 4);
	mmio_out(b, 0xc0010000 + 16 * vector + 8, data, 4);
	mmio_out(b, 0xc0010000 + 16 * vector + 12, 0, 4);
}

/* Somebody listens to eventfds: messages are signals, once he knows what is behind them. */
static void test_irqfd(void)
{
	struct board b;
	unsigned cap;

	board_init_with(&b, true);
	cap = cfg_in(&b, SLOT, 0x34, 1);
	cfg_out(&b, SLOT, 0x20, 0xc0010000, 4);
	cfg_out(&b, SLOT, 4, 6, 2);
	cfg_out(&b, SLOT, cap + 2, 0x8000, 2);
	set_vector(&b, 1, 0xfee01000, 0x41);
	is_u64(listener.sets, 0, "nothing to listen for before the first message");
	pci_msix_notify(&b.chip.pci, 1);
	pci_msix_notify(&b.chip.pci, 1);
	ok(listener.sets == 1 && listener.address == 0xfee01000 && listener.data == 0x41, "he is told once what the signal is");
	is_u64(signals(), 2, "two messages are signals");
	is_u64(b.msi.count, 0, "and nothing else");
	mmio_out(&b, 0xc001001c, 1, 4);
	pci_msix_notify(&b.chip.pci, 1);
	is_u64(signals(), 0, "none while it is masked");
	set_vector(&b, 1, 0xfee00000, 0x42);
	ok(listener.sets == 2 && listener.address == 0xfee00000 && listener.data == 0x42, "a vector that was moved while masked is told");
	is_u64(signals(), 1, "before it is sent");
	listener.refuse = true;
	set_vector(&b, 1, 0xfee00000, 0x43);
	pci_msix_notify(&b.chip.pci, 1);
	pci_msix_notify(&b.chip.pci, 1);
	ok(listener.sets == 3 && b.msi.count == 2 && b.msi.data == 0x43, "what he refuses is sent as ever, and he is not asked again");
	is_u64(signals(), 0, "and not signalled");
	listener.refuse = false;
	set_vector(&b, 1, 0xfee00000, 0x44);
	pci_msix_notify(&b.chip.pci, 1);
	is_u64(signals(), 1, "another message is offered again");
	b.q35->dev.ops->destroy(&b.q35->dev);
	is_u64(listener.ends, 1, "the end of the device is told");
	memory_destroy(b.mem);
}

static void test_capabilities(struct board *b)
{
	struct pci_device *pci = &b->chip.pci;
	unsigned first = pci->config[PCI_CAPABILITY_LIST];
	unsigned cap = pci_add_capability(pci, PCI_CAP_ID_VENDOR, 5);
	unsigned ext = pci_add_ext_capability(pci, 0x0b, 1, 9);
	unsigned ext2 = pci_add_ext_capability(pci, 0x0003, 1, 12);

	is_u64(cfg_in(b, SLOT, first + 1, 1), cap, "capabilities are linked");
	is_u64(cfg_in(b, SLOT, cap, 2), 0x0009, "and the list ends");
	is_u64(ext, 0x100, "extended capabilities start at 0x100");
	is_u64(mmio_in(b, ECAM + (SLOT << 15) + 0x100, 4), 0x10c1000b, "and are linked");
	is_u64(mmio_in(b, ECAM + (SLOT << 15) + ext2, 4), 0x00010003, "to their end");
}

static void test_reset_control(struct board *b)
{
	port_out(b, 0xcf9, 2, 1);
	is_u64(b->reset.rises, 0, "port 0xcf9: no reset yet");
	port_out(b, 0xcf9, 6, 1);
	is_u64(b->reset.rises, 1, "0 to 1 of bit 2 resets");
	is_u64(port_in(b, 0xcf9, 1), 6, "it reads back");
	port_out(b, 0xcf9, 6, 1);
	is_u64(b->reset.rises, 1, "only the edge does");
}

static void test_firmware(struct board *b)
{
	ok(q35_firmware_setup(b->q35, 0xc0000000, 1 * MiB, 0xc000, 0x1000), "addresses for all");
	is_u64(cfg_in(b, SLOT, 4, 2), 3, "decoding on, bus mastering off");
	is_u64(cfg_in(b, SLOT, 0x10, 4), 0xc0000000, "first BAR");
	is_u64(cfg_in(b, SLOT, 0x18, 4), 0xc0004004, "a larger one is aligned to its size");
	is_u64(cfg_in(b, SLOT, 0x1c, 4), 0, "below 4 GiB");
	is_u64(cfg_in(b, SLOT, 0x14, 4), 0xc001, "I/O");
	is_u64(cfg_in(b, OTHER_SLOT, 0x14, 4), 0xc021, "the next one's I/O");
	is_u64(cfg_in(b, SLOT, 0x3c, 1), 10, "interrupt line");
	is_u64(cfg_in(b, 31, 0x6b, 1), 11, "PIRQH to 11");
	is_u64(mmio_in(b, 0xc0000001, 1), 0xa1, "it answers");
	b->q35->dev.ops->reset(&b->q35->dev);
	ok(!q35_firmware_setup(b->q35, 0xc0000000, 0x9000, 0xc000, 0x1000),
	   "a window that is too small");
	is_u64(cfg_in(b, SLOT, 4, 2), 3, "what fits works");
	is_u64(cfg_in(b, OTHER_SLOT, 4, 2), 0, "what does not is left off");
}

int main(void)
{
	static struct board b;

	board_init(&b);
	test_config_mechanisms(&b);
	test_bars(&b);
	test_command_status(&b);
	test_intx(&b);
	test_msix(&b);
	test_capabilities(&b);
	test_reset_control(&b);
	test_firmware(&b);
	test_irqfd();
	b.q35->dev.ops->destroy(&b.q35->dev);
	is_u64(destroyed, 4, "functions are destroyed with the chipset");
	is_u64(bus_read(b.mem->ports, 0xcf8, 4), 0xffffffff, "and its ports are free");
	memory_destroy(b.mem);
	return done_testing();
}
