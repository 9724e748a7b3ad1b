// SPDX-License-Identifier: Apache-2.0
/*
 * What the doctor asks the kernel itself: landlock(7), unshare(2), io_uring_setup(2), getrlimit(2). Each question is a call that succeeds, or fails in
 * a known way, without making anything; only user namespaces have to be made, by a process that ends at once.
 */
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/doctor.h"

#define LANDLOCK_VERSION 1u /* LANDLOCK_CREATE_RULESET_VERSION */
#ifndef __NR_landlock_create_ruleset /* newer than some C libraries */
#define __NR_landlock_create_ruleset 444
#endif

/* With the other namespaces that maru-vm makes beside it: some hosts grant a user namespace, but no rights in it. */
static int ask_user_namespace(void)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC) < 0 ? errno : 0);
	if (pid < 0)
		return errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
}

static uint64_t limit(int resource)
{
	struct rlimit r;

	return getrlimit(resource, &r) < 0 || r.rlim_cur == RLIM_INFINITY ? UINT64_MAX : r.rlim_cur;
}

void doctor_ask_kernel(struct doctor_facts *out)
{
	*out = (struct doctor_facts){ 0 };
	if (syscall(__NR_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION) < 0)
		out->landlock_errno = errno;
	/* No address for its parameters: looked at only by a kernel that would make a ring for us. */
	if (syscall(__NR_io_uring_setup, 1, NULL) < 0 && errno != EFAULT)
		out->io_uring_errno = errno;
	out->user_namespace_errno = ask_user_namespace();
	out->limits = (struct doctor_limits){ limit(RLIMIT_AS), limit(RLIMIT_DATA), limit(RLIMIT_FSIZE), limit(RLIMIT_NOFILE) };
}
