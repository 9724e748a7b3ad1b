/* SPDX-License-Identifier: Apache-2.0 */
/* SMBIOS: the inventory that `dmidecode` shows (DMTF DSP0134 3.4). */
#ifndef MACHINE_SMBIOS_H
#define MACHINE_SMBIOS_H

#include <stdint.h>

#include "mem/memory.h"

struct smbios_config {
	unsigned vcpu_count;
	const char *version; /* of maru */
	uint8_t uuid[16];    /* RFC 4122 byte order; all zeroes: not set */
};

/* Writes both entry points and the structures to LAYOUT_SMBIOS…LAYOUT_TABLES_END. */
void smbios_write(struct memory *mem, const struct smbios_config *config);

#endif
