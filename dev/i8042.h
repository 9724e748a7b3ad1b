/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 8042 keyboard controller as programmed in the PS/2, with a keyboard and a mouse plugged in.
 */
#ifndef DEV_I8042_H
#define DEV_I8042_H

#include "dev/device.h"

#define I8042_DATA_PORT 0x60
#define I8042_STATUS_PORT 0x64

#define KBC_STATUS_OBF 0x01
#define KBC_STATUS_SYS 0x04
#define KBC_STATUS_CMD 0x08 /* the last write was a command */
#define KBC_STATUS_UNLOCKED 0x10
#define KBC_STATUS_AUX 0x20 /* the byte waiting is the mouse's */

#define KBC_MODE_KBD_INT 0x01
#define KBC_MODE_AUX_INT 0x02
#define KBC_MODE_SYS 0x04
#define KBC_MODE_KBD_DISABLE 0x10
#define KBC_MODE_AUX_DISABLE 0x20
#define KBC_MODE_TRANSLATE 0x40

#define KBC_OUT_RESET 0x01 /* low: the board is in reset */
#define KBC_OUT_A20 0x02
#define KBC_OUT_KBD_IRQ 0x10
#define KBC_OUT_AUX_IRQ 0x20

struct i8042;

struct i8042_lines {
	struct irq_line irq1, irq12;
	struct irq_line a20;   /* true: address line 20 passes; driven to true at reset */
	struct irq_line reset; /* pulsed; the machine resets later, not from within */
};

struct i8042 *i8042_create(struct bus *ports, const struct i8042_lines *lines);
struct device *i8042_device(struct i8042 *kbc);

/*
 * A key goes down (again: a repetition) or up. @code is the key's make code in scan code set 1,
 * 0x01..0x7f, with 0xe000 added for the keys whose code begins with 0xe0; Pause is 0xe11d, Print
 * Screen 0xe037. Codes of no key are ignored.
 */
void i8042_key(struct i8042 *kbc, uint16_t code, bool down);

/*
 * The mouse has moved right by @dx, up by @dy, its wheel towards the user by @dz. @buttons: bit 0
 * left, 1 right, 2 middle, 3 and 4 the fourth and fifth.
 */
void i8042_mouse(struct i8042 *kbc, int dx, int dy, int dz, uint8_t buttons);

/* The lights as the guest set them: bit 0 scroll lock, 1 num lock, 2 caps lock. */
uint8_t i8042_leds(const struct i8042 *kbc);

#endif
