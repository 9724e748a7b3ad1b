/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the threads of one engine wait for each other, without libc: a futex lock, stopping the world, and
 * asking other vCPUs to forget which pages they may write.
 *
 * A vCPU is "in the guest" (priv->in_guest) while it runs light or translated code; it leaves only in its run
 * loop, never from C code that translated code called. Whoever has the world stopped (engine->exclusive) waits
 * until nobody else is in the guest.
 */
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "cpu/bt/private.h"

static long raw_syscall(long nr, long a, long b, long c, long d)
{
	long ret;
	register long r10 __asm__("r10") = d;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}

long bt_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
	struct timespec ts = {.tv_sec = (time_t)(timeout_ns / NS_PER_SEC),
			      .tv_nsec = (long)(timeout_ns % NS_PER_SEC)};

	return raw_syscall(SYS_futex, (long)word, FUTEX_WAIT_PRIVATE, value,
			   timeout_ns ? (long)&ts : 0);
}

void bt_futex_wake(_Atomic uint32_t *word)
{
	raw_syscall(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, 0x7fffffff, 0);
}

void bt_give_back(void *p, uint64_t bytes)
{
	raw_syscall(SYS_madvise, (long)p, (long)bytes, MADV_DONTNEED, 0);
}

void bt_write(int fd, const void *data, size_t len)
{
	raw_syscall(SYS_write, fd, (long)data, (long)len, 0);
}

/* 0 free, 1 taken, 2 taken and somebody waits. */
void bt_lock(_Atomic uint32_t *lock)
{
	uint32_t old = 0;

	if (atomic_compare_exchange_strong(lock, &old, 1))
		return;
	for (unsigned spin = 0; spin < 200; spin++) {
		old = 0;
		if (atomic_load_explicit(lock, memory_order_relaxed) == 0 &&
		    atomic_compare_exchange_strong(lock, &old, 1))
			return;
		__asm__ volatile("pause");
	}
	while (atomic_exchange(lock, 2) != 0)
		bt_futex_wait(lock, 2, 0);
}

void bt_unlock(_Atomic uint32_t *lock)
{
	if (atomic_exchange(lock, 0) == 2)
		bt_futex_wake(lock);
}

void bt_guest_enter(struct bt_vcpu *v)
{
	struct bt_engine *e = v->engine;

	for (;;) {
		atomic_store(&v->priv->in_guest, 1);
		uint32_t who = atomic_load(&e->exclusive);

		if (!who || who == v->index + 1)
			return;
		bt_guest_leave(v);
		bt_futex_wait(&e->exclusive, who, 10 * NS_PER_MS);
	}
}

void bt_guest_leave(struct bt_vcpu *v)
{
	atomic_store(&v->priv->in_guest, 0);
	if (atomic_load(&v->engine->exclusive))
		bt_futex_wake(&v->priv->in_guest);
}

void run_serve_write_flush(struct bt_vcpu *v)
{
	if (atomic_load(&v->priv->requests) & REQ_WRITE_FLUSH) {
		tlb_revoke_writes(v);
		atomic_fetch_and(&v->priv->requests, ~(uint32_t)REQ_WRITE_FLUSH);
		bt_futex_wake(&v->priv->requests);
	}
}

void exclusive_begin(struct bt_vcpu *v)
{
	struct bt_engine *e = v->engine;
	uint32_t old = 0;

	while (!atomic_compare_exchange_strong(&e->exclusive, &old, v->index + 1)) {
		/* Let the other one have its way first. */
		bt_guest_leave(v);
		bt_futex_wait(&e->exclusive, old, 10 * NS_PER_MS);
		bt_guest_enter(v);
		run_serve_write_flush(v);
		old = 0;
	}
	for (unsigned k = 0; k < e->vcpu_count; k++) {
		struct bt_vcpu *o = e->vcpus[k];

		if (o == v)
			continue;
		atomic_store(&o->poll, 1);
		while (atomic_load(&o->priv->in_guest)) {
			run_serve_write_flush(v);
			bt_futex_wait(&o->priv->in_guest, 1, NS_PER_MS);
		}
	}
}

void exclusive_end(struct bt_vcpu *v)
{
	atomic_store(&v->engine->exclusive, 0);
	bt_futex_wake(&v->engine->exclusive);
}

void run_revoke_writes_all(struct bt_engine *e, struct bt_vcpu *v)
{
	if (v)
		tlb_revoke_writes(v);
	for (unsigned k = 0; k < e->vcpu_count; k++) {
		struct bt_private *o = e->vcpus[k]->priv;

		if (e->vcpus[k] == v)
			continue;
		atomic_fetch_or(&o->requests, REQ_WRITE_FLUSH);
		atomic_store(&e->vcpus[k]->poll, 1);
	}
	for (unsigned k = 0; k < e->vcpu_count; k++) {
		struct bt_private *o = e->vcpus[k]->priv;
		uint32_t r;

		if (e->vcpus[k] == v)
			continue;
		/* Out of the guest it serves the request before it comes in again. */
		while (((r = atomic_load(&o->requests)) & REQ_WRITE_FLUSH) &&
		       atomic_load(&o->in_guest)) {
			if (v)
				run_serve_write_flush(v);
			bt_futex_wait(&o->requests, r, 200 * NS_PER_US);
		}
	}
}

void bt_yield(struct bt_vcpu *v)
{
	if (v->engine->vcpu_count > 1)
		raw_syscall(SYS_sched_yield, 0, 0, 0, 0);
}
