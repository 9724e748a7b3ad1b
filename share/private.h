/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Within maru-share: share.c (messages) calls names.c, files.c and attr.c, which do what they ask for with node.c (what the
 * client has numbers for) and tree.c (the folder).
 *
 * Errors are errno values, 0 is success; what returns a descriptor returns it or a negative errno value.
 */
#ifndef SHARE_PRIVATE_H
#define SHARE_PRIVATE_H

#include <limits.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "share/share.h"

#define NAME_BYTES_MAX 255u
#define TARGET_MAX 4095u /* of a symbolic link */

/* ---- node.c ---- */

/* What makes a thing in the tree the same thing. */
struct identity {
	dev_t dev;
	ino_t ino;
	mode_t kind; /* S_IFMT */
};

/*
 * A thing in the tree that the client has a number for. Where it was seen last is @name in @parent; path_fd, an
 * O_PATH descriptor of it, is only kept while there are few enough.
 */
struct node {
	uint64_t id;
	uint64_t lookups; /* how many times the client was told the number, and did not forget it */
	struct identity identity;
	struct node *parent; /* NULL: the folder itself */
	char *name;
	int path_fd;	   /* -1: none at present */
	unsigned children; /* nodes whose parent it is */
	unsigned held;	   /* by open handles and by the request at hand: path_fd stays */
	struct node *next_of_id, *next_of_identity;
	struct node *newer, *older; /* of those with path_fd, but the folder; by their last use */
};

/* What the client has opened. Its number is its place in the table, plus one. */
struct handle {
	struct node *node; /* NULL: free */
	int fd;
};

#define NODE_BUCKETS (1u << 17)
#define HELD_MAX 4u
struct share {
	int fds_fd;
	bool readonly;
	bool gone; /* the host has removed the folder, and that was said */
	struct node root;

	uint64_t last_id;
	size_t node_bytes, node_bytes_max; /* that all nodes take */
	struct node *by_id[NODE_BUCKETS], *by_identity[NODE_BUCKETS];
	unsigned paths, paths_max; /* path_fd that are open */
	struct node *newest, *oldest;
	struct node *held[HELD_MAX]; /* by the request at hand */
	unsigned held_count;

	struct handle *handles;
	unsigned handle_count, handles_max, free_from;
	_Alignas(8) uint8_t names[32768]; /* of a folder, as the kernel gives them */
};

struct node *node_find(struct share *s, uint64_t id);
/* @n stays until the end of the request; at most HELD_MAX of them. */
void node_hold(struct share *s, struct node *n);
/* As node_hold; its O_PATH descriptor. ESTALE if it is not in the folder any more. */
int node_fd(struct share *s, struct node *n);
/*
 * Tells the client about @name in @parent, which @fd is, an O_PATH descriptor that is taken: the node and its attributes.
 * It has one lookup more.
 */
int node_tell(struct share *s, struct node *parent, const char *name, int fd, struct node **out, struct stat *st);
void node_forget(struct share *s, struct node *n, uint64_t lookups);
/* What is @name in @parent now, after a change: if the client knows it, it is there. */
void node_moved(struct share *s, struct node *parent, const char *name);
void node_end_request(struct share *s);
void node_reset(struct share *s);

int handle_add(struct share *s, struct node *n, int fd, uint64_t *number); /* takes @fd, also when it fails */
struct handle *handle_find(struct share *s, uint64_t number, const struct node *n); /* NULL: none, or not of @n */
void handle_remove(struct share *s, struct handle *h);

/* ---- tree.c ---- */

bool tree_is_name(const char *name); /* of one component */
/* The thing of that name in @dir_fd, as an O_PATH descriptor; symbolic links are things. */
int tree_walk(int dir_fd, const char *name);
/* Is what @path_fd names still in the folder? The host may move it out. 1, 0; -ENAMETOOLONG: it is too deep for the kernel to tell. */
int tree_is_beneath(const struct share *s, int path_fd);
void tree_name(const struct share *s, int fd, char path[PATH_MAX]); /* for people */
/* What @fd is, as an O_PATH descriptor. */
int tree_path(const struct share *s, int fd);
/* Opens what @path_fd names, a regular file or a folder, for @flags. */
int tree_open(const struct share *s, int path_fd, int flags);
/* Makes a regular file, or opens the one that is there unless @flags say O_EXCL. */
int tree_create(const struct share *s, int dir_fd, const char *name, int flags, mode_t mode);
/* Calls on what @path_fd names. */
int tree_chmod(const struct share *s, int path_fd, mode_t mode);
int tree_chown(int path_fd, uid_t uid, gid_t gid);
int tree_truncate(const struct share *s, int path_fd, uint64_t size);
int tree_set_times(const struct share *s, int path_fd, const struct timespec times[2]);
int tree_link(const struct share *s, int path_fd, int dir_fd, const char *name);

/* ---- Messages ---- */

/* A request that was taken apart: everything is a copy, or was checked to be within the message. */
struct request {
	struct fuse_in_header head;
	struct node *node; /* that it is about; the folder, where it is about none */
	union {
		struct fuse_init_in init;
		struct fuse_forget_in forget;
		struct fuse_batch_forget_in batch_forget;
		struct fuse_getattr_in getattr;
		struct fuse_setattr_in setattr;
		struct fuse_mknod_in mknod;
		struct fuse_mkdir_in mkdir;
		struct fuse_rename_in rename;
		struct fuse_rename2_in rename2;
		struct fuse_link_in link;
		struct fuse_open_in open;
		struct fuse_create_in create;
		struct fuse_release_in release;
		struct fuse_read_in read;
		struct fuse_write_in write;
		struct fuse_fsync_in fsync;
		struct fuse_fallocate_in fallocate;
		struct fuse_lseek_in lseek;
	} in;
	const char *name[2]; /* names of one component, as many as the request has */
	const uint8_t *rest; /* what follows */
	size_t rest_len;
};

/* What a reply has behind its header. */
struct reply {
	uint8_t *bytes;
	size_t len, room;
	bool full; /* something did not fit */
};

void reply_put(struct reply *w, const void *data, size_t len);
/* The end of each request that finds or makes a name: tells the client about @name in r->node. */
int reply_entry(struct share *s, const struct request *r, const char *name, struct reply *w);
void reply_fill_entry(struct fuse_entry_out *out, const struct node *n, const struct stat *st);
void reply_fill_attr(struct fuse_attr *out, const struct stat *st);
void reply_fill_valid(uint64_t *seconds, uint32_t *nanoseconds);

/* names.c */
int do_lookup(struct share *s, struct request *r, struct reply *w);
int do_mknod(struct share *s, struct request *r, struct reply *w);
int do_mkdir(struct share *s, struct request *r, struct reply *w);
int do_symlink(struct share *s, struct request *r, struct reply *w);
int do_readlink(struct share *s, struct request *r, struct reply *w);
int do_link(struct share *s, struct request *r, struct reply *w);
int do_unlink(struct share *s, struct request *r, struct reply *w);
int do_rmdir(struct share *s, struct request *r, struct reply *w);
int do_rename(struct share *s, struct request *r, struct reply *w);
int do_rename2(struct share *s, struct request *r, struct reply *w);

/* files.c */
int do_open(struct share *s, struct request *r, struct reply *w);
int do_create(struct share *s, struct request *r, struct reply *w);
int do_read(struct share *s, struct request *r, struct reply *w);
int do_write(struct share *s, struct request *r, struct reply *w);
int do_release(struct share *s, struct request *r, struct reply *w);
int do_fsync(struct share *s, struct request *r, struct reply *w);
int do_fallocate(struct share *s, struct request *r, struct reply *w);
int do_lseek(struct share *s, struct request *r, struct reply *w);
int do_opendir(struct share *s, struct request *r, struct reply *w);
int do_readdir(struct share *s, struct request *r, struct reply *w);
int do_readdirplus(struct share *s, struct request *r, struct reply *w);

/* attr.c */
int do_getattr(struct share *s, struct request *r, struct reply *w);
int do_setattr(struct share *s, struct request *r, struct reply *w);
int do_statfs(struct share *s, struct request *r, struct reply *w);
int do_syncfs(struct share *s, struct request *r, struct reply *w);

#endif
