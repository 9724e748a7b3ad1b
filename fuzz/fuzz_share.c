/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared folder at the mercy of its client: requests of any kind, one after the other, against a small tree. Whatever is
 * asked, the folder beside it stays as it was.
 *
 * Input: requests, each a byte for its type (an index of those there are), a byte for its length, and that many bytes.
 */
#include <assert.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "share/share.h"
#include "share/wire.h"

static char top[] = "/tmp/maru-fuzz-share.XXXXXX";
static struct share *s;

static int remove_one(const char *path, const struct stat *st UNUSED, int kind UNUSED, struct FTW *f)
{
	return f->level ? remove(path) : 0;
}

static void remove_all(void)
{
	nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(top);
}

static void make_tree(void)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/in", top);
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	if (mkdir(path, 0700) < 0 && chmod(path, 0700) < 0)
		abort();
	snprintf(path, sizeof(path), "%s/in/a", top);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/in/l", top);
	(void)!symlink("../out", path);
	snprintf(path, sizeof(path), "%s/in/f", top);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
}

static void begin(void)
{
	char path[128];

	log_init("fuzz", LOG_LEVEL_ERROR);
	if (!mkdtemp(top))
		abort();
	atexit(remove_all);
	snprintf(path, sizeof(path), "%s/out", top);
	if (mkdir(path, 0700) < 0)
		abort();
	make_tree();
	snprintf(path, sizeof(path), "%s/in", top);
	if (share_create(open(path, O_PATH | O_DIRECTORY), open("/proc/self/fd", O_PATH | O_DIRECTORY), false, 64, &s))
		abort();
}

static void attach(void)
{
	uint8_t reply[SHARE_MESSAGE_MAX], m[] = { 23, 0, 0, 0, 104, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0 };

	if (!share_handle(s, m, sizeof(m), reply))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t types[] = { 8, 12, 14, 16, 18, 20, 22, 24, 26, 30, 32, 40, 50, 52, 54, 70, 72, 74, 76, 100, 102,
					 104, 108, 110, 110, 110, 110, 116, 118, 120, 122, 200 };
	static uint8_t reply[SHARE_MESSAGE_MAX];
	char path[128];
	unsigned steps = 0;

	if (!s)
		begin();
	share_reset(s);
	attach();
	while (size >= 2 && steps++ < 64) {
		uint8_t request[7 + 255];
		size_t len = MIN(data[1], size - 2), n;

		store_le(request, 7 + len, 4);
		request[4] = types[data[0] % sizeof(types)];
		store_le(request + 5, 1, 2);
		memcpy(request + 7, data + 2, len);
		n = share_handle(s, request, 7 + len, reply);
		assert(n >= 7 && n <= SHARE_MESSAGE_MAX && load_le(reply, 4) == n);
		data += 2 + len;
		size -= 2 + len;
	}
	share_reset(s);
	snprintf(path, sizeof(path), "%s/out", top);
	assert(rmdir(path) == 0 && mkdir(path, 0700) == 0); /* nothing was made in it */
	if (steps > 1)
		make_tree();
	return 0;
}
