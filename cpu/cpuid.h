/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID as the guest sees it: the host's user-visible instruction set, as far as the engine can run
 * it, on a machine of one socket with N cores. SDM vol. 2, "CPUID".
 *
 * The model is made once per machine and then only read. What depends on the vCPU's state (OSXSAVE,
 * APIC ids, XSAVE sizes by XCR0) the engine fills in.
 */
#ifndef CPU_CPUID_H
#define CPU_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/engine.h"

struct decode_features;

#define CPUID_ENTRIES 64
#define CPUID_XSAVE_COMPONENTS \
	8 /* x87, SSE, AVX, (MPX: 2), AVX-512: 3; PKRU and later are not offered */

struct cpuid_entry {
	uint32_t leaf, subleaf;
	bool by_subleaf; /* else the entry is for every subleaf */
	struct cpuid_result result;
};

struct cpuid_model {
	unsigned vcpus;
	bool amd;	    /* or compatible: Hygon */
	uint8_t phys_bits;  /* MAXPHYADDR */
	uint64_t xcr0;	    /* bits that XSETBV accepts */
	bool has_spec_ctrl; /* IA32_SPEC_CTRL, IA32_PRED_CMD, IA32_ARCH_CAPABILITIES are offered */
	struct {
		uint32_t offset, size; /* in the standard format; size 0: not offered */
		bool aligned;	       /* to 64 bytes in the compacted format */
	} xsave[CPUID_XSAVE_COMPONENTS];
	uint32_t max_basic, max_extended;
	unsigned count;
	struct cpuid_entry entry[CPUID_ENTRIES];
};

void cpuid_model_init(struct cpuid_model *m, unsigned vcpus);
/* Adds what says how fast the TSC is. Once, before a guest looks. */
void cpuid_model_set_tsc(struct cpuid_model *m, uint64_t tsc_hz);
/* The hypervisor's leaves become KVM's; @features: enum pv_feature. */
void cpuid_add_paravirt(struct cpuid_model *m, uint32_t features, uint64_t tsc_hz);
/* The decoder's features that go with it. */
void cpuid_decode_features(const struct cpuid_model *m, struct decode_features *out);

/*
 * Leaves beyond the maximum: zeros on AMD, else the highest basic leaf. Inline, so that light code
 * can use it.
 */
static inline struct cpuid_result cpuid_guest(const struct cpuid_model *m, uint32_t leaf,
					      uint32_t subleaf)
{
	bool hypervisor = leaf >> 8 == 0x400000;

	if (!hypervisor && !(leaf & 0x80000000 ? leaf <= m->max_extended : leaf <= m->max_basic)) {
		if (m->amd)
			return (struct cpuid_result){ 0 };
		leaf = m->max_basic;
	}
	for (unsigned n = 0; n < m->count && n < CPUID_ENTRIES; n++) {
		const struct cpuid_entry *e = &m->entry[n];

		if (e->leaf == leaf && (!e->by_subleaf || e->subleaf == subleaf))
			return e->result;
	}
	return (struct cpuid_result){ 0 };
}

/* The size of the XSAVE area for the components of @xcr0, standard or compacted. */
static inline uint32_t cpuid_xsave_size(const struct cpuid_model *m, uint64_t xcr0, bool compacted)
{
	uint32_t size = 576, end;

	for (unsigned n = 2; n < CPUID_XSAVE_COMPONENTS; n++) {
		if (!(xcr0 >> n & 1) || !m->xsave[n].size)
			continue;
		if (compacted) {
			if (m->xsave[n].aligned)
				size = (size + 63) & ~63u;
			size += m->xsave[n].size;
		} else {
			end = m->xsave[n].offset + m->xsave[n].size;
			size = end > size ? end : size;
		}
	}
	return size;
}

#endif
