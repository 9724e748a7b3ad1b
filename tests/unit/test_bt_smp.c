/* SPDX-License-Identifier: Apache-2.0 */
/* Two vCPUs of the translator at once: LOCKed instructions that do not run as they are, code that one changes under the other. */
#include <pthread.h>

#include "cpu/bt/vcpu.h"
#include "tests/tap.h"
#include "tests/unit/bt_guest.h"

#define FUNCTION 0x310000u /* a page of code; its data at 0x310800 */
#define DONE 0x320000u
#define PLACE_OF_SECOND 0x210000u

/* Pieces for each vCPU: rbx is its number, which it writes to port 0xf8 at the end. */
#define PIECE(name, text)                                                  \
	extern const uint8_t name##_start[], name##_end[];                 \
	__asm__(".section .rodata\n" #name "_start:\n" text                \
		"\n mov $0xf8, %edx\n mov %ebx, %eax\n out %al, %dx\n 1: jmp 1b\n" #name "_end:\n.previous\n")

PIECE(split, "mov $300, %ecx\n mov $0x300ffe, %esi\n 2: lock incl (%rsi)\n"
	     "mov $1, %eax\n lock xadd %rax, 0x1ffb(%rsi)\n" /* 0x302ff9 */
	     "dec %ecx\n jnz 2b\n");
PIECE(beside, "mov $2000, %ecx\n mov $0x310000, %edi\n 2: call *%rdi\n lock incl 6(%rdi)\n lock incl 0x800(%rdi)\n"
	      "dec %ecx\n jnz 2b\n");
PIECE(writer, "mov $0x310000, %edi\n mov $1, %eax\n 2: mov %eax, 1(%rdi)\n inc %eax\n cmp $500, %eax\n jne 2b\n"
	      "movl $1, 0x320000\n");
PIECE(reader, "mov $0x310000, %edi\n 2: call *%rdi\n cmpl $0, 0x320000\n je 2b\n call *%rdi\n mov %eax, 0x320008\n");
/* mov $7, %eax; ret */
static const uint8_t function[] = {0xb8, 7, 0, 0, 0, 0xc3};

static struct bt_guest g;

static void port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	vcpu_request_stop(engine_vcpu(g.engine, value & 1));
}

static void *run_vcpu(void *vcpu)
{
	struct vcpu_exit e;

	vcpu_run(vcpu, &e);
	return e.reason == VCPU_EXIT_STOPPED ? vcpu : NULL;
}

static void load(unsigned n, const uint8_t *start, const uint8_t *end)
{
	struct x86_regs r;

	g.vcpu = engine_vcpu(g.engine, n);
	guest_setup(&g, 0, X86_XCR0_X87);
	container_of(g.vcpu, struct bt_vcpu, base)->wait_sipi = false;
	vcpu_get_regs(g.vcpu, &r);
	r.gpr[X86_RBX] = n;
	r.gpr[X86_RSP] = GUEST_STACK + 0x1000 * n;
	r.rip = n ? PLACE_OF_SECOND : GUEST_CODE;
	vcpu_set_regs(g.vcpu, &r);
	guest_load(&g, r.rip, start, (size_t)(end - start));
}

static bool run_both(void)
{
	pthread_t t;
	void *first, *second;

	if (pthread_create(&t, NULL, run_vcpu, engine_vcpu(g.engine, 1)))
		abort();
	first = run_vcpu(engine_vcpu(g.engine, 0));
	pthread_join(t, &second);
	return first && second;
}

static uint32_t get32(uint64_t gpa)
{
	uint32_t v = 0;

	return mem_read(g.mem, gpa, &v, 4) ? v : 0xdeadbeef;
}

static void put32(uint64_t gpa, uint32_t v)
{
	guest_load(&g, gpa, &v, 4);
}

static void test_locked(void)
{
	load(0, split_start, split_end);
	load(1, split_start, split_end);
	ok(run_both(), "LOCKed operations across pages ran");
	is_u64(get32(0x300ffe), 600, "lock inc");
	is_u64(get32(0x302ff9), 600, "lock xadd");

	guest_load(&g, FUNCTION, function, sizeof(function));
	load(0, beside_start, beside_end);
	load(1, beside_start, beside_end);
	ok(run_both(), "LOCKed operations on a page of code ran");
	is_u64(get32(FUNCTION + 6), 4000, "beside the code");
	is_u64(get32(FUNCTION + 0x800), 4000, "elsewhere in its page");
}

static void test_modified(void)
{
	unsigned stale = 0;

	for (unsigned round = 0; round < 20; round++) {
		put32(DONE, 0);
		guest_load(&g, FUNCTION, function, sizeof(function));
		load(0, writer_start, writer_end);
		load(1, reader_start, reader_end);
		if (!run_both() || get32(DONE + 8) != 499)
			stale++;
	}
	is_u64(stale, 0, "the last of many changes of the code is what runs in the end");
}

int main(void)
{
	static const struct io_ops ops = {.write = port_write};
	struct io_region port = {.name = "stop", .base = 0xf8, .length = 1, .ops = &ops};

	guest_open(&g, 2);
	bus_add(g.mem->ports, &port);
	test_locked();
	test_modified();
	bus_remove(g.mem->ports, &port);
	g.vcpu = engine_vcpu(g.engine, 0);
	guest_close(&g);
	return done_testing();
}
