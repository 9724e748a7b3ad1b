/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtqueue library on rings full of anything.
 *
 * Input: a byte of features, a byte of size; then the first bytes of guest memory, where the rings
 * lie; the last 32 bytes are steps (pop and return, unpop, change of a ring word under way).
 */
#include <assert.h>
#include <stdlib.h>

#include "base/log.h"
#include "dev/virtio/virtqueue.h"

#define RAM (1 * MiB)
/* Close together, so that short inputs reach all of them; indirect tables lie anywhere. */
#define AVAIL 0x000u
#define DESC 0x040u
#define USED 0x140u
#define RINGS_BYTES 0x400u
#define STEPS 32u

static struct memory *mem;

/* All that a chain says must hold, whatever the driver wrote. */
static void check(const struct virtqueue_chain *chain, uint16_t size)
{
	uint64_t out = 0, in = 0;

	assert(chain->head < size && chain->out_count + chain->in_count <= chain->iov_max);
	for (unsigned i = 0; i < chain->out_count + chain->in_count; i++) {
		uint64_t gpa = (uint64_t)((uint8_t *)chain->iov[i].iov_base - mem->ram_base);

		assert(chain->iov[i].iov_len && gpa < RAM && chain->iov[i].iov_len <= RAM - gpa);
		*(i < chain->out_count ? &out : &in) += chain->iov[i].iov_len;
	}
	assert(out == chain->out_bytes && in == chain->in_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct iovec iov[24];
	struct virtqueue_chain chain = { .iov = iov, .iov_max = ARRAY_SIZE(iov) };
	struct virtqueue vq = { .size_max = 16 };
	uint8_t buf[64];
	size_t ring_bytes;

	if (!mem) {
		log_init("fuzz", LOG_LEVEL_ERROR);
		if (memory_create(RAM, &mem))
			abort();
	}
	if (size < 2 + STEPS)
		return 0;
	ring_bytes = MIN(size - 2 - STEPS, RINGS_BYTES);
	memset(mem->ram_base, 0, RINGS_BYTES);
	memcpy(mem->ram_base, data + 2, ring_bytes);

	vq.mem = mem;
	virtqueue_reset(&vq);
	vq.size = (uint16_t)(1u << (data[1] % 5));
	vq.desc_gpa = DESC;
	vq.avail_gpa = AVAIL;
	vq.used_gpa = USED;
	if (!virtqueue_enable(&vq, data[0] & 1, data[0] & 2))
		return 0;
	for (const uint8_t *step = data + size - STEPS; step < data + size; step++) {
		if (virtqueue_pop(&vq, &chain) != VIRTQUEUE_CHAIN) {
			/* The driver makes some of its entries available. */
			store_le(mem->ram_base + AVAIL + 2, vq.last_avail + (*step & 31), 2);
			continue;
		}
		check(&chain, vq.size);
		virtqueue_read(&chain, *step, buf, sizeof(buf));
		virtqueue_write(&vq, &chain, *step & 63, buf, MIN(sizeof(buf), *step));
		if (*step & 1) {
			virtqueue_unpop(&vq, 1);
			mem->ram_base[(*step * 37u) % RINGS_BYTES] ^= *step;
		} else {
			virtqueue_fill(&vq, 0, chain.head, chain.in_bytes);
			virtqueue_publish(&vq, 1);
		}
	}
	return 0;
}
