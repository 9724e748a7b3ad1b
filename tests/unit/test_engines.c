/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stopped vCPU's state moves from the translator to KVM and back, group by group, and the program goes on as if nothing had been.
 * Needs a /dev/kvm, of whatever speed (tests/long/kvm.sh has one); without it what KVM's absence looks like is tested.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "cpu/kvm/probe.h"
#include "machine/lapics.h"
#include "tests/tap.h"
#include "tests/unit/bt_guest.h"
#include "tests/unit/fakes.h"

#define STEPS 6u

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

static void tell_both(void *opaque, uint64_t gpa, uint64_t len)
{
	for (unsigned k = 0; k < 2; k++)
		listeners[k].written(listeners[k].opaque, gpa, len);
}

static void listen_both(void *written_bt, void *opaque_bt)
{
	listeners[0].written = written_bt;
	listeners[0].opaque = opaque_bt;
	listeners[1].written = g.mem->on_written;
	listeners[1].opaque = g.mem->on_written_opaque;
	g.mem->on_written = tell_both;
}

static unsigned current;

static void stop_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	vcpu_request_stop(on[current]);
}

static void put_double(struct x86_xstate *x, unsigned reg, double value)
{
	memcpy(x->area + 160 + 16 * reg, &value, 8);
}

static void start_state(struct vcpu *v)
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

struct state {
	struct x86_regs r;
	struct x86_sregs s;
	struct x86_xstate x;
	uint64_t msr[8];
};
static const uint32_t msrs[8] = { 0x174, 0x175, 0x176, 0x277, 0xc0000081, 0xc0000082, 0xc0000084, 0xc0000102 };

static void save(struct vcpu *v, struct state *s)
{
	memset(s, 0, sizeof(*s));
	vcpu_get_regs(v, &s->r);
	vcpu_get_sregs(v, &s->s);
	vcpu_get_xstate(v, &s->x);
	for (unsigned k = 0; k < 8; k++)
		if (!vcpu_get_msr(v, msrs[k], &s->msr[k]))
			s->msr[k] = ~0ull;
}

static void load(struct vcpu *v, const struct state *s)
{
	vcpu_set_sregs(v, &s->s);
	vcpu_set_regs(v, &s->r);
	vcpu_set_xstate(v, &s->x);
	for (unsigned k = 0; k < 8; k++)
		vcpu_set_msr(v, msrs[k], s->msr[k]);
}

static bool same_segment(const struct x86_segment *a, const struct x86_segment *b)
{
	return a->selector == b->selector && a->base == b->base && a->limit == b->limit && ((a->attr ^ b->attr) & 0xf0fe) == 0;
}

static void compare(const struct state *a, const struct state *b, const char *what)
{
	bool segments = same_segment(&a->s.ldtr, &b->s.ldtr) && same_segment(&a->s.tr, &b->s.tr);

	for (unsigned k = 0; k < X86_SEG_COUNT; k++)
		segments = segments && same_segment(&a->s.seg[k], &b->s.seg[k]);
	ok(!memcmp(&a->r, &b->r, sizeof(a->r)), "%s: general registers, RIP, RFLAGS", what);
	ok(segments && a->s.gdtr.base == b->s.gdtr.base && a->s.idtr.limit == b->s.idtr.limit, "%s: segments and tables", what);
	ok(a->s.cr0 == b->s.cr0 && a->s.cr2 == b->s.cr2 && a->s.cr3 == b->s.cr3 && a->s.cr4 == b->s.cr4 && a->s.efer == b->s.efer &&
		   a->s.xcr0 == b->s.xcr0,
	   "%s: control registers", what);
	ok(a->s.dr[0] == b->s.dr[0] && a->s.dr[3] == b->s.dr[3] && a->s.dr[7] == b->s.dr[7], "%s: debug registers", what);
	ok(!memcmp(a->x.area, b->x.area, 5) && !memcmp(a->x.area + 24, b->x.area + 24, 4), "%s: FCW, FSW, MXCSR", what);
	ok(!memcmp(a->x.area + 160, b->x.area + 160, 256), "%s: XMM registers", what);
	ok(!memcmp(a->msr, b->msr, sizeof(a->msr)), "%s: MSRs", what);
}

static bool same_events(const struct x86_events *a, const struct x86_events *b)
{
	return a->halted == b->halted && a->wait_sipi == b->wait_sipi && (a->sti_shadow || a->ss_shadow) == (b->sti_shadow || b->ss_shadow) &&
	       a->nmi_pending == b->nmi_pending && a->nmi_blocked == b->nmi_blocked && a->interrupt == b->interrupt;
}

static void test_events(void)
{
	static const struct x86_events events[] = {
		{ .interrupt = -1 },
		{ .halted = true, .interrupt = -1 },
		{ .wait_sipi = true, .interrupt = -1 },
		{ .sti_shadow = true, .interrupt = -1 },
		{ .ss_shadow = true, .nmi_blocked = true, .interrupt = -1 },
		{ .nmi_pending = true, .interrupt = -1 },
		{ .interrupt = 0x41 },
		{ .interrupt = -1 },
	};
	struct x86_events there, back;

	for (unsigned n = 0; n < ARRAY_SIZE(events); n++) {
		vcpu_set_events(on[0], &events[n]);
		vcpu_get_events(on[0], &there);
		ok(same_events(&there, &events[n]), "events %u on the translator", n);
		if (!on[1])
			continue;
		vcpu_set_events(on[1], &there);
		vcpu_get_events(on[1], &back);
		ok(same_events(&back, &events[n]), "events %u on KVM", n);
		ok(vcpu_activity(on[0]) == vcpu_activity(on[1]), "their activity");
	}
}

/* ---- Written pages ---- */

/* again: movb $1, (%rdi); mov (%rsi), %al; add $4096, %rdi; dec %ecx; jnz again; out %al, $0xf4; jmp . */
static const uint8_t writer[] = {
	0xc6, 0x07, 0x01, 0x8a, 0x06, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0xff, 0xc9, 0x75, 0xf0, 0xe6, 0xf4, 0xeb, 0xfe,
};
#define WRITTEN_FROM 0x400000u
#define WRITTEN_PAGES 100u

/* The guest writes to a byte in each of @pages pages from WRITTEN_FROM on, and reads one at GUEST_DATA. */
static void run_writer(unsigned pages)
{
	struct vcpu *v = on[current];
	struct vcpu_exit exit;
	struct x86_regs r;

	vcpu_get_regs(v, &r);
	r.rip = GUEST_CODE;
	r.gpr[X86_RDI] = WRITTEN_FROM;
	r.gpr[X86_RSI] = GUEST_DATA;
	r.gpr[X86_RCX] = pages;
	vcpu_set_regs(v, &r);
	vcpu_run(v, &exit);
}

static bool dirty_bit(const uint64_t *bitmap, uint64_t gpa)
{
	return bitmap[gpa / 4096 / 64] >> (gpa / 4096 % 64) & 1;
}

static unsigned dirty_bits(const uint64_t *bitmap, uint64_t from, unsigned pages)
{
	unsigned count = 0;

	for (unsigned k = 0; k < pages; k++)
		count += dirty_bit(bitmap, from + 4096ull * k);
	return count;
}

static void test_dirty(struct engine *e, unsigned which)
{
	uint64_t map[GUEST_RAM / 4096 / 64], odd[2];
	const char *name = engine_name(e);
	struct error *err;

	current = which;
	start_state(on[which]);
	guest_load(&g, GUEST_CODE, writer, sizeof(writer));
	run_writer(WRITTEN_PAGES);
	err = engine_dirty_start(e);
	if (!ok(!err, "%s keeps a log of written pages%s%s", name, err ? ": " : "", err ? error_message(err) : "")) {
		error_free(err);
		return;
	}
	engine_dirty_fetch(e, 0, GUEST_RAM / 4096, map);
	is_u64(dirty_bits(map, 0, GUEST_RAM / 4096), 0, "%s: nothing is written at first", name);
	run_writer(WRITTEN_PAGES);
	guest_put64(&g, 0x800ff8, 1);
	engine_dirty_fetch(e, 0, GUEST_RAM / 4096, map);
	is_u64(dirty_bits(map, WRITTEN_FROM, WRITTEN_PAGES), WRITTEN_PAGES, "%s: what the guest writes, though it was a writer before", name);
	ok(dirty_bit(map, 0x800000), "%s: what a device writes", name);
	ok(!dirty_bit(map, GUEST_DATA) && !dirty_bit(map, GUEST_CODE) && !dirty_bits(map, WRITTEN_FROM + 4096ull * WRITTEN_PAGES, 100),
	   "%s: not what is read, or run, or left alone", name);
	engine_dirty_fetch(e, 0, GUEST_RAM / 4096, map);
	is_u64(dirty_bits(map, 0, GUEST_RAM / 4096), 0, "%s: each is reported once", name);
	run_writer(3);
	engine_dirty_fetch(e, WRITTEN_FROM + 4096, 66, odd);
	ok(odd[0] == 3 && !(odd[1] & 3), "%s: and again, for a range of its own", name);
	engine_dirty_fetch(e, 0, GUEST_RAM / 4096, map);
	ok(dirty_bit(map, WRITTEN_FROM) && !dirty_bit(map, WRITTEN_FROM + 4096), "%s: the rest stays for later", name);
	guest_put64(&g, GUEST_CODE + 0x800, 1);
	run_writer(1);
	engine_dirty_fetch(e, 0, GUEST_RAM / 4096, map);
	ok(dirty_bit(map, GUEST_CODE) && dirty_bit(map, WRITTEN_FROM), "%s: a page with code", name);
	engine_dirty_stop(e);
	run_writer(WRITTEN_PAGES);
	err = engine_dirty_start(e);
	ok(!err, "%s: a second time", name);
	error_free(err);
	engine_dirty_fetch(e, 0, GUEST_RAM / 4096, map);
	is_u64(dirty_bits(map, 0, GUEST_RAM / 4096), 0, "%s: starts anew", name);
	engine_dirty_stop(e);
}

/* again: mov $WRITTEN_FROM, %rdi; mov $WRITTEN_PAGES, %ecx; on: incq (%rdi); add $4104, %rdi; dec %ecx; jnz on; jmp again */
static const uint8_t endless[] = {
	0x48, 0xc7, 0xc7, 0x00, 0x00, 0x40, 0x00, 0xb9, 0x64, 0x00, 0x00, 0x00, 0x48, 0xff, 0x07, 0x48, 0x81, 0xc7, 0x08, 0x10,
	0x00, 0x00, 0xff, 0xc9, 0x75, 0xf2, 0xeb, 0xe4,
};

static void *run_endless(void *opaque)
{
	struct vcpu_exit exit;

	vcpu_run(opaque, &exit);
	return NULL;
}

static unsigned copy_written(uint8_t *copy, const uint64_t *map)
{
	unsigned count = 0;

	for (uint64_t gpa = 0; gpa < GUEST_RAM; gpa += 4096)
		if (dirty_bit(map, gpa))
			count += mem_read(g.mem, gpa, copy + gpa, 4096);
	return count;
}

/* As a migration does it: all, then what is written meanwhile, again and again, and the rest when the guest stands. */
static void test_dirty_running(struct engine *e, unsigned which)
{
	static uint64_t map[GUEST_RAM / 4096 / 64];
	static uint8_t copy[GUEST_RAM], now[GUEST_RAM];
	const struct timespec nap = { 0, 2000000 };
	struct vcpu *v = on[which];
	unsigned count = 0, differ = 0;
	struct error *err;
	pthread_t thread;
	struct x86_regs r;

	start_state(v);
	guest_load(&g, GUEST_CODE, endless, sizeof(endless));
	vcpu_get_regs(v, &r);
	r.rip = GUEST_CODE;
	vcpu_set_regs(v, &r);
	pthread_create(&thread, NULL, run_endless, v);
	nanosleep(&nap, NULL);
	err = engine_dirty_start(e);
	error_free(err);
	memset(map, 0xff, sizeof(map));
	copy_written(copy, map);
	for (unsigned round = 0; round < 50; round++) {
		nanosleep(&nap, NULL);
		engine_dirty_fetch(e, 0, GUEST_RAM / 4096, map);
		count += copy_written(copy, map);
	}
	vcpu_request_stop(v);
	pthread_join(thread, NULL);
	engine_dirty_fetch(e, 0, GUEST_RAM / 4096, map);
	copy_written(copy, map);
	engine_dirty_stop(e);
	ok(count > 0, "%s: a running guest writes (%u pages in 50 rounds)", engine_name(e), count);
	if (!mem_read(g.mem, 0, now, GUEST_RAM))
		abort();
	for (uint64_t gpa = 0; gpa < GUEST_RAM; gpa += 4096)
		differ += memcmp(copy + gpa, now + gpa, 4096) != 0;
	is_u64(differ, 0, "%s: and no write is missed", engine_name(e));
}

/* ---- Local APICs ---- */

static struct fake_clock fc;
static struct lapics lapics[2];

static uint8_t no_pic(void *opaque)
{
	return 0xff;
}

static void no_eoi(void *opaque, uint8_t vector)
{
}

static void no_taken(void *opaque)
{
}

/* But for what is the chip's: its version and PPR; and the time left, which goes on in the kernel. */
static bool same_lapic(const struct x86_lapic *a, const struct x86_lapic *b)
{
	static const uint16_t own[] = { APIC_LVR, APIC_PPR, APIC_APR, APIC_TMCCT, APIC_LVT_CMCI };
	struct x86_lapic x = *a, y = *b;

	for (unsigned k = 0; k < ARRAY_SIZE(own); k++)
		x.reg[own[k] >> 4] = y.reg[own[k] >> 4] = 0;
	for (unsigned k = 0; k < 64; k++)
		if (x.reg[k] != y.reg[k])
			printf("# local APIC, offset %#x: %#x and %#x\n", k * 16, x.reg[k], y.reg[k]);
	return x.base == y.base && !memcmp(x.reg, y.reg, sizeof(x.reg)) && x.tsc_deadline == y.tsc_deadline;
}

/* To the translator's chips, from there to KVM (@to: 1) or to chips again (0), and back. */
static void lapic_travels(const struct x86_lapic *start, unsigned to, const char *what)
{
	struct x86_lapic a, b, c;

	loop_lock(g.loop);
	ok(lapics_set_state(&lapics[0], 0, start), "%s: a local APIC takes it", what);
	lapics_get_state(&lapics[0], 0, &a);
	ok(lapics_set_state(&lapics[to], 0, &a), "%s: there", what);
	lapics_get_state(&lapics[to], 0, &b);
	ok(same_lapic(&a, &b), "%s: the same there", what);
	ok(lapics_set_state(&lapics[0], 0, &b), "%s: and back", what);
	lapics_get_state(&lapics[0], 0, &c);
	ok(same_lapic(&a, &c), "%s: as it was", what);
	loop_unlock(g.loop);
}

/* ---- Interrupts to local APICs of an engine ---- */

#define VECTOR 0x40u
#define GUEST_IDT (GUEST_DATA + 0x1000)
#define GUEST_GDT (GUEST_DATA + 0x3000)
#define HANDLER (GUEST_CODE + 0x100)

static unsigned pic_asked, pic_taken;

static uint8_t one_vector(void *opaque)
{
	pic_asked++;
	lapics_set_lint(&lapics[1], 0, false);
	return VECTOR;
}

static void one_taken(void *opaque)
{
	pic_taken++;
}

static void *run_until_stop(void *opaque)
{
	struct vcpu_exit exit;

	vcpu_run(opaque, &exit);
	return NULL;
}

static void raise_lint0(void)
{
	loop_lock(g.loop);
	lapics_set_lint(&lapics[1], 0, true);
	loop_unlock(g.loop);
}

/* cli; nop; sti; again: hlt; jmp again: it is raised before, or when the processor has long been halted. Whether it comes, once. */
static bool interrupt_comes(void (*raise)(void), bool halted)
{
	static const uint8_t waits[] = { 0xfa, 0x90, 0xfb, 0xf4, 0xeb, 0xfd };
	static const uint8_t handler[] = { 0x48, 0xff, 0x07, 0xe6, 0xf4, 0x48, 0xcf }; /* incq (%rdi); out %al, $0xf4; iretq */
	const struct timespec nap = { 0, 200000000 };
	struct x86_sregs s;
	struct x86_regs r;
	pthread_t thread;
	uint64_t count = 0;

	current = 1;
	start_state(on[1]);
	lapics_set_up(&lapics[1]);
	guest_load(&g, GUEST_CODE, waits, sizeof(waits));
	guest_load(&g, HANDLER, handler, sizeof(handler));
	guest_put64(&g, GUEST_GDT + 8, 0x00af9b000000ffff);
	guest_put64(&g, GUEST_GDT + 16, 0x00cf93000000ffff);
	guest_put64(&g, GUEST_IDT + 16 * VECTOR, (uint64_t)(HANDLER >> 16) << 48 | 0x8e0000080000 | (HANDLER & 0xffff));
	vcpu_get_sregs(on[1], &s);
	s.gdtr = (struct x86_table){ GUEST_GDT, 23 };
	s.idtr = (struct x86_table){ GUEST_IDT, 0xfff };
	vcpu_set_sregs(on[1], &s);
	if (!halted)
		raise();
	pthread_create(&thread, NULL, run_until_stop, on[1]);
	if (halted) {
		nanosleep(&nap, NULL);
		raise();
	}
	pthread_join(thread, NULL);
	vcpu_get_regs(on[1], &r);
	if (!mem_read(g.mem, GUEST_DATA, &count, 8))
		abort();
	if (count != 1 || r.rip != HANDLER + 5)
		printf("# %u interrupts, RIP %#llx\n", (unsigned)count, (unsigned long long)r.rip);
	return count == 1 && r.rip == HANDLER + 5;
}

/* The 8259's. A vector that has been given is part of the state, and a reset ends it. */
static void test_pic(void)
{
	const struct x86_events given = { .interrupt = VECTOR };
	struct x86_events e;

	for (unsigned halted = 0; halted < 2; halted++) {
		pic_asked = pic_taken = 0;
		ok(interrupt_comes(raise_lint0, halted) && pic_asked == 1 && pic_taken == 1, "the 8259's interrupt comes once, %s",
		   halted ? "out of HLT" : "when it may");
	}
	vcpu_set_events(on[1], &given);
	vcpu_reset(on[1]);
	vcpu_get_events(on[1], &e);
	ok(e.interrupt == -1, "a reset forgets an interrupt that is about to be delivered");
}

static int line = -1;

static void signal_line(void)
{
	if (eventfd_write(line, 1))
		abort();
}

static bool set_line(bool is_on, uint32_t data)
{
	const struct msi_sink *sink = lapics_msi_sink(&lapics[1]);
	bool listens;

	loop_lock(g.loop);
	listens = sink->set_irqfd(sink->opaque, line, is_on, 0xfee00000, data);
	loop_unlock(g.loop);
	return listens;
}

/* A message by a signal: what is behind it changes, and ends. */
static void test_irqfd(void)
{
	struct x86_lapic x;

	line = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ok(set_line(true, VECTOR), "KVM listens to an eventfd");
	ok(interrupt_comes(signal_line, false), "its signal is an interrupt, when it may");
	ok(interrupt_comes(signal_line, true), "out of HLT");
	ok(set_line(true, 0x51), "another message");
	lapics_set_up(&lapics[1]);
	signal_line();
	lapics_get_state(&lapics[1], 0, &x);
	ok(x.reg[APIC_IRR >> 4 | 0x51 / 32] == 1u << 0x51 % 32, "is the one that comes");
	ok(!set_line(true, 0x100 | 0x51), "not one of lowest priority, which the kernel would deliver later");
	lapics_set_up(&lapics[1]);
	signal_line();
	lapics_get_state(&lapics[1], 0, &x);
	ok(!x.reg[APIC_IRR >> 4 | 0x51 / 32], "so a signal is none of both");
	ok(set_line(true, 0x51) && !set_line(false, 0), "no longer");
	lapics_set_up(&lapics[1]);
	signal_line();
	lapics_get_state(&lapics[1], 0, &x);
	ok(!x.reg[APIC_IRR >> 4 | 0x51 / 32], "a signal is nothing then");
	close(line);
}

static void test_lapics(void)
{
	struct lapics_config c = { g.engine, &fc.clock, 1, no_pic, no_eoi, no_taken, NULL };
	struct x86_lapic x;
	unsigned to = kvm ? 1 : 0;

	fake_clock_init(&fc);
	vcpu_reset(on[0]);
	lapics_init(&lapics[0], &c);
	if (kvm) {
		c.engine = kvm;
		c.pic_ack = one_vector;
		c.taken = one_taken;
		vcpu_reset(on[1]);
		lapics_init(&lapics[1], &c);
		ok(lapics[1].engines, "KVM's are in the kernel");
	}
	lapics_get_state(&lapics[0], 0, &x);
	lapic_travels(&x, to, "after power-on");
	lapics_set_up(&lapics[0]);
	lapics_get_state(&lapics[0], 0, &x);
	lapic_travels(&x, to, "virtual wire");

	x.reg[APIC_TPR >> 4] = 0x30;
	x.reg[APIC_LDR >> 4] = 0x01000000;
	x.reg[APIC_ISR >> 4 | 2] = 2;
	x.reg[APIC_IRR >> 4 | 1] = 0x100;
	x.reg[APIC_TMR >> 4 | 2] = 2;
	x.reg[APIC_LVT_TIMER >> 4] = 0x20041;
	x.reg[APIC_TDCR >> 4] = 0xb;
	x.reg[APIC_TMICT >> 4] = x.reg[APIC_TMCCT >> 4] = 4000000000u;
	lapic_travels(&x, to, "vectors, a periodic timer");
	x.reg[APIC_LVT_TIMER >> 4] = 0x40041;
	x.reg[APIC_TMICT >> 4] = x.reg[APIC_TMCCT >> 4] = 0;
	x.tsc_deadline = 1ull << 60;
	x.deadline_left_ns = 1ull << 58;
	lapic_travels(&x, to, "a deadline");
	x.tsc_deadline = x.deadline_left_ns = 0;
	lapic_travels(&x, to, "and none");
	x.base |= APIC_BASE_EXTD;
	x.reg[APIC_ICR >> 4] = 0x40041;
	x.reg[APIC_ICR2 >> 4] = 7;
	x.reg[APIC_DFR >> 4] = ~0u;
	lapic_travels(&x, to, "x2APIC mode");
	if (kvm) {
		test_pic();
		test_irqfd();
	}

	for (unsigned k = 0; k <= to; k++) {
		lapic_device(lapics[k].chip[0])->ops->destroy(lapic_device(lapics[k].chip[0]));
		lapics_finish(&lapics[k]);
	}
}

/* Runs the program in @STEPS pieces, the n-th on engine (@pattern >> n & 1); its end in @out. */
static void travel(unsigned pattern, struct state *out)
{
	struct vcpu_exit exit;
	struct state s;

	current = pattern & 1;
	start_state(on[current]);
	save(on[current], &s);
	for (unsigned n = 0; n < STEPS; n++) {
		current = pattern >> n & 1;
		load(on[current], &s);
		vcpu_run(on[current], &exit);
		if (exit.reason != VCPU_EXIT_STOPPED)
			printf("# piece %u on %s ended with %d: %s\n", n, current ? "KVM" : "the translator", exit.reason, exit.message);
		save(on[current], &s);
	}
	*out = s;
}

static void test_groups(void)
{
	struct state a, b, c;

	start_state(on[0]);
	save(on[0], &a);
	a.s.dr[0] = 0x1234;
	a.s.dr[3] = 0x5678;
	a.s.cr2 = 0xabcdef;
	a.r.rflags |= X86_CF | X86_ZF | X86_DF | X86_AC;
	a.msr[0] = 8;
	a.msr[1] = 0x80001000; /* AMD's has 32 bits */
	a.msr[4] = 0x0023000800000000;
	a.msr[5] = 0xffffffff81000000;
	a.msr[6] = 0x47700;
	a.msr[7] = 0x7fffdeadb000;
	load(on[0], &a);
	save(on[0], &a);
	load(on[1], &a);
	save(on[1], &b);
	compare(&a, &b, "to KVM");
	load(on[0], &b);
	save(on[0], &c);
	compare(&a, &c, "and back");
}

static void test_travels(void)
{
	static const unsigned patterns[] = { 0x3f, 0x15, 0x2a, 0x32, 0x01, 0x20 };
	uint64_t count, want;
	struct state a, b;

	travel(0, &a);
	ok(mem_read(g.mem, GUEST_DATA, &want, 8) && want >= STEPS, "the program runs on the translator");
	for (unsigned k = 0; k < ARRAY_SIZE(patterns); k++) {
		travel(patterns[k], &b);
		ok(mem_read(g.mem, GUEST_DATA, &count, 8) && count == want && a.r.gpr[X86_RAX] == b.r.gpr[X86_RAX] &&
			   !memcmp(a.x.area + 160, b.x.area + 160, 256),
		   "by turns (%02x): the same result", patterns[k]);
	}
}

/* An instruction that KVM's emulator does not have, on an address without RAM: what it was is said. */
static void test_internal_error(void)
{
	static const uint8_t fnstenv[] = { 0xd9, 0x37 };
	struct vcpu_exit exit;
	struct x86_regs r;

	start_state(on[1]);
	guest_load(&g, GUEST_CODE, fnstenv, sizeof(fnstenv));
	guest_put64(&g, GUEST_TABLES + 0x2000 + 8 * (GUEST_RAM / (2 * MiB)), GUEST_RAM | 0x87);
	vcpu_get_regs(on[1], &r);
	r.rip = GUEST_CODE;
	r.gpr[X86_RDI] = GUEST_RAM;
	vcpu_set_regs(on[1], &r);
	vcpu_run(on[1], &exit);
	ok(exit.reason == VCPU_EXIT_ERROR && strstr(exit.message, "at 0x200000, bytes d9 37"), "an internal error of KVM's: %s", exit.message);
}

/* What is wrong with /dev/kvm is said in a sentence, and the probe of none says so. */
static void test_without(void)
{
	struct engine_config c = { .kind = ENGINE_KVM, .vcpu_count = 1, .mem = g.mem, .loop = g.loop, .vm_time_ns = guest_time, .kvm_fd = -1 };
	struct kvm_probe p;
	struct engine *e = NULL;
	struct error *err = engine_create(&c, &e);

	ok(err && strstr(error_message(err), "/dev/kvm"), "without /dev/kvm: %s", err ? error_message(err) : "");
	error_free(err);
	c.kvm_fd = open("/dev/null", O_RDWR);
	err = engine_create(&c, &e);
	ok(err && strstr(error_message(err), "does not answer"), "something else: %s", err ? error_message(err) : "");
	error_free(err);
	kvm_probe_run(c.kvm_fd, &p);
	ok(!p.good && !p.ran && *p.reason, "the probe: %s", p.reason);
	close(c.kvm_fd);
	kvm_probe_run(-1, &p);
	ok(!p.good && *p.reason, "the probe: %s", p.reason);
	c.kind = ENGINE_AUTO;
	c.kvm_fd = -1;
	engine_destroy(g.engine);
	err = engine_create(&c, &g.engine);
	ok(!err && !strcmp(engine_name(g.engine), "bt"), "auto is the translator then");
}

int main(void)
{
	static const struct io_ops ops = { .write = stop_write, .read = guest_port_read };
	struct engine_config c = { .kind = ENGINE_KVM, .vcpu_count = 1, .vm_time_ns = guest_time, .kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC) };
	struct error *err;

	guest_open(&g, 1);
	g.exit_port.ops = &ops;
	on[0] = g.vcpu;
	if (c.kvm_fd < 0) {
		skip("/dev/kvm cannot be opened, so no state can move");
	} else {
		c.mem = g.mem;
		c.loop = g.loop;
		void *written = g.mem->on_written, *opaque = g.mem->on_written_opaque;

		err = engine_create(&c, &kvm);
		ok(!err, "the KVM engine is made%s%s", err ? ": " : "", err ? error_message(err) : "");
		error_free(err);
		if (kvm) {
			listen_both(written, opaque);
			on[1] = engine_vcpu(kvm, 0);
			test_groups();
			test_travels();
		}
	}
	test_events();
	test_dirty(g.engine, 0);
	test_dirty_running(g.engine, 0);
	if (kvm) {
		test_dirty(kvm, 1);
		test_dirty_running(kvm, 1);
		test_internal_error();
	}
	test_lapics();
	engine_destroy(kvm);
	if (c.kvm_fd >= 0)
		close(c.kvm_fd);
	test_without();
	guest_close(&g);
	return done_testing();
}
