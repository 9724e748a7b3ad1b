/* SPDX-License-Identifier: Apache-2.0 */
/* PS/2 keyboard and mouse: what is at the other end of the i8042's two cables. */
#ifndef DEV_PS2_H
#define DEV_PS2_H

#include <stdbool.h>
#include <stdint.h>

#define PS2_QUEUE 64u /* a power of two */
#define PS2_ACK 0xfa
#define PS2_RESEND 0xfe

/* Bytes on their way to the host. An answer to a command goes before events. */
struct ps2_port {
	uint8_t reply[4];
	unsigned reply_count, reply_at;
	uint8_t queue[PS2_QUEUE];
	unsigned head, count;
	uint8_t last;	 /* the byte sent last, for the resend command */
	uint8_t command; /* whose parameter is awaited; 0: none */
};

struct ps2_keyboard {
	struct ps2_port port;
	uint8_t set; /* scan code set, 1 or 2 */
	uint8_t leds, typematic;
	bool scanning;
};

struct ps2_mouse {
	struct ps2_port port;
	uint8_t id;			    /* 0: plain, 3: with a wheel, 4: with five buttons */
	uint8_t resolution, rate, rates[3]; /* the last three rates set unlock the wheel */
	bool remote, wrap, reporting, scale21;
	uint8_t buttons, sent_buttons;
	int dx, dy, dz; /* not yet reported */
};

/* Takes the next byte on its way to the host; false when there is none. */
bool ps2_port_take(struct ps2_port *port, uint8_t *byte);

void ps2_keyboard_reset(struct ps2_keyboard *kbd); /* as at power-on, scanning */
/* A byte from the host. */
void ps2_keyboard_write(struct ps2_keyboard *kbd, uint8_t byte);
/* @code as in i8042_key(). */
void ps2_keyboard_key(struct ps2_keyboard *kbd, uint16_t code, bool down);

void ps2_mouse_reset(struct ps2_mouse *mouse);
void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte);
void ps2_mouse_move(struct ps2_mouse *mouse, int dx, int dy, int dz, uint8_t buttons);
/* Makes a packet of what has not been reported yet, when the last one has left. */
void ps2_mouse_report(struct ps2_mouse *mouse);

/* The i8042's translation of a set 2 byte to set 1. */
uint8_t ps2_translate(uint8_t set2);

#endif
