# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# For tests of the command line that need no guest: the program, a folder of their own, Multiboot kernels of a few bytes.
#
#   $maru $dir                 the program; a folder, removed at the end
#   at_end                     a function that the test may have: called at its end, before the folder goes
#   result STATUS DESCRIPTION  a test that has passed when STATUS is 0; what is in $dir/err is shown otherwise
#   finish_tests               the plan, and the exit status

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
. tests/multiboot.sh
maru=$PWD/${BUILD:-build/release}/maru
dir=$(mktemp -d) || exit 1
tests=0 failed=0

leave()
{
	! declare -F at_end >/dev/null || at_end
	rm -rf "$dir"
}
trap leave EXIT

result()
{
	tests=$((tests + 1))
	if [ "$1" = 0 ]; then
		echo "ok $tests - $2"
	else
		failed=1
		echo "not ok $tests - $2"
		sed 's/^/# /' "$dir/err" 2>/dev/null
	fi
}

finish_tests()
{
	echo "1..$tests"
	exit "$failed"
}
