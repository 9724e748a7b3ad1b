/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk: requests of all kinds, several queues, resets with requests in flight, bad requests.
 */
#include "dev/virtio/virtio_blk.h"
#include "tests/tap.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/virtio_driver.h"

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, NOT_DONE = 0xaa };

#define F_RO VIRTIO_BIT(5)
#define F_FLUSH VIRTIO_BIT(9)
#define F_MQ VIRTIO_BIT(12)
#define F_DISCARD VIRTIO_BIT(13)
#define F_WRITE_ZEROES VIRTIO_BIT(14)
#define FEATURES (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC))
#define ALL (FEATURES | F_FLUSH | F_MQ | F_DISCARD | F_WRITE_ZEROES)

/* Each request of a test has its own header, data and status in guest memory. */
#define AREA 0x4000ull
#define HEADER(n) (DATA_BASE + (n)*AREA)
#define STATUS(n) (HEADER(n) + 32)
#define DATA(n) (HEADER(n) + 0x1000)

static struct rig rig;
static struct drv d;
static struct fake_disk disk;
static uint64_t announced;

static void on_written(void *opaque, uint64_t gpa, uint64_t len)
{
	if (gpa >= DATA_BASE)
		announced += len;
}

static void start_device(bool readonly, unsigned queues)
{
	struct virtio_blk_config config = {
		.disk = (struct block_device *)&disk,
		.disk_ops = &fake_disk_ops,
		.queues = queues,
		.serial = "0123456789abcdefghijXXX",
	};

	memset(&disk, 0, sizeof(disk));
	for (unsigned i = 0; i < FAKE_DISK_BYTES; i++)
		disk.bytes[i] = (uint8_t)(i / 512 * 7 + i);
	disk.readonly = readonly;
	rig_init(&rig);
	rig.mem->on_written = on_written;
	config.mem = rig.mem;
	config.loop = rig.loop;
	virtio_pci_attach(&rig.bus, RIG_DEVFN, virtio_blk_create(&config));
	drv_probe(&d, &rig);
}

static void put_header(unsigned n, uint32_t type, uint64_t sector)
{
	ram_store(&rig, HEADER(n), type, 4);
	ram_store(&rig, HEADER(n) + 4, 0, 4);
	ram_store(&rig, HEADER(n) + 8, sector, 8);
	ram_store(&rig, STATUS(n), NOT_DONE, 1);
}

/* Offers request @n on @queue and kicks. */
static void request(unsigned queue, unsigned n, uint32_t type, uint64_t sector, uint32_t bytes,
		    bool in)
{
	struct drv_buffer b[3] = { { HEADER(n), 16, false },
				   { DATA(n), bytes, in },
				   { STATUS(n), 1, true } };

	put_header(n, type, sector);
	if (!bytes)
		b[1] = b[2];
	drv_add(&d, queue, b, bytes ? 3 : 2);
	drv_kick(&d, queue);
}

static uint8_t status(unsigned n)
{
	return (uint8_t)ram_load(&rig, STATUS(n), 1);
}

/* A request from beginning to end; returns its status, NOT_DONE if it was not returned. */
static uint8_t perform(uint32_t type, uint64_t sector, uint32_t bytes, bool in)
{
	request(0, 0, type, sector, bytes, in);
	fake_disk_complete_all(&disk);
	return drv_used(&d, 0, NULL, NULL) ? status(0) : NOT_DONE;
}

static void test_config(void)
{
	is_u64(drv_offered(&d) & (F_RO | ALL), ALL, "features");
	is_u64(drv_read(&d, d.device, 8), FAKE_DISK_BYTES / 512, "capacity");
	is_u64(drv_read(&d, d.device + 8, 4), 512 * KiB, "size_max");
	is_u64(drv_read(&d, d.device + 12, 4), VIRTIO_BLK_SEGMENTS, "seg_max");
	is_u64(drv_read(&d, d.device + 20, 4), 512, "blk_size");
	is_u64(drv_read(&d, d.device + 34, 2), 2, "num_queues");
	is_u64(drv_read(&d, d.device + 40, 4), 1, "max_discard_seg");
	is_u64(drv_read(&d, d.device + 60, 4), 0xffffffff, "nothing behind it");
	drv_write(&d, d.device, 0, 8);
	is_u64(drv_read(&d, d.device, 8), FAKE_DISK_BYTES / 512, "it is read-only");
	is_u64(drv_cfg_read(&d, 8, 4), 0x01000001, "a mass storage controller");
}

static void test_transfers(void)
{
	struct drv_buffer scattered[6] = {
		{ HEADER(0), 10, false },      { HEADER(0) + 10, 6, false },
		{ DATA(0), 100, true },	       { DATA(0) + 0x500, 900, true },
		{ DATA(0) + 0xa00, 24, true }, { STATUS(0), 1, true },
	};
	struct drv_buffer merged[2] = { { HEADER(1), 16, false }, { DATA(1), 1025, true } };
	uint32_t id, len;

	is_u64(drv_start(&d, ALL, 16), 0x0f, "driver is up");
	announced = 0;
	request(0, 0, T_IN, 3, 2048, true);
	is_u64(disk.count, 1, "a read is submitted by the doorbell");
	ok(!drv_used(&d, 0, NULL, NULL), "and not returned yet");
	fake_disk_complete(&disk, 0);
	ok(drv_used(&d, 0, &id, &len), "now it is");
	is_u64(id, 0, "its head");
	is_u64(len, 2049, "data and status were written");
	is_u64(status(0), OK, "status");
	is_u64(announced, 2049, "all of it announced");
	ok(!memcmp(rig.mem->ram_base + DATA(0), disk.bytes + 3 * 512, 2048), "the right bytes");
	ok(rig.lines[3].level, "interrupt");

	put_header(0, T_IN, 1);
	drv_add(&d, 0, scattered, 6);
	drv_kick(&d, 0);
	fake_disk_complete_all(&disk);
	ok(drv_used(&d, 0, NULL, &len) && len == 1025 && status(0) == OK,
	   "header and data in pieces");
	ok(!memcmp(rig.mem->ram_base + DATA(0), disk.bytes + 512, 100) &&
		   !memcmp(rig.mem->ram_base + DATA(0) + 0x500, disk.bytes + 612, 900) &&
		   !memcmp(rig.mem->ram_base + DATA(0) + 0xa00, disk.bytes + 1512, 24),
	   "scattered");

	put_header(1, T_IN, 5);
	drv_add(&d, 0, merged, 2);
	drv_kick(&d, 0);
	fake_disk_complete_all(&disk);
	ok(drv_used(&d, 0, NULL, NULL) && ram_load(&rig, DATA(1) + 1024, 1) == OK,
	   "data and status in one buffer");

	memset(rig.mem->ram_base + DATA(0), 0x5e, 1024);
	is_u64(perform(T_OUT, 10, 1024, false), OK, "a write");
	ok(disk.bytes[5120] == 0x5e && disk.bytes[6143] == 0x5e && disk.bytes[6144] != 0x5e,
	   "arrives");
	is_u64(perform(T_IN, 0, 0, true), OK, "a read of nothing");
	is_u64(perform(T_FLUSH, 0, 0, true), OK, "a flush");
	is_u64(disk.flushes, 1, "reaches the disk");
	is_u64(perform(T_GET_ID, 0, 20, true), OK, "get id");
	ok(!memcmp(rig.mem->ram_base + DATA(0), "0123456789abcdefghij", 20), "the serial number");
	disk.fail = -EIO;
	is_u64(perform(T_IN, 0, 512, true), IOERR, "a failing read");
	disk.fail = -ENOSPC;
	is_u64(perform(T_OUT, 0, 512, false), IOERR, "a failing write");
}

static void test_ranges(void)
{
	uint64_t end = FAKE_DISK_BYTES / 512;

	is_u64(perform(T_IN, end - 1, 512, true), OK, "the last sector");
	is_u64(perform(T_IN, end, 512, true), IOERR, "one behind it");
	is_u64(perform(T_IN, end - 1, 1024, true), IOERR, "half behind it");
	is_u64(perform(T_OUT, ~0ull, 512, false), IOERR, "a sector that wraps");
	is_u64(perform(T_OUT, 1ull << 55, 512, false), IOERR, "a sector whose byte offset wraps");
	is_u64(perform(T_IN, 0, 513, true), IOERR, "no whole sectors");
	is_u64(perform(77, 0, 512, true), UNSUPP, "an unknown request");
}

static uint8_t range(uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
	ram_store(&rig, DATA(0), sector, 8);
	ram_store(&rig, DATA(0) + 8, count, 4);
	ram_store(&rig, DATA(0) + 12, flags, 4);
	return perform(type, 0, 16, false);
}

static void test_discard(void)
{
	is_u64(range(T_DISCARD, 8, 8, 0), OK, "discard");
	is_u64(disk.discards, 1, "reaches the disk");
	is_u64(range(T_DISCARD, 8, 8, 1), UNSUPP, "discard with unmap");
	is_u64(range(T_WRITE_ZEROES, 8, 8, 0), OK, "write zeroes");
	ok(disk.bytes[4096] == 0 && disk.bytes[8191] == 0 && !disk.may_unmap, "does");
	is_u64(range(T_WRITE_ZEROES, 8, 8, 1), OK, "write zeroes with unmap");
	ok(disk.may_unmap, "is told so");
	is_u64(range(T_WRITE_ZEROES, 8, 8, 2), UNSUPP, "an unknown flag");
	is_u64(range(T_DISCARD, 8, 0, 0), OK, "nothing to discard");
	is_u64(range(T_DISCARD, 0, 0xffffffff, 0), IOERR, "far too much");
	is_u64(range(T_DISCARD, ~0ull, 8, 0), IOERR, "a range that wraps");
	is_u64(range(T_WRITE_ZEROES, 510, 8, 0), IOERR, "a range behind the end");
	is_u64(perform(T_DISCARD, 0, 32, false), IOERR, "two ranges");
	is_u64(perform(T_DISCARD, 0, 0, false), IOERR, "no range");
}

static void test_order_and_queues(void)
{
	uint32_t id;

	request(0, 0, T_IN, 0, 512, true);
	request(0, 1, T_IN, 1, 512, true);
	request(1, 2, T_IN, 2, 512, true);
	is_u64(disk.count, 3, "three in flight, on two queues");
	fake_disk_complete(&disk, 2);
	fake_disk_complete(&disk, 1);
	ok(!drv_used(&d, 0, &id, NULL) || id != 0, "completed out of order");
	is_u64(status(0), NOT_DONE, "the first is still on its way");
	ok(drv_used(&d, 1, NULL, NULL) && status(2) == OK, "the other queue's is back");
	fake_disk_complete(&disk, 0);
	is_u64(status(0), OK, "now it is");
}

static void test_writethrough(void)
{
	unsigned flushes;

	drv_start(&d, FEATURES, 16);
	flushes = disk.flushes;
	request(0, 0, T_OUT, 0, 512, false);
	fake_disk_complete(&disk, 0);
	is_u64(status(0), NOT_DONE, "a driver without flush: written but not yet returned");
	fake_disk_complete(&disk, 0);
	is_u64(status(0), OK, "returned after a flush");
	is_u64(disk.flushes, flushes + 1, "of the device's own");
	drv_used(&d, 0, NULL, NULL);
	is_u64(range(T_DISCARD, 0, 8, 0), UNSUPP, "discard was not negotiated");
}

static void test_slots(void)
{
	unsigned done[2] = { 0, 0 };

	drv_start(&d, ALL, VIRTIO_BLK_QUEUE_SIZE);
	for (unsigned i = 0; i < 80; i++)
		for (unsigned q = 0; q < 2; q++)
			request(q, 0, T_IN, i, 512, true);
	is_u64(disk.count, VIRTIO_BLK_SLOTS, "no more in flight than slots");
	fake_disk_complete_all(&disk);
	for (unsigned q = 0; q < 2; q++)
		while (drv_used(&d, q, NULL, NULL))
			done[q]++;
	is_u64(done[0], 80, "all of queue 0 came back");
	is_u64(done[1], 80, "all of queue 1");
}

static void test_reset_in_flight(void)
{
	drv_start(&d, ALL, 16);
	request(0, 0, T_IN, 0, 512, true);
	request(1, 1, T_OUT, 0, 512, false);
	drv_set_status(&d, 0);
	is_u64(drv_status(&d), 0x0f, "a reset with requests in flight is not over yet");
	request(0, 2, T_IN, 0, 512, true);
	is_u64(disk.count, 2, "doorbells do nothing meanwhile");
	drv_set_status(&d, 1);
	drv_set_status(&d, 0);
	drv_write(&d, d.common + VIRTIO_PCI_QUEUE_ENABLE, 1, 2);
	is_u64(drv_status(&d), 0x0f, "nor does the status");
	announced = 0;
	fake_disk_complete(&disk, 0);
	is_u64(drv_status(&d), 0x0f, "one left");
	fake_disk_complete(&disk, 0);
	is_u64(drv_status(&d), 0, "now it is over");
	is_u64(status(0), NOT_DONE, "no status was written");
	ok(!drv_used(&d, 0, NULL, NULL) && !drv_used(&d, 1, NULL, NULL), "nothing in the rings");
	is_u64(announced, 512, "what the read put into memory was announced");
	is_u64(drv_start(&d, ALL, 16), 0x0f, "the next driver");
	is_u64(perform(T_IN, 1, 512, true), OK, "works");

	request(0, 0, T_IN, 0, 512, true);
	pci_bus_reset(&rig.bus);
	is_u64(disk.count, 0, "the machine's reset waits");
	is_u64(disk.drains, 1, "by draining the disk");
	drv_probe(&d, &rig);
	is_u64(drv_status(&d), 0, "and resets");

	/* The driver breaks the ring while a request is in flight. */
	drv_start(&d, ALL, 16);
	request(0, 0, T_IN, 0, 512, true);
	drv_offer(&d, 1, 1000);
	drv_kick(&d, 1);
	is_u64(drv_status(&d), 0x4f, "a broken ring");
	fake_disk_complete_all(&disk);
	is_u64(status(0), NOT_DONE, "nothing is returned any more");
	is_u64(drv_start(&d, ALL, 16), 0x0f, "a reset repairs it");
	is_u64(perform(T_IN, 1, 512, true), OK, "all slots are there");
}

static void test_bad_chains(void)
{
	struct drv_buffer b[2] = { { HEADER(0), 15, false }, { STATUS(0), 1, true } };

	drv_start(&d, ALL, 16);
	put_header(0, T_IN, 0);
	drv_add(&d, 0, b, 2);
	drv_kick(&d, 0);
	is_u64(drv_status(&d), 0x4f, "a short header");
	drv_start(&d, ALL, 16);
	b[0].len = 16;
	drv_add(&d, 0, b, 1);
	drv_kick(&d, 0);
	is_u64(drv_status(&d), 0x4f, "no status");

	is_u64(disk.count, 0, "nothing was submitted");

	struct drv_buffer most[VIRTIO_BLK_SEGMENTS + 2];

	drv_start(&d, ALL, VIRTIO_BLK_QUEUE_SIZE);
	put_header(0, T_IN, 0);
	for (unsigned i = 0; i <= VIRTIO_BLK_SEGMENTS; i++)
		most[i] = (struct drv_buffer){ i ? DATA(0) : HEADER(0), i ? 4 : 16, i };
	most[VIRTIO_BLK_SEGMENTS + 1] = (struct drv_buffer){ STATUS(0), 1, true };
	most[1].len += 512 - 4 * VIRTIO_BLK_SEGMENTS % 512; /* a whole number of sectors */
	drv_add(&d, 0, most, VIRTIO_BLK_SEGMENTS + 2);
	drv_kick(&d, 0);
	is_u64(drv_status(&d), 0xf, "as many segments as there may be");
	is_u64(disk.count, 1, "they are submitted");
}

int main(void)
{
	start_device(false, 2);
	test_config();
	test_transfers();
	test_ranges();
	test_discard();
	test_order_and_queues();
	test_writethrough();
	test_slots();
	test_reset_in_flight();
	test_bad_chains();
	drv_start(&d, ALL, 16);
	request(0, 0, T_IN, 0, 512, true);
	rig_finish(&rig);
	is_u64(disk.count, 0, "destroying waits for requests in flight");

	start_device(true, 1);
	is_u64(drv_offered(&d) & (F_RO | F_MQ | F_DISCARD | F_WRITE_ZEROES), F_RO,
	       "a read-only disk");
	drv_start(&d, FEATURES | F_RO | F_FLUSH, 16);
	is_u64(perform(T_OUT, 0, 512, false), IOERR, "cannot be written");
	is_u64(perform(T_IN, 0, 512, true), OK, "can be read");
	rig_finish(&rig);
	return done_testing();
}
