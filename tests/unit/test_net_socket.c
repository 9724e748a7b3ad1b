// SPDX-License-Identifier: Apache-2.0
/* The socket network back end: both directions, a card without room, a full socket, a bad or lost peer. */
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/net.h"
#include "tests/tap.h"
#include "tests/unit/spin.h"

struct card {
	unsigned room, frames, bad;
	uint32_t next; /* the number in the frame that comes next */
};

static void put_frame(uint8_t *f, size_t len, uint32_t number)
{
	memset(f, (int)number, len);
	memcpy(f + 14, &number, 4);
}

static bool card_receive(void *opaque, const void *frame, size_t len)
{
	struct card *c = opaque;
	uint32_t number;

	if (c->room == 0)
		return false;
	c->room--;
	memcpy(&number, (const uint8_t *)frame + 14, 4);
	c->bad += number != c->next++ || len != 60 + number % 1400;
	c->frames++;
	return true;
}

static struct error *make(struct loop *loop, struct card *card, int *peer, struct net_backend **be)
{
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) < 0)
		exit(1);
	struct error *err = net_socket_create(loop, fd[0], be);

	int bytes = 100000; /* whatever the host allows: one that is soon full */

	setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	*peer = fd[1];
	if (!err)
		(*be)->client = (struct net_client){ card_receive, card };
	return err;
}

static void test_receive(struct loop *loop)
{
	struct card card = { .room = 1000 };
	struct net_backend *be;
	uint8_t f[2000], *big = calloc(1, NET_FRAME_MAX + 1);
	uint32_t sent = 0;
	int peer;

	ok(!make(loop, &card, &peer, &be), "made");
	for (; sent < 100; sent++) {
		put_frame(f, 60 + sent % 1400, sent);
		send(peer, f, 60 + sent % 1400, 0);
	}
	spin(loop, 20);
	is_u64(card.frames, 100, "100 frames for the card");
	send(peer, "short", 5, 0);
	/* Larger than any frame: not cut off but dropped. The kernel may refuse it to begin with. */
	if (send(peer, big, NET_FRAME_MAX + 1, MSG_DONTWAIT) < 0)
		diag("the socket takes no frame of that size");
	card.room = 10;
	while (sent < 150) {
		put_frame(f, 60 + sent % 1400, sent);
		send(peer, f, 60 + sent % 1400, 0);
		sent++;
	}
	spin(loop, 20);
	is_u64(card.frames, 110, "as many as the card has room for; bad ones are dropped");
	card.room = 1000;
	spin(loop, 20);
	is_u64(card.frames, 110, "nothing before the card says that it has room");
	net_resume(be);
	is_u64(card.frames, 110, "nothing is delivered inside resume");
	spin(loop, 20);
	is_u64(card.frames, 150, "the rest after resume");
	is_u64(card.bad, 0, "all whole and in order");
	ok(be->counters.to_guest == 150 && be->counters.to_guest_waits == 1 && be->counters.to_guest_dropped >= 1 &&
		   be->counters.to_guest_dropped <= 2,
	   "counted: 150 taken, one wait, what was too short or too long dropped");
	is_u64(be->counters.to_guest_bytes, 150 * 60 + 149 * 150 / 2, "and the bytes of those taken");
	be->ops->destroy(be);
	close(peer);
	free(big);
}

static void test_send(struct loop *loop)
{
	struct card card = { 0 };
	struct net_backend *be;
	uint8_t f[2000], got[2000];
	unsigned received = 0, bad = 0;
	ssize_t len;
	int peer;

	ok(!make(loop, &card, &peer, &be), "made");
	/* More than the socket holds and less than is kept. */
	for (uint32_t i = 0; i < 600; i++) {
		struct iovec iov[2] = { { f, 10 }, { f + 10, 1490 } };

		put_frame(f, 1500, i);
		net_send(be, iov, 2);
	}
	for (unsigned idle = 0; idle < 3; idle++) {
		while ((len = recv(peer, got, sizeof(got), MSG_DONTWAIT)) > 0) {
			put_frame(f, 1500, received++);
			bad += len != 1500 || memcmp(f, got, 1500) != 0;
			idle = 0;
		}
		spin(loop, 5);
	}
	is_u64(received, 600, "600 frames for the peer, through a full socket");
	is_u64(bad, 0, "all whole and in order");
	ok(be->counters.from_guest == 600 && be->counters.from_guest_waits > 0 && be->counters.from_guest_waits < 600 &&
		   !be->counters.from_guest_dropped,
	   "counted: 600 sent, of which %u had to wait", (unsigned)be->counters.from_guest_waits);
	is_u64(be->counters.from_guest_bytes, 600 * 1500, "and their bytes");
	for (uint32_t i = 0; i < 100000; i++) {
		struct iovec iov = { f, 1500 };

		net_send(be, &iov, 1);
	}
	ok(be->counters.from_guest_dropped > 90000, "a peer that takes nothing does not block us: %u frames are dropped",
	   (unsigned)be->counters.from_guest_dropped);
	close(peer);
	spin(loop, 5);
	for (unsigned i = 0; i < 3; i++) {
		struct iovec iov = { f, 1500 };

		net_send(be, &iov, 1);
	}
	spin(loop, 5);
	is_u64(be->counters.from_guest + be->counters.from_guest_dropped, 100603, "nor does one that is gone: all are dropped");
	be->ops->destroy(be);
}

static void test_wrong_socket(struct loop *loop)
{
	struct net_backend *be;
	struct error *err;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) < 0)
		exit(1);
	err = net_socket_create(loop, fd[0], &be);
	ok(err && strstr(error_message(err), "SOCK_SEQPACKET"), "another kind of socket is refused");
	error_free(err);
	close(fd[0]);
	close(fd[1]);
}

int main(void)
{
	struct loop *loop;
	struct error *err = loop_create(&loop);

	if (err)
		return 1;
	test_receive(loop);
	test_send(loop);
	test_wrong_socket(loop);
	loop_destroy(loop);
	return done_testing();
}
