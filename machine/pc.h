/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: a Q35 PC without firmware. pc.c is its parts list.
 *
 * Everything but machine_create and machine_destroy is called with the machine's lock (the loop's) held.
 */
#ifndef MACHINE_PC_H
#define MACHINE_PC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/loop.h"
#include "block/block.h"
#include "cpu/engine.h"
#include "machine/boot.h"
#include "mem/memory.h"
#include "net/net.h"
#include "net/vsock.h"
#include "ui/chardev.h"

#define MACHINE_DISKS_MAX 16u
#define MACHINE_PORTS_MAX 8u
#define MACHINE_SHARES_MAX 4u

/*
 * What the guest asks of its surroundings. Called from inside a vCPU's access, with the lock held: take note and
 * return; the machine is reset later, when all vCPUs are stopped.
 */
struct machine_events {
	void (*reset)(void *opaque, const char *by); /* "port 0xcf9" … */
	void (*power_off)(void *opaque);
	void (*debug_exit)(void *opaque, uint32_t value);
	void (*panicked)(void *opaque, bool crash_kernel); /* it goes on, or another kernel of its does */
	void *opaque;
};

struct machine_config {
	struct memory *mem;
	struct loop *loop;
	struct clock *clock;
	struct engine *engine;
	unsigned vcpu_count;
	struct machine_events events;
	/* Back ends stay the caller's and outlive the machine; NULL or count 0: the chip has none. */
	struct chardev *serial, *console, *debugcon; /* COM1, virtio console, port 0xe9 */
	unsigned port_count; /* named ports of the virtio console */
	struct machine_port {
		const char *name;
		struct chardev *chardev;
	} ports[MACHINE_PORTS_MAX];
	struct block_device *disks[MACHINE_DISKS_MAX];
	unsigned disk_count;
	struct net_backend *net; /* NULL: no network card */
	uint8_t mac[6];
	unsigned share_count; /* shared folders */
	struct machine_share {
		const char *tag;
		int fd; /* to the process that serves it; the machine takes it */
	} shares[MACHINE_SHARES_MAX];
	struct vsock_backend *vsock; /* NULL: no virtio sockets */
	bool debug_exit;
	const char *version;
	/* Kept, not copied: a reset loads it again. */
	struct boot_source payload;
};

struct machine;
struct virtio_device;

/* All chips, made and wired. The vCPUs get their interrupt controllers; nothing is loaded yet. */
struct error *machine_create(const struct machine_config *config, struct machine **out) MUST_CHECK;
void machine_destroy(struct machine *m); /* NULL-safe; no vCPU runs any more */

/*
 * RESET of everything, then what firmware does: tables, addresses of PCI devices, the payload, the boot CPU's
 * state. All vCPUs are stopped. Fails when the payload cannot be loaded.
 */
struct error *machine_reset(struct machine *m) MUST_CHECK;

void machine_power_button(struct machine *m);
struct virtio_device *machine_balloon(struct machine *m); /* virtio_balloon.h */
/* Whether a program in the guest has opened that port. */
bool machine_port_open(struct machine *m, const char *name);

#endif
