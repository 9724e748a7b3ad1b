/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every exception vector: how it comes about, its error code, and what it saves. SDM vol. 3, 6.15 (exception reference), 6.13
 * (error codes), 6.9 (priorities).
 */
#include "lib/bare.h"

extern char exc_stubs[];

#define GP_NON_CANONICAL 0x800000000000ul

CODE(user_div, "xor %ecx, %ecx\n div %ecx");
CODE(user_int80, "int $0x80");
CODE(user_int3, "int3");
CODE(user_int_14, "int $14");
CODE(user_cli, "cli");
CODE(user_hlt, "hlt");
CODE(user_rdmsr, "rdmsr");
CODE(user_mov_cr, "mov %cr0, %rax");
CODE(user_in, "in $0x70, %al");
CODE(user_ud2, "ud2");
CODE(user_int1, ".byte 0xf1");

static void arithmetic(void)
{
	int v;

	v = TRY("xor %%ecx, %%ecx; mov $1, %%eax; 1: div %%ecx", (), (), "rax", "rcx", "rdx");
	ok(v == DE && exc.error == 0, "#DE on division by zero");
	v = TRY("mov $1, %%ecx; mov $1, %%edx; div %%ecx", (), (), "rax", "rcx", "rdx");
	ok(v == DE, "#DE on a quotient that is too large");
	v = TRY("mov $-1, %%rcx; mov $0x8000000000000000, %%rax; mov $-1, %%rdx; idiv %%rcx", (), (), "rax", "rcx", "rdx");
	ok(v == DE, "#DE on IDIV of the least number by -1");
	ok(exc.flags >> 16 & 1, "a fault saves RF set (vol. 3, 17.3.1.1)");
	TRY0("int3");
	ok(exc.vector == BP && !(exc.flags >> 16 & 1), "INT3 saves RF clear");
	is(*(uint8_t *)(exc.ip - 1), 0xcc, "INT3 saves the address behind it");
	TRY0("int $4");
	is(exc.vector, OF, "INT 4");
	TRY0("ud2");
	ok(exc.vector == UD && *(uint16_t *)exc.ip == 0x0b0f, "UD2: #UD at the instruction");
	TRY0(".byte 0xf1");
	ok(exc.vector == DB && *(uint8_t *)(exc.ip - 1) == 0xf1, "INT1: #DB, address behind it");
}

static void undefined(void)
{
#define UDS(bytes, what) do { TRY0(".byte " bytes); is((uint64_t)exc.vector, UD, "#UD: %s", what); } while (0)
	UDS("0x06", "PUSH ES in 64-bit mode");
	UDS("0x27", "DAA in 64-bit mode");
	UDS("0x60", "PUSHA in 64-bit mode");
	UDS("0xce", "INTO in 64-bit mode");
	UDS("0xd5, 0x0a", "AAD in 64-bit mode");
	UDS("0x9a, 0, 0, 0, 0, 8, 0", "CALL FAR ptr in 64-bit mode");
	UDS("0xea, 0, 0, 0, 0, 8, 0", "JMP FAR ptr in 64-bit mode");
	UDS("0xc4, 0x00", "LES in 64-bit mode");
	UDS("0x82, 0xc0, 0", "opcode 82 in 64-bit mode");
	UDS("0xf0, 0x90", "LOCK NOP");
	UDS("0xf0, 0x01, 0xc0", "LOCK ADD with a register");
	UDS("0xf0, 0x8b, 0x00", "LOCK MOV");
	UDS("0xf0, 0x39, 0x00", "LOCK CMP");
	UDS("0x8e, 0xc8", "MOV to CS");
	UDS("0x8e, 0xf0", "MOV to segment register 6");
	UDS("0x0f, 0x20, 0xc8", "MOV from CR1");
	UDS("0x0f, 0x20, 0xe8", "MOV from CR5");
	UDS("0x44, 0x0f, 0x20, 0xc8", "MOV from CR9");
	UDS("0x8d, 0xc0", "LEA of a register");
	UDS("0x0f, 0x0b", "UD2");
	UDS("0x0f, 0xb9, 0xc0", "UD1");
	UDS("0x0f, 0xff, 0xc0", "UD0");
	UDS("0xfe, 0xd0", "group 4 /2");
	UDS("0xff, 0xf8", "group 5 /7");
	UDS("0xc6, 0xc8, 0", "group 11 /1");
	UDS("0x8f, 0xc8", "POP /1");
	UDS("0x0f, 0xc7, 0xc8", "CMPXCHG8B with a register");
	UDS("0x0f, 0x01, 0xd8", "VMRUN");
	UDS("0x0f, 0x01, 0xc2", "VMLAUNCH");
	UDS("0x0f, 0x78, 0xc0", "VMREAD");
	UDS("0x0f, 0x37", "GETSEC without SMX");
	UDS("0x0f, 0xaa", "RSM outside of SMM");
	UDS("0x0f, 0x24, 0xc0", "MOV from a test register");
	UDS("0x0f, 0x0a", "0F 0A");
	UDS("0x66, 0x0f, 0x38, 0xff, 0xc0", "0F 38 FF");
}

static void long_instruction(void)
{
	uint8_t *code = page_alloc();

	/* 14 prefixes and NOP are 15 bytes; one more is #GP (vol. 3, 6.15, #GP). */
	memset(code, 0x66, 15);
	code[14] = 0x90;
	code[15] = 0xc3;
	is((uint64_t)TRY("call *%0", (), ("r"(code))), (uint64_t)-1, "an instruction of 15 bytes");
	code[14] = 0x66;
	code[15] = 0x90;
	word sp;
	TRY("mov %%rsp, %0; call *%1; 1:", ("=&r"(sp)), ("r"(code)));
	ok(exc.vector == GP && exc.error == 0, "#GP(0): an instruction of 16 bytes");
	__asm__ volatile("add $8, %rsp"); /* what the CALL pushed */
}

static void selectors(void)
{
	gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0xc13));	/* data, not present */
	gdt_set(SEL_FREE + 8, descriptor(0, 0xfffff, 0xc99));	/* execute-only code */
	TRY("mov %0, %%ds", (), ("r"(SEL_FREE)));
	ok(exc.vector == NP && exc.error == SEL_FREE, "#NP(selector): MOV DS of a segment not present");
	TRY("mov %0, %%ss", (), ("r"(SEL_FREE)));
	ok(exc.vector == SS && exc.error == SEL_FREE, "#SS(selector): MOV SS of a segment not present");
	TRY("mov %0, %%ds", (), ("r"(SEL_FREE + 8)));
	ok(exc.vector == GP && exc.error == SEL_FREE + 8, "#GP(selector): MOV DS of execute-only code");
	TRY("mov %0, %%ds", (), ("r"(0xfff8)));
	ok(exc.vector == GP && exc.error == 0xfff8, "#GP(selector): beyond the GDT's limit");
	TRY("mov %0, %%ds", (), ("r"(SEL_FREE | 4)));
	ok(exc.vector == GP && exc.error == (SEL_FREE | 4), "#GP(selector): LDT without one; TI set");
	TRY("mov %0, %%ss", (), ("r"(0)));
	is((uint64_t)exc.vector, (uint64_t)-1, "a null SS is allowed in 64-bit mode at CPL 0");
	TRY("mov %0, %%ss", (), ("r"(3)));
	ok(exc.vector == GP && exc.error == 0, "#GP(0): a null SS with RPL 3 at CPL 0");
	TRY("mov %0, %%ss", (), ("r"(SEL_UDATA)));
	ok(exc.vector == GP && exc.error == (SEL_UDATA & ~3), "#GP(selector): SS with DPL 3 at CPL 0");
	__asm__ volatile("mov %0, %%ss" ::"r"(SEL_KDATA));
	TRY("ltr %w0", (), ("r"(SEL_TSS)));
	ok(exc.vector == GP && exc.error == SEL_TSS, "#GP(selector): LTR of a busy TSS");
	gdt_set_system(SEL_FREE, 0, 0x67, 0x09);
	TRY("ltr %w0", (), ("r"(SEL_FREE)));
	ok(exc.vector == NP && exc.error == SEL_FREE, "#NP(selector): LTR of a TSS not present");
	TRY("ltr %w0", (), ("r"(0)));
	ok(exc.vector == GP && exc.error == 0, "#GP(0): LTR of null");
	TRY("int %0", (), ("i"(0x81)));
	ok(exc.vector == 0x81, "INT 81h");
	idt_set(0x81, 0, SEL_KCODE, 0x0e, 0);
	TRY("int %0", (), ("i"(0x81)));
	ok(exc.vector == NP && exc.error == (0x81 << 3 | 2), "#NP(vector): INT through a gate not present, IDT set, EXT clear");
	idt_set(0x81, 0, 0, 0x8e, 0);
	TRY("int %0", (), ("i"(0x81)));
	ok(exc.vector == GP && exc.error == 0, "#GP(0): gate with a null selector");
	idt_set(0x81, 0, SEL_KDATA, 0x8e, 0);
	TRY("int %0", (), ("i"(0x81)));
	ok(exc.vector == GP && exc.error == SEL_KDATA, "#GP(selector): gate to data");
	idt_set(0x81, 0, SEL_KCODE32, 0x8e, 0);
	TRY("int %0", (), ("i"(0x81)));
	ok(exc.vector == GP && exc.error == SEL_KCODE32, "#GP(selector): 64-bit gate to 32-bit code");
	idt_set(0x81, 0, SEL_KCODE, 0x85, 0);
	TRY("int %0", (), ("i"(0x81)));
	ok(exc.vector == GP && exc.error == (0x81 << 3 | 2), "#GP(vector): a task gate in long mode");
	idt_set(0x81, GP_NON_CANONICAL, SEL_KCODE, 0x8e, 0);
	TRY("int %0", (), ("i"(0x81)));
	ok(exc.vector == GP && exc.error == 0, "#GP(0): gate to a non-canonical address");
	idt_default(0x81);
}

static void canonical(void)
{
	word x;

	TRY("mov (%1), %0", ("=r"(x)), ("r"(GP_NON_CANONICAL)));
	ok(exc.vector == GP && exc.error == 0, "#GP(0): load from a non-canonical address");
	TRY("mov %%rax, (%0)", (), ("r"(GP_NON_CANONICAL)));
	ok(exc.vector == GP && exc.error == 0, "#GP(0): store");
	TRY("mov (%1), %0", ("=r"(x)), ("r"(GP_NON_CANONICAL - 4)));
	ok(exc.vector == GP || exc.vector == PF, "an access that runs into the hole faults (%d)", exc.vector);
}

static void jump_to(void *to)
{
	__asm__ volatile("jmp *%0" ::"r"(to));
}

static void push_at(void *to)
{
	__asm__ volatile("mov %0, %%rsp; push %%rax" ::"r"(to));
}

static void bp_at(void *to)
{
	__asm__ volatile("push %%rbp; mov %0, %%rbp; mov (%%rbp), %%rax" ::"r"(to));
}

static void jumps(void)
{
	int v = attempt(jump_to, (void *)GP_NON_CANONICAL);

	ok(v == GP && exc.error == 0, "#GP(0): a jump to a non-canonical address");
	tss[0].ist[0] = (word)page_alloc() + 4096;
	idt_set(SS, (word)exc_stubs + SS * 16, SEL_KCODE, 0x8e, 1);
	v = attempt(push_at, (void *)(GP_NON_CANONICAL + 64));
	ok(v == SS && exc.error == 0, "#SS(0): PUSH to a non-canonical address, served on an IST stack");
	is(exc.sp, GP_NON_CANONICAL + 64, "with RSP as it was");
	v = attempt(bp_at, (void *)(GP_NON_CANONICAL + 64));
	ok(v == SS && exc.error == 0, "#SS(0): load by RBP");
	idt_default(SS);
}

static void user(void)
{
	int v = user_run(USER(user_div), 0, 0);

	ok(v == DE && exc.cs == SEL_UCODE && exc.ss == SEL_UDATA, "#DE from CPL 3");
	is(exc.ip, USER(user_div) + 2, "at the DIV");
	is(exc.handler_flags & 1 << 9, 0, "an interrupt gate clears IF");
	v = user_run(USER(user_int80), 0, 0);
	ok(v == 0x80 && exc.ip == USER(user_int80) + 2, "INT 80h from CPL 3");
	v = user_run(USER(user_int3), 0, 0);
	is((uint64_t)v, BP, "INT3 from CPL 3 (DPL 3)");
	v = user_run(USER(user_int_14), 0, 0);
	ok(v == GP && exc.error == (14 << 3 | 2), "#GP(vector): INT 14 from CPL 3 with DPL 0");
	is(exc.ip, USER(user_int_14), "at the INT");
	v = user_run(USER(user_int1), 0, 0);
	is((uint64_t)v, DB, "INT1 looks at no DPL");
	v = user_run(USER(user_cli), 0, 0);
	ok(v == GP && exc.error == 0, "#GP: CLI at CPL 3, IOPL 0");
	user_flags = 2 | 3 << 12;
	memcpy(user_cli_end, "\xcd\x80", 2);
	v = user_run(USER(user_cli), 0, 0);
	is((uint64_t)v, 0x80, "CLI at CPL 3 with IOPL 3");
	user_flags = 2;
	ok(user_run(USER(user_hlt), 0, 0) == GP, "#GP: HLT at CPL 3");
	ok(user_run(USER(user_rdmsr), 0, 0) == GP, "#GP: RDMSR at CPL 3");
	ok(user_run(USER(user_mov_cr), 0, 0) == GP, "#GP: MOV from CR0 at CPL 3");
	ok(user_run(USER(user_in), 0, 0) == GP, "#GP: IN at CPL 3 without a permission map");
	ok(user_run(USER(user_ud2), 0, 0) == UD, "#UD at CPL 3");
	v = user_run(USER(user_int80) + (1ul << 40), 0, 0);
	ok(v == PF && exc.error == 0x14 && exc.cr2 == exc.ip, "#PF: fetch from an unmapped page at CPL 3 (NXE: I/D is set)");
}

void main(void)
{
	arithmetic();
	undefined();
	long_instruction();
	selectors();
	canonical();
	jumps();
	user();
}
