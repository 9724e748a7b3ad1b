/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paravirtual clock, wall clock and steal time in guest memory; see pv.h. Layouts: Linux' Documentation/virt/kvm/x86/msr.rst
 * ("pvclock" ABI). Everything is written through mem_write(), which knows what is RAM; the guest may register any address, move
 * what it registered, and write there itself.
 *
 * Threading: a struct pv_vcpu belongs to its vCPU's thread; the clock has a lock.
 */
#include "cpu/pv.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#define CLOCK_FLAG_STABLE 1u
#define CLOCK_FLAG_STOPPED 2u /* the guest's watchdogs should not bark */

struct system_time {
	uint32_t version, pad0;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, pad[2];
};
static_assert(sizeof(struct system_time) == 32, "pvclock ABI");

struct wall_clock {
	uint32_t version, sec, nsec;
};

struct steal_time { /* what is written of it; "preempted" at 16 is the engine's */
	uint64_t steal;
	uint32_t version, flags;
};

struct clock_pairing {
	int64_t sec, nsec;
	uint64_t tsc;
	uint32_t flags, pad[9];
};

static uint64_t time_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* ---- The clock ---- */

/* The multiplier is made as large as 32 bits hold, for precision. */
void pv_clock_init(struct pv_clock *c, uint64_t tsc_hz, bool stable)
{
	uint64_t hz = tsc_hz;

	*c = (struct pv_clock){ .stable = stable };
	pthread_mutex_init(&c->lock, NULL);
	for (; hz > 2 * NS_PER_SEC; hz >>= 1)
		c->shift--;
	for (; hz <= NS_PER_SEC && hz; hz <<= 1)
		c->shift++;
	if (c->shift < 0)
		c->mul = (uint32_t)(((unsigned __int128)NS_PER_SEC << (32 - c->shift)) / tsc_hz);
	else if (tsc_hz)
		c->mul = (uint32_t)((NS_PER_SEC << 32) / (tsc_hz << c->shift));
}

static uint64_t line(const struct pv_clock *c, uint64_t tsc)
{
	return c->ns + pv_tsc_to_ns(c, tsc - c->tsc);
}

void pv_clock_start(struct pv_clock *c, uint64_t vm_ns)
{
	pthread_mutex_lock(&c->lock);
	if (c->running++ == 0) {
		c->ns = c->stopped_ns + (vm_ns - c->stopped_vm_ns);
		c->tsc = __builtin_ia32_rdtsc();
		c->generation++;
	}
	pthread_mutex_unlock(&c->lock);
}

void pv_clock_stop(struct pv_clock *c, uint64_t vm_ns)
{
	pthread_mutex_lock(&c->lock);
	if (--c->running == 0) {
		c->stopped_ns = line(c, __builtin_ia32_rdtsc());
		c->stopped_vm_ns = vm_ns;
	}
	pthread_mutex_unlock(&c->lock);
}

uint64_t pv_clock_ns(struct pv_clock *c, uint64_t tsc)
{
	uint64_t ns;

	pthread_mutex_lock(&c->lock);
	ns = c->running ? line(c, tsc) : c->stopped_ns;
	pthread_mutex_unlock(&c->lock);
	return ns;
}

/* ---- Structures in guest memory ---- */

bool pv_address_ok(const struct memory *mem, uint64_t gpa, unsigned align, unsigned len)
{
	uint64_t avail;

	return !(gpa & (align - 1)) && mem_ram_ptr(mem, gpa, len, &avail) && avail >= len;
}

/* What follows may be read while it changes: the counter at @gpa is odd meanwhile. False: there is no RAM. */
static bool begin_update(struct memory *mem, uint64_t gpa, uint32_t *version)
{
	if (!mem_read(mem, gpa, version, sizeof(*version)))
		return false;
	*version = (*version & ~1u) + 1;
	if (!mem_write(mem, gpa, version, sizeof(*version)))
		return false;
	atomic_thread_fence(memory_order_seq_cst);
	return true;
}

static void end_update(struct memory *mem, uint64_t gpa, uint32_t version)
{
	atomic_thread_fence(memory_order_seq_cst);
	version++;
	if (!mem_write(mem, gpa, &version, sizeof(version)))
		return;
}

void pv_write_system_time(const struct pv_vcpu *p, struct pv_clock *c, struct memory *mem,
			  uint64_t tsc_offset, bool was_stopped)
{
	uint64_t gpa = p->system_time & ~1ull;
	struct system_time t = {
		.tsc_to_system_mul = c->mul,
		.tsc_shift = c->shift,
		.flags = (c->stable ? CLOCK_FLAG_STABLE : 0) | (was_stopped ? CLOCK_FLAG_STOPPED : 0),
	};
	uint32_t version;

	if (!(p->system_time & 1) || !begin_update(mem, gpa, &version))
		return;
	pthread_mutex_lock(&c->lock);
	t.tsc_timestamp = c->tsc + tsc_offset;
	t.system_time = c->ns;
	pthread_mutex_unlock(&c->lock);
	t.version = version;
	if (mem_write(mem, gpa, &t, sizeof(t)))
		end_update(mem, gpa, version);
}

/* The wall clock when this clock was 0. */
void pv_write_wall_clock(struct pv_clock *c, struct memory *mem, uint64_t gpa)
{
	uint64_t wall = time_ns(CLOCK_REALTIME) - pv_clock_ns(c, __builtin_ia32_rdtsc());
	struct wall_clock w = { .sec = (uint32_t)(wall / NS_PER_SEC), .nsec = (uint32_t)(wall % NS_PER_SEC) };

	if (!begin_update(mem, gpa, &w.version))
		return;
	if (mem_write(mem, gpa, &w, sizeof(w)))
		end_update(mem, gpa, w.version);
}

/*
 * Stolen is the time in which the thread neither ran nor slept in HLT: another one had the CPU, or it waited for a lock of
 * the VM's.
 */
void pv_steal_begin(struct pv_vcpu *p)
{
	p->base_wall = time_ns(CLOCK_MONOTONIC);
	p->base_cpu = time_ns(CLOCK_THREAD_CPUTIME_ID);
	p->base_stolen = p->stolen;
	p->halted_tsc = 0;
}

void pv_steal_update(struct pv_vcpu *p, const struct pv_clock *c, struct memory *mem)
{
	uint64_t gpa = p->steal_time & ~63ull, wall = time_ns(CLOCK_MONOTONIC) - p->base_wall,
		 used = time_ns(CLOCK_THREAD_CPUTIME_ID) - p->base_cpu + pv_tsc_to_ns(c, p->halted_tsc);
	struct steal_time t;

	if (wall > used && p->base_stolen + (wall - used) > p->stolen)
		p->stolen = p->base_stolen + (wall - used);
	if (!(p->steal_time & 1) || !begin_update(mem, gpa + offsetof(struct steal_time, version), &t.version))
		return;
	t.steal = p->stolen;
	if (mem_write(mem, gpa, &t.steal, sizeof(t.steal)))
		end_update(mem, gpa + offsetof(struct steal_time, version), t.version);
}

/* ---- ---- */

void pv_vcpu_reset(struct pv_vcpu *p)
{
	*p = (struct pv_vcpu){ .poll_control = 1 };
}

int64_t pv_clock_pairing(struct memory *mem, uint64_t gpa, uint64_t type, uint64_t tsc_offset)
{
	struct clock_pairing pair = { 0 };
	struct timespec ts;
	uint64_t before;

	if (type != 0)
		return -PV_EOPNOTSUPP;
	before = __builtin_ia32_rdtsc();
	clock_gettime(CLOCK_REALTIME, &ts);
	pair.tsc = before + (__builtin_ia32_rdtsc() - before) / 2 + tsc_offset;
	pair.sec = ts.tv_sec;
	pair.nsec = ts.tv_nsec;
	return mem_write(mem, gpa, &pair, sizeof(pair)) ? 0 : -PV_EFAULT;
}
