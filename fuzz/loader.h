// SPDX-License-Identifier: Apache-2.0
/*
 * The frame of the boot loaders' fuzz targets. The input is the kernel, and the initrd of every other one; what a
 * loader accepts starts in usable memory.
 */
#ifndef FUZZ_LOADER_H
#define FUZZ_LOADER_H

#include <assert.h>
#include <stdlib.h>

#include "machine/boot.h"

static inline int fuzz_loader(const uint8_t *data, size_t size, bool (*is_mine)(const struct boot_file *kernel),
			      struct error *(*load)(struct boot *b))
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
	if (!is_mine(&src.kernel))
		return 0;
	boot_init(&b, mem, &src, &state);
	err = load(&b);
	assert(err || memmap_is_usable(&b.map, state.regs.rip, 1));
	error_free(err);
	return 0;
}

#endif
