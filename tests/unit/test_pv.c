/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's paravirtual interfaces: the clock's arithmetic, what is written to guest memory and what is refused, hypercalls and HLT on
 * the translator.
 */
#define GUEST_PARAVIRT true
#include "cpu/pv.h"
#include "tests/tap.h"
#include "tests/unit/bt_guest.h"

static struct bt_guest g;

/* ---- The clock alone ---- */

static void test_arithmetic(void)
{
	static const uint64_t hz[] = { 1000000, 999999999, 1000000000, 2000000000, 2000000001, 2500104000, 3999999999, 5700000000 };

	for (unsigned k = 0; k < ARRAY_SIZE(hz); k++) {
		struct pv_clock c;
		uint64_t hour = hz[k] * 3600, got, error;

		pv_clock_init(&c, hz[k], true);
		got = pv_tsc_to_ns(&c, hour);
		error = got > 3600 * NS_PER_SEC ? got - 3600 * NS_PER_SEC : 3600 * NS_PER_SEC - got;
		ok(error < 10000, "an hour at %llu Hz is off by %llu ns", (unsigned long long)hz[k], (unsigned long long)error);
	}
}

static void test_stops(void)
{
	struct pv_clock c;
	uint64_t before, after, second;

	pv_clock_init(&c, 1000000000, true);
	pv_clock_start(&c, 5000);
	pv_clock_start(&c, 6000);
	before = pv_clock_ns(&c, c.tsc + 1000);
	is_u64(before, 6000, "the clock starts with the VM's, and goes with the TSC");
	second = c.generation;
	pv_clock_stop(&c, 6000);
	is_u64(c.generation, second, "it goes on while one vCPU runs");
	pv_clock_stop(&c, 7000);
	before = pv_clock_ns(&c, 0);
	pv_clock_start(&c, 7000);
	after = c.ns;
	is_u64(after, before, "it stands still while the VM does");
	ok(c.generation != second, "and the guest gets a new point");
}

/* ---- MSRs ---- */

struct time_info {
	uint32_t version, pad0;
	uint64_t tsc, ns;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad[2];
};

static bool set(uint32_t msr, uint64_t value)
{
	return vcpu_set_msr(g.vcpu, msr, value);
}

static void test_msrs(void)
{
	struct time_info t;
	uint32_t wall[3];
	uint64_t value;

	guest_setup(&g, 0, 1);
	ok(set(PV_MSR_SYSTEM_TIME, (GUEST_DATA + 4096) | 1), "system time is registered");
	ok(mem_read(g.mem, GUEST_DATA + 4096, &t, sizeof(t)) && t.version == 2 && t.mul >= 1u << 31, "and written, its version even");
	ok(set(PV_MSR_SYSTEM_TIME_OLD, (GUEST_DATA + 4096) | 1) && mem_read(g.mem, GUEST_DATA + 4096, &t, sizeof(t)) && t.version == 4,
	   "by the old MSR too");
	ok(vcpu_get_msr(g.vcpu, PV_MSR_SYSTEM_TIME, &value) && value == ((GUEST_DATA + 4096) | 1), "and can be read");
	ok(!set(PV_MSR_SYSTEM_TIME, (GUEST_DATA + 2) | 1), "not at an odd address");
	ok(!set(PV_MSR_SYSTEM_TIME, (GUEST_RAM - 28) | 1), "nor where RAM ends within it");
	ok(set(PV_MSR_SYSTEM_TIME, (GUEST_RAM - 32) | 1), "the last bytes of RAM are good");
	ok(!set(PV_MSR_SYSTEM_TIME, 0xfee00000 | 1), "not in MMIO");
	ok(!set(PV_MSR_SYSTEM_TIME, ~0ull), "nor at the end of the world");
	ok(set(PV_MSR_SYSTEM_TIME, 0xfee00000), "disabled it may point anywhere");
	ok(set(PV_MSR_WALL_CLOCK, GUEST_DATA) && mem_read(g.mem, GUEST_DATA, wall, 12) && wall[0] % 2 == 0 && wall[1] > 1600000000 &&
		   wall[2] < NS_PER_SEC,
	   "wall clock");
	ok(!set(PV_MSR_WALL_CLOCK, 1ull << 40), "not beyond RAM");
	ok(set(PV_MSR_STEAL_TIME, (GUEST_DATA + 64) | 1), "steal time");
	ok(!set(PV_MSR_STEAL_TIME, (GUEST_DATA + 32) | 1), "aligned to 64 bytes");
	ok(!set(PV_MSR_STEAL_TIME, GUEST_RAM | 1), "within RAM");
	ok(!set(PV_MSR_STEAL_TIME, ~63ull | 1), "and not where addresses end");
	ok(set(PV_MSR_EOI, GUEST_DATA | 1), "EOI");
	ok(!set(PV_MSR_EOI, GUEST_DATA | 3) && !set(PV_MSR_EOI, GUEST_RAM | 1) && !set(PV_MSR_EOI, (GUEST_DATA + 2) | 1),
	   "with its reserved bit, outside of RAM, not aligned: #GP");
	ok(set(PV_MSR_POLL_CONTROL, 0) && !set(PV_MSR_POLL_CONTROL, 2), "poll control");
	ok(!set(0x4b564d02, 1) && !set(0x4b564d06, 1) && !set(0x4b564d08, 1), "asynchronous page faults and migration are not there");
	vcpu_reset(g.vcpu);
	ok(vcpu_get_msr(g.vcpu, PV_MSR_EOI, &value) && !value && vcpu_get_msr(g.vcpu, PV_MSR_POLL_CONTROL, &value) && value == 1,
	   "a reset forgets them");
}

/* ---- In the guest ---- */

static uint64_t run(const char *code, size_t len, const struct x86_regs *regs, struct vcpu_exit *exit)
{
	struct x86_regs r;

	guest_load(&g, GUEST_CODE, code, len);
	vcpu_get_regs(g.vcpu, &r);
	for (unsigned k = 0; k < 16; k++)
		if (k != X86_RSP)
			r.gpr[k] = regs->gpr[k];
	r.rip = GUEST_CODE;
	vcpu_set_regs(g.vcpu, &r);
	vcpu_run(g.vcpu, exit);
	vcpu_get_regs(g.vcpu, &r);
	return r.gpr[X86_RAX];
}
#define CODE(bytes) bytes, sizeof(bytes) - 1

static unsigned sent[4];
static uint32_t last_icr;

static bool fake_send_ipi(void *opaque, uint32_t apic_id, uint32_t icr)
{
	last_icr = icr;
	if (apic_id < 4)
		sent[apic_id]++;
	return apic_id == 0;
}

static uint64_t hypercall(unsigned cpl, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	struct x86_regs r = { .gpr = { [X86_RAX] = nr, [X86_RBX] = a0, [X86_RCX] = a1, [X86_RDX] = a2, [X86_RSI] = a3 } };
	struct vcpu_exit exit;

	guest_setup(&g, cpl, 1);
	return run(CODE("\x0f\x01\xc1\xe6\xf4\xeb\xfe"), &r, &exit); /* VMCALL; OUT 0xf4, AL; JMP itself */
}

/* In compatibility mode: registers are 32 bits. */
static uint64_t hypercall_32(unsigned cpl, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	struct x86_regs r = { .gpr = { [X86_RAX] = nr, [X86_RBX] = a0, [X86_RCX] = a1, [X86_RDX] = a2, [X86_RSI] = a3 } };
	struct x86_sregs s;
	struct vcpu_exit exit;

	guest_setup(&g, cpl, 1);
	vcpu_get_sregs(g.vcpu, &s);
	s.seg[X86_CS].attr = (s.seg[X86_CS].attr & ~X86_ATTR_L) | X86_ATTR_DB;
	vcpu_set_sregs(g.vcpu, &s);
	run(CODE("\x0f\x01\xc1\xe6\xf4\xeb\xfe"), &r, &exit);
	vcpu_get_regs(g.vcpu, &r);
	return r.gpr[X86_RAX];
}

static void test_hypercalls(void)
{
	struct vcpu_irqchip chip = { .send_ipi = fake_send_ipi };
	struct x86_regs r = { .gpr = { [X86_RAX] = 12345 } };
	struct vcpu_exit exit;
	int64_t pair[2];

	vcpu_set_irqchip(g.vcpu, &chip);
	is_u64(hypercall(0, 12345, 0, 0, 0, 0), (uint64_t)-1000, "an unknown hypercall is -KVM_ENOSYS");
	guest_setup(&g, 0, 1);
	is_u64(run(CODE("\x0f\x01\xd9\xe6\xf4\xeb\xfe"), &r, &exit), (uint64_t)-1000, "VMMCALL is the same");
	is_u64(hypercall(3, PV_HC_KICK_CPU, 0, 0, 0, 0), (uint64_t)-1, "at CPL 3: -KVM_EPERM");
	is_u64(hypercall(3, 12345, 0, 0, 0, 0), (uint64_t)-1, "whatever the number");
	is_u64(hypercall_32(0, 0xdeadbeef00000000 | 12345, 0, 0, 0, 0), (uint32_t)-1000, "32-bit code gets 32 bits of -KVM_ENOSYS");
	is_u64(hypercall_32(3, PV_HC_YIELD, 0, 0, 0, 0), (uint32_t)-1, "and of -KVM_EPERM");
	is_u64(hypercall_32(0, PV_HC_SEND_IPI, ~0ull << 32 | 1, ~0ull << 32, ~0ull << 32, ~0ull << 32 | 0xf0), 1, "and its arguments are 32 bits");
	is_u64(last_icr, 0xf0, "all of them");
	is_u64(hypercall(0, PV_HC_SEND_IPI, 0xff, 0xff, 0, 0xf0), 1, "IPIs are counted that reach somebody");
	is_u64(last_icr, 0xf0, "with their vector");
	is_u64(hypercall(0, PV_HC_SEND_IPI, 1, 0, 0, 0x800f0), (uint64_t)-22, "the ICR names no destination");
	is_u64(hypercall(0, PV_HC_SEND_IPI, ~0ull, ~0ull, ~0ull, 0xf0), 1, "APIC ids that wrap");
	is_u64(hypercall(0, PV_HC_YIELD, ~0ull, 0, 0, 0), 0, "yielding to nobody");
	is_u64(hypercall(0, PV_HC_KICK_CPU, 0, ~0ull, 0, 0), 0, "waking nobody");
	is_u64(hypercall(0, PV_HC_CLOCK_PAIRING, GUEST_DATA, 0, 0, 0), 0, "clock pairing");
	ok(mem_read(g.mem, GUEST_DATA, pair, sizeof(pair)) && pair[0] > 1600000000, "tells the wall clock");
	is_u64(hypercall(0, PV_HC_CLOCK_PAIRING, GUEST_RAM - 8, 0, 0, 0), (uint64_t)-14, "not beyond RAM: -KVM_EFAULT");
	is_u64(hypercall(0, PV_HC_CLOCK_PAIRING, GUEST_DATA, 1, 0, 0), (uint64_t)-95, "no other clock");
	memset(&chip, 0, sizeof(chip));
	vcpu_set_irqchip(g.vcpu, &chip);
}

static void test_unhalt(void)
{
	struct x86_regs r = { .gpr = { [X86_RAX] = PV_HC_KICK_CPU } };
	struct vcpu_exit exit;

	guest_setup(&g, 0, 1);
	set(PV_MSR_STEAL_TIME, GUEST_DATA | 1);
	/* VMCALL; HLT; OUT: would hang without the kick, which came before. */
	run(CODE("\x0f\x01\xc1\xf4\xe6\xf4\xeb\xfe"), &r, &exit);
	ok(exit.reason == VCPU_EXIT_STOPPED && g.exit_value == 0, "a kick before HLT ends it, with interrupts off");
}

static void test_clock_in_guest(void)
{
	struct x86_regs r = { .gpr = { [X86_RAX] = GUEST_DATA | 1, [X86_RCX] = PV_MSR_SYSTEM_TIME } };
	struct vcpu_exit exit;
	struct time_info t;
	uint64_t low, ns;

	guest_setup(&g, 0, 1);
	run(CODE("\x0f\x30\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xe6\xf4\xeb\xfe"), &r, &exit); /* WRMSR; RDTSC into RAX; OUT */
	vcpu_get_regs(g.vcpu, &r);
	low = r.gpr[X86_RAX];
	ok(mem_read(g.mem, GUEST_DATA, &t, sizeof(t)), "the time is there");
	low -= t.tsc;
	low = t.shift >= 0 ? low << t.shift : low >> -t.shift;
	ns = t.ns + (uint64_t)((unsigned __int128)low * t.mul >> 32);
	low = loop_now_ns();
	ok(ns > low - NS_PER_SEC && ns < low + NS_PER_MS, "and with RDTSC gives the VM clock: %lld ns off",
	   (long long)(low - ns));
}

static void test_cpuid(void)
{
	struct x86_regs r = { .gpr = { [X86_RAX] = 0x40000000 } };
	struct vcpu_exit exit;

	guest_setup(&g, 0, 1);
	run(CODE("\x0f\xa2\xe6\xf4\xeb\xfe"), &r, &exit);
	vcpu_get_regs(g.vcpu, &r);
	ok(r.gpr[X86_RAX] == 0x40000010 && !memcmp(&r.gpr[X86_RBX], "KVMK", 4) && !memcmp(&r.gpr[X86_RCX], "VMKV", 4) &&
		   r.gpr[X86_RDX] == 'M',
	   "CPUID: KVMKVMKVM");
	r = (struct x86_regs){ .gpr = { [X86_RAX] = 0x40000001 } };
	guest_setup(&g, 0, 1);
	ok(!(run(CODE("\x0f\xa2\xe6\xf4\xeb\xfe"), &r, &exit) & (1 << 4)), "no asynchronous page faults");
	r = (struct x86_regs){ .gpr = { [X86_RAX] = 0x40000002 } };
	guest_setup(&g, 0, 1);
	is_u64(run(CODE("\x0f\xa2\xe6\xf4\xeb\xfe"), &r, &exit), 0, "a leaf in between is zero");
}

/* ---- Off ---- */

static void test_off(void)
{
	struct engine_config c = { .kind = ENGINE_BT, .vcpu_count = 1, .vm_time_ns = guest_time, .mem = g.mem, .loop = g.loop };
	struct x86_regs r = { 0 };
	struct vcpu_exit exit;

	engine_destroy(g.engine);
	if (engine_create(&c, &g.engine))
		abort();
	g.vcpu = engine_vcpu(g.engine, 0);
	guest_setup(&g, 0, 1);
	ok(!set(PV_MSR_SYSTEM_TIME, GUEST_DATA | 1), "without paravirtualization there is no such MSR");
	run(CODE("\x0f\x01\xc1\xe6\xf4\xeb\xfe"), &r, &exit);
	ok(exit.reason == VCPU_EXIT_SHUTDOWN, "and VMCALL is #UD");
}

int main(void)
{
	test_arithmetic();
	test_stops();
	guest_open(&g, 1);
	test_hypercalls();
	test_msrs();
	test_unhalt();
	test_clock_in_guest();
	test_cpuid();
	test_off();
	guest_close(&g);
	return done_testing();
}
