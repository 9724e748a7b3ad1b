/* SPDX-License-Identifier: Apache-2.0 */
/* The debug console port of firmware and test kernels: bytes written go to a back end. */
#ifndef DEV_DEBUGCON_H
#define DEV_DEBUGCON_H

#include "dev/device.h"
#include "ui/chardev.h"

#define DEBUGCON_PORT 0xe9

/* Claims one port, which reads as its own number 0xe9. @chr (may be NULL) stays the caller's. */
struct device *debugcon_create(struct bus *ports, struct chardev *chr);

#endif
