/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's free memory, from /proc/meminfo and the memory control groups.
 *
 * Version 2 names the group of a process in the line "0::PATH" of /proc/self/cgroup, version 1 in
 * "N:memory:PATH" (cgroups(7)); the limits of all groups from there up to the root apply. In a container
 * PATH may name a folder that cannot be seen from inside; the folders above it are then looked at all the
 * same. Page cache that can be dropped counts as free.
 */
#include "mem/host.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"

/* The number after the word @key at the start of a line of @path; a file of one number has no key. */
static bool read_number(const char *path, const char *key, uint64_t *out)
{
	size_t key_len = strlen(key);
	FILE *file = fopen(path, "re");
	bool found = false;
	char line[256];

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file)) {
		char *end;

		if (strncmp(line, key, key_len))
			continue;
		errno = 0;
		*out = strtoull(line + key_len, &end, 10);
		found = end != line + key_len && !errno;
	}
	fclose(file);
	return found;
}

/* What the group @folder leaves; UINT64_MAX without a limit. */
static uint64_t group_leaves(const char *folder, const char *limit_file, const char *usage_file)
{
	uint64_t limit, usage, cache = 0;
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", folder, limit_file);
	if (!read_number(path, "", &limit))
		return UINT64_MAX; /* "max", or not a group with a limit */
	snprintf(path, sizeof(path), "%s/%s", folder, usage_file);
	if (!read_number(path, "", &usage))
		return UINT64_MAX;
	snprintf(path, sizeof(path), "%s/memory.stat", folder);
	read_number(path, "inactive_file ", &cache);
	usage -= MIN(usage, cache);
	return limit - MIN(limit, usage);
}

/* The least that the group at @root/@path and those above it leave. */
static uint64_t groups_leave(const char *root, const char *path, const char *limit_file,
			     const char *usage_file)
{
	uint64_t least = UINT64_MAX;
	char folder[PATH_MAX];
	int len = snprintf(folder, sizeof(folder), "%s%s", root, path);
	char *end;

	if (len < 0 || (size_t)len >= sizeof(folder))
		return UINT64_MAX;
	for (;;) {
		least = MIN(least, group_leaves(folder, limit_file, usage_file));
		end = strrchr(folder, '/');
		if (!end || (size_t)(end - folder) < strlen(root))
			return least;
		*end = 0;
	}
}

static uint64_t all_groups_leave(void)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	uint64_t least = UINT64_MAX;
	char line[PATH_MAX];

	if (!file)
		return UINT64_MAX;
	while (fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':'),
		     *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = 0;
		path[strcspn(path, "\n")] = 0;
		if (!strcmp(line, "0:"))
			least = MIN(least, groups_leave("/sys/fs/cgroup", path, "memory.max",
							"memory.current"));
		else if (!strcmp(controllers, ":memory"))
			least = MIN(least,
				    groups_leave("/sys/fs/cgroup/memory", path,
						 "memory.limit_in_bytes", "memory.usage_in_bytes"));
	}
	fclose(file);
	return least;
}

uint64_t host_memory_available(void)
{
	uint64_t available_kib, swap_kib = 0, available = UINT64_MAX;

	if (read_number("/proc/meminfo", "MemAvailable:", &available_kib)) {
		read_number("/proc/meminfo", "SwapFree:", &swap_kib);
		available = (available_kib + swap_kib) * KiB;
	}
	return MIN(available, all_groups_leave());
}

struct size_text size_to_text(uint64_t bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	struct size_text size;
	unsigned unit = 0;

	while (unit + 1 < ARRAY_SIZE(units) && bytes && bytes % 1024 == 0) {
		bytes /= 1024;
		unit++;
	}
	snprintf(size.text, sizeof(size.text), "%" PRIu64 " %s", bytes, units[unit]);
	return size;
}
