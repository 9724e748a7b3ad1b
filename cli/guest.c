// SPDX-License-Identifier: Apache-2.0
/*
 * maru guest: what the agent in a running guest can do and tell.
 *
 * Text from the guest is shown with control characters replaced, so that it cannot play with the terminal; only the output
 * of a program (exec) is passed on as it is, like that of ssh.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "cli/agent.h"
#include "cli/cli.h"

#define FREEZE_TIMEOUT_MS 120000u
#define EXIT_BY_SIGNAL 128
#define ARGS_MAX 256u

struct job {
	struct agent agent;
	const char *vm;
	bool json;
	uint64_t timeout_s; /* exec: 0 is none */
	bool reboot;
	int argc; /* exec: the program and its arguments */
	char **argv;
	int status; /* exit status if all goes well */
};

/* A text of the guest's on standard output. */
static void show(json_t *text)
{
	char *printable = cli_printable(text, SIZE_MAX - 1);

	fputs(printable, stdout);
	free(printable);
}

static struct error *call(struct job *j, const char *command, json_t *args, json_t **result)
{
	return agent_call(&j->agent, command, args, AGENT_TIMEOUT_MS, false, result);
}

static struct error *ping(struct job *j)
{
	uint64_t start = loop_now_ns();
	struct error *err = call(j, "guest-ping", NULL, NULL);
	double ms = (double)(loop_now_ns() - start) / (double)NS_PER_MS;

	if (err)
		return err;
	if (j->json)
		cli_print_json(json_pack("{s:b, s:f}", "answers", 1, "ms", ms));
	else
		printf("The agent answers, after %.1f ms.\n", ms);
	return NULL;
}

/* What one of several questions returns; an agent need not know them all. */
static json_t *ask(struct job *j, const char *command)
{
	json_t *result = NULL;

	error_free(call(j, command, NULL, &result));
	return result;
}

static void show_line(const char *label, json_t *text)
{
	if (!json_is_string(text))
		return;
	printf("%-12s", label);
	show(text);
	putchar('\n');
}

static struct error *info(struct job *j)
{
	json_t *agent = NULL, *os, *host;
	struct error *err = call(j, "guest-info", NULL, &agent);

	if (err)
		return err;
	os = ask(j, "guest-get-osinfo");
	host = ask(j, "guest-get-host-name");
	if (j->json) {
		cli_print_json(json_pack("{s:O?, s:O?, s:O?}", "hostname", json_object_get(host, "host-name"), "os", os, "agent", agent));
	} else {
		show_line("hostname", json_object_get(host, "host-name"));
		show_line("system", json_object_get(os, "pretty-name"));
		show_line("kernel", json_object_get(os, "kernel-release"));
		show_line("machine", json_object_get(os, "machine"));
		show_line("agent", json_object_get(agent, "version"));
	}
	json_decref(agent);
	json_decref(os);
	json_decref(host);
	return NULL;
}

static struct error *ip(struct job *j)
{
	json_t *list = NULL, *card, *address;
	struct error *err = call(j, "guest-network-get-interfaces", NULL, &list);
	size_t i, k;

	if (err)
		return err;
	if (j->json) {
		cli_print_json(list);
		return NULL;
	}
	json_array_foreach(list, i, card) {
		json_array_foreach(json_object_get(card, "ip-addresses"), k, address) {
			show(json_object_get(card, "name"));
			putchar('\t');
			show(json_object_get(address, "ip-address"));
			printf("/%" JSON_INTEGER_FORMAT "\t", json_integer_value(json_object_get(address, "prefix")));
			show(json_object_get(card, "hardware-address"));
			putchar('\n');
		}
	}
	json_decref(list);
	return NULL;
}

/* ---- exec ---------------------------------------------------------------------------------------- */

/* Bytes of the program's as JSON text where they are text, else as base64 under another name. */
static void add_output(json_t *to, const char *name, const char *raw_name, const uint8_t *data, size_t len, const char *base64)
{
	json_t *text = data ? json_stringn((const char *)data, len) : json_string("");

	if (text)
		json_object_set_new(to, name, text);
	else
		json_object_set_new(to, raw_name, json_string(base64));
}

static struct error *pass_on(int fd, const char *what, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_errno(errno, "the program has run in the guest, but its output cannot be written to %s", what);
		data += n;
		len -= (size_t)n;
	}
	return NULL;
}

static struct error *take_output(json_t *status, const char *name, uint8_t **data, size_t *len)
{
	json_t *text = json_object_get(status, name);

	*data = NULL;
	*len = 0;
	if (!json_is_string(text))
		return NULL;
	*data = agent_decode(json_string_value(text), json_string_length(text), len);
	return *data ? NULL : error_new("the guest's agent sent what is not base64");
}

static struct error *report(struct job *j, json_t *status)
{
	json_int_t code = json_integer_value(json_object_get(status, "exitcode"));
	json_int_t signal = json_integer_value(json_object_get(status, "signal"));
	bool truncated = json_is_true(json_object_get(status, "out-truncated")) ||
			 json_is_true(json_object_get(status, "err-truncated"));
	uint8_t *out, *errors = NULL;
	size_t out_len, errors_len = 0;
	struct error *err = take_output(status, "out-data", &out, &out_len);

	if (!err)
		err = take_output(status, "err-data", &errors, &errors_len);
	if (!err && j->json) {
		json_t *o = json_object();

		json_object_set(o, "exitcode", json_object_get(status, "exitcode"));
		json_object_set(o, "signal", json_object_get(status, "signal"));
		json_object_set_new(o, "truncated", json_boolean(truncated));
		add_output(o, "stdout", "stdout_base64", out, out_len, json_string_value(json_object_get(status, "out-data")));
		add_output(o, "stderr", "stderr_base64", errors, errors_len, json_string_value(json_object_get(status, "err-data")));
		cli_print_json(o);
	} else if (!err) {
		err = pass_on(STDOUT_FILENO, "standard output", out, out_len);
		if (!err)
			err = pass_on(STDERR_FILENO, "standard error", errors, errors_len);
		if (truncated)
			fprintf(stderr, "maru: the agent kept only the first 16 MiB of the output\n");
		j->status = json_object_get(status, "signal") ? EXIT_BY_SIGNAL + (int)(signal & 127) : (int)(code & 255);
	}
	free(out);
	free(errors);
	return err;
}

static struct error *exec(struct job *j)
{
	uint64_t start = loop_now_ns(), wait_ns = 20 * NS_PER_MS;
	json_t *args = json_array(), *started = NULL, *status = NULL;
	struct error *err;
	json_int_t pid;

	for (int i = 1; i < j->argc; i++) {
		if (json_array_append_new(args, json_string(j->argv[i]))) {
			json_decref(args);
			return error_new("guest exec: '%s' is not UTF-8 text", j->argv[i]);
		}
	}
	args = json_pack("{s:s, s:o, s:b}", "path", j->argv[0], "arg", args, "capture-output", 1);
	if (!args)
		return error_new("guest exec: '%s' is not UTF-8 text", j->argv[0]);
	err = call(j, "guest-exec", args, &started);
	if (err)
		return err;
	pid = json_integer_value(json_object_get(started, "pid"));
	json_decref(started);
	while (!err) {
		struct timespec nap = { (time_t)(wait_ns / NS_PER_SEC), (long)(wait_ns % NS_PER_SEC) };

		err = call(j, "guest-exec-status", json_pack("{s:I}", "pid", pid), &status);
		if (err || json_is_true(json_object_get(status, "exited")))
			break;
		json_decref(status);
		status = NULL;
		if (j->timeout_s && loop_now_ns() - start > j->timeout_s * NS_PER_SEC)
			err = error_new("'%s' has not ended within %" PRIu64 " s; it goes on in the guest as process %" JSON_INTEGER_FORMAT,
					j->argv[0], j->timeout_s, pid);
		else
			nanosleep(&nap, NULL);
		wait_ns = MIN(wait_ns * 2, NS_PER_SEC / 2);
	}
	if (!err)
		err = report(j, status);
	json_decref(status);
	return err;
}

/* ---- the rest ------------------------------------------------------------------------------------ */

static struct error *shut_down(struct job *j)
{
	struct error *err = agent_call(&j->agent, "guest-shutdown",
				       json_pack("{s:s}", "mode", j->reboot ? "reboot" : "powerdown"), AGENT_TIMEOUT_MS, true, NULL);

	if (!err && j->json)
		cli_print_json(json_pack("{s:b}", "requested", 1));
	return err;
}

static struct error *freeze_or_thaw(struct job *j, const char *command, const char *what)
{
	json_t *count = NULL;
	json_int_t n;
	struct error *err = agent_call(&j->agent, command, NULL, FREEZE_TIMEOUT_MS, false, &count);

	if (err)
		return err;
	if (!json_is_integer(count))
		err = error_new("the guest's agent does not say how many file systems were %s, so count on none", what);
	n = json_integer_value(count);
	json_decref(count);
	if (err)
		return err;
	if (j->json)
		cli_print_json(json_pack("{s:I}", what, n));
	else
		printf("%" JSON_INTEGER_FORMAT " file system%s %s %s.\n", n, n == 1 ? "" : "s", n == 1 ? "was" : "were", what);
	return NULL;
}

static struct error *freeze(struct job *j)
{
	return freeze_or_thaw(j, "guest-fsfreeze-freeze", "frozen");
}

static struct error *thaw(struct job *j)
{
	return freeze_or_thaw(j, "guest-fsfreeze-thaw", "thawed");
}

static const struct verb {
	const char *name;
	struct error *(*run)(struct job *j);
} verbs[] = {
	{ "ping", ping }, { "info", info }, { "exec", exec }, { "ip", ip }, { "shutdown", shut_down }, { "freeze", freeze }, { "thaw", thaw },
};

static struct error *parse(int argc, char **argv, const struct verb **verb, struct job *j)
{
	const char *names[ARRAY_SIZE(verbs) + 1] = { NULL }, *near;
	bool is_exec;
	int i;

	if (argc < 2)
		return error_new("guest needs to know what to do; 'maru guest --help' shows what there is");
	for (unsigned k = 0; k < ARRAY_SIZE(verbs); k++) {
		names[k] = verbs[k].name;
		if (!strcmp(argv[1], verbs[k].name))
			*verb = &verbs[k];
	}
	if (!*verb) {
		near = cli_nearest(argv[1], names);
		return error_new("guest: there is no '%s'%s%s%s; 'maru guest --help' shows what there is", argv[1],
				 near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
	}
	is_exec = (*verb)->run == exec;
	for (i = 2; i < argc; i++) {
		struct error *err = NULL;

		if (cli_is_output(argv[i])) {
			err = cli_take_output(argc, argv, &i, &j->json);
		} else if (is_exec && !strcmp(argv[i], "--timeout")) {
			err = i + 1 == argc ? error_new("--timeout needs a number of seconds") :
					      cli_parse_number("--timeout", argv[++i], 1, 86400, &j->timeout_s);
		} else if ((*verb)->run == shut_down && !strcmp(argv[i], "--reboot")) {
			j->reboot = true;
		} else if (!strcmp(argv[i], "--")) {
			i++;
			break;
		} else if (argv[i][0] == '-') {
			return error_new("guest %s: unknown option '%s'; 'maru guest --help' shows what there is", argv[1], argv[i]);
		} else if (!j->vm) {
			j->vm = argv[i];
		} else {
			break;
		}
		if (err)
			return err;
	}
	if (!j->vm)
		return error_new("guest %s needs the name of a running VM", argv[1]);
	j->argv = argv + i;
	j->argc = argc - i;
	if (is_exec && !j->argc)
		return error_new("guest exec needs a program, with its path in the guest: maru guest exec %s /bin/uname -a", j->vm);
	if (is_exec && j->argc > (int)ARGS_MAX)
		return error_new("guest exec: more than %u arguments", ARGS_MAX);
	if (!is_exec && j->argc)
		return error_new("guest %s: '%s' is one word too many", argv[1], j->argv[0]);
	return NULL;
}

int guest_main(int argc, char **argv, int fd)
{
	const struct verb *verb = NULL;
	struct job j = { .agent.fd = -1 };
	struct error *err;

	/* Behind a verb, too; later it may be the program's. */
	for (int i = 1; i < argc && i <= 2; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(help_text("guest"), stdout);
			return 0;
		}
	}
	err = parse(argc, argv, &verb, &j);
	if (!err)
		err = fd < 0 ? agent_connect(j.vm, &j.agent) : agent_attach(fd, &j.agent);
	if (!err)
		err = verb->run(&j);
	agent_close(&j.agent);
	fflush(stdout);
	return err ? cli_fail(err) : j.status;
}

int cmd_guest(int argc, char **argv)
{
	return guest_main(argc, argv, -1);
}
