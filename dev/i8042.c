/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 8042 keyboard controller.
 *
 * Theory of operation. The output buffer holds one byte. When the guest has read it, the next one
 * is fetched: first the controller's own answer, then the keyboard's bytes, then the mouse's,
 * unless the port is disabled. Interrupts are levels that say "the buffer holds a byte of this
 * port"; they fall with the reading, so each byte is an edge. Keyboard bytes pass the translation
 * to scan code set 1 if that is on.
 *
 * The output port drives A20 and the board's reset; commands 0xf0–0xff pulse its low bits, of which
 * only the reset is connected.
 *
 * Manual: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller".
 * Threading: machine lock.
 */
#include "dev/i8042.h"

#include <assert.h>
#include <stdlib.h>

#include "dev/ps2.h"

#define CMD_READ_RAM 0x20 /* ..0x3f; 0 of it is the mode */
#define CMD_WRITE_RAM 0x60
#define CMD_PASSWORD_TEST 0xa4
#define CMD_AUX_DISABLE 0xa7
#define CMD_AUX_ENABLE 0xa8
#define CMD_AUX_TEST 0xa9
#define CMD_SELF_TEST 0xaa
#define CMD_KBD_TEST 0xab
#define CMD_KBD_DISABLE 0xad
#define CMD_KBD_ENABLE 0xae
#define CMD_READ_INPORT 0xc0
#define CMD_READ_OUTPORT 0xd0
#define CMD_WRITE_OUTPORT 0xd1
#define CMD_WRITE_KBD_OBUF 0xd2
#define CMD_WRITE_AUX_OBUF 0xd3
#define CMD_WRITE_AUX 0xd4
#define CMD_READ_TEST 0xe0
#define CMD_PULSE 0xf0

#define SELF_TEST_OK 0x55
#define NO_PASSWORD 0xf1
#define INPORT 0xa0	   /* keyboard not locked, manufacturing jumper open */
#define OUTPORT_FIXED 0xc0 /* the data and clock lines idle high */
#define RAM 32u
#define BREAK_PREFIX 0xf0

struct i8042 {
	struct device dev;
	struct bus *ports;
	struct i8042_lines lines;
	uint8_t ram[RAM]; /* byte 0 is the mode */
	uint8_t command;  /* whose data byte is awaited; 0: the next goes to the keyboard */
	uint8_t data;	  /* the output buffer */
	bool full, from_aux;
	bool last_was_command;
	uint8_t answer; /* of the controller itself, waiting for the output buffer */
	bool has_answer, answer_from_aux;
	bool break_seen; /* a 0xf0 that the translation holds back */
	bool a20;
	bool irq1, irq12;
	struct ps2_keyboard kbd;
	struct ps2_mouse mouse;
	struct io_region data_region, status_region;
};

static uint8_t mode(const struct i8042 *k)
{
	return k->ram[0];
}

/* A keyboard byte as it goes into the output buffer; false when it is held back. */
static bool translate(struct i8042 *k, uint8_t *byte)
{
	if (!(mode(k) & KBC_MODE_TRANSLATE)) {
		k->break_seen = false;
		return true;
	}
	if (*byte == BREAK_PREFIX) {
		k->break_seen = true;
		return false;
	}
	*byte = ps2_translate(*byte) | (k->break_seen ? 0x80 : 0);
	k->break_seen = false;
	return true;
}

static void update_irqs(struct i8042 *k)
{
	bool irq1 = k->full && !k->from_aux && mode(k) & KBC_MODE_KBD_INT;
	bool irq12 = k->full && k->from_aux && mode(k) & KBC_MODE_AUX_INT;

	if (irq1 != k->irq1) {
		k->irq1 = irq1;
		irq_set(&k->lines.irq1, irq1);
	}
	if (irq12 != k->irq12) {
		k->irq12 = irq12;
		irq_set(&k->lines.irq12, irq12);
	}
}

/* Fills the output buffer when it is empty and there is something for it. */
static void fetch(struct i8042 *k)
{
	if (!k->full && k->has_answer) {
		k->has_answer = false;
		k->data = k->answer;
		k->from_aux = k->answer_from_aux;
		k->full = true;
	}
	while (!k->full && !(mode(k) & KBC_MODE_KBD_DISABLE) &&
	       ps2_port_take(&k->kbd.port, &k->data)) {
		k->from_aux = false;
		k->full = translate(k, &k->data);
	}
	if (!k->full && !(mode(k) & KBC_MODE_AUX_DISABLE)) {
		ps2_mouse_report(&k->mouse);
		k->full = ps2_port_take(&k->mouse.port, &k->data);
		if (k->full)
			k->from_aux = true;
	}
	update_irqs(k);
}

static void answer(struct i8042 *k, uint8_t byte, bool from_aux)
{
	k->answer = byte;
	k->answer_from_aux = from_aux;
	k->has_answer = true;
}

static void set_a20(struct i8042 *k, bool a20)
{
	k->a20 = a20;
	irq_set(&k->lines.a20, a20);
}

static uint8_t output_port(const struct i8042 *k)
{
	return OUTPORT_FIXED | KBC_OUT_RESET | (k->a20 ? KBC_OUT_A20 : 0) |
	       (k->irq1 ? KBC_OUT_KBD_IRQ : 0) | (k->irq12 ? KBC_OUT_AUX_IRQ : 0);
}

static void write_command(struct i8042 *k, uint8_t command)
{
	k->command = 0;
	switch (command) {
	case CMD_READ_RAM ... CMD_READ_RAM + RAM - 1:
		answer(k, k->ram[command - CMD_READ_RAM], false);
		break;
	case CMD_WRITE_RAM ... CMD_WRITE_RAM + RAM - 1:
	case CMD_WRITE_OUTPORT:
	case CMD_WRITE_KBD_OBUF:
	case CMD_WRITE_AUX_OBUF:
	case CMD_WRITE_AUX: k->command = command; break;
	case CMD_PASSWORD_TEST: answer(k, NO_PASSWORD, false); break;
	case CMD_AUX_DISABLE: k->ram[0] |= KBC_MODE_AUX_DISABLE; break;
	case CMD_AUX_ENABLE: k->ram[0] &= (uint8_t)~KBC_MODE_AUX_DISABLE; break;
	case CMD_SELF_TEST:
		k->ram[0] |= KBC_MODE_SYS | KBC_MODE_KBD_DISABLE | KBC_MODE_AUX_DISABLE;
		answer(k, SELF_TEST_OK, false);
		break;
	case CMD_AUX_TEST:
	case CMD_KBD_TEST: answer(k, 0, false); break;
	case CMD_KBD_DISABLE: k->ram[0] |= KBC_MODE_KBD_DISABLE; break;
	case CMD_KBD_ENABLE: k->ram[0] &= (uint8_t)~KBC_MODE_KBD_DISABLE; break;
	case CMD_READ_INPORT: answer(k, INPORT, false); break;
	case CMD_READ_OUTPORT: answer(k, output_port(k), false); break;
	case CMD_READ_TEST: answer(k, 0, false); break;
	case CMD_PULSE ... 0xff:
		if (!(command & KBC_OUT_RESET))
			irq_pulse(&k->lines.reset);
		break;
	default: log_guest("i8042: unknown command 0x%02x", command); break;
	}
}

static void write_data(struct i8042 *k, uint8_t byte)
{
	uint8_t command = k->command;

	k->command = 0;
	switch (command) {
	case 0:
		/* Talking to the keyboard switches its port on. */
		k->ram[0] &= (uint8_t)~KBC_MODE_KBD_DISABLE;
		ps2_keyboard_write(&k->kbd, byte);
		break;
	case CMD_WRITE_OUTPORT:
		set_a20(k, byte & KBC_OUT_A20);
		if (!(byte & KBC_OUT_RESET))
			irq_pulse(&k->lines.reset);
		break;
	case CMD_WRITE_KBD_OBUF:
	case CMD_WRITE_AUX_OBUF: answer(k, byte, command == CMD_WRITE_AUX_OBUF); break;
	case CMD_WRITE_AUX:
		k->ram[0] &= (uint8_t)~KBC_MODE_AUX_DISABLE;
		ps2_mouse_write(&k->mouse, byte);
		break;
	default: k->ram[command - CMD_WRITE_RAM] = byte; break;
	}
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *k = opaque;

	k->last_was_command = false;
	write_data(k, (uint8_t)value);
	fetch(k);
}

static void command_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *k = opaque;

	k->last_was_command = true;
	write_command(k, (uint8_t)value);
	fetch(k);
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8042 *k = opaque;
	uint8_t byte = k->data;

	k->full = false;
	update_irqs(k);
	fetch(k);
	return byte;
}

static uint64_t status_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct i8042 *k = opaque;

	return KBC_STATUS_UNLOCKED | (k->full ? KBC_STATUS_OBF : 0) |
	       (mode(k) & KBC_MODE_SYS ? KBC_STATUS_SYS : 0) |
	       (k->last_was_command ? KBC_STATUS_CMD : 0) |
	       (k->full && k->from_aux ? KBC_STATUS_AUX : 0);
}

void i8042_key(struct i8042 *k, uint16_t code, bool down)
{
	ps2_keyboard_key(&k->kbd, code, down);
	fetch(k);
}

void i8042_mouse(struct i8042 *k, int dx, int dy, int dz, uint8_t buttons)
{
	ps2_mouse_move(&k->mouse, dx, dy, dz, buttons);
	fetch(k);
}

uint8_t i8042_leds(const struct i8042 *k)
{
	return k->kbd.leds;
}

static void reset(struct device *dev)
{
	struct i8042 *k = container_of(dev, struct i8042, dev);

	memset(k->ram, 0, sizeof(k->ram));
	/* As firmware leaves it: self test done, interrupts on, set 1 for the host. */
	k->ram[0] = KBC_MODE_KBD_INT | KBC_MODE_AUX_INT | KBC_MODE_SYS | KBC_MODE_TRANSLATE;
	k->command = k->data = 0;
	k->full = k->from_aux = k->has_answer = k->break_seen = k->last_was_command = false;
	ps2_keyboard_reset(&k->kbd);
	ps2_mouse_reset(&k->mouse);
	set_a20(k, true);
	update_irqs(k);
}

static void destroy(struct device *dev)
{
	struct i8042 *k = container_of(dev, struct i8042, dev);

	bus_remove(k->ports, &k->data_region);
	bus_remove(k->ports, &k->status_region);
	free(k);
}

struct i8042 *i8042_create(struct bus *ports, const struct i8042_lines *lines)
{
	static const struct device_ops ops = { "i8042", reset, destroy };
	static const struct io_ops data_ops = { data_read, data_write, 1, 1 };
	static const struct io_ops status_ops = { status_read, command_write, 1, 1 };
	struct i8042 *k = calloc(1, sizeof(*k));

	assert(k);
	k->dev.ops = &ops;
	k->ports = ports;
	k->lines = *lines;
	k->data_region = (struct io_region){
		.name = "i8042 data",
		.base = I8042_DATA_PORT,
		.length = 1,
		.ops = &data_ops,
		.opaque = k,
	};
	k->status_region = (struct io_region){
		.name = "i8042 status",
		.base = I8042_STATUS_PORT,
		.length = 1,
		.ops = &status_ops,
		.opaque = k,
	};
	bus_add(ports, &k->data_region);
	bus_add(ports, &k->status_region);
	reset(&k->dev);
	return k;
}

struct device *i8042_device(struct i8042 *k)
{
	return &k->dev;
}
