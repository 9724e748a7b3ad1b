/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator against the host's CPU: random pieces of user-mode code run on both, from the same state; all
 * registers, flags, memory, extended state and the fault that ends the piece must be equal.
 *
 *	test_bt_oracle [-s SEED] [-n INSNS] [-m MODE] [-v]
 *
 * Each piece has a seed of its own, which is shown when it fails; `-s SEED -n 1 -m MODE` runs just that one again.
 * -v shows it first. A piece that fails is made smaller by taking instructions out for as long as it fails. MODE is
 * one of those below: the width of the code, and debug options of the translator (MARU_BT_DEBUG). Flags at a fault
 * may be older than the instruction unless exact-flags asks for better (cpu/bt/translate.c), and are compared then
 * only. MARU_ORACLE_INSNS and MARU_ORACLE_SEED in the environment do as -n and -s.
 */
#include <time.h>

#include "tests/tap.h"
#include "tests/unit/bt_verify.h"
#include "tests/unit/oracle_start.h"

#define STATES 3 /* each piece is run with */
#define FAILURES_MAX 10

enum { TIMER = 255 };
static const struct mode {
	const char *name, *options;
	unsigned bits;	/* of the code */
	unsigned share; /* per cent of all instructions */
	bool exact;	/* flags at faults */
	uint8_t interrupts; /* 0: none; at every so many-th place (oracle_run.h); TIMER */
} modes[] = {
	{ "64", "", 64, 20, false, 0 },
	{ "64-exact", "exact-flags", 64, 21, true, 0 },
	{ "64-no-group", "no-group", 64, 3, false, 0 },
	{ "64-no-far", "no-far,no-ring,small-tlb", 64, 2, false, 0 },
	{ "64-no-link", "no-link", 64, 4, false, 0 },
	{ "64-single", "single", 64, 4, false, 0 },
	{ "64-bounce", "bounce,exact-flags", 64, 4, true, 0 },
	{ "64-step", "single,no-link,exact-flags", 64, 2, true, 0 },
	{ "64-interrupts", "poll", 64, 9, false, 1 },
	{ "64-exact-interrupts", "poll,exact-flags", 64, 5, true, 2 },
	{ "64-step-interrupts", "single,no-link,exact-flags", 64, 2, true, 1 },
	{ "64-timer", "", 64, 4, false, TIMER },
	{ "32", "", 32, 9, false, 0 },
	{ "32-exact", "exact-flags", 32, 5, true, 0 },
	{ "32-bounce", "bounce,exact-flags", 32, 2, true, 0 },
	{ "32-interrupts", "poll", 32, 4, false, 1 },
};

static struct oracle_run run;
static struct gen gen, gens[2]; /* gens: for 64 and 32 bits, with their forms */
static uint8_t *pool;		/* what memory is filled with */
static uint8_t start_memory[STATES][MEMORY_BYTES];
static struct cpu_state start[STATES];
static struct outcome native_out, guest_out;
static uint64_t executed, faults[32], failures;
static bool verbose; /* pieces are shown before they run */

/* ---- comparing ---- */

static const char *const gpr_names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",	 "r10", "r11", "r12", "r13", "r14", "r15" };

static bool differ(bool say, const char *what, uint64_t native_value, uint64_t guest_value)
{
	if (native_value == guest_value)
		return false;
	if (say)
		diag("  %s: host %#llx, translated %#llx", what, (unsigned long long)native_value,
		     (unsigned long long)guest_value);
	return true;
}

/* Components in their initial state need not be in the image. x87 pointers are left out (cpu/bt/xstate.c). */
static void normalize(uint8_t *x)
{
	uint64_t bv;

	memcpy(&bv, x + 512, 8);
	memset(x + 512, 0xff, 8);
	memset(x + 520, 0, 56);
	if (!(bv & 1)) {
		memset(x, 0, 24);
		x[0] = 0x7f;
		x[1] = 0x03;
		memset(x + 32, 0, 128);
	}
	memset(x + 6, 0, 18);
	memset(x + 28, 0, 4); /* MXCSR_MASK */
	if (!(bv & 2))
		memset(x + 160, 0, 256);
	for (unsigned n = 2; n < CPUID_XSAVE_COMPONENTS; n++)
		if (!(bv >> n & 1) && run.model.xsave[n].size)
			memset(x + run.model.xsave[n].offset, 0, run.model.xsave[n].size);
	for (unsigned k = 0; k < 8; k++)
		memset(x + 32 + 16 * k + 10, 0, 6);
}

/*
 * Registers 8 to 15, which 32-bit code cannot see: translated VZEROALL and VZEROUPPER clear them, too.
 */
static void forget_high(uint8_t *x)
{
	const struct cpuid_model *m = &run.model;

	memset(x + 160 + 8 * 16, 0, 8 * 16);
	memset(x + m->xsave[2].offset + 8 * 16, 0, m->xsave[2].size / 2);
	memset(x + m->xsave[6].offset + 8 * 32, 0, m->xsave[6].size / 2);
}

static bool xstate_differs(bool say, uint8_t *n, uint8_t *g)
{
	bool bad = false;
	char what[64];

	normalize(n);
	normalize(g);
	if (gen.bits == 32) {
		forget_high(n);
		forget_high(g);
	}
	for (unsigned at = 0; at < 416; at += 4) {
		uint32_t a, b;

		memcpy(&a, n + at, 4);
		memcpy(&b, g + at, 4);
		snprintf(what, sizeof(what),
			 at < 32    ? "FXSAVE+%u"
			 : at < 160 ? "st, FXSAVE+%u"
				    : "xmm%u+%u",
			 at < 160 ? at : (at - 160) / 16, at & 15);
		bad |= differ(say, what, a, b);
	}
	for (unsigned c = 2; c < CPUID_XSAVE_COMPONENTS; c++)
		for (unsigned at = 0; at < run.model.xsave[c].size && (run.xcr0 >> c & 1);
		     at += 8) {
			uint64_t a, b;

			memcpy(&a, n + run.model.xsave[c].offset + at, 8);
			memcpy(&b, g + run.model.xsave[c].offset + at, 8);
			snprintf(what, sizeof(what), "XSAVE component %u, +%u", c, at);
			bad |= differ(say, what, a, b);
		}
	return bad;
}

static bool memory_differs(bool say)
{
	unsigned shown = 0;

	if (native_out.vector ==
	    X86_DB) { /* perhaps between FNSAVE and what clears the x87 pointers in its image */
		memset(native_out.memory + X87_SAVES, 0, X87_SAVES_BYTES);
		memset(guest_out.memory + X87_SAVES, 0, X87_SAVES_BYTES);
	}
	if (!memcmp(native_out.memory, guest_out.memory, MEMORY_BYTES))
		return false;
	for (unsigned at = 0; at < MEMORY_BYTES && shown < 8; at += 8) {
		char what[64];
		uint64_t a, b;

		memcpy(&a, native_out.memory + at, 8);
		memcpy(&b, guest_out.memory + at, 8);
		snprintf(what, sizeof(what), "memory at %#llx",
			 (unsigned long long)(at < DATA_PAGES * 4096
						      ? data_page(at / 4096) + at % 4096
						      : STACK_AT + at - DATA_PAGES * 4096));
		shown += differ(say, what, a, b);
	}
	return true;
}

static bool insn_at(uint64_t rip, struct insn *in)
{
	uint64_t at = rip - gen.at;

	return at < gen.len && decode(gen.code + at, sizeof(gen.code) - at, gen.bits, &gen.features,
				      in) == DECODE_OK;
}

/*
 * Instructions of many accesses: which fault and which byte comes first differs from CPU to CPU; and whether MASKMOVQ
 * and its like look at an address under a mask of zeros, FXRSTOR at its alignment by #AC.
 */
static bool own_order(uint64_t rip)
{
	struct insn in;

	return insn_at(rip, &in) &&
	       (in.op == OP_MASKMOV || in.op == OP_FXRSTOR || in.op == OP_FXSAVE ||
		in.op == OP_FRSTOR || in.op == OP_FLDENV || in.op == OP_FNSAVE ||
		in.op == OP_FNSTENV);
}

/* Which byte of the first page that faults is told when elements are masked out differs, too. */
static bool is_masked(uint64_t rip)
{
	struct insn in;

	return insn_at(rip, &in) && in.mem_masked;
}

/*
 * Stores that can raise numeric exceptions: when these are noticed, against a memory fault, is the CPU's own affair
 * (x87: an unmasked one means no store; VCVTPS2PH: MXCSR's flags are set before a fault).
 */
static bool numeric_store(uint64_t rip)
{
	struct insn in;

	return insn_at(rip, &in) && in.has_mem && in.may_trap && (in.mem_access & ACCESS_WRITE);
}

/*
 * FS and GS are the host's own in the native run. No piece uses them, but a jump through random bits can lead into the
 * middle of an instruction that reads so.
 */
static bool uses_host_segment(uint64_t rip)
{
	struct insn in;

	return insn_at(rip, &in) && in.has_mem && (in.seg == X86_FS || in.seg == X86_GS);
}

/* A fault of a repeated comparison: are flags those before its first step, or before the last? "May not be restored." */
static bool repeated_comparison(uint64_t rip)
{
	struct insn in;

	return insn_at(rip, &in) && (in.rep || in.repne) && (in.op == OP_CMPS || in.op == OP_SCAS);
}

/* The whole outcome of both runs. */
static bool outcomes_differ(bool say, const struct mode *mode, uint64_t end)
{
	struct cpu_state *n = &native_out.cpu, *g = &guest_out.cpu;
	uint64_t flags = mode->exact || n->rip == end ? ~0ull : ~(uint64_t)X86_ARITH_FLAGS,
		 error = ~0ull;
	bool bad = false;

	/*
	 * Intel faults at a near return, call or jump to a non-canonical address, AMD at the address; the translator
	 * always does the former.
	 */
	if (run.model.amd && native_out.vector == X86_GP && guest_out.vector == X86_GP && !guest_out.failure[0] &&
	    (int64_t)(n->rip << 16) >> 16 != (int64_t)n->rip)
		return false;
	if (guest_out.failure[0]) {
		if (say)
			diag("  %s", guest_out.failure);
		return true;
	}
	if ((own_order(n->rip) && (guest_out.vector != native_out.vector || g->rip != n->rip)) ||
	    numeric_store(g->rip) || uses_host_segment(g->rip))
		return false;
	bad |= differ(say, "exception", native_out.vector, guest_out.vector);
	bad |= differ(say, "rip", n->rip, g->rip);
	if (native_out.vector == X86_PF_VEC) {
		if (!own_order(n->rip) &&
		    (native_out.cr2 >> 12 != guest_out.cr2 >> 12 || !is_masked(n->rip)))
			bad |= differ(say, "CR2", native_out.cr2, guest_out.cr2);
		if (native_out.cr2 >> 47) /* Linux does not tell what is mapped there */
			error &= ~(uint64_t)X86_PFEC_P;
	}
	if (own_order(n->rip))
		error = 0;
	if (mode->interrupts && repeated_comparison(n->rip))
		flags &= ~(uint64_t)X86_ARITH_FLAGS;
	bad |= differ(say, "error code", native_out.error & error, guest_out.error & error);
	for (unsigned k = 0; k < 16; k++)
		bad |= differ(say, gpr_names[k], n->gpr[k], g->gpr[k]);
	bad |= differ(say, "rflags", n->rflags & flags, g->rflags & flags);
	bad |= memory_differs(say);
	if (gen.smc && oracle_code_differs(&run, gen.at, gen.len)) {
		bad = true;
		if (say)
			diag("  the code has been changed otherwise");
	}
	return bad | xstate_differs(say, n->xstate, g->xstate);
}

/* ---- one piece ---- */

static uint64_t end_of(const struct gen *g)
{
	return g->at + g->starts[g->insns - 1];
}

/* Runs from the states in @states (a set); true if the outcomes differ for one, whose number is *which. */
static bool piece_fails(const struct mode *mode, unsigned states, unsigned *which, bool count)
{
	if (!gen.smc)
		oracle_put_code(&run, gen.at, gen.code, gen.len);
	for (unsigned k = 0; k < STATES; k++) {
		if (!(states >> k & 1))
			continue;
		if (gen.smc)
			oracle_put_code(&run, gen.at, gen.code, gen.len);
		oracle_put_memory(&run, start_memory[k]);
		run_native(&run, &start[k], &native_out);
		run_guest(&run, &start[k], &guest_out);
		if (count) {
			unsigned n = 0;

			while (n < gen.insns - 1 && gen.at + gen.starts[n] < native_out.cpu.rip)
				n++;
			executed += n;
			if (native_out.cpu.rip != end_of(&gen))
				faults[native_out.vector & 31]++;
		}
		if (outcomes_differ(false, mode, end_of(&gen))) {
			*which = k;
			return true;
		}
	}
	return false;
}

static void show_piece(const struct gen *g)
{
	ZydisFormatter f;

	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	for (unsigned k = 0; k < g->insns; k++) {
		unsigned len = (k + 1 < g->insns ? g->starts[k + 1] : g->len) - g->starts[k];
		const uint8_t *p = g->code + g->starts[k];
		ZydisDecodedInstruction zi;
		ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
		char text[200] = "?", hex[64] = "";

		if (p[0] == 0x90)
			continue;
		if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->zydis, p, len, &zi, ops)))
			ZydisFormatterFormatInstruction(&f, &zi, ops, zi.operand_count_visible,
							text, sizeof(text), g->at + g->starts[k],
							NULL);
		for (unsigned n = 0; n < len && n < 16; n++)
			snprintf(hex + 2 * n, 3, "%02x", p[n]);
		diag("  %llx  %-32s %s", (unsigned long long)(g->at + g->starts[k]), hex, text);
	}
}

/* Takes out what can be taken out. */
static void make_smaller(const struct mode *mode, unsigned states)
{
	unsigned which;

	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned k = gen.insns - 1; k-- > 0;) {
			unsigned len = gen.starts[k + 1] - gen.starts[k];
			uint8_t kept[1024];

			if (gen.fixed[k] || len > sizeof(kept) || gen.code[gen.starts[k]] == 0x90)
				continue;
			memcpy(kept, gen.code + gen.starts[k], len);
			memset(gen.code + gen.starts[k], 0x90, len);
			if (!piece_fails(mode, states, &which, false))
				memcpy(gen.code + gen.starts[k], kept, len);
		}
}

static void report(const struct mode *mode, uint64_t seed, unsigned which)
{
	unsigned states = (2u << which) - 1;

	ok(false, "seed %llu, mode \"%s\"", (unsigned long long)seed, mode->name);
	outcomes_differ(true, mode, end_of(&gen));
	if (piece_fails(mode, 1u << which, &which, false))
		states = 1u << which;
	if (!piece_fails(mode, states, &which, false)) {
		diag("it does not fail again");
		return;
	}
	outcomes_differ(true, mode, end_of(&gen));
	diag("the smallest piece that fails:");
	make_smaller(mode, states);
	piece_fails(mode, states, &which, false);
	show_piece(&gen);
	for (unsigned r = 0; r < 16; r++)
		diag("  starts with %s = %#llx", gpr_names[r],
		     (unsigned long long)start[which].gpr[r]);
	diag("  starts with rflags = %#llx, MXCSR %#x, FCW %#x",
	     (unsigned long long)start[which].rflags, *(uint32_t *)(start[which].xstate + 24),
	     *(uint16_t *)start[which].xstate);
	diag("  ends with exception %llu at %#llx, error %#llx, CR2 %#llx",
	     (unsigned long long)native_out.vector, (unsigned long long)native_out.cpu.rip,
	     (unsigned long long)native_out.error, (unsigned long long)native_out.cr2);
	outcomes_differ(true, mode, end_of(&gen));
}

static void one_piece(const struct mode *mode, uint64_t seed)
{
	static char what[80];
	unsigned which;

	snprintf(what, sizeof(what), "-s %llu -n 1 -m \"%s\"", (unsigned long long)seed,
		 mode->name);
	native.what = what;
	gen.seed = seed;
	piece_make(&gen, 6 + below(&gen, 36));
	for (unsigned k = 0; k < STATES; k++)
		make_start(&gen, &run, pool, &start[k], start_memory[k]);
	if (verbose)
		show_piece(&gen);
	if (piece_fails(mode, (1u << STATES) - 1, &which, true)) {
		failures++;
		report(mode, seed, which);
	}
}

/*
 * May an interrupt strike there? Where an instruction of the piece begins; what the piece has made of itself, and where
 * it goes by a jump through random bits, is not known.
 */
static bool is_start(uint64_t rip)
{
	unsigned at = (unsigned)(rip - gen.at);

	/* A piece that a jump has led into the middle of an instruction may have ended there, as natively. */
	if (gen.smc || rip < gen.at || at >= gen.len || gen.code[at] == 0x90 || rip == native_out.cpu.rip)
		return true;
	for (unsigned k = 0; k < gen.insns; k++)
		if (gen.starts[k] == at)
			return true;
	return false;
}

/* ---- main ---- */

/* The last blocks that were made, against what the translator may emit. */
static void verify_some(const struct mode *mode)
{
	static struct verify v;
	const struct bt_engine *e = (const struct bt_engine *)run.g.engine;
	unsigned n = 0, bad = 0;

	for (const struct block *b = block_at(e, e->newest); b && n < 300; b = block_at(e, b->older), n++)
		if (!verify_block(&v, e, b) && !bad++)
			diag("%#llx, mode %#x: %s", (unsigned long long)block_gpa(b), b->mode, v.what);
	ok(!bad, "mode \"%s\": %u of %u blocks do not hold against the verifier", mode->name, bad, n);
}

static void run_mode(const struct mode *mode, uint64_t seed, uint64_t insns)
{
	gen = gens[mode->bits == 32];
	uint64_t before = failures, first = executed, pieces = 0;

	run.by_timer = mode->interrupts == TIMER;
	run.every = run.by_timer ? 0 : mode->interrupts;
	run.is_start = is_start;
	run.taken = 0;
	oracle_open(&run, mode->options[0] ? mode->options : NULL);
	while (executed - first < insns && failures < FAILURES_MAX) {
		alarm(20);
		one_piece(mode, seed++);
		pieces++;
	}
	alarm(0);
	verify_some(mode);
	oracle_close(&run);
	if (mode->interrupts)
		ok(run.taken > pieces / 8, "%llu interrupts", (unsigned long long)run.taken);
	ok(failures == before, "mode \"%s\": %llu pieces, %llu instructions", mode->name,
	   (unsigned long long)pieces, (unsigned long long)(executed - first));
}

int main(int argc, char **argv)
{
	uint64_t insns = 2000000, seed = (uint64_t)time(NULL) << 24;
	const char *only = NULL, *text = getenv("MARU_ORACLE_INSNS");
	int c;

#ifdef TAP_SANITIZED
	skip_all("native code of unknown effect shares no address space with a sanitizer");
#endif
	if (text)
		insns = strtoull(text, NULL, 0);
	text = getenv("MARU_ORACLE_SEED");
	if (text)
		seed = strtoull(text, NULL, 0);
	while ((c = getopt(argc, argv, "s:n:m:v")) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'n')
			insns = strtoull(optarg, NULL, 0);
		else if (c == 'm')
			only = optarg;
		else if (c == 'v')
			verbose = true;
		else
			return 2;
	}
	diag("seed %llu", (unsigned long long)seed);
	setvbuf(stdout, NULL, _IOLBF, 0);
	cpuid_model_init(&run.model, 1);
	run.xcr0 = run.model.xcr0;
	pool = make_pool(1);
	for (unsigned k = 0; k < 2; k++) {
		gens[k].bits = k ? 32 : 64;
		cpuid_decode_features(&run.model, &gens[k].features);
		forms_make(&gens[k]);
		diag("%u bits: forms %u integer, %u rare, %u x87, %u SSE, %u VEX, %u EVEX",
		     gens[k].bits, gens[k].count[0], gens[k].count[1], gens[k].count[2],
		     gens[k].count[3], gens[k].count[4], gens[k].count[5]);
	}
	native_map(&run);
	for (unsigned k = 0; k < sizeof(modes) / sizeof(modes[0]); k++) {
		if (only && strcmp(only, modes[k].name))
			continue;
		run_mode(&modes[k], seed, only ? insns : insns * modes[k].share / 100);
		seed += 1ull << 20;
	}
	diag("executed %llu instructions; faults: #DE %llu #DB %llu #BP %llu #UD %llu #GP %llu #SS "
	     "%llu #PF %llu #MF %llu "
	     "#AC %llu #XM %llu",
	     (unsigned long long)executed, (unsigned long long)faults[0],
	     (unsigned long long)faults[1], (unsigned long long)faults[3],
	     (unsigned long long)faults[6], (unsigned long long)faults[13],
	     (unsigned long long)faults[12], (unsigned long long)faults[14],
	     (unsigned long long)faults[16], (unsigned long long)faults[17],
	     (unsigned long long)faults[19]);
	return done_testing();
}
