/* SPDX-License-Identifier: Apache-2.0 */
/* High Precision Event Timer: 100 MHz, 64 bits, three comparators. */
#ifndef DEV_HPET_H
#define DEV_HPET_H

#include "dev/device.h"

#define HPET_BASE 0xfed00000u
#define HPET_TIMERS 3u
#define HPET_PERIOD_NS 10u

#define HPET_GCAP_ID 0x000
#define HPET_GEN_CONF 0x010
#define HPET_GINTR_STA 0x020
#define HPET_MAIN_CNT 0x0f0
#define HPET_TIM_CONF(n) (0x100 + 0x20 * (n))
#define HPET_TIM_COMP(n) (0x108 + 0x20 * (n))

#define HPET_ENABLE_CNF (1u << 0)
#define HPET_LEG_RT_CNF (1u << 1)
#define HPET_TN_INT_TYPE (1u << 1) /* level-triggered */
#define HPET_TN_INT_ENB (1u << 2)
#define HPET_TN_TYPE (1u << 3) /* periodic */
#define HPET_TN_PER_INT_CAP (1u << 4)
#define HPET_TN_SIZE_CAP (1u << 5)
#define HPET_TN_VAL_SET (1u << 6)
#define HPET_TN_32MODE (1u << 8)
#define HPET_TN_INT_ROUTE_SHIFT 9

struct hpet;

struct hpet_config {
	uint64_t base;
	uint32_t route_cap; /* bit n: a comparator may drive input n of the I/O APIC */
	/* Called with pin = that input; one more source on a wire that may be shared. */
	struct irq_line ioapic;
	struct irq_line legacy[2]; /* ISA interrupts 0 and 8: see hpet_set_legacy() */
	irq_waits_fn *waits;	   /* about these three; NULL: ticks are never owed */
};

struct hpet *hpet_create(struct bus *mmio, struct clock *clock, const struct hpet_config *config);
struct device *hpet_device(struct hpet *hpet);

/*
 * An irq_line set function (opaque: the struct hpet) for the outputs of the 8254 (pin 0) and the
 * RTC (pin 1). They are passed on to config.legacy, until the guest gives these interrupts to
 * comparators 0 and 1.
 */
void hpet_set_legacy(void *opaque, unsigned pin, bool level);
/* The irq_waits_fn of these two. */
bool hpet_legacy_waits(void *opaque, unsigned pin);

/* A processor has taken an interrupt: if it was this chip's, the next tick that is owed follows. */
void hpet_tick_taken(struct hpet *hpet);

#endif
