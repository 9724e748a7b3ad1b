// SPDX-License-Identifier: Apache-2.0
/*
 * ACPI tables: RSDP, RSDT, XSDT, FADT, FACS, MADT, HPET, MCFG. The DSDT is in dsdt.c.
 *
 * Theory of operation. All tables are built in one buffer that mirrors guest memory from LAYOUT_TABLES on,
 * RSDP first, because operating systems search it at 16-byte boundaries of 0xe0000–0xfffff. Offsets
 * and names are those of ACPI 6.4, section 5.2.
 */
#include "machine/acpi.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/acpi_pm.h"
#include "machine/layout.h"

#define AREA_BYTES (LAYOUT_SMBIOS - LAYOUT_TABLES)
#define HEADER_BYTES 36u
#define RSDP_BYTES 36u

#define PM1_EVENT (LAYOUT_PM_BASE + ACPI_PM1A_EVT)
#define PM1_CONTROL (LAYOUT_PM_BASE + ACPI_PM1A_CNT)
#define PM_TIMER (LAYOUT_PM_BASE + ACPI_PM_TMR)
#define GPE0 (LAYOUT_PM_BASE + ACPI_GPE0)

struct area {
	uint8_t *buf;
	size_t used;
};

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum += *p++;
	return -sum;
}

/* Room for @length zero bytes at a 16-byte boundary (64 for the FACS, which wants it). */
static uint8_t *reserve(struct area *a, size_t length, size_t align)
{
	uint8_t *at;

	a->used = align_up(a->used, align);
	assert(length <= AREA_BYTES - a->used);
	at = a->buf + a->used;
	a->used += length;
	return at;
}

static uint32_t gpa_of(const struct area *a, const uint8_t *p)
{
	return LAYOUT_TABLES + (uint32_t)(p - a->buf);
}

/* A table of @length bytes, header filled in but for the checksum. */
static uint8_t *table(struct area *a, const char *signature, unsigned revision, size_t length)
{
	uint8_t *t = reserve(a, length, 16);

	memcpy(t, signature, 4);
	store_le(t + 4, length, 4);
	t[8] = revision;
	memcpy(t + 10, "MARU  ", 6);
	memcpy(t + 16, "MARUPC  ", 8);
	store_le(t + 24, 1, 4); /* OEM revision */
	memcpy(t + 28, "MARU", 4);
	store_le(t + 32, 1, 4);
	return t;
}

static void seal(uint8_t *t)
{
	t[9] = 0;
	t[9] = checksum(t, load_le(t + 4, 4));
}

/* Generic Address Structure: @bytes of I/O space at @port; access size as the register is wide. */
static void gas_io(uint8_t *p, unsigned port, unsigned bytes, unsigned access)
{
	p[0] = 1; /* system I/O */
	p[1] = bytes * 8;
	p[2] = 0;
	p[3] = access;
	store_le(p + 4, port, 8);
}

static uint8_t *put_fadt(struct area *a, uint32_t dsdt, uint32_t facs)
{
	uint8_t *t = table(a, "FACP", 5, 268);

	store_le(t + 36, facs, 4);
	store_le(t + 40, dsdt, 4);
	t[45] = 0; /* preferred profile: unspecified */
	store_le(t + 46, LAYOUT_SCI, 2);
	store_le(t + 48, ACPI_SMI_CMD_PORT, 4);
	t[52] = ACPI_ENABLE_COMMAND;
	t[53] = ACPI_DISABLE_COMMAND;
	store_le(t + 56, PM1_EVENT, 4);
	store_le(t + 64, PM1_CONTROL, 4);
	store_le(t + 76, PM_TIMER, 4);
	store_le(t + 80, GPE0, 4);
	t[88] = ACPI_PM1A_EVT_LEN;
	t[89] = ACPI_PM1A_CNT_LEN;
	t[91] = ACPI_PM_TMR_LEN;
	t[92] = ACPI_GPE0_LEN;
	store_le(t + 96, 0xfff, 2);  /* no C2 */
	store_le(t + 98, 0xfff, 2);  /* no C3 */
	t[108] = 0x32;		     /* century byte in CMOS */
	store_le(t + 109, 0x0003, 2); /* ISA devices, 8042; no VGA bit: there may be none */
	/*
	 * WBINVD works; C1 on all; sleep button is none (control method, of which there is none); RTC wake not
	 * in fixed registers; TMR_VAL_EXT: the timer has 32 bits; RESET_REG.
	 */
	store_le(t + 112, 1u << 0 | 1u << 2 | 1u << 5 | 1u << 8 | 1u << 10, 4);
	gas_io(t + 116, 0xcf9, 1, 1);
	t[128] = 6; /* RESET_VALUE */
	store_le(t + 140, dsdt, 8);
	gas_io(t + 148, PM1_EVENT, 4, 2);
	gas_io(t + 172, PM1_CONTROL, 2, 2);
	gas_io(t + 208, PM_TIMER, 4, 3);
	gas_io(t + 220, GPE0, ACPI_GPE0_LEN, 1);
	seal(t);
	return t;
}

static uint8_t *put_facs(struct area *a)
{
	uint8_t *t = reserve(a, 64, 64);

	memcpy(t, "FACS", 4);
	store_le(t + 4, 64, 4);
	t[32] = 2; /* version; no checksum */
	return t;
}

static uint8_t *put_dsdt(struct area *a, const struct acpi_config *config)
{
	uint8_t *t = table(a, "DSDT", 2, HEADER_BYTES);
	size_t n = acpi_dsdt(a->buf + a->used, AREA_BYTES - a->used, config);

	a->used += n;
	store_le(t + 4, HEADER_BYTES + n, 4);
	seal(t);
	return t;
}

/* Flags of an interrupt source override or NMI: polarity and trigger (ACPI 6.4, table 5.26). */
#define MPS_HIGH_LEVEL 0xdu

static uint8_t *put_override(uint8_t *p, unsigned irq, unsigned gsi, unsigned flags)
{
	p[0] = 2;
	p[1] = 10;
	p[3] = irq;
	store_le(p + 4, gsi, 4);
	store_le(p + 8, flags, 2);
	return p + 10;
}

static uint8_t *put_madt(struct area *a, unsigned vcpu_count)
{
	uint8_t *t = table(a, "APIC", 4, 44 + vcpu_count * 8 + 12 + 2 * 10 + 6), *p = t + 44;

	store_le(t + 36, LAYOUT_LAPIC, 4);
	store_le(t + 40, 1, 4); /* PCAT_COMPAT: there are 8259s too */
	for (unsigned i = 0; i < vcpu_count; i++, p += 8) {
		p[0] = 0; /* processor local APIC */
		p[1] = 8;
		p[2] = i; /* UID, as in the DSDT */
		p[3] = i; /* APIC id */
		store_le(p + 4, 1, 4);
	}
	p[0] = 1; /* I/O APIC */
	p[1] = 12;
	p[2] = vcpu_count < 255 ? vcpu_count : 0;
	store_le(p + 4, LAYOUT_IOAPIC, 4);
	store_le(p + 8, 0, 4);
	p = put_override(p + 12, 0, 2, 0);
	p = put_override(p, LAYOUT_SCI, LAYOUT_SCI, MPS_HIGH_LEVEL);
	p[0] = 4; /* local APIC NMI: LINT1 of all processors */
	p[1] = 6;
	p[2] = 0xff;
	p[5] = 1;
	assert(p + 6 == t + load_le(t + 4, 4));
	seal(t);
	return t;
}

static uint8_t *put_hpet(struct area *a)
{
	uint8_t *t = table(a, "HPET", 1, 56);

	/* Event timer block id as in the chip's capability register: Intel, 64-bit, 3 comparators, legacy. */
	store_le(t + 36, 0x8086a201, 4);
	t[40] = 0; /* memory */
	t[41] = 64;
	store_le(t + 44, LAYOUT_HPET, 8);
	store_le(t + 53, 0x80, 2); /* smallest tick in periodic mode */
	seal(t);
	return t;
}

static uint8_t *put_mcfg(struct area *a)
{
	uint8_t *t = table(a, "MCFG", 1, 60);

	store_le(t + 44, LAYOUT_ECAM, 8);
	t[54] = 0;   /* first bus */
	t[55] = 255; /* last bus */
	seal(t);
	return t;
}

uint64_t acpi_write(struct memory *mem, const struct acpi_config *config)
{
	struct area a = { .buf = calloc(1, AREA_BYTES) };
	uint8_t *rsdp, *facs, *dsdt, *tables[4], *rsdt, *xsdt;

	assert(a.buf);
	assert(config->vcpu_count >= 1 && config->vcpu_count <= LAYOUT_VCPU_MAX);
	rsdp = reserve(&a, RSDP_BYTES, 16);
	facs = put_facs(&a);
	dsdt = put_dsdt(&a, config);
	tables[0] = put_fadt(&a, gpa_of(&a, dsdt), gpa_of(&a, facs));
	tables[1] = put_madt(&a, config->vcpu_count);
	tables[2] = put_hpet(&a);
	tables[3] = put_mcfg(&a);

	rsdt = table(&a, "RSDT", 1, HEADER_BYTES + ARRAY_SIZE(tables) * 4);
	xsdt = table(&a, "XSDT", 1, HEADER_BYTES + ARRAY_SIZE(tables) * 8);
	for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
		store_le(rsdt + HEADER_BYTES + i * 4, gpa_of(&a, tables[i]), 4);
		store_le(xsdt + HEADER_BYTES + i * 8, gpa_of(&a, tables[i]), 8);
	}
	seal(rsdt);
	seal(xsdt);

	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "MARU  ", 6);
	rsdp[15] = 2; /* revision */
	store_le(rsdp + 16, gpa_of(&a, rsdt), 4);
	store_le(rsdp + 20, RSDP_BYTES, 4);
	store_le(rsdp + 24, gpa_of(&a, xsdt), 8);
	rsdp[8] = checksum(rsdp, 20);
	rsdp[32] = checksum(rsdp, RSDP_BYTES);

	if (!mem_write(mem, LAYOUT_TABLES, a.buf, AREA_BYTES))
		assert(!"the first MiB is RAM");
	free(a.buf);
	return LAYOUT_TABLES;
}
