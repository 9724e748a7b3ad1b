// SPDX-License-Identifier: Apache-2.0
/* A stopped vCPU's state, as JSON for the control socket and in words for a person. */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/util.h"
#include "vm/vm.h"

static const char *const gpr_names[16] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15",
};
static const char *const seg_names[X86_SEG_COUNT] = { "es", "cs", "ss", "ds", "fs", "gs" };

static const char *activity_name(struct vcpu *v)
{
	switch (vcpu_activity(v)) {
	case VCPU_RUNNING:
		return "running";
	case VCPU_HALTED:
		return "halted";
	case VCPU_WAIT_SIPI:
		return "waits for SIPI";
	}
	return "unknown";
}

static const char *mode_name(const struct x86_regs *r, const struct x86_sregs *s)
{
	if (!(s->cr0 & X86_CR0_PE))
		return "real mode";
	if (r->rflags & X86_VM)
		return "virtual 8086 mode";
	if (s->efer & X86_EFER_LMA)
		return s->seg[X86_CS].attr & X86_ATTR_L ? "64-bit mode" : "compatibility mode";
	return s->seg[X86_CS].attr & X86_ATTR_DB ? "32-bit protected mode" : "16-bit protected mode";
}

/* Registers are hexadecimal strings: a JSON reader may not hold 64-bit integers. */
static void put_hex(json_t *o, const char *name, uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%" PRIx64, v);
	json_object_set_new(o, name, json_string(text));
}

static void put_segment(json_t *o, const char *name, const struct x86_segment *seg)
{
	json_t *s = json_object();

	put_hex(s, "selector", seg->selector);
	put_hex(s, "base", seg->base);
	put_hex(s, "limit", seg->limit);
	put_hex(s, "attributes", seg->attr);
	json_object_set_new(o, name, s);
}

json_t *vm_cpu_json(struct vm_cpu *cpu)
{
	json_t *o = json_object();
	struct x86_regs r;
	struct x86_sregs s;

	vcpu_get_regs(cpu->vcpu, &r);
	vcpu_get_sregs(cpu->vcpu, &s);
	json_object_set_new(o, "cpu", json_integer(cpu->index));
	json_object_set_new(o, "activity", json_string(activity_name(cpu->vcpu)));
	json_object_set_new(o, "mode", json_string(mode_name(&r, &s)));
	for (unsigned i = 0; i < 16; i++)
		put_hex(o, gpr_names[i], r.gpr[i]);
	put_hex(o, "rip", r.rip);
	put_hex(o, "rflags", r.rflags);
	for (unsigned i = 0; i < X86_SEG_COUNT; i++)
		put_segment(o, seg_names[i], &s.seg[i]);
	put_segment(o, "ldtr", &s.ldtr);
	put_segment(o, "tr", &s.tr);
	put_hex(o, "gdtr_base", s.gdtr.base);
	put_hex(o, "gdtr_limit", s.gdtr.limit);
	put_hex(o, "idtr_base", s.idtr.base);
	put_hex(o, "idtr_limit", s.idtr.limit);
	put_hex(o, "cr0", s.cr0);
	put_hex(o, "cr2", s.cr2);
	put_hex(o, "cr3", s.cr3);
	put_hex(o, "cr4", s.cr4);
	put_hex(o, "cr8", s.cr8);
	put_hex(o, "efer", s.efer);
	put_hex(o, "xcr0", s.xcr0);
	return o;
}

void vm_cpu_print(struct vm_cpu *cpu)
{
	struct x86_regs r;
	struct x86_sregs s;

	vcpu_get_regs(cpu->vcpu, &r);
	vcpu_get_sregs(cpu->vcpu, &s);
	log_error("vCPU %u was in %s at %04x:%016" PRIx64 ", flags %08" PRIx64, cpu->index, mode_name(&r, &s),
		  s.seg[X86_CS].selector, r.rip, r.rflags);
	for (unsigned i = 0; i < 16; i += 4)
		log_error("  %-3s %016" PRIx64 "  %-3s %016" PRIx64 "  %-3s %016" PRIx64 "  %-3s %016" PRIx64,
			  gpr_names[i], r.gpr[i], gpr_names[i + 1], r.gpr[i + 1], gpr_names[i + 2],
			  r.gpr[i + 2], gpr_names[i + 3], r.gpr[i + 3]);
	for (unsigned i = 0; i < X86_SEG_COUNT; i += 3)
		log_error("  %s %04x base %" PRIx64 "  %s %04x base %" PRIx64 "  %s %04x base %" PRIx64,
			  seg_names[i], s.seg[i].selector, s.seg[i].base, seg_names[i + 1],
			  s.seg[i + 1].selector, s.seg[i + 1].base, seg_names[i + 2],
			  s.seg[i + 2].selector, s.seg[i + 2].base);
	log_error("  cr0 %" PRIx64 "  cr2 %" PRIx64 "  cr3 %" PRIx64 "  cr4 %" PRIx64 "  efer %" PRIx64, s.cr0,
		  s.cr2, s.cr3, s.cr4, s.efer);
	log_error("  gdt %" PRIx64 "/%x  idt %" PRIx64 "/%x  tr %04x  ldtr %04x", s.gdtr.base, s.gdtr.limit,
		  s.idtr.base, s.idtr.limit, s.tr.selector, s.ldtr.selector);
}
