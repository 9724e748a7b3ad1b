/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control and debug registers, MSRs, CPUID, flags, FS and GS bases, TLB control, decimal
 * arithmetic, stack instructions.
 */
#include "cpu/bt/decode.h"
#include "tests/unit/fake_x86.h"

static struct bt_vcpu v;

static enum bt_result cr(bt_op *op, unsigned number, uint64_t value)
{
	struct insn i = { .reg = (uint8_t)number, .rm = X86_RAX };

	BT_REG(&v, X86_RAX) = value;
	return op(&v, &i);
}

static enum bt_result plain(bt_op *op, unsigned opsize)
{
	struct insn i = { .opsize = (uint8_t)opsize };

	return op(&v, &i);
}

static void test_cr(void)
{
	scene32(&v, 0);
	v.cr0 = X86_CR0_PE | X86_CR0_ET;
	ok(faulted(&v, cr(bt_op_mov_to_cr, 0, X86_CR0_PG), X86_GP, 0), "PG without PE");
	ok(faulted(&v, cr(bt_op_mov_to_cr, 0, X86_CR0_PE | X86_CR0_NW), X86_GP, 0),
	   "NW without CD");
	is_u64(cr(bt_op_mov_to_cr, 0, X86_CR0_PE | X86_CR0_PG), BT_EXIT, "paging on");
	is_u64(v.cr0, X86_CR0_PE | X86_CR0_PG | X86_CR0_ET, "ET is fixed");
	ok(fake.flushes, "the TLB is flushed");
	ok(!bt_long_mode(&v), "no LME, no LMA");
	v.efer = X86_EFER_LME;
	cr(bt_op_mov_to_cr, 0, X86_CR0_PE);
	ok(faulted(&v, cr(bt_op_mov_to_cr, 0, X86_CR0_PE | X86_CR0_PG), X86_GP, 0),
	   "LME without PAE");
	is_u64(cr(bt_op_mov_to_cr, 4, X86_CR4_PAE), BT_EXIT, "PAE");
	is_u64(cr(bt_op_mov_to_cr, 0, X86_CR0_PE | X86_CR0_PG), BT_EXIT, "with PAE");
	ok(bt_long_mode(&v), "LMA");
	ok(faulted(&v, cr(bt_op_mov_to_cr, 4, 0), X86_GP, 0), "PAE cannot go in IA-32e mode");
	ok(faulted(&v, cr(bt_op_mov_to_cr, 3, 1ull << 63), X86_GP, 0) || !bt_code64(&v), "CR3");
	is_u64(cr(bt_op_mov_to_cr, 0, X86_CR0_PE), BT_EXIT, "paging off from compatibility mode");
	ok(!bt_long_mode(&v), "LMA is cleared");

	scene64(&v, 0);
	ok(faulted(&v, cr(bt_op_mov_to_cr, 0, X86_CR0_PE), X86_GP, 0), "paging off in 64-bit mode");
	ok(faulted(&v, cr(bt_op_mov_to_cr, 0, v.cr0 | 1ull << 32), X86_GP, 0), "CR0 bits 63:32");
	ok(faulted(&v, cr(bt_op_mov_to_cr, 3, 1ull << 52), X86_GP, 0), "CR3 reserved bits");
	ok(faulted(&v, cr(bt_op_mov_to_cr, 3, 1ull << 63), X86_GP, 0), "CR3 bit 63 without PCIDE");
	v.cr3 = 0x1001;
	ok(faulted(&v, cr(bt_op_mov_to_cr, 4, v.cr4 | X86_CR4_PCIDE), X86_GP, 0),
	   "PCIDE with CR3[11:0] != 0");
	v.cr3 = 0x1000;
	is_u64(cr(bt_op_mov_to_cr, 4, v.cr4 | X86_CR4_PCIDE), BT_EXIT, "PCIDE");
	is_u64(cr(bt_op_mov_to_cr, 3, 1ull << 63 | 0x2005), BT_EXIT, "CR3 bit 63 with PCIDE");
	ok(faulted(&v, cr(bt_op_mov_to_cr, 4, v.cr4 | X86_CR4_VME), X86_GP, 0),
	   "VME is not offered");
	ok(faulted(&v, cr(bt_op_mov_to_cr, 4, v.cr4 | 1ull << 22), X86_GP, 0),
	   "nor protection keys");
	ok(faulted(&v, cr(bt_op_mov_to_cr, 8, 16), X86_GP, 0), "CR8 above 15");
	is_u64(cr(bt_op_mov_to_cr, 8, 9), BT_EXIT, "CR8");
	is_u64(fake.tpr, 9, "goes to the APIC");
	is_u64(cr(bt_op_mov_from_cr, 8, 0), BT_NEXT, "from CR8");
	is_u64(BT_REG(&v, X86_RAX), 9, "value");
	ok(faulted_plain(&v, cr(bt_op_mov_to_cr, 1, 0), X86_UD), "CR1: #UD");
	v.cpl = 3;
	ok(faulted(&v, cr(bt_op_mov_from_cr, 0, 0), X86_GP, 0), "CPL 3");

	scene32(&v, 0);
	v.cr4 |= X86_CR4_PAE;
	ok(faulted(&v, cr(bt_op_mov_to_cr, 3, 0xbad000), X86_GP, 0), "PAE paging: bad PDPTEs");
	is_u64(v.cr3, 0, "CR3 is unchanged");

	scene_real(&v);
	struct insn i = { .rm = X86_RAX, .opsize = 2 };

	BT_REG(&v, X86_RAX) = 0xfff1;
	is_u64(bt_op_lmsw(&v, &i), BT_EXIT, "LMSW");
	is_u64(v.cr0, X86_CR0_ET | X86_CR0_PE, "sets PE");
	BT_REG(&v, X86_RAX) = 0;
	bt_op_lmsw(&v, &i);
	is_u64(v.cr0, X86_CR0_ET | X86_CR0_PE, "but does not clear it");
	v.cr0 |= X86_CR0_TS;
	bt_mode_update(&v);
	is_u64(plain(bt_op_clts, 4), BT_EXIT, "CLTS");
	ok(!(v.mode & MODE_TS), "mode");
}

static void test_dr(void)
{
	scene64(&v, 0);
	is_u64(cr(bt_op_mov_to_dr, 7, 0xffffffff & ~(1u << 13)), BT_EXIT, "DR7");
	is_u64(v.dr[7], 0xffff07ff, "reserved bits");
	ok(v.mode & MODE_STEP, "breakpoints: one instruction a block");
	ok(faulted(&v, cr(bt_op_mov_to_dr, 7, 1ull << 32), X86_GP, 0), "DR7 bits 63:32");
	is_u64(cr(bt_op_mov_to_dr, 6, 0), BT_NEXT, "DR6");
	is_u64(v.dr[6], 0xffff0ff0, "fixed bits");
	is_u64(cr(bt_op_mov_to_dr, 4, 1), BT_NEXT, "DR4 is DR6");
	is_u64(v.dr[6], 0xffff0ff1, "value");
	v.cr4 |= X86_CR4_DE;
	ok(faulted_plain(&v, cr(bt_op_mov_to_dr, 4, 1), X86_UD), "unless CR4.DE");
	v.dr[7] |= 1 << 13;
	ok(faulted_plain(&v, cr(bt_op_mov_from_dr, 0, 0), X86_DB), "DR7.GD: #DB");
	is_u64(v.exception.dr6, 1 << 13, "with DR6.BD");
	v.cpl = 3;
	ok(faulted(&v, cr(bt_op_mov_from_dr, 0, 0), X86_GP, 0), "CPL 3 comes first");
}

static enum bt_result wrmsr(uint32_t msr, uint64_t value)
{
	BT_REG(&v, X86_RCX) = msr;
	BT_REG(&v, X86_RAX) = 0xdead00000000 | (uint32_t)value;
	BT_REG(&v, X86_RDX) = value >> 32;
	return plain(bt_op_wrmsr, 4);
}

static enum bt_result rdmsr(uint32_t msr)
{
	BT_REG(&v, X86_RCX) = msr;
	return plain(bt_op_rdmsr, 4);
}

static uint64_t pair(void)
{
	return BT_REG(&v, X86_RDX) << 32 | BT_REG(&v, X86_RAX);
}

static void test_msr(void)
{
	scene64(&v, 0);
	ok(faulted(&v, rdmsr(0x12345), X86_GP, 0), "unknown MSR");
	ok(faulted(&v, wrmsr(0x12345, 0), X86_GP, 0), "unknown MSR, write");
	is_u64(wrmsr(0xc0000100, 0x7fff12345678), BT_NEXT, "FS_BASE");
	is_u64(v.fs_base, 0x7fff12345678, "and its copy");
	ok(faulted(&v, wrmsr(0xc0000101, 0x800000000000), X86_GP, 0), "GS_BASE not canonical");
	is_u64(wrmsr(0xc0000102, 0xffff888000000000), BT_NEXT, "KERNEL_GS_BASE");
	is_u64(plain(bt_op_swapgs, 4), BT_NEXT, "SWAPGS");
	is_u64(v.gs_base, 0xffff888000000000, "GS base");
	is_u64(v.kernel_gs_base, 0, "and back");
	ok(faulted(&v, wrmsr(0xc0000080, X86_EFER_SCE), X86_GP, 0), "EFER.LME with paging on");
	is_u64(wrmsr(0xc0000080, X86_EFER_LME | X86_EFER_SCE), BT_EXIT, "EFER.NXE off");
	is_u64(v.efer, X86_EFER_LME | X86_EFER_SCE | X86_EFER_LMA, "LMA is read-only");
	ok(faulted(&v, wrmsr(0xc0000080, v.efer | 1 << 12), X86_GP, 0), "EFER.SVME is reserved");
	ok(faulted(&v, wrmsr(0x277, 0x0007040600070402), X86_GP, 0), "PAT type 2");
	is_u64(wrmsr(0x277, 0x0007050600070106), BT_NEXT, "PAT");
	ok(faulted(&v, wrmsr(0x2ff, 0xc02), X86_GP, 0), "MTRR default type 2");
	is_u64(wrmsr(0x2ff, 0xc06), BT_NEXT, "MTRR default type");
	is_u64(wrmsr(0x26f, 0x0606060606060606), BT_NEXT, "fixed MTRR");
	is_u64(v.mtrr_fixed[10], 0x0606060606060606, "is the last one");
	ok(faulted(&v, wrmsr(0x26f, 7), X86_GP, 0), "fixed MTRR of type 7");
	ok(faulted(&v, wrmsr(0x201, 0x1), X86_GP, 0), "MTRR mask reserved bits");
	is_u64(wrmsr(0x20f, 0xf00000800), BT_NEXT, "last MTRR mask");
	ok(faulted(&v, wrmsr(0xfe, 0), X86_GP, 0), "MTRRCAP is read-only");
	rdmsr(0x10a);
	ok(pair() & 1, "ARCH_CAPABILITIES: RDCL_NO");
	ok(faulted(&v, wrmsr(0x48, 2), X86_GP, 0), "SPEC_CTRL: only IBRS");
	ok(faulted(&v, rdmsr(0x49), X86_GP, 0), "PRED_CMD is write-only");
	ok(faulted(&v, wrmsr(0xc0000103, 1ull << 32), X86_GP, 0), "TSC_AUX bits 63:32");
	is_u64(wrmsr(0xc0000103, 77), BT_NEXT, "TSC_AUX");
	is_u64(wrmsr(0x10, 5000000), BT_EXIT, "TSC");
	rdmsr(0x10);
	is_u64(pair(), 5000000, "reads back");
	rdmsr(0x3b);
	is_u64(pair(), 4000000, "TSC_ADJUST went along");
	is_u64(wrmsr(0x3b, 0), BT_EXIT, "TSC_ADJUST");
	rdmsr(0x10);
	is_u64(pair(), 1000000, "moves the TSC");
	is_u64(wrmsr(0x6e0, 3000000), BT_EXIT, "TSC_DEADLINE");
	is_u64(fake.deadline_ns, 5000 + 1000000, "2,000,000 ticks at 2 GHz are a millisecond");
	wrmsr(0x6e0, 10);
	is_u64(fake.deadline_ns, 5000, "a passed deadline is now");
	wrmsr(0x6e0, ~0ull);
	ok(fake.deadline_ns > 1ull << 62, "the end of time");
	wrmsr(0x6e0, 0);
	is_u64(fake.deadline_ns, 0, "0 disarms");
	ok(faulted(&v, rdmsr(0x8ff), X86_GP, 0), "the APIC refuses");
	is_u64(rdmsr(0x1b), BT_NEXT, "APIC_BASE is the chip's");
	is_u64(plain(bt_op_rdtscp, 4), BT_NEXT, "RDTSCP");
	is_u64(BT_REG(&v, X86_RCX), 77, "TSC_AUX");
	v.cpl = 3;
	ok(faulted(&v, rdmsr(0x10), X86_GP, 0), "RDMSR at CPL 3");
	is_u64(plain(bt_op_rdtsc, 4), BT_NEXT, "RDTSC at CPL 3");
	v.cr4 |= X86_CR4_TSD;
	ok(faulted(&v, plain(bt_op_rdtsc, 4), X86_GP, 0), "not with TSD");
	ok(faulted(&v, plain(bt_op_hlt, 4), X86_GP, 0), "HLT at CPL 3");
}

static struct cpuid_result cpuid(uint32_t leaf, uint32_t subleaf)
{
	BT_REG(&v, X86_RAX) = leaf;
	BT_REG(&v, X86_RCX) = subleaf;
	plain(bt_op_cpuid, 4);
	return (struct cpuid_result){ (uint32_t)BT_REG(&v, X86_RAX), (uint32_t)BT_REG(&v, X86_RBX),
				      (uint32_t)BT_REG(&v, X86_RCX), (uint32_t)BT_REG(&v, X86_RDX) };
}

static void test_cpuid(void)
{
	struct cpuid_result r;
	struct decode_features f;

	scene64(&v, 0);
	v.index = 1;
	r = cpuid(1, 0);
	is_u64(r.ebx >> 24, 1, "APIC id");
	ok(r.ecx >> 31, "hypervisor bit");
	ok(!(r.ecx & 1 << 5) && !(r.ecx & 1 << 27), "no VMX; OSXSAVE is CR4's");
	ok((r.ecx & 1 << 21) && (r.ecx & 1 << 24) && (r.ecx & 1 << 17),
	   "x2APIC, TSC deadline, PCID");
	is_u64(r.edx >> 28 & 1, 1, "HTT with two vCPUs");
	ok(!(r.edx & 2), "no VME");
	r = cpuid(7, 0);
	is_u64(r.ebx & (1 << 2 | 1 << 4 | 1 << 11 | 1 << 14), 0, "no SGX, HLE, RTM, MPX");
	is_u64(r.ebx & (1 << 0 | 1 << 7 | 1 << 10 | 1 << 20), 1 << 0 | 1 << 7 | 1 << 10 | 1 << 20,
	       "FSGSBASE, SMEP, INVPCID, SMAP");
	is_u64(r.ecx & (1 << 3 | 1 << 7), 0, "no protection keys, no CET");
	is_u64(cpuid(7, 1).eax, 0, "subleaf 1 is empty");
	r = cpuid(0xb, 1);
	is_u64(r.ebx, 2, "two cores");
	is_u64(r.eax, 1, "one bit of APIC id");
	is_u64(r.edx, 1, "x2APIC id");
	r = cpuid(0x40000000, 0);
	ok(r.ebx == 0x7572616d && r.ecx == r.ebx && r.edx == r.ebx, "marumarumaru");
	r = cpuid(0x80000001, 0);
	ok((r.edx & 1 << 26) && (r.edx & 1 << 20) && !(r.ecx & 4), "1 GiB pages, NX, no SVM");
	ok(cpuid(0x80000007, 0).edx & 1 << 8, "invariant TSC");
	if (fake.cpuid.xcr0 & 4) {
		v.xcr0 = 1;
		is_u64(cpuid(0xd, 0).ebx, 576, "XSAVE area for x87 and SSE");
		v.xcr0 = 7;
		is_u64(cpuid(0xd, 0).ebx, 832, "with AVX");
		ok(!(cpuid(0xd, 1).eax & 8), "no XSAVES");
	} else {
		skip("no AVX");
	}
	if (!fake.cpuid.amd) {
		r = cpuid(0x15, 0);
		ok(r.eax && r.ebx <= 4294 && r.ecx == 1000000000,
		   "leaf 0x15 fits 32-bit arithmetic");
		is_u64((uint64_t)r.ecx * r.ebx / r.eax, 2000000000,
		       "and gives the TSC's frequency");
	}
	cpuid_decode_features(&fake.cpuid, &f);
	ok(f.bits & 1ull << DECODE_INVPCID && !(f.bits & 1ull << DECODE_MONITOR),
	   "decoder features");
	is_u64((f.bits >> DECODE_AVX & 1), cpuid(1, 0).ecx >> 28 & 1, "AVX for both or neither");

	scene64(&v, 0);
	v.cr4 |= X86_CR4_OSXSAVE;
	ok(cpuid(1, 0).ecx & 1 << 27, "OSXSAVE");
	BT_REG(&v, X86_RCX) = 0;
	BT_REG(&v, X86_RAX) = 6;
	BT_REG(&v, X86_RDX) = 0;
	ok(faulted(&v, plain(bt_op_xsetbv, 4), X86_GP, 0), "XCR0 without x87");
	BT_REG(&v, X86_RAX) = 5;
	ok(faulted(&v, plain(bt_op_xsetbv, 4), X86_GP, 0), "AVX without SSE");
	BT_REG(&v, X86_RAX) = 0x27;
	ok(faulted(&v, plain(bt_op_xsetbv, 4), X86_GP, 0), "a third of AVX-512");
	BT_REG(&v, X86_RAX) = 0x207;
	ok(faulted(&v, plain(bt_op_xsetbv, 4), X86_GP, 0), "protection keys");
	BT_REG(&v, X86_RAX) = 3;
	is_u64(plain(bt_op_xsetbv, 4), BT_EXIT, "x87 and SSE");
	is_u64(plain(bt_op_xgetbv, 4), BT_NEXT, "XGETBV");
	is_u64(BT_REG(&v, X86_RAX), 3, "value");
	BT_REG(&v, X86_RCX) = 2;
	ok(faulted(&v, plain(bt_op_xgetbv, 4), X86_GP, 0), "XCR2");
}

static void test_flags(void)
{
	scene32(&v, 3);
	ok(faulted(&v, plain(bt_op_cli, 4), X86_GP, 0), "CLI at CPL 3, IOPL 0");
	ok(faulted_plain(&v, plain(bt_op_stac, 4), X86_UD), "STAC at CPL 3: #UD");
	bt_set_rflags(&v, 2 | X86_IF | X86_CF | X86_RF);
	is_u64(plain(bt_op_pushf, 4), BT_NEXT, "PUSHF");
	is_u64(get(STACK3 - 4, 4), 2 | X86_IF | X86_CF, "without RF");
	put(STACK3 - 4, 4, 2 | X86_IOPL | X86_DF | X86_AC | X86_ID | X86_VM);
	is_u64(plain(bt_op_popf, 4), BT_NEXT, "POPF");
	is_u64(bt_get_rflags(&v), 2 | X86_IF | X86_DF | X86_AC | X86_ID,
	       "IF and IOPL stay at CPL 3");

	scene32(&v, 0);
	is_u64(plain(bt_op_sti, 4), BT_EXIT, "STI");
	ok(v.interrupt_shadow, "one instruction without interrupts");
	is_u64(plain(bt_op_sti, 4), BT_NEXT, "STI again");
	is_u64(plain(bt_op_cli, 4), BT_NEXT, "CLI");
	BT_REG(&v, X86_RSP) -= 2;
	put(BT_REG(&v, X86_RSP), 2, 0xffff);
	bt_set_rflags(&v, 2 | X86_AC);
	is_u64(plain(bt_op_popf, 2), BT_EXIT, "16-bit POPF sets TF");
	is_u64(bt_get_rflags(&v), 0x7fd7 | X86_AC, "the upper half stays");
	ok(v.mode & MODE_STEP, "single-step");

	scene64(&v, 0);
	v.cr4 |= X86_CR4_SMAP;
	bt_mode_update(&v);
	ok(!(v.mode & MODE_SMAP_OPEN), "SMAP");
	is_u64(plain(bt_op_stac, 4), BT_EXIT, "STAC");
	ok(v.mode & MODE_SMAP_OPEN, "opens it");

	scene_v86(&v, 0);
	ok(faulted(&v, plain(bt_op_pushf, 2), X86_GP, 0), "PUSHF in V86 mode with IOPL 0");
	scene_v86(&v, 3);
	is_u64(plain(bt_op_sti, 2), BT_EXIT, "STI in V86 mode with IOPL 3");
}

static void test_bases(void)
{
	struct insn i = { .rm = X86_RBX,
			  .opsize = 8,
			  .base = REG_NONE,
			  .index = REG_NONE,
			  .addrsize = 8,
			  .seg = X86_DS };

	scene64(&v, 3);
	ok(faulted_plain(&v, bt_op_wrfsbase(&v, &i), X86_UD), "WRFSBASE without CR4.FSGSBASE");
	v.cr4 |= X86_CR4_FSGSBASE;
	BT_REG(&v, X86_RBX) = 0x123456789abc;
	ok(bt_op_wrfsbase(&v, &i) == BT_NEXT, "WRFSBASE");
	i.opsize = 4;
	bt_op_rdfsbase(&v, &i);
	is_u64(BT_REG(&v, X86_RBX), 0x56789abc, "32-bit RDFSBASE");
	i.opsize = 8;
	BT_REG(&v, X86_RBX) = 0x800000000000;
	ok(faulted(&v, bt_op_wrgsbase(&v, &i), X86_GP, 0), "not canonical");
	ok(faulted(&v, plain(bt_op_swapgs, 4), X86_GP, 0), "SWAPGS at CPL 3");

	scene64(&v, 0);
	i.disp = 0x9100;
	i.has_mem = true;
	i.reg = X86_RAX;
	put(0x9100, 8, 0x1000);
	BT_REG(&v, X86_RAX) = 1;
	ok(faulted(&v, bt_op_invpcid(&v, &i), X86_GP, 0), "INVPCID: PCID above 12 bits");
	put(0x9100, 8, 1);
	ok(faulted(&v, bt_op_invpcid(&v, &i), X86_GP, 0), "INVPCID: PCID 1 without PCIDE");
	BT_REG(&v, X86_RAX) = 4;
	ok(faulted(&v, bt_op_invpcid(&v, &i), X86_GP, 0), "INVPCID type 4");
	BT_REG(&v, X86_RAX) = 2;
	is_u64(bt_op_invpcid(&v, &i), BT_EXIT, "INVPCID all");
	i.disp = 0x800000000000;
	is_u64(bt_op_invlpg(&v, &i), BT_NEXT, "INVLPG of no canonical address does nothing");
	i.disp = 0x12345;
	is_u64(bt_op_invlpg(&v, &i), BT_EXIT, "INVLPG");
	is_u64(fake.flushed_page, 0x12345, "address");

	/* Table registers. */
	i.disp = 0x9200;
	is_u64(bt_op_sgdt(&v, &i), BT_NEXT, "SGDT");
	is_u64(get(0x9202, 8), GDT, "base");
	put(0x9202, 8, 0x900000000000);
	ok(faulted(&v, bt_op_lgdt(&v, &i), X86_GP, 0), "LGDT: base not canonical");
	scene_real(&v);
	i.disp = 0x200;
	i.opsize = 2;
	i.addrsize = 2;
	put(0x200, 8, 0xff1234560fff);
	is_u64(bt_op_lidt(&v, &i), BT_NEXT, "16-bit LIDT");
	is_u64(v.idtr.base, 0x123456, "takes 24 bits of base");
}

static void test_arith(void)
{
	struct insn i = { .imm = 10, .opsize = 2, .addrsize = 2, .seg = X86_DS };

	scene_real(&v);
	BT_REG(&v, X86_RAX) = 0x0f;
	bt_op_aaa(&v, &i);
	is_u64(BT_REG(&v, X86_RAX), 0x105, "AAA");
	ok((bt_get_rflags(&v) & (X86_AF | X86_CF)) == (X86_AF | X86_CF), "AF, CF");
	BT_REG(&v, X86_RAX) = 0x205;
	bt_set_aflags(&v, X86_AF);
	bt_op_aas(&v, &i);
	is_u64(BT_REG(&v, X86_RAX), 0x00f, "AAS");
	BT_REG(&v, X86_RAX) = 0x7f;
	bt_op_aam(&v, &i);
	is_u64(BT_REG(&v, X86_RAX), 0xc07, "AAM");
	bt_op_aad(&v, &i);
	is_u64(BT_REG(&v, X86_RAX), 0x7f, "AAD");
	i.imm = 0;
	ok(faulted_plain(&v, bt_op_aam(&v, &i), X86_DE), "AAM 0: #DE");
	BT_REG(&v, X86_RAX) = 0xae;
	bt_set_aflags(&v, 0);
	bt_op_daa(&v, &i);
	is_u64(BT_REG(&v, X86_RAX), 0x14, "DAA");
	is_u64(bt_get_rflags(&v) & 0xff, 2 | X86_CF | X86_AF | X86_PF, "flags");
	BT_REG(&v, X86_RAX) = 0x05;
	bt_set_aflags(&v, X86_AF);
	bt_op_das(&v, &i);
	is_u64(BT_REG(&v, X86_RAX), 0xff, "DAS");
	ok(bt_get_rflags(&v) & X86_CF, "borrow");
	put(0x234, 1, 0x99);
	BT_REG(&v, X86_RBX) = 0x200;
	BT_REG(&v, X86_RAX) = 0x34;
	bt_op_xlat(&v, &i);
	is_u64(BT_REG(&v, X86_RAX), 0x99, "XLAT");

	struct insn b = { .reg = X86_RCX,
			  .opsize = 2,
			  .addrsize = 2,
			  .seg = X86_DS,
			  .base = REG_NONE,
			  .index = REG_NONE,
			  .disp = 0x300,
			  .has_mem = true };

	put(0x300, 4, 0x0005fffb);
	BT_REG(&v, X86_RCX) = 0xfffb;
	is_u64(bt_op_bound(&v, &b), BT_NEXT, "BOUND: the lower bound itself");
	BT_REG(&v, X86_RCX) = 6;
	ok(faulted_plain(&v, bt_op_bound(&v, &b), X86_BR), "BOUND: #BR");
}

static void test_stack(void)
{
	struct insn i = { .opsize = 4, .imm = 0x20, .imm2 = 3 };

	scene32(&v, 3);
	for (unsigned n = 0; n < 8; n++)
		if (n != X86_RSP)
			BT_REG(&v, n) = 0x100 + n;
	is_u64(bt_op_pusha(&v, &i), BT_NEXT, "PUSHA");
	is_u64(get(STACK3 - 20, 4), STACK3, "ESP as it was");
	is_u64(get(STACK3 - 32, 4), 0x107, "EDI");
	put(STACK3 - 4, 4, 0x55);
	is_u64(bt_op_popa(&v, &i), BT_NEXT, "POPA");
	ok(BT_REG(&v, X86_RAX) == 0x55 && BT_REG(&v, X86_RSP) == STACK3, "EAX, ESP");
	BT_REG(&v, X86_RBP) = STACK3 - 0x100;
	put(STACK3 - 0x104, 4, 0xaaaa);
	put(STACK3 - 0x108, 4, 0xbbbb);
	is_u64(bt_op_enter(&v, &i), BT_NEXT, "ENTER 32, 3");
	is_u64(BT_REG(&v, X86_RBP), STACK3 - 4, "EBP");
	is_u64(BT_REG(&v, X86_RSP), STACK3 - 16 - 0x20, "ESP");
	is_u64(get(STACK3 - 8, 4), 0xaaaa, "first frame pointer");
	is_u64(get(STACK3 - 12, 4), 0xbbbb, "second");
	is_u64(get(STACK3 - 16, 4), STACK3 - 4, "own");
	fake.page[(STACK3 >> 12) - 1] = FAKE_ABSENT;
	BT_REG(&v, X86_RSP) = STACK3 + 8;
	ok(bt_op_pusha(&v, &i) == BT_FAULT && BT_REG(&v, X86_RSP) == STACK3 + 8,
	   "PUSHA over a page boundary: #PF, ESP unchanged");
}

int main(void)
{
	test_cr();
	test_dr();
	test_msr();
	test_cpuid();
	test_flags();
	test_bases();
	test_arith();
	test_stack();
	return done_testing();
}
