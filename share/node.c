// SPDX-License-Identifier: Apache-2.0
/*
 * What the client has numbers for.
 *
 * Theory of operation. FUSE names things by numbers that we give out: each name that the client is told about counts as a
 * lookup of its node, until it forgets as many. A guest's kernel does not forget before it needs the memory, so there
 * are as many nodes as it has ever seen names, and a descriptor for each would soon be more than a process may have.
 * Therefore a node also knows where it was seen last, its name in its parent, and its descriptor is kept only for those
 * used last (and for what is open, which may have lost its name). The others are looked for again, from the nearest
 * folder that has one, and must be the same thing still: same file system, inode and kind. If the host has put something
 * else there, or nothing, the answer is ESTALE, and the guest's kernel looks the name up anew. So it is for what the host has moved
 * out of the folder (tree.c).
 *
 * A thing is told by one number, whatever its names, so that the guest's caches are right for hard links. When the client
 * finds it under another name, or renames it, the node moves there. The host may move folders in ways
 * that the nodes do not follow: no folder is moved beneath itself here, and no way back is longer than DEPTH_MAX.
 *
 * Bounds: so many bytes for all nodes, and so many descriptors; beyond it is ENFILE.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "share/private.h"

#define ALLOCATION_BYTES 16u /* that an allocation costs besides */
#define DEPTH_MAX 2048u

static size_t bytes_of(const char *name)
{
	return sizeof(struct node) + strlen(name) + 1 + 2 * ALLOCATION_BYTES;
}

static struct node **id_bucket(struct share *s, uint64_t id)
{
	return &s->by_id[id % NODE_BUCKETS];
}

static struct node **identity_bucket(struct share *s, const struct identity *i)
{
	return &s->by_identity[((i->ino ^ (uint64_t)i->dev << 32) * 0x9e3779b97f4a7c15ull >> 32) % NODE_BUCKETS];
}

static struct identity identity_of(const struct stat *st)
{
	return (struct identity){ st->st_dev, st->st_ino, st->st_mode & S_IFMT };
}

static bool same(const struct identity *a, const struct identity *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->kind == b->kind;
}

struct node *node_find(struct share *s, uint64_t id)
{
	struct node *n = *id_bucket(s, id);

	if (id == s->root.id)
		return &s->root;
	while (n && n->id != id)
		n = n->next_of_id;
	return n;
}

static struct node *find_identity(struct share *s, const struct identity *i)
{
	struct node *n = *identity_bucket(s, i);

	if (same(&s->root.identity, i))
		return &s->root;
	while (n && !same(&n->identity, i))
		n = n->next_of_identity;
	return n;
}

/* ---- Descriptors, by their last use ---- */

static void unlink_path(struct share *s, struct node *n)
{
	*(n->newer ? &n->newer->older : &s->newest) = n->older;
	*(n->older ? &n->older->newer : &s->oldest) = n->newer;
}

static void link_path(struct share *s, struct node *n)
{
	n->newer = NULL;
	n->older = s->newest;
	*(s->newest ? &s->newest->newer : &s->oldest) = n;
	s->newest = n;
}

static void touch_path(struct share *s, struct node *n)
{
	unlink_path(s, n);
	link_path(s, n);
}

static void drop_path(struct share *s, struct node *n)
{
	unlink_path(s, n);
	close(n->path_fd);
	n->path_fd = -1;
	s->paths--;
}

/* Takes @fd. What is held is fewer than paths_max (share_create), so there is always one to give up. */
static void keep_path(struct share *s, struct node *n, int fd)
{
	while (s->paths >= s->paths_max) {
		struct node *old = s->oldest;

		if (old->held)
			touch_path(s, old);
		else
			drop_path(s, old);
	}
	n->path_fd = fd;
	link_path(s, n);
	s->paths++;
}

/* @n by its name in @dir_fd, an O_PATH descriptor; ESTALE if something else is there, or nothing. */
static int walk_to(int dir_fd, const struct node *n)
{
	int fd = tree_walk(dir_fd, n->name);
	struct identity identity = { 0 };
	struct stat st;

	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR || fd == -EXDEV ? -ESTALE : fd;
	if (fstat(fd, &st) == 0)
		identity = identity_of(&st);
	if (same(&identity, &n->identity))
		return fd;
	close(fd);
	return -ESTALE;
}

/* Looks for @n again, from the nearest of its parents that has a descriptor: the folder has one. */
static int find_again(struct share *s, struct node *n)
{
	struct node *way[DEPTH_MAX], *at = n;
	unsigned depth = 0;

	for (; at->path_fd < 0; at = at->parent) {
		if (depth == DEPTH_MAX)
			return -ESTALE;
		way[depth++] = at;
	}
	while (depth) {
		struct node *next = way[--depth];
		int fd = walk_to(at->path_fd, next);

		if (fd < 0)
			return fd;
		keep_path(s, next, fd);
		at = next;
	}
	return 0;
}

/*
 * For what is so deep that the kernel does not tell its path: whether the way that the client has found it by leads there still. Only
 * the first DEPTH_MAX folders are looked at: who makes deeper ones has to be able to remove them.
 */
static bool is_where_it_was(struct share *s, struct node *n)
{
	struct node *way[DEPTH_MAX];
	unsigned depth = 0;
	struct stat st;
	int fd = s->root.path_fd;

	if (fstat(n->path_fd, &st) == 0 && !st.st_nlink)
		return true; /* it has no name any more, and is nobody else's */
	for (struct node *at = n; at != &s->root; at = at->parent)
		way[depth++ % DEPTH_MAX] = at;
	for (unsigned i = 0; i < MIN(depth, DEPTH_MAX); i++) {
		int next = walk_to(fd, way[(depth - 1 - i) % DEPTH_MAX]);

		if (fd != s->root.path_fd)
			close(fd);
		if (next < 0)
			return false;
		fd = next;
	}
	close(fd);
	return true;
}

static bool is_beneath(struct share *s, struct node *n)
{
	int rc = tree_is_beneath(s, n->path_fd);

	return rc == -ENAMETOOLONG ? is_where_it_was(s, n) : rc > 0;
}

void node_hold(struct share *s, struct node *n)
{
	assert(s->held_count < HELD_MAX);
	s->held[s->held_count++] = n;
	n->held++;
}

int node_fd(struct share *s, struct node *n)
{
	int rc = n->path_fd < 0 ? find_again(s, n) : 0;

	if (rc)
		return rc;
	if (n != &s->root) {
		if (!is_beneath(s, n))
			return -ESTALE;
		touch_path(s, n);
	}
	node_hold(s, n);
	return n->path_fd;
}

/* ---- Nodes ---- */

static void unchain(struct node **at, struct node *n, bool of_id)
{
	while (*at != n)
		at = of_id ? &(*at)->next_of_id : &(*at)->next_of_identity;
	*at = of_id ? n->next_of_id : n->next_of_identity;
}

/* Frees @n unless somebody still needs it, and then its parents likewise. */
static void release(struct share *s, struct node *n)
{
	while (n != &s->root && !n->lookups && !n->children && !n->held) {
		struct node *parent = n->parent;

		if (n->path_fd >= 0)
			drop_path(s, n);
		unchain(id_bucket(s, n->id), n, true);
		unchain(identity_bucket(s, &n->identity), n, false);
		s->node_bytes -= bytes_of(n->name);
		free(n->name);
		free(n);
		parent->children--;
		n = parent;
	}
}

static void unhold(struct share *s, struct node *n)
{
	n->held--;
	release(s, n);
}

static struct node *add(struct share *s, struct node *parent, const char *name, const struct identity *identity)
{
	struct node *n;

	if (s->node_bytes + bytes_of(name) > s->node_bytes_max)
		return NULL;
	n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->name = strdup(name);
	if (!n->name) {
		free(n);
		return NULL;
	}
	n->id = ++s->last_id;
	n->identity = *identity;
	n->path_fd = -1;
	n->parent = parent;
	parent->children++;
	n->next_of_id = *id_bucket(s, n->id);
	*id_bucket(s, n->id) = n;
	n->next_of_identity = *identity_bucket(s, identity);
	*identity_bucket(s, identity) = n;
	s->node_bytes += bytes_of(name);
	return n;
}

/* @n was seen as @name in @parent. It stays where it was if that cannot be remembered. */
static void move(struct share *s, struct node *n, struct node *parent, const char *name)
{
	struct node *was = n->parent;
	unsigned depth = 0;
	char *copy;

	if (n == &s->root || (was == parent && !strcmp(n->name, name)))
		return;
	for (struct node *above = parent; above; above = above->parent)
		if (above == n || ++depth == DEPTH_MAX)
			return;
	if (s->node_bytes + strlen(name) > s->node_bytes_max)
		return;
	copy = strdup(name);
	if (!copy)
		return;
	s->node_bytes += strlen(copy) - strlen(n->name);
	free(n->name);
	n->name = copy;
	n->parent = parent;
	parent->children++;
	was->children--;
	release(s, was);
}

int node_tell(struct share *s, struct node *parent, const char *name, int fd, struct node **out, struct stat *st)
{
	struct identity identity;
	struct node *n;

	if (fd < 0)
		return -fd;
	if (fstat(fd, st) < 0) {
		int rc = errno;

		close(fd);
		return rc;
	}
	identity = identity_of(st);
	n = find_identity(s, &identity);
	if (n)
		move(s, n, parent, name);
	else
		n = add(s, parent, name, &identity);
	if (n && n->path_fd < 0)
		keep_path(s, n, fd);
	else
		close(fd);
	if (!n)
		return ENFILE;
	n->lookups++;
	*out = n;
	return 0;
}

void node_forget(struct share *s, struct node *n, uint64_t lookups)
{
	n->lookups -= MIN(lookups, n->lookups);
	release(s, n);
}

void node_moved(struct share *s, struct node *parent, const char *name)
{
	struct identity identity;
	struct node *n;
	struct stat st;

	if (fstatat(parent->path_fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return;
	identity = identity_of(&st);
	n = find_identity(s, &identity);
	if (n)
		move(s, n, parent, name);
}

void node_end_request(struct share *s)
{
	while (s->held_count)
		unhold(s, s->held[--s->held_count]);
}

void node_reset(struct share *s)
{
	for (unsigned i = 0; i < s->handles_max; i++)
		if (s->handles[i].node)
			handle_remove(s, &s->handles[i]);
	/* Parents last, which is what release() does by itself. */
	for (unsigned i = 0; s->node_bytes && i < NODE_BUCKETS; i++)
		for (struct node *n = s->by_id[i]; n; n = n->next_of_id)
			n->lookups = 0;
	for (unsigned i = 0; s->node_bytes && i < NODE_BUCKETS; i++) {
		struct node *n = s->by_id[i];

		while (n) {
			if (n->children) {
				n = n->next_of_id;
				continue;
			}
			release(s, n);
			n = s->by_id[i]; /* parents may be gone, too */
		}
	}
	assert(!s->root.children && !s->node_bytes && !s->paths);
	s->last_id = FUSE_ROOT_ID;
}

/* ---- Handles ---- */

int handle_add(struct share *s, struct node *n, int fd, uint64_t *number)
{
	unsigned i = s->free_from;

	if (fd < 0)
		return -fd;
	if (s->handle_count == s->handles_max) {
		close(fd);
		return ENFILE;
	}
	while (s->handles[i].node)
		i++;
	s->handles[i] = (struct handle){ n, fd };
	s->handle_count++;
	s->free_from = i + 1;
	n->held++;
	*number = i + 1;
	return 0;
}

struct handle *handle_find(struct share *s, uint64_t number, const struct node *n)
{
	struct handle *h = number - 1 < s->handles_max ? &s->handles[number - 1] : NULL;

	return h && h->node == n ? h : NULL;
}

void handle_remove(struct share *s, struct handle *h)
{
	struct node *n = h->node;

	close(h->fd);
	h->node = NULL;
	s->handle_count--;
	s->free_from = MIN(s->free_from, (unsigned)(h - s->handles));
	unhold(s, n);
}
