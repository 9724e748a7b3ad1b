#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The benchmark's programs compile here too, without warnings (those that need no library: the others only in the guest).

cd "$(dirname "$0")/../.." || exit 1
n=0 failed=0
for source in bench/guest/*.c; do
	! grep -q '<openssl/' "$source" || continue
	n=$((n + 1))
	if said=$("${CC:-cc}" -fsyntax-only -O2 -Wall -Werror -Wno-psabi -std=gnu17 -D_GNU_SOURCE "$source" 2>&1); then
		echo "ok $n - $source"
	else
		failed=1
		echo "not ok $n - $source"
		printf '%s\n' "$said" | head -n 20 | sed 's/^/# /'
	fi
done
echo "1..$n"
exit "$failed"
