// SPDX-License-Identifier: Apache-2.0
/* JSON held against tables of members; see config_members.h. */
#include "vm/config_members.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

struct error *config_complain(const struct parse *p, const char *name, const char *what)
{
	return error_new("configuration: '%s%s%s' %s", p->path, *p->path ? "." : "", name, what);
}

struct error *config_take_members(struct parse *p, json_t *object, const struct member *members, unsigned count)
{
	struct error *err;
	const char *key;
	json_t *v;

	if (!json_is_object(object))
		return error_new("configuration: '%s' has to be an object", *p->path ? p->path : "the whole");
	json_object_foreach(object, key, v) {
		bool known = false;

		for (unsigned i = 0; i < count && !known; i++)
			known = !strcmp(key, members[i].name);
		if (!known)
			return error_new("configuration: '%s%s%.64s' is unknown", p->path, *p->path ? "." : "", key);
	}
	for (unsigned i = 0; i < count; i++) {
		v = json_object_get(object, members[i].name);
		if (!v && members[i].required)
			return config_complain(p, members[i].name, "is missing");
		if (v) {
			err = members[i].take(p, members[i].name, v);
			if (err)
				return err;
		}
	}
	return NULL;
}

struct error *config_take_object(struct parse *p, const char *name, json_t *v, const struct member *members,
				 unsigned count)
{
	char path[96];
	struct parse inner = { p->c, path };

	snprintf(path, sizeof(path), "%s%s%s", p->path, *p->path ? "." : "", name);
	return config_take_members(&inner, v, members, count);
}

struct error *config_take_array(struct parse *p, const char *name, json_t *v, const char *what, unsigned least, unsigned most,
				const struct member *members, unsigned count, unsigned *taken)
{
	struct error *err = NULL;
	char text[96];

	if (!json_is_array(v) || json_array_size(v) < least || json_array_size(v) > most) {
		snprintf(text, sizeof(text), "has to be an array of %u to %u %s", least, most, what);
		return config_complain(p, name, text);
	}
	for (size_t i = 0; !err && i < json_array_size(v); i++) {
		++*taken;
		snprintf(text, sizeof(text), "%s[%zu]", name, i);
		err = config_take_object(p, text, json_array_get(v, i), members, count);
	}
	return err;
}

struct error *config_get_integer(struct parse *p, const char *name, json_t *v, uint64_t min, uint64_t max,
				 uint64_t *out)
{
	char what[96];

	if (json_is_integer(v) && json_integer_value(v) >= 0 &&
	    (uint64_t)json_integer_value(v) >= min && (uint64_t)json_integer_value(v) <= max) {
		*out = json_integer_value(v);
		return NULL;
	}
	snprintf(what, sizeof(what), "has to be an integer of %" PRIu64 " to %" PRIu64, min, max);
	return config_complain(p, name, what);
}

struct error *config_get_string(struct parse *p, const char *name, json_t *v, size_t max, char **out)
{
	if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v))
		return config_complain(p, name, "has to be a string without NUL");
	if (json_string_length(v) > max)
		return config_complain(p, name, "is too long");
	free(*out);
	*out = strdup(json_string_value(v));
	return *out ? NULL : error_errno(ENOMEM, "configuration");
}

struct error *config_get_word(struct parse *p, const char *name, json_t *v, size_t max, char **out)
{
	struct error *err = config_get_string(p, name, v, max, out);

	if (err)
		return err;
	for (const char *s = *out; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("-_.:", *s))
			return config_complain(p, name, "may consist of letters, digits and - _ . : only");
	return **out ? NULL : config_complain(p, name, "is empty");
}

struct error *config_get_bool(struct parse *p, const char *name, json_t *v, bool *out)
{
	if (!json_is_boolean(v))
		return config_complain(p, name, "has to be true or false");
	*out = json_is_true(v);
	return NULL;
}

struct error *config_get_fd(struct parse *p, const char *name, json_t *v, int *out)
{
	struct vm_config *c = p->c;
	uint64_t fd = 0;
	unsigned at;
	struct error *err = config_get_integer(p, name, v, 3, 1u << 20, &fd);

	if (err)
		return err;
	for (at = 0; at < c->fd_count && c->fds[at] < (int)fd; at++)
		;
	if (at < c->fd_count && c->fds[at] == (int)fd)
		return config_complain(p, name, "is a descriptor that another member has already");
	if (c->fd_count == VM_CONFIG_FDS)
		return config_complain(p, name, "is one descriptor too many");
	memmove(c->fds + at + 1, c->fds + at, (c->fd_count - at) * sizeof(c->fds[0]));
	c->fds[at] = fd;
	c->fd_count++;
	*out = fd;
	return NULL;
}
