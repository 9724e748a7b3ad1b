/* SPDX-License-Identifier: Apache-2.0 */
/* What memory the host can still give to this process. */
#ifndef MEM_HOST_H
#define MEM_HOST_H

#include <stdint.h>

/*
 * Bytes that can be had without taking them from somebody: what the kernel calls available, plus free swap,
 * and no more than the memory control groups of this process leave. UINT64_MAX when nobody tells.
 */
uint64_t host_memory_available(void);

/* "1536 MiB", "2 GiB": the largest unit that shows it without a fraction. */
struct size_text {
	char text[32];
};
struct size_text size_to_text(uint64_t bytes);

#endif
