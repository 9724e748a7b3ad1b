/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts anywhere: the APIC timer, at short random intervals, strikes a program that keeps values in the red zone, in
 * flags, in the middle of string instructions, loops and calls. It must compute what it computes undisturbed, and the
 * frames that the handler sees must be those of its instructions. In ring 3, and in ring 0 without a red zone.
 */
#include "lib/bare.h"

enum { TIMER = 0x70, ROUNDS = 3000, ENOUGH = 300, RUNS_MAX = 60 /* for hosts that are late */ };

/* rdi: 3 pages; rsi: rounds. The sum is left at [rdi]. @save and @load: where a value waits meanwhile. */
#define BUSY(save, load, end)                                                                       \
	"mov %rdi, %r8\n mov %rsi, %r9\n xor %eax, %eax\n"                                           \
	"1:" save                                                                                    \
	"lea 64(%r8), %rdi\n mov $37, %ecx\n rep stosb\n"                                            \
	"lea 64(%r8), %rsi\n lea 4000(%r8), %rdi\n mov $200, %ecx\n rep movsb\n"                     \
	"lea 64(%r8), %rsi\n lea 4000(%r8), %rdi\n mov $200, %ecx\n repe cmpsb\n"                    \
	"setz %dl\n movzbl %dl, %edx\n" load                                                         \
	"add %rdx, %rax\n adc %r9, %rax\n"                                                           \
	"mov $20, %ecx\n clc\n"                                                                      \
	"2: adc %rcx, %rax\n lea -1(%rcx), %rcx\n mov %rax, 8(%r8,%rcx,8)\n jrcxz 3f\n jmp 2b\n"     \
	"3: rol $1, %rax\n pushfq\n pop %rdx\n and $0x801, %edx\n xor %rdx, %rax\n"                  \
	"call 4f\n jmp 5f\n"                                                                         \
	"4: push %rbx\n mov %rax, %rbx\n imul $31, %rbx, %rbx\n xor %rbx, %rax\n pop %rbx\n ret\n"   \
	"5: dec %r9\n jnz 1b\n mov %rax, (%r8)\n" end

CODE(busy_user, BUSY("mov %rax, -8(%rsp)\n mov %r9, -128(%rsp)\n", "mov -8(%rsp), %rax\n cmp %r9, -128(%rsp)\n jne 1b\n",
		     "int $0x80\n"));
CODE(busy_kernel, BUSY("push %rax\n push %r9\n", "pop %r10\n pop %rax\n cmp %r9, %r10\n jne 1b\n", "cli\n ret\n"));

static struct {
	bool on;
	word from, to, cs; /* where it may strike */
	unsigned count, bad, in_string;
	uint32_t random;
	word bad_ip, bad_flags;
} timer;

static void start_timer(void)
{
	timer.random = timer.random * 1664525 + 1013904223;
	apic_write(APIC_TMICT, 300 + (timer.random >> 16) % 20000);
}

static void on_timer(struct frame *f)
{
	/* Bit 1 is set, IF is, and of the others only arithmetic flags; RF in the middle of a string instruction. */
	bool good = f->ip >= timer.from && f->ip < timer.to && f->cs == timer.cs && (f->flags & 0x202) == 0x202 &&
		    !(f->flags & ~0x10ad7ul) && !(f->sp & 7);

	timer.count++;
	timer.in_string += f->flags >> 16 & 1;
	if (!good && !timer.bad++) {
		timer.bad_ip = f->ip;
		timer.bad_flags = f->flags;
	}
	apic_write(APIC_EOI, 0);
	if (timer.on)
		start_timer();
}

static uint64_t run(bool user, bool interrupted)
{
	static char *memory;
	char *code = user ? busy_user : busy_kernel, *end = user ? busy_user_end : busy_kernel_end;

	if (!memory)
		memory = pages_alloc(3, 4096);
	memset(memory, 0, 3 * 4096);
	timer.from = user ? USER(code) : (word)code;
	timer.to = timer.from + (word)(end - code);
	timer.cs = user ? SEL_UCODE : SEL_KCODE;
	timer.on = interrupted;
	if (user) {
		user_flags = interrupted ? 0x202 : 2;
		if (interrupted)
			start_timer();
		user_run(USER(code), USER(memory), ROUNDS);
	} else {
		word to = (word)memory, rounds = ROUNDS;

		if (interrupted)
			start_timer();
		if (interrupted)
			__asm__ volatile("sti; call *%2" : "+D"(to), "+S"(rounds) : "r"(code)
					 : "rax", "rcx", "rdx", "r8", "r9", "r10", "memory", "cc");
		else
			__asm__ volatile("call *%2" : "+D"(to), "+S"(rounds) : "r"(code)
					 : "rax", "rcx", "rdx", "r8", "r9", "r10", "memory", "cc");
	}
	timer.on = false;
	apic_write(APIC_TMICT, 0);
	return MMIO64(memory);
}

int main(void)
{
	pic_off();
	apic_enable();
	on_vector(TIMER, on_timer);
	apic_write(APIC_TDCR, 0xb);
	apic_write(APIC_LVTT, TIMER);
	for (unsigned user = 0; user < 2; user++) {
		uint64_t want = run(user, false);
		const char *ring = user ? "ring 3" : "ring 0";

		ok(want && !timer.count, "%s: a sum, without interrupts", ring);
		for (unsigned k = 0; k < RUNS_MAX && timer.count < ENOUGH; k++)
			is(run(user, true), want, "%s: the same with interrupts", ring);
		ok(timer.count, "%s: there were %u, %u of them in string instructions", ring, timer.count,
		   timer.in_string);
		ok(!timer.bad, "%s: %u frames are not of its instructions, first RIP %lx flags %lx", ring, timer.bad,
		   timer.bad_ip, timer.bad_flags);
		timer.count = timer.bad = timer.in_string = 0;
	}
	done();
}
