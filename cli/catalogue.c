// SPDX-License-Identifier: Apache-2.0
/* Guests of the catalogue; see catalogue.h. A manifest is checked as if a stranger had written it. */
#include "cli/catalogue.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

#define PATH_BYTES 4096u
#define LABEL_MOST 200u
#define RECIPE_LINES 100u /* of a script; the line is among the first */

static bool is_word(const char *s, size_t n)
{
	if (!n || n > 64 || *s == '.' || *s == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr("._-+", s[i]))
			return false;
	return true;
}

bool guest_folder_name(const char *image, char *out, size_t size)
{
	const char *colon = strchr(image, ':');

	if (!colon || !is_word(image, colon - image) || !is_word(colon + 1, strlen(colon + 1)))
		return false;
	return snprintf(out, size, "%.*s-%s", (int)(colon - image), image, colon + 1) < (int)size;
}

struct error *guest_cache(char *path, size_t size)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int n;

	if (cache && *cache == '/')
		n = snprintf(path, size, "%s/maru/images", cache);
	else if (home && *home == '/')
		n = snprintf(path, size, "%s/.cache/maru/images", home);
	else
		return error_new("the folder of the guests is unknown: set HOME or XDG_CACHE_HOME to an absolute path");
	return n < (int)size ? NULL : error_new("the path of the cache folder is too long");
}

static struct error *bad(const char *folder, const char *member)
{
	return error_new("%s/manifest.json is damaged: '%s' is missing or not what it should be; the guest is made again with 'maru image pull NAME:VERSION --renew', which keeps what is here",
			 folder, member);
}

static struct error *get_text(const char *folder, json_t *o, const char *member, bool required, char **out)
{
	const char *s = json_string_value(json_object_get(o, member));

	if (!s && !required && !json_object_get(o, member))
		return NULL;
	if (!s)
		return bad(folder, member);
	*out = strdup(s);
	return *out ? NULL : error_errno(ENOMEM, "manifest");
}

static struct error *get_word(const char *folder, json_t *o, const char *member, char **out)
{
	struct error *err = get_text(folder, o, member, true, out);

	return !err && !is_word(*out, strlen(*out)) ? bad(folder, member) : err;
}

/* Words for people; none: NULL. */
static struct error *get_label(const char *folder, json_t *o, const char *member, char **out)
{
	json_t *text = json_object_get(o, member);

	if (text && !json_is_string(text))
		return bad(folder, member);
	*out = text ? cli_printable(text, LABEL_MOST) : NULL;
	return NULL;
}

/* A file of the guest's: a plain name in its folder. */
static struct error *get_file(const char *folder, json_t *o, const char *member, bool required, char **out)
{
	const char *s = json_string_value(json_object_get(o, member));

	if (!s && !required && !json_object_get(o, member))
		return NULL;
	if (!s || !is_word(s, strlen(s)))
		return bad(folder, member);
	return asprintf(out, "%s/%s", folder, s) < 0 ? error_errno(ENOMEM, "manifest") : NULL;
}

static struct error *get_disks(const char *folder, json_t *list, struct guest *g)
{
	struct error *err = NULL;
	json_t *o;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > RUN_DISKS_MAX)
		return bad(folder, "disks");
	json_array_foreach(list, i, o) {
		const char *format = json_string_value(json_object_get(o, "format"));

		if (!format || !block_format_parse(format, &g->disks[i].format))
			return bad(folder, "disks");
		err = get_file(folder, o, "file", true, &g->disks[i].path);
		if (err)
			return err;
		g->disk_count++;
	}
	return NULL;
}

static struct error *get_ssh(const char *folder, json_t *o, struct guest *g)
{
	struct error *err = get_word(folder, o, "user", &g->ssh_user);

	return err ? err : get_file(folder, o, "key", true, &g->ssh_key);
}

static struct error *read_members(const char *folder, json_t *o, struct guest *g)
{
	json_t *cpus = json_object_get(o, "cpus"), *memory = json_object_get(o, "memory_mib"), *ssh = json_object_get(o, "ssh");
	json_t *recipe = json_object_get(o, "recipe");
	struct error *err;

	if (json_integer_value(json_object_get(o, "manifest")) != 1)
		return error_new("%s/manifest.json has a format that this maru does not know: use a newer maru or make the guest again",
				 folder);
	if (!json_is_integer(cpus) || json_integer_value(cpus) < 1 || json_integer_value(cpus) > RUN_CPUS_MAX)
		return bad(folder, "cpus");
	if (!json_is_integer(memory) || json_integer_value(memory) < 8 || json_integer_value(memory) > 1 << 24)
		return bad(folder, "memory_mib");
	if (recipe && (!json_is_integer(recipe) || json_integer_value(recipe) < 0))
		return bad(folder, "recipe");
	g->recipe = json_integer_value(recipe);
	g->cpus = json_integer_value(cpus);
	g->memory_bytes = json_integer_value(memory) * MiB;
	err = get_word(folder, o, "name", &g->name);
	if (!err)
		err = get_word(folder, o, "version", &g->version);
	if (!err)
		err = get_label(folder, o, "description", &g->description);
	if (!err)
		err = get_text(folder, o, "append", false, &g->append);
	if (!err)
		err = get_label(folder, o, "created", &g->created);
	if (!err)
		err = get_file(folder, o, "kernel", true, &g->kernel);
	if (!err)
		err = get_file(folder, o, "initrd", false, &g->initrd);
	if (!err)
		err = get_disks(folder, json_object_get(o, "disks"), g);
	if (!err && ssh)
		err = get_ssh(folder, ssh, g);
	return err;
}

struct error *guest_read(const char *folder, struct guest *out)
{
	char path[PATH_BYTES];
	struct error *err;
	json_error_t where;
	json_t *o;

	*out = (struct guest){ 0 };
	snprintf(path, sizeof(path), "%s/manifest.json", folder);
	o = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
	if (!json_is_object(o)) {
		json_decref(o);
		return error_new("%s cannot be read: %s", path, where.text);
	}
	out->folder = strdup(folder);
	err = read_members(folder, o, out);
	json_decref(o);
	if (err)
		guest_finish(out);
	return err;
}

struct error *guest_find(const char *image, struct guest *out)
{
	char name[160], cache[PATH_BYTES - 256], folder[PATH_BYTES], manifest[PATH_BYTES + 16];
	struct error *err;

	if (!guest_folder_name(image, name, sizeof(name)))
		return error_new("'%s' is neither a file nor a guest of the catalogue; guests are named like debian:12 ('maru image list')",
				 image);
	err = guest_cache(cache, sizeof(cache));
	if (err)
		return err;
	snprintf(folder, sizeof(folder), "%s/%s", cache, name);
	snprintf(manifest, sizeof(manifest), "%s/manifest.json", folder);
	if (access(manifest, F_OK) < 0)
		return error_new("the guest %s is not here; if it is in the catalogue ('maru image list'), make it with 'maru image pull %s'", image, image);
	return guest_read(folder, out);
}

bool guest_is_outdated(const struct guest *g)
{
	char folder[PATH_BYTES - 256], path[PATH_BYTES], line[256];
	struct error *err = cli_guest_folder(folder, sizeof(folder));
	uint64_t recipe = 0;
	FILE *script;

	error_free(err);
	if (err || snprintf(path, sizeof(path), "%s/%s-%s", folder, g->name, g->version) >= (int)sizeof(path))
		return false;
	script = fopen(path, "re");
	for (unsigned i = 0; script && !recipe && i < RECIPE_LINES && fgets(line, sizeof(line), script); i++)
		if (!strncmp(line, "recipe=", 7))
			recipe = strtoull(line + 7, NULL, 10);
	if (script)
		fclose(script);
	return g->recipe < recipe;
}

void guest_finish(struct guest *g)
{
	for (unsigned i = 0; i < RUN_DISKS_MAX; i++)
		free(g->disks[i].path);
	free(g->folder);
	free(g->name);
	free(g->version);
	free(g->description);
	free(g->kernel);
	free(g->initrd);
	free(g->append);
	free(g->created);
	free(g->ssh_user);
	free(g->ssh_key);
	*g = (struct guest){ 0 };
}
