/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holes that were found in the translator: each is a piece of guest code that once reached what is not the
 * guest's, or brought the VMM to a stop.
 */
#include <string.h>

#include "cpu/bt/private.h"
#include "tests/tap.h"
#include "tests/unit/bt_guest.h"
#include "tests/unit/bt_verify.h"

static struct bt_guest g;

static void run_at(uint64_t rip, unsigned cpl, uint16_t code_attr)
{
	struct x86_sregs s;
	struct x86_regs r;
	struct vcpu_exit e;

	guest_setup(&g, cpl, X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX);
	vcpu_get_sregs(g.vcpu, &s);
	s.seg[X86_CS].attr = (uint16_t)(code_attr | cpl << 5);
	vcpu_set_sregs(g.vcpu, &s);
	vcpu_get_regs(g.vcpu, &r);
	r.rip = rip;
	vcpu_set_regs(g.vcpu, &r);
	vcpu_run(g.vcpu, &e);
}

#define CODE64 0xa09b
#define CODE32 0xc09b
#define EXIT_GUEST 0xba, 0xf4, 0, 0, 0, 0xee, 0xeb, 0xfe /* mov edx, 0xf4; out dx, al; jmp . */

/* VEX.W outside of 64-bit code: the access stays as wide as the check, 4 bytes. */
static void test_vex_w(void)
{
	static const uint8_t code[] = {
		0xbb, 0xfc, 0x0f, 0x30, 0x00,		/* mov ebx, 0x300ffc */
		0xc4, 0xe1, 0x71, 0xef, 0xc9,		/* vpxor xmm1, xmm1, xmm1 (W ignored) */
		0xc4, 0xe1, 0xf9, 0x7e, 0x0b,		/* vmovd [ebx], xmm1, with W */
		0xc4, 0xe3, 0xf9, 0x16, 0x0b, 0x00,	/* vpextrd [ebx], xmm1, 0, with W */
		EXIT_GUEST,
	};
	uint64_t next = 0x1122334455667788, got;

	if (!__builtin_cpu_supports("avx2")) {
		ok(1, "no AVX here # SKIP");
		return;
	}
	guest_load(&g, GUEST_CODE, code, sizeof(code));
	for (unsigned n = 0; n < 2; n++) { /* the first access fills the TLB, the second finds it */
		guest_put64(&g, 0x300ff8, ~0ull);
		guest_put64(&g, 0x301000, next);
		run_at(GUEST_CODE, 3, CODE32);
		if (!mem_read(g.mem, 0x301000, &got, 8))
			abort();
		is_u64(got, next, "the next page is left alone");
		if (!mem_read(g.mem, 0x300ff8, &got, 8))
			abort();
		is_u64(got, 0xffffffff, "four bytes are written");
	}
}

static void map_4k(uint64_t linear, uint64_t gpa)
{
	uint64_t table = GUEST_TABLES + 0x3000;

	guest_put64(&g, GUEST_TABLES + 0x2000 + (linear >> 21 & 511) * 8, table | 7);
	guest_put64(&g, table + (linear >> 12 & 511) * 8, gpa | 7);
}

/* One instruction in two linear pages that are the same page of RAM: its block is in the page's list once. */
static void test_straddle_same_page(void)
{
	static const uint8_t end[] = {0xbe, 0x78}, start[] = {0x56, 0x34, 0x12, 0xeb, 0x00, EXIT_GUEST};
	struct bt_engine *e = (struct bt_engine *)g.engine;
	struct x86_regs r;

	map_4k(0x400000, 0x204000);
	map_4k(0x401000, 0x204000);
	guest_load(&g, 0x204ffe, end, sizeof(end)); /* mov esi, 0x12345678 */
	guest_load(&g, 0x204000, start, sizeof(start));
	run_at(0x400ffe, 0, CODE64);
	vcpu_get_regs(g.vcpu, &r);
	is_u64(r.gpr[X86_RSI], 0x12345678, "an instruction that ends where its page begins");

	const struct code_page *cp = code_page_at(e, e->code_pages[0x204]);
	unsigned blocks = 0;

	for (struct block *b = block_at(e, cp->blocks); b && blocks < 100; b = blocks_next_in_page(e, b, 0x204))
		blocks++;
	ok(blocks < 100, "the page's list of %u blocks ends", blocks);
	if (blocks < 100) {
		guest_load(&g, 0x204000, "\xbb", 1); /* the immediate changes */
		run_at(0x400ffe, 0, CODE64);
		vcpu_get_regs(g.vcpu, &r);
		is_u64(r.gpr[X86_RSI], 0x1234bb78, "a write to its second part is seen");
	}
}

/* A one-instruction block that is dropped is left as it is: another vCPU may be between its instructions. */
static void test_drop_while_running(void)
{
	static const uint8_t code[] = {
		0xbb, 0xfc, 0x0f, 0x30, 0x00, /* mov ebx, 0x300ffc */
		0x48, 0x11, 0x03,	      /* adc [rbx], rax: across two pages, through C */
		EXIT_GUEST,
	};
	struct bt_engine *e = (struct bt_engine *)g.engine;
	const struct block *b;
	uint8_t before[16];

	guest_load(&g, GUEST_CODE, code, sizeof(code));
	run_at(GUEST_CODE, 0, CODE64);
	for (b = block_at(e, e->newest); b && !(b->mode & MODE_PRIVATE_BOUNCE); b = block_at(e, b->older))
		;
	ok(b && !b->dead, "there is a block of one instruction");
	if (!b)
		return;
	memcpy(before, e->cache_rx + b->jc_entry, sizeof(before));
	cache_invalidate(e, block_gpa(b), 1);
	ok(b->dead, "it is dropped");
	ok(!memcmp(before, e->cache_rx + b->jc_entry, sizeof(before)), "and its code is unchanged");
}

/* Opcode 82 is 80 outside of 64-bit code. */
static void test_alias(void)
{
	static const uint8_t code[] = {0xb8, 1, 0, 0, 0, 0x82, 0xc0, 0x41, EXIT_GUEST};
	struct x86_regs r;

	guest_load(&g, GUEST_CODE, code, sizeof(code));
	run_at(GUEST_CODE, 3, CODE32);
	vcpu_get_regs(g.vcpu, &r);
	is_u64(r.gpr[X86_RAX], 0x42, "82 /0 is ADD");
}

/* In 16-bit code fences get no operand-size prefix: 66 0F AE is TPAUSE, or nothing. */
static void test_fences16(void)
{
	static const uint8_t code[] = {
		0x0f, 0xae, 0xe8, 0x0f, 0xae, 0xf0, 0x0f, 0xae, 0xfa,	   /* lfence; mfence; sfence */
		0xbe, 0x34, 0x12, 0xba, 0xf4, 0x00, 0xee, 0xeb, 0xfe, /* mov si, 0x1234; … */
	};
	struct bt_engine *e = (struct bt_engine *)g.engine;
	unsigned found = 0;
	struct x86_regs r;

	guest_load(&g, GUEST_CODE, code, sizeof(code));
	run_at(GUEST_CODE, 3, 0x809b);
	vcpu_get_regs(g.vcpu, &r);
	is_u64(r.gpr[X86_RSI], 0x1234, "fences in 16-bit code");
	for (const struct block *b = block_at(e, e->newest); b; b = block_at(e, b->older))
		for (uint32_t at = b->jc_entry; block_gpa(b) == GUEST_CODE && at + 3 < block_code_end(b); at++)
			found += !memcmp(e->cache_rx + at, "\x66\x0f\xae", 3);
	is_u64(found, 0, "none with a prefix");
}

/* All that has been translated here. */
static void test_emitted(void)
{
	static struct verify v;
	const struct bt_engine *e = (const struct bt_engine *)g.engine;
	unsigned good = 0, bad = 0;

	for (const struct block *b = block_at(e, e->newest); b; b = block_at(e, b->older)) {
		if (verify_block(&v, e, b))
			good++;
		else if (!bad++)
			printf("# %#llx: %s\n", (unsigned long long)block_gpa(b), v.what);
	}
	ok(good && !bad, "%u blocks hold against the verifier, %u do not", good, bad);
}

/* There is no room for one of a block's records any more, whichever it is: links of jumps, calls and what they return to, instructions. */
static void test_no_room_for_records(void)
{
	static const uint8_t code[] = {
		0x31, 0xc0,			    /* xor eax, eax */
		0x75, 0x14,			    /* jnz, not taken */
		0xe8, 0x0f, 0x00, 0x00, 0x00,	    /* call the RET below */
		0xe8, 0xf2, 0x0f, 0x00, 0x00,	    /* call one in the next page */
		0xff, 0xc0,			    /* inc eax */
		EXIT_GUEST,
		0xc3,
	}, ret[] = { 0xff, 0xc0, 0xc3 };	    /* inc eax; ret */
	struct bt_engine *e = (struct bt_engine *)g.engine;
	unsigned good = 0, runs = 0;
	struct x86_regs r;

	for (unsigned room = 0; room < 1024; room += 8, runs++) {
		guest_load(&g, GUEST_CODE, code, sizeof(code));
		guest_load(&g, GUEST_CODE + 0x1000, ret, sizeof(ret));
		e->insns_start = e->meta_used + room;
		run_at(GUEST_CODE, 0, CODE64);
		vcpu_get_regs(g.vcpu, &r);
		good += r.gpr[X86_RAX] == 2;
	}
	is_u64(good, runs, "the guest goes on with an empty cache");
}

int main(void)
{
	guest_open(&g, 1);
	test_vex_w();
	test_straddle_same_page();
	test_drop_while_running();
	test_alias();
	test_fences16();
	test_no_room_for_records();
	test_emitted();
	guest_close(&g);
	return done_testing();
}
