/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio memory balloon: memory that the guest can do without goes back to the host.
 *
 * Theory of operation. Three ways. The host sets a target (num_pages); the driver takes pages from its
 * system until the balloon has that size and names them through the inflate queue, and we give the
 * host's pages behind them back. Deflating needs nothing of us: pages stay mapped, and the host finds
 * new ones when they are touched, so the driver may use them at once (no MUST_TELL_HOST). Under
 * memory pressure the driver may deflate by itself (DEFLATE_ON_OOM). Without being asked, it reports ranges that
 * are free at the moment (PAGE_REPORTING): the host gets them back until they are written. And a buffer with
 * statistics waits here until somebody wants new ones; giving it back makes the driver fill it again.
 *
 * The guest may name any page, any number of times, pages of its kernel or rings: it then finds
 * zeroes there, and harms nobody but itself. What is named is bounded for each buffer, and one
 * buffer is handled for each doorbell or turn of the loop, as giving pages back takes the host's time.
 *
 * Queues: 0 inflate, 1 deflate, 2 statistics, 4 reporting. Linux before 6.11 does not count queues whose
 * feature is not there and comes to 3 for the last, or 2 without statistics (we offer no free page hints); the standard has no
 * such queues then, so all are taken.
 *
 * Manual: virtio 1.2, section 5.5.
 */
#include <assert.h>
#include <stdlib.h>

#include "dev/virtio/virtio_balloon.h"

enum { F_STATS_VQ = 1, F_DEFLATE_ON_OOM = 2, F_PAGE_REPORTING = 5 };
enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, QUEUE_REPORTING_OLD, QUEUE_REPORTING, QUEUES };

/* struct virtio_balloon_config; the last two members are of features that are not offered. */
enum { CONFIG_NUM_PAGES = 0, CONFIG_ACTUAL = 4, CONFIG_BYTES = 8 };

#define QUEUE_SIZE 128u
#define PAGES_MAX 1024u /* of one buffer; Linux names 256 */
#define STAT_BYTES 10u	/* le16 tag, le64 value */
#define STATS_MAX 32u	/* of one buffer */

struct virtio_balloon {
	struct virtio_device v;
	uint64_t reported_bytes;
	bool has_stats_buffer; /* of the driver's, with statistics that were taken note of */
	uint16_t stats_head;
	bool has_statistics;
	uint64_t statistics_ns;
	uint32_t statistics_set;
	uint64_t statistics[VIRTIO_BALLOON_TAGS];
	struct virtqueue_chain chain;
	struct iovec iov[QUEUE_SIZE];
};

static struct virtio_balloon *balloon_of(struct virtio_device *v)
{
	return container_of(v, struct virtio_balloon, v);
}

/* The pages that a buffer of 32-bit page numbers names, in as few calls as neighbours allow. */
static void inflate(struct virtio_balloon *b)
{
	uint8_t pfns[PAGES_MAX * 4];
	size_t count = virtqueue_read(&b->chain, 0, pfns, sizeof(pfns)) / 4;
	uint64_t first = 0, end = 0; /* the range gathered so far */

	if (b->chain.out_bytes > sizeof(pfns))
		log_guest("virtio-balloon: a buffer names more than %u pages: the rest is left alone",
			  PAGES_MAX);
	for (size_t i = 0; i < count; i++) {
		uint64_t pfn = load_le(pfns + 4 * i, 4);

		if (end > first && pfn == end) {
			end++;
		} else if (end > first && pfn + 1 == first) {
			first--;
		} else {
			mem_discard(b->v.mem, first * MEM_PAGE_SIZE, (end - first) * MEM_PAGE_SIZE);
			first = pfn;
			end = pfn + 1;
		}
	}
	mem_discard(b->v.mem, first * MEM_PAGE_SIZE, (end - first) * MEM_PAGE_SIZE);
}

/* The buffers themselves are what is free. */
static void take_report(struct virtio_balloon *b)
{
	for (unsigned i = 0; i < b->chain.in_count; i++) {
		const struct iovec *range = &b->chain.iov[b->chain.out_count + i];
		uint64_t gpa = (uint64_t)((uint8_t *)range->iov_base - b->v.mem->ram_base);

		b->reported_bytes += mem_discard(b->v.mem, gpa, range->iov_len);
	}
}

/* One buffer, and the rest from the loop. */
static void handle_one(struct virtio_balloon *b, unsigned queue, void (*handle)(struct virtio_balloon *))
{
	if (!virtio_pop(&b->v, queue, &b->chain))
		return;
	if (handle)
		handle(b);
	virtio_push(&b->v, queue, b->chain.head, 0);
	virtio_requeue(&b->v, queue);
}

/* Keeps the newest buffer; a driver that gives more than one gets the older back. */
static void take_statistics(struct virtio_balloon *b)
{
	uint8_t stats[STATS_MAX * STAT_BYTES];
	size_t count;

	if (!virtio_pop(&b->v, QUEUE_STATS, &b->chain))
		return;
	count = virtqueue_read(&b->chain, 0, stats, sizeof(stats)) / STAT_BYTES;
	b->statistics_set = 0;
	for (size_t i = 0; i < count; i++) {
		const uint8_t *entry = stats + i * STAT_BYTES;
		uint64_t tag = load_le(entry, 2);

		if (tag >= VIRTIO_BALLOON_TAGS)
			continue;
		b->statistics_set |= 1u << tag;
		b->statistics[tag] = load_le(entry + 2, 8);
	}
	b->has_statistics = true;
	b->statistics_ns = loop_now_ns();
	if (b->has_stats_buffer)
		virtio_push(&b->v, QUEUE_STATS, b->stats_head, 0);
	b->has_stats_buffer = true;
	b->stats_head = b->chain.head;
	virtio_requeue(&b->v, QUEUE_STATS);
}

static void balloon_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_balloon *b = balloon_of(v);

	if (queue == QUEUE_INFLATE)
		handle_one(b, queue, inflate);
	else if (queue == QUEUE_DEFLATE)
		handle_one(b, queue, NULL);
	else if (queue == QUEUE_STATS && virtio_has(v, F_STATS_VQ))
		take_statistics(b);
	else if (virtio_has(v, F_PAGE_REPORTING))
		handle_one(b, queue, take_report);
}

static void balloon_config_write(struct virtio_device *v, unsigned offset, uint32_t value,
				 unsigned size)
{
	if (offset >= CONFIG_ACTUAL)
		store_le(v->config + offset, value, size);
}

static bool balloon_stop(struct virtio_device *v)
{
	struct virtio_balloon *b = balloon_of(v);

	/* The target stays: the next driver gets it too. */
	store_le(v->config + CONFIG_ACTUAL, 0, 4);
	b->has_stats_buffer = false;
	b->has_statistics = false;
	return true;
}

static void balloon_destroy(struct virtio_device *v)
{
	virtio_finish(v);
	free(balloon_of(v));
}

static const struct virtio_ops balloon_ops = {
	.name = "virtio-balloon",
	.id = VIRTIO_ID_BALLOON,
	.class_code = 0x00ff00,
	.notify = balloon_notify,
	.stop = balloon_stop,
	.config_write = balloon_config_write,
	.destroy = balloon_destroy,
};

void virtio_balloon_set_target(struct virtio_device *v, uint64_t bytes)
{
	uint64_t pages = MIN(bytes / MEM_PAGE_SIZE, UINT32_MAX);

	assert(v->ops == &balloon_ops);
	if (load_le(v->config + CONFIG_NUM_PAGES, 4) == pages)
		return;
	store_le(v->config + CONFIG_NUM_PAGES, pages, 4);
	virtio_config_changed(v);
}

void virtio_balloon_get_state(struct virtio_device *v, struct virtio_balloon_state *out)
{
	const struct virtio_balloon *b = balloon_of(v);

	assert(v->ops == &balloon_ops);
	*out = (struct virtio_balloon_state){
		.driver = virtio_is_live(v),
		.target_bytes = load_le(v->config + CONFIG_NUM_PAGES, 4) * MEM_PAGE_SIZE,
		.given_bytes = load_le(v->config + CONFIG_ACTUAL, 4) * MEM_PAGE_SIZE,
		.reported_bytes = b->reported_bytes,
		.has_statistics = b->has_statistics,
		.statistics_ns = b->statistics_ns,
		.statistics_set = b->statistics_set,
	};
	memcpy(out->statistics, b->statistics, sizeof(out->statistics));
}

void virtio_balloon_ask_statistics(struct virtio_device *v)
{
	struct virtio_balloon *b = balloon_of(v);

	assert(v->ops == &balloon_ops);
	if (!b->has_stats_buffer)
		return;
	b->has_stats_buffer = false;
	virtio_push(v, QUEUE_STATS, b->stats_head, 0);
}

struct virtio_device *virtio_balloon_create(struct memory *mem, struct loop *loop)
{
	struct virtio_balloon *b = calloc(1, sizeof(*b));

	assert(b);
	virtio_init(&b->v, &balloon_ops, mem, loop,
		    VIRTIO_BIT(F_STATS_VQ) | VIRTIO_BIT(F_DEFLATE_ON_OOM) | VIRTIO_BIT(F_PAGE_REPORTING));
	for (unsigned i = 0; i < QUEUES; i++)
		virtio_add_queue(&b->v, QUEUE_SIZE);
	b->v.config_len = CONFIG_BYTES;
	b->chain.iov = b->iov;
	b->chain.iov_max = QUEUE_SIZE;
	return &b->v;
}
