/* SPDX-License-Identifier: Apache-2.0 */
/* net/segment.h: what a long frame is cut into says the same, and broken frames are cut into nothing. */
#include "net/segment.h"

#include <string.h>

#include "base/util.h"
#include "tests/tap.h"

static uint8_t frame[65550], piece[NET_STANDARD_FRAME], joined[65550];

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static unsigned get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

/* Headers of 14 + @ip + @tcp bytes (0: UDP, whose header is payload here) and @payload bytes. */
static size_t make(unsigned ip, unsigned tcp, unsigned payload)
{
	uint8_t *p = frame + 14;

	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 13 + i / 256);
	put16(frame + 12, 0x0800);
	p[0] = (uint8_t)(0x40 | ip / 4);
	put16(p + 2, ip + tcp + payload);
	put16(p + 4, 0xfffe);
	put16(p + 6, 0);
	p[9] = tcp ? 6 : 17;
	if (tcp) {
		put16(p + ip + 4, 0xffff);
		put16(p + ip + 6, 0xf000);
		p[ip + 12] = (uint8_t)(tcp / 4 << 4);
		p[ip + 13] = 0x19;
	}
	return 14 + ip + tcp + payload;
}

static uint32_t sequence(const uint8_t *tcp)
{
	return (uint32_t)get16(tcp + 4) << 16 | get16(tcp + 6);
}

static void test_tcp(unsigned ip, unsigned tcp, unsigned payload)
{
	size_t len = make(ip, tcp, payload), n, done = 0, heads = 14 + ip + tcp;
	unsigned count = 0, bad = 0;

	/* Bytes behind the packet are none of it. */
	for (; (n = net_segment(frame, MIN(len + 5, sizeof(frame)), count, piece)); count++) {
		uint8_t *p = piece + 14, pseudo[12];
		bool last = done + n - heads == payload;

		bad += n > NET_STANDARD_FRAME || n <= heads || memcmp(piece, frame, 14);
		bad += get16(p + 2) != n - 14 || get16(p + 4) != ((0xfffe + count) & 0xffff);
		bad += net_checksum(net_sum(0, p, ip)) != 0;
		bad += sequence(p + ip) != (uint32_t)(0xfffff000u + done) || p[ip + 13] != (last ? 0x19 : 0x10);
		memcpy(pseudo, p + 12, 8);
		put16(pseudo + 8, 6);
		put16(pseudo + 10, (unsigned)n - 14 - ip);
		bad += net_checksum(net_sum(net_sum(0, pseudo, 12), p + ip, n - 14 - ip)) != 0;
		memcpy(joined + done, piece + heads, n - heads);
		done += n - heads;
	}
	ok(done == payload && !memcmp(joined, frame + heads, payload), "TCP: %u bytes in %u segments", payload, count);
	is_u64(bad, 0, "each is a good one");
	is_u64(count, (payload + 1500 - ip - tcp - 1) / (1500 - ip - tcp), "as few as can be");
}

static void test_fragments(unsigned ip, unsigned payload)
{
	size_t len = make(ip, 0, payload), n, done = 0;
	unsigned count = 0, bad = 0;

	for (; (n = net_segment(frame, len, count, piece)); count++) {
		uint8_t *p = piece + 14;

		bad += n > NET_STANDARD_FRAME || get16(p + 2) != n - 14 || get16(p + 4) != 0xfffe;
		bad += net_checksum(net_sum(0, p, ip)) != 0;
		bad += (get16(p + 6) & 0x1fff) * 8 != done;
		done += n - 14 - ip;
		bad += !(get16(p + 6) & 0x2000) != (done == payload) || get16(p + 6) & 0xc000;
		memcpy(joined + done - (n - 14 - ip), p + ip, n - 14 - ip);
	}
	ok(done == payload && !memcmp(joined, frame + 14 + ip, payload), "UDP: %u bytes in %u fragments", payload, count);
	is_u64(bad, 0, "each is a good one");
}

static void refused(size_t len, const char *what)
{
	is_u64(net_segment(frame, len, 0, piece), 0, "%s", what);
}

int main(void)
{
	size_t len;

	test_tcp(20, 20, 65480);
	test_tcp(24, 32, 32768);
	test_tcp(60, 60, 1381);
	test_tcp(20, 20, 1461);
	test_tcp(20, 20, 1460);
	test_fragments(20, 65515);
	test_fragments(60, 3001);
	refused(13, "no frame");
	len = make(20, 20, 3000);
	refused(len - 1, "longer than its frame");
	put16(frame + 12, 0x86dd);
	refused(len, "not IPv4");
	make(20, 20, 3000);
	frame[14] = 0x44;
	refused(len, "an IP header that is too short");
	make(20, 20, 3000);
	frame[14 + 20 + 12] = 0x40;
	refused(len, "a TCP header that is too short");
	make(20, 20, 3000);
	put16(frame + 16, 50);
	frame[14 + 20 + 12] = 0xf0;
	refused(len, "a TCP header longer than its packet");
	make(20, 20, 3000);
	put16(frame + 16, 19);
	refused(len, "a packet shorter than its header");
	make(20, 20, 3000);
	put16(frame + 20, 0x2000);
	refused(len, "a fragment");
	make(20, 20, 3000);
	is_u64(net_segment(frame, len, 0xffffffff, piece), 0, "no piece with a high number");
	is_u64(net_checksum(net_sum(0, "\x00\x01\xf2\x03\xf4\xf5\xf6\xf7", 8)), 0x0d22, "RFC 1071's example");
	return done_testing();
}
