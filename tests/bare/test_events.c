/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens between instructions: interrupt shadows, NMI blocking, single-step, debug registers, IST, IRET, double faults.
 * SDM vol. 3, 6.7 to 6.14 and 17.2, 17.3.
 */
#include "lib/bare.h"

extern char exc_stubs[];
enum { TF = 1 << 8, IF = 1 << 9, NT = 1 << 14, RF = 1 << 16, VM = 1 << 17, AC_FLAG = 1 << 18 };
#define SELF_IPI(vector) apic_ipi(0, 0x40000 | (vector))
#define SELF_NMI() apic_write(APIC_ICR, 0x40400)

static volatile unsigned irqs, nmis, steps;
static volatile word irq_ip, step_ip[256], step_dr6;

static void on_irq(struct frame *f)
{
	irqs++;
	irq_ip = f->ip;
	apic_write(APIC_EOI, 0);
}

static void on_nmi(struct frame *f)
{
	nmis++;
	irq_ip = f->ip;
}

static void on_step(struct frame *f)
{
	step_dr6 = read_dr6();
	if (steps < 256)
		step_ip[steps] = f->ip;
	steps++;
	write_dr6(0xffff0ff0);
}

static void on_step_quiet(struct frame *f)
{
	on_step(f);
	if (steps > 60)
		f->flags &= ~(word)TF;
}

static void shadows(void)
{
	word at, after;

	apic_enable();
	on_vector(0x40, on_irq);
	SELF_IPI(0x40);
	is(irqs, 0, "with IF clear an interrupt waits");
	__asm__ volatile("lea 1f(%%rip), %0; lea 2f(%%rip), %1; sti; 1: nop; 2: nop; cli" : "=&r"(at), "=&r"(after) :: "memory");
	ok(irqs == 1 && irq_ip == after, "after STI it comes behind the next instruction");
	SELF_IPI(0x40);
	__asm__ volatile("sti; cli; nop" ::: "memory");
	is(irqs, 1, "STI, CLI: no interrupt between");
	__asm__ volatile("sti; nop; cli" ::: "memory");
	is(irqs, 2, "it was kept");
	SELF_IPI(0x40);
	__asm__ volatile("mov %%ss, %%eax; lea 2f(%%rip), %0; sti; mov %%eax, %%ss; nop; 2: nop; cli" : "=&r"(after) :: "rax", "memory");
	ok(irqs == 3, "STI, MOV SS: one interrupt (at %ld)", (long)(irq_ip - after));
	irq_on();
	__asm__ volatile("sti; sti; nop; cli" ::: "memory");
	SELF_IPI(0x40);
	__asm__ volatile("lea 1f(%%rip), %0; sti; hlt; 1: cli" : "=&r"(after) :: "memory");
	ok(irqs == 4 && irq_ip == after, "STI, HLT wakes behind the HLT");
	/* POPF and IRET set IF without a shadow. */
	SELF_IPI(0x40);
	__asm__ volatile("lea 1f(%%rip), %0; pushf; orl $0x200, (%%rsp); popf; 1: nop; cli" : "=&r"(after) :: "memory");
	ok(irqs == 5 && irq_ip == after, "POPF that sets IF has no shadow");
	on_vector(0x40, NULL);
	on_vector(0x40, on_irq);
	/* Priority: of two pending ones the higher vector is first. */
	SELF_IPI(0x40);
	SELF_IPI(0x40);
	__asm__ volatile("sti; nop; nop; cli" ::: "memory");
	is(irqs, 6, "the same vector twice is one interrupt");
}

static void nmi(void)
{
	word after;

	on_vector(NMI, on_nmi);
	SELF_NMI();
	is(nmis, 1, "NMI comes with IF clear");
	SELF_NMI();
	is(nmis, 2, "and again");
	__asm__ volatile("mov %%ss, %%ecx; lea 1f(%%rip), %0; movl %1, (%2); mov %%ecx, %%ss; nop; 1: nop" : "=&r"(after)
			 : "i"(0x40400), "r"((word)LAPIC + APIC_ICR) : "rcx", "memory");
	is(nmis, 3, "NMI around MOV SS");
	on_vector(NMI, NULL);
}

static volatile unsigned depth, deepest;

static void on_nested_nmi(struct frame *f)
{
	nmis++;
	depth++;
	if (depth > deepest)
		deepest = depth;
	if (nmis < 3) {
		SELF_NMI();
		for (volatile int n = 0; n < 100; n++)
			;
	}
	depth--;
}

static void on_unblocking_nmi(struct frame *f)
{
	nmis++;
	depth++;
	if (depth > deepest)
		deepest = depth;
	if (nmis == 1) {
		SELF_NMI();
		__asm__ volatile("int $0x41" ::: "memory"); /* whose IRET unblocks */
	}
	depth--;
}

static void on_nothing(struct frame *f)
{
}

static void nmi_blocking(void)
{
	nmis = deepest = 0;
	on_vector(NMI, on_nested_nmi);
	SELF_NMI();
	ok(nmis == 3 && deepest == 1, "an NMI within an NMI waits for IRET (%u, depth %u)", nmis, deepest);
	nmis = deepest = 0;
	on_vector(NMI, on_unblocking_nmi);
	on_vector(0x41, on_nothing);
	SELF_NMI();
	ok(nmis == 2 && deepest == 2, "any IRET ends the blocking (%u, depth %u)", nmis, deepest);
	on_vector(NMI, NULL);
}

#define STEP(insns, out, in, ...) do {                                                                       \
	steps = 0;                                                                                           \
	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf\n" insns "\n pushf; andl $~0x100, (%%rsp); popf"  \
			 : BARE_UNWRAP out : BARE_UNWRAP in : "memory", "cc" __VA_OPT__(,) __VA_ARGS__); } while (0)

CODE(user_step, "pushf\n orl $0x100, (%rsp)\n popf\n nop\n nop\n pushf\n andl $~0x100, (%rsp)\n popf\n int $0x80");
CODE(user_step_syscall, "pushf\n orl $0x100, (%rsp)\n popf\n nop\n syscall\n int $0x80");
CODE(syscall_entry, "nop\n mov %r11, %rax\n int $0x42");

static void on_0x42(struct frame *f)
{
	f->flags &= ~(word)TF;
	attempt_return();
}

static void single_step(void)
{
	word a, b, c, d;
	char from[64], to[64];

	on_vector(DB, on_step_quiet);
	/* PUSHF, AND, POPF are stepped over as well: the trap comes behind POPF that cleared TF too. */
	STEP("", (), ());
	is(steps, 3, "TF set by POPF: the first trap is behind the next instruction; POPF that clears it traps");
	is(step_dr6 & 0x4000, 0x4000, "DR6.BS");
	STEP("1: nop; 2: nop; 3: nop; lea 2b(%%rip), %0; lea 3b(%%rip), %1", ("=&r"(a), "=&r"(b)), ());
	ok(steps == 8 && step_ip[0] == a && step_ip[1] == b, "a trap behind each instruction");
	STEP("lea 1f(%%rip), %0; mov $5, %%ecx; 1: rep movsb; 2: lea 2b(%%rip), %1", ("=&r"(a), "=&r"(b)), ("S"(from), "D"(to)), "rcx");
	/* lea, mov, 5 iterations, lea, 3 of the end */
	is(steps, 11, "REP traps behind each iteration");
	ok(step_ip[2] == a && step_ip[5] == a && step_ip[6] == b, "at the instruction until the last one");
	STEP("lea 1f(%%rip), %0; mov %%ss, %%ecx; mov %%ecx, %%ss; nop; 1:", ("=&r"(a)), (), "rcx");
	ok(steps == 6 && step_ip[2] == a, "no trap between MOV SS and the next instruction (%u)", steps);
	STEP("lea 1f(%%rip), %0; sti; cli; 1:", ("=&r"(a)), ());
	is(steps, 6, "STI does not hold back a trap");
	STEP("lea 1f(%%rip), %0; int $0x41; 1:", ("=&r"(a)), ());
	ok(steps == 4 && step_ip[1] == a + 1, "INT n: TF is clear in the handler; IRET sets it again: a trap behind the next (%u)", steps);
	STEP("cpuid; 1: nop", ("=a"(a), "=b"(b), "=c"(c), "=d"(d)), ("a"(0), "c"(0)));
	is(steps, 5, "CPUID");
	STEP("jmp 1f; nop; 1: call 2f; jmp 3f; 2: ret; 3:", (), ());
	is(steps, 7, "JMP, CALL, RET, JMP");
	STEP("mov $3, %%ecx; 1: loop 1b; pushf; pop %%rax", ("=a"(a)), (), "rcx");
	is(steps, 9, "LOOP to itself");
	is(a & TF, TF, "PUSHF shows TF");
	STEP("push %0; popf; nop", (), ("r"(2ul | TF)), "rcx");
	is(steps, 6, "POPF that keeps TF");
	steps = 0;
	/* IRET that sets TF: the first trap is behind the next instruction. */
	__asm__ volatile("mov %%rsp, %%rax; push %3; push %%rax; push %2; push %4; lea 1f(%%rip), %%rax; push %%rax; iretq\n"
			 "1: nop; 2: lea 2b(%%rip), %0; pushf; andl $~0x100, (%%rsp); popf"
			 : "=&r"(a), "=&a"(b) : "r"(2ul | TF), "r"((word)SEL_KDATA), "r"((word)SEL_KCODE) : "memory");
	ok(steps == 5 && step_ip[0] == a, "IRET that sets TF traps behind the next instruction");
	/* A fault in a stepped instruction: the fault, and no trap. */
	steps = 0;
	exc_clear();
	__asm__ volatile("movq $99f, exc_resume; pushf; orl $0x100, (%%rsp); popf; ud2; 99:" ::: "memory");
	ok(exc.vector == UD && steps == 0 && (exc.flags & TF), "#UD in a stepped instruction comes instead of the trap");
	is((uint64_t)user_run(USER(user_step), 0, 0), 0x80, "stepping at CPL 3");
	is(steps, 5, "two NOPs and three that clear TF");
	/* SYSCALL with TF: RFLAGS is masked before the trap would come (vol. 2, SYSCALL). */
	wrmsr(0xc0000081, (uint64_t)SEL_KCODE << 32 | (uint64_t)SEL_UCODE32 << 48);
	wrmsr(0xc0000082, (word)syscall_entry);
	wrmsr(0xc0000084, TF | IF);
	steps = 0;
	on_vector(0x42, on_0x42);
	user_run(USER(user_step_syscall), 0, 0);
	is(steps, 1, "SYSCALL that masks TF is not trapped");
	on_vector(DB, NULL);
	write_dr6(0xffff0ff0);
}

static volatile uint64_t watched[4] __attribute__((aligned(64)));
static volatile unsigned hits;
static volatile word hit_dr6, hit_ip, hit_flags, hit_cx, hit_sp;

static void on_break(struct frame *f)
{
	hits++;
	hit_dr6 = read_dr6();
	hit_ip = f->ip;
	hit_flags = f->flags;
	hit_cx = f->cx;
	hit_sp = f->sp;
	write_dr6(0xffff0ff0);
	if (hit_dr6 & 1 && !(read_dr7() & 0x30000)) /* an instruction breakpoint: go on */
		f->flags |= RF;
	if (hits > 50)
		f->flags |= RF, write_dr7(0x400);
}

#define DR7(n, rw, len) (0x400ul | 2ul << (n) * 2 | (word)(rw) << (16 + (n) * 4) | (word)(len) << (18 + (n) * 4))

static void breakpoints(void)
{
	word at, after, x;

	on_vector(DB, on_break);
	is(read_dr6(), 0xffff0ff0, "DR6 after a write of what it is after RESET");
	write_dr7(0);
	is(read_dr7(), 0x400, "DR7 bit 10 is always 1");
	write_dr6(0);
	is(read_dr6() & ~0x10800ul, 0xffff0ff0 & ~0x10800ul, "DR6's constant bits");
	write_dr6(0xffff0ff0);
	hits = 0;
	__asm__ volatile("lea 1f(%%rip), %0; mov %0, %%dr0; mov %1, %%dr7; nop; 1: nop; nop" : "=&r"(at) : "r"(DR7(0, 0, 0)));
	ok(hits == 1 && hit_ip == at && (hit_dr6 & 0xf) == 1, "instruction breakpoint: before the instruction, DR6.B0");
	is(hit_flags & RF, 0, "it saves RF clear, unlike any other fault (17.3.1.1)");
	write_dr7(0x400);
	hits = 0;
	write_dr7(0x400);
	write_dr0((word)watched);
	hits = 0;
	write_dr7(DR7(0, 1, 3));
	__asm__ volatile("lea 1f(%%rip), %0; movl $1, %1; 1: nop" : "=&r"(after) : "m"(watched[0]));
	ok(hits == 1 && hit_ip == after && (hit_dr6 & 15) == 1, "write breakpoint: a trap behind the write");
	__asm__ volatile("mov %1, %0" : "=r"(x) : "m"(watched[0]));
	is(hits, 1, "not of a read");
	for (unsigned n = 0; n < 4; n++) {
		hits = 0;
		write_dr7(0x400);
		write_dr0((word)&watched[1]), write_dr1((word)&watched[1]), write_dr2((word)&watched[1]), write_dr3((word)&watched[1]);
		write_dr7(DR7(n, 3, 2));
		__asm__ volatile("mov %1, %0" : "=r"(x) : "m"(watched[1]));
		ok(hits == 1 && (hit_dr6 & 15) == 1u << n, "read/write breakpoint DR%u of a read", n);
		__asm__ volatile("movb $1, %0" ::"m"(((volatile char *)&watched[1])[7]));
		ok(hits == 2, "of a write to its last byte (%u)", hits);
		__asm__ volatile("movb $1, %0; movb $1, %1" ::"m"(((volatile char *)&watched[1])[8]), "m"(((volatile char *)&watched[0])[7]));
		ok(hits == 2, "not of its neighbours (%u)", hits);
		__asm__ volatile("movq $1, %0" ::"m"(((volatile char *)watched)[4]));
		ok(hits == 3, "of a write that overlaps (%u)", hits);
		__asm__ volatile("lock addq $1, %0" ::"m"(watched[1]));
		ok(hits == 4, "of a locked one (%u)", hits);
		__asm__ volatile("push $1; popq %0" ::"m"(watched[1]) : "memory");
		ok(hits == 5, "of a POP (%u)", hits);
	}
	write_dr7(0x400);
	for (unsigned len = 0; len < 4; len++) {
		static const unsigned sizes[] = { 1, 2, 8, 4 };
		unsigned inside = 0;

		write_dr7(0x400);
		write_dr2((word)&watched[2]);
		write_dr7(DR7(2, 1, len));
		for (int at = -1; at < 9; at++) {
			hits = 0;
			__asm__ volatile("movb $1, %0" ::"m"(((volatile char *)&watched[2])[at]));
			inside += hits;
			if ((hits == 1) != (at >= 0 && at < (int)sizes[len]))
				inside += 100;
		}
		is(inside, sizes[len], "LEN %u covers %u bytes", len, sizes[len]);
	}
	write_dr7(0x400);
	write_dr0((word)&watched[3]);
	write_dr7(DR7(0, 1, 0));
	hits = 0;
	__asm__ volatile("mov $10, %%ecx; mov %0, %%rdi; rep stosb" ::"r"((char *)&watched[3] - 4) : "rcx", "rdi", "memory");
	is(hits, 1, "one byte of a REP STOSB");
	write_dr7(0x400);
	/* General detect */
	hits = 0;
	write_dr7(0x2400);
	is((uint64_t)TRY("mov %%dr0, %%rax", (), (), "rax"), (uint64_t)-1, "GD: a handler runs");
	ok(hits == 1 && (hit_dr6 & 0x2000), "DR6.BD");
	is(read_dr7() & 0x2000, 0, "GD is cleared on entry");
	/* DR4, DR5 and CR4.DE */
	write_dr0(0x1234);
	is((uint64_t)TRY(".byte 0x0f, 0x21, 0xe0", (), (), "rax"), (uint64_t)-1, "DR4 is DR6 without CR4.DE");
	write_cr4(read_cr4() | 8);
	is((uint64_t)TRY(".byte 0x0f, 0x21, 0xe0", (), (), "rax"), UD, "DR4 is #UD with CR4.DE");
	write_cr4(read_cr4() & ~8ul);
	is((uint64_t)TRY("mov %0, %%dr7", (), ("r"(1ul << 32))), GP, "#GP: upper half of DR7");
	is((uint64_t)TRY("mov %0, %%dr6", (), ("r"(1ul << 32))), GP, "#GP: upper half of DR6");
	/* I/O breakpoint */
	write_cr4(read_cr4() | 8);
	write_dr1(0x80);
	write_dr7(DR7(1, 2, 0));
	hits = 0;
	outb(0x80, 0);
	ok(hits == 1 && (hit_dr6 & 15) == 2, "I/O breakpoint (%u)", hits);
	outb(0x84, 0);
	is(hits, 1, "not of another port");
	write_dr7(0x400);
	write_cr4(read_cr4() & ~8ul);
	/* MOV SS holds a data breakpoint back until behind the next instruction. */
	uint16_t ss = SEL_KDATA;

	write_dr0((word)&ss);
	write_dr7(DR7(0, 3, 0));
	hits = 0;
	__asm__ volatile("lea 1f(%%rip), %0; mov %1, %%ss; nop; 1: nop" : "=&r"(after) : "m"(ss));
	ok(hits == 1 && hit_ip == after, "a breakpoint of MOV SS is reported behind the next instruction (%u, %ld)", hits, (long)(hit_ip - after));
	write_dr7(0x400);
	on_vector(DB, NULL);
}

/* String instructions: a trap behind the iteration that hits, with RF set as long as there is another. */
static void string_breakpoints(void)
{
	static volatile uint8_t from[16], to[16];
	word at, after;

	on_vector(DB, on_break);
#define STRING(insn, watched_byte, rw, count)                                                                               \
	do {                                                                                                                \
		write_dr1((word)(watched_byte));                                                                            \
		write_dr7(DR7(1, rw, 0));                                                                                   \
		hits = 0;                                                                                                   \
		__asm__ volatile("lea 1f(%%rip), %0; lea 2f(%%rip), %1; mov %2, %%rsi; mov %3, %%rdi; mov %4, %%ecx; mov $0x80, %%edx; 1: " insn "; 2: nop" \
				 : "=&r"(at), "=&r"(after) : "i"(from), "i"(to), "i"(count) : "rsi", "rdi", "rcx", "rax", "rdx", "memory", "cc"); \
		write_dr7(0x400);                                                                                           \
	} while (0)
	for (unsigned n = 0; n < 16; n++)
		from[n] = (uint8_t)n;
	STRING("rep movsb", &to[5], 1, 16);
	ok(hits == 1 && hit_ip == at && hit_cx == 10 && (hit_dr6 & 15) == 2, "REP MOVSB: its write, behind the sixth iteration (%u, %lu)", hits, hit_cx);
	ok(hit_flags & RF, "RF is set between iterations");
	is((uint64_t)memcmp((void *)from, (void *)to, 16), 0, "and the rest is done");
	STRING("rep movsb", &from[5], 3, 16);
	ok(hits == 1 && hit_ip == at && hit_cx == 10, "its read");
	STRING("rep movsb", &from[5], 1, 16);
	is(hits, 0, "a write breakpoint is not hit by its read");
	STRING("rep movsb", &to[15], 1, 16);
	ok(hits == 1 && hit_ip == after && hit_cx == 0 && !(hit_flags & RF), "the last iteration: behind the instruction, RF clear");
	STRING("rep movsq", &to[12], 1, 2);
	ok(hits == 1 && hit_ip == after, "REP MOVSQ that overlaps it");
	STRING("xor %%eax, %%eax; movsb", &to[0], 1, 1);
	ok(hits == 1 && hit_ip == after, "MOVSB");
	STRING("repe cmpsb", &to[3], 3, 16);
	ok(hits == 1 && hit_ip == at && hit_cx == 12, "REPE CMPSB");
	STRING("mov $7, %%al; repne scasb", &to[7], 3, 16);
	ok(hits == 1 && hit_ip == after && hit_cx == 8, "REPNE SCASB that ends where it hits");
	STRING("rep lodsb", &from[2], 3, 16);
	ok(hits == 1 && hit_cx == 13, "REP LODSB");
	STRING("rep insb", &to[1], 1, 4);
	ok(hits == 1 && hit_ip == at && hit_cx == 2, "REP INSB");
	STRING("rep outsb", &from[1], 3, 4);
	ok(hits == 1 && hit_ip == at && hit_cx == 2, "REP OUTSB");
	STRING("mov $0, %%ecx; rep stosb", &to[0], 3, 0);
	is(hits, 0, "no iteration, no hit");
	STRING("std; lea 3(%%rdi), %%rdi; mov $4, %%ecx; rep stosb; cld", &to[1], 1, 4);
	ok(hits == 1 && hit_cx == 1, "downwards");
}

/* The frame of an event is data too: the trap comes before the handler's first instruction. */
extern char event_handler[], event_fault[];
__asm__(".pushsection .text\n.balign 16\nevent_handler:\n nop\n nop\n iretq\n"
	"event_fault:\n nop\n add $8, %rsp\n mov %rbx, (%rsp)\n iretq\n.popsection");

static void event_breakpoints(void)
{
	word stack = (word)page_alloc() + 4096, after;

	on_vector(DB, on_break);
	/* By an interrupt stack, so that it is known where the frame will lie. */
	tss[0].ist[3] = stack;
	idt_set(0x42, (word)event_handler, SEL_KCODE, 0x8e, 4);
	for (unsigned slot = 1; slot <= 5; slot++) {
		write_dr2(stack - slot * 8);
		write_dr7(DR7(2, 1, 2));
		hits = 0;
		__asm__ volatile("int $0x42" ::: "memory");
		write_dr7(0x400);
		ok(hits == 1 && (hit_dr6 & 15) == 4 && hit_ip == (word)event_handler && hit_sp == stack - 40,
		   "INT: a write breakpoint on slot %u of its frame (%u, %ld)", slot, hits, (long)(hit_ip - (word)event_handler));
		write_dr7(DR7(2, 1, 2));
		hits = 0;
		apic_write(APIC_SVR, 0x1ff);
		apic_ipi(0, 0x40042);
		__asm__ volatile("sti; nop; nop; cli" ::: "memory");
		write_dr7(0x400);
		apic_write(APIC_EOI, 0);
		ok(hits == 1 && hit_ip == (word)event_handler, "an interrupt (%u, %ld)", hits, (long)(hit_ip - (word)event_handler));
	}
	/* A fault, and its error code */
	write_dr2(stack - 48);
	write_dr7(DR7(2, 1, 2));
	idt_set(GP, (word)event_fault, SEL_KCODE, 0x8e, 4);
	hits = 0;
	__asm__ volatile("lea 1f(%%rip), %%rbx; mov $0xfff8, %%eax; mov %%eax, %%fs; 1:" ::: "rax", "rbx", "memory");
	write_dr7(0x400);
	idt_default(GP);
	ok(hits == 1 && hit_ip == (word)event_fault, "#GP's error code (%u)", hits);
	/* IRET reads. */
	idt_set(0x42, (word)event_handler, SEL_KCODE, 0x8e, 4);
	write_dr2(stack - 40);
	write_dr7(DR7(2, 3, 2));
	hits = 0;
	__asm__ volatile("lea 1f(%%rip), %0; int $0x42; 1: nop" : "=&r"(after) :: "memory");
	write_dr7(0x400);
	ok(hits == 2 && hit_ip == after, "a read/write breakpoint: the push, and IRET's pop, behind it (%u)", hits);
	idt_default(0x42);
	on_vector(DB, NULL);
}

static void bad_stack(void *arg)
{
	__asm__ volatile("mov %0, %%rsp; ud2" ::"r"(arg));
}

static void ist(void)
{
	word stack = (word)page_alloc() + 4096;
	int v;

	tss[0].ist[2] = stack;
	idt_set(UD, (word)exc_stubs + UD * 16, SEL_KCODE, 0x8e, 3);
	v = attempt(bad_stack, (void *)0x1000000000000001);
	ok(v == UD && exc.handler_sp < stack && exc.handler_sp > stack - 400, "IST 3 is used with a bad RSP");
	v = attempt(bad_stack, (void *)(stack - 2048 - 3));
	ok(exc.sp == stack - 2048 - 3, "RSP is saved as it was");
	idt_default(UD);
	tss[0].ist[0] = stack;
	idt_set(DF, (word)exc_stubs + DF * 16, SEL_KCODE, 0x8e, 1);
	v = attempt(bad_stack, (void *)(TEST_BASE + 0x1000));
	ok(v == DF && exc.error == 0, "#DF(0): a page fault while #UD pushes, and again (%d)", v);
	v = attempt(bad_stack, (void *)0x1000000000000000);
	ok(v == DF, "#DF: #SS while #SS is delivered (%d)", v);
	/* Contributory pairs (vol. 3, table 6-5) */
	idt_set(UD, 0, SEL_KCODE, 0x0e, 0);
	TRY0("ud2");
	ok(exc.vector == NP && exc.error == (UD << 3 | 2 | 1), "#UD through a gate not present: #NP with EXT (0x%lx)", exc.error);
	idt_default(UD);
	idt_set(GP, 0, SEL_KCODE, 0x0e, 0);
	v = TRY("mov %0, %%ds", (), ("r"(0xfff8)));
	ok(v == DF, "#GP, then #NP: #DF");
	idt_default(GP);
	idt_set(PF, 0, SEL_KCODE, 0x0e, 0);
	v = TRY("mov (%0), %%eax", (), ("r"(TEST_BASE)), "rax");
	ok(v == DF, "#PF, then #NP: #DF");
	idt_default(PF);
	idt_default(DF);
	word sp0 = tss[0].rsp[0];

	tss[0].rsp[0] = TEST_BASE + 0x2000;
	idt_set(DF, (word)exc_stubs + DF * 16, SEL_KCODE, 0x8e, 1);
	idt_set(PF, (word)exc_stubs + PF * 16, SEL_KCODE, 0x8e, 1);
	v = user_run(USER(user_step) + 0, 0, 0) ; /* a CPL 3 trap onto a stack that is not there */
	ok(v == PF && exc.error == 2 && exc.cr2 == TEST_BASE + 0x2000 - 8, "RSP0 not mapped: #PF, a supervisor's write to the highest word (%d, 0x%lx, 0x%lx)", v, exc.error, exc.cr2);
	ok(exc.cs == SEL_UCODE, "reported for the user's instruction");
	tss[0].rsp[0] = sp0;
	idt_default(PF);
	idt_default(DF);
}

/* IRETQ with the given frame, as an attempt. */
struct iret_frame { word ip, cs, flags, sp, ss; };
CODE(iret_target, "int $0x43");

static void do_iret(void *arg)
{
	const struct iret_frame *f = arg;

	__asm__ volatile("push %0; push %1; push %2; push %3; push %4; iretq" ::"r"(f->ss), "r"(f->sp), "r"(f->flags), "r"(f->cs),
			 "r"(f->ip) : "memory");
}

static int iret_to(word cs, word ip, word flags, word ss, word sp)
{
	struct iret_frame f = { ip, cs, flags, sp, ss };

	return attempt(do_iret, &f);
}

static void iret(void)
{
	word to = (word)iret_target, sp = (word)page_alloc() + 2048;
	int v;

	idt_set(0x43, (word)exc_stubs + 0x43 * 16, SEL_KCODE, 0xee, 0);
	v = iret_to(SEL_KCODE, to, 2, SEL_KDATA, sp);
	ok(v == 0x43 && exc.sp == sp && exc.ss == SEL_KDATA, "IRETQ to the same level loads SS:RSP");
	v = iret_to(SEL_KCODE, to, 2, 0, sp);
	ok(v == 0x43 && exc.ss == 0, "a null SS is allowed for 64-bit code at CPL 0");
	v = iret_to(SEL_UCODE, USER(to), 2, SEL_UDATA, USER(sp));
	ok(v == 0x43 && exc.cs == SEL_UCODE && exc.sp == USER(sp), "to CPL 3");
	v = iret_to(SEL_UCODE32, 0, 2, SEL_UDATA, sp);
	ok(v == PF && exc.cs == SEL_UCODE32 && exc.error == 0x15, "to compatibility mode (which faults in supervisor memory, 0x%lx)", exc.error);
	v = iret_to(SEL_UCODE, USER(to), 2, 3, USER(sp));
	ok(v == GP && exc.error == 0, "a null SS for CPL 3: #GP(0)");
	v = iret_to(SEL_UCODE, USER(to), 2, SEL_KDATA, USER(sp));
	ok(v == GP && exc.error == SEL_KDATA, "SS of another level: #GP(SS)");
	v = iret_to(SEL_KDATA, to, 2, SEL_KDATA, sp);
	ok(v == GP && exc.error == SEL_KDATA, "CS that is data: #GP(CS)");
	v = iret_to(0, to, 2, SEL_KDATA, sp);
	ok(v == GP && exc.error == 0, "a null CS: #GP(0)");
	v = iret_to(0xfff8, to, 2, SEL_KDATA, sp);
	ok(v == GP && exc.error == 0xfff8, "CS beyond the GDT: #GP(CS)");
	v = iret_to(SEL_UCODE & ~3, to, 2, SEL_KDATA, sp);
	ok(v == GP && exc.error == (SEL_UCODE & ~3), "CS of DPL 3 with RPL 0: #GP(CS)");
	v = iret_to(SEL_KCODE, 0x800000000000, 2, SEL_KDATA, sp);
	ok(v == GP && exc.error == 0, "a non-canonical RIP: #GP(0)");
	v = iret_to(SEL_KCODE, to, 2 | NT, SEL_KDATA, sp);
	ok(v == 0x43 && exc.flags & NT, "NT is loaded");
	write_flags(2 | NT);
	v = iret_to(SEL_KCODE, to, 2, SEL_KDATA, sp);
	write_flags(2);
	ok(v == GP && exc.error == 0, "IRETQ with NT set: #GP(0)");
	v = iret_to(SEL_KCODE, to, 2 | AC_FLAG | 1 << 21 | 0xcd5, SEL_KDATA, sp);
	is(exc.flags, 2 | AC_FLAG | 1 << 21 | 0xcd5, "flags are loaded");
	v = iret_to(SEL_KCODE, to, 0xffffffffffc08028 | 2, SEL_KDATA, sp);
	is(exc.flags, 2, "reserved flags are not");
	v = iret_to(SEL_KCODE, to, 2 | VM, SEL_KDATA, sp);
	ok(v == 0x43 && !(exc.flags & VM), "VM is ignored in long mode");
	user_flags = 2;
	v = iret_to(SEL_UCODE, USER(to), 2 | 3 << 12 | IF, SEL_UDATA, USER(sp));
	is(exc.flags & (3 << 12 | IF), 3 << 12 | IF, "IOPL and IF are loaded at CPL 0");
	write_flags(2);
}

CODE(user_popf, "push %rdi\n popf\n pushf\n pop %rax\n int $0x80");

static void popf_rights(void)
{
	user_flags = 2;
	user_run(USER(user_popf), 2 | 3 << 12 | IF, 0);
	is(exc.regs.ax & (3 << 12 | IF), 0, "POPF at CPL 3: IOPL and IF stay");
	user_flags = 2 | 3 << 12;
	user_run(USER(user_popf), 2 | IF, 0);
	is(exc.regs.ax & (3 << 12 | IF), 3 << 12 | IF, "with IOPL 3 IF changes, IOPL stays");
	user_flags = 2;
	user_run(USER(user_popf), 2 | VM | RF | NT | AC_FLAG, 0);
	is(exc.regs.ax & (VM | RF | NT | AC_FLAG), NT | AC_FLAG, "VM and RF cannot be set by POPF");
}

void main(void)
{
	shadows();
	nmi();
	nmi_blocking();
	single_step();
	breakpoints();
	string_breakpoints();
	event_breakpoints();
	ist();
	iret();
	popf_rights();
}
