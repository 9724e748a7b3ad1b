#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
#
# Little memory and much: 256 MB, and 6 GB, which goes on above 4 GiB. Little of the latter is touched: the host may
# have less.

. "$(dirname "$0")/../guest/lib.sh"

for memory in 256M 6G; do
	guest_small cloud-amd64
	vm_start --cpus 2 --memory "$memory" --net none
	vm_boot 200
	vm_run 30 "awk '\$1 == \"MemTotal:\" { print int(\$2 / 1024) }' /proc/meminfo"
	case $memory in
	256M) low=190 high=256 ;;
	6G) low=5700 high=6144 ;;
	esac
	[ "$out" -ge "$low" ] && [ "$out" -le "$high" ]
	ok $? "with $memory the guest has $out MiB"
	if [ "$memory" = 6G ]; then
		vm_run 30 'dmesg | grep -c "BIOS-e820: \[mem 0x0000000100000000-0x00000001[0-9a-f]*\] usable"'
		is "$out" 1 "memory goes on above 4 GiB"
	fi
	vm_ok 200 'mount -t tmpfs -o size=90% none /mnt && head -c 67108864 /dev/urandom >/mnt/a && cp /mnt/a /mnt/b && cmp /mnt/a /mnt/b' \
		"64 MiB written to memory are read back the same"
	vm_kernel_log
	vm_off 60 exit
done
