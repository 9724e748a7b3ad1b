/* SPDX-License-Identifier: Apache-2.0 */
/* Physical pages behind the image, and the page tables of long mode (SDM vol. 3, 4.5). */
#include "lib/bare.h"

extern char image_end[];
static word next;

void *pages_alloc(unsigned n, word align)
{
	word at = next ? next : (word)image_end;

	at = (at + align - 1) & ~(align - 1);
	next = at + n * 4096ul;
	if (next > 0x7000000)
		bail("test pages beyond 112 MiB");
	return memset((void *)at, 0, n * 4096ul);
}

void *page_alloc(void)
{
	return pages_alloc(1, 4096);
}

#ifdef __x86_64__
volatile uint64_t *pte_at(word va, unsigned level)
{
	uint64_t *table = (uint64_t *)(read_cr3() & PTE_ADDR);

	for (unsigned at = 4; at > level; at--) {
		uint64_t *e = &table[va >> (12 + 9 * (at - 1)) & 511];

		if (!(*e & PTE_P))
			*e = (word)page_alloc() | PTE_P | PTE_W | PTE_U;
		table = (uint64_t *)(*e & PTE_ADDR);
	}
	return &table[va >> (12 + 9 * (level - 1)) & 511];
}

void map(word va, uint64_t pa, uint64_t flags)
{
	*pte_at(va, 1) = pa | flags;
}
#endif
