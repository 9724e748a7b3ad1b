/* SPDX-License-Identifier: Apache-2.0 */
/* A shared folder by 9P: what works, and that nothing leads out of the folder. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share/share.h"
#include "share/wire.h"
#include "tests/tap.h"

enum {
	TSTATFS = 8, TLOPEN = 12, TLCREATE = 14, TSYMLINK = 16, TMKNOD = 18, TREADLINK = 22, TGETATTR = 24, TSETATTR = 26,
	TXATTRWALK = 30, TREADDIR = 40, TFSYNC = 50, TLINK = 70, TMKDIR = 72, TRENAMEAT = 74, TUNLINKAT = 76, TVERSION = 100,
	TATTACH = 104, TWALK = 110, TREAD = 116, TWRITE = 118, TCLUNK = 120, TREMOVE = 122,
};
enum { ROOT = 1 };

static struct share *s;
static char top[64]; /* top/in is shared, top/out is not */
static uint8_t request[SHARE_MESSAGE_MAX], reply[SHARE_MESSAGE_MAX];
static struct writer w;
static struct reader r;

static void begin(unsigned type)
{
	w = (struct writer){ request, request + 4, request + sizeof(request), false };
	put(&w, type, 1);
	put(&w, 7, 2);
}

/* Sends; the errno value of the reply, 0 for success. */
static int done(void)
{
	size_t len = (size_t)(w.at - request), n;

	store_le(request, len, 4);
	memset(reply, 0xee, sizeof(reply));
	n = share_handle(s, request, len, reply);
	if (n < 7 || load_le(reply, 4) != n || load_le(reply + 5, 2) != 7)
		return -1;
	r = (struct reader){ reply + 7, reply + n, false };
	if (reply[4] == 7)
		return (int)get(&r, 4);
	return reply[4] == request[4] + 1 ? 0 : -2;
}

static void put_name(const char *name, size_t len)
{
	put(&w, len, 2);
	put_bytes(&w, name, len);
}

static int walk_len(uint32_t from, uint32_t to, const char *name, size_t len)
{
	begin(TWALK);
	put(&w, from, 4);
	put(&w, to, 4);
	put(&w, name ? 1 : 0, 2);
	if (name)
		put_name(name, len);
	return done();
}

static int walk(uint32_t from, uint32_t to, const char *name)
{
	return walk_len(from, to, name, name ? strlen(name) : 0);
}

static int clunk(uint32_t fid)
{
	begin(TCLUNK);
	put(&w, fid, 4);
	return done();
}

static int lopen(uint32_t fid, int flags)
{
	begin(TLOPEN);
	put(&w, fid, 4);
	put(&w, (uint32_t)flags, 4);
	return done();
}

/* In a copy of the folder's fid, which becomes the new file. */
static int create_len(uint32_t dir, uint32_t fid, const char *name, size_t len, int flags)
{
	int rc = walk(dir, fid, NULL);

	if (rc)
		return rc;
	begin(TLCREATE);
	put(&w, fid, 4);
	put_name(name, len);
	put(&w, (uint32_t)flags, 4);
	put(&w, 06755, 4);
	put(&w, 0, 4);
	rc = done();
	if (rc)
		clunk(fid);
	return rc;
}

static int write_at(uint32_t fid, uint64_t offset, const char *text)
{
	begin(TWRITE);
	put(&w, fid, 4);
	put(&w, offset, 8);
	put(&w, strlen(text), 4);
	put_bytes(&w, text, strlen(text));
	return done();
}

static int read_at(uint32_t fid, uint64_t offset, uint32_t count)
{
	begin(TREAD);
	put(&w, fid, 4);
	put(&w, offset, 8);
	put(&w, count, 4);
	return done();
}

static int mkdir_len(uint32_t dir, const char *name, size_t len)
{
	begin(TMKDIR);
	put(&w, dir, 4);
	put_name(name, len);
	put(&w, 0755, 4);
	put(&w, 0, 4);
	return done();
}

static int symlink_to(uint32_t dir, const char *name, const char *target)
{
	begin(TSYMLINK);
	put(&w, dir, 4);
	put_name(name, strlen(name));
	put_name(target, strlen(target));
	put(&w, 0, 4);
	return done();
}

static int rename_len(uint32_t from, const char *name, uint32_t to, const char *new_name, size_t new_len)
{
	begin(TRENAMEAT);
	put(&w, from, 4);
	put_name(name, strlen(name));
	put(&w, to, 4);
	put_name(new_name, new_len);
	return done();
}

static int unlink_len(uint32_t dir, const char *name, size_t len, int flags)
{
	begin(TUNLINKAT);
	put(&w, dir, 4);
	put_name(name, len);
	put(&w, (uint32_t)flags, 4);
	return done();
}

static int link_to(uint32_t dir, uint32_t fid, const char *name)
{
	begin(TLINK);
	put(&w, dir, 4);
	put(&w, fid, 4);
	put_name(name, strlen(name));
	return done();
}

static const char *path(const char *name)
{
	static char text[4][256];
	static unsigned next;

	next = (next + 1) % 4;
	snprintf(text[next], sizeof(text[0]), "%s/%s", top, name);
	return text[next];
}

static void host_write(const char *name, const char *text)
{
	FILE *f = fopen(path(name), "w");

	if (!f || fputs(text, f) < 0 || fclose(f))
		abort();
}

static const char *host_read(const char *name)
{
	static char text[256];
	FILE *f = fopen(path(name), "r");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

	if (f)
		fclose(f);
	text[n] = 0;
	return f ? text : "(none)";
}

static void start(bool readonly, unsigned fids)
{
	int dir = open(path("in"), O_RDONLY | O_DIRECTORY), fds = open("/proc/self/fd", O_PATH | O_DIRECTORY);

	share_destroy(s);
	if (share_create(dir, fds, readonly, fids, &s))
		abort();
	begin(TVERSION);
	put(&w, 1 << 20, 4);
	put_string(&w, "9P2000.L");
	ok(done() == 0 && get(&r, 4) == SHARE_MESSAGE_MAX && get(&r, 2) == 8 && !memcmp(r.at, "9P2000.L", 8), "the version is agreed upon");
	begin(TATTACH);
	put(&w, ROOT, 4);
	put(&w, ~0u, 4);
	put_string(&w, "root");
	put_string(&w, "/");
	put(&w, 0, 4);
	ok(done() == 0 && *r.at == 0x80, "the folder is attached");
}

static void test_files(void)
{
	struct stat st;

	is_u64((uint64_t)create_len(ROOT, 2, "new", 3, O_RDWR), 0, "a file is made");
	is_u64((uint64_t)write_at(2, 0, "hello, world"), 0, "written");
	is_u64((uint64_t)write_at(2, 7, "again"), 0, "here and there");
	is_str(host_read("in/new"), "hello, again", "as the host sees");
	ok(!read_at(2, 7, 100) && get(&r, 4) == 5 && !memcmp(r.at, "again", 5), "and read");
	ok(!read_at(2, 100, 100) && get(&r, 4) == 0, "to its end");
	ok(!stat(path("in/new"), &st) && (st.st_mode & 07777) == 0755, "without the bits that change the user");
	begin(TSETATTR);
	put(&w, 2, 4);
	put(&w, 1 | 8 | 32 | 256, 4);
	put(&w, 06640, 4);
	put(&w, 0, 8);
	put(&w, 5, 8);
	put(&w, 0, 16 / 2);
	put(&w, 0, 8);
	put(&w, 1000000000, 8);
	put(&w, 5, 8);
	ok(!done() && !stat(path("in/new"), &st) && (st.st_mode & 07777) == 0640 && st.st_size == 5 &&
		   st.st_mtim.tv_sec == 1000000000 && st.st_mtim.tv_nsec == 5,
	   "mode, size and time are set");
	begin(TGETATTR);
	put(&w, 2, 4);
	put(&w, 0x7ff, 8);
	ok(!done() && get(&r, 8) == 0x7ff && get(&r, 1) == 0 && (get(&r, 4), get(&r, 8)) == st.st_ino && get(&r, 4) == st.st_mode,
	   "and told");
	begin(TSETATTR);
	put(&w, 2, 4);
	put(&w, 2, 4);
	put(&w, 0, 4);
	put(&w, 12345, 4);
	for (unsigned i = 0; i < 44; i += 4)
		put(&w, 0, 4);
	is_u64((uint64_t)done(), EPERM, "files are not given away");
	begin(TFSYNC);
	put(&w, 2, 4);
	put(&w, 0, 4);
	is_u64((uint64_t)done(), 0, "written out");
	clunk(2);
	is_u64((uint64_t)mkdir_len(ROOT, "dir", 3), 0, "a folder");
	ok(!walk(ROOT, 3, "dir") && !rename_len(ROOT, "new", 3, "moved", 5), "a file moves into it");
	is_str(host_read("in/dir/moved"), "hello", "as the host sees");
	ok(!walk(3, 4, "moved") && !link_to(ROOT, 4, "linked"), "a second name");
	is_str(host_read("in/linked"), "hello", "for the same");
	begin(TSTATFS);
	put(&w, ROOT, 4);
	ok(!done() && get(&r, 4) == 0x01021997, "the file system");
	is_u64((uint64_t)unlink_len(ROOT, "linked", 6, 0), 0, "it is removed");
	is_u64((uint64_t)unlink_len(3, "moved", 5, 0), 0, "and the other");
	is_u64((uint64_t)unlink_len(ROOT, "dir", 3, 0x200), 0, "and the folder");
	clunk(3);
	clunk(4);
}

static void test_dir(void)
{
	unsigned seen = 0, rounds = 0;
	uint64_t offset = 0;
	bool up_is_root = true;
	uint64_t root_ino = 0;

	for (unsigned i = 0; i < 100; i++) {
		char name[32];

		snprintf(name, sizeof(name), "in/many-%02u", i);
		host_write(name, "x");
	}
	ok(!walk(ROOT, 5, NULL) && !lopen(5, O_RDONLY | O_DIRECTORY), "the folder is opened");
	for (; rounds < 1000; rounds++) {
		begin(TREADDIR);
		put(&w, 5, 4);
		put(&w, offset, 8);
		put(&w, 200, 4);
		if (done() || !get(&r, 4))
			break;
		while (r.at < r.end) {
			uint64_t ino;
			size_t len;
			const uint8_t *name;

			get(&r, 5);
			ino = get(&r, 8);
			offset = get(&r, 8);
			get(&r, 1);
			len = get(&r, 2);
			name = get_bytes(&r, len);
			seen += name && len == 7 && !memcmp(name, "many-", 5);
			if (len == 1)
				root_ino = root_ino ? root_ino : ino;
			if (len == 2) {
				up_is_root = !root_ino || ino == root_ino;
				root_ino = ino;
			}
		}
	}
	ok(seen == 100 && rounds > 10, "it is read in pieces, all of it (%u in %u)", seen, rounds);
	ok(up_is_root, "what is above it is not told");
	clunk(5);
	for (unsigned i = 0; i < 100; i++) {
		char name[32];

		snprintf(name, sizeof(name), "in/many-%02u", i);
		unlink(path(name));
	}
}

static void test_names(void)
{
	static char long_name[256];
	static const struct {
		const char *name;
		size_t len;
		int error;
		const char *what;
	} bad[] = {
		{ "..", 2, EINVAL, "\"..\"" },	       { ".", 1, EINVAL, "\".\"" },
		{ "a/b", 3, EINVAL, "\"a/b\"" },	       { "/", 1, EINVAL, "\"/\"" },
		{ "/etc/passwd", 11, EINVAL, "an absolute path" }, { "a\0b", 3, EINVAL, "a NUL within" },
		{ "../out/secret", 13, EINVAL, "a way out" }, { "", 0, EINVAL, "nothing" },
		{ long_name, 256, ENAMETOOLONG, "256 bytes" },
	};

	memset(long_name, 'x', sizeof(long_name));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *n = bad[i].name;
		size_t len = bad[i].len;

		ok(walk_len(ROOT, 9, n, len) == bad[i].error && create_len(ROOT, 9, n, len, O_RDWR) == bad[i].error &&
			   mkdir_len(ROOT, n, len) == bad[i].error && unlink_len(ROOT, n, len, 0) == bad[i].error &&
			   unlink_len(ROOT, n, len, 0x200) == bad[i].error && rename_len(ROOT, "x", ROOT, n, len) == bad[i].error,
		   "%s is no name: to walk, create, remove or rename", bad[i].what);
	}
	is_u64((uint64_t)create_len(ROOT, 9, long_name, 255, O_RDWR), 0, "255 bytes are one");
	clunk(9);
	is_u64((uint64_t)unlink_len(ROOT, long_name, 255, 0), 0, "and can be removed");
	is_u64((uint64_t)create_len(ROOT, 9, "\xff\xfe\n", 3, O_RDWR), 0, "so are bytes that are no text");
	clunk(9);
	unlink_len(ROOT, "\xff\xfe\n", 3, 0);
}

static void test_ways_out(void)
{
	static const char *const targets[] = { "../out", "/etc", "../out/secret", "/proc/self/root", "." };

	/* Links that the guest makes, and links that the host has. */
	for (unsigned i = 0; i < ARRAY_SIZE(targets); i++) {
		symlink_to(ROOT, "way", targets[i]);
		ok(!walk(ROOT, 9, "way"), "a link to %s is a thing", targets[i]);
		begin(TREADLINK);
		put(&w, 9, 4);
		ok(!done() && get(&r, 2) == strlen(targets[i]), "that can be read");
		ok(walk(9, 10, "secret") != 0 && walk(9, 10, "passwd") != 0, "but is no folder");
		ok(lopen(9, O_RDONLY) == ELOOP && lopen(9, O_RDWR | O_TRUNC) == ELOOP, "and no file");
		ok(mkdir_len(9, "made", 4) != 0 && create_len(9, 10, "made", 4, O_RDWR) != 0, "nothing is made behind it");
		ok(create_len(ROOT, 10, "way", 3, O_RDWR) == ELOOP, "or through it");
		clunk(9);
		clunk(10);
		unlink_len(ROOT, "way", 3, 0);
	}
	is_str(host_read("out/secret"), "secret", "what is outside is as it was");
	begin(TMKNOD);
	put(&w, ROOT, 4);
	put_string(&w, "node");
	put(&w, S_IFBLK | 0666, 4);
	put(&w, 8, 4);
	put(&w, 0, 4);
	put(&w, 0, 4);
	is_u64((uint64_t)done(), EPERM, "device nodes are not made");
	ok(!mkfifo(path("in/fifo"), 0666) && !walk(ROOT, 9, "fifo") && lopen(9, O_RDONLY) == EACCES, "a FIFO is not opened");
	ok(create_len(ROOT, 10, "fifo", 4, O_RDWR) == EACCES, "by no other way");
	ok(link_to(ROOT, 9, "fifo2") == EPERM, "and not linked");
	clunk(9);
	unlink(path("in/fifo"));
	if (geteuid() == 0 && !mknod(path("in/null"), S_IFCHR | 0666, 0x103)) {
		ok(!walk(ROOT, 9, "null") && lopen(9, O_RDWR) == EACCES, "nor a device");
		clunk(9);
		unlink(path("in/null"));
	} else {
		skip("device nodes need root");
	}

	/* The tree changes while the guest walks: what it has is what it had. */
	mkdir(path("in/dir"), 0755);
	host_write("in/dir/file", "inside");
	ok(!walk(ROOT, 9, "dir"), "a folder");
	rename(path("in/dir"), path("in/elsewhere"));
	if (symlink("../out", path("in/dir")))
		abort();
	ok(!walk(9, 10, "file") && !lopen(10, O_RDONLY) && !read_at(10, 0, 100) && get(&r, 4) == 6 && !memcmp(r.at, "inside", 6),
	   "a link is put in its place: the folder is still meant");
	clunk(10);
	ok(create_len(9, 10, "secret", 6, O_RDWR | O_TRUNC) == 0, "what is made in it");
	clunk(10);
	is_str(host_read("out/secret"), "secret", "is not made at the link's end");
	clunk(9);
	unlink(path("in/dir"));
}

static void test_bounds(void)
{
	uint32_t i;

	for (i = 100; i < 200 && !walk(ROOT, i, NULL); i++)
		;
	ok(i == 100 + 31 && walk(ROOT, 999, NULL) == ENFILE, "no more than so many things are open (%u)", i - 100);
	share_reset(s);
	is_u64((uint64_t)walk(ROOT, 2, NULL), EBADF, "a reset forgets all of them");
	start(false, 32);
	is_u64((uint64_t)walk(77, 2, NULL), EBADF, "a number of nothing");
	is_u64((uint64_t)read_at(ROOT, 0, 10), EBADF, "what is not open is not read");
	is_u64((uint64_t)write_at(ROOT, 0, "x"), EBADF, "or written");
	ok(!create_len(ROOT, 2, "f", 1, O_RDWR) && read_at(2, ~0ull, 10) == EINVAL && !read_at(2, 0, ~0u) && get(&r, 4) == 0,
	   "numbers that are too large");
	clunk(2);
	unlink_len(ROOT, "f", 1, 0);
	begin(250);
	is_u64((uint64_t)done(), EOPNOTSUPP, "an unknown request");
	begin(TXATTRWALK);
	is_u64((uint64_t)done(), EOPNOTSUPP, "extended attributes");
	/* Each request, cut after each byte of a walk. */
	begin(TWALK);
	put(&w, ROOT, 4);
	put(&w, 3, 4);
	put(&w, 3, 2);
	put_string(&w, "a");
	is_u64((uint64_t)done(), ENOENT, "names that are not all there");
	begin(TWALK);
	put(&w, ROOT, 4);
	put(&w, 3, 4);
	put(&w, 17, 2);
	is_u64((uint64_t)done(), EINVAL, "too many names");
	store_le(request, 500, 4);
	ok(share_handle(s, request, 7, reply) == 0 && share_handle(s, request, 3, reply) == 0 && share_handle(s, request, 0, reply) == 0,
	   "what is no message has no reply");
	begin(TVERSION);
	put(&w, 100, 4);
	put_string(&w, "9P2000.L");
	is_u64((uint64_t)done(), EINVAL, "messages that are too short for anything");
	begin(TVERSION);
	put(&w, 8192, 4);
	put_string(&w, "9P2000.u");
	ok(!done() && get(&r, 4) == 8192 && get(&r, 2) == 7 && !memcmp(r.at, "unknown", 7), "another version");
}

static void test_readonly(void)
{
	host_write("in/file", "as it was");
	start(true, 32);
	ok(!walk(ROOT, 2, "file") && !lopen(2, O_RDONLY) && !read_at(2, 0, 100) && get(&r, 4) == 9, "read-only: reading");
	is_u64((uint64_t)write_at(2, 0, "changed"), EROFS, "no writing");
	clunk(2);
	ok(!walk(ROOT, 2, "file") && lopen(2, O_RDWR) == EROFS && lopen(2, O_WRONLY) == EROFS && lopen(2, O_RDONLY | O_TRUNC) == EROFS,
	   "no opening for it");
	ok(create_len(ROOT, 3, "n", 1, O_RDWR) == EROFS && mkdir_len(ROOT, "n", 1) == EROFS && symlink_to(ROOT, "n", "x") == EROFS &&
		   link_to(ROOT, 2, "n") == EROFS && rename_len(ROOT, "file", ROOT, "n", 1) == EROFS &&
		   unlink_len(ROOT, "file", 4, 0) == EROFS,
	   "no making, linking, renaming, removing");
	begin(TSETATTR);
	put(&w, 2, 4);
	put(&w, 8, 4);
	for (unsigned i = 0; i < 52; i += 4)
		put(&w, 0, 4);
	is_u64((uint64_t)done(), EROFS, "no attributes");
	is_str(host_read("in/file"), "as it was", "and so it is");
}

int main(void)
{
	char command[128];

	snprintf(top, sizeof(top), "%s/maru-share.XXXXXX", getenv("TMPDIR") && strlen(getenv("TMPDIR")) < 40 ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(top) || mkdir(path("in"), 0755) || mkdir(path("out"), 0755))
		abort();
	umask(0);
	host_write("out/secret", "secret");
	start(false, 32);
	test_files();
	test_dir();
	test_names();
	test_ways_out();
	test_bounds();
	test_readonly();
	share_destroy(s);
	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	return system(command) ? 1 : done_testing();
}
