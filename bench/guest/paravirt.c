// SPDX-License-Identifier: Apache-2.0
//
// What paravirtual interfaces are for, one at a time: interrupts between processors, TLB flushes of others, reading the
// clock, locks whose holder is not running, timers.
//
// Threads are bound to processors where it matters, so that each round does the same.

#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define HELPERS 3

static atomic_int ready;
static atomic_bool over;

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static void bind_to(int cpu)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one) < 0)
		die("a processor to run on");
}

static void *spin(void *cpu)
{
	bind_to((intptr_t)cpu);
	ready++;
	while (!over)
		__builtin_ia32_pause();
	return NULL;
}

// Most of the time its processor is halted, with this process as the last one that ran.
static void *nap(void *cpu)
{
	struct timespec t = { .tv_nsec = 100000 };
	bind_to((intptr_t)cpu);
	prctl(PR_SET_TIMERSLACK, 1);
	ready++;
	while (!over)
		nanosleep(&t, NULL);
	return NULL;
}

// Runs it on processors 1 to n; the caller is on 0.
static void start(pthread_t *t, int n, void *(*run)(void *))
{
	bind_to(0);
	for (int i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, run, (void *)(intptr_t)(i + 1)) != 0)
			die("thread");
	while (ready < n)
		sched_yield();
}

static void end(pthread_t *t, int n)
{
	over = true;
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
}

// Each barrier is an interrupt on every processor that runs this process.
static long barriers(long n, int others)
{
	pthread_t t[HELPERS];
	long sum = 0;
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0)
		die("membarrier");
	start(t, others, spin);
	for (long i = 0; i < n; i++)
		sum += syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
	end(t, others);
	return sum;
}

// One: by a register of the local APIC, also with paravirtual IPIs.
static long one(long n)
{
	return barriers(n, 1);
}

// Two of four: these are more than one and less than all, so by the hypercall.
static long two(long n)
{
	return barriers(n, 2);
}

// Page tables that go away have to go away everywhere, also where nothing runs.
static long flush(long n)
{
	pthread_t t[HELPERS];
	char *at = (char *)0x100000000;
	long sum = 0;
	start(t, HELPERS, nap);
	for (long i = 0; i < n; i++) {
		char *p = mmap(at, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (p != at)
			die("mmap");
		sum += ++*p;
		munmap(p, 4096);
	}
	end(t, HELPERS);
	return sum;
}

// The kernel takes any name, and then the clock it likes best.
static bool set_clock(const char *name)
{
	char now[32] = "";
	int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDWR);
	if (fd < 0 || write(fd, name, strlen(name)) < 0 || pread(fd, now, sizeof(now) - 1, 0) < 0)
		die("another clock");
	close(fd);
	now[strcspn(now, "\n")] = 0;
	return strcmp(now, name) == 0;
}

// As in a guest that does not trust its TSC: the paravirtual clock, or else one that is a device.
static long reads(long n)
{
	struct timespec t, before = { 0 };
	long sum = 0;
	if (!set_clock("kvm-clock") && !set_clock("hpet") && !set_clock("acpi_pm"))
		die("another clock");
	for (long i = 0; i < n; i++) {
		clock_gettime(CLOCK_MONOTONIC, &t);
		sum += t.tv_sec > before.tv_sec || (t.tv_sec == before.tv_sec && t.tv_nsec >= before.tv_nsec);
		before = t;
	}
	set_clock("tsc");
	return sum;
}

static void *dup_and_close(void *n)
{
	for (long i = 0; i < (long)n; i++) {
		int fd = dup(0);
		if (fd < 0 || close(fd) < 0)
			die("dup");
	}
	return NULL;
}

// Four threads and one lock of the kernel's: that of their table of files.
static long locks(long n)
{
	pthread_t t[4];
	for (int i = 0; i < 4; i++)
		if (pthread_create(&t[i], NULL, dup_and_close, (void *)n) != 0)
			die("thread");
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	return n;
}

static void on_alarm(int sig)
{
}

// Some work that a timer interrupts 5,000 times a second.
static long timer(long n)
{
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct itimerval often = { { 0, 200 }, { 0, 200 } };
	unsigned long x = 1;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (long i = 0; i < n; i++) {
		x = x * 6364136223846793005 + 1442695040888963407;
		__asm__ volatile("" : "+r"(x));
	}
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
	return x >> 40;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		long (*run)(long);
	} all[] = { { "one", one }, { "two", two }, { "flush", flush }, { "reads", reads },
		    { "locks", locks }, { "timer", timer } };
	for (size_t i = 0; argc == 3 && i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(argv[1], all[i].name) == 0)
			return printf("%s %ld\n", argv[1], all[i].run(atol(argv[2]))) < 0;
	return 2;
}
