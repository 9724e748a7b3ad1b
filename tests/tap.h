/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest useful TAP (Test Anything Protocol) producer, for one test program.
 *
 * A test program calls ok() and its kin, and ends with `return done_testing();`. Lines go to standard
 * output at once, so that a program that dies shows how far it came; it then prints no plan, which
 * tests/run counts as a failure. Any thread may call these.
 */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Defined where a sanitizer makes limits on memory, or addresses of our choice, impossible. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TAP_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TAP_SANITIZED 1
#endif
#endif

/* Rounds of random work: TSan is slow, and is there for the threads, not for the rare inputs. */
#ifdef __SANITIZE_THREAD__
#define TAP_ROUNDS(n) ((n) / 8)
#else
#define TAP_ROUNDS(n) (n)
#endif

static atomic_uint tap_count_, tap_failed_;

static inline void tap_result_(bool pass, const char *directive, const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	for (char *p = text; *p; p++)
		if (*p == '\n' || *p == '#')
			*p = ' ';
	if (!pass)
		tap_failed_++;
	flockfile(stdout);
	printf("%sok %u - %s%s\n", pass ? "" : "not ", ++tap_count_, text, directive);
	fflush(stdout);
	funlockfile(stdout);
}

/* A comment line: shown by tests/run when it follows a failed test. */
__attribute__((format(printf, 1, 2))) static inline void diag(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	flockfile(stdout);
	printf("# %s\n", text);
	fflush(stdout);
	funlockfile(stdout);
}

/* One test. Returns @cond. */
__attribute__((format(printf, 4, 5))) static inline bool tap_ok_(bool cond, const char *file,
								 int line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tap_result_(cond, "", fmt, ap);
	va_end(ap);
	if (!cond)
		diag("at %s:%d", file, line);
	return cond;
}
#define ok(cond, ...) tap_ok_(!!(cond), __FILE__, __LINE__, __VA_ARGS__)

__attribute__((format(printf, 5, 6))) static inline bool
tap_is_u64_(uint64_t got, uint64_t want, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tap_result_(got == want, "", fmt, ap);
	va_end(ap);
	if (got != want)
		diag("at %s:%d: got 0x%" PRIx64 " (%" PRIu64 "), wanted 0x%" PRIx64 " (%" PRIu64
		     ")",
		     file, line, got, got, want, want);
	return got == want;
}
#define is_u64(got, want, ...) tap_is_u64_(got, want, __FILE__, __LINE__, __VA_ARGS__)

__attribute__((format(printf, 5, 6))) static inline bool
tap_is_str_(const char *got, const char *want, const char *file, int line, const char *fmt, ...)
{
	bool pass = got && want ? !strcmp(got, want) : got == want;
	va_list ap;

	va_start(ap, fmt);
	tap_result_(pass, "", fmt, ap);
	va_end(ap);
	if (!pass)
		diag("at %s:%d: got \"%s\", wanted \"%s\"", file, line, got ? got : "(null)",
		     want ? want : "(null)");
	return pass;
}
#define is_str(got, want, ...) tap_is_str_(got, want, __FILE__, __LINE__, __VA_ARGS__)

/* A test that cannot be run here, and why. Counted apart by tests/run. */
__attribute__((format(printf, 1, 2))) static inline void skip(const char *fmt, ...)
{
	char why[256], directive[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	snprintf(directive, sizeof(directive), " # SKIP %s", why);
	tap_result_(true, directive, "skipped", ap);
	va_end(ap);
}

/* The whole program cannot be run here: says so and exits with success. Only before the first test. */
__attribute__((format(printf, 1, 2), noreturn)) static inline void skip_all(const char *fmt, ...)
{
	va_list ap;

	printf("1..0 # SKIP ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	exit(0);
}

/* Prints the plan. Returns main's exit status: 0 if and only if at least one test ran and none failed. */
static inline int done_testing(void)
{
	printf("1..%u\n", tap_count_);
	fflush(stdout);
	return tap_failed_ || !tap_count_;
}

#endif
