/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a vCPU: events, into the kernel, and what it came back for (KVM's documentation, api.rst, section 5).
 *
 * Kicks. Whoever wants something says so first, then sets immediate_exit, then looks at in_run and sends a signal if it is set.
 * The vCPU clears immediate_exit, looks at everything, sets in_run and enters the kernel, which looks at immediate_exit. So
 * a kick either is seen, or makes KVM_RUN return at once, or interrupts it; the signal's handler does nothing.
 *
 * HLT and the wait for SIPI are slept in the kernel.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/kvm/kvm_priv.h"

/* ---- From other threads ---- */

void kvm_vcpu_kick(struct vcpu *vcpu)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (atomic_load(&v->in_run))
		syscall(SYS_tgkill, getpid(), atomic_load(&v->thread), SIGUSR1);
}

void kvm_vcpu_request(struct kvm_vcpu *v, uint32_t bit)
{
	atomic_fetch_or(&v->requests, bit);
	kvm_vcpu_kick(&v->base);
}

/* ---- Events ---- */

static bool take_request(struct kvm_vcpu *v, uint32_t bit)
{
	return atomic_fetch_and(&v->requests, ~bit) & bit;
}

/* The 8259's interrupt goes in if this processor can take it now, else the kernel says when it can. */
static void inject(struct kvm_vcpu *v)
{
	struct kvm_engine *e = v->engine;
	int vector = -1;

	if (take_request(v, KVM_REQ_NMI))
		ioctl(v->fd, KVM_NMI);
	if (atomic_load(&e->intr) && v->run->ready_for_interrupt_injection && kvm_can_deliver(v)) {
		loop_lock(e->loop);
		if (e->intr && e->board.ack) /* nobody else has */
			vector = e->board.ack(e->board.opaque);
		loop_unlock(e->loop);
		if (vector >= 0) {
			kvm_deliver(v, (uint8_t)vector);
			v->run->ready_for_interrupt_injection = 0;
			v->interrupts++;
		}
	}
	v->run->request_interrupt_window = atomic_load(&e->intr);
}

/* ---- Exits ---- */

static void mmio_piece(struct kvm_vcpu *v, uint64_t gpa, uint8_t *data, unsigned len, bool write)
{
	struct bus *bus = v->engine->mem->mmio;

	if (write)
		bus_write(bus, gpa, load_le(data, len), len);
	else
		store_le(data, bus_read(bus, gpa, len), len);
}

static void mmio(struct kvm_vcpu *v)
{
	uint64_t gpa = v->run->mmio.phys_addr;
	unsigned len = MIN(v->run->mmio.len, sizeof(v->run->mmio.data)), at = 0;

	v->mmio_exits++;
	loop_lock(v->engine->loop);
	while (at < len) {
		unsigned n = 8;

		while (n > len - at || ((gpa + at) & (n - 1)))
			n >>= 1;
		mmio_piece(v, gpa + at, v->run->mmio.data + at, n, v->run->mmio.is_write);
		at += n;
	}
	loop_unlock(v->engine->loop);
}

static void port_io(struct kvm_vcpu *v)
{
	struct bus *bus = v->engine->mem->ports;
	unsigned size = v->run->io.size, count = v->run->io.count;
	uint64_t offset = v->run->io.data_offset;
	uint8_t *data = (uint8_t *)v->run + offset;

	v->io_exits++;
	if ((size != 1 && size != 2 && size != 4) || offset + (uint64_t)size * count > v->engine->run_bytes)
		return;
	loop_lock(v->engine->loop);
	for (; count; count--, data += size) {
		if (v->run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(bus, v->run->io.port, load_le(data, size), size);
		else
			store_le(data, bus_read(bus, v->run->io.port, size), size);
	}
	loop_unlock(v->engine->loop);
}

static void end_of_interrupt(struct kvm_vcpu *v)
{
	struct kvm_engine *e = v->engine;

	v->eoi_exits++;
	loop_lock(e->loop);
	if (e->board.eoi)
		e->board.eoi(e->board.opaque, v->run->eoi.vector);
	loop_unlock(e->loop);
}

/* The bytes at RIP, for a message. */
static void instruction_text(struct kvm_vcpu *v, char *text, size_t size)
{
	struct x86_regs r;
	struct x86_sregs s;
	uint8_t bytes[15];
	unsigned n = 0;

	kvm_vcpu_get_regs(&v->base, &r);
	kvm_vcpu_get_sregs(&v->base, &s);
	for (; n < sizeof(bytes); n++) {
		uint64_t gpa, gva = r.rip + n + (s.efer & X86_EFER_LMA ? 0 : s.seg[X86_CS].base);

		if (!kvm_vcpu_translate(&v->base, gva, &gpa) || !mem_read(v->engine->mem, gpa, &bytes[n], 1))
			break;
	}
	int used = snprintf(text, size, "at %#llx, bytes", (unsigned long long)r.rip);

	for (unsigned k = 0; k < n && used > 0 && (size_t)used < size; k++)
		used += snprintf(text + used, size - used, " %02x", bytes[k]);
}

static void failed(struct kvm_vcpu *v, struct vcpu_exit *exit, const char *what, uint64_t code)
{
	char insn[96];

	instruction_text(v, insn, sizeof(insn));
	exit->reason = VCPU_EXIT_ERROR;
	snprintf(exit->message, sizeof(exit->message), "KVM %s (%#llx) %s; --engine bt does without it", what, (unsigned long long)code, insn);
}

/* A debug exception of the debugger's; false: stepping past breakpoints beyond the processor's four. */
static bool debug_hit(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
	uint64_t pc = v->run->debug.arch.pc, dr6 = v->run->debug.arch.dr6;
	unsigned used = 0;
	bool here = v->debug.single_step, watch = false;

	for (unsigned n = 0; n < v->debug.count; n++) {
		bool exec = v->debug.point[n].kind == VCPU_BREAK_EXEC;

		if (exec && v->debug.point[n].gva == pc)
			here = true;
		if (used++ < 4 && !exec && (dr6 >> (used - 1) & 1)) {
			watch = here = true;
			pc = v->debug.point[n].gva;
		}
	}
	if (here)
		*exit = (struct vcpu_exit){ .reason = VCPU_EXIT_DEBUG, .debug_address = pc, .debug_watch = watch };
	return here;
}

/* True: vcpu_run() is over. */
static bool handle(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
	struct kvm_run *run = v->run;

	v->exits++;
	v->io_pending = run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO;
	switch (run->exit_reason) {
	case KVM_EXIT_IO: port_io(v); return false;
	case KVM_EXIT_MMIO: mmio(v); return false;
	case KVM_EXIT_IOAPIC_EOI: end_of_interrupt(v); return false;
	case KVM_EXIT_DIRTY_RING_FULL: kvm_dirty_collect(v->engine); return false;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN: return false;
	case KVM_EXIT_SHUTDOWN:
		exit->reason = VCPU_EXIT_SHUTDOWN;
		snprintf(exit->message, sizeof(exit->message), "triple fault");
		return true;
	case KVM_EXIT_DEBUG: return debug_hit(v, exit);
	case KVM_EXIT_INTERNAL_ERROR: failed(v, exit, "cannot emulate an instruction", run->internal.suberror); return true;
	case KVM_EXIT_FAIL_ENTRY: failed(v, exit, "cannot enter the guest", run->fail_entry.hardware_entry_failure_reason); return true;
	default: failed(v, exit, "came back for an unknown reason", run->exit_reason); return true;
	}
}

static int enter(struct kvm_vcpu *v)
{
	int rc;

	atomic_store(&v->in_run, 1);
	rc = ioctl(v->fd, KVM_RUN, 0) < 0 ? errno : 0;
	atomic_store(&v->in_run, 0);
	return rc;
}

/*
 * Into the kernel, but not into the guest; false: vcpu_run() is over. The kernel says whether the vCPU can take an interrupt now, and
 * ends an access that the guest waits for, which is part of its instruction: without that the registers are not those after it.
 */
static bool visit(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
	do {
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		if (enter(v))
			v->io_pending = false;
		else if (handle(v, exit)) /* one access can be several */
			return false;
	} while (v->io_pending);
	return true;
}

/* kvmclock stands still with the VM: the first vCPU to run sets it, the last one keeps it. */
static void clock_start(struct kvm_vcpu *v)
{
	struct kvm_engine *e = v->engine;
	struct kvm_clock_data data = { 0 };

	pthread_mutex_lock(&e->clock_lock);
	if (e->running++ == 0 && e->clock_saved) {
		data.clock = e->clock_ns;
		ioctl(e->vm_fd, KVM_SET_CLOCK, &data);
	}
	pthread_mutex_unlock(&e->clock_lock);
	if (e->paravirt && e->clock_saved)
		ioctl(v->fd, KVM_KVMCLOCK_CTRL); /* fails when the guest does not use it */
}

static void clock_stop(struct kvm_vcpu *v)
{
	struct kvm_engine *e = v->engine;
	struct kvm_clock_data data = { 0 };

	pthread_mutex_lock(&e->clock_lock);
	if (--e->running == 0 && ioctl(e->vm_fd, KVM_GET_CLOCK, &data) == 0) {
		e->clock_saved = true;
		e->clock_ns = data.clock;
	}
	pthread_mutex_unlock(&e->clock_lock);
}

static void run(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
	for (;;) {
		int rc;

		__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (atomic_load(&v->requests) & KVM_REQ_STOP) {
			if (!v->io_pending || visit(v, exit))
				take_request(v, KVM_REQ_STOP);
			return;
		}
		inject(v);
		rc = enter(v);
		if (rc == EINTR || rc == EAGAIN) {
			v->io_pending = false;
			continue;
		}
		if (rc) {
			failed(v, exit, strerror(rc), (uint64_t)rc);
			return;
		}
		if (handle(v, exit))
			return;
	}
}

void kvm_vcpu_run(struct vcpu *vcpu, struct vcpu_exit *exit)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

	*exit = (struct vcpu_exit){ .reason = VCPU_EXIT_STOPPED };
	atomic_store(&v->thread, (int)syscall(SYS_gettid));
	v->activity = VCPU_RUNNING;
	clock_start(v);
	/* Somebody may have changed the registers, and for the 8259's interrupt, which may be there already, nobody wakes one that sleeps. */
	if (visit(v, exit))
		run(v, exit);
	clock_stop(v);
	kvm_note_activity(v);
}
