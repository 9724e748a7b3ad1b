/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Call gates in IA-32e mode: 16-byte gates, the switch of stacks, what is checked and in which order. SDM vol. 3, 5.8.3.1
 * (call gates), 5.8.5.1 (stack switching in 64-bit mode); vol. 2, "CALL", "JMP", "RET".
 */
#include "lib/bare.h"

enum { GATE = SEL_FREE, CODE = 0x80, GATE2 = 0x90, CODE1 = 0xa0 };
enum { GATE64 = 0x8c };
static const uint64_t NONE = (uint64_t)-1;
extern char gate_target[], gate_target1[], gate_stay[];
struct seen { word sp, cs, ss, flags, slot[4]; } seen;
static struct { uint64_t offset; uint16_t sel; } __attribute__((packed)) wide;
static struct { uint32_t offset; uint16_t sel; } __attribute__((packed)) narrow = { 0x1234, 0 };

/* Note the stack, go back with all operands of 8 bytes. The second note is for ring 1, whose pages are user pages too. */
__asm__(".pushsection .text\n"
	"gate_target:\n"
	" mov %rsp, seen\n mov %cs, %ecx\n mov %rcx, seen+8\n mov %ss, %ecx\n mov %rcx, seen+16\n"
	" pushf\n pop %rcx\n mov %rcx, seen+24\n"
	" mov (%rsp), %rcx\n mov %rcx, seen+32\n mov 8(%rsp), %rcx\n mov %rcx, seen+40\n"
	" mov 16(%rsp), %rcx\n mov %rcx, seen+48\n mov 24(%rsp), %rcx\n mov %rcx, seen+56\n"
	" lretq\n"
	"gate_target1:\n mov %cs, %ecx\n mov %ss, %edx\n mov %rsp, %rbx\n lretq\n"
	"gate_stay:\n mov %cs, %ecx\n int $0x80\n"
	".popsection");

CODE(user_call, "lcall *(%rdi)\n mov %ss, %edx\n int $0x80");
CODE(user_callw, "rex.w lcall *(%rdi)\n mov %ss, %edx\n int $0x80");
CODE(user_jmp, "ljmp *(%rdi)");
/* In 32-bit code DS would have to be loaded first. */
__asm__(".pushsection .text\n.code32\n.globl compat_call\ncompat_call:\n lcall *%ss:(%edi)\n mov %ss, %edx\n int $0x80\n.code64\n.popsection");
extern char compat_call[];

static void gate_set(unsigned at, unsigned sel, word target, unsigned attr)
{
	gdt_set(at, (target & 0xffff) | (uint64_t)sel << 16 | (uint64_t)attr << 40 | (target >> 16 & 0xffff) << 48);
	gdt_set(at + 8, target >> 32);
}

static int call(unsigned sel)
{
	narrow.sel = (uint16_t)sel;
	return TRY("lcall *(%0)", (), ("r"(&narrow)), "rcx", "rdx", "rbx");
}

static int user(const char *code, unsigned sel)
{
	narrow.sel = wide.sel = (uint16_t)sel;
	return user_run(USER(code), USER(code == user_callw ? (void *)&wide : (void *)&narrow), 0);
}

static void same_privilege(void)
{
	gate_set(GATE, SEL_KCODE, (word)gate_target, GATE64);
	word sp;

	narrow.sel = GATE;
	TRY("mov %%rsp, %0; lcall *(%1)", ("=&r"(sp)), ("r"(&narrow)), "rcx");
	is((uint64_t)exc.vector, NONE, "CALL through a gate to the same privilege");
	ok(seen.sp == sp - 16, "pushes two quadwords (0x%lx)", sp - seen.sp);
	is(seen.slot[1], SEL_KCODE, "the second is CS");
	is(seen.cs, SEL_KCODE, "CS of the gate, its RPL the CPL");
	is((uint64_t)call(GATE | 3), GP, "RPL 3 to a gate of DPL 0: #GP");
	is(exc.error, GATE, "error code: the gate");
	wide.sel = GATE;
	wide.offset = NONE;
	is((uint64_t)TRY("rex.w lcall *(%0)", (), ("r"(&wide)), "rcx"), NONE, "m16:64: its offset is ignored");
	narrow.sel = GATE;
	gate_set(GATE, SEL_KCODE, (word)gate_stay, GATE64);
	on_vector(0x80, NULL);
	is((uint64_t)TRY("ljmp *(%0)", (), ("r"(&narrow)), "rcx"), 0x80, "JMP through a gate");
	is(exc.regs.cx, SEL_KCODE, "stays at CPL 0");
}

static void inner(void)
{
	word stack = tss[0].rsp[0], top = stack - 8; /* odd: a call gate does not align */

	gate_set(GATE, SEL_KCODE, (word)gate_target, GATE64 | 0x60);
	tss[0].rsp[0] = top;
	for (unsigned n = 0; n < 3; n++) {
		const char *code = n == 0 ? user_call : n == 1 ? user_callw : compat_call;
		const char *what = n == 0 ? "m16:32" : n == 1 ? "m16:64" : "from compatibility mode";
		word ip = n == 2 ? (word)code : USER(code), entered = user_sp;

		memset(&seen, 0, sizeof(seen));
		user_cs = n == 2 ? SEL_UCODE32 : SEL_UCODE;
		user_flags = 0x202 & ~0x200ul;
		if (n == 2) { /* below 4 GiB for user mode: the first GiB, for a moment */
			*pte_at(0, 4) |= PTE_U, *pte_at(0, 3) |= PTE_U;
			for (word at = 0; at < 0x8000000; at += 0x200000)
				*pte_at(at, 2) |= PTE_U, invlpg(at);
			narrow.sel = GATE | 3;
			user_sp -= USER_BASE;
			entered = user_sp;
			is((uint64_t)user_run(ip, (word)&narrow, 0), 0x80, "%s: there and back", what);
			user_sp += USER_BASE;
			for (word at = 0; at < 0x8000000; at += 0x200000)
				*pte_at(at, 2) &= ~(uint64_t)PTE_U, invlpg(at);
		} else {
			is((uint64_t)user(code, GATE | 3), 0x80, "%s: there and back", what);
		}
		is(seen.sp, top - 32, "%s: RSP0 less four quadwords, not aligned", what);
		is(seen.cs, SEL_KCODE, "%s: CPL 0", what);
		is(seen.ss, 0, "%s: SS is null with RPL 0", what);
		is(seen.slot[1], n == 2 ? SEL_UCODE32 : SEL_UCODE, "%s: CS on the stack", what);
		is(seen.slot[2], entered, "%s: RSP", what);
		is(seen.slot[3], SEL_UDATA, "%s: SS", what);
		ok(exc.cs == user_cs && exc.regs.dx == SEL_UDATA && exc.sp == entered, "%s: RET goes back to all three (0x%lx, 0x%lx)",
		   what, exc.cs, exc.regs.dx);
	}
	user_cs = SEL_UCODE;
	/* The stack is not there. */
	word hole = TEST_BASE + 0x10000;

	tss[0].rsp[0] = stack;
	gate_set(GATE, CODE1, USER(gate_target1), GATE64 | 0x60);
	gdt_set(CODE1, descriptor(0, 0xfffff, 0xabb)); /* DPL 1 */
	tss[0].rsp[1] = (1ul << 47) + 64;
	user(user_call, GATE | 3);
	ok(exc.vector == SS && exc.error == 0, "the stack is not canonical: #SS(0) (%d, 0x%lx)", exc.vector, exc.error);
	ok((exc.cs & 3) == 3 && exc.ip == USER(user_call), "at the CALL, in user mode");
	tss[0].rsp[1] = hole;
	user(user_call, GATE | 3);
	ok(exc.vector == PF && exc.error == 2 && exc.cr2 == hole - 8, "RSP1 is not mapped: a supervisor's #PF (%d, 0x%lx, 0x%lx)",
	   exc.vector, exc.error, exc.cr2);
	/* Ring 1 is a supervisor for paging: its code may be on a user page without SMEP. */
	word ring1 = (word)page_alloc() + 4096;

	tss[0].rsp[1] = ring1;
	is((uint64_t)user(user_call, GATE | 3), 0x80, "to ring 1 and back");
	is(exc.regs.cx, CODE1 | 1, "CS with RPL 1");
	is(exc.regs.bx, ring1 - 32, "RSP1");
	is(exc.regs.dx, SEL_UDATA, "SS of user mode again");
	/* More privileged, conforming: no change of stack. */
	gdt_set(CODE, descriptor(0, 0xfffff, 0xa9f));
	gate_set(GATE, CODE, USER(gate_target1), GATE64 | 0x60);
	is((uint64_t)user(user_call, GATE | 3), 0x80, "to conforming code");
	ok(exc.regs.cx == (CODE | 3) && exc.regs.bx == user_sp - 16, "CPL stays 3, the stack stays");
	gate_set(GATE, CODE, USER(gate_stay), GATE64 | 0x60);
	is((uint64_t)user(user_jmp, GATE | 3), 0x80, "JMP to conforming code");
	is(exc.regs.cx, CODE | 3, "CPL stays 3");
	gate_set(GATE, SEL_KCODE, (word)gate_target, GATE64 | 0x60);
	user(user_jmp, GATE | 3);
	ok(exc.vector == GP && exc.error == SEL_KCODE, "JMP to more privilege: #GP(code)");
}

static void fails(int vector, word error, const char *what)
{
	int v = call(GATE);

	ok(v == vector && exc.error == error, "%s: #%s(0x%lx) (%d, 0x%lx)", what, vector == GP ? "GP" : "NP", error, v, exc.error);
}

static void errors(void)
{
	gate_set(GATE, SEL_KCODE, (word)gate_target, GATE64);
	user(user_call, GATE | 3);
	ok(exc.vector == GP && exc.error == GATE, "from CPL 3 to a gate of DPL 0: #GP(gate)");
	gate_set(GATE, SEL_KCODE, (word)gate_target, GATE64 & ~0x80);
	fails(NP, GATE, "a gate not present");
	user(user_call, GATE | 3);
	ok(exc.vector == GP && exc.error == GATE, "privilege counts before presence");
	gate_set(GATE, 0, (word)gate_target, GATE64);
	fails(GP, 0, "a null code segment");
	gate_set(GATE, 0xfff8, (word)gate_target, GATE64);
	fails(GP, 0xfff8, "a code segment beyond the GDT");
	gate_set(GATE, SEL_KDATA, (word)gate_target, GATE64);
	fails(GP, SEL_KDATA, "a data segment");
	gate_set(GATE, SEL_TSS, (word)gate_target, GATE64);
	fails(GP, SEL_TSS, "a TSS");
	gate_set(GATE, SEL_KCODE32, (word)gate_target, GATE64);
	fails(GP, SEL_KCODE32, "32-bit code");
	gate_set(GATE, CODE, (word)gate_target, GATE64);
	gdt_set(CODE, descriptor(0, 0xfffff, 0xe9b));
	fails(GP, CODE, "code with L and D");
	gdt_set(CODE, descriptor(0, 0xfffff, 0xafb));
	fails(GP, CODE, "code of DPL 3");
	gdt_set(CODE, descriptor(0, 0xfffff, 0xa1b));
	fails(NP, CODE, "code not present");
	gate_set(GATE, SEL_KCODE, 1ul << 47, GATE64);
	fails(GP, 0, "an entry point that is not canonical");
	gate_set(GATE, SEL_KCODE, (word)gate_target, GATE64);
	gdt[(GATE >> 3) + 1] |= 0xcull << 40;
	fails(GP, GATE, "a type in the upper half");
	gdt[(GATE >> 3) + 1] = (uint64_t)0xe0 << 40 | 0xfffull << 45;
	gdt[(GATE >> 3) + 1] &= ~(0x1full << 40);
	is((uint64_t)call(GATE), NONE, "its other bits are ignored");
	gate_set(GATE, SEL_KCODE, (word)gate_target, 0x84);
	fails(GP, GATE, "a 16-bit call gate");
	gate_set(GATE, SEL_TSS, 0, 0x85);
	fails(GP, GATE, "a task gate");
	gate_set(GATE, SEL_KCODE, (word)gate_target, 0x8e);
	fails(GP, GATE, "an interrupt gate");
	fails(GP, GATE, "again");
	narrow.sel = SEL_TSS;
	ok(call(SEL_TSS) == GP && exc.error == SEL_TSS, "a TSS as the target: #GP");
	ok(call(0) == GP && exc.error == 0, "null: #GP(0)");
	ok(call(3) == GP && exc.error == 0, "null with RPL 3: #GP(0)");
	/* The upper half lies beyond the limit. */
	unsigned last = (GDT_ENTRIES - 1) * 8;
	uint64_t was = gdt[GDT_ENTRIES - 1];

	gate_set(GATE, SEL_KCODE, (word)gate_target, GATE64);
	gdt[GDT_ENTRIES - 1] = gdt[GATE >> 3];
	ok(call(last) == GP && exc.error == last, "the upper half beyond the GDT: #GP(gate)");
	gdt[GDT_ENTRIES - 1] = was;
	/* In the LDT */
	static uint64_t ldt[2] __attribute__((aligned(16)));

	ldt[0] = gdt[GATE >> 3];
	ldt[1] = gdt[(GATE >> 3) + 1];
	gdt_set_system(GATE2, (word)ldt, sizeof(ldt) - 1, 0x82);
	is((uint64_t)TRY("lldt %w0", (), ("r"(GATE2))), NONE, "LLDT");
	is((uint64_t)call(4), NONE, "a gate in the LDT");
	TRY("lldt %w0", (), ("r"(0)));
	/* Nothing of a CALL that faults has happened. */
	word before, after;

	gate_set(GATE, SEL_KCODE, 1ul << 47, GATE64);
	narrow.sel = GATE;
	__asm__ volatile("mov %%rsp, %0" : "=r"(before));
	TRY("lcall *(%0)", (), ("r"(&narrow)));
	after = exc.sp;
	is(exc.cs, SEL_KCODE, "a CALL that faults: CS as before");
	ok(before - after < 4096 && exc.vector == GP, "and RSP");
}

void main(void)
{
	same_privilege();
	inner();
	errors();
}
