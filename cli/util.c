// SPDX-License-Identifier: Apache-2.0
/* Numbers, sizes, names and places for the subcommands. */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

int cli_fail(struct error *err)
{
	fprintf(stderr, "maru: %s\n", error_message(err));
	error_free(err);
	return CLI_EXIT_USAGE;
}

bool cli_is_output(const char *arg)
{
	return !strcmp(arg, "-o") || !strcmp(arg, "--output");
}

struct error *cli_take_output(int argc, char **argv, int *i, bool *json)
{
	if (*i + 1 == argc || strcmp(argv[*i + 1], "json"))
		return error_new("%s takes json", argv[*i]);
	*json = true;
	++*i;
	return NULL;
}

uint64_t cli_number(const json_t *o, const char *name)
{
	json_int_t v = json_integer_value(json_object_get(o, name));

	return v > 0 ? (uint64_t)v : 0;
}

void cli_print_json(json_t *o)
{
	json_dumpf(o, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(o);
}

/* What a terminal acts on: control characters, and those that turn the order of what follows around or end its line. @s: UTF-8. */
static bool is_control(const unsigned char *s)
{
	if (*s < 0x20 || *s == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xd8 && s[1] == 0x9c))
		return true;
	if (s[0] != 0xe2)
		return false;
	return (s[1] == 0x80 && (s[2] == 0x8e || s[2] == 0x8f || (s[2] >= 0xa8 && s[2] <= 0xae))) || (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9);
}

static char *printable(const char *s, size_t len, size_t most)
{
	char *out = malloc(MIN(len, most) + 1);
	size_t used = 0;

	assert(out);
	for (size_t i = 0, n; i < len; i += n) {
		unsigned char c = (unsigned char)s[i];
		bool bad = is_control((const unsigned char *)s + i);

		n = c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4; /* it is UTF-8: jansson has looked */
		if (used + n > most)
			break;
		if (bad)
			out[used++] = '?';
		else
			memcpy(out + used, s + i, n);
		used += bad ? 0 : n;
	}
	out[used] = 0;
	return out;
}

char *cli_printable(const json_t *text, size_t most)
{
	return printable(json_string_value(text), json_string_length(text), most);
}

char *cli_printable_name(const char *name, size_t most)
{
	return printable(name, strlen(name), most);
}

struct error *cli_parse_number(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || v < min || v > max)
		return error_new("%s takes a number from %" PRIu64 " to %" PRIu64 ", not '%s'", what, min, max, text);
	*out = v;
	return NULL;
}

struct error *cli_parse_size(const char *what, const char *text, uint64_t *bytes)
{
	static const char suffixes[] = "KMGT";
	const char *suffix, *found;
	unsigned shift = 0;
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || errno)
		goto bad;
	suffix = end;
	if (*suffix) {
		found = strchr(suffixes, toupper((unsigned char)*suffix));
		if (!found)
			goto bad;
		shift = 10 * (found - suffixes + 1);
		suffix++;
		if (*suffix && strcmp(suffix, "iB") && strcmp(suffix, "B"))
			goto bad;
	}
	if (v > UINT64_MAX >> shift)
		return error_new("%s: '%s' is larger than any memory or disk", what, text);
	*bytes = v << shift;
	return NULL;
bad:
	return error_new("%s takes a size such as 512M, 2G or 1T, not '%s'", what, text);
}

const char *cli_format_size(uint64_t bytes, char *buf, size_t size)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned unit = 0;
	double v = bytes;

	while (v >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		unit++;
	}
	snprintf(buf, size, v == (uint64_t)v ? "%.0f %s" : "%.1f %s", v, units[unit]);
	return buf;
}

const char *cli_format_uptime(uint64_t ns, char *buf, size_t size)
{
	uint64_t up = ns / NS_PER_SEC;

	snprintf(buf, size, "%" PRIu64 ":%02u:%02u", up / 3600, (unsigned)(up / 60 % 60), (unsigned)(up % 60));
	return buf;
}

bool cli_ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n > m && !strcmp(s + n - m, end);
}

/* Edit distance (insert, delete, replace), for words of up to 31 letters. */
static unsigned distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	unsigned row[32];

	if (n > 31 || m > 31)
		return 99;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		unsigned corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			unsigned above = row[j], best = corner + (a[i - 1] != b[j - 1]);

			best = MIN(best, above + 1);
			row[j] = MIN(best, row[j - 1] + 1);
			corner = above;
		}
	}
	return row[m];
}

const char *cli_nearest(const char *text, const char *const *names)
{
	const char *best = NULL;
	unsigned least = 3;

	for (; *names; names++) {
		unsigned d = strlen(text) > 2 && !strncmp(text, *names, strlen(text)) ? 1 : distance(text, *names);

		if (d < least) {
			least = d;
			best = *names;
		}
	}
	return best;
}

/* The folder of the running program, without a slash at the end. */
static struct error *own_folder(char *path, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", path, size - 1);
	char *slash;

	if (n < 0)
		return error_errno(errno, "cannot find the folder of this program (is /proc mounted?): /proc/self/exe");
	path[n] = 0;
	slash = strrchr(path, '/');
	if (!slash)
		return error_new("cannot find the folder of this program");
	*slash = 0;
	return NULL;
}

struct error *cli_program(const char *name, char *path, size_t size)
{
	char folder[3072];
	struct error *err = own_folder(folder, sizeof(folder));

	if (err)
		return err;
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, size, i ? "%s/../libexec/maru/%s" : "%s/%s", folder, name);
		if (access(path, X_OK) == 0)
			return NULL;
	}
	return error_new("the program %s is neither beside maru in %s nor in ../libexec/maru: the installation is not complete",
			 name, folder);
}

struct error *cli_guest_folder(char *path, size_t size)
{
	char folder[3072];
	struct stat st;
	struct error *err = own_folder(folder, sizeof(folder));

	if (err)
		return err;
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, size, i ? "%s/../../guest" : "%s/../lib/maru/guest", folder);
		if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
			return NULL;
	}
	return error_new("the catalogue's folder is neither %s/../lib/maru/guest nor %s/../../guest: the installation is not complete",
			 folder, folder);
}
