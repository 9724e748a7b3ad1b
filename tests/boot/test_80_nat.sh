#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
#
# User-mode network: 100 MB each way come through unharmed, and a published port leads into the guest.

. "$(dirname "$0")/../guest/lib.sh"

guest_small cloud-amd64
head -c 100M /dev/urandom >"$scratch/down"
server "$scratch"
port=$((20000 + $$ % 20000))
vm_start --cpus 2 --memory 768M --net user --publish "127.0.0.1:$port:8080" --control "$scratch/ctl"
vm_boot 200
vm_ok 120 'ip link set eth0 up && udhcpc -q -n -t 20 -i eth0 -s /bin/dhcp-done >/dev/null 2>&1' \
	"the guest gets an address by DHCP"
url=http://10.0.2.2:$server_port

vm_run 300 "wget -q -O /tmp/down $url/down; sha256sum </tmp/down"
is "$out" "$(sha256sum <"$scratch/down")" "100 MB from the host to the guest"
vm_run 120 'head -c 104857600 /dev/urandom >/tmp/up; rm /tmp/down; sha256sum </tmp/up'
sum=$out
vm_run 300 "{ printf 'PUT /up HTTP/1.1\\r\\nContent-Length: 104857600\\r\\n\\r\\n'; cat /tmp/up; } | nc 10.0.2.2 $server_port"
is "$(sha256sum <"$scratch/up")" "$sum" "100 MB from the guest to the host"

vm_run 30 'mkdir /www && head -c 5242880 /tmp/up >/www/part && httpd -p 8080 -h /www; sha256sum </www/part'
sum=$out
is "$(perl -MIO::Socket::INET -e '
	my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => shift, Timeout => 60) or die "$!\n";
	print $s "GET /part HTTP/1.0\r\n\r\n";
	while (<$s>) { last if /^\r?$/ }
	local $/; print scalar <$s>;' "$port" | sha256sum)" "$sum" "5 MB from the guest through a published port"
"$maru" status "$scratch/ctl" -o json | perl -MJSON::PP -0777 -e '
	my ($card) = @{decode_json(<STDIN>)->{nets}};
	exit !($card->{to_guest_bytes} > 104857600 && $card->{from_guest_bytes} > 104857600 &&
		$card->{to_guest} > 1000 && $card->{from_guest} > 1000);'
ok $? "status has counted the bytes and packets: $("$maru" status "$scratch/ctl" | grep ^net)"
vm_kernel_log
vm_off 60 exit
