/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot payloads: a kernel in memory is put where it belongs in guest RAM, and the boot CPU's first state
 * is worked out. What a payload is comes from its content: Linux bzImage, Multiboot 1, ELF with PVH note.
 *
 * A payload is untrusted: every field is checked before it is used, and each refusal is a sentence that
 * names the file. Loading again (a reset) overwrites what was loaded before.
 */
#ifndef MACHINE_BOOT_H
#define MACHINE_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cpu/x86.h"
#include "machine/memmap.h"
#include "mem/memory.h"

/*
 * In memory, or in a file: headers are then copied once and the copies looked at, all else is read straight into
 * guest RAM, and again at each reset.
 */
struct boot_file {
	const char *name; /* for messages, and the first word of a Multiboot command line */
	const uint8_t *data; /* NULL: in the file */
	size_t size;
	int fd; /* above 0 */
};

struct boot_source {
	struct boot_file kernel;
	struct boot_file initrd; /* neither data nor fd: none */
	const char *cmdline;
	uint64_t rsdp_gpa;
};

/* The boot CPU at the payload's first instruction. */
struct boot_state {
	struct x86_regs regs;
	struct x86_sregs sregs;
};

static inline bool boot_has(const struct boot_file *f)
{
	return f->data || f->fd > 0;
}

/* A copy of a part of it for a parser; false when it cannot be had whole. */
bool boot_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len) MUST_CHECK;

/* Whole mebibytes for messages, rounded up. */
static inline uint64_t boot_mib(uint64_t bytes)
{
	return (bytes + 0xfffff) >> 20;
}

/* One load in progress; shared by the loaders. */
struct boot {
	struct memory *mem;
	const struct boot_source *src;
	struct memmap map;
	struct placement room;
	struct boot_state *state;
};

/* Recognizes the payload and loads it. */
struct error *boot_load(struct memory *mem, const struct boot_source *src,
			struct boot_state *out) MUST_CHECK;

/* The loaders; boot_init() comes first. */
void boot_init(struct boot *b, struct memory *mem, const struct boot_source *src,
	       struct boot_state *out);
bool boot_is_linux(const struct boot_file *f);
struct error *boot_load_linux(struct boot *b) MUST_CHECK;
bool boot_is_multiboot(const struct boot_file *f);
struct error *boot_load_multiboot(struct boot *b) MUST_CHECK;
bool boot_is_elf(const struct boot_file *f);
struct error *boot_load_pvh(struct boot *b) MUST_CHECK;

/* The PT_LOAD segments of an ELF go to their physical addresses; *@entry is the header's e_entry. */
struct error *boot_load_segments(struct boot *b, uint64_t *entry) MUST_CHECK;

/* Copies a part of @f, which is called @what in messages, to usable memory at @gpa. */
struct error *boot_copy(struct boot *b, const struct boot_file *f, const char *what, uint64_t offset,
			uint64_t gpa, uint64_t length) MUST_CHECK;

/* Finds room below 640 KiB (or, where that is taken, below 4 GiB) for a boot structure and writes it. */
struct error *boot_put(struct boot *b, const char *what, const void *data, uint64_t length,
		       uint64_t *gpa) MUST_CHECK;

/*
 * Places and writes the initrd (there is one) at a page below @max_end, as high as possible;
 * never in the first MiB.
 */
struct error *boot_put_initrd(struct boot *b, uint64_t max_end, uint64_t *gpa) MUST_CHECK;

/* Flat 32-bit protected mode without paging: CS 0x10, all others 0x18, interrupts off. Writes a GDT. */
struct error *boot_state_flat32(struct boot *b, uint64_t rip) MUST_CHECK;
/* 64-bit mode, the first 4 GiB mapped to themselves, selectors as above. Writes a GDT and page tables. */
struct error *boot_state_long(struct boot *b, uint64_t rip) MUST_CHECK;

#endif
