// SPDX-License-Identifier: Apache-2.0
/*
 * SMBIOS tables: a 2.1 entry point, a 3.0 entry point, and structures 0, 1, 3, 4, 16, 17, 19, 32, 127
 * (DMTF DSP0134; offsets from its tables). Each structure is a formatted part followed by its strings.
 */
#include "machine/smbios.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "machine/layout.h"

#define AREA_BYTES (LAYOUT_TABLES_END - LAYOUT_SMBIOS)
#define ENTRY21_AT 0u
#define ENTRY30_AT 32u
#define STRUCTURES_AT 64u

enum { HANDLE_BIOS, HANDLE_SYSTEM, HANDLE_CHASSIS, HANDLE_CPU, HANDLE_ARRAY, HANDLE_DIMM, HANDLE_RANGE,
       HANDLE_BOOT, HANDLE_END };

struct writer {
	uint8_t *buf; /* of AREA_BYTES */
	size_t used;
	unsigned count, longest;
};

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum += *p++;
	return -sum;
}

/* Appends a structure: @part of @length bytes (its header is filled in here), then @strings up to NULL. */
static void put(struct writer *w, unsigned type, unsigned handle, uint8_t *part, unsigned length,
		const char *const *strings)
{
	size_t start = w->used;

	part[0] = type;
	part[1] = length;
	store_le(part + 2, handle, 2);
	assert(w->used + length <= AREA_BYTES);
	memcpy(w->buf + w->used, part, length);
	w->used += length;
	for (unsigned i = 0; strings && strings[i]; i++) {
		size_t n = strlen(strings[i]) + 1;

		assert(w->used + n <= AREA_BYTES);
		memcpy(w->buf + w->used, strings[i], n);
		w->used += n;
	}
	assert(w->used + 2 <= AREA_BYTES);
	if (!strings || !strings[0])
		w->buf[w->used++] = 0;
	w->buf[w->used++] = 0;
	w->count++;
	w->longest = MAX(w->longest, (unsigned)(w->used - start));
}

static void put_identity(struct writer *w, const struct smbios_config *c)
{
	uint8_t bios[24] = { 0 }, system[27] = { 0 }, chassis[22] = { 0 };

	bios[4] = 1;
	bios[5] = 2;
	store_le(bios + 6, LAYOUT_TABLES >> 4, 2);
	bios[8] = 3;
	store_le(bios + 10, 1u << 3, 8); /* characteristics are not given */
	bios[19] = 0x14; /* targeted content, virtual machine */
	bios[22] = bios[23] = 0xff; /* no embedded controller */
	put(w, 0, HANDLE_BIOS, bios, sizeof(bios), (const char *const[]){ "maru", c->version, "01/01/2025", NULL });

	system[4] = 1;
	system[5] = 2;
	system[6] = 3;
	/* The first three fields of a UUID are little-endian here (7.2.1). */
	for (unsigned i = 0; i < 16; i++)
		system[8 + i] = c->uuid[i < 4 ? 3 - i : i < 6 ? 9 - i : i < 8 ? 13 - i : i];
	system[24] = 6; /* woken by the power switch */
	put(w, 1, HANDLE_SYSTEM, system, sizeof(system), (const char *const[]){ "maru", "maru PC", c->version, NULL });

	chassis[4] = 1;
	chassis[5] = 1; /* other */
	chassis[9] = chassis[10] = chassis[11] = 3; /* safe */
	chassis[12] = 2;
	put(w, 3, HANDLE_CHASSIS, chassis, sizeof(chassis), (const char *const[]){ "maru", NULL });
}

/* One socket with all vCPUs as its cores. */
static void put_cpu(struct writer *w, const struct smbios_config *c)
{
	uint8_t cpu[48] = { 0 };

	cpu[4] = 1;
	cpu[5] = 3;    /* central processor */
	cpu[6] = 0xfe; /* family: see the other field */
	cpu[7] = 2;
	cpu[24] = 0x41; /* populated, enabled */
	cpu[25] = 1;
	store_le(cpu + 26, 0xffff, 2); /* no cache structures */
	store_le(cpu + 28, 0xffff, 2);
	store_le(cpu + 30, 0xffff, 2);
	cpu[35] = cpu[36] = cpu[37] = MIN(c->vcpu_count, 255);
	store_le(cpu + 38, 1u << 2 | 1u << 3, 2); /* 64-bit, multi-core */
	store_le(cpu + 40, 1, 2);
	store_le(cpu + 42, c->vcpu_count, 2);
	store_le(cpu + 44, c->vcpu_count, 2);
	store_le(cpu + 46, c->vcpu_count, 2);
	put(w, 4, HANDLE_CPU, cpu, sizeof(cpu), (const char *const[]){ "CPU 0", "maru", NULL });
}

static void put_memory(struct writer *w, uint64_t bytes)
{
	uint8_t array[23] = { 0 }, dimm[40] = { 0 }, range[31] = { 0 };
	uint64_t mib = bytes / MiB;

	array[4] = 1; /* other */
	array[5] = 3; /* system memory */
	array[6] = 3; /* no error correction */
	store_le(array + 7, 0x80000000, 4);
	store_le(array + 11, 0xfffe, 2);
	store_le(array + 13, 1, 2);
	store_le(array + 15, bytes, 8);
	put(w, 16, HANDLE_ARRAY, array, sizeof(array), NULL);

	store_le(dimm + 4, HANDLE_ARRAY, 2);
	store_le(dimm + 6, 0xfffe, 2);
	store_le(dimm + 8, 0xffff, 2);
	store_le(dimm + 10, 0xffff, 2);
	store_le(dimm + 12, mib < 0x7fff ? mib : 0x7fff, 2);
	dimm[14] = 9; /* DIMM */
	dimm[16] = 1;
	dimm[18] = 7; /* RAM */
	store_le(dimm + 19, 1u << 1, 2);
	store_le(dimm + 28, mib < 0x7fff ? 0 : mib, 4);
	put(w, 17, HANDLE_DIMM, dimm, sizeof(dimm), (const char *const[]){ "DIMM 0", NULL });

	store_le(range + 4, 0xffffffff, 4);
	store_le(range + 8, 0xffffffff, 4);
	store_le(range + 12, HANDLE_ARRAY, 2);
	range[14] = 1;
	store_le(range + 15, 0, 8);
	store_le(range + 23, bytes - 1, 8);
	put(w, 19, HANDLE_RANGE, range, sizeof(range), NULL);
}

static void put_entries(struct writer *w)
{
	uint8_t *e = w->buf + ENTRY21_AT;
	uint32_t at = LAYOUT_SMBIOS + STRUCTURES_AT, length = w->used - STRUCTURES_AT;

	memcpy(e, "_SM_", 4);
	e[5] = 0x1f;
	e[6] = 2;
	e[7] = 8;
	store_le(e + 8, w->longest, 2);
	memcpy(e + 16, "_DMI_", 5);
	store_le(e + 22, length, 2);
	store_le(e + 24, at, 4);
	store_le(e + 28, w->count, 2);
	e[30] = 0x28;
	e[21] = checksum(e + 16, 15);
	e[4] = checksum(e, 31);

	e = w->buf + ENTRY30_AT;
	memcpy(e, "_SM3_", 5);
	e[6] = 24;
	e[7] = 3;
	e[8] = 0;
	e[10] = 1;
	store_le(e + 12, length, 4);
	store_le(e + 16, at, 8);
	e[5] = checksum(e, 24);
}

void smbios_write(struct memory *mem, const struct smbios_config *config)
{
	uint8_t buf[AREA_BYTES] = { 0 }, boot[11] = { 0 }, end[4] = { 0 };
	struct writer w = { .buf = buf, .used = STRUCTURES_AT };

	put_identity(&w, config);
	put_cpu(&w, config);
	put_memory(&w, mem->ram_bytes);
	put(&w, 32, HANDLE_BOOT, boot, sizeof(boot), NULL); /* no errors */
	put(&w, 127, HANDLE_END, end, sizeof(end), NULL);
	put_entries(&w);
	if (!mem_write(mem, LAYOUT_SMBIOS, buf, sizeof(buf)))
		assert(!"the first MiB is RAM");
}
