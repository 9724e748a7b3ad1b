// SPDX-License-Identifier: Apache-2.0
//
// Moves megabytes over a disk or a TCP connection, with as little work of its own as possible: of each 4 KiB one word
// is made or added up.
//
//   inout write|read|write-direct|read-direct FILE MIB     a file or a disk, DEPTH requests of 1 MiB at a time; direct:
//                                                          not through the page cache here
//   inout send|receive HOST PORT MIB                       bench/run serves the other side

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PART (1 << 20)
#define PAGE 4096
#define DEPTH 4

static uint64_t *part;

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static void make(uint64_t *part, long number)
{
	for (long i = 0; i < PART / PAGE; i++)
		part[i * PAGE / 8] = (number * 256 + i) * 0x9e3779b97f4a7c15ULL;
}

static uint64_t add_up(const uint64_t *part)
{
	uint64_t sum = 0;
	for (long i = 0; i < PART / PAGE; i++)
		sum += part[i * PAGE / 8];
	return sum;
}

static uint64_t move(int fd, long mib, int out)
{
	uint64_t sum = 0;
	for (long n = 0; n < mib; n++) {
		if (out)
			make(part, n);
		for (size_t done = 0; done < PART;) {
			char *at = (char *)part + done;
			ssize_t r = out ? write(fd, at, PART - done) : read(fd, at, PART - done);
			if (r <= 0)
				die(out ? "write" : "read");
			done += r;
		}
		sum += add_up(part);
	}
	return sum;
}

// The same with a disk: several parts are on their way.
static uint64_t move_parts(int fd, long mib, int out)
{
	struct iocb cb[DEPTH], *one;
	struct io_event ev;
	aio_context_t ctx = 0;
	uint64_t sum = 0;
	long next = 0, done = 0;

	if (syscall(SYS_io_setup, DEPTH, &ctx) < 0)
		die("io_setup");
	while (done < mib) {
		if (next < mib && next - done < DEPTH) {
			uint64_t *at = part + next % DEPTH * (PART / 8);
			if (out)
				make(at, next);
			one = &cb[next % DEPTH];
			memset(one, 0, sizeof(*one));
			one->aio_data = next++;
			one->aio_fildes = fd;
			one->aio_lio_opcode = out ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
			one->aio_buf = (uintptr_t)at;
			one->aio_nbytes = PART;
			one->aio_offset = (next - 1) * (long long)PART;
			if (syscall(SYS_io_submit, ctx, 1, &one) != 1)
				die("io_submit");
			continue;
		}
		static int ended[DEPTH]; // in their order
		while (!ended[done % DEPTH]) {
			if (syscall(SYS_io_getevents, ctx, 1, 1, &ev, NULL) != 1 || ev.res != PART)
				die(out ? "write" : "read");
			ended[ev.data % DEPTH] = 1;
		}
		ended[done % DEPTH] = 0;
		sum += add_up(part + done++ % DEPTH * (PART / 8));
	}
	return sum;
}

int main(int argc, char **argv)
{
	if (argc < 4 || posix_memalign((void **)&part, PAGE, DEPTH * PART) != 0)
		return 2;
	memset(part, 0x5a, DEPTH * PART);
	const char *verb = argv[1];
	int out = strncmp(verb, "write", 5) == 0 || strcmp(verb, "send") == 0;
	long mib = atol(argv[argc - 1]);
	uint64_t sum;
	if (argc == 4) {
		int direct = strstr(verb, "direct") ? O_DIRECT : 0;
		int fd = open(argv[2], (out ? O_WRONLY : O_RDONLY) | direct);
		if (fd < 0)
			die(argv[2]);
		sum = move_parts(fd, mib, out);
		if (out && fdatasync(fd) < 0)
			die(argv[2]);
	} else {
		struct sockaddr_in peer = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[3])) };
		inet_aton(argv[2], &peer.sin_addr);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&peer, sizeof(peer)) < 0)
			die("connect");
		char hello[32];
		int n = snprintf(hello, sizeof(hello), "%c%ld\n", out ? 'U' : 'D', mib);
		if (write(fd, hello, n) != n)
			die("write");
		sum = move(fd, mib, out);
		// The other side says when it has all, and whether that is right.
		if (out && (read(fd, hello, 1) != 1 || hello[0] != 'k'))
			die("what arrived there");
	}
	printf("%ld MiB %llu\n", mib, (unsigned long long)sum);
	return 0;
}
