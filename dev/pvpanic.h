/* SPDX-License-Identifier: Apache-2.0 */
/* The port by which a guest's kernel says that it has panicked (QEMU's "pvpanic", docs/specs/pvpanic). */
#ifndef DEV_PVPANIC_H
#define DEV_PVPANIC_H

#include "dev/device.h"

#define PVPANIC_PORT 0x505

enum pvpanic_event {
	PVPANIC_PANICKED = 1u << 0,
	PVPANIC_CRASH_LOADED = 1u << 1, /* a crash kernel takes over */
};

/* @happened is called, from within the write, with one event or both. */
struct device *pvpanic_create(struct bus *ports, uint16_t port, void (*happened)(void *opaque, unsigned events),
			      void *opaque);

#endif
