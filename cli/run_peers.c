// SPDX-License-Identifier: Apache-2.0
/* The processes beside a VM's: the network, the folders, the one that connects its sockets. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/broker.h"
#include "cli/run.h"

#define NAT_READY_MS 10000
#define END_MS 2000

/* What maru-nat says when it is ready, or why it is not. */
static struct error *await_nat(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char line[512];
	size_t used = 0;
	ssize_t n = 0;

	while (used < sizeof(line) - 1) {
		if (poll(&p, 1, NAT_READY_MS) <= 0)
			return error_new("the network process is not ready after %d s; '--net none' runs without a network", NAT_READY_MS / 1000);
		n = read(fd, line + used, sizeof(line) - 1 - used);
		if (n <= 0)
			break;
		used += n;
		if (line[used - 1] == '\n')
			break;
	}
	line[used] = 0;
	line[strcspn(line, "\n")] = 0;
	if (!strcmp(line, "ready"))
		return NULL;
	if (!strncmp(line, "error: ", 7))
		return error_new("the network cannot be started: %s", line + 7);
	return error_new("the network process ended without a word; '--net none' runs without a network");
}

struct error *run_give_network(struct run *r)
{
	char fd_text[16], status_text[16];
	const char *argv[RUN_PUBLISH_MAX * 2 + 8] = { "maru-nat", "--fd", fd_text, "--status-fd", status_text };
	struct spawn_fds fds = { .count = 0 };
	unsigned n = 5;
	int ours = -1, theirs = -1, status[2];
	struct error *err;

	if (r->o.net_none)
		return NULL;
	err = run_socket_pair(SOCK_SEQPACKET, &ours, &theirs);
	if (err)
		return err;
	spawn_add_fd(&r->vm_fds, ours);
	if (pipe2(status, O_CLOEXEC) < 0) {
		close(theirs);
		return error_errno(errno, "cannot make a pipe");
	}
	spawn_add_fd(&fds, theirs);
	spawn_add_fd(&fds, status[1]);
	snprintf(fd_text, sizeof(fd_text), "%d", theirs);
	snprintf(status_text, sizeof(status_text), "%d", status[1]);
	for (unsigned i = 0; i < r->o.publish_count; i++) {
		argv[n++] = "--forward";
		argv[n++] = r->o.publish[i];
	}
	err = spawn((char *const *)argv, &fds, &r->nat);
	spawn_close_fds(&fds);
	if (!err)
		err = await_nat(status[0]);
	close(status[0]);
	if (!err)
		json_object_set_new(r->config, "net", json_pack("{s:i, s:b}", "fd", ours, "offload", 1));
	return err;
}

struct error *run_give_vsock(struct run *r)
{
	int listen_fd, ours = -1, theirs = -1;
	struct error *err;

	if (!r->o.vsock)
		return NULL;
	err = run_listen(r, "--vsock", r->o.vsock, &listen_fd);
	if (err)
		return err;
	err = run_socket_pair(SOCK_SEQPACKET, &ours, &theirs);
	if (err)
		return err;
	spawn_add_fd(&r->vm_fds, theirs);
	json_object_set_new(r->config, "vsock", json_pack("{s:i, s:i}", "listen_fd", listen_fd, "broker_fd", theirs));
	err = broker_start(ours, r->o.vsock, &r->broker);
	close(ours);
	return err;
}

/* A folder, and the process that serves it. */
static struct error *give_share(struct run *r, json_t *list, const struct run_share *share, pid_t *pid)
{
	char fd_text[16], dir_text[16];
	const char *argv[] = { "maru-share", "--fd", fd_text, "--dir-fd", dir_text, share->readonly ? "--readonly" : NULL, NULL };
	int dir = open(share->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ours = -1, theirs = -1;
	struct spawn_fds fds = { .count = 0 };
	struct error *err;

	if (dir < 0)
		return error_errno(errno, "--share: cannot open the folder '%s'", share->path);
	spawn_add_fd(&fds, dir);
	err = run_socket_pair(SOCK_SEQPACKET, &ours, &theirs);
	if (!err) {
		spawn_add_fd(&r->vm_fds, ours);
		spawn_add_fd(&fds, theirs);
		snprintf(fd_text, sizeof(fd_text), "%d", theirs);
		snprintf(dir_text, sizeof(dir_text), "%d", dir);
		err = spawn((char *const *)argv, &fds, pid);
		json_array_append_new(list, json_pack("{s:s, s:i}", "tag", share->tag, "fd", ours));
	}
	spawn_close_fds(&fds);
	return err;
}

struct error *run_give_shares(struct run *r)
{
	json_t *list = json_array();
	struct error *err = NULL;

	json_object_set_new(r->config, "shares", list);
	for (unsigned i = 0; !err && i < r->o.share_count; i++)
		err = give_share(r, list, &r->o.shares[i], &r->shares[i]);
	return err;
}

void run_end_peers(struct run *r)
{
	if (r->nat)
		spawn_reap(r->nat, END_MS);
	for (unsigned i = 0; i < RUN_SHARES_MAX; i++)
		if (r->shares[i])
			spawn_reap(r->shares[i], END_MS);
	if (r->broker)
		spawn_reap(r->broker, END_MS);
}
