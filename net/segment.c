// SPDX-License-Identifier: Apache-2.0
/*
 * Cutting a long frame; see segment.h. RFC 791 (IP, fragments), RFC 9293 (TCP).
 *
 * A frame may come from anybody: lengths are checked against each other before anything is read by them. What is in
 * no header (padding behind the packet) is dropped. No state: a piece is made from the frame and its number.
 */
#include "net/segment.h"

#include <string.h>

#include "base/util.h"

#define ETHERNET 14u
#define IP_MIN 20u
#define IP_TOTAL 2
#define IP_ID 4
#define IP_FRAGMENT 6
#define IP_PROTOCOL 9
#define IP_CHECKSUM 10
#define IP_ADDRESSES 12
#define MORE_FRAGMENTS 0x2000u
#define FRAGMENT_OFFSET 0x1fffu
#define PROTOCOL_TCP 6
#define TCP_MIN 20u
#define TCP_SEQUENCE 4
#define TCP_DATA_OFFSET 12
#define TCP_FLAGS 13
#define TCP_CHECKSUM 16
#define TCP_FIN 0x01u
#define TCP_PSH 0x08u

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

uint32_t net_sum(uint32_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t wide = sum;
	uint32_t word;

	for (; len >= 4; p += 4, len -= 4) {
		memcpy(&word, p, 4);
		wide += word;
	}
	word = 0;
	memcpy(&word, p, len);
	wide += word;
	wide = (wide & 0xffffffff) + (wide >> 32);
	return (uint32_t)((wide & 0xffffffff) + (wide >> 32));
}

uint16_t net_checksum(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void put_checksum(uint8_t *at, uint32_t sum)
{
	uint16_t c = net_checksum(sum);

	memcpy(at, &c, 2);
}

static void finish_ip(uint8_t *ip, size_t header, size_t total)
{
	put16(ip + IP_TOTAL, (unsigned)total);
	put16(ip + IP_CHECKSUM, 0);
	put_checksum(ip + IP_CHECKSUM, net_sum(0, ip, header));
}

static void finish_tcp(uint8_t *ip, uint8_t *tcp, size_t len)
{
	const uint8_t pseudo[4] = { 0, PROTOCOL_TCP, (uint8_t)(len >> 8), (uint8_t)len };
	uint32_t sum = net_sum(net_sum(0, ip + IP_ADDRESSES, 8), pseudo, 4);

	put16(tcp + TCP_CHECKSUM, 0);
	put_checksum(tcp + TCP_CHECKSUM, net_sum(sum, tcp, len));
}

/* Bytes [at, at + n) of the @bytes after the headers, or none when @at is not among them. */
static size_t part(size_t bytes, size_t room, unsigned index, size_t *at)
{
	if (__builtin_mul_overflow(room, (size_t)index, at) || *at >= bytes)
		return 0;
	return MIN(room, bytes - *at);
}

size_t net_segment(const uint8_t *frame, size_t len, unsigned index, uint8_t *out)
{
	const uint8_t *ip = frame + ETHERNET, *tcp;
	size_t header, total, heads, at, n;
	uint8_t *new_ip = out + ETHERNET;

	if (len < ETHERNET + IP_MIN || get16(frame + 12) != 0x0800 || ip[0] >> 4 != 4)
		return 0;
	header = (ip[0] & 15) * 4u;
	total = get16(ip + IP_TOTAL);
	if (header < IP_MIN || total < header || total > len - ETHERNET || get16(ip + IP_FRAGMENT) & FRAGMENT_OFFSET ||
	    get16(ip + IP_FRAGMENT) & MORE_FRAGMENTS)
		return 0;
	tcp = ip + header;
	if (ip[IP_PROTOCOL] != PROTOCOL_TCP) {
		n = part(total - header, (NET_STANDARD_FRAME - ETHERNET - header) & ~7u, index, &at);
		if (!n)
			return 0;
		memcpy(out, frame, ETHERNET + header);
		memcpy(new_ip + header, tcp + at, n);
		put16(new_ip + IP_FRAGMENT, (unsigned)(at / 8) | (at + n < total - header ? MORE_FRAGMENTS : 0));
		finish_ip(new_ip, header, header + n);
		return ETHERNET + header + n;
	}
	if (total - header < TCP_MIN)
		return 0;
	heads = header + (tcp[TCP_DATA_OFFSET] >> 4) * 4u;
	if (heads - header < TCP_MIN || heads > total)
		return 0;
	n = part(total - heads, NET_STANDARD_FRAME - ETHERNET - heads, index, &at);
	if (!n)
		return 0;
	memcpy(out, frame, ETHERNET + heads);
	memcpy(new_ip + heads, ip + heads + at, n);
	put16(new_ip + IP_ID, get16(ip + IP_ID) + index);
	store_le(new_ip + header + TCP_SEQUENCE,
		 __builtin_bswap32(__builtin_bswap32((uint32_t)load_le(tcp + TCP_SEQUENCE, 4)) + (uint32_t)at), 4);
	if (at + n < total - heads)
		new_ip[header + TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
	finish_ip(new_ip, header, heads + n);
	finish_tcp(new_ip, new_ip + header, heads - header + n);
	return ETHERNET + heads + n;
}
