/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four processors: start, exact atomics, shootdowns of translations, memory ordering. SDM vol. 3, 8.1 (locked operations), 8.2
 * (ordering), 4.10.5 (propagation of changes to paging structures).
 *
 * run: --cpus 4
 */
#include "lib/bare.h"

#define CPUS 4
#define EACH 5000u

static struct {
	volatile uint64_t add, inc, xadd, cmpxchg, xadd_sum;
	volatile uint64_t pair[2] __attribute__((aligned(16)));
	volatile uint32_t bits, ticket, owner;
	volatile uint64_t plain;
} n __attribute__((aligned(64)));
static uint8_t *straddling; /* its 8 bytes lie in two pages */
static uint8_t *line;	    /* its 8 bytes lie in two lines */
static volatile unsigned seen[CPUS];
static volatile unsigned ready;

static void barrier(unsigned count)
{
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	while (ready < count)
		cpu_relax();
}

static void counts(void *arg)
{
	uint64_t sum = 0;

	seen[cpu_index()] = cpuid(1, 0).b >> 24;
	barrier(CPUS);
	for (unsigned k = 0; k < EACH; k++) {
		uint64_t one = 1, old, low, high;
		bool done;

		__asm__ volatile("lock addq $3, %0" : "+m"(n.add)::"cc");
		__asm__ volatile("lock incq %0" : "+m"(n.inc)::"cc");
		__asm__ volatile("lock xaddq %1, %0" : "+m"(n.xadd), "+r"(one)::"cc");
		sum += one;
		old = n.cmpxchg;
		do
			__asm__ volatile("lock cmpxchgq %3, %0; sete %1" : "+m"(n.cmpxchg), "=q"(done), "+a"(old) : "r"(old + 1) : "cc");
		while (!done);
		low = n.pair[0], high = n.pair[1];
		do
			__asm__ volatile("lock cmpxchg16b %0; sete %1" : "+m"(n.pair), "=q"(done), "+a"(low), "+d"(high)
					 : "b"(low + 1), "c"(high + 2) : "cc");
		while (!done);
		__asm__ volatile("lock btcl %1, %0" : "+m"(n.bits) : "r"(cpu_index()) : "cc");
		/* A ticket lock around a plain increment */
		uint32_t mine = 1;

		__asm__ volatile("lock xaddl %1, %0" : "+m"(n.ticket), "+r"(mine)::"cc");
		while (n.owner != mine)
			cpu_relax();
		n.plain++;
		n.owner = mine + 1;
	}
	__atomic_fetch_add(&n.xadd_sum, sum, __ATOMIC_SEQ_CST);
}

static void splits(void *arg)
{
	for (unsigned k = 0; k < 3000; k++) {
		__asm__ volatile("lock incq %0" : "+m"(*line)::"cc", "memory");
		__asm__ volatile("lock incq %0" : "+m"(*straddling)::"cc", "memory");
	}
}

static void all(void (*fn)(void *))
{
	ready = 0;
	for (unsigned c = 1; c < CPUS; c++)
		cpu_call(c, fn, NULL);
	fn(NULL);
	for (unsigned c = 1; c < CPUS; c++)
		cpu_join(c);
}

static void atomics(void)
{
	const uint64_t total = (uint64_t)EACH * CPUS;
	uint64_t v;

	all(counts);
	ok(seen[0] == 0 && seen[1] == 1 && seen[2] == 2 && seen[3] == 3, "each processor has its own APIC ID in CPUID");
	is(n.add, total * 3, "LOCK ADD");
	is(n.inc, total, "LOCK INC");
	is(n.xadd, total, "LOCK XADD");
	is(n.xadd_sum, total * (total - 1) / 2, "LOCK XADD gave every number once");
	is(n.cmpxchg, total, "LOCK CMPXCHG");
	ok(n.pair[0] == total && n.pair[1] == 2 * total, "LOCK CMPXCHG16B");
	is(n.bits, 0, "LOCK BTC");
	is(n.plain, total, "a plain counter under a ticket lock");
	straddling = (uint8_t *)pages_alloc(2, 4096) + 4093;
	line = (uint8_t *)page_alloc() + 61;
	all(splits);
	memcpy(&v, line, 8);
	is(v, 3000 * CPUS, "LOCK INC across two cache lines");
	memcpy(&v, straddling, 8);
	is(v, 3000 * CPUS, "LOCK INC across two pages");
}

/* The initiator changes a page table entry, sends an IPI, and waits; then nobody may use the old page. */
#define VA (TEST_BASE + 0x400000)
static volatile uint32_t *page_a, *page_b;
static volatile unsigned acks, generation, stale, stop;

static void on_shootdown(struct frame *f)
{
	invlpg(VA);
	__atomic_fetch_add(&acks, 1, __ATOMIC_SEQ_CST);
	apic_write(APIC_EOI, 0);
}

static void reader(void *arg)
{
	unsigned before;

	irq_on();
	while (!stop) {
		before = generation;
		uint32_t v = MMIO32(VA);

		/* Odd while a change is under way. */
		if (!(before & 1) && before == generation && v != before)
			__atomic_fetch_add(&stale, 1, __ATOMIC_SEQ_CST);
	}
	irq_off();
}

static void shootdown(void)
{
	page_a = page_alloc(), page_b = page_alloc();
	*page_a = 0;
	map(VA, (word)page_a, PTE_P | PTE_W);
	on_vector(0x60, on_shootdown);
	for (unsigned c = 1; c < CPUS; c++)
		cpu_call(c, reader, NULL);
	for (unsigned k = 0; k < 300; k++) {
		volatile uint32_t *next = k & 1 ? page_a : page_b;

		generation++;
		*next = generation + 1;
		map(VA, (word)next, PTE_P | PTE_W);
		acks = 0;
		apic_write(APIC_ICR, 0xc0060); /* all but self */
		while (acks != CPUS - 1)
			cpu_relax();
		invlpg(VA);
		generation++;
	}
	stop = true;
	for (unsigned c = 1; c < CPUS; c++)
		cpu_join(c);
	is(stale, 0, "300 shootdowns by IPI and INVLPG: nobody read through an old translation");
}

/* Message passing and coherence: x86 does not reorder stores with stores, nor loads with loads (8.2.2). */
static struct { volatile uint64_t data __attribute__((aligned(64))), flag __attribute__((aligned(64))); } mp;
static volatile unsigned mp_bad;

static void consumer(void *arg)
{
	for (uint64_t k = 1; k <= 20000; k++) {
		uint64_t flag;

		while ((flag = mp.flag) < k)
			cpu_relax();
		if (mp.data < flag)
			mp_bad++;
	}
}

static volatile uint64_t sb_x __attribute__((aligned(64))), sb_y __attribute__((aligned(64)));
static volatile unsigned sb_round, sb_done;
static volatile uint64_t sb_r1, sb_r2;

static void dekker(void *arg)
{
	for (unsigned k = 1; k <= 5000; k++) {
		while (sb_round < k)
			cpu_relax();
		sb_y = 1;
		__asm__ volatile("mfence" ::: "memory");
		sb_r2 = sb_x;
		sb_done = k;
	}
}

static void ordering(void)
{
	unsigned both_zero = 0;

	cpu_call(1, consumer, NULL);
	for (uint64_t k = 1; k <= 20000; k++) {
		mp.data = k;
		mp.flag = k;
	}
	cpu_join(1);
	is(mp_bad, 0, "message passing: 20000 messages in order");
	cpu_call(2, dekker, NULL);
	for (unsigned k = 1; k <= 5000; k++) {
		sb_x = sb_y = 0;
		__asm__ volatile("mfence" ::: "memory");
		sb_round = k;
		sb_x = 1;
		__asm__ volatile("mfence" ::: "memory");
		sb_r1 = sb_y;
		while (sb_done < k)
			cpu_relax();
		both_zero += sb_r1 == 0 && sb_r2 == 0;
	}
	cpu_join(2);
	is(both_zero, 0, "store buffering with MFENCE: never both 0");
}

static volatile unsigned hlt_woken;

static void sleeper(void *arg)
{
	__asm__ volatile("sti; hlt; cli" ::: "memory");
	__atomic_fetch_add(&hlt_woken, 1, __ATOMIC_SEQ_CST);
}

static void on_wake(struct frame *f)
{
	apic_write(APIC_EOI, 0);
}

static volatile unsigned nmi_count;

static void on_nmi(struct frame *f)
{
	__atomic_fetch_add(&nmi_count, 1, __ATOMIC_SEQ_CST);
}

static void wait_for(volatile unsigned *count, unsigned value)
{
	for (unsigned ms = 0; *count < value && ms < 5000; ms++)
		wait_us(1000);
	wait_us(2000);
}

static void ipis(void)
{
	on_vector(0x61, on_wake);
	for (unsigned c = 1; c < CPUS; c++)
		cpu_call(c, sleeper, NULL);
	wait_us(20000);
	is(hlt_woken, 0, "three processors sleep in HLT");
	apic_write(APIC_ICR, 0xc0061);
	for (unsigned c = 1; c < CPUS; c++)
		cpu_join(c);
	is(hlt_woken, 3, "an IPI to all but self wakes them");
	on_vector(NMI, on_nmi);
	apic_ipi(2, 0x400);
	wait_for(&nmi_count, 1);
	is(nmi_count, 1, "an NMI to one processor");
	apic_write(APIC_ICR, 0xc0400);
	wait_for(&nmi_count, 4);
	is(nmi_count, 4, "an NMI to all but self");
	/* Logical destination, flat model */
	apic_write(APIC_DFR, 0xffffffff);
	nmi_count = 0;
	apic_write(APIC_ICR2, 0);
	apic_write(APIC_ICR, 0xc00 | 0x400);
	wait_us(2000);
	is(nmi_count, 0, "a logical destination of nobody");
}

static volatile uint64_t tsc_last;
static volatile unsigned tsc_back;

static void tsc_order(void *arg)
{
	for (unsigned k = 0; k < 3000; k++) {
		while (__atomic_exchange_n(&n.owner, 0x55, __ATOMIC_SEQ_CST) == 0x55)
			cpu_relax();
		uint64_t now = rdtsc();

		if (now < tsc_last) {
			tsc_back++;
			print("# processor %u at %u: %llu back\n", cpu_index(), k, (unsigned long long)(tsc_last - now));
		}
		tsc_last = now;
		__asm__ volatile("mfence" ::: "memory");
		n.owner = 0;
	}
}

void main(void)
{
	cpus_start(CPUS);
	ok(true, "%u processors run", CPUS);
	atomics();
	shootdown();
	ordering();
	ipis();
	n.owner = 0;
	all(tsc_order);
	is(tsc_back, 0, "the TSC goes forward from one processor to the next");
}
