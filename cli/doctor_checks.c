// SPDX-License-Identifier: Apache-2.0
/*
 * The checks; see doctor.h. Each looks at files of /proc, /sys, /dev or an installation's folders below a root, and at what the kernel
 * has answered, so that a test can show it any host. Nothing is changed on the host.
 */
#include "cli/doctor.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/catalogue.h"
#include "cli/cli.h"

#define NEEDED_MEMORY (256 * MiB)
#define WANTED_DISK (5 * GiB)
/* For a guest of NEEDED_MEMORY: address space is set aside, not used. */
#define NEEDED_ADDRESS_SPACE (16 * GiB)
#define NEEDED_FILES 64u

/* ---- Reading ---- */

static bool read_text(const struct doctor *d, const char *path, char *text, size_t size)
{
	char full[512];
	size_t n;
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", d->root, path);
	f = fopen(full, "re");
	if (!f)
		return false;
	n = fread(text, 1, size - 1, f);
	fclose(f);
	text[n] = 0;
	return n > 0;
}

static bool read_number(const struct doctor *d, const char *path, long long *out)
{
	char text[64], *end;

	if (!read_text(d, path, text, sizeof(text)))
		return false;
	*out = strtoll(text, &end, 10);
	return end != text;
}

static bool exists(const struct doctor *d, const char *path, int mode)
{
	char full[512];

	snprintf(full, sizeof(full), "%s%s", d->root, path);
	return access(full, mode) == 0;
}

/* A program in one of the usual folders. */
static bool has_program(const struct doctor *d, const char *name)
{
	static const char *const folders[] = { "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin" };
	char path[128];

	for (unsigned i = 0; i < ARRAY_SIZE(folders); i++) {
		snprintf(path, sizeof(path), "%s/%s", folders[i], name);
		if (exists(d, path, X_OK))
			return true;
	}
	return false;
}

/* "MemTotal" in KiB of /proc/meminfo, as bytes; 0: not there. */
static uint64_t meminfo(const struct doctor *d, const char *name)
{
	char text[8192], word[40], *line;

	snprintf(word, sizeof(word), "\n%s:", name);
	text[0] = '\n';
	if (!read_text(d, "/proc/meminfo", text + 1, sizeof(text) - 1))
		return 0;
	line = strstr(text, word);
	return line ? strtoull(line + strlen(word), NULL, 10) * KiB : 0;
}

/* ---- Saying ---- */

static struct doctor_check *add(struct doctor *d, const char *name, bool ok)
{
	struct doctor_check *c = &d->checks[d->count];

	assert(d->count < DOCTOR_CHECKS_MAX);
	d->count++;
	*c = (struct doctor_check){ .name = name, .ok = ok };
	return c;
}

static void PRINTF_LIKE(2, 3) detail(struct doctor_check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->detail, sizeof(c->detail), fmt, ap);
	va_end(ap);
}

static void fix(struct doctor_check *c, const char *text)
{
	if (!c->ok)
		snprintf(c->fix, sizeof(c->fix), "%s", text);
}

/* What /sys would tell is not known where it is not mounted, as in some containers. */
static bool unseen(const struct doctor *d, struct doctor_check *c)
{
	if (exists(d, "/sys/kernel", F_OK))
		return false;
	detail(c, "not known: /sys is not mounted");
	return true;
}

static const char *size_text(uint64_t bytes, char buf[32])
{
	return cli_format_size(bytes, buf, 32);
}

/* ---- The checks ---- */

static bool flag(const char *flags, const char *name)
{
	size_t n = strlen(name);

	for (const char *s = flags; (s = strstr(s, name)); s += n)
		if ((s == flags || s[-1] == ' ' || s[-1] == '\t') && (s[n] == ' ' || s[n] == '\n' || !s[n]))
			return true;
	return false;
}

static void check_cpu(struct doctor *d)
{
	static const char *const useful[] = { "avx", "avx2", "avx512f", "bmi2", "fsgsbase", "vmx", "svm", "constant_tsc", "nonstop_tsc" };
	static char text[65536];
	char model[100] = "unknown processor", list[120] = "";
	const char *flags, *name;
	struct doctor_check *c;
	char *end;

	if (!read_text(d, "/proc/cpuinfo", text, sizeof(text)))
		text[0] = 0;
	name = strstr(text, "model name\t: ");
	if (name)
		snprintf(model, sizeof(model), "%.*s", (int)strcspn(name + 13, "\n"), name + 13);
	flags = strstr(text, "\nflags");
	if (flags && (end = strchr(flags + 1, '\n')))
		*end = 0;
	flags = flags ? flags + 1 : "";
	for (unsigned i = 0; i < ARRAY_SIZE(useful); i++)
		if (flag(flags, useful[i]))
			snprintf(list + strlen(list), sizeof(list) - strlen(list), " %s", useful[i]);
	c = add(d, "cpu", flag(flags, "lm") && flag(flags, "sse2"));
	c->needed = true;
	detail(c, "%s;%s", model, *list ? list : " none of the features that help");
	fix(c, "maru needs a 64-bit x86 processor: use another host");
}

/* Limits of this process under which no guest fits. */
static bool check_limits(struct doctor *d, const struct doctor_limits *l)
{
	const struct {
		char option; /* of ulimit */
		uint64_t limit, needed;
	} limits[] = {
		{ 'v', l->address_space, NEEDED_ADDRESS_SPACE },
		{ 'd', l->data, NEEDED_MEMORY },
		{ 'f', l->file_size, NEEDED_MEMORY },
		{ 'n', l->open_files, NEEDED_FILES },
	};
	struct doctor_check *c;
	char list[40] = "", text[sizeof(c->fix)];

	for (unsigned i = 0; i < ARRAY_SIZE(limits); i++)
		if (limits[i].limit < limits[i].needed)
			snprintf(list + strlen(list), sizeof(list) - strlen(list), " -%c", limits[i].option);
	c = add(d, "limits", !*list);
	detail(c, c->ok ? "room for a guest" : "too little for a guest: ulimit%s", list);
	snprintf(text, sizeof(text), "raise what ulimit%s shows (address space 16 GiB, data and files 256 MiB, 64 descriptors), in the shell that starts maru or where it gets its limits from",
		 list);
	fix(c, text);
	return c->ok;
}

static void check_engines(struct doctor *d, const struct host_engine *e, bool limits_ok)
{
	struct doctor_check *c = add(d, "kvm", e->kvm_usable);

	if (e->kvm_usable)
		detail(c, "%.1f ns for an iteration of a loop in ring 0", e->kvm_ns);
	else
		detail(c, "%s", e->reason);
	fix(c, *e->kvm_fix ? e->kvm_fix : "the translator is used instead; for hardware speed use a host whose /dev/kvm is not emulated");

	c = add(d, "translator", e->bt_usable);
	c->needed = !e->kvm_usable;
	if (e->bt_usable)
		detail(c, "%.1f ns for an iteration of a loop in ring 0, where this host itself takes %.1f", e->bt_ns, e->native_ns);
	else
		detail(c, "%s", *e->bt_reason ? e->bt_reason : "it does not answer");
	fix(c, !limits_ok ? "raise the limits first, see there; then run maru doctor again" :
			    "allow executable mappings of memory for maru-vm (a security module or noexec /dev/shm forbids them), then run maru doctor again");
}

static void check_memory(struct doctor *d, const struct host_engine *e)
{
	uint64_t total = e->memory_total ? e->memory_total : meminfo(d, "MemTotal");
	uint64_t available = e->memory_total ? e->memory_available : meminfo(d, "MemAvailable");
	struct doctor_check *c = add(d, "memory", available >= NEEDED_MEMORY);
	char a[32], b[32], text[128];
	long long run = 0;

	c->needed = true;
	detail(c, "%s of %s available", size_text(available, a), size_text(total, b));
	fix(c, "stop other programs, add memory, or raise this container's limit: a guest needs at least 256 MiB");

	c = add(d, "hugepages", read_text(d, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text)));
	if (!c->ok && unseen(d, c)) {
		fix(c, "mount it; guests run without, but for --hugepages");
	} else if (!c->ok) {
		detail(c, "this kernel has no transparent ones");
		fix(c, "use a kernel with CONFIG_TRANSPARENT_HUGEPAGE; guests run without, but for --hugepages");
	} else {
		c->ok = !strstr(text, "[never]");
		detail(c, c->ok ? "transparent ones, for --hugepages" : "switched off");
		fix(c, "allow them: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled");
	}

	c = add(d, "ksm", read_number(d, "/sys/kernel/mm/ksm/run", &run));
	if (!c->ok && unseen(d, c)) {
		fix(c, "mount it; guests run without, and share no memory");
	} else if (!c->ok) {
		detail(c, "this kernel cannot merge equal pages");
		fix(c, "use a kernel with CONFIG_KSM; guests run without, and share no memory");
	} else {
		c->ok = run == 1;
		detail(c, c->ok ? "runs, for --ksm" : "is there, but does not run");
		fix(c, "start it: echo 1 | sudo tee /sys/kernel/mm/ksm/run");
	}
}

static void check_tun(struct doctor *d)
{
	struct doctor_check *c;
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/dev/net/tun", d->root);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	c = add(d, "tun", fd >= 0);
	if (fd >= 0) {
		detail(c, "/dev/net/tun can be opened");
		close(fd);
	} else if (errno == EACCES || errno == EPERM) {
		detail(c, "you may not open /dev/net/tun");
		fix(c, "sudo chmod 0666 /dev/net/tun, as most systems have it; --net user needs none of it");
	} else {
		detail(c, "/dev/net/tun: %s", strerror(errno));
		fix(c, "load the module: sudo modprobe tun; --net user needs none of it");
	}
}

static void check_network(struct doctor *d)
{
	struct doctor_check *c;

	check_tun(d);
	c = add(d, "bridge", exists(d, "/sys/module/bridge", F_OK));
	if (c->ok || !unseen(d, c))
		detail(c, c->ok ? "the kernel has bridges" : "the kernel has no bridges loaded");
	fix(c, exists(d, "/sys/kernel", F_OK) ? "load the module: sudo modprobe bridge; --net user needs none of it" :
						"mount it; --net user needs no bridge");
	c = add(d, "nftables", has_program(d, "nft"));
	detail(c, c->ok ? "nft is there" : "there is no nft");
	fix(c, "sudo apt install nftables; --net user needs none of it");
}

/* The files say what to mend; whether there is anything to mend the kernel says. */
static void check_user_namespaces(struct doctor *d, int errnum)
{
	long long max = 1, clone = 1, apparmor = 0;
	struct doctor_check *c = add(d, "user-namespaces", !errnum);
	bool unmapped;
	char map[64];

	read_number(d, "/proc/sys/user/max_user_namespaces", &max);
	read_number(d, "/proc/sys/kernel/unprivileged_userns_clone", &clone);
	read_number(d, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", &apparmor);
	unmapped = exists(d, "/proc/self/uid_map", R_OK) && !read_text(d, "/proc/self/uid_map", map, sizeof(map));
	detail(c, c->ok ? "can be made" : unmapped ? "cannot be made: this process has no user in its own user namespace" :
						     "cannot be made: %s", strerror(errnum));
	fix(c, unmapped ? "start it in a namespace with a mapping (unshare --map-root-user); VMs run without, with less around them" :
	       max <= 0 ? "sudo sysctl user.max_user_namespaces=10000; VMs run without, with less around them" :
	       !clone	? "sudo sysctl kernel.unprivileged_userns_clone=1; VMs run without, with less around them" :
	       apparmor ? "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0; VMs run without, with less around them" :
			  "in a container, start it with a seccomp profile that allows unshare(); VMs run without, with less around them");
}

static void check_sandbox(struct doctor *d, const struct doctor_facts *facts)
{
	struct doctor_check *c;
	long long disabled = 0;
	char text[512];

	check_user_namespaces(d, facts->user_namespace_errno);
	c = add(d, "landlock", !facts->landlock_errno);
	detail(c, c->ok ? "on" : facts->landlock_errno == EOPNOTSUPP ? "not switched on" : "%s", strerror(facts->landlock_errno));
	fix(c, facts->landlock_errno == EOPNOTSUPP ?
		       "boot with landlock at the head of lsm=... on the kernel's command line; VMs run without, with less around them" :
		       "use Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and in a container a seccomp profile that allows it; VMs run without, with less around them");
	c = add(d, "seccomp", read_text(d, "/proc/sys/kernel/seccomp/actions_avail", text, sizeof(text)) && strstr(text, "kill_process"));
	detail(c, c->ok ? "on" : "this kernel has none");
	fix(c, "use a kernel with CONFIG_SECCOMP_FILTER; VMs run without, with less around them");
	read_number(d, "/proc/sys/kernel/io_uring_disabled", &disabled);
	c = add(d, "io_uring", !facts->io_uring_errno);
	detail(c, c->ok ? "on" : "%s", strerror(facts->io_uring_errno));
	fix(c, disabled ? "sudo sysctl kernel.io_uring_disabled=0; disks work without it, by threads" :
			  "use Linux 5.1 or later, and in a container a seccomp profile that allows it; disks work without it, by threads");
}

/* In the folder of the guests, or where it would be made. */
static void check_disk(struct doctor *d)
{
	struct doctor_check *c = add(d, "disk", false);
	char path[4096], a[32], *slash;
	struct statvfs v = { 0 };
	struct error *err = NULL;
	uint64_t room;

	if (*d->root)
		snprintf(path, sizeof(path), "%s", d->root);
	else
		err = guest_cache(path, sizeof(path));
	if (err) {
		detail(c, "%s", error_message(err));
		fix(c, "name a folder for guests: export XDG_CACHE_HOME=/some/folder");
		error_free(err);
		return;
	}
	while (statvfs(path, &v) < 0 && path[1] && (slash = strrchr(path, '/')))
		slash[slash == path] = 0;
	room = (uint64_t)v.f_bavail * v.f_frsize;
	c->ok = room >= WANTED_DISK && access(path, W_OK) == 0;
	detail(c, "%s free in %s%s", size_text(room, a), path,
	       v.f_flag & ST_RDONLY ? ", which is read-only" : access(path, W_OK) ? ", which you may not write to" : "");
	fix(c, "make room, or name another folder for guests (export XDG_CACHE_HOME=/some/folder): one of the catalogue takes up to 5 GiB");
}

static void check_firmware(struct doctor *d)
{
	static const char *const firmware[] = { "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd",
						"/usr/share/seabios/bios-256k.bin" };
	const char *found = NULL;
	struct doctor_check *c;

	for (unsigned i = 0; i < ARRAY_SIZE(firmware) && !found; i++)
		if (exists(d, firmware[i], R_OK))
			found = firmware[i];
	c = add(d, "firmware", found);
	detail(c, "%s", found ? found : "none");
	fix(c, "sudo apt install ovmf seabios; guests that are booted by their kernel need none");
}

void doctor_run(struct doctor *d, const char *root, const struct host_engine *engine, const struct doctor_facts *facts)
{
	*d = (struct doctor){ .root = root };
	check_cpu(d);
	check_engines(d, engine, check_limits(d, &facts->limits));
	check_memory(d, engine);
	check_network(d);
	check_sandbox(d, facts);
	check_firmware(d);
	check_disk(d);
}

bool doctor_can_run(const struct doctor *d)
{
	for (unsigned i = 0; i < d->count; i++)
		if (d->checks[i].needed && !d->checks[i].ok)
			return false;
	return true;
}

const struct doctor_check *doctor_find(const struct doctor *d, const char *name)
{
	for (unsigned i = 0; i < d->count; i++)
		if (!strcmp(d->checks[i].name, name))
			return &d->checks[i];
	return NULL;
}
