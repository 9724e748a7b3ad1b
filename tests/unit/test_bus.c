/* SPDX-License-Identifier: Apache-2.0 */
/* mem/bus.h: who answers, in which widths, and what a chip may do meanwhile. */
#include "mem/bus.h"

#include "tests/tap.h"

/* A chip that is memory, and notes every access as "r<offset>.<size>" or "w<offset>.<size>=<value>". */
struct chip {
	struct io_region region;
	uint8_t bytes[64];
	char log[256];
	struct bus *remove_from; /* takes itself off this bus when it is written */
};

static uint64_t chip_read(void *opaque, uint64_t offset, unsigned size)
{
	struct chip *c = opaque;
	size_t len = strlen(c->log);

	snprintf(c->log + len, sizeof(c->log) - len, "r%" PRIu64 ".%u ", offset, size);
	/* What lies above the width asked for is the bus's to cut off. */
	return load_le(c->bytes + offset, size) | ~size_mask(size);
}

static void chip_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct chip *c = opaque;
	size_t len = strlen(c->log);

	snprintf(c->log + len, sizeof(c->log) - len, "w%" PRIu64 ".%u=%" PRIx64 " ", offset, size,
		 value);
	store_le(c->bytes + offset, value, size);
	if (c->remove_from)
		bus_remove(c->remove_from, &c->region);
}

static const struct io_ops any = { .read = chip_read, .write = chip_write };
static const struct io_ops bytes_only = { .read = chip_read, .write = chip_write, .max_width = 1 };
static const struct io_ops dwords_only = {
	.read = chip_read, .write = chip_write, .min_width = 4, .max_width = 4
};

static void chip_init(struct chip *c, uint64_t base, uint64_t length, const struct io_ops *ops)
{
	*c = (struct chip){ .region = { .name = "chip",
					.base = base,
					.length = length,
					.ops = ops,
					.opaque = c } };
	for (unsigned i = 0; i < sizeof(c->bytes); i++)
		c->bytes[i] = (uint8_t)(0x10 + i);
}

static void is_log(struct chip *c, const char *want, const char *what)
{
	is_str(c->log, want, "%s", what);
	c->log[0] = 0;
}

static void test_widths(void)
{
	struct bus *bus = bus_create("test");
	struct chip c;

	is_u64(bus_read(bus, 0x70, 1), 0xff, "nobody answers: ones");
	is_u64(bus_read(bus, 0x70, 8), ~0ull, "eight bytes of them");
	bus_write(bus, 0x70, 0, 4);

	chip_init(&c, 0x100, 16, &any);
	bus_add(bus, &c.region);
	ok(c.region.mapped, "the bus marks what is mapped");
	is_u64(bus_read(bus, 0x100, 8), 0x1716151413121110ull, "eight bytes");
	is_log(&c, "r0.8 ", "in one access");
	is_u64(bus_read(bus, 0x102, 2), 0x1312, "two bytes, the rest cut off");
	c.log[0] = 0;
	is_u64(bus_read(bus, 0x101, 4), 0x14131211, "misaligned");
	is_log(&c, "r1.1 r2.2 r4.1 ", "comes in aligned parts");
	bus_write(bus, 0x103, 0x11223344, 4);
	is_log(&c, "w3.1=44 w4.2=2233 w6.1=11 ", "so do writes");
	is_u64(bus_read(bus, 0x10e, 4), 0xffff1f1e, "over the end: ones above");
	c.log[0] = 0;
	is_u64(bus_read(bus, 0xfe, 4), 0x1110ffff, "over the start: ones below");
	is_log(&c, "r0.2 ", "and the chip sees its part only");
	bus_write(bus, 0xff, 0xaabb, 2);
	is_log(&c, "w0.1=aa ", "writes too");
	bus_remove(bus, &c.region);
	bus_remove(bus, &c.region);
	is_u64(bus_read(bus, 0x100, 1), 0xff, "removed");
	is_log(&c, "", "and not asked");

	chip_init(&c, 0x60, 5, &bytes_only);
	bus_add(bus, &c.region);
	is_u64(bus_read(bus, 0x60, 4), 0x13121110, "wide read of a byte-wide chip");
	is_log(&c, "r0.1 r1.1 r2.1 r3.1 ", "is split, low part first");
	bus_write(bus, 0x63, 0x8899, 2);
	is_log(&c, "w3.1=99 w4.1=88 ", "and so is a write");
	bus_remove(bus, &c.region);

	chip_init(&c, 0x1000, 32, &dwords_only);
	bus_add(bus, &c.region);
	is_u64(bus_read(bus, 0x1006, 1), 0x16, "narrow read of a dword-wide chip");
	is_log(&c, "r4.4 ", "is cut out of a wider one");
	is_u64(bus_read(bus, 0x1003, 2), 0x1413, "across two dwords");
	is_log(&c, "r0.4 r4.4 ", "two of them");
	is_u64(bus_read(bus, 0x1008, 8), 0x1f1e1d1c1b1a1918ull, "wide read");
	is_log(&c, "r8.4 r12.4 ", "two dwords, low first");
	bus_write(bus, 0x1009, 0x5a, 1);
	is_log(&c, "w8.4=5a00 ", "a narrow write is widened with zeroes");
	bus_remove(bus, &c.region);
	bus_destroy(bus);
}

static void test_overlap(void)
{
	struct bus *bus = bus_create("test");
	struct chip low, high, same, last;

	chip_init(&low, 0x100, 32, &any);
	chip_init(&high, 0x108, 4, &any);
	chip_init(&same, 0x100, 64, &any);
	high.region.priority = 1;
	memset(high.bytes, 0xee, sizeof(high.bytes));
	memset(same.bytes, 0xdd, sizeof(same.bytes));
	bus_add(bus, &low.region);
	bus_add(bus, &same.region);
	bus_add(bus, &high.region);
	is_u64(bus_read(bus, 0x108, 4), 0xeeeeeeee, "the higher priority wins");
	is_u64(bus_read(bus, 0x106, 8), 0x1d1ceeeeeeee1716ull, "within one access too");
	is_u64(bus_read(bus, 0x11e, 4), 0xdddd2f2e, "at equal priority the first one does");
	bus_remove(bus, &high.region);
	is_u64(bus_read(bus, 0x108, 2), 0x1918, "what was under it shows again");
	bus_remove(bus, &low.region);
	is_u64(bus_read(bus, 0x108, 1), 0xdd, "and what was under that");

	/* A chip that leaves the bus while it is written: the rest of the write goes to what is under it. */
	bus_add(bus, &high.region);
	high.region.ops = &bytes_only;
	high.remove_from = bus;
	same.log[0] = high.log[0] = 0;
	bus_write(bus, 0x108, 0x44332211, 4);
	is_log(&high, "w0.1=11 ", "a chip that removes itself is not written any more");
	is_log(&same, "w9.1=22 w10.2=4433 ", "the rest goes to the next one");
	bus_remove(bus, &same.region);

	chip_init(&last, ~0ull - 15, 16, &any);
	bus_add(bus, &last.region);
	is_u64(bus_read(bus, ~0ull - 7, 8), 0x1f1e1d1c1b1a1918ull,
	       "the last bytes of the address space");
	is_u64(bus_read(bus, ~0ull, 2), 0xff1f, "and beyond them");
	is_u64(bus_read(bus, ~0ull - 17, 4), 0x1110ffff, "and before");
	bus_remove(bus, &last.region);
	bus_destroy(bus);
	bus_destroy(NULL);
}

static void count(void *opaque, const char *name, uint64_t reads, uint64_t writes)
{
	char *text = opaque;

	sprintf(text + strlen(text), "%s %" PRIu64 "/%" PRIu64 " ", name, reads, writes);
}

static void test_statistics(void)
{
	struct bus *bus = bus_create("test");
	char text[256] = "";
	struct chip c;

	chip_init(&c, 0x100, 16, &bytes_only);
	bus_add(bus, &c.region);
	bus_read(bus, 0x100, 1);
	bus_write(bus, 0x102, 0, 4);
	bus_read(bus, 0x200, 4);
	bus_statistics(bus, count, text);
	is_str(text, "chip 1/4 nobody 1/0 ", "accesses are counted, split ones by part");
	bus_remove(bus, &c.region);
	bus_destroy(bus);
}

/* Who rings: what is on, as a text. */
static struct {
	char log[256];
} ringer;

static void ring_set(void *opaque, uint64_t addr, int fd, bool on)
{
	size_t len = strlen(ringer.log);

	snprintf(ringer.log + len, sizeof(ringer.log) - len, "%c%" PRIx64 ":%d ", on ? '+' : '-', addr, fd);
}

static void test_doorbells(void)
{
	static const struct io_doorbell bells[] = { { 0, 7 }, { 8, 9 } };
	const struct bus_ringer r = { ring_set, NULL };
	struct bus *bus = bus_create("bells");
	struct chip c;

	chip_init(&c, 0x1000, 64, &any);
	c.region.doorbells = bells;
	c.region.doorbell_count = 2;
	ok(!bus_has_ringer(bus), "nobody rings");
	bus_add(bus, &c.region);
	bus_remove(bus, &c.region);
	is_str(ringer.log, "", "and nobody is told");
	bus_set_ringer(bus, &r);
	ok(bus_has_ringer(bus), "somebody rings");
	bus_add(bus, &c.region);
	is_str(ringer.log, "+1000:7 +1008:9 ", "a mapped region's doorbells are his");
	bus_write(bus, 0x1008, 5, 4);
	is_log(&c, "w8.4=5 ", "what he does not take comes as a call");
	ringer.log[0] = 0;
	bus_remove(bus, &c.region);
	is_str(ringer.log, "-1000:7 -1008:9 ", "until it goes");
	bus_remove(bus, &c.region);
	is_str(ringer.log, "-1000:7 -1008:9 ", "once");
	bus_set_ringer(bus, NULL);
	ok(!bus_has_ringer(bus), "nobody again");
	bus_destroy(bus);
}

int main(void)
{
	test_widths();
	test_overlap();
	test_statistics();
	test_doorbells();
	return done_testing();
}
