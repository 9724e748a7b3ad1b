/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a loop for a while, in a test of one thread. */
#ifndef TESTS_UNIT_SPIN_H
#define TESTS_UNIT_SPIN_H

#include "base/loop.h"

static inline void spin_stop(void *opaque)
{
	loop_stop(opaque);
}

static inline void spin(struct loop *loop, unsigned ms)
{
	struct loop_timer t;

	loop_timer_init(loop, &t, spin_stop, loop);
	loop_timer_arm(&t, loop_now_ns() + ms * 1000000ull);
	loop_run(loop);
}

#endif
