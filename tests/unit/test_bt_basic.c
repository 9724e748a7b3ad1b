/* SPDX-License-Identifier: Apache-2.0 */
/* The translator runs small pieces of 64-bit code: data, stack, calls, loops, strings, exceptions of its own. */
#include "cpu/bt/private.h"
#include "tests/tap.h"
#include "tests/unit/bt_guest.h"

/* Each piece is assembled by the compiler into this program and copied into the guest. */
#define PIECE(name, text)                                                     \
	extern const uint8_t name##_start[], name##_end[];                    \
	__asm__(".section .rodata\n" #name "_start:\n" text                   \
		"\n mov $0xf4, %edx\n out %al, %dx\n 1: jmp 1b\n" #name "_end:\n.previous\n")

PIECE(arith, "mov $40, %eax\n add $2, %eax\n mov %rax, %r13\n lea 1(%r13,%rax,2), %r14\n mov %r14, %r15\n"
	     "xor %ebx, %ebx\n sub $1, %ebx\n setc %bl\n");
PIECE(loop, "xor %eax, %eax\n mov $1000000, %ecx\n 2: add %rcx, %rax\n dec %ecx\n jnz 2b\n");
PIECE(calls, "mov $10, %edi\n call 3f\n jmp 4f\n"
	     "3: cmp $2, %edi\n jb 5f\n push %rdi\n dec %edi\n call 3b\n pop %rcx\n"
	     "lea 1(%rcx), %rax\n ret\n 5: mov $1, %eax\n ret\n 4: nop\n");
PIECE(memory, "mov $0x300ffd, %ebx\n movabs $0x1122334455667788, %rax\n mov %rax, (%rbx)\n mov 4(%rbx), %ecx\n"
	      "lock addl $1, (%rbx)\n mov (%rbx), %rbp\n mov %rbp, %rsi\n bts $0, %esi\n movq %rbp, %xmm0\n"
	      "paddq %xmm0, %xmm0\n movdqu %xmm0, 16(%rbx)\n mov 16(%rbx), %rdi\n");
PIECE(strings, "mov $0x300000, %edi\n mov $0x41, %eax\n mov $5000, %ecx\n rep stosb\n mov $0x300000, %esi\n"
	       "mov $0x310123, %edi\n mov $5000, %ecx\n rep movsb\n mov $0x310123, %edi\n mov $5000, %ecx\n"
	       "repe scasb\n mov %rcx, %rbx\n");
PIECE(high, "mov $0x1234, %eax\n mov $0x5678, %ebx\n mov %ah, %bl\n mov %bh, %al\n mov $0x300000, %esi\n"
	    "mov %ah, (%rsi)\n mov (%rsi), %ch\n movzbl %ah, %ebp\n mov %ebp, %r15d\n add %dh, 1(%rsi)\n");
PIECE(flags, "stc\n pushf\n pop %rax\n and $0x8d5, %eax\n clc\n mov $0x300000, %ebx\n movl $7, (%rbx)\n adc $0, %eax\n stc\n"
	     "mov (%rbx), %ecx\n adc $0, %ecx\n");

static struct bt_guest g;

static void run(const uint8_t *start, const uint8_t *end, unsigned cpl, struct x86_regs *r)
{
	struct vcpu_exit e;

	guest_setup(&g, cpl, X86_XCR0_X87);
	guest_load(&g, GUEST_CODE, start, (size_t)(end - start));
	vcpu_run(g.vcpu, &e);
	ok(e.reason == VCPU_EXIT_STOPPED, "ran to its end: %s", e.message);
	vcpu_get_regs(g.vcpu, r);
}
#define RUN(name, cpl) run(name##_start, name##_end, cpl, &r)

static uint64_t outs, by_reason, exits;

static void look(void *opaque, const char *group, const char *name, uint64_t value)
{
	if (group && !strcmp(group, "calls_by_op") && !strcmp(name, "OUT"))
		outs = value;
	if (group && !strcmp(group, "exits_by_reason"))
		by_reason += value;
	if (!group && !strcmp(name, "exits"))
		exits = value;
}

static void test_statistics(unsigned runs)
{
	by_reason = 0;
	engine_statistics(g.engine, look, NULL);
	is_u64(outs, runs, "statistics: each program's OUT");
	ok(by_reason && by_reason <= exits, "%llu exits of %llu have a reason", (unsigned long long)by_reason,
	   (unsigned long long)exits);
	for (unsigned op = OP_FIRST_CALL; op < OP_COUNT; op++)
		if (!bt_op_name(op))
			ok(false, "op %u has a name", op);
}

/* @options as in MARU_BT_DEBUG. */
static void test_all(const char *options)
{
	struct x86_regs r;

	diag("options: %s", options);
	setenv("MARU_BT_DEBUG", options, 1);
	guest_open(&g, 1);
	for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
		RUN(arith, cpl);
		is_u64(r.gpr[X86_RAX], 42, "add");
		is_u64(r.gpr[X86_R15], 42 + 84 + 1, "registers that live in memory");
		is_u64(r.gpr[X86_RBX], 0xffffff01, "setc");
		RUN(loop, cpl);
		is_u64(r.gpr[X86_RAX], 500000500000, "a million iterations");
		RUN(calls, cpl);
		is_u64(r.gpr[X86_RAX], 11, "recursion");
		is_u64(r.gpr[X86_RSP], GUEST_STACK, "the stack is level");
		RUN(memory, cpl);
		is_u64(r.gpr[X86_RCX], 0x11223344, "read back across a page");
		is_u64(r.gpr[X86_RBP], 0x1122334455667789, "locked add across a page");
		is_u64(r.gpr[X86_RDI], 2 * 0x1122334455667789, "SSE");
		RUN(strings, cpl);
		is_u64(r.gpr[X86_RBX], 0, "rep stos, movs, scas");
		is_u64(r.gpr[X86_RDI], 0x310123 + 5000, "rDI moved");
		RUN(high, cpl);
		is_u64(r.gpr[X86_RAX], 0x1256, "AH and BH");
		is_u64(r.gpr[X86_RBX], 0x5612, "BL");
		is_u64(r.gpr[X86_RCX], 0x1200, "CH from memory");
		is_u64(r.gpr[X86_R15], 0x12, "AH widened");
		RUN(flags, cpl);
		is_u64(r.gpr[X86_RAX], 1, "PUSHF sees CF; CLC before a store is kept");
		is_u64(r.gpr[X86_RCX], 8, "STC before a load is kept");
	}
	test_statistics(2 * 7);
	guest_close(&g);
}

int main(void)
{
	static const char *const options[] = {"", "exact-flags", "single", "no-link", "bounce", "no-group", "no-far",
					      "no-ring,small-tlb", "poll"};

	for (unsigned k = 0; k < sizeof(options) / sizeof(options[0]); k++)
		test_all(options[k]);
	return done_testing();
}
