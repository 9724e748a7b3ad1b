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
	return done_testing();
}
