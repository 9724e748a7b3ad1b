#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# More memory than the host's limits allow is refused with a sentence. The limits are files that look like the kernel's,
# in a mount namespace of the test's own.

cd "$(dirname "$0")/../.." || exit 1
. tests/multiboot.sh
maru=$PWD/${BUILD:-build/release}/maru
unshare --user --map-root-user --mount true 2>/dev/null || {
	echo "1..0 # SKIP this host gives the test no mount namespace of its own"
	exit 0
}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0

# Halts at once: it is never reached.
multiboot "$dir/halt" '\xfa\xf4'

# refused TEXT SETUP OPTION… — with SETUP done in the namespace, maru ends with status 2 and says TEXT.
refused()
{
	local text=$1 setup=$2 got=0
	shift 2
	timeout 20 unshare --user --map-root-user --mount sh -c "cd '$dir' && $setup && exec \"\$@\"" sh \
		"$maru" run --kernel "$dir/halt" --net none --serial none "$@" </dev/null >"$dir/out" 2>"$dir/err" || got=$?
	n=$((n + 1))
	if [ "$got" = 2 ] && grep -qF -- "$text" "$dir/err"; then
		echo "ok $n - $text"
	else
		failed=1
		echo "not ok $n - $text (status $got)"
		sed 's/^/# /' "$dir/err"
	fi
}

printf 'MemTotal: 1048576 kB\nMemAvailable: 983040 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nCommitLimit: 524288 kB\nCommitted_AS: 262144 kB\n' \
	>"$dir/meminfo"
echo 2 >"$dir/strict"
mkdir "$dir/cgroup" "$dir/cgroup/memory"
echo 134217728 | tee "$dir/cgroup/memory.max" >"$dir/cgroup/memory/memory.limit_in_bytes"
echo 0 | tee "$dir/cgroup/memory.current" >"$dir/cgroup/memory/memory.usage_in_bytes"

refused 'this host has 960 MiB available' 'mount --bind meminfo /proc/meminfo' --memory 2G
refused 'has 1 GiB in all' 'mount --bind meminfo /proc/meminfo' --memory 1100M
refused 'has 256 MiB left to promise' 'mount --bind meminfo /proc/meminfo && mount --bind strict /proc/sys/vm/overcommit_memory' \
	--memory 300M
refused 'has 128 MiB in all' 'mount --bind cgroup /sys/fs/cgroup' --memory 200M
refused 'raise `ulimit -v`' 'ulimit -v 4000000' --memory 64M
refused '(`ulimit -d`) is less' 'ulimit -d 200000' --memory 512M --ksm
echo "always madvise [never]" >"$dir/never"
refused 'this host gives no huge pages' 'mount --bind never /sys/kernel/mm/transparent_hugepage/enabled' --memory 64M --hugepages
echo "1..$n"
exit "$failed"
