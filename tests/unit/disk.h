/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of disks share: a folder of their own, requests that are waited for, and a model of the
 * disk in memory that random requests are compared with. The loop is not run: block_drain() completes.
 */
#ifndef TESTS_UNIT_DISK_H
#define TESTS_UNIT_DISK_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "block/block.h"
#include "block/image.h"
#include "tests/tap.h"

static char disk_dir[64];

static inline void disk_dir_remove(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", disk_dir);
	if (system(cmd) != 0)
		diag("cannot remove %s", disk_dir);
}

/* Makes the folder and goes there. */
static inline void disk_dir_make(void)
{
	strcpy(disk_dir, "/tmp/maru-test-disk-XXXXXX");
	if (!mkdtemp(disk_dir) || chdir(disk_dir) < 0)
		exit(1);
}

/* Runs a command quietly; its exit status. */
__attribute__((format(printf, 1, 2))) static inline int run(const char *fmt, ...)
{
	char cmd[1024] = "{ ";
	va_list ap;
	int n, status;

	va_start(ap, fmt);
	n = vsnprintf(cmd + 2, sizeof(cmd) - 32, fmt, ap);
	va_end(ap);
	strcpy(cmd + 2 + n, "; } >run.log 2>&1");
	status = system(cmd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline bool have_qemu_img(void)
{
	return run("qemu-img --version && qemu-io --version") == 0;
}

/* Reports and frees; true: there was none. */
static inline bool no_error(struct error *err)
{
	if (!err)
		return true;
	diag("%s", error_message(err));
	error_free(err);
	return false;
}

/* An error whose sentence holds @text. Frees it. */
static inline bool error_says(struct error *err, const char *text)
{
	bool found = err && strstr(error_message(err), text);

	if (!found)
		diag("%s", err ? error_message(err) : "no error");
	error_free(err);
	return found;
}

static inline struct block_device *disk_open(struct loop *loop, const char *path,
					     enum block_format format, bool readonly)
{
	struct block_device *dev = NULL;
	struct block_open how;

	if (!no_error(block_resolve_chain(path, NULL, format, readonly, &how)))
		return NULL;
	if (!no_error(block_open(loop, &how, &dev)))
		block_open_close(&how);
	return dev;
}

static inline void disk_done(struct block_request *req)
{
	*(bool *)req->opaque = true;
}

static inline int disk_do(struct block_device *dev, enum block_op op, uint64_t offset, void *buf,
			  uint64_t len, bool may_unmap)
{
	struct iovec iov = { buf, len };
	bool done = false;
	struct block_request req = { .op = op,
				     .offset_bytes = offset,
				     .length_bytes = len,
				     .iov = &iov,
				     .iov_count = 1,
				     .may_unmap = may_unmap,
				     .done = disk_done,
				     .opaque = &done };

	block_submit(dev, &req);
	block_drain(dev);
	return done ? req.result : -ENOMSG;
}

static inline int disk_read(struct block_device *dev, uint64_t offset, void *buf, uint64_t len)
{
	return disk_do(dev, BLOCK_READ, offset, buf, len, false);
}

static inline int disk_write(struct block_device *dev, uint64_t offset, const void *buf, uint64_t len)
{
	return disk_do(dev, BLOCK_WRITE, offset, (void *)buf, len, false);
}

static inline int disk_flush(struct block_device *dev)
{
	return disk_do(dev, BLOCK_FLUSH, 0, NULL, 0, false);
}

/* --- Random numbers that can be had again --- */

struct rng {
	uint64_t s;
};

static inline uint64_t rng_next(struct rng *r)
{
	r->s ^= r->s << 13;
	r->s ^= r->s >> 7;
	r->s ^= r->s << 17;
	return r->s * 0x2545f4914f6cdd1dull;
}

static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return (rng_next(r) >> 16) % n;
}

static inline uint64_t test_seed(void)
{
	const char *s = getenv("SEED");
	uint64_t seed = s ? strtoull(s, NULL, 0) : (uint64_t)getpid() * 7919 + (uint64_t)time(NULL);

	diag("seed %llu (SEED=… to repeat)", (unsigned long long)seed);
	return seed | 1;
}

/* --- A model and random requests --- */

#define MODEL_DEPTH 6 /* requests at a time, each in a slice of the disk of its own */

struct model {
	uint8_t *bytes;
	uint64_t size;
	struct rng rng;
	unsigned wrong;
};

static inline void model_fill(struct model *m, uint8_t *buf, uint64_t len)
{
	uint64_t v = rng_next(&m->rng);

	for (uint64_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(v >> (i & 7) * 8) + (uint8_t)(i >> 9);
}

struct model_request {
	struct block_request req;
	struct iovec iov[5];
	uint8_t *buf;
	bool done;
};

/* One request in [from, from + room), both multiples of 512. */
static inline void model_submit(struct model *m, struct block_device *dev, struct model_request *r,
				uint64_t from, uint64_t room)
{
	uint64_t most = rng_below(&m->rng, 8) ? MIN(64, room / 512) : room / 512; /* small ones mostly */
	uint64_t len = (1 + rng_below(&m->rng, most)) * 512;
	uint64_t offset = from + rng_below(&m->rng, (room - len) / 512 + 1) * 512;
	uint64_t kind = rng_below(&m->rng, 16), at = 0;
	int n = 0;

	*r = (struct model_request){ .req.offset_bytes = offset, .req.length_bytes = len };
	r->req.op = kind < 6 ? BLOCK_WRITE : kind < 13 ? BLOCK_READ : kind < 14 ? BLOCK_DISCARD :
								      BLOCK_WRITE_ZEROES;
	r->req.may_unmap = rng_below(&m->rng, 2);
	r->req.done = disk_done;
	r->req.opaque = &r->done;
	r->buf = malloc(len);
	if (r->req.op == BLOCK_WRITE) {
		model_fill(m, r->buf, len);
		memcpy(m->bytes + offset, r->buf, len);
	} else if (r->req.op == BLOCK_WRITE_ZEROES) {
		memset(m->bytes + offset, 0, len);
	}
	while (at < len) { /* vectors of odd lengths */
		uint64_t want = n == 4 ? len : 1 + rng_below(&m->rng, len);
		uint64_t here = MIN(len - at, want);

		r->iov[n++] = (struct iovec){ r->buf + at, here };
		at += here;
	}
	r->req.iov = r->iov;
	r->req.iov_count = n;
	block_submit(dev, &r->req);
}

static inline void model_check(struct model *m, struct block_device *dev, struct model_request *r)
{
	uint64_t offset = r->req.offset_bytes, len = r->req.length_bytes;

	if (!r->done || r->req.result != 0) {
		m->wrong++;
		diag("request %d at %llu+%llu: %d", r->req.op, (unsigned long long)offset,
		     (unsigned long long)len, r->req.result);
	} else if (r->req.op == BLOCK_READ && memcmp(r->buf, m->bytes + offset, len) != 0) {
		m->wrong++;
		diag("what was read at %llu+%llu is wrong", (unsigned long long)offset,
		     (unsigned long long)len);
	} else if (r->req.op == BLOCK_DISCARD) {
		/* Any sector is as it was or zeroes; which one is settled by reading it. */
		if (disk_read(dev, offset, r->buf, len) != 0)
			m->wrong++;
		for (uint64_t i = 0; i < len; i++)
			if (r->buf[i] != 0 && r->buf[i] != m->bytes[offset + i])
				m->wrong++;
		memcpy(m->bytes + offset, r->buf, len);
	}
	free(r->buf);
}

static inline void model_run(struct model *m, struct block_device *dev, unsigned rounds)
{
	struct model_request r[MODEL_DEPTH];
	uint64_t slice = m->size / MODEL_DEPTH / 512 * 512;

	for (unsigned i = 0; i < rounds; i++) {
		for (unsigned k = 0; k < MODEL_DEPTH; k++) {
			uint64_t from = k * slice;

			model_submit(m, dev, &r[k], from,
				     k == MODEL_DEPTH - 1 ? m->size - from : slice);
		}
		block_drain(dev);
		for (unsigned k = 0; k < MODEL_DEPTH; k++)
			model_check(m, dev, &r[k]);
		if (rng_below(&m->rng, 8) == 0 && disk_flush(dev) != 0)
			m->wrong++;
	}
}

static inline bool model_equals_disk(struct model *m, struct block_device *dev)
{
	uint8_t *buf = malloc(m->size);
	bool same = disk_read(dev, 0, buf, m->size) == 0;

	for (uint64_t i = 0; same && i < m->size; i++) {
		if (buf[i] != m->bytes[i]) {
			diag("byte %llu is %02x and should be %02x", (unsigned long long)i, buf[i],
			     m->bytes[i]);
			same = false;
		}
	}
	free(buf);
	return same;
}

static inline bool model_equals_file(const struct model *m, const char *path)
{
	uint8_t *buf = malloc(m->size);
	int fd = open(path, O_RDONLY);
	bool same = fd >= 0 && pread(fd, buf, m->size, 0) == (ssize_t)m->size &&
		    memcmp(buf, m->bytes, m->size) == 0;

	if (fd >= 0)
		close(fd);
	free(buf);
	return same;
}

#endif
