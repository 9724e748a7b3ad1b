/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verifier of emitted code (bt_verify.h) knows of values: sums of unknowns with coefficients, and a constant,
 * modulo 2^64. Two of them that differ by a constant do so whatever the unknowns are.
 */
#ifndef TESTS_UNIT_BT_VALUES_H
#define TESTS_UNIT_BT_VALUES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define VALUE_TERMS 6

struct value_term {
	uint32_t unknown; /* from 1 */
	int32_t factor;	  /* not 0 */
};

/* Terms in ascending order of their unknowns. */
struct value {
	uint64_t constant;
	unsigned n;
	struct value_term term[VALUE_TERMS];
};

static inline struct value value_constant(uint64_t c)
{
	return (struct value){.constant = c};
}

static inline struct value value_new(uint32_t *next)
{
	return (struct value){.n = 1, .term = {{++*next, 1}}};
}

/* a + factor * b; a new unknown if that is more than a value can say. */
static inline struct value value_sum(const struct value *a, const struct value *b, int32_t factor, uint32_t *next)
{
	struct value sum = {.constant = a->constant + b->constant * (uint64_t)(int64_t)factor};
	unsigned i = 0, j = 0;

	while (i < a->n || j < b->n) {
		uint32_t x = i < a->n ? a->term[i].unknown : ~0u, y = j < b->n ? b->term[j].unknown : ~0u;
		struct value_term t = {x < y ? x : y, 0};

		if (x == t.unknown)
			t.factor = a->term[i++].factor;
		if (y == t.unknown) {
			int32_t more;

			if (__builtin_mul_overflow(b->term[j++].factor, factor, &more) ||
			    __builtin_add_overflow(t.factor, more, &t.factor))
				return value_new(next);
		}
		if (!t.factor)
			continue;
		if (sum.n == VALUE_TERMS)
			return value_new(next);
		sum.term[sum.n++] = t;
	}
	return sum;
}

static inline struct value value_add(struct value a, uint64_t constant)
{
	a.constant += constant;
	return a;
}

/* True: a - b is *distance, always. */
static inline bool value_distance(const struct value *a, const struct value *b, uint64_t *distance)
{
	if (a->n != b->n || memcmp(a->term, b->term, a->n * sizeof(a->term[0])))
		return false;
	*distance = a->constant - b->constant;
	return true;
}

static inline bool value_same(const struct value *a, const struct value *b)
{
	uint64_t distance;

	return value_distance(a, b, &distance) && !distance;
}

#endif
