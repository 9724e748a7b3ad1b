/* SPDX-License-Identifier: Apache-2.0 */
/* The clock of a running VM: CLOCK_MONOTONIC less the time it was paused, timers on the VM's loop. */
#ifndef BASE_VMCLOCK_H
#define BASE_VMCLOCK_H

#include "base/clock.h"

struct vmclock {
	struct clock clock; /* what devices get */
	struct loop *loop;
	uint64_t offset_ns;	 /* host monotonic time minus VM time, while running */
	uint64_t paused_at_ns;	 /* VM time at which it stands, while paused */
	bool paused;
	struct clock_timer *armed; /* all armed timers */
};

void vmclock_init(struct vmclock *vc, struct loop *loop); /* starts at 0, running */
void vmclock_pause(struct vmclock *vc);
void vmclock_resume(struct vmclock *vc);

#endif
