/* SPDX-License-Identifier: Apache-2.0 */
/* What a process gives up is given up: each case in a child of its own, which does little else than the calls in question. */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cage.h"
#include "tests/tap.h"

#define KILLED (-SIGSYS)
#define PAGE 4096ul

static char top[] = "/tmp/maru-cage.XXXXXX";

/* The child's exit status; a signal's number, negative. */
static int in_child(int (*what)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		syscall(SYS_exit_group, what());
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		abort();
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- System calls ---- */

/* Allowed: getppid; mmap not executable; fcntl to ask for flags or to set them. dup is refused. */
static void enter_filter(void)
{
	static const int calls[] = { SYS_getppid, SYS_exit_group };
	static const uint32_t commands[] = { F_GETFL, F_SETFL };
	struct cage_filter f;

	cage_begin(&f);
	cage_allow(&f, calls, ARRAY_SIZE(calls));
	cage_allow_memory(&f);
	cage_allow_with(&f, SYS_fcntl, 1, commands, ARRAY_SIZE(commands));
	cage_refuse(&f, SYS_dup, EACCES);
	if (cage_install(&f, 0))
		syscall(SYS_exit_group, 77);
}

static int allowed(void)
{
	enter_filter();
	return syscall(SYS_getppid) <= 0 || syscall(SYS_fcntl, 1, F_GETFL) < 0 || syscall(SYS_fcntl, 1, F_SETFL, 0) < 0;
}

static int refused(void)
{
	enter_filter();
	return syscall(SYS_dup, 1) == -1 && errno == EACCES ? 0 : 1;
}

static int other_call(void)
{
	enter_filter();
	return (int)syscall(SYS_getpid) & 0;
}

static int other_argument(void)
{
	enter_filter();
	return (int)syscall(SYS_fcntl, 1, F_DUPFD, 0) & 0;
}

static int plain_memory(void)
{
	void *p;

	enter_filter();
	p = (void *)syscall(SYS_mmap, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED || syscall(SYS_mprotect, p, PAGE, PROT_READ);
}

static int executable_memory(void)
{
	enter_filter();
	return syscall(SYS_mmap, NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == 0;
}

static int made_executable(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	enter_filter();
	return syscall(SYS_mprotect, p, PAGE, PROT_READ | PROT_EXEC) == 0;
}

static int x32_call(void)
{
	enter_filter();
	return (int)syscall(0x40000000 | SYS_getppid) & 0;
}

/* ---- Files ---- */

static bool can_open(const char *name, int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", top, name);
	fd = open(path, flags, 0600);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int nothing_at_all(void)
{
	return cage_enter_landlock(-1, 0, false) ? 77
						 : can_open("in/file", O_RDONLY) || can_open("new", O_CREAT | O_WRONLY);
}

static int one_folder(void)
{
	char path[64];
	int dir;

	snprintf(path, sizeof(path), "%s/in", top);
	dir = open(path, O_PATH | O_DIRECTORY);
	if (cage_enter_landlock(dir, LANDLOCK_ACCESS_FS_READ_FILE, false))
		return 77;
	return !can_open("in/file", O_RDONLY) || can_open("in/file", O_WRONLY) || can_open("out", O_RDONLY) ||
	       can_open("in/../out", O_RDONLY);
}

static int privileges(void)
{
	struct error *err = cage_give_up_privileges();
	struct rlimit core;

	if (err)
		return 1;
	getrlimit(RLIMIT_CORE, &core);
	return core.rlim_max || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || prctl(PR_GET_DUMPABLE) != 0;
}

int main(void)
{
	char command[128];
	int rc;

	if (!mkdtemp(top) || !can_open("out", O_CREAT | O_WRONLY))
		abort();
	snprintf(command, sizeof(command), "mkdir %s/in; echo x >%s/in/file", top, top);
	if (system(command))
		abort();
	ok(in_child(allowed) == 0, "what is on the list is allowed");
	ok(in_child(refused) == 0, "what is refused is an error");
	ok(in_child(other_call) == KILLED, "another call kills");
	ok(in_child(other_argument) == KILLED, "and so does another argument");
	ok(in_child(x32_call) == KILLED, "or another interface to the same call");
	ok(in_child(plain_memory) == 0, "memory can be had");
	ok(in_child(executable_memory) == KILLED && in_child(made_executable) == KILLED, "but none that can be executed");
	rc = in_child(nothing_at_all);
	if (rc == 77) {
		skip("this kernel has no Landlock");
	} else {
		ok(rc == 0, "no file can be opened or made");
		ok(in_child(one_folder) == 0, "but, where one is given, beneath a folder, for what is allowed");
	}
	ok(in_child(privileges) == 0, "privileges are given up");
	snprintf(command, sizeof(command), "rm -rf %s", top);
	return system(command) ? 1 : done_testing();
}
