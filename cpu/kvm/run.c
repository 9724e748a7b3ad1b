/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a vCPU: events, into the kernel, and what it came back for (KVM's documentation, api.rst, section 5).
 *
 * Kicks. Whoever wants something says so first, then sets immediate_exit, then looks at in_run and sends a signal if it is set.
 * The vCPU clears immediate_exit, looks at everything, sets in_run and enters the kernel, which looks at immediate_exit. So
 * a kick either is seen, or makes KVM_RUN return at once, or interrupts it; the signal's handler does nothing.
 *
 * HLT is slept here, on a futex, as is the wait for SIPI: without an interrupt controller in the kernel it knows of neither.
 */
#include <errno.h>
#include <linux/futex.h>
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
	atomic_fetch_add(&v->wake, 1);
	syscall(SYS_futex, &v->wake, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	if (atomic_load(&v->in_run))
		syscall(SYS_tgkill, getpid(), atomic_load(&v->thread), SIGUSR1);
}

void kvm_vcpu_request(struct kvm_vcpu *v, uint32_t bit)
{
	atomic_fetch_or(&v->requests, bit);
	kvm_vcpu_kick(&v->base);
}

/* ---- Events ---- */

static bool has_interrupt(const struct kvm_vcpu *v)
{
	return v->chip.has_interrupt && v->chip.has_interrupt(v->chip.opaque);
}

static bool take_request(struct kvm_vcpu *v, uint32_t bit)
{
	return atomic_fetch_and(&v->requests, ~bit) & bit;
}

/* INIT and SIPI (SDM vol. 3, 8.4). */
static void serve_requests(struct kvm_vcpu *v)
{
	if (take_request(v, KVM_REQ_INIT)) {
		take_request(v, KVM_REQ_NMI);
		kvm_vcpu_init_state(v, false);
		v->wait_sipi = v->index != 0;
	}
	if (take_request(v, KVM_REQ_SIPI) && v->wait_sipi) {
		struct x86_sregs s;
		struct x86_regs r;
		uint8_t vector = v->sipi_vector;

		kvm_vcpu_get_sregs(&v->base, &s);
		kvm_vcpu_get_regs(&v->base, &r);
		s.seg[X86_CS].selector = (uint16_t)(vector << 8);
		s.seg[X86_CS].base = (uint64_t)vector << 12;
		r.rip = 0;
		kvm_vcpu_set_sregs(&v->base, &s);
		kvm_vcpu_set_regs(&v->base, &r);
		v->wait_sipi = false;
	}
}

static bool wakes(struct kvm_vcpu *v)
{
	uint32_t requests = atomic_load(&v->requests);

	if (requests & (KVM_REQ_STOP | KVM_REQ_INIT | KVM_REQ_SIPI))
		return true;
	return !v->wait_sipi && ((requests & KVM_REQ_NMI) || (v->run->if_flag && has_interrupt(v)));
}

static void sleep_halted(struct kvm_vcpu *v)
{
	v->halts++;
	for (;;) {
		uint32_t seen = atomic_load(&v->wake);

		if (wakes(v))
			break;
		syscall(SYS_futex, &v->wake, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
	}
	if (!(atomic_load(&v->requests) & KVM_REQ_STOP))
		v->halted = false;
}

/* An interrupt that waits goes in if the guest can take it now, else the kernel says when. */
static void inject(struct kvm_vcpu *v)
{
	struct kvm_interrupt k;
	int vector;

	if (take_request(v, KVM_REQ_NMI))
		ioctl(v->fd, KVM_NMI);
	v->run->request_interrupt_window = 0;
	if (!has_interrupt(v))
		return;
	if (v->run->ready_for_interrupt_injection) {
		loop_lock(v->engine->loop);
		vector = v->chip.ack(v->chip.opaque);
		loop_unlock(v->engine->loop);
		if (vector >= 0) {
			k.irq = (uint32_t)vector;
			ioctl(v->fd, KVM_INTERRUPT, &k);
			v->run->ready_for_interrupt_injection = 0;
			v->interrupts++;
		}
	}
	v->run->request_interrupt_window = has_interrupt(v);
}

/* ---- Exits ---- */

static bool in_apic(struct kvm_vcpu *v, uint64_t gpa)
{
	return v->chip.mmio_base && (gpa & ~0xfffull) == v->chip.mmio_base(v->chip.opaque);
}

static void mmio_piece(struct kvm_vcpu *v, uint64_t gpa, uint8_t *data, unsigned len, bool write)
{
	struct bus *bus = v->engine->mem->mmio;

	if (!in_apic(v, gpa)) {
		if (write)
			bus_write(bus, gpa, load_le(data, len), len);
		else
			store_le(data, bus_read(bus, gpa, len), len);
	} else if (!write) {
		store_le(data, (uint64_t)v->chip.mmio_read(v->chip.opaque, gpa & 0xffc) >> (8 * (gpa & 3)), len);
	} else if (len >= 4 && !(gpa & 3)) {
		/* Only aligned 32-bit writes are defined (SDM vol. 3, 11.4.1). */
		v->chip.mmio_write(v->chip.opaque, gpa & 0xffc, (uint32_t)load_le(data, 4));
	}
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

static void msr(struct kvm_vcpu *v, bool write)
{
	uint64_t value = v->run->msr.data;
	bool known, good;

	v->msr_exits++;
	loop_lock(v->engine->loop);
	if (write)
		good = kvm_chip_set_msr(v, v->run->msr.index, value, &known);
	else
		good = kvm_chip_get_msr(v, v->run->msr.index, &value, &known);
	loop_unlock(v->engine->loop);
	v->run->msr.error = !good;
	v->run->msr.data = value;
	if (!known)
		log_guest("vCPU %u: %s of MSR 0x%x, which this CPU does not have: #GP", v->index, write ? "write" : "read",
			  v->run->msr.index);
}

/* CR8 is in the kernel, TPR in the machine's local APIC: whichever was written last. */
static void tpr_to_chip(struct kvm_vcpu *v)
{
	if (v->run->cr8 == v->cr8 || !v->chip.set_tpr)
		return;
	v->cr8 = v->run->cr8 & 15;
	loop_lock(v->engine->loop);
	v->chip.set_tpr(v->chip.opaque, v->cr8);
	loop_unlock(v->engine->loop);
}

static void tpr_to_kernel(struct kvm_vcpu *v)
{
	if (v->chip.get_tpr) {
		loop_lock(v->engine->loop);
		v->cr8 = v->chip.get_tpr(v->chip.opaque);
		loop_unlock(v->engine->loop);
	}
	v->run->cr8 = v->cr8;
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
	snprintf(exit->message, sizeof(exit->message), "KVM %s (%#llx) %s", what, (unsigned long long)code, insn);
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
	tpr_to_chip(v);
	v->io_pending = run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO ||
			run->exit_reason == KVM_EXIT_X86_RDMSR || run->exit_reason == KVM_EXIT_X86_WRMSR;
	switch (run->exit_reason) {
	case KVM_EXIT_IO: port_io(v); return false;
	case KVM_EXIT_MMIO: mmio(v); return false;
	case KVM_EXIT_X86_RDMSR: msr(v, false); return false;
	case KVM_EXIT_X86_WRMSR: msr(v, true); return false;
	case KVM_EXIT_HLT: v->halted = true; return false;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR: return false;
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

/* An access that the guest waits for is part of its instruction: without its end the registers are not those after it. */
static bool complete_access(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
	while (v->io_pending) {
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		if (enter(v))
			v->io_pending = false;
		else if (handle(v, exit)) /* one access can be several */
			return false;
	}
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
		if (atomic_load(&v->requests) & (KVM_REQ_STOP | KVM_REQ_INIT | KVM_REQ_SIPI))
			if (!complete_access(v, exit))
				return;
		serve_requests(v);
		if (take_request(v, KVM_REQ_STOP))
			return;
		if (v->halted || v->wait_sipi) {
			sleep_halted(v);
			continue;
		}
		inject(v);
		tpr_to_kernel(v);
		rc = enter(v);
		if (rc == EINTR || rc == EAGAIN) {
			v->io_pending = false;
			tpr_to_chip(v);
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
	v->run->ready_for_interrupt_injection = 0; /* somebody may have changed the registers */
	clock_start(v);
	run(v, exit);
	clock_stop(v);
}
