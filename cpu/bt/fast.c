/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT: SDM vol. 2 under these names; vol. 3, 5.8.7 and 5.8.8. They
 * load fixed descriptors without reading any table. In compatibility mode Intel has SYSENTER and
 * AMD SYSCALL (APM vol. 3): guests choose by vendor, which is the host's.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/cpuid.h"

static void load_flat(struct bt_vcpu *v, unsigned seg, uint16_t selector, uint16_t attr)
{
	v->seg[seg] = (struct x86_segment){
		.selector = selector,
		.attr = (uint16_t)(attr | X86_ATTR_P | X86_ATTR_S | X86_ATTR_G),
		.limit = 0xffffffff,
	};
}

/* Code: execute, read, accessed; data: read, write, accessed. */
static void load_flat_code_and_stack(struct bt_vcpu *v, uint16_t cs, uint16_t ss, unsigned cpl,
				     bool code64)
{
	uint16_t dpl = (uint16_t)(cpl << 5);

	v->cpl = (uint8_t)cpl;
	load_flat(v, X86_CS, cs, (uint16_t)(0xb | dpl | (code64 ? X86_ATTR_L : X86_ATTR_DB)));
	load_flat(v, X86_SS, ss, (uint16_t)(0x3 | dpl | X86_ATTR_DB));
	v->interrupt_shadow = SHADOW_NONE;
	bt_mode_update(v);
}

enum bt_result bt_op_syscall(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t cs = (uint16_t)(v->star >> 32) & 0xfffc;

	bool from64 = bt_code64(v);

	if (!(v->efer & X86_EFER_SCE) || !(from64 || (bt_long_mode(v) && v->cpuid->amd)))
		return bt_raise(v, X86_UD);
	BT_REG(v, X86_RCX) = v->next_rip;
	BT_REG(v, X86_R11) = bt_get_rflags(v) & ~(uint64_t)X86_RF;
	v->next_rip = from64 ? v->lstar : v->cstar;
	bt_set_rflags(v, BT_REG(v, X86_R11) & ~v->sfmask);
	v->step_by_new = (BT_REG(v, X86_R11) & X86_TF) != 0;
	load_flat_code_and_stack(v, cs, (uint16_t)(cs + 8), 0, true);
	return BT_EXIT;
}

enum bt_result bt_op_sysret(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t base = (uint16_t)(v->star >> 48);
	bool to64 = i->opsize == 8;

	if (!(v->efer & X86_EFER_SCE) || !bt_code64(v))
		return bt_raise(v, X86_UD);
	if (v->cpl != 0)
		return bt_raise_error(v, X86_GP, 0);
	if (to64 && !bt_canonical(BT_REG(v, X86_RCX)))
		return bt_raise_error(v, X86_GP, 0);
	v->next_rip = to64 ? BT_REG(v, X86_RCX) : (uint32_t)BT_REG(v, X86_RCX);
	bt_load_rflags(v, (BT_REG(v, X86_R11) & 0x3c7fd7) | 2);
	v->step_by_new = (BT_REG(v, X86_R11) & X86_TF) != 0;
	load_flat_code_and_stack(v, (uint16_t)((base + (to64 ? 16 : 0)) | 3),
				 (uint16_t)((base + 8) | 3), 3, to64);
	return BT_EXIT;
}

enum bt_result bt_op_sysenter(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t cs = (uint16_t)v->sysenter_cs & 0xfffc;
	bool wide = bt_long_mode(v);

	if (wide && v->cpuid->amd)
		return bt_raise(v, X86_UD);
	if (!bt_protected(v) || !cs)
		return bt_raise_error(v, X86_GP, 0);
	v->sysflags &= ~(X86_VM | X86_IF | X86_RF);
	v->next_rip = wide ? v->sysenter_eip : (uint32_t)v->sysenter_eip;
	BT_REG(v, X86_RSP) = wide ? v->sysenter_esp : (uint32_t)v->sysenter_esp;
	load_flat_code_and_stack(v, cs, (uint16_t)(cs + 8), 0, wide);
	return BT_EXIT;
}

enum bt_result bt_op_sysexit(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t cs = (uint16_t)v->sysenter_cs;
	bool to64 = i->opsize == 8;

	if (bt_long_mode(v) && v->cpuid->amd)
		return bt_raise(v, X86_UD);
	if (!bt_protected(v) || bt_v86(v) || v->cpl != 0 || !(cs & 0xfffc))
		return bt_raise_error(v, X86_GP, 0);
	if (to64 && (!bt_canonical(BT_REG(v, X86_RDX)) || !bt_canonical(BT_REG(v, X86_RCX))))
		return bt_raise_error(v, X86_GP, 0);
	v->next_rip = to64 ? BT_REG(v, X86_RDX) : (uint32_t)BT_REG(v, X86_RDX);
	BT_REG(v, X86_RSP) = to64 ? BT_REG(v, X86_RCX) : (uint32_t)BT_REG(v, X86_RCX);
	load_flat_code_and_stack(v, (uint16_t)((cs + (to64 ? 32 : 16)) | 3),
				 (uint16_t)((cs + (to64 ? 40 : 24)) | 3), 3, to64);
	return BT_EXIT;
}
