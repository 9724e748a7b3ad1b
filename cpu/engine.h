/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one interface to an engine: what executes guest instructions. Nothing outside cpu/ knows which
 * engine runs.
 *
 * Theory of operation. engine_create() binds an engine to the guest-physical memory of one machine.
 * Each vCPU is run by one thread of its own that calls vcpu_run() in a loop. Port and MMIO accesses go to
 * the machine's buses from inside vcpu_run(), with the machine's lock (the loop's) taken by the engine.
 * HLT sleeps inside vcpu_run(). State is read and written by register group while the vCPU is stopped.
 *
 * Interrupts: the machine's local APIC tells the engine that something may have changed (vcpu_kick), and
 * the engine asks it back through struct vcpu_irqchip at the next instruction boundary. An engine may have local APICs of its own
 * (engine_has_lapics): then the machine's rest, messages go to engine_send_msi(), and what the engine needs of the other interrupt
 * controllers is in struct engine_board.
 */
#ifndef CPU_ENGINE_H
#define CPU_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "cpu/x86.h"
#include "mem/memory.h"

struct engine;
struct vcpu;

enum engine_kind { ENGINE_AUTO, ENGINE_BT, ENGINE_KVM };

struct engine_config {
	enum engine_kind kind;
	unsigned vcpu_count;
	struct memory *mem;
	struct loop *loop; /* whose lock is the machine's lock */
	uint64_t (*vm_time_ns)(void *opaque); /* the VM clock; any thread */
	void *vm_time_opaque;
	int kvm_fd;    /* /dev/kvm, for ENGINE_KVM and ENGINE_AUTO; -1: none; stays the caller's */
	bool paravirt; /* the guest is offered KVM's paravirtual interfaces (cpu/pv.h) */
};

/*
 * What a vCPU asks of its local APIC. All but has_interrupt are called with the machine's lock held.
 */
struct vcpu_irqchip {
	void *opaque;
	/* Is there an interrupt to deliver (IF aside)? Cheap; any thread, no lock: a hint before ack(). */
	bool (*has_interrupt)(void *opaque);
	/* Takes it: the vector, or -1 when it went away. */
	int (*ack)(void *opaque);
	/* xAPIC page; @offset 0..0xfff, 32-bit accesses at multiples of 16 (others: as the chip documents). */
	uint32_t (*mmio_read)(void *opaque, uint32_t offset);
	void (*mmio_write)(void *opaque, uint32_t offset, uint32_t value);
	/* IA32_APIC_BASE (0x1b) and x2APIC MSRs 0x800–0x8ff; false: #GP. */
	bool (*msr_read)(void *opaque, uint32_t msr, uint64_t *value);
	bool (*msr_write)(void *opaque, uint32_t msr, uint64_t value);
	/* Where the xAPIC page is now; ~0 when not memory-mapped. Any thread (a 64-bit atomic load). */
	uint64_t (*mmio_base)(void *opaque);
	/* CR8: task priority, 0..15. */
	uint8_t (*get_tpr)(void *opaque);
	void (*set_tpr)(void *opaque, uint8_t tpr);
	/* IA32_TSC_DEADLINE: raw guest TSC value and the same instant on the VM clock; 0, 0 disarms. */
	void (*set_tsc_deadline)(void *opaque, uint64_t guest_tsc, uint64_t deadline_ns);
	uint64_t (*get_tsc_deadline)(void *opaque);
	/* Paravirtual interfaces; NULL: without. An IPI to one APIC id, command as in the ICR; whether somebody has that id. */
	bool (*send_ipi)(void *opaque, uint32_t apic_id, uint32_t icr);
	/*
	 * May the EOI of @vector, just acknowledged, come later, without the chip? Then the chip kicks when anything else
	 * comes, and settle_eoi is called in any case: @done, the guest has ended it, or it will by the chip.
	 */
	bool (*defer_eoi)(void *opaque, uint8_t vector);
	void (*settle_eoi)(void *opaque, bool done);
};

enum vcpu_exit_reason {
	VCPU_EXIT_STOPPED,  /* vcpu_request_stop() was honoured */
	VCPU_EXIT_DEBUG,    /* breakpoint, watchpoint or step that the debugger asked for */
	VCPU_EXIT_SHUTDOWN, /* triple fault: the machine resets, or ends with @message */
	VCPU_EXIT_ERROR,    /* the engine cannot go on; @message says why */
};

struct vcpu_exit {
	enum vcpu_exit_reason reason;
	uint64_t debug_address; /* EXIT_DEBUG: of a watchpoint that hit, else the guest-virtual RIP */
	bool debug_watch;
	char message[192];
};

struct error *engine_create(const struct engine_config *config, struct engine **out) MUST_CHECK;
void engine_destroy(struct engine *e); /* NULL-safe; all vCPUs stopped and their threads gone */
const char *engine_name(const struct engine *e); /* "bt", "kvm" */
/* Why this engine: a sentence for people when it was ENGINE_AUTO's choice, else "". */
const char *engine_reason(const struct engine *e);
/* The ioctl requests that its vCPUs' and the loop's threads make once it exists, for the sandbox; none: *count is 0. */
const uint32_t *engine_ioctls(const struct engine *e, unsigned *count);

/* The vCPU with APIC id @index; made with the engine, in the state after RESET, BSP (0) running, APs waiting for SIPI. */
struct vcpu *engine_vcpu(struct engine *e, unsigned index);
void vcpu_set_irqchip(struct vcpu *v, const struct vcpu_irqchip *chip); /* copied; before the first run */

/*
 * Local APICs of the engine's own. The functions from here to vcpu_set_lapic() are for such an engine only. In the state after
 * vcpu_reset() they are as after power-on.
 */
bool engine_has_lapics(const struct engine *e);
struct engine_board {
	void *opaque;
	int (*ack)(void *opaque); /* a processor takes the 8259's interrupt: the vector, or -1 when it went away */
	void (*eoi)(void *opaque, uint8_t vector); /* a level-triggered interrupt has ended */
};
void engine_set_board(struct engine *e, const struct engine_board *board); /* copied; before the first run */
/* A message as in struct msi_sink, fixed or lowest priority, SMI, NMI, INIT or ExtINT. Any thread. */
void engine_send_msi(struct engine *e, uint64_t address, uint32_t data);
/*
 * From now on (@on) a signal on @fd, an eventfd, is this message, from any thread and without a call; or (!@on) no longer. One descriptor
 * is one message at a time. False: the engine does not listen to @fd. With the machine's lock held.
 */
bool engine_set_irqfd(struct engine *e, int fd, bool on, uint64_t address, uint32_t data);
/* The wire from the 8259 to all LINT0. With the machine's lock held. */
void engine_set_intr(struct engine *e, bool level);
/*
 * What an I/O APIC's input (below ENGINE_PINS) sends when it is asserted: the engine reports the end of interrupts that level-triggered
 * ones have sent. With the machine's lock held.
 */
#define ENGINE_PINS 24u
void engine_set_pin(struct engine *e, unsigned pin, bool masked, uint64_t address, uint32_t data);
/* Stopped. Its registers that the guest cannot write are the engine's own. */
void vcpu_get_lapic(struct vcpu *v, struct x86_lapic *out);
void vcpu_set_lapic(struct vcpu *v, const struct x86_lapic *in);

/*
 * Executes guest code in the calling thread until there is a reason to return. The machine's lock is not
 * held by the caller. The first call binds the vCPU to its thread.
 */
void vcpu_run(struct vcpu *v, struct vcpu_exit *exit);

/* Any thread, any lock state; return at once. */
void vcpu_kick(struct vcpu *v);		/* look at pending interrupts and requests again */
void vcpu_request_stop(struct vcpu *v); /* vcpu_run returns EXIT_STOPPED soon; the next vcpu_run goes on */
void vcpu_nmi(struct vcpu *v);
void vcpu_init(struct vcpu *v);		      /* INIT: AP waits for SIPI, BSP starts at the reset vector */
void vcpu_sipi(struct vcpu *v, uint8_t vector);

/* RESET of the CPU; stopped. Also forgets debug settings' hits but keeps breakpoints. */
void vcpu_reset(struct vcpu *v);

/* Stopped vCPU only. Setting makes no checks beyond memory safety: a loader may set what it likes. */
void vcpu_get_regs(struct vcpu *v, struct x86_regs *out);
void vcpu_set_regs(struct vcpu *v, const struct x86_regs *in);
void vcpu_get_sregs(struct vcpu *v, struct x86_sregs *out);
void vcpu_set_sregs(struct vcpu *v, const struct x86_sregs *in);
void vcpu_get_xstate(struct vcpu *v, struct x86_xstate *out);
void vcpu_set_xstate(struct vcpu *v, const struct x86_xstate *in);
bool vcpu_get_msr(struct vcpu *v, uint32_t msr, uint64_t *value);
bool vcpu_set_msr(struct vcpu *v, uint32_t msr, uint64_t value);
void vcpu_get_events(struct vcpu *v, struct x86_events *out);
void vcpu_set_events(struct vcpu *v, const struct x86_events *in);
/* Running, halted, or an AP that waits for SIPI. Any time: of a vCPU that runs it may be what was so when it began to. */
enum vcpu_activity { VCPU_RUNNING, VCPU_HALTED, VCPU_WAIT_SIPI } vcpu_activity(struct vcpu *v);

/* Guest-virtual to guest-physical with the vCPU's current paging, without side effects. Stopped vCPU. */
bool vcpu_translate(struct vcpu *v, uint64_t gva, uint64_t *gpa);

/* Debugger. The whole set is replaced each time. Stopped vCPU only. */
#define VCPU_DEBUG_POINTS 64
struct vcpu_debug {
	bool single_step;
	unsigned count;
	struct {
		uint64_t gva;
		uint8_t length; /* watchpoints: 1, 2, 4, 8 */
		enum { VCPU_BREAK_EXEC, VCPU_WATCH_WRITE, VCPU_WATCH_READ, VCPU_WATCH_ACCESS } kind;
	} point[VCPU_DEBUG_POINTS];
};
void vcpu_set_debug(struct vcpu *v, const struct vcpu_debug *debug);

/*
 * Which pages of RAM are written, by the guest or by who says so (mem_write(), mem_written()). After a fetch, what it has reported may be
 * copied: all writes are in the copy, or are reported by a later fetch. The first copy of all is made after the start. With all vCPUs
 * stopped a fetch is exact, else it may have more, or come to a write by the next time.
 *
 * By one thread at a time, and not with the machine's lock held: vCPUs may have to answer.
 */
struct error *engine_dirty_start(struct engine *e) MUST_CHECK;
/* Bit n of @bitmap, of a multiple of 64 bits: page n from @gpa on. All of them lie in one of the two areas of RAM. */
void engine_dirty_fetch(struct engine *e, uint64_t gpa, uint64_t pages, uint64_t *bitmap);
void engine_dirty_stop(struct engine *e);

/* One named counter after the other, for the control socket; @group is NULL or what they are kinds of. Any time. */
typedef void engine_counter_fn(void *opaque, const char *group, const char *name, uint64_t value);
void engine_statistics(struct engine *e, engine_counter_fn *each, void *opaque);

/* CPUID as the guest sees it (cpu/cpuid.c). */
struct cpuid_result {
	uint32_t eax, ebx, ecx, edx;
};
/* Without what is each vCPU's own, or changes with its registers. */
struct cpuid_result engine_cpuid(const struct engine *e, uint32_t leaf, uint32_t subleaf);

#endif
