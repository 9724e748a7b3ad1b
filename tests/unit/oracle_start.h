/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a piece of oracle_gen.h starts with, for test_bt_oracle: registers, extended state and memory, drawn so that most values mean
 * something to some instruction (limits of integers, numbers of usual size, infinities, NaNs, denormals) and some are plain bits.
 */
#ifndef TESTS_UNIT_ORACLE_START_H
#define TESTS_UNIT_ORACLE_START_H

#include "tests/unit/oracle_gen.h"

#define POOL_BYTES (1u << 20) /* from which memory is filled */

static uint64_t interesting(struct gen *g)
{
	static const uint64_t values[] = {
		0,
		1,
		~0ull,
		0x7f,
		0x80,
		0xff,
		0x7fff,
		0x8000,
		0xffff,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x7fffffffffffffff,
		0x8000000000000000,
		0x3ff0000000000000,
		0xbff0000000000000,
		0x7ff0000000000000,
		0x7ff8000000000000,
		0x7ff0000000000001,
		0x000fffffffffffff,
		0x0010000000000000,
		0x3f8000003f800000,
		0x7f8000007f800000,
		0xff800000ff800000,
		0x7fc000007f800001,
		0x0000000100000001,
		0x0080000000400000,
		0x4340000000000000,
		0x43e0000000000000,
		0x4f0000004b000000,
		0xc3e0000000000000,
	};
	unsigned kind = below(g, 10);

	if (kind < 3)
		return gen_next(g);
	if (kind < 5)
		return below(g, 256);
	if (kind < 6) /* a double of usual size */
		return (gen_next(g) & 0x800fffffffffffff) | (uint64_t)(1023 - 8 + below(g, 16))
								    << 52;
	if (kind < 7)
		return (gen_next(g) & 0x807fffff807fffff) |
		       (uint64_t)(127 - 4 + below(g, 8)) << 55 |
		       (uint64_t)(127 - 4 + below(g, 8)) << 23;
	return values[below(g, sizeof(values) / sizeof(values[0]))];
}

static void make_xstate(struct gen *g, const struct oracle_run *run, uint8_t *x)
{
	uint64_t bv = run->xcr0, mask = 0;
	uint16_t fcw = 0x37f, fsw = 0;
	uint32_t mxcsr = 0x1f80;
	const struct cpuid_model *m = &run->model;

	memset(x, 0, XSTATE_BYTES);
	if (percent(g, 50))
		fcw = (uint16_t)(0x7f | (below(g, 16) << 8));
	if (percent(g, 6))
		fcw &= (uint16_t)~below(g, 64);
	if (percent(g, 60))
		fsw = (uint16_t)(below(g, 8) << 11 | (gen_next(g) & 0x4700));
	if (percent(g, 50))
		mxcsr |= (uint32_t)gen_next(g) & 0xe040;
	if (percent(g, 6))
		mxcsr &= ~(below(g, 64) << 7);
	memcpy(x, &fcw, 2);
	memcpy(x + 2, &fsw, 2);
	x[4] = percent(g, 50) ? (uint8_t)gen_next(g) : 0xf;
	memcpy(x + 24, &mxcsr, 4);
	for (unsigned k = 0; k < 8; k++) { /* st0 to st7 */
		uint64_t mantissa = percent(g, 70) ? gen_next(g) | 1ull << 63 : interesting(g);
		uint16_t exponent =
			(uint16_t)(percent(g, 70) ? 16383 - 8 + below(g, 16) : below(g, 65536));

		memcpy(x + 32 + 16 * k, &mantissa, 8);
		memcpy(x + 40 + 16 * k, &exponent, 2);
	}
	for (unsigned n = 160; n < XSTATE_BYTES; n += 8) {
		uint64_t v = interesting(g);

		if (n < 416 || n >= 576)
			memcpy(x + n, &v, 8);
	}
	for (unsigned k = 5; k < 16; k += 8) /* xmm5, xmm13: small numbers, for gathers */
		for (unsigned n = 0; n < 2; n++) {
			int64_t v = (int64_t)below(g, 300) - 100;

			memcpy(x + 160 + 16 * k + 8 * n, &v, 8);
			if (m->xsave[2].size)
				memcpy(x + m->xsave[2].offset + 16 * k + 8 * n, &v, 8);
			for (unsigned h = 0; h < 4 && m->xsave[6].size; h += 2)
				memcpy(x + m->xsave[6].offset + 32 * k + 8 * (n + h), &v, 8);
		}
	for (unsigned n = 0; n < 8 && m->xsave[7].size; n++) { /* zmm21 */
		int64_t v = (int64_t)below(g, 300) - 100;

		memcpy(x + m->xsave[7].offset + 64 * 5 + 8 * n, &v, 8);
	}
	for (unsigned n = 2; n < 8; n++)
		if (percent(g, 10))
			bv &= ~(1ull << n);
	for (unsigned n = 0; n < CPUID_XSAVE_COMPONENTS; n++)
		mask |= 1ull << n;
	bv &= mask;
	memset(x + 416, 0, 160);
	memcpy(x + 512, &bv, 8);
}

/* A start for the piece in @g: the state, and MEMORY_BYTES out of @pool. */
static void make_start(struct gen *g, const struct oracle_run *run, const uint8_t *pool, struct cpu_state *s, uint8_t *memory)
{
	unsigned from = below(g, POOL_BYTES - MEMORY_BYTES) & ~7u;

	for (unsigned r = 0; r < 16; r++)
		s->gpr[r] = interesting(g);
	for (unsigned r = 0; r < 3; r++)
		s->gpr[g->pointer[r]] = random_pointer(g);
	s->gpr[X86_RSP] = STACK_AT + 0x2000 - 8 * below(g, 64);
	if (percent(g, g->shapes ? 30 : 5))
		s->gpr[X86_RSP] = STACK_AT + 4096 * below(g, STACK_PAGES + 1) + below(g, 64) - 32;
	s->rip = g->at;
	s->cs = g->bits == 64 ? CS_64 : CS_32;
	for (unsigned r = 0; r < 8 && g->bits == 32; r++)
		s->gpr[r] = (uint32_t)s->gpr[r];
	s->rflags = X86_IF | 2 | (gen_next(g) & X86_ARITH_FLAGS);
	if (percent(g, 3))
		s->rflags |= X86_AC;
	if (percent(g, 3))
		s->rflags |= X86_DF;
	make_xstate(g, run, s->xstate);
	memcpy(memory, pool + from, MEMORY_BYTES);
	memset(memory + 4096 * (DATA_PAGES - 1), 0, 4096);
}

static uint8_t *make_pool(uint64_t seed)
{
	struct gen g = { .seed = seed };
	uint8_t *pool = malloc(POOL_BYTES);

	for (unsigned n = 0; n < POOL_BYTES; n += 8) {
		uint64_t v = interesting(&g);

		memcpy(pool + n, &v, 8);
	}
	return pool;
}

#endif
