/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: arbitrary instructions through the real translator, in rings 0 and 3, in 16-, 32- and 64-bit code,
 * with registers that point near the ends of pages and of RAM.
 *
 * The input's first bytes choose mode and registers; the rest feeds a generator of instructions, which
 * otherwise draws from a random sequence that the input seeds (bytes alone are mostly one-byte opcodes, and a fault
 * ends them soon). A run ends with a triple fault, or after a millisecond.
 *
 * Checked: the process survives; what was translated holds against bt_verify.h; in ring 3 no supervisor page has
 * changed; the translator's own state and the code of its stubs have not. RAM is small, so that much points beyond
 * it. The translator turns host exceptions into exit status 70; the input that was running is in build/fuzz/bt.last.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cpu/bt/private.h"
#include "tests/unit/bt_verify.h"

#define RAM (1 * MiB)
#define TABLES 0x10000u /* PML4, PDPT, PD, PT */
#define IDT 0x20000u
#define GDT 0x21000u
#define CODE 0x30000u /* two pages; handlers of exceptions are in the second */
#define DATA 0x40000u /* two pages, supervisor ones around them */
#define STACK 0x50000u
#define LAST (RAM - 4096)

static struct memory *mem;
static struct engine *engine;
static struct vcpu *vcpu;
static struct bt_engine *e;
static uint8_t *stubs;
static int last_input = -1;
static struct verify verifier;

/* ---- the input ---- */

struct source {
	const uint8_t *data;
	size_t size;
	uint64_t random;
};

static uint64_t next_random(struct source *s)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return s->random * 0x2545f4914f6cdd1dull >> 16;
}

static uint8_t take(struct source *s)
{
	if (s->size) {
		s->size--;
		return *s->data++;
	}
	return (uint8_t)next_random(s);
}

static bool is_user_page(uint64_t gpa)
{
	uint64_t page = gpa & ~0xfffull;

	return page == CODE || page == CODE + 0x1000 || page == DATA || page == DATA + 0x1000 || page == STACK ||
	       page == LAST;
}

static uint64_t pick_register(struct source *s)
{
	static const uint64_t near[] = {DATA, DATA + 0x1000, DATA + 0x2000, STACK, LAST, RAM, CODE, CODE + 0x1000, 0,
					1ull << 32, 1ull << 47, 0xffff800000000000ull, TABLES, 1ull << 31};
	uint8_t kind = take(s);

	if (kind < 16)
		return next_random(s) << 20 ^ next_random(s);
	if (kind < 32)
		return kind;
	return near[kind % (kind & 1 ? 5 : ARRAY_SIZE(near))] + (int8_t)take(s) / (kind & 2 ? 1 : 8);
}

/* ---- code ---- */

static unsigned put_modrm(struct source *s, uint8_t *p, unsigned bits)
{
	uint8_t modrm = take(s);
	unsigned n = 0;

	p[n++] = modrm;
	if (bits != 16 && (modrm & 0xc7) != 5 && modrm < 0xc0 && (modrm & 7) == 4)
		p[n++] = take(s);
	for (unsigned k = 0; k < 12; k++)
		p[n + k] = take(s) & (k & 3 ? 0 : 0xff);
	return n + 12;
}

/* Something with the form of an instruction. */
static void put_candidate(struct source *s, uint8_t *p, unsigned bits)
{
	static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x64, 0x65, 0x2e, 0x36, 0x3e, 0x26};
	uint8_t kind = take(s), pp = take(s);
	unsigned n = 0;

	if ((kind & 7) >= 5) { /* VEX, EVEX */
		bool evex = (kind & 7) == 7;

		p[n++] = evex ? 0x62 : 0xc4;
		p[n++] = (uint8_t)((bits == 64 ? take(s) : 0xc0 | take(s)) & (evex ? 0xf0 : 0xe0)) | (1 + pp % 3);
		p[n++] = (uint8_t)((take(s) & 0x84) | (pp & 0x40 ? 0x78 : take(s) & 0x78) | (pp >> 2 & 3) | (evex ? 4 : 0));
		if (evex)
			p[n++] = pp & 0x80 ? 8 | (take(s) & 0x60) : take(s);
	} else {
		while ((kind & 0x18) == 0 && n < 3 && (pp & 3)) {
			p[n++] = prefixes[take(s) % sizeof(prefixes)];
			pp = take(s);
		}
		if (bits == 64 && (kind & 0x20))
			p[n++] = 0x40 | (take(s) & 15);
		if ((kind & 7) >= 2)
			p[n++] = 0x0f;
		if ((kind & 7) == 4)
			p[n++] = pp & 4 ? 0x38 : 0x3a;
	}
	p[n++] = take(s);
	put_modrm(s, p + n, bits);
}

/* Rather what runs on the host than what is a call of C, and rather what goes on than what leaves. */
static bool wanted(struct source *s, const struct insn *i)
{
	if (i->klass == CLASS_INVALID)
		return take(s) == 0;
	if (i->op >= OP_JMP && i->op <= OP_CALL_IND && i->op != OP_JCC)
		return take(s) < 16;
	return i->klass != CLASS_CALL || take(s) < 64;
}

static void put_code(struct source *s, uint8_t *to, unsigned len, unsigned bits)
{
	unsigned at = 0;

	while (at + 32 < len) {
		struct insn i;

		for (unsigned k = 0; k < 32; k++) {
			put_candidate(s, to + at, bits);
			if (decode(to + at, 32, bits, &e->features, &i) == DECODE_OK && wanted(s, &i))
				break;
		}
		at += i.len ? i.len : 1;
	}
	while (at < len)
		to[at++] = 0xf4;
}

/* ---- the guest ---- */

static void put64(uint64_t gpa, uint64_t value)
{
	store_le(mem->ram_base + gpa, value, 8);
}

static void make_tables(uint64_t tables)
{
	put64(tables, (tables + 0x1000) | 7);
	put64(tables + 0x1000, (tables + 0x2000) | 7);
	put64(tables + 0x2000, (tables + 0x3000) | 7);
	for (unsigned k = 0; k < 512; k++) /* the second megabyte is not RAM */
		put64(tables + 0x3000 + 8 * k, k << 12 | (is_user_page(k << 12) ? 0x67 : 0x63));
}

static void make_descriptors(bool handlers)
{
	put64(GDT + 8, 0x00af9b000000ffff);
	put64(GDT + 16, 0x00cf93000000ffff);
	for (unsigned k = 0; handlers && k < 256; k++) {
		uint64_t to = CODE + 0x1000 + (k & 3) * 64;

		put64(IDT + 16 * k, (to & 0xffff) | 8 << 16 | (to & 0xffff0000) << 32 | 0xee00ull << 32);
		put64(IDT + 16 * k + 8, 0);
	}
}

static void set_state(struct source *s, unsigned cpl, unsigned bits, bool handlers, bool page_end)
{
	struct x86_sregs sr;
	struct x86_regs r = {.rflags = 2 | (cpl == 3 && (take(s) & 1) ? X86_IOPL : 0)};
	uint8_t flags = take(s);
	uint16_t code = bits == 64 ? 0xa09b : bits == 32 ? 0xc09b : 0x809b;

	vcpu_reset(vcpu);
	vcpu_get_sregs(vcpu, &sr);
	for (unsigned k = 0; k < X86_SEG_COUNT; k++)
		sr.seg[k] = (struct x86_segment){.selector = (uint16_t)(16 | cpl), .limit = 0xffffffff,
						 .attr = (uint16_t)(0xc093 | cpl << 5)};
	sr.seg[X86_CS] = (struct x86_segment){.selector = (uint16_t)(8 | cpl), .limit = 0xffffffff,
					      .attr = (uint16_t)(code | cpl << 5)};
	if (flags & 1)
		sr.seg[X86_FS].base = sr.seg[X86_GS].base = bits == 64 ? pick_register(s) : (uint32_t)pick_register(s);
	if (bits != 64 && (flags & 2)) { /* segments that are not flat */
		sr.seg[X86_DS].base = (uint32_t)pick_register(s);
		sr.seg[X86_ES].limit = take(s) << 8 | take(s);
		sr.seg[X86_SS].attr &= flags & 4 ? 0xffff : 0xbfff;
	}
	sr.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP | X86_CR0_WP | (flags & 8 ? X86_CR0_AM : 0);
	sr.cr3 = TABLES;
	sr.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE | X86_CR4_FSGSBASE |
		 (flags & 16 ? X86_CR4_SMAP | X86_CR4_SMEP : 0);
	sr.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
	sr.xcr0 = e->host_xcr0;
	sr.gdtr = (struct x86_table){.base = GDT, .limit = 23};
	sr.idtr = (struct x86_table){.base = IDT, .limit = handlers ? 4095 : 0};
	vcpu_set_sregs(vcpu, &sr);
	for (unsigned k = 0; k < 16; k++)
		r.gpr[k] = pick_register(s);
	if (flags & 32)
		r.gpr[X86_RSP] = STACK + 0x800;
	r.rip = CODE + (page_end ? 0xfe0 : 0);
	r.rflags |= flags & 128 ? X86_AC : 0;
	vcpu_set_regs(vcpu, &r);
}

static void *stopper(void *opaque)
{
	for (;;) {
		struct timespec ts = {.tv_nsec = 1000000};

		nanosleep(&ts, NULL);
		vcpu_request_stop(vcpu);
	}
	return NULL;
}

static uint64_t vm_time(void *opaque)
{
	return 0;
}

/* The engine keeps its pointers in memory of mmap(), where the leak detector does not look. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return 1;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct engine_config c = {.kind = ENGINE_BT, .vcpu_count = 1, .vm_time_ns = vm_time, .paravirt = true, .kvm_fd = -1};
	struct loop *loop;
	pthread_t thread;

	if (memory_create(RAM, &mem) || loop_create(&loop))
		abort();
	c.mem = mem;
	c.loop = loop;
	if (engine_create(&c, &engine))
		abort();
	vcpu = engine_vcpu(engine, 0);
	e = (struct bt_engine *)engine;
	stubs = malloc(e->cache_stubs_end);
	memcpy(stubs, e->cache_rx, e->cache_stubs_end);
	last_input = open("build/fuzz/bt.last", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (pthread_create(&thread, NULL, stopper, NULL))
		abort();
	return 0;
}

static void check_blocks(void)
{
	for (const struct block *b = block_at(e, e->newest); b; b = block_at(e, b->older))
		if (!verify_block(&verifier, e, b)) {
			fprintf(stderr, "a block of guest code at %#llx, mode %#x: %s\n", (unsigned long long)block_gpa(b),
				b->mode, verifier.what);
			abort();
		}
}

static void check_supervisor_pages(const uint8_t *pattern)
{
	for (uint64_t page = 0; page < RAM; page += 4096)
		if (!is_user_page(page) && page != TABLES && page != TABLES + 0x1000 && page != TABLES + 0x2000 &&
		    page != TABLES + 0x3000 && page != IDT && page != GDT &&
		    memcmp(mem->ram_base + page, pattern, 4096)) {
			fprintf(stderr, "user code has written to the supervisor's page %#llx\n", (unsigned long long)page);
			abort();
		}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t pattern[4096], code[8192];
	struct source s = {.data = data, .size = size, .random = 0x9e3779b97f4a7c15ull};
	struct bt_vcpu *v = container_of(vcpu, struct bt_vcpu, base);
	struct bt_private *priv = v->priv;
	static const unsigned widths[] = {64, 64, 32, 16};
	struct vcpu_exit exit;
	uint8_t kind;

	if (last_input >= 0 && (ftruncate(last_input, 0) || pwrite(last_input, data, size, 0) < 0))
		abort();
	for (size_t k = 0; k < size; k++)
		s.random = (s.random ^ data[k]) * 0x100000001b3ull + 1;
	kind = take(&s);

	unsigned cpl = kind & 1 ? 3 : 0, bits = widths[kind >> 1 & 3];
	bool handlers = kind & 8;

	memset(pattern, 0xa5, sizeof(pattern));
	memset(mem->ram_base, 0xa5, RAM);
	make_tables(TABLES);
	make_descriptors(handlers);
	set_state(&s, cpl, bits, handlers, kind & 32);
	memset(code, 0xf4, sizeof(code));
	put_code(&s, code, kind & 16 ? 128 : 640, bits);
	for (unsigned k = 0; handlers && k < 4; k++)
		put_code(&s, code + 0x1000 + 64 * k, 64, 64);
	memcpy(mem->ram_base + CODE, code, sizeof(code));
	if (kind & 32) /* across the end of a page */
		memcpy(mem->ram_base + CODE + 0xfe0, code, 640);
	cache_flush(e);
	vcpu_run(vcpu, &exit);
	check_blocks();
	if (cpl == 3 && !handlers)
		check_supervisor_pages(pattern);
	if (v->engine != e || v->priv != priv || v->index || memcmp(stubs, e->cache_rx, e->cache_stubs_end))
		abort();
	return 0;
}
