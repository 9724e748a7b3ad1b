// SPDX-License-Identifier: Apache-2.0
/*
 * Making a VM from its configuration, in the order that the sandbox needs, and taking it apart.
 *
 * Theory of operation. What opens or allocates comes first, then the namespaces (one thread so far), then
 * what makes threads (disks), then the machine with its payload loaded, and last the vCPU threads, which
 * park. vm_run() drops what is left of the privileges and lets them go.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cpu/features.h"
#include "vm/vm_priv.h"

#ifndef MARU_VERSION
#define MARU_VERSION "0.1"
#endif

/* ---- What the machine and the log tell us ----------------------------------------------------- */

static void on_reset(void *opaque, const char *by)
{
	vm_request_reset(opaque, by);
}

static void on_power_off(void *opaque)
{
	struct vm *vm = opaque;

	if (!vm->want_quit)
		control_event(vm->control, "powered-off", NULL);
	vm_quit(vm, VM_EXIT_OK, "the guest powered off");
}

static void on_debug_exit(void *opaque, uint32_t value)
{
	vm_quit(opaque, (value << 1 | 1) & 0xff, "the guest wrote to the debug-exit port");
}

static void on_panic(void *opaque, bool crash_kernel)
{
	struct vm *vm = opaque;

	if (vm->panics++ == 0)
		log_warn("the guest's kernel panicked%s", crash_kernel ? "; its crash kernel takes over" : "");
	if (vm->panics <= VM_PANIC_EVENTS)
		control_event(vm->control, "guest-panic",
			      json_pack("{s:s, s:b}", "reason", "the guest's kernel panicked", "crash_kernel", crash_kernel));
}

static void on_owner_gone(void *opaque)
{
	vm_quit(opaque, VM_EXIT_SIGNAL, "the program that started the VM is gone");
}

static void on_log_line(void *opaque, enum log_level level, const char *text)
{
	struct vm *vm = opaque;

	pthread_mutex_lock(&vm->log_mutex);
	if (vm->log_count < ARRAY_SIZE(vm->log_lines)) {
		vm->log_lines[vm->log_count].level = level;
		snprintf(vm->log_lines[vm->log_count].text, sizeof(vm->log_lines[0].text), "%s", text);
		vm->log_count++;
	} else {
		vm->log_lost++;
	}
	pthread_mutex_unlock(&vm->log_mutex);
	loop_post(vm->loop, &vm->log_work);
}

static void pass_on_log(void *opaque)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	struct vm *vm = opaque;
	unsigned count, lost;
	typeof(vm->log_lines[0]) lines[ARRAY_SIZE(vm->log_lines)];

	pthread_mutex_lock(&vm->log_mutex);
	count = vm->log_count;
	lost = vm->log_lost;
	memcpy(lines, vm->log_lines, count * sizeof(lines[0]));
	vm->log_count = vm->log_lost = 0;
	pthread_mutex_unlock(&vm->log_mutex);
	for (unsigned i = 0; i < count; i++)
		control_event(vm->control, "log",
			      json_pack("{s:s, s:s}", "level", names[lines[i].level], "text", lines[i].text));
	if (lost)
		control_event(vm->control, "log",
			      json_pack("{s:s, s:s, s:i}", "level", "warning", "text", "log lines were lost", "lost",
					(int)lost));
}

static void on_signal(void *opaque, uint32_t events)
{
	struct vm *vm = opaque;
	struct signalfd_siginfo info;

	if (read(vm->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (vm->terminations++ == 0) {
		log_info("signal %u: pressing the guest's power button; a second one quits", info.ssi_signo);
		machine_power_button(vm->machine);
	} else if (vm->terminations == 2) {
		vm_quit(vm, VM_EXIT_SIGNAL, "quit by a second signal");
	} else {
		_exit(VM_EXIT_SIGNAL);
	}
}

/* ---- Making ------------------------------------------------------------------------------------- */

static uint64_t vm_time_ns(void *opaque)
{
	struct vm *vm = opaque;

	return clock_now_ns(&vm->clock.clock);
}

/* The loaders read the file at each reset. */
static struct error *check_payload(const struct vm_config_file *f, const char *what, uint64_t max,
				   struct boot_file *out)
{
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return error_errno(errno, "%s '%s' cannot be read", what, f->name);
	if (!S_ISREG(st.st_mode))
		return error_new("%s '%s' is not a regular file", what, f->name);
	if ((uint64_t)st.st_size > max)
		return error_new("%s '%s' has %" PRIu64 " MiB and the guest %" PRIu64
				 " MiB of memory: give the guest more memory",
				 what, f->name, (uint64_t)st.st_size >> 20, max >> 20);
	*out = (struct boot_file){ .name = f->name, .size = st.st_size, .fd = f->fd };
	return NULL;
}

static struct error *open_disks(struct vm *vm)
{
	struct error *err;

	for (unsigned i = 0; i < vm->config.disk_count; i++) {
		const struct vm_config_disk *d = &vm->config.disks[i];
		struct block_open how = { .readonly = d->readonly, .count = d->count, .name = d->name };

		for (unsigned n = 0; n < d->count; n++) {
			how.chain[n].fd = d->chain[n].fd;
			how.chain[n].format = d->chain[n].format;
		}
		err = block_open(vm->loop, &how, &vm->disks[i]);
		if (err)
			return err;
	}
	return NULL;
}

static struct error *open_chardev(struct vm *vm, const struct vm_config_chardev *c, struct chardev **out)
{
	if (c->listen_fd >= 0)
		return chardev_socket_create(vm->loop, c->listen_fd, out);
	if (c->in_fd >= 0 || c->out_fd >= 0)
		return chardev_fd_create(vm->loop, c->in_fd, c->out_fd, out);
	return NULL;
}

static struct error *open_backends(struct vm *vm)
{
	const struct vm_config *c = &vm->config;
	struct error *err = open_chardev(vm, &c->serial, &vm->serial);

	if (!err)
		err = open_chardev(vm, &c->console, &vm->console);
	for (unsigned i = 0; !err && i < c->port_count; i++)
		err = chardev_socket_create(vm->loop, c->ports[i].listen_fd, &vm->ports[i]);
	if (!err && c->debugcon_fd >= 0)
		err = chardev_fd_create(vm->loop, -1, c->debugcon_fd, &vm->debugcon);
	if (!err)
		err = open_disks(vm);
	if (!err && c->net_fd >= 0)
		err = net_socket_create(vm->loop, c->net_fd, &vm->net);
	if (!err && vm->net)
		vm->net->offload = c->net_offload;
	if (!err && c->vsock_listen_fd >= 0)
		err = vsock_unix_create(vm->loop, c->vsock_listen_fd, c->vsock_broker_fd, &vm->vsock);
	return err;
}

static struct error *create_machine(struct vm *vm)
{
	const struct vm_config *c = &vm->config;
	struct machine_config m = {
		.mem = vm->mem,
		.loop = vm->loop,
		.clock = &vm->clock.clock,
		.engine = vm->engine,
		.vcpu_count = c->cpus,
		.events = { on_reset, on_power_off, on_debug_exit, on_panic, vm },
		.serial = vm->serial,
		.console = vm->console,
		.debugcon = vm->debugcon,
		.disk_count = c->disk_count,
		.net = vm->net,
		.vsock = vm->vsock,
		.debug_exit = c->debug_exit,
		.version = MARU_VERSION,
		.payload = { .cmdline = c->append },
	};
	struct error *err;

	memcpy(m.disks, vm->disks, sizeof(vm->disks));
	m.share_count = c->share_count;
	for (unsigned i = 0; i < c->share_count; i++)
		m.shares[i] = (struct machine_share){ c->shares[i].tag, c->shares[i].fd };
	m.port_count = c->port_count;
	for (unsigned i = 0; i < c->port_count; i++)
		m.ports[i] = (struct machine_port){ c->ports[i].name, vm->ports[i] };
	memcpy(m.mac, c->mac, sizeof(m.mac));
	err = check_payload(&c->kernel, "kernel", c->memory_bytes, &m.payload.kernel);
	if (!err && c->initrd.fd >= 0)
		err = check_payload(&c->initrd, "initrd", c->memory_bytes, &m.payload.initrd);
	if (err)
		return err;
	err = machine_create(&m, &vm->machine);
	return err ? err : machine_reset(vm->machine);
}

static struct error *create_control(struct vm *vm)
{
	const struct control_handler handler = { vm_handle_request, on_owner_gone, vm };
	struct error *err = control_create(vm->loop, vm->config.name, &handler, &vm->control);

	if (!err && vm->config.control_listen_fd >= 0)
		err = control_listen(vm->control, vm->config.control_listen_fd);
	if (!err && vm->config.control_client_fd >= 0)
		err = control_attach(vm->control, vm->config.control_client_fd, true);
	return err;
}

/* A vCPU does not come to a stop, which is a bug of the engine's: what the guest was promised is on disk. */
static void quit_overdue(void *opaque)
{
	struct vm *vm = opaque;

	log_error("a vCPU could not be stopped within %llu s (%s): giving up on it", VM_QUIT_NS / NS_PER_SEC, vm->reason);
	_exit(VM_EXIT_INTERNAL);
}

/* There is no guest yet whose power button could be pressed. */
static void on_early_signal(int sig)
{
	_exit(VM_EXIT_SIGNAL);
}

static const int signals[] = { SIGTERM, SIGINT, SIGHUP };

/* While the VM is made, of which opening an image may take long. */
static void expect_signals(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		signal(signals[i], on_early_signal);
	signal(SIGPIPE, SIG_IGN);
}

/* Before there are threads that should not get them. */
static struct error *watch_signals(struct vm *vm)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	vm->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (vm->signal_fd < 0)
		return error_errno(errno, "cannot watch signals");
	return loop_fd_add(vm->loop, &vm->signals, vm->signal_fd, EPOLLIN, on_signal, vm);
}

static struct error *create(struct vm *vm)
{
	const struct vm_config *c = &vm->config;
	struct error *err = loop_create(&vm->loop);

	if (err)
		return err;
	loop_lock(vm->loop);
	loop_timer_init(vm->loop, &vm->quit_timer, quit_overdue, vm);
	vmclock_init(&vm->clock, vm->loop);
	vmclock_pause(&vm->clock);
	expect_signals();
	err = memory_create_backed(c->memory_bytes, (c->mergeable ? MEM_MERGEABLE : 0) | (c->huge_pages ? MEM_HUGE_PAGES : 0),
				   &vm->mem);
	if (!err)
		memstat_open(&vm->memstat, c);
	if (!err) {
		struct engine_config e = { c->engine, c->cpus, vm->mem, vm->loop, vm_time_ns, vm, c->kvm_fd, c->paravirt };

		err = engine_create(&e, &vm->engine);
		if (!err && c->cpu_features)
			err = cpu_features_require(vm->engine, c->cpu_features);
	}
	if (!err) {
		for (unsigned i = 0; i < c->cpus; i++)
			vm->cpus[i] = (struct vm_cpu){ .vm = vm, .index = i, .vcpu = engine_vcpu(vm->engine, i) };
		vm->sandbox.ioctls = engine_ioctls(vm->engine, &vm->sandbox.ioctl_count);
		sandbox_isolate(&vm->sandbox);
		err = open_backends(vm);
	}
	if (!err)
		err = create_control(vm);
	if (!err)
		err = create_machine(vm);
	if (!err)
		err = vm_create_gdb(vm);
	if (!err)
		err = watch_signals(vm);
	if (!err)
		err = vm_start_threads(vm);
	loop_unlock(vm->loop);
	return err;
}

struct error *vm_create(struct vm_config *config, struct vm **out)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	struct error *err;

	if (!vm)
		return error_errno(ENOMEM, "cannot create the VM");
	vm->config = *config;
	*config = (struct vm_config){ 0 };
	vm->signal_fd = -1;
	memstat_init(&vm->memstat);
	vm->paused = vm->config.paused;
	vm->debug_stopped = vm->config.gdb_wait; /* until a debugger lets it go */
	pthread_mutex_init(&vm->log_mutex, NULL);
	vm->log_work = (struct loop_work){ .run = pass_on_log, .opaque = vm };
	vm_init_gate(vm);
	err = create(vm);
	if (err) {
		vm_destroy(vm);
		return err;
	}
	*out = vm;
	return NULL;
}

int vm_run(struct vm *vm)
{
	struct error *err = sandbox_lock_down(&vm->sandbox);

	if (err) {
		log_error("%s", error_message(err));
		error_free(err);
		return VM_EXIT_START;
	}
	sandbox_narrow(&vm->sandbox, SANDBOX_LOOP);
	log_set_sink(on_log_line, vm);
	/* The vCPU threads have parked or will: the last one, or this, sets things going. */
	loop_post(vm->loop, &vm->settle);
	loop_run(vm->loop);
	vm_join_threads(vm);
	log_set_sink(NULL, NULL);
	return vm->exit_status;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	if (!vm->loop) {
		vm_config_finish(&vm->config);
		free(vm);
		return;
	}
	vm_join_threads(vm);
	if (vm->settle.posted || vm->log_work.posted) {
		/* It never came to run: what was posted has to leave the loop. */
		vm->ended = true;
		loop_post(vm->loop, &vm->end);
		loop_run(vm->loop);
	}
	loop_lock(vm->loop);
	gdb_destroy(vm->gdb);
	machine_destroy(vm->machine);
	for (unsigned i = 0; i < vm->config.disk_count; i++)
		if (vm->disks[i])
			block_close(vm->disks[i]);
	if (vm->net)
		vm->net->ops->destroy(vm->net);
	if (vm->vsock)
		vm->vsock->ops->destroy(vm->vsock);
	chardev_destroy(vm->serial);
	chardev_destroy(vm->console);
	chardev_destroy(vm->debugcon);
	for (unsigned i = 0; i < VM_CONFIG_PORTS; i++)
		chardev_destroy(vm->ports[i]);
	control_destroy(vm->control);
	if (vm->signal_fd >= 0) {
		loop_fd_remove(&vm->signals);
		close(vm->signal_fd);
	}
	loop_unlock(vm->loop);
	engine_destroy(vm->engine);
	memstat_close(&vm->memstat);
	memory_destroy(vm->mem);
	loop_destroy(vm->loop);
	vm_config_finish(&vm->config);
	free(vm);
}
