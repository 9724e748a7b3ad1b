// SPDX-License-Identifier: Apache-2.0
/*
 * Who may use an image at the same time, agreed upon with other programs, among them QEMU, whose protocol this is.
 *
 * Locks are open-file-description locks for reading (fcntl(2), F_OFD_SETLK) on single bytes, which nobody is ever kept from
 * taking. A byte for each thing says "I do that": read, write, change the size; another one says "nobody else may do that". Who comes
 * takes all of his and then looks whether somebody's contradicts them: of two that come at the same time both may give up, but never
 * both go on. What a program does that locks the whole file for itself fails, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/util.h"
#include "block/image.h"

enum use { READS, WRITES, RESIZES = 3 };
#define DOES 100 /* first of the bytes for what is done */
#define BARS 200 /* and of those for what nobody else may do */

static const uint8_t all_bar[] = { WRITES, RESIZES }; /* who writes or reads wants to be the only one to write */

static int set(int fd, int byte)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? errno : 0;
}

/* EAGAIN: somebody else has a lock there. */
static int look(int fd, int byte)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return errno;
	return lock.l_type == F_UNLCK ? 0 : EAGAIN;
}

static int claim(int fd, bool readonly)
{
	static const uint8_t does[] = { READS, WRITES, RESIZES };
	unsigned does_count = readonly ? 1 : ARRAY_SIZE(does);
	int rc = 0;

	for (unsigned i = 0; i < does_count && !rc; i++)
		rc = set(fd, DOES + does[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(all_bar) && !rc; i++)
		rc = set(fd, BARS + all_bar[i]);
	for (unsigned i = 0; i < does_count && !rc; i++)
		rc = look(fd, BARS + does[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(all_bar) && !rc; i++)
		rc = look(fd, DOES + all_bar[i]);
	return rc;
}

struct error *block_lock(int fd, bool readonly, const char *name)
{
	int rc = claim(fd, readonly);

	if (!rc)
		return NULL;
	if (rc == EAGAIN || rc == EACCES)
		return error_new("disk '%s' is in use by another virtual machine or program%s", name,
				 readonly ? ", which writes to it" :
					    "; stop that one first, or share the disk with readonly=on "
					    "in all of them");
	if (rc == EINVAL || rc == EOPNOTSUPP || rc == ENOLCK || rc == ENOSYS)
		return error_errno(rc, "disk '%s' cannot be locked: its file system has no locks", name);
	return error_errno(rc, "disk '%s' cannot be locked", name);
}
