/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A minimal guest for tests of the translator: a vCPU in 64-bit mode, ring 0 (or 3), flat segments, all of RAM mapped one to
 * one, that runs a piece of code until it writes to port 0xf4.
 */
#ifndef TESTS_BT_GUEST_H
#define TESTS_BT_GUEST_H

#include <assert.h>
#include <stdlib.h>

#include "cpu/engine.h"

#ifndef GUEST_PARAVIRT
#define GUEST_PARAVIRT false
#endif
#define GUEST_RAM (16 * MiB)
#define GUEST_CODE 0x200000u
#define GUEST_STACK 0x180000u
#define GUEST_DATA 0x300000u
#define GUEST_TABLES 0x10000u

struct bt_guest {
	struct memory *mem;
	struct loop *loop;
	struct engine *engine;
	struct vcpu *vcpu;
	struct io_region exit_port;
	uint64_t exit_value;
};

static uint64_t guest_port_read(void *opaque, uint64_t off, unsigned size)
{
	return ~0ull;
}

static void guest_port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct bt_guest *g = opaque;

	g->exit_value = value;
	vcpu_request_stop(g->vcpu);
}

static uint64_t guest_time(void *opaque)
{
	return loop_now_ns();
}

static inline void guest_put64(struct bt_guest *g, uint64_t gpa, uint64_t v)
{
	bool ok = mem_write(g->mem, gpa, &v, 8);

	assert(ok);
	(void)ok;
}

static inline void guest_open(struct bt_guest *g, unsigned vcpus)
{
	static const struct io_ops ops = {.read = guest_port_read, .write = guest_port_write};
	struct engine_config c = {.kind = ENGINE_BT, .vcpu_count = vcpus, .vm_time_ns = guest_time,
				  .paravirt = GUEST_PARAVIRT, .kvm_fd = -1};

	if (memory_create(GUEST_RAM, &g->mem) || loop_create(&g->loop))
		abort();
	g->exit_port = (struct io_region){.name = "exit", .base = 0xf4, .length = 4, .ops = &ops, .opaque = g};
	bus_add(g->mem->ports, &g->exit_port);
	c.mem = g->mem;
	c.loop = g->loop;
	if (engine_create(&c, &g->engine))
		abort();
	g->vcpu = engine_vcpu(g->engine, 0);
	/* PML4 → PDPT → PD of 2 MiB pages; user accessible. */
	guest_put64(g, GUEST_TABLES, (GUEST_TABLES + 0x1000) | 7);
	guest_put64(g, GUEST_TABLES + 0x1000, (GUEST_TABLES + 0x2000) | 7);
	for (unsigned k = 0; k < GUEST_RAM / (2 * MiB); k++)
		guest_put64(g, GUEST_TABLES + 0x2000 + 8 * k, k * 2 * MiB | 0x87);
}

static inline void guest_close(struct bt_guest *g)
{
	engine_destroy(g->engine);
	bus_remove(g->mem->ports, &g->exit_port);
	memory_destroy(g->mem);
	loop_destroy(g->loop);
}

/* 64-bit mode at @cpl with SSE to AVX-512 on as far as the host has them; registers zero but RIP and RSP. */
static inline void guest_setup(struct bt_guest *g, unsigned cpl, uint64_t xcr0)
{
	struct x86_sregs s;
	struct x86_regs r = {.rip = GUEST_CODE, .rflags = 2};
	struct x86_segment code = {.selector = (uint16_t)(8 | cpl), .limit = 0xffffffff,
				   .attr = (uint16_t)(0xa09b | cpl << 5)};
	struct x86_segment data = {.selector = (uint16_t)(16 | cpl), .limit = 0xffffffff,
				   .attr = (uint16_t)(0xc093 | cpl << 5)};

	vcpu_reset(g->vcpu);
	vcpu_get_sregs(g->vcpu, &s);
	for (unsigned k = 0; k < X86_SEG_COUNT; k++)
		s.seg[k] = k == X86_CS ? code : data;
	s.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP | X86_CR0_WP;
	s.cr3 = GUEST_TABLES;
	s.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE | X86_CR4_FSGSBASE;
	s.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
	s.xcr0 = xcr0;
	vcpu_set_sregs(g->vcpu, &s);
	r.rflags |= cpl == 3 ? X86_IOPL : 0;
	r.gpr[X86_RSP] = GUEST_STACK;
	vcpu_set_regs(g->vcpu, &r);
}

static inline void guest_load(struct bt_guest *g, uint64_t gpa, const void *code, size_t len)
{
	bool ok = mem_write(g->mem, gpa, code, len);

	assert(ok);
	(void)ok;
}

#endif
