// SPDX-License-Identifier: Apache-2.0
/*
 * maru-share: one folder of the host for one VM, in a process of its own.
 *
 *	maru-share --fd N --dir-fd M [--readonly]
 *
 * --fd N	a connected Unix SOCK_SEQPACKET socket to the VM's file system device, with the packets of base/share_link.h.
 *		When the other end is closed, or sends something else, maru-share ends
 * --dir-fd M	the folder
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/log.h"
#include "base/stack.h"
#include "base/util.h"
#include "share/share.h"

#define DESCRIPTORS_MAX 16384u /* bounds what the guest can keep open */
#define DESCRIPTORS_OURS 64u

static struct error *parse(int argc, char **argv, int *fd, int *dir_fd, bool *readonly)
{
	struct error *err = NULL;

	*fd = *dir_fd = -1;
	*readonly = false;
	for (int i = 1; i < argc && !err; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(argv[i], "--readonly"))
			*readonly = true;
		else if (!strcmp(argv[i], "--fd") || !strcmp(argv[i], "--dir-fd"))
			err = descriptor_parse(argv[i], value, argv[i][2] == 'f' ? fd : dir_fd), i++;
		else
			err = error_new("unknown option '%s'", argv[i]);
	}
	if (!err && (*fd < 0 || *dir_fd < 0))
		err = error_new("--fd and --dir-fd are needed: this program is started by maru run --share");
	return err;
}

/* As many descriptors as the limits allow, within reason; returns how many the guest may use up. */
static unsigned raise_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return SHARE_FDS_MIN;
	files.rlim_cur = MIN(files.rlim_max, DESCRIPTORS_MAX);
	setrlimit(RLIMIT_NOFILE, &files);
	return MAX((unsigned)files.rlim_cur, DESCRIPTORS_OURS + SHARE_FDS_MIN) - DESCRIPTORS_OURS;
}

/* ---- Messages ---- */

struct link {
	int fd;
	struct share *share;
	struct share_packet of; /* the request that is coming, as in its last packet */
	uint32_t received;
	uint8_t request[SHARE_MESSAGE_MAX], reply[SHARE_MESSAGE_MAX];
};

static bool send_reply(struct link *l, size_t len)
{
	for (size_t at = 0; at < len;) {
		struct share_packet packet = { .id = l->of.id, .total = (uint32_t)len, .offset = (uint32_t)at };
		struct iovec iov[2] = { { &packet, sizeof(packet) }, { l->reply + at, MIN(len - at, SHARE_PIECE_MAX) } };
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

		if (sendmsg(l->fd, &msg, MSG_NOSIGNAL) < 0)
			return false;
		at += iov[1].iov_len;
	}
	return true;
}

/* One packet. False: the end, or not the protocol. */
static bool serve(struct link *l)
{
	uint32_t expected = l->received == l->of.total ? 0 : l->received;
	struct iovec iov[2] = { { &l->of, sizeof(l->of) }, { l->request + expected, sizeof(l->request) - expected } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n = recvmsg(l->fd, &msg, 0);
	size_t piece, len;

	if (n < 0 && errno == EINTR)
		return true;
	if (n < (ssize_t)sizeof(l->of) || msg.msg_flags & MSG_TRUNC || l->of.total > SHARE_MESSAGE_MAX)
		return false;
	piece = (size_t)n - sizeof(l->of);
	if (!l->of.total) {
		share_reset(l->share);
		l->received = 0;
		return true;
	}
	if (l->of.offset != expected || !piece || expected >= l->of.total || piece > l->of.total - expected)
		return false;
	l->received = expected + (uint32_t)piece;
	if (l->received < l->of.total)
		return true;
	len = share_handle(l->share, l->request, l->of.total, l->reply, l->of.room);
	return send_reply(l, len);
}

static int program(int argc, char **argv)
{
	static struct link link;
	int dir_fd, fds_fd = -1;
	bool readonly;
	struct error *err;

	log_init("maru-share", LOG_LEVEL_WARN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of what the guest asks for */
	err = parse(argc, argv, &link.fd, &dir_fd, &readonly);
	if (!err) {
		descriptor_close_others((const int[]){ link.fd, dir_fd }, 2);
		umask(0);
		fds_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fds_fd < 0)
			err = error_errno(errno, "/proc is needed to share a folder");
	}
	if (!err)
		err = share_create(dir_fd, fds_fd, readonly, raise_limit(), &link.share);
	if (!err)
		err = share_sandbox_enter(dir_fd, readonly);
	if (err) {
		log_error("%s", error_message(err));
		error_free(err);
		return 2;
	}
	while (serve(&link))
		;
	share_destroy(link.share);
	return 0;
}

int main(int argc, char **argv)
{
	return stack_run(program, argc, argv);
}
