/* SPDX-License-Identifier: Apache-2.0 */
/* A port by which a test program in the guest ends the VM with a value. */
#ifndef DEV_DEBUG_EXIT_H
#define DEV_DEBUG_EXIT_H

#include "dev/device.h"

#define DEBUG_EXIT_PORT 0xf4

/* Claims four ports at @base. @exited is called, from within the write, with what was written. */
struct device *debug_exit_create(struct bus *ports, uint16_t base,
				 void (*exited)(void *opaque, uint32_t value), void *opaque);

#endif
