/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of translated code: blocks, the jumps between them, the pages they were made from.
 *
 * There are hundreds of thousands, so they refer to each other by 32 bits: an offset in the engine's area for
 * records (engine->meta); 0 is none. The area is given out from the front, for instructions from its end, and is empty after
 * a flush of the cache. Behind a block lie its links, and behind those its map.
 */
#ifndef CPU_BT_BLOCKS_H
#define CPU_BT_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

/* A direct jump out of a block. A block's links lie behind it. */
struct link {
	uint32_t to;	   /* block; 0: not linked */
	uint32_t next;	   /* linked: of to's incoming links; a return address that waits for its block: of its page's */
	uint16_t field_at; /* position of the rel32, behind jc_entry or cold_start */
	uint16_t stub_at;  /* where it goes while unlinked, behind cold_start */
	uint16_t target;   /* offset in the page it leads to */
	uint8_t number;	   /* of the block's links */
	bool cold : 1;	   /* the field is in the cold part */
	bool backward : 1; /* enter by the polling entry */
	bool twin : 1;	   /* goes to the twin without groups of the block there */
	bool ret : 1;	   /* behind a call, where the ring leads to: with the linear address in T0 */
	bool call : 1;	   /* far, by a host's CALL */
	bool far : 1;	   /* to another page, whichever it is: by the far entry, with the linear address in T0 */
	bool by_cache : 1; /* by the jump cache while unlinked, not by a stub of its own: returns, and hopeless far ones */
};
_Static_assert(sizeof(struct link) == 16, "there are many");

/* Where guest instructions that may raise host exceptions begin in host code. */
struct block_map {
	uint32_t host;	   /* position of the instruction's first host byte */
	uint16_t guest;	   /* page offset */
	uint8_t flags;	   /* enum map_flags */
	uint8_t borrowed;  /* a bit for each guest register whose value is in its slot while the copy runs */
};
enum map_flags { MAP_FLAGS_HOST = 1, MAP_FLAGS_MEMORY = 2, MAP_CAN_TRAP = 4 };

#define RECORDS_START 16 /* in the area: 0 is no record */
#define NO_PAGE UINT32_MAX

struct block {
	uint32_t page; /* number of its guest-physical page */
	uint32_t mode;
	uint16_t start, guest_len;     /* offset of the first byte */
	uint8_t first_line, last_line; /* the 64-byte lines of the page that it was made from */
	bool straddles : 1; /* one instruction on two pages: a struct second_page lies before this */
	bool dead : 1;
	bool atomic : 1; /* one locked instruction through the bounce buffer: see bounce_rmw */
	uint8_t link_count, map_count;
	uint8_t ret_at, mem_at, poll_at, main_at; /* entries, so many bytes behind jc_entry */
	uint16_t code_bytes, cold_bytes;
	uint32_t jc_entry;
	uint32_t cold_start; /* its cold paths, apart */
	uint32_t far_entry;  /* made when the first block of another page leads here; 0: none. Before it, emit_behind_call() */
	uint32_t hash_next, page_next;
	uint32_t older; /* made before this one */
	uint32_t in;	/* link */
};

struct second_page {
	uint32_t page;
	uint32_t page_next; /* of that page's blocks */
};

/* RAM pages that have translated code. */
struct code_page {
	uint64_t lines;
	uint32_t blocks;  /* by page_next or page2_next */
	uint32_t waiting; /* return addresses in this page */
	uint32_t slow_writes;
	uint32_t index; /* in engine->code_pages */
	uint32_t next;	/* of all there are */
	uint32_t serial; /* no other page has it; for far entries (jump_cache.c), from JC_PAGES on */
	uint64_t starts[16]; /* by four bytes: a block begins here, or did */
};

static inline struct second_page *block_second(const struct block *b)
{
	return (struct second_page *)b - 1;
}

/* Number of the second page, or NO_PAGE. */
static inline uint32_t block_page2(const struct block *b)
{
	return b->straddles ? block_second(b)->page : NO_PAGE;
}

static inline struct link *block_links(const struct block *b)
{
	return (struct link *)(b + 1);
}

static inline struct block *link_from(const struct link *l)
{
	return (struct block *)(l - l->number) - 1;
}

static inline uint32_t link_field(const struct link *l)
{
	return (l->cold ? link_from(l)->cold_start : link_from(l)->jc_entry) + l->field_at;
}

static inline struct block_map *block_maps(const struct block *b)
{
	return (struct block_map *)(block_links(b) + b->link_count);
}

static inline uint32_t block_code_end(const struct block *b)
{
	return b->jc_entry + b->code_bytes;
}

static inline uint32_t block_cold_end(const struct block *b)
{
	return b->cold_start + b->cold_bytes;
}

static inline uint64_t block_gpa(const struct block *b)
{
	return (uint64_t)b->page << 12 | b->start;
}

static inline uint32_t block_ret_entry(const struct block *b)
{
	return b->jc_entry + b->ret_at;
}

static inline uint32_t block_mem_entry(const struct block *b)
{
	return b->jc_entry + b->mem_at;
}

static inline uint32_t block_poll_entry(const struct block *b)
{
	return b->jc_entry + b->poll_at;
}

static inline uint32_t block_main_entry(const struct block *b)
{
	return b->jc_entry + b->main_at;
}

#endif
