/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors given by number: what is one, and that all others are closed. */
#include "base/descriptor.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tap.h"

static void test_parse(void)
{
	static const char *const bad[] = { NULL, "", "x", "5x", "-1", "99999999999", "99999999999999999999999", " " };
	int fd = -7;
	struct error *err = descriptor_parse("--fd", "12", &fd);

	ok(!err && fd == 12, "a number");
	error_free(err);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		err = descriptor_parse("--fd", bad[i], &fd);
		ok(err && strstr(error_message(err), "--fd takes the number") && fd == 12, "%s", error_message(err));
		error_free(err);
	}
}

/* In a child with the descriptors 3 to 11: which are open after all but @keep were closed, as a set. */
static unsigned left(const int *keep, unsigned count)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		unsigned open_fds = 0;

		for (int fd = 3; fd < 12; fd++)
			if (dup2(STDOUT_FILENO, fd) < 0)
				_exit(255);
		descriptor_close_others(keep, count);
		for (int fd = 0; fd < 12; fd++)
			if (fcntl(fd, F_GETFD) >= 0)
				open_fds |= 1u << fd;
		/* The standard three are not counted, so that it fits into a status. */
		_exit((open_fds & 7) == 7 && open_fds >> 11 == 0 ? open_fds >> 3 & 0xff : 255);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		return 255;
	return (unsigned)WEXITSTATUS(status);
}

int main(void)
{
	test_parse();
	is_u64(left(NULL, 0), 0, "all but the standard three");
	is_u64(left((const int[]){ 3 }, 1), 0x01, "but the first");
	is_u64(left((const int[]){ 9, 4 }, 2), 0x42, "but two, in any order");
	is_u64(left((const int[]){ 5, 6, 5 }, 3), 0x0c, "but two that are neighbours, one named twice");
	is_u64(left((const int[]){ -1, 7, 1 }, 3), 0x10, "but one; what is none does not count");
	is_u64(left((const int[]){ 2147483647 }, 1), 0, "one that is not open is not waited for");
	return done_testing();
}
