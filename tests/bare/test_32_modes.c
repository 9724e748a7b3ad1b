/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real mode, unreal mode, 16-bit protected mode, virtual-8086 mode. SDM vol. 3, chapter 20 (8086 emulation), 9.9 (mode switches);
 * vol. 2 under the instructions' names. Code for 16 bits is copied to 0x1000 and below 0x9000.
 */
#include "lib/bare.h"

/* What the 16-bit pieces leave behind, at 0x600 */
static volatile uint32_t *const result = (volatile uint32_t *)0x600;
static const uint64_t NONE = (uint64_t)-1;

/*
 * To real mode and back: at 0x1000, entered in 32-bit mode. The piece to run is at 0x2000, ends with JMP to 0:0x1800 and finds
 * SS:SP = 0:0x7000.
 */
__asm__(".pushsection .text\n.globl to_real, to_real_end, from_real, from_real_end, real_gdt\n"
	"to_real: .code32\n pusha\n mov %esp, 0x680\n sidt 0x688\n lidt 0x690\n ljmp $0x28, $(1f - to_real + 0x1000)\n"
	".code16\n 1: mov $0x30, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n mov %ax, %fs\n"
	" mov %cr0, %eax\n and $0xfe, %al\n mov %eax, %cr0\n ljmp $0, $(2f - to_real + 0x1000)\n"
	" 2: xor %ax, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n mov %ax, %fs\n mov $0x7000, %esp\n ljmp $0, $0x2000\n to_real_end:\n"
	"from_real: cli\n xor %ax, %ax\n mov %ax, %ds\n mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n ljmpl $8, $(1f - from_real + 0x1800)\n"
	".code32\n 1: mov $0x10, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n mov 0x680, %esp\n lidt 0x688\n xor %eax, %eax\n mov %eax, %fs\n popa\n ret\n"
	"from_real_end:\n.popsection");
extern char to_real[], to_real_end[], from_real[], from_real_end[];

#define CODE16(name, insns) CODE(name, ".code16\n" insns "\n .code32")

static void real(char *code, char *end)
{
	memcpy((void *)0x1000, to_real, to_real_end - to_real);
	memcpy((void *)0x1800, from_real, from_real_end - from_real);
	memcpy((void *)0x2000, code, end - code);
	*(volatile uint16_t *)0x690 = 0x3ff;
	*(volatile uint32_t *)0x692 = 0;
	for (unsigned n = 0; n < 16; n++)
		result[n] = 0;
	((void (*)(void))0x1000)();
}

#define DONE "\n ljmp $0, $0x1800"

/* DS:offset, segment arithmetic, a 16-bit address that wraps, MOV CR0, SMSW */
CODE16(real_data,
       "mov $0x100, %ax\n mov %ax, %es\n movl $0xcafe, %es:0x0\n xor %ax, %ax\n mov %ax, %es\n mov 0x1000, %eax\n mov %eax, 0x600\n"
       " mov $0xffff, %bx\n mov $0x11, %cx\n mov %cs, %dx\n mov %dx, 0x604\n smsw %ax\n mov %ax, 0x608\n"
       " mov $0xffff, %ax\n mov %ax, %es\n mov $0x620, %si\n movw $0x7777, %es:0xffe0\n mov %ss, 0x60c\n"
       " xor %ax, %ax\n mov %ax, %es\n mov $0x8000, %bx\n mov $0x8604, %si\n movb $0x99, 0x10(%bx,%si)\n" DONE);
/* The handlers at 0x2800: each stores CS:IP's IP and adds to count, then goes to the end. */
CODE16(real_fault,
       "movw $(1f - real_fault + 0x2000), 0x34\n movw $0, 0x36\n movw $(2f - real_fault + 0x2000), 0x18\n movw $0, 0x1a\n"
       " movw $(3f - real_fault + 0x2000), 0x200\n movw $0, 0x202\n mov %sp, 0x610\n"
       " int $0x80\n mov %sp, 0x614\n"
       " 4: mov 0xffff, %eax\n mov $1, %eax\n jmp 5f\n"
       " 1: mov %sp, %bp\n mov (%bp), %ax\n sub $(4b - real_fault + 0x2000), %ax\n mov %ax, 0x600\n movw $1, 0x604\n add $6, %sp\n"
       " ud2\n"
       " 2: movw $1, 0x608\n add $6, %sp\n mov %sp, 0x618\n jmp 5f\n"
       " 3: movw $1, 0x60c\n mov %sp, 0x61c\n iret\n"
       " 5:" DONE);
/* Unreal: FS keeps the 4 GiB limit that it got in protected mode. */
CODE16(real_unreal,
       "cli\n lgdtl 0x698\n mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n mov $0x10, %bx\n mov %bx, %fs\n and $0xfe, %al\n mov %eax, %cr0\n"
       " mov $0x300000, %ebx\n movl $0xabcd1234, %fs:(%ebx)\n addr32 mov %fs:(%ebx), %ecx\n mov %ecx, 0x600\n movl $1, 0x604\n" DONE);
/* Flags and 32-bit operands, loops and string instructions in 16 bits */
CODE16(real_more,
       "cld\n mov $0x2000, %si\n mov $0x5000, %di\n mov $0x10, %cx\n rep movsb\n mov %di, 0x600\n mov %si, 0x604\n"
       " mov $0x10003, %ecx\n xor %ax, %ax\n 1: inc %ax\n loop 1b\n mov %ax, 0x608\n mov %ecx, 0x60c\n"
       " mov $0xffff, %cx\n jcxz 2f\n movw $1, 0x610\n 2: pushl $0x12345678\n pop %ax\n pop %bx\n mov %ax, 0x614\n mov %bx, 0x618\n"
       " call 3f\n 3: pop %ax\n sub $(3b - real_more + 0x2000), %ax\n mov %ax, 0x61c\n"
       " lcall $0x200, $(4f - real_more)\n movw $5, 0x620\n jmp 5f\n 4: mov %cs, %ax\n mov %ax, 0x624\n lret\n 5: pushf\n pop %ax\n mov %ax, 0x628\n"
       " mov $0x7fff, %ax\n inc %ax\n seto 0x62c\n enter $4, $1\n leave\n mov %sp, 0x630\n" DONE);

static void real_mode(void)
{
	/* What FFFF:FFE0 is belongs to this program. */
	volatile uint16_t *high = (uint16_t *)(0xffff0 + 0xffe0);
	uint16_t was = *high;

	real(real_data, real_data_end);
	uint16_t there = *high;

	*high = was;
	is(result[0], 0xcafe, "real mode: segment * 16 + offset");
	is(result[1], 0, "CS is 0");
	is(result[2] & 1, 0, "PE is clear");
	is(there, 0x7777, "FFFF:FFE0 is above 1 MiB with A20 on");
	is(*(uint8_t *)0x614, 0x99, "16-bit addresses wrap at 64K");
	real(real_fault, real_fault_end);
	is(result[3], 1, "INT 80h through the vector table");
	is(result[4], result[5], "IRET restores SP");
	is(result[7], result[4] - 6, "the handler's frame has three words");
	is(result[1], 1, "a doubleword at FFFFh: #GP (vector 13)");
	is(result[0], 0, "at the instruction, without an error code");
	is(result[2], 1, "UD2: vector 6");
	*(volatile uint16_t *)0x698 = 0x3ff;
	*(volatile uint32_t *)0x69a = (uint32_t)gdt;
	real(real_unreal, real_unreal_end);
	ok(result[0] == 0xabcd1234 && *(volatile uint32_t *)0x300000 == 0xabcd1234, "unreal mode: FS reaches 4 GiB");
	real(real_more, real_more_end);
	ok(result[0] == 0x5010 && result[1] == 0x2010, "REP MOVSB");
	ok(result[2] == 3 && result[3] == 0x10000, "LOOP counts in CX");
	is(result[4], 1, "JCXZ");
	ok(result[5] == 0x5678 && result[6] == 0x1234, "32-bit PUSH, 16-bit POP (0x%x, 0x%x)", result[5], result[6]);
	is(result[7], 0, "CALL pushes IP");
	ok(result[8] == 5 && result[9] == 0x200, "CALL FAR, RET FAR");
	is(result[10] & 0xf002, 0x0002, "PUSHF");
	is(result[11], 1, "16-bit overflow");
	is(result[12], 0x7000, "ENTER, LEAVE");


}

/* Virtual-8086 mode: entered by IRET with VM set; segments follow SS:ESP. */
static word v86_flags;

static void v86_enter(void *arg)
{
	__asm__ volatile("push $0; push $0; push $0x100; push $0x200; push $0; push $0x7000; push %0; push $0; push $0x3000; iret" ::"r"(v86_flags)
			 : "memory");
}

CODE16(v86_hello, "mov %ds, %ax\n mov %cs, %bx\n movl $0x4711, %ds:0x0\n int $0x80");
CODE16(v86_int, "int $0x21");
CODE16(v86_cli, "cli\n hlt");
CODE16(v86_hlt, "hlt");
CODE16(v86_popf, "pushf\n popf\n hlt");
CODE16(v86_in, "in $0x70, %al\n hlt");
CODE16(v86_mov_cr, "mov %cr0, %eax\n hlt");
CODE16(v86_lldt, "lldt %ax\n hlt");
CODE16(v86_limit, "mov $0xffff, %bx\n mov (%bx), %ax\n hlt");
CODE16(v86_int3, "int3");
CODE16(v86_seg, "mov $0x4321, %ax\n mov %ax, %gs\n mov %ax, %es\n ud2");
CODE16(v86_iret, "pushf\n push $0\n push $(1f - v86_iret + 0x3000)\n iret\n 1: ud2");

static int v86(char *code, char *end)
{
	memcpy((void *)0x3000, code, end - code);
	return attempt(v86_enter, NULL);
}

static void virtual_8086(void)
{
	enum { VM = 1 << 17, IOPL3 = 3 << 12, IF = 1 << 9 };
	extern char exc_stubs[];
	int v;

	idt_set(0x21, (word)exc_stubs + 0x21 * 16, SEL_KCODE, 0xee, 0);
	v86_flags = 2 | VM | IOPL3;
	v = v86(v86_hello, v86_hello_end);
	ok(v == 0x80 && (exc.flags & VM) && exc.cs == 0, "V86: INT 80h goes through the IDT (%d)", v);
	is(*(uint32_t *)0x1000 == 0x4711 || *(uint32_t *)0x2000 == 0x4711, 1, "segments are paragraphs");
	ok(exc.regs.v86_ds == 0x100 || exc.regs.v86_ds == 0x200, "DS is on the handler's stack (0x%lx)", exc.regs.v86_ds);
	is(exc.ss, 0, "SS too");
	v = v86(v86_seg, v86_seg_end);
	ok(v == UD && exc.regs.v86_gs == 0x4321 && exc.regs.v86_es == 0x4321, "all of ES, DS, FS, GS are saved");
	is(exc.regs.gs & 0xffff, 0, "and null in the handler");
	is((uint64_t)v86(v86_hlt, v86_hlt_end), GP, "HLT: #GP");
	is((uint64_t)v86(v86_mov_cr, v86_mov_cr_end), GP, "MOV from CR0: #GP");
	is((uint64_t)v86(v86_lldt, v86_lldt_end), UD, "LLDT: #UD");
	ok(v86(v86_limit, v86_limit_end) == GP && exc.ip == 0x3003, "beyond 64K: #GP");
	is((uint64_t)v86(v86_in, v86_in_end), GP, "IN without a permission map: #GP, whatever IOPL is");
	v = v86(v86_cli, v86_cli_end);
	ok(v == GP && exc.ip == 0x3001, "CLI with IOPL 3 runs");
	v = v86(v86_int, v86_int_end);
	ok(v == 0x21 && exc.ip == 0x3002, "INT n with IOPL 3");
	v = v86(v86_iret, v86_iret_end);
	is((uint64_t)v, UD, "IRET with IOPL 3");
	is((uint64_t)v86(v86_int3, v86_int3_end), BP, "INT3");
	v86_flags = 2 | VM;
	ok(v86(v86_cli, v86_cli_end) == GP && exc.ip == 0x3000, "CLI with IOPL 0: #GP");
	ok(v86(v86_int, v86_int_end) == GP && exc.error == 0, "INT n with IOPL 0: #GP(0)");
	ok(v86(v86_popf, v86_popf_end) == GP && exc.ip == 0x3000, "PUSHF with IOPL 0: #GP");
	ok(v86(v86_iret, v86_iret_end) == GP, "IRET with IOPL 0: #GP");
	is((uint64_t)v86(v86_int3, v86_int3_end), BP, "INT3 needs no IOPL");
}

/* 16-bit protected mode: a 16-bit code segment with a base and 16-bit stack. */
CODE16(prot16, "push %bp\n mov %sp, %bp\n mov %cs, %ax\n pushl $0x12345678\n pop %cx\n pop %dx\n mov $0xffff, %bx\n pop %bp\n lretl");

static void protected16(void)
{
	struct { uint32_t offset; uint16_t sel; } __attribute__((packed)) where = { 0, SEL_FREE };
	word ax, cx, dx;

	gdt_set(SEL_FREE, descriptor((word)prot16, 0xffff, 0x09b));
	is((uint64_t)TRY("lcall *%3", ("=&a"(ax), "=&c"(cx), "=&d"(dx)), ("m"(where)), "ebx"), NONE, "16-bit code, called from 32-bit code");
	ok((ax & 0xffff) == SEL_FREE && (cx & 0xffff) == 0x5678 && (dx & 0xffff) == 0x1234, "works with 16-bit operands");
	/* A 16-bit stack segment: the upper half of ESP stays. */
	word before, after;
	static uint8_t stack[256];

	gdt_set(SEL_FREE + 8, descriptor((word)stack, 0xff, 0x093));
	__asm__ volatile("mov %%esp, %%edi; mov %%ss, %%esi; mov %2, %%ss; mov $0xabcd0080, %%esp; push $1; mov %%esp, %0; pop %%eax; mov %%esp, %1;"
			 "mov %%esi, %%ss; mov %%edi, %%esp" : "=&b"(before), "=&c"(after) : "d"(SEL_FREE + 8) : "eax", "esi", "edi", "memory");
	ok(before == 0xabcd007c && after == 0xabcd0080, "a 16-bit stack: only SP moves (0x%lx)", before);
	is(*(uint32_t *)(stack + 0x7c), 1, "and counts");
}

void main(void)
{
	real_mode();
	virtual_8086();
	protected16();
}
