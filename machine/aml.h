/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A writer of ACPI Machine Language (ACPI 6.4, chapter 20), as much as a DSDT without methods of
 * consequence needs. Calls nest like the ASL they stand for: aml_device_begin … aml_end.
 *
 * It writes what the machine says, never what a guest says: running out of room is a bug (assert).
 */
#ifndef MACHINE_AML_H
#define MACHINE_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH 16

struct aml {
	uint8_t *buf;
	size_t size, used;
	unsigned depth;
	size_t open[AML_DEPTH]; /* where the package lengths of open objects are */
};

void aml_init(struct aml *a, uint8_t *buf, size_t size);

void aml_byte(struct aml *a, uint8_t v);
void aml_bytes(struct aml *a, const void *data, size_t length);
/* A path such as "\\_SB_.PCI0"; each segment has four characters. */
void aml_name(struct aml *a, const char *path);

void aml_scope_begin(struct aml *a, const char *path);
void aml_device_begin(struct aml *a, const char *name);
void aml_method_begin(struct aml *a, const char *name, unsigned args, bool serialized);
void aml_package_begin(struct aml *a, unsigned elements);
void aml_if_begin(struct aml *a);
void aml_else_begin(struct aml *a);
void aml_buffer_begin(struct aml *a);
void aml_end(struct aml *a); /* closes any of these */

/* Data objects */
void aml_integer(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *s);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0A08" */
/* Name (@name, …): a data object follows. */
void aml_name_decl(struct aml *a, const char *name);
void aml_name_integer(struct aml *a, const char *name, uint64_t v);
void aml_name_eisa(struct aml *a, const char *name, const char *id);

/* Name (_CRS, ResourceTemplate () { … }) */
void aml_resources_begin(struct aml *a, const char *name);
void aml_resources_end(struct aml *a);
void aml_res_io(struct aml *a, uint16_t base, uint8_t length);
void aml_res_irq(struct aml *a, unsigned irq); /* ISA: edge, active high, exclusive */
void aml_res_memory32(struct aml *a, uint32_t base, uint32_t length, bool writable);
/* Windows of a bridge: bus numbers, ports, memory (inclusive ends). */
void aml_res_bus_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_memory_window(struct aml *a, uint32_t first, uint32_t last);

#endif
