/* SPDX-License-Identifier: Apache-2.0 */
/* The Internet checksum, and cutting a long frame into frames that any card takes. */
#ifndef NET_SEGMENT_H
#define NET_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#define NET_STANDARD_FRAME 1514u /* of an MTU of 1500 */

/* The checksum (RFC 1071) of @len bytes that begin at an even place of what is summed; @sum is what went before. */
uint32_t net_sum(uint32_t sum, const void *data, size_t len);
/* As it is stored in a header. */
uint16_t net_checksum(uint32_t sum);

/*
 * The @index-th of the frames of at most NET_STANDARD_FRAME bytes that say what @frame says: segments of a TCP
 * segment, fragments of any other IPv4 packet. Returns its length, with the frame in @out; 0 after the last one, and
 * for a frame that cannot be cut.
 */
size_t net_segment(const uint8_t *frame, size_t len, unsigned index, uint8_t *out);

#endif
