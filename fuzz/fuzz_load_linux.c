// SPDX-License-Identifier: Apache-2.0
/* The bzImage loader. The input is the kernel; its last bytes are the initrd and the command line too. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "machine/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct memory *mem;
	struct boot_state state;
	struct boot_source src = {
		.kernel = { .name = "k", .data = data, .size = size },
		.initrd = { .name = "i", .data = size & 1 ? data : NULL, .size = size / 2 },
		.cmdline = "root=/dev/vda console=ttyS0",
	};
	struct error *err;
	struct boot b;

	if (!mem && (err = memory_create(24 * MiB, &mem)))
		abort();
	if (!boot_is_linux(&src.kernel))
		return 0;
	boot_init(&b, mem, &src, &state);
	err = boot_load_linux(&b);
	assert(err || memmap_is_usable(&b.map, state.regs.rip, 1));
	error_free(err);
	return 0;
}
