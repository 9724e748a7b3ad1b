// SPDX-License-Identifier: Apache-2.0
/*
 * The host's figures about guest memory; see memstat.h.
 *
 * Sources: the blocks of the memfd; /proc/PID/ksm_merging_pages (Linux 5.19) and ksm_stat (6.1), which count for this
 * process, of which guest memory is all that may be merged; AnonHugePages of /proc/PID/smaps_rollup, where guest
 * memory is all that asks for huge pages. Each is text of a line or some, made anew by each read from its start.
 */
#include "vm/memstat.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"

#define TEXT_BYTES 4096u
#define FILE_BLOCK_BYTES 512u /* of st_blocks */

void memstat_init(struct memstat *m)
{
	*m = (struct memstat){ -1, -1, -1 };
}

void memstat_open(struct memstat *m, const struct vm_config *config)
{
	if (config->mergeable) {
		m->ksm_pages_fd = open("/proc/self/ksm_merging_pages", O_RDONLY | O_CLOEXEC);
		m->ksm_stat_fd = open("/proc/self/ksm_stat", O_RDONLY | O_CLOEXEC);
	}
	if (config->huge_pages)
		m->smaps_fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void memstat_close(struct memstat *m)
{
	close_one(&m->ksm_pages_fd);
	close_one(&m->ksm_stat_fd);
	close_one(&m->smaps_fd);
}

/* The number behind the word @key (""; at the start), as the member @name, times @unit. */
static void add(json_t *to, const char *name, int fd, const char *key, int64_t unit)
{
	char text[TEXT_BYTES];
	ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);
	const char *at;
	int64_t value;

	if (n <= 0)
		return;
	text[n] = 0;
	at = strstr(text, key);
	if (at && !__builtin_mul_overflow(strtoll(at + strlen(key), NULL, 10), unit, &value))
		json_object_set_new(to, name, json_integer(value));
}

json_t *memstat_json(const struct memstat *m, const struct memory *mem)
{
	json_t *json = json_object();
	struct stat st;

	if (mem->ram_fd >= 0 && fstat(mem->ram_fd, &st) == 0)
		json_object_set_new(json, "resident", json_integer((json_int_t)st.st_blocks * FILE_BLOCK_BYTES));
	add(json, "merged", m->ksm_pages_fd, "", MEM_PAGE_SIZE);
	add(json, "merging_profit", m->ksm_stat_fd, "ksm_process_profit ", 1);
	add(json, "huge", m->smaps_fd, "AnonHugePages:", KiB);
	return json;
}
