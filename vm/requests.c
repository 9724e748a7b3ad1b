// SPDX-License-Identifier: Apache-2.0
/*
 * The requests of the control socket (maru-vm(1), "CONTROL SOCKET"): one function each, one table.
 * A peer may be anybody who reached the socket: arguments are checked, answers are bounded.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/virtio/virtio_balloon.h"
#include "mem/host.h"
#include "vm/vm.h"

#define READ_MEMORY_MAX 65536u
#define BALLOON_KEEP_MIN (32 * MiB) /* less than this no guest can live in */

static json_t *balloon_json(struct vm *vm)
{
	static const char *const names[] = {
		[VIRTIO_BALLOON_SWAP_IN] = "swapped_in",
		[VIRTIO_BALLOON_SWAP_OUT] = "swapped_out",
		[VIRTIO_BALLOON_MAJOR_FAULTS] = "major_faults",
		[VIRTIO_BALLOON_MINOR_FAULTS] = "minor_faults",
		[VIRTIO_BALLOON_FREE] = "free",
		[VIRTIO_BALLOON_TOTAL] = "total",
		[VIRTIO_BALLOON_AVAILABLE] = "available",
		[VIRTIO_BALLOON_CACHES] = "caches",
		[VIRTIO_BALLOON_HUGE_ALLOCATED] = "huge_pages_allocated",
		[VIRTIO_BALLOON_HUGE_FAILED] = "huge_pages_failed",
	};
	struct virtio_balloon_state b;
	json_t *json, *statistics;

	virtio_balloon_get_state(machine_balloon(vm->machine), &b);
	json = json_pack("{s:b, s:I, s:I, s:I}", "driver", b.driver, "target",
			 (json_int_t)(vm->config.memory_bytes - b.target_bytes), "actual",
			 (json_int_t)(vm->config.memory_bytes - MIN(b.given_bytes, vm->config.memory_bytes)),
			 "reported", (json_int_t)(b.reported_bytes & INT64_MAX));
	if (!b.has_statistics)
		return json;
	statistics = json_object();
	for (unsigned i = 0; i < VIRTIO_BALLOON_TAGS; i++)
		if (b.statistics_set & 1u << i)
			json_object_set_new(statistics, names[i], json_integer((json_int_t)(b.statistics[i] & INT64_MAX)));
	json_object_set_new(json, "guest", statistics);
	json_object_set_new(json, "guest_age_ns", json_integer((json_int_t)(loop_now_ns() - b.statistics_ns)));
	return json;
}

/* The named ports, and whether a program in the guest has opened them. */
static json_t *ports_json(struct vm *vm)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < vm->config.port_count; i++) {
		const char *name = vm->config.ports[i].name;

		json_array_append_new(list, json_pack("{s:s, s:b}", "name", name, "guest_open",
						      machine_port_open(vm->machine, name)));
	}
	return list;
}

static json_t *disks_json(struct vm *vm)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < vm->config.disk_count; i++) {
		struct block_counters n;

		block_get_counters(vm->disks[i], &n);
		json_array_append_new(list, json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "name", block_name(vm->disks[i]),
						      "readonly", block_is_readonly(vm->disks[i]), "size",
						      (json_int_t)block_size_bytes(vm->disks[i]), "reads", (json_int_t)n.reads,
						      "read_bytes", (json_int_t)n.read_bytes, "writes", (json_int_t)n.writes,
						      "written_bytes", (json_int_t)n.written_bytes, "errors", (json_int_t)n.errors));
	}
	return list;
}

/* What has that name in @object, made when it is not there; NULL without memory. */
static json_t *member(json_t *object, const char *name)
{
	if (!json_object_get(object, name))
		json_object_set_new(object, name, json_object());
	return json_object_get(object, name);
}

static void add_counter(void *opaque, const char *group, const char *name, uint64_t value)
{
	json_t *object = group ? member(opaque, group) : opaque;

	json_object_set_new(object, name, json_integer((json_int_t)(value & INT64_MAX)));
}

static json_t *net_json(const struct net_counters *n)
{
	const struct {
		const char *name;
		uint64_t value;
	} counters[] = {
		{ "to_guest", n->to_guest },
		{ "to_guest_bytes", n->to_guest_bytes },
		{ "to_guest_waits", n->to_guest_waits },
		{ "to_guest_ignored", n->to_guest_ignored },
		{ "to_guest_dropped", n->to_guest_dropped },
		{ "from_guest", n->from_guest },
		{ "from_guest_bytes", n->from_guest_bytes },
		{ "from_guest_waits", n->from_guest_waits },
		{ "from_guest_dropped", n->from_guest_dropped },
	};
	json_t *json = json_object();

	for (unsigned i = 0; i < ARRAY_SIZE(counters); i++)
		add_counter(json, NULL, counters[i].name, counters[i].value);
	return json;
}

/* The cards: none or one. */
static json_t *nets_json(struct vm *vm)
{
	const uint8_t *m = vm->config.mac;
	json_t *list = json_array(), *card;

	if (vm->net) {
		card = net_json(&vm->net->counters);
		json_object_set_new(card, "mac", json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]));
		json_array_append_new(list, card);
	}
	return list;
}

static json_t *shares_json(struct vm *vm)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < vm->config.share_count; i++)
		json_array_append_new(list, json_pack("{s:s}", "tag", vm->config.shares[i].tag));
	return list;
}

static struct error *status(struct vm *vm, json_t *args, json_t **result)
{
	const struct sandbox *s = &vm->sandbox;

	*result = json_pack("{s:s, s:s, s:i, s:I, s:s, s:s, s:I, s:b, s:{s:s, s:s, s:s, s:s, s:s, s:s}}",
			    "name", vm->config.name, "state", vm_state_name(vm),
			    "cpus", (int)vm->config.cpus, "memory", (json_int_t)vm->config.memory_bytes,
			    "engine", engine_name(vm->engine), "engine_reason",
			    vm->config.engine_reason ? vm->config.engine_reason : engine_reason(vm->engine),
			    "uptime_ns", (json_int_t)clock_now_ns(&vm->clock.clock),
			    "debugger", gdb_attached(vm->gdb),
			    "sandbox",
			    "no_new_privs", s->no_new_privs, "limits", s->limits,
			    "namespaces", s->namespaces, "empty_root", s->empty_root,
			    "landlock", s->landlock, "seccomp", s->seccomp);
	json_object_set_new(*result, "balloon", balloon_json(vm));
	json_object_set_new(*result, "paravirt", json_boolean(vm->config.paravirt));
	json_object_set_new(*result, "resets", json_integer((json_int_t)vm->resets));
	json_object_set_new(*result, "disks", disks_json(vm));
	json_object_set_new(*result, "nets", nets_json(vm));
	json_object_set_new(*result, "shares", shares_json(vm));
	json_object_set_new(*result, "ports", ports_json(vm));
	json_object_set_new(*result, "host_memory", memstat_json(&vm->memstat, vm->mem));
	return NULL;
}

static struct error *pause_vm(struct vm *vm, json_t *args, json_t **result)
{
	vm_pause(vm);
	return NULL;
}

static struct error *resume_vm(struct vm *vm, json_t *args, json_t **result)
{
	vm_resume(vm);
	return NULL;
}

static struct error *reset(struct vm *vm, json_t *args, json_t **result)
{
	vm_request_reset(vm, "the control socket");
	return NULL;
}

static struct error *power_button(struct vm *vm, json_t *args, json_t **result)
{
	machine_power_button(vm->machine);
	return NULL;
}

static struct error *quit(struct vm *vm, json_t *args, json_t **result)
{
	vm_quit(vm, VM_EXIT_OK, "quit was requested");
	return NULL;
}

/* A non-negative integer, or a hexadecimal string for what does not fit into one. */
static bool get_u64(json_t *args, const char *name, uint64_t *out)
{
	json_t *v = json_object_get(args, name);
	const char *s = json_string_value(v);
	char *end;

	if (json_is_integer(v) && json_integer_value(v) >= 0) {
		*out = json_integer_value(v);
		return true;
	}
	if (!s || strncmp(s, "0x", 2) || !s[2] || strlen(s) > 18 || strspn(s + 2, "0123456789abcdefABCDEF") != strlen(s + 2))
		return false;
	*out = strtoull(s, &end, 16);
	return true;
}

static struct error *registers(struct vm *vm, json_t *args, json_t **result)
{
	uint64_t only = 0;
	bool has_only = json_object_get(args, "cpu");
	json_t *list;

	if (has_only && (!get_u64(args, "cpu", &only) || only >= vm->config.cpus))
		return error_new("'cpu' has to be a number below %u", vm->config.cpus);
	if (!vm_all_parked(vm))
		return error_new("registers can be read while the VM is paused only: send 'pause' and wait for the event 'paused'");
	list = json_array();
	for (unsigned i = 0; i < vm->config.cpus; i++)
		if (!has_only || i == only)
			json_array_append_new(list, vm_cpu_json(&vm->cpus[i]));
	*result = json_pack("{s:o}", "cpus", list);
	return NULL;
}

static struct error *read_memory(struct vm *vm, json_t *args, json_t **result)
{
	static const char hex[] = "0123456789abcdef";
	uint64_t address, length;
	uint8_t *data;
	char *text;

	if (!get_u64(args, "address", &address))
		return error_new("'address' has to be a guest-physical address: an integer or a string such as \"0x1000\"");
	if (!get_u64(args, "length", &length) || !length || length > READ_MEMORY_MAX)
		return error_new("'length' has to be 1 to %u", READ_MEMORY_MAX);
	data = malloc(length);
	text = malloc(length * 2);
	if (!data || !text || !mem_read(vm->mem, address, data, length)) {
		free(data);
		free(text);
		return error_new("there is no RAM at 0x%" PRIx64 ", or it ends within %" PRIu64 " bytes", address, length);
	}
	for (uint64_t i = 0; i < length; i++) {
		text[i * 2] = hex[data[i] >> 4];
		text[i * 2 + 1] = hex[data[i] & 15];
	}
	*result = json_pack("{s:s#}", "data", text, (int)(length * 2));
	free(data);
	free(text);
	return NULL;
}

/* With a target, how much memory the guest is to keep. The guest's figures in the reply are those it sent last. */
static struct error *balloon(struct vm *vm, json_t *args, json_t **result)
{
	struct virtio_device *v = machine_balloon(vm->machine);
	uint64_t keep, least = MIN(BALLOON_KEEP_MIN, vm->config.memory_bytes);
	struct size_text from = size_to_text(least), to = size_to_text(vm->config.memory_bytes);

	if (json_object_get(args, "target")) {
		if (!get_u64(args, "target", &keep) || keep < least || keep > vm->config.memory_bytes)
			return error_new("what the guest is to keep ('target') has to be from %s to %s, which is all of its memory",
					 from.text, to.text);
		virtio_balloon_set_target(v, vm->config.memory_bytes - keep);
	}
	*result = balloon_json(vm);
	virtio_balloon_ask_statistics(v);
	return NULL;
}

/* Devices that have been touched; one name may have several windows. */
static void add_device(void *opaque, const char *name, uint64_t reads, uint64_t writes)
{
	json_t *device = reads || writes ? member(opaque, name) : NULL;

	if (!device)
		return;
	reads += (uint64_t)json_integer_value(json_object_get(device, "reads"));
	writes += (uint64_t)json_integer_value(json_object_get(device, "writes"));
	add_counter(device, NULL, "reads", reads);
	add_counter(device, NULL, "writes", writes);
}

static struct error *statistics(struct vm *vm, json_t *args, json_t **result)
{
	json_t *engine = json_object(), *mmio = json_object(), *ports = json_object();

	engine_statistics(vm->engine, add_counter, engine);
	bus_statistics(vm->mem->mmio, add_device, mmio);
	bus_statistics(vm->mem->ports, add_device, ports);
	*result = json_pack("{s:I, s:I, s:o, s:o, s:o}", "uptime_ns", (json_int_t)clock_now_ns(&vm->clock.clock),
			    "resets", (json_int_t)vm->resets, "engine", engine, "mmio", mmio, "ports", ports);
	if (vm->net)
		json_object_set_new(*result, "net", net_json(&vm->net->counters));
	return NULL;
}

static const struct request {
	const char *name;
	struct error *(*handle)(struct vm *vm, json_t *args, json_t **result);
	const char *args[3];
} requests[] = {
	{ "status", status, { NULL } },
	{ "pause", pause_vm, { NULL } },
	{ "resume", resume_vm, { NULL } },
	{ "reset", reset, { NULL } },
	{ "power-button", power_button, { NULL } },
	{ "quit", quit, { NULL } },
	{ "registers", registers, { "cpu" } },
	{ "read-memory", read_memory, { "address", "length" } },
	{ "statistics", statistics, { NULL } },
	{ "balloon", balloon, { "target" } },
};

static bool takes(const struct request *r, const char *key)
{
	if (!strcmp(key, "request") || !strcmp(key, "id"))
		return true;
	for (unsigned i = 0; i < ARRAY_SIZE(r->args); i++)
		if (r->args[i] && !strcmp(r->args[i], key))
			return true;
	return false;
}

struct error *vm_handle_request(void *opaque, const char *name, json_t *args, json_t **result)
{
	const char *key;
	json_t *v;

	for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
		const struct request *r = &requests[i];

		if (strcmp(r->name, name))
			continue;
		json_object_foreach(args, key, v)
			if (!takes(r, key))
				return error_new("request '%s' takes no '%.64s'", name, key);
		return r->handle(opaque, args, result);
	}
	return error_new("request '%.64s' is unknown; there are status, pause, resume, reset, power-button, quit, registers, read-memory, statistics and balloon",
			 name);
}
