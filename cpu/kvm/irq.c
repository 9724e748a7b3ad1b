/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts: local APICs in the kernel, everything else here (KVM's documentation, api.rst: KVM_CAP_SPLIT_IRQCHIP).
 *
 * Messages go in by KVM_SIGNAL_MSI, or by eventfds (routes.c). The 8259's interrupt is asked for by run.c when a processor can take it.
 *
 * State. KVM_GET_LAPIC has the registers as struct x86_lapic has them, and the wait of a timer that counts in its current count.
 * An exception that the kernel is about to deliver is not part of the state: its instruction is run again, and raises it again. A
 * vector of the 8259's goes in as an interrupt about to be delivered, which is part of the state, and not by KVM_INTERRUPT, whose
 * vector the kernel neither shows nor forgets.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "cpu/kvm/kvm_priv.h"

#define MSR_TSC 0x10u
#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define APIC_BASE_BSP (1u << 8)
#define APIC_BASE_RESET 0xfee00800u

/* Registers of a local APIC, as indices of struct x86_lapic */
enum { ID = 0x20 >> 4, DFR = 0xe0 >> 4, SVR = 0xf0 >> 4, LVT_CMCI = 0x2f0 >> 4, LVT_TIMER = 0x320 >> 4, LVT_ERROR = 0x370 >> 4,
       TMICT = 0x380 >> 4, TMCCT = 0x390 >> 4 };
#define LVT_MASK (1u << 16)
#define LVT_TIMER_MODE (3u << 17) /* 0: one-shot */

#define MSI_ASSERT (1u << 14)
#define MSI_INIT (5u << 8)
#define MSI_SIPI (6u << 8)

struct error *kvm_split_irqchip(struct kvm_engine *e)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { ENGINE_PINS } };
	/* The quirk that stays: 0xff of a message is everybody in x2APIC mode, too, as in dev/apic_bus.c. */
	struct kvm_enable_cap ids = { .cap = KVM_CAP_X2APIC_API, .args = { KVM_X2APIC_API_USE_32BIT_IDS } };

	if (ioctl(e->vm_fd, KVM_ENABLE_CAP, &split) < 0 || ioctl(e->vm_fd, KVM_ENABLE_CAP, &ids) < 0)
		return error_errno(errno, "KVM does not make local APICs; use --engine bt");
	return NULL;
}

void kvm_set_board(struct engine *engine, const struct engine_board *board)
{
	kvm_engine_of(engine)->board = *board;
}

void kvm_send_msi(struct engine *engine, uint64_t address, uint32_t data)
{
	struct kvm_msi msi = { .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data };

	/* 0: nobody there takes it, as on the wire. */
	if (ioctl(kvm_engine_of(engine)->vm_fd, KVM_SIGNAL_MSI, &msi) < 0)
		log_guest("KVM does not deliver the message 0x%x to 0x%llx", data, (unsigned long long)address);
}

void kvm_set_intr(struct engine *engine, bool level)
{
	struct kvm_engine *e = kvm_engine_of(engine);

	atomic_store(&e->intr, level);
	for (unsigned k = 0; level && k < e->vcpu_count; k++)
		kvm_vcpu_kick(&e->vcpus[k]->base);
}

static void message_to(struct kvm_vcpu *v, uint32_t data)
{
	kvm_send_msi(&v->engine->base, 0xfee00000u | v->index << 12, data);
}

void kvm_vcpu_init(struct vcpu *v)
{
	message_to(kvm_vcpu_of(v), MSI_INIT | MSI_ASSERT);
}

void kvm_vcpu_sipi(struct vcpu *v, uint8_t vector)
{
	message_to(kvm_vcpu_of(v), MSI_SIPI | MSI_ASSERT | vector);
}

/* ---- State ---- */

static_assert(sizeof(struct kvm_lapic_state) == 64 * 16, "a register every 16 bytes");

/* How long until then. */
static uint64_t deadline_left(struct kvm_vcpu *v, uint64_t deadline)
{
	uint64_t tsc = 0;

	if (!deadline || !kvm_vcpu_get_msr(&v->base, MSR_TSC, &tsc) || deadline <= tsc)
		return 0;
	return (uint64_t)MIN((unsigned __int128)(deadline - tsc) * NS_PER_SEC / v->engine->tsc_hz, UINT64_MAX);
}

void kvm_vcpu_get_lapic(struct vcpu *vcpu, struct x86_lapic *out)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct kvm_lapic_state k = { 0 };

	*out = (struct x86_lapic){ 0 };
	if (ioctl(v->fd, KVM_GET_LAPIC, &k) < 0 || !kvm_vcpu_get_msr(vcpu, MSR_APIC_BASE, &out->base))
		kvm_refused(v, "registers of the local APIC");
	for (unsigned n = 0; n < ARRAY_SIZE(out->reg); n++)
		out->reg[n] = (uint32_t)load_le(k.regs + 16 * n, 4);
	kvm_vcpu_get_msr(vcpu, MSR_TSC_DEADLINE, &out->tsc_deadline);
	out->deadline_left_ns = deadline_left(v, out->tsc_deadline);
}

void kvm_vcpu_set_lapic(struct vcpu *vcpu, const struct x86_lapic *in)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct kvm_lapic_state k = { 0 };

	for (unsigned n = 0; n < ARRAY_SIZE(in->reg); n++)
		store_le(k.regs + 16 * n, in->reg[n], 4);
	/* The kernel would let a one-shot timer that has expired expire once more. */
	if (!(in->reg[LVT_TIMER] & LVT_TIMER_MODE) && !in->reg[TMCCT])
		store_le(k.regs + 16 * TMICT, 0, 4);
	if (!kvm_vcpu_set_msr(vcpu, MSR_APIC_BASE, in->base) || ioctl(v->fd, KVM_SET_LAPIC, &k) < 0)
		kvm_refused(v, "registers of the local APIC");
	/* Also 0: an earlier deadline is still there, and was armed again. */
	kvm_vcpu_set_msr(vcpu, MSR_TSC_DEADLINE, in->tsc_deadline);
}

void kvm_vcpu_get_events(struct vcpu *vcpu, struct x86_events *out)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct kvm_vcpu_events k = { 0 };

	if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &k) < 0)
		kvm_refused(v, "pending events");
	kvm_note_activity(v);
	*out = (struct x86_events){
		.halted = v->activity == VCPU_HALTED,
		.wait_sipi = v->activity == VCPU_WAIT_SIPI,
		.sti_shadow = k.interrupt.shadow & KVM_X86_SHADOW_INT_STI,
		.ss_shadow = k.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS,
		/* One that is about to be delivered blocks others already; it is one that waits. */
		.nmi_pending = k.nmi.pending || k.nmi.injected || (atomic_load(&v->requests) & KVM_REQ_NMI),
		.nmi_blocked = k.nmi.masked && !k.nmi.injected,
		.interrupt = k.interrupt.injected && !k.interrupt.soft ? k.interrupt.nr : -1,
	};
}

void kvm_vcpu_set_events(struct vcpu *vcpu, const struct x86_events *in)
{
	struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
	struct kvm_mp_state m = { in->wait_sipi ? KVM_MP_STATE_INIT_RECEIVED : in->halted ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE };
	struct kvm_vcpu_events k = { .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW };

	k.interrupt.injected = in->interrupt >= 0;
	k.interrupt.nr = in->interrupt >= 0 ? (uint8_t)in->interrupt : 0;
	k.interrupt.shadow = (in->sti_shadow ? KVM_X86_SHADOW_INT_STI : 0) | (in->ss_shadow ? KVM_X86_SHADOW_INT_MOV_SS : 0);
	k.nmi.pending = in->nmi_pending;
	k.nmi.masked = in->nmi_blocked;
	atomic_fetch_and(&v->requests, ~(uint32_t)KVM_REQ_NMI);
	if (ioctl(v->fd, KVM_SET_VCPU_EVENTS, &k) < 0 || ioctl(v->fd, KVM_SET_MP_STATE, &m) < 0)
		kvm_refused(v, "pending events");
	kvm_note_activity(v);
}

/*
 * The kernel has said that it can, but may have to take an INIT first, which is done by asking for the activity. Afterwards nothing
 * but this thread changes these.
 */
bool kvm_can_deliver(struct kvm_vcpu *v)
{
	struct kvm_mp_state m = { KVM_MP_STATE_UNINITIALIZED };
	struct kvm_regs r = { 0 };

	return ioctl(v->fd, KVM_GET_MP_STATE, &m) == 0 && (m.mp_state == KVM_MP_STATE_RUNNABLE || m.mp_state == KVM_MP_STATE_HALTED) &&
	       ioctl(v->fd, KVM_GET_REGS, &r) == 0 && (r.rflags & X86_IF);
}

/* An interrupt that is about to be delivered does not wake a processor by itself. NMIs that come meanwhile are left alone. */
void kvm_deliver(struct kvm_vcpu *v, uint8_t vector)
{
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
	struct kvm_vcpu_events k = { 0 };

	if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &k) == 0) {
		k.flags = 0;
		k.interrupt.injected = 1;
		k.interrupt.nr = vector;
		k.interrupt.soft = 0;
		if (ioctl(v->fd, KVM_SET_VCPU_EVENTS, &k) == 0 && ioctl(v->fd, KVM_SET_MP_STATE, &runnable) == 0)
			return;
	}
	kvm_refused(v, "interrupts");
}

/* As after power-on: no application processor runs before its SIPI. */
void kvm_reset_irqs(struct kvm_vcpu *v)
{
	struct x86_lapic l = { .base = APIC_BASE_RESET | (v->index ? 0 : APIC_BASE_BSP) };
	struct x86_events events = { .wait_sipi = v->index != 0, .interrupt = -1 };

	l.reg[ID] = v->index << 24;
	l.reg[DFR] = ~0u;
	l.reg[SVR] = 0xff;
	l.reg[LVT_CMCI] = LVT_MASK;
	for (unsigned n = LVT_TIMER; n <= LVT_ERROR; n++)
		l.reg[n] = LVT_MASK;
	kvm_vcpu_set_lapic(&v->base, &l);
	kvm_vcpu_set_events(&v->base, &events);
}

void kvm_note_activity(struct kvm_vcpu *v)
{
	struct kvm_mp_state m = { KVM_MP_STATE_RUNNABLE };

	if (ioctl(v->fd, KVM_GET_MP_STATE, &m) < 0)
		kvm_refused(v, "questions about their activity");
	switch (m.mp_state) {
	case KVM_MP_STATE_HALTED: v->activity = VCPU_HALTED; break;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED: v->activity = VCPU_WAIT_SIPI; break;
	default: v->activity = VCPU_RUNNING; break;
	}
}

enum vcpu_activity kvm_vcpu_activity(struct vcpu *v)
{
	return kvm_vcpu_of(v)->activity;
}
