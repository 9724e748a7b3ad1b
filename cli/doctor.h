/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of `maru doctor`: what this host has, by its files and by what the kernel answers. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/host.h"

#define DOCTOR_CHECKS_MAX 24u

struct doctor_check {
	const char *name;
	bool ok;
	bool needed;	  /* without it no VM runs */
	char detail[200]; /* what there is */
	char fix[300];	  /* the sentence that mends it; "" when @ok */
};

/* A limit of this process, in its own unit; UINT64_MAX: none. */
struct doctor_limits {
	uint64_t address_space, data, file_size, open_files;
};

/* What only the kernel's answer tells, for a container or a security module may forbid what the files promise. 0: it works. */
struct doctor_facts {
	int landlock_errno, user_namespace_errno, io_uring_errno;
	struct doctor_limits limits;
};

struct doctor {
	const char *root; /* before every absolute path: "", or a test's folder */
	unsigned count;
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
};

/* Asks the kernel; a process that is forked for it tries user namespaces. */
void doctor_ask_kernel(struct doctor_facts *out);
/* Makes all checks. */
void doctor_run(struct doctor *d, const char *root, const struct host_engine *engine, const struct doctor_facts *facts);
/* Can VMs run here? */
bool doctor_can_run(const struct doctor *d);
/* By name; NULL: there is none. */
const struct doctor_check *doctor_find(const struct doctor *d, const char *name);

#endif
