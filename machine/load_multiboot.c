// SPDX-License-Identifier: Apache-2.0
/*
 * Multiboot 1 (specification 0.6.96). The header is somewhere in the first 8 KiB; with flag 16 it says
 * itself what goes where (the "a.out kludge"), else the file is an ELF. The kernel is entered in flat
 * 32-bit protected mode with EAX = 0x2badb002 and EBX pointing at the information structure.
 */
#include "machine/boot.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "machine/layout.h"

#define MB_SEARCH 8192u
#define MB_HEADER_MAGIC 0x1badb002u
#define MB_LOADER_MAGIC 0x2badb002u
#define MB_HAS_ADDRESSES (1u << 16)
/* Flags that a loader must understand: page-aligned modules, memory information, video mode. */
#define MB_REQUIRED 0xffffu
#define MB_KNOWN 0x7u

/* The information structure */
#define MBI_SIZE 88u
#define MBI_MEM (1u << 0)
#define MBI_CMDLINE (1u << 2)
#define MBI_MODULES (1u << 3)
#define MBI_MMAP (1u << 6)
#define MBI_NAME (1u << 9)
#define MMAP_ENTRY 24u /* with the size field before it, which does not count itself */

/* The header's words, from 3 on with flag 16 only; 0 where the file ends before them. */
enum { MB_MAGIC, MB_FLAGS, MB_CHECKSUM, MB_HEADER, MB_LOAD, MB_LOAD_END, MB_BSS_END, MB_ENTRY, MB_WORDS };
struct mb_header {
	uint64_t offset; /* in the file */
	uint32_t word[MB_WORDS];
};

/* Finds the header: magic, flags and checksum add up to zero. */
static bool find_header(const struct boot_file *f, struct mb_header *h)
{
	uint8_t start[MB_SEARCH + sizeof(h->word)] = { 0 };
	uint64_t end = MIN(f->size, MB_SEARCH);

	if (!boot_read(f, 0, start, MIN(f->size, sizeof(start))))
		return false;
	for (uint64_t at = 0; at + 12 <= end; at += 4) {
		memcpy(h->word, start + at, sizeof(h->word));
		if (h->word[MB_MAGIC] == MB_HEADER_MAGIC &&
		    h->word[MB_MAGIC] + h->word[MB_FLAGS] + h->word[MB_CHECKSUM] == 0) {
			h->offset = at;
			return true;
		}
	}
	return false;
}

bool boot_is_multiboot(const struct boot_file *f)
{
	struct mb_header h;

	return find_header(f, &h);
}

/* Loads by the addresses in the header. */
static struct error *load_kludge(struct boot *b, const struct mb_header *h, uint64_t *entry)
{
	const struct boot_file *f = &b->src->kernel;
	uint32_t header = h->word[MB_HEADER], load = h->word[MB_LOAD], load_end = h->word[MB_LOAD_END];
	uint32_t bss_end = h->word[MB_BSS_END];
	uint64_t offset = h->offset, from, bytes, total;
	struct error *err;

	if (f->size < offset + sizeof(h->word))
		return error_new("kernel '%s' is truncated: it ends inside its Multiboot header", f->name);
	*entry = h->word[MB_ENTRY];

	if (load > header || header - load > offset)
		return error_new("kernel '%s' is damaged: its Multiboot header says it lies at 0x%x, before the start of the file or of the load address 0x%x",
				 f->name, header, load);
	from = offset - (header - load);
	bytes = load_end ? (uint64_t)load_end - load : f->size - from;
	if (load_end && load_end < load)
		return error_new("kernel '%s' is damaged: its Multiboot load address 0x%x lies after its end 0x%x",
				 f->name, load, load_end);
	if (bytes > f->size - from)
		return error_new("kernel '%s' is truncated: its Multiboot header wants %" PRIu64
				 " bytes, %" PRIu64 " are there",
				 f->name, bytes, f->size - from);
	total = bytes;
	if (bss_end) {
		if (bss_end < load || bss_end - load < bytes)
			return error_new("kernel '%s' is damaged: its Multiboot bss ends at 0x%x, inside its data",
					 f->name, bss_end);
		total = bss_end - load;
	}
	if (!placement_mark(&b->room, load, total))
		return error_new("kernel '%s' wants %" PRIu64 " bytes at 0x%x, which is not usable memory of the guest (%" PRIu64
				 " MiB)",
				 f->name, total, load, boot_mib(b->mem->ram_bytes));
	err = boot_copy(b, f, "kernel", from, load, bytes);
	if (err)
		return err;
	if (!memmap_zero(b->mem, load + bytes, total - bytes))
		assert(!"usable memory is RAM");
	return NULL;
}

static struct error *put_module(struct boot *b, uint8_t *info)
{
	const struct boot_file *f = &b->src->initrd;
	uint8_t module[16] = { 0 };
	uint64_t at, gpa;
	struct error *err = boot_put_initrd(b, MEM_HIGH_BASE, &at);

	if (err)
		return err;
	err = boot_put(b, "module name", f->name, strlen(f->name) + 1, &gpa);
	if (err)
		return err;
	store_le(module, at, 4);
	store_le(module + 4, at + f->size, 4);
	store_le(module + 8, gpa, 4);
	err = boot_put(b, "module list", module, sizeof(module), &gpa);
	if (err)
		return err;
	store_le(info + 20, 1, 4);
	store_le(info + 24, gpa, 4);
	return NULL;
}

static struct error *put_mmap(struct boot *b, uint8_t *info)
{
	uint8_t map[MEMMAP_MAX * MMAP_ENTRY] = { 0 };
	uint64_t gpa;
	struct error *err;

	for (unsigned i = 0; i < b->map.count; i++) {
		uint8_t *e = map + i * MMAP_ENTRY;

		store_le(e, MMAP_ENTRY - 4, 4);
		store_le(e + 4, b->map.entry[i].base, 8);
		store_le(e + 12, b->map.entry[i].length, 8);
		store_le(e + 20, b->map.entry[i].type, 4);
	}
	err = boot_put(b, "memory map", map, b->map.count * MMAP_ENTRY, &gpa);
	if (err)
		return err;
	store_le(info + 44, b->map.count * MMAP_ENTRY, 4);
	store_le(info + 48, gpa, 4);
	return NULL;
}

/* The command line's first word is the kernel's name, as other loaders have it. */
static struct error *put_cmdline(struct boot *b, uint8_t *info)
{
	char line[4096];
	uint64_t gpa;
	struct error *err;
	int n = snprintf(line, sizeof(line), "%s%s%s", b->src->kernel.name, *b->src->cmdline ? " " : "",
			 b->src->cmdline);

	if (n >= (int)sizeof(line))
		return error_new("the kernel command line is longer than the %zu bytes that are allowed for a Multiboot kernel",
				 sizeof(line) - 1);
	err = boot_put(b, "kernel command line", line, n + 1, &gpa);
	if (err)
		return err;
	store_le(info + 16, gpa, 4);
	return NULL;
}

struct error *boot_load_multiboot(struct boot *b)
{
	static const char loader[] = "maru";
	const struct boot_file *f = &b->src->kernel;
	uint8_t info[MBI_SIZE] = { 0 };
	uint64_t entry, gpa;
	struct mb_header h;
	struct error *err;

	if (!find_header(f, &h))
		return error_new("kernel '%s' has no Multiboot header", f->name);
	if (h.word[MB_FLAGS] & MB_REQUIRED & ~MB_KNOWN)
		return error_new("kernel '%s' asks in its Multiboot header for features that are not known (flags 0x%x)",
				 f->name, h.word[MB_FLAGS]);
	if (h.word[MB_FLAGS] & MB_HAS_ADDRESSES)
		err = load_kludge(b, &h, &entry);
	else if (boot_is_elf(f))
		err = boot_load_segments(b, &entry);
	else
		err = error_new("kernel '%s' has a Multiboot header without load addresses and is not an ELF file",
				f->name);
	if (err)
		return err;
	if (entry > UINT32_MAX || !memmap_is_usable(&b->map, entry, 1))
		return error_new("kernel '%s' is damaged: its entry 0x%" PRIx64 " is not in memory",
				 f->name, entry);

	store_le(info, MBI_MEM | MBI_CMDLINE | MBI_MMAP | MBI_NAME | (boot_has(&b->src->initrd) ? MBI_MODULES : 0),
		 4);
	store_le(info + 4, LAYOUT_LOW_RAM_END / KiB, 4);
	store_le(info + 8, b->mem->low_bytes > MiB ? (b->mem->low_bytes - MiB) / KiB : 0, 4);
	err = put_cmdline(b, info);
	if (!err)
		err = put_mmap(b, info);
	if (!err && boot_has(&b->src->initrd))
		err = put_module(b, info);
	if (!err)
		err = boot_put(b, "loader name", loader, sizeof(loader), &gpa);
	if (err)
		return err;
	store_le(info + 64, gpa, 4);
	err = boot_put(b, "Multiboot information", info, sizeof(info), &gpa);
	if (err)
		return err;
	err = boot_state_flat32(b, entry);
	if (err)
		return err;
	b->state->regs.gpr[X86_RAX] = MB_LOADER_MAGIC;
	b->state->regs.gpr[X86_RBX] = gpa;
	return NULL;
}
