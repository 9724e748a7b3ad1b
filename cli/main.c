// SPDX-License-Identifier: Apache-2.0
/* maru: the command line. One file per subcommand; this finds the one that is meant. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/stack.h"
#include "base/util.h"
#include "cli/cli.h"

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = { { "run", cmd_run }, { "image", cmd_image }, { "balloon", cmd_balloon },
	       { "list", cmd_list }, { "status", cmd_status }, { "doctor", cmd_doctor }, { "guest", cmd_guest }, { "help", cmd_help } };

/* Descriptors 0 to 2 are taken for the standard ones; a file of ours must not get their numbers. */
static void fill_standard_fds(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
			_exit(CLI_EXIT_USAGE);
}

/* What was said has to arrive, or the status says that it has not. */
static int say_all(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	return cli_fail(error_errno(errno, "cannot write to the standard output"));
}

static int program(int argc, char **argv)
{
	fill_standard_fds();
	signal(SIGXFSZ, SIG_IGN); /* a file that grows beyond `ulimit -f` is an error, not the end */
	log_init("maru", LOG_LEVEL_WARN);
	if (argc < 2) {
		fputs(help_text(""), stderr);
		return CLI_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return cmd_help(1, argv);
	if (!strcmp(argv[1], "--version")) {
		puts("maru " MARU_VERSION);
		return 0;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return say_all(commands[i].run(argc - 1, argv + 1));
	return cli_fail(help_unknown(argv[1]));
}

int main(int argc, char **argv)
{
	return stack_run(program, argc, argv);
}
