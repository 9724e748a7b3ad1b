/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-9p: requests to the server and replies back; lost servers, resets, drivers that lie. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dev/virtio/virtio_9p.h"
#include "tests/tap.h"
#include "tests/unit/virtio_driver.h"

#define REQUEST DATA_BASE
#define REPLY (DATA_BASE + 0x20000)

static struct rig rig;
static struct drv d;
static int server;

static void ask(uint16_t tag, uint32_t len, uint32_t room)
{
	struct drv_buffer b[2] = { { REQUEST, len, false }, { REPLY, room, true } };

	ram_store(&rig, REQUEST, len, 4);
	ram_store(&rig, REQUEST + 4, 100, 1);
	ram_store(&rig, REQUEST + 5, tag, 2);
	drv_add(&d, 0, b, room ? 2 : 1);
	drv_kick(&d, 0);
}

/* What the server gets: its length without the number, which comes in *@id. -1: nothing. */
static ssize_t heard(uint32_t *id)
{
	static uint8_t message[200000];
	ssize_t n = recv(server, message, sizeof(message), MSG_DONTWAIT);

	*id = n >= 4 ? (uint32_t)load_le(message, 4) : 0;
	return n < 4 ? -1 : n - 4;
}

static void answer(uint32_t id, const char *text)
{
	uint8_t message[64];

	store_le(message, id, 4);
	memcpy(message + 4, text, strlen(text));
	if (send(server, message, 4 + strlen(text), 0) < 0)
		abort();
	rig_run_loop(&rig);
}

static bool is_error(uint16_t tag)
{
	uint32_t len = 0;

	return drv_used(&d, 0, NULL, &len) && len == 11 && ram_load(&rig, REPLY, 4) == 11 && ram_load(&rig, REPLY + 4, 1) == 7 &&
	       ram_load(&rig, REPLY + 5, 2) == tag && ram_load(&rig, REPLY + 7, 4) == EIO;
}

int main(void)
{
	uint64_t features = VIRTIO_BIT(VIRTIO_F_VERSION_1) | 1;
	uint32_t id, second, len = 0, head;
	int pair[2];

	rig_init(&rig);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair))
		abort();
	server = pair[1];
	virtio_pci_attach(&rig.bus, RIG_DEVFN, virtio_9p_create(rig.mem, rig.loop, "share", pair[0]));
	drv_probe(&d, &rig);
	ok(drv_read(&d, d.device, 2) == 5 && drv_read(&d, d.device + 2, 4) == load_le("shar", 4) && drv_read(&d, d.device + 6, 1) == 'e',
	   "the tag is told");
	is_u64(drv_start(&d, features, 64), 0x0f, "the driver is up");
	heard(&id); /* of the reset before */
	ask(1, 20, 100);
	is_u64((uint64_t)heard(&id), 20, "a request comes to the server");
	ok(!drv_used(&d, 0, NULL, NULL), "and waits");
	answer(id, "the reply");
	ok(drv_used(&d, 0, NULL, &len) && len == 9 && !memcmp(rig.mem->ram_base + REPLY, "the reply", 9), "for its reply");
	answer(id, "again");
	ok(!drv_used(&d, 0, NULL, NULL), "a second one is for nobody");
	ask(2, 20, 4);
	heard(&id);
	answer(id, "too long");
	ok(drv_used(&d, 0, NULL, &len) && len == 4, "a reply that is longer than its room is cut");

	ask(3, 20, 100);
	ask(4, 21, 100);
	heard(&id);
	heard(&second);
	answer(second, "b");
	ok(drv_used(&d, 0, &head, NULL) && head == d.q[0].next_desc % 64 - 2u, "replies come in any order");
	answer(id, "a");
	ok(drv_used(&d, 0, NULL, NULL), "all of them");

	ask(5, 6, 100);
	ok(is_error(5), "less than a header is an error");
	ask(6, 7, 0);
	ok(heard(&id) == 7, "a request without room");
	answer(id, "x");
	ok(drv_used(&d, 0, NULL, &len) && len == 0, "gets nothing");
	ask(7, VIRTIO_9P_MESSAGE_MAX - 4, 100);
	ok(heard(&id) == VIRTIO_9P_MESSAGE_MAX - 4, "a long one");
	answer(id, "");
	ok(is_error(7), "a reply that is none is an error");
	{
		struct drv_buffer b[2] = { { REQUEST, VIRTIO_9P_MESSAGE_MAX + 1, false }, { REPLY + 0x10000, 100, true } };

		drv_add(&d, 0, b, 2);
		drv_kick(&d, 0);
		ok(drv_used(&d, 0, NULL, &len) && len == 11 && heard(&id) < 0, "one that is too long is not sent");
	}

	ask(8, 20, 100);
	heard(&id);
	drv_start(&d, features, 64);
	ok(heard(&second) == 0, "a reset is told");
	answer(id, "late");
	ok(!drv_used(&d, 0, NULL, NULL), "what comes after it is for nobody");
	for (unsigned i = 0; i < 30; i++)
		ask((uint16_t)i, 100000, 100);
	{
		unsigned replies = 0;

		for (unsigned i = 0; i < 30; i++) {
			while (heard(&id) >= 0)
				answer(id, "ok");
			rig_run_loop(&rig);
			while (drv_used(&d, 0, NULL, NULL))
				replies++;
		}
		is_u64(replies, 30, "more than the socket holds comes piece by piece");
	}
	ask(9, 20, 100);
	close(server);
	rig_run_loop(&rig);
	ok(is_error(9), "the server is gone: an error for who waits");
	ask(10, 20, 100);
	ok(is_error(10), "and for who asks");
	drv_set_status(&d, 0);
	is_u64(drv_start(&d, features, 64), 0x0f, "it can be reset");
	rig_finish(&rig);
	return done_testing();
}
