# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Boots a guest and talks to it over its serial console. Sourced by tests/boot, tests/long and scripts/run.
#
# The VM's console is its standard input (a FIFO that this process holds open) and output (a file, $vm_log), so a
# guest is driven as a person at a terminal would: wait for a prompt, type a line, read what comes. What is waited
# for in vain ends the test at once, with the end of the console's output. One VM at a time; all of it is gone when
# the script ends, however it ends.
#
#   guest_debian [PACKAGE,…] | guest_small FLAVOUR    choose what to boot: fills the array guest with options of maru run
#   vm_start OPTION…                         start it, with these options besides
#   vm_wait SECONDS REGEX                    wait for something new on the console
#   vm_boot SECONDS                          wait for the shell's prompt
#   vm_run SECONDS COMMAND                   run a line in the guest: its output in $out, its status is returned
#   vm_ok SECONDS COMMAND DESCRIPTION        a test that it succeeds
#   vm_kernel_log                            the guest's kernel has nothing to complain about (a test of its own)
#   vm_off SECONDS [COMMAND]                 power off; maru must end with status 0
#   vm_kill SIGNAL                           end it from outside
#
# The time limits are for a loaded machine; MARU_TEST_PATIENCE multiplies them.

set -uo pipefail
export LC_ALL=C.UTF-8
PATH=$PATH:/usr/sbin:/sbin
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
maru=${MARU:-$top/${BUILD:-build/release}/maru}
case $maru in
/*) ;;
*) maru=$PWD/$maru ;;
esac
scratch=$(mktemp -d "${TMPDIR:-/tmp}/maru-guest.XXXXXX") || exit 1

# ENGINE=bt or kvm: guests run by this engine.
engine=${ENGINE:-auto}
if [ "$engine" = kvm ] && ! [ -r /dev/kvm -a -w /dev/kvm ]; then
	echo "1..0 # SKIP /dev/kvm is not there, or may not be opened"
	rm -rf "$scratch"
	exit 0
fi

tests=0 failures=0
vm_pid='' vm_log='' vm_errors='' vm_in='' vm_mark=0 vm_seen=1
vm_count=0
prompt='root@debian:~#|small#'
out=
helpers=()

# ok STATUS DESCRIPTION — one test: passed when STATUS is 0.
ok()
{
	tests=$((tests + 1))
	if [ "$1" -eq 0 ]; then
		printf 'ok %d - %s\n' "$tests" "$2"
	else
		failures=$((failures + 1))
		printf 'not ok %d - %s\n' "$tests" "$2"
	fi
}

# is GOT WANTED DESCRIPTION
is()
{
	if [ "$1" = "$2" ]; then
		ok 0 "$3"
	else
		ok 1 "$3"
		printf 'got:    %s\nwanted: %s\n' "$1" "$2" | sed 's/^/# /'
	fi
}

# The script cannot go on: says why, shows the console, and ends it. scripts/run has its own.
vm_fail()
{
	ok 1 "$1"
	vm_show_console
	exit 1
}

vm_show_console()
{
	[ -z "$vm_log" ] || {
		echo "the console's last lines:"
		tail -c 4000 "$vm_log" | tr -d '\r\000' | tail -n 30
		echo "maru said:"
		tail -n 20 "$vm_errors"
	} | sed 's/^/# /'
}

finish()
{
	local status=$?
	trap '' INT TERM HUP
	vm_stop
	local pid
	for pid in "${helpers[@]}"; do
		kill "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	rm -rf "$scratch"
	if [ "$tests" -gt 0 ]; then
		echo "1..$tests"
		[ "$failures" -eq 0 ] || status=1
	fi
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- What to boot ----------------------------------------------------------------------------------

cache=${XDG_CACHE_HOME:-$HOME/.cache}/maru

guest_from()
{
	local append
	append=$(sed -n 's/.*"append": "\(.*\)",*/\1/p' "$1/manifest.json")
	guest=(--kernel "$1/vmlinuz" --initrd "$1/initrd.img" --append "$append"
		--disk "$scratch/disk.raw,format=raw" --net user)
	cp --sparse=always "$1/disk.raw" "$scratch/disk.raw" || vm_fail "no room for a copy of the guest's disk"
}

# Debian with systemd, from a copy of a disk that nobody else writes to (that of debian:12 is its user's):
# $scratch/disk.raw. With PACKAGE,… these are installed besides, in a guest of its own.
guest_debian()
{
	local pristine=$cache/test/debian-12${1:+-$1} options=()
	pristine=${pristine//,/-}
	[ "$pristine/manifest.json" -nt "$top/guest/debian-12" ] || options=(--force)
	"$top/guest/debian-12" --output "$pristine" ${1:+--include "$1"} "${options[@]}" >"$scratch/pull.log" 2>&1 || {
		sed 's/^/# /' "$scratch/pull.log"
		vm_fail "the Debian guest could not be made"
	}
	guest_key=$pristine/id_ed25519
	guest_from "$pristine"
}

# A kernel with busybox and nothing else.
guest_small()
{
	"$top/guest/kernels" "$1" >"$scratch/pull.log" 2>&1 || {
		sed 's/^/# /' "$scratch/pull.log"
		vm_fail "the kernel $1 could not be fetched"
	}
	guest=(--kernel "$cache/kernels/$1/vmlinuz" --initrd "$cache/kernels/$1/initrd.img" --append 'console=ttyS0 quiet')
}

# ---- The VM ----------------------------------------------------------------------------------------

vm_start()
{
	vm_count=$((vm_count + 1))
	vm_log=$scratch/console.$vm_count vm_errors=$scratch/errors.$vm_count
	vm_seen=1
	rm -f "$scratch/in" "$scratch/status"
	mkfifo "$scratch/in"
	: >"$vm_log"
	exec {vm_in}<>"$scratch/in"
	(
		exec {vm_in}>&-
		trap - EXIT INT TERM HUP
		"$maru" run --engine "$engine" "${guest[@]}" --serial stdio "$@" <"$scratch/in" >"$vm_log" 2>"$vm_errors" &
		echo $! >"$scratch/pid"
		wait $!
		echo $? >"$scratch/status.new"
		mv "$scratch/status.new" "$scratch/status"
	) 2>/dev/null &
	vm_pid=$!
	until [ -s "$scratch/pid" ]; do
		sleep 0.05
	done
}

vm_over()
{
	[ -e "$scratch/status" ]
}

# A kernel that has given up will not answer.
vm_alive()
{
	! grep -aq 'end Kernel panic' "$vm_log" || vm_fail "the guest's kernel panicked"
}

# patience SECONDS — the point in time ($EPOCHSECONDS) until which to wait.
patience()
{
	echo $((EPOCHSECONDS + $1 * ${MARU_TEST_PATIENCE:-1}))
}

# vm_wait SECONDS REGEX — in what the guest has written since the last vm_wait that succeeded.
vm_wait()
{
	local end length
	end=$(patience "$1")
	while :; do
		local over=0
		vm_over && over=1
		length=$(stat -c %s "$vm_log")
		if tail -c "+$vm_seen" "$vm_log" | head -c $((length - vm_seen + 1)) | grep -aqE -- "$2"; then
			vm_seen=$((length + 1))
			return 0
		fi
		vm_alive
		[ $over -eq 0 ] || vm_fail "the VM ended with status $(<"$scratch/status") while \"$2\" was expected from it"
		[ "$EPOCHSECONDS" -le "$end" ] || vm_fail "\"$2\" did not come within $1 s"
		sleep 0.2
	done
}

vm_send()
{
	printf '%s\n' "$1" >&"$vm_in"
}

# vm_boot SECONDS — the prompt must be there, and then a line typed must be answered.
vm_boot()
{
	vm_wait "$1" "$prompt"
	vm_run 60 'stty cols 200; dmesg -n 1' || vm_fail "the shell in the guest does not work: $out"
}

vm_run()
{
	local n end from text
	vm_mark=$((vm_mark + 1))
	n=$vm_mark
	end=$(patience "$1")
	from=$(($(stat -c %s "$vm_log") + 1))
	# The marks are put together by the guest, so the echo of this line does not look like them.
	vm_send "printf '@%s%d@\\n' @B $n; $2; printf '\\n@%s%d:%d@\\n' @E $n \$?"
	while :; do
		local over=0
		vm_over && over=1
		text=$(tail -c "+$from" "$vm_log" | tr -d '\r\000')
		if [[ $text =~ @@E$n:([0-9]+)@ ]]; then
			local status=${BASH_REMATCH[1]}
			out=${text#*"@@B$n@"}
			out=${out%%"@@E$n:"*}
			# A line end after the mark, and the one that is put before the second mark.
			out=${out#$'\n'}
			out=${out%$'\n'}
			out=${out%$'\n'}
			vm_seen=$(($(stat -c %s "$vm_log") + 1))
			return "$status"
		fi
		vm_alive
		[ $over -eq 0 ] || vm_fail "the VM ended with status $(<"$scratch/status") during: $2"
		[ "$EPOCHSECONDS" -le "$end" ] || vm_fail "no answer within $1 s to: $2"
		sleep 0.1
	done
}

# vm_ok SECONDS COMMAND DESCRIPTION — a test that the command succeeds in the guest.
vm_ok()
{
	local status=0
	vm_run "$1" "$2" || status=$?
	ok "$status" "$3"
	[ "$status" -eq 0 ] || printf 'status %d: %s\n' "$status" "$out" | sed 's/^/# /'
	return "$status"
}

vm_kernel_log()
{
	local bad='BUG:|WARNING:|Oops|oops:|lockup|rcu.*(stall|starved)|hung task|blocked for more than|Call Trace'
	bad+='|general protection|[Kk]ernel panic|unchecked MSR|I/O error|EXT4-fs error|nobody cared'
	vm_run 120 dmesg
	local complaints
	complaints=$(grep -E "$bad" <<<"$out")
	if [ "$(wc -l <<<"$out")" -lt 50 ]; then
		ok 1 "the guest's kernel log can be read"
	elif [ -z "$complaints" ]; then
		ok 0 "the guest's kernel log has no BUG, WARNING, stall, lockup or oops"
	else
		ok 1 "the guest's kernel log has no BUG, WARNING, stall, lockup or oops"
		printf '%s\n' "$complaints" | head -n 40 | sed 's/^/# /'
	fi
}

# vm_off SECONDS [COMMAND]
vm_off()
{
	local end
	end=$(patience "$1")
	vm_send "${2:-poweroff}"
	until vm_over; do
		[ "$EPOCHSECONDS" -le "$end" ] || vm_fail "the guest was told to power off, and maru still runs $1 s later"
		sleep 0.1
	done
	is "$(<"$scratch/status")" 0 "the guest powered off and maru ended with status 0"
	vm_forget
}

# vm_kill SIGNAL — to maru; waits until it has ended, 30 s at most.
vm_kill()
{
	local end
	end=$(patience 30)
	kill "-$1" "$(<"$scratch/pid")" 2>/dev/null
	until vm_over; do
		[ "$EPOCHSECONDS" -le "$end" ] || vm_fail "maru still runs 30 s after signal $1"
		sleep 0.1
	done
	vm_forget
}

vm_forget()
{
	wait "$vm_pid" 2>/dev/null
	vm_pid=
	exec {vm_in}>&-
}

# At the end of the script: asks, asks again (which means at once), then no longer asks.
vm_stop()
{
	local signal
	[ -n "$vm_pid" ] || return 0
	for signal in TERM TERM KILL; do
		vm_over && break
		kill "-$signal" "$(<"$scratch/pid")" 2>/dev/null
		for _ in $(seq 20); do
			vm_over && break
			sleep 0.1
		done
	done
	vm_forget
}

# ---- A server on the host, which the guest reaches as 10.0.2.2 ------------------------------------------

# server FOLDER — puts its port into $server_port.
server()
{
	"$top/tests/guest/server" "$1" >"$scratch/server" 2>"$scratch/server.errors" </dev/null &
	helpers+=($!)
	for _ in $(seq 100); do
		server_port=$(<"$scratch/server")
		[ -z "$server_port" ] || return 0
		sleep 0.1
	done
	vm_fail "the server on the host did not start: $(<"$scratch/server.errors")"
}
