#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# alone
#
# How long it takes from `maru run` to the guest's first instruction. The guest is the smallest there is: it
# writes a byte to the debug console, which is a pipe to us, and exits. The figures are printed; what is tested is
# the best of some runs, as the host may be busy with something else.

maru=${BUILD:-build/release}/maru
limit_ms=50
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

# A Multiboot header that says what goes where (loaded at 1 MiB, entry behind it), and the program:
# mov al,'!'; out 0xe9,al; mov al,0; mov dx,0xf4; out dx,al; hlt
{
	printf '\x02\xb0\xad\x1b\x00\x00\x01\x00\xfe\x4f\x51\xe4'
	printf '\x00\x00\x10\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x10\x00'
	printf '\xb0\x21\xe6\xe9\xb0\x00\x66\xba\xf4\x00\xee\xf4'
} >"$scratch/kernel"

# measure OPTION…: "best median" in milliseconds
measure()
{
	perl -MTime::HiRes=time -MPOSIX -e '
		my ($pipe, @command) = @ARGV;
		my @ms;
		mkfifo($pipe, 0600) or die "$pipe: $!\n";
		for (1 .. 11) {
			sysopen(my $in, $pipe, O_RDWR | O_NONBLOCK) or die "$pipe: $!\n";
			my $start = time;
			my $pid = fork;
			if (!$pid) {
				open STDIN, "<", "/dev/null";
				exec @command, "--debugcon", $pipe;
			}
			my $ready = "";
			vec($ready, fileno $in, 1) = 1;
			exit 1 unless select($ready, undef, undef, 20);
			push @ms, (time - $start) * 1000;
			waitpid $pid, 0;
			exit 1 unless $? == 1 << 8;
		}
		@ms = sort { $a <=> $b } @ms;
		printf "%.1f %.1f\n", $ms[0], $ms[5];' "$scratch/$1" "$maru" run --kernel "$scratch/kernel" --serial none \
		--debug-exit "${@:2}"
}

tests=0 status=0
try()
{
	local best median
	tests=$((tests + 1))
	read -r best median < <(measure "$@")
	if [ -n "$best" ] && [ "${best%.*}" -lt $limit_ms ]; then
		echo "ok $tests - $1: first instruction after $best ms (median $median ms)"
	else
		echo "not ok $tests - $1: first instruction after ${best:-?} ms (median ${median:-?} ms), more than $limit_ms ms"
		status=1
	fi
}

try plain --net none
try network --net user
try four-vcpus --net none --cpus 4 --memory 1G
echo "1..$tests"
exit $status
