/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fakes for unit tests of chips: a clock that moves only when told to, wires that remember what was
 * done to them, and a character back end that keeps what was written.
 */
#ifndef TESTS_UNIT_FAKES_H
#define TESTS_UNIT_FAKES_H

#include <assert.h>

#include "dev/device.h"
#include "ui/chardev.h"

struct fake_clock {
	struct clock clock;
	uint64_t now_ns;
	int64_t wall_base_s; /* wall clock at now_ns == 0 */
	struct clock_timer *armed;
};

static inline uint64_t fake_clock_now(struct clock *clock)
{
	return container_of(clock, struct fake_clock, clock)->now_ns;
}

static inline int64_t fake_clock_wall(struct clock *clock)
{
	struct fake_clock *fc = container_of(clock, struct fake_clock, clock);

	return fc->wall_base_s + (int64_t)(fc->now_ns / NS_PER_SEC);
}

static inline void fake_clock_cancel(struct clock *clock, struct clock_timer *t)
{
	struct fake_clock *fc = container_of(clock, struct fake_clock, clock);

	for (struct clock_timer **p = &fc->armed; *p; p = &(*p)->next) {
		if (*p == t) {
			*p = t->next;
			break;
		}
	}
	t->armed = false;
}

static inline void fake_clock_arm(struct clock *clock, struct clock_timer *t, uint64_t deadline_ns)
{
	struct fake_clock *fc = container_of(clock, struct fake_clock, clock);
	struct clock_timer **p = &fc->armed;

	fake_clock_cancel(clock, t);
	t->deadline_ns = deadline_ns;
	t->armed = true;
	while (*p && (*p)->deadline_ns <= deadline_ns)
		p = &(*p)->next;
	t->next = *p;
	*p = t;
}

static inline void fake_clock_init(struct fake_clock *fc)
{
	*fc = (struct fake_clock){
		.clock = { fake_clock_now, fake_clock_arm, fake_clock_cancel, fake_clock_wall },
	};
}

/*
 * Moves time to @to_ns, firing what falls due on the way at its own time. Returns how many fired.
 */
static inline unsigned fake_clock_advance_to(struct fake_clock *fc, uint64_t to_ns)
{
	unsigned fired = 0;

	while (fc->armed && fc->armed->deadline_ns <= to_ns) {
		struct clock_timer *t = fc->armed;

		fake_clock_cancel(&fc->clock, t);
		fc->now_ns = MAX(fc->now_ns, t->deadline_ns);
		t->fire(t->opaque);
		fired++;
		assert(fired < 10000000);
	}
	fc->now_ns = MAX(fc->now_ns, to_ns);
	return fired;
}

static inline unsigned fake_clock_advance(struct fake_clock *fc, uint64_t ns)
{
	return fake_clock_advance_to(fc, fc->now_ns + ns);
}

/* A wire with an oscilloscope on it; irq_line pins index an array of these. */
struct fake_line {
	bool level;
	bool listens, waits; /* a processor does; an edge waits for it */
	unsigned rises, falls;
};

static inline void fake_line_set(void *opaque, unsigned pin, bool level)
{
	struct fake_line *l = (struct fake_line *)opaque + pin;

	if (level && !l->level)
		l->rises++, l->waits = true;
	if (!level && l->level)
		l->falls++;
	l->level = level;
}

/* An irq_waits_fn: as if a processor listened that takes nothing until the test clears @waits. */
static inline bool fake_line_waits(void *opaque, unsigned pin)
{
	const struct fake_line *l = (const struct fake_line *)opaque + pin;

	return l->listens && l->waits;
}

static inline struct irq_line fake_line(struct fake_line *l)
{
	return (struct irq_line){ .set = fake_line_set, .opaque = l };
}

/* A sink that keeps the last message-signalled interrupt and counts them. */
struct fake_msi {
	struct msi_sink sink;
	unsigned count;
	uint64_t address;
	uint32_t data;
};

static inline void fake_msi_send(void *opaque, uint64_t address, uint32_t data)
{
	struct fake_msi *m = opaque;

	m->count++;
	m->address = address;
	m->data = data;
}

static inline void fake_msi_init(struct fake_msi *m)
{
	*m = (struct fake_msi){ .sink = { .send = fake_msi_send, .opaque = m } };
}

/* A back end that keeps the first bytes written to it and counts calls of resume. */
struct fake_chardev {
	struct chardev chr;
	char out[256];
	size_t out_len;
	unsigned resumed;
	bool no_room; /* for those who would rather wait */
};

static inline void fake_chardev_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	struct fake_chardev *f = container_of(chr, struct fake_chardev, chr);

	for (size_t i = 0; i < len && f->out_len < sizeof(f->out); i++)
		f->out[f->out_len++] = (char)buf[i];
}

static inline size_t fake_chardev_room(struct chardev *chr)
{
	return container_of(chr, struct fake_chardev, chr)->no_room ? 0 : SIZE_MAX;
}

static inline void fake_chardev_resume(struct chardev *chr)
{
	container_of(chr, struct fake_chardev, chr)->resumed++;
}

static inline void fake_chardev_destroy(struct chardev *chr)
{
	(void)chr;
}

static inline void fake_chardev_init(struct fake_chardev *f)
{
	static const struct chardev_ops ops = { .name = "fake",
						.write = fake_chardev_write,
						.resume = fake_chardev_resume,
						.destroy = fake_chardev_destroy,
						.room = fake_chardev_room };

	*f = (struct fake_chardev){ .chr.ops = &ops };
}

/* Gives @len bytes to the chip as a back end does: never more than it takes. Returns how many. */
static inline size_t fake_chardev_input(struct fake_chardev *f, const void *buf, size_t len)
{
	const struct chardev_client *c = &f->chr.client;
	size_t n = MIN(len, c->can_receive(c->opaque));

	if (n)
		c->receive(c->opaque, buf, n);
	return n;
}

#endif
