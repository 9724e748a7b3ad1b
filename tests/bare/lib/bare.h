/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What bare-metal test programs share. A program is one ELF image, started by Multiboot: start.S brings it into long
 * mode (a program named test_32_* stays in 32-bit protected mode without paging), sets up GDT, IDT and TSS and
 * calls main(). It prints TAP to port 0xe9 and ends through port 0xf4 (done()).
 *
 * Memory in long mode: 0–4 GiB is mapped to itself in 2 MiB supervisor pages; the first GiB again at USER_BASE
 * in user pages. Test pages come from page_alloc() and are mapped from TEST_BASE on.
 *
 * Exceptions: a vector with a handler (on_vector) runs it and goes on. Any other is recorded in `exc`, and
 * then: inside TRY() execution goes on behind the tried instructions; inside attempt() and user_run() these
 * return; else the program fails.
 *
 * Comments at the top of a program tell the runner (tests/bare/run) what to do: see there.
 */
#ifndef BARE_H
#define BARE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned long word; /* a general register */

/* ---- print.c: TAP ------------------------------------------------------------------------------- */
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool ok(bool pass, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool is(uint64_t got, uint64_t want, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void done(void) __attribute__((noreturn));	      /* prints the plan, exits */
void plan_only(void);				      /* prints the plan: the end will be another one */
void bail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
extern const char *command_line; /* of --append */

/* ---- Instructions ------------------------------------------------------------------------------- */
static inline void outb(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" :: "a"(v), "Nd"(port)); }
static inline void outw(uint16_t port, uint16_t v) { __asm__ volatile("outw %0, %1" :: "a"(v), "Nd"(port)); }
static inline void outl(uint16_t port, uint32_t v) { __asm__ volatile("outl %0, %1" :: "a"(v), "Nd"(port)); }
static inline uint8_t inb(uint16_t port) { uint8_t v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline uint16_t inw(uint16_t port) { uint16_t v; __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline uint32_t inl(uint16_t port) { uint32_t v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }

#define READ_REG(name, reg) \
	static inline word read_##name(void) { word v; __asm__ volatile("mov %%" #reg ", %0" : "=r"(v)); return v; } \
	static inline void write_##name(word v) { __asm__ volatile("mov %0, %%" #reg :: "r"(v) : "memory"); }
READ_REG(cr0, cr0) READ_REG(cr2, cr2) READ_REG(cr3, cr3) READ_REG(cr4, cr4)
READ_REG(dr0, dr0) READ_REG(dr1, dr1) READ_REG(dr2, dr2) READ_REG(dr3, dr3) READ_REG(dr6, dr6) READ_REG(dr7, dr7)
#undef READ_REG
static inline word read_flags(void) { word v; __asm__ volatile("pushf; pop %0" : "=r"(v) :: "memory"); return v; }
static inline void write_flags(word v) { __asm__ volatile("push %0; popf" :: "r"(v) : "memory", "cc"); }
static inline uint64_t rdmsr(uint32_t n) { uint32_t l, h; __asm__ volatile("rdmsr" : "=a"(l), "=d"(h) : "c"(n)); return (uint64_t)h << 32 | l; }
static inline void wrmsr(uint32_t n, uint64_t v) { __asm__ volatile("wrmsr" :: "a"((uint32_t)v), "d"((uint32_t)(v >> 32)), "c"(n) : "memory"); }
static inline uint64_t rdtsc(void) { uint32_t l, h; __asm__ volatile("lfence; rdtsc" : "=a"(l), "=d"(h) :: "memory"); return (uint64_t)h << 32 | l; }
static inline void invlpg(word va) { __asm__ volatile("invlpg (%0)" :: "r"(va) : "memory"); }
static inline void cpu_relax(void) { __asm__ volatile("pause" ::: "memory"); }
static inline void irq_on(void) { __asm__ volatile("sti" ::: "memory"); }
static inline void irq_off(void) { __asm__ volatile("cli" ::: "memory"); }
struct cpuid { uint32_t a, b, c, d; };
static inline struct cpuid cpuid(uint32_t leaf, uint32_t sub)
{
	struct cpuid r;

	__asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
	return r;
}
#define MMIO32(at) (*(volatile uint32_t *)(uintptr_t)(at))
#define MMIO64(at) (*(volatile uint64_t *)(uintptr_t)(at))

/* ---- Descriptors (desc.c) ----------------------------------------------------------------------- */
#ifdef __x86_64__
/* Ordered as SYSCALL, SYSRET, SYSENTER and SYSEXIT want them. */
enum { SEL_KCODE = 0x08, SEL_KDATA = 0x10, SEL_UCODE32 = 0x1b, SEL_UDATA = 0x23, SEL_UCODE = 0x2b, SEL_UDATA2 = 0x33,
       SEL_KCODE32 = 0x38, SEL_KCODE16 = 0x40, SEL_KDATA16 = 0x48, SEL_FREE = 0x60, SEL_TSS = 0x200 };
struct tss {
	uint32_t reserved;
	uint64_t rsp[3], reserved1, ist[7], reserved2;
	uint16_t reserved3, iomap;
} __attribute__((packed));
#else
enum { SEL_KCODE = 0x08, SEL_KDATA = 0x10, SEL_UCODE = 0x1b, SEL_UDATA = 0x23, SEL_KCODE16 = 0x28, SEL_KDATA16 = 0x30,
       SEL_FREE = 0x60, SEL_TSS = 0x200 };
struct tss {
	uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss,
		ds, fs, gs, ldt;
	uint16_t trap, iomap;
} __attribute__((packed));
#endif
#define CPUS_MAX 16
#define GDT_ENTRIES 128
extern uint64_t gdt[GDT_ENTRIES];
extern struct tss tss[CPUS_MAX];
struct table_reg { uint16_t limit; word base; } __attribute__((packed));
/* @attr: bits 0–7 the access byte, 8–11 are AVL, L, D/B and G. */
uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attr);
void gdt_set(unsigned selector, uint64_t desc);
void gdt_set_system(unsigned selector, word base, uint32_t limit, unsigned attr); /* 16 bytes in long mode */
/* @attr: 0x8e interrupt gate, 0x8f trap gate, | 0x60 for DPL 3; @ist 0 in 32-bit mode. */
void idt_set(unsigned vector, word target, unsigned selector, unsigned attr, unsigned ist);
void idt_default(unsigned vector);
void idt_load(void);
void gdt_load(void);

/* ---- Exceptions (exc.c, vectors.S) ---------------------------------------------------------------- */
struct frame {
#ifdef __x86_64__
	word r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax;
#else
	word gs, fs, es, ds, di, si, bp, handler_sp, bx, dx, cx, ax;
#endif
	word vector, error, ip, cs, flags, sp, ss; /* 32-bit: sp and ss only from another privilege level */
#ifndef __x86_64__
	word v86_es, v86_ds, v86_fs, v86_gs;
#endif
};
struct exc {
	int vector; /* -1: none */
	word error, cr2, ip, cs, flags, sp, ss, dr6, handler_flags, handler_sp;
	unsigned count;
	struct frame regs;
};
extern volatile struct exc exc; /* the last one on the first processor */
extern volatile word exc_resume;
void exc_clear(void);
void on_vector(unsigned vector, void (*handler)(struct frame *)); /* NULL: record */
/* Runs fn(arg); the vector of the exception that ended it, or -1. */
int attempt(void (*fn)(void *), void *arg);
void attempt_return(void) __attribute__((noreturn)); /* ends the current attempt from a handler */

/*
 * Runs instructions (@insn may not jump out); -1, or the vector of the exception, after which nothing of
 * @insn behind it has run. Operands as in asm: TRY("mov %1, %0", ("=r"(x)), ("m"(y))). The label bare_N
 * is the exception's expected place; IP_IS compares.
 */
#ifdef __x86_64__
#define TRY_PUT "movq $99f, exc_resume\n\t"
#define TRY_END "\n99:\n\tmovq $0, exc_resume"
#else
#define TRY_PUT "movl $99f, exc_resume\n\t"
#define TRY_END "\n99:\n\tmovl $0, exc_resume"
#endif
#define BARE_UNWRAP(...) __VA_ARGS__
#define TRY(insn, out, in, ...) ({                                                                  \
	exc_clear();                                                                                \
	__asm__ volatile(TRY_PUT insn TRY_END : BARE_UNWRAP out : BARE_UNWRAP in : "memory", "cc" __VA_OPT__(,) __VA_ARGS__); \
	exc.vector; })
#define TRY0(insn) TRY(insn, (), ())

/* Runs code at CPL 3 with (rdi, rsi) or (eax, edx) = (a, b) until its first exception; INT 0x80 ends it regularly. */
int user_run(word ip, word a, word b);
extern word user_flags, user_cs, user_ss, user_sp; /* what user_run enters with */
#ifdef __x86_64__
#define USER_BASE 0x8000000000ul
#define TEST_BASE 0x10000000000ul
#define USER(p) ((word)(p) + USER_BASE)
#else
#define USER(p) ((word)(p))
#endif
/* A piece of position-independent code: CODE(name, "insns") defines `name` and `name_end`. */
#define CODE(name, insns)                                                                          \
	extern char name[], name##_end[];                                                           \
	__asm__(".pushsection .text\n.balign 16\n.globl " #name "\n" #name ":\n" insns "\n.globl " #name "_end\n" #name \
		"_end:\n.popsection")

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, CSO, TS, NP, SS, GP, PF, MF = 16, AC, MC, XM };

/* ---- Paging (page.c): long mode ---------------------------------------------------------------- */
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_PWT = 8, PTE_PCD = 16, PTE_A = 32, PTE_D = 64, PTE_PS = 128, PTE_G = 256 };
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull
void *page_alloc(void);		/* one page of zeros */
void *pages_alloc(unsigned n, word align); /* physically contiguous */
#ifdef __x86_64__
/* The entry of @va at @level (1: 4 KiB … 4: PML4); tables above it are made with P, W, U. */
volatile uint64_t *pte_at(word va, unsigned level);
void map(word va, uint64_t pa, uint64_t flags); /* 4 KiB; does not flush */
#endif

/* ---- APIC and processors (smp.c) ---------------------------------------------------------------- */
#define LAPIC 0xfee00000u
enum { APIC_ID = 0x20, APIC_VERSION = 0x30, APIC_TPR = 0x80, APIC_PPR = 0xa0, APIC_EOI = 0xb0, APIC_LDR = 0xd0, APIC_DFR = 0xe0,
       APIC_SVR = 0xf0, APIC_ISR = 0x100, APIC_IRR = 0x200, APIC_ESR = 0x280, APIC_ICR = 0x300, APIC_ICR2 = 0x310,
       APIC_LVTT = 0x320, APIC_LINT0 = 0x350, APIC_LINT1 = 0x360, APIC_LVTERR = 0x370, APIC_TMICT = 0x380, APIC_TMCCT = 0x390,
       APIC_TDCR = 0x3e0 };
static inline uint32_t apic_read(unsigned reg) { return MMIO32(LAPIC + reg); }
static inline void apic_write(unsigned reg, uint32_t v) { MMIO32(LAPIC + reg) = v; }
void apic_enable(void);				   /* SVR with vector 0xff; ExtINT masked */
void apic_ipi(unsigned apic_id, uint32_t command); /* and waits until it is sent */
void pic_off(void);				   /* masks all inputs of the 8259s */
void wait_us(unsigned us);			   /* by the ACPI PM timer */
uint32_t pm_timer(void);
#ifdef __x86_64__
unsigned cpu_index(void);
void cpus_start(unsigned count);		       /* 1..count-1 */
void cpu_call(unsigned cpu, void (*fn)(void *), void *arg); /* starts it there */
void cpu_join(unsigned cpu);
#endif

/* ---- PCI (pci.c) ---------------------------------------------------------------------------------- */
uint32_t pci_read(unsigned devfn, unsigned reg);
void pci_write(unsigned devfn, unsigned reg, uint32_t v);
int pci_find(uint16_t vendor, uint16_t device); /* devfn on bus 0, or -1 */
unsigned pci_capability(unsigned devfn, uint8_t id, unsigned after); /* its offset, 0 none */
uint64_t pci_bar(unsigned devfn, unsigned n);

#endif
