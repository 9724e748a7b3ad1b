// SPDX-License-Identifier: Apache-2.0
/* ACPI and SMBIOS: found where they are searched, checksums right, AML that iasl understands. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "machine/acpi.h"
#include "machine/aml.h"
#include "machine/layout.h"
#include "machine/smbios.h"
#include "tests/tap.h"

static uint8_t area[LAYOUT_TABLES_END - LAYOUT_TABLES];

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s += *p++;
	return s;
}

static uint8_t *at(uint64_t gpa)
{
	return gpa >= LAYOUT_TABLES && gpa < LAYOUT_TABLES_END ? area + (gpa - LAYOUT_TABLES) : NULL;
}

static unsigned gsi(unsigned slot, unsigned pin)
{
	return 16 + ((slot + pin) & 7);
}

static unsigned isa(unsigned slot, unsigned pin)
{
	return 10 + ((slot + pin) & 1);
}

static uint8_t *find_table(const uint8_t *xsdt, const char *signature)
{
	for (unsigned i = 36; i < load_le(xsdt + 4, 4); i += 8) {
		uint8_t *t = at(load_le(xsdt + i, 8));

		if (t && !memcmp(t, signature, 4))
			return t;
	}
	return NULL;
}

/* iasl disassembles the table and compiles the result again, both without an error. */
static void check_with_iasl(const uint8_t *dsdt, unsigned vcpus)
{
	char folder[] = "/tmp/test_acpi.XXXXXX", command[512];
	FILE *f;
	int rc;

	if (system("command -v iasl >/dev/null 2>&1") != 0) {
		skip("iasl (package acpica-tools) is not here");
		return;
	}
	if (!ok(mkdtemp(folder) != NULL, "a scratch folder"))
		return;
	snprintf(command, sizeof(command), "%s/dsdt.aml", folder);
	f = fopen(command, "w");
	fwrite(dsdt, 1, load_le(dsdt + 4, 4), f);
	fclose(f);
	snprintf(command, sizeof(command),
		 "cd %s && iasl -d dsdt.aml >log 2>&1 && ! grep -i 'error\\|invalid' log && iasl -p again dsdt.dsl >log2 2>&1 && "
		 "grep -q ' 0 Errors, 0 Warnings' log2",
		 folder);
	rc = system(command);
	ok(rc == 0, "iasl takes the DSDT for %u vCPUs apart and together again", vcpus);
	if (rc) {
		snprintf(command, sizeof(command), "tail -25 %s/log %s/log2 | sed 's/^/# /'", folder, folder);
		rc = system(command);
	}
	snprintf(command, sizeof(command), "rm -r %s", folder);
	rc = system(command);
}

static void test_acpi(struct memory *mem, unsigned vcpus)
{
	static const char *const wanted[] = { "FACP", "APIC", "HPET", "MCFG" };
	const struct acpi_config config = { .vcpu_count = vcpus, .slp_typ_s5 = 7, .gsi = gsi, .isa_irq = isa };
	uint64_t rsdp_gpa = acpi_write(mem, &config);
	uint8_t *rsdp, *xsdt, *rsdt, *fadt, *madt, *dsdt;
	unsigned cpus = 0;

	if (!mem_read(mem, LAYOUT_TABLES, area, sizeof(area)))
		ok(false, "the tables can be read");
	rsdp = at(rsdp_gpa);
	ok(rsdp && rsdp_gpa % 16 == 0 && !memcmp(rsdp, "RSD PTR ", 8), "%u vCPUs: the RSDP is where it is searched", vcpus);
	ok(!sum(rsdp, 20) && !sum(rsdp, 36), "its checksums are right");
	xsdt = at(load_le(rsdp + 24, 8));
	rsdt = at(load_le(rsdp + 16, 4));
	ok(xsdt && !memcmp(xsdt, "XSDT", 4) && !sum(xsdt, load_le(xsdt + 4, 4)), "XSDT");
	ok(rsdt && !memcmp(rsdt, "RSDT", 4) && !sum(rsdt, load_le(rsdt + 4, 4)), "RSDT");
	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
		uint8_t *t = find_table(xsdt, wanted[i]);

		ok(t && !sum(t, load_le(t + 4, 4)), "%s is there and sums up", wanted[i]);
	}
	fadt = find_table(xsdt, "FACP");
	dsdt = at(load_le(fadt + 140, 8));
	ok(dsdt && !memcmp(dsdt, "DSDT", 4) && !sum(dsdt, load_le(dsdt + 4, 4)), "the FADT leads to a DSDT that sums up");
	is_u64(load_le(fadt + 120, 8), 0xcf9, "the reset register is port 0xcf9");
	madt = find_table(xsdt, "APIC");
	for (unsigned i = 44; i < load_le(madt + 4, 4); i += madt[i + 1])
		cpus += madt[i] == 0;
	is_u64(cpus, vcpus, "the MADT has all vCPUs");
	check_with_iasl(dsdt, vcpus);
}

static void test_smbios(struct memory *mem)
{
	const struct smbios_config config = { .vcpu_count = 4, .version = "1.2" };
	const uint8_t *p, *s;
	uint32_t seen = 0;
	unsigned n = 0;

	smbios_write(mem, &config);
	if (!mem_read(mem, LAYOUT_TABLES, area, sizeof(area)))
		ok(false, "the tables can be read");
	p = at(LAYOUT_SMBIOS);
	ok(!memcmp(p, "_SM_", 4) && !sum(p, 31) && !sum(p + 16, 15), "the SMBIOS 2 anchor sums up");
	ok(!memcmp(p + 32, "_SM3_", 5) && !sum(p + 32, 24), "the SMBIOS 3 anchor sums up");
	for (s = at(load_le(p + 48, 8)); n < 32; n++) {
		uint8_t type = s[0];

		if (type < 32)
			seen |= 1u << type;
		s += s[1];
		while (s[0] || s[1])
			s++;
		s += 2;
		if (type == 127)
			break;
	}
	is_u64(seen, 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 1u << 16 | 1u << 17 | 1u << 19, "the structures are all there");
	is_u64(n + 1, load_le(p + 28, 2), "as many as the anchor says");
	is_u64(s - at(load_le(p + 48, 8)), load_le(p + 44, 4), "and as long");
}

int main(void)
{
	struct memory *mem;
	struct error *err = memory_create(16 * MiB, &mem);

	if (err)
		return 1;
	test_acpi(mem, 1);
	test_acpi(mem, 64);
	test_smbios(mem);
	memory_destroy(mem);
	return done_testing();
}
