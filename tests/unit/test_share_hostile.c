/* SPDX-License-Identifier: Apache-2.0 */
/* A shared folder by FUSE: nothing leads out of it, whatever it is asked for and whatever the host does meanwhile, and all is bounded. */
#include <sched.h>
#include <sys/mount.h>

#include "base/log.h"
#include "share/private.h"
#include "tests/unit/share_client.h"

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

		ok(lookup(ROOT, name, NULL) == e && create(ROOT, name, O_RDWR, &n, &fh) == e &&
			   make_dir(ROOT, name, NULL) == e && unlink_name(ROOT, name) == e &&
			   remove_dir(ROOT, name) == e && symlink_to(ROOT, name, "x") == e &&
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
		ok(!lookup(ROOT, "way", &node) && S_ISLNK(client_entry(&c)->attr.mode), "a link to %s is a thing",
		   targets[i]);
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
	ok(!stat(path("out"), &st) && st.st_mtim.tv_sec != 1000 && !stat(path("out/secret"), &st) &&
		   st.st_mtim.tv_sec != 1000 && st.st_size == 6,
	   "with its times and sizes");
	ok(make_node(ROOT, "node", S_IFBLK | 0666) == EPERM && make_node(ROOT, "node", S_IFCHR | 0666) == EPERM &&
		   make_node(ROOT, "node", S_IFIFO | 0666) == EPERM && make_node(ROOT, "node", S_IFSOCK | 0666) == EPERM &&
		   make_node(ROOT, "node", 0666) == EPERM,
	   "no devices, FIFOs and sockets are made");
	ok(!mkfifo(path("in/fifo"), 0666) && !lookup(ROOT, "fifo", &node) && open_file(node, O_RDONLY, NULL) == EACCES,
	   "a FIFO is not opened");
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
		ok(rename_to(ROOT, "mnt", ROOT, "m", 0) == EBUSY && remove_dir(ROOT, "mnt") == EBUSY,
		   "nor moved, nor removed");
		umount(path("in/mnt"));
		ok(!lookup(ROOT, "mnt", &node) && !mount(path("out"), path("in/mnt"), NULL, MS_BIND, NULL) &&
			   lookup(node, "secret", &other) == ENOENT,
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

/* What the host moves out of the folder is no longer the guest's, though its descriptors name it still. */
static void test_moved_out(void)
{
	struct fuse_setattr_in set = { .valid = FATTR_MODE, .mode = 0777 };
	uint64_t dir = 0, file = 0, fh = 0, link = 0, other;
	struct stat st;

	start(false, 100);
	mkdir(path("in/away"), 0755);
	host_write("in/away/file", "inside");
	if (symlink("target", path("in/away/link")))
		abort();
	chmod(path("in/away/file"), 0600);
	ok(!lookup(ROOT, "away", &dir) && !lookup(dir, "file", &file) && !lookup(dir, "link", &link) &&
		   !open_file(file, O_RDWR, &fh),
	   "a folder with an open file");
	rename(path("in/away"), path("out/away"));
	ok(getattr(dir) == ESTALE && getattr(file) == ESTALE, "is moved out by the host: it cannot be looked at");
	ok(setattr(dir, &set) == ESTALE && setattr(file, &set) == ESTALE, "or changed");
	set = (struct fuse_setattr_in){ .valid = FATTR_MTIME, .mtime = 1000 };
	ok(setattr(dir, &set) == ESTALE && setattr(file, &set) == ESTALE, "nor its times");
	ok(!stat(path("out/away/file"), &st) && (st.st_mode & 0777) == 0600 && st.st_mtim.tv_sec != 1000, "it is as it was");
	ok(lookup(dir, "file", &other) == ESTALE && touch(dir, "new", NULL) == ESTALE && open_file(file, O_RDONLY, NULL) == ESTALE &&
		   unlink_name(dir, "file") == ESTALE && rename_to(dir, "file", ROOT, "mine", 0) == ESTALE &&
		   link_to(file, ROOT, "mine") == ESTALE && client_do(&c, FUSE_READLINK, link, NULL, 0, NULL) == ESTALE &&
		   open_as(FUSE_OPENDIR, dir, O_RDONLY, NULL) == ESTALE,
	   "nothing in it is found, made, opened, read, removed or moved");
	ok(!read_at(file, fh, 0, 100) && got("inside"), "but what is open stays open");
	rename(path("out/away"), path("in/back"));
	ok(!getattr(dir) && !getattr(file) && !setattr(file, &set) && attr()->mtime == 1000, "moved back, it is there again");
	ok(!unlink_name(dir, "file") && !getattr(file) && attr()->nlink == 0, "a file without a name was the guest's last");
	release(file, fh);
	start(false, 100);
}

/* As above, with paths that are too long for the kernel to tell. */
static void test_moved_out_deep(void)
{
	enum { LEVELS = 20 };
	struct fuse_setattr_in set = { .valid = FATTR_MODE, .mode = 0711 };
	char name[251], from[512], to[512], first[1024];
	uint64_t dir[LEVELS + 1] = { ROOT }, file = 0, fh = 0;
	unsigned level;

	start(false, 100);
	memset(name, 'n', 250);
	name[250] = 0;
	for (level = 0; level < LEVELS && !make_dir(dir[level], name, &dir[level + 1]); level++)
		;
	is_u64(level, LEVELS, "folders, 5000 bytes of names deep");
	ok(!create(dir[LEVELS], "file", O_RDWR, &file, &fh) && !write_at(file, fh, 0, "text") && !setattr(dir[LEVELS], &set) &&
		   !unlink_name(dir[LEVELS], "file") && !getattr(file),
	   "are of use");
	release(file, fh);
	snprintf(from, sizeof(from), "%s/%s", path("in"), name);
	snprintf(to, sizeof(to), "%s", path("out/deep"));
	rename(from, to);
	set.mode = 0700;
	ok(getattr(dir[1]) == ESTALE && getattr(dir[LEVELS]) == ESTALE && setattr(dir[LEVELS], &set) == ESTALE &&
		   touch(dir[LEVELS], "new", NULL) == ESTALE,
	   "moved out by the host they are not");
	rename(to, from);
	ok(!getattr(dir[LEVELS]) && (attr()->mode & 0777) == 0711, "and were not changed meanwhile");
	/* Only a part of the way. */
	snprintf(first, sizeof(first), "%s/%s", from, name);
	rename(first, to);
	ok(!getattr(dir[1]) && getattr(dir[2]) == ESTALE && getattr(dir[LEVELS]) == ESTALE, "the same from further below");
	rename(to, first);
	for (; level > 0 && !remove_dir(dir[level - 1], name); level--)
		;
	is_u64(level, 0, "back again they can be removed");
	start(false, 100);
}

/* Enough of them that other nodes' descriptors are given up. */
static void look_at_others(void)
{
	for (unsigned i = 0; i < 100; i++) {
		char name[32];

		snprintf(name, sizeof(name), "f%u", i);
		lookup(ROOT, name, NULL);
	}
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
	ok(!open_file(file, O_RDONLY, &fh) && !read_at(file, fh, 0, 100) && got("the same") && !release(file, fh),
	   "what was known first is found again");
	look_at_others();
	ok(!rename_to(ROOT, "a", ROOT, "c", 0), "its folder gets another name");
	look_at_others();
	ok(!getattr(file) && attr()->size == 8, "by the guest: it is found there");
	look_at_others();
	rename(path("in/c"), path("in/d"));
	is_u64((uint64_t)getattr(file), ESTALE, "by the host: it is not");
	ok(!lookup(ROOT, "d", &other) && other == a && !getattr(file), "until the guest looks for the folder");
	look_at_others();
	/* Something else has the name: a way out, another file. */
	rename(path("in/d"), path("in/e"));
	if (symlink("../out", path("in/d")))
		abort();
	is_u64((uint64_t)getattr(file), ESTALE, "a link in the folder's place is not followed");
	look_at_others();
	unlink(path("in/d"));
	mkdir(path("in/d"), 0755);
	mkdir(path("in/d/b"), 0755);
	host_write("in/d/b/file", "another");
	is_u64((uint64_t)open_file(file, O_RDONLY, &fh), ESTALE, "nor is another file taken for it");

	/* What is open is kept, without a name. */
	ok(!create(ROOT, "open", O_RDWR, &node, &fh) && !unlink_name(ROOT, "open"), "a file is open and has no name");
	look_at_others();
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
	ok(!lookup(b, "e", &other) && other == a && !lookup(ROOT, "b", &other) && other == b &&
		   !lookup(b, "e", &other) && other == a,
	   "folders that the host turns around are followed");
	/* And again, without the guest looking where they are now: no node is its own parent, and all can be forgotten. */
	rename(path("in/b/e"), path("in/e"));
	rename(path("in/b"), path("in/e/b"));
	share_reset(c.share);
	if (lookup(ROOT, "e", &a) || lookup(a, "b", &b))
		abort();
	rename(path("in/e/b"), path("in/b"));
	rename(path("in/e"), path("in/b/e"));
	ok(!lookup(b, "e", &other) && other == a && !getattr(a) && !getattr(b), "in whatever order");
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
	ok(!client_do(&c, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL) && getattr(dir) == ESTALE &&
		   getattr(file) == ESTALE,
	   "many at a time");
	batch.head.count = ~0u;
	is_u64((uint64_t)client_do(&c, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL), EINVAL,
	       "more than the message has");
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
	ok(i == 33 && open_file(node, O_RDONLY, &fh) == ENFILE && create(ROOT, "g", O_RDWR, &other, &fh) == ENFILE,
	   "no more than so much is open (%u)", i);
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

		ok(!client_do(&c, FUSE_READDIRPLUS, ROOT, &in, sizeof(in), NULL) && c.got > 100 * i,
		   "a folder is listed, with names only");
	}
	forget(other, 100);
	is_u64((uint64_t)lookup(ROOT, "f", &node), 0, "one forgotten, there is room for one");
	for (unsigned j = 0; j <= i; j++) {
		char name[32];

		snprintf(name, sizeof(name), "in/%03u-%020u", j, j);
		unlink(path(name));
	}
	start(false, 100);
	ok(lookup(77, "f", NULL) == ESTALE && getattr(0) == ESTALE && link_to(ROOT, 77, "g") == ESTALE &&
		   rename_to(ROOT, "f", 77, "g", 0) == ESTALE,
	   "a number of nothing");
	lookup(ROOT, "f", &node);
	ok(read_at(node, 1, 0, 10) == EBADF && read_at(node, 0, 0, 10) == EBADF &&
		   write_at(node, ~0ull, 0, "x") == EBADF,
	   "what is not open is not read");
	ok(!open_file(node, O_RDWR, &fh) && read_at(ROOT, fh, 0, 10) == EBADF, "nor by another's handle");
	ok(read_at(node, fh, ~0ull, 10) == EINVAL && !read_at(node, fh, 0, ~0u) && got("") &&
		   write_at(node, fh, ~0ull, "x") == EINVAL,
	   "numbers that are too large");
	ok(open_file(node, O_ACCMODE, NULL) == EINVAL, "an access that is none");
	release(node, fh);
	ok(client_do(&c, 250, ROOT, NULL, 0, NULL) == ENOSYS &&
		   client_do(&c, FUSE_GETXATTR, ROOT, "1234567", 8, "user.x") == ENOSYS &&
		   client_do(&c, FUSE_SETLK, ROOT, NULL, 0, NULL) == ENOSYS &&
		   client_do(&c, FUSE_FLUSH, ROOT, NULL, 0, NULL) == ENOSYS,
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
	ok(share_handle(c.share, c.request, c.len, c.reply, 1000) == 16 && (int)load_le(c.reply + 4, 4) == -EINVAL,
	   "a length that is not the message's");
	ok(share_handle(c.share, c.request, 10, c.reply, 100) == 16 &&
		   share_handle(c.share, c.request, 0, c.reply, 100) == 16,
	   "less than a header");
	client_begin(&c, FUSE_GETATTR, ROOT, "0123456789abcdef", 16);
	is_u64((uint64_t)client_send_room(&c, 20), EINVAL, "a reply that does not fit is an error");
	client_begin(&c, FUSE_LOOKUP, ROOT, "f", 2);
	is_u64((uint64_t)client_send_room(&c, 16), EINVAL, "and so is one with a header's room");
	unlink(path("in/f"));
}

static char logged[256];
static unsigned logged_count;

static void keep(void *opaque, enum log_level level, const char *text)
{
	snprintf(logged, sizeof(logged), "%s", text);
	logged_count++;
}

static void test_removed(void)
{
	uint64_t node;

	if (rename(path("in"), path("in-before")) || mkdir(path("in"), 0755))
		abort();
	start(false, 100);
	log_set_sink(keep, NULL);
	ok(!touch(ROOT, "f", NULL) && lookup(ROOT, "none", NULL) == ENOENT && !logged_count, "all is well");
	if (unlink(path("in/f")) || rmdir(path("in")))
		abort();
	ok(!getattr(ROOT) && touch(ROOT, "g", NULL) == ENOENT && lookup(ROOT, "f", &node) == ENOENT, "the folder is removed by the host");
	ok(logged_count == 1 && strstr(logged, "was removed") && strstr(logged, "/in"), "which is said, once: %s", logged);
	log_set_sink(NULL, NULL);
}

int main(void)
{
	client_make_tree();
	start(false, 100);
	test_names();
	test_ways_out();
	test_moved_out();
	test_moved_out_deep();
	test_found_again();
	test_forgetting();
	test_bounds();
	test_removed();
	return client_end();
}
