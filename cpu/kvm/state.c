/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stopped vCPU's state, between the kernel's structures and the register groups of cpu/x86.h; RESET (SDM vol. 3, table 9-1).
 *
 * The kernel refuses what no processor could have (a reserved bit, a mode without its paging). A loader's state is sound, and a
 * debugger's mistake must not end the VM: refusals are logged.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "cpu/kvm/kvm_priv.h"

void kvm_refused(struct kvm_vcpu *v, const char *what)
{
	log_warn("vCPU %u: KVM refuses these %s: %s", v->index, what, strerror(errno));
}

/* ---- Groups ---- */

/* In the order of enum x86_gpr. */
#define EACH_GPR(X) X(rax) X(rcx) X(rdx) X(rbx) X(rsp) X(rbp) X(rsi) X(rdi) X(r8) X(r9) X(r10) X(r11) X(r12) X(r13) X(r14) X(r15)

void kvm_vcpu_get_regs(struct vcpu *vcpu, struct x86_regs *out)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct kvm_regs k = { 0 };
	unsigned n = 0;

	if (ioctl(v->fd, KVM_GET_REGS, &k) < 0)
		kvm_refused(v, "registers");
#define GET(reg) out->gpr[n++] = k.reg;
	EACH_GPR(GET)
#undef GET
	out->rip = k.rip;
	out->rflags = k.rflags;
}

void kvm_vcpu_set_regs(struct vcpu *vcpu, const struct x86_regs *in)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct kvm_regs k = { .rip = in->rip, .rflags = (in->rflags & 0x3f7fd7) | 2 };
	unsigned n = 0;

#define SET(reg) k.reg = in->gpr[n++];
	EACH_GPR(SET)
#undef SET
	if (ioctl(v->fd, KVM_SET_REGS, &k) < 0)
		kvm_refused(v, "registers");
}

static void segment_out(const struct kvm_segment *k, struct x86_segment *s)
{
	*s = (struct x86_segment){
		.selector = k->selector,
		.base = k->base,
		.limit = k->limit,
		.attr = (uint16_t)((k->type & 15) | (k->s & 1) << 4 | (k->dpl & 3) << 5 | (k->present & !k->unusable) << 7 |
				   (k->avl & 1) << 12 | (k->l & 1) << 13 | (k->db & 1) << 14 | (k->g & 1) << 15),
	};
}

static void segment_in(const struct x86_segment *s, struct kvm_segment *k)
{
	*k = (struct kvm_segment){
		.selector = s->selector,
		.base = s->base,
		.limit = s->limit,
		.type = s->attr & 15,
		.s = s->attr >> 4 & 1,
		.dpl = s->attr >> 5 & 3,
		.present = s->attr >> 7 & 1,
		.unusable = !(s->attr >> 7 & 1),
		.avl = s->attr >> 12 & 1,
		.l = s->attr >> 13 & 1,
		.db = s->attr >> 14 & 1,
		.g = s->attr >> 15 & 1,
	};
}

void kvm_vcpu_get_sregs(struct vcpu *vcpu, struct x86_sregs *out)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct kvm_sregs k = { 0 };
	struct kvm_debugregs d = { 0 };
	struct kvm_xcrs x = { 0 };

	memset(out, 0, sizeof(*out));
	if (ioctl(v->fd, KVM_GET_SREGS, &k) < 0 || ioctl(v->fd, KVM_GET_DEBUGREGS, &d) < 0)
		kvm_refused(v, "system registers");
	segment_out(&k.es, &out->seg[X86_ES]);
	segment_out(&k.cs, &out->seg[X86_CS]);
	segment_out(&k.ss, &out->seg[X86_SS]);
	segment_out(&k.ds, &out->seg[X86_DS]);
	segment_out(&k.fs, &out->seg[X86_FS]);
	segment_out(&k.gs, &out->seg[X86_GS]);
	segment_out(&k.ldt, &out->ldtr);
	segment_out(&k.tr, &out->tr);
	out->gdtr = (struct x86_table){ k.gdt.base, k.gdt.limit };
	out->idtr = (struct x86_table){ k.idt.base, k.idt.limit };
	out->cr0 = k.cr0;
	out->cr2 = k.cr2;
	out->cr3 = k.cr3;
	out->cr4 = k.cr4;
	out->cr8 = k.cr8;
	out->efer = k.efer;
	for (unsigned n = 0; n < 4; n++)
		out->dr[n] = d.db[n];
	out->dr[6] = d.dr6;
	out->dr[7] = d.dr7;
	out->xcr0 = X86_XCR0_X87;
	if (v->engine->cpuid.xcr0 && ioctl(v->fd, KVM_GET_XCRS, &x) == 0)
		for (unsigned n = 0; n < x.nr_xcrs && n < KVM_MAX_XCRS; n++)
			if (x.xcrs[n].xcr == 0)
				out->xcr0 = x.xcrs[n].value;
}

void kvm_vcpu_set_sregs(struct vcpu *vcpu, const struct x86_sregs *in)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct kvm_sregs k = { 0 };
	struct kvm_debugregs d = { .dr6 = in->dr[6], .dr7 = in->dr[7] };
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = in->xcr0 | X86_XCR0_X87 } } };

	ioctl(v->fd, KVM_GET_SREGS, &k); /* the APIC base stays */
	segment_in(&in->seg[X86_ES], &k.es);
	segment_in(&in->seg[X86_CS], &k.cs);
	segment_in(&in->seg[X86_SS], &k.ss);
	segment_in(&in->seg[X86_DS], &k.ds);
	segment_in(&in->seg[X86_FS], &k.fs);
	segment_in(&in->seg[X86_GS], &k.gs);
	segment_in(&in->ldtr, &k.ldt);
	segment_in(&in->tr, &k.tr);
	k.gdt = (struct kvm_dtable){ .base = in->gdtr.base, .limit = in->gdtr.limit };
	k.idt = (struct kvm_dtable){ .base = in->idtr.base, .limit = in->idtr.limit };
	k.cr0 = in->cr0 | X86_CR0_ET;
	k.cr2 = in->cr2;
	k.cr3 = in->cr3;
	k.cr4 = in->cr4;
	k.cr8 = in->cr8;
	k.efer = in->efer;
	memset(k.interrupt_bitmap, 0, sizeof(k.interrupt_bitmap));
	if (ioctl(v->fd, KVM_SET_SREGS, &k) < 0)
		kvm_refused(v, "system registers");
	for (unsigned n = 0; n < 4; n++)
		d.db[n] = in->dr[n];
	if (ioctl(v->fd, KVM_SET_DEBUGREGS, &d) < 0)
		kvm_refused(v, "debug registers");
	if (v->engine->cpuid.xcr0 && ioctl(v->fd, KVM_SET_XCRS, &x) < 0)
		kvm_refused(v, "XCR0");
}

/* The kernel gives the area in the standard format, as struct x86_xstate has it. */
static_assert(sizeof(struct kvm_xsave) == X86_XSAVE_MAX, "the XSAVE area");

void kvm_vcpu_get_xstate(struct vcpu *vcpu, struct x86_xstate *out)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

	if (ioctl(v->fd, KVM_GET_XSAVE, out->area) < 0)
		kvm_refused(v, "vector registers");
}

void kvm_vcpu_set_xstate(struct vcpu *vcpu, const struct x86_xstate *in)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct x86_xstate x = *in;
	uint64_t bv;

	memcpy(&bv, x.area + 512, 8);
	bv &= v->engine->cpuid.xcr0 | X86_XCR0_X87 | X86_XCR0_SSE;
	memset(x.area + 512, 0, 64);
	memcpy(x.area + 512, &bv, 8);
	x.area[26] = x.area[27] = 0; /* reserved bits of MXCSR */
	if (ioctl(v->fd, KVM_SET_XSAVE, x.area) < 0)
		kvm_refused(v, "vector registers");
}

/* ---- MSRs ---- */

/* A struct kvm_msrs and its one entry. */
struct one_msr {
	uint32_t count, pad;
	struct kvm_msr_entry entry;
};
static_assert(offsetof(struct one_msr, entry) == offsetof(struct kvm_msrs, entries), "as the kernel has it");

bool kvm_vcpu_get_msr(struct vcpu *vcpu, uint32_t msr, uint64_t *value)
{
	struct one_msr m = { .count = 1, .entry.index = msr };

	if (ioctl(kvm_vcpu_of(vcpu)->fd, KVM_GET_MSRS, &m) != 1)
		return false;
	*value = m.entry.data;
	return true;
}

bool kvm_vcpu_set_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
	struct one_msr m = { .count = 1, .entry.index = msr, .entry.data = value };

	return ioctl(kvm_vcpu_of(vcpu)->fd, KVM_SET_MSRS, &m) == 1;
}

/* ---- RESET: INIT is the kernel's ---- */

static const struct x86_segment reset_data = { .limit = 0xffff, .attr = 0x93 };

static void reset_msrs(struct kvm_vcpu *v)
{
	static const struct {
		uint32_t msr;
		uint64_t value;
	} values[] = {
		{ 0xc0000081, 0 }, { 0xc0000082, 0 }, { 0xc0000083, 0 }, { 0xc0000084, 0 }, { 0xc0000102, 0 },
		{ 0xc0000103, 0 }, { 0x174, 0 }, { 0x175, 0 }, { 0x176, 0 }, { 0x277, 0x0007040600070406 },
		{ 0x1a0, 1 }, { 0x2ff, 0 }, { 0x3b, 0 }, { 0x10, 0 }, { 0x48, 0 }, { 0x1d9, 0 },
		/* paravirtual */
		{ 0x4b564d00, 0 }, { 0x4b564d01, 0 }, { 0x4b564d02, 0 }, { 0x4b564d03, 0 }, { 0x4b564d04, 0 }, { 0x4b564d05, 1 },
	};

	uint64_t now;

	/* What this kernel or CPU has not it does not read, and would log if it were written. */
	for (unsigned n = 0; n < ARRAY_SIZE(values); n++)
		if (kvm_vcpu_get_msr(&v->base, values[n].msr, &now) && now != values[n].value)
			kvm_vcpu_set_msr(&v->base, values[n].msr, values[n].value);
}

static void reset_xstate(struct kvm_vcpu *v)
{
	struct x86_xstate x = { 0 };

	x.area[0] = 0x40; /* FCW */
	x.area[24] = 0x80; /* MXCSR */
	x.area[25] = 0x1f;
	x.area[512] = X86_XCR0_X87 | X86_XCR0_SSE;
	kvm_vcpu_set_xstate(&v->base, &x);
}

void kvm_vcpu_reset(struct vcpu *vcpu)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct x86_sregs s = { .cr0 = X86_CR0_ET | X86_CR0_CD | X86_CR0_NW, .dr = { [6] = 0xffff0ff0, [7] = 0x400 }, .xcr0 = X86_XCR0_X87 };
	struct x86_regs r = { .rip = 0xfff0, .rflags = 2, .gpr = { [X86_RDX] = 0x600 } };

	for (unsigned n = 0; n < X86_SEG_COUNT; n++)
		s.seg[n] = reset_data;
	s.seg[X86_CS] = (struct x86_segment){ .selector = 0xf000, .base = 0xffff0000, .limit = 0xffff, .attr = 0x9b };
	s.ldtr = (struct x86_segment){ .limit = 0xffff, .attr = 0x82 };
	s.tr = (struct x86_segment){ .limit = 0xffff, .attr = 0x8b };
	s.gdtr = s.idtr = (struct x86_table){ .limit = 0xffff };
	atomic_store(&v->requests, 0);
	v->io_pending = false;
	kvm_vcpu_set_sregs(&v->base, &s);
	kvm_vcpu_set_regs(&v->base, &r);
	reset_msrs(v);
	reset_xstate(v);
	kvm_reset_irqs(v);
}

/* ---- Debugger ---- */

bool kvm_vcpu_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa)
{
	struct kvm_translation t = { .linear_address = gva };

	if (ioctl(kvm_vcpu_of(vcpu)->fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
		return false;
	*gpa = t.physical_address;
	return true;
}

/*
 * Up to four points are the processor's own. With more breakpoints it steps, and run.c compares; watchpoints beyond four are
 * not seen, and the log says so.
 */
void kvm_vcpu_set_debug(struct vcpu *vcpu, const struct vcpu_debug *debug)
{
	static const uint8_t lengths[] = { [1] = 0, [2] = 1, [4] = 3, [8] = 2 };
	static const uint8_t kinds[] = { [VCPU_BREAK_EXEC] = 0, [VCPU_WATCH_WRITE] = 1, [VCPU_WATCH_READ] = 3,
					 [VCPU_WATCH_ACCESS] = 3 };
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct kvm_guest_debug k = { 0 };
	unsigned used = 0;

	v->debug = *debug;
	k.arch.debugreg[7] = 0x400;
	for (unsigned n = 0; n < debug->count; n++) {
		bool exec = debug->point[n].kind == VCPU_BREAK_EXEC;
		unsigned length = exec ? 1 : debug->point[n].length & 15;

		if (used == 4 || length > 8) {
			if (!exec)
				log_warn("KVM has four watchpoints; the one at %#llx is not seen",
					 (unsigned long long)debug->point[n].gva);
			else
				k.control |= KVM_GUESTDBG_SINGLESTEP;
			continue;
		}
		k.arch.debugreg[used] = debug->point[n].gva;
		k.arch.debugreg[7] |= 2ull << (2 * used) | (uint64_t)(kinds[debug->point[n].kind] | lengths[length] << 2) << (16 + 4 * used);
		used++;
	}
	if (used)
		k.control |= KVM_GUESTDBG_USE_HW_BP;
	if (debug->single_step)
		k.control |= KVM_GUESTDBG_SINGLESTEP;
	if (k.control)
		k.control |= KVM_GUESTDBG_ENABLE;
	if (ioctl(v->fd, KVM_SET_GUEST_DEBUG, &k) < 0)
		kvm_refused(v, "debug settings");
}
