/* SPDX-License-Identifier: Apache-2.0 */
/* Where things are in the guest's physical address space and in I/O space. README.md draws the map. */
#ifndef MACHINE_LAYOUT_H
#define MACHINE_LAYOUT_H

#include "base/util.h"
#include "mem/memory.h"

/* Below 1 MiB */
#define LAYOUT_LOW_RAM_END 0x9fc00u   /* conventional memory; the EBDA's kilobyte follows */
#define LAYOUT_EBDA 0x9fc00u
#define LAYOUT_VGA_HOLE 0xa0000u
#define LAYOUT_TABLES 0xe0000u	      /* ACPI and SMBIOS, searched here by operating systems */
#define LAYOUT_SMBIOS 0xf0000u	      /* its anchors must lie in 0xf0000–0xfffff */
#define LAYOUT_TABLES_END 0x100000u

/* The hole below 4 GiB */
#define LAYOUT_ECAM 0xb0000000u	      /* PCI Express configuration space, 256 buses */
#define LAYOUT_ECAM_BYTES 0x10000000u
#define LAYOUT_PCI_MMIO 0xc0000000u   /* window for 32-bit BARs */
#define LAYOUT_PCI_MMIO_END 0xfec00000u
#define LAYOUT_IOAPIC 0xfec00000u
#define LAYOUT_HPET 0xfed00000u
#define LAYOUT_LAPIC 0xfee00000u

/* I/O ports */
#define LAYOUT_PM_BASE 0x600u	      /* ACPI power management block */
#define LAYOUT_PCI_IO 0xc000u	      /* window from which I/O BARs are given out */
#define LAYOUT_PCI_IO_END 0x10000u

/* Interrupts */
#define LAYOUT_SCI 9u
#define LAYOUT_PCI_GSI 16u	      /* PCI INTx is wired to GSI 16–23 */
#define LAYOUT_PCI_GSI_COUNT 8u

#define LAYOUT_VCPU_MAX 255u
#define LAYOUT_PHYS_BITS 46u /* at most, of IA32_APIC_BASE and MTRRs; what the CPUs have may be less */

#endif
