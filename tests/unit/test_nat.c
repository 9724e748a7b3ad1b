// SPDX-License-Identifier: Apache-2.0
/*
 * maru-nat from end to end, without a VM: a guest of some 200 lines sits at the other end of the frame
 * socket and does DHCP, ARP, ping, UDP and TCP in both directions with servers and clients on the host.
 *
 * The guest's TCP is as simple as can be: segments in order, go-back-N after 200 ms, no option but the MSS, which
 * is that of a card with an MTU of 1500 or of the longest that we offer. It takes all that comes at once, but for
 * test_window(), where a program reads later than the kernel acknowledges.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "net/net.h"
#include "tests/tap.h"

#define GUEST_IP 0x0a00020fu
#define HOST_IP 0x0a000202u
#define DNS_IP 0x0a000203u
#define GUEST_PORT 8080
#define STREAM_BYTES (8u * 1024 * 1024)
#define FRAME_MAX 65550u
#define LONG_MSS (NET_OFFLOAD_MTU - 40u)

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
static uint8_t host_mac[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
static char program[256];

/* --- Starting maru-nat --- */

struct nat {
	pid_t pid;
	int fd;
	char status[256];
};

static void nat_start(struct nat *n, const char *option, const char *value)
{
	int frames[2], status[2];
	ssize_t got = 0, r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, frames) < 0 || pipe2(status, O_CLOEXEC) < 0)
		exit(1);
	n->pid = fork();
	if (n->pid == 0) {
		char fd[16], status_fd[16];

		snprintf(fd, sizeof(fd), "%d", dup(frames[1]));
		snprintf(status_fd, sizeof(status_fd), "%d", dup(status[1]));
		execl(program, "maru-nat", "--fd", fd, "--status-fd", status_fd, "--hostname", "tester",
		      option, value, NULL);
		_exit(127);
	}
	close(frames[1]);
	close(status[1]);
	while ((r = read(status[0], n->status + got, sizeof(n->status) - 1 - (size_t)got)) > 0)
		got += r;
	n->status[got] = 0;
	close(status[0]);
	n->fd = frames[0];
}

/* Closes the guest's end; maru-nat's exit status. */
static int nat_stop(struct nat *n)
{
	int status;

	close(n->fd);
	waitpid(n->pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* --- Frames --- */

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, 4);
}

static void put16(uint8_t *p, uint16_t v)
{
	v = htons(v);
	memcpy(p, &v, 2);
}

static uint32_t sum16(uint32_t sum, const uint8_t *p, size_t len)
{
	for (; len > 1; p += 2, len -= 2)
		sum += get16(p);
	if (len)
		sum += (uint32_t)p[0] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* A frame from the guest: @l4 is the header and data behind IP, its checksum at @sum_at to be filled in. */
static void send_ip(struct nat *n, uint8_t proto, uint32_t from, uint32_t to, uint8_t *l4, size_t len,
		    size_t sum_at)
{
	uint8_t f[FRAME_MAX] = { 0 }, pseudo[12];

	memcpy(f, to == 0xffffffff ? (const uint8_t *)"\xff\xff\xff\xff\xff\xff" : host_mac, 6);
	memcpy(f + 6, guest_mac, 6);
	put16(f + 12, 0x0800);
	f[14] = 0x45;
	put16(f + 16, (uint16_t)(20 + len));
	f[22] = 64;
	f[23] = proto;
	put32(f + 26, from);
	put32(f + 30, to);
	put16(f + 24, fold(sum16(0, f + 14, 20)));
	memcpy(pseudo, f + 26, 8);
	put16(pseudo + 8, proto);
	put16(pseudo + 10, (uint16_t)len);
	put16(l4 + sum_at, 0);
	put16(l4 + sum_at, fold(sum16(proto == 1 ? 0 : sum16(0, pseudo, 12), l4, len)));
	memcpy(f + 34, l4, len);
	while (send(n->fd, f, 34 + len, 0) < 0 && (errno == EINTR || errno == EAGAIN))
		;
}

static void send_udp(struct nat *n, uint32_t from, uint16_t from_port, uint32_t to, uint16_t to_port,
		     const void *data, size_t len)
{
	uint8_t u[1500] = { 0 };

	put16(u, from_port);
	put16(u + 2, to_port);
	put16(u + 4, (uint16_t)(8 + len));
	memcpy(u + 8, data, len);
	send_ip(n, 17, from, to, u, 8 + len, 6);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* The next frame for the guest within @ms; its length or 0. Answers ARP on the way. */
static size_t next_frame(struct nat *n, uint8_t *f, size_t room, int ms)
{
	uint64_t end = now_ms() + (uint64_t)ms;

	for (;;) {
		struct pollfd p = { .fd = n->fd, .events = POLLIN };
		uint64_t now = now_ms();
		ssize_t got;

		if (poll(&p, 1, now < end ? (int)(end - now) : 0) <= 0)
			return 0;
		got = recv(n->fd, f, room, 0);
		if (got <= 0)
			return 0;
		if (get16(f + 12) == 0x0806 && get16(f + 20) == 1 && get32(f + 38) == GUEST_IP) {
			uint8_t a[42];

			memcpy(a, f + 6, 6);
			memcpy(a + 6, guest_mac, 6);
			memcpy(a + 12, f + 12, 8);
			put16(a + 20, 2);
			memcpy(a + 22, guest_mac, 6);
			put32(a + 28, GUEST_IP);
			memcpy(a + 32, f + 22, 10);
			send(n->fd, a, sizeof(a), 0);
			continue;
		}
		return (size_t)got;
	}
}

/* --- DHCP, ARP, ping, UDP --- */

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

static bool arp(struct nat *n)
{
	uint8_t f[2048], a[42] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const uint8_t request[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };

	memcpy(a + 6, guest_mac, 6);
	memcpy(a + 12, request, 10);
	memcpy(a + 22, guest_mac, 6);
	put32(a + 28, GUEST_IP);
	put32(a + 38, HOST_IP);
	send(n->fd, a, sizeof(a), 0);
	while (next_frame(n, f, sizeof(f), 1000) > 0) {
		if (get16(f + 12) == 0x0806 && get16(f + 20) == 2 && get32(f + 28) == HOST_IP) {
			memcpy(host_mac, f + 22, 6);
			return true;
		}
	}
	return false;
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

static int host_socket(int type, uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		exit(1);
	*port = ntohs(a.sin_port);
	return fd;
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

/* --- TCP --- */

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

/* What flows: a byte depends on its place in the stream and the direction. */
static uint8_t stream_byte(uint32_t at, uint8_t way)
{
	return (uint8_t)(at * 2654435761u >> 24) ^ way;
}

static void tcp_send(struct tcp *t, uint8_t flags, uint32_t seq, const uint8_t *data, size_t len)
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
static const uint8_t *tcp_next(struct tcp *t, uint8_t *f, int ms, const uint8_t **data, size_t *len)
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
static uint16_t syn_mss(const uint8_t *f)
{
	size_t len = get16(f + 16) - 20u;
	uint8_t pseudo[12];

	memcpy(pseudo, f + 26, 8);
	put16(pseudo + 8, 6);
	put16(pseudo + 10, (uint16_t)len);
	return len >= 24 && f[54] == 2 && !fold(sum16(sum16(0, pseudo, 12), f + 34, len)) ? get16(f + 56) : 0;
}

static bool tcp_connect(struct tcp *t)
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
static bool tcp_accept(struct tcp *t)
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
static bool tcp_exchange(struct tcp *t, uint32_t bytes)
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
	ok(arp(&n), "ARP for 10.0.2.2");
	test_ping(&n);
	ok(udp_round_trip(&n), "UDP to a server on the host and back");
	test_tcp(&n, port, 1460);
	test_tcp(&n, port, LONG_MSS);
	test_window(&n);
	/* Whatever comes back: the sandbox has to allow what libslirp does then. */
	send_udp(&n, GUEST_IP, 5353, DNS_IP, 53, query, sizeof(query));
	send_udp(&n, GUEST_IP, 5354, HOST_IP, 69, "\0\1/etc/passwd\0octet", 19);
	send_ip(&n, 1, GUEST_IP, 0xc0000201, echo, sizeof(echo), 2);
	send(n.fd, "short", 5, 0);
	ok(arp(&n), "alive after DNS, TFTP, ping of the world and a broken frame");
	is_u64((uint64_t)nat_stop(&n), 0, "ends when the guest's end is closed");

	nat_start(&n, "--restrict", NULL);
	is_str(n.status, "ready\n", "restricted: started");
	ok(arp(&n), "restricted: ARP");
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
	const char *build = getenv("BUILD");

	snprintf(program, sizeof(program), "%s/maru-nat", build ? build : "build/release");
	if (access(program, X_OK) < 0)
		skip_all("%s is not built", program);
	signal(SIGPIPE, SIG_IGN);
	test_bad_options();
	test_all();
	return done_testing();
}
