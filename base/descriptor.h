/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that a program of ours gets from the one that starts it, by number; all others it closes. */
#ifndef BASE_DESCRIPTOR_H
#define BASE_DESCRIPTOR_H

#include "base/error.h"

/* The value @text of @option, which may be missing (NULL). */
struct error *descriptor_parse(const char *option, const char *text, int *out) MUST_CHECK;

/*
 * What is open by mistake is not to be had by whoever breaks in: closes all but the standard ones and @keep, whose order does not
 * matter; negative ones do not count.
 */
void descriptor_close_others(const int *keep, unsigned count);

#endif
