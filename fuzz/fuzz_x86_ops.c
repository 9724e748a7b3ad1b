/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The called instructions and event delivery on hostile state: instructions are decoded from the
 * input in a mode that it chooses, over registers, descriptor tables and memory that it fills.
 * Nothing may crash, hang or assert.
 */
#include "cpu/bt/decode.h"
#include "tests/unit/fake_x86.h"

struct input {
	const uint8_t *data;
	size_t left;
};

static void take(struct input *in, void *to, size_t len)
{
	size_t n = len < in->left ? len : in->left;

	memset(to, 0, len);
	memcpy(to, in->data, n);
	in->data += n;
	in->left -= n;
}

static struct bt_vcpu v;
static struct bt_xarea host;

static void call_op(const struct insn *i)
{
	enum bt_result res;

	__asm__ volatile("xsave64 %0" : "+m"(host) : "a"(7), "d"(0) : "memory");
	res = bt_ops[i->op](&v, i);
	__asm__ volatile("fninit; xrstor64 %0" : : "m"(host), "a"(7), "d"(0) : "memory");
	if (res == BT_FAULT) {
		struct bt_exception e = v.exception;

		if (!bt_deliver_exception(&v, &e))
			v.halted = true;
	} else {
		v.rip = v.next_rip;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct decode_features features;
	uint8_t mode, page[FAKE_PAGES], code[16];
	uint64_t offset, xcr0;

	take(&in, &mode, 1);
	switch (mode & 7) {
	case 0: scene_real(&v); break;
	case 1: scene_v86(&v, mode >> 4 & 3); break;
	case 2:
	case 3: scene32(&v, mode & 8 ? 3 : 0); break;
	default: scene64(&v, mode & 8 ? 3 : 0); break;
	}
	take(&in, page, sizeof(page));
	for (unsigned n = 0; n < FAKE_PAGES; n++)
		fake.page[n] ^= page[n] & 0xf;
	for (unsigned n = 0; n < 16; n++) {
		take(&in, &BT_REG(&v, n), 8);
		if (mode & 0x40)
			BT_REG(&v, n) &= FAKE_SIZE - 1;
	}
	take(&in, &xcr0, 8);
	v.xcr0 = (xcr0 & fake.cpuid.xcr0) | 1;
	v.cr4 |= X86_CR4_OSXSAVE |
		 (xcr0 >> 32 & (X86_CR4_PCIDE | X86_CR4_UMIP | X86_CR4_FSGSBASE | X86_CR4_SMAP));
	v.sysflags ^= (uint32_t)(xcr0 >> 40) & (X86_IOPL | X86_NT | X86_DF | X86_AC);
	bt_mode_update(&v);
	cpuid_decode_features(&fake.cpuid, &features);
	for (unsigned step = 0; step < 16 && in.left && !v.halted; step++) {
		struct insn i;
		uint16_t pokes;

		take(&in, &pokes, 2);
		for (unsigned n = 0; n < (pokes & 7u); n++) {
			take(&in, &offset, 4);
			take(&in, fake.mem + offset % (FAKE_SIZE - 8), 8);
		}
		take(&in, code, sizeof(code));
		if (decode(code, sizeof(code),
			   bt_code64(&v)		      ? 64
			   : v.seg[X86_CS].attr & X86_ATTR_DB ? 32
							      : 16,
			   &features, &i) != DECODE_OK ||
		    i.klass != CLASS_CALL)
			continue;
		if (i.rep || i.repne)
			BT_REG(&v, X86_RCX) &= 0xffff;
		v.next_rip = v.rip + i.len;
		call_op(&i);
		if (pokes & 8)
			bt_deliver_interrupt(&v, (uint8_t)(pokes >> 8));
	}
	return 0;
}
