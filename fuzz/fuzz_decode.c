/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the instruction decoder on arbitrary bytes. The first byte chooses the mode, the rest is code.
 * It ends where a page does that cannot be read, so that a byte read too many is caught (the translator's
 * files are built without sanitizers). Also checked: what every caller relies on, that the decoder is a
 * function of no more bytes than it says, and that it agrees with Zydis on the length of what both take for
 * an instruction.
 */
#include <Zydis/Zydis.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/bt/decode.h"

#define CHECK(condition) \
	do { \
		if (!(condition)) \
			abort(); \
	} while (0)

static void check_insn(const struct insn *in)
{
	CHECK(in->len >= 1 && in->len <= INSN_MAX_LEN);
	CHECK(in->klass <= CLASS_CALL && in->op < OP_COUNT);
	if (in->klass == CLASS_INVALID)
		return;
	CHECK((in->klass == CLASS_COPY) == (in->op == OP_COPY));
	CHECK((in->klass == CLASS_CALL) == (in->op >= OP_FIRST_CALL));
	CHECK(in->opsize == 1 || in->opsize == 2 || in->opsize == 4 || in->opsize == 8);
	CHECK(in->addrsize == 2 || in->addrsize == 4 || in->addrsize == 8);
	CHECK(!in->rep || !in->repne);
	CHECK((in->gpr_read | in->gpr_written) == in->gpr_fields);
	CHECK(!(in->gpr_byte & ~in->gpr_fields));
	CHECK(!in->gpr_fields || (in->gpr_size >= 1 && in->gpr_size <= 8));
	CHECK(!(in->gpr_fields & FIELD_REG) || in->reg < 16);
	CHECK(!(in->gpr_fields & (FIELD_RM | FIELD_OPCODE)) || in->rm < 16);
	CHECK(!(in->gpr_fields & FIELD_VVVV) || in->vvvv < 16);
	CHECK(!(in->has_mem && in->gpr_fields & FIELD_RM));
	CHECK(in->seg < 6);
	CHECK(in->base < 16 || in->base == REG_NONE || in->base == REG_PC);
	CHECK(in->index < (in->vsib ? 32 : 16) || in->index == REG_NONE);
	CHECK(in->has_mem || (!in->mem_size && !in->mem_access && in->base == REG_NONE));
	CHECK(!in->mem_size || in->mem_access);
	CHECK(!in->lock || (in->lockable && in->has_mem));
	CHECK(!(in->flags_written & in->flags_maybe));
	CHECK(in->imm_bytes_at + in->imm_size <= in->len);
	if (in->code_bits != 64)
		CHECK(in->reg < 8 && in->rm < 8 && in->vvvv < 8 && !in->rex && in->base != REG_PC);
}

#define PAGE 4096

/* The end of a readable page that is followed by one that is not. */
static uint8_t *page_end(void)
{
	static uint8_t *page;

	if (!page) {
		page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(page != MAP_FAILED && mprotect(page + PAGE, PAGE, PROT_NONE) == 0);
	}
	return page + PAGE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const ZydisMachineMode modes[3] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32,
						  ZYDIS_MACHINE_MODE_LONG_64};
	static const ZydisStackWidth widths[3] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
						  ZYDIS_STACK_WIDTH_64};
	struct decode_features features = {.bits = ~0ull};
	struct insn in, again;
	unsigned mode;
	uint8_t *code;

	if (size < 2 || size > PAGE)
		return 0;
	mode = data[0] % 3;
	if (data[0] & 0x80)
		features.bits = data[0] & 0x40 ? 0 : ~0ull << DECODE_AVX512F;
	size--;
	code = page_end() - size;
	memcpy(code, data + 1, size);

	enum decode_result result = decode(code, size, 16 << mode, &features, &in);
	CHECK(result == DECODE_OK || (result == DECODE_TRUNCATED) == (size < INSN_MAX_LEN));
	if (result == DECODE_OK) {
		check_insn(&in);
		CHECK(in.len <= size);
		CHECK(decode(code, in.len, 16 << mode, &features, &again) == DECODE_OK);
		CHECK(!memcmp(&in, &again, sizeof(in)));
		/* Shorter by a byte it is either not whole or, as #UD, known before. */
		memmove(code + 1 + size - in.len, code, in.len - 1);
		code += 1 + size - in.len;
		enum decode_result shorter = decode(code, in.len - 1, 16 << mode, &features, &again);
		CHECK(in.klass == CLASS_INVALID || shorter == DECODE_TRUNCATED);
		code = page_end() - size;
		memcpy(code, data + 1, size);
	}
	if (result == DECODE_OK && in.klass != CLASS_INVALID) {
		ZydisDecodedInstruction zi;
		ZydisDecoder zydis;

		ZydisDecoderInit(&zydis, modes[mode], widths[mode]);
		if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&zydis, NULL, code, size, &zi)))
			CHECK(zi.length == in.len);
	}
	return 0;
}
