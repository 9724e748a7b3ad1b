// SPDX-License-Identifier: Apache-2.0
/* What a VM gets of this host's files: /dev/kvm, kernel and initrd, disks. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/image.h"
#include "cli/host.h"
#include "cli/run.h"

struct error *run_give_engine(struct run *r)
{
	struct host_engine host;
	struct error *err = host_engine_choose(r->o.engine, &host);

	if (err)
		return err;
	if (r->o.verbose)
		fprintf(stderr, "maru: engine %s: %s\n", host.chosen, host.reason);
	json_object_set_new(r->config, "engine", json_string(host.chosen));
	json_object_set_new(r->config, "engine_reason", json_string(host.reason));
	if (host.kvm_fd < 0)
		return NULL;
	if (!strcmp(host.chosen, "kvm")) {
		spawn_add_fd(&r->vm_fds, host.kvm_fd);
		json_object_set_new(r->config, "kvm", json_pack("{s:i}", "fd", host.kvm_fd));
	} else {
		close(host.kvm_fd);
	}
	return NULL;
}

static struct error *give_file(struct run *r, const char *member, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return error_errno(errno, "cannot open the %s '%s'", member, path);
	spawn_add_fd(&r->vm_fds, fd);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_new("the %s '%s' is not a regular file", member, path);
	if (!st.st_size)
		return error_new("the %s '%s' is empty", member, path);
	json_object_set_new(r->config, member, json_pack("{s:i, s:s}", "fd", fd, "name", path));
	if (!json_object_get(r->config, member))
		return error_new("the name of the %s is not UTF-8 text", member);
	return NULL;
}

struct error *run_give_payload(struct run *r)
{
	const struct run_options *o = &r->o;
	const char *kernel = o->kernel ? o->kernel : r->guest.kernel;
	const char *initrd = o->initrd ? o->initrd : o->kernel ? NULL : r->guest.initrd;
	struct error *err;
	char *append;

	err = give_file(r, "kernel", kernel);
	if (!err && initrd)
		err = give_file(r, "initrd", initrd);
	if (err)
		return err;
	if (asprintf(&append, "%s%s%s", r->guest.append ? r->guest.append : "", r->guest.append && o->append ? " " : "",
		     o->append ? o->append : "") < 0)
		return error_errno(ENOMEM, "--append");
	json_object_set_new(r->config, "append", json_string(append));
	free(append);
	return json_object_get(r->config, "append") ? NULL : error_new("--append is not UTF-8 text");
}

static struct error *give_disk(struct run *r, json_t *list, const struct run_disk *d)
{
	struct block_open how = { .count = 0 };
	struct error *err = block_resolve_chain(d->path, d->backing, d->format, d->readonly, &how);
	json_t *chain;

	if (err)
		return err;
	chain = json_array();
	for (unsigned i = 0; i < how.count; i++) {
		spawn_add_fd(&r->vm_fds, how.chain[i].fd);
		json_array_append_new(chain, json_pack("{s:i, s:s}", "fd", how.chain[i].fd, "format",
						       block_format_name(how.chain[i].format)));
	}
	json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "name", d->path, "readonly", d->readonly, "chain", chain));
	return NULL;
}

struct error *run_give_disks(struct run *r)
{
	json_t *list = json_array();
	struct error *err = NULL;

	json_object_set_new(r->config, "disks", list);
	for (unsigned i = 0; !err && i < r->guest.disk_count; i++) {
		struct run_disk d = { .path = r->guest.disks[i].path, .format = r->guest.disks[i].format };

		err = give_disk(r, list, &d);
	}
	for (unsigned i = 0; !err && i < r->o.disk_count; i++)
		err = give_disk(r, list, &r->o.disks[i]);
	if (!err && json_array_size(list) > RUN_DISKS_MAX)
		err = error_new("--disk: more than %u disks are not possible", RUN_DISKS_MAX);
	return err;
}
