// SPDX-License-Identifier: Apache-2.0
/*
 * The threads of a disk, on a host of one processor: none is left asleep while there is work, and what waits for the host holds up
 * nobody who does not. A flush lasts until all reads are done: fdatasync() is here. Who waits for ever is ended by alarm().
 */
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#include "tests/unit/disk.h"

#define SIZE (1 * MiB)
#define READS 200

static atomic_bool held; /* flushes wait for @go, having said so */
static sem_t syncing, go;

int fdatasync(int fd)
{
	if (atomic_load(&held)) {
		sem_post(&syncing);
		while (sem_wait(&go))
			;
	}
	return 0;
}

static struct loop *loop;
static unsigned order, flushes; /* requests that are done; flushes that are held */

struct numbered {
	struct block_request req;
	struct iovec iov;
	uint8_t buf[512];
	unsigned nth;
};

static void number(struct block_request *req)
{
	((struct numbered *)req->opaque)->nth = ++order;
	if (!flushes)
		return;
	if (order == READS) { /* all flushes are on their way, at the same time, and go on now */
		for (unsigned i = 0; i < flushes; i++)
			sem_wait(&syncing);
		for (unsigned i = 0; i < flushes; i++)
			sem_post(&go);
	}
	if (order == READS + flushes)
		loop_stop(loop);
}

static void submit(struct block_device *dev, struct numbered *n, enum block_op op)
{
	n->iov = (struct iovec){ n->buf, sizeof(n->buf) };
	n->req = (struct block_request){ .op = op, .iov = &n->iov, .iov_count = 1, .done = number, .opaque = n };
	if (op == BLOCK_READ)
		n->req.length_bytes = sizeof(n->buf);
	n->nth = 0;
	block_submit(dev, &n->req);
}

/* So many that it is known that reads do not wait. */
static void read_many(struct block_device *dev)
{
	uint8_t buf[512];

	for (unsigned i = 0; i < READS; i++)
		if (disk_read(dev, 0, buf, sizeof(buf)))
			abort();
}

static void test_flush(struct block_device *dev, unsigned count)
{
	static struct numbered flush[2], reads[READS];

	read_many(dev);
	order = 0;
	flushes = count;
	atomic_store(&held, true);
	for (unsigned i = 0; i < count; i++)
		submit(dev, &flush[i], BLOCK_FLUSH);
	for (unsigned i = 0; i < READS; i++)
		submit(dev, &reads[i], BLOCK_READ);
	alarm(60);
	loop_run(loop);
	alarm(0);
	for (unsigned i = 0; i < count; i++)
		ok(flush[i].nth > READS, "reads do not wait for flush %u of %u, nor it for another", i + 1, count);
	atomic_store(&held, false);
	flushes = 0;
}

/* Bursts of all sizes: a thread that is not woken would be waited for here without end. */
static void test_bursts(struct block_device *dev)
{
	static struct numbered n[64];
	unsigned wrong = 0;

	alarm(120);
	for (unsigned round = 0; round < 3000; round++) {
		unsigned count = 1 + round % ARRAY_SIZE(n);

		order = 0;
		for (unsigned i = 0; i < count; i++)
			submit(dev, &n[i], (i + round) % 7 ? BLOCK_READ : BLOCK_FLUSH);
		if (round % 5 == 0)
			sched_yield();
		block_drain(dev);
		wrong += order != count;
	}
	alarm(0);
	is_u64(wrong, 0, "all requests of all bursts come back, once");
}

int main(void)
{
	struct block_device *dev;
	cpu_set_t one;

	sem_init(&syncing, 0, 0);
	sem_init(&go, 0, 0);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	disk_dir_make();
	if (!no_error(loop_create(&loop)) || !no_error(image_create("a.raw", BLOCK_FORMAT_RAW, SIZE, NULL, 0, NULL)))
		return 1;
	dev = disk_open(loop, "a.raw", BLOCK_FORMAT_RAW, false);
	if (ok(dev != NULL, "opened")) {
		test_flush(dev, 1);
		test_flush(dev, 2);
		test_bursts(dev);
	}
	block_close(dev);
	loop_destroy(loop);
	disk_dir_remove();
	return done_testing();
}
