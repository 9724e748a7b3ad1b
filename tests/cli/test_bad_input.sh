#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What maru says to bad input, and what is left when a process is killed. Needs no guest: the payload is a
# Multiboot kernel of a few bytes that halts, or writes to a port.
# timeout: 180

. "$(dirname "$0")/lib.sh"

# refused STATUS TEXT ARGUMENT… — ends with the status, says the text in one line, and soon.
refused()
{
	local status=$1 text=$2 got=0
	shift 2
	timeout 20 "$maru" "$@" </dev/null >"$dir/out" 2>"$dir/err" || got=$?
	[ "$got" = "$status" ] && grep -qF -- "$text" "$dir/err" && [ "$(wc -l <"$dir/err")" = 1 ]
	result $? "maru $* says: $text"
}

multiboot "$dir/halt.bin" '\xfa\xf4\xeb\xfd'                                   # cli; hlt; jmp
multiboot "$dir/exit.bin" '\xb8\x03\x00\x00\x00\xba\xf4\x00\x00\x00\xef\xf4'   # mov eax,3; mov edx,0xf4; out; hlt
multiboot "$dir/crash.bin" '\x0f\x0b'                                          # ud2 without an IDT
multiboot "$dir/hello.bin" '\xba\xf8\x03\x00\x00\xb0\x48\xee\xb0\x69\xee\xba\xf4\x00\x00\x00\xef\xf4'

: >"$dir/empty"
echo "this is no kernel" >"$dir/text"
head -c 100 /dev/zero >"$dir/zero.img"
head -c 64M /dev/zero >"$dir/big"
printf 'QFI\xfb\x00\x00\x00\x03' >"$dir/bad.qcow2"
bz="$dir/truncated"
{ head -c 514 /dev/zero; printf 'HdrS'; head -c 20 /dev/zero; } >"$bz"

common=(--net none --memory 32M --serial none)
refused 2 "did you mean --cpus" run --cpsu 2 debian:12
refused 2 "512M" run --memory 5X debian:12
refused 2 "no VM named 'nobody' is running" balloon nobody
refused 2 "No such file" balloon "$dir/none"
refused 2 "needs the name of a running VM" balloon
refused 2 "takes a size such as 512M" balloon nobody much
refused 2 "did you mean 'ping'" guest pnig nobody
refused 2 "no VM named 'nobody' is running" guest ping nobody
refused 2 "needs a program" guest exec nobody
refused 2 "one word too many" guest ip nobody eth0
refused 2 "the CPU feature 'avx9' is not known" run --kernel "$dir/halt.bin" --cpu-features sse2,avx9 "${common[@]}"
refused 2 "--cpu-features takes" run --kernel "$dir/halt.bin" --cpu-features "avx2 bmi2" "${common[@]}"
for missing in amx_tile sse4a svm vmx; do
	! grep -qw "$missing" /proc/cpuinfo || continue
	refused 2 "'$missing' was asked for, and this host's processor does not have it" \
		run --kernel "$dir/halt.bin" --cpu-features "sse2,$missing" "${common[@]}"
	break
done
refused 2 "--port takes name=NAME,unix:PATH" run --kernel "$dir/halt.bin" --port "name=a/b,unix:$dir/p" "${common[@]}"
refused 2 "No such file" run --kernel "$dir/none" "${common[@]}"
refused 2 "empty" run --kernel "$dir/empty" "${common[@]}"
refused 2 "is not a Linux bzImage" run --kernel "$dir/text" "${common[@]}"
refused 2 "truncated" run --kernel "$bz" "${common[@]}"
refused 2 "not a regular file" run --kernel /dev/zero "${common[@]}"
refused 2 "give the guest more memory" run --kernel "$dir/halt.bin" --initrd "$dir/big" "${common[@]}"
refused 2 "No such file" run --kernel "$dir/halt.bin" --disk "$dir/none.img" "${common[@]}"
refused 2 "bad.qcow2" run --kernel "$dir/halt.bin" --disk "$dir/bad.qcow2" "${common[@]}"
mkdir "$dir/sub"
"$maru" image create "$dir/sub/over.qcow2" 1M --backing "$dir/zero.img" >/dev/null
refused 2 ",backing=$dir/zero.img" run --kernel "$dir/halt.bin" --disk "$dir/sub/over.qcow2" "${common[@]}"
refused 2 "needs firmware" run "$dir/zero.img"
refused 2 "image pull" run nosuch:1
refused 2 "neither a file nor a guest" run nosuch
refused 2 "cannot write" run --kernel "$dir/halt.bin" --net none --serial "file:$dir/no/such"
refused 2 "takes the path of a socket" run --kernel "$dir/halt.bin" --control "" "${common[@]}"
refused 2 "not a socket" run --kernel "$dir/halt.bin" --net none --control "$dir/text"
refused 2 "did you mean 'image'" imagee
refused 2 "did you mean 'status'" help staus
refused 2 "pull, list, create, info and rm" image frobnicate
refused 2 "takes a size" image create "$dir/x.qcow2" 5Q

timeout 20 "$maru" run --kernel "$dir/exit.bin" --debug-exit --disk "$dir/sub/over.qcow2,backing=$dir/zero.img" "${common[@]}" \
	</dev/null 2>"$dir/err"
[ $? = 7 ]
result $? "--debug-exit: the guest's 3 is exit status 7"
[ "$(timeout 20 "$maru" run --kernel "$dir/hello.bin" --debug-exit --net none --memory 32M </dev/null 2>"$dir/err")" = Hi ]
result $? "the serial port is standard output, to the last byte"
timeout 20 "$maru" run --kernel "$dir/crash.bin" "${common[@]}" </dev/null 2>"$dir/err"
[ $? = 4 ] && grep -q "triple fault" "$dir/err" && grep -q "rax" "$dir/err"
result $? "a triple fault ends with its reason and the registers"

# start ARGUMENT… — a VM in the background that is up: its control socket answers.
start()
{
	rm -f "$dir/ctl"
	"$maru" run --kernel "$dir/halt.bin" --control "$dir/ctl" --memory 32M "$@" </dev/null >"$dir/out" 2>"$dir/err" &
	pid=$!
	for _ in $(seq 100); do
		[ -S "$dir/ctl" ] && vm=$(pgrep -P "$pid" -x maru-vm) && return 0
		sleep 0.1
	done
	return 1
}

# gone PID… — they end within some seconds.
gone()
{
	local p
	for _ in $(seq 100); do
		for p in "$@"; do
			[ -d "/proc/$p" ] && ! grep -q '^State:.Z' "/proc/$p/status" 2>/dev/null && { sleep 0.1; continue 2; }
		done
		return 0
	done
	return 1
}

head -c 1M /dev/zero >"$dir/disk.img"
start --disk "$dir/disk.img" --net user
result $? "a VM with disk and network starts"
others=$(pgrep -P "$pid")
refused 2 "disk.img" run --kernel "$dir/halt.bin" --disk "$dir/disk.img" "${common[@]}"
refused 2 "in use by another program" run --kernel "$dir/halt.bin" --control "$dir/ctl" "${common[@]}"
kill -9 "$pid"
# shellcheck disable=SC2086
gone $others && [ ! -e "$dir/ctl" ]
result $? "kill -9 of maru leaves no process and no socket behind"
wait "$pid" 2>/dev/null

start --net user
others=$(pgrep -P "$pid")
kill -9 "$(pgrep -P "$pid" -x maru-nat)"
for _ in $(seq 50); do
	pgrep -P "$pid" -x maru-nat >/dev/null || break
	sleep 0.1
done
! pgrep -P "$pid" -x maru-nat >/dev/null && kill -0 "$vm" && grep -q "network is dead" "$dir/err"
result $? "maru-nat that dies is reported and reaped, and the VM goes on"
kill -9 "$vm"
wait "$pid"
[ $? = 6 ] && grep -q "signal 9" "$dir/err" && [ ! -e "$dir/ctl" ]
result $? "kill -9 of maru-vm is reported, its socket is removed"
# shellcheck disable=SC2086
gone $others
result $? "and leaves no process behind"

start --net none
for _ in $(seq 100); do
	timeout 10 "$maru" status "$dir/ctl" 2>/dev/null | grep -q running && break
	sleep 0.1
done
kill "$pid"
sleep 1
kill -0 "$pid" 2>/dev/null
result $? "SIGTERM presses the power button, which this guest ignores"
kill "$pid"
wait "$pid"
[ $? = 8 ]
result $? "a second SIGTERM quits"

# With the dirty bit, and a thousand snapshots of one L1 table that has one L2 table thousands of times: it takes some seconds.
perl -e '
	my $c = 65536;
	open my $f, "+>", $ARGV[0] or die;
	sub put { seek $f, $_[0] * $c, 0; print $f $_[1] }
	truncate $f, 512 << 20;
	put(0, pack("a4NQ>N2Q>N2Q>2N2Q>", "QFI\xfb", 3, 0, 0, 16, 1 << 30, 0, 2, 3 * $c, $c, 1, 1000, 4 * $c) . pack("Q>3N2", 1, 0, 0, 4, 104));
	put(1, pack("Q>", 2 * $c));
	put(2, pack("n", 1) x 8);
	put(4, pack("Q>Nx24N", 5 * $c, 4096, 0) x 1000);
	put(5, pack("Q>", 7 * $c) x 4096);' "$dir/slow.qcow2"
start --net none --disk "$dir/slow.qcow2"
for _ in $(seq 100); do
	grep -q "being repaired" "$dir/err" && break
	sleep 0.05
done
kill "$pid"
wait "$pid"
[ $? = 8 ] && ! grep -q "too many" "$dir/err"
result $? "SIGTERM ends a VM that is still opening a disk"

"$maru" run --kernel "$dir/halt.bin" --publish 127.0.0.1:39218:22 --memory 32M --gdb 127.0.0.1:39217 </dev/null >/dev/null 2>&1 &
first=$!
sleep 1
refused 2 "cannot listen at 127.0.0.1:39217" run --kernel "$dir/halt.bin" --gdb 127.0.0.1:39217 "${common[@]}"
refused 2 "39218" run --kernel "$dir/halt.bin" --publish 127.0.0.1:39218:22 --memory 32M --serial none
kill "$first"
sleep 0.5
kill "$first"
wait "$first"

finish_tests
