/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The probe; see probe.h. Runs of a tenth of the iterations come first: a slow one ends there. A timer ends KVM_RUN when
 * PROBE_LIMIT_US of processor time are used up. Of three runs the fastest counts, so that a busy host is not taken for a slow one.
 */
#include "cpu/kvm/probe.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "cpu/x86.h"

#define PROBE_LIMIT_US 20000
#define MEMORY_BYTES 0x10000u
#define TABLES 0x1000u /* PML4; PDPT, PD, PT follow */
#define CODE 0x8000u
#define DATA 0x9000u
#define KERNEL_HALF 0xffff800000000000ull

/*
 * again: paddd (%rdi), %xmm0; incq (%rsi); dec %ecx; jnz again; movdqu %xmm0, 16(%rsi); hlt
 * rdi: DATA, four words 1; rsi: DATA + 32.
 */
static const uint8_t code[] = {
	0x66, 0x0f, 0xfe, 0x07,		    /* paddd (%rdi), %xmm0 */
	0x48, 0xff, 0x06,		    /* incq (%rsi) */
	0xff, 0xc9,			    /* dec %ecx */
	0x75, 0xf5,			    /* jnz -11 */
	0xf3, 0x0f, 0x7f, 0x46, 0x10,	    /* movdqu %xmm0, 16(%rsi) */
	0xf4,				    /* hlt */
};

struct probe {
	int vm, vcpu;
	uint8_t *memory;
	struct kvm_run *run;
	size_t run_bytes;
};

static void nothing(int sig)
{
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void fill_memory(uint8_t *m)
{
	static const uint32_t ones[4] = { 1, 1, 1, 1 };

	store_le(m + TABLES + 8 * (KERNEL_HALF >> 39 & 511), (TABLES + 0x1000) | 3, 8);
	store_le(m + TABLES + 0x1000, (TABLES + 0x2000) | 3, 8);
	store_le(m + TABLES + 0x2000, (TABLES + 0x3000) | 3, 8);
	for (unsigned k = 0; k < MEMORY_BYTES >> 12; k++)
		store_le(m + TABLES + 0x3000 + 8 * k, (k << 12) | 3, 8);
	memcpy(m + CODE, code, sizeof(code));
	memcpy(m + DATA, ones, sizeof(ones));
}

static bool set_state(struct probe *p, uint32_t iterations)
{
	struct kvm_segment cs = { .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment ds = { .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_regs r = { .rip = KERNEL_HALF + CODE, .rflags = 2, .rcx = iterations, .rdi = KERNEL_HALF + DATA,
			      .rsi = KERNEL_HALF + DATA + 32, .rsp = KERNEL_HALF + MEMORY_BYTES };
	struct kvm_fpu fpu = { .fcw = 0x37f, .mxcsr = 0x1f80 };
	struct kvm_sregs s;

	if (ioctl(p->vcpu, KVM_GET_SREGS, &s) < 0)
		return false;
	s.cs = cs;
	s.ds = s.es = s.ss = s.fs = s.gs = ds;
	s.cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
	s.cr3 = TABLES;
	s.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
	s.efer = X86_EFER_LME | X86_EFER_LMA;
	memset(p->memory + DATA + 32, 0, 32);
	return ioctl(p->vcpu, KVM_SET_SREGS, &s) == 0 && ioctl(p->vcpu, KVM_SET_FPU, &fpu) == 0 &&
	       ioctl(p->vcpu, KVM_SET_REGS, &r) == 0;
}

static bool set_cpuid(struct probe *p, int kvm_fd)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));
	bool done;

	if (!c)
		return false;
	c->nent = 256;
	done = ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, c) == 0 && ioctl(p->vcpu, KVM_SET_CPUID2, c) == 0;
	free(c);
	return done;
}

/* What could not be made, or NULL. */
static const char *make(struct probe *p, int kvm_fd)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_BYTES };
	int bytes = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (ioctl(kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION || bytes < (int)sizeof(struct kvm_run))
		return "does not answer as KVM does";
	p->vm = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	if (p->vm < 0)
		return "does not make a VM";
	p->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	region.userspace_addr = (uintptr_t)p->memory;
	if (p->memory == MAP_FAILED || ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return "does not take memory";
	p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
	if (p->vcpu < 0)
		return "does not make a vCPU";
	p->run_bytes = (size_t)bytes;
	p->run = mmap(NULL, p->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	if (p->run == MAP_FAILED)
		return "does not give its vCPU";
	fill_memory(p->memory);
	return set_cpuid(p, kvm_fd) ? NULL : "does not take a CPU model";
}

/* One run; its time, or 0 when it did not come to HLT. */
static uint64_t run_loop(struct probe *p, uint32_t iterations)
{
	uint64_t start;

	if (!set_state(p, iterations))
		return 0;
	start = now_ns();
	if (ioctl(p->vcpu, KVM_RUN, 0) < 0 || p->run->exit_reason != KVM_EXIT_HLT)
		return 0;
	return now_ns() - start;
}

/* The fastest of three, or 0 when one did not come to its end. */
static uint64_t run_best(struct probe *p, uint32_t iterations)
{
	uint64_t best = UINT64_MAX, ns;

	for (unsigned k = 0; k < 3; k++) {
		ns = run_loop(p, iterations);
		if (!ns)
			return 0;
		best = MIN(best, ns);
	}
	return best;
}

static bool exact(const struct probe *p, uint32_t iterations)
{
	struct kvm_regs r;

	for (unsigned k = 0; k < 4; k++)
		if (load_le(p->memory + DATA + 48 + 4 * k, 4) != iterations)
			return false;
	return load_le(p->memory + DATA + 32, 8) == iterations && ioctl(p->vcpu, KVM_GET_REGS, &r) == 0 &&
	       r.rip == KERNEL_HALF + CODE + sizeof(code) && !(uint32_t)r.rcx;
}

/* The cost of coming and going is in the first, short run too. */
static void measure(struct probe *p, struct kvm_probe *out)
{
	uint32_t few = KVM_PROBE_ITERATIONS / 10;
	uint64_t base, first, second;

	base = run_loop(p, 1); /* also takes the page faults */
	base = base ? run_best(p, 1) : 0;
	first = base ? run_best(p, few) : 0;
	if (!first) {
		snprintf(out->reason, sizeof(out->reason), "/dev/kvm does not run a loop of %u iterations in ring 0 to its end in 20 ms, so it is not hardware", few);
		return;
	}
	out->ran = true;
	out->exact = exact(p, few);
	out->ns = (double)(first > base ? first - base : 0) / few;
	if (out->exact && out->ns < 10 * KVM_PROBE_MAX_NS) {
		second = run_best(p, KVM_PROBE_ITERATIONS);
		out->exact = second && exact(p, KVM_PROBE_ITERATIONS);
		if (second)
			out->ns = (double)(second > base ? second - base : 0) / KVM_PROBE_ITERATIONS;
	}
	out->good = out->exact && out->ns < KVM_PROBE_MAX_NS;
	if (!out->exact)
		snprintf(out->reason, sizeof(out->reason), "/dev/kvm computes a loop in ring 0 wrongly");
	else if (!out->good)
		snprintf(out->reason, sizeof(out->reason),
			 "/dev/kvm takes %.0f ns for an iteration of a loop in ring 0, so it emulates it: hardware takes less than %.0f",
			 out->ns, KVM_PROBE_MAX_NS);
	else
		snprintf(out->reason, sizeof(out->reason), "/dev/kvm runs ring 0 in hardware: %.1f ns for an iteration of a loop", out->ns);
}

void kvm_probe_run(int kvm_fd, struct kvm_probe *out)
{
	struct probe p = { .vm = -1, .vcpu = -1, .memory = MAP_FAILED, .run = MAP_FAILED };
	struct sigaction expired = { .sa_handler = nothing }, old;
	struct itimerval limit = { .it_value.tv_usec = PROBE_LIMIT_US, .it_interval.tv_usec = 1000 }, none = { 0 };
	const char *missing;

	*out = (struct kvm_probe){ 0 };
	if (kvm_fd < 0) {
		snprintf(out->reason, sizeof(out->reason), "there is no /dev/kvm that can be used");
		return;
	}
	missing = make(&p, kvm_fd);
	if (missing) {
		snprintf(out->reason, sizeof(out->reason), "/dev/kvm %s: %s", missing, strerror(errno));
	} else {
		sigaction(SIGPROF, &expired, &old);
		setitimer(ITIMER_PROF, &limit, NULL);
		measure(&p, out);
		setitimer(ITIMER_PROF, &none, NULL);
		sigaction(SIGPROF, &old, NULL);
	}
	if (p.run != MAP_FAILED)
		munmap(p.run, p.run_bytes);
	if (p.memory != MAP_FAILED)
		munmap(p.memory, MEMORY_BYTES);
	if (p.vcpu >= 0)
		close(p.vcpu);
	if (p.vm >= 0)
		close(p.vm);
}
