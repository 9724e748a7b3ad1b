/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions: MOVS CMPS STOS LODS SCAS INS OUTS, with REP. SDM vol. 2 under their names
 * and "REP".
 *
 * Elements that lie within one page of RAM on both sides are handled in one go by the host's own
 * string instruction of the same element size and direction, so that overlapping operands come out
 * as on hardware, element by element. All else (MMIO, page crossings, wrap-around, segment limits,
 * faults, alignment checks, single-step) goes through one element at a time. Registers show the
 * progress after each step; between two steps the instruction can be left for an interrupt and is
 * then started again at v->rip.
 */
#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"

struct string {
	unsigned size; /* of an element */
	unsigned addrsize;
	unsigned source; /* segment */
	bool down;
};

static bool repeats(const struct insn *i)
{
	return i->rep || i->repne;
}

static void string_init(struct string *s, struct bt_vcpu *v, const struct insn *i)
{
	s->size = i->opcode & 1 ? i->opsize : 1;
	s->addrsize = i->addrsize;
	s->source = i->seg % X86_SEG_COUNT;
	s->down = v->sysflags & X86_DF;
	v->in_rep = false;
	/* CPUs clear the upper half even if the count is 0 or the first element faults; but not without the right to a port. */
	if (repeats(i) && i->addrsize == 4 && i->op != OP_INS && i->op != OP_OUTS)
		BT_REG(v, X86_RCX) = (uint32_t)BT_REG(v, X86_RCX);
}

/* Elements to go; one without REP. */
static uint64_t get_count(const struct bt_vcpu *v, const struct insn *i)
{
	return repeats(i) ? bt_truncate(BT_REG(v, X86_RCX), i->addrsize) : 1;
}

static void set_address_register(struct bt_vcpu *v, unsigned reg, unsigned addrsize, uint64_t value)
{
	bt_set_reg(v, reg, addrsize, true, value);
}

static uint64_t offset_of(const struct bt_vcpu *v, const struct string *s, unsigned reg)
{
	return bt_truncate(BT_REG(v, reg), s->addrsize);
}

static void advance(struct bt_vcpu *v, const struct string *s, unsigned reg, uint64_t elements)
{
	uint64_t bytes = elements * s->size;

	set_address_register(v, reg, s->addrsize, BT_REG(v, reg) + (s->down ? -bytes : bytes));
}

static void count_down(struct bt_vcpu *v, const struct insn *i, uint64_t elements)
{
	if (repeats(i))
		set_address_register(v, X86_RCX, i->addrsize, BT_REG(v, X86_RCX) - elements);
}

/* After a step: leave for an interrupt or a single-step trap? The instruction is then not done. */
static bool leaves(struct bt_vcpu *v, const struct insn *i)
{
	if (!get_count(v, i))
		return false;
	if (!(v->mode & MODE_STEP) && !atomic_load_explicit(&v->poll, memory_order_relaxed))
		return false;
	v->in_rep = true;
	v->next_rip = v->rip;
	return true;
}

/*
 * How many of @count elements from @offset on lie in one page of RAM, and a host pointer to the
 * first of them (for descending strings that is the one with the highest address). NULL: go by
 * element.
 */
static uint8_t *span(struct bt_vcpu *v, const struct string *s, unsigned seg, uint64_t offset,
		     unsigned access, uint64_t *count)
{
	uint64_t lin, low = offset, n = *count, most;
	enum bt_result res;
	unsigned len, bytes;
	uint8_t *p;

	if (v->mode & (MODE_ALIGN | MODE_STEP))
		return NULL;
	if (bt_linear(v, seg, offset, s->size, access, &lin) == BT_FAULT ||
	    (lin & 0xfff) + s->size > 0x1000)
		return NULL;
	most = s->down ? (lin & 0xfff) / s->size + 1 : (0x1000 - (lin & 0xfff)) / s->size;
	n = n < most ? n : most;
	if (s->down) {
		if (offset / s->size < n - 1)
			return NULL;
		low = offset - (n - 1) * s->size;
		lin -= (n - 1) * s->size;
	} else if (offset + n * s->size - 1 > bt_truncate(~0ull, s->addrsize)) {
		return NULL;
	}
	bytes = (unsigned)(n * s->size);
	if (n > 1 && bt_linear(v, seg, low, bytes, access, &lin) == BT_FAULT)
		return NULL;
	len = bytes;
	p = bt_ram(v, lin, &len, access, &res);
	if (!p || len < bytes)
		return NULL;
	*count = n;
	return s->down ? p + (n - 1) * s->size : p;
}

/* One element by the general way. */
static enum bt_result load_element(struct bt_vcpu *v, const struct string *s, unsigned seg,
				   unsigned reg, uint64_t *value)
{
	uint64_t lin;

	BT_TRY(bt_linear(v, seg, offset_of(v, s, reg), s->size, BT_READ, &lin));
	BT_TRY(bt_check_alignment(v, lin, s->size, BT_READ));
	return bt_load(v, lin, s->size, BT_READ, value);
}

static enum bt_result store_element(struct bt_vcpu *v, const struct string *s, uint64_t value)
{
	uint64_t lin;

	BT_TRY(bt_linear(v, X86_ES, offset_of(v, s, X86_RDI), s->size, BT_WRITE, &lin));
	BT_TRY(bt_check_alignment(v, lin, s->size, BT_WRITE));
	return bt_store(v, lin, s->size, BT_WRITE, value);
}

/* The host's instruction for the element size, in the direction of DF. */
#define BY_SIZE(size, down, insn, ...)                                                      \
	do {                                                                                \
		if (down) {                                                                 \
			switch (size) {                                                     \
			case 1: __asm__ volatile("std; " insn "b; cld" __VA_ARGS__); break; \
			case 2: __asm__ volatile("std; " insn "w; cld" __VA_ARGS__); break; \
			case 4: __asm__ volatile("std; " insn "l; cld" __VA_ARGS__); break; \
			default: __asm__ volatile("std; " insn "q; cld" __VA_ARGS__);       \
			}                                                                   \
		} else {                                                                    \
			switch (size) {                                                     \
			case 1: __asm__ volatile(insn "b" __VA_ARGS__); break;              \
			case 2: __asm__ volatile(insn "w" __VA_ARGS__); break;              \
			case 4: __asm__ volatile(insn "l" __VA_ARGS__); break;              \
			default: __asm__ volatile(insn "q" __VA_ARGS__);                    \
			}                                                                   \
		}                                                                           \
	} while (0)

/* Which registers move on after an element. */
enum { MOVES_RSI = 1, MOVES_RDI = 2, MOVES_BOTH = 3 };

/*
 * What all have in common. @many: elements handled in one go, 0 if there is no such way; @one: an element by the
 * general way; @ends: does it end the repetition? Each use gets a copy of its own, without calls by pointer.
 */
static inline __attribute__((always_inline)) enum bt_result
repeat(struct bt_vcpu *v, const struct insn *i, unsigned moves,
       uint64_t (*many)(struct bt_vcpu *v, const struct insn *i, const struct string *s, uint64_t count),
       enum bt_result (*one)(struct bt_vcpu *v, const struct string *s),
       bool (*ends)(const struct bt_vcpu *v, const struct insn *i))
{
	uint16_t flags = v->aflags;
	uint64_t count, n;
	struct string s;

	string_init(&s, v, i);
	while ((count = get_count(v, i)) != 0) {
		n = many(v, i, &s, count);
		if (!n) {
			if (one(v, &s) == BT_FAULT) {
				/* Flags as they were before the instruction (SDM vol. 2, REP). */
				v->aflags = flags;
				return BT_FAULT;
			}
			n = 1;
		}
		if (moves & MOVES_RSI)
			advance(v, &s, X86_RSI, n);
		if (moves & MOVES_RDI)
			advance(v, &s, X86_RDI, n);
		count_down(v, i, n);
		if (!repeats(i) || ends(v, i))
			break;
		if (leaves(v, i))
			return BT_EXIT;
	}
	return BT_NEXT;
}

static bool never_ends(const struct bt_vcpu *v, const struct insn *i)
{
	return false;
}

/* MOVS ----------------------------------------------------------------------------------------- */

static uint64_t move_many(struct bt_vcpu *v, const struct insn *i, const struct string *s, uint64_t count)
{
	uint8_t *from, *to;
	uint64_t n = count, left;

	from = span(v, s, s->source, offset_of(v, s, X86_RSI), BT_READ, &n);
	if (!from)
		return 0;
	to = span(v, s, X86_ES, offset_of(v, s, X86_RDI), BT_WRITE, &n);
	if (!to)
		return 0;
	left = n;
	BY_SIZE(s->size, s->down, "rep movs", : "+S"(from), "+D"(to), "+c"(left) : : "memory");
	return n;
}

static enum bt_result move_one(struct bt_vcpu *v, const struct string *s)
{
	uint64_t value;

	BT_TRY(load_element(v, s, s->source, X86_RSI, &value));
	return store_element(v, s, value);
}

enum bt_result bt_op_movs(struct bt_vcpu *v, const struct insn *i)
{
	return repeat(v, i, MOVES_BOTH, move_many, move_one, never_ends);
}

/* STOS ----------------------------------------------------------------------------------------- */

static uint64_t store_many(struct bt_vcpu *v, const struct insn *i, const struct string *s, uint64_t count)
{
	uint64_t n = count, left;
	uint8_t *to = span(v, s, X86_ES, offset_of(v, s, X86_RDI), BT_WRITE, &n);

	if (!to)
		return 0;
	left = n;
	BY_SIZE(s->size, s->down, "rep stos",
		: "+D"(to), "+c"(left)
		: "a"(BT_REG(v, X86_RAX))
		: "memory");
	return n;
}

static enum bt_result store_one(struct bt_vcpu *v, const struct string *s)
{
	return store_element(v, s, bt_truncate(BT_REG(v, X86_RAX), s->size));
}

enum bt_result bt_op_stos(struct bt_vcpu *v, const struct insn *i)
{
	return repeat(v, i, MOVES_RDI, store_many, store_one, never_ends);
}

/* LODS ----------------------------------------------------------------------------------------- */

/* Nobody repeats it to get the last element only. */
static uint64_t load_many(struct bt_vcpu *v, const struct insn *i, const struct string *s, uint64_t count)
{
	return 0;
}

static enum bt_result load_one(struct bt_vcpu *v, const struct string *s)
{
	uint64_t value;

	BT_TRY(load_element(v, s, s->source, X86_RSI, &value));
	bt_set_reg(v, X86_RAX, s->size, true, value);
	return BT_NEXT;
}

enum bt_result bt_op_lods(struct bt_vcpu *v, const struct insn *i)
{
	return repeat(v, i, MOVES_RSI, load_many, load_one, never_ends);
}

/* CMPS, SCAS ----------------------------------------------------------------------------------- */

/* The flags of a - b in the form of v->aflags. */
static uint16_t compare(uint64_t a, uint64_t b, unsigned size)
{
	uint16_t flags;

	switch (size) {
	case 1:
		__asm__("cmpb %b2, %b1; lahf; seto %%al" : "=&a"(flags) : "r"(a), "r"(b) : "cc");
		break;
	case 2:
		__asm__("cmpw %w2, %w1; lahf; seto %%al" : "=&a"(flags) : "r"(a), "r"(b) : "cc");
		break;
	case 4:
		__asm__("cmpl %k2, %k1; lahf; seto %%al" : "=&a"(flags) : "r"(a), "r"(b) : "cc");
		break;
	default: __asm__("cmpq %2, %1; lahf; seto %%al" : "=&a"(flags) : "r"(a), "r"(b) : "cc");
	}
	return flags;
}

/* Does the comparison just made end the repetition? */
static bool compare_ends(const struct bt_vcpu *v, const struct insn *i)
{
	bool equal = v->aflags & 0x4000;

	return i->repne ? equal : !equal;
}

/* clang-format off */
/* One case of a switch over element size and direction. */
#define SCAN_CASE(key, insn, before, after, operands...)                       \
	case key:                                                              \
		__asm__ volatile(before insn "; lahf; seto %%al" after operands);  \
		break;
#define SCAN_CASES(insn, operands...)                                          \
	SCAN_CASE(0x01, insn "b", "", "", operands)                            \
	SCAN_CASE(0x02, insn "w", "", "", operands)                            \
	SCAN_CASE(0x04, insn "l", "", "", operands)                            \
	SCAN_CASE(0x08, insn "q", "", "", operands)                            \
	SCAN_CASE(0x11, insn "b", "std; ", "; cld", operands)                  \
	SCAN_CASE(0x12, insn "w", "std; ", "; cld", operands)                  \
	SCAN_CASE(0x14, insn "l", "std; ", "; cld", operands)                  \
	SCAN_CASE(0x18, insn "q", "std; ", "; cld", operands)
#define CMPS_OPERANDS : "+S"(a), "+D"(b), "+c"(left), "+a"(flags) : : "memory", "cc"
#define SCAS_OPERANDS : "+D"(p), "+c"(left), "+a"(flags) : : "memory", "cc"
/* clang-format on */

/* Elements compared, up to the one that ends it; flags are those of the last. */
static uint64_t compare_many(struct bt_vcpu *v, const struct insn *i, const struct string *s, uint64_t count)
{
	uint64_t n = count, left;
	uint8_t *a, *b;
	uint64_t flags = 0;

	if (!repeats(i))
		return 0;
	a = span(v, s, s->source, offset_of(v, s, X86_RSI), BT_READ, &n);
	if (!a)
		return 0;
	b = span(v, s, X86_ES, offset_of(v, s, X86_RDI), BT_READ, &n);
	if (!b)
		return 0;
	left = n;
	if (i->repne) {
		switch (s->size | s->down << 4) {
			SCAN_CASES("repne cmps", CMPS_OPERANDS)
		}
	} else {
		switch (s->size | s->down << 4) {
			SCAN_CASES("repe cmps", CMPS_OPERANDS)
		}
	}
	v->aflags = (uint16_t)flags;
	return n - left;
}

static enum bt_result compare_one(struct bt_vcpu *v, const struct string *s)
{
	uint64_t a, b;

	/* In the order in which Intel's CPUs do it. */
	BT_TRY(load_element(v, s, X86_ES, X86_RDI, &b));
	BT_TRY(load_element(v, s, s->source, X86_RSI, &a));
	v->aflags = compare(a, b, s->size);
	return BT_NEXT;
}

enum bt_result bt_op_cmps(struct bt_vcpu *v, const struct insn *i)
{
	return repeat(v, i, MOVES_BOTH, compare_many, compare_one, compare_ends);
}

static uint64_t scan_many(struct bt_vcpu *v, const struct insn *i, const struct string *s, uint64_t count)
{
	uint64_t n = count, left, flags = BT_REG(v, X86_RAX);
	uint8_t *p = repeats(i) ? span(v, s, X86_ES, offset_of(v, s, X86_RDI), BT_READ, &n) : NULL;

	if (!p)
		return 0;
	left = n;
	if (i->repne) {
		switch (s->size | s->down << 4) {
			SCAN_CASES("repne scas", SCAS_OPERANDS)
		}
	} else {
		switch (s->size | s->down << 4) {
			SCAN_CASES("repe scas", SCAS_OPERANDS)
		}
	}
	v->aflags = (uint16_t)flags;
	return n - left;
}

static enum bt_result scan_one(struct bt_vcpu *v, const struct string *s)
{
	uint64_t value;

	BT_TRY(load_element(v, s, X86_ES, X86_RDI, &value));
	v->aflags = compare(BT_REG(v, X86_RAX), value, s->size);
	return BT_NEXT;
}

enum bt_result bt_op_scas(struct bt_vcpu *v, const struct insn *i)
{
	return repeat(v, i, MOVES_RDI, scan_many, scan_one, compare_ends);
}

/* INS, OUTS ------------------------------------------------------------------------------------ */

/* The port is checked also with a count of 0, and before the upper half of RCX is cleared. */
static enum bt_result port_string_init(struct string *s, struct bt_vcpu *v, const struct insn *i, uint16_t port)
{
	unsigned size = i->opcode & 1 ? MIN(i->opsize, 4u) : 1;

	BT_TRY(bt_check_port(v, port, size));
	string_init(s, v, i);
	s->size = size;
	return BT_NEXT;
}

/* The destination is checked before the port is read: reading may have an effect. */
enum bt_result bt_op_ins(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t port = (uint16_t)BT_REG(v, X86_RDX);
	struct string s;
	uint64_t lin;

	BT_TRY(port_string_init(&s, v, i, port));
	while (get_count(v, i)) {
		BT_TRY(bt_linear(v, X86_ES, offset_of(v, &s, X86_RDI), s.size, BT_WRITE, &lin));
		BT_TRY(bt_probe(v, lin, s.size, BT_WRITE));
		BT_TRY(bt_store(v, lin, s.size, BT_WRITE, bt_port_read(v, port, s.size)));
		advance(v, &s, X86_RDI, 1);
		count_down(v, i, 1);
		if (!repeats(i))
			break;
		if (leaves(v, i))
			return BT_EXIT;
	}
	return BT_NEXT;
}

enum bt_result bt_op_outs(struct bt_vcpu *v, const struct insn *i)
{
	uint16_t port = (uint16_t)BT_REG(v, X86_RDX);
	struct string s;
	uint64_t value;

	BT_TRY(port_string_init(&s, v, i, port));
	while (get_count(v, i)) {
		BT_TRY(load_element(v, &s, s.source, X86_RSI, &value));
		bt_port_write(v, port, value, s.size);
		advance(v, &s, X86_RSI, 1);
		count_down(v, i, 1);
		if (!repeats(i))
			break;
		if (leaves(v, i))
			return BT_EXIT;
	}
	return BT_NEXT;
}
