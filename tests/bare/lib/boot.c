/* SPDX-License-Identifier: Apache-2.0 */
/* C side of the entry: the command line, user mode's defaults. */
#include "lib/bare.h"

extern uint32_t boot_info;
void main(void);
void start_c(void) __attribute__((noreturn));
static uint8_t user_stack[16384] __attribute__((aligned(4096)));

void start_c(void)
{
	const uint32_t *info = (const uint32_t *)(uintptr_t)boot_info;

	command_line = "";
	if (info[0] & 1 << 2)
		command_line = (const char *)(uintptr_t)info[4];
	user_flags = 2;
	user_cs = SEL_UCODE;
	user_ss = SEL_UDATA;
	user_sp = USER(user_stack + sizeof(user_stack) - 64);
	main();
	done();
}
