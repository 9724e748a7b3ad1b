/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of written pages (engine_dirty_start()), which both engines keep (engines.h): what is in it and what is not, and that no
 * write of a running guest is missed.
 */
#include <pthread.h>
#include <time.h>

#include "tests/unit/engines.h"

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

int main(void)
{
	engines_open();
	test_dirty(g.engine, 0);
	test_dirty_running(g.engine, 0);
	if (kvm) {
		test_dirty(kvm, 1);
		test_dirty_running(kvm, 1);
	}
	engines_close();
	return done_testing();
}
