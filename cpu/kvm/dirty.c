/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of written pages, from KVM (api.rst: KVM_CAP_DIRTY_LOG_RING, KVM_GET_DIRTY_LOG).
 *
 * Where the kernel has it each vCPU has a ring of pages that it was the first to write; we read it, and KVM_RESET_DIRTY_RINGS makes the
 * kernel watch these pages again. That costs by pages written. A vCPU whose ring is full comes out, and empties all. Else the kernel
 * keeps a bitmap for each area of RAM, and gives it as a whole: that costs by pages there are.
 *
 * Both go into the engine's bitmap (cpu/dirty.h), where also what devices write is noted. The kernel watches again before a fetch
 * takes the bits out, so what is copied behind the fetch has all writes that are not reported later.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/log.h"
#include "cpu/kvm/kvm_priv.h"

#define RING_BYTES 65536u
#define RING_PATIENCE 1000u /* calls in a row that do nothing */

/* Before the first vCPU. */
void kvm_dirty_init(struct kvm_engine *e)
{
	static const uint32_t capabilities[] = { KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL };

	pthread_mutex_init(&e->dirty_lock, NULL);
	for (unsigned k = 0; k < ARRAY_SIZE(capabilities) && !e->ring_entries; k++) {
		struct kvm_enable_cap cap = { .cap = capabilities[k], .args = { RING_BYTES } };
		int most = ioctl(e->vm_fd, KVM_CHECK_EXTENSION, capabilities[k]);

		if (most >= (int)RING_BYTES && ioctl(e->vm_fd, KVM_ENABLE_CAP, &cap) == 0)
			e->ring_entries = RING_BYTES / sizeof(struct kvm_dirty_gfn);
	}
}

struct error *kvm_dirty_map_ring(struct kvm_vcpu *v)
{
	void *ring;

	if (!v->engine->ring_entries)
		return NULL;
	ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, KVM_DIRTY_LOG_PAGE_OFFSET * MEM_PAGE_SIZE);
	if (ring == MAP_FAILED)
		return error_errno(errno, "cannot map the ring of written pages of vCPU %u", v->index);
	v->ring = ring;
	return NULL;
}

void kvm_dirty_unmap_ring(struct kvm_vcpu *v)
{
	if (v->ring)
		munmap(v->ring, RING_BYTES);
}

static const struct {
	uint32_t slot;
	uint64_t gpa;
} slots[] = { { 0, 0 }, { 1, MEM_HIGH_BASE } };

static uint64_t slot_bytes(const struct kvm_engine *e, unsigned slot)
{
	return slot ? e->mem->high_bytes : e->mem->low_bytes;
}

/* With the lock. */
static unsigned empty_ring(struct kvm_vcpu *v)
{
	struct kvm_engine *e = v->engine;
	unsigned count = 0;

	for (;; count++) {
		struct kvm_dirty_gfn *g = &v->ring[v->ring_next % e->ring_entries];

		if (!(__atomic_load_n(&g->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			return count;
		if (g->slot < ARRAY_SIZE(slots))
			dirty_mark(&e->dirty, slots[g->slot].gpa + g->offset * MEM_PAGE_SIZE);
		__atomic_store_n(&g->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		v->ring_next++;
	}
}

/* With the lock. A signal, as a kick is one, cuts the call short in kernels from 6.16 on: it says how many entries it came to. */
static void watch_again(struct kvm_engine *e)
{
	for (unsigned idle = 0; e->ring_taken && idle < RING_PATIENCE; idle++) {
		int done = ioctl(e->vm_fd, KVM_RESET_DIRTY_RINGS, 0);

		if (done < 0 && errno != EINTR)
			break;
		if (done > 0) {
			e->ring_taken -= MIN(e->ring_taken, (unsigned)done);
			idle = 0;
		}
	}
	if (e->ring_taken) /* the next time it is tried again */
		log_warn("KVM does not watch %u written pages again: %s", e->ring_taken, strerror(errno));
}

void kvm_dirty_collect(struct kvm_engine *e)
{
	pthread_mutex_lock(&e->dirty_lock);
	for (unsigned k = 0; k < e->vcpu_count; k++)
		e->ring_taken += empty_ring(e->vcpus[k]);
	watch_again(e);
	pthread_mutex_unlock(&e->dirty_lock);
}

/* One area's bitmap, of the kernel's. */
static void get_log(struct kvm_engine *e, unsigned slot)
{
	uint64_t words = (slot_bytes(e, slot) / MEM_PAGE_SIZE + 63) / 64;
	struct kvm_dirty_log log = { .slot = slots[slot].slot, .dirty_bitmap = e->kernel_bitmap };

	if (!words)
		return;
	if (ioctl(e->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0) {
		/* All may be written. */
		log_warn("KVM does not say which pages were written: %s", strerror(errno));
		dirty_mark_range(&e->dirty, slots[slot].gpa, slot_bytes(e, slot));
		return;
	}
	for (uint64_t k = 0; k < words; k++)
		for (uint64_t left = e->kernel_bitmap[k]; left; left &= left - 1)
			dirty_mark(&e->dirty, slots[slot].gpa + (k * 64 + (unsigned)__builtin_ctzll(left)) * MEM_PAGE_SIZE);
}

static struct error *watch(struct kvm_engine *e, bool on)
{
	for (unsigned k = 0; k < ARRAY_SIZE(slots); k++) {
		struct kvm_userspace_memory_region region = {
			.slot = slots[k].slot,
			.flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0,
			.guest_phys_addr = slots[k].gpa,
			.memory_size = slot_bytes(e, k),
			.userspace_addr = (uintptr_t)e->mem->ram_base + slots[k].gpa,
		};

		if (region.memory_size && ioctl(e->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
			return error_errno(errno, "KVM does not keep a log of written pages");
	}
	return NULL;
}

struct error *kvm_dirty_start(struct engine *engine)
{
	struct kvm_engine *e = kvm_engine_of(engine);
	struct error *err;

	if (!e->ring_entries && !e->kernel_bitmap) {
		e->kernel_bitmap = calloc(1, MAX(e->mem->low_bytes, e->mem->high_bytes) / MEM_PAGE_SIZE / 8 + 8);
		if (!e->kernel_bitmap)
			return error_errno(ENOMEM, "cannot keep a log of written pages");
	}
	err = dirty_log_start(&e->dirty, e->mem);
	if (err)
		return err;
	err = watch(e, true);
	if (err)
		kvm_dirty_stop(engine);
	return err;
}

void kvm_dirty_fetch(struct engine *engine, uint64_t gpa, uint64_t pages, uint64_t *bitmap)
{
	struct kvm_engine *e = kvm_engine_of(engine);

	if (e->ring_entries)
		kvm_dirty_collect(e);
	else
		get_log(e, gpa >= MEM_HIGH_BASE);
	dirty_log_take(&e->dirty, gpa, pages, bitmap);
}

void kvm_dirty_stop(struct engine *engine)
{
	struct kvm_engine *e = kvm_engine_of(engine);

	dirty_log_stop(&e->dirty);
	error_free(watch(e, false));
	if (e->ring_entries)
		kvm_dirty_collect(e);
}

/* A device wrote. */
void kvm_memory_written(void *opaque, uint64_t gpa, uint64_t len)
{
	struct kvm_engine *e = opaque;

	dirty_mark_range(&e->dirty, gpa, len);
}

void kvm_dirty_finish(struct kvm_engine *e)
{
	free(e->kernel_bitmap);
	dirty_log_finish(&e->dirty);
	pthread_mutex_destroy(&e->dirty_lock);
}
