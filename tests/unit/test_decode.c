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

/* ---- Without an oracle ------------------------------------------------------------------------------ */

static void test_table(void)
{
	unsigned wrong = 0, indexed = 0;

	for (unsigned i = 1; i < decode_row_count; i++) {
		const struct decode_row *row = &decode_rows[i];
		bool same = i > 1 && row[-1].key == row->key;

		/* In order, so that the rows of an opcode stand together. */
		if (i > 1 && row->key < row[-1].key) {
			diag("row %u: key %03x is out of order", i, row->key);
			wrong++;
		}
		if (same && FORM_GET(row->form, MODRM) != FORM_GET(row[-1].form, MODRM)) {
			diag("row %u: key %03x has a ModRM byte or not", i, row->key);
			wrong++;
		}
		if (row->op >= OP_COUNT || row->flags >= FLAGS_KINDS || row->feature >= DECODE_FEATURE_COUNT ||
		    FORM_GET(row->form, MSIZE) >= SIZE_COUNT) {
			diag("row %u: key %03x has a field out of range", i, row->key);
			wrong++;
		}
		/* What is locked is read and written; what has a size is accessed. */
		if ((FORM_GET(row->form, LOCK) && FORM_GET(row->form, ACC) != ACCESS_RW) ||
		    (FORM_GET(row->form, MSIZE) && !FORM_GET(row->form, ACC)) ||
		    (FORM_GET(row->form, GSIZE) && !FORM_GET(row->form, GACC))) {
			diag("row %u: key %03x has a wrong access", i, row->key);
			wrong++;
		}
		/* A masked or broadcast memory operand has elements that fill it. */
		if (FORM_GET(row->form, MSIZE) && (FORM_GET(row->form, MASK) || FORM_GET(row->form, BCST)) &&
		    !FORM_GET(row->form, ELEM)) {
			diag("row %u: key %03x has no element size", i, row->key);
			wrong++;
		}
	}
	ok(!wrong, "%u rows are well-formed", decode_row_count - 1);
	wrong = 0;
	for (unsigned key = 0; key < DECODE_MAPS * 256; key++) {
		unsigned row = decode_index[key] & ~DECODE_INDEX_MODRM;

		if (!row)
			continue;
		indexed++;
		if (row >= decode_row_count || decode_rows[row].key > key || key - decode_rows[row].key >= 16 ||
		    !(decode_index[key] & DECODE_INDEX_MODRM) != !FORM_GET(decode_rows[row].form, MODRM))
			wrong++;
	}
	ok(!wrong, "%u opcodes have an index that fits", indexed);
}

static struct insn decode_bytes(unsigned bits, uint64_t features, const char *hex)
{
	const struct decode_features f = {.bits = features};
	uint8_t code[INSN_MAX_LEN];
	unsigned size = 0, byte;
	struct insn in;
	int used;

	while (size < sizeof(code) && sscanf(hex, "%x%n", &byte, &used) == 1) {
		code[size++] = byte;
		hex += used;
	}
	if (decode(code, size, bits, &f, &in) != DECODE_OK)
		in.klass = 255;
	return in;
}

static void test_limits(void)
{
	const struct decode_features all = {.bits = ~0ull};
	static const uint8_t longest[15] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x48, 0xc7, 0x05};
	uint8_t code[16];
	unsigned short_ok = 0;
	struct insn in;

	/* Seven prefixes, REX, C7 /0 with RIP and a 32-bit immediate: 19 bytes. */
	memcpy(code, longest, 15);
	is_u64(decode(code, 15, 64, &all, &in), DECODE_TOO_LONG, "an instruction of more than 15 bytes is too long");
	for (unsigned i = 0; i < 15; i++)
		short_ok += decode(code, i, 64, &all, &in) == DECODE_TRUNCATED;
	is_u64(short_ok, 15, "of too few bytes to tell it is truncated");
	memset(code, 0x66, sizeof(code));
	is_u64(decode(code, 16, 32, &all, &in), DECODE_TOO_LONG, "nothing but prefixes is too long");
	memset(code, 0x66, 14);
	code[14] = 0x90;
	ok(decode(code, 15, 32, &all, &in) == DECODE_OK && in.len == 15, "15 bytes are not");
}

#define ONLY(feature) (1ull << DECODE_##feature)

static void test_features(void)
{
	struct insn in = decode_bytes(64, 0, "f3 0f bd c1");

	ok(in.klass == CLASS_COPY && !in.pp && in.gpr_read == (FIELD_REG | FIELD_RM), "LZCNT not offered is BSR");
	in = decode_bytes(64, ONLY(LZCNT), "f3 0f bd c1");
	ok(in.klass == CLASS_COPY && in.pp == PP_F3, "LZCNT");
	ok(decode_bytes(64, 0, "c5 f8 58 c1").klass == CLASS_INVALID, "VADDPS needs AVX");
	ok(decode_bytes(64, ONLY(AVX), "c5 f8 58 c1").klass == CLASS_COPY, "VADDPS");
	ok(decode_bytes(64, ONLY(AVX), "c5 fd fe c1").klass == CLASS_INVALID, "VPADDD ymm needs AVX2");
	ok(decode_bytes(64, ONLY(AVX), "c5 f9 fe c1").klass == CLASS_COPY, "VPADDD xmm does not");
	ok(decode_bytes(64, ONLY(AVX512F), "62 f1 74 08 58 c1").klass == CLASS_INVALID, "short EVEX needs VL");
	ok(decode_bytes(64, ONLY(AVX512F), "62 f1 74 48 58 c1").klass == CLASS_COPY, "512 bits do not");
	ok(decode_bytes(64, ONLY(AVX512F), "62 f1 76 08 58 c1").klass == CLASS_COPY, "nor do scalars");
	ok(decode_bytes(64, ONLY(AVX512BW), "62 f1 75 48 fc c1").klass == CLASS_INVALID, "VPADDB needs F too");
	ok(decode_bytes(64, 0, "c4 e2 70 f2 c1").klass == CLASS_INVALID, "ANDN needs BMI1");
	ok(decode_bytes(64, ONLY(BMI1), "c4 e2 70 f2 c1").klass == CLASS_COPY, "ANDN does not need AVX");
	ok(decode_bytes(64, ~0ull, "c7 f8 00 00 00 00").klass == CLASS_INVALID, "XBEGIN is not offered");
	in = decode_bytes(64, 0, "f3 0f 1e fa");
	ok(in.klass == CLASS_REWRITE && in.op == OP_NOP, "ENDBR64 is a NOP");
	in = decode_bytes(64, 0, "f2 0f 1a 08");
	ok(in.op == OP_NOP && !in.mem_size && !in.mem_access, "BNDCN is a NOP that reads nothing");
}

/* What Zydis does not tell. */
static void test_fields(void)
{
	struct insn in = decode_bytes(64, ~0ull, "48 0f a3 08");

	ok(in.op == OP_BT_MEM && in.klass == CLASS_REWRITE && in.mem_size == 8, "BT m, r reaches beyond its operand");
	ok(decode_bytes(64, ~0ull, "48 0f a3 c8").op == OP_COPY, "BT r, r does not");
	ok(decode_bytes(64, ~0ull, "48 0f ba 20 05").op == OP_COPY, "nor does BT m, imm");
	in = decode_bytes(64, ~0ull, "c4 e2 69 2e 08");
	ok(in.mem_masked && in.mem_elem == 4 && in.mem_mask_vreg == 2 && in.mem_access == ACCESS_WRITE,
	   "VMASKMOVPS: elements and mask register");
	in = decode_bytes(64, ~0ull, "62 f2 7d 49 8a 08");
	ok(in.mem_packed && in.mem_masked && in.mem_size == 64 && in.mem_elem == 4, "VCOMPRESSPS is packed");
	in = decode_bytes(64, ~0ull, "62 f1 74 58 58 48 02");
	ok(in.mem_size == 4 && in.mem_elem == 4 && !in.mem_masked && in.disp == 8, "broadcast: one element, disp8 * 4");
	in = decode_bytes(64, ~0ull, "c4 e2 71 90 04 90");
	ok(in.op == OP_GATHER && in.vsib && in.index == 2 && in.base == 0 && in.mem_size == 4 && in.mem_elem == 4,
	   "VPGATHERDD: index register and element");
	ok(decode_bytes(64, ~0ull, "c4 e2 71 90 04 88").klass == CLASS_INVALID, "mask and index must not be one");
	in = decode_bytes(32, ~0ull, "9a 78 56 34 12 cd ab");
	ok(in.op == OP_CALL_FAR && in.imm == 0x12345678 && in.imm2 == 0xabcd && !in.has_mem, "CALL 0xabcd:0x12345678");
	in = decode_bytes(16, ~0ull, "c8 10 00 03");
	ok(in.op == OP_ENTER && in.imm == 16 && in.imm2 == 3, "ENTER 16, 3");
	in = decode_bytes(64, ~0ull, "0f b2 08");
	ok(in.op == OP_LOAD_FAR && in.sreg == X86_SS && in.mem_size == 6, "LSS");
	in = decode_bytes(32, ~0ull, "c5 08");
	ok(in.op == OP_LOAD_FAR && in.sreg == X86_DS, "LDS");
	in = decode_bytes(32, ~0ull, "0f a9");
	ok(in.op == OP_POP_SEG && in.sreg == X86_GS, "POP GS");
	ok(decode_bytes(64, ~0ull, "8e c8").klass == CLASS_INVALID, "CS cannot be loaded by MOV");
	in = decode_bytes(64, ~0ull, "0f 20 18");
	ok(in.op == OP_MOV_FROM_CR && in.reg == 3 && in.gpr_fields == FIELD_RM && !in.has_mem, "MOV CR ignores mod");
	in = decode_bytes(64, ~0ull, "f3 64 a4");
	ok(in.op == OP_MOVS && in.seg == X86_FS && in.rep && in.opsize == 1 && !in.has_mem &&
		   in.implicit_written == (1 << X86_RSI | 1 << X86_RDI | 1 << X86_RCX),
	   "REP MOVSB FS:");
	in = decode_bytes(64, ~0ull, "f3 a6");
	ok(in.flags_maybe == X86_ARITH_FLAGS && !in.flags_written, "REPE CMPSB may keep the flags");
	in = decode_bytes(64, ~0ull, "d3 e0");
	ok(in.flags_maybe == X86_ARITH_FLAGS && !in.flags_written, "so may SHL by CL");
	in = decode_bytes(64, ~0ull, "66 0f 6f 00");
	ok(in.mem_align == 16 && in.fpu == FPU_SSE && in.pp == PP_66 && in.opsize == 4, "MOVDQA: alignment, prefix");
	in = decode_bytes(64, ~0ull, "48 0f c7 08");
	ok(in.mem_align == 16 && in.mem_size == 16 && in.lockable && in.mem_access == ACCESS_RW, "CMPXCHG16B");
	in = decode_bytes(64, ~0ull, "62 f1 74 58 58 c1");
	ok(in.vl == 2 && in.evex_ll == 2 && in.evex_b, "rounding: vector length and its field");
}

int main(void)
{
	static const unsigned bits[3] = {16, 32, 64};
	const char *seed = getenv("SEED");

	rng = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	diag("SEED=%" PRIu64, rng);
	for (unsigned i = 0; i < 3; i++)
		oracle_init(&oracles[i], bits[i]);
	test_table();
	test_limits();
	test_features();
	test_fields();
	for (unsigned i = 0; i < 3; i++)
		test_legacy(&oracles[i]);
	test_vex(&oracles[1]);
	test_vex(&oracles[2]);
	test_evex(&oracles[1]);
	test_evex(&oracles[2]);
	return done_testing();
}
