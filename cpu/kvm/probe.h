/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is this /dev/kvm worth using? A throw-away VM runs a loop in ring 0, at addresses of the upper half, where kernels are, with one SSE
 * instruction in it; its time and its result are looked at. Some hosts have a /dev/kvm that emulates ring 0.
 */
#ifndef CPU_KVM_PROBE_H
#define CPU_KVM_PROBE_H

#include <stdbool.h>

#define KVM_PROBE_ITERATIONS 10000u
#define KVM_PROBE_MAX_NS 50.0 /* an iteration; more is not hardware */

struct kvm_probe {
	bool ran;	       /* the loop came to its end */
	bool exact;	       /* with the right result */
	bool good;	       /* KVM should be used */
	double ns;	       /* an iteration; 0: unknown */
	char reason[160];      /* one sentence, without the full stop */
};

/* @kvm_fd: /dev/kvm, or -1. Takes less than 30 ms. Uses SIGPROF for that, so before other threads are made. */
void kvm_probe_run(int kvm_fd, struct kvm_probe *out);

#endif
