/* SPDX-License-Identifier: Apache-2.0 */
/* mem/memory.h: the layout of guest RAM, its bounds, its seals, and copies that race. */
#include "mem/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem/host.h"
#include "tests/tap.h"

static struct memory *make(uint64_t bytes)
{
	struct memory *mem = NULL;
	struct error *err = memory_create(bytes, &mem);

	ok(!err, "RAM of %" PRIu64 " MiB%s%s", (uint64_t)(bytes / MiB), err ? ": " : "",
	   err ? error_message(err) : "");
	if (err)
		exit(1);
	return mem;
}

static void refused(uint64_t bytes, const char *part, const char *what)
{
	struct memory *mem = NULL;
	struct error *err = memory_create(bytes, &mem);

	ok(err && strstr(error_message(err), part), "%s is refused", what);
	diag("%s", err ? error_message(err) : "no error");
	error_free(err);
	memory_destroy(mem);
}

/* Whether a byte at @p can be read, asked of the kernel. */
static bool readable(const uint8_t *p)
{
	int fds[2];
	bool yes;

	if (pipe(fds) < 0)
		abort();
	yes = write(fds[1], p, 1) == 1;
	close(fds[0]);
	close(fds[1]);
	return yes;
}

static void test_layout(void)
{
	struct memory *mem = make(3 * GiB);
	uint64_t avail = 0;
	uint32_t v = 0;

	is_u64(mem->low_bytes, MEM_LOW_MAX, "low RAM ends at the PCI hole");
	is_u64(mem->high_bytes, GiB, "the rest is above 4 GiB");
	ok(mem_is_ram(mem, 0) && mem_is_ram(mem, MEM_LOW_MAX - 1) &&
		   !mem_is_ram(mem, MEM_LOW_MAX) && !mem_is_ram(mem, MEM_HIGH_BASE - 1) &&
		   mem_is_ram(mem, MEM_HIGH_BASE) && mem_is_ram(mem, 5 * GiB - 1) &&
		   !mem_is_ram(mem, 5 * GiB) && !mem_is_ram(mem, ~0ull),
	   "what is RAM");

	ok(mem_ram_ptr(mem, 0x1000, 16, &avail) == mem->ram_base + 0x1000 && avail == 16,
	   "a pointer");
	ok(mem_ram_ptr(mem, MEM_LOW_MAX - 8, 16, &avail) && avail == 8,
	   "bounded by the end of low RAM");
	ok(mem_ram_ptr(mem, 5 * GiB - 1, ~0ull, &avail) && avail == 1, "and of high RAM");
	ok(!mem_ram_ptr(mem, MEM_LOW_MAX, 1, &avail), "none in the hole");

	ok(mem_write(mem, MEM_HIGH_BASE, "abcd", 4) && mem_read(mem, MEM_HIGH_BASE, &v, 4) &&
		   v == 0x64636261,
	   "write and read above 4 GiB");
	ok(pread(mem->ram_fd, &v, 4, (off_t)mem->low_bytes) == 4 && v == 0x64636261,
	   "it follows low RAM in the memfd");
	v = 0x55;
	ok(!mem_read(mem, MEM_LOW_MAX - 2, &v, 4) && v == 0x55,
	   "a read that leaves RAM copies nothing");
	ok(!mem_write(mem, 5 * GiB - 2, "abcd", 4), "nor does a write");
	ok(mem_read(mem, 5 * GiB - 2, &v, 2) && !(v & 0xffff), "not even its first bytes");
	ok(!mem_read(mem, ~0ull - 1, &v, 4) && !mem_write(mem, 0, &v, ~0ull), "lengths that wrap");
	ok(mem_read(mem, MEM_LOW_MAX, &v, 0), "nothing can be read anywhere");

	ok(readable(mem->ram_base) && readable(mem->ram_base + MEM_LOW_MAX - 1), "RAM is there");
	ok(!readable(mem->ram_base - 1) && !readable(mem->ram_base - MEM_GUARD_BYTES) &&
		   !readable(mem->ram_base + MEM_LOW_MAX) &&
		   !readable(mem->ram_base + MEM_HIGH_BASE - 1) &&
		   !readable(mem->ram_base + 5 * GiB) &&
		   !readable(mem->ram_base + 5 * GiB + MEM_GUARD_BYTES - 1),
	   "the rest of the reservation is not");
	ok(ftruncate(mem->ram_fd, 0) < 0 && errno == EPERM, "the memfd cannot be cut");
	ok(ftruncate(mem->ram_fd, (off_t)(4 * GiB)) < 0, "nor grown");
	ok(fcntl(mem->ram_fd, F_ADD_SEALS, F_SEAL_WRITE) < 0, "nor sealed further");
	ok(fcntl(mem->ram_fd, F_GETFD) & FD_CLOEXEC, "nor inherited");
	ok(bus_read(mem->mmio, 0xfee00000, 4) == 0xffffffff &&
		   bus_read(mem->ports, 0x80, 1) == 0xff,
	   "two empty buses");
	memory_destroy(mem);
}

static uint64_t written_gpa, written_len;
static unsigned written_calls;

static void written(void *opaque, uint64_t gpa, uint64_t len)
{
	written_calls++;
	written_gpa = gpa;
	written_len = len;
}

static void test_copies(void)
{
	struct memory *mem = make(MiB);
	uint8_t pattern[64], back[64], *raw;
	unsigned wrong = 0;
	uint64_t avail;

	for (unsigned i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i + 1);
	raw = mem_ram_ptr(mem, 0x2000, 128, &avail);
	for (unsigned at = 0; at < 16; at++) {
		for (unsigned len = 0; len < 48; len++) {
			memset(raw, 0, 128);
			memset(back, 0, sizeof(back));
			wrong += !mem_write(mem, 0x2008 + at, pattern, len);
			wrong += memcmp(raw + 8 + at, pattern, len) != 0;
			wrong += raw[7 + at] || raw[8 + at + len];
			wrong += !mem_read(mem, 0x2008 + at, back + 1, len);
			wrong += memcmp(back + 1, pattern, len) != 0 || back[0] || back[1 + len];
		}
	}
	is_u64(wrong, 0, "every alignment and length");

	mem->on_written = written;
	ok(mem_write(mem, 0x1234, pattern, 7), "a write");
	ok(written_calls == 1 && written_gpa == 0x1234 && written_len == 7, "is announced");
	ok(!mem_write(mem, MiB - 1, pattern, 2) && mem_write(mem, 0, pattern, 0),
	   "a failed or empty one");
	is_u64(written_calls, 1, "is not");
	mem_written(mem, 5, 6);
	ok(written_calls == 2 && written_gpa == 5 && written_len == 6,
	   "raw writes can be announced");
	memory_destroy(mem);
}

struct race {
	struct memory *mem;
	unsigned torn;
};

static void *race_writer(void *opaque)
{
	struct race *r = opaque;

	for (unsigned i = 0; i < 50000; i++) {
		uint64_t v = (i & 1) ? 0x1111111111111111ull : 0x2222222222222222ull;

		if (!mem_write(r->mem, 0x3000, &v, 8) || !mem_write(r->mem, 0x300a, &v, 2))
			abort();
	}
	return NULL;
}

static void test_race(void)
{
	struct race r = { .mem = make(MiB) };
	pthread_t thread;

	pthread_create(&thread, NULL, race_writer, &r);
	for (unsigned i = 0; i < 50000; i++) {
		uint64_t v = 0;
		uint16_t half = 0;

		if (!mem_read(r.mem, 0x3000, &v, 8) || !mem_read(r.mem, 0x300a, &half, 2))
			abort();
		r.torn += v && v != 0x1111111111111111ull && v != 0x2222222222222222ull;
		r.torn += half && half != 0x1111 && half != 0x2222;
	}
	pthread_join(thread, NULL);
	is_u64(r.torn, 0, "aligned words are never torn");
	memory_destroy(r.mem);
}

static void on_discard(void *opaque, uint64_t gpa, uint64_t len)
{
	*(uint64_t *)opaque += len;
}

static void test_discard(unsigned flags)
{
	uint64_t told = 0, v = 0x5a;
	struct memory *mem;
	struct error *err = memory_create_backed(MEM_LOW_MAX + MiB, flags, &mem);

	if (err) {
		skip("%s", error_message(err));
		error_free(err);
		return;
	}
	is_u64((uintptr_t)mem->ram_base % (2 * MiB), 0, "RAM is where large pages may be");
	ok(!flags == (mem->ram_fd >= 0), "it is a memfd unless something else is wanted");
	mem->on_written = on_discard;
	mem->on_written_opaque = &told;
	if (!mem_write(mem, 0x1ff8, &v, 8) || !mem_write(mem, 0x2000, &v, 8) || !mem_write(mem, 0x4000, &v, 8))
		abort();
	told = 0;
	is_u64(mem_discard(mem, 0x1800, 0x2fff), 0x2000, "whole pages are given back");
	is_u64(told, 0x2000, "and announced");
	ok(mem_read(mem, 0x2000, &v, 8) && v == 0, "they read as zero");
	ok(mem_read(mem, 0x1ff8, &v, 8) && v == 0x5a && mem_read(mem, 0x4000, &v, 8) && v == 0x5a,
	   "what is beside them stays");
	is_u64(mem_discard(mem, 0x5001, 0x1ffe), 0, "parts of pages are none");
	is_u64(mem_discard(mem, 0x5000, 0), 0, "nothing is none");
	is_u64(mem_discard(mem, MEM_LOW_MAX - 0x1000, 0x10000), 0x1000, "RAM ends at its end");
	is_u64(mem_discard(mem, MEM_LOW_MAX, 0x1000), 0, "the hole is none");
	is_u64(mem_discard(mem, MEM_HIGH_BASE, 2 * MiB), MiB, "above 4 GiB it goes on");
	is_u64(mem_discard(mem, UINT64_MAX - 10, 11), 0, "the end of all addresses");
	is_u64(mem_discard(mem, 0x1000, UINT64_MAX), 0, "a length that wraps");
	memory_destroy(mem);
}

/* In a child, since limits cannot be raised again. */
static void test_limit(int resource, uint64_t bytes, const char *part, const char *what)
{
	struct rlimit limit = { bytes, bytes };
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct memory *mem;
		struct error *err;

		if (setrlimit(resource, &limit))
			_exit(2);
		err = memory_create(64 * MiB, &mem);
		_exit(err && strstr(error_message(err), part) ? 0 : 1);
	}
	ok(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s",
	   what);
}

int main(void)
{
	uint64_t available = host_memory_available();

	test_layout();
	test_copies();
	test_race();
	for (unsigned flags = 0; flags < 4; flags++)
		test_discard(flags);
	refused(0, "at least 1 MiB", "no memory");
	refused(MiB - 4096, "at least 1 MiB", "too little");
	refused(MiB + 1, "whole pages", "part of a page");
	ok(available > 16 * MiB, "the host has %" PRIu64 " MiB available",
	   (uint64_t)(available / MiB));
	refused(align_up(available * 3, MEM_PAGE_SIZE), "available", "more than the host can give");
	refused(1ull << 62, "available", "more than any host");
	test_limit(RLIMIT_FSIZE, MiB, "ulimit -f",
		   "a limit on file sizes is an error, not a signal");
#ifndef TAP_SANITIZED
	test_limit(RLIMIT_AS, 512 * MiB, "ulimit -v", "a limit on address space is an error");
#endif
	is_str(size_to_text(1536 * MiB).text, "1536 MiB", "sizes as text");
	is_str(size_to_text(0).text, "0 bytes", "nothing");
	is_str(size_to_text(4 * TiB).text, "4 TiB", "much");
	memory_destroy(NULL);
	return done_testing();
}
