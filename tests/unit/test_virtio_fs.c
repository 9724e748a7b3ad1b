/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-fs: requests to the server and replies back, in pieces; lost servers, servers that lie, resets, drivers that lie. */
#include <errno.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dev/virtio/virtio_fs.h"
#include "tests/tap.h"
#include "tests/unit/virtio_driver.h"

#define REQUEST DATA_BASE
#define REPLY (DATA_BASE + 0x180000)
#define FEATURES VIRTIO_BIT(VIRTIO_F_VERSION_1)
#define UNIQUE 0x5566778800ull

static struct rig rig;
static struct drv d;
static int server;
static struct {
	struct share_packet head;
	uint8_t piece[SHARE_PIECE_MAX];
} heard;

static void start(void)
{
	int pair[2];

	rig_init(&rig);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair))
		abort();
	server = pair[1];
	virtio_pci_attach(&rig.bus, RIG_DEVFN, virtio_fs_create(rig.mem, rig.loop, "share", pair[0]));
	drv_probe(&d, &rig);
}

/* @n counts up in the request's number, so that errors can be told apart. */
static void ask_on(unsigned queue, unsigned n, uint32_t len, uint32_t room)
{
	struct drv_buffer b[2] = { { REQUEST, len, false }, { REPLY, room, true } };

	ram_store(&rig, REQUEST, len, 4);
	ram_store(&rig, REQUEST + 8, UNIQUE + n, 8);
	drv_add(&d, queue, b, room ? 2 : 1);
	drv_kick(&d, queue);
}

static void ask(unsigned n, uint32_t len, uint32_t room)
{
	ask_on(VIRTIO_FS_REQUESTS, n, len, room);
}

/* The next packet's piece; -1: none. */
static ssize_t hear(void)
{
	ssize_t n = recv(server, &heard, sizeof(heard), MSG_DONTWAIT);

	return n < (ssize_t)sizeof(heard.head) ? -1 : n - (ssize_t)sizeof(heard.head);
}

static void put(uint32_t id, uint32_t total, uint32_t offset, uint32_t len)
{
	struct share_packet head = { id, total, offset, 0 };
	static uint8_t message[sizeof(head) + SHARE_PIECE_MAX + 100];

	memcpy(message, &head, sizeof(head));
	for (uint32_t i = 0; i < len; i++)
		message[sizeof(head) + i] = (uint8_t)((offset + i) * 3);
	if (send(server, message, sizeof(head) + len, 0) < 0)
		abort();
}

static void say(uint32_t id, uint32_t total, uint32_t offset, uint32_t len)
{
	put(id, total, offset, len);
	rig_run_loop(&rig);
}

static bool used(uint32_t *len)
{
	return drv_used(&d, VIRTIO_FS_REQUESTS, NULL, len);
}

static bool is_error(unsigned n)
{
	uint32_t len = 0;

	return used(&len) && len == 16 && ram_load(&rig, REPLY, 4) == 16 && (int32_t)ram_load(&rig, REPLY + 4, 4) == -EIO &&
	       ram_load(&rig, REPLY + 8, 8) == UNIQUE + n;
}

static void test_requests(void)
{
	uint32_t id, second, len = 0, head;

	ok(!memcmp("share\0\0\0", (uint64_t[]){ drv_read(&d, d.device, 4) | drv_read(&d, d.device + 4, 4) << 32 }, 8) &&
		   drv_read(&d, d.device + 32, 4) == 0 && drv_read(&d, d.device + 36, 4) == 1,
	   "the tag is told, and one queue for requests");
	is_u64(drv_read(&d, d.common + VIRTIO_PCI_NUM_QUEUES, 2), 2, "beside the one of high priority");
	is_u64(drv_start(&d, FEATURES, 64), 0x0f, "the driver is up");
	while (hear() >= 0)
		is_u64(heard.head.total, 0, "which is a reset for the server");
	ask(1, 50, 100);
	ok(hear() == 50 && heard.head.total == 50 && !heard.head.offset && heard.head.room == 100,
	   "a request comes to the server");
	ok(load_le(heard.piece + 8, 8) == UNIQUE + 1, "as it is");
	ok(!used(NULL), "and waits");
	id = heard.head.id;
	say(id, 20, 0, 20);
	ok(used(&len) && len == 20 && ram_load(&rig, REPLY + 18, 1) == 54, "for its reply");
	say(id, 20, 0, 20);
	ok(!used(NULL), "a second one is for nobody");

	ask(2, 50, 0x10000 * 2 + 100);
	hear();
	say(heard.head.id, 0x10000 + 20, 0, SHARE_PIECE_MAX);
	ok(!used(NULL), "a piece of a reply");
	say(heard.head.id, 0x10000 + 20, SHARE_PIECE_MAX, 20);
	ok(used(&len) && len == 0x10000 + 20 &&
		   ram_load(&rig, REPLY + 0x10000 + 19, 1) == (uint8_t)((0x10000 + 19) * 3),
	   "and the other");

	ask(3, 50, 100);
	ask(4, 51, 100);
	hear();
	id = heard.head.id;
	hear();
	second = heard.head.id;
	say(second, 16, 0, 16);
	ok(drv_used(&d, VIRTIO_FS_REQUESTS, &head, NULL) && head == d.q[1].next_desc % 64 - 2u,
	   "replies come in any order");
	say(id, 16, 0, 16);
	ok(used(NULL), "all of them");

	ask(5, 3 * SHARE_PIECE_MAX - 1, 100);
	for (unsigned i = 0; i < 3; i++)
		ok(hear() == (i < 2 ? SHARE_PIECE_MAX : SHARE_PIECE_MAX - 1) &&
			   heard.head.offset == i * SHARE_PIECE_MAX,
		   "piece %u of a long one", i);
	say(heard.head.id, 16, 0, 16);
	ok(used(NULL), "is one request");
	ask_on(VIRTIO_FS_HIPRIO, 6, 48, 0);
	ok(hear() == 48 && heard.head.room == 0 && drv_used(&d, VIRTIO_FS_HIPRIO, NULL, &len) && len == 0,
	   "what forgets has no reply");
	ask(7, 50, 15);
	ok(hear() == 50 && used(&len) && len == 0, "nor what has no room for one");
	ask(8, 4, 100);
	ok(hear() == 4 && !used(NULL), "what is no request is the server's to refuse");
	say(heard.head.id, 16, 0, 16);
	ok(used(NULL), "which it does");
	ask(9, SHARE_MESSAGE_MAX + 1, 100);
	ok(is_error(9) && hear() < 0, "one that is too long is not sent");
	{
		struct drv_buffer b = { REPLY, 100, true };

		ram_store(&rig, REPLY + 8, 0, 8);
		drv_add(&d, VIRTIO_FS_REQUESTS, &b, 1);
		drv_kick(&d, VIRTIO_FS_REQUESTS);
		ok(used(&len) && len == 16 && ram_load(&rig, REPLY + 8, 8) == 0, "nor one of nothing");
	}
}

static void test_flow(void)
{
	unsigned replies = 0, pieces = 0, forgets = 0, first = 0;

	for (unsigned i = 0; i < 20; i++)
		ask(i, 4 * SHARE_PIECE_MAX, 100);
	ask_on(VIRTIO_FS_HIPRIO, 0, 56, 0);
	for (unsigned i = 0; i < 1000 && replies < 20; i++) {
		while (hear() >= 0) {
			if (heard.head.total == 56) {
				forgets++;
				first = replies;
				continue;
			}
			pieces++;
			if (heard.head.offset + SHARE_PIECE_MAX == heard.head.total)
				say(heard.head.id, 16, 0, 16);
		}
		rig_run_loop(&rig);
		while (used(NULL))
			replies++;
	}
	ok(replies == 20 && pieces == 80, "more than the socket holds comes piece by piece (%u, %u)", replies, pieces);
	ok(forgets == 1 && first < 10, "what has priority comes before the rest (after %u)", first);
	drv_start(&d, FEATURES, 512);
	hear();
	for (unsigned i = 0; i < 100; i++)
		ask(i, 50, 100);
	for (pieces = 0; hear() >= 0;)
		pieces++;
	is_u64(pieces, 64, "so many at a time");
	say(heard.head.id, 16, 0, 16);
	ok(hear() == 50, "then one for each reply");
}

static void test_reset(void)
{
	uint32_t id, len = 0;

	drv_start(&d, FEATURES, 64);
	while (hear() >= 0)
		;
	ask(1, 50, 100);
	hear();
	id = heard.head.id;
	drv_start(&d, FEATURES, 64);
	ok(hear() == 0 && !heard.head.total, "a reset is told");
	ask(2, 50, 100);
	hear();
	say(id, 16, 0, 16);
	ok(!used(NULL), "what comes after it is for nobody");
	say(heard.head.id, 16, 0, 16);
	ok(used(NULL), "but what belongs to the new driver");
	for (unsigned i = 0; i < 10; i++)
		ask(i, 15 * SHARE_PIECE_MAX, 100);
	drv_set_status(&d, 0);
	drv_start(&d, FEATURES, 64);
	ask(3, 50, 100);
	for (unsigned i = 0, resets = 0; i < 100; i++) {
		ssize_t n = hear();

		resets += n == 0;
		if (n == 50) {
			ok(resets > 0, "a reset in the middle of a request comes before the next one");
			say(heard.head.id, 16, 0, 16);
			break;
		}
		rig_run_loop(&rig);
	}
	ok(used(&len) && len == 16, "which is answered");
}

/* A server that breaks the rules is given up, and nothing of it believed. */
static void test_lies(void)
{
	static const struct {
		uint32_t total, offset, len;
		const char *what;
	} lies[] = {
		{ 200, 0, 50, "more than there is room for" },
		{ 20, 0, 21, "more than it said" },
		{ 20, 4, 16, "from the middle" },
		{ 8, 0, 8, "less than a header" },
		{ 20, 0, 0, "nothing" },
		{ 90, 0, SHARE_PIECE_MAX + 1, "a packet that is too long" },
	};
	unsigned early = 0, sent = 0;
	uint32_t len = 0, first;

	for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
		start();
		drv_start(&d, FEATURES, 64);
		while (hear() >= 0)
			;
		memset(rig.mem->ram_base + REPLY, 0xaa, 300);
		ask(i, 50, 100);
		hear();
		say(heard.head.id, lies[i].total, lies[i].offset, lies[i].len);
		ok(is_error(i) && ram_load(&rig, REPLY + 100, 8) == 0xaaaaaaaaaaaaaaaa, "a reply of %s is an error",
		   lies[i].what);
		close(server);
		rig_finish(&rig);
	}
	start();
	drv_start(&d, FEATURES, 64);
	while (hear() >= 0)
		;
	ask(1, 50, 100);
	hear();
	say(heard.head.id, 40, 0, 20);
	say(heard.head.id, 41, 20, 20);
	ok(is_error(1), "so is one that grows");
	close(server);
	rig_finish(&rig);
	start();
	drv_start(&d, FEATURES, 64);
	while (hear() >= 0)
		;
	for (unsigned i = 0; i < 10; i++)
		ask(i, 15 * SHARE_PIECE_MAX, 100);
	hear();
	first = heard.head.id;
	while (hear() >= 0)
		sent += heard.head.offset + SHARE_PIECE_MAX == heard.head.total;
	for (uint32_t i = 0; i < 10; i++)
		put(first + i, 16, 0, 16);
	rig_run_loop(&rig);
	while (used(&len))
		early++;
	ok(early == sent && sent < 9, "a reply to what was not sent yet is for nobody (%u, %u)", early, sent);
	for (unsigned i = 0; i < 100; i++) {
		while (hear() >= 0)
			;
		rig_run_loop(&rig);
	}
	for (uint32_t i = early; i < 10; i++)
		say(first + i, 16, 0, 16);
	while (used(&len))
		early++;
	is_u64(early, 10, "but when it was, it has one");
	close(server);
	rig_finish(&rig);
	start();
}

static void test_gone(void)
{
	unsigned errors = 0;

	drv_start(&d, FEATURES, 64);
	for (unsigned i = 0; i < 10; i++)
		ask(9, 15 * SHARE_PIECE_MAX, 100);
	close(server);
	rig_run_loop(&rig);
	while (is_error(9))
		errors++;
	is_u64(errors, 10, "the server is gone: an error for each that waits, sent or not");
	ask(10, 20, 100);
	ok(is_error(10), "and for who asks");
	ask_on(VIRTIO_FS_HIPRIO, 0, 48, 0);
	ok(drv_used(&d, VIRTIO_FS_HIPRIO, NULL, NULL), "what forgets is done");
	drv_set_status(&d, 0);
	is_u64(drv_start(&d, FEATURES, 64), 0x0f, "it can be reset");
	ask(11, 20, 100);
	ok(is_error(11), "and still says so");
}

int main(void)
{
	start();
	test_requests();
	test_flow();
	test_reset();
	close(server);
	rig_finish(&rig);
	test_lies();
	test_gone();
	rig_finish(&rig);
	return done_testing();
}
