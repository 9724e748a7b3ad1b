// SPDX-License-Identifier: Apache-2.0
/* What a VM talks through: serial port, debug console, control socket, debugger, named ports. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/client.h"
#include "cli/run.h"

#define NUMBERS 100u /* behind the names of VMs of one image */

struct error *run_socket_pair(int type, int *ours, int *theirs)
{
	int pair[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(errno, "cannot make a pair of sockets");
	*ours = pair[0];
	*theirs = pair[1];
	return NULL;
}

struct error *run_listen(struct run *r, const char *option, const char *path, int *fd)
{
	struct error *err = guard_listen(&r->guard, option, path, fd);

	if (!err)
		spawn_add_fd(&r->vm_fds, *fd);
	return err;
}

static struct error *open_output(struct run *r, const char *option, const char *path, int *fd)
{
	*fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
	if (*fd < 0)
		return error_errno(errno, "%s: cannot write '%s'", option, path);
	spawn_add_fd(&r->vm_fds, *fd);
	return NULL;
}

struct error *run_give_serial(struct run *r)
{
	struct error *err = NULL;
	int fd;

	switch (r->o.serial) {
	case SERIAL_NONE:
		return NULL;
	case SERIAL_STDIO:
		err = run_socket_pair(SOCK_STREAM, &r->serial_fd, &fd);
		if (err)
			return err;
		spawn_add_fd(&r->vm_fds, fd);
		json_object_set_new(r->config, "serial", json_pack("{s:i}", "fd", fd));
		return NULL;
	case SERIAL_FILE:
		err = open_output(r, "--serial", r->o.serial_path, &fd);
		if (!err)
			json_object_set_new(r->config, "serial", json_pack("{s:i}", "out_fd", fd));
		return err;
	case SERIAL_UNIX:
		err = run_listen(r, "--serial", r->o.serial_path, &fd);
		if (!err)
			json_object_set_new(r->config, "serial", json_pack("{s:i}", "listen_fd", fd));
		return err;
	}
	return NULL;
}

struct error *run_give_debugcon(struct run *r)
{
	struct error *err;
	int fd;

	if (!r->o.debugcon)
		return NULL;
	err = open_output(r, "--debugcon", r->o.debugcon, &fd);
	if (!err)
		json_object_set_new(r->config, "debugcon", json_pack("{s:i}", "fd", fd));
	return err;
}

/* A link from @name's place among the running VMs to the socket that --control, with @suffix behind it, asked for. */
static struct error *link_to(struct run *r, const char *suffix, const char *path)
{
	char target[2 * PATH_MAX], folder[PATH_MAX];

	if (*r->o.control == '/')
		*folder = 0;
	else if (!getcwd(folder, sizeof(folder)))
		return error_errno(errno, "cannot find out the current folder");
	snprintf(target, sizeof(target), "%s%s%s%s", folder, *folder ? "/" : "", r->o.control, suffix);
	return guard_link(&r->guard, target, path);
}

/* Takes @name's place among the running VMs, by a socket there (*@fd) or by a link to that of --control. */
static struct error *register_as(struct run *r, const char *name, int *fd)
{
	struct error *err = client_socket_path(name, true, r->control_path, sizeof(r->control_path));

	if (!err && r->o.control)
		return link_to(r, "", r->control_path);
	if (!err)
		err = guard_clear_link(r->control_path);
	return err ? err : run_listen(r, "--name", r->control_path, fd);
}

/* Until the descriptor *@fd is closed nobody else takes a name: two could find the same one left behind, and remove it one after the other. */
static struct error *lock_names(int *fd)
{
	char folder[PATH_MAX];
	struct error *err = client_folder(true, folder, sizeof(folder));

	if (err)
		return err;
	*fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd < 0 || flock(*fd, LOCK_EX) < 0)
		err = error_errno(errno, "cannot lock the folder '%s' of the control sockets of VMs", folder);
	return err;
}

/*
 * The name by which other commands find the VM. One that was asked for is the VM's alone; one that comes from the image gets a
 * number when another VM has it. A VM that cannot be found by a name runs all the same, if it was not asked for.
 */
static struct error *take_name(struct run *r, int *fd)
{
	const char *wanted = json_string_value(json_object_get(r->config, "name"));
	char name[RUN_NAME_MAX_BYTES + 1];
	int lock = -1;
	struct error *err = lock_names(&lock);

	snprintf(name, sizeof(name), "%s", wanted);
	if (!err)
		err = register_as(r, name, fd);
	for (unsigned i = 2; err && error_code(err) == EADDRINUSE && !r->o.name && i < NUMBERS; i++) {
		error_free(err);
		snprintf(name, sizeof(name), "%.*s-%u", (int)sizeof(name) - 4, wanted, i);
		err = register_as(r, name, fd);
	}
	if (lock >= 0)
		close(lock);
	if (!err) {
		json_object_set_new(r->config, "name", json_string(name));
		return NULL;
	}
	*r->control_path = 0;
	if (r->o.name && error_code(err) == EADDRINUSE) {
		error_free(err);
		return error_new("--name: a VM named '%s' is running already ('maru list' shows all); choose another name", name);
	}
	if (r->o.name && !r->o.control)
		return err;
	if (r->o.verbose)
		fprintf(stderr, "maru: this VM cannot be found by its name: %s\n", error_message(err));
	error_free(err);
	return NULL;
}

struct error *run_give_control(struct run *r)
{
	json_t *control = json_object();
	struct error *err;
	int fd;

	json_object_set_new(r->config, "control", control);
	err = run_socket_pair(SOCK_STREAM, &r->control_fd, &fd);
	if (err)
		return err;
	spawn_add_fd(&r->vm_fds, fd);
	json_object_set_new(control, "client_fd", json_integer(fd));
	fd = -1;
	if (r->o.control)
		err = run_listen(r, "--control", r->o.control, &fd);
	if (!err)
		err = take_name(r, &fd);
	if (!err && fd >= 0)
		json_object_set_new(control, "listen_fd", json_integer(fd));
	return err;
}

static struct error *listen_tcp(struct run *r, const char *where, int *out)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	const char *colon = strrchr(where, ':');
	char host[16];
	int one = 1, fd;

	snprintf(host, sizeof(host), "%.*s", (int)MIN(colon - where, 15), where);
	if (inet_pton(AF_INET, *host ? host : "127.0.0.1", &addr.sin_addr) != 1)
		return error_new("--gdb: '%s' is not an address", host);
	addr.sin_port = htons(strtoul(colon + 1, NULL, 10));
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_errno(errno, "--gdb: cannot make a socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0) {
		struct error *err = error_errno(errno, "--gdb: cannot listen at %s", where);

		close(fd);
		return err;
	}
	spawn_add_fd(&r->vm_fds, fd);
	*out = fd;
	return NULL;
}

struct error *run_give_gdb(struct run *r)
{
	struct error *err;
	int fd;

	if (!r->o.gdb)
		return NULL;
	if (!strncmp(r->o.gdb, "unix:", 5))
		err = run_listen(r, "--gdb", r->o.gdb + 5, &fd);
	else
		err = listen_tcp(r, r->o.gdb, &fd);
	if (!err)
		json_object_set_new(r->config, "gdb", json_pack("{s:i, s:b}", "listen_fd", fd, "wait", !r->o.gdb_nowait));
	return err;
}

static struct error *give_port(struct run *r, json_t *list, const char *name, const char *path)
{
	int fd;
	struct error *err = run_listen(r, "--port", path, &fd);

	if (!err)
		json_array_append_new(list, json_pack("{s:s, s:i}", "name", name, "listen_fd", fd));
	return err;
}

/* Named ports; the agent's is there without being asked for, if its socket has a place beside the control socket. */
struct error *run_give_ports(struct run *r)
{
	const char *control = r->o.control ? r->o.control : r->control_path;
	json_t *list = json_array();
	bool has_agent = false;
	struct error *err = NULL;

	json_object_set_new(r->config, "ports", list);
	for (unsigned i = 0; !err && i < r->o.port_count; i++) {
		has_agent |= !strcmp(r->o.ports[i].name, AGENT_PORT);
		err = give_port(r, list, r->o.ports[i].name, r->o.ports[i].path);
	}
	if (err || has_agent || !*control ||
	    (size_t)snprintf(r->agent_path, sizeof(r->agent_path), "%s%s", control, AGENT_SUFFIX) >= sizeof(r->agent_path))
		return err;
	if (!r->o.control)
		err = guard_clear_link(r->agent_path);
	if (!err)
		err = give_port(r, list, AGENT_PORT, r->agent_path);
	if (err || !r->o.control || !*r->control_path ||
	    (size_t)snprintf(r->agent_link, sizeof(r->agent_link), "%s%s", r->control_path, AGENT_SUFFIX) >= sizeof(r->agent_link))
		return err;
	return link_to(r, AGENT_SUFFIX, r->agent_link);
}
