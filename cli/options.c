// SPDX-License-Identifier: Apache-2.0
/*
 * The options of `maru run`: one table, from which also the list for suggestions comes. Every complaint
 * names the option and says what would be right.
 */
#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

#define SHARE_TAG_MAX 32u
#define CPU_FEATURES_MAX 1000u

struct option {
	const char *name;
	bool flag; /* takes no value */
	struct error *(*take)(struct run_options *o, const char *value);
};

static struct error *take_cpus(struct run_options *o, const char *v)
{
	uint64_t n = 0;
	struct error *err = cli_parse_number("--cpus", v, 1, RUN_CPUS_MAX, &n);

	o->cpus = n;
	return err;
}

static struct error *take_memory(struct run_options *o, const char *v)
{
	struct error *err = cli_parse_size("--memory", v, &o->memory_bytes);

	if (!err && o->memory_bytes < 8 * MiB)
		err = error_new("--memory %s is too little: a guest needs at least 8M (a plain number counts bytes)", v);
	if (!err && o->memory_bytes > 16 * TiB)
		err = error_new("--memory %s is more than the 16T that are possible", v);
	o->memory_bytes = align_down(o->memory_bytes, 4096);
	return err;
}

static struct error *take_engine(struct run_options *o, const char *v)
{
	if (strcmp(v, "auto") && strcmp(v, "bt") && strcmp(v, "kvm"))
		return error_new("--engine takes auto, bt or kvm, not '%s'", v);
	o->engine = v;
	return NULL;
}

static struct error *take_cpu_features(struct run_options *o, const char *v)
{
	if (!*v || strlen(v) > CPU_FEATURES_MAX || strspn(v, "abcdefghijklmnopqrstuvwxyz0123456789_,") != strlen(v))
		return error_new("--cpu-features takes NAME[,NAME]... as in /proc/cpuinfo, such as avx2,bmi2, not '%s'", v);
	o->cpu_features = v;
	return NULL;
}

static struct error *take_paravirt(struct run_options *o, const char *v)
{
	if (strcmp(v, "on") && strcmp(v, "off"))
		return error_new("--paravirt takes on or off, not '%s'", v);
	o->no_paravirt = !strcmp(v, "off");
	return NULL;
}

static struct error *take_kernel(struct run_options *o, const char *v)
{
	o->kernel = v;
	return NULL;
}

static struct error *take_initrd(struct run_options *o, const char *v)
{
	o->initrd = v;
	return NULL;
}

static struct error *take_append(struct run_options *o, const char *v)
{
	o->append = v;
	return NULL;
}

static struct error *take_disk(struct run_options *o, const char *v)
{
	struct error *err;

	if (o->disk_count == RUN_DISKS_MAX)
		return error_new("--disk: more than %u disks are not possible", RUN_DISKS_MAX);
	err = run_disk_parse("--disk", v, &o->disks[o->disk_count]);
	if (!err)
		o->disk_count++;
	return err;
}

static struct error *take_net(struct run_options *o, const char *v)
{
	if (strcmp(v, "user") && strcmp(v, "none"))
		return error_new("--net takes user or none, not '%s'", v);
	o->net_none = !strcmp(v, "none");
	return NULL;
}

static bool is_port(const char *s, size_t n)
{
	unsigned v = 0;

	if (!n || n > 5)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)s[i]))
			return false;
		v = v * 10 + (s[i] - '0');
	}
	return v >= 1 && v <= 65535;
}

static bool is_ipv4(const char *s, size_t n)
{
	unsigned a, b, c, d;
	char text[16];
	int used = 0;

	if (n >= sizeof(text))
		return false;
	memcpy(text, s, n);
	text[n] = 0;
	return sscanf(text, "%3u.%3u.%3u.%3u%n", &a, &b, &c, &d, &used) == 4 && used == (int)n && a < 256 &&
	       b < 256 && c < 256 && d < 256;
}

static struct error *take_publish(struct run_options *o, const char *v)
{
	const char *guest = strrchr(v, ':'), *host = guest;
	bool good = guest && is_port(guest + 1, strlen(guest + 1));

	while (good && host > v && host[-1] != ':')
		host--;
	good = good && is_port(host, guest - host) && (host == v || is_ipv4(v, host - 1 - v));
	if (!good)
		return error_new("--publish takes [ADDR:]HOSTPORT:GUESTPORT such as 2222:22 or 0.0.0.0:8080:80, not '%s'", v);
	if (o->publish_count == RUN_PUBLISH_MAX)
		return error_new("--publish: more than %u ports are not possible", RUN_PUBLISH_MAX);
	o->publish[o->publish_count++] = v;
	return NULL;
}

static struct error *take_serial(struct run_options *o, const char *v)
{
	if (!strcmp(v, "stdio")) {
		o->serial = SERIAL_STDIO;
	} else if (!strcmp(v, "none")) {
		o->serial = SERIAL_NONE;
	} else if (!strncmp(v, "file:", 5) && v[5]) {
		o->serial = SERIAL_FILE;
		o->serial_path = v + 5;
	} else if (!strncmp(v, "unix:", 5) && v[5]) {
		o->serial = SERIAL_UNIX;
		o->serial_path = v + 5;
	} else {
		return error_new("--serial takes stdio, none, file:PATH or unix:PATH, not '%s'", v);
	}
	return NULL;
}

static struct error *take_debug_exit(struct run_options *o, const char *v)
{
	o->debug_exit = true;
	return NULL;
}

static struct error *take_port(struct run_options *o, const char *v)
{
	const char *comma = strchr(v, ','), *name = v + 5;
	struct run_port *port = &o->ports[o->port_count];
	bool good = !strncmp(v, "name=", 5) && comma && comma > name && comma - name <= (int)RUN_NAME_MAX_BYTES &&
		    !strncmp(comma + 1, "unix:", 5) && comma[6];

	for (const char *s = name; good && s < comma; s++)
		good = isalnum((unsigned char)*s) || strchr("-_.:", *s);
	if (!good)
		return error_new("--port takes name=NAME,unix:PATH such as name=org.example.0,unix:/tmp/example, not '%s'", v);
	if (o->port_count == RUN_PORTS_MAX)
		return error_new("--port: more than %u ports are not possible", RUN_PORTS_MAX);
	for (unsigned i = 0; i < o->port_count; i++)
		if (strlen(o->ports[i].name) == (size_t)(comma - name) && !strncmp(o->ports[i].name, name, comma - name))
			return error_new("--port: two ports are named '%s'", o->ports[i].name);
	*port = (struct run_port){ strndup(name, comma - name), comma + 6 };
	if (!port->name)
		return error_new("--port: no memory");
	o->port_count++;
	return NULL;
}

/* TAG=DIR[,readonly=on|off] */
static struct error *take_share(struct run_options *o, const char *v)
{
	const char *equals = strchr(v, '='), *comma = strrchr(v, ','), *end = v + strlen(v);
	struct run_share *share = &o->shares[o->share_count];
	bool good = equals && equals > v && equals - v <= (int)SHARE_TAG_MAX && equals[1], readonly = false;

	for (const char *s = v; good && s < equals; s++)
		good = isalnum((unsigned char)*s) || strchr("-_.:", *s);
	if (good && comma && !strncmp(comma, ",readonly=", 10)) {
		readonly = !strcmp(comma + 10, "on");
		good = readonly || !strcmp(comma + 10, "off");
		end = comma;
	}
	if (!good || end == equals + 1)
		return error_new("--share takes TAG=FOLDER[,readonly=on] such as src=/home/me/src, not '%s'", v);
	if (o->share_count == RUN_SHARES_MAX)
		return error_new("--share: more than %u folders are not possible", RUN_SHARES_MAX);
	*share = (struct run_share){ strndup(v, equals - v), strndup(equals + 1, end - equals - 1), readonly };
	o->share_count++;
	if (!share->tag || !share->path)
		return error_new("--share: no memory");
	for (unsigned i = 0; i + 1 < o->share_count; i++)
		if (!strcmp(o->shares[i].tag, share->tag))
			return error_new("--share: two folders have the tag '%s'", share->tag);
	return NULL;
}

static struct error *take_vsock(struct run_options *o, const char *v)
{
	if (!*v)
		return error_new("--vsock takes the path of a socket");
	o->vsock = v;
	return NULL;
}

static struct error *take_ksm(struct run_options *o, const char *v)
{
	o->ksm = true;
	return NULL;
}

static struct error *take_huge_pages(struct run_options *o, const char *v)
{
	o->huge_pages = true;
	return NULL;
}

static struct error *take_debugcon(struct run_options *o, const char *v)
{
	o->debugcon = v;
	return NULL;
}

static struct error *take_gdb(struct run_options *o, const char *v)
{
	static const char wait_off[] = ",wait=off", wait_on[] = ",wait=on";
	const char *port;

	free(o->gdb);
	o->gdb = strdup(v);
	if (!o->gdb)
		return error_errno(ENOMEM, "--gdb");
	o->gdb_nowait = cli_ends_with(v, wait_off);
	if (o->gdb_nowait || cli_ends_with(v, wait_on))
		*strrchr(o->gdb, ',') = 0;
	v = o->gdb;
	port = strrchr(v, ':');
	if (strncmp(v, "unix:", 5) ? !port || !is_port(port + 1, strlen(port + 1)) || !(port == v || is_ipv4(v, port - v)) :
				     !v[5])
		return error_new("--gdb takes ADDR:PORT such as 127.0.0.1:1234, or unix:PATH, and ,wait=off behind it, not '%s'", v);
	return NULL;
}

static struct error *take_control(struct run_options *o, const char *v)
{
	/* The kernel would find a name for it, where everybody can connect. */
	if (!*v)
		return error_new("--control takes the path of a socket");
	o->control = v;
	return NULL;
}

static struct error *take_name(struct run_options *o, const char *v)
{
	size_t n = strlen(v);

	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)v[i]) && !strchr("-_.:", v[i]))
			n = 0;
	if (!n || n > RUN_NAME_MAX_BYTES)
		return error_new("--name takes up to %u letters, digits and - _ . :, not '%s'", RUN_NAME_MAX_BYTES, v);
	o->name = v;
	return NULL;
}

static struct error *take_verbose(struct run_options *o, const char *v)
{
	o->verbose = true;
	return NULL;
}

static struct error *take_help(struct run_options *o, const char *v)
{
	o->help = true;
	return NULL;
}

static const struct option options[] = {
	{ "--cpus", false, take_cpus },
	{ "--memory", false, take_memory },
	{ "--engine", false, take_engine },
	{ "--ksm", true, take_ksm },
	{ "--hugepages", true, take_huge_pages },
	{ "--cpu-features", false, take_cpu_features },
	{ "--paravirt", false, take_paravirt },
	{ "--kernel", false, take_kernel },
	{ "--initrd", false, take_initrd },
	{ "--append", false, take_append },
	{ "--disk", false, take_disk },
	{ "--net", false, take_net },
	{ "--publish", false, take_publish },
	{ "--serial", false, take_serial },
	{ "--share", false, take_share },
	{ "--vsock", false, take_vsock },
	{ "--port", false, take_port },
	{ "--debug-exit", true, take_debug_exit },
	{ "--debugcon", false, take_debugcon },
	{ "--gdb", false, take_gdb },
	{ "--control", false, take_control },
	{ "--name", false, take_name },
	{ "--verbose", true, take_verbose },
	{ "--help", true, take_help },
};

static struct error *unknown(const char *arg)
{
	const char *names[ARRAY_SIZE(options) + 1] = { NULL }, *near;

	for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
		names[i] = options[i].name;
	near = cli_nearest(arg, names);
	if (near)
		return error_new("unknown option '%s'; did you mean %s? ('maru run --help' lists all)", arg, near);
	return error_new("unknown option '%s'; 'maru run --help' lists all", arg);
}

static struct error *take_option(struct run_options *o, int argc, char **argv, int *i)
{
	const char *arg = argv[*i], *equals = strchr(arg, '=');
	size_t n = equals ? (size_t)(equals - arg) : strlen(arg);

	for (unsigned k = 0; k < ARRAY_SIZE(options); k++) {
		if (strlen(options[k].name) != n || strncmp(options[k].name, arg, n))
			continue;
		if (options[k].flag)
			return equals ? error_new("%s takes no value", options[k].name) : options[k].take(o, NULL);
		if (equals)
			return options[k].take(o, equals + 1);
		if (*i + 1 == argc)
			return error_new("%s needs a value; 'maru run --help' shows examples", arg);
		return options[k].take(o, argv[++*i]);
	}
	return unknown(arg);
}

/* What does not fit together. */
static struct error *check(const struct run_options *o)
{
	if (o->initrd && !o->kernel && !o->image)
		return error_new("--initrd needs --kernel");
	if (o->publish_count && o->net_none)
		return error_new("--publish needs the user network, but --net none was given");
	if (!o->image && !o->kernel && !o->disk_count)
		return error_new("nothing to run: name a guest such as debian:12, or give --kernel FILE; 'maru run --help' shows examples");
	return NULL;
}

struct error *run_options_parse(int argc, char **argv, struct run_options *o)
{
	struct error *err = NULL;
	bool only_operands = false;

	*o = (struct run_options){ .engine = "auto" };
	for (int i = 1; i < argc && !err; i++) {
		if (!only_operands && !strcmp(argv[i], "--"))
			only_operands = true;
		else if (!only_operands && argv[i][0] == '-' && argv[i][1])
			err = !strcmp(argv[i], "-h") ? take_help(o, NULL) : take_option(o, argc, argv, &i);
		else if (o->image)
			err = error_new("'%s' and '%s': only one guest can be run at a time (further disks are given with --disk)",
					o->image, argv[i]);
		else
			o->image = argv[i];
	}
	if (!err && !o->help)
		err = check(o);
	if (err)
		run_options_finish(o);
	return err;
}

void run_options_finish(struct run_options *o)
{
	for (unsigned i = 0; i < o->disk_count; i++)
		run_disk_finish(&o->disks[i]);
	o->disk_count = 0;
	free(o->gdb);
	o->gdb = NULL;
	for (unsigned i = 0; i < o->port_count; i++)
		free(o->ports[i].name);
	o->port_count = 0;
	for (unsigned i = 0; i < o->share_count; i++) {
		free(o->shares[i].tag);
		free(o->shares[i].path);
	}
	o->share_count = 0;
}
