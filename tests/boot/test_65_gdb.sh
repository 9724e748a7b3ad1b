#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
#
# gdb stops a running kernel at a symbol, looks at it, steps it, and lets it go on.

. "$(dirname "$0")/../guest/lib.sh"

guest_small cloud-amd64
vm_start --cpus 2 --memory 256M --net none --gdb "unix:$scratch/gdb,wait=off" --append 'console=ttyS0 quiet nokaslr'
vm_boot 120

# The symbol's address from the kernel itself; nothing has called it since.
vm_run 30 'grep -w do_syslog /proc/kallsyms | head -n 1'
address=$(awk '{ print $1 }' <<<"$out")
ok "$([[ $address =~ ^ffffffff[0-9a-f]{8}$ ]]; echo $?)" "the guest tells where do_syslog is: $address"

cat >"$scratch/script" <<END
set pagination off
set confirm off
set architecture i386:x86-64
target remote $scratch/gdb
info threads
hbreak *0x$address
continue
printf "stopped at %#lx in ring %d\n", \$rip, \$cs & 3
x/2i \$rip
stepi
stepi
printf "stepped, moved %d\n", \$rip != 0x$address
watch *(long *)(\$rsp - 8)
info registers rsp cr3
delete
detach
END
timeout 120 gdb -nx -batch -x "$scratch/script" >"$scratch/gdb.log" 2>&1 &
gdb=$!
sleep 5
vm_run 120 'dmesg | head -n 1 | wc -l'
is "$out" 1 'the guest goes on after the debugger has left'
wait "$gdb"
ok $? 'gdb ends well'
grep -q 'Thread 2' "$scratch/gdb.log"
ok $? 'each vCPU is a thread'
grep -q "stopped at 0x$address in ring 0" "$scratch/gdb.log"
ok $? 'it stops at the symbol'
grep -q 'stepped, moved 1' "$scratch/gdb.log"
ok $? 'it steps'
grep -q '^cr3 .*0x' "$scratch/gdb.log"
ok $? 'it shows control registers'
[ "$failures" = 0 ] || sed 's/^/# /' "$scratch/gdb.log"
vm_kernel_log
vm_off 60 exit

# Without wait=off it does not run an instruction before a debugger lets it.
vm_start --cpus 2 --memory 256M --net none --gdb "unix:$scratch/gdb2" --append 'console=ttyS0 quiet nokaslr'
sleep 3
[ ! -s "$vm_log" ] && grep -q "waits at its first instruction.*target remote $scratch/gdb2'" "$vm_errors"
ok $? 'a VM waits for its debugger, and maru says how to start one'
cat >"$scratch/script" <<END
set confirm off
set architecture i386:x86-64
target remote $scratch/gdb2
printf "starts at %#lx, flags %#x\n", \$rip, \$eflags
info threads
stepi
printf "then %#lx\n", \$rip
detach
END
timeout 60 gdb -nx -batch -x "$scratch/script" >"$scratch/gdb.log" 2>&1
ok $? 'gdb comes and leaves'
grep -q 'starts at 0x[0-9a-f]*, flags 0x2$' "$scratch/gdb.log" && grep -q '^then 0x' "$scratch/gdb.log"
ok $? 'it has seen the first instruction'
[ "$failures" = 0 ] || sed 's/^/# /' "$scratch/gdb.log"
vm_boot 120
vm_off 60 exit
