/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended state: FXSAVE, XSAVE and their kin, the x87 environment, gathers, scatters, MASKMOV. The
 * guest's state is loaded into the host's registers around the call of the op, as it is in the
 * translator.
 */
#include <cpuid.h>

#include "tests/unit/fake_x86.h"

static struct bt_vcpu v;
static struct bt_xarea before, after;

/* Loads @before into the registers, calls op(&v, i), saves the registers to @after. */
static __attribute__((noinline)) enum bt_result live(bt_op *op, const struct insn *i)
{
	uint64_t res;

	memset(&after, 0, sizeof(after));
	__asm__ volatile(
		"mov %%rsp, %%rbx\n\t"
		"sub $256, %%rsp\n\t"
		"and $-64, %%rsp\n\t"
		"mov $0xe7, %%eax\n\t"
		"xor %%edx, %%edx\n\t"
		"xrstor64 (%[before])\n\t"
		"call *%[op]\n\t"
		"mov %%rax, %%r12\n\t"
		"mov $0xe7, %%eax\n\t"
		"xor %%edx, %%edx\n\t"
		"xsave64 (%[after])\n\t"
		"fninit\n\t"
		"mov %%rbx, %%rsp\n\t"
		"mov %%r12, %[res]\n\t"
		: [res] "=r"(res), "+D"(*(struct bt_vcpu **)&(struct bt_vcpu *){ &v }), "+S"(i)
		: [before] "r"(&before), [after] "r"(&after), [op] "r"(op)
		: "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "memory", "cc");
	return (enum bt_result)res;
}

static uint64_t host_components;

static uint32_t offset_of(unsigned component)
{
	return fake.cpuid.xsave[component].offset;
}

/* Every byte of the state that the host has is known. */
static void fill_state(void)
{
	memset(&before, 0, sizeof(before));
	memcpy(before.bytes, &(uint16_t){ 0x37f }, 2);
	before.bytes[4] = 0xff;
	memcpy(before.bytes + 24, &(uint32_t){ 0x1fa0 }, 4);
	for (unsigned n = 0; n < 8; n++) {
		memset(before.bytes + 32 + 16 * n, 0x30 + (int)n, 8);
		before.bytes[32 + 16 * n + 7] |= 0x80; /* normal numbers */
		memcpy(before.bytes + 32 + 16 * n + 8, &(uint16_t){ 0x4000 }, 2);
	}
	for (unsigned n = 0; n < 256; n++)
		before.bytes[160 + n] = (uint8_t)(n * 3 + 1);
	for (unsigned c = 2; c < 8; c++)
		for (unsigned n = 0; n < fake.cpuid.xsave[c].size; n++)
			before.bytes[offset_of(c) + n] = (uint8_t)(n * 5 + c);
	memcpy(before.bytes + 512, &host_components, 8);
}

static void scene(bool wide)
{
	if (wide)
		scene64(&v, 3);
	else
		scene32(&v, 3);
	v.cr4 |= X86_CR4_OSXSAVE;
	v.xcr0 = fake.cpuid.xcr0;
	bt_mode_update(&v);
	host_components = v.xcr0;
	fill_state();
	memset(fake.mem + 0x10000, 0xcc, 0x4000);
}

static struct insn mem(uint64_t at)
{
	return (struct insn){ .has_mem = true,
			      .base = REG_NONE,
			      .index = REG_NONE,
			      .seg = X86_DS,
			      .addrsize = 8,
			      .disp = (int64_t)at,
			      .opsize = 4 };
}

static void mask(uint64_t value)
{
	BT_REG(&v, X86_RAX) = (uint32_t)value;
	BT_REG(&v, X86_RDX) = value >> 32;
}

static bool untouched(uint64_t from, uint64_t to)
{
	for (; from < to; from++)
		if (fake.mem[from] != 0xcc)
			return false;
	return true;
}

/* The whole state is as before the op. */
static bool unchanged(void)
{
	if (memcmp(before.bytes, after.bytes, 8) || memcmp(before.bytes + 24, after.bytes + 24, 4))
		return false;
	for (unsigned n = 0; n < 8; n++)
		if (memcmp(before.bytes + 32 + 16 * n, after.bytes + 32 + 16 * n, 10))
			return false;
	if (memcmp(before.bytes + 160, after.bytes + 160, 256))
		return false;
	for (unsigned c = 2; c < 8; c++)
		if (memcmp(before.bytes + offset_of(c), after.bytes + offset_of(c),
			   fake.cpuid.xsave[c].size))
			return false;
	return true;
}

static void test_fx(void)
{
	struct insn i = mem(0x10000);

	scene(true);
	is_u64(live(bt_op_fxsave, &i), BT_NEXT, "FXSAVE");
	ok(unchanged(), "changes nothing");
	ok(!memcmp(fake.mem + 0x100a0, before.bytes + 160, 256), "16 XMM registers");
	ok(!memcmp(fake.mem + 0x10020, before.bytes + 32, 10), "ST0");
	is_u64(get(0x10000, 2), 0x37f, "FCW");
	is_u64(get(0x10018, 4), 0x1fa0, "MXCSR");
	is_u64(get(0x10008, 8) | get(0x10010, 8), 0, "no host addresses");
	ok(untouched(0x101a0, 0x10200), "bytes 416 to 511 are not written");
	i.disp = 0x10008;
	ok(faulted(&v, live(bt_op_fxsave, &i), X86_GP, 0), "not aligned: #GP(0)");
	v.cr0 |= X86_CR0_TS;
	ok(faulted_plain(&v, live(bt_op_fxsave, &i), X86_NM), "CR0.TS: #NM");

	scene(false);
	i = mem(0x10000);
	live(bt_op_fxsave, &i);
	ok(untouched(0x10120, 0x10200), "32-bit mode: eight XMM registers");

	scene(true);
	live(bt_op_fxsave, &i);
	put(0x10018, 4, 0x1f80);
	memset(fake.mem + 0x100a0, 0x5a, 256);
	is_u64(live(bt_op_fxrstor, &i), BT_NEXT, "FXRSTOR");
	is_u64(after.bytes[160 + 255], 0x5a, "XMM15");
	is_u64(after.bytes[25], 0x1f, "MXCSR");
	if (v.xcr0 & 4)
		ok(!memcmp(after.bytes + offset_of(2), before.bytes + offset_of(2), 256),
		   "YMM upper halves stay");
	put(0x10018, 4, 0x10000);
	ok(faulted(&v, live(bt_op_fxrstor, &i), X86_GP, 0), "MXCSR reserved bit: #GP(0)");
	ok(unchanged(), "and nothing is loaded");
}

static void test_xsave(void)
{
	struct insn i = mem(0x10000);

	scene(true);
	memset(fake.mem + 0x10200, 0, 64);
	put(0x10200, 8, ~0ull);
	mask(~0ull);
	is_u64(live(bt_op_xsave, &i), BT_NEXT, "XSAVE of everything");
	ok(unchanged(), "changes nothing");
	is_u64(get(0x10200, 8) & v.xcr0, v.xcr0, "XSTATE_BV: all in use");
	is_u64(get(0x10200, 8) | v.xcr0, ~0ull, "and bits outside of the mask are kept");
	for (unsigned c = 2; c < 8; c++)
		if (v.xcr0 >> c & 1)
			ok(!memcmp(fake.mem + 0x10000 + offset_of(c), before.bytes + offset_of(c),
				   fake.cpuid.xsave[c].size),
			   "component %u", c);

	scene(true);
	memset(fake.mem + 0x10200, 0, 64);
	put(0x10200, 8, 4);
	mask(X86_XCR0_SSE);
	live(bt_op_xsave, &i);
	ok(untouched(0x10000, 0x10018) && untouched(0x10020, 0x100a0),
	   "RFBM = SSE: x87 is not written");
	is_u64(get(0x10200, 8), 6, "XSTATE_BV: AVX kept, SSE set");
	ok(untouched(0x10240, 0x11000), "nor anything behind the header");
	i.disp = 0x10010;
	ok(faulted(&v, live(bt_op_xsave, &i), X86_GP, 0), "aligned to 64: #GP(0)");
	v.cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
	ok(faulted_plain(&v, live(bt_op_xsave, &i), X86_UD), "without OSXSAVE: #UD");

	/* Initial state: XSAVEOPT and XSAVEC leave it out. */
	scene(true);
	i = mem(0x10000);
	memset(before.bytes + 512, 0, 8);
	before.bytes[512] = 1;
	memcpy(before.bytes + 24, &(uint32_t){ 0x1f80 }, 4);
	memset(fake.mem + 0x10200, 0, 64);
	mask(7);
	is_u64(live(bt_op_xsaveopt, &i), BT_NEXT, "XSAVEOPT");
	is_u64(get(0x10200, 8) & 5, 1, "AVX is in its initial state");
	if (v.xcr0 & 4)
		ok(untouched(0x10000 + offset_of(2), 0x10000 + offset_of(2) + 256),
		   "and not written");
	is_u64(get(0x10018, 4), 0x1f80, "MXCSR is");

	if (!(v.xcr0 & 4) || !(cpuid_guest(&fake.cpuid, 0xd, 1).eax & 2)) {
		skip("no XSAVEC");
		return;
	}
	scene(true);
	mask(6);
	is_u64(live(bt_op_xsavec, &i), BT_NEXT, "XSAVEC");
	is_u64(get(0x10200, 8), 6, "XSTATE_BV");
	is_u64(get(0x10208, 8), 1ull << 63 | 6, "XCOMP_BV");
	ok(!memcmp(fake.mem + 0x10240, before.bytes + offset_of(2), 256),
	   "AVX comes right after the header");
	/* It does not write the rest of the header. */
	memset(fake.mem + 0x10210, 0, 48);
	memset(fake.mem + 0x10240, 0x77, 256);
	is_u64(live(bt_op_xrstor, &i), BT_NEXT, "XRSTOR of the compacted form");
	is_u64(after.bytes[offset_of(2) + 255], 0x77, "AVX");
	is_u64(get(0x10240, 1), 0x77, "memory stays");
	put(0x10210, 1, 1);
	ok(faulted(&v, live(bt_op_xrstor, &i), X86_GP, 0), "header bytes must be 0");
	put(0x10210, 1, 0);
	put(0x10208, 8, 1ull << 63 | 2);
	ok(faulted(&v, live(bt_op_xrstor, &i), X86_GP, 0), "XSTATE_BV beyond XCOMP_BV");
	ok(unchanged(), "nothing is loaded");
}

static void test_xrstor(void)
{
	struct insn i = mem(0x10000);

	scene(true);
	memset(fake.mem + 0x10000, 0, 0x1000);
	put(0x10000, 2, 0x27f);
	put(0x10018, 4, 0x1f80);
	put(0x10200, 8, 2);
	memset(fake.mem + 0x100a0, 0x42, 256);
	mask(7);
	is_u64(live(bt_op_xrstor, &i), BT_NEXT, "XRSTOR");
	is_u64(after.bytes[0] | after.bytes[1] << 8, 0x37f, "x87 not in XSTATE_BV: initial state");
	is_u64(after.bytes[4], 0, "all empty");
	is_u64(after.bytes[160], 0x42, "XMM0");
	if (v.xcr0 & 4)
		is_u64(after.bytes[offset_of(2) + 8], 0, "AVX: initial state");
	if (v.xcr0 & 0x80)
		ok(!memcmp(after.bytes + offset_of(7), before.bytes + offset_of(7), 64),
		   "AVX-512 not in the mask stays");

	put(0x10200, 8, 1ull << 9);
	ok(faulted(&v, live(bt_op_xrstor, &i), X86_GP, 0),
	   "a component that XCR0 does not have: #GP(0)");
	put(0x10200, 8, 2);
	put(0x10018, 4, 0xffff0000);
	ok(faulted(&v, live(bt_op_xrstor, &i), X86_GP, 0), "MXCSR: #GP(0)");
	mask(1);
	is_u64(live(bt_op_xrstor, &i), BT_NEXT, "not looked at without SSE and AVX in the mask");

	scene(false);
	memset(fake.mem + 0x10000, 0, 0x1000);
	put(0x10018, 4, 0x1f80);
	put(0x10200, 8, 7);
	mask(7);
	is_u64(live(bt_op_xrstor, &i), BT_NEXT, "XRSTOR in 32-bit mode");
	is_u64(after.bytes[160], 0, "XMM0");
	ok(!memcmp(after.bytes + 160 + 128, before.bytes + 160 + 128, 128), "XMM8 to XMM15 stay");
	if (v.xcr0 & 4)
		ok(!memcmp(after.bytes + offset_of(2) + 128, before.bytes + offset_of(2) + 128,
			   128),
		   "and YMM8 to YMM15");
	put(0x10200, 8, 0);
	live(bt_op_xrstor, &i);
	ok(!memcmp(after.bytes + 160 + 128, before.bytes + 160 + 128, 128),
	   "also when initialized");
	if (v.xcr0 & 4)
		ok(!memcmp(after.bytes + offset_of(2) + 128, before.bytes + offset_of(2) + 128,
			   128),
		   "YMM too");
}

static void test_x87(void)
{
	struct insn i = mem(0x10000);

	scene(true);
	is_u64(live(bt_op_fnstenv, &i), BT_NEXT, "FNSTENV");
	is_u64(get(0x10000, 2), 0x37f, "FCW");
	is_u64(get(0x10008, 2), 0, "FTW: all valid");
	is_u64(get(0x1000c, 4) | get(0x10014, 4), 0, "no host addresses");
	ok(untouched(0x1001c, 0x10020), "28 bytes");
	i.opsize = 2;
	memset(fake.mem + 0x10000, 0xcc, 64);
	live(bt_op_fnstenv, &i);
	is_u64(get(0x10004, 2), 0, "16-bit form: FTW");
	ok(untouched(0x1000e, 0x10010), "14 bytes");

	scene(true);
	i = mem(0x10000);
	is_u64(live(bt_op_fnsave, &i), BT_NEXT, "FNSAVE");
	ok(!memcmp(fake.mem + 0x1001c + 10, before.bytes + 32 + 16, 10), "ST1");
	is_u64(after.bytes[4], 0, "the x87 unit is initialized");
	memset(fake.mem + 0x1001c, 0x11, 8);
	put(0x10000, 2, 0x27f);
	is_u64(live(bt_op_frstor, &i), BT_NEXT, "FRSTOR");
	is_u64(after.bytes[32], 0x11, "ST0");
	is_u64(after.bytes[0], 0x7f, "FCW");
	is_u64(after.bytes[1], 0x02, "FCW");
	fake.page[0x11] = FAKE_ABSENT;
	i.disp = 0x10fc0;
	ok(live(bt_op_fnsave, &i) == BT_FAULT && v.exception.cr2 == 0x11000,
	   "FNSAVE over an absent page");
	ok(unchanged(), "does not initialize");
}

static struct insn gather(unsigned opcode, unsigned reg, unsigned index, unsigned vvvv)
{
	return (struct insn){ .encoding = ENC_VEX,
			      .opcode = (uint8_t)opcode,
			      .reg = (uint8_t)reg,
			      .index = (uint8_t)index,
			      .vvvv = (uint8_t)vvvv,
			      .vsib = true,
			      .has_mem = true,
			      .base = X86_RBX,
			      .scale = 2,
			      .seg = X86_DS,
			      .addrsize = 8,
			      .vl = 1 };
}

static void test_gather(void)
{
	struct insn i = gather(0x90, 1, 2, 3);
	const int32_t index[8] = { 0, 5, -1, 7, 1, 0x400, 3, 2 };

	scene(true);
	if (!(v.xcr0 & 4)) {
		skip("no AVX");
		return;
	}
	BT_REG(&v, X86_RBX) = 0x10100;
	for (unsigned n = 0; n < 0x1000; n += 4)
		put(0x10000 + n, 4, 0xabc00000 | n);
	memcpy(before.bytes + 160 + 32, index, 16);
	memcpy(before.bytes + offset_of(2) + 32, index + 4, 16);
	memset(before.bytes + 160 + 48, 0xff, 16);
	memset(before.bytes + offset_of(2) + 48, 0xff, 16);
	memset(before.bytes + 160 + 48 + 4, 0, 4); /* element 1 is masked off */
	fake.page[0x11] = FAKE_ABSENT;		   /* element 5 faults */
	ok(live(bt_op_gather, &i) == BT_FAULT && v.exception.vector == X86_PF_VEC,
	   "VPGATHERDD: a fault at element 5");
	is_u64(v.exception.cr2, 0x11100, "CR2");
	uint32_t done[4], rest[4];

	memcpy(done, after.bytes + 160 + 16, 16);
	ok(done[0] == 0xabc00100 && done[2] == 0xabc000fc && done[3] == 0xabc0011c,
	   "elements before it are loaded");
	ok(!memcmp(&done[1], before.bytes + 160 + 16 + 4, 4), "the masked one is kept");
	memcpy(done, after.bytes + 160 + 48, 16);
	memcpy(rest, after.bytes + offset_of(2) + 48, 16);
	ok(!(done[0] | done[1] | done[2] | done[3] | rest[0]), "their mask is cleared");
	ok(rest[1] == ~0u && rest[2] == ~0u && rest[3] == ~0u, "the rest of the mask is set");
	fake.page[0x11] = FAKE_USER;
	put(0x11100, 4, 0x5555);
	memcpy(&before, &after, sizeof(before));
	is_u64(live(bt_op_gather, &i), BT_NEXT, "again");
	memcpy(rest, after.bytes + offset_of(2) + 16, 16);
	is_u64(rest[1], 0x5555, "element 5");
	memcpy(rest, after.bytes + offset_of(2) + 48, 16);
	is_u64(rest[0] | rest[1] | rest[2] | rest[3], 0, "the mask is all 0");
	if (v.xcr0 & 0x40)
		is_u64(after.bytes[offset_of(6) + 32 + 5], 0,
		       "the upper half of the ZMM register is 0");
	i.vvvv = 1;
	ok(faulted_plain(&v, live(bt_op_gather, &i), X86_UD), "mask is the destination: #UD");

	if ((v.xcr0 & 0xe0) != 0xe0) {
		skip("no AVX-512");
		return;
	}
	/* VPSCATTERQQ [rbx + zmm17 * 1] {k2}, zmm18 */
	scene(true);
	i = gather(0xa1, 18, 17, 0);
	i.encoding = ENC_EVEX;
	i.w = 1;
	i.vl = 2;
	i.scale = 0;
	i.evex_aaa = 2;
	BT_REG(&v, X86_RBX) = 0x10000;
	for (unsigned n = 0; n < 8; n++)
		memcpy(before.bytes + offset_of(7) + 64 + 8 * n,
		       &(uint64_t){ n == 6 ? 0x10 : n * 8 }, 8);
	memcpy(before.bytes + offset_of(5) + 16, &(uint64_t){ 0xffffffffffffff7d }, 8);
	is_u64(live(bt_op_scatter, &i), BT_NEXT, "VPSCATTERQQ");
	ok(!memcmp(fake.mem + 0x10000, before.bytes + offset_of(7) + 128, 8), "element 0");
	ok(untouched(0x10008, 0x10010), "element 1 is masked off");
	ok(!memcmp(fake.mem + 0x10010, before.bytes + offset_of(7) + 128 + 48, 8),
	   "6 overwrites 2");
	ok(untouched(0x10030, 0x10100), "6 went elsewhere, 7 is masked off");
	is_u64(after.bytes[offset_of(5) + 16], 0, "k2 is 0");
}

static void test_maskmov(void)
{
	struct insn i = {
		.encoding = ENC_LEGACY, .pp = 1, .reg = 1, .rm = 2, .seg = X86_DS, .addrsize = 8
	};

	scene(true);
	BT_REG(&v, X86_RDI) = 0x10ff8;
	for (unsigned n = 0; n < 16; n++)
		before.bytes[160 + 32 + n] = n & 1 ? 0x80 : 0x7f;
	is_u64(live(bt_op_maskmov, &i), BT_NEXT, "MASKMOVDQU");
	ok(fake.mem[0x10ff8] == 0xcc && fake.mem[0x10ff9] == before.bytes[160 + 16 + 1] &&
		   fake.mem[0x11007] == before.bytes[160 + 16 + 15],
	   "bytes under the mask");
	fake.page[0x11] = FAKE_ABSENT;
	put(0x10ff8, 8, 0);
	ok(live(bt_op_maskmov, &i) == BT_FAULT && v.exception.cr2 == 0x11001,
	   "fault in the second page");
	is_u64(get(0x10ff8, 8), 0, "nothing is written");

	scene(true);
	i.pp = 0;
	BT_REG(&v, X86_RDI) = 0x10000;
	before.bytes[3] = 3 << 3; /* TOP = 3: MM2 is ST7, MM1 is ST6 */
	memset(before.bytes + 32 + 16 * 7, 0xf0, 8);
	is_u64(live(bt_op_maskmov, &i), BT_NEXT, "MASKMOVQ");
	is_u64(get(0x10000, 8), 0xb636363636363636, "MM1, whatever TOP is");
	is_u64(after.bytes[3] >> 3 & 7, 0, "TOP is 0 afterwards");
}

int main(void)
{
	uint32_t a, b, c, d;

	__cpuid(1, a, b, c, d);
	if (!(c & 1 << 27))
		skip_all("the host has no XSAVE");
	test_fx();
	test_xsave();
	test_xrstor();
	test_x87();
	test_gather();
	test_maskmov();
	return done_testing();
}
