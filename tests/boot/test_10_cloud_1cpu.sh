#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
#
# Debian 12 with its cloud kernel and one vCPU: systemd comes up, the network and the login by ssh work.

. "$(dirname "$0")/../guest/lib.sh"

guest_debian
port=$((20000 + $$ % 20000))
vm_start --cpus 1 --memory 1G --publish "127.0.0.1:$port:22"
vm_boot 400
vm_run 300 'systemctl is-system-running --wait'
is "$out" running "systemd has started everything"
vm_run 30 'systemctl --failed --no-legend --plain | cat'
is "$out" '' "no unit has failed"
vm_run 30 'nproc; uname -m; uname -r | grep -o cloud'
is "$out" $'1\nx86_64\ncloud' "the cloud kernel runs with 1 vCPU"
vm_run 60 'ip -4 -br addr show scope global | grep -o "10\.0\.2\.[0-9]*/24"'
is "$out" 10.0.2.15/24 "DHCP gave the guest its address"

echo 'from the host' >"$scratch/hello"
server "$scratch"
vm_run 60 "curl -sS -m 50 http://10.0.2.2:$server_port/hello"
is "$out" 'from the host' "the guest reaches a server on the host"

said=$(timeout 100 ssh -n -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
	-o ConnectTimeout=60 -i "$guest_key" -p "$port" root@127.0.0.1 \
	'echo "$USER on $(hostname)"' 2>&1)
is "$said" 'root on debian' "ssh through a published port logs in with the guest's key"

vm_kernel_log
vm_off 200
e2fsck -fn "$scratch/disk.raw" >"$scratch/fsck" 2>&1
ok $? "the guest's file system is clean after power-off"
