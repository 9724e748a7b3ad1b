// SPDX-License-Identifier: Apache-2.0
/*
 * CPU features that somebody asks for, held against the CPUID that the guest will see: SDM vol. 2, "CPUID". The host's own CPUID tells
 * whether it is the host that lacks one, or the engine that does not pass it on.
 */
#include "cpu/features.h"

#include <cpuid.h>
#include <string.h>

#include "base/util.h"

enum word { ONE_C, ONE_D, SEVEN_B, SEVEN_C, SEVEN_D, EXTENDED_C, EXTENDED_D, XSAVE_A, WORDS };

static const struct {
	uint32_t leaf, subleaf;
	uint8_t reg; /* EAX to EDX: 0 to 3 */
} words[WORDS] = {
	[ONE_C] = { 1, 0, 2 },	  [ONE_D] = { 1, 0, 3 },	       [SEVEN_B] = { 7, 0, 1 },		    [SEVEN_C] = { 7, 0, 2 },
	[SEVEN_D] = { 7, 0, 3 },  [EXTENDED_C] = { 0x80000001, 0, 2 }, [EXTENDED_D] = { 0x80000001, 0, 3 }, [XSAVE_A] = { 0xd, 1, 0 },
};

static const struct feature {
	const char *name;
	uint8_t word, bit;
} features[] = {
	{ "pni", ONE_C, 0 }, { "pclmulqdq", ONE_C, 1 }, { "vmx", ONE_C, 5 }, { "ssse3", ONE_C, 9 }, { "fma", ONE_C, 12 },
	{ "cx16", ONE_C, 13 }, { "pcid", ONE_C, 17 }, { "sse4_1", ONE_C, 19 }, { "sse4_2", ONE_C, 20 }, { "x2apic", ONE_C, 21 },
	{ "movbe", ONE_C, 22 }, { "popcnt", ONE_C, 23 }, { "tsc_deadline_timer", ONE_C, 24 }, { "aes", ONE_C, 25 },
	{ "xsave", ONE_C, 26 }, { "avx", ONE_C, 28 }, { "f16c", ONE_C, 29 }, { "rdrand", ONE_C, 30 },
	{ "mmx", ONE_D, 23 }, { "sse", ONE_D, 25 }, { "sse2", ONE_D, 26 },
	{ "fsgsbase", SEVEN_B, 0 }, { "sgx", SEVEN_B, 2 }, { "bmi1", SEVEN_B, 3 }, { "hle", SEVEN_B, 4 }, { "avx2", SEVEN_B, 5 },
	{ "smep", SEVEN_B, 7 }, { "bmi2", SEVEN_B, 8 }, { "erms", SEVEN_B, 9 }, { "invpcid", SEVEN_B, 10 }, { "rtm", SEVEN_B, 11 },
	{ "avx512f", SEVEN_B, 16 }, { "avx512dq", SEVEN_B, 17 }, { "rdseed", SEVEN_B, 18 }, { "adx", SEVEN_B, 19 },
	{ "smap", SEVEN_B, 20 }, { "avx512ifma", SEVEN_B, 21 }, { "clflushopt", SEVEN_B, 23 }, { "clwb", SEVEN_B, 24 },
	{ "avx512cd", SEVEN_B, 28 }, { "sha_ni", SEVEN_B, 29 }, { "avx512bw", SEVEN_B, 30 }, { "avx512vl", SEVEN_B, 31 },
	{ "avx512vbmi", SEVEN_C, 1 }, { "umip", SEVEN_C, 2 }, { "pku", SEVEN_C, 3 }, { "avx512_vbmi2", SEVEN_C, 6 },
	{ "gfni", SEVEN_C, 8 }, { "vaes", SEVEN_C, 9 }, { "vpclmulqdq", SEVEN_C, 10 }, { "avx512_vnni", SEVEN_C, 11 },
	{ "avx512_bitalg", SEVEN_C, 12 }, { "avx512_vpopcntdq", SEVEN_C, 14 }, { "la57", SEVEN_C, 16 }, { "rdpid", SEVEN_C, 22 },
	{ "fsrm", SEVEN_D, 4 }, { "amx_bf16", SEVEN_D, 22 }, { "amx_tile", SEVEN_D, 24 }, { "amx_int8", SEVEN_D, 25 },
	{ "svm", EXTENDED_C, 2 }, { "abm", EXTENDED_C, 5 }, { "sse4a", EXTENDED_C, 6 }, { "3dnowprefetch", EXTENDED_C, 8 },
	{ "nx", EXTENDED_D, 20 }, { "pdpe1gb", EXTENDED_D, 26 }, { "rdtscp", EXTENDED_D, 27 }, { "lm", EXTENDED_D, 29 },
	{ "xsaveopt", XSAVE_A, 0 }, { "xsavec", XSAVE_A, 1 }, { "xsaves", XSAVE_A, 3 },
};

static bool has(const struct feature *f, struct cpuid_result r)
{
	const uint32_t regs[] = { r.eax, r.ebx, r.ecx, r.edx };

	return regs[words[f->word].reg] >> f->bit & 1;
}

static bool host_has(const struct feature *f)
{
	struct cpuid_result r = { 0 };

	return __get_cpuid_count(words[f->word].leaf, words[f->word].subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) && has(f, r);
}

static struct error *require(const struct engine *e, const char *name, int len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];

		if (strncmp(f->name, name, len) || f->name[len])
			continue;
		if (has(f, engine_cpuid(e, words[f->word].leaf, words[f->word].subleaf)))
			return NULL;
		if (!host_has(f))
			return error_new("the CPU feature '%s' was asked for, and this host's processor does not have it: ask for less, or take another host",
					 f->name);
		return error_new("the CPU feature '%s' was asked for; this host's processor has it, but the engine %s does not pass it on to guests: ask for less",
				 f->name, engine_name(e));
	}
	return error_new("the CPU feature '%.*s' is not known; the names are those of 'flags' in Linux' /proc/cpuinfo, such as avx2", len, name);
}

struct error *cpu_features_require(const struct engine *e, const char *names)
{
	struct error *err = NULL;

	for (const char *end; !err && *names; names = *end ? end + 1 : end) {
		end = strchrnul(names, ',');
		if (end > names)
			err = require(e, names, (int)(end - names));
	}
	return err;
}
