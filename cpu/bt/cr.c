/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control, debug and extended control registers: SDM vol. 2, "MOV—Move to/from Control Registers",
 * "MOV—Move to/from Debug Registers", LMSW, SMSW, CLTS, XGETBV, XSETBV; vol. 3, 2.5, 4.1 (paging),
 * 9.8.5 (IA-32e mode), 18.2 (debug registers).
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/cpuid.h"

#define CR0_KNOWN                                                                      \
	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | \
	 X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)
#define DR6_FIXED 0xffff0ff0ull
#define DR6_WRITABLE 0xe00full
#define DR7_FIXED 0x400ull
#define DR7_WRITABLE 0xffff23ffull /* B, L and G bits, LE, GE, GD, conditions */
#define DR7_GD (1ull << 13)
#define DR6_BD (1ull << 13)

static enum bt_result gp(struct bt_vcpu *v)
{
	return bt_raise_error(v, X86_GP, 0);
}

static bool uses_pdptes(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !(efer & X86_EFER_LMA);
}

/* CR0 ------------------------------------------------------------------------------------------ */

static enum bt_result write_cr0(struct bt_vcpu *v, uint64_t value)
{
	uint64_t old = v->cr0, efer = v->efer, changed;

	if (value >> 32)
		return gp(v);
	value = (value & CR0_KNOWN) | X86_CR0_ET;
	changed = old ^ value;
	if ((value & X86_CR0_PG) && !(value & X86_CR0_PE))
		return gp(v);
	if ((value & X86_CR0_NW) && !(value & X86_CR0_CD))
		return gp(v);
	if ((changed & X86_CR0_PG) && (value & X86_CR0_PG)) {
		if (efer & X86_EFER_LME) {
			bool tss16 = (v->tr.attr & X86_ATTR_P) && !(v->tr.attr & 8);

			if (!(v->cr4 & X86_CR4_PAE) || (v->seg[X86_CS].attr & X86_ATTR_L) || tss16)
				return gp(v);
			efer |= X86_EFER_LMA;
		}
	} else if (changed & X86_CR0_PG) {
		if (bt_code64(v) || (v->cr4 & X86_CR4_PCIDE))
			return gp(v);
		efer &= ~(uint64_t)X86_EFER_LMA;
	}
	/* PDPTEs: vol. 3, 4.4.1, when CD, NW or PG change. */
	if ((changed & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)) && uses_pdptes(value, v->cr4, efer))
		BT_TRY(bt_tlb_load_pdptes(v, v->cr3));
	v->cr0 = value;
	v->efer = efer;
	if (changed & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE))
		bt_tlb_flush_all(v);
	bt_mode_update(v);
	return changed ? BT_EXIT : BT_NEXT;
}

/* CR3 ------------------------------------------------------------------------------------------ */

static enum bt_result write_cr3(struct bt_vcpu *v, uint64_t value)
{
	bool pcide = v->cr4 & X86_CR4_PCIDE;
	uint64_t address = pcide ? value & ~(1ull << 63) : value;

	if (bt_long_mode(v) && address >> v->cpuid->phys_bits)
		return gp(v);
	if (uses_pdptes(v->cr0, v->cr4, v->efer))
		BT_TRY(bt_tlb_load_pdptes(v, value));
	bt_tlb_load_cr3(v, value);
	return BT_EXIT;
}

/* CR4 ------------------------------------------------------------------------------------------ */

static bool offers(const struct bt_vcpu *v, uint32_t leaf, unsigned reg, unsigned bit)
{
	struct cpuid_result r = cpuid_guest(v->cpuid, leaf, 0);
	uint32_t word = reg == 0 ? r.eax : reg == 1 ? r.ebx : reg == 2 ? r.ecx : r.edx;

	return word >> bit & 1;
}

static uint64_t cr4_known(const struct bt_vcpu *v)
{
	uint64_t known = X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE |
			 X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;

	if (offers(v, 1, 2, 17))
		known |= X86_CR4_PCIDE;
	if (offers(v, 1, 2, 26))
		known |= X86_CR4_OSXSAVE;
	if (offers(v, 7, 1, 0))
		known |= X86_CR4_FSGSBASE;
	if (offers(v, 7, 1, 7))
		known |= X86_CR4_SMEP;
	if (offers(v, 7, 1, 20))
		known |= X86_CR4_SMAP;
	if (offers(v, 7, 2, 2))
		known |= X86_CR4_UMIP;
	return known;
}

static enum bt_result write_cr4(struct bt_vcpu *v, uint64_t value)
{
	const uint64_t paging = X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_SMEP;
	uint64_t changed = v->cr4 ^ value;

	if (value & ~cr4_known(v))
		return gp(v);
	if (bt_long_mode(v) && !(value & X86_CR4_PAE))
		return gp(v);
	if (changed & value & X86_CR4_PCIDE && (!bt_long_mode(v) || (v->cr3 & 0xfff)))
		return gp(v);
	if ((changed & (paging)) && uses_pdptes(v->cr0, value, v->efer))
		BT_TRY(bt_tlb_load_pdptes(v, v->cr3));
	v->cr4 = value;
	if (changed & (paging | X86_CR4_PCIDE | X86_CR4_SMAP))
		bt_tlb_flush_all(v);
	bt_mode_update(v);
	return changed ? BT_EXIT : BT_NEXT;
}

/* MOV CR --------------------------------------------------------------------------------------- */

static unsigned register_size(const struct bt_vcpu *v)
{
	return bt_code64(v) ? 8 : 4;
}

enum bt_result bt_op_mov_from_cr(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t value;

	if (v->cpl)
		return gp(v);
	switch (i->reg) {
	case 0: value = v->cr0; break;
	case 2: value = v->cr2; break;
	case 3: value = v->cr3; break;
	case 4: value = v->cr4; break;
	case 8:
		bt_heavy_begin(v);
		value = bt_chip_get_tpr(v);
		bt_heavy_end(v);
		break;
	default: return bt_raise(v, X86_UD);
	}
	bt_set_reg(v, i->rm & 15, register_size(v), true, value);
	return BT_NEXT;
}

enum bt_result bt_op_mov_to_cr(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t value = bt_truncate(BT_REG(v, i->rm & 15), register_size(v));

	if (i->reg != 0 && i->reg != 2 && i->reg != 3 && i->reg != 4 && i->reg != 8)
		return bt_raise(v, X86_UD);
	if (v->cpl)
		return gp(v);
	switch (i->reg) {
	case 0: return write_cr0(v, value);
	case 2: v->cr2 = value; return BT_NEXT;
	case 3: return write_cr3(v, value);
	case 4: return write_cr4(v, value);
	default:
		if (value > 15)
			return gp(v);
		bt_heavy_begin(v);
		bt_chip_set_tpr(v, (uint8_t)value);
		bt_heavy_end(v);
		return BT_EXIT; /* an interrupt may now be due */
	}
}

enum bt_result bt_op_clts(struct bt_vcpu *v, const struct insn *i)
{
	if (v->cpl)
		return gp(v);
	if (!(v->cr0 & X86_CR0_TS))
		return BT_NEXT;
	v->cr0 &= ~(uint64_t)X86_CR0_TS;
	bt_mode_update(v);
	return BT_EXIT;
}

/* LMSW can set PE but not clear it. */
enum bt_result bt_op_lmsw(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t value = BT_REG(v, i->rm & 15);

	if (v->cpl)
		return gp(v);
	if (i->has_mem)
		BT_TRY(bt_load_operand(v, i, 2, &value));
	return write_cr0(v, (v->cr0 & ~0xeull) | (value & 0xf));
}

enum bt_result bt_op_smsw(struct bt_vcpu *v, const struct insn *i)
{
	if (v->cpl && (v->cr4 & X86_CR4_UMIP))
		return gp(v);
	if (i->has_mem)
		return bt_store_operand(v, i, 2, v->cr0 & 0xffff);
	bt_set_reg(v, i->rm & 15, i->opsize, true, bt_truncate(v->cr0, i->opsize));
	return BT_NEXT;
}

/* MOV DR --------------------------------------------------------------------------------------- */

/* Also which register: DR4 and DR5 are DR6 and DR7 unless CR4.DE is set. */
static enum bt_result check_dr(struct bt_vcpu *v, unsigned *number)
{
	if (*number == 4 || *number == 5) {
		if (v->cr4 & X86_CR4_DE)
			return bt_raise(v, X86_UD);
		*number += 2;
	}
	if (*number > 7)
		return bt_raise(v, X86_UD);
	if (v->cpl)
		return gp(v);
	if (v->dr[7] & DR7_GD) {
		v->exception = (struct bt_exception){ .vector = X86_DB, .dr6 = DR6_BD };
		return BT_FAULT;
	}
	return BT_NEXT;
}

enum bt_result bt_op_mov_from_dr(struct bt_vcpu *v, const struct insn *i)
{
	unsigned number = i->reg;

	BT_TRY(check_dr(v, &number));
	bt_set_reg(v, i->rm & 15, register_size(v), true, v->dr[number]);
	return BT_NEXT;
}

enum bt_result bt_op_mov_to_dr(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t value = bt_truncate(BT_REG(v, i->rm & 15), register_size(v));
	unsigned number = i->reg;

	BT_TRY(check_dr(v, &number));
	if (number < 4) {
		v->dr[number] = value;
		return BT_EXIT;
	}
	if (value >> 32)
		return gp(v);
	if (number == 6) {
		v->dr[6] = (value & DR6_WRITABLE) | DR6_FIXED;
		return BT_NEXT;
	}
	v->dr[7] = (value & DR7_WRITABLE) | DR7_FIXED;
	bt_mode_update(v);
	return BT_EXIT;
}

/* XCR0 ----------------------------------------------------------------------------------------- */

enum bt_result bt_op_xgetbv(struct bt_vcpu *v, const struct insn *i)
{
	uint32_t index = (uint32_t)BT_REG(v, X86_RCX);
	uint32_t low, high;
	uint64_t value = v->xcr0;

	if (!(v->cr4 & X86_CR4_OSXSAVE))
		return bt_raise(v, X86_UD);
	if (index == 1 && (cpuid_guest(v->cpuid, 0xd, 1).eax & 4)) {
		/* XINUSE is the host's: the guest's state is in its registers. */
		__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
		value &= (uint64_t)high << 32 | low;
	} else if (index != 0) {
		return gp(v);
	}
	BT_REG(v, X86_RAX) = (uint32_t)value;
	BT_REG(v, X86_RDX) = value >> 32;
	return BT_NEXT;
}

enum bt_result bt_op_xsetbv(struct bt_vcpu *v, const struct insn *i)
{
	uint64_t value = (BT_REG(v, X86_RDX) & 0xffffffff) << 32 | (uint32_t)BT_REG(v, X86_RAX);

	if (!(v->cr4 & X86_CR4_OSXSAVE))
		return bt_raise(v, X86_UD);
	if (v->cpl || (uint32_t)BT_REG(v, X86_RCX) != 0)
		return gp(v);
	if (!(value & X86_XCR0_X87) || (value & ~v->cpuid->xcr0))
		return gp(v);
	if ((value & X86_XCR0_AVX) && !(value & X86_XCR0_SSE))
		return gp(v);
	if (value & X86_XCR0_AVX512 &&
	    ((value & X86_XCR0_AVX512) != X86_XCR0_AVX512 || !(value & X86_XCR0_AVX)))
		return gp(v);
	v->xcr0 = value;
	bt_mode_update(v);
	return BT_EXIT;
}
