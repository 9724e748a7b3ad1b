/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder served by the 9P2000.L protocol: requests in, replies out, one at a time. maru-share's only thing.
 *
 * The client is a guest, and trusted with nothing but the tree beneath the folder: see share.c.
 */
#ifndef SHARE_SHARE_H
#define SHARE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define SHARE_MESSAGE_MAX (128u * 1024) /* of a request or reply, with its header */

struct share;

/*
 * @dir_fd is the folder (O_PATH will do), @fds_fd is /proc/self/fd; both are taken. @fids_max bounds what the client
 * keeps open.
 */
struct error *share_create(int dir_fd, int fds_fd, bool readonly, unsigned fids_max, struct share **out) MUST_CHECK;
void share_destroy(struct share *s);
void share_reset(struct share *s); /* forgets all that the client has open */

/*
 * Handles one request of @len bytes and writes its reply, of at most SHARE_MESSAGE_MAX bytes, to @reply; returns its
 * length. 0: it was no request that could be replied to.
 */
size_t share_handle(struct share *s, const uint8_t *request, size_t len, uint8_t *reply);

/* What maru-share gives up, after which only @dir_fd can be reached. */
struct error *share_sandbox_enter(int dir_fd, bool readonly) MUST_CHECK;

#endif
