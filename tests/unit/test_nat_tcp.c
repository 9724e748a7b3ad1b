// SPDX-License-Identifier: Apache-2.0
/*
 * TCP through maru-nat, without a VM: a guest (nat_tcp.h) connects to a server of the host, and a client of the host to the guest by a
 * forwarded port; megabytes go both ways at once. Then guests that read late, with all windows that are usual.
 */
#include <pthread.h>
#include <signal.h>

#include "tests/unit/nat_tcp.h"

#define GUEST_PORT 8080
#define STREAM_BYTES (8u * 1024 * 1024)

/* The host's end of a stream, in a thread. */
struct host_end {
	int fd;
	bool connects;
	uint16_t port;
	uint32_t bytes, got, wrong;
};

static void *host_sender(void *opaque)
{
	struct host_end *e = opaque;
	static __thread uint8_t buf[65536];

	for (uint32_t at = 0; at < e->bytes;) {
		uint32_t n = MIN(e->bytes - at, sizeof(buf));
		uint32_t done = 0;

		for (uint32_t i = 0; i < n; i++)
			buf[i] = stream_byte(at + i, 0xaa);
		while (done < n) {
			ssize_t put = send(e->fd, buf + done, n - done, MSG_NOSIGNAL);

			if (put <= 0)
				return NULL;
			done += (uint32_t)put;
		}
		at += n;
	}
	shutdown(e->fd, SHUT_WR);
	return NULL;
}

static void *host_end_main(void *opaque)
{
	struct host_end *e = opaque;
	static __thread uint8_t buf[65536];
	pthread_t sender;
	ssize_t got;

	if (e->connects) {
		struct sockaddr_in a = { .sin_family = AF_INET,
					 .sin_port = htons(e->port),
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

		e->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(e->fd, (struct sockaddr *)&a, sizeof(a)) < 0)
			return NULL;
	} else {
		int fd = accept(e->fd, NULL, NULL);

		close(e->fd);
		e->fd = fd;
	}
	pthread_create(&sender, NULL, host_sender, e);
	while ((got = recv(e->fd, buf, sizeof(buf), 0)) > 0) {
		for (ssize_t i = 0; i < got; i++)
			e->wrong += buf[i] != stream_byte(e->got + (uint32_t)i, 0x55);
		e->got += (uint32_t)got;
	}
	pthread_join(sender, NULL);
	close(e->fd);
	return NULL;
}

static void test_tcp(struct nat *n, uint16_t forwarded, uint16_t mss)
{
	uint32_t bytes = getenv("NAT_BYTES") ? (uint32_t)atoi(getenv("NAT_BYTES")) : STREAM_BYTES;
	struct host_end e = { .bytes = bytes };
	struct tcp t = { .n = n, .port = 40000 + mss % 100, .mss = mss };
	pthread_t thread;
	uint64_t start;

	e.fd = host_socket(SOCK_STREAM, &t.peer_port);
	listen(e.fd, 1);
	pthread_create(&thread, NULL, host_end_main, &e);
	start = now_ms();
	ok(tcp_connect(&t), "TCP: the guest connects to the host");
	is_u64(t.offered, LONG_MSS, "TCP: and may send long segments");
	ok(tcp_exchange(&t, bytes), "TCP: %u bytes to the guest and closed", bytes);
	pthread_join(thread, NULL);
	ok(e.got == bytes && e.wrong == 0, "TCP: %u bytes from the guest", e.got);
	/* libslirp forgets the guest's MSS where connecting takes time; the card cuts what is too long for a guest. */
	ok(t.longest > 1460 && t.longest <= 16384 + 14, "frames of up to %zu bytes", t.longest);
	diag("%u MiB each way in %u ms", bytes >> 20, (unsigned)(now_ms() - start));

	e = (struct host_end){ .bytes = 100000, .connects = true, .port = forwarded };
	t = (struct tcp){ .n = n, .port = GUEST_PORT, .mss = mss };
	pthread_create(&thread, NULL, host_end_main, &e);
	ok(tcp_accept(&t), "a forwarded port: the guest is connected to");
	is_u64(t.offered, LONG_MSS, "a forwarded port: and may send long segments");
	ok(tcp_exchange(&t, 100000), "a forwarded port: bytes to the guest and closed");
	pthread_join(thread, NULL);
	ok(e.got == 100000 && e.wrong == 0, "a forwarded port: %u bytes from the guest", e.got);
}

/*
 * A guest whose kernel acknowledges what comes before its program reads it, as is usual. Its window is then as much smaller, and
 * when the program has read all, it tells of a larger one only if that is twice as large, in multiples of the longest
 * segment that it was sent (silly window avoidance, RFC 9293, 3.8.6.2.2). A sender that meanwhile waits for more room than
 * is left, by the same rule, waits for its persist timer, which takes 5 s: it must not send so long segments.
 */
static unsigned longest_pause(struct tcp *t, uint16_t buffer)
{
	uint32_t longest_segment = 1;
	uint64_t last = now_ms(), pause = 0;
	uint8_t f[FRAME_MAX];

	while (!t->peer_fin && now_ms() - last < 2000) {
		const uint8_t *data, *h;
		size_t len;

		h = tcp_next(t, f, 3, &data, &len);
		if (!h) { /* all is read */
			uint32_t room = buffer - buffer % longest_segment;

			if (room > t->announced && room >= 2u * t->announced) {
				t->announced = (uint16_t)room;
				tcp_send(t, ACK, t->nxt, NULL, 0);
			}
			continue;
		}
		if (get32(h + 4) != t->peer_nxt || (!len && !(h[13] & FIN)))
			continue;
		for (size_t i = 0; i < len; i++)
			t->wrong += data[i] != stream_byte(t->got_bytes + (uint32_t)i, 0xaa);
		t->wrong += len > t->announced;
		t->got_bytes += (uint32_t)len;
		t->peer_nxt += (uint32_t)len + (h[13] & FIN ? 1 : 0);
		t->peer_fin = h[13] & FIN;
		t->announced -= (uint16_t)MIN(len, t->announced);
		longest_segment = MAX(longest_segment, (uint32_t)len);
		tcp_send(t, t->peer_fin ? ACK | FIN : ACK, t->nxt, NULL, 0);
		pause = MAX(pause, now_ms() - last);
		last = now_ms();
	}
	if (!t->peer_fin)
		tcp_send(t, RST | ACK, t->nxt, NULL, 0);
	return (unsigned)MAX(pause, now_ms() - last);
}

static void test_window(struct nat *n)
{
	/* What Linux begins with, and programs that ask for less. */
	const uint16_t buffers[] = { 65535, 65480, 64240, 49152, 32768, 16384, 8192, 4096 };

	for (unsigned i = 0; i < ARRAY_SIZE(buffers); i++) {
		struct host_end e = { .bytes = 300000 };
		struct tcp t = { .n = n, .port = (uint16_t)(41000 + i), .mss = LONG_MSS, .reads_late = true, .announced = buffers[i] };
		unsigned pause = 10000;
		pthread_t thread;

		e.fd = host_socket(SOCK_STREAM, &t.peer_port);
		listen(e.fd, 1);
		pthread_create(&thread, NULL, host_end_main, &e);
		if (tcp_connect(&t))
			pause = longest_pause(&t, buffers[i]);
		pthread_join(thread, NULL);
		ok(pause < 1000 && t.got_bytes == e.bytes && !t.wrong,
		   "a window of %u that is read late: %u bytes, no pause longer than %u ms", buffers[i], t.got_bytes, pause);
	}
}

int main(void)
{
	char forward[64];
	struct nat n;
	uint16_t port;

	signal(SIGPIPE, SIG_IGN);
	close(host_socket(SOCK_STREAM, &port));
	snprintf(forward, sizeof(forward), "%u:%u", port, GUEST_PORT);
	nat_start(&n, "--forward", forward);
	is_str(n.status, "ready\n", "started");
	ok(nat_arp(&n), "ARP for 10.0.2.2");
	test_tcp(&n, port, 1460);
	test_tcp(&n, port, LONG_MSS);
	test_window(&n);
	ok(nat_arp(&n), "alive");
	is_u64((uint64_t)nat_stop(&n), 0, "ends when the guest's end is closed");
	return done_testing();
}
