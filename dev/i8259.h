/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC's pair of 8259A programmable interrupt controllers: IRQ 0–7 on the master, 8–15 on the
 * slave.
 */
#ifndef DEV_I8259_H
#define DEV_I8259_H

#include "dev/device.h"

#define I8259_MASTER_PORT 0x20
#define I8259_SLAVE_PORT 0xa0
#define I8259_ELCR_PORT 0x4d0

#define ICW1_IC4 0x01  /* ICW4 will follow */
#define ICW1_SNGL 0x02 /* single: no ICW3 */
#define ICW1_LTIM 0x08
#define ICW1_D4 0x10 /* marks an ICW1 */
#define ICW4_UPM 0x01
#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10
#define OCW2_LEVEL 0x07
#define OCW2_EOI 0x20
#define OCW2_SL 0x40
#define OCW2_R 0x80
#define OCW3_D3 0x08 /* marks an OCW3 */
#define OCW3_RIS 0x01
#define OCW3_RR 0x02
#define OCW3_P 0x04
#define OCW3_SMM 0x20
#define OCW3_ESMM 0x40

struct i8259;

/* Claims ports 0x20/21, 0xa0/a1, 0x4d0/4d1. @intr is the INTR wire to the processors. */
struct i8259 *i8259_create(struct bus *ports, struct irq_line intr);
struct device *i8259_device(struct i8259 *pic);

/*
 * An irq_line set function: @opaque is the struct i8259, @pin the IRQ 0..15 (2, the cascade, is
 * ignored).
 */
void i8259_set_irq(void *opaque, unsigned pin, bool level);

/* What would become of an edge on @pin. */
enum irq_edge i8259_edge(const struct i8259 *pic, unsigned pin);

bool i8259_intr(const struct i8259 *pic);

/*
 * The processor's two INTA cycles: marks the highest request in service and returns its vector.
 * With no request pending the answer is the default, IR7 of the chip that was asked, with nothing
 * in service.
 */
uint8_t i8259_ack(struct i8259 *pic);

#endif
