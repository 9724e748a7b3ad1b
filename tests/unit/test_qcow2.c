// SPDX-License-Identifier: Apache-2.0
/*
 * qcow2 images: random requests against a model in memory, in many geometries, with backing files,
 * snapshots and compressed clusters made by qemu-img, which also checks what we wrote.
 */
#include <assert.h>

#include "tests/unit/disk.h"

static bool qemu; /* qemu-img is there */

struct shape {
	const char *what;
	struct image_options options;
	uint64_t size;
	enum { NO_BACKING, RAW_BACKING, QCOW2_BACKING } backing;
	unsigned rounds;
};

static const struct shape shapes[] = {
	{ "64 KiB clusters", { 0 }, 6 * MiB, NO_BACKING, 200 },
	{ "512 byte clusters", { .cluster_bytes = 512 }, 1 * MiB, NO_BACKING, 150 },
	{ "512 byte clusters, 64-bit counts", { .cluster_bytes = 512, .refcount_bits = 64 }, 3 * MiB,
	  NO_BACKING, 100 },
	{ "4 KiB clusters, 1-bit counts", { .cluster_bytes = 4096, .refcount_bits = 1 }, 4 * MiB,
	  NO_BACKING, 200 },
	{ "4 KiB clusters, 4-bit counts, on raw", { .cluster_bytes = 4096, .refcount_bits = 4 },
	  4 * MiB, RAW_BACKING, 200 },
	{ "2 MiB clusters", { .cluster_bytes = 2 * MiB }, 12 * MiB, NO_BACKING, 40 },
	{ "version 2", { .version = 2, .cluster_bytes = 4096 }, 4 * MiB, NO_BACKING, 200 },
	{ "version 2 on qcow2", { .version = 2, .cluster_bytes = 4096 }, 4 * MiB, QCOW2_BACKING, 200 },
	{ "64 KiB clusters on qcow2", { 0 }, 4 * MiB, QCOW2_BACKING, 100 },
	{ "512 byte clusters on raw", { .cluster_bytes = 512 }, 1 * MiB, RAW_BACKING, 100 },
	{ "an odd size", { .cluster_bytes = 4096 }, 2 * MiB + 1536, NO_BACKING, 100 },
};

/* A consistent image, to us and to qemu-img. */
static void check_image(const char *path, uint64_t max_leaks, const char *what)
{
	struct image_check c;

	ok(no_error(image_check(path, BLOCK_FORMAT_QCOW2, &c)), "%s: checked", what);
	if (!ok(c.errors == 0, "%s: no errors", what))
		diag("%llu: %s", (unsigned long long)c.errors, c.first_error);
	ok(c.leaks <= max_leaks, "%s: %llu leaks", what, (unsigned long long)c.leaks);
	if (!qemu)
		skip("qemu-img is not installed");
	else if (!ok(run("qemu-img check -f qcow2 %s", path) == 0, "%s: qemu-img agrees", what))
		(void)!system("head -5 run.log | sed 's/^/# /'");
}

static void compare_with_qemu(struct model *m, const char *path, const char *what)
{
	if (!qemu)
		skip("qemu-img is not installed");
	else
		ok(run("qemu-img convert -f qcow2 -O raw %s out.raw", path) == 0 &&
			   model_equals_file(m, "out.raw"),
		   "%s: qemu-img reads the same", what);
}

static void make_backing(struct loop *loop, const struct shape *s, struct model *m, const char **path,
			 enum block_format *format)
{
	struct image_options o = { .cluster_bytes = 8192 };
	/* Shorter than the disk above it: the rest reads as zeroes. */
	uint64_t size = s->size / 2 + 512;
	struct model below = { .bytes = m->bytes, .size = size, .rng = m->rng };
	struct block_device *dev;

	*format = s->backing == RAW_BACKING ? BLOCK_FORMAT_RAW : BLOCK_FORMAT_QCOW2;
	*path = s->backing == RAW_BACKING ? "base.raw" : "base.qcow2";
	unlink(*path);
	ok(no_error(image_create(*path, *format, size, NULL, 0, &o)), "%s: backing file", s->what);
	dev = disk_open(loop, *path, *format, false);
	model_run(&below, dev, 50);
	is_u64(below.wrong, 0, "%s: backing file filled", s->what);
	block_close(dev);
}

static void test_shape(struct loop *loop, const struct shape *s, uint64_t seed)
{
	struct model m = { .size = s->size, .rng.s = seed };
	const char *backing = NULL;
	enum block_format format = BLOCK_FORMAT_RAW;
	struct block_device *dev;

	m.bytes = calloc(1, s->size);
	unlink("a.qcow2");
	if (s->backing != NO_BACKING)
		make_backing(loop, s, &m, &backing, &format);
	ok(no_error(image_create("a.qcow2", BLOCK_FORMAT_QCOW2, s->size, backing, format, &s->options)),
	   "%s: made", s->what);
	check_image("a.qcow2", 0, s->what);
	for (unsigned i = 0; i < 3; i++) {
		dev = disk_open(loop, "a.qcow2", BLOCK_FORMAT_QCOW2, false);
		if (!ok(dev != NULL, "%s: opened", s->what))
			break;
		is_u64(block_size_bytes(dev), s->size, "%s: size", s->what);
		model_run(&m, dev, TAP_ROUNDS(s->rounds / 3));
		is_u64(m.wrong, 0, "%s: random requests", s->what);
		ok(model_equals_disk(&m, dev), "%s: the disk equals the model", s->what);
		block_close(dev);
	}
	check_image("a.qcow2", 0, s->what);
	compare_with_qemu(&m, "a.qcow2", s->what);
	free(m.bytes);
}

static void test_snapshots(struct loop *loop, uint64_t seed)
{
	struct model m = { .size = 2 * MiB, .rng.s = seed };
	uint8_t *kept = malloc(m.size);
	struct block_device *dev;

	if (!qemu) {
		skip("qemu-img is not installed");
		free(kept);
		return;
	}
	m.bytes = calloc(1, m.size);
	ok(run("qemu-img create -f qcow2 -o cluster_size=4k s.qcow2 2M") == 0, "snapshots: made by qemu-img");
	dev = disk_open(loop, "s.qcow2", BLOCK_FORMAT_QCOW2, false);
	model_run(&m, dev, 60);
	block_close(dev);
	ok(run("qemu-img snapshot -c one s.qcow2") == 0, "snapshots: one taken");
	memcpy(kept, m.bytes, m.size);
	dev = disk_open(loop, "s.qcow2", BLOCK_FORMAT_QCOW2, false);
	model_run(&m, dev, 60);
	is_u64(m.wrong, 0, "snapshots: random requests on top of one");
	ok(model_equals_disk(&m, dev), "snapshots: the disk equals the model");
	block_close(dev);
	check_image("s.qcow2", 0, "snapshots");
	compare_with_qemu(&m, "s.qcow2", "snapshots");
	ok(run("qemu-img snapshot -a one s.qcow2") == 0, "snapshots: gone back");
	memcpy(m.bytes, kept, m.size);
	compare_with_qemu(&m, "s.qcow2", "snapshots: what it kept");
	free(m.bytes);
	free(kept);
}

static void test_compressed(struct loop *loop, const char *how, uint64_t seed)
{
	struct model m = { .size = 3 * MiB, .rng.s = seed };
	struct block_device *dev;

	if (!qemu) {
		skip("qemu-img is not installed");
		return;
	}
	m.bytes = calloc(1, m.size);
	unlink("c.raw");
	unlink("c.qcow2");
	ok(no_error(image_create("c.raw", BLOCK_FORMAT_RAW, m.size, NULL, 0, NULL)), "%s: source", how);
	dev = disk_open(loop, "c.raw", BLOCK_FORMAT_RAW, false);
	model_run(&m, dev, 30);
	block_close(dev);
	ok(run("qemu-img convert -c -f raw -O qcow2 -o %s c.raw c.qcow2", how) == 0, "%s: converted", how);
	dev = disk_open(loop, "c.qcow2", BLOCK_FORMAT_QCOW2, false);
	ok(dev && model_equals_disk(&m, dev), "%s: reads as it should", how);
	model_run(&m, dev, 60);
	is_u64(m.wrong, 0, "%s: random requests", how);
	block_close(dev);
	check_image("c.qcow2", 0, how);
	compare_with_qemu(&m, "c.qcow2", how);
	free(m.bytes);
}

/* Without refcounts and with the dirty bit, as lazy refcounts leave an image behind after a crash. */
static void test_dirty(struct loop *loop, uint64_t seed)
{
	struct model m = { .size = 2 * MiB, .rng.s = seed };
	struct image_options o = { .cluster_bytes = 4096 };
	uint64_t flags = 1ull << 56; /* bit 0, big-endian */
	struct block_device *dev;
	struct image_info info;
	uint8_t zeroes[2048] = { 0 };
	int fd;

	m.bytes = calloc(1, m.size);
	unlink("a.qcow2");
	ok(no_error(image_create("a.qcow2", BLOCK_FORMAT_QCOW2, m.size, NULL, 0, &o)), "dirty: made");
	dev = disk_open(loop, "a.qcow2", BLOCK_FORMAT_QCOW2, false);
	model_run(&m, dev, 40);
	block_close(dev);
	fd = open("a.qcow2", O_RDWR);
	ok(pwrite(fd, &flags, 8, 72) == 8 && pwrite(fd, zeroes, 2048, 2 * 4096 + 16) == 2048,
	   "dirty: counts wiped, dirty bit set");
	close(fd);
	ok(no_error(image_info("a.qcow2", BLOCK_FORMAT_QCOW2, &info)) && info.dirty, "dirty: info says so");
	dev = disk_open(loop, "a.qcow2", BLOCK_FORMAT_QCOW2, false);
	if (ok(dev != NULL, "dirty: opened")) {
		model_run(&m, dev, 40);
		is_u64(m.wrong, 0, "dirty: random requests");
		ok(model_equals_disk(&m, dev), "dirty: the disk equals the model");
	}
	block_close(dev);
	check_image("a.qcow2", 0, "dirty, repaired");
	ok(no_error(image_info("a.qcow2", BLOCK_FORMAT_QCOW2, &info)) && !info.dirty, "dirty: not any more");
	free(m.bytes);
}

/* As above, with snapshots that all share an L1 table, all of whose entries are the same L2 table. */
static void test_dirty_for_ever(struct loop *loop)
{
	enum { CLUSTER = 65536, SNAPSHOTS = 1000, L1_ENTRIES = 4096, TABLE = 20 * CLUSTER, L1 = 21 * CLUSTER, L2 = 22 * CLUSTER };
	static uint64_t l1[L1_ENTRIES];
	uint64_t flags = 1ull << 56, table_at = htobe64(TABLE);
	uint32_t count = htobe32(SNAPSHOTS);
	struct {
		uint64_t l1_offset;
		uint32_t l1_entries;
		uint8_t rest[28];
	} snapshot = { htobe64(L1), htobe32(L1_ENTRIES), { 0 } };
	struct block_open how = { .count = 1, .name = "a.qcow2" };
	struct block_device *dev = NULL;
	struct image_check check;
	int fd;

	unlink("a.qcow2");
	ok(no_error(image_create("a.qcow2", BLOCK_FORMAT_QCOW2, MiB, NULL, 0, NULL)), "for ever: made");
	for (unsigned i = 0; i < L1_ENTRIES; i++)
		l1[i] = htobe64(L2);
	fd = open("a.qcow2", O_RDWR);
	if (fd < 0 || ftruncate(fd, L2 + CLUSTER) || pwrite(fd, &flags, 8, 72) != 8 || pwrite(fd, &count, 4, 60) != 4 ||
	    pwrite(fd, &table_at, 8, 64) != 8 || pwrite(fd, l1, sizeof(l1), L1) != sizeof(l1))
		abort();
	static_assert(sizeof(snapshot) == 40, "as in the file");
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (pwrite(fd, &snapshot, 40, TABLE + 40 * i) != 40)
			abort();
	ok(error_says(image_check("a.qcow2", BLOCK_FORMAT_QCOW2, &check), "too many tables"), "for ever: not checked");
	how.chain[0].fd = fd;
	how.chain[0].format = BLOCK_FORMAT_QCOW2;
	ok(error_says(block_open(loop, &how, &dev), "too many tables"), "for ever: not repaired");
	close(fd);
}

/* More tables than the caches hold: a sector in each of 700 L2 tables, in a random order, three times. */
static void test_many_tables(struct loop *loop, uint64_t seed)
{
	enum { TABLES = 700 };
	static uint32_t last[TABLES]; /* what was written there last; 0: nothing */
	uint64_t covers = 512 * MiB;
	struct rng r = { seed };
	struct block_device *dev;
	uint8_t buf[512], want[512];
	unsigned bad = 0;

	unlink("a.qcow2");
	ok(no_error(image_create("a.qcow2", BLOCK_FORMAT_QCOW2, TABLES * covers, NULL, 0, NULL)),
	   "many tables: made");
	for (unsigned pass = 0; pass < 3; pass++) {
		dev = disk_open(loop, "a.qcow2", BLOCK_FORMAT_QCOW2, false);
		for (unsigned i = 0; i < 1000; i++) {
			unsigned t = (unsigned)rng_below(&r, TABLES);

			memset(want, 0, 512);
			memcpy(want, &last[t], 4);
			bad += disk_read(dev, t * covers + t * 512ull, buf, 512) != 0 ||
			       memcmp(buf, want, 512) != 0;
			last[t] = pass * 1000 + i + 1;
			memcpy(want, &last[t], 4);
			bad += disk_write(dev, t * covers + t * 512ull, want, 512) != 0;
		}
		block_close(dev);
	}
	is_u64(bad, 0, "many tables: what was written is read");
	check_image("a.qcow2", 0, "many tables");
}

/* More refcount blocks than the cache holds, and a refcount table that has to grow again and again. */
static void test_many_counts(struct loop *loop)
{
	struct image_options o = { .cluster_bytes = 512, .refcount_bits = 64 };
	uint64_t size = 150 * MiB;
	uint8_t *buf = malloc(MiB), *got = malloc(MiB);
	struct block_device *dev;
	unsigned bad = 0;

	unlink("a.qcow2");
	ok(no_error(image_create("a.qcow2", BLOCK_FORMAT_QCOW2, size, NULL, 0, &o)), "many counts: made");
	dev = disk_open(loop, "a.qcow2", BLOCK_FORMAT_QCOW2, false);
	for (uint64_t at = 0; at < size; at += MiB) {
		memset(buf, (int)(at / MiB) + 1, MiB);
		bad += disk_write(dev, at, buf, MiB) != 0;
	}
	bad += disk_do(dev, BLOCK_DISCARD, MiB, NULL, 2 * MiB, false) != 0 || disk_flush(dev) != 0;
	memset(buf, 0x99, MiB);
	bad += disk_write(dev, 2 * MiB, buf, MiB) != 0;
	block_close(dev);
	dev = disk_open(loop, "a.qcow2", BLOCK_FORMAT_QCOW2, true);
	for (uint64_t at = 0; at < size; at += MiB) {
		memset(buf, at == MiB ? 0 : at == 2 * MiB ? 0x99 : (int)(at / MiB) + 1, MiB);
		bad += disk_read(dev, at, got, MiB) != 0 || memcmp(buf, got, MiB) != 0;
	}
	block_close(dev);
	is_u64(bad, 0, "many counts: what was written is read");
	check_image("a.qcow2", 0, "many counts");
	free(buf);
	free(got);
}

int main(void)
{
	uint64_t seed = test_seed();
	struct loop *loop;

	disk_dir_make();
	qemu = have_qemu_img();
	if (!no_error(loop_create(&loop)))
		return 1;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++)
		test_shape(loop, &shapes[i], seed + i * 2);
	test_snapshots(loop, seed + 100);
	test_compressed(loop, "compression_type=zlib", seed + 200);
	test_compressed(loop, "compression_type=zstd,cluster_size=32k", seed + 300);
	test_compressed(loop, "compat=0.10,cluster_size=2M", seed + 400);
	test_dirty_for_ever(loop);
	test_dirty(loop, seed + 500);
	test_many_tables(loop, seed + 600);
	test_many_counts(loop);
	loop_destroy(loop);
	disk_dir_remove();
	return done_testing();
}
