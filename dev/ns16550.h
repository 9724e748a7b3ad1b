/* SPDX-License-Identifier: Apache-2.0 */
/* National 16550A UART. */
#ifndef DEV_NS16550_H
#define DEV_NS16550_H

#include "dev/device.h"
#include "ui/chardev.h"

#define NS16550_COM1_PORT 0x3f8
#define NS16550_COM2_PORT 0x2f8

#define UART_RBR 0 /* and THR; DLL with DLAB */
#define UART_IER 1 /* DLM with DLAB */
#define UART_IIR 2 /* and FCR */
#define UART_LCR 3
#define UART_MCR 4
#define UART_LSR 5
#define UART_MSR 6
#define UART_SCR 7

#define IER_ERBFI 0x01
#define IER_ETBEI 0x02
#define IER_ELSI 0x04
#define IER_EDSSI 0x08
#define IIR_NONE 0x01
#define IIR_MSI 0x00
#define IIR_THRI 0x02
#define IIR_RDI 0x04
#define IIR_RLSI 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define FCR_RX_RESET 0x02
#define LCR_SBC 0x40
#define LCR_DLAB 0x80
#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define LSR_DR 0x01
#define LSR_OE 0x02
#define LSR_PE 0x04
#define LSR_FE 0x08
#define LSR_BI 0x10
#define LSR_THRE 0x20
#define LSR_TEMT 0x40
#define LSR_FIFOE 0x80
#define MSR_DCTS 0x01
#define MSR_DDSR 0x02
#define MSR_TERI 0x04
#define MSR_DDCD 0x08
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

/*
 * Claims eight ports at @base. Takes over @chr's client side; @chr (may be NULL) stays the
 * caller's.
 */
struct device *ns16550_create(struct bus *ports, uint16_t base, struct clock *clock,
			      struct irq_line irq, struct chardev *chr);

#endif
