// SPDX-License-Identifier: Apache-2.0
/*
 * The configuration parser; see config.h.
 *
 * Theory of operation. Each object is described by a table of members: name, whether it must be there, and
 * a function that checks its value and stores it; config_members.c goes through the tables.
 */
#include "vm/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "vm/config_members.h"

#define APPEND_MAX 65536u
#define NAME_MAX_BYTES 4096u
#define VM_NAME_MAX 64u
#define PORT_NAME_MAX 64u
#define SHARE_TAG_MAX 32u
#define MEMORY_MIN (8 * MiB)
#define MEMORY_MAX (16 * TiB)

/* Members that go straight to a field of the configuration. */
#define FIELD(function, member, getter, ...)                                                \
	static struct error *function(struct parse *p, const char *name, json_t *v)        \
	{                                                                                   \
		return getter(p, name, v, ##__VA_ARGS__, &p->c->member);                    \
	}
FIELD(take_append, append, config_get_string, APPEND_MAX)
FIELD(take_verbose, verbose, config_get_bool)
FIELD(take_paravirt, paravirt, config_get_bool)
FIELD(take_cpu_features, cpu_features, config_get_string, NAME_MAX_BYTES)
FIELD(take_engine_reason, engine_reason, config_get_string, 256)
FIELD(take_kvm_fd, kvm_fd, config_get_fd)
FIELD(take_paused, paused, config_get_bool)
FIELD(take_debug_exit, debug_exit, config_get_bool)
FIELD(take_memory, memory_bytes, config_get_integer, MEMORY_MIN, MEMORY_MAX)
FIELD(take_mergeable, mergeable, config_get_bool)
FIELD(take_huge_pages, huge_pages, config_get_bool)
FIELD(take_kernel_fd, kernel.fd, config_get_fd)
FIELD(take_kernel_name, kernel.name, config_get_string, NAME_MAX_BYTES)
FIELD(take_initrd_fd, initrd.fd, config_get_fd)
FIELD(take_initrd_name, initrd.name, config_get_string, NAME_MAX_BYTES)
FIELD(take_net_fd, net_fd, config_get_fd)
FIELD(take_net_offload, net_offload, config_get_bool)
FIELD(take_serial_in, serial.in_fd, config_get_fd)
FIELD(take_serial_out, serial.out_fd, config_get_fd)
FIELD(take_serial_listen, serial.listen_fd, config_get_fd)
FIELD(take_console_in, console.in_fd, config_get_fd)
FIELD(take_console_out, console.out_fd, config_get_fd)
FIELD(take_console_listen, console.listen_fd, config_get_fd)
FIELD(take_vsock_listen, vsock_listen_fd, config_get_fd)
FIELD(take_vsock_broker, vsock_broker_fd, config_get_fd)
FIELD(take_control_listen, control_listen_fd, config_get_fd)
FIELD(take_control_client, control_client_fd, config_get_fd)
FIELD(take_gdb_listen, gdb_listen_fd, config_get_fd)
FIELD(take_gdb_wait, gdb_wait, config_get_bool)
FIELD(take_debugcon_fd, debugcon_fd, config_get_fd)

#define OBJECT(function, ...)                                                               \
	static struct error *function(struct parse *p, const char *name, json_t *v)        \
	{                                                                                   \
		static const struct member members[] = { __VA_ARGS__ };                     \
		return config_take_object(p, name, v, members, ARRAY_SIZE(members));               \
	}
OBJECT(take_kernel, { "fd", true, take_kernel_fd }, { "name", true, take_kernel_name })
OBJECT(take_initrd, { "fd", true, take_initrd_fd }, { "name", true, take_initrd_name })
OBJECT(take_control, { "listen_fd", false, take_control_listen }, { "client_fd", false, take_control_client })
OBJECT(take_vsock, { "listen_fd", true, take_vsock_listen }, { "broker_fd", false, take_vsock_broker })
OBJECT(take_gdb, { "listen_fd", true, take_gdb_listen }, { "wait", false, take_gdb_wait })
OBJECT(take_kvm, { "fd", true, take_kvm_fd })
OBJECT(take_debugcon, { "fd", true, take_debugcon_fd })

static struct error *take_version(struct parse *p, const char *name, json_t *v)
{
	uint64_t version;

	return config_get_integer(p, name, v, VM_CONFIG_VERSION, VM_CONFIG_VERSION, &version);
}

static struct error *take_name(struct parse *p, const char *name, json_t *v)
{
	return config_get_word(p, name, v, VM_NAME_MAX, &p->c->name);
}

static struct error *take_cpus(struct parse *p, const char *name, json_t *v)
{
	uint64_t n = 0;
	struct error *err = config_get_integer(p, name, v, 1, VM_CONFIG_CPUS, &n);

	p->c->cpus = n;
	return err;
}

static struct error *take_engine(struct parse *p, const char *name, json_t *v)
{
	static const char *const names[] = { [ENGINE_AUTO] = "auto", [ENGINE_BT] = "bt", [ENGINE_KVM] = "kvm" };

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (json_is_string(v) && !strcmp(json_string_value(v), names[i])) {
			p->c->engine = i;
			return NULL;
		}
	}
	return config_complain(p, name, "has to be \"auto\", \"bt\" or \"kvm\"");
}

static struct vm_config_disk *last_disk(struct parse *p)
{
	return &p->c->disks[p->c->disk_count - 1];
}

static struct error *take_disk_name(struct parse *p, const char *name, json_t *v)
{
	return config_get_string(p, name, v, NAME_MAX_BYTES, &last_disk(p)->name);
}

static struct error *take_disk_readonly(struct parse *p, const char *name, json_t *v)
{
	return config_get_bool(p, name, v, &last_disk(p)->readonly);
}

static struct error *take_link_fd(struct parse *p, const char *name, json_t *v)
{
	struct vm_config_disk *d = last_disk(p);

	return config_get_fd(p, name, v, &d->chain[d->count - 1].fd);
}

static struct error *take_link_format(struct parse *p, const char *name, json_t *v)
{
	struct vm_config_disk *d = last_disk(p);

	if (!json_is_string(v) || !block_format_parse(json_string_value(v), &d->chain[d->count - 1].format))
		return config_complain(p, name, "has to be \"raw\" or \"qcow2\"");
	return NULL;
}

static struct error *take_chain(struct parse *p, const char *name, json_t *v)
{
	static const struct member members[] = { { "fd", true, take_link_fd },
						 { "format", true, take_link_format } };

	return config_take_array(p, name, v, "images", 1, BLOCK_CHAIN_MAX, members, ARRAY_SIZE(members), &last_disk(p)->count);
}

static struct error *take_disks(struct parse *p, const char *name, json_t *v)
{
	static const struct member members[] = { { "name", true, take_disk_name },
						 { "readonly", false, take_disk_readonly },
						 { "chain", true, take_chain } };

	return config_take_array(p, name, v, "disks", 0, VM_CONFIG_DISKS, members, ARRAY_SIZE(members), &p->c->disk_count);
}

static struct error *take_mac(struct parse *p, const char *name, json_t *v)
{
	static const char form[] = "xx:xx:xx:xx:xx:xx";
	const char *s = json_string_value(v);

	if (!s || strlen(s) != sizeof(form) - 1)
		return config_complain(p, name, "has to be an Ethernet address such as 52:54:00:12:34:56");
	for (unsigned i = 0; i < sizeof(form) - 1; i++)
		if (form[i] == 'x' ? !isxdigit((unsigned char)s[i]) : s[i] != form[i])
			return config_complain(p, name, "has to be an Ethernet address such as 52:54:00:12:34:56");
	for (unsigned i = 0; i < 6; i++)
		p->c->mac[i] = strtoul(s + i * 3, NULL, 16);
	if (p->c->mac[0] & 1)
		return config_complain(p, name, "is a multicast address; the first byte has to be even");
	return NULL;
}

OBJECT(take_net, { "fd", true, take_net_fd }, { "mac", false, take_mac }, { "offload", false, take_net_offload })

/* {"fd": both directions}, or {"in_fd", "out_fd"}, or {"listen_fd"}. */
static struct error *take_chardev(struct parse *p, const char *name, json_t *v, const struct member *members,
				  unsigned count, struct vm_config_chardev *c)
{
	struct error *err = config_take_object(p, name, v, members, count);

	if (err)
		return err;
	if (json_object_get(v, "fd")) {
		if (json_object_size(v) != 1)
			return config_complain(p, name, "has 'fd', for both directions, beside others");
		c->out_fd = c->in_fd;
	}
	if (c->listen_fd >= 0 && (c->in_fd >= 0 || c->out_fd >= 0))
		return config_complain(p, name, "has 'listen_fd' beside others");
	return NULL;
}

static struct error *take_serial(struct parse *p, const char *name, json_t *v)
{
	static const struct member members[] = { { "fd", false, take_serial_in },
						 { "in_fd", false, take_serial_in },
						 { "out_fd", false, take_serial_out },
						 { "listen_fd", false, take_serial_listen } };

	return take_chardev(p, name, v, members, ARRAY_SIZE(members), &p->c->serial);
}

static struct error *take_console(struct parse *p, const char *name, json_t *v)
{
	static const struct member members[] = { { "fd", false, take_console_in },
						 { "in_fd", false, take_console_in },
						 { "out_fd", false, take_console_out },
						 { "listen_fd", false, take_console_listen } };

	return take_chardev(p, name, v, members, ARRAY_SIZE(members), &p->c->console);
}

static struct error *take_port_name(struct parse *p, const char *name, json_t *v)
{
	struct vm_config_port *port = &p->c->ports[p->c->port_count - 1];
	struct error *err = config_get_word(p, name, v, PORT_NAME_MAX, &port->name);

	for (unsigned i = 0; !err && i + 1 < p->c->port_count; i++)
		if (!strcmp(p->c->ports[i].name, port->name))
			err = config_complain(p, name, "is the name of another port");
	return err;
}

static struct error *take_port_listen(struct parse *p, const char *name, json_t *v)
{
	return config_get_fd(p, name, v, &p->c->ports[p->c->port_count - 1].listen_fd);
}

static struct error *take_ports(struct parse *p, const char *name, json_t *v)
{
	static const struct member members[] = { { "name", true, take_port_name },
						 { "listen_fd", true, take_port_listen } };

	return config_take_array(p, name, v, "ports", 0, VM_CONFIG_PORTS, members, ARRAY_SIZE(members), &p->c->port_count);
}

static struct error *take_share_tag(struct parse *p, const char *name, json_t *v)
{
	struct vm_config_share *share = &p->c->shares[p->c->share_count - 1];
	struct error *err = config_get_word(p, name, v, SHARE_TAG_MAX, &share->tag);

	for (unsigned i = 0; !err && i + 1 < p->c->share_count; i++)
		if (!strcmp(p->c->shares[i].tag, share->tag))
			err = config_complain(p, name, "is the tag of another shared folder");
	return err;
}

static struct error *take_share_fd(struct parse *p, const char *name, json_t *v)
{
	return config_get_fd(p, name, v, &p->c->shares[p->c->share_count - 1].fd);
}

static struct error *take_shares(struct parse *p, const char *name, json_t *v)
{
	static const struct member members[] = { { "tag", true, take_share_tag }, { "fd", true, take_share_fd } };

	return config_take_array(p, name, v, "shared folders", 0, VM_CONFIG_SHARES, members, ARRAY_SIZE(members), &p->c->share_count);
}

static const struct member top[] = {
	{ "config", true, take_version },
	{ "name", true, take_name },
	{ "cpus", true, take_cpus },
	{ "memory", true, take_memory },
	{ "mergeable", false, take_mergeable },
	{ "huge_pages", false, take_huge_pages },
	{ "engine", false, take_engine },
	{ "engine_reason", false, take_engine_reason },
	{ "cpu_features", false, take_cpu_features },
	{ "paravirt", false, take_paravirt },
	{ "kvm", false, take_kvm },
	{ "kernel", true, take_kernel },
	{ "initrd", false, take_initrd },
	{ "append", false, take_append },
	{ "disks", false, take_disks },
	{ "net", false, take_net },
	{ "serial", false, take_serial },
	{ "console", false, take_console },
	{ "ports", false, take_ports },
	{ "shares", false, take_shares },
	{ "vsock", false, take_vsock },
	{ "control", false, take_control },
	{ "gdb", false, take_gdb },
	{ "debug_exit", false, take_debug_exit },
	{ "debugcon", false, take_debugcon },
	{ "paused", false, take_paused },
	{ "verbose", false, take_verbose },
};

struct error *vm_config_parse(const char *json, size_t length, struct vm_config *out)
{
	static const uint8_t default_mac[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 };
	struct parse p = { out, "" };
	struct error *err = NULL;
	json_error_t where;
	json_t *root;

	*out = (struct vm_config){
		.paravirt = true, .kvm_fd = -1, .kernel.fd = -1, .initrd.fd = -1, .net_fd = -1,
		.serial = { -1, -1, -1 }, .console = { -1, -1, -1 },
		.vsock_listen_fd = -1, .vsock_broker_fd = -1,
		.control_listen_fd = -1, .control_client_fd = -1,
		.gdb_listen_fd = -1, .debugcon_fd = -1,
	};
	memcpy(out->mac, default_mac, sizeof(out->mac));
	root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &where);
	if (!root)
		return error_new("configuration: not JSON: %s (line %d)", where.text, where.line);
	err = config_take_members(&p, root, top, ARRAY_SIZE(top));
	if (!err && out->memory_bytes % MEM_PAGE_SIZE)
		err = error_new("configuration: 'memory' has to be a multiple of %u bytes", MEM_PAGE_SIZE);
	if (!err && !out->append) {
		out->append = strdup("");
		if (!out->append)
			err = error_errno(ENOMEM, "configuration");
	}
	json_decref(root);
	if (err)
		vm_config_finish(out);
	return err;
}

struct error *vm_config_read(int fd, struct vm_config *out)
{
	char *text = malloc(VM_CONFIG_BYTES_MAX + 1);
	struct error *err = NULL;
	size_t used = 0;
	ssize_t n;

	if (!text)
		return error_errno(ENOMEM, "configuration");
	do {
		n = read(fd, text + used, VM_CONFIG_BYTES_MAX + 1 - used);
		if (n > 0)
			used += n;
	} while ((n > 0 && used <= VM_CONFIG_BYTES_MAX) || (n < 0 && errno == EINTR));
	if (n < 0)
		err = error_errno(errno, "configuration: cannot read descriptor %d", fd);
	else if (used > VM_CONFIG_BYTES_MAX)
		err = error_new("configuration: longer than %u bytes", VM_CONFIG_BYTES_MAX);
	else
		err = vm_config_parse(text, used, out);
	free(text);
	for (unsigned i = 0; !err && i < out->fd_count; i++) {
		if (fcntl(out->fds[i], F_GETFD) < 0) {
			err = error_errno(errno, "configuration: descriptor %d, which it names, is not open",
					  out->fds[i]);
			vm_config_finish(out);
		}
	}
	return err;
}

void vm_config_finish(struct vm_config *c)
{
	free(c->name);
	free(c->kernel.name);
	free(c->initrd.name);
	free(c->engine_reason);
	free(c->cpu_features);
	free(c->append);
	for (unsigned i = 0; i < c->disk_count; i++)
		free(c->disks[i].name);
	for (unsigned i = 0; i < c->port_count; i++)
		free(c->ports[i].name);
	for (unsigned i = 0; i < c->share_count; i++)
		free(c->shares[i].tag);
	*c = (struct vm_config){ 0 };
}
