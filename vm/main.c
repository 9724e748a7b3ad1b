// SPDX-License-Identifier: Apache-2.0
/* maru-vm: one virtual machine. See maru-vm(1). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/probe.h"
#include "vm/vm.h"

static int usage(FILE *to, int status)
{
	fprintf(to, "usage: maru-vm --config-fd N\n"
		    "       maru-vm --probe-fd N [--kvm-fd N] [--all]\n"
		    "\n"
		    "Runs one virtual machine whose configuration is a JSON object on descriptor N.\n"
		    "'maru run' starts it; to write a configuration by hand see maru-vm(1).\n");
	return status;
}

static bool number(const char *text, unsigned long *out)
{
	char *end;

	errno = 0;
	*out = strtoul(text, &end, 10);
	return !errno && !*end && end != text && *out <= 1u << 20;
}

static int probe(int argc, char **argv)
{
	unsigned long out, kvm = 0;
	bool has_kvm = false, all = false;

	if (argc < 3 || !number(argv[2], &out))
		return usage(stderr, VM_EXIT_START);
	for (int i = 3; i < argc; i++) {
		if (!strcmp(argv[i], "--all"))
			all = true;
		else if (!strcmp(argv[i], "--kvm-fd") && i + 1 < argc && number(argv[i + 1], &kvm))
			has_kvm = i++;
		else
			return usage(stderr, VM_EXIT_START);
	}
	return vm_probe((int)out, has_kvm ? (int)kvm : -1, all);
}

int main(int argc, char **argv)
{
	struct vm_config config;
	struct vm *vm;
	struct error *err;
	unsigned long fd;
	int status;

	log_init("maru-vm", LOG_LEVEL_WARN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of write() */
	if (argc == 2 && !strcmp(argv[1], "--help"))
		return usage(stdout, 0);
	if (argc >= 2 && !strcmp(argv[1], "--probe-fd"))
		return probe(argc, argv);
	if (argc != 3 || strcmp(argv[1], "--config-fd"))
		return usage(stderr, VM_EXIT_START);
	if (!number(argv[2], &fd)) {
		log_error("--config-fd takes the number of an open descriptor, not '%s'", argv[2]);
		return VM_EXIT_START;
	}
	err = vm_config_read(fd, &config);
	if (!err) {
		close(fd);
		sandbox_close_others(config.fds, config.fd_count);
		if (config.verbose)
			log_init("maru-vm", LOG_LEVEL_DEBUG);
		err = vm_create(&config, &vm);
	}
	if (err) {
		log_error("%s", error_message(err));
		error_free(err);
		return VM_EXIT_START;
	}
	status = vm_run(vm);
	vm_destroy(vm);
	return status;
}
