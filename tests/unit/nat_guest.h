/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of maru-nat without a VM: starts it, and is the guest at the other end of the frame socket, up to UDP. A guest has one
 * address, answers ARP while it waits for frames, and looks at no checksum that comes. maru-nat has a small stack limit.
 */
#ifndef TESTS_UNIT_NAT_GUEST_H
#define TESTS_UNIT_NAT_GUEST_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/tap.h"

#define GUEST_IP 0x0a00020fu
#define HOST_IP 0x0a000202u
#define DNS_IP 0x0a000203u
#define FRAME_MAX 65550u

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };

struct nat {
	pid_t pid;
	int fd;
	char status[256]; /* what it said when it was ready, or why not */
	uint8_t host_mac[6]; /* of the host's side, once nat_arp() has asked; before that for all */
};

/* Skips the test when there is no program. */
static inline void nat_need_program(char *path, size_t size)
{
	const char *build = getenv("BUILD");

	snprintf(path, size, "%s/maru-nat", build ? build : "build/release");
	if (access(path, X_OK) < 0)
		skip_all("%s is not built", path);
}

/* Starts maru-nat, and waits until it has said in n->status that it is ready, or what it does not like. */
static inline void nat_start(struct nat *n, const char *option, const char *value)
{
	int frames[2], status[2];
	ssize_t got = 0, r;
	char program[256];

	nat_need_program(program, sizeof(program));
	memset(n->host_mac, 0xff, sizeof(n->host_mac));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, frames) < 0 || pipe2(status, O_CLOEXEC) < 0)
		exit(1);
	n->pid = fork();
	if (n->pid == 0) {
		char fd[16], status_fd[16];

		snprintf(fd, sizeof(fd), "%d", dup(frames[1]));
		snprintf(status_fd, sizeof(status_fd), "%d", dup(status[1]));
#ifndef TAP_SANITIZED
		/* Less than libslirp takes: the program makes its own. */
		setrlimit(RLIMIT_STACK, &(struct rlimit){ 64 * 1024, 64 * 1024 });
#endif
		execl(program, "maru-nat", "--fd", fd, "--status-fd", status_fd, "--hostname", "tester",
		      option, value, NULL);
		_exit(127);
	}
	close(frames[1]);
	close(status[1]);
	while ((r = read(status[0], n->status + got, sizeof(n->status) - 1 - (size_t)got)) > 0)
		got += r;
	n->status[got] = 0;
	close(status[0]);
	n->fd = frames[0];
}

/* Closes the guest's end; maru-nat's exit status. */
static inline int nat_stop(struct nat *n)
{
	int status;

	close(n->fd);
	waitpid(n->pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void put32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, 4);
}

static inline void put16(uint8_t *p, uint16_t v)
{
	v = htons(v);
	memcpy(p, &v, 2);
}

static inline uint32_t sum16(uint32_t sum, const uint8_t *p, size_t len)
{
	for (; len > 1; p += 2, len -= 2)
		sum += get16(p);
	if (len)
		sum += (uint32_t)p[0] << 8;
	return sum;
}

static inline uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* A frame from the guest: @l4 is the header and data behind IP, its checksum at @sum_at to be filled in. */
static inline void send_ip(struct nat *n, uint8_t proto, uint32_t from, uint32_t to, uint8_t *l4, size_t len,
		    size_t sum_at)
{
	uint8_t f[FRAME_MAX] = { 0 }, pseudo[12];

	memcpy(f, to == 0xffffffff ? (const uint8_t *)"\xff\xff\xff\xff\xff\xff" : n->host_mac, 6);
	memcpy(f + 6, guest_mac, 6);
	put16(f + 12, 0x0800);
	f[14] = 0x45;
	put16(f + 16, (uint16_t)(20 + len));
	f[22] = 64;
	f[23] = proto;
	put32(f + 26, from);
	put32(f + 30, to);
	put16(f + 24, fold(sum16(0, f + 14, 20)));
	memcpy(pseudo, f + 26, 8);
	put16(pseudo + 8, proto);
	put16(pseudo + 10, (uint16_t)len);
	put16(l4 + sum_at, 0);
	put16(l4 + sum_at, fold(sum16(proto == 1 ? 0 : sum16(0, pseudo, 12), l4, len)));
	memcpy(f + 34, l4, len);
	while (send(n->fd, f, 34 + len, 0) < 0 && (errno == EINTR || errno == EAGAIN))
		;
}

static inline void send_udp(struct nat *n, uint32_t from, uint16_t from_port, uint32_t to, uint16_t to_port,
		     const void *data, size_t len)
{
	uint8_t u[1500] = { 0 };

	put16(u, from_port);
	put16(u + 2, to_port);
	put16(u + 4, (uint16_t)(8 + len));
	memcpy(u + 8, data, len);
	send_ip(n, 17, from, to, u, 8 + len, 6);
}

static inline uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* The next frame for the guest within @ms; its length or 0. Answers ARP on the way. */
static inline size_t next_frame(struct nat *n, uint8_t *f, size_t room, int ms)
{
	uint64_t end = now_ms() + (uint64_t)ms;

	for (;;) {
		struct pollfd p = { .fd = n->fd, .events = POLLIN };
		uint64_t now = now_ms();
		ssize_t got;

		if (poll(&p, 1, now < end ? (int)(end - now) : 0) <= 0)
			return 0;
		got = recv(n->fd, f, room, 0);
		if (got <= 0)
			return 0;
		if (get16(f + 12) == 0x0806 && get16(f + 20) == 1 && get32(f + 38) == GUEST_IP) {
			uint8_t a[42];

			memcpy(a, f + 6, 6);
			memcpy(a + 6, guest_mac, 6);
			memcpy(a + 12, f + 12, 8);
			put16(a + 20, 2);
			memcpy(a + 22, guest_mac, 6);
			put32(a + 28, GUEST_IP);
			memcpy(a + 32, f + 22, 10);
			send(n->fd, a, sizeof(a), 0);
			continue;
		}
		return (size_t)got;
	}
}

/* Asks for 10.0.2.2, and keeps its address for what is sent from now on. */
static inline bool nat_arp(struct nat *n)
{
	uint8_t f[2048], a[42] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const uint8_t request[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };

	memcpy(a + 6, guest_mac, 6);
	memcpy(a + 12, request, 10);
	memcpy(a + 22, guest_mac, 6);
	put32(a + 28, GUEST_IP);
	put32(a + 38, HOST_IP);
	send(n->fd, a, sizeof(a), 0);
	while (next_frame(n, f, sizeof(f), 1000) > 0) {
		if (get16(f + 12) == 0x0806 && get16(f + 20) == 2 && get32(f + 28) == HOST_IP) {
			memcpy(n->host_mac, f + 22, 6);
			return true;
		}
	}
	return false;
}

/* A socket of the host's, bound to a free @port of 127.0.0.1. */
static inline int host_socket(int type, uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		exit(1);
	*port = ntohs(a.sin_port);
	return fd;
}

#endif
