// SPDX-License-Identifier: Apache-2.0
/*
 * maru run: one VM, here and now.
 *
 * Theory of operation. Everything that needs a file, a port or a terminal is opened here, by the user's
 * rights; the VM process gets descriptors and a configuration that names them by number, and has a sandbox
 * around it. The network has a process of its own (maru-nat). We keep the terminal and relay (console.c), and
 * hold one control connection, whose end tells the VM that we are gone.
 *
 * run_files.c, run_sockets.c and run_peers.c open what the VM gets.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/console.h"
#include "cli/run.h"

#define EXIT_INTERNAL 6 /* as maru-vm's */
#define DEFAULT_MEMORY GiB

/* Before the terminal is the guest's. */
static void say_how_to_debug(const struct run *r)
{
	const char *at = r->o.gdb;

	if (!at || r->o.gdb_nowait)
		return;
	fprintf(stderr, "maru: the VM waits at its first instruction for a debugger: gdb -ex 'target remote %s', then 'continue' (--gdb %s,wait=off does not wait)\n",
		strncmp(at, "unix:", 5) ? at : at + 5, at);
}

static void set_name(struct run *r)
{
	const char *from = r->o.name ? r->o.name : r->o.image ? r->o.image : r->o.kernel;
	const char *slash = strrchr(from, '/');
	char name[RUN_NAME_MAX_BYTES + 1];
	size_t n = 0;

	for (const char *s = slash ? slash + 1 : from; *s && n < sizeof(name) - 1; s++)
		if (isalnum((unsigned char)*s) || strchr("-_.:", *s))
			name[n++] = *s;
	name[n] = 0;
	json_object_set_new(r->config, "name", json_string(n ? name : "vm"));
}

/* IMAGE: a guest of the catalogue, or a disk. */
static struct error *resolve_image(struct run *r)
{
	struct run_options *o = &r->o;
	struct error *err;

	if (!o->image)
		return NULL;
	if (access(o->image, F_OK) < 0) {
		if (strchr(o->image, '/'))
			return error_errno(errno, "disk '%s'", o->image);
		err = guest_find(o->image, &r->guest);
		if (!err && guest_is_outdated(&r->guest))
			fprintf(stderr, "maru: %s was made by an older recipe than the catalogue's; 'maru image pull %s --renew' makes it anew, and keeps this one with all that is on its disk as %s-old\n",
				o->image, o->image, o->image);
		return err;
	}
	if (o->disk_count == RUN_DISKS_MAX)
		return error_new("--disk: more than %u disks are not possible", RUN_DISKS_MAX);
	memmove(o->disks + 1, o->disks, o->disk_count * sizeof(o->disks[0]));
	o->disks[0] = (struct run_disk){ 0 };
	o->disk_count++;
	err = run_disk_parse("maru run", o->image, &o->disks[0]);
	if (!err && !o->kernel)
		err = error_new("booting '%s' by its own boot loader needs firmware, which maru does not have yet: give --kernel FILE (and --initrd, --append 'root=/dev/vda1 console=ttyS0')",
				o->image);
	return err;
}

static struct error *prepare(struct run *r)
{
	const struct run_options *o = &r->o;
	/* In this order: the agent's port is beside the control socket; processes are started when all else is there. */
	static struct error *(*const gifts[])(struct run *r) = {
		run_give_engine, run_give_payload, run_give_disks, run_give_serial, run_give_debugcon, run_give_control,
		run_give_gdb,	 run_give_ports,   run_give_vsock, run_give_shares, run_give_network,
	};
	uint64_t memory;
	struct error *err = resolve_image(r);

	if (err)
		return err;
	if (!o->kernel && !r->guest.kernel)
		return error_new("--disk alone cannot be booted: that needs firmware, which maru does not have yet; give --kernel FILE");
	memory = o->memory_bytes ? o->memory_bytes : r->guest.memory_bytes ? r->guest.memory_bytes : DEFAULT_MEMORY;
	r->config = json_pack("{s:i, s:i, s:I, s:s, s:b, s:b, s:b}", "config", 1, "cpus",
			      (int)(o->cpus ? o->cpus : r->guest.cpus ? r->guest.cpus : 1), "memory", (json_int_t)memory,
			      "engine", "bt", "paravirt", !o->no_paravirt, "debug_exit", o->debug_exit, "verbose", o->verbose);
	if (!r->config)
		return error_errno(ENOMEM, "the configuration");
	json_object_set_new(r->config, "mergeable", json_boolean(o->ksm));
	json_object_set_new(r->config, "huge_pages", json_boolean(o->huge_pages));
	if (o->cpu_features)
		json_object_set_new(r->config, "cpu_features", json_string(o->cpu_features));
	set_name(r);
	for (unsigned i = 0; !err && i < ARRAY_SIZE(gifts); i++)
		err = gifts[i](r);
	return err;
}

static struct error *start_vm(struct run *r)
{
	char number[16];
	char *const argv[] = { "maru-vm", "--config-fd", number, NULL };
	char *text = json_dumps(r->config, JSON_COMPACT);
	int fd = memfd_create("maru-config", MFD_CLOEXEC);
	struct error *err = NULL;

	if (!text || fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || lseek(fd, 0, SEEK_SET) < 0)
		err = error_errno(errno, "cannot hand the configuration to maru-vm");
	free(text);
	if (fd >= 0)
		spawn_add_fd(&r->vm_fds, fd);
	snprintf(number, sizeof(number), "%d", fd);
	if (!err)
		err = spawn(argv, &r->vm_fds, &r->vm);
	return err;
}

static int exit_status(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	fprintf(stderr, "maru: the VM process was ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
	return EXIT_INTERNAL;
}

int cmd_run(int argc, char **argv)
{
	struct run r = { .serial_fd = -1, .control_fd = -1, .guard.pipe_fd = -1 };
	struct terminal t = { .raw = false };
	struct error *err = run_options_parse(argc, argv, &r.o);
	int status;

	if (err)
		return cli_fail(err);
	if (r.o.help) {
		fputs(help_text("run"), stdout);
		return 0;
	}
	console_block_signals();
	err = prepare(&r);
	if (!err) {
		guard_start(&r.guard);
		err = start_vm(&r);
	}
	spawn_close_fds(&r.vm_fds);
	if (err) {
		status = cli_fail(err);
	} else {
		say_how_to_debug(&r);
		if (r.o.serial == SERIAL_STDIO)
			terminal_raw(&t);
		status = console_run(r.vm, r.serial_fd, r.control_fd, &t);
		terminal_restore(&t);
		status = exit_status(status);
	}
	guard_finish(&r.guard);
	run_end_peers(&r);
	json_decref(r.config);
	guest_finish(&r.guest);
	run_options_finish(&r.o);
	return status;
}
