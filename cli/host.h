/* SPDX-License-Identifier: Apache-2.0 */
/* Which engine a VM gets on this host, and why. */
#ifndef CLI_HOST_H
#define CLI_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct host_engine {
	const char *chosen; /* "bt" or "kvm" */
	int kvm_fd;	    /* /dev/kvm, the caller's to close; -1: not open */
	bool kvm_present, kvm_usable;
	double kvm_ns, bt_ns, native_ns; /* an iteration of a loop in ring 0; 0: not measured */
	uint64_t memory_available, memory_total; /* bytes, by limits of the process's groups, too; 0: not known */
	bool bt_usable;
	char bt_reason[200];
	char reason[256]; /* one sentence, without the full stop */
	char kvm_fix[256]; /* what would make /dev/kvm usable; "" */
};

/*
 * @wanted: "auto", "bt" or "kvm". Fails when KVM is wanted and is not to be had. For auto KVM is probed, once until the host reboots:
 * the answer is kept in the user's runtime or cache folder.
 */
struct error *host_engine_choose(const char *wanted, struct host_engine *out) MUST_CHECK;
/* Probes both engines now, and asks maru-vm about memory. */
struct error *host_engine_measure(struct host_engine *out) MUST_CHECK;

/* For tests: what is said about /dev/kvm that cannot be opened because of @errnum. */
void host_kvm_explain(int errnum, struct host_engine *out);

#endif
