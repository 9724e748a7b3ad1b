/* SPDX-License-Identifier: Apache-2.0 */
/* Rights of pages, for the tests of paging: accesses from both privileges, and what SDM vol. 3, 4.6.1 says of them. */
#ifndef TESTS_BARE_LIB_RIGHTS_H
#define TESTS_BARE_LIB_RIGHTS_H

#include "lib/bare.h"

enum { READ, WRITE, FETCH, KINDS };

/* What a page has to hold to be fetched from: for the supervisor at 0, for user_run() at 16. */
static inline void fill_code(uint64_t pa)
{
	uint8_t *p = (uint8_t *)(word)pa;

	memcpy(p, "\xff\xe2", 2);      /* jmp *%rdx */
	memcpy(p + 16, "\xcd\x80", 2); /* int $0x80 */
}

/* The manual's section as a formula. @u, @w, @nx: what all levels together say. */
static inline bool allowed(int kind, bool user, bool u, bool w, bool nx, bool wp, bool smep, bool smap, bool ac)
{
	if (kind == FETCH)
		return !nx && (user ? u : !(u && smep));
	if (user)
		return u && (kind == READ || w);
	if (u && smap && !ac)
		return false;
	return kind == READ || w || !wp;
}

#endif
