/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `maru run`, parsed and checked as far as that is possible without touching the host. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "block/block.h"

#define RUN_DISKS_MAX 16u
#define RUN_PUBLISH_MAX 64u
#define RUN_CPUS_MAX 64u
#define RUN_SHARES_MAX 4u
#define RUN_PORTS_MAX 7u /* and the agent's */
#define RUN_NAME_MAX_BYTES 64u

enum serial_kind { SERIAL_STDIO, SERIAL_NONE, SERIAL_FILE, SERIAL_UNIX };

struct run_disk {
	char *path;
	char *backing; /* which file its backing file is; NULL: what the image says, in its folder */
	enum block_format format;
	bool readonly;
};

/* Strings point into argv, but for disk paths, which are copies. */
struct run_options {
	const char *image;
	unsigned cpus;	       /* 0: not given */
	uint64_t memory_bytes; /* 0: not given */
	const char *engine;
	bool no_paravirt;
	const char *kernel, *initrd, *append;
	unsigned disk_count;
	struct run_disk disks[RUN_DISKS_MAX];
	bool net_none;
	unsigned publish_count;
	const char *publish[RUN_PUBLISH_MAX];
	enum serial_kind serial;
	const char *serial_path;
	unsigned share_count;
	struct run_share {
		char *tag, *path;
		bool readonly;
	} shares[RUN_SHARES_MAX];
	const char *vsock;
	unsigned port_count;
	struct run_port {
		char *name;
		const char *path;
	} ports[RUN_PORTS_MAX];
	const char *cpu_features;
	bool ksm, huge_pages;
	bool debug_exit, verbose, help;
	const char *debugcon, *control, *name;
	char *gdb;	    /* ADDR:PORT or unix:PATH */
	bool gdb_nowait; /* the VM starts without a debugger */
};

struct error *run_options_parse(int argc, char **argv, struct run_options *out) MUST_CHECK;
void run_options_finish(struct run_options *o);

/*
 * FILE[,format=raw|qcow2][,readonly=on|off][,backing=FILE]; without a format the name's ending decides, never the content.
 * @what is who takes it, for messages.
 */
struct error *run_disk_parse(const char *what, const char *text, struct run_disk *out) MUST_CHECK;
void run_disk_finish(struct run_disk *d);

#endif
