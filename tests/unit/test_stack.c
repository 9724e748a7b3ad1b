/* SPDX-License-Identifier: Apache-2.0 */
/* Stacks are as large as we say, whatever the shell's limit is. */
#include "base/stack.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tap.h"

/* Touches @bytes of the stack. */
static __attribute__((noinline)) int use(size_t bytes)
{
	volatile char all[64 * 1024];

	all[0] = all[sizeof(all) - 1] = 1;
	return (bytes <= sizeof(all) ? 0 : use(bytes - sizeof(all))) + all[0];
}

static int program(int argc, char **argv)
{
	return use(STACK_MAIN_BYTES / 2) && argc == 2 && !strcmp(argv[1], "word") ? 7 : 1;
}

#ifndef TAP_SANITIZED
static int endless(int argc, char **argv)
{
	return use((size_t)argc << 40);
}
#endif

/* What becomes of @run in a process with these limits. */
static int status_of(int (*run)(int argc, char **argv), rlim_t soft, rlim_t hard)
{
	char *argv[] = { "test", "word", NULL };
	const struct rlimit limit = { soft, hard };
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		if (setrlimit(RLIMIT_STACK, &limit) < 0)
			_exit(99);
		_exit(stack_run(run, 2, argv));
	}
	waitpid(pid, &status, 0);
	return status;
}

static void *thread(void *opaque)
{
	pthread_attr_t attr;

	if (pthread_getattr_np(pthread_self(), &attr) == 0)
		pthread_attr_getstacksize(&attr, opaque);
	pthread_attr_destroy(&attr);
	use(STACK_THREAD_BYTES / 2);
	return NULL;
}

int main(void)
{
	size_t bytes = 0;
	struct rlimit now;
	pthread_t t;
	int status;

	getrlimit(RLIMIT_STACK, &now);
	status = status_of(program, now.rlim_cur, now.rlim_max);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 7, "with the limit that is (status %#x)", (unsigned)status);
	status = status_of(program, 64 * 1024, now.rlim_max);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 7, "with a soft limit of 64 KiB (status %#x)", (unsigned)status);
	status = status_of(program, 64 * 1024, 64 * 1024);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 7, "with a hard one (status %#x)", (unsigned)status);
#ifdef TAP_SANITIZED
	skip("the end of a stack is the sanitizer's to tell");
#else
	status = status_of(endless, 64 * 1024, 64 * 1024);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "a stack that is used up is the end (status %#x)", (unsigned)status);
#endif

	ok(stack_start_thread(&t, thread, &bytes) == 0, "a thread");
	pthread_join(t, NULL);
	is_u64(bytes, STACK_THREAD_BYTES, "has a stack of that size");
	return done_testing();
}
