// SPDX-License-Identifier: Apache-2.0
/*
 * The life of a VM; see vm.h.
 *
 * Theory of operation. Every vCPU has a thread that runs guest code while the gate is open and parks at it
 * while it is closed. Whoever wants the vCPUs to stand still (pause, reset, debugger, quit) says so in a
 * wish (want_reset, paused …) and calls update(), which closes the gate and asks the vCPUs to stop. It
 * never waits: a vCPU may need the machine's lock to come to a stop. The last thread that parks posts the
 * settle work; in the loop's thread, with everything at rest, settle() grants the wishes and opens the gate
 * again if nothing speaks against it.
 *
 * Locks: the loop's, then the gate's. A vCPU thread holds neither while it executes guest code.
 */
#include "vm/vm.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/stack.h"
#include "base/util.h"
#include "vm/vm_priv.h"

/* ---- The gate ---------------------------------------------------------------------------------- */

bool vm_all_parked(struct vm *vm)
{
	bool all;

	pthread_mutex_lock(&vm->gate.mutex);
	all = !vm->gate.open && vm->gate.parked == vm->config.cpus;
	pthread_mutex_unlock(&vm->gate.mutex);
	return all;
}

static void gate_set(struct vm *vm, bool open)
{
	pthread_mutex_lock(&vm->gate.mutex);
	vm->gate.open = open;
	pthread_cond_broadcast(&vm->gate.changed);
	pthread_mutex_unlock(&vm->gate.mutex);
}

/* Returns when the gate is open (true) or the VM ends (false). */
static bool gate_pass(struct vm *vm)
{
	bool ending;

	pthread_mutex_lock(&vm->gate.mutex);
	if (!vm->gate.open && !vm->gate.ending) {
		if (++vm->gate.parked == vm->config.cpus)
			loop_post(vm->loop, &vm->settle);
		while (!vm->gate.open && !vm->gate.ending)
			pthread_cond_wait(&vm->gate.changed, &vm->gate.mutex);
		vm->gate.parked--;
	}
	ending = vm->gate.ending;
	pthread_mutex_unlock(&vm->gate.mutex);
	return !ending;
}

/* ---- Wishes ------------------------------------------------------------------------------------ */

static bool may_run(const struct vm *vm)
{
	return !vm->want_quit && !vm->want_reset && !vm->paused && !vm->debug_stopped;
}

const char *vm_state_name(struct vm *vm)
{
	if (vm->want_quit)
		return "ending";
	if (!vm->started)
		return vm->debug_stopped ? "stopped by debugger" : "created";
	if (vm->running)
		return may_run(vm) ? "running" : "stopping";
	if (vm->debug_stopped)
		return "stopped by debugger";
	return vm->paused ? "paused" : "stopping";
}

static void settle(void *opaque);

static void update(struct vm *vm)
{
	if (vm->running && !may_run(vm)) {
		vm->running = false;
		gate_set(vm, false);
		for (unsigned i = 0; i < vm->config.cpus; i++)
			vcpu_request_stop(vm->cpus[i].vcpu);
	} else if (!vm->running) {
		/* Also while the last vCPUs are still on their way to the gate: then this finds nothing to do. */
		loop_post(vm->loop, &vm->settle);
	}
}

static void end_now(struct vm *vm)
{
	if (vm->failed) {
		log_error("%s", vm->reason);
		vm_cpu_print(&vm->cpus[vm->failed_cpu]);
		control_event(vm->control, "guest-panic",
			      json_pack("{s:s, s:i}", "reason", vm->reason, "cpu", (int)vm->failed_cpu));
	}
	control_event(vm->control, "stopped",
		      json_pack("{s:i, s:s}", "status", vm->exit_status, "reason", vm->reason));
	loop_timer_cancel(&vm->quit_timer);
	vm->ended = true;
	log_set_sink(NULL, NULL);
	/* Behind the last log lines on their way to the control connections. */
	loop_post(vm->loop, &vm->end);
}

static void stop_loop(void *opaque)
{
	loop_stop(((struct vm *)opaque)->loop);
}

static void reset_now(struct vm *vm)
{
	struct error *err;

	vm->want_reset = false;
	vm->resets++;
	log_info("reset by %s", vm->reset_by);
	control_event(vm->control, "reset", json_pack("{s:s}", "by", vm->reset_by));
	err = machine_reset(vm->machine);
	if (err) {
		log_error("%s", error_message(err));
		vm_quit(vm, VM_EXIT_INTERNAL, "the kernel cannot be loaded again after a reset");
		error_free(err);
	}
}

/* In the loop's thread. All vCPUs are parked, or one has not got there yet and will post this again. */
static void settle(void *opaque)
{
	struct vm *vm = opaque;

	if (vm->ended || vm->running || !vm_all_parked(vm))
		return;
	vmclock_pause(&vm->clock);
	if (vm->want_reset && !vm->want_quit)
		reset_now(vm);
	if (vm->want_quit) {
		end_now(vm);
		return;
	}
	if (vm->paused && !vm->announced_pause) {
		vm->announced_pause = true;
		control_event(vm->control, "paused", NULL);
	}
	if (vm->debug_stopped && vm->gdb)
		gdb_stopped(vm->gdb);
	if (!may_run(vm))
		return;
	vmclock_resume(&vm->clock);
	if (!vm->started)
		control_event(vm->control, "started", NULL);
	else if (vm->announced_pause)
		control_event(vm->control, "resumed", NULL);
	vm->started = true;
	vm->announced_pause = false;
	vm->running = true;
	gate_set(vm, true);
}

void vm_pause(struct vm *vm)
{
	vm->paused = true;
	update(vm);
}

void vm_resume(struct vm *vm)
{
	vm->paused = false;
	update(vm);
}

void vm_request_reset(struct vm *vm, const char *by)
{
	vm->want_reset = true;
	vm->reset_by = by;
	update(vm);
}

void vm_quit(struct vm *vm, int status, const char *reason)
{
	if (vm->want_quit)
		return;
	vm->want_quit = true;
	vm->exit_status = status;
	snprintf(vm->reason, sizeof(vm->reason), "%s", reason);
	loop_timer_arm(&vm->quit_timer, loop_now_ns() + VM_QUIT_NS);
	update(vm);
}

void vm_debug_stop(struct vm *vm)
{
	vm->debug_stopped = true;
	update(vm);
}

void vm_debug_continue(struct vm *vm)
{
	vm->debug_stopped = false;
	update(vm);
}

/* ---- vCPU threads ------------------------------------------------------------------------------ */

/* The vCPU cannot go on: ends the VM, and settle() describes the vCPU once it stands still. */
static void cpu_failed(struct vm_cpu *cpu, const struct vcpu_exit *exit)
{
	struct vm *vm = cpu->vm;
	bool crash = exit->reason == VCPU_EXIT_SHUTDOWN;
	char reason[256];

	if (vm->want_quit)
		return;
	snprintf(reason, sizeof(reason), crash ? "the guest crashed: triple fault on vCPU %u%s%s" :
						 "internal error on vCPU %u%s%s",
		 cpu->index, *exit->message ? ": " : "", exit->message);
	vm->failed = true;
	vm->failed_cpu = cpu->index;
	vm_quit(vm, crash ? VM_EXIT_GUEST_CRASH : VM_EXIT_INTERNAL, reason);
}

static void *cpu_thread(void *opaque)
{
	struct vm_cpu *cpu = opaque;
	struct vm *vm = cpu->vm;
	struct vcpu_exit exit;
	bool narrowed = false;
	char name[16];

	/* By the thread itself: its name in /proc cannot be reached any more. */
	snprintf(name, sizeof(name), "vcpu%u", cpu->index);
	prctl(PR_SET_NAME, name);

	while (gate_pass(vm)) {
		if (!narrowed)
			sandbox_narrow(&vm->sandbox, SANDBOX_VCPU);
		narrowed = true;
		memset(&exit, 0, sizeof(exit));
		vcpu_run(cpu->vcpu, &exit);
		if (exit.reason == VCPU_EXIT_STOPPED)
			continue;
		loop_lock(vm->loop);
		if (exit.reason == VCPU_EXIT_DEBUG && vm->gdb)
			gdb_hit(vm->gdb, cpu->index, &exit);
		else if (exit.reason != VCPU_EXIT_DEBUG)
			cpu_failed(cpu, &exit);
		loop_unlock(vm->loop);
	}
	return NULL;
}

struct error *vm_start_threads(struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		int rc = stack_start_thread(&vm->cpus[i].thread, cpu_thread, &vm->cpus[i]);

		if (rc)
			return error_errno(rc, "cannot start a thread for vCPU %u", i);
		vm->cpus[i].has_thread = true;
	}
	return NULL;
}

void vm_join_threads(struct vm *vm)
{
	pthread_mutex_lock(&vm->gate.mutex);
	vm->gate.ending = true;
	pthread_cond_broadcast(&vm->gate.changed);
	pthread_mutex_unlock(&vm->gate.mutex);
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		if (vm->cpus[i].has_thread)
			pthread_join(vm->cpus[i].thread, NULL);
		vm->cpus[i].has_thread = false;
	}
}

void vm_init_gate(struct vm *vm)
{
	pthread_mutex_init(&vm->gate.mutex, NULL);
	pthread_cond_init(&vm->gate.changed, NULL);
	vm->settle = (struct loop_work){ .run = settle, .opaque = vm };
	vm->end = (struct loop_work){ .run = stop_loop, .opaque = vm };
}
