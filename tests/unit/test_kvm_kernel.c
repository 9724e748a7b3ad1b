/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KVM engine on a kernel that is played here: ioctl() is this file's. It does what /dev/kvm of other kernels, or on other
 * processors, does, and what one in an emulator does not show.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "cpu/kvm/kvm_priv.h"
#include "tests/tap.h"

#define VCPUS 2u
#define ENTRIES 8u
#define KICKS 5000u

static struct {
	struct kvm_vcpu vcpu[VCPUS], *vcpus[VCPUS];
	struct kvm_dirty_gfn ring[VCPUS][ENTRIES];
	unsigned reset_next[VCPUS];
	unsigned budget, signals; /* entries that one call comes to; calls that end at once */
	struct kvm_run run;
	uint32_t activity;
	int injected;	/* a vector, or -1 */
	unsigned sleeps; /* runs of a halted vCPU that nothing would wake */
	struct kvm_cpuid2 *supported;
	bool blocks;	      /* KVM_RUN ends by a signal or immediate_exit only */
	_Atomic unsigned lost; /* it did not within seconds */
	bool stop_in_run, stop_before; /* somebody asks for a stop: when KVM_RUN has begun; just before that */
} k;

static int reset_rings(void)
{
	unsigned done = 0;

	if (k.signals) {
		k.signals--;
		errno = EINTR;
		return -1;
	}
	for (unsigned n = 0; n < VCPUS; n++)
		for (; done < k.budget; done++) {
			struct kvm_dirty_gfn *g = &k.ring[n][k.reset_next[n] % ENTRIES];

			if (!(g->flags & KVM_DIRTY_GFN_F_RESET))
				break;
			g->flags = 0;
			k.reset_next[n]++;
		}
	return (int)done;
}

/* As the kernel: a signal that is there, or comes, ends it, and there is no moment in which neither it nor immediate_exit is seen. */
static void block(void)
{
	const struct timespec limit = { .tv_sec = 3 };
	sigset_t kick, before;

	sigemptyset(&kick);
	sigaddset(&kick, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &kick, &before);
	if (!__atomic_load_n(&k.run.immediate_exit, __ATOMIC_SEQ_CST) && ppoll(NULL, 0, &limit, &before) == 0)
		k.lost++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void stop_if(bool *now)
{
	if (*now) {
		*now = false;
		kvm_vcpu_request(&k.vcpu[0], KVM_REQ_STOP);
	}
}

static int run(void)
{
	bool halted = k.activity == KVM_MP_STATE_HALTED;

	k.run.ready_for_interrupt_injection = k.injected < 0;
	if (!__atomic_load_n(&k.run.immediate_exit, __ATOMIC_SEQ_CST))
		stop_if(&k.stop_in_run);
	if (k.blocks)
		block();
	else if (!k.run.immediate_exit) {
		k.sleeps += halted;
		k.vcpu[0].requests |= KVM_REQ_STOP; /* the machine's owner */
	}
	errno = EINTR;
	return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *p;

	va_start(args, request);
	p = va_arg(args, void *);
	va_end(args);
	switch (request) {
	case KVM_RESET_DIRTY_RINGS: return reset_rings();
	case KVM_RUN: return run();
	case KVM_GET_MP_STATE:
		stop_if(&k.stop_before);
		((struct kvm_mp_state *)p)->mp_state = k.activity;
		return 0;
	case KVM_SET_MP_STATE: k.activity = ((struct kvm_mp_state *)p)->mp_state; return 0;
	case KVM_GET_REGS: ((struct kvm_regs *)p)->rflags = X86_IF | 2; return 0;
	case KVM_SET_VCPU_EVENTS:
		if (((struct kvm_vcpu_events *)p)->interrupt.injected)
			k.injected = ((struct kvm_vcpu_events *)p)->interrupt.nr;
		return 0;
	case KVM_GET_SUPPORTED_CPUID: memcpy(p, k.supported, sizeof(*k.supported) + k.supported->nent * sizeof(k.supported->entries[0])); return 0;
	case KVM_GET_VCPU_EVENTS:
	case KVM_GET_CLOCK:
	case KVM_SET_CLOCK: return 0;
	default: errno = ENOTTY; return -1;
	}
}

static void open_engine(struct kvm_engine *e)
{
	static uint8_t ram[2 << 20];
	static struct memory mem = { .ram_base = ram, .low_bytes = sizeof(ram) };

	memset(&k, 0, sizeof(k));
	k.injected = -1;
	*e = (struct kvm_engine){ .fd = 3, .vm_fd = 3, .mem = &mem, .vcpu_count = VCPUS, .vcpus = k.vcpus, .ring_entries = ENTRIES };
	pthread_mutex_init(&e->dirty_lock, NULL);
	pthread_mutex_init(&e->clock_lock, NULL);
	for (unsigned n = 0; n < VCPUS; n++) {
		k.vcpus[n] = &k.vcpu[n];
		k.vcpu[n] = (struct kvm_vcpu){ .engine = e, .index = n, .fd = 4, .run = &k.run, .ring = k.ring[n] };
	}
}

static void write_pages(unsigned vcpu, unsigned first, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		k.ring[vcpu][(k.reset_next[vcpu] + n) % ENTRIES] = (struct kvm_dirty_gfn){ .flags = KVM_DIRTY_GFN_F_DIRTY, .offset = first + n };
}

static unsigned not_watched(void)
{
	unsigned count = 0;

	for (unsigned n = 0; n < VCPUS * ENTRIES; n++)
		count += k.ring[n / ENTRIES][n % ENTRIES].flags != 0;
	return count;
}

/* Kernels from 6.16 on end KVM_RESET_DIRTY_RINGS when a signal comes, a kick's for example. */
static void test_rings(void)
{
	struct kvm_engine e;

	open_engine(&e);
	k.budget = 3;
	write_pages(0, 10, 7);
	write_pages(1, 20, 5);
	kvm_dirty_collect(&e);
	is_u64(not_watched(), 0, "all pages are watched again, though the kernel does it in pieces");
	k.signals = 2;
	write_pages(0, 10, 2);
	kvm_dirty_collect(&e);
	is_u64(not_watched(), 0, "and though signals come");
	is_u64(e.ring_taken, 0, "nothing is left for the next time");
	k.budget = 0;
	write_pages(1, 20, 4);
	kvm_dirty_collect(&e);
	is_u64(e.ring_taken, 4, "what the kernel does not do is not forgotten");
	k.budget = ENTRIES;
	kvm_dirty_collect(&e);
	is_u64(not_watched(), 0, "but done the next time, without new ones");
	dirty_log_finish(&e.dirty);
}

static int ack(void *opaque)
{
	return 0x30;
}

/* Paused in HLT; the 8259's interrupt comes before it goes on: the kernel's HLT does not end for it by itself. */
static void test_resume(void)
{
	struct kvm_engine e;
	struct vcpu_exit exit;
	struct loop *loop;
	struct error *err = loop_create(&loop);

	ok(!err, "a loop");
	open_engine(&e);
	e.loop = loop;
	e.board.ack = ack;
	e.intr = true;
	k.activity = KVM_MP_STATE_HALTED;
	kvm_vcpu_run(&k.vcpu[0].base, &exit);
	is_u64((uint64_t)k.injected, 0x30, "the 8259's interrupt is delivered to a vCPU that was resumed in HLT");
	is_u64(k.sleeps, 0, "which does not go to sleep before that");
	is_u64(exit.reason, VCPU_EXIT_STOPPED, "and can be stopped");
	loop_destroy(loop);
}

/* ---- Kicks ---- */

static _Atomic unsigned stops;

static void *run_vcpu(void *opaque)
{
	struct vcpu_exit exit;

	while (stops < KICKS) {
		kvm_vcpu_run(&k.vcpu[0].base, &exit);
		stops += exit.reason == VCPU_EXIT_STOPPED;
	}
	return NULL;
}

static void on_kick(int sig)
{
}

/* At the two points on the way into the kernel where it is too late to be looked at, and too early for a signal to interrupt anything. */
static void test_kick_points(void)
{
	struct kvm_engine e;
	struct vcpu_exit exit;

	open_engine(&e);
	k.blocks = k.stop_in_run = true;
	kvm_vcpu_run(&k.vcpu[0].base, &exit);
	is_u64(k.lost, 0, "a request to stop when KVM_RUN has begun");
	k.vcpu[0].requests = 0;
	k.stop_before = true;
	k.activity = KVM_MP_STATE_UNINITIALIZED; /* so that the interrupt is not for it */
	e.intr = true;
	kvm_vcpu_run(&k.vcpu[0].base, &exit);
	is_u64(k.lost, 0, "and one before that, when requests have been looked at");
}

/* One asks for a stop after the other, as soon as the last one was honoured. */
static void test_kicks(void)
{
	struct kvm_engine e;
	pthread_t thread;

	open_engine(&e);
	k.blocks = true;
	pthread_create(&thread, NULL, run_vcpu, NULL);
	for (unsigned n = 0; n < KICKS && !k.lost; n++) {
		for (volatile unsigned spin = n * 7919 % 4096; spin; spin--)
			;
		kvm_vcpu_request(&k.vcpu[0], KVM_REQ_STOP);
		while (stops <= n && !k.lost)
			;
	}
	stops = KICKS;
	if (k.lost)
		kvm_vcpu_request(&k.vcpu[0], KVM_REQ_STOP);
	pthread_join(thread, NULL);
	is_u64(k.lost, 0, "of %u requests to stop none is lost", KICKS);
}

static struct cpuid_result guest(const struct kvm_engine *e, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned n = 0; n < e->cpuid.count; n++)
		if (e->cpuid.entry[n].leaf == leaf && (!e->cpuid.entry[n].by_subleaf || e->cpuid.entry[n].subleaf == subleaf))
			return e->cpuid.entry[n].result;
	return (struct cpuid_result){ 0 };
}

/* A guest on a real processor has to know what it must protect itself from, and with what. */
static void test_cpuid(void)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[4];
	} table;
	struct kvm_engine e;
	struct cpuid_result r;
	struct error *err;

	open_engine(&e);
	e.tsc_hz = 2500000000;
	k.supported = &table.head;
	err = kvm_set_cpuid(&e);
	ok(!err, "the model for a kernel that supports nothing");
	r = guest(&e, 7, 0);
	is_u64(r.ebx | r.ecx | r.edx, 0, "has no features of leaf 7");
	is_u64(guest(&e, 7, 2).edx, 0, "nor of its subleaf 2");
	is_u64(guest(&e, 0x80000008, 0).ebx, 0, "nor of leaf 0x80000008");
	r = guest(&e, 0x80000021, 0);
	is_u64(r.eax | r.ecx, 0, "and does not say of a processor of AMD's what it does not suffer from");

	table.head.nent = 3;
	table.entry[0] = (struct kvm_cpuid_entry2){ .function = 7, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .ebx = ~0u, .ecx = ~0u, .edx = ~0u };
	table.entry[1] = (struct kvm_cpuid_entry2){ .function = 7, .index = 2, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .edx = 0x11 };
	table.entry[2] = (struct kvm_cpuid_entry2){ .function = 0x80000008, .ebx = ~0u };
	err = kvm_set_cpuid(&e);
	ok(!err, "the model for one that supports all");
	r = guest(&e, 7, 0);
	is_u64(r.edx & 0x98000400, 0x98000400, "has MD_CLEAR, STIBP, L1D_FLUSH, SSBD");
	is_u64(r.edx & 0x01c00000, 0, "and no AMX");
	is_u64(guest(&e, 7, 2).edx, 0x11, "what it has of IA32_SPEC_CTRL");
	is_u64(guest(&e, 0x80000008, 0).ebx & 0x5000, 0x5000, "IBPB and IBRS of AMD's");
}

int main(void)
{
	const struct sigaction kick = { .sa_handler = on_kick };

	test_rings();
	test_resume();
	sigaction(SIGUSR1, &kick, NULL);
	test_kick_points();
	test_kicks();
	test_cpuid();
	return done_testing();
}
