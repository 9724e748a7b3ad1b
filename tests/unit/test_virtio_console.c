/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-console: both directions, waiting for buffers, emergency writes. */
#include "dev/virtio/virtio_console.h"
#include "tests/tap.h"
#include "tests/unit/virtio_driver.h"

#define FEATURES (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(2))

enum { RX, TX };

static struct rig rig;
static struct drv d;
static struct fake_chardev chr;

static void test_output(void)
{
	struct drv_buffer b[2] = { { DATA_BASE, 7, false }, { DATA_BASE + 0x1000, 6, false } };

	memcpy(rig.mem->ram_base + DATA_BASE, "hello, ", 7);
	memcpy(rig.mem->ram_base + DATA_BASE + 0x1000, "world\n", 6);
	drv_add(&d, TX, b, 2);
	drv_kick(&d, TX);
	ok(chr.out_len == 13 && !memcmp(chr.out, "hello, world\n", 13), "what the guest prints");
	ok(drv_used(&d, TX, NULL, NULL), "its buffer is back");
	drv_write(&d, d.device + 8, '!', 4);
	ok(chr.out_len == 14 && chr.out[13] == '!', "an emergency write");
}

static void test_input(void)
{
	struct drv_buffer b = { DATA_BASE, 4, true };
	uint32_t len = 0;

	is_u64(fake_chardev_input(&chr, "abcdef", 6), 6, "what is typed is kept");
	drv_add(&d, RX, &b, 1);
	drv_kick(&d, RX);
	ok(drv_used(&d, RX, NULL, &len) && len == 4, "until there are buffers");
	ok(!memcmp(rig.mem->ram_base + DATA_BASE, "abcd", 4), "in order");
	drv_add(&d, RX, &b, 1);
	drv_kick(&d, RX);
	ok(drv_used(&d, RX, NULL, &len) && len == 2, "and the rest");
	ok(!memcmp(rig.mem->ram_base + DATA_BASE, "ef", 2), "of it");
	drv_add(&d, RX, &b, 1);
	fake_chardev_input(&chr, "x", 1);
	ok(drv_used(&d, RX, NULL, &len) && len == 1, "with a buffer waiting it comes at once");
}

static void test_full(void)
{
	struct drv_buffer b = { DATA_BASE, 0x8000, true };
	static char big[VIRTIO_CONSOLE_FIFO_BYTES + 10];
	uint32_t len = 0;

	for (unsigned i = 0; i < sizeof(big); i++)
		big[i] = (char)(i % 251);
	is_u64(fake_chardev_input(&chr, big, sizeof(big)), VIRTIO_CONSOLE_FIFO_BYTES,
	       "the FIFO has a bound");
	is_u64(fake_chardev_input(&chr, big, 1), 0, "when it is full nothing more is taken");
	is_u64(chr.resumed, 0, "nobody resumes");
	drv_add(&d, RX, &b, 1);
	drv_kick(&d, RX);
	ok(drv_used(&d, RX, NULL, &len) && len == VIRTIO_CONSOLE_FIFO_BYTES,
	   "all of it in one buffer");
	ok(!memcmp(rig.mem->ram_base + DATA_BASE, big, len),
	   "in order, around the end of the FIFO");
	is_u64(chr.resumed, 1, "then the back end goes on");
}

static void test_bounds(void)
{
	struct drv_buffer empty = { DATA_BASE, 4, false }, huge = { DATA_BASE, 2 * MiB, false };
	uint32_t len = 1;

	drv_add(&d, RX, &empty, 1);
	fake_chardev_input(&chr, "y", 1);
	drv_kick(&d, RX);
	ok(drv_used(&d, RX, NULL, &len) && len == 0,
	   "a receive buffer that cannot be written comes back empty");
	drv_add(&d, TX, &huge, 1);
	drv_kick(&d, TX);
	ok(drv_used(&d, TX, NULL, NULL), "a huge write comes back");
	drv_set_status(&d, 0);
	is_u64(fake_chardev_input(&chr, "z", 1), 1, "after a reset input is kept again");
}

/* ---- Named ports ---- */

#define MULTIPORT VIRTIO_BIT(1)
enum { CONTROL_RX = 2, CONTROL_TX, PORT1_RX, PORT1_TX };
enum { DEVICE_READY = 0, PORT_ADD = 1, PORT_READY = 3, CONSOLE_PORT = 4, PORT_OPEN = 6, PORT_NAME = 7 };

static struct virtio_device *v;

static void say(uint32_t id, unsigned event, unsigned value)
{
	struct drv_buffer b = { DATA_BASE + 0x8000, 8, false };

	ram_store(&rig, b.gpa, id, 4);
	ram_store(&rig, b.gpa + 4, event, 2);
	ram_store(&rig, b.gpa + 6, value, 2);
	drv_add(&d, CONTROL_TX, &b, 1);
	drv_kick(&d, CONTROL_TX);
	drv_used(&d, CONTROL_TX, NULL, NULL);
}

/* The next control message, for which a buffer is given now. */
static bool told(uint32_t id, unsigned event, unsigned value, const char *text)
{
	struct drv_buffer b = { DATA_BASE + 0x9000, 256, true };
	uint32_t len = 0;

	memset(rig.mem->ram_base + b.gpa, 0xee, 256);
	drv_add(&d, CONTROL_RX, &b, 1);
	drv_kick(&d, CONTROL_RX);
	return drv_used(&d, CONTROL_RX, NULL, &len) && len == 8 + strlen(text) && ram_load(&rig, b.gpa, 4) == id &&
	       ram_load(&rig, b.gpa + 4, 2) == event && ram_load(&rig, b.gpa + 6, 2) == value &&
	       !memcmp(rig.mem->ram_base + b.gpa + 8, text, strlen(text));
}

static void start_ports(uint64_t features)
{
	drv_negotiate(&d, FEATURES | features);
	for (unsigned i = 0; i < 8; i++)
		drv_set_queue(&d, i, 16, true);
	drv_ready(&d);
}

static void test_ports(void)
{
	static struct fake_chardev agent, other;
	struct virtio_console_config config = { .mem = rig.mem, .loop = rig.loop, .chardev = &chr.chr, .port_count = 2,
						.ports = { { "org.example.agent.0", &agent.chr }, { "other", &other.chr } } };
	struct drv_buffer out = { DATA_BASE, 5, false }, in = { DATA_BASE + 0x1000, 64, true };
	uint32_t len = 0;

	fake_chardev_init(&chr);
	fake_chardev_init(&agent);
	fake_chardev_init(&other);
	v = virtio_console_create(&config);
	virtio_pci_attach(&rig.bus, RIG_DEVFN, v);
	drv_probe(&d, &rig);
	ok(drv_offered(&d) & MULTIPORT, "several ports are offered");
	is_u64(drv_read(&d, d.device + 4, 4), 3, "three in all");
	start_ports(MULTIPORT);
	is_u64(drv_status(&d), 0x0f, "the driver is up");
	say(0, DEVICE_READY, 1);
	ok(told(0, PORT_ADD, 0, "") && told(1, PORT_ADD, 0, "") && told(2, PORT_ADD, 0, ""), "the driver hears of all ports");
	say(0, PORT_READY, 1);
	ok(told(0, CONSOLE_PORT, 1, "") && told(0, PORT_OPEN, 1, ""), "the first is the console");
	say(1, PORT_READY, 1);
	ok(told(1, PORT_NAME, 0, "org.example.agent.0") && told(1, PORT_OPEN, 1, ""), "the next has a name");

	is_u64(fake_chardev_input(&agent, "early", 5), 0, "nothing is taken for a port that nobody has opened");
	ok(!virtio_console_guest_open(v, "org.example.agent.0"), "which it is not");
	say(1, PORT_OPEN, 1);
	ok(virtio_console_guest_open(v, "org.example.agent.0") && agent.resumed == 1, "somebody opens it: go on");
	drv_add(&d, PORT1_RX, &in, 1);
	is_u64(fake_chardev_input(&agent, "hello", 5), 5, "now it is taken");
	ok(drv_used(&d, PORT1_RX, NULL, &len) && len == 5 && !memcmp(rig.mem->ram_base + in.gpa, "hello", 5), "and comes to the guest");
	memcpy(rig.mem->ram_base + DATA_BASE, "reply", 5);
	drv_add(&d, PORT1_TX, &out, 1);
	drv_kick(&d, PORT1_TX);
	ok(agent.out_len == 5 && !memcmp(agent.out, "reply", 5) && !chr.out_len && !other.out_len, "what the guest writes goes there only");
	agent.no_room = chr.no_room = true;
	drv_add(&d, PORT1_TX, &out, 1);
	drv_kick(&d, PORT1_TX);
	drv_add(&d, TX, &out, 1);
	drv_kick(&d, TX);
	ok(agent.out_len == 5 && chr.out_len == 5, "a port waits for a slow reader, a console does not");
	agent.no_room = false;
	agent.chr.client.writable(agent.chr.client.opaque);
	ok(agent.out_len == 10, "and goes on");
	chr.out_len = 0;
	fake_chardev_input(&agent, "late", 4);
	say(1, PORT_OPEN, 0);
	ok(!virtio_console_guest_open(v, "org.example.agent.0"), "it is closed");
	say(1, PORT_OPEN, 1);
	drv_add(&d, PORT1_RX, &in, 1);
	drv_kick(&d, PORT1_RX);
	ok(!drv_used(&d, PORT1_RX, NULL, NULL), "what was for the last reader is not for the next");

	say(3, PORT_OPEN, 1);
	say(0xffffffff, PORT_READY, 1);
	say(1, 99, 1);
	say(2, PORT_READY, 0);
	out.len = 3;
	drv_add(&d, CONTROL_TX, &out, 1);
	drv_kick(&d, CONTROL_TX);
	ok(drv_used(&d, CONTROL_TX, NULL, NULL), "messages that make no sense");
	is_u64(drv_status(&d), 0x0f, "harm nobody");
	drv_set_status(&d, 0);
	ok(!virtio_console_guest_open(v, "org.example.agent.0"), "a reset closes");

	start_ports(0);
	say(0, DEVICE_READY, 1);
	ok(!told(0, PORT_ADD, 0, ""), "a driver that knows of one port hears of no other");
	drv_add(&d, TX, &(struct drv_buffer){ DATA_BASE, 5, false }, 1);
	drv_kick(&d, TX);
	is_u64(chr.out_len, 5, "but has the console");
}

int main(void)
{
	struct virtio_console_config config;

	rig_init(&rig);
	fake_chardev_init(&chr);
	config = (struct virtio_console_config){ .mem = rig.mem,
						 .loop = rig.loop,
						 .chardev = &chr.chr };
	virtio_pci_attach(&rig.bus, RIG_DEVFN, virtio_console_create(&config));
	drv_probe(&d, &rig);
	is_u64(drv_start(&d, FEATURES, 16), 0x0f, "driver is up");
	test_output();
	test_input();
	test_full();
	test_bounds();
	rig_finish(&rig);
	ok(!chr.chr.client.receive, "the back end is let go");
	rig_init(&rig);
	test_ports();
	rig_finish(&rig);
	ok(!chr.chr.client.receive, "and so are those of ports");
	return done_testing();
}
