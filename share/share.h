/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder served by the FUSE protocol: requests in, replies out, one at a time. maru-share's only thing.
 *
 * The client is a guest, and trusted with nothing but the tree beneath the folder: see share.c.
 */
#ifndef SHARE_SHARE_H
#define SHARE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/share_link.h"

struct share;

/*
 * @dir_fd is the folder (O_PATH will do), @fds_fd is /proc/self/fd; both are taken. @fds_max bounds the descriptors that
 * the client can use up.
 */
#define SHARE_FDS_MIN 16u
struct error *share_create(int dir_fd, int fds_fd, bool readonly, unsigned fds_max, struct share **out) MUST_CHECK;
void share_destroy(struct share *s);
void share_reset(struct share *s); /* forgets all that the client knows and has open */

/*
 * Handles one request of @len bytes and writes its reply, of at most @room bytes, to @reply, which has SHARE_MESSAGE_MAX;
 * returns its length. 0: @room is less than a header.
 */
size_t share_handle(struct share *s, const void *request, size_t len, uint8_t *reply, size_t room);

/* What maru-share gives up, after which only @dir_fd can be reached. */
struct error *share_sandbox_enter(int dir_fd, bool readonly) MUST_CHECK;

#endif
