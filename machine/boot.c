// SPDX-License-Identifier: Apache-2.0
/*
 * What the loaders share: recognizing a payload, placing boot structures, and the two states in which
 * boot protocols want the CPU (Linux: Documentation/arch/x86/boot.rst; Multiboot 0.6.96, 3.2; Xen: PVH).
 */
#include "machine/boot.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "machine/layout.h"

#define ATTR_CODE32 (X86_ATTR_G | X86_ATTR_DB | X86_ATTR_P | X86_ATTR_S | 0xb)
#define ATTR_CODE64 (X86_ATTR_G | X86_ATTR_L | X86_ATTR_P | X86_ATTR_S | 0xb)
#define ATTR_DATA (X86_ATTR_G | X86_ATTR_DB | X86_ATTR_P | X86_ATTR_S | 0x3)
#define ATTR_TSS_BUSY (X86_ATTR_P | 0xb)

#define PTE_PRESENT 0x1u
#define PTE_WRITE 0x2u
#define PDE_LARGE 0x80u

void boot_init(struct boot *b, struct memory *mem, const struct boot_source *src,
	       struct boot_state *out)
{
	*b = (struct boot){ .mem = mem, .src = src, .state = out };
	memmap_build(&b->map, mem);
	placement_init(&b->room, &b->map);
	/* Page 0 stays as it is: the vectors and the BIOS data area of real mode. */
	if (!placement_mark(&b->room, 0, MEM_PAGE_SIZE))
		assert(!"page 0 is RAM");
	memset(out, 0, sizeof(*out));
}

/*
 * The BIOS data area, as firmware leaves it, where kernels look for the end of conventional memory (Xen,
 * real-mode code): COM1's port, the EBDA's segment and size, memory in KiB.
 */
static void put_bios_data(struct memory *mem)
{
	static const struct {
		uint32_t gpa;
		uint16_t value;
	} words[] = {
		{ 0x400, 0x3f8 },
		{ 0x40e, LAYOUT_EBDA >> 4 },
		{ 0x413, LAYOUT_LOW_RAM_END / KiB },
		{ LAYOUT_EBDA, 1 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		if (!mem_write(mem, words[i].gpa, &words[i].value, sizeof(words[i].value)))
			assert(!"low memory is RAM");
}

struct error *boot_load(struct memory *mem, const struct boot_source *src, struct boot_state *out)
{
	struct boot b;

	put_bios_data(mem);
	boot_init(&b, mem, src, out);
	if (boot_is_linux(&src->kernel))
		return boot_load_linux(&b);
	if (boot_is_multiboot(&src->kernel))
		return boot_load_multiboot(&b);
	if (boot_is_elf(&src->kernel))
		return boot_load_pvh(&b);
	if (!src->kernel.size)
		return error_new("kernel '%s' is empty", src->kernel.name);
	return error_new("kernel '%s' is not a Linux bzImage, an ELF with a PVH note or a Multiboot 1 image",
			 src->kernel.name);
}

bool boot_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len)
{
	size_t done = 0;

	if (offset > f->size || len > f->size - offset)
		return false;
	if (f->data) {
		memcpy(buf, f->data + offset, len);
		return true;
	}
	while (done < len) {
		ssize_t n = pread(f->fd, (uint8_t *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += n;
	}
	return true;
}

struct error *boot_copy(struct boot *b, const struct boot_file *f, const char *what, uint64_t offset,
			uint64_t gpa, uint64_t length)
{
	uint64_t avail;
	uint8_t *to;

	if (!length)
		return NULL;
	if (f->data) {
		if (!mem_write(b->mem, gpa, f->data + offset, length))
			assert(!"usable memory is RAM");
		return NULL;
	}
	to = mem_ram_ptr(b->mem, gpa, length, &avail);
	assert(to && avail == length);
	if (!boot_read(f, offset, to, length))
		return error_new("%s '%s' cannot be read any more: has it been changed since the VM was started?",
				 what, f->name);
	mem_written(b->mem, gpa, length);
	return NULL;
}

struct error *boot_put(struct boot *b, const char *what, const void *data, uint64_t length,
		       uint64_t *gpa)
{
	if (!placement_find(&b->room, length, 16, 0, LAYOUT_LOW_RAM_END, gpa) &&
	    !placement_find(&b->room, length, 16, 0, MEM_HIGH_BASE, gpa))
		return error_new("no room in guest memory for the %s beside kernel '%s': give the guest more memory",
				 what, b->src->kernel.name);
	if (!mem_write(b->mem, *gpa, data, length))
		assert(!"usable memory is RAM");
	return NULL;
}

struct error *boot_put_initrd(struct boot *b, uint64_t max_end, uint64_t *gpa)
{
	const struct boot_file *f = &b->src->initrd;

	if (!placement_find(&b->room, f->size, MEM_PAGE_SIZE, MiB, max_end, gpa))
		return error_new("initrd '%s' (%" PRIu64 " KiB) does not fit beside the kernel into the guest's memory of %" PRIu64
				 " MiB: give the guest more memory",
				 f->name, (uint64_t)(f->size + 1023) / 1024, boot_mib(b->mem->ram_bytes));
	return boot_copy(b, f, "initrd", 0, *gpa, f->size);
}

/* A descriptor of 8 bytes from its parts (SDM vol. 3, 3.4.5). @limit in bytes, 4 GiB - 1 or below 1 MiB. */
static uint64_t descriptor(uint32_t base, uint32_t limit, uint16_t attr)
{
	uint64_t l = attr & X86_ATTR_G ? limit >> 12 : limit;

	return (l & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xf0ff) << 40 |
	       (l >> 16 & 0xf) << 48 | (uint64_t)(base >> 24) << 56;
}

static struct error *set_flat(struct boot *b, uint16_t code_attr, uint64_t rip)
{
	struct x86_sregs *s = &b->state->sregs;
	uint64_t gdt[5], gdt_gpa;
	struct error *err;

	gdt[0] = 0;
	gdt[1] = 0;
	gdt[2] = descriptor(0, ~0u, code_attr);
	gdt[3] = descriptor(0, ~0u, ATTR_DATA);
	gdt[4] = descriptor(0, 0x67, ATTR_TSS_BUSY);
	err = boot_put(b, "descriptor table", gdt, sizeof(gdt), &gdt_gpa);
	if (err)
		return err;

	for (unsigned i = 0; i < X86_SEG_COUNT; i++)
		s->seg[i] = (struct x86_segment){ 0x18, ATTR_DATA, ~0u, 0 };
	s->seg[X86_CS] = (struct x86_segment){ 0x10, code_attr, ~0u, 0 };
	s->tr = (struct x86_segment){ 0x20, ATTR_TSS_BUSY, 0x67, 0 };
	s->ldtr = (struct x86_segment){ 0, 0, 0, 0 };
	s->gdtr = (struct x86_table){ gdt_gpa, sizeof(gdt) - 1 };
	s->idtr = (struct x86_table){ 0, 0 };
	s->cr0 = X86_CR0_PE | X86_CR0_ET;
	s->xcr0 = X86_XCR0_X87;
	s->dr[6] = 0xffff0ff0;
	s->dr[7] = 0x400;
	b->state->regs.rip = rip;
	b->state->regs.rflags = 2;
	return NULL;
}

struct error *boot_state_flat32(struct boot *b, uint64_t rip)
{
	return set_flat(b, ATTR_CODE32, rip);
}

/*
 * Identity map of [0, 4 GiB) in six pages: one PML4 entry, four PDPT entries, four page directories of
 * 2 MiB pages.
 */
struct error *boot_state_long(struct boot *b, uint64_t rip)
{
	struct x86_sregs *s = &b->state->sregs;
	uint64_t table[512], base;
	struct error *err;

	if (!placement_find(&b->room, 6 * MEM_PAGE_SIZE, MEM_PAGE_SIZE, 0, LAYOUT_LOW_RAM_END, &base))
		return error_new("no room below 640 KiB for page tables beside kernel '%s'",
				 b->src->kernel.name);
	for (unsigned page = 0; page < 6; page++) {
		memset(table, 0, sizeof(table));
		if (page == 0)
			table[0] = (base + MEM_PAGE_SIZE) | PTE_PRESENT | PTE_WRITE;
		for (unsigned i = 0; page == 1 && i < 4; i++)
			table[i] = (base + (2 + i) * MEM_PAGE_SIZE) | PTE_PRESENT | PTE_WRITE;
		for (unsigned i = 0; page >= 2 && i < 512; i++)
			table[i] = ((page - 2) * GiB + i * 2 * MiB) | PTE_PRESENT | PTE_WRITE | PDE_LARGE;
		if (!mem_write(b->mem, base + page * MEM_PAGE_SIZE, table, sizeof(table)))
			assert(!"usable memory is RAM");
	}
	err = set_flat(b, ATTR_CODE64, rip);
	if (err)
		return err;
	s->cr3 = base;
	s->cr4 = X86_CR4_PAE;
	s->efer = X86_EFER_LME | X86_EFER_LMA;
	s->cr0 |= X86_CR0_PG;
	return NULL;
}
