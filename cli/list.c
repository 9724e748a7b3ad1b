// SPDX-License-Identifier: Apache-2.0
/*
 * maru list: the VMs of this user that run.
 *
 * Theory of operation. Who they are, the folder of their control sockets says; what each of them is, it says itself. Some are asked
 * at a time, all at once, and then listened to until they have answered or PATIENCE_NS have gone by: one that hangs does not hold up the
 * list, nor do many. A socket that nobody listens at is that of a VM which was killed together with its maru run.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/loop.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/client.h"

#define AT_ONCE 32u
#define PATIENCE_NS (2 * NS_PER_SEC)
#define LAST_CHANCE_NS (20 * NS_PER_MS) /* for an answer that has come while others were waited for */
#define TEXT_MOST 100u
#define NOT_ANSWERING "not answering"

struct vm {
	char name[NAME_MAX + 1];
	struct client client; /* fd -1: it has more clients waiting than it can */
	pid_t pid;	      /* 0: not known */
};

/* The name of a VM, if @file is its socket's; only what `maru run --name` takes is shown. */
static bool vm_name(const char *file, char *out)
{
	size_t len = strlen(file), suffix = strlen(CLIENT_SUFFIX);

	if (len <= suffix || strcmp(file + len - suffix, CLIENT_SUFFIX))
		return false;
	len -= suffix;
	if (strspn(file, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:") < len)
		return false;
	memcpy(out, file, len);
	out[len] = 0;
	return true;
}

static int is_vm(const struct dirent *e)
{
	char name[NAME_MAX + 1];

	return vm_name(e->d_name, name);
}

/* Connects to the VM of @name, if it runs. */
static struct error *reach(const char *name, struct vm *vm, bool *runs)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct error *err = client_find(name, "", path, sizeof(path));
	struct ucred maker;
	socklen_t len = sizeof(maker);
	int fd;

	*runs = false;
	if (err) {
		error_free(err); /* a socket with such a name cannot be */
		return NULL;
	}
	fd = client_dial(path);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		return error_errno(errno, "cannot ask the VM '%s'", name);
	if (fd < 0 && errno != EAGAIN)
		return NULL;
	*vm = (struct vm){ .client.fd = -1 };
	snprintf(vm->name, sizeof(vm->name), "%s", name);
	*runs = true;
	if (fd < 0)
		return NULL;
	/* Of maru run, which made the socket, and whose end is the VM's. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &maker, &len) == 0)
		vm->pid = maker.pid;
	return client_attach(fd, &vm->client);
}

static void add_text(json_t *to, json_t *from, const char *name)
{
	char *text = cli_printable(json_object_get(from, name), TEXT_MOST);

	json_object_set_new(to, name, json_string(text));
	free(text);
}

static json_t *describe(const struct vm *vm, json_t *status)
{
	static const char *const numbers[] = { "cpus", "memory", "uptime_ns" };
	json_t *o = json_pack("{s:s}", "name", vm->name);

	if (vm->pid)
		json_object_set_new(o, "pid", json_integer(vm->pid));
	if (!status) {
		json_object_set_new(o, "state", json_string(NOT_ANSWERING));
		return o;
	}
	add_text(o, status, "state");
	add_text(o, status, "engine");
	for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
		json_object_set_new(o, numbers[i], json_integer((json_int_t)cli_number(status, numbers[i])));
	return o;
}

/* Asks all of them, then takes what they answer. */
static void ask(struct vm *vms, unsigned count, json_t *list)
{
	uint64_t deadline_ns = loop_now_ns() + PATIENCE_NS;
	bool asked[AT_ONCE];

	for (unsigned i = 0; i < count; i++) {
		struct error *err = vms[i].client.fd < 0 ? NULL : client_ask(&vms[i].client, "status", NULL, loop_now_ns());

		asked[i] = vms[i].client.fd >= 0 && !err;
		error_free(err);
	}
	for (unsigned i = 0; i < count; i++) {
		json_t *status = NULL;

		if (asked[i])
			error_free(client_reply(&vms[i].client, MAX(deadline_ns, loop_now_ns() + LAST_CHANCE_NS), &status));
		json_array_append_new(list, describe(&vms[i], status));
		json_decref(status);
		client_close(&vms[i].client);
	}
}

static struct error *gather(json_t *list)
{
	struct vm vms[AT_ONCE];
	char folder[3072];
	struct dirent **found;
	struct error *err = client_folder(false, folder, sizeof(folder));
	unsigned count = 0;
	int n;

	if (err && error_code(err) == ENOENT) {
		error_free(err);
		return NULL;
	}
	if (err)
		return err;
	n = scandir(folder, &found, is_vm, alphasort);
	if (n < 0)
		return error_errno(errno, "cannot read the folder '%s' of the control sockets of VMs", folder);
	for (int i = 0; i < n; i++) {
		char name[NAME_MAX + 1];
		bool runs = false;

		if (!err && vm_name(found[i]->d_name, name))
			err = reach(name, &vms[count], &runs);
		free(found[i]);
		count += runs && !err;
		if (count == AT_ONCE || i + 1 == n) {
			ask(vms, count, list);
			count = 0;
		}
	}
	free(found);
	return err;
}

static void print(json_t *list)
{
	char memory[32], up[32];
	json_t *o;
	size_t i;

	printf("%-20s %-19s %-6s %4s %10s %12s %8s\n", "NAME", "STATE", "ENGINE", "CPUS", "MEMORY", "UP", "PID");
	json_array_foreach(list, i, o) {
		bool answers = json_object_get(o, "engine");

		printf("%-20s %-19s ", json_string_value(json_object_get(o, "name")), json_string_value(json_object_get(o, "state")));
		if (answers)
			printf("%-6s %4u %10s %12s", json_string_value(json_object_get(o, "engine")), (unsigned)cli_number(o, "cpus"),
			       cli_format_size(cli_number(o, "memory"), memory, sizeof(memory)),
			       cli_format_uptime(cli_number(o, "uptime_ns"), up, sizeof(up)));
		else
			printf("%-6s %4s %10s %12s", "-", "-", "-", "-");
		if (json_object_get(o, "pid"))
			printf(" %8u\n", (unsigned)cli_number(o, "pid"));
		else
			printf(" %8s\n", "-");
	}
}

int cmd_list(int argc, char **argv)
{
	struct error *err = NULL;
	bool json = false;
	json_t *list;

	for (int i = 1; i < argc && !err; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(help_text("list"), stdout);
			return 0;
		}
		err = cli_is_output(argv[i]) ? cli_take_output(argc, argv, &i, &json) :
					       error_new("list takes nothing but -o json, not '%s'", argv[i]);
	}
	if (err)
		return cli_fail(err);
	list = json_array();
	err = gather(list);
	if (!err && json)
		cli_print_json(json_incref(list));
	else if (!err)
		print(list);
	json_decref(list);
	return err ? cli_fail(err) : 0;
}
