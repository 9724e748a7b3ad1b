#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 7200
#
# stress-ng from the Debian package, verifying what it computes, with 2 vCPUs: each class for STRESS_SECONDS (60).

. "$(dirname "$0")/../guest/lib.sh"

seconds=${STRESS_SECONDS:-60}
guest_debian stress-ng
vm_start --cpus 2 --memory 2G
vm_boot 600
vm_run 300 'systemctl is-system-running --wait'
is "$out" running "systemd has started everything"

for class in cpu vm matrix vecmath fp context fork mmap fault icache atomic lockbus; do
	options=
	[ "$class" != vm ] || options='--vm-bytes 128M'
	vm_ok $((seconds * 2 + 300)) "stress-ng --verify --$class 2 $options --timeout ${seconds}s 2>&1" \
		"stress-ng --$class verifies for $seconds s"
	grep -qE 'failed: 0|successful run completed' <<<"$out"
	ok $? "stress-ng --$class ran to its end"
done
vm_kernel_log
vm_off 200
