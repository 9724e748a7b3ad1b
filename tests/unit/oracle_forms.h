/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instructions test_bt_oracle runs, and how they are encoded.
 *
 * forms_make() walks all opcode maps with all combinations of mandatory prefix, W, vector length, ModRM.reg and kind of
 * operand, and keeps what the decoder takes, the host has, and is safe to run in this process: the forms. encode() makes
 * bytes of a form and the fields that it leaves open.
 *
 * What depends on more than its operands (time, CPUID, random numbers, x87 instruction pointers), enters
 * the kernel, or loads segments is left out.
 */
#ifndef TESTS_UNIT_ORACLE_FORMS_H
#define TESTS_UNIT_ORACLE_FORMS_H

#include <Zydis/Zydis.h>

#include "cpu/bt/decode.h"
#include "tests/unit/oracle_run.h"

struct form {
	uint8_t enc, map, opcode, pp, w, l;
	int8_t digit, rm; /* ModRM.reg and ModRM.rm, -1: any */
	bool has_modrm, mem;
	uint8_t group;
};
enum { GROUP_INT, GROUP_INT_RARE, GROUP_X87, GROUP_SSE, GROUP_VEX, GROUP_EVEX, GROUPS };
#define FORMS_MAX 16384
#define NEST_MAX 3
#define X87_SAVES 0x1200u /* in the data: images of FNSAVE and its like */
#define X87_SAVES_BYTES 0x600u

struct gen {
	uint64_t seed; /* state of the random numbers */
	unsigned bits; /* of the code: 64 or 32 */
	struct decode_features features;
	ZydisDecoder zydis;
	struct form *forms[GROUPS];
	unsigned count[GROUPS];

	/* The piece. */
	uint64_t at;
	uint8_t code[8192];
	unsigned len, insns;
	uint16_t starts[2048]; /* of instructions */
	bool fixed[2048];      /* not to be taken out: loops */
	uint8_t pointer[3];   /* general registers that hold pointers */
	uint16_t kept;	      /* registers seldom to be written: bit per register */
	uint16_t locked;      /* and those that must not be: loops count in them */
	bool group;	      /* memory operands are at group_base, with group_reach around it */
	uint8_t group_base;
	uint16_t group_reach;
	bool shapes; /* oracle_shapes.h */
	bool smc;    /* the piece changes itself, and is where it may */
	unsigned depth, counters;
	unsigned calls; /* not 0: a return address is on the stack, which is left alone */
};

static uint64_t gen_next(struct gen *g)
{
	uint64_t z = g->seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static unsigned below(struct gen *g, unsigned n)
{
	return (unsigned)((gen_next(g) >> 32) * n >> 32);
}

static bool percent(struct gen *g, unsigned n)
{
	return below(g, 100) < n;
}

/* ---- what may run ---- */

/* By Zydis, which is not what is tested. */
static bool zydis_safe(const ZydisDecodedInstruction *zi)
{
	switch (zi->meta.category) {
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_VTX:
	case ZYDIS_CATEGORY_SGX:
	case ZYDIS_CATEGORY_PKU:
	case ZYDIS_CATEGORY_CET:
	case ZYDIS_CATEGORY_RDWRFSGS:
	case ZYDIS_CATEGORY_RDRAND:
	case ZYDIS_CATEGORY_RDSEED:
	case ZYDIS_CATEGORY_XSAVE:
	case ZYDIS_CATEGORY_XSAVEOPT:
	case ZYDIS_CATEGORY_MPX:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_COND_BR: return false;
	default: break;
	}
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_INVALID:
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_XSETBV:
	case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_XTEST:
	case ZYDIS_MNEMONIC_XABORT:
	case ZYDIS_MNEMONIC_XBEGIN:
	case ZYDIS_MNEMONIC_XEND:
	case ZYDIS_MNEMONIC_ENCLU:
	case ZYDIS_MNEMONIC_MONITOR:
	case ZYDIS_MNEMONIC_MWAIT:
	case ZYDIS_MNEMONIC_VMCALL: /* the host may be a guest itself */
	case ZYDIS_MNEMONIC_VMMCALL:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2: return false;
	case ZYDIS_MNEMONIC_MOV: /* to a segment register */
		return !(zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && zi->opcode == 0x8e);
	case ZYDIS_MNEMONIC_MOVBE: /* 66 with REX.W: a Skylake checks neither alignment nor for SS */
		return !((zi->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) &&
			 (zi->attributes & ZYDIS_ATTRIB_HAS_REX) && zi->raw.rex.W);
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LES: return false;
	case ZYDIS_MNEMONIC_POP: /* segment registers */
		return zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && zi->opcode != 0x07 &&
		       zi->opcode != 0x17 && zi->opcode != 0x1f;
	default: return true;
	}
}

/* Both decoders take it, and it may run. */
static bool acceptable(struct gen *g, const uint8_t *code, unsigned avail, struct insn *in,
		       ZydisDecodedInstruction *zi)
{
	if (decode(code, avail, g->bits, &g->features, in) != DECODE_OK ||
	    in->klass == CLASS_INVALID)
		return false;
	return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&g->zydis, NULL, code, avail, zi)) &&
	       zi->length == in->len && zydis_safe(zi) && in->seg != X86_FS;
}

/* ---- encoding ---- */

struct fields {
	uint8_t legacy[4], nlegacy; /* prefixes in front */
	bool rex;
	uint8_t r, x, b, r2, vvvv, aaa, z, bcst;
	uint8_t modrm, sib;
	uint8_t ndisp;
	int32_t disp;
	uint8_t tail[10]; /* immediates: as many as the form takes */
};

/* The bytes of @f with @x; the immediate's length is not known here, and 10 bytes are put. */
static unsigned encode(const struct form *f, const struct fields *x, uint8_t *out)
{
	static const uint8_t mandatory[4] = { 0, 0x66, 0xf3, 0xf2 };
	uint8_t *p = out;

	for (unsigned k = 0; k < x->nlegacy; k++)
		*p++ = x->legacy[k];
	if (f->enc == ENC_LEGACY) {
		if (f->pp)
			*p++ = mandatory[f->pp];
		if (x->rex || f->w)
			*p++ = (uint8_t)(0x40 | f->w << 3 | (x->r & 1) << 2 | (x->x & 1) << 1 |
					 (x->b & 1));
		if (f->map != MAP_ONE)
			*p++ = 0x0f;
		if (f->map == MAP_0F38 || f->map == MAP_0F3A)
			*p++ = f->map == MAP_0F38 ? 0x38 : 0x3a;
	} else if (f->enc == ENC_VEX) {
		bool two = f->map == MAP_0F && !f->w && !(x->x & 1) && !(x->b & 1) && !x->rex;

		*p++ = two ? 0xc5 : 0xc4;
		if (!two)
			*p++ = (uint8_t)((~x->r & 1) << 7 | (~x->x & 1) << 6 | (~x->b & 1) << 5 |
					 f->map);
		*p++ = (uint8_t)((two ? (~x->r & 1) : f->w) << 7 | (~x->vvvv & 15) << 3 |
				 f->l << 2 | f->pp);
	} else {
		*p++ = 0x62;
		*p++ = (uint8_t)((~x->r & 1) << 7 | (~x->x & 1) << 6 | (~x->b & 1) << 5 |
				 (~x->r2 & 1) << 4 | f->map);
		*p++ = (uint8_t)(f->w << 7 | (~x->vvvv & 15) << 3 | 4 | f->pp);
		*p++ = (uint8_t)(x->z << 7 | f->l << 5 | x->bcst << 4 | (~x->vvvv >> 4 & 1) << 3 |
				 x->aaa);
	}
	*p++ = f->opcode;
	if (f->has_modrm) {
		*p++ = x->modrm;
		if ((x->modrm & 0xc7) == 4 || (x->modrm & 0xc7) == 0x44 ||
		    (x->modrm & 0xc7) == 0x84)
			*p++ = x->sib;
		memcpy(p, &x->disp, 4);
		p += x->ndisp;
	}
	memcpy(p, x->tail, sizeof(x->tail));
	return (unsigned)(p - out) + (unsigned)sizeof(x->tail);
}

/* ---- forms ---- */

static unsigned group_of(const struct form *f, const struct insn *in)
{
	if (f->enc != ENC_LEGACY)
		return f->enc == ENC_VEX ? GROUP_VEX : GROUP_EVEX;
	if (in->fpu == FPU_X87 || in->fpu == FPU_WAIT)
		return GROUP_X87;
	if (in->fpu != FPU_NONE)
		return GROUP_SSE;
	return in->klass == CLASS_CALL || (f->pp > 1 && f->map == MAP_ONE) ? GROUP_INT_RARE
									   : GROUP_INT;
}

static void form_add(struct gen *g, const struct form *f, const struct insn *in)
{
	unsigned group = group_of(f, in);

	assert(g->count[group] < FORMS_MAX);
	g->forms[group][g->count[group]] = *f;
	g->forms[group][g->count[group]++].group = (uint8_t)group;
}

/* Tries @f with ModRM @reg, @rm: the mnemonic, or 0. With and without the fields that must be zero for some. */
static unsigned form_try(struct gen *g, const struct form *f, unsigned reg, unsigned rm,
			 struct insn *in)
{
	ZydisDecodedInstruction zi;
	struct fields x = { .modrm = (uint8_t)((f->mem ? 0 : 0xc0) | reg << 3 | rm),
			    .tail = { 1 } };
	uint8_t code[32];

	for (unsigned k = 0; k < 8; k++) {
		x.vvvv = k & 1 ? 0 : 5;
		x.aaa = k & 2 ? 3 : 0;
		if (k & 4) { /* VSIB */
			x.modrm = (uint8_t)((f->mem ? 4 : 0xc4) | reg << 3);
			x.sib = 0x08;
		}
		if (acceptable(g, code, encode(f, &x, code), in, &zi) &&
		    in->has_modrm == f->has_modrm && in->encoding == f->enc &&
		    (!f->has_modrm || in->has_mem == f->mem))
			return zi.mnemonic;
	}
	return 0;
}

static void forms_of_opcode(struct gen *g, struct form f)
{
	struct insn in[8], one;
	unsigned name[8], rm_names = 0;
	bool same, look_at_rm = f.enc == ENC_LEGACY &&
				((f.map == MAP_ONE && (f.opcode & 0xf8) == 0xd8) ||
				 (f.map == MAP_0F && (f.opcode == 0x01 || f.opcode == 0xae)));

	f.digit = f.rm = -1;
	f.has_modrm = f.mem = false;
	if (form_try(g, &f, 0, 0, &one)) {
		form_add(g, &f, &one);
		return;
	}
	f.has_modrm = true;
	for (unsigned mem = 0; mem < 2; mem++) {
		f.mem = mem;
		same = true;
		for (unsigned d = 0; d < 8; d++) {
			name[d] = form_try(g, &f, d, 0, &in[d]);
			same &= name[d] == name[0];
		}
		for (unsigned d = 0; d < 8; d++) {
			if (same && d)
				break;
			f.digit = same ? -1 : (int8_t)d;
			rm_names = 0;
			for (unsigned rm = 1; rm < 8 && !mem && look_at_rm; rm++)
				rm_names += form_try(g, &f, d, rm, &one) != name[d];
			f.rm = -1;
			if (!rm_names) {
				if (name[d])
					form_add(g, &f, &in[d]);
				continue;
			}
			for (unsigned rm = 0; rm < 8; rm++) {
				f.rm = (int8_t)rm;
				if (form_try(g, &f, d, rm, &one))
					form_add(g, &f, &one);
			}
		}
	}
}

static bool is_prefix(const struct gen *g, const struct form *f)
{
	uint8_t o = f->opcode;

	return f->enc == ENC_LEGACY && f->map == MAP_ONE &&
	       (o == 0x0f || (o & 0xe7) == 0x26 || ((o & 0xf0) == 0x40 && g->bits == 64) ||
		(o >= 0x64 && o <= 0x67) || o == 0xf0 || o == 0xf2 || o == 0xf3 || o == 0xc4 ||
		o == 0xc5 || o == 0x62);
}

static void forms_make(struct gen *g)
{
	if (g->bits == 64)
		ZydisDecoderInit(&g->zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else
		ZydisDecoderInit(&g->zydis, ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
				 ZYDIS_STACK_WIDTH_32);
	ZydisDecoderEnableMode(&g->zydis, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(&g->zydis, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(&g->zydis, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
	ZydisDecoderEnableMode(&g->zydis, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
	for (unsigned k = 0; k < GROUPS; k++)
		g->forms[k] = calloc(FORMS_MAX, sizeof(struct form));
	for (unsigned n = 0; n < 3 * 4 * 256 * 4 * 2 * 3; n++) {
		struct form f = { .opcode = (uint8_t)n,
				  .pp = n >> 8 & 3,
				  .w = n >> 10 & 1,
				  .map = n >> 11 & 3,
				  .enc = (uint8_t)((n >> 13) % 3),
				  .l = (uint8_t)((n >> 13) / 3) };

		if ((f.enc == ENC_LEGACY && f.l) || (f.enc == ENC_VEX && f.l > 1) ||
		    (f.enc == ENC_LEGACY && f.w && g->bits == 32) ||
		    (f.enc != ENC_LEGACY && f.map == MAP_ONE) || is_prefix(g, &f))
			continue;
		forms_of_opcode(g, f);
	}
}

#endif
