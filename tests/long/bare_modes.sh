#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 7200
#
# The bare-metal tests in each way that the translator can be made to work (MARU_BT_DEBUG), slow ones among them.

cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build/release}
n=0 failed=0
for mode in exact-flags single no-link bounce no-group no-far no-ring,small-tlb poll exact-flags,single,no-link,bounce; do
	for elf in build/tests/bare/test_*.elf; do
		n=$((n + 1))
		if said=$(MARU_BT_DEBUG=$mode timeout -s KILL 600 "${elf%.elf}"); then
			echo "ok $n - ${elf##*/} with $mode"
		else
			failed=1
			echo "not ok $n - ${elf##*/} with $mode"
			echo "$said" | grep -vE '^ok|^1\.\.' | sed 's/^/# /'
		fi
	done
done
echo "1..$n"
exit $failed
