/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM: the memfd, its mapping, and copies.
 *
 * The memfd is sealed against changes of size: nobody who is handed it can take pages away under a running
 * VM, which would be SIGBUS here. KSM, and huge pages as hosts are set up, are to be had for anonymous memory only, so that
 * is taken then. RAM is left out of core dumps: the guest's secrets are not ours to spill.
 *
 * Copies race with vCPUs and with other devices, by the nature of the machine. They are therefore made of
 * atomic accesses on the guest's side, the widest that alignment allows: the compiler may neither
 * read a byte twice nor tear a word, and ThreadSanitizer knows that these races are meant, while it still
 * sees those on our own buffers.
 */
#include "mem/memory.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "mem/host.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* Linux 6.3 */
#endif

/* ---- Making and ending ---- */

/* The larger is mapped at multiples of this, as the processor's large pages are. */
#define HUGE_PAGE_BYTES (2 * MiB)

static struct error *check_limits(uint64_t ram_bytes, unsigned flags)
{
	uint64_t available = host_memory_available(), total = host_memory_total();
	uint64_t promisable = host_memory_promisable();
	struct rlimit limit;

	/* Growing a file past this limit is a signal, not an error. */
	if (!flags && !getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur != RLIM_INFINITY &&
	    limit.rlim_cur < ram_bytes)
		return error_new("cannot make %s of guest memory: the limit on file sizes (`ulimit "
				 "-f`) is less; "
				 "raise it",
				 size_to_text(ram_bytes).text);
	if (flags && !getrlimit(RLIMIT_DATA, &limit) && limit.rlim_cur != RLIM_INFINITY &&
	    limit.rlim_cur < ram_bytes)
		return error_new("cannot make %s of guest memory: the limit on data (`ulimit -d`) is less; "
				 "raise it",
				 size_to_text(ram_bytes).text);
	if (ram_bytes > promisable)
		return error_new("cannot make %s of guest memory: this host promises no more memory than it has "
				 "(vm.overcommit_memory is 2), and has %s left to promise; give the guest less, or "
				 "raise vm.overcommit_ratio",
				 size_to_text(ram_bytes).text,
				 size_to_text(align_down(promisable, MiB)).text);
	if (ram_bytes / 2 > available)
		return error_new("cannot make %s of guest memory: this host has %s available; "
				 "give the guest less, or stop something else",
				 size_to_text(ram_bytes).text,
				 size_to_text(align_down(available, MiB)).text);
	if (ram_bytes > total)
		return error_new("cannot make %s of guest memory: this host, or the control group that limits "
				 "this program, has %s in all; give the guest less",
				 size_to_text(ram_bytes).text,
				 size_to_text(align_down(total, MiB)).text);
	if (ram_bytes > available)
		log_warn("the guest gets %s of memory but this host has only %s available: "
			 "a guest that uses all of it will be ended by the kernel",
			 size_to_text(ram_bytes).text,
			 size_to_text(align_down(available, MiB)).text);
	return NULL;
}

/* What the host lacks of what was asked for. */
static struct error *check_host(unsigned flags)
{
	if ((flags & MEM_HUGE_PAGES) && !host_has_huge_pages())
		return error_new("this host gives no huge pages: its administrator can change that by writing "
				 "madvise to /sys/kernel/mm/transparent_hugepage/enabled; without --hugepages "
				 "the guest runs with small ones");
	if (!(flags & MEM_MERGEABLE))
		return NULL;
	if (host_ksm() == HOST_KSM_NONE)
		return error_new("this host cannot merge equal pages: its kernel is without KSM; leave --ksm out");
	if (host_ksm() == HOST_KSM_OFF)
		log_warn("this host does not merge equal pages at present: its administrator can have it do so by "
			 "writing 1 to /sys/kernel/mm/ksm/run");
	return NULL;
}

static struct error *make_memfd(struct memory *mem)
{
	mem->ram_fd = memfd_create("maru-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (mem->ram_fd < 0 && errno == EINVAL)
		mem->ram_fd = memfd_create("maru-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (mem->ram_fd < 0)
		return error_errno(errno, "cannot make guest memory");
	if (ftruncate(mem->ram_fd, (off_t)mem->ram_bytes) < 0)
		return error_errno(errno, "cannot make %s of guest memory",
				   size_to_text(mem->ram_bytes).text);
	if (fcntl(mem->ram_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return error_errno(errno, "cannot seal guest memory");
	return NULL;
}

static struct error *map_part(struct memory *mem, unsigned flags, uint64_t gpa, uint64_t file_offset,
			      uint64_t len)
{
	int how = flags ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
	uint8_t *at = mem->ram_base + gpa;

	if (!len)
		return NULL;
	if (mmap(at, len, PROT_READ | PROT_WRITE, how | MAP_FIXED, mem->ram_fd,
		 flags ? 0 : (off_t)file_offset) != at)
		return error_errno(errno, "cannot map %s of guest memory", size_to_text(len).text);
	if (madvise(at, len, MADV_DONTDUMP) < 0)
		return error_errno(errno, "cannot leave guest memory out of core dumps");
	if ((flags & MEM_HUGE_PAGES) && madvise(at, len, MADV_HUGEPAGE) < 0)
		return error_errno(errno, "the host gives no huge pages for guest memory");
	if ((flags & MEM_MERGEABLE) && madvise(at, len, MADV_MERGEABLE) < 0)
		return error_errno(errno, "the host does not merge equal pages of guest memory");
	return NULL;
}

static struct error *map_all(struct memory *mem, unsigned flags)
{
	uint64_t last = mem->high_bytes ? MEM_HIGH_BASE + mem->high_bytes : MEM_HIGH_BASE;
	uint8_t *reservation, *start;
	struct error *err;

	mem->reserved_bytes = last + 2 * MEM_GUARD_BYTES;
	reservation = mmap(NULL, mem->reserved_bytes + HUGE_PAGE_BYTES, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (reservation == MAP_FAILED)
		return error_errno(
			errno,
			"cannot reserve %s of address space for guest memory (raise `ulimit -v`)",
			size_to_text(mem->reserved_bytes).text);
	/* Huge pages of the guest's are to be ones of the host's. */
	start = (uint8_t *)align_up((uintptr_t)reservation, HUGE_PAGE_BYTES);
	if (start != reservation)
		munmap(reservation, (size_t)(start - reservation));
	munmap(start + mem->reserved_bytes, HUGE_PAGE_BYTES - (size_t)(start - reservation));
	mem->ram_base = start + MEM_GUARD_BYTES;
	err = map_part(mem, flags, 0, 0, mem->low_bytes);
	if (!err)
		err = map_part(mem, flags, MEM_HIGH_BASE, mem->low_bytes, mem->high_bytes);
	return err;
}

struct error *memory_create(uint64_t ram_bytes, struct memory **out)
{
	return memory_create_backed(ram_bytes, 0, out);
}

struct error *memory_create_backed(uint64_t ram_bytes, unsigned flags, struct memory **out)
{
	struct memory *mem;
	struct error *err;

	if (ram_bytes < MiB || ram_bytes % MEM_PAGE_SIZE)
		return error_new("a guest cannot have %s of memory: it must be at least 1 MiB and "
				 "whole pages of 4 KiB",
				 size_to_text(ram_bytes).text);
	err = check_limits(ram_bytes, flags);
	if (!err)
		err = check_host(flags);
	if (err)
		return err;
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return error_errno(ENOMEM, "cannot make guest memory");
	mem->ram_fd = -1;
	mem->ram_bytes = ram_bytes;
	mem->low_bytes = MIN(ram_bytes, MEM_LOW_MAX);
	mem->high_bytes = ram_bytes - mem->low_bytes;
	mem->mmio = bus_create("mmio");
	mem->ports = bus_create("ports");
	if (!mem->mmio || !mem->ports)
		err = error_errno(ENOMEM, "cannot make guest memory");
	if (!err && !flags)
		err = make_memfd(mem);
	if (!err)
		err = map_all(mem, flags);
	if (err) {
		memory_destroy(mem);
		return err;
	}
	*out = mem;
	return NULL;
}

void memory_destroy(struct memory *mem)
{
	if (!mem)
		return;
	if (mem->ram_base)
		munmap(mem->ram_base - MEM_GUARD_BYTES, mem->reserved_bytes);
	if (mem->ram_fd >= 0)
		close(mem->ram_fd);
	bus_destroy(mem->mmio);
	bus_destroy(mem->ports);
	free(mem);
}

/* ---- Access ---- */

void *mem_ram_ptr(const struct memory *mem, uint64_t gpa, uint64_t len, uint64_t *avail)
{
	uint64_t room;

	if (!mem_is_ram(mem, gpa))
		return NULL;
	room = gpa < mem->low_bytes ? mem->low_bytes - gpa : MEM_HIGH_BASE + mem->high_bytes - gpa;
	*avail = MAX(MIN(len, room), 1);
	return mem->ram_base + gpa;
}

/* All of it, or NULL. RAM below and above 4 GiB never touch, so that a range lies in one of them. */
static uint8_t *whole_range(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	uint64_t avail;
	uint8_t *p = mem_ram_ptr(mem, gpa, len, &avail);

	return p && avail == len ? p : NULL;
}

static_assert(MEM_LOW_MAX < MEM_HIGH_BASE, "low RAM ends before high RAM begins");

/* The widest access that @p's alignment and @len allow: 8, 4, 2 or 1. */
static unsigned piece(const uint8_t *p, uint64_t len)
{
	unsigned width = 8;

	while (width > len || (uintptr_t)p & (width - 1))
		width >>= 1;
	return width;
}

static void copy_from_guest(uint8_t *to, const uint8_t *from, uint64_t len)
{
	while (len) {
		unsigned width = piece(from, len);

		if (width == 8) {
			for (; len >= 8; to += 8, from += 8, len -= 8) {
				uint64_t v =
					__atomic_load_n((const uint64_t *)from, __ATOMIC_ACQUIRE);

				memcpy(to, &v, 8);
			}
			continue;
		}
		if (width == 4)
			store_le(to, __atomic_load_n((const uint32_t *)from, __ATOMIC_ACQUIRE), 4);
		else if (width == 2)
			store_le(to, __atomic_load_n((const uint16_t *)from, __ATOMIC_ACQUIRE), 2);
		else
			*to = __atomic_load_n(from, __ATOMIC_ACQUIRE);
		to += width;
		from += width;
		len -= width;
	}
}

static void copy_to_guest(uint8_t *to, const uint8_t *from, uint64_t len)
{
	while (len) {
		unsigned width = piece(to, len);

		if (width == 8) {
			for (; len >= 8; to += 8, from += 8, len -= 8)
				__atomic_store_n((uint64_t *)to, load_le(from, 8),
						 __ATOMIC_RELEASE);
			continue;
		}
		if (width == 4)
			__atomic_store_n((uint32_t *)to, (uint32_t)load_le(from, 4),
					 __ATOMIC_RELEASE);
		else if (width == 2)
			__atomic_store_n((uint16_t *)to, (uint16_t)load_le(from, 2),
					 __ATOMIC_RELEASE);
		else
			__atomic_store_n(to, *from, __ATOMIC_RELEASE);
		to += width;
		from += width;
		len -= width;
	}
}

bool mem_read(const struct memory *mem, uint64_t gpa, void *buf, uint64_t len)
{
	const uint8_t *p;

	if (!len)
		return true;
	p = whole_range(mem, gpa, len);
	if (!p)
		return false;
	copy_from_guest(buf, p, len);
	return true;
}

bool mem_write(struct memory *mem, uint64_t gpa, const void *buf, uint64_t len)
{
	uint8_t *p;

	if (!len)
		return true;
	p = whole_range(mem, gpa, len);
	if (!p)
		return false;
	copy_to_guest(p, buf, len);
	mem_written(mem, gpa, len);
	return true;
}

void mem_written(struct memory *mem, uint64_t gpa, uint64_t len)
{
	if (mem->on_written && len)
		mem->on_written(mem->on_written_opaque, gpa, len);
}

uint64_t mem_discard(struct memory *mem, uint64_t gpa, uint64_t len)
{
	uint64_t first, end, avail;
	uint8_t *p;

	if (__builtin_add_overflow(gpa, len, &end) || end > UINT64_MAX - MEM_PAGE_SIZE)
		return 0;
	first = align_up(gpa, MEM_PAGE_SIZE);
	end = align_down(end, MEM_PAGE_SIZE);
	if (first >= end)
		return 0;
	p = mem_ram_ptr(mem, first, end - first, &avail);
	if (!p)
		return 0;
	/* RAM consists of whole pages, so this is one. */
	avail = MIN(avail, end - first);
	if (madvise(p, avail, mem->ram_fd < 0 ? MADV_DONTNEED : MADV_REMOVE) < 0) {
		log_guest("the host does not take guest memory back: %s", strerror(errno));
		return 0;
	}
	mem_written(mem, first, avail);
	return avail;
}
