// SPDX-License-Identifier: Apache-2.0
//
// The runner inside: starts one program after the other as bench/run tells it, and says how long each took.
//
// In a VM it is the first process (init=/bench/agent): nothing else runs there, no timers, no services. It talks
// over the first serial port. Natively the same program runs in the same tree on pipes, so that both measure the
// same way. The protocol is lines:
//
//   > run SECONDS COMMAND      run by sh in /bench, for so long at most
//   < @@start                  it starts now
//   < @@end STATUS NS CPU      exit status (128 + signal; 124: too long), nanoseconds of CLOCK_MONOTONIC and of
//                            processor time
//   < @@err TEXT               the first lines of its standard error, if it failed
//   < @@sum SHA256 BYTES       of its standard output
//   < @@ready                  after start-up and after each command
//   > off                      power off, or exit
//
// The host takes the time between @@start and @@end with its own clock, as that of a guest may be wrong. What is
// between the two here is therefore as little as possible: the output goes to a file and is hashed afterwards.
//
// Natively it is called with --native; with --pin besides, each program is bound to the processor that is at hand when
// it starts, as it is in a VM of one.

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT "/tmp/.output"
#define ERRORS "/tmp/.errors"

static bool native, pin;

// Of all children that have ended.
static int64_t cpu_ns(void)
{
	struct rusage u;
	getrusage(RUSAGE_CHILDREN, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL;
}

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char line[512];
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(line, sizeof(line) - 1, fmt, args);
	va_end(args);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	for (int done = 0; done < n;) {
		ssize_t w = write(STDOUT_FILENO, line + done, n - done);
		if (w < 0 && errno != EINTR)
			exit(1);
		done += w > 0 ? w : 0;
	}
	// The serial driver sends behind our back otherwise, in the time of the program.
	tcdrain(STDOUT_FILENO);
}

static void open_or_die(const char *path, int flags, int as)
{
	int fd = open(path, flags, 0600);
	if (fd < 0 || dup2(fd, as) < 0) {
		perror(path);
		_exit(127);
	}
	if (fd != as)
		close(fd);
}

static pid_t spawn(const char *command)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	setsid();
	if (pin)
		sched_setaffinity(0, sizeof(one), &one);
	open_or_die("/dev/null", O_RDONLY, STDIN_FILENO);
	open_or_die(ERRORS, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
	open_or_die(OUTPUT, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
	execl("/bin/sh", "sh", "-c", command, NULL);
	_exit(127);
}

static void show_errors(void)
{
	FILE *f = fopen(ERRORS, "r");
	char line[200];
	for (int i = 0; f && i < 5 && fgets(line, sizeof(line), f); i++) {
		line[strcspn(line, "\n")] = 0;
		say("@@err %s", line);
	}
	if (f)
		fclose(f);
}

static void show_sum(void)
{
	char sum[65] = "none";
	struct stat st = { 0 };
	stat(OUTPUT, &st);
	FILE *p = popen("sha256sum <" OUTPUT, "r");
	if (!p || fscanf(p, "%64[0-9a-f]", sum) != 1)
		strcpy(sum, "none");
	if (p)
		pclose(p);
	say("@@sum %s %lld", sum, (long long)st.st_size);
	unlink(OUTPUT);
}

static void run(char *line)
{
	char *command;
	long limit = strtol(line, &command, 10);
	sigset_t child;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	say("@@start");
	int64_t start = now_ns(), used = cpu_ns();
	pid_t pid = spawn(command);
	int status = 0, result;
	bool late = false;
	for (;;) {
		pid_t done = waitpid(-1, &status, WNOHANG);
		if (done == pid || (done < 0 && errno != EINTR))
			break;
		struct timespec wait = { .tv_sec = 1 };
		if (done == 0 && sigtimedwait(&child, NULL, &wait) < 0 && now_ns() - start > limit * 1000000000LL) {
			late = true;
			kill(-pid, SIGKILL);
		}
	}
	int64_t took = now_ns() - start;
	result = late ? 124 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	say("@@end %d %lld %lld", result, (long long)took, (long long)(cpu_ns() - used));
	kill(-pid, SIGKILL);
	if (result != 0)
		show_errors();
	show_sum();
	say("@@ready");
}

// The little that a machine needs before programs can run: file systems, the address of libslirp's network.
static void set_up_machine(void)
{
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
	mount("tmpfs", "/run", "tmpfs", 0, NULL);
	mkdir("/dev/shm", 0777);
	mount("tmpfs", "/dev/shm", "tmpfs", 0, NULL);
	open_or_die("/dev/ttyS0", O_RDWR | O_NOCTTY, STDIN_FILENO);
	dup2(STDIN_FILENO, STDOUT_FILENO);
	struct termios t;
	tcgetattr(STDIN_FILENO, &t);
	cfmakeraw(&t);
	t.c_cflag |= CLOCAL;
	tcsetattr(STDIN_FILENO, TCSANOW, &t);
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	if (system("{ ip link set lo up; modprobe virtio_net; for i in 1 2 3 4 5 6 7 8 9; do "
		   "dev=$(cd /sys/class/net; echo e*); [ \"$dev\" = 'e*' ] || break; sleep 0.2; done; "
		   "ip addr add 10.0.2.15/24 dev $dev; ip link set $dev up; ip route add default via 10.0.2.2; "
		   "} >/tmp/.setup 2>&1 </dev/null") != 0)
		say("@@note the network could not be set up");
}

int main(int argc, char **argv)
{
	static char line[65536];
	sigset_t child;

	for (int i = 1; i < argc; i++) {
		native |= strcmp(argv[i], "--native") == 0;
		pin |= strcmp(argv[i], "--pin") == 0;
	}
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	umask(022);
	if (!native)
		set_up_machine();
	setenv("LC_ALL", "C", 1);
	setenv("HOME", "/tmp", 1);
	setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
	setenv("PYTHONHASHSEED", "1", 1);
	if (chdir("/bench") < 0)
		say("@@note there is no /bench");
	say("@@ready");
	// Not the library's buffers: a child that exits would flush or rewind them.
	for (size_t n = 0;;) {
		ssize_t r = read(STDIN_FILENO, line + n, 1);
		if (r <= 0)
			break;
		if (line[n] != '\n') {
			n += n < sizeof(line) - 2;
			continue;
		}
		line[n] = 0;
		n = 0;
		if (strncmp(line, "run ", 4) == 0)
			run(line + 4);
		else if (strcmp(line, "off") == 0)
			break;
	}
	if (!native) {
		sync();
		reboot(RB_POWER_OFF);
	}
	return 0;
}
