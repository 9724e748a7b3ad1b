/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segmentation: limits, segment register loads and their checks, LDTR, TR, LAR, LSL, VERR, VERW,
 * ARPL.
 */
#include "tests/unit/fake_x86.h"

static struct bt_vcpu v;

static enum bt_result mov_to(unsigned seg, uint16_t selector)
{
	struct insn i = { .op = OP_MOV_SEG_TO, .sreg = (uint8_t)seg, .rm = X86_RAX, .opsize = 4 };

	BT_REG(&v, X86_RAX) = selector;
	return bt_op_mov_seg_to(&v, &i);
}

static enum bt_result with_rax(bt_op *op, uint64_t rax, unsigned opsize)
{
	struct insn i = { .rm = X86_RAX, .reg = X86_RCX, .opsize = (uint8_t)opsize };

	BT_REG(&v, X86_RAX) = rax;
	return op(&v, &i);
}

static void test_linear(void)
{
	uint64_t lin;

	scene32(&v, 0);
	descriptor(FREE, 0x10000, 0xfff, 0x93, 0x4);
	is_u64(mov_to(X86_DS, FREE), BT_EXIT, "DS with a limit changes the mode");
	is_u64(bt_linear(&v, X86_DS, 0xffc, 4, BT_READ, &lin), BT_NEXT, "the last four bytes");
	is_u64(lin, 0x10ffc, "base is added");
	ok(faulted(&v, bt_linear(&v, X86_DS, 0xffd, 4, BT_READ, &lin), X86_GP, 0),
	   "one beyond: #GP(0)");
	ok(faulted(&v, bt_linear(&v, X86_DS, ~0ull, 4, BT_READ, &lin), X86_GP, 0),
	   "offset that overflows");
	is_u64(v.segcheck[X86_DS].read_limit, 0x1000, "segcheck limit");

	descriptor(FREE, 0, 0xfff, 0x97, 0x4);
	mov_to(X86_DS, FREE);
	ok(faulted(&v, bt_linear(&v, X86_DS, 0xfff, 1, BT_READ, &lin), X86_GP, 0),
	   "expand-down: at the limit");
	is_u64(bt_linear(&v, X86_DS, 0x1000, 4, BT_WRITE, &lin), BT_NEXT, "expand-down: above it");
	is_u64(v.segcheck[X86_DS].read_limit, 0, "expand-down is always looked at");
	descriptor(FREE, 0, 0xfff, 0x97, 0);
	mov_to(X86_DS, FREE);
	ok(faulted(&v, bt_linear(&v, X86_DS, 0xfffd, 4, BT_READ, &lin), X86_GP, 0),
	   "16-bit expand-down ends at 64K");

	descriptor(FREE, 0, 0xfffff, 0x91, 0xc);
	mov_to(X86_DS, FREE);
	ok(faulted(&v, bt_linear(&v, X86_DS, 0, 1, BT_WRITE, &lin), X86_GP, 0), "read-only: write");
	is_u64(bt_linear(&v, X86_DS, 0, 1, BT_READ, &lin), BT_NEXT, "read-only: read");
	ok(faulted(&v, bt_linear(&v, X86_CS, 0, 1, BT_WRITE, &lin), X86_GP, 0), "code: write");
	is_u64(mov_to(X86_DS, 0), BT_NEXT, "null DS");
	ok(faulted(&v, bt_linear(&v, X86_DS, 0, 1, BT_READ, &lin), X86_GP, 0), "is not usable");

	scene64(&v, 0);
	ok(faulted(&v, bt_linear(&v, X86_DS, 0x800000000000, 1, BT_READ, &lin), X86_GP, 0),
	   "64-bit: not canonical");
	ok(faulted(&v, bt_linear(&v, X86_SS, 0x7fffffffffff, 2, BT_READ, &lin), X86_SS_VEC, 0),
	   "64-bit: straddles the hole, SS");
	v.seg[X86_FS].base = 0x1000;
	is_u64(bt_linear(&v, X86_FS, 0x234, 1, BT_READ, &lin), BT_NEXT, "FS");
	is_u64(lin, 0x1234, "has a base");
}

static void test_address(void)
{
	struct insn i = { .base = X86_RBX,
			  .index = X86_RSI,
			  .scale = 2,
			  .disp = -16,
			  .addrsize = 8,
			  .has_mem = true };

	scene64(&v, 0);
	BT_REG(&v, X86_RBX) = 0x1000;
	BT_REG(&v, X86_RSI) = 0x100000008;
	is_u64(bt_effective_address(&v, &i), 0x1000 + 0x400000020 - 16, "base + index * 4 + disp");
	i.addrsize = 4;
	is_u64(bt_effective_address(&v, &i), 0x1010, "cut to 32 bits");
	i.addrsize = 2;
	BT_REG(&v, X86_RBX) = 0xfff8;
	i.index = REG_NONE;
	i.disp = 0x10;
	is_u64(bt_effective_address(&v, &i), 8, "cut to 16 bits");
	i = (struct insn){ .base = REG_PC, .index = REG_NONE, .disp = 0x10, .addrsize = 8 };
	is_u64(bt_effective_address(&v, &i), 0x9012, "RIP-relative: from the next instruction");
}

static void test_loads(void)
{
	scene32(&v, 3);
	ok(faulted(&v, mov_to(X86_DS, DS0), X86_GP, DS0), "DS of DPL 0 at CPL 3: #GP(selector)");
	ok(faulted(&v, mov_to(X86_DS, DS0 | 3), X86_GP, DS0), "the error code has no RPL");
	is_u64(mov_to(X86_DS, DS3 & ~3), BT_NEXT, "RPL 0 is fine");
	ok(faulted(&v, mov_to(X86_SS, DS3 & ~3), X86_GP, DS3 & ~3), "SS: RPL must be CPL");
	ok(faulted(&v, mov_to(X86_SS, 0), X86_GP, 0), "null SS: #GP(0)");
	ok(faulted(&v, mov_to(X86_DS, 0x100), X86_GP, 0x100), "beyond the GDT");
	ok(faulted(&v, mov_to(X86_DS, 0x0c), X86_GP, 0x0c), "no LDT");
	ok(faulted(&v, mov_to(X86_DS, TSS_SEL), X86_GP, TSS_SEL), "a TSS");
	is_u64(mov_to(X86_DS, CONF0), BT_EXIT, "conforming code of DPL 0 is readable at CPL 3");
	descriptor(FREE, 0, 0, 0xf9, 0);
	ok(faulted(&v, mov_to(X86_ES, FREE | 3), X86_GP, FREE), "execute-only code");
	descriptor(FREE, 0, 0, 0x72, 0);
	ok(faulted(&v, mov_to(X86_ES, FREE | 3), X86_NP, FREE), "not present: #NP");
	ok(faulted(&v, mov_to(X86_SS, FREE | 3), X86_SS_VEC, FREE), "not present SS: #SS");
	descriptor(FREE, 0, 0xfffff, 0xf2, 0xc);
	is_u64(mov_to(X86_SS, FREE | 3), BT_EXIT, "SS");
	ok(v.interrupt_shadow, "holds off interrupts");
	is_u64(get(GDT + FREE + 5, 1), 0xf3, "accessed bit is set in memory");
	descriptor(FREE, 0, 0xfffff, 0xf2, 0xc);
	fake.page[GDT >> 12] |= FAKE_READ_ONLY;
	ok(mov_to(X86_DS, FREE | 3) == BT_FAULT && v.exception.vector == X86_PF_VEC,
	   "read-only GDT: #PF for the accessed bit");
	is_u64(v.exception.cr2, GDT + FREE + 5, "at its byte");
	is_u64(v.exception.error, X86_PFEC_P | X86_PFEC_W, "as a supervisor access");

	scene64(&v, 0);
	is_u64(mov_to(X86_SS, 0), BT_EXIT, "64-bit: null SS at CPL 0");
	v.seg[X86_GS].base = 0x1234;
	mov_to(X86_GS, 0);
	is_u64(v.gs_base, 0, "64-bit: null GS clears the base");

	scene_real(&v);
	v.seg[X86_DS].limit = 0xffffffff;
	mov_to(X86_DS, 0x1234);
	is_u64(v.seg[X86_DS].base, 0x12340, "real mode: base");
	is_u64(v.seg[X86_DS].limit, 0xffffffff, "real mode: the limit stays (unreal mode)");

	scene32(&v, 0);
	struct insn i = { .op = OP_LOAD_FAR,
			  .sreg = X86_FS,
			  .reg = X86_RDX,
			  .opsize = 4,
			  .has_mem = true,
			  .base = REG_NONE,
			  .index = REG_NONE,
			  .disp = 0x9100,
			  .addrsize = 4,
			  .seg = X86_DS };

	put(0x9100, 4, 0xcafef00d);
	put(0x9104, 2, DS0);
	ok(bt_op_load_far(&v, &i) != BT_FAULT, "LFS");
	is_u64(BT_REG(&v, X86_RDX), 0xcafef00d, "offset");
	is_u64(v.seg[X86_FS].selector, DS0, "selector");
}

static void test_pop(void)
{
	struct insn i = { .op = OP_POP_SEG, .sreg = X86_ES, .opsize = 4 };

	scene32(&v, 0);
	put(STACK0, 4, 0xffff0000 | DS3);
	is_u64(bt_op_pop_seg(&v, &i), BT_NEXT, "POP ES");
	is_u64(BT_REG(&v, X86_RSP), STACK0 + 4, "takes four bytes");
	put(STACK0 + 4, 4, 0x1f8);
	ok(faulted(&v, bt_op_pop_seg(&v, &i), X86_GP, 0x1f8), "bad selector");
	is_u64(BT_REG(&v, X86_RSP), STACK0 + 4, "ESP unchanged");
	i.op = OP_PUSH_SEG;
	is_u64(bt_op_push_seg(&v, &i), BT_NEXT, "PUSH ES");
	is_u64(get(STACK0, 4), 0xffff0000 | DS3, "writes 16 bits, as Intel's CPUs do");
}

static void test_system(void)
{
	scene32(&v, 0);
	is_u64(with_rax(bt_op_lldt, LDT_SEL, 2), BT_NEXT, "LLDT");
	is_u64(v.ldtr.base, LDT, "base");
	ok(faulted(&v, with_rax(bt_op_lldt, DS0, 2), X86_GP, DS0), "LLDT of data");
	ok(faulted(&v, with_rax(bt_op_lldt, 0xc, 2), X86_GP, 0xc), "LLDT of an LDT selector");
	is_u64(with_rax(bt_op_lldt, 0, 2), BT_NEXT, "LLDT of null");
	ok(!(v.ldtr.attr & X86_ATTR_P), "is no LDT");
	ok(faulted(&v, with_rax(bt_op_ltr, TSS_SEL, 2), X86_GP, TSS_SEL), "LTR of a busy TSS");
	ok(faulted(&v, with_rax(bt_op_ltr, 0, 2), X86_GP, 0), "LTR of null");
	descriptor(TSS2_SEL, TSS2, 0x67, 0x89, 0);
	is_u64(with_rax(bt_op_ltr, TSS2_SEL, 2), BT_NEXT, "LTR");
	is_u64(get(GDT + TSS2_SEL + 5, 1), 0x8b, "busy in memory");
	is_u64(v.tr.attr & 15, 11, "and in TR");
	is_u64(with_rax(bt_op_str, ~0ull, 4), BT_NEXT, "STR");
	is_u64(BT_REG(&v, X86_RAX), TSS2_SEL, "zero-extended");
	v.cpl = 3;
	ok(faulted(&v, with_rax(bt_op_ltr, TSS2_SEL, 2), X86_GP, 0), "LTR at CPL 3");
	is_u64(with_rax(bt_op_sldt, 0, 4), BT_NEXT, "SLDT at CPL 3");
	v.cr4 |= X86_CR4_UMIP;
	ok(faulted(&v, with_rax(bt_op_sldt, 0, 4), X86_GP, 0), "not with UMIP");

	scene64(&v, 0);
	descriptor(TSS2_SEL, TSS2, 0x67, 0x89, 0);
	put(GDT + TSS2_SEL + 8, 8, 0xffff8000);
	is_u64(with_rax(bt_op_ltr, TSS2_SEL, 2), BT_NEXT, "64-bit LTR");
	is_u64(v.tr.base, 0xffff800000000000 + TSS2, "64-bit base");
	descriptor(TSS2_SEL, TSS2, 0x67, 0x89, 0);
	put(GDT + TSS2_SEL + 8, 8, 0x100ull << 32);
	ok(faulted(&v, with_rax(bt_op_ltr, TSS2_SEL, 2), X86_GP, TSS2_SEL),
	   "upper type bits set: #GP");

	scene_v86(&v, 3);
	ok(faulted_plain(&v, with_rax(bt_op_str, 0, 2), X86_UD), "STR in V86 mode: #UD");
}

static bool zf(void)
{
	return bt_get_rflags(&v) & X86_ZF;
}

static void test_look(void)
{
	scene32(&v, 0);
	with_rax(bt_op_lar, CS0, 4);
	ok(zf(), "LAR of code");
	is_u64(BT_REG(&v, X86_RCX), 0x00c09b00, "access rights");
	BT_REG(&v, X86_RCX) = 0x1111222233334444;
	with_rax(bt_op_lar, CS0, 2);
	is_u64(BT_REG(&v, X86_RCX), 0x1111222233339b00, "16-bit LAR");
	with_rax(bt_op_lsl, CS0, 4);
	is_u64(BT_REG(&v, X86_RCX), 0xffffffff, "LSL is in bytes");
	with_rax(bt_op_lsl, LDT_SEL, 4);
	ok(zf() && BT_REG(&v, X86_RCX) == 0xff, "LSL of an LDT");
	put(GDT + FREE, 8, 0);
	gate(GDT + FREE, CS0, 0, 0x8c, 0);
	with_rax(bt_op_lsl, FREE, 4);
	ok(!zf(), "LSL of a gate");
	with_rax(bt_op_lar, FREE, 4);
	ok(zf(), "LAR of a call gate");
	with_rax(bt_op_lar, 0, 4);
	ok(!zf(), "LAR of null");
	with_rax(bt_op_lar, 0x1f8, 4);
	ok(!zf(), "LAR beyond the GDT");
	with_rax(bt_op_verr, CS0, 2);
	ok(zf(), "VERR of readable code");
	with_rax(bt_op_verw, CS0, 2);
	ok(!zf(), "VERW of code");
	with_rax(bt_op_verw, DS0, 2);
	ok(zf(), "VERW of data");
	with_rax(bt_op_verw, DS0 | 1, 2);
	ok(!zf(), "VERW with RPL 1");
	with_rax(bt_op_verr, CONF0 | 3, 2);
	ok(zf(), "VERR of conforming code, whatever the RPL");

	struct insn i = { .rm = X86_RAX, .reg = X86_RCX, .opsize = 2 };

	BT_REG(&v, X86_RAX) = 0x1110;
	BT_REG(&v, X86_RCX) = 3;
	bt_op_arpl(&v, &i);
	ok(zf() && BT_REG(&v, X86_RAX) == 0x1113, "ARPL raises");
	bt_op_arpl(&v, &i);
	ok(!zf() && BT_REG(&v, X86_RAX) == 0x1113, "ARPL has nothing to raise");
}

int main(void)
{
	test_linear();
	test_address();
	test_loads();
	test_pop();
	test_system();
	test_look();
	return done_testing();
}
