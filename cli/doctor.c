// SPDX-License-Identifier: Apache-2.0
/* maru doctor: what this host has for VMs, on one screen or as JSON. */
#include "cli/doctor.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define DOCTOR_EXIT_CANNOT 1 /* no VM can run here */

static json_t *number(double ns)
{
	return ns > 0 ? json_real(ns) : json_null();
}

static void print_json(const struct doctor *d, const struct host_engine *e)
{
	json_t *checks = json_array(), *o;

	for (unsigned i = 0; i < d->count; i++) {
		const struct doctor_check *c = &d->checks[i];

		json_array_append_new(checks, json_pack("{s:s, s:b, s:s, s:s}", "name", c->name, "ok", c->ok, "detail", c->detail,
							"fix", c->fix));
	}
	o = json_pack("{s:b, s:{s:s, s:s}, s:{s:b, s:b, s:o}, s:{s:b, s:o, s:o}, s:o}", "can_run", doctor_can_run(d), "engine",
		      "chosen", e->chosen, "reason", e->reason, "kvm", "present", e->kvm_present, "usable", e->kvm_usable,
		      "ns_per_iteration", number(e->kvm_ns), "bt", "usable", e->bt_usable, "ns_per_iteration", number(e->bt_ns),
		      "native_ns_per_iteration", number(e->native_ns), "checks", checks);
	cli_print_json(o);
}

static void print_text(const struct doctor *d, const struct host_engine *e)
{
	for (unsigned i = 0; i < d->count; i++) {
		const struct doctor_check *c = &d->checks[i];

		printf("%-4s %-16s %s\n", c->ok ? "ok" : c->needed ? "BAD" : "-", c->name, c->detail);
		if (!c->ok)
			printf("     %-16s %s\n", "", c->fix);
	}
	printf("\n--engine auto uses %s: %s.\n", strcmp(e->chosen, "kvm") ? "the translator" : "KVM", e->reason);
	printf(doctor_can_run(d) ? "Virtual machines can run here.\n" : "Virtual machines cannot run here: see BAD above.\n");
}

int cmd_doctor(int argc, char **argv)
{
	struct doctor_facts facts;
	struct host_engine e;
	struct doctor d;
	struct error *err;
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(help_text("doctor"), stdout);
			return 0;
		}
		if (!cli_is_output(argv[i]))
			return cli_fail(error_new("maru doctor takes -o json and nothing else, not '%s'", argv[i]));
		err = cli_take_output(argc, argv, &i, &json);
		if (err)
			return cli_fail(err);
	}
	err = host_engine_measure(&e);
	if (err)
		return cli_fail(err);
	if (e.kvm_fd >= 0)
		close(e.kvm_fd);
	doctor_ask_kernel(&facts);
	doctor_run(&d, "", &e, &facts);
	if (json)
		print_json(&d, &e);
	else
		print_text(&d, &e);
	return doctor_can_run(&d) ? 0 : DOCTOR_EXIT_CANNOT;
}
