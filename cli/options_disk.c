// SPDX-License-Identifier: Apache-2.0
/* A disk as it is named on the command line: FILE and what is known of it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/options.h"

/* The value after @key in "key=value", or NULL. */
static const char *value_of(const char *part, size_t len, const char *key)
{
	size_t n = strlen(key);

	return len > n && !strncmp(part, key, n) && part[n] == '=' ? part + n + 1 : NULL;
}

void run_disk_finish(struct run_disk *d)
{
	free(d->path);
	free(d->backing);
	*d = (struct run_disk){ 0 };
}

/* One of what may be behind the file, @len bytes of it. */
static struct error *take_part(const char *what, const char *part, size_t len, struct run_disk *out, bool *has_format)
{
	const char *v;
	char word[16];

	if ((v = value_of(part, len, "format"))) {
		*has_format = true;
		snprintf(word, sizeof(word), "%.*s", (int)MIN(part + len - v, 100), v);
		if (!block_format_parse(word, &out->format))
			return error_new("%s: format=%s is unknown; there are raw and qcow2", what, word);
	} else if ((v = value_of(part, len, "readonly"))) {
		snprintf(word, sizeof(word), "%.*s", (int)MIN(part + len - v, 100), v);
		if (strcmp(word, "on") && strcmp(word, "off"))
			return error_new("%s: readonly takes on or off, not '%s'", what, word);
		out->readonly = !strcmp(word, "on");
	} else if ((v = value_of(part, len, "backing"))) {
		free(out->backing);
		out->backing = strndup(v, part + len - v);
		if (!out->backing)
			return error_errno(ENOMEM, "%s", what);
	} else {
		return error_new("%s: '%.*s' is unknown; there are format=raw|qcow2, readonly=on|off and backing=FILE", what,
				 (int)MIN(len, 100u), part);
	}
	return NULL;
}

static struct error *format_by_name(struct run_disk *d)
{
	if (cli_ends_with(d->path, ".qcow2"))
		d->format = BLOCK_FORMAT_QCOW2;
	else if (cli_ends_with(d->path, ".raw") || cli_ends_with(d->path, ".img"))
		d->format = BLOCK_FORMAT_RAW;
	else
		return error_new("the format of disk '%s' is not clear from its name: say %s,format=raw or %s,format=qcow2 (it is never guessed from the content, which a guest can write)",
				 d->path, d->path, d->path);
	return NULL;
}

struct error *run_disk_parse(const char *what, const char *text, struct run_disk *out)
{
	const char *part = strchrnul(text, ',');
	bool has_format = false;
	struct error *err = NULL;

	*out = (struct run_disk){ .path = strndup(text, part - text) };
	if (!out->path || !*out->path)
		err = error_new("%s takes FILE[,format=raw|qcow2][,readonly=on][,backing=FILE], not '%s'", what, text);
	while (!err && *part) {
		const char *end = strchrnul(++part, ',');

		err = take_part(what, part, end - part, out, &has_format);
		part = end;
	}
	if (!err && !has_format)
		err = format_by_name(out);
	if (err)
		run_disk_finish(out);
	return err;
}
