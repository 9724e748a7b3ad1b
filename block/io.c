// SPDX-License-Identifier: Apache-2.0
/* Complete reads and writes on a descriptor; see io.h. */
#include "block/io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/util.h"

#define IO_BATCH 320 /* vectors handed to the kernel at a time; bounds the stack */

const uint8_t io_zeroes[IO_ZEROES_BYTES];

static int io_errno(void)
{
	return errno == EFBIG || errno == EDQUOT ? -ENOSPC : -errno;
}

uint64_t iov_bytes(const struct iovec *iov, int count)
{
	uint64_t sum = 0;

	for (int i = 0; i < count; i++)
		if (__builtin_add_overflow(sum, iov[i].iov_len, &sum))
			return UINT64_MAX;
	return sum;
}

static void cursor_advance(struct iov_cursor *cur, uint64_t len)
{
	while (cur->count > 0) {
		uint64_t here = cur->iov->iov_len - cur->skip;

		if (len < here) {
			cur->skip += len;
			return;
		}
		len -= here;
		cur->iov++;
		cur->count--;
		cur->skip = 0;
	}
	assert(len == 0);
}

/* The next at most @len bytes as at most IO_BATCH vectors, which may be those of several; the cursor stays. */
static int cursor_peek(const struct iov_cursor *cur, uint64_t len, struct iovec *out)
{
	size_t skip = cur->skip;
	int n = 0;

	for (int i = 0; i < cur->count && n < IO_BATCH && len > 0; i++) {
		size_t here = MIN(cur->iov[i].iov_len - skip, len);
		char *base = (char *)cur->iov[i].iov_base + skip;

		if (n > 0 && (char *)out[n - 1].iov_base + out[n - 1].iov_len == base)
			out[n - 1].iov_len += here; /* pages are often neighbours */
		else if (here > 0)
			out[n++] = (struct iovec){ base, here };
		len -= here;
		skip = 0;
	}
	return n;
}

void iov_cursor_zero(struct iov_cursor *cur, uint64_t len)
{
	while (len > 0) {
		assert(cur->count > 0);
		size_t here = MIN(cur->iov->iov_len - cur->skip, len);

		memset((char *)cur->iov->iov_base + cur->skip, 0, here);
		cursor_advance(cur, here);
		len -= here;
	}
}

void iov_cursor_copy_in(struct iov_cursor *cur, const void *from, uint64_t len)
{
	const char *p = from;

	while (len > 0) {
		assert(cur->count > 0);
		size_t here = MIN(cur->iov->iov_len - cur->skip, len);

		memcpy((char *)cur->iov->iov_base + cur->skip, p, here);
		cursor_advance(cur, here);
		p += here;
		len -= here;
	}
}

bool io_is_zero(const void *buf, size_t len)
{
	const char *p = buf;

	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

int io_readv(int fd, uint64_t offset, struct iov_cursor *cur, uint64_t len)
{
	struct iovec v[IO_BATCH];

	while (len > 0) {
		int n = cursor_peek(cur, len, v);

		assert(n > 0);
		ssize_t got = preadv(fd, v, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return io_errno();
		if (got == 0) { /* behind the end of the file */
			iov_cursor_zero(cur, len);
			return 0;
		}
		cursor_advance(cur, (uint64_t)got);
		offset += (uint64_t)got;
		len -= (uint64_t)got;
	}
	return 0;
}

int io_writev(int fd, uint64_t offset, struct iov_cursor *cur, uint64_t len)
{
	struct iovec v[IO_BATCH];

	while (len > 0) {
		int n = cursor_peek(cur, len, v);

		assert(n > 0);
		ssize_t put = pwritev(fd, v, n, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return io_errno();
		if (put == 0)
			return -EIO;
		cursor_advance(cur, (uint64_t)put);
		offset += (uint64_t)put;
		len -= (uint64_t)put;
	}
	return 0;
}

int io_read(int fd, uint64_t offset, void *buf, size_t len)
{
	struct iovec v = { buf, len };
	struct iov_cursor cur = { &v, 1, 0 };

	return io_readv(fd, offset, &cur, len);
}

int io_write(int fd, uint64_t offset, const void *buf, size_t len)
{
	struct iovec v = { (void *)buf, len };
	struct iov_cursor cur = { &v, 1, 0 };

	return io_writev(fd, offset, &cur, len);
}

int io_punch(int fd, uint64_t offset, uint64_t len)
{
	int r;

	do {
		r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			      (off_t)len);
	} while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	/* EINVAL: less than the sectors of a block device. */
	return errno == ENOSYS || errno == ENODEV || errno == EOPNOTSUPP || errno == EINVAL ? -EOPNOTSUPP : io_errno();
}
