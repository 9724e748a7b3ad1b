/* SPDX-License-Identifier: Apache-2.0 */
/* CPU features by the names that Linux has for them in /proc/cpuinfo. */
#ifndef CPU_FEATURES_H
#define CPU_FEATURES_H

#include "base/error.h"
#include "cpu/engine.h"

/* Fails with a sentence unless @e's guest has all features of @names, which are separated by commas. */
struct error *cpu_features_require(const struct engine *e, const char *names) MUST_CHECK;

#endif
