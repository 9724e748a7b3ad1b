// SPDX-License-Identifier: Apache-2.0
/*
 * The machine: a Q35 PC, without firmware. build() is its parts list; the functions before it are the wires.
 *
 * Interrupt inputs of the board are numbered as in the I/O APIC: 0–15 are the ISA ones and go to the
 * 8259s as well (the timer's to pin 2 of the I/O APIC, as everywhere), 16–23 are PCI's. Several sources may
 * share an input, so each has a bit in it.
 *
 * There is no firmware: setup() does what one would have left behind, before each start.
 */
#include "machine/pc.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "dev/acpi_pm.h"
#include "dev/debug_exit.h"
#include "dev/debugcon.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/i8254.h"
#include "dev/i8259.h"
#include "dev/ioapic.h"
#include "dev/mc146818.h"
#include "dev/ns16550.h"
#include "dev/pci/q35.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev/virtio/virtio_fs.h"
#include "dev/virtio/virtio_balloon.h"
#include "dev/virtio/virtio_blk.h"
#include "dev/virtio/virtio_console.h"
#include "dev/virtio/virtio_net.h"
#include "dev/virtio/virtio_pci.h"
#include "dev/virtio/virtio_rng.h"
#include "dev/virtio/virtio_vsock.h"
#include "machine/acpi.h"
#include "machine/lapics.h"
#include "machine/layout.h"
#include "machine/smbios.h"

#define CHIPS_MAX (24u + LAYOUT_VCPU_MAX)
#define BOARD_INPUTS 24u
#define GUEST_CID 3u /* every guest is alone on its host, as far as it can tell */

/* Who drives an input of the board: a bit in it. */
enum source { SOURCE_CHIP, SOURCE_LPC, SOURCE_HPET };

static const char *const reset_sources[] = { "port 0xcf9", "the keyboard controller", "port 0x92" };
enum reset_source { RESET_CF9, RESET_I8042, RESET_PORT92 };

struct machine {
	struct machine_config config;
	struct device *chips[CHIPS_MAX]; /* in the order they were made */
	unsigned chip_count;

	struct lapics lapics;
	struct ioapic *ioapic;
	struct i8259 *pic;
	struct hpet *hpet;
	struct i8254 *pit;
	struct mc146818 *rtc;
	struct acpi_pm *pm;
	struct q35 *q35;
	struct virtio_device *balloon, *console; /* console: NULL without one */
	uint8_t input[BOARD_INPUTS]; /* which sources hold it */
};

/* ---- Interrupt wires ---------------------------------------------------------------------------- */

/* An irq_line set function; pin is input | source << 8. */
static void board_set(void *opaque, unsigned pin, bool level)
{
	struct machine *m = opaque;
	unsigned input = pin & 0xff, bit = 1u << (pin >> 8);

	assert(input < BOARD_INPUTS);
	if (level)
		m->input[input] |= bit;
	else
		m->input[input] &= ~bit;
	level = m->input[input];
	if (input < 16)
		i8259_set_irq(m->pic, input, level);
	ioapic_set_irq(m->ioapic, input == 0 ? 2 : input, level);
}

static struct irq_line input_line(struct machine *m, unsigned input, enum source source)
{
	return (struct irq_line){ board_set, m, input | (unsigned)source << 8 };
}

/* An irq_waits_fn: a tick is owed when no controller would take it and one has the last still waiting. */
static bool board_waits(void *opaque, unsigned pin)
{
	struct machine *m = opaque;
	unsigned input = pin & 0xff;
	enum irq_edge pic = IRQ_EDGE_IGNORED, ioapic;

	assert(input < BOARD_INPUTS);
	if (input < 16)
		pic = i8259_edge(m->pic, input);
	ioapic = ioapic_edge(m->ioapic, input == 0 ? 2 : input);
	return pic != IRQ_EDGE_TAKEN && ioapic != IRQ_EDGE_TAKEN &&
	       (pic == IRQ_EDGE_WAITS || ioapic == IRQ_EDGE_WAITS);
}

/* A processor has taken an interrupt: room for a tick that is owed. */
static void interrupt_taken(void *opaque)
{
	struct machine *m = opaque;

	hpet_tick_taken(m->hpet);
	i8254_tick_taken(m->pit);
}

/* The HPET names the I/O APIC's pin in the call. */
static void hpet_set(void *opaque, unsigned pin, bool level)
{
	board_set(opaque, pin | SOURCE_HPET << 8, level);
}

static uint8_t pic_ack(void *opaque)
{
	return i8259_ack(((struct machine *)opaque)->pic);
}

static void lapic_eoi(void *opaque, uint8_t vector)
{
	ioapic_eoi(((struct machine *)opaque)->ioapic, vector);
}

static unsigned pci_isa_irq(unsigned slot, unsigned pin)
{
	return ICH9_LPC_ISA_IRQ(q35_gsi(slot, pin) - LAYOUT_PCI_GSI);
}

/* ---- What the guest asks of us ------------------------------------------------------------------ */

static void on_reset_line(void *opaque, unsigned pin, bool level)
{
	struct machine *m = opaque;

	if (level)
		m->config.events.reset(m->config.events.opaque, reset_sources[pin]);
}

static void on_power_off(void *opaque)
{
	struct machine *m = opaque;

	m->config.events.power_off(m->config.events.opaque);
}

static void on_debug_exit(void *opaque, uint32_t value)
{
	struct machine *m = opaque;

	m->config.events.debug_exit(m->config.events.opaque, value);
}

static void on_panic(void *opaque, unsigned events)
{
	struct machine *m = opaque;

	m->config.events.panicked(m->config.events.opaque, !(events & PVPANIC_PANICKED));
}

/* ---- The parts list ----------------------------------------------------------------------------- */

static void add(struct machine *m, struct device *chip)
{
	assert(m->chip_count < CHIPS_MAX);
	m->chips[m->chip_count++] = chip;
}

static struct irq_line reset_line(struct machine *m, enum reset_source source)
{
	return (struct irq_line){ on_reset_line, m, source };
}

/* The interrupt controllers: 8259 pair, I/O APIC, a local APIC for each vCPU. */
static void build_interrupts(struct machine *m)
{
	const struct machine_config *c = &m->config;
	const struct lapics_config lapics = { c->engine, c->clock, c->vcpu_count, pic_ack, lapic_eoi, interrupt_taken, m };

	lapics_init(&m->lapics, &lapics);
	m->pic = i8259_create(c->mem->ports, (struct irq_line){ lapics_set_lint, &m->lapics, 0 });
	add(m, i8259_device(m->pic));
	m->ioapic = ioapic_create(c->mem->mmio, LAYOUT_IOAPIC, lapics_msi_sink(&m->lapics));
	add(m, ioapic_device(m->ioapic));
	lapics_attach_ioapic(&m->lapics, m->ioapic);
	for (unsigned i = 0; i < c->vcpu_count; i++)
		add(m, lapic_device(m->lapics.chip[i]));
}

/* Timers: HPET, the 8254 and the RTC behind it (the HPET may take over their interrupts). */
static void build_timers(struct machine *m)
{
	const struct machine_config *c = &m->config;
	struct hpet_config hpet = {
		.base = LAYOUT_HPET,
		.route_cap = 0x00f00000, /* inputs 20–23 */
		.ioapic = { hpet_set, m, 0 },
		.legacy = { input_line(m, 0, SOURCE_CHIP), input_line(m, 8, SOURCE_CHIP) },
		.waits = board_waits,
	};

	m->hpet = hpet_create(c->mem->mmio, c->clock, &hpet);
	add(m, hpet_device(m->hpet));
	m->pit = i8254_create(c->mem->ports, c->clock, (struct irq_line){ hpet_set_legacy, m->hpet, 0 }, hpet_legacy_waits);
	add(m, i8254_device(m->pit));
	m->rtc = mc146818_create(c->mem->ports, c->clock, (struct irq_line){ hpet_set_legacy, m->hpet, 1 });
	add(m, mc146818_device(m->rtc));
}

/* What sits on the ISA bus, and power management. */
static void build_isa(struct machine *m)
{
	const struct machine_config *c = &m->config;
	struct i8042_lines kbc = {
		.irq1 = input_line(m, 1, SOURCE_CHIP),
		.irq12 = input_line(m, 12, SOURCE_CHIP),
		.reset = reset_line(m, RESET_I8042),
	};
	struct acpi_pm_config pm = {
		.base = LAYOUT_PM_BASE,
		.timer_32bit = true,
		.sci = input_line(m, LAYOUT_SCI, SOURCE_CHIP),
		.power_off = on_power_off,
		.opaque = m,
	};

	add(m, ns16550_create(c->mem->ports, NS16550_COM1_PORT, c->clock, input_line(m, 4, SOURCE_CHIP), c->serial));
	/* Address line 20 is always on: no guest of today's wants it off, so both its gates lead nowhere. */
	add(m, i8042_device(i8042_create(c->mem->ports, &kbc)));
	add(m, port92_create(c->mem->ports, (struct irq_line){ 0 }, reset_line(m, RESET_PORT92)));
	m->pm = acpi_pm_create(c->mem->ports, c->clock, &pm);
	add(m, acpi_pm_device(m->pm));
	add(m, pvpanic_create(c->mem->ports, PVPANIC_PORT, on_panic, m));
	if (c->debug_exit)
		add(m, debug_exit_create(c->mem->ports, DEBUG_EXIT_PORT, on_debug_exit, m));
	if (c->debugcon)
		add(m, debugcon_create(c->mem->ports, c->debugcon));
}

static void build_pci(struct machine *m)
{
	const struct machine_config *c = &m->config;
	struct q35_config q35 = {
		.mem = c->mem,
		.msi = *lapics_msi_sink(&m->lapics),
		.reset = reset_line(m, RESET_CF9),
		.ecam_base = LAYOUT_ECAM,
		.pm_base = LAYOUT_PM_BASE,
	};

	for (unsigned i = 0; i < BOARD_INPUTS; i++)
		q35.irq[i] = input_line(m, i, SOURCE_LPC);
	m->q35 = q35_create(&q35);
	add(m, &m->q35->dev);
}

/* PCI functions, each in a slot of its own: network, disks in their order, console, random numbers, balloon,
 * sockets, shared folders. False: the host cannot give what one of them needs, and has said so. */
static bool build_virtio(struct machine *m)
{
	const struct machine_config *c = &m->config;
	struct pci_bus *bus = &m->q35->bus;
	unsigned slot = 1;

	if (c->net) {
		struct virtio_net_config net = { .mem = c->mem, .loop = c->loop, .backend = c->net };

		memcpy(net.mac, c->mac, sizeof(net.mac));
		virtio_pci_attach(bus, PCI_DEVFN(slot++, 0), virtio_net_create(&net));
	}
	for (unsigned i = 0; i < c->disk_count; i++) {
		struct virtio_blk_config blk = {
			.mem = c->mem,
			.loop = c->loop,
			.disk = c->disks[i],
			.disk_ops = &virtio_blk_block_layer,
			.queues = MIN(c->vcpu_count, VIRTIO_BLK_QUEUES_MAX),
		};

		virtio_pci_attach(bus, PCI_DEVFN(slot++, 0), virtio_blk_create(&blk));
	}
	if (c->console || c->port_count) {
		struct virtio_console_config console = { .mem = c->mem, .loop = c->loop, .chardev = c->console,
							 .port_count = c->port_count };

		static_assert(MACHINE_PORTS_MAX <= VIRTIO_CONSOLE_PORTS_MAX, "the console has that many");
		for (unsigned i = 0; i < c->port_count; i++)
			console.ports[i] = (struct virtio_console_port){ c->ports[i].name, c->ports[i].chardev };
		m->console = virtio_console_create(&console);
		virtio_pci_attach(bus, PCI_DEVFN(slot++, 0), m->console);
	}
	virtio_pci_attach(bus, PCI_DEVFN(slot++, 0), virtio_rng_create(c->mem, c->loop));
	m->balloon = virtio_balloon_create(c->mem, c->loop);
	virtio_pci_attach(bus, PCI_DEVFN(slot++, 0), m->balloon);
	if (c->vsock) {
		struct virtio_vsock_config vsock = { c->mem, c->loop, c->vsock, GUEST_CID };

		virtio_pci_attach(bus, PCI_DEVFN(slot++, 0), virtio_vsock_create(&vsock));
	}
	for (unsigned i = 0; i < c->share_count; i++) {
		struct virtio_device *share = virtio_fs_create(c->mem, c->loop, c->shares[i].tag, c->shares[i].fd);

		if (!share)
			return false;
		virtio_pci_attach(bus, PCI_DEVFN(slot++, 0), share);
	}
	assert(slot <= Q35_LPC_SLOT);
	return true;
}

struct error *machine_create(const struct machine_config *config, struct machine **out)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		return error_errno(ENOMEM, "the machine");
	assert(config->vcpu_count >= 1 && config->vcpu_count <= LAYOUT_VCPU_MAX);
	assert(config->disk_count <= MACHINE_DISKS_MAX);
	m->config = *config;
	build_interrupts(m);
	build_timers(m);
	build_isa(m);
	build_pci(m);
	if (!build_virtio(m)) {
		machine_destroy(m);
		return error_new("the machine's devices cannot be made");
	}
	*out = m;
	return NULL;
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	while (m->chip_count) {
		struct device *chip = m->chips[--m->chip_count];

		chip->ops->destroy(chip);
	}
	lapics_finish(&m->lapics);
	free(m);
}

/* ---- What firmware leaves behind ---------------------------------------------------------------- */

/* Memory sizes where old systems look for them: in KiB, then in 64 KiB. */
static void setup_cmos(struct machine *m)
{
	uint64_t above_1m = (m->config.mem->low_bytes - MIN(m->config.mem->low_bytes, MiB)) / KiB;
	uint64_t above_16m = (m->config.mem->low_bytes - MIN(m->config.mem->low_bytes, 16 * MiB)) / (64 * KiB);
	uint64_t above_4g = m->config.mem->high_bytes / (64 * KiB);
	uint16_t kib = MIN(above_1m, 0xffff), blocks = MIN(above_16m, 0xffff);

	mc146818_set_cmos(m->rtc, 0x15, 640 & 0xff);
	mc146818_set_cmos(m->rtc, 0x16, 640 >> 8);
	mc146818_set_cmos(m->rtc, 0x17, kib & 0xff);
	mc146818_set_cmos(m->rtc, 0x18, kib >> 8);
	mc146818_set_cmos(m->rtc, 0x30, kib & 0xff);
	mc146818_set_cmos(m->rtc, 0x31, kib >> 8);
	mc146818_set_cmos(m->rtc, 0x34, blocks & 0xff);
	mc146818_set_cmos(m->rtc, 0x35, blocks >> 8);
	for (unsigned i = 0; i < 3; i++)
		mc146818_set_cmos(m->rtc, 0x5b + i, above_4g >> (8 * i));
	mc146818_set_cmos(m->rtc, 0x5f, m->config.vcpu_count - 1);
}

/*
 * Memory types (SDM vol. 3, 12.11): write-back, but for the holes below 1 MiB and below 4 GiB. An engine
 * without MTRRs says no, which is as good.
 */
static void setup_mtrrs(struct engine *e, struct vcpu *v)
{
	static const uint64_t wb = 0x0606060606060606;
	unsigned phys_bits = MIN(engine_cpuid(e, 0x80000008, 0).eax & 0xff, LAYOUT_PHYS_BITS); /* others of the mask are reserved */

	vcpu_set_msr(v, 0x200, MEM_LOW_MAX);
	vcpu_set_msr(v, 0x201, (((1ull << phys_bits) - 1) & ~(MEM_HIGH_BASE - MEM_LOW_MAX - 1)) | 0x800);
	vcpu_set_msr(v, 0x250, wb);
	vcpu_set_msr(v, 0x258, wb);
	vcpu_set_msr(v, 0x259, 0);
	for (unsigned i = 0x268; i <= 0x26f; i++)
		vcpu_set_msr(v, i, wb);
	vcpu_set_msr(v, 0x2ff, 0xc06);
}

static uint64_t setup(struct machine *m)
{
	const struct machine_config *c = &m->config;
	struct acpi_config acpi = {
		.vcpu_count = c->vcpu_count,
		.slp_typ_s5 = ACPI_SLP_TYP_S5,
		.gsi = q35_gsi,
		.isa_irq = pci_isa_irq,
	};
	struct smbios_config smbios = { .vcpu_count = c->vcpu_count, .version = c->version };
	uint8_t elcr;

	for (unsigned i = 0; i < c->vcpu_count; i++)
		setup_mtrrs(c->engine, engine_vcpu(c->engine, i));
	lapics_set_up(&m->lapics);
	setup_cmos(m);
	if (!q35_firmware_setup(m->q35, LAYOUT_PCI_MMIO, LAYOUT_PCI_MMIO_END - LAYOUT_PCI_MMIO, LAYOUT_PCI_IO,
				LAYOUT_PCI_IO_END - LAYOUT_PCI_IO))
		log_warn("some PCI devices do not fit into the address windows");
	/* The SCI is level-triggered, for systems that use the 8259 too. */
	elcr = bus_read(c->mem->ports, I8259_ELCR_PORT + 1, 1);
	bus_write(c->mem->ports, I8259_ELCR_PORT + 1, elcr | 1u << (LAYOUT_SCI - 8), 1);
	smbios_write(c->mem, &smbios);
	return acpi_write(c->mem, &acpi);
}

struct error *machine_reset(struct machine *m)
{
	const struct machine_config *c = &m->config;
	struct vcpu *bsp = engine_vcpu(c->engine, 0);
	struct boot_source payload = c->payload;
	struct boot_state state;
	struct error *err;

	for (unsigned i = 0; i < c->vcpu_count; i++)
		vcpu_reset(engine_vcpu(c->engine, i));
	for (unsigned i = 0; i < m->chip_count; i++)
		m->chips[i]->ops->reset(m->chips[i]);
	payload.rsdp_gpa = setup(m);
	err = boot_load(c->mem, &payload, &state);
	if (err)
		return err;
	vcpu_set_sregs(bsp, &state.sregs);
	vcpu_set_regs(bsp, &state.regs);
	return NULL;
}

void machine_power_button(struct machine *m)
{
	acpi_pm_power_button(m->pm);
}

struct virtio_device *machine_balloon(struct machine *m)
{
	return m->balloon;
}

bool machine_port_open(struct machine *m, const char *name)
{
	return m->console && virtio_console_guest_open(m->console, name);
}
