/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator's own structures: TLB slots, translated blocks, the code cache, per-vCPU run state.
 *
 * Theory of operation: doc/engine.md. In short: a block is a superblock of guest instructions of one page (or one
 * instruction that straddles two), keyed by the guest-physical address of its first byte and the mode
 * (enum bt_mode_bits). Blocks of one page link directly; everything else goes through a per-vCPU jump
 * cache by linear address. Memory operands are looked up in the software TLB of the current slot, which
 * the GS base points at; a slot belongs to one PCID.
 *
 * Locking: engine->lock (a futex lock, light code) guards blocks, the hash, page records and the cache.
 * Page state bytes are atomic. TLBs and jump caches belong to their vCPU's thread.
 */
#ifndef CPU_BT_PRIVATE_H
#define CPU_BT_PRIVATE_H

#include <pthread.h>

#include "cpu/bt/blocks.h"
#include "cpu/bt/decode.h"
#include "cpu/bt/emit.h"
#include "cpu/bt/vcpu.h"
#include "cpu/dirty.h"
#include "cpu/pv.h"

/* ---- TLB ---------------------------------------------------------------------------------------- */

/* A table begins small and grows when entries are thrown out for others again and again. */
#define TLB_ENTRIES_MIN 1024u
#define TLB_ENTRIES_MAX 16384u
#define TLB_LOG 512u

enum tlb_class { TLB_USER, TLB_SUPER, TLB_SUPER_OPEN, TLB_CLASSES };
_Static_assert(sizeof(((struct bt_vcpu *)NULL)->tlb_mask) == TLB_CLASSES * sizeof(uint32_t), "a mask for each class");

static inline unsigned tlb_class_of_mode(uint32_t mode)
{
	return mode & MODE_USER ? TLB_USER : mode & MODE_SMAP_OPEN ? TLB_SUPER_OPEN : TLB_SUPER;
}

/*
 * A page-aligned linear address in a tag allows the access; any other entry's tag has index bits that do not
 * belong to the entry, so that no address ever matches it (tlb_invalid_tag).
 */
struct tlb_entry {
	uint64_t read_tag, write_tag;
	uint64_t host;	/* host address of the page */
	uint64_t info;	/* guest-physical page | TLB_GLOBAL */
};
#define TLB_GLOBAL 1u
#define TLB_LARGE 2u
#define TLB_WRITE_CODE 4u /* writable, but through C: the page holds code */

static inline uint64_t tlb_invalid_tag(unsigned index)
{
	return index == 1 ? 0 : 0x1000;
}

_Static_assert(sizeof(struct tlb_entry) == 4096 >> 7, "an entry's offset is the address shifted");

struct itlb_entry {
	uint64_t tag; /* linear page | valid bit 0 */
	uint64_t info;
};
#define ITLB_ENTRIES 256

/* Jump cache: linear target address → code. */
#define JC_ENTRIES 8192u
struct jc_entry {
	uint64_t tag;
	uint64_t code;
};
#define JC_LOG 4096u
#define JC_PAGES 4096u
#define JC_PAGE_LOG 256u
#define RING_ENTRIES 256u /* as many as a byte counts */
struct jump_cache {
	struct jc_entry entry[JC_ENTRIES];
	/*
	 * Where calls return to, as a ring: a return whose target is the newest entry's goes to its code, one that
	 * is not goes by the entries above. It holds code of pages in the filter below only, and lives as long as they.
	 */
	uint64_t ring_tag[RING_ENTRIES], ring_code[RING_ENTRIES];
	uint8_t ring_top; /* the newest entry, while another address space's ring is in use (bt_vcpu.ring_top) */
	bool entered;  /* code has been run that is not in entry[] */
	/*
	 * Where pages of code are: by the low bits of a page's serial number its linear address, with the high bits of the
	 * number in place of the offset; or 0. And by linear address where in that table it is, if it is.
	 */
	uint64_t page[JC_PAGES];
	uint16_t page_at[JC_PAGES];
	uint16_t page_log[JC_PAGE_LOG];
	uint32_t pages_used; /* entries in the log; > JC_PAGE_LOG: the log is not complete */
	uint32_t mode; /* the block mode that all entries have */
	uint32_t used; /* entries in the log; > JC_LOG: the log is not complete */
	uint16_t log[JC_LOG];
	uint64_t filter[64]; /* may the page (hash of its number) have entries? */
	bool has_local;	    /* an entry's page is not global */
};

/* What is known of a table; the entries are apart. */
struct tlb_table {
	uint32_t mask;	    /* for an address shifted right by TLB_SHIFT: gives the entry's byte offset; tlb_mask of the vCPU is a copy */
	uint32_t filled;    /* entries in the log; > TLB_LOG: the log is not complete */
	uint32_t conflicts; /* good entries that were replaced since the table has its size */
	uint16_t log[TLB_LOG];
};
#define TLB_SHIFT 7 /* page number to byte offset of the entry */

/* One address space: what the host GS base points at. */
struct tlb_slot {
	_Alignas(4096) struct tlb_entry table[TLB_CLASSES][TLB_ENTRIES_MAX]; /* whole pages */
	struct tlb_table info[TLB_CLASSES];
	struct itlb_entry itlb[TLB_CLASSES - 1][ITLB_ENTRIES]; /* TLB_USER, TLB_SUPER */
	struct jump_cache jc; /* user code */
	bool itlb_used[TLB_CLASSES - 1];
	uint64_t large_2m[8], large_1g; /* filters: may there be entries cut out of a large page here? */
	bool ready; /* tables have been filled with invalid entries once */
	bool valid;
	uint16_t pcid;
	uint64_t last_use;
};
#define TLB_SLOTS 8

static inline unsigned jc_page_index(uint32_t serial)
{
	return serial & (JC_PAGES - 1);
}

/* Not 0, and less than a page: there are never as many pages of code. */
static inline uint32_t jc_page_low(uint32_t serial)
{
	return serial / JC_PAGES;
}

/* The addresses of a page have 4,096 entries next to each other. */
static inline unsigned jc_index(uint64_t lin)
{
	return (unsigned)(lin ^ lin >> 16) & (JC_ENTRIES - 1);
}

static inline unsigned tlb_index(const struct tlb_slot *s, unsigned class, uint64_t lin)
{
	return (unsigned)(lin >> TLB_SHIFT & s->info[class].mask) / sizeof(struct tlb_entry);
}

/* ---- Blocks --------------------------------------------------------------------------------------- */

#define MODE_PRIVATE_TWIN (1u << 26)   /* every memory access is checked by itself (tr_group.c) */
#define MODE_PRIVATE_EDGE (1u << 27)   /* 64-bit code within EDGE_BYTES of addresses that are not canonical */
#define MODE_PRIVATE_BREAK (1u << 28)  /* the debugger has breakpoints: every block ends in C */
#define MODE_PRIVATE_NO_JC (1u << 29)  /* the jump cache holds code of another mode */
#define MODE_PRIVATE_BOUNCE (1u << 30) /* one instruction, every memory access through C */
#define EDGE_BYTES (64u << 20)

/* One byte a RAM page (engine->page_state). */
enum { PAGE_CODE = 0x80, PAGE_OWNER_MASK = 0x7f, PAGE_OWNER_MANY = 0x7f };

#define BLOCK_HASH_BITS 17
#define INSN_HASH_BITS 10
#define BLOCK_INSNS_MAX 64
#define CODE_CACHE_BYTES (160u << 20)
#define CODE_HOT_BYTES (104u << 20) /* the part for straight paths; the rest is for cold ones */
#define META_BYTES (128u << 20)
#define CACHE_BLOCK_ROOM (64u << 10) /* more than any block takes */

/* Each optimization can be switched off, for tests (environment variable MARU_BT_DEBUG). */
enum bt_options {
	BT_OPT_EXACT_FLAGS = 1, /* no dead flags */
	BT_OPT_SINGLE = 2,	/* one instruction a block */
	BT_OPT_NO_LINK = 4,	/* every block ends in C */
	BT_OPT_BOUNCE = 8,	/* all memory through C */
	BT_OPT_NO_GROUP = 16,	/* every access is checked by itself */
	BT_OPT_NO_FAR = 32,	/* jumps to other pages go by the jump cache */
	BT_OPT_NO_RING = 64,	/* returns, too */
	BT_OPT_SMALL_TLB = 128,	/* its tables do not grow */
	BT_OPT_POLL = 1 << 15,	/* every polling point leaves translated code: events are seen wherever they can be */
	BT_OPT_PERF_MAP = 1 << 14, /* not that: writes /tmp/perf-PID.map */
};

struct bt_engine {
	struct engine base; /* first */
	struct memory *mem;
	struct loop *loop;
	uint64_t (*vm_time_ns)(void *opaque);
	void *vm_time_opaque;
	unsigned vcpu_count;
	struct bt_vcpu **vcpus;
	struct decode_features features;
	struct cpuid_model *cpuid;
	pthread_mutex_t tsc_lock;
	uint64_t tsc_hz; /* 0 until a vCPU runs */
	uint64_t tsc_first, tsc_first_ns; /* the host's TSC and monotonic clock when the engine was made */
	uint64_t tsc_start; /* of the host, when the vCPUs were reset */
	bool paravirt;
	struct pv_clock clock;

	_Atomic uint32_t lock;

	/* Code cache: one memfd, mapped writable and executable at different addresses. */
	uint8_t *cache_rw, *cache_rx;
	uint32_t cache_used, cold_used, cache_stubs_end;
	uint64_t cache_flushes; /* blocks from before the last one are gone */
	uint32_t newest, pages; /* block, code_page */
	uint32_t serial;	/* how many pages of code there have been */
	uint8_t *meta; /* records: blocks.h, and struct insn */
	uint32_t meta_used, insns_start;
	uint32_t hash[1u << BLOCK_HASH_BITS];	/* of blocks */
	uint32_t insns[1u << INSN_HASH_BITS];	/* instructions that C functions are called with, each once */
	uint32_t *code_pages; /* by RAM page index, lazily mapped */
	_Atomic uint8_t *page_state;
	struct dirty_log dirty; /* written pages, when somebody wants to know: see own_page() */
	uint64_t page_count;
	_Atomic uint32_t given_up; /* counts pages that are no longer watched */

	/* Positions of the generated stubs. */
	struct {
		uint32_t enter;	      /* C: enum exit_reason (struct bt_vcpu *, const void *code) */
		uint32_t exit_tail;   /* eax: reason; registers are stored */
		uint32_t lookup_host; /* T0: linear target; flags in RFLAGS */
		uint32_t lookup_mem;  /* the same, flags in aflags */
		uint32_t link_host, link_mem; /* T1: link */
		uint32_t link_far;    /* the same, T0: linear target; flags in aflags */
		uint32_t step_done;   /* T0: linear address of the next instruction; flags in aflags */
		uint32_t bounce;      /* T0: linear address of the instruction; flags in aflags */
		uint32_t mem_slow, group_slow, bounce_in, bounce_out, call_op; /* called */
		uint32_t jump_user, jump_kernel; /* T0: linear target, by the jump cache; flags in aflags */
		uint32_t call_user, call_kernel; /* the same, by a host's CALL */
	} stub;

	/* Stop the world: one vCPU runs C code while no other is in translated code or light code. */
	_Atomic uint32_t exclusive; /* index + 1 of who wants or has it */
	bool has_xsave, has_bmi2, has_fsgsbase;
	uint64_t host_xcr0;
	uint32_t debug_opts; /* enum bt_options */
	int perfmap_fd;	     /* -1: none */
	struct tr *tr;	     /* the translator's work space; under the lock */
};

/* Why translated code was left. */
enum exit_reason {
	EXIT_LOOKUP,	/* v->exit_target is the linear address to go on at */
	EXIT_LINK,	/* where v->exit_link leads to; it can be patched */
	EXIT_FAR,	/* as LOOKUP, and v->exit_link can be patched */
	EXIT_FAULT,	/* v->exception, v->rip at the instruction */
	EXIT_OP,	/* an op ended the block: v->rip is set */
	EXIT_BOUNCE,	/* v->rip: run this instruction through C accesses */
	EXIT_STEPPED,	/* a one-instruction block is done, v->rip is set */
	EXIT_REASONS,
};

enum vcpu_requests {
	REQ_STOP = 1,
	REQ_NMI = 2,
	REQ_INIT = 4,
	REQ_SIPI = 8,
	REQ_WRITE_FLUSH = 16, /* forget which pages may be written */
	REQ_UNHALT = 32,      /* paravirtual: ends a HLT, also one to come */
};

struct bt_stats {
	uint64_t exits, translations, insns, guest_bytes, host_bytes, tlb_fills, slow_accesses,
		bounces, smc_invalidations, interrupts, exceptions, calls, jc_fills, links, flushes, halts,
		apic_reads, apic_writes;
	uint64_t exits_by_reason[EXIT_REASONS], op_calls[OP_COUNT];
};

#define MAY_WRITE_BYTES 16384u
static inline unsigned may_write_index(uint64_t gpa)
{
	return (unsigned)(gpa >> 12) & (MAY_WRITE_BYTES - 1);
}

#define BOUNCE_BYTES 512
#define VCPU_STACK_BYTES (256u << 10)

struct bt_private {
	struct x86_xstate xstate; /* the guest's, in heavy sections; 64-byte aligned */
	_Alignas(64) uint8_t bounce[BOUNCE_BYTES];
	uint64_t bounce_lin;
	uint32_t bounce_size;
	bool bounce_direct;  /* the operand is in place, at bounce_gpa */
	uint64_t bounce_gpa;
	bool atomic;	     /* the running block is, and other vCPUs run */
	bool lock_splits;    /* its operand lies on two pages: they must not */
	const struct insn *masked; /* the instruction in the bounce buffer has a masked operand; else NULL */
	uint64_t active;	   /* and these elements of it are accessed */

	struct tlb_slot *slot, *slots; /* current; array of TLB_SLOTS */
	uint64_t slot_clock;
	/* By a hash of the RAM page: may the TLB have an entry that allows writes? Others read it. */
	_Atomic uint8_t may_write[MAY_WRITE_BYTES];

	_Atomic uint32_t requests;
	uint8_t sipi_vector;
	bool interrupt_taken; /* loaded with the state: @interrupt is to be delivered first */
	uint8_t interrupt;
	_Atomic uint32_t in_guest; /* 1: in light or translated code: others wait for it */
	_Atomic uint32_t wake;	   /* futex: bumped by kicks */
	unsigned heavy_depth;
	struct vcpu_debug debug;
	bool breakpoints; /* the debugger has some */
	bool in_single;	  /* a one-instruction block runs: ops come back to the run loop */
	bool debug_hit;
	uint64_t debug_address;
	bool debug_is_watch;
	bool debug_resume;	/* the debugger goes on from where it stopped */
	bool triple_fault;
	uint64_t step_dr6; /* data and I/O breakpoints that the running instruction hit */
	uint64_t held_dr6; /* and those of a MOV SS before it */
	struct bt_stats stats;
	struct pv_vcpu pv;
};

/* What follows struct bt_vcpu in memory at a constant distance, reached from rsp. */
struct bt_vcpu_block {
	struct bt_vcpu v;
	_Alignas(64) struct jump_cache kernel_jc;
};
#define KERNEL_JC_OFF ((int32_t)offsetof(struct bt_vcpu_block, kernel_jc))
#define USER_JC_OFF ((int32_t)offsetof(struct tlb_slot, jc))
static inline struct jump_cache *bt_kernel_jc(struct bt_vcpu *v)
{
	return &((struct bt_vcpu_block *)v)->kernel_jc;
}

/* ---- light lock (lock.c) ------------------------------------------------------------------------- */
void bt_lock(_Atomic uint32_t *lock);
void bt_unlock(_Atomic uint32_t *lock);
long bt_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns); /* 0: for ever */
void bt_futex_wake(_Atomic uint32_t *word);
void bt_give_back(void *p, uint64_t bytes); /* whole pages whose contents are not needed any more */
void bt_write(int fd, const void *data, size_t len); /* what cannot be written is lost */

/* ---- tlb.c ---------------------------------------------------------------------------------------- */
struct tlb_page {
	uint64_t gpa;  /* page of the linear address */
	bool writable, user, nx, global, dirty, large, large_1g;
};
/* A walk with the access rights check; on BT_FAULT v->exception is set. Sets A, and D when @access writes. */
enum bt_result tlb_walk(struct bt_vcpu *v, uint64_t lin, unsigned access, struct tlb_page *out);
/* Walk without side effects or checks, for the debugger; false: not mapped. */
bool tlb_walk_quiet(struct bt_vcpu *v, uint64_t lin, uint64_t *gpa);
enum tlb_class tlb_class_of(const struct bt_vcpu *v, unsigned access);
/*
 * The host page of @lin for @access (BT_READ, BT_WRITE, BT_RMW and flags), through the table of the access's class, which is
 * filled. *host NULL: not RAM; then, and always, *gpa is the guest-physical page. *code: a write, and the page
 * holds translated code: call cache_invalidate.
 */
enum bt_result tlb_lookup(struct bt_vcpu *v, uint64_t lin, unsigned access, uint8_t **host,
			  uint64_t *gpa, bool *code);
/* Guest-physical page of code at @lin for the current mode. */
enum bt_result tlb_fetch(struct bt_vcpu *v, uint64_t lin, uint64_t *gpa, bool *global);
void tlb_init(struct bt_vcpu *v);	  /* own thread or none: first slot */
void tlb_bind(struct bt_vcpu *v);	  /* own thread: sets the GS base to the current slot */
void tlb_revoke_writes(struct bt_vcpu *v); /* own thread: no TLB entry allows writes any more */

/* ---- jump_cache.c: own thread --------------------------------------------------------------------- */
void jc_clear(struct bt_vcpu *v, struct jump_cache *jc);
void jc_clear_all(struct bt_vcpu *v);
/* The same, whatever it holds: before its first use. */
void jc_fill(struct bt_vcpu *v, struct jump_cache *jc);
/* What leads to the page of @lin, which another one may stand for now. */
void jc_drop_page(struct bt_vcpu *v, struct jump_cache *jc, uint64_t lin);
void jc_insert(struct bt_vcpu *v, uint64_t lin, const struct block *b, bool global);
/* A block of the page is entered without the jump cache. */
void jc_note(struct bt_vcpu *v, uint64_t lin, const struct block *b, bool global);

/* ---- blocks.c: lock held ----------------------------------------------------------------------------- */
/* The block there, also one that is on @page2 as its second page (NO_PAGE: any); or NULL. */
struct block *blocks_find(struct bt_engine *e, uint64_t gpa, uint32_t page2, uint32_t mode);
/* Makes the block known: wholly, or not at all (false: no room). */
bool blocks_add(struct bt_engine *e, struct block *b);
void blocks_drop(struct bt_engine *e, struct block *b);
void blocks_forget_all(struct bt_engine *e); /* empties the area of records */
struct block *blocks_next_in_page(struct bt_engine *e, struct block *b, uint32_t page);
uint64_t blocks_lines(const struct block *b, uint32_t page);
/* The jump leads to @to from now on, if it may. Takes the lock. */
void blocks_link(struct bt_vcpu *v, uint32_t link, struct block *to);
/* The number by which far entries know the page of a block. */
uint32_t blocks_serial(const struct bt_engine *e, const struct block *b);
/* Is there a block for this address and mode? */
bool blocks_known(struct bt_engine *e, uint64_t gpa, uint32_t mode);
uint32_t blocks_record(struct bt_engine *e, unsigned bytes, unsigned align); /* 0: full */
/* A copy of @i that lasts; NULL: full. */
const struct insn *blocks_insn(struct bt_engine *e, const struct insn *i);

static inline void *record_at(const struct bt_engine *e, uint32_t ref)
{
	return e->meta + ref;
}

static inline uint32_t record_of(const struct bt_engine *e, const void *record)
{
	return (uint32_t)((const uint8_t *)record - e->meta);
}

static inline struct block *block_at(const struct bt_engine *e, uint32_t ref)
{
	return ref ? record_at(e, ref) : NULL;
}

static inline struct link *link_at(const struct bt_engine *e, uint32_t ref)
{
	return ref ? record_at(e, ref) : NULL;
}

static inline struct code_page *code_page_at(const struct bt_engine *e, uint32_t ref)
{
	return ref ? record_at(e, ref) : NULL;
}

/* ---- cache.c --------------------------------------------------------------------------------------- */
/* The block for v->rip and mode, translated when needed; NULL: v->exception is pending. */
struct block *cache_get(struct bt_vcpu *v, uint32_t mode, bool *global);
/* The guest wrote or a device wrote: drop blocks made from [gpa, gpa+len), within one page. True: some were. */
bool cache_invalidate(struct bt_engine *e, uint64_t gpa, unsigned len);
void cache_flush(struct bt_engine *e); /* exclusive */
/* For a host position: its block, or NULL. For signal handlers: takes no lock. */
struct block *cache_find_host(struct bt_engine *e, uint32_t pos);
static inline uint64_t ram_page_index(const struct bt_engine *e, uint64_t gpa)
{
	return gpa >> 12;
}

/* ---- translate.c ------------------------------------------------------------------------------------ */
/*
 * Translates at @gpa, whose page can be read at @bytes; the second page is that number or NO_PAGE, at @bytes2 or NULL.
 * Lock held. NULL: cache full. Its guest_len is 0
 * when the first instruction goes on in a second page, and that was not given.
 */
struct block *translate(struct bt_vcpu *v, uint64_t gpa, const uint8_t *bytes, uint32_t page2,
			const uint8_t *bytes2, uint32_t mode);

/* Jumps to the block of linear address T0 by the jump cache of user or kernel code, as a host's RET if @ret; flags in aflags. */
void emit_jump_by_cache(struct emit *e, bool user, bool bmi2, bool ret);
/* An instruction with a field of the current jump cache, at @index (or H_NONE) << @scale bytes from it. */
void emit_jump_cache_op(struct emit *e, bool user, bool w, unsigned op, unsigned reg, uint8_t index, unsigned scale, size_t field);

/* ---- stubs.c ------------------------------------------------------------------------------------------ */
void stubs_generate(struct bt_engine *e);
/* @code: a block's mem_entry, or a stub that takes T0 := v->exit_target. */
enum exit_reason stubs_enter(struct bt_vcpu *v, const void *code);

/* ---- signals.c ---- */
void bt_signal_install(void);
extern __thread struct bt_vcpu *bt_this_vcpu; /* in translated code */

/* ---- perfmap.c ---- */
/* v->rip is where the block starts; lock held */
void perfmap_block(struct bt_vcpu *v, const struct block *b);
void perfmap_far_entry(struct bt_vcpu *v, const struct block *b); /* just made */

/* ---- stats.c ---- */
const char *bt_op_name(unsigned op); /* of those from OP_FIRST_CALL on; else NULL */

/* ---- access.c, heavy.c ---- */
uint64_t bt_mmio_read(struct bt_vcpu *v, uint64_t gpa, unsigned size);
void bt_mmio_write(struct bt_vcpu *v, uint64_t gpa, uint64_t value, unsigned size);
int bt_chip_ack(struct bt_vcpu *v); /* -1: none */

/* ---- pv.c: in heavy sections ---- */
enum bt_pv_msr { BT_PV_OTHER, BT_PV_DONE, BT_PV_BAD };
bool bt_pv_read_msr(struct bt_vcpu *v, uint32_t msr, uint64_t *value);
enum bt_pv_msr bt_pv_write_msr(struct bt_vcpu *v, uint32_t msr, uint64_t value);
void bt_pv_run_begin(struct bt_vcpu *v); /* around bt_run() */
void bt_pv_run_end(struct bt_vcpu *v);
void bt_pv_tsc_moved(struct bt_vcpu *v);
void bt_pv_interrupt(struct bt_vcpu *v, int vector); /* with the machine's lock, as the next */
void bt_pv_settle(struct bt_vcpu *v);
bool bt_pv_hypercall(struct bt_vcpu *v, bool wide, int64_t *result); /* false: there are none */
void bt_request(struct bt_vcpu *v, uint32_t bit); /* vm.c; any thread */
/* heavy.c: for the run loop, takes the lock */
void bt_chip_settle(struct bt_vcpu *v);

/* ---- masked.c ---- */
bool bt_masked_in(struct bt_vcpu *v, unsigned seg, uint64_t offset, unsigned access); /* false: exception */
bool bt_masked_out(struct bt_vcpu *v);

/* ---- debug.c ---- */
/* In one-instruction blocks: notes hits of data breakpoints and watchpoints. */
void debug_data_access(struct bt_vcpu *v, uint64_t lin, unsigned len, bool write);
void debug_port_access(struct bt_vcpu *v, uint16_t port, unsigned size);

/* ---- run.c ---------------------------------------------------------------------------------------------- */
/* Called from the stubs. */
uint64_t bt_mem_slow(struct bt_vcpu *v, uint64_t offset, uint32_t info);
/* The same for the first access of a group; v->scratch[3]: group_info(). 1: v->group[] is set; 2: to the twin. */
uint64_t bt_group_slow(struct bt_vcpu *v, uint64_t offset, uint32_t info);
static inline uint32_t group_info(unsigned span, unsigned first, bool writes, unsigned slot, bool pc)
{
	return span | first << 10 | (uint32_t)writes << 20 | slot << 21 | (uint32_t)pc << 24;
}
uint64_t bt_bounce_in(struct bt_vcpu *v, uint64_t offset, uint32_t info);
uint64_t bt_bounce_out(struct bt_vcpu *v);
enum call_op_result { CALL_OP_GO_ON, CALL_OP_LEAVE, CALL_OP_USER, CALL_OP_KERNEL };
/* @info: page offset of the instruction, and: */
#define CALL_OP_LAST (1u << 13) /* it is the block's last */
uint64_t bt_call_op(struct bt_vcpu *v, const struct insn *i, uint32_t info);
/*
 * info of a memory access: bits 0–12 page offset of the instruction, 13–20 size, 23–24 access, 25–27 segment,
 * 28–29 alignment whose lack is #GP (1, 2, 3: 16, 32, 64 bytes), and the following.
 */
#define MEM_ALIGN_AT 28
#define MEM_X87 (1u << 21)    /* of a waiting x87 or MMX instruction */
#define MEM_MMX (1u << 22)    /* of an MMX instruction */
#define MEM_NO_AC (1u << 30)  /* never #AC */
#define MEM_MASKED (1u << 31) /* an operand under a mask */
static inline uint32_t mem_info(unsigned guest_off, unsigned size, unsigned access, unsigned seg)
{
	return guest_off | size << 13 | access << 23 | seg << 25;
}

/* What user code with alignment checking on must align the access to (SDM vol. 3, table 6-7); 0: nothing. */
static inline unsigned mem_checked_alignment(uint32_t info)
{
	unsigned size = info >> 13 & 0xff;

	if ((info & MEM_NO_AC) || size <= 1)
		return 0;
	return size == 10 ? 8 : size & (size - 1) ? 0 : size;
}

void run_serve_write_flush(struct bt_vcpu *v); /* REQ_WRITE_FLUSH, if it is asked for */
/* Waits until no other vCPU's TLB allows writes (each has served REQ_WRITE_FLUSH). */
void run_revoke_writes_all(struct bt_engine *e, struct bt_vcpu *v); /* @v: the caller; NULL: no vCPU, without the machine's lock */

void exclusive_begin(struct bt_vcpu *v);
void exclusive_end(struct bt_vcpu *v);
void bt_guest_enter(struct bt_vcpu *v); /* light code begins: waits while somebody has the world stopped */
void bt_guest_leave(struct bt_vcpu *v);

#endif
