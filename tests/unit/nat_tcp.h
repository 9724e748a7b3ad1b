/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP of the guest of nat_guest.h. It is as simple as can be: segments in order, go-back-N after 200 ms, no option but the MSS,
 * which is that of a card with an MTU of 1500 or of the longest that we offer. What comes is acknowledged by the caller, at once or,
 * for one that reads late, with the window that it announces.
 */
#ifndef TESTS_UNIT_NAT_TCP_H
#define TESTS_UNIT_NAT_TCP_H

#include "base/util.h"
#include "net/net.h"
#include "tests/unit/nat_guest.h"

#define LONG_MSS (NET_OFFLOAD_MTU - 40u)

#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16

struct tcp {
	struct nat *n;
	uint16_t mss, offered;
	uint16_t port, peer_port;
	bool reads_late;
	uint16_t announced; /* window, of one that reads late */
	uint32_t una, nxt, peer_nxt, window;
	uint32_t sent_bytes, got_bytes, wrong;
	size_t longest; /* frame that came */
	bool peer_fin;
};

/* What flows between the guest and host_end: a byte depends on its place in the stream and the direction. */
static inline uint8_t stream_byte(uint32_t at, uint8_t way)
{
	return (uint8_t)(at * 2654435761u >> 24) ^ way;
}

static inline void tcp_send(struct tcp *t, uint8_t flags, uint32_t seq, const uint8_t *data, size_t len)
{
	uint8_t s[FRAME_MAX] = { 0 };
	size_t head = flags & SYN ? 24 : 20;

	put16(s, t->port);
	put16(s + 2, t->peer_port);
	put32(s + 4, seq);
	put32(s + 8, flags & ACK ? t->peer_nxt : 0);
	s[12] = (uint8_t)(head / 4 << 4);
	s[13] = flags;
	put16(s + 14, t->reads_late ? t->announced : 65535);
	if (flags & SYN) {
		s[20] = 2;
		s[21] = 4;
		put16(s + 22, t->mss);
	}
	if (len > 0)
		memcpy(s + head, data, len);
	send_ip(t->n, 6, GUEST_IP, HOST_IP, s, head + len, 16);
}

/* The next segment for the guest's port: a pointer to its TCP header, its flags and data. */
static inline const uint8_t *tcp_next(struct tcp *t, uint8_t *f, int ms, const uint8_t **data, size_t *len)
{
	size_t got;

	while ((got = next_frame(t->n, f, FRAME_MAX, ms)) > 0) {
		const uint8_t *h = f + 34;
		size_t all;

		if (got > t->longest)
			t->longest = got;

		if (get16(f + 12) != 0x0800 || f[23] != 6 || get16(h + 2) != t->port)
			continue;
		all = get16(f + 16) - 20u;
		*data = h + (h[12] >> 4) * 4;
		*len = all - (size_t)(*data - h);
		return h;
	}
	return NULL;
}

/* The MSS that a frame with SYN offers; 0 for one without, or with a wrong checksum. */
static inline uint16_t syn_mss(const uint8_t *f)
{
	size_t len = get16(f + 16) - 20u;
	uint8_t pseudo[12];

	memcpy(pseudo, f + 26, 8);
	put16(pseudo + 8, 6);
	put16(pseudo + 10, (uint16_t)len);
	return len >= 24 && f[54] == 2 && !fold(sum16(sum16(0, pseudo, 12), f + 34, len)) ? get16(f + 56) : 0;
}

static inline bool tcp_connect(struct tcp *t)
{
	uint8_t f[FRAME_MAX];
	const uint8_t *h, *data;
	size_t len;

	t->una = t->nxt = 1000;
	tcp_send(t, SYN, t->nxt++, NULL, 0);
	h = tcp_next(t, f, 2000, &data, &len);
	if (!h || (h[13] & (SYN | ACK)) != (SYN | ACK))
		return false;
	t->peer_nxt = get32(h + 4) + 1;
	t->una = get32(h + 8);
	t->window = get16(h + 14);
	t->offered = syn_mss(f);
	tcp_send(t, ACK, t->nxt, NULL, 0);
	return true;
}

/* Waits for the host to connect. */
static inline bool tcp_accept(struct tcp *t)
{
	uint8_t f[FRAME_MAX];
	const uint8_t *h, *data;
	size_t len;

	h = tcp_next(t, f, 2000, &data, &len);
	if (!h || !(h[13] & SYN))
		return false;
	t->peer_port = get16(h);
	t->offered = syn_mss(f);
	t->peer_nxt = get32(h + 4) + 1;
	t->window = get16(h + 14);
	t->una = 5000;
	t->nxt = 5001;
	tcp_send(t, SYN | ACK, 5000, NULL, 0);
	return true;
}

/* Sends and receives @bytes each way, then closes. */
static inline bool tcp_exchange(struct tcp *t, uint32_t bytes)
{
	uint32_t first = t->nxt, fin_at = first + bytes;
	uint64_t last = now_ms(), limit = last + 60000;
	uint8_t f[FRAME_MAX], out[UINT16_MAX];

	while ((t->una != fin_at + 1 || !t->peer_fin) && now_ms() < limit) {
		bool progress = false;
		const uint8_t *h, *data;
		size_t len;

		while (t->nxt != fin_at + 1 && t->nxt - t->una < t->window) {
			uint32_t n = MIN(MIN(t->mss, fin_at - t->nxt), t->window - (t->nxt - t->una));

			for (uint32_t i = 0; i < n; i++)
				out[i] = stream_byte(t->nxt - first + i, 0x55);
			tcp_send(t, n ? ACK : ACK | FIN, t->nxt, out, n);
			t->nxt += n ? n : 1;
		}
		h = tcp_next(t, f, 20, &data, &len);
		if (!h) {
			if (now_ms() - last > 200) {
				t->nxt = t->una == first - 1 ? first : t->una; /* again from there */
				last = now_ms();
			}
			continue;
		}
		if (h[13] & RST)
			return false;
		if ((int32_t)(get32(h + 8) - t->una) > 0) {
			t->una = get32(h + 8);
			if ((int32_t)(t->nxt - t->una) < 0)
				t->nxt = t->una;
			progress = true;
		}
		t->window = MAX(get16(h + 14), 1u);
		if ((len || h[13] & FIN) && get32(h + 4) == t->peer_nxt) {
			for (size_t i = 0; i < len; i++)
				t->wrong += data[i] != stream_byte(t->got_bytes + (uint32_t)i, 0xaa);
			t->got_bytes += (uint32_t)len;
			t->peer_nxt += (uint32_t)len + (h[13] & FIN ? 1 : 0);
			t->peer_fin = h[13] & FIN;
			progress = true;
		}
		if (len || h[13] & FIN)
			tcp_send(t, ACK, t->nxt, NULL, 0);
		if (progress)
			last = now_ms();
	}
	return t->una == fin_at + 1 && t->peer_fin && t->got_bytes == bytes && t->wrong == 0;
}

#endif
