/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PS/2 keyboard (scan code sets 1 and 2) and mouse (plain, wheel, five buttons).
 *
 * Theory of operation. Each device has a queue of events and the answer to the last command. A new
 * command discards an answer that nobody has read, so both are bounded. A key whose code does not
 * fit into the queue as a whole is dropped. The mouse adds up movements while its last packet waits
 * to be read.
 *
 * Manuals: IBM PS/2 Hardware Interface Technical Reference, "Keyboard" and "Mouse"; Microsoft's
 * IntelliMouse extension. Threading: machine lock.
 */
#include "dev/ps2.h"

#include "base/util.h"

#define KBD_CMD_LEDS 0xed
#define KBD_CMD_ECHO 0xee
#define KBD_CMD_SET 0xf0
#define KBD_CMD_ID 0xf2
#define KBD_CMD_RATE 0xf3
#define KBD_CMD_ENABLE 0xf4
#define KBD_CMD_DISABLE 0xf5
#define KBD_CMD_DEFAULT 0xf6
#define KBD_CMD_ALL_FIRST 0xf7
#define KBD_CMD_ALL_LAST 0xfa
#define CMD_RESEND 0xfe
#define CMD_RESET 0xff
#define BAT_OK 0xaa

#define MOUSE_CMD_SCALE11 0xe6
#define MOUSE_CMD_SCALE21 0xe7
#define MOUSE_CMD_RESOLUTION 0xe8
#define MOUSE_CMD_STATUS 0xe9
#define MOUSE_CMD_STREAM 0xea
#define MOUSE_CMD_POLL 0xeb
#define MOUSE_CMD_UNWRAP 0xec
#define MOUSE_CMD_WRAP 0xee
#define MOUSE_CMD_REMOTE 0xf0
#define MOUSE_CMD_ID 0xf2
#define MOUSE_CMD_RATE 0xf3
#define MOUSE_CMD_ENABLE 0xf4
#define MOUSE_CMD_DISABLE 0xf5
#define MOUSE_CMD_DEFAULT 0xf6

#define MOVE_LIMIT 32767

/* What the i8042 makes of each byte of set 2 below 0x80. */
// clang-format off
static const uint8_t set2_to_set1[0x80] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
	0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
	0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
	0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
	0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
	0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
	0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
	0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};
// clang-format on

uint8_t ps2_translate(uint8_t set2)
{
	switch (set2) {
	case 0x83: /* F7 */ return 0x41;
	case 0x84: /* SysRq */ return 0x54;
	default: return set2 < ARRAY_SIZE(set2_to_set1) ? set2_to_set1[set2] : set2;
	}
}

/* The byte of set 2 that translates to @set1; 0 when there is none. */
static uint8_t set1_to_set2(uint8_t set1)
{
	/* From the top: where two bytes translate to one, 0x83 and 0x84 are those of real keys. */
	for (unsigned i = 0x84; i > 0; i--)
		if (i != 0x80 && ps2_translate((uint8_t)i) == set1)
			return (uint8_t)i;
	return 0;
}

static void clear(struct ps2_port *p)
{
	p->head = p->count = 0;
}

static bool enqueue(struct ps2_port *p, const uint8_t *bytes, unsigned n)
{
	if (n > PS2_QUEUE - p->count)
		return false;
	for (unsigned i = 0; i < n; i++)
		p->queue[(p->head + p->count++) % PS2_QUEUE] = bytes[i];
	return true;
}

static void reply(struct ps2_port *p, unsigned n, uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
	memcpy(p->reply, (const uint8_t[]){ a, b, c, d }, sizeof(p->reply));
	p->reply_at = 0;
	p->reply_count = n;
}

static void ack(struct ps2_port *p)
{
	reply(p, 1, PS2_ACK, 0, 0, 0);
}

bool ps2_port_take(struct ps2_port *p, uint8_t *byte)
{
	if (p->reply_at < p->reply_count) {
		*byte = p->reply[p->reply_at++];
	} else if (p->count) {
		*byte = p->queue[p->head];
		p->head = (p->head + 1) % PS2_QUEUE;
		p->count--;
	} else {
		return false;
	}
	p->last = *byte;
	return true;
}

static void keyboard_default(struct ps2_keyboard *k)
{
	clear(&k->port);
	k->set = 2;
	k->typematic = 0x2b;
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
	*k = (struct ps2_keyboard){ .scanning = true };
	keyboard_default(k);
}

static void keyboard_parameter(struct ps2_keyboard *k, uint8_t command, uint8_t byte)
{
	switch (command) {
	case KBD_CMD_LEDS:
		k->leds = byte & 7;
		ack(&k->port);
		break;
	case KBD_CMD_RATE:
		k->typematic = byte & 0x7f;
		ack(&k->port);
		break;
	case KBD_CMD_SET:
		if (byte == 0) {
			reply(&k->port, 2, PS2_ACK, k->set, 0, 0);
		} else if (byte <= 2) {
			k->set = byte;
			clear(&k->port);
			ack(&k->port);
		} else {
			reply(&k->port, 1, PS2_RESEND, 0, 0, 0);
		}
		break;
	}
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
	struct ps2_port *p = &k->port;
	uint8_t command = p->command;

	p->command = 0;
	/* A byte that can be a command is one, also where a parameter was awaited. */
	if (command && byte < KBD_CMD_LEDS) {
		keyboard_parameter(k, command, byte);
		return;
	}
	switch (byte) {
	case KBD_CMD_LEDS:
	case KBD_CMD_RATE:
	case KBD_CMD_SET:
		p->command = byte;
		ack(p);
		break;
	case KBD_CMD_ECHO: reply(p, 1, KBD_CMD_ECHO, 0, 0, 0); break;
	case KBD_CMD_ID: reply(p, 3, PS2_ACK, 0xab, 0x83, 0); break;
	case KBD_CMD_ENABLE:
		clear(p);
		k->scanning = true;
		ack(p);
		break;
	case KBD_CMD_DISABLE:
		keyboard_default(k);
		k->scanning = false;
		ack(p);
		break;
	case KBD_CMD_DEFAULT:
		keyboard_default(k);
		ack(p);
		break;
	case KBD_CMD_ALL_FIRST ... KBD_CMD_ALL_LAST: /* of scan code set 3 only */ ack(p); break;
	case CMD_RESEND: reply(p, 1, p->last, 0, 0, 0); break;
	case CMD_RESET:
		ps2_keyboard_reset(k);
		reply(p, 2, PS2_ACK, BAT_OK, 0, 0);
		break;
	default: reply(p, 1, PS2_RESEND, 0, 0, 0); break;
	}
}

/* Keys whose sequences follow no rule. */
static const struct special_key {
	uint16_t code;
	uint8_t set;
	bool down;
	uint8_t length, bytes[8];
} special_keys[] = {
	{ 0xe037, 1, true, 4, { 0xe0, 0x2a, 0xe0, 0x37 } }, /* Print Screen */
	{ 0xe037, 1, false, 4, { 0xe0, 0xb7, 0xe0, 0xaa } },
	{ 0xe037, 2, true, 4, { 0xe0, 0x12, 0xe0, 0x7c } },
	{ 0xe037, 2, false, 6, { 0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12 } },
	{ 0xe11d,
	  1,
	  true,
	  6,
	  { 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5 } }, /* Pause: nothing on release */
	{ 0xe11d, 1, false, 0, { 0 } },
	{ 0xe11d, 2, true, 8, { 0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77 } },
	{ 0xe11d, 2, false, 0, { 0 } },
};

void ps2_keyboard_key(struct ps2_keyboard *k, uint16_t code, bool down)
{
	uint8_t bytes[3], key = code & 0x7f;
	unsigned n = 0;

	if (!k->scanning)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(special_keys); i++) {
		const struct special_key *s = &special_keys[i];

		if (s->code == code && s->set == k->set && s->down == down) {
			enqueue(&k->port, s->bytes, s->length);
			return;
		}
	}
	if ((code & 0xff80) != 0 && (code & 0xff80) != 0xe000)
		return;
	if (code & 0xff00)
		bytes[n++] = 0xe0;
	if (k->set == 1) {
		bytes[n++] = key | (down ? 0 : 0x80);
	} else {
		key = set1_to_set2(key);
		if (!down)
			bytes[n++] = 0xf0;
		bytes[n++] = key;
	}
	if (key)
		enqueue(&k->port, bytes, n);
}

static void mouse_default(struct ps2_mouse *m)
{
	m->resolution = 2;
	m->rate = 100;
	m->scale21 = m->remote = m->wrap = m->reporting = false;
	m->dx = m->dy = m->dz = 0;
	clear(&m->port);
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
	uint8_t buttons = m->buttons;

	*m = (struct ps2_mouse){ .buttons = buttons };
	mouse_default(m);
}

static int clip(int v, int low, int high)
{
	return v < low ? low : v > high ? high : v;
}

/* 2:1 scaling, in stream mode only. */
static int scale(const struct ps2_mouse *m, int v)
{
	static const int8_t small[] = { 0, 1, 1, 3, 6, 9 };
	int magnitude = v < 0 ? -v : v;

	if (!m->scale21 || m->remote)
		return v;
	magnitude = magnitude < (int)ARRAY_SIZE(small) ? small[magnitude] : 2 * magnitude;
	return v < 0 ? -magnitude : magnitude;
}

/* Takes from *@left what fits into nine bits. */
static int take_axis(const struct ps2_mouse *m, int *left)
{
	int limit = m->scale21 && !m->remote ? 127 : 255, v = clip(*left, -limit, limit);

	*left -= v;
	return scale(m, v);
}

static void packet(struct ps2_mouse *m)
{
	int dx = take_axis(m, &m->dx), dy = take_axis(m, &m->dy), dz = clip(m->dz, -8, 7);
	uint8_t bytes[4] = {
		(uint8_t)((m->buttons & 7) | 0x08 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)),
		(uint8_t)dx,
		(uint8_t)dy,
	};

	m->dz -= dz;
	if (m->id == 3)
		bytes[3] = (uint8_t)dz;
	else if (m->id == 4)
		bytes[3] = (uint8_t)((dz & 15) | (m->buttons & 0x18) << 1);
	m->sent_buttons = m->buttons;
	enqueue(&m->port, bytes, m->id ? 4 : 3);
}

void ps2_mouse_report(struct ps2_mouse *m)
{
	if (!m->reporting || m->remote || m->wrap || m->port.count ||
	    m->port.reply_at < m->port.reply_count)
		return;
	if (m->dx || m->dy || m->dz || m->buttons != m->sent_buttons)
		packet(m);
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, uint8_t buttons)
{
	m->buttons = buttons & (m->id == 4 ? 0x1f : 7);
	if (!m->reporting && !m->remote)
		return;
	m->dx = clip(m->dx + clip(dx, -MOVE_LIMIT, MOVE_LIMIT), -MOVE_LIMIT, MOVE_LIMIT);
	m->dy = clip(m->dy + clip(dy, -MOVE_LIMIT, MOVE_LIMIT), -MOVE_LIMIT, MOVE_LIMIT);
	m->dz = m->id ? clip(m->dz + clip(dz, -MOVE_LIMIT, MOVE_LIMIT), -MOVE_LIMIT, MOVE_LIMIT)
		      : 0;
	ps2_mouse_report(m);
}

static void mouse_parameter(struct ps2_mouse *m, uint8_t command, uint8_t byte)
{
	ack(&m->port);
	if (command == MOUSE_CMD_RESOLUTION) {
		m->resolution = byte & 3;
		return;
	}
	m->rate = byte;
	m->rates[0] = m->rates[1];
	m->rates[1] = m->rates[2];
	m->rates[2] = byte;
	if (m->rates[0] == 200 && m->rates[1] == 100 && byte == 80)
		m->id = 3;
	if (m->rates[0] == 200 && m->rates[1] == 200 && byte == 80)
		m->id = 4;
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
	struct ps2_port *p = &m->port;
	uint8_t command = p->command;

	p->command = 0;
	if (m->wrap && byte != CMD_RESET && byte != MOUSE_CMD_UNWRAP) {
		reply(p, 1, byte, 0, 0, 0);
		return;
	}
	if (command) {
		mouse_parameter(m, command, byte);
		return;
	}
	/* Any command ends the packet that was under way. */
	clear(p);
	ack(p);
	switch (byte) {
	case MOUSE_CMD_SCALE11:
	case MOUSE_CMD_SCALE21: m->scale21 = byte == MOUSE_CMD_SCALE21; break;
	case MOUSE_CMD_RESOLUTION:
	case MOUSE_CMD_RATE: p->command = byte; break;
	case MOUSE_CMD_STATUS:
		reply(p, 4, PS2_ACK,
		      (uint8_t)((m->remote ? 0x40 : 0) | (m->reporting ? 0x20 : 0) |
				(m->scale21 ? 0x10 : 0) | (m->buttons & 1) << 2 |
				(m->buttons & 4) >> 1 | (m->buttons & 2) >> 1),
		      m->resolution, m->rate);
		break;
	case MOUSE_CMD_STREAM: m->remote = false; break;
	case MOUSE_CMD_REMOTE: m->remote = true; break;
	case MOUSE_CMD_POLL: packet(m); break;
	case MOUSE_CMD_WRAP: m->wrap = true; break;
	case MOUSE_CMD_UNWRAP: m->wrap = false; break;
	case MOUSE_CMD_ID: reply(p, 2, PS2_ACK, m->id, 0, 0); break;
	case MOUSE_CMD_ENABLE:
		m->reporting = true;
		m->dx = m->dy = m->dz = 0;
		break;
	case MOUSE_CMD_DISABLE: m->reporting = false; break;
	case MOUSE_CMD_DEFAULT: mouse_default(m); break;
	case CMD_RESEND: reply(p, 1, p->last, 0, 0, 0); break;
	case CMD_RESET:
		ps2_mouse_reset(m);
		reply(p, 3, PS2_ACK, BAT_OK, 0, 0);
		break;
	default: reply(p, 1, PS2_RESEND, 0, 0, 0); break;
	}
}
