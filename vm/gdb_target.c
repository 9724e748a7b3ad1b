// SPDX-License-Identifier: Apache-2.0
/* The VM as the gdb stub sees it (gdb.h): its vCPUs, its memory, stopping and going on. All in the loop, with its lock held. */
#include "vm/gdb.h"
#include "vm/vm_priv.h"

static struct vcpu *cpu_of(void *opaque, unsigned cpu)
{
	return ((struct vm *)opaque)->cpus[cpu].vcpu;
}

static void dbg_get_regs(void *o, unsigned cpu, struct x86_regs *r)
{
	vcpu_get_regs(cpu_of(o, cpu), r);
}

static void dbg_set_regs(void *o, unsigned cpu, const struct x86_regs *r)
{
	vcpu_set_regs(cpu_of(o, cpu), r);
}

static void dbg_get_sregs(void *o, unsigned cpu, struct x86_sregs *s)
{
	vcpu_get_sregs(cpu_of(o, cpu), s);
}

static void dbg_set_sregs(void *o, unsigned cpu, const struct x86_sregs *s)
{
	vcpu_set_sregs(cpu_of(o, cpu), s);
}

static void dbg_get_xstate(void *o, unsigned cpu, struct x86_xstate *x)
{
	vcpu_get_xstate(cpu_of(o, cpu), x);
}

static void dbg_set_xstate(void *o, unsigned cpu, const struct x86_xstate *x)
{
	vcpu_set_xstate(cpu_of(o, cpu), x);
}

static bool dbg_translate(void *o, unsigned cpu, uint64_t gva, uint64_t *gpa)
{
	return vcpu_translate(cpu_of(o, cpu), gva, gpa);
}

static bool dbg_read(void *o, uint64_t gpa, void *buf, size_t len)
{
	return mem_read(((struct vm *)o)->mem, gpa, buf, len);
}

static bool dbg_write(void *o, uint64_t gpa, const void *buf, size_t len)
{
	return mem_write(((struct vm *)o)->mem, gpa, buf, len);
}

static void dbg_set_debug(void *o, unsigned cpu, const struct vcpu_debug *d)
{
	vcpu_set_debug(cpu_of(o, cpu), d);
}

static const char *dbg_activity(void *o, unsigned cpu)
{
	static const char *const names[] = { [VCPU_RUNNING] = "running", [VCPU_HALTED] = "halted",
					     [VCPU_WAIT_SIPI] = "waits for SIPI" };

	return names[vcpu_activity(cpu_of(o, cpu))];
}

static void dbg_stop(void *o)
{
	vm_debug_stop(o);
}

static void dbg_go_on(void *o)
{
	vm_debug_continue(o);
}

static void dbg_kill(void *o)
{
	vm_quit(o, VM_EXIT_OK, "the debugger ended the VM");
}

struct error *vm_create_gdb(struct vm *vm)
{
	const struct gdb_target target = {
		.opaque = vm,
		.cpu_count = vm->config.cpus,
		.get_regs = dbg_get_regs,
		.set_regs = dbg_set_regs,
		.get_sregs = dbg_get_sregs,
		.set_sregs = dbg_set_sregs,
		.get_xstate = dbg_get_xstate,
		.set_xstate = dbg_set_xstate,
		.translate = dbg_translate,
		.read = dbg_read,
		.write = dbg_write,
		.set_debug = dbg_set_debug,
		.activity = dbg_activity,
		.stop = dbg_stop,
		.go_on = dbg_go_on,
		.kill = dbg_kill,
	};

	return vm->config.gdb_listen_fd < 0 ? NULL :
					      gdb_create(vm->loop, vm->config.gdb_listen_fd, vm->config.gdb_wait, &target, &vm->gdb);
}
