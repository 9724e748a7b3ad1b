#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
#
# maru run on a terminal: its modes are restored whatever happens, and a terminal that goes away ends the VM. script(1)
# makes the terminals.

. "$(dirname "$0")/lib.sh"
pids=()
at_end()
{
	for pid in "${pids[@]}"; do
		kill -9 "$pid" 2>/dev/null
	done
}

# Writes "Hi" to the serial port, then halts, deaf to the power button.
multiboot "$dir/deaf.bin" '\xba\xf8\x03\x00\x00\xb0\x48\xee\xb0\x69\xee\xfa\xf4\xeb\xfd'
cat >"$dir/run" <<EOF
stty -g >"$dir/before"
sh -c 'echo \$\$ >"$dir/pid"; exec "$maru" run --kernel "$dir/deaf.bin" --net none --memory 32M --control "$dir/ctl"'
echo \$? >"$dir/status.new"
sleep 0.5
stty -g >"$dir/after"
mv "$dir/status.new" "$dir/status"
EOF

# Within $1 tenths of a second the rest is true.
within()
{
	local k
	for k in $(seq "$1"); do
		"${@:2}" && return 0
		sleep 0.1
	done
	return 1
}

# Starts it on a new terminal, with what is typed from the FIFO keys.
start()
{
	rm -f "$dir"/{pid,status,after,before,ctl,keys}
	mkfifo "$dir/keys"
	script -qfc "bash $dir/run" "$dir/typescript" <"$dir/keys" >/dev/null 2>&1 &
	script=$!
	exec 4>"$dir/keys"
	pids+=("$script")
	within 100 test -s "$dir/pid" || return 1
	pid=$(<"$dir/pid")
	pids+=("$pid")
	within 100 test -S "$dir/ctl" && within 100 grep -q Hi "$dir/typescript" && vm=$(pgrep -P "$pid" -x maru-vm)
}

dead()
{
	local p
	for p in "$@"; do
		[ -d "/proc/$p" ] && ! grep -q '^State:.Z' "/proc/$p/status" 2>/dev/null && return 1
	done
	return 0
}

same_modes()
{
	[ -s "$dir/before" ] && cmp -s "$dir/before" "$dir/after"
}

command -v script >/dev/null || {
	echo "1..0 # skip script(1) is missing"
	exit 0
}

start
result $? "a VM starts on a terminal; what the guest writes is seen there"
printf '\035s' >&4
within 100 grep -qE '\[maru\] deaf.bin is running, up 0:00:[0-9]+, 1 vCPUs, 32 MiB, engine (bt|kvm); sandbox: ' "$dir/typescript"
result $? "Ctrl-] s shows what it is"
printf '\035q' >&4
within 100 test -e "$dir/status" && [ "$(<"$dir/status")" = 0 ]
result $? "Ctrl-] q quits"
same_modes
result $? "the terminal's modes are as before"
exec 4>&-
wait "$script"

start
kill -9 "$pid"
within 100 test -e "$dir/status" && same_modes
result $? "kill -9 of maru: the terminal's modes are restored"
within 100 dead "$vm" && within 20 test ! -e "$dir/ctl"
result $? "and no process and no socket is left"
exec 4>&-
wait "$script"

start
kill -9 "$vm"
within 100 test -e "$dir/status" && [ "$(<"$dir/status")" = 6 ] && same_modes
result $? "kill -9 of maru-vm: status 6, and the modes are restored"
grep -q 'ended by signal 9' "$dir/typescript"
result $? "maru says what happened"
exec 4>&-
wait "$script"

start
others=$(pgrep -P "$pid")
kill -9 "$script"
wait "$script" 2>/dev/null
sleep 2
kill -0 "$vm" 2>/dev/null
result $? "the terminal goes away: the guest gets the power button, and time"
# shellcheck disable=SC2086
within 450 dead "$pid" $others && [ ! -e "$dir/ctl" ]
result $? "a guest that does not heed it is ended; no process and no socket is left"

exec 4>&-

# A process in the VM's place that somebody has taken over: what it says on the control socket cannot play with the terminal.
mkdir "$dir/bin"
cp "$maru" "$dir/bin/maru"
cat >"$dir/bin/maru-vm" <<'END'
#!/usr/bin/perl
use JSON::PP;
exit 2 if $ARGV[0] ne '--config-fd';
open my $config, '<&=', $ARGV[1] or die;
my $fd = decode_json(join '', <$config>)->{control}{client_fd};
open my $control, '+<&=', $fd or die;
$control->autoflush;
while (<$control>) {
	/"id": "([a-z-]*)"/ or die;
	exit 0 if $1 eq 'quit';
	print $control $1 eq 'status' ? '{"id":"status","ok":true,"result":{"name":"\u001b[2J","state":"\u009b2J","sandbox":{"\u001b[3J":"\u0007"},"engine":7}}' :
		'{"id":"reset","ok":false,"error":"no \u001b[4J way"}', "\n";
}
END
chmod +x "$dir/bin/maru-vm"
maru=$dir/bin/maru
sed -i "s|exec \"[^\"]*\" run|exec \"$maru\" run --engine bt|" "$dir/run"
rm -f "$dir"/{status,keys}
mkfifo "$dir/keys"
script -qfc "bash $dir/run" "$dir/typescript" <"$dir/keys" >/dev/null 2>&1 &
script=$!
exec 4>"$dir/keys"
pids+=("$script")
within 100 test -s "$dir/pid"
sleep 0.5
printf '\035s' >&4
within 50 grep -q 'sandbox' "$dir/typescript"
printf '\035r' >&4
within 50 grep -q ' way' "$dir/typescript"
printf '\035q' >&4
within 100 test -e "$dir/status" && grep -q '\[maru\] ?\[2J is ?2J, up 0:00:00, 0 vCPUs, 0 bytes, engine ; sandbox: ?\[3J ?;' "$dir/typescript" &&
	grep -q '\[maru\] no ?\[4J way' "$dir/typescript"
result $? "what a VM says in the menu cannot play with the terminal"

finish_tests
