/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stopped vCPU's state moves from the translator to KVM and back, group by group, and the program goes on as if nothing had been
 * (engines.h); test_engine_lapics.c has the state of local APICs. Without KVM: what its absence looks like.
 */
#include <stdio.h>

#include "cpu/kvm/probe.h"
#include "tests/unit/engines.h"

#define STEPS 6u

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
	engines_open();
	if (kvm) {
		test_groups();
		test_travels();
	}
	test_events();
	if (kvm)
		test_internal_error();
	engine_destroy(kvm);
	kvm = NULL;
	test_without();
	engines_close();
	return done_testing();
}
