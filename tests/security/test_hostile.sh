#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
#
# Runs hostile.c, a guest that does its worst, again and again with other seeds for HOSTILE_SECONDS (10). However
# the guest ends, the VMM must not: no signal, no assert, no system call that the sandbox kills for; it
# stays responsive (two SIGTERMs end it) and within its memory. HOSTILE_SEED repeats a run.

here=$(dirname "$0")
seconds=${HOSTILE_SECONDS:-10}
seed=${HOSTILE_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
dir=$(mktemp -d) || exit 1
trap '[ -z "$pid" ] || kill -KILL $pid 2>/dev/null; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
pid=

${CC:-gcc} -std=gnu17 -Wall -Wextra -Werror -Wno-unused-parameter -O1 -ffreestanding -fno-pic -fno-stack-protector \
	-fno-asynchronous-unwind-tables -mno-red-zone -mgeneral-regs-only -I"$here/../bare" -nostdlib -static -no-pie \
	-Wl,--build-id=none,-z,noexecstack,--no-warn-rwx-segments,-T,"$here/../bare/link.ld" -o "$dir/hostile.elf" \
	"$here/hostile.c" "$here"/../bare/lib/*.[cS] || { echo "Bail out! hostile.c does not compile"; exit 1; }
truncate -s 1M "$dir/disk"

# The seconds a VM runs at most; most destroy themselves before.
run_one() {
	local cpus=$1 status rss=0 now
	: >"$dir/out"
	"$BUILD/maru" run --engine "${ENGINE:-auto}" --kernel "$dir/hostile.elf" --append "$seed $cpus" --cpus "$cpus" --memory 64M --serial none \
		--disk "$dir/disk,format=raw" --debugcon "$dir/console" </dev/null >"$dir/out" 2>&1 &
	pid=$!
	for ((n = 0; n < 30; n++)); do
		kill -0 $pid 2>/dev/null || break
		sleep 0.1
	done
	for child in $(cat /proc/$pid/task/*/children 2>/dev/null); do
		now=$(awk '/^RssAnon/ { print $2 }' "/proc/$child/status" 2>/dev/null)
		[ "${now:-0}" -gt $rss ] && rss=$now
	done
	for ((n = 0; n < 100; n++)); do
		kill -0 $pid 2>/dev/null || break
		[ $((n % 10)) = 0 ] && kill -TERM $pid 2>/dev/null
		sleep 0.1
	done
	kill -KILL $pid 2>/dev/null && { echo "does not react to SIGTERM"; wait $pid 2>/dev/null; pid=; return 1; }
	wait $pid
	status=$?
	pid=
	case $status in
	0 | 4 | 8) ;;
	*) echo "exit status $status"; return 1 ;;
	esac
	grep -aq 'internal error\|Assertion\|runtime error' "$dir/out" && { echo "internal error"; return 1; }
	[ "$rss" -le 800000 ] || { echo "$rss KiB of memory"; return 1; }
	grep -aq '^# seed' "$dir/console" || { echo "the guest did not begin"; return 1; }
}

n=0
failed=0
end=$((SECONDS + seconds))
while [ $n = 0 ] || [ $SECONDS -lt $end ]; do
	n=$((n + 1))
	if why=$(run_one $((1 + n % 3))); then
		echo "ok $n - seed $seed, $((1 + n % 3)) processors"
	else
		echo "not ok $n - seed $seed, $((1 + n % 3)) processors: $why"
		tail -n 12 "$dir/out" | sed 's/^/# /'
		failed=1
	fi
	seed=$(((seed + 1) % 4294967296))
done
echo "1..$n"
exit $failed
