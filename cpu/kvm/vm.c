/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KVM engine: making a VM in the kernel from an open /dev/kvm, and ending it. The descriptor comes from whoever has the right to
 * open it; the sandbox lets the threads make the ioctl requests listed here and no others.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/kvm/kvm_priv.h"
#include "mem/host.h"

/* Three pages for Intel's real mode, where no firmware is. */
#define TSS_ADDRESS 0xfffbd000ull
#define IDENTITY_MAP_ADDRESS 0xfffbc000ull

static void nothing(int sig)
{
}

static struct error *needs(struct kvm_engine *e, int capability, const char *what)
{
	if (ioctl(e->fd, KVM_CHECK_EXTENSION, capability) > 0)
		return NULL;
	return error_new("this host's KVM cannot do what is needed (%s): a kernel from 4.13 on can; use --engine bt", what);
}

static struct error *check_host(struct kvm_engine *e)
{
	struct error *err;
	int version = ioctl(e->fd, KVM_GET_API_VERSION, 0);

	if (version < 0)
		return error_errno(errno, "/dev/kvm does not answer");
	if (version != KVM_API_VERSION)
		return error_new("/dev/kvm speaks version %d of its interface, and 12 is needed; use --engine bt", version);
	err = needs(e, KVM_CAP_IMMEDIATE_EXIT, "immediate exit");
	if (!err)
		err = needs(e, KVM_CAP_SPLIT_IRQCHIP, "local APICs without the other interrupt controllers");
	if (!err)
		err = needs(e, KVM_CAP_SIGNAL_MSI, "interrupt messages");
	if (!err)
		err = needs(e, KVM_CAP_X2APIC_API, "x2APIC ids");
	if (!err)
		err = needs(e, KVM_CAP_TSC_DEADLINE_TIMER, "the TSC-deadline timer");
	if (!err)
		err = needs(e, KVM_CAP_XSAVE, "XSAVE");
	return err;
}

static struct error *map_memory(struct kvm_engine *e, uint32_t slot, uint64_t gpa, uint64_t bytes)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)e->mem->ram_base + gpa,
	};

	if (bytes && ioctl(e->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return error_errno(errno, "KVM does not take %s of guest memory", size_to_text(bytes).text);
	return NULL;
}

/* Without this MONITOR and MWAIT do nothing, though CPUID says that there are none. */
static void disable_quirks(struct kvm_engine *e)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_DISABLE_QUIRKS2, .args = { KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS } };
	int known = ioctl(e->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2);

	if (known > 0 && (known & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS) && ioctl(e->vm_fd, KVM_ENABLE_CAP, &cap) < 0)
		log_warn("KVM does not let MONITOR fault: %s", strerror(errno));
}

static struct error *make_vm(struct kvm_engine *e)
{
	uint64_t identity_map = IDENTITY_MAP_ADDRESS;
	struct error *err;

	e->vm_fd = ioctl(e->fd, KVM_CREATE_VM, 0);
	if (e->vm_fd < 0)
		return error_errno(errno, "KVM does not make a VM");
	fcntl(e->vm_fd, F_SETFD, FD_CLOEXEC);
	if (ioctl(e->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 || ioctl(e->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0)
		return error_errno(errno, "KVM does not make a VM");
	kvm_dirty_init(e);
	disable_quirks(e);
	err = kvm_split_irqchip(e);
	if (!err)
		err = map_memory(e, 0, 0, e->mem->low_bytes);
	if (!err)
		err = map_memory(e, 1, MEM_HIGH_BASE, e->mem->high_bytes);
	return err;
}

static const struct engine_ops ops;

static struct error *make_vcpu(struct kvm_engine *e, unsigned index)
{
	struct kvm_vcpu *v = calloc(1, sizeof(*v));

	if (!v)
		return error_errno(ENOMEM, "cannot make vCPU %u", index);
	e->vcpus[index] = v;
	v->base.ops = &ops;
	v->engine = e;
	v->index = index;
	v->fd = ioctl(e->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
	if (v->fd < 0)
		return error_errno(errno, "KVM does not make vCPU %u", index);
	fcntl(v->fd, F_SETFD, FD_CLOEXEC);
	v->run = mmap(NULL, e->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return error_errno(errno, "cannot map vCPU %u of KVM", index);
	}
	return kvm_dirty_map_ring(v);
}

static struct error *make_vcpus(struct kvm_engine *e)
{
	struct error *err = NULL;
	int bytes = ioctl(e->fd, KVM_GET_VCPU_MMAP_SIZE, 0), khz;

	if (bytes < (int)sizeof(struct kvm_run))
		return error_new("/dev/kvm gives nonsense for the size of a vCPU");
	e->run_bytes = (size_t)bytes;
	e->vcpus = calloc(e->vcpu_count, sizeof(*e->vcpus));
	if (!e->vcpus)
		return error_errno(ENOMEM, "cannot make vCPUs");
	for (unsigned k = 0; !err && k < e->vcpu_count; k++)
		err = make_vcpu(e, k);
	if (err)
		return err;
	khz = ioctl(e->vcpus[0]->fd, KVM_GET_TSC_KHZ, 0);
	if (khz <= 0)
		return error_new("KVM does not know how fast the TSC is; use --engine bt");
	e->tsc_hz = (uint64_t)khz * 1000;
	err = kvm_set_cpuid(e);
	for (unsigned k = 0; !err && k < e->vcpu_count; k++)
		err = kvm_set_vcpu_cpuid(e->vcpus[k]);
	for (unsigned k = 0; !err && k < e->vcpu_count; k++)
		kvm_vcpu_reset(&e->vcpus[k]->base);
	return err;
}

static void destroy(struct engine *engine)
{
	struct kvm_engine *e = kvm_engine_of(engine);

	bus_set_ringer(e->mem->mmio, NULL);
	if (e->mem->on_written_opaque == e)
		e->mem->on_written = NULL;
	for (unsigned k = 0; e->vcpus && k < e->vcpu_count; k++) {
		struct kvm_vcpu *v = e->vcpus[k];

		if (!v)
			continue;
		kvm_dirty_unmap_ring(v);
		if (v->run)
			munmap(v->run, e->run_bytes);
		if (v->fd >= 0)
			close(v->fd);
		free(v);
	}
	free(e->vcpus);
	if (e->vm_fd >= 0)
		close(e->vm_fd);
	if (e->fd >= 0)
		close(e->fd);
	pthread_mutex_destroy(&e->clock_lock);
	kvm_dirty_finish(e);
	free(e);
}

struct error *kvm_engine_create(const struct engine_config *config, struct engine **out)
{
	struct sigaction sa = { .sa_handler = nothing, .sa_flags = SA_RESTART }; /* KVM_RUN it ends all the same, and nothing else */
	struct kvm_engine *e;
	struct error *err;

	if (config->kvm_fd < 0)
		return error_new("--engine kvm needs /dev/kvm, which was not handed over; --engine bt does without");
	e = calloc(1, sizeof(*e));
	if (!e)
		return error_errno(ENOMEM, "cannot make the KVM engine");
	e->base.ops = &ops;
	e->mem = config->mem;
	e->loop = config->loop;
	e->vm_time_ns = config->vm_time_ns;
	e->vm_time_opaque = config->vm_time_opaque;
	e->vcpu_count = config->vcpu_count;
	e->paravirt = config->paravirt;
	e->vm_fd = -1;
	kvm_routes_init(e);
	pthread_mutex_init(&e->clock_lock, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	e->fd = fcntl(config->kvm_fd, F_DUPFD_CLOEXEC, 3);
	err = e->fd < 0 ? error_errno(errno, "/dev/kvm") : check_host(e);
	if (!err)
		err = make_vm(e);
	if (!err)
		err = make_vcpus(e);
	if (err) {
		destroy(&e->base);
		return err;
	}
	kvm_take_doorbells(e);
	e->mem->on_written = kvm_memory_written;
	e->mem->on_written_opaque = e;
	*out = &e->base;
	return NULL;
}

static struct vcpu *get_vcpu(struct engine *engine, unsigned index)
{
	assert(index < kvm_engine_of(engine)->vcpu_count);
	return &kvm_engine_of(engine)->vcpus[index]->base;
}

static const struct cpuid_model *get_cpuid(const struct engine *engine)
{
	return &((const struct kvm_engine *)engine)->cpuid;
}

static const uint32_t *ioctls(const struct engine *engine, unsigned *count)
{
	static const uint32_t requests[] = {
		KVM_RUN, KVM_NMI, KVM_SIGNAL_MSI, KVM_SET_GSI_ROUTING, KVM_IOEVENTFD, KVM_IRQFD,
		KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG, KVM_RESET_DIRTY_RINGS, KVM_GET_LAPIC, KVM_SET_LAPIC,
		KVM_GET_MP_STATE, KVM_SET_MP_STATE, KVM_GET_VCPU_EVENTS, KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS, KVM_GET_DEBUGREGS,
		KVM_SET_DEBUGREGS, KVM_GET_XCRS, KVM_SET_XCRS, KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_MSRS, KVM_SET_MSRS,
		KVM_SET_VCPU_EVENTS, KVM_SET_GUEST_DEBUG, KVM_TRANSLATE, KVM_GET_CLOCK, KVM_SET_CLOCK, KVM_KVMCLOCK_CTRL,
	};

	*count = ARRAY_SIZE(requests);
	return requests;
}

static void statistics(struct engine *engine, engine_counter_fn *each, void *opaque)
{
	static const struct {
		const char *name;
		size_t offset;
	} counters[] = {
#define COUNTER(name) { #name, offsetof(struct kvm_vcpu, name) }
		COUNTER(exits), COUNTER(io_exits), COUNTER(mmio_exits), COUNTER(eoi_exits), COUNTER(interrupts),
#undef COUNTER
	};
	struct kvm_engine *e = kvm_engine_of(engine);

	for (unsigned n = 0; n < ARRAY_SIZE(counters); n++) {
		uint64_t sum = 0;

		for (unsigned k = 0; k < e->vcpu_count; k++)
			sum += *(const uint64_t *)((const char *)e->vcpus[k] + counters[n].offset);
		each(opaque, NULL, counters[n].name, sum);
	}
	each(opaque, NULL, "irqfds", e->irqfd_count);
}

/* The kernel's local APICs are asked, not the machine's. */
static void set_irqchip(struct vcpu *v, const struct vcpu_irqchip *chip)
{
}

static void request_stop(struct vcpu *v)
{
	kvm_vcpu_request(kvm_vcpu_of(v), KVM_REQ_STOP);
}

static void nmi(struct vcpu *v)
{
	kvm_vcpu_request(kvm_vcpu_of(v), KVM_REQ_NMI);
}

static const struct engine_ops ops = {
	.name = "kvm",
	.destroy = destroy,
	.vcpu = get_vcpu,
	.cpuid = get_cpuid,
	.statistics = statistics,
	.ioctls = ioctls,
	.dirty_start = kvm_dirty_start,
	.dirty_fetch = kvm_dirty_fetch,
	.dirty_stop = kvm_dirty_stop,
	.set_irqchip = set_irqchip,
	.run = kvm_vcpu_run,
	.kick = kvm_vcpu_kick,
	.request_stop = request_stop,
	.nmi = nmi,
	.set_board = kvm_set_board,
	.send_msi = kvm_send_msi,
	.set_irqfd = kvm_set_irqfd,
	.set_intr = kvm_set_intr,
	.set_pin = kvm_set_pin,
	.get_lapic = kvm_vcpu_get_lapic,
	.set_lapic = kvm_vcpu_set_lapic,
	.init = kvm_vcpu_init,
	.sipi = kvm_vcpu_sipi,
	.reset = kvm_vcpu_reset,
	.get_regs = kvm_vcpu_get_regs,
	.set_regs = kvm_vcpu_set_regs,
	.get_sregs = kvm_vcpu_get_sregs,
	.set_sregs = kvm_vcpu_set_sregs,
	.get_xstate = kvm_vcpu_get_xstate,
	.set_xstate = kvm_vcpu_set_xstate,
	.get_msr = kvm_vcpu_get_msr,
	.set_msr = kvm_vcpu_set_msr,
	.get_events = kvm_vcpu_get_events,
	.set_events = kvm_vcpu_set_events,
	.activity = kvm_vcpu_activity,
	.translate = kvm_vcpu_translate,
	.set_debug = kvm_vcpu_set_debug,
};
