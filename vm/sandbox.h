/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What maru-vm gives up before the first guest instruction. Each step is taken where the host allows it;
 * struct sandbox records which ones are in force, for the status request.
 */
#ifndef VM_SANDBOX_H
#define VM_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* In force, or why not. */
struct sandbox {
	const uint32_t *ioctls; /* requests that vCPUs and the loop may make, whatever the descriptor; others: ENOTTY */
	unsigned ioctl_count;
	const char *no_new_privs;
	const char *limits;	 /* no core dumps; no more descriptors than there are */
	const char *namespaces;	 /* user, mount, network, IPC, UTS, cgroup */
	const char *empty_root;
	const char *landlock;	 /* no opening of files, whatever else happens */
	const char *seccomp;	 /* an allow-list of system calls per kind of thread */
};
#define SANDBOX_IN_FORCE "in force"

/* Namespaces and empty root. While there is one thread only, after the last file was opened. */
void sandbox_isolate(struct sandbox *s);

/*
 * The rest: no_new_privs, limits, Landlock, and for all threads that exist the list of system calls that any of
 * them needs. No thread can be made after this. Fails only when the host refuses what every host has.
 */
struct error *sandbox_lock_down(struct sandbox *s) MUST_CHECK;

/* The calling thread narrows its own list further; after sandbox_lock_down. */
enum sandbox_thread { SANDBOX_VCPU, SANDBOX_LOOP };
void sandbox_narrow(struct sandbox *s, enum sandbox_thread kind);

#endif
