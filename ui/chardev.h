/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The character interface: bytes between a serial port (or console) and what the person sees.
 * Both directions in the loop's monitor.
 */
#ifndef UI_CHARDEV_H
#define UI_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

struct chardev_client {
	/* How many bytes the chip can take now; the back end never passes more. */
	size_t (*can_receive)(void *opaque);
	void (*receive)(void *opaque, const uint8_t *buf, size_t len);
	void *opaque;
	/* Optional: there may be more room() than before. From the loop. */
	void (*writable)(void *opaque);
};

struct chardev;

struct chardev_ops {
	const char *name;
	/* Never blocks: what the other side does not take in time is kept up to a bound, then dropped. */
	void (*write)(struct chardev *chr, const uint8_t *buf, size_t len);
	/* The chip has room again. */
	void (*resume)(struct chardev *chr);
	void (*destroy)(struct chardev *chr); /* writes out what it still can within a second */
	/*
	 * Optional: how much can be written now of which nothing is dropped, for chips that would rather wait
	 * (client.writable); any amount while nobody is there to read it.
	 */
	size_t (*room)(struct chardev *chr);
};

struct chardev {
	const struct chardev_ops *ops;
	struct chardev_client client; /* set by the chip */
};

/* NULL-safe: a chip without a back end writes to nobody. */
static inline void chardev_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	if (chr)
		chr->ops->write(chr, buf, len);
}

static inline size_t chardev_room(struct chardev *chr)
{
	return chr && chr->ops->room ? chr->ops->room(chr) : SIZE_MAX;
}

static inline void chardev_resume(struct chardev *chr)
{
	if (chr)
		chr->ops->resume(chr);
}

static inline void chardev_destroy(struct chardev *chr)
{
	if (chr)
		chr->ops->destroy(chr);
}

/* Reads from @in_fd (or -1) and writes to @out_fd (or -1); takes neither. */
struct error *chardev_fd_create(struct loop *loop, int in_fd, int out_fd,
				struct chardev **out) MUST_CHECK;

/* Listens on @listen_fd (a bound, listening Unix socket, taken); one client at a time. */
struct error *chardev_socket_create(struct loop *loop, int listen_fd, struct chardev **out) MUST_CHECK;

#endif
