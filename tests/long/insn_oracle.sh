#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 7200
#
# The translator against the host's CPU (tests/unit/test_bt_oracle.c) over MARU_ORACLE_INSNS random instructions,
# 100 million unless said otherwise.

cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build/release}
MARU_ORACLE_INSNS=${MARU_ORACLE_INSNS:-100000000} exec "$BUILD/tests/unit/test_bt_oracle"
