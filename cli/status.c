// SPDX-License-Identifier: Apache-2.0
/* maru status: what a running VM is and takes, from the control socket's "status" (maru-vm(1)). */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/client.h"

#define TEXT_MOST 300u

static void label(const char *what)
{
	printf("%-10s", what);
}

/* A member that is text: the VM's process parses what a guest sends, so it is not trusted with the terminal. */
static void text(json_t *o, const char *name)
{
	char *printable = cli_printable(json_object_get(o, name), TEXT_MOST);

	fputs(printable, stdout);
	free(printable);
}

/* A member in bytes, with words around it; nothing when it is not there. */
static void size(json_t *o, const char *name, const char *before, const char *after)
{
	char buf[32];

	if (json_object_get(o, name))
		printf("%s%s%s", before, cli_format_size(cli_number(o, name), buf, sizeof(buf)), after);
}

static void print_engine(json_t *s)
{
	const char *engine = json_string_value(json_object_get(s, "engine")), *reason = json_string_value(json_object_get(s, "engine_reason"));

	label("engine");
	fputs(engine && !strcmp(engine, "kvm") ? "KVM" : "the translator", stdout);
	if (reason && *reason) {
		fputs(": ", stdout);
		text(s, "engine_reason");
	}
	printf("%s\n", json_is_false(json_object_get(s, "paravirt")) ? "; no paravirtual interfaces" : "");
}

/* Of the VM's host, which is ours: 1 is "runs". */
static bool ksm_stands_still(void)
{
	FILE *f = fopen("/sys/kernel/mm/ksm/run", "re");
	int run = f ? fgetc(f) : EOF;

	if (f)
		fclose(f);
	return run != EOF && run != '1';
}

static void print_memory(json_t *s)
{
	json_t *host = json_object_get(s, "host_memory"), *balloon = json_object_get(s, "balloon");

	label("memory");
	size(s, "memory", "", "");
	size(host, "resident", ", of which this host holds ", "");
	size(host, "huge", ", ", " in huge pages");
	putchar('\n');
	if (json_object_get(host, "merged")) {
		label("ksm");
		size(host, "merged", "", " are merged with equal pages");
		size(host, "merging_profit", ", which saves ", "");
		puts(ksm_stands_still() ? "; KSM does not run on this host ('maru doctor' tells more)" : "");
	}
	label("balloon");
	if (json_is_true(json_object_get(balloon, "driver"))) {
		size(balloon, "actual", "the guest has ", "");
		if (cli_number(balloon, "actual") != cli_number(balloon, "target"))
			size(balloon, "target", " and is to have ", "");
		size(balloon, "reported", "; it has reported ", " as free so far");
	} else {
		fputs("the guest has no driver for it, or not yet", stdout);
	}
	putchar('\n');
}

static void print_disks(json_t *s)
{
	json_t *disk;
	size_t i;

	json_array_foreach(json_object_get(s, "disks"), i, disk) {
		label("disk");
		text(disk, "name");
		size(disk, "size", ": ", "");
		fputs(json_is_true(json_object_get(disk, "readonly")) ? ", read-only" : "", stdout);
		size(disk, "read_bytes", "; ", " read, ");
		size(disk, "written_bytes", "", " written");
		if (cli_number(disk, "errors"))
			printf(", %llu errors", (unsigned long long)cli_number(disk, "errors"));
		putchar('\n');
	}
}

/* What went over a card in one direction: "12 MiB in 345 packets received, 0 dropped". */
static void traffic(json_t *card, const char *bytes, const char *packets, const char *done, const char *dropped)
{
	size(card, bytes, "", "");
	printf(" in %llu packets %s, %llu dropped", (unsigned long long)cli_number(card, packets), done, (unsigned long long)cli_number(card, dropped));
}

static void print_nets(json_t *s)
{
	json_t *card;
	size_t i;

	json_array_foreach(json_object_get(s, "nets"), i, card) {
		label("net");
		text(card, "mac");
		fputs(": ", stdout);
		traffic(card, "to_guest_bytes", "to_guest", "received", "to_guest_dropped");
		fputs("; ", stdout);
		traffic(card, "from_guest_bytes", "from_guest", "sent", "from_guest_dropped");
		putchar('\n');
	}
}

static void print_shares_and_ports(json_t *s)
{
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(s, "shares"), i, o) {
		label("share");
		text(o, "tag");
		putchar('\n');
	}
	json_array_foreach(json_object_get(s, "ports"), i, o) {
		label("port");
		text(o, "name");
		puts(json_is_true(json_object_get(o, "guest_open")) ? ", opened by the guest" : ", not opened by the guest");
	}
}

static void print_sandbox(json_t *s)
{
	json_t *state;
	const char *part;
	bool whole = true;

	label("sandbox");
	json_object_foreach(json_object_get(s, "sandbox"), part, state) {
		char *name, *printable;

		if (json_is_string(state) && !strcmp(json_string_value(state), "in force"))
			continue;
		printable = cli_printable(state, TEXT_MOST);
		name = cli_printable_name(part, TEXT_MOST);
		printf("%s%s: %s", whole ? "" : "; ", name, printable);
		free(name);
		free(printable);
		whole = false;
	}
	puts(whole ? "in force" : "");
}

static void print(json_t *s)
{
	char up[32];

	label("name");
	text(s, "name");
	putchar('\n');
	label("state");
	text(s, "state");
	printf(", up %s\n", cli_format_uptime(cli_number(s, "uptime_ns"), up, sizeof(up)));
	print_engine(s);
	label("cpus");
	printf("%u\n", (unsigned)cli_number(s, "cpus"));
	print_memory(s);
	print_disks(s);
	print_nets(s);
	print_shares_and_ports(s);
	print_sandbox(s);
}

static struct error *ask(const char *vm, bool json)
{
	json_t *status = NULL;
	struct client client;
	struct error *err = client_connect(vm, &client);

	if (err)
		return err;
	err = client_request(&client, "status", NULL, CLIENT_TIMEOUT_MS, &status);
	if (!err && json)
		cli_print_json(json_incref(status));
	else if (!err)
		print(status);
	json_decref(status);
	client_close(&client);
	return err;
}

int cmd_status(int argc, char **argv)
{
	const char *vm = NULL;
	struct error *err = NULL;
	bool json = false;

	for (int i = 1; i < argc && !err; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(help_text("status"), stdout);
			return 0;
		}
		if (cli_is_output(argv[i]))
			err = cli_take_output(argc, argv, &i, &json);
		else if (argv[i][0] == '-')
			err = error_new("status: unknown option '%s'; 'maru status --help' shows what there is", argv[i]);
		else if (vm)
			err = error_new("status takes one VM, and '%s' is one word too many", argv[i]);
		else
			vm = argv[i];
	}
	if (!err && !vm)
		err = error_new("status needs the name of a running VM; 'maru status --help' shows examples");
	if (!err)
		err = ask(vm, json);
	return err ? cli_fail(err) : 0;
}
