// SPDX-License-Identifier: Apache-2.0
/*
 * gdb's view of the registers; see gdb_regs.h.
 *
 * One table gives name, width, feature and place of each register; the target description is generated from
 * it. The features org.gnu.gdb.i386.* and the order within them are gdb's (gdb manual, "i386 Features").
 */
#include "vm/gdb_regs.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

enum place { GPR, RIP, FLAGS, SELECTOR, ST, FPU, XMM, MXCSR, SEG_BASE, CR0, CR2, CR3, CR4, CR8, EFER };
enum feature { CORE, SSE, SEGMENTS, CONTROL, FEATURES };

/* Legacy region of the XSAVE area (SDM vol. 1, 10.5.1). */
#define FX_FCW 0
#define FX_FSW 2
#define FX_FTW 4
#define FX_FOP 6
#define FX_FIP 8
#define FX_FDP 16
#define FX_MXCSR 24
#define FX_ST 32
#define FX_XMM 160
#define XSTATE_BV 512

static const char *const feature_names[FEATURES] = {
	[CORE] = "org.gnu.gdb.i386.core",
	[SSE] = "org.gnu.gdb.i386.sse",
	[SEGMENTS] = "org.gnu.gdb.i386.segments",
	[CONTROL] = "org.maru.gdb.i386.control",
};

static const struct reg {
	const char *name;
	uint8_t bytes, feature, place, index;
	const char *type;
} table[] = {
	{ "rax", 8, CORE, GPR, X86_RAX, "int64" },
	{ "rbx", 8, CORE, GPR, X86_RBX, "int64" },
	{ "rcx", 8, CORE, GPR, X86_RCX, "int64" },
	{ "rdx", 8, CORE, GPR, X86_RDX, "int64" },
	{ "rsi", 8, CORE, GPR, X86_RSI, "int64" },
	{ "rdi", 8, CORE, GPR, X86_RDI, "int64" },
	{ "rbp", 8, CORE, GPR, X86_RBP, "data_ptr" },
	{ "rsp", 8, CORE, GPR, X86_RSP, "data_ptr" },
	{ "r8", 8, CORE, GPR, X86_R8, "int64" },
	{ "r9", 8, CORE, GPR, X86_R9, "int64" },
	{ "r10", 8, CORE, GPR, X86_R10, "int64" },
	{ "r11", 8, CORE, GPR, X86_R11, "int64" },
	{ "r12", 8, CORE, GPR, X86_R12, "int64" },
	{ "r13", 8, CORE, GPR, X86_R13, "int64" },
	{ "r14", 8, CORE, GPR, X86_R14, "int64" },
	{ "r15", 8, CORE, GPR, X86_R15, "int64" },
	{ "rip", 8, CORE, RIP, 0, "code_ptr" },
	{ "eflags", 4, CORE, FLAGS, 0, "i386_eflags" },
	{ "cs", 4, CORE, SELECTOR, X86_CS, "int32" },
	{ "ss", 4, CORE, SELECTOR, X86_SS, "int32" },
	{ "ds", 4, CORE, SELECTOR, X86_DS, "int32" },
	{ "es", 4, CORE, SELECTOR, X86_ES, "int32" },
	{ "fs", 4, CORE, SELECTOR, X86_FS, "int32" },
	{ "gs", 4, CORE, SELECTOR, X86_GS, "int32" },
	{ "st0", 10, CORE, ST, 0, "i387_ext" },
	{ "st1", 10, CORE, ST, 1, "i387_ext" },
	{ "st2", 10, CORE, ST, 2, "i387_ext" },
	{ "st3", 10, CORE, ST, 3, "i387_ext" },
	{ "st4", 10, CORE, ST, 4, "i387_ext" },
	{ "st5", 10, CORE, ST, 5, "i387_ext" },
	{ "st6", 10, CORE, ST, 6, "i387_ext" },
	{ "st7", 10, CORE, ST, 7, "i387_ext" },
	{ "fctrl", 4, CORE, FPU, 0, "int" },
	{ "fstat", 4, CORE, FPU, 1, "int" },
	{ "ftag", 4, CORE, FPU, 2, "int" },
	{ "fiseg", 4, CORE, FPU, 3, "int" },
	{ "fioff", 4, CORE, FPU, 4, "int" },
	{ "foseg", 4, CORE, FPU, 5, "int" },
	{ "fooff", 4, CORE, FPU, 6, "int" },
	{ "fop", 4, CORE, FPU, 7, "int" },
	{ "xmm0", 16, SSE, XMM, 0, "vec128" },
	{ "xmm1", 16, SSE, XMM, 1, "vec128" },
	{ "xmm2", 16, SSE, XMM, 2, "vec128" },
	{ "xmm3", 16, SSE, XMM, 3, "vec128" },
	{ "xmm4", 16, SSE, XMM, 4, "vec128" },
	{ "xmm5", 16, SSE, XMM, 5, "vec128" },
	{ "xmm6", 16, SSE, XMM, 6, "vec128" },
	{ "xmm7", 16, SSE, XMM, 7, "vec128" },
	{ "xmm8", 16, SSE, XMM, 8, "vec128" },
	{ "xmm9", 16, SSE, XMM, 9, "vec128" },
	{ "xmm10", 16, SSE, XMM, 10, "vec128" },
	{ "xmm11", 16, SSE, XMM, 11, "vec128" },
	{ "xmm12", 16, SSE, XMM, 12, "vec128" },
	{ "xmm13", 16, SSE, XMM, 13, "vec128" },
	{ "xmm14", 16, SSE, XMM, 14, "vec128" },
	{ "xmm15", 16, SSE, XMM, 15, "vec128" },
	{ "mxcsr", 4, SSE, MXCSR, 0, "i386_mxcsr" },
	{ "fs_base", 8, SEGMENTS, SEG_BASE, X86_FS, "int64" },
	{ "gs_base", 8, SEGMENTS, SEG_BASE, X86_GS, "int64" },
	{ "cr0", 8, CONTROL, CR0, 0, "int64" },
	{ "cr2", 8, CONTROL, CR2, 0, "int64" },
	{ "cr3", 8, CONTROL, CR3, 0, "int64" },
	{ "cr4", 8, CONTROL, CR4, 0, "int64" },
	{ "cr8", 8, CONTROL, CR8, 0, "int64" },
	{ "efer", 8, CONTROL, EFER, 0, "int64" },
};

/* Types that the features use, by gdb's predefined ones. */
static const char vec128[] =
	"<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
	"<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
	"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
	"<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
	"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
	"<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
	"<union id=\"vec128\">"
	"<field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
	"<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
	"<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
	"<field name=\"uint128\" type=\"uint128\"/></union>"
	"<flags id=\"i386_mxcsr\" size=\"4\">"
	"<field name=\"IE\" start=\"0\" end=\"0\"/><field name=\"DE\" start=\"1\" end=\"1\"/>"
	"<field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/>"
	"<field name=\"UE\" start=\"4\" end=\"4\"/><field name=\"PE\" start=\"5\" end=\"5\"/>"
	"<field name=\"DAZ\" start=\"6\" end=\"6\"/><field name=\"IM\" start=\"7\" end=\"7\"/>"
	"<field name=\"DM\" start=\"8\" end=\"8\"/><field name=\"ZM\" start=\"9\" end=\"9\"/>"
	"<field name=\"OM\" start=\"10\" end=\"10\"/><field name=\"UM\" start=\"11\" end=\"11\"/>"
	"<field name=\"PM\" start=\"12\" end=\"12\"/><field name=\"FZ\" start=\"15\" end=\"15\"/></flags>";
static const char eflags[] =
	"<flags id=\"i386_eflags\" size=\"4\">"
	"<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"PF\" start=\"2\" end=\"2\"/>"
	"<field name=\"AF\" start=\"4\" end=\"4\"/><field name=\"ZF\" start=\"6\" end=\"6\"/>"
	"<field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"TF\" start=\"8\" end=\"8\"/>"
	"<field name=\"IF\" start=\"9\" end=\"9\"/><field name=\"DF\" start=\"10\" end=\"10\"/>"
	"<field name=\"OF\" start=\"11\" end=\"11\"/><field name=\"NT\" start=\"14\" end=\"14\"/>"
	"<field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"VM\" start=\"17\" end=\"17\"/>"
	"<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"VIF\" start=\"19\" end=\"19\"/>"
	"<field name=\"VIP\" start=\"20\" end=\"20\"/><field name=\"ID\" start=\"21\" end=\"21\"/></flags>";

unsigned gdb_reg_count(void)
{
	return ARRAY_SIZE(table);
}

unsigned gdb_reg_size(unsigned n)
{
	assert(n < ARRAY_SIZE(table));
	return table[n].bytes;
}

/* Where a whole 64-bit register of the table lives; NULL for the others. */
static uint64_t *whole(struct gdb_cpu_state *s, const struct reg *r)
{
	switch ((enum place)r->place) {
	case GPR:
		return &s->regs.gpr[r->index];
	case RIP:
		return &s->regs.rip;
	case FLAGS:
		return &s->regs.rflags;
	case SEG_BASE:
		return &s->sregs.seg[r->index].base;
	case CR0:
		return &s->sregs.cr0;
	case CR2:
		return &s->sregs.cr2;
	case CR3:
		return &s->sregs.cr3;
	case CR4:
		return &s->sregs.cr4;
	case CR8:
		return &s->sregs.cr8;
	case EFER:
		return &s->sregs.efer;
	default:
		return NULL;
	}
}

/* The tag word: XSAVE has a bit per register that says "in use"; gdb wants two bits, 3 for empty. */
static uint32_t full_tags(uint8_t abridged)
{
	uint32_t tags = 0;

	for (unsigned i = 0; i < 8; i++)
		if (!(abridged >> i & 1))
			tags |= 3u << (i * 2);
	return tags;
}

static uint8_t abridged_tags(uint32_t tags)
{
	uint8_t abridged = 0;

	for (unsigned i = 0; i < 8; i++)
		if ((tags >> (i * 2) & 3) != 3)
			abridged |= 1u << i;
	return abridged;
}

/* Offset and width of fctrl, fstat, ftag, fiseg, fioff, foseg, fooff, fop; ftag is apart. */
static const struct {
	uint16_t offset;
	uint8_t bytes;
} fpu[8] = {
	{ FX_FCW, 2 }, { FX_FSW, 2 }, { FX_FTW, 1 },	 { FX_FIP + 4, 2 },
	{ FX_FIP, 4 }, { FX_FDP + 4, 2 }, { FX_FDP, 4 }, { FX_FOP, 2 },
};
#define FPU_FTAG 2

void gdb_reg_get(const struct gdb_cpu_state *s, unsigned n, uint8_t *out)
{
	const struct reg *r = &table[n];
	const uint8_t *x = s->xstate.area;
	uint64_t *reg = whole((struct gdb_cpu_state *)s, r);
	uint32_t v = 0;

	assert(n < ARRAY_SIZE(table));
	if (reg) {
		memcpy(out, reg, r->bytes);
	} else if (r->place == ST) {
		memcpy(out, x + FX_ST + r->index * 16, 10);
	} else if (r->place == XMM) {
		memcpy(out, x + FX_XMM + r->index * 16, 16);
	} else {
		if (r->place == SELECTOR)
			v = s->sregs.seg[r->index].selector;
		else if (r->place == MXCSR)
			v = load_le(x + FX_MXCSR, 4);
		else if (r->index == FPU_FTAG)
			v = full_tags(x[FX_FTW]);
		else
			v = load_le(x + fpu[r->index].offset, fpu[r->index].bytes);
		store_le(out, v, 4);
	}
}

void gdb_reg_set(struct gdb_cpu_state *s, unsigned n, const uint8_t *in)
{
	const struct reg *r = &table[n];
	uint8_t *x = s->xstate.area;
	uint64_t *reg = whole(s, r);
	uint32_t v;

	assert(n < ARRAY_SIZE(table));
	if (reg) {
		*reg = load_le(in, r->bytes);
	} else if (r->place == ST) {
		memcpy(x + FX_ST + r->index * 16, in, 10);
	} else if (r->place == XMM) {
		memcpy(x + FX_XMM + r->index * 16, in, 16);
	} else {
		v = load_le(in, 4);
		if (r->place == SELECTOR)
			s->sregs.seg[r->index].selector = v;
		else if (r->place == MXCSR)
			store_le(x + FX_MXCSR, v & 0xffff, 4); /* reserved bits would fault in XRSTOR */
		else if (r->index == FPU_FTAG)
			x[FX_FTW] = abridged_tags(v);
		else
			store_le(x + fpu[r->index].offset, v, fpu[r->index].bytes);
	}
}

void gdb_xstate_normalize(struct x86_xstate *x)
{
	uint64_t present = load_le(x->area + XSTATE_BV, 8);

	if (!(present & X86_XCR0_X87)) {
		memset(x->area, 0, FX_MXCSR);
		memset(x->area + FX_ST, 0, 128);
		store_le(x->area + FX_FCW, 0x37f, 2);
	}
	if (!(present & X86_XCR0_SSE)) {
		memset(x->area + FX_XMM, 0, 256);
		if (!(present & X86_XCR0_AVX))
			store_le(x->area + FX_MXCSR, 0x1f80, 4);
	}
	store_le(x->area + XSTATE_BV, present | X86_XCR0_X87 | X86_XCR0_SSE, 8);
}

struct text {
	char *buf;
	size_t size, used;
};

static void PRINTF_LIKE(2, 3) add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->buf ? t->buf + MIN(t->used, t->size) : NULL, t->size - MIN(t->used, t->size), fmt, ap);
	va_end(ap);
	t->used += n;
}

size_t gdb_target_xml(char *buf, size_t size)
{
	struct text t = { buf, size, 0 };

	add(&t, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
		"<architecture>i386:x86-64</architecture>");
	for (unsigned f = 0; f < FEATURES; f++) {
		add(&t, "<feature name=\"%s\">", feature_names[f]);
		if (f == CORE)
			add(&t, "%s", eflags);
		if (f == SSE)
			add(&t, "%s", vec128);
		for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
			if (table[i].feature == f)
				add(&t, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"/>", table[i].name,
				    table[i].bytes * 8, table[i].type, i);
		add(&t, "</feature>");
	}
	add(&t, "</target>");
	return t.used;
}
