/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that are copied, with renamed registers.
 *
 * Each encoding field that names a general register is bound to a host register: the guest
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

void tr_store_sized(struct tr *t, unsigned size, unsigned guest, uint8_t value)
{
	if (size != 2) {
		tr_store_guest(t, guest, value); /* 4 bytes: value is zero-extended */
		return;
	}
	uint8_t other = value == T0 ? T1 : T0;

	tr_load_guest(t, other, guest);
	emit8(&t->e, 0x66);
	emit_op_reg(&t->e, false, 0x89, value, other);
	tr_store_guest(t, guest, other);
}

/* ---- what the temporaries hold ---- */

void tr_hold_nothing(struct tr *t)
{
	t->held.t0 = t->held.t1 = REG_NONE;
}

void tr_settle_held(struct tr *t)
{
	if (t->held.at != emit_pos(&t->e))
		tr_hold_nothing(t);
}

void tr_hold(struct tr *t, uint8_t host, unsigned guest)
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
			tr_hold(t, c->bind[k].host, c->bind[k].guest);
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

void tr_flags_before_copy(struct tr *t, const struct insn *i)
{
	uint16_t touched = i->flags_written | i->flags_maybe;
	uint16_t kept = touched ? t->live[t->cur + 1] & ~i->flags_written : 0;

	if (i->flags_read || kept)
		tr_flags_to_host(t);
}

void tr_flags_after_copy(struct tr *t, const struct insn *i)
{
	if (i->flags_written | i->flags_maybe)
		t->flags = FLAGS_HOST;
}

void tr_copy(struct tr *t, const struct insn *i)
{
	bool mem = i->has_mem && i->mem_size;
	unsigned access = i->mem_access;
	struct copy c = {.i = i};
	struct insn form = *i;
	uint32_t at;

	tr_settle_held(t);
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
	tr_flags_before_copy(t, i);
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
	tr_flags_after_copy(t, i);
	if (mem)
		tr_access_done(t, i->mem_access);
}
