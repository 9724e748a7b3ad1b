/* SPDX-License-Identifier: Apache-2.0 */
/* The virtqueue library: ordinary rings, suppression of kicks and interrupts, and hostile rings. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/log.h"
#include "dev/virtio/virtqueue.h"
#include "tests/tap.h"

#define DESC 0x1000ull
#define AVAIL 0x2000ull
#define USED 0x3000ull
#define TABLE 0x4000ull
#define DATA 0x10000ull
#define RAM (1 * MiB)
#define SIZE 8u

#define NEXT 1u
#define WRITE 2u
#define INDIRECT 4u

static struct memory *mem;
static struct virtqueue vq;
static struct iovec iov[SIZE];
static struct virtqueue_chain chain = { .iov = iov, .iov_max = SIZE };
static uint16_t avail_idx;
static uint64_t written_bytes;

static void on_written(void *opaque, uint64_t gpa, uint64_t len)
{
	written_bytes += len;
}

static void store(uint64_t gpa, uint64_t v, unsigned size)
{
	store_le(mem->ram_base + gpa, v, size);
}

static uint64_t load(uint64_t gpa, unsigned size)
{
	return load_le(mem->ram_base + gpa, size);
}

static void desc(uint64_t table, unsigned i, uint64_t addr, uint32_t len, uint16_t flags,
		 uint16_t next)
{
	store(table + 16 * i, addr, 8);
	store(table + 16 * i + 8, len, 4);
	store(table + 16 * i + 12, flags, 2);
	store(table + 16 * i + 14, next, 2);
}

static void offer(uint16_t head)
{
	store(AVAIL + 4 + 2 * (avail_idx % SIZE), head, 2);
	store(AVAIL + 2, ++avail_idx, 2);
}

static void fresh(bool indirect, bool event_index)
{
	memset(mem->ram_base + DESC, 0, 0x10000);
	avail_idx = 0;
	virtqueue_reset(&vq);
	vq.size = SIZE;
	vq.desc_gpa = DESC;
	vq.avail_gpa = AVAIL;
	vq.used_gpa = USED;
	virtqueue_enable(&vq, indirect, event_index);
}

static void expect_broken(const char *what)
{
	offer(0);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_BROKEN, "%s breaks the queue", what);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_BROKEN, "and it stays broken");
}

static void test_ordinary(void)
{
	char buf[64] = "";

	fresh(true, false);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_EMPTY, "an empty queue");
	memcpy(mem->ram_base + DATA, "hello, world", 12);
	desc(DESC, 3, DATA, 5, NEXT, 5);
	desc(DESC, 5, DATA + 5, 7, NEXT, 1);
	desc(DESC, 1, DATA + 0x100, 4, NEXT | WRITE, 0);
	desc(DESC, 0, DATA + 0x200, 16, WRITE, 0);
	offer(3);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_CHAIN, "a chain of four");
	is_u64(chain.head, 3, "head");
	is_u64(chain.out_count, 2, "two to read");
	is_u64(chain.in_count, 2, "two to write");
	is_u64(chain.out_bytes, 12, "bytes to read");
	is_u64(chain.in_bytes, 20, "bytes to write");
	is_u64(virtqueue_read(&chain, 0, buf, sizeof(buf)), 12, "gathered");
	is_str(buf, "hello, world", "in order");
	is_u64(virtqueue_read(&chain, 4, buf, 3), 3, "from an offset");
	ok(!memcmp(buf, "o, ", 3), "over the cut");
	is_u64(virtqueue_read(&chain, 12, buf, 3), 0, "nothing behind the end");
	written_bytes = 0;
	is_u64(virtqueue_write(&vq, &chain, 2, "abcdef", 6), 6, "scattered");
	is_u64(written_bytes, 6, "and announced");
	ok(!memcmp(mem->ram_base + DATA + 0x102, "ab", 2) &&
		   !memcmp(mem->ram_base + DATA + 0x200, "cdef", 4),
	   "to the right places");
	is_u64(virtqueue_write(&vq, &chain, 18, "abcdef", 6), 2, "never behind the end");
	virtqueue_fill(&vq, 0, chain.head, 20);
	is_u64(load(USED + 2, 2), 0, "not shown before it is published");
	ok(virtqueue_publish(&vq, 1), "an interrupt is wanted");
	is_u64(load(USED + 2, 2), 1, "shown");
	is_u64(load(USED + 4, 4), 3, "head");
	is_u64(load(USED + 8, 4), 20, "length");
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_EMPTY, "empty again");

	/* Many rounds: the indices wrap around 16 bits. */
	desc(DESC, 0, DATA, 16, 0, 0);
	for (unsigned i = 0; i < 70000; i++) {
		offer(0);
		if (virtqueue_pop(&vq, &chain) != VIRTQUEUE_CHAIN)
			break;
		virtqueue_fill(&vq, 0, 0, 0);
		virtqueue_publish(&vq, 1);
	}
	is_u64(load(USED + 2, 2), (uint16_t)70001, "70000 rounds");

	fresh(true, false);
	desc(DESC, 0, DATA, 0, NEXT, 1);
	desc(DESC, 1, DATA, 4, WRITE, 0);
	offer(0);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_CHAIN, "an empty buffer");
	is_u64(chain.out_count, 0, "is left out");

	fresh(true, false);
	desc(DESC, 0, TABLE, 3 * 16, INDIRECT, 0);
	desc(TABLE, 0, DATA, 1, NEXT, 2);
	desc(TABLE, 2, DATA + 8, 2, NEXT, 1);
	desc(TABLE, 1, DATA + 16, 3, WRITE, 0);
	offer(0);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_CHAIN, "an indirect chain");
	is_u64(chain.out_bytes * 16 + chain.in_bytes, 3 * 16 + 3, "its bytes");
	virtqueue_unpop(&vq, 1);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_CHAIN, "put back, it comes again");
	is_u64(chain.out_bytes, 3, "the same");

	/* One direct descriptor before the indirect one is allowed. */
	fresh(true, false);
	desc(DESC, 0, DATA, 4, NEXT, 1);
	desc(DESC, 1, TABLE, 16, INDIRECT, 0);
	desc(TABLE, 0, DATA + 16, 3, WRITE, 0);
	offer(0);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_CHAIN, "direct, then indirect");
	is_u64(chain.out_bytes * 16 + chain.in_bytes, 4 * 16 + 3, "its bytes");
}

static void test_iov(void)
{
	struct iovec v[3] = { { (void *)0x100, 4 }, { (void *)0x200, 8 }, { (void *)0x300, 2 } };
	struct iovec *p = v;
	unsigned count = 3;

	virtqueue_iov_skip(&p, &count, 6);
	is_u64(count, 2, "skipping over a buffer");
	is_u64((uintptr_t)p->iov_base, 0x202, "and into the next");
	is_u64(p->iov_len, 6, "whose length shrinks");
	virtqueue_iov_trim(p, &count, 2);
	is_u64(count, 1, "trimming a whole buffer");
	virtqueue_iov_trim(p, &count, 5);
	is_u64(p->iov_len, 1, "and a part of one");
	virtqueue_iov_trim(p, &count, 1);
	is_u64(count, 0, "to nothing");
}

static void test_suppression(void)
{
	uint64_t used_event = AVAIL + 4 + 2 * SIZE, avail_event = USED + 4 + 8 * SIZE;

	fresh(false, false);
	desc(DESC, 0, DATA, 4, 0, 0);
	offer(0);
	virtqueue_pop(&vq, &chain);
	is_u64(load(USED, 2), 1, "no kicks are wanted while the device works");
	virtqueue_pop(&vq, &chain);
	is_u64(load(USED, 2), 0, "they are when the queue is empty");
	store(AVAIL, 1, 2);
	virtqueue_fill(&vq, 0, 0, 0);
	ok(!virtqueue_publish(&vq, 1), "the driver wants no interrupt");
	store(AVAIL, 0, 2);
	virtqueue_fill(&vq, 0, 0, 0);
	ok(virtqueue_publish(&vq, 1), "now it does");

	fresh(false, true);
	desc(DESC, 0, DATA, 4, 0, 0);
	offer(0);
	offer(0);
	offer(0);
	virtqueue_pop(&vq, &chain);
	virtqueue_pop(&vq, &chain);
	is_u64(load(avail_event, 2), 0, "avail_event stays behind while there is work");
	virtqueue_pop(&vq, &chain);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_EMPTY, "three chains");
	is_u64(load(avail_event, 2), 3, "avail_event follows when it is empty");
	store(used_event, 1, 2);
	virtqueue_fill(&vq, 0, 0, 0);
	ok(!virtqueue_publish(&vq, 1), "used_event 1: not at the first");
	virtqueue_fill(&vq, 0, 0, 0);
	ok(virtqueue_publish(&vq, 1), "but at the second");
	virtqueue_fill(&vq, 0, 0, 0);
	ok(!virtqueue_publish(&vq, 1), "and not again");
	store(used_event, 4, 2);
	offer(0), offer(0), offer(0);
	for (unsigned i = 0; i < 3; i++)
		virtqueue_pop(&vq, &chain), virtqueue_fill(&vq, i, 0, 0);
	ok(virtqueue_publish(&vq, 3), "a batch that passes used_event");
}

static void try_enable(uint64_t d, uint64_t a, uint64_t u, uint16_t size, const char *what)
{
	virtqueue_reset(&vq);
	vq.desc_gpa = d;
	vq.avail_gpa = a;
	vq.used_gpa = u;
	vq.size = size;
	ok(!virtqueue_enable(&vq, true, true) && vq.broken && !vq.enabled, "%s", what);
}

static void test_hostile_geometry(void)
{
	try_enable(DESC + 8, AVAIL, USED, SIZE, "descriptors not aligned");
	try_enable(DESC, AVAIL + 1, USED, SIZE, "available ring not aligned");
	try_enable(DESC, AVAIL, USED + 2, SIZE, "used ring not aligned");
	try_enable(RAM, AVAIL, USED, SIZE, "descriptors outside of RAM");
	try_enable(RAM - 16, AVAIL, USED, SIZE, "descriptors that run out of RAM");
	try_enable(DESC, RAM - 16, USED, SIZE, "available ring that runs out of RAM");
	try_enable(DESC, AVAIL, RAM - 64, SIZE, "used ring that runs out of RAM");
	try_enable(DESC, AVAIL, RAM - 4 - 8 * SIZE, SIZE, "used ring whose event index is outside");
	try_enable(DESC, 0xfffffffffffffff0, USED, SIZE, "available ring that wraps");
	try_enable(DESC, AVAIL, 0xfee00000, SIZE, "used ring in the local APIC");
	try_enable(DESC, AVAIL, USED, 7, "a size that is no power of two");
	try_enable(DESC, AVAIL, USED, 0, "size 0");
	try_enable(DESC, AVAIL, USED, 32, "a size beyond the device's");
}

static void test_hostile_chains(void)
{
	fresh(true, false);
	desc(DESC, 0, DATA, 4, NEXT, 0);
	chain.iov_max = SIZE;
	expect_broken("a descriptor that names itself");

	fresh(true, false);
	for (unsigned i = 0; i < SIZE; i++)
		desc(DESC, i, DATA, 0, NEXT, (uint16_t)((i + 1) % SIZE));
	expect_broken("a loop of empty buffers");

	fresh(true, false);
	desc(DESC, 0, DATA, 4, NEXT, SIZE);
	expect_broken("a next outside of the table");

	fresh(true, false);
	store(AVAIL + 4, SIZE, 2);
	store(AVAIL + 2, 1, 2);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_BROKEN, "a head outside of the table");

	fresh(true, false);
	store(AVAIL + 2, SIZE + 1, 2);
	is_u64(virtqueue_pop(&vq, &chain), VIRTQUEUE_BROKEN, "an available index too far ahead");

	fresh(true, false);
	desc(DESC, 0, RAM, 4, 0, 0);
	expect_broken("a buffer outside of RAM");
	fresh(true, false);
	desc(DESC, 0, RAM - 4, 8, 0, 0);
	expect_broken("a buffer that runs out of RAM");
	fresh(true, false);
	desc(DESC, 0, 0xfee00000, 4, WRITE, 0);
	expect_broken("a buffer in MMIO");
	fresh(true, false);
	desc(DESC, 0, ~0ull - 3, 8, 0, 0);
	expect_broken("a buffer that wraps");
	fresh(true, false);
	desc(DESC, 0, DATA, 4, NEXT | WRITE, 1);
	desc(DESC, 1, DATA, 4, 0, 0);
	expect_broken("a buffer to read behind one to write");

	fresh(true, false);
	desc(DESC, 0, DATA, 0xffffffff, 0, 0);
	expect_broken("a buffer of 4 GiB");

	fresh(true, false);
	desc(DESC, 0, DATA, 4, NEXT, 1);
	desc(DESC, 1, DATA, 4, NEXT, 2);
	desc(DESC, 2, DATA, 4, 0, 0);
	chain.iov_max = 2;
	expect_broken("more buffers than the device takes");
	chain.iov_max = SIZE;
}

static void test_hostile_indirect(void)
{
	fresh(false, false);
	desc(DESC, 0, TABLE, 16, INDIRECT, 0);
	expect_broken("an indirect table that was not negotiated");

	fresh(true, false);
	desc(DESC, 0, TABLE, 16, INDIRECT, 0);
	desc(TABLE, 0, TABLE, 16, INDIRECT, 0);
	expect_broken("a nested indirect table");

	fresh(true, false);
	desc(DESC, 0, TABLE, 16, INDIRECT | NEXT, 1);
	expect_broken("indirect with next");

	fresh(true, false);
	desc(DESC, 0, TABLE, 0, INDIRECT, 0);
	expect_broken("an empty indirect table");
	fresh(true, false);
	desc(DESC, 0, TABLE, 17, INDIRECT, 0);
	expect_broken("an indirect table of 17 bytes");
	fresh(true, false);
	desc(DESC, 0, TABLE, 16 * (SIZE + 1), INDIRECT, 0);
	expect_broken("an indirect table longer than the queue");
	fresh(true, false);
	desc(DESC, 0, RAM - 16, 32, INDIRECT, 0);
	expect_broken("an indirect table that runs out of RAM");
	fresh(true, false);
	desc(DESC, 0, TABLE, 32, INDIRECT, 0);
	desc(TABLE, 0, DATA, 4, NEXT, 1);
	desc(TABLE, 1, DATA, 4, NEXT, 0);
	expect_broken("a loop in an indirect table");
	fresh(true, false);
	desc(DESC, 0, TABLE, 32, INDIRECT, 0);
	desc(TABLE, 0, DATA, 4, NEXT, 2);
	expect_broken("an indirect next outside of its table");
}

static atomic_bool scribbling, stop_scribbling;

/* A second vCPU that changes the rings while the device works on them. */
static void *scribble(void *opaque)
{
	static const uint8_t field[5] = { 1, 2, 8, 12, 14 };
	uint64_t x = 88172645463325252;
	volatile uint8_t *ram = mem->ram_base;

	while (!stop_scribbling) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		/* What may come out right: some bytes of each field, heads, the index. */
		ram[DESC + (x >> 8) % SIZE * 16 + field[x % 5]] = (uint8_t)(x >> 32) & 15;
		ram[TABLE + (x >> 16) % SIZE * 16 + field[x % 5]] = (uint8_t)(x >> 40) & 7;
		ram[AVAIL + 2 + (x >> 24) % SIZE * 2] = (uint8_t)(x >> 48) & 15;
		scribbling = true;
	}
	return NULL;
}

static void test_race(void)
{
	pthread_t other;
	unsigned chains = 0, rounds = 0, bad = 0;

	if (pthread_create(&other, NULL, scribble, NULL))
		abort();
	while (!scribbling)
		sched_yield();
	for (rounds = 0; rounds < 200000; rounds++) {
		if (rounds % SIZE == 0) {
			/* On a busy host the two take turns: begin with something that works. */
			for (unsigned i = 0; i < SIZE; i++) {
				desc(DESC, i, i % 4 ? DATA : TABLE, 64,
				     i % 4 ? i % 2 * WRITE : INDIRECT, 0);
				desc(TABLE, i, DATA, 32, 0, 0);
				store(AVAIL + 4 + 2 * i, i, 2);
			}
			store(AVAIL + 2, SIZE, 2);
			virtqueue_reset(&vq);
			vq.size = SIZE;
			vq.desc_gpa = DESC;
			vq.avail_gpa = AVAIL;
			vq.used_gpa = USED;
			virtqueue_enable(&vq, true, rounds & SIZE);
			if (rounds % 1024 == 0)
				sched_yield();
		}
		if (virtqueue_pop(&vq, &chain) != VIRTQUEUE_CHAIN)
			continue;
		chains++;
		for (unsigned i = 0; i < chain.out_count + chain.in_count; i++) {
			uint64_t gpa = (uint64_t)((uint8_t *)iov[i].iov_base - mem->ram_base);

			bad += gpa >= RAM || iov[i].iov_len > RAM - gpa || !iov[i].iov_len;
		}
		bad += chain.head >= SIZE || chain.out_count + chain.in_count > SIZE;
		virtqueue_fill(&vq, 0, chain.head, chain.in_bytes);
		virtqueue_publish(&vq, 1);
	}
	stop_scribbling = true;
	pthread_join(other, NULL);
	diag("%u chains in %u rounds", chains, rounds);
	ok(chains > 0, "a second vCPU changes the rings under way: some chains come through");
	is_u64(bad, 0, "and all of them are what was checked");
}

int main(void)
{
	if (memory_create(RAM, &mem))
		return 1;
	mem->on_written = on_written;
	vq.mem = mem;
	vq.size_max = 16;
	test_ordinary();
	test_iov();
	test_suppression();
	test_hostile_geometry();
	test_hostile_chains();
	test_hostile_indirect();
	log_init("test", LOG_LEVEL_ERROR);
	test_race();
	memory_destroy(mem);
	return done_testing();
}
