/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared folder at the mercy of its client: FUSE requests of any kind, one after the other, against a small tree, with so few
 * descriptors that they are given up and looked for again all the time. Whatever is asked, the folder beside it stays as
 * it was.
 *
 * Input: requests, each a byte for what it asks for (an index of the table), one for its node, one for what the host does
 * in between or the room for the reply, one for its length, and that many bytes of arguments.
 */
#include <assert.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "share/share.h"

#define STEPS_MAX 64u

static char top[64] = "/dev/shm/maru-fuzz-share.XXXXXX";
static struct share *s;

static const char *path(const char *name)
{
	static char text[2][128];
	static unsigned next;

	next ^= 1;
	snprintf(text[next], sizeof(text[0]), "%s/%s", top, name);
	return text[next];
}

static int remove_one(const char *at, const struct stat *st UNUSED, int kind UNUSED, struct FTW *f)
{
	return f->level ? remove(at) : 0;
}

static void remove_all(void)
{
	nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(top);
}

static void make_tree(void)
{
	nftw(path("in"), remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	if (mkdir(path("in"), 0700) < 0 && chmod(path("in"), 0700) < 0)
		abort();
	mkdir(path("in/a"), 0700);
	mkdir(path("in/a/b"), 0700);
	(void)!symlink("../out", path("in/l"));
	mkfifo(path("in/p"), 0600);
	close(open(path("in/f"), O_CREAT | O_WRONLY, 0600));
	close(open(path("in/a/b/f"), O_CREAT | O_WRONLY, 0600));
}

static void begin(void)
{
	struct rlimit file = { 16 * MiB, 16 * MiB };

	log_init("fuzz", LOG_LEVEL_ERROR);
	/* What is allocated is taken from this host. */
	signal(SIGXFSZ, SIG_IGN);
	if (access("/dev/shm", W_OK) < 0)
		strcpy(top, "/tmp/maru-fuzz-share.XXXXXX");
	if (!mkdtemp(top) || setrlimit(RLIMIT_FSIZE, &file) < 0)
		abort();
	atexit(remove_all);
	if (mkdir(path("out"), 0700) < 0)
		abort();
	make_tree();
	if (share_create(open(path("in"), O_PATH | O_DIRECTORY), open("/proc/self/fd", O_PATH | O_DIRECTORY), false, SHARE_FDS_MIN, &s))
		abort();
}

/* What the host does meanwhile. */
static void play_host(unsigned what)
{
	switch (what & 31) {
	case 1: rename(path("in/a"), path("in/l/../c")); break;
	case 2: rename(path("in/a"), path("in/x")); break;
	case 3: rename(path("in/x"), path("in/a")); break;
	case 4: rename(path("in/a/b"), path("in/b")); break;
	case 5: rename(path("in/a"), path("in/b/a")); break;
	case 6: unlink(path("in/f")); break;
	case 7: (void)!symlink("../out", path("in/a")); break;
	case 8: rename(path("in/l"), path("in/f")); break;
	case 9: mkdir(path("in/f"), 0700); break;
	default: break;
	}
}

/* @size bytes of arguments; the reply must be one. */
static void request(uint32_t opcode, uint64_t node, const uint8_t *in, size_t size, size_t room)
{
	static uint8_t bytes[sizeof(struct fuse_in_header) + 256], reply[SHARE_MESSAGE_MAX];
	struct fuse_in_header head = { .len = (uint32_t)(sizeof(head) + size), .opcode = opcode, .unique = 7, .nodeid = node };
	struct fuse_out_header answer;
	size_t n;

	memcpy(bytes, &head, sizeof(head));
	if (size)
		memcpy(bytes + sizeof(head), in, size);
	n = share_handle(s, bytes, head.len, reply, room);
	if (room < sizeof(answer)) {
		assert(!n);
		return;
	}
	memcpy(&answer, reply, sizeof(answer));
	assert(n >= sizeof(answer) && n <= room && answer.len == n && answer.unique == 7 && answer.error <= 0 && answer.error > -4096);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Those that a client comes far with more than once. */
	static const uint8_t opcodes[] = {
		FUSE_LOOKUP,  FUSE_LOOKUP,   FUSE_LOOKUP,      FUSE_OPEN,    FUSE_OPEN,	      FUSE_READ,	FUSE_WRITE,   FUSE_CREATE,
		FUSE_CREATE,  FUSE_MKDIR,    FUSE_RENAME2,     FUSE_RENAME,  FUSE_LINK,	      FUSE_SYMLINK,	FUSE_UNLINK,  FUSE_RMDIR,
		FUSE_GETATTR, FUSE_SETATTR,  FUSE_OPENDIR,     FUSE_READDIR, FUSE_READDIRPLUS, FUSE_RELEASE,	FUSE_FORGET,  FUSE_BATCH_FORGET,
		FUSE_MKNOD,   FUSE_READLINK, FUSE_STATFS,      FUSE_LSEEK,   FUSE_FALLOCATE,   FUSE_DESTROY,	FUSE_INIT,    FUSE_GETXATTR,
	};
	unsigned steps = 0;

	if (!s)
		begin();
	share_reset(s);
	for (; size >= 4 && steps < STEPS_MAX; steps++) {
		size_t len = MIN(data[3], size - 4);

		play_host(data[2]);
		request(opcodes[data[0] % sizeof(opcodes)], data[1] & 31, data + 4, len, data[2] & 128 ? data[2] & 127u : SHARE_MESSAGE_MAX);
		data += 4 + len;
		size -= 4 + len;
	}
	share_reset(s);
	assert(rmdir(path("out")) == 0 && mkdir(path("out"), 0700) == 0); /* nothing was made in it */
	if (steps)
		make_tree();
	return 0;
}
