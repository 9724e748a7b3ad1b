/* SPDX-License-Identifier: Apache-2.0 */
/* GDT, IDT and TSSs. SDM vol. 3, 3.4.5 (descriptors), 7.11 and 8.7 (IDT and TSS in both modes). */
#include "lib/bare.h"

#ifdef __x86_64__
#define IDT_STEP 2
#else
#define IDT_STEP 1
#endif

uint64_t gdt[GDT_ENTRIES] __attribute__((aligned(16)));
static uint64_t idt[256 * IDT_STEP] __attribute__((aligned(16)));
struct tss tss[CPUS_MAX];
static uint8_t stacks[CPUS_MAX][8192] __attribute__((aligned(16)));
extern char exc_stubs[]; /* 16 bytes each */

uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attr)
{
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xff) << 40 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(attr >> 8 & 15) << 52 | (uint64_t)(base >> 24) << 56;
}

void gdt_set(unsigned selector, uint64_t desc)
{
	gdt[selector >> 3] = desc;
}

void gdt_set_system(unsigned selector, word base, uint32_t limit, unsigned attr)
{
	gdt_set(selector, descriptor((uint32_t)base, limit, attr));
#ifdef __x86_64__
	gdt_set(selector + 8, base >> 32);
#endif
}

void idt_set(unsigned vector, word target, unsigned selector, unsigned attr, unsigned ist)
{
	uint64_t *e = &idt[vector * IDT_STEP];

	e[0] = (target & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 | (uint64_t)attr << 40 |
	       (uint64_t)(target >> 16 & 0xffff) << 48;
#ifdef __x86_64__
	e[1] = target >> 32;
#endif
}

void idt_default(unsigned vector)
{
	idt_set(vector, (word)exc_stubs + vector * 16, SEL_KCODE, vector == 0x80 || vector == BP || vector == OF ? 0xee : 0x8e, 0);
}

void idt_load(void)
{
	struct table_reg r = { sizeof(idt) - 1, (word)idt };

	__asm__ volatile("lidt %0" ::"m"(r));
}

void gdt_load(void)
{
	struct table_reg r = { sizeof(gdt) - 1, (word)gdt };

	__asm__ volatile("lgdt %0" ::"m"(r));
}

/* Called by start.S before main(). */
void desc_init(void);
void desc_init(void)
{
#ifdef __x86_64__
	gdt_set(SEL_KCODE, descriptor(0, 0xfffff, 0xa9b));
	gdt_set(SEL_KDATA, descriptor(0, 0xfffff, 0xc93));
	gdt_set(SEL_UCODE32, descriptor(0, 0xfffff, 0xcfb));
	gdt_set(SEL_UDATA, descriptor(0, 0xfffff, 0xcf3));
	gdt_set(SEL_UCODE, descriptor(0, 0xfffff, 0xafb));
	gdt_set(SEL_UDATA2, descriptor(0, 0xfffff, 0xcf3));
	gdt_set(SEL_KCODE32, descriptor(0, 0xfffff, 0xc9b));
#else
	gdt_set(SEL_KCODE, descriptor(0, 0xfffff, 0xc9b));
	gdt_set(SEL_KDATA, descriptor(0, 0xfffff, 0xc93));
	gdt_set(SEL_UCODE, descriptor(0, 0xfffff, 0xcfb));
	gdt_set(SEL_UDATA, descriptor(0, 0xfffff, 0xcf3));
#endif
	gdt_set(SEL_KCODE16, descriptor(0, 0xffff, 0x09b));
	gdt_set(SEL_KDATA16, descriptor(0, 0xffff, 0x093));
	for (unsigned n = 0; n < CPUS_MAX; n++) {
		word stack = (word)stacks[n] + sizeof(stacks[n]);

#ifdef __x86_64__
		tss[n].rsp[0] = stack;
#else
		tss[n].esp0 = stack;
		tss[n].ss0 = SEL_KDATA;
#endif
		tss[n].iomap = sizeof(struct tss);
		gdt_set_system(SEL_TSS + n * 16, (word)&tss[n], sizeof(struct tss) - 1, 0x89);
	}
	for (unsigned n = 0; n < 256; n++)
		idt_default(n);
	gdt_load();
	idt_load();
	__asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
}
