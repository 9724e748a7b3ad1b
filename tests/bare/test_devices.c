/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI configuration by ports and by ECAM, a virtio device with MSI-X and with its legacy line, its DMA into code, UART, i8042. PCI
 * Express base specification 5.0, 7.2; virtio 1.2, 4.1; PC16550D data sheet; 8042 as in the IBM PS/2 reference.
 */
#include "lib/bare.h"

#define ECAM 0xb0000000u
static volatile unsigned msi, intx;
static volatile uint8_t *isr;

static void on_msi(struct frame *f)
{
	msi++;
	apic_write(APIC_EOI, 0);
}

static void on_intx(struct frame *f)
{
	intx += *isr & 1;
	apic_write(APIC_EOI, 0);
}

static unsigned devfn;

static void configuration(void)
{
	unsigned found = 0, same = 0;

	outl(0xcf8, 0x80000000);
	is(inl(0xcf8), 0x80000000, "CF8h reads back");
	for (unsigned d = 0; d < 256; d++) {
		uint32_t id = pci_read(d, 0);

		if (id == 0xffffffff)
			continue;
		found++;
		same += MMIO32(ECAM + (d << 12)) == id && MMIO32(ECAM + (d << 12) + 8) == pci_read(d, 8);
	}
	ok(found >= 3 && same == found, "%u functions, the same by ports and by ECAM (%u)", found, same);
	is(pci_read(0, 8) >> 16, 0x0600, "00.0 is a host bridge");
	is(pci_read(0x1f << 3, 8) >> 16, 0x0601, "1f.0 is an ISA bridge");
	outl(0xcf8, 0x80000000 | 0x1f << 11);
	uint32_t whole = inl(0xcfc);

	ok(inb(0xcfc) == (whole & 0xff) && inb(0xcff) == whole >> 24 && inw(0xcfe) == whole >> 16, "byte and word accesses");
	is(MMIO32(ECAM + (1u << 20)), 0xffffffff, "no bus 1: all ones");
	is(*(volatile uint8_t *)(uintptr_t)(ECAM + (0x1f << 15) + 1), whole >> 8 & 0xff, "a byte of ECAM");
}

struct virtio_caps { volatile uint8_t *common, *notify, *isr, *device; uint32_t multiplier; };

static struct virtio_caps find_caps(void)
{
	struct virtio_caps c = { 0 };

	for (unsigned at = pci_capability(devfn, 9, 0); at; at = pci_capability(devfn, 9, at)) {
		uint32_t head = pci_read(devfn, at), type = head >> 24, bar = pci_read(devfn, at + 4) & 0xff;
		volatile uint8_t *p = (volatile uint8_t *)(pci_bar(devfn, bar) + pci_read(devfn, at + 8));

		if (type == 1)
			c.common = p;
		else if (type == 2)
			c.notify = p, c.multiplier = pci_read(devfn, at + 16);
		else if (type == 3)
			c.isr = p;
	}
	return c;
}

static struct { uint64_t addr; uint32_t len; uint16_t flags, next; } *desc;
static volatile struct { uint16_t flags, idx, ring[8]; } *avail;
static volatile struct { uint16_t flags, idx; struct { uint32_t id, len; } ring[8]; } *used;
static struct virtio_caps caps;

static void fill(void *to, uint32_t len)
{
	uint16_t before = used->idx;

	desc[0].addr = (word)to;
	desc[0].len = len;
	desc[0].flags = 2;
	avail->ring[avail->idx & 7] = 0;
	__asm__ volatile("" ::: "memory");
	avail->idx++;
	*(volatile uint16_t *)caps.notify = 0;
	irq_on();
	for (unsigned n = 0; n < 20000 && used->idx == before; n++)
		wait_us(100);
	wait_us(2000);
	irq_off();
}

static void virtio_setup(bool with_msix)
{
	volatile uint8_t *c = caps.common;

	c[20] = 0;
	while (c[20])
		cpu_relax();
	c[20] = 1;
	c[20] = 3;
	MMIO32(c + 8) = 1;
	MMIO32(c + 12) = 1; /* VIRTIO_F_VERSION_1 */
	c[20] = 11;
	ok(c[20] & 8, "virtio: features accepted");
	*(volatile uint16_t *)(c + 22) = 0;
	*(volatile uint16_t *)(c + 24) = 8;
	memset(desc, 0, 4096), memset((void *)avail, 0, 4096), memset((void *)used, 0, 4096);
	MMIO64(c + 32) = (word)desc;
	MMIO64(c + 40) = (word)avail;
	MMIO64(c + 48) = (word)used;
	*(volatile uint16_t *)(c + 26) = with_msix ? 0 : 0xffff;
	is(*(volatile uint16_t *)(c + 26), with_msix ? 0 : 0xffff, "queue vector");
	*(volatile uint16_t *)(c + 28) = 1;
	c[20] = 15;
}

static void virtio(void)
{
	int d = pci_find(0x1af4, 0x1044);
	static uint8_t buffer[64];
	unsigned bits = 0;

	if (d < 0) {
		ok(false, "no virtio-rng");
		return;
	}
	devfn = (unsigned)d;
	uint32_t bar = pci_read(devfn, 0x10 + 16), sized;

	pci_write(devfn, 0x20, 0xffffffff);
	sized = pci_read(devfn, 0x20) & ~15u;
	pci_write(devfn, 0x20, bar);
	(void)sized;
	pci_write(devfn, 4, 6); /* memory, bus master */
	caps = find_caps();
	ok(caps.common && caps.notify && caps.isr, "virtio capabilities");
	isr = caps.isr;
	desc = page_alloc(), avail = page_alloc(), used = page_alloc();
	unsigned msix = pci_capability(devfn, 0x11, 0);

	ok(msix, "MSI-X capability");
	uint32_t where = pci_read(devfn, msix + 4);
	volatile uint32_t *table = (volatile uint32_t *)(pci_bar(devfn, where & 7) + (where & ~7u));

	on_vector(0x55, on_msi);
	table[0] = 0xfee00000, table[1] = 0, table[2] = 0x55, table[3] = 0;
	pci_write(devfn, msix, pci_read(devfn, msix) | 1u << 31);
	virtio_setup(true);
	fill(buffer, 64);
	for (unsigned n = 0; n < 64; n++)
		bits |= buffer[n];
	ok(used->idx == 1 && bits, "virtio-rng fills a buffer");
	is(msi, 1, "with one MSI-X interrupt");
	table[3] = 1;
	fill(buffer, 8);
	is(msi, 1, "vector masked: none");
	uint32_t pba = pci_read(devfn, msix + 8);

	is(MMIO32(pci_bar(devfn, pba & 7) + (pba & ~7u)) & 1, 1, "but pending");
	irq_on();
	table[3] = 0;
	wait_us(2000);
	irq_off();
	is(msi, 2, "unmasked: it comes");
	/* DMA into code: many times over a function of one byte that we run in between. */
	uint8_t *code = page_alloc();
	unsigned bad = 0;

	for (unsigned n = 0; n < 30; n++) {
		uint32_t r = 0;

		memcpy(code, "\xb8\0\0\0\0\xc3", 6);
		((uint32_t(*)(void))code)();
		fill(code + 1, 4);
		memcpy(&r, code + 1, 4);
		bad += ((uint32_t(*)(void))code)() != r;
	}
	is(bad, 0, "DMA into code that has run");
	/* The legacy line */
	pci_write(devfn, msix, pci_read(devfn, msix) & ~(1u << 31));
	on_vector(0x56, on_intx);
	for (unsigned pin = 16; pin < 24; pin++) {
		MMIO32(0xfec00000) = 0x10 + pin * 2;
		MMIO32(0xfec00010) = 0xa056; /* level, active low */
	}
	virtio_setup(false);
	fill(buffer, 8);
	is(intx, 1, "one interrupt by the legacy line; reading ISR lowers it");
	pci_write(devfn, 4, 0x406);
	fill(buffer, 8);
	is(intx, 1, "INTx disabled: none");
	is(pci_read(devfn, 4) >> 19 & 1, 1, "but the status bit");
	is(*isr & 1, 1, "ISR");
	pci_write(devfn, 4, 2);
	uint16_t before = used->idx;

	avail->idx++;
	*(volatile uint16_t *)caps.notify = 0;
	wait_us(20000);
	is(used->idx, before, "without bus mastering nothing moves");
}

static void uart(void)
{
	outb(0x3fb, 0x83);
	outb(0x3f8, 1), outb(0x3f9, 0);
	ok(inb(0x3f8) == 1 && inb(0x3f9) == 0, "16550: divisor latch");
	outb(0x3fb, 3);
	is(inb(0x3fb), 3, "line control");
	outb(0x3ff, 0x5a);
	is(inb(0x3ff), 0x5a, "scratch register");
	outb(0x3fa, 7);
	is(inb(0x3fa) & 0xc0, 0xc0, "FIFOs are on");
	outb(0x3fc, 0x10);
	is(inb(0x3fe) & 0xf0, 0, "loopback: modem status follows MCR");
	outb(0x3fc, 0x1f);
	is(inb(0x3fe) & 0xf0, 0xf0, "all four");
	outb(0x3f8, 'A');
	for (unsigned n = 0; n < 100 && !(inb(0x3fd) & 1); n++)
		wait_us(100);
	ok((inb(0x3fd) & 1) && inb(0x3f8) == 'A', "loopback: a byte comes back");
	is(inb(0x3fd) & 0x61, 0x60, "transmitter empty, no data");
	outb(0x3f9, 2);
	is(inb(0x3fa) & 15, 2, "IIR: transmitter empty");
	is(inb(0x3fa) & 15, 1, "reading it clears it");
	outb(0x3f9, 0);
	outb(0x3fc, 0);
}

static bool kbd_wait(unsigned bit, unsigned value)
{
	for (unsigned n = 0; n < 1000; n++) {
		if ((inb(0x64) >> bit & 1) == value)
			return true;
		wait_us(100);
	}
	return false;
}

static unsigned kbd_read(void)
{
	return kbd_wait(0, 1) ? inb(0x60) : 0x100;
}

static void i8042(void)
{
	while (inb(0x64) & 1)
		inb(0x60);
	outb(0x64, 0xaa);
	is(kbd_read(), 0x55, "i8042 self test");
	outb(0x64, 0xab);
	is(kbd_read(), 0, "keyboard interface test");
	outb(0x64, 0x60), outb(0x60, 0x30);
	outb(0x64, 0x20);
	is(kbd_read(), 0x30, "command byte");
	outb(0x64, 0xae);
	outb(0x60, 0xf5);
	is(kbd_read(), 0xfa, "keyboard: disable scanning: ACK");
	outb(0x60, 0xf2);
	is(kbd_read(), 0xfa, "identify: ACK");
	is(kbd_read(), 0xab, "identity");
	ok(kbd_read() != 0x100, "second byte");
	outb(0x60, 0xff);
	is(kbd_read(), 0xfa, "reset: ACK");
	is(kbd_read(), 0xaa, "self test passed");
	outb(0x64, 0xa8);
	outb(0x64, 0xd4), outb(0x60, 0xf2);
	is(kbd_read(), 0xfa, "mouse: ACK");
	is(inb(0x64) & 1 ? inb(0x64) >> 5 & 1 : 1, 1, "its bytes are marked");
	ok(kbd_read() <= 4, "its identity");
	outb(0x64, 0xd2), outb(0x60, 0x77);
	is(kbd_read(), 0x77, "D2: a byte into the output buffer");
}

void main(void)
{
	pic_off();
	apic_enable();
	configuration();
	virtio();
	uart();
	i8042();
}
