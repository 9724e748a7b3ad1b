/* SPDX-License-Identifier: Apache-2.0 */
/* How much stack our programs and their threads have: what we say, not what the shell's `ulimit -s` happens to be. */
#ifndef BASE_STACK_H
#define BASE_STACK_H

#include <pthread.h>

/* libslirp takes 64 KiB for a frame, and JSON that is nested as deeply as it may be takes half a megabyte. */
#define STACK_MAIN_BYTES (4u << 20)
#define STACK_THREAD_BYTES (1u << 20)

/* The rest of a program, on a stack of at least STACK_MAIN_BYTES; its status. The first thing in main(): it may not return. */
int stack_run(int (*program)(int argc, char **argv), int argc, char **argv);

/* pthread_create() with a stack of STACK_THREAD_BYTES. 0, or an errno value. */
int stack_start_thread(pthread_t *thread, void *(*run)(void *), void *opaque);

#endif
