/* SPDX-License-Identifier: Apache-2.0 */
/* Far JMP, CALL and RET, call gates, IRET in every mode, SYSCALL, SYSRET, SYSENTER, SYSEXIT. */
#include "tests/unit/fake_x86.h"

static struct bt_vcpu v;

static enum bt_result far(bt_op *op, uint16_t selector, uint64_t offset, unsigned opsize)
{
	struct insn i = { .opsize = (uint8_t)opsize, .imm = (int64_t)offset, .imm2 = selector };

	return op(&v, &i);
}

static enum bt_result ret(bt_op *op, unsigned opsize, unsigned extra)
{
	struct insn i = { .opsize = (uint8_t)opsize, .imm = extra };

	return op(&v, &i);
}

static void push_words(unsigned size, unsigned count, const uint64_t *value)
{
	for (unsigned n = 0; n < count; n++) {
		BT_REG(&v, X86_RSP) -= size;
		put(BT_REG(&v, X86_RSP), size, value[n]);
	}
}

#define PUSH(size, ...) \
	push_words(size, sizeof((uint64_t[]){ __VA_ARGS__ }) / 8, (uint64_t[]){ __VA_ARGS__ })

static void test_direct(void)
{
	scene_real(&v);
	is_u64(far(bt_op_jmp_far, 0x1234, 0x10, 2), BT_EXIT, "real JMP");
	is_u64(v.seg[X86_CS].base, 0x12340, "base");
	is_u64(v.next_rip, 0x10, "IP");
	ok(faulted(&v, far(bt_op_jmp_far, 0x1234, 0x10000, 4), X86_GP, 0), "beyond 64K");
	BT_REG(&v, X86_RSP) = 2;
	v.next_rip = 0x1111;
	is_u64(far(bt_op_call_far, 0x100, 0x20, 2), BT_EXIT, "real CALL with a wrapping stack");
	is_u64(get(0, 2), 0x1234, "CS at 0");
	is_u64(get(0xfffe, 2), 0x1111, "IP at 0xfffe");
	is_u64(ret(bt_op_ret_far, 2, 4), BT_EXIT, "real RET 4");
	is_u64(BT_REG(&v, X86_RSP), 6, "SP");
	is_u64(v.next_rip, 0x1111, "back");

	scene32(&v, 0);
	is_u64(far(bt_op_jmp_far, CS16, 0x1234, 4), BT_EXIT, "JMP to 16-bit code");
	is_u64(v.mode & MODE_CODE_MASK, MODE_CODE16, "mode");
	scene32(&v, 0);
	ok(faulted(&v, far(bt_op_jmp_far, 0, 0, 4), X86_GP, 0), "null");
	ok(faulted(&v, far(bt_op_jmp_far, CS3, 0, 4), X86_GP, CS3 & ~3), "JMP to CPL 3");
	ok(faulted(&v, far(bt_op_jmp_far, DS0, 0, 4), X86_GP, DS0), "JMP to data");
	ok(faulted(&v, far(bt_op_jmp_far, CS16, 0x10000, 4), X86_GP, 0),
	   "beyond the limit: #GP(0)");
	descriptor(FREE, 0, 0xfffff, 0x1b, 0xc);
	ok(faulted(&v, far(bt_op_jmp_far, FREE, 0, 4), X86_NP, FREE), "not present");
	is_u64(v.seg[X86_CS].selector, CS0, "nothing changed");
	scene32(&v, 3);
	is_u64(far(bt_op_jmp_far, CONF0, 0x9000, 4), BT_EXIT, "JMP to conforming code of DPL 0");
	is_u64(v.cpl, 3, "stays at CPL 3");
	is_u64(v.seg[X86_CS].selector, CONF0 | 3, "RPL is CPL");

	scene64(&v, 0);
	is_u64(far(bt_op_jmp_far, CS0, 0x9000, 4), BT_EXIT, "64-bit to compatibility mode");
	is_u64(v.mode & MODE_CODE_MASK, MODE_CODE32, "32-bit code");
	ok(bt_long_mode(&v) && !bt_code64(&v), "still IA-32e mode");
	scene64(&v, 0);
	ok(faulted(&v, far(bt_op_jmp_far, TSS_SEL, 0, 4), X86_GP, TSS_SEL),
	   "no task switch in IA-32e mode");
	descriptor(FREE, 0, 0xfffff, 0x9b, 0xe);
	ok(faulted(&v, far(bt_op_jmp_far, FREE, 0, 4), X86_GP, FREE), "L and D both set");
}

static void test_gates(void)
{
	scene32(&v, 3);
	gate(GDT + GATE, CS0, 0x9876, 0xec, 2);
	PUSH(4, 0xaaaa, 0xbbbb);
	is_u64(far(bt_op_call_far, GATE, 0, 4), BT_EXIT, "call gate with two parameters");
	is_u64(v.cpl, 0, "CPL 0");
	is_u64(v.next_rip, 0x9876, "entry point");
	is_u64(BT_REG(&v, X86_RSP), STACK0 - 24, "six words");
	is_u64(get(STACK0 - 4, 4), DS3, "SS");
	is_u64(get(STACK0 - 8, 4), STACK3 - 8, "ESP");
	is_u64(get(STACK0 - 12, 4), 0xaaaa, "first parameter");
	is_u64(get(STACK0 - 16, 4), 0xbbbb, "second parameter");
	is_u64(get(STACK0 - 20, 4), CS3, "CS");
	is_u64(get(STACK0 - 24, 4), 0x9002, "EIP");
	v.seg[X86_FS] = v.seg[X86_SS];
	is_u64(ret(bt_op_ret_far, 4, 8), BT_EXIT, "RET 8 to CPL 3");
	is_u64(v.cpl, 3, "CPL 3");
	is_u64(BT_REG(&v, X86_RSP), STACK3, "parameters are gone from both stacks");
	is_u64(v.seg[X86_FS].attr & X86_ATTR_P, 0, "FS of DPL 0 becomes null");
	is_u64(v.seg[X86_DS].selector, DS3, "DS stays");

	scene32(&v, 3);
	gate(GDT + GATE, CS0, 0x9876, 0x8c, 0);
	ok(faulted(&v, far(bt_op_call_far, GATE, 0, 4), X86_GP, GATE), "gate of DPL 0 from CPL 3");
	gate(GDT + GATE, CS0, 0x9876, 0x6c, 0);
	ok(faulted(&v, far(bt_op_call_far, GATE, 0, 4), X86_NP, GATE), "gate not present");
	gate(GDT + GATE, 0, 0x9876, 0xec, 0);
	ok(faulted(&v, far(bt_op_call_far, GATE, 0, 4), X86_GP, 0), "null code selector");
	gate(GDT + GATE, CS0, 0x9876, 0xec, 0);
	ok(faulted(&v, far(bt_op_jmp_far, GATE, 0, 4), X86_GP, CS0), "JMP cannot change CPL");
	put(TSS + 8, 2, 0);
	ok(faulted(&v, far(bt_op_call_far, GATE, 0, 4), X86_TS, 0), "SS0 null: #TS(0)");
	put(TSS + 8, 2, DS0);
	v.tr.limit = 8;
	ok(faulted(&v, far(bt_op_call_far, GATE, 0, 4), X86_TS, TSS_SEL),
	   "TSS too short: #TS(TSS)");
	v.tr.limit = 0x67;
	fake.page[(STACK0 >> 12) - 1] = FAKE_ABSENT;
	ok(far(bt_op_call_far, GATE, 0, 4) == BT_FAULT && v.exception.vector == X86_PF_VEC,
	   "#PF on the new stack");
	is_u64(v.exception.error, X86_PFEC_W, "as supervisor");
	is_u64(v.cpl, 3, "nothing changed");
	fake.page[(STACK0 >> 12) - 1] = 0;
	gate(GDT + GATE, CONF0, 0x9876, 0xec, 2);
	is_u64(far(bt_op_call_far, GATE, 0, 4), BT_EXIT, "gate to conforming code");
	is_u64(BT_REG(&v, X86_RSP), STACK3 - 8, "same stack, no parameters");
	is_u64(v.cpl, 3, "same CPL");

	scene64(&v, 3);
	gate(GDT + GATE, CS64, 0x80001234, 0xec, 5);
	put(GDT + GATE + 8, 8, 0xffffffff);
	is_u64(far(bt_op_call_far, GATE, 0, 4), BT_EXIT, "64-bit call gate");
	is_u64(v.next_rip, 0xffffffff80001234, "64-bit offset");
	is_u64(BT_REG(&v, X86_RSP), STACK0 - 32, "four words");
	is_u64(v.seg[X86_SS].selector, 0, "SS is null");
	is_u64(ret(bt_op_ret_far, 8, 0), BT_EXIT, "64-bit RETF");
	is_u64(v.cpl, 3, "CPL 3");
	is_u64(BT_REG(&v, X86_RSP), STACK3, "RSP");
	is_u64(v.seg[X86_SS].selector, DS3, "SS");
}

static void test_iret(void)
{
	scene_real(&v);
	BT_REG(&v, X86_RSP) = 0x1000;
	PUSH(2, 0xffff, 0x1234, 0x56);
	is_u64(ret(bt_op_iret, 2, 0), BT_EXIT, "real IRET");
	is_u64(bt_get_rflags(&v), 0x7fd7, "all flags of 16 bits");
	is_u64(v.seg[X86_CS].base, 0x12340, "CS");

	scene32(&v, 0);
	v.nmi_blocked = true;
	PUSH(4, 2 | X86_IF | X86_CF | X86_IOPL, CS0, 0x9100);
	is_u64(ret(bt_op_iret, 4, 0), BT_EXIT, "IRET to the same CPL");
	is_u64(BT_REG(&v, X86_RSP), STACK0, "three words");
	is_u64(bt_get_rflags(&v), 2 | X86_IF | X86_CF | X86_IOPL, "flags");
	ok(!v.nmi_blocked, "NMIs are unblocked");

	scene32(&v, 0);
	PUSH(4, DS3, STACK3, 2 | X86_IF, CS3, 0x9100);
	is_u64(ret(bt_op_iret, 4, 0), BT_EXIT, "IRET to CPL 3");
	is_u64(v.cpl, 3, "CPL");
	is_u64(BT_REG(&v, X86_RSP), STACK3, "ESP");
	is_u64(v.seg[X86_DS].attr & X86_ATTR_P, 0, "DS of DPL 0 becomes null");
	PUSH(4, 2 | X86_CF | X86_IOPL, CS3, 0x9100);
	ret(bt_op_iret, 4, 0);
	is_u64(bt_get_rflags(&v), 2 | X86_IF | X86_CF, "at CPL 3 neither IF nor IOPL change");

	scene32(&v, 0);
	PUSH(4, DS0, STACK3, 2, CS3, 0x9100);
	ok(faulted(&v, ret(bt_op_iret, 4, 0), X86_GP, DS0), "IRET to CPL 3 with a stack of DPL 0");
	is_u64(BT_REG(&v, X86_RSP), STACK0 - 20, "ESP unchanged");
	scene32(&v, 3);
	PUSH(4, 2, CS0, 0x9100);
	ok(faulted(&v, ret(bt_op_iret, 4, 0), X86_GP, CS0), "IRET to more privilege");

	scene32(&v, 0);
	PUSH(4, 0x906, 0x905, 0x904, 0x903, 0x902, 0x1000, 2 | X86_VM | X86_IF, 0x901, 0x77);
	is_u64(ret(bt_op_iret, 4, 0), BT_EXIT, "IRET to V86 mode");
	ok(bt_v86(&v) && v.cpl == 3, "VM, CPL 3");
	is_u64(v.seg[X86_CS].base, 0x9010, "CS");
	is_u64(v.seg[X86_ES].base, 0x9030, "ES");
	is_u64(v.seg[X86_GS].base, 0x9060, "GS");
	is_u64(BT_REG(&v, X86_RSP), 0x1000, "ESP");
	is_u64(v.next_rip, 0x77, "EIP");
	is_u64(v.mode & (MODE_USER | MODE_V86_REAL), MODE_USER | MODE_V86_REAL, "mode");
	ok(faulted(&v, ret(bt_op_iret, 2, 0), X86_GP, 0), "IRET in V86 mode with IOPL 0: #GP(0)");
	scene_v86(&v, 3);
	put(0x9000 + X86_SS * 16 + 0x1000, 2, 0x44);
	put(0x9000 + X86_SS * 16 + 0x1002, 2, 0x955);
	put(0x9000 + X86_SS * 16 + 0x1004, 2, X86_IF | X86_CF);
	is_u64(ret(bt_op_iret, 2, 0), BT_EXIT, "IRET in V86 mode with IOPL 3");
	is_u64(bt_get_rflags(&v), 2 | X86_VM | X86_IOPL | X86_IF | X86_CF, "VM and IOPL stay");

	scene64(&v, 0);
	v.sysflags |= X86_NT;
	ok(faulted(&v, ret(bt_op_iret, 8, 0), X86_GP, 0), "NT in IA-32e mode: #GP(0)");
	scene64(&v, 0);
	PUSH(8, 0, 0x7000, 2 | X86_IF, CS64, 0x9200);
	is_u64(ret(bt_op_iret, 8, 0), BT_EXIT, "IRETQ at CPL 0 with a null SS");
	is_u64(BT_REG(&v, X86_RSP), 0x7000, "RSP is popped without a change of CPL too");
	scene64(&v, 0);
	PUSH(8, DS3, 0x7000, 2 | X86_IF, CS3, 0x9200);
	is_u64(ret(bt_op_iret, 8, 0), BT_EXIT, "IRETQ to compatibility mode");
	is_u64(v.mode & MODE_CODE_MASK, MODE_CODE32, "mode");
	scene64(&v, 0);
	v.seg[X86_FS] = (struct x86_segment){ .selector = 3, .base = 0x7fff00001000 };
	v.seg[X86_ES] = v.seg[X86_DS];
	PUSH(8, DS3, 0x7000, 2, CS64_3, 0x9200);
	is_u64(ret(bt_op_iret, 8, 0), BT_EXIT, "IRETQ to 64-bit code at CPL 3");
	is_u64(v.fs_base, 0x7fff00001000, "a null FS keeps its base");
	is_u64(v.seg[X86_FS].selector, 0, "and becomes 0");
	is_u64(v.seg[X86_ES].selector, 0, "ES of DPL 0 becomes null");
	scene64(&v, 0);
	PUSH(8, 0, 0x7000, 2, CS64_3, 0x9200);
	ok(faulted(&v, ret(bt_op_iret, 8, 0), X86_GP, 0), "IRETQ to CPL 3 with a null SS");
	scene64(&v, 0);
	PUSH(8, DS3, 0x7000, 2, CS64_3, 0x900000000000);
	ok(faulted(&v, ret(bt_op_iret, 8, 0), X86_GP, 0), "IRETQ to a RIP that is not canonical");
	is_u64(v.cpl, 0, "faults at CPL 0");
}

static void test_fast(void)
{
	scene64(&v, 3);
	v.star = 0x00230010ull << 32;
	v.lstar = 0xffffffff81000000;
	v.sfmask = X86_IF | X86_TF | X86_DF | X86_AC;
	bt_set_rflags(&v, 2 | X86_IF | X86_AC | X86_ZF);
	is_u64(ret(bt_op_syscall, 4, 0), BT_EXIT, "SYSCALL");
	is_u64(BT_REG(&v, X86_RCX), 0x9002, "RCX");
	is_u64(BT_REG(&v, X86_R11), 2 | X86_IF | X86_AC | X86_ZF, "R11");
	is_u64(v.next_rip, 0xffffffff81000000, "RIP");
	is_u64(bt_get_rflags(&v), 2 | X86_ZF, "masked flags");
	is_u64(v.seg[X86_CS].selector, 0x10, "CS");
	is_u64(v.seg[X86_SS].selector, 0x18, "SS");
	is_u64(v.cpl, 0, "CPL 0");
	is_u64(ret(bt_op_sysret, 8, 0), BT_EXIT, "SYSRET to 64-bit");
	is_u64(v.seg[X86_CS].selector, 0x33, "CS");
	is_u64(v.seg[X86_SS].selector, 0x2b, "SS");
	is_u64(v.next_rip, 0x9002, "RIP");
	is_u64(bt_get_rflags(&v), 2 | X86_IF | X86_AC | X86_ZF, "flags from R11");
	is_u64(v.mode & (MODE_CODE_MASK | MODE_USER), MODE_CODE64 | MODE_USER, "mode");
	ok(faulted(&v, ret(bt_op_sysret, 8, 0), X86_GP, 0), "SYSRET at CPL 3");
	v.efer &= ~(uint64_t)X86_EFER_SCE;
	ok(faulted_plain(&v, ret(bt_op_syscall, 4, 0), X86_UD), "SYSCALL without SCE");

	scene64(&v, 0);
	v.star = 0x00230010ull << 32;
	BT_REG(&v, X86_RCX) = 0x123456789;
	is_u64(ret(bt_op_sysret, 4, 0), BT_EXIT, "SYSRET to compatibility mode");
	is_u64(v.seg[X86_CS].selector, 0x23, "CS");
	is_u64(v.next_rip, 0x23456789, "32-bit EIP");
	is_u64(v.mode & MODE_CODE_MASK, MODE_CODE32, "mode");
	scene64(&v, 0);
	BT_REG(&v, X86_RCX) = 0x800000000000;
	ok(faulted(&v, ret(bt_op_sysret, 8, 0), X86_GP, 0),
	   "SYSRET to a RIP that is not canonical: #GP at CPL 0");

	scene32(&v, 3);
	ok(faulted(&v, ret(bt_op_sysenter, 4, 0), X86_GP, 0), "SYSENTER with a null CS");
	v.sysenter_cs = 8;
	v.sysenter_esp = 0x7000;
	v.sysenter_eip = 0x9300;
	bt_set_rflags(&v, 2 | X86_IF);
	is_u64(ret(bt_op_sysenter, 4, 0), BT_EXIT, "SYSENTER");
	is_u64(v.next_rip, 0x9300, "EIP");
	is_u64(BT_REG(&v, X86_RSP), 0x7000, "ESP");
	is_u64(v.seg[X86_SS].selector, 0x10, "SS");
	is_u64(bt_get_rflags(&v), 2, "IF is cleared");
	BT_REG(&v, X86_RCX) = 0xa000;
	BT_REG(&v, X86_RDX) = 0x9400;
	is_u64(ret(bt_op_sysexit, 4, 0), BT_EXIT, "SYSEXIT");
	is_u64(v.seg[X86_CS].selector, 0x1b, "CS");
	is_u64(v.seg[X86_SS].selector, 0x23, "SS");
	is_u64(v.cpl, 3, "CPL 3");
	ok(faulted(&v, ret(bt_op_sysexit, 4, 0), X86_GP, 0), "SYSEXIT at CPL 3");
}

int main(void)
{
	test_direct();
	test_gates();
	test_iret();
	test_fast();
	return done_testing();
}
