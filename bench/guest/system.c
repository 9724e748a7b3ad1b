// SPDX-License-Identifier: Apache-2.0
//
// Programs that live in the kernel: system calls, processes, pipes, futexes, page faults, mappings, signals.

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static long syscalls(long n)
{
	long sum = 0;
	for (long i = 0; i < n; i++)
		sum += syscall(SYS_getppid) > 0;
	return sum;
}

// Calls that do something: stat of a path, open, read, close.
static long files(long n)
{
	char buf[64];
	long sum = 0;
	for (long i = 0; i < n; i++) {
		struct stat st;
		int fd = open("/bench/Makefile", O_RDONLY);
		if (fd < 0 || fstat(fd, &st) < 0 || stat("/usr/bin/env", &st) < 0)
			die("files");
		sum += pread(fd, buf, sizeof(buf), 3) + (stat("/bench/nothing", &st) < 0);
		close(fd);
	}
	return sum;
}

static long forkexec(long n)
{
	long sum = 0;
	for (long i = 0; i < n; i++) {
		pid_t pid = fork();
		int status;
		if (pid == 0) {
			execl("/bin/true", "true", NULL);
			_exit(127);
		}
		if (pid < 0 || waitpid(pid, &status, 0) < 0)
			die("fork");
		sum += status == 0;
	}
	return sum;
}

// Processes that touch their memory after fork, so that each page is copied.
static long copies(long n)
{
	size_t size = 4 << 20;
	char *p = malloc(size);
	long sum = 0;
	memset(p, 1, size);
	for (long i = 0; i < n; i++) {
		int status;
		pid_t pid = fork();
		if (pid == 0) {
			for (size_t at = 0; at < size; at += 4096)
				p[at]++;
			_exit(p[4096]);
		}
		if (pid < 0 || waitpid(pid, &status, 0) < 0)
			die("fork");
		sum += WEXITSTATUS(status);
	}
	return sum;
}

static long pipes(long n)
{
	int to[2], from[2];
	long sum = 0;
	char c = 0;
	if (pipe(to) < 0 || pipe(from) < 0)
		die("pipe");
	pid_t pid = fork();
	if (pid == 0) {
		close(to[1]);
		while (read(to[0], &c, 1) == 1 && write(from[1], &c, 1) == 1)
			;
		_exit(0);
	}
	for (long i = 0; i < n; i++) {
		c = i;
		if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
			die("pipe");
		sum += c == (char)i;
	}
	close(to[1]);
	waitpid(pid, NULL, 0);
	return sum;
}

static _Atomic int turn;

static void hand_over(int me, long n)
{
	for (long i = 0; i < n; i++) {
		while (atomic_load(&turn) != me)
			syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, !me, NULL, NULL, 0);
		atomic_store(&turn, !me);
		syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
}

static void *other(void *n)
{
	hand_over(1, (long)n);
	return NULL;
}

static long futexes(long n)
{
	pthread_t t;
	if (pthread_create(&t, NULL, other, (void *)n) != 0)
		die("thread");
	hand_over(0, n);
	pthread_join(t, NULL);
	return n;
}

static long faults(long rounds)
{
	size_t size = 8 << 20;
	long sum = 0;
	while (rounds--) {
		char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			die("mmap");
		madvise(p, size, MADV_NOHUGEPAGE);
		for (size_t at = 0; at < size; at += 4096)
			sum += ++p[at];
		munmap(p, size);
	}
	return sum;
}

// File mappings that come and go, and protections that change.
static long maps(long n)
{
	long sum = 0;
	int fd = open("/bench/data/text", O_RDONLY);
	if (fd < 0)
		die("/bench/data/text");
	for (long i = 0; i < n; i++) {
		char *p = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, i % 16 << 16);
		if (p == MAP_FAILED)
			die("mmap");
		sum += p[0] + p[5 << 12];
		p[1 << 12] = 1;
		mprotect(p, 16 << 10, PROT_READ);
		sum += p[1 << 12];
		munmap(p, 64 << 10);
	}
	return sum;
}

static volatile sig_atomic_t signals_seen;

static void on_signal(int sig)
{
	signals_seen++;
}

static long signals(long n)
{
	struct sigaction sa = { .sa_handler = on_signal };
	sigaction(SIGUSR1, &sa, NULL);
	for (long i = 0; i < n; i++)
		raise(SIGUSR1);
	return signals_seen;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		long (*run)(long);
	} all[] = { { "syscalls", syscalls }, { "files", files }, { "forkexec", forkexec }, { "copies", copies },
		    { "pipes", pipes }, { "futexes", futexes }, { "faults", faults }, { "maps", maps },
		    { "signals", signals } };
	for (size_t i = 0; argc == 3 && i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(argv[1], all[i].name) == 0)
			return printf("%s %ld\n", argv[1], all[i].run(atol(argv[2]))) < 0;
	return 2;
}
