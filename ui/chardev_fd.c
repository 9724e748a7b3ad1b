// SPDX-License-Identifier: Apache-2.0
/*
 * A character back end on two descriptors: standard input and output, a file, a pipe.
 *
 * Theory of operation. Output goes out at once while the other side takes it; what it does not take is
 * kept in a ring that drops its oldest bytes when it is full (outbuf.h). Input is read only while the
 * chip has room, so a fast typist (or a file) waits in the kernel and loses nothing.
 *
 * The descriptors may be shared with other processes (a terminal), so they are not made non-blocking.
 * For output a terminal or pipe is opened anew, non-blocking for us alone, by way of /proc; where that
 * is not possible poll() is asked before each write, and writes are short. What epoll refuses (regular
 * files, /dev/null) is always ready: it is written without asking and read by a timer.
 *
 * Threading: the loop's monitor.
 */
#include "ui/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "ui/outbuf.h"

#define IN_CHUNK 4096u
#define OUT_CHUNK 512u	      /* POSIX: PIPE_BUF is at least this */
#define OUT_PER_WAKEUP 65536u /* then the loop has its turn */
#define LAST_WORDS_MS 1000

struct chardev_fd {
	struct chardev chr;
	struct loop *loop;
	int in_fd, out_fd; /* our own; -1: none, or no more */
	bool out_blocks;   /* a write that is not asked for may block */
	bool in_watched, out_watched;
	struct loop_fd in_watch, out_watch;
	struct loop_timer in_timer; /* resumes input from the loop */
	struct outbuf out;
};

static void stop_input(struct chardev_fd *c)
{
	if (c->in_watched)
		loop_fd_remove(&c->in_watch);
	c->in_watched = false;
	if (c->in_fd >= 0)
		close(c->in_fd);
	c->in_fd = -1;
}

/* True: there may be more at once. */
static bool read_some(struct chardev_fd *c)
{
	struct pollfd p = { .fd = c->in_fd, .events = POLLIN };
	uint8_t buf[IN_CHUNK];
	size_t room;
	ssize_t got;

	if (c->in_fd < 0)
		return false;
	room = c->chr.client.receive ? c->chr.client.can_receive(c->chr.client.opaque) : 0;
	room = MIN(room, sizeof(buf));
	if (room == 0) {
		if (c->in_watched)
			loop_fd_set_events(&c->in_watch, 0);
		return false; /* until resume */
	}
	/* Another process may have read what woke us. */
	if (c->in_watched && poll(&p, 1, 0) <= 0)
		return false;
	got = read(c->in_fd, buf, room);
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (got <= 0) {
		stop_input(c); /* the end; or the terminal is gone */
		return false;
	}
	c->chr.client.receive(c->chr.client.opaque, buf, (size_t)got);
	return true;
}

static void on_in_ready(void *opaque, uint32_t events UNUSED)
{
	read_some(opaque);
}

static void on_in_timer(void *opaque)
{
	struct chardev_fd *c = opaque;

	if (c->in_watched)
		loop_fd_set_events(&c->in_watch, EPOLLIN);
	if (read_some(c) && !c->in_watched)
		loop_timer_arm(&c->in_timer, 0);
}

static void fd_resume(struct chardev *chr)
{
	struct chardev_fd *c = container_of(chr, struct chardev_fd, chr);

	/* Not from here: the chip is in the middle of something. */
	if (c->in_fd >= 0 && (!c->in_watched || c->in_watch.events == 0))
		loop_timer_arm(&c->in_timer, 0);
}

static void stop_output(struct chardev_fd *c)
{
	if (c->out_watched)
		loop_fd_remove(&c->out_watch);
	c->out_watched = false;
	if (c->out_fd >= 0)
		close(c->out_fd);
	c->out_fd = -1;
	outbuf_clear(&c->out);
}

/* Writes what the other side takes without waiting. */
static void write_some(struct chardev_fd *c)
{
	size_t done = 0;

	while (c->out_fd >= 0 && c->out.used > 0 && done < OUT_PER_WAKEUP) {
		struct pollfd p = { .fd = c->out_fd, .events = POLLOUT };
		const uint8_t *from;
		size_t len = outbuf_peek(&c->out, &from);
		ssize_t put;

		if (c->out_blocks) {
			len = MIN(len, OUT_CHUNK);
			if (poll(&p, 1, 0) <= 0)
				break;
		}
		put = write(c->out_fd, from, len);
		if (put < 0 && (errno == EINTR || errno == EAGAIN))
			break;
		if (put <= 0) {
			log_warn("the console's output is lost from now on: %s",
				 put < 0 ? strerror(errno) : "it takes nothing");
			stop_output(c);
			return;
		}
		outbuf_consume(&c->out, (size_t)put);
		done += (size_t)put;
	}
	if (c->out_watched)
		loop_fd_set_events(&c->out_watch, c->out.used ? (uint32_t)EPOLLOUT : 0);
}

static void on_out_ready(void *opaque, uint32_t events UNUSED)
{
	write_some(opaque);
}

static void fd_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	struct chardev_fd *c = container_of(chr, struct chardev_fd, chr);
	bool was_empty = c->out.used == 0;

	if (c->out_fd < 0)
		return;
	outbuf_add(&c->out, buf, len);
	if (was_empty)
		write_some(c); /* otherwise it is being waited for */
}

static void fd_destroy(struct chardev *chr)
{
	struct chardev_fd *c = container_of(chr, struct chardev_fd, chr);
	uint64_t deadline = loop_now_ns() + LAST_WORDS_MS * NS_PER_MS;

	while (c->out_fd >= 0 && c->out.used > 0 && loop_now_ns() < deadline) {
		struct pollfd p = { .fd = c->out_fd, .events = POLLOUT };

		poll(&p, 1, 20);
		write_some(c);
	}
	stop_input(c);
	stop_output(c);
	loop_timer_cancel(&c->in_timer);
	outbuf_finish(&c->out);
	free(c);
}

static const struct chardev_ops fd_ops = {
	.name = "fd",
	.write = fd_write,
	.resume = fd_resume,
	.destroy = fd_destroy,
};

/* A descriptor for writing to what @fd refers to. *blocks: writing may block. */
static int open_output(int fd, bool *blocks)
{
	struct stat st;
	char path[32];
	int own = -1;

	*blocks = false;
	if (fstat(fd, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode))) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	if (own >= 0)
		return own;
	*blocks = !S_ISREG(st.st_mode);
	return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/* Attaches @w; *watched is false for what epoll refuses because it is always ready. */
static struct error *watch(struct chardev_fd *c, struct loop_fd *w, int fd, uint32_t events,
			   void (*ready)(void *, uint32_t), bool *watched)
{
	struct error *err = loop_fd_add(c->loop, w, fd, events, ready, c);

	*watched = !err;
	if (err && error_code(err) == EPERM) {
		error_free(err);
		err = NULL;
	}
	return err;
}

struct error *chardev_fd_create(struct loop *loop, int in_fd, int out_fd, struct chardev **out)
{
	struct chardev_fd *c = calloc(1, sizeof(*c));
	struct error *err = NULL;

	if (!c || !outbuf_init(&c->out)) {
		free(c);
		return error_new("out of memory making a console");
	}
	c->chr.ops = &fd_ops;
	c->loop = loop;
	c->in_fd = in_fd < 0 ? -1 : fcntl(in_fd, F_DUPFD_CLOEXEC, 0);
	c->out_fd = out_fd < 0 ? -1 : open_output(out_fd, &c->out_blocks);
	loop_timer_init(loop, &c->in_timer, on_in_timer, c);
	if ((in_fd >= 0 && c->in_fd < 0) || (out_fd >= 0 && c->out_fd < 0))
		err = error_errno(errno, "cannot open the console");
	if (!err && c->in_fd >= 0)
		err = watch(c, &c->in_watch, c->in_fd, EPOLLIN, on_in_ready, &c->in_watched);
	if (!err && c->out_fd >= 0)
		err = watch(c, &c->out_watch, c->out_fd, 0, on_out_ready, &c->out_watched);
	if (err) {
		fd_destroy(&c->chr);
		return err;
	}
	if (c->in_fd >= 0 && !c->in_watched)
		loop_timer_arm(&c->in_timer, 0);
	*out = &c->chr;
	return NULL;
}
