/* SPDX-License-Identifier: Apache-2.0 */
/* Between share.c (messages), fid.c (what the client has open) and tree.c (the folder). */
#ifndef SHARE_PRIVATE_H
#define SHARE_PRIVATE_H

#include <sys/stat.h>
#include <sys/types.h>

#include "share/share.h"
#include "share/wire.h"

#define NAME_BYTES_MAX 255u

/* Something in the tree that the client has a number for. */
struct fid {
	uint32_t number;
	int path_fd; /* O_PATH: names the thing, whatever becomes of its name */
	int io_fd;   /* opened for reading or writing; -1: not */
	struct fid *next;
};

#define FID_BUCKETS 1024u
struct share {
	int root_fd, fds_fd;
	bool readonly;
	unsigned fid_count, fids_max;
	uint32_t message_max; /* as agreed upon */
	struct fid *fids[FID_BUCKETS];
	ino_t root_ino;
	uint8_t names[32768]; /* of a folder, as the kernel gives them */
};

/* fid.c. Errors are errno values, 0 is success. */
struct fid *fid_find(struct share *s, uint32_t number);
int fid_add(struct share *s, uint32_t number, int path_fd); /* takes @path_fd, also when it fails */
void fid_remove(struct share *s, struct fid *f);
void fid_remove_all(struct share *s);

/* tree.c. Descriptors are ≥ 0 or negative errno values. */

/* Takes a name of one component: NUL-terminated in @name; an errno value when it is none. */
int tree_name(struct reader *r, char name[NAME_BYTES_MAX + 1]);
/* The thing of that name in @dir_fd, as an O_PATH descriptor; symbolic links are things. */
int tree_walk(int dir_fd, const char *name);
/* Opens what @path_fd names, a regular file or a folder, for @flags. */
int tree_open(const struct share *s, int path_fd, int flags);
/* Makes a regular file, or opens the one that is there unless @flags say O_EXCL. */
int tree_create(const struct share *s, int dir_fd, const char *name, int flags, mode_t mode);
/* Calls on what @path_fd names. */
int tree_stat(int fd, struct stat *st);
int tree_chmod(const struct share *s, int path_fd, mode_t mode);
int tree_chown(int path_fd, uid_t uid, gid_t gid);
int tree_truncate(const struct share *s, int path_fd, uint64_t size);
int tree_set_times(const struct share *s, int path_fd, const struct timespec times[2]);
int tree_link(const struct share *s, int path_fd, int dir_fd, const char *name);

#endif
