// SPDX-License-Identifier: Apache-2.0
/* The configuration of maru-vm: what is taken, and that everything else is refused. */
#include <string.h>

#include "base/util.h"
#include "tests/tap.h"
#include "vm/config.h"

#define MIN_MEMBERS "\"config\":1,\"name\":\"a\",\"cpus\":2,\"memory\":67108864,\"kernel\":{\"fd\":5,\"name\":\"k\"}"

static void bad(const char *json, const char *part)
{
	struct vm_config c;
	struct error *err = vm_config_parse(json, strlen(json), &c);

	ok(err && strstr(error_message(err), part), "%.60s: %s", json, err ? error_message(err) : "was taken");
	if (!err)
		vm_config_finish(&c);
	error_free(err);
}

int main(void)
{
	static const char full[] = "{" MIN_MEMBERS ",\"engine\":\"bt\",\"engine_reason\":\"why\",\"cpu_features\":\"avx2\",\"initrd\":{\"fd\":6,\"name\":\"i\"},\"append\":\"x\","
		"\"disks\":[{\"name\":\"d\",\"readonly\":true,\"chain\":[{\"fd\":9,\"format\":\"qcow2\"},{\"fd\":8,\"format\":\"raw\"}]}],"
		"\"net\":{\"fd\":10,\"mac\":\"52:54:00:00:00:01\"},\"serial\":{\"fd\":11},\"console\":{\"listen_fd\":12},"
		"\"control\":{\"listen_fd\":13,\"client_fd\":14},\"gdb\":{\"listen_fd\":15,\"wait\":true},\"vsock\":{\"listen_fd\":17,\"broker_fd\":18},\"debug_exit\":true,"
		"\"debugcon\":{\"fd\":16},\"paused\":false,\"mergeable\":true,\"huge_pages\":true,\"verbose\":true}";
	struct vm_config c;
	struct error *err = vm_config_parse(full, strlen(full), &c);
	bool ascending = true;

	if (!ok(!err, "a full configuration is taken%s%s", err ? ": " : "", err ? error_message(err) : ""))
		return done_testing();
	is_u64(c.cpus, 2, "cpus");
	is_u64(c.disks[0].count, 2, "a chain of two");
	ok(c.disks[0].readonly && c.disks[0].chain[0].fd == 9 && c.disks[0].chain[1].format == BLOCK_FORMAT_RAW, "its images");
	ok(c.serial.in_fd == 11 && c.serial.out_fd == 11 && c.console.listen_fd == 12, "serial and console");
	is_u64(c.mac[5], 1, "the Ethernet address");
	for (unsigned i = 1; i < c.fd_count; i++)
		ascending = ascending && c.fds[i] > c.fds[i - 1];
	ok(ascending && c.fd_count == 13, "all descriptors, ascending");
	vm_config_finish(&c);

	err = vm_config_parse("{" MIN_MEMBERS "}", strlen("{" MIN_MEMBERS "}"), &c);
	ok(!err && c.net_fd == -1 && c.serial.in_fd == -1 && !strcmp(c.append, ""), "the least");
	vm_config_finish(&c);

	bad("", "not JSON");
	bad("[]", "object");
	bad("{}", "missing");
	bad("{\"config\":2}", "config");
	bad("{" MIN_MEMBERS ",\"color\":1}", "unknown");
	bad("{" MIN_MEMBERS ",\"cpus\":2}", "not JSON");
	bad("{\"config\":1,\"name\":\"a\",\"cpus\":0,\"memory\":67108864,\"kernel\":{\"fd\":5,\"name\":\"k\"}}", "cpus");
	bad("{\"config\":1,\"name\":\"a\",\"cpus\":1,\"memory\":67108865,\"kernel\":{\"fd\":5,\"name\":\"k\"}}", "multiple");
	bad("{\"config\":1,\"name\":\"a\",\"cpus\":1,\"memory\":-5,\"kernel\":{\"fd\":5,\"name\":\"k\"}}", "memory");
	bad("{\"config\":1,\"name\":\"a/b\",\"cpus\":1,\"memory\":67108864,\"kernel\":{\"fd\":5,\"name\":\"k\"}}", "name");
	bad("{" MIN_MEMBERS ",\"initrd\":{\"fd\":5,\"name\":\"i\"}}", "already");
	bad("{" MIN_MEMBERS ",\"initrd\":{\"fd\":1,\"name\":\"i\"}}", "initrd.fd");
	bad("{" MIN_MEMBERS ",\"initrd\":{\"fd\":6}}", "initrd.name");
	bad("{" MIN_MEMBERS ",\"disks\":[{\"name\":\"d\",\"chain\":[]}]}", "chain");
	bad("{" MIN_MEMBERS ",\"disks\":[{\"name\":\"d\",\"chain\":[{\"fd\":9,\"format\":\"vmdk\"}]}]}", "format");
	bad("{" MIN_MEMBERS ",\"net\":{\"fd\":9,\"mac\":\"01:00:00:00:00:00\"}}", "multicast");
	bad("{" MIN_MEMBERS ",\"net\":{\"fd\":9,\"mac\":\"52-54-00-00-00-00\"}}", "Ethernet");
	bad("{" MIN_MEMBERS ",\"serial\":{\"fd\":9,\"in_fd\":10}}", "beside");
	bad("{" MIN_MEMBERS ",\"serial\":{\"listen_fd\":9,\"in_fd\":10}}", "beside");
	bad("{" MIN_MEMBERS ",\"verbose\":1}", "true or false");
	bad("{" MIN_MEMBERS ",\"engine\":\"tcg\"}", "engine");
	bad("{" MIN_MEMBERS ",\"engine_reason\":1}", "engine_reason");
	bad("{" MIN_MEMBERS ",\"cpu_features\":[]}", "cpu_features");
	bad("{" MIN_MEMBERS ",\"append\":\"a\\u0000b\"}", "JSON");
	return done_testing();
}
