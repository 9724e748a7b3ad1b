// SPDX-License-Identifier: Apache-2.0
//
// Integer programs: sort, hash table, sieve, pointer chase, a bytecode interpreter.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252ULL;

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void *get(size_t bytes)
{
	void *p = calloc(1, bytes);
	if (!p)
		abort();
	return p;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

// Quicksort of our own for half, the library's with its calls through a pointer for a quarter.
static void quicksort(uint32_t *a, long low, long high)
{
	while (low < high) {
		uint32_t pivot = a[low + (high - low) / 2];
		long i = low, j = high;
		while (i <= j) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i <= j) {
				uint32_t t = a[i];
				a[i++] = a[j];
				a[j--] = t;
			}
		}
		if (j - low < high - i) {
			quicksort(a, low, j);
			low = i;
		} else {
			quicksort(a, i, high);
			high = j;
		}
	}
}

static uint64_t sort(long n)
{
	uint32_t *a = get(n * sizeof(*a));
	uint64_t sum = 0;
	for (long i = 0; i < n; i++)
		a[i] = next_random();
	quicksort(a, 0, n / 2 - 1);
	qsort(a + n / 2, n / 4, sizeof(*a), by_value);
	for (long i = 0; i < n; i++)
		sum = sum * 31 + a[i];
	return sum;
}

// Open addressing, with the keys hashed byte by byte.
static uint64_t hash(long n)
{
	size_t size = 1 << 20, found = 0;
	uint64_t *keys = get(size * sizeof(*keys)), *values = get(size * sizeof(*values)), sum = 0;
	for (long i = 0; i < n; i++) {
		uint64_t key = next_random() % (size / 2) + 1, h = 14695981039346656037ULL;
		for (int b = 0; b < 64; b += 8)
			h = (h ^ (key >> b & 0xff)) * 1099511628211ULL;
		size_t at = h % size;
		while (keys[at] && keys[at] != key)
			at = (at + 1) % size;
		found += keys[at] == key;
		keys[at] = key;
		sum += values[at] += i;
	}
	return sum ^ found;
}

static uint64_t sieve(long n)
{
	uint8_t *composite = get(n + 1);
	uint64_t count = 0;
	for (long i = 2; i <= n; i++) {
		if (composite[i])
			continue;
		count++;
		for (long j = i * i; j <= n; j += i)
			composite[j] = 1;
	}
	return count;
}

// A random cycle through 32 MiB: every step depends on the one before, and most miss the TLB.
static uint64_t chase(long steps)
{
	uint32_t n = 4 << 20, at = 0;
	uint64_t *to = get(n * sizeof(*to)), sum = 0;
	for (uint32_t i = 0; i < n; i++)
		to[i] = i;
	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t j = next_random() % i;
		uint64_t t = to[i];
		to[i] = to[j];
		to[j] = t;
	}
	while (steps--)
		sum += at = to[at];
	return sum;
}

// A small machine with computed jumps: what interpreters do, without their libraries.
static uint64_t interpret(long n)
{
	enum { LOAD, ADD, XOR, SHIFT, STORE, DEC, LOOP, STOP };
	static const void *const code[] = { [LOAD] = &&load, [ADD] = &&add, [XOR] = &&xor, [SHIFT] = &&shift,
					    [STORE] = &&store, [DEC] = &&dec, [LOOP] = &&loop, [STOP] = &&stop };
	static const uint8_t program[] = { LOAD, 1, ADD, 2, XOR, 3, SHIFT, 5, STORE, 1, LOAD, 2, ADD, 1,
					   STORE, 2, LOAD, 3, XOR, 1, STORE, 3, DEC, 0, LOOP, 0, STOP };
	uint64_t var[4] = { n, 1, 2, 3 }, acc = 0;
	const uint8_t *pc = program;
#define NEXT goto *code[*pc++]
	NEXT;
load:
	acc = var[*pc++];
	NEXT;
add:
	acc += var[*pc++];
	NEXT;
xor:
	acc ^= var[*pc++];
	NEXT;
shift:
	acc = acc << *pc | acc >> (64 - *pc);
	pc++;
	NEXT;
store:
	var[*pc++] = acc;
	NEXT;
dec:
	var[*pc++]--;
	NEXT;
loop:
	pc = var[*pc] ? program : pc + 1;
	NEXT;
stop:
	return var[1] ^ var[2] ^ var[3];
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint64_t (*run)(long);
	} all[] = { { "sort", sort }, { "hash", hash }, { "sieve", sieve }, { "chase", chase }, { "interpret", interpret } };
	for (size_t i = 0; argc == 3 && i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(argv[1], all[i].name) == 0)
			return printf("%s %llu\n", argv[1], (unsigned long long)all[i].run(atol(argv[2]))) < 0;
	return 2;
}
