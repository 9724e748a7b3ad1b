// SPDX-License-Identifier: Apache-2.0
//
// Moves megabytes over a disk or a TCP connection, with as little work of its own as possible: of each 4 KiB one word
// is made or added up.
//
//   inout write|read|write-direct|read-direct FILE MIB     a file or a disk; direct: not through the page cache here
//   inout send|receive HOST PORT MIB                       bench/run serves the other side

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PART (1 << 20)
#define PAGE 4096

static uint64_t *part;

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static void make(long number)
{
	for (long i = 0; i < PART / PAGE; i++)
		part[i * PAGE / 8] = (number * 256 + i) * 0x9e3779b97f4a7c15ULL;
}

static uint64_t add_up(void)
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
			make(n);
		for (size_t done = 0; done < PART;) {
			char *at = (char *)part + done;
			ssize_t r = out ? write(fd, at, PART - done) : read(fd, at, PART - done);
			if (r <= 0)
				die(out ? "write" : "read");
			done += r;
		}
		sum += add_up();
	}
	return sum;
}

int main(int argc, char **argv)
{
	if (argc < 4 || posix_memalign((void **)&part, PAGE, PART) != 0)
		return 2;
	memset(part, 0x5a, PART);
	const char *verb = argv[1];
	int out = strncmp(verb, "write", 5) == 0 || strcmp(verb, "send") == 0;
	long mib = atol(argv[argc - 1]);
	uint64_t sum;
	if (argc == 4) {
		int direct = strstr(verb, "direct") ? O_DIRECT : 0;
		int fd = open(argv[2], (out ? O_WRONLY : O_RDONLY) | direct);
		if (fd < 0)
			die(argv[2]);
		sum = move(fd, mib, out);
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
