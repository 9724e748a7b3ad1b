/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware task switches: JMP, CALL, IRET, 16-bit TSSs, faults on either side of the point of no
 * return.
 */
#include "tests/unit/fake_x86.h"

static struct bt_vcpu v;

/* A second 32-bit task at CPL 0. */
static void make_task(void)
{
	descriptor(TSS2_SEL, TSS2, 0x67, 0x89, 0);
	put(TSS2 + 28, 4, 0x5000);     /* CR3 */
	put(TSS2 + 32, 4, 0x9700);     /* EIP */
	put(TSS2 + 36, 4, 2 | X86_CF); /* EFLAGS */
	for (unsigned n = 0; n < 8; n++)
		put(TSS2 + 40 + 4 * n, 4, 0x100 * n);
	put(TSS2 + 40 + 16, 4, 0x7800); /* ESP */
	for (unsigned n = 0; n < 6; n++)
		put(TSS2 + 72 + 4 * n, 2, n == X86_CS ? CS0 : DS0);
	put(TSS2 + 96, 2, LDT_SEL);
}

static enum bt_result far(bt_op *op, uint16_t selector)
{
	struct insn i = { .opsize = 4, .imm2 = selector };

	return op(&v, &i);
}

static unsigned type_of(uint16_t selector)
{
	return get(GDT + selector + 5, 1) & 15;
}

static void test_call(void)
{
	scene32(&v, 0);
	make_task();
	for (unsigned n = 0; n < 8; n++)
		if (n != X86_RSP)
			BT_REG(&v, n) = 0x11111111 * n;
	bt_set_rflags(&v, 2 | X86_IF | X86_ZF);
	v.dr[7] = 0x455;
	is_u64(far(bt_op_call_far, TSS2_SEL), BT_EXIT, "CALL to a TSS");
	is_u64(v.next_rip, 0x9700, "EIP");
	is_u64(BT_REG(&v, X86_RSP), 0x7800, "ESP");
	is_u64(BT_REG(&v, X86_RDI), 0x700, "EDI");
	is_u64(v.tr.selector, TSS2_SEL, "TR");
	is_u64(v.ldtr.base, LDT, "LDTR");
	is_u64(v.cr3, 0x5000, "CR3");
	is_u64(bt_get_rflags(&v), 2 | X86_CF | X86_NT, "EFLAGS with NT");
	is_u64(get(TSS2, 2), TSS_SEL, "back link");
	is_u64(type_of(TSS_SEL), 11, "the old task stays busy");
	is_u64(type_of(TSS2_SEL), 11, "the new one is busy");
	is_u64(get(TSS + 32, 4), 0x9002, "saved EIP is the next instruction's");
	is_u64(get(TSS + 36, 4), 2 | X86_IF | X86_ZF, "saved EFLAGS");
	is_u64(get(TSS + 40 + 28, 4), 0x77777777, "saved EDI");
	is_u64(get(TSS + 72 + 4, 2), CS0, "saved CS");
	ok(v.cr0 & X86_CR0_TS, "CR0.TS is set");
	is_u64(v.dr[7], 0x400, "local breakpoints are off");
	is_u64(v.seg[X86_FS].selector, DS0, "FS");

	/* and back */
	v.rip = 0x9710;
	v.next_rip = 0x9712;
	is_u64(bt_op_iret(&v, &(struct insn){ .opsize = 4 }), BT_EXIT, "IRET with NT");
	is_u64(v.next_rip, 0x9002, "EIP");
	is_u64(v.tr.selector, TSS_SEL, "TR");
	is_u64(type_of(TSS2_SEL), 9, "the nested task is no longer busy");
	is_u64(type_of(TSS_SEL), 11, "the outer one is");
	is_u64(get(TSS2 + 36, 4), 2 | X86_CF, "NT is cleared in the saved EFLAGS");
	is_u64(get(TSS2 + 32, 4), 0x9712, "saved EIP");
	is_u64(BT_REG(&v, X86_RDI), 0x77777777, "EDI");
	is_u64(bt_get_rflags(&v), 2 | X86_IF | X86_ZF, "EFLAGS");
}

static void test_jmp(void)
{
	scene32(&v, 0);
	make_task();
	put(TSS2 + 100, 2, 1);
	is_u64(far(bt_op_jmp_far, TSS2_SEL), BT_EXIT, "JMP to a TSS");
	is_u64(type_of(TSS_SEL), 9, "the old task is free");
	ok(!(bt_get_rflags(&v) & X86_NT), "no NT");
	is_u64(v.trap_pending, 1, "T bit: a debug trap is due");

	scene32(&v, 0);
	make_task();
	gate(GDT + GATE, TSS2_SEL, 0, 0x85, 0);
	is_u64(far(bt_op_jmp_far, GATE), BT_EXIT, "JMP through a task gate");
	is_u64(v.tr.selector, TSS2_SEL, "TR");

	scene32(&v, 3);
	make_task();
	ok(faulted(&v, far(bt_op_jmp_far, TSS2_SEL), X86_GP, TSS2_SEL), "TSS of DPL 0 from CPL 3");
	gate(GDT + GATE, TSS2_SEL, 0, 0xe5, 0);
	is_u64(far(bt_op_jmp_far, GATE | 3), BT_EXIT, "a task gate of DPL 3 can be used");
	is_u64(v.cpl, 0, "CPL is that of the new CS");
}

static void test_faults(void)
{
	scene32(&v, 0);
	make_task();
	descriptor(TSS2_SEL, TSS2, 0x67, 0x8b, 0);
	ok(faulted(&v, far(bt_op_jmp_far, TSS2_SEL), X86_GP, TSS2_SEL), "busy: #GP");
	descriptor(TSS2_SEL, TSS2, 0x67, 0x09, 0);
	ok(faulted(&v, far(bt_op_jmp_far, TSS2_SEL), X86_NP, TSS2_SEL), "not present: #NP");
	descriptor(TSS2_SEL, TSS2, 0x66, 0x89, 0);
	ok(faulted(&v, far(bt_op_jmp_far, TSS2_SEL), X86_TS, TSS2_SEL), "too short: #TS");
	is_u64(v.tr.selector, TSS_SEL, "in the old task");
	is_u64(v.rip, 0x9000, "at the instruction");
	is_u64(type_of(TSS_SEL), 11, "which is as busy as before");

	static const struct {
		const char *what;
		unsigned offset;
		uint16_t selector;
		uint8_t vector;
		uint16_t error;
	} bad[] = {
		{ "LDT is not one", 96, DS0, X86_TS, DS0 },
		{ "CS null", 76, 0, X86_TS, 0 },
		{ "CS is data", 76, DS0, X86_TS, DS0 },
		{ "CS with RPL 1", 76, CS0 | 1, X86_TS, CS0 },
		{ "SS null", 80, 0, X86_TS, 0 },
		{ "SS with a wrong DPL", 80, DS3 & ~3, X86_TS, DS3 & ~3 },
		{ "DS beyond the GDT", 84, 0x1f8, X86_TS, 0x1f8 },
		{ "GS is a TSS", 92, TSS_SEL, X86_TS, TSS_SEL },
	};

	for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
		scene32(&v, 0);
		make_task();
		put(TSS2 + bad[n].offset, 2, bad[n].selector);
		ok(faulted(&v, far(bt_op_jmp_far, TSS2_SEL), bad[n].vector, bad[n].error),
		   "%s: error", bad[n].what);
		is_u64(v.tr.selector, TSS2_SEL, "%s: in the new task", bad[n].what);
		is_u64(v.rip, 0x9700, "%s: at its first instruction", bad[n].what);
	}
	scene32(&v, 0);
	make_task();
	fake.page[3] = FAKE_READ_ONLY;
	ok(far(bt_op_jmp_far, TSS2_SEL) == BT_FAULT && v.exception.vector == X86_PF_VEC,
	   "read-only TSS: #PF");
	is_u64(v.tr.selector, TSS_SEL, "in the old task");

	scene32(&v, 0);
	make_task();
	fake.page[GDT >> 12] = FAKE_READ_ONLY;
	ok(far(bt_op_jmp_far, TSS2_SEL) == BT_FAULT && v.exception.vector == X86_PF_VEC,
	   "read-only GDT: #PF");
	is_u64(get(TSS + 32, 4), 0, "before anything is saved");

	scene32(&v, 0);
	v.sysflags |= X86_NT;
	put(TSS, 2, TSS2_SEL);
	make_task();
	ok(faulted(&v, bt_op_iret(&v, &(struct insn){ .opsize = 4 }), X86_TS, TSS2_SEL),
	   "IRET to a task that is not busy: #TS");

	scene32(&v, 0);
	make_task();
	v.cr4 |= X86_CR4_PAE;
	put(TSS2 + 28, 4, 0xbad000);
	ok(faulted(&v, far(bt_op_jmp_far, TSS2_SEL), X86_GP, 0), "bad PDPTEs");
}

static void test_16(void)
{
	scene32(&v, 0);
	descriptor(TSS2_SEL, TSS2, 0x2b, 0x81, 0);
	put(TSS2 + 14, 2, 0x1234);
	put(TSS2 + 16, 2, 2 | X86_SF);
	put(TSS2 + 18 + 8, 2, 0x7000);
	put(TSS2 + 34, 2, DS0);
	put(TSS2 + 36, 2, CS16);
	put(TSS2 + 38, 2, DS0);
	put(TSS2 + 40, 2, DS0);
	is_u64(far(bt_op_call_far, TSS2_SEL), BT_EXIT, "CALL to a 16-bit TSS");
	is_u64(v.next_rip, 0x1234, "IP");
	is_u64(BT_REG(&v, X86_RSP) & 0xffff, 0x7000, "SP");
	is_u64(v.cr3, 0, "CR3 is kept");
	is_u64(v.seg[X86_FS].attr & X86_ATTR_P, 0, "FS is null");
	is_u64(type_of(TSS2_SEL), 3, "busy 16-bit TSS");
	v.next_rip = 0x1300;
	is_u64(bt_op_iret(&v, &(struct insn){ .opsize = 2 }), BT_EXIT, "IRET to the 32-bit task");
	is_u64(get(TSS2 + 14, 2), 0x1300, "saved IP");
	is_u64(v.next_rip, 0x9002, "EIP");
}

static void test_v86(void)
{
	scene32(&v, 0);
	make_task();
	put(TSS2 + 36, 4, 2 | X86_VM);
	put(TSS2 + 32, 4, 0x10);
	put(TSS2 + 76, 2, 0x1234);
	put(TSS2 + 80, 2, 0x2000);
	is_u64(far(bt_op_jmp_far, TSS2_SEL), BT_EXIT, "to a virtual-8086 task");
	ok(bt_v86(&v) && v.cpl == 3, "VM, CPL 3");
	is_u64(v.seg[X86_CS].base, 0x12340, "CS base");
}

int main(void)
{
	test_call();
	test_jmp();
	test_faults();
	test_16();
	test_v86();
	return done_testing();
}
