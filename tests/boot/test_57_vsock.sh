#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
#
# Virtio sockets: programs of the host reach one in the guest, and the other way round; 10 MB each way come through
# unharmed; where nobody listens there is an error.

. "$(dirname "$0")/../guest/lib.sh"

# What connects, sends a file, and prints what comes back. For the guest: the address family is 40, and its
# addresses are family, 0, port, cid.
cat >"$scratch/client.pl" <<'END'
$| = 1;
my ($family, $address, $greeting, $file) = @ARGV;
socket(my $s, $family, 1, 0) or die "socket: $!\n";
connect($s, pack("H*", $address)) or die "connect: $!\n";
if ($greeting) {
	syswrite $s, "$greeting\n";
	my $line = "";
	while ($line !~ /\n/) { sysread($s, $line, 1, length $line) or die "closed\n" }
	$line =~ /^OK \d+\n/ or die "said $line";
}
open(my $f, "<", $file) or die "$file: $!\n";
while (sysread $f, my $part, 65536) { my $at = 0; while ($at < length $part) { $at += syswrite($s, $part, length($part) - $at, $at) // die "write: $!\n" } }
shutdown $s, 1;
while (my $n = sysread $s, my $part, 65536) { print $part }
END
# What listens: keeps what comes in a file, and answers with another.
cat >"$scratch/server.pl" <<'END'
my ($family, $address, $into, $answer) = @ARGV;
socket(my $l, $family, 1, 0) or die "socket: $!\n";
bind($l, pack("H*", $address)) or die "bind: $!\n";
listen($l, 5);
open(my $ready, ">", "$into.ready");
close $ready;
while (accept(my $s, $l)) {
	open(my $f, ">", $into);
	while (sysread $s, my $part, 65536) { syswrite $f, $part }
	close $f;
	open($f, "<", $answer);
	while (sysread $f, my $part, 65536) { my $at = 0; while ($at < length $part) { $at += syswrite($s, $part, length($part) - $at, $at) // last } }
	close $s;
}
END

vsock_address() # PORT CID, the latter as the hexadecimal digits of its bytes
{
	printf '28000000%s%s00000000' "$(printf '%08x' "$1" | sed 's/\(..\)\(..\)\(..\)\(..\)/\4\3\2\1/')" "$2"
}
unix_address() # PATH
{
	printf '0100%s00' "$(printf %s "$1" | od -An -v -tx1 | tr -d ' \n')"
}

guest_debian
head -c 10M /dev/urandom >"$scratch/from-host"
v=$scratch/v
server "$scratch"
vm_start --cpus 2 --memory 1G --vsock "$v"
vm_boot 400
vm_run 300 'systemctl is-system-running --wait'
vm_ok 120 "for f in client.pl server.pl; do curl -sS -o /root/\$f http://10.0.2.2:$server_port/\$f || exit 1; done; modprobe vmw_vsock_virtio_transport; ls /dev/vsock" \
	"the guest has virtio sockets"
vm_run 120 'head -c 10M /dev/urandom >/root/from-guest; sha256sum </root/from-guest'
sum=$out

vm_run 30 "(perl /root/server.pl 40 $(vsock_address 5000 ffffffff) /root/into /root/from-guest >/dev/null 2>/root/errors </dev/null &) ; until [ -e /root/into.ready ]; do sleep 0.2; done; cat /root/errors"
is "$out" '' "a program of the guest listens at port 5000"
timeout 300 perl "$scratch/client.pl" 1 "$(unix_address "$v")" 'CONNECT 5000' "$scratch/from-host" >"$scratch/answer" 2>"$scratch/client.err"
is "$(sha256sum <"$scratch/answer")" "$sum" "10 MB from the guest to a program of the host that has connected $(<"$scratch/client.err")"
vm_run 60 'sha256sum </root/into'
is "$out" "$(sha256sum <"$scratch/from-host")" "and 10 MB to it"
said=$(timeout 60 perl "$scratch/client.pl" 1 "$(unix_address "$v")" 'CONNECT 5001' "$scratch/client.pl" 2>&1)
is "$said" closed "a port of the guest where nobody listens"

perl "$scratch/server.pl" 1 "$(unix_address "${v}_6000")" "$scratch/into" "$scratch/from-host" 2>/dev/null &
helpers+=($!)
until [ -e "$scratch/into.ready" ]; do sleep 0.2; done
vm_run 300 "perl /root/client.pl 40 $(vsock_address 6000 02000000) '' /root/from-guest | sha256sum"
is "$out" "$(sha256sum <"$scratch/from-host")" "10 MB from a program of the host to one of the guest that has connected"
is "$(sha256sum <"$scratch/into")" "$sum" "and 10 MB to it"
vm_run 60 "perl /root/client.pl 40 $(vsock_address 6001 02000000) '' /root/client.pl"
[[ $out == *'Connection reset'* ]]
ok $? "a port of the host where nobody listens: $out"
broker=$(pgrep -P "$(<"$scratch/pid")" -x maru | head -n 3 | wc -l)
[ "$broker" -ge 1 ]
ok $? "the broker is a process of its own"
vm_kernel_log
vm_off 200
[ ! -e "$v" ]
ok $? "the socket is gone with the VM"
