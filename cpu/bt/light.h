/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What light code (vcpu.h: C that runs while the guest's vector state is in the host's registers)
 * uses in place of libc, whose memcpy() and memset() clobber vector registers.
 */
#ifndef CPU_BT_LIGHT_H
#define CPU_BT_LIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void bt_copy(void *to, const void *from, size_t len)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
}

static inline void bt_zero(void *to, size_t len)
{
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(len) : "a"(0) : "memory");
}

/* 48-bit linear addresses (4-level paging). */
static inline bool bt_canonical(uint64_t lin)
{
	return (uint64_t)((int64_t)(lin << 16) >> 16) == lin;
}

/* The low @size bytes, 1..8. */
static inline uint64_t bt_truncate(uint64_t value, unsigned size)
{
	return size >= 8 ? value : value & ((1ull << (8 * size)) - 1);
}

#endif
