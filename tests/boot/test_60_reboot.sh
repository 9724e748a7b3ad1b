#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
#
# A reboot from inside: by the kernel alone, several times, and by systemd.

. "$(dirname "$0")/../guest/lib.sh"

boot_id()
{
	vm_run 30 'cat /proc/sys/kernel/random/boot_id'
	boots+="$out"$'\n'
}

reboots()
{
	local i
	boots=
	boot_id
	for i in $(seq "$1"); do
		vm_send "$2"
		# The echo of the next prompt must not be taken for the next boot.
		vm_wait 200 'Linux version|reboot: Restarting|Run /init|Welcome to|BusyBox v'
		vm_boot 400
		boot_id
	done
	is "$(sort -u <<<"$boots" | grep -c .)" $(($1 + 1)) "$3: $1 times, each a boot of its own"
}

guest_small cloud-amd64
vm_start --cpus 2 --memory 512M --net none
vm_boot 200
reboots 3 'reboot -f' "reboot by the kernel"
vm_kernel_log
vm_off 60 exit

guest_debian
vm_start --cpus 2 --memory 1G
vm_boot 400
reboots 1 reboot "reboot by systemd"
vm_run 300 'systemctl is-system-running --wait'
is "$out" running "systemd has started everything again"
vm_kernel_log
vm_off 200
