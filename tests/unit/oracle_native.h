/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of oracle_run.h: run_native() has the host's CPU run code in this process. A state is entered through the return from
 * a signal handler, which loads every register there is, and left through the signal of the fault that ends the code. The handlers chain
 * to those that the engine has installed.
 */
#ifndef TESTS_UNIT_ORACLE_NATIVE_H
#define TESTS_UNIT_ORACLE_NATIVE_H

#include <asm/prctl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/tap.h"
#include "tests/unit/oracle_layout.h"

static struct {
	enum { NATIVE_OFF, NATIVE_ENTER, NATIVE_INSIDE } phase;
	const struct cpu_state *in;
	struct outcome *out;
	uint64_t xcr0;
	const struct cpuid_model *model;
	gregset_t gregs;
	_Alignas(64) uint8_t xstate[8192];
	uint32_t xsize;
	struct sigaction engine[NSIG];
	const char *what; /* for the watchdog */
} native;

static const int greg_of[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				 REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
				 REG_R12, REG_R13, REG_R14, REG_R15 };

/* The frame's extended state: size behind the reserved bytes' magic (asm/sigcontext.h). */
static uint32_t frame_xsize(const uint8_t *fp)
{
	uint32_t magic, size;

	memcpy(&magic, fp + 464, 4);
	memcpy(&size, fp + 464 + 16, 4);
	return magic == FP_XSTATE_MAGIC1 ? size : 512;
}

static void native_enter(ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
	const struct cpu_state *in = native.in;
	uint64_t bv, frame_bv;

	native.xsize = frame_xsize(fp);
	if (native.xsize > sizeof(native.xstate))
		abort();
	memcpy(native.gregs, r, sizeof(native.gregs));
	memcpy(native.xstate, fp, native.xsize);
	for (unsigned k = 0; k < 16; k++)
		r[greg_of[k]] = (greg_t)in->gpr[k];
	r[REG_RIP] = (greg_t)in->rip;
	r[REG_EFL] = (greg_t)in->rflags;
	r[REG_CSGSFS] = (r[REG_CSGSFS] & ~0xffffll) | in->cs;
	memcpy(fp, in->xstate, 416);
	if (native.xsize > 576) {
		memcpy(&bv, in->xstate + 512, 8);
		memcpy(&frame_bv, fp + 512, 8);
		frame_bv = (frame_bv & ~native.xcr0) | (bv & native.xcr0);
		memcpy(fp + 512, &frame_bv, 8);
		for (unsigned k = 2; k < CPUID_XSAVE_COMPONENTS; k++)
			if (native.xcr0 >> k & 1)
				memcpy(fp + native.model->xsave[k].offset,
				       in->xstate + native.model->xsave[k].offset,
				       native.model->xsave[k].size);
	}
	native.phase = NATIVE_INSIDE;
}

static void native_leave(ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
	struct outcome *o = native.out;

	for (unsigned k = 0; k < 16; k++)
		o->cpu.gpr[k] = (uint64_t)r[greg_of[k]];
	o->cpu.rip = (uint64_t)r[REG_RIP];
	o->cpu.rflags = (uint64_t)r[REG_EFL];
	o->vector = (uint64_t)r[REG_TRAPNO];
	o->error = (uint64_t)r[REG_ERR];
	o->cr2 = (uint64_t)r[REG_CR2];
	memset(o->cpu.xstate, 0, sizeof(o->cpu.xstate));
	memcpy(o->cpu.xstate, fp, native.xsize < XSTATE_BYTES ? native.xsize : XSTATE_BYTES);
	memset(o->cpu.xstate + 416, 0, 96);
	memcpy(r, native.gregs, sizeof(native.gregs));
	memcpy(fp, native.xstate, native.xsize);
	native.phase = NATIVE_OFF;
}

/* The code may have set AC, NT or ID; the kernel leaves them set for the handler, and the last two after it. */
__attribute__((target("general-regs-only"), no_sanitize("address", "undefined"))) static void
on_native_signal(int sig, siginfo_t *info, void *context)
{
	__asm__ volatile("pushfq; andl $~0x244000, (%%rsp); popfq" : : : "memory", "cc");
	if (native.phase == NATIVE_ENTER && sig == SIGUSR1)
		native_enter(context);
	else if (native.phase == NATIVE_INSIDE && sig != SIGUSR1)
		native_leave(context);
	else if (native.engine[sig].sa_sigaction)
		native.engine[sig].sa_sigaction(sig, info, context);
}

static void on_alarm(int sig)
{
	static const char text[] = "# a piece of code does not end: ";

	if (write(1, text, sizeof(text) - 1) < 0 ||
	    write(1, native.what, strlen(native.what)) < 0 || write(1, "\n", 1) < 0)
		_exit(1);
	_exit(1);
}

static void native_install(void)
{
	static const int signals[] = { SIGUSR1, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	static uint8_t stack[65536];
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction sa = { .sa_sigaction = on_native_signal,
				.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };

	sigaltstack(&ss, NULL);
	sigemptyset(&sa.sa_mask);
	for (unsigned k = 0; k < sizeof(signals) / sizeof(signals[0]); k++) {
		struct sigaction old;

		sigaction(signals[k], &sa, &old);
		if (old.sa_sigaction != on_native_signal)
			native.engine[signals[k]] = old;
	}
	signal(SIGALRM, on_alarm);
}

static void *map_at(uint64_t at, uint64_t bytes, int prot, int fd, uint64_t offset)
{
	void *p = mmap((void *)at, bytes, prot, MAP_SHARED | (at ? MAP_FIXED_NOREPLACE : 0), fd,
		       (off_t)offset);

	if (p == MAP_FAILED || (at && p != (void *)at)) {
		printf("Bail out! cannot map %#llx: %s\n", (unsigned long long)at, strerror(errno));
		exit(1);
	}
	return p;
}

static void native_map(struct oracle_run *r)
{
	static const int prot[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };
	uint64_t code = CODE_PAGES * 4096;
	int fd = memfd_create("oracle", 0);

	if (fd < 0 || ftruncate(fd, (off_t)(code + MEMORY_BYTES)))
		abort();
	r->code_rw = map_at(0, code, PROT_READ | PROT_WRITE, fd, 0);
	map_at(CODE_AT, code, PROT_READ | PROT_EXEC, fd, 0);
	map_at(SMC_AT, code, PROT_READ | PROT_WRITE | PROT_EXEC, fd, 0);
	r->native_memory = map_at(0, MEMORY_BYTES, PROT_READ | PROT_WRITE, fd, code);
	memset(r->native_memory, 0, MEMORY_BYTES);
	for (unsigned k = 0; k < DATA_PAGES; k++)
		map_at(data_page(k), 4096, PROT_READ | PROT_WRITE, fd, code + 4096 * k);
	map_at(STACK_AT, STACK_PAGES * 4096, PROT_READ | PROT_WRITE, fd, code + DATA_PAGES * 4096);
	close(fd);
	/* Present before its rights are taken: so a write to a page that may only be read says so. */
	if (mlock((void *)DATA_AT, (DATA_PAGES - 1) * 4096) || mlock((void *)COUNTERS_AT, 4096) ||
	    mlock((void *)STACK_AT, STACK_PAGES * 4096))
		diag("mlock: %s", strerror(errno));
	for (unsigned k = 0; k < DATA_PAGES; k++) {
		(void)*(volatile uint8_t *)data_page(k);
		mprotect((void *)data_page(k), 4096, prot[data_rights[k]]);
	}
}

/* What may be read is present: error codes say so. */
static void touch_pages(void)
{
	for (unsigned k = 0; k < CODE_PAGES; k++) {
		(void)*(volatile uint8_t *)(CODE_AT + k * 4096);
		(void)*(volatile uint8_t *)(SMC_AT + k * 4096);
	}
	for (unsigned k = 0; k < DATA_PAGES; k++)
		if (data_rights[k] != PAGE_NONE)
			(void)*(volatile uint8_t *)data_page(k);
}

static void run_native(struct oracle_run *r, const struct cpu_state *in, struct outcome *out)
{
	native.in = in;
	native.out = out;
	native.xcr0 = r->xcr0;
	native.model = &r->model;
	if (syscall(SYS_arch_prctl, ARCH_SET_GS, GS_BASE)) /* the translator has it otherwise */
		abort();
	touch_pages();
	__asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(DATA_SELECTOR));
	native.phase = NATIVE_ENTER;
	raise(SIGUSR1);
	__asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(0));
	out->memory = r->native_memory;
}

#endif
