/* SPDX-License-Identifier: Apache-2.0 */
/* A shared folder by FUSE: what works, what the guest may keep, and that nothing leads out of the folder. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share/private.h"
#include "tests/tap.h"
#include "tests/unit/share_client.h"

#define ROOT FUSE_ROOT_ID

static struct client c;
static char top[64]; /* top/in is shared, top/out is not */

static const char *path(const char *name)
{
	static char text[4][512];
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

/* ---- Requests: an errno value; what they find or open in *out ---- */

static int lookup(uint64_t dir, const char *name, uint64_t *out)
{
	int rc = client_do(&c, FUSE_LOOKUP, dir, NULL, 0, name);

	if (!rc && out)
		*out = client_entry(&c)->nodeid;
	return rc;
}

static int open_as(uint32_t opcode, uint64_t node, int flags, uint64_t *fh)
{
	struct fuse_open_in in = { .flags = (uint32_t)flags };
	int rc = client_do(&c, opcode, node, &in, sizeof(in), NULL);

	if (!rc && fh)
		*fh = ((const struct fuse_open_out *)client_out(&c))->fh;
	return rc;
}

static int open_file(uint64_t node, int flags, uint64_t *fh)
{
	return open_as(FUSE_OPEN, node, flags, fh);
}

static int release(uint64_t node, uint64_t fh)
{
	struct fuse_release_in in = { .fh = fh };

	return client_do(&c, FUSE_RELEASE, node, &in, sizeof(in), NULL);
}

static int create(uint64_t dir, const char *name, int flags, uint64_t *node, uint64_t *fh)
{
	struct fuse_create_in in = { .flags = (uint32_t)flags, .mode = S_IFREG | 06755 };
	int rc = client_do(&c, FUSE_CREATE, dir, &in, sizeof(in), name);

	if (!rc) {
		*node = client_entry(&c)->nodeid;
		*fh = ((const struct fuse_open_out *)(client_entry(&c) + 1))->fh;
	}
	return rc;
}

/* Makes it and closes it. */
static int touch(uint64_t dir, const char *name, uint64_t *node)
{
	uint64_t n, fh;
	int rc = create(dir, name, O_RDWR, &n, &fh);

	if (rc)
		return rc;
	if (node)
		*node = n;
	return release(n, fh);
}

static int write_at(uint64_t node, uint64_t fh, uint64_t offset, const char *text)
{
	struct fuse_write_in in = { .fh = fh, .offset = offset, .size = (uint32_t)strlen(text) };

	client_begin(&c, FUSE_WRITE, node, &in, sizeof(in));
	client_add(&c, text, strlen(text));
	return client_send(&c);
}

static int read_at(uint64_t node, uint64_t fh, uint64_t offset, uint32_t size)
{
	struct fuse_read_in in = { .fh = fh, .offset = offset, .size = size };

	return client_do(&c, FUSE_READ, node, &in, sizeof(in), NULL);
}

static bool got(const char *text)
{
	return c.got == strlen(text) && !memcmp(client_out(&c), text, c.got);
}

static int make_dir(uint64_t dir, const char *name, uint64_t *out)
{
	struct fuse_mkdir_in in = { .mode = 0755 };
	int rc = client_do(&c, FUSE_MKDIR, dir, &in, sizeof(in), name);

	if (!rc && out)
		*out = client_entry(&c)->nodeid;
	return rc;
}

static int symlink_to(uint64_t dir, const char *name, const char *target)
{
	client_begin(&c, FUSE_SYMLINK, dir, NULL, 0);
	client_name(&c, name);
	client_name(&c, target);
	return client_send(&c);
}

static int make_node(uint64_t dir, const char *name, mode_t mode)
{
	struct fuse_mknod_in in = { .mode = mode, .rdev = 0x800 };

	return client_do(&c, FUSE_MKNOD, dir, &in, sizeof(in), name);
}

static int rename_to(uint64_t from, const char *name, uint64_t to, const char *new_name, uint32_t flags)
{
	struct fuse_rename2_in in = { .newdir = to, .flags = flags };

	client_begin(&c, FUSE_RENAME2, from, &in, sizeof(in));
	client_name(&c, name);
	client_name(&c, new_name);
	return client_send(&c);
}

static int unlink_name(uint64_t dir, const char *name)
{
	return client_do(&c, FUSE_UNLINK, dir, NULL, 0, name);
}

static int remove_dir(uint64_t dir, const char *name)
{
	return client_do(&c, FUSE_RMDIR, dir, NULL, 0, name);
}

static int link_to(uint64_t dir, uint64_t node, const char *name)
{
	struct fuse_link_in in = { .oldnodeid = node };

	return client_do(&c, FUSE_LINK, dir, &in, sizeof(in), name);
}

static int getattr(uint64_t node)
{
	struct fuse_getattr_in in = { 0 };

	return client_do(&c, FUSE_GETATTR, node, &in, sizeof(in), NULL);
}

static const struct fuse_attr *attr(void)
{
	return &((const struct fuse_attr_out *)client_out(&c))->attr;
}

static int setattr(uint64_t node, const struct fuse_setattr_in *in)
{
	return client_do(&c, FUSE_SETATTR, node, in, sizeof(*in), NULL);
}

static void forget(uint64_t node, uint64_t lookups)
{
	struct fuse_forget_in in = { lookups };

	client_do(&c, FUSE_FORGET, node, &in, sizeof(in), NULL);
}

static void start(bool readonly, unsigned fds)
{
	int dir = open(path("in"), O_RDONLY | O_DIRECTORY), proc = open("/proc/self/fd", O_PATH | O_DIRECTORY);

	share_destroy(c.share);
	if (share_create(dir, proc, readonly, fds, &c.share))
		abort();
	is_u64((uint64_t)client_init(&c), 0, "it is begun");
}

/* ---- Tests ---- */

static void test_init(void)
{
	struct fuse_init_in in = { .major = 7, .minor = 36, .max_readahead = 1 << 30, .flags = ~0u };
	const struct fuse_init_out *out = client_out(&c);
	uint64_t node, fh;

	ok(client_init(&c) == 0 && c.got == sizeof(*out) && out->major == 7 && out->minor == 31, "version 7.31 is spoken");
	ok(out->max_write == 1 << 20 && out->max_pages == 256 && out->flags & FUSE_MAX_PAGES, "in pieces of up to 1 MiB");
	ok(!(out->flags & (FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_EXPORT_SUPPORT | FUSE_WRITEBACK_CACHE | FUSE_POSIX_ACL)),
	   "locks, \"..\", caches of writes are not offered");
	in.flags = 0;
	ok(!client_do(&c, FUSE_INIT, 0, &in, 16, NULL) && !out->flags, "nor what was not asked for");
	in.minor = 30;
	is_u64((uint64_t)client_do(&c, FUSE_INIT, 0, &in, 16, NULL), EPROTO, "an older one is not");
	in.major = 8;
	ok(!client_do(&c, FUSE_INIT, 0, &in, 16, NULL) && out->major == 7 && !out->max_write, "who speaks a later one may ask again");
	is_u64((uint64_t)client_do(&c, FUSE_INIT, 0, &in, 15, NULL), EINVAL, "a short one is none");
	ok(!create(ROOT, "x", O_RDWR, &node, &fh) && !client_init(&c), "it is begun again");
	ok(read_at(node, fh, 0, 1) == ESTALE && getattr(node) == ESTALE, "what was known is forgotten");
	ok(!lookup(ROOT, "x", &node) && !client_do(&c, FUSE_DESTROY, 0, NULL, 0, NULL) && getattr(node) == ESTALE, "and when it ends");
	unlink_name(ROOT, "x");
}

static void test_files(void)
{
	struct fuse_setattr_in set = { .valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME | FATTR_ATIME | FATTR_ATIME_NOW, .mode = 06640,
				       .size = 5, .mtime = 1000000000, .mtimensec = 5 };
	uint64_t node, fh, dir, same;
	struct stat st;

	is_u64((uint64_t)create(ROOT, "new", O_RDWR, &node, &fh), 0, "a file is made");
	ok(client_entry(&c)->entry_valid == 1 && client_entry(&c)->attr_valid == 1, "which is believed for a second");
	is_u64((uint64_t)write_at(node, fh, 0, "hello, world"), 0, "written");
	is_u64((uint64_t)write_at(node, fh, 7, "again"), 0, "here and there");
	is_str(host_read("in/new"), "hello, again", "as the host sees");
	ok(!read_at(node, fh, 7, 100) && got("again"), "and read");
	ok(!read_at(node, fh, 100, 100) && got(""), "to its end");
	ok(!stat(path("in/new"), &st) && (st.st_mode & 07777) == 0755, "without the bits that change the user");
	ok(!setattr(node, &set) && !stat(path("in/new"), &st) && (st.st_mode & 07777) == 0640 && st.st_size == 5 &&
		   st.st_mtim.tv_sec == 1000000000 && st.st_mtim.tv_nsec == 5 && st.st_atim.tv_sec > 1600000000,
	   "mode, size and times are set");
	ok(attr()->size == 5 && attr()->mode == st.st_mode && attr()->ino == st.st_ino && attr()->mtimensec == 5 && attr()->uid == st.st_uid,
	   "and told");
	set = (struct fuse_setattr_in){ .valid = FATTR_SIZE | FATTR_FH, .fh = fh, .size = 4 };
	ok(!setattr(node, &set) && attr()->size == 4, "by the open file, too");
	set.fh++;
	is_u64((uint64_t)setattr(node, &set), EBADF, "but no other");
	set = (struct fuse_setattr_in){ .valid = FATTR_UID, .uid = 12345 };
	is_u64((uint64_t)setattr(node, &set), EPERM, "files are not given away");
	set.uid = st.st_uid;
	is_u64((uint64_t)setattr(node, &set), 0, "but to who has them");
	{
		struct fuse_fsync_in sync = { .fh = fh };
		struct fuse_lseek_in seek = { .fh = fh, .offset = 1, .whence = SEEK_HOLE };
		struct fuse_fallocate_in space = { .fh = fh, .length = 100 };

		is_u64((uint64_t)client_do(&c, FUSE_FSYNC, node, &sync, sizeof(sync), NULL), 0, "written out");
		ok(!client_do(&c, FUSE_LSEEK, node, &seek, sizeof(seek), NULL) && ((const struct fuse_lseek_out *)client_out(&c))->offset == 4,
		   "its end found");
		seek.whence = SEEK_SET;
		is_u64((uint64_t)client_do(&c, FUSE_LSEEK, node, &seek, sizeof(seek), NULL), EINVAL, "other seeking is the guest's");
		ok(!client_do(&c, FUSE_FALLOCATE, node, &space, sizeof(space), NULL) && !getattr(node) && attr()->size == 100, "space is made");
		space.mode = 0x08; /* FALLOC_FL_COLLAPSE_RANGE */
		is_u64((uint64_t)client_do(&c, FUSE_FALLOCATE, node, &space, sizeof(space), NULL), EOPNOTSUPP, "but not taken out");
	}
	is_u64((uint64_t)release(node, fh), 0, "closed");
	is_u64((uint64_t)release(node, fh), EBADF, "once");
	ok(!open_file(node, O_WRONLY | O_APPEND | O_TRUNC, &fh) && !write_at(node, fh, 0, "one") && !write_at(node, fh, 0, "two") && !release(node, fh),
	   "emptied and appended to");
	is_str(host_read("in/new"), "onetwo", "as the host sees");
	is_u64((uint64_t)make_dir(ROOT, "dir", &dir), 0, "a folder");
	ok(!rename_to(ROOT, "new", dir, "moved", 0), "a file moves into it");
	is_str(host_read("in/dir/moved"), "onetwo", "as the host sees");
	ok(!link_to(ROOT, node, "linked") && client_entry(&c)->nodeid == node && client_entry(&c)->attr.nlink == 2, "a second name for the same");
	host_write("in/other", "other");
	ok(rename_to(dir, "moved", ROOT, "other", RENAME_NOREPLACE) == EEXIST && !rename_to(dir, "moved", ROOT, "other", RENAME_EXCHANGE),
	   "names are kept or exchanged");
	is_str(host_read("in/dir/moved"), "other", "as the host sees");
	ok(!lookup(ROOT, "other", &same) && same == node, "it has the same number");
	is_u64((uint64_t)rename_to(ROOT, "other", ROOT, "gone", RENAME_WHITEOUT), EINVAL, "no whiteouts");
	ok(!client_do(&c, FUSE_STATFS, ROOT, NULL, 0, NULL) && ((const struct fuse_statfs_out *)client_out(&c))->st.namelen == 255, "the file system");
	is_u64((uint64_t)client_do(&c, FUSE_SYNCFS, ROOT, "\0\0\0\0\0\0\0", 8, NULL), 0, "all of it written out");
	ok(!unlink_name(ROOT, "linked") && !unlink_name(ROOT, "other") && !unlink_name(dir, "moved") && !remove_dir(ROOT, "dir"), "all removed");
	is_u64((uint64_t)make_node(ROOT, "plain", S_IFREG | 0600), 0, "a file is made by mknod");
	unlink_name(ROOT, "plain");
}

static void test_large(void)
{
	static char *text;
	struct fuse_write_in in = { .size = SHARE_DATA_MAX };
	uint64_t node, fh;

	text = malloc(SHARE_DATA_MAX);
	for (size_t i = 0; text && i < SHARE_DATA_MAX; i++)
		text[i] = (char)(i * 7 + i / 1000);
	create(ROOT, "large", O_RDWR, &node, &fh);
	in.fh = fh;
	client_begin(&c, FUSE_WRITE, node, &in, sizeof(in));
	client_add(&c, text, SHARE_DATA_MAX);
	ok(client_send(&c) == 0 && ((const struct fuse_write_out *)client_out(&c))->size == SHARE_DATA_MAX, "1 MiB is written at once");
	ok(!read_at(node, fh, 0, SHARE_DATA_MAX) && c.got == SHARE_DATA_MAX && !memcmp(client_out(&c), text, SHARE_DATA_MAX), "and read");
	in.size++;
	client_begin(&c, FUSE_WRITE, node, &in, sizeof(in));
	client_add(&c, text, SHARE_DATA_MAX);
	is_u64((uint64_t)client_send(&c), EINVAL, "more than there is is not");
	free(text);
	release(node, fh);
	unlink_name(ROOT, "large");
}

/* Reads the whole folder in pieces of @size; how many of the hundred are there. */
static unsigned list(uint64_t fh, uint32_t size, unsigned *rounds)
{
	struct fuse_read_in in = { .fh = fh, .size = size };
	unsigned seen = 0;

	for (*rounds = 0; *rounds < 1000; ++*rounds) {
		if (client_do(&c, FUSE_READDIR, ROOT, &in, sizeof(in), NULL) || !c.got || c.got > size)
			break;
		for (const uint8_t *at = client_out(&c), *end = at + c.got; at < end;) {
			const struct fuse_dirent *d = (const void *)at;

			seen += d->namelen == 7 && !memcmp(d->name, "many-", 5);
			in.offset = d->off;
			at += FUSE_DIRENT_SIZE(d);
		}
	}
	return seen;
}

static void test_dir(void)
{
	struct fuse_read_in in = { .size = 4096 };
	unsigned rounds, seen = 0;
	uint64_t fh, node;
	struct stat st;
	bool up = true;
	char name[32];

	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "in/many-%02u", i);
		host_write(name, "x");
	}
	ok(!open_as(FUSE_OPENDIR, ROOT, O_RDONLY, &fh), "the folder is opened");
	in.fh = fh;
	stat(path("in"), &st);
	ok(!client_do(&c, FUSE_READDIR, ROOT, &in, sizeof(in), NULL) && c.got, "and read");
	for (const uint8_t *at = client_out(&c), *end = at + c.got; at < end; at += FUSE_DIRENT_SIZE((const struct fuse_dirent *)at)) {
		const struct fuse_dirent *d = (const void *)at;

		up = up && (d->namelen != 2 || d->ino == st.st_ino);
	}
	ok(up, "what is above it is not told");
	is_u64(list(fh, 200, &rounds), 100, "all of it, in small pieces");
	ok(rounds > 10, "many of them");
	is_u64(read_at(ROOT, fh, 0, 0) ? 0 : 1, 0, "it is no file");
	in.size = 8;
	is_u64((uint64_t)client_do(&c, FUSE_READDIR, ROOT, &in, sizeof(in), NULL), EINVAL, "no room for one entry");
	in.size = 65536;
	ok(!client_do(&c, FUSE_READDIRPLUS, ROOT, &in, sizeof(in), NULL) && c.got, "with attributes");
	for (const uint8_t *at = client_out(&c), *end = at + c.got; at < end;) {
		const struct fuse_direntplus *p = (const void *)at;
		bool dots = p->dirent.name[0] == '.';

		seen += !dots && p->entry_out.nodeid && p->entry_out.attr.ino == p->dirent.ino && p->entry_out.attr.size == 1;
		seen += dots && p->entry_out.nodeid ? 1000 : 0;
		at += FUSE_DIRENTPLUS_SIZE(p);
	}
	is_u64(seen, 100, "each is a node at once, but \".\" and \"..\"");
	is_u64((uint64_t)release(ROOT, fh), 0, "closed");
	ok(open_file(ROOT, O_RDONLY, NULL) == EISDIR && !lookup(ROOT, "many-00", &node) && open_as(FUSE_OPENDIR, node, O_RDONLY, NULL) == ENOTDIR,
	   "files and folders are not opened as each other");
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "in/many-%02u", i);
		unlink(path(name));
	}
}

static void test_names(void)
{
	static char long_name[257];
	const struct {
		const char *name;
		int error;
		const char *what;
	} bad[] = {
		{ "..", EINVAL, "\"..\"" },		      { ".", EINVAL, "\".\"" },
		{ "a/b", EINVAL, "\"a/b\"" },		      { "/", EINVAL, "\"/\"" },
		{ "/etc/passwd", EINVAL, "an absolute path" }, { "../out/secret", EINVAL, "a way out" },
		{ "", EINVAL, "nothing" },		      { long_name, ENAMETOOLONG, "256 bytes" },
	};
	struct fuse_mkdir_in mkdir_in = { .mode = 0755 };
	uint64_t n, fh;

	memset(long_name, 'x', 256);
	touch(ROOT, "x", &n);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *name = bad[i].name;
		int e = bad[i].error;

		ok(lookup(ROOT, name, NULL) == e && create(ROOT, name, O_RDWR, &n, &fh) == e && make_dir(ROOT, name, NULL) == e &&
			   unlink_name(ROOT, name) == e && remove_dir(ROOT, name) == e && symlink_to(ROOT, name, "x") == e &&
			   make_node(ROOT, name, S_IFREG) == e && link_to(ROOT, n, name) == e &&
			   rename_to(ROOT, "x", ROOT, name, 0) == e && rename_to(ROOT, name, ROOT, "y", 0) == e,
		   "%s is no name: to find, make, remove, link or rename", bad[i].what);
	}
	client_begin(&c, FUSE_MKDIR, ROOT, &mkdir_in, sizeof(mkdir_in));
	client_add(&c, "endless", 7);
	is_u64((uint64_t)client_send(&c), EINVAL, "a name without an end is none");
	is_u64((uint64_t)client_do(&c, FUSE_MKDIR, ROOT, &mkdir_in, sizeof(mkdir_in), NULL), EINVAL, "nor is none at all");
	client_begin(&c, FUSE_SYMLINK, ROOT, NULL, 0);
	client_name(&c, "l");
	client_add(&c, "endless", 7);
	is_u64((uint64_t)client_send(&c), EINVAL, "nor a target without an end");
	is_u64((uint64_t)symlink_to(ROOT, "l", ""), EINVAL, "or an empty one");
	unlink_name(ROOT, "x");
	long_name[255] = 0;
	ok(!touch(ROOT, long_name, NULL) && !unlink_name(ROOT, long_name), "255 bytes are one");
	ok(!touch(ROOT, "\xff\xfe\n", NULL) && !unlink_name(ROOT, "\xff\xfe\n"), "so are bytes that are no text");
}

static void test_ways_out(void)
{
	static const char *const targets[] = { "../out", "/etc", "../out/secret", "/proc/self/root", "." };
	struct fuse_setattr_in set;
	uint64_t node, fh, dir, other;
	struct stat st;

	/* Links that the guest makes, and links that the host has. */
	for (unsigned i = 0; i < ARRAY_SIZE(targets); i++) {
		symlink_to(ROOT, "way", targets[i]);
		ok(!lookup(ROOT, "way", &node) && S_ISLNK(client_entry(&c)->attr.mode), "a link to %s is a thing", targets[i]);
		ok(!client_do(&c, FUSE_READLINK, node, NULL, 0, NULL) && got(targets[i]), "that can be read");
		ok(lookup(node, "secret", NULL) == ENOTDIR && lookup(node, "passwd", NULL) == ENOTDIR, "but is no folder");
		ok(open_file(node, O_RDONLY, NULL) == ELOOP && open_file(node, O_RDWR | O_TRUNC, NULL) == ELOOP &&
			   open_as(FUSE_OPENDIR, node, O_RDONLY, NULL) == ENOTDIR,
		   "and no file");
		ok(make_dir(node, "made", NULL) == ENOTDIR && create(node, "made", O_RDWR, &other, &fh) == ENOTDIR &&
			   link_to(node, ROOT, "made") != 0 && rename_to(node, "secret", ROOT, "mine", 0) == ENOTDIR &&
			   unlink_name(node, "secret") == ENOTDIR,
		   "nothing is done behind it");
		ok(create(ROOT, "way", O_RDWR, &other, &fh) == ELOOP, "or through it");
		set = (struct fuse_setattr_in){ .valid = FATTR_MTIME, .mtime = 1000 };
		ok(!setattr(node, &set) && attr()->mtime == 1000 && S_ISLNK(attr()->mode), "its time is its own");
		set.valid = FATTR_MODE;
		is_u64((uint64_t)setattr(node, &set), EOPNOTSUPP, "it has no mode");
		set.valid = FATTR_SIZE;
		is_u64((uint64_t)setattr(node, &set), ELOOP, "and no size");
		unlink_name(ROOT, "way");
	}
	is_str(host_read("out/secret"), "secret", "what is outside is as it was");
	ok(!stat(path("out"), &st) && st.st_mtim.tv_sec != 1000 && !stat(path("out/secret"), &st) && st.st_mtim.tv_sec != 1000 && st.st_size == 6,
	   "with its times and sizes");
	ok(make_node(ROOT, "node", S_IFBLK | 0666) == EPERM && make_node(ROOT, "node", S_IFCHR | 0666) == EPERM &&
		   make_node(ROOT, "node", S_IFIFO | 0666) == EPERM && make_node(ROOT, "node", S_IFSOCK | 0666) == EPERM &&
		   make_node(ROOT, "node", 0666) == EPERM,
	   "no devices, FIFOs and sockets are made");
	ok(!mkfifo(path("in/fifo"), 0666) && !lookup(ROOT, "fifo", &node) && open_file(node, O_RDONLY, NULL) == EACCES, "a FIFO is not opened");
	ok(create(ROOT, "fifo", O_RDWR, &other, &fh) == EACCES, "by no other way");
	ok(link_to(ROOT, node, "fifo2") == EPERM, "and not linked");
	unlink(path("in/fifo"));
	if (geteuid() == 0 && !mknod(path("in/null"), S_IFCHR | 0666, 0x103)) {
		ok(!lookup(ROOT, "null", &node) && open_file(node, O_RDWR, NULL) == EACCES, "nor a device");
		unlink(path("in/null"));
	} else {
		skip("device nodes need root");
	}

	mkdir(path("in/mnt"), 0755);
	if (unshare(CLONE_NEWNS) == 0 && mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount(path("out"), path("in/mnt"), NULL, MS_BIND, NULL) == 0) {
		start(false, 100); /* in this mount namespace */
		is_u64((uint64_t)lookup(ROOT, "mnt", &node), EXDEV, "what is mounted in the folder is another file system");
		ok(rename_to(ROOT, "mnt", ROOT, "m", 0) == EBUSY && remove_dir(ROOT, "mnt") == EBUSY, "nor moved, nor removed");
		umount(path("in/mnt"));
		ok(!lookup(ROOT, "mnt", &node) && !mount(path("out"), path("in/mnt"), NULL, MS_BIND, NULL) && lookup(node, "secret", &other) == ENOENT,
		   "what was there before is still what it was");
		umount(path("in/mnt"));
	} else {
		skip("mounting needs root");
	}
	rmdir(path("in/mnt"));

	/* The tree changes while the guest walks: what it has is what it had. */
	mkdir(path("in/dir"), 0755);
	host_write("in/dir/file", "inside");
	ok(!lookup(ROOT, "dir", &dir), "a folder");
	rename(path("in/dir"), path("in/elsewhere"));
	if (symlink("../out", path("in/dir")))
		abort();
	ok(!lookup(dir, "file", &node) && !open_file(node, O_RDONLY, &fh) && !read_at(node, fh, 0, 100) && got("inside"),
	   "a link is put in its place: the folder is still meant");
	release(node, fh);
	ok(!touch(dir, "secret", NULL), "what is made in it");
	is_str(host_read("out/secret"), "secret", "is not made at the link's end");
	unlink(path("in/dir"));
}

/* A node whose descriptor was given up is found again, or it is stale. */
static void test_found_again(void)
{
	uint64_t a, b, file, other, fh, node;
	char name[32];
	unsigned found = 0;

	start(false, SHARE_FDS_MIN);
	if (make_dir(ROOT, "a", &a) || make_dir(a, "b", &b) || touch(b, "file", &file))
		abort();
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		found += !touch(ROOT, name, NULL);
	}
	is_u64(found, 1000, "more is known than can be held open");
	host_write("in/a/b/file", "the same");
	ok(!open_file(file, O_RDONLY, &fh) && !read_at(file, fh, 0, 100) && got("the same") && !release(file, fh), "what was known first is found again");
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		lookup(ROOT, name, NULL);
	}
	ok(!rename_to(ROOT, "a", ROOT, "c", 0), "its folder gets another name");
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		lookup(ROOT, name, NULL);
	}
	ok(!getattr(file) && attr()->size == 8, "by the guest: it is found there");
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		lookup(ROOT, name, NULL);
	}
	rename(path("in/c"), path("in/d"));
	is_u64((uint64_t)getattr(file), ESTALE, "by the host: it is not");
	ok(!lookup(ROOT, "d", &other) && other == a && !getattr(file), "until the guest looks for the folder");
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		lookup(ROOT, name, NULL);
	}
	/* Something else has the name: a way out, another file. */
	rename(path("in/d"), path("in/e"));
	if (symlink("../out", path("in/d")))
		abort();
	is_u64((uint64_t)getattr(file), ESTALE, "a link in the folder's place is not followed");
	unlink(path("in/d"));
	mkdir(path("in/d"), 0755);
	mkdir(path("in/d/b"), 0755);
	host_write("in/d/b/file", "another");
	is_u64((uint64_t)open_file(file, O_RDONLY, &fh), ESTALE, "nor is another file taken for it");

	/* What is open is kept, without a name. */
	ok(!create(ROOT, "open", O_RDWR, &node, &fh) && !unlink_name(ROOT, "open"), "a file is open and has no name");
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		lookup(ROOT, name, NULL);
	}
	ok(!getattr(node) && attr()->nlink == 0 && !write_at(node, fh, 0, "x") && !release(node, fh), "it can be used");
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		unlink_name(ROOT, name);
	}
	/* Folders that the host turns around: b, of a, becomes its parent. */
	if (lookup(ROOT, "e", &a) || lookup(a, "b", &b))
		abort();
	rename(path("in/e/b"), path("in/b"));
	rename(path("in/e"), path("in/b/e"));
	ok(!lookup(b, "e", &other) && other == a && !lookup(ROOT, "b", &other) && other == b && !lookup(b, "e", &other) && other == a,
	   "folders that the host turns around are followed");
	forget(a, 100);
	forget(b, 100);
	start(false, 100);
}

static void test_forgetting(void)
{
	struct {
		struct fuse_batch_forget_in head;
		struct fuse_forget_one one[2];
	} batch = { .head = { .count = 2 } };
	uint64_t dir, file, fh;

	make_dir(ROOT, "dir", &dir);
	touch(dir, "file", &file);
	lookup(ROOT, "dir", &dir);
	forget(dir, 1);
	is_u64((uint64_t)getattr(dir), 0, "told twice, forgotten once: it is known");
	forget(dir, 1);
	ok(!getattr(dir) && !getattr(file), "a folder stays while what is in it is known");
	ok(!open_file(file, O_RDONLY, &fh), "a file");
	forget(file, 99);
	ok(!read_at(file, fh, 0, 1) && !release(file, fh), "stays while it is open");
	ok(getattr(file) == ESTALE && getattr(dir) == ESTALE, "then both are gone");
	forget(ROOT, ~0ull);
	ok(!getattr(ROOT), "the folder itself is not forgotten");
	if (lookup(ROOT, "dir", &dir) || lookup(dir, "file", &file))
		abort();
	batch.one[0] = (struct fuse_forget_one){ dir, 1 };
	batch.one[1] = (struct fuse_forget_one){ file, 1 };
	ok(!client_do(&c, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL) && getattr(dir) == ESTALE && getattr(file) == ESTALE, "many at a time");
	batch.head.count = ~0u;
	is_u64((uint64_t)client_do(&c, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL), EINVAL, "more than the message has");
	client_begin(&c, FUSE_FORGET, ROOT, &batch, 8);
	((struct fuse_in_header *)c.request)->len = (uint32_t)c.len;
	is_u64(share_handle(c.share, c.request, c.len, c.reply, 0), 0, "no reply where there is no room for one");
	unlink(path("in/dir/file"));
	rmdir(path("in/dir"));
}

static void test_bounds(void)
{
	uint64_t node, fh, other = 0;
	unsigned i;

	touch(ROOT, "f", &node);
	for (i = 0; i < 200 && !open_file(node, O_RDONLY, &fh); i++)
		;
	ok(i == 33 && open_file(node, O_RDONLY, &fh) == ENFILE && create(ROOT, "g", O_RDWR, &other, &fh) == ENFILE, "no more than so much is open (%u)", i);
	unlink_name(ROOT, "g");
	share_reset(c.share);
	is_u64((uint64_t)getattr(node), ESTALE, "a reset forgets all of it");
	start(false, 100);
	c.share->node_bytes_max = 20000;
	for (i = 0; i < 200; i++) {
		char name[32];

		snprintf(name, sizeof(name), "in/%03u-%020u", i, i);
		host_write(name, "x");
		if (lookup(ROOT, name + 3, &other))
			break;
	}
	ok(i > 50 && i < 200, "no more than so much is known (%u)", i);
	is_u64((uint64_t)lookup(ROOT, "200", NULL), ENOENT, "what is not there is not, all the same");
	open_as(FUSE_OPENDIR, ROOT, O_RDONLY, &fh);
	{
		struct fuse_read_in in = { .fh = fh, .size = 100000 };

		ok(!client_do(&c, FUSE_READDIRPLUS, ROOT, &in, sizeof(in), NULL) && c.got > 100 * i, "a folder is listed, with names only");
	}
	forget(other, 100);
	is_u64((uint64_t)lookup(ROOT, "f", &node), 0, "one forgotten, there is room for one");
	for (unsigned j = 0; j <= i; j++) {
		char name[32];

		snprintf(name, sizeof(name), "in/%03u-%020u", j, j);
		unlink(path(name));
	}
	start(false, 100);
	ok(lookup(77, "f", NULL) == ESTALE && getattr(0) == ESTALE && link_to(ROOT, 77, "g") == ESTALE && rename_to(ROOT, "f", 77, "g", 0) == ESTALE,
	   "a number of nothing");
	lookup(ROOT, "f", &node);
	ok(read_at(node, 1, 0, 10) == EBADF && read_at(node, 0, 0, 10) == EBADF && write_at(node, ~0ull, 0, "x") == EBADF, "what is not open is not read");
	ok(!open_file(node, O_RDWR, &fh) && read_at(ROOT, fh, 0, 10) == EBADF, "nor by another's handle");
	ok(read_at(node, fh, ~0ull, 10) == EINVAL && !read_at(node, fh, 0, ~0u) && got("") && write_at(node, fh, ~0ull, "x") == EINVAL,
	   "numbers that are too large");
	ok(open_file(node, O_ACCMODE, NULL) == EINVAL, "an access that is none");
	release(node, fh);
	ok(client_do(&c, 250, ROOT, NULL, 0, NULL) == ENOSYS && client_do(&c, FUSE_GETXATTR, ROOT, "1234567", 8, "user.x") == ENOSYS &&
		   client_do(&c, FUSE_SETLK, ROOT, NULL, 0, NULL) == ENOSYS && client_do(&c, FUSE_FLUSH, ROOT, NULL, 0, NULL) == ENOSYS,
	   "what we do not have");
	/* Each request, cut after each byte. */
	for (uint32_t opcode = 0; opcode < 60; opcode++) {
		int worst = 0;

		for (size_t len = 0; len < 100; len++) {
			static const uint8_t zeros[100];
			int rc;

			client_begin(&c, opcode, ROOT, zeros, len);
			rc = client_send(&c);
			worst = rc < worst ? rc : worst;
		}
		if (worst < 0)
			ok(false, "request %u, cut short, has a reply", opcode);
	}
	client_begin(&c, FUSE_GETATTR, ROOT, "0123456789abcdef", 16);
	((struct fuse_in_header *)c.request)->len = 1000;
	ok(share_handle(c.share, c.request, c.len, c.reply, 100) == 16 && (int)load_le(c.reply + 4, 4) == -EINVAL, "a length that is not the message's");
	ok(share_handle(c.share, c.request, 10, c.reply, 100) == 16 && share_handle(c.share, c.request, 0, c.reply, 100) == 16, "less than a header");
	client_begin(&c, FUSE_GETATTR, ROOT, "0123456789abcdef", 16);
	is_u64((uint64_t)client_send_room(&c, 20), EINVAL, "a reply that does not fit is an error");
	client_begin(&c, FUSE_LOOKUP, ROOT, "f", 2);
	is_u64((uint64_t)client_send_room(&c, 16), EINVAL, "and so is one with a header's room");
	unlink(path("in/f"));
}

static void test_readonly(void)
{
	struct fuse_setattr_in set = { .valid = FATTR_SIZE };
	struct fuse_fallocate_in space = { .length = 10 };
	uint64_t node, fh, other;

	host_write("in/file", "as it was");
	start(true, 100);
	ok(!lookup(ROOT, "file", &node) && !open_file(node, O_RDONLY, &fh) && !read_at(node, fh, 0, 100) && got("as it was"), "read-only: reading");
	is_u64((uint64_t)write_at(node, fh, 0, "changed"), EROFS, "no writing");
	space.fh = fh;
	is_u64((uint64_t)client_do(&c, FUSE_FALLOCATE, node, &space, sizeof(space), NULL), EROFS, "no allocating");
	release(node, fh);
	ok(open_file(node, O_RDWR, &fh) == EROFS && open_file(node, O_WRONLY, &fh) == EROFS && open_file(node, O_RDONLY | O_TRUNC, &fh) == EROFS,
	   "no opening for it");
	ok(create(ROOT, "n", O_RDWR, &other, &fh) == EROFS && make_dir(ROOT, "n", NULL) == EROFS && symlink_to(ROOT, "n", "x") == EROFS &&
		   link_to(ROOT, node, "n") == EROFS && rename_to(ROOT, "file", ROOT, "n", 0) == EROFS && unlink_name(ROOT, "file") == EROFS &&
		   remove_dir(ROOT, "dir") == EROFS && make_node(ROOT, "n", S_IFREG) == EROFS && create(ROOT, "file", O_RDONLY, &other, &fh) == EROFS,
	   "no making, linking, renaming, removing");
	is_u64((uint64_t)setattr(node, &set), EROFS, "no attributes");
	is_u64((uint64_t)client_do(&c, FUSE_SYNCFS, ROOT, "\0\0\0\0\0\0\0", 8, NULL), 0, "nothing to be written out");
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
	start(false, 100);
	test_init();
	test_files();
	test_large();
	test_dir();
	test_names();
	test_ways_out();
	test_found_again();
	test_forgetting();
	test_bounds();
	test_readonly();
	share_destroy(c.share);
	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	return system(command) ? 1 : done_testing();
}
