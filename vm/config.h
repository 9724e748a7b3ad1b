/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one VM is: the configuration that maru-vm gets as one JSON object on a descriptor. maru-vm(1) lists
 * its members. Files are descriptors, already open; names are for messages only.
 */
#ifndef VM_CONFIG_H
#define VM_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "block/block.h"
#include "cpu/engine.h"

#define VM_CONFIG_VERSION 1
#define VM_CONFIG_BYTES_MAX (1u << 20)
#define VM_CONFIG_DISKS 16u
#define VM_CONFIG_CPUS 64u
#define VM_CONFIG_PORTS 8u
#define VM_CONFIG_SHARES 4u
#define VM_CONFIG_FDS (VM_CONFIG_DISKS * BLOCK_CHAIN_MAX + 64u)

struct vm_config_file {
	int fd; /* -1: none */
	char *name;
};

struct vm_config {
	char *name;
	unsigned cpus;
	uint64_t memory_bytes;
	enum engine_kind engine;
	char *cpu_features; /* that the guest has to have, separated by commas; NULL: none */
	char *engine_reason; /* for the status; NULL: not said */
	int kvm_fd; /* /dev/kvm; -1: none */
	bool mergeable, huge_pages; /* guest memory */
	bool paravirt; /* default: true */
	bool verbose, paused, debug_exit, gdb_wait;
	struct vm_config_file kernel, initrd;
	char *append;
	unsigned disk_count;
	struct vm_config_disk {
		char *name;
		bool readonly;
		unsigned count;
		struct {
			int fd;
			enum block_format format;
		} chain[BLOCK_CHAIN_MAX];
	} disks[VM_CONFIG_DISKS];
	int net_fd;
	uint8_t mac[6];
	bool net_offload; /* struct net_backend */
	struct vm_config_chardev {
		int in_fd, out_fd, listen_fd; /* -1: not that way */
	} serial, console;
	unsigned port_count;
	struct vm_config_port {
		char *name;
		int listen_fd;
	} ports[VM_CONFIG_PORTS];
	unsigned share_count;
	struct vm_config_share {
		char *tag;
		int fd;
	} shares[VM_CONFIG_SHARES];
	int vsock_listen_fd, vsock_broker_fd;
	int control_listen_fd, control_client_fd;
	int gdb_listen_fd;
	int debugcon_fd;
	/* Every descriptor named above, ascending. */
	unsigned fd_count;
	int fds[VM_CONFIG_FDS];
};

/* Unknown members, wrong types, numbers out of range, descriptors named twice are refused with a sentence. */
struct error *vm_config_parse(const char *json, size_t length, struct vm_config *out) MUST_CHECK;

/* Reads @fd to its end, parses it, and checks that the descriptors it names are open. */
struct error *vm_config_read(int fd, struct vm_config *out) MUST_CHECK;

void vm_config_finish(struct vm_config *config); /* frees; closes nothing */

#endif
