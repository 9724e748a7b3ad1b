/* SPDX-License-Identifier: Apache-2.0 */
/* base/vmclock.h: VM time stands while paused, and timers keep to VM time. */
#include "base/vmclock.h"

#include <time.h>
#include <unistd.h>

#include "tests/tap.h"

static struct loop *loop;
static struct vmclock vc;
static struct clock *clk = &vc.clock;

struct alarm {
	struct clock_timer timer;
	unsigned fired;
	uint64_t at_ns;
};

static void ring(void *opaque)
{
	struct alarm *a = opaque;

	a->fired++;
	a->at_ns = clock_now_ns(clk);
}

static void stop(void *opaque)
{
	loop_stop(loop);
}

static void run_for(unsigned ms)
{
	struct loop_timer t;

	loop_timer_init(loop, &t, stop, NULL);
	loop_timer_arm(&t, loop_now_ns() + ms * NS_PER_MS);
	loop_run(loop);
}

int main(void)
{
	struct alarm a = { .timer = { .fire = ring, .opaque = &a } };
	struct alarm b = { .timer = { .fire = ring, .opaque = &b } };
	uint64_t t0, t1;

	if (loop_create(&loop))
		return 1;
	vmclock_init(&vc, loop);
	ok(clock_now_ns(clk) < NS_PER_SEC, "starts at 0");
	t0 = clock_now_ns(clk);
	usleep(2000);
	t1 = clock_now_ns(clk);
	ok(t1 - t0 >= 2 * NS_PER_MS, "runs");
	ok(llabs(clk->wall_s(clk) - time(NULL)) <= 1, "wall clock is the host's");

	clock_arm(clk, &a.timer, t1 + 10 * NS_PER_MS);
	clock_arm(clk, &b.timer, t1 + 5 * NS_PER_MS);
	ok(a.timer.armed, "armed");
	clock_arm(clk, &b.timer, t1 + 15 * NS_PER_MS);
	run_for(40);
	ok(a.fired == 1 && b.fired == 1 && !a.timer.armed, "timers fire once");
	ok(a.at_ns >= t1 + 10 * NS_PER_MS && b.at_ns >= t1 + 15 * NS_PER_MS, "not early");

	t0 = clock_now_ns(clk);
	clock_arm(clk, &a.timer, t0 + 20 * NS_PER_MS);
	vmclock_pause(&vc);
	vmclock_pause(&vc);
	t0 = clock_now_ns(clk);
	clock_arm(clk, &b.timer, t0 + 1);
	run_for(40);
	is_u64(clock_now_ns(clk), t0, "time stands while paused");
	ok(a.fired == 1 && b.fired == 1 && a.timer.armed && b.timer.armed,
	   "no timer fires while paused");
	vmclock_resume(&vc);
	vmclock_resume(&vc);
	ok(clock_now_ns(clk) - t0 < 20 * NS_PER_MS, "time goes on where it stood");
	run_for(60);
	ok(a.fired == 2 && b.fired == 2, "timers fire after resume");
	ok(a.at_ns >= t0 + 19 * NS_PER_MS, "and not before their VM time");

	t0 = clock_now_ns(clk);
	clock_arm(clk, &a.timer, t0 + NS_PER_MS);
	clock_arm(clk, &b.timer, 0);
	clock_cancel(clk, &a.timer);
	clock_cancel(clk, &a.timer);
	ok(!a.timer.armed, "cancelled");
	run_for(10);
	is_u64(a.fired, 2, "a cancelled timer does not fire");
	is_u64(b.fired, 3, "a deadline in the past fires soon");

	clock_arm(clk, &a.timer, UINT64_MAX);
	run_for(5);
	is_u64(a.fired, 2, "a deadline at the end of time does not wrap");
	clock_arm(clk, &b.timer, UINT64_MAX);
	vmclock_pause(&vc);
	clock_cancel(clk, &a.timer);
	clock_cancel(clk, &b.timer);
	vmclock_resume(&vc);
	ok(!vc.armed, "cancelled while paused");
	is_u64(mul_div(1ull << 40, 1193182, NS_PER_SEC), 1311917483ull,
	       "mul_div does not overflow");
	loop_destroy(loop);
	return done_testing();
}
