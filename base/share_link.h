/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes over the packet socket between a VM's file system device (dev/virtio/virtio_fs.c) and the process that serves
 * the folder (share/main.c): FUSE messages, each in pieces, as a packet cannot be of any size.
 *
 * A packet is this header and a piece. Pieces of a message follow each other, from offset 0 to its end; only a reset comes
 * in between. Requests have one reply each, if they have room for its header, in the order of the requests. Numbers
 * are of the host's byte order.
 */
#ifndef BASE_SHARE_LINK_H
#define BASE_SHARE_LINK_H

#include <stdint.h>

struct share_packet {
	uint32_t id;	 /* of the request; a reply has the same */
	uint32_t total;	 /* bytes of the message; 0, to the process only: a reset, which forgets what the guest had */
	uint32_t offset; /* of this piece in it */
	uint32_t room;	 /* a request: bytes that its reply may have; a reply: 0 */
};

#define SHARE_PIECE_MAX (64u * 1024)		 /* bytes behind the header */
#define SHARE_DATA_MAX (1024u * 1024)		 /* of one READ or WRITE */
#define SHARE_MESSAGE_MAX (SHARE_DATA_MAX + 4096u) /* with what goes with it */

#endif
