/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net: transmit, receive with and without mergeable buffers, back pressure, the receive
 * filter.
 */
#include "dev/virtio/virtio_net.h"
#include "tests/tap.h"
#include "tests/unit/virtio_driver.h"

#define F_MRG_RXBUF VIRTIO_BIT(15)
#define F_CTRL_VQ VIRTIO_BIT(17)
#define F_CTRL_RX VIRTIO_BIT(18)
#define F_CTRL_MAC VIRTIO_BIT(23)
#define PLAIN VIRTIO_BIT(VIRTIO_F_VERSION_1)
#define ALL \
	(PLAIN | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | F_MRG_RXBUF | F_CTRL_VQ | F_CTRL_RX | F_CTRL_MAC)

enum { RX, TX, CTRL };

struct fake_backend {
	struct net_backend be;
	uint8_t frame[NET_FRAME_MAX];
	size_t len;
	unsigned sent, resumed;
};

static struct rig rig;
static struct drv d;
static struct fake_backend be;
static uint8_t frame[NET_FRAME_MAX];

static void be_send(struct net_backend *b, const struct iovec *iov, int count)
{
	be.len = 0;
	for (int i = 0; i < count; i++) {
		memcpy(be.frame + be.len, iov[i].iov_base, iov[i].iov_len);
		be.len += iov[i].iov_len;
	}
	be.sent++;
}

static void be_resume(struct net_backend *b)
{
	be.resumed++;
}

static const struct net_backend_ops be_ops = { .name = "fake",
					       .send = be_send,
					       .resume = be_resume };

static bool receive(size_t len)
{
	return be.be.client.receive(be.be.client.opaque, frame, len);
}

static void add_rx(uint64_t gpa, uint32_t len)
{
	struct drv_buffer b = { gpa, len, true };

	drv_add(&d, RX, &b, 1);
}

static void test_config(void)
{
	static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

	is_u64(drv_offered(&d) & 0x00ffffff, 0x00878020,
	       "features: nothing that a plain back end cannot do");
	for (unsigned i = 0; i < 6; i++)
		is_u64(drv_read(&d, d.device + i, 1), mac[i], "address byte %u", i);
	is_u64(drv_read(&d, d.device + 6, 2), 1, "link is up");
	ok(receive(100), "a frame before the driver is up is taken and dropped");
}

static void send(unsigned head_len, unsigned len)
{
	struct drv_buffer b[2] = { { DATA_BASE, head_len, false },
				   { DATA_BASE + 0x1000, len, false } };

	drv_add(&d, TX, b, 2);
	drv_kick(&d, TX);
}

static void test_transmit(void)
{
	uint32_t len = 1;

	drv_start(&d, ALL, 16);
	for (unsigned i = 0; i < 2000; i++)
		ram_store(&rig, DATA_BASE + 0x1000 + i, i * 3, 1);
	send(12, 60);
	is_u64(be.sent, 1, "sent by the doorbell");
	is_u64(be.len, 60, "its length");
	ok(!memcmp(be.frame, rig.mem->ram_base + DATA_BASE + 0x1000, 60), "its bytes");
	ok(drv_used(&d, TX, NULL, &len) && len == 0, "the chain is back");
	send(5, 67);
	is_u64(be.len, 60, "a header cut in two");
	ok(!memcmp(be.frame, rig.mem->ram_base + DATA_BASE + 0x1007, 60), "its bytes");
	send(20, 52);
	is_u64(be.len, 60, "header and frame in one buffer");
	send(12, 65550);
	is_u64(be.len, 65550, "the longest frame");
	send(12, 65551);
	send(12, 13);
	send(3, 4);
	is_u64(be.sent, 4, "too long and too short ones are dropped");
	for (unsigned i = 0; i < 6; i++)
		ok(drv_used(&d, TX, NULL, NULL), "chain %u is back", i);
	ok(!drv_used(&d, TX, NULL, NULL), "and no more");
}

static void test_receive(bool mergeable)
{
	uint32_t id, len;
	unsigned resumed;

	drv_start(&d, mergeable ? ALL : ALL & ~F_MRG_RXBUF, 16);
	ok(!receive(100), "no buffers: the back end keeps the frame");
	resumed = be.resumed;
	add_rx(DATA_BASE, 1526);
	drv_kick(&d, RX);
	is_u64(be.resumed, resumed + 1, "the doorbell resumes it");
	ok(receive(100), "now it is taken");
	ok(drv_used(&d, RX, &id, &len) && len == 112, "header and frame");
	ok(!memcmp(rig.mem->ram_base + DATA_BASE + 12, frame, 100), "its bytes");
	is_u64(ram_load(&rig, DATA_BASE, 8) | ram_load(&rig, DATA_BASE + 8, 2), 0,
	       "an empty header");
	is_u64(ram_load(&rig, DATA_BASE + 10, 2), 1, "one buffer");
	add_rx(DATA_BASE, 1526);
	drv_kick(&d, RX);
	is_u64(be.resumed, resumed + 1, "nothing to resume");
	ok(receive(13) && !drv_used(&d, RX, NULL, NULL),
	   "a frame shorter than its own header is dropped");
	ok(receive(1514) && drv_used(&d, RX, NULL, &len) && len == 1526, "a full frame");
}

static void test_merged(void)
{
	uint32_t len[4] = { 0 };

	test_receive(true);
	drv_start(&d, ALL, 16);
	add_rx(DATA_BASE, 512);
	add_rx(DATA_BASE + 0x1000, 512);
	ok(!receive(1514), "not enough buffers");
	ok(!drv_used(&d, RX, NULL, NULL), "none of them is used");
	add_rx(DATA_BASE + 0x2000, 512);
	ok(receive(1514), "three are");
	for (unsigned i = 0; i < 3; i++)
		drv_used(&d, RX, NULL, &len[i]);
	ok(len[0] == 512 && len[1] == 512 && len[2] == 502, "their lengths");
	is_u64(ram_load(&rig, DATA_BASE + 10, 2), 3, "three buffers");
	ok(!memcmp(rig.mem->ram_base + DATA_BASE + 12, frame, 500) &&
		   !memcmp(rig.mem->ram_base + DATA_BASE + 0x1000, frame + 500, 512) &&
		   !memcmp(rig.mem->ram_base + DATA_BASE + 0x2000, frame + 1012, 502),
	   "the bytes");

	drv_start(&d, ALL, 4);
	for (unsigned i = 0; i < 4; i++)
		add_rx(DATA_BASE + 0x1000 * i, 64);
	ok(receive(1514), "a frame that all buffers together cannot hold is dropped");
	ok(!drv_used(&d, RX, NULL, NULL), "none is used");
	ok(receive(60) && drv_used(&d, RX, NULL, &len[0]) && len[0] == 64, "the next one fits");
	ok(drv_used(&d, RX, NULL, &len[0]) && len[0] == 8, "in two");
}

static void test_single(void)
{
	uint32_t len;

	test_receive(false);
	drv_start(&d, PLAIN, 16);
	add_rx(DATA_BASE, 200);
	ok(receive(1000) && !drv_used(&d, RX, NULL, NULL),
	   "a frame longer than the buffer is dropped");
	ok(receive(188) && drv_used(&d, RX, NULL, &len) && len == 200, "one that just fits");
	add_rx(DATA_BASE, 11);
	ok(receive(100), "a buffer without room for the header");
	is_u64(drv_status(&d), 0x4f, "the device needs a reset");
	ok(receive(100), "and takes what comes");
}

static uint8_t command(uint8_t class, uint8_t cmd, const void *data, unsigned len)
{
	struct drv_buffer b[2] = { { DATA_BASE, 2 + len, false }, { DATA_BASE + 0x1000, 1, true } };

	ram_store(&rig, DATA_BASE, class, 1);
	ram_store(&rig, DATA_BASE + 1, cmd, 1);
	memcpy(rig.mem->ram_base + DATA_BASE + 2, data, len);
	ram_store(&rig, DATA_BASE + 0x1000, 0xaa, 1);
	drv_add(&d, CTRL, b, 2);
	drv_kick(&d, CTRL);
	drv_used(&d, CTRL, NULL, NULL);
	return (uint8_t)ram_load(&rig, DATA_BASE + 0x1000, 1);
}

/* Whether a frame to @to gets through. */
static bool passes(uint8_t first, uint8_t last)
{
	memset(frame, 0, 6);
	if (first == 0xff)
		memset(frame, 0xff, 6);
	frame[0] = first;
	frame[5] = last;
	add_rx(DATA_BASE + 0x2000, 2048);
	return receive(60) && drv_used(&d, RX, NULL, NULL);
}

static void test_filter(void)
{
	static const uint8_t on = 1, off = 0, mac[6] = { 2, 0, 0, 0, 0, 9 };
	uint8_t table[8 + 6 * 100] = { 1, 0, 0, 0, 2, 0, 0, 0, 0, 7, 1, 0, 0, 0, 1, 0, 0, 0, 0, 5 };

	drv_start(&d, ALL, 128);
	ok(passes(2, 1), "promiscuous after reset");
	is_u64(command(0, 0, &off, 1), 0, "promiscuous off");
	ok(!passes(2, 1), "another's frame does not pass");
	ok(passes(0xff, 0xff), "a broadcast does");
	ok(!passes(1, 5), "a multicast does not");
	is_u64(command(0, 1, &on, 1), 0, "all-multicast on");
	ok(passes(1, 5), "a multicast does");
	is_u64(command(0, 1, &off, 1), 0, "and off");
	is_u64(command(1, 0, table, 20), 0, "address table");
	ok(passes(2, 7) && passes(1, 5), "its addresses pass");
	ok(!passes(2, 8) && !passes(1, 6), "others do not");
	is_u64(command(1, 1, mac, 6), 0, "a new address");
	ok(passes(2, 9), "passes");
	is_u64(drv_read(&d, d.device + 5, 1), 9, "and shows in the configuration");

	store_le(table, 70, 4);
	store_le(table + 4 + 6 * 70, 0, 4);
	is_u64(command(1, 0, table, 8 + 6 * 70), 0, "a table longer than ours");
	ok(passes(2, 77), "lets all unicast through");
	ok(!passes(1, 5), "but no multicast");
	store_le(table, 0xffffffff, 4);
	is_u64(command(1, 0, table, 20), 1, "a table longer than its command");
	store_le(table, 1, 4);
	is_u64(command(1, 0, table, 12), 1, "a command without its second table");
	is_u64(command(1, 0, table, 3), 1, "half a count");
	is_u64(command(0, 0, "", 0), 1, "no flag");
	is_u64(command(1, 1, mac, 5), 1, "five bytes of address");
	is_u64(command(9, 0, mac, 6), 1, "an unknown class");
	ok(passes(2, 77), "none of these changed anything");

	drv_start(&d, ALL, 16);
	is_u64(drv_read(&d, d.device + 5, 1), 3, "reset restores the address");
	ok(passes(2, 1), "and the filter");
	drv_start(&d, PLAIN | F_CTRL_VQ, 16);
	is_u64(command(0, 0, &off, 1), 1, "a command that was not negotiated");
}

static void set_up(bool offload)
{
	struct virtio_net_config config = { .mac = { 0x52, 0x54, 0, 1, 2, 3 } };

	rig_init(&rig);
	be = (struct fake_backend){ .be = { .ops = &be_ops, .offload = offload } };
	config.mem = rig.mem;
	config.loop = rig.loop;
	config.backend = &be.be;
	virtio_pci_attach(&rig.bus, RIG_DEVFN, virtio_net_create(&config));
	drv_probe(&d, &rig);
}

/* The sum of the 16-bit words from @start of what was sent: 0xffff if the checksum among them is right. */
static uint16_t sum_of(unsigned start)
{
	uint64_t sum = 0;

	for (size_t i = start; i < be.len; i++)
		sum += (uint64_t)be.frame[i] << ((i - start) & 1 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void send_unsummed(unsigned len, unsigned start, unsigned offset)
{
	ram_store(&rig, DATA_BASE, 1, 8);
	ram_store(&rig, DATA_BASE + 6, start, 2);
	ram_store(&rig, DATA_BASE + 8, offset, 2);
	send(12, len);
	drv_used(&d, TX, NULL, NULL);
}

static void test_offload(void)
{
	unsigned sent;

	is_u64(drv_offered(&d) & 0x00ffffff, 0x0087802b, "offload: checksums and an MTU besides");
	is_u64(drv_read(&d, d.device + 10, 2), 65520, "the MTU");
	drv_start(&d, ALL | VIRTIO_BIT(0) | VIRTIO_BIT(1) | VIRTIO_BIT(3), 16);
	for (unsigned i = 0; i < 65550; i++)
		ram_store(&rig, DATA_BASE + 0x1000 + i, i * 7 + i / 256, 1);
	ram_store(&rig, DATA_BASE + 0x1000 + 40, 0, 2);
	ram_store(&rig, DATA_BASE + 0x1000 + 50, 0, 2);
	for (unsigned len = 60; len < 68; len++) {
		send_unsummed(len, 34, 16);
		ok(be.len == len && sum_of(34) == 0xffff, "a frame of %u bytes is sent with its checksum", len);
	}
	ok(!memcmp(be.frame, rig.mem->ram_base + DATA_BASE + 0x1000, 50) &&
		   !memcmp(be.frame + 52, rig.mem->ram_base + DATA_BASE + 0x1000 + 52, be.len - 52),
	   "and otherwise as it was");
	ok(memcmp(be.frame + 50, rig.mem->ram_base + DATA_BASE + 0x1000 + 50, 2), "while the guest's is untouched");
	send_unsummed(65534, 34, 6);
	ok(be.len == 65534 && sum_of(34) == 0xffff, "the longest");
	/* What sums up to 0xffff without its checksum. */
	memset(rig.mem->ram_base + DATA_BASE + 0x1000, 0, 60);
	ram_store(&rig, DATA_BASE + 0x1000 + 34, 0xffff, 2);
	send_unsummed(60, 34, 6);
	ok(be.frame[40] == 0xff && be.frame[41] == 0xff, "a checksum is never 0");
	sent = be.sent;
	send_unsummed(60, 34, 25);
	send_unsummed(60, 60, 0);
	send_unsummed(60, 65535, 65535);
	is_u64(be.sent, sent, "a checksum beyond the end: dropped");
	send_unsummed(60, 58, 0);
	is_u64(be.sent, sent + 1, "at the end: sent");
	add_rx(DATA_BASE, 70000);
	drv_kick(&d, RX);
	ok(receive(65534), "a long frame is received");
	is_u64(ram_load(&rig, DATA_BASE, 1), 2, "and needs no check");
	drv_start(&d, ALL, 16);
	memset(rig.mem->ram_base + DATA_BASE + 0x1000, 0x11, 60);
	send_unsummed(60, 34, 16);
	ok(be.frame[50] == 0x11, "not negotiated: the frame goes out as it is");
	add_rx(DATA_BASE, 1526);
	drv_kick(&d, RX);
	ok(receive(100) && ram_load(&rig, DATA_BASE, 1) == 0, "and comes in without a mark");
	/* A UDP datagram of 4000 bytes for a card that takes 1500: three fragments. */
	memset(frame + 12, 0, 22);
	frame[12] = 8;
	frame[14] = 0x45;
	frame[16] = (20 + 4000) >> 8;
	frame[17] = (20 + 4000) & 0xff;
	frame[23] = 17;
	add_rx(DATA_BASE, 1526);
	add_rx(DATA_BASE + 0x1000, 1526);
	drv_kick(&d, RX);
	ok(!receive(14 + 20 + 4000), "a long frame is cut, and waits for a third buffer");
	is_u64(ram_load(&rig, DATA_BASE + 0x1000 + 12 + 20, 2), 0xb920, "the second fragment is in the second");
	add_rx(DATA_BASE, 1526);
	drv_kick(&d, RX);
	ok(receive(14 + 20 + 4000), "and goes on there");
	is_u64(ram_load(&rig, DATA_BASE + 12 + 20, 2), 0x7201, "with the third fragment");
}

int main(void)
{
	set_up(false);
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 5 + i / 256);
	test_config();
	test_transmit();
	test_merged();
	test_single();
	test_filter();
	drv_start(&d, ALL, 16);
	receive(100);
	drv_set_status(&d, 0);
	ok(receive(100), "after a reset frames are dropped again");
	rig_finish(&rig);
	ok(!be.be.client.receive, "the back end is let go");
	set_up(true);
	test_offload();
	rig_finish(&rig);
	return done_testing();
}
