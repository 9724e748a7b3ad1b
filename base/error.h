/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors of the host and of the user: a sentence a person can act on.
 *
 * A function that can fail returns `struct error *`: NULL is success, anything else is owned by the
 * caller, who frees it, reports it, or wraps it and passes it up. Only `main` exits. Guest, image,
 * network and API input is not reported with this (see doc/architecture.md, "Errors").
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "base/util.h"

struct error;

/* A new error: what happened, to what, and what to do about it. Never returns NULL. */
struct error *error_new(const char *fmt, ...) PRINTF_LIKE(1, 2) MUST_CHECK;

/* As error_new, followed by ": " and the text of @errnum (an errno value). */
struct error *error_errno(int errnum, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_CHECK;

/* Takes @err and returns "<new text>: <old text>". */
struct error *error_wrap(struct error *err, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_CHECK;

/* The sentence; valid until error_free. No trailing newline or full stop. */
const char *error_message(const struct error *err);

/* The errno value it was made with, else 0. Kept by error_wrap. */
int error_code(const struct error *err);

/* NULL-safe. */
void error_free(struct error *err);

#endif
