/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-vsock: connections both ways, credit, ends, and a driver that lies. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dev/virtio/virtio_vsock.h"
#include "tests/tap.h"
#include "tests/unit/virtio_driver.h"

enum { RX, TX };
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };

#define QUEUE 64u
#define RX_BYTES 0x1000u
#define RX_BUFFERS DATA_BASE		   /* QUEUE of them */
#define TX_BUFFERS (DATA_BASE + 0x100000) /* QUEUE packets with their data */
#define TX_BYTES 0x4000u
#define BUFFER 65536u			   /* that the device has for what the guest sends */

static struct rig rig;
static struct drv d;
static struct virtio_device *v;
static struct vsock_backend be;
static uint32_t asked_id, asked_port, asked_count;
static bool backend_refuses;
static unsigned rx_next, tx_next;

static bool fake_connect(struct vsock_backend *b, uint32_t id, uint32_t port)
{
	asked_id = id;
	asked_port = port;
	asked_count++;
	return !backend_refuses;
}

static const struct vsock_backend_ops fake_ops = { .name = "fake", .connect = fake_connect };

struct packet {
	uint32_t src_port, dst_port, len, flags, alloc, fwd;
	unsigned op;
	uint64_t src_cid, dst_cid;
	uint64_t data; /* where its bytes are */
};

static void give_rx(unsigned count)
{
	while (count--) {
		struct drv_buffer b = { RX_BUFFERS + RX_BYTES * (rx_next++ % QUEUE), RX_BYTES, true };

		drv_add(&d, RX, &b, 1);
	}
	drv_kick(&d, RX);
}

/* The next packet that the guest got. */
static bool got(struct packet *p)
{
	uint32_t id, len;
	uint64_t at;

	rig_run_loop(&rig);
	memset(p, 0, sizeof(*p));
	if (!drv_used(&d, RX, &id, &len))
		return false;
	at = ram_load(&rig, d.q[RX].desc + 16 * id, 8);
	*p = (struct packet){
		.src_cid = ram_load(&rig, at, 8),
		.dst_cid = ram_load(&rig, at + 8, 8),
		.src_port = (uint32_t)ram_load(&rig, at + 16, 4),
		.dst_port = (uint32_t)ram_load(&rig, at + 20, 4),
		.len = (uint32_t)ram_load(&rig, at + 24, 4),
		.op = (unsigned)ram_load(&rig, at + 30, 2),
		.flags = (uint32_t)ram_load(&rig, at + 32, 4),
		.alloc = (uint32_t)ram_load(&rig, at + 36, 4),
		.fwd = (uint32_t)ram_load(&rig, at + 40, 4),
		.data = at + 44,
	};
	if (len != 44 + p->len)
		p->op = 99;
	give_rx(1);
	return true;
}

static bool got_op(struct packet *p, unsigned op)
{
	return got(p) && p->op == op;
}

static void send_raw(uint64_t src_cid, uint64_t dst_cid, uint32_t src_port, uint32_t dst_port, unsigned type, unsigned op,
		     uint32_t flags, uint32_t alloc, uint32_t fwd, const void *data, uint32_t len, uint32_t claimed)
{
	uint64_t at = TX_BUFFERS + TX_BYTES * (tx_next++ % QUEUE);
	struct drv_buffer b[2] = { { at, 44, false }, { at + 64, len, false } };

	ram_store(&rig, at, src_cid, 8);
	ram_store(&rig, at + 8, dst_cid, 8);
	ram_store(&rig, at + 16, src_port, 4);
	ram_store(&rig, at + 20, dst_port, 4);
	ram_store(&rig, at + 24, claimed, 4);
	ram_store(&rig, at + 28, type, 2);
	ram_store(&rig, at + 30, op, 2);
	ram_store(&rig, at + 32, flags, 4);
	ram_store(&rig, at + 36, alloc, 4);
	ram_store(&rig, at + 40, fwd, 4);
	if (len)
		memcpy(rig.mem->ram_base + at + 64, data, len);
	drv_add(&d, TX, b, len ? 2 : 1);
	drv_kick(&d, TX);
	rig_run_loop(&rig);
	while (drv_used(&d, TX, NULL, NULL))
		;
}

static void send_op(uint32_t guest_port, uint32_t host_port, unsigned op, uint32_t alloc, uint32_t fwd)
{
	send_raw(3, 2, guest_port, host_port, 1, op, 0, alloc, fwd, NULL, 0, 0);
}

static void send_data(uint32_t guest_port, uint32_t host_port, uint32_t fwd, const void *data, uint32_t len)
{
	send_raw(3, 2, guest_port, host_port, 1, RW, 0, 100000, fwd, data, len, len);
}

static void restart(void)
{
	struct packet p;

	drv_start(&d, VIRTIO_BIT(VIRTIO_F_VERSION_1), QUEUE);
	rx_next = 0;
	give_rx(QUEUE - 1);
	while (got(&p))
		;
}

static void pair(int *ours, int *theirs)
{
	int p[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p))
		abort();
	*ours = p[0];
	*theirs = p[1];
}

/* A connection that the guest made, open; returns the host program's end. */
static int guest_connects(uint32_t guest_port, uint32_t host_port)
{
	struct packet p;
	int ours, theirs;

	send_op(guest_port, host_port, REQUEST, 100000, 0);
	pair(&ours, &theirs);
	be.client.connected(be.client.opaque, asked_id, theirs);
	ok(got_op(&p, RESPONSE) && p.dst_port == guest_port && p.src_port == host_port && p.alloc == BUFFER &&
		   p.src_cid == 2 && p.dst_cid == 3,
	   "a connection from port %u of the guest to %u", guest_port, host_port);
	return ours;
}

static bool reads(int fd, const char *want)
{
	char buf[256];
	ssize_t n;

	rig_run_loop(&rig);
	n = recv(fd, buf, sizeof(buf), 0);
	return n == (ssize_t)strlen(want) && !memcmp(buf, want, (size_t)n);
}

static bool at_end(int fd)
{
	char c;

	rig_run_loop(&rig);
	return recv(fd, &c, 1, 0) == 0;
}

static void test_guest_connects(void)
{
	struct packet p;
	int fd;

	restart();
	is_u64(drv_read(&d, d.device, 4), 3, "the guest's address");
	fd = guest_connects(1000, 80);
	is_u64(asked_port, 80, "the back end is asked for the port");
	send_data(1000, 80, 0, "hello", 5);
	ok(reads(fd, "hello"), "bytes to the host");
	ok(send(fd, "answer", 6, 0) == 6 && got_op(&p, RW) && p.len == 6 && !memcmp(rig.mem->ram_base + p.data, "answer", 6),
	   "bytes to the guest");
	is_u64(p.fwd, 5, "with the count of what was forwarded");
	shutdown(fd, SHUT_WR);
	ok(got_op(&p, SHUTDOWN) && p.flags == 2, "the host's program sends no more");
	send_data(1000, 80, 6, "late", 4);
	ok(reads(fd, "late"), "but goes on reading");
	send_raw(3, 2, 1000, 80, 1, SHUTDOWN, 3, 100000, 6, NULL, 0, 0);
	ok(got_op(&p, RST), "the guest ends it, which is answered by a reset");
	ok(at_end(fd), "the host sees the end");
	is_u64(virtio_vsock_connections(v), 0, "nothing is left");
	close(fd);

	send_op(1000, 81, REQUEST, 1000, 0);
	be.client.connected(be.client.opaque, asked_id, -1);
	ok(got_op(&p, RST) && p.dst_port == 1000 && p.src_port == 81, "a port where nobody listens");
	backend_refuses = true;
	send_op(1000, 82, REQUEST, 1000, 0);
	ok(got_op(&p, RST) && p.src_port == 82, "or cannot be asked for");
	backend_refuses = false;
}

static void test_host_connects(void)
{
	struct packet p;
	int fd, theirs;
	uint32_t port;

	restart();
	pair(&fd, &theirs);
	be.client.incoming(be.client.opaque, theirs, 22);
	ok(got_op(&p, REQUEST) && p.dst_port == 22 && p.src_cid == 2, "the guest is asked");
	port = p.src_port;
	send_op(22, port, RESPONSE, 8, 0);
	{
		char want[32];

		snprintf(want, sizeof(want), "OK %u\n", port);
		ok(reads(fd, want), "the host's program is told: %s", want);
	}
	/* Credit: 8 bytes, not one more. */
	ok(send(fd, "0123456789abcdef", 16, 0) == 16, "it sends more than the guest has room for");
	ok(got_op(&p, RW) && p.len == 8, "the guest gets what it has room for");
	ok(!got(&p), "and no more");
	send_op(22, port, CREDIT_UPDATE, 8, 3);
	ok(got_op(&p, RW) && p.len == 3, "until it has room again");
	send_op(22, port, CREDIT_UPDATE, 2, 8);
	ok(!got(&p), "a buffer that shrinks below what is under way is full");
	send_op(22, port, CREDIT_UPDATE, 100, 11);
	ok(got_op(&p, RW) && p.len == 5, "the rest");
	close(fd);
	ok(got_op(&p, SHUTDOWN) && p.flags == 3, "the host's program is gone");
	send_op(22, port, RST, 0, 0);
	is_u64(virtio_vsock_connections(v), 0, "the guest agrees");

	pair(&fd, &theirs);
	be.client.incoming(be.client.opaque, theirs, 23);
	ok(got_op(&p, REQUEST), "another port");
	send_op(23, p.src_port, RST, 0, 0);
	ok(at_end(fd), "where nobody listens: the host's program sees the end");
	close(fd);
	drv_set_status(&d, 0);
	pair(&fd, &theirs);
	be.client.incoming(be.client.opaque, theirs, 23);
	ok(at_end(fd), "and at once without a driver");
	close(fd);
}

/* The guest sends as much as it may while nobody reads, and not one byte more. */
static void test_limit(void)
{
	static char block[8192];
	struct packet p;
	size_t host_took = 0;
	uint32_t sent = 0, fwd = 0;
	int fd, small = 4096;
	char buf[65536];
	ssize_t n;

	restart();
	fd = guest_connects(1, 1);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	for (unsigned i = 0; i < sizeof(block); i++)
		block[i] = (char)i;
	for (unsigned i = 0; i < 1000 && sent - fwd + sizeof(block) <= BUFFER; i++) {
		send_data(1, 1, 0, block, sizeof(block));
		sent += sizeof(block);
		while (got(&p)) {
			if (p.op != CREDIT_UPDATE)
				break;
			fwd = p.fwd;
		}
	}
	ok(sent - fwd == BUFFER, "the guest has %u bytes under way, %u were forwarded", BUFFER, fwd);
	is_u64(virtio_vsock_connections(v), 1, "which is its right");
	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0 || host_took < sent) {
		if (n > 0) {
			for (ssize_t i = 0; i < n; i++)
				if (buf[i] != (char)((host_took + (size_t)i) % sizeof(block)))
					abort();
			host_took += (size_t)n;
		}
		rig_run_loop(&rig);
	}
	is_u64(host_took, sent, "all of it reaches the host, in order");
	while (got(&p) && p.op == CREDIT_UPDATE)
		fwd = p.fwd;
	ok(sent - fwd < BUFFER / 4, "the guest is told that there is room again");
	close(fd);
	restart();

	fd = guest_connects(2, 2);
	for (unsigned i = 0; i < 40; i++) /* the socket takes some of it, too */
		send_data(2, 2, 0, block, sizeof(block));
	rig_run_loop(&rig);
	while (got(&p) && p.op != RST)
		;
	is_u64(p.op, RST, "who sends more than it may is reset");
	is_u64(virtio_vsock_connections(v), 0, "and forgotten");
	close(fd);
}

static void test_lies(void)
{
	struct packet p;
	int fd;

	restart();
	fd = guest_connects(5, 5);
	send_op(5, 5, CREDIT_UPDATE, 1000, 1);
	ok(got_op(&p, RST), "a guest that has taken what was not sent");
	close(fd);
	fd = guest_connects(5, 6);
	send_op(5, 6, REQUEST, 1000, 0);
	ok(got_op(&p, RST) && at_end(fd), "a second request for the same");
	close(fd);
	fd = guest_connects(5, 7);
	send_op(5, 7, 77, 1000, 0);
	ok(got_op(&p, RST), "an operation that does not exist");
	close(fd);
	fd = guest_connects(5, 8);
	send_raw(3, 2, 5, 8, 1, SHUTDOWN, 2, 1000, 0, NULL, 0, 0);
	ok(at_end(fd), "the guest sends no more");
	send_data(5, 8, 0, "x", 1);
	ok(got_op(&p, RST), "and yet it does");
	close(fd);
	send_op(9, 9, RW, 1000, 0);
	ok(got_op(&p, RST) && p.dst_port == 9 && p.src_port == 9, "data of no connection");
	send_op(9, 9, RST, 0, 0);
	ok(!got(&p), "a reset is never answered");
	send_raw(4, 2, 1, 1, 1, REQUEST, 0, 1, 0, NULL, 0, 0);
	ok(!got(&p), "a forged address");
	send_raw(3, 7, 1, 1, 1, REQUEST, 0, 1, 0, NULL, 0, 0);
	ok(got_op(&p, RST) && p.src_cid == 7, "another host");
	send_raw(3, 2, 1, 1, 2, REQUEST, 0, 1, 0, NULL, 0, 0);
	ok(got_op(&p, RST), "another type than streams");
	send_raw(3, 2, 1, 1, 1, RW, 0, 1, 0, NULL, 0, 500);
	ok(!got(&p), "data that is not there");
	is_u64(virtio_vsock_connections(v), 0, "nothing is left");
	is_u64(drv_status(&d), 0x0f, "the device lives");
}

static void test_many(void)
{
	uint32_t first_count;
	struct packet p;

	restart();
	first_count = asked_count;
	for (unsigned i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++)
		send_op(100 + i, 1, REQUEST, 1000, 0);
	is_u64(asked_count - first_count, VIRTIO_VSOCK_CONNECTIONS, "as many connections as there may be");
	send_op(99, 1, REQUEST, 1000, 0);
	ok(got_op(&p, RST) && p.dst_port == 99, "one more is refused");

	/* Resets for which there are no buffers: the driver stops itself. */
	drv_start(&d, VIRTIO_BIT(VIRTIO_F_VERSION_1), QUEUE);
	for (unsigned i = 0; i < 100; i++)
		send_op(i, 7, RW, 0, 0);
	is_u64(virtio_vsock_connections(v), 0, "a reset ends all connections");
	rx_next = 0;
	give_rx(60);
	for (unsigned i = 0; i < 100; i++)
		if (!got_op(&p, RST) || p.dst_port != i)
			ok(false, "reset %u", i);
	ok(!got(&p), "a driver without receive buffers gets its resets later, all of them");
}

/* A real host side: the line that a program sends, the broker, callers that say nothing. */
static void test_unix(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa_family_t); /* the kernel chooses an abstract name */
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), broker[2], fd, handed[2];
	struct virtio_vsock_config config;
	struct vsock_backend *real;
	struct packet p;
	uint8_t question[8];
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { question, 4 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };

	if (bind(listener, (struct sockaddr *)&addr, len) || listen(listener, 8) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, broker))
		abort();
	len = sizeof(addr);
	getsockname(listener, (struct sockaddr *)&addr, &len);
	rig_init(&rig);
	if (vsock_unix_create(rig.loop, listener, broker[0], &real))
		abort();
	config = (struct virtio_vsock_config){ rig.mem, rig.loop, real, 3 };
	v = virtio_vsock_create(&config);
	virtio_pci_attach(&rig.bus, RIG_DEVFN, v);
	drv_probe(&d, &rig);
	restart();

	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ok(connect(fd, (struct sockaddr *)&addr, len) == 0 && send(fd, "CONNECT 4", 9, 0) == 9, "a program connects");
	ok(!got(&p), "its line is not whole");
	ok(send(fd, "2\nhello", 7, 0) == 7 && got_op(&p, REQUEST) && p.dst_port == 42, "now it is");
	send_op(42, p.src_port, RESPONSE, 1000, 0);
	ok(got_op(&p, RW) && p.len == 5 && !memcmp(rig.mem->ram_base + p.data, "hello", 5), "what follows the line is the guest's");
	close(fd);
	for (const char *const *bad = (const char *const[]){ "\n", "CONNECT \n", "CONNECT 4294967295\n", "CONNECT -1\n", "CONNECT 1 2\n",
							     "connect 1\n", "CONNECT 99999999999999999999999\n", "\x80\xff\n", NULL };
	     *bad; bad++) {
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		connect(fd, (struct sockaddr *)&addr, len);
		send(fd, *bad, strlen(*bad), 0);
		rig_run_loop(&rig);
		while (got(&p) && p.op != REQUEST)
			;
		ok(p.op != REQUEST && recv(fd, control, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN, "refused: %.20s",
		   **bad == '\n' || **bad < 0 ? "nonsense" : *bad);
		close(fd);
	}
	restart();

	send_op(7, 1234, REQUEST, 1000, 0);
	ok(recv(broker[1], question, 8, MSG_DONTWAIT) == 8 && load_le(question + 4, 4) == 1234, "the broker is asked");
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, handed))
		abort();
	{
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &handed[0], sizeof(int));
	}
	ok(sendmsg(broker[1], &msg, 0) == 4, "it answers with a socket");
	close(handed[0]);
	ok(got_op(&p, RESPONSE), "and the guest is connected");
	send_data(7, 1234, 0, "to the host", 11);
	ok(reads(handed[1], "to the host"), "through it");
	close(handed[1]);
	close(broker[1]);
	rig_run_loop(&rig);
	while (got(&p))
		;
	send_op(8, 1, REQUEST, 1000, 0);
	ok(got_op(&p, RST), "without a broker nobody is there");
	pci_bus_destroy_functions(&rig.bus);
	real->ops->destroy(real);
	rig_finish(&rig);
}

int main(void)
{
	struct virtio_vsock_config config;

	rig_init(&rig);
	be.ops = &fake_ops;
	config = (struct virtio_vsock_config){ rig.mem, rig.loop, &be, 3 };
	v = virtio_vsock_create(&config);
	virtio_pci_attach(&rig.bus, RIG_DEVFN, v);
	drv_probe(&d, &rig);
	test_guest_connects();
	test_host_connects();
	test_limit();
	test_lies();
	test_many();
	rig_finish(&rig);
	ok(!be.client.incoming, "the back end is let go");
	test_unix();
	return done_testing();
}
