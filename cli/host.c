// SPDX-License-Identifier: Apache-2.0
/*
 * Choosing the engine; see host.h. /dev/kvm is opened here, by the user's rights; the measuring is done by maru-vm, which has the
 * engines. What is kept names the boot by its id, and the device by its numbers, which are others when its module was loaded again:
 * another kernel, host or module means another probe.
 */
#include "cli/host.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/spawn.h"

#define PROBE_MS 10000
#define ANSWER_BYTES 4096

void host_kvm_explain(int errnum, struct host_engine *out)
{
	out->kvm_fd = -1;
	out->kvm_present = errnum != ENOENT && errnum != ENODEV && errnum != ENXIO;
	switch (errnum) {
	case ENOENT:
		snprintf(out->reason, sizeof(out->reason), "this host has no /dev/kvm");
		snprintf(out->kvm_fix, sizeof(out->kvm_fix),
			 "switch on virtualization in the firmware's setup and load the module (modprobe kvm_intel or kvm_amd); in a virtual machine, ask for nested virtualization");
		break;
	case ENODEV:
	case ENXIO:
		snprintf(out->reason, sizeof(out->reason), "there is a /dev/kvm, but no KVM behind it");
		snprintf(out->kvm_fix, sizeof(out->kvm_fix), "load the module: modprobe kvm_intel or kvm_amd");
		break;
	case EACCES:
		snprintf(out->reason, sizeof(out->reason), "you may not open /dev/kvm");
		snprintf(out->kvm_fix, sizeof(out->kvm_fix),
			 "join its group and log in again: sudo usermod -aG kvm \"$USER\"");
		break;
	case EPERM: /* of a device that the control group does not allow */
		snprintf(out->reason, sizeof(out->reason), "/dev/kvm is not for this container");
		snprintf(out->kvm_fix, sizeof(out->kvm_fix),
			 "give it to the container: docker run --device /dev/kvm, or DeviceAllow=/dev/kvm rw in a systemd unit");
		break;
	default:
		snprintf(out->reason, sizeof(out->reason), "/dev/kvm cannot be opened: %s", strerror(errnum));
		snprintf(out->kvm_fix, sizeof(out->kvm_fix), "see what the kernel says about KVM: dmesg | grep -i kvm");
		break;
	}
}

static void open_kvm(struct host_engine *out)
{
	*out = (struct host_engine){ .chosen = "bt", .kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC) };
	if (out->kvm_fd < 0)
		host_kvm_explain(errno, out);
	else
		out->kvm_present = true;
}

/* ---- What is kept ---- */

static bool boot_id(char *text, size_t size)
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	bool ok = f && fgets(text, (int)size, f);

	if (f)
		fclose(f);
	if (ok)
		text[strcspn(text, "\n")] = 0;
	return ok;
}

/* The file, and its folder is made. */
static bool kept_path(char *path, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char folder[3000];

	if (runtime && *runtime == '/')
		snprintf(folder, sizeof(folder), "%s/maru", runtime);
	else if (cache && *cache == '/')
		snprintf(folder, sizeof(folder), "%s/maru", cache);
	else if (home && *home == '/')
		snprintf(folder, sizeof(folder), "%s/.cache/maru", home);
	else
		return false;
	for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(folder, 0700); /* is there, or the next fails */
		*slash = '/';
	}
	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return false;
	return snprintf(path, size, "%s/kvm-probe.json", folder) < (int)size;
}

static bool device_id(int kvm_fd, char *text, size_t size)
{
	struct stat st;

	return fstat(kvm_fd, &st) == 0 &&
	       snprintf(text, size, "%llx:%llx:%llx", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino,
			(unsigned long long)st.st_rdev) < (int)size;
}

static bool is_text(json_t *o, const char *member, const char *text)
{
	const char *s = json_string_value(json_object_get(o, member));

	return s && !strcmp(s, text);
}

/* What is in a file of at most ANSWER_BYTES; whatever else is there under its name is not waited for. */
static json_t *load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char text[ANSWER_BYTES];
	struct stat st;
	ssize_t n = -1;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		n = read(fd, text, sizeof(text));
	close(fd);
	return n > 0 ? json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

static bool read_kept(struct host_engine *out)
{
	char path[3072], id[64], device[64];
	json_t *o, *kvm;
	bool found;

	if (!kept_path(path, sizeof(path)) || !boot_id(id, sizeof(id)) || !device_id(out->kvm_fd, device, sizeof(device)))
		return false;
	o = load(path);
	kvm = json_object_get(o, "kvm");
	found = json_is_object(kvm) && is_text(o, "boot_id", id) && is_text(o, "device", device) && json_is_boolean(json_object_get(kvm, "good")) &&
		json_is_string(json_object_get(kvm, "reason")) && json_is_number(json_object_get(kvm, "ns_per_iteration"));
	if (found) {
		out->kvm_usable = json_is_true(json_object_get(kvm, "good"));
		out->kvm_ns = json_number_value(json_object_get(kvm, "ns_per_iteration"));
		snprintf(out->reason, sizeof(out->reason), "%s", json_string_value(json_object_get(kvm, "reason")));
	}
	json_decref(o);
	return found;
}

/* Losing it costs 30 ms. */
static void keep(int kvm_fd, json_t *kvm)
{
	char path[3072], temporary[3104], id[64], device[64];
	json_t *o;

	if (!kept_path(path, sizeof(path)) || !boot_id(id, sizeof(id)) || !device_id(kvm_fd, device, sizeof(device)))
		return;
	o = json_pack("{s:s, s:s, s:O}", "boot_id", id, "device", device, "kvm", kvm);
	snprintf(temporary, sizeof(temporary), "%s.%d", path, (int)getpid());
	if (json_dump_file(o, temporary, JSON_COMPACT) < 0 || rename(temporary, path) < 0)
		unlink(temporary);
	json_decref(o);
}

/* ---- The probe ---- */

static json_t *read_answer(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char text[ANSWER_BYTES];
	size_t used = 0;
	ssize_t n = 1;

	while (n > 0 && used < sizeof(text) && poll(&p, 1, PROBE_MS) > 0) {
		n = read(fd, text + used, sizeof(text) - used);
		if (n > 0)
			used += n;
	}
	return json_loadb(text, used, JSON_REJECT_DUPLICATES, NULL);
}

static struct error *probe(struct host_engine *h, bool all, json_t **out)
{
	char fd_text[16], kvm_text[16];
	const char *argv[8] = { "maru-vm", "--probe-fd", fd_text };
	struct spawn_fds fds = { .count = 0 };
	unsigned n = 3;
	int ends[2];
	pid_t pid = 0;
	struct error *err;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_errno(errno, "cannot make a pipe");
	spawn_add_fd(&fds, ends[1]);
	snprintf(fd_text, sizeof(fd_text), "%d", ends[1]);
	if (h->kvm_fd >= 0) {
		fds.fd[fds.count++] = h->kvm_fd;
		snprintf(kvm_text, sizeof(kvm_text), "%d", h->kvm_fd);
		argv[n++] = "--kvm-fd";
		argv[n++] = kvm_text;
	}
	if (all)
		argv[n++] = "--all";
	err = spawn((char *const *)argv, &fds, &pid);
	close(ends[1]);
	*out = err ? NULL : read_answer(ends[0]);
	close(ends[0]);
	if (!err)
		spawn_reap(pid, 1000);
	if (!err && !json_is_object(*out)) {
		json_decref(*out);
		*out = NULL;
		err = error_new("maru-vm gave no answer about this host's engines");
	}
	return err;
}

static void take_kvm(struct host_engine *h, json_t *kvm)
{
	const char *reason = json_string_value(json_object_get(kvm, "reason"));

	h->kvm_usable = json_is_true(json_object_get(kvm, "good"));
	h->kvm_ns = json_number_value(json_object_get(kvm, "ns_per_iteration"));
	snprintf(h->reason, sizeof(h->reason), "%s", reason ? reason : "the probe of /dev/kvm says nothing");
}

static void choose(struct host_engine *h)
{
	h->chosen = h->kvm_usable ? "kvm" : "bt";
}

struct error *host_engine_choose(const char *wanted, struct host_engine *out)
{
	struct error *err;
	json_t *answer;

	if (!strcmp(wanted, "bt")) {
		*out = (struct host_engine){ .chosen = "bt", .kvm_fd = -1, .reason = "--engine bt was given" };
		return NULL;
	}
	open_kvm(out);
	if (!strcmp(wanted, "kvm")) {
		if (out->kvm_fd < 0)
			return error_new("--engine kvm: %s; %s, or use --engine bt", out->reason, out->kvm_fix);
		out->chosen = "kvm";
		snprintf(out->reason, sizeof(out->reason), "--engine kvm was given");
		return NULL;
	}
	if (out->kvm_fd < 0)
		return NULL;
	if (!read_kept(out)) {
		err = probe(out, false, &answer);
		if (err)
			return err;
		take_kvm(out, json_object_get(answer, "kvm"));
		keep(out->kvm_fd, json_object_get(answer, "kvm"));
		json_decref(answer);
	}
	choose(out);
	return NULL;
}

struct error *host_engine_measure(struct host_engine *out)
{
	struct error *err;
	json_t *answer, *bt, *memory;
	const char *reason;

	open_kvm(out);
	err = probe(out, true, &answer);
	if (err)
		return err;
	if (out->kvm_fd >= 0) {
		take_kvm(out, json_object_get(answer, "kvm"));
		keep(out->kvm_fd, json_object_get(answer, "kvm")); /* what was mended meanwhile counts from now on */
	}
	bt = json_object_get(answer, "bt");
	reason = json_string_value(json_object_get(bt, "reason"));
	out->bt_usable = json_is_true(json_object_get(bt, "usable"));
	out->bt_ns = json_number_value(json_object_get(bt, "ns_per_iteration"));
	out->native_ns = json_number_value(json_object_get(json_object_get(answer, "native"), "ns_per_iteration"));
	snprintf(out->bt_reason, sizeof(out->bt_reason), "%s", reason ? reason : "");
	memory = json_object_get(answer, "memory");
	out->memory_available = json_integer_value(json_object_get(memory, "available"));
	out->memory_total = json_integer_value(json_object_get(memory, "total"));
	json_decref(answer);
	choose(out);
	return NULL;
}
