#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
#
# Debian 12 with its cloud kernel and four vCPUs, more than most test machines have.

. "$(dirname "$0")/../guest/lib.sh"

guest_debian
vm_start --cpus 4 --memory 1G
vm_boot 400
vm_run 300 'systemctl is-system-running --wait'
is "$out" running "systemd has started everything"
vm_run 30 'nproc'
is "$out" 4 "the guest has 4 vCPUs"
vm_run 200 'seq 400 | xargs -P 8 -I% sh -c "seq % 5000 | sha256sum" | sort | sha256sum | cut -c1-64'
is "$out" "$(seq 400 | xargs -P 2 -I% sh -c 'seq % 5000 | sha256sum' | sort | sha256sum | cut -c1-64)" \
	"400 processes on all vCPUs compute what the host computes"
vm_run 30 'for c in 0 1 2 3; do taskset -c $c sh -c "cut -d\  -f39 /proc/self/stat"; done | tr "\n" " "'
is "$out" '0 1 2 3 ' "each vCPU runs what is bound to it"
vm_kernel_log
vm_off 200
