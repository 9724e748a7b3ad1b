// SPDX-License-Identifier: Apache-2.0
/*
 * maru balloon: what a guest's memory is used for, and making it give some back.
 *
 * The guest gives memory step by step, as it frees it. We look on until it has reached the target or has made no
 * progress for a while, and then say how far it came.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/loop.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/client.h"

#define STEP_NS (100 * NS_PER_MS)
#define PATIENCE_NS (5 * NS_PER_SEC)
#define PROGRESS_BYTES MiB	    /* less than this is standing still */
#define FRESH_NS (3 * NS_PER_SEC)   /* the guest's figures are then new enough */
#define FRESH_WAIT_NS (NS_PER_SEC / 2)

struct options {
	const char *vm, *size;
	bool json, help;
};

static struct error *parse(int argc, char **argv, struct options *o)
{
	*o = (struct options){ 0 };
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			o->help = true;
		} else if (cli_is_output(argv[i])) {
			struct error *err = cli_take_output(argc, argv, &i, &o->json);

			if (err)
				return err;
		} else if (argv[i][0] == '-') {
			return error_new("balloon: unknown option '%s'; 'maru balloon --help' shows what there is", argv[i]);
		} else if (!o->vm) {
			o->vm = argv[i];
		} else if (!o->size) {
			o->size = argv[i];
		} else {
			return error_new("balloon takes a VM and a size, and '%s' is one word too many", argv[i]);
		}
	}
	if (!o->vm && !o->help)
		return error_new("balloon needs the name of a running VM; 'maru balloon --help' shows examples");
	return NULL;
}

static void wait_a_little(void)
{
	const struct timespec step = { 0, STEP_NS };

	nanosleep(&step, NULL);
}

/* How far the guest is from where it was told to be. */
static uint64_t distance(json_t *state)
{
	uint64_t actual = cli_number(state, "actual"), target = cli_number(state, "target");

	return actual > target ? actual - target : target - actual;
}

/*
 * Until the guest is there, or comes no nearer: at its limit it goes back and forth, as it gives memory and takes it
 * back under pressure.
 */
static struct error *follow(struct client *c, json_t **state)
{
	uint64_t least = distance(*state), nearer_ns = loop_now_ns();
	struct error *err = NULL;

	while (!err && distance(*state) && json_is_true(json_object_get(*state, "driver")) &&
	       loop_now_ns() - nearer_ns < PATIENCE_NS) {
		wait_a_little();
		json_decref(*state);
		err = client_request(c, "balloon", NULL, CLIENT_TIMEOUT_MS, state);
		if (!err && distance(*state) + PROGRESS_BYTES <= least) {
			least = distance(*state);
			nearer_ns = loop_now_ns();
		}
	}
	return err;
}

/* The guest's figures come after they are asked for; a guest that does not answer has none. */
static struct error *freshen(struct client *c, json_t **state)
{
	uint64_t start = loop_now_ns();
	struct error *err = NULL;

	while (!err && json_is_true(json_object_get(*state, "driver")) && loop_now_ns() - start < FRESH_WAIT_NS &&
	       (!json_object_get(*state, "guest") || cli_number(*state, "guest_age_ns") > FRESH_NS)) {
		wait_a_little();
		json_decref(*state);
		err = client_request(c, "balloon", NULL, CLIENT_TIMEOUT_MS, state);
	}
	return err;
}

static void print(json_t *state)
{
	json_t *guest = json_object_get(state, "guest");
	char a[32], b[32];

	printf("The guest has %s of memory", cli_format_size(cli_number(state, "actual"), a, sizeof(a)));
	if (cli_number(state, "actual") != cli_number(state, "target"))
		printf(" and is to have %s", cli_format_size(cli_number(state, "target"), b, sizeof(b)));
	puts(".");
	if (json_object_get(guest, "free") && json_object_get(guest, "available"))
		printf("By its own account %s are free, and %s could be had.\n",
		       cli_format_size(cli_number(guest, "free"), a, sizeof(a)),
		       cli_format_size(cli_number(guest, "available"), b, sizeof(b)));
	if (!json_is_true(json_object_get(state, "driver")))
		puts("It has no driver for the balloon (virtio_balloon), or not yet.");
}

/* Why the guest is not where it was told to be. */
static struct error *shortfall(json_t *state)
{
	uint64_t actual = cli_number(state, "actual"), target = cli_number(state, "target");
	char a[32], b[32];

	if (actual == target)
		return NULL;
	cli_format_size(actual, a, sizeof(a));
	cli_format_size(target, b, sizeof(b));
	if (!json_is_true(json_object_get(state, "driver")))
		return error_new("the guest has no driver for the balloon (virtio_balloon), or not yet: it keeps %s, and will be told of %s when it has one",
				 a, b);
	if (actual > target)
		return error_new("the guest cannot give that much: it keeps %s, not %s, and needs what is left; the target stays, so stop something in the guest or set a higher one",
				 a, b);
	return error_new("the guest has not taken its memory back: it has %s, not %s", a, b);
}

static struct error *run(const struct options *o)
{
	json_t *args = NULL, *state = NULL;
	struct client client;
	struct error *err;
	uint64_t bytes;

	if (o->size) {
		err = cli_parse_size("balloon", o->size, &bytes);
		if (!err && bytes > INT64_MAX)
			err = error_new("balloon: '%s' is larger than any memory", o->size);
		if (err)
			return err;
		args = json_pack("{s:I}", "target", (json_int_t)align_down(bytes, 4096));
	}
	err = client_connect(o->vm, &client);
	if (err) {
		json_decref(args);
		return err;
	}
	err = client_request(&client, "balloon", args, CLIENT_TIMEOUT_MS, &state);
	if (!err && o->size)
		err = follow(&client, &state);
	if (!err)
		err = freshen(&client, &state);
	if (!err) {
		if (o->json)
			cli_print_json(json_incref(state));
		else
			print(state);
		fflush(stdout);
		if (o->size)
			err = shortfall(state);
	}
	json_decref(state);
	client_close(&client);
	return err;
}

int cmd_balloon(int argc, char **argv)
{
	struct options o;
	struct error *err = parse(argc, argv, &o);

	if (!err && o.help) {
		fputs(help_text("balloon"), stdout);
		return 0;
	}
	if (!err)
		err = run(&o);
	return err ? cli_fail(err) : 0;
}
