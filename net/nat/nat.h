/* SPDX-License-Identifier: Apache-2.0 */
/* The user-mode network: libslirp between a socket of Ethernet frames and the host's own sockets. */
#ifndef NET_NAT_NAT_H
#define NET_NAT_NAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define NAT_FORWARDS_MAX 256

struct nat_forward {
	char host_addr[16]; /* dotted IPv4 */
	uint16_t host_port, guest_port;
};

struct nat_config {
	int fd;		      /* connected SOCK_SEQPACKET */
	const char *hostname; /* given to the guest by DHCP; NULL: none */
	bool restricted;      /* nothing but the forwards passes */
	unsigned forward_count;
	struct nat_forward forward[NAT_FORWARDS_MAX];
};

/* "[ADDR:]HOSTPORT:GUESTPORT" */
struct error *nat_forward_parse(const char *text, struct nat_forward *out) MUST_CHECK;

struct nat;
/* Makes the network and binds the forwards' ports. */
struct error *nat_create(const struct nat_config *config, struct nat **out) MUST_CHECK;
/* Until the peer closes its end. */
void nat_run(struct nat *nat);
void nat_destroy(struct nat *nat); /* NULL-safe */

/* Gives up everything that nat_run does not need; see sandbox.c. */
struct error *nat_sandbox_enter(void) MUST_CHECK;

#endif
