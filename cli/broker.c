// SPDX-License-Identifier: Apache-2.0
/*
 * The broker; see broker.h.
 *
 * Whoever has taken over the VM's process can ask for any number behind one name, as the guest can, and for nothing
 * else. A question that is not of eight bytes ends the broker. It never waits for a socket's other side.
 */
#include "cli/broker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/util.h"
#include "cli/client.h"

/* A connected socket, or -1. */
static int connect_to(const char *path, uint32_t port)
{
	char full[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	int n = snprintf(full, sizeof(full), "%s_%u", path, port);

	return n < 0 || (size_t)n >= sizeof(full) ? -1 : client_dial(full);
}

static bool answer(int to, const uint8_t *id, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .space = { 0 } };
	struct iovec iov = { (void *)id, 4 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
	}
	do {
		n = sendmsg(to, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n == 4;
}

static void serve(int fd, const char *path)
{
	uint8_t question[8];

	for (;;) {
		ssize_t n = recv(fd, question, sizeof(question), MSG_TRUNC);
		bool good;
		int found;

		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof(question))
			return;
		found = connect_to(path, (uint32_t)load_le(question + 4, 4));
		good = answer(fd, question, found);
		if (found >= 0)
			close(found);
		if (!good)
			return;
	}
}

struct error *broker_start(int fd, const char *path, pid_t *pid)
{
	*pid = fork();
	if (*pid < 0) {
		*pid = 0;
		return error_errno(errno, "--vsock: cannot start a process");
	}
	if (*pid > 0)
		return NULL;
	/* Keys on the terminal are not for us; the VM's end is what ends us. */
	setsid();
	for (int sig = 1; sig < 32; sig++)
		signal(sig, SIG_IGN);
	descriptor_close_others(&fd, 1);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	serve(fd, path);
	_exit(0);
}
