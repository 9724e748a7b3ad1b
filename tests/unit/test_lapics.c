/* SPDX-License-Identifier: Apache-2.0 */
/* machine/lapics.h with an engine that has local APICs of its own: what reaches it, and what it asks for. Chips of ours: test_lapic. */
#include "machine/lapics.h"

#include "cpu/engine_ops.h"
#include "dev/i8259.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

#define CPUS 2u

static struct fake_vcpu {
	struct vcpu base; /* first */
	struct x86_lapic lapic;
	unsigned loads;
} vcpus[CPUS];

static struct {
	struct engine base; /* first */
	struct engine_board board;
	uint64_t address;
	uint32_t data;
	unsigned messages, irqchips;
	bool intr;
	int irqfd;
	struct {
		bool masked;
		uint64_t address;
		uint32_t data;
	} pin[ENGINE_PINS];
} engine;

static struct vcpu *get_vcpu(struct engine *e, unsigned index)
{
	return &vcpus[index].base;
}

static void set_irqchip(struct vcpu *v, const struct vcpu_irqchip *chip)
{
	engine.irqchips++;
}

static void set_board(struct engine *e, const struct engine_board *board)
{
	engine.board = *board;
}

static void send_message(struct engine *e, uint64_t address, uint32_t data)
{
	engine.address = address;
	engine.data = data;
	engine.messages++;
}

static bool set_irqfd(struct engine *e, int fd, bool on, uint64_t address, uint32_t data)
{
	engine.irqfd = on ? fd : -1;
	return on;
}

static void set_intr(struct engine *e, bool level)
{
	engine.intr = level;
}

static void set_pin(struct engine *e, unsigned pin, bool masked, uint64_t address, uint32_t data)
{
	engine.pin[pin].masked = masked;
	engine.pin[pin].address = address;
	engine.pin[pin].data = data;
}

static void get_lapic(struct vcpu *v, struct x86_lapic *out)
{
	*out = ((struct fake_vcpu *)v)->lapic;
}

static void set_lapic(struct vcpu *v, const struct x86_lapic *in)
{
	((struct fake_vcpu *)v)->lapic = *in;
	((struct fake_vcpu *)v)->loads++;
}

static const struct engine_ops ops = {
	.vcpu = get_vcpu,
	.set_irqchip = set_irqchip,
	.set_board = set_board,
	.send_msi = send_message,
	.set_irqfd = set_irqfd,
	.set_intr = set_intr,
	.set_pin = set_pin,
	.get_lapic = get_lapic,
	.set_lapic = set_lapic,
};

static struct fake_clock fc;
static struct lapics lapics;
static struct bus *ports, *mmio;
static struct i8259 *pic;
static struct ioapic *ioapic;
static unsigned taken;

static uint8_t pic_ack(void *opaque)
{
	return i8259_ack(pic);
}

static void ended(void *opaque, uint8_t vector)
{
	ioapic_eoi(ioapic, vector);
}

static void was_taken(void *opaque)
{
	taken++;
}

static void io_write(unsigned reg, uint32_t value)
{
	bus_write(mmio, IOAPIC_BASE + IOREGSEL, reg, 4);
	bus_write(mmio, IOAPIC_BASE + IOWIN, value, 4);
}

static void test_ioapic(void)
{
	ok(engine.pin[5].masked && engine.pin[23].masked, "all inputs are masked at first");
	io_write(IOREDTBL + 2 * 5 + 1, 1u << 24);
	io_write(IOREDTBL + 2 * 5, 0x8000 | 0x51);
	ok(!engine.pin[5].masked && engine.pin[5].address == 0xfee01000 && engine.pin[5].data == 0xc051, "what input 5 sends is known");
	is_u64(engine.messages, 0, "nothing is sent");
	ioapic_set_irq(ioapic, 5, true);
	ok(engine.messages == 1 && engine.address == 0xfee01000 && engine.data == 0xc051, "a message to the engine");
	engine.board.eoi(engine.board.opaque, 0x51);
	is_u64(engine.messages, 2, "once more after its EOI, since it is held");
	ioapic_set_irq(ioapic, 5, false);
	engine.board.eoi(engine.board.opaque, 0x51);
	is_u64(engine.messages, 2, "and not when it is released");
	ioapic_device(ioapic)->ops->reset(ioapic_device(ioapic));
	ok(engine.pin[5].masked, "a reset masks it");
	msi_send(lapics_msi_sink(&lapics), 0xfee00000, 0x41);
	is_u64(engine.messages, 3, "a device's message");
	msi_send(lapics_msi_sink(&lapics), 0x1000, 0x41);
	msi_send(lapics_msi_sink(&lapics), 0xfee00000, 6u << 8);
	is_u64(engine.messages, 3, "not what is none for local APICs");
}

static void test_irqfd(void)
{
	const struct msi_sink *sink = lapics_msi_sink(&lapics);

	ok(sink->set_irqfd(sink->opaque, 7, true, 0xfee00000, 0x41) && engine.irqfd == 7, "an eventfd for a message is the engine's");
	ok(!sink->set_irqfd(sink->opaque, 7, true, 0x1000, 0x41) && engine.irqfd == -1, "and no longer when it is none for local APICs");
}

static void test_pic(void)
{
	static const uint8_t init[] = { 0x20, 4, 1 };

	bus_write(ports, 0x20, 0x11, 1);
	for (unsigned k = 0; k < 3; k++)
		bus_write(ports, 0x21, init[k], 1);
	bus_write(ports, 0x21, 0, 1);
	ok(!engine.intr, "INTR is low");
	i8259_set_irq(pic, 3, true);
	ok(engine.intr, "an interrupt raises it");
	is_u64((uint64_t)engine.board.ack(engine.board.opaque), 0x23, "its vector");
	ok(!engine.intr && taken == 1, "then it is low again, and a tick may follow");
}

static void test_state(void)
{
	struct x86_lapic x, y;

	ok(engine_has_lapics(&engine.base) && lapics.engines && !engine.irqchips, "the chips rest");
	lapics_set_up(&lapics);
	ok(vcpus[0].loads == 1 && vcpus[1].loads == 1, "each vCPU gets its local APIC");
	is_u64(vcpus[0].lapic.base, 0xfee00900, "the boot processor");
	is_u64(vcpus[1].lapic.base, 0xfee00800, "another");
	is_u64(vcpus[0].lapic.reg[APIC_LVT_LINT0 >> 4], APIC_EXTINT << 8, "virtual wire");
	is_u64(vcpus[1].lapic.reg[APIC_LVT_LINT0 >> 4], 1u << 16, "there not");
	is_u64(vcpus[1].lapic.reg[APIC_ID >> 4], 1u << 24, "its id");
	lapics_get_state(&lapics, 0, &x);
	x.reg[APIC_TPR >> 4] = 0xffffff20;
	ok(lapics_set_state(&lapics, 0, &x), "a state is taken");
	is_u64(vcpus[0].lapic.reg[APIC_TPR >> 4], 0x20, "without what no chip has");
	y = x;
	y.base = 0xfee00400;
	ok(!lapics_set_state(&lapics, 0, &y) && vcpus[0].lapic.base == x.base, "an impossible one is not");
	x.reg[APIC_SVR >> 4] = 0x1ff;
	x.reg[APIC_LVT_TIMER >> 4] = 0x20041;
	x.reg[APIC_TMICT >> 4] = x.reg[APIC_TMCCT >> 4] = 1000;
	ok(lapics_set_state(&lapics, 0, &x) && !fc.armed, "its timer runs in the engine, not here");
}

int main(void)
{
	const struct lapics_config config = { &engine.base, &fc.clock, CPUS, pic_ack, ended, was_taken, NULL };

	fake_clock_init(&fc);
	engine.base.ops = &ops;
	for (unsigned k = 0; k < CPUS; k++)
		vcpus[k].base.ops = &ops;
	ports = bus_create("ports");
	mmio = bus_create("mmio");
	lapics_init(&lapics, &config);
	pic = i8259_create(ports, (struct irq_line){ lapics_set_lint, &lapics, 0 });
	ioapic = ioapic_create(mmio, IOAPIC_BASE, lapics_msi_sink(&lapics));
	lapics_attach_ioapic(&lapics, ioapic);

	test_ioapic();
	test_irqfd();
	test_pic();
	test_state();

	ioapic_device(ioapic)->ops->destroy(ioapic_device(ioapic));
	i8259_device(pic)->ops->destroy(i8259_device(pic));
	for (unsigned k = 0; k < CPUS; k++)
		lapic_device(lapics.chip[k])->ops->destroy(lapic_device(lapics.chip[k]));
	lapics_finish(&lapics);
	bus_destroy(mmio);
	bus_destroy(ports);
	return done_testing();
}
