// SPDX-License-Identifier: Apache-2.0
/*
 * A writer of ACPI Machine Language; see aml.h.
 *
 * Theory of operation. An object that holds others starts with its own length (PkgLength, ACPI 6.4,
 * 20.2.4), which is not known when it is opened: three bytes are left for it, the longest form that is
 * ever needed, and aml_end() fills them in. Opcodes carry the grammar's names in comments.
 */
#include "machine/aml.h"

#include <assert.h>
#include <string.h>

#include "base/util.h"

#define PKG_LENGTH_BYTES 3u

void aml_init(struct aml *a, uint8_t *buf, size_t size)
{
	*a = (struct aml){ .buf = buf, .size = size };
}

void aml_bytes(struct aml *a, const void *data, size_t length)
{
	assert(length <= a->size - a->used);
	memcpy(a->buf + a->used, data, length);
	a->used += length;
}

void aml_byte(struct aml *a, uint8_t v)
{
	aml_bytes(a, &v, 1);
}

static void le(struct aml *a, uint64_t v, unsigned size)
{
	uint8_t b[8];

	memcpy(b, &v, 8);
	aml_bytes(a, b, size);
}

void aml_name(struct aml *a, const char *path)
{
	unsigned segments;

	if (*path == '\\') {
		aml_byte(a, '\\');
		path++;
	}
	assert((strlen(path) + 1) % 5 == 0);
	segments = (strlen(path) + 1) / 5;
	if (segments == 2) {
		aml_byte(a, 0x2e); /* DualNamePrefix */
	} else if (segments > 2) {
		aml_byte(a, 0x2f); /* MultiNamePrefix */
		aml_byte(a, segments);
	}
	for (unsigned i = 0; i < segments; i++)
		aml_bytes(a, path + i * 5, 4);
}

static void begin(struct aml *a)
{
	static const uint8_t blank[PKG_LENGTH_BYTES];

	assert(a->depth < AML_DEPTH);
	a->open[a->depth++] = a->used;
	aml_bytes(a, blank, sizeof(blank));
}

void aml_end(struct aml *a)
{
	size_t at, length;

	assert(a->depth);
	at = a->open[--a->depth];
	length = a->used - at;
	assert(length < 1u << 20);
	a->buf[at] = 0x80 | (length & 0xf); /* two bytes follow */
	a->buf[at + 1] = length >> 4;
	a->buf[at + 2] = length >> 12;
}

void aml_scope_begin(struct aml *a, const char *path)
{
	aml_byte(a, 0x10); /* ScopeOp */
	begin(a);
	aml_name(a, path);
}

void aml_device_begin(struct aml *a, const char *name)
{
	aml_bytes(a, "\x5b\x82", 2); /* DeviceOp */
	begin(a);
	aml_name(a, name);
}

void aml_method_begin(struct aml *a, const char *name, unsigned args, bool serialized)
{
	aml_byte(a, 0x14); /* MethodOp */
	begin(a);
	aml_name(a, name);
	aml_byte(a, args | (serialized ? 8 : 0));
}

void aml_package_begin(struct aml *a, unsigned elements)
{
	assert(elements < 256);
	aml_byte(a, 0x12); /* PackageOp */
	begin(a);
	aml_byte(a, elements);
}

void aml_if_begin(struct aml *a)
{
	aml_byte(a, 0xa0); /* IfOp */
	begin(a);
}

void aml_else_begin(struct aml *a)
{
	aml_byte(a, 0xa1); /* ElseOp */
	begin(a);
}

void aml_buffer_begin(struct aml *a)
{
	aml_byte(a, 0x11); /* BufferOp; its size, an integer, and its bytes follow */
	begin(a);
}

void aml_integer(struct aml *a, uint64_t v)
{
	if (v <= 1) {
		aml_byte(a, v); /* ZeroOp, OneOp */
	} else if (v <= 0xff) {
		aml_byte(a, 0x0a);
		le(a, v, 1);
	} else if (v <= 0xffff) {
		aml_byte(a, 0x0b);
		le(a, v, 2);
	} else if (v <= 0xffffffff) {
		aml_byte(a, 0x0c);
		le(a, v, 4);
	} else {
		aml_byte(a, 0x0e);
		le(a, v, 8);
	}
}

void aml_string(struct aml *a, const char *s)
{
	aml_byte(a, 0x0d);
	aml_bytes(a, s, strlen(s) + 1);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? c - '0' : c - 'A' + 10;
}

/* Three letters of five bits and four hexadecimal digits, big-endian (ACPI 6.4, 19.3.4). */
void aml_eisa_id(struct aml *a, const char *id)
{
	uint32_t v = 0;

	assert(strlen(id) == 7);
	for (unsigned i = 0; i < 3; i++)
		v = v << 5 | (id[i] - 0x40);
	for (unsigned i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	aml_byte(a, 0x0c); /* DWordPrefix */
	le(a, __builtin_bswap32(v), 4);
}

void aml_name_decl(struct aml *a, const char *name)
{
	aml_byte(a, 0x08); /* NameOp */
	aml_name(a, name);
}

void aml_name_integer(struct aml *a, const char *name, uint64_t v)
{
	aml_name_decl(a, name);
	aml_integer(a, v);
}

void aml_name_eisa(struct aml *a, const char *name, const char *id)
{
	aml_name_decl(a, name);
	aml_eisa_id(a, id);
}

/*
 * A resource template is a buffer whose size comes before its bytes: the size is written in a fixed
 * form (WordPrefix) and filled in at the end.
 */
void aml_resources_begin(struct aml *a, const char *name)
{
	aml_name_decl(a, name);
	aml_buffer_begin(a);
	aml_byte(a, 0x0b);
	le(a, 0, 2);
}

void aml_resources_end(struct aml *a)
{
	size_t body = a->open[a->depth - 1] + PKG_LENGTH_BYTES + 3;

	aml_bytes(a, "\x79\x00", 2); /* end tag; checksum 0: none */
	store_le(a->buf + body - 2, a->used - body, 2);
	aml_end(a);
}

void aml_res_io(struct aml *a, uint16_t base, uint8_t length)
{
	aml_bytes(a, "\x47\x01", 2); /* I/O port descriptor, 16-bit decode */
	le(a, base, 2);
	le(a, base, 2);
	aml_byte(a, 1);
	aml_byte(a, length);
}

void aml_res_irq(struct aml *a, unsigned irq)
{
	aml_byte(a, 0x22); /* IRQ descriptor without flags */
	le(a, 1u << irq, 2);
}

void aml_res_memory32(struct aml *a, uint32_t base, uint32_t length, bool writable)
{
	aml_byte(a, 0x86); /* 32-bit fixed memory range */
	le(a, 9, 2);
	aml_byte(a, writable);
	le(a, base, 4);
	le(a, length, 4);
}

/* Address space descriptors (ACPI 6.4, 6.4.3.5): range fixed at both ends, produced for what is below. */
static void window(struct aml *a, uint8_t tag, uint8_t type, uint8_t flags, unsigned width,
		   uint64_t first, uint64_t last)
{
	aml_byte(a, tag);
	le(a, 3 + 5 * width, 2);
	aml_byte(a, type);
	aml_byte(a, 0x0c);
	aml_byte(a, flags);
	le(a, 0, width); /* granularity */
	le(a, first, width);
	le(a, last, width);
	le(a, 0, width); /* translation */
	le(a, last - first + 1, width);
}

void aml_res_bus_window(struct aml *a, uint16_t first, uint16_t last)
{
	window(a, 0x88, 2, 0, 2, first, last);
}

void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last)
{
	window(a, 0x88, 1, 3, 2, first, last); /* entire range */
}

void aml_res_memory_window(struct aml *a, uint32_t first, uint32_t last)
{
	window(a, 0x87, 0, 1, 4, first, last); /* non-cacheable, writable */
}
