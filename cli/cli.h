/* SPDX-License-Identifier: Apache-2.0 */
/* What the subcommands of maru share. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

#define CLI_EXIT_USAGE 2 /* also: could not be started; the statuses of maru-vm pass through */

#ifndef MARU_VERSION
#define MARU_VERSION "0.1"
#endif

/* Subcommands: argv[0] is the subcommand's name; return the exit status. */
int cmd_run(int argc, char **argv);
int cmd_image(int argc, char **argv);
int cmd_balloon(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_guest(int argc, char **argv);
int cmd_help(int argc, char **argv);

/* help.c: the text for "run", "image" …, NULL when there is none. */
const char *help_text(const char *command);
/* There is no such command; which one may have been meant. */
struct error *help_unknown(const char *command) MUST_CHECK;

/* Prints the error on standard error, frees it, returns CLI_EXIT_USAGE. */
int cli_fail(struct error *err);

/* "-o json" (or --output) at @argv[*i], as all commands that tell something take it: sets @json, moves on. */
bool cli_is_output(const char *arg);
struct error *cli_take_output(int argc, char **argv, int *i, bool *json) MUST_CHECK;
/* The number @name in @o; 0 for a negative one, and for what is none. */
uint64_t cli_number(const json_t *o, const char *name);
/* Takes @o. In ASCII: what JSON leaves as it is could still be a control character of a terminal's (U+009B, for one). */
void cli_print_json(json_t *o);
/*
 * @text of a guest's or of a VM's process (NULL, or none: "") in new memory, the caller's, as it may be shown: control characters,
 * also those of U+0080 to U+009F, and those that turn lines around, are '?', and after @most bytes it ends.
 */
char *cli_printable(const json_t *text, size_t most);
/* The same of the name of a member, which is UTF-8 because jansson has read it. */
char *cli_printable_name(const char *name, size_t most);
#define CLI_REFUSAL_BYTES 400u /* that much of why somebody refuses something */

/* "512M" to bytes; suffixes K M G T (powers of 1024), also as KiB, MB …; no suffix: bytes. */
struct error *cli_parse_size(const char *what, const char *text, uint64_t *bytes) MUST_CHECK;
/* A decimal number from @min to @max. */
struct error *cli_parse_number(const char *what, const char *text, uint64_t min, uint64_t max,
			       uint64_t *out) MUST_CHECK;
/* "1.5 GiB" into @buf; returns @buf. */
const char *cli_format_size(uint64_t bytes, char *buf, size_t size);
/* "1:02:03": hours, minutes, seconds. */
const char *cli_format_uptime(uint64_t ns, char *buf, size_t size);
/* Has @s something before @end, and this at its end? */
bool cli_ends_with(const char *s, const char *end);
/* The one of @names (NULL at the end) that a person may have meant by @text; NULL: nothing is near. */
const char *cli_nearest(const char *text, const char *const *names);

/* The folder this program is in; and a program of ours beside it or in the installation's libexec/maru. */
struct error *cli_program(const char *name, char *path, size_t size) MUST_CHECK;
/* The folder with the scripts that make guests. */
struct error *cli_guest_folder(char *path, size_t size) MUST_CHECK;

#endif
