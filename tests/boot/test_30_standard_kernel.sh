#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
#
# Debian's standard kernel comes up with 1 and with 4 vCPUs, and powers off by itself.

. "$(dirname "$0")/../guest/lib.sh"

for cpus in 1 4; do
	guest_small amd64
	vm_start --cpus "$cpus" --memory 512M --net none
	vm_boot 200
	vm_run 30 'uname -r; nproc'
	is "$out" "$(<"$cache/kernels/amd64/release")"$'\n'"$cpus" "the standard kernel runs with $cpus vCPU"
	# Each vCPU does work of its own at the same time and gets the same result.
	vm_run 120 "for i in \$(seq $cpus); do (seq 1 100000 | sha256sum >/tmp/sum.\$i) & done; wait; cat /tmp/sum.* | sort | uniq -c"
	is "$(awk '{ print $1, $2 }' <<<"$out")" "$cpus $(seq 1 100000 | sha256sum | cut -d' ' -f1)" \
		"$cpus processes at a time compute the same"
	vm_kernel_log
	vm_off 60 exit
done
