/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Re-encoding: a guest instruction out again as a host instruction, with other register numbers and its
 * memory operand replaced by a plain pointer. Formats: SDM vol. 2, chapter 2 (legacy and REX: 2.1–2.2, VEX:
 * 2.3, EVEX: 2.7).
 */
#include "cpu/bt/emit.h"

/* rax goes aside into T1, which nobody waits for, or into its slot. */
static void rax_aside(struct emit *e, bool t1_free)
{
	if (t1_free)
		emit_mov_reg(e, true, T1, H_RAX);
	else
		emit_store_slot(e, REG_SLOT(X86_RAX), H_RAX);
}

static void rax_back(struct emit *e, bool t1_free)
{
	if (t1_free)
		emit_mov_reg(e, true, H_RAX, T1);
	else
		emit_load_slot(e, H_RAX, REG_SLOT(X86_RAX));
}

void emit_save_flags(struct emit *e, bool t1_free)
{
	rax_aside(e, t1_free);
	emit8(e, 0x9f); /* lahf */
	emit8(e, 0x0f); /* seto al */
	emit8(e, 0x90);
	emit8(e, 0xc0);
	emit8(e, 0x66); /* mov [aflags], ax */
	emit_op_mem(e, false, 0x89, H_RAX, H_RSP, H_NONE, 0, SLOT(aflags));
	rax_back(e, t1_free);
}

void emit_restore_flags(struct emit *e, bool t1_free)
{
	rax_aside(e, t1_free);
	emit_op_mem(e, false, 0x0fb7, H_RAX, H_RSP, H_NONE, 0, SLOT(aflags)); /* movzx eax, word */
	emit8(e, 0x04); /* add al, 0x7f: OF if al is 1 */
	emit8(e, 0x7f);
	emit8(e, 0x9e); /* sahf */
	rax_back(e, t1_free);
}

static void emit_map_escape(struct emit *e, unsigned map)
{
	if (map != MAP_ONE)
		emit8(e, 0x0f);
	if (map == MAP_0F38)
		emit8(e, 0x38);
	else if (map == MAP_0F3A)
		emit8(e, 0x3a);
}

static void emit_legacy_head(struct emit *e, const struct insn *i, unsigned reg, unsigned base, uint8_t index)
{
	/* 0F AE has no operand size: with 66 it is something else (CLFLUSH CLFLUSHOPT, MFENCE TPAUSE). */
	bool int_op = (i->fpu == FPU_NONE && !(i->map == MAP_0F && i->opcode == 0xae)) || i->fpu == FPU_X87;

	if (i->lock)
		emit8(e, 0xf0);
	if (i->pp == 1 || (int_op && i->opsize == 2))
		emit8(e, 0x66);
	if (i->pp == 2)
		emit8(e, 0xf3);
	else if (i->pp == 3)
		emit8(e, 0xf2);

	uint8_t rex = emit_rex_bits(i->w, reg, index, (uint8_t)base);

	/*
	 * A byte register 4–7 means SPL..DIL with any REX and AH..BH without: the byte registers that the
	 * guest could name with its REX stay what they were if we keep one.
	 */
	if (rex != 0x40 || i->rex)
		emit8(e, rex);
	emit_map_escape(e, i->map);
}

static void emit_vex_head(struct emit *e, const struct insn *i, unsigned reg, unsigned base,
			  uint8_t index, unsigned vvvv)
{
	unsigned inv_r = ~reg >> 3 & 1, inv_b = ~base >> 3 & 1, w = i->w;
	unsigned inv_x = index == H_NONE ? 1 : ~index >> 3 & 1;

	/* VPCMPESTRI, VPCMPESTRM: W makes their lengths 64-bit in 64-bit code only. */
	if (i->code_bits != 64 && i->map == MAP_0F3A && (i->opcode & 0xfe) == 0x60)
		w = 0;
	emit8(e, 0xc4);
	emit8(e, inv_r << 7 | inv_x << 6 | inv_b << 5 | i->map);
	emit8(e, w << 7 | (~vvvv & 15) << 3 | (i->vl & 1) << 2 | i->pp);
}

static void emit_evex_head(struct emit *e, const struct insn *i, unsigned reg, unsigned rm,
			   bool mem, unsigned vvvv)
{
	unsigned inv_r = ~reg >> 3 & 1, inv_r2 = ~reg >> 4 & 1;
	unsigned inv_b = ~rm >> 3 & 1, inv_x = mem ? 1 : ~rm >> 4 & 1;

	emit8(e, 0x62);
	emit8(e, inv_r << 7 | inv_x << 6 | inv_b << 5 | inv_r2 << 4 | i->map);
	emit8(e, i->w << 7 | (~vvvv & 15) << 3 | 1 << 2 | i->pp);
	emit8(e, i->evex_z << 7 | i->evex_ll << 5 | i->evex_b << 4 | (~vvvv >> 4 & 1) << 3 | i->evex_aaa);
}

void emit_reencode(struct emit *e, const struct insn *i, const uint8_t *code, unsigned reg,
		   unsigned rm, unsigned vvvv, const struct host_mem *mem)
{
	uint8_t index = mem ? mem->index : H_NONE;
	unsigned opcode = i->opcode;

	if (mem)
		rm = mem->base;
	if (i->encoding == ENC_VEX)
		emit_vex_head(e, i, reg, rm, index, vvvv);
	else if (i->encoding == ENC_EVEX)
		emit_evex_head(e, i, reg, rm, mem, vvvv);
	else
		emit_legacy_head(e, i, i->has_modrm ? reg : 0, i->has_modrm || i->gpr_fields ? rm : 0, index);

	if (i->gpr_fields & FIELD_OPCODE)
		opcode = (opcode & ~7u) | (rm & 7);
	emit8(e, (uint8_t)opcode);
	if (i->has_modrm) {
		if (mem)
			emit_modrm_mem(e, reg, mem->base, mem->index, 0, mem->disp);
		else
			emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
	}
	/* Registers in an immediate: bit 7 counts in 64-bit code only (VBLENDVPS and its like). */
	if (i->encoding == ENC_VEX && i->map == MAP_0F3A && i->opcode >= 0x4a &&
	    i->opcode <= 0x4c && i->code_bits != 64)
		emit8(e, code[i->imm_bytes_at] & 0x7f);
	else
		for (unsigned n = 0; n < i->imm_size; n++)
			emit8(e, code[i->imm_bytes_at + n]);
}
