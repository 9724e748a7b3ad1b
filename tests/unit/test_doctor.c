/* SPDX-License-Identifier: Apache-2.0 */
/* maru doctor's checks on hosts that are folders, and what is said about a /dev/kvm that cannot be opened. */
#include "cli/doctor.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/tap.h"

static const struct doctor_limits no_limits = { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX };
static char root[] = "/tmp/test_doctor.XXXXXX";

static void put(const char *path, const char *text)
{
	char full[512];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *s = strchr(full + strlen(root) + 1, '/'); s; s = strchr(s + 1, '/')) {
		*s = 0;
		mkdir(full, 0755);
		*s = '/';
	}
	f = fopen(full, "w");
	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		abort();
	chmod(full, 0755);
}

static void all_fixes(const struct doctor *d)
{
	for (unsigned i = 0; i < d->count; i++) {
		const struct doctor_check *c = &d->checks[i];

		ok(*c->detail && (c->ok ? !*c->fix : strlen(c->fix) > 20), "%s: %s%s", c->name, c->detail, c->ok ? "" : ", and how to mend it");
	}
}

static bool is_ok(const struct doctor *d, const char *name)
{
	const struct doctor_check *c = doctor_find(d, name);

	return c && c->ok;
}

static const char *fix_of(const struct doctor *d, const char *name)
{
	return doctor_find(d, name)->fix;
}

static void test_nothing(void)
{
	struct doctor_facts facts = { ENOSYS, ENOSYS, ENOSYS, no_limits };
	struct host_engine e = { .chosen = "bt", .reason = "this host has no /dev/kvm" };
	struct doctor d;

	static const char *const seen[] = { "hugepages", "ksm", "bridge" };

	doctor_run(&d, root, &e, &facts);
	all_fixes(&d);
	ok(!is_ok(&d, "cpu") && !is_ok(&d, "memory") && !is_ok(&d, "translator") && !is_ok(&d, "tun"), "an empty host has nothing");
	ok(!doctor_can_run(&d), "and can run nothing");
	ok(!doctor_find(&d, "colour"), "there is no check of that name");
	for (unsigned i = 0; i < ARRAY_SIZE(seen); i++)
		ok(strstr(doctor_find(&d, seen[i])->detail, "/sys is not mounted"), "without /sys nothing is claimed: %s", seen[i]);
}

static void test_good(void)
{
	struct doctor_facts facts = { .limits = no_limits };
	struct host_engine e = { .chosen = "kvm", .kvm_present = true, .kvm_usable = true, .kvm_ns = 1.5, .bt_usable = true, .bt_ns = 5,
				 .native_ns = 1.4, .reason = "good" };
	struct doctor d;

	put("/proc/cpuinfo", "processor\t: 0\nmodel name\t: A Fine CPU\nflags\t\t: fpu lm sse2 avx vmx\nbugs\t\t:\n");
	put("/proc/meminfo", "MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:   7000000 kB\nHugepagesize:       2048 kB\n");
	put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
	put("/sys/kernel/mm/ksm/run", "1\n");
	put("/dev/net/tun", "");
	put("/sys/module/bridge/refcnt", "0\n");
	put("/usr/sbin/nft", "#!\n");
	put("/proc/sys/user/max_user_namespaces", "1000\n");
	put("/proc/sys/kernel/seccomp/actions_avail", "kill_process kill_thread allow\n");
	put("/usr/share/OVMF/OVMF_CODE_4M.fd", "x");
	doctor_run(&d, root, &e, &facts);
	all_fixes(&d);
	for (unsigned i = 0; i < d.count; i++)
		if (strcmp(d.checks[i].name, "disk"))
			ok(d.checks[i].ok, "%s is good", d.checks[i].name);
	ok(doctor_can_run(&d), "VMs can run");
	ok(strstr(doctor_find(&d, "cpu")->detail, "A Fine CPU; avx vmx"), "the processor has its name");
	e.bt_usable = false;
	doctor_run(&d, root, &e, &facts);
	ok(doctor_can_run(&d), "with KVM the translator is not needed");
}

static void test_lacks(void)
{
	struct doctor_facts facts = { EOPNOTSUPP, EPERM, EPERM, no_limits };
	struct host_engine e = { .chosen = "bt", .bt_usable = true, .bt_ns = 5, .native_ns = 1.4, .reason = "you may not open /dev/kvm",
				 .kvm_fix = "join its group and log in again" };
	struct doctor d;

	put("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu lm sse2x notlm sse2\n");
	put("/proc/meminfo", "MemTotal:       100000 kB\nMemAvailable:   90000 kB\n");
	put("/sys/kernel/mm/ksm/run", "0\n");
	put("/proc/sys/kernel/unprivileged_userns_clone", "0\n");
	put("/proc/sys/kernel/io_uring_disabled", "2\n");
	doctor_run(&d, root, &e, &facts);
	all_fixes(&d);
	ok(is_ok(&d, "cpu"), "flags are whole words");
	ok(strstr(fix_of(&d, "kvm"), "join its group"), "KVM without permission");
	ok(strstr(fix_of(&d, "ksm"), "/sys/kernel/mm/ksm/run"), "KSM that does not run");
	ok(strstr(fix_of(&d, "user-namespaces"), "unprivileged_userns_clone"), "user namespaces not for users");
	ok(strstr(fix_of(&d, "landlock"), "lsm="), "Landlock that is not switched on");
	ok(strstr(fix_of(&d, "io_uring"), "io_uring_disabled"), "io_uring forbidden");
	ok(!is_ok(&d, "memory") && !doctor_can_run(&d), "too little memory for any VM");
	put("/proc/sys/kernel/unprivileged_userns_clone", "1\n");
	put("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
	put("/proc/meminfo", "");
	put("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
	doctor_run(&d, root, &e, &facts);
	ok(strstr(fix_of(&d, "user-namespaces"), "apparmor"), "nor where AppArmor forbids them");
	ok(!is_ok(&d, "memory"), "a file that says nothing");
	ok(strstr(fix_of(&d, "hugepages"), "madvise"), "huge pages that are switched off");
	put("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0\n");
	put("/proc/sys/kernel/io_uring_disabled", "0\n");
	put("/proc/meminfo", "MemTotal:       8000000 kB\nMemAvailable:   7000000 kB\n");
	facts.landlock_errno = ENOSYS;
	e.memory_total = 128 * MiB;
	e.memory_available = 100 * MiB;
	doctor_run(&d, root, &e, &facts);
	all_fixes(&d);
	ok(strstr(fix_of(&d, "user-namespaces"), "seccomp profile") && strstr(fix_of(&d, "io_uring"), "seccomp profile"),
	   "a container that forbids what the files promise");
	ok(strstr(fix_of(&d, "landlock"), "5.13"), "a kernel without Landlock");
	ok(!is_ok(&d, "memory"), "a container's limit counts, not what the host has");
	put("/proc/self/uid_map", "");
	doctor_run(&d, root, &e, &facts);
	ok(strstr(fix_of(&d, "user-namespaces"), "--map-root-user"), "a user namespace without a user");
	put("/proc/self/uid_map", "         0       1000          1\n");
	doctor_run(&d, root, &e, &facts);
	ok(strstr(fix_of(&d, "user-namespaces"), "seccomp profile"), "and with one");
}

/* A limit of the process is what is to be raised, and not what a security module might have done. */
static void test_limits(void)
{
	struct host_engine e = { .chosen = "bt", .reason = "no", .bt_reason = "Cannot allocate memory" };
	struct doctor d;

	for (unsigned i = 0; i < 4; i++) {
		static const char option[] = "vdfn";
		struct doctor_facts facts = { .limits = no_limits };
		uint64_t *const limits[] = { &facts.limits.address_space, &facts.limits.data, &facts.limits.file_size, &facts.limits.open_files };
		char want[] = "ulimit -?";

		*limits[i] = 8;
		want[8] = option[i];
		doctor_run(&d, root, &e, &facts);
		ok(!is_ok(&d, "limits") && strstr(fix_of(&d, "limits"), want) && strstr(doctor_find(&d, "limits")->detail, want) &&
			   strstr(fix_of(&d, "translator"), "limits"),
		   "%s: %s", want, fix_of(&d, "limits"));
	}
}

/* The kernel's answers are those that the calls themselves give. */
static void test_this_kernel(void)
{
	struct doctor_facts facts;
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER) < 0);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		abort();
	doctor_ask_kernel(&facts);
	ok(!status || facts.user_namespace_errno, "user namespaces: %s", strerror(facts.user_namespace_errno));
	ok(facts.landlock_errno != EINVAL && facts.landlock_errno != EFAULT, "Landlock: %s", strerror(facts.landlock_errno));
	ok(facts.limits.open_files > 0, "limits: %llu descriptors", (unsigned long long)facts.limits.open_files);
	ok(facts.io_uring_errno != EINVAL && facts.io_uring_errno != EFAULT, "io_uring: %s", strerror(facts.io_uring_errno));
}

static void test_kvm(void)
{
	static const int numbers[] = { ENOENT, ENODEV, EACCES, EPERM, EMFILE };

	for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
		struct host_engine e = { .chosen = "bt" };

		host_kvm_explain(numbers[i], &e);
		ok(*e.reason && *e.kvm_fix && e.kvm_fd < 0 && e.kvm_present == (i >= 2), "/dev/kvm: %s", e.reason);
		ok(!strstr(e.kvm_fix, "container") == (numbers[i] != EPERM) && !strstr(e.kvm_fix, "group") == (numbers[i] != EACCES),
		   "a group helps against its permissions, not against a container's rules: %s", e.kvm_fix);
	}
}

int main(void)
{
	char command[128];

	if (!mkdtemp(root))
		abort();
	test_nothing();
	test_good();
	test_lacks();
	test_limits();
	test_kvm();
	test_this_kernel();
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command) ? 1 : done_testing();
}
