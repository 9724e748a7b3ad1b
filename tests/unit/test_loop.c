/* SPDX-License-Identifier: Apache-2.0 */
/* base/loop.h: descriptors, timers, posted work, and the lock between threads. */
#include "base/loop.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/tap.h"

static struct loop *loop;

static struct loop *make_loop(void)
{
	struct loop *l = NULL;
	struct error *err = loop_create(&l);

	ok(!err && l, "a loop is made");
	return l;
}

static void stop(void *opaque)
{
	loop_stop(opaque);
}

/* ---- descriptors ---- */

struct end {
	struct loop_fd watch;
	int fd, peer;
	unsigned calls;
	uint32_t last;
	bool keep;		/* do not stop the loop */
	struct loop_fd *remove; /* removed by the callback */
};

static void end_ready(void *opaque, uint32_t events)
{
	struct end *e = opaque;
	char buf[16];

	e->calls++;
	e->last = events;
	if (events & EPOLLIN && read(e->fd, buf, sizeof(buf)) < 0)
		abort();
	if (e->remove)
		loop_fd_remove(e->remove);
	if (!e->keep)
		loop_stop(loop);
}

static void end_open(struct end *e)
{
	int fds[2];

	memset(e, 0, sizeof(*e));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
		abort();
	e->fd = fds[0];
	e->peer = fds[1];
	if (loop_fd_add(loop, &e->watch, e->fd, EPOLLIN, end_ready, e))
		abort();
}

static void end_close(struct end *e)
{
	loop_fd_remove(&e->watch);
	loop_fd_remove(&e->watch);
	close(e->fd);
	if (e->peer >= 0)
		close(e->peer);
}

static void poke(struct end *e)
{
	if (write(e->peer, "x", 1) != 1)
		abort();
}

/* Runs the loop for @ms at most. */
static void run_for(unsigned ms)
{
	struct loop_timer t;

	loop_timer_init(loop, &t, stop, loop);
	loop_timer_arm(&t, loop_now_ns() + ms * NS_PER_MS);
	loop_run(loop);
	loop_timer_cancel(&t);
}

static void test_descriptors(void)
{
	struct loop_fd regular;
	struct end a, b;
	struct error *err;
	FILE *file;

	loop = make_loop();
	end_open(&a);
	end_open(&b);
	poke(&a);
	loop_run(loop);
	ok(a.calls == 1 && b.calls == 0 && a.last == EPOLLIN, "the readable descriptor is told");

	loop_fd_set_events(&a.watch, EPOLLOUT);
	loop_run(loop);
	ok(a.calls == 2 && a.last == EPOLLOUT, "events can be changed");

	loop_fd_set_events(&a.watch, 0);
	poke(&a);
	run_for(30);
	is_u64(a.calls, 2, "a silent watcher is not told of data");
	close(a.peer);
	a.peer = -1;
	run_for(30);
	is_u64(a.calls, 2, "nor of a hang-up");
	loop_fd_set_events(&a.watch, EPOLLIN);
	loop_run(loop);
	ok(a.calls == 3 && a.last & EPOLLIN, "and hears of both once it listens");
	end_close(&a);

	/* Both ready in one round; the one that comes first removes the other. */
	end_open(&a);
	a.keep = b.keep = true;
	a.remove = &b.watch;
	b.remove = &a.watch;
	poke(&a);
	poke(&b);
	run_for(30);
	is_u64(a.calls + b.calls, 1, "no callback after removal, even in the same round");
	end_close(&a);
	end_close(&b);

	file = tmpfile();
	err = loop_fd_add(loop, &regular, fileno(file), EPOLLIN, end_ready, NULL);
	ok(err && strstr(error_message(err), "cannot watch descriptor"),
	   "a regular file is refused with an error");
	error_free(err);
	fclose(file);
	loop_destroy(loop);
}

/* ---- timers ---- */

#define TIMERS 200
static struct many {
	struct loop_timer timer;
	unsigned fired;
	uint64_t when_ns;
} many[TIMERS];
static uint64_t last_deadline;
static unsigned fired, disorder, early;

static void many_fire(void *opaque)
{
	struct many *m = opaque;

	fired++;
	m->fired++;
	m->when_ns = loop_now_ns();
	disorder += m->timer.deadline_ns < last_deadline;
	early += m->when_ns < m->timer.deadline_ns;
	last_deadline = m->timer.deadline_ns;
}

static void rearm(void *opaque)
{
	loop_timer_arm(opaque, 0);
	fired++;
}

static void test_timers(void)
{
	unsigned seed = 1, cancelled = 0, wrong = 0;
	uint64_t start;

	loop = make_loop();
	start = loop_now_ns() + 20 * NS_PER_MS;
	for (unsigned i = 0; i < TIMERS; i++)
		loop_timer_init(loop, &many[i].timer, many_fire, &many[i]);
	/* Arm, move and cancel at random; what is left must fire in order, once. */
	for (unsigned i = 0; i < 20 * TIMERS; i++) {
		unsigned k = (unsigned)rand_r(&seed) % TIMERS;

		if (rand_r(&seed) % 4)
			loop_timer_arm(&many[k].timer,
				       start + (uint64_t)rand_r(&seed) % (20 * NS_PER_MS));
		else
			loop_timer_cancel(&many[k].timer);
	}
	for (unsigned i = 0; i < TIMERS; i++)
		cancelled += !many[i].timer.armed;
	run_for(60);
	for (unsigned i = 0; i < TIMERS; i++)
		wrong += many[i].fired > 1 || many[i].timer.armed;
	ok(cancelled > 0 && fired == TIMERS - cancelled, "each armed timer fires (%u of %d)", fired,
	   TIMERS);
	is_u64(wrong, 0, "once");
	is_u64(disorder, 0, "in the order of their deadlines");
	is_u64(early, 0, "never early");

	fired = 0;
	loop_timer_init(loop, &many[0].timer, rearm, &many[0].timer);
	loop_timer_arm(&many[0].timer, 0);
	run_for(5);
	ok(fired > 1, "a timer that always arms itself for the past does not lock the loop up");
	loop_timer_cancel(&many[0].timer);
	loop_timer_cancel(&many[0].timer);
	loop_timer_arm(&many[0].timer, UINT64_MAX);
	loop_timer_arm(&many[0].timer, UINT64_MAX - 1);
	fired = 0;
	run_for(5);
	is_u64(fired, 0, "a timer at the end of time does not fire");
	loop_timer_cancel(&many[0].timer);
	loop_destroy(loop);
}

/* ---- threads ---- */

static void *run_loop(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

#define POSTERS 3
#define POSTS 2000
static struct loop_work works[POSTERS];
static unsigned ran, shared; /* in the loop's monitor */

static void work_run(void *opaque)
{
	if (loop_is_locked(loop))
		ran++;
}

static void *poster(void *opaque)
{
	struct loop_work *work = opaque;

	for (unsigned i = 0; i < POSTS; i++) {
		loop_post(loop, work);
		loop_lock(loop);
		shared++;
		if (i % 2)
			loop_post(loop, work);
		loop_unlock(loop);
	}
	return NULL;
}

static atomic_uint quick;

static void quick_fire(void *opaque)
{
	quick++;
}

static atomic_uint last_ran;

static void last_run(void *opaque)
{
	last_ran++;
}

static void wait_for(atomic_uint *counter)
{
	for (unsigned i = 0; i < 5000 && !*counter; i++)
		usleep(1000);
}

static void test_threads(void)
{
	struct loop_work last = { .run = last_run };
	struct loop_timer timer;
	pthread_t thread, posters[POSTERS];
	unsigned before;

	loop = make_loop();
	pthread_create(&thread, NULL, run_loop, loop);
	ok(!loop_is_locked(loop), "the lock is not ours");
	loop_lock(loop);
	ok(loop_is_locked(loop), "and then it is");
	loop_unlock(loop);
	for (unsigned i = 0; i < POSTERS; i++) {
		works[i] = (struct loop_work){ .run = work_run };
		pthread_create(&posters[i], NULL, poster, &works[i]);
	}
	for (unsigned i = 0; i < POSTERS; i++)
		pthread_join(posters[i], NULL);
	loop_lock(loop);
	is_u64(shared, POSTERS * POSTS, "the lock excludes");
	before = ran;
	loop_unlock(loop);
	ok(before <= POSTERS * POSTS * 3 / 2, "posting posted work does not run it twice");

	/* Posted last, and so run last. */
	loop_post(loop, &last);
	wait_for(&last_ran);
	loop_lock(loop);
	ok(ran >= POSTERS && ran >= before, "work posted by other threads runs");
	loop_unlock(loop);
	usleep(10000);
	last_ran = 0;
	loop_post(loop, &last);
	wait_for(&last_ran);
	is_u64(last_ran, 1, "a post to a sleeping loop wakes it");

	/* A loop that sleeps towards a late timer is woken for an earlier one. */
	loop_lock(loop);
	loop_timer_init(loop, &timer, quick_fire, NULL);
	loop_timer_arm(&timer, loop_now_ns() + 3600 * NS_PER_SEC);
	loop_unlock(loop);
	usleep(10000);
	loop_lock(loop);
	loop_timer_arm(&timer, loop_now_ns() + 5 * NS_PER_MS);
	loop_unlock(loop);
	wait_for(&quick);
	is_u64(quick, 1, "a timer armed by another thread fires in time");

	loop_stop(loop);
	pthread_join(thread, NULL);
	ok(true, "stop from another thread");
	loop_stop(loop);
	loop_run(loop);
	ok(true, "a stop before running is not lost");
	loop_destroy(loop);
	loop_destroy(NULL);
}

/* ---- threads that take the lock again and again ---- */

#define HAMMERS 3
static atomic_bool hammering;
static atomic_uint hammers_at_work;
static unsigned passed; /* in the loop's monitor */

static void *hammer(void *opaque)
{
	for (bool first = true; hammering; first = false) {
		loop_lock(loop);
		passed++;
		loop_unlock(loop);
		hammers_at_work += first;
	}
	return NULL;
}

static void rounds_run(void *opaque)
{
	struct loop_work *work = opaque;

	if (++ran < 200)
		loop_post(loop, work);
	else
		loop_stop(loop);
}

static void test_hammers(void)
{
	struct loop_work work = { .run = rounds_run, .opaque = &work };
	pthread_t threads[HAMMERS];
	uint64_t start;

	loop = make_loop();
	ran = 0;
	hammering = true;
	for (unsigned i = 0; i < HAMMERS; i++)
		pthread_create(&threads[i], NULL, hammer, NULL);
	while (hammers_at_work < HAMMERS)
		usleep(1000);
	loop_post(loop, &work);
	start = loop_now_ns();
	loop_run(loop);
	hammering = false;
	for (unsigned i = 0; i < HAMMERS; i++)
		pthread_join(threads[i], NULL);
	is_u64(ran, 200, "a loop makes its rounds although others hammer at its lock");
	diag("200 rounds in %llu ms, %u locks by others",
	     (unsigned long long)((loop_now_ns() - start) / NS_PER_MS), passed);
	loop_destroy(loop);
}

int main(void)
{
	test_descriptors();
	test_timers();
	test_threads();
	test_hammers();
	return done_testing();
}
