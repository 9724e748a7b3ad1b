/* SPDX-License-Identifier: Apache-2.0 */
/* Intel 8254 programmable interval timer, and port 0x61 that drives its channel 2 (the speaker). */
#ifndef DEV_I8254_H
#define DEV_I8254_H

#include "dev/device.h"

#define I8254_PORT 0x40
#define I8254_HZ 1193182u
#define NMI_SC_PORT 0x61

#define NMI_SC_TIM_CNT2_EN 0x01
#define NMI_SC_SPKR_DAT_EN 0x02
#define NMI_SC_PCI_SERR_EN 0x04
#define NMI_SC_IOCHK_NMI_EN 0x08
#define NMI_SC_REF_TOGGLE 0x10
#define NMI_SC_TMR2_OUT_STS 0x20

struct i8254;

/* Claims ports 0x40–0x43 and 0x61. @irq is channel 0's output; @waits, which may be NULL, is about it. */
struct i8254 *i8254_create(struct bus *ports, struct clock *clock, struct irq_line irq,
			   irq_waits_fn *waits);
struct device *i8254_device(struct i8254 *pit);

/* A processor has taken an interrupt: if it was this chip's, the next tick that is owed follows. */
void i8254_tick_taken(struct i8254 *pit);

#endif
