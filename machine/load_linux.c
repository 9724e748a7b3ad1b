// SPDX-License-Identifier: Apache-2.0
/*
 * Linux bzImage (Documentation/arch/x86/boot.rst in the kernel's source).
 *
 * Theory of operation. The file is a real-mode part (boot sector, setup header, setup code: not used) and
 * a protected-mode part, which is put at the address it prefers, or at 1 MiB if it cannot be moved. A
 * 64-bit kernel is entered in long mode at offset 0x200; a 32-bit one in protected mode at its start. Both
 * find in RSI the zero page (struct boot_params): the file's own setup header with our answers filled in,
 * the memory map, where command line and initrd are, and the RSDP.
 */
#include "machine/boot.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/util.h"
#include "machine/layout.h"

/* The zero page; offsets of boot.rst and zero-page.rst. The header's are the same in the file. */
#define BP_SIZE 4096u
#define BP_ACPI_RSDP 0x070
#define BP_E820_ENTRIES 0x1e8
#define BP_HDR 0x1f1
#define BP_E820_TABLE 0x2d0
#define E820_ENTRY_SIZE 20u

#define HDR_SETUP_SECTS 0x1f1
#define HDR_BOOT_FLAG 0x1fe
#define HDR_JUMP 0x201
#define HDR_MAGIC 0x202
#define HDR_VERSION 0x206
#define HDR_LOADER 0x210
#define HDR_LOADFLAGS 0x211
#define HDR_CODE32_START 0x214
#define HDR_RAMDISK 0x218
#define HDR_RAMDISK_SIZE 0x21c
#define HDR_CMDLINE 0x228
#define HDR_INITRD_MAX 0x22c
#define HDR_RELOCATABLE 0x234
#define HDR_XLOADFLAGS 0x236
#define HDR_CMDLINE_SIZE 0x238
#define HDR_PREF_ADDRESS 0x258
#define HDR_INIT_SIZE 0x260
#define HDR_MIN_END 0x268

#define LOADFLAG_HIGH 0x01u
#define LOADFLAG_QUIET 0x20u
#define XLF_KERNEL_64 0x01u
#define LOADER_UNKNOWN 0xffu
#define ENTRY64_OFFSET 0x200u
#define HIGH_LOAD 0x100000u

/* A copy of the file's beginning, and what is used of it when it has been checked. */
struct linux_image {
	uint8_t header[BP_E820_TABLE];
	unsigned version;
	bool is_64bit, relocatable;
	uint64_t setup_bytes;	/* protected-mode part follows */
	uint64_t code_bytes;
	uint64_t pref_address, init_bytes;
	uint64_t initrd_max_end;
	uint64_t cmdline_max;
	size_t header_end;
};

bool boot_is_linux(const struct boot_file *f)
{
	char magic[4];

	return boot_read(f, HDR_MAGIC, magic, 4) && !memcmp(magic, "HdrS", 4);
}

static struct error *parse(const struct boot_file *f, struct linux_image *k)
{
	const uint8_t *h = k->header;
	unsigned sects;

	memset(k, 0, sizeof(*k));
	if (f->size < HDR_MIN_END || !boot_read(f, 0, k->header, MIN(f->size, sizeof(k->header))))
		return error_new("kernel '%s' is truncated: it ends inside its setup header", f->name);
	if (load_le(h + HDR_BOOT_FLAG, 2) != 0xaa55)
		return error_new("kernel '%s' is damaged: its boot sector has no 0xaa55 mark", f->name);
	k->version = load_le(h + HDR_VERSION, 2);
	if (k->version < 0x0206)
		return error_new("kernel '%s' uses boot protocol %u.%02u; 2.06 (Linux 2.6.22) is the oldest that is supported",
				 f->name, k->version >> 8, k->version & 0xff);
	if (!(h[HDR_LOADFLAGS] & LOADFLAG_HIGH))
		return error_new("kernel '%s' is a zImage, which loads below 640 KiB; a bzImage is needed",
				 f->name);

	sects = h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4;
	k->setup_bytes = (sects + 1) * 512ull;
	k->header_end = MIN((size_t)HDR_MAGIC + h[HDR_JUMP], (size_t)BP_E820_TABLE - 64);
	if (k->header_end < HDR_CMDLINE_SIZE + 4 || k->header_end > f->size)
		return error_new("kernel '%s' is damaged: its setup header ends at 0x%zx", f->name,
				 k->header_end);
	if (f->size <= k->setup_bytes + ENTRY64_OFFSET)
		return error_new("kernel '%s' is truncated: %zu bytes hold no kernel after %" PRIu64
				 " bytes of setup code",
				 f->name, f->size, k->setup_bytes);
	k->code_bytes = f->size - k->setup_bytes;
	/* The size in the header is in 16-byte paragraphs; the file may be longer (a signature), never shorter. */
	if (load_le(h + 0x1f4, 4) * 16 > align_up(k->code_bytes, 16))
		return error_new("kernel '%s' is truncated: its header announces %" PRIu64
				 " bytes of kernel, %" PRIu64 " are there",
				 f->name, load_le(h + 0x1f4, 4) * 16, k->code_bytes);

	k->initrd_max_end = load_le(h + HDR_INITRD_MAX, 4) + 1;
	k->cmdline_max = load_le(h + HDR_CMDLINE_SIZE, 4);
	k->relocatable = h[HDR_RELOCATABLE];
	if (k->version >= 0x020a && k->header_end >= HDR_INIT_SIZE + 4) {
		k->pref_address = load_le(h + HDR_PREF_ADDRESS, 8);
		k->init_bytes = load_le(h + HDR_INIT_SIZE, 4);
	}
	k->init_bytes = MAX(k->init_bytes, k->code_bytes);
	if (k->pref_address < HIGH_LOAD)
		k->pref_address = HIGH_LOAD;
	k->is_64bit = k->version >= 0x020c && (load_le(h + HDR_XLOADFLAGS, 2) & XLF_KERNEL_64);
	return NULL;
}

/*
 * Where the protected-mode part goes. It unpacks itself at its preferred address: a relocatable kernel, because it was put there
 * (boot.rst, "kernel_alignment": it moves up to that address from anywhere below), another one in any case, so that this range
 * has to be free as well.
 */
static struct error *place_kernel(struct boot *b, const struct linux_image *k, uint64_t *load)
{
	*load = k->relocatable ? k->pref_address : HIGH_LOAD;
	if ((k->relocatable || placement_mark(&b->room, *load, k->code_bytes)) &&
	    placement_mark(&b->room, k->pref_address, k->init_bytes))
		return NULL;
	return error_new("kernel '%s' needs %" PRIu64 " MiB at 0x%" PRIx64 " to unpack itself; the guest's memory of %" PRIu64
			 " MiB is too small",
			 b->src->kernel.name, boot_mib(k->init_bytes), k->pref_address, boot_mib(b->mem->ram_bytes));
}

static void put_e820(uint8_t *bp, const struct memmap *map)
{
	uint8_t *e = bp + BP_E820_TABLE;

	static_assert(MEMMAP_MAX <= 128, "the zero page holds 128 entries");
	for (unsigned i = 0; i < map->count; i++, e += E820_ENTRY_SIZE) {
		store_le(e, map->entry[i].base, 8);
		store_le(e + 8, map->entry[i].length, 8);
		store_le(e + 16, map->entry[i].type, 4);
	}
	bp[BP_E820_ENTRIES] = map->count;
}

struct error *boot_load_linux(struct boot *b)
{
	const struct boot_source *src = b->src;
	struct linux_image k;
	uint8_t bp[BP_SIZE] = { 0 };
	uint64_t load, gpa;
	struct error *err = parse(&src->kernel, &k);

	if (err)
		return err;
	if (strlen(src->cmdline) > k.cmdline_max)
		return error_new("the kernel command line is %zu bytes long; kernel '%s' takes %" PRIu64,
				 strlen(src->cmdline), src->kernel.name, k.cmdline_max);
	err = place_kernel(b, &k, &load);
	if (err)
		return err;
	err = boot_copy(b, &src->kernel, "kernel", k.setup_bytes, load, k.code_bytes);
	if (err)
		return err;

	memcpy(bp + BP_HDR, k.header + BP_HDR, k.header_end - BP_HDR);
	bp[HDR_LOADER] = LOADER_UNKNOWN;
	bp[HDR_LOADFLAGS] &= ~LOADFLAG_QUIET;
	store_le(bp + HDR_CODE32_START, load, 4);
	err = boot_put(b, "kernel command line", src->cmdline, strlen(src->cmdline) + 1, &gpa);
	if (err)
		return err;
	store_le(bp + HDR_CMDLINE, gpa, 4);
	if (boot_has(&src->initrd)) {
		err = boot_put_initrd(b, MIN(k.initrd_max_end, MEM_HIGH_BASE), &gpa);
		if (err)
			return err;
		store_le(bp + HDR_RAMDISK, gpa, 4);
		store_le(bp + HDR_RAMDISK_SIZE, src->initrd.size, 4);
	} else {
		store_le(bp + HDR_RAMDISK, 0, 8);
	}
	store_le(bp + BP_ACPI_RSDP, src->rsdp_gpa, 8);
	put_e820(bp, &b->map);

	err = boot_put(b, "boot parameters", bp, sizeof(bp), &gpa);
	if (err)
		return err;
	err = k.is_64bit ? boot_state_long(b, load + ENTRY64_OFFSET) : boot_state_flat32(b, load);
	if (err)
		return err;
	b->state->regs.gpr[X86_RSI] = gpa;
	return NULL;
}
