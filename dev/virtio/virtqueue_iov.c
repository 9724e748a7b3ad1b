/* SPDX-License-Identifier: Apache-2.0 */
/* Copying to and from descriptor chains, and cutting their vectors. */
#include <assert.h>

#include "dev/virtio/virtqueue.h"

size_t virtqueue_read(const struct virtqueue_chain *chain, size_t offset, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < chain->out_count && done < len; i++) {
		const struct iovec *v = &chain->iov[i];
		size_t n;

		if (offset >= v->iov_len) {
			offset -= v->iov_len;
			continue;
		}
		n = MIN(v->iov_len - offset, len - done);
		memcpy((uint8_t *)buf + done, (const uint8_t *)v->iov_base + offset, n);
		done += n;
		offset = 0;
	}
	return done;
}

/* Calls mem_written for, and if @buf copies to, a part of the in vector. */
static size_t in_part(struct virtqueue *vq, const struct virtqueue_chain *chain, size_t offset,
		      const uint8_t *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < chain->in_count && done < len; i++) {
		const struct iovec *v = &chain->iov[chain->out_count + i];
		uint8_t *to;
		size_t n;

		if (offset >= v->iov_len) {
			offset -= v->iov_len;
			continue;
		}
		n = MIN(v->iov_len - offset, len - done);
		to = (uint8_t *)v->iov_base + offset;
		if (buf)
			memcpy(to, buf + done, n);
		mem_written(vq->mem, (uint64_t)(to - vq->mem->ram_base), n);
		done += n;
		offset = 0;
	}
	return done;
}

size_t virtqueue_write(struct virtqueue *vq, const struct virtqueue_chain *chain, size_t offset,
		       const void *buf, size_t len)
{
	return in_part(vq, chain, offset, buf, len);
}

void virtqueue_written(struct virtqueue *vq, const struct virtqueue_chain *chain, size_t offset,
		       size_t len)
{
	in_part(vq, chain, offset, NULL, len);
}

void virtqueue_iov_skip(struct iovec **iov, unsigned *count, size_t bytes)
{
	while (bytes) {
		struct iovec *v = *iov;

		assert(*count);
		if (bytes < v->iov_len) {
			v->iov_base = (uint8_t *)v->iov_base + bytes;
			v->iov_len -= bytes;
			return;
		}
		bytes -= v->iov_len;
		++*iov;
		--*count;
	}
}

void virtqueue_iov_trim(struct iovec *iov, unsigned *count, size_t bytes)
{
	while (bytes) {
		struct iovec *v;

		assert(*count);
		v = &iov[*count - 1];
		if (bytes < v->iov_len) {
			v->iov_len -= bytes;
			return;
		}
		bytes -= v->iov_len;
		--*count;
	}
}
