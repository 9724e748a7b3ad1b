#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
#
# Two guests of the same kernel share memory by --ksm; --hugepages gives one large pages. What counts is what the host
# says. Looking for equal pages is switched on for the time of the test, where that may be done.

ksm=/sys/kernel/mm/ksm
[ -w $ksm/run ] || {
	echo "1..0 # SKIP whether this host merges equal pages cannot be set ($ksm/run is not writable)"
	exit 0
}

. "$(dirname "$0")/../guest/lib.sh"

for knob in run sleep_millisecs pages_to_scan; do
	before+=("$knob $(<"$ksm/$knob")")
done
restore()
{
	local status=$? knob value
	[ -z "$second" ] || kill -KILL "$second" 2>/dev/null
	for knob in "${before[@]}"; do
		read -r knob value <<<"$knob"
		echo "$value" >"$ksm/$knob"
	done
	return "$status"
}
second=
trap 'restore; finish' EXIT

# host_memory SOCKET MEMBER — from the status of the VM.
host_memory()
{
	perl -MIO::Socket::UNIX -e '
		my $s = IO::Socket::UNIX->new(Peer => shift) or die "$!\n";
		print $s qq({"request":"status","id":1}\n);
		while (<$s>) { last if /"id":\s*1\b/ }
		print /"host_memory":\s*\{[^}]*"$ARGV[0]":\s*(\d+)/ ? $1 : "none";' "$1" "$2"
}

guest_small cloud-amd64
"$maru" run --engine "$engine" "${guest[@]}" --memory 256M --net none --serial none --ksm --control "$scratch/second" \
	</dev/null >"$scratch/second.out" 2>&1 &
second=$!
vm_start --memory 256M --net none --ksm --control "$scratch/first"
vm_boot 200

echo 20 >$ksm/sleep_millisecs
echo 10000 >$ksm/pages_to_scan
echo 1 >$ksm/run
end=$(patience 120)
merged=0
until [ "$merged" -ge $((16 << 20)) ] || [ "$EPOCHSECONDS" -gt "$end" ]; do
	sleep 1
	merged=$(host_memory "$scratch/first" merged)
done
[ "$merged" -ge $((16 << 20)) ]
ok $? "by its status $((merged >> 20)) MiB of the first guest are merged"
vm=$(pgrep -P "$(<"$scratch/pid")" -x maru-vm)
[ "$(<"/proc/$vm/ksm_merging_pages")" -ge 4096 ]
ok $? "the kernel says so too: $(<"/proc/$vm/ksm_merging_pages") pages"
[ "$(<$ksm/pages_sharing)" -ge 4096 ]
ok $? "and that $(<$ksm/pages_sharing) pages are saved in all"

vm_ok 100 'mount -t tmpfs -o size=90% none /mnt && head -c 16777216 /dev/urandom >/mnt/a && cp /mnt/a /mnt/b && sleep 5 && cmp /mnt/a /mnt/b' \
	"the guest's memory holds what it wrote, merged or not"
vm_kernel_log
vm_off 60 exit
kill -KILL "$second"
wait "$second" 2>/dev/null
second=

if grep -q '\[never\]' /sys/kernel/mm/transparent_hugepage/enabled; then
	said=$("$maru" run --engine "$engine" "${guest[@]}" --memory 256M --net none --serial none --hugepages 2>&1)
	[[ $said == *'gives no huge pages'* ]]
	ok $? "a host without huge pages is said to be one"
else
	vm_start --memory 256M --net none --hugepages --control "$scratch/huge"
	vm_boot 200
	vm_ok 100 'mount -t tmpfs -o size=90% none /mnt && head -c 67108864 /dev/zero >/mnt/a' "the guest uses memory"
	huge=$(host_memory "$scratch/huge" huge)
	[ "$huge" -ge $((32 << 20)) ]
	ok $? "$((huge >> 20)) MiB of it are in huge pages of the host"
	vm_kernel_log
	vm_off 60 exit
fi
