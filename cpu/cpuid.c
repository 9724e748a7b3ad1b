/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's CPUID from the host's: SDM vol. 2, "CPUID"; AMD APM vol. 3, appendix E for the
 * 0x8000001x leaves.
 *
 * Theory of operation. Each register of a feature leaf is (host & PASS) | FORCE: PASS are features
 * that run on the host's own units and that the decoder knows, FORCE those that the engine makes
 * itself. All else is hidden, among it VMX, SVM, SGX, TSX, MPX, protection keys, CET, AMX, XSAVES
 * and performance counters.
 */
#include "cpu/cpuid.h"

#include <assert.h>
#include <cpuid.h>
#include <stddef.h>

#include "cpu/bt/decode.h"

#define BIT(n) (1u << (n))

/* Leaf 1 */
#define L1_ECX_PASS                                                                             \
	(BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(13) | BIT(19) | BIT(20) | BIT(22) | BIT(23) | \
	 BIT(25) | BIT(26) | BIT(28) | BIT(29) | BIT(30))
#define L1_ECX_FORCE \
	(BIT(17) | BIT(21) | BIT(24) | BIT(31)) /* PCID, x2APIC, TSC deadline, hypervisor */
/* FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2 */
#define L1_EDX_FORCE                                                                               \
	(BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) |          \
	 BIT(11) | BIT(12) | BIT(13) | BIT(14) | BIT(15) | BIT(16) | BIT(17) | BIT(19) | BIT(23) | \
	 BIT(24) | BIT(25) | BIT(26))
#define L1_ECX_AVX (BIT(12) | BIT(28) | BIT(29)) /* FMA, AVX, F16C */
#define L1_ECX_XSAVE BIT(26)
/* Leaf 7 */
#define L7_EBX_AVX BIT(5)
#define L7_EBX_AVX512 (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
#define L7_EBX_PASS                                                                             \
	(BIT(3) | L7_EBX_AVX | BIT(8) | L7_EBX_AVX512 | BIT(18) | BIT(19) | BIT(23) | BIT(24) | \
	 BIT(29))
/* FSGSBASE, TSC_ADJUST, SMEP, ERMS, INVPCID, FCS and FDS deprecated, SMAP */
#define L7_EBX_FORCE (BIT(0) | BIT(1) | BIT(7) | BIT(9) | BIT(10) | BIT(13) | BIT(20))
#define L7_ECX_AVX (BIT(9) | BIT(10)) /* VAES, VPCLMULQDQ */
#define L7_ECX_AVX512 (BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14))
#define L7_ECX_PASS (BIT(8) | L7_ECX_AVX | L7_ECX_AVX512 | BIT(22))
#define L7_ECX_FORCE BIT(2)			  /* UMIP */
/* BHI_DIS_S: with it a guest does not clear the branch history by a loop at every system call. */
#define L72_EDX_FORCE BIT(4)
#define L7_EDX_FORCE (BIT(4) | BIT(26) | BIT(29)) /* FSRM, IBRS and IBPB, IA32_ARCH_CAPABILITIES */
/* Leaf 0x80000001 */
#define E1_ECX_PASS (BIT(5) | BIT(8)) /* LZCNT, PREFETCHW */
#define E1_ECX_FORCE BIT(0)	      /* LAHF */
/* SYSCALL, NX, 1 GiB pages, RDTSCP, long mode */
#define E1_EDX_FORCE (BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29))
#define E1_EDX_AMD_MIRROR 0x0183f3ffu /* bits that AMD repeats from leaf 1 */
#define E1_ECX_AMD_TOPOEXT BIT(22)

#define XCR0_OFFERED ((uint64_t)(X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512))

static struct cpuid_result host(uint32_t leaf, uint32_t subleaf)
{
	struct cpuid_result r = { 0 };

	if ((uint32_t)__get_cpuid_max(leaf & 0x80000000, NULL) >= leaf)
		__cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
	return r;
}

/* @subleaf < 0: the same for all. */
static void add(struct cpuid_model *m, uint32_t leaf, int subleaf, struct cpuid_result r)
{
	assert(m->count < CPUID_ENTRIES);
	m->entry[m->count++] = (struct cpuid_entry){
		.leaf = leaf,
		.subleaf = subleaf < 0 ? 0 : (uint32_t)subleaf,
		.by_subleaf = subleaf >= 0,
		.result = r,
	};
}

static unsigned bits_for(unsigned count)
{
	unsigned bits = 0;

	while ((1u << bits) < count)
		bits++;
	return bits;
}

/* What the host's operating system lets us keep in registers. */
static uint64_t host_xcr0(void)
{
	uint32_t low, high;

	if (!(host(1, 0).ecx & BIT(27)))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

static void add_features(struct cpuid_model *m)
{
	struct cpuid_result one = host(1, 0), seven = host(7, 0), r = { 0 };

	r.eax = one.eax;
	r.ebx = 8 << 8 | (1u << bits_for(m->vcpus))
				 << 16; /* CLFLUSH line; APIC ids; the engine adds the vCPU's own */
	r.ecx = (one.ecx & L1_ECX_PASS) | L1_ECX_FORCE;
	r.edx = L1_EDX_FORCE | (m->vcpus > 1 ? BIT(28) : 0);
	if (!m->xcr0)
		r.ecx &= ~L1_ECX_XSAVE;
	if (!(m->xcr0 & X86_XCR0_AVX))
		r.ecx &= ~L1_ECX_AVX;
	add(m, 1, -1, r);

	r = (struct cpuid_result){
		.eax = 2, /* the last subleaf */
		.ebx = (seven.ebx & L7_EBX_PASS) | L7_EBX_FORCE,
		.ecx = (seven.ecx & L7_ECX_PASS) | L7_ECX_FORCE,
		.edx = L7_EDX_FORCE,
	};
	if (!(m->xcr0 & X86_XCR0_AVX)) {
		r.ebx &= ~L7_EBX_AVX;
		r.ecx &= ~L7_ECX_AVX;
	}
	if (!(m->xcr0 & X86_XCR0_AVX512) || !(seven.ebx & BIT(16))) {
		r.ebx &= ~L7_EBX_AVX512;
		r.ecx &= ~L7_ECX_AVX512;
	}
	add(m, 7, 0, r);
	add(m, 7, 2, (struct cpuid_result){.edx = L72_EDX_FORCE});
}

/* Leaf 4 (Intel) and 0x8000001d (AMD): the host's caches; the last level is shared by all vCPUs. */
static void add_caches(struct cpuid_model *m, uint32_t leaf)
{
	for (int sub = 0; sub < 4; sub++) {
		struct cpuid_result r = host(leaf, (uint32_t)sub);
		unsigned level = r.eax >> 5 & 7, sharing = level >= 3 ? m->vcpus - 1 : 0;

		if (!(r.eax & 31))
			break;
		r.eax = (r.eax & 0x3fff) | (sharing & 0xfff) << 14;
		if (leaf == 4)
			r.eax |= (((1u << bits_for(m->vcpus)) - 1) & 63) << 26;
		add(m, leaf, sub, r);
	}
}

static void add_topology(struct cpuid_model *m)
{
	add(m, 0xb, 0, (struct cpuid_result){ .eax = 0, .ebx = 1, .ecx = 1 << 8 });
	add(m, 0xb, 1,
	    (struct cpuid_result){ .eax = bits_for(m->vcpus), .ebx = m->vcpus, .ecx = 2 << 8 | 1 });
}

static void add_xsave(struct cpuid_model *m)
{
	struct cpuid_result one = host(0xd, 1);

	if (!m->xcr0)
		return;
	for (uint32_t n = 2; n < CPUID_XSAVE_COMPONENTS; n++) {
		struct cpuid_result r = host(0xd, n);

		if (!(m->xcr0 >> n & 1))
			continue;
		m->xsave[n].offset = r.ebx;
		m->xsave[n].size = r.eax;
		m->xsave[n].aligned = r.ecx & 2;
		add(m, 0xd, (int)n,
		    (struct cpuid_result){ .eax = r.eax, .ebx = r.ebx, .ecx = r.ecx & 2 });
	}
	add(m, 0xd, 0,
	    (struct cpuid_result){
		    .eax = (uint32_t)m->xcr0,
		    .ecx = cpuid_xsave_size(m, m->xcr0, false),
		    .edx = (uint32_t)(m->xcr0 >> 32),
	    });
	add(m, 0xd, 1,
	    (struct cpuid_result){ .eax = one.eax &
					  7 }); /* XSAVEOPT, XSAVEC, XGETBV with ECX = 1 */
}

/*
 * Leaf 0x15: TSC = crystal * numerator / denominator. The crystal is also what software takes for
 * the clock of the local APIC's timer, which ticks at 1 GHz; guests multiply crystal kHz by the
 * numerator in 32 bits. So: the best fraction with numerator up to 4294, by continued fractions;
 * its error is below a millionth.
 */
void cpuid_model_set_tsc(struct cpuid_model *m, uint64_t tsc_hz)
{
	uint64_t a = tsc_hz, b = 1000000000, p0 = 0, q0 = 1, p1 = 1, q1 = 0;

	while (b) {
		uint64_t whole = a / b, rest = a % b, p = whole * p1 + p0, q = whole * q1 + q0;

		if (p > 4294)
			break;
		p0 = p1, q0 = q1, p1 = p, q1 = q;
		a = b, b = rest;
	}
	if (m->amd || !q1) /* AMD has no such leaves */
		return;
	add(m, 0x15, -1,
	    (struct cpuid_result){ .eax = (uint32_t)q1, .ebx = (uint32_t)p1, .ecx = 1000000000 });
	add(m, 0x16, -1,
	    (struct cpuid_result){
		    .eax = (uint32_t)(tsc_hz / 1000000),
		    .ebx = (uint32_t)(tsc_hz / 1000000),
		    .ecx = 100,
	    });
}

static void add_extended(struct cpuid_model *m)
{
	struct cpuid_result h = host(0x80000001, 0), r = { 0 };
	unsigned phys_bits = host(0x80000008, 0).eax & 0xff;

	r.ecx = (h.ecx & E1_ECX_PASS) | E1_ECX_FORCE;
	r.edx = E1_EDX_FORCE;
	if (m->amd) {
		r.eax = h.eax;
		r.ebx = h.ebx;
		r.edx |= L1_EDX_FORCE & E1_EDX_AMD_MIRROR;
		r.ecx |= m->max_extended >= 0x8000001e ? E1_ECX_AMD_TOPOEXT : 0;
	}
	add(m, 0x80000001, -1, r);
	for (uint32_t leaf = 0x80000002; leaf <= 0x80000006; leaf++)
		add(m, leaf, -1, host(leaf, 0));
	add(m, 0x80000007, -1, (struct cpuid_result){ .edx = BIT(8) }); /* invariant TSC */
	m->phys_bits = phys_bits < 36 ? 36 : phys_bits > 46 ? 46 : (uint8_t)phys_bits;
	r = (struct cpuid_result){ .eax = 48u << 8 | m->phys_bits };
	if (m->amd)
		r.ecx = bits_for(m->vcpus) << 12 | (m->vcpus - 1);
	add(m, 0x80000008, -1, r);
	if (!m->amd)
		return;
	add_caches(m, 0x8000001d);
	add(m, 0x8000001e, -1, (struct cpuid_result){ 0 }); /* one thread a core, one node */
	/* LFENCE serializes, null selectors clear the base, no SRSO; no TSA. */
	add(m, 0x80000021, -1,
	    (struct cpuid_result){ .eax = BIT(2) | BIT(6) | BIT(29), .ecx = BIT(1) | BIT(2) });
}

void cpuid_model_init(struct cpuid_model *m, unsigned vcpus)
{
	struct cpuid_result zero = host(0, 0);
	uint64_t xcr0 = host_xcr0() & XCR0_OFFERED;

	*m = (struct cpuid_model){ .vcpus = vcpus ? vcpus : 1, .has_spec_ctrl = true };
	m->amd = zero.ebx == 0x68747541 ||
		 zero.ebx == 0x6f677948; /* "Auth"enticAMD, "Hygo"nGenuine */
	if ((xcr0 & X86_XCR0_AVX512) != X86_XCR0_AVX512)
		xcr0 &= ~(uint64_t)X86_XCR0_AVX512;
	m->xcr0 = xcr0;
	m->max_basic = m->amd ? 0xd : 0x16;
	m->max_extended = 0x80000008;
	if (m->amd && (uint32_t)__get_cpuid_max(0x80000000, NULL) >= 0x8000001e)
		m->max_extended = 0x80000021;

	zero.eax = m->max_basic;
	add(m, 0, -1, zero);
	add_features(m);
	if (!m->amd) {
		add(m, 2, -1, host(2, 0));
		add_caches(m, 4);
	}
	add(m, 6, -1, (struct cpuid_result){ .eax = BIT(2) }); /* the APIC timer always runs */
	add_topology(m);
	add_xsave(m);
	add(m, 0x40000000, -1,
	    (struct cpuid_result){
		    .eax = 0x40000000, .ebx = 0x7572616d, .ecx = 0x7572616d, .edx = 0x7572616d });
	zero.eax = m->max_extended;
	if (!m->amd)
		zero.ebx = zero.ecx = zero.edx = 0;
	add(m, 0x80000000, -1, zero);
	add_extended(m);
}

/* The last leaf has the frequencies of the TSC and of the local APIC's timer in kHz, as other hypervisors give them. */
void cpuid_add_paravirt(struct cpuid_model *m, uint32_t features, uint64_t tsc_hz)
{
	for (unsigned n = 0; n < m->count; n++)
		if (m->entry[n].leaf == 0x40000000) /* "KVMKVMKVM" */
			m->entry[n].result = (struct cpuid_result){
				.eax = 0x40000010, .ebx = 0x4b4d564b, .ecx = 0x564b4d56, .edx = 0x4d };
	add(m, 0x40000001, -1, (struct cpuid_result){ .eax = features });
	add(m, 0x40000010, -1, (struct cpuid_result){ .eax = (uint32_t)(tsc_hz / 1000), .ebx = 1000000 });
}

/* What the decoder calls the bits above. */
void cpuid_decode_features(const struct cpuid_model *m, struct decode_features *out)
{
	enum { ONE_C, SEVEN_B, SEVEN_C, EXT_C, EXT_D, XSAVE_A };
	static const struct {
		uint8_t feature, word, bit;
	} map[] = {
		{ DECODE_SSE3, ONE_C, 0 },
		{ DECODE_PCLMUL, ONE_C, 1 },
		{ DECODE_SSSE3, ONE_C, 9 },
		{ DECODE_FMA, ONE_C, 12 },
		{ DECODE_CX16, ONE_C, 13 },
		{ DECODE_SSE4_1, ONE_C, 19 },
		{ DECODE_SSE4_2, ONE_C, 20 },
		{ DECODE_MOVBE, ONE_C, 22 },
		{ DECODE_POPCNT, ONE_C, 23 },
		{ DECODE_AES, ONE_C, 25 },
		{ DECODE_XSAVE, ONE_C, 26 },
		{ DECODE_AVX, ONE_C, 28 },
		{ DECODE_F16C, ONE_C, 29 },
		{ DECODE_RDRAND, ONE_C, 30 },
		{ DECODE_FSGSBASE, SEVEN_B, 0 },
		{ DECODE_BMI1, SEVEN_B, 3 },
		{ DECODE_AVX2, SEVEN_B, 5 },
		{ DECODE_BMI2, SEVEN_B, 8 },
		{ DECODE_INVPCID, SEVEN_B, 10 },
		{ DECODE_AVX512F, SEVEN_B, 16 },
		{ DECODE_AVX512DQ, SEVEN_B, 17 },
		{ DECODE_RDSEED, SEVEN_B, 18 },
		{ DECODE_ADX, SEVEN_B, 19 },
		{ DECODE_SMAP, SEVEN_B, 20 },
		{ DECODE_AVX512_IFMA, SEVEN_B, 21 },
		{ DECODE_CLFLUSHOPT, SEVEN_B, 23 },
		{ DECODE_CLWB, SEVEN_B, 24 },
		{ DECODE_AVX512CD, SEVEN_B, 28 },
		{ DECODE_SHA, SEVEN_B, 29 },
		{ DECODE_AVX512BW, SEVEN_B, 30 },
		{ DECODE_AVX512VL, SEVEN_B, 31 },
		{ DECODE_AVX512_VBMI, SEVEN_C, 1 },
		{ DECODE_AVX512_VBMI2, SEVEN_C, 6 },
		{ DECODE_GFNI, SEVEN_C, 8 },
		{ DECODE_VAES, SEVEN_C, 9 },
		{ DECODE_VPCLMUL, SEVEN_C, 10 },
		{ DECODE_AVX512_VNNI, SEVEN_C, 11 },
		{ DECODE_AVX512_BITALG, SEVEN_C, 12 },
		{ DECODE_AVX512_VPOPCNTDQ, SEVEN_C, 14 },
		{ DECODE_RDPID, SEVEN_C, 22 },
		{ DECODE_LZCNT, EXT_C, 5 },
		{ DECODE_PREFETCHW, EXT_C, 8 },
		{ DECODE_RDTSCP, EXT_D, 27 },
		{ DECODE_XSAVEOPT, XSAVE_A, 0 },
		{ DECODE_XSAVEC, XSAVE_A, 1 },
	};
	struct cpuid_result seven = cpuid_guest(m, 7, 0), ext = cpuid_guest(m, 0x80000001, 0);
	const uint32_t words[] = {
		[ONE_C] = cpuid_guest(m, 1, 0).ecx,
		[SEVEN_B] = seven.ebx,
		[SEVEN_C] = seven.ecx,
		[EXT_C] = ext.ecx,
		[EXT_D] = ext.edx,
		[XSAVE_A] = cpuid_guest(m, 0xd, 1).eax,
	};

	out->bits = 1ull << DECODE_BASE;
	for (size_t n = 0; n < sizeof(map) / sizeof(map[0]); n++)
		if (words[map[n].word] >> map[n].bit & 1)
			out->bits |= 1ull << map[n].feature;
}
