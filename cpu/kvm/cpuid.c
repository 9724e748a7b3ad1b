/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID for KVM: the guest's model of cpu/cpuid.c, which also the translator shows, cut down to what this kernel says that it
 * supports, so that a guest sees the same machine on both engines as far as the host allows. What the kernel's local APIC makes
 * but does not always say is added again; and what the guest's kernel needs against the processor's side channels, which the translator
 * has no use for.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "cpu/kvm/kvm_priv.h"
#include "cpu/pv.h"

#define KVM_ENTRIES 256
/* Those that the translator has too, and no more: asynchronous page faults and the like have state that nobody would move. */
#define PARAVIRT                                                                                                       \
	(PV_CLOCK | PV_NO_IO_DELAY | PV_CLOCK_NEW | PV_STEAL_TIME | PV_EOI | PV_UNHALT | PV_TLB_FLUSH | PV_SEND_IPI | \
	 PV_POLL_CONTROL | PV_YIELD | PV_CLOCK_STABLE)

/*
 * What a guest's kernel protects itself with on a real processor, and the translator has no use for. SDM vol. 2, "CPUID"; AMD APM vol. 3,
 * appendix E.
 */
#define SEVEN_EDX (1u << 10 | 1u << 27 | 1u << 28 | 1u << 31) /* MD_CLEAR, STIBP, L1D_FLUSH, SSBD */
#define SEVEN_2_EDX 0x3fu				      /* the bits of IA32_SPEC_CTRL, MCDT_NO */
/* IBPB; IBRS, STIBP, and how they are meant; SSBD in its forms, SSB_NO; PSFD, BTC_NO, IBPB_RET */
#define EXTENDED_8_EBX (1u << 12 | 0x3fu << 14 | 7u << 24 | 7u << 28)
#define EXTENDED_21_EAX (1u << 5 | 0xfu << 27) /* VERW clears; SBPB, IBPB and branch types, SRSO_NO in its forms */

static struct cpuid_result supported(const struct kvm_cpuid2 *k, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned n = 0; n < k->nent; n++) {
		const struct kvm_cpuid_entry2 *e = &k->entries[n];

		if (e->function == leaf && (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == subleaf))
			return (struct cpuid_result){ e->eax, e->ebx, e->ecx, e->edx };
	}
	return (struct cpuid_result){ 0 };
}

static void cut(struct cpuid_entry *m, const struct kvm_cpuid2 *k)
{
	struct cpuid_result s = supported(k, m->leaf, m->subleaf), *r = &m->result;

	switch (m->leaf) {
	case 1:
		r->ecx &= s.ecx | 1u << 21 | 1u << 24 | 1u << 31; /* x2APIC, TSC deadline, hypervisor */
		r->edx &= s.edx | 1u << 9 | 1u << 28;		  /* APIC, more than one in the package */
		break;
	case 7:
		r->ebx &= s.ebx;
		r->ecx &= s.ecx;
		r->edx = (r->edx & s.edx) | (s.edx & (m->subleaf == 2 ? SEVEN_2_EDX : m->subleaf ? 0 : SEVEN_EDX));
		break;
	case 0xd:
		if (m->subleaf == 1)
			r->eax &= s.eax;
		break;
	case 0x80000001:
		r->ecx &= s.ecx;
		r->edx &= s.edx;
		break;
	case 0x80000007: r->edx &= s.edx; break;
	case 0x80000008: r->ebx |= s.ebx & EXTENDED_8_EBX; break;
	case 0x80000021:
		r->eax = (r->eax & s.eax) | (s.eax & EXTENDED_21_EAX);
		r->ecx &= s.ecx; /* what the processor does not suffer from is not for us to say */
		break;
	}
}

struct error *kvm_set_cpuid(struct kvm_engine *e)
{
	struct kvm_cpuid2 *k = calloc(1, sizeof(*k) + KVM_ENTRIES * sizeof(k->entries[0]));
	struct error *err = NULL;

	if (!k)
		return error_errno(ENOMEM, "KVM: CPUID");
	k->nent = KVM_ENTRIES;
	if (ioctl(e->fd, KVM_GET_SUPPORTED_CPUID, k) < 0) {
		err = error_errno(errno, "KVM does not say what its CPUs can do");
	} else {
		cpuid_model_init(&e->cpuid, e->vcpu_count);
		cpuid_model_set_tsc(&e->cpuid, e->tsc_hz);
		for (unsigned n = 0; n < e->cpuid.count; n++)
			cut(&e->cpuid.entry[n], k);
		if (e->paravirt)
			cpuid_add_paravirt(&e->cpuid, PARAVIRT & supported(k, 0x40000001, 0).eax, e->tsc_hz);
	}
	free(k);
	return err;
}

struct error *kvm_set_vcpu_cpuid(struct kvm_vcpu *v)
{
	const struct cpuid_model *m = &v->engine->cpuid;
	struct kvm_cpuid2 *k = calloc(1, sizeof(*k) + CPUID_ENTRIES * sizeof(k->entries[0]));
	struct error *err = NULL;

	if (!k)
		return error_errno(ENOMEM, "KVM: CPUID");
	for (unsigned n = 0; n < m->count; n++) {
		struct cpuid_result r = m->entry[n].result;

		switch (m->entry[n].leaf) {
		case 1: r.ebx = (r.ebx & 0xffffff) | (v->index & 0xff) << 24; break;
		case 0xb: r.edx = v->index; break;
		case 0x8000001e:
			r.eax = v->index;
			r.ebx = v->index & 0xff;
			break;
		}
		k->entries[k->nent++] = (struct kvm_cpuid_entry2){
			.function = m->entry[n].leaf,
			.index = m->entry[n].subleaf,
			.flags = m->entry[n].by_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = r.eax,
			.ebx = r.ebx,
			.ecx = r.ecx,
			.edx = r.edx,
		};
	}
	if (ioctl(v->fd, KVM_SET_CPUID2, k) < 0)
		err = error_errno(errno, "KVM refuses the guest's CPU model");
	free(k);
	return err;
}
