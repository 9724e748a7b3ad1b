/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions: directions, sizes, overlap, repetition, faults and interrupts in the middle.
 */
#include "tests/unit/fake_x86.h"

static struct bt_vcpu v;

static struct insn string(unsigned size, unsigned addrsize, bool rep, bool repne)
{
	return (struct insn){ .opcode = size > 1,
			      .opsize = (uint8_t)size,
			      .addrsize = (uint8_t)addrsize,
			      .rep = rep,
			      .repne = repne,
			      .seg = X86_DS };
}

static enum bt_result run(bt_op *op, unsigned size, bool rep, bool repne)
{
	struct insn i = string(size, 8, rep, repne);

	return op(&v, &i);
}

static void fill(uint64_t at, unsigned len, unsigned seed)
{
	for (unsigned n = 0; n < len; n++)
		fake.mem[at + n] = (uint8_t)(seed + n * 7);
}

/* MOVS against a byte-by-byte model, over sizes, directions and distances, across pages. */
static void test_movs_model(void)
{
	static uint8_t model[FAKE_SIZE];
	static const int distances[] = { -4100, -16, -8, -3, -1, 0, 1, 2, 5, 8, 24, 4096 };
	unsigned bad = 0, runs = 0;

	for (unsigned size = 1; size <= 8; size *= 2)
		for (unsigned down = 0; down < 2; down++)
			for (unsigned d = 0; d < sizeof(distances) / sizeof(distances[0]); d++) {
				uint64_t from = 0x10ff9,
					 to = from + (uint64_t)(int64_t)distances[d], count = 700;
				int64_t step = down ? -(int64_t)size : (int64_t)size;

				scene64(&v, 3);
				fill(0xd000, 0x8000, size + d);
				memcpy(model, fake.mem, sizeof(model));
				for (uint64_t n = 0; n < count; n++) {
					uint8_t element[8];

					memcpy(element, model + from + (int64_t)n * step, size);
					memcpy(model + to + (int64_t)n * step, element, size);
				}
				v.sysflags |= down ? X86_DF : 0;
				BT_REG(&v, X86_RSI) = from;
				BT_REG(&v, X86_RDI) = to;
				BT_REG(&v, X86_RCX) = count;
				bad += run(bt_op_movs, size, true, false) != BT_NEXT;
				bad += memcmp(model, fake.mem, sizeof(model)) != 0;
				bad += BT_REG(&v, X86_RSI) != from + (uint64_t)((int64_t)count * step);
				bad += BT_REG(&v, X86_RDI) != to + (uint64_t)((int64_t)count * step);
				bad += BT_REG(&v, X86_RCX) != 0;
				runs++;
			}
	is_u64(bad, 0, "REP MOVS as by element: %u combinations of size, direction, distance",
	       runs);
}

static void test_faults(void)
{
	scene64(&v, 3);
	fake.page[0x12] = FAKE_ABSENT;
	BT_REG(&v, X86_RSI) = 0x10000;
	BT_REG(&v, X86_RDI) = 0x11f00;
	BT_REG(&v, X86_RCX) = 0x400;
	ok(run(bt_op_movs, 1, true, false) == BT_FAULT && v.exception.vector == X86_PF_VEC,
	   "fault in the middle");
	is_u64(v.exception.cr2, 0x12000, "CR2");
	is_u64(v.exception.error, X86_PFEC_U | X86_PFEC_W, "a write");
	is_u64(BT_REG(&v, X86_RCX), 0x300, "RCX shows the progress");
	is_u64(BT_REG(&v, X86_RDI), 0x12000, "RDI");
	is_u64(BT_REG(&v, X86_RSI), 0x10100, "RSI");

	scene64(&v, 3);
	fake.page[0x12] = FAKE_ABSENT;
	v.sysflags |= X86_DF;
	BT_REG(&v, X86_RDI) = 0x12ffe;
	BT_REG(&v, X86_RCX) = 4;
	ok(run(bt_op_stos, 2, true, false) == BT_FAULT && v.exception.cr2 == 0x12ffe,
	   "descending: CR2 is the first element's");

	scene64(&v, 3);
	fake.page[0x12] = FAKE_ABSENT;
	BT_REG(&v, X86_RDI) = 0x11ffe;
	BT_REG(&v, X86_RCX) = 1;
	BT_REG(&v, X86_RAX) = 0x11223344;
	ok(run(bt_op_stos, 4, true, false) == BT_FAULT && v.exception.cr2 == 0x12000,
	   "element across pages");
	is_u64(get(0x11ffe, 2), 0, "nothing is written");

	scene64(&v, 3);
	fake.page[0x11] |= FAKE_MMIO;
	BT_REG(&v, X86_RSI) = 0x11000;
	BT_REG(&v, X86_RDI) = 0x10000;
	BT_REG(&v, X86_RCX) = 10;
	is_u64(run(bt_op_movs, 4, true, false), BT_NEXT, "from MMIO");
	is_u64(fake.mmio, 10, "by element");

	scene32(&v, 0);
	descriptor(FREE, 0x10000, 0x9ff, 0x93, 0x4);
	load_segment(&v, X86_ES, FREE);
	bt_mode_update(&v);
	struct insn i = string(4, 4, true, false);

	BT_REG(&v, X86_RDI) = 0x900;
	BT_REG(&v, X86_RCX) = 0x1000;
	ok(faulted(&v, bt_op_stos(&v, &i), X86_GP, 0), "segment limit");
	is_u64(BT_REG(&v, X86_RDI), 0xa00, "after the last element that fits");

	scene_real(&v);
	i = string(1, 2, true, false);
	BT_REG(&v, X86_RDI) = 0xabcdfffe;
	BT_REG(&v, X86_RCX) = 0x12340004;
	BT_REG(&v, X86_RAX) = 0x5a;
	fake.page[0xf] = 0;
	is_u64(bt_op_stos(&v, &i), BT_NEXT, "16-bit addresses wrap");
	is_u64(BT_REG(&v, X86_RDI), 0xabcd0002, "DI");
	is_u64(BT_REG(&v, X86_RCX), 0x12340000, "CX");
	ok(fake.mem[0xffff] == 0x5a && fake.mem[1] == 0x5a && !fake.mem[2], "both ends");

	scene64(&v, 0);
	i = string(1, 4, true, false);
	BT_REG(&v, X86_RDI) = 0xffffffff00010000;
	BT_REG(&v, X86_RCX) = 0xffffffff00000002;
	is_u64(bt_op_stos(&v, &i), BT_NEXT, "32-bit addresses in 64-bit code");
	is_u64(BT_REG(&v, X86_RDI), 0x10002, "EDI is zero-extended");
	is_u64(BT_REG(&v, X86_RCX), 0, "ECX too");

	scene64(&v, 3);
	v.cr0 |= X86_CR0_AM;
	v.sysflags |= X86_AC;
	bt_mode_update(&v);
	BT_REG(&v, X86_RDI) = 0x10001;
	BT_REG(&v, X86_RCX) = 2;
	ok(faulted(&v, run(bt_op_stos, 4, true, false), X86_AC_VEC, 0), "alignment check");
}

static void test_interrupts(void)
{
	scene64(&v, 3);
	BT_REG(&v, X86_RDI) = 0x10800;
	BT_REG(&v, X86_RCX) = 0x3000;
	v.poll = 1;
	is_u64(run(bt_op_stos, 1, true, false), BT_EXIT, "poll: leaves after a step");
	is_u64(v.next_rip, v.rip, "to be started again");
	is_u64(BT_REG(&v, X86_RCX), 0x2800, "RCX");
	ok(v.in_rep, "in_rep");
	gate64(0x21, CS64, 0x9111, 0x8e, 0);
	ok(bt_deliver_interrupt(&v, 0x21), "the interrupt");
	ok(get(BT_REG(&v, X86_RSP) + 16, 8) & X86_RF, "pushes RF");
	ok(!v.in_rep, "in_rep is over");

	scene64(&v, 3);
	v.sysflags |= X86_TF;
	bt_mode_update(&v);
	BT_REG(&v, X86_RDI) = 0x10800;
	BT_REG(&v, X86_RCX) = 2;
	is_u64(run(bt_op_stos, 1, true, false), BT_EXIT, "single-step: after each iteration");
	is_u64(BT_REG(&v, X86_RCX), 1, "one done");
	v.next_rip = v.rip + 2;
	is_u64(run(bt_op_stos, 1, true, false), BT_NEXT, "the last one ends it");
}

static void test_compare(void)
{
	scene64(&v, 3);
	fill(0x10000, 0x3000, 1);
	memcpy(fake.mem + 0x14000, fake.mem + 0x10000, 0x3000);
	fake.mem[0x14000 + 0x2345]++;
	BT_REG(&v, X86_RSI) = 0x10000;
	BT_REG(&v, X86_RDI) = 0x14000;
	BT_REG(&v, X86_RCX) = 0x3000;
	is_u64(run(bt_op_cmps, 1, true, false), BT_NEXT, "REPE CMPSB");
	is_u64(BT_REG(&v, X86_RSI), 0x10000 + 0x2346, "stops after the difference");
	is_u64(BT_REG(&v, X86_RCX), 0x3000 - 0x2346, "RCX");
	ok(!(bt_get_rflags(&v) & X86_ZF) && (bt_get_rflags(&v) & X86_CF),
	   "flags of source - destination");

	BT_REG(&v, X86_RCX) = 0;
	bt_set_rflags(&v, 2 | X86_OF | X86_ZF | X86_AF);
	is_u64(run(bt_op_cmps, 1, true, false), BT_NEXT, "RCX = 0");
	is_u64(bt_get_rflags(&v), 2 | X86_OF | X86_ZF | X86_AF, "keeps the flags");

	memset(fake.mem + 0x10000, 0xee, 0x2000);
	fake.mem[0x11234] = 0;
	BT_REG(&v, X86_RDI) = 0x10000;
	BT_REG(&v, X86_RCX) = ~0ull;
	BT_REG(&v, X86_RAX) = 0;
	is_u64(run(bt_op_scas, 1, false, true), BT_NEXT, "REPNE SCASB: strlen");
	is_u64(BT_REG(&v, X86_RDI), 0x11235, "RDI");
	is_u64(~BT_REG(&v, X86_RCX) - 1, 0x1234, "the length");
	is_u64(bt_get_rflags(&v), 2 | X86_ZF | X86_PF, "flags");
	is_u64(BT_REG(&v, X86_RAX), 0, "RAX is kept");

	v.sysflags |= X86_DF;
	put(0x11000, 4, 0x12345678);
	BT_REG(&v, X86_RDI) = 0x11100;
	BT_REG(&v, X86_RCX) = 0x1000;
	BT_REG(&v, X86_RAX) = 0x12345678;
	is_u64(run(bt_op_scas, 4, false, true), BT_NEXT, "descending SCASD");
	is_u64(BT_REG(&v, X86_RDI), 0x10ffc, "EDI");

	v.sysflags &= ~X86_DF;
	BT_REG(&v, X86_RDI) = 0x10ffe;
	BT_REG(&v, X86_RAX) = 0x8000;
	put(0x10ffe, 2, 1);
	is_u64(run(bt_op_scas, 2, false, false), BT_NEXT, "one SCASW");
	ok(bt_get_rflags(&v) & X86_OF, "0x8000 - 1 overflows");

	put(0x10000, 8, 0x1122334455667788);
	BT_REG(&v, X86_RSI) = 0x10000;
	BT_REG(&v, X86_RAX) = ~0ull;
	run(bt_op_lods, 4, false, false);
	is_u64(BT_REG(&v, X86_RAX), 0x55667788, "LODSD zero-extends");
	is_u64(BT_REG(&v, X86_RSI), 0x10004, "RSI");
}

static void test_ports(void)
{
	scene32(&v, 3);
	struct insn i = string(2, 4, true, false);

	BT_REG(&v, X86_RDX) = 0x1f0;
	BT_REG(&v, X86_RDI) = 0x10000;
	BT_REG(&v, X86_RCX) = 3;
	ok(faulted(&v, bt_op_ins(&v, &i), X86_GP, 0), "INS at CPL 3, IOPL 0, no bitmap: #GP(0)");
	v.sysflags |= X86_IOPL;
	fake.port_in = 0x41;
	is_u64(bt_op_ins(&v, &i), BT_NEXT, "with IOPL 3");
	is_u64(get(0x10000, 6), 0x004300420041, "three words");
	is_u64(fake.ports, 3, "three accesses");
	is_u64(fake.port_log[0] >> 40, 0x1f002, "of two bytes");
	fake.page[0x12] = FAKE_ABSENT;
	BT_REG(&v, X86_RDI) = 0x12000;
	BT_REG(&v, X86_RCX) = 1;
	ok(bt_op_ins(&v, &i) == BT_FAULT, "INS to an absent page");
	is_u64(fake.ports, 3, "does not read the port");
	BT_REG(&v, X86_RSI) = 0x10000;
	BT_REG(&v, X86_RCX) = 2;
	is_u64(bt_op_outs(&v, &i), BT_NEXT, "OUTS");
	is_u64(fake.port_log[4] & 0xffff, 0x42, "second word");

	/* The bitmap of the TSS. */
	scene32(&v, 3);
	v.tr.limit = 0x68 + 0x80;
	put(TSS + 102, 2, 0x68);
	put(TSS + 0x68, 8, 0);
	put(TSS + 0x68 + 8, 2, 0x0010);
	struct insn in = { .op = OP_IN, .opcode = 0xed, .opsize = 4 };

	BT_REG(&v, X86_RDX) = 0x20;
	is_u64(bt_op_in(&v, &in), BT_NEXT, "IN of a port whose bits are clear");
	BT_REG(&v, X86_RDX) = 0x41;
	ok(faulted(&v, bt_op_in(&v, &in), X86_GP, 0), "a set bit among the four");
	BT_REG(&v, X86_RDX) = 0x45;
	is_u64(bt_op_in(&v, &in), BT_NEXT, "behind it");
	BT_REG(&v, X86_RDX) = 0x7ff;
	ok(faulted(&v, bt_op_in(&v, &in), X86_GP, 0), "beyond the TSS limit");
}

int main(void)
{
	test_movs_model();
	test_faults();
	test_interrupts();
	test_compare();
	test_ports();
	return done_testing();
}
