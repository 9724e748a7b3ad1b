/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clock of a running VM. VM time is host monotonic time less `offset_ns`; pausing notes the VM time and
 * takes all timers off the loop, resuming moves the offset and puts them back. In the loop's monitor.
 */
#include "base/vmclock.h"

#include <assert.h>
#include <time.h>

static struct vmclock *vmclock_of(struct clock *clock)
{
	return container_of(clock, struct vmclock, clock);
}

static uint64_t now_ns(struct clock *clock)
{
	struct vmclock *vc = vmclock_of(clock);

	return vc->paused ? vc->paused_at_ns : loop_now_ns() - vc->offset_ns;
}

static void unlink_timer(struct vmclock *vc, struct clock_timer *t)
{
	struct clock_timer **p = &vc->armed;

	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	t->armed = false;
}

static void host_fire(void *opaque)
{
	struct clock_timer *t = opaque;

	unlink_timer(vmclock_of(t->clock), t);
	t->fire(t->opaque);
}

/* A guest may ask for a deadline at the end of time: it then never comes, instead of wrapping to now. */
static void arm_host(struct vmclock *vc, struct clock_timer *t)
{
	uint64_t host_ns;

	if (__builtin_add_overflow(t->deadline_ns, vc->offset_ns, &host_ns))
		host_ns = UINT64_MAX;
	loop_timer_arm(&t->host, host_ns);
}

static void arm(struct clock *clock, struct clock_timer *t, uint64_t deadline_ns)
{
	struct vmclock *vc = vmclock_of(clock);

	if (!t->armed) {
		loop_timer_init(vc->loop, &t->host, host_fire, t);
		t->clock = clock;
		t->armed = true;
		t->next = vc->armed;
		vc->armed = t;
	}
	assert(t->clock == clock);
	t->deadline_ns = deadline_ns;
	if (!vc->paused)
		arm_host(vc, t);
}

static void cancel(struct clock *clock, struct clock_timer *t)
{
	if (!t->armed)
		return;
	assert(t->clock == clock);
	loop_timer_cancel(&t->host);
	unlink_timer(vmclock_of(clock), t);
}

static int64_t wall_s(struct clock *clock)
{
	return time(NULL);
}

void vmclock_init(struct vmclock *vc, struct loop *loop)
{
	*vc = (struct vmclock){
		.clock = { .now_ns = now_ns, .arm = arm, .cancel = cancel, .wall_s = wall_s },
		.loop = loop,
		.offset_ns = loop_now_ns(),
	};
}

void vmclock_pause(struct vmclock *vc)
{
	if (vc->paused)
		return;
	vc->paused_at_ns = now_ns(&vc->clock);
	vc->paused = true;
	for (struct clock_timer *t = vc->armed; t; t = t->next)
		loop_timer_cancel(&t->host);
}

void vmclock_resume(struct vmclock *vc)
{
	if (!vc->paused)
		return;
	vc->offset_ns = loop_now_ns() - vc->paused_at_ns;
	vc->paused = false;
	for (struct clock_timer *t = vc->armed; t; t = t->next)
		arm_host(vc, t);
}
