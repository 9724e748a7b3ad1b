// SPDX-License-Identifier: Apache-2.0
/*
 * Measuring the engines; see probe.h. KVM has a probe of its own (cpu/kvm/probe.c); the translator runs a like loop, ring 0, with a
 * memory access and an SSE instruction in it, in a throw-away VM through cpu/engine.h; and the host itself the same in C.
 */
#include "vm/probe.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/loop.h"
#include "cpu/engine.h"
#include "cpu/kvm/probe.h"
#include "mem/host.h"
#include "vm/vm.h"

#define RAM (4 * MiB)
#define ITERATIONS 2000000u
#define TABLES 0x1000u
#define CODE 0x10000u
#define DATA 0x20000u
#define END_PORT 0xf4u

/* paddd (%rdi), %xmm0; incq (%rsi); dec %ecx; jnz -11; out %al, $END_PORT; jmp itself */
static const uint8_t code[] = { 0x66, 0x0f, 0xfe, 0x07, 0x48, 0xff, 0x06, 0xff, 0xc9, 0x75, 0xf5, 0xe6, END_PORT, 0xeb, 0xfe };

struct bench {
	struct memory *mem;
	struct loop *loop;
	struct engine *engine;
	struct io_region end;
};

static uint64_t now_ns(void *opaque)
{
	return loop_now_ns();
}

static uint64_t end_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}

static void end_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	vcpu_request_stop(engine_vcpu(((struct bench *)opaque)->engine, 0));
}

static bool put(struct bench *b, uint64_t gpa, uint64_t value)
{
	return mem_write(b->mem, gpa, &value, 8);
}

/* 64-bit mode, one 2 MiB page mapped one to one. */
static bool set_up(struct bench *b, uint32_t iterations)
{
	struct vcpu *v = engine_vcpu(b->engine, 0);
	struct x86_segment cs = { .selector = 8, .limit = 0xffffffff, .attr = 0xa09b };
	struct x86_segment ds = { .selector = 16, .limit = 0xffffffff, .attr = 0xc093 };
	struct x86_regs r = { .rip = CODE, .rflags = 2,
			      .gpr = { [X86_RCX] = iterations, [X86_RDI] = DATA, [X86_RSI] = DATA + 64 } };
	struct x86_sregs s;

	vcpu_reset(v);
	vcpu_get_sregs(v, &s);
	for (unsigned k = 0; k < X86_SEG_COUNT; k++)
		s.seg[k] = k == X86_CS ? cs : ds;
	s.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP | X86_CR0_WP;
	s.cr3 = TABLES;
	s.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
	s.efer = X86_EFER_LME | X86_EFER_LMA;
	vcpu_set_sregs(v, &s);
	vcpu_set_regs(v, &r);
	return put(b, TABLES, (TABLES + 0x1000) | 3) && put(b, TABLES + 0x1000, (TABLES + 0x2000) | 3) &&
	       put(b, TABLES + 0x2000, 0x83) && put(b, DATA + 64, 0) && mem_write(b->mem, CODE, code, sizeof(code));
}

/* ns an iteration, or a negative number: the result was wrong. */
static double run(struct bench *b)
{
	struct vcpu_exit exit;
	uint64_t start, took, count;

	if (!set_up(b, 1000))
		return -1;
	vcpu_run(engine_vcpu(b->engine, 0), &exit); /* translates */
	if (!set_up(b, ITERATIONS))
		return -1;
	start = loop_now_ns();
	vcpu_run(engine_vcpu(b->engine, 0), &exit);
	took = loop_now_ns() - start;
	return mem_read(b->mem, DATA + 64, &count, 8) && count == ITERATIONS ? (double)took / ITERATIONS : -1;
}

static struct error *measure_translator(double *ns)
{
	static const struct io_ops ops = { .read = end_read, .write = end_write };
	struct bench b = { 0 };
	struct engine_config c = { .kind = ENGINE_BT, .vcpu_count = 1, .vm_time_ns = now_ns, .kvm_fd = -1 };
	struct error *err = memory_create(RAM, &b.mem);

	if (!err)
		err = loop_create(&b.loop);
	if (!err) {
		b.end = (struct io_region){ .name = "end", .base = END_PORT, .length = 1, .ops = &ops, .opaque = &b };
		bus_add(b.mem->ports, &b.end);
		c.mem = b.mem;
		c.loop = b.loop;
		err = engine_create(&c, &b.engine);
	}
	if (!err)
		*ns = run(&b);
	engine_destroy(b.engine);
	if (b.mem)
		bus_remove(b.mem->ports, &b.end);
	memory_destroy(b.mem);
	loop_destroy(b.loop);
	return err;
}

static double measure_native(void)
{
	static uint32_t ones[4] __attribute__((aligned(16))) = { 1, 1, 1, 1 };
	uint64_t start, count = 0;
	uint32_t n = ITERATIONS;

	start = loop_now_ns();
	__asm__ volatile("1: paddd (%[ones]), %%xmm0; incq (%[count]); decl %[n]; jnz 1b"
			 : [n] "+r"(n)
			 : [ones] "r"(ones), [count] "r"(&count)
			 : "xmm0", "memory", "cc");
	return (double)(loop_now_ns() - start) / ITERATIONS;
}

static json_t *translator(void)
{
	double ns = 0;
	struct error *err = measure_translator(&ns);
	json_t *o;

	if (!err && ns < 0)
		err = error_new("the translator computes a loop wrongly");
	o = json_pack("{s:b, s:f, s:s}", "usable", !err, "ns_per_iteration", err ? 0.0 : ns, "reason", err ? error_message(err) : "");
	error_free(err);
	return o;
}

int vm_probe(int out_fd, int kvm_fd, int all)
{
	struct kvm_probe k;
	json_t *o;
	int rc;

	kvm_probe_run(kvm_fd, &k);
	o = json_pack("{s:{s:b, s:b, s:b, s:f, s:s}}", "kvm", "ran", k.ran, "exact", k.exact, "good", k.good, "ns_per_iteration",
		      k.ns, "reason", k.reason);
	if (all) {
		json_object_set_new(o, "bt", translator());
		json_object_set_new(o, "memory", json_pack("{s:I, s:I}", "available", (json_int_t)(host_memory_available() & INT64_MAX),
							   "total", (json_int_t)(host_memory_total() & INT64_MAX)));
		json_object_set_new(o, "native", json_pack("{s:f}", "ns_per_iteration", measure_native()));
	}
	rc = json_dumpfd(o, out_fd, JSON_COMPACT);
	json_decref(o);
	return rc < 0 ? VM_EXIT_START : VM_EXIT_OK;
}
