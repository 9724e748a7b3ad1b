// SPDX-License-Identifier: Apache-2.0
/*
 * Stacks of a size of our own; see stack.h.
 *
 * Theory of operation. The kernel lets the first thread's stack grow up to RLIMIT_STACK as it is at that moment, so a low limit is
 * raised as far as needed. Where the hard limit forbids that (a shell's plain `ulimit -s 64` sets both), the program runs on
 * memory that we map, with a page before it that nobody may touch. It never comes back from there: it ends by exit().
 *
 * Threads get a size by name because glibc's default is the limit as well, or 2 MiB where there is none.
 */
#include "base/stack.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

struct start {
	int (*program)(int argc, char **argv);
	int argc;
	char **argv;
};

/* makecontext() passes ints. */
static void begin(unsigned high, unsigned low)
{
	const struct start *s = (const struct start *)((uintptr_t)high << 32 | low);

	exit(s->program(s->argc, s->argv));
}

/* Returns only if it fails, with errno. */
static void move(struct start *s)
{
	size_t guard = (size_t)sysconf(_SC_PAGESIZE);
	uintptr_t at = (uintptr_t)s;
	ucontext_t there;
	char *stack = mmap(NULL, guard + STACK_MAIN_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

	if (stack == MAP_FAILED || mprotect(stack + guard, STACK_MAIN_BYTES, PROT_READ | PROT_WRITE) < 0 || getcontext(&there) < 0)
		return;
	there.uc_stack.ss_sp = stack + guard;
	there.uc_stack.ss_size = STACK_MAIN_BYTES;
	there.uc_link = NULL;
	makecontext(&there, (void (*)(void))begin, 2, (unsigned)(at >> 32), (unsigned)at);
	setcontext(&there);
}

int stack_run(int (*program)(int argc, char **argv), int argc, char **argv)
{
	struct start start = { program, argc, argv };
	struct rlimit limit;

	if (getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur < STACK_MAIN_BYTES) {
		limit.rlim_cur = STACK_MAIN_BYTES;
		if (limit.rlim_max < STACK_MAIN_BYTES || setrlimit(RLIMIT_STACK, &limit) < 0) {
			move(&start);
			fprintf(stderr, "%s: no memory for a stack: %s; raise what `ulimit -s` shows, or `ulimit -v`\n", argv[0], strerror(errno));
			return 2;
		}
	}
	return program(argc, argv);
}

int stack_start_thread(pthread_t *thread, void *(*run)(void *), void *opaque)
{
	pthread_attr_t attr;
	int err = pthread_attr_init(&attr);

	if (err)
		return err;
	err = pthread_attr_setstacksize(&attr, STACK_THREAD_BYTES);
	if (!err)
		err = pthread_create(thread, &attr, run, opaque);
	pthread_attr_destroy(&attr);
	return err;
}
