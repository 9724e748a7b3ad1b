/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one thread that waits (epoll) for descriptors, timers and posted work, and runs
 * their callbacks one at a time with the loop's lock held.
 *
 * Theory of operation. A loop is a monitor: everything attached to it (a VM's devices and back ends)
 * runs under its lock and so needs no lock of its own. Another thread (a vCPU) that wants to touch such
 * a thing takes the lock with loop_lock(). The lock is not recursive. Callbacks never block; what
 * blocks goes to a worker thread and comes back with loop_post().
 *
 * All functions except loop_run, loop_lock, loop_unlock, loop_stop, loop_post and loop_is_locked are
 * called with the lock held, or before loop_run by the only thread. Objects are embedded in their
 * owner; none is freed while attached.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct loop;

struct error *loop_create(struct loop **out);
void loop_destroy(struct loop *loop); /* NULL-safe; everything must be detached */

/* Runs callbacks until loop_stop. The calling thread is the loop's thread. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop); /* any thread; returns at once */

void loop_lock(struct loop *loop);
void loop_unlock(struct loop *loop);
bool loop_is_locked(struct loop *loop); /* by the calling thread; for asserts */

/* A watched descriptor. The owner keeps the descriptor and closes it after loop_fd_remove. */
struct loop_fd {
	struct loop *loop;
	int fd;
	uint32_t events; /* EPOLLIN, EPOLLOUT …; 0: attached but silent */
	void (*ready)(void *opaque, uint32_t events);
	void *opaque;
};
struct error *loop_fd_add(struct loop *loop, struct loop_fd *w, int fd, uint32_t events,
			  void (*ready)(void *opaque, uint32_t events), void *opaque);
void loop_fd_set_events(struct loop_fd *w, uint32_t events);
void loop_fd_remove(struct loop_fd *w); /* harmless when not attached; no callback comes after it */

/* A one-shot timer on CLOCK_MONOTONIC. Arming an armed timer moves it. */
struct loop_timer {
	struct loop *loop;
	uint64_t deadline_ns;
	bool armed;
	struct loop_timer *child, *sibling, *back; /* private */
	void (*fire)(void *opaque);
	void *opaque;
};
void loop_timer_init(struct loop *loop, struct loop_timer *t, void (*fire)(void *opaque),
		     void *opaque);
void loop_timer_arm(struct loop_timer *t, uint64_t deadline_ns);
void loop_timer_cancel(struct loop_timer *t);

/* Work to be run once in the loop's thread. Posting posted work does nothing. Any thread may post. */
struct loop_work {
	struct loop_work *next; /* private */
	bool posted;
	void (*run)(void *opaque);
	void *opaque;
};
void loop_post(struct loop *loop, struct loop_work *work);

uint64_t loop_now_ns(void); /* CLOCK_MONOTONIC */

#endif
