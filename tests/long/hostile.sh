#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 86400
#
# The hostile guest of tests/security, for HOSTILE_SECONDS (3600).

HOSTILE_SECONDS=${HOSTILE_SECONDS:-3600} exec "$(dirname "$0")/../security/test_hostile.sh"
