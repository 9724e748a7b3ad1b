/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters of the translator by name, for the control socket (maru-vm(1), "statistics").
 *
 * A vCPU's thread counts for itself and nobody waits for it: the sums are of about the same moment.
 */
#include "base/util.h"
#include "cpu/bt/private.h"
#include "cpu/bt/run.h"

static const struct {
	const char *name;
	size_t offset;
} counters[] = {
#define COUNTER(name) { #name, offsetof(struct bt_stats, name) }
	COUNTER(exits), COUNTER(translations), COUNTER(insns), COUNTER(guest_bytes), COUNTER(host_bytes),
	COUNTER(tlb_fills), COUNTER(slow_accesses), COUNTER(bounces), COUNTER(smc_invalidations),
	COUNTER(interrupts), COUNTER(exceptions), COUNTER(calls), COUNTER(jc_fills), COUNTER(links),
	COUNTER(flushes), COUNTER(halts), COUNTER(apic_reads), COUNTER(apic_writes),
#undef COUNTER
};

static const char *const exit_names[EXIT_REASONS] = {
	[EXIT_LOOKUP] = "lookup", [EXIT_LINK] = "link", [EXIT_FAR] = "far",	    [EXIT_FAULT] = "fault",
	[EXIT_OP] = "op",	  [EXIT_BOUNCE] = "bounce", [EXIT_STEPPED] = "stepped",
};

static const char *const op_names[OP_COUNT] = {
#define OP_NAME(op) [OP_##op] = #op
	OP_NAME(PAUSE), OP_NAME(PUSHF), OP_NAME(POPF), OP_NAME(CLI), OP_NAME(STI), OP_NAME(CLD),
	OP_NAME(STD), OP_NAME(STAC), OP_NAME(CLAC), OP_NAME(PUSHA), OP_NAME(POPA),
	OP_NAME(PUSH_SEG), OP_NAME(POP_SEG), OP_NAME(ENTER), OP_NAME(XLAT), OP_NAME(BOUND),
	OP_NAME(ARPL), OP_NAME(MOV_SEG_TO), OP_NAME(MOV_SEG_FROM), OP_NAME(LOAD_FAR),
	OP_NAME(JMP_FAR), OP_NAME(CALL_FAR), OP_NAME(RET_FAR), OP_NAME(IRET), OP_NAME(INT),
	OP_NAME(INT3), OP_NAME(INTO), OP_NAME(INT1), OP_NAME(UD), OP_NAME(SYSCALL),
	OP_NAME(SYSRET), OP_NAME(SYSENTER), OP_NAME(SYSEXIT), OP_NAME(MOVS), OP_NAME(CMPS),
	OP_NAME(STOS), OP_NAME(LODS), OP_NAME(SCAS), OP_NAME(INS), OP_NAME(OUTS), OP_NAME(IN),
	OP_NAME(OUT), OP_NAME(HLT), OP_NAME(CPUID), OP_NAME(RDTSC), OP_NAME(RDTSCP),
	OP_NAME(RDPMC), OP_NAME(RDMSR), OP_NAME(WRMSR), OP_NAME(RDPID), OP_NAME(MOV_FROM_CR),
	OP_NAME(MOV_TO_CR), OP_NAME(MOV_FROM_DR), OP_NAME(MOV_TO_DR), OP_NAME(CLTS),
	OP_NAME(LMSW), OP_NAME(SMSW), OP_NAME(SGDT), OP_NAME(SIDT), OP_NAME(LGDT), OP_NAME(LIDT),
	OP_NAME(SLDT), OP_NAME(STR), OP_NAME(LLDT), OP_NAME(LTR), OP_NAME(LAR), OP_NAME(LSL),
	OP_NAME(VERR), OP_NAME(VERW), OP_NAME(INVD), OP_NAME(WBINVD), OP_NAME(INVLPG),
	OP_NAME(INVPCID), OP_NAME(SWAPGS), OP_NAME(RDFSBASE), OP_NAME(RDGSBASE),
	OP_NAME(WRFSBASE), OP_NAME(WRGSBASE), OP_NAME(XGETBV), OP_NAME(XSETBV), OP_NAME(FXSAVE),
	OP_NAME(FXRSTOR), OP_NAME(XSAVE), OP_NAME(XSAVEOPT), OP_NAME(XSAVEC), OP_NAME(XRSTOR),
	OP_NAME(FNSAVE), OP_NAME(FRSTOR), OP_NAME(FNSTENV), OP_NAME(FLDENV), OP_NAME(MONITOR),
	OP_NAME(MWAIT), OP_NAME(VMCALL), OP_NAME(AAA), OP_NAME(AAS), OP_NAME(AAD), OP_NAME(AAM), OP_NAME(DAA),
	OP_NAME(DAS), OP_NAME(SALC), OP_NAME(GATHER), OP_NAME(SCATTER), OP_NAME(MASKMOV),
	OP_NAME(RAISE_NM), OP_NAME(RAISE_GP),
#undef OP_NAME
};

const char *bt_op_name(unsigned op)
{
	return op < OP_COUNT ? op_names[op] : NULL;
}

static uint64_t sum(const struct bt_engine *e, size_t offset)
{
	uint64_t total = 0;

	for (unsigned n = 0; n < e->vcpu_count; n++)
		total += *(const uint64_t *)((const char *)&e->vcpus[n]->priv->stats + offset);
	return total;
}

void bt_engine_statistics(struct engine *engine, engine_counter_fn *each, void *opaque)
{
	struct bt_engine *e = (struct bt_engine *)engine;

	for (unsigned k = 0; k < ARRAY_SIZE(counters); k++)
		each(opaque, NULL, counters[k].name, sum(e, counters[k].offset));
	each(opaque, NULL, "code_cache_bytes", e->cache_used + e->cold_used - CODE_HOT_BYTES);
	each(opaque, NULL, "meta_bytes", e->meta_used);
	for (unsigned k = 0; k < EXIT_REASONS; k++)
		each(opaque, "exits_by_reason", exit_names[k],
		     sum(e, offsetof(struct bt_stats, exits_by_reason) + k * sizeof(uint64_t)));
	for (unsigned k = OP_FIRST_CALL; k < OP_COUNT; k++) {
		uint64_t n = sum(e, offsetof(struct bt_stats, op_calls) + k * sizeof(uint64_t));

		if (n)
			each(opaque, "calls_by_op", op_names[k], n);
	}
}
