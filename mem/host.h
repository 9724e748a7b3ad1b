/* SPDX-License-Identifier: Apache-2.0 */
/* What memory the host can still give to this process. */
#ifndef MEM_HOST_H
#define MEM_HOST_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Bytes that can be had without taking them from somebody: what the kernel calls available, plus free swap,
 * and no more than the memory control groups of this process leave. UINT64_MAX when nobody tells.
 */
uint64_t host_memory_available(void);

/* All memory and swap of the host, and no more than the control groups' limits: more can never be had. */
uint64_t host_memory_total(void);

/*
 * Bytes that the host still promises, where it promises no more than it has (vm.overcommit_memory = 2);
 * UINT64_MAX elsewhere.
 */
uint64_t host_memory_promisable(void);

/* Whether transparent huge pages are to be had for memory that asks for them. */
bool host_has_huge_pages(void);

/* Whether the host looks for equal pages (KSM): not at all, not now, or yes. */
enum host_ksm { HOST_KSM_NONE, HOST_KSM_OFF, HOST_KSM_ON };
enum host_ksm host_ksm(void);

/* "1536 MiB", "2 GiB": the largest unit that shows it without a fraction. */
struct size_text {
	char text[32];
};
struct size_text size_to_text(uint64_t bytes);

#endif
