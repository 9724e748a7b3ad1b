/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two engines on one memory, for tests that hold them against each other: the translator of bt_guest.h, and KVM beside it. That needs
 * a /dev/kvm, of whatever speed (tests/long/kvm.sh has one); without it on[1] and kvm are NULL, and the test says what it left out.
 *
 * The vCPU that runs is on[current]; a write to port 0xf4 stops it.
 */
#ifndef TESTS_UNIT_ENGINES_H
#define TESTS_UNIT_ENGINES_H

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"
#include "tests/unit/bt_guest.h"

static struct bt_guest g;
static struct engine *kvm;
static struct vcpu *on[2]; /* the translator's, KVM's */

/*
 * again: addsd %xmm1, %xmm0; paddq %xmm2, %xmm3; add %r8, %rax; rol $7, %rax; xor %r9, %rax; incq (%rdi); out %al, $0xf4; jmp again
 */
static const uint8_t code[] = {
	0xf2, 0x0f, 0x58, 0xc1, 0x66, 0x0f, 0xd4, 0xda, 0x4c, 0x01, 0xc0, 0x48, 0xc1, 0xc0, 0x07, 0x4c, 0x31, 0xc8, 0x48, 0xff, 0x07,
	0xe6, 0xf4, 0xeb, 0xe7,
};

/* Two engines on one memory: both hear of what devices, and this test, write. */
static struct {
	void (*written)(void *opaque, uint64_t gpa, uint64_t len);
	void *opaque;
} listeners[2];

static inline void tell_both(void *opaque, uint64_t gpa, uint64_t len)
{
	for (unsigned k = 0; k < 2; k++)
		listeners[k].written(listeners[k].opaque, gpa, len);
}

static inline void listen_both(void *written_bt, void *opaque_bt)
{
	listeners[0].written = written_bt;
	listeners[0].opaque = opaque_bt;
	listeners[1].written = g.mem->on_written;
	listeners[1].opaque = g.mem->on_written_opaque;
	g.mem->on_written = tell_both;
}

static unsigned current;

static inline void stop_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	vcpu_request_stop(on[current]);
}

static inline void put_double(struct x86_xstate *x, unsigned reg, double value)
{
	memcpy(x->area + 160 + 16 * reg, &value, 8);
}

/* A state that is not the one after reset, and the program, whose count at GUEST_DATA is 0. */
static inline void start_state(struct vcpu *v)
{
	struct x86_xstate x;
	struct x86_regs r;

	g.vcpu = v;
	guest_setup(&g, 0, X86_XCR0_X87 | X86_XCR0_SSE);
	guest_load(&g, GUEST_CODE, code, sizeof(code));
	guest_put64(&g, GUEST_DATA, 0);
	vcpu_get_regs(v, &r);
	r.gpr[X86_RAX] = 0x0123456789abcdef;
	r.gpr[X86_R8] = 0x9e3779b97f4a7c15;
	r.gpr[X86_R9] = 0xc2b2ae3d27d4eb4f;
	r.gpr[X86_RDI] = GUEST_DATA;
	r.gpr[X86_R15] = 0xfedcba9876543210;
	vcpu_set_regs(v, &r);
	vcpu_get_xstate(v, &x);
	put_double(&x, 0, 1.5);
	put_double(&x, 1, 0.1);
	put_double(&x, 2, 3e-7);
	put_double(&x, 15, 42);
	x.area[512] |= X86_XCR0_X87 | X86_XCR0_SSE;
	vcpu_set_xstate(v, &x);
}

/* What cannot be had of KVM is skipped; anything else that fails is a failed test. */
static inline void engines_open(void)
{
	static const struct io_ops ops = { .write = stop_write, .read = guest_port_read };
	struct engine_config c = { .kind = ENGINE_KVM, .vcpu_count = 1, .vm_time_ns = guest_time, .kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC) };
	void *written, *opaque;
	struct error *err;

	guest_open(&g, 1);
	g.exit_port.ops = &ops;
	on[0] = g.vcpu;
	if (c.kvm_fd < 0) {
		skip("/dev/kvm cannot be opened, so nothing can be held against KVM");
		return;
	}
	c.mem = g.mem;
	c.loop = g.loop;
	written = g.mem->on_written;
	opaque = g.mem->on_written_opaque;
	err = engine_create(&c, &kvm);
	close(c.kvm_fd);
	ok(!err, "the KVM engine is made%s%s", err ? ": " : "", err ? error_message(err) : "");
	error_free(err);
	if (!kvm)
		return;
	listen_both(written, opaque);
	on[1] = engine_vcpu(kvm, 0);
}

static inline void engines_close(void)
{
	engine_destroy(kvm);
	guest_close(&g);
}

#endif
