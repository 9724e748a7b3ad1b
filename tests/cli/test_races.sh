#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
#
# Whole VMs of several processors under ThreadSanitizer: the loop's thread, those of vCPUs and disks, chips and interrupt
# controllers. Translated code and what runs with the guest's registers is not instrumented.

cd "$(dirname "$0")/../.." || exit 1
[ -x build/tsan/maru-vm ] || {
	echo "1..0 # skip build/tsan/maru-vm is not built: make MODE=tsan"
	exit 0
}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
for test in ipi timers devices; do
	n=$((n + 1))
	if TSAN_OPTIONS="log_path=$dir/$test" BUILD=build/tsan "build/tests/bare/test_$test" >"$dir/out" 2>&1 &&
		! ls "$dir/$test".* >/dev/null 2>&1; then
		echo "ok $n - $test runs without a race"
	else
		failed=1
		echo "not ok $n - $test runs without a race"
		cat "$dir/out" "$dir/$test".* 2>/dev/null | grep -v '^ok' | head -n 80 | sed 's/^/# /'
	fi
done
echo "1..$n"
exit "$failed"
