#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
#
# Paravirtual interfaces: Linux finds and uses KVM's, does without them when told to, and without --paravirt there are none.

. "$(dirname "$0")/../guest/lib.sh"

guest_small cloud-amd64
base=("${guest[@]}")

# has REGEX DESCRIPTION — in the guest's kernel log.
has()
{
	grep -qE -- "$1" <<<"$log"
	ok $? "$2"
}

hasnt()
{
	! grep -qE -- "$1" <<<"$log"
	ok $? "$2"
}

# boot APPEND OPTION…
boot()
{
	guest=("${base[@]}" --append "console=ttyS0 $1")
	shift
	vm_start --cpus 4 --memory 256M "$@"
	vm_boot 200
	vm_run 60 dmesg
	log=$out
	vm_run 60 'cat /sys/devices/system/clocksource/clocksource0/current_clocksource; nproc'
	is "$out" $'tsc\n4' "tsc is the clock, and there are 4 CPUs"
	# Work for the scheduler and for the TLBs of all CPUs.
	vm_ok 200 'for n in 1 2 3 4; do (i=0; while [ $i -lt 40 ]; do i=$((i+1)); ls -l /bin /proc | gzip -c >/dev/null; done) & done; wait' \
		"four processes do their work"
	vm_run 60 'dmesg | tail -n +1 | grep -E "BUG|WARNING|stall|lockup|Oops"; true'
	is "$out" '' "the kernel has nothing to complain about"
}

boot ''
has 'Hypervisor detected: KVM' "Linux finds KVM"
has 'kvm-clock: Using msrs 4b564d01' "kvmclock"
has 'KVM setup pv remote TLB flush' "TLB flush"
has 'setup PV IPIs' "IPIs"
has 'PV spinlocks enabled' "spin locks"
has 'setup PV sched yield' "yield"
has 'Switched APIC routing to physical x2apic' "x2APIC without interrupt remapping"
has 'clocksource: kvm-clock:.*' "the clock source"
vm_run 60 'echo kvm-clock >/sys/devices/system/clocksource/clocksource0/current_clocksource; a=$(date +%s); sleep 3; b=$(date +%s); echo $((b - a))'
[ "$out" -ge 3 ] && [ "$out" -le 10 ]
ok $? "kvm-clock as the clock source: 3 s last $out s"
vm_run 60 'awk "/^cpu / { print NF, \$9 }" /proc/stat'
[ "${out#* }" -ge 0 ]
ok $? "steal time is counted: ${out#* } ticks"
vm_off 100 'poweroff -f'

boot 'nokvmclock no-steal-acc nopvspin nopv'
hasnt 'kvm-clock|PV IPIs|pv remote TLB' "told not to, it uses none"
vm_off 100 'poweroff -f'

boot '' --paravirt off
hasnt 'KVM|kvm-' "with --paravirt off there is none"
vm_off 100 'poweroff -f'
