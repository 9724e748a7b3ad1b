#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The host's side of virtio sockets, of a guest that does not know them.

. "$(dirname "$0")/lib.sh"

multiboot "$dir/wait.bin" '\xf4\xeb\xfd' # again: hlt; jmp again
timeout -s KILL 60 "$maru" run --kernel "$dir/wait.bin" --memory 32M --net none --serial none --vsock "$dir/v" >"$dir/out" 2>"$dir/err" &
vm=$!
at_end()
{
	kill -KILL "$vm" "${stopped[@]}" 2>/dev/null
	wait "$vm" 2>/dev/null
}
for _ in {1..100}; do
	[ ! -S "$dir/v" ] || break
	sleep 0.1
done

# A host so busy that nobody comes to take them meanwhile. 04000: SOCK_NONBLOCK.
mapfile -t stopped < <(pgrep -P "$vm")
kill -STOP "$vm" "${stopped[@]}"
perl -MSocket -e '
	my @all;
	for (1..50) {
		socket(my $s, PF_UNIX, SOCK_STREAM | 04000, 0) or die "$!\n";
		connect($s, sockaddr_un($ARGV[0])) or die "connection $_: $!\n";
		push @all, $s;
	}' "$dir/v" 2>"$dir/err"
result $? "50 programs that do not wait connect at once"
kill -CONT "$vm" "${stopped[@]}"
perl -MIO::Socket::UNIX -e '
	my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "$!\n";
	alarm 20;
	print $s "GARBAGE\n";
	exit defined(<$s>);' "$dir/v" 2>"$dir/err"
result $? "what is no CONNECT is turned away"
finish_tests
