/* SPDX-License-Identifier: Apache-2.0 */
/* System control port A (0x92): fast A20 and fast reset. */
#ifndef DEV_PORT92_H
#define DEV_PORT92_H

#include "dev/device.h"

#define PORT92 0x92
#define PORT92_INIT_NOW 0x01
#define PORT92_ALT_A20_GATE 0x02

/*
 * @a20: driven to true at reset; the machine joins it with the keyboard controller's (A20 passes if
 * either says so). @reset is pulsed; the machine resets later, not from within.
 */
struct device *port92_create(struct bus *ports, struct irq_line a20, struct irq_line reset);

#endif
