/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio devices behind the PCI transport, at the mercy of a driver that does anything in any
 * order.
 *
 * Input: a byte that picks the device; then steps: an operation byte and its arguments. Some steps
 * are what a good driver does (start, add a chain, kick), so that the fuzzer comes far; others
 * write anything anywhere; others are the back ends' part (complete a request, bring a frame).
 */
#include <sys/socket.h>
#include <unistd.h>

#include "dev/virtio/virtio_balloon.h"
#include "dev/virtio/virtio_blk.h"
#include "dev/virtio/virtio_console.h"
#include "dev/virtio/virtio_net.h"
#include "dev/virtio/virtio_rng.h"
#include "dev/virtio/virtio_vsock.h"
#include "fuzz/input.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/virtio_driver.h"

#define LOW_BYTES 0x20000u /* guest memory that the steps use: rings of four queues */
#define STEPS_MAX 200u

/* A device of each kind lives on, each in a machine of its own; an input starts with its reset. */
#define KINDS 7u
static struct rig rigs[KINDS], *rig;
static struct virtio_device *devices[KINDS];
static struct drv d;
static struct fake_disk disk;
static struct net_backend net;
static struct fake_chardev chr, named;
static unsigned net_kept;
static struct vsock_backend vsock;
static uint32_t vsock_asked;

static void net_fake_send(struct net_backend *be, const struct iovec *iov, int count)
{
	size_t sum = 0;

	for (int i = 0; i < count; i++)
		sum += iov[i].iov_len;
	assert(sum >= 14 && sum <= NET_FRAME_MAX);
}

static void net_fake_resume(struct net_backend *be)
{
	static const uint8_t frame[2000];

	/* As a back end may: the kept frame comes back at once. */
	if (net_kept && be->client.receive(be->client.opaque, frame, net_kept))
		net_kept = 0;
}

static const struct net_backend_ops net_fake_ops = {
	.name = "fake",
	.send = net_fake_send,
	.resume = net_fake_resume,
};

static bool vsock_fake_connect(struct vsock_backend *be, uint32_t id, uint32_t port)
{
	vsock_asked = id;
	return port & 1;
}

static const struct vsock_backend_ops vsock_fake_ops = { .name = "fake", .connect = vsock_fake_connect };

static struct virtio_device *create(unsigned kind)
{
	struct virtio_blk_config blk = {
		.mem = rig->mem,
		.loop = rig->loop,
		.disk = (struct block_device *)&disk,
		.disk_ops = &fake_disk_ops,
		.queues = 2,
		.serial = "fuzz",
	};
	struct virtio_net_config card = { .mem = rig->mem, .loop = rig->loop, .backend = &net };
	struct virtio_console_config con = { .mem = rig->mem,
					     .loop = rig->loop,
					     .chardev = &chr.chr,
					     .port_count = 1,
					     .ports = { { "org.example.0", &named.chr } } };

	struct virtio_vsock_config sockets = { rig->mem, rig->loop, &vsock, 3 };

	switch (kind) {
	case 0: return virtio_net_create(&card);
	case 1: return virtio_console_create(&con);
	case 2: return virtio_rng_create(rig->mem, rig->loop);
	case 5: return virtio_balloon_create(rig->mem, rig->loop);
	case 6: return virtio_vsock_create(&sockets);
	default: disk.readonly = kind == 4; return virtio_blk_create(&blk);
	}
}

static void create_all(void)
{
	log_init("fuzz", LOG_LEVEL_ERROR);
	net.ops = &net_fake_ops;
	vsock.ops = &vsock_fake_ops;
	fake_chardev_init(&chr);
	fake_chardev_init(&named);
	for (unsigned i = 0; i < KINDS; i++) {
		rig = &rigs[i];
		rig_init(rig);
		devices[i] = create(i);
		virtio_pci_attach(&rig->bus, RIG_DEVFN, devices[i]);
	}
}

static uint64_t any_gpa(struct input *in)
{
	uint64_t v = take(in, 3);

	switch (v >> 21) {
	case 0: return RIG_RAM_BYTES - (v & 31);
	case 1: return RIG_BAR + (v & 0x3fff);
	case 2: return ~0ull - (v & 31);
	default: return v & (LOW_BYTES - 1);
	}
}

/* In the virtio structures, or in the MSI-X table. */
static uint64_t any_register(struct input *in)
{
	uint64_t v = take(in, 2);

	return v & 0x8000 ? RIG_MSIX_BAR + (v & 0xfff) : RIG_BAR + (v & 0x3fff);
}

static void add_chain(struct input *in, unsigned q)
{
	struct drv_buffer b[8];
	unsigned count = 1 + (unsigned)take(in, 1) % ARRAY_SIZE(b);

	for (unsigned i = 0; i < count; i++)
		b[i] = (struct drv_buffer){ any_gpa(in), (uint32_t)take(in, 2), take(in, 1) & 1 };
	drv_add(&d, q, b, count);
}

/* @count times a well-formed block request, so that most of them reach the disk. */
static void add_block_request(struct input *in, unsigned q, unsigned count)
{
	uint64_t header = 0x1000 + 0x100 * take(in, 1) % 0xf000;
	uint8_t type = (uint8_t)take(in, 1) & 15;
	bool out = type == 1 || type >= 11;
	struct drv_buffer b[3] = {
		{ header, 16, false },
		{ header + 64, type >= 11 ? 16 : 512 * (uint32_t)(take(in, 1) & 7), !out },
		{ header + 32, 1, true },
	};

	ram_store(rig, header, type, 4);
	ram_store(rig, header + 8, take(in, 2) & 0x3ff, 8);
	if (type >= 11) {
		ram_store(rig, header + 64, take(in, 2) & 0x3ff, 8);
		ram_store(rig, header + 72, take(in, 1), 4);
		ram_store(rig, header + 76, take(in, 1) & 3, 4);
	}
	for (; count; count--)
		drv_add(&d, q, b, 3);
}

/* A network card's control command, with data in a buffer of its own or without any. */
static void add_command(struct input *in)
{
	struct drv_buffer b[3] = {
		{ 0x1000, 2, false },
		{ 0x1010, (uint32_t)take(in, 1), false },
		{ 0x1200, 1, true },
	};

	ram_store(rig, 0x1000, take(in, 2) & 0x0303, 2);
	ram_store(rig, 0x1010, take(in, 8), 8);
	drv_add(&d, 2, b, 3);
	drv_kick(&d, 2);
}

/* The host's part of the balloon. */
static void play_balloon(struct input *in, struct virtio_device *v)
{
	struct virtio_balloon_state state;

	virtio_balloon_set_target(v, take(in, 8));
	virtio_balloon_get_state(v, &state);
	virtio_balloon_ask_statistics(v);
}

/* A console driver's control message, and a buffer for the answer. */
static void add_port_message(struct input *in)
{
	struct drv_buffer b = { 0x1000, 8, false }, answer = { 0x1100, (uint32_t)take(in, 1), true };

	ram_store(rig, 0x1000, take(in, 1) & 3, 4);
	ram_store(rig, 0x1004, take(in, 1) & 7, 2);
	ram_store(rig, 0x1006, take(in, 1) & 1, 2);
	drv_add(&d, 2, &answer, 1);
	drv_add(&d, 3, &b, 1);
	drv_kick(&d, 3);
}

/* A program of the host: connects, or is connected to; says something, and goes or not. */
static void play_vsock(struct input *in)
{
	unsigned how = (unsigned)take(in, 1);
	static int kept = -1;
	int pair[2] = { -1, -1 };

	if (how & 1) {
		rig_run_loop(rig);
		return;
	}
	if (!(how & 2) && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0) {
		(void)!write(pair[1], in->data, MIN(in->left, how));
		if (kept >= 0)
			close(kept);
		kept = pair[1];
		if (how & 4)
			shutdown(kept, SHUT_WR);
	}
	if (how & 8 && pair[0] >= 0)
		vsock.client.incoming(vsock.client.opaque, pair[0], how >> 4);
	else
		vsock.client.connected(vsock.client.opaque, vsock_asked, pair[0]);
}

/* A packet of a connection, with data or without, that makes sense as far as the input wants. */
static void add_packet(struct input *in)
{
	uint32_t len = (uint32_t)take(in, 1) * 8;
	struct drv_buffer b[2] = { { 0x1000, 44, false }, { 0x2000, len, false } };

	ram_store(rig, 0x1000, 3, 8);
	ram_store(rig, 0x1008, 2, 8);
	ram_store(rig, 0x1010, take(in, 1) & 7, 4);
	ram_store(rig, 0x1014, (take(in, 1) & 7) | (len & 8 ? 0x40000000 : 0), 4);
	ram_store(rig, 0x1018, len, 4);
	ram_store(rig, 0x101c, 1, 2);
	ram_store(rig, 0x101e, take(in, 1) & 7, 2);
	ram_store(rig, 0x1020, take(in, 1) & 3, 4);
	ram_store(rig, 0x1024, take(in, 2), 4);
	ram_store(rig, 0x1028, take(in, 1), 4);
	drv_add(&d, 1, b, len ? 2 : 1);
	drv_kick(&d, 1);
}

static void place(void)
{
	drv_cfg_write(&d, PCI_BAR0, RIG_BAR, 4);
	drv_cfg_write(&d, PCI_BAR0 + 4, RIG_MSIX_BAR, 4);
	drv_cfg_write(&d, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

static void step(struct input *in, struct virtio_device *v)
{
	static const uint8_t frame[2000] = { 1, 0, 0, 0, 0, 5 };
	unsigned op = (unsigned)take(in, 1), q = op >> 6;
	unsigned size = 1u << (op >> 6 & 3);

	switch (op & 15) {
	case 0:
		place();
		if (op & 64)
			drv_enable_msix(&d);
		drv_start(&d, drv_offered(&d) & (take(in, 4) | VIRTIO_BIT(VIRTIO_F_VERSION_1)),
			  (uint16_t)(1u << (take(in, 1) & 7)));
		break;
	case 1: drv_write(&d, any_register(in), take(in, 8), size); break;
	case 2: drv_read(&d, any_register(in), size); break;
	case 3: drv_cfg_write(&d, take(in, 1) & 0xfc, (uint32_t)take(in, 4), MIN(size, 4)); break;
	case 4: drv_cfg_read(&d, take(in, 1) & 0xfc, MIN(size, 4)); break;
	case 5: ram_store(rig, take(in, 3) & (LOW_BYTES - 9), take(in, size), size); break;
	case 6:
		if (d.q[q].size)
			add_chain(in, q);
		break;
	case 7: drv_kick(&d, q); break;
	case 8:
		if (disk.count) {
			disk.fail = op & 64 ? -EIO : 0;
			fake_disk_complete(&disk, (unsigned)take(in, 1) % disk.count);
		}
		break;
	case 9:
		if (rig == &rigs[0] && !net_kept) {
			unsigned len = (unsigned)take(in, 2) % sizeof(frame);

			if (!net.client.receive(net.client.opaque, frame, len))
				net_kept = len;
		}
		break;
	case 10:
		if (rig == &rigs[0] && d.q[2].size)
			add_command(in);
		else if (rig == &rigs[1])
			fake_chardev_input(op & 64 ? &named : &chr, frame, take(in, 1) * 7);
		else if (rig == &rigs[5])
			play_balloon(in, v);
		else if (rig == &rigs[6])
			play_vsock(in);
		break;
	case 11:
		if (v->requeue_mask)
			v->requeue.fire(v->requeue.opaque);
		break;
	case 12:
		drv_desc(&d, 0x1000 + 0x4000 * q + 0xf000, (unsigned)take(in, 1) & 31, any_gpa(in),
			 (uint32_t)take(in, 2), (uint16_t)take(in, 1) & 7,
			 (uint16_t)take(in, 1) & 31);
		break;
	case 13:
		if (d.q[q].size)
			drv_offer(&d, q, (uint16_t)take(in, 1));
		break;
	case 14:
		if (d.q[1].size && rig == &rigs[6])
			add_packet(in);
		else if (d.q[3].size && rig == &rigs[1])
			add_port_message(in);
		else if (d.q[q & 1].size)
			add_block_request(in, q & 1, op & 128 ? 40 : 1);
		break;
	case 15:
		if (op == 0xff)
			pci_bus_reset(&rig->bus);
		place();
		drv_write(&d, d.common + VIRTIO_PCI_STATUS, take(in, 1), 1);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned kind = (unsigned)take(&in, 1) % KINDS;

	if (!rig)
		create_all();
	rig = &rigs[kind];
	memset(rig->mem->ram_base, 0, LOW_BYTES);
	drv_probe(&d, rig);
	for (unsigned i = 0; in.left && i < STEPS_MAX; i++)
		step(&in, devices[kind]);
	pci_bus_reset(&rig->bus);
	assert(!disk.count && !devices[kind]->status);
	net_kept = 0;
	chr.out_len = 0;
	return 0;
}
