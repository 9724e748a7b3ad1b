// SPDX-License-Identifier: Apache-2.0
/* maru-vm: one virtual machine. See maru-vm(1). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/vm.h"

static int usage(FILE *to, int status)
{
	fprintf(to, "usage: maru-vm --config-fd N\n"
		    "\n"
		    "Runs one virtual machine whose configuration is a JSON object on descriptor N.\n"
		    "'maru run' starts it; to write a configuration by hand see maru-vm(1).\n");
	return status;
}

int main(int argc, char **argv)
{
	struct vm_config config;
	struct vm *vm;
	struct error *err;
	unsigned long fd;
	char *end;
	int status;

	log_init("maru-vm", LOG_LEVEL_WARN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of write() */
	if (argc == 2 && !strcmp(argv[1], "--help"))
		return usage(stdout, 0);
	if (argc != 3 || strcmp(argv[1], "--config-fd"))
		return usage(stderr, VM_EXIT_START);
	errno = 0;
	fd = strtoul(argv[2], &end, 10);
	if (errno || *end || end == argv[2] || fd > 1u << 20) {
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
