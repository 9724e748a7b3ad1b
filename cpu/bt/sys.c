/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small system instructions: HLT, CPUID, the time stamp counter, cache and TLB control, FS and GS
 * bases. SDM vol. 2 under their names. MONITOR and MWAIT are not offered (ops.c: #UD).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/bt/private.h"
#include "cpu/cpuid.h"

static void set_pair(struct bt_vcpu *v, uint64_t value)
{
	BT_REG(v, X86_RAX) = (uint32_t)value;
	BT_REG(v, X86_RDX) = value >> 32;
}

/*
 * A vCPU that spins waits for another, which may be waiting for this host CPU: now and then it is given up. Without
 * that a ticket lock on more vCPUs than CPUs is handed on once a time slice of the host.
 */
#define PAUSES_PER_YIELD 32

enum bt_result bt_op_pause(struct bt_vcpu *v, const struct insn *i)
{
	if (++v->pauses % PAUSES_PER_YIELD == 0)
		bt_yield(v);
	else
		__builtin_ia32_pause();
	return BT_NEXT;
}

enum bt_result bt_op_hlt(struct bt_vcpu *v, const struct insn *i)
{
	if (v->cpl)
		return bt_raise_error(v, X86_GP, 0);
	v->halted = true;
	return BT_EXIT;
}

/* VMCALL and VMMCALL: KVM's hypercalls (cpu/pv.h). Without them there is no VMX nor SVM either. */
enum bt_result bt_op_vmcall(struct bt_vcpu *v, const struct insn *i)
{
	bool wide = bt_code64(v);
	int64_t result;
	bool known;

	bt_heavy_begin(v);
	known = bt_pv_hypercall(v, wide, &result);
	bt_heavy_end(v);
	if (!known)
		return bt_raise(v, X86_UD);
	BT_REG(v, X86_RAX) = wide ? (uint64_t)result : (uint32_t)result;
	return BT_NEXT;
}

/* IA32_APIC_BASE.EN: without it CPUID says that there is none (SDM vol. 3, 11.4.3). */
static bool apic_enabled(struct bt_vcpu *v)
{
	uint64_t base;

	/* Not mapped in memory: in x2APIC mode, or disabled. */
	return !v->chip.mmio_base || v->chip.mmio_base(v->chip.opaque) != ~0ull ||
	       !bt_chip_read_msr(v, 0x1b, &base) || (base & 1u << 11);
}

enum bt_result bt_op_cpuid(struct bt_vcpu *v, const struct insn *i)
{
	uint32_t leaf = (uint32_t)BT_REG(v, X86_RAX), subleaf = (uint32_t)BT_REG(v, X86_RCX);
	struct cpuid_result r = cpuid_guest(v->cpuid, leaf, subleaf);

	switch (leaf) {
	case 1:
		r.ebx = (r.ebx & 0xffffff) | (v->index & 0xff) << 24;
		r.ecx = (r.ecx & ~(1u << 27)) | (v->cr4 & X86_CR4_OSXSAVE ? 1u << 27 : 0);
		if (!apic_enabled(v))
			r.edx &= ~(1u << 9);
		break;
	case 0xb:
	case 0x1f:
		if (leaf <= v->cpuid->max_basic)
			r.edx = v->index;
		break;
	case 0xd:
		if (subleaf == 0 && r.eax)
			r.ebx = cpuid_xsave_size(v->cpuid, v->xcr0, false);
		else if (subleaf == 1 && r.eax)
			r.ebx = cpuid_xsave_size(v->cpuid, v->xcr0, true);
		break;
	case 0x8000001e:
		if (leaf <= v->cpuid->max_extended) {
			r.eax = v->index;
			r.ebx = v->index & 0xff; /* core; one thread each */
		}
		break;
	}
	BT_REG(v, X86_RAX) = r.eax;
	BT_REG(v, X86_RBX) = r.ebx;
	BT_REG(v, X86_RCX) = r.ecx;
	BT_REG(v, X86_RDX) = r.edx;
	return BT_NEXT;
}

static bool tsc_denied(const struct bt_vcpu *v)
{
	return (v->cr4 & X86_CR4_TSD) && v->cpl;
}

enum bt_result bt_op_rdtsc(struct bt_vcpu *v, const struct insn *i)
{
	if (tsc_denied(v))
		return bt_raise_error(v, X86_GP, 0);
	set_pair(v, bt_guest_tsc(v));
	return BT_NEXT;
}

enum bt_result bt_op_rdtscp(struct bt_vcpu *v, const struct insn *i)
{
	BT_TRY(bt_op_rdtsc(v, i));
	BT_REG(v, X86_RCX) = (uint32_t)v->tsc_aux;
	return BT_NEXT;
}

enum bt_result bt_op_rdpid(struct bt_vcpu *v, const struct insn *i)
{
	BT_REG(v, i->rm & 15) = (uint32_t)v->tsc_aux;
	return BT_NEXT;
}

/* There are no performance counters (CPUID leaf 0xa): every index is out of range. */
enum bt_result bt_op_rdpmc(struct bt_vcpu *v, const struct insn *i)
{
	return bt_raise_error(v, X86_GP, 0);
}

/* INVD and WBINVD: guest memory is coherent. */
enum bt_result bt_op_wbinvd(struct bt_vcpu *v, const struct insn *i)
{
	return v->cpl ? bt_raise_error(v, X86_GP, 0) : BT_NEXT;
}

enum bt_result bt_op_invd(struct bt_vcpu *v, const struct insn *i)
{
	return bt_op_wbinvd(v, i);
}

/* No segment checks; a non-canonical address does nothing. */
enum bt_result bt_op_invlpg(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t lin = bt_effective_address(v, i);

	if (v->cpl)
		return bt_raise_error(v, X86_GP, 0);
	if (!bt_code64(v))
		lin = (uint32_t)(lin + v->seg[i->seg % X86_SEG_COUNT].base);
	else if (i->seg == X86_FS || i->seg == X86_GS)
		lin += v->seg[i->seg].base;
	if (!bt_canonical(lin))
		return BT_NEXT;
	bt_tlb_flush_page(v, lin);
	return BT_EXIT;
}

enum { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL_GLOBAL, INVPCID_ALL };

enum bt_result bt_op_invpcid(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t type = bt_truncate(BT_REG(v, i->reg & 15), bt_code64(v) ? 8 : 4), lin, pcid, address;

	if (v->cpl) /* virtual-8086 mode too */
		return bt_raise_error(v, X86_GP, 0);
	BT_TRY(bt_linear(v, i->seg, bt_effective_address(v, i), 16, BT_READ, &lin));
	BT_TRY(bt_load(v, lin, 8, BT_READ, &pcid));
	BT_TRY(bt_load(v, lin + 8, 8, BT_READ, &address));
	if (type > INVPCID_ALL || pcid >> 12)
		return bt_raise_error(v, X86_GP, 0);
	if (type <= INVPCID_CONTEXT && !(v->cr4 & X86_CR4_PCIDE) && pcid)
		return bt_raise_error(v, X86_GP, 0);
	if (type == INVPCID_ADDRESS && !bt_canonical(address))
		return bt_raise_error(v, X86_GP, 0);
	bt_tlb_invpcid(v, (unsigned)type, (unsigned)pcid, address);
	return BT_EXIT;
}

/* FS and GS bases ------------------------------------------------------------------------------ */

static void set_base(struct bt_vcpu *v, unsigned seg, uint64_t base)
{
	v->seg[seg].base = base;
	v->segcheck[seg].base = base;
	if (seg == X86_FS)
		v->fs_base = base;
	else
		v->gs_base = base;
}

enum bt_result bt_op_swapgs(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t base = v->seg[X86_GS].base;

	if (!bt_code64(v))
		return bt_raise(v, X86_UD);
	if (v->cpl)
		return bt_raise_error(v, X86_GP, 0);
	set_base(v, X86_GS, v->kernel_gs_base);
	v->kernel_gs_base = base;
	return BT_NEXT;
}

static enum bt_result check_fsgsbase(struct bt_vcpu *v)
{
	if (!bt_code64(v) || !(v->cr4 & X86_CR4_FSGSBASE))
		return bt_raise(v, X86_UD);
	return BT_NEXT;
}

static enum bt_result read_base(struct bt_vcpu *v, const struct insn *i, unsigned seg)
{
	BT_TRY(check_fsgsbase(v));
	bt_set_reg(v, i->rm & 15, i->opsize == 8 ? 8 : 4, true, v->seg[seg].base);
	return BT_NEXT;
}

static enum bt_result write_base(struct bt_vcpu *v, const struct insn *i, unsigned seg)
{
	uint64_t base = bt_truncate(BT_REG(v, i->rm & 15), i->opsize == 8 ? 8 : 4);

	BT_TRY(check_fsgsbase(v));
	if (!bt_canonical(base))
		return bt_raise_error(v, X86_GP, 0);
	set_base(v, seg, base);
	return BT_NEXT;
}

enum bt_result bt_op_rdfsbase(struct bt_vcpu *v, const struct insn *i)
{
	return read_base(v, i, X86_FS);
}

enum bt_result bt_op_rdgsbase(struct bt_vcpu *v, const struct insn *i)
{
	return read_base(v, i, X86_GS);
}

enum bt_result bt_op_wrfsbase(struct bt_vcpu *v, const struct insn *i)
{
	return write_base(v, i, X86_FS);
}

enum bt_result bt_op_wrgsbase(struct bt_vcpu *v, const struct insn *i)
{
	return write_base(v, i, X86_GS);
}
