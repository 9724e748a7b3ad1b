/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON held against tables of members, for config.c: what is not in a table is refused, so that a misspelt member is an error and
 * not a surprise. The getters check a value and store it; complaints name the member by its path.
 */
#ifndef VM_CONFIG_MEMBERS_H
#define VM_CONFIG_MEMBERS_H

#include <jansson.h>

#include "vm/config.h"

/* While parsing: where we are, for messages. */
struct parse {
	struct vm_config *c;
	const char *path; /* "disks[1].chain[0]", "" at the top */
};

struct member {
	const char *name;
	bool required;
	struct error *(*take)(struct parse *p, const char *name, json_t *v);
};

struct error *config_complain(const struct parse *p, const char *name, const char *what) MUST_CHECK;
/* All of @object's members, and no others. */
struct error *config_take_members(struct parse *p, json_t *object, const struct member *members, unsigned count) MUST_CHECK;
/* The same of the object @v, the member @name. */
struct error *config_take_object(struct parse *p, const char *name, json_t *v, const struct member *members,
				 unsigned count) MUST_CHECK;
/*
 * An array of @least to @most objects, "@what" for messages. *@taken counts them, the one that is being taken included, so that the
 * members' functions find their place.
 */
struct error *config_take_array(struct parse *p, const char *name, json_t *v, const char *what, unsigned least, unsigned most,
				const struct member *members, unsigned count, unsigned *taken) MUST_CHECK;

struct error *config_get_integer(struct parse *p, const char *name, json_t *v, uint64_t min, uint64_t max, uint64_t *out) MUST_CHECK;
struct error *config_get_string(struct parse *p, const char *name, json_t *v, size_t max, char **out) MUST_CHECK;
/* A string of letters, digits and - _ . :, at least one. */
struct error *config_get_word(struct parse *p, const char *name, json_t *v, size_t max, char **out) MUST_CHECK;
struct error *config_get_bool(struct parse *p, const char *name, json_t *v, bool *out) MUST_CHECK;
/* A descriptor: not one of the standard three, and named once. */
struct error *config_get_fd(struct parse *p, const char *name, json_t *v, int *out) MUST_CHECK;

#endif
