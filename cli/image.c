// SPDX-License-Identifier: Apache-2.0
/* maru image: guests of the catalogue and disk images. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "block/image.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/options.h"

#define PATH_BYTES 4096u

/* ---- pull ---------------------------------------------------------------------------------------- */

/* What is to be lost must not be in use by a VM. Until we end, or become another program, nobody else gets it. */
static struct error *claim_disks(const struct guest *g)
{
	struct error *err = NULL;

	for (unsigned i = 0; !err && i < g->disk_count; i++) {
		int fd = open(g->disks[i].path, O_RDWR | O_CLOEXEC);

		if (fd >= 0)
			err = block_lock(fd, false, g->disks[i].path);
	}
	return err;
}

static bool has_word(int argc, char **argv, const char *word)
{
	for (int i = 0; i < argc; i++)
		if (!strcmp(argv[i], word))
			return true;
	return false;
}

/* With --force what is on the guest's disk is lost; without, the script looks after it. */
static struct error *check_loss(int argc, char **argv)
{
	struct error *err;
	struct guest g;

	if (!has_word(argc, argv, "--force") || has_word(argc, argv, "--output"))
		return NULL;
	err = guest_find(argv[1], &g);
	if (err) {
		error_free(err); /* there is none, or it is damaged */
		return NULL;
	}
	err = claim_disks(&g);
	guest_finish(&g);
	return err;
}

static struct error *pull(int argc, char **argv)
{
	char folder[PATH_BYTES - 256], script[PATH_BYTES], name[160];
	struct error *err;

	if (argc < 2)
		return error_new("image pull needs the name of a guest such as debian:12; 'maru image list' shows them");
	if (!guest_folder_name(argv[1], name, sizeof(name)))
		return error_new("'%s' is not the name of a guest; they are named like debian:12", argv[1]);
	err = cli_guest_folder(folder, sizeof(folder));
	if (err)
		return err;
	snprintf(script, sizeof(script), "%s/%s", folder, name);
	if (access(script, X_OK) < 0)
		return error_new("there is no guest %s in the catalogue; 'maru image list' shows what there is", argv[1]);
	err = check_loss(argc, argv);
	if (err)
		return err;
	argv[1] = script;
	execv(script, argv + 1);
	return error_errno(errno, "cannot run %s", script);
}

/* ---- list ---------------------------------------------------------------------------------------- */

static uint64_t host_bytes(const struct guest *g)
{
	uint64_t sum = 0;
	struct stat st;

	for (unsigned i = 0; i < g->disk_count; i++)
		if (stat(g->disks[i].path, &st) == 0)
			sum += st.st_blocks * 512ull;
	return sum;
}

static json_t *guest_json(const struct guest *g)
{
	json_t *o = json_pack("{s:s, s:s, s:s*, s:i, s:I, s:I, s:s*, s:s}", "name", g->name, "version", g->version,
			      "description", g->description, "cpus", (int)g->cpus, "memory", (json_int_t)g->memory_bytes,
			      "host_bytes", (json_int_t)host_bytes(g), "created", g->created, "folder", g->folder);

	json_object_set_new(o, "here", json_true());
	json_object_set_new(o, "outdated", json_boolean(guest_is_outdated(g)));
	if (g->ssh_user)
		json_object_set_new(o, "ssh", json_pack("{s:s, s:s}", "user", g->ssh_user, "key", g->ssh_key));
	return o;
}

/* "debian-12" to "debian:12": the version begins after the last dash before a digit, else the last dash. */
static bool image_name(const char *folder, char *out, size_t size)
{
	const char *dash = strrchr(folder, '-');

	if (!dash || dash == folder || !dash[1])
		return false;
	return snprintf(out, size, "%.*s:%s", (int)(dash - folder), folder, dash + 1) < (int)size;
}

/* A script of the catalogue: an executable NAME-VERSION. */
static bool is_catalogue_script(const char *folder, const char *name)
{
	char path[PATH_BYTES];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return !strchr(name, '.') && strchr(name, '-') && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
	       access(path, X_OK) == 0;
}

static void add_here(json_t *list, const char *cache)
{
	char folder[PATH_BYTES];
	DIR *dir = opendir(cache);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		struct guest g;
		struct error *err;

		if (*e->d_name == '.')
			continue;
		snprintf(folder, sizeof(folder), "%s/%s", cache, e->d_name);
		err = guest_read(folder, &g);
		if (!err)
			json_array_append_new(list, guest_json(&g));
		error_free(err);
		if (!err)
			guest_finish(&g);
	}
	if (dir)
		closedir(dir);
}

static bool has_guest(json_t *list, const char *name)
{
	size_t i;
	json_t *o;

	json_array_foreach(list, i, o) {
		char have[160];

		snprintf(have, sizeof(have), "%s:%s", json_string_value(json_object_get(o, "name")),
			 json_string_value(json_object_get(o, "version")));
		if (!strcmp(have, name))
			return true;
	}
	return false;
}

static void add_available(json_t *list, const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		char name[160], *colon;

		if (!is_catalogue_script(folder, e->d_name) || !image_name(e->d_name, name, sizeof(name)) ||
		    has_guest(list, name))
			continue;
		colon = strchr(name, ':');
		*colon = 0;
		json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "name", name, "version", colon + 1, "here", 0));
	}
	if (dir)
		closedir(dir);
}

static struct error *list(int argc, char **argv)
{
	char cache[PATH_BYTES - 256], folder[PATH_BYTES - 256], size[32];
	json_t *all = json_array(), *o;
	bool json = false;
	struct error *err = NULL;
	size_t i;

	for (int n = 1; n < argc && !err; n++)
		err = cli_is_output(argv[n]) ? cli_take_output(argc, argv, &n, &json) :
					   error_new("image list takes nothing but -o json, not '%s'", argv[n]);
	if (!err)
		err = guest_cache(cache, sizeof(cache));
	if (err) {
		json_decref(all);
		return err;
	}
	add_here(all, cache);
	err = cli_guest_folder(folder, sizeof(folder));
	if (!err)
		add_available(all, folder);
	error_free(err); /* an installation without the catalogue still has its guests */
	if (json) {
		cli_print_json(all);
		return NULL;
	}
	printf("%-16s %-10s %s\n", "GUEST", "DISK", "");
	json_array_foreach(all, i, o) {
		char name[160];
		const char *text = json_string_value(json_object_get(o, "description"));

		snprintf(name, sizeof(name), "%s:%s", json_string_value(json_object_get(o, "name")),
			 json_string_value(json_object_get(o, "version")));
		if (json_is_true(json_object_get(o, "here")))
			printf("%-16s %-10s %s%s\n", name,
			       cli_format_size(json_integer_value(json_object_get(o, "host_bytes")), size, sizeof(size)),
			       text ? text : "", json_is_true(json_object_get(o, "outdated")) ? "; made by an older recipe" : "");
		else
			printf("%-16s %-10s not here; make it with: maru image pull %s\n", name, "-", name);
	}
	json_decref(all);
	return NULL;
}

/* ---- create -------------------------------------------------------------------------------------- */

static struct error *create(int argc, char **argv)
{
	const char *path = NULL, *size_text = NULL, *format_text = NULL, *backing_text = NULL;
	struct run_disk disk = { 0 }, backing = { 0 };
	char with_format[PATH_BYTES], text[32];
	uint64_t size = 0;
	struct error *err = NULL;

	for (int i = 1; i < argc && !err; i++) {
		if (!strcmp(argv[i], "--format") && i + 1 < argc)
			format_text = argv[++i];
		else if (!strcmp(argv[i], "--backing") && i + 1 < argc)
			backing_text = argv[++i];
		else if (*argv[i] == '-')
			err = error_new("image create: unknown option, or without its value: '%s'; there are --format raw|qcow2 and --backing FILE[,format=…]",
					argv[i]);
		else if (!path)
			path = argv[i];
		else if (!size_text)
			size_text = argv[i];
		else
			err = error_new("image create: too many arguments, from '%s' on", argv[i]);
	}
	if (err)
		return err;
	if (!path || (!size_text && !backing_text))
		return error_new("image create needs a file and a size: maru image create disk.qcow2 20G");
	if (size_text)
		err = cli_parse_size("image create", size_text, &size);
	if (!err && size_text && !size)
		err = error_new("image create: a disk of no size is of no use");
	if (err)
		return err;
	snprintf(with_format, sizeof(with_format), format_text ? "%s,format=%s" : "%s", path, format_text);
	err = run_disk_parse("image create", with_format, &disk);
	if (!err && backing_text)
		err = run_disk_parse("--backing", backing_text, &backing);
	if (!err && backing_text && disk.format != BLOCK_FORMAT_QCOW2)
		err = error_new("image create: only a qcow2 image can have a backing file");
	if (!err)
		err = image_create(disk.path, disk.format, size, backing.path, backing.format, NULL);
	if (!err)
		printf("%s: %s, %s\n", disk.path, block_format_name(disk.format),
		       size ? cli_format_size(size, text, sizeof(text)) : "the size of its backing file");
	run_disk_finish(&disk);
	run_disk_finish(&backing);
	return err;
}

/* ---- info ---------------------------------------------------------------------------------------- */

static void print_info(const char *path, const struct image_info *info)
{
	char a[32], b[32];

	printf("file:       %s\nformat:     %s\nsize:       %s (%" PRIu64 " bytes)\non host:    %s\n", path,
	       block_format_name(info->format), cli_format_size(info->size_bytes, a, sizeof(a)), info->size_bytes,
	       cli_format_size(info->host_bytes, b, sizeof(b)));
	if (info->format == BLOCK_FORMAT_RAW)
		return;
	printf("version:    %u\nclusters:   %s\nsnapshots:  %u\n", info->version,
	       cli_format_size(info->cluster_bytes, a, sizeof(a)), info->snapshots);
	if (*info->backing)
		printf("backing:    %s (%s)\n", info->backing, *info->backing_format ? info->backing_format : "format not stated");
	if (info->dirty || info->corrupt || info->encrypted)
		printf("marked as:  %s%s%s\n", info->dirty ? "dirty " : "", info->corrupt ? "corrupt " : "",
		       info->encrypted ? "encrypted" : "");
}

static json_t *info_json(const char *path, const struct image_info *info)
{
	json_t *o = json_pack("{s:s, s:s, s:I, s:I}", "file", path, "format", block_format_name(info->format), "size",
			      (json_int_t)info->size_bytes, "host_bytes", (json_int_t)info->host_bytes);

	if (info->format != BLOCK_FORMAT_RAW) {
		json_object_set_new(o, "version", json_integer(info->version));
		json_object_set_new(o, "cluster_bytes", json_integer(info->cluster_bytes));
		json_object_set_new(o, "snapshots", json_integer(info->snapshots));
		json_object_set_new(o, "dirty", json_boolean(info->dirty));
		json_object_set_new(o, "corrupt", json_boolean(info->corrupt));
		json_object_set_new(o, "encrypted", json_boolean(info->encrypted));
		if (*info->backing)
			json_object_set_new(o, "backing", json_string(info->backing));
		if (*info->backing_format)
			json_object_set_new(o, "backing_format", json_string(info->backing_format));
	}
	return o;
}

static struct error *info_of_guest(const char *image, bool json)
{
	struct guest g;
	char a[32], b[32];
	struct error *err = guest_find(image, &g);

	if (err)
		return err;
	if (json) {
		cli_print_json(guest_json(&g));
	} else {
		printf("guest:      %s:%s\nis:         %s\nfolder:     %s\ncpus:       %u\nmemory:     %s\non host:    %s\nmade:       %s\n",
		       g.name, g.version, g.description ? g.description : "", g.folder, g.cpus,
		       cli_format_size(g.memory_bytes, a, sizeof(a)), cli_format_size(host_bytes(&g), b, sizeof(b)),
		       g.created ? g.created : "");
		if (guest_is_outdated(&g))
			printf("recipe:     older than the catalogue's; a new one is made with: maru image pull %s --renew\n", image);
		if (g.ssh_user)
			printf("log in:     ssh -i %s -p 2222 %s@localhost (with maru run %s --publish 2222:22)\n", g.ssh_key, g.ssh_user, image);
	}
	guest_finish(&g);
	return NULL;
}

static struct error *info(int argc, char **argv)
{
	const char *what = NULL;
	struct run_disk disk = { 0 };
	struct image_info found;
	bool json = false;
	struct error *err = NULL;

	for (int i = 1; i < argc && !err; i++) {
		if (cli_is_output(argv[i]))
			err = cli_take_output(argc, argv, &i, &json);
		else if (*argv[i] == '-' || what)
			err = error_new("image info takes one FILE[,format=raw|qcow2] or guest, and -o json, not '%s'", argv[i]);
		else
			what = argv[i];
	}
	if (err)
		return err;
	if (!what)
		return error_new("image info needs a disk image or a guest: maru image info disk.qcow2");
	if (strchr(what, ':') && access(what, F_OK) < 0)
		return info_of_guest(what, json);
	err = run_disk_parse("image info", what, &disk);
	if (err)
		return err;
	err = image_info(disk.path, disk.format, &found);
	if (!err && json)
		cli_print_json(info_json(disk.path, &found));
	else if (!err)
		print_info(disk.path, &found);
	run_disk_finish(&disk);
	return err;
}

/* ---- rm ------------------------------------------------------------------------------------------ */

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *where)
{
	return remove(path);
}

static struct error *rm(int argc, char **argv)
{
	struct guest g;
	struct error *err;

	if (argc != 2 || *argv[1] == '-')
		return error_new("image rm needs the name of one guest: maru image rm debian:12 (a disk image is a file: rm FILE)");
	err = guest_find(argv[1], &g);
	if (err)
		return err;
	err = claim_disks(&g);
	if (!err && nftw(g.folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
		err = error_errno(errno, "cannot remove all of %s", g.folder);
	guest_finish(&g);
	return err;
}

static const struct subcommand {
	const char *name;
	struct error *(*run)(int argc, char **argv);
} subcommands[] = { { "pull", pull }, { "list", list }, { "create", create }, { "info", info }, { "rm", rm } };

int cmd_image(int argc, char **argv)
{
	const char *names[ARRAY_SIZE(subcommands) + 1] = { NULL }, *near;
	struct error *err;

	for (int i = 1; i < argc; i++) {
		/* Options behind the guest's name belong to the script that makes it. */
		if (i >= 3 && !strcmp(argv[1], "pull"))
			break;
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(help_text("image"), stdout);
			return 0;
		}
	}
	if (argc < 2) {
		fputs(help_text("image"), stderr);
		return CLI_EXIT_USAGE;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(subcommands); i++) {
		names[i] = subcommands[i].name;
		if (!strcmp(argv[1], subcommands[i].name)) {
			err = subcommands[i].run(argc - 1, argv + 1);
			return err ? cli_fail(err) : 0;
		}
	}
	near = cli_nearest(argv[1], names);
	return cli_fail(error_new("there is no 'maru image %s'%s%s%s; there are pull, list, create, info and rm", argv[1],
				  near ? ": did you mean " : "", near ? near : "", near ? "?" : ""));
}
