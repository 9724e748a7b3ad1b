/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent in a guest: JSON over a port, as the stock qemu-guest-agent of distributions speaks it.
 *
 * What comes from there is the guest's, who may say anything: it is bounded in size, in the number of its values and in
 * time, parsed, and never trusted to be of the right type or fit for a terminal.
 */
#ifndef CLI_AGENT_H
#define CLI_AGENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define AGENT_TIMEOUT_MS 10000u
#define AGENT_ANSWER_MAX (48ull * 1024 * 1024) /* the agent itself keeps at most 16 MiB of a program's output, twice */

#define AGENT_VALUES_MAX (256u * 1024) /* of one answer; as values they take 50 times the memory that they take as text */

struct agent {
	int fd;
	char *buf;
	size_t used, size;
	uint64_t received; /* since the last call began */
	bool silent;	   /* the last call's answer did not come in time */
};

/* Connects to the agent of @vm (as for client_connect) and makes sure that it answers us, and now. */
struct error *agent_connect(const char *vm, struct agent *out) MUST_CHECK;
/* On @fd, taken. */
struct error *agent_attach(int fd, struct agent *out) MUST_CHECK;
void agent_close(struct agent *a);

/*
 * Has the agent do @command with @args (taken; an object, or NULL). Its refusal is the error. *@result is whatever it returns,
 * the caller's; @result may be NULL. With @may_end the end of the guest instead of an answer is success, as is silence.
 */
struct error *agent_call(struct agent *a, const char *command, json_t *args, unsigned timeout_ms, bool may_end,
			 json_t **result) MUST_CHECK;

/* Decodes base64 text into new memory, the caller's; NULL when it is none. */
uint8_t *agent_decode(const char *text, size_t len, size_t *out_len);

/* The command `maru guest`, with the agent on @fd (taken unless the words are wrong), or -1: that of the VM that is named. For tests. */
int guest_main(int argc, char **argv, int fd);

#endif
