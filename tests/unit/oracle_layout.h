/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the oracle's code, data and stack are, which is the same on the host and in the guest; a state that it runs from, and what comes
 * of it. oracle_run.h says how.
 */
#ifndef TESTS_UNIT_ORACLE_LAYOUT_H
#define TESTS_UNIT_ORACLE_LAYOUT_H

#include <signal.h>
#include <time.h>

#include "cpu/cpuid.h"
#include "tests/unit/bt_guest.h"

#define CODE_AT 0x10000000ull
#define CODE_PAGES 16u
#define SMC_AT 0x18000000ull /* the same pages, writable */
#define DATA_AT 0x20000000ull
#define DATA_PAGES 16u
#define STACK_AT 0x30000000ull
#define STACK_PAGES 4u
#define GS_BASE 0x40ull
/* Linux's selectors. */
#define CS_64 0x33
#define CS_32 0x23
#define DATA_SELECTOR 0x2b

enum page_rights { PAGE_NONE, PAGE_RO, PAGE_RW };
/* What the pages from DATA_AT may be used for. The last one holds loop counters, and is not with the others. */
static const uint8_t data_rights[DATA_PAGES] = {
	PAGE_RW, PAGE_RW,   PAGE_RW, PAGE_RW, PAGE_RO,	 PAGE_RW,   PAGE_NONE, PAGE_RW,
	PAGE_RW, PAGE_NONE, PAGE_RO, PAGE_RW, PAGE_NONE, PAGE_NONE, PAGE_NONE, PAGE_RW,
};
#define COUNTERS_AT 0x28000000ull

static uint64_t data_page(unsigned n)
{
	return n == DATA_PAGES - 1 ? COUNTERS_AT : DATA_AT + 4096 * n;
}

/* Memory that is compared: data pages, then the stack. */
#define MEMORY_BYTES ((DATA_PAGES + STACK_PAGES) * 4096)
/* In guest-physical memory. */
#define PHYS_TABLES 0x10000u
#define PHYS_KERNEL 0x200000u /* GDT, TSS, IDT, handlers, stack: mapped at KERNEL_AT */
#define PHYS_CODE 0x400000u
#define PHYS_DATA 0x500000u /* and the stack behind it */
#define KERNEL_AT 0xffff800000000000ull
enum { GDT = 0, TSS = 0x200, IDT = 0x1000, HANDLERS = 0x2000, START = 0x2100, INTERRUPT = 0x2180, KSTACK = 0x8000 };
#define INTERRUPT_VECTOR 0x40

#define XSTATE_BYTES 2816 /* up to AVX-512, standard format */

struct cpu_state {
	uint64_t gpr[16], rip, rflags;
	uint16_t cs; /* CS_64 or CS_32 */
	_Alignas(64) uint8_t xstate[XSTATE_BYTES];
};

struct outcome {
	struct cpu_state cpu;
	uint64_t vector, error, cr2;
	uint8_t *memory;
	char failure[240]; /* the guest ended otherwise */
};

struct oracle_run {
	struct bt_guest g;
	uint8_t *code_rw;	/* native code, writable */
	uint8_t *native_memory; /* as mapped, all of it readable and writable */
	uint64_t xcr0;
	struct cpuid_model model;

	/* Interrupts. */
	unsigned every; /* so many-th place; 0: none */
	bool by_timer;
	unsigned questions, asked_again;
	uint64_t last_rip;
	uint64_t taken;
	volatile sig_atomic_t pending;
	timer_t timer;
	/* Does an instruction begin there? */
	bool (*is_start)(uint64_t rip);
	uint64_t bad_rip; /* it was interrupted there, where none does */
};

#endif
