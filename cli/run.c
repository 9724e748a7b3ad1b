// SPDX-License-Identifier: Apache-2.0
/*
 * maru run: one VM, here and now.
 *
 * Theory of operation. Everything that needs a file, a port or a terminal is opened here, by the user's
 * rights; the VM process gets descriptors and a configuration that names them by number, and has a sandbox
 * around it. The network has a process of its own (maru-nat). We keep the terminal and relay (console.c), and
 * hold one control connection, whose end tells the VM that we are gone.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "block/image.h"
#include "cli/broker.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/console.h"
#include "cli/guard.h"
#include "cli/host.h"
#include "cli/options.h"
#include "cli/spawn.h"

#define EXIT_INTERNAL 6 /* as maru-vm's */
#define DEFAULT_MEMORY GiB
#define NAT_READY_MS 10000
#define NAT_END_MS 2000

struct run {
	struct run_options o;
	struct guest guest; /* all NULL without a guest of the catalogue */
	json_t *config;
	struct spawn_fds vm_fds;
	struct guard guard;
	int serial_fd, control_fd; /* our ends; -1: none */
	char control_path[108];	   /* of a socket that goes by the VM's name */
	char agent_path[108];
	pid_t vm, nat, broker;	   /* 0: not started */
	pid_t shares[RUN_SHARES_MAX];
};

/* ---- Opening what the VM gets -------------------------------------------------------------------- */

static struct error *give_engine(struct run *r)
{
	struct host_engine host;
	struct error *err = host_engine_choose(r->o.engine, &host);

	if (err)
		return err;
	if (r->o.verbose)
		fprintf(stderr, "maru: engine %s: %s\n", host.chosen, host.reason);
	json_object_set_new(r->config, "engine", json_string(host.chosen));
	json_object_set_new(r->config, "engine_reason", json_string(host.reason));
	if (host.kvm_fd < 0)
		return NULL;
	if (!strcmp(host.chosen, "kvm")) {
		spawn_add_fd(&r->vm_fds, host.kvm_fd);
		json_object_set_new(r->config, "kvm", json_pack("{s:i}", "fd", host.kvm_fd));
	} else {
		close(host.kvm_fd);
	}
	return NULL;
}

static struct error *give_file(struct run *r, const char *member, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return error_errno(errno, "--%s: cannot open '%s'", member, path);
	spawn_add_fd(&r->vm_fds, fd);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_new("--%s: '%s' is not a regular file", member, path);
	if (!st.st_size)
		return error_new("--%s: '%s' is empty", member, path);
	json_object_set_new(r->config, member, json_pack("{s:i, s:s}", "fd", fd, "name", path));
	if (!json_object_get(r->config, member))
		return error_new("--%s: the file name is not UTF-8", member);
	return NULL;
}

static struct error *give_payload(struct run *r)
{
	const struct run_options *o = &r->o;
	const char *kernel = o->kernel ? o->kernel : r->guest.kernel;
	const char *initrd = o->initrd ? o->initrd : o->kernel ? NULL : r->guest.initrd;
	struct error *err;
	char *append;

	if (!kernel)
		return error_new("booting from a disk's own boot loader needs firmware, which maru does not have yet: give --kernel FILE (and --initrd, --append 'root=/dev/vda1 console=ttyS0')");
	err = give_file(r, "kernel", kernel);
	if (!err && initrd)
		err = give_file(r, "initrd", initrd);
	if (err)
		return err;
	if (asprintf(&append, "%s%s%s", r->guest.append ? r->guest.append : "", r->guest.append && o->append ? " " : "",
		     o->append ? o->append : "") < 0)
		return error_errno(ENOMEM, "--append");
	json_object_set_new(r->config, "append", json_string(append));
	free(append);
	return json_object_get(r->config, "append") ? NULL : error_new("--append is not UTF-8 text");
}

static struct error *give_disk(struct run *r, json_t *list, const struct run_disk *d)
{
	struct block_open how = { .count = 0 };
	struct error *err = block_resolve_chain(d->path, d->backing, d->format, d->readonly, &how);
	json_t *chain;

	if (err)
		return err;
	chain = json_array();
	for (unsigned i = 0; i < how.count; i++) {
		spawn_add_fd(&r->vm_fds, how.chain[i].fd);
		json_array_append_new(chain, json_pack("{s:i, s:s}", "fd", how.chain[i].fd, "format",
						       block_format_name(how.chain[i].format)));
	}
	json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "name", d->path, "readonly", d->readonly, "chain", chain));
	return NULL;
}

static struct error *give_disks(struct run *r)
{
	json_t *list = json_array();
	struct error *err = NULL;

	json_object_set_new(r->config, "disks", list);
	for (unsigned i = 0; !err && i < r->guest.disk_count; i++) {
		struct run_disk d = { .path = r->guest.disks[i].path, .format = r->guest.disks[i].format };

		err = give_disk(r, list, &d);
	}
	for (unsigned i = 0; !err && i < r->o.disk_count; i++)
		err = give_disk(r, list, &r->o.disks[i]);
	if (!err && json_array_size(list) > RUN_DISKS_MAX)
		err = error_new("--disk: more than %u disks are not possible", RUN_DISKS_MAX);
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

static struct error *socket_pair(int type, int *ours, int *theirs)
{
	int pair[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(errno, "cannot make a pair of sockets");
	*ours = pair[0];
	*theirs = pair[1];
	return NULL;
}

static struct error *give_serial(struct run *r)
{
	struct error *err = NULL;
	int fd;

	switch (r->o.serial) {
	case SERIAL_NONE:
		return NULL;
	case SERIAL_STDIO:
		err = socket_pair(SOCK_STREAM, &r->serial_fd, &fd);
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
		err = guard_listen(&r->guard, "--serial", r->o.serial_path, &fd);
		if (err)
			return err;
		spawn_add_fd(&r->vm_fds, fd);
		json_object_set_new(r->config, "serial", json_pack("{s:i}", "listen_fd", fd));
		return NULL;
	}
	return NULL;
}

/*
 * The control socket that other commands find by the VM's name. A name that was asked for is the VM's alone; one
 * that comes from the image goes to the first VM that runs it.
 */
static struct error *listen_by_name(struct run *r, int *fd)
{
	const char *name = json_string_value(json_object_get(r->config, "name"));
	struct error *err = client_socket_path(name, true, r->control_path, sizeof(r->control_path));

	if (!err)
		err = guard_listen(&r->guard, "--name", r->control_path, fd);
	if (err && !r->o.name) {
		if (r->o.verbose)
			fprintf(stderr, "maru: this VM cannot be found by its name: %s\n", error_message(err));
		error_free(err);
		err = NULL;
		*r->control_path = 0;
		*fd = -1;
	}
	return err;
}

static struct error *give_control(struct run *r)
{
	json_t *control = json_object();
	struct error *err;
	int fd;

	json_object_set_new(r->config, "control", control);
	err = socket_pair(SOCK_STREAM, &r->control_fd, &fd);
	if (err)
		return err;
	spawn_add_fd(&r->vm_fds, fd);
	json_object_set_new(control, "client_fd", json_integer(fd));
	if (r->o.control)
		err = guard_listen(&r->guard, "--control", r->o.control, &fd);
	else
		err = listen_by_name(r, &fd);
	if (err || fd < 0)
		return err;
	spawn_add_fd(&r->vm_fds, fd);
	json_object_set_new(control, "listen_fd", json_integer(fd));
	return NULL;
}

static struct error *listen_tcp(const char *where, int *out)
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
	*out = fd;
	return NULL;
}

static struct error *give_gdb(struct run *r)
{
	struct error *err;
	int fd;

	if (!r->o.gdb)
		return NULL;
	if (!strncmp(r->o.gdb, "unix:", 5))
		err = guard_listen(&r->guard, "--gdb", r->o.gdb + 5, &fd);
	else
		err = listen_tcp(r->o.gdb, &fd);
	if (err)
		return err;
	spawn_add_fd(&r->vm_fds, fd);
	json_object_set_new(r->config, "gdb", json_pack("{s:i, s:b}", "listen_fd", fd, "wait", !r->o.gdb_nowait));
	return NULL;
}

/* Before the terminal is the guest's. */
static void say_how_to_debug(const struct run *r)
{
	const char *at = r->o.gdb;

	if (!at || r->o.gdb_nowait)
		return;
	fprintf(stderr, "maru: the VM waits at its first instruction for a debugger: gdb -ex 'target remote %s', then 'continue' (--gdb %s,wait=off does not wait)\n",
		strncmp(at, "unix:", 5) ? at : at + 5, at);
}

/* What maru-nat says when it is ready, or why it is not. */
static struct error *await_nat(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char line[512];
	size_t used = 0;
	ssize_t n = 0;

	while (used < sizeof(line) - 1 && poll(&p, 1, NAT_READY_MS) > 0) {
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

static struct error *give_network(struct run *r)
{
	char fd_text[16], status_text[16];
	const char *argv[RUN_PUBLISH_MAX * 2 + 8] = { "maru-nat", "--fd", fd_text, "--status-fd", status_text };
	struct spawn_fds fds = { .count = 0 };
	unsigned n = 5;
	int ours = -1, theirs = -1, status[2];
	struct error *err;

	if (r->o.net_none)
		return NULL;
	err = socket_pair(SOCK_SEQPACKET, &ours, &theirs);
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

static struct error *give_port(struct run *r, json_t *list, const char *name, const char *path)
{
	int fd;
	struct error *err = guard_listen(&r->guard, "--port", path, &fd);

	if (err)
		return err;
	spawn_add_fd(&r->vm_fds, fd);
	json_array_append_new(list, json_pack("{s:s, s:i}", "name", name, "listen_fd", fd));
	return NULL;
}

/* Named ports; the agent's is there without being asked for, if its socket has a place beside the control socket. */
static struct error *give_ports(struct run *r)
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
	return give_port(r, list, AGENT_PORT, r->agent_path);
}

static struct error *give_vsock(struct run *r)
{
	int listen_fd, ours = -1, theirs = -1;
	struct error *err;

	if (!r->o.vsock)
		return NULL;
	err = guard_listen(&r->guard, "--vsock", r->o.vsock, &listen_fd);
	if (err)
		return err;
	spawn_add_fd(&r->vm_fds, listen_fd);
	err = socket_pair(SOCK_SEQPACKET, &ours, &theirs);
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
	err = socket_pair(SOCK_SEQPACKET, &ours, &theirs);
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

static struct error *give_shares(struct run *r)
{
	json_t *list = json_array();
	struct error *err = NULL;

	json_object_set_new(r->config, "shares", list);
	for (unsigned i = 0; !err && i < r->o.share_count; i++)
		err = give_share(r, list, &r->o.shares[i], &r->shares[i]);
	return err;
}

/* ---- Putting it together ------------------------------------------------------------------------- */

static void set_name(struct run *r)
{
	const char *from = r->o.name ? r->o.name : r->guest.name ? r->guest.name : r->o.kernel;
	const char *slash = strrchr(from, '/');
	char name[65];
	size_t n = 0;

	for (const char *s = r->o.name || !slash ? from : slash + 1; *s && n < sizeof(name) - 1; s++)
		if (isalnum((unsigned char)*s) || strchr("-_.:", *s))
			name[n++] = *s;
	name[n] = 0;
	json_object_set_new(r->config, "name", json_string(n ? name : "vm"));
}

/* IMAGE: a guest of the catalogue, or a disk. */
static struct error *resolve_image(struct run *r)
{
	struct run_options *o = &r->o;
	struct error *err;

	if (!o->image)
		return NULL;
	if (access(o->image, F_OK) < 0) {
		if (strchr(o->image, '/'))
			return error_errno(errno, "disk '%s'", o->image);
		return guest_find(o->image, &r->guest);
	}
	if (o->disk_count == RUN_DISKS_MAX)
		return error_new("--disk: more than %u disks are not possible", RUN_DISKS_MAX);
	memmove(o->disks + 1, o->disks, o->disk_count * sizeof(o->disks[0]));
	o->disks[0] = (struct run_disk){ 0 };
	o->disk_count++;
	err = run_disk_parse(o->image, &o->disks[0]);
	if (!err && !o->kernel)
		err = error_new("booting '%s' by its own boot loader needs firmware, which maru does not have yet: give --kernel FILE (and --initrd, --append 'root=/dev/vda1 console=ttyS0')",
				o->image);
	return err;
}

static struct error *prepare(struct run *r)
{
	const struct run_options *o = &r->o;
	uint64_t memory;
	struct error *err = resolve_image(r);

	if (err)
		return err;
	if (!o->kernel && !r->guest.kernel)
		return error_new("--disk alone cannot be booted: that needs firmware, which maru does not have yet; give --kernel FILE");
	memory = o->memory_bytes ? o->memory_bytes : r->guest.memory_bytes ? r->guest.memory_bytes : DEFAULT_MEMORY;
	r->config = json_pack("{s:i, s:i, s:I, s:s, s:b, s:b, s:b}", "config", 1, "cpus",
			      (int)(o->cpus ? o->cpus : r->guest.cpus ? r->guest.cpus : 1), "memory", (json_int_t)memory,
			      "engine", "bt", "paravirt", !o->no_paravirt, "debug_exit", o->debug_exit, "verbose", o->verbose);
	if (!r->config)
		return error_errno(ENOMEM, "the configuration");
	json_object_set_new(r->config, "mergeable", json_boolean(o->ksm));
	json_object_set_new(r->config, "huge_pages", json_boolean(o->huge_pages));
	set_name(r);
	err = give_engine(r);
	if (!err)
		err = give_payload(r);
	if (!err)
		err = give_disks(r);
	if (!err)
		err = give_serial(r);
	if (!err && o->debugcon) {
		int fd;

		err = open_output(r, "--debugcon", o->debugcon, &fd);
		if (!err)
			json_object_set_new(r->config, "debugcon", json_pack("{s:i}", "fd", fd));
	}
	if (!err)
		err = give_control(r);
	if (!err)
		err = give_gdb(r);
	if (!err)
		err = give_ports(r);
	if (!err)
		err = give_vsock(r);
	if (!err)
		err = give_shares(r);
	if (!err)
		err = give_network(r);
	return err;
}

static struct error *start_vm(struct run *r)
{
	char number[16];
	char *const argv[] = { "maru-vm", "--config-fd", number, NULL };
	char *text = json_dumps(r->config, JSON_COMPACT);
	int fd = memfd_create("maru-config", MFD_CLOEXEC);
	struct error *err = NULL;

	if (!text || fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || lseek(fd, 0, SEEK_SET) < 0)
		err = error_errno(errno, "cannot hand the configuration to maru-vm");
	free(text);
	if (fd >= 0)
		spawn_add_fd(&r->vm_fds, fd);
	snprintf(number, sizeof(number), "%d", fd);
	if (!err)
		err = spawn(argv, &r->vm_fds, &r->vm);
	return err;
}

static int exit_status(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	fprintf(stderr, "maru: the VM process was ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
	return EXIT_INTERNAL;
}

int cmd_run(int argc, char **argv)
{
	struct run r = { .serial_fd = -1, .control_fd = -1, .guard.pipe_fd = -1 };
	struct terminal t = { .raw = false };
	struct error *err = run_options_parse(argc, argv, &r.o);
	int status;

	if (err)
		return cli_fail(err);
	if (r.o.help) {
		fputs(help_text("run"), stdout);
		return 0;
	}
	console_block_signals();
	err = prepare(&r);
	if (!err) {
		guard_start(&r.guard);
		err = start_vm(&r);
	}
	spawn_close_fds(&r.vm_fds);
	if (err) {
		status = cli_fail(err);
	} else {
		say_how_to_debug(&r);
		if (r.o.serial == SERIAL_STDIO)
			terminal_raw(&t);
		status = console_run(r.vm, r.serial_fd, r.control_fd, &t);
		terminal_restore(&t);
		status = exit_status(status);
	}
	guard_finish(&r.guard);
	if (r.nat)
		spawn_reap(r.nat, NAT_END_MS);
	for (unsigned i = 0; i < RUN_SHARES_MAX; i++)
		if (r.shares[i])
			spawn_reap(r.shares[i], NAT_END_MS);
	if (r.broker)
		spawn_reap(r.broker, NAT_END_MS);
	json_decref(r.config);
	guest_finish(&r.guest);
	run_options_finish(&r.o);
	return status;
}
