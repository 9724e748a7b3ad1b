// SPDX-License-Identifier: Apache-2.0
/*
 * The DSDT: what of the machine cannot be found by looking. In ASL it would read as the functions below
 * do: processors, the PCI host bridge with its windows and interrupt routing, the ISA chips, the chipset's
 * own ranges, and what power-off is.
 */
#include <stdio.h>

#include "base/util.h"
#include "dev/pvpanic.h"
#include "machine/acpi.h"
#include "machine/aml.h"
#include "machine/layout.h"

#define PCI_SLOTS 32u

enum { OP_STORE = 0x70, OP_AND = 0x7b, OP_LEQUAL = 0x93, OP_RETURN = 0xa4 };
enum { OP_ARG0 = 0x68, OP_ARG3 = 0x6b };

static void processors(struct aml *a, unsigned count)
{
	aml_scope_begin(a, "\\_SB_");
	for (unsigned i = 0; i < count; i++) {
		char name[5];

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		aml_device_begin(a, name);
		aml_name_decl(a, "_HID");
		aml_string(a, "ACPI0007");
		aml_name_integer(a, "_UID", i);
		aml_end(a);
	}
	aml_end(a);
}

static void routing(struct aml *a, const char *name, unsigned (*target)(unsigned slot, unsigned pin))
{
	aml_name_decl(a, name);
	aml_package_begin(a, (PCI_SLOTS - 1) * 4);
	for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
		for (unsigned pin = 0; pin < 4; pin++) {
			aml_package_begin(a, 4);
			aml_integer(a, slot << 16 | 0xffff);
			aml_integer(a, pin);
			aml_integer(a, 0); /* not a link device: the number is the interrupt */
			aml_integer(a, target(slot, pin));
			aml_end(a);
		}
	}
	aml_end(a);
}

/*
 * Name (PICM, 0)  Method (\_PIC, 1) { PICM = Arg0 }: the system says whether it uses the I/O APIC.
 * Method (_PRT) { If (PICM == 1) { Return (PRTA) } Return (PRTI) }
 */
static void interrupt_routing(struct aml *a, const struct acpi_config *config)
{
	routing(a, "PRTA", config->gsi);
	routing(a, "PRTI", config->isa_irq);
	aml_method_begin(a, "_PRT", 0, false);
	aml_if_begin(a);
	aml_byte(a, OP_LEQUAL);
	aml_name(a, "PICM");
	aml_integer(a, 1);
	aml_byte(a, OP_RETURN);
	aml_name(a, "PRTA");
	aml_end(a);
	aml_byte(a, OP_RETURN);
	aml_name(a, "PRTI");
	aml_end(a);
}

/*
 * Method (_OSC, 4) { CreateDWordField (Arg3, 8, CTRL)  CTRL &= 0x10  Return (Arg3) }: of the PCI Express
 * features the system may take over, it gets the capability structure; the others do not exist here.
 */
static void osc(struct aml *a)
{
	aml_method_begin(a, "_OSC", 4, true);
	aml_byte(a, 0x8a); /* CreateDWordFieldOp */
	aml_byte(a, OP_ARG3);
	aml_integer(a, 8);
	aml_name(a, "CTRL");
	aml_byte(a, OP_AND);
	aml_name(a, "CTRL");
	aml_integer(a, 0x10);
	aml_name(a, "CTRL");
	aml_byte(a, OP_RETURN);
	aml_byte(a, OP_ARG3);
	aml_end(a);
}

static void isa_device(struct aml *a, const char *name, const char *id)
{
	aml_device_begin(a, name);
	aml_name_eisa(a, "_HID", id);
}

static void isa_devices(struct aml *a)
{
	aml_device_begin(a, "ISA_");
	aml_name_integer(a, "_ADR", 0x001f0000);

	isa_device(a, "RTC_", "PNP0B00");
	aml_resources_begin(a, "_CRS");
	aml_res_io(a, 0x70, 2);
	aml_res_irq(a, 8);
	aml_resources_end(a);
	aml_end(a);

	isa_device(a, "COM1", "PNP0501");
	aml_name_integer(a, "_UID", 1);
	aml_resources_begin(a, "_CRS");
	aml_res_io(a, 0x3f8, 8);
	aml_res_irq(a, 4);
	aml_resources_end(a);
	aml_end(a);

	isa_device(a, "KBD_", "PNP0303");
	aml_resources_begin(a, "_CRS");
	aml_res_io(a, 0x60, 1);
	aml_res_io(a, 0x64, 1);
	aml_res_irq(a, 1);
	aml_resources_end(a);
	aml_end(a);

	/* Linux' driver knows it by this name; a string, for it is not an EISA id. */
	aml_device_begin(a, "PEVT");
	aml_name_decl(a, "_HID");
	aml_string(a, "QEMU0001");
	aml_name_integer(a, "_STA", 0xf);
	aml_resources_begin(a, "_CRS");
	aml_res_io(a, PVPANIC_PORT, 1);
	aml_resources_end(a);
	aml_end(a);

	isa_device(a, "MOU_", "PNP0F13");
	aml_resources_begin(a, "_CRS");
	aml_res_irq(a, 12);
	aml_resources_end(a);
	aml_end(a);

	aml_end(a);
}

static void host_bridge(struct aml *a, const struct acpi_config *config)
{
	aml_scope_begin(a, "\\_SB_");
	aml_device_begin(a, "PCI0");
	aml_name_eisa(a, "_HID", "PNP0A08");
	aml_name_eisa(a, "_CID", "PNP0A03");
	aml_name_integer(a, "_SEG", 0);
	aml_name_integer(a, "_BBN", 0);
	aml_name_integer(a, "_UID", 0);
	aml_resources_begin(a, "_CRS");
	aml_res_bus_window(a, 0, 255);
	aml_res_io(a, 0xcf8, 8);
	aml_res_io_window(a, 0, 0xcf7);
	aml_res_io_window(a, 0xd00, 0xffff);
	aml_res_memory_window(a, LAYOUT_PCI_MMIO, LAYOUT_PCI_MMIO_END - 1);
	aml_resources_end(a);
	osc(a);
	interrupt_routing(a, config);
	isa_devices(a);
	aml_end(a);

	/* Ranges that belong to the board: nobody may put a device there. */
	aml_device_begin(a, "BRD_");
	aml_name_eisa(a, "_HID", "PNP0C02");
	aml_name_integer(a, "_UID", 1);
	aml_resources_begin(a, "_CRS");
	aml_res_memory32(a, LAYOUT_ECAM, LAYOUT_ECAM_BYTES, true);
	aml_res_io(a, LAYOUT_PM_BASE, 0x80);
	aml_resources_end(a);
	aml_end(a);

	aml_device_begin(a, "HPET");
	aml_name_eisa(a, "_HID", "PNP0103");
	aml_name_integer(a, "_UID", 0);
	aml_resources_begin(a, "_CRS");
	aml_res_memory32(a, LAYOUT_HPET, 0x400, false);
	aml_resources_end(a);
	aml_end(a);
	aml_end(a);
}

size_t acpi_dsdt(uint8_t *buf, size_t size, const struct acpi_config *config)
{
	struct aml a;

	aml_init(&a, buf, size);
	aml_name_integer(&a, "\\PICM", 0);
	aml_method_begin(&a, "\\_PIC", 1, false);
	aml_byte(&a, OP_STORE);
	aml_byte(&a, OP_ARG0);
	aml_name(&a, "\\PICM");
	aml_end(&a);
	processors(&a, config->vcpu_count);
	host_bridge(&a, config);
	/* The only sleeping state: off. */
	aml_name_decl(&a, "\\_S5_");
	aml_package_begin(&a, 4);
	aml_integer(&a, config->slp_typ_s5);
	aml_integer(&a, config->slp_typ_s5);
	aml_integer(&a, 0);
	aml_integer(&a, 0);
	aml_end(&a);
	return a.used;
}
