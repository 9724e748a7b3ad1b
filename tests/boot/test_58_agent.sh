#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 1200
#
# The stock agent of Debian's package answers `maru guest`, and a named port leads to a socket of the host.

. "$(dirname "$0")/../guest/lib.sh"

vm=agent-$$
agent()
{
	said=$(timeout 100 "$maru" guest "$@" 2>&1 </dev/null)
}

guest_debian
vm_start --cpus 2 --memory 1G --name "$vm" --port "name=org.example.0,unix:$scratch/port"
vm_wait 100 .
agent ping "$vm"
status=$?
[ "$status" = 2 ] && [[ $said == *'no agent runs in the guest'* ]]
ok $? "before the guest has started: $said"
vm_boot 400
vm_run 300 'systemctl is-system-running --wait'
vm_run 60 'systemctl is-active qemu-guest-agent'
is "$out" active "Debian's agent runs in the guest, by itself"

agent ping "$vm"
ok $? "ping: $said"
agent ping "$vm" -o json
[[ $said == *'"answers": true'* ]]
ok $? "ping, as JSON"
agent info "$vm"
[[ $said =~ hostname\ +debian && $said =~ system\ +Debian\ GNU/Linux\ 12 && $said == *cloud-amd64* ]]
ok $? "info: ${said//$'\n'/; }"
agent ip "$vm"
[[ $said == *10.0.2.15/24* ]]
ok $? "ip: 10.0.2.15"
agent exec "$vm" /bin/sh -c 'echo out; echo err >&2; exit 7'
status=$?
is "$status" 7 "exec passes the exit status on"
is "$said" $'out\nerr' "and the output"
is "$(timeout 100 "$maru" guest exec "$vm" /usr/bin/head -c 1000000 /dev/zero | sha256sum)" \
	"$(head -c 1000000 /dev/zero | sha256sum)" "1 MB of output that is not text"
said=$(timeout 100 "$maru" guest exec "$vm" /bin/echo lost 2>&1 >/dev/full)
is "$?" 2 "output that cannot be written is an error: $said"
agent exec -o json "$vm" /bin/sh -c 'kill -9 $$'
[[ $said == *'"signal": 9'* ]]
ok $? "exec, as JSON, of a program that is killed"
agent exec "$vm" /no/such/program
status=$?
[ "$status" = 2 ] && [[ $said == *'refuses guest-exec'* ]]
ok $? "a program that does not exist: $said"
agent exec --timeout 1 "$vm" /bin/sleep 30
[[ $said == *'has not ended within 1 s'* ]]
ok $? "a program that takes longer than it may"

agent freeze "$vm"
ok $? "freeze: $said"
agent exec "$vm" /bin/true
[[ $said == *refuses* ]]
ok $? "a frozen guest runs nothing: $said"
agent thaw "$vm"
ok $? "thaw: $said"
vm_ok 60 'touch /root/thawed && sync' "the guest writes again"

vm_ok 60 'ls /dev/virtio-ports/org.example.0' "the guest has the named port"
printf 'from the host\n' >"$scratch/line"
perl -MIO::Socket::UNIX -e '
	my $s = IO::Socket::UNIX->new(Peer => shift) or die "$!\n";
	print $s "from the host\n";
	alarm 100;
	print scalar <$s>;' "$scratch/port" >"$scratch/answer" 2>&1 &
reader=$!
vm_run 60 'exec 3<>/dev/virtio-ports/org.example.0; read -r line <&3; echo "$line"; echo from the guest >&3'
is "$out" 'from the host' "a line of the host comes to the guest"
wait $reader
is "$(<"$scratch/answer")" 'from the guest' "and one of the guest to the host"
vm_ok 60 'exec 3>&-; systemctl stop qemu-guest-agent' "the agent is stopped"
agent ping "$vm"
[[ $said == *'no agent runs in the guest'* ]]
ok $? "which is said"
vm_ok 60 'systemctl start qemu-guest-agent' "and started"
end=$(patience 60)
until agent ping "$vm" || [ "$EPOCHSECONDS" -gt "$end" ]; do sleep 1; done
[[ $said == *answers* ]]
ok $? "it answers again"
vm_kernel_log
timeout 100 "$maru" guest shutdown "$vm" >"$scratch/off" 2>&1
ok $? "shutdown: $(<"$scratch/off")"
vm_off 200 ''
