#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
#
# Memory goes back to the host: what the guest reports as free, and what the balloon takes. Under pressure the guest takes
# it again. What counts is what the host says about the VM's process.

. "$(dirname "$0")/../guest/lib.sh"

# What the VM's process holds, in MiB.
rss_mib()
{
	awk '$1 == "RssAnon:" || $1 == "RssShmem:" { sum += $2 } END { print int(sum / 1024) }' \
		"/proc/$(pgrep -P "$(<"$scratch/pid")" -x maru-vm)/status"
}

# falls_below MIB SECONDS — waits until the process holds less.
falls_below()
{
	local end
	end=$(patience "$2")
	while [ "$(rss_mib)" -ge "$1" ]; do
		[ "$EPOCHSECONDS" -le "$end" ] || return 1
		sleep 0.5
	done
}

balloon()
{
	said=$("$maru" balloon "$vm" "$@" 2>&1)
}

vm=balloon-$$
guest_debian
vm_start --cpus 2 --memory 1G --name "$vm"
vm_boot 400
vm_run 300 'systemctl is-system-running --wait'
vm_ok 60 'modprobe virtio_balloon; grep -q virtio_balloon /proc/modules' "the guest has a driver for the balloon"

vm_ok 120 'mount -t tmpfs -o size=600M none /mnt && head -c 500M /dev/zero | tr "\0" x >/mnt/big' "500 MB of memory are used"
used=$(rss_mib)
[ "$used" -ge 600 ]
ok $? "the VM holds them ($used MiB)"
vm_ok 60 'rm /mnt/big' "they are freed"
falls_below $((used - 350)) 60
ok $? "the guest reports them as free, and the host has them back ($(rss_mib) MiB)"

balloon -o json
[[ $said =~ \"driver\":\ true && $said =~ \"free\":\ [0-9]{8} && $said =~ \"actual\":\ 1073741824 ]]
ok $? "the guest's own figures"
vm_run 200 "head -c 300M /dev/zero | tr '\\0' x >/root/cached; sync; cat /root/cached | wc -c"
used=$(rss_mib)
balloon 400M
ok $? "the guest is told to keep 400 MiB, and does: $said"
falls_below $((used - 100)) 30
ok $? "the VM holds less ($used, then $(rss_mib) MiB)"
vm_run 30 "awk '\$1 == \"MemAvailable:\" { print int(\$2 / 1024) }' /proc/meminfo"
[ "$out" -lt 370 ]
ok $? "the guest can use less ($out MiB)"

vm_ok 200 'dd if=/dev/zero of=/dev/null bs=700M count=1' "a program that needs 700 MB gets them"
balloon -o json
[[ $said =~ \"actual\":\ ([0-9]+) && ${BASH_REMATCH[1]} -gt 700000000 ]]
ok $? "the guest took memory back under pressure (it has ${BASH_REMATCH[1]} bytes)"

balloon 64M
status=$?
[ "$status" = 2 ] && [[ $said == *'the guest cannot give that much: it keeps '* ]]
ok $? "a target below what it can give is said to be one: $said"
vm_ok 100 'echo still here' "the guest lives"
balloon 1G
ok $? "it gets everything back: $said"
vm_run 30 "awk '\$1 == \"MemAvailable:\" { print int(\$2 / 1024) }' /proc/meminfo"
[ "$out" -gt 600 ]
ok $? "and can use it ($out MiB)"

said=$("$maru" balloon "$vm" 2G 2>&1)
is "$?" 2 "more than it has is refused: $said"
vm_kernel_log
vm_off 200
