/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System instructions and registers: SYSCALL to SWAPGS, FSGSBASE, RDTSCP and RDPID, time-stamp counter, UMIP, XSAVE, #NM, #AC, #MF, #XM,
 * MSRs and their legal values, and CPUID against what works. SDM vol. 2 under these names; vol. 3, 2.5, 12.11, 17.17;
 * vol. 4, table 2-2.
 *
 * run:
 * run: --paravirt off
 */
#include "lib/bare.h"

#define NON_CANONICAL 0x800000000000ul
enum { EFER = 0xc0000080, STAR, LSTAR, CSTAR, FMASK, FS_BASE = 0xc0000100, GS_BASE, KERNEL_GS_BASE, TSC_AUX };
enum { TSC_ADJUST = 0x3b, SYSENTER_CS = 0x174, SYSENTER_ESP, SYSENTER_EIP, PAT = 0x277, MTRRCAP = 0xfe, MTRR_DEF = 0x2ff, TSC_DEADLINE = 0x6e0 };
static const uint64_t NONE = (uint64_t)-1;

static bool amd;

CODE(user_syscall, "syscall\n int $0x80");
CODE(to_kernel, "int $0x42"); /* records the state behind SYSCALL or SYSENTER */
CODE(user_end, "int $0x80");
CODE(user_sysenter, "sysenter\n int $0x80");
CODE(user_sysret, "sysretq");
CODE(user_rdtsc, "rdtsc\n int $0x80");
CODE(user_rdtscp, "rdtscp\n int $0x80");
CODE(user_umip, "sgdt -32(%rsp)\n int $0x80");
CODE(user_smsw, "smsw %eax\n int $0x80");
CODE(user_str, "str %eax\n int $0x80");
CODE(user_sldt, "sldt %eax\n int $0x80");
CODE(user_sidt, "sidt -32(%rsp)\n int $0x80");
CODE(user_wrfsbase, "wrfsbase %rdi\n rdfsbase %rax\n int $0x80");
CODE(user_swapgs, "swapgs\n int $0x80");
CODE(user_unaligned, "mov 1(%rdi), %eax\n int $0x80");
CODE(user_aligned, "mov (%rdi), %eax\n mov 1(%rdi), %cl\n int $0x80");
CODE(user_movups, "movups 1(%rdi), %xmm0\n int $0x80");
CODE(user_step_back, "nop\n nop\n int $0x80");

static int do_wrmsr(uint32_t n, uint64_t v)
{
	return TRY("wrmsr", (), ("a"((uint32_t)v), "d"((uint32_t)(v >> 32)), "c"(n)));
}

static int do_rdmsr(uint32_t n, uint64_t *v)
{
	uint32_t l = 0, h = 0;
	int e = TRY("rdmsr", ("=a"(l), "=d"(h)), ("c"(n), "0"(0), "1"(0)));

	*v = (uint64_t)h << 32 | l;
	return e;
}

static void sysret_to(void *arg)
{
	const word *a = arg;

	if (a[2])
		__asm__ volatile("mov %0, %%r11; sysretq" ::"r"(a[1]), "c"(a[0]) : "r11", "memory");
	else
		__asm__ volatile("mov %0, %%r11; sysretl" ::"r"(a[1]), "c"(a[0]) : "r11", "memory");
}

static int sysret(word ip, word flags, bool to64)
{
	word a[3] = { ip, flags, to64 };

	return attempt(sysret_to, a);
}

static void sysexit_to(void *arg)
{
	const word *a = arg;

	if (a[2])
		__asm__ volatile("rex.w sysexit" ::"d"(a[0]), "c"(a[1]) : "memory");
	else
		__asm__ volatile("sysexitl" ::"d"(a[0]), "c"(a[1]) : "memory");
}

static int sysexit(word ip, word sp, bool to64)
{
	word a[3] = { ip, sp, to64 };

	return attempt(sysexit_to, a);
}

static void syscalls(void)
{
	word sp = user_sp;
	int v;

	wrmsr(STAR, (uint64_t)SEL_KCODE << 32 | (uint64_t)SEL_UCODE32 << 48);
	wrmsr(LSTAR, (word)to_kernel);
	wrmsr(FMASK, 0x40600);
	user_flags = 2 | 0x40000 | 0x400 | 1 | 3 << 12;
	v = user_run(USER(user_syscall), 0, 0);
	ok(v == 0x42 && exc.cs == SEL_KCODE && exc.ss == SEL_KDATA, "SYSCALL: CS and SS from STAR");
	is(exc.regs.cx, USER(user_syscall) + 2, "RCX is the return address");
	is(exc.regs.r11, user_flags, "R11 is RFLAGS");
	is(exc.flags, 2 | 1 | 3 << 12, "RFLAGS without FMASK");
	is(exc.sp, sp, "RSP stays");
	user_flags = 2;
	wrmsr(EFER, rdmsr(EFER) & ~1ul);
	is((uint64_t)user_run(USER(user_syscall), 0, 0), UD, "SYSCALL without EFER.SCE: #UD");
	is((uint64_t)sysret(USER(user_end), 2, true), UD, "SYSRET without EFER.SCE: #UD");
	wrmsr(EFER, rdmsr(EFER) | 1);
	v = sysret(USER(user_end), 2 | 1 | 0x40000, true);
	ok(v == 0x80 && exc.cs == SEL_UCODE && exc.ss == SEL_UDATA, "SYSRETQ");
	is(exc.flags, 2 | 1 | 0x40000, "loads RFLAGS");
	sysret(USER(user_end), 0xffffffffffffffff & ~0x100ul, true);
	is(exc.flags & ~0x10000ul, 0x3c7fd7 & ~0x100ul, "SYSRETQ loads the flags of 3C7FD7H");
	v = sysret(0, 2, false);
	ok(v == PF && exc.cs == SEL_UCODE32 && exc.ip == 0, "SYSRETL goes to 32-bit code");
	v = sysret(NON_CANONICAL, 2, true);
	ok(v == GP && exc.cs == SEL_KCODE, "SYSRETQ to a non-canonical address: #GP at CPL 0");
	is((uint64_t)user_run(USER(user_sysret), 0, 0), GP, "SYSRET at CPL 3: #GP");
	v = sysret(USER(user_step_back), 2 | 0x100, true);
	ok(v == DB && exc.ip == USER(user_step_back), "SYSRET that sets TF traps before the next instruction");

	if (amd)
		return;
	wrmsr(SYSENTER_CS, 0);
	is((uint64_t)user_run(USER(user_sysenter), 0, 0), GP, "SYSENTER with a null CS: #GP");
	wrmsr(SYSENTER_CS, SEL_KCODE);
	wrmsr(SYSENTER_ESP, (word)page_alloc() + 2048);
	wrmsr(SYSENTER_EIP, (word)to_kernel);
	user_flags = 2 | 1 | 3 << 12 | 0x200;
	v = user_run(USER(user_sysenter), 0, 0);
	ok(v == 0x42 && exc.cs == SEL_KCODE && exc.ss == SEL_KDATA && exc.sp == rdmsr(SYSENTER_ESP), "SYSENTER");
	is(exc.flags, 2 | 1 | 3 << 12, "clears IF");
	user_flags = 2;
	v = sysexit(USER(user_end), user_sp, true);
	ok(v == 0x80 && exc.cs == SEL_UCODE && exc.ss == SEL_UDATA2 && exc.sp == user_sp, "SYSEXIT to 64-bit code");
	v = sysexit(0, 0x1000, false);
	ok(v == PF && exc.cs == SEL_UCODE32 && exc.sp == 0x1000, "SYSEXIT to 32-bit code");
	v = sysexit(NON_CANONICAL, 0, true);
	ok(v == GP && exc.cs == SEL_KCODE, "SYSEXIT to a non-canonical address: #GP");
	wrmsr(SYSENTER_CS, 3);
	is((uint64_t)sysexit(USER(user_end), 0, true), GP, "SYSEXIT with a null CS: #GP");
}

static void bases(void)
{
	word x, cr4 = read_cr4();

	is((uint64_t)TRY("wrfsbase %0", (), ("r"(0ul))), UD, "WRFSBASE without CR4.FSGSBASE: #UD");
	write_cr4(cr4 | 1 << 16);
	TRY("wrfsbase %1; rdfsbase %0", ("=r"(x)), ("r"(0x123456789abul)));
	is(x, 0x123456789ab, "WRFSBASE, RDFSBASE");
	is(rdmsr(FS_BASE), x, "the MSR is the same");
	TRY("wrgsbase %1; rdgsbase %0", ("=r"(x)), ("r"(0xffff800000000000ul)));
	is(x, 0xffff800000000000, "WRGSBASE, RDGSBASE");
	TRY("wrfsbase %k1; rdfsbase %0", ("=r"(x)), ("r"(0xffffffff12345678ul)));
	is(x, 0x12345678, "32-bit WRFSBASE extends with zeros");
	is((uint64_t)TRY("wrgsbase %0", (), ("r"(NON_CANONICAL))), GP, "a non-canonical base: #GP");
	static uint64_t there = 0x55;

	TRY("wrfsbase %1; mov %%fs:8, %0", ("=r"(x)), ("r"((word)&there - 8)));
	is(x, 0x55, "an access by FS");
	wrmsr(KERNEL_GS_BASE, 0x1111);
	wrmsr(GS_BASE, 0x2222);
	__asm__ volatile("swapgs");
	ok(rdmsr(GS_BASE) == 0x1111 && rdmsr(KERNEL_GS_BASE) == 0x2222, "SWAPGS");
	is((uint64_t)user_run(USER(user_swapgs), 0, 0), GP, "SWAPGS at CPL 3: #GP");
	is((uint64_t)user_run(USER(user_wrfsbase), 0x7777, 0), 0x80, "WRFSBASE at CPL 3");
	is(exc.regs.ax, 0x7777, "reads back");
	write_cr4(cr4);
	is((uint64_t)do_wrmsr(FS_BASE, NON_CANONICAL), GP, "WRMSR of a non-canonical FS base: #GP");
	wrmsr(FS_BASE, 0);
	wrmsr(GS_BASE, 0);
}

static void tsc(void)
{
	uint32_t a, d, c;
	word x;
	uint64_t t1, t2, was;

	wrmsr(TSC_AUX, 0x87654321);
	__asm__ volatile("rdtscp" : "=a"(a), "=d"(d), "=c"(c));
	is(c, 0x87654321, "RDTSCP gives TSC_AUX");
	if (cpuid(7, 0).c >> 22 & 1) {
		__asm__ volatile("rdpid %0" : "=r"(x));
		is(x, 0x87654321, "RDPID gives TSC_AUX");
	} else {
		is((uint64_t)TRY("rdpid %%rax", (), (), "rax"), UD, "RDPID is not offered: #UD");
	}
	is((uint64_t)do_wrmsr(TSC_AUX, 1ull << 32), GP, "upper half of TSC_AUX: #GP");
	write_cr4(read_cr4() | 4);
	is((uint64_t)user_run(USER(user_rdtsc), 0, 0), GP, "RDTSC at CPL 3 with CR4.TSD: #GP");
	is((uint64_t)user_run(USER(user_rdtscp), 0, 0), GP, "RDTSCP too");
	is((uint64_t)TRY("rdtsc", (), (), "rax", "rdx"), NONE, "at CPL 0 it works");
	write_cr4(read_cr4() & ~4ul);
	is((uint64_t)user_run(USER(user_rdtsc), 0, 0), 0x80, "without TSD it works");
	t1 = rdtsc();
	wrmsr(0x10, 0x1000);
	t2 = rdtsc();
	ok(t2 >= 0x1000 && t2 < 0x1000 + 1000000000, "WRMSR to the TSC sets it");
	was = rdmsr(TSC_ADJUST);
	ok((int64_t)was < 0, "and TSC_ADJUST by the difference (17.17.3)");
	wrmsr(TSC_ADJUST, was + 1000000000000);
	ok(rdtsc() > 1000000000000, "WRMSR to TSC_ADJUST moves the TSC");
	wrmsr(TSC_ADJUST, 0);
	ok(rdtsc() >= t1, "TSC_ADJUST 0: as before");
	/* Frequency as CPUID 15H says, against the PM timer */
	struct cpuid f = cpuid(0x15, 0);

	if (f.a && f.b && f.c) {
		uint64_t hz = (uint64_t)f.c * f.b / f.a, best = 100;

		for (unsigned n = 0; n < 5; n++) {
			uint64_t start = rdtsc(), p = pm_timer(), ticks, got;

			wait_us(20000);
			got = rdtsc() - start;
			ticks = (pm_timer() - p) & 0xffffff;
			uint64_t want = hz / 1000 * ticks / 3579, off = got > want ? got - want : want - got;

			off = off * 1000 / want;
			best = off < best ? off : best;
		}
		ok(best < 10, "TSC and PM timer agree with CPUID 15H within 1 %% (%llu per mille)", (unsigned long long)best);
	}
}

static void umip(void)
{
	word cr4 = read_cr4();

	is((uint64_t)user_run(USER(user_smsw), 0, 0), 0x80, "SMSW at CPL 3 without UMIP");
	write_cr4(cr4 | 1 << 11);
	ok(user_run(USER(user_umip), 0, 0) == GP && exc.error == 0, "UMIP: SGDT #GP");
	is((uint64_t)user_run(USER(user_sidt), 0, 0), GP, "SIDT");
	is((uint64_t)user_run(USER(user_sldt), 0, 0), GP, "SLDT");
	is((uint64_t)user_run(USER(user_str), 0, 0), GP, "STR");
	is((uint64_t)user_run(USER(user_smsw), 0, 0), GP, "SMSW");
	is((uint64_t)TRY("smsw %%eax", (), (), "rax"), NONE, "at CPL 0 they work");
	write_cr4(cr4);
}

static void alignment(void)
{
	word cr0 = read_cr0();
	static uint64_t data[8] __attribute__((aligned(64)));
	int v;

	write_cr0(cr0 | 1 << 18);
	user_flags = 2 | 0x40000;
	v = user_run(USER(user_unaligned), USER(data), 0);
	ok(v == AC && exc.error == 0, "#AC(0) at CPL 3 with CR0.AM and AC");
	is((uint64_t)user_run(USER(user_aligned), USER(data), 0), 0x80, "not when aligned");
	user_flags = 2;
	is((uint64_t)user_run(USER(user_unaligned), USER(data), 0), 0x80, "not without AC");
	write_flags(2 | 0x40000);
	is((uint64_t)TRY("mov 1(%0), %%eax", (), ("r"(data)), "rax"), NONE, "not at CPL 0");
	write_flags(2);
	write_cr0(cr0);
	user_flags = 2 | 0x40000;
	is((uint64_t)user_run(USER(user_unaligned), USER(data), 0), 0x80, "not without CR0.AM");
	user_flags = 2;
	is((uint64_t)TRY("movaps 1(%0), %%xmm0", (), ("r"(data))), GP, "MOVAPS unaligned: #GP");
}

static void fpu(void)
{
	word cr0 = read_cr0(), cr4 = read_cr4();
	static uint8_t area[4096] __attribute__((aligned(64)));
	struct cpuid d0 = cpuid(0xd, 0), d1 = cpuid(0xd, 1);
	uint32_t a, d;
	word x;

	write_cr0(cr0 | 8);
	is((uint64_t)TRY0("fninit"), NM, "CR0.TS: x87 is #NM");
	is((uint64_t)TRY0("movaps %%xmm0, %%xmm1"), NM, "SSE too");
	is((uint64_t)TRY0("fwait"), NM, "WAIT with TS and MP");
	write_cr0((cr0 | 8) & ~2ul);
	is((uint64_t)TRY0("fwait"), NONE, "WAIT with TS without MP");
	is((uint64_t)TRY0("clts; movaps %%xmm0, %%xmm1"), NONE, "CLTS");
	is(read_cr0() & 8, 0, "clears TS");
	write_cr0((cr0 | 4) & ~2ul);
	is((uint64_t)TRY0("fninit"), NM, "CR0.EM: x87 is #NM");
	is((uint64_t)TRY0("movaps %%xmm0, %%xmm1"), UD, "SSE is #UD");
	write_cr0(cr0);
	write_cr4(cr4 & ~0x200ul);
	is((uint64_t)TRY0("movaps %%xmm0, %%xmm1"), UD, "without CR4.OSFXSR SSE is #UD");
	write_cr4(cr4);
	/* Exceptions of the units */
	uint16_t cw = 0x37b; /* division by zero unmasked */
	uint32_t mx = 0x1f80 & ~0x200u, mx_was = 0x1f80;

	is((uint64_t)TRY("fninit; fldcw %0; fld1; fldz; fdivrp; nop", (), ("m"(cw))), NONE, "x87: the exception waits");
	is((uint64_t)TRY0("fwait"), MF, "for the next instruction: #MF");
	__asm__ volatile("fnclex; fninit");
	is((uint64_t)TRY("ldmxcsr %0; xorps %%xmm1, %%xmm1; mov $0x3f800000, %%eax; movd %%eax, %%xmm0; divss %%xmm1, %%xmm0", (), ("m"(mx)), "rax"), XM,
	   "SSE: #XM");
	write_cr4(cr4 & ~0x400ul);
	is((uint64_t)TRY("ldmxcsr %0; mov $0x3f800000, %%eax; movd %%eax, %%xmm0; divss %%xmm1, %%xmm0", (), ("m"(mx)), "rax"), UD,
	   "without OSXMMEXCPT: #UD");
	write_cr4(cr4);
	mx = 0x10000;
	is((uint64_t)TRY("ldmxcsr %0", (), ("m"(mx))), GP, "reserved bits of MXCSR: #GP");
	__asm__ volatile("ldmxcsr %0" ::"m"(mx_was));

	if (!(cpuid(1, 0).c >> 26 & 1))
		return;
	is(cpuid(1, 0).c >> 27 & 1, 0, "OSXSAVE follows CR4: clear");
	is((uint64_t)TRY("xgetbv", (), ("c"(0)), "rax", "rdx"), UD, "XGETBV without CR4.OSXSAVE: #UD");
	is((uint64_t)TRY("xsave (%0)", (), ("r"(area), "a"(7), "d"(0))), UD, "XSAVE: #UD");
	write_cr4(cr4 | 1 << 18);
	is(cpuid(1, 0).c >> 27 & 1, 1, "set");
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	is(a, 1, "XCR0 starts as 1");
	is(cpuid(0xd, 0).b, 576, "CPUID 0DH EBX for XCR0");
	is((uint64_t)TRY("xsetbv", (), ("c"(0), "a"(2), "d"(0))), GP, "XSETBV without x87: #GP");
	is((uint64_t)TRY("xsetbv", (), ("c"(0), "a"(5), "d"(0))), GP, "AVX without SSE: #GP");
	is((uint64_t)TRY("xsetbv", (), ("c"(0), "a"(~d0.a), "d"(0))), GP, "unsupported bits: #GP");
	is((uint64_t)TRY("xsetbv", (), ("c"(1), "a"(1), "d"(0))), GP, "XCR1: #GP");
	is((uint64_t)TRY("xsetbv", (), ("c"(0), "a"(1 | 0x20), "d"(0))), GP, "a part of AVX-512: #GP");
	is((uint64_t)TRY("xsetbv", (), ("c"(0), "a"(d0.a), "d"(d0.d))), NONE, "all supported bits (0x%x)", d0.a);
	is(cpuid(0xd, 0).b, d0.c, "EBX is now ECX");
	memset(area, 0, sizeof(area));
	x = 0x1122334455667788;
	__asm__ volatile("movq %0, %%xmm3; xsave (%1); pxor %%xmm3, %%xmm3; xrstor (%1); movq %%xmm3, %0" : "+r"(x) : "r"(area), "a"(-1), "d"(-1) : "memory");
	is(x, 0x1122334455667788, "XSAVE, XRSTOR");
	ok((area[512] & 3) == 3 || (area[512] & 2), "XSTATE_BV (0x%x)", area[512]);
	area[512] &= ~2;
	__asm__ volatile("xrstor (%1); movq %%xmm3, %0" : "=r"(x) : "r"(area), "a"(-1), "d"(-1) : "memory");
	is(x, 0, "a component not in XSTATE_BV is initialized");
	area[513 + 6] = 0x80;
	is((uint64_t)TRY("xrstor (%0)", (), ("r"(area), "a"(-1), "d"(-1))), GP, "reserved XSTATE_BV bits: #GP");
	area[513 + 6] = 0;
	is((uint64_t)TRY("xsave 8(%0)", (), ("r"(area), "a"(-1), "d"(-1))), GP, "XSAVE unaligned: #GP");
	if (d1.a & 2) {
		memset(area, 0, sizeof(area));
		x = 77;
		__asm__ volatile("movq %0, %%xmm3; xsavec (%1); pxor %%xmm3, %%xmm3; xrstor (%1); movq %%xmm3, %0" : "+r"(x) : "r"(area), "a"(-1), "d"(-1) : "memory");
		ok(x == 77 && area[527] == 0x80, "XSAVEC, XRSTOR of the compacted form");
	}
	if (d1.a & 1) {
		x = 78;
		__asm__ volatile("movq %0, %%xmm3; xsaveopt (%1); pxor %%xmm3, %%xmm3" : "+r"(x) : "r"(area), "a"(-1), "d"(-1) : "memory");
		is(*(uint64_t *)(area + 160 + 48), 78, "XSAVEOPT");
	}
	is((uint64_t)TRY("xsaves (%0)", (), ("r"(area), "a"(-1), "d"(-1))), d1.a & 8 ? NONE : UD, "XSAVES as CPUID says");
	if (d0.a & 4) {
		is((uint64_t)TRY0("vpxor %%xmm0, %%xmm0, %%xmm0"), NONE, "AVX runs");
		__asm__ volatile("xsetbv" ::"c"(0), "a"(3), "d"(0));
		is((uint64_t)TRY0("vpxor %%xmm0, %%xmm0, %%xmm0"), UD, "without XCR0.AVX: #UD");
	}
	if ((d0.a & 0xe0) == 0xe0) {
		__asm__ volatile("xsetbv" ::"c"(0), "a"(7), "d"(0));
		is((uint64_t)TRY0("vpxord %%zmm0, %%zmm0, %%zmm0"), UD, "without XCR0's AVX-512 bits: #UD");
	}
	__asm__ volatile("xsetbv" ::"c"(0), "a"(1), "d"(0));
	write_cr4(cr4);
}

static void msrs(void)
{
	static const struct { uint32_t n; uint64_t v; bool good; } writes[] = {
		{ EFER, 0x501, true }, { EFER, 0xd01 | 1 << 1, false }, { EFER, 0x1000, false }, { LSTAR, NON_CANONICAL, false },
		{ CSTAR, NON_CANONICAL, false }, { SYSENTER_ESP, NON_CANONICAL, false }, { SYSENTER_EIP, NON_CANONICAL, false },
		{ PAT, 0x0007040600070406, true }, { PAT, 0x0007040600070402, false }, { PAT, 0x0807040600070406, false },
		{ MTRRCAP, 0, false }, { MTRR_DEF, 0xc06, true }, { MTRR_DEF, 0xc02, false }, { MTRR_DEF, 0x10c06, false },
		{ 0x200, 0x6, true }, { 0x200, 0x2, false }, { 0x201, 0x800, true }, { 0x201, 0x400, false }, { 0x250, 0x0606060606060606, true },
		{ 0x250, 0x0606060606060602, false }, { 0x20f, 0, true }, { 0x210, 0, false }, { 0x8b, 0, true }, { 0x12345678, 0, false },
		{ 0x1b, 0xfee00901, false }, { KERNEL_GS_BASE, NON_CANONICAL, false }, { 0xc0000104, 0, false }, { 0x40000000, 0, false },
	};
	uint64_t v;

	for (unsigned n = 0; n < sizeof(writes) / sizeof(writes[0]); n++) {
		uint64_t was = 0;

		do_rdmsr(writes[n].n, &was);
		is((uint64_t)do_wrmsr(writes[n].n, writes[n].v), writes[n].good ? NONE : GP, "WRMSR 0x%x of 0x%llx: %s", writes[n].n,
		   (unsigned long long)writes[n].v, writes[n].good ? "fine" : "#GP");
		if (writes[n].good && writes[n].n != 0x8b) {
			do_rdmsr(writes[n].n, &v);
			is(v, writes[n].v, "reads back");
			do_wrmsr(writes[n].n, was);
		}
	}
	is((uint64_t)do_wrmsr(EFER, rdmsr(EFER) & ~0x100ul), GP, "EFER.LME cannot change with paging on: #GP");
	is((uint64_t)do_rdmsr(0x12345678, &v), GP, "RDMSR of none: #GP");
	is(rdmsr(MTRRCAP) & 0xff, 8, "eight variable MTRRs");
	is((uint64_t)TRY("mov %0, %%cr0", (), ("r"(1ul << 32 | read_cr0()))), GP, "reserved bits of CR0: #GP");
	is((uint64_t)TRY("mov %0, %%cr0", (), ("r"((read_cr0() | 1 << 29) & ~(1ul << 30)))), GP, "NW without CD: #GP");
	is((uint64_t)TRY("mov %0, %%cr0", (), ("r"(read_cr0() & ~1ul))), GP, "PG without PE: #GP");
	is((uint64_t)TRY("mov %0, %%cr4", (), ("r"(read_cr4() | 1ul << 40))), GP, "reserved bits of CR4: #GP");
	is((uint64_t)TRY("mov %0, %%cr4", (), ("r"(read_cr4() | 1ul << 13))), GP, "CR4.VMXE: #GP, there is no VMX");
	is((uint64_t)TRY("mov %0, %%cr8", (), ("r"(16ul))), GP, "CR8 above 15: #GP");
	is((uint64_t)TRY("mov $5, %%eax; mov %%rax, %%cr8", (), (), "rax"), NONE, "CR8");
	is(apic_read(APIC_TPR), 0x50, "is TPR[7:4]");
	__asm__ volatile("mov %0, %%cr8" ::"r"(0ul));
	is((uint64_t)TRY("lmsw %w0", (), ("r"(0x30))), NONE, "LMSW");
	is(read_cr0() & 1, 1, "does not clear PE");
}

/* Features: with CPUID's bit the instruction runs; without it is #UD. */
static void features(void)
{
	struct cpuid one = cpuid(1, 0), seven = cpuid(7, 0), ext = cpuid(0x80000001, 0);
	word cr4 = read_cr4(), x = 0;
	static uint8_t area[128] __attribute__((aligned(64)));

	write_cr4(cr4 | 1 << 18 | 1 << 16);
	__asm__ volatile("xsetbv" ::"c"(0), "a"(cpuid(0xd, 0).a), "d"(0));
#define FEATURE(bit, name, insn) is((uint64_t)TRY(insn, ("+a"(x)), ("D"(area)), "rcx", "rdx", "rbx"), (bit) & 1 ? NONE : UD, \
				    "%s: %s", name, (bit) & 1 ? "works" : "#UD")
	FEATURE(one.c >> 0, "SSE3", "haddps %%xmm0, %%xmm1");
	FEATURE(one.c >> 1, "PCLMULQDQ", "pclmulqdq $0, %%xmm0, %%xmm1");
	FEATURE(one.c >> 9, "SSSE3", "pshufb %%xmm0, %%xmm1");
	FEATURE(one.c >> 12, "FMA", "vfmadd132ps %%xmm0, %%xmm1, %%xmm2");
	FEATURE(one.c >> 13, "CMPXCHG16B", "cmpxchg16b (%%rdi)");
	FEATURE(one.c >> 19, "SSE4.1", "pmulld %%xmm0, %%xmm1");
	FEATURE(one.c >> 20, "SSE4.2", "crc32b %%cl, %%eax");
	FEATURE(one.c >> 22, "MOVBE", "movbe (%%rdi), %%eax");
	FEATURE(one.c >> 23, "POPCNT", "popcnt %%ecx, %%eax");
	FEATURE(one.c >> 25, "AES", "aesenc %%xmm0, %%xmm1");
	FEATURE(one.c >> 28, "AVX", "vaddps %%ymm0, %%ymm1, %%ymm2");
	FEATURE(one.c >> 29, "F16C", "vcvtph2ps %%xmm0, %%xmm1");
	FEATURE(one.c >> 30, "RDRAND", "rdrand %%eax");
	FEATURE(one.c >> 3, "MONITOR", "mov %%rdi, %%rax; xor %%ecx, %%ecx; xor %%edx, %%edx; monitor");
	FEATURE(seven.b >> 3, "BMI1", "andn %%ecx, %%edx, %%eax");
	FEATURE(seven.b >> 5, "AVX2", "vpaddd %%ymm0, %%ymm1, %%ymm2");
	FEATURE(seven.b >> 8, "BMI2", "pdep %%ecx, %%edx, %%eax");
	FEATURE(seven.b >> 18, "RDSEED", "rdseed %%eax");
	FEATURE(seven.b >> 19, "ADX", "adcx %%ecx, %%eax");
	FEATURE(seven.b >> 20, "SMAP", "clac");
	FEATURE(seven.b >> 23, "CLFLUSHOPT", "clflushopt (%%rdi)");
	FEATURE(seven.b >> 29, "SHA", "sha1msg1 %%xmm0, %%xmm1");
	FEATURE(seven.b >> 16, "AVX512F", "vpaddd %%zmm0, %%zmm1, %%zmm2");
	FEATURE(seven.b >> 17, "AVX512DQ", "vpmullq %%zmm0, %%zmm1, %%zmm2");
	FEATURE(seven.b >> 30, "AVX512BW", "vpaddb %%zmm0, %%zmm1, %%zmm2");
	FEATURE(seven.b >> 28, "AVX512CD", "vplzcntd %%zmm0, %%zmm1");
	FEATURE(seven.b >> 21, "AVX512IFMA", "vpmadd52luq %%zmm0, %%zmm1, %%zmm2");
	FEATURE(seven.c >> 1, "AVX512VBMI", "vpermb %%zmm0, %%zmm1, %%zmm2");
	FEATURE(seven.c >> 11, "AVX512VNNI", "vpdpbusd %%zmm0, %%zmm1, %%zmm2");
	FEATURE(seven.c >> 8, "GFNI", "gf2p8mulb %%xmm0, %%xmm1");
	FEATURE(seven.c >> 4, "RDPKRU", "xor %%ecx, %%ecx; .byte 0x0f, 0x01, 0xee");
	FEATURE(seven.b >> 11, "RTM (XBEGIN)", "xbegin 1f; 1: xabort $0");
	FEATURE(0, "XTEST", "xtest");
	FEATURE(cpuid(0x40000000, 0).b == 0x4b4d564b, "VMCALL", "vmcall"); /* "KVMK" */
	FEATURE(0, "WAITPKG", "umonitor %%rax");
	FEATURE(0, "ENCLU", ".byte 0x0f, 0x01, 0xd7");
	FEATURE(0, "INCSSP", ".byte 0xf3, 0x48, 0x0f, 0xae, 0xe8");
	FEATURE(ext.c >> 0, "LAHF", "lahf");
	FEATURE(ext.d >> 27, "RDTSCP", "rdtscp");
	__asm__ volatile("xsetbv" ::"c"(0), "a"(1), "d"(0));
	write_cr4(cr4);
	ok((cpuid(1, 0).c >> 31) & 1, "the hypervisor bit is set");
	is(one.c >> 5 & 1, 0, "no VMX");
	is(ext.c >> 2 & 1, 0, "no SVM");
	is((uint64_t)TRY("mov $0x80, %%ecx; rdpmc", (), (), "rax", "rcx", "rdx"), GP, "RDPMC without counters: #GP");
}

void main(void)
{
	struct cpuid zero = cpuid(0, 0);

	amd = zero.b == 0x68747541 || zero.b == 0x6f677948;
	syscalls();
	bases();
	tsc();
	umip();
	alignment();
	fpu();
	msrs();
	features();
}
