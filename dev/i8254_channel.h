/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One channel of the 8254: its counting element, its latches, and how a byte at a time gets in and out. For i8254.c.
 *
 * Nothing here ticks or knows a clock: @now is the tick, of 1.193182 MHz, that a call is made at, never less than at the call before.
 */
#ifndef DEV_I8254_CHANNEL_H
#define DEV_I8254_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

enum i8254_access { I8254_LATCH, I8254_LSB, I8254_MSB, I8254_BOTH };

struct i8254_channel {
	uint8_t mode;	 /* 0..5 */
	uint8_t control; /* the low six bits of the control word: what read-back reports */
	enum i8254_access access;
	bool bcd, gate;
	bool loaded;	    /* the counting element has been loaded: @count, @load_tick are valid */
	bool count_written; /* a count has been written since the control word */
	bool pending;	    /* @next waits for a trigger or the end of the period */
	bool stopped;	    /* the gate holds it at @held ticks after its load */
	uint32_t count;	    /* 1..65536, in BCD modes 1..10000 */
	uint32_t next;
	uint64_t load_tick, held;
	uint8_t lsb; /* first half of a two-byte write */
	bool write_high, read_high;
	bool count_latched, status_latched;
	uint16_t latch;
	uint8_t status;
};

/* As after power-on, with that level at its gate: the real chip's state is undefined, this is mode 3 waiting for a count. */
void i8254_channel_reset(struct i8254_channel *c, bool gate);
/* Before anything else at a later tick: takes over a count that waited for the end of a period, if that has passed. */
void i8254_channel_settle(struct i8254_channel *c, uint64_t now);

/* The output, and its rising edges from the load until @now. */
bool i8254_channel_output(const struct i8254_channel *c, uint64_t now);
uint64_t i8254_channel_rising_edges(const struct i8254_channel *c, uint64_t now);
/* The tick of the output's next edge; false: there is none to come. */
bool i8254_channel_next_edge(const struct i8254_channel *c, uint64_t now, uint64_t *tick);

/*
 * A control word for this channel, which may be a command to latch its count; a byte for its data port. True: its load has changed, and
 * rising edges are counted anew from it.
 */
bool i8254_channel_control(struct i8254_channel *c, uint8_t value, uint64_t now);
bool i8254_channel_write(struct i8254_channel *c, uint8_t value, uint64_t now);
uint8_t i8254_channel_read(struct i8254_channel *c, uint64_t now);
/* The two halves of a read-back command. */
void i8254_channel_latch_count(struct i8254_channel *c, uint64_t now);
void i8254_channel_latch_status(struct i8254_channel *c, uint64_t now);
void i8254_channel_set_gate(struct i8254_channel *c, bool gate, uint64_t now);

#endif
