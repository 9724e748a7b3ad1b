// SPDX-License-Identifier: Apache-2.0
/* The options of `maru run`, sizes, suggestions. */
#include <string.h>

#include "base/util.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "tests/tap.h"

static struct error *parse(struct run_options *o, const char *line)
{
	static char copy[512];
	char *argv[32];
	int argc = 0;

	snprintf(copy, sizeof(copy), "run %s", line);
	for (char *s = strtok(copy, " "); s; s = strtok(NULL, " "))
		argv[argc++] = s;
	return run_options_parse(argc, argv, o);
}

static void good(const char *line)
{
	struct run_options o;
	struct error *err = parse(&o, line);

	ok(!err, "run %s%s%s", line, err ? ": " : "", err ? error_message(err) : "");
	error_free(err);
	run_options_finish(&o);
}

static void bad(const char *line, const char *part)
{
	struct run_options o;
	struct error *err = parse(&o, line);

	ok(err && strstr(error_message(err), part), "run %s: %s", line, err ? error_message(err) : "was taken");
	if (!err)
		run_options_finish(&o);
	error_free(err);
}

static void test_sizes(void)
{
	uint64_t v = 0;
	struct error *err;
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} sizes[] = { { "512M", 512 * MiB }, { "2g", 2 * GiB }, { "1T", TiB }, { "64KiB", 64 * KiB }, { "4096", 4096 },
		      { "1GB", GiB }, { "", 0 }, { "M", 0 }, { "-1M", 0 }, { "1X", 0 }, { "1MM", 0 }, { " 1M", 0 },
		      { "99999999999999999999", 0 }, { "18446744073709551615T", 0 }, { "0x10M", 0 } };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		err = cli_parse_size("--memory", sizes[i].text, &v);
		ok(sizes[i].bytes ? !err && v == sizes[i].bytes : err && strstr(error_message(err), "--memory"), "size '%s'",
		   sizes[i].text);
		error_free(err);
	}
}

static void test_details(void)
{
	struct run_options o;
	char name[32];
	struct error *err = parse(&o, "debian:12 --cpus=3 --memory 64M --disk a.qcow2 --disk b,format=raw,readonly=on --publish 127.0.0.1:80:81 --serial unix:/x");

	ok(!err, "a long line is taken");
	is_str(o.image, "debian:12", "the guest");
	is_u64(o.cpus, 3, "--cpus=3");
	is_u64(o.memory_bytes, 64 * MiB, "--memory 64M");
	ok(o.disk_count == 2 && o.disks[0].format == BLOCK_FORMAT_QCOW2 && !o.disks[0].readonly, "the first disk");
	ok(o.disks[1].format == BLOCK_FORMAT_RAW && o.disks[1].readonly && !strcmp(o.disks[1].path, "b"), "the second disk");
	ok(o.serial == SERIAL_UNIX && !strcmp(o.serial_path, "/x"), "the serial port");
	run_options_finish(&o);
	is_str(cli_nearest("--cpsu", (const char *const[]){ "--cpus", "--disk", NULL }), "--cpus", "a suggestion");
	is_str(cli_nearest("zzzzzz", (const char *const[]){ "--cpus", "--disk", NULL }), NULL, "no suggestion");
	ok(guest_folder_name("debian:12", name, sizeof(name)) && !strcmp(name, "debian-12"), "a guest's folder");
	ok(!guest_folder_name("../x:12", name, sizeof(name)) && !guest_folder_name("a:../b", name, sizeof(name)) &&
		   !guest_folder_name("debian", name, sizeof(name)),
	   "no paths in guests' names");
}

int main(void)
{
	test_sizes();
	test_details();
	good("debian:12");
	good("--kernel k --initrd i --append x=y");
	good("--kernel k --gdb 127.0.0.1:1234");
	good("--kernel k --gdb :1234");
	good("--kernel k --gdb unix:/tmp/x");
	good("--kernel k --gdb unix:/tmp/x,wait=off");
	good("--kernel k --gdb :1234,wait=on");
	bad("--kernel k --gdb :1234,wait=no", "wait=off");
	good("--kernel k --publish 2222:22 --publish 0.0.0.0:80:80");
	good("--help");
	bad("", "nothing to run");
	bad("--cpus 0 --kernel k", "--cpus");
	bad("--cpus 65 --kernel k", "--cpus");
	bad("--cpus two --kernel k", "--cpus");
	bad("--memory 1M --kernel k", "--memory");
	bad("--memory 5X --kernel k", "512M");
	bad("--engine xen --kernel k", "takes auto, bt or kvm");
	bad("--engine tcg --kernel k", "takes auto, bt or kvm");
	bad("--nonsense --kernel k", "unknown option");
	bad("--cpsu 3 --kernel k", "--cpus");
	bad("--kernel", "needs a value");
	bad("--debug-exit=3 --kernel k", "takes no value");
	bad("--kernel k --disk x", "format");
	bad("--kernel k --disk x,format=vmdk", "raw and qcow2");
	bad("--kernel k --disk x.img,cache=none", "unknown");
	bad("--kernel k --disk x.img,readonly=yes", "on or off");
	bad("--kernel k --disk ,format=raw", "FILE");
	bad("--kernel k --net bridge", "user or none");
	bad("--kernel k --publish 22", "HOSTPORT:GUESTPORT");
	bad("--kernel k --publish 0:22", "HOSTPORT:GUESTPORT");
	bad("--kernel k --publish 99999:22", "HOSTPORT:GUESTPORT");
	bad("--kernel k --publish 1.2.3:80:22", "HOSTPORT:GUESTPORT");
	bad("--kernel k --publish 80:80 --net none", "--net none");
	bad("--kernel k --serial tcp:x", "file:PATH");
	bad("--kernel k --gdb 1234", "ADDR:PORT");
	bad("--kernel k --name a/b", "--name");
	bad("--initrd i", "--initrd needs --kernel");
	bad("a b", "only one guest");
	return done_testing();
}
