/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-balloon: giving pages, taking them back, reports, statistics, and drivers that lie. */
#include <sys/mman.h>

#include "dev/virtio/virtio_balloon.h"
#include "tests/tap.h"
#include "tests/unit/virtio_driver.h"

#define BASE_FEATURES VIRTIO_BIT(VIRTIO_F_VERSION_1)
#define STATS VIRTIO_BIT(1)
#define REPORTING VIRTIO_BIT(5)
enum { INFLATE, DEFLATE, STATISTICS, OLD_REPORTING, REPORTS };

#define LIST DATA_BASE		    /* page numbers are named here */
#define PAGES (DATA_BASE + 0x10000) /* pages that are given */

static struct rig rig;
static struct drv d;
static struct virtio_device *v;
static uint64_t written_gpa, written_len;

static void on_written(void *opaque, uint64_t gpa, uint64_t len)
{
	if (gpa < RING_BASE || gpa >= DATA_BASE) {
		written_gpa = gpa;
		written_len += len;
	}
}

static void start(uint64_t features)
{
	drv_start(&d, BASE_FEATURES | features, 32);
	/* drv_start sets up four queues; queue 4 is set up before the driver is ready. */
	drv_negotiate(&d, BASE_FEATURES | features);
	for (unsigned i = 0; i < 5; i++)
		drv_set_queue(&d, i, 32, true);
	drv_ready(&d);
}

/* Does the host hold a page for @gpa? */
static bool resident(uint64_t gpa)
{
	unsigned char in = 0;

	return mincore(rig.mem->ram_base + gpa, MEM_PAGE_SIZE, &in) == 0 && (in & 1);
}

static void fill(uint64_t gpa, uint64_t len)
{
	memset(rig.mem->ram_base + gpa, 0x5a, len);
}

static bool is_filled(uint64_t gpa)
{
	return rig.mem->ram_base[gpa] == 0x5a && rig.mem->ram_base[gpa + MEM_PAGE_SIZE - 1] == 0x5a;
}

static void name_pages(unsigned queue, const uint32_t *pfns, unsigned count)
{
	struct drv_buffer b = { LIST, 4 * count, false };

	for (unsigned i = 0; i < count; i++)
		ram_store(&rig, LIST + 4 * i, pfns[i], 4);
	drv_add(&d, queue, &b, 1);
	drv_kick(&d, queue);
}

static struct virtio_balloon_state state(void)
{
	struct virtio_balloon_state s;

	virtio_balloon_get_state(v, &s);
	return s;
}

static void test_inflate(void)
{
	uint32_t first = PAGES / 4096, list[] = { first + 2, first, first + 1, first + 5 };

	start(STATS | REPORTING);
	is_u64(drv_status(&d), 0x0f, "the driver is up");
	ok(state().driver, "and the device knows");
	fill(PAGES, 8 * 4096);
	written_len = 0;
	name_pages(INFLATE, list, 4);
	ok(drv_used(&d, INFLATE, NULL, NULL), "the list of pages comes back");
	ok(!resident(PAGES) && !resident(PAGES + 0x1000) && !resident(PAGES + 0x2000) && !resident(PAGES + 0x5000),
	   "the host has the pages back");
	ok(is_filled(PAGES + 0x3000) && is_filled(PAGES + 0x4000) && is_filled(PAGES + 0x6000),
	   "and no others");
	is_u64(written_len, 4 * 4096, "what held code is told");
	is_u64(ram_load(&rig, PAGES, 8), 0, "a page that was given reads as zero");
	fill(PAGES, 4096);
	ok(is_filled(PAGES), "and can be used again");
	name_pages(DEFLATE, list, 4);
	ok(drv_used(&d, DEFLATE, NULL, NULL), "taking back is a formality");
	ok(is_filled(PAGES), "which leaves the contents alone");
}

static void test_lies(void)
{
	/* Beyond RAM, in the hole, at the end of the numbers, and one that is good. */
	uint32_t list[] = { RIG_RAM_BYTES / 4096, 0xd0000, 0xffffffff, PAGES / 4096 };
	struct drv_buffer odd = { LIST, 7, false }, in = { LIST, 16, true }, huge = { DATA_BASE, MiB, false };

	fill(PAGES, 4096);
	name_pages(INFLATE, list, 4);
	ok(drv_used(&d, INFLATE, NULL, NULL) && !resident(PAGES), "pages that are no RAM are passed over");
	fill(PAGES, 4096);
	ram_store(&rig, LIST, PAGES / 4096, 4);
	drv_add(&d, INFLATE, &odd, 1);
	drv_add(&d, INFLATE, &in, 1);
	drv_kick(&d, INFLATE);
	rig_run_loop(&rig);
	ok(drv_used(&d, INFLATE, NULL, NULL) && drv_used(&d, INFLATE, NULL, NULL) && !resident(PAGES),
	   "half a number, and a buffer that is none to read");
	memset(rig.mem->ram_base + DATA_BASE, 0xff, MiB);
	drv_add(&d, INFLATE, &huge, 1);
	drv_kick(&d, INFLATE);
	ok(drv_used(&d, INFLATE, NULL, NULL), "a list that is too long comes back");
	is_u64(drv_status(&d), 0x0f, "the device lives on");
}

static void test_target(void)
{
	unsigned before = rig.msi.count;

	drv_enable_msix(&d);
	is_u64(drv_read(&d, d.device, 4), 0, "nothing is asked for at first");
	virtio_balloon_set_target(v, MiB);
	is_u64(drv_read(&d, d.device, 4), 256, "a target of 1 MiB is 256 pages");
	is_u64(rig.msi.count, before + 1, "and an interrupt");
	is_u64(rig.msi.data, 0x40 + 5, "that says the configuration has changed");
	is_u64(drv_read(&d, d.common + VIRTIO_PCI_CONFIG_GENERATION, 1), 1, "so does its generation");
	virtio_balloon_set_target(v, MiB);
	is_u64(rig.msi.count, before + 1, "the same target again is no news");
	drv_write(&d, d.device, 77, 4);
	is_u64(drv_read(&d, d.device, 4), 256, "the driver cannot write the target");
	drv_write(&d, d.device + 4, 200, 4);
	is_u64(state().given_bytes, 200 * 4096, "it says how far it came");
	is_u64(state().target_bytes, MiB, "of what was asked for");
	drv_write(&d, d.device + 4, ~0u, 4);
	is_u64(state().given_bytes, 0xffffffffull * 4096, "any number it likes");
	drv_set_status(&d, 0);
	is_u64(state().given_bytes, 0, "a reset forgets what was given");
	is_u64(state().target_bytes, MiB, "but not what is asked for");
	ok(!state().driver, "and there is no driver then");
	virtio_balloon_set_target(v, 2 * MiB);
	is_u64(rig.msi.count, before + 1, "nobody is told without a driver");
}

static void store_stat(unsigned i, uint16_t tag, uint64_t value)
{
	ram_store(&rig, LIST + 10 * i, tag, 2);
	ram_store(&rig, LIST + 10 * i + 2, value, 8);
}

static void test_statistics(void)
{
	struct drv_buffer three = { LIST, 30, false }, short_one = { LIST, 9, false };
	uint32_t id = ~0u;
	uint16_t head;

	start(STATS | REPORTING);
	ok(!state().has_statistics, "none at first");
	virtio_balloon_ask_statistics(v);
	store_stat(0, VIRTIO_BALLOON_FREE, 12345);
	store_stat(1, VIRTIO_BALLOON_AVAILABLE, 1ull << 40);
	store_stat(2, 0x7777, 5);
	head = drv_add(&d, STATISTICS, &three, 1);
	drv_kick(&d, STATISTICS);
	ok(state().has_statistics && state().statistics[VIRTIO_BALLOON_FREE] == 12345 &&
		   state().statistics[VIRTIO_BALLOON_AVAILABLE] == 1ull << 40,
	   "the driver tells");
	is_u64(state().statistics_set, 1u << VIRTIO_BALLOON_FREE | 1u << VIRTIO_BALLOON_AVAILABLE,
	       "what it did not tell is not there, what is unknown is left out");
	ok(!drv_used(&d, STATISTICS, NULL, NULL), "its buffer waits");
	virtio_balloon_ask_statistics(v);
	ok(drv_used(&d, STATISTICS, &id, NULL) && id == head, "until somebody asks");
	virtio_balloon_ask_statistics(v);
	ok(!drv_used(&d, STATISTICS, NULL, NULL), "once");

	head = drv_add(&d, STATISTICS, &three, 1);
	drv_add(&d, STATISTICS, &short_one, 1);
	drv_kick(&d, STATISTICS);
	rig_run_loop(&rig);
	ok(drv_used(&d, STATISTICS, &id, NULL) && id == head, "of two buffers the older comes back");
	is_u64(state().statistics_set, 0, "a buffer that is too short has no statistics");
	drv_set_status(&d, 0);
	ok(!state().has_statistics, "a reset forgets them");
	virtio_balloon_ask_statistics(v);
	start(STATS | REPORTING);
	virtio_balloon_ask_statistics(v);
	ok(!drv_used(&d, STATISTICS, NULL, NULL), "and the buffer of before the reset");
}

static void report(unsigned queue, uint64_t gpa, uint32_t len)
{
	struct drv_buffer b = { gpa, len, true };

	fill(PAGES, 16 * 4096);
	drv_add(&d, queue, &b, 1);
	drv_kick(&d, queue);
}

static void test_reports(void)
{
	uint64_t before = state().reported_bytes;
	struct drv_buffer two[] = { { PAGES, 4096, true }, { PAGES + 0x3000, 8192, true } };

	fill(PAGES, 16 * 4096);
	drv_add(&d, REPORTS, two, 2);
	drv_kick(&d, REPORTS);
	ok(drv_used(&d, REPORTS, NULL, NULL), "a report comes back");
	ok(!resident(PAGES) && !resident(PAGES + 0x3000) && !resident(PAGES + 0x4000), "and the host has its pages");
	ok(is_filled(PAGES + 0x1000) && is_filled(PAGES + 0x5000), "and no others");
	is_u64(state().reported_bytes - before, 3 * 4096, "they are counted");
	report(OLD_REPORTING, PAGES, 4096);
	ok(drv_used(&d, OLD_REPORTING, NULL, NULL) && !resident(PAGES), "also through the queue that older Linux takes");
	report(REPORTS, PAGES + 100, 2 * 4096);
	ok(drv_used(&d, REPORTS, NULL, NULL) && is_filled(PAGES) && !resident(PAGES + 0x1000) && is_filled(PAGES + 0x2000),
	   "parts of pages stay");
	report(REPORTS, PAGES + 100, 200);
	ok(drv_used(&d, REPORTS, NULL, NULL) && is_filled(PAGES), "less than a page is nothing");

	start(REPORTING);
	report(STATISTICS, PAGES, 4096);
	ok(drv_used(&d, STATISTICS, NULL, NULL) && !resident(PAGES), "without statistics older Linux takes queue 2");
	start(STATS);
	report(REPORTS, PAGES, 4096);
	ok(!drv_used(&d, REPORTS, NULL, NULL) && is_filled(PAGES), "reports that were not agreed upon are left alone");
	report(REPORTS, 0xd0000000, 4096);
	ok(!(drv_status(&d) & VIRTIO_STATUS_NEEDS_RESET), "even broken ones");
	start(REPORTING);
	report(REPORTS, 0xd0000000, 4096);
	ok(drv_status(&d) & VIRTIO_STATUS_NEEDS_RESET, "a report of what is no RAM breaks the queue");
}

int main(void)
{
	rig_init(&rig);
	rig.mem->on_written = on_written;
	v = virtio_balloon_create(rig.mem, rig.loop);
	virtio_pci_attach(&rig.bus, RIG_DEVFN, v);
	drv_probe(&d, &rig);
	is_u64(drv_offered(&d) & 0xff, 0x26, "statistics, deflate on OOM and reports are offered");
	test_inflate();
	test_lies();
	test_target();
	test_statistics();
	test_reports();
	rig_finish(&rig);
	return done_testing();
}
