/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that do not jump: copies with renamed registers, the few that are rewritten, and calls of C.
 *
 * Copies. Each encoding field that names a general register is bound to a host register: the guest
 * register's own, or a temporary loaded from its slot (and stored back when written). T0 is the pointer, or part
 * of it, when there is a memory operand. When the temporaries do not suffice a register that the instruction does not
 * use is borrowed: its guest value waits in its slot. A high byte register (AH CH DH BH) cannot be encoded
 * beside a REX prefix, so with one of these all other registers are brought into legacy registers.
 */
#include "cpu/bt/translate.h"

void tr_load_guest(struct tr *t, uint8_t host, unsigned guest)
{
	uint8_t h = emit_host_reg(guest);

	if (host == T0)
		t->t0_group = GROUP_NONE;
	if (h == H_NONE)
		emit_load_slot(&t->e, host, REG_SLOT(guest));
	else if (h != host)
		emit_mov_reg(&t->e, true, host, h);
}

void tr_store_guest(struct tr *t, unsigned guest, uint8_t host)
{
	uint8_t h = emit_host_reg(guest);

	if (h == H_NONE)
		emit_store_slot(&t->e, REG_SLOT(guest), host);
	else if (h != host)
		emit_mov_reg(&t->e, true, h, host);
}

/* ---- what the temporaries hold ---- */

void tr_hold_nothing(struct tr *t)
{
	t->held.t0 = t->held.t1 = REG_NONE;
}

/* Forgets what was held before code that does not say what it leaves. */
static void settle_held(struct tr *t)
{
	if (t->held.at != emit_pos(&t->e))
		tr_hold_nothing(t);
}

/* @host has the value of @guest, which another temporary may have had; the other may still have something else. */
static void hold(struct tr *t, uint8_t host, unsigned guest)
{
	if (t->held.t0 == guest)
		t->held.t0 = REG_NONE;
	if (t->held.t1 == guest)
		t->held.t1 = REG_NONE;
	if (host == T0)
		t->held.t0 = (uint8_t)guest;
	else if (host == T1)
		t->held.t1 = (uint8_t)guest;
}

/* ---- copies ---- */

struct binding {
	uint8_t guest, host;
	uint8_t fields;	 /* enum insn_field bits that name it */
	bool high;	 /* AH CH DH BH: host is 4..7 as encoded */
	bool temporary;	 /* loaded before when read, stored after when written */
	bool read, written;
};

struct copy {
	const struct insn *i;
	struct binding bind[4];
	unsigned n;
	bool high;	   /* has a high byte register: no REX may be emitted */
	uint16_t used;	   /* host registers that are taken */
	uint8_t borrowed[3];
	unsigned nborrowed;
	struct host_mem mem;
};

static unsigned field_number(const struct insn *i, unsigned field)
{
	return field == FIELD_REG ? i->reg : field == FIELD_VVVV ? i->vvvv : i->rm;
}

static void collect_bindings(struct copy *c, bool mem)
{
	const struct insn *i = c->i;
	uint16_t implicit = i->implicit_read | i->implicit_written;

	for (unsigned g = 0; g < 16; g++)
		if ((implicit & 1u << g) && emit_host_reg(g) != H_NONE)
			c->used |= 1u << emit_host_reg(g);
	for (unsigned f = FIELD_REG; f <= FIELD_OPCODE; f <<= 1) {
		if (!(i->gpr_fields & f) || (f == FIELD_RM && mem))
			continue;
		unsigned g = field_number(i, f);
		bool high = (i->gpr_byte & f) && !i->rex && g >= 4 && g < 8 &&
			    i->encoding == ENC_LEGACY;
		bool written = i->gpr_written & f, read = (i->gpr_read & f) || (i->gpr_byte & f) || i->opsize < 4;
		struct binding *b = NULL;

		for (unsigned k = 0; k < c->n; k++)
			if (c->bind[k].guest == g && c->bind[k].high == high)
				b = &c->bind[k];
		if (!b) {
			b = &c->bind[c->n++];
			*b = (struct binding){.guest = (uint8_t)g, .high = high};
			b->host = high ? (uint8_t)g : emit_host_reg(g);
			if (high)
				c->used |= 1u << (g - 4);
			else if (b->host != H_NONE)
				c->used |= 1u << b->host;
		}
		b->fields |= f;
		b->written |= written;
		b->read |= read;
		c->high |= high;
	}
}

/* A host register that the instruction does not touch: T1, T0, or a borrowed one. */
static uint8_t take_register(struct tr *t, struct copy *c)
{
	static const uint8_t pool[] = {T1, T0, H_RDI, H_RSI, H_RBP, H_RBX, H_RDX, H_RCX};

	for (unsigned k = c->high ? 2 : 0; k < ARRAY_SIZE(pool); k++) {
		uint8_t h = pool[k];

		if (c->used & 1u << h)
			continue;
		c->used |= 1u << h;
		if (k >= 2) { /* its guest register has the same number */
			emit_store_slot(&t->e, REG_SLOT(h), h);
			c->borrowed[c->nborrowed++] = h;
		}
		return h;
	}
	t->failed = true;
	return T1;
}

/* To the temporary that has its value already. */
static void bind_held(struct tr *t, struct copy *c, struct binding *b)
{
	uint8_t h = b->guest == t->held.t1 ? T1 : b->guest == t->held.t0 ? T0 : H_NONE;

	if (b->host != H_NONE || h == H_NONE || c->used & 1u << h)
		return;
	c->used |= 1u << h;
	b->host = h;
	b->temporary = true;
}

static void bind_all(struct tr *t, struct copy *c, bool mem)
{
	if (mem && (c->high || c->i->encoding == ENC_EVEX))
		tr_pointer(t, &c->mem); /* neither REX nor a scaled displacement */
	if (mem) {
		c->used |= 1u << T0;
		c->used |= 1u << c->mem.base;
	}
	if (mem && c->high) {
		c->mem.base = take_register(t, c);
		emit_mov_reg(&t->e, true, c->mem.base, T0);
	}
	for (unsigned k = 0; k < c->n && !c->high; k++)
		bind_held(t, c, &c->bind[k]);
	for (unsigned k = 0; k < c->n; k++) {
		struct binding *b = &c->bind[k];

		if (b->high || (b->host != H_NONE && !(c->high && b->host >= 8)))
			continue;
		b->host = take_register(t, c);
		b->temporary = true;
		if (b->read)
			tr_load_guest(t, b->host, b->guest);
	}
}

static void unbind_all(struct tr *t, struct copy *c)
{
	for (unsigned k = 0; k < c->n; k++)
		if (c->bind[k].temporary && c->bind[k].written)
			tr_store_guest(t, c->bind[k].guest, c->bind[k].host);
	if (c->used & 1u << T0)
		t->held.t0 = REG_NONE;
	if (c->used & 1u << T1)
		t->held.t1 = REG_NONE;
	for (unsigned k = 0; k < c->n; k++)
		if (c->bind[k].temporary)
			hold(t, c->bind[k].host, c->bind[k].guest);
	for (unsigned k = 0; k < c->nborrowed; k++)
		emit_load_slot(&t->e, c->borrowed[k], REG_SLOT(c->borrowed[k]));
}

static unsigned bound(const struct copy *c, unsigned field, unsigned raw)
{
	for (unsigned k = 0; k < c->n; k++)
		if (c->bind[k].fields & field)
			return c->bind[k].host;
	return raw;
}

/* Flags that the instruction leaves as they were must be in the host's when it writes any. */
static void flags_before_copy(struct tr *t, const struct insn *i)
{
	uint16_t touched = i->flags_written | i->flags_maybe;
	uint16_t kept = touched ? t->live[t->cur + 1] & ~i->flags_written : 0;

	if (i->flags_read || kept)
		tr_flags_to_host(t);
}

static void flags_after_copy(struct tr *t, const struct insn *i)
{
	if (i->flags_written | i->flags_maybe)
		t->flags = FLAGS_HOST;
}

static void emit_copy(struct tr *t, const struct insn *i)
{
	bool mem = i->has_mem && i->mem_size;
	unsigned access = i->mem_access;
	struct copy c = {.i = i};
	struct insn form = *i;
	uint32_t at;

	settle_held(t);
	t->t1_spent = false;
	if (mem) {
		struct ea ea = tr_ea(i);

		/* A mask that suppresses no faults still keeps elements: in the bounce buffer they must be there. */
		if (i->encoding == ENC_EVEX && i->evex_aaa && !i->mem_masked && access == ACCESS_WRITE)
			access = ACCESS_RW;
		tr_operand(t, &ea, i->mem_size, access, &c.mem);
	}
	if (mem)
		t->held.t0 = REG_NONE;
	if (t->t1_spent)
		t->held.t1 = REG_NONE;
	at = emit_pos(&t->e);
	flags_before_copy(t, i);
	if (emit_pos(&t->e) != at)
		tr_hold_nothing(t);
	t->map[t->cur].flags = (uint8_t)t->flags;

	collect_bindings(&c, mem);
	bind_all(t, &c, mem);
	for (unsigned k = 0; k < c.nborrowed; k++)
		t->map[t->cur].borrowed |= (uint8_t)(1u << c.borrowed[k]);

	if (i->op == OP_INCDEC && !i->has_modrm) { /* 40–4F: FF /0, FF /1 */
		form.has_modrm = true;
		form.opcode = 0xff;
		form.reg = i->opcode >> 3 & 1;
		form.gpr_fields = 0;
	} else if (i->encoding == ENC_LEGACY && i->map == MAP_ONE && i->opcode == 0x82) {
		form.opcode = 0x80; /* another name of it, outside of 64-bit code */
	} else if (i->encoding == ENC_LEGACY && i->map == MAP_ONE && i->opcode == 0x63 && i->opsize == 2) {
		form.opcode = 0x8b; /* MOVSXD with 66 moves 16 bits; as for what it reads, hosts differ */
	} else if (i->op == OP_MOV && !i->has_modrm && mem) { /* A0–A3: 8A 8B 88 89 with rAX */
		static const uint8_t op[] = {0x8a, 0x8b, 0x88, 0x89};

		form.has_modrm = true;
		form.opcode = op[i->opcode & 3];
		form.reg = H_RAX;
		form.gpr_fields = 0;
		form.imm_size = 0;
	}
	emit_reencode(&t->e, &form, t->bytes[t->cur], bound(&c, FIELD_REG, form.reg),
		      bound(&c, FIELD_RM | FIELD_OPCODE, form.rm), bound(&c, FIELD_VVVV, form.vvvv),
		      mem ? &c.mem : NULL);
	unbind_all(t, &c);
	t->held.at = emit_pos(&t->e);
	t->t0_kept = mem || !(c.used & 1u << T0);
	flags_after_copy(t, i);
	if (mem)
		tr_access_done(t, i->mem_access);
}

/* ---- rewritten ---- */

/* mov of @size bytes between registers. */
static void mov_sized(struct tr *t, unsigned size, uint8_t op, uint8_t reg, uint8_t rm)
{
	if (size == 2)
		emit8(&t->e, 0x66);
	emit_op_reg(&t->e, size == 8, op, reg, rm);
}

/* The same between register and memory. */
static void mov_mem(struct tr *t, unsigned size, uint8_t op, uint8_t reg, const struct host_mem *m)
{
	if (size == 2)
		emit8(&t->e, 0x66);
	emit_op_mem(&t->e, size == 8, op, reg, m->base, m->index, 0, m->disp);
}

static void emit_lea_insn(struct tr *t, const struct insn *i)
{
	struct ea ea = tr_ea(i);
	uint8_t dst = emit_host_reg(i->reg), to = dst == H_NONE ? T0 : dst, base, index;

	if (i->opsize >= 4 && ea.addrsize >= 4 && ea.base != REG_PC && (ea.base != REG_NONE || ea.index != REG_NONE)) {
		settle_held(t);
		tr_address_regs(t, &ea, &base, &index);
		if (ea.base != REG_NONE && emit_host_reg(ea.base) == H_NONE)
			hold(t, base, ea.base);
		if (ea.index != REG_NONE && emit_host_reg(ea.index) == H_NONE)
			hold(t, index, ea.index);
		emit_lea(&t->e, i->opsize == 8 && ea.addrsize == 8, to, base, index, ea.scale, (int32_t)ea.disp);
		t->t0_kept = to != T0 && base != T0 && index != T0;
		if (dst == H_NONE) {
			emit_store_slot(&t->e, REG_SLOT(i->reg), T0);
			hold(t, T0, i->reg);
		}
		t->held.at = emit_pos(&t->e);
		return;
	}
	tr_offset(t, &ea);
	if (i->opsize == 4)
		emit_mov_reg(&t->e, false, T0, T0);
	if (i->opsize >= 4) {
		tr_store_guest(t, i->reg, T0);
		return;
	}
	tr_load_guest(t, T1, i->reg); /* 16 bits: the rest stays */
	mov_sized(t, 2, 0x89, T0, T1);
	tr_store_guest(t, i->reg, T1);
}

void tr_stack_addr(struct tr *t, struct ea *ea, int disp)
{
	unsigned size = t->code_bits == 64 ? 8 : t->mode & MODE_STACK32 ? 4 : 2;

	*ea = (struct ea){.seg = X86_SS, .base = X86_RSP, .index = REG_NONE,
			  .addrsize = (uint8_t)size, .disp = disp};
}

void tr_stack_move(struct tr *t, int delta)
{
	bool wide = t->code_bits == 64;

	if (!wide && !(t->mode & MODE_STACK32))
		emit8(&t->e, 0x66);
	emit_lea(&t->e, wide, HOST_GUEST_RSP, HOST_GUEST_RSP, H_NONE, 0, delta);
}

void tr_stack_settle(struct tr *t)
{
	bool held = t->held.at == emit_pos(&t->e);

	if (!t->rsp_ahead)
		return;
	emit_lea(&t->e, true, HOST_GUEST_RSP, HOST_GUEST_RSP, H_NONE, 0, t->rsp_ahead);
	t->rsp_ahead = 0;
	if (held)
		t->held.at = emit_pos(&t->e);
}

/* A push or pop of which the next one need not see more than rsp_ahead: nothing in it can fault but its access. */
static bool moves_later(const struct tr *t, const struct insn *i)
{
	return (i->op == OP_PUSH || i->op == OP_POP) && t->code_bits == 64 && i->opsize == 8 && !i->has_mem &&
	       !(i->gpr_fields && i->rm == X86_RSP);
}

/* Pushed or popped @delta bytes by an access at @m. */
static void stack_moved(struct tr *t, const struct insn *i, const struct host_mem *m, int delta)
{
	if (m->base == HOST_GUEST_RSP && moves_later(t, i))
		t->rsp_ahead += delta;
	else
		tr_stack_move(t, delta);
}

static void emit_push_insn(struct tr *t, const struct insn *i)
{
	unsigned size = i->opsize;
	bool from_mem = i->has_mem;
	struct host_mem m;
	struct ea ea;

	if (from_mem) {
		ea = tr_ea(i);
		tr_operand(t, &ea, size, ACCESS_READ, &m);
		mov_mem(t, size, 0x8b, T1, &m);
		emit_store_slot(&t->e, SLOT(scratch[0]), T1);
	}
	tr_stack_addr(t, &ea, -(int)size);
	tr_operand(t, &ea, size, ACCESS_WRITE, &m);
	t->t0_kept = true;
	if (from_mem) {
		emit_load_slot(&t->e, T1, SLOT(scratch[0]));
		mov_mem(t, size, 0x89, T1, &m);
	} else if (!i->gpr_fields) { /* PUSH imm */
		mov_mem(t, size, 0xc7, 0, &m);
		if (size == 2) {
			emit8(&t->e, (uint8_t)i->imm);
			emit8(&t->e, (uint8_t)(i->imm >> 8));
		} else {
			emit32(&t->e, (uint32_t)i->imm);
		}
	} else {
		unsigned g = i->rm;
		uint8_t h = emit_host_reg(g);

		if (h == H_NONE) {
			h = T1;
			tr_load_guest(t, T1, g);
		}
		mov_mem(t, size, 0x89, h, &m);
	}
	stack_moved(t, i, &m, -(int)size);
	tr_access_done(t, ACCESS_WRITE);
}

static void store_sized(struct tr *t, unsigned size, unsigned guest, uint8_t value)
{
	if (size != 2) {
		tr_store_guest(t, guest, value); /* 4 bytes: value is zero-extended */
		return;
	}
	uint8_t other = value == T0 ? T1 : T0;

	tr_load_guest(t, other, guest);
	mov_sized(t, 2, 0x89, value, other);
	tr_store_guest(t, guest, other);
}

static void emit_pop_insn(struct tr *t, const struct insn *i)
{
	unsigned size = i->opsize;
	struct host_mem m;
	struct ea ea;

	tr_stack_addr(t, &ea, 0);
	tr_operand(t, &ea, size, ACCESS_READ, &m);
	if (!i->has_mem) {
		uint8_t to = emit_host_reg(i->rm);

		if (to == H_NONE || size != 8 || i->rm == X86_RSP)
			to = T1;
		mov_mem(t, size, 0x8b, to, &m);
		t->t0_kept = size != 2;
		if (i->rm != X86_RSP) {
			stack_moved(t, i, &m, (int)size);
			if (to == T1)
				store_sized(t, size, i->rm, T1);
		} else if (size == 2) { /* POP SP: the increment first, then the value over it */
			tr_stack_move(t, 2);
			store_sized(t, 2, X86_RSP, T1);
		} else {
			tr_store_guest(t, X86_RSP, T1);
		}
		return;
	}
	/* POP m: an address with rSP is computed after the increment (SDM vol. 2, POP). */
	mov_mem(t, size, 0x8b, T1, &m);
	emit_store_slot(&t->e, SLOT(scratch[0]), T1);
	ea = tr_ea(i);
	if (ea.base == X86_RSP)
		ea.disp += size;
	tr_operand(t, &ea, size, ACCESS_WRITE, &m);
	emit_load_slot(&t->e, T1, SLOT(scratch[0]));
	mov_mem(t, size, 0x89, T1, &m);
	tr_stack_move(t, (int)size);
	tr_access_done(t, ACCESS_WRITE);
}

/* rSP := rBP; POP rBP. */
static void emit_leave(struct tr *t, const struct insn *i)
{
	unsigned size = i->opsize;
	unsigned width = t->code_bits == 64 ? 8 : t->mode & MODE_STACK32 ? 4 : 2;
	struct ea ea = {.seg = X86_SS, .base = X86_RBP, .index = REG_NONE, .addrsize = (uint8_t)width};
	struct host_mem m;

	tr_operand(t, &ea, size, ACCESS_READ, &m);
	mov_mem(t, size, 0x8b, T1, &m);
	mov_sized(t, width, 0x89, H_RBP, HOST_GUEST_RSP);
	tr_stack_move(t, (int)size);
	store_sized(t, size, X86_RBP, T1);
	t->t0_kept = size != 2;
}

/*
 * BT, BTS, BTR, BTC with a register bit offset and memory: the offset, signed, selects a unit of the operand's
 * size beyond the effective address (SDM vol. 2, BT). The unit's address goes to a scratch slot, from where
 * tr_access takes it; the host instruction then gets the offset within the unit.
 */
static void emit_bit_string(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	struct ea ea = tr_ea(i);
	uint8_t reg = emit_host_reg(i->reg);
	unsigned size = i->opsize;

	tr_flags_clobber(t);
	tr_offset(t, &ea);
	if (reg == H_NONE) {
		emit_load_slot(e, T1, REG_SLOT(i->reg));
		reg = T1;
	}
	emit_op_reg(e, true, size == 8 ? 0x8b : size == 4 ? 0x63 : 0x0fbf, T1, reg);
	emit8(e, 0x49); /* sar T1, 3 */
	emit8(e, 0xc1);
	emit8(e, 0xff);
	emit8(e, 3);
	emit8(e, 0x49); /* and T1, -size */
	emit8(e, 0x83);
	emit8(e, 0xe7);
	emit8(e, (uint8_t)-(int)size);
	emit_lea(e, ea.addrsize == 8, T0, T0, T1, 0, 0);
	if (ea.addrsize == 2)
		emit_op_reg(e, false, 0x0fb7, T0, T0);
	emit_store_slot(e, SLOT(scratch[1]), T0);

	ea = (struct ea){.seg = i->seg, .base = EA_BASE_SCRATCH, .index = REG_NONE,
			 .addrsize = i->addrsize};
	tr_access(t, &ea, size, i->mem_access);
	tr_load_guest(t, T1, i->reg);
	emit8(e, 0x41); /* and T1d, 8 * size - 1 */
	emit8(e, 0x83);
	emit8(e, 0xe7);
	emit8(e, (uint8_t)(8 * size - 1));
	t->t1_used = true;
	flags_before_copy(t, i);
	emit_reencode(e, i, t->bytes[t->cur], T1, 0, 0, &(struct host_mem){T0, H_NONE, 0});
	flags_after_copy(t, i);
	tr_access_done(t, i->mem_access);
}

/* ---- calls of C ---- */

bool tr_op_ends_block(unsigned op)
{
	switch (op) {
	case OP_JMP_FAR: case OP_CALL_FAR: case OP_RET_FAR: case OP_IRET: case OP_INT: case OP_INT3:
	case OP_INT1: case OP_UD: case OP_SYSCALL: case OP_SYSRET: case OP_SYSENTER: case OP_SYSEXIT:
	case OP_HLT: case OP_RAISE_NM: case OP_RAISE_GP: case OP_STAC: case OP_CLAC:
		return true;
	default:
		return false;
	}
}

void tr_call_op(struct tr *t, const struct insn *i)
{
	const struct insn *kept = blocks_insn(t->b, i);

	if (!kept) {
		t->failed = true;
		return;
	}
	tr_flags_to_mem(t);
	emit_mov_imm(&t->e, T0, (uint64_t)kept);
	emit_mov_imm32(&t->e, T1, t->off[t->cur] | (t->cur + 1 == t->n ? CALL_OP_LAST : 0));
	emit_call(&t->e, t->b->stub.call_op);
	t->flags = FLAGS_MEM;
}

/* PREFETCHh and PREFETCHW; the others of their opcodes are hints for processors that are not there. */
static bool is_prefetch(const struct insn *i)
{
	return i->has_mem && i->map == MAP_0F &&
	       ((i->opcode == 0x18 && (i->reg & 7) < 4) || (i->opcode == 0x0d && (i->reg & 7) < 2));
}

void tr_insn(struct tr *t, const struct insn *i)
{
	if (!moves_later(t, i))
		tr_stack_settle(t);
	if (i->klass == CLASS_INVALID || i->klass == CLASS_CALL) {
		tr_call_op(t, i);
		return;
	}
	switch (i->op) {
	case OP_NOP:
		if (is_prefetch(i) && !t->bounce)
			tr_prefetch(t, i);
		else
			t->t0_kept = true;
		break;
	case OP_LEA:
		emit_lea_insn(t, i);
		break;
	case OP_PUSH:
		emit_push_insn(t, i);
		break;
	case OP_POP:
		emit_pop_insn(t, i);
		break;
	case OP_LEAVE:
		emit_leave(t, i);
		break;
	case OP_BT_MEM:
		emit_bit_string(t, i);
		break;
	default:
		emit_copy(t, i);
		break;
	}
}
