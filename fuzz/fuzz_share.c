/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared folder at the mercy of its client: FUSE requests of any kind, one after the other, against a small tree, with so few
 * descriptors that they are given up and looked for again all the time. Whatever is asked, the folder beside it stays as
 * it was.
 *
 * Input: steps. Most are requests put together of few bytes, so that they go far: an opcode, a node, names out of a small choice,
 * flags. Others have arguments as they come.
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
#include "fuzz/input.h"
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
	if (share_create(open(path("in"), O_PATH | O_DIRECTORY), open("/proc/self/fd", O_PATH | O_DIRECTORY), false,
			 SHARE_FDS_MIN, &s))
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

struct message {
	size_t len;
	uint8_t bytes[1024];
};

static void add(struct message *m, const void *data, size_t len)
{
	len = MIN(len, sizeof(m->bytes) - m->len);
	memcpy(m->bytes + m->len, data, len);
	m->len += len;
}

static void add_name(struct message *m, struct input *in)
{
	static const char *const names[] = { "a",  "b", "f", "l",	 "p",	   "x", "c", "new",
					     "..", ".", "",  "l/secret", "../out", "a", "b", "f" };
	const char *name = names[take(in, 1) % ARRAY_SIZE(names)];

	add(m, name, strlen(name) + 1);
}

/* Sends it; the reply must be one. */
static void request(uint32_t opcode, uint64_t node, struct message *m, size_t room)
{
	static uint8_t reply[SHARE_MESSAGE_MAX];
	struct fuse_in_header head = { .len = (uint32_t)m->len, .opcode = opcode, .unique = 7, .nodeid = node };
	struct fuse_out_header answer;
	size_t n;

	memcpy(m->bytes, &head, sizeof(head));
	n = share_handle(s, m->bytes, m->len, reply, room);
	if (room < sizeof(answer)) {
		assert(!n);
		return;
	}
	memcpy(&answer, reply, sizeof(answer));
	assert(n >= sizeof(answer) && n <= room && answer.len == n && answer.unique == 7 && answer.error <= 0 &&
	       answer.error > -4096);
}

#define ADD(m, ...) add(m, &(__VA_ARGS__), sizeof(__VA_ARGS__))

static void add_arguments(struct message *m, uint32_t opcode, struct input *in)
{
	static const int flags[] = { O_RDONLY,	       O_WRONLY,	O_RDWR,
				     O_RDWR | O_TRUNC, O_RDWR | O_EXCL, O_WRONLY | O_APPEND,
				     O_ACCMODE,	       O_RDWR };

	switch (opcode) {
	case FUSE_OPEN:
	case FUSE_OPENDIR: ADD(m, (struct fuse_open_in){ .flags = (uint32_t)flags[take(in, 1) & 7] }); break;
	case FUSE_CREATE:
		ADD(m, (struct fuse_create_in){ .flags = (uint32_t)flags[take(in, 1) & 7], .mode = 0700 });
		add_name(m, in);
		break;
	case FUSE_MKDIR:
	case FUSE_MKNOD:
		ADD(m, (struct fuse_mkdir_in){ .mode = 0700 | (take(in, 1) & 0xf) << 12 });
		if (opcode == FUSE_MKNOD)
			ADD(m, (uint64_t){ 0 });
		add_name(m, in);
		break;
	case FUSE_READ:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		ADD(m, (struct fuse_read_in){
			       .fh = take(in, 1) & 7, .offset = take(in, 1) & 3, .size = (uint32_t)take(in, 1) * 64 });
		break;
	case FUSE_WRITE:
		ADD(m, (struct fuse_write_in){
			       .fh = take(in, 1) & 7, .offset = take(in, 2), .size = (uint32_t)take(in, 1) });
		add(m, top, sizeof(top));
		break;
	case FUSE_RELEASE: ADD(m, (struct fuse_release_in){ .fh = take(in, 1) & 7 }); break;
	case FUSE_LSEEK:
		ADD(m,
		    (struct fuse_lseek_in){ .fh = take(in, 1) & 7, .offset = take(in, 1), .whence = take(in, 1) & 7 });
		break;
	case FUSE_FALLOCATE:
		ADD(m, (struct fuse_fallocate_in){ take(in, 1) & 7, take(in, 2), take(in, 2), (uint32_t)take(in, 1), 0 });
		break;
	case FUSE_RENAME2:
		ADD(m, (struct fuse_rename2_in){ .newdir = take(in, 1) & 15, .flags = take(in, 1) & 3 });
		add_name(m, in);
		add_name(m, in);
		break;
	case FUSE_RENAME:
		ADD(m, (struct fuse_rename_in){ take(in, 1) & 15 });
		add_name(m, in);
		add_name(m, in);
		break;
	case FUSE_LINK:
		ADD(m, (struct fuse_link_in){ take(in, 1) & 15 });
		add_name(m, in);
		break;
	case FUSE_SYMLINK:
		add_name(m, in);
		add_name(m, in);
		break;
	case FUSE_SETATTR:
		ADD(m, (struct fuse_setattr_in){ .valid = (uint32_t)take(in, 2) & ~0x6u,
						 .fh = take(in, 1) & 7,
						 .size = take(in, 2),
						 .mode = 0700 });
		break;
	case FUSE_GETATTR:
		ADD(m, (struct fuse_getattr_in){ .getattr_flags = take(in, 1) & 1, .fh = take(in, 1) & 7 });
		break;
	case FUSE_FORGET: ADD(m, (struct fuse_forget_in){ take(in, 1) & 3 }); break;
	default: add_name(m, in); break;
	}
}

static void step(struct input *in)
{
	/* Those that a client comes far with more than once. */
	static const uint8_t opcodes[] = {
		FUSE_LOOKUP,  FUSE_LOOKUP,   FUSE_LOOKUP,      FUSE_OPEN,    FUSE_OPEN,	     FUSE_READ,
		FUSE_WRITE,   FUSE_CREATE,   FUSE_CREATE,      FUSE_MKDIR,   FUSE_RENAME2,   FUSE_RENAME,
		FUSE_LINK,    FUSE_SYMLINK,  FUSE_UNLINK,      FUSE_RMDIR,   FUSE_GETATTR,   FUSE_SETATTR,
		FUSE_OPENDIR, FUSE_READDIR,  FUSE_READDIRPLUS, FUSE_RELEASE, FUSE_FORGET,    FUSE_BATCH_FORGET,
		FUSE_MKNOD,   FUSE_READLINK, FUSE_STATFS,      FUSE_LSEEK,   FUSE_FALLOCATE, FUSE_DESTROY,
		FUSE_INIT,    FUSE_GETXATTR,
	};
	uint8_t op = (uint8_t)take(in, 1), node = (uint8_t)take(in, 1);
	uint32_t opcode = opcodes[op % sizeof(opcodes)];
	struct message m = { .len = sizeof(struct fuse_in_header) };
	size_t room = SHARE_MESSAGE_MAX;

	if ((op & 0xe0) == 0xe0) {
		size_t len = take(in, 1);

		room = take(in, 1);
		len = MIN(len, in->left);
		add(&m, in->data, len);
		in->data += len;
		in->left -= len;
	} else if ((op & 0xe0) == 0xc0) {
		play_host(node);
		return;
	} else {
		add_arguments(&m, opcode, in);
	}
	request(opcode, node & 15, &m, room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!s)
		begin();
	share_reset(s);
	for (unsigned i = 0; in.left && i < STEPS_MAX; i++)
		step(&in);
	share_reset(s);
	assert(rmdir(path("out")) == 0 && mkdir(path("out"), 0700) == 0); /* nothing was made in it */
	make_tree();
	return 0;
}
