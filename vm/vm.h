/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine and its life: made from a configuration, run, stopped. maru-vm(1) describes the states
 * and the exit statuses.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/vmclock.h"
#include "cpu/engine.h"
#include "machine/pc.h"
#include "vm/config.h"
#include "vm/control.h"
#include "vm/gdb.h"
#include "vm/memstat.h"
#include "vm/sandbox.h"

/* Exit statuses of maru-vm. Debug-exit gives odd ones, so these are even. */
#define VM_EXIT_OK 0	       /* the guest powered off, or a quit request */
#define VM_EXIT_START 2	       /* it could not be started: configuration, kernel, host */
#define VM_EXIT_GUEST_CRASH 4  /* triple fault */
#define VM_EXIT_INTERNAL 6     /* the engine cannot go on */
#define VM_EXIT_SIGNAL 8       /* a second SIGTERM or SIGINT, or whoever started it is gone */

#define VM_PANIC_EVENTS 100u /* a guest that tells of more than this is not believed any more */

struct vm;

struct vm_cpu {
	struct vm *vm;
	unsigned index;
	struct vcpu *vcpu;
	pthread_t thread;
	bool has_thread;
};

/*
 * Whether vCPUs may run. Its mutex is a leaf: nothing else is locked while it is held but by
 * loop_post and vcpu_request_stop.
 */
struct vm_gate {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool open, ending;
	unsigned parked; /* vCPU threads that wait at the gate */
};

struct vm {
	struct vm_config config;
	struct loop *loop;
	struct vmclock clock;
	struct memory *mem;
	struct memstat memstat;
	struct engine *engine;
	struct machine *machine;
	struct control *control;
	struct gdb *gdb;
	struct sandbox sandbox;

	/* Back ends */
	struct chardev *serial, *console, *debugcon, *ports[VM_CONFIG_PORTS];
	struct block_device *disks[VM_CONFIG_DISKS];
	struct net_backend *net;
	struct vsock_backend *vsock;

	struct vm_cpu cpus[VM_CONFIG_CPUS];
	struct vm_gate gate;
	struct loop_work settle; /* posted when the last vCPU has parked */
	struct loop_work end;	 /* stops the loop */

	/* What is wanted; under the loop's lock. */
	bool started;	     /* the machine has been reset for the first time */
	bool want_reset, want_quit, paused, debug_stopped;
	const char *reset_by;
	bool running;	     /* the gate is open */
	bool announced_pause;
	bool ended;	     /* nothing is granted any more */

	/* How it ends. */
	int exit_status;
	bool failed;
	unsigned failed_cpu;
	char reason[256];

	uint64_t resets;
	uint64_t panics; /* that the guest told of */
	struct loop_fd signals;
	int signal_fd;
	unsigned terminations;
	struct loop_timer quit_timer; /* how long vCPUs have to come to a stop at the end */

	/* Log lines of any thread on their way to the control connections. */
	pthread_mutex_t log_mutex;
	struct loop_work log_work;
	unsigned log_count, log_lost;
	struct {
		enum log_level level;
		char text[240];
	} log_lines[32];
};

/* Takes @config's descriptors, whatever happens. */
struct error *vm_create(struct vm_config *config, struct vm **out) MUST_CHECK;

/* Runs to its end: returns the exit status. */
int vm_run(struct vm *vm);

void vm_destroy(struct vm *vm); /* NULL-safe */

/* With the lock held. They take effect when all vCPUs are stopped. */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);
void vm_request_reset(struct vm *vm, const char *by);
void vm_quit(struct vm *vm, int status, const char *reason);
void vm_debug_stop(struct vm *vm);
void vm_debug_continue(struct vm *vm);
bool vm_all_parked(struct vm *vm);
const char *vm_state_name(struct vm *vm);

/* requests.c */
struct error *vm_handle_request(void *opaque, const char *name, json_t *args, json_t **result);

/* describe.c: a stopped vCPU as JSON, and in words on standard error. */
json_t *vm_cpu_json(struct vm_cpu *cpu);
void vm_cpu_print(struct vm_cpu *cpu);

#endif
