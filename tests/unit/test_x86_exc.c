/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delivery of exceptions and interrupts: frames, error codes, stack switches, double and triple
 * faults.
 */
#include "tests/unit/fake_x86.h"

static struct bt_vcpu v;

static void test_real(void)
{
	scene_real(&v);
	put(4 * 0x21, 4, 0x12340056);
	BT_REG(&v, X86_RSP) = 0xdead1000;
	bt_set_rflags(&v, 2 | X86_IF | X86_CF | X86_TF);
	ok(bt_deliver_interrupt(&v, 0x21), "real mode: interrupt 0x21");
	is_u64(v.seg[X86_CS].selector, 0x1234, "CS");
	is_u64(v.seg[X86_CS].base, 0x12340, "CS base");
	is_u64(v.rip, 0x56, "IP");
	is_u64(BT_REG(&v, X86_RSP), 0xdead0ffa, "SP goes down by 6, the rest of ESP stays");
	is_u64(get(0xffa, 2), 0x10, "pushed IP");
	is_u64(get(0xffc, 2), 0x900, "pushed CS");
	is_u64(get(0xffe, 2), 0x303, "pushed FLAGS");
	is_u64(bt_get_rflags(&v), 3, "IF and TF are cleared");

	scene_real(&v);
	BT_REG(&v, X86_RSP) = 0x1000;
	put(4 * 13, 4, 0x00000100);
	ok(bt_deliver_exception(
		   &v, &(struct bt_exception){ .vector = 13, .has_error = true, .error = 8 }),
	   "real #GP");
	is_u64(BT_REG(&v, X86_RSP), 0xffa, "has no error code");

	scene_real(&v);
	v.idtr.limit = 0x10;
	ok(!bt_deliver_interrupt(&v, 0x21), "real mode: IDT too short for #GP and #DF: shutdown");
}

static void test_32(void)
{
	scene32(&v, 0);
	gate(IDT + 14 * 8, CS0, 0x9123, 0x8e, 0);
	bt_set_rflags(&v, 2 | X86_IF | X86_ZF | X86_NT | X86_TF);
	ok(bt_deliver_exception(&v, &(struct bt_exception){ .vector = 14,
							    .has_error = true,
							    .error = 2,
							    .cr2 = 0x77000 }),
	   "#PF at CPL 0");
	is_u64(v.rip, 0x9123, "EIP");
	is_u64(v.cr2, 0x77000, "CR2");
	is_u64(BT_REG(&v, X86_RSP), STACK0 - 16, "no stack switch: 4 words");
	is_u64(get(STACK0 - 16, 4), 2, "error code");
	is_u64(get(STACK0 - 12, 4), 0x9000, "pushed EIP is the instruction");
	is_u64(get(STACK0 - 8, 4), CS0, "pushed CS");
	is_u64(get(STACK0 - 4, 4), 2 | X86_IF | X86_ZF | X86_NT | X86_TF | X86_RF,
	       "pushed EFLAGS have RF");
	is_u64(bt_get_rflags(&v), 2 | X86_ZF, "interrupt gate: IF, TF, NT cleared");

	scene32(&v, 3);
	gate(IDT + 0x30 * 8, CS0, 0x9456, 0x8f, 0);
	bt_set_rflags(&v, 2 | X86_IF);
	ok(bt_deliver_interrupt(&v, 0x30), "interrupt from CPL 3 through a trap gate");
	is_u64(v.cpl, 0, "CPL");
	is_u64(v.seg[X86_SS].selector, DS0, "SS from the TSS");
	is_u64(BT_REG(&v, X86_RSP), STACK0 - 20, "stack from the TSS, 5 words");
	is_u64(get(STACK0 - 4, 4), DS3, "pushed SS");
	is_u64(get(STACK0 - 8, 4), STACK3, "pushed ESP");
	is_u64(get(STACK0 - 12, 4), 2 | X86_IF, "pushed EFLAGS, no RF for an interrupt");
	is_u64(get(STACK0 - 16, 4), CS3, "pushed CS");
	ok(bt_get_rflags(&v) & X86_IF, "a trap gate leaves IF");
	ok(!(v.mode & MODE_USER), "mode is supervisor");

	scene32(&v, 0);
	gate(IDT + 3 * 8, CS16, 0x9abc, 0x86, 0);
	ok(bt_deliver_interrupt(&v, 3), "16-bit interrupt gate");
	is_u64(BT_REG(&v, X86_RSP), STACK0 - 6, "three 16-bit words");
	is_u64(get(STACK0 - 6, 2), 0x9000, "IP");
	is_u64(v.mode & MODE_CODE_MASK, MODE_CODE16, "16-bit code");
}

/* Error codes of faults in delivery, seen in the #GP, #NP … handler's frame. */
static void expect_nested(const char *what, uint8_t vector, unsigned handler, uint32_t error)
{
	gate(IDT + handler * 8, CS0, 0x9900, 0x8e, 0);
	ok(bt_deliver_interrupt(&v, vector), "%s: delivered", what);
	is_u64(v.rip, 0x9900, "%s: to the right handler", what);
	is_u64(get(BT_REG(&v, X86_RSP), 4), error, "%s: error code", what);
}

static void test_errors(void)
{
	scene32(&v, 0);
	expect_nested("empty gate", 0xff, 13, 0xff * 8 + 3);
	scene32(&v, 0);
	v.idtr.limit = 0x107;
	expect_nested("IDT limit", 0x21, 13, 0x21 * 8 + 3);
	scene32(&v, 0);
	gate(IDT + 0x21 * 8, CS0, 0, 0x0e, 0);
	expect_nested("gate not present", 0x21, 11, 0x21 * 8 + 3);
	scene32(&v, 0);
	gate(IDT + 0x21 * 8, 0, 0, 0x8e, 0);
	expect_nested("null code selector", 0x21, 13, 1);
	scene32(&v, 0);
	gate(IDT + 0x21 * 8, DS0, 0, 0x8e, 0);
	expect_nested("data selector", 0x21, 13, DS0 + 1);
	scene32(&v, 0);
	gate(IDT + 0x21 * 8, 0x1f8, 0, 0x8e, 0);
	expect_nested("selector beyond the GDT", 0x21, 13, 0x1f8 + 1);
	scene32(&v, 0);
	descriptor(FREE, 0, 0xfffff, 0x1b, 0xc);
	gate(IDT + 0x21 * 8, FREE, 0, 0x8e, 0);
	expect_nested("code segment not present", 0x21, 11, FREE + 1);
	scene32(&v, 0);
	gate(IDT + 0x21 * 8, CS3, 0, 0x8e, 0);
	expect_nested("code segment of CPL 3 from CPL 0", 0x21, 13, (CS3 & ~3) + 1);

	scene32(&v, 3);
	gate(IDT + 0x21 * 8, CS0, 0x9000, 0x8e, 0);
	put(TSS + 8, 2, DS3 & ~3);
	gate(IDT + 10 * 8, CS3, 0x9900, 0x8e, 0);
	ok(bt_deliver_interrupt(&v, 0x21), "SS0 with a wrong DPL");
	is_u64(v.rip, 0x9900, "is #TS");
	is_u64(get(BT_REG(&v, X86_RSP), 4), (DS3 & ~3) + 1, "with SS and EXT");
}

static enum bt_result op_int(unsigned vector)
{
	struct insn i = { .op = OP_INT, .imm = vector, .opsize = 4 };

	return bt_op_int(&v, &i);
}

static void test_software(void)
{
	scene32(&v, 3);
	gate(IDT + 0x80 * 8, CS0, 0x9abc, 0xee, 0);
	is_u64(op_int(0x80), BT_EXIT, "INT 0x80 through a gate of DPL 3");
	is_u64(v.next_rip, 0x9abc, "target");
	is_u64(get(STACK0 - 20, 4), 0x9002, "pushed EIP is the next instruction's");

	scene32(&v, 3);
	gate(IDT + 0x80 * 8, CS0, 0x9abc, 0x8e, 0);
	ok(faulted(&v, op_int(0x80), 13, 0x80 * 8 + 2),
	   "gate of DPL 0: #GP(vector, IDT), EXT clear");
	is_u64(v.rip, 0x9000, "at the INT");
	is_u64(BT_REG(&v, X86_RSP), STACK3, "nothing changed");
	ok(bt_op_int1(&v, &(struct insn){ 0 }) == BT_FAULT && v.exception.error == 1 * 8 + 3,
	   "INT1: EXT is set");
	gate(IDT + 1 * 8, CS0, 0x9abc, 0x8e, 0);
	is_u64(bt_op_int1(&v, &(struct insn){ 0 }), BT_EXIT,
	       "INT1 does not look at the gate's DPL");

	scene32(&v, 0);
	is_u64(bt_op_into(&v, &(struct insn){ 0 }), BT_NEXT, "INTO without OF");

	scene_v86(&v, 0);
	ok(faulted(&v, op_int(0x21), 13, 0), "INT n in V86 mode with IOPL 0: #GP(0)");
	gate(IDT + 3 * 8, CS0, 0x9abc, 0xee, 0);
	is_u64(bt_op_int3(&v, &(struct insn){ 0 }), BT_EXIT, "INT3 does not care");
	is_u64(BT_REG(&v, X86_RSP), STACK0 - 36, "V86: nine words");
	is_u64(get(STACK0 - 4, 4), 0x900 + X86_GS, "GS");
	is_u64(get(STACK0 - 8, 4), 0x900 + X86_FS, "FS");
	is_u64(get(STACK0 - 12, 4), 0x900 + X86_DS, "DS");
	is_u64(get(STACK0 - 16, 4), 0x900 + X86_ES, "ES");
	is_u64(get(STACK0 - 20, 4), 0x900 + X86_SS, "SS");
	is_u64(get(STACK0 - 24, 4), 0x1000, "ESP");
	is_u64(get(STACK0 - 28, 4), 2 | X86_VM, "EFLAGS with VM");
	is_u64(get(STACK0 - 32, 4), 0x900 + X86_CS, "CS");
	is_u64(get(STACK0 - 36, 4), 0x12, "EIP");
	ok(!bt_v86(&v) && v.cpl == 0 && v.seg[X86_DS].attr == 0,
	   "protected mode, data segments null");
	gate(IDT + 3 * 8, CONF0, 0x9abc, 0xee, 0);
	scene_v86(&v, 3);
	gate(IDT + 3 * 8, CONF0, 0x9abc, 0xee, 0);
	ok(faulted(&v, bt_op_int3(&v, &(struct insn){ 0 }), 13, CONF0),
	   "V86 to a conforming segment: #GP(selector)");
}

static void test_double(void)
{
	scene32(&v, 0);
	gate(IDT + 8 * 8, CS0, 0x9800, 0x8e, 0);
	ok(bt_deliver_exception(&v, &(struct bt_exception){ .vector = 13, .has_error = true }),
	   "#GP without handler");
	is_u64(v.rip, 0x9800, "is #DF");
	is_u64(get(BT_REG(&v, X86_RSP), 4), 0, "with error code 0");

	scene32(&v, 0);
	ok(!bt_deliver_exception(&v, &(struct bt_exception){ .vector = 13, .has_error = true }),
	   "no handlers: shutdown");

	scene32(&v, 0);
	gate(IDT + 13 * 8, CS0, 0x9813, 0x8e, 0);
	ok(bt_deliver_exception(&v, &(struct bt_exception){ .vector = 6 }), "#UD without handler");
	is_u64(v.rip, 0x9813, "is #GP: #UD is benign");
	is_u64(get(BT_REG(&v, X86_RSP), 4), 6 * 8 + 3, "error names the vector, IDT, EXT");

	scene32(&v, 0);
	gate(IDT + 8 * 8, CS0, 0x9800, 0x8e, 0);
	gate(IDT + 14 * 8, 0, 0x9814, 0x8e, 0);
	ok(bt_deliver_exception(
		   &v, &(struct bt_exception){ .vector = 14, .has_error = true, .cr2 = 0x1234 }),
	   "#GP while delivering #PF");
	is_u64(v.rip, 0x9800, "is #DF");
	is_u64(v.cr2, 0x1234, "CR2 is that of the #PF");

	/* #GP, then #PF for its gate: serially. */
	scene32(&v, 0);
	v.idtr.base = 0x2f90;
	fake.page[2] = FAKE_ABSENT;
	fake.page[3] = 0;
	memset(fake.mem + 0x2f90, 0, 0x200);
	gate(0x2f90 + 14 * 8, CS0, 0x9814, 0x8e, 0);
	ok(bt_deliver_exception(&v, &(struct bt_exception){ .vector = 13, .has_error = true }),
	   "#PF while delivering #GP");
	is_u64(v.rip, 0x9814, "is handled serially");
	is_u64(v.cr2, 0x2f90 + 13 * 8, "CR2 is the gate's address");
}

static void test_64(void)
{
	struct bt_exception e = { .vector = X86_DB, .is_trap = true, .dr6 = 0x4000 };

	scene64(&v, 3);
	gate64(14, CS64, 0xffffffff80001234, 0x8e, 0);
	bt_set_rflags(&v, 2 | X86_IF | X86_AC);
	BT_REG(&v, X86_RSP) = 0xa007;
	ok(bt_deliver_exception(&v, &(struct bt_exception){ .vector = 14,
							    .has_error = true,
							    .error = 4,
							    .cr2 = 0x123 }),
	   "64-bit #PF from CPL 3");
	is_u64(v.rip, 0xffffffff80001234, "RIP");
	is_u64(BT_REG(&v, X86_RSP), STACK0 - 48, "six words");
	is_u64(get(STACK0 - 8, 8), DS3, "SS");
	is_u64(get(STACK0 - 16, 8), 0xa007, "RSP");
	is_u64(get(STACK0 - 24, 8), 2 | X86_IF | X86_AC | X86_RF, "RFLAGS");
	is_u64(get(STACK0 - 32, 8), CS64_3, "CS");
	is_u64(get(STACK0 - 40, 8), 0x9000, "RIP");
	is_u64(get(STACK0 - 48, 8), 4, "error code");
	is_u64(v.seg[X86_SS].selector, 0, "SS is null");
	is_u64(v.cpl, 0, "CPL 0");
	is_u64(v.mode & MODE_CODE_MASK, MODE_CODE64, "64-bit code");

	scene64(&v, 0);
	gate64(0x31, CS64, 0x9111, 0x8e, 0);
	BT_REG(&v, X86_RSP) = 0x7ff9;
	ok(bt_deliver_interrupt(&v, 0x31), "64-bit interrupt at CPL 0");
	is_u64(BT_REG(&v, X86_RSP), 0x7ff0 - 40, "the stack is aligned to 16 first");
	is_u64(get(0x7ff0 - 16, 8), 0x7ff9, "the old RSP is pushed");
	is_u64(v.seg[X86_SS].selector, DS0, "SS stays without a change of CPL");

	scene64(&v, 0);
	gate64(2, CS64, 0x9222, 0x8e, 3);
	put(TSS + 36 + 16, 8, 0x7000);
	ok(bt_deliver_interrupt(&v, 2), "NMI on IST 3");
	is_u64(BT_REG(&v, X86_RSP), 0x7000 - 40, "its stack");
	ok(v.nmi_blocked, "NMIs are blocked");

	scene64(&v, 3);
	gate64(0x21, CS64, 0x9111, 0x8e, 0);
	put(TSS + 4, 8, 0x0000900000000000);
	gate64(12, CS64, 0x9333, 0x8e, 1);
	put(TSS + 36, 8, 0x7000);
	ok(bt_deliver_interrupt(&v, 0x21), "RSP0 is not canonical");
	is_u64(v.rip, 0x9333, "#SS");
	is_u64(get(BT_REG(&v, X86_RSP), 8), 1, "with EXT");

	scene64(&v, 0);
	gate64(0x21, CS0, 0x9111, 0x8e, 0);
	gate64(13, CS64, 0x9444, 0x8e, 0);
	ok(bt_deliver_interrupt(&v, 0x21), "gate to a 32-bit segment");
	is_u64(v.rip, 0x9444, "#GP");
	is_u64(get(BT_REG(&v, X86_RSP), 8), CS0 + 1, "with the selector");

	scene64(&v, 0);
	gate64(1, CS64, 0x9555, 0x8e, 0);
	v.dr[6] = 0xffff0ff3;
	v.dr[7] = 0x2400;
	v.rip = 0x9002;
	ok(bt_deliver_exception(&v, &e), "#DB trap");
	is_u64(v.dr[6], 0xffff4ff0, "DR6: BS set, B0–B3 replaced");
	is_u64(v.dr[7], 0x400, "DR7.GD cleared");
	is_u64(get(BT_REG(&v, X86_RSP) + 16, 8), 2, "pushed RFLAGS without RF");
}

static void test_task_gate(void)
{
	scene32(&v, 0);
	descriptor(TSS2_SEL, TSS2, 0x67, 0x89, 0);
	put(TSS2 + 32, 4, 0x9700);
	put(TSS2 + 36, 4, 2);
	put(TSS2 + 56, 4, 0x7800);
	put(TSS2 + 72 + 4, 2, CS0);
	put(TSS2 + 72 + 8, 2, DS0);
	gate(IDT + 8 * 8, TSS2_SEL, 0, 0x85, 0);
	ok(bt_deliver_exception(&v, &(struct bt_exception){ .vector = 8, .has_error = true }),
	   "#DF through a task gate");
	is_u64(v.rip, 0x9700, "EIP of the new task");
	is_u64(v.tr.selector, TSS2_SEL, "TR");
	is_u64(get(BT_REG(&v, X86_RSP), 4), 0, "the error code is on its stack");
	is_u64(BT_REG(&v, X86_RSP), 0x7800 - 4, "ESP");
	is_u64(get(TSS2, 2), TSS_SEL, "back link");
	ok(bt_get_rflags(&v) & X86_NT, "NT");
	is_u64(get(TSS + 32, 4), 0x9000, "the old task resumes at the fault");
}

int main(void)
{
	test_real();
	test_32();
	test_errors();
	test_software();
	test_double();
	test_64();
	test_task_gate();
	return done_testing();
}
