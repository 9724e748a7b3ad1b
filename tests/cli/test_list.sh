#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
#
# maru list, and the names of running VMs: those that run, that hang, that lie, and those that were killed with all that belongs to them.

. "$(dirname "$0")/lib.sh"

export XDG_RUNTIME_DIR=$dir/runtime
mkdir "$dir/runtime"
folder=$dir/runtime/maru
pids=()
at_end()
{
	local pid
	for pid in "${pids[@]}"; do
		kill -KILL "$pid" $(pgrep -P "$pid") 2>/dev/null
	done
}

multiboot "$dir/halt.bin" '\xfa\xf4\xeb\xfd'
# start ARGUMENT… — a VM that halts; its maru run is ${pids[-1]}.
start()
{
	"$maru" run --kernel "$dir/halt.bin" --engine bt --memory 32M --serial none --net none "$@" </dev/null >"$dir/vm" 2>&1 &
	pids+=($!)
	disown # so that the shell says nothing of its end
}

# lists STATUS TEXT… — what `maru list` says has them all, in $dir/out.
lists()
{
	local want=$1 got text
	shift
	timeout 20 "$maru" list >"$dir/out" 2>"$dir/err"
	got=$?
	cat "$dir/out" >>"$dir/err"
	[ "$got" = "$want" ] || return 1
	for text; do
		grep -qE -- "$text" "$dir/err" || { echo "no '$text'" >>"$dir/err"; return 1; }
	done
}
within() # TENTHS COMMAND…
{
	for _ in $(seq "$1"); do
		"${@:2}" && return
		sleep 0.1
	done
	return 1
}

lists 0 '^NAME +STATE' && [ "$(wc -l <"$dir/out")" = 1 ]
result $? "no VM has ever run"
start
within 100 lists 0 "^halt.bin +running +bt +1 +32 MiB +0:00:[0-9]+ +${pids[0]}\$"
result $? "a VM, and the process of its maru run"
start
within 100 lists 0 '^halt.bin +running' "^halt.bin-2 +running .* ${pids[1]}\$"
result $? "a second one of the same image gets a number"
(cd "$dir" && mkdir here && cd here && start --control ctl && echo "${pids[-1]}" >../pid)
pids+=("$(<"$dir/pid")")
within 100 lists 0 "^halt.bin-3 +running .* ${pids[2]}\$"
result $? "one with a control socket elsewhere, too"
timeout 20 "$maru" status halt.bin-3 >"$dir/out" 2>"$dir/err" && grep -q '^name *halt.bin-3$' "$dir/out"
result $? "and its name leads there"
timeout 20 "$maru" guest ping halt.bin-3 >"$dir/out" 2>"$dir/err"
grep -q 'no agent runs in the guest' "$dir/err" && [ "$(readlink "$folder/halt.bin-3.control.agent")" = "$dir/here/ctl.agent" ]
result $? "as that of its agent"
start --name web --control "$dir/web"
within 100 lists 0 '^web +running'
for option in '' --control="$dir/other"; do
	timeout -s KILL 20 "$maru" run --kernel "$dir/halt.bin" --name web --net none --serial none $option </dev/null >"$dir/out" 2>"$dir/err"
	[ $? = 2 ] && grep -q "a VM named 'web' is running already" "$dir/err"
	result $? "a name that was asked for is the VM's alone (${option%=*})"
done
start
within 100 lists 0 '^halt.bin-4 +running'
result $? "names that are links are taken, too"
timeout 20 "$maru" list -o json 2>"$dir/err" | perl -MJSON::PP -0777 -e '
	my %vm = map { $_->{name} => $_ } @{decode_json(<STDIN>)};
	my $vm = $vm{web};
	exit !(keys %vm == 5 && $vm->{state} eq "running" && $vm->{engine} eq "bt" && $vm->{cpus} == 1 && $vm->{memory} == 32 << 20 &&
		$vm->{uptime_ns} > 0 && $vm->{pid} == $ARGV[0]);' "${pids[3]}"
result $? "as JSON"

for pid in "${pids[0]}" "${pids[1]}" "${pids[2]}"; do
	kill -STOP "$(pgrep -P "$pid" -x maru-vm)"
done
lists 0 "^halt.bin +not answering +- +- +- +- +${pids[0]}\$" '^halt.bin-2 +not answering' '^halt.bin-3 +not answering' '^halt.bin-4 +running' '^web +running'
result $? "those that hang are said to"
perl -MIO::Socket::UNIX -e '
	my @all = map { IO::Socket::UNIX->new(Local => "$ARGV[0]/silent-$_.control", Listen => 1) or die "$!\n" } 1 .. 15;
	sleep 600;' "$folder" &
silent=$!
disown
within 50 test -S "$folder/silent-15.control"
lists 0 '^silent-1 +not answering' '^silent-15 +not answering' '^web +running'
result $? "and many are not waited for one after the other, which would take longer than we wait"
kill -KILL $silent
rm -f "$folder"/silent-*
timeout 20 "$maru" list -o json 2>"$dir/err" | perl -MJSON::PP -0777 -e '
	my %vm = map { $_->{name} => $_ } @{decode_json(<STDIN>)};
	exit !($vm{"halt.bin"}{state} eq "not answering" && !exists $vm{"halt.bin"}{memory} && $vm{web}{state} eq "running");'
result $? "also as JSON"

# killed PID — that maru run and all that belongs to it, at once, the guard with them.
killed() { kill -KILL "$1" $(pgrep -P "$1"); }
killed "${pids[0]}"
killed "${pids[2]}"
[ -S "$folder/halt.bin.control" ] && [ -L "$folder/halt.bin-3.control" ] && within 50 lists 0 && ! grep -qE '^halt.bin(-3)? ' "$dir/out"
result $? "sockets that were left behind are not listed"
start --control "$dir/new"
within 100 lists 0 "^halt.bin +running .* ${pids[5]}\$"
start
within 100 lists 0 "^halt.bin +running .* ${pids[5]}\$" "^halt.bin-3 +running .* ${pids[6]}\$"
result $? "their names are taken again: a socket's by a link, a link's by a socket"
[ -L "$folder/halt.bin.control" ] && [ -S "$folder/halt.bin-3.control" ] && [ ! -L "$folder/halt.bin-3.control" ] && [ ! -L "$folder/halt.bin-3.control.agent" ]
result $? "which are what they should be"
kill -KILL "$(pgrep -P "${pids[1]}" -x maru-vm)"
kill -TERM "${pids[@]:3:4}"
sleep 0.5
kill -TERM "${pids[@]:3:4}" # it halts, deaf to the power button
empty() { [ -z "$(ls -A "$folder")" ]; }
within 100 empty
result $? "nothing is left of those that end"
[ ! -e "$dir/web" ] && [ ! -e "$dir/web.agent" ] && [ ! -e "$dir/new" ]
result $? "elsewhere neither"

# What is no VM: garbage in the folder, and one that lies.
touch "$folder/file.control" "$folder/no" "$folder/$(printf 'x%.0s' {1..200}).control" "$folder/$(printf 'a\033[2Jb').control" "$folder/.control"
mkfifo "$folder/fifo.control"
ln -s loop.control "$folder/loop.control"
perl -MIO::Socket::UNIX -e '
	my $l = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die "$!\n";
	my $s = $l->accept;
	my ($id) = <$s> =~ /"id": ?"([^"]*)"/;
	print $s qq({"id":"$id","ok":true,"result":{"state":"\\u001b[2J\\u009b","engine":"\\u0007","cpus":-1,"memory":"x","uptime_ns":1e99}}\n);' "$folder/liar.control" &
pids+=($!)
within 50 test -S "$folder/liar.control"
lists 0 '^liar +\?\[2J' && [ "$(wc -l <"$dir/out")" = 2 ] && ! LC_ALL=C grep -qP '[\x00-\x09\x0b-\x1f\x80-\xff]' "$dir/out"
result $? "what is no VM, and what a VM says, is no trouble"
chmod 755 "$folder"
lists 2 'nobody else can enter'
result $? "a folder that others can enter is not believed"
lists_nothing_else() { timeout 20 "$maru" list "$@" >"$dir/out" 2>"$dir/err"; [ $? = 2 ] && grep -q 'takes nothing but -o json' "$dir/err"; }
lists_nothing_else web && lists_nothing_else --all
result $? "list takes no names and no options"

finish_tests
