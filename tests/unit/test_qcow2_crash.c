// SPDX-License-Identifier: Apache-2.0
/*
 * What a qcow2 image promises when it is interrupted: after kill -9 at any moment, after a power cut that
 * loses any part of what was not yet stable, and on a full host disk, the image has no errors (leaks are
 * allowed), and each sector holds what the last acknowledged flush covered or something newer.
 *
 * The power cut is simulated. This program's pwritev, fallocate and fdatasync stand before libc's and keep
 * a journal. A crash image is the first image plus, from a prefix of the journal, everything that a
 * finished fdatasync covered and a random part, sector by sector, of the rest.
 *
 * The workload is a function of the seed alone, so that the parent of a killed process knows it too:
 * step i writes or zeroes a range in each quarter of the disk, and some steps are followed by a flush.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "block/io.h"
#include "tests/unit/disk.h"

#define DISK_BYTES (768u * 1024)
#define SECTORS (DISK_BYTES / 512)
#define STEPS_MAX 4000
#define PARTS 4

/* --- The workload --- */

struct op {
	uint64_t sector, count;
	bool zero;
};

struct step {
	struct op op[PARTS];
	bool flush;
};

static struct step step_at(uint64_t seed, unsigned i)
{
	struct rng r = { seed ^ (i + 1) * 0x9e3779b97f4a7c15ull };
	struct step s;

	rng_next(&r);
	for (unsigned k = 0; k < PARTS; k++) {
		s.op[k].count = 1 + rng_below(&r, rng_below(&r, 4) ? 8 : 100);
		s.op[k].sector = k * (SECTORS / PARTS) + rng_below(&r, SECTORS / PARTS - s.op[k].count + 1);
		s.op[k].zero = rng_below(&r, 4) == 0;
	}
	s.flush = rng_below(&r, 5) == 0;
	return s;
}

/* A sector's content after step @i; a whole sector of the same two words, so that tearing shows. */
static void fill_sector(uint8_t *p, uint64_t sector, uint32_t i)
{
	uint32_t words[2] = { (uint32_t)sector ^ 0xabcd0000u, i + 1 };

	for (unsigned k = 0; k < 64; k++)
		memcpy(p + k * 8, words, 8);
}

static int step_run(struct block_device *dev, uint64_t seed, unsigned i)
{
	struct step s = step_at(seed, i);
	struct block_request req[PARTS];
	struct iovec iov[PARTS];
	bool done[PARTS] = { 0 };
	int r = 0;

	for (unsigned k = 0; k < PARTS; k++) {
		struct op *o = &s.op[k];

		iov[k] = (struct iovec){ malloc(o->count * 512), o->count * 512 };
		for (uint64_t n = 0; n < o->count; n++)
			fill_sector((uint8_t *)iov[k].iov_base + n * 512, o->sector + n, i);
		req[k] = (struct block_request){ .op = o->zero ? BLOCK_WRITE_ZEROES : BLOCK_WRITE,
						 .offset_bytes = o->sector * 512,
						 .length_bytes = o->count * 512,
						 .iov = &iov[k],
						 .iov_count = 1,
						 .may_unmap = i & 1,
						 .done = disk_done,
						 .opaque = &done[k] };
		block_submit(dev, &req[k]);
	}
	block_drain(dev);
	for (unsigned k = 0; k < PARTS; k++) {
		free(iov[k].iov_base);
		if (req[k].result != 0)
			r = req[k].result;
	}
	return r;
}

/* Holds the disk against the steps: [0, acked) are certain, [acked, begun) may have happened. */
static unsigned wrong_sectors(struct block_device *dev, uint64_t seed, unsigned acked, unsigned begun)
{
	static uint8_t disk[DISK_BYTES], want[512];
	static uint8_t good[SECTORS];
	unsigned wrong = 0;

	if (disk_read(dev, 0, disk, DISK_BYTES) != 0)
		return SECTORS;
	for (uint64_t s = 0; s < SECTORS; s++)
		good[s] = io_is_zero(disk + s * 512, 512);
	for (unsigned i = 0; i < begun; i++) {
		struct step st = step_at(seed, i);

		for (unsigned k = 0; k < PARTS; k++) {
			for (uint64_t s = st.op[k].sector; s < st.op[k].sector + st.op[k].count; s++) {
				bool same;

				if (st.op[k].zero)
					memset(want, 0, 512);
				else
					fill_sector(want, s, i);
				same = memcmp(want, disk + s * 512, 512) == 0;
				/* A certain write leaves no other content; an uncertain one adds one. */
				good[s] = i < acked ? same : good[s] || same;
			}
		}
	}
	for (uint64_t s = 0; s < SECTORS; s++)
		wrong += !good[s];
	return wrong;
}

/* --- The journal --- */

struct event {
	enum { WRITE, PUNCH, SYNCED, ACKED } what;
	uint64_t offset, len;
	uint8_t *data;
	unsigned covers; /* SYNCED: the events before this index; ACKED: the steps before this one */
	unsigned begun;	 /* steps begun by then */
};

static pthread_mutex_t journal_lock = PTHREAD_MUTEX_INITIALIZER;
static struct event *journal;
static unsigned journal_count, journal_room, steps_begun;
static int journal_fd = -1; /* any descriptor of the image */

static void record(struct event e)
{
	if (journal_count == journal_room) {
		journal_room = journal_room * 2 + 1024;
		journal = realloc(journal, journal_room * sizeof(*journal));
	}
	e.begun = steps_begun;
	journal[journal_count++] = e;
}

static bool journalled(int fd)
{
	struct stat a, b;

	return journal_fd >= 0 && fstat(fd, &a) == 0 && fstat(journal_fd, &b) == 0 &&
	       a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	bool keep = journalled(fd);
	ssize_t r;

	pthread_mutex_lock(&journal_lock);
	r = syscall(SYS_pwritev, fd, iov, count, offset, 0);
	if (keep && r > 0) {
		struct event e = { WRITE, (uint64_t)offset, (uint64_t)r, malloc((size_t)r), 0, 0 };
		size_t at = 0;

		for (int i = 0; i < count && at < (size_t)r; i++) {
			memcpy(e.data + at, iov[i].iov_base, iov[i].iov_len);
			at += iov[i].iov_len;
		}
		record(e);
	}
	pthread_mutex_unlock(&journal_lock);
	return r;
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	bool keep = journalled(fd);
	int r;

	pthread_mutex_lock(&journal_lock);
	r = (int)syscall(SYS_fallocate, fd, mode, offset, len);
	if (keep && r == 0)
		record((struct event){ PUNCH, (uint64_t)offset, (uint64_t)len, NULL, 0, 0 });
	pthread_mutex_unlock(&journal_lock);
	return r;
}

int fdatasync(int fd)
{
	bool keep = journalled(fd);
	unsigned covers;

	pthread_mutex_lock(&journal_lock);
	covers = journal_count;
	pthread_mutex_unlock(&journal_lock);
	/* Nothing needs to reach a real disk here; others may go on meanwhile. */
	sched_yield();
	pthread_mutex_lock(&journal_lock);
	if (keep)
		record((struct event){ SYNCED, 0, 0, NULL, covers, 0 });
	pthread_mutex_unlock(&journal_lock);
	return 0;
}

/* --- Power cuts --- */

struct image_bytes {
	uint8_t *data;
	size_t len, room;
};

static void put(struct image_bytes *b, uint64_t offset, const uint8_t *data, uint64_t len)
{
	if (offset + len > b->room)
		exit(1);
	if (data)
		memcpy(b->data + offset, data, len);
	else
		memset(b->data + offset, 0, len);
	if (data)
		b->len = MAX(b->len, offset + len);
}

/* When to cut: mostly just before something became stable, when most is at stake. */
static unsigned cut_at(struct rng *r)
{
	/* Half of the time early, while the tables are still being made. */
	unsigned at = (unsigned)rng_below(r, journal_count / (rng_below(r, 2) ? 1 : 16) + 1);

	if (rng_below(r, 8) == 0)
		return at;
	while (at < journal_count && !(journal[at].what == SYNCED && at > 0 &&
				       journal[at - 1].what != SYNCED && journal[at - 1].what != ACKED))
		at++;
	return at;
}

static void crash_image(const struct image_bytes *first, unsigned events, struct rng *r,
			struct image_bytes *out, unsigned *acked, unsigned *begun)
{
	/* Of what is not stable: nothing is lost, half of the sectors, half of the writes, all. */
	unsigned stable = 0, loses = (unsigned)rng_below(r, 4);
	bool whole = false;

	memcpy(out->data, first->data, first->len);
	memset(out->data + first->len, 0, out->room - first->len);
	out->len = first->len;
	*acked = *begun = journal[0].covers; /* the first event says what is there to begin with */
	for (unsigned i = 0; i < events; i++) {
		*begun = journal[i].begun;
		if (journal[i].what == SYNCED)
			stable = MAX(stable, journal[i].covers);
		if (journal[i].what == ACKED)
			*acked = journal[i].covers;
	}
	for (unsigned i = 0; i < events; i++) {
		const struct event *e = &journal[i];

		if (e->what != WRITE && e->what != PUNCH)
			continue;
		whole = rng_below(r, 2);
		for (uint64_t at = 0; at < e->len; at += 512) {
			uint64_t here = MIN(512, e->len - at);

			if (i < stable || loses == 0 || (loses == 1 && rng_below(r, 2)) ||
			    (loses == 2 && whole))
				put(out, e->offset + at, e->data ? e->data + at : NULL, here);
		}
	}
}

static bool write_file(const char *path, const struct image_bytes *b)
{
	bool good;
	int fd;

	unlink(path); /* and not O_TRUNC, which makes some file systems write out at once */
	fd = open(path, O_RDWR | O_CREAT, 0600);
	good = fd >= 0 && write(fd, b->data, b->len) == (ssize_t)b->len;

	close(fd);
	return good;
}

/* The image is sound, holds what it must, and can be gone on with. */
static bool sound(struct loop *loop, const char *path, uint64_t seed, unsigned acked, unsigned begun)
{
	struct block_device *dev;
	struct image_check c;
	unsigned wrong;

	if (!no_error(image_check(path, BLOCK_FORMAT_QCOW2, &c)))
		return false;
	if (c.errors) {
		diag("%llu errors: %s", (unsigned long long)c.errors, c.first_error);
		return false;
	}
	dev = disk_open(loop, path, BLOCK_FORMAT_QCOW2, false);
	if (!dev)
		return false;
	wrong = wrong_sectors(dev, seed, acked, begun);
	if (wrong)
		diag("%u sectors are wrong; steps acknowledged %u, begun %u", wrong, acked, begun);
	for (unsigned i = 0; i < 4; i++)
		wrong += step_run(dev, seed + 2, i) != 0;
	block_close(dev);
	return wrong == 0 && no_error(image_check(path, BLOCK_FORMAT_QCOW2, &c)) && c.errors == 0;
}

static void test_power(struct loop *loop, const char *what, const struct image_options *o, bool snapshot,
		       uint64_t seed)
{
	struct image_bytes first = { 0 }, crash = { .room = 32 * MiB };
	struct rng r = { seed * 3 + 1 };
	struct block_device *dev;
	unsigned bad = 0, cuts = TAP_ROUNDS(120), start = 0;
	struct stat st;
	int fd;

	unlink("p.qcow2");
	if (!no_error(image_create("p.qcow2", BLOCK_FORMAT_QCOW2, DISK_BYTES, NULL, BLOCK_FORMAT_RAW, o)))
		exit(1);
	if (snapshot) { /* everything is shared and has to be copied */
		dev = disk_open(loop, "p.qcow2", BLOCK_FORMAT_QCOW2, false);
		for (; start < 40; start++)
			bad += step_run(dev, seed, start) != 0;
		block_close(dev);
		if (run("qemu-img snapshot -c one p.qcow2") != 0) {
			skip("qemu-img is not installed");
			return;
		}
	}
	journal_fd = open("p.qcow2", O_RDONLY);
	fstat(journal_fd, &st);
	first.len = (size_t)st.st_size;
	first.data = malloc(first.len);
	crash.data = malloc(crash.room);
	if (pread(journal_fd, first.data, first.len, 0) != (ssize_t)first.len)
		exit(1);
	dev = disk_open(loop, "p.qcow2", BLOCK_FORMAT_QCOW2, false);
	steps_begun = start;
	record((struct event){ ACKED, 0, 0, NULL, start, 0 });
	for (unsigned i = start; i < start + 250; i++) {
		steps_begun = i + 1;
		bad += step_run(dev, seed, i) != 0;
		if (step_at(seed, i).flush) {
			bad += disk_flush(dev) != 0;
			record((struct event){ ACKED, 0, 0, NULL, i + 1, 0 });
		}
	}
	block_close(dev);
	is_u64(bad, 0, "%s: 250 steps", what);
	fd = journal_fd;
	journal_fd = -1;
	close(fd);
	for (unsigned i = 0; i < cuts && !bad; i++) {
		unsigned events = cut_at(&r), acked, begun;

		crash_image(&first, events, &r, &crash, &acked, &begun);
		/* The image is used again after the check: under another name, outside of the journal. */
		if (!write_file("crash.qcow2", &crash) || !sound(loop, "crash.qcow2", seed, acked, begun)) {
			diag("cut %u, after %u of %u events", i, events, journal_count);
			bad++;
		}
	}
	ok(bad == 0, "%s: %u power cuts", what, cuts);
	for (unsigned i = 0; i < journal_count; i++)
		free(journal[i].data);
	free(journal);
	journal = NULL;
	journal_count = journal_room = 0;
	free(first.data);
	free(crash.data);
}

/* --- kill -9 --- */

static void victim(uint64_t seed, int ack)
{
	struct block_device *dev;
	struct loop *loop;

	if (!no_error(loop_create(&loop)))
		_exit(1);
	dev = disk_open(loop, "k.qcow2", BLOCK_FORMAT_QCOW2, false);
	for (uint32_t i = 0; dev && i < STEPS_MAX; i++) {
		uint32_t line[2] = { i + 1, 0 };

		if (write(ack, line, 8) != 8 || step_run(dev, seed, i) != 0)
			_exit(1);
		line[1] = i + 1;
		if (step_at(seed, i).flush && (disk_flush(dev) != 0 || write(ack, line, 8) != 8))
			_exit(1);
	}
	pause();
}

static void test_kill(struct loop *loop, uint64_t seed)
{
	struct image_options o = { .cluster_bytes = 4096 };
	struct rng r = { seed };
	unsigned bad = 0, most = 0;

	for (unsigned round = 0; round < 15; round++) {
		uint32_t line[2], begun = 0, acked = 0;
		int ack[2], status;
		pid_t pid;

		unlink("k.qcow2");
		if (!no_error(image_create("k.qcow2", BLOCK_FORMAT_QCOW2, DISK_BYTES, NULL, BLOCK_FORMAT_RAW,
					   &o)) ||
		    pipe2(ack, O_CLOEXEC) < 0)
			exit(1);
		fflush(stdout);
		pid = fork();
		if (pid == 0)
			victim(seed + round, ack[1]);
		close(ack[1]);
		usleep((useconds_t)(5000 + rng_below(&r, 60000)));
		kill(pid, SIGKILL);
		while (read(ack[0], line, 8) == 8) {
			begun = line[0];
			acked = MAX(acked, line[1]);
		}
		close(ack[0]);
		waitpid(pid, &status, 0);
		most = MAX(most, acked);
		bad += !WIFSIGNALED(status) || !sound(loop, "k.qcow2", seed + round, acked, begun);
	}
	ok(bad == 0, "kill -9, 15 times");
	ok(most > 0, "in the middle of it: up to %u steps acknowledged", most);
}

/* --- A full disk --- */

static void test_full(struct loop *loop, uint64_t seed)
{
	struct image_options o = { .cluster_bytes = 4096 };
	struct rlimit limit, old;
	struct block_device *dev;
	unsigned acked = 0, i = 0;
	int r = 0;

	unlink("f.qcow2");
	if (!no_error(image_create("f.qcow2", BLOCK_FORMAT_QCOW2, DISK_BYTES, NULL, BLOCK_FORMAT_RAW, &o)))
		exit(1);
	getrlimit(RLIMIT_FSIZE, &old);
	limit = old;
	limit.rlim_cur = 300 * 1024 + 1234;
	setrlimit(RLIMIT_FSIZE, &limit);
	dev = disk_open(loop, "f.qcow2", BLOCK_FORMAT_QCOW2, false);
	for (; i < 500 && r == 0; i++) {
		r = step_run(dev, seed, i);
		if (r == 0 && step_at(seed, i).flush && (r = disk_flush(dev)) == 0)
			acked = i + 1;
	}
	is_u64((uint64_t)r, (uint64_t)-ENOSPC, "a full disk: the guest is told, after %u steps", i);
	is_u64(wrong_sectors(dev, seed, acked, i), 0, "a full disk: what was written is still there");
	setrlimit(RLIMIT_FSIZE, &old);
	is_u64((uint64_t)step_run(dev, seed, i++), 0, "with space again it goes on");
	is_u64((uint64_t)disk_flush(dev), 0, "and can be flushed");
	block_close(dev);
	ok(sound(loop, "f.qcow2", seed, acked, i), "a full disk: the image is sound");
}

int main(void)
{
	struct image_options small = { .cluster_bytes = 512, .refcount_bits = 64 };
	struct image_options tiny = { .cluster_bytes = 512 };
	struct image_options page = { .cluster_bytes = 4096 };
	struct image_options old = { .cluster_bytes = 2048, .version = 2 };
	uint64_t seed = test_seed();
	struct loop *loop;

	signal(SIGXFSZ, SIG_DFL); /* the workers block it */
	disk_dir_make();
	if (!no_error(loop_create(&loop)))
		return 1;
	test_power(loop, "4 KiB clusters", &page, false, seed);
	test_power(loop, "512 byte clusters, 64-bit counts", &small, false, seed + 11);
	test_power(loop, "version 2", &old, false, seed + 22);
	test_power(loop, "a snapshot", &tiny, true, seed + 33);
	test_kill(loop, seed + 44);
	test_full(loop, seed + 55);
	loop_destroy(loop);
	disk_dir_remove();
	return done_testing();
}
