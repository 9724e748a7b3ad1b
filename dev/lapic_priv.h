/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the local APIC: shared by lapic.c (interrupts), lapic_registers.c, lapic_timer.c and apic_bus.c (routing).
 */
#ifndef DEV_LAPIC_PRIV_H
#define DEV_LAPIC_PRIV_H

#include <stdatomic.h>

#include "dev/lapic.h"

#define APIC_FIRST_VECTOR 16 /* those below are no interrupts */

#define LVT_VECTOR 0xffu
#define LVT_DELMOD(v) ((v) >> 8 & 7)
#define LVT_REMOTE_IRR (1u << 14)
#define LVT_LEVEL (1u << 15)
#define LVT_MASK (1u << 16)

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_CMCI, LVT_COUNT };

struct lapic_timer {
	struct clock_timer timer;
	uint32_t initial; /* TMICT */
	uint32_t dcr;
	bool running;
	uint64_t deadline_ns;  /* of the present period, while running */
	uint64_t tsc_deadline; /* as the guest wrote it; 0 when disarmed */
};

struct lapic {
	struct device dev;
	struct apic_bus *bus;
	struct clock *clock;
	struct lapic_config config;
	_Atomic uint64_t base; /* IA32_APIC_BASE; read by any thread, changed under the lock */
	uint32_t irr[8], isr[8], tmr[8];
	uint32_t tpr, svr, ldr, dfr;
	uint32_t esr, esr_pending;
	uint64_t icr;
	uint32_t lvt[LVT_COUNT];
	bool lint[2];	     /* levels of the input wires */
	bool eoi_deferred;   /* whether the guest has ended the highest interrupt in service is known later */
	bool extint_message; /* an ExtINT came as a message and waits to be taken */
	int ready;	     /* the vector that PPR lets through, or -1 */
	atomic_bool pending; /* ready or an ExtINT: what lapic_intr_pending() says */
	struct lapic_timer timer;
};

/* A message on the bus. */
struct apic_message {
	enum apic_delivery delivery;
	uint8_t vector;
	bool level;    /* trigger mode: sets TMR */
	bool logical;  /* destination mode */
	bool wide;     /* @dest is a 32-bit x2APIC destination, else eight bits */
	bool redirect; /* to one of the destinations only, as lowest priority */
	uint32_t dest;
};

enum apic_shorthand { APIC_TO_DEST, APIC_TO_SELF, APIC_TO_ALL, APIC_TO_OTHERS };

static inline bool lapic_hw_enabled(const struct lapic *l)
{
	return l->base & APIC_BASE_EN;
}

static inline bool lapic_x2apic(const struct lapic *l)
{
	return l->base & APIC_BASE_EXTD;
}

/* lapic.c */
void lapic_update(struct lapic *l); /* after every change of what decides on interrupts */
void lapic_init_registers(struct lapic *l);
void lapic_eoi(struct lapic *l);      /* EOI */
void lapic_send_icr(struct lapic *l); /* the interrupt command has been written */
bool lapic_has_request(const struct lapic *l, uint8_t vector);
void lapic_deliver(struct lapic *l, enum apic_delivery delivery, uint8_t vector, bool level);
void lapic_fire_lvt(struct lapic *l, enum lvt i);
void lapic_set_lint(struct lapic *l, unsigned pin, bool level);
void lapic_raise_error(struct lapic *l, uint32_t bit);
uint32_t lapic_ppr(const struct lapic *l);
uint32_t lapic_logical_id(const struct lapic *l);

/* lapic_timer.c */
void lapic_timer_init(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
void lapic_timer_sync(struct lapic *l);
void lapic_timer_set_count(struct lapic *l, uint32_t value);
uint32_t lapic_timer_count(const struct lapic *l);
void lapic_timer_set_divide(struct lapic *l, uint32_t value);
void lapic_timer_lvt_changed(struct lapic *l, uint32_t old_lvt);
uint64_t lapic_timer_tsc_deadline(const struct lapic *l);
uint64_t lapic_timer_deadline_left(const struct lapic *l);
/* After lapic_timer_reset(), with the LVT as it is to be. */
void lapic_timer_load(struct lapic *l, const struct lapic_state *in);

/* apic_bus.c */
void apic_bus_attach(struct apic_bus *bus, struct lapic *l);
void apic_bus_detach(struct apic_bus *bus, struct lapic *l);
void apic_bus_send(struct apic_bus *bus, struct lapic *from, enum apic_shorthand shorthand,
		   const struct apic_message *m);
/* A physical destination that is one local APIC: whether it is there. */
bool apic_bus_send_one(struct apic_bus *bus, const struct apic_message *m);
void apic_bus_eoi(struct apic_bus *bus, uint8_t vector);
void apic_bus_taken(struct apic_bus *bus);
int apic_bus_pic_ack(struct apic_bus *bus);

#endif
