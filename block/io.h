/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Complete reads and writes on a descriptor: short transfers are continued, interrupted ones restarted,
 * what lies behind the end of the file reads as zeroes. Any thread. All return 0 or -errno; EFBIG and
 * EDQUOT are reported as -ENOSPC, for to a guest they are the same thing.
 */
#ifndef BLOCK_IO_H
#define BLOCK_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* A place in a scatter-gather list; the functions below move it on. Never moved past the list's end. */
struct iov_cursor {
	const struct iovec *iov;
	int count;   /* vectors left, the current one included */
	size_t skip; /* bytes of the current one already done */
};

uint64_t iov_bytes(const struct iovec *iov, int count); /* UINT64_MAX on overflow */
void iov_cursor_zero(struct iov_cursor *cur, uint64_t len);
void iov_cursor_copy_in(struct iov_cursor *cur, const void *from, uint64_t len);
bool io_is_zero(const void *buf, size_t len);

int io_readv(int fd, uint64_t offset, struct iov_cursor *cur, uint64_t len);
int io_writev(int fd, uint64_t offset, struct iov_cursor *cur, uint64_t len);
int io_read(int fd, uint64_t offset, void *buf, size_t len);
int io_write(int fd, uint64_t offset, const void *buf, size_t len);

/* Makes [offset, offset + len) read as zeroes and gives the space back; -EOPNOTSUPP where it cannot. */
int io_punch(int fd, uint64_t offset, uint64_t len);

/* A shared buffer of zeroes, for writing them out. */
#define IO_ZEROES_BYTES (64u * 1024)
extern const uint8_t io_zeroes[IO_ZEROES_BYTES];

#endif
