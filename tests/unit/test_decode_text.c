/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction decoder on the code of real programs: each executable section is swept from its beginning,
 * and every instruction compared with an independent decoder (Zydis) in all that decode_oracle.h looks at.
 * Where Zydis finds no instruction (tables among the code) the sweep goes on a byte later.
 */
#include <elf.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tap.h"
#include "tests/unit/decode_oracle.h"

#define MAX_REPORTED 10
#define MAX_INSTRUCTIONS 400000 /* of one file */

static struct oracle oracle;

static void sweep(const uint8_t *code, size_t size, unsigned long *count, unsigned long *differ)
{
	for (size_t at = 0; at < size && *count < MAX_INSTRUCTIONS; (*count)++) {
		const char *what = oracle_compare(&oracle, code + at, size - at);

		if (what && (*differ)++ < MAX_REPORTED) {
			char hex[64] = "";

			for (size_t i = 0; i < INSN_MAX_LEN && at + i < size; i++)
				sprintf(hex + 3 * i, "%02x ", code[at + i]);
			diag("%s: %s(%s)", hex, what,
			     oracle.zydis_valid ? ZydisMnemonicGetString(oracle.zi.mnemonic) : "invalid");
		}
		at += oracle.zydis_valid ? oracle.zi.length : 1;
	}
}

/* Returns whether @path is a 64-bit ELF file with code. */
static bool test_file(const char *path)
{
	unsigned long count = 0, differ = 0;
	const Elf64_Shdr *section;
	const Elf64_Ehdr *elf;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *file;

	if (fd < 0)
		return false;
	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(*elf)) {
		close(fd);
		return false;
	}
	file = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (file == MAP_FAILED)
		return false;
	elf = (const Elf64_Ehdr *)file;
	if (!memcmp(elf->e_ident, ELFMAG, SELFMAG) && elf->e_ident[EI_CLASS] == ELFCLASS64 &&
	    elf->e_machine == EM_X86_64 &&
	    elf->e_shoff + (uint64_t)elf->e_shnum * sizeof(*section) <= (uint64_t)st.st_size) {
		section = (const Elf64_Shdr *)(file + elf->e_shoff);
		for (unsigned i = 0; i < elf->e_shnum; i++, section++) {
			if (section->sh_type == SHT_PROGBITS && section->sh_flags & SHF_EXECINSTR &&
			    section->sh_offset + section->sh_size <= (uint64_t)st.st_size)
				sweep(file + section->sh_offset, section->sh_size, &count, &differ);
		}
	}
	munmap(file, st.st_size);
	if (!count)
		return false;
	ok(!differ, "%s: %lu instructions, %lu differ", path, count, differ);
	return true;
}

int main(void)
{
	static const char *const patterns[] = {
		"/bin/bash", "/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libm.so.6",
		"/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/bin/python3",
		"/usr/lib/debug/boot/vmlinux-*", "/lib/modules/*/build/vmlinux",
	};

	oracle_init(&oracle, 64);
	ok(test_file("/proc/self/exe"), "this program was swept");
	for (unsigned i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		glob_t found;

		if (glob(patterns[i], 0, NULL, &found) == 0 && test_file(found.gl_pathv[0]))
			;
		else
			skip("%s is not here", patterns[i]);
		globfree(&found);
	}
	return done_testing();
}
