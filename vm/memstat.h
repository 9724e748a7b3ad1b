/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host says about guest memory: how much of it there is, merged with equal pages, in huge pages. Its files
 * in /proc are opened before the sandbox closes, and read when somebody asks.
 */
#ifndef VM_MEMSTAT_H
#define VM_MEMSTAT_H

#include <jansson.h>

#include "mem/memory.h"
#include "vm/config.h"

struct memstat {
	int ksm_pages_fd, ksm_stat_fd, smaps_fd; /* -1: not there, or not asked for */
};

void memstat_init(struct memstat *m);
void memstat_open(struct memstat *m, const struct vm_config *config);
void memstat_close(struct memstat *m);

/* An object; what the host does not tell is not in it. */
json_t *memstat_json(const struct memstat *m, const struct memory *mem);

#endif
