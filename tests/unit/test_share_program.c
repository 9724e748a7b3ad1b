/* SPDX-License-Identifier: Apache-2.0 */
/*
 * maru-share, the program: each request once, in its cage, over its socket; and what ends it. The rooms' own tests know nothing
 * of the system calls that it may make.
 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "tests/unit/share_client.h"

static char program[512];
static pid_t pid;
static int server;
static uint32_t next_id;

static void start_program(bool readonly)
{
	char fd[16], dir_fd[16];
	int pair[2], dir = open(path("in"), O_RDONLY | O_DIRECTORY);

	if (dir < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
		abort();
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		snprintf(fd, sizeof(fd), "%d", pair[1]);
		snprintf(dir_fd, sizeof(dir_fd), "%d", dir);
		execl(program, "maru-share", "--fd", fd, "--dir-fd", dir_fd, readonly ? "--readonly" : NULL, NULL);
		_exit(127);
	}
	close(pair[1]);
	close(dir);
	server = pair[0];
}

/* Its exit status; a signal's number, negative. */
static int end_program(void)
{
	int status;

	close(server);
	if (waitpid(pid, &status, 0) != pid)
		abort();
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void say(uint32_t total, uint32_t offset, uint32_t room, const void *data, size_t len)
{
	struct share_packet head = { next_id, total, offset, room };
	struct iovec iov[2] = { { &head, sizeof(head) }, { (void *)data, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	(void)!sendmsg(server, &msg, MSG_NOSIGNAL);
}

/* As the device does it: in pieces, and back. 0: nothing that is a reply. */
static size_t over_socket(const void *request, size_t len, uint8_t *reply, size_t room)
{
	struct share_packet head;
	struct iovec iov[2] = { { &head, sizeof(head) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	size_t got = 0;

	next_id++;
	for (size_t at = 0; at < len; at += SHARE_PIECE_MAX)
		say((uint32_t)len, (uint32_t)at, (uint32_t)room, (const uint8_t *)request + at,
		    MIN(len - at, SHARE_PIECE_MAX));
	do {
		ssize_t n;

		iov[1] = (struct iovec){ reply + got, room - got };
		n = recvmsg(server, &msg, 0);
		if (n <= (ssize_t)sizeof(head) || msg.msg_flags & MSG_TRUNC || head.id != next_id ||
		    head.offset != got || head.room)
			return 0;
		got += (size_t)n - sizeof(head);
	} while (got < head.total);
	return got == head.total ? got : 0;
}

/* Whoever starts a VM may be allowed only so much (ulimit -f): what the guest writes beyond that is an error of its own. */
static void test_file_limit(void)
{
	struct fuse_setattr_in set = { .valid = FATTR_SIZE, .size = 2 * MiB };
	struct rlimit before, limit;
	uint64_t node, fh;

	if (getrlimit(RLIMIT_FSIZE, &before))
		abort();
	limit = before;
	limit.rlim_cur = MiB;
	if (setrlimit(RLIMIT_FSIZE, &limit))
		abort();
	start_program(false);
	setrlimit(RLIMIT_FSIZE, &before);
	if (client_init(&c) || create(ROOT, "f", O_RDWR, &node, &fh))
		abort();
	is_u64((uint64_t)write_at(node, fh, 2 * MiB, "text"), EFBIG, "WRITE beyond the limit on the size of files");
	is_u64((uint64_t)setattr(node, &set), EFBIG, "and SETATTR");
	ok(!write_at(node, fh, 0, "text") && !unlink_name(ROOT, "f"), "nothing else is lost");
	is_u64((uint64_t)end_program(), 0, "it ends when its socket does");
}

static void test_each(void)
{
	struct fuse_setattr_in set = {
		.valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME, .mode = 0600, .size = 100, .mtime = 5
	};
	struct fuse_fsync_in sync = { .fsync_flags = FUSE_FSYNC_FDATASYNC };
	struct fuse_fallocate_in space = { .length = 1000 };
	struct fuse_lseek_in seek = { .whence = SEEK_HOLE };
	struct fuse_rename_in plain = { ROOT };
	struct fuse_read_in list = { .size = 4096 };
	uint64_t node = 0, fh = 0, dir = 0, dir_fh = 0;

	is_u64((uint64_t)client_init(&c), 0, "INIT");
	is_u64((uint64_t)client_do(&c, FUSE_STATFS, ROOT, NULL, 0, NULL), 0, "STATFS");
	is_u64((uint64_t)create(ROOT, "f", O_RDWR, &node, &fh), 0, "CREATE");
	ok(!write_at(node, fh, 0, "text") && !read_at(node, fh, 0, 100) && got("text"), "WRITE, READ");
	is_u64((uint64_t)setattr(node, &set), 0, "SETATTR");
	set = (struct fuse_setattr_in){ .valid = FATTR_SIZE | FATTR_FH, .fh = fh };
	ok(!setattr(node, &set) && !getattr(node) && !attr()->size, "with a handle, GETATTR");
	sync.fh = space.fh = seek.fh = fh;
	ok(!client_do(&c, FUSE_FALLOCATE, node, &space, sizeof(space), NULL) &&
		   !client_do(&c, FUSE_LSEEK, node, &seek, sizeof(seek), NULL),
	   "FALLOCATE, LSEEK");
	ok(!client_do(&c, FUSE_FSYNC, node, &sync, sizeof(sync), NULL), "FSYNC of the data");
	sync.fsync_flags = 0;
	ok(!client_do(&c, FUSE_FSYNC, node, &sync, sizeof(sync), NULL) &&
		   !client_do(&c, FUSE_SYNCFS, ROOT, "1234567", 8, NULL),
	   "and all, SYNCFS");
	ok(!release(node, fh) && !open_file(node, O_RDWR | O_TRUNC, &fh) && !release(node, fh), "RELEASE, OPEN");
	ok(!make_dir(ROOT, "d", &dir) && !make_node(ROOT, "n", S_IFREG | 0600) && !symlink_to(ROOT, "l", "f"),
	   "MKDIR, MKNOD, SYMLINK");
	ok(!link_to(dir, node, "h") && !lookup(ROOT, "l", &node) &&
		   !client_do(&c, FUSE_READLINK, node, NULL, 0, NULL) && got("f"),
	   "LINK, LOOKUP, READLINK");
	ok(!open_as(FUSE_OPENDIR, ROOT, 0, &dir_fh), "OPENDIR");
	list.fh = dir_fh;
	ok(!client_do(&c, FUSE_READDIR, ROOT, &list, sizeof(list), NULL) &&
		   !client_do(&c, FUSE_READDIRPLUS, ROOT, &list, sizeof(list), NULL),
	   "READDIR, READDIRPLUS");
	sync.fh = list.fh = dir_fh;
	ok(!client_do(&c, FUSE_FSYNCDIR, ROOT, &sync, sizeof(sync), NULL) && !release(ROOT, dir_fh),
	   "FSYNCDIR, RELEASEDIR");
	client_begin(&c, FUSE_RENAME, dir, &plain, sizeof(plain));
	client_name(&c, "h");
	client_name(&c, "n");
	is_u64((uint64_t)client_send(&c), 0, "RENAME over something");
	ok(!rename_to(ROOT, "n", dir, "m", 0) && !rename_to(dir, "m", ROOT, "n", RENAME_NOREPLACE) &&
		   !rename_to(ROOT, "n", ROOT, "l", RENAME_EXCHANGE),
	   "RENAME2");
	ok(!unlink_name(ROOT, "n") && !unlink_name(ROOT, "l") && !unlink_name(ROOT, "f") && !remove_dir(ROOT, "d"),
	   "UNLINK, RMDIR");
	is_u64((uint64_t)client_do(&c, FUSE_GETXATTR, ROOT, "1234567", 8, "user.x"), ENOSYS, "GETXATTR is not there");
	forget(dir, 1);
	is_u64((uint64_t)client_do(&c, FUSE_DESTROY, 0, NULL, 0, NULL), 0, "DESTROY");
}

static void test_large(void)
{
	struct fuse_write_in in = { .size = SHARE_DATA_MAX };
	static char text[SHARE_DATA_MAX];
	uint64_t node, fh;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7 + i / 1000);
	if (create(ROOT, "large", O_RDWR, &node, &fh))
		abort();
	in.fh = fh;
	client_begin(&c, FUSE_WRITE, node, &in, sizeof(in));
	client_add(&c, text, sizeof(text));
	ok(client_send(&c) == 0, "1 MiB is written, in pieces");
	ok(!read_at(node, fh, 0, SHARE_DATA_MAX) && c.got == sizeof(text) &&
		   !memcmp(client_out(&c), text, sizeof(text)),
	   "and read");
	say(1000, 0, 100, text, 500);
	say(0, 0, 0, NULL, 0);
	ok(getattr(node) == ESTALE && !lookup(ROOT, "large", &node),
	   "a reset in the middle of a request forgets it, and all that was known");
	next_id++;
	client_begin(&c, FUSE_FORGET, node, "\1\0\0\0\0\0\0", 8);
	((struct fuse_in_header *)c.request)->len = (uint32_t)c.len;
	say((uint32_t)c.len, 0, 0, c.request, c.len);
	is_u64((uint64_t)getattr(node), ESTALE, "what has no room for a reply has none");
	unlink_name(ROOT, "large");
}

/* What is not the protocol ends it, in peace. */
static void test_ends(void)
{
	static const struct {
		uint32_t total, offset;
		size_t len;
		const char *what;
	} packets[] = {
		{ 100, 50, 50, "the middle of a message" },
		{ 100, 0, 101, "more than a message" },
		{ SHARE_MESSAGE_MAX + 1, 0, 100, "a message that is too long" },
		{ 100, 0, 0, "a piece of nothing" },
	};
	static uint8_t zeros[200];

	for (unsigned i = 0; i < ARRAY_SIZE(packets); i++) {
		char byte;

		start_program(false);
		say(packets[i].total, packets[i].offset, 100, zeros, packets[i].len);
		ok(recv(server, &byte, 1, 0) <= 0 && end_program() == 0, "%s ends it", packets[i].what);
	}
	start_program(false);
	(void)!send(server, zeros, 3, 0);
	is_u64((uint64_t)end_program(), 0, "and less than a header");
}

int main(void)
{
	const char *build = getenv("BUILD");
	uint64_t node, fh;

	snprintf(program, sizeof(program), "%s/maru-share", build ? build : "build/release");
	if (access(program, X_OK) < 0)
		skip_all("%s is not built", program);
	signal(SIGPIPE, SIG_IGN);
	client_make_tree();
	c.handle = over_socket;
	start_program(false);
	test_each();
	test_large();
	is_u64((uint64_t)end_program(), 0, "it ends when its socket does");
	test_file_limit();
	host_write("in/file", "text");
	start_program(true);
	ok(!client_init(&c) && !lookup(ROOT, "file", &node) && !open_file(node, O_RDONLY, &fh) &&
		   !read_at(node, fh, 0, 10) && got("text") && open_file(node, O_RDWR, &fh) == EROFS &&
		   create(ROOT, "new", O_RDWR, &node, &fh) == EROFS,
	   "read-only");
	is_u64((uint64_t)end_program(), 0, "it ends, too");
	test_ends();
	return client_end();
}
