// SPDX-License-Identifier: Apache-2.0
/* What the client has numbers for: a hash table, bounded. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "share/private.h"

static struct fid **bucket(struct share *s, uint32_t number)
{
	return &s->fids[number % FID_BUCKETS];
}

struct fid *fid_find(struct share *s, uint32_t number)
{
	struct fid *f = *bucket(s, number);

	while (f && f->number != number)
		f = f->next;
	return f;
}

int fid_add(struct share *s, uint32_t number, int path_fd)
{
	struct fid *f = NULL;
	int rc = 0;

	if (path_fd < 0)
		return -path_fd;
	if (fid_find(s, number))
		rc = EEXIST;
	else if (s->fid_count == s->fids_max)
		rc = ENFILE;
	else
		f = malloc(sizeof(*f));
	if (!rc && !f)
		rc = ENOMEM;
	if (rc) {
		close(path_fd);
		return rc;
	}
	*f = (struct fid){ .number = number, .path_fd = path_fd, .io_fd = -1, .next = *bucket(s, number) };
	*bucket(s, number) = f;
	s->fid_count++;
	return 0;
}

void fid_remove(struct share *s, struct fid *f)
{
	struct fid **at = bucket(s, f->number);

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	close(f->path_fd);
	if (f->io_fd >= 0)
		close(f->io_fd);
	free(f);
	s->fid_count--;
}

void fid_remove_all(struct share *s)
{
	for (unsigned i = 0; i < FID_BUCKETS; i++)
		while (s->fids[i])
			fid_remove(s, s->fids[i]);
}
