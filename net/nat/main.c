// SPDX-License-Identifier: Apache-2.0
/*
 * maru-nat: the network of one VM as an ordinary program sees it, in a process of its own.
 *
 *	maru-nat --fd N --status-fd M [--hostname NAME] [--restrict] [--forward [ADDR:]HOSTPORT:GUESTPORT]…
 *
 * --fd N		a connected Unix SOCK_SEQPACKET socket, one Ethernet frame a packet; when its other end is
 *			closed, maru-nat ends
 * --status-fd M	written to once and closed: "ready\n", or "error: <sentence>\n" before it exits with 1
 * --forward		a TCP port of the host (on 127.0.0.1 unless ADDR says otherwise) goes to the guest's;
 *			bound when "ready" is written
 * --hostname		what DHCP tells the guest to call itself
 * --restrict		the guest reaches nothing; only forwards work
 *
 * The host's DNS server is looked up in /etc/resolv.conf before the sandbox is entered; there is no file
 * system in it. Without a server, only name resolution fails.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/log.h"
#include "base/stack.h"
#include "net/nat/nat.h"

#define RESOLV_CONF "/etc/resolv.conf"
#define DESCRIPTORS_MAX 4096 /* bounds the connections, and so the memory, of a guest */

/*
 * libslirp reads /etc/resolv.conf whenever a name is asked for, with stat() and fopen(), and has no other
 * way of being told. Inside the sandbox there are no files, so this program answers these two calls for
 * the whole process: with the copy made at the start, and with "no such file" for everything else.
 */
static char resolv_conf[16384];
static size_t resolv_conf_bytes;

static void read_resolv_conf(void)
{
	int fd = open(RESOLV_CONF, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? 0 : read(fd, resolv_conf, sizeof(resolv_conf));

	resolv_conf_bytes = got > 0 ? (size_t)got : 0;
	if (fd >= 0)
		close(fd);
}

FILE *fopen64(const char *path, const char *mode UNUSED)
{
	if (strcmp(path, RESOLV_CONF) != 0 || resolv_conf_bytes == 0) {
		errno = ENOENT;
		return NULL;
	}
	return fmemopen(resolv_conf, resolv_conf_bytes, "r");
}

int stat64(const char *restrict path, struct stat64 *restrict out)
{
	if (strcmp(path, RESOLV_CONF) != 0 || resolv_conf_bytes == 0) {
		errno = ENOENT;
		return -1;
	}
	*out = (struct stat64){ .st_ino = 1, .st_size = (off_t)resolv_conf_bytes };
	return 0;
}

/* The same under the names that a libslirp without large file support would use. */
FILE *fopen(const char *path, const char *mode)
{
	return fopen64(path, mode);
}

int stat(const char *restrict path, struct stat *restrict out)
{
	static_assert(sizeof(struct stat) == sizeof(struct stat64), "one layout on x86-64");
	return stat64(path, (struct stat64 *)out);
}

/* By write(2) alone: stdio would ask for the descriptor's status, which the sandbox does not allow. */
static void report(int status_fd, struct error *err)
{
	char line[1024] = "ready\n";

	if (status_fd < 0) {
		if (err)
			log_error("%s", error_message(err));
		return;
	}
	if (err)
		snprintf(line, sizeof(line), "error: %.1000s\n", error_message(err));
	if (write(status_fd, line, strlen(line)) < 0)
		log_warn("nobody waits for the network to be ready");
	close(status_fd);
}

static struct error *parse(int argc, char **argv, struct nat_config *config, int *status_fd)
{
	struct error *err = NULL;

	for (int i = 1; i < argc && !err; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--restrict") == 0) {
			config->restricted = true;
			continue;
		}
		if (strcmp(argv[i], "--fd") == 0) {
			err = descriptor_parse(argv[i], value, &config->fd);
		} else if (strcmp(argv[i], "--status-fd") == 0) {
			err = descriptor_parse(argv[i], value, status_fd);
		} else if (strcmp(argv[i], "--hostname") == 0 && value) {
			config->hostname = value;
		} else if (strcmp(argv[i], "--forward") == 0 && value) {
			if (config->forward_count == NAT_FORWARDS_MAX)
				return error_new("more than %d ports cannot be published",
						 NAT_FORWARDS_MAX);
			err = nat_forward_parse(value, &config->forward[config->forward_count++]);
		} else {
			err = error_new("maru-nat does not know the option '%s', or it lacks its value",
					argv[i]);
		}
		i++;
	}
	if (!err && config->fd < 0)
		err = error_new("maru-nat is started by maru; it needs --fd");
	return err;
}

static int program(int argc, char **argv)
{
	static struct nat_config config = { .fd = -1 };
	struct rlimit files;
	struct nat *nat = NULL;
	int status_fd = -1;
	struct error *err;

	log_init("maru-nat", LOG_LEVEL_WARN);
	signal(SIGPIPE, SIG_IGN);
	/* The VM decides when it is over, not a key on the terminal that it was started from. */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	err = parse(argc, argv, &config, &status_fd);
	if (!err) {
		descriptor_close_others((const int[]){ config.fd, status_fd }, 2);
		if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
			files.rlim_cur = MIN(files.rlim_max, DESCRIPTORS_MAX);
			setrlimit(RLIMIT_NOFILE, &files);
		}
		read_resolv_conf();
		err = nat_create(&config, &nat);
	}
	if (!err)
		err = nat_sandbox_enter();
	if (err) {
		report(status_fd, err);
		error_free(err);
		nat_destroy(nat);
		return 1;
	}
	report(status_fd, NULL);
	nat_run(nat);
	_exit(0); /* nothing to save, and little that the sandbox would let us do */
}

int main(int argc, char **argv)
{
	return stack_run(program, argc, argv);
}
