// SPDX-License-Identifier: Apache-2.0
/* maru-vm: one virtual machine. See maru-vm(1). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/log.h"
#include "base/stack.h"
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

static int complain(struct error *err)
{
	log_error("%s", error_message(err));
	error_free(err);
	return VM_EXIT_START;
}

static int probe(int argc, char **argv)
{
	int out = -1, kvm = -1;
	bool all = false;
	struct error *err = descriptor_parse(argv[1], argv[2], &out);

	for (int i = 3; i < argc && !err; i++) {
		if (!strcmp(argv[i], "--all"))
			all = true;
		else if (!strcmp(argv[i], "--kvm-fd"))
			err = descriptor_parse(argv[i], argv[i + 1], &kvm), i++;
		else
			return usage(stderr, VM_EXIT_START);
	}
	return err ? complain(err) : vm_probe(out, kvm, all);
}

static int program(int argc, char **argv)
{
	struct vm_config config;
	struct vm *vm;
	struct error *err;
	int fd, status;

	log_init("maru-vm", LOG_LEVEL_WARN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of write() */
	if (argc == 2 && !strcmp(argv[1], "--help"))
		return usage(stdout, 0);
	if (argc >= 2 && !strcmp(argv[1], "--probe-fd"))
		return probe(argc, argv);
	if (argc != 3 || strcmp(argv[1], "--config-fd"))
		return usage(stderr, VM_EXIT_START);
	err = descriptor_parse(argv[1], argv[2], &fd);
	if (!err)
		err = vm_config_read(fd, &config);
	if (!err) {
		close(fd);
		descriptor_close_others(config.fds, config.fd_count);
		if (config.verbose)
			log_init("maru-vm", LOG_LEVEL_DEBUG);
		err = vm_create(&config, &vm);
	}
	if (err)
		return complain(err);
	status = vm_run(vm);
	vm_destroy(vm);
	return status;
}

int main(int argc, char **argv)
{
	return stack_run(program, argc, argv);
}
