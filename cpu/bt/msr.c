/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model-specific registers: SDM vol. 4, chapter 2; RDMSR and WRMSR in vol. 2. An MSR that is not
 * here is #GP(0) to the guest and a line in the log.
 *
 * IA32_ARCH_CAPABILITIES says that this CPU has none of the speculation leaks that a guest would
 * pay dearly to work around: translated code does not share address spaces the way that they need
 * (RDCL_NO and its kin), and with enhanced IBRS a guest uses no retpolines, which would defeat
 * return prediction.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/bt/private.h"
#include "cpu/cpuid.h"

enum {
	MSR_P5_MC_ADDR = 0,
	MSR_P5_MC_TYPE = 1,
	MSR_TSC = 0x10,
	MSR_PLATFORM_ID = 0x17,
	MSR_APIC_BASE = 0x1b,
	MSR_FEATURE_CONTROL = 0x3a,
	MSR_TSC_ADJUST = 0x3b,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_BIOS_SIGN_ID = 0x8b,
	MSR_PLATFORM_INFO = 0xce,
	MSR_MTRRCAP = 0xfe,
	MSR_ARCH_CAPABILITIES = 0x10a,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MCG_CAP = 0x179,
	MSR_MCG_STATUS = 0x17a,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_DEBUGCTL = 0x1d9,
	MSR_MTRR_PHYS = 0x200,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC = 0x800,
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_FMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
/* AMD: SYSCFG, HWCR, interrupt pending, LS_CFG, DC_CFG, BU_CFG2, DE_CFG. */
#define MSR_AMD_SYSCFG 0xc0010010u
#define MSR_AMD_HWCR 0xc0010015u
#define MSR_AMD_INT_PENDING 0xc0010055u
#define MSR_AMD_LS_CFG 0xc0011020u
#define MSR_AMD_DC_CFG 0xc0011022u
#define MSR_AMD_DE_CFG 0xc0011029u
#define MSR_AMD_BU_CFG2 0xc001102au

#define MTRRCAP_VALUE 0x508ull /* 8 variable ranges, fixed ranges, write-combining */
#define MISC_ENABLE_READ_ONLY (1ull << 11 | 1ull << 12) /* no BTS, no PEBS */
#define MISC_ENABLE_WRITABLE \
	(1ull | 1ull << 3 | 1ull << 16 | 1ull << 18 | 1ull << 22 | 1ull << 23 | 1ull << 34)
#define EFER_WRITABLE ((uint64_t)(X86_EFER_SCE | X86_EFER_LME | X86_EFER_NXE))
#define DEBUGCTL_WRITABLE 3ull /* LBR, BTF */

/*
 * RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO,
 * FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
 */
#define ARCH_CAPABILITIES_VALUE                                                              \
	(1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 | \
	 1ull << 13 | 1ull << 14 | 1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 |       \
	 1ull << 27 | 1ull << 62)

/* The eleven fixed-range MTRRs in order of address (SDM vol. 3, 12.11.2.2), or -1. */
static int fixed_mtrr(uint32_t msr)
{
	if (msr == 0x250)
		return 0;
	if (msr == 0x258 || msr == 0x259)
		return (int)(msr - 0x258 + 1);
	if (msr >= 0x268 && msr <= 0x26f)
		return (int)(msr - 0x268 + 3);
	return -1;
}

/* Every byte of @value is one of the memory types in the set @types. */
static bool valid_types(uint64_t value, unsigned types)
{
	for (unsigned n = 0; n < 8; n++, value >>= 8)
		if ((value & 0xff) > 7 || !(types >> (value & 7) & 1))
			return false;
	return true;
}

#define MTRR_TYPES 0x73 /* UC, WC, WT, WP, WB */
#define PAT_TYPES 0xf3	/* and UC- */

static bool is_amd_msr(const struct bt_vcpu *v, uint32_t msr)
{
	return v->cpuid->amd &&
	       (msr == MSR_AMD_SYSCFG || msr == MSR_AMD_HWCR || msr == MSR_AMD_INT_PENDING ||
		msr == MSR_AMD_LS_CFG || msr == MSR_AMD_DC_CFG || msr == MSR_AMD_DE_CFG ||
		msr == MSR_AMD_BU_CFG2);
}

static uint64_t read_amd_msr(uint32_t msr)
{
	if (msr == MSR_AMD_HWCR)
		return 1 << 24; /* the TSC runs at the P0 frequency */
	if (msr == MSR_AMD_DE_CFG)
		return 1 << 1; /* LFENCE is serializing */
	return 0;
}

static bool is_chip_msr(uint32_t msr)
{
	return msr == MSR_APIC_BASE || (msr >= MSR_X2APIC && msr < MSR_X2APIC + 0x100);
}

static enum bt_result unknown(struct bt_vcpu *v, const char *verb, uint32_t msr)
{
	bt_heavy_begin(v);
	bt_log_guest(v, "%s of MSR 0x%x, which this CPU does not have: #GP", verb, msr);
	bt_heavy_end(v);
	return bt_raise_error(v, X86_GP, 0);
}

/* Reading -------------------------------------------------------------------------------------- */

static bool read_plain(const struct bt_vcpu *v, uint32_t msr, uint64_t *value)
{
	switch (msr) {
	case MSR_P5_MC_ADDR:
	case MSR_P5_MC_TYPE:
	case MSR_PLATFORM_ID:
	case MSR_MCG_CAP: /* no banks */ *value = 0; break;
	case MSR_TSC: *value = bt_guest_tsc(v); break;
	case MSR_TSC_ADJUST: *value = v->tsc_adjust; break;
	case MSR_FEATURE_CONTROL:
		*value = 1; /* locked, nothing enabled */
		break;
	case MSR_BIOS_SIGN_ID: *value = v->bios_sign_id; break;
	case MSR_PLATFORM_INFO: /* the ratio of the TSC to a bus of 100 MHz */
		*value = (bt_tsc_hz(v) / 100000000 & 0xff) << 8;
		break;
	case MSR_MTRRCAP: *value = MTRRCAP_VALUE; break;
	case MSR_SYSENTER_CS: *value = v->sysenter_cs; break;
	case MSR_SYSENTER_ESP: *value = v->sysenter_esp; break;
	case MSR_SYSENTER_EIP: *value = v->sysenter_eip; break;
	case MSR_MCG_STATUS: *value = v->mcg_status; break;
	case MSR_MISC_ENABLE: *value = v->misc_enable | MISC_ENABLE_READ_ONLY; break;
	case MSR_DEBUGCTL: *value = v->debugctl; break;
	case MSR_PAT: *value = v->pat; break;
	case MSR_MTRR_DEF_TYPE: *value = v->mtrr_def_type; break;
	case MSR_EFER: *value = v->efer; break;
	case MSR_STAR: *value = v->star; break;
	case MSR_LSTAR: *value = v->lstar; break;
	case MSR_CSTAR: *value = v->cstar; break;
	case MSR_FMASK: *value = v->sfmask; break;
	case MSR_FS_BASE: *value = v->seg[X86_FS].base; break;
	case MSR_GS_BASE: *value = v->seg[X86_GS].base; break;
	case MSR_KERNEL_GS_BASE: *value = v->kernel_gs_base; break;
	case MSR_TSC_AUX: *value = v->tsc_aux; break;
	default: return false;
	}
	return true;
}

enum bt_result bt_read_msr(struct bt_vcpu *v, uint32_t msr, uint64_t *value)
{
	bool good;

	if (read_plain(v, msr, value))
		return BT_NEXT;
	if (is_chip_msr(msr) || msr == MSR_TSC_DEADLINE) {
		bt_heavy_begin(v);
		good = true;
		if (msr == MSR_TSC_DEADLINE)
			*value = bt_chip_get_deadline(v);
		else
			good = bt_chip_read_msr(v, msr, value);
		bt_heavy_end(v);
		return good ? BT_NEXT : bt_raise_error(v, X86_GP, 0);
	}
	if (msr >= MSR_MTRR_PHYS && msr < MSR_MTRR_PHYS + 16) {
		*value = v->mtrr_phys[msr - MSR_MTRR_PHYS];
		return BT_NEXT;
	}
	if (fixed_mtrr(msr) >= 0) {
		*value = v->mtrr_fixed[fixed_mtrr(msr)];
		return BT_NEXT;
	}
	if (v->cpuid->has_spec_ctrl && (msr == MSR_SPEC_CTRL || msr == MSR_ARCH_CAPABILITIES)) {
		*value = msr == MSR_SPEC_CTRL ? v->spec_ctrl : ARCH_CAPABILITIES_VALUE;
		return BT_NEXT;
	}
	if (is_amd_msr(v, msr)) {
		*value = read_amd_msr(msr);
		return BT_NEXT;
	}
	bt_heavy_begin(v);
	good = bt_pv_read_msr(v, msr, value);
	bt_heavy_end(v);
	return good ? BT_NEXT : unknown(v, "read", msr);
}

/* Writing -------------------------------------------------------------------------------------- */

static enum bt_result gp(struct bt_vcpu *v)
{
	return bt_raise_error(v, X86_GP, 0);
}

static enum bt_result write_efer(struct bt_vcpu *v, uint64_t value)
{
	uint64_t changed;

	value = (value & ~(uint64_t)X86_EFER_LMA) | (v->efer & X86_EFER_LMA);
	changed = value ^ v->efer;
	if (value & ~(EFER_WRITABLE | X86_EFER_LMA))
		return gp(v);
	if ((changed & X86_EFER_LME) && (v->cr0 & X86_CR0_PG))
		return gp(v);
	v->efer = value;
	if (changed & X86_EFER_NXE)
		bt_tlb_flush_all(v);
	bt_mode_update(v);
	return BT_EXIT;
}

/* The deadline is in guest TSC: a passed one fires at once, 0 disarms (SDM vol. 3, 11.5.4.1). */
static void write_deadline(struct bt_vcpu *v, uint64_t deadline)
{
	uint64_t now_tsc = bt_guest_tsc(v), hz = bt_tsc_hz(v), ns = deadline ? bt_vm_time_ns(v) : 0;
	uint64_t high, low, delta;

	if (deadline > now_tsc && hz) {
		/* delta * 10^9 / hz; more than 64 bits is "never". */
		__asm__("mulq %3"
			: "=a"(low), "=d"(high)
			: "a"(deadline - now_tsc), "r"(1000000000ull));
		if (high >= hz) {
			ns = UINT64_MAX;
		} else {
			__asm__("divq %3" : "=a"(delta), "+d"(high) : "a"(low), "r"(hz));
			if (__builtin_add_overflow(ns, delta, &ns))
				ns = UINT64_MAX;
		}
	}
	bt_heavy_begin(v);
	bt_chip_set_deadline(v, deadline, ns);
	bt_heavy_end(v);
}

static void move_tsc(struct bt_vcpu *v, uint64_t delta)
{
	uint64_t deadline;

	v->tsc_offset += delta;
	v->tsc_adjust += delta;
	bt_heavy_begin(v);
	deadline = bt_chip_get_deadline(v);
	bt_heavy_end(v);
	if (deadline)
		write_deadline(v, deadline);
	bt_heavy_begin(v);
	bt_pv_tsc_moved(v);
	bt_heavy_end(v);
}

static bool is_canonical_msr(uint32_t msr)
{
	return msr == MSR_SYSENTER_ESP || msr == MSR_SYSENTER_EIP || msr == MSR_LSTAR ||
	       msr == MSR_CSTAR || msr == MSR_FS_BASE || msr == MSR_GS_BASE ||
	       msr == MSR_KERNEL_GS_BASE;
}

/* Registers that take any canonical address or any value. */
static uint64_t *plain_register(struct bt_vcpu *v, uint32_t msr)
{
	switch (msr) {
	case MSR_SYSENTER_CS: return &v->sysenter_cs;
	case MSR_SYSENTER_ESP: return &v->sysenter_esp;
	case MSR_SYSENTER_EIP: return &v->sysenter_eip;
	case MSR_STAR: return &v->star;
	case MSR_LSTAR: return &v->lstar;
	case MSR_CSTAR: return &v->cstar;
	case MSR_FMASK: return &v->sfmask;
	case MSR_KERNEL_GS_BASE: return &v->kernel_gs_base;
	default: return NULL;
	}
}

static void write_base(struct bt_vcpu *v, unsigned seg, uint64_t value)
{
	v->seg[seg].base = value;
	bt_mode_update(v);
}

static enum bt_result write_mtrr(struct bt_vcpu *v, uint32_t msr, uint64_t value)
{
	uint64_t reserved = ~0ull << v->cpuid->phys_bits;
	int fixed = fixed_mtrr(msr);

	if (msr == MSR_MTRR_DEF_TYPE) {
		if ((value & ~0xcffull) || (value & 0xff) > 7 || !(MTRR_TYPES >> (value & 7) & 1))
			return gp(v);
		v->mtrr_def_type = value;
	} else if (fixed >= 0) {
		if (!valid_types(value, MTRR_TYPES))
			return gp(v);
		v->mtrr_fixed[fixed] = value;
	} else {
		reserved |= msr & 1 ? 0x7ff : 0xf00;
		if (value & reserved)
			return gp(v);
		if (!(msr & 1) && ((value & 0xff) > 7 || !(MTRR_TYPES >> (value & 7) & 1)))
			return gp(v);
		v->mtrr_phys[(msr - MSR_MTRR_PHYS) & 15] = value;
	}
	return BT_NEXT;
}

static bool is_mtrr(uint32_t msr)
{
	return msr == MSR_MTRR_DEF_TYPE || fixed_mtrr(msr) >= 0 ||
	       (msr >= MSR_MTRR_PHYS && msr < MSR_MTRR_PHYS + 16);
}

static enum bt_result write_paravirtual(struct bt_vcpu *v, uint32_t msr, uint64_t value)
{
	enum bt_pv_msr res;

	bt_heavy_begin(v);
	res = bt_pv_write_msr(v, msr, value);
	bt_heavy_end(v);
	return res == BT_PV_DONE ? BT_EXIT : res == BT_PV_BAD ? gp(v) : unknown(v, "write", msr);
}

static enum bt_result write_special(struct bt_vcpu *v, uint32_t msr, uint64_t value)
{
	switch (msr) {
	case MSR_P5_MC_ADDR:
	case MSR_P5_MC_TYPE:
	case MSR_BIOS_SIGN_ID: return BT_NEXT;
	case MSR_TSC: move_tsc(v, value - bt_guest_tsc(v)); return BT_EXIT;
	case MSR_TSC_ADJUST: move_tsc(v, value - v->tsc_adjust); return BT_EXIT;
	case MSR_TSC_DEADLINE: write_deadline(v, value); return BT_EXIT;
	case MSR_MCG_STATUS:
		if (value & ~7ull)
			return gp(v);
		v->mcg_status = value;
		return BT_NEXT;
	case MSR_MISC_ENABLE:
		if (value & ~(MISC_ENABLE_WRITABLE | MISC_ENABLE_READ_ONLY))
			return gp(v);
		v->misc_enable = value & MISC_ENABLE_WRITABLE;
		return BT_NEXT;
	case MSR_DEBUGCTL:
		if (value & ~DEBUGCTL_WRITABLE)
			return gp(v);
		v->debugctl = value;
		return BT_NEXT;
	case MSR_PAT:
		if (!valid_types(value, PAT_TYPES))
			return gp(v);
		v->pat = value;
		return BT_NEXT;
	case MSR_EFER: return write_efer(v, value);
	case MSR_FS_BASE: write_base(v, X86_FS, value); return BT_NEXT;
	case MSR_GS_BASE: write_base(v, X86_GS, value); return BT_NEXT;
	case MSR_TSC_AUX:
		if (value >> 32)
			return gp(v);
		v->tsc_aux = value;
		return BT_NEXT;
	default: return write_paravirtual(v, msr, value);
	}
}

enum bt_result bt_write_msr(struct bt_vcpu *v, uint32_t msr, uint64_t value)
{
	uint64_t *plain = plain_register(v, msr);
	bool good;

	if (is_canonical_msr(msr) && !bt_canonical(value))
		return gp(v);
	if (plain) {
		*plain = value;
		return BT_NEXT;
	}
	if (is_chip_msr(msr)) {
		bt_heavy_begin(v);
		good = bt_chip_write_msr(v, msr, value);
		bt_heavy_end(v);
		return good ? BT_EXIT : gp(v);
	}
	if (is_mtrr(msr))
		return write_mtrr(v, msr, value);
	if (v->cpuid->has_spec_ctrl && (msr == MSR_SPEC_CTRL || msr == MSR_PRED_CMD)) {
		/* IBRS, BHI_DIS_S; IBPB. Nothing has to be done for any of them here. */
		if (value & ~(msr == MSR_SPEC_CTRL ? 1ull | 1ull << 10 : 1ull))
			return gp(v);
		if (msr == MSR_SPEC_CTRL)
			v->spec_ctrl = value;
		return BT_NEXT;
	}
	if (is_amd_msr(v, msr))
		return BT_NEXT;
	return write_special(v, msr, value);
}

/* Instructions --------------------------------------------------------------------------------- */

enum bt_result bt_op_rdmsr(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t value;

	if (v->cpl)
		return gp(v);
	BT_TRY(bt_read_msr(v, (uint32_t)BT_REG(v, X86_RCX), &value));
	BT_REG(v, X86_RAX) = (uint32_t)value;
	BT_REG(v, X86_RDX) = value >> 32;
	return BT_NEXT;
}

enum bt_result bt_op_wrmsr(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t value = BT_REG(v, X86_RDX) << 32 | (uint32_t)BT_REG(v, X86_RAX);

	if (v->cpl)
		return gp(v);
	return bt_write_msr(v, (uint32_t)BT_REG(v, X86_RCX), value);
}
