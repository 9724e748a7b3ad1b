/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One piece of user-mode code, run twice: by the host's CPU in this process (oracle_native.h), and by the translator in a guest
 * (oracle_guest.h); for test_bt_oracle. Code, data and stack are at the same linear addresses on both sides.
 *
 * The guest may be interrupted meanwhile: at every so many-th place where it asks for interrupts (with the translator's
 * option `poll` that is every polling point), or by a timer. Its handler uses some registers, gives them
 * back, and returns. Where it strikes, an instruction must begin.
 *
 * One thread.
 */
#ifndef TESTS_UNIT_ORACLE_RUN_H
#define TESTS_UNIT_ORACLE_RUN_H

#include "tests/unit/oracle_guest.h"
#include "tests/unit/oracle_native.h"

/* @options as in MARU_BT_DEBUG, or NULL. */
static void oracle_open(struct oracle_run *r, const char *options)
{
	static const struct io_ops ops = { .read = guest_port_read, .write = guest_vector_write };

	if (options)
		setenv("MARU_BT_DEBUG", options, 1);
	else
		unsetenv("MARU_BT_DEBUG");
	guest_open(&r->g, 1);
	bus_remove(r->g.mem->ports, &r->g.exit_port);
	r->g.exit_port = (struct io_region){
		.name = "vector", .base = 0x80, .length = 32, .ops = &ops, .opaque = &r->g
	};
	bus_add(r->g.mem->ports, &r->g.exit_port);
	memset(r->code_rw, 0, CODE_PAGES * 4096); /* as the guest's is */
	guest_map_user(r);
	guest_make_kernel(r);
	native_install();
	guest_set_system(r);
	if (r->every || r->by_timer) {
		struct vcpu_irqchip chip = { .opaque = r, .has_interrupt = chip_has_interrupt, .ack = chip_ack };

		vcpu_set_irqchip(r->g.vcpu, &chip);
	}
	if (r->by_timer) {
		struct sigaction sa = { .sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
		struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2,
				       .sigev_value.sival_ptr = r };

		sigaction(SIGUSR2, &sa, NULL);
		if (timer_create(CLOCK_MONOTONIC, &ev, &r->timer))
			abort();
	}
}

static void oracle_close(struct oracle_run *r)
{
	if (r->by_timer)
		timer_delete(r->timer);
	guest_close(&r->g);
}

static void oracle_put_code(struct oracle_run *r, uint64_t at, const uint8_t *code, size_t len)
{
	unsigned off = at % (CODE_PAGES * 4096);

	memcpy(r->code_rw + off, code, len);
	guest_load(&r->g, PHYS_CODE + off, code, len);
}

static bool oracle_code_differs(struct oracle_run *r, uint64_t at, size_t len)
{
	unsigned off = at % (CODE_PAGES * 4096);

	return memcmp(r->code_rw + off, guest_ram(r, PHYS_CODE + off), len);
}

static void oracle_put_memory(struct oracle_run *r, const uint8_t *memory)
{
	memcpy(r->native_memory, memory, MEMORY_BYTES);
	memcpy(guest_ram(r, PHYS_DATA), memory, MEMORY_BYTES);
}

#endif
