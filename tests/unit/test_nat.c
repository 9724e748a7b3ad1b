// SPDX-License-Identifier: Apache-2.0
/*
 * maru-nat from end to end, without a VM: its options, and what a guest (nat_guest.h) gets from it by DHCP, ARP, ping and UDP. TCP is
 * in test_nat_tcp.c.
 */
#include <signal.h>

#include "base/util.h"
#include "tests/unit/nat_guest.h"

#define GUEST_PORT 8080

static const uint8_t *dhcp_option(const uint8_t *bootp, size_t len, uint8_t want)
{
	for (size_t i = 240; i + 2 <= len && bootp[i] != 255; i += 2u + bootp[i + 1])
		if (bootp[i] == want && i + 2 + bootp[i + 1] <= len)
			return bootp + i + 2;
	return NULL;
}

/* A message of @type; the answer's BOOTP part in @f and its length, or NULL. */
static const uint8_t *dhcp(struct nat *n, uint8_t type, uint8_t *f, size_t *len)
{
	uint8_t b[300] = { 1, 1, 6, 0, 0xca, 0xfe, 0xba, 0xbe };
	static const uint8_t cookie[] = { 99, 130, 83, 99, 53, 1 };
	size_t got;

	memcpy(b + 28, guest_mac, 6);
	memcpy(b + 236, cookie, 6);
	b[242] = type;
	b[243] = 50;
	b[244] = 4;
	put32(b + 245, GUEST_IP);
	b[249] = 255;
	send_udp(n, 0, 68, 0xffffffff, 67, b, sizeof(b));
	while ((got = next_frame(n, f, 2048, 1000)) > 0) {
		if (get16(f + 12) == 0x0800 && f[23] == 17 && get16(f + 36) == 68 && got > 42 + 240) {
			*len = got - 42;
			return f + 42;
		}
	}
	return NULL;
}

static void test_dhcp(struct nat *n)
{
	uint8_t f[2048];
	const uint8_t *b, *o;
	size_t len;

	b = dhcp(n, 1, f, &len);
	if (!ok(b != NULL, "DHCP: an offer"))
		return;
	is_u64(get32(b + 16), GUEST_IP, "DHCP: 10.0.2.15");
	o = dhcp_option(b, len, 3);
	ok(o && get32(o) == HOST_IP, "DHCP: router 10.0.2.2");
	o = dhcp_option(b, len, 6);
	ok(o && get32(o) == DNS_IP, "DHCP: DNS 10.0.2.3");
	o = dhcp_option(b, len, 12);
	ok(o && memcmp(o, "tester", 6) == 0, "DHCP: host name");
	b = dhcp(n, 3, f, &len);
	o = b ? dhcp_option(b, len, 53) : NULL;
	ok(o && *o == 5, "DHCP: acknowledged");
}

static void test_ping(struct nat *n)
{
	uint8_t f[2048], ping[16] = { 8, 0, 0, 0, 1, 2, 0, 1, 'p', 'i', 'n', 'g' };
	bool answered = false;

	send_ip(n, 1, GUEST_IP, HOST_IP, ping, sizeof(ping), 2);
	while (!answered && next_frame(n, f, sizeof(f), 1000) > 0)
		answered = get16(f + 12) == 0x0800 && f[23] == 1 && f[34] == 0 &&
			   memcmp(f + 42, "ping", 4) == 0;
	ok(answered, "ping of 10.0.2.2");
}

static bool udp_round_trip(struct nat *n)
{
	uint8_t f[2048], buf[64];
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	struct pollfd p;
	bool good = false;
	uint16_t port;
	int fd = host_socket(SOCK_DGRAM, &port);

	send_udp(n, GUEST_IP, 5555, HOST_IP, port, "hello", 5);
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	if (poll(&p, 1, 500) == 1 &&
	    recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len) == 5 &&
	    sendto(fd, "world!", 6, 0, (struct sockaddr *)&from, len) == 6)
		while (!good && next_frame(n, f, sizeof(f), 1000) > 0)
			good = get16(f + 12) == 0x0800 && f[23] == 17 && get32(f + 26) == HOST_IP &&
			       get16(f + 36) == 5555 && memcmp(f + 42, "world!", 6) == 0;
	close(fd);
	return good;
}

static void test_all(void)
{
	uint8_t query[] = { 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 4, 't', 'e', 's', 't', 0, 0, 1, 0, 1 };
	uint8_t echo[16] = { 8, 0, 0, 0, 1, 2, 0, 1 };
	char forward[64], status[64];
	struct nat n;
	uint16_t port;
	int fd = host_socket(SOCK_STREAM, &port);

	listen(fd, 1);
	snprintf(forward, sizeof(forward), "%u:%u", port, GUEST_PORT);
	nat_start(&n, "--forward", forward);
	snprintf(status, sizeof(status), "error: port %u on 127.0.0.1 is taken", port);
	ok(strncmp(n.status, status, strlen(status)) == 0, "a port that is taken: %s", n.status);
	is_u64((uint64_t)nat_stop(&n), 1, "and it exits");
	close(fd);

	nat_start(&n, "--forward", forward);
	if (!is_str(n.status, "ready\n", "started"))
		return;
	test_dhcp(&n);
	ok(nat_arp(&n), "ARP for 10.0.2.2");
	test_ping(&n);
	ok(udp_round_trip(&n), "UDP to a server on the host and back");
	/* Whatever comes back: the sandbox has to allow what libslirp does then. */
	send_udp(&n, GUEST_IP, 5353, DNS_IP, 53, query, sizeof(query));
	send_udp(&n, GUEST_IP, 5354, HOST_IP, 69, "\0\1/etc/passwd\0octet", 19);
	send_ip(&n, 1, GUEST_IP, 0xc0000201, echo, sizeof(echo), 2);
	send(n.fd, "short", 5, 0);
	ok(nat_arp(&n), "alive after DNS, TFTP, ping of the world and a broken frame");
	is_u64((uint64_t)nat_stop(&n), 0, "ends when the guest's end is closed");

	nat_start(&n, "--restrict", NULL);
	is_str(n.status, "ready\n", "restricted: started");
	ok(nat_arp(&n), "restricted: ARP");
	ok(!udp_round_trip(&n), "restricted: no way to the host");
	is_u64((uint64_t)nat_stop(&n), 0, "restricted: ended");
}

static void test_bad_options(void)
{
	static const struct {
		const char *forward, *says;
	} bad[] = {
		{ "80", "error: '80' is not a port forward" },
		{ "0:80", "error: '0:80' names a port" },
		{ "80:65536", "error: '80:65536' names a port" },
		{ "1x:80", "error: '1x:80' names a port" },
		{ "host:80:80", "error: 'host:80:80' does not begin with an IPv4 address" },
		{ "203.0.113.7:8080:80", "error: 203.0.113.7 is not an address of this host" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct nat n;

		nat_start(&n, "--forward", bad[i].forward);
		ok(strncmp(n.status, bad[i].says, strlen(bad[i].says)) == 0, "%s: %s", bad[i].forward,
		   n.status);
		is_u64((uint64_t)nat_stop(&n), 1, "and it exits");
	}
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_bad_options();
	test_all();
	return done_testing();
}
