/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: epoll, one timerfd for the earliest timer, one eventfd for posted work and stop.
 *
 * Threading. `lock` is the monitor that the header describes; everything here is under it, but for the
 * posted work, which has a lock of its own (post_lock, innermost) so that a thread may post with or
 * without the monitor.
 *
 * Descriptors. What epoll returns was collected without the monitor; by the time it is looked at, another
 * thread may have detached the watcher, freed it, and attached another on the same descriptor. An event
 * therefore names the descriptor and the generation of its attachment, never a pointer; one that does not
 * match the table any more is dropped.
 *
 * Timers. A pairing heap through the timers themselves: arming cannot fail, since nothing is allocated.
 * The timerfd is set when the loop is about to wait, or at once when another thread arms a timer
 * that is earlier than what it is set to; a timerfd set too early costs one empty round.
 */
#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_PER_ROUND 64
#define NO_GENERATION 0 /* of the loop's own two descriptors */

struct watch {
	struct loop_fd *w; /* NULL: not attached */
	uint32_t generation;
};

struct loop {
	pthread_mutex_t lock, gate;
	atomic_bool gate_closed;
	const void *_Atomic owner;  /* who holds it: &thread_mark of the thread, or NULL */
	const void *_Atomic thread; /* who is in loop_run */
	atomic_bool stop;

	int epoll_fd, event_fd, timer_fd;
	struct watch *watches; /* by descriptor */
	unsigned watch_room, watch_count;
	uint32_t generation;

	struct loop_timer *timers; /* root of the heap: the earliest */
	uint64_t timer_fd_ns;	   /* what timer_fd is set to; UINT64_MAX: nothing */
	uint64_t round_ns;	   /* while timers are run: what counts as now */

	pthread_mutex_t post_lock;
	struct loop_work *work_head, **work_tail;
};

static _Thread_local char thread_mark;

uint64_t loop_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* ---- The lock ---- */

/*
 * A mutex goes to whoever is there when it is released. Three threads that take it again and again have been
 * seen to pass the loop's thread, which first has to wake up, 40,000 times in a row. So while it waits,
 * others that come for the lock stand at the gate; then few pass.
 */
void loop_lock(struct loop *loop)
{
	assert(!loop_is_locked(loop));
	if (atomic_load_explicit(&loop->thread, memory_order_relaxed) == &thread_mark) {
		if (pthread_mutex_trylock(&loop->lock)) {
			pthread_mutex_lock(&loop->gate);
			atomic_store_explicit(&loop->gate_closed, true, memory_order_relaxed);
			pthread_mutex_lock(&loop->lock);
			atomic_store_explicit(&loop->gate_closed, false, memory_order_relaxed);
			pthread_mutex_unlock(&loop->gate);
		}
	} else {
		if (atomic_load_explicit(&loop->gate_closed, memory_order_relaxed)) {
			pthread_mutex_lock(&loop->gate);
			pthread_mutex_unlock(&loop->gate);
		}
		pthread_mutex_lock(&loop->lock);
	}
	atomic_store_explicit(&loop->owner, &thread_mark, memory_order_relaxed);
}

void loop_unlock(struct loop *loop)
{
	assert(loop_is_locked(loop));
	atomic_store_explicit(&loop->owner, NULL, memory_order_relaxed);
	pthread_mutex_unlock(&loop->lock);
}

bool loop_is_locked(struct loop *loop)
{
	return atomic_load_explicit(&loop->owner, memory_order_relaxed) == &thread_mark;
}

/* With the lock, or before anybody runs the loop. */
static void assert_inside(struct loop *loop)
{
	assert(loop_is_locked(loop) || !atomic_load_explicit(&loop->thread, memory_order_relaxed));
}

/* ---- Making and ending ---- */

static struct error *watch_own(struct loop *loop, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = (uint32_t)fd };

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return error_errno(errno, "cannot set up an event loop");
	return NULL;
}

struct error *loop_create(struct loop **out)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	struct error *err = NULL;

	if (!loop)
		return error_errno(ENOMEM, "cannot make an event loop");
	pthread_mutex_init(&loop->lock, NULL);
	pthread_mutex_init(&loop->gate, NULL);
	pthread_mutex_init(&loop->post_lock, NULL);
	loop->work_tail = &loop->work_head;
	loop->timer_fd_ns = UINT64_MAX;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->event_fd < 0 || loop->timer_fd < 0)
		err = error_errno(errno,
				  "cannot make an event loop (raise the limit on open files, "
				  "`ulimit -n`, if there are too many)");
	if (!err)
		err = watch_own(loop, loop->event_fd);
	if (!err)
		err = watch_own(loop, loop->timer_fd);
	if (err) {
		loop_destroy(loop);
		return err;
	}
	*out = loop;
	return NULL;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	assert(!loop->thread && !loop->timers && !loop->watch_count && !loop->work_head);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	if (loop->event_fd >= 0)
		close(loop->event_fd);
	if (loop->timer_fd >= 0)
		close(loop->timer_fd);
	pthread_mutex_destroy(&loop->lock);
	pthread_mutex_destroy(&loop->gate);
	pthread_mutex_destroy(&loop->post_lock);
	free(loop->watches);
	free(loop);
}

/* ---- Descriptors ---- */

/* A silent watcher would still be told of hang-ups, again and again; with EPOLLONESHOT only once. */
static uint32_t epoll_mask(uint32_t events)
{
	return events ? events : (uint32_t)EPOLLONESHOT;
}

static uint64_t event_name(struct loop *loop, int fd)
{
	return (uint64_t)loop->watches[fd].generation << 32 | (uint32_t)fd;
}

struct error *loop_fd_add(struct loop *loop, struct loop_fd *w, int fd, uint32_t events,
			  void (*ready)(void *opaque, uint32_t events), void *opaque)
{
	struct epoll_event ev;

	assert_inside(loop);
	assert(fd >= 0);
	if ((unsigned)fd >= loop->watch_room) {
		unsigned room = MAX((unsigned)fd + 1, loop->watch_room * 2);
		struct watch *watches = realloc(loop->watches, room * sizeof(*watches));

		if (!watches)
			return error_errno(ENOMEM, "cannot watch descriptor %d", fd);
		memset(watches + loop->watch_room, 0, (room - loop->watch_room) * sizeof(*watches));
		loop->watches = watches;
		loop->watch_room = room;
	}
	assert(!loop->watches[fd].w);
	if (++loop->generation == NO_GENERATION)
		loop->generation++;
	loop->watches[fd].generation = loop->generation;
	ev.events = epoll_mask(events);
	ev.data.u64 = event_name(loop, fd);
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return error_errno(errno, "cannot watch descriptor %d", fd);
	loop->watches[fd].w = w;
	loop->watch_count++;
	*w = (struct loop_fd){
		.loop = loop, .fd = fd, .events = events, .ready = ready, .opaque = opaque
	};
	return NULL;
}

void loop_fd_set_events(struct loop_fd *w, uint32_t events)
{
	struct epoll_event ev;
	int rc;

	assert(w->loop);
	assert_inside(w->loop);
	if (events == w->events)
		return;
	w->events = events;
	ev.events = epoll_mask(events);
	ev.data.u64 = event_name(w->loop, w->fd);
	rc = epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
	assert(!rc); /* allocates nothing; fails only for a descriptor that is not attached */
}

void loop_fd_remove(struct loop_fd *w)
{
	struct loop *loop = w->loop;
	int rc;

	if (!loop)
		return;
	assert_inside(loop);
	assert(loop->watches[w->fd].w == w);
	rc = epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	assert(!rc); /* else the owner has closed it first, and a stranger may have the number now */
	loop->watches[w->fd].w = NULL;
	loop->watch_count--;
	w->loop = NULL;
}

static void dispatch(struct loop *loop, const struct epoll_event *ev)
{
	uint32_t fd = (uint32_t)ev->data.u64, generation = (uint32_t)(ev->data.u64 >> 32);
	struct loop_fd *w;
	uint32_t events;
	uint64_t drain;

	if (generation == NO_GENERATION) {
		/* Nothing to read when another thread has set the timerfd anew meanwhile. */
		if (read((int)fd, &drain, sizeof(drain)) > 0 && (int)fd == loop->timer_fd)
			loop->timer_fd_ns = UINT64_MAX;
		return;
	}
	if (loop->watches[fd].generation != generation || !loop->watches[fd].w)
		return;
	w = loop->watches[fd].w;
	events = w->events ? ev->events & (w->events | EPOLLERR | EPOLLHUP) : 0;
	if (events)
		w->ready(w->opaque, events);
}

/* ---- Timers ---- */

/*
 * The heap: each timer has a list of children, none earlier than itself, linked by `sibling`; `back` is the
 * sibling before or, for the first child, the parent.
 */
static struct loop_timer *heap_merge(struct loop_timer *a, struct loop_timer *b)
{
	if (!a || !b)
		return a ? a : b;
	if (b->deadline_ns < a->deadline_ns) {
		struct loop_timer *t = a;

		a = b;
		b = t;
	}
	b->sibling = a->child;
	if (b->sibling)
		b->sibling->back = b;
	b->back = a;
	a->child = b;
	a->sibling = a->back = NULL;
	return a;
}

/* Merges a list of siblings into one heap: in pairs from left to right, then the pairs from right to left. */
static struct loop_timer *heap_merge_list(struct loop_timer *list)
{
	struct loop_timer *pairs = NULL, *root = NULL;

	while (list) {
		struct loop_timer *a = list, *b = a->sibling;

		list = b ? b->sibling : NULL;
		a->sibling = a->back = NULL;
		if (b)
			b->sibling = b->back = NULL;
		a = heap_merge(a, b);
		a->sibling = pairs;
		pairs = a;
	}
	while (pairs) {
		struct loop_timer *next = pairs->sibling;

		pairs->sibling = NULL;
		root = heap_merge(root, pairs);
		pairs = next;
	}
	return root;
}

static void heap_remove(struct loop *loop, struct loop_timer *t)
{
	struct loop_timer *rest = heap_merge_list(t->child);

	if (t == loop->timers) {
		loop->timers = rest;
	} else {
		if (t->back->child == t)
			t->back->child = t->sibling;
		else
			t->back->sibling = t->sibling;
		if (t->sibling)
			t->sibling->back = t->back;
		loop->timers = heap_merge(loop->timers, rest);
	}
	t->child = t->sibling = t->back = NULL;
	t->armed = false;
}

static void set_timer_fd(struct loop *loop)
{
	uint64_t ns = loop->timers ? loop->timers->deadline_ns : UINT64_MAX;
	struct itimerspec its = { 0 };
	int rc;

	if (ns == loop->timer_fd_ns)
		return;
	if (ns != UINT64_MAX) {
		its.it_value.tv_sec = (time_t)(ns / NS_PER_SEC);
		its.it_value.tv_nsec = (long)(ns % NS_PER_SEC);
	}
	rc = timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
	assert(!rc);
	loop->timer_fd_ns = ns;
}

void loop_timer_init(struct loop *loop, struct loop_timer *t, void (*fire)(void *opaque),
		     void *opaque)
{
	*t = (struct loop_timer){ .loop = loop, .fire = fire, .opaque = opaque };
}

void loop_timer_arm(struct loop_timer *t, uint64_t deadline_ns)
{
	struct loop *loop = t->loop;

	assert_inside(loop);
	if (t->armed)
		heap_remove(loop, t);
	t->deadline_ns = MAX(deadline_ns, loop->round_ns + 1);
	t->armed = true;
	loop->timers = heap_merge(loop->timers, t);
	if (deadline_ns < loop->timer_fd_ns && loop->thread != &thread_mark)
		set_timer_fd(loop);
}

void loop_timer_cancel(struct loop_timer *t)
{
	if (!t->armed)
		return;
	assert_inside(t->loop);
	heap_remove(t->loop, t);
}

/* What is due now. What arms itself for the past while this runs comes after that: in the next round. */
static void run_timers(struct loop *loop)
{
	if (!loop->timers)
		return;
	loop->round_ns = loop_now_ns();
	while (loop->timers && loop->timers->deadline_ns <= loop->round_ns) {
		struct loop_timer *t = loop->timers;

		heap_remove(loop, t);
		t->fire(t->opaque);
	}
	loop->round_ns = 0;
}

/* ---- Posted work, running and stopping ---- */

static void wake(struct loop *loop)
{
	uint64_t one = 1;
	ssize_t n = write(loop->event_fd, &one, sizeof(one));

	(void)n; /* fails only when the counter is full, and then the loop is awake */
}

void loop_post(struct loop *loop, struct loop_work *work)
{
	bool first = false;

	pthread_mutex_lock(&loop->post_lock);
	if (!work->posted) {
		work->posted = true;
		work->next = NULL;
		first = !loop->work_head;
		*loop->work_tail = work;
		loop->work_tail = &work->next;
	}
	/* Under the lock: once it is released the work may run, and its owner may destroy the loop. */
	if (first)
		wake(loop);
	pthread_mutex_unlock(&loop->post_lock);
}

/* What was posted before this round. Work may post itself again, or free itself, while it runs. */
static void run_work(struct loop *loop)
{
	struct loop_work *list, *work;

	pthread_mutex_lock(&loop->post_lock);
	list = loop->work_head;
	loop->work_head = NULL;
	loop->work_tail = &loop->work_head;
	pthread_mutex_unlock(&loop->post_lock);
	while ((work = list)) {
		pthread_mutex_lock(&loop->post_lock);
		list = work->next;
		work->posted = false;
		pthread_mutex_unlock(&loop->post_lock);
		work->run(work->opaque);
	}
}

void loop_stop(struct loop *loop)
{
	loop->stop = true;
	wake(loop);
}

void loop_run(struct loop *loop)
{
	struct epoll_event events[EVENTS_PER_ROUND];

	loop_lock(loop);
	assert(!loop->thread);
	loop->thread = &thread_mark;
	while (!atomic_exchange(&loop->stop, false)) {
		int n;

		set_timer_fd(loop);
		loop_unlock(loop);
		n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_ROUND, -1);
		assert(n >= 0 || errno == EINTR);
		loop_lock(loop);
		for (int i = 0; i < n; i++)
			dispatch(loop, &events[i]);
		run_timers(loop);
		run_work(loop);
	}
	loop->thread = NULL;
	loop_unlock(loop);
}
