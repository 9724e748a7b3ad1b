/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's free memory, from /proc/meminfo and the memory control groups.
 *
 * Version 2 names the group of a process in the line "0::PATH" of /proc/self/cgroup, version 1 in
 * "N:memory:PATH" (cgroups(7)); the limits of all groups from there up to the root apply. In a container
 * PATH may name a folder that cannot be seen from inside; the folders above it are then looked at all the
 * same. Page cache that can be dropped counts as free.
 *
 * Huge pages: Documentation/admin-guide/mm/transhuge.rst; equal pages: ksm.rst beside it.
 */
#include "mem/host.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* What the group @folder leaves, or with @all its whole limit; UINT64_MAX without a limit. */
static uint64_t group_leaves(const char *folder, const char *limit_file, const char *usage_file, bool all)
{
	uint64_t limit, usage, cache = 0;
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", folder, limit_file);
	if (!read_number(path, "", &limit))
		return UINT64_MAX; /* "max", or not a group with a limit */
	if (all)
		return limit;
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
			     const char *usage_file, bool all)
{
	uint64_t least = UINT64_MAX;
	char folder[PATH_MAX];
	int len = snprintf(folder, sizeof(folder), "%s%s", root, path);
	char *end;

	if (len < 0 || (size_t)len >= sizeof(folder))
		return UINT64_MAX;
	for (;;) {
		least = MIN(least, group_leaves(folder, limit_file, usage_file, all));
		end = strrchr(folder, '/');
		if (!end || (size_t)(end - folder) < strlen(root))
			return least;
		*end = 0;
	}
}

static uint64_t all_groups_leave(bool all)
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
							"memory.current", all));
		else if (!strcmp(controllers, ":memory"))
			least = MIN(least,
				    groups_leave("/sys/fs/cgroup/memory", path,
						 "memory.limit_in_bytes", "memory.usage_in_bytes", all));
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
	return MIN(available, all_groups_leave(false));
}

uint64_t host_memory_total(void)
{
	uint64_t total_kib, swap_kib = 0, total = UINT64_MAX;

	if (read_number("/proc/meminfo", "MemTotal:", &total_kib)) {
		read_number("/proc/meminfo", "SwapTotal:", &swap_kib);
		total = (total_kib + swap_kib) * KiB;
	}
	return MIN(total, all_groups_leave(true));
}

uint64_t host_memory_promisable(void)
{
	uint64_t mode, limit_kib, promised_kib;

	if (!read_number("/proc/sys/vm/overcommit_memory", "", &mode) || mode != 2 ||
	    !read_number("/proc/meminfo", "CommitLimit:", &limit_kib) ||
	    !read_number("/proc/meminfo", "Committed_AS:", &promised_kib))
		return UINT64_MAX;
	return (limit_kib - MIN(limit_kib, promised_kib)) * KiB;
}

bool host_has_huge_pages(void)
{
	FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
	char line[64] = "";
	bool has = file && fgets(line, sizeof(line), file) && !strstr(line, "[never]");

	if (file)
		fclose(file);
	return has;
}

enum host_ksm host_ksm(void)
{
	uint64_t run;

	if (!read_number("/sys/kernel/mm/ksm/run", "", &run))
		return HOST_KSM_NONE;
	return run == 1 ? HOST_KSM_ON : HOST_KSM_OFF;
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
