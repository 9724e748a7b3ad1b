/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU for tests of the instruction functions: what the rest of the translator provides
 * (access.c, tlb.c, sync.c, heavy.c, stubs.c, debug.c), over 64 pages of memory with identity paging, whose pages
 * can be made absent, read-only, supervisor-only or MMIO. Included once per test program.
 */
#ifndef TESTS_UNIT_FAKE_X86_H
#define TESTS_UNIT_FAKE_X86_H

#include <stdarg.h>
#include <string.h>

#include "cpu/bt/light.h"
#include "cpu/bt/ops.h"
#include "cpu/bt/private.h"
#include "cpu/bt/run.h"
#include "cpu/cpuid.h"
#include "tests/tap.h"

#define FAKE_PAGES 64u
#define FAKE_SIZE (FAKE_PAGES * 4096u)

/*
 * The ops under test have the guest's vector state in the host's registers: nothing here may touch
 * it.
 */
#define FAKE_LIGHT __attribute__((target("general-regs-only"), no_sanitize("address", "undefined")))

enum { FAKE_USER = 1, FAKE_READ_ONLY = 2, FAKE_ABSENT = 4, FAKE_MMIO = 8 };

static struct {
	_Alignas(4096) uint8_t mem[FAKE_SIZE];
	uint8_t page[FAKE_PAGES];
	struct cpuid_model cpuid;
	unsigned flushes, pdpte_loads, ports, mmio;
	uint64_t port_log[64], port_in;
	uint64_t deadline_tsc, deadline_ns, flushed_page;
	uint8_t tpr;
} fake;

/* Not bt_raise_error(): as a function of this file it may use vector registers. */
FAKE_LIGHT static inline enum bt_result fake_raise(struct bt_vcpu *v, uint8_t vector,
						   uint32_t error, uint64_t cr2)
{
	bt_zero(&v->exception, sizeof(v->exception));
	v->exception.vector = vector;
	v->exception.has_error = true;
	v->exception.error = error;
	v->exception.cr2 = cr2;
	return BT_FAULT;
}

FAKE_LIGHT static inline enum bt_result fake_check(struct bt_vcpu *v, uint64_t lin, unsigned access)
{
	bool user = (access & BT_AS_USER) || (v->cpl == 3 && !(access & BT_SYSTEM));
	uint32_t error = 0;
	uint8_t page = lin < FAKE_SIZE ? fake.page[lin >> 12] : FAKE_ABSENT;

	if (lin >= 0x800000000000 && lin < 0xffff800000000000)
		return fake_raise(v, X86_GP, 0, 0);
	if (!(page & FAKE_ABSENT)) {
		if (!(user && !(page & FAKE_USER)) &&
		    !((access & BT_WRITE) && (page & FAKE_READ_ONLY)))
			return BT_NEXT;
		error = X86_PFEC_P;
	}
	error |= (access & BT_WRITE ? X86_PFEC_W : 0) | (user ? X86_PFEC_U : 0);
	return fake_raise(v, X86_PF_VEC, error, lin);
}

FAKE_LIGHT enum bt_result bt_probe(struct bt_vcpu *v, uint64_t lin, unsigned len, unsigned access)
{
	if (fake_check(v, lin, access) == BT_FAULT)
		return BT_FAULT;
	if (((lin + len - 1) ^ lin) >> 12)
		return fake_check(v, (lin + len - 1) & ~0xfffull, access);
	return BT_NEXT;
}

FAKE_LIGHT enum bt_result bt_load_bytes(struct bt_vcpu *v, uint64_t lin, void *buf, unsigned len,
					unsigned access)
{
	if (bt_probe(v, lin, len, access) == BT_FAULT)
		return BT_FAULT;
	if (fake.page[lin >> 12] & FAKE_MMIO)
		fake.mmio++;
	bt_copy(buf, fake.mem + lin, len);
	return BT_NEXT;
}

FAKE_LIGHT enum bt_result bt_store_bytes(struct bt_vcpu *v, uint64_t lin, const void *buf,
					 unsigned len, unsigned access)
{
	if (bt_probe(v, lin, len, access | BT_WRITE) == BT_FAULT)
		return BT_FAULT;
	if (fake.page[lin >> 12] & FAKE_MMIO)
		fake.mmio++;
	bt_copy(fake.mem + lin, buf, len);
	return BT_NEXT;
}

FAKE_LIGHT enum bt_result bt_load(struct bt_vcpu *v, uint64_t lin, unsigned size, unsigned access,
				  uint64_t *out)
{
	*out = 0;
	return bt_load_bytes(v, lin, out, size, access);
}

FAKE_LIGHT enum bt_result bt_store(struct bt_vcpu *v, uint64_t lin, unsigned size, unsigned access,
				   uint64_t value)
{
	return bt_store_bytes(v, lin, &value, size, access);
}

FAKE_LIGHT void *bt_ram(struct bt_vcpu *v, uint64_t lin, unsigned *len, unsigned access,
			enum bt_result *res)
{
	unsigned left = 4096 - (lin & 0xfff);

	*res = fake_check(v, lin, access);
	if (*res == BT_FAULT || (fake.page[lin >> 12] & FAKE_MMIO))
		return NULL;
	*len = *len < left ? *len : left;
	return fake.mem + lin;
}

enum debug_result debug_after(struct bt_vcpu *v, uint32_t sysflags_before)
{
	return DEBUG_GO;
}

void bt_tlb_flush_all(struct bt_vcpu *v)
{
	fake.flushes++;
}

void bt_tlb_load_cr3(struct bt_vcpu *v, uint64_t cr3)
{
	v->cr3 = cr3 & ~(1ull << 63);
	fake.flushes++;
}

void bt_tlb_flush_page(struct bt_vcpu *v, uint64_t lin)
{
	fake.flushed_page = lin;
}

void bt_tlb_invpcid(struct bt_vcpu *v, unsigned type, unsigned pcid, uint64_t lin)
{
	fake.flushed_page = lin;
}

enum bt_result bt_tlb_load_pdptes(struct bt_vcpu *v, uint64_t cr3)
{
	fake.pdpte_loads++;
	return cr3 == 0xbad000 ? bt_raise_error(v, X86_GP, 0) : BT_NEXT;
}

void bt_yield(struct bt_vcpu *v)
{
}

void bt_heavy_begin(struct bt_vcpu *v)
{
}

void bt_heavy_end(struct bt_vcpu *v)
{
}

uint64_t bt_port_read(struct bt_vcpu *v, uint16_t port, unsigned size)
{
	fake.port_log[fake.ports++ % 64] = (uint64_t)port << 48 | (uint64_t)size << 40;
	return fake.port_in++;
}

void bt_port_write(struct bt_vcpu *v, uint16_t port, uint64_t value, unsigned size)
{
	fake.port_log[fake.ports++ % 64] =
		(uint64_t)port << 48 | (uint64_t)size << 40 | 1ull << 39 | value;
}

uint64_t bt_guest_tsc(const struct bt_vcpu *v)
{
	return 1000000 + v->tsc_offset;
}

uint64_t bt_tsc_hz(const struct bt_vcpu *v)
{
	return 2000000000;
}

uint64_t bt_vm_time_ns(struct bt_vcpu *v)
{
	return 5000;
}

void bt_log_guest(const struct bt_vcpu *v, const char *fmt, ...)
{
}

bool bt_chip_read_msr(struct bt_vcpu *v, uint32_t msr, uint64_t *value)
{
	*value = msr;
	return msr != 0x8ff;
}

bool bt_chip_write_msr(struct bt_vcpu *v, uint32_t msr, uint64_t value)
{
	return msr != 0x8ff;
}

uint64_t bt_chip_get_deadline(struct bt_vcpu *v)
{
	return fake.deadline_tsc;
}

void bt_chip_set_deadline(struct bt_vcpu *v, uint64_t guest_tsc, uint64_t deadline_ns)
{
	fake.deadline_tsc = guest_tsc;
	fake.deadline_ns = deadline_ns;
}

uint8_t bt_chip_get_tpr(struct bt_vcpu *v)
{
	return fake.tpr;
}

void bt_chip_set_tpr(struct bt_vcpu *v, uint8_t tpr)
{
	fake.tpr = tpr;
}

/* There are no paravirtual interfaces. */
bool bt_pv_read_msr(struct bt_vcpu *v, uint32_t msr, uint64_t *value)
{
	return false;
}

enum bt_pv_msr bt_pv_write_msr(struct bt_vcpu *v, uint32_t msr, uint64_t value)
{
	return BT_PV_OTHER;
}

void bt_pv_tsc_moved(struct bt_vcpu *v)
{
}

bool bt_pv_hypercall(struct bt_vcpu *v, bool wide, int64_t *result)
{
	return false;
}

/* Setting the scene ---------------------------------------------------------------------------- */

enum {
	GDT = 0x1000,
	LDT = 0x1800,
	IDT = 0x2000,
	TSS = 0x3000,
	TSS2 = 0x3400,
	STACK0 = 0x8000,
	STACK3 = 0xa000,
	/* selectors */
	CS0 = 0x08,
	DS0 = 0x10,
	CS3 = 0x18 | 3,
	DS3 = 0x20 | 3,
	CS64 = 0x28,
	CS64_3 = 0x30 | 3,
	CS16 = 0x38,
	TSS_SEL = 0x40,
	LDT_SEL = 0x50,
	CONF0 = 0x60,
	GATE = 0x68,
	TSS2_SEL = 0x78,
	FREE = 0x80,
};

static inline void put(uint64_t at, unsigned size, uint64_t value)
{
	memcpy(fake.mem + at, &value, size);
}

static inline uint64_t get(uint64_t at, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, fake.mem + at, size);
	return value;
}

/* @access: bits 8–15 of the second doubleword; @flags: G, D/B, L, AVL. */
static inline void descriptor(uint16_t selector, uint32_t base, uint32_t limit, uint8_t access,
			      uint8_t flags)
{
	uint64_t d = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
		     (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 |
		     (uint64_t)(base >> 24) << 56;

	put((selector & 4 ? LDT : GDT) + (selector & 0xfff8), 8, d);
}

static inline void gate(uint64_t at, uint16_t selector, uint64_t offset, uint8_t access,
			uint8_t low)
{
	put(at, 8,
	    (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)low << 32 |
		    (uint64_t)access << 40 | (offset >> 16 & 0xffff) << 48);
}

static inline void gate64(unsigned vector, uint16_t selector, uint64_t offset, uint8_t access,
			  uint8_t ist)
{
	gate(IDT + vector * 16, selector, offset, access, ist);
	put(IDT + vector * 16 + 8, 8, offset >> 32);
}

static inline void load_segment(struct bt_vcpu *v, unsigned seg, uint16_t selector)
{
	struct bt_descriptor d = { 0 };
	uint64_t raw = get((selector & 4 ? LDT : GDT) + (selector & 0xfff8), 8);

	d.lo = (uint32_t)raw;
	d.hi = (uint32_t)(raw >> 32);
	v->seg[seg] = bt_segment(&d, selector);
}

/* 32-bit protected mode, flat, at CPL @cpl. */
static inline void scene32(struct bt_vcpu *v, unsigned cpl)
{
	static const uint8_t data[] = { X86_ES, X86_DS, X86_FS, X86_GS };

	memset(v, 0, sizeof(*v));
	memset(&fake.mem, 0, sizeof(fake.mem));
	for (unsigned n = 0; n < FAKE_PAGES; n++)
		fake.page[n] = n >= 8 ? FAKE_USER : 0;
	fake.flushes = fake.pdpte_loads = fake.ports = fake.mmio = 0;
	fake.port_in = fake.deadline_tsc = fake.deadline_ns = fake.flushed_page = 0;
	if (!fake.cpuid.count) {
		cpuid_model_init(&fake.cpuid, 2);
		cpuid_model_set_tsc(&fake.cpuid, 2000000000);
	}
	v->cpuid = &fake.cpuid;
	descriptor(CS0, 0, 0xfffff, 0x9b, 0xc);
	descriptor(DS0, 0, 0xfffff, 0x93, 0xc);
	descriptor(CS3, 0, 0xfffff, 0xfb, 0xc);
	descriptor(DS3, 0, 0xfffff, 0xf3, 0xc);
	descriptor(CS64, 0, 0xfffff, 0x9b, 0xa);
	descriptor(CS64_3, 0, 0xfffff, 0xfb, 0xa);
	descriptor(CS16, 0, 0xffff, 0x9b, 0);
	descriptor(TSS_SEL, TSS, 0x67, 0x8b, 0);
	descriptor(LDT_SEL, LDT, 0xff, 0x82, 0);
	descriptor(CONF0, 0, 0xfffff, 0x9f, 0xc);
	v->gdtr = (struct x86_table){ .base = GDT, .limit = 0xff };
	v->idtr = (struct x86_table){ .base = IDT, .limit = 0x7ff };
	v->tr = (struct x86_segment){
		.selector = TSS_SEL, .attr = 0x8b, .limit = 0x67, .base = TSS
	};
	put(TSS + 4, 4, STACK0);
	put(TSS + 8, 2, DS0);
	put(TSS + 102, 2, 0x68); /* no I/O bitmap */
	v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_ET | X86_CR0_NE;
	v->cr4 = X86_CR4_OSFXSR;
	v->xcr0 = 1;
	v->cpl = (uint8_t)cpl;
	v->dr[6] = 0xffff0ff0;
	v->dr[7] = 0x400;
	bt_set_rflags(v, 2);
	load_segment(v, X86_CS, cpl ? CS3 : CS0);
	load_segment(v, X86_SS, cpl ? DS3 : DS0);
	for (unsigned n = 0; n < sizeof(data); n++)
		load_segment(v, data[n], cpl ? DS3 : DS0);
	BT_REG(v, X86_RSP) = cpl ? STACK3 : STACK0;
	v->rip = 0x9000;
	v->next_rip = 0x9002;
	bt_mode_update(v);
}

/* 64-bit mode at CPL @cpl; RSP0 is STACK0. */
static inline void scene64(struct bt_vcpu *v, unsigned cpl)
{
	scene32(v, cpl);
	v->efer = X86_EFER_LMA | X86_EFER_LME | X86_EFER_SCE | X86_EFER_NXE;
	v->cr4 |= X86_CR4_PAE;
	v->idtr.limit = 0xfff;
	memset(fake.mem + TSS, 0, 0x68);
	put(TSS + 4, 8, STACK0);
	load_segment(v, X86_CS, cpl ? CS64_3 : CS64);
	bt_mode_update(v);
}

/* Real-address mode with CS = 0x900, so that code is at 0x9000; IVT at 0. */
static inline void scene_real(struct bt_vcpu *v)
{
	scene32(v, 0);
	v->cr0 = X86_CR0_ET;
	v->idtr = (struct x86_table){ .base = 0, .limit = 0x3ff };
	for (unsigned n = 0; n < X86_SEG_COUNT; n++)
		v->seg[n] = (struct x86_segment){ .attr = 0x93, .limit = 0xffff };
	v->seg[X86_CS].selector = 0x900;
	v->seg[X86_CS].base = 0x9000;
	v->rip = 0x10;
	v->next_rip = 0x12;
	bt_mode_update(v);
}

/* Virtual-8086 mode, like real mode above; 32-bit IDT. */
static inline void scene_v86(struct bt_vcpu *v, unsigned iopl)
{
	scene32(v, 3);
	bt_set_rflags(v, X86_VM | iopl << 12 | 2);
	for (unsigned n = 0; n < X86_SEG_COUNT; n++)
		bt_load_segment_real(v, n, (uint16_t)(0x900 + n));
	v->rip = 0x10;
	v->next_rip = 0x12;
	BT_REG(v, X86_RSP) = 0x1000;
	bt_mode_update(v);
}

static inline bool faulted(const struct bt_vcpu *v, enum bt_result res, uint8_t vector,
			   uint32_t error)
{
	return res == BT_FAULT && v->exception.vector == vector && v->exception.has_error &&
	       v->exception.error == error;
}

static inline bool faulted_plain(const struct bt_vcpu *v, enum bt_result res, uint8_t vector)
{
	return res == BT_FAULT && v->exception.vector == vector && !v->exception.has_error;
}

#endif
