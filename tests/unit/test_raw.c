// SPDX-License-Identifier: Apache-2.0
/* Raw disks, and the block layer's front: completion, drain, bad requests. */
#include <sys/uio.h>

#include "tests/unit/disk.h"

#define SIZE (3 * MiB)

static void test_random(struct loop *loop)
{
	struct model m = { .size = SIZE, .rng.s = test_seed() };
	struct block_device *dev;

	m.bytes = calloc(1, SIZE);
	ok(no_error(image_create("a.raw", BLOCK_FORMAT_RAW, SIZE, NULL, 0, NULL)), "made");
	dev = disk_open(loop, "a.raw", BLOCK_FORMAT_RAW, false);
	if (!ok(dev != NULL, "opened"))
		return;
	is_u64(block_size_bytes(dev), SIZE, "size");
	is_str(block_name(dev), "a.raw", "name");
	ok(!block_is_readonly(dev), "may be written to");
	model_run(&m, dev, 200);
	is_u64(m.wrong, 0, "random requests");
	ok(model_equals_disk(&m, dev), "the disk equals the model");
	block_close(dev);
	ok(model_equals_file(&m, "a.raw"), "the file is the disk");
	free(m.bytes);
}

static void test_bad_requests(struct loop *loop)
{
	struct block_device *dev = disk_open(loop, "a.raw", BLOCK_FORMAT_RAW, false);
	static uint8_t buf[4096];
	struct iovec iov = { buf, 512 };
	bool done = false;
	struct block_request req = { .op = BLOCK_READ, .length_bytes = 1024, .iov = &iov, .iov_count = 1,
				     .done = disk_done, .opaque = &done };

	if (!dev)
		return;
	is_u64(disk_read(dev, 1, buf, 512), (uint64_t)-EINVAL, "unaligned offset");
	is_u64(disk_read(dev, 0, buf, 100), (uint64_t)-EINVAL, "unaligned length");
	is_u64(disk_read(dev, SIZE, buf, 512), (uint64_t)-EINVAL, "behind the end");
	is_u64(disk_write(dev, SIZE - 512, buf, 1024), (uint64_t)-EINVAL, "across the end");
	is_u64(disk_read(dev, UINT64_MAX - 511, buf, 1024), (uint64_t)-EINVAL, "wraps around");
	is_u64(disk_read(dev, SIZE, buf, 0), 0, "nothing, at the end");
	block_submit(dev, &req);
	ok(!done, "nothing completes inside submit");
	block_drain(dev);
	ok(done && req.result == -EINVAL, "vectors shorter than the length");
	block_close(dev);

	dev = disk_open(loop, "a.raw", BLOCK_FORMAT_RAW, true);
	ok(block_is_readonly(dev), "readonly");
	is_u64(disk_write(dev, 0, buf, 512), (uint64_t)-EROFS, "write to a readonly disk");
	is_u64(disk_do(dev, BLOCK_DISCARD, 0, NULL, 512, false), (uint64_t)-EROFS, "discard on it");
	is_u64(disk_flush(dev), 0, "flush of it");
	block_close(dev);
	block_close(NULL);
}

static void test_odd_size(struct loop *loop)
{
	static const char text[] = "seven!!";
	uint8_t buf[512], want[512] = "seven!!";
	struct block_device *dev;
	int fd = open("odd.raw", O_WRONLY | O_CREAT, 0600);

	ok(write(fd, text, 7) == 7, "a file of 7 bytes");
	close(fd);
	dev = disk_open(loop, "odd.raw", BLOCK_FORMAT_RAW, false);
	is_u64(block_size_bytes(dev), 512, "is a disk of a sector");
	ok(disk_read(dev, 0, buf, 512) == 0 && memcmp(buf, want, 512) == 0, "filled up with zeroes");
	block_close(dev);
}

static void test_counters(struct loop *loop)
{
	struct block_device *dev;
	struct block_counters n;
	char buf[4096] = { 0 };

	ok(run("truncate -s 64k counted.raw") == 0, "a disk of 64 KiB");
	dev = disk_open(loop, "counted.raw", BLOCK_FORMAT_RAW, false);
	if (!dev)
		return;
	disk_write(dev, 0, buf, 4096);
	disk_write(dev, 4096, buf, 512);
	disk_read(dev, 0, buf, 1024);
	disk_flush(dev);
	disk_read(dev, 65536, buf, 512);
	block_get_counters(dev, &n);
	is_u64(n.writes, 2, "two writes");
	is_u64(n.written_bytes, 4608, "of 4608 bytes");
	is_u64(n.reads, 1, "one read");
	is_u64(n.read_bytes, 1024, "of 1024");
	is_u64(n.errors, 1, "and one beyond the end");
	block_close(dev);
}

/* Through a running loop, as the VM uses it: a chain of requests, each submitted by the last one's done(). */
struct chain {
	struct loop *loop;
	struct block_device *dev;
	struct block_request req;
	struct iovec iov;
	uint8_t buf[4096];
	unsigned left, bad;
};

static void chain_next(struct block_request *req)
{
	struct chain *c = req->opaque;

	c->bad += req->result != 0 || !loop_is_locked(c->loop);
	if (--c->left == 0)
		loop_stop(c->loop);
	else
		block_submit(c->dev, req);
}

static void test_loop(struct loop *loop)
{
	struct chain c = { .loop = loop, .left = 500 };

	c.dev = disk_open(loop, "a.raw", BLOCK_FORMAT_RAW, false);
	c.iov = (struct iovec){ c.buf, sizeof(c.buf) };
	c.req = (struct block_request){ .op = BLOCK_READ, .length_bytes = sizeof(c.buf), .iov = &c.iov,
					.iov_count = 1, .done = chain_next, .opaque = &c };
	block_submit(c.dev, &c.req);
	loop_run(loop);
	is_u64(c.left, 0, "a chain of requests through the loop");
	is_u64(c.bad, 0, "all well, and completed in the monitor");
	block_close(c.dev);
}

/* A block device of 4 KiB sectors, which discards and writes zeroes to no less; the guest's sectors are of 512 bytes. */
static void test_large_sectors(struct loop *loop)
{
	struct block_device *dev;
	uint8_t buf[16384], zeroes[16384] = { 0 };
	char path[64] = "";
	FILE *f;

	if (run("truncate -s 1M sectors.raw && losetup -b 4096 -f --show sectors.raw >name") != 0) {
		ok(true, "block device # skip no loop device with sectors of 4 KiB");
		return;
	}
	f = fopen("name", "r");
	if (!f || fscanf(f, "%63s", path) != 1)
		abort();
	fclose(f);
	dev = disk_open(loop, path, BLOCK_FORMAT_RAW, false);
	if (ok(dev != NULL, "block device: opened")) {
		memset(buf, 7, sizeof(buf));
		is_u64(disk_write(dev, 0, buf, sizeof(buf)), 0, "block device: written");
		is_u64(disk_do(dev, BLOCK_WRITE_ZEROES, 512, NULL, 1024, true), 0, "block device: two sectors of zeroes");
		is_u64(disk_do(dev, BLOCK_WRITE_ZEROES, 3584, NULL, 4608, false), 0, "block device: and more than it has of a block");
		is_u64(disk_do(dev, BLOCK_DISCARD, 8704, NULL, 512, false), 0, "block device: the discard of a sector is advice");
		is_u64(disk_do(dev, BLOCK_WRITE_ZEROES, 12288, NULL, 4096, true), 0, "block device: zeroes for a whole block");
		memset(buf + 512, 0, 1024);
		memset(buf + 3584, 0, 4608);
		memset(buf + 12288, 0, 4096);
		is_u64(disk_read(dev, 0, zeroes, sizeof(zeroes)), 0, "block device: read");
		ok(!memcmp(buf, zeroes, 8704) && !memcmp(buf + 9216, zeroes + 9216, 16384 - 9216), "block device: all as it should be");
	}
	block_close(dev);
	run("losetup -d %s", path);
}

int main(void)
{
	struct loop *loop;

	disk_dir_make();
	if (!no_error(loop_create(&loop)))
		return 1;
	test_random(loop);
	test_bad_requests(loop);
	test_odd_size(loop);
	test_loop(loop);
	test_counters(loop);
	test_large_sectors(loop);
	loop_destroy(loop);
	disk_dir_remove();
	return done_testing();
}
