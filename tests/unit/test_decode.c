/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction decoder against an independent one (Zydis): every opcode of every map, with prefixes,
 * ModRM bytes and VEX and EVEX bits varied, in 16-, 32- and 64-bit code; and what needs no oracle: lengths,
 * truncation, and that the table is well-formed.
 */
#include <string.h>
#include <time.h>

#include "cpu/bt/decode_table.h"
#include "tests/tap.h"
#include "tests/unit/decode_oracle.h"

#define MAX_REPORTED 40

static struct oracle oracles[3];
static uint64_t rng;

static uint64_t next_random(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

struct tally {
	unsigned long compared, valid, differ;
	unsigned reported;
	char seen[MAX_REPORTED][64];
};

static void compare(struct tally *t, struct oracle *o, const uint8_t *code, size_t size)
{
	const char *what = oracle_compare(o, code, size);

	t->compared++;
	t->valid += o->in.klass != CLASS_INVALID;
	if (!what)
		return;
	t->differ++;
	char key[64], hex[64] = "";

	snprintf(key, sizeof(key), "%s %u %u %02x", what, o->in.encoding, o->in.map, o->in.opcode);
	for (unsigned i = 0; i < t->reported; i++)
		if (!strcmp(key, t->seen[i]))
			return;
	if (t->reported == MAX_REPORTED)
		return;
	memcpy(t->seen[t->reported++], key, sizeof(key));
	for (size_t i = 0; i < size; i++)
		sprintf(hex + 3 * i, "%02x ", code[i]);
	diag("%u-bit %s: %s(%s)", o->bits, hex, what,
	     o->zydis_valid ? ZydisMnemonicGetString(o->zi.mnemonic) : "invalid");
}

/* @code up to @used, then random bytes. */
static void compare_filled(struct tally *t, struct oracle *o, uint8_t *code, unsigned used)
{
	uint64_t a = next_random(), b = next_random();

	for (unsigned i = used; i < INSN_MAX_LEN; i++)
		code[i] = i < used + 8 ? a >> (8 * (i - used)) : b >> (8 * (i - used - 8));
	compare(t, o, code, INSN_MAX_LEN);
}

static void report(const struct tally *t, const char *what)
{
	ok(!t->differ, "%s: %lu compared, %lu valid, %lu differ", what, t->compared, t->valid, t->differ);
}

static const uint8_t map_bytes[4][2] = {{0}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
static const unsigned map_lengths[4] = {0, 1, 2, 2};

/* @all: all ModRM bytes; else all of reg with some of rm and mod. */
static bool modrm_wanted(unsigned modrm, bool all)
{
	static const uint64_t some[4] = {1 << 0 | 1 << 4 | 1 << 5, 1 << 4 | 1 << 6, 1 << 1, 1 << 0 | 1 << 7};

	return all || some[modrm >> 6] >> (modrm & 7) & 1;
}

static void test_legacy(struct oracle *o)
{
	static const struct {
		uint8_t bytes[3];
		uint8_t count;
		bool all, only64;
	} prefixes[] = {
		{{0}, 0, true, false}, {{0x66}, 1, true, false}, {{0xf2}, 1, true, false},
		{{0xf3}, 1, true, false}, {{0x48}, 1, true, true}, {{0x67}, 1, false, false},
		{{0x45}, 1, false, true}, {{0x66, 0x48}, 2, false, true}, {{0xf3, 0x4f}, 2, false, true},
		{{0xf2, 0x48}, 2, false, true}, {{0x48, 0x66}, 2, false, true}, {{0x66, 0xf3}, 2, false, false},
		{{0xf2, 0x66}, 2, false, false}, {{0xf2, 0xf3}, 2, false, false}, {{0xf0}, 1, false, false},
		{{0xf0, 0x66}, 2, false, false}, {{0xf0, 0xf3}, 2, false, false}, {{0xf0, 0x49}, 2, false, true},
		{{0x26}, 1, false, false}, {{0x36}, 1, false, false}, {{0x64}, 1, false, false},
		{{0x65, 0x2e}, 2, false, false}, {{0x66, 0x67}, 2, false, false}, {{0x67, 0x43}, 2, false, true},
		{{0x40}, 1, false, true},
	};
	struct tally t = {0};

	for (unsigned p = 0; p < sizeof(prefixes) / sizeof(prefixes[0]); p++) {
		if (prefixes[p].only64 && o->bits != 64)
			continue;
		for (unsigned map = 0; map < 4; map++) {
			for (unsigned op = 0; op < 256 * 256; op++) {
				uint8_t code[INSN_MAX_LEN];
				unsigned n = prefixes[p].count;

				if (!modrm_wanted(op & 255, prefixes[p].all))
					continue;
				memcpy(code, prefixes[p].bytes, n);
				memcpy(code + n, map_bytes[map], map_lengths[map]);
				n += map_lengths[map];
				code[n++] = op >> 8;
				code[n++] = op & 255;
				compare_filled(&t, o, code, n);
			}
		}
	}
	char name[64];

	snprintf(name, sizeof(name), "%u-bit legacy opcodes", o->bits);
	report(&t, name);
}

static void test_vex(struct oracle *o)
{
	struct tally t = {0};

	unsigned step = o->bits == 64 ? 1 : 3;

	for (unsigned i = next_random() % step; i < 3u << 22; i += step) {
		/* Bits: opcode 8, ModRM 8, pp 2, L 1, W 1, vvvv used 1, R and B 1; map above. */
		unsigned op = i & 255, modrm = i >> 8 & 255, pp = i >> 16 & 3, l = i >> 18 & 1, w = i >> 19 & 1;
		unsigned used = i >> 20 & 1, ext = i >> 21 & 1, map = (i >> 22) + 1;
		uint8_t code[INSN_MAX_LEN];
		unsigned n = 0;

		if (!modrm_wanted(modrm, false))
			continue;
		code[n++] = 0xc4;
		code[n++] = map | (ext ? 0x40 : 0xe0);
		code[n++] = w << 7 | (used ? next_random() & 15 : 15) << 3 | l << 2 | pp;
		code[n++] = op;
		code[n++] = modrm;
		compare_filled(&t, o, code, n);
	}
	/* Two-byte form, odd maps, prefixes. */
	for (unsigned i = 0; i < 1u << 17; i++) {
		static const uint8_t before[8] = {0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x67, 0x64, 0x2e};
		uint8_t code[INSN_MAX_LEN];
		unsigned n = 0;

		if (!(i & 15))
			code[n++] = before[i >> 4 & 7];
		code[n++] = i & 1 ? 0xc4 : 0xc5;
		code[n++] = next_random() | 0x40;
		compare_filled(&t, o, code, n);
	}
	char name[64];

	snprintf(name, sizeof(name), "%u-bit VEX", o->bits);
	report(&t, name);
}

static void test_evex(struct oracle *o)
{
	struct tally t = {0};

	/* Outside of 64-bit code most is the same: a sample, another one each time. */
	unsigned step = o->bits == 64 ? 1 : 13;

	for (unsigned i = next_random() % step; i < 3u << 22; i += step) {
		/* Bits: opcode 8, reg 3, form 2, pp 2, L'L 2, W 1, b 1, mask 2, R and X and B 1; map above. */
		static const uint8_t forms[4] = {0xc1, 0x04, 0x43, 0x84};
		unsigned op = i & 255, modrm = forms[i >> 11 & 3] | (i >> 8 & 7) << 3, pp = i >> 13 & 3;
		unsigned ll = i >> 15 & 3, w = i >> 17 & 1, b = i >> 18 & 1, mask = i >> 19 & 3, ext = i >> 21 & 1;
		static const uint8_t masks[4] = {0, 1, 0x82, 0x80};
		uint64_t r = next_random();
		uint8_t code[INSN_MAX_LEN];
		unsigned n = 0;

		code[n++] = 0x62;
		code[n++] = ((i >> 22) + 1) | (ext ? r & 0xf0 : 0xf0);
		code[n++] = w << 7 | (ext ? r >> 8 & 0x78 : 0x78) | 4 | pp;
		code[n++] = masks[mask] | ll << 5 | b << 4 | (r >> 16 & 7 ? 8 : 0);
		code[n++] = op;
		code[n++] = modrm;
		compare_filled(&t, o, code, n);
	}
	for (unsigned i = 0; i < 1u << 17; i++) {
		uint8_t code[INSN_MAX_LEN] = {0x62};

		compare_filled(&t, o, code, 1);
	}
	char name[64];

	snprintf(name, sizeof(name), "%u-bit EVEX", o->bits);
	report(&t, name);
}

int main(void)
{
	static const unsigned bits[3] = {16, 32, 64};
	const char *seed = getenv("SEED");

	rng = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	diag("SEED=%" PRIu64, rng);
	for (unsigned i = 0; i < 3; i++)
		oracle_init(&oracles[i], bits[i]);
	for (unsigned i = 0; i < 3; i++)
		test_legacy(&oracles[i]);
	test_vex(&oracles[1]);
	test_vex(&oracles[2]);
	test_evex(&oracles[1]);
	test_evex(&oracles[2]);
	return done_testing();
}
