/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The person's terminal while a VM runs: bytes between it and the guest's serial port, the menu behind
 * Ctrl-], signals, and the end of the VM process.
 */
#ifndef CLI_CONSOLE_H
#define CLI_CONSOLE_H

#include <stdbool.h>
#include <sys/types.h>
#include <termios.h>

#include "base/error.h"

/* The terminal on standard input, if it is one, in raw mode. */
struct terminal {
	bool raw;
	struct termios before;
};

void terminal_raw(struct terminal *t);
void terminal_restore(struct terminal *t);

/*
 * Relays until the process @pid ends; returns its wait status. @serial_fd is the guest's serial port (-1: none
 * here), @control_fd its control socket. Other children that end are reaped. SIGTERM, SIGINT and SIGHUP are
 * passed on to it. Signals are blocked by console_block_signals() before the process is started.
 */
int console_run(pid_t pid, int serial_fd, int control_fd, struct terminal *t);
void console_block_signals(void);

#endif
