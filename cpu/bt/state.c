/* SPDX-License-Identifier: Apache-2.0 */
/* A stopped vCPU's state, in and out (cpu/engine.h): registers, MSRs, debugger settings; RESET and INIT. */
#include "cpu/bt/ops.h"
#include "cpu/bt/run.h"

#define V(v) container_of(v, struct bt_vcpu, base)
#define E(engine) ((struct bt_engine *)(engine))

static const struct x86_segment reset_data = {.limit = 0xffff, .attr = 0x93};

static void reset_xstate(struct bt_private *p)
{
	static const uint8_t fcw[2] = {0x40, 0x00}, mxcsr[4] = {0x80, 0x1f, 0, 0};

	memset(&p->xstate, 0, sizeof(p->xstate));
	memcpy(p->xstate.area, fcw, 2);
	memset(p->xstate.area + 4, 0, 1);
	memcpy(p->xstate.area + 24, mxcsr, 4);
	p->xstate.area[512] = X86_XCR0_X87 | X86_XCR0_SSE; /* XSTATE_BV */
}

void bt_init_cpu(struct bt_vcpu *v, bool reset)
{
	uint64_t cd_nw = v->cr0 & (X86_CR0_CD | X86_CR0_NW);

	for (unsigned g = 0; g < 16; g++)
		BT_REG(v, g) = 0;
	BT_REG(v, X86_RDX) = 0x600; /* family 6 */
	bt_set_rflags(v, 2);
	for (unsigned s = 0; s < X86_SEG_COUNT; s++)
		v->seg[s] = reset_data;
	v->seg[X86_CS] = (struct x86_segment){.selector = 0xf000, .base = 0xffff0000, .limit = 0xffff,
					      .attr = 0x9b};
	v->ldtr = (struct x86_segment){.limit = 0xffff, .attr = 0x82};
	v->tr = (struct x86_segment){.limit = 0xffff, .attr = 0x8b};
	v->gdtr = v->idtr = (struct x86_table){.limit = 0xffff};
	v->rip = 0xfff0;
	v->cr0 = (reset ? X86_CR0_CD | X86_CR0_NW : cd_nw) | X86_CR0_ET;
	v->cr2 = v->cr3 = v->cr4 = v->efer = 0;
	memset(v->dr, 0, sizeof(v->dr));
	v->dr[6] = 0xffff0ff0;
	v->dr[7] = 0x400;
	v->cpl = 0;
	v->interrupt_shadow = v->nmi_blocked = v->halted = v->in_rep = v->priv->interrupt_taken = false;
	v->trap_pending = 0;
	v->step_by_new = false;
	v->priv->held_dr6 = 0;
	v->priv->pv.eoi_armed = false; /* the local APIC has forgotten it too */
	if (reset) {
		v->xcr0 = X86_XCR0_X87;
		v->star = v->lstar = v->cstar = v->sfmask = v->kernel_gs_base = v->tsc_aux = 0;
		v->sysenter_cs = v->sysenter_esp = v->sysenter_eip = 0;
		v->pat = 0x0007040600070406ull;
		v->misc_enable = 1; /* fast strings */
		v->mtrr_def_type = 0;
		memset(v->mtrr_fixed, 0, sizeof(v->mtrr_fixed));
		memset(v->mtrr_phys, 0, sizeof(v->mtrr_phys));
		v->mcg_status = v->spec_ctrl = v->debugctl = 0;
		v->tsc_adjust = 0;
		/* One time for all: vCPU 0 is reset first. */
		if (v->index == 0)
			v->engine->tsc_start = __builtin_ia32_rdtsc();
		v->tsc_offset = -v->engine->tsc_start;
		v->wait_sipi = v->index != 0;
		v->priv->triple_fault = v->priv->debug_hit = false;
		reset_xstate(v->priv);
		pv_vcpu_reset(&v->priv->pv);
	}
	bt_tlb_flush_all(v);
	bt_mode_update(v);
}

void bt_vcpu_reset(struct vcpu *vcpu)
{
	struct bt_vcpu *v = V(vcpu);

	atomic_fetch_and(&v->priv->requests, (uint32_t)REQ_WRITE_FLUSH);
	bt_init_cpu(v, true);
}

void bt_vcpu_get_regs(struct vcpu *vcpu, struct x86_regs *out)
{
	const struct bt_vcpu *v = V(vcpu);

	for (unsigned g = 0; g < 16; g++)
		out->gpr[g] = BT_REG(v, g);
	out->rip = v->rip;
	out->rflags = bt_get_rflags(v);
}

void bt_vcpu_set_regs(struct vcpu *vcpu, const struct x86_regs *in)
{
	struct bt_vcpu *v = V(vcpu);

	for (unsigned g = 0; g < 16; g++)
		BT_REG(v, g) = in->gpr[g];
	v->rip = in->rip;
	bt_set_rflags(v, in->rflags & 0x3f7fd7);
	bt_mode_update(v);
}

void bt_vcpu_get_sregs(struct vcpu *vcpu, struct x86_sregs *out)
{
	const struct bt_vcpu *v = V(vcpu);

	memcpy(out->seg, v->seg, sizeof(out->seg));
	memcpy(out->dr, v->dr, sizeof(out->dr));
	out->ldtr = v->ldtr;
	out->tr = v->tr;
	out->gdtr = v->gdtr;
	out->idtr = v->idtr;
	out->cr0 = v->cr0;
	out->cr2 = v->cr2;
	out->cr3 = v->cr3;
	out->cr4 = v->cr4;
	out->cr8 = v->chip.get_tpr ? v->chip.get_tpr(v->chip.opaque) : 0;
	out->efer = v->efer;
	out->xcr0 = v->xcr0;
}

void bt_vcpu_set_sregs(struct vcpu *vcpu, const struct x86_sregs *in)
{
	struct bt_vcpu *v = V(vcpu);

	memcpy(v->seg, in->seg, sizeof(v->seg));
	memcpy(v->dr, in->dr, sizeof(v->dr));
	v->ldtr = in->ldtr;
	v->tr = in->tr;
	v->gdtr = in->gdtr;
	v->idtr = in->idtr;
	v->cr0 = in->cr0;
	v->cr2 = in->cr2;
	v->cr3 = in->cr3;
	v->cr4 = in->cr4;
	v->efer = in->efer;
	v->xcr0 = in->xcr0 | X86_XCR0_X87;
	v->cpl = (v->cr0 & X86_CR0_PE) ? v->seg[X86_SS].attr >> 5 & 3 : 0;
	bt_tlb_flush_all(v);
	if ((v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE) && !(v->efer & X86_EFER_LMA) &&
	    bt_tlb_load_pdptes(v, v->cr3) != BT_NEXT)
		memset(v->pdpte, 0, sizeof(v->pdpte));
	bt_mode_update(v);
}

void bt_vcpu_get_xstate(struct vcpu *vcpu, struct x86_xstate *out)
{
	*out = V(vcpu)->priv->xstate;
}

/* The header's reserved bytes are cleared, and components the host has not, so that loading cannot fault. */
void bt_vcpu_set_xstate(struct vcpu *vcpu, const struct x86_xstate *in)
{
	struct bt_private *p = V(vcpu)->priv;
	uint64_t bv;

	p->xstate = *in;
	memcpy(&bv, p->xstate.area + 512, 8);
	bv &= V(vcpu)->engine->host_xcr0;
	memset(p->xstate.area + 512, 0, 64);
	memcpy(p->xstate.area + 512, &bv, 8);
	p->xstate.area[26] = p->xstate.area[27] = 0; /* reserved bits of MXCSR */
}

bool bt_vcpu_get_msr(struct vcpu *vcpu, uint32_t msr, uint64_t *value)
{
	return bt_read_msr(V(vcpu), msr, value) == BT_NEXT;
}

bool bt_vcpu_set_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
	return bt_write_msr(V(vcpu), msr, value) != BT_FAULT;
}

void bt_vcpu_get_events(struct vcpu *vcpu, struct x86_events *out)
{
	const struct bt_vcpu *v = V(vcpu);

	*out = (struct x86_events){
		.halted = v->halted,
		.wait_sipi = v->wait_sipi,
		.sti_shadow = v->interrupt_shadow == SHADOW_STI,
		.ss_shadow = v->interrupt_shadow == SHADOW_SS,
		.nmi_pending = atomic_load(&v->priv->requests) & REQ_NMI,
		.nmi_blocked = v->nmi_blocked,
		.interrupt = v->priv->interrupt_taken ? v->priv->interrupt : -1,
	};
}

void bt_vcpu_set_events(struct vcpu *vcpu, const struct x86_events *in)
{
	struct bt_vcpu *v = V(vcpu);

	v->halted = in->halted;
	v->wait_sipi = in->wait_sipi;
	v->interrupt_shadow = in->ss_shadow ? SHADOW_SS : in->sti_shadow ? SHADOW_STI : SHADOW_NONE;
	v->nmi_blocked = in->nmi_blocked;
	v->priv->interrupt_taken = in->interrupt >= 0;
	v->priv->interrupt = (uint8_t)in->interrupt;
	if (in->nmi_pending)
		atomic_fetch_or(&v->priv->requests, REQ_NMI);
	else
		atomic_fetch_and(&v->priv->requests, ~(uint32_t)REQ_NMI);
}

bool bt_vcpu_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa)
{
	return tlb_walk_quiet(V(vcpu), gva, gpa);
}

void bt_vcpu_set_debug(struct vcpu *vcpu, const struct vcpu_debug *debug)
{
	struct bt_vcpu *v = V(vcpu);

	assert(debug->count <= VCPU_DEBUG_POINTS);
	v->priv->debug = *debug;
	v->debugger_steps = debug->single_step;
	v->priv->breakpoints = debug->count;
	for (unsigned n = 0; n < debug->count; n++)
		if (debug->point[n].kind != VCPU_BREAK_EXEC)
			v->debugger_steps = true;
	bt_mode_update(v);
}
