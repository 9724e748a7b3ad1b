// SPDX-License-Identifier: Apache-2.0
/*
 * ELF kernels: the segments of any ELF for x86, and the PVH way to enter one (Xen,
 * docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h): flat 32-bit protected mode at the
 * address of note XEN_ELFNOTE_PHYS32_ENTRY, EBX pointing at a struct hvm_start_info.
 */
#include "machine/boot.h"

#include <assert.h>
#include <elf.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define NOTE_PHYS32_ENTRY 18u
#define PVH_MAGIC 0x336ec578u
#define PHDR_MAX 64u
/* Notes longer than this are not looked at; the one that counts has some 20 bytes. */
#define NOTES_MAX (1u * MiB)

/* A program header of either class. */
struct segment {
	uint32_t type;
	uint64_t offset, paddr, file_bytes, mem_bytes, align;
};

struct elf {
	const struct boot_file *f;
	bool is64;
	uint64_t entry, phoff;
	unsigned phnum, phentsize;
};

bool boot_is_elf(const struct boot_file *f)
{
	char magic[SELFMAG];

	return boot_read(f, 0, magic, SELFMAG) && !memcmp(magic, ELFMAG, SELFMAG);
}

static bool in_file(const struct boot_file *f, uint64_t offset, uint64_t length)
{
	return offset <= f->size && length <= f->size - offset;
}

static struct error *parse(const struct boot_file *f, struct elf *e)
{
	uint8_t d[sizeof(Elf64_Ehdr)] = { 0 };
	uint16_t machine;

	if (f->size < sizeof(Elf32_Ehdr) || !boot_read(f, 0, d, MIN(f->size, sizeof(d))) ||
	    (d[EI_CLASS] == ELFCLASS64 && f->size < sizeof(Elf64_Ehdr)))
		return error_new("kernel '%s' is truncated: it ends inside its ELF header", f->name);
	if ((d[EI_CLASS] != ELFCLASS32 && d[EI_CLASS] != ELFCLASS64) || d[EI_DATA] != ELFDATA2LSB)
		return error_new("kernel '%s' is an ELF file of an unknown class or byte order", f->name);
	machine = load_le(d + offsetof(Elf32_Ehdr, e_machine), 2);
	if (machine != EM_386 && machine != EM_X86_64)
		return error_new("kernel '%s' is an ELF file for another processor (machine %u); x86 is needed",
				 f->name, machine);
	*e = (struct elf){ .f = f, .is64 = d[EI_CLASS] == ELFCLASS64 };
	if (e->is64) {
		Elf64_Ehdr h;

		memcpy(&h, d, sizeof(h));
		e->entry = h.e_entry;
		e->phoff = h.e_phoff;
		e->phnum = h.e_phnum;
		e->phentsize = h.e_phentsize;
	} else {
		Elf32_Ehdr h;

		memcpy(&h, d, sizeof(h));
		e->entry = h.e_entry;
		e->phoff = h.e_phoff;
		e->phnum = h.e_phnum;
		e->phentsize = h.e_phentsize;
	}
	if (!e->phnum)
		return error_new("kernel '%s' is an ELF file without program headers: nothing to load (an object file?)",
				 f->name);
	if (e->phnum > PHDR_MAX)
		return error_new("kernel '%s' has %u program headers; more than %u are refused", f->name,
				 e->phnum, PHDR_MAX);
	if (e->phentsize != (e->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return error_new("kernel '%s' is damaged: its program headers have %u bytes each", f->name,
				 e->phentsize);
	if (!in_file(f, e->phoff, (uint64_t)e->phnum * e->phentsize))
		return error_new("kernel '%s' is truncated: its program headers lie beyond its end", f->name);
	return NULL;
}

/* PT_NULL when the file cannot be read. */
static struct segment segment(const struct elf *e, unsigned i)
{
	uint64_t at = e->phoff + (uint64_t)i * e->phentsize;

	if (e->is64) {
		Elf64_Phdr p;

		if (boot_read(e->f, at, &p, sizeof(p)))
			return (struct segment){ p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz, p.p_align };
	} else {
		Elf32_Phdr p;

		if (boot_read(e->f, at, &p, sizeof(p)))
			return (struct segment){ p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz, p.p_align };
	}
	return (struct segment){ .type = PT_NULL };
}

static struct error *load_segments(struct boot *b, const struct elf *e)
{
	bool any = false;

	for (unsigned i = 0; i < e->phnum; i++) {
		struct segment s = segment(e, i);
		struct error *err;

		if (s.type != PT_LOAD || !s.mem_bytes)
			continue;
		if (s.file_bytes > s.mem_bytes || !in_file(e->f, s.offset, s.file_bytes))
			return error_new("kernel '%s' is truncated or damaged: segment %u lies beyond its end",
					 e->f->name, i);
		if (!placement_mark(&b->room, s.paddr, s.mem_bytes))
			return error_new("kernel '%s' wants %" PRIu64 " bytes at 0x%" PRIx64
					 ", which is not usable memory of the guest (%" PRIu64 " MiB)",
					 e->f->name, s.mem_bytes, s.paddr, boot_mib(b->mem->ram_bytes));
		err = boot_copy(b, e->f, "kernel", s.offset, s.paddr, s.file_bytes);
		if (err)
			return err;
		if (!memmap_zero(b->mem, s.paddr + s.file_bytes, s.mem_bytes - s.file_bytes))
			assert(!"usable memory is RAM");
		any = true;
	}
	if (!any)
		return error_new("kernel '%s' is an ELF file without a segment to load", e->f->name);
	return NULL;
}

struct error *boot_load_segments(struct boot *b, uint64_t *entry)
{
	struct elf e;
	struct error *err = parse(&b->src->kernel, &e);

	if (err)
		return err;
	*entry = e.entry;
	return load_segments(b, &e);
}

/* Looks through one note segment for the PVH entry. Damaged notes end the search. */
static bool find_entry(const uint8_t *notes, uint64_t length, uint64_t align, uint64_t *entry)
{
	uint64_t at = 0;

	align = align == 8 ? 8 : 4;
	while (length - at >= sizeof(Elf32_Nhdr)) {
		Elf32_Nhdr n;
		uint64_t name, desc;

		memcpy(&n, notes + at, sizeof(n));
		name = at + sizeof(n);
		desc = align_up(name + n.n_namesz, align);
		if (desc > length || n.n_descsz > length - desc)
			return false;
		if (n.n_type == NOTE_PHYS32_ENTRY && n.n_namesz == 4 && !memcmp(notes + name, "Xen", 4) &&
		    (n.n_descsz == 4 || n.n_descsz == 8)) {
			*entry = load_le(notes + desc, n.n_descsz);
			return true;
		}
		at = align_up(desc + n.n_descsz, align);
		if (at > length)
			return false;
	}
	return false;
}

static bool pvh_entry(const struct elf *e, uint64_t *entry)
{
	bool found = false;

	for (unsigned i = 0; i < e->phnum && !found; i++) {
		struct segment s = segment(e, i);
		uint8_t *notes;

		if (s.type != PT_NOTE || s.file_bytes > NOTES_MAX || !in_file(e->f, s.offset, s.file_bytes))
			continue;
		notes = malloc(s.file_bytes + 1);
		found = notes && boot_read(e->f, s.offset, notes, s.file_bytes) &&
			find_entry(notes, s.file_bytes, s.align, entry);
		free(notes);
	}
	return found;
}

struct error *boot_load_pvh(struct boot *b)
{
	uint8_t info[56] = { 0 }, module[32] = { 0 }, map[MEMMAP_MAX * 24] = { 0 };
	uint64_t entry, gpa;
	struct elf e;
	struct error *err = parse(&b->src->kernel, &e);

	if (err)
		return err;
	if (!pvh_entry(&e, &entry))
		return error_new("kernel '%s' is an ELF file without a PVH note and without a Multiboot header: there is no defined way to start it (for Linux use the bzImage)",
				 b->src->kernel.name);
	err = load_segments(b, &e);
	if (err)
		return err;
	if (!memmap_is_usable(&b->map, entry, 1) || entry > UINT32_MAX)
		return error_new("kernel '%s' is damaged: its entry 0x%" PRIx64 " is not in memory",
				 b->src->kernel.name, entry);

	store_le(info, PVH_MAGIC, 4);
	store_le(info + 4, 1, 4); /* version: with a memory map */
	if (boot_has(&b->src->initrd)) {
		err = boot_put_initrd(b, MEM_HIGH_BASE, &gpa);
		if (err)
			return err;
		store_le(module, gpa, 8);
		store_le(module + 8, b->src->initrd.size, 8);
		err = boot_put(b, "module list", module, sizeof(module), &gpa);
		if (err)
			return err;
		store_le(info + 12, 1, 4);
		store_le(info + 16, gpa, 8);
	}
	err = boot_put(b, "kernel command line", b->src->cmdline, strlen(b->src->cmdline) + 1, &gpa);
	if (err)
		return err;
	store_le(info + 24, gpa, 8);
	store_le(info + 32, b->src->rsdp_gpa, 8);
	for (unsigned i = 0; i < b->map.count; i++) {
		store_le(map + i * 24, b->map.entry[i].base, 8);
		store_le(map + i * 24 + 8, b->map.entry[i].length, 8);
		store_le(map + i * 24 + 16, b->map.entry[i].type, 4);
	}
	err = boot_put(b, "memory map", map, b->map.count * 24, &gpa);
	if (err)
		return err;
	store_le(info + 40, gpa, 8);
	store_le(info + 48, b->map.count, 4);
	err = boot_put(b, "start information", info, sizeof(info), &gpa);
	if (err)
		return err;
	err = boot_state_flat32(b, entry);
	if (err)
		return err;
	b->state->regs.gpr[X86_RBX] = gpa;
	return NULL;
}
