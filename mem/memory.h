/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical memory: RAM, and the MMIO and port buses beside it.
 *
 * Theory of operation. All guest RAM is one memfd, or anonymous memory where the guest's owner wants what only that
 * can have. It is mapped into one reservation of address space
 * at hva = ram_base + gpa, so that an engine turns a guest-physical address into a host one by an
 * addition; what is not RAM inside the reservation is PROT_NONE, and so are MEM_GUARD_BYTES before gpa 0 and
 * after the last byte, more than any 32-bit displacement reaches. The memfd holds low RAM [0, low_bytes)
 * first and then RAM above 4 GiB. A page is RAM or it is not: mem_is_ram() and the functions below
 * decide; DMA reaches RAM only, never MMIO, so that a chip is never re-entered.
 *
 * Guest memory changes under us at any time: copy in with mem_read(), check the copy. Raw pointers
 * (mem_ram_ptr) are for scatter-gather vectors handed to the kernel and for engines, nothing else.
 *
 * Writes by devices are announced (mem_write does it itself; after I/O through raw pointers call
 * mem_written), so that an engine can drop translations of the code they overwrote.
 */
#ifndef MEM_MEMORY_H
#define MEM_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "mem/bus.h"

#define MEM_PAGE_SIZE 4096u
#define MEM_LOW_MAX (2048ull * MiB)   /* RAM below the PCI hole ends here at the latest */
#define MEM_HIGH_BASE (4ull * GiB)
#define MEM_GUARD_BYTES (4ull * GiB)

struct memory {
	uint64_t ram_bytes;  /* in all; a multiple of 4096 */
	uint64_t low_bytes;  /* RAM is [0, low_bytes) and [MEM_HIGH_BASE, MEM_HIGH_BASE + high_bytes) */
	uint64_t high_bytes;
	int ram_fd;	     /* the memfd; -1: anonymous memory */
	uint8_t *ram_base;   /* hva of gpa 0 */
	uint64_t reserved_bytes; /* length of the reservation, which starts at ram_base - MEM_GUARD_BYTES */
	struct bus *mmio;
	struct bus *ports;
	/* Called after RAM was written by other than a vCPU; any thread; NULL: nobody listens. */
	void (*on_written)(void *opaque, uint64_t gpa, uint64_t len);
	void *on_written_opaque;
};

/* What RAM is made of, if not of a memfd: anonymous memory with these properties. */
#define MEM_MERGEABLE 1u  /* the host may keep equal pages once (KSM) */
#define MEM_HUGE_PAGES 2u /* in pages of 2 MiB, as the host has them */

/*
 * Makes RAM of @ram_bytes (≥ 1 MiB, a multiple of 4096) and two empty buses. The host's pages are taken as
 * the guest touches them: more RAM than the host has free now is a warning; more than twice that, than the host
 * and the limits of this process can ever give, or than it promises is an error.
 */
struct error *memory_create_backed(uint64_t ram_bytes, unsigned flags, struct memory **out) MUST_CHECK;
struct error *memory_create(uint64_t ram_bytes, struct memory **out) MUST_CHECK; /* of a memfd */
void memory_destroy(struct memory *mem); /* NULL-safe */

static inline bool mem_is_ram(const struct memory *mem, uint64_t gpa)
{
	return gpa < mem->low_bytes ||
	       (gpa >= MEM_HIGH_BASE && gpa - MEM_HIGH_BASE < mem->high_bytes);
}

/*
 * The host address of guest RAM at @gpa, and in *@avail how many of the @len bytes from there are
 * contiguous RAM (≥ 1). NULL when @gpa is not RAM.
 */
void *mem_ram_ptr(const struct memory *mem, uint64_t gpa, uint64_t len, uint64_t *avail);

/*
 * Copies; false, and nothing copied, unless all of [gpa, gpa + len) is RAM. Any thread. What the guest sees or
 * has written meanwhile: each naturally aligned 2, 4 or 8 bytes are read or written at once, never torn, and
 * in ascending order; a write is seen after all that its thread wrote before.
 */
bool mem_read(const struct memory *mem, uint64_t gpa, void *buf, uint64_t len) MUST_CHECK;
bool mem_write(struct memory *mem, uint64_t gpa, const void *buf, uint64_t len) MUST_CHECK;

/*
 * Gives the host's pages of [gpa, gpa + len) back, as far as they are whole pages of RAM: they read as zero until
 * they are written again, and the host finds new ones then. Announced as a write. Any thread. Returns the bytes.
 */
uint64_t mem_discard(struct memory *mem, uint64_t gpa, uint64_t len);

/* RAM in [gpa, gpa + len) was written through a raw pointer. Any thread. */
void mem_written(struct memory *mem, uint64_t gpa, uint64_t len);

#endif
