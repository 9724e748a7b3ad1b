// SPDX-License-Identifier: Apache-2.0
/* The boot loaders: good payloads land where they belong, bad ones are refused with a sentence. */
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "machine/boot.h"
#include "machine/layout.h"
#include "tests/tap.h"

#define RAM (64 * MiB)

static struct memory *mem;
static struct boot_state state;

static bool in_files; /* the next payloads are read from files */

static void move_to_file(struct boot_file *f)
{
	f->fd = memfd_create(f->name, 0);
	if (f->fd < 0 || write(f->fd, f->data, f->size) != (ssize_t)f->size)
		abort();
	f->data = NULL;
}

static struct error *load(const uint8_t *kernel, size_t size, const uint8_t *initrd, size_t initrd_size,
			  const char *cmdline)
{
	struct error *err;
	struct boot_source src = {
		.kernel = { .name = "kern", .data = kernel, .size = size },
		.initrd = { .name = "ird", .data = initrd, .size = initrd_size },
		.cmdline = cmdline,
		.rsdp_gpa = 0xe0000,
	};

	if (!in_files)
		return boot_load(mem, &src, &state);
	move_to_file(&src.kernel);
	if (initrd)
		move_to_file(&src.initrd);
	err = boot_load(mem, &src, &state);
	close(src.kernel.fd);
	if (initrd)
		close(src.initrd.fd);
	return err;
}

/* Loads and expects a sentence with @part in it. */
static void refused(const uint8_t *kernel, size_t size, const char *part, const char *what)
{
	struct error *err = load(kernel, size, NULL, 0, "");

	ok(err && strstr(error_message(err), part), "%s is refused (%s)", what, err ? error_message(err) : "loaded");
	error_free(err);
}

static uint64_t peek(uint64_t gpa, unsigned size)
{
	uint8_t b[8] = { 0 };

	return mem_read(mem, gpa, b, size) ? load_le(b, size) : ~0ull;
}

static bool has_text(uint64_t gpa, const char *text)
{
	char buf[128] = { 0 };

	return mem_read(mem, gpa, buf, strlen(text) + 1) && !strcmp(buf, text);
}

/* ---- Linux --------------------------------------------------------------------------------------- */

#define SETUP 1024u
#define CODE 8192u

static void make_bzimage(uint8_t *k, bool is64)
{
	memset(k, 0, SETUP + CODE);
	k[0x1f1] = 1;
	store_le(k + 0x1f4, CODE / 16, 4);
	store_le(k + 0x1fe, 0xaa55, 2);
	k[0x200] = 0xeb;
	k[0x201] = 0x6a;
	memcpy(k + 0x202, "HdrS", 4);
	store_le(k + 0x206, 0x20f, 2);
	k[0x211] = 1;
	store_le(k + 0x22c, 0x7fffffff, 4);
	store_le(k + 0x230, 0x200000, 4);
	k[0x234] = 1;
	store_le(k + 0x236, is64 ? 1 : 0, 2);
	store_le(k + 0x238, 255, 4);
	store_le(k + 0x258, 0x1000000, 8);
	store_le(k + 0x260, 2 * MiB, 4);
	for (unsigned i = 0; i < CODE; i++)
		k[SETUP + i] = i * 7;
}

/* A file that changes between the start of the VM and a reset. */
static void test_changed_file(void)
{
	static uint8_t k[SETUP + CODE];
	struct boot_source src = { .kernel = { .name = "kern", .size = sizeof(k), .fd = memfd_create("kern", 0) }, .cmdline = "" };
	struct error *err;

	make_bzimage(k, true);
	if (write(src.kernel.fd, k, sizeof(k)) != sizeof(k))
		abort();
	err = boot_load(mem, &src, &state);
	ok(!err, "a kernel in a file is loaded");
	error_free(err);
	if (ftruncate(src.kernel.fd, SETUP + 100) < 0)
		abort();
	err = boot_load(mem, &src, &state);
	ok(err && strstr(error_message(err), "changed"), "but not when it has become shorter: %s",
	   err ? error_message(err) : "loaded");
	error_free(err);
	if (ftruncate(src.kernel.fd, 0) < 0)
		abort();
	err = boot_load(mem, &src, &state);
	ok(err, "nor when it is empty: %s", err ? error_message(err) : "loaded");
	error_free(err);
	close(src.kernel.fd);
}

static void test_linux(void)
{
	static uint8_t k[SETUP + CODE], initrd[10000], longline[300];
	struct error *err;
	uint64_t bp;

	memset(initrd, 0xa5, sizeof(initrd));
	make_bzimage(k, true);
	err = load(k, sizeof(k), initrd, sizeof(initrd), "console=ttyS0");
	ok(!err, "a 64-bit bzImage loads");
	is_u64(state.regs.rip, 0x1000200, "it is entered 0x200 behind its preferred address");
	is_u64(peek(0x1000000 + 1, 1), 7, "its code is there");
	ok(state.sregs.efer & X86_EFER_LMA && state.sregs.cr0 & X86_CR0_PG && state.sregs.seg[X86_CS].attr & X86_ATTR_L,
	   "in 64-bit mode");
	is_u64(peek(peek(peek(state.sregs.cr3, 8) & ~0xfffull, 8) & ~0xfffull, 8), 0x83, "page tables map address 0 to itself");
	bp = state.regs.gpr[X86_RSI];
	is_u64(peek(bp + 0x202, 4), 0x53726448, "the zero page has the header");
	ok(has_text(peek(bp + 0x228, 4), "console=ttyS0"), "and the command line");
	is_u64(peek(bp + 0x21c, 4), sizeof(initrd), "and the initrd's size");
	is_u64(peek(peek(bp + 0x218, 4), 1), 0xa5, "which is there");
	ok(peek(bp + 0x218, 4) % 4096 == 0 && peek(bp + 0x218, 4) > 32 * MiB, "high up");
	is_u64(peek(bp + 0x70, 8), 0xe0000, "and the RSDP");
	ok(peek(bp + 0x1e8, 1) >= 5 && peek(bp + 0x2d0 + 16, 4) == 1, "and the memory map");

	store_le(k + 0x22c, 0x1ffffff, 4);
	err = load(k, sizeof(k), initrd, sizeof(initrd), "");
	ok(!err && peek(state.regs.gpr[X86_RSI] + 0x218, 4) + sizeof(initrd) <= 0x2000000, "initrd_addr_max is kept to");

	make_bzimage(k, false);
	err = load(k, sizeof(k), NULL, 0, "");
	ok(!err && state.regs.rip == 0x1000000 && !(state.sregs.cr0 & X86_CR0_PG) && state.sregs.cr0 & X86_CR0_PE,
	   "a 32-bit kernel is entered in protected mode");
	is_u64(state.sregs.seg[X86_CS].selector, 0x10, "with CS 0x10");

	make_bzimage(k, true);
	store_le(k + 0x258, 1 * GiB, 8);
	refused(k, sizeof(k), "too small", "a kernel whose preferred address is not there, for below it would not stay");
	k[0x234] = 0;
	store_le(k + 0x258, 0x1000000, 8);
	err = load(k, sizeof(k), NULL, 0, "");
	ok(!err && state.regs.rip == 0x100200, "a kernel that cannot be moved is put at 1 MiB");

	memset(longline, 'x', 299);
	err = load(k, sizeof(k), NULL, 0, (char *)longline);
	ok(err && strstr(error_message(err), "command line"), "a command line that is too long is refused");
	error_free(err);
	if (!in_files) {
		err = load(k, sizeof(k), initrd, 65 * MiB, "");
		ok(err && strstr(error_message(err), "does not fit"), "an initrd larger than memory is refused");
		error_free(err);
	}

	make_bzimage(k, true);
	refused(k, 0x240, "truncated", "a kernel that ends in its header");
	refused(k, SETUP + 100, "truncated", "a kernel without code");
	refused(k, SETUP + CODE - 100, "truncated", "a kernel that is shorter than it says");
	store_le(k + 0x260, 256 * MiB, 4);
	refused(k, sizeof(k), "too small", "a kernel that unpacks beyond memory");
	make_bzimage(k, true);
	k[0x211] = 0;
	refused(k, sizeof(k), "zImage", "a zImage");
	make_bzimage(k, true);
	store_le(k + 0x206, 0x200, 2);
	refused(k, sizeof(k), "protocol", "an old boot protocol");
	make_bzimage(k, true);
	k[0x201] = 2;
	refused(k, sizeof(k), "damaged", "a header that ends too early");
}

/* ---- ELF, PVH ------------------------------------------------------------------------------------ */

struct elf_file {
	Elf64_Ehdr e;
	Elf64_Phdr p[2];
	Elf64_Nhdr n;
	char name[4];
	uint32_t entry;
	uint8_t code[64];
};

static struct elf_file make_elf(void)
{
	struct elf_file f = { 0 };

	memcpy(f.e.e_ident, ELFMAG, 4);
	f.e.e_ident[EI_CLASS] = ELFCLASS64;
	f.e.e_ident[EI_DATA] = ELFDATA2LSB;
	f.e.e_machine = EM_X86_64;
	f.e.e_entry = 0x200000;
	f.e.e_phoff = offsetof(struct elf_file, p);
	f.e.e_phnum = 2;
	f.e.e_phentsize = sizeof(Elf64_Phdr);
	f.p[0] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = offsetof(struct elf_file, code), .p_paddr = 0x200000,
			       .p_vaddr = 0xffffffff81000000, .p_filesz = 64, .p_memsz = 4096 };
	f.p[1] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = offsetof(struct elf_file, n), .p_filesz = 20, .p_memsz = 20 };
	f.n = (Elf64_Nhdr){ 4, 4, 18 };
	memcpy(f.name, "Xen", 4);
	f.entry = 0x200010;
	memset(f.code, 0x90, sizeof(f.code));
	return f;
}

static void refused_elf(struct elf_file f, const char *part, const char *what)
{
	refused((uint8_t *)&f, sizeof(f), part, what);
}

static void test_pvh(void)
{
	struct elf_file f = make_elf();
	uint8_t initrd[5000] = { 0x77 };
	struct error *err;
	uint64_t info;

	if (!memmap_zero(mem, 0x200000, 4096) || !mem_write(mem, 0x200100, "junk", 4))
		ok(false, "memory is there");
	err = load((uint8_t *)&f, sizeof(f), initrd, sizeof(initrd), "hello world");
	ok(!err, "an ELF with a PVH note loads");
	is_u64(state.regs.rip, 0x200010, "it is entered where the note says");
	is_u64(peek(0x200000, 1), 0x90, "its segment is there");
	is_u64(peek(0x200100, 4), 0, "and its bss is zero");
	info = state.regs.gpr[X86_RBX];
	is_u64(peek(info, 4), 0x336ec578, "EBX points at the start information");
	ok(has_text(peek(info + 24, 8), "hello world"), "which has the command line");
	is_u64(peek(info + 12, 4), 1, "one module");
	is_u64(peek(peek(peek(info + 16, 8), 8), 1), 0x77, "the initrd");
	is_u64(peek(info + 32, 8), 0xe0000, "the RSDP");
	ok(peek(info + 48, 4) >= 5, "the memory map");

	f.n.n_type = 17;
	refused_elf(f, "PVH note", "an ELF without the note");
	f = make_elf();
	f.n.n_namesz = 0xfffffff0;
	refused_elf(f, "PVH note", "a note that lies about its size");
	f = make_elf();
	f.p[0].p_paddr = 0xfffffffffffff000;
	refused_elf(f, "not usable memory", "a segment at the end of the address space");
	f = make_elf();
	f.p[0].p_memsz = UINT64_MAX;
	refused_elf(f, "not usable memory", "a segment of endless size");
	f = make_elf();
	f.p[0].p_paddr = 0xa0000;
	refused_elf(f, "not usable memory", "a segment in the reserved area");
	f = make_elf();
	f.p[0].p_offset = UINT64_MAX - 10;
	refused_elf(f, "truncated", "a segment from beyond the file");
	f = make_elf();
	f.e.e_phoff = sizeof(f) - 10;
	refused_elf(f, "truncated", "program headers beyond the file");
	f = make_elf();
	f.e.e_phnum = 65535;
	refused_elf(f, "program headers", "too many program headers");
	f = make_elf();
	f.e.e_machine = EM_AARCH64;
	refused_elf(f, "processor", "an ELF for another processor");
	f = make_elf();
	f.entry = 0x50000000;
	refused_elf(f, "entry", "an entry outside of memory");
	refused((uint8_t *)&f, 20, "truncated", "a piece of an ELF header");
}

/* ---- Multiboot ----------------------------------------------------------------------------------- */

static void test_multiboot(void)
{
	uint8_t k[4096] = { 0 }, initrd[100] = { 0x33 };
	uint32_t *h = (uint32_t *)(k + 64);
	struct elf_file f = make_elf();
	struct error *err;
	uint64_t info, mod, end;

	h[0] = 0x1badb002;
	h[1] = 1 << 16 | 3;
	h[2] = -(h[0] + h[1]);
	h[3] = 0x100040; /* header */
	h[4] = 0x100010; /* load: 16 bytes into the file */
	h[5] = 0x100100;
	h[6] = 0x108000;
	h[7] = 0x100020;
	k[16] = 0xab;
	err = load(k, sizeof(k), initrd, sizeof(initrd), "a b");
	ok(!err, "a Multiboot image with addresses loads");
	is_u64(state.regs.rip, 0x100020, "it is entered where it says");
	is_u64(peek(0x100010, 1), 0xab, "its first byte is there");
	is_u64(state.regs.gpr[X86_RAX], 0x2badb002, "EAX has the magic number");
	info = state.regs.gpr[X86_RBX];
	ok((peek(info, 4) & 0x4d) == 0x4d, "memory, command line, module and memory map are given");
	ok(has_text(peek(info + 16, 4), "kern a b"), "the command line begins with the kernel's name");
	mod = peek(info + 24, 4);
	is_u64(peek(peek(mod, 4), 1), 0x33, "the module is there");
	is_u64(peek(mod + 4, 4) - peek(mod, 4), sizeof(initrd), "with its size");
	end = peek(info + 48, 4) + peek(info + 44, 4);
	is_u64(peek(end - 24, 4), 20, "the memory map's entries have 20 bytes");
	ok(state.sregs.cr0 == (X86_CR0_PE | X86_CR0_ET), "in protected mode without paging");

	h[5] = 0x180000;
	refused(k, sizeof(k), "truncated", "a load end beyond the file");
	h[5] = 0x100000;
	refused(k, sizeof(k), "damaged", "a load end before the start");
	h[5] = 0x100100;
	h[4] = 0x200000;
	refused(k, sizeof(k), "damaged", "a load address behind the header");
	h[4] = 0x100000 - 0x1000;
	refused(k, sizeof(k), "damaged", "a load address before the file's start");
	h[4] = 0x100010;
	h[6] = 0xfffffff0;
	refused(k, sizeof(k), "not usable memory", "a bss beyond memory");
	h[6] = 0x108000;
	h[7] = 0xf0000000;
	refused(k, sizeof(k), "entry", "an entry outside of memory");
	h[7] = 0x100020;
	h[1] |= 1 << 5;
	h[2] = -(h[0] + h[1]);
	refused(k, sizeof(k), "features", "an unknown required flag");
	h[1] = 3;
	h[2] = -(h[0] + h[1]);
	refused(k, sizeof(k), "not an ELF", "no addresses and no ELF");

	h = (uint32_t *)f.code;
	h[0] = 0x1badb002;
	h[1] = 3;
	h[2] = -(h[0] + h[1]);
	err = load((uint8_t *)&f, sizeof(f), NULL, 0, "");
	ok(!err && state.regs.rip == 0x200000, "an ELF with a Multiboot header is entered at its entry");
	error_free(err);
}

int main(void)
{
	struct error *err = memory_create(RAM, &mem);

	if (err) {
		diag("%s", error_message(err));
		return 1;
	}
	for (int files = 0; files < 2; files++) {
		in_files = files;
		test_linux();
		test_pvh();
		test_multiboot();
		refused((const uint8_t *)"hello", 5, "is not", "a text");
		refused((const uint8_t *)"", 0, "empty", "an empty file");
	}
	test_changed_file();
	memory_destroy(mem);
	return done_testing();
}
