/* SPDX-License-Identifier: Apache-2.0 */
/* Shared folders (share/) while the host puts a symbolic link out of the folder in a folder's place, and back, as fast as it can. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "tests/unit/share_client.h"

#define ROUNDS 2000u

static atomic_bool over;
static unsigned swaps;

static void *swap(void *opaque)
{
	char dir[512], link[512];

	snprintf(dir, sizeof(dir), "%s", path("in/dir"));
	snprintf(link, sizeof(link), "%s", path("in/link"));
	for (; !over; swaps++)
		if (syscall(SYS_renameat2, AT_FDCWD, dir, AT_FDCWD, link, 2 /* RENAME_EXCHANGE */))
			abort();
	return NULL;
}

/* All that goes by the name of @name, with whatever is there now. */
static unsigned try_all(const char *name)
{
	struct fuse_setattr_in set = { .valid = FATTR_MODE, .mode = 0600 };
	uint64_t dir, file = 0, fh, made;
	unsigned leaks = 0;

	if (lookup(ROOT, name, &dir))
		return 0;
	if (!lookup(dir, "secret", &file)) {
		if (!open_file(file, O_RDONLY, &fh)) {
			leaks += !read_at(file, fh, 0, 100) && !got("inside");
			release(file, fh);
		}
		setattr(file, &set);
	}
	if (!create(dir, "made", O_RDWR, &made, &fh)) {
		release(made, fh);
		unlink_name(dir, "made");
	}
	if (!make_dir(dir, "folder", NULL))
		remove_dir(dir, "folder");
	if (!link_to(file, dir, "other"))
		unlink_name(dir, "other");
	if (!rename_to(ROOT, "mine", dir, "mine", 0))
		rename_to(dir, "mine", ROOT, "mine", 0);
	return leaks;
}

int main(void)
{
	pthread_t thread;
	struct stat before, after;
	unsigned leaks = 0;
	char command[300];

	client_make_tree();
	mkdir(path("in/dir"), 0777);
	host_write("in/dir/secret", "inside");
	host_write("in/mine", "mine");
	if (symlink("../out", path("in/link")) || stat(path("out/secret"), &before))
		abort();
	start(false, 100);
	pthread_create(&thread, NULL, swap, NULL);
	for (unsigned n = 0; n < ROUNDS; n++)
		leaks += try_all(n % 2 ? "dir" : "link");
	over = true;
	pthread_join(thread, NULL);
	is_u64(leaks, 0, "nothing outside was read (%u times to and fro)", swaps);
	ok(!stat(path("out/secret"), &after) && after.st_mode == before.st_mode && after.st_nlink == 1 &&
		   after.st_ctim.tv_nsec == before.st_ctim.tv_nsec,
	   "or changed");
	snprintf(command, sizeof(command), "test \"$(ls -A '%s')\" = secret", path("out"));
	ok(!system(command), "or made");
	return client_end();
}
