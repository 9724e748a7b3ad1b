#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
#
# A 32-bit Debian kernel (PAE paging) comes up with 1 and with 2 vCPUs, and finds its disk and its network.

. "$(dirname "$0")/../guest/lib.sh"

for cpus in 1 2; do
	guest_small 686-pae
	head -c 4M /dev/urandom >"$scratch/disk"
	vm_start --cpus "$cpus" --memory 512M --net user --disk "$scratch/disk,format=raw,readonly=on"
	vm_boot 200
	vm_run 30 'uname -r; uname -m; nproc'
	is "$out" "$(<"$cache/kernels/686-pae/release")"$'\ni686\n'"$cpus" "the i386 kernel runs with $cpus vCPU"
	vm_run 120 'sha256sum </dev/vda'
	is "$out" "$(sha256sum <"$scratch/disk")" "it reads the disk right"
	vm_run 120 'ip link set eth0 up && udhcpc -q -n -t 20 -i eth0 -s /bin/dhcp-done >/dev/null 2>&1; ip -4 addr show dev eth0 | grep -o "10\.0\.2\.[0-9]*/"'
	is "$out" 10.0.2.15/ "it gets its address by DHCP"
	vm_kernel_log
	vm_off 60 exit
done
