/* SPDX-License-Identifier: Apache-2.0 */
/* A shared folder by FUSE: what works, and read-only what does not. */
#include "tests/unit/share_client.h"

static void test_init(void)
{
	struct fuse_init_in in = { .major = 7, .minor = 36, .max_readahead = 1 << 30, .flags = ~0u };
	const struct fuse_init_out *out = client_out(&c);
	uint64_t node, fh;

	ok(client_init(&c) == 0 && c.got == sizeof(*out) && out->major == 7 && out->minor == 31, "version 7.31 is spoken");
	ok(out->max_write == 1 << 20 && out->max_pages == 256 && out->flags & FUSE_MAX_PAGES, "in pieces of up to 1 MiB");
	ok(!(out->flags &
	     (FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_EXPORT_SUPPORT | FUSE_WRITEBACK_CACHE | FUSE_POSIX_ACL)),
	   "locks, \"..\", caches of writes are not offered");
	in.flags = 0;
	ok(!client_do(&c, FUSE_INIT, 0, &in, 16, NULL) && !out->flags, "nor what was not asked for");
	in.minor = 30;
	is_u64((uint64_t)client_do(&c, FUSE_INIT, 0, &in, 16, NULL), EPROTO, "an older one is not");
	in.major = 8;
	ok(!client_do(&c, FUSE_INIT, 0, &in, 16, NULL) && out->major == 7 && !out->max_write,
	   "who speaks a later one may ask again");
	is_u64((uint64_t)client_do(&c, FUSE_INIT, 0, &in, 15, NULL), EINVAL, "a short one is none");
	ok(!create(ROOT, "x", O_RDWR, &node, &fh) && !client_init(&c), "it is begun again");
	ok(read_at(node, fh, 0, 1) == ESTALE && getattr(node) == ESTALE, "what was known is forgotten");
	ok(!lookup(ROOT, "x", &node) && !client_do(&c, FUSE_DESTROY, 0, NULL, 0, NULL) && getattr(node) == ESTALE,
	   "and when it ends");
	unlink_name(ROOT, "x");
}

static void test_files(void)
{
	struct fuse_setattr_in set = { .valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME | FATTR_ATIME | FATTR_ATIME_NOW,
				       .mode = 06640,
				       .size = 5,
				       .mtime = 1000000000,
				       .mtimensec = 5 };
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
	ok(attr()->size == 5 && attr()->mode == st.st_mode && attr()->ino == st.st_ino && attr()->mtimensec == 5 &&
		   attr()->uid == st.st_uid,
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
		ok(!client_do(&c, FUSE_LSEEK, node, &seek, sizeof(seek), NULL) &&
			   ((const struct fuse_lseek_out *)client_out(&c))->offset == 4,
		   "its end found");
		seek.whence = SEEK_SET;
		is_u64((uint64_t)client_do(&c, FUSE_LSEEK, node, &seek, sizeof(seek), NULL), EINVAL,
		       "other seeking is the guest's");
		ok(!client_do(&c, FUSE_FALLOCATE, node, &space, sizeof(space), NULL) && !getattr(node) &&
			   attr()->size == 100,
		   "space is made");
		space.mode = 0x08; /* FALLOC_FL_COLLAPSE_RANGE */
		is_u64((uint64_t)client_do(&c, FUSE_FALLOCATE, node, &space, sizeof(space), NULL), EOPNOTSUPP,
		       "but not taken out");
	}
	is_u64((uint64_t)release(node, fh), 0, "closed");
	is_u64((uint64_t)release(node, fh), EBADF, "once");
	ok(!open_file(node, O_WRONLY | O_APPEND | O_TRUNC, &fh) && !write_at(node, fh, 0, "one") &&
		   !write_at(node, fh, 0, "two") && !release(node, fh),
	   "emptied and appended to");
	is_str(host_read("in/new"), "onetwo", "as the host sees");
	is_u64((uint64_t)make_dir(ROOT, "dir", &dir), 0, "a folder");
	ok(!rename_to(ROOT, "new", dir, "moved", 0), "a file moves into it");
	is_str(host_read("in/dir/moved"), "onetwo", "as the host sees");
	ok(!link_to(ROOT, node, "linked") && client_entry(&c)->nodeid == node && client_entry(&c)->attr.nlink == 2,
	   "a second name for the same");
	host_write("in/other", "other");
	ok(rename_to(dir, "moved", ROOT, "other", RENAME_NOREPLACE) == EEXIST &&
		   !rename_to(dir, "moved", ROOT, "other", RENAME_EXCHANGE),
	   "names are kept or exchanged");
	is_str(host_read("in/dir/moved"), "other", "as the host sees");
	ok(!lookup(ROOT, "other", &same) && same == node, "it has the same number");
	is_u64((uint64_t)rename_to(ROOT, "other", ROOT, "gone", RENAME_WHITEOUT), EINVAL, "no whiteouts");
	ok(!client_do(&c, FUSE_STATFS, ROOT, NULL, 0, NULL) &&
		   ((const struct fuse_statfs_out *)client_out(&c))->st.namelen == 255,
	   "the file system");
	is_u64((uint64_t)client_do(&c, FUSE_SYNCFS, ROOT, "\0\0\0\0\0\0\0", 8, NULL), 0, "all of it written out");
	ok(!unlink_name(ROOT, "linked") && !unlink_name(ROOT, "other") && !unlink_name(dir, "moved") &&
		   !remove_dir(ROOT, "dir"),
	   "all removed");
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
	ok(client_send(&c) == 0 && ((const struct fuse_write_out *)client_out(&c))->size == SHARE_DATA_MAX,
	   "1 MiB is written at once");
	ok(!read_at(node, fh, 0, SHARE_DATA_MAX) && c.got == SHARE_DATA_MAX &&
		   !memcmp(client_out(&c), text, SHARE_DATA_MAX),
	   "and read");
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
	for (const uint8_t *at = client_out(&c), *end = at + c.got; at < end;
	     at += FUSE_DIRENT_SIZE((const struct fuse_dirent *)at)) {
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

		seen += !dots && p->entry_out.nodeid && p->entry_out.attr.ino == p->dirent.ino &&
			p->entry_out.attr.size == 1;
		seen += dots && p->entry_out.nodeid ? 1000 : 0;
		at += FUSE_DIRENTPLUS_SIZE(p);
	}
	is_u64(seen, 100, "each is a node at once, but \".\" and \"..\"");
	is_u64((uint64_t)release(ROOT, fh), 0, "closed");
	ok(open_file(ROOT, O_RDONLY, NULL) == EISDIR && !lookup(ROOT, "many-00", &node) &&
		   open_as(FUSE_OPENDIR, node, O_RDONLY, NULL) == ENOTDIR,
	   "files and folders are not opened as each other");
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "in/many-%02u", i);
		unlink(path(name));
	}
}

static void test_readonly(void)
{
	struct fuse_setattr_in set = { .valid = FATTR_SIZE };
	struct fuse_fallocate_in space = { .length = 10 };
	uint64_t node = 0, fh = 0, other;

	host_write("in/file", "as it was");
	start(true, 100);
	ok(!lookup(ROOT, "file", &node) && !open_file(node, O_RDONLY, &fh) && !read_at(node, fh, 0, 100) &&
		   got("as it was"),
	   "read-only: reading");
	is_u64((uint64_t)write_at(node, fh, 0, "changed"), EROFS, "no writing");
	space.fh = fh;
	is_u64((uint64_t)client_do(&c, FUSE_FALLOCATE, node, &space, sizeof(space), NULL), EROFS, "no allocating");
	release(node, fh);
	ok(open_file(node, O_RDWR, &fh) == EROFS && open_file(node, O_WRONLY, &fh) == EROFS &&
		   open_file(node, O_RDONLY | O_TRUNC, &fh) == EROFS,
	   "no opening for it");
	ok(create(ROOT, "n", O_RDWR, &other, &fh) == EROFS && make_dir(ROOT, "n", NULL) == EROFS &&
		   symlink_to(ROOT, "n", "x") == EROFS && link_to(ROOT, node, "n") == EROFS &&
		   rename_to(ROOT, "file", ROOT, "n", 0) == EROFS && unlink_name(ROOT, "file") == EROFS &&
		   remove_dir(ROOT, "dir") == EROFS && make_node(ROOT, "n", S_IFREG) == EROFS &&
		   create(ROOT, "file", O_RDONLY, &other, &fh) == EROFS,
	   "no making, linking, renaming, removing");
	is_u64((uint64_t)setattr(node, &set), EROFS, "no attributes");
	is_u64((uint64_t)client_do(&c, FUSE_SYNCFS, ROOT, "\0\0\0\0\0\0\0", 8, NULL), 0, "nothing to be written out");
	is_str(host_read("in/file"), "as it was", "and so it is");
}

int main(void)
{
	client_make_tree();
	start(false, 100);
	test_init();
	test_files();
	test_large();
	test_dir();
	test_readonly();
	return client_end();
}
