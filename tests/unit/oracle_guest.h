/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's side of oracle_run.h: run_guest() has the translator run code in a guest. Its page tables map what oracle_native.h maps,
 * with the same rights; its selectors are those that Linux gives a process. A fault goes through the IDT to a handler that writes to a
 * port; the frame it was given is the outcome. The kernel's own part is in the upper half, where user code reaches nothing on either side.
 */
#ifndef TESTS_UNIT_ORACLE_GUEST_H
#define TESTS_UNIT_ORACLE_GUEST_H

#include "cpu/bt/private.h"
#include "tests/unit/oracle_layout.h"

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

#endif
