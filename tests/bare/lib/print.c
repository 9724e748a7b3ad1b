/* SPDX-License-Identifier: Apache-2.0 */
/* TAP on the debug console, and the few C library functions the compiler wants. */
#include "lib/bare.h"

static unsigned tests, failures;
const char *command_line;

static void put_number(uint64_t v, unsigned base, int width, char pad, bool neg)
{
	char text[24];
	int n = 0;

	do {
		/* Decimal only of what fits 32 bits: there is no 64-bit division in 32-bit programs. */
		unsigned digit = base == 16 ? (unsigned)(v & 15) : (uint32_t)v % 10;

		text[n++] = "0123456789abcdef"[digit];
		v = base == 16 ? v >> 4 : (uint32_t)v / 10;
	} while (v);
	if (neg)
		text[n++] = '-';
	for (; width > n; width--)
		outb(0xe9, pad);
	while (n)
		outb(0xe9, text[--n]);
}

static void vprint(const char *f, va_list ap)
{
	for (; *f; f++) {
		int width = 0, longs = 0;
		char pad = ' ';

		if (*f != '%') {
			outb(0xe9, *f);
			continue;
		}
		f++;
		if (*f == '0')
			pad = *f++;
		for (; *f >= '0' && *f <= '9'; f++)
			width = width * 10 + *f - '0';
		for (; *f == 'l' || *f == 'z'; f++)
			longs += *f == 'z' ? 1 : 1;
		if (*f == 's') {
			for (const char *s = va_arg(ap, const char *); *s; s++)
				outb(0xe9, *s);
		} else if (*f == 'c') {
			outb(0xe9, va_arg(ap, int));
		} else if (*f == 'd') {
			long v = longs ? va_arg(ap, long) : va_arg(ap, int);

			put_number(v < 0 ? -v : v, 10, width, pad, v < 0);
		} else if (*f == 'p') {
			put_number((uintptr_t)va_arg(ap, void *), 16, width, pad, false);
		} else if (*f == 'x' || *f == 'u') {
			uint64_t v = longs == 0 ? va_arg(ap, unsigned) : longs == 1 ? va_arg(ap, unsigned long) :
										      va_arg(ap, unsigned long long);

			put_number(v, *f == 'x' ? 16 : 10, width, pad, false);
		} else {
			outb(0xe9, *f);
		}
	}
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
}

static bool verdict(bool pass, const char *fmt, va_list ap)
{
	tests++;
	failures += !pass;
	print("%sok %u - ", pass ? "" : "not ", tests);
	vprint(fmt, ap);
	print("\n");
	return pass;
}

bool ok(bool pass, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	verdict(pass, fmt, ap);
	va_end(ap);
	return pass;
}

bool is(uint64_t got, uint64_t want, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	verdict(got == want, fmt, ap);
	va_end(ap);
	if (got != want)
		print("#   got 0x%llx, wanted 0x%llx\n", (unsigned long long)got, (unsigned long long)want);
	return got == want;
}

void plan_only(void)
{
	print("1..%u\n", tests);
}

void done(void)
{
	plan_only();
	for (;;)
		outb(0xf4, failures ? 1 : 0);
}

void bail(const char *fmt, ...)
{
	va_list ap;

	print("Bail out! ");
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	print("\n");
	for (;;)
		outb(0xf4, 1);
}

void *memset(void *p, int c, size_t n)
{
	void *at = p;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(c) : "memory");
	return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n)::"memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;

	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

int strcmp(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return (uint8_t)*a - (uint8_t)*b;
}
