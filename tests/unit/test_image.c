// SPDX-License-Identifier: Apache-2.0
/* The image tools: making, describing, locking, resolving chains; and images that lie. */
#include <sys/stat.h>

#include "tests/unit/disk.h"

#define QCOW2 BLOCK_FORMAT_QCOW2
#define RAW BLOCK_FORMAT_RAW

static void patch(const char *path, uint64_t at, uint64_t value, unsigned bytes)
{
	uint8_t b[8];
	int fd = open(path, O_WRONLY);

	for (unsigned i = 0; i < bytes; i++)
		b[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
	if (fd < 0 || pwrite(fd, b, bytes, (off_t)at) != (ssize_t)bytes)
		exit(1);
	close(fd);
}

static uint64_t peek(const char *path, uint64_t at)
{
	uint64_t v = 0;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || pread(fd, &v, 8, (off_t)at) != 8)
		exit(1);
	close(fd);
	return __builtin_bswap64(v);
}

static void test_create(void)
{
	struct image_options odd = { .cluster_bytes = 5000 }, wide = { .refcount_bits = 128 };
	struct image_options small = { .cluster_bytes = 512 };
	struct image_info info;
	struct stat st;

	ok(no_error(image_create("a.qcow2", QCOW2, 10 * GiB + 1, NULL, RAW, NULL)), "10 GiB of qcow2");
	ok(no_error(image_info("a.qcow2", QCOW2, &info)), "described");
	is_u64(info.size_bytes, 10 * GiB + 512, "rounded up to a sector");
	is_u64(info.version, 3, "version");
	is_u64(info.cluster_bytes, 65536, "clusters");
	is_u64(info.refcount_bits, 16, "refcounts");
	ok(info.host_bytes < MiB, "takes little on the host");
	is_str(info.backing, "", "no backing file");
	ok(error_says(image_create("a.qcow2", QCOW2, MiB, NULL, RAW, NULL), "exists already"),
	   "does not overwrite");
	ok(error_says(image_create("no/such/dir.raw", RAW, MiB, NULL, RAW, NULL), "cannot make"),
	   "no such folder");
	ok(error_says(image_create("b.qcow2", QCOW2, MiB, NULL, RAW, &odd), "power of two"),
	   "an odd cluster size");
	ok(error_says(image_create("b.qcow2", QCOW2, MiB, NULL, RAW, &wide), "refcount width"),
	   "counts too wide");
	ok(error_says(image_create("b.qcow2", QCOW2, 1024 * TiB, NULL, RAW, &small), "too large"),
	   "too large for its clusters");
	ok(error_says(image_create("b.qcow2", QCOW2, 0, "none.raw", RAW, NULL), "none.raw"),
	   "no such backing file");
	ok(error_says(image_create("b.raw", RAW, MiB, "a.qcow2", QCOW2, NULL), "no backing file"),
	   "raw with a backing file");
	ok(stat("b.qcow2", &st) < 0 && stat("b.raw", &st) < 0, "nothing is left behind");
	ok(no_error(image_create("c.qcow2", QCOW2, 0, "a.qcow2", QCOW2, NULL)), "on a backing file");
	ok(no_error(image_info("c.qcow2", QCOW2, &info)), "described");
	is_u64(info.size_bytes, 10 * GiB + 512, "as large as that");
	is_str(info.backing, "a.qcow2", "its name");
	is_str(info.backing_format, "qcow2", "its format");
	ok(error_says(image_info("none", RAW, &info), "none"), "no such image");
	ok(error_says(image_info(".", RAW, &info), "neither a regular file"), "a folder");
	for (unsigned bits = 1; bits <= 64; bits *= 2) {
		struct image_options o = { .refcount_bits = bits, .cluster_bytes = 512 };
		struct image_check c;

		unlink("d.qcow2");
		ok(no_error(image_create("d.qcow2", QCOW2, 2 * GiB, NULL, RAW, &o)) &&
			   no_error(image_check("d.qcow2", QCOW2, &c)) && c.errors == 0 && c.leaks == 0,
		   "a large table of small clusters with %u-bit counts is consistent", bits);
	}
}

static void test_locks(struct loop *loop)
{
	struct block_open how, other;
	struct block_device *dev;

	dev = disk_open(loop, "a.qcow2", QCOW2, false);
	ok(dev != NULL, "a disk is in use");
	ok(error_says(block_resolve_chain("a.qcow2", NULL, QCOW2, false, &how), "in use"), "not for two writers");
	ok(error_says(block_resolve_chain("a.qcow2", NULL, QCOW2, true, &how), "in use"), "nor a reader");
	ok(error_says(block_resolve_chain("c.qcow2", NULL, QCOW2, false, &how), "in use"),
	   "nor as a backing file");
	block_close(dev);
	ok(no_error(block_resolve_chain("a.qcow2", NULL, QCOW2, true, &how)), "free again");
	ok(no_error(block_resolve_chain("c.qcow2", NULL, QCOW2, false, &other)), "readers share");
	is_u64(other.count, 2, "two images in a chain");
	ok(error_says(block_resolve_chain("a.qcow2", NULL, QCOW2, false, &(struct block_open){ 0 }), "in use"),
	   "no writer beside readers");
	block_open_close(&other);
	block_open_close(&how);
}

/* Serves a.qcow2 until stop_qemu(); QEMU's NBD server locks as its VMs do. */
static bool start_qemu(const char *options)
{
	return run("qemu-nbd --fork --pid-file=nbd.pid -k $PWD/nbd.sock -f qcow2 %s a.qcow2", options) == 0;
}

static void stop_qemu(void)
{
	run("kill $(cat nbd.pid); while kill -0 $(cat nbd.pid) 2>&-; do sleep 0.05; done; rm -f nbd.pid nbd.sock");
}

static void test_locks_with_qemu(void)
{
	struct block_open how;

	if (!have_qemu_img()) {
		skip("qemu-img is not installed");
		return;
	}
	ok(no_error(block_resolve_chain("a.qcow2", NULL, QCOW2, false, &how)), "locked to write");
	ok(run("qemu-img info a.qcow2") != 0, "QEMU does not read it");
	ok(run("qemu-img resize a.qcow2 +0") != 0, "nor write");
	block_open_close(&how);
	ok(no_error(block_resolve_chain("a.qcow2", NULL, QCOW2, true, &how)), "locked to read");
	ok(run("qemu-img info a.qcow2") == 0, "QEMU reads it, too");
	ok(run("qemu-img resize a.qcow2 +0") != 0, "and does not write");
	block_open_close(&how);
	ok(start_qemu(""), "QEMU writes to it");
	ok(error_says(block_resolve_chain("a.qcow2", NULL, QCOW2, true, &how), "in use"), "we do not read it");
	ok(error_says(block_resolve_chain("a.qcow2", NULL, QCOW2, false, &how), "in use"), "nor write");
	stop_qemu();
	ok(start_qemu("-r"), "QEMU reads it");
	ok(no_error(block_resolve_chain("a.qcow2", NULL, QCOW2, true, &how)), "we read it, too");
	block_open_close(&how);
	ok(error_says(block_resolve_chain("a.qcow2", NULL, QCOW2, false, &how), "in use"), "and do not write");
	stop_qemu();
}

/* Makes the overlay @name over @backing, as its header says, and resolves it as @path. */
static struct error *over(const char *name, const char *backing, const char *path, const char *users)
{
	struct block_open how;
	struct error *err;

	unlink(name);
	err = image_create(name, QCOW2, MiB, backing, RAW, NULL);
	if (err)
		return err;
	err = block_resolve_chain(path, users, QCOW2, false, &how);
	if (err)
		return err;
	err = how.count == 2 && how.chain[1].format == RAW ? NULL : error_new("not a chain of two");
	block_open_close(&how);
	return err;
}

/* Which files an image may name. */
static void test_places(void)
{
	char here[4096], absolute[4200], path[4200];

	if (!getcwd(here, sizeof(here)) || mkdir("sub", 0700) ||
	    !no_error(image_create("sub/in.raw", RAW, MiB, NULL, RAW, NULL)) ||
	    symlink("../raw.raw", "sub/out.link") || symlink("in.raw", "sub/in.link") || symlink("..", "sub/up"))
		exit(1);
	ok(no_error(over("sub/s.qcow2", "in.raw", "sub/s.qcow2", NULL)), "names are relative to the image");
	ok(no_error(over("s.qcow2", "sub/in.raw", "s.qcow2", NULL)), "below its folder");
	ok(no_error(over("s.qcow2", "sub/../raw.raw", "./s.qcow2", NULL)), "by way of ..");
	ok(no_error(over("sub/s.qcow2", "in.link", "sub/s.qcow2", NULL)), "by a link that stays");
	ok(error_says(over("sub/s.qcow2", "../raw.raw", "sub/s.qcow2", NULL), ",backing=sub/../raw.raw"),
	   "not above it; the message says what to do");
	ok(no_error(over("sub/s.qcow2", "../raw.raw", "sub/s.qcow2", "sub/../raw.raw")), "unless the user says so");
	ok(error_says(over("sub/s.qcow2", "out.link", "sub/s.qcow2", NULL), "not in its folder"), "not by a link");
	ok(error_says(over("sub/s.qcow2", "up/raw.raw", "sub/s.qcow2", NULL), "not in its folder"),
	   "nor by a folder that is one");
	snprintf(absolute, sizeof(absolute), "%s/sub/in.raw", here);
	snprintf(path, sizeof(path), "%s/s.qcow2", here);
	ok(no_error(over("s.qcow2", absolute, path, NULL)), "an absolute name in its folder");
	ok(no_error(over("s.qcow2", absolute, "s.qcow2", NULL)), "whatever the user calls that");
	ok(error_says(over("sub/s.qcow2", "/etc/passwd", "sub/s.qcow2", NULL), "not in its folder"),
	   "not an absolute one elsewhere");
	snprintf(absolute, sizeof(absolute), "%s/sub/../raw.raw", here);
	ok(error_says(over("sub/s.qcow2", absolute, "sub/s.qcow2", NULL), "not in its folder"),
	   "nor one that leaves it");
	unlink("s.qcow2");
	ok(no_error(image_create("s.qcow2", QCOW2, MiB, NULL, RAW, NULL)) &&
		   error_says(block_resolve_chain("s.qcow2", "raw.raw", QCOW2, false, &(struct block_open){ 0 }),
			      "has no backing file"),
	   "a backing file given to a disk that has none");
}

static void test_chains(void)
{
	struct block_open how;
	char name[32], below[32];

	ok(error_says(block_resolve_chain("none.raw", NULL, RAW, false, &how), "no such disk"), "no such disk");
	ok(mkfifo("fifo", 0600) == 0 &&
		   error_says(block_resolve_chain("fifo", NULL, RAW, true, &how), "neither a regular file"),
	   "a FIFO");
	ok(error_says(block_resolve_chain("fifo", NULL, QCOW2, true, &how), "neither a regular file"), "again");
	ok(no_error(image_create("raw.raw", RAW, MiB, NULL, RAW, NULL)), "a raw image");
	ok(error_says(block_resolve_chain("raw.raw", NULL, QCOW2, true, &how), "not in qcow2 format"),
	   "raw said to be qcow2");

	ok(no_error(image_create("0.qcow2", QCOW2, MiB, NULL, RAW, NULL)), "the bottom of a chain");
	for (unsigned i = 1; i <= 16; i++) {
		snprintf(name, sizeof(name), "%u.qcow2", i);
		snprintf(below, sizeof(below), "%u.qcow2", i - 1);
		if (!no_error(image_create(name, QCOW2, 0, below, QCOW2, NULL)))
			exit(1);
	}
	ok(no_error(block_resolve_chain("15.qcow2", NULL, QCOW2, false, &how)) && how.count == 16,
	   "16 images in a chain");
	block_open_close(&how);
	ok(error_says(block_resolve_chain("16.qcow2", NULL, QCOW2, false, &how), "more than 15"), "17 are too many");
	ok(rename("3.qcow2", "0.qcow2") == 0 &&
		   error_says(block_resolve_chain("2.qcow2", NULL, QCOW2, false, &how), "own backing file"),
	   "a cycle");

	ok(no_error(image_create("n.qcow2", QCOW2, 0, "raw.raw", RAW, NULL)), "on raw");
	patch("n.qcow2", 104, 0x11111111, 4); /* another extension than the format's */
	ok(error_says(block_resolve_chain("n.qcow2", NULL, QCOW2, false, &how), "does not state its format"),
	   "a backing file without a format");
	patch("n.qcow2", 104, 0xe2792aca, 4);
	patch("n.qcow2", 112, 0x766469, 3);
	ok(error_says(block_resolve_chain("n.qcow2", NULL, QCOW2, false, &how), "format 'vdi'"),
	   "of a format that is unknown");
	test_places();
}

/* One field of a good image changed: refused, in words that say why. */
static void test_headers(struct loop *loop)
{
	static const struct {
		const char *what;
		uint64_t at, value;
		unsigned bytes;
		const char *says;
	} cases[] = {
		{ "magic", 0, 0x514649fa, 4, "not in qcow2 format" },
		{ "version 1", 4, 1, 4, "version 1" },
		{ "version 4", 4, 4, 4, "version 4" },
		{ "clusters of 256 bytes", 20, 8, 4, "cluster size" },
		{ "clusters of 4 MiB", 20, 22, 4, "cluster size" },
		{ "a huge disk", 24, UINT64_MAX, 8, "larger than can be" },
		{ "encryption", 32, 1, 4, "encrypted" },
		{ "an L1 table too small", 36, 0, 4, "too small" },
		{ "an L1 table too large", 36, 0x400001, 4, "32 MiB" },
		{ "an L1 table off a cluster", 40, 0x30200, 8, "misplaced" },
		{ "an L1 table outside", 40, 1ull << 40, 8, "cut off" },
		{ "a refcount table off a cluster", 48, 0x10001, 8, "misplaced" },
		{ "a refcount table outside", 48, 1ull << 40, 8, "cut off" },
		{ "a refcount table too large", 56, 129, 4, "8 MiB" },
		{ "no refcount table", 56, 0, 4, "no refcount table" },
		{ "too many snapshots", 60, 65537, 4, "65536 snapshots" },
		{ "a snapshot that is not there", 60, 1, 4, "snapshot 1" },
		{ "dirty and without counts", 72, 1, 8, NULL },
		{ "marked corrupt", 72, 2, 8, "marked as corrupt" },
		{ "an external data file", 72, 4, 8, "another file" },
		{ "a compression that is unknown", 72, 8, 8, "unknown method" },
		{ "subclusters", 72, 16, 8, "subclusters" },
		{ "an unknown feature", 72, 1ull << 40, 8, "feature 'unknown'" },
		{ "counts of 128 bits", 96, 7, 4, "64 bits" },
		{ "a short header", 100, 96, 4, "length" },
		{ "a header beyond its cluster", 100, 65544, 4, "length" },
		{ "a long extension", 108, 70000, 4, "extension" },
		{ "a backing file's name outside", 16, 65536, 4, NULL },
		{ "a refcount block on the header", 65536, 0, 8, NULL },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct block_device *dev;
		struct block_open how = { .count = 1, .name = "h.qcow2" };
		struct error *err;

		unlink("h.qcow2");
		if (!no_error(image_create("h.qcow2", QCOW2, 20 * GiB, NULL, RAW, NULL)))
			exit(1);
		if (cases[i].at == 108)
			patch("h.qcow2", 104, 0x12345678, 4);
		patch("h.qcow2", cases[i].at, cases[i].value, cases[i].bytes);
		how.chain[0].fd = open("h.qcow2", O_RDWR);
		how.chain[0].format = QCOW2;
		err = block_open(loop, &how, &dev);
		if (cases[i].says) {
			ok(error_says(err, cases[i].says), "%s: refused", cases[i].what);
			close(how.chain[0].fd);
		} else if (ok(no_error(err), "%s: opened", cases[i].what)) {
			block_close(dev);
		}
	}
	for (unsigned bytes = 0; bytes < 5; bytes++) {
		static const off_t length[] = { 0, 71, 100, 65536, 3 * 65536 };
		struct block_device *dev;
		struct block_open how = { .count = 1, .name = "h.qcow2" };

		unlink("h.qcow2");
		if (!no_error(image_create("h.qcow2", QCOW2, 20 * GiB, NULL, RAW, NULL)) ||
		    truncate("h.qcow2", length[bytes]) < 0)
			exit(1);
		how.chain[0].fd = open("h.qcow2", O_RDWR);
		how.chain[0].format = QCOW2;
		ok(error_says(block_open(loop, &how, &dev), "h.qcow2"), "cut off after %d bytes: refused",
		   (int)length[bytes]);
		close(how.chain[0].fd);
	}
}

/* Tables that point at the image's own tables: nothing may be written over. */
static void test_overlaps(struct loop *loop)
{
	static const struct {
		const char *what;
		uint64_t target;
	} cases[] = {
		{ "the refcount table", 65536 },
		{ "the refcount block", 2 * 65536 },
		{ "the L1 table", 3 * 65536 },
		{ "the L2 table", 4 * 65536 },
	};
	uint8_t buf[512];

	memset(buf, 0x77, sizeof(buf));
	for (unsigned i = 0; i < ARRAY_SIZE(cases) * 2; i++) {
		bool discard = i >= ARRAY_SIZE(cases);
		struct block_device *dev;
		struct image_info info;
		uint64_t before;

		unlink("o.qcow2");
		if (!no_error(image_create("o.qcow2", QCOW2, MiB, NULL, RAW, NULL)))
			exit(1);
		dev = disk_open(loop, "o.qcow2", QCOW2, false);
		disk_write(dev, 0, buf, 512);
		block_close(dev);
		is_u64(peek("o.qcow2", 3 * 65536), 1ull << 63 | 4 * 65536, "the L2 table is where it should be");
		const char *what = cases[i % ARRAY_SIZE(cases)].what;
		uint64_t target = cases[i % ARRAY_SIZE(cases)].target;

		patch("o.qcow2", 4 * 65536, 1ull << 63 | target, 8);
		/* The second entry: the first one is what a discard of it changes. */
		before = peek("o.qcow2", target + 8);
		dev = disk_open(loop, "o.qcow2", QCOW2, false);
		if (discard) {
			is_u64((uint64_t)disk_do(dev, BLOCK_DISCARD, 0, NULL, 65536, false), 0,
			       "%s: discarded", what);
			disk_flush(dev);
		} else {
			is_u64((uint64_t)disk_write(dev, 0, buf, 512), (uint64_t)-EIO,
			       "%s is not written over", what);
		}
		is_u64((uint64_t)disk_write(dev, 512 * 1024, buf, 512), (uint64_t)-EIO,
		       "%s: nothing is written any more", what);
		block_close(dev);
		is_u64(peek("o.qcow2", target + 8), before, "%s is as it was", what);
		if (target != 4 * 65536)
			ok(peek("o.qcow2", target) != 0, "%s is still there", what);
		ok(no_error(image_info("o.qcow2", QCOW2, &info)) && info.corrupt, "%s: marked as corrupt",
		   what);
	}
	/* Counts that call the image's own tables free. */
	unlink("o.qcow2");
	if (!no_error(image_create("o.qcow2", QCOW2, MiB, NULL, RAW, NULL)))
		exit(1);
	patch("o.qcow2", 2 * 65536, 0, 8);
	struct block_device *dev = disk_open(loop, "o.qcow2", QCOW2, false);

	is_u64((uint64_t)disk_write(dev, 0, buf, 512), (uint64_t)-EIO, "tables that count as free are not used");
	block_close(dev);
	is_u64(peek("o.qcow2", 0) >> 32, 0x514649fb, "the header is whole");
}

int main(void)
{
	struct loop *loop;

	disk_dir_make();
	if (!no_error(loop_create(&loop)))
		return 1;
	test_create();
	test_locks(loop);
	test_locks_with_qemu();
	test_chains();
	test_headers(loop);
	test_overlaps(loop);
	loop_destroy(loop);
	disk_dir_remove();
	return done_testing();
}
