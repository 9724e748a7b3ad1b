/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-fs device between two that cannot be trusted: a driver that breaks its rings and a process that breaks its
 * protocol. Whatever they do, each chain is returned once at most, with no more bytes than it has room for.
 *
 * Input: steps, an operation byte and its arguments. The driver's half adds good and bad chains, kicks, resets, writes into
 * its rings; the process's half reads packets, answers what it read, answers anything, goes away.
 */
#include <assert.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/virtio/virtio_fs.h"
#include "fuzz/input.h"
#include "tests/unit/virtio_driver.h"

#define LOW_BYTES 0x20000u /* guest memory that the steps use */
#define STEPS_MAX 100u

static struct rig rig;
static struct drv d;
static int server;
static struct {
	struct share_packet head;
	uint8_t piece[SHARE_PIECE_MAX + 1];
} packet;

static void create(void)
{
	int pair[2];

	rig_init(&rig);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair))
		abort();
	server = pair[1];
	virtio_pci_attach(&rig.bus, RIG_DEVFN, virtio_fs_create(rig.mem, rig.loop, "fuzz", pair[0]));
}

/* Mostly short; some are several pieces of a message, or more than a message may have. */
static uint32_t any_length(struct input *in)
{
	uint32_t v = (uint32_t)take(in, 3);

	return v >> 21 == 7 ? v % 0x90000 : v >> 21 == 6 ? v % 0x24000 : v % 0x400;
}

/* A request of some length, mostly with room for a reply. */
static void add_request(struct input *in, unsigned q)
{
	unsigned pieces = 1 + (unsigned)take(in, 1) % 6, outs = 1 + (unsigned)take(in, 1) % pieces;
	struct drv_buffer b[6];

	for (unsigned i = 0; i < pieces; i++)
		b[i] = (struct drv_buffer){ DATA_BASE + take(in, 1) * 0x100, any_length(in), i >= outs };
	drv_add(&d, q, b, pieces);
}

static void add_anything(struct input *in, unsigned q)
{
	struct drv_buffer b[4];

	for (unsigned i = 0; i < ARRAY_SIZE(b); i++)
		b[i] = (struct drv_buffer){ take(in, 3), (uint32_t)take(in, 2), take(in, 1) & 1 };
	drv_add(&d, q, b, ARRAY_SIZE(b));
}

static bool hear(void)
{
	if (recv(server, &packet, sizeof(packet), MSG_DONTWAIT) < (ssize_t)sizeof(packet.head))
		return false;
	assert(packet.head.total <= SHARE_MESSAGE_MAX && packet.head.offset <= packet.head.total);
	return true;
}

static void say(uint32_t id, uint32_t total, uint32_t offset, uint32_t len)
{
	packet.head = (struct share_packet){ id, total, offset, 0 };
	(void)!send(server, &packet, sizeof(packet.head) + MIN(len, sizeof(packet.piece)), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* As a good process: all of a reply that fits the room. */
static void answer(struct input *in)
{
	uint32_t id = packet.head.id, total = any_length(in);

	total = MIN(MAX(total, 16u), packet.head.room);

	for (uint32_t at = 0; at < total; at += SHARE_PIECE_MAX)
		say(id, total, at, MIN(total - at, SHARE_PIECE_MAX));
}

static void step(struct input *in)
{
	unsigned op = (unsigned)take(in, 1), q = op >> 7;

	switch (op & 15) {
	case 0:
		drv_start(&d, drv_offered(&d) & (take(in, 4) | VIRTIO_BIT(VIRTIO_F_VERSION_1)),
			  (uint16_t)(1u << (take(in, 1) & 7)));
		break;
	case 1:
	case 2:
	case 3:
		if (d.q[q].size)
			add_request(in, q);
		if (op & 64)
			drv_kick(&d, q);
		break;
	case 4:
		if (d.q[q].size)
			add_anything(in, q);
		break;
	case 5: drv_kick(&d, q); break;
	case 6: ram_store(&rig, take(in, 3) & (LOW_BYTES - 9), take(in, 4), 4); break;
	case 7: hear(); break;
	case 8:
	case 9:
		hear();
		answer(in);
		break;
	case 10:
		say(packet.head.id + (op >> 6), (uint32_t)take(in, 3), (uint32_t)take(in, 2), (uint32_t)take(in, 3));
		break;
	case 11: rig_run_loop(&rig); break;
	case 12: drv_write(&d, d.common + VIRTIO_PCI_STATUS, take(in, 1), 1); break;
	case 13: drv_cfg_write(&d, PCI_COMMAND, (uint32_t)take(in, 1), 2); break;
	case 14: drv_read(&d, RIG_BAR + (take(in, 2) & 0x3fff), 4); break;
	case 15:
		if (op == 0xff)
			close(server), server = -1;
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!rig.mem) {
		log_init("fuzz", LOG_LEVEL_ERROR);
		server = -1;
	}
	if (server < 0) {
		if (rig.mem)
			rig_finish(&rig);
		create();
	}
	memset(rig.mem->ram_base, 0, LOW_BYTES);
	memset(&packet.head, 0, sizeof(packet.head));
	drv_probe(&d, &rig);
	for (unsigned i = 0; in.left && i < STEPS_MAX; i++)
		step(&in);
	pci_bus_reset(&rig.bus);
	while (server >= 0 && hear())
		;
	/* Who broke its protocol was given up: the next input has another. */
	if (server >= 0 && send(server, &(struct share_packet){ ~0u, 16, 0, 0 }, sizeof(struct share_packet),
				MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		close(server), server = -1;
	return 0;
}
