#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
#
# pvpanic: Debian's driver tells of a kernel that panics; maru says so, and the control socket has an event.

. "$(dirname "$0")/../guest/lib.sh"

guest_debian
vm_start --cpus 2 --memory 512M --control "$scratch/control"
vm_boot 400
vm_ok 60 'modprobe pvpanic-mmio && ls /sys/bus/platform/drivers/pvpanic-mmio/QEMU0001:00' "Debian's driver finds the device"
perl -MIO::Socket::UNIX -e '
	my $s = IO::Socket::UNIX->new(Peer => shift) or die "$!\n";
	$| = 1;
	alarm 100;
	while (<$s>) { print if /"greeting"|"guest-panic"/; last if /"guest-panic"/ }' "$scratch/control" >"$scratch/event" 2>&1 &
listener=$!
until grep -q greeting "$scratch/event"; do sleep 0.1; done
vm_send 'echo c >/proc/sysrq-trigger'
wait $listener
[[ $(<"$scratch/event") == *'"crash_kernel":false'* ]]
ok $? "the control socket has an event: $(tail -n 1 "$scratch/event")"
grep -q "the guest's kernel panicked" "$vm_errors"
ok $? "maru says: $(grep -a panicked "$vm_errors")"
is "$("$maru" status "$scratch/control" -o json | grep -o '"state": "[a-z]*"')" '"state": "running"' "the VM is still there to be looked at"
vm_kill KILL
