/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One piece of user-mode code, run twice: by the host's CPU in this process, and by the translator in a guest; for
 * test_bt_oracle.
 *
 * Theory of operation. Code, data and stack are at the same linear addresses on both sides. Natively a state is
 * entered through the return from a signal handler, which loads every register there is, and left through the
 * signal of the fault that ends the code. In the guest the same fault goes through the IDT to a handler that
 * writes to a port; the frame it was given is compared. The guest's page tables map what is mapped here, with the
 * same rights; its selectors are those that Linux gives a process. The kernel's own part of the guest is in the
 * upper half, where user code reaches nothing on either side.
 *
 * The guest may be interrupted meanwhile: at every so many-th place where it asks for interrupts (with the translator's
 * option `poll` that is every polling point), or by a timer. Its handler uses some registers, gives them
 * back, and returns. Where it strikes, an instruction must begin.
 *
 * One thread. The handlers chain to those that the engine has installed.
 */
#ifndef TESTS_UNIT_ORACLE_RUN_H
#define TESTS_UNIT_ORACLE_RUN_H

#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "cpu/bt/private.h"
#include "cpu/cpuid.h"
#include "tests/unit/bt_guest.h"

#define CODE_AT 0x10000000ull
#define CODE_PAGES 16u
#define SMC_AT 0x18000000ull /* the same pages, writable */
#define DATA_AT 0x20000000ull
#define DATA_PAGES 16u
#define STACK_AT 0x30000000ull
#define STACK_PAGES 4u
#define GS_BASE 0x40ull
/* Linux's selectors. */
#define CS_64 0x33
#define CS_32 0x23
#define DATA_SELECTOR 0x2b

enum page_rights { PAGE_NONE, PAGE_RO, PAGE_RW };
/* What the pages from DATA_AT may be used for. The last one holds loop counters, and is not with the others. */
static const uint8_t data_rights[DATA_PAGES] = {
	PAGE_RW, PAGE_RW,   PAGE_RW, PAGE_RW, PAGE_RO,	 PAGE_RW,   PAGE_NONE, PAGE_RW,
	PAGE_RW, PAGE_NONE, PAGE_RO, PAGE_RW, PAGE_NONE, PAGE_NONE, PAGE_NONE, PAGE_RW,
};
#define COUNTERS_AT 0x28000000ull

static uint64_t data_page(unsigned n)
{
	return n == DATA_PAGES - 1 ? COUNTERS_AT : DATA_AT + 4096 * n;
}

/* Memory that is compared: data pages, then the stack. */
#define MEMORY_BYTES ((DATA_PAGES + STACK_PAGES) * 4096)
/* In guest-physical memory. */
#define PHYS_TABLES 0x10000u
#define PHYS_KERNEL 0x200000u /* GDT, TSS, IDT, handlers, stack: mapped at KERNEL_AT */
#define PHYS_CODE 0x400000u
#define PHYS_DATA 0x500000u /* and the stack behind it */
#define KERNEL_AT 0xffff800000000000ull
enum { GDT = 0, TSS = 0x200, IDT = 0x1000, HANDLERS = 0x2000, START = 0x2100, INTERRUPT = 0x2180, KSTACK = 0x8000 };
#define INTERRUPT_VECTOR 0x40

#define XSTATE_BYTES 2816 /* up to AVX-512, standard format */

struct cpu_state {
	uint64_t gpr[16], rip, rflags;
	uint16_t cs; /* CS_64 or CS_32 */
	_Alignas(64) uint8_t xstate[XSTATE_BYTES];
};

struct outcome {
	struct cpu_state cpu;
	uint64_t vector, error, cr2;
	uint8_t *memory;
	char failure[240]; /* the guest ended otherwise */
};

struct oracle_run {
	struct bt_guest g;
	uint8_t *code_rw;	/* native code, writable */
	uint8_t *native_memory; /* as mapped, all of it readable and writable */
	uint64_t xcr0;
	struct cpuid_model model;

	/* Interrupts. */
	unsigned every; /* so many-th place; 0: none */
	bool by_timer;
	unsigned questions, asked_again;
	uint64_t last_rip;
	uint64_t taken;
	volatile sig_atomic_t pending;
	timer_t timer;
	/* Does an instruction begin there? */
	bool (*is_start)(uint64_t rip);
	uint64_t bad_rip; /* it was interrupted there, where none does */
};

/* ---- the host's side ---- */

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

/* ---- the guest's side ---- */

static uint8_t *guest_ram(struct oracle_run *r, uint64_t gpa)
{
	return r->g.mem->ram_base + gpa;
}

static void guest_map_user(struct oracle_run *r)
{
	static const uint64_t rights[] = { 0, 1ull << 63 | 5, 1ull << 63 | 7 };
	uint64_t pdpt = PHYS_TABLES + 0x1000, pd = PHYS_TABLES + 0x2000, pt = PHYS_TABLES + 0x3000;

	memset(guest_ram(r, pd), 0, 4096);
	guest_put64(&r->g, PHYS_TABLES, pdpt | 7);
	guest_put64(&r->g, pdpt, pd | 7);
	guest_put64(&r->g, pd + 8 * (CODE_AT >> 21), pt | 7);
	guest_put64(&r->g, pd + 8 * (DATA_AT >> 21), (pt + 0x1000) | 7);
	guest_put64(&r->g, pd + 8 * (STACK_AT >> 21), (pt + 0x2000) | 7);
	guest_put64(&r->g, pd + 8 * (SMC_AT >> 21), (pt + 0x3000) | 7);
	guest_put64(&r->g, pd + 8 * (COUNTERS_AT >> 21), (pt + 0x4000) | 7);
	for (unsigned k = 0; k < CODE_PAGES; k++) {
		guest_put64(&r->g, pt + 8 * k, (PHYS_CODE + 4096 * k) | 5);
		guest_put64(&r->g, pt + 0x3000 + 8 * k, (PHYS_CODE + 4096 * k) | 7);
	}
	for (unsigned k = 0; k < DATA_PAGES; k++)
		guest_put64(&r->g, pt + (k == DATA_PAGES - 1 ? 0x4000 : 0x1000 + 8 * k),
			    rights[data_rights[k]] ? (PHYS_DATA + 4096 * k) | rights[data_rights[k]]
						   : 0);
	for (unsigned k = 0; k < STACK_PAGES; k++)
		guest_put64(&r->g, pt + 0x2000 + 8 * k,
			    (PHYS_DATA + 4096 * (DATA_PAGES + k)) | rights[PAGE_RW]);
}

static void guest_put_gate(struct oracle_run *r, unsigned vector, uint64_t at)
{
	uint64_t dpl = vector == X86_BP || vector == X86_OFV ? 0x60 : 0;

	guest_put64(&r->g, PHYS_KERNEL + IDT + 16 * vector,
		    (at & 0xffff) | 0x10 << 16 | (0x8e | dpl) << 40 | (at >> 16 & 0xffff) << 48);
	guest_put64(&r->g, PHYS_KERNEL + IDT + 16 * vector + 8, at >> 32);
}

/* Handlers: out %al, $0x80 + vector; jmp . */
static void guest_make_kernel(struct oracle_run *r)
{
	static const uint64_t gdt[] = { 0,
					0,
					0x00af9b000000ffff,
					0x00cf93000000ffff,
					0x00cffb000000ffff,
					0x00cff3000000ffff,
					0x00affb000000ffff };
	static const uint8_t iretq[] = { 0x48, 0xcf };
	/* push rax, rcx; mov eax, …; xor ecx, ecx; sub ecx, eax; add eax, ecx; pop rcx, rax; iretq */
	static const uint8_t interrupt[] = { 0x50, 0x51, 0xb8, 0x78, 0x56, 0x34, 0x12, 0x31, 0xc9,
					     0x29, 0xc1, 0x01, 0xc8, 0x59, 0x58, 0x48, 0xcf };
	uint64_t pdpt = PHYS_TABLES + 0x8000;

	guest_put64(&r->g, PHYS_TABLES + 8 * 256, pdpt | 3);
	guest_put64(&r->g, pdpt, (pdpt + 0x1000) | 3);
	guest_put64(&r->g, pdpt + 0x1000, PHYS_KERNEL | 0x83);
	guest_load(&r->g, PHYS_KERNEL + GDT, gdt, sizeof(gdt));
	guest_put64(&r->g, PHYS_KERNEL + TSS + 4, KERNEL_AT + KSTACK); /* RSP0 */
	guest_put64(&r->g, PHYS_KERNEL + TSS + 0x60, 0x68ull << 48);   /* no I/O bitmap */
	guest_load(&r->g, PHYS_KERNEL + START, iretq, sizeof(iretq));
	guest_load(&r->g, PHYS_KERNEL + INTERRUPT, interrupt, sizeof(interrupt));
	guest_put_gate(r, INTERRUPT_VECTOR, KERNEL_AT + INTERRUPT);
	for (unsigned k = 0; k < 32; k++) {
		uint8_t code[4] = { 0xe6, (uint8_t)(0x80 + k), 0xeb, 0xfe };

		guest_put_gate(r, k, KERNEL_AT + HANDLERS + 4 * k);
		guest_load(&r->g, PHYS_KERNEL + HANDLERS + 4 * k, code, 4);
	}
}

static void guest_vector_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct bt_guest *g = opaque;

	g->exit_value = off;
	vcpu_request_stop(g->vcpu);
}

static void guest_set_system(struct oracle_run *r)
{
	struct x86_sregs s;
	struct vcpu *v = r->g.vcpu;

	vcpu_reset(v);
	vcpu_get_sregs(v, &s);
	for (unsigned k = 0; k < X86_SEG_COUNT; k++)
		s.seg[k] = (struct x86_segment){ 0 };
	s.seg[X86_CS] =
		(struct x86_segment){ .selector = 0x10, .limit = 0xffffffff, .attr = 0xa09b };
	s.seg[X86_SS] =
		(struct x86_segment){ .selector = 0x18, .limit = 0xffffffff, .attr = 0xc093 };
	s.seg[X86_DS] = s.seg[X86_ES] = (struct x86_segment){ .selector = DATA_SELECTOR,
							      .limit = 0xffffffff,
							      .attr = 0xc0f3 };
	s.seg[X86_GS].base = GS_BASE;
	s.gdtr = (struct x86_table){ .base = KERNEL_AT + GDT, .limit = 7 * 8 - 1 };
	s.idtr = (struct x86_table){ .base = KERNEL_AT + IDT, .limit = 0xfff };
	s.tr = (struct x86_segment){
		.selector = 0x40, .base = KERNEL_AT + TSS, .limit = 0x67, .attr = 0x8b
	};
	s.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP | X86_CR0_WP |
		X86_CR0_AM;
	s.cr3 = PHYS_TABLES;
	s.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE |
		X86_CR4_FSGSBASE;
	s.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
	s.xcr0 = r->xcr0;
	vcpu_set_sregs(v, &s);
}

static bool chip_has_interrupt(void *opaque)
{
	struct oracle_run *r = opaque;
	const struct bt_vcpu *v = container_of(r->g.vcpu, const struct bt_vcpu, base);

	if (!r->every || r->pending || v->cpl != 3)
		return r->pending;
	if (v->rip == r->last_rip && ++r->asked_again < 5) /* let it get on */
		return false;
	r->asked_again = 0;
	r->last_rip = v->rip;
	r->pending = ++r->questions % r->every == 0;
	return r->pending;
}

static int chip_ack(void *opaque)
{
	struct oracle_run *r = opaque;
	const struct bt_vcpu *v = container_of(r->g.vcpu, const struct bt_vcpu, base);

	r->pending = 0;
	r->taken++;
	if (!(v->sysflags & X86_IF) || (v->cpl == 3 && !r->is_start(v->rip)))
		r->bad_rip = v->rip;
	return INTERRUPT_VECTOR;
}

static void on_timer(int sig, siginfo_t *info, void *context)
{
	struct oracle_run *r = info->si_value.sival_ptr;

	r->pending = 1;
	vcpu_kick(r->g.vcpu);
}

static void set_timer(struct oracle_run *r, bool on)
{
	static const struct itimerspec often = { { 0, 23000 }, { 0, 7000 } }, never;

	if (r->by_timer)
		timer_settime(r->timer, 0, on ? &often : &never, NULL);
	r->pending = 0;
}

static void put_frame(uint8_t *at, const uint64_t *frame)
{
	memcpy(at, frame, 40);
}

static void run_guest(struct oracle_run *r, const struct cpu_state *in, struct outcome *out)
{
	static struct x86_xstate x;
	uint64_t top = KSTACK, frame[5] = { in->rip, in->cs, in->rflags, in->gpr[X86_RSP], 0x2b };
	struct x86_regs regs = { .rip = KERNEL_AT + START, .rflags = 2 };
	struct vcpu *v = r->g.vcpu;
	struct vcpu_exit e;
	uint64_t vector, sp;
	bool has_error;

	memcpy(regs.gpr, in->gpr, sizeof(regs.gpr));
	regs.gpr[X86_RSP] = KERNEL_AT + top - 40;
	put_frame(guest_ram(r, PHYS_KERNEL + top - 40), frame);
	memset(x.area, 0, sizeof(x.area));
	memcpy(x.area, in->xstate, XSTATE_BYTES);
	vcpu_set_regs(v, &regs);
	vcpu_set_xstate(v, &x);
	r->g.exit_value = ~0ull;
	r->questions = r->asked_again = 0;
	r->last_rip = 0;
	r->bad_rip = 0;
	set_timer(r, true);
	vcpu_run(v, &e);
	set_timer(r, false);
	vcpu_get_regs(v, &regs);
	vcpu_get_xstate(v, &x);
	out->memory = guest_ram(r, PHYS_DATA);
	if (e.reason != VCPU_EXIT_STOPPED || r->g.exit_value > 31) {
		snprintf(out->failure, sizeof(out->failure), "exit %d at %#llx: %s", e.reason,
			 (unsigned long long)regs.rip, e.message);
		guest_set_system(r);
		return;
	}
	out->failure[0] = 0;
	vector = r->g.exit_value;
	has_error = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
	memcpy(out->cpu.gpr, regs.gpr, sizeof(regs.gpr));
	sp = PHYS_KERNEL + top - 40 - (has_error ? 8 : 0);
	out->error = 0;
	if (has_error) {
		memcpy(&out->error, guest_ram(r, sp), 8);
		sp += 8;
	}
	memcpy(frame, guest_ram(r, sp), 40);
	out->cpu.rip = frame[0];
	out->cpu.rflags = frame[2];
	out->cpu.gpr[X86_RSP] = frame[3];
	out->vector = vector;
	if (frame[1] != in->cs || frame[4] != DATA_SELECTOR ||
	    regs.gpr[X86_RSP] != KERNEL_AT + sp - PHYS_KERNEL - (has_error ? 8 : 0))
		snprintf(out->failure, sizeof(out->failure), "frame: CS %#llx SS %#llx RSP %#llx",
			 (unsigned long long)frame[1], (unsigned long long)frame[4],
			 (unsigned long long)regs.gpr[X86_RSP]);
	if (r->bad_rip)
		snprintf(out->failure, sizeof(out->failure), "interrupted at %#llx",
			 (unsigned long long)r->bad_rip);
	memcpy(out->cpu.xstate, x.area, XSTATE_BYTES);
	memset(out->cpu.xstate + 416, 0, 96);
	if (vector == X86_PF_VEC) {
		struct x86_sregs s;

		vcpu_get_sregs(v, &s);
		out->cr2 = s.cr2;
	}
}

/* ---- both ---- */

/* @options as in MARU_BT_DEBUG, or NULL. */
static void oracle_open(struct oracle_run *r, const char *options)
{
	static const struct io_ops ops = { .read = guest_port_read, .write = guest_vector_write };

	if (options)
		setenv("MARU_BT_DEBUG", options, 1);
	else
		unsetenv("MARU_BT_DEBUG");
	guest_open(&r->g, 1);
	bus_remove(r->g.mem->ports, &r->g.exit_port);
	r->g.exit_port = (struct io_region){
		.name = "vector", .base = 0x80, .length = 32, .ops = &ops, .opaque = &r->g
	};
	bus_add(r->g.mem->ports, &r->g.exit_port);
	memset(r->code_rw, 0, CODE_PAGES * 4096); /* as the guest's is */
	guest_map_user(r);
	guest_make_kernel(r);
	native_install();
	guest_set_system(r);
	if (r->every || r->by_timer) {
		struct vcpu_irqchip chip = { .opaque = r, .has_interrupt = chip_has_interrupt, .ack = chip_ack };

		vcpu_set_irqchip(r->g.vcpu, &chip);
	}
	if (r->by_timer) {
		struct sigaction sa = { .sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
		struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2,
				       .sigev_value.sival_ptr = r };

		sigaction(SIGUSR2, &sa, NULL);
		if (timer_create(CLOCK_MONOTONIC, &ev, &r->timer))
			abort();
	}
}

static void oracle_close(struct oracle_run *r)
{
	if (r->by_timer)
		timer_delete(r->timer);
	guest_close(&r->g);
}

static void oracle_put_code(struct oracle_run *r, uint64_t at, const uint8_t *code, size_t len)
{
	unsigned off = at % (CODE_PAGES * 4096);

	memcpy(r->code_rw + off, code, len);
	guest_load(&r->g, PHYS_CODE + off, code, len);
}

static bool oracle_code_differs(struct oracle_run *r, uint64_t at, size_t len)
{
	unsigned off = at % (CODE_PAGES * 4096);

	return memcmp(r->code_rw + off, guest_ram(r, PHYS_CODE + off), len);
}

static void oracle_put_memory(struct oracle_run *r, const uint8_t *memory)
{
	memcpy(r->native_memory, memory, MEMORY_BYTES);
	memcpy(guest_ram(r, PHYS_DATA), memory, MEMORY_BYTES);
}

#endif
