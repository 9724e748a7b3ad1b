/* SPDX-License-Identifier: Apache-2.0 */
/* One `maru run`: what run.c, run_files.c, run_sockets.c and run_peers.c share. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include <jansson.h>
#include <sys/types.h>

#include "base/error.h"
#include "cli/catalogue.h"
#include "cli/guard.h"
#include "cli/options.h"
#include "cli/spawn.h"

struct run {
	struct run_options o;
	struct guest guest; /* all NULL without a guest of the catalogue */
	json_t *config;
	struct spawn_fds vm_fds;
	struct guard guard;
	int serial_fd, control_fd; /* our ends; -1: none */
	char control_path[108];	   /* of the socket that goes by the VM's name, or of a link to it */
	char agent_path[108], agent_link[108];
	pid_t vm, nat, broker;	   /* 0: not started */
	pid_t shares[RUN_SHARES_MAX];
};

/* Each opens what the options ask for, adds it to what the VM is given and names it in the configuration. */
struct error *run_give_engine(struct run *r) MUST_CHECK;
struct error *run_give_payload(struct run *r) MUST_CHECK;
struct error *run_give_disks(struct run *r) MUST_CHECK;
struct error *run_give_serial(struct run *r) MUST_CHECK;
struct error *run_give_debugcon(struct run *r) MUST_CHECK;
struct error *run_give_control(struct run *r) MUST_CHECK;
struct error *run_give_gdb(struct run *r) MUST_CHECK;
struct error *run_give_ports(struct run *r) MUST_CHECK;
/* These start processes besides. */
struct error *run_give_vsock(struct run *r) MUST_CHECK;
struct error *run_give_shares(struct run *r) MUST_CHECK;
struct error *run_give_network(struct run *r) MUST_CHECK;
void run_end_peers(struct run *r);

/* A Unix socket of the VM's, for the option @option. */
struct error *run_listen(struct run *r, const char *option, const char *path, int *fd) MUST_CHECK;
struct error *run_socket_pair(int type, int *ours, int *theirs) MUST_CHECK;

#endif
