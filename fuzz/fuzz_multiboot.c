// SPDX-License-Identifier: Apache-2.0
/* The Multiboot loader. */
#include "fuzz/loader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_loader(data, size, boot_is_multiboot, boot_load_multiboot);
}
