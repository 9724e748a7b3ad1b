/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segmentation in 32-bit protected mode: types, limits, privileges, LDT, call gates, far transfers. SDM vol. 3, chapters 3
 * and 5.
 */
#include "lib/bare.h"

enum { S0 = SEL_FREE, LDT = 0x1c0 };
static const uint64_t NONE = (uint64_t)-1;
static uint64_t ldt[8] __attribute__((aligned(8)));
static uint8_t memory[8192] __attribute__((aligned(4096)));

static int load_ds(unsigned sel)
{
	int v = TRY("mov %0, %%fs", (), ("r"(sel)));
	unsigned e = exc.error;

	__asm__ volatile("mov %0, %%fs" ::"r"(0));
	exc.error = e;
	return v;
}

static int read_fs(unsigned sel, uint32_t offset)
{
	__asm__ volatile("mov %0, %%fs" ::"r"(sel));
	return TRY("movl %%fs:(%0), %%eax", (), ("r"(offset)), "eax");
}

static int write_fs(unsigned sel, uint32_t offset)
{
	__asm__ volatile("mov %0, %%fs" ::"r"(sel));
	return TRY("movl $0, %%fs:(%0)", (), ("r"(offset)));
}

CODE(user_ss_limit, "movl %ss:0x80000, %eax\n int $0x80");

static void limits(void)
{
	gdt_set(S0, descriptor((word)memory, 0xfff, 0x493)); /* byte granular, 4096 bytes */
	is((uint64_t)read_fs(S0, 0xffc), NONE, "the last doubleword below the limit");
	ok(read_fs(S0, 0xffd) == GP && exc.error == 0, "one that crosses the limit: #GP(0)");
	is((uint64_t)read_fs(S0, 0xffffffff), GP, "an offset that wraps: #GP(0)");
	is((uint64_t)write_fs(S0, 0xffd), GP, "a write across the limit");
	gdt_set(S0, descriptor((word)memory, 0, 0xc93)); /* page granular: limit 0xfff */
	is((uint64_t)read_fs(S0, 0xffc), NONE, "granularity 4K: limit 0 is 4096 bytes");
	is((uint64_t)read_fs(S0, 0x1000), GP, "and no more");
	gdt_set(S0, descriptor((word)memory, 0xfff, 0x491)); /* read-only */
	is((uint64_t)read_fs(S0, 0), NONE, "read-only data: read");
	is((uint64_t)write_fs(S0, 0), GP, "write: #GP(0)");
	gdt_set(S0, descriptor((word)memory, 0xfff, 0x49b)); /* readable code */
	is((uint64_t)read_fs(S0, 0), NONE, "readable code: read");
	is((uint64_t)write_fs(S0, 0), GP, "write: #GP(0)");
	gdt_set(S0, descriptor((word)memory, 0x7ff, 0x497)); /* expand-down, 32 bits: 0x800 to 0xffffffff */
	is((uint64_t)read_fs(S0, 0x800), NONE, "expand-down: above the limit");
	is((uint64_t)read_fs(S0, 0x7ff), GP, "at the limit: #GP(0)");
	is((uint64_t)read_fs(S0, 0x1000), NONE, "32-bit: up to 4G");
	is((uint64_t)read_fs(S0, 0xfffffffd), GP, "not across 4G");
	gdt_set(S0, descriptor((word)memory, 0x7ff, 0x097)); /* 16 bits: to 0xffff */
	is((uint64_t)read_fs(S0, 0xfffc - 0xf000), NONE, "16-bit expand-down");
	is((uint64_t)read_fs(S0, 0x10000), GP, "only up to 64K");
	__asm__ volatile("mov %0, %%fs" ::"r"(0));
	ok(TRY("movl %%fs:0, %%eax", (), (), "eax") == GP && exc.error == 0, "a null FS: #GP(0) on use");
	/* SS: #SS for its limit */
	gdt_set(S0, descriptor(0, 0x7f, 0xc93));
	gdt_set(S0, descriptor(0, 0x7f, 0xcf3));
	user_ss = S0 | 3;
	is((uint64_t)user_run((word)user_ss_limit, 0, 0), SS, "beyond the limit of SS: #SS");
	is(exc.error, 0, "error code 0");
	user_ss = SEL_UDATA;
	/* The accessed bit is set by loading. */
	gdt_set(S0, descriptor((word)memory, 0xfff, 0x492));
	load_ds(S0);
	is(gdt[S0 >> 3] >> 40 & 1, 1, "loading sets the accessed bit");
}

static void loads(void)
{
	static const struct { unsigned attr; int ds, ss; const char *what; } types[] = {
		{ 0xc91, -1, GP, "read-only data" }, { 0xc93, -1, -1, "writable data" }, { 0xc97, -1, -1, "expand-down" },
		{ 0xc99, GP, GP, "execute-only code" }, { 0xc9b, -1, GP, "readable code" }, { 0xc9f, -1, GP, "conforming code" },
		{ 0xc13, NP, SS, "not present" }, { 0x089, GP, GP, "TSS" }, { 0x082, GP, GP, "LDT" }, { 0xcf3, -1, GP, "DPL 3 data" },
		{ 0xcd3, -1, GP, "DPL 2 data" }, { 0x08c, GP, GP, "call gate" }, { 0xc11, NP, GP, "read-only, not present" },
	};

	for (unsigned n = 0; n < sizeof(types) / sizeof(types[0]); n++) {
		gdt_set(S0, descriptor(0, 0xfffff, types[n].attr));
		int v = load_ds(S0);

		ok(v == types[n].ds && (v < 0 || exc.error == S0), "FS := %s: %d, error 0x%lx", types[n].what, v, exc.error);
		v = TRY("mov %0, %%ss; mov %1, %%ss", (), ("r"(S0), "r"(SEL_KDATA)));
		ok(v == types[n].ss && (v < 0 || exc.error == S0), "SS := %s: %d, error 0x%lx", types[n].what, v, exc.error);
		__asm__ volatile("mov %0, %%ss" ::"r"(SEL_KDATA));
	}
	gdt_set(S0, descriptor(0, 0xfffff, 0xc93));
	is((uint64_t)load_ds(S0 | 3), GP, "RPL 3, DPL 0: #GP");
	is((uint64_t)load_ds(3), NONE, "null with RPL 3");
	ok(TRY("mov %0, %%ss", (), ("r"(0))) == GP && exc.error == 0, "null SS: #GP(0)");
	ok(load_ds(0xfff8) == GP && exc.error == 0xfff8, "beyond the GDT");
	struct { uint32_t offset; uint16_t sel; } __attribute__((packed)) far = { 0x12345678, S0 };
	word x;

	TRY("lfs %1, %0", ("=r"(x)), ("m"(far)));
	is(x, 0x12345678, "LFS");
	TRY("mov %%fs, %0", ("=r"(x)), ());
	is(x, S0, "loads FS");
	far.sel = 0xfff8;
	x = 1;
	TRY("lfs %1, %0", ("+r"(x)), ("m"(far)));
	ok(exc.vector == GP && x == 1, "LFS that faults leaves its register");
	__asm__ volatile("mov %0, %%fs" ::"r"(0));
}

static void looks(void)
{
	word x, zf;

#define LOOK(insn, sel) TRY(insn " %2, %0; setz %b1", ("+r"(x), "=&q"(zf)), ("r"(sel)))
	gdt_set(S0, descriptor(0x1234, 0x4321, 0x493));
	x = 0;
	LOOK("lar", S0);
	ok((zf & 1) && x == 0x409300, "LAR of data (0x%lx)", x);
	x = 0;
	LOOK("lsl", S0);
	ok((zf & 1) && x == 0x4321, "LSL");
	gdt_set(S0, descriptor(0, 0x4321, 0xc93));
	LOOK("lsl", S0);
	is(x, 0x4321fff, "LSL in pages");
	x = 5;
	LOOK("lar", 0);
	ok(!(zf & 1) && x == 5, "LAR of null: ZF 0");
	LOOK("lar", 0xfff8);
	ok(!(zf & 1) && x == 5, "beyond the GDT");
	LOOK("lar", S0 | 3);
	ok(!(zf & 1) && x == 5, "RPL above DPL");
	gdt_set(S0, descriptor(0, 0, 0x08c)); /* call gate */
	LOOK("lar", S0);
	ok(zf & 1, "LAR of a call gate");
	x = 5;
	LOOK("lsl", S0);
	ok(!(zf & 1) && x == 5, "LSL of a call gate: ZF 0");
	gdt_set(S0, descriptor(0, 0, 0x08e)); /* interrupt gate */
	LOOK("lar", S0);
	ok(!(zf & 1), "LAR of an interrupt gate: ZF 0");
	gdt_set(S0, descriptor(0, 0xfffff, 0xc91));
	TRY("verr %w1; setz %b0", ("=q"(zf)), ("r"(S0)));
	ok(zf & 1, "VERR of read-only data");
	TRY("verw %w1; setz %b0", ("=q"(zf)), ("r"(S0)));
	ok(!(zf & 1), "VERW of it");
	gdt_set(S0, descriptor(0, 0xfffff, 0xc99));
	TRY("verr %w1; setz %b0", ("=q"(zf)), ("r"(S0)));
	ok(!(zf & 1), "VERR of execute-only code");
	gdt_set(S0, descriptor(0, 0xfffff, 0xc13));
	TRY("verr %w1; setz %b0", ("=q"(zf)), ("r"(S0)));
	ok(zf & 1, "VERR does not look at P");
	x = SEL_KDATA | 0;
	TRY("arpl %w1, %w0; setz %b2", ("+r"(x)), ("r"(3), "q"(0)), "eax");
	is(x & 0xffff, SEL_KDATA | 3, "ARPL raises RPL");
}

static void local_table(void)
{
	word x;

	ldt[1] = descriptor((word)memory, 0xfff, 0x493);
	ldt[2] = descriptor(0, 0xfffff, 0xc9b);
	gdt_set(LDT, descriptor((word)ldt, sizeof(ldt) - 1, 0x082));
	is((uint64_t)TRY("lldt %w0", (), ("r"(LDT))), NONE, "LLDT");
	TRY("sldt %0", ("=r"(x)), ());
	is(x & 0xffff, LDT, "SLDT");
	*(uint32_t *)memory = 0x1234;
	is((uint64_t)read_fs(8 | 4, 0), NONE, "a segment of the LDT");
	ok(load_ds(0x40 | 4) == GP && exc.error == 0x44, "beyond the LDT: #GP with TI");
	ok(TRY("lldt %w0", (), ("r"(SEL_KDATA))) == GP && exc.error == SEL_KDATA, "LLDT of data: #GP");
	ok(TRY("lldt %w0", (), ("r"(LDT | 4))) == GP && exc.error == (LDT | 4), "LLDT from the LDT: #GP");
	gdt_set(LDT, descriptor((word)ldt, sizeof(ldt) - 1, 0x002));
	ok(TRY("lldt %w0", (), ("r"(LDT))) == NP && exc.error == LDT, "LLDT not present: #NP");
	gdt_set(LDT, descriptor((word)ldt, sizeof(ldt) - 1, 0x082));
	__asm__ volatile("ljmp $0x14, $1f; 1: mov %%cs, %0; ljmp %1, $1f; 1:" : "=r"(x) : "i"(SEL_KCODE));
	is(x, 0x14, "code of the LDT");
	is((uint64_t)TRY("lldt %w0", (), ("r"(0))), NONE, "LLDT of null");
	ok(load_ds(8 | 4) == GP && exc.error == 12, "then its selectors are #GP");
}

static uint64_t call_gate(unsigned sel, word offset, unsigned attr, unsigned count)
{
	return (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)count << 32 | (uint64_t)attr << 40 | (uint64_t)(offset >> 16) << 48;
}

CODE(far_target, "mov %cs, %ecx\n lret");
/* The return address is cut to 16 bits: the way back is not RET. */
CODE(gate16_target, "mov %esp, %ecx\n mov (%esp), %eax\n pop %eax\n push $8\n push %edi\n lret");
CODE(gate_target, "mov %esp, %ebx\n mov %cs, %ecx\n mov %ss, %edx\n mov 8(%esp), %esi\n mov 12(%esp), %edi\n lret $8");
CODE(user_gate, "push $0x1111\n push $0x2222\n lcall *(%eax)\n int $0x80");
CODE(user_far_kernel, "ljmp *(%eax)");
CODE(user_conforming, "lcall *(%eax)\n int $0x80");
CODE(conforming, "mov %cs, %ecx\n lret");

static struct { uint32_t offset; uint16_t sel; } __attribute__((packed)) where;

static int far_call(unsigned sel, word offset)
{
	where.offset = offset;
	where.sel = (uint16_t)sel;
	return TRY("mov %%esp, %%ebx; lcall *%0; mov %%ebx, %%esp", (), ("m"(where)), "eax", "ebx", "ecx", "edx", "esi", "edi");
}

static void far(void)
{
	int v;

	is((uint64_t)far_call(SEL_KCODE, (word)far_target), NONE, "CALL FAR, RET FAR");
	ok(far_call(SEL_KDATA, 0) == GP && exc.error == SEL_KDATA, "CALL FAR to data: #GP");
	ok(far_call(0, 0) == GP && exc.error == 0, "to null: #GP(0)");
	ok(far_call(SEL_UCODE & ~3, (word)far_target) == GP && exc.error == (SEL_UCODE & ~3), "to DPL 3: #GP");
	gdt_set(S0, descriptor(0, 0xfffff, 0xc1b));
	ok(far_call(S0, (word)far_target) == NP && exc.error == S0, "not present: #NP");
	gdt_set(S0, descriptor((word)far_target, far_target_end - far_target - 1, 0x49b));
	is((uint64_t)far_call(S0, 0), NONE, "code with a base");
	ok(far_call(S0, 0x1000) == GP && exc.error == 0, "beyond its limit: #GP(0)");
	gdt_set(S0, descriptor(0, 0xfffff, 0xc9f)); /* conforming, DPL 0 */
	is((uint64_t)far_call(S0 | 3, (word)far_target), NONE, "conforming code");
	/* Call gates, same level */
	gdt_set(S0, call_gate(SEL_KCODE, (word)far_target, 0x8c, 0));
	is((uint64_t)far_call(S0, 0x12345678), NONE, "a 32-bit call gate; the offset does not count");
	gdt_set(S0, call_gate(SEL_KCODE, (word)far_target, 0x0c, 0));
	ok(far_call(S0, 0) == NP && exc.error == S0, "gate not present: #NP");
	gdt_set(S0, call_gate(SEL_KDATA, (word)far_target, 0x8c, 0));
	ok(far_call(S0, 0) == GP && exc.error == SEL_KDATA, "gate to data: #GP");
	gdt_set(S0, call_gate(0, (word)far_target, 0x8c, 0));
	ok(far_call(S0, 0) == GP && exc.error == 0, "gate to null: #GP(0)");
	/* From CPL 3 through a gate of DPL 3: stack switch, parameters copied. */
	gdt_set(S0, call_gate(SEL_KCODE, (word)gate_target, 0xec, 2));
	where.sel = S0 | 3;
	v = user_run((word)user_gate, (word)&where, 0);
	ok(v == 0x80, "a call gate from CPL 3 and back (%d, error 0x%lx)", v, exc.error);
	ok((exc.regs.cx & 0xffff) == SEL_KCODE && (exc.regs.dx & 0xffff) == SEL_KDATA, "runs at CPL 0 with SS0");
	is(exc.regs.bx, tss[0].esp0 - 24, "on ESP0: SS, ESP, two parameters, CS, EIP");
	ok(exc.regs.si == 0x2222 && exc.regs.di == 0x1111, "with the parameters");
	is(exc.sp, user_sp, "RET 8 drops them from both stacks");
	gdt_set(S0, call_gate(SEL_KCODE, (word)gate_target, 0x8c, 2));
	v = user_run((word)user_gate, (word)&where, 0);
	ok(v == GP && exc.error == S0, "gate of DPL 0 from CPL 3: #GP");
	where.sel = SEL_KCODE;
	v = user_run((word)user_far_kernel, (word)&where, 0);
	ok(v == GP && exc.error == SEL_KCODE, "JMP FAR to CPL 0: #GP");
	gdt_set(S0, call_gate(SEL_KCODE, (word)gate_target, 0xec, 2));
	where.sel = S0 | 3;
	v = user_run((word)user_far_kernel, (word)&where, 0);
	ok(v == GP && exc.error == SEL_KCODE, "JMP through a gate to an inner level: #GP(CS)");
}

CODE(user_retf_in, "push %edx\n push %eax\n lret");

static void returns(void)
{
	int v;

	gdt_set(S0, descriptor(0, 0xfffff, 0xc9f));
	where.sel = S0;
	where.offset = (word)conforming;
	v = user_run((word)user_conforming, (word)&where, 0);
	ok(v == 0x80 && (exc.regs.cx & 3) == 3, "conforming code runs at the caller's level");
	v = user_run((word)user_retf_in, (word)far_target, SEL_KCODE);
	ok(v == GP && exc.error == SEL_KCODE, "RET FAR to an inner level: #GP");
	/* A 16-bit gate pushes 16-bit words. */
	gdt_set(S0 + 8, descriptor((word)gate16_target & ~0xffffu, 0xffff, 0x49b));
	gdt_set(S0, call_gate(S0 + 8, (word)gate16_target & 0xffff, 0x84, 0));
	word after = 0;

	where.sel = S0;
	TRY("mov $96f, %%edi; mov %%esp, %%ebx; lcall *%1; 96: sub %%ebx, %%ecx; mov %%ecx, %0; mov %%ebx, %%esp", ("=m"(after)), ("m"(where)), "eax", "ebx", "ecx", "edi");
	ok(exc.vector == -1 && after == (word)-4, "a 16-bit call gate pushes 4 bytes (%ld)", (long)after);
}

void main(void)
{
	limits();
	loads();
	looks();
	local_table();
	far();
	returns();
}
