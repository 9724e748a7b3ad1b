/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues, the device's side.
 *
 * Theory of operation. The driver owns three rings in its memory:
 *
 *   desc[size]:  { le64 addr; le32 len; le16 flags; le16 next; }
 *   avail:       { le16 flags; le16 idx; le16 ring[size]; le16 used_event; }
 *   used:        { le16 flags; le16 idx; { le32 id; le32 len; } ring[size]; le16 avail_event; }
 *
 * It puts heads of descriptor chains into avail and counts idx up; the device returns them through
 * used. virtqueue_pop copies each descriptor once and works on the copy. A chain visits at most as
 * many descriptors as the queue (or the indirect table) has, so that a loop ends; its bytes fit in
 * 32 bits; its buffers are RAM and nothing else. Whatever breaks these rules breaks the queue: the
 * device then asks to be reset (section 2.1.2).
 *
 * Where the rings are is resolved to host pointers when the queue is enabled, as guest RAM does not
 * move; they are read and written with single loads and stores of 16 bits, in the order that
 * section 2.7.13 asks for. This is the only place outside of mem/ that reads guest RAM through
 * pointers other than vectors.
 *
 * Kicks are wanted only when the ring was found empty: with the event index by leaving avail_event
 * behind until then, otherwise by a flag.
 *
 * Manual: virtio 1.2, sections 2.7 and 2.7.7 to 2.7.14.
 */
#include <assert.h>

#include "base/log.h"
#include "dev/virtio/virtqueue.h"

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

static_assert(sizeof(struct desc) == 16, "as in the ring");

/* Index of the 16-bit words of the available ring, and byte offsets in the used ring. */
#define AVAIL_FLAGS 0u
#define AVAIL_IDX 1u
#define AVAIL_RING 2u
#define USED_FLAGS 0u
#define USED_IDX 2u
#define USED_RING 4u

static size_t avail_bytes(const struct virtqueue *vq)
{
	return 2u * (AVAIL_RING + vq->size + (vq->event_index ? 1u : 0u));
}

static size_t used_bytes(const struct virtqueue *vq)
{
	return USED_RING + 8u * vq->size + (vq->event_index ? 2u : 0u);
}

static uint16_t avail_load(const struct virtqueue *vq, unsigned word, int order)
{
	return __atomic_load_n(&vq->avail[word], order);
}

static void used_store(struct virtqueue *vq, size_t offset, uint16_t value, int order)
{
	__atomic_store_n((uint16_t *)(vq->used + offset), value, order);
}

void virtqueue_reset(struct virtqueue *vq)
{
	struct memory *mem = vq->mem;
	uint16_t size_max = vq->size_max;

	assert(size_max && size_max <= VIRTQUEUE_SIZE_MAX && !(size_max & (size_max - 1)));
	*vq = (struct virtqueue){
		.mem = mem, .size_max = size_max, .size = size_max, .vector = 0xffff
	};
}

static bool broken(struct virtqueue *vq, const char *what)
{
	log_guest("virtqueue: %s; the device stops until the driver resets it", what);
	vq->broken = true;
	return false;
}

static void *resolve(const struct virtqueue *vq, uint64_t gpa, size_t len, unsigned align)
{
	uint64_t avail;
	void *p;

	if (gpa & (align - 1))
		return NULL;
	p = mem_ram_ptr(vq->mem, gpa, len, &avail);
	return p && avail >= len ? p : NULL;
}

bool virtqueue_enable(struct virtqueue *vq, bool indirect, bool event_index)
{
	assert(!vq->enabled);
	if (vq->size == 0 || vq->size > vq->size_max || (vq->size & (vq->size - 1)))
		return broken(vq, "the queue size is not one that was offered");
	vq->indirect = indirect;
	vq->event_index = event_index;
	vq->desc = resolve(vq, vq->desc_gpa, 16u * vq->size, 16);
	vq->avail = resolve(vq, vq->avail_gpa, avail_bytes(vq), 2);
	vq->used = resolve(vq, vq->used_gpa, used_bytes(vq), 4);
	if (!vq->desc || !vq->avail || !vq->used)
		return broken(vq, "a ring is not in RAM, or not aligned");
	vq->enabled = true;
	return true;
}

/* Asks for a kick at the next available entry. True when there is one already. */
static bool enable_kicks(struct virtqueue *vq)
{
	if (vq->event_index) {
		size_t avail_event = USED_RING + 8u * vq->size;

		used_store(vq, avail_event, vq->last_avail, __ATOMIC_RELAXED);
		mem_written(vq->mem, vq->used_gpa + avail_event, 2);
	} else if (vq->kicks_off) {
		vq->kicks_off = false;
		used_store(vq, USED_FLAGS, 0, __ATOMIC_RELAXED);
		mem_written(vq->mem, vq->used_gpa, 2);
	}
	/* The driver stores idx, then looks whether to kick; we ask, then look at idx. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return avail_load(vq, AVAIL_IDX, __ATOMIC_ACQUIRE) != vq->last_avail;
}

static void disable_kicks(struct virtqueue *vq)
{
	if (vq->event_index || vq->kicks_off)
		return;
	vq->kicks_off = true;
	used_store(vq, USED_FLAGS, USED_NO_NOTIFY, __ATOMIC_RELAXED);
	mem_written(vq->mem, vq->used_gpa, 2);
}

/* Adds the buffer of @d to the chain, as many pieces as guest RAM is mapped in. */
static bool add_buffer(struct virtqueue *vq, struct virtqueue_chain *chain, const struct desc *d)
{
	bool in = d->flags & DESC_WRITE;
	uint32_t *bytes = in ? &chain->in_bytes : &chain->out_bytes;
	uint64_t gpa = d->addr, left = d->len;

	if (!in && chain->in_count)
		return broken(vq, "a buffer to read follows a buffer to write");
	if ((uint64_t)chain->out_bytes + chain->in_bytes + d->len > UINT32_MAX)
		return broken(vq, "a descriptor chain is longer than 4 GiB");
	while (left) {
		uint64_t piece;
		void *p = mem_ram_ptr(vq->mem, gpa, left, &piece);

		if (!p)
			return broken(vq, "a buffer is not in RAM");
		if (chain->out_count + chain->in_count == chain->iov_max)
			return broken(vq,
				      "a descriptor chain has more buffers than the device takes");
		chain->iov[chain->out_count + chain->in_count] = (struct iovec){ p, piece };
		*(in ? &chain->in_count : &chain->out_count) += 1;
		*bytes += (uint32_t)piece;
		gpa += piece;
		left -= piece;
	}
	return true;
}

/*
 * Walks from entry @i of the table of @count descriptors at @table. A descriptor that names an
 * indirect table ends the walk, with *@indirect set to it; @indirect is NULL within such a table.
 */
static bool walk(struct virtqueue *vq, struct virtqueue_chain *chain, const uint8_t *table,
		 unsigned count, unsigned i, struct desc *indirect)
{
	for (unsigned visited = 0; visited < count; visited++) {
		struct desc d;

		memcpy(&d, table + 16u * i, sizeof(d));
		/* The copy is what counts: the compiler must not read the ring again. */
		__asm__ volatile("" ::: "memory");

		if (d.flags & DESC_INDIRECT) {
			if (!indirect || !vq->indirect || (d.flags & DESC_NEXT))
				return broken(vq, "an indirect descriptor where none may be");
			*indirect = d;
			return true;
		}
		if (!add_buffer(vq, chain, &d))
			return false;
		if (!(d.flags & DESC_NEXT))
			return true;
		if (d.next >= count)
			return broken(vq, "a descriptor names one outside of the table");
		i = d.next;
	}
	return broken(vq, "a descriptor chain loops");
}

static bool walk_indirect(struct virtqueue *vq, struct virtqueue_chain *chain, const struct desc *d)
{
	const uint8_t *table;
	uint64_t avail;

	if (d->len == 0 || d->len % 16 || d->len / 16 > vq->size)
		return broken(vq, "an indirect table of a wrong length");
	table = mem_ram_ptr(vq->mem, d->addr, d->len, &avail);
	if (!table || avail < d->len)
		return broken(vq, "an indirect table is not in RAM");
	return walk(vq, chain, table, d->len / 16, 0, NULL);
}

enum virtqueue_pop virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	struct desc indirect = { .flags = 0 };
	uint16_t idx, pending, head;

	if (vq->broken || !vq->enabled)
		return VIRTQUEUE_BROKEN;
	idx = avail_load(vq, AVAIL_IDX, __ATOMIC_ACQUIRE);
	if (idx == vq->last_avail) {
		if (!enable_kicks(vq))
			return VIRTQUEUE_EMPTY;
		idx = avail_load(vq, AVAIL_IDX, __ATOMIC_ACQUIRE);
	}
	pending = (uint16_t)(idx - vq->last_avail);
	if (pending > vq->size) {
		broken(vq, "more buffers are available than the queue has");
		return VIRTQUEUE_BROKEN;
	}
	disable_kicks(vq);
	head = avail_load(vq, AVAIL_RING + (vq->last_avail & (vq->size - 1u)), __ATOMIC_RELAXED);
	if (head >= vq->size) {
		broken(vq, "an available descriptor is outside of the table");
		return VIRTQUEUE_BROKEN;
	}
	chain->head = head;
	chain->out_count = chain->in_count = 0;
	chain->out_bytes = chain->in_bytes = 0;
	if (!walk(vq, chain, vq->desc, vq->size, head, &indirect) ||
	    ((indirect.flags & DESC_INDIRECT) && !walk_indirect(vq, chain, &indirect)))
		return VIRTQUEUE_BROKEN;
	vq->last_avail++;
	return VIRTQUEUE_CHAIN;
}

void virtqueue_unpop(struct virtqueue *vq, unsigned count)
{
	vq->last_avail = (uint16_t)(vq->last_avail - count);
}

void virtqueue_fill(struct virtqueue *vq, unsigned ahead, uint16_t head, uint32_t written)
{
	unsigned slot = (vq->used_idx + ahead) & (vq->size - 1u);
	uint8_t *elem;

	if (vq->broken || !vq->enabled)
		return;
	elem = vq->used + USED_RING + 8u * slot;
	store_le(elem, head, 4);
	store_le(elem + 4, written, 4);
}

bool virtqueue_publish(struct virtqueue *vq, unsigned count)
{
	uint16_t old = vq->notified_idx, event;

	if (vq->broken || !vq->enabled)
		return false;
	vq->used_idx = (uint16_t)(vq->used_idx + count);
	used_store(vq, USED_IDX, vq->used_idx, __ATOMIC_RELEASE);
	mem_written(vq->mem, vq->used_gpa, used_bytes(vq));

	/* The driver stores used_event (or the flag), then reads idx; we store idx, then read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_index)
		return !(avail_load(vq, AVAIL_FLAGS, __ATOMIC_RELAXED) & AVAIL_NO_INTERRUPT);
	event = avail_load(vq, AVAIL_RING + vq->size, __ATOMIC_RELAXED);
	vq->notified_idx = vq->used_idx;
	return (uint16_t)(vq->used_idx - event - 1) < (uint16_t)(vq->used_idx - old);
}
