/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The time that chips see, and timers on it: handed to a chip when it is made, so that a unit test can
 * drive any chip with a fake clock. The VM's clock (base/vmclock.h) stands still while the VM is paused.
 *
 * Threading: called with the lock of the loop that the devices are attached to.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"

struct clock_timer;

struct clock {
	uint64_t (*now_ns)(struct clock *clock);
	/* One-shot; arming an armed timer moves it; a deadline that has passed fires soon. */
	void (*arm)(struct clock *clock, struct clock_timer *t, uint64_t deadline_ns);
	void (*cancel)(struct clock *clock, struct clock_timer *t);
	/* Wall-clock seconds since 1970 (UTC), for the RTC. */
	int64_t (*wall_s)(struct clock *clock);
};

struct clock_timer {
	void (*fire)(void *opaque); /* called with the lock held, not re-entrantly from arm() */
	void *opaque;
	bool armed;
	uint64_t deadline_ns;
	struct clock *clock;	  /* for the clock's use */
	struct clock_timer *next; /* for the clock's use */
	struct loop_timer host;	  /* for the clock's use */
};

static inline uint64_t clock_now_ns(struct clock *c)
{
	return c->now_ns(c);
}

static inline void clock_arm(struct clock *c, struct clock_timer *t, uint64_t deadline_ns)
{
	c->arm(c, t, deadline_ns);
}

static inline void clock_cancel(struct clock *c, struct clock_timer *t)
{
	c->cancel(c, t);
}

/* a * b / c with a 128-bit intermediate: ticks to nanoseconds and back. */
static inline uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	return (uint64_t)((unsigned __int128)a * b / c);
}

#endif
