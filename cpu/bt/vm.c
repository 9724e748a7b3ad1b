/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator as an engine (cpu/engine.h): making and ending it, the vCPUs' threads. State access is in state.c,
 * host exceptions are in signals.c.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/bt/run.h"
#include "cpu/bt/translate.h"
#include "cpu/cpuid.h"

#define V(v) container_of(v, struct bt_vcpu, base)
#define E(engine) ((struct bt_engine *)(engine))

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1 << 1)
#endif

static const struct engine_ops ops;

/* ---- making ---- */

static void *map_lazily(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* One memfd, writable here and executable there, sealed against any other mapping's changes. */
static struct error *map_cache(struct bt_engine *e)
{
	int fd = memfd_create("maru-code", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return error_errno(errno, "cannot make the code cache");
	if (ftruncate(fd, CODE_CACHE_BYTES) < 0) {
		close(fd);
		return error_errno(errno, "cannot size the code cache");
	}
	e->cache_rw = mmap(NULL, CODE_CACHE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	e->cache_rx = mmap(NULL, CODE_CACHE_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
	close(fd);
	if (e->cache_rw == MAP_FAILED || e->cache_rx == MAP_FAILED)
		return error_errno(errno, "cannot map %llu MiB for translated code",
				   (unsigned long long)(CODE_CACHE_BYTES >> 20));
	return NULL;
}

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* The host's TSC and CLOCK_MONOTONIC at the same moment: of some attempts the one that was interrupted least. */
static uint64_t read_clocks(uint64_t *ns)
{
	uint64_t best = UINT64_MAX, tsc = 0;

	for (unsigned k = 0; k < 16; k++) {
		uint64_t before = __builtin_ia32_rdtsc(), now = monotonic_ns();
		uint64_t took = __builtin_ia32_rdtsc() - before;

		if (took < best) {
			best = took;
			tsc = before + took / 2;
			*ns = now;
		}
	}
	return tsc;
}

/* The TSCs of all CPUs tick alike and never stop: then one line is true for all vCPUs. */
static bool invariant_tsc(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1u << 8);
}

#define PARAVIRT                                                                                             \
	(PV_CLOCK | PV_NO_IO_DELAY | PV_CLOCK_NEW | PV_STEAL_TIME | PV_EOI | PV_UNHALT | PV_TLB_FLUSH |        \
	 PV_SEND_IPI | PV_POLL_CONTROL | PV_YIELD)

/* What a debug option takes away, to see what an interface is worth: "no-pv-clock" and so on. */
static uint32_t paravirt_wanted(void)
{
	static const struct {
		const char *option;
		uint32_t features;
	} parts[] = {
		{ "no-pv-clock", PV_CLOCK | PV_CLOCK_NEW }, { "no-pv-steal", PV_STEAL_TIME }, { "no-pv-eoi", PV_EOI },
		{ "no-pv-unhalt", PV_UNHALT },		    { "no-pv-flush", PV_TLB_FLUSH },  { "no-pv-ipi", PV_SEND_IPI },
		{ "no-pv-yield", PV_YIELD },
	};
	const char *text = getenv("MARU_BT_DEBUG");
	uint32_t features = PARAVIRT;

	for (unsigned k = 0; text && k < ARRAY_SIZE(parts); k++)
		if (strstr(text, parts[k].option))
			features &= ~parts[k].features;
	return features;
}

/*
 * The TSC's frequency, by how far it has come since the engine was made: what was done meanwhile takes nearly as
 * long as the measurement needs, an error of some 20 ns in 5 ms. Before any vCPU executes an instruction.
 */
#define TSC_WINDOW_NS (5 * NS_PER_MS)
static void settle_tsc(struct bt_engine *e)
{
	uint64_t now, tsc, hz;

	pthread_mutex_lock(&e->tsc_lock);
	if (!e->tsc_hz) {
		now = monotonic_ns() - e->tsc_first_ns;
		if (now < TSC_WINDOW_NS)
			nanosleep(&(struct timespec){ .tv_nsec = (long)(TSC_WINDOW_NS - now) }, NULL);
		tsc = read_clocks(&now) - e->tsc_first;
		hz = (uint64_t)((unsigned __int128)tsc * NS_PER_SEC / (now - e->tsc_first_ns));
		cpuid_model_set_tsc(e->cpuid, hz);
		pv_clock_init(&e->clock, hz, invariant_tsc());
		if (e->paravirt)
			cpuid_add_paravirt(e->cpuid, paravirt_wanted() | (e->clock.stable ? PV_CLOCK_STABLE : 0), hz);
		__atomic_store_n(&e->tsc_hz, hz, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&e->tsc_lock);
}

static uint64_t host_xcr0(void)
{
	uint32_t lo, hi;

	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return ((uint64_t)hi << 32 | lo) & (X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512);
}

static void probe_host(struct bt_engine *e)
{
	__builtin_cpu_init();
	e->has_bmi2 = __builtin_cpu_supports("bmi2");
	e->has_fsgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	e->has_xsave = __builtin_cpu_supports("avx");
	e->host_xcr0 = e->has_xsave ? host_xcr0() : 0;
	e->tsc_first = read_clocks(&e->tsc_first_ns);
}

static uint32_t debug_options(void)
{
	static const struct {
		const char *name;
		uint32_t option;
	} known[] = {
		{ "exact-flags", BT_OPT_EXACT_FLAGS }, { "single", BT_OPT_SINGLE },	{ "no-group", BT_OPT_NO_GROUP },
		{ "no-far", BT_OPT_NO_FAR },	       { "no-ring", BT_OPT_NO_RING },	{ "no-link", BT_OPT_NO_LINK },
		{ "small-tlb", BT_OPT_SMALL_TLB },     { "bounce", BT_OPT_BOUNCE },	{ "poll", BT_OPT_POLL },
		{ "perf-map", BT_OPT_PERF_MAP },
	};
	const char *text = getenv("MARU_BT_DEBUG");
	uint32_t opts = 0;

	for (unsigned k = 0; text && k < ARRAY_SIZE(known); k++)
		if (strstr(text, known[k].name))
			opts |= known[k].option;
	return opts;
}

static void bt_engine_destroy(struct engine *engine);

/* The stubs, in the order in which they lie in the cache; blocks follow as they are made. */
static struct error *perfmap_open(struct bt_engine *e)
{
	const struct {
		const char *name;
		uint32_t at;
	} stubs[] = {
		{ "enter", e->stub.enter },
		{ "exit", e->stub.exit_tail },
		{ "mem_slow", e->stub.mem_slow },
		{ "bounce_in", e->stub.bounce_in },
		{ "bounce_out", e->stub.bounce_out },
		{ "call_op", e->stub.call_op },
		{ "call_kernel", e->stub.call_kernel },
		{ "jump_kernel", e->stub.jump_kernel },
		{ "call_user", e->stub.call_user },
		{ "jump_user", e->stub.jump_user },
		{ NULL, e->cache_stubs_end },
	};
	char path[32];

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	e->perfmap_fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (e->perfmap_fd < 0)
		return error_errno(errno, "cannot make '%s', which MARU_BT_DEBUG=perf-map asks for", path);
	for (unsigned k = 0; stubs[k].name; k++)
		dprintf(e->perfmap_fd, "%llx %x stub %s\n", (unsigned long long)(uintptr_t)(e->cache_rx + stubs[k].at),
			stubs[k + 1].at - stubs[k].at, stubs[k].name);
	return NULL;
}

static struct error *make_vcpu(struct bt_engine *e, unsigned index)
{
	uint64_t bytes = VCPU_STACK_BYTES + align_up(sizeof(struct bt_vcpu_block), 4096);
	uint8_t *area = map_lazily(bytes);
	struct bt_private *p = map_lazily(align_up(sizeof(*p), 4096));
	struct tlb_slot *slots = map_lazily(TLB_SLOTS * sizeof(*slots));

	if (!area || !p || !slots)
		return error_errno(ENOMEM, "cannot make vCPU %u", index);
	mprotect(area, 4096, PROT_NONE); /* the stack's guard */

	struct bt_vcpu *v = (struct bt_vcpu *)(area + VCPU_STACK_BYTES);

	v->base.ops = &ops;
	v->engine = e;
	v->index = index;
	v->priv = p;
	v->cpuid = e->cpuid;
	p->slots = slots;
	p->heavy_depth = 1; /* C runs outside of vcpu_run */
	e->vcpus[index] = v;
	tlb_init(v);
	bt_init_cpu(v, true);
	return NULL;
}

static struct error *make_engine(const struct engine_config *c, struct bt_engine *e)
{
	struct error *err;

	e->base.ops = &ops;
	e->mem = c->mem;
	e->loop = c->loop;
	e->vm_time_ns = c->vm_time_ns;
	e->vm_time_opaque = c->vm_time_opaque;
	e->vcpu_count = c->vcpu_count;
	e->paravirt = c->paravirt;
	e->debug_opts = debug_options();
	e->page_count = ((c->mem->high_bytes ? MEM_HIGH_BASE + c->mem->high_bytes : c->mem->low_bytes)) >> 12;
	probe_host(e);
	err = map_cache(e);
	if (err)
		return err;
	e->meta = map_lazily(META_BYTES);
	e->meta_used = RECORDS_START;
	e->insns_start = META_BYTES;
	e->tr = map_lazily(align_up(sizeof(*e->tr), 4096));
	e->page_state = map_lazily(align_up(e->page_count, 4096));
	e->code_pages = map_lazily(align_up(e->page_count * sizeof(*e->code_pages), 4096));
	e->vcpus = calloc(e->vcpu_count, sizeof(*e->vcpus));
	e->cpuid = calloc(1, sizeof(*e->cpuid));
	if (!e->meta || !e->tr || !e->page_state || !e->code_pages || !e->vcpus || !e->cpuid)
		return error_errno(ENOMEM, "cannot make the translator");
	cpuid_model_init(e->cpuid, e->vcpu_count);
	cpuid_decode_features(e->cpuid, &e->features);
	stubs_generate(e);
	if (e->debug_opts & BT_OPT_PERF_MAP) {
		err = perfmap_open(e);
		if (err)
			return err;
	}
	for (unsigned k = 0; k < e->vcpu_count; k++) {
		err = make_vcpu(e, k);
		if (err)
			return err;
	}
	return NULL;
}

static void memory_written(void *opaque, uint64_t gpa, uint64_t len)
{
	struct bt_engine *e = opaque;

	dirty_mark_range(&e->dirty, gpa, len);
	atomic_thread_fence(memory_order_seq_cst); /* as for wrote() in access.c */
	while (len) {
		uint64_t n = MIN(len, MEM_PAGE_SIZE - (gpa & 0xfff));

		cache_invalidate(e, gpa, (unsigned)n);
		gpa += n;
		len -= n;
	}
}

struct error *bt_engine_create(const struct engine_config *config, struct engine **out)
{
	struct bt_engine *e;
	struct error *err;

	if (config->vcpu_count < 1 || config->vcpu_count >= PAGE_OWNER_MANY)
		return error_new("%u vCPUs: the translator runs 1 to %u", config->vcpu_count,
				 PAGE_OWNER_MANY - 1);
	e = map_lazily(align_up(sizeof(*e), 4096));
	if (!e)
		return error_errno(ENOMEM, "cannot make the translator");
	e->perfmap_fd = -1;
	err = make_engine(config, e);
	if (err) {
		bt_engine_destroy((struct engine *)e);
		return err;
	}
	bt_signal_install();
	config->mem->on_written = memory_written;
	config->mem->on_written_opaque = e;
	*out = (struct engine *)e;
	return NULL;
}

static void free_vcpu(struct bt_vcpu *v)
{
	if (!v)
		return;
	munmap(v->priv->slots, TLB_SLOTS * sizeof(struct tlb_slot));
	munmap(v->priv, align_up(sizeof(struct bt_private), 4096));
	munmap((uint8_t *)v - VCPU_STACK_BYTES,
	       VCPU_STACK_BYTES + align_up(sizeof(struct bt_vcpu_block), 4096));
}

static void unmap(void *p, uint64_t bytes)
{
	if (p && p != MAP_FAILED)
		munmap(p, bytes);
}

static void bt_engine_destroy(struct engine *engine)
{
	struct bt_engine *e = E(engine);

	if (!e)
		return;
	if (e->mem && e->mem->on_written_opaque == e)
		e->mem->on_written = NULL;
	for (unsigned k = 0; e->vcpus && k < e->vcpu_count; k++)
		free_vcpu(e->vcpus[k]);
	if (e->perfmap_fd >= 0)
		close(e->perfmap_fd);
	dirty_log_finish(&e->dirty);
	free(e->vcpus);
	free(e->cpuid);
	unmap(e->cache_rw, CODE_CACHE_BYTES);
	unmap(e->cache_rx, CODE_CACHE_BYTES);
	unmap(e->meta, META_BYTES);
	unmap(e->tr, align_up(sizeof(*e->tr), 4096));
	unmap((void *)e->page_state, align_up(e->page_count, 4096));
	unmap(e->code_pages, align_up(e->page_count * sizeof(*e->code_pages), 4096));
	munmap(e, align_up(sizeof(*e), 4096));
}

/*
 * Written pages. A page is noted when a TLB entry begins to allow writes (tlb_lookup), and at each write that goes through C. A fetch
 * takes the bits and then has all TLBs forget who may write: what was written until then is in memory.
 */
static struct error *bt_dirty_start(struct engine *engine)
{
	struct error *err = dirty_log_start(&E(engine)->dirty, E(engine)->mem);

	if (!err)
		run_revoke_writes_all(E(engine), NULL);
	return err;
}

static void bt_dirty_fetch(struct engine *engine, uint64_t gpa, uint64_t pages, uint64_t *bitmap)
{
	dirty_log_take(&E(engine)->dirty, gpa, pages, bitmap);
	run_revoke_writes_all(E(engine), NULL);
}

static void bt_dirty_stop(struct engine *engine)
{
	dirty_log_stop(&E(engine)->dirty);
}

static struct vcpu *get_vcpu(struct engine *engine, unsigned index)
{
	assert(index < E(engine)->vcpu_count);
	return &E(engine)->vcpus[index]->base;
}

static const struct cpuid_model *get_cpuid(const struct engine *engine)
{
	return ((const struct bt_engine *)engine)->cpuid;
}

static void bt_vcpu_set_irqchip(struct vcpu *vcpu, const struct vcpu_irqchip *chip)
{
	V(vcpu)->chip = *chip;
}

/* ---- running ---- */

static void describe_shutdown(struct bt_vcpu *v, struct vcpu_exit *exit)
{
	snprintf(exit->message, sizeof(exit->message),
		 "triple fault: exception %u could not be delivered at %#llx", v->exception.vector,
		 (unsigned long long)v->rip);
}

static void bt_vcpu_run(struct vcpu *vcpu, struct vcpu_exit *exit)
{
	struct bt_vcpu *v = V(vcpu);
	struct bt_private *p = v->priv;
	enum run_result r;

	*exit = (struct vcpu_exit){.reason = VCPU_EXIT_STOPPED};
	if (!__atomic_load_n(&v->engine->tsc_hz, __ATOMIC_ACQUIRE))
		settle_tsc(v->engine);
	bt_this_vcpu = v;
	p->debug_hit = false;
	tlb_bind(v);
	bt_pv_run_begin(v);
	bt_heavy_end(v);
	r = bt_run(v);
	bt_heavy_begin(v);
	bt_pv_run_end(v);
	bt_this_vcpu = NULL;
	if (r == RUN_TRIPLE_FAULT) {
		exit->reason = VCPU_EXIT_SHUTDOWN;
		describe_shutdown(v, exit);
		p->triple_fault = false;
	} else if (r == RUN_DEBUG) {
		exit->reason = VCPU_EXIT_DEBUG;
		exit->debug_address = p->debug_address;
		exit->debug_watch = p->debug_is_watch;
		p->debug_resume = true;
	} else {
		atomic_fetch_and(&p->requests, ~(uint32_t)REQ_STOP);
	}
}

static void bt_vcpu_kick(struct vcpu *vcpu)
{
	struct bt_vcpu *v = V(vcpu);

	atomic_store(&v->poll, 1);
	atomic_fetch_add(&v->priv->wake, 1);
	bt_futex_wake(&v->priv->wake);
}

void bt_request(struct bt_vcpu *v, uint32_t bit)
{
	atomic_fetch_or(&v->priv->requests, bit);
	bt_vcpu_kick(&v->base);
}

static void request(struct vcpu *vcpu, uint32_t bit)
{
	bt_request(V(vcpu), bit);
}

static void bt_vcpu_request_stop(struct vcpu *vcpu)
{
	request(vcpu, REQ_STOP);
}

static void bt_vcpu_nmi(struct vcpu *vcpu)
{
	request(vcpu, REQ_NMI);
}

static void bt_vcpu_init(struct vcpu *vcpu)
{
	request(vcpu, REQ_INIT);
}

static void bt_vcpu_sipi(struct vcpu *vcpu, uint8_t vector)
{
	V(vcpu)->priv->sipi_vector = vector;
	request(vcpu, REQ_SIPI);
}

static enum vcpu_activity bt_vcpu_activity(struct vcpu *vcpu)
{
	const struct bt_vcpu *v = V(vcpu);

	return v->wait_sipi ? VCPU_WAIT_SIPI : v->halted ? VCPU_HALTED : VCPU_RUNNING;
}

static const struct engine_ops ops = {
	.name = "bt",
	.destroy = bt_engine_destroy,
	.vcpu = get_vcpu,
	.cpuid = get_cpuid,
	.statistics = bt_engine_statistics,
	.dirty_start = bt_dirty_start,
	.dirty_fetch = bt_dirty_fetch,
	.dirty_stop = bt_dirty_stop,
	.set_irqchip = bt_vcpu_set_irqchip,
	.run = bt_vcpu_run,
	.kick = bt_vcpu_kick,
	.request_stop = bt_vcpu_request_stop,
	.nmi = bt_vcpu_nmi,
	.init = bt_vcpu_init,
	.sipi = bt_vcpu_sipi,
	.reset = bt_vcpu_reset,
	.get_regs = bt_vcpu_get_regs,
	.set_regs = bt_vcpu_set_regs,
	.get_sregs = bt_vcpu_get_sregs,
	.set_sregs = bt_vcpu_set_sregs,
	.get_xstate = bt_vcpu_get_xstate,
	.set_xstate = bt_vcpu_set_xstate,
	.get_msr = bt_vcpu_get_msr,
	.set_msr = bt_vcpu_set_msr,
	.get_events = bt_vcpu_get_events,
	.set_events = bt_vcpu_set_events,
	.activity = bt_vcpu_activity,
	.translate = bt_vcpu_translate,
	.set_debug = bt_vcpu_set_debug,
};
