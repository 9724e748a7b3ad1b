// SPDX-License-Identifier: Apache-2.0
/*
 * maru-share: one folder of the host for one VM, in a process of its own.
 *
 *	maru-share --fd N --dir-fd M [--readonly]
 *
 * --fd N	a connected Unix SOCK_SEQPACKET socket to the VM's 9P device. A packet is a number of four bytes that is given
 *		back in front of the reply, and a request; without a request it is the device's reset. When the other
 *		end is closed, maru-share ends
 * --dir-fd M	the folder
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "share/share.h"

#define ID_BYTES 4u
#define DESCRIPTORS_MAX 16384u /* bounds what the guest can keep open */
#define DESCRIPTORS_OURS 64u

static struct error *number(const char *option, const char *text, int *out)
{
	char *end;
	long v = text ? strtol(text, &end, 10) : -1;

	if (v < 0 || v > INT32_MAX || *end)
		return error_new("%s needs the number of a descriptor", option);
	*out = (int)v;
	return NULL;
}

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
			err = number(argv[i], value, argv[i][2] == 'f' ? fd : dir_fd), i++;
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
		return DESCRIPTORS_OURS;
	files.rlim_cur = MIN(files.rlim_max, DESCRIPTORS_MAX);
	setrlimit(RLIMIT_NOFILE, &files);
	/* Each may be open twice: as a name, and for reading or writing. */
	return files.rlim_cur > 2 * DESCRIPTORS_OURS ? (unsigned)(files.rlim_cur - DESCRIPTORS_OURS) / 2 : DESCRIPTORS_OURS / 2;
}

static void serve(struct share *s, int fd)
{
	static uint8_t request[ID_BYTES + SHARE_MESSAGE_MAX], reply[ID_BYTES + SHARE_MESSAGE_MAX];

	for (;;) {
		ssize_t n = recv(fd, request, sizeof(request), 0);
		size_t len;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)ID_BYTES)
			return;
		if (n == (ssize_t)ID_BYTES) {
			share_reset(s);
			continue;
		}
		len = share_handle(s, request + ID_BYTES, (size_t)n - ID_BYTES, reply + ID_BYTES);
		memcpy(reply, request, ID_BYTES);
		if (send(fd, reply, ID_BYTES + len, MSG_NOSIGNAL) < 0)
			return;
	}
}

int main(int argc, char **argv)
{
	int fd, dir_fd, fds_fd = -1;
	struct share *s = NULL;
	bool readonly;
	struct error *err;

	log_init("maru-share", LOG_LEVEL_WARN);
	err = parse(argc, argv, &fd, &dir_fd, &readonly);
	if (!err) {
		umask(0);
		fds_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fds_fd < 0)
			err = error_errno(errno, "/proc is needed to share a folder");
	}
	if (!err)
		err = share_create(dir_fd, fds_fd, readonly, raise_limit(), &s);
	if (!err)
		err = share_sandbox_enter(dir_fd, readonly);
	if (err) {
		log_error("%s", error_message(err));
		error_free(err);
		return 2;
	}
	serve(s, fd);
	share_destroy(s);
	return 0;
}
