// SPDX-License-Identifier: Apache-2.0
/* Character back ends: descriptors of every kind, a Unix socket, slow sides, the end of either side. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/tap.h"
#include "tests/unit/spin.h"
#include "ui/chardev.h"

struct chip {
	size_t room, got;
	uint8_t buf[65536];
};

static size_t chip_can_receive(void *opaque)
{
	return ((struct chip *)opaque)->room;
}

static void chip_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct chip *c = opaque;

	if (len > c->room)
		exit(1);
	memcpy(c->buf + c->got, buf, len);
	c->got += len;
	c->room -= len;
}

static struct chardev *make(struct loop *loop, int in, int out, struct chip *chip)
{
	struct chardev *chr = NULL;
	struct error *err = chardev_fd_create(loop, in, out, &chr);

	if (!ok(!err, "made")) {
		diag("%s", error_message(err));
		exit(1);
	}
	chr->client = (struct chardev_client){ .can_receive = chip_can_receive, .receive = chip_receive, .opaque = chip };
	return chr;
}

static void test_pipe(struct loop *loop)
{
	struct chip chip = { .room = 5 };
	struct chardev *chr;
	char buf[16] = "";
	int in[2], out[2];

	if (pipe(in) < 0 || pipe(out) < 0)
		exit(1);
	chr = make(loop, in[0], out[1], &chip);
	ok(write(in[1], "hello world", 11) == 11, "typed");
	spin(loop, 10);
	is_u64(chip.got, 5, "no more than the chip has room for");
	chip.room = 100;
	chardev_resume(chr);
	is_u64(chip.got, 5, "nothing inside resume");
	spin(loop, 10);
	ok(chip.got == 11 && memcmp(chip.buf, "hello world", 11) == 0, "the rest after it");
	chardev_write(chr, (const uint8_t *)"prompt", 6);
	ok(read(out[0], buf, sizeof(buf)) == 6 && memcmp(buf, "prompt", 6) == 0, "output is there at once");
	close(in[1]);
	spin(loop, 10);
	chardev_write(chr, (const uint8_t *)"x", 1);
	ok(read(out[0], buf, sizeof(buf)) == 1, "output goes on after the end of input");
	ok((fcntl(in[0], F_GETFL) & O_NONBLOCK) == 0 && (fcntl(out[1], F_GETFL) & O_NONBLOCK) == 0,
	   "the descriptors are as they were");
	close(out[0]);
	chardev_write(chr, (const uint8_t *)"lost", 4);
	spin(loop, 10);
	chardev_write(chr, (const uint8_t *)"lost", 4);
	ok(true, "output to nobody is no trouble");
	chardev_destroy(chr);
	close(in[0]);
	close(out[1]);
}

/* Much output to a reader that sleeps: nothing blocks, and what is lost is the oldest that waits. */
static void test_slow_reader(struct loop *loop)
{
	static uint8_t line[1000], all[1024 * 1024];
	struct chip chip = { 0 };
	struct chardev *chr;
	size_t got = 0;
	ssize_t n;
	int out[2];

	if (pipe(out) < 0)
		exit(1);
	chr = make(loop, -1, out[1], &chip);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf((char *)line, sizeof(line), "%-998u", i);
		line[998] = '\n';
		chardev_write(chr, line, 999);
	}
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	for (unsigned idle = 0; idle < 5; idle++) {
		while ((n = read(out[0], all + got, sizeof(all) - got)) > 0) {
			got += (size_t)n;
			idle = 0;
		}
		spin(loop, 5);
	}
	ok(got >= 256 * 1024 && got < 999000, "%zu bytes arrived", got);
	ok(memcmp(all, "0 ", 2) == 0, "the first line");
	ok(got > 999 && memcmp(all + got - 999, "999 ", 4) == 0, "the last line");
	chardev_destroy(chr);
	close(out[0]);
	close(out[1]);
}

static void test_files(struct loop *loop)
{
	struct chip chip = { .room = sizeof(chip.buf) };
	char path[] = "/tmp/maru-test-chr-XXXXXX", buf[8];
	int fd = mkstemp(path), null = open("/dev/null", O_RDWR);
	struct chardev *chr;

	unlink(path);
	for (unsigned i = 0; i < 10000; i++)
		if (write(fd, "ab\n", 3) != 3)
			exit(1);
	lseek(fd, 0, SEEK_SET);
	chr = make(loop, fd, null, &chip);
	chardev_write(chr, (const uint8_t *)"gone", 4);
	spin(loop, 30);
	is_u64(chip.got, 30000, "input from a file, output to /dev/null");
	chardev_destroy(chr);
	if (ftruncate(fd, 0) < 0)
		exit(1);
	lseek(fd, 0, SEEK_SET);
	chr = make(loop, null, fd, &chip);
	chardev_write(chr, (const uint8_t *)"kept", 4);
	spin(loop, 5);
	chardev_destroy(chr);
	ok(pread(fd, buf, 8, 0) == 4 && memcmp(buf, "kept", 4) == 0, "input from /dev/null, output to a file");
	/* One descriptor for both directions, as a terminal. */
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		exit(1);
	chip.got = 0;
	chip.room = 10;
	chr = make(loop, pair[0], pair[0], &chip);
	chardev_write(chr, (const uint8_t *)"out", 3);
	ok(write(pair[1], "in", 2) == 2 && read(pair[1], buf, 8) == 3, "one descriptor, out");
	spin(loop, 5);
	is_u64(chip.got, 2, "and in");
	chardev_destroy(chr);
	close(pair[0]);
	close(pair[1]);
	close(null);
	close(fd);
	chardev_destroy(NULL);
}

static int dial(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0)
		exit(1);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void test_socket(struct loop *loop)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct chip chip = { .room = 4 };
	struct chardev *chr = NULL;
	char buf[64];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), one, two;

	snprintf(a.sun_path, sizeof(a.sun_path), "/tmp/maru-test-chr-%d", getpid());
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4) < 0)
		exit(1);
	ok(!chardev_socket_create(loop, fd, &chr), "made");
	chr->client = (struct chardev_client){ .can_receive = chip_can_receive, .receive = chip_receive, .opaque = &chip };
	chardev_write(chr, (const uint8_t *)"early ", 6);
	one = dial(&a);
	two = dial(&a);
	spin(loop, 10);
	chardev_write(chr, (const uint8_t *)"late", 4);
	spin(loop, 10);
	ok(read(one, buf, sizeof(buf)) == 10 && memcmp(buf, "early late", 10) == 0,
	   "a client sees what came before it");
	ok(read(two, buf, sizeof(buf)) < 0 && errno == EAGAIN, "a second one waits");
	ok(write(one, "typed text", 10) == 10, "typed");
	close(one); /* while the chip has no room for all of it */
	spin(loop, 10);
	is_u64(chip.got, 4, "no more than the chip has room for");
	chip.room = 100;
	chardev_resume(chr);
	spin(loop, 20);
	ok(chip.got == 10 && memcmp(chip.buf, "typed text", 10) == 0, "the rest after resume");
	chardev_write(chr, (const uint8_t *)"next", 4);
	spin(loop, 10);
	ok(read(two, buf, sizeof(buf)) == 4 && memcmp(buf, "next", 4) == 0, "then the second has its turn");
	chardev_destroy(chr);
	is_u64((uint64_t)read(two, buf, sizeof(buf)), 0, "hung up at the end");
	close(two);
	unlink(a.sun_path);
}

int main(void)
{
	struct loop *loop;
	struct error *err = loop_create(&loop);

	if (err)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	test_pipe(loop);
	test_slow_reader(loop);
	test_files(loop);
	test_socket(loop);
	loop_destroy(loop);
	return done_testing();
}
