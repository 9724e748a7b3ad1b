// SPDX-License-Identifier: Apache-2.0
/*
 * Whether a processor could get from one state of its control registers to another, by instructions at privilege level 0: what a
 * debugger writes is held to that, as an engine's setters check nothing (cpu/engine.h), and a state that no
 * processor can be in is not one that an engine is made for.
 *
 * What a write leaves alone is not looked at: the guest or a loader has made it so. Of CR4 the debugger may set what maru
 * knows; whether the guest's CPUID offers it is for who debugs.
 *
 * SDM vol. 2, "MOV—Move to/from Control Registers"; vol. 3, 2.5 (control registers), 2.2.1 (EFER), 4.1 (paging modes), 10.8.5
 * (IA-32e mode).
 */
#include "base/util.h"
#include "vm/gdb_regs.h"

#define CR0_KNOWN                                                                                                       \
	((uint64_t)(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | \
		    X86_CR0_NW | X86_CR0_CD | X86_CR0_PG))
#define CR4_KNOWN                                                                                                            \
	((uint64_t)(X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE |          \
		    X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_UMIP | X86_CR4_FSGSBASE | X86_CR4_PCIDE | X86_CR4_OSXSAVE | \
		    X86_CR4_SMEP | X86_CR4_SMAP))
#define EFER_KNOWN ((uint64_t)(X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE))
#define CR3_BITS_MAX 52
#define CR3_NO_FLUSH (1ull << 63) /* with PCIDs: not a part of the value */
#define CR3_PCID 0xfffull
#define TSS_32 8u /* of the type: else one of 16 bits */

static bool enters_long_mode(const struct x86_sregs *now)
{
	return !(now->seg[X86_CS].attr & X86_ATTR_L) && (!(now->tr.attr & X86_ATTR_P) || (now->tr.attr & TSS_32));
}

bool gdb_control_settle(const struct x86_sregs *was, struct x86_sregs *now)
{
	bool was_paged = was->cr0 & X86_CR0_PG, paged, lma;

	if (now->cr0 == was->cr0 && now->cr3 == was->cr3 && now->cr4 == was->cr4 && now->cr8 == was->cr8 && now->efer == was->efer)
		return true;
	if (now->cr0 >> 32 || now->cr8 > 15 || (now->cr4 & ~was->cr4 & ~CR4_KNOWN) || (now->efer & ~was->efer & ~EFER_KNOWN))
		return false;
	now->cr0 = (now->cr0 & CR0_KNOWN) | X86_CR0_ET;
	paged = now->cr0 & X86_CR0_PG;
	lma = paged && (now->efer & X86_EFER_LME);
	/* It is read-only: the processor keeps it. */
	now->efer = (now->efer & ~(uint64_t)X86_EFER_LMA) | (lma ? X86_EFER_LMA : 0);

	if ((paged && !(now->cr0 & X86_CR0_PE)) || ((now->cr0 & X86_CR0_NW) && !(now->cr0 & X86_CR0_CD)))
		return false;
	if (was_paged && paged && ((was->efer ^ now->efer) & X86_EFER_LME))
		return false;
	if (lma && (!(now->cr4 & X86_CR4_PAE) || (!was_paged && !enters_long_mode(now))))
		return false;
	if (was_paged && !paged && (was->efer & X86_EFER_LMA) && (now->seg[X86_CS].attr & X86_ATTR_L))
		return false;
	if (now->cr4 & X86_CR4_PCIDE) {
		if (!lma || (!(was->cr4 & X86_CR4_PCIDE) && (now->cr3 & CR3_PCID)))
			return false;
		now->cr3 &= ~CR3_NO_FLUSH;
	}
	return !lma || !(now->cr3 >> CR3_BITS_MAX);
}
