/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the translator's optimizations could blur at the edges: jumps to where no code can be, jumps of nearly 2 GiB,
 * the instruction behind STI, operands that wrap at 4 GiB. test_bt_oracle cannot reach these: they take system state.
 *
 * The guest runs at CPL 0. Each exception and interrupt ends the run; its frame is then on the stack.
 */
#include <string.h>

#include "cpu/bt/private.h"
#include "tests/tap.h"
#include "tests/unit/bt_guest.h"

#define IDT 0x20000u
#define HANDLERS 0x21000u /* 8 bytes each: push $vector; out %al, $0xf4; jmp . */
#define GDT 0x22000u
#define TABLES 0x400000u /* 4 KiB pages for map() */
#define FAR_LOW 0x7fffffffe000ull
#define FAR_HIGH 0xffff800000000000ull
#define NONE 0x5a5a5a5a5a5a5a5aull

static struct bt_guest g;
static unsigned tables;

/* Maps the page at @linear to @gpa, making tables as needed. Returns where its entry is. */
static uint64_t map(uint64_t linear, uint64_t gpa)
{
	uint64_t table = GUEST_TABLES, entry;

	for (unsigned level = 3; level; level--) {
		uint64_t at = table + 8 * (linear >> (12 + 9 * level) & 511);

		if (!mem_read(g.mem, at, &entry, 8))
			abort();
		if (!(entry & 1) || (entry & 0x80)) {
			bool large = entry & 0x80;
			uint64_t old = large ? entry & ~0x1fffffull : 0;

			entry = (TABLES + 4096 * tables++) | 7;
			guest_put64(&g, at, entry);
			for (unsigned k = 0; k < 512; k++) /* what a large page has mapped stays */
				guest_put64(&g, (entry & ~0xfffull) + 8 * k, large ? (old + 4096 * k) | 7 : 0);
		}
		table = entry & ~0xfffull;
	}
	guest_put64(&g, table + 8 * (linear >> 12 & 511), gpa | 7);
	return table + 8 * (linear >> 12 & 511);
}

/* What ended the run. */
struct end {
	uint64_t vector, error, rip, cs, rflags, rsp, cr2;
	struct x86_regs r;
};

enum code { CODE16 = 0x009b, CODE32 = 0xc09b, CODE64 = 0xa09b };

static void set_up(enum code code, uint64_t rip, uint64_t rflags, struct x86_sregs *s)
{
	struct x86_regs r = {.rip = rip, .rflags = rflags | 2};
	static const uint64_t gdt[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};

	guest_setup(&g, 0, X86_XCR0_X87 | X86_XCR0_SSE);
	for (unsigned k = 0; k < 64; k++) {
		uint64_t at = HANDLERS + 8 * k;
		uint8_t stub[8] = {0x6a, (uint8_t)k, 0xe6, 0xf4, 0xeb, 0xfe};

		guest_load(&g, at, stub, 8);
		guest_put64(&g, IDT + 16 * k, (at & 0xffff) | 8 << 16 | 0x8eull << 40 | (at >> 16) << 48);
		guest_put64(&g, IDT + 16 * k + 8, 0);
	}
	guest_load(&g, GDT, gdt, sizeof(gdt));
	vcpu_get_sregs(g.vcpu, s);
	s->gdtr = (struct x86_table){.base = GDT, .limit = sizeof(gdt) - 1};
	s->idtr = (struct x86_table){.base = IDT, .limit = 64 * 16 - 1};
	s->seg[X86_CS].attr = code;
	for (unsigned k = 0; k < 16; k++)
		r.gpr[k] = 0x1000 + k;
	r.gpr[X86_RSP] = GUEST_STACK;
	vcpu_set_sregs(g.vcpu, s);
	vcpu_set_regs(g.vcpu, &r);
}

static void go(struct end *end)
{
	struct vcpu_exit e;
	struct x86_sregs s;
	uint64_t frame[7] = {0};
	unsigned k = 1;

	memset(end, 0, sizeof(*end));
	end->vector = NONE;
	g.exit_value = NONE;
	vcpu_run(g.vcpu, &e);
	vcpu_get_regs(g.vcpu, &end->r);
	vcpu_get_sregs(g.vcpu, &s);
	end->cr2 = s.cr2;
	if (e.reason != VCPU_EXIT_STOPPED || g.exit_value == NONE) {
		diag("exit %d: %s", e.reason, e.message);
		return;
	}
	if (!mem_read(g.mem, end->r.gpr[X86_RSP] & 0xffffff, frame, sizeof(frame)))
		return;
	end->vector = frame[0];
	if (end->vector == 8 || (end->vector >= 10 && end->vector <= 14))
		end->error = frame[k++];
	end->rip = frame[k];
	end->cs = frame[k + 1];
	end->rflags = frame[k + 2];
	end->rsp = frame[k + 3];
}

/* ---- targets of jumps ---- */

struct branch {
	const char *name;
	uint8_t code[12];
	unsigned len;
	uint64_t at;
	bool pushes;
};

/* Ends in #GP at the jump, with nothing changed but the bytes below rSP for a CALL: they are @want then. */
static void expect_gp(const struct branch *b, const struct x86_regs *before, uint64_t want)
{
	uint64_t pushed, rsp = before->gpr[X86_RSP]; /* not 16-byte aligned: the frame is below what is pushed */
	struct end end;

	guest_put64(&g, rsp - 8, NONE);
	go(&end);
	if (!mem_read(g.mem, rsp - 8, &pushed, 8))
		abort();
	is_u64(end.vector, X86_GP, "%s: #GP", b->name);
	is_u64(end.rip, b->at, "%s: at the jump", b->name);
	is_u64(end.rsp, rsp, "%s: rSP is as it was", b->name);
	is_u64(end.error, 0, "%s: no error code", b->name);
	is_u64(end.r.gpr[X86_RCX], before->gpr[X86_RCX], "%s: rCX is as it was", b->name);
	is_u64(end.rflags & X86_ARITH_FLAGS, before->rflags & X86_ARITH_FLAGS, "%s: flags are", b->name);
	is_u64(pushed, b->pushes ? want : NONE, "%s: what is pushed", b->name);
}

static void test_not_canonical(void)
{
	static const struct branch branches[] = {
		{"jmp rax", {0xff, 0xe0}, 2, 0x900100, false},
		{"jmp [rbx]", {0xff, 0x23}, 2, 0x900100, false},
		{"call rax", {0xff, 0xd0}, 2, 0x900100, true},
		{"call r14", {0x41, 0xff, 0xd6}, 3, 0x900100, true},
		{"ret", {0xc3}, 1, 0x900100, false},
		{"ret 16", {0xc2, 16, 0}, 3, 0x900100, false},
		{"jmp rel32, low", {0xe9, 0, 0x20, 0, 0}, 5, FAR_LOW + 0x100, false},
		{"jz rel32, low", {0x0f, 0x84, 0, 0x20, 0, 0}, 6, FAR_LOW + 0x100, false},
		{"call rel32, low", {0xe8, 0, 0x20, 0, 0}, 5, FAR_LOW + 0x100, true},
		{"jmp rel32, high", {0xe9, 0, 0xf0, 0xff, 0xff}, 5, FAR_HIGH + 0x100, false},
		{"jmp rel8, high", {0xeb, 0x80}, 2, FAR_HIGH + 0x10, false},
		{"loop, high", {0xe2, 0x80}, 2, FAR_HIGH + 0x10, false},
		{"ecx loop, high", {0x67, 0xe2, 0x80}, 3, FAR_HIGH + 0x10, false},
		{"jrcxz, not taken, ret", {0xe3, 0x80, 0xc3}, 3, FAR_HIGH + 0x10, false},
		{"jmp rel32, 1 GiB", {0xe9, 0, 0, 0, 0x40}, 5, 0x7fffe0000000, false},
		{"call rel32, 1 GiB", {0xe8, 0, 0, 0, 0x40}, 5, 0x7fffe0000000, true},
	};
	static const uint64_t targets[] = {0x800000000000, 0xffff7fffffffffff, 0x8000000000000000, 0x0001000000200000};

	for (unsigned n = 0; n < 4 * sizeof(branches) / sizeof(branches[0]); n++) {
		struct branch b = branches[n / 4];
		uint64_t target = targets[n % 4];
		struct x86_sregs s;
		struct x86_regs r;

		guest_load(&g, 0x500000 + (b.at & 0xfff), b.code, b.len);
		map(b.at & ~0xfffull, 0x500000);
		set_up(CODE64, b.at, X86_ZF | X86_CF, &s);
		vcpu_get_regs(g.vcpu, &r);
		r.gpr[X86_RAX] = r.gpr[X86_R14] = target;
		r.gpr[X86_RBX] = GUEST_DATA;
		r.gpr[X86_RCX] = 0x500000005;
		r.gpr[X86_RSP] += 8;
		guest_put64(&g, GUEST_DATA, target);
		guest_put64(&g, r.gpr[X86_RSP], target);
		vcpu_set_regs(g.vcpu, &r);
		if (b.len == 3 && b.code[0] == 0xe3) {
			b.at += 2;
			b.len = 1;
		}
		expect_gp(&b, &r, b.at + b.len);
	}
}

/* A return to 0, before anything has been called: what an empty record of calls may look like. */
static void test_return_to_zero(void)
{
	static const uint8_t ret[] = {0xc3}, ud2[] = {0x0f, 0x0b};
	struct x86_sregs s;
	struct end end;

	guest_load(&g, 0x500100, ret, sizeof(ret));
	map(0x900000, 0x500000);
	set_up(CODE64, 0x900100, 0, &s);
	guest_load(&g, 0, ud2, sizeof(ud2));
	guest_put64(&g, GUEST_STACK, 0);
	go(&end);
	is_u64(end.vector, X86_UD, "RET to 0: #UD of the UD2 there");
	is_u64(end.rip, 0, "RET to 0: goes there");
	is_u64(end.rsp, GUEST_STACK + 8, "RET to 0: rSP");
}

/* Running into what is not canonical is not a jump there, whatever was jumped or called before. */
static void test_edge(void)
{
	static const uint8_t call[] = {0xff, 0xd0}, nop[] = {0x90};
	struct x86_sregs s;
	struct x86_regs r;
	struct end end;

	guest_load(&g, 0x500100, call, sizeof(call));
	guest_load(&g, 0x503fff, nop, sizeof(nop));
	map(0x900000, 0x500000);
	map(0x7ffffffff000, 0x503000);
	set_up(CODE64, 0x900100, 0, &s);
	vcpu_get_regs(g.vcpu, &r);
	r.gpr[X86_RAX] = 0x7fffffffffff;
	vcpu_set_regs(g.vcpu, &r);
	go(&end);
	is_u64(end.vector, X86_GP, "behind the last canonical address: #GP");
	is_u64(end.rip, 0x800000000000, "there");
	is_u64(end.rsp, GUEST_STACK - 8, "the call before has been made");
}

/* Prefetches are hints: of an address that the TLB has, of none, and of one that cannot be; flags and registers stay. */
static void test_prefetch(void)
{
	static const uint8_t code[] = {0x48, 0x8b, 0x07,       /* mov rax, [rdi] */
				       0x48, 0x39, 0xc0, 0xf9, /* cmp rax, rax; stc */
				       0x0f, 0x18, 0x4f, 0x40, /* prefetcht0 [rdi + 64] */
				       0x0f, 0x0d, 0x0e,       /* prefetchw [rsi] */
				       0x42, 0x0f, 0x18, 0x04, 0x32, /* prefetchnta [rdx + r14] */
				       0x0f, 0x92, 0xc1, 0x0f, 0x94, 0xc5, /* setc cl; setz ch */
				       0x48, 0x03, 0x47, 0x40, /* add rax, [rdi + 64] */
				       0x0f, 0x0b};
	struct x86_sregs s;
	struct x86_regs r;
	struct end end;

	guest_load(&g, 0x500100, code, sizeof(code));
	map(0x900000, 0x500000);
	map(0x902000, 0x502000);
	guest_put64(&g, 0x502000, 0x1111);
	guest_put64(&g, 0x502040, 0x2222);
	set_up(CODE64, 0x900100, 0, &s);
	vcpu_get_regs(g.vcpu, &r);
	r.gpr[X86_RDI] = 0x902000;
	r.gpr[X86_RSI] = 0x7fff00000000;
	r.gpr[X86_RDX] = 0x7fffffffffff0000;
	r.gpr[X86_R14] = 0x1234567;
	r.gpr[X86_RCX] = 0;
	vcpu_set_regs(g.vcpu, &r);
	go(&end);
	is_u64(end.vector, X86_UD, "prefetches: they raise nothing");
	is_u64(end.r.gpr[X86_RCX], 0x101, "prefetches: CF and ZF stay");
	is_u64(end.r.gpr[X86_RAX], 0x3333, "prefetches: so does memory");
	is_u64(end.r.gpr[X86_RDX] + end.r.gpr[X86_R14], 0x7fffffffffff0000ull + 0x1234567, "prefetches: and what they were made of");
}

/* Two reads that share a check, RIP-relative, where offset in the page and displacement are more than 31 bits. */
static void test_far_group(void)
{
	static const uint8_t code[] = {0x48, 0x8b, 0x05, 0xe0, 0xff, 0xff, 0x7f,  /* mov rax, [rip + 0x7fffffe0] */
				       0x48, 0x8b, 0x1d, 0xe0, 0xff, 0xff, 0x7f, /* mov rbx, [rip + 0x7fffffe0] */
				       0x0f, 0x0b};
	struct x86_sregs s;
	struct end end;

	guest_load(&g, 0x500800, code, sizeof(code));
	map(0x900000, 0x500000);
	map(0x80900000, 0x501000);
	set_up(CODE64, 0x900800, 0, &s);
	guest_put64(&g, 0x5017ee, 0x1122334455667788);
	guest_put64(&g, 0x5017e7, 0x8877665544332211); /* its last byte is the first of the other */
	go(&end);
	is_u64(end.vector, X86_UD, "RIP-relative reads 2 GiB away: they end");
	is_u64(end.r.gpr[X86_RAX], 0x8877665544332211, "RIP-relative reads 2 GiB away: the first");
	is_u64(end.r.gpr[X86_RBX], 0x1122334455667788, "RIP-relative reads 2 GiB away: the second");
}

/* Calls of another page, which lead there directly soon: and still go where the page tables say. */
static void test_far_links(void)
{
	static const uint8_t calls[] = {0xb9, 5, 0, 0, 0,		  /* mov ecx, 5 */
					0xe8, 0xf6, 0x0e, 0, 0,	  /* 1: call + 0x1000 - 0x10a */
					0xff, 0xc9, 0x75, 0xf7},	  /* dec ecx; jnz 1b */
		remap[] = {0x48, 0x89, 0x37, 0x0f, 0x01, 0x3b,	  /* mov [rdi], rsi; invlpg [rbx] */
			   0xe8, 0xe7, 0x0e, 0, 0,		  /* call, from 0x119 */
			   0x48, 0x89, 0x17, 0x0f, 0x01, 0x3b,	  /* mov [rdi], rdx; invlpg [rbx] */
			   0xe8, 0xdc, 0x0e, 0, 0},		  /* call, from 0x124 */
		one[] = {0x83, 0xc0, 1, 0xc3},			  /* add eax, 1; ret */
		many[] = {0x05, 0, 1, 0, 0, 0xc3}, ud2[] = {0x0f, 0x0b};
	struct x86_sregs s;
	struct x86_regs r;
	struct end end;

	guest_load(&g, 0x501000, one, sizeof(one));
	guest_load(&g, 0x502000, many, sizeof(many));
	guest_load(&g, 0x500100, calls, sizeof(calls));
	guest_load(&g, 0x500100 + sizeof(calls), ud2, sizeof(ud2));
	for (unsigned k = 0; k < 4; k++) { /* the same page of code at two addresses, other pages behind it */
		uint64_t at = k & 1 ? 0xa00000 : 0x900000;

		map(at, 0x500000);
		map(at + 0x1000, k & 1 ? 0x502000 : 0x501000);
		set_up(CODE64, at + 0x100, 0, &s);
		go(&end);
		is_u64(end.vector, X86_UD, "calls of the next page, at %#llx: they end", (unsigned long long)at);
		is_u64(end.r.gpr[X86_RAX], k & 1 ? 0x1500 : 0x1005, "calls of the next page, at %#llx: what is there",
		       (unsigned long long)at);
	}
	guest_load(&g, 0x500100 + sizeof(calls), remap, sizeof(remap));
	set_up(CODE64, 0x900100, 0, &s);
	vcpu_get_regs(g.vcpu, &r);
	r.gpr[X86_RDI] = map(0x901000, 0x501000);
	r.gpr[X86_RSI] = 0x502000 | 7;
	r.gpr[X86_RBX] = 0x901000;
	r.gpr[X86_RDX] = 0;
	vcpu_set_regs(g.vcpu, &r);
	go(&end);
	is_u64(end.vector, X86_PF_VEC, "a page that was called is away: #PF");
	is_u64(end.cr2, 0x901000, "at its address");
	is_u64(end.rip, 0x901000, "when it is fetched");
	is_u64(end.rsp, GUEST_STACK - 8, "behind the call");
	is_u64(end.r.gpr[X86_RAX], 0x1105, "and it was another one in between");
}

/* Jumps that lead straight to another page, when its mapping changes. */
static void test_far_remapped(void)
{
	static const uint8_t turns[] = {0xb9, 6, 0, 0, 0,	       /* mov ecx, 6 */
					0xe8, 0xf6, 0x0e, 0, 0,	       /* 1: call 0x901000, from 0x10a */
					0x48, 0x89, 0x37, 0x0f, 0x01, 0x3b, /* mov [rdi], rsi; invlpg [rbx] */
					0x48, 0x87, 0xd6,	       /* xchg rdx, rsi */
					0xff, 0xc9, 0x75, 0xee},       /* dec ecx; jnz 1b */
		two[] = {0xb9, 3, 0, 0, 0,		 /* mov ecx, 3 */
			 0xe8, 0xf6, 0x0e, 0, 0,	 /* 1: call 0x901000, from 0x10a */
			 0x83, 0xf9, 2, 0x75, 11,	 /* cmp ecx, 2; jne 2f */
			 0xe8, 0xec, 0x0e, 0, 1,	 /* call 0x1901000, from 0x114 */
			 0x48, 0x89, 0x37, 0x0f, 0x01, 0x3b, /* mov [rdi], rsi; invlpg [rbx] */
			 0xff, 0xc9, 0x75, 0xe7},	 /* 2: dec ecx; jnz 1b */
		ud2[] = {0x0f, 0x0b}, third[] = {0x05, 0, 0, 1, 0, 0xc3}; /* add eax, 0x10000; ret */
	const struct {
		const uint8_t *code;
		unsigned len;
		uint64_t rax;
		const char *name;
	} runs[] = {
		{turns, sizeof(turns), 0x1303, "by turns two pages"},
		/* Both addresses have one place in the table of pages, and the second one comes to it last. */
		{two, sizeof(two), 0x11102, "two pages, 16 MiB apart, and another one in place of the first"},
	};
	struct x86_sregs s;
	struct x86_regs r;
	struct end end;

	guest_load(&g, 0x503000, third, sizeof(third));
	map(0x1901000, 0x503000);
	for (unsigned k = 0; k < ARRAY_SIZE(runs); k++) {
		guest_load(&g, 0x500100, runs[k].code, runs[k].len);
		guest_load(&g, 0x500100 + runs[k].len, ud2, sizeof(ud2));
		set_up(CODE64, 0x900100, 0, &s);
		vcpu_get_regs(g.vcpu, &r);
		r.gpr[X86_RDI] = map(0x901000, 0x501000);
		r.gpr[X86_RSI] = 0x502000 | 7;
		r.gpr[X86_RDX] = 0x501000 | 7;
		r.gpr[X86_RBX] = 0x901000;
		vcpu_set_regs(g.vcpu, &r);
		go(&end);
		is_u64(end.vector, X86_UD, "calls of %s: they end", runs[k].name);
		is_u64(end.r.gpr[X86_RAX], runs[k].rax, "calls of %s: what is there", runs[k].name);
	}
}

/* Beyond the limit of CS: 16-bit protected mode. */
static void test_limit(void)
{
	static const struct branch branches[] = {
		{"jmp rel16", {0xe9, 0, 0x10}, 3, 0x100, false},
		{"jmp rel8", {0xeb, 0x7f}, 2, 0xfc0, false},
		{"jz rel16", {0x0f, 0x84, 0, 0x10}, 4, 0x100, false},
		{"call rel16", {0xe8, 0, 0x10}, 3, 0x100, true},
		{"loop", {0xe2, 0x7f}, 2, 0xfc0, false},
		{"ecx loop", {0x67, 0xe2, 0x7f}, 3, 0xfc0, false},
		{"jmp ax", {0xff, 0xe0}, 2, 0x100, false},
		{"call ax", {0xff, 0xd0}, 2, 0x100, true},
		{"ret", {0xc3}, 1, 0x100, false},
		{"ret 16", {0xc2, 16, 0}, 3, 0x100, false},
	};

	for (unsigned k = 0; k < sizeof(branches) / sizeof(branches[0]); k++) {
		const struct branch b = branches[k];
		struct x86_sregs s;
		struct x86_regs r;

		guest_load(&g, GUEST_CODE + b.at, b.code, b.len);
		set_up(CODE16, b.at, X86_ZF | X86_CF, &s);
		s.seg[X86_CS].base = GUEST_CODE;
		s.seg[X86_CS].limit = 0xfff;
		vcpu_set_sregs(g.vcpu, &s);
		vcpu_get_regs(g.vcpu, &r);
		r.gpr[X86_RAX] = 0x1100;
		r.gpr[X86_RCX] = 0x50005;
		r.gpr[X86_RSP] += 8;
		guest_put64(&g, r.gpr[X86_RSP], 0x1100);
		vcpu_set_regs(g.vcpu, &r);
		expect_gp(&b, &r, NONE >> 16 | (b.at + b.len) << 48);
	}
}

/* A rel32 of nearly 2 GiB from the end of a page. */
static void test_far(void)
{
	static const struct { const char *name; uint64_t at; int64_t distance; } far[] = {
		{"forward", 0x100ffa, 0x7fffffff},
		{"forward, next page", 0x100800, 0x7ffff900},
		{"backward", 0x80000010, -0x7fffff00},
	};

	for (unsigned k = 0; k < 3; k++)
		for (unsigned call = 0; call < 2; call++) {
			uint64_t to = far[k].at + 5 + (uint64_t)far[k].distance;
			uint8_t code[5] = {call ? 0xe8 : 0xe9};
			int32_t rel = (int32_t)far[k].distance;
			struct x86_sregs s;
			struct end end;

			memcpy(code + 1, &rel, 4);
			map(far[k].at & ~0xfffull, 0x501000);
			map(to & ~0xfffull, 0x502000);
			guest_load(&g, 0x501000 + (far[k].at & 0xfff), code, 5);
			guest_load(&g, 0x502000 + (to & 0xfff), "\xcc", 1);
			set_up(CODE64, far[k].at, 0, &s);
			go(&end);
			is_u64(end.vector, X86_BP, "%s %s: arrived", call ? "call" : "jmp", far[k].name);
			is_u64(end.rip, to + 1, "at the right place");
		}
}

/* ---- STI's shadow ---- */

struct chip {
	unsigned asked, from; /* an interrupt is there from the @from-th question on, or when the vCPU sleeps */
	bool taken;
};

static bool chip_has(void *opaque)
{
	struct chip *c = opaque;

	return !c->taken && (c->asked++ >= c->from || vcpu_activity(g.vcpu) == VCPU_HALTED);
}

static int chip_ack(void *opaque)
{
	struct chip *c = opaque;

	c->taken = true;
	return 0x30;
}

/*
 * STI; HLT with an interrupt that comes at each possible moment: it is taken behind HLT, never before. With the two on
 * two pages, too, where a block ends between them.
 */
static void test_sti_shadow(uint64_t at, const char *name)
{
	static const uint8_t code[] = {0x90, 0xfb, 0xf4, 0xcc};

	guest_load(&g, at, code, sizeof(code));
	for (unsigned from = 0; from < 8; from++) {
		struct chip chip = {.from = from};
		struct vcpu_irqchip irqchip = {.opaque = &chip, .has_interrupt = chip_has, .ack = chip_ack};
		struct x86_sregs s;
		struct end end;

		set_up(CODE64, at, 0, &s);
		vcpu_set_irqchip(g.vcpu, &irqchip);
		go(&end);
		is_u64(end.vector, 0x30, "%s: the interrupt comes (%u)", name, from);
		is_u64(end.rip, at + 3, "behind HLT");
		ok(end.rflags & X86_IF, "with IF set");
	}
	vcpu_set_irqchip(g.vcpu, &(struct vcpu_irqchip){0});
}

/* The instruction behind STI goes through the bounce buffer. */
static void test_sti_bounce(void)
{
	static const uint8_t code[] = {0x90, 0xfb, 0x48, 0x01, 0x03, 0xcc}; /* nop; sti; add [rbx], rax; int3 */

	guest_load(&g, GUEST_CODE, code, sizeof(code));
	for (unsigned from = 0; from < 8; from++) {
		struct chip chip = {.from = from};
		struct vcpu_irqchip irqchip = {.opaque = &chip, .has_interrupt = chip_has, .ack = chip_ack};
		struct x86_sregs s;
		struct x86_regs r;
		struct end end;

		set_up(CODE64, GUEST_CODE, 0, &s);
		vcpu_get_regs(g.vcpu, &r);
		r.gpr[X86_RBX] = GUEST_DATA + 0xffc;
		vcpu_set_regs(g.vcpu, &r);
		vcpu_set_irqchip(g.vcpu, &irqchip);
		go(&end);
		ok((end.vector == 0x30 && end.rip == GUEST_CODE + 5) ||
			   (end.vector == X86_BP && end.rip == GUEST_CODE + 6),
		   "an access over two pages behind STI is done first (%u): vector %#llx at %#llx", from,
		   (unsigned long long)end.vector, (unsigned long long)end.rip);
	}
	vcpu_set_irqchip(g.vcpu, &(struct vcpu_irqchip){0});
}

/* ---- 4 GiB ---- */

/* An operand across the end of 4 GiB goes on at 0, in protected and in compatibility mode. */
static void test_wrap(bool compatibility)
{
	static const uint8_t code[] = {0x8b, 0x03,	     /* mov eax, [ebx] */
				       0xc7, 0x03, 4, 3, 2, 1, /* mov dword [ebx], 0x01020304 */
				       0xf3, 0x0f, 0x6f, 0x01, /* movdqu xmm0, [ecx] */
				       0xcc};
	const char *name = compatibility ? "compatibility" : "protected";
	uint64_t high = 0, low = 0;
	struct x86_sregs s;
	struct x86_regs r;
	struct end end;

	map(0xfffff000, 0x503000);
	map(0, 0x504000);
	guest_put64(&g, 0x503ff8, 0x2211444444444444);
	guest_put64(&g, 0x504000, 0x5555555555554433);
	guest_load(&g, GUEST_CODE, code, sizeof(code));
	set_up(CODE32, GUEST_CODE, 0, &s);
	if (!compatibility) { /* paging off would do, but the tables are there: PAE's four are a table's first */
		guest_put64(&g, 0x505000, (GUEST_TABLES + 0x2000) | 1);
		guest_put64(&g, 0x505018, 0);
		uint64_t entry;

		if (!mem_read(g.mem, GUEST_TABLES + 0x1000 + 24, &entry, 8))
			abort();
		guest_put64(&g, 0x505018, (entry & ~0xfffull) | 1);
		s.efer &= ~(uint64_t)(X86_EFER_LME | X86_EFER_LMA);
		s.cr3 = 0x505000;
		for (unsigned k = 0; k < 32; k++) { /* 32-bit gates */
			uint64_t at = HANDLERS + 8 * k;

			guest_put64(&g, IDT + 8 * k,
				    (at & 0xffff) | 8 << 16 | 0x8eull << 40 | (at >> 16) << 48);
		}
		guest_put64(&g, GDT + 8, 0x00cf9b000000ffff);
		vcpu_set_sregs(g.vcpu, &s);
	}
	vcpu_get_regs(g.vcpu, &r);
	r.gpr[X86_RBX] = 0xfffffffe;
	r.gpr[X86_RCX] = 0xfffffff8;
	vcpu_set_regs(g.vcpu, &r);
	vcpu_set_sregs(g.vcpu, &s);
	go(&end);
	is_u64(end.r.gpr[X86_RAX] & 0xffffffff, 0x44332211, "%s: read", name);
	if (!mem_read(g.mem, 0x503ff8, &high, 8) || !mem_read(g.mem, 0x504000, &low, 8))
		abort();
	is_u64(high, 0x0304444444444444, "%s: written below 4 GiB", name);
	is_u64(low, 0x5555555555550102, "%s: written at 0", name);
	uint32_t bp;

	if (!mem_read(g.mem, end.r.gpr[X86_RSP] & 0xffffff, &bp, 4))
		abort();
	is_u64(bp, X86_BP, "%s: ran to its end", name);
}

/* @options as in MARU_BT_DEBUG. */
static void test_all(const char *options)
{
	diag("options: %s", options);
	setenv("MARU_BT_DEBUG", options, 1);
	tables = 0;
	guest_open(&g, 1);
	test_not_canonical();
	test_return_to_zero();
	test_edge();
	test_prefetch();
	test_far_group();
	test_far_links();
	test_far_remapped();
	test_limit();
	test_far();
	test_sti_shadow(GUEST_CODE, "in a block");
	test_sti_shadow(GUEST_CODE + 0xffe, "at the end of a page");
	test_sti_bounce();
	test_wrap(true);
	test_wrap(false);
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
