/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware task switches by JMP, CALL, task gates, interrupts and exceptions, 32- and 16-bit, with their faults and the T bit. SDM vol. 3,
 * chapter 7.
 */
#include "lib/bare.h"

enum { T1 = SEL_FREE, T2 = T1 + 8, T16 = T1 + 16, GATE = T1 + 24 };
static struct tss t1, t2;
static struct { uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt; } t16;
static uint8_t stack1[4096], stack2[4096], stack16[4096] __attribute__((aligned(16)));
static volatile unsigned entered, in_flags, in_tr, in_cr0, in_error;
static struct { uint32_t offset; uint16_t sel; } __attribute__((packed)) where;

static void task_body(void)
{
	for (;;) {
		entered++;
		in_flags = read_flags();
		in_cr0 = read_cr0();
		__asm__ volatile("str %0" : "=r"(in_tr));
		__asm__ volatile("iret");
	}
}

static void jump_body(void)
{
	for (;;) {
		entered++;
		in_flags = read_flags();
		__asm__ volatile("ljmp %0, $0" ::"i"(SEL_TSS));
	}
}

void fault_body_c(uint32_t error);
void fault_body_c(uint32_t error)
{
	entered++;
	in_error = error;
	/* The interrupted task goes on behind its faulting instruction. */
	tss[0].eip += 2;
}
CODE(fault_body, "1: call fault_body_c\n add $4, %esp\n iret\n jmp 1b");
/* Back to the first task, which is still marked busy. */
void ts_body_c(uint32_t error);
void ts_body_c(uint32_t error)
{
	in_error = error;
	gdt_set(SEL_TSS, descriptor((word)&tss[0], sizeof(tss[0]) - 1, 0x089));
}
CODE(ts_body, "1: call ts_body_c\n add $4, %esp\n ljmp $0x200, $0\n jmp 1b");
CODE(body16, ".code16\n 1: incw %ax\n iret\n jmp 1b\n .code32");

static void make(struct tss *t, void (*body)(void), uint8_t *stack, unsigned flags)
{
	memset(t, 0, sizeof(*t));
	t->eip = (word)body;
	t->eflags = flags;
	t->esp = (word)stack + 4096 - 64;
	t->es = t->ss = t->ds = SEL_KDATA;
	t->cs = SEL_KCODE;
	t->iomap = sizeof(*t);
	t->esp0 = t->esp;
	t->ss0 = SEL_KDATA;
	t->ebx = 0x1234;
}

static unsigned type_of(unsigned sel)
{
	return gdt[sel >> 3] >> 40 & 15;
}

static int far_call(unsigned sel)
{
	where.sel = (uint16_t)sel;
	return TRY("lcall *%0", (), ("m"(where)));
}

static int far_jmp(unsigned sel)
{
	where.sel = (uint16_t)sel;
	return TRY("ljmp *%0", (), ("m"(where)));
}

static void plain_call(void *arg)
{
	__asm__ volatile("lcall *%0" ::"m"(where));
}

static void switches(void)
{
	word tr;

	make(&t1, task_body, stack1, 2);
	gdt_set(T1, descriptor((word)&t1, sizeof(t1) - 1, 0x089));
	write_cr0(read_cr0() & ~8ul);
	is((uint64_t)far_call(T1), (uint64_t)-1, "CALL to a TSS, and IRET back");
	is(entered, 1, "the task ran");
	ok(in_flags & 1 << 14, "with NT set");
	is(in_tr & 0xffff, T1, "with its TR");
	is(in_cr0 & 8, 8, "CR0.TS is set by a task switch");
	is(t1.link, SEL_TSS, "the link names the old task");
	is(type_of(T1), 9, "it is available again");
	is(type_of(SEL_TSS), 11, "and the old one busy");
	__asm__ volatile("str %0" : "=r"(tr));
	is(tr & 0xffff, SEL_TSS, "TR is as before");
	ok(!(read_flags() & 1 << 14), "NT is clear again");
	write_cr0(read_cr0() & ~8ul);
	far_call(T1);
	is(entered, 2, "again: it goes on behind its IRET");
	make(&t2, jump_body, stack2, 2);
	gdt_set(T2, descriptor((word)&t2, sizeof(t2) - 1, 0x089));
	is((uint64_t)far_jmp(T2), (uint64_t)-1, "JMP to a TSS and JMP back");
	ok(entered == 3 && !(in_flags & 1 << 14), "JMP sets no NT");
	is(type_of(T2), 9, "JMP leaves the old task available");
	is(t2.ebx, 0x1234, "registers are saved in the TSS");
	/* Task gates */
	gdt_set(GATE, (uint64_t)T1 << 16 | (uint64_t)0x85 << 40);
	is((uint64_t)far_call(GATE), (uint64_t)-1, "CALL of a task gate");
	is(entered, 4, "the task ran");
	idt_set(0x90, 0, T1, 0x85, 0);
	TRY0("int $0x90");
	ok(exc.vector == -1 && entered == 5, "INT through a task gate");
	/* An exception by a task gate: error code on the new task's stack. */
	make(&t2, (void (*)(void))fault_body, stack2, 2);
	gdt_set(T2, descriptor((word)&t2, sizeof(t2) - 1, 0x089));
	idt_set(GP, 0, T2, 0x85, 0);
	uint16_t bad = 0xfff8;

	__asm__ volatile("mov %0, %%fs" ::"a"(bad));
	ok(entered == 6 && in_error == 0xfff8, "#GP by a task gate, with its error code (0x%x)", in_error);
	idt_default(GP);
}

static void faults(void)
{
	make(&t1, task_body, stack1, 2);
	gdt_set(T1, descriptor((word)&t1, sizeof(t1) - 1, 0x009));
	ok(far_call(T1) == NP && exc.error == T1, "TSS not present: #NP(TSS)");
	gdt_set(T1, descriptor((word)&t1, sizeof(t1) - 1, 0x08b));
	ok(far_call(T1) == GP && exc.error == T1, "busy: #GP(TSS)");
	gdt_set(T1, descriptor((word)&t1, 0x66, 0x089));
	ok(far_call(T1) == TS && exc.error == T1, "limit below 67h: #TS(TSS)");
	is((uint64_t)far_call(SEL_TSS), GP, "the current task itself: #GP");
	/* Faults in the new task's context, whose segments cannot be relied on: #TS by a task gate (vol. 3, 6.15, #TS). */
	static const struct { unsigned offset; uint16_t sel; const char *what; } bad[] = {
		{ offsetof(struct tss, ds), 0xfff8, "DS beyond the GDT" },	  { offsetof(struct tss, ldt), SEL_KDATA, "LDT that is data" },
		{ offsetof(struct tss, es), SEL_TSS, "ES that is a TSS" },	  { offsetof(struct tss, ss), SEL_KCODE, "SS that is code" },
		{ offsetof(struct tss, cs), SEL_KDATA, "CS that is data" },	  { offsetof(struct tss, cs), 0, "CS null" },
		{ offsetof(struct tss, ss), SEL_UDATA, "SS of another level" },
	};

	idt_set(TS, 0, T2, 0x85, 0);
	for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
		make(&t1, task_body, stack1, 2);
		gdt_set(T1, descriptor((word)&t1, sizeof(t1) - 1, 0x089));
		make(&t2, (void (*)(void))ts_body, stack2, 2);
		gdt_set(T2, descriptor((word)&t2, sizeof(t2) - 1, 0x089));
		*(uint16_t *)((uint8_t *)&t1 + bad[n].offset) = bad[n].sel;
		in_error = 0x12345;
		where.sel = T1;
		plain_call(NULL);
		ok(in_error == (bad[n].sel & ~3u) && t2.link == T1, "%s: #TS(selector) in the new task (0x%x, link 0x%x)", bad[n].what, in_error,
		   t2.link);
		write_flags(2);
	}
	idt_default(TS);
}

static volatile unsigned traps;
static volatile word trap_dr6, trap_ip;

static void on_db(struct frame *f)
{
	traps++;
	trap_dr6 = read_dr6();
	trap_ip = f->ip;
	write_dr6(0xffff0ff0);
}

static void debug_trap(void)
{
	make(&t1, task_body, stack1, 2);
	t1.trap = 1;
	gdt_set(T1, descriptor((word)&t1, sizeof(t1) - 1, 0x089));
	on_vector(DB, on_db);
	far_call(T1);
	ok(traps == 1 && (trap_dr6 & 0x8000) && trap_ip == (word)task_body, "the T bit: #DB with DR6.BT before the first instruction (%u)", traps);
	on_vector(DB, NULL);
}

static void task16(void)
{
	memset(&t16, 0, sizeof(t16));
	gdt_set(SEL_FREE + 32, descriptor((word)body16 & ~0xffffu, 0xffff, 0x09b));
	gdt_set(SEL_FREE + 40, descriptor((word)stack16, 0xfff, 0x093));
	t16.ip = (uint16_t)(word)body16;
	t16.flags = 2;
	t16.sp = 0xff0;
	t16.ax = 100;
	t16.cs = SEL_FREE + 32;
	t16.ss = SEL_FREE + 40;
	t16.es = t16.ds = SEL_KDATA;
	gdt_set(T16, descriptor((word)&t16, sizeof(t16) - 1, 0x081));
	is((uint64_t)far_call(T16), (uint64_t)-1, "CALL to a 16-bit TSS, and IRET back");
	is(t16.ax, 101, "the task ran");
	is(t16.link, SEL_TSS, "link");
	far_call(T16);
	is(t16.ax, 102, "again");
	gdt_set(T16, descriptor((word)&t16, 0x2a, 0x081));
	ok(far_call(T16) == TS && exc.error == T16, "limit below 2BH: #TS");
}

void main(void)
{
	switches();
	faults();
	debug_trap();
	task16();
}
